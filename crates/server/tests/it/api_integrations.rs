//! Integrations and providers on the wire.

use serde_json::{Value, json};

use crate::app::App;

#[tokio::test]
async fn an_integration_is_shown_without_its_secret() {
    let app = App::start().await;
    let made = app.admin().post("/v1/integrations", app.integration_body("crm", "authorization_code")).await;
    assert!(!made.text().contains("sandbox-secret"));
    let made = made.ok(201);
    assert!(made["id"].as_str().unwrap().starts_with("int_"), "{made}");
    assert_eq!(
        (&made["provider"], &made["method"], &made["grant"]),
        (&json!("oauth2"), &json!("authorization_code"), &json!("authorization_code"))
    );
    assert_eq!((&made["has_client_secret"], &made["client_id"]), (&json!(true), &json!("sandbox-basic")));
    assert_eq!(made["redirect_uri"], format!("{}/callback/{}", app.url, made["id"].as_str().unwrap()));
    assert!(made["redirect_note"].as_str().unwrap().contains("character"), "{made}");

    let mut listed = app.admin().get("/v1/integrations").await.ok(200)["items"][0].clone();
    assert_eq!(listed, app.admin().get("/v1/integrations/crm").await.ok(200));
    assert_eq!(listed.as_object_mut().map(std::mem::take), made.as_object().cloned(), "list, show and add agree");
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let app = App::start().await;
    let mut body = app.integration_body("crm", "authorization_code");
    body["audience"] = "https://api.example".into();
    body["header_prefix"] = "Token".into();
    let admin = app.admin();
    let before = admin.post("/v1/integrations", body).await.ok(201);
    let at = "/v1/integrations/crm";

    let after = admin.patch(at, json!({})).await.ok(200);
    for (name, value) in before.as_object().unwrap().iter().filter(|(name, _)| *name != "updated_at") {
        assert_eq!(&after[name], value, "an empty change leaves {name}");
    }
    let after = admin.patch(at, json!({"scopes": ["read"], "client_auth": "basic"})).await.ok(200);
    assert_eq!((&after["scopes"], &after["client_auth"]), (&json!(["read"]), &json!("basic")));
    assert_eq!((&after["audience"], &after["header_prefix"]), (&json!("https://api.example"), &json!("Token")));
    assert_eq!(after["has_client_secret"], true, "a secret that isn't named stays");
    let after = admin.patch(at, json!({"audience": null, "header_prefix": null, "client_auth": null})).await.ok(200);
    assert_eq!(
        (&after["audience"], &after["header_prefix"], &after["client_auth"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let after = admin.patch(at, json!({"variables": {"revocation_url": ""}})).await.ok(200);
    assert!(after["variables"].get("revocation_url").is_none(), "an empty value takes a variable away");
    assert_eq!(after["variables"]["token_url"], before["variables"]["token_url"]);
    let after = admin.patch(at, json!({"name": "Zoë"})).await.ok(200);
    assert_eq!((&after["id"], &after["name"]), (&before["id"], &json!("Zoë")));
    assert_eq!(after["redirect_uri"], before["redirect_uri"], "the redirect URI is registered somewhere: it stays");
    admin.get(at).await.problem(404, "not_found");
    admin.get("/v1/integrations/Zo%C3%AB").await.ok(200);
}

#[tokio::test]
async fn a_bad_patch_changes_nothing() {
    let app = App::start().await;
    app.integration("crm", "client_credentials").await;
    app.integration("other", "client_credentials").await;
    let admin = app.admin();
    let before = admin.get("/v1/integrations/crm").await.ok(200);
    let at = "/v1/integrations/crm";
    for (patch, status, code) in [
        (json!({"name": "other"}), 409, "name_taken"),
        (json!({"name": "a/b"}), 422, "invalid"),
        (json!({"client_id": ""}), 422, "invalid"),
        (json!({"client_secret": ""}), 422, "invalid"),
        (json!({"client_auth": "telepathy"}), 422, "invalid"),
        (json!({"variables": {"token_url": ""}}), 422, "invalid"),
        (json!({"variables": {"token_url": "ftp://x"}}), 422, "invalid"),
        (json!({"variables": {"unheard_of": "x"}}), 422, "invalid"),
        (json!({"provider": "oidc"}), 422, "invalid"),
        (json!({"method": "password"}), 422, "invalid"),
    ] {
        let reply = admin.patch(at, patch.clone()).await;
        assert_eq!(reply.status, status, "{patch}: {}", reply.text());
        reply.problem(status, code);
        assert_eq!(admin.get(at).await.ok(200), before, "{patch}");
    }
}

#[tokio::test]
async fn a_corrected_secret_repairs_the_connections_under_it() {
    let app = App::start().await;
    let admin = app.admin();
    let mut body = app.integration_body("crm", "client_credentials");
    body["client_secret"] = "out of date".into();
    admin.post("/v1/integrations", body).await.ok(201);
    admin.post("/v1/connections", json!({"name": "m", "integration": "crm"})).await.ok(201);
    let problem = admin.post("/v1/connections/m/authorize", json!({})).await.problem(502, "setup_refused");
    assert_eq!(problem["failure"]["code"], "invalid_client");
    assert!(!problem.to_string().contains("out of date"));
    assert!(problem["failure"]["remedy"].as_str().unwrap().contains("client secret"), "{problem}");
    admin.patch("/v1/integrations/crm", json!({"client_secret": "sandbox-secret"})).await.ok(200);
    admin.get("/v1/connections/m/token").await.ok(200);
    assert_eq!(app.state("m").await, "connected");
}

#[tokio::test]
async fn every_way_to_authenticate_a_client_reaches_the_provider() {
    let app = App::start().await;
    for (client, auth, secret) in [
        ("sandbox-basic", json!("basic"), true),
        ("sandbox-post", json!("post"), true),
        ("sandbox-json", json!("json"), true),
    ] {
        let mut body = app.integration_body(client, "client_credentials");
        body["client_id"] = client.into();
        body["client_auth"] = auth;
        assert!(secret);
        app.admin().post("/v1/integrations", body).await.ok(201);
        app.admin().post("/v1/connections", json!({"name": client, "integration": client})).await.ok(201);
        app.admin().post(&format!("/v1/connections/{client}/authorize"), json!({})).await.ok(200);
    }
}

#[tokio::test]
async fn a_public_client_consents_without_a_secret() {
    let app = App::start().await;
    let mut body = app.integration_body("public", "authorization_code");
    body["client_id"] = "sandbox-public".into();
    body["client_auth"] = "none".into();
    body.as_object_mut().unwrap().remove("client_secret");
    let made = app.admin().post("/v1/integrations", body).await.ok(201);
    assert_eq!(made["has_client_secret"], false);
    app.admin().post("/v1/connections", json!({"name": "alice", "integration": "public"})).await.ok(201);
    let begun = app.admin().post("/v1/connections/alice/authorize", json!({})).await.ok(200);
    let person = app.person();
    let page = person.follow(begun["authorize_url"].as_str().unwrap()).await;
    person.post(&page.url, &[("decision", "yes")]).await;
    assert_eq!(app.state("alice").await, "connected");
    app.admin().post("/v1/connections/alice/refresh", json!({})).await.ok(200);
}

#[tokio::test]
async fn oidc_needs_only_the_issuer() {
    let app = App::start().await;
    let base = app.sandbox.base_url();
    let mut body = app.integration_body("crm", "client_credentials");
    body["provider"] = "oidc".into();
    for issuer in [base.to_owned(), format!("{base}/.well-known/openid-configuration")] {
        let name = app.unique("oidc");
        body["name"] = name.clone().into();
        body["variables"] = json!({"issuer": issuer, "api_base_url": format!("{base}/api")});
        app.admin().post("/v1/integrations", body.clone()).await.ok(201);
        app.admin().post("/v1/connections", json!({"name": name, "integration": name})).await.ok(201);
        app.admin().post(&format!("/v1/connections/{name}/authorize"), json!({})).await.ok(200);
    }
}

#[tokio::test]
async fn the_catalogue_is_listed_and_each_of_it_shown() {
    let app = App::start().await;
    let reader = app.key(&["read"]).await;
    let list = reader.get("/v1/providers").await.ok(200);
    let items = list["items"].as_array().unwrap();
    assert!(items.len() >= 14, "{}", items.len());
    for item in items {
        let id = item["id"].as_str().unwrap();
        assert_eq!(&reader.get(&format!("/v1/providers/{id}")).await.ok(200), item, "{id}");
        assert!(!item["methods"].as_array().unwrap().is_empty(), "{id}");
    }
    reader.get("/v1/providers/nobody").await.problem(404, "not_found");
}

const OWN: &str = r#"
schema = 1
id = "acme"
name = "Acme"
source = ["https://acme.example/docs"]
[[methods]]
grant = "client_credentials"
[token]
url = "https://acme.example/token"
"#;

#[tokio::test]
async fn an_own_definition_is_checked_added_and_replaced_but_never_a_built_in_one() {
    let app = App::start().await;
    let admin = app.admin();
    let checked = admin.post("/v1/providers/check", json!({"definition": OWN})).await.ok(200);
    assert_eq!(checked, json!({"ok": true, "errors": []}));
    admin.get("/v1/providers/acme").await.problem(404, "not_found");
    assert_eq!(admin.post("/v1/providers", json!({"definition": OWN})).await.ok(201)["name"], "Acme");
    let renamed = OWN.replace("name = \"Acme\"", "name = \"Acme 2\"");
    admin.post("/v1/providers", json!({"definition": renamed})).await.ok(201);
    assert_eq!(admin.get("/v1/providers/acme").await.ok(200)["name"], "Acme 2");
    let built_in = OWN.replace("id = \"acme\"", "id = \"oauth2\"");
    admin.post("/v1/providers", json!({"definition": built_in})).await.problem(409, "name_taken");
    assert_eq!(admin.get("/v1/providers/oauth2").await.ok(200)["name"], "OAuth 2.0");
}

#[tokio::test]
async fn a_definition_is_drafted_from_an_issuer() {
    let app = App::start().await;
    let base = app.sandbox.base_url().to_owned();
    let draft = app.admin().post("/v1/providers/discover", json!({"url": base})).await.ok(200);
    let definition = draft["definition"].as_str().unwrap();
    assert!(definition.contains(&format!("{base}/token")) || definition.contains(&base), "{definition}");
    let checked = app.admin().post("/v1/providers/check", json!({"definition": definition})).await.ok(200);
    assert_eq!(checked["ok"], true, "what is drafted can be added: {checked}\n{definition}");
    let problem = app.admin().post("/v1/providers/discover", json!({"url": "no url"})).await.problem(422, "invalid");
    assert_eq!(problem["errors"][0]["field"], "url");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_drafted_from_an_api() {
    let app = App::start().await;
    let base = app.sandbox.base_url().to_owned();
    // By its address, by its document, and by a path whose refusal points to the document.
    for place in ["/api", "/.well-known/oauth-protected-resource/api", "/api/me"] {
        let url = format!("{base}{place}");
        let draft = app.admin().post("/v1/providers/discover", json!({"url": url})).await.ok(200);
        let definition = draft["definition"].as_str().unwrap();
        assert!(definition.contains(&format!("base_url = \"{base}/api\"")), "{place}: {definition}");
        assert!(definition.contains("default = [\"openid\", \"read\", \"write\"]"), "{definition}");
        let checked = app.admin().post("/v1/providers/check", json!({"definition": definition})).await.ok(200);
        assert_eq!(checked["ok"], true, "what is drafted can be added: {checked}\n{definition}");
    }
    // It works as it was drafted.
    let drafted = app.command(&["provider", "discover", &format!("{base}/api")]);
    assert_eq!(drafted.code, Some(0), "{drafted:?}");
    let added = app.admin().post("/v1/providers", json!({"definition": drafted.out})).await.ok(201);
    let integration = json!({
        "name": "api", "provider": added["id"], "method": "client_credentials", "client_id": "sandbox-basic", "client_secret": "sandbox-secret", "scopes": ["read"],
    });
    app.admin().post("/v1/integrations", integration).await.ok(201);
    assert_eq!(app.command(&["connect", "api"]).code, Some(0));
    let called = app.command(&["call", "api", "/me"]);
    assert_eq!(called.code, Some(0), "{called:?}");
    // Neither an issuer nor an API.
    app.admin()
        .post("/v1/providers/discover", json!({"url": format!("{base}/nowhere")}))
        .await
        .problem(422, "discovery");
}

/// A certificate made for this test, and its key.
const CERTIFICATE: &str = include_str!("client.crt");
const CERTIFICATE_KEY: &str = include_str!("client.key");

#[tokio::test]
async fn keys_and_certificates_are_kept_and_only_the_public_part_is_shown() {
    let app = App::start().await;
    let admin = app.admin();
    let mut body = app.integration_body("crm", "client_credentials");
    body.as_object_mut().unwrap().remove("client_secret");
    body["client_auth"] = "private_key_jwt".into();
    admin.post("/v1/integrations", body.clone()).await.invalid("client_key", "private_key_jwt");
    body["client_key"] = "-----BEGIN PRIVATE KEY-----".into();
    admin.post("/v1/integrations", body.clone()).await.invalid("client_key", "private key");
    body["client_key"] = r#"{"kty":"oct","k":"planted-key"}"#.into();
    body["grant_type"] = "account_credentials".into();
    body["token_key"] = "/data/token".into();
    let made = admin.post("/v1/integrations", body).await;
    assert!(!made.text().contains("planted-key"));
    let made = made.ok(201);
    assert_eq!((&made["has_client_key"], &made["has_client_secret"]), (&json!(true), &json!(false)));
    assert_eq!((&made["grant_type"], &made["token_key"]), (&json!("account_credentials"), &json!("/data/token")));
    assert!(made["provider_version"].as_str().unwrap().starts_with("built-in-"), "{made}");

    let at = "/v1/integrations/crm";
    let tls = json!({"client_auth": "tls", "client_certificate": CERTIFICATE});
    admin.patch(at, tls.clone()).await.invalid("client_certificate_key", "missing");
    let tls = json!({"client_auth": "tls", "client_certificate": CERTIFICATE, "client_certificate_key": CERTIFICATE_KEY, "client_key": ""});
    let after = admin.patch(at, tls).await.ok(200);
    assert_eq!((&after["client_certificate"], &after["has_client_key"]), (&json!(CERTIFICATE), &json!(false)));
    admin.patch(at, json!({"client_certificate": null})).await.invalid("client_certificate", "missing");
    let after = admin
        .patch(at, json!({"client_auth": null, "client_secret": "s", "client_certificate": null, "grant_type": null}))
        .await
        .ok(200);
    assert_eq!((&after["client_certificate"], &after["grant_type"]), (&Value::Null, &Value::Null));

    let manager = app.key(&["read", "manage"]).await;
    manager.patch(at, json!({"token_key": "/refresh_token"})).await.problem(403, "forbidden");
}
