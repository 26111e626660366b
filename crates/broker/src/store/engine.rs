//! The transaction that both engines run, and everything in which they differ.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::{StoreError, StoreResult, postgres};
use crate::clock::Clock;
use crate::model::{ConnectionId, Tenant};

/// One statement, in the text both engines run.
#[derive(Debug)]
pub struct Sql(pub(super) &'static str);

/// A table of statements: a constant each, and `ALL` for the test that prepares them.
macro_rules! sql {
    ($($name:ident = $text:expr;)*) => {
        $(const $name: super::Sql = super::Sql($text);)*
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &super::Sql)] = &[$((stringify!($name), &$name)),*];
    };
}
pub(super) use sql;

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
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
    pub(super) fn opt_i(value: Option<i64>) -> Self {
        value.map_or(Val::Null, Val::I)
    }

    pub(super) fn opt_t(value: Option<&'a str>) -> Self {
        value.map_or(Val::Null, Val::T)
    }

    pub(super) fn opt_b(value: Option<&'a [u8]>) -> Self {
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
pub struct Row<'a>(Columns<'a>);

enum Columns<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    pub(super) fn i(&self, column: usize) -> StoreResult<i64> {
        match self.0 {
            Columns::Sqlite(row) => Ok(row.get(column)?),
            Columns::Postgres(row) => postgres::read::<postgres::Int>(row, column).map(|int| int.0),
        }
    }

    pub(super) fn opt_i(&self, column: usize) -> StoreResult<Option<i64>> {
        match self.0 {
            Columns::Sqlite(row) => Ok(row.get(column)?),
            Columns::Postgres(row) => postgres::read::<Option<postgres::Int>>(row, column).map(|int| int.map(|i| i.0)),
        }
    }

    pub(super) fn t(&self, column: usize) -> StoreResult<String> {
        match self.0 {
            Columns::Sqlite(row) => Ok(row.get(column)?),
            Columns::Postgres(row) => postgres::read(row, column),
        }
    }

    pub(super) fn opt_t(&self, column: usize) -> StoreResult<Option<String>> {
        match self.0 {
            Columns::Sqlite(row) => Ok(row.get(column)?),
            Columns::Postgres(row) => postgres::read(row, column),
        }
    }

    pub(super) fn b(&self, column: usize) -> StoreResult<Vec<u8>> {
        match self.0 {
            Columns::Sqlite(row) => Ok(row.get(column)?),
            Columns::Postgres(row) => postgres::read(row, column),
        }
    }

    pub(super) fn opt_b(&self, column: usize) -> StoreResult<Option<Vec<u8>>> {
        match self.0 {
            Columns::Sqlite(row) => Ok(row.get(column)?),
            Columns::Postgres(row) => postgres::read(row, column),
        }
    }

    pub(super) fn hash(&self, column: usize) -> StoreResult<[u8; 32]> {
        self.b(column)?.try_into().map_err(|_| StoreError::Unreadable { table: "of hashes", column: "hash" })
    }
}

/// A transaction. What a job did is durable when the job's future has answered.
pub struct Tx<'a> {
    pub(super) on: On<'a>,
    pub(super) clock: &'a Clock,
}

/// Which engine a transaction runs on.
pub(super) enum On<'a> {
    Sqlite(&'a rusqlite::Connection),
    Postgres(&'a postgres::Session<'a>),
}

/// Everything that uses the engine's own words.
impl Tx<'_> {
    /// The database's clock, Unix milliseconds: one clock for all replicas, whatever their machines' say. A test's clock stands for it.
    pub fn now_ms(&self) -> StoreResult<i64> {
        match (&self.on, self.clock) {
            (On::Postgres(session), Clock::System) => session.now_ms(),
            _ => Ok(self.clock.now_ms()),
        }
    }

    /// Locks a connection's row to the end of the transaction: for jobs that write by what they read, or that touch what hangs on a connection (sessions,
    /// consents, waiting grants). They lock it first, so that no two wait for each other. SQLite has one writer.
    pub fn lock_connection(&self, id: &ConnectionId) -> StoreResult<()> {
        const LOCK: Sql = Sql("SELECT id FROM connections WHERE id = ?1 FOR UPDATE");
        match self.on {
            On::Sqlite(_) => Ok(()),
            On::Postgres(session) => session.query(&LOCK, &[Val::T(id.as_str())]).map(drop),
        }
    }

    /// Locks a version of a definition, so that it isn't removed while an integration is put on it.
    pub fn lock_provider(&self, tenant: &Tenant, id: &str, version: &str) -> StoreResult<()> {
        const LOCK: Sql = Sql("SELECT id FROM providers WHERE tenant = ?1 AND id = ?2 AND version = ?3 FOR UPDATE");
        match self.on {
            On::Sqlite(_) => Ok(()),
            On::Postgres(session) => {
                session.query(&LOCK, &[Val::T(tenant.as_str()), Val::T(id), Val::T(version)]).map(drop)
            }
        }
    }

    /// Locks a tenant's operators, for jobs that look at all of them, or at all of what one has, before they take something away.
    pub fn lock_operators(&self, tenant: &Tenant) -> StoreResult<()> {
        const LOCK: Sql = Sql("SELECT id FROM operators WHERE tenant = ?1 ORDER BY id FOR UPDATE");
        match self.on {
            On::Sqlite(_) => Ok(()),
            On::Postgres(session) => session.query(&LOCK, &[Val::T(tenant.as_str())]).map(drop),
        }
    }

    /// Locks the connections whose consents, sessions or waiting grants have expired, in one order everywhere.
    pub fn lock_expired(&self, now: i64) -> StoreResult<()> {
        const LOCK: Sql = Sql(
            "SELECT id FROM connections WHERE id IN (SELECT connection FROM pending_grants WHERE expires_at <= ?1 \
            UNION ALL SELECT connection FROM connect_sessions WHERE expires_at <= ?1) ORDER BY id FOR UPDATE",
        );
        match self.on {
            On::Sqlite(_) => Ok(()),
            On::Postgres(session) => session.query(&LOCK, &[Val::I(now)]).map(drop),
        }
    }

    /// Keeps other processes from changing the schema, to the end of the transaction. On SQLite the transaction itself does.
    pub(super) fn lock_schema(&self) -> StoreResult<()> {
        match self.on {
            On::Sqlite(_) => Ok(()),
            // The number is ours alone by chance: the first bytes of SHA-256 of "keyholder schema".
            On::Postgres(session) => session.batch("SELECT pg_advisory_xact_lock(4917203348118052713)"),
        }
    }

    /// The tables in the database, or in the schema that PostgreSQL's `search_path` names.
    pub(super) fn tables(&self) -> StoreResult<Vec<String>> {
        const SQLITE: Sql = Sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
        const POSTGRES: Sql =
            Sql("SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = current_schema()");
        let sql = match self.on {
            On::Sqlite(_) => &SQLITE,
            On::Postgres(_) => &POSTGRES,
        };
        self.rows(sql, &[], |row| row.t(0))
    }

    /// Whether several processes may work on the database.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.on, On::Postgres(_)) || self.clock.is_simulated()
    }

    /// SQLite's file.
    pub(super) fn file(&self) -> Option<&str> {
        match self.on {
            On::Sqlite(connection) => connection.path(),
            On::Postgres(_) => None,
        }
    }

    /// What PostgreSQL made up when its data folder and this database were made; nothing on SQLite.
    pub(super) fn server_identity(&self) -> StoreResult<Option<String>> {
        const IDENTITY: Sql =
            Sql("SELECT c.system_identifier::text || ' ' || d.oid::text || ' ' || current_schema()::text \
            FROM pg_control_system() c, pg_catalog.pg_database d WHERE d.datname = current_database()");
        match self.on {
            On::Sqlite(_) => Ok(None),
            On::Postgres(_) => self.row(&IDENTITY, &[], |row| row.t(0)),
        }
    }

    /// Runs a migration's text, which is written in PostgreSQL's words.
    pub(super) fn run_migration(&self, text: &str) -> StoreResult<()> {
        match self.on {
            On::Sqlite(connection) => Ok(connection.execute_batch(&for_sqlite(text))?),
            On::Postgres(session) => session.batch(&for_postgres(text)),
        }
    }

    /// Runs a part of a job that may fail without the rest; its failure undoes only the part.
    pub fn attempt<T>(&self, part: impl FnOnce(&Self) -> StoreResult<T>) -> StoreResult<T> {
        self.batch("SAVEPOINT attempt")?;
        let result = part(self);
        if result.is_err()
            && let On::Postgres(session) = self.on
        {
            session.forgive();
        }
        let back = "ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt";
        self.batch(if result.is_ok() { "RELEASE SAVEPOINT attempt" } else { back })?;
        result
    }

    fn batch(&self, text: &'static str) -> StoreResult<()> {
        match self.on {
            On::Sqlite(connection) => Ok(connection.execute_batch(text)?),
            On::Postgres(session) => session.batch(text),
        }
    }

    /// Runs a statement; answers how many rows it changed.
    pub(super) fn execute(&self, sql: &Sql, values: &[Val<'_>]) -> StoreResult<usize> {
        match self.on {
            On::Sqlite(connection) => {
                Ok(connection.prepare_cached(sql.0)?.execute(rusqlite::params_from_iter(values))?)
            }
            On::Postgres(session) => session.execute(sql, values),
        }
    }

    /// Runs a statement for each of `rows`, on PostgreSQL without waiting for one after the other.
    pub(super) fn execute_each<'v>(&self, sql: &Sql, rows: impl IntoIterator<Item = Vec<Val<'v>>>) -> StoreResult<()> {
        match self.on {
            On::Sqlite(_) => rows.into_iter().try_for_each(|values| self.execute(sql, &values).map(drop)),
            On::Postgres(session) => session.execute_each(sql, rows.into_iter().collect()),
        }
    }

    /// All rows of a reply, read by `read`.
    pub(super) fn rows<T>(
        &self,
        sql: &Sql,
        values: &[Val<'_>],
        read: impl Fn(&Row<'_>) -> StoreResult<T>,
    ) -> StoreResult<Vec<T>> {
        match self.on {
            On::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql.0)?;
                let mut rows = statement.query(rusqlite::params_from_iter(values))?;
                let mut out = Vec::new();
                while let Some(row) = rows.next()? {
                    out.push(read(&Row(Columns::Sqlite(row)))?);
                }
                Ok(out)
            }
            On::Postgres(session) => {
                session.query(sql, values)?.iter().map(|row| read(&Row(Columns::Postgres(row)))).collect()
            }
        }
    }

    /// The first row of a reply.
    pub(super) fn row<T>(
        &self,
        sql: &Sql,
        values: &[Val<'_>],
        read: impl Fn(&Row<'_>) -> StoreResult<T>,
    ) -> StoreResult<Option<T>> {
        Ok(self.rows(sql, values, read)?.into_iter().next())
    }

    /// Prepares a statement, for the test that tries them all.
    #[cfg(test)]
    pub(super) fn prepare(&self, sql: &Sql) -> StoreResult<()> {
        match self.on {
            On::Sqlite(connection) => Ok(connection.prepare(sql.0).map(drop)?),
            On::Postgres(session) => session.prepare(sql),
        }
    }
}

/// A statement as PostgreSQL writes it: `$1` for `?1` (no text of ours has a question mark for anything else), and text compared byte by byte.
pub(super) fn statement_for_postgres(text: &str) -> String {
    text.replace('?', "$").replace(" AS text)", " AS text) COLLATE \"C\"")
}

/// The schema's type words in SQLite's, and every table STRICT.
fn for_sqlite(text: &str) -> String {
    text.replace("BIGSERIAL", "INTEGER")
        .replace("BIGINT", "INTEGER")
        .replace("BYTEA", "BLOB")
        .replace("\n);", "\n) STRICT;")
}

/// Text is compared byte by byte, as SQLite does, whatever the database's collation: ids and cursors rely on it.
fn for_postgres(text: &str) -> String {
    text.replace(" TEXT", " TEXT COLLATE \"C\"")
}
