//! The SQLite engine: one writer thread that commits in groups, a few reader threads.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::oneshot;

use super::engine::On;
use super::migrate::{self, Migration};
use super::{StoreError, StoreResult, Tx, spawn};
use crate::clock::Clock;

/// Most jobs that share one commit.
const GROUP: usize = 256;
/// Point reads take microseconds; two threads keep one slow list from holding up the rest.
const READERS: usize = 2;

/// The threads' queues; the threads end when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Threads {
    writer: mpsc::Sender<WriteJob>,
    readers: mpsc::Sender<ReadJob>,
}

/// Runs in a savepoint; what it answers is told after the commit.
type WriteJob = Box<dyn FnOnce(&Connection) -> Acknowledge + Send>;
type Acknowledge = Box<dyn FnOnce(StoreResult<()>) + Send>;
type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

impl Threads {
    pub(super) fn open(path: &Path, clock: &Clock, known: &[Migration]) -> StoreResult<Self> {
        let writing = connect(path)?;
        bring_up_to_date(&writing, clock, known)?;
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
        Ok(Self { writer, readers })
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        clock: &Clock,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let (answer, answered) = oneshot::channel();
        let clock = clock.clone();
        let run: WriteJob = Box::new(move |connection| {
            let result = in_savepoint(connection, &clock, job);
            Box::new(move |committed| {
                // Nobody waits any more when the caller went away; the work is done all the same.
                let _ = answer.send(committed.and(result));
            })
        });
        self.writer.send(run).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        clock: &Clock,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let (answer, answered) = oneshot::channel();
        let clock = clock.clone();
        let run: ReadJob = Box::new(move |connection| {
            let _ = answer.send(in_snapshot(connection, &clock, job));
        });
        self.readers.send(run).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ffi;
        match error.sqlite_error().map(|e| e.extended_code) {
            Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => StoreError::Taken,
            Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => StoreError::InUse,
            // A sum that is no 64-bit integer any more is a number of another type to SQLite.
            Some(
                ffi::SQLITE_CONSTRAINT_CHECK
                | ffi::SQLITE_CONSTRAINT_DATATYPE
                | ffi::SQLITE_CONSTRAINT_NOTNULL
                | ffi::SQLITE_MISMATCH
                | ffi::SQLITE_TOOBIG,
            ) => StoreError::Refused(Arc::new(error)),
            _ => StoreError::Engine(Arc::new(error)),
        }
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
    // Where several switch a fresh database over at once, SQLite does not wait for its turn.
    let mut left = 100;
    while let Err(error) = connection.execute_batch(SETTINGS) {
        left -= 1;
        if left == 0 || error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
            return Err(error.into());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// FULL: a commit that was acknowledged survives a power cut; a token that was spent must not be lost.
const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;";

fn bring_up_to_date(connection: &Connection, clock: &Clock, known: &[Migration]) -> StoreResult<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = migrate::run(&Tx { on: On::Sqlite(connection), clock }, known);
    connection.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    done
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
pub(super) fn in_savepoint<T>(
    connection: &Connection,
    clock: &Clock,
    job: impl FnOnce(&Tx<'_>) -> StoreResult<T>,
) -> StoreResult<T> {
    if connection.is_autocommit() {
        // BEGIN failed: nothing may run outside the group's transaction.
        return Err(StoreError::Closed);
    }
    connection.execute_batch("SAVEPOINT job")?;
    // A bug in one job must not end the only thread that writes; what the job did is undone.
    let tx = Tx { on: On::Sqlite(connection), clock };
    let result = catch_unwind(AssertUnwindSafe(|| job(&tx))).unwrap_or(Err(StoreError::Closed));
    let end = if result.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    connection.execute_batch(end)?;
    result
}

/// All statements of a job that reads see one state. BEGIN takes no lock before the first of them.
fn in_snapshot<T>(
    connection: &Connection,
    clock: &Clock,
    job: impl FnOnce(&Tx<'_>) -> StoreResult<T>,
) -> StoreResult<T> {
    let snapshot = connection.unchecked_transaction()?;
    job(&Tx { on: On::Sqlite(&snapshot), clock })
}

fn next(jobs: &Mutex<mpsc::Receiver<ReadJob>>) -> Option<ReadJob> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
