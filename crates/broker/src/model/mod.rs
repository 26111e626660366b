//! The product's words as types. No I/O.

mod caller;
mod connection;
mod data_source;
mod id;
mod instance;
mod integration;
mod operator;
mod session;

pub use caller::{Caller, Grip, Limits, NewKey, PlainKey, Rate, Scope, StoredKey};
pub use connection::{Attempt, Connection, ConnectionState, Event, Failure, Failures, Happened, SecretInput, Status};
pub use data_source::{AllowRule, Behind, DataSource, Expect, SavedRequest, SourceSpec, SourceVariable, ValueKind};
pub use id::{
    AttemptId, ConnectionId, DeviceGrantId, EventId, IntegrationId, KeyId, NotAnId, PendingId, SegmentId, SessionId,
    SourceId,
};
pub(crate) use id::{base32, from_base32};
pub use instance::{FenceReason, Fenced};
pub use integration::{Integration, RenewalPolicy};
pub use operator::{For, Operator, Passkey, PasskeyKey, Said, Theme};
pub use session::{ConnectSession, Consent, DeviceGrant, PendingGrant};

/// The wall between customers. One binary serves one tenant until tenants can be made; the column is there from the first day.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The tenant of an installation that has only one.
    pub fn default_tenant() -> Self {
        Self("default".to_owned())
    }

    /// A tenant as the store names it.
    pub fn from_stored(name: String) -> Self {
        Self(name)
    }

    /// The tenant's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names and values: variables, tags.
pub type Values = std::collections::BTreeMap<String, String>;
