//! The address that a person is sent to for consent (RFC 6749 §4.1.1).

use url::Url;

use crate::params::Params;
use crate::query;
use crate::token::{ScopeFormat, push_scope};

/// What an authorization request says.
#[derive(Clone, Debug)]
pub struct AuthorizeRequest<'a> {
    /// The authorization endpoint. Its own query is kept (RFC 6749 §3.1).
    pub endpoint: &'a Url,
    /// The client identifier.
    pub client_id: &'a str,
    /// Where the person comes back to; registered at the provider.
    pub redirect_uri: &'a str,
    /// The scopes, already joined with the provider's separator; sent only if given.
    pub scope: Option<&'a str>,
    /// How several scopes are sent.
    pub scope_format: ScopeFormat,
    /// What ties the answer to this request (RFC 6749 §10.12). Ours to draw: 256 random bits.
    pub state: &'a str,
    /// The S256 challenge of a [`Verifier`](crate::Verifier) (RFC 7636 §4.3).
    pub code_challenge: Option<&'a str>,
    /// The nonce of OpenID Connect Core §3.1.2.1.
    pub nonce: Option<&'a str>,
    /// More parameters, named as they are sent. One that is there already is replaced, save those
    /// that protect the consent: state, challenge and nonce.
    pub params: &'a Params,
    /// `(standard name, new name or None = drop)`, for the standard parameters.
    pub renames: &'a [(String, Option<String>)],
}

/// Builds the address. Spaces are written `%20`, because some servers read `+` literally.
pub fn authorize_url(request: &AuthorizeRequest<'_>) -> Url {
    let mut guards = guards(request);
    guards.apply_renames(request.renames);
    let mut params = standard(request);
    params.apply_renames(request.renames);
    params.overlay(request.params);
    // Last, so that nothing a definition adds can replace what protects the consent.
    for (name, value) in guards.iter() {
        params.set(name, value);
    }
    query::with_params(request.endpoint, &params)
}

fn standard(request: &AuthorizeRequest<'_>) -> Params {
    let mut params = Params::new();
    params.push("response_type", "code");
    params.push("client_id", request.client_id);
    params.push("redirect_uri", request.redirect_uri);
    push_scope(&mut params, request.scope, request.scope_format);
    for (name, value) in guards(request).iter() {
        params.push(name, value);
    }
    params
}

fn guards(request: &AuthorizeRequest<'_>) -> Params {
    let mut params = Params::new();
    params.push("state", request.state);
    if let Some(challenge) = request.code_challenge {
        params.push("code_challenge", challenge);
        params.push("code_challenge_method", "S256");
    }
    if let Some(nonce) = request.nonce {
        params.push("nonce", nonce);
    }
    params
}
