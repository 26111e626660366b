//! Data sources. The values of their secret variables are sealed before they come here.

use super::{Change, Row, StoreError, StoreResult, Tx, Val, from_json, sql, to_json};
use crate::model::{Behind, ConnectionId, DataSource, IntegrationId, SourceId, SourceSpec, Tenant};

macro_rules! columns {
    () => {
        "id, tenant, name, description, base_url, connection, integration, secrets, spec, generation, created_at, updated_at"
    };
}

sql! {
    ADD = concat!("INSERT INTO data_sources (", columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)");
    // The same values in the same places as `ADD` has them.
    UPDATE = "UPDATE data_sources SET name = ?3, description = ?4, base_url = ?5, connection = ?6, integration = ?7, secrets = ?8, spec = ?9, generation = ?10, \
        created_at = ?11, updated_at = ?12 WHERE id = ?1 AND tenant = ?2 AND generation = ?10 - 1";
    BY_NAME = concat!("SELECT ", columns!(), " FROM data_sources WHERE tenant = ?1 AND (id = ?2 OR name = ?2)");
    LIST = concat!("SELECT ", columns!(), " FROM data_sources WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
    REMOVE = "DELETE FROM data_sources WHERE tenant = ?1 AND id = ?2";
    USES_CONNECTION = "SELECT name FROM data_sources WHERE connection = ?1 ORDER BY name LIMIT 1";
    USES_INTEGRATION = "SELECT name FROM data_sources WHERE integration = ?1 ORDER BY name LIMIT 1";
}

impl Tx<'_> {
    /// Adds a data source with its sealed secrets.
    pub fn add_source(&self, it: &DataSource, sealed: Option<&[u8]>) -> StoreResult<()> {
        let spec = to_json(&it.spec);
        self.execute(&ADD, &written(it, &spec, sealed))?;
        // A name that another process knows as missing isn't kept; one whose source was removed may be.
        self.announce(&Change::Source(it.id.clone()))
    }

    /// Writes a changed data source whose generation was raised by one; `false` when somebody else changed it first.
    pub fn update_source(&self, it: &DataSource, sealed: Option<&[u8]>) -> StoreResult<bool> {
        let spec = to_json(&it.spec);
        let is_written = self.execute(&UPDATE, &written(it, &spec, sealed))? == 1;
        if is_written {
            self.announce(&Change::Source(it.id.clone()))?;
        }
        Ok(is_written)
    }

    /// The data source of this id or name, with its sealed secrets.
    pub fn source(&self, tenant: &Tenant, id_or_name: &str) -> StoreResult<Option<(DataSource, Option<Vec<u8>>)>> {
        self.row(&BY_NAME, &[Val::T(tenant.as_str()), Val::T(id_or_name)], read_source)
    }

    /// Data sources after `after`, without their secrets.
    pub fn sources(&self, tenant: &Tenant, after: &str, limit: i64) -> StoreResult<Vec<DataSource>> {
        let values = [Val::T(tenant.as_str()), Val::T(after), Val::I(limit)];
        self.rows(&LIST, &values, |row| read_source(row).map(|(it, _)| it))
    }

    /// Removes a data source.
    pub fn remove_source(&self, tenant: &Tenant, id: &SourceId) -> StoreResult<bool> {
        let removed = self.execute(&REMOVE, &[Val::T(tenant.as_str()), Val::T(id.as_str())])? == 1;
        if removed {
            self.announce(&Change::Source(id.clone()))?;
        }
        Ok(removed)
    }

    /// The name of a data source that is reached through this connection.
    pub fn source_on_connection(&self, id: &ConnectionId) -> StoreResult<Option<String>> {
        self.row(&USES_CONNECTION, &[Val::T(id.as_str())], |row| row.t(0))
    }

    /// The name of a data source that is reached through each caller's own connection under this integration.
    pub fn source_on_integration(&self, id: &IntegrationId) -> StoreResult<Option<String>> {
        self.row(&USES_INTEGRATION, &[Val::T(id.as_str())], |row| row.t(0))
    }
}

/// The columns of a data source, in their order.
fn written<'a>(it: &'a DataSource, spec: &'a str, sealed: Option<&'a [u8]>) -> [Val<'a>; 12] {
    let (connection, integration) = match &it.behind {
        Behind::Connection(id) => (Some(id.as_str()), None),
        Behind::EachCallers(id) => (None, Some(id.as_str())),
    };
    [
        Val::T(it.id.as_str()),
        Val::T(it.tenant.as_str()),
        Val::T(&it.name),
        Val::T(&it.description),
        Val::opt_t(it.base_url.as_deref()),
        Val::opt_t(connection),
        Val::opt_t(integration),
        Val::opt_b(sealed),
        Val::T(spec),
        Val::I(it.generation),
        Val::I(it.created_at),
        Val::I(it.updated_at),
    ]
}

fn read_source(row: &Row<'_>) -> StoreResult<(DataSource, Option<Vec<u8>>)> {
    let unreadable = |column| StoreError::Unreadable { table: "data_sources", column };
    let behind = match (row.opt_t(5)?, row.opt_t(6)?) {
        (Some(id), _) => Behind::Connection(id.parse().map_err(|_| unreadable("connection"))?),
        (None, Some(id)) => Behind::EachCallers(id.parse().map_err(|_| unreadable("integration"))?),
        (None, None) => return Err(unreadable("connection")),
    };
    let source = DataSource {
        id: row.t(0)?.parse().map_err(|_| unreadable("id"))?,
        tenant: Tenant::from_stored(row.t(1)?),
        name: row.t(2)?,
        description: row.t(3)?,
        base_url: row.opt_t(4)?,
        behind,
        spec: from_json::<SourceSpec>("data_sources", "spec", &row.t(8)?)?,
        secrets: std::collections::BTreeMap::new(),
        generation: row.i(9)?,
        created_at: row.i(10)?,
        updated_at: row.i(11)?,
    };
    Ok((source, row.opt_b(7)?))
}
