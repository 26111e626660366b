//! Operators: people who use the console. They sign in by password or passkey; what they do is done by a [`Caller`] like any other's, with the same checks and records.

mod link;
mod passkey;
mod passkeys;
mod password;
mod people;
mod session;

pub use link::OperatorLink;
pub use passkeys::PasskeyQuestion;
pub(crate) use password::{FORGOTTEN, Passwords};
pub use people::OperatorEdit;
pub(crate) use session::IDLE;
pub use session::SignedIn;

use keyholder_oauth::Secret;

use crate::model::{Caller, Limits};
use crate::store::StoredOperator;

/// What somebody shows to be who they say.
pub enum Proof {
    /// A password.
    Password(Secret),
    /// A browser's answer for a passkey, as the console's script sends it.
    Passkey(Secret),
}

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
