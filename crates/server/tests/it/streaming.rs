//! The gateway byte by byte: the test is the client and the API, on bare sockets.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::app::App;
use crate::gateway::machine_of;

/// A bare connection, and what has come on it and isn't read yet.
struct Wire {
    stream: TcpStream,
    come: Vec<u8>,
}

impl Wire {
    fn on(stream: TcpStream) -> Self {
        Self { stream, come: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// All up to and with `end`.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.come.windows(end.len()).position(|part| part == end.as_bytes()) {
                let rest = self.come.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.come, rest)).unwrap();
            }
            let read = self.stream.read_buf(&mut self.come).await.unwrap();
            assert!(read > 0, "it ended with {:?}", String::from_utf8_lossy(&self.come));
        }
    }

    /// A message's head, in lower case.
    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.to_ascii_lowercase()
    }

    /// Reads on until the other side has ended.
    async fn end(mut self) -> Vec<u8> {
        // A reset is an end, too.
        while self.stream.read_buf(&mut self.come).await.is_ok_and(|read| read > 0) {}
        self.come
    }
}

/// A server, the API that its connection `m` calls, and a client's connection to the server.
struct Stage {
    app: App,
    api: TcpListener,
}

impl Stage {
    async fn start() -> Self {
        let app = App::start().await;
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        machine_of(&app, &format!("http://{}", api.local_addr().unwrap())).await;
        Self { app, api }
    }

    /// The next connection of the gateway's to the API.
    async fn accepted(&self) -> Wire {
        Wire::on(self.api.accept().await.unwrap().0)
    }

    /// A client that has sent the head of a request, with `more` headers.
    async fn asking(&self, method: &str, more: &str) -> Wire {
        self.asking_with(&self.app.admin().key.unwrap(), method, more).await
    }

    async fn asking_with(&self, key: &str, method: &str, more: &str) -> Wire {
        self.asking_at("/v1/connections/m/proxy/x", key, method, more).await
    }

    async fn asking_at(&self, path: &str, key: &str, method: &str, more: &str) -> Wire {
        let address = self.app.url.trim_start_matches("http://");
        let mut wire = Wire::on(TcpStream::connect(address).await.unwrap());
        let line = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n");
        wire.send(&format!("{line}{more}\r\n")).await;
        wire
    }
}

const WEBSOCKET: &str = "connection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Both ends of a WebSocket, after its opening.
async fn opened(stage: &Stage, key: &str, more: &str) -> (Wire, Wire) {
    opened_at(stage, "/v1/connections/m/proxy/x", key, more).await
}

async fn opened_at(stage: &Stage, path: &str, key: &str, more: &str) -> (Wire, Wire) {
    let mut client = stage.asking_at(path, key, "GET", &format!("{WEBSOCKET}{more}")).await;
    let mut api = stage.accepted().await;
    let asked = api.head().await;
    assert!(asked.contains("\r\nupgrade: websocket\r\n") && asked.contains("\r\nconnection: upgrade\r\n"), "{asked}");
    assert!(asked.contains("\r\nsec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"), "{asked}");
    assert!(asked.contains("\r\nauthorization: bearer ") && !asked.contains("khk_"), "{asked}");
    // What comes with the answer belongs to the new protocol already.
    api.send(&format!("{SWITCHING}early")).await;
    let told = client.head().await;
    assert!(
        told.starts_with("http/1.1 101 ") && told.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{told}"
    );
    assert!(told.contains("\r\nconnection: upgrade\r\n") && told.contains("\r\nupgrade: websocket\r\n"), "{told}");
    assert_eq!(client.until("early").await, "early");
    (client, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_both_ways_until_one_side_ends() {
    let stage = Stage::start().await;
    let key = stage.app.admin().key.unwrap();
    let (mut client, mut api) = opened(&stage, &key, "").await;
    for said in ["\u{1}ping", "more"] {
        client.send(said).await;
        assert_eq!(api.until(said).await, said);
        api.send(said).await;
        assert_eq!(client.until(said).await, said);
    }
    api.send("farewell").await;
    drop(api);
    assert_eq!(client.end().await, b"farewell", "what was said last arrives");

    let (mut client, api) = opened(&stage, &key, "").await;
    client.send("farewell").await;
    drop(client);
    assert_eq!(api.end().await, b"farewell");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_ends_with_what_allowed_it() {
    let stage = Stage::start().await;
    let admin = stage.app.admin();
    let made = admin.post("/v1/keys", json!({"name": "agent", "scopes": ["call"]})).await.ok(201);
    let key = made["key"].as_str().unwrap();
    let (client, api) = opened(&stage, key, "").await;
    let (other, other_api) = opened(&stage, &admin.key.clone().unwrap(), "").await;
    admin.delete("/v1/keys/agent").await.ok(200);
    assert_eq!((client.end().await, api.end().await), (Vec::new(), Vec::new()));
    // Another key's stays, until the connection is revoked.
    let (mut other, mut other_api) = (other, other_api);
    other.send("still").await;
    assert_eq!(other_api.until("still").await, "still");
    admin.post("/v1/connections/m/revoke", json!({})).await.ok(200);
    assert_eq!((other.end().await, other_api.end().await), (Vec::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_through_a_data_source_ends_with_what_the_source_was() {
    let stage = Stage::start().await;
    let admin = stage.app.admin();
    let (key, at) = (admin.key.clone().unwrap(), "/v1/data-sources/api/proxy/x");
    admin.post("/v1/data-sources", json!({"name": "api", "connection": "m"})).await.ok(201);
    let (mut by_connection, mut its_api) = opened(&stage, &key, "").await;
    let (client, api) = opened_at(&stage, at, &key, "").await;
    admin.patch("/v1/data-sources/api", json!({"allow": [{"path": "/x"}]})).await.ok(200);
    assert_eq!((client.end().await, api.end().await), (Vec::new(), Vec::new()));
    let (client, api) = opened_at(&stage, at, &key, "").await;
    admin.delete("/v1/data-sources/api").await.ok(204);
    assert_eq!((client.end().await, api.end().await), (Vec::new(), Vec::new()));
    by_connection.send("still").await;
    assert_eq!(its_api.until("still").await, "still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_refused_or_due_is_over() {
    let stage = Stage::start().await;
    let key = stage.app.admin().key.unwrap();
    let mut client = stage.asking("GET", WEBSOCKET).await;
    let mut api = stage.accepted().await;
    api.head().await;
    api.send("HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno").await;
    assert!(client.head().await.starts_with("http/1.1 403 "));
    assert_eq!(client.until("no").await, "no");

    // Any other protocol is not asked for.
    let mut client = stage.asking("GET", "connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n").await;
    let mut api = stage.accepted().await;
    let asked = api.head().await;
    assert!(!asked.contains("upgrade") && !asked.contains("h2c"), "{asked}");
    api.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
    assert!(client.head().await.starts_with("http/1.1 204 "));

    let (client, api) = opened(&stage, &key, "keyholder-timeout: 2s\r\n").await;
    assert_eq!((client.end().await, api.end().await), (Vec::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_asked_whether_it_wants_a_large_body() {
    const SIZE: usize = 1 << 20;
    let stage = Stage::start().await;
    let more = format!("content-length: {SIZE}\r\nexpect: 100-continue\r\n");
    let mut client = stage.asking("POST", &more).await;
    let mut api = stage.accepted().await;
    let asked = api.head().await;
    assert!(
        asked.contains("\r\nexpect: 100-continue\r\n") && asked.contains(&format!("\r\ncontent-length: {SIZE}\r\n")),
        "{asked}"
    );
    api.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(client.head().await.starts_with("http/1.1 100 "));
    let body = "x".repeat(SIZE);
    let (_, arrived) = tokio::join!(client.send(&body), async {
        let mut arrived = api.come.len();
        while arrived < SIZE {
            arrived += api.stream.read_buf(&mut api.come).await.unwrap();
        }
        arrived
    });
    assert_eq!(arrived, SIZE);
    api.send("HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    assert!(client.head().await.starts_with("http/1.1 201 "));
    drop(api);

    // An API that says no spares the upload.
    let mut client = stage.asking("POST", &more).await;
    let mut api = stage.accepted().await;
    api.head().await;
    api.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
    let told = client.head().await;
    assert!(told.starts_with("http/1.1 413 "), "not told to continue before: {told}");
    assert_eq!(client.until("no").await, "no");
    assert!(api.come.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_that_was_not_sent_yet_is_still_there_after_a_401() {
    const SIZE: usize = 1 << 20;
    let stage = Stage::start().await;
    let mut client = stage.asking("POST", &format!("content-length: {SIZE}\r\nexpect: 100-continue\r\n")).await;
    let mut api = stage.accepted().await;
    let first = api.head().await;
    api.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    drop(api);
    let mut api = stage.accepted().await;
    let second = api.head().await;
    let token = |head: &str| head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap().to_owned();
    assert_ne!(token(&first), token(&second));
    api.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(client.head().await.starts_with("http/1.1 100 "));
    let body = "y".repeat(SIZE);
    tokio::join!(client.send(&body), async {
        while api.come.len() < SIZE {
            api.stream.read_buf(&mut api.come).await.unwrap();
        }
    });
    assert!(api.come.iter().all(|byte| *byte == b'y'));
    api.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("http/1.1 200 "));
    assert_eq!(stage.app.sent("client_credentials"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_early_is_not_held_back() {
    let stage = Stage::start().await;
    let mut client = stage.asking("POST", "transfer-encoding: chunked\r\n").await;
    client.send("5\r\nfirst\r\n").await;
    let mut api = stage.accepted().await;
    api.head().await;
    api.until("first\r\n").await;
    api.send("HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 2\r\n\r\nno").await;
    assert!(client.head().await.starts_with("http/1.1 422 "));
    assert_eq!(client.until("no").await, "no");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let stage = Stage::start().await;
    let mut client = stage
        .asking("POST", "transfer-encoding: chunked\r\ntrailer: x-sum\r\nte: trailers\r\nconnection: te\r\n")
        .await;
    client.send("4\r\nbody\r\n0\r\nx-sum: up\r\n\r\n").await;
    let mut api = stage.accepted().await;
    let asked = api.head().await;
    assert!(asked.contains("\r\nte: trailers\r\n") && asked.contains("\r\ntrailer: x-sum\r\n"), "{asked}");
    let sent = api.until("0\r\nx-sum: up\r\n\r\n").await;
    assert!(sent.contains("body"), "{sent}");
    api.send(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nback\r\n0\r\nx-sum: down\r\n\r\n",
    )
    .await;
    let told = client.head().await;
    assert!(told.contains("\r\ntrailer: x-sum\r\n"), "{told}");
    let received = client.until("0\r\nx-sum: down\r\n\r\n").await;
    assert!(received.contains("back"), "{received}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_the_call() {
    let stage = Stage::start().await;
    // While the API thinks, and in the middle of its answer.
    for said in ["", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntick\r\n"] {
        let mut client = stage.asking("GET", "").await;
        let mut api = stage.accepted().await;
        api.head().await;
        api.send(said).await;
        if !said.is_empty() {
            client.until("tick").await;
        }
        drop(client);
        assert!(api.end().await.is_empty());
    }
}
