//! An API that checks the token itself.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_api_refuses_is_renewed_once_and_the_call_repeated_once() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60"), ("ALWAYS_RT", "1")]));
    machine(&app, &peer, "machine").await;
    consented(&app, &peer, "person").await;
    revoke_there(&peer, &access_token(&app, "machine").await).await;
    // This server revokes the refresh token along with an access token; so the API is made to refuse one that is good.
    peer.fault(json!({"server": "resource", "path": "/person", "status": 401}));
    for (name, grant) in [("machine", "client_credentials"), ("person", "refresh_token")] {
        let before = peer.token_requests(grant);
        let path = format!("/{name}");
        let reply = call(&app, Method::POST, name, &path, "{\"n\":1}").await;
        assert_eq!((reply.status, calls(&peer, &path)), (200, vec![401, 200]), "{name}: {}", reply.text());
        let echo = reply.json();
        assert_eq!((&echo["method"], &echo["body"]), (&json!("POST"), &json!("{\"n\":1}")), "the same call again");
        assert_eq!(peer.token_requests(grant), before + 1);
        let connection = shown(&app, name).await;
        assert_eq!((&connection["state"], &connection["generation"]), (&json!("connected"), &json!(2)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_refuses_every_token_is_asked_twice_and_no_more() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    machine(&app, &peer, "app").await;
    peer.fault(json!({"server": "resource", "path": "/never", "status": 401, "times": 9, "body": "no"}));
    let reply = call(&app, Method::GET, "app", "/never", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (401, "no"), "the API's own answer");
    assert_eq!(calls(&peer, "/never"), [401, 401]);
    assert_eq!(peer.token_requests("client_credentials"), 2);
    assert_eq!(shown(&app, "app").await["state"], "connected", "the grant is not to blame");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_grant_is_dead_too_the_api_s_401_is_the_answer() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60"), ("ALWAYS_RT", "1")]));
    consented(&app, &peer, "app").await;
    peer.delete_account("alice");
    revoke_there(&peer, &access_token(&app, "app").await).await;
    let reply = call(&app, Method::GET, "app", "/gone", "").await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.json()["error"], "invalid_token");
    assert_eq!(calls(&peer, "/gone"), [401], "no second call without a second token");
    assert_eq!(peer.token_requests("refresh_token"), 1);
    let connection = shown(&app, "app").await;
    assert_eq!((&connection["state"], &connection["failure"]["kind"]), (&json!("reconnect"), &json!("grant")));
    assert_eq!(connection["failure"]["code"], "invalid_grant");
}
