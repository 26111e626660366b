//! What happened: a connection's history and the audit.

use super::{StoreError, StoreResult, Tx, Val, sql};
use crate::model::{AuditId, ConnectionId, Event, EventId, Tenant};

/// An audit record about to be written.
#[derive(Clone, Debug)]
pub struct NewAudit {
    /// Its id.
    pub id: AuditId,
    /// Whose.
    pub tenant: Tenant,
    /// When, Unix milliseconds.
    pub at: i64,
    /// Who: the key's name, `person` or `keyholder`.
    pub actor: String,
    /// What: `token.read`, `proxy.call`, `connection.create`, …
    pub action: &'static str,
    /// On what: an id.
    pub object: String,
    /// `ok` or `refused`.
    pub outcome: &'static str,
    /// More, without secrets.
    pub detail: Option<String>,
}

/// An audit record as stored.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Its id.
    pub id: String,
    /// When, Unix milliseconds.
    pub at: i64,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// On what.
    pub object: String,
    /// `ok` or `refused`.
    pub outcome: String,
    /// More.
    pub detail: Option<String>,
}

sql! {
    ADD_EVENT = "INSERT INTO events (id, tenant, connection, at, kind, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    EVENTS = "SELECT id, at, kind, message FROM events WHERE connection = ?1 ORDER BY id DESC LIMIT ?2";
    ADD_AUDIT = "INSERT INTO audit (id, tenant, at, actor, action, object, outcome, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
        ON CONFLICT (id) DO NOTHING";
    AUDIT = "SELECT id, at, actor, action, object, outcome, detail FROM audit WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
    AUDIT_BACK = "SELECT id, at, actor, action, object, outcome, detail FROM audit WHERE tenant = ?1 ORDER BY id DESC LIMIT ?2";
}

impl Tx<'_> {
    /// Adds an entry to a connection's history.
    pub fn add_event(
        &self,
        id: &EventId,
        tenant: &Tenant,
        connection: &ConnectionId,
        at: i64,
        kind: &str,
        message: &str,
    ) -> StoreResult<()> {
        let values = [
            Val::T(id.as_str()),
            Val::T(tenant.as_str()),
            Val::T(connection.as_str()),
            Val::I(at),
            Val::T(kind),
            Val::T(message),
        ];
        self.execute(&ADD_EVENT, &values).map(drop)
    }

    /// A connection's history, newest first.
    pub fn events(&self, connection: &ConnectionId, limit: i64) -> StoreResult<Vec<Event>> {
        self.rows(&EVENTS, &[Val::T(connection.as_str()), Val::I(limit)], |row| {
            Ok(Event {
                id: row.t(0)?.parse().map_err(|_| StoreError::Unreadable { table: "events", column: "id" })?,
                at: row.i(1)?,
                kind: row.t(2)?,
                message: row.t(3)?,
            })
        })
    }

    /// Writes audit records. Those that are there already, from a commit whose answer was lost, stay as they are.
    pub fn add_audit(&self, new: &[NewAudit]) -> StoreResult<()> {
        let values = new.iter().map(|new| {
            vec![
                Val::T(new.id.as_str()),
                Val::T(new.tenant.as_str()),
                Val::I(new.at),
                Val::T(&new.actor),
                Val::T(new.action),
                Val::T(&new.object),
                Val::T(new.outcome),
                Val::opt_t(new.detail.as_deref()),
            ]
        });
        self.execute_each(&ADD_AUDIT, values)
    }

    /// Audit records after `after`, oldest first.
    pub fn audit(&self, tenant: &Tenant, after: &str, limit: i64) -> StoreResult<Vec<AuditRow>> {
        let values = [Val::T(tenant.as_str()), Val::T(after), Val::I(limit)];
        self.rows(&AUDIT, &values, read_audit)
    }

    /// The newest audit records, newest first.
    pub fn newest_audit(&self, tenant: &Tenant, limit: i64) -> StoreResult<Vec<AuditRow>> {
        self.rows(&AUDIT_BACK, &[Val::T(tenant.as_str()), Val::I(limit)], read_audit)
    }
}

fn read_audit(row: &super::Row<'_>) -> StoreResult<AuditRow> {
    Ok(AuditRow {
        id: row.t(0)?,
        at: row.i(1)?,
        actor: row.t(2)?,
        action: row.t(3)?,
        object: row.t(4)?,
        outcome: row.t(5)?,
        detail: row.opt_t(6)?,
    })
}
