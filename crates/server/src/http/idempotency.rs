//! `Idempotency-Key` in front of every POST of the API.

use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use keyholder_broker::model::Caller;
use keyholder_broker::{Error, FieldError, Idempotency, KeptReply};

use super::App;
use super::caller::Authenticated;
use super::input::read_body;
use super::problem::{ApiError, Refusal};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that a reply is a repetition.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A request with a key is done once; its repetitions get the first one's reply. Failures that may be repeated free the key.
pub(super) async fn layer(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(key) = request.headers().get(KEY) else {
        return Ok(next.run(request).await);
    };
    let key = key.to_str().ok().filter(|key| (1..=200).contains(&key.len())).map(str::to_owned).ok_or_else(|| {
        Error::Invalid(vec![FieldError::new(
            "Idempotency-Key",
            "it is empty, too long or not ASCII",
            "use 1 to 200 visible characters, such as a UUID",
        )])
    })?;
    let (head, body) = request.into_parts();
    let mut hashed = format!("{} {}\n", head.method, head.uri).into_bytes();
    let body = read_body(Request::from_parts(head.clone(), body)).await?;
    hashed.extend_from_slice(&body);
    match app.broker.begin_idempotent(&caller, &key, keyholder_oauth::sha256(&hashed)).await? {
        Idempotency::Replay(kept) => return Ok(replay(kept)),
        Idempotency::Differs => return Err(Refusal::KeyReused.into()),
        Idempotency::UnderWay => return Err(Refusal::KeyUnderWay.into()),
        Idempotency::First => {}
    }
    let request = Request::from_parts(head, Body::from(body));
    // In a task of its own: a caller that goes away must not leave its key "under way" for good.
    let first = tokio::spawn(async move { first(&app, &caller, &key, request, next).await });
    first.await.map_err(|_| Error::Internal("a request ended without an answer"))?
}

/// Does the work of a first request, and keeps its reply. Where there is none to keep, the key is free again.
async fn first(app: &App, caller: &Caller, key: &str, request: Request, next: Next) -> Result<Response, ApiError> {
    let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await else {
        app.broker.forget_reply(caller, key).await?;
        return Err(Error::Internal("a request ended without an answer").into());
    };
    let kept = keep(app, caller, key, response).await;
    if kept.is_err() {
        app.broker.forget_reply(caller, key).await?;
    }
    kept
}

async fn keep(app: &App, caller: &Caller, key: &str, response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        app.broker.forget_reply(caller, key).await?;
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Error::Internal("a reply could not be read back"))?.to_bytes();
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kept = KeptReply {
        status: status.as_u16(),
        content_type: content_type.to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    app.broker.keep_reply(caller, key, &kept).await?;
    Ok(Response::from_parts(head, Body::from(body)))
}

fn replay(kept: KeptReply) -> Response {
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    let mut response = (status, kept.body).into_response();
    if let Ok(value) = HeaderValue::from_str(&kept.content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}
