//! Introspection (RFC 7662).

use http::Request;
use http::header::HeaderMap;

use crate::client_auth::Client;
use crate::error::RequestError;
use crate::expiry::{self, ExpiryRules};
use crate::failure::{Reply, TokenFailure};
use crate::jwt::Moment;
use crate::params::Params;
use crate::reply::{Expiry, ReplyRules};
use crate::secret::{Secret, SecretBytes};
use crate::token::{TokenEndpoint, client_request};

/// What a server says about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Whether it is good now.
    pub active: bool,
    /// When it ends, in Unix milliseconds; `None` = not told.
    pub expires_at: Option<i64>,
    /// Its scope; `None` = not told.
    pub scope: Option<Vec<String>>,
    /// Who it acts for: `username`, else `sub`.
    pub account: Option<String>,
}

/// Builds the request that asks about a token (RFC 7662 §2.1). `hint` is as for [`revocation_request`](crate::revocation_request).
///
/// # Errors
/// [`RequestError`] if the client lacks a secret or the endpoint can't be asked; nothing was sent.
pub fn introspection_request(
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

/// Reads the answer (RFC 7662 §2.2). A reply without `active` that names an expiry or a scope is that of a server older than the
/// RFC (Google's `tokeninfo`, Salesforce's `introspect` always say): the token is good.
///
/// # Errors
/// [`TokenFailure`]; nothing is known about the token then.
pub fn read_introspection_reply(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
) -> Result<Introspection, TokenFailure> {
    let rules = ReplyRules::default();
    let reply = Reply::read(&rules, status, headers, body, now_ms);
    if let Some(failure) = reply.refusal() {
        return Err(failure);
    }
    let data = reply.data().filter(|data| data.is_object()).ok_or_else(|| reply.not_a_token())?;
    let ends = ExpiryRules {
        expires_in: Some(&rules.expires_in),
        expires_at: Some(&"exp".into()),
        expiry: Expiry::Seconds,
        default_lifetime: None,
    };
    let expires_at = expiry::expires_at(&ends, data, "", now_ms);
    let scope: Option<Vec<String>> = data
        .get("scope")
        .and_then(|scope| scope.as_str())
        .map(|text| text.split([' ', ',']).map(str::to_owned).collect());
    let text =
        |name: &str| data.get(name).and_then(|value| value.as_str()).and_then(|text| crate::text::clean(text, 200));
    let active = match data.get("active") {
        Some(active) => crate::reply::as_text(active).as_deref() == Some("true"),
        None => expires_at.is_some() || scope.is_some(),
    };
    Ok(Introspection { active, expires_at, scope, account: text("username").or_else(|| text("sub")) })
}
