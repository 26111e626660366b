//! What Keyholder does: a sealed store, renewal, consent, hand-out, gateway.
//!
//! [`Broker`] is the whole product without its ways in: no HTTP server, no templates, no command line. The verbs are methods on it, a file each.
//! Modules stand in this order and use only what stands before them:
//!
//! `clock` → `points` → `trust` → `model` → `vault` → `store` → `egress` → `error` → `unconfirmed` → `audit`, `usage`, `escrow`, `fence` → `redact`, `cause`, `trace` (what a test shows) → `open` (the struct, and how it starts) → `access` →
//! `definitions` → `manage` (providers, integrations, connections) → `plan` (a connection's definition with its values) → `learn` → `endpoints` → `token_set` → `allowance` (what an API allows) → `live` (tokens in
//! memory) →
//! `settle` (what is asked once a token set is safe) → `renew` → `recover` → `follow` → `token` → `watch` → `connect` → `revoke` → `gateway` → `source` (data sources) → `test` → `idempotency` → `seal` → `ends` → `operator` (people of the console) → `scheduler` → `doctor` → `advice` (what is worth a look), `branding`.

#![allow(
    clippy::result_large_err,
    reason = "an error says all that a person needs, and is made once a request, where boxes would save nothing"
)]

mod access;
mod advice;
mod allowance;
mod audit;
mod branding;
mod cause;
pub mod clock;
mod connect;
mod definitions;
mod doctor;
pub mod egress;
mod endpoints;
mod ends;
mod error;
mod escrow;
mod explain;
mod fence;
mod follow;
mod gateway;
mod idempotency;
mod learn;
mod live;
mod manage;
pub mod model;
mod open;
mod operator;
mod plan;
pub mod points;
mod recover;
mod redact;
mod renew;
mod revoke;
mod scheduler;
mod seal;
mod settle;
#[cfg(test)]
mod simulation;
mod source;
pub mod store;
mod test;
mod token;
mod token_set;
mod trace;
mod trust;
mod unconfirmed;
mod usage;
pub mod vault;
mod watch;

/// A map without a lock, with a quick hash. The hash is seeded anew in each process, and what stands in such maps is ours.
pub(crate) type Map<K, V> = papaya::HashMap<K, V, foldhash::fast::RandomState>;

pub use access::{LastKey, MadeKey};
pub use advice::{Advice, On, Severity, writes};
pub use audit::{AuditFilter, AuditPage, AuditPart, AuditRow};
pub use branding::{Branding, Color, Logo};
pub use cause::{Cause, Difference, redirect_difference};
pub use connect::{
    Authorize, Begun, Completed, CompletedBy, DeviceCode, Finished, NewConnectSession, OpenSession, Question,
    SessionLink, View,
};
pub use doctor::{Check, Verdict};
pub use endpoints::Pace;
pub use error::{Error, FieldError, Result};
pub use fence::Instance;
pub use gateway::{ProxyRequest, Reply};
pub use idempotency::{Idempotency, KeptReply};
pub use manage::{
    ConnectionEdit, Counts, IntegrationEdit, MadeSource, Meaning, NewConnection, NewIntegration, NewSource, NewVersion,
    Page, ProviderVersion, SetUp, ShownConnection, ShownProvider, ShownSource, SourceEdit, Tallies, Upgrade,
    VariableEdit, Wanted,
};
pub use open::{Broker, Opened, Retention, Settings};
pub use operator::{OperatorEdit, OperatorLink, PasskeyQuestion, Proof, SignedIn};
pub use renew::RenewalNote;
pub use revoke::{RevocationAhead, RevocationOutcome};
pub use seal::SealStatus;
pub use source::{Preview, RunReply, SourceRun, Tried};
pub use test::{TestReport, TestStep, TestWish};
pub use token::{AtHand, HandedToken};
pub use trace::{Exchange, Shown};
pub use usage::{UsageFilter, UsageLine, UsagePage};
pub use watch::{Heard, Watch};
