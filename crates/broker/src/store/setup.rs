//! The installation itself: named facts, data keys.

use super::{Change, StoreError, StoreResult, Tx, Val, sql};
use crate::vault::WrappedKey;

sql! {
    META = "SELECT value FROM meta WHERE name = ?1";
    PUT_META = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    DATA_KEYS = "SELECT id, root_key, wrapped FROM data_keys ORDER BY id";
    ADD_DATA_KEY = "INSERT INTO data_keys (id, root_key, wrapped, created_at) VALUES (?1, ?2, ?3, ?4)";
}

impl Tx<'_> {
    /// A named fact about the installation.
    pub fn meta(&self, name: &str) -> StoreResult<Option<String>> {
        self.row(&META, &[Val::T(name)], |row| row.t(0))
    }

    /// Sets a named fact.
    pub fn put_meta(&self, name: &str, value: &str) -> StoreResult<()> {
        self.execute(&PUT_META, &[Val::T(name), Val::T(value)]).map(drop)
    }

    /// All data keys, oldest first.
    pub fn data_keys(&self) -> StoreResult<Vec<WrappedKey>> {
        self.rows(&DATA_KEYS, &[], |row| {
            Ok(WrappedKey {
                id: u32::try_from(row.i(0)?)
                    .map_err(|_| StoreError::Unreadable { table: "data_keys", column: "id" })?,
                root_key: row.t(1)?,
                wrapped: row.b(2)?,
            })
        })
    }

    /// Adds a data key.
    pub fn add_data_key(&self, key: &WrappedKey, now_ms: i64) -> StoreResult<()> {
        let values = [Val::I(i64::from(key.id)), Val::T(&key.root_key), Val::B(&key.wrapped), Val::I(now_ms)];
        self.execute(&ADD_DATA_KEY, &values)?;
        self.announce(&Change::DataKeys)
    }
}
