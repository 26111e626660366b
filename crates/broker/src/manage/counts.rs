//! How much there is of what.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::model::Caller;
use crate::open::Broker;

/// How much there is of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections by the word of their state; states that none is in are left out.
    pub states: BTreeMap<String, i64>,
    /// Integrations.
    pub integrations: i64,
    /// Data sources.
    pub sources: i64,
    /// Live API keys.
    pub keys: i64,
}

impl Counts {
    /// How many connections are in this state.
    pub fn of(&self, state: &str) -> i64 {
        self.states.get(state).copied().unwrap_or(0)
    }
}

/// How much there is of what, counted to 1,000 at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Connections.
    pub connections: i64,
    /// Integrations.
    pub integrations: i64,
    /// Data sources.
    pub sources: i64,
    /// Live API keys.
    pub keys: i64,
}

impl Broker {
    /// How much there is of what, in the caller's tenant, for a menu: it looks at a thousand of each at most.
    pub async fn tallies(&self, caller: &Caller) -> Result<Tallies> {
        let tenant = caller.tenant.clone();
        let [connections, integrations, sources, keys] = self.store.read(move |tx| tx.tallies(&tenant)).await?;
        Ok(Tallies { connections, integrations, sources, keys })
    }

    /// How much there is of what, in the caller's tenant.
    pub async fn counts(&self, caller: &Caller) -> Result<Counts> {
        let tenant = caller.tenant.clone();
        let counted = self.store.read(move |tx| {
            let states = tx.count_by_state(&tenant)?.into_iter().collect();
            let (integrations, sources, keys) = tx.counts(&tenant)?;
            Ok(Counts { states, integrations, sources, keys })
        });
        Ok(counted.await?)
    }
}
