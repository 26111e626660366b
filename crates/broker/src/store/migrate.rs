//! Bringing the schema up to date, and refusing one that isn't ours.
//!
//! It runs at every start, in one transaction that no other process shares: of two that start at once on an empty database, one makes the schema.

use keyholder_oauth::sha256;

use super::{Row, StoreError, StoreResult, Tx, Val, sql};

/// A step of the schema. Once released, its text never changes.
pub(super) struct Migration {
    pub(super) number: i64,
    pub(super) text: &'static str,
}

/// All of them, in order.
pub(super) const MIGRATIONS: &[Migration] =
    &[Migration { number: 1, text: include_str!("../../../../migrations/0001_initial.sql") }];

const TABLE: &str = "CREATE TABLE migrations (
    number BIGINT PRIMARY KEY,
    checksum TEXT NOT NULL,
    applied_at BIGINT NOT NULL
);";

sql! {
    APPLIED = "SELECT number, checksum FROM migrations ORDER BY number";
    ADD_APPLIED = "INSERT INTO migrations (number, checksum, applied_at) VALUES (?1, ?2, ?3)";
}

struct Applied {
    number: i64,
    checksum: String,
}

/// Applies what of `known` is missing.
///
/// # Errors
/// [`StoreError::Schema`]: tables of another program, a schema newer than `known`, or one that was made by another text of the same migration.
pub(super) fn run(tx: &Tx<'_>, known: &[Migration]) -> StoreResult<()> {
    tx.lock_schema()?;
    let tables = tx.tables()?;
    if !tables.iter().any(|table| table == "migrations") {
        if let Some(foreign) = tables.first() {
            return Err(StoreError::Schema(format!(
                "the database holds tables that are not this program's (`{foreign}`), or an unreleased version's; give Keyholder an empty database of its own"
            )));
        }
        tx.run_migration(TABLE)?;
    }
    let applied = tx.rows(&APPLIED, &[], read_applied)?;
    check(&applied, known)?;
    for migration in &known[applied.len()..] {
        tx.run_migration(migration.text)?;
        let values = [Val::I(migration.number), Val::T(&checksum(migration.text)), Val::I(tx.now_ms()?)];
        tx.execute(&ADD_APPLIED, &values)?;
    }
    Ok(())
}

/// What was applied must be the beginning of what is known.
fn check(applied: &[Applied], known: &[Migration]) -> StoreResult<()> {
    let newest = known.last().map_or(0, |migration| migration.number);
    if let Some(newer) = applied.last().filter(|last| last.number > newest) {
        return Err(StoreError::Schema(format!(
            "the database has schema {}, this program knows up to {newest}: it was used by a newer version; start that version, or restore a backup",
            newer.number
        )));
    }
    for (at, applied) in applied.iter().enumerate() {
        let fits = known.get(at).is_some_and(|it| it.number == applied.number && checksum(it.text) == applied.checksum);
        if !fits {
            return Err(StoreError::Schema(format!(
                "migration {} of the database is not the one this program has: the schema was made by a modified or unreleased version; start that version, or begin with an empty database",
                applied.number
            )));
        }
    }
    Ok(())
}

fn read_applied(row: &Row<'_>) -> StoreResult<Applied> {
    Ok(Applied { number: row.i(0)?, checksum: row.t(1)? })
}

fn checksum(text: &str) -> String {
    sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
