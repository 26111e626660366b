//! The injecting gateway on the wire, against the sandbox's API and one of our own that shows every byte it got.

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::app::{App, Body, Reply, full, read};

fn at(tail: &str) -> String {
    format!("/v1/connections/m/proxy{tail}")
}

async fn call(app: &App, method: Method, tail: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    app.admin().send(method, &at(tail), headers, full(body)).await
}

/// A body whose pieces the test sends when it wants to.
fn piecewise() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), receiver))
    });
    (sender, StreamBody::new(pieces).boxed_unsync())
}

/// An API of our own; answers its base URL.
async fn api(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    url
}

/// A connected machine whose API is `base`.
pub async fn machine_of(app: &App, base: &str) {
    let mut body = app.integration_body("own", "client_credentials");
    body["variables"]["api_base_url"] = base.into();
    app.admin().post("/v1/integrations", body).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": "m", "integration": "own"})).await.ok(201);
    app.admin().post("/v1/connections/m/authorize", json!({})).await.ok(200);
}

/// Answers every header, the raw target and the body as JSON.
async fn mirror(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let shown = json!({
        "method": head.method.as_str(),
        "target": head.uri.path_and_query().map(ToString::to_string),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let mut response = Response::new(AxumBody::from(shown.to_string()));
    let headers = response.headers_mut();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("set-cookie", "session=s3cret".parse().unwrap());
    headers.insert("x-api", "kept".parse().unwrap());
    headers.append("x-many", "1".parse().unwrap());
    headers.append("x-many", "2".parse().unwrap());
    headers.insert("keep-alive", "timeout=5".parse().unwrap());
    response
}

fn header(shown: &Value, name: &str) -> Vec<String> {
    let pairs = shown["headers"].as_array().unwrap();
    let values = pairs.iter().filter(|pair| pair[0] == name);
    values.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_token_goes_in_and_the_callers_key_never_arrives() {
    let app = App::start().await;
    let base = api(Router::new().fallback(any(mirror))).await;
    machine_of(&app, &base).await;
    let key = app.admin().key.unwrap();
    let reply = call(
        &app,
        Method::GET,
        "/x",
        &[
            ("cookie", "a=b"),
            ("x-forwarded-for", "1.2.3.4"),
            ("proxy-authorization", "Basic x"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("accept", "text/csv"),
            ("x-own", "stays"),
            ("user-agent", "curl/8"),
        ],
        "",
    )
    .await;
    assert!(!reply.text().contains(&key), "{}", reply.text());
    assert!(!reply.text().contains("khk_"), "{}", reply.text());
    let headers = reply.headers.clone();
    let shown = reply.ok(200);
    let token = app.admin().get("/v1/connections/m/token").await.ok(200);
    assert_eq!(header(&shown, "authorization"), [format!("Bearer {}", token["access_token"].as_str().unwrap())]);
    for gone in ["cookie", "x-forwarded-for", "proxy-authorization", "x-hop"] {
        assert_eq!(header(&shown, gone), [""; 0], "{gone}");
    }
    assert_eq!(header(&shown, "accept"), ["text/csv"]);
    assert_eq!(
        (header(&shown, "x-own"), header(&shown, "user-agent")),
        (vec!["stays".to_owned()], vec!["curl/8".to_owned()])
    );
    assert_eq!(header(&shown, "host"), [base.trim_start_matches("http://")]);
    assert_eq!(header(&shown, "via"), [""; 0], "it would make many an API stop compressing");

    assert_eq!(headers.get("x-api").unwrap(), "kept");
    assert_eq!(headers.get_all("x-many").iter().count(), 2);
    for gone in ["set-cookie", "keep-alive"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn every_method_path_and_query_arrives_as_it_was_sent() {
    let app = App::start().await;
    machine_of(&app, &format!("{}/v2", api(Router::new().fallback(any(mirror))).await)).await;
    for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let shown = call(&app, method.parse().unwrap(), "/a", &[], "{\"x\": 1}").await.ok(200);
        assert_eq!((&shown["method"], &shown["body"]), (&json!(method), &json!("{\"x\": 1}")), "{method}");
        assert_eq!(header(&shown, "content-length"), ["8"], "{method}");
    }
    for tail in [
        "/",
        "/a/b",
        "/a%2Fb",
        "/a%20b+c",
        "/%FF%00",
        "/Z%C3%B6e",
        "//x//",
        "/a;b=c,d",
        "/.well-known/x",
        "/@me",
        "/a:b",
        "/a?",
        "/a?q=%20+%2B&&x=1&x=2&=",
        "/a?q=a%26b",
        "/a?q='[]{}",
        "/a?next=https://evil.example/?x#",
        "/proxy/proxy",
    ] {
        // `#` ends a request's target; it never reaches a server.
        let expected = format!("/v2{}", tail.trim_end_matches('#'));
        let shown = call(&app, Method::GET, tail, &[], "").await.ok(200);
        assert_eq!(shown["target"], expected, "{tail}");
    }
    let head = call(&app, Method::HEAD, "/a", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("x-api"), Some("kept"));
    assert!(head.header("content-length").unwrap().parse::<u64>().unwrap() > 0, "as a GET would have had");
}

#[tokio::test]
async fn paths_that_climb_and_hosts_that_nobody_named_are_refused_unsent() {
    let app = App::start().await;
    app.machine("m").await;
    for tail in ["/../admin/counters", "/a/%2e%2e/%2E./x", "/./me", "/%5c..%5cx"] {
        let reply = call(&app, Method::GET, tail, &[], "").await;
        assert!(matches!(reply.status, 404 | 422), "{tail}: {}", reply.text());
    }
    for host in ["evil.example", "127.0.0.1:1", "localhost", "", "a@127.0.0.1"] {
        let problem =
            call(&app, Method::GET, "/me", &[("keyholder-host", host)], "").await.problem(403, "host_not_allowed");
        assert!(problem["detail"].as_str().unwrap().contains("the definition allows"), "{host}: {problem}");
    }
    assert_eq!(app.seen("api"), 0);
}

#[tokio::test]
async fn twenty_megabytes_come_back_byte_for_byte() {
    let app = App::start().await;
    app.machine("m").await;
    const SIZE: usize = 20 << 20;
    for chunked in ["", "&chunked=1"] {
        let reply = call(&app, Method::GET, &format!("/stream?bytes={SIZE}{chunked}"), &[], "").await;
        assert_eq!((reply.status, reply.body.len()), (200, SIZE));
        assert!(reply.body.iter().zip(b"0123456789".iter().cycle()).all(|(got, sent)| got == sent));
        assert_eq!(reply.header("content-length").is_some(), chunked.is_empty(), "framed as the API framed it");
        assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    }
}

#[tokio::test]
async fn twenty_megabytes_go_out_byte_for_byte() {
    let app = App::start().await;
    app.machine("m").await;
    let body: Vec<u8> = (0..20 << 20).map(|at: u32| (at % 251) as u8).collect();
    let sha256: String = keyholder_oauth::sha256(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let known = call(&app, Method::POST, "/upload", &[], body.clone()).await.ok(200);
    assert_eq!(known, json!({"bytes": body.len(), "sha256": sha256}));
    let (sender, streamed) = piecewise();
    let sending = tokio::spawn(async move {
        for piece in body.chunks(100_000) {
            sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
    });
    let unknown = app.admin().send(Method::PUT, &at("/upload"), &[], streamed).await.ok(200);
    sending.await.unwrap();
    assert_eq!(unknown, known, "without a length too");
}

/// A reply that has no end can only be read by who doesn't wait for it.
#[tokio::test]
async fn a_reply_arrives_while_it_is_still_being_sent() {
    let app = App::start().await;
    app.machine("m").await;
    let path = at(&format!("/stream?bytes={}", 1_u64 << 50));
    let response = app.admin().open(Method::GET, &path, &[], full("")).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut got = 0;
    while got < 4 << 20 {
        got += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
}

/// The first piece comes back before the second is sent: nothing waits for the whole on the way out, nor on the way back.
#[tokio::test]
async fn bodies_stream_in_both_directions_at_once() {
    let app = App::start().await;
    let parrot =
        any(async |request: Request| Response::new(AxumBody::from_stream(request.into_body().into_data_stream())));
    machine_of(&app, &api(Router::new().fallback(parrot)).await).await;
    let (sender, body) = piecewise();
    let response = app.admin().open(Method::POST, &at("/"), &[], body).await;
    assert_eq!(response.status(), 200);
    let mut back = response.into_body().into_data_stream();
    for piece in ["one", "two", "three"] {
        sender.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
        assert_eq!(back.next().await.unwrap().unwrap(), piece);
    }
    drop(sender);
    assert!(back.next().await.is_none());
}

#[tokio::test]
async fn a_401_renews_once_and_repeats_once() {
    let app = App::start().await;
    app.machine("m").await;
    app.sandbox.expire_access_tokens();
    let reply = call(&app, Method::POST, "/echo", &[], "{\"x\": 1}").await.ok(200);
    assert_eq!(reply["body"]["text"], "{\"x\": 1}", "the body came a second time");
    assert_eq!((app.sent("client_credentials"), app.seen("api")), (2, 2));

    // An API that always says 401 is believed after one try.
    app.sandbox.reset_counters();
    app.fault("api=unauthorized");
    let reply = call(&app, Method::GET, "/me", &[], "").await;
    assert_eq!((reply.status, reply.json()["error"].clone()), (401, json!("invalid_token")), "the API's own answer");
    assert_eq!((app.sent("client_credentials"), app.seen("api")), (1, 2));
}

#[tokio::test]
async fn a_large_body_is_not_sent_twice() {
    let app = App::start().await;
    app.machine("m").await;
    app.sandbox.expire_access_tokens();
    let reply = call(&app, Method::POST, "/upload", &[], vec![b'x'; 1 << 20]).await;
    assert_eq!(reply.status, 401, "the API's own answer: {}", reply.text());
    assert_eq!(app.seen("api"), 1);
}

#[tokio::test]
async fn what_the_api_answers_is_the_callers_and_what_we_answer_is_a_problem() {
    let app = App::start().await;
    app.machine("m").await;
    let reply = call(&app, Method::GET, "/admin", &[], "").await;
    assert_eq!((reply.status, reply.json()["error"].clone()), (403, json!("insufficient_scope")));
    assert!(reply.header("www-authenticate").unwrap().contains("insufficient_scope"));
    app.fault("api=status:500,times=1");
    assert_eq!(call(&app, Method::GET, "/me", &[], "").await.status, 500);
    app.fault("api=html,times=1");
    assert!(call(&app, Method::GET, "/me", &[], "").await.header("content-type").unwrap().starts_with("text/html"));
    app.fault("api=redirect,times=1");
    let reply = call(&app, Method::GET, "/me", &[], "").await;
    assert_eq!(
        (reply.status, app.seen("elsewhere")),
        (302, 0),
        "a redirect is the caller's to follow, without the token"
    );
    // A connection that was kept is tried once more with a new one.
    app.fault("api=drop,times=2");
    let problem = call(&app, Method::GET, "/me", &[], "").await.problem(502, "unreachable");
    assert!(problem["detail"].as_str().unwrap().contains("broke before the reply"), "{problem}");
}

#[tokio::test]
async fn an_api_that_is_down_is_named() {
    let app = App::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    machine_of(&app, &format!("http://{closed}/secret-path?key=s3cret")).await;
    let problem = call(&app, Method::GET, "/me", &[], "").await.problem(502, "unreachable");
    assert!(problem["detail"].as_str().unwrap().contains(&closed.to_string()), "{problem}");
    assert!(!problem.to_string().contains("s3cret"), "{problem}");
}

#[tokio::test]
async fn a_connection_without_an_api_says_what_to_set() {
    let app = App::start().await;
    let mut body = app.integration_body("bare", "client_credentials");
    body["variables"].as_object_mut().unwrap().remove("api_base_url");
    app.admin().post("/v1/integrations", body).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": "m", "integration": "bare"})).await.ok(201);
    app.admin().post("/v1/connections/m/authorize", json!({})).await.ok(200);
    let problem = call(&app, Method::GET, "/me", &[], "").await.problem(422, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("`api_base_url`"), "{problem}");
    app.admin()
        .patch(
            "/v1/integrations/bare",
            json!({"variables": {"api_base_url": format!("{}/api", app.sandbox.base_url())}}),
        )
        .await
        .ok(200);
    call(&app, Method::GET, "/me", &[], "").await.ok(200);
}

#[tokio::test]
async fn a_definitions_prefix_is_the_integrations_to_change() {
    let app = App::start().await;
    let base = api(Router::new().fallback(any(mirror))).await;
    machine_of(&app, &base).await;
    let authorization =
        async |app: &App| header(&call(app, Method::GET, "/", &[], "").await.ok(200), "authorization")[0].clone();
    app.admin().patch("/v1/integrations/own", json!({"header_prefix": "Token"})).await.ok(200);
    assert!(authorization(&app).await.starts_with("Token "));
    app.admin().patch("/v1/integrations/own", json!({"header_prefix": ""})).await.ok(200);
    assert!(!authorization(&app).await.contains(' '));
    app.admin().patch("/v1/integrations/own", json!({"header_prefix": null})).await.ok(200);
    assert!(authorization(&app).await.starts_with("Bearer "));
}

/// Many at once share connections to the API; nobody gets another's answer.
#[tokio::test]
async fn many_calls_at_once_keep_their_answers_apart() {
    let app = App::start().await;
    machine_of(&app, &api(Router::new().fallback(any(mirror))).await).await;
    let calls = (0..64).map(|n| {
        let caller = app.admin();
        tokio::spawn(async move {
            read(caller.open(Method::POST, &at(&format!("/{n}")), &[], full(n.to_string())).await).await
        })
    });
    for (n, reply) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        let shown = reply.unwrap().ok(200);
        assert_eq!((&shown["target"], &shown["body"]), (&json!(format!("/{n}")), &json!(n.to_string())));
    }
    assert_eq!(app.sent("client_credentials"), 1);
}

/// What the caller sends as a header can't take the token's place or frame the message anew.
#[tokio::test]
async fn a_caller_cannot_smuggle() {
    let app = App::start().await;
    let base = api(Router::new().fallback(any(mirror))).await;
    machine_of(&app, &base).await;
    let shown =
        call(&app, Method::POST, "/x", &[("connection", "authorization, content-length, host")], "abc").await.ok(200);
    assert!(header(&shown, "authorization")[0].starts_with("Bearer "));
    assert_eq!((header(&shown, "content-length"), &shown["body"]), (vec!["3".to_owned()], &json!("abc")));
}
