//! The instance fence: a restored backup or a cloned database renews nothing until an operator says which copy is live.
//!
//! Two copies of a database would spend each other's refresh tokens. Two things tell a copy:
//!
//! - its **marks**. Every data folder has a file `instance`, and the database a row for it with the same mark, changed at the start, every 30 s, and at
//!   a stop: first the file names the next mark beside the present one, then the database takes it, then the file. A database whose mark is
//!   neither of the file's two is not the one this folder's process left. Marks are numbered: where the database's is the later one, the folder is the copy.
//! - its **place** ([`crate::store::Tx::place`]): a copy made elsewhere lies at another.
//!
//! The fence stands in the database, so that every replica sees it. Saying that a copy is live raises its **epoch**: folders that know a lower
//! one learn their mark anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use keyholder_oauth::random_token;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::clock::{Rng, millis};
use crate::error::{Error, Result};
use crate::model::{Caller, FenceReason, Fenced};
use crate::open::Broker;
use crate::points::blocking;
use crate::store::{Identity, Place, Store};
use crate::vault::write_private;

/// How often the mark is changed.
const MARK_EVERY: Duration = Duration::from_secs(30);

/// What this process knows of the fence.
pub(crate) struct Fence {
    fenced: RwLock<Option<Fenced>>,
    /// The file as it was last written; held while the mark is changed.
    own: Mutex<Own>,
    file: PathBuf,
}

/// The file `instance` of a data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    /// Names the folder in the database.
    instance: String,
    cluster: String,
    epoch: i64,
    /// The database's mark; `None` when it has not been heard that the database has one.
    mark: Option<String>,
    /// The mark that the database may have already.
    next: String,
}

/// What an installation is, and whether it is fenced.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The cluster's name.
    pub cluster: String,
    /// How often an operator had to say which copy is live, and one.
    pub epoch: i64,
    /// Why and since when nothing is renewed; `None`: it is.
    pub fenced: Option<Fenced>,
    /// Instances whose mark was changed within the last minute.
    pub running: i64,
}

impl Fence {
    /// Reads the folder's file and refuses another cluster's database, before anything is written to it.
    ///
    /// # Errors
    /// [`Error::OtherCluster`].
    pub(crate) async fn open(data_dir: &Path, store: &Store, rng: &Rng) -> Result<Self> {
        let file = data_dir.join("instance");
        let found = store.read(|tx| tx.cluster()).await?;
        let own = match read(&file)? {
            Some(own) if found.as_ref() != Some(&own.cluster) => return Err(other_cluster(&file, own.cluster, found)),
            Some(own) => own,
            None => Own::new(found.unwrap_or_else(|| short(rng)), rng),
        };
        Ok(Self { fenced: RwLock::default(), own: Mutex::new(own), file })
    }

    /// Joins the database's cluster at the start, and finds out whether this is a copy.
    pub(crate) async fn join(&self, store: &Store, rng: &Rng) -> Result<()> {
        let mut own = self.own.lock().await;
        let name = own.cluster.clone();
        // Of two processes that find a new database at the same time, one names it.
        own.cluster = store
            .write(move |tx| {
                tx.found_cluster(&name)?;
                Ok(tx.cluster()?.unwrap_or(name))
            })
            .await?;
        self.change_mark(&mut own, Moment::Start, store, rng).await
    }

    /// Changes the mark, and looks whether the database is still the one it was.
    pub(crate) async fn beat(&self, store: &Store, rng: &Rng) -> Result<()> {
        let mut own = self.own.lock().await;
        self.change_mark(&mut own, Moment::Running, store, rng).await
    }

    /// File, database, file: the process may die between any two of them.
    async fn change_mark(&self, own: &mut Own, moment: Moment, store: &Store, rng: &Rng) -> Result<()> {
        let instance = own.instance.clone();
        let held = store.read(move |tx| tx.mark(&instance)).await?;
        if held.as_deref().is_some_and(|held| number(held) > number(&own.next)) {
            tracing::warn!(
                "the database knows a later mark than the data folder, so the folder is a copy or was restored from a backup; it goes on under a new name"
            );
            *own = Own::new(own.cluster.clone(), rng);
        } else if held.as_ref() == Some(&own.next) {
            own.next = format!("{}.{}", number(&own.next) + 1, short(rng));
            own.mark = held;
        }
        // Else the last change came to nothing, as far as is known: the same next mark again, so that there are never more than two.
        self.write(own).await?;
        let asked = own.clone();
        let identity = store
            .write(move |tx| {
                let before = tx.hold_identity()?;
                if before.cluster != asked.cluster {
                    return Ok(Some(before));
                }
                let seen = Seen { mark: tx.mark(&asked.instance)?, place: tx.place()?, now: tx.now_ms()? };
                if seen.mark.as_deref().is_some_and(|seen| number(seen) > number(&asked.next)) {
                    // This job comes late: its process has given it up, and the mark went on. Set back, it would fence a database that is whole.
                    return Ok(None);
                }
                let after = judge(&asked, moment, &before, seen);
                if after != before {
                    tx.put_identity(&after)?;
                }
                tx.put_mark(&asked.instance, &asked.next)?;
                Ok(Some(after))
            })
            .await?
            .ok_or(Error::ChangedMeanwhile("instance"))?;
        if identity.cluster != own.cluster {
            return Err(other_cluster(&self.file, own.cluster.clone(), Some(identity.cluster)));
        }
        own.mark = Some(own.next.clone());
        own.epoch = identity.epoch;
        self.set(identity.fenced);
        self.write(own).await
    }

    /// Beside its name, synced, renamed, the folder synced.
    async fn write(&self, own: &Own) -> Result<()> {
        let (file, text) = (self.file.clone(), serde_json::to_vec(own));
        let written = blocking(move || {
            let beside = file.with_extension("part");
            let _ = fs::remove_file(&beside);
            write_private(&beside, &text?)?;
            fs::rename(&beside, &file)?;
            file.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
        });
        let written = written.await.map_err(|_| Error::Internal("the thread that writes the instance file ended"))?;
        written.map_err(|error: io::Error| failed(&self.file, error.to_string()))
    }

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

    /// How the database names this data folder.
    pub(crate) async fn instance(&self) -> String {
        self.own.lock().await.instance.clone()
    }

    /// Why and since when, where it is fenced.
    pub(crate) fn state(&self) -> Option<Fenced> {
        *self.fenced.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the database says; answers whether that is new.
    pub(crate) fn set(&self, fenced: Option<Fenced>) -> bool {
        let before = std::mem::replace(&mut *self.fenced.write().unwrap_or_else(PoisonError::into_inner), fenced);
        match fenced {
            Some(fenced) if before.is_none() => tracing::error!(
                reason = fenced.reason.as_str(),
                "fenced: {}; nothing is renewed until an operator says which copy is live (`keyholder doctor`)",
                fenced.reason.message()
            ),
            None if before.is_some() => tracing::info!("the fence was lifted: this copy is the live one"),
            _ => {}
        }
        before != fenced
    }
}

impl Own {
    fn new(cluster: String, rng: &Rng) -> Self {
        Self { instance: short(rng), cluster, epoch: 0, mark: None, next: format!("1.{}", short(rng)) }
    }
}

/// When the database is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The process has just found it.
    Start,
    /// The process has worked with it ever since it started.
    Running,
}

/// What the database says beside its [`Identity`].
struct Seen {
    mark: Option<String>,
    place: Option<Place>,
    now: i64,
}

/// What the database's identity shall be, now that a process knows it, or doesn't.
fn judge(own: &Own, moment: Moment, before: &Identity, seen: Seen) -> Identity {
    // An epoch raised since: an operator said that this copy is live, whatever this folder remembers.
    let older = own.epoch > before.epoch
        || own.epoch == before.epoch && seen.mark != own.mark && seen.mark.as_ref() != Some(&own.next);
    let moved = matches!((&before.home, &seen.place), (Some(home), Some(place)) if *home != place.name);
    // Another server took over and goes on where the first one was: the mark that goes on vouches for it.
    let taken_over = moment == Moment::Running && seen.place.as_ref().is_some_and(|place| place.follows);
    let reason = match (older, moved && !taken_over) {
        (true, _) => Some(FenceReason::Older),
        (false, true) => Some(FenceReason::Moved),
        (false, false) => None,
    };
    let mut after = before.clone();
    after.fenced = before.fenced.or(reason.map(|reason| Fenced { reason, since: seen.now }));
    if before.home.is_none() || after.fenced.is_none() {
        after.home = seen.place.map(|place| place.name).or(after.home);
    }
    after
}

impl Broker {
    /// Which installation this is.
    pub async fn instance(&self) -> Result<Instance> {
        Ok(self
            .store
            .read(|tx| Ok(shown(tx.identity()?, tx.instances_seen(tx.now_ms()? - 2 * millis(MARK_EVERY))?)))
            .await?)
    }

    /// An operator says that this copy is the live one: the fence is lifted, and what waits in escrow is committed.
    ///
    /// Where nothing is fenced, nothing changes.
    pub async fn declare_live(&self, caller: &Caller) -> Result<Instance> {
        self.store
            .write(|tx| {
                let mut identity = tx.hold_identity()?;
                if identity.fenced.take().is_some() {
                    identity.epoch += 1;
                    identity.home = tx.place()?.map(|place| place.name).or(identity.home);
                    tx.put_identity(&identity)?;
                }
                Ok(())
            })
            .await?;
        self.record(caller, "instance.live", "instance", "ok", None)?;
        self.fence.beat(&self.store, &self.rng).await?;
        self.retry_left_behind().await?;
        self.due.notify_one();
        self.instance().await
    }

    /// An operator says that this copy is not the live one.
    pub async fn retire(&self, caller: &Caller) -> Result<Instance> {
        let fenced = self
            .store
            .write(|tx| {
                let mut identity = tx.hold_identity()?;
                let retired = Fenced { reason: FenceReason::Retired, since: tx.now_ms()? };
                identity.fenced = identity.fenced.or(Some(retired));
                tx.put_identity(&identity)?;
                Ok(identity.fenced)
            })
            .await?;
        self.fence.set(fenced);
        self.record(caller, "instance.retire", "instance", "ok", None)?;
        self.instance().await
    }

    /// Changes the mark: also the last thing of a graceful stop, so that a copy made before it is told from the database that was left.
    pub async fn change_mark(&self) {
        if let Err(error) = self.fence.beat(&self.store, &self.rng).await {
            tracing::error!(%error, "the mark by which this process knows its database again could not be changed; it is tried again");
        }
    }
}

fn shown(identity: Identity, running: i64) -> Instance {
    Instance { cluster: identity.cluster, epoch: identity.epoch, fenced: identity.fenced, running }
}

fn read(file: &Path) -> Result<Option<Own>> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(file, error.to_string())),
    };
    let own = serde_json::from_slice(&text);
    own.map(Some).map_err(|error| {
        failed(
            file,
            format!("it is damaged ({error}); move it away, then this data folder joins the database under a new name"),
        )
    })
}

fn failed(file: &Path, cause: String) -> Error {
    Error::File { what: file.display().to_string(), cause }
}

fn other_cluster(file: &Path, own: String, found: Option<String>) -> Error {
    Error::OtherCluster {
        folder: file.parent().unwrap_or(file).display().to_string(),
        file: file.display().to_string(),
        own,
        found: found.unwrap_or_else(|| "no cluster yet (it is empty)".to_owned()),
    }
}

/// The number of a mark; each is one more than the one before.
fn number(mark: &str) -> u64 {
    mark.split_once('.').and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

fn short(rng: &Rng) -> String {
    random_token(rng.bytes()).expose()[..16].to_owned()
}
