//! What happens, as server-sent events: for the console's pages, and for programs.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use keyholder_broker::clock::{Clock, Moment};
use keyholder_broker::model::Happened;
use keyholder_broker::{Heard, Watch};
use keyholder_oauth::Secret;
use serde::Deserialize;
use serde_json::json;

use super::super::App;
use super::super::caller::{self, Authenticated};
use super::super::input::InQuery;
use super::super::problem::ApiError;
use super::session::Person;

/// How often a stream looks whether it should end.
const LOOK: Duration = Duration::from_secs(1);
/// A sign of life after so many looks: proxies cut what is silent.
const SIGN_OF_LIFE: u32 = 15;
/// Whether its listener still may is asked so often, however much there is to tell.
const ASK: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Deserialize)]
pub(in crate::http) struct Which {
    /// Only of this connection.
    connection: Option<String>,
}

/// `GET /console/events`.
pub(in crate::http) async fn of_console(
    State(app): State<App>,
    person: Person,
    headers: HeaderMap,
    InQuery(which): InQuery<Which>,
) -> Result<Response, ApiError> {
    let watch = app.broker.watch(&person.caller, which.connection.as_deref(), last(&headers)).await?;
    Ok(streamed(app, watch, Listener::Person(person.token().clone())))
}

/// `GET /v1/events`.
pub(in crate::http) async fn of_api(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    headers: HeaderMap,
    InQuery(which): InQuery<Which>,
) -> Result<Response, ApiError> {
    let watch = app.broker.watch(&caller, which.connection.as_deref(), last(&headers)).await?;
    Ok(streamed(app, watch, Listener::Program(headers)))
}

fn last(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id")?.to_str().ok().filter(|id| !id.is_empty())
}

struct Streaming {
    app: App,
    watch: Watch,
    listener: Listener,
    asked: Moment,
    looks: u32,
    /// Something was sent.
    told: bool,
}

/// Who listens, by what they have shown.
enum Listener {
    /// A session's token.
    Person(Secret),
    /// The request's headers, with its API key.
    Program(HeaderMap),
}

fn streamed(app: App, watch: Watch, listener: Listener) -> Response {
    let streaming = Streaming { app, watch, listener, asked: Clock::System.moment(), looks: 0, told: false };
    let parts = stream::unfold(streaming, |mut streaming| async move {
        let part = streaming.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(part)), streaming))
    });
    let mut response = Body::from_stream(parts).into_response();
    let fields = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

impl Streaming {
    /// The next part; `None`: it is over.
    async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.told, true) {
            return Some("retry: 3000\n\n".to_owned());
        }
        loop {
            if !self.app.serving.load(Ordering::Relaxed) {
                return None;
            }
            let heard = Clock::System.timeout(LOOK, self.watch.next()).await;
            if Clock::System.since(self.asked) >= ASK {
                if !self.may_go_on().await {
                    return None;
                }
                self.asked = Clock::System.moment();
            }
            match heard {
                Some(Heard::Event(event)) => return Some(written(&event)),
                Some(Heard::Missed) => return Some("event: reload\ndata: {}\n\n".to_owned()),
                None => self.looks += 1,
            }
            if self.looks.is_multiple_of(SIGN_OF_LIFE) {
                return Some(": .\n\n".to_owned());
            }
        }
    }

    async fn may_go_on(&self) -> bool {
        match &self.listener {
            // A look is no use of it: a tab that stays open keeps nobody signed in.
            Listener::Person(session) => self.app.broker.session_stands(session.expose()).await.unwrap_or(false),
            Listener::Program(headers) => caller::authenticated(&self.app, headers).await.is_ok(),
        }
    }
}

fn written(event: &Happened) -> String {
    let data = json!({
        "id": event.id.as_str(),
        "at": event.at,
        "connection": event.connection.as_str(),
        "name": event.name,
        "kind": event.kind,
        "message": event.message,
    });
    format!("id: {}\nevent: happened\ndata: {data}\n\n", event.id)
}
