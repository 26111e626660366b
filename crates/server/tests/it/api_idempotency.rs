//! `Idempotency-Key` on the wire: a POST is done once.

use http::Method;
use serde_json::{Value, json};

use crate::app::{App, Caller, Reply, full};

async fn post(caller: &Caller, path: &str, key: &str, body: &Value) -> Reply {
    caller.send(Method::POST, path, &[("idempotency-key", key)], full(body.to_string())).await
}

#[tokio::test]
async fn a_repetition_is_answered_as_the_first_and_does_nothing() {
    let app = App::start().await;
    let body = json!({"name": "ci", "scopes": ["read"]});
    let first = post(&app.admin(), "/v1/keys", "k-1", &body).await;
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = post(&app.admin(), "/v1/keys", "k-1", &body).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!((again.status, again.header("content-type")), (first.status, first.header("content-type")));
    assert_eq!(first.ok(201), again.ok(201), "the key that was made is shown again to whoever repeats");
    assert_eq!(app.admin().get("/v1/keys").await.ok(200)["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_caller() {
    let app = App::start().await;
    let (one, two) = (app.key(&["manage", "read"]).await, app.key(&["manage", "read"]).await);
    app.integration("i", "client_credentials").await;
    let body = |name: &str| json!({"name": name, "integration": "i"});
    post(&one, "/v1/connections", "k", &body("a")).await.ok(201);
    let problem = post(&one, "/v1/connections", "k", &body("b")).await.problem(422, "idempotency_key_reused");
    assert!(problem["detail"].as_str().unwrap().contains("use a new one"));
    post(&one, "/v1/connect-sessions", "k", &body("a")).await.problem(422, "idempotency_key_reused");
    post(&two, "/v1/connections", "k", &body("b")).await.ok(201);
    assert_eq!(app.admin().get("/v1/connections").await.ok(200)["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_refusal_of_the_caller_is_kept_and_a_failure_of_the_provider_is_not() {
    let app = App::start().await;
    app.draft("m", "client_credentials").await;
    let admin = app.admin();
    post(&admin, "/v1/connections", "bad", &json!({"name": "m", "integration": "none"})).await.problem(422, "invalid");
    let again = post(&admin, "/v1/connections", "bad", &json!({"name": "m", "integration": "none"})).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    again.problem(422, "invalid");

    app.fault("token=status:500,times=1");
    post(&admin, "/v1/connections/m/authorize", "go", &json!({})).await.problem(503, "provider_unavailable");
    let again = post(&admin, "/v1/connections/m/authorize", "go", &json!({})).await;
    assert_eq!(again.header("idempotency-replayed"), None, "the key was free again");
    assert_eq!(again.ok(200)["state"], "connected");
}

#[tokio::test]
async fn while_the_first_is_at_work_the_second_is_told_to_wait() {
    let app = App::start().await;
    app.draft("m", "client_credentials").await;
    app.fault("token=slow:60000");
    let (admin, other) = (app.admin(), app.admin());
    let first = tokio::spawn(async move { post(&other, "/v1/connections/m/authorize", "go", &json!({})).await });
    // The provider has the request: so the key is taken.
    while app.sent("client_credentials") == 0 {
        tokio::task::yield_now().await;
    }
    let problem =
        post(&admin, "/v1/connections/m/authorize", "go", &json!({})).await.problem(409, "idempotency_key_under_way");
    assert!(problem["detail"].as_str().unwrap().contains("in a moment"));
    first.abort();
}

/// A caller that hangs up must be able to ask again what became of it.
#[tokio::test]
async fn a_caller_that_goes_away_does_not_leave_its_key_under_way() {
    let app = App::start().await;
    app.draft("m", "client_credentials").await;
    app.fault("token=slow:300,times=1");
    let other = app.admin();
    let gone = tokio::spawn(async move { post(&other, "/v1/connections/m/authorize", "go", &json!({})).await });
    while app.sent("client_credentials") == 0 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    let answer = loop {
        let reply = post(&app.admin(), "/v1/connections/m/authorize", "go", &json!({})).await;
        if reply.status != 409 {
            break reply;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(answer.header("idempotency-replayed"), Some("true"));
    assert_eq!(answer.ok(200)["state"], "connected");
    assert_eq!(app.sent("client_credentials"), 1);
}

#[tokio::test]
async fn a_key_that_is_no_key_is_refused() {
    let app = App::start().await;
    for key in ["", &"x".repeat(201)] {
        let problem = post(&app.admin(), "/v1/keys", key, &json!({"name": "k", "scopes": ["read"]}))
            .await
            .problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], "Idempotency-Key");
    }
    assert_eq!(app.admin().get("/v1/keys").await.ok(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_caller_without_the_scope_never_reaches_the_kept_reply() {
    let app = App::start().await;
    let body = json!({"name": "k", "scopes": ["read"]});
    post(&app.admin(), "/v1/keys", "k-1", &body).await.ok(201);
    post(&app.key(&["read"]).await, "/v1/keys", "k-1", &body).await.problem(403, "forbidden");
    post(&app.anonymous(), "/v1/keys", "k-1", &body).await.problem(401, "unauthenticated");
}
