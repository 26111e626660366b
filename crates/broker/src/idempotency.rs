//! `Idempotency-Key`: a repeated POST answers as the first did and does nothing again. Kept for a day, sealed, because replies may hold new keys or links.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::Caller;
use crate::open::Broker;
use crate::vault::Place;

/// What is known of a key.
pub enum Idempotency {
    /// The first request with it: do the work, then [`Broker::keep_reply`] or [`Broker::forget_reply`].
    First,
    /// The first is still at work.
    UnderWay,
    /// The first had another method, path or body.
    Differs,
    /// What the first answered.
    Replay(KeptReply),
}

/// A reply as it is kept.
#[derive(Serialize, Deserialize)]
pub struct KeptReply {
    /// Status code.
    pub status: u16,
    /// Content type.
    pub content_type: String,
    /// Body.
    pub body: String,
}

impl Broker {
    /// Notes a request by its key and the SHA-256 of method, path and body.
    pub async fn begin_idempotent(&self, caller: &Caller, key: &str, request_hash: [u8; 32]) -> Result<Idempotency> {
        let (tenant, name, stored, now) =
            (caller.tenant.clone(), caller.key.to_string(), key.to_owned(), self.now_ms());
        let known = self
            .store
            .write(move |tx| {
                // Again when another replica freed the key between the two statements.
                loop {
                    if tx.begin_idempotent(&tenant, &name, &stored, &request_hash, now)? {
                        return Ok(None);
                    }
                    if let Some(known) = tx.kept_reply(&tenant, &name, &stored)? {
                        return Ok(Some(known));
                    }
                }
            })
            .await?;
        self.know_keys([known.as_ref().and_then(|row| row.reply.as_ref())]).await?;
        Ok(match known {
            None => Idempotency::First,
            Some(row) if row.request_hash != request_hash => Idempotency::Differs,
            Some(row) => match row.reply {
                None => Idempotency::UnderWay,
                Some(sealed) => {
                    let place_row = place_row(caller, key);
                    let plain = self.vault.open_value(&place(caller, &place_row), &sealed)?;
                    Idempotency::Replay(
                        serde_json::from_slice(&plain)
                            .map_err(|_| Error::Internal("a kept reply has an unknown form"))?,
                    )
                }
            },
        })
    }

    /// Keeps the reply of a first request.
    pub async fn keep_reply(&self, caller: &Caller, key: &str, reply: &KeptReply) -> Result<()> {
        let plain = zeroize::Zeroizing::new(
            serde_json::to_vec(reply).map_err(|_| Error::Internal("a reply could not be written as JSON"))?,
        );
        let place_row = place_row(caller, key);
        let sealed = self.vault.seal(&self.rng, &place(caller, &place_row), &plain)?;
        let (tenant, name, key) = (caller.tenant.clone(), caller.key.to_string(), key.to_owned());
        Ok(self.store.write(move |tx| tx.keep_reply(&tenant, &name, &key, &sealed)).await?)
    }

    /// The first request failed in a way that may be repeated: its key is free again.
    pub async fn forget_reply(&self, caller: &Caller, key: &str) -> Result<()> {
        let (tenant, name, key) = (caller.tenant.clone(), caller.key.to_string(), key.to_owned());
        Ok(self.store.write(move |tx| tx.forget_reply(&tenant, &name, &key)).await?)
    }
}

fn place_row(caller: &Caller, key: &str) -> String {
    format!("{} {key}", caller.key)
}

fn place<'a>(caller: &'a Caller, row: &'a str) -> Place<'a> {
    Place { tenant: caller.tenant.as_str(), table: "idempotency", row, column: "reply", generation: 0 }
}
