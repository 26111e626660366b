//! The instance fence: a restored backup or a cloned database renews nothing until an operator says which copy is live.

use std::sync::{PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::model::Fenced;

/// What this process knows of the fence.
#[derive(Default)]
pub(crate) struct Fence {
    fenced: RwLock<Option<Fenced>>,
}

impl Fence {
    /// Asked before anything that a provider would take for the live copy's: renewal, consent, revocation.
    ///
    /// # Errors
    /// [`Error::Fenced`].
    pub(crate) fn check(&self) -> Result<()> {
        match self.state() {
            None => Ok(()),
            Some(fenced) => Err(Error::Fenced(fenced)),
        }
    }

    /// Why and since when, where it is fenced.
    pub(crate) fn state(&self) -> Option<Fenced> {
        *self.fenced.read().unwrap_or_else(PoisonError::into_inner)
    }
}
