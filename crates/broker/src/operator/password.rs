//! Passwords: argon2id, at most two at work at once, and a wait after several wrong ones.

use std::sync::Arc;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use keyholder_oauth::{Secret, sha256};
use tokio::sync::Semaphore;

use crate::clock::millis;
use crate::error::{Error, Result, invalid};
use crate::model::Tenant;
use crate::open::Broker;
use crate::store::StoredOperator;

/// What OWASP's Password Storage Cheat Sheet names first: 19 MiB, two passes, one lane.
const COST: Cost = Cost { memory: 19_456, passes: 2, lanes: 1 };
const SHORTEST: usize = 12;
const LONGEST: usize = 1024;
/// Wrong passwords in a row before a name has to wait, and the longest wait.
const FREE_TRIES: i64 = 5;
const LONGEST_WAIT_MS: i64 = 60_000;
/// So long after the last wrong one they are forgotten.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(60 * 60);
/// Passwords worked on at once (each takes 19 MiB), and those that wait for their turn.
const AT_ONCE: usize = 2;
const WAITING: usize = 200;

/// How many passwords are worked on.
pub(crate) struct Passwords {
    at_work: Semaphore,
    admitted: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { at_work: Semaphore::new(AT_ONCE), admitted: Semaphore::new(AT_ONCE + WAITING) }
    }
}

/// What hashing costs; stands in the stored text, so that it can be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// KiB.
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Broker {
    /// The text to store of a password.
    pub(super) async fn hash_password(&self, password: &Secret) -> Result<String> {
        // Whoever sets a password has shown a link or is signed in, and isn't turned away by those at the door.
        let _turn = self.passwords.at_work.acquire().await;
        let salt: [u8; 16] = self.rng.bytes();
        let hash = work(password, salt.to_vec(), COST).await?;
        Ok(written(COST, &salt, &hash))
    }

    /// The operator of this name and password; `None` where they don't belong together. A name that nobody has costs the same work, gets the same answers, and waits the same; a right password
    /// ends no wait either, or it would tell that there is somebody.
    pub(super) async fn operator_by_password(
        &self,
        tenant: &Tenant,
        name: &str,
        password: &Secret,
    ) -> Result<Option<StoredOperator>> {
        let _turn = self.password_turn().await?;
        // Behind the queue: whoever waited there sees what those before have done.
        let (now, slot) = (self.now_ms(), slot_of(tenant, name));
        let (of_tenant, wanted) = (tenant.clone(), name.to_owned());
        let looked =
            self.store.read(move |tx| Ok((tx.sign_in_failures(slot)?, tx.operator(&of_tenant, &wanted)?))).await?;
        let (failures, found) = looked;
        let found = found.filter(|found| found.operator.name == name);
        let wait = failures.map_or(0, |(count, last_at)| last_at + wait_after(count) - now);
        if wait > 0 {
            let seconds = wait.min(LONGEST_WAIT_MS).unsigned_abs().div_ceil(1000);
            return Err(invalid("password", "too many were wrong in a row", format!("try again in {seconds} s")));
        }
        let hash = found.as_ref().and_then(|it| it.password_hash.as_deref());
        let (cost, salt, expected) = hash.and_then(read).unwrap_or((COST, vec![0; 16], Vec::new()));
        let right = Secret::new(STANDARD_NO_PAD.encode(expected));
        let shown = STANDARD_NO_PAD.encode(work(password, salt, cost).await?);
        let found = found.filter(|_| right.is(&shown));
        if found.is_none() {
            let forgotten = now - millis(FORGOTTEN);
            self.store.write(move |tx| tx.sign_in_failed(slot, now, forgotten)).await?;
        }
        Ok(found)
    }

    async fn password_turn(&self) -> Result<(tokio::sync::SemaphorePermit<'_>, tokio::sync::SemaphorePermit<'_>)> {
        let full =
            |_| invalid("password", "too many people are signing in at this moment", "try again in a few seconds");
        let admitted = self.passwords.admitted.try_acquire().map_err(full)?;
        let turn = self.passwords.at_work.acquire().await;
        Ok((admitted, turn.map_err(|_| Error::Internal("the queue of passwords was closed"))?))
    }

    pub(super) async fn operator_of(&self, tenant: &Tenant, id_or_name: &str) -> Result<Option<StoredOperator>> {
        let (tenant, name) = (tenant.clone(), id_or_name.to_owned());
        Ok(self.store.read(move |tx| tx.operator(&tenant, &name)).await?)
    }
}

/// Where the wrong passwords of a name are counted.
fn slot_of(tenant: &Tenant, name: &str) -> u16 {
    let hash = sha256(format!("sign-in {} {name}", tenant.as_str()).as_bytes());
    u16::from_be_bytes([hash[0], hash[1]])
}

/// How long a name waits after so many wrong passwords: not at first, then 1, 2, 4 … 60 s.
fn wait_after(failures: i64) -> i64 {
    match failures - FREE_TRIES {
        over @ 0..6 => 1000 << over,
        ..0 => 0,
        _ => LONGEST_WAIT_MS,
    }
}

/// Whether a password can be used. Length is what counts (NIST SP 800-63B §3.1.1.2): no rule about kinds of characters.
pub(super) fn check(password: &Secret, name: &str) -> Result<()> {
    let text = password.expose();
    let length = text.chars().count();
    if !(SHORTEST..=LONGEST).contains(&length) {
        let reason = if length < SHORTEST { "it is too short" } else { "it is too long" };
        return Err(invalid(
            "password",
            reason,
            format!("use {SHORTEST} to {LONGEST} characters, a few words for example"),
        ));
    }
    let first = text.chars().next();
    if text.chars().all(|c| Some(c) == first) || text.to_lowercase() == name.to_lowercase() {
        return Err(invalid("password", "it is easily guessed", "use a few words that don't belong together"));
    }
    Ok(())
}

/// The slow part, where it holds nobody up.
async fn work(password: &Secret, salt: Vec<u8>, cost: Cost) -> Result<Vec<u8>> {
    let password = Arc::new(password.clone());
    let hashed = tokio::task::spawn_blocking(move || hash(&password, &salt, cost)).await;
    hashed.ok().flatten().ok_or(Error::Internal("a password could not be hashed"))
}

fn hash(password: &Secret, salt: &[u8], cost: Cost) -> Option<Vec<u8>> {
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).ok()?;
    let mut out = vec![0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.expose().as_bytes(), salt, &mut out)
        .ok()?;
    Some(out)
}

/// PHC's string format, as other programs write it.
fn written(cost: Cost, salt: &[u8], hash: &[u8]) -> String {
    let Cost { memory, passes, lanes } = cost;
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}")
}

fn read(text: &str) -> Option<(Cost, Vec<u8>, Vec<u8>)> {
    let (cost, rest) = text.strip_prefix("$argon2id$v=19$")?.split_once('$')?;
    let (salt, hash) = rest.split_once('$')?;
    let mut figures = cost.split(',').map(|part| part.split_once('=')?.1.parse().ok());
    let cost = Cost { memory: figures.next()??, passes: figures.next()??, lanes: figures.next()?? };
    Some((cost, STANDARD_NO_PAD.decode(salt).ok()?, STANDARD_NO_PAD.decode(hash).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_reads_back() {
        let cheap = Cost { memory: 64, passes: 1, lanes: 1 };
        let made = hash(&Secret::new("correct horse battery"), &[7; 16], cheap).unwrap();
        let text = written(cheap, &[7; 16], &made);
        assert!(text.starts_with("$argon2id$v=19$m=64,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$"), "{text}");
        assert_eq!(read(&text), Some((cheap, vec![7; 16], made.clone())));
        assert_ne!(hash(&Secret::new("correct horse batterx"), &[7; 16], cheap).unwrap(), made);
        for broken in
            ["", "$argon2i$v=19$m=64,t=1,p=1$AA$AA", "$argon2id$v=19$m=64,t=1$AA$AA", "$argon2id$v=19$m=64,t=1,p=1$AA"]
        {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn waiting_grows_to_a_minute() {
        let waits: Vec<_> = (1..=13).map(wait_after).collect();
        assert_eq!(waits, [0, 0, 0, 0, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn what_can_be_guessed_is_refused() {
        for good in ["correct horse", "äöüäöüäöüäöü", &"ab".repeat(512)] {
            assert!(check(&Secret::new(good), "Owner").is_ok(), "{good}");
        }
        for bad in ["", "short", "aaaaaaaaaaaaaaaa", &"ab".repeat(513), "The Owner of it"] {
            assert!(check(&Secret::new(bad), "the owner of it").is_err(), "{bad}");
        }
    }
}
