//! How a client proves who it is: a value that edits the request.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::error::RequestError;
use crate::jwt::{Algorithm, Moment, SignError, sign_jwt};
use crate::params::Params;
use crate::secret::Secret;

/// How the client authenticates at the token endpoint (RFC 6749 §2.3). Written in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// `client_id` and `client_secret` in the query of the URL, wherever the other parameters go.
    Query,
    /// A JWT signed with the client secret (RFC 7523 §2.2, OpenID Connect Core §9).
    ClientSecretJwt,
    /// A JWT signed with the client's private key (RFC 7523 §2.2, OpenID Connect Core §9).
    PrivateKeyJwt,
    /// Only `client_id`: the certificate of the TLS connection says who asks (RFC 8705 §2).
    Tls,
    /// Only `client_id`: a public client (RFC 6749 §3.2.1).
    None,
}

/// Who asks: what a registration at the provider gave.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The client identifier (RFC 6749 §2.2); not a secret.
    pub id: String,
    /// The client secret. `None` for a public client; an empty one is sent as such.
    pub secret: Option<Secret>,
    /// The private key, as PEM or JWK, for [`ClientAuth::PrivateKeyJwt`].
    pub key: Option<Secret>,
}

/// What a client assertion says beside what RFC 7523 §3 demands.
#[derive(Clone, Debug, Default)]
pub struct ClientAssertion {
    /// For whom it is; the endpoint's own address unless the server wants another one, such as its issuer.
    pub audience: Option<String>,
    /// How it is signed; `HS256` for a client secret, `RS256` for a private key.
    pub algorithm: Option<Algorithm>,
    /// How long it may be used; a minute.
    pub lifetime: Option<Duration>,
    /// More members of its header, such as `kid` or `x5t#S256`.
    pub header: Map<String, Value>,
    /// More claims; they replace those set here.
    pub claims: Map<String, Value>,
}

/// What a client authenticates in.
pub(crate) struct Authenticated<'a> {
    pub headers: &'a mut HeaderMap,
    /// Parameters that go where the request's own go.
    pub params: &'a mut Params,
    /// Parameters of the URL.
    pub query: &'a mut Params,
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ASSERTION_LIFETIME: Duration = Duration::from_secs(60);

impl ClientAuth {
    /// All of them, in the order of their documentation.
    pub const ALL: [Self; 9] = [
        Self::Basic,
        Self::RawBasic,
        Self::Post,
        Self::Json,
        Self::Query,
        Self::ClientSecretJwt,
        Self::PrivateKeyJwt,
        Self::Tls,
        Self::None,
    ];

    /// The name in definitions and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::RawBasic => "raw_basic",
            Self::Post => "post",
            Self::Json => "json",
            Self::Query => "query",
            Self::ClientSecretJwt => "client_secret_jwt",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }

    /// The name in discovery documents (RFC 8414 §2); those that differ only in how a request is written have none.
    pub fn registered_name(self) -> Option<&'static str> {
        match self {
            Self::Basic => Some("client_secret_basic"),
            Self::Post => Some("client_secret_post"),
            Self::ClientSecretJwt => Some("client_secret_jwt"),
            Self::PrivateKeyJwt => Some("private_key_jwt"),
            Self::Tls => Some("tls_client_auth"),
            Self::None => Some("none"),
            Self::RawBasic | Self::Json | Self::Query => None,
        }
    }

    /// Adds the client's credentials to a request to `endpoint`. An `Authorization` header is marked sensitive.
    pub(crate) fn apply(
        self,
        client: &Client,
        assertion: &ClientAssertion,
        endpoint: &Url,
        moment: &Moment,
        request: &mut Authenticated<'_>,
    ) -> Result<(), RequestError> {
        let secret = client.secret.as_ref().ok_or(RequestError::MissingSecret(self));
        match self {
            Self::Basic => set_basic(request.headers, &form_encode(&client.id), &form_encode(secret?.expose()))?,
            Self::RawBasic => set_basic(request.headers, &client.id, secret?.expose())?,
            Self::Post | Self::Json => {
                request.params.set("client_id", &client.id);
                request.params.set("client_secret", secret?.expose());
            }
            Self::Query => {
                request.query.set("client_id", &client.id);
                request.query.set("client_secret", secret?.expose());
            }
            Self::ClientSecretJwt | Self::PrivateKeyJwt => {
                let key = if self == Self::PrivateKeyJwt {
                    client.key.as_ref().ok_or(RequestError::MissingKey)?
                } else {
                    secret?
                };
                let signed = assertion.sign(self, &client.id, key, endpoint, moment)?;
                request.params.set("client_id", &client.id);
                request.params.set("client_assertion_type", ASSERTION_TYPE);
                request.params.set("client_assertion", signed.expose());
            }
            Self::Tls | Self::None => request.params.set("client_id", &client.id),
        }
        Ok(())
    }
}

impl ClientAssertion {
    fn sign(
        &self,
        auth: ClientAuth,
        client_id: &str,
        key: &Secret,
        endpoint: &Url,
        moment: &Moment,
    ) -> Result<Secret, RequestError> {
        let standard = if auth == ClientAuth::PrivateKeyJwt { Algorithm::RS256 } else { Algorithm::HS256 };
        let algorithm = self.algorithm.unwrap_or(standard);
        if algorithm.is_symmetric() != (auth == ClientAuth::ClientSecretJwt) {
            return Err(SignError::WrongKind(algorithm).into());
        }
        let mut audience = endpoint.clone();
        audience.set_query(None);
        audience.set_fragment(None);
        let now = moment.seconds();
        let lifetime = self.lifetime.unwrap_or(ASSERTION_LIFETIME).as_secs();
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), json!(client_id));
        claims.insert("sub".to_owned(), json!(client_id));
        claims.insert("aud".to_owned(), json!(self.audience.as_deref().unwrap_or(audience.as_str())));
        claims.insert("jti".to_owned(), json!(moment.jti()));
        claims.insert("iat".to_owned(), json!(now));
        claims.insert("nbf".to_owned(), json!(now));
        claims.insert("exp".to_owned(), json!(now.saturating_add_unsigned(lifetime)));
        claims.extend(self.claims.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(sign_jwt(algorithm, key, &self.header, &claims)?)
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
#[error(
    "`{0}` is not a client authentication; use basic, raw_basic, post, json, query, client_secret_jwt, private_key_jwt, tls or none"
)]
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
