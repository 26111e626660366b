//! Grants that a person gives on another device.

use super::{Row, StoreError, StoreResult, Tx, Val, sql};
use crate::model::{ConnectionId, DeviceGrant, DeviceGrantId, Tenant};

macro_rules! columns {
    () => {
        "connection, id, tenant, integration, session, browser_hash, sealed, user_code, verification_uri, verification_uri_complete, \
         interval_ms, ask_at, expires_at"
    };
}

sql! {
    FORGET = "DELETE FROM device_grants WHERE connection = ?1";
    ADD = concat!("INSERT INTO device_grants (", columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)");
    OF_CONNECTION = concat!("SELECT ", columns!(), " FROM device_grants WHERE connection = ?1");
    DUE = concat!("SELECT ", columns!(), " FROM device_grants WHERE ask_at <= ?1 ORDER BY ask_at LIMIT ?2");
    NEXT = "SELECT min(ask_at) FROM device_grants WHERE ask_at > ?1";
    // Whoever moves the time is the one who asks; the next has to move it again.
    MOVE = "UPDATE device_grants SET ask_at = ?3, interval_ms = ?4 WHERE id = ?1 AND ask_at = ?2";
    TAKE = "DELETE FROM device_grants WHERE id = ?1 AND ask_at = ?2";
}

impl Tx<'_> {
    /// Stores a device grant in the place of an older one of the same connection.
    pub fn put_device_grant(&self, it: &DeviceGrant) -> StoreResult<()> {
        self.forget_device_grant(&it.connection)?;
        let values = [
            Val::T(it.connection.as_str()),
            Val::T(it.id.as_str()),
            Val::T(it.tenant.as_str()),
            Val::T(it.integration.as_str()),
            Val::opt_t(it.page.as_ref().map(|(session, _)| session.as_str())),
            Val::opt_b(it.page.as_ref().map(|(_, browser)| browser.as_slice())),
            Val::B(&it.sealed),
            Val::T(&it.user_code),
            Val::T(&it.verification_uri),
            Val::opt_t(it.verification_uri_complete.as_deref()),
            Val::I(it.interval_ms),
            Val::I(it.ask_at),
            Val::I(it.expires_at),
        ];
        self.execute(&ADD, &values).map(drop)
    }

    /// The device grant under way for a connection.
    pub fn device_grant(&self, connection: &ConnectionId) -> StoreResult<Option<DeviceGrant>> {
        self.row(&OF_CONNECTION, &[Val::T(connection.as_str())], read_device_grant)
    }

    /// Those whose provider is to be asked by `now` (the database's clock), the longest waiting first; and when the next one is.
    pub fn device_grants_due(&self, now: i64, limit: i64) -> StoreResult<(Vec<DeviceGrant>, Option<i64>)> {
        let due = self.rows(&DUE, &[Val::I(now), Val::I(limit)], read_device_grant)?;
        Ok((due, self.row(&NEXT, &[Val::I(now)], |row| row.opt_i(0))?.flatten()))
    }

    /// Sets when the provider is asked next; `false` when somebody else did since, or the grant is gone.
    pub fn move_device_grant(&self, seen: &DeviceGrant, ask_at: i64, interval_ms: i64) -> StoreResult<bool> {
        let values = [Val::T(seen.id.as_str()), Val::I(seen.ask_at), Val::I(ask_at), Val::I(interval_ms)];
        Ok(self.execute(&MOVE, &values)? == 1)
    }

    /// Takes a device grant; `false` when somebody else has it, or it is gone.
    pub fn take_device_grant(&self, seen: &DeviceGrant) -> StoreResult<bool> {
        Ok(self.execute(&TAKE, &[Val::T(seen.id.as_str()), Val::I(seen.ask_at)])? == 1)
    }

    /// Forgets the device grant of a connection; `false` when there is none.
    pub fn forget_device_grant(&self, connection: &ConnectionId) -> StoreResult<bool> {
        Ok(self.execute(&FORGET, &[Val::T(connection.as_str())])? == 1)
    }
}

fn read_device_grant(row: &Row<'_>) -> StoreResult<DeviceGrant> {
    let bad = |column| StoreError::Unreadable { table: "device_grants", column };
    let session = row.opt_t(4)?.map(|id| id.parse().map_err(|_| bad("session"))).transpose()?;
    Ok(DeviceGrant {
        connection: row.t(0)?.parse().map_err(|_| bad("connection"))?,
        id: row.t(1)?.parse::<DeviceGrantId>().map_err(|_| bad("id"))?,
        tenant: Tenant::from_stored(row.t(2)?),
        integration: row.t(3)?.parse().map_err(|_| bad("integration"))?,
        page: match session {
            Some(session) => Some((session, row.hash(5)?)),
            None => None,
        },
        sealed: row.b(6)?,
        user_code: row.t(7)?,
        verification_uri: row.t(8)?,
        verification_uri_complete: row.opt_t(9)?,
        interval_ms: row.i(10)?,
        ask_at: row.i(11)?,
        expires_at: row.i(12)?,
    })
}
