//! Step 3 of renewal: a provider's raw reply, sealed, on disk before anything else is done with it.
//!
//! A file a reply, named by connection and attempt. It is written beside its name, synced, renamed, and the folder synced. From the write on it survives the
//! process's death, from the last sync on a power cut.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyholder_oauth::SecretBytes;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Moment, Rng};
use crate::error::{Error, Result};
use crate::model::{AttemptId, ConnectionId};
use crate::points::Points;
use crate::vault::{Place, Vault, VaultError};

/// Where replies wait.
#[derive(Clone, Debug)]
pub(crate) struct Escrow {
    folder: PathBuf,
    points: Points,
}

/// A reply in escrow.
pub(crate) struct Held {
    pub(crate) connection: ConnectionId,
    pub(crate) attempt: AttemptId,
    pub(crate) reply: RawReply,
}

/// What came back, and what is needed to read it later.
pub(crate) struct RawReply {
    /// The connection's generation when it was claimed.
    pub(crate) generation: i64,
    /// When the reply came, Unix milliseconds: relative lifetimes count from here.
    pub(crate) received_at: i64,
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    /// By which rules it is read.
    pub(crate) answers: Answers,
    pub(crate) body: SecretBytes,
}

/// What a reply answers; a definition may have other rules for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answers {
    /// A refresh token that was used, or an access token that extends itself.
    #[default]
    Refresh,
    /// A grant that was run.
    Grant,
    /// The refresh token of the secondary token of this name.
    Secondary(String),
}

#[derive(Serialize, Deserialize)]
struct Written {
    generation: i64,
    answers: Answers,
    received_at: i64,
    status: u16,
    content_type: Option<String>,
    body: String,
}

impl Escrow {
    /// Opens the folder, making it when it isn't there.
    pub(crate) fn open(data_dir: &Path, points: Points) -> Result<Self> {
        let folder = data_dir.join("escrow");
        fs::create_dir_all(&folder).map_err(|e| failed(&folder, &e))?;
        Ok(Self { folder, points })
    }

    /// Puts a reply on disk. Returns when it would survive a power cut, with the moment from which on it would have survived the process.
    pub(crate) fn put(&self, clock: &Clock, vault: &Vault, rng: &Rng, held: &Held) -> Result<Moment> {
        let plain = zeroize::Zeroizing::new(
            serde_json::to_vec(&Written {
                generation: held.reply.generation,
                answers: held.reply.answers.clone(),
                received_at: held.reply.received_at,
                status: held.reply.status,
                content_type: held.reply.content_type.clone(),
                body: STANDARD.encode(held.reply.body.expose()),
            })
            .map_err(|_| Error::Internal("a reply could not be written as JSON"))?,
        );
        let sealed = vault.seal(rng, &place(&held.connection, &held.attempt), &plain)?;
        let path = self.path(&held.connection, &held.attempt);
        let beside = path.with_extension("part");
        let written = || {
            self.points.touch("escrow.write")?;
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(&sealed)?;
            let written = clock.moment();
            file.sync_all()?;
            self.points.touch("escrow.rename")?;
            fs::rename(&beside, &path)?;
            self.points.touch("escrow.sync")?;
            fs::File::open(&self.folder)?.sync_all()?;
            Ok(written)
        };
        written().map_err(|e| failed(&path, &e))
    }

    /// Whether this attempt's reply is here.
    pub(crate) fn holds(&self, connection: &ConnectionId, attempt: &AttemptId) -> bool {
        self.path(connection, attempt).exists()
    }

    /// Forgets a reply that was committed.
    pub(crate) fn clear(&self, connection: &ConnectionId, attempt: &AttemptId) -> Result<()> {
        let path = self.path(connection, attempt);
        match self.points.touch("escrow.clear").and_then(|()| fs::remove_file(&path)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&path, &e)),
            _ => Ok(()),
        }
    }

    /// Keeps a reply that can't be read out of the way, for a person to look at.
    pub(crate) fn set_aside(&self, connection: &ConnectionId, attempt: &AttemptId) -> Result<()> {
        let path = self.path(connection, attempt);
        fs::rename(&path, path.with_extension("damaged")).map_err(|e| failed(&path, &e))
    }

    /// At the start, before anything is put here: gives a reply its name that its process had written, but not named. One that is not whole was
    /// never acknowledged, and goes.
    pub(crate) fn adopt(&self, vault: &Vault) -> Result<()> {
        for (connection, attempt) in self.named(".part")? {
            let path = self.path(&connection, &attempt);
            let beside = path.with_extension("part");
            let done =
                fs::read(&beside).and_then(|sealed| match vault.open_value(&place(&connection, &attempt), &sealed) {
                    Ok(_) => fs::rename(&beside, &path),
                    Err(VaultError::Damaged { .. }) => fs::remove_file(&beside),
                    // Not for ever: the key may come back.
                    Err(_) => Ok(()),
                });
            done.map_err(|e| failed(&beside, &e))?;
        }
        Ok(())
    }

    /// Connections and attempts whose replies wait.
    pub(crate) fn waiting(&self) -> Result<Vec<(ConnectionId, AttemptId)>> {
        self.named(".reply")
    }

    fn named(&self, ending: &str) -> Result<Vec<(ConnectionId, AttemptId)>> {
        let entries = fs::read_dir(&self.folder).map_err(|e| failed(&self.folder, &e))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| {
                let (connection, attempt) = name.strip_suffix(ending)?.split_once('.')?;
                Some((connection.parse().ok()?, attempt.parse().ok()?))
            })
            .collect())
    }

    /// Opens a waiting reply.
    pub(crate) fn open_reply(&self, vault: &Vault, connection: &ConnectionId, attempt: &AttemptId) -> Result<Held> {
        let path = self.path(connection, attempt);
        let sealed = fs::read(&path).map_err(|e| failed(&path, &e))?;
        let plain = vault.open_value(&place(connection, attempt), &sealed)?;
        let damaged = || Error::Internal("a reply in escrow has an unknown form");
        let written: Written = serde_json::from_slice(&plain).map_err(|_| damaged())?;
        Ok(Held {
            connection: connection.clone(),
            attempt: attempt.clone(),
            reply: RawReply {
                generation: written.generation,
                received_at: written.received_at,
                status: written.status,
                content_type: written.content_type,
                answers: written.answers,
                body: SecretBytes::new(STANDARD.decode(written.body).map_err(|_| damaged())?),
            },
        })
    }

    fn path(&self, connection: &ConnectionId, attempt: &AttemptId) -> PathBuf {
        self.folder.join(format!("{connection}.{attempt}.reply"))
    }
}

fn place<'a>(connection: &'a ConnectionId, attempt: &'a AttemptId) -> Place<'a> {
    // The attempt is unique and names its tenant's row; with the connection it is the whole place.
    Place { tenant: attempt.as_str(), table: "escrow", row: connection.as_str(), column: "reply", generation: 0 }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::File { what: path.display().to_string(), cause: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::vault::RootKey;

    #[test]
    fn a_reply_waits_sealed_and_comes_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (rng, clock) = (Rng::seeded(1), Clock::System);
        let root = RootKey::generate(&rng);
        let vault = Vault::open(&root, &[root.wrap_new(&rng, 1).unwrap()]).unwrap();
        let escrow = Escrow::open(folder.path(), Points::default()).unwrap();
        let held = Held {
            connection: ConnectionId::new(&clock, &rng),
            attempt: AttemptId::new(&clock, &rng),
            reply: RawReply {
                generation: 3,
                received_at: 5,
                status: 200,
                content_type: Some("application/json".to_owned()),
                answers: Answers::Secondary("user".to_owned()),
                body: SecretBytes::new(b"{\"access_token\":\"planted\"}".to_vec()),
            },
        };
        escrow.put(&clock, &vault, &rng, &held).unwrap();
        let waiting = escrow.waiting().unwrap();
        assert_eq!(waiting, [(held.connection.clone(), held.attempt.clone())]);
        let raw = fs::read(escrow.path(&held.connection, &held.attempt)).unwrap();
        assert!(!raw.windows(7).any(|w| w == b"planted"));
        let back = escrow.open_reply(&vault, &waiting[0].0, &waiting[0].1).unwrap();
        assert_eq!(back.reply.body.expose(), held.reply.body.expose());
        assert_eq!((back.reply.generation, back.reply.status), (3, 200));
        assert_eq!(back.reply.answers, held.reply.answers);

        // What a process had written when it died, before the name and in the middle.
        let path = escrow.path(&held.connection, &held.attempt);
        let beside = path.with_extension("part");
        fs::rename(&path, &beside).unwrap();
        assert!(escrow.waiting().unwrap().is_empty());
        escrow.adopt(&vault).unwrap();
        assert_eq!(escrow.waiting().unwrap(), waiting);
        fs::write(&beside, &raw[..raw.len() - 1]).unwrap();
        fs::remove_file(&path).unwrap();
        escrow.adopt(&vault).unwrap();
        assert!(!path.exists() && !beside.exists());

        escrow.clear(&held.connection, &held.attempt).unwrap();
        assert!(escrow.waiting().unwrap().is_empty());
    }
}
