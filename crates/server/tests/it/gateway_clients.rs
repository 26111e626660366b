//! The gateway between API servers and HTTP clients that we did not write (`tests/peers`, `tests/clients`): what a client sees through it is what it
//! sees without it, but for the few differences named here.
//!
//! A client is a program that runs a list of calls and says what it saw. It runs them twice: straight to the API with the access token, and through
//! the gateway with an API key.

mod http1;
mod http2;
mod streams;

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::App;
use crate::peers::{certificate, client_python, require, tests_folder};

/// Programs of `tests/clients`, each with one of its libraries.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Client {
    /// Debian's curl.
    Curl,
    /// Python's `requests`.
    Requests,
    /// Python's `httpx`.
    Httpx,
    /// Node's `fetch` (undici).
    Fetch,
    /// Node's `http`, which sees trailers and interim responses.
    NodeHttp,
    /// curl by HTTP/2.
    Curl2,
    /// `httpx` by HTTP/2.
    Httpx2,
    /// Node's `http2`.
    NodeHttp2,
}

impl Client {
    const HTTP1: [Self; 5] = [Self::Curl, Self::Requests, Self::Httpx, Self::Fetch, Self::NodeHttp];
    const HTTP2: [Self; 3] = [Self::Curl2, Self::Httpx2, Self::NodeHttp2];

    fn command(self) -> Command {
        match self {
            Self::Curl => python("calls.py", "curl"),
            Self::Requests => python("calls.py", "requests"),
            Self::Httpx => python("calls.py", "httpx"),
            Self::Fetch => node("calls.mjs", "fetch"),
            Self::NodeHttp => node("calls.mjs", "http"),
            Self::Curl2 => python("calls.py", "curl2"),
            Self::Httpx2 => python("calls.py", "httpx2"),
            Self::NodeHttp2 => node("calls.mjs", "http2"),
        }
    }
}

fn python(script: &str, library: &str) -> Command {
    let mut command = Command::new(client_python());
    command.arg(tests_folder().join("clients").join(script)).arg(library);
    command
}

fn node(script: &str, library: &str) -> Command {
    require(&tests_folder().join("clients/node_modules"));
    let mut command = Command::new("node");
    command.arg(tests_folder().join("clients").join(script)).arg(library);
    // fetch has no other way to hear whom to trust.
    command.env("NODE_EXTRA_CA_CERTS", certificate());
    command
}

/// One call of a list, as the programs read it.
fn call(name: &str, method: &str, path: &str) -> Value {
    json!({"name": name, "method": method, "path": path, "headers": [], "body": null})
}

fn get(path: &str) -> Value {
    call(&format!("GET {path}"), "GET", path)
}

/// With a body of so many bytes, of known length or in pieces.
fn sending(name: &str, method: &str, path: &str, size: usize, chunked: bool) -> Value {
    let mut it = call(&format!("{name}: {method} {path}, {size} bytes, chunked: {chunked}"), method, path);
    it["body"] = json!({"size": size, "chunked": chunked});
    it
}

fn with(mut call: Value, headers: &[(&str, &str)]) -> Value {
    call["name"] = format!("{} {headers:?}", call["name"].as_str().unwrap()).into();
    call["headers"] = json!(headers);
    call
}

/// What a client saw of one call.
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Seen {
    name: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    length: u64,
    #[serde(default)]
    sha256: String,
    /// Bodies of up to 4 KiB.
    text: Option<String>,
    #[serde(default)]
    informational: Vec<Value>,
    #[serde(default)]
    trailers: Vec<(String, String)>,
}

impl Seen {
    #[track_caller]
    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_else(|| panic!("no short text: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }
}

/// Ends at each hop (RFC 9110 §7.6.1), so each has its own. A reply in chunks that is there as a whole may go on with a length.
const HOPS_OWN: [&str; 3] = ["connection", "keep-alive", "transfer-encoding"];
/// Kept from the caller on purpose: a session of the provider's would get around Keyholder, and only Keyholder marks its own errors.
const WITHHELD: [&str; 2] = ["set-cookie", "keyholder-error"];

/// A gateway in front of an API, and a way around it.
struct Ways {
    app: App,
    api: String,
    token: String,
    /// Whether client and API, and so the two ways, may speak different versions of HTTP.
    mixed: bool,
}

impl Ways {
    /// A connected machine connection `m`, whose API this is.
    async fn to(api: &str) -> Self {
        let app = App::configured(|config| config.ca_file = Some(certificate())).await;
        let mut body = app.integration_body("own", "client_credentials");
        body["variables"]["api_base_url"] = api.into();
        app.admin().post("/v1/integrations", body).await.ok(201);
        app.admin().post("/v1/connections", json!({"name": "m", "integration": "own"})).await.ok(201);
        app.admin().post("/v1/connections/m/authorize", json!({})).await.ok(200);
        let token = app.admin().get("/v1/connections/m/token").await.ok(200);
        Self { app, api: api.to_owned(), token: token["access_token"].as_str().unwrap().to_owned(), mixed: false }
    }

    /// The same for clients that speak HTTP/1.1 to an API that speaks HTTP/2 with the gateway.
    async fn mixed(api: &str) -> Self {
        Self { mixed: true, ..Self::to(api).await }
    }

    fn gateway(&self) -> String {
        format!("{}/v1/connections/m/proxy", self.app.url)
    }

    /// What a program prints, straight and through the gateway.
    fn run<T: DeserializeOwned>(&self, program: impl Fn() -> Command, job: &Value) -> (T, T) {
        let key = self.app.admin().key.unwrap();
        (self.tell(program(), &self.api, &self.token, job), self.tell(program(), &self.gateway(), &key, job))
    }

    fn tell<T: DeserializeOwned>(&self, command: Command, base: &str, token: &str, job: &Value) -> T {
        let mut job = job.clone();
        job["base"] = base.into();
        job["token"] = token.into();
        job["ca"] = certificate().to_str().into();
        tokio::task::block_in_place(|| told(command, &job))
    }

    /// Runs calls both ways and holds them against each other; answers what was seen through the gateway.
    #[track_caller]
    fn compare(&self, client: Client, calls: &[Value]) -> Vec<Seen> {
        let (straight, through): (Vec<Seen>, Vec<Seen>) = self.run(|| client.command(), &json!({"calls": calls}));
        let mut differences = Vec::new();
        for (straight, through) in straight.iter().zip(&through) {
            let name: String = straight.name.chars().take(200).collect();
            assert_eq!(straight.error, "", "{client:?} straight to the API: {name}");
            let (mut expected, mut got) = (comparable(straight), comparable(through));
            if expected.header("content-length").is_none() {
                got.headers.retain(|(name, _)| name != "content-length");
            }
            if self.mixed {
                // HTTP/2 has no reasons, and these servers tell the version.
                for seen in [&mut expected, &mut got] {
                    seen.reason.clear();
                    seen.headers.retain(|(name, _)| !["x-protocol", "server"].contains(&name.as_str()));
                }
            }
            differences.extend(differences_of(&expected, &got));
        }
        assert!(differences.is_empty(), "{client:?}\n{}", differences.join("\n"));
        assert_eq!(through.len(), calls.len(), "{client:?} through the gateway ended early: {:?}", through.last());
        through
    }
}

/// Runs a program that reads a job and prints what came of it.
fn told<T: DeserializeOwned>(mut command: Command, job: &Value) -> T {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    child.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command:?} printed no result ({error}): {text}"))
}

/// The fields that are not the same, shortened.
fn differences_of(straight: &Seen, through: &Seen) -> Vec<String> {
    let fields = |seen: &Seen| {
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}").chars().take(1500).collect::<String>();
        [
            ("error", text(&seen.error)),
            ("version", text(&seen.version)),
            ("status", text(&(seen.status, &seen.reason))),
            ("headers", text(&seen.headers)),
            ("body", text(&(seen.length, &seen.sha256, &seen.text))),
            ("informational", text(&seen.informational)),
            ("trailers", text(&seen.trailers)),
        ]
    };
    let name: String = straight.name.chars().take(200).collect();
    let different = fields(straight).into_iter().zip(fields(through)).filter(|(a, b)| a != b);
    let told = different.map(|(a, b)| format!("{name}: {}\n  straight: {}\n  through:  {}", a.0, a.1, b.1));
    let mut told: Vec<_> = told.collect();
    if told.is_empty() && straight != through {
        told.push(format!("{name}: far behind the beginning of a field"));
    }
    told
}

/// What must be the same both ways.
fn comparable(seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    seen.headers.retain(|(name, _)| ![&HOPS_OWN[..], &WITHHELD].concat().contains(&name.as_str()));
    if seen.status == 304 {
        // RFC 9110 §8.6: of no meaning for framing here; hyper leaves it out.
        seen.headers.retain(|(name, _)| name != "content-length");
    }
    // The API's clock goes on between the two.
    for (_, value) in seen.headers.iter_mut().filter(|(name, _)| name == "date") {
        value.clear();
    }
    if let Some(text) = seen.text.as_deref()
        && let Ok(mut shown) = serde_json::from_str::<Value>(text)
        && let Some(head) = shown.get_mut("headers").and_then(Value::as_array_mut)
    {
        *head = request_head(head);
        seen.text = Some(shown.to_string());
        // The reply is the request as it came, which is another length with another head.
        (seen.length, seen.sha256) = (0, String::new());
        seen.headers.retain(|(name, _)| name != "content-length");
    }
    seen
}

/// The head of a request as the API saw it, without what must differ.
fn request_head(head: &[Value]) -> Vec<Value> {
    let name = |pair: &Value| pair[0].as_str().unwrap_or_default().to_ascii_lowercase().replace(":authority", "host");
    let mut kept: Vec<_> = head
        .iter()
        .map(|pair| json!([name(pair), pair[1]]))
        // HTTP/2's pseudo-headers: method and target are told beside the headers.
        .filter(|pair| !pair[0].as_str().is_some_and(|name| name.starts_with(':')))
        .filter(|pair| {
            ![&HOPS_OWN[..], &["te", "expect", "cookie"]].concat().contains(&pair[0].as_str().unwrap_or_default())
        })
        .collect();
    kept.sort_by_key(|pair| name(pair));
    kept
}
