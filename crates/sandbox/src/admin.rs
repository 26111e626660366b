//! The operator's way in, without authentication: a sandbox listens on loopback.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::faults::{BadInput, Fault};
use crate::options::Client;
use crate::reply::{self, Reply};
use crate::state::{Counters, Which};
use crate::{Sandbox, html};

/// `GET /`: what there is to try.
pub(crate) async fn home(Shared(sandbox): Shared<Sandbox>) -> Response {
    let page = {
        let any = sandbox.options().any_redirect;
        let state = sandbox.lock();
        let clients: Vec<_> = state.clients().map(|client| (client.id.clone(), describe(client, any))).collect();
        let faults: Vec<_> = state.faults.list().iter().map(|fault| json!(fault).to_string()).collect();
        html::home(sandbox.base_url(), &clients, ENDPOINTS, &faults)
    };
    reply::deliver(&[], Reply::page(StatusCode::OK, page)).await
}

const ENDPOINTS: &[(&str, &str)] = &[
    ("/.well-known/openid-configuration", "discovery"),
    ("/authorize", "consent"),
    ("/token", "authorization_code, client_credentials, password, refresh_token"),
    ("/revoke", "RFC 7009"),
    ("/introspect", "RFC 7662"),
    ("/userinfo", "needs the scope openid"),
    ("/api/me", "whom a token stands for"),
    ("/api/echo", "what arrived"),
    ("/api/stream?bytes=N", "so many bytes"),
    ("/api/upload", "counts what you post"),
    ("/api/slow?ms=N", "takes its time"),
    ("/api/admin", "needs the scope admin"),
    ("/admin/counters", "GET, DELETE"),
    ("/admin/faults", "POST, GET, DELETE"),
    ("/admin/clients", "POST"),
    ("/admin/revoke", "POST"),
    ("/admin/expire", "POST"),
];

fn describe(client: &Client, any_redirect: bool) -> String {
    let method = client.auth.map_or("any method".to_owned(), |auth| auth.to_string());
    let redirects = match client.redirect_uris.as_slice() {
        _ if any_redirect => "any redirect URI".to_owned(),
        [] => "no redirect URI".to_owned(),
        uris => uris.join(", "),
    };
    format!("{method}; {redirects}")
}

/// `GET /admin/counters`.
pub(crate) async fn counters(Shared(sandbox): Shared<Sandbox>) -> Json<Counters> {
    Json(sandbox.counters())
}

/// `DELETE /admin/counters`.
pub(crate) async fn reset_counters(Shared(sandbox): Shared<Sandbox>) -> StatusCode {
    sandbox.reset_counters();
    StatusCode::NO_CONTENT
}

/// `POST /admin/faults`: adds one; replies with its id.
pub(crate) async fn set_fault(Shared(sandbox): Shared<Sandbox>, body: Bytes) -> Result<Response, Problem> {
    let fault = Fault::from_json(read_object(&body)?)?;
    let id = sandbox.set_fault(fault);
    Ok((StatusCode::CREATED, Json(json!({"id": id}))).into_response())
}

/// `GET /admin/faults`: those that are set, with `hits` and how many are `left` (`null`: for ever).
pub(crate) async fn faults(Shared(sandbox): Shared<Sandbox>) -> Json<Value> {
    Json(json!({"faults": sandbox.lock().faults.list()}))
}

/// `DELETE /admin/faults`.
pub(crate) async fn clear_faults(Shared(sandbox): Shared<Sandbox>) -> Json<Value> {
    Json(json!({"removed": sandbox.clear_faults()}))
}

/// `DELETE /admin/faults/{id}`.
pub(crate) async fn remove_fault(
    Shared(sandbox): Shared<Sandbox>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let known = id.parse().is_ok_and(|id| sandbox.lock().faults.remove(id));
    let problem = || BadInput::new("id", format!("no fault {id} is set"), "see GET /admin/faults");
    if known { Ok(StatusCode::NO_CONTENT) } else { Err(problem().into()) }
}

/// `POST /admin/clients`: adds or replaces one.
pub(crate) async fn add_client(Shared(sandbox): Shared<Sandbox>, body: Bytes) -> Result<Response, Problem> {
    const REMEDY: &str =
        "send id, and if you like name, secret, auth (basic, post, json or none) and redirect_uris (a list)";
    let client: Client = serde_json::from_value(Value::Object(read_object(&body)?))
        .map_err(|error| BadInput::new("client", error.to_string(), REMEDY))?;
    if client.id.is_empty() {
        return Err(BadInput::new("id", "it is empty", REMEDY).into());
    }
    let id = client.id.clone();
    sandbox.add_client(client);
    Ok((StatusCode::CREATED, Json(json!({"id": id}))).into_response())
}

/// `POST /admin/revoke`: grants end with all their tokens.
pub(crate) async fn revoke(Shared(sandbox): Shared<Sandbox>, body: Bytes) -> Result<Json<Value>, Problem> {
    let which = Which::from_json(read_object(&body)?)?;
    Ok(Json(json!({"revoked": sandbox.revoke(&which)})))
}

/// `POST /admin/expire`: every access token expires now.
pub(crate) async fn expire(Shared(sandbox): Shared<Sandbox>) -> Json<Value> {
    Json(json!({"expired": sandbox.expire_access_tokens()}))
}

fn read_object(body: &[u8]) -> Result<Map<String, Value>, BadInput> {
    serde_json::from_slice(body).map_err(|error| {
        BadInput::new("body", format!("it is not a JSON object: {error}"), "send one, as in {\"kind\": \"lost\"}")
    })
}

/// A refused input as a problem document (RFC 9457).
pub(crate) struct Problem(BadInput);

impl From<BadInput> for Problem {
    fn from(error: BadInput) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let BadInput { field, reason, remedy } = &self.0;
        let body = json!({
            "title": "Bad input",
            "status": 400,
            "detail": self.0.to_string(),
            "field": field,
            "reason": reason,
            "remedy": remedy,
        });
        (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}
