//! An integration: our registration at a provider.

use keyholder_oauth::{ClientAuth, Secret};
use keyholder_provider::Extra;
use serde::{Deserialize, Serialize};

use super::{IntegrationId, Rate, Tenant, Values};

/// Provider, method, client and scopes: everything that all connections under it share.
#[derive(Clone, Debug)]
pub struct Integration {
    /// Its id, which also names its redirect URI.
    pub id: IntegrationId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Unique in the tenant.
    pub name: String,
    /// For people.
    pub description: String,
    /// Id of the provider's definition.
    pub provider: String,
    /// The version of the definition that it was made with, or upgraded to.
    pub provider_version: String,
    /// Name of the provider's method.
    pub method: String,
    /// Client identifier at the provider (RFC 6749 §2.2).
    pub client_id: String,
    /// Client secret; `None` for a public client.
    pub client_secret: Option<Secret>,
    /// When the provider stops taking the client secret, as far as somebody said, Unix milliseconds.
    pub client_secret_expires_at: Option<i64>,
    /// Private key as PEM or JWK, for client authentication by `private_key_jwt` and for `{{client_key}}`.
    pub client_key: Option<Secret>,
    /// Certificate chain as PEM, the client's own first, for client authentication by `tls` (RFC 8705).
    pub client_certificate: Option<String>,
    /// The certificate's private key as PEM, where it isn't [`Self::client_key`].
    pub client_certificate_key: Option<Secret>,
    /// Scopes asked for, beside those the definition always adds.
    pub scopes: Vec<String>,
    /// Audience or resource the token is for, where the provider knows one.
    pub audience: Option<String>,
    /// Overrides the definition's prefix of the token in the header (`Bearer`).
    pub header_prefix: Option<String>,
    /// Overrides how the client authenticates.
    pub client_auth: Option<ClientAuth>,
    /// Sent as `grant_type` instead of the grant's own name.
    pub grant_type: Option<String>,
    /// What the body of token and refresh requests is instead of what the definition says: `form` or `json`.
    pub content_type: Option<String>,
    /// Where the access token stands in the reply, instead of where the definition says.
    pub token_key: Option<String>,
    /// How many calls each of its connections may make; the definition's limits hold beside it.
    pub limits: Rate,
    /// Parameters sent beside the definition's.
    pub extra: Extra,
    /// How its connections are renewed.
    pub renewal: RenewalPolicy,
    /// Values of the variables that belong to the integration and are no secrets.
    pub variables: Values,
    /// Values of its secret variables, sealed in the store.
    pub secret_variables: std::collections::BTreeMap<String, Secret>,
    /// Raised by every change; part of what seals its secrets to their place.
    pub generation: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

/// How the connections of an integration are renewed, where that is to differ from what Keyholder makes of the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RenewalPolicy {
    /// How long an access token lives where the reply doesn't say, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_lifetime: Option<u32>,
    /// How long before its end it is renewed, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u32>,
    /// Ahead of need; else only at use, and refresh tokens that die of disuse do.
    pub by_itself: bool,
}

impl Default for RenewalPolicy {
    fn default() -> Self {
        Self { token_lifetime: None, ahead: None, by_itself: true }
    }
}
