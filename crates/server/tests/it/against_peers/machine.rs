//! Client credentials.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_known_whichever_way_it_authenticates() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    let clients = [
        ("basic", "c-basic", OidcProvider::SECRET, None),
        ("post", "c-post", OidcProvider::SECRET, Some("post")),
        // RFC 6749 §2.3.1: both parts are form-encoded before they go into the header.
        ("odd", "c:odd id/+%", OidcProvider::ODD_SECRET, None),
    ];
    for (name, client, secret, auth) in clients {
        let mut integration = oidc(&peer, name, "client_credentials", client);
        integration["client_secret"] = secret.into();
        integration["client_auth"] = auth.into();
        draft(&app, integration).await;
        assert_eq!(authorize(&app, name).await.ok(200)["state"], "connected", "{client}");

        let through = call(&app, Method::GET, name, "/things?q=a%20b", "").await.ok_json();
        assert_eq!((&through["client_id"], &through["scope"]), (&json!(client), &json!("read")));
        assert_eq!(through["path"], "/things?q=a%20b");
        assert_eq!(through["scheme"], "Bearer");

        let reply = token(&app, name, "").await.ok(200);
        assert_eq!((&reply["token_type"], &reply["scope"]), (&json!("Bearer"), &json!("read")));
        assert!((1..=60).contains(&reply["expires_in"].as_i64().unwrap()), "{reply}");
        let by_hand = direct(&peer, reply["access_token"].as_str().unwrap()).await.ok_json();
        assert_eq!(by_hand["client_id"], client);
    }
    assert_eq!(peer.token_requests("client_credentials"), 3, "one token each, used for everything");
    assert_eq!(peer.token_requests("refresh_token"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_recognised_is_a_wrong_set_up() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[]));
    draft(&app, oidc(&peer, "unknown", "client_credentials", "c-nobody")).await;
    let mut raw = oidc(&peer, "raw", "client_credentials", "c:odd id/+%");
    raw["client_secret"] = OidcProvider::ODD_SECRET.into();
    raw["client_auth"] = "raw_basic".into();
    draft(&app, raw).await;

    let unknown = authorize(&app, "unknown").await.problem(502, "setup_refused");
    assert_eq!(unknown["failure"]["code"], "invalid_client", "{unknown}");
    assert!(unknown["failure"]["remedy"].as_str().unwrap().contains("client_auth"), "{unknown}");
    // The server tells which rule the header breaks; its words are passed on.
    let raw = authorize(&app, "raw").await.problem(502, "setup_refused");
    assert!(raw["failure"]["message"].as_str().unwrap().contains("not properly encoded"), "{raw}");
    assert!(raw["failure"]["remedy"].as_str().unwrap().contains("client authentication"), "{raw}");
    assert_eq!(asked(&peer, "/token"), 2, "no other way is tried on the quiet");
}

/// The server wants `resource` (RFC 8707), which the built-in `oidc` doesn't send: its `audience` is what others want. A definition can say it.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_of_ones_own_names_the_resource() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    app.admin().post("/v1/providers", json!({"definition": WITH_RESOURCE})).await.ok(201);
    let mut integration = oidc(&peer, "jwt", "client_credentials", "c-basic");
    integration["provider"] = "with-resource".into();
    integration["audience"] = format!("{}files", peer.resource).into();
    draft(&app, integration).await;
    authorize(&app, "jwt").await.ok(200);
    let token = access_token(&app, "jwt").await;
    let claims = claims(&token);
    assert_eq!(claims["aud"], format!("{}files", peer.resource));
    assert_eq!(direct(&peer, &token).await.ok_json()["client_id"], "c-basic");

    // The same under `oidc`: `audience` means nothing to this server, so its token is for nobody in particular.
    let mut integration = oidc(&peer, "opaque", "client_credentials", "c-basic");
    integration["audience"] = peer.resource.clone().into();
    draft(&app, integration).await;
    authorize(&app, "opaque").await.ok(200);
    assert!(!access_token(&app, "opaque").await.contains('.'), "an opaque token");

    // A resource that the server doesn't know.
    let mut integration = oidc(&peer, "unknown", "client_credentials", "c-basic");
    integration["provider"] = "with-resource".into();
    integration["audience"] = "https://elsewhere.example/".into();
    draft(&app, integration).await;
    let problem = authorize(&app, "unknown").await.problem(502, "setup_refused");
    assert_eq!(problem["failure"]["code"], "invalid_target");
    assert!(problem["failure"]["remedy"].as_str().unwrap().contains("audience"), "{problem}");
}

fn claims(jwt: &str) -> Value {
    use base64::Engine;
    let payload = jwt.split('.').nth(1).unwrap_or_else(|| panic!("no JWT: {jwt}"));
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// A server with a discovery document that wants `resource`, and `prompt=consent` with every consent.
pub(super) const WITH_RESOURCE: &str = r#"
schema = 1
id = "with-resource"
name = "Resource Indicators"
source = ["https://www.rfc-editor.org/rfc/rfc8707"]

[[methods]]
grant = "authorization_code"
label = "A person consents"
scopes = { default = ["openid", "offline_access", "read"] }

[[methods]]
grant = "client_credentials"
label = "The application acts for itself"

[variables.issuer]
label = "Issuer"
help = "As in the discovery document."
kind = "url"

[variables.api_base_url]
label = "API base URL"
help = "What paths are appended to."
kind = "url"

[discover]
issuer = "{{issuer}}"

[authorize]
nonce = true
params = { resource = "{{audience}}", prompt = "consent" }

[token]
params = { resource = "{{audience}}" }

[refresh]
recovery = "family"

[api]
base_url = "{{api_base_url}}"
"#;
