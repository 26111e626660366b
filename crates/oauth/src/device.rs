//! The device authorization request and its answer (RFC 8628 §3.1, §3.2).

use std::time::Duration;

use http::Request;
use http::header::HeaderMap;
use serde_json::Value;
use url::Url;

use crate::client_auth::Client;
use crate::error::RequestError;
use crate::failure::{Reply, TokenFailure};
use crate::jwt::Moment;
use crate::params::Params;
use crate::reply::{ReplyRules, as_text};
use crate::secret::{Secret, SecretBytes};
use crate::token::{TokenEndpoint, client_request, push_scope};

/// How long a device code lives where the server does not say; it must (RFC 8628 §3.2).
const LIFETIME_S: u64 = 600;

/// How long to wait between two questions where the server does not say (RFC 8628 §3.2).
const INTERVAL_S: u64 = 5;

/// What the person is told, and what is asked with.
#[derive(Clone, Debug)]
pub struct DeviceGrant {
    /// For [`Grant::DeviceCode`](crate::Grant::DeviceCode).
    pub device_code: Secret,
    /// What the person types; shown to them only.
    pub user_code: String,
    /// Where they type it.
    pub verification_uri: Url,
    /// The same with the code in it.
    pub verification_uri_complete: Option<Url>,
    /// When the codes end, in Unix milliseconds.
    pub expires_at: i64,
    /// How long to wait between two questions; 5 s more after each `slow_down` (RFC 8628 §3.5).
    pub interval: Duration,
}

/// Builds the device authorization request (RFC 8628 §3.1). `scope` as for [`token_request`](crate::token_request).
///
/// # Errors
/// [`RequestError`] if the client lacks a secret or the endpoint can't be asked; nothing was sent.
pub fn device_request(
    endpoint: &TokenEndpoint,
    client: &Client,
    scope: Option<&str>,
    moment: &Moment,
) -> Result<Request<SecretBytes>, RequestError> {
    let mut params = Params::new();
    // A client that authenticates in the header names itself here all the same (RFC 8628 §3.1).
    params.push("client_id", &client.id);
    push_scope(&mut params, scope, endpoint.scope_format);
    client_request(endpoint, client, params, moment)
}

/// Reads the answer (RFC 8628 §3.2). Google and Microsoft write `verification_url`.
///
/// # Errors
/// [`TokenFailure`] says which of three kinds it is.
pub fn read_device_reply(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
) -> Result<DeviceGrant, TokenFailure> {
    let rules = ReplyRules { access_token: "device_code".into(), ..ReplyRules::default() };
    let reply = Reply::read(&rules, status, headers, body, now_ms);
    if let Some(failure) = reply.refusal() {
        return Err(failure);
    }
    reply.data().and_then(|data| grant(data, now_ms)).ok_or_else(|| reply.not_a_token())
}

fn grant(data: &Value, now_ms: i64) -> Option<DeviceGrant> {
    let text = |names: &[&str]| names.iter().find_map(|name| as_text(data.get(*name)?));
    let seconds = |name: &str| text(&[name])?.parse::<u64>().ok().filter(|seconds| *seconds < 1 << 31);
    // A person opens it in a browser: never `javascript:` and the like.
    let address =
        |names: &[&str]| Url::parse(&text(names)?).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
    let lifetime = seconds("expires_in").filter(|seconds| *seconds > 0).unwrap_or(LIFETIME_S);
    Some(DeviceGrant {
        device_code: Secret::new(text(&["device_code"])?),
        user_code: text(&["user_code"])?,
        verification_uri: address(&["verification_uri", "verification_url"])?,
        verification_uri_complete: address(&["verification_uri_complete", "verification_url_complete"]),
        expires_at: now_ms.saturating_add_unsigned(lifetime * 1000),
        interval: Duration::from_secs(seconds("interval").unwrap_or(INTERVAL_S)),
    })
}
