//! The engine of the simulation: SQLite in memory, shared by all replicas, each job at once on the task that asks. What goes wrong on the way is the
//! simulation's part.

use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::engine::On;
use super::migrate::{self, MIGRATIONS};
use super::sqlite::in_savepoint;
use super::{StoreResult, Tx};
use crate::clock::Clock;

/// The database of a simulated installation.
pub(crate) struct Simulated {
    connection: Mutex<Connection>,
    /// The database's own clock.
    clock: Clock,
}

impl Simulated {
    pub(crate) fn new(clock: Clock) -> StoreResult<Self> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;")?;
        connection.set_prepared_statement_cache_capacity(128);
        connection.execute_batch("BEGIN IMMEDIATE")?;
        migrate::run(&Tx { on: On::Sqlite(&connection), clock: &clock }, MIGRATIONS)?;
        connection.execute_batch("COMMIT")?;
        Ok(Self { connection: Mutex::new(connection), clock })
    }

    /// Runs `job` in a transaction of its own.
    pub(crate) fn run<T>(&self, job: impl FnOnce(&Tx<'_>) -> StoreResult<T>) -> StoreResult<T> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = in_savepoint(&connection, &self.clock, job);
        connection.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        done
    }

    /// Every connection's generation, by name.
    pub(crate) fn generations(&self) -> StoreResult<Vec<(String, i64)>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached("SELECT name, generation FROM connections ORDER BY name")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
