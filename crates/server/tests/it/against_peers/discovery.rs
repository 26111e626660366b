//! Discovery: the issuer is compared as text, and who mistypes it is told both.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_another_issuer_is_refused_with_both_names() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[]));
    let other_name = peer.issuer.replace("127.0.0.1", "localhost");
    for wrong in [format!("{}/", peer.issuer), other_name] {
        let mut integration = oidc(&peer, "wrong", "client_credentials", "c-basic");
        integration["variables"]["issuer"] = wrong.clone().into();
        let problem = app.admin().post("/v1/integrations", integration).await.problem(422, "discovery");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("`{wrong}`")), "{detail}");
        assert!(detail.contains(&format!("`{}`", peer.issuer)), "{detail}");
    }
    app.admin().get("/v1/integrations/wrong").await.problem(404, "not_found");
    assert_eq!(asked(&peer, "/token"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_the_document_will_do() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[]));
    let mut integration = oidc(&peer, "pasted", "client_credentials", "c-basic");
    integration["variables"]["issuer"] = format!("{}/.well-known/openid-configuration", peer.issuer).into();
    draft(&app, integration).await;
    authorize(&app, "pasted").await.ok(200);
    assert_eq!(call(&app, Method::GET, "pasted", "/x", "").await.status, 200);
    assert_eq!(asked(&peer, "/.well-known/openid-configuration"), 1, "asked once, then remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_none_is_said_so() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[]));
    // The API answers 401 everywhere, a path of the issuer 404; behind port 1 there is nobody.
    let cases = [
        (peer.resource.trim_end_matches('/').to_owned(), 422, "discovery"),
        (format!("{}/realms/none", peer.issuer), 422, "discovery"),
        ("http://127.0.0.1:1".to_owned(), 502, "discovery_unreachable"),
    ];
    for (issuer, status, code) in cases {
        let mut integration = oidc(&peer, "none", "client_credentials", "c-basic");
        integration["variables"]["issuer"] = issuer.clone().into();
        let problem = app.admin().post("/v1/integrations", integration).await.problem(status, code);
        let detail = problem["detail"].as_str().unwrap();
        let authority = issuer.trim_start_matches("http://").split('/').next().unwrap();
        assert!(detail.contains(authority) && detail.contains("check the issuer"), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_drafted_from_the_document() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    let draft = app.admin().post("/v1/providers/discover", json!({"url": peer.issuer})).await.ok(200);
    let definition = draft["definition"].as_str().unwrap();
    let check = app.admin().post("/v1/providers/check", json!({"definition": definition})).await.ok(200);
    assert_eq!(check["ok"], true, "{definition}\n{check}");
    let added = app.admin().post("/v1/providers", json!({"definition": definition})).await.ok(201);
    // It works as it was drafted: nothing but the client is asked for.
    let integration = json!({
        "name": "drafted", "provider": added["id"], "method": "client_credentials",
        "client_id": "c-basic", "client_secret": OidcProvider::SECRET, "scopes": ["read"],
    });
    app.admin().post("/v1/integrations", integration).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": "drafted", "integration": "drafted"})).await.ok(201);
    authorize(&app, "drafted").await.ok(200);
    assert_eq!(direct(&peer, &access_token(&app, "drafted").await).await.status, 200);
}
