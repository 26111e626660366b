//! Sessions of the console.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyholder_oauth::{Secret, random_token, sha256};

use super::{Proof, caller_of};
use crate::clock::millis;
use crate::error::{Result, invalid};
use crate::model::{Caller, Operator, Said, Tenant, Theme};
use crate::open::Broker;
use crate::store::{StoredConsoleSession, StoredOperator};

/// A session that isn't used ends after this.
pub(crate) const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
/// And any after this.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Use is noted at most this often, in milliseconds.
const NOTED_EVERY: i64 = 60_000;
/// Names that nobody can have are cut off in the audit behind this many characters.
pub(super) const LONGEST_NAME: usize = 100;
/// So long after somebody has shown who they are, dangerous things are done without asking again.
const PROOF_HOLDS: Duration = Duration::from_secs(10 * 60);

/// Who is behind a session.
pub struct SignedIn {
    /// The person.
    pub operator: Operator,
    /// The caller that the person is to everything else.
    pub caller: Arc<Caller>,
    /// What forms of this session carry.
    pub csrf: String,
    /// There is something that the next page shall say.
    pub has_said: bool,
    /// When the person signed in, Unix milliseconds.
    pub since: i64,
    /// They have shown who they are in the last ten minutes.
    pub proved: bool,
}

impl Broker {
    /// Signs in by password; answers the token of a new session.
    ///
    /// # Errors
    /// A wrong password, on the record; the same for a name that nobody has.
    pub async fn sign_in(&self, name: &str, password: &Secret) -> Result<Secret> {
        let tenant = Tenant::default_tenant();
        // Only what was looked at is on the record: those that were turned away before cost nobody anything, and could fill it.
        if let Some(stored) = self.operator_by_password(&tenant, name, password).await? {
            return self.begin_session(stored).await;
        }
        let shown: String = name.chars().take(LONGEST_NAME).collect();
        self.record_person(&tenant, "operator.sign_in", &shown, "refused")?;
        Err(invalid("password", "name and password don't belong together", "check both, and capital letters"))
    }

    /// Begins a session of who has shown who they are.
    pub(super) async fn begin_session(&self, stored: StoredOperator) -> Result<Secret> {
        self.record(&caller_of(&stored), "operator.sign_in", stored.operator.id.as_str(), "ok", None)?;
        let (token, hash) = self.new_session_token();
        let now = self.now_ms();
        let begun = self
            .store
            .write(move |tx| tx.add_console_session(&hash, &stored.tenant, &stored.operator.id, now, ends_at(now)));
        begun.await?;
        Ok(token)
    }

    /// Whether it is still the operator behind a caller who sits at this session: a password or passkey again. A wrong password counts like one at the
    /// door.
    pub async fn prove(&self, caller: &Caller, session: &str, proof: &Proof) -> Result<()> {
        let shown = match proof {
            Proof::Password(password) => {
                let name = self.known_operator(caller, caller.key.as_str()).await?.operator.name;
                let found = self.operator_by_password(&caller.tenant, &name, password).await;
                found.and_then(|found| {
                    found
                        .ok_or_else(|| invalid("password", "this isn't your password", "check capital letters"))
                        .map(drop)
                })
            }
            Proof::Passkey(sent) => {
                let found = self.operator_by_passkey(&caller.tenant, sent, Some(&caller.key)).await;
                found.map(drop).map_err(|(_, error)| error)
            }
        };
        let outcome = if shown.is_ok() { "ok" } else { "refused" };
        self.record(caller, "operator.prove", caller.key.as_str(), outcome, None)?;
        shown?;
        let (hash, now) = (sha256(session.as_bytes()), self.now_ms());
        Ok(self.store.write(move |tx| tx.console_session_proved(&hash, now)).await?)
    }

    pub(super) fn new_session_token(&self) -> (Secret, [u8; 32]) {
        let token = random_token(self.rng.bytes());
        let hash = sha256(token.expose().as_bytes());
        (token, hash)
    }

    /// Who is behind the session of this token; `None` where it has ended.
    pub async fn session(&self, token: &str) -> Result<Option<SignedIn>> {
        let (hash, now) = (sha256(token.as_bytes()), self.now_ms());
        let Some(found) = self.store.read(move |tx| tx.console_session(&hash)).await? else { return Ok(None) };
        let StoredConsoleSession { stored, said, seen_at, expires_at, created_at, proved_at } = found;
        if expires_at <= now || now - seen_at >= millis(IDLE) {
            return Ok(None);
        }
        if now - seen_at >= NOTED_EVERY {
            let who = stored.operator.id.clone();
            self.store.write(move |tx| tx.console_session_seen(&hash, &who, now)).await?;
        }
        Ok(Some(SignedIn {
            caller: Arc::new(caller_of(&stored)),
            operator: stored.operator,
            csrf: csrf_of(token),
            has_said: !said.is_empty(),
            since: created_at,
            proved: now - proved_at < millis(PROOF_HOLDS),
        }))
    }

    /// Whether a session goes on; asking is no use of it.
    pub async fn session_stands(&self, token: &str) -> Result<bool> {
        let (hash, now) = (sha256(token.as_bytes()), self.now_ms());
        let found = self.store.read(move |tx| tx.console_session(&hash)).await?;
        Ok(found.is_some_and(|found| found.expires_at > now && now - found.seen_at < millis(IDLE)))
    }

    /// Ends a session; one that has ended already is no mistake.
    pub async fn sign_out(&self, token: &str) -> Result<()> {
        let hash = sha256(token.as_bytes());
        let ended = self.store.write(move |tx| {
            let found = tx.console_session(&hash)?;
            tx.end_console_session(&hash)?;
            Ok(found)
        });
        match ended.await? {
            Some(found) => {
                let caller = caller_of(&found.stored);
                self.record(&caller, "operator.sign_out", found.stored.operator.id.as_str(), "ok", None)
            }
            None => Ok(()),
        }
    }

    /// Remembers what the next page of a session shall say.
    pub async fn say(&self, token: &str, said: &Said) -> Result<()> {
        let (hash, said) = (sha256(token.as_bytes()), said.clone());
        let kept = self.store.write(move |tx| {
            let Some(session) = tx.console_session(&hash)? else { return Ok(()) };
            let mut all = session.said;
            all.push(said);
            tx.put_said(&hash, &all)
        });
        Ok(kept.await?)
    }

    /// Takes what the next page of a session shall say.
    pub async fn take_said(&self, token: &str) -> Result<Vec<Said>> {
        let hash = sha256(token.as_bytes());
        let taken = self.store.write(move |tx| {
            let said = tx.console_session(&hash)?.map(|session| session.said).unwrap_or_default();
            tx.put_said(&hash, &[])?;
            Ok(said)
        });
        Ok(taken.await?)
    }

    /// Sets the colours of the operator behind a caller; `None`: as the device is set.
    pub async fn set_theme(&self, caller: &Caller, theme: Option<Theme>) -> Result<()> {
        let id = caller.key.clone();
        Ok(self.store.write(move |tx| tx.put_operator_theme(&id, theme)).await?)
    }
}

/// When a session that begins now ends at the latest.
pub(super) fn ends_at(now: i64) -> i64 {
    now + millis(LONGEST)
}

/// Follows from the session's token, so nothing is stored, and it ends with it.
fn csrf_of(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(format!("csrf {token}").as_bytes()))
}
