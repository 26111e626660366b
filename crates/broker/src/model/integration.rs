//! An integration: our registration at a provider.

use keyholder_oauth::{ClientAuth, Secret};

use super::{IntegrationId, Tenant, Values};

/// Provider, method, client and scopes: everything that all connections under it share.
#[derive(Clone, Debug)]
pub struct Integration {
    /// Its id, which also names its redirect URI.
    pub id: IntegrationId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Unique in the tenant.
    pub name: String,
    /// Id of the provider's definition.
    pub provider: String,
    /// Name of the provider's method.
    pub method: String,
    /// Client identifier at the provider (RFC 6749 §2.2).
    pub client_id: String,
    /// Client secret; `None` for a public client.
    pub client_secret: Option<Secret>,
    /// When the provider stops taking the client secret, as far as somebody said, Unix milliseconds.
    pub client_secret_expires_at: Option<i64>,
    /// Scopes asked for, beside those the definition always adds.
    pub scopes: Vec<String>,
    /// Audience or resource the token is for, where the provider knows one.
    pub audience: Option<String>,
    /// Overrides the definition's prefix of the token in the header (`Bearer`).
    pub header_prefix: Option<String>,
    /// Overrides how the client authenticates.
    pub client_auth: Option<ClientAuth>,
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
