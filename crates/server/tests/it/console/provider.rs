//! A provider that answers what a test has it say, and an API behind it.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::app::App;

/// It gives `access-1` for an hour and no refresh token, and the API says `{}`, until it is told otherwise.
pub struct Provider {
    pub url: String,
    says: Arc<Mutex<Says>>,
}

struct Says {
    token: (u16, Value),
    consent: Option<(&'static str, &'static str)>,
    api: (u16, &'static str, String, Bytes),
}

impl Provider {
    pub async fn start() -> Self {
        let says = Says {
            token: (200, json!({"access_token": "access-1", "expires_in": 3600})),
            consent: None,
            api: (200, "application/json", String::new(), Bytes::from_static(b"{}")),
        };
        let says = Arc::new(Mutex::new(says));
        let pages = axum::Router::new().fallback(answer).with_state(Arc::clone(&says));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, pages).await });
        Self { url, says }
    }

    /// What token requests are answered with.
    pub fn token(&self, status: u16, reply: Value) {
        self.says.lock().unwrap().token = (status, reply);
    }

    /// Nobody consents: error and description.
    pub fn refuse(&self, error: &'static str, description: &'static str) {
        self.says.lock().unwrap().consent = Some((error, description));
    }

    /// Everybody consents, at once.
    pub fn consent(&self) {
        self.says.lock().unwrap().consent = None;
    }

    /// What the API says: status, content type, body.
    pub fn api(&self, status: u16, kind: &'static str, body: impl Into<Bytes>) {
        self.says.lock().unwrap().api = (status, kind, String::new(), body.into());
    }

    /// The API refuses the token with this challenge.
    pub fn challenge(&self, challenge: &str) {
        self.says.lock().unwrap().api =
            (401, "application/json", challenge.to_owned(), Bytes::from_static(b"{\"error\":\"no\"}"));
    }

    /// A definition of it, with a call to test with; `name` and `words` are what it says of itself.
    pub fn definition(&self, name: &str, words: &str) -> String {
        let quoted = |text: &str| json!(text).to_string();
        format!(
            "schema = 1\nid = \"acme\"\nname = {name}\ndocs = \"https://docs.example/\"\n\
             [[methods]]\ngrant = \"client_credentials\"\nlabel = {words}\n\
             [[methods]]\ngrant = \"authorization_code\"\nlabel = {words}\n\
             [scopes.known]\nread = {words}\n\"offline.all\" = \"Stay connected\"\n\
             [variables.plan]\nlabel = {words}\nhelp = {words}\nexample = {words}\npresence = \"optional\"\n\
             [authorize]\nurl = \"{url}/authorize\"\nparams = {{ plan = \"{{{{plan}}}}\" }}\n\
             [token]\nurl = \"{url}/token\"\nparams = {{ plan = \"{{{{plan}}}}\" }}\n\
             [api]\nbase_url = \"{url}/api\"\nverify = \"/me\"\n\
             [setup]\ntext = {words}\nredirect_note = {words}\n",
            name = quoted(name),
            words = quoted(words),
            url = self.url,
        )
    }

    /// The definition, and an integration and a draft of this method, both named `name`.
    pub async fn set_up(&self, app: &App, definition: &str, name: &str, method: &str) {
        app.admin().post("/v1/providers", json!({"definition": definition})).await.ok(201);
        let integration = json!({"name": name, "provider": "acme", "method": method, "client_id": "c",
            "client_secret": "s3cret-s3cret", "scopes": ["read"]});
        app.admin().post("/v1/integrations", integration).await.ok(201);
        app.admin().post("/v1/connections", json!({"name": name, "integration": name})).await.ok(201);
    }
}

async fn answer(State(says): State<Arc<Mutex<Says>>>, uri: Uri) -> Response<Body> {
    let says = says.lock().unwrap();
    let json = |status, body: &Value| reply(status, "application/json", "", body.to_string().into());
    match uri.path() {
        "/token" => json(says.token.0, &says.token.1),
        "/authorize" => consented(uri.query().unwrap_or_default(), says.consent),
        _ => reply(says.api.0, says.api.1, &says.api.2, says.api.3.clone()),
    }
}

fn reply(status: u16, kind: &str, challenge: &str, body: Bytes) -> Response<Body> {
    let reply = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    let reply = if challenge.is_empty() { reply } else { reply.header(header::WWW_AUTHENTICATE, challenge) };
    reply.body(Body::from(body)).unwrap()
}

fn consented(query: &str, refusal: Option<(&str, &str)>) -> Response<Body> {
    let asked = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let mut back: url::Url = asked("redirect_uri").parse().unwrap();
    let mut pairs = back.query_pairs_mut();
    pairs.append_pair("state", &asked("state"));
    match refusal {
        Some((error, description)) => pairs.append_pair("error", error).append_pair("error_description", description),
        None => pairs.append_pair("code", "code-1"),
    };
    drop(pairs);
    Response::builder()
        .status(StatusCode::SEE_OTHER)
        .header(header::LOCATION, back.as_str())
        .body(Body::empty())
        .unwrap()
}
