//! The password grant, strict client authentication and a rate limit.

use super::*;
use crate::peers::http_json;

/// A draft connection of the peer's user under the client `n-…`.
async fn user(app: &App, peer: &NanoIdp, name: &str, client: &str, more: Value) {
    let mut integration = json!({
        "name": name, "provider": "oidc", "method": "password", "client_id": client, "client_secret": NanoIdp::SECRET,
        "scopes": ["openid"], "variables": {"issuer": peer.issuer, "api_base_url": peer.issuer},
    });
    integration.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    app.admin().post("/v1/integrations", integration).await.ok(201);
    let (username, password) = NanoIdp::USER;
    let body = json!({"name": name, "integration": name, "username": username, "password": password});
    app.admin().post("/v1/connections", body).await.ok(201);
}

/// What the peer's own log says about token requests, oldest first: grant and outcome.
fn requests(peer: &NanoIdp) -> Vec<(String, String)> {
    let (status, audit) = http_json("GET", &format!("{}/api/audit", peer.issuer), None);
    assert_eq!(status, 200, "{audit}");
    let mut entries: Vec<_> =
        audit["entries"].as_array().unwrap().iter().filter(|entry| entry["endpoint"] == "/token").collect();
    entries.reverse();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| (word(&entry["details"]["grant_type"]), word(&entry["status"]))).collect()
}

fn request(grant: &str, outcome: &str) -> (String, String) {
    (grant.to_owned(), outcome.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_name_and_password_bring_tokens_that_rotate() {
    let (app, peer) = (App::start().await, NanoIdp::start());
    user(&app, &peer, "basic", "n-basic", json!({})).await;
    user(&app, &peer, "post", "n-post", json!({"client_auth": "post"})).await;
    for name in ["basic", "post"] {
        authorize(&app, name).await.ok(200);
        for generation in 2..=4 {
            let before = access_token(&app, name).await;
            assert_eq!(refresh(&app, name).await.ok(200)["generation"], generation);
            assert_ne!(access_token(&app, name).await, before);
        }
        let echo = call(&app, Method::GET, name, "/userinfo", "").await;
        assert_eq!(echo.ok_json()["sub"], NanoIdp::USER.0);
    }
    // The password was sent once each. A refresh token that had not been replaced by its successor would have been refused.
    let one = || {
        [
            ("password", "success"),
            ("refresh_token", "success"),
            ("refresh_token", "success"),
            ("refresh_token", "success"),
        ]
    };
    let expected: Vec<_> = one().into_iter().chain(one()).map(|(grant, outcome)| request(grant, outcome)).collect();
    assert_eq!(requests(&peer), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_way_to_authenticate_is_a_wrong_set_up() {
    let (app, peer) = (App::start().await, NanoIdp::start());
    user(&app, &peer, "a", "n-post", json!({"client_auth": "basic"})).await;
    user(&app, &peer, "b", "n-basic", json!({"client_auth": "post"})).await;
    for (name, right) in [("a", "post"), ("b", "basic")] {
        let problem = authorize(&app, name).await.problem(502, "setup_refused");
        let failure = &problem["failure"];
        assert_eq!((&failure["kind"], &failure["code"]), (&json!("setup"), &json!("invalid_client")), "{problem}");
        assert!(failure["remedy"].as_str().unwrap().contains("client_auth"), "{problem}");
        assert_eq!(shown(&app, name).await["state"], "failing");
        app.admin().patch(&format!("/v1/integrations/{name}"), json!({"client_auth": right})).await.ok(200);
        token(&app, name, "").await.ok(200);
    }
    let outcomes: Vec<_> = requests(&peer).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, ["failed", "success", "failed", "success"], "nothing is probed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_asked_for_and_not_tried_again() {
    let (app, peer) = (App::start().await, NanoIdp::start());
    user(&app, &peer, "app", "n-basic", json!({})).await;
    app.admin().patch("/v1/connections/app", json!({"password": "guessed-wrong"})).await.ok(200);
    let problem = authorize(&app, "app").await.problem(409, "not_connected");
    assert_eq!((&problem["failure"]["kind"], &problem["failure"]["code"]), (&json!("grant"), &json!("invalid_grant")));
    assert!(problem["failure"]["remedy"].as_str().unwrap().contains("password"), "{problem}");
    assert!(!problem.to_string().contains("guessed-wrong"));
    assert_eq!(shown(&app, "app").await["state"], "reconnect");

    // An account is locked by whoever keeps trying.
    token(&app, "app", "").await.problem(409, "not_connected");
    assert_eq!(call(&app, Method::GET, "app", "/userinfo", "").await.status, 409);
    assert_eq!(requests(&peer), [request("password", "failed")]);

    app.admin().patch("/v1/connections/app", json!({"password": NanoIdp::USER.1})).await.ok(200);
    authorize(&app, "app").await.ok(200);
    assert_eq!(shown(&app, "app").await["state"], "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_respected_while_the_valid_token_is_served() {
    let (app, peer) = (App::start().await, NanoIdp::start_limited(1));
    user(&app, &peer, "app", "n-basic", json!({})).await;
    authorize(&app, "app").await.ok(200);
    let valid = access_token(&app, "app").await;

    let reply = refresh(&app, "app").await;
    let wait: i64 = reply.header("retry-after").unwrap().parse().unwrap();
    let problem = reply.problem(503, "provider_unavailable");
    assert_eq!(problem["failure"]["kind"], "transient");
    assert!((30..=61).contains(&wait), "the peer's window is a minute: {wait}");
    let pause = problem["failure"]["next_try_at"].as_i64().unwrap() - problem["failure"]["at"].as_i64().unwrap();
    assert!(pause >= 30_000, "{pause}");

    let connection = shown(&app, "app").await;
    assert_eq!((&connection["state"], &connection["failure"]["kind"]), (&json!("failing"), &json!("transient")));
    assert_eq!(connection["next_renewal_at"], connection["failure"]["next_try_at"], "{connection}");
    // More than is left is wished for; a renewal may not be tried, so the valid one is served.
    let served = token(&app, "app", "?min_ttl=3600").await.ok(200);
    assert_eq!(served["access_token"], valid);
    assert_eq!(call(&app, Method::GET, "app", "/userinfo", "").await.ok_json()["sub"], NanoIdp::USER.0);
}
