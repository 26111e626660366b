//! Integrations. Their secrets are sealed before they come here.

use super::{Change, Row, StoreError, StoreResult, Tx, Val, from_json, sql, to_json};
use crate::model::{Integration, IntegrationId, Tenant};

macro_rules! columns {
    () => {
        "id, tenant, name, provider, method, client_id, secrets, scopes, audience, header_prefix, client_auth, variables, generation, created_at, updated_at, client_secret_expires_at, provider_version, client_certificate, grant_type, token_key, content_type, limits, description, extra, renewal"
    };
}

sql! {
    ADD = concat!("INSERT INTO integrations (", columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25)");
    UPDATE = "UPDATE integrations SET name = ?3, method = ?4, client_id = ?5, secrets = ?6, scopes = ?7, audience = ?8, header_prefix = ?9, client_auth = ?10, \
        variables = ?11, generation = ?12, updated_at = ?13, client_secret_expires_at = ?14, \
        client_certificate = ?15, grant_type = ?16, token_key = ?17, provider_version = ?18, content_type = ?19, limits = ?20, description = ?21, extra = ?22, renewal = ?23 WHERE tenant = ?1 AND id = ?2 AND generation = ?12 - 1";
    BY_NAME = concat!("SELECT ", columns!(), " FROM integrations WHERE tenant = ?1 AND (id = ?2 OR name = ?2)");
    BY_ID = concat!("SELECT ", columns!(), " FROM integrations WHERE id = ?1");
    LIST = concat!("SELECT ", columns!(), " FROM integrations WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
    REMOVE = "DELETE FROM integrations WHERE tenant = ?1 AND id = ?2";
    WITH_CERTIFICATE = concat!("SELECT ", columns!(), " FROM integrations WHERE client_certificate IS NOT NULL ORDER BY id");
    ENDING = concat!("SELECT ", columns!(), " FROM integrations WHERE client_secret_expires_at > ?1 AND client_secret_expires_at <= ?2 ORDER BY client_secret_expires_at");
    FORGET_BACKOFF = "UPDATE connections SET retry_at = NULL, due_at = CASE WHEN state = 'failing' THEN ?2 ELSE due_at END WHERE integration = ?1";
}

impl Tx<'_> {
    /// Adds an integration with its sealed secrets.
    pub fn add_integration(&self, it: &Integration, sealed: Option<&[u8]>) -> StoreResult<()> {
        let (scopes, variables, limits) = (to_json(&it.scopes), to_json(&it.variables), to_json(&it.limits));
        let (extra, renewal) = (to_json(&it.extra), to_json(&it.renewal));
        let client_auth = it.client_auth.map(|auth| auth.to_string());
        let values = [
            Val::T(it.id.as_str()),
            Val::T(it.tenant.as_str()),
            Val::T(&it.name),
            Val::T(&it.provider),
            Val::T(&it.method),
            Val::T(&it.client_id),
            Val::opt_b(sealed),
            Val::T(&scopes),
            Val::opt_t(it.audience.as_deref()),
            Val::opt_t(it.header_prefix.as_deref()),
            Val::opt_t(client_auth.as_deref()),
            Val::T(&variables),
            Val::I(it.generation),
            Val::I(it.created_at),
            Val::I(it.updated_at),
            Val::opt_i(it.client_secret_expires_at),
            Val::T(&it.provider_version),
            Val::opt_t(it.client_certificate.as_deref()),
            Val::opt_t(it.grant_type.as_deref()),
            Val::opt_t(it.token_key.as_deref()),
            Val::opt_t(it.content_type.as_deref()),
            Val::T(&limits),
            Val::T(&it.description),
            Val::T(&extra),
            Val::T(&renewal),
        ];
        self.execute(&ADD, &values).map(drop)
    }

    /// Writes a changed integration whose generation was raised by one; `false` when somebody else changed it first.
    pub fn update_integration(&self, it: &Integration, sealed: Option<&[u8]>) -> StoreResult<bool> {
        let (scopes, variables, limits) = (to_json(&it.scopes), to_json(&it.variables), to_json(&it.limits));
        let (extra, renewal) = (to_json(&it.extra), to_json(&it.renewal));
        let client_auth = it.client_auth.map(|auth| auth.to_string());
        let values = [
            Val::T(it.tenant.as_str()),
            Val::T(it.id.as_str()),
            Val::T(&it.name),
            Val::T(&it.method),
            Val::T(&it.client_id),
            Val::opt_b(sealed),
            Val::T(&scopes),
            Val::opt_t(it.audience.as_deref()),
            Val::opt_t(it.header_prefix.as_deref()),
            Val::opt_t(client_auth.as_deref()),
            Val::T(&variables),
            Val::I(it.generation),
            Val::I(it.updated_at),
            Val::opt_i(it.client_secret_expires_at),
            Val::opt_t(it.client_certificate.as_deref()),
            Val::opt_t(it.grant_type.as_deref()),
            Val::opt_t(it.token_key.as_deref()),
            Val::T(&it.provider_version),
            Val::opt_t(it.content_type.as_deref()),
            Val::T(&limits),
            Val::T(&it.description),
            Val::T(&extra),
            Val::T(&renewal),
        ];
        let written = self.execute(&UPDATE, &values)? == 1;
        if written {
            self.announce(&Change::Integration(it.id.clone()))?;
        }
        Ok(written)
    }

    /// The integration of this id or name, with its sealed secrets.
    pub fn integration(
        &self,
        tenant: &Tenant,
        id_or_name: &str,
    ) -> StoreResult<Option<(Integration, Option<Vec<u8>>)>> {
        self.row(&BY_NAME, &[Val::T(tenant.as_str()), Val::T(id_or_name)], read_integration)
    }

    /// The integration of this id in any tenant: for the callback, which has no caller.
    pub fn integration_by_id(&self, id: &IntegrationId) -> StoreResult<Option<(Integration, Option<Vec<u8>>)>> {
        self.row(&BY_ID, &[Val::T(id.as_str())], read_integration)
    }

    /// Integrations after `after`.
    pub fn integrations(&self, tenant: &Tenant, after: &str, limit: i64) -> StoreResult<Vec<Integration>> {
        let values = [Val::T(tenant.as_str()), Val::T(after), Val::I(limit)];
        self.rows(&LIST, &values, |row| read_integration(row).map(|(it, _)| it))
    }

    /// Removes an integration; refused ([`StoreError::InUse`]) while it has connections.
    pub fn remove_integration(&self, tenant: &Tenant, id: &IntegrationId) -> StoreResult<bool> {
        Ok(self.execute(&REMOVE, &[Val::T(tenant.as_str()), Val::T(id.as_str())])? == 1)
    }

    /// Integrations whose client secret ends after `after`, at `until` at the latest.
    pub fn client_secrets_ending(&self, after: i64, until: i64) -> StoreResult<Vec<Integration>> {
        self.rows(&ENDING, &[Val::I(after), Val::I(until)], |row| read_integration(row).map(|(it, _)| it))
    }

    /// Integrations with a client certificate; their secrets stay sealed.
    pub fn integrations_with_certificate(&self) -> StoreResult<Vec<Integration>> {
        self.rows(&WITH_CERTIFICATE, &[], |row| read_integration(row).map(|(it, _)| it))
    }

    /// After a change of set-up: its failing connections are tried again now, not when the backoff ends.
    pub fn forget_backoff(&self, id: &IntegrationId, now_ms: i64) -> StoreResult<()> {
        self.execute(&FORGET_BACKOFF, &[Val::T(id.as_str()), Val::I(now_ms)]).map(drop)
    }
}

fn read_integration(row: &Row<'_>) -> StoreResult<(Integration, Option<Vec<u8>>)> {
    let unreadable = |column| StoreError::Unreadable { table: "integrations", column };
    let client_auth = row.opt_t(10)?.map(|word| word.parse().map_err(|_| unreadable("client_auth"))).transpose()?;
    let integration = Integration {
        id: row.t(0)?.parse().map_err(|_| unreadable("id"))?,
        tenant: Tenant::from_stored(row.t(1)?),
        name: row.t(2)?,
        provider: row.t(3)?,
        provider_version: row.t(16)?,
        method: row.t(4)?,
        client_id: row.t(5)?,
        client_secret: None,
        client_secret_expires_at: row.opt_i(15)?,
        client_key: None,
        client_certificate: row.opt_t(17)?,
        client_certificate_key: None,
        scopes: from_json("integrations", "scopes", &row.t(7)?)?,
        audience: row.opt_t(8)?,
        header_prefix: row.opt_t(9)?,
        client_auth,
        grant_type: row.opt_t(18)?,
        token_key: row.opt_t(19)?,
        content_type: row.opt_t(20)?,
        limits: from_json("integrations", "limits", &row.t(21)?)?,
        description: row.t(22)?,
        extra: from_json("integrations", "extra", &row.t(23)?)?,
        renewal: from_json("integrations", "renewal", &row.t(24)?)?,
        variables: from_json("integrations", "variables", &row.t(11)?)?,
        secret_variables: std::collections::BTreeMap::new(),
        generation: row.i(12)?,
        created_at: row.i(13)?,
        updated_at: row.i(14)?,
    };
    Ok((integration, row.opt_b(6)?))
}
