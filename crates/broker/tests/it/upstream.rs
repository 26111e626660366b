//! API calls outwards: the connections to one server, by real sockets, with servers that say byte for byte what the test wants.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use keyholder_broker::clock::{Clock, ManualClock};
use keyholder_broker::egress::{Body, BoxError, Egress, EgressError, EgressFault, IDLE, Policy, Upstream};
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::app::START;

const LIMIT: Duration = Duration::from_secs(10);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
const CERTIFICATE: &str = include_str!("tls.crt");
const KEY: &str = include_str!("tls.key");

/// A server without a will of its own.
struct Server(TcpListener);

/// A connection to it.
struct Peer(TcpStream);

impl Server {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn host(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    async fn accept(&self) -> Peer {
        Peer(self.0.accept().await.unwrap().0)
    }

    /// The server as calls reach it, on a clock that stands still.
    fn upstream(&self) -> (Arc<Upstream>, ManualClock) {
        let clock = ManualClock::starting_at(START);
        (upstream(Clock::Manual(clock.clone()), "http", &self.host()), clock)
    }
}

fn upstream(clock: Clock, scheme: &str, host: &str) -> Arc<Upstream> {
    let policy = Policy::new("127.0.0.1".parse().unwrap());
    let egress = Egress::new(clock, policy, Some(CERTIFICATE.as_bytes())).unwrap();
    egress.upstream(scheme, &host.parse().unwrap()).unwrap()
}

impl Peer {
    /// The next head, blank line included.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    async fn expect(&mut self, text: &str) {
        let mut read = vec![0; text.len()];
        self.0.read_exact(&mut read).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&read), text);
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Waits until the other side has closed, and answers what it said before.
    async fn end(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.0.read_to_end(&mut rest).await;
        String::from_utf8(rest).unwrap()
    }
}

fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body).unwrap()
}

fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, Body::empty())
}

/// A body in pieces, each of which the test sends.
fn pieces() -> (mpsc::UnboundedSender<&'static str>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel::<&'static str>();
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece.as_bytes()))), receiver))
    });
    (sender, Body::boxed(StreamBody::new(frames)))
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn data(body: &mut Body) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn a_connection_is_used_again_and_says_exactly_this() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let calls = async {
        for uri in ["/a?b=%20", "https://other.example/a?b=%20"] {
            let response = upstream.send(get(uri), LIMIT).await.unwrap();
            // All of it came with the head, so nothing is left to wait for.
            assert_eq!(response.body().in_memory(), Some(2));
            assert_eq!(text(response).await, "hi");
        }
        let response = upstream.send(request(Method::POST, "/", Body::full("abc")), LIMIT).await.unwrap();
        assert_eq!(text(response).await, "hi");
    };
    let serve = async {
        let mut peer = server.accept().await;
        for _ in 0..2 {
            peer.expect(&format!("GET /a?b=%20 HTTP/1.1\r\nhost: {}\r\n\r\n", server.host())).await;
            peer.say(OK).await;
        }
        peer.expect(&format!("POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: 3\r\n\r\nabc", server.host())).await;
        peer.say(OK).await;
        peer
    };
    tokio::join!(calls, serve);
}

#[tokio::test]
async fn pieces_and_trailers_come_as_they_are_sent() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    let (seen, mut was_seen) = mpsc::unbounded_channel();
    let calls = async {
        let mut body = upstream.send(get("/"), LIMIT).await.unwrap().into_body();
        assert_eq!(data(&mut body).await, "hello");
        seen.send(()).unwrap();
        assert_eq!(data(&mut body).await, "world");
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["x-sum"], "7");
        assert!(body.frame().await.is_none());
        // All at once.
        let whole = upstream.send(get("/"), LIMIT).await.unwrap();
        assert_eq!(whole.body().in_memory(), Some(5));
        let whole = whole.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["x-sum"], "7");
        assert_eq!(whole.to_bytes(), "hello");
    };
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(&format!("{chunked}5\r\nhello\r\n")).await;
        was_seen.recv().await.unwrap();
        peer.say("5\r\nworld\r\n0\r\nx-sum: 7\r\n\r\n").await;
        peer.head().await;
        peer.say(&format!("{chunked}5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n")).await;
        peer
    };
    tokio::join!(calls, serve);
}

#[tokio::test]
async fn a_requests_trailers_are_sent() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let frames = [
        Frame::data(Bytes::from_static(b"hello")),
        Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))])),
    ];
    let body = Body::boxed(StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, BoxError>))));
    let mut upload = request(Method::POST, "/", body);
    upload.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    upload.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let serve = async {
        let mut peer = server.accept().await;
        let head = peer.head().await;
        assert!(head.contains("te: trailers\r\n") && head.contains("connection: te\r\n"), "{head}");
        peer.expect("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n").await;
        peer.say(OK).await;
        peer
    };
    let (response, _peer) = tokio::join!(upstream.send(upload, LIMIT), serve);
    assert_eq!(text(response.unwrap()).await, "hi");
}

#[tokio::test]
async fn a_call_lost_with_an_idle_connection_is_repeated_if_it_does_the_same_twice() {
    for (method, is_repeated) in [(Method::GET, true), (Method::PUT, true), (Method::POST, false)] {
        let server = Server::start().await;
        let (upstream, _) = server.upstream();
        let calls = async {
            upstream.send(get("/"), LIMIT).await.unwrap();
            upstream.send(request(method.clone(), "/", Body::full("x")), LIMIT).await
        };
        let serve = async {
            let mut peer = server.accept().await;
            peer.head().await;
            peer.say(OK).await;
            peer.head().await;
            drop(peer);
            if is_repeated {
                let mut peer = server.accept().await;
                assert!(peer.head().await.starts_with(method.as_str()));
                peer.say(OK).await;
            }
        };
        let (answered, ()) = tokio::join!(calls, serve);
        match answered {
            Ok(response) => assert_eq!((text(response).await.as_str(), is_repeated), ("hi", true)),
            Err(error) => assert!(matches!(error.what, EgressFault::Lost(_)) && !is_repeated, "{method}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_call_lost_on_a_new_connection_is_not_repeated() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let serve = async { server.accept().await.head().await };
    let (answered, _) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    assert!(matches!(answered.unwrap_err().what, EgressFault::Lost(_)));
}

#[tokio::test]
async fn a_head_must_come_in_time_and_an_upload_may_take_its_own() {
    let server = Server::start().await;
    let (upstream, clock) = server.upstream();
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        clock.advance(LIMIT);
        assert_eq!(peer.end().await, "");
    };
    let (answered, ()) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    assert_eq!(answered.unwrap_err().what, EgressFault::Timeout(LIMIT));

    let (sender, body) = pieces();
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        for _ in 0..4 {
            clock.advance(LIMIT * 2 / 3);
            sender.send("piece").unwrap();
            peer.expect("5\r\npiece\r\n").await;
        }
        clock.advance(LIMIT);
        assert_eq!(peer.end().await, "");
    };
    let (answered, ()) = tokio::join!(upstream.send(request(Method::POST, "/", body), LIMIT), serve);
    assert_eq!(answered.unwrap_err().what, EgressFault::Timeout(LIMIT));
}

#[tokio::test]
async fn an_early_reply_is_passed_on_and_the_upload_goes_on() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let (sender, body) = pieces();
    let (answered, mut was_answered) = mpsc::unbounded_channel();
    let calls = async {
        let response = upstream.send(request(Method::POST, "/", body), LIMIT).await.unwrap();
        assert_eq!(text(response).await, "hi");
        answered.send(()).unwrap();
    };
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(OK).await;
        was_answered.recv().await.unwrap();
        for _ in 0..2 {
            sender.send("piece").unwrap();
            peer.expect("5\r\npiece\r\n").await;
        }
        drop(sender);
        peer.expect("0\r\n\r\n").await;
        peer
    };
    let ((), mut peer) = tokio::join!(calls, serve);
    // The connection is free again.
    let serve = async {
        peer.head().await;
        peer.say(OK).await;
    };
    let (response, ()) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_refuses_an_upload_and_closes_is_heard() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let endless =
        futures_util::stream::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[7; 1 << 16]))));
    let upload = request(Method::POST, "/", Body::boxed(StreamBody::new(endless)));
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
        // With unread data this is a reset.
        drop(peer);
    };
    let (response, ()) = tokio::join!(upstream.send(upload, LIMIT), serve);
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(text(response).await, "no");
}

#[tokio::test]
async fn dropping_a_call_or_its_reply_closes_the_connection() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer
    };
    let mut peer = tokio::select! {
        _ = upstream.send(get("/"), LIMIT) => panic!("nobody answered"),
        peer = serve => peer,
    };
    assert_eq!(peer.end().await, "");

    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhi").await;
        peer
    };
    let (response, mut peer) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    drop(response);
    assert_eq!(peer.end().await, "");
}

#[tokio::test]
async fn what_a_server_says_of_its_replys_length_must_be_true() {
    let server = Server::start().await;
    let (upstream, clock) = server.upstream();
    // Too little, and the end.
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
    };
    let (response, ()) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    let error = response.unwrap().into_body().collect().await.unwrap_err().to_string();
    assert!(error.contains("broke off"), "{error}");

    // Too little, and silence.
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
        peer
    };
    let (response, mut peer) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    let mut body = response.unwrap().into_body();
    assert_eq!(data(&mut body).await, "hello");
    let silence = async {
        tokio::task::yield_now().await;
        clock.advance(IDLE);
    };
    let (frame, ()) = tokio::join!(body.frame(), silence);
    let error = frame.unwrap().unwrap_err().to_string();
    assert!(error.contains("nothing for too long"), "{error}");
    assert_eq!(peer.end().await, "");

    // Too much: it is not the reply to the next call.
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(&format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")).await;
        let mut other = server.accept().await;
        other.head().await;
        other.say(OK).await;
        (peer, other)
    };
    let calls = async {
        for _ in 0..2 {
            assert_eq!(text(upstream.send(get("/"), LIMIT).await.unwrap()).await, "hi");
        }
    };
    tokio::join!(calls, serve);
}

#[tokio::test]
async fn chunks_count_whatever_the_length_beside_them_says() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        let both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
        peer.say(&format!("{both}5\r\nhello\r\n0\r\n\r\n")).await;
        // Not on the same connection.
        let mut other = server.accept().await;
        other.head().await;
        other.say(OK).await;
        (peer, other)
    };
    let calls = async {
        let response = upstream.send(get("/"), LIMIT).await.unwrap();
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(text(response).await, "hello");
        assert_eq!(text(upstream.send(get("/"), LIMIT).await.unwrap()).await, "hi");
    };
    tokio::join!(calls, serve);
}

#[tokio::test]
async fn interim_replies_are_none() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(&format!("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n{OK}")).await;
        peer
    };
    let (response, _peer) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    let response = response.unwrap();
    assert_eq!((response.status(), response.headers().len()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn an_upgrade_hands_the_connection_over() {
    let server = Server::start().await;
    let (upstream, _) = server.upstream();
    let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let mut asking = get("/socket");
    asking.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    asking.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
    let serve = async {
        let mut peer = server.accept().await;
        assert!(peer.head().await.contains("connection: upgrade\r\n"));
        peer.say(&format!("{switched}first ")).await;
        peer.expect("ping").await;
        peer.say("pong").await;
        assert_eq!(peer.end().await, "");
    };
    let call = async {
        let mut response = upstream.send(asking, LIMIT).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let on_upgrade = response.extensions_mut().remove::<hyper::upgrade::OnUpgrade>().unwrap();
        let mut stream = TokioIo::new(on_upgrade.await.unwrap());
        stream.write_all(b"ping").await.unwrap();
        let mut heard = [0; 10];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"first pong");
    };
    tokio::join!(call, serve);

    // Nobody asked for it.
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(switched).await;
        peer.end().await
    };
    let (answered, _) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    assert!(matches!(answered.unwrap_err().what, EgressFault::Lost(_)));
}

#[tokio::test]
async fn a_server_that_cant_be_reached_is_left_alone_for_a_while() {
    let server = Server::start().await;
    let (upstream, clock) = server.upstream();
    let address = server.0.local_addr().unwrap();
    drop(server);
    let fault = async || upstream.send(get("/"), LIMIT).await.unwrap_err().what;
    for _ in 0..5 {
        assert!(matches!(fault().await, EgressFault::Connect(_)));
    }
    let open = |seconds| EgressFault::CircuitOpen { retry_after: Duration::from_secs(seconds) };
    assert_eq!(fault().await, open(1));
    clock.advance(Duration::from_secs(1));
    assert!(matches!(fault().await, EgressFault::Connect(_)), "one call tries");
    assert_eq!(fault().await, open(2));
    clock.advance(Duration::from_secs(2));
    let server = Server(TcpListener::bind(address).await.unwrap());
    let serve = async {
        let mut peer = server.accept().await;
        for status in [500, 200] {
            peer.head().await;
            peer.say(&format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n")).await;
        }
    };
    let calls = async {
        for status in [500, 200] {
            // Whatever it says, it is there.
            assert_eq!(upstream.send(get("/"), LIMIT).await.unwrap().status(), status);
        }
    };
    tokio::join!(calls, serve);
}

#[tokio::test]
async fn a_path_that_hangs_closes_no_other() {
    let server = Server::start().await;
    let (upstream, clock) = server.upstream();
    for _ in 0..10 {
        let hanging = async {
            let mut peer = server.accept().await;
            peer.head().await;
            clock.advance(LIMIT);
            peer
        };
        let (answered, _peer) = tokio::join!(upstream.send(get("/slow"), LIMIT), hanging);
        assert!(matches!(answered.unwrap_err().what, EgressFault::Timeout(_)));
    }
    let answer = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        peer
    };
    let (answered, _peer) = tokio::join!(upstream.send(get("/quick"), LIMIT), answer);
    assert_eq!(answered.unwrap().status(), 204);
}

#[tokio::test]
async fn a_server_that_never_agrees_on_tls_is_one_that_cant_be_reached() {
    let server = Server::start().await;
    let clock = ManualClock::starting_at(0);
    let upstream = upstream(Clock::Manual(clock.clone()), "https", &server.host());
    for _ in 0..5 {
        let silence = async {
            let peer = server.accept().await;
            clock.advance(Duration::from_secs(20));
            peer
        };
        let (answered, _peer) = tokio::join!(upstream.send(get("/"), LIMIT), silence);
        let fault = answered.unwrap_err().what;
        assert!(matches!(&fault, EgressFault::Connect(why) if why.contains("within 20 s")), "{fault:?}");
    }
    let open = upstream.send(get("/"), LIMIT).await.unwrap_err().what;
    assert!(matches!(open, EgressFault::CircuitOpen { .. }), "{open:?}");
}

#[tokio::test]
async fn idle_connections_end_in_time() {
    let server = Server::start().await;
    let (upstream, clock) = server.upstream();
    for (said, idle) in [("", 30), ("keep-alive: timeout=5, max=9\r\n", 4), ("connection: close\r\n", 0)] {
        let serve = async {
            let mut peer = server.accept().await;
            peer.head().await;
            peer.say(&format!("HTTP/1.1 200 OK\r\n{said}content-length: 0\r\n\r\n")).await;
            peer
        };
        let (response, mut peer) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
        assert_eq!(response.unwrap().status(), StatusCode::OK);
        clock.advance(Duration::from_secs(idle));
        // Not used any more, whether or not it is closed already: the next round begins with another.
        let serve = async {
            let mut other = server.accept().await;
            other.head().await;
            other.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        };
        let (response, ()) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
        assert_eq!(response.unwrap().status(), StatusCode::OK);
        assert_eq!(peer.end().await, "", "idle for {idle} s");
    }
    let serve = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(OK).await;
        peer
    };
    let (_, mut peer) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    // Although no other call comes.
    clock.advance(Duration::from_secs(31));
    assert_eq!(peer.end().await, "");
}

/// A server of HTTP/2 whose requests the test answers.
struct Http2 {
    host: String,
    calls: mpsc::UnboundedReceiver<(usize, Request<h2::RecvStream>, h2::server::SendResponse<Bytes>)>,
    /// Ends the connections that there are.
    shut: tokio::sync::broadcast::Sender<()>,
    /// Says nothing more on the connections that there are, and leaves them open.
    freeze: tokio::sync::broadcast::Sender<()>,
}

impl Http2 {
    async fn start(at_once: u32) -> Self {
        let acceptor = acceptor(&[b"h2", b"http/1.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (sender, calls) = mpsc::unbounded_channel();
        let shut = tokio::sync::broadcast::Sender::new(1);
        let freeze = tokio::sync::broadcast::Sender::new(1);
        let (shutting, freezing) = (shut.clone(), freeze.clone());
        tokio::spawn(async move {
            for number in 1.. {
                let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                let mut builder = h2::server::Builder::new();
                let mut connection =
                    builder.max_concurrent_streams(at_once).handshake::<_, Bytes>(stream).await.unwrap();
                let (sender, mut shut, mut freeze) = (sender.clone(), shutting.subscribe(), freezing.subscribe());
                tokio::spawn(async move {
                    loop {
                        tokio::select! {
                            call = connection.accept() => match call {
                                Some(Ok((request, answer))) => sender.send((number, request, answer)).unwrap(),
                                _ => return,
                            },
                            _ = shut.recv() => connection.graceful_shutdown(),
                            _ = freeze.recv() => std::future::pending().await,
                        }
                    }
                });
            }
        });
        Self { host, calls, shut, freeze }
    }

    fn upstream(&self) -> Arc<Upstream> {
        upstream(Clock::System, "https", &self.host)
    }

    /// The next call, and the number of its connection.
    async fn next(&mut self) -> (usize, Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) {
        self.calls.recv().await.unwrap()
    }
}

fn acceptor(protocols: &[&[u8]]) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config).into()
}

fn say(answer: &mut h2::server::SendResponse<Bytes>, text: &'static str) {
    answer
        .send_response(Response::new(()), false)
        .unwrap()
        .send_data(Bytes::from_static(text.as_bytes()), true)
        .unwrap();
}

#[tokio::test]
async fn calls_share_an_http2_connection_as_far_as_the_server_allows() {
    let mut server = Http2::start(3).await;
    let upstream = server.upstream();
    let call = async |path: &'static str| text(upstream.send(get(path), LIMIT).await.unwrap()).await;
    // What it allows is known once it has answered.
    let serve = async {
        let (_, request, mut answer) = server.next().await;
        assert_eq!(request.uri().to_string(), format!("https://{}/first?a=b", server.host));
        assert_eq!(request.headers().len(), 0);
        say(&mut answer, "hi");
    };
    assert_eq!(tokio::join!(call("/first?a=b"), serve).0, "hi");
    let calls = join_all((0..5).map(|_| call("/")));
    let serve = async {
        let mut arrived = Vec::new();
        for _ in 0..5 {
            arrived.push(server.next().await);
        }
        let mut connections: Vec<_> = arrived.iter().map(|(connection, ..)| *connection).collect();
        connections.sort_unstable();
        assert_eq!(connections, [1, 1, 1, 2, 2]);
        for (_, _, mut answer) in arrived {
            say(&mut answer, "hi");
        }
    };
    assert_eq!(tokio::join!(calls, serve).0, ["hi"; 5]);
}

#[tokio::test]
async fn an_http2_connection_that_died_silently_is_noticed() {
    let mut server = Http2::start(10).await;
    let clock = ManualClock::starting_at(0);
    let upstream = upstream(Clock::Manual(clock.clone()), "https", &server.host);
    let hour = Duration::from_secs(3600);
    let call = async |request| upstream.send(request, hour).await.unwrap();
    let (_, ()) = tokio::join!(call(get("/1")), async {
        let (connection, _, mut answer) = server.next().await;
        assert_eq!(connection, 1);
        // As long as pings are answered, an answer may take its time.
        for _ in 0..300 {
            clock.advance(Duration::from_secs(1));
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        say(&mut answer, "late");
    });
    server.freeze.send(()).unwrap();
    // A GET does the same twice, so it is sent again on a new connection.
    let (_, ()) = tokio::join!(call(get("/2")), async {
        let (connection, _, mut answer) = loop {
            tokio::select! {
                biased;
                next = server.calls.recv() => break next.unwrap(),
                () = tokio::task::yield_now() => clock.advance(Duration::from_millis(1)),
            }
        };
        assert_eq!(connection, 2);
        say(&mut answer, "again");
    });
}

#[tokio::test]
async fn what_an_http2_server_has_not_looked_at_is_sent_again() {
    let mut server = Http2::start(100).await;
    let upstream = server.upstream();
    let upload = || request(Method::POST, "/", Body::full("once"));
    let serve = async {
        let (_, _, mut answer) = server.next().await;
        answer.send_reset(h2::Reason::REFUSED_STREAM);
        let (_, request, mut answer) = server.next().await;
        assert_eq!(request.headers()["content-length"], "4");
        let body = request.into_body().data().await.unwrap().unwrap();
        assert_eq!(body, "once");
        say(&mut answer, "hi");
    };
    let (response, ()) = tokio::join!(upstream.send(upload(), LIMIT), serve);
    assert_eq!(text(response.unwrap()).await, "hi");

    // The server goes away: the next call takes another connection.
    server.shut.send(()).unwrap();
    let serve = async {
        let (connection, _, mut answer) = server.next().await;
        say(&mut answer, "hi");
        connection
    };
    let (response, _) = tokio::join!(upstream.send(upload(), LIMIT), serve);
    assert_eq!(text(response.unwrap()).await, "hi");

    // Anything else may have been acted on.
    let serve = async {
        let (_, _, mut answer) = server.next().await;
        answer.send_reset(h2::Reason::INTERNAL_ERROR);
    };
    let (response, ()) = tokio::join!(upstream.send(upload(), LIMIT), serve);
    assert!(matches!(response.unwrap_err().what, EgressFault::Lost(_)));
}

#[tokio::test]
async fn http2_streams_both_ways_with_trailers_and_answers_early() {
    let mut server = Http2::start(100).await;
    let upstream = server.upstream();
    let trailers = || HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]);
    let (pieces, mut received) = mpsc::unbounded_channel::<Frame<Bytes>>();
    let frames =
        futures_util::stream::poll_fn(move |cx| received.poll_recv(cx).map(|frame| frame.map(Ok::<_, BoxError>)));
    let mut upload = request(Method::POST, "/", Body::boxed(StreamBody::new(frames)));
    // What has no place in HTTP/2 is taken out.
    for (name, value) in
        [("connection", "x"), ("te", "gzip"), ("host", "other.example"), ("transfer-encoding", "chunked")]
    {
        upload.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let (heard, mut was_heard) = mpsc::unbounded_channel();
    let serve = async {
        let (_, request, mut answer) = server.next().await;
        assert_eq!(request.headers().len(), 0);
        let mut body = request.into_body();
        let mut reply = answer.send_response(Response::new(()), false).unwrap();
        reply.send_data(Bytes::from_static(b"early"), false).unwrap();
        was_heard.recv().await.unwrap();
        pieces.send(Frame::data(Bytes::from_static(b"hello"))).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
        reply.send_data(Bytes::from_static(b"late"), false).unwrap();
        reply.send_trailers(trailers()).unwrap();
        was_heard.recv().await.unwrap();
        // The reply is over; the request is not.
        pieces.send(Frame::trailers(trailers())).unwrap();
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap(), trailers());
    };
    let call = async {
        let mut body = upstream.send(upload, LIMIT).await.unwrap().into_body();
        assert_eq!(data(&mut body).await, "early");
        heard.send(()).unwrap();
        assert_eq!(data(&mut body).await, "late");
        assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers());
        assert!(body.frame().await.is_none());
        heard.send(()).unwrap();
    };
    tokio::join!(call, serve);
}

#[tokio::test]
async fn dropping_a_call_resets_its_http2_stream_only() {
    let mut server = Http2::start(100).await;
    let upstream = server.upstream();
    let (_, _, mut answer) = tokio::select! {
        _ = upstream.send(get("/"), LIMIT) => panic!("nobody answered"),
        call = server.next() => call,
    };
    let reason = std::future::poll_fn(|cx| answer.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, h2::Reason::CANCEL);
    let serve = async {
        let (connection, _, mut answer) = server.next().await;
        assert_eq!(connection, 1);
        let mut reply = answer.send_response(Response::new(()), false).unwrap();
        reply.send_data(Bytes::from_static(b"part"), false).unwrap();
        reply
    };
    let (response, mut reply) = tokio::join!(upstream.send(get("/"), LIMIT), serve);
    drop(response);
    let reason = std::future::poll_fn(|cx| reply.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, h2::Reason::CANCEL);
}

#[tokio::test]
async fn big_bodies_flow_both_ways_over_http2() {
    const SIZE: usize = 8 << 20;
    let mut server = Http2::start(100).await;
    let upstream = server.upstream();
    let frames = (0..SIZE >> 16).map(|_| Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[7; 1 << 16]))));
    let upload = request(Method::POST, "/", Body::boxed(StreamBody::new(futures_util::stream::iter(frames))));
    let serve = async {
        let (_, request, mut answer) = server.next().await;
        let mut body = request.into_body();
        let mut reply = answer.send_response(Response::new(()), false).unwrap();
        // An echo: nothing is kept, so both sides have to move.
        while let Some(part) = body.data().await {
            let part = part.unwrap();
            body.flow_control().release_capacity(part.len()).unwrap();
            reply.send_data(part, false).unwrap();
        }
        reply.send_data(Bytes::new(), true).unwrap();
    };
    let call = async {
        let response = upstream.send(upload, LIMIT).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let (echoed, ()) = tokio::join!(call, serve);
    assert!(echoed.len() == SIZE && echoed.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_server_of_both_protocols_is_upgraded_over_http1() {
    let acceptor = acceptor(&[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream(Clock::System, "https", &listener.local_addr().unwrap().to_string());
    let mut asking = get("/socket");
    asking.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    asking.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
    let serve = async {
        let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), None, "HTTP/2 is not offered");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(switched.as_bytes()).await.unwrap();
        stream
    };
    let (response, _stream) = tokio::join!(upstream.send(asking, LIMIT), serve);
    assert_eq!(response.unwrap().status(), StatusCode::SWITCHING_PROTOCOLS);
}

#[tokio::test]
async fn a_host_that_may_not_be_called_is_no_upstream() {
    let egress = Egress::new(Clock::System, Policy::default(), None).unwrap();
    let refused =
        |scheme: &str, host: &str| -> EgressError { egress.upstream(scheme, &host.parse().unwrap()).unwrap_err() };
    for (scheme, host) in [("http", "api.example.com"), ("https", "10.0.0.1"), ("ftp", "api.example.com")] {
        assert!(matches!(refused(scheme, host).what, EgressFault::Refused(_)), "{scheme} {host}");
    }
    // Whoever asks for the same server has the same one.
    let of = |host: &str| egress.upstream("https", &host.parse().unwrap()).unwrap();
    assert!(Arc::ptr_eq(&of("api.example.com"), &of("API.example.com")));
    assert!(!Arc::ptr_eq(&of("api.example.com"), &of("api.example.com:8443")));
}
