//! What goes wrong most often, one test a mistake: the error is clear and says what to do, and nothing is lost or half written.

use std::time::Duration;

use keyholder_sandbox::Options;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::app::{App, auto_approving, full};

/// Everything that is stored, as the lists show it.
async fn stored(app: &App) -> Value {
    let mut all = json!({});
    for list in ["providers", "integrations", "connections", "keys"] {
        let mut items = app.admin().get(&format!("/v1/{list}?limit=200")).await.ok(200)["items"].take();
        // Noted in the background.
        items.as_array_mut().unwrap().iter_mut().for_each(|item| drop(item["last_used_at"].take()));
        all[list] = items;
    }
    all
}

/// Sends a POST that must be refused with these, and holds that nothing changed. Answers the problem document.
async fn refused(app: &App, path: &str, body: Value, status: u16, code: &str) -> Value {
    let before = stored(app).await;
    let problem = app.admin().post(path, body).await.problem(status, code);
    assert_eq!(stored(app).await, before, "a refused request changes nothing");
    problem
}

#[track_caller]
fn says(problem: &Value, words: &[&str]) {
    let text = problem.to_string();
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is missing in {text}"));
}

/// An address on this machine where nobody listens.
async fn nobody() -> String {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    format!("http://{address}")
}

const UNKNOWN_FIELD: &str = r#"
schema = 1
id = "acme"
name = "Acme"
source = ["https://acme.example/docs"]
[[methods]]
grant = "client_credentials"
[token]
url = "https://acme.example/token"
lifetime = 60
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_in_a_provider_file() {
    let app = App::start().await;
    let body = json!({"definition": UNKNOWN_FIELD, "file": "acme.toml"});
    let checked = app.admin().post("/v1/providers/check", body.clone()).await.ok(200);
    assert_eq!(checked["ok"], false);
    let mistake = &checked["errors"][0];
    assert_eq!((&mistake["file"], &mistake["line"], &mistake["column"]), (&json!("acme.toml"), &json!(10), &json!(1)));
    assert!(mistake["field"].as_str().unwrap().contains("lifetime"), "{mistake}");
    let problem = refused(&app, "/v1/providers", body, 422, "invalid_definition").await;
    says(&problem, &["acme.toml:10:1", "lifetime"]);
    assert!(!problem["errors"][0]["remedy"].as_str().unwrap().is_empty());
    app.admin().get("/v1/providers/acme").await.problem(404, "not_found");

    let file = app.folder.path().join("acme.toml");
    std::fs::write(&file, UNKNOWN_FIELD).unwrap();
    for verb in ["check", "add"] {
        let command = app.command(&["provider", verb, file.to_str().unwrap()]);
        assert_eq!(command.code, Some(1), "{command:?}");
        let said = format!("{}{}", command.out, command.err);
        assert!(said.contains("acme.toml:10:1") && said.contains("lifetime"), "{command:?}");
    }
    app.admin().get("/v1/providers/acme").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_client_secret() {
    let app = App::start().await;
    let mut body = app.integration_body("crm", "client_credentials");
    for secret in [None, Some(""), Some("null")] {
        match secret {
            None => drop(body.as_object_mut().unwrap().remove("client_secret")),
            Some("null") => body["client_secret"] = Value::Null,
            Some(empty) => body["client_secret"] = empty.into(),
        }
        let problem = refused(&app, "/v1/integrations", body.clone(), 422, "invalid").await;
        assert_eq!(problem["errors"][0]["field"], "client_secret");
        says(&problem, &["it is missing", "`none` for a public client"]);
    }
    let token_url = format!("token_url={}/token", app.sandbox.base_url());
    let command = app.command(&[
        "integration",
        "add",
        "crm",
        "--provider",
        "oauth2",
        "--method",
        "client_credentials",
        "--client-id",
        "sandbox-basic",
        "--var",
        &token_url,
    ]);
    assert_eq!(command.code, Some(1), "{command:?}");
    assert!(command.err.contains("client_secret") && command.err.contains("public client"), "{command:?}");
    assert_eq!(stored(&app).await["integrations"], json!([]));
}

#[tokio::test]
async fn an_http_endpoint() {
    let app = App::start().await;
    for name in ["token_url", "authorization_url", "revocation_url", "api_base_url"] {
        let mut body = app.integration_body("crm", "authorization_code");
        body["variables"][name] = "http://login.example.com/x".into();
        let problem = refused(&app, "/v1/integrations", body, 422, "invalid").await;
        assert_eq!(problem["errors"][0]["field"], format!("variables.{name}"));
        says(&problem, &["https"]);
    }
    let definition =
        UNKNOWN_FIELD.replace("lifetime = 60\n", "").replace("https://acme.example/token", "http://acme.example/token");
    let problem = refused(&app, "/v1/providers", json!({"definition": definition}), 422, "invalid_definition").await;
    says(&problem, &["https", "token.url"]);
    let oidc = json!({"name": "x", "provider": "oidc", "client_id": "c", "client_secret": "s", "variables": {"issuer": "http://login.example.com"}});
    says(&refused(&app, "/v1/integrations", oidc, 422, "invalid").await, &["https"]);
}

#[tokio::test]
async fn an_unreachable_discovery() {
    let app = App::start().await;
    let issuer = nobody().await;
    let body = json!({"name": "x", "provider": "oidc", "client_id": "c", "client_secret": "s", "variables": {"issuer": issuer}});
    let problem = refused(&app, "/v1/integrations", body, 502, "discovery_unreachable").await;
    says(&problem, &[&issuer, "check the issuer"]);
    let problem = refused(&app, "/v1/providers/discover", json!({"url": issuer}), 502, "discovery_unreachable").await;
    says(&problem, &[&issuer, "check the issuer"]);
    // An address that the configuration doesn't allow is not even tried, and how to allow it is said.
    let private = json!({"url": "https://10.0.0.1"});
    let problem = refused(&app, "/v1/providers/discover", private, 403, "egress_refused").await;
    says(&problem, &["10.0.0.1", "KEYHOLDER_EGRESS_ALLOW"]);
    // There, but no discovery document.
    let page = json!({"url": format!("{}/nothing-here", app.sandbox.base_url())});
    let problem = refused(&app, "/v1/providers/discover", page, 422, "discovery").await;
    says(&problem, &["404"]);
}

#[tokio::test]
async fn an_issuer_mismatch() {
    let app = App::start().await;
    let base = app.sandbox.base_url().to_owned();
    app.fault("discovery=wrong_issuer");
    let body = json!({"name": "x", "provider": "oidc", "client_id": "sandbox-basic", "client_secret": "sandbox-secret", "variables": {"issuer": base}});
    let problem = refused(&app, "/v1/integrations", body.clone(), 422, "discovery").await;
    says(&problem, &["https://impostor.example", &base]);
    app.sandbox.clear_faults();
    app.admin().post("/v1/integrations", body).await.ok(201);

    // The same at the way back (RFC 9207): the code is not sent to anybody.
    app.fault("authorize=wrong_issuer");
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "x"})).await.ok(201);
    let person = app.person();
    let left = person.post(session["url"].as_str().unwrap(), &[]).await;
    let page = person.follow_on(left).await;
    assert_eq!(page.status, 400, "{page:?}");
    assert!(page.text().contains("impostor.example"), "{page:?}");
    assert_eq!(app.sent("authorization_code"), 0);
}

#[tokio::test]
async fn a_wrong_scope() {
    let app = App::start().await;
    let mut body = app.integration_body("machines", "client_credentials");
    body["scopes"] = json!(["read", "fly"]);
    app.admin().post("/v1/integrations", body).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": "m", "integration": "machines"})).await.ok(201);
    let problem = app.admin().post("/v1/connections/m/authorize", json!({})).await.problem(502, "setup_refused");
    assert_eq!((&problem["failure"]["kind"], &problem["failure"]["code"]), (&json!("setup"), &json!("invalid_scope")));
    says(&problem["failure"], &["Correct the integration's scopes"]);
    let shown = app.admin().get("/v1/connections/m").await.ok(200);
    assert_eq!((&shown["failure"]["code"], &shown["failures"]["setup"]), (&json!("invalid_scope"), &json!(1)));
    app.admin().patch("/v1/integrations/machines", json!({"scopes": ["read"]})).await.ok(200);
    app.admin().post("/v1/connections/m/authorize", json!({})).await.ok(200);
    assert_eq!(app.state("m").await, "connected");

    let mut body = app.integration_body("people", "authorization_code");
    body["scopes"] = json!(["fly"]);
    app.admin().post("/v1/integrations", body).await.ok(201);
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "people"})).await.ok(201);
    let person = app.person();
    let left = person.post(session["url"].as_str().unwrap(), &[]).await;
    let page = person.follow_on(left).await;
    assert_eq!(page.status, 400, "{page:?}");
    assert!(page.text().contains("invalid_scope"), "{page:?}");
}

#[tokio::test]
async fn a_wrong_redirect_uri() {
    let app = App::with(Options { any_redirect: false, ..auto_approving() }).await;
    let integration = app.integration("crm", "authorization_code").await;
    let redirect_uri = integration["redirect_uri"].as_str().unwrap();
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "crm"})).await.ok(201);
    let connection = session["connection"].as_str().unwrap();
    let person = app.person();
    let left = person.post(session["url"].as_str().unwrap(), &[]).await;
    // The provider keeps the person: it must not send anybody to an address that it doesn't know.
    let page = person.follow_on(left).await;
    assert_eq!(page.status, 400, "{page:?}");
    assert!(page.url.starts_with(app.sandbox.base_url()) && page.text().contains(redirect_uri), "{page:?}");
    assert_eq!(app.state(connection).await, "pending");

    // What a provider says of it at the token endpoint.
    app.sandbox.add_client(keyholder_sandbox::Client {
        id: "sandbox-basic".to_owned(),
        name: String::new(),
        secret: Some("sandbox-secret".to_owned()),
        auth: None,
        redirect_uris: vec![redirect_uri.to_owned()],
    });
    app.fault("token=error:redirect_uri_mismatch,times=1");
    let left = person.post(session["url"].as_str().unwrap(), &[]).await;
    let page = person.follow_on(left).await;
    assert_eq!(page.status, 502, "{page:?}");
    assert!(page.text().contains("redirect URI") && page.text().contains("letter by letter"), "{page:?}");

    // Registered, the same link goes on.
    let left = person.post(session["url"].as_str().unwrap(), &[]).await;
    let question = person.follow_on(left).await;
    person.post(&question.url, &[("decision", "yes")]).await;
    assert_eq!(app.state(connection).await, "connected");
}

#[tokio::test]
async fn an_expired_or_replayed_state() {
    let (app, clock) = App::on_a_clock().await;
    app.integration("crm", "authorization_code").await;
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "crm"})).await.ok(201);
    let (link, connection) = (session["url"].as_str().unwrap(), session["connection"].as_str().unwrap());
    let person = app.person();
    let left = person.post(link, &[]).await;
    let back = person.get(left.location().unwrap().as_str()).await;
    clock.advance(Duration::from_secs(10 * 60));
    let late = person.get(back.location().unwrap().as_str()).await;
    assert_eq!(late.status, 410, "{late:?}");
    assert!(late.text().contains("ten minutes") && late.text().contains("begin again"), "{late:?}");
    assert_eq!(app.sent("authorization_code"), 0, "the code was not sent");

    // Begun again in time it works, and the state works once.
    let left = person.post(link, &[]).await;
    let back = person.get(left.location().unwrap().as_str()).await;
    clock.advance(Duration::from_secs(9 * 60));
    let callback = back.location().unwrap();
    let question = person.follow(callback.as_str()).await;
    assert_eq!(question.status, 200, "{question:?}");
    assert_eq!(person.get(callback.as_str()).await.status, 410);
    assert_eq!(app.sent("authorization_code"), 1);

    // A yes that comes after fifteen minutes.
    clock.advance(Duration::from_secs(15 * 60));
    let late = person.post(&question.url, &[("decision", "yes")]).await;
    assert_eq!(late.status, 410, "{late:?}");
    assert!(late.text().contains("time is over"), "{late:?}");
    assert_ne!(app.state(connection).await, "connected");
}

#[tokio::test]
async fn an_expired_link() {
    let (app, clock) = App::on_a_clock().await;
    app.integration("crm", "authorization_code").await;
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "crm"})).await.ok(201);
    let link = session["url"].as_str().unwrap();
    clock.advance(Duration::from_secs(60 * 60));
    let person = app.person();
    for page in [person.get(link).await, person.post(link, &[]).await] {
        assert_eq!(page.status, 410, "{page:?}");
        assert!(page.text().contains("ask for a new one"), "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_api_key() {
    let (app, clock) = App::on_a_clock().await;
    let mut caller = app.anonymous();
    caller.key = Some("khk_wrong".to_owned());
    let problem = caller.get("/v1/connections").await.problem(401, "unauthenticated");
    says(&problem, &["unknown or was revoked", "KEYHOLDER_API_KEY", "keyholder key create"]);
    assert!(!problem.to_string().contains("khk_wrong"), "what was shown is not repeated");

    let soon = clock_now(&app).await + 60_000;
    let made =
        app.admin().post("/v1/keys", json!({"name": "short", "scopes": ["read"], "expires_at": soon})).await.ok(201);
    caller.key = made["key"].as_str().map(str::to_owned);
    caller.get("/v1/connections").await.ok(200);
    clock.advance(Duration::from_secs(60));
    says(&caller.get("/v1/connections").await.problem(401, "unauthenticated"), &["has expired"]);

    let output = tokio::task::block_in_place(|| {
        crate::process::keyholder(app.folder.path())
            .env("KEYHOLDER_URL", &app.url)
            .env("KEYHOLDER_API_KEY", "khk_wrong")
            .args(["connection", "list"])
            .output()
            .unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("KEYHOLDER_API_KEY") && !said.contains("khk_wrong"), "{said}");
}

async fn clock_now(app: &App) -> i64 {
    app.admin().get("/v1/audit").await.ok(200);
    app.integration("for-the-time", "client_credentials").await["created_at"].as_i64().unwrap()
}

#[tokio::test]
async fn a_body_over_the_limit() {
    let app = App::start().await;
    let mut body = app.integration_body("crm", "client_credentials");
    body["audience"] = "x".repeat(1 << 20).into();
    let problem = refused(&app, "/v1/integrations", body.clone(), 413, "too_large").await;
    says(&problem, &["1048576 bytes", "send less"]);
    // Behind an Idempotency-Key the body is read earlier; the key is not used up.
    let headers = [("idempotency-key", "k")];
    let send = async |body: &Value| {
        app.admin().send(http::Method::POST, "/v1/integrations", &headers, full(body.to_string())).await
    };
    send(&body).await.problem(413, "too_large");
    body["audience"] = "x".into();
    send(&body).await.ok(201);
    // The person's form has the same limit, and answers with a page.
    app.integration("people", "authorization_code").await;
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "people"})).await.ok(201);
    let page = app.person().post(session["url"].as_str().unwrap(), &[("x", &"x".repeat(1 << 20))]).await;
    assert_eq!(page.status, 413);
    assert!(page.text().contains("larger than 1048576 bytes"), "{page:?}");
}

/// Whoever sends all before reading still learns why it was refused: the connection isn't reset under the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_late_is_told() {
    let app = App::start().await;
    let key = app.key(&["manage"]).await.key.unwrap();
    for authorization in [format!("Bearer {key}"), "Bearer khk_nobody".to_owned()] {
        let mut stream = TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap();
        let (length, piece) = (10 << 20, vec![b'#'; 1 << 20]);
        let head = format!(
            "POST /v1/providers HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..10 {
            stream.write_all(&piece).await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let expected = if authorization.ends_with("nobody") { "HTTP/1.1 401 " } else { "HTTP/1.1 413 " };
        assert!(answer.starts_with(expected), "{answer}");
        // Who keeps connections must not ask the next thing on this one.
        assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_connection() {
    let app = App::start().await;
    let problem = app.admin().get("/v1/connections/nobody/token").await.problem(404, "not_found");
    says(&problem, &["there is no connection `nobody`", "list what there is"]);
    for arguments in [&["token", "nobody"][..], &["call", "nobody", "/me"], &["connection", "show", "nobody"]] {
        let command = app.command(arguments);
        assert_eq!((command.code, command.out.as_str()), (Some(1), ""), "{command:?}");
        assert!(command.err.contains("`nobody`"), "{command:?}");
    }
}

#[tokio::test]
async fn a_provider_that_is_down() {
    let app = App::start().await;
    let down = nobody().await;
    let mut body = app.integration_body("crm", "client_credentials");
    body["variables"]["token_url"] = format!("{down}/token").into();
    app.admin().post("/v1/integrations", body).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": "m", "integration": "crm"})).await.ok(201);
    let problem = app.admin().post("/v1/connections/m/authorize", json!({})).await.problem(503, "provider_unavailable");
    assert_eq!(problem["failure"]["kind"], "transient");
    says(&problem, &[&down, "Check that the provider is up"]);
    says(&app.admin().get("/v1/connections/m").await.ok(200), &["\"failure\"", "tried again by itself"]);

    // A connection that worked keeps its grant and its valid token.
    app.consented("alice").await;
    let before = app.admin().get("/v1/connections/alice/token").await.ok(200);
    app.fault("token=server_error");
    app.admin().post("/v1/connections/alice/refresh", json!({})).await.problem(503, "provider_unavailable");
    assert_eq!(app.admin().get("/v1/connections/alice/token").await.ok(200)["access_token"], before["access_token"]);
    app.sandbox.clear_faults();
    app.admin().post("/v1/connections/alice/refresh", json!({})).await.ok(200);
    assert_eq!(app.state("alice").await, "connected");

    // A request that broke off may still arrive: nothing is sent before it can't, and who asks is told when.
    app.fault("token=drop,times=1");
    app.admin().post("/v1/connections/alice/refresh", json!({})).await.problem(503, "provider_unavailable");
    let held = app.admin().post("/v1/connections/alice/refresh", json!({})).await.problem(503, "provider_unavailable");
    assert!((50..=60).contains(&held["retry_after"].as_u64().unwrap()), "{held}");
    says(&held, &["may have acted on the request"]);
}

#[tokio::test]
async fn a_provider_that_answers_html() {
    let app = App::start().await;
    app.consented("alice").await;
    app.draft("m", "client_credentials").await;
    app.fault("token=html");
    let problem = app.admin().post("/v1/connections/m/authorize", json!({})).await.problem(503, "provider_unavailable");
    says(&problem, &["web page", "check the endpoint's URL"]);
    assert!(!problem.to_string().contains("<html"), "{problem}");
    let problem =
        app.admin().post("/v1/connections/alice/refresh", json!({})).await.problem(503, "provider_unavailable");
    assert_eq!(problem["failure"]["kind"], "transient", "a captive portal kills no grant");
    app.sandbox.clear_faults();
    for name in ["alice", "m"] {
        let verb = if name == "m" { "authorize" } else { "refresh" };
        app.admin().post(&format!("/v1/connections/{name}/{verb}"), json!({})).await.ok(200);
        assert_eq!(app.state(name).await, "connected");
    }
    // At the discovery document, and to a person who waits.
    app.fault("discovery=html");
    let problem =
        refused(&app, "/v1/providers/discover", json!({"url": app.sandbox.base_url()}), 422, "discovery").await;
    says(&problem, &["discovery"]);
    app.fault("token=html,times=1");
    app.integration("people", "authorization_code").await;
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "people"})).await.ok(201);
    let person = app.person();
    let left = person.post(session["url"].as_str().unwrap(), &[]).await;
    let page = person.follow_on(left).await;
    assert_eq!(page.status, 502, "{page:?}");
    assert!(page.text().contains("web page"), "{page:?}");
}
