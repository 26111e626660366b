//! The only place that holds SQL.
//!
//! A job is a function over [`Tx`], run as one transaction on a thread of the engine, never across a call to a provider. SQLite has one writer thread
//! that commits in groups and a few reader threads; PostgreSQL a few threads with a connection each. All statements stand in `sql!` tables, are written
//! once for both, and one test prepares each of them on both; where the engines differ, `engine.rs` says so.

mod access;
mod advice;
mod changes;
mod connections;
mod consents;
mod devices;
mod engine;
mod history;
mod instances;
mod integrations;
mod location;
mod migrate;
mod operators;
mod postgres;
mod providers;
mod sealed;
mod setup;
#[cfg(test)]
mod simulated;
mod sources;
mod sqlite;
mod upkeep;
mod usage;

use std::sync::Arc;

pub use access::NewStoredKey;
pub use advice::{Alike, FirstUse, HourOfCalls, LongLived, Noted};
pub use changes::{Change, Numbered};
pub use connections::{CommitExpiry, CommitTokens, Due, Ending, Filter, OwnConnection, RecordFailure};
pub use consents::NewSession;
use engine::sql;
pub use engine::{Row, Sql, Tx, Val};
pub use history::{Found, Segment, Stretch};
pub use instances::{Identity, Place};
pub use location::Location;
pub use operators::{Purpose, StoredConsoleSession, StoredLink, StoredOperator, StoredPasskey};
pub use postgres::Server;
pub use providers::StoredDefinition;
pub use sealed::SealedRow;
#[cfg(test)]
pub(crate) use simulated::Simulated;
pub use upkeep::{IdempotencyRow, Swept};
pub use usage::{Figures, TOOK, UsageGroup, UsageRow, UsageSpan};

use crate::clock::Clock;
use crate::points::Points;
use migrate::MIGRATIONS;

/// A handle on the store; clones share it. Its threads end when the last handle is dropped.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    clock: Clock,
    points: Points,
}

#[derive(Clone)]
enum Engine {
    Sqlite(sqlite::Threads),
    Postgres(Arc<postgres::Pool>),
    #[cfg(test)]
    Simulated(Arc<crate::simulation::Replica>),
}

impl Store {
    /// Opens (or, with SQLite, makes) the database, brings its schema up to date, starts the threads.
    ///
    /// # Errors
    /// A database that can't be reached, isn't ours, or is another version's: why, and what helps.
    pub fn open(location: &Location, clock: Clock, points: Points) -> StoreResult<Self> {
        #[cfg(test)]
        if let Some(replica) = points.simulated.clone() {
            return Ok(Self { engine: Engine::Simulated(replica), clock, points });
        }
        let engine = match location {
            Location::Sqlite(path) => Engine::Sqlite(sqlite::Threads::open(path, &clock, MIGRATIONS)?),
            Location::Postgres(server) => Engine::Postgres(Arc::new(postgres::Pool::open(server, &clock, MIGRATIONS)?)),
        };
        Ok(Self { engine, clock, points })
    }

    /// Whether several processes may work on it.
    pub fn is_shared(&self) -> bool {
        !matches!(self.engine, Engine::Sqlite(_))
    }

    /// Runs `job` in a transaction; answers when it is on disk. An error undoes what the job did, except one of the connection to PostgreSQL: then
    /// nobody knows whether the commit took place.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.points.reach("store.write").await?;
        match &self.engine {
            Engine::Sqlite(threads) => threads.write(&self.clock, job).await,
            Engine::Postgres(pool) => pool.run(postgres::Access::Write, &self.clock, job).await,
            #[cfg(test)]
            Engine::Simulated(replica) => replica.write(job).await,
        }
    }

    /// Runs `job`, which only reads; all its statements see the same state of the database.
    pub async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.points.reach("store.read").await?;
        match &self.engine {
            Engine::Sqlite(threads) => threads.read(&self.clock, job).await,
            Engine::Postgres(pool) => pool.run(postgres::Access::Read, &self.clock, job).await,
            #[cfg(test)]
            Engine::Simulated(replica) => replica.read(job).await,
        }
    }
}

/// What can go wrong in the store. Never holds a value of a row, or a password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The engine refused a statement, or a test let it fail.
    #[error("the database failed: {0}")]
    Engine(Arc<dyn std::error::Error + Send + Sync>),
    /// It takes no such value, however often it is asked.
    #[error("the database refused a value: {0}")]
    Refused(Arc<dyn std::error::Error + Send + Sync>),
    /// The database server can't be reached or used: which, why, and what helps.
    #[error("{0}")]
    Unreachable(String),
    /// A unique name is taken.
    #[error("the name is taken")]
    Taken,
    /// Something still refers to the row.
    #[error("the row is still in use")]
    InUse,
    /// A row holds what no version of this program writes.
    #[error("table {table}, column {column} holds a value this version can't read; it may be newer than the program")]
    Unreadable {
        /// Which table.
        table: &'static str,
        /// Which column.
        column: &'static str,
    },
    /// The schema isn't this program's.
    #[error("{0}")]
    Schema(String),
    /// The URL doesn't name a database.
    #[error("the database URL: {0}")]
    Location(String),
    /// The threads of the store have ended.
    #[error("the store is closed")]
    Closed,
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        StoreError::Engine(Arc::new(error))
    }
}

/// Result of a job.
pub type StoreResult<T> = Result<T, StoreError>;

/// Starts a thread of an engine.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> StoreResult<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|e| StoreError::Schema(format!("a thread of the store could not start: {e}")))
}

/// Reads a column that holds JSON.
fn from_json<T: serde::de::DeserializeOwned>(table: &'static str, column: &'static str, text: &str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable { table, column })
}

/// Writes what can always be written as JSON: maps and lists of text.
fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

#[cfg(test)]
mod tests;
