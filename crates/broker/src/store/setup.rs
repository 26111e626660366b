//! The installation itself: named facts, data keys, the user's own provider definitions.

use super::{Change, StoreError, StoreResult, Tx, Val, sql};
use crate::model::Tenant;
use crate::vault::WrappedKey;

sql! {
    META = "SELECT value FROM meta WHERE name = ?1";
    PUT_META = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    DATA_KEYS = "SELECT id, root_key, wrapped FROM data_keys ORDER BY id";
    ADD_DATA_KEY = "INSERT INTO data_keys (id, root_key, wrapped, created_at) VALUES (?1, ?2, ?3, ?4)";
    PROVIDERS = "SELECT id, definition FROM providers WHERE tenant = ?1 ORDER BY id";
    PUT_PROVIDER = "INSERT INTO providers (tenant, id, definition, updated_at) VALUES (?1, ?2, ?3, ?4) \
        ON CONFLICT (tenant, id) DO UPDATE SET definition = excluded.definition, updated_at = excluded.updated_at";
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

    /// The tenant's own definitions: id and text.
    pub fn providers(&self, tenant: &Tenant) -> StoreResult<Vec<(String, String)>> {
        self.rows(&PROVIDERS, &[Val::T(tenant.as_str())], |row| Ok((row.t(0)?, row.t(1)?)))
    }

    /// Adds or replaces one of the tenant's own definitions.
    pub fn put_provider(&self, tenant: &Tenant, id: &str, text: &str, now_ms: i64) -> StoreResult<()> {
        let values = [Val::T(tenant.as_str()), Val::T(id), Val::T(text), Val::I(now_ms)];
        self.execute(&PUT_PROVIDER, &values)?;
        self.announce(&Change::Providers)
    }
}
