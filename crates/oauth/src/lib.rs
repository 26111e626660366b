//! The OAuth 2.0 client protocol as pure functions: an [`http::Request`] out, a reply's bytes in.
//!
//! Nothing here opens a connection, reads a clock or draws a random number; time (`now_ms`, Unix
//! milliseconds, UTC) and randomness are arguments. That makes every rule of the protocol, and every
//! tolerance towards what servers really send, a table test without a server.
//!
//! The usual way through:
//! 1. [`discovery_urls`] and [`read_metadata`] learn a server's endpoints (RFC 8414), where it publishes them;
//! 2. [`authorize_url`] sends a person to consent, with a [`Verifier`]'s challenge (RFC 7636);
//! 3. [`ReceivedCallback::parse`] and [`ReceivedCallback::check`] turn what comes back into a [`ValidatedCallback`];
//! 4. [`token_request`] and [`read_token_reply`] exchange a [`Grant`] for a [`TokenSet`] or a [`TokenFailure`];
//! 5. [`revocation_request`] and [`read_revocation_reply`] end it (RFC 7009).
//!
//! What a server does differently is data: a [`TokenEndpoint`] says how it is asked, [`ReplyRules`]
//! say how its answer is read.

mod authorize;
mod body;
mod callback;
mod client_auth;
mod device;
mod discovery;
mod error;
mod expiry;
mod failure;
mod introspect;
mod jwt;
mod params;
mod pkce;
mod query;
mod reply;
mod revoke;
mod secret;
mod text;
mod token;

pub use authorize::{AuthorizeRequest, authorize_url};
pub use callback::{
    CallbackError, CallbackRules, CallbackSignature, Expected, ReceivedCallback, SignedOver, ValidatedCallback,
};
pub use client_auth::{Client, ClientAssertion, ClientAuth, UnknownClientAuth};
pub use device::{DeviceGrant, device_request, read_device_reply};
pub use discovery::{
    DiscoveryError, Metadata, ResourceMetadata, discovery_urls, issuer_of, read_metadata, read_resource_metadata,
    resource_metadata_of, resource_of, resource_urls,
};
pub use error::RequestError;
pub use expiry::{date_ms, retry_after};
pub use failure::{FailureKind, FailureShape, TokenFailure};
pub use introspect::{Introspection, introspection_request, read_introspection_reply};
pub use jwt::{Algorithm, Encoding, Hash, Moment, SignError, hash_of, hmac_of, sign_jwt};
pub use params::Params;
pub use pkce::{Verifier, random_token, sha256};
pub use reply::{
    Expiry, Pointer, Predicate, ReplyRules, SecondaryRules, SecondaryToken, Test, TokenSet, as_text, read_token_reply,
};
pub use revoke::{read_revocation_reply, revocation_request};
pub use secret::{Secret, SecretBytes};
pub use token::{
    BodyFormat, BodyPart, BodyTemplate, Escape, Grant, HashedParam, ScopeFormat, TokenEndpoint, token_request,
};
