//! Authorization servers and APIs that we did not write, as child processes (`tests/peers`).
//!
//! Everything here blocks. An async test that runs the server under test in its own process needs a runtime with more
//! than one thread (`#[tokio::test(flavor = "multi_thread")]`), or nobody is left to answer.
#![allow(dead_code, reason = "helpers: no test needs all of them")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// The npm package `oidc-provider`: authorization code, client credentials, refresh with rotation, revocation, discovery.
///
/// Clients: `c-basic`, `c-post`, `c-par`, `c-norefresh` with [`OidcProvider::SECRET`], `c-public` without one, and
/// `c:odd id/+%` with [`OidcProvider::ODD_SECRET`], which must be form-encoded in a Basic header. Every loopback
/// `/callback/…` is a registered redirect URI. `tests/peers/oidc-provider/server.mjs` lists the rest.
pub struct OidcProvider {
    /// The issuer, without a slash at its end. Discovery, `/auth`, `/token`, `/token/revocation`, `/me`.
    pub issuer: String,
    /// The resource server, with a slash at its end: echoes any request that carries a live access token.
    pub resource: String,
    /// The control server, for what the methods below don't offer.
    pub control: String,
    process: Peer,
}

impl OidcProvider {
    /// Secret of the ordinary confidential clients.
    pub const SECRET: &'static str = "secret-0123456789-0123456789-0123456789-ab";
    /// Secret of `c:odd id/+%`.
    pub const ODD_SECRET: &'static str = "p@ss:w/+ %rd&=x-0123456789-0123456789";
    /// A user and the password for the pages of `INTERACTIVE=1`; the other one is [`OidcProvider::BOB`].
    pub const ALICE: (&'static str, &'static str) = ("alice", "alice-password");
    /// A second user.
    pub const BOB: (&'static str, &'static str) = ("bob", "bob-password");

    /// Starts one on free ports and waits until it listens.
    ///
    /// `env`, for example: `AT_TTL=3` (seconds an access token lives), `ALWAYS_RT=1` (a refresh token without
    /// `offline_access`), `ROTATE=0`, `INTERACTIVE=1` (real login and consent pages instead of automatic ones).
    pub fn start(env: &[(&str, &str)]) -> Self {
        let folder = tests_folder().join("peers/oidc-provider");
        require(&folder.join("node_modules"));
        let (process, ready) = Peer::start(Command::new("node").arg("server.mjs").current_dir(folder), env);
        Self {
            issuer: text(&ready, "issuer"),
            resource: text(&ready, "resource"),
            control: text(&ready, "control"),
            process,
        }
    }

    /// Every request so far, oldest first: `{server: "issuer" | "resource", method, path, status, client, grant_type, error, fault}`.
    pub fn log(&self) -> Vec<Value> {
        match self.command("GET", "/log", None) {
            Value::Array(entries) => entries,
            other => panic!("the peer's log is no list: {other}"),
        }
    }

    /// How many token requests with this grant type came, whatever became of them.
    pub fn token_requests(&self, grant_type: &str) -> usize {
        let wanted = |entry: &&Value| entry["path"] == "/token" && entry["grant_type"] == grant_type;
        self.log().iter().filter(wanted).count()
    }

    /// Forgets the log.
    pub fn clear_log(&self) {
        self.command("DELETE", "/log", None);
    }

    /// Spoils the next requests to a path: `{"path": "/token", "times": 1}` with `"status"` (and `"headers"`, `"body"`),
    /// `"delay_ms"` or `"drop": true`; `"after": true` does the work first, so that only the answer is lost;
    /// `"server": "resource"` means the API.
    pub fn fault(&self, fault: Value) {
        self.command("POST", "/fault", Some(fault));
    }

    /// Takes back the faults that did not happen yet.
    pub fn clear_faults(&self) {
        self.command("DELETE", "/fault", None);
    }

    /// Deletes an account: its grants are dead from now on.
    pub fn delete_account(&self, account: &str) {
        self.command("POST", "/gone", Some(json!({ "account": account })));
    }

    /// The process, for a test that kills or stops it.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    fn command(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, reply) = http_json(method, &format!("{}{path}", self.control), body);
        assert_eq!(status, 200, "the peer refused {method} {path}: {reply}");
        reply
    }
}

/// The Python package `nanoidp`: password grant, strict client authentication, a real 429.
///
/// Clients: `n-basic` and `n-post` with [`NanoIdp::SECRET`], each by its own method only, and `n-public`. Access tokens
/// live 60 s, refresh tokens rotate.
pub struct NanoIdp {
    /// The issuer, without a slash at its end. Discovery, `/authorize`, `/token`, `/revoke`, `/introspect`, `/userinfo`.
    pub issuer: String,
    process: Peer,
}

impl NanoIdp {
    /// Secret of `n-basic` and `n-post`.
    pub const SECRET: &'static str = "n-secret";
    /// A user and the password.
    pub const USER: (&'static str, &'static str) = ("testuser", "test123");

    /// Starts one that limits nothing.
    pub fn start() -> Self {
        Self::start_with(&[("PROFILE", "dev")])
    }

    /// Starts one that answers 429 with `Retry-After: 60` to every token request of the same minute after the first `calls`,
    /// whatever client, grant or outcome. It also demands PKCE.
    pub fn start_limited(calls: u32) -> Self {
        Self::start_with(&[("PROFILE", "stricter-dev"), ("RATE", &format!("{calls}/minute"))])
    }

    /// Starts one with `PROFILE` and `RATE` as `tests/peers/nanoidp/serve.py` describes them.
    pub fn start_with(env: &[(&str, &str)]) -> Self {
        let python = tests_folder().join(".venv/bin/python");
        require(&python);
        let (process, ready) =
            Peer::start(Command::new(python).arg(tests_folder().join("peers/nanoidp/serve.py")), env);
        Self { issuer: text(&ready, "issuer"), process }
    }
}

/// nginx as an API: files with validators and ranges, compression, uploads, refusals, and the request as it came (`tests/peers/nginx/nginx.conf`).
pub struct Nginx {
    /// `http://127.0.0.1:PORT`.
    pub plain: String,
    /// `https://127.0.0.1:PORT`: HTTP/2, and HTTP/1.1 for who asks for no other. Its certificate is [`certificate`].
    pub tls: String,
    process: Peer,
}

impl Nginx {
    /// Starts one on free ports.
    pub fn start() -> Self {
        let script = tests_folder().join("peers/nginx/serve.py");
        let (process, ready) = Peer::start(Command::new("python3").arg(script), &tls_files());
        Self { plain: text(&ready, "plain"), tls: text(&ready, "tls"), process }
    }
}

/// An API in Python behind `hypercorn`: server-sent events, WebSockets, the request as it came (`tests/peers/api/serve.py`).
pub struct PythonApi {
    /// `http://127.0.0.1:PORT`.
    pub plain: String,
    /// `https://127.0.0.1:PORT`: HTTP/2, and HTTP/1.1 for who asks for no other.
    pub tls: String,
    process: Peer,
}

impl PythonApi {
    /// Starts one on free ports.
    pub fn start() -> Self {
        let script = tests_folder().join("peers/api/serve.py");
        let (process, ready) = Peer::start(Command::new(client_python()).arg(script), &tls_files());
        Self { plain: text(&ready, "plain"), tls: text(&ready, "tls"), process }
    }
}

/// An API on Node's HTTP servers: trailers, interim responses, early answers, odd headers, cut calls (`tests/peers/api/server.mjs`).
pub struct NodeApi {
    /// `http://127.0.0.1:PORT`.
    pub plain: String,
    /// `https://127.0.0.1:PORT`: HTTP/2, and HTTP/1.1 for who asks for no other.
    pub tls: String,
    process: Peer,
}

impl NodeApi {
    /// Starts one on free ports.
    pub fn start() -> Self {
        let script = tests_folder().join("peers/api/server.mjs");
        let (process, ready) = Peer::start(Command::new("node").arg(script), &tls_files());
        Self { plain: text(&ready, "plain"), tls: text(&ready, "tls"), process }
    }
}

/// The certificate, valid for 127.0.0.1, that the APIs show; who trusts it trusts them.
pub fn certificate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/tests/it/tls.crt")
}

fn tls_files() -> [(&'static str, String); 2] {
    let path = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
    [("CERTIFICATE", path(certificate())), ("KEY", path(certificate().with_extension("key")))]
}

/// Python with the packages of `tests/clients`.
pub fn client_python() -> PathBuf {
    let python = tests_folder().join("clients/.venv/bin/python");
    require(&python);
    python
}

/// A child process that says with one JSON line that it is ready, and ends when its stdin closes.
struct Peer {
    child: Child,
    /// What it writes goes here; removed last.
    _scratch: tempfile::TempDir,
}

impl Peer {
    fn start(command: &mut Command, env: &[(&str, impl AsRef<OsStr>)]) -> (Self, Value) {
        let scratch = tempfile::tempdir().expect("a folder for the peer");
        let mut child = command
            .envs(env.iter().map(|(name, value)| (name, value)))
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the peer's stdout is UTF-8");
        let peer = Self { child, _scratch: scratch };
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{command:?} ended before it was ready; its stderr says why"));
        (peer, ready)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Killed, not asked: a test may have stopped it. (Its stdin is for tests that die before they come here.)
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request over plain `http:`; an empty reply is `null`, one that is not JSON is its text.
pub fn http_json(method: &str, url: &str, body: Option<Value>) -> (u16, Value) {
    let (authority, path) = split(url);
    let body = body.map(|value| value.to_string()).unwrap_or_default();
    #[expect(clippy::disallowed_methods, reason = "a test's own request to a peer, not one of the program under test")]
    let mut stream = TcpStream::connect(authority).unwrap_or_else(|error| panic!("{url}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout above zero");
    // HTTP/1.0: the reply is never chunked, and its end is the end of the connection.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap_or_else(|error| panic!("{url}: {error}"));
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap_or_else(|error| panic!("{url}: {error}"));
    read_reply(&reply).unwrap_or_else(|| panic!("{url}: not an HTTP reply: {reply:?}"))
}

fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url}: peers speak plain http"));
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}

fn read_reply(reply: &str) -> Option<(u16, Value)> {
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let value = match body {
        "" => Value::Null,
        _ => serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())),
    };
    Some((status, value))
}

/// The folder `tests` at the top of the repository.
pub fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

/// Panics with the remedy when something that `make prepare` installs is missing.
pub fn require(path: &Path) {
    assert!(path.exists(), "{} is missing: run `make prepare` once, it installs what the tests need", path.display());
}

fn text(reply: &Value, name: &str) -> String {
    reply[name].as_str().unwrap_or_else(|| panic!("the peer's first line has no `{name}`: {reply}")).to_owned()
}
