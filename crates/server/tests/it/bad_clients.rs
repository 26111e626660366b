//! Clients that are slow, silent or greedy on purpose: bounded, and nobody else is disturbed. Time is the test's.

use std::time::Duration;

use axum::Router;
use axum::body::Body as RouterBody;
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyholder_broker::clock::ManualClock;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::{App, full};

async fn connect(app: &App) -> TcpStream {
    TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap()
}

/// Sends, and answers all that comes until the connection is closed.
async fn until_closed(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // A connection that is reset is closed too.
    let _ = stream.write_all(bytes).await;
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

fn begins(answer: &[u8], expected: &str) {
    let answer = String::from_utf8_lossy(answer);
    assert!(answer.starts_with(expected), "{expected}: {answer}");
}

/// Somebody who behaves: one connection for all requests.
struct Guest(TcpStream);

impl Guest {
    async fn asks(&mut self) {
        self.0.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut piece = [0; 1024];
            let length = self.0.read(&mut piece).await.unwrap();
            assert_ne!(length, 0, "a connection that is used was closed");
            answer.extend_from_slice(&piece[..length]);
        }
        begins(&answer, "HTTP/1.1 200 OK");
    }
}

/// Lets time pass until all these have ended, while a guest is served on the same connection all the time.
async fn ended<T>(app: &App, clock: &ManualClock, clients: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut guest = Guest(connect(app).await);
    for _ in 0..10_000 {
        guest.asks().await;
        if clients.iter().all(JoinHandle::is_finished) {
            break;
        }
        clock.advance(Duration::from_secs(5));
    }
    let mut outcomes = Vec::new();
    for client in clients {
        assert!(client.is_finished(), "a client is still there");
        outcomes.push(client.await.unwrap());
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_come_by_the_byte_and_clients_that_say_nothing() {
    let (app, clock) = App::watching_clients().await;
    let mut clients = Vec::new();
    for number in 0..60 {
        let mut stream = connect(&app).await;
        clients.push(tokio::spawn(async move {
            match number % 3 {
                // Never a byte.
                0 => {}
                // A head that goes on and on, and never ends.
                1 => stream.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").await.unwrap(),
                // The same as a second request.
                _ => {
                    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                    let mut answer = [0; 12];
                    stream.read_exact(&mut answer).await.unwrap();
                    begins(&answer, "HTTP/1.1 200");
                    stream.write_all(b"GET /heal").await.unwrap();
                }
            }
            until_closed(stream, b"").await
        }));
    }
    ended(&app, &clock, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_end_and_disturb_nobody() {
    let (app, clock) = App::watching_clients().await;
    let mut clients = Vec::new();
    for _ in 0..2_000 {
        let stream = connect(&app).await;
        clients.push(tokio::spawn(until_closed(stream, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")));
    }
    for answer in ended(&app, &clock, clients).await {
        begins(&answer, "HTTP/1.1 200 OK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused() {
    let app = App::start().await;
    let many = "x: y\r\n".repeat(200);
    let large = format!("x: {}\r\n", "y".repeat(70 << 10));
    let long = "z".repeat(70 << 10);
    for (target, headers, status) in
        [("/healthz", &many, "431"), ("/healthz", &large, "431"), (&format!("/{long}"), &String::new(), "4")]
    {
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        begins(&until_closed(connect(&app).await, request.as_bytes()).await, &format!("HTTP/1.1 {status}"));
    }
    let allowed = format!("GET /healthz HTTP/1.1\r\nconnection: close\r\nx: {}\r\n\r\n", "y".repeat(60 << 10));
    begins(&until_closed(connect(&app).await, allowed.as_bytes()).await, "HTTP/1.1 200");
}

/// Whether or not anybody reads it.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_an_end_is_answered_and_cut() {
    let app = App::start().await;
    let key = app.key(&["manage"]).await.key.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "#".repeat(1 << 16));
    for (path, status) in [("/v1/providers", "413"), ("/v1/nothing", "404"), ("/v1/connections/x/proxy/", "403")] {
        let (mut read, mut write) = connect(&app).await.into_split();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let chunk = chunk.clone();
        let endless = tokio::spawn(async move {
            write.write_all(head.as_bytes()).await.unwrap();
            while write.write_all(chunk.as_bytes()).await.is_ok() {}
        });
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
        begins(&answer, &format!("HTTP/1.1 {status}"));
        endless.await.unwrap();
    }
}

/// A client that waits to be asked for its body is asked only when somebody reads it (RFC 9110 §10.1.1).
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_only_when_it_is_read() {
    let app = App::start().await;
    let key = app.key(&["manage"]).await.key.unwrap();
    let post = |path: &str, key: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
    };
    for (path, key, status) in [("/v1/nothing", key.as_str(), "404"), ("/v1/providers", "khk_nobody", "401")] {
        begins(&until_closed(connect(&app).await, post(path, key).as_bytes()).await, &format!("HTTP/1.1 {status}"));
    }
    let mut stream = connect(&app).await;
    stream.write_all(post("/v1/providers", &key).as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    begins(&asked, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    begins(&answer, "HTTP/1.1 422");
}

/// An API whose answer has no end; tells when nobody wants it any more.
async fn endless_api() -> (String, mpsc::UnboundedReceiver<()>) {
    let (gone, told) = mpsc::unbounded_channel();
    let answer = move || {
        struct Gone(mpsc::UnboundedSender<()>);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let gone = Gone(gone.clone());
        let pieces = futures_util::stream::repeat_with(move || {
            let _held = &gone;
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'#'; 1 << 16]))
        });
        std::future::ready(Response::new(RouterBody::from_stream(pieces)))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/endless", any(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_ends_at_the_api_too() {
    let (app, clock) = App::watching_clients().await;
    let (base, mut gone) = endless_api().await;
    let mut body = app.integration_body("own", "client_credentials");
    body["variables"]["api_base_url"] = base.into();
    app.admin().post("/v1/integrations", body).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": "m", "integration": "own"})).await.ok(201);
    app.admin().post("/v1/connections/m/authorize", json!({})).await.ok(200);
    let key = app.key(&["call"]).await.key.unwrap();

    // By HTTP/1.1, and by HTTP/2, where the client withholds its window instead of the socket.
    let mut unread = connect(&app).await;
    let request =
        format!("GET /v1/connections/m/proxy/endless HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    unread.write_all(request.as_bytes()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(connect(&app).await)).await.unwrap();
    let second = tokio::spawn(connection);
    let request = Request::get(format!("{}/v1/connections/m/proxy/endless", app.url))
        .header("authorization", format!("Bearer {key}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);

    let both = tokio::spawn(async move { (gone.recv().await, gone.recv().await) });
    ended(&app, &clock, vec![both]).await;
    drop((unread, response));
    let _ = second.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge_is_spoken() {
    let (app, clock) = App::watching_clients().await;
    app.machine("crm").await;
    let key = app.key(&["token", "call"]).await.key.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(connect(&app).await)).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = async |path: &str, key: &str| {
        let request = Request::get(format!("{}{path}", app.url))
            .header("authorization", format!("Bearer {key}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = sender.clone().send_request(request).await.unwrap();
        (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
    };
    assert_eq!(ask("/v1/connections/crm/token", &key).await.0, 200);
    assert_eq!(ask("/v1/connections/crm/proxy/echo", &key).await.0, 200);
    assert_eq!(ask("/v1/connections/crm/token", "khk_nobody").await.0, 401);
    let many = futures_util::future::join_all((0..300).map(|_| ask("/v1/connections/crm/token", &key))).await;
    assert!(many.iter().all(|(status, _)| *status == 200), "more than may be under way at once wait");
    let large = Request::get(format!("{}/healthz", app.url))
        .header("x", "y".repeat(100 << 10))
        .body(Empty::<Bytes>::new())
        .unwrap();
    // The client may know the limit too, and not even send it.
    if let Ok(response) = sender.clone().send_request(large).await {
        assert_eq!(response.status(), 431);
    }
    // Idle, it ends.
    ended(&app, &clock, vec![connection]).await;
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_that_is_abused_ends() {
    let app = App::start().await;
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat();
    // GET / of http://x, from the static table (RFC 7541).
    let head = [0x82, 0x84, 0x86, 0x41, 1, b'x'];
    let rapid_resets: Vec<u8> = (0..20_000_u32)
        .flat_map(|number| [frame(1, 5, 2 * number + 1, &head), frame(3, 0, 2 * number + 1, &[0, 0, 0, 8])].concat())
        .collect();
    let endless_head: Vec<u8> = std::iter::once(frame(1, 1, 1, &head))
        .chain((0..20_000).map(|_| frame(9, 0, 1, &[0x40, 1, b'x', 1, b'y'])))
        .flatten()
        .collect();
    let empty_frames: Vec<u8> =
        std::iter::once(frame(1, 1, 1, &head)).chain((0..200_000).map(|_| frame(9, 0, 1, &[]))).flatten().collect();
    for (what, abuse) in [("resets", rapid_resets), ("a head", endless_head), ("empty frames", empty_frames)] {
        let answer = until_closed(connect(&app).await, &[opening.as_slice(), &abuse].concat()).await;
        let goodbye = frame(7, 0, 0, &[]);
        assert!(
            answer.windows(2).any(|pair| pair == [goodbye[3], goodbye[4]]),
            "{what}: closed, and told why: {answer:?}"
        );
        Guest(connect(&app).await).asks().await;
    }
    app.admin().send(Method::GET, "/healthz", &[], full("")).await.ok(200);
}
