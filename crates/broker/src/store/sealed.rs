//! Every sealed column that lives long, for the rotation of data keys.

use super::{Row, StoreResult, Tx, Val, sql};

sql! {
    SEALED_CONNECTIONS = "SELECT id, tenant, generation, secrets, token_set, previous_token_set FROM connections WHERE id > ?1 ORDER BY id LIMIT ?2";
    RESEAL_CONNECTION = "UPDATE connections SET secrets = ?2, token_set = ?3, previous_token_set = ?4 WHERE id = ?1 AND generation = ?5 \
        AND secrets IS NOT DISTINCT FROM ?6 AND token_set IS NOT DISTINCT FROM ?7 AND previous_token_set IS NOT DISTINCT FROM ?8";
    SEALED_INTEGRATIONS = "SELECT id, tenant, generation, secrets FROM integrations WHERE id > ?1 ORDER BY id LIMIT ?2";
    SEALED_SOURCES = "SELECT id, tenant, generation, secrets FROM data_sources WHERE id > ?1 ORDER BY id LIMIT ?2";
    RESEAL_SOURCE = "UPDATE data_sources SET secrets = ?2 WHERE id = ?1 AND generation = ?3 AND secrets IS NOT DISTINCT FROM ?4";
    RESEAL_INTEGRATION = "UPDATE integrations SET secrets = ?2 WHERE id = ?1 AND generation = ?3 AND secrets IS NOT DISTINCT FROM ?4";
}

/// The sealed columns of a row.
#[derive(Clone, Debug)]
pub struct SealedRow {
    /// The row's id.
    pub id: String,
    /// Its tenant.
    pub tenant: String,
    /// Its generation.
    pub generation: i64,
    /// Client secret, password, secret variables.
    pub secrets: Option<Vec<u8>>,
    /// Token set, sealed under `generation`; connections only.
    pub token_set: Option<Vec<u8>>,
    /// The token set before it, sealed under `generation - 1`; connections only.
    pub previous_token_set: Option<Vec<u8>>,
}

impl SealedRow {
    /// All values of the row.
    pub fn values(&self) -> impl Iterator<Item = &Vec<u8>> {
        [&self.secrets, &self.token_set, &self.previous_token_set].into_iter().flatten()
    }
}

impl Tx<'_> {
    /// Sealed columns of the connections after `after`.
    pub fn sealed_connections(&self, after: &str, limit: i64) -> StoreResult<Vec<SealedRow>> {
        self.rows(&SEALED_CONNECTIONS, &[Val::T(after), Val::I(limit)], |row| {
            Ok(SealedRow {
                id: row.t(0)?,
                tenant: row.t(1)?,
                generation: row.i(2)?,
                secrets: row.opt_b(3)?,
                token_set: row.opt_b(4)?,
                previous_token_set: row.opt_b(5)?,
            })
        })
    }

    /// Writes a connection's sealed columns back; `false` when another process changed them since `was` was read.
    pub fn reseal_connection(&self, was: &SealedRow, row: &SealedRow) -> StoreResult<bool> {
        let values = [
            Val::T(&row.id),
            Val::opt_b(row.secrets.as_deref()),
            Val::opt_b(row.token_set.as_deref()),
            Val::opt_b(row.previous_token_set.as_deref()),
            Val::I(was.generation),
            Val::opt_b(was.secrets.as_deref()),
            Val::opt_b(was.token_set.as_deref()),
            Val::opt_b(was.previous_token_set.as_deref()),
        ];
        Ok(self.execute(&RESEAL_CONNECTION, &values)? == 1)
    }

    /// Sealed columns of the integrations after `after`.
    pub fn sealed_integrations(&self, after: &str, limit: i64) -> StoreResult<Vec<SealedRow>> {
        self.rows(&SEALED_INTEGRATIONS, &[Val::T(after), Val::I(limit)], read_secrets)
    }

    /// Writes an integration's sealed column back; `false` when another process changed it since `was` was read.
    pub fn reseal_integration(&self, was: &SealedRow, row: &SealedRow) -> StoreResult<bool> {
        let (old, new) = (was.secrets.as_deref(), row.secrets.as_deref());
        let values = [Val::T(&row.id), Val::opt_b(new), Val::I(was.generation), Val::opt_b(old)];
        Ok(self.execute(&RESEAL_INTEGRATION, &values)? == 1)
    }

    /// Sealed columns of the data sources after `after`.
    pub fn sealed_sources(&self, after: &str, limit: i64) -> StoreResult<Vec<SealedRow>> {
        self.rows(&SEALED_SOURCES, &[Val::T(after), Val::I(limit)], read_secrets)
    }

    /// Writes a data source's sealed column back; `false` when another process changed it since `was` was read.
    pub fn reseal_source(&self, was: &SealedRow, row: &SealedRow) -> StoreResult<bool> {
        let (old, new) = (was.secrets.as_deref(), row.secrets.as_deref());
        let values = [Val::T(&row.id), Val::opt_b(new), Val::I(was.generation), Val::opt_b(old)];
        Ok(self.execute(&RESEAL_SOURCE, &values)? == 1)
    }
}

fn read_secrets(row: &Row<'_>) -> StoreResult<SealedRow> {
    Ok(SealedRow {
        id: row.t(0)?,
        tenant: row.t(1)?,
        generation: row.i(2)?,
        secrets: row.opt_b(3)?,
        token_set: None,
        previous_token_set: None,
    })
}
