//! What can't be read: the field or the place is named, what to do is said, and no value is repeated.

use http::Method;
use serde_json::json;

use crate::app::{App, full};

const PATHS: [(&str, &str); 9] = [
    ("POST", "/v1/integrations"),
    ("PATCH", "/v1/integrations/crm"),
    ("POST", "/v1/connections"),
    ("PATCH", "/v1/connections/m"),
    ("POST", "/v1/connections/m/authorize"),
    ("POST", "/v1/connections/m/complete"),
    ("POST", "/v1/connect-sessions"),
    ("POST", "/v1/providers"),
    ("POST", "/v1/keys"),
];

async fn send(app: &App, method: &str, path: &str, body: impl Into<bytes::Bytes>) -> crate::app::Reply {
    app.admin().send(method.parse::<Method>().unwrap(), path, &[], full(body)).await
}

#[tokio::test]
async fn an_unknown_field_is_named_with_those_that_there_are() {
    let app = App::start().await;
    for (method, path) in PATHS {
        let problem = send(&app, method, path, r#"{"colour": "s3cret-value"}"#).await;
        assert!(!problem.text().contains("s3cret-value"), "{path}");
        let problem = problem.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], "colour", "{path}");
        assert!(problem["errors"][0]["remedy"].as_str().unwrap().contains("the field"), "{path}: {problem}");
    }
    let body = json!({"name": "k", "scopes": ["read"], "limits": {"hosts": []}});
    assert_eq!(app.admin().post("/v1/keys", body).await.problem(422, "invalid")["errors"][0]["field"], "hosts");
}

#[tokio::test]
async fn a_missing_field_is_named() {
    let app = App::start().await;
    for (path, field) in [
        ("/v1/integrations", "name"),
        ("/v1/connections", "name"),
        ("/v1/connect-sessions", "integration"),
        ("/v1/providers", "definition"),
        ("/v1/keys", "name"),
        ("/v1/connections/m/complete", "code"),
    ] {
        for body in ["{}", "", "  \n"] {
            let problem = send(&app, "POST", path, body).await.problem(422, "invalid");
            assert_eq!(problem["errors"][0]["field"], field, "{path}");
        }
    }
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_placed_and_never_repeated() {
    let app = App::start().await;
    for body in [
        r#"{"name": "x", "provider": "oauth2", "client_id": "c", "scopes": "s3cret"}"#,
        r#"{"name": "x", "provider": "oauth2", "client_id": "c", "variables": "unknown field `s3cret`, expected s3cret"}"#,
        r#"{"name": "x", "provider": "oauth2", "client_id": "c", "variables": "missing field `s3cret`"}"#,
        r#"{"name": {"s3cret": 1}}"#,
        r#"["s3cret"]"#,
        r#""s3cret""#,
    ] {
        let reply = send(&app, "POST", "/v1/integrations", body).await;
        assert!(!reply.text().contains("s3cret"), "{body}: {}", reply.text());
        let problem = reply.problem(400, "unreadable");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("line 1, column") && detail.contains("expected"), "{detail}");
    }
}

#[tokio::test]
async fn malformed_json_says_where_it_breaks() {
    let app = App::start().await;
    for body in ["{", "name=s3cret&provider=x", "\u{0}", "{'name': 's3cret'}", "{} s3cret"] {
        for (method, path) in PATHS {
            let reply = send(&app, method, path, body).await;
            assert!(!reply.text().contains("s3cret"), "{body}");
            // An object that is whole is held against the fields before what stands behind it.
            if body.starts_with("{}") && reply.status == 422 {
                continue;
            }
            let problem = reply.problem(400, "unreadable");
            assert!(problem["detail"].as_str().unwrap().contains("not valid JSON at line"), "{problem}");
        }
    }
    let reply = send(&app, "POST", "/v1/integrations", "{\"name\": \"s3cret").await;
    assert!(!reply.text().contains("s3cret"));
    reply.problem(400, "unreadable");
    let latin1 = b"{\"name\": \"Zo\xEB\"}".to_vec();
    send(&app, "POST", "/v1/integrations", latin1).await.problem(400, "unreadable");
    // A field that comes twice is not guessed about.
    let twice = send(&app, "POST", "/v1/keys", r#"{"name": "a", "name": "b", "scopes": ["read"]}"#).await;
    assert_eq!(twice.status / 100, 4, "{}", twice.text());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_limit() {
    let app = App::start().await;
    let huge = format!("{{\"definition\": \"{}\"}}", "x".repeat(1 << 20));
    for (method, path) in PATHS {
        let problem = send(&app, method, path, huge.clone()).await.problem(413, "too_large");
        assert!(problem["detail"].as_str().unwrap().contains("1048576"), "{path}");
    }
    let fits = format!("{{\"definition\": \"{}\"}}", "x".repeat((1 << 20) - 100));
    send(&app, "POST", "/v1/providers/check", fits).await.ok(200);
}

#[tokio::test]
async fn a_path_that_is_no_utf8_is_a_problem_document() {
    let app = App::start().await;
    for path in [
        "/v1/connections/%FF",
        "/v1/connections/%FF/token",
        "/v1/integrations/%C3",
        "/v1/providers/%FF",
        "/v1/connections/%FF/proxy/x",
    ] {
        app.admin().get(path).await.problem(400, "unreadable");
    }
    app.admin().delete("/v1/keys/%FF").await.problem(400, "unreadable");
}

#[tokio::test]
async fn a_thing_that_is_not_there_is_said_not_to_be_there() {
    let app = App::start().await;
    let admin = app.admin();
    for path in ["", "/token", "/events", "/proxy/me"] {
        let problem = admin.get(&format!("/v1/connections/no%20one{path}")).await.problem(404, "not_found");
        assert!(problem["detail"].as_str().unwrap().contains("`no one`"), "{path}: {problem}");
    }
    for verb in ["authorize", "refresh", "test", "revoke"] {
        admin.post(&format!("/v1/connections/nobody/{verb}"), json!({})).await.problem(404, "not_found");
    }
    admin.post("/v1/connections/nobody/complete", json!({"code": "x"})).await.problem(404, "not_found");
    admin.patch("/v1/connections/nobody", json!({})).await.problem(404, "not_found");
    for path in ["/v1/connections/nobody", "/v1/integrations/nobody", "/v1/keys/nobody"] {
        admin.delete(path).await.problem(404, "not_found");
    }
    let long = "x".repeat(5000);
    let problem = admin.get(&format!("/v1/connections/{long}")).await.problem(404, "not_found");
    assert!(problem.to_string().len() < 1000, "what was asked for is not echoed at any length");
}

#[tokio::test]
async fn a_wrong_kind_of_authorization_is_no_key() {
    let app = App::start().await;
    let key = app.admin().key.unwrap();
    for header in ["", "Bearer", "Bearer ", &format!("Basic {key}"), &key, "Bearer khk_", &format!("Bearer {key}x")] {
        let reply = app.anonymous().send(Method::GET, "/v1/connections", &[("authorization", header)], full("")).await;
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        reply.problem(401, "unauthenticated");
    }
    // RFC 9110 §11.1: the scheme's case doesn't matter.
    let lower = format!("bearer {key}");
    app.anonymous().send(Method::GET, "/v1/connections", &[("authorization", &lower)], full("")).await.ok(200);
    // A key has no business in a URL.
    app.anonymous().get(&format!("/v1/connections?access_token={key}")).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn no_reply_of_the_api_may_be_kept_on_the_way() {
    let app = App::start().await;
    app.machine("m").await;
    for path in ["/v1/connections/m/token", "/v1/connections/m", "/v1/connections/none", "/v1/keys"] {
        assert_eq!(app.admin().get(path).await.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(app.anonymous().get(path).await.header("cache-control"), Some("no-store"), "{path}");
    }
}
