//! A wrong set-up, and a server that is not there for a while.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_a_wrong_set_up_and_works_at_once_when_it_is_right() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    let mut integration = oidc(&peer, "app", "client_credentials", "c-basic");
    integration["client_secret"] = "not-the-secret".into();
    draft(&app, integration).await;

    let problem = authorize(&app, "app").await.problem(502, "setup_refused");
    assert_eq!((&problem["failure"]["kind"], &problem["failure"]["code"]), (&json!("setup"), &json!("invalid_client")));
    assert!(problem["failure"]["remedy"].as_str().unwrap().contains("client secret"), "{problem}");
    assert!(!problem.to_string().contains("not-the-secret"));
    let connection = shown(&app, "app").await;
    assert_eq!((&connection["state"], &connection["color"]), (&json!("failing"), &json!("red")));
    assert_eq!(connection["failures"], json!({"setup": 1, "grant": 0, "transient": 0}));
    let sent = asked(&peer, "/token");

    // Asking again sends nothing before its time.
    token(&app, "app", "").await.problem(502, "setup_refused");
    assert_eq!(asked(&peer, "/token"), sent);

    app.admin().patch("/v1/integrations/app", json!({"client_secret": OidcProvider::SECRET})).await.ok(200);
    assert_eq!(call(&app, Method::GET, "app", "/now", "").await.status, 200, "at once, without anybody's help");
    let connection = shown(&app, "app").await;
    assert_eq!((&connection["state"], &connection["failure"]), (&json!("connected"), &Value::Null));
    assert_eq!(connection["failures"], json!({"setup": 0, "grant": 0, "transient": 0}));
    assert_eq!(asked(&peer, "/token"), sent + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_asks_to_wait_is_waited() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    draft(&app, oidc(&peer, "app", "client_credentials", "c-basic")).await;
    peer.fault(json!({"path": "/token", "status": 503, "headers": {"retry-after": "77"}}));

    let reply = authorize(&app, "app").await;
    let wait: i64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((70..=77).contains(&wait), "{wait}");
    let problem = reply.problem(503, "provider_unavailable");
    let failure = &problem["failure"];
    assert_eq!(failure["kind"], "transient");
    let pause = failure["next_try_at"].as_i64().unwrap() - failure["at"].as_i64().unwrap();
    assert!((76_000..=78_000).contains(&pause), "{pause}");
    assert_eq!(shown(&app, "app").await["state"], "failing");

    token(&app, "app", "").await.problem(503, "provider_unavailable");
    assert_eq!(asked(&peer, "/token"), 1, "not before its time");
    // A person need not wait.
    authorize(&app, "app").await.ok(200);
    assert_eq!(shown(&app, "app").await["state"], "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_the_client_may_not_use_is_a_wrong_set_up() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[]));
    draft(&app, oidc(&peer, "grant", "client_credentials", "c-norefresh")).await;
    let problem = authorize(&app, "grant").await.problem(502, "setup_refused");
    // RFC 6749 §5.2 has `unauthorized_client` for it; this server says `invalid_request`, and tells what it means in words.
    assert_eq!(problem["failure"]["code"], "invalid_request", "{problem}");
    let message = problem["failure"]["message"].as_str().unwrap();
    assert!(message.contains("grant type is not allowed for this client"), "{message}");
}
