//! Operators of the console, their links and sessions.

use std::collections::BTreeSet;

use super::{Row, StoreError, StoreResult, Tx, Val, from_json, sql, to_json};
use crate::model::{KeyId, Operator, Passkey, PasskeyKey, Said, Scope, Tenant, Theme};

macro_rules! columns {
    () => {
        "o.id, o.tenant, o.name, o.scopes, o.password, o.theme, o.seen_at, o.created_at, (SELECT count(*) FROM passkeys p WHERE p.operator = o.id)"
    };
}

sql! {
    ADD_OPERATOR = "INSERT INTO operators (id, tenant, name, scopes, password, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    OPERATOR = concat!("SELECT ", columns!(), " FROM operators o WHERE o.tenant = ?1 AND (o.id = ?2 OR o.name = ?2)");
    OPERATORS = concat!("SELECT ", columns!(), " FROM operators o WHERE o.tenant = ?1 ORDER BY o.id");
    PUT_PASSWORD = "UPDATE operators SET password = ?2 WHERE id = ?1";
    PUT_OPERATOR = "UPDATE operators SET name = ?2, scopes = ?3 WHERE id = ?1";
    REMOVE_OPERATOR = "DELETE FROM operators WHERE id = ?1";
    REMOVE_PASSKEYS = "DELETE FROM passkeys WHERE operator = ?1";
    REMOVE_LINKS = "DELETE FROM operator_links WHERE operator = ?1";
    REMOVE_SESSIONS = "DELETE FROM console_sessions WHERE operator = ?1";
    OPERATOR_NAME = "SELECT name FROM operators WHERE tenant = ?1 AND id = ?2";
    PUT_THEME = "UPDATE operators SET theme = ?2 WHERE id = ?1";
    OPERATOR_SEEN = "UPDATE operators SET seen_at = ?2 WHERE id = ?1";
    FAILED = "INSERT INTO sign_in_failures (slot, failures, last_at) VALUES (?1, 1, ?2) \
        ON CONFLICT (slot) DO UPDATE SET last_at = ?2, failures = CASE WHEN sign_in_failures.last_at <= ?3 THEN 1 ELSE sign_in_failures.failures + 1 END";
    FAILURES = "SELECT failures, last_at FROM sign_in_failures WHERE slot = ?1";
    SWEEP_FAILURES = "DELETE FROM sign_in_failures WHERE last_at <= ?1";
    ADD_LINK = "INSERT INTO operator_links (token_hash, tenant, operator, scopes, first, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    LINK = "SELECT tenant, operator, scopes, first, expires_at FROM operator_links WHERE token_hash = ?1";
    TAKE_LINK = "DELETE FROM operator_links WHERE token_hash = ?1";
    DROP_FIRST_LINKS = "DELETE FROM operator_links WHERE tenant = ?1 AND first = 1";
    ADD_CONSOLE_SESSION = "INSERT INTO console_sessions (token_hash, tenant, operator, said, proved_at, created_at, seen_at, expires_at) VALUES (?1, ?2, ?3, '[]', ?4, ?4, ?4, ?5)";
    CONSOLE_SESSION = concat!("SELECT ", columns!(), ", s.said, s.seen_at, s.expires_at, s.created_at, s.proved_at FROM console_sessions s JOIN operators o ON o.id = s.operator WHERE s.token_hash = ?1");
    SEEN = "UPDATE console_sessions SET seen_at = ?2 WHERE token_hash = ?1";
    PROVED = "UPDATE console_sessions SET proved_at = ?2 WHERE token_hash = ?1";
    PUT_SAID = "UPDATE console_sessions SET said = ?2 WHERE token_hash = ?1";
    END_SESSION = "DELETE FROM console_sessions WHERE token_hash = ?1";
    END_SESSIONS = "DELETE FROM console_sessions WHERE operator = ?1 AND token_hash <> ?2";
    PASSKEYS = "SELECT operator, name, credential, algorithm, public_key, counter, created_at, used_at FROM passkeys WHERE operator = ?1 ORDER BY created_at, name";
    PASSKEY = "SELECT operator, name, credential, algorithm, public_key, counter, created_at, used_at FROM passkeys WHERE tenant = ?1 AND credential = ?2";
    ADD_PASSKEY = "INSERT INTO passkeys (operator, name, tenant, credential, algorithm, public_key, counter, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    PASSKEY_USED = "UPDATE passkeys SET counter = ?3, used_at = ?4 WHERE tenant = ?1 AND credential = ?2 AND (counter < ?3 OR (counter = 0 AND ?3 = 0))";
    REMOVE_PASSKEY = "DELETE FROM passkeys WHERE operator = ?1 AND name = ?2";
    ADD_CHALLENGE = "INSERT INTO passkey_challenges (challenge_hash, purpose, operator, expires_at) VALUES (?1, ?2, ?3, ?4)";
    TAKE_CHALLENGE = "DELETE FROM passkey_challenges WHERE challenge_hash = ?1 AND purpose = ?2 AND operator = ?3 AND expires_at > ?4";
    TRIM_CHALLENGES = "DELETE FROM passkey_challenges WHERE challenge_hash IN \
        (SELECT challenge_hash FROM passkey_challenges ORDER BY expires_at DESC, challenge_hash LIMIT 100 OFFSET 10000)";
    SWEEP_CHALLENGES = "DELETE FROM passkey_challenges WHERE expires_at <= ?1";
    SWEEP_LINKS = "DELETE FROM operator_links WHERE expires_at <= ?1";
    SWEEP_CONSOLE = "DELETE FROM console_sessions WHERE expires_at <= ?1 OR seen_at <= ?2";
}

/// An operator, with what only signing in looks at.
#[derive(Clone, Debug)]
pub struct StoredOperator {
    /// Whose.
    pub tenant: Tenant,
    /// The person.
    pub operator: Operator,
    /// Hash of the password, with its scheme.
    pub password_hash: Option<String>,
}

/// A passkey, as it is stored.
#[derive(Clone, Debug)]
pub struct StoredPasskey {
    /// Whose.
    pub operator: KeyId,
    /// What people see of it.
    pub shown: Passkey,
    /// What is verified.
    pub key: PasskeyKey,
}

/// A link, as it is stored.
#[derive(Clone, Debug)]
pub struct StoredLink {
    /// Whose.
    pub tenant: Tenant,
    /// Whose ways of signing in it sets: somebody new's, who gets this id, or an operator's.
    pub operator: KeyId,
    /// What somebody new may do; none: it is for an operator.
    pub scopes: BTreeSet<Scope>,
    /// Good only while there is no operator.
    pub first: bool,
    /// Unix milliseconds.
    pub expires_at: i64,
}

/// A session of the console, with its operator.
#[derive(Clone, Debug)]
pub struct StoredConsoleSession {
    /// Whose.
    pub stored: StoredOperator,
    /// What the next page shall say.
    pub said: Vec<Said>,
    /// Unix milliseconds; a minute behind at most.
    pub seen_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// When the person signed in, Unix milliseconds.
    pub created_at: i64,
    /// When the person last showed who they are, Unix milliseconds.
    pub proved_at: i64,
}

/// What a browser is asked a passkey for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To sign in, whoever it is.
    SignIn,
    /// To add one.
    Add,
    /// To show that it is still the same person.
    Prove,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Purpose::SignIn => "sign_in",
            Purpose::Add => "add",
            Purpose::Prove => "prove",
        }
    }
}

impl Tx<'_> {
    /// Stores a new operator.
    pub fn add_operator(&self, new: &StoredOperator) -> StoreResult<()> {
        let it = &new.operator;
        let scopes = to_json(&it.scopes);
        let values = [
            Val::T(it.id.as_str()),
            Val::T(new.tenant.as_str()),
            Val::T(&it.name),
            Val::T(&scopes),
            Val::opt_t(new.password_hash.as_deref()),
            Val::I(it.created_at),
        ];
        self.execute(&ADD_OPERATOR, &values).map(drop)
    }

    /// The operator of this id or name.
    pub fn operator(&self, tenant: &Tenant, id_or_name: &str) -> StoreResult<Option<StoredOperator>> {
        self.row(&OPERATOR, &[Val::T(tenant.as_str()), Val::T(id_or_name)], read_operator)
    }

    /// All operators, oldest first.
    pub fn operators(&self, tenant: &Tenant) -> StoreResult<Vec<StoredOperator>> {
        self.rows(&OPERATORS, &[Val::T(tenant.as_str())], read_operator)
    }

    /// Sets an operator's password, by its hash, or takes it away.
    pub fn put_operator_password(&self, id: &KeyId, hash: Option<&str>) -> StoreResult<()> {
        self.execute(&PUT_PASSWORD, &[Val::T(id.as_str()), Val::opt_t(hash)]).map(drop)
    }

    /// An operator's passkeys, oldest first.
    pub fn passkeys(&self, operator: &KeyId) -> StoreResult<Vec<StoredPasskey>> {
        self.rows(&PASSKEYS, &[Val::T(operator.as_str())], read_passkey)
    }

    /// The passkey of this credential id.
    pub fn passkey(&self, tenant: &Tenant, credential: &[u8]) -> StoreResult<Option<StoredPasskey>> {
        self.row(&PASSKEY, &[Val::T(tenant.as_str()), Val::B(credential)], read_passkey)
    }

    /// Stores a passkey.
    pub fn add_passkey(&self, tenant: &Tenant, new: &StoredPasskey) -> StoreResult<()> {
        let values = [
            Val::T(new.operator.as_str()),
            Val::T(&new.shown.name),
            Val::T(tenant.as_str()),
            Val::B(&new.key.credential),
            Val::I(new.key.algorithm),
            Val::B(&new.key.public_key),
            Val::I(new.key.counter),
            Val::I(new.shown.created_at),
        ];
        self.execute(&ADD_PASSKEY, &values).map(drop)
    }

    /// Notes a use of a passkey; `false` where its counter has come as far already, or it is gone.
    pub fn passkey_used(&self, tenant: &Tenant, credential: &[u8], counter: i64, now: i64) -> StoreResult<bool> {
        let values = [Val::T(tenant.as_str()), Val::B(credential), Val::I(counter), Val::I(now)];
        Ok(self.execute(&PASSKEY_USED, &values)? == 1)
    }

    /// Removes one passkey of an operator.
    pub fn remove_passkey(&self, operator: &KeyId, name: &str) -> StoreResult<()> {
        self.execute(&REMOVE_PASSKEY, &[Val::T(operator.as_str()), Val::T(name)]).map(drop)
    }

    /// Removes all passkeys of an operator.
    pub fn remove_passkeys(&self, operator: &KeyId) -> StoreResult<()> {
        self.execute(&REMOVE_PASSKEYS, &[Val::T(operator.as_str())]).map(drop)
    }

    /// Stores a question for a passkey. There are ten thousand at most: whoever asks for more loses the oldest.
    pub fn add_passkey_challenge(
        &self,
        hash: &[u8; 32],
        purpose: Purpose,
        whose: Option<&KeyId>,
        expires_at: i64,
    ) -> StoreResult<()> {
        let whose = whose.map_or("", KeyId::as_str);
        let values = [Val::B(hash), Val::T(purpose.as_str()), Val::T(whose), Val::I(expires_at)];
        self.execute(&ADD_CHALLENGE, &values)?;
        self.execute(&TRIM_CHALLENGES, &[]).map(drop)
    }

    /// Uses a question up; `false` where there is none of this purpose for them, or somebody else did.
    pub fn take_passkey_challenge(
        &self,
        hash: &[u8; 32],
        purpose: Purpose,
        whose: Option<&KeyId>,
        now: i64,
    ) -> StoreResult<bool> {
        let whose = whose.map_or("", KeyId::as_str);
        let values = [Val::B(hash), Val::T(purpose.as_str()), Val::T(whose), Val::I(now)];
        Ok(self.execute(&TAKE_CHALLENGE, &values)? == 1)
    }

    /// Sets an operator's name and role.
    pub fn put_operator(&self, id: &KeyId, name: &str, scopes: &BTreeSet<Scope>) -> StoreResult<()> {
        self.execute(&PUT_OPERATOR, &[Val::T(id.as_str()), Val::T(name), Val::T(&to_json(scopes))]).map(drop)
    }

    /// Removes an operator, with passkeys, links and sessions.
    pub fn remove_operator(&self, id: &KeyId) -> StoreResult<()> {
        self.remove_passkeys(id)?;
        self.execute(&REMOVE_SESSIONS, &[Val::T(id.as_str())])?;
        self.drop_operator_links(id)?;
        self.execute(&REMOVE_OPERATOR, &[Val::T(id.as_str())]).map(drop)
    }

    /// The name of the operator of this id.
    pub fn operator_name(&self, tenant: &Tenant, id: &str) -> StoreResult<Option<String>> {
        self.row(&OPERATOR_NAME, &[Val::T(tenant.as_str()), Val::T(id)], |row| row.t(0))
    }

    /// Sets an operator's colours.
    pub fn put_operator_theme(&self, id: &KeyId, theme: Option<Theme>) -> StoreResult<()> {
        self.execute(&PUT_THEME, &[Val::T(id.as_str()), Val::opt_t(theme.map(Theme::as_str))]).map(drop)
    }

    /// Notes that a password was wrong; those up to `forgotten` count no more.
    pub fn sign_in_failed(&self, slot: u16, now: i64, forgotten: i64) -> StoreResult<()> {
        self.execute(&FAILED, &[Val::I(slot.into()), Val::I(now), Val::I(forgotten)]).map(drop)
    }

    /// How many passwords were wrong, and when the last.
    pub fn sign_in_failures(&self, slot: u16) -> StoreResult<Option<(i64, i64)>> {
        self.row(&FAILURES, &[Val::I(slot.into())], |row| Ok((row.i(0)?, row.i(1)?)))
    }

    /// Takes away the wrong passwords up to `forgotten`.
    pub fn sweep_sign_in_failures(&self, forgotten: i64) -> StoreResult<()> {
        self.execute(&SWEEP_FAILURES, &[Val::I(forgotten)]).map(drop)
    }

    /// Ends an operator's links: who has chosen how to sign in, or got another link, has no use for them.
    pub fn drop_operator_links(&self, id: &KeyId) -> StoreResult<()> {
        self.execute(&REMOVE_LINKS, &[Val::T(id.as_str())]).map(drop)
    }

    /// Stores a link; it ends those before it for the same operator.
    pub fn add_operator_link(&self, token_hash: &[u8; 32], link: &StoredLink) -> StoreResult<()> {
        self.drop_operator_links(&link.operator)?;
        let values = [
            Val::B(token_hash),
            Val::T(link.tenant.as_str()),
            Val::T(link.operator.as_str()),
            Val::T(&to_json(&link.scopes)),
            Val::I(i64::from(link.first)),
            Val::I(link.expires_at),
        ];
        self.execute(&ADD_LINK, &values).map(drop)
    }

    /// The link of this token, which stays.
    pub fn operator_link(&self, token_hash: &[u8; 32]) -> StoreResult<Option<StoredLink>> {
        self.row(&LINK, &[Val::B(token_hash)], read_link)
    }

    /// Uses a link up; `false` when somebody else did.
    pub fn take_operator_link(&self, token_hash: &[u8; 32]) -> StoreResult<bool> {
        Ok(self.execute(&TAKE_LINK, &[Val::B(token_hash)])? == 1)
    }

    /// Takes away what earlier starts have printed.
    pub fn drop_first_links(&self, tenant: &Tenant) -> StoreResult<()> {
        self.execute(&DROP_FIRST_LINKS, &[Val::T(tenant.as_str())]).map(drop)
    }

    /// Begins a session.
    pub fn add_console_session(
        &self,
        token_hash: &[u8; 32],
        tenant: &Tenant,
        operator: &KeyId,
        now: i64,
        expires_at: i64,
    ) -> StoreResult<()> {
        let values =
            [Val::B(token_hash), Val::T(tenant.as_str()), Val::T(operator.as_str()), Val::I(now), Val::I(expires_at)];
        self.execute(&ADD_CONSOLE_SESSION, &values)?;
        self.execute(&OPERATOR_SEEN, &[Val::T(operator.as_str()), Val::I(now)]).map(drop)
    }

    /// The session of this token.
    pub fn console_session(&self, token_hash: &[u8; 32]) -> StoreResult<Option<StoredConsoleSession>> {
        self.row(&CONSOLE_SESSION, &[Val::B(token_hash)], |row| {
            Ok(StoredConsoleSession {
                stored: read_operator(row)?,
                said: read_said(&row.t(9)?)?,
                seen_at: row.i(10)?,
                expires_at: row.i(11)?,
                created_at: row.i(12)?,
                proved_at: row.i(13)?,
            })
        })
    }

    /// Notes that a session was used, by whom.
    pub fn console_session_seen(&self, token_hash: &[u8; 32], operator: &KeyId, now: i64) -> StoreResult<()> {
        self.execute(&SEEN, &[Val::B(token_hash), Val::I(now)])?;
        self.execute(&OPERATOR_SEEN, &[Val::T(operator.as_str()), Val::I(now)]).map(drop)
    }

    /// Notes that the person behind a session has shown who they are.
    pub fn console_session_proved(&self, token_hash: &[u8; 32], now: i64) -> StoreResult<()> {
        self.execute(&PROVED, &[Val::B(token_hash), Val::I(now)]).map(drop)
    }

    /// What the next page of a session shall say.
    pub fn put_said(&self, token_hash: &[u8; 32], said: &[Said]) -> StoreResult<()> {
        let parts: Vec<_> = said.iter().map(|it| (it.kind, &it.text, &it.saved)).collect();
        self.execute(&PUT_SAID, &[Val::B(token_hash), Val::T(&to_json(&parts))]).map(drop)
    }

    /// Ends a session.
    pub fn end_console_session(&self, token_hash: &[u8; 32]) -> StoreResult<bool> {
        Ok(self.execute(&END_SESSION, &[Val::B(token_hash)])? == 1)
    }

    /// Ends an operator's sessions, but the one of this token.
    pub fn end_console_sessions(&self, operator: &KeyId, but: Option<&[u8; 32]>) -> StoreResult<()> {
        let but = but.map_or(&[][..], <[u8; 32]>::as_slice);
        self.execute(&END_SESSIONS, &[Val::T(operator.as_str()), Val::B(but)]).map(drop)
    }

    /// Takes away links and questions for passkeys that have expired by `now`, and sessions that have or were not used since `idle_since`.
    pub fn sweep_console(&self, now: i64, idle_since: i64) -> StoreResult<()> {
        self.execute(&SWEEP_LINKS, &[Val::I(now)])?;
        self.execute(&SWEEP_CHALLENGES, &[Val::I(now)])?;
        self.execute(&SWEEP_CONSOLE, &[Val::I(now), Val::I(idle_since)]).map(drop)
    }
}

fn read_operator(row: &Row<'_>) -> StoreResult<StoredOperator> {
    let password_hash = row.opt_t(4)?;
    Ok(StoredOperator {
        tenant: Tenant::from_stored(row.t(1)?),
        operator: Operator {
            id: id(row.t(0)?, "operators", "id")?,
            name: row.t(2)?,
            scopes: from_json("operators", "scopes", &row.t(3)?)?,
            has_password: password_hash.is_some(),
            passkeys: row.i(8)?,
            theme: row.opt_t(5)?.and_then(|word| Theme::of(&word)),
            seen_at: row.opt_i(6)?,
            created_at: row.i(7)?,
        },
        password_hash,
    })
}

fn read_passkey(row: &Row<'_>) -> StoreResult<StoredPasskey> {
    Ok(StoredPasskey {
        operator: id(row.t(0)?, "passkeys", "operator")?,
        shown: Passkey { name: row.t(1)?, created_at: row.i(6)?, used_at: row.opt_i(7)? },
        key: PasskeyKey { credential: row.b(2)?, algorithm: row.i(3)?, public_key: row.b(4)?, counter: row.i(5)? },
    })
}

fn read_link(row: &Row<'_>) -> StoreResult<StoredLink> {
    Ok(StoredLink {
        tenant: Tenant::from_stored(row.t(0)?),
        operator: id(row.t(1)?, "operator_links", "operator")?,
        scopes: from_json("operator_links", "scopes", &row.t(2)?)?,
        first: row.i(3)? == 1,
        expires_at: row.i(4)?,
    })
}

fn read_said(text: &str) -> StoreResult<Vec<Said>> {
    let parts: Vec<(String, String, Option<String>)> = from_json("console_sessions", "said", text)?;
    let known = |kind: String| ["good", "bad", "warn"].into_iter().find(|known| *known == kind).unwrap_or("");
    Ok(parts.into_iter().map(|(kind, text, saved)| Said { kind: known(kind), text, saved }).collect())
}

fn id(text: String, table: &'static str, column: &'static str) -> StoreResult<KeyId> {
    text.parse().map_err(|_| StoreError::Unreadable { table, column })
}
