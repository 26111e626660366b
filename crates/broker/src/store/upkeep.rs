//! What is swept away when its time has come, and replies kept for repeated requests.

use super::consents::{read_pending, read_session};
use super::{StoreResult, Tx, Val, sql};
use crate::model::{ConnectSession, PendingGrant, Tenant};

sql! {
    SWEEP_CONSENTS = "DELETE FROM consents WHERE expires_at <= ?1";
    SWEEP_PENDING = "DELETE FROM pending_grants WHERE expires_at <= ?1 \
        RETURNING id, tenant, connection, session, code_hash, browser_hash, sealed, account, expires_at";
    SWEEP_SESSIONS = "DELETE FROM connect_sessions WHERE expires_at <= ?1 \
        AND NOT EXISTS (SELECT 1 FROM consents c WHERE c.session = connect_sessions.id) \
        AND NOT EXISTS (SELECT 1 FROM pending_grants p WHERE p.session = connect_sessions.id) \
        AND NOT EXISTS (SELECT 1 FROM device_grants d WHERE d.session = connect_sessions.id) \
        RETURNING id, tenant, integration, connection, owner, return_url, direct, made_connection, expires_at, used_at";
    SWEEP_REPLIES = "DELETE FROM idempotency WHERE created_at <= ?1";
    ADD_REPLY = "INSERT INTO idempotency (tenant, caller, idempotency_key, request_hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    PUT_REPLY = "UPDATE idempotency SET reply = ?4 WHERE tenant = ?1 AND caller = ?2 AND idempotency_key = ?3";
    REPLY = "SELECT request_hash, reply FROM idempotency WHERE tenant = ?1 AND caller = ?2 AND idempotency_key = ?3";
    FORGET_REPLY = "DELETE FROM idempotency WHERE tenant = ?1 AND caller = ?2 AND idempotency_key = ?3";
    FORGET_UNANSWERED = "DELETE FROM idempotency WHERE reply IS NULL AND created_at <= ?1";
}

/// What a sweep took away and somebody must still act on.
#[derive(Debug, Default)]
pub struct Swept {
    /// Grants nobody confirmed: to be revoked at the provider.
    pub unconfirmed: Vec<PendingGrant>,
    /// Sessions that ended.
    pub sessions: Vec<ConnectSession>,
}

/// A kept reply.
#[derive(Clone, Debug)]
pub struct IdempotencyRow {
    /// SHA-256 of the request.
    pub request_hash: [u8; 32],
    /// Sealed status and body; `None` while the first request runs.
    pub reply: Option<Vec<u8>>,
}

impl Tx<'_> {
    /// Takes away what has expired by `now`, and kept replies from before `replies_before`.
    pub fn sweep(&self, now: i64, replies_before: i64) -> StoreResult<Swept> {
        self.execute(&SWEEP_CONSENTS, &[Val::I(now)])?;
        self.execute(&SWEEP_REPLIES, &[Val::I(replies_before)])?;
        Ok(Swept {
            unconfirmed: self.rows(&SWEEP_PENDING, &[Val::I(now)], read_pending)?,
            sessions: self.rows(&SWEEP_SESSIONS, &[Val::I(now)], read_session)?,
        })
    }

    /// Notes that a request with this key has begun; `false` when the key was used before.
    pub fn begin_idempotent(
        &self,
        tenant: &Tenant,
        caller: &str,
        key: &str,
        request_hash: &[u8; 32],
        now: i64,
    ) -> StoreResult<bool> {
        let values = [Val::T(tenant.as_str()), Val::T(caller), Val::T(key), Val::B(request_hash), Val::I(now)];
        Ok(self.execute(&ADD_REPLY, &values)? == 1)
    }

    /// Keeps the sealed reply for repetitions.
    pub fn keep_reply(&self, tenant: &Tenant, caller: &str, key: &str, reply: &[u8]) -> StoreResult<()> {
        let values = [Val::T(tenant.as_str()), Val::T(caller), Val::T(key), Val::B(reply)];
        self.execute(&PUT_REPLY, &values).map(drop)
    }

    /// What is known of this key.
    pub fn kept_reply(&self, tenant: &Tenant, caller: &str, key: &str) -> StoreResult<Option<IdempotencyRow>> {
        let values = [Val::T(tenant.as_str()), Val::T(caller), Val::T(key)];
        self.row(&REPLY, &values, |row| Ok(IdempotencyRow { request_hash: row.hash(0)?, reply: row.opt_b(1)? }))
    }

    /// The request failed in a way that may be repeated: its key is free again.
    pub fn forget_reply(&self, tenant: &Tenant, caller: &str, key: &str) -> StoreResult<()> {
        let values = [Val::T(tenant.as_str()), Val::T(caller), Val::T(key)];
        self.execute(&FORGET_REPLY, &values).map(drop)
    }

    /// The requests that were under way by `before` ended with their process: their keys are free again.
    pub fn forget_unanswered(&self, before: i64) -> StoreResult<()> {
        self.execute(&FORGET_UNANSWERED, &[Val::I(before)]).map(drop)
    }
}
