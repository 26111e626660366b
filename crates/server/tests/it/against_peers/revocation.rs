//! Ending a connection ends its grant at the provider.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn revoking_ends_the_grant_at_the_provider() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60"), ("ALWAYS_RT", "1")]));
    machine(&app, &peer, "machine").await;
    consented(&app, &peer, "person").await;
    let mut by_post = oidc(&peer, "post", "client_credentials", "c-post");
    by_post["client_auth"] = "post".into();
    draft(&app, by_post).await;
    authorize(&app, "post").await.ok(200);
    for (before, name) in ["machine", "person", "post"].into_iter().enumerate() {
        let token = access_token(&app, name).await;
        assert!(is_active(&peer, &token).await);
        let path = format!("/v1/connections/{name}/revoke");
        let ended = app.admin().post(&path, json!({})).await.ok(200);
        assert_eq!(ended["revocation"]["outcome"], "revoked", "{ended}");
        assert_eq!((&ended["connection"]["state"], &ended["connection"]["color"]), (&json!("revoked"), &json!("grey")));
        assert_eq!(asked(&peer, "/token/revocation"), before + 1);
        assert!(!is_active(&peer, &token).await, "{name}: also the access token, whichever token was revoked");
        assert_eq!(direct(&peer, &token).await.status, 401);

        let sent = asked(&peer, "/token");
        self::token(&app, name, "").await.problem(409, "not_connected");
        assert_eq!(call(&app, Method::GET, name, "/x", "").await.status, 409);
        assert_eq!(asked(&peer, "/token"), sent, "what was ended on purpose is not renewed");
    }
    assert!(calls(&peer, "/x").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_can_not_be_told_is_reported_and_the_connection_ended_all_the_same() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    machine(&app, &peer, "app").await;
    let token = access_token(&app, "app").await;
    peer.fault(json!({"path": "/token/revocation", "status": 503}));
    let ended = app.admin().post("/v1/connections/app/revoke", json!({})).await.ok(200);
    assert_eq!(ended["revocation"]["outcome"], "failed");
    assert!(ended["revocation"]["message"].as_str().unwrap().contains("503"), "{ended}");
    assert_eq!(ended["connection"]["state"], "revoked");
    self::token(&app, "app", "").await.problem(409, "not_connected");
    assert!(is_active(&peer, &token).await, "as the message says: the provider was not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_connection_revokes_it_first() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60"), ("ALWAYS_RT", "1")]));
    consented(&app, &peer, "app").await;
    let token = access_token(&app, "app").await;
    assert_eq!(app.admin().delete("/v1/connections/app").await.status, 204);
    assert!(!is_active(&peer, &token).await);
    app.admin().get("/v1/connections/app").await.problem(404, "not_found");
}
