//! API keys.

use super::{Change, Row, StoreError, StoreResult, Tx, Val, from_json, sql, to_json};
use crate::model::{Caller, KeyId, NewKey, StoredKey, Tenant};

/// A key about to be stored.
pub struct NewStoredKey<'a> {
    /// Its id.
    pub id: &'a KeyId,
    /// Whose.
    pub tenant: &'a Tenant,
    /// What it shall be.
    pub new: &'a NewKey,
    /// First characters, to tell keys apart.
    pub hint: &'a str,
    /// SHA-256 of the key.
    pub hash: &'a [u8; 32],
}

macro_rules! columns {
    () => {
        "id, tenant, name, hint, scopes, limits, created_at, expires_at, last_used_at, revoked_at"
    };
}

sql! {
    ADD_KEY = "INSERT INTO api_keys (id, tenant, name, hint, key_hash, scopes, limits, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    KEY_BY_HASH = concat!("SELECT ", columns!(), " FROM api_keys WHERE key_hash = ?1");
    KEYS = concat!("SELECT ", columns!(), " FROM api_keys WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
    KEY = concat!("SELECT ", columns!(), " FROM api_keys WHERE tenant = ?1 AND (id = ?2 OR (name = ?2 AND revoked_at IS NULL))");
    REVOKE_KEY = "UPDATE api_keys SET revoked_at = ?3 WHERE tenant = ?1 AND id = ?2 AND revoked_at IS NULL";
    KEY_USED = "UPDATE api_keys SET last_used_at = ?2 WHERE id = ?1";
}

impl Tx<'_> {
    /// Stores a new key.
    pub fn add_key(&self, key: &NewStoredKey<'_>, now_ms: i64) -> StoreResult<()> {
        let (scopes, limits) = (to_json(&key.new.scopes), to_json(&key.new.limits));
        let values = [
            Val::T(key.id.as_str()),
            Val::T(key.tenant.as_str()),
            Val::T(&key.new.name),
            Val::T(key.hint),
            Val::B(key.hash),
            Val::T(&scopes),
            Val::T(&limits),
            Val::I(now_ms),
            Val::opt_i(key.new.expires_at),
        ];
        self.execute(&ADD_KEY, &values).map(drop)
    }

    /// The key with this hash.
    pub fn key_by_hash(&self, hash: &[u8; 32]) -> StoreResult<Option<StoredKey>> {
        self.row(&KEY_BY_HASH, &[Val::B(hash)], read_key)
    }

    /// The key of this id, or the live key of this name.
    pub fn key(&self, tenant: &Tenant, id_or_name: &str) -> StoreResult<Option<StoredKey>> {
        self.row(&KEY, &[Val::T(tenant.as_str()), Val::T(id_or_name)], read_key)
    }

    /// Keys after `after`, revoked ones included.
    pub fn keys(&self, tenant: &Tenant, after: &str, limit: i64) -> StoreResult<Vec<StoredKey>> {
        let values = [Val::T(tenant.as_str()), Val::T(after), Val::I(limit)];
        self.rows(&KEYS, &values, read_key)
    }

    /// Revokes a key; `false` when there was no such live key.
    pub fn revoke_key(&self, tenant: &Tenant, id: &KeyId, now_ms: i64) -> StoreResult<bool> {
        let values = [Val::T(tenant.as_str()), Val::T(id.as_str()), Val::I(now_ms)];
        let revoked = self.execute(&REVOKE_KEY, &values)? == 1;
        if revoked {
            self.announce(&Change::Key(id.clone()))?;
        }
        Ok(revoked)
    }

    /// Notes when a key was last used.
    pub fn key_used(&self, id: &KeyId, now_ms: i64) -> StoreResult<()> {
        self.execute(&KEY_USED, &[Val::T(id.as_str()), Val::I(now_ms)]).map(drop)
    }
}

fn read_key(row: &Row<'_>) -> StoreResult<StoredKey> {
    Ok(StoredKey {
        caller: Caller {
            key: row.t(0)?.parse().map_err(|_| StoreError::Unreadable { table: "api_keys", column: "id" })?,
            tenant: Tenant::from_stored(row.t(1)?),
            name: row.t(2)?,
            scopes: from_json("api_keys", "scopes", &row.t(4)?)?,
            limits: from_json("api_keys", "limits", &row.t(5)?)?,
            expires_at: row.opt_i(7)?,
        },
        hint: row.t(3)?,
        created_at: row.i(6)?,
        last_used_at: row.opt_i(8)?,
        revoked_at: row.opt_i(9)?,
    })
}
