//! The routes that go past the router: the same answers as through it, and a key that a connection has shown counts no longer than elsewhere.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{App, Caller, Reply, full};

/// The same request past the router, and through it: an encoded name goes there.
async fn both(caller: &Caller, method: &Method, name: &str, tail: &str, headers: &[(&str, &str)]) -> [Reply; 2] {
    let encoded = format!("%{:x}{}", name.as_bytes()[0], &name[1..]);
    let send = async |name: &str| {
        caller.send(method.clone(), &format!("/v1/connections/{name}{tail}"), headers, full("")).await
    };
    [send(name).await, send(&encoded).await]
}

fn keyed(app: &App, key: &str) -> Caller {
    let mut caller = app.anonymous();
    caller.key = Some(key.to_owned());
    caller
}

#[track_caller]
fn alike([past, through]: &[Reply; 2], what: &str) {
    let headers = |reply: &Reply| {
        let mut headers: Vec<_> = reply.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        headers.retain(|(name, _)| name != "date");
        headers.sort_by(|a, b| (a.0.as_str(), a.1.as_bytes()).cmp(&(b.0.as_str(), b.1.as_bytes())));
        headers
    };
    assert_eq!((past.status, past.text()), (through.status, through.text()), "{what}");
    assert_eq!(headers(past), headers(through), "{what}");
    let problem = past.status >= 400 && past.header("content-type") == Some("application/problem+json");
    assert_eq!(past.header("keyholder-error").is_some(), problem, "{what}: {}", past.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_router_and_through_it_answers_are_alike() {
    let (app, clock) = App::on_a_clock().await;
    app.machine("crm").await;
    app.machine("gone").await;
    app.admin().post("/v1/connections/gone/revoke", json!({})).await.ok(200);
    app.draft("draft", "authorization_code").await;

    let expired = {
        let soon = app.admin().get("/v1/connections/crm").await.ok(200)["created_at"].as_i64().unwrap() + 1000;
        let body = json!({"name": "soon", "scopes": ["token", "call"], "expires_at": soon});
        let made = app.admin().post("/v1/keys", body).await.ok(201);
        clock.advance(Duration::from_secs(1));
        keyed(&app, made["key"].as_str().unwrap())
    };
    let revoked = app.key(&["token", "call"]).await;
    revoked.get("/v1/connections/crm/token").await.ok(200);
    let keys = app.admin().get("/v1/keys").await.ok(200);
    let newest =
        keys["items"].as_array().unwrap().iter().max_by_key(|key| key["id"].to_string()).unwrap()["id"].clone();
    app.admin().delete(&format!("/v1/keys/{}", newest.as_str().unwrap())).await.ok(200);
    let limits = |limits| app.limited_key(&["token", "call"], limits);
    let callers = [
        ("nobody", app.anonymous()),
        ("unknown", keyed(&app, "khk_unknown")),
        ("expired", expired),
        ("revoked", revoked),
        ("reader", app.key(&["read"]).await),
        ("token", app.key(&["token"]).await),
        ("call", app.key(&["call"]).await),
        ("administrator", app.admin()),
        ("others only", limits(json!({"connections": ["other"]})).await),
        ("POST only", limits(json!({"methods": ["POST"]})).await),
        ("/v3 only", limits(json!({"paths": ["/v3"]})).await),
    ];
    let requests = [
        (Method::GET, "/token"),
        (Method::HEAD, "/token"),
        (Method::POST, "/token"),
        (Method::GET, "/token/"),
        (Method::GET, "/token?min_ttl=60s"),
        (Method::GET, "/token?min_ttl=soon"),
        (Method::GET, "/token?min_ttl=1&min_ttl=2"),
        (Method::GET, "/token?token=user"),
        (Method::GET, "/proxy"),
        (Method::GET, "/proxy/"),
        (Method::GET, "/proxy/echo?q=%20"),
        (Method::HEAD, "/proxy/echo"),
        (Method::POST, "/proxy/v3/x"),
        (Method::GET, "/proxy/../x"),
        (Method::TRACE, "/proxy/x"),
    ];
    let mut statuses = std::collections::BTreeSet::new();
    for (who, caller) in &callers {
        for name in ["crm", "gone", "draft", "nothing"] {
            for (method, tail) in &requests {
                let mut replies = both(caller, method, name, tail, &[]).await;
                if *method == Method::HEAD {
                    // Where the API says nothing of the length, the router says 0.
                    replies.iter_mut().for_each(|reply| drop(reply.headers.remove("content-length")));
                }
                alike(&replies, &format!("{who}: {method} {name}{tail}"));
                statuses.insert(replies[0].status);
            }
        }
    }
    for authorization in ["Basic a2hr", "Bearer", "Bearer ", "khk_x", "bearer\tkhk"] {
        let headers = [("authorization", authorization)];
        alike(&both(&app.anonymous(), &Method::GET, "crm", "/token", &headers).await, authorization);
    }
    for status in [200, 401, 403, 404, 405, 400, 422] {
        assert!(statuses.contains(&status), "{status} is not among {statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_once_follows_the_token() {
    let (app, clock) = App::on_a_clock().await;
    app.machine("crm").await;
    let caller = app.key(&["token"]).await;
    let first = caller.get("/v1/connections/crm/token").await.ok(200);
    clock.advance(Duration::from_secs(10));
    let later = caller.get("/v1/connections/crm/token").await.ok(200);
    assert_eq!(later["access_token"], first["access_token"]);
    assert_eq!(later["expires_in"].as_i64().unwrap(), first["expires_in"].as_i64().unwrap() - 10);
    app.admin().post("/v1/connections/crm/refresh", json!({})).await.ok(200);
    let renewed = caller.get("/v1/connections/crm/token").await.ok(200);
    assert_ne!(renewed["access_token"], first["access_token"]);
    assert_eq!(renewed["generation"].as_i64().unwrap(), first["generation"].as_i64().unwrap() + 1);
    // Each on the record.
    let read = app.audit().await.iter().filter(|row| row["action"] == "token.read").count();
    assert_eq!(read, 3);
}

/// One connection, as a proxy in front would use it: requests of several callers, one after the other.
struct Line(TcpStream);

impl Line {
    async fn get(&mut self, key: &str) -> String {
        let request =
            format!("GET /v1/connections/crm/token HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut piece = [0; 4096];
            let length = self.0.read(&mut piece).await.unwrap();
            assert_ne!(length, 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..length]);
        }
        String::from_utf8(answer).unwrap()[9..12].to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_connection_has_shown_counts_no_longer_than_elsewhere() {
    let (app, clock) = App::on_a_clock().await;
    app.machine("crm").await;
    let now = app.admin().get("/v1/connections/crm").await.ok(200)["created_at"].as_i64().unwrap();
    let key = async |name: &str, more: serde_json::Value| {
        let mut body = json!({"name": name, "scopes": ["token"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app.admin().post("/v1/keys", body).await.ok(201)["key"].as_str().unwrap().to_owned()
    };
    let good = key("good", json!({})).await;
    let limited = key("limited", json!({"limits": {"connections": ["other"]}})).await;
    let short = key("short", json!({"expires_at": now + 60_000})).await;

    let mut line = Line(TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap());
    for _ in 0..3 {
        assert_eq!(line.get(&good).await, "200");
        assert_eq!(line.get(&limited).await, "403", "another key on the same connection is another caller");
        assert_eq!(line.get(&good[..good.len() - 1]).await, "401");
        assert_eq!(line.get(&short).await, "200");
    }
    clock.advance(Duration::from_secs(60));
    assert_eq!(line.get(&short).await, "401", "expired between two requests");
    assert_eq!(line.get(&good).await, "200");
    app.admin().delete("/v1/keys/good").await.ok(200);
    assert_eq!(line.get(&good).await, "401", "revoked between two requests");
}
