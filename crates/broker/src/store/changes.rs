//! What other processes must hear of. On SQLite there is one process, and nothing is written.

use super::{StoreResult, Tx, Val, sql};
use crate::model::{ConnectionId, IntegrationId, KeyId, SourceId};

sql! {
    ANNOUNCE = "INSERT INTO changes (at, kind, object) VALUES (?1, ?2, ?3)";
    BEHIND = "SELECT seq, kind, object FROM changes WHERE seq > ?1 ORDER BY seq";
    BETWEEN = "SELECT seq, kind, object FROM changes WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq";
    ENDS = "SELECT coalesce(max(CASE WHEN at < ?1 THEN seq END), 0), coalesce(max(seq), 0) FROM changes";
    SWEEP = "DELETE FROM changes WHERE at < ?1";
}

/// Something that a process may hold in memory was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A connection has a token set of this generation, or none any more.
    Tokens(ConnectionId, i64),
    /// A connection was added, edited or removed.
    Connection(ConnectionId),
    /// An API key was revoked.
    Key(KeyId),
    /// An integration was edited.
    Integration(IntegrationId),
    /// A data source was added, edited or removed.
    Source(SourceId),
    /// A definition was added or replaced.
    Providers,
    /// There is a new data key.
    DataKeys,
    /// The fence fell, or was lifted.
    Fence,
    /// A newer version's word: whatever it means, nothing in memory can be trusted.
    Unknown,
}

/// A change and its number.
pub type Numbered = (i64, Change);

impl Tx<'_> {
    /// Tells the other processes, when and only when this transaction commits.
    pub(super) fn announce(&self, change: &Change) -> StoreResult<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let (kind, object) = written(change);
        self.execute(&ANNOUNCE, &[Val::I(self.now_ms()?), Val::T(kind), Val::T(&object)]).map(drop)
    }

    /// The changes after number `after`.
    pub fn changes_after(&self, after: i64) -> StoreResult<Vec<Numbered>> {
        self.rows(&BEHIND, &[Val::I(after)], |row| Ok((row.i(0)?, read(&row.t(1)?, &row.t(2)?))))
    }

    /// The changes of these numbers, ends included.
    pub fn changes_between(&self, from: i64, to: i64) -> StoreResult<Vec<Numbered>> {
        self.rows(&BETWEEN, &[Val::I(from), Val::I(to)], |row| Ok((row.i(0)?, read(&row.t(1)?, &row.t(2)?))))
    }

    /// The last number from before `at` (the database's clock), and the last of all; 0 where there is none.
    pub fn last_changes(&self, at: i64) -> StoreResult<(i64, i64)> {
        Ok(self.row(&ENDS, &[Val::I(at)], |row| Ok((row.i(0)?, row.i(1)?)))?.unwrap_or((0, 0)))
    }

    /// Takes away what was announced before `at` (the database's clock).
    pub fn sweep_changes(&self, at: i64) -> StoreResult<()> {
        self.execute(&SWEEP, &[Val::I(at)]).map(drop)
    }
}

fn written(change: &Change) -> (&'static str, String) {
    match change {
        Change::Tokens(id, generation) => ("tokens", format!("{id} {generation}")),
        Change::Connection(id) => ("connection", id.to_string()),
        Change::Key(id) => ("key", id.to_string()),
        Change::Integration(id) => ("integration", id.to_string()),
        Change::Source(id) => ("source", id.to_string()),
        Change::Providers => ("providers", String::new()),
        Change::DataKeys => ("data_keys", String::new()),
        Change::Fence => ("fence", String::new()),
        Change::Unknown => ("unknown", String::new()),
    }
}

fn read(kind: &str, object: &str) -> Change {
    let tokens = || {
        let (id, generation) = object.split_once(' ')?;
        Some(Change::Tokens(id.parse().ok()?, generation.parse().ok()?))
    };
    let change = match kind {
        "tokens" => tokens(),
        "connection" => object.parse().ok().map(Change::Connection),
        "key" => object.parse().ok().map(Change::Key),
        "integration" => object.parse().ok().map(Change::Integration),
        "source" => object.parse().ok().map(Change::Source),
        "providers" => Some(Change::Providers),
        "data_keys" => Some(Change::DataKeys),
        "fence" => Some(Change::Fence),
        _ => None,
    };
    change.unwrap_or(Change::Unknown)
}
