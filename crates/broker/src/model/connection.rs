//! A connection: one authorised grant under an integration.

use keyholder_oauth::{FailureKind, Secret};
use serde::{Deserialize, Serialize};

use super::{AttemptId, Caller, ConnectionId, EventId, Grip, IntegrationId, Tenant, Values};

/// The name of a state, as API, CLI and store write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing authorised yet.
    Draft,
    /// Consent begun, or waiting for confirmation.
    Pending,
    /// Authorised; tokens are handed out.
    Connected,
    /// The last renewal failed for a reason that may pass, or the set-up is wrong; a valid token is still served.
    Failing,
    /// The grant is dead; a person must consent again.
    Reconnect,
    /// Ended on purpose.
    Revoked,
}

impl Status {
    /// The word in the store and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Draft => "draft",
            Status::Pending => "pending",
            Status::Connected => "connected",
            Status::Failing => "failing",
            Status::Reconnect => "reconnect",
            Status::Revoked => "revoked",
        }
    }

    /// Reads the store's word.
    pub fn from_stored(word: &str) -> Option<Self> {
        [Status::Draft, Status::Pending, Status::Connected, Status::Failing, Status::Reconnect, Status::Revoked]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

/// A connection's state with the data that only that state has.
#[derive(Clone, Debug, PartialEq)]
pub enum ConnectionState {
    /// Nothing authorised yet. A failed first attempt leaves its reason.
    Draft(Option<Failure>),
    /// Consent begun, or waiting for confirmation.
    Pending,
    /// Authorised.
    Connected,
    /// Renewal fails; why, and when it is tried again.
    Failing(Failure),
    /// The grant is dead; why.
    Reconnect(Failure),
    /// Ended on purpose.
    Revoked,
}

impl ConnectionState {
    /// The state's name.
    pub fn status(&self) -> Status {
        match self {
            ConnectionState::Draft(_) => Status::Draft,
            ConnectionState::Pending => Status::Pending,
            ConnectionState::Connected => Status::Connected,
            ConnectionState::Failing(_) => Status::Failing,
            ConnectionState::Reconnect(_) => Status::Reconnect,
            ConnectionState::Revoked => Status::Revoked,
        }
    }

    /// What went wrong, in the states that know it.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            ConnectionState::Draft(failure) => failure.as_ref(),
            ConnectionState::Failing(failure) | ConnectionState::Reconnect(failure) => Some(failure),
            ConnectionState::Pending | ConnectionState::Connected | ConnectionState::Revoked => None,
        }
    }

    /// Puts a state together from the store's two columns.
    pub fn from_stored(status: Status, failure: Option<Failure>) -> Self {
        match (status, failure) {
            (Status::Draft, failure) => ConnectionState::Draft(failure),
            (Status::Pending, _) => ConnectionState::Pending,
            (Status::Failing, Some(failure)) => ConnectionState::Failing(failure),
            (Status::Reconnect, Some(failure)) => ConnectionState::Reconnect(failure),
            // A failing row always has a reason; without one the last known good state is the honest answer.
            (Status::Connected | Status::Failing | Status::Reconnect, _) => ConnectionState::Connected,
            (Status::Revoked, _) => ConnectionState::Revoked,
        }
    }
}

/// Why a connection doesn't work, in words a person can act on. Holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault, and whether it may pass (DESIGN §5).
    pub kind: FailureKind,
    /// The provider's OAuth error code, where it gave one.
    pub code: Option<String>,
    /// One plain sentence: what happened.
    pub message: String,
    /// One plain sentence: what to do.
    pub remedy: String,
    /// When it happened, Unix milliseconds.
    pub at: i64,
    /// When Keyholder tries again by itself, Unix milliseconds.
    pub next_try_at: Option<i64>,
}

/// How often renewal failed in a row, by kind. A success clears all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// The set-up was wrong.
    pub setup: i64,
    /// The grant was dead.
    pub grant: i64,
    /// It may pass.
    pub transient: i64,
}

impl Failures {
    /// Of all three kinds.
    pub fn all(&self) -> i64 {
        self.setup + self.grant + self.transient
    }

    /// Counts one more failure of `kind`.
    pub fn count(&mut self, kind: FailureKind) {
        match kind {
            FailureKind::Setup => self.setup += 1,
            FailureKind::Grant => self.grant += 1,
            FailureKind::Transient => self.transient += 1,
        }
    }
}

/// A claim on the right to renew (step 1 of renewal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// The process that holds it.
    pub owner: String,
    /// After this the owner's request is no longer in flight, Unix milliseconds.
    pub deadline: i64,
}

/// What a connection keeps sealed beside its tokens.
pub type SecretInput = std::collections::BTreeMap<String, Secret>;

/// One row of `connections`, its sealed columns still sealed.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Unique in the tenant.
    pub name: String,
    /// The integration it stands under.
    pub integration: IntegrationId,
    /// Who the grant belongs to, in the application's words.
    pub owner: Option<String>,
    /// User name of the password grant.
    pub username: Option<String>,
    /// Free labels.
    pub tags: Values,
    /// Values of the variables asked of the connection that are no secrets.
    pub variables: Values,
    /// Sealed [`SecretInput`]: password and secret variables.
    pub secrets: Option<Vec<u8>>,
    /// The state.
    pub state: ConnectionState,
    /// Sealed token set, under [`Self::generation`].
    pub token_set: Option<Vec<u8>>,
    /// Raised by every committed token set.
    pub generation: i64,
    /// When the access token expires, Unix milliseconds; `None`: not known.
    pub token_expires_at: Option<i64>,
    /// Scope that was granted.
    pub scope: Option<String>,
    /// The account at the provider, as far as it told.
    pub account: Option<String>,
    /// When the scheduler looks at it next, Unix milliseconds.
    pub due_at: Option<i64>,
    /// When a request with this generation's refresh token was sent whose outcome nobody knows, Unix milliseconds.
    pub lost_at: Option<i64>,
    /// When only a person could bring it back, as far as is known and if it isn't renewed before, Unix milliseconds.
    pub dies_at: Option<i64>,
    /// The claim that is held on it.
    pub attempt: Option<Attempt>,
    /// Failures in a row.
    pub failures: Failures,
    /// No renewal before this, Unix milliseconds (backoff, `Retry-After`).
    pub retry_at: Option<i64>,
    /// When the grant was made: by the last consent, or the first run of a grant that needs no person. Unix milliseconds.
    pub connected_at: Option<i64>,
    /// Last committed token set, Unix milliseconds.
    pub renewed_at: Option<i64>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

/// An entry of a connection's history.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its id.
    #[serde(serialize_with = "as_text")]
    pub id: EventId,
    /// When, Unix milliseconds.
    pub at: i64,
    /// What kind, a stable word (`renewed`, `failed`, `connected`, …).
    pub kind: String,
    /// What happened, in plain words.
    pub message: String,
}

/// Something that happened to a connection, for whoever listens.
#[derive(Clone, Debug)]
pub struct Happened {
    /// The event's id.
    pub id: EventId,
    /// Whose connection it is.
    pub tenant: Tenant,
    /// The connection.
    pub connection: ConnectionId,
    /// Its name; `None`: it is gone.
    pub name: Option<String>,
    /// When, Unix milliseconds.
    pub at: i64,
    /// What kind, a stable word.
    pub kind: String,
    /// What happened, in plain words.
    pub message: String,
}

impl Happened {
    /// Whether this caller may know of it.
    pub(crate) fn may_be_heard_by(&self, caller: &Caller) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        self.tenant == caller.tenant && caller.limits.refusal(&self.connection, name, Grip::Connection).is_none()
    }
}

fn as_text<S: serde::Serializer>(id: &EventId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(id.as_str())
}
