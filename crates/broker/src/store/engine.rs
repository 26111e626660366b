//! The SQLite engine: one writer thread that commits in groups, a few reader threads.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::{Location, StoreError, StoreResult, Tx};
use crate::clock::Clock;
use crate::points::Points;

/// Most jobs that share one commit.
const GROUP: usize = 256;
/// Point reads take microseconds; two threads keep one slow list from holding up the rest.
const READERS: usize = 2;
const MIGRATIONS: &[(i64, &str)] = &[(1, include_str!("../../../../migrations/0001_initial.sql"))];

/// A handle on the store; clones share it. The threads end when the last handle is dropped.
#[derive(Clone)]
pub struct Store {
    writer: mpsc::Sender<WriteJob>,
    readers: mpsc::Sender<ReadJob>,
    clock: Clock,
    points: Points,
}

/// Runs in a savepoint; what it answers is told after the commit.
type WriteJob = Box<dyn FnOnce(&Connection) -> Acknowledge + Send>;
type Acknowledge = Box<dyn FnOnce(StoreResult<()>) + Send>;
type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

impl Store {
    /// Opens (or makes) the database, brings its schema up to date, starts the threads.
    pub fn open(location: &Location, clock: Clock, points: Points) -> StoreResult<Self> {
        let Location::Sqlite(path) = location;
        let writing = connect(path)?;
        migrate(&writing)?;
        let (writer, jobs) = mpsc::channel();
        spawn("keyholder-writer", move || write_loop(&writing, &jobs))?;

        let (readers, jobs) = mpsc::channel::<ReadJob>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..READERS {
            let reading = connect(path)?;
            let jobs = Arc::clone(&jobs);
            spawn("keyholder-reader", move || {
                while let Some(job) = next(&jobs) {
                    // A bug in one job must not end the thread: its answer is dropped, which tells its caller.
                    let _ = catch_unwind(AssertUnwindSafe(|| job(&reading)));
                }
            })?;
        }
        Ok(Self { writer, readers, clock, points })
    }

    /// Runs `job` in a transaction; answers when it is on disk. An error undoes what the job did.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.points.reach("store.write").await?;
        let (answer, answered) = oneshot::channel();
        let clock = self.clock.clone();
        let run: WriteJob = Box::new(move |connection| {
            let result = in_savepoint(&Tx { on: connection, clock: &clock }, job);
            Box::new(move |committed| {
                // Nobody waits any more when the caller went away; the work is done all the same.
                let _ = answer.send(committed.and(result));
            })
        });
        self.writer.send(run).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `job` on a reader thread.
    pub async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.points.reach("store.read").await?;
        let (answer, answered) = oneshot::channel();
        let clock = self.clock.clone();
        let run: ReadJob = Box::new(move |connection| {
            let _ = answer.send(job(&Tx { on: connection, clock: &clock }));
        });
        self.readers.send(run).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

fn connect(path: &Path) -> StoreResult<Connection> {
    // For its owner only; SQLite gives the files beside it the same mode.
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|e| {
        StoreError::Location(format!("{}: {e}; check that the folder exists and is writable", path.display()))
    })?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // FULL: a commit that was acknowledged survives a power cut; a token that was spent must not be lost.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;",
    )?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

fn migrate(connection: &Connection) -> StoreResult<()> {
    let newest = MIGRATIONS.last().map_or(0, |(number, _)| *number);
    let have: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if have > newest {
        return Err(StoreError::Schema(format!(
            "the database has schema {have}, this program knows up to {newest}: it was used by a newer version; start that version, or restore a backup"
        )));
    }
    for (number, text) in MIGRATIONS.iter().filter(|(number, _)| *number > have) {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {} PRAGMA user_version = {number}; COMMIT;", for_sqlite(text)))?;
    }
    Ok(())
}

/// The schema's type words in SQLite's, and every table STRICT.
fn for_sqlite(text: &str) -> String {
    text.replace("BIGSERIAL", "INTEGER")
        .replace("BIGINT", "INTEGER")
        .replace("BYTEA", "BLOB")
        .replace("\n);", "\n) STRICT;")
}

fn write_loop(connection: &Connection, jobs: &mpsc::Receiver<WriteJob>) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(GROUP - 1));
        commit_group(connection, group);
    }
}

fn commit_group(connection: &Connection, group: Vec<WriteJob>) {
    let begun = connection.execute_batch("BEGIN IMMEDIATE");
    let acknowledgements: Vec<_> = group.into_iter().map(|job| job(connection)).collect();
    let committed = begun.and_then(|()| connection.execute_batch("COMMIT")).map_err(StoreError::from);
    if committed.is_err() && !connection.is_autocommit() {
        // The commit failed (a full disk, say): give everything back. If that fails too, the next BEGIN reports it.
        let _ = connection.execute_batch("ROLLBACK");
    }
    for acknowledge in acknowledgements {
        acknowledge(committed.clone());
    }
}

/// One job of a group: its own savepoint, so that its failure undoes only itself.
fn in_savepoint<T>(tx: &Tx<'_>, job: impl FnOnce(&Tx<'_>) -> StoreResult<T>) -> StoreResult<T> {
    let connection = tx.on;
    if connection.is_autocommit() {
        // BEGIN failed: nothing may run outside the group's transaction.
        return Err(StoreError::Closed);
    }
    connection.execute_batch("SAVEPOINT job")?;
    // A bug in one job must not end the only thread that writes; what the job did is undone.
    let result = catch_unwind(AssertUnwindSafe(|| job(tx))).unwrap_or(Err(StoreError::Closed));
    let end = if result.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    connection.execute_batch(end)?;
    result
}

fn next(jobs: &Mutex<mpsc::Receiver<ReadJob>>) -> Option<ReadJob> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> StoreResult<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|e| StoreError::Schema(format!("a thread of the store could not start: {e}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&Location::Sqlite(folder.path().join("k.db")), Clock::System, Points::default()).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn a_failed_job_undoes_only_itself() {
        let (_folder, store) = store();
        let good = store.write(|tx| tx.put_meta("a", "1"));
        let bad = store.write(|tx| {
            tx.put_meta("b", "1")?;
            Err::<(), _>(StoreError::Taken)
        });
        let (good, bad) = tokio::join!(good, bad);
        assert!(good.is_ok());
        assert!(matches!(bad, Err(StoreError::Taken)));
        assert_eq!(store.read(|tx| tx.meta("a")).await.unwrap().as_deref(), Some("1"));
        assert_eq!(store.read(|tx| tx.meta("b")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_job_that_panics_is_undone_and_the_store_goes_on() {
        let (_folder, store) = store();
        let broken = store.write(|tx| -> StoreResult<()> {
            tx.put_meta("a", "1")?;
            panic!("a bug")
        });
        assert!(matches!(broken.await, Err(StoreError::Closed)));
        for _ in 0..=READERS {
            let broken = store.read(|_| -> StoreResult<()> { panic!("a bug") }).await;
            assert!(matches!(broken, Err(StoreError::Closed)));
        }
        store.write(|tx| tx.put_meta("b", "1")).await.unwrap();
        assert_eq!(store.read(|tx| Ok((tx.meta("a")?, tx.meta("b")?))).await.unwrap(), (None, Some("1".to_owned())));
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.db");
        connect(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        let error = Store::open(&Location::Sqlite(path), Clock::System, Points::default()).err().unwrap().to_string();
        assert!(error.contains("99") && error.contains("newer"), "{error}");
    }
}
