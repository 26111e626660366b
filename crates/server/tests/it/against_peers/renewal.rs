//! Refresh tokens that rotate, and a server that revokes the whole grant when an old one comes again.

use futures_util::future::join_all;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_callers_cost_one_refresh() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "40"), ("ALWAYS_RT", "1")]));
    consented(&app, &peer, "app").await;
    let first = access_token(&app, "app").await;
    // 36 s is the most that may be asked of a token that lives 40 s; so by now it is too old for that.
    until_left(&app, &peer, "app", 35).await;
    assert_eq!(peer.token_requests("refresh_token"), 0);
    peer.fault(json!({"path": "/token", "delay_ms": 300}));

    let admin = app.admin();
    let replies = join_all((0..200).map(|_| admin.get("/v1/connections/app/token?min_ttl=36"))).await;
    let tokens: Vec<_> = replies.into_iter().map(|reply| reply.ok(200)).collect();
    assert_eq!(peer.token_requests("refresh_token"), 1);
    assert_ne!(tokens[0]["access_token"], first.as_str());
    assert!(tokens.iter().all(|one| one["access_token"] == tokens[0]["access_token"] && one["generation"] == 2));
    assert_eq!(direct(&peer, tokens[0]["access_token"].as_str().unwrap()).await.status, 200);
    assert_eq!(shown(&app, "app").await["generation"], 2);
}

/// Waits until the server says that the token has no more than these seconds left.
async fn until_left(app: &App, peer: &OidcProvider, name: &str, seconds: i64) {
    let waiting = async {
        while token(app, name, "?min_ttl=0").await.ok(200)["expires_in"].as_i64().unwrap() > seconds {
            // Each question is audited: a slow answer between two keeps the store free for what is tested.
            peer.fault(json!({"server": "resource", "path": "/direct", "delay_ms": 200}));
            direct(peer, "nobody's").await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("time passes");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_live_four_seconds_are_renewed_ahead_with_ever_new_refresh_tokens() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "4"), ("ALWAYS_RT", "1")]));
    consented(&app, &peer, "app").await;
    let (mut generation, mut seen) = (1, std::collections::BTreeSet::new());
    while seen.len() < 4 {
        let next = |it: &Value| it["generation"].as_i64() > Some(generation);
        assert_eq!(until(&app, "app", "renewed by itself", next).await["state"], "connected");
        // The peer counts whole seconds, so a life may be one shorter than it says.
        let reply = token(&app, "app", "?min_ttl=3").await.ok(200);
        let token = reply["access_token"].as_str().unwrap().to_owned();
        assert_eq!(direct(&peer, &token).await.status, 200, "a fresh token is a live one");
        assert!(seen.insert(token), "every generation has a token of its own");
        generation = reply["generation"].as_i64().unwrap();
    }
    let log = peer.log();
    let refused = log.iter().filter(|entry| entry["path"] == "/token" && entry["status"] != 200);
    assert_eq!(refused.count(), 0, "no refresh token came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_token_lives_heals_by_itself() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "2"), ("ALWAYS_RT", "1")]));
    consented(&app, &peer, "app").await;
    peer.fault(json!({"path": "/token", "status": 503, "times": 1000}));
    let failing = until(&app, "app", "failing", |it| it["state"] == "failing").await;
    assert_eq!(failing["failure"]["kind"], "transient");
    let expires = failing["expires_at"].as_i64().unwrap();
    // Every failure is dated by the server; one after the expiry proves that the token is dead.
    until(&app, "app", "failing without a token", |it| it["failure"]["at"].as_i64() > Some(expires)).await;
    let problem = token(&app, "app", "?min_ttl=0").await.problem(503, "provider_unavailable");
    assert_eq!(problem["state"], "failing");

    peer.clear_faults();
    let healed = until(&app, "app", "connected again", |it| it["state"] == "connected").await;
    assert_eq!((&healed["failure"], &healed["failures"]["transient"]), (&Value::Null, &json!(0)));
    assert_eq!(call(&app, Method::GET, "app", "/again", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_costs_the_grant_where_reuse_is_punished_and_consent_mends_it_in_place() {
    let ((app, clock), peer) = (App::on_a_clock().await, OidcProvider::start(&[("AT_TTL", "600"), ("ALWAYS_RT", "1")]));
    let id = consented(&app, &peer, "app").await["id"].clone();
    let old = access_token(&app, "app").await;
    peer.fault(json!({"path": "/token", "drop": true, "after": true}));

    let problem = refresh(&app, "app").await.problem(503, "provider_unavailable");
    assert_eq!(problem["failure"]["kind"], "transient");
    assert!(problem["failure"]["remedy"].as_str().unwrap().contains("may have acted"), "{problem}");
    assert_eq!(access_token(&app, "app").await, old, "still valid, so still served");

    // When the first request can no longer arrive, it tries again by itself, with the only refresh token it has; the server takes that for theft.
    let dead = until(&app, "app", "told that the grant is dead", in_time(&clock, "reconnect")).await;
    assert_eq!(peer.token_requests("refresh_token"), 2);
    assert_eq!((&dead["failure"]["kind"], &dead["failure"]["code"]), (&json!("grant"), &json!("invalid_grant")));
    assert!(dead["reason"].as_str().unwrap().contains("Authorise the connection again."), "{dead}");
    assert_eq!((&dead["color"], &dead["next_renewal_at"]), (&json!("red"), &Value::Null));
    assert!(!is_active(&peer, &old).await, "the whole grant is dead");
    assert_eq!(call(&app, Method::GET, "app", "/dead", "").await.status, 401);
    assert_eq!(peer.token_requests("refresh_token"), 2, "a dead grant is not tried again");

    let mended = consent(&app, "app").await;
    assert_eq!((&mended["id"], &mended["state"], &mended["failure"]), (&id, &json!("connected"), &Value::Null));
    assert_eq!(call(&app, Method::GET, "app", "/mended", "").await.status, 200);
    refresh(&app, "app").await.ok(200);
    assert_eq!(call(&app, Method::GET, "app", "/mended", "").await.ok_json()["sub"], "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_client_needs_no_secret_but_pkce() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60"), ("ALWAYS_RT", "1")]));
    let mut integration = oidc(&peer, "public", "authorization_code", "c-public");
    integration.as_object_mut().unwrap().remove("client_secret");
    // Without a word, a secret is missed and the way out is named.
    let problem = app.admin().post("/v1/integrations", integration.clone()).await.problem(422, "invalid");
    assert!(problem["errors"][0]["remedy"].as_str().unwrap().contains("client_auth"), "{problem}");

    integration["client_auth"] = "none".into();
    draft(&app, integration).await;
    consent(&app, "public").await;
    refresh(&app, "public").await.ok(200);
    assert_eq!(call(&app, Method::GET, "public", "/me", "").await.ok_json()["client_id"], "c-public");
    let revoked = app.admin().post("/v1/connections/public/revoke", json!({})).await.ok(200);
    assert_eq!(revoked["revocation"]["outcome"], "revoked");
    let log = peer.log();
    let requests: Vec<_> = log.iter().filter(|entry| entry["path"] == "/token").collect();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|entry| entry["client"] == "c-public" && entry["status"] == 200), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_refresh_token_the_end_is_announced_as_what_it_is() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "2")]));
    let connected = consented(&app, &peer, "app").await;
    assert_eq!(connected["next_renewal_at"], Value::Null, "there is nothing to renew with");
    let problem = refresh(&app, "app").await.problem(409, "not_possible");
    assert!(problem["detail"].as_str().unwrap().contains("offline_access"), "{problem}");
    assert_eq!(peer.token_requests("refresh_token"), 0);
}

/// OpenID Connect Core §11: a server may ignore `offline_access` unless `prompt=consent` comes with it, and this one does.
#[tokio::test(flavor = "multi_thread")]
async fn offline_access_brings_a_refresh_token() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    app.admin().post("/v1/providers", json!({"definition": machine::WITH_RESOURCE})).await.ok(201);
    let scopes = json!(["openid", "offline_access", "read"]);
    let mut plain = oidc(&peer, "plain", "authorization_code", "c-basic");
    plain["scopes"] = scopes.clone();
    let mut with_resource = oidc(&peer, "with-resource", "authorization_code", "c-basic");
    with_resource["provider"] = "with-resource".into();
    with_resource["audience"] = peer.resource.clone().into();
    with_resource["scopes"] = scopes;
    for integration in [plain, with_resource] {
        let name = integration["name"].as_str().unwrap().to_owned();
        draft(&app, integration).await;
        consent(&app, &name).await;
        peer.clear_log();
        for generation in 2..=4 {
            assert_eq!(refresh(&app, &name).await.ok(200)["generation"], generation);
            let echo = call(&app, Method::GET, &name, "/me", "").await.ok_json();
            assert_eq!(echo["sub"], "alice");
            assert!(echo["scope"].as_str().unwrap().contains("read"), "{echo}");
        }
        assert_eq!(peer.token_requests("refresh_token"), 3);
    }
}
