//! Operators: people who use the console. They sign in; what they do is done by a [`Caller`] like any other's, with the same checks and records.

mod link;
mod password;
mod people;
mod session;

pub use link::OperatorLink;
pub(crate) use password::{FORGOTTEN, Passwords};
pub use people::OperatorEdit;
pub(crate) use session::IDLE;
pub use session::SignedIn;

use crate::model::{Caller, Limits};
use crate::store::StoredOperator;

/// The caller that an operator is to everything else.
fn caller_of(stored: &StoredOperator) -> Caller {
    Caller {
        key: stored.operator.id.clone(),
        name: format!("{} (console)", stored.operator.name),
        tenant: stored.tenant.clone(),
        scopes: stored.operator.scopes.clone(),
        limits: Limits::default(),
        expires_at: None,
    }
}
