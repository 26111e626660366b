//! Why a request could not be built.

use crate::client_auth::ClientAuth;
use crate::jwt::SignError;

/// Why a request could not be built. Each is a fault of the set-up; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// This client authentication needs a client secret, and the client has none.
    #[error("client authentication `{0}` needs a client secret; add one, or use `none` for a public client")]
    MissingSecret(ClientAuth),
    /// The client has no private key to sign with.
    #[error("client authentication `private_key_jwt` needs the client's private key; add it as PEM or JWK")]
    MissingKey,
    /// The client assertion could not be signed.
    #[error("the client assertion could not be signed: {0}")]
    Sign(#[from] SignError),
    /// A value can't be sent in this header.
    #[error("the value for the header `{0}` holds characters that no header may carry; remove them")]
    BadHeader(String),
    /// The endpoint is not an address that a request can be sent to: not `http(s)`, or with a user name in it.
    #[error("`{0}` is not an address that a request can be sent to; give an https URL without user name and password")]
    BadUrl(String),
}
