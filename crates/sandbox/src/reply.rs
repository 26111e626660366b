//! A reply before it is sent, and what the faults leave of it.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};

use crate::faults::Kind;

/// Set on a response whose connection must be cut without sending it. Outside our own accept loop (in a test that drives
/// the router), such a response is a 502 whose body fails.
#[derive(Clone, Copy)]
pub(crate) struct Hangup;

/// Status, headers and a body that a fault can still change.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Json(Value),
    /// Content type and text.
    Text(&'static str, String),
    /// Bytes from outside memory: no fault changes them.
    Stream(Body),
    Empty,
}

impl Reply {
    fn new(status: StatusCode, content: Content) -> Self {
        Self { status, headers: HeaderMap::new(), content }
    }

    pub(crate) fn json(status: StatusCode, value: Value) -> Self {
        Self::new(status, Content::Json(value))
    }

    pub(crate) fn ok(value: Value) -> Self {
        Self::json(StatusCode::OK, value)
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self::new(status, Content::Empty)
    }

    /// A page under a policy that lets nothing be loaded, run or framed.
    pub(crate) fn page(status: StatusCode, html: String) -> Self {
        Self::new(status, Content::Text("text/html; charset=utf-8", html))
            .header(HeaderName::from_static("content-security-policy"), PAGE_POLICY)
            .header(HeaderName::from_static("referrer-policy"), "no-referrer")
    }

    pub(crate) fn stream(body: Body) -> Self {
        Self::new(StatusCode::OK, Content::Stream(body))
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Self::empty(StatusCode::FOUND).header(LOCATION, location)
    }

    /// Adds a header; a value that can't be one is left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// The OAuth error code in the body, if there is one.
    pub(crate) fn error(&self) -> Option<&str> {
        match &self.content {
            Content::Json(value) => value["error"].as_str(),
            _ => None,
        }
    }

    fn text(&self) -> Option<String> {
        match &self.content {
            Content::Json(value) => Some(value.to_string()),
            Content::Text(_, text) => Some(text.clone()),
            Content::Empty => Some(String::new()),
            Content::Stream(_) => None,
        }
    }

    fn content_type(&self) -> Option<&'static str> {
        match self.content {
            Content::Json(_) => Some("application/json"),
            Content::Text(content_type, _) => Some(content_type),
            Content::Stream(_) | Content::Empty => None,
        }
    }

    fn into_response(mut self) -> Response {
        // Tokens and pages with a person's choice must not be cached (RFC 6749 §5.1).
        self.headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        if let Some(content_type) = self.content_type() {
            self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        }
        let body = match self.content {
            Content::Json(value) => Body::from(value.to_string()),
            Content::Text(_, text) => Body::from(text),
            Content::Stream(body) => body,
            Content::Empty => Body::empty(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// No `form-action`: browsers apply it to the redirect after the form too, which leads to the client.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

/// Answers: the first fault that stands in for the endpoint, or `work` once, or twice where a fault repeats the request.
pub(crate) fn decide(kinds: &[Kind], base_url: &str, mut work: impl FnMut() -> Reply) -> Reply {
    if let Some(reply) = kinds.iter().find_map(|kind| stand_in(kind, base_url)) {
        return reply;
    }
    if kinds.contains(&Kind::Duplicated) {
        let _swallowed = work();
    }
    work()
}

fn stand_in(kind: &Kind, base_url: &str) -> Option<Reply> {
    let text = |status, content_type, text: &str| Reply::new(status, Content::Text(content_type, text.to_owned()));
    Some(match kind {
        Kind::Drop => Reply::empty(StatusCode::BAD_GATEWAY),
        Kind::Html => text(StatusCode::OK, "text/html; charset=utf-8", PORTAL),
        Kind::Status { status, body } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let looks_like_json = body.starts_with(['{', '[']);
            text(status, if looks_like_json { "application/json" } else { "text/plain; charset=utf-8" }, body)
        }
        Kind::RateLimited { retry_after } => {
            Reply::json(StatusCode::TOO_MANY_REQUESTS, json!({"message": "too many requests"}))
                .header(RETRY_AFTER, &retry_after.to_string())
        }
        Kind::ServerError => {
            text(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", "service unavailable\n")
        }
        Kind::Error { error } => {
            let denied = error == "invalid_client";
            let status = if denied { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            let reply = Reply::json(status, error_body(error));
            if denied { reply.header(WWW_AUTHENTICATE, "Basic realm=\"sandbox\"") } else { reply }
        }
        Kind::Error200 { error } => Reply::ok(error_body(error)),
        Kind::Redirect => Reply::redirect(&format!("{base_url}/elsewhere")),
        Kind::Unauthorized => invalid_token("a fault says so, the token is valid"),
        _ => return None,
    })
}

fn error_body(error: &str) -> Value {
    json!({"error": error, "error_description": "a fault of the sandbox"})
}

const PORTAL: &str =
    "<!doctype html><html><head><title>Sign in to the network</title></head><body><h1>Welcome</h1></body></html>\n";

/// 401 for a bearer token that does not hold (RFC 6750 §3.1).
pub(crate) fn invalid_token(why: &str) -> Reply {
    let challenge = format!("Bearer realm=\"sandbox\", error=\"invalid_token\", error_description=\"{why}\"");
    Reply::json(StatusCode::UNAUTHORIZED, json!({"error": "invalid_token", "error_description": why}))
        .header(WWW_AUTHENTICATE, &challenge)
}

/// Sends what the faults leave of a reply, when they let it go.
pub(crate) async fn deliver(kinds: &[Kind], reply: Reply) -> Response {
    let wait = kinds.iter().map(|kind| if let Kind::Slow { ms } = kind { *ms } else { 0 });
    let wait = wait.fold(0, u64::saturating_add);
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    if kinds.contains(&Kind::Lost) || kinds.contains(&Kind::Drop) {
        return hang_up();
    }
    kinds.iter().fold(reply, spoil).into_response()
}

fn hang_up() -> Response {
    let cut = stream::iter([Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionAborted))]);
    let mut response = Response::new(Body::from_stream(cut));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.extensions_mut().insert(Hangup);
    response
}

fn spoil(mut reply: Reply, kind: &Kind) -> Reply {
    match kind {
        Kind::Malformed => cut(reply),
        Kind::Empty => {
            reply.content = Content::Empty;
            reply
        }
        Kind::Huge => pad(reply),
        Kind::SlowBody { ms } => drip(reply, *ms),
        Kind::FormReply => form(reply),
        Kind::NoExpiresIn => change(reply, |object| drop(object.remove("expires_in"))),
        Kind::NoTokenType => change(reply, |object| drop(object.remove("token_type"))),
        Kind::ExpiresText => change(reply, |object| {
            if let Some(expires_in) = object.get_mut("expires_in") {
                *expires_in = Value::String(expires_in.to_string());
            }
        }),
        _ => reply,
    }
}

fn change(mut reply: Reply, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Reply {
    if let Content::Json(Value::Object(object)) = &mut reply.content {
        edit(object);
    }
    reply
}

fn cut(mut reply: Reply) -> Reply {
    if let (Some(mut text), Some(content_type)) = (reply.text(), reply.content_type()) {
        text.truncate(text.floor_char_boundary(text.len() / 2));
        reply.content = Content::Text(content_type, text);
    }
    reply
}

fn form(mut reply: Reply) -> Reply {
    if let Content::Json(Value::Object(object)) = &reply.content {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in object {
            form.append_pair(name, value.as_str().unwrap_or(&value.to_string()));
        }
        reply.content = Content::Text("application/x-www-form-urlencoded", form.finish());
    }
    reply
}

/// White space is allowed around JSON: the reply stays correct, it is only too long.
fn pad(mut reply: Reply) -> Reply {
    const CHUNK: &[u8] = &[b' '; 1 << 16];
    const CHUNKS: usize = (50 << 20) / CHUNK.len();
    let (Some(text), content_type) = (reply.text(), reply.content_type()) else {
        return reply;
    };
    let padding = std::iter::repeat_n(Bytes::from_static(CHUNK), CHUNKS);
    let chunks = padding.chain([Bytes::from(text)]).map(Ok::<_, io::Error>);
    reply.content = Content::Stream(Body::from_stream(stream::iter(chunks)));
    typed(reply, content_type)
}

fn drip(mut reply: Reply, ms: u64) -> Reply {
    let (Some(text), content_type) = (reply.text(), reply.content_type()) else {
        return reply;
    };
    let bytes = stream::unfold(Bytes::from(text), move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Some((Ok::<_, io::Error>(rest.split_to(1)), rest))
    });
    reply.content = Content::Stream(Body::from_stream(bytes));
    typed(reply, content_type)
}

fn typed(reply: Reply, content_type: Option<&'static str>) -> Reply {
    match content_type {
        Some(content_type) => reply.header(CONTENT_TYPE, content_type),
        None => reply,
    }
}
