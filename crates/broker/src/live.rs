//! Tokens in memory: what the fresh path reads. No SQL, no deciphering, no lock that another connection shares.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use keyholder_oauth::{SecondaryToken, Secret, SecretBytes, TokenSet};
use papaya::Equivalent;
use tokio::sync::{OnceCell, watch};

use crate::Map;
use crate::error::Result;
use crate::gateway::ApiAccess;
use crate::model::{Connection, ConnectionId, IntegrationId, Tenant};
use crate::open::Broker;
use crate::unconfirmed::Unconfirmed;

/// A connection's token set, opened.
pub(crate) struct Live {
    pub(crate) id: ConnectionId,
    pub(crate) tenant: Tenant,
    pub(crate) integration: IntegrationId,
    pub(crate) name: String,
    pub(crate) generation: i64,
    pub(crate) access_token: Secret,
    pub(crate) token_type: String,
    /// More tokens of the same grant.
    pub(crate) secondary: BTreeMap<String, LiveSecondary>,
    /// Unix milliseconds; `None`: the provider didn't say, so a 401 decides.
    pub(crate) expires_at: Option<i64>,
    pub(crate) renewed_at: i64,
    pub(crate) scope: Option<String>,
    /// When the API answered 401 to this token although a 401 had it renewed, Unix milliseconds; far in the past when it never did.
    pub(crate) unhelped_at: AtomicI64,
    /// How its API is called; made at the first gateway call.
    pub(crate) api: OnceCell<ApiAccess>,
    /// What is written for whoever asks for the token; made at the first hand-out.
    pub(crate) written: OnceLock<SecretBytes>,
}

/// A secondary token, opened.
pub(crate) struct LiveSecondary {
    pub(crate) access_token: Secret,
    pub(crate) token_type: String,
    /// Unix milliseconds; `None`: the provider didn't say.
    pub(crate) expires_at: Option<i64>,
    pub(crate) scope: Option<String>,
    /// It has a refresh token of its own; others come with the main token's renewal.
    pub(crate) renewed_by_itself: bool,
}

impl LiveSecondary {
    /// Valid at `at` (Unix milliseconds), as far as is known?
    pub(crate) fn is_valid_at(&self, at: i64) -> bool {
        self.expires_at.is_none_or(|expires| expires > at)
    }
}

impl Live {
    /// Valid at `at` (Unix milliseconds), as far as is known?
    pub(crate) fn is_valid_at(&self, at: i64) -> bool {
        self.expires_at.is_none_or(|expires| expires > at)
    }

    /// The same of all secondary tokens.
    pub(crate) fn secondaries_are_valid_at(&self, at: i64) -> bool {
        self.secondary.values().all(|it| it.is_valid_at(at))
    }
}

/// The live tokens, by id. A name leads to an id, and counts only as long as what is there has that name.
#[derive(Default)]
pub(crate) struct LiveTokens {
    by_id: Map<ConnectionId, Arc<Live>>,
    names: Map<(String, String), ConnectionId>,
    /// Told when a connection's token is taken out because the connection has changed.
    forgotten: watch::Sender<()>,
}

/// Tenant and name, as a look-up has them: nothing is copied for it.
#[derive(Hash)]
struct NameKey<'a>(&'a str, &'a str);

impl Equivalent<(String, String)> for NameKey<'_> {
    fn equivalent(&self, key: &(String, String)) -> bool {
        (self.0, self.1) == (key.0.as_str(), key.1.as_str())
    }
}

impl LiveTokens {
    /// The token of this id or name.
    pub(crate) fn find(&self, tenant: &Tenant, id_or_name: &str) -> Option<Arc<Live>> {
        let by_id = self.by_id.pin();
        if ConnectionId::is(id_or_name) {
            return by_id.get(id_or_name).filter(|live| live.tenant == *tenant).cloned();
        }
        let names = self.names.pin();
        let id = names.get(&NameKey(tenant.as_str(), id_or_name))?;
        by_id.get(id).filter(|live| live.name == id_or_name && live.tenant == *tenant).cloned()
    }

    /// Puts a token set in, unless a newer one is there.
    pub(crate) fn put(&self, live: &Arc<Live>) {
        let newer =
            |there: &Arc<Live>| if there.generation > live.generation { Arc::clone(there) } else { Arc::clone(live) };
        self.by_id.pin().update_or_insert_with(live.id.clone(), newer, || Arc::clone(live));
        self.names.pin().insert(name_key(live), live.id.clone());
    }

    /// Takes a connection's token out of memory. Its name leads nowhere then.
    pub(crate) fn forget(&self, id: &ConnectionId) {
        self.by_id.pin().remove(id);
        self.forgotten.send_replace(());
    }

    /// Changes whenever a connection may have ended, be it in this process or another.
    pub(crate) fn forgotten(&self) -> watch::Receiver<()> {
        self.forgotten.subscribe()
    }

    /// Takes a connection's token out unless it is of this generation or a later one.
    pub(crate) fn forget_before(&self, id: &ConnectionId, generation: i64) {
        let older = |_: &ConnectionId, live: &Arc<Live>| live.generation < generation;
        // Another token set may come in between, so it is looked at where it is taken out.
        let _ = self.by_id.pin().remove_if(id, older);
    }

    /// Takes out the tokens of an integration's connections: how they are called may have changed.
    pub(crate) fn forget_of(&self, integration: &IntegrationId) {
        self.by_id.pin().retain(|_, live| live.integration != *integration);
    }

    /// Takes out everything.
    pub(crate) fn forget_all(&self) {
        self.by_id.pin().clear();
        self.names.pin().clear();
        self.forgotten.send_replace(());
    }

    /// Takes out what has expired by `now`, so that memory follows use.
    pub(crate) fn drop_expired(&self, now: i64) {
        let by_id = self.by_id.pin();
        by_id.retain(|_, live| live.is_valid_at(now));
        self.names.pin().retain(|_, id| by_id.contains_key(id));
    }
}

impl Broker {
    /// Opens a row's token set; `None` when it has none.
    pub(crate) fn live_of(&self, row: &Connection) -> Result<Option<Arc<Live>>> {
        let Some(sealed) = &row.token_set else { return Ok(None) };
        let tokens = self.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed)?;
        Ok(Some(Arc::new(to_live(row, row.generation, row.renewed_at.unwrap_or(0), row.scope.clone(), &tokens))))
    }

    /// Puts a token set into memory, unless its row has moved on: a revocation between reading the row and this must win.
    pub(crate) async fn publish(&self, live: &Arc<Live>) {
        self.live.put(live);
        let unconfirmed = Unconfirmed::new(|| self.live.forget(&live.id));
        let id = live.id.clone();
        let row = self.store.read(move |tx| tx.connection_by_id(&id)).await;
        // After the look, whoever changes the row takes its token out of memory by himself.
        if row.is_ok_and(|row| row.is_some_and(|row| row.generation == live.generation)) {
            unconfirmed.confirm();
        }
    }
}

/// A token set as it is kept in memory.
pub(crate) fn to_live(
    row: &Connection,
    generation: i64,
    renewed_at: i64,
    scope: Option<String>,
    tokens: &TokenSet,
) -> Live {
    Live {
        id: row.id.clone(),
        tenant: row.tenant.clone(),
        integration: row.integration.clone(),
        name: row.name.clone(),
        generation,
        access_token: tokens.access_token.clone(),
        token_type: tokens.token_type.clone(),
        secondary: tokens.secondary.iter().map(|(name, token)| (name.clone(), live_secondary(token))).collect(),
        expires_at: tokens.expires_at,
        renewed_at,
        scope,
        unhelped_at: AtomicI64::new(i64::MIN),
        api: OnceCell::new(),
        written: OnceLock::new(),
    }
}

fn live_secondary(token: &SecondaryToken) -> LiveSecondary {
    LiveSecondary {
        access_token: token.access_token.clone(),
        token_type: token.token_type.clone(),
        expires_at: token.expires_at,
        scope: token.scope.as_ref().map(|scope| scope.join(" ")),
        renewed_by_itself: token.refresh_token.is_some(),
    }
}

fn name_key(live: &Live) -> (String, String) {
    (live.tenant.as_str().to_owned(), live.name.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Rng};

    #[test]
    fn a_name_leads_only_to_what_is_there_and_bears_it() {
        let (clock, rng, tenant) = (Clock::System, Rng::seeded(1), Tenant::default_tenant());
        let live = |generation| {
            Arc::new(Live {
                id: ConnectionId::new(&clock, &rng),
                tenant: tenant.clone(),
                integration: IntegrationId::new(&clock, &rng),
                name: "crm".to_owned(),
                generation,
                access_token: Secret::new("at"),
                token_type: "Bearer".to_owned(),
                secondary: BTreeMap::new(),
                expires_at: None,
                renewed_at: 0,
                scope: None,
                unhelped_at: AtomicI64::new(i64::MIN),
                api: OnceCell::new(),
                written: OnceLock::new(),
            })
        };
        let tokens = LiveTokens::default();
        let (old, new) = (live(7), live(1));
        tokens.put(&old);
        tokens.forget(&old.id);
        assert!(tokens.find(&tenant, "crm").is_none());
        // Another connection took the name; its generation counts from one.
        tokens.put(&old);
        tokens.put(&new);
        assert_eq!(tokens.find(&tenant, "crm").unwrap().id, new.id);
        tokens.forget(&old.id);
        assert_eq!(tokens.find(&tenant, "crm").unwrap().id, new.id);
    }
}
