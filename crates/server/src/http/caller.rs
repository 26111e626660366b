//! Who calls: the key in front of every route that asks for one.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderValue};
use http::request::Parts;
use keyholder_broker::Error;
use keyholder_broker::model::{Caller, PlainKey, Scope};
use keyholder_oauth::Secret;

use super::App;
use super::problem::{ApiError, Refusal};

/// On the reply of a called API, which passes as it is: none that keeps replies for several may keep it, for the request had a key (RFC 9111 §3.5).
#[derive(Clone)]
pub(super) struct Called;

/// Authenticates the caller and checks the route's scope. No reply of ours may be kept on the way.
pub(super) async fn layer(State((app, scope)): State<(App, Scope)>, request: Request, next: Next) -> Response {
    let mut response = checked(&app, scope, request, next).await.into_response();
    if response.extensions().get::<Called>().is_none() {
        not_kept(response.headers_mut());
    }
    response
}

async fn checked(app: &App, scope: Scope, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let caller = authenticated(app, request.headers()).await?;
    app.broker.require(&caller, scope)?;
    request.extensions_mut().insert(Authenticated(caller));
    Ok(next.run(request).await)
}

/// The caller whose key a request shows.
pub(super) async fn authenticated(app: &App, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
    let key = PlainKey(Secret::new(shown_key(headers).ok_or(Refusal::NoKey)?));
    Ok(app.broker.authenticate(&key).await?)
}

/// `Authorization: Bearer khk_…` (RFC 6750 §2.1).
pub(super) fn shown_key(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Unless the reply says otherwise itself.
pub(super) fn not_kept(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The caller, for handlers.
#[derive(Clone)]
pub(super) struct Authenticated(pub(super) Arc<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Only a route without a scope could lack it, and that would be our mistake.
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Error::Internal("a route without a caller asks for one").into())
    }
}
