//! Connect sessions, consents under way, grants waiting for confirmation.

use super::{Row, StoreError, StoreResult, Tx, Val, sql};
use crate::model::{ConnectSession, ConnectionId, Consent, PendingGrant, SessionId, Tenant};

macro_rules! session_columns {
    () => {
        "id, tenant, integration, connection, owner, return_url, direct, made_connection, expires_at, used_at"
    };
}
macro_rules! consent_columns {
    () => {
        "state_hash, tenant, connection, integration, session, sealed, issuer, issuer_required, redirect_uri, browser_hash, answer, expires_at"
    };
}
macro_rules! pending_columns {
    () => {
        "id, tenant, connection, session, code_hash, browser_hash, sealed, account, expires_at"
    };
}

sql! {
    ADD_SESSION = "INSERT INTO connect_sessions (id, tenant, token_hash, integration, connection, owner, return_url, direct, made_connection, created_at, expires_at) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    SESSION_BY_TOKEN = concat!("SELECT ", session_columns!(), " FROM connect_sessions WHERE token_hash = ?1");
    SESSION = concat!("SELECT ", session_columns!(), " FROM connect_sessions WHERE id = ?1");
    USE_SESSION = "UPDATE connect_sessions SET used_at = ?2 WHERE id = ?1 AND used_at IS NULL";
    ADD_CONSENT = concat!("INSERT INTO consents (", consent_columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)");
    CONSENT = concat!("SELECT ", consent_columns!(), " FROM consents WHERE state_hash = ?1");
    KEEP_ANSWER = "UPDATE consents SET answer = ?2 WHERE state_hash = ?1 AND answer IS NULL";
    TAKE_CONSENT = concat!("DELETE FROM consents WHERE state_hash = ?1 RETURNING ", consent_columns!());
    ADD_PENDING = concat!("INSERT INTO pending_grants (", pending_columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
    PENDING = concat!("SELECT ", pending_columns!(), " FROM pending_grants WHERE id = ?1");
    PENDING_OF_SESSION = concat!("SELECT ", pending_columns!(), " FROM pending_grants WHERE session = ?1");
    PENDING_BY_CODE = concat!("SELECT ", pending_columns!(), " FROM pending_grants WHERE code_hash = ?1");
    AWAITED = "SELECT count(*) FROM (SELECT id FROM connect_sessions WHERE connection = ?1 \
        UNION ALL SELECT connection FROM consents WHERE connection = ?1 UNION ALL SELECT id FROM device_grants WHERE connection = ?1 \
        UNION ALL SELECT id FROM pending_grants WHERE connection = ?1) AS awaited";
    REPLACE_PENDING = "UPDATE pending_grants SET sealed = ?3, account = ?4, code_hash = ?5 WHERE id = ?1 AND code_hash = ?2";
    NAME_PENDING = "UPDATE pending_grants SET code_hash = ?2 WHERE id = ?1 AND code_hash IS NULL";
    TAKE_PENDING = "DELETE FROM pending_grants WHERE id = ?1";
    TAKE_PENDING_OF = concat!("DELETE FROM pending_grants WHERE connection = ?1 RETURNING ", pending_columns!());
}

/// A connect session about to be stored.
pub struct NewSession<'a> {
    /// What it is.
    pub session: &'a ConnectSession,
    /// SHA-256 of the token in its URL.
    pub token_hash: &'a [u8; 32],
}

impl Tx<'_> {
    /// Stores a connect session.
    pub fn add_session(&self, new: &NewSession<'_>, now: i64) -> StoreResult<()> {
        let it = new.session;
        let values = [
            Val::T(it.id.as_str()),
            Val::T(it.tenant.as_str()),
            Val::B(new.token_hash),
            Val::T(it.integration.as_str()),
            Val::T(it.connection.as_str()),
            Val::opt_t(it.owner.as_deref()),
            Val::opt_t(it.return_url.as_deref()),
            Val::I(i64::from(it.direct)),
            Val::I(i64::from(it.made_connection)),
            Val::I(now),
            Val::I(it.expires_at),
        ];
        self.execute(&ADD_SESSION, &values).map(drop)
    }

    /// The session whose URL carries this token.
    pub fn session_by_token(&self, token_hash: &[u8; 32]) -> StoreResult<Option<ConnectSession>> {
        self.row(&SESSION_BY_TOKEN, &[Val::B(token_hash)], read_session)
    }

    /// The session of this id.
    pub fn session(&self, id: &SessionId) -> StoreResult<Option<ConnectSession>> {
        self.row(&SESSION, &[Val::T(id.as_str())], read_session)
    }

    /// Marks a session as used; `false` when it was used before.
    pub fn use_session(&self, id: &SessionId, now: i64) -> StoreResult<bool> {
        Ok(self.execute(&USE_SESSION, &[Val::T(id.as_str()), Val::I(now)])? == 1)
    }

    /// Stores all that the callback will need, before the browser leaves.
    pub fn add_consent(&self, it: &Consent) -> StoreResult<()> {
        let values = [
            Val::B(&it.state_hash),
            Val::T(it.tenant.as_str()),
            Val::T(it.connection.as_str()),
            Val::T(it.integration.as_str()),
            Val::T(it.session.as_str()),
            Val::B(&it.sealed),
            Val::opt_t(it.issuer.as_deref()),
            Val::I(i64::from(it.issuer_required)),
            Val::T(&it.redirect_uri),
            Val::B(&it.browser_hash),
            Val::opt_b(it.answer.as_deref()),
            Val::I(it.expires_at),
        ];
        self.execute(&ADD_CONSENT, &values).map(drop)
    }

    /// The consent of this state, which stays.
    pub fn consent(&self, state_hash: &[u8; 32]) -> StoreResult<Option<Consent>> {
        self.row(&CONSENT, &[Val::B(state_hash)], read_consent)
    }

    /// Keeps a sealed answer that was posted; `false` when there is one already, or no such consent.
    pub fn keep_answer(&self, state_hash: &[u8; 32], sealed: &[u8]) -> StoreResult<bool> {
        Ok(self.execute(&KEEP_ANSWER, &[Val::B(state_hash), Val::B(sealed)])? == 1)
    }

    /// Takes a consent by its state: one atomic statement, so a state works once.
    pub fn take_consent(&self, state_hash: &[u8; 32]) -> StoreResult<Option<Consent>> {
        self.row(&TAKE_CONSENT, &[Val::B(state_hash)], read_consent)
    }

    /// Stores a grant that waits to be confirmed.
    pub fn add_pending(&self, it: &PendingGrant) -> StoreResult<()> {
        let values = [
            Val::T(it.id.as_str()),
            Val::T(it.tenant.as_str()),
            Val::T(it.connection.as_str()),
            Val::T(it.session.as_str()),
            Val::opt_b(it.code_hash.as_ref().map(<[u8; 32]>::as_slice)),
            Val::B(&it.browser_hash),
            Val::B(&it.sealed),
            Val::opt_t(it.account.as_deref()),
            Val::I(it.expires_at),
        ];
        self.execute(&ADD_PENDING, &values).map(drop)
    }

    /// The waiting grant of this id.
    pub fn pending(&self, id: &str) -> StoreResult<Option<PendingGrant>> {
        self.row(&PENDING, &[Val::T(id)], read_pending)
    }

    /// The waiting grant that a session led to.
    pub fn pending_of_session(&self, session: &SessionId) -> StoreResult<Option<PendingGrant>> {
        self.row(&PENDING_OF_SESSION, &[Val::T(session.as_str())], read_pending)
    }

    /// The waiting grant of a one-time code.
    pub fn pending_by_code(&self, code_hash: &[u8; 32]) -> StoreResult<Option<PendingGrant>> {
        self.row(&PENDING_BY_CODE, &[Val::B(code_hash)], read_pending)
    }

    /// Puts a waiting grant under a new one-time code; `false` when its code is another by now.
    pub fn replace_pending(
        &self,
        seen: &PendingGrant,
        sealed: &[u8],
        account: Option<&str>,
        code_hash: &[u8; 32],
    ) -> StoreResult<bool> {
        let Some(old) = &seen.code_hash else { return Ok(false) };
        let values = [Val::T(seen.id.as_str()), Val::B(old), Val::B(sealed), Val::opt_t(account), Val::B(code_hash)];
        Ok(self.execute(&REPLACE_PENDING, &values)? == 1)
    }

    /// Gives a waiting grant its first one-time code; `false` when it has one.
    pub fn name_pending(&self, it: &PendingGrant, code_hash: &[u8; 32]) -> StoreResult<bool> {
        Ok(self.execute(&NAME_PENDING, &[Val::T(it.id.as_str()), Val::B(code_hash)])? == 1)
    }

    /// Is there still a session, a consent, a device code or a waiting grant that could authorise this connection?
    pub fn is_awaited(&self, connection: &ConnectionId) -> StoreResult<bool> {
        Ok(self.row(&AWAITED, &[Val::T(connection.as_str())], |row| row.i(0))?.is_some_and(|count| count > 0))
    }

    /// Takes a waiting grant; `false` when it is already taken.
    pub fn take_pending(&self, it: &PendingGrant) -> StoreResult<bool> {
        Ok(self.execute(&TAKE_PENDING, &[Val::T(it.id.as_str())])? == 1)
    }

    /// Takes all grants that wait for a connection.
    pub fn take_pending_of(&self, connection: &ConnectionId) -> StoreResult<Vec<PendingGrant>> {
        self.rows(&TAKE_PENDING_OF, &[Val::T(connection.as_str())], read_pending)
    }
}

pub(super) fn read_session(row: &Row<'_>) -> StoreResult<ConnectSession> {
    let bad = |column| StoreError::Unreadable { table: "connect_sessions", column };
    Ok(ConnectSession {
        id: row.t(0)?.parse().map_err(|_| bad("id"))?,
        tenant: Tenant::from_stored(row.t(1)?),
        integration: row.t(2)?.parse().map_err(|_| bad("integration"))?,
        connection: row.t(3)?.parse().map_err(|_| bad("connection"))?,
        owner: row.opt_t(4)?,
        return_url: row.opt_t(5)?,
        direct: row.i(6)? != 0,
        made_connection: row.i(7)? != 0,
        expires_at: row.i(8)?,
        used_at: row.opt_i(9)?,
    })
}

pub(super) fn read_consent(row: &Row<'_>) -> StoreResult<Consent> {
    let bad = |column| StoreError::Unreadable { table: "consents", column };
    Ok(Consent {
        state_hash: row.hash(0)?,
        tenant: Tenant::from_stored(row.t(1)?),
        connection: row.t(2)?.parse().map_err(|_| bad("connection"))?,
        integration: row.t(3)?.parse().map_err(|_| bad("integration"))?,
        session: row.t(4)?.parse().map_err(|_| bad("session"))?,
        sealed: row.b(5)?,
        issuer: row.opt_t(6)?,
        issuer_required: row.i(7)? != 0,
        redirect_uri: row.t(8)?,
        browser_hash: row.hash(9)?,
        answer: row.opt_b(10)?,
        expires_at: row.i(11)?,
    })
}

pub(super) fn read_pending(row: &Row<'_>) -> StoreResult<PendingGrant> {
    let bad = |column| StoreError::Unreadable { table: "pending_grants", column };
    Ok(PendingGrant {
        id: row.t(0)?.parse().map_err(|_| bad("id"))?,
        tenant: Tenant::from_stored(row.t(1)?),
        connection: row.t(2)?.parse().map_err(|_| bad("connection"))?,
        session: row.t(3)?.parse().map_err(|_| bad("session"))?,
        code_hash: match row.opt_b(4)? {
            Some(_) => Some(row.hash(4)?),
            None => None,
        },
        browser_hash: row.hash(5)?,
        sealed: row.b(6)?,
        account: row.opt_t(7)?,
        expires_at: row.i(8)?,
    })
}
