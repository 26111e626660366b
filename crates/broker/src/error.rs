//! What went wrong: what the caller may know, whose fault it is, whether to try again. Knows no HTTP; no variant holds a secret.

use std::time::Duration;

use keyholder_oauth::{CallbackError, DiscoveryError, RequestError};
use keyholder_provider::{DefinitionError, RenderError, ValueError};

use crate::egress::EgressError;
use crate::model::{Failure, Fenced, Scope, Status};
use crate::store::StoreError;
use crate::vault::{RootKeyError, VaultError};

/// A field of the caller's input that can't be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Which field, as the caller named it.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl FieldError {
    /// One field, one reason, one remedy.
    pub fn new(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), remedy: remedy.into() }
    }
}

impl From<ValueError> for FieldError {
    fn from(error: ValueError) -> Self {
        Self::new(format!("variables.{}", error.variable), error.reason, error.remedy)
    }
}

/// Result of the verbs.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything a verb can answer instead of what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such thing, or not for this caller.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// What the caller named.
        name: String,
    },
    /// The input can't be taken.
    #[error("{}", list(.0))]
    Invalid(Vec<FieldError>),
    /// A provider definition has mistakes.
    #[error("the definition has {} mistake(s): {}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" · "))]
    Definition(Vec<DefinitionError>),
    /// The name is in use.
    #[error("there is already a {what} named `{name}`; choose another name")]
    Taken {
        /// Kind of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Others depend on it.
    #[error("the {what} `{name}` still has {by}; remove those first")]
    InUse {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// What depends on it.
        by: &'static str,
    },
    /// Somebody else changed it in between.
    #[error("the {0} was changed by somebody else at the same time; read it again and repeat your change")]
    ChangedMeanwhile(&'static str),
    /// No key, or none that is known.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The key lacks a scope.
    #[error("this API key lacks the scope `{}`; use a key that has it, or have one made", .0.as_str())]
    Forbidden(Scope),
    /// The key's limits forbid it.
    #[error("this API key is limited to other {0}s; use another key, or have its limits changed")]
    Limited(&'static str),
    /// The connection can't give a token now.
    #[error("{}", not_ready(.connection, *.state, .failure.as_ref()))]
    NotReady {
        /// Name of the connection.
        connection: String,
        /// Its state.
        state: Status,
        /// Why, where it is known.
        failure: Option<Failure>,
        /// Try again after this.
        retry_after: Option<Duration>,
    },
    /// A verb that this method has no use for.
    #[error("{0}")]
    NotPossible(String),
    /// Renewal goes on; this caller has waited long enough.
    #[error("the token is being renewed and the provider is slow; try again in a few seconds")]
    StillRenewing,
    /// The definition and its values make no request.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A request can't be built from what is stored.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The discovery document can't be used.
    #[error("discovery at {url}: {cause}")]
    Discovery {
        /// Where it was looked for, without a query.
        url: String,
        /// What was wrong with it.
        cause: DiscoveryError,
    },
    /// The discovery document could not be fetched.
    #[error("discovery: {0}; check the issuer, or give the endpoints by hand")]
    DiscoveryUnreachable(EgressError),
    /// The provider's answer was refused.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// The provider refused the code.
    #[error("{} {}", .0.message, .0.remedy)]
    Exchange(Failure),
    /// State, session, code or confirmation: unknown, used, or too old.
    #[error("{0}")]
    Gone(&'static str),
    /// Another browser than the one that began.
    #[error(
        "this link was opened in another browser than the one that began; begin again, and stay in one browser (cookies must be allowed)"
    )]
    WrongBrowser,
    /// `complete` was called for another owner than the one the session was made for.
    #[error(
        "this consent was begun for another owner; what was granted has been revoked. Complete only in the session of the user who began"
    )]
    WrongOwner,
    /// An API host that the definition doesn't name.
    #[error("credentials are not sent to `{host}`: the definition allows {}", if .allowed.is_empty() { "no host; set the API base URL".to_owned() } else { .allowed.join(", ") })]
    HostNotAllowed {
        /// The host that was asked for.
        host: String,
        /// The hosts that the definition names.
        allowed: Vec<String>,
    },
    /// A call that the data source's rules don't let pass.
    #[error("the data source `{data_source}` lets no {method} of {path} pass; see its `allow`, or have a rule added")]
    NotAllowed {
        /// Name of the data source.
        data_source: String,
        /// The method.
        method: String,
        /// The path below its base URL.
        path: String,
    },
    /// The API, or its definition, allows no call now; nothing was sent.
    #[error("{}", api_limited(.connection, *.said, *.retry_after))]
    ApiLimited {
        /// Name of the connection.
        connection: String,
        /// The API said so; else it is the pace that its definition names.
        said: bool,
        /// Try again after this.
        retry_after: Duration,
    },
    /// The key has made as many calls as its limits allow; nothing was sent.
    #[error("the API key `{key}` makes more calls than its limits allow; try again in {} s, or have its limits changed", whole_seconds(*.retry_after))]
    CallerLimited {
        /// Name of the key.
        key: String,
        /// Try again after this.
        retry_after: Duration,
    },
    /// The call was not over when its caller said it must be.
    #[error("the call was not over within {0:?}, as Keyholder-Timeout asks; it may have been acted on")]
    DeadlinePassed(Duration),
    /// The caller's request did not come to its end.
    #[error("{0}")]
    Unfinished(&'static str),
    /// An API could not be called.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sealing failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No root key.
    #[error("{0}")]
    RootKey(std::sync::Arc<RootKeyError>),
    /// The audit can't be written, so nothing leaves.
    #[error(
        "the audit or the figures of usage can't be written, so no token is handed out; check that the database's disk is writable and not full"
    )]
    AuditUnavailable,
    /// A file of the data folder can't be written.
    #[error("{what}: {cause}; check that the data folder exists, is writable and its disk is not full")]
    File {
        /// Which file or folder.
        what: String,
        /// Why.
        cause: String,
    },
    /// Another process works on the same data folder.
    #[error(
        "{0} is in use by another Keyholder; stop that one, or set KEYHOLDER_DATA_DIR (and KEYHOLDER_DATABASE_URL) to another place"
    )]
    FolderInUse(String),
    /// Nothing is renewed, begun or ended at a provider: this may be a copy of a live database.
    #[error(
        "this installation is fenced: {}; two copies would spend each other's refresh tokens, so valid tokens are handed out, but nothing is renewed, \
         authorised or revoked until an operator has said which copy is live: run `keyholder doctor --live` here if it is this one",
        .0.reason.message()
    )]
    Fenced(Fenced),
    /// Data folder and database belong to different clusters.
    #[error(
        "the data folder {folder} belongs to the cluster {own}, but the database is that of {found}: two were mixed up. \
         Correct KEYHOLDER_DATABASE_URL or KEYHOLDER_DATA_DIR; to use the folder with this database all the same, move {file} away first \
         (replies in the folder's escrow are the other cluster's)"
    )]
    OtherCluster {
        /// The data folder.
        folder: String,
        /// The file in it that names its cluster.
        file: String,
        /// The folder's cluster.
        own: String,
        /// The database's.
        found: String,
    },
    /// The program contradicts itself; a bug.
    #[error("internal error: {0}; please report it")]
    Internal(&'static str),
}

/// One error of one field.
pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::Invalid(vec![FieldError::new(field, reason, remedy)])
}

impl Error {
    /// A thing of this kind and name isn't there.
    pub(crate) fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Error::NotFound { what, name: name.into().chars().take(120).collect() }
    }
}

impl From<RootKeyError> for Error {
    fn from(error: RootKeyError) -> Self {
        Error::RootKey(std::sync::Arc::new(error))
    }
}

fn list(errors: &[FieldError]) -> String {
    errors.iter().map(|e| format!("{}: {}; {}", e.field, e.reason, e.remedy)).collect::<Vec<_>>().join(" · ")
}

/// At least one: who comes again at once finds the same.
fn whole_seconds(wait: Duration) -> u128 {
    wait.as_millis().div_ceil(1000).max(1)
}

fn api_limited(connection: &str, said: bool, retry_after: Duration) -> String {
    let seconds = retry_after.as_secs_f64().ceil();
    let why = match said {
        true => "the API has said that it takes no calls",
        false => "more calls are waiting than the API takes, by its definition's `api.limits`,",
    };
    format!("`{connection}` was not called: {why} for {seconds} s; try again then")
}

fn not_ready(connection: &str, state: Status, failure: Option<&Failure>) -> String {
    let why = match (state, failure) {
        (_, Some(failure)) => {
            return format!("`{connection}` has no valid token: {} {}", failure.message, failure.remedy);
        }
        (Status::Draft, None) => "it has not been authorised yet; authorise it first",
        (Status::Pending, None) => "its consent is not complete; the person must finish it in the browser",
        (Status::Revoked, None) => "it was revoked; authorise it again to use it",
        (Status::Connected | Status::Failing | Status::Reconnect, None) => {
            "its access token has expired and can't be renewed without a person; authorise it again"
        }
    };
    format!("`{connection}` has no token: {why}")
}
