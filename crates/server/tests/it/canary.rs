//! The real binary, with secrets planted everywhere a secret can be: none of them may be found where it has no business.
//! And how the process begins and ends.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::app::{Caller, Reply, full, wire};
use crate::person::Person;
use crate::process::{Server, keyholder};

/// What is planted, and must be found nowhere.
const PLANTED: [&str; 10] = [
    "planted-client-key",
    "planted-client-secret",
    "planted-password",
    "planted-pin",
    "planted-access",
    "planted-refresh",
    "planted-id-token",
    "planted-code",
    "planted-nested",
    "planted-query",
];

/// An authorization server and API of our own, as careless with secrets as the worst: its errors repeat what it was sent.
#[derive(Clone, Default)]
struct Careless {
    count: Arc<Mutex<u64>>,
    broken: Arc<Mutex<bool>>,
    /// What it was sent and only we know: verifiers, states, the binding cookie's hash.
    sent: Arc<Mutex<Vec<String>>>,
}

impl Careless {
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let careless = self.clone();
        let router = Router::new().fallback(async move |request: Request| careless.answer(request).await);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        url
    }

    async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let sent = String::from_utf8_lossy(&body).into_owned();
        let form: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
        let verifiers = form.iter().filter(|(name, _)| name == "code_verifier").map(|(_, value)| value.clone());
        self.sent.lock().unwrap().extend(verifiers);
        let mut count = self.count.lock().unwrap();
        *count += 1;
        let broken = *self.broken.lock().unwrap();
        let authorization = head.headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("");
        let (status, body) = match head.uri.path() {
            "/token" if broken => {
                let error = json!({"error": "invalid_client", "error_description": format!("you sent {sent} and {authorization}")});
                (StatusCode::BAD_REQUEST, error)
            }
            "/token" => (
                StatusCode::OK,
                json!({
                    "access_token": format!("planted-access-{count}"),
                    "refresh_token": format!("planted-refresh-{count}"),
                    "id_token": format!("a.planted-id-token-{count}.c"),
                    "token_type": "Bearer",
                    "expires_in": 3600,
                    "scope": "read",
                    "username": "ada",
                    "session_token": "planted-nested",
                }),
            ),
            "/revoke" => (
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({"error": "server_error", "error_description": format!("no: {sent}")}),
            ),
            _ => (StatusCode::OK, json!({"path": head.uri.path()})),
        };
        let mut response = Response::new(axum::body::Body::from(body.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    }
}

/// Everything the API answered, but for the hand-outs of tokens and keys.
#[derive(Default)]
struct Heard(String);

impl Heard {
    fn hear(&mut self, reply: Reply) -> Reply {
        self.0.push_str(&format!("{} {:?} {}\n", reply.status, reply.headers, reply.text()));
        reply
    }
}

fn definition(base: &str) -> String {
    format!(
        r#"
schema = 1
id = "careless"
name = "Careless"
source = ["https://careless.example/docs"]
[[methods]]
grant = "authorization_code"
[[methods]]
grant = "client_credentials"
[[methods]]
grant = "password"
[variables.pin]
label = "PIN"
secret = true
[authorize]
url = "{base}/authorize"
[token]
url = "{base}/token"
params = {{ pin = "{{{{pin}}}}" }}
[revoke]
url = "{base}/revoke"
[api]
base_url = "{base}/api"
"#
    )
}

/// Every file below a folder, with its bytes; the two that hold keys for their owner are left out.
fn files(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if !matches!(path.file_name().unwrap().to_str(), Some("admin-key" | "root-key")) {
            into.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[track_caller]
fn assert_clean(what: &str, bytes: &[u8], secrets: &[String]) {
    for secret in secrets {
        if holds(bytes, secret) {
            let text = String::from_utf8_lossy(bytes);
            let at = text.find(secret.as_str()).unwrap_or(0);
            let around: String = text[..at].chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect();
            panic!("{what} holds {secret}, behind: {around}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_where_it_has_no_business() {
    let careless = Careless::default();
    let base = careless.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "trace"));
    let admin_key = std::fs::read_to_string(folder.path().join("admin-key")).unwrap().trim().to_owned();
    let admin = Caller::of(&server.url, Some(admin_key.clone()));
    let mut heard = Heard::default();

    let made = admin.post("/v1/keys", json!({"name": "ci", "scopes": ["read", "token"]})).await.ok(201);
    let ci_key = made["key"].as_str().unwrap().to_owned();
    heard.hear(admin.post("/v1/providers", json!({"definition": definition(&base)})).await).ok(201);
    for method in ["client_credentials", "password", "authorization_code"] {
        let body = json!({
            "name": method, "provider": "careless", "method": method, "client_id": "client",
            "client_secret": "planted-client-secret", "variables": {"pin": "planted-pin"},
            "client_key": r#"{"kty": "oct", "k": "planted-client-key"}"#,
        });
        heard.hear(admin.post("/v1/integrations", body).await).ok(201);
        let mut body = json!({"name": method, "integration": method});
        if method == "password" {
            body["username"] = "ada".into();
            body["password"] = "planted-password".into();
        }
        heard.hear(admin.post("/v1/connections", body).await).ok(201);
    }

    // Use: grants, hand-outs, calls, renewals.
    for name in ["client_credentials", "password"] {
        let headers = [("idempotency-key", "once")];
        let path = format!("/v1/connections/{name}/authorize");
        heard.hear(admin.send(Method::POST, &path, &headers, full(json!({}).to_string())).await);
        let again = format!("/v1/connections/{name}/authorize");
        heard.hear(admin.post(&again, json!({})).await).ok(200);
    }
    let person = Person::new(&server.url, wire());
    let mut links = Vec::new();
    let mut consent = async |heard: &mut Heard, decision: &str| {
        let begun = heard.hear(admin.post("/v1/connections/authorization_code/authorize", json!({})).await).ok(200);
        let left = person.get(begun["authorize_url"].as_str().unwrap()).await;
        let state = left.parameter("state").unwrap();
        let path = left.parameter("redirect_uri").unwrap();
        let question = person.follow(&format!("{path}?code=planted-code&state={state}")).await;
        heard.0.push_str(&question.text());
        let done = person.post(&question.url, &[("decision", decision)]).await;
        heard.0.push_str(&done.text());
        assert_eq!(done.status, 200, "{done:?}");
        links.push(state);
        links.push(question.url.rsplit('/').next().unwrap().to_owned());
    };
    consent(&mut heard, "no").await;
    consent(&mut heard, "yes").await;
    for name in ["client_credentials", "password", "authorization_code"] {
        let token = admin.get(&format!("/v1/connections/{name}/token")).await;
        assert!(
            !token.text().contains("planted-refresh") && !token.text().contains("planted-id-token"),
            "{}",
            token.text()
        );
        assert!(token.ok(200)["access_token"].as_str().unwrap().starts_with("planted-access-"));
        heard.hear(admin.get(&format!("/v1/connections/{name}/proxy/me?key=planted-query")).await).ok(200);
        heard.hear(admin.post(&format!("/v1/connections/{name}/refresh"), json!({})).await).ok(200);
    }

    // Everything goes wrong, and the provider repeats what it was sent.
    *careless.broken.lock().unwrap() = true;
    for name in ["client_credentials", "password", "authorization_code"] {
        let refused = heard.hear(admin.post(&format!("/v1/connections/{name}/refresh"), json!({})).await);
        assert!(refused.status >= 400, "{}", refused.text());
        heard.hear(admin.post(&format!("/v1/connections/{name}/test"), json!({})).await);
    }
    let begun = heard.hear(admin.post("/v1/connections/authorization_code/authorize", json!({})).await).ok(200);
    let left = person.get(begun["authorize_url"].as_str().unwrap()).await;
    let (state, path) = (left.parameter("state").unwrap(), left.parameter("redirect_uri").unwrap());
    let page = person.follow(&format!("{path}?code=planted-code&state={state}")).await;
    assert_eq!(page.status, 502, "{page:?}");
    heard.0.push_str(&page.text());
    links.push(state);
    for body in [
        "{\"name\": \"planted-client-secret",
        "{\"client_secret\": {\"planted-client-secret\": 1}}",
        "planted-password",
    ] {
        heard.hear(admin.send(Method::POST, "/v1/integrations", &[], full(body)).await);
    }
    heard.hear(admin.post("/v1/connections/password/revoke", json!({})).await).ok(200);
    for path in [
        "/openapi.json",
        "/healthz",
        "/readyz",
        "/v1/providers",
        "/v1/providers/careless",
        "/v1/integrations",
        "/v1/connections",
        "/v1/connections/authorization_code",
        "/v1/connections/authorization_code/events",
        "/v1/connections/password/events",
        "/v1/keys",
        "/v1/audit?limit=200",
        "/v1/doctor",
        "/v1/seal",
        "/v1/instance",
    ] {
        heard.hear(admin.get(path).await).ok(200);
    }

    let mut secrets: Vec<String> = PLANTED.iter().map(|secret| (*secret).to_owned()).collect();
    let verifiers = careless.sent.lock().unwrap().clone();
    assert_eq!(verifiers.len(), 3, "one PKCE verifier a code");
    secrets.extend(verifiers);
    secrets.extend([admin_key, ci_key]);
    assert_clean("a reply of the API or a page", heard.0.as_bytes(), &secrets);

    // States, links and the browser's cookie pass through the browser, but are stored hashed and logged nowhere.
    secrets.extend(links);
    secrets.extend(person.cookies().into_values());
    let mut stored = Vec::new();
    files(folder.path(), &mut stored);
    assert!(
        stored.iter().any(|(name, bytes)| name.ends_with("keyholder.db") && !bytes.is_empty()),
        "the database was looked at"
    );
    for (name, bytes) in &stored {
        assert_clean(name, bytes, &secrets);
    }
    let ended = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
    assert!(
        ended.printed.contains("TRACE") || ended.printed.contains("DEBUG"),
        "the log was at its loudest: {}",
        ended.printed
    );
    assert_clean("the log", ended.printed.as_bytes(), &secrets);
    let mut stored = Vec::new();
    files(folder.path(), &mut stored);
    for (name, bytes) in &stored {
        assert_clean(name, bytes, &secrets);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_up_is_there_after_a_restart() {
    let careless = Careless::default();
    let base = careless.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "info"));
    let key = std::fs::read_to_string(folder.path().join("admin-key")).unwrap().trim().to_owned();
    let admin = Caller::of(&server.url, Some(key.clone()));
    admin.post("/v1/providers", json!({"definition": definition(&base)})).await.ok(201);
    let body = json!({"name": "i", "provider": "careless", "method": "client_credentials", "client_id": "c", "client_secret": "s", "variables": {"pin": "1"}});
    admin.post("/v1/integrations", body).await.ok(201);
    admin.post("/v1/connections", json!({"name": "m", "integration": "i"})).await.ok(201);
    admin.post("/v1/connections/m/authorize", json!({})).await.ok(200);
    let before = admin.get("/v1/connections/m/token").await.ok(200);
    let ended = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);

    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "info"));
    let same_key = std::fs::read_to_string(folder.path().join("admin-key")).unwrap();
    assert_eq!(same_key.trim(), key, "a key that works is kept");
    let admin = Caller::of(&server.url, Some(key));
    let after = admin.get("/v1/connections/m/token").await.ok(200);
    assert_eq!((&after["access_token"], &after["generation"]), (&before["access_token"], &before["generation"]));
    admin.get("/v1/connections/m/proxy/me").await.ok(200);
    assert_eq!(admin.get("/v1/providers/careless").await.ok(200)["name"], "Careless");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_the_data_folder_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = tokio::task::block_in_place(|| Server::start(folder, "info"));
    for name in ["admin-key", "root-key"] {
        let mode = std::fs::metadata(folder.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(server);
}

/// Runs `serve` where it must not start: its exit code, and what it said.
fn refused_start(folder: &Path, root_key: Option<&str>, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command: Command = keyholder(folder);
    if let Some(key) = root_key {
        command.env("KEYHOLDER_ROOT_KEY", key);
    }
    let output = command.arg("serve").args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_root_key_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "info"));
    assert_eq!(tokio::task::block_in_place(|| server.terminate()).status.code(), Some(0));
    let listen = ["--listen", "127.0.0.1:0"];

    // Another key, well-formed.
    let other = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE";
    let (code, said) = tokio::task::block_in_place(|| refused_start(folder.path(), Some(other), &listen));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("root key"), "{said}");
    assert!(!said.contains(other), "{said}");

    // No key any more: a new one would lock everything up for good.
    let key = folder.path().join("root-key");
    let kept = folder.path().join("kept");
    std::fs::rename(&key, &kept).unwrap();
    let (code, said) = tokio::task::block_in_place(|| refused_start(folder.path(), None, &listen));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("root-key"), "it says where the key was looked for: {said}");
    assert!(!key.exists(), "no new key is made for an old database");

    // Rubbish in the file.
    std::fs::write(&key, "rubbish").unwrap();
    let (code, said) = tokio::task::block_in_place(|| refused_start(folder.path(), None, &listen));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("root-key") && !said.contains("rubbish"), "{said}");

    // With the right one everything is as it was.
    std::fs::rename(&kept, &key).unwrap();
    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "info"));
    assert_eq!(tokio::task::block_in_place(|| server.terminate()).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "info"));
    let key = std::fs::read_to_string(folder.path().join("admin-key")).unwrap().trim().to_owned();
    let (code, said) = tokio::task::block_in_place(|| refused_start(folder.path(), None, &["--listen", "127.0.0.1:0"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&folder.path().display().to_string()), "{said}");
    let address = server.url.trim_start_matches("http://").to_owned();
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, said) = tokio::task::block_in_place(|| refused_start(elsewhere.path(), None, &["--listen", &address]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
    let admin = Caller::of(&server.url, Some(key));
    assert_eq!(admin.get("/v1/connections").await.ok(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    for (text, word, line) in [
        ("lisen = \"127.0.0.1:1\"\n", "lisen", "line 1"),
        ("\n\nlisten = \"everywhere\"\n", "listen", "line 3"),
        ("listen = 1\n", "listen", "line 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let path = file.display().to_string();
        let (code, said) = tokio::task::block_in_place(|| refused_start(folder.path(), None, &["--config", &path]));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("wrong.toml"), "{said}");
        assert!(said.contains(word) && said.contains(line), "{said}");
    }
    let (code, said) =
        tokio::task::block_in_place(|| refused_start(folder.path(), None, &["--config", "nothing.toml"]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nothing.toml"), "{said}");
}

/// Requests under way at the signal are finished; new ones are not taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_finished_before_the_end() {
    let (arrived, mut arrival) = tokio::sync::mpsc::channel::<()>(1);
    let (release, released) = tokio::sync::watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(async move |request: Request| {
        if request.uri().path() == "/api/slow" {
            let _ = arrived.send(()).await;
            let _ = released.clone().wait_for(|go| *go).await;
        }
        let body = json!({"access_token": "a", "token_type": "Bearer", "expires_in": 3600});
        let mut response = Response::new(axum::body::Body::from(body.to_string()));
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "info"));
    let key = std::fs::read_to_string(folder.path().join("admin-key")).unwrap().trim().to_owned();
    let admin = Caller::of(&server.url, Some(key));
    admin.post("/v1/providers", json!({"definition": definition(&base)})).await.ok(201);
    let body = json!({"name": "i", "provider": "careless", "method": "client_credentials", "client_id": "c", "client_secret": "s", "variables": {"pin": "1"}});
    admin.post("/v1/integrations", body).await.ok(201);
    admin.post("/v1/connections", json!({"name": "m", "integration": "i"})).await.ok(201);
    admin.post("/v1/connections/m/authorize", json!({})).await.ok(200);

    let caller = admin.clone();
    let under_way = tokio::spawn(async move { caller.get("/v1/connections/m/proxy/slow").await });
    arrival.recv().await.unwrap();
    let url = server.url.clone();
    let ending = tokio::task::spawn_blocking(move || server.terminate());
    // The socket is closed as soon as the signal is there.
    while tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.send(true).unwrap();
    let reply: Value = under_way.await.unwrap().ok(200);
    assert_eq!(reply["access_token"], "a", "the API's own reply");
    let ended = ending.await.unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
}
