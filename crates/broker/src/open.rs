//! The broker, and how it starts.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use keyholder_provider::Catalogue;
use tokio::sync::{Notify, Semaphore};
use url::Url;

use crate::access::KeyCache;
use crate::audit::AuditLog;
use crate::clock::{Clock, Rng};
use crate::egress::Egress;
use crate::error::{Error, Result};
use crate::escrow::Escrow;
use crate::live::LiveTokens;
use crate::model::{AttemptId, AuditId, Caller, ConnectionId, Tenant};
use crate::plan::Discovered;
use crate::renew::Running;
use crate::store::{Location, NewAudit, Store};
use crate::vault::{RootKey, RootKeySource, Vault};

/// What the broker must know to start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where people and providers reach this server; callbacks begin with it.
    pub public_url: Url,
    /// Folder for escrow, and for the root key and database where nothing else is said.
    pub data_dir: PathBuf,
    /// The database.
    pub database: Location,
    /// The root key.
    pub root_key: RootKeySource,
}

/// The whole product without its ways in. Clones are handles on the same broker.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

/// A started broker, and what its operator should be told once.
pub struct Opened {
    /// The broker.
    pub broker: Broker,
    /// The root key was made just now: say that it must be backed up.
    pub new_root_key: bool,
    /// Replies in escrow that were committed.
    pub recovered: usize,
}

/// What all verbs share.
pub struct Inner {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) egress: Egress,
    pub(crate) catalogue: RwLock<Arc<Catalogue>>,
    pub(crate) audit: AuditLog,
    pub(crate) escrow: Escrow,
    pub(crate) keys: KeyCache,
    pub(crate) live: LiveTokens,
    pub(crate) discovered: Discovered,
    /// Renewals under way in this process; everybody who wants the same one waits for the same task.
    pub(crate) renewals: Mutex<HashMap<ConnectionId, Running>>,
    /// Replies in escrow of a process that died, not committed yet.
    pub(crate) left_behind: Mutex<HashMap<ConnectionId, AttemptId>>,
    /// How many renewals run at once at each token endpoint.
    pub(crate) endpoint_slots: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// Told when something may be due sooner than the scheduler thinks.
    pub(crate) due: Notify,
    /// Set when the process is stopping: no new renewal begins.
    pub(crate) stopping: AtomicBool,
    /// Names this process in claims.
    pub(crate) instance: String,
    /// Held as long as the process lives: two processes on one data folder would both think a claim's owner dead.
    _lock: std::fs::File,
}

impl Deref for Broker {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Broker {
    /// Opens store and vault, commits what waits in escrow, and is ready.
    ///
    /// # Errors
    /// A wrong or missing root key, a database of another version, a data folder that can't be written.
    pub async fn open(settings: Settings, clock: Clock, rng: Rng, egress: Egress) -> Result<Opened> {
        let lock = lock_folder(&settings.data_dir)?;
        let store = Store::open(&settings.database)?;
        let (root, new_root_key) = root_key(&store, &settings.root_key, &rng).await?;
        let wrapped = store.read(|tx| tx.data_keys()).await?;
        let vault = Vault::open(&root, &wrapped)?;
        drop(root);
        let instance = keyholder_oauth::random_token(rng.bytes()).expose()[..12].to_owned();
        let broker = Self(Arc::new(Inner {
            audit: AuditLog::start(store.clone(), clock.clone()),
            escrow: Escrow::open(&settings.data_dir)?,
            catalogue: RwLock::new(Arc::new(Catalogue::built_in())),
            keys: KeyCache::default(),
            live: LiveTokens::default(),
            discovered: Discovered::default(),
            renewals: Mutex::default(),
            left_behind: Mutex::default(),
            endpoint_slots: Mutex::default(),
            due: Notify::new(),
            stopping: AtomicBool::new(false),
            settings,
            clock,
            rng,
            store,
            vault,
            egress,
            instance,
            _lock: lock,
        }));
        broker.load_own_providers().await?;
        let recovered = broker.commit_escrow().await?;
        broker.reseal_in_background();
        Ok(Opened { broker, new_root_key, recovered })
    }

    /// Now, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Where people and providers reach this server.
    pub fn public_url(&self) -> &Url {
        &self.settings.public_url
    }

    /// Can the store be read? For the readiness probe.
    pub async fn ready(&self) -> Result<()> {
        Ok(self.store.read(|tx| tx.meta("ready").map(drop)).await?)
    }

    /// Writes down what a caller did or was refused.
    ///
    /// # Errors
    /// [`crate::Error::AuditUnavailable`]: then it must not happen.
    pub fn record(
        &self,
        caller: &Caller,
        action: &'static str,
        object: &str,
        outcome: &'static str,
        detail: Option<String>,
    ) -> Result<()> {
        self.record_as(&caller.tenant, &caller.name, action, object, outcome, detail)
    }

    /// As [`Self::record`], for what comes in bursts: waits for its turn when the audit is behind.
    pub(crate) async fn record_in_turn(
        &self,
        caller: &Caller,
        action: &'static str,
        object: &str,
        detail: Option<String>,
    ) -> Result<()> {
        self.audit.record_in_turn(self.new_audit(&caller.tenant, &caller.name, action, object, "ok", detail)).await
    }

    pub(crate) fn record_as(
        &self,
        tenant: &Tenant,
        actor: &str,
        action: &'static str,
        object: &str,
        outcome: &'static str,
        detail: Option<String>,
    ) -> Result<()> {
        self.audit.record(self.new_audit(tenant, actor, action, object, outcome, detail))
    }

    fn new_audit(
        &self,
        tenant: &Tenant,
        actor: &str,
        action: &'static str,
        object: &str,
        outcome: &'static str,
        detail: Option<String>,
    ) -> NewAudit {
        NewAudit {
            id: AuditId::new(&self.clock, &self.rng),
            tenant: tenant.clone(),
            at: self.now_ms(),
            actor: actor.to_owned(),
            action,
            object: object.chars().take(200).collect(),
            outcome,
            detail,
        }
    }
}

/// One process a data folder.
fn lock_folder(folder: &std::path::Path) -> Result<std::fs::File> {
    let path = folder.join("lock");
    let failed = |cause: String| Error::File { what: path.display().to_string(), cause };
    let file = std::fs::File::create(&path).map_err(|e| failed(e.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::FolderInUse(folder.display().to_string())),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(e.to_string())),
    }
}

/// Loads the root key; on a new store makes the key (where its source is a file) and the first data key.
async fn root_key(store: &Store, source: &RootKeySource, rng: &Rng) -> Result<(RootKey, bool)> {
    let new_store = store.read(|tx| tx.data_keys()).await?.is_empty();
    let (root, made) = source.load(rng, new_store)?;
    if new_store {
        let first = root.wrap_new(rng, 1)?;
        store.write(move |tx| tx.add_data_key(&first, 0)).await?;
    }
    Ok((root, made))
}
