//! Definitions as texts, version by version.

use keyholder_provider::Base;
use serde::{Deserialize, Serialize};

use super::{Change, Row, StoreResult, Tx, Val, from_json, sql, to_json};
use crate::model::Tenant;

macro_rules! columns {
    () => {
        "id, version, number, definition, bases, created_at"
    };
}

sql! {
    NEWEST = concat!("SELECT ", columns!(), " FROM providers WHERE tenant = ?1 AND definition IS NOT NULL AND number > 0 AND number = \
        (SELECT max(newer.number) FROM providers newer WHERE newer.tenant = providers.tenant AND newer.id = providers.id AND newer.definition IS NOT NULL) ORDER BY id");
    VERSIONS = concat!("SELECT ", columns!(), ", (SELECT count(*) FROM integrations WHERE integrations.tenant = providers.tenant AND integrations.provider = providers.id \
        AND integrations.provider_version = providers.version) FROM providers WHERE tenant = ?1 AND id = ?2 AND definition IS NOT NULL ORDER BY number DESC, created_at DESC, version");
    VERSION = concat!("SELECT ", columns!(), " FROM providers WHERE tenant = ?1 AND id = ?2 AND version = ?3 AND definition IS NOT NULL");
    LAST_NUMBER = "SELECT coalesce(max(number), 0), coalesce(max(CASE WHEN definition IS NOT NULL THEN number END), 0) FROM providers WHERE tenant = ?1 AND id = ?2";
    ADD = "INSERT INTO providers (tenant, id, version, number, definition, bases, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    KEEP = "INSERT INTO providers (tenant, id, version, number, definition, bases, created_at) VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6) ON CONFLICT (tenant, id, version) DO NOTHING";
    USED = "SELECT count(*) FROM integrations WHERE tenant = ?1 AND provider = ?2 AND provider_version = ?3";
    REMOVE = "UPDATE providers SET definition = NULL, bases = '[]' WHERE tenant = ?1 AND id = ?2 AND version = ?3 AND definition IS NOT NULL";
}

/// A version of a definition.
#[derive(Clone, Debug)]
pub struct StoredDefinition {
    /// Its id.
    pub id: String,
    /// The version's name.
    pub version: String,
    /// Its number; 0 for a built-in one.
    pub number: i64,
    /// Its text.
    pub text: String,
    /// What it extended when it was added.
    pub bases: Vec<Base>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// As it stands in the row.
#[derive(Serialize, Deserialize)]
struct StoredBase {
    id: String,
    text: String,
}

impl Tx<'_> {
    /// The newest version of each of the tenant's own definitions.
    pub fn providers(&self, tenant: &Tenant) -> StoreResult<Vec<StoredDefinition>> {
        self.rows(&NEWEST, &[Val::T(tenant.as_str())], read)
    }

    /// All versions of a definition, the newest first, each with the number of integrations that stay on it.
    pub fn provider_versions(&self, tenant: &Tenant, id: &str) -> StoreResult<Vec<(StoredDefinition, i64)>> {
        self.rows(&VERSIONS, &[Val::T(tenant.as_str()), Val::T(id)], |row| Ok((read(row)?, row.i(6)?)))
    }

    /// One version.
    pub fn provider_version(&self, tenant: &Tenant, id: &str, version: &str) -> StoreResult<Option<StoredDefinition>> {
        self.row(&VERSION, &[Val::T(tenant.as_str()), Val::T(id), Val::T(version)], read)
    }

    /// The number of the newest version that is there, 0 where there is none.
    pub fn newest_provider(&self, tenant: &Tenant, id: &str) -> StoreResult<i64> {
        Ok(self.row(&LAST_NUMBER, &[Val::T(tenant.as_str()), Val::T(id)], |row| row.i(1))?.unwrap_or(0))
    }

    /// Adds a version of one of the tenant's own definitions and answers its number.
    pub fn add_provider(&self, tenant: &Tenant, id: &str, text: &str, bases: &[Base], now_ms: i64) -> StoreResult<i64> {
        let last = self.row(&LAST_NUMBER, &[Val::T(tenant.as_str()), Val::T(id)], |row| row.i(0))?.unwrap_or(0);
        let number = last + 1;
        let (version, bases) = (number.to_string(), written(bases));
        let values = [
            Val::T(tenant.as_str()),
            Val::T(id),
            Val::T(&version),
            Val::I(number),
            Val::T(text),
            Val::T(&bases),
            Val::I(now_ms),
        ];
        self.execute(&ADD, &values)?;
        self.announce(&Change::Providers)?;
        Ok(number)
    }

    /// Keeps the text of a built-in definition that an integration is made with.
    pub fn keep_built_in(
        &self,
        tenant: &Tenant,
        id: &str,
        version: &str,
        text: &str,
        bases: &[Base],
        now_ms: i64,
    ) -> StoreResult<()> {
        let bases = written(bases);
        let values =
            [Val::T(tenant.as_str()), Val::T(id), Val::T(version), Val::T(text), Val::T(&bases), Val::I(now_ms)];
        self.execute(&KEEP, &values).map(drop)
    }

    /// How many integrations stay on a version.
    pub fn provider_used(&self, tenant: &Tenant, id: &str, version: &str) -> StoreResult<i64> {
        let values = [Val::T(tenant.as_str()), Val::T(id), Val::T(version)];
        Ok(self.row(&USED, &values, |row| row.i(0))?.unwrap_or(0))
    }

    /// Removes a version; its number isn't given again.
    pub fn remove_provider(&self, tenant: &Tenant, id: &str, version: &str) -> StoreResult<()> {
        self.execute(&REMOVE, &[Val::T(tenant.as_str()), Val::T(id), Val::T(version)])?;
        self.announce(&Change::Providers)
    }
}

fn written(bases: &[Base]) -> String {
    let bases: Vec<StoredBase> =
        bases.iter().map(|base| StoredBase { id: base.id.clone(), text: base.text.to_string() }).collect();
    to_json(&bases)
}

fn read(row: &Row<'_>) -> StoreResult<StoredDefinition> {
    let bases: Vec<StoredBase> = from_json("providers", "bases", &row.t(4)?)?;
    Ok(StoredDefinition {
        id: row.t(0)?,
        version: row.t(1)?,
        number: row.i(2)?,
        text: row.opt_t(3)?.unwrap_or_default(),
        bases: bases.into_iter().map(|base| Base { id: base.id, text: base.text.into() }).collect(),
        created_at: row.i(5)?,
    })
}
