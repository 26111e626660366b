//! Revocation (RFC 7009).

use http::Request;
use http::header::HeaderMap;

use crate::client_auth::Client;
use crate::error::RequestError;
use crate::failure::{Reply, TokenFailure};
use crate::jwt::Moment;
use crate::params::Params;
use crate::reply::ReplyRules;
use crate::secret::{Secret, SecretBytes};
use crate::token::{TokenEndpoint, client_request};

/// Builds the request that revokes a token (RFC 7009 §2.1).
///
/// `hint` is `access_token` or `refresh_token`; an empty one is not sent.
///
/// # Errors
/// [`RequestError`] if the client lacks a secret or the endpoint can't be asked; nothing was sent.
pub fn revocation_request(
    endpoint: &TokenEndpoint,
    client: &Client,
    token: &Secret,
    hint: &str,
    moment: &Moment,
) -> Result<Request<SecretBytes>, RequestError> {
    let mut params = Params::new();
    params.push("token", token.expose());
    if !hint.is_empty() {
        params.push("token_type_hint", hint);
    }
    client_request(endpoint, client, params, moment)
}

/// Reads the answer to a revocation (RFC 7009 §2.2). `now_ms` is Unix milliseconds.
///
/// A token that the server no longer knows counts as revoked: RFC 7009 §2.2 answers it with 200, some
/// servers with the error `invalid_token`.
///
/// # Errors
/// [`TokenFailure`]; the token may still be good then.
pub fn read_revocation_reply(status: u16, headers: &HeaderMap, body: &[u8], now_ms: i64) -> Result<(), TokenFailure> {
    let rules = ReplyRules::default();
    let reply = Reply::read(&rules, status, headers, body, now_ms);
    match reply.revocation_refusal() {
        Some(failure) if failure.code.as_deref() == Some("invalid_token") && failure.status < 500 => Ok(()),
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}
