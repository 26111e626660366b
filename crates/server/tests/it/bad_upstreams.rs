//! API servers that break the protocol, lie about lengths, hang, or never stop: what a caller gets, and that others are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use keyholder_broker::clock::ManualClock;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::app::{App, Reply, full, read};

/// What a server does on a connection once a request's head has come.
#[derive(Clone)]
enum Does {
    Says(Vec<u8>),
    /// Until nobody takes it any more.
    Repeats(Vec<u8>),
    /// Waits for the other side to close.
    Waits,
    Closes,
    Resets,
}
use Does::{Closes, Repeats, Resets, Says, Waits};

fn says(bytes: impl Into<Vec<u8>>) -> Does {
    Says(bytes.into())
}

/// Such a server. What it does is done for each request, in turn, and again from the beginning on the next connection.
struct Upstream {
    url: String,
    /// The requests' heads.
    asked: mpsc::UnboundedReceiver<String>,
    /// A message for each connection that the other side closed.
    left: mpsc::UnboundedReceiver<()>,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    async fn that(does: Vec<Does>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (ask, asked) = mpsc::unbounded_channel();
        let (leave, left) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (does, ask, leave) = (does.clone(), ask.clone(), leave.clone());
                tokio::spawn(async move {
                    if serve(stream, &does, &ask).await.is_err() {
                        let _ = leave.send(());
                    }
                });
            }
        });
        Self { url, asked, left, connections }
    }
}

/// An error is a connection that the other side closed.
async fn serve(mut stream: TcpStream, does: &[Does], ask: &mpsc::UnboundedSender<String>) -> std::io::Result<()> {
    let gone = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    loop {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Err(gone());
            }
        }
        let _ = ask.send(String::from_utf8_lossy(&head).into_owned());
        for does in does {
            match does {
                Says(bytes) => stream.write_all(bytes).await?,
                Repeats(bytes) => loop {
                    stream.write_all(bytes).await?;
                },
                Waits => {
                    let mut more = [0; 4096];
                    while stream.read(&mut more).await? != 0 {}
                    return Err(gone());
                }
                Closes => return Ok(()),
                Resets => {
                    // Data that was not read turns a close into a reset; so does this, without a race.
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
                    return Ok(());
                }
            }
        }
    }
}

/// A connected machine of this name whose API is there.
async fn machine_at(app: &App, name: &str, url: &str) {
    let mut body = app.integration_body(name, "client_credentials");
    body["variables"]["api_base_url"] = url.into();
    app.admin().post("/v1/integrations", body).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": name, "integration": name})).await.ok(201);
    app.admin().post(&format!("/v1/connections/{name}/authorize"), json!({})).await.ok(200);
}

fn at(name: &str) -> String {
    format!("/v1/connections/{name}/proxy/x")
}

/// Somebody whose API behaves, and who calls it for as long as something else goes on.
struct Guest {
    stop: Arc<AtomicBool>,
    calls: tokio::task::JoinHandle<usize>,
}

impl Guest {
    async fn of(app: &App) -> Self {
        app.machine("guest").await;
        let (caller, stop) = (app.admin(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let calls = tokio::spawn(async move {
            let mut served = 0;
            while !stopped.load(Ordering::Relaxed) {
                caller.get("/v1/connections/guest/proxy/me").await.ok(200);
                served += 1;
            }
            served
        });
        Self { stop, calls }
    }

    /// How many calls there were; each was answered.
    async fn was_served(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.calls.await.unwrap()
    }
}

/// What a caller gets.
#[derive(Debug, PartialEq)]
enum Gets {
    /// A problem document of Keyholder's.
    Problem(u16),
    /// A reply that shows that it is not whole, or none.
    Broken,
    Whole(u16, Vec<u8>),
}
use Gets::{Broken, Problem, Whole};

fn whole(body: &str) -> Gets {
    Whole(200, body.as_bytes().to_vec())
}

async fn got(app: &App, name: &str) -> Gets {
    let Ok(mut response) = app.admin().try_open(Method::GET, &at(name), &[], full("")).await else { return Broken };
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.body_mut().frame().await {
            Some(Ok(frame)) => body.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => return Broken,
            None => break,
        }
    }
    if response.headers().get("content-type").is_some_and(|it| it == "application/problem+json") {
        return Problem(status);
    }
    Whole(status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_is_never_passed_on_as_whole() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let headers = |many: usize| (0..many).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let cases: Vec<(&str, Vec<Does>, Gets)> = vec![
        ("less than its length", vec![says(format!("{ok}content-length: 100\r\n\r\nten bytes.")), Closes], Broken),
        ("the same, reset", vec![says(format!("{ok}content-length: 100\r\n\r\nten bytes.")), Waits], Broken),
        (
            "chunks without an end",
            vec![says(format!("{ok}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")), Closes],
            Broken,
        ),
        ("a chunk cut short", vec![says(format!("{ok}transfer-encoding: chunked\r\n\r\n5\r\nabc")), Closes], Broken),
        (
            "a chunk of nonsense",
            vec![says(format!("{ok}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")), Closes],
            Broken,
        ),
        (
            "an endless chunk extension",
            vec![says(format!("{ok}transfer-encoding: chunked\r\n\r\n3;")), Repeats(vec![b'x'; 4096])],
            Broken,
        ),
        (
            "endless trailers",
            vec![says(format!("{ok}transfer-encoding: chunked\r\n\r\n0\r\n")), Repeats(b"x: y\r\n".repeat(500))],
            Broken,
        ),
        (
            "two lengths",
            vec![says(format!("{ok}content-length: 3\r\ncontent-length: 5\r\n\r\nabcde")), Closes],
            Problem(502),
        ),
        ("a length that is none", vec![says(format!("{ok}content-length: -3\r\n\r\nabc")), Closes], Problem(502)),
        ("nothing", vec![Closes], Problem(502)),
        ("a reset", vec![Resets], Problem(502)),
        ("half a head", vec![says(format!("{ok}content-le")), Closes], Problem(502)),
        ("garbage", vec![says([0x16, 3, 1, 0, 5, 0, 0, 0, 0, 0, b'\r', b'\n', b'\r', b'\n']), Closes], Problem(502)),
        ("another protocol", vec![says("220 mail.example ESMTP\r\n"), Waits], Problem(502)),
        ("NUL in a header", vec![says(format!("{ok}x: a\0b\r\ncontent-length: 0\r\n\r\n")), Waits], Problem(502)),
        (
            "a header without a colon",
            vec![says(format!("{ok}nonsense\r\ncontent-length: 0\r\n\r\n")), Waits],
            Problem(502),
        ),
        ("a space before the colon", vec![says(format!("{ok}content-length : 0\r\n\r\n")), Waits], Problem(502)),
        ("10,000 headers", vec![says(format!("{ok}{}\r\n", headers(10_000))), Waits], Problem(502)),
        ("a header of a megabyte", vec![says(format!("{ok}x: {}\r\n\r\n", "y".repeat(1 << 20))), Waits], Problem(502)),
        ("an endless head", vec![says(ok), Repeats(b"x: y\r\n".repeat(500))], Problem(502)),
        ("an endless status line", vec![says("HTTP/1.1 200 "), Repeats(vec![b'O'; 4096])], Problem(502)),
        (
            "a switch that nobody asked for",
            vec![says("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), Waits],
            Problem(502),
        ),
        // What is odd, but whole.
        ("no length", vec![says(format!("{ok}\r\nto the end")), Closes], whole("to the end")),
        ("HTTP/1.0", vec![says("HTTP/1.0 200 OK\r\n\r\nto the end"), Closes], whole("to the end")),
        (
            "interim answers",
            vec![
                says("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(50)),
                says(format!("{ok}content-length: 2\r\n\r\nok")),
            ],
            whole("ok"),
        ),
        (
            "an unknown status",
            vec![says("HTTP/1.1 799 Odd\r\ncontent-length: 2\r\n\r\nok")],
            Whole(799, b"ok".to_vec()),
        ),
        ("90 headers", vec![says(format!("{ok}{}content-length: 2\r\n\r\nok", headers(90)))], whole("ok")),
        (
            "one byte at a time",
            format!("{ok}content-length: 3\r\n\r\nabc").bytes().map(|byte| says([byte])).collect(),
            whole("abc"),
        ),
    ];
    let app = App::start().await;
    let guest = Guest::of(&app).await;
    let mut wrong = Vec::new();
    for (number, (what, does, expected)) in cases.into_iter().enumerate() {
        // This one breaks off when it has been read.
        let resets = what == "the same, reset";
        let does = if resets { vec![does[0].clone(), Resets] } else { does };
        let upstream = Upstream::that(does).await;
        let name = format!("bad-{number}");
        machine_at(&app, &name, &upstream.url).await;
        let got = got(&app, &name).await;
        // What was under way when a connection is reset may be lost with it.
        let as_expected = if resets { matches!(got, Broken | Problem(502)) } else { got == expected };
        if !as_expected {
            wrong.push(format!("{what}: {got:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(guest.was_served().await > 0);
}

/// What a server says beyond its answer belongs to nobody: it is not the next caller's.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_longer_than_it_says_is_nobody_elses() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let app = App::start().await;
    for (number, said) in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello{poison}"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and {poison}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{poison}"),
    ]
    .into_iter()
    .enumerate()
    {
        let upstream = Upstream::that(vec![says(said.clone())]).await;
        let name = format!("long-{number}");
        machine_at(&app, &name, &upstream.url).await;
        for _ in 0..20 {
            assert_eq!(got(&app, &name).await, whole("hello"), "{said}");
        }
        assert_eq!(upstream.connections.load(Ordering::SeqCst), 20, "such a connection is not used again: {said}");
    }
    // An answer to HEAD has no body, whatever it says.
    let upstream = Upstream::that(vec![says("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")]).await;
    machine_at(&app, "head", &upstream.url).await;
    for _ in 0..3 {
        let head = app.admin().send(Method::HEAD, &at("head"), &[], full("")).await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("5"), 0));
    }
}

/// A request that could be taken for two is one, or none.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_length() {
    let app = App::start().await;
    let mut upstream = Upstream::that(vec![says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")]).await;
    machine_at(&app, "m", &upstream.url).await;
    let key = app.admin().key.unwrap();
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    for (framing, body) in [
        ("content-length: 3\r\ntransfer-encoding: chunked", chunked),
        ("transfer-encoding: chunked\r\ncontent-length: 3", chunked),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", chunked),
        ("transfer-encoding: identity, chunked", chunked),
        ("transfer-encoding: chunked, identity", chunked),
        ("transfer-encoding: \x0bchunked", chunked),
        ("transfer-encoding : chunked", chunked),
        ("content-length: 5\r\ncontent-length: 6", "hello!"),
        ("content-length: 5, 5", "hello"),
        ("content-length: +5", "hello"),
        ("content-length: 0x5", "hello"),
        ("content-length: 99999999999999999999999", "hello"),
    ] {
        let mut stream = TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap();
        let request = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n{framing}\r\n\r\n{body}",
            at("m")
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let mut heads: Vec<String> = std::iter::from_fn(|| upstream.asked.try_recv().ok()).collect();
        // It takes the last chunk for a request too.
        heads.retain(|head| head.contains("POST "));
        match status {
            "200" => {
                assert_eq!(heads.len(), 1, "{framing}: {heads:?}");
                let lower = heads[0].to_ascii_lowercase();
                let framings =
                    lower.matches("\r\ncontent-length:").count() + lower.matches("\r\ntransfer-encoding:").count();
                assert_eq!(framings, 1, "{framing}: {lower}");
            }
            "400" | "" => assert_eq!(heads.len(), 0, "{framing}: {heads:?}"),
            _ => panic!("{framing}: {answer}"),
        }
    }
}

/// Lets time pass until it is done.
async fn in_time<T>(clock: &ManualClock, app: &App, what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    let guest = app.admin();
    for _ in 0..10_000 {
        tokio::select! {
            biased;
            done = &mut what => return done,
            // A guest's call between two steps, so that what is woken has had its turn.
            reply = guest.get("/v1/connections/guest/proxy/me") => { reply.ok(200); }
        }
        clock.advance(Duration::from_secs(5));
    }
    panic!("it never ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up() {
    let (app, clock) = App::on_a_clock().await;
    app.machine("guest").await;
    let mut before = Upstream::that(vec![Waits]).await;
    machine_at(&app, "before", &before.url).await;
    let call = app.admin();
    let reply: Reply = in_time(&clock, &app, async move { call.get(&at("before")).await }).await;
    assert!(matches!(reply.status, 502 | 504), "{}", reply.text());
    before.left.recv().await.unwrap();

    let mut half_way = Upstream::that(vec![says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), Waits]).await;
    machine_at(&app, "half-way", &half_way.url).await;
    assert_eq!(in_time(&clock, &app, got(&app, "half-way")).await, Broken);
    half_way.left.recv().await.unwrap();

    // An upload that nobody takes, by a caller who goes on sending.
    let mut deaf = Upstream::that(vec![says(""), Waits]).await;
    machine_at(&app, "deaf", &deaf.url).await;
    let stuck = stuck_upload(&app, "deaf");
    deaf.asked.recv().await.unwrap();
    in_time(&clock, &app, stuck).await.unwrap();
}

/// A large upload to a server that answers nothing; ends when the gateway does.
fn stuck_upload(app: &App, name: &str) -> tokio::task::JoinHandle<()> {
    let (caller, path) = (app.admin(), at(name));
    tokio::spawn(async move {
        let reply = caller.send(Method::POST, &path, &[], full(vec![b'x'; 64 << 20])).await;
        assert!(matches!(reply.status, 502 | 504), "{}", reply.text());
    })
}

/// Who goes away takes the call along.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_ends_the_call() {
    let app = App::start().await;
    let guest = Guest::of(&app).await;
    let mut before = Upstream::that(vec![Waits]).await;
    machine_at(&app, "before", &before.url).await;
    let caller = app.admin();
    let waiting = tokio::spawn(async move { caller.get(&at("before")).await });
    before.asked.recv().await.unwrap();
    waiting.abort();
    before.left.recv().await.unwrap();

    for (name, does) in [
        ("half-way", vec![says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), Waits]),
        ("endless", vec![says("HTTP/1.1 200 OK\r\n\r\n"), Repeats(vec![b'x'; 1 << 16])]),
        (
            "endless-chunks",
            vec![says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), Repeats(b"1\r\nx\r\n".repeat(1000))],
        ),
    ] {
        let mut upstream = Upstream::that(does).await;
        machine_at(&app, name, &upstream.url).await;
        let mut response = app.admin().open(Method::GET, &at(name), &[], full("")).await;
        response.body_mut().frame().await.unwrap().unwrap();
        drop(response);
        upstream.left.recv().await.unwrap();
    }
    assert!(guest.was_served().await > 0);
}

/// A server that always hangs up or resets is told so to each caller; others don't wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn many_calls_to_broken_servers_disturb_nobody() {
    let app = App::start().await;
    let guest = Guest::of(&app).await;
    let (hanging, resetting) = (Upstream::that(vec![Waits]).await, Upstream::that(vec![Resets]).await);
    machine_at(&app, "hanging", &hanging.url).await;
    machine_at(&app, "resetting", &resetting.url).await;
    let mut asked = hanging.asked;
    let waiting: Vec<_> = (0..300)
        .map(|_| {
            let caller = app.admin();
            tokio::spawn(async move { caller.get(&at("hanging")).await })
        })
        .collect();
    let failing = (0..300).map(|_| async {
        let reply = read(app.admin().open(Method::GET, &at("resetting"), &[], full("")).await).await;
        assert!(matches!(reply.status, 502 | 503), "{}", reply.text());
    });
    futures_util::future::join_all(failing).await;
    for _ in &waiting {
        asked.recv().await.unwrap();
    }
    assert!(!guest.calls.is_finished(), "the guest was refused");
    app.admin().get("/v1/connections/guest/proxy/me").await.ok(200);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(guest.was_served().await > 0);
}
