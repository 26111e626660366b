//! The gateway: the token goes in on the way, and nothing else of the caller's or the provider's slips through.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use keyholder_broker::egress::{Body, BoxError, empty, full};
use keyholder_broker::model::{Limits, Scope, Status};
use keyholder_broker::{Error, ProxyRequest, Reply};
use keyholder_sandbox::Which;
use serde_json::{Value, json};

use crate::app::App;
use crate::fake::Fake;
use crate::renewal::with_fake;

pub fn get(path: &str) -> ProxyRequest {
    request(Method::GET, path, empty())
}

fn post(path: &str, body: &'static str) -> ProxyRequest {
    request(Method::POST, path, full(body))
}

fn request(method: Method, path: &str, body: Body) -> ProxyRequest {
    ProxyRequest { body, ..ProxyRequest::new(method, path).unwrap() }
}

fn with_headers<const N: usize>(mut request: ProxyRequest, headers: [(&'static str, &'static str); N]) -> ProxyRequest {
    for (name, value) in headers {
        request.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    request
}

impl App {
    async fn proxy(&self, request: ProxyRequest) -> Result<Response<Reply>, Error> {
        self.broker.proxy(&self.admin, "crm", request).await
    }

    /// What the sandbox's echo says arrived.
    async fn echoed(&self, request: ProxyRequest) -> Value {
        let response = self.proxy(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        serde_json::from_slice(&read(response).await).unwrap()
    }
}

async fn read(response: Response<Reply>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// A machine connection whose API is the test itself.
pub async fn with_api() -> (App, Fake) {
    let app = App::start().await;
    let fake = Fake::start().await;
    let mut new = app.plain("client_credentials");
    new.variables.insert("api_base_url".to_owned(), fake.url("/v3/"));
    app.add_integration(new).await;
    app.add_connection("crm", "client_credentials").await;
    app.run("crm").await.unwrap();
    (app, fake)
}

#[tokio::test]
async fn a_call_arrives_with_the_token_and_as_it_was_written() {
    let app = App::start().await;
    app.machine("crm").await;
    let call = with_headers(
        post("/echo/a%2Fb?q=a%20b&q=c", "hello"),
        [("accept", "text/csv"), ("content-type", "text/plain")],
    );
    let seen = app.echoed(call).await;
    assert_eq!(
        (&seen["method"], &seen["path"], &seen["query"]),
        (&json!("POST"), &json!("/api/echo/a%2Fb"), &json!("q=a%20b&q=c"))
    );
    assert_eq!((&seen["authorization"], &seen["body"]["text"]), (&json!("Bearer ****"), &json!("hello")));
    assert_eq!(seen["headers"]["accept"], "text/csv");
    let records = app.broker.audit_records(&app.admin, &keyholder_broker::Page::first()).await.unwrap();
    let call = records.iter().find(|record| record.action == "proxy.call").unwrap();
    assert_eq!(call.detail.as_deref(), Some("POST 127.0.0.1/echo/a%2Fb"));
}

#[tokio::test]
async fn what_is_the_callers_own_or_of_this_hop_stays_here() {
    let app = App::start().await;
    app.machine("crm").await;
    let call = with_headers(
        get("/echo"),
        [
            ("authorization", "Bearer khk_callers_own"),
            ("cookie", "session=1"),
            ("connection", "keep-alive, x-hop, authorization"),
            ("x-hop", "1"),
            ("x-forwarded-for", "10.1.2.3"),
            ("forwarded", "for=10.1.2.3"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("host", "evil.example"),
            ("proxy-authorization", "Basic x"),
            ("x-kept", "yes"),
        ],
    );
    let seen = app.echoed(call).await;
    let headers = seen["headers"].as_object().unwrap();
    let mut names: Vec<_> = headers.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["connection", "host", "te", "x-kept"], "{headers:?}");
    assert_eq!(headers["connection"], "te", "RFC 9110 §10.1.4 asks for it, and it is ours");
    assert!(headers["host"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(seen["authorization"], "Bearer ****");
}

#[tokio::test]
async fn the_providers_cookies_and_hop_headers_stay_there() {
    let (app, mut fake) = with_api().await;
    let answer = async {
        let arrived = fake.next().await;
        assert_eq!((arrived.path.as_str(), arrived.query.as_deref()), ("/v3/contacts", None));
        let response = Response::builder()
            .status(418)
            .header("set-cookie", "session=secret")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("x-kept", "yes")
            .header("location", "https://elsewhere.example/");
        arrived.respond(response.body(axum::body::Body::from("short and stout")).unwrap());
    };
    let (response, ()) = tokio::join!(app.proxy(get("/contacts")), answer);
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    let headers = response.headers();
    assert_eq!(headers["x-kept"], "yes");
    for gone in ["set-cookie", "connection", "x-hop", "keep-alive"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers[header::LOCATION], "https://elsewhere.example/", "a redirect is the caller's to follow");
    assert_eq!(read(response).await, "short and stout");
}

#[tokio::test]
async fn the_caller_chooses_neither_host_nor_a_way_out_of_the_base_path() {
    let app = App::start().await;
    app.machine("crm").await;
    assert!(ProxyRequest::new(Method::GET, "echo").is_err());
    for path in ["/../admin/counters", "/echo/..%2f..", "/%2e%2e/admin", "/echo\\.."] {
        let refused = app.proxy(get(path)).await.err().unwrap();
        assert!(matches!(refused, Error::Invalid(_)), "{path}: {refused}");
    }
    for host in ["evil.example", "127.0.0.1:1", "169.254.169.254"] {
        let refused = app.proxy(with_headers(get("/echo"), [("keyholder-host", host)])).await.err().unwrap();
        let Error::HostNotAllowed { host: told, allowed } = &refused else { panic!("{refused}") };
        assert_eq!((told.as_str(), allowed.as_slice()), (host, ["127.0.0.1".to_owned()].as_slice()));
    }
    for method in [Method::TRACE, Method::CONNECT] {
        let refused = app.proxy(request(method, "/echo", empty())).await.err().unwrap();
        assert!(matches!(&refused, Error::Invalid(errors) if errors[0].field == "method"), "{refused}");
    }
    assert_eq!(app.seen("api"), 0);
    // The base URL's own host is allowed, at its port only.
    let own = app.proxy(with_headers(get("/api/echo"), [("keyholder-host", "127.0.0.1")])).await.unwrap();
    assert_eq!(own.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_401_ends_no_connection_whose_token_should_still_be_good() {
    let (app, mut fake) = with_fake().await;
    let answer = async { fake.next().await.json(200, json!({"access_token": "at-1", "expires_in": 3600})) };
    tokio::join!(app.consent("crm"), answer);
    // There is no refresh token, and the API knows no `at-1`.
    let response = app.proxy(get("/me")).await.unwrap();
    assert_eq!((response.status(), app.status("crm").await), (StatusCode::UNAUTHORIZED, Status::Connected));
    assert_eq!(app.secret("crm").await, "at-1");
    app.advance(3600);
    assert!(app.proxy(get("/me")).await.is_err());
    assert_eq!(app.status("crm").await, Status::Reconnect);
}

#[tokio::test]
async fn a_key_with_limits_sends_no_header_that_would_change_the_request() {
    let app = App::start().await;
    app.machine("crm").await;
    let overriding = || {
        with_headers(
            get("/echo"),
            [
                ("x-http-method-override", "DELETE"),
                ("x_http_method_override", "DELETE"),
                ("http-method-override", "DELETE"),
                ("x-original-url", "/me"),
            ],
        )
    };
    let seen = app.echoed(overriding()).await;
    assert_eq!(seen["headers"]["x-http-method-override"], "DELETE");
    for limits in [
        Limits { methods: ["GET".to_owned()].into(), ..Limits::default() },
        Limits { paths: ["/echo".to_owned()].into(), ..Limits::default() },
    ] {
        let caller = app.caller(&format!("{limits:?}").len().to_string(), &[Scope::Call], limits).await;
        let seen = read(app.broker.proxy(&caller, "crm", overriding()).await.unwrap()).await;
        let seen: Value = serde_json::from_slice(&seen).unwrap();
        let headers = seen["headers"].as_object().unwrap();
        assert!(headers.keys().all(|name| !name.starts_with('x') && !name.contains("override")), "{headers:?}");
        let renamed = app.broker.proxy(&caller, "crm", get("/echo?a=1&_method=DELETE")).await;
        assert!(matches!(renamed.err(), Some(Error::Invalid(_))));
    }
}

#[tokio::test]
async fn an_api_that_switches_protocols_unasked_is_an_error() {
    let (app, mut fake) = with_api().await;
    let answer = async {
        let switch = Response::builder().status(101).header("upgrade", "x").header("connection", "upgrade");
        fake.next().await.respond(switch.body(axum::body::Body::empty()).unwrap());
    };
    let (response, ()) = tokio::join!(app.proxy(get("/contacts")), answer);
    assert!(matches!(response.err().unwrap(), Error::Egress(_)));
}

#[tokio::test]
async fn a_connection_without_an_api_says_so() {
    let app = App::start().await;
    let mut new = app.plain("client_credentials");
    new.variables.remove("api_base_url");
    app.add_integration(new).await;
    app.add_connection("crm", "client_credentials").await;
    app.run("crm").await.unwrap();
    let refused = app.proxy(get("/me")).await.err().unwrap().to_string();
    assert!(refused.contains("api_base_url"), "{refused}");
    assert!(app.test("crm").await.unwrap().ok, "there is a token, and nothing to call");
}

#[tokio::test]
async fn a_401_renews_once_and_repeats_once_with_the_same_body() {
    let app = App::start().await;
    app.consented("crm").await;
    app.sandbox.expire_access_tokens();
    let seen = app.echoed(post("/echo", "the same body")).await;
    assert_eq!(seen["body"]["text"], "the same body");
    assert_eq!((app.sent("refresh_token"), app.seen("api"), app.row("crm").await.generation), (1, 2, 2));

    // A call without a body says nothing of its length.
    app.sandbox.expire_access_tokens();
    let response = app.proxy(request(Method::GET, "/me", empty())).await.unwrap();
    assert_eq!((response.status(), app.seen("api")), (StatusCode::OK, 4));
}

#[tokio::test]
async fn a_401_that_stays_is_the_answer() {
    let app = App::start().await;
    app.consented("crm").await;
    app.fault("api=unauthorized");
    let response = app.proxy(get("/me")).await.unwrap();
    assert_eq!((response.status(), app.seen("api"), app.sent("refresh_token")), (StatusCode::UNAUTHORIZED, 2, 1));

    // A path that answers 401 to every token makes no renewal a call.
    let response = app.proxy(get("/me")).await.unwrap();
    assert_eq!((response.status(), app.seen("api"), app.sent("refresh_token")), (StatusCode::UNAUTHORIZED, 3, 1));

    // Where renewal fails too, the API's own answer is the first one.
    app.advance(60);
    app.sandbox.revoke(&Which::All);
    let response = app.proxy(get("/me")).await.unwrap();
    assert_eq!((response.status(), app.seen("api"), app.sent("refresh_token")), (StatusCode::UNAUTHORIZED, 4, 2));
    assert_eq!(app.status("crm").await, Status::Reconnect);
}

#[tokio::test]
async fn many_401s_at_once_renew_once() {
    let app = App::start().await;
    app.consented("crm").await;
    app.sandbox.expire_access_tokens();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        calls.spawn(async move { broker.proxy(&admin, "crm", get("/me")).await.unwrap().status() });
    }
    while let Some(status) = calls.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(app.sent("refresh_token"), 1);
}

#[tokio::test]
async fn big_bodies_stream_both_ways() {
    const SIZE: u64 = 64 << 20;
    let app = App::start().await;
    app.machine("crm").await;
    let frames = futures_util::stream::iter(
        (0..SIZE >> 16).map(|_| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from_static(&[7; 1 << 16])))),
    );
    let body = Body::boxed(http_body_util::StreamBody::new(frames));
    let sent = app.proxy(request(Method::POST, "/upload", body)).await.unwrap();
    let told: Value = serde_json::from_slice(&read(sent).await).unwrap();
    assert_eq!((told["bytes"].as_u64(), app.sandbox.counters().uploaded_bytes), (Some(SIZE), SIZE));

    let response = app.proxy(get(&format!("/stream?bytes={SIZE}"))).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_LENGTH], SIZE.to_string().as_str());
    let mut body = response.into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
    }
    assert_eq!(received, SIZE);
}

#[tokio::test]
async fn a_streamed_body_that_is_refused_is_not_sent_twice() {
    let app = App::start().await;
    app.consented("crm").await;
    app.sandbox.expire_access_tokens();
    let body = http_body_util::StreamBody::new(futures_util::stream::iter([Ok::<_, BoxError>(
        http_body::Frame::data(Bytes::from_static(b"once")),
    )]));
    let response = app.proxy(request(Method::POST, "/upload", Body::boxed(body))).await.unwrap();
    assert_eq!((response.status(), app.seen("api")), (StatusCode::UNAUTHORIZED, 1));
}

#[tokio::test]
async fn a_key_calls_only_what_it_may() {
    let app = App::start().await;
    app.machine("crm").await;
    app.broker
        .add_connection(
            &app.admin,
            keyholder_broker::NewConnection {
                name: "erp".to_owned(),
                integration: "client_credentials".to_owned(),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    app.run("erp").await.unwrap();
    let set = |word: &str| [word.to_owned()].into();
    let limits = Limits { connections: set("crm"), methods: set("GET"), paths: set("/echo"), ..Limits::default() };
    let caller = app.caller("agent", &[Scope::Call], limits).await;
    let call = async |connection: &str, request| app.broker.proxy(&caller, connection, request).await.err();
    assert!(call("crm", get("/echo")).await.is_none());
    assert!(call("crm", get("/echo/deeper")).await.is_none());
    assert!(matches!(call("erp", get("/echo")).await, Some(Error::Limited("connection"))));
    assert!(matches!(call("crm", post("/echo", "")).await, Some(Error::Limited("method"))));
    for path in ["/me", "/echoes", "/"] {
        assert!(matches!(call("crm", get(path)).await, Some(Error::Limited("path"))), "{path}");
    }
    for path in ["/echo/../me", "/echo/%2e%2e/me", "/echo%2f..%2fme", "/echo/..%5cme"] {
        assert!(matches!(call("crm", get(path)).await, Some(Error::Invalid(_) | Error::Limited(_))), "{path}");
    }
    assert_eq!(app.seen("api"), 2);
}

#[tokio::test]
async fn an_api_that_says_nothing_is_given_up() {
    let (app, mut fake) = with_api().await;
    let silence = async {
        let arrived = fake.next().await;
        app.clock.advance(Duration::from_secs(121));
        arrived
    };
    let (response, _arrived) = tokio::join!(app.proxy(get("/contacts")), silence);
    let error = response.err().unwrap().to_string();
    assert!(error.contains("did not answer within 120 s"), "{error}");
}

#[tokio::test]
async fn a_slow_upload_that_moves_is_not_given_up() {
    let (app, mut fake) = with_api().await;
    let clock = app.clock.clone();
    let frames = futures_util::stream::iter((0..5).map(move |_| {
        clock.advance(Duration::from_secs(100));
        Ok::<_, BoxError>(http_body::Frame::data(Bytes::from_static(b"part")))
    }));
    let body = Body::boxed(http_body_util::StreamBody::new(frames));
    let answer = async {
        let arrived = fake.next().await;
        assert_eq!(arrived.body.len(), 20);
        app.clock.advance(Duration::from_secs(100));
        arrived.json(200, json!({}));
    };
    let (response, ()) = tokio::join!(app.proxy(request(Method::POST, "/upload", body)), answer);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
}
