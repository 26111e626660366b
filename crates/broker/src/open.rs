//! The broker, and how it starts.

use std::collections::HashMap;
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use keyholder_provider::Catalogue;
use tokio::sync::Notify;
use url::Url;

use crate::access::KeyCache;
use crate::advice::Computed;
use crate::allowance::{Allowances, KeyGates};
use crate::audit::{AuditLog, NewRecord};
use crate::clock::{Clock, Rng, millis};
use crate::definitions::Definitions;
use crate::egress::Egress;
use crate::endpoints::{Endpoints, Pace};
use crate::error::{Error, Result};
use crate::escrow::Escrow;
use crate::fence::Fence;
use crate::follow::Follower;
use crate::live::LiveTokens;
use crate::model::{AttemptId, Caller, ConnectionId, Fenced, Tenant};
use crate::operator::Passwords;
use crate::plan::Discovered;
use crate::points::Points;
use crate::renew::{Claims, Running};
use crate::source::KnownSources;
use crate::store::{Location, Store, StoreError};
use crate::trace::Traces;
use crate::usage::Usage;
use crate::vault::{RootKey, RootKeySource, Vault};
use crate::watch::Hub;

/// How often the readiness probe proves that the store can be written; also how long that may take.
const PROVE_WRITING_EVERY: Duration = Duration::from_secs(5);

/// At a stop, records and figures are waited for so long.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

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
    /// How fast one token endpoint is asked.
    pub pace: Pace,
    /// How long what happened is kept.
    pub retention: Retention,
    /// Where a test makes effects fail; nothing in release builds.
    pub points: Points,
}

/// How long what happened is kept; `None`: for ever.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Audit records.
    pub audit: Option<Duration>,
    /// Figures of usage.
    pub usage: Option<Duration>,
}

impl Default for Retention {
    /// The audit for ever, usage for 400 days: a year can be compared with the one before.
    fn default() -> Self {
        Self { audit: None, usage: Some(Duration::from_secs(400 * 24 * 3600)) }
    }
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
    /// This copy is fenced: nothing is renewed until an operator says which copy is live.
    pub fenced: Option<Fenced>,
}

/// What all verbs share.
pub struct Inner {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) egress: Egress,
    pub(crate) definitions: Definitions,
    pub(crate) audit: AuditLog,
    pub(crate) usage: Arc<Usage>,
    pub(crate) escrow: Escrow,
    pub(crate) fence: Fence,
    pub(crate) follower: Follower,
    pub(crate) keys: KeyCache,
    pub(crate) live: LiveTokens,
    pub(crate) allowances: Allowances,
    pub(crate) key_gates: KeyGates,
    pub(crate) sources: KnownSources,
    pub(crate) passwords: Passwords,
    pub(crate) discovered: Discovered,
    pub(crate) computed: Computed,
    /// Tests under way, which note what is exchanged.
    pub(crate) traces: Traces,
    /// Who listens to what happens.
    pub(crate) hub: Hub,
    /// Renewals under way in this process; everybody who wants the same one waits for the same task.
    pub(crate) renewals: Mutex<HashMap<ConnectionId, Running>>,
    /// What is known of other processes' renewals.
    pub(crate) claims: Claims,
    /// Replies in escrow of a process that died, not committed yet.
    pub(crate) left_behind: Mutex<HashMap<ConnectionId, Vec<AttemptId>>>,
    /// How token endpoints are asked.
    pub(crate) endpoints: Endpoints,
    /// Told when something may be due sooner than the scheduler thinks.
    pub(crate) due: Notify,
    /// Set when the process is stopping: no new renewal begins.
    pub(crate) stopping: AtomicBool,
    /// When the readiness probe last wrote, Unix milliseconds.
    written_at: AtomicI64,
    /// Names this process in claims.
    pub(crate) instance: String,
    /// Held as long as the process lives: two processes on one data folder would take each other's escrow, two on one SQLite file get in each other's way.
    _locks: Vec<fs::File>,
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
        make_private(&settings.data_dir)?;
        let mut locks = vec![lock(&settings.data_dir, &settings.data_dir.join("lock"))?];
        if let Location::Sqlite(database) = &settings.database {
            locks.push(lock(database, &beside(database))?);
        }
        let store = Store::open(&settings.database, clock.clone(), settings.points.clone())?;
        let fence = Fence::open(&settings.data_dir, &store, &rng).await?;
        let (root, new_root_key) = root_key(&store, &settings.root_key, &rng).await?;
        let wrapped = store.read(|tx| tx.data_keys()).await?;
        let vault = Vault::open(&root, &wrapped)?;
        drop(root);
        fence.join(&store, &rng).await?;
        let instance = keyholder_oauth::random_token(rng.bytes()).expose()[..12].to_owned();
        let audit = AuditLog::start(store.clone(), clock.clone(), rng.clone());
        let folder = fence.instance().await;
        let broker = Self(Arc::new(Inner {
            usage: Usage::start(store.clone(), clock.clone(), rng.clone(), audit.gate(), folder),
            audit,
            escrow: Escrow::open(&settings.data_dir, settings.points.clone())?,
            fence,
            follower: Follower::new(store.is_shared()),
            definitions: Definitions::new(built_in(&settings)),
            keys: KeyCache::default(),
            live: LiveTokens::default(),
            allowances: Allowances::default(),
            key_gates: KeyGates::default(),
            sources: KnownSources::default(),
            passwords: Passwords::default(),
            discovered: Discovered::default(),
            computed: Computed::default(),
            traces: Traces::default(),
            hub: Hub::default(),
            renewals: Mutex::default(),
            claims: Claims::default(),
            left_behind: Mutex::default(),
            endpoints: Endpoints::new(settings.pace),
            due: Notify::new(),
            stopping: AtomicBool::new(false),
            written_at: AtomicI64::new(i64::MIN),
            settings,
            clock,
            rng,
            store,
            vault,
            egress,
            instance,
            _locks: locks,
        }));
        let (now, claimed) = broker.store.read(|tx| Ok((tx.now_ms()?, tx.claimed()?))).await?;
        broker.claims.begin(&broker.clock, now, claimed);
        broker.load_own_providers().await?;
        broker.free_unanswered().await?;
        let recovered = broker.commit_escrow().await?;
        broker.reseal_in_background();
        let fenced = broker.fence.state();
        Ok(Opened { broker, new_root_key, recovered, fenced })
    }

    /// Now, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Where people and providers reach this server.
    pub fn public_url(&self) -> &Url {
        &self.settings.public_url
    }

    /// Whether a sandbox in this process may be set up.
    pub fn may_open_sandbox(&self) -> bool {
        self.egress.has_room_for_sandbox()
    }

    /// Lets the sandbox in this process be called, at exactly this loopback address.
    ///
    /// # Errors
    /// [`Error::NotPossible`] where the configuration leaves no room for one.
    pub fn open_sandbox(&self, address: std::net::SocketAddr) -> Result<()> {
        match self.egress.admit_sandbox(address) {
            true => Ok(()),
            false => Err(Error::NotPossible(
                "this server starts no sandbox: it is switched off (`sandbox` in the configuration), or the public URL is none of this machine alone; run `keyholder sandbox` beside it".to_owned(),
            )),
        }
    }

    /// Why and since when nothing is renewed; `None`: it is.
    pub fn fenced(&self) -> Option<Fenced> {
        self.fence.state()
    }

    /// Can the store be read, and written? For the readiness probe, which may come often: a write is tried every few seconds.
    pub async fn ready(&self) -> Result<()> {
        self.store.read(|tx| tx.meta("ready").map(drop)).await?;
        let (now, written_at) = (self.now_ms(), self.written_at.load(Ordering::Relaxed));
        if now.saturating_sub(written_at) >= millis(PROVE_WRITING_EVERY) {
            let written = self.store.write(move |tx| tx.put_meta("ready", &now.to_string()));
            // A writer that hangs is no writer.
            self.clock.timeout(PROVE_WRITING_EVERY, written).await.unwrap_or(Err(StoreError::Closed))?;
            self.written_at.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes what is on the record and counted. Nothing is recorded any more, so nothing leaves: for a graceful stop, at its end.
    pub async fn finish_records(&self) {
        let written = async {
            self.audit.end().await;
            self.usage.flush().await;
        };
        if self.clock.timeout(WRITTEN_WITHIN, written).await.is_none() {
            let (records, figures) = (self.audit.unwritten(), self.usage.unwritten(self.now_ms()));
            tracing::error!(
                records,
                figures,
                "the database could not be written before the stop: so many records of the audit and figures of usage are lost"
            );
        }
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
        let Caller { tenant, key, name, .. } = caller;
        let new = NewRecord { tenant, key: Some(key), actor: name, action, object, outcome, detail };
        self.audit.record(self.now_ms(), new)
    }

    /// As [`Self::record`], of somebody who showed no key.
    pub(crate) fn record_person(
        &self,
        tenant: &Tenant,
        action: &'static str,
        object: &str,
        outcome: &'static str,
    ) -> Result<()> {
        let person = NewRecord { tenant, key: None, actor: "person", action, object, outcome, detail: None };
        self.audit.record(self.now_ms(), person)
    }
}

fn built_in(_settings: &Settings) -> Catalogue {
    #[cfg(test)]
    if _settings.points.simulated.is_some() {
        // Reading them takes as long as a thousand renewals.
        return Catalogue::new();
    }
    Catalogue::built_in()
}

/// One process a data folder, and one an SQLite file.
fn lock(what: &Path, path: &Path) -> Result<fs::File> {
    let failed = |cause: String| Error::File { what: path.display().to_string(), cause };
    let opened = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = opened.map_err(|e| failed(e.to_string()))?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|e| failed(e.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::FolderInUse(what.display().to_string())),
        Err(fs::TryLockError::Error(e)) => Err(failed(e.to_string())),
    }
}

/// `keyholder.db.lock` beside `keyholder.db`, wherever a symbolic link leads there from.
fn beside(database: &Path) -> PathBuf {
    let real = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let mut name = real.into_os_string();
    name.push(".lock");
    name.into()
}

/// What lies in these folders is nobody else's: the rights of group and others are taken away.
fn make_private(data_dir: &Path) -> Result<()> {
    for folder in [data_dir, &data_dir.join("escrow")] {
        let failed = |e: io::Error| Error::File { what: folder.display().to_string(), cause: e.to_string() };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        if fs::metadata(folder).map_err(failed)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Loads the root key; on a new store makes the key (where its source is a file) and the first data key.
async fn root_key(store: &Store, source: &RootKeySource, rng: &Rng) -> Result<(RootKey, bool)> {
    let new_store = store.read(|tx| tx.data_keys()).await?.is_empty();
    let (root, made) = source.load(rng, new_store)?;
    if new_store {
        let first = root.wrap_new(rng, 1)?;
        match store.write(move |tx| tx.add_data_key(&first, 0)).await {
            // Another replica that started at the same time was quicker.
            Ok(()) | Err(StoreError::Taken) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((root, made))
}
