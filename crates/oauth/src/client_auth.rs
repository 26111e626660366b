//! How a client proves who it is: a value that edits the request.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::error::RequestError;
use crate::params::Params;
use crate::secret::Secret;

/// How the client authenticates at the token endpoint (RFC 6749 §2.3). Written in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `Authorization: Basic`, id and secret each form-encoded first, as RFC 6749 §2.3.1 demands.
    Basic,
    /// `Authorization: Basic` of id and secret as they are, for servers that don't decode them.
    RawBasic,
    /// `client_id` and `client_secret` among the body's parameters (RFC 6749 §2.3.1).
    Post,
    /// `client_id` and `client_secret` in the body, which becomes JSON.
    Json,
    /// Only `client_id`: a public client (RFC 6749 §3.2.1).
    None,
}

/// Who asks: what a registration at the provider gave.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client identifier (RFC 6749 §2.2); not a secret.
    pub id: String,
    /// The client secret. `None` for a public client; an empty one is sent as such.
    pub secret: Option<Secret>,
}

impl ClientAuth {
    /// All of them, in the order of their documentation.
    pub const ALL: [Self; 5] = [Self::Basic, Self::RawBasic, Self::Post, Self::Json, Self::None];

    /// The name in definitions and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::RawBasic => "raw_basic",
            Self::Post => "post",
            Self::Json => "json",
            Self::None => "none",
        }
    }

    /// Adds the client's credentials to a request. An `Authorization` header is marked sensitive.
    ///
    /// # Errors
    /// [`RequestError::MissingSecret`] if this method needs a secret and the client has none.
    pub fn apply(self, client: &Client, headers: &mut HeaderMap, params: &mut Params) -> Result<(), RequestError> {
        let secret = client.secret.as_ref().ok_or(RequestError::MissingSecret(self));
        match self {
            Self::Basic => set_basic(headers, &form_encode(&client.id), &form_encode(secret?.expose())),
            Self::RawBasic => set_basic(headers, &client.id, secret?.expose()),
            Self::Post | Self::Json => {
                let secret = secret?;
                params.set("client_id", &client.id);
                params.set("client_secret", secret.expose());
                Ok(())
            }
            Self::None => {
                params.set("client_id", &client.id);
                Ok(())
            }
        }
    }
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ClientAuth {
    type Err = UnknownClientAuth;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|auth| auth.as_str() == name).ok_or_else(|| UnknownClientAuth(name.to_owned()))
    }
}

/// A name that no client authentication has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a client authentication; use basic, raw_basic, post, json or none")]
pub struct UnknownClientAuth(pub String);

fn set_basic(headers: &mut HeaderMap, user: &str, password: &str) -> Result<(), RequestError> {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&text).map_err(|_| RequestError::BadHeader("authorization".to_owned()))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(())
}

fn form_encode(text: &str) -> Zeroizing<String> {
    Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
}
