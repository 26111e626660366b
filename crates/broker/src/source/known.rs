//! Data sources in memory, and the connection behind each call of one.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use papaya::Equivalent;
use tokio::sync::watch;

use super::fill::Filling;
use super::read::ReadSource;
use crate::Map;
use crate::error::{Error, Result};
use crate::gateway::SourceAccess;
use crate::live::Live;
use crate::model::{
    Behind, Caller, Connection, ConnectionId, DataSource, Grip, IntegrationId, KeyId, SourceId, Status, Tenant, Values,
};
use crate::open::Broker;
use crate::plan::{all_values, read_secrets, source_place};
use crate::store::{OwnConnection, StoreResult, Tx};
use crate::unconfirmed::Unconfirmed;

/// The data sources that were called, by name as callers write it.
#[derive(Default)]
pub(crate) struct KnownSources {
    by_name: Map<Named, Arc<KnownSource>>,
    /// Which connection is a caller's own.
    own: Map<Own, ConnectionId>,
    /// How often those were forgotten.
    own_forgotten: AtomicU64,
    /// Told when a data source is taken out because it has changed.
    forgotten: watch::Sender<()>,
}

/// A data source with what was made of it for each connection.
pub(crate) struct KnownSource {
    pub(crate) read: ReadSource,
    /// It counts as long as the connection is held in memory as it was then: what is renewed or edited is held anew.
    accesses: Map<ConnectionId, (Weak<Live>, Arc<SourceAccess>)>,
}

#[derive(PartialEq, Eq)]
struct Named {
    tenant: String,
    name: String,
}

struct NamedRef<'a> {
    tenant: &'a str,
    name: &'a str,
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NamedRef { tenant: &self.tenant, name: &self.name }.hash(state);
    }
}

impl Hash for NamedRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.tenant, self.name).hash(state);
    }
}

impl Equivalent<Named> for NamedRef<'_> {
    fn equivalent(&self, key: &Named) -> bool {
        self.tenant == key.tenant && self.name == key.name
    }
}

/// Whose connection is looked for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Own {
    integration: IntegrationId,
    owner: Option<String>,
    /// The key, where it is limited to some connections.
    key: Option<KeyId>,
}

impl KnownSources {
    fn find(&self, tenant: &Tenant, name: &str) -> Option<Arc<KnownSource>> {
        self.by_name.pin().get(&NamedRef { tenant: tenant.as_str(), name }).cloned()
    }

    /// Takes a data source out of memory.
    pub(crate) fn forget(&self, id: &SourceId) {
        self.by_name.pin().retain(|_, known| known.read.source.id != *id);
        self.forgotten.send_replace(());
    }

    /// Changes whenever a data source may have changed, be it in this process or another.
    pub(crate) fn forgotten(&self) -> watch::Receiver<()> {
        self.forgotten.subscribe()
    }

    /// A connection came or went: whose own is which must be looked at again.
    pub(crate) fn forget_own(&self) {
        self.own_forgotten.fetch_add(1, Ordering::AcqRel);
        self.own.pin().clear();
    }

    /// Takes out everything.
    pub(crate) fn forget_all(&self) {
        self.by_name.pin().clear();
        self.forget_own();
        self.forgotten.send_replace(());
    }

    /// Takes out what was made for connections that are no longer in memory.
    pub(crate) fn drop_idle(&self) {
        for known in self.by_name.pin().values() {
            known.accesses.pin().retain(|_, (live, _)| live.strong_count() > 0);
        }
    }
}

impl Broker {
    /// The data source of this id or name with its texts parsed, from memory where it is there.
    pub(crate) async fn known_source(&self, caller: &Caller, id_or_name: &str) -> Result<Arc<KnownSource>> {
        let is_current = self.follower.is_current(self.now_ms());
        let found = if is_current { self.sources.find(&caller.tenant, id_or_name) } else { None };
        let known = match found {
            Some(known) => known,
            None => Box::pin(self.found_source(&caller.tenant, id_or_name)).await?,
        };
        let source = &known.read.source;
        self.require_source(caller, &source.id, &source.name)?;
        Ok(known)
    }

    async fn found_source(&self, tenant: &Tenant, id_or_name: &str) -> Result<Arc<KnownSource>> {
        let found = if self.is_current().await { self.sources.find(tenant, id_or_name) } else { None };
        match found {
            Some(known) => Ok(known),
            None => self.load_source(tenant, id_or_name).await,
        }
    }

    async fn load_source(&self, tenant: &Tenant, id_or_name: &str) -> Result<Arc<KnownSource>> {
        let source = self.opened_source(tenant, id_or_name).await?;
        let (id, generation) = (source.id.clone(), source.generation);
        let known = Arc::new(KnownSource { read: ReadSource::read(source)?, accesses: Map::default() });
        let named = Named { tenant: tenant.as_str().to_owned(), name: id_or_name.to_owned() };
        self.sources.by_name.pin().insert(named, Arc::clone(&known));
        let unconfirmed = Unconfirmed::new(|| self.sources.forget(&id));
        // Changed between the look and the insert, the old one would live on in memory: look again.
        let (tenant, name) = (tenant.clone(), id_or_name.to_owned());
        let again = self.store.read(move |tx| tx.source(&tenant, &name)).await;
        if again.is_ok_and(|row| row.is_some_and(|(row, _)| row.id == id && row.generation == generation)) {
            unconfirmed.confirm();
        }
        Ok(known)
    }

    /// The data source of this id or name, its secrets opened.
    pub(crate) async fn opened_source(&self, tenant: &Tenant, id_or_name: &str) -> Result<DataSource> {
        let (of, name) = (tenant.clone(), id_or_name.to_owned());
        let (mut source, sealed) = self
            .store
            .read(move |tx| tx.source(&of, &name))
            .await?
            .ok_or_else(|| Error::not_found("data source", id_or_name))?;
        self.know_keys([sealed.as_ref()]).await?;
        if let Some(sealed) = sealed {
            let place = source_place(&source.tenant, source.id.as_str(), source.generation);
            source.secrets = read_secrets(&self.vault.open_value(&place, &sealed)?)?;
        }
        Ok(source)
    }

    /// How a data source is called through this connection; worked out once as long as the connection is held in memory.
    pub(crate) async fn source_access(&self, known: &KnownSource, live: &Arc<Live>) -> Result<Arc<SourceAccess>> {
        let made = known.accesses.pin().get(&live.id).cloned();
        if let Some((_, access)) = made.filter(|(of, _)| of.as_ptr() == Arc::as_ptr(live)) {
            return Ok(access);
        }
        Box::pin(self.fill_access(known, live)).await
    }

    async fn fill_access(&self, known: &KnownSource, live: &Arc<Live>) -> Result<Arc<SourceAccess>> {
        let api = self.api_access(live).await?;
        let behind = self.values_behind(known, live, &Values::new(), Vec::new()).await?;
        let access = Filling::new(&known.read, &Values::new(), &behind).access(&api.api)?;
        let access = Arc::new(access);
        known.accesses.pin().insert(live.id.clone(), (Arc::downgrade(live), Arc::clone(&access)));
        Ok(access)
    }

    /// The values of the connection and its integration, and what the provider said; nothing where the source has all that it needs in every call, and these names beside.
    pub(super) async fn values_behind(
        &self,
        known: &KnownSource,
        live: &Live,
        arguments: &Values,
        names: Vec<&str>,
    ) -> Result<Values> {
        let spec = &known.read.source.spec;
        let has = |name: &str| {
            let own = spec.variables.get(name).is_some_and(|it| it.value.is_some());
            own || known.read.source.secrets.contains_key(name) || arguments.contains_key(name)
        };
        let base = known.read.base_names().into_iter().map(|(name, _)| name);
        if base.chain(known.read.shared_names()).chain(names).all(has) {
            return Ok(Values::new());
        }
        let id = live.id.clone();
        let row = self
            .store
            .read(move |tx| tx.connection_by_id(&id))
            .await?
            .ok_or_else(|| Error::not_found("connection", live.name.as_str()))?;
        self.values_of(&row).await
    }

    /// The same of a row.
    pub(crate) async fn values_of(&self, row: &Connection) -> Result<Values> {
        self.know_keys([row.secrets.as_ref(), row.token_set.as_ref()]).await?;
        let integration = self.opened_integration(&row.integration).await?;
        let tokens = match &row.token_set {
            Some(sealed) => Some(self.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed)?),
            None => None,
        };
        Ok(all_values(&integration, &row.variables, &self.connection_secrets(row)?, tokens.as_ref()))
    }

    /// The connection through which this caller reaches a data source.
    pub(crate) async fn connection_behind(
        &self,
        caller: &Caller,
        source: &DataSource,
        owner: Option<&str>,
    ) -> Result<Arc<Live>> {
        match &source.behind {
            Behind::Connection(id) => self.live_behind(caller, id).await,
            Behind::EachCallers(integration) => Box::pin(self.own_behind(caller, source, integration, owner)).await,
        }
    }

    async fn own_behind(
        &self,
        caller: &Caller,
        source: &DataSource,
        integration: &IntegrationId,
        owner: Option<&str>,
    ) -> Result<Arc<Live>> {
        let limited = !caller.limits.connections.is_empty();
        let wanted = Own {
            integration: integration.clone(),
            owner: owner.map(str::to_owned),
            key: limited.then(|| caller.key.clone()),
        };
        let known = if self.is_current().await { self.sources.own.pin().get(&wanted).cloned() } else { None };
        if let Some(id) = known {
            match self.live_behind(caller, &id).await {
                // Gone, or ended: another may be the one that is in use now.
                Err(Error::NotFound { .. } | Error::NotReady { .. }) => self.sources.forget_own(),
                found => return found,
            }
        }
        let looked_at = self.sources.own_forgotten.load(Ordering::Acquire);
        let id = self.find_own(caller, source, &wanted).await?;
        let live = self.live_behind(caller, &id).await?;
        self.sources.own.pin().insert(wanted.clone(), id);
        if self.sources.own_forgotten.load(Ordering::Acquire) != looked_at {
            // A connection came or went since the look.
            self.sources.own.pin().remove(&wanted);
        }
        Ok(live)
    }

    /// The same as its row, whatever state it is in.
    pub(super) async fn row_behind(
        &self,
        caller: &Caller,
        source: &DataSource,
        owner: Option<&str>,
    ) -> Result<Connection> {
        let id = match &source.behind {
            Behind::Connection(id) => id.clone(),
            Behind::EachCallers(integration) => {
                let limited = !caller.limits.connections.is_empty();
                let key = limited.then(|| caller.key.clone());
                let wanted = Own { integration: integration.clone(), owner: owner.map(str::to_owned), key };
                self.find_own(caller, source, &wanted).await?
            }
        };
        let (tenant, wanted) = (caller.tenant.clone(), id.clone());
        let row = self.store.read(move |tx| tx.connection(&tenant, wanted.as_str())).await?;
        let row = row.ok_or_else(|| Error::not_found("connection", id.as_str()))?;
        self.require_grip(caller, &row.id, &row.name, Grip::Reached)?;
        self.know_keys([row.secrets.as_ref(), row.token_set.as_ref()]).await?;
        Ok(row)
    }

    /// The one connection that fits; of several, the one that is in use.
    async fn find_own(&self, caller: &Caller, source: &DataSource, wanted: &Own) -> Result<ConnectionId> {
        let (tenant, names, looked_for) = (caller.tenant.clone(), caller.limits.connections.clone(), wanted.clone());
        let read = move |tx: &Tx<'_>| -> StoreResult<Vec<OwnConnection>> {
            if names.is_empty() {
                return tx.own_connections(&tenant, &looked_for.integration, looked_for.owner.as_deref());
            }
            let mut found = Vec::new();
            for name in &names {
                found.extend(tx.connection(&tenant, name)?.filter(|it| it.integration == looked_for.integration));
            }
            found.retain(|it| looked_for.owner.is_none() || it.owner == looked_for.owner);
            let own = |it: Connection| OwnConnection { id: it.id, status: it.state.status() };
            let mut own: Vec<_> = found.into_iter().map(own).collect();
            own.dedup_by(|a, b| a.id == b.id);
            Ok(own)
        };
        let found = self.store.read(read).await?;
        let in_use = |it: &&OwnConnection| matches!(it.status, Status::Connected | Status::Failing | Status::Reconnect);
        let used: Vec<_> = found.iter().filter(in_use).collect();
        match (used.as_slice(), found.as_slice()) {
            ([one], _) => return Ok(one.id.clone()),
            ([], [one]) => return Ok(one.id.clone()),
            _ => {}
        }
        let whose = match &wanted.owner {
            Some(owner) => format!("of the owner `{}`", owner.chars().take(100).collect::<String>()),
            None => "that this caller may use".to_owned(),
        };
        let (what, remedy) = match (found.is_empty(), &wanted.owner) {
            (true, _) => ("none", "have it authorised first"),
            (false, None) => ("more than one", "name its owner in the header `Keyholder-Owner`"),
            (false, Some(_)) => ("more than one", "use a key that is limited to the one that is meant"),
        };
        Err(Error::NotPossible(format!(
            "the data source `{}` is reached through each caller's own connection, and there is {what} {whose}; {remedy}",
            source.name
        )))
    }

    /// The token set of a connection that a data source leads to, if the key may reach that; what its limits say of the call is looked at then.
    async fn live_behind(&self, caller: &Caller, id: &ConnectionId) -> Result<Arc<Live>> {
        if self.follower.is_current(self.now_ms())
            && let Some(live) = self.live.find(&caller.tenant, id.as_str())
        {
            self.require_grip(caller, &live.id, &live.name, Grip::Reached)?;
            return Ok(live);
        }
        Box::pin(self.load_behind(caller, id)).await
    }

    async fn load_behind(&self, caller: &Caller, id: &ConnectionId) -> Result<Arc<Live>> {
        if self.is_current().await
            && let Some(live) = self.live.find(&caller.tenant, id.as_str())
        {
            self.require_grip(caller, &live.id, &live.name, Grip::Reached)?;
            return Ok(live);
        }
        let (tenant, wanted) = (caller.tenant.clone(), id.clone());
        let row = self
            .store
            .read(move |tx| tx.connection(&tenant, wanted.as_str()))
            .await?
            .ok_or_else(|| Error::not_found("connection", id.as_str()))?;
        self.require_grip(caller, &row.id, &row.name, Grip::Reached)?;
        self.know_keys([row.secrets.as_ref(), row.token_set.as_ref()]).await?;
        self.live_of_row(&row).await
    }
}
