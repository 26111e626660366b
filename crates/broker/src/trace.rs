//! What goes out and comes back while a connection is tested, redacted as it is noted.
//!
//! A test enters its connection here; whoever asks the provider for that connection, in whatever task, notes it. When nobody tests, that costs a look at a
//! number, and nothing is copied.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Request, StatusCode, header};
use keyholder_oauth::{Client, Secret, SecretBytes, TokenSet};
use serde::Serialize;

use crate::cause::Seen;
use crate::clock::{Clock, Moment, millis};
use crate::egress::{EgressError, Fetched};
use crate::model::ConnectionId;
use crate::redact::{self, Hidden, Kind};

/// Most exchanges of one step that are kept.
const MOST: usize = 20;

/// Asked for what the API's addresses need, after connecting or a renewal.
pub(crate) const LOOKED_UP: &str = "lookup";

/// A request, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
    /// Who was asked: `discovery`, `token_endpoint`, `introspection_endpoint`, `lookup`, `api`, …
    pub to: &'static str,
    /// What was sent.
    pub request: Shown,
    /// What came back.
    pub reply: Option<Shown>,
    /// Why nothing came back.
    pub failure: Option<String>,
    /// Milliseconds.
    pub took_ms: i64,
}

/// A message without its secrets.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// `POST https://…/token`, `200 OK`.
    pub line: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Text, at most 8 KiB; of anything else its length and type.
    pub body: String,
    /// There is more of the body.
    pub truncated: bool,
}

/// The tests under way.
#[derive(Default)]
pub(crate) struct Traces {
    /// How many; nobody takes the lock when there are none.
    count: AtomicUsize,
    by_connection: Mutex<HashMap<ConnectionId, Vec<Arc<Trace>>>>,
}

impl Traces {
    /// Begins to note what is exchanged for a connection, until the guard is dropped.
    pub(crate) fn enter(&self, id: &ConnectionId) -> Entered<'_> {
        let trace = Arc::new(Trace::default());
        lock(&self.by_connection).entry(id.clone()).or_default().push(Arc::clone(&trace));
        self.count.fetch_add(1, Ordering::Release);
        Entered { traces: self, id: id.clone(), trace }
    }

    /// Those that note what is exchanged for this connection.
    pub(crate) fn of(&self, id: &ConnectionId) -> Vec<Arc<Trace>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        lock(&self.by_connection).get(id).cloned().unwrap_or_default()
    }
}

/// A test that has entered; it leaves when this is dropped.
pub(crate) struct Entered<'a> {
    traces: &'a Traces,
    id: ConnectionId,
    trace: Arc<Trace>,
}

impl std::ops::Deref for Entered<'_> {
    type Target = Arc<Trace>;

    fn deref(&self) -> &Arc<Trace> {
        &self.trace
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut all = lock(&self.traces.by_connection);
        if let Some(of_connection) = all.get_mut(&self.id) {
            of_connection.retain(|trace| !Arc::ptr_eq(trace, &self.trace));
            if of_connection.is_empty() {
                all.remove(&self.id);
            }
        }
        self.traces.count.fetch_sub(1, Ordering::Release);
    }
}

/// What one test has noted.
#[derive(Default)]
pub(crate) struct Trace {
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    exchanges: Vec<Exchange>,
    /// What is needed to judge the last one.
    seen: Option<Seen>,
    hidden: Hidden,
}

impl Trace {
    /// Values that are never shown.
    pub(crate) fn hide<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>) {
        let mut noted = lock(&self.noted);
        secrets.into_iter().for_each(|secret| noted.hidden.add(secret));
    }

    /// As [`Self::hide`], of all tokens.
    pub(crate) fn hide_tokens(&self, tokens: &TokenSet) {
        let secondary = tokens.secondary.values();
        self.hide(secondary.flat_map(|it| std::iter::once(&it.access_token).chain(&it.refresh_token)));
        self.hide(std::iter::once(&tokens.access_token).chain(&tokens.refresh_token).chain(&tokens.id_token));
    }

    /// As [`Self::hide`], of a client as `Authorization: Basic` has it.
    pub(crate) fn hide_client(&self, client: &Client) {
        if let Some(secret) = &client.secret {
            lock(&self.noted).hidden.add_pair(&client.id, secret);
        }
    }

    /// A text without them.
    pub(crate) fn hidden(&self, text: &str) -> String {
        lock(&self.noted).hidden.hide(text)
    }

    /// Notes an exchange.
    pub(crate) fn note(&self, exchange: Exchange, seen: Seen) {
        let mut noted = lock(&self.noted);
        noted.seen = Some(seen);
        if noted.exchanges.len() < MOST {
            noted.exchanges.push(exchange);
        }
    }

    /// What was noted since this was called before, and how the last exchange of it looked. Hidden again: a token is only known once its reply was read.
    pub(crate) fn take(&self) -> (Vec<Exchange>, Option<Seen>) {
        let mut noted = lock(&self.noted);
        let mut exchanges = std::mem::take(&mut noted.exchanges);
        let hide = |shown: &mut Shown| {
            shown.line = noted.hidden.hide(&shown.line);
            let (body, more) = redact::shown_part(noted.hidden.hide(&shown.body));
            (shown.body, shown.truncated) = (body, shown.truncated || more);
            for (_, value) in &mut shown.headers {
                *value = noted.hidden.hide(value);
            }
        };
        for exchange in &mut exchanges {
            hide(&mut exchange.request);
            exchange.reply.as_mut().map(hide);
            exchange.failure = exchange.failure.take().map(|text| noted.hidden.hide(&text));
        }
        (exchanges, noted.seen.take())
    }
}

/// A request that is about to be sent, where somebody notes it.
pub(crate) struct Noting {
    traces: Vec<Arc<Trace>>,
    to: &'static str,
    request: Shown,
    began: Moment,
    kind: Kind,
}

impl Noting {
    /// Before it is sent; `None`: nobody notes it.
    pub(crate) fn begin(
        traces: &[Arc<Trace>],
        to: &'static str,
        request: &Request<SecretBytes>,
        clock: &Clock,
    ) -> Option<Self> {
        if traces.is_empty() {
            return None;
        }
        let (method, uri) = (request.method(), request.uri());
        let shown =
            shown(format!("{method} {}", redact::url(uri)), request.headers(), request.body().expose(), Kind::Sent);
        let kind =
            if matches!(to, "discovery" | "introspection_endpoint" | LOOKED_UP) { Kind::Plain } else { Kind::OfTokens };
        Some(Self { traces: traces.to_vec(), to, request: shown, began: clock.moment(), kind })
    }

    /// After its reply.
    pub(crate) fn end(self, outcome: &Result<Fetched, EgressError>, clock: &Clock) {
        let took_ms = millis(clock.since(self.began));
        let (reply, failure, seen) = match outcome {
            Ok(fetched) => {
                let body = fetched.body.expose();
                let seen = Seen::reply(fetched.status, &fetched.headers, body);
                // What isn't a success holds no token, and explains in members of any name.
                let kind = if (200..300).contains(&fetched.status) { self.kind } else { Kind::Plain };
                (Some(shown(status_line(fetched.status), &fetched.headers, body, kind)), None, seen)
            }
            Err(error) => (None, Some(error.to_string()), Seen { fault: Some(error.what.clone()), ..Seen::default() }),
        };
        let exchange = Exchange { to: self.to, request: self.request, reply, failure, took_ms };
        for trace in &self.traces {
            trace.note(exchange.clone(), seen.clone());
        }
    }
}

/// A message with what its names show to be secret masked.
pub(crate) fn shown(line: String, headers: &HeaderMap, body: &[u8], kind: Kind) -> Shown {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let body = redact::body(content_type, body, kind);
    Shown { line, headers: redact::headers(headers), body: body.text, truncated: body.truncated }
}

/// `200 OK`.
pub(crate) fn status_line(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request() -> Request<SecretBytes> {
        Request::post("https://a.example/token?v=1")
            .header(header::AUTHORIZATION, "Basic bWU6aHVzaA==")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(SecretBytes::new(b"grant_type=refresh_token&refresh_token=canary-1&odd=canary-2".to_vec()))
            .unwrap()
    }

    #[test]
    fn what_is_exchanged_is_noted_for_those_who_test_and_without_secrets() {
        let (traces, clock) = (Traces::default(), Clock::System);
        let id: ConnectionId = "con_01jbq4n6m8e2q3s5t7v9x1z3b5".parse().unwrap_or_else(|_| panic!("an id"));
        assert!(Noting::begin(&traces.of(&id), "token_endpoint", &request(), &clock).is_none());
        let entered = traces.enter(&id);
        entered.hide([&Secret::new("canary-2")]);
        let noting = Noting::begin(&traces.of(&id), "token_endpoint", &request(), &clock).unwrap();
        let body = SecretBytes::new(b"{\"access_token\":\"canary-3\",\"odd\":\"canary-4\",\"expires_in\":9}".to_vec());
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
        noting.end(&Ok(Fetched { status: 200, headers, body }), &clock);
        let (exchanges, seen) = entered.take();
        assert_eq!((exchanges.len(), seen.unwrap().status), (1, Some(200)));
        let text = format!("{exchanges:?}");
        assert!(!text.contains("canary") && !text.contains("bWU6"), "{text}");
        assert!(text.contains("grant_type=refresh_token") && text.contains("\\\"expires_in\\\": 9"), "{text}");
        assert_eq!(exchanges[0].request.line, "POST https://a.example/token?v=1");
        drop(entered);
        assert!(traces.of(&id).is_empty());
    }
}
