//! The test app: the real server on a free port, a sandbox beside it, and typed callers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keyholder::config::{self, Config, Overrides};
use keyholder_broker::clock::{Clock, ManualClock, Rng};
use keyholder_broker::{Broker, Settings};
use keyholder_sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::person::Person;
use crate::process;

/// A request's body: there already, or streamed.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Wire = Client<HttpConnector, Body>;

/// A running server with its sandbox. Both end with the test.
pub struct App {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    pub sandbox: Sandbox,
    pub folder: Arc<TempDir>,
    wire: Wire,
    admin_key: String,
    broker: Broker,
    names: AtomicU64,
}

/// Whoever calls: without a key, or with one.
#[derive(Clone)]
pub struct Caller {
    pub url: String,
    pub key: Option<String>,
    wire: Wire,
}

/// What a command printed and ended with.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A reply, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl App {
    /// A well-behaved sandbox that takes any redirect URI and approves at once, as alice.
    pub async fn start() -> Self {
        Self::with(auto_approving()).await
    }

    /// A sandbox with these options.
    pub async fn with(options: Options) -> Self {
        Self::on(options, Clock::System, |_| ()).await
    }

    /// A server with other settings.
    pub async fn configured(set: impl FnOnce(&mut Config)) -> Self {
        Self::on(auto_approving(), Clock::System, set).await
    }

    /// A server whose clock moves only when the test moves it. The sandbox goes by the machine's, from which it starts.
    pub async fn on_a_clock() -> (Self, ManualClock) {
        let clock = ManualClock::starting_at(Clock::System.now_ms());
        (Self::on(auto_approving(), Clock::Manual(clock.clone()), |_| ()).await, clock)
    }

    /// A server under a name, as passkeys need it: its URL has `localhost`.
    pub async fn named() -> Self {
        Self::configured(by_name).await
    }

    /// The same, on a clock that moves only when the test moves it.
    pub async fn named_on_a_clock() -> (Self, ManualClock) {
        let clock = ManualClock::starting_at(Clock::System.now_ms());
        (Self::on(auto_approving(), Clock::Manual(clock.clone()), by_name).await, clock)
    }

    /// A server that judges slow and silent clients by a clock that moves only when the test moves it.
    pub async fn watching_clients() -> (Self, ManualClock) {
        let clock = ManualClock::starting_at(0);
        (Self::by(auto_approving(), Clock::System, Clock::Manual(clock.clone()), |_| ()).await, clock)
    }

    async fn on(options: Options, clock: Clock, set: impl FnOnce(&mut Config)) -> Self {
        Self::by(options, clock, Clock::System, set).await
    }

    async fn by(options: Options, clock: Clock, clients: Clock, set: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sandbox = Sandbox::with_system(options.at(&listener).unwrap());
        let serving = sandbox.clone();
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });

        let folder = Arc::new(tempfile::tempdir().unwrap());
        let mut config = config_of(folder.path());
        set(&mut config);
        let (url, admin_key, broker) = serve_by(config, clock, clients).await;
        Self { url, sandbox, admin_key, broker, folder, wire: wire(), names: AtomicU64::new(0) }
    }

    /// The link by which the owner sets up the console, as `serve` prints it. Blocks: the test needs more than one thread.
    pub fn first_link(&self) -> String {
        tokio::runtime::Handle::current().block_on(self.broker.first_link()).unwrap().expect("no operator yet")
    }

    /// A caller without a key.
    pub fn anonymous(&self) -> Caller {
        Caller { url: self.url.clone(), key: None, wire: self.wire.clone() }
    }

    /// The administrator.
    pub fn admin(&self) -> Caller {
        Caller { key: Some(self.admin_key.clone()), ..self.anonymous() }
    }

    /// A caller with a new key of exactly these scopes.
    pub async fn key(&self, scopes: &[&str]) -> Caller {
        self.limited_key(scopes, json!({})).await
    }

    /// A caller whose key has limits beside its scopes.
    pub async fn limited_key(&self, scopes: &[&str], limits: Value) -> Caller {
        let body = json!({"name": self.unique("key"), "scopes": scopes, "limits": limits});
        let made = self.admin().post("/v1/keys", body).await.ok(201);
        Caller { key: made["key"].as_str().map(str::to_owned), ..self.anonymous() }
    }

    /// A person in a browser of their own.
    pub fn person(&self) -> Person {
        Person::new(&self.url, self.wire.clone())
    }

    /// A name that nothing has yet.
    pub fn unique(&self, stem: &str) -> String {
        format!("{stem}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// What an integration of the sandbox under `oauth2` is made of.
    pub fn integration_body(&self, name: &str, method: &str) -> Value {
        let base = self.sandbox.base_url();
        let mut body = json!({
            "name": name,
            "provider": "oauth2",
            "method": method,
            "client_id": "sandbox-basic",
            "client_secret": "sandbox-secret",
            "scopes": ["read", "write"],
            "variables": {
                "token_url": format!("{base}/token"),
                "revocation_url": format!("{base}/revoke"),
                "api_base_url": format!("{base}/api"),
            },
        });
        if method == "authorization_code" {
            body["variables"]["authorization_url"] = format!("{base}/authorize").into();
        }
        body
    }

    /// Adds such an integration.
    pub async fn integration(&self, name: &str, method: &str) -> Value {
        self.admin().post("/v1/integrations", self.integration_body(name, method)).await.ok(201)
    }

    /// A draft connection under an integration of its own.
    pub async fn draft(&self, name: &str, method: &str) -> Value {
        let integration = self.unique("integration");
        self.integration(&integration, method).await;
        let mut body = json!({"name": name, "integration": integration});
        if method == "password" {
            body["username"] = "alice".into();
            body["password"] = "wonderland".into();
        }
        self.admin().post("/v1/connections", body).await.ok(201)
    }

    /// A connected machine connection.
    pub async fn machine(&self, name: &str) -> Value {
        self.draft(name, "client_credentials").await;
        self.admin().post(&format!("/v1/connections/{name}/authorize"), json!({})).await.ok(200)
    }

    /// A connection that alice has consented to and confirmed.
    pub async fn consented(&self, name: &str) -> Person {
        self.draft(name, "authorization_code").await;
        let begun = self.admin().post(&format!("/v1/connections/{name}/authorize"), json!({})).await.ok(200);
        let person = self.person();
        let page = person.follow(begun["authorize_url"].as_str().unwrap()).await;
        assert!(page.text().contains("Is this your account?"), "{page:?}");
        let done = person.post(&page.url, &[("decision", "yes")]).await;
        assert_eq!(done.status, 200, "{done:?}");
        person
    }

    /// Runs the binary against this server, with the administrator's key. Blocks: the test needs more than one thread.
    pub fn command(&self, arguments: &[&str]) -> CommandOutput {
        let output = tokio::task::block_in_place(|| process::run(self.folder.path(), &self.url, arguments));
        CommandOutput {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The state of a connection.
    pub async fn state(&self, name: &str) -> String {
        let shown = self.admin().get(&format!("/v1/connections/{name}")).await.ok(200);
        shown["state"].as_str().unwrap().to_owned()
    }

    /// Sets a fault of the sandbox.
    pub fn fault(&self, fault: &str) {
        self.sandbox.set_fault(fault.parse().unwrap());
    }

    /// How many requests with this `grant_type` the sandbox saw.
    pub fn sent(&self, grant: &str) -> u64 {
        self.sandbox.counters().grants.get(grant).copied().unwrap_or(0)
    }

    /// How many requests an endpoint of the sandbox saw.
    pub fn seen(&self, endpoint: &str) -> u64 {
        self.sandbox.counters().endpoints.get(endpoint).copied().unwrap_or(0)
    }

    /// The audit's newest records.
    pub async fn audit(&self) -> Vec<Value> {
        let page = self.admin().get("/v1/audit?limit=200").await.ok(200);
        page["items"].as_array().unwrap().clone()
    }
}

/// What a server with this data folder goes by, on a free port.
pub fn config_of(folder: &Path) -> Config {
    let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    let overrides = Overrides { listen: Some(listen), data_dir: Some(folder.to_owned()), ..Overrides::default() };
    let mut config = config::load(&overrides).unwrap();
    config.egress_allow = "127.0.0.1".parse().unwrap();
    config
}

/// Runs a server in this process as long as the test; answers its URL and its administrator's key.
pub async fn serve(config: Config, clock: Clock) -> (String, String) {
    let (url, key, _) = serve_by(config, clock, Clock::System).await;
    (url, key)
}

/// As [`serve`]; clients are judged by a clock of their own.
async fn serve_by(config: Config, clock: Clock, clients: Clock) -> (String, String, Broker) {
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = config.bound(address);
    if config.public_url.host_str() == Some("localhost") {
        config.public_url.set_port(Some(address.port())).unwrap();
    } else {
        assert_eq!(config.public_url.as_str(), format!("http://{address}/"), "the public URL follows the bound port");
    }
    let url = config.public_url.as_str().trim_end_matches('/').to_owned();
    let opened = match clock {
        Clock::System => config.open_broker().await.unwrap(),
        Clock::Manual(_) => {
            let settings = Settings {
                public_url: config.public_url.clone(),
                data_dir: config.data_dir.clone(),
                database: config.database.clone(),
                root_key: config.root_key.clone(),
                pace: keyholder_broker::Pace::default(),
                retention: keyholder_broker::Retention::default(),
                points: config.points.clone(),
            };
            let egress = config.egress(clock.clone()).unwrap();
            Broker::open(settings, clock, Rng::System, egress).await.unwrap()
        }
    };
    let key_file = opened.broker.ensure_admin_key().await.unwrap();
    let broker = opened.broker.clone();
    tokio::spawn(keyholder::http::run_by(clients, opened.broker, listener, std::future::pending()));
    (url, std::fs::read_to_string(key_file).unwrap().trim().to_owned(), broker)
}

fn by_name(config: &mut Config) {
    config.public_url = "http://localhost/".parse().unwrap();
}

/// Any redirect URI, and alice allows everything at once.
pub fn auto_approving() -> Options {
    Options { any_redirect: true, auto_approve: Some("alice".to_owned()), ..Options::default() }
}

/// A client that follows no redirect and knows no cookie.
pub fn wire() -> Wire {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Caller {
    /// A caller of a server in another process.
    pub fn of(url: &str, key: Option<String>) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), key, wire: wire() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], full("")).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], full("")).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, &[], full(body.to_string())).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PATCH, path, &[], full(body.to_string())).await
    }

    /// Any method, more headers, any body; the reply read to its end.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Reply {
        read(self.open(method, path, headers, body).await).await
    }

    /// As [`Self::send`], but the reply's body is still on its way.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> http::Response<Incoming> {
        self.try_open(method, path, headers, body).await.unwrap()
    }

    /// As [`Self::open`], where the connection may be closed without an answer.
    pub async fn try_open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.url).parse().unwrap();
        if let Some(key) = &self.key {
            request.headers_mut().insert(AUTHORIZATION, format!("Bearer {key}").parse().unwrap());
        }
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        self.wire.request(request).await
    }
}

/// Reads a reply to its end.
pub async fn read(response: http::Response<Incoming>) -> Reply {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply { status: head.status.as_u16(), headers: head.headers, body }
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The JSON of a reply that must have this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() {
            return Value::Null;
        }
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        self.json()
    }

    /// The reply must refuse this field, with these words in its reason or remedy.
    #[track_caller]
    pub fn invalid(self, field: &str, words: &str) {
        let problem = self.problem(422, "invalid");
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        assert!(errors.iter().any(|e| e["field"] == field && e.to_string().contains(words)), "{problem}");
    }

    /// The problem document of a reply that must have this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let text = self.text();
        assert_eq!(self.status, status, "{text}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{text}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{text}");
        assert_eq!(problem["type"], format!("urn:keyholder:problem:{code}"), "{text}");
        assert_eq!(problem["status"], status, "{text}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{text}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{text}");
        problem
    }
}
