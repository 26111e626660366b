//! The only place that holds SQL.
//!
//! SQLite has one writer thread that commits in groups (a savepoint a job, acknowledged after the commit is on disk) and a few reader
//! threads. A job is a function over [`Tx`]; it runs on such a thread, never across a call to a provider. All statements stand in `sql!` tables, are written once for SQLite
//! and PostgreSQL, and one test prepares each of them.

mod access;
mod changes;
mod connections;
mod consents;
mod engine;
mod history;
mod instances;
mod integrations;
mod sealed;
mod setup;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

pub use access::NewStoredKey;
pub use changes::{Change, Numbered};
pub use connections::{CommitTokens, Due, Filter, RecordFailure};
pub use consents::NewSession;
pub use engine::Store;
pub use history::{AuditRow, NewAudit};
pub use instances::{Identity, Place};
pub use sealed::SealedRow;
pub use upkeep::{IdempotencyRow, Swept};

use crate::clock::Clock;
use crate::model::ConnectionId;

/// Where the store lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file.
    Sqlite(PathBuf),
}

impl Location {
    /// Reads a database URL: `sqlite:PATH`. Relative paths are taken from the working folder.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        match url.split_once(':') {
            Some(("sqlite", path)) if !path.trim_start_matches("//").is_empty() => {
                Ok(Location::Sqlite(Path::new(path.strip_prefix("//").unwrap_or(path)).to_owned()))
            }
            Some((scheme, _)) => Err(StoreError::Location(format!(
                "`{scheme}:` is not a database this version opens; use `sqlite:PATH`"
            ))),
            None => Err(StoreError::Location(
                "a database URL begins with its scheme, for example `sqlite:/var/lib/keyholder/keyholder.db`"
                    .to_owned(),
            )),
        }
    }
}

/// What can go wrong in the store. Never holds a value of a row.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The engine refused a statement, or a test let it fail.
    #[error("the database failed: {0}")]
    Engine(Arc<dyn std::error::Error + Send + Sync>),
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

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ffi;
        match error.sqlite_error().map(|e| e.extended_code) {
            Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => StoreError::Taken,
            Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => StoreError::InUse,
            _ => StoreError::Engine(Arc::new(error)),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        StoreError::Engine(Arc::new(error))
    }
}

/// Result of a job.
pub type StoreResult<T> = Result<T, StoreError>;

/// One statement, in the text both engines run.
#[derive(Debug)]
pub struct Sql(&'static str);

/// A table of statements: a constant each, and `ALL` for the test that prepares them.
macro_rules! sql {
    ($($name:ident = $text:expr;)*) => {
        $(const $name: super::Sql = super::Sql($text);)*
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &super::Sql)] = &[$((stringify!($name), &$name)),*];
    };
}
use sql;

/// A parameter of a statement.
#[derive(Clone, Copy)]
pub enum Val<'a> {
    /// A number, a time, a truth value (0 or 1).
    I(i64),
    /// Text.
    T(&'a str),
    /// Bytes: hashes and sealed values.
    B(&'a [u8]),
    /// NULL.
    Null,
}

impl<'a> Val<'a> {
    fn opt_i(value: Option<i64>) -> Self {
        value.map_or(Val::Null, Val::I)
    }

    fn opt_t(value: Option<&'a str>) -> Self {
        value.map_or(Val::Null, Val::T)
    }

    fn opt_b(value: Option<&'a [u8]>) -> Self {
        value.map_or(Val::Null, Val::B)
    }
}

impl ToSql for Val<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Val::I(number) => ValueRef::Integer(*number),
            Val::T(text) => ValueRef::Text(text.as_bytes()),
            Val::B(bytes) => ValueRef::Blob(bytes),
            Val::Null => ValueRef::Null,
        }))
    }
}

/// A row of a reply; columns by place.
pub struct Row<'a>(&'a rusqlite::Row<'a>);

impl Row<'_> {
    fn i(&self, column: usize) -> StoreResult<i64> {
        Ok(self.0.get(column)?)
    }

    fn opt_i(&self, column: usize) -> StoreResult<Option<i64>> {
        Ok(self.0.get(column)?)
    }

    fn t(&self, column: usize) -> StoreResult<String> {
        Ok(self.0.get(column)?)
    }

    fn opt_t(&self, column: usize) -> StoreResult<Option<String>> {
        Ok(self.0.get(column)?)
    }

    fn b(&self, column: usize) -> StoreResult<Vec<u8>> {
        Ok(self.0.get(column)?)
    }

    fn opt_b(&self, column: usize) -> StoreResult<Option<Vec<u8>>> {
        Ok(self.0.get(column)?)
    }

    fn hash(&self, column: usize) -> StoreResult<[u8; 32]> {
        Ok(self.0.get(column)?)
    }
}

/// A transaction. What a job did is durable when the job's future has answered.
pub struct Tx<'a> {
    on: &'a rusqlite::Connection,
    clock: &'a Clock,
}

impl Tx<'_> {
    /// The database's clock, Unix milliseconds: one clock for all processes, whatever their machines' say.
    pub fn now_ms(&self) -> StoreResult<i64> {
        Ok(self.clock.now_ms())
    }

    /// Locks a connection's row to the end of the transaction: for jobs that write by what they read.
    pub fn lock_connection(&self, _id: &ConnectionId) -> StoreResult<()> {
        Ok(())
    }

    /// Runs a statement; answers how many rows it changed.
    fn execute(&self, sql: &Sql, values: &[Val<'_>]) -> StoreResult<usize> {
        Ok(self.on.prepare_cached(sql.0)?.execute(rusqlite::params_from_iter(values))?)
    }

    /// Runs a statement for each of `rows`.
    fn execute_each<'v>(&self, sql: &Sql, rows: impl IntoIterator<Item = Vec<Val<'v>>>) -> StoreResult<()> {
        rows.into_iter().try_for_each(|values| self.execute(sql, &values).map(drop))
    }

    /// All rows of a reply, read by `read`.
    fn rows<T>(&self, sql: &Sql, values: &[Val<'_>], read: impl Fn(&Row<'_>) -> StoreResult<T>) -> StoreResult<Vec<T>> {
        let mut statement = self.on.prepare_cached(sql.0)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            out.push(read(&Row(row))?);
        }
        Ok(out)
    }

    /// The first row of a reply.
    fn row<T>(
        &self,
        sql: &Sql,
        values: &[Val<'_>],
        read: impl Fn(&Row<'_>) -> StoreResult<T>,
    ) -> StoreResult<Option<T>> {
        Ok(self.rows(sql, values, read)?.into_iter().next())
    }
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::points::Points;

    #[tokio::test]
    async fn every_statement_prepares() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&Location::Sqlite(folder.path().join("k.db")), Clock::System, Points::default()).unwrap();
        let tables = [
            access::ALL,
            changes::ALL,
            connections::ALL,
            consents::ALL,
            history::ALL,
            instances::ALL,
            integrations::ALL,
            sealed::ALL,
            setup::ALL,
            upkeep::ALL,
        ];
        store
            .read(move |tx| {
                for (name, sql) in tables.into_iter().flatten() {
                    tx.on.prepare(sql.0).unwrap_or_else(|e| panic!("{name}: {e}"));
                }
                Ok(())
            })
            .await
            .unwrap();
    }

    #[test]
    fn a_database_url_says_what_is_wrong_with_it() {
        assert_eq!(Location::from_url("sqlite:///var/k.db").unwrap(), Location::Sqlite("/var/k.db".into()));
        assert_eq!(Location::from_url("sqlite:k.db").unwrap(), Location::Sqlite("k.db".into()));
        for wrong in ["mysql://x", "k.db", "sqlite:"] {
            let error = Location::from_url(wrong).unwrap_err().to_string();
            assert!(error.contains("sqlite:"), "{error}");
        }
    }
}
