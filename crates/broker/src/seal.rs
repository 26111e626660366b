//! Rotation of data keys: a new one seals from now on, and what older ones sealed is sealed anew, a few rows at a time, while everything goes on.
//!
//! Every value carries the number of its key, so the work can stop at any row and go on later. Short-lived values (consents, pending
//! grants, kept replies, escrow: a day at most) are left to expire; old keys stay on the ring for them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{Caller, Tenant};
use crate::open::Broker;
use crate::plan::{connection_place, integration_place_of, source_place};
use crate::store::{SealedRow, StoreError, StoreResult, Tx};
use crate::token_set::token_place;
use crate::vault::{Place, Vault};

/// Rows sealed anew in one transaction.
const BATCH: i64 = 100;

/// Which data keys hold how much.
#[derive(Clone, Debug, Serialize)]
pub struct SealStatus {
    /// Number of the data key that seals.
    pub newest: u32,
    /// How many long-lived values each data key sealed, by number.
    pub values: BTreeMap<u32, u64>,
    /// How many of them wait to be sealed anew.
    pub left: u64,
}

impl Broker {
    /// Counts the long-lived sealed values by data key.
    pub async fn seal_status(&self) -> Result<SealStatus> {
        let newest = self.vault.newest();
        let mut values = BTreeMap::from([(newest, 0)]);
        for table in [Table::Integrations, Table::Connections, Table::Sources] {
            let mut after = String::new();
            loop {
                let from = after.clone();
                let rows = self.store.read(move |tx| table.rows(tx, &from)).await?;
                for key in rows.iter().flat_map(SealedRow::values).filter_map(|value| Vault::key_of(value)) {
                    *values.entry(key).or_default() += 1;
                }
                match rows.last() {
                    Some(last) => after.clone_from(&last.id),
                    None => break,
                }
            }
        }
        let left = values.iter().filter(|(key, _)| **key != newest).map(|(_, count)| count).sum();
        Ok(SealStatus { newest, values, left })
    }

    /// Makes a new data key and begins to seal everything anew with it, in the background.
    pub async fn seal_rotate(&self, caller: &Caller) -> Result<SealStatus> {
        self.load_data_keys().await?;
        let (root, _) = self.settings.root_key.load(&self.rng, false)?;
        let key = root.wrap_new(&self.rng, self.vault.newest() + 1)?;
        let (stored, now) = (key.clone(), self.now_ms());
        self.store.write(move |tx| tx.add_data_key(&stored, now)).await.map_err(|error| match error {
            StoreError::Taken => Error::ChangedMeanwhile("key ring"),
            other => other.into(),
        })?;
        // On disk first: a value sealed with a key that is lost would be lost too.
        self.vault.add(&root, &key)?;
        self.record(caller, "seal.rotate", &key.id.to_string(), "ok", None)?;
        self.reseal_in_background();
        self.seal_status().await
    }

    /// Puts the data keys on the ring that another process has made. The root key is asked for again: it isn't kept.
    pub(crate) async fn load_data_keys(&self) -> Result<()> {
        let wrapped = self.store.read(|tx| tx.data_keys()).await?;
        let new: Vec<_> = wrapped.into_iter().filter(|key| !self.vault.has(key.id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let (root, _) = self.settings.root_key.load(&self.rng, false)?;
        new.iter().try_for_each(|key| self.vault.add(&root, key))?;
        Ok(())
    }

    /// Before values of a row are opened: another process may have sealed them with a key that isn't on the ring yet.
    pub(crate) async fn know_keys<'a>(&self, sealed: impl IntoIterator<Item = Option<&'a Vec<u8>>>) -> Result<()> {
        let mut keys = sealed.into_iter().flatten().filter_map(|value| Vault::key_of(value));
        if keys.all(|key| self.vault.has(key)) { Ok(()) } else { self.load_data_keys().await }
    }

    /// Goes on where a stopped rotation left off; nothing to do costs one look at each row.
    pub(crate) fn reseal_in_background(&self) {
        if self.vault.newest() <= 1 {
            return;
        }
        let broker = self.clone();
        tokio::spawn(async move {
            match broker.reseal_all().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "rows were sealed anew with the newest data key"),
                Err(error) => {
                    tracing::error!(%error, "sealing anew stopped; it goes on at the next start, or with `keyholder seal rotate`")
                }
            }
        });
    }

    /// Seals every long-lived value anew that an older key sealed; answers how many rows.
    pub(crate) async fn reseal_all(&self) -> Result<u64> {
        let mut resealed = 0;
        for table in [Table::Integrations, Table::Connections, Table::Sources] {
            let mut after = String::new();
            loop {
                if self.stopping.load(Ordering::Relaxed) {
                    return Ok(resealed);
                }
                let (broker, from) = (self.clone(), after.clone());
                // A row that a renewal or a change of another replica has got hold of in between is left as that one wrote it.
                let batch = self.store.write(move |tx| {
                    let rows = table.rows(tx, &from)?;
                    let mut changed = 0;
                    for row in &rows {
                        if row.values().any(|value| Vault::key_of(value) != Some(broker.vault.newest())) {
                            match broker.seal_row_anew(table, row) {
                                Ok(anew) => {
                                    changed += u64::from(table.write(tx, row, &anew)?);
                                }
                                // The others don't wait for a row that is damaged; it stays counted as left.
                                Err(error) => {
                                    tracing::error!(%error, row = row.id, "a sealed value can't be read and was not sealed anew")
                                }
                            }
                        }
                    }
                    Ok((rows.last().map(|row| row.id.clone()), changed))
                });
                let (last, changed) = batch.await?;
                resealed += changed;
                match last {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        Ok(resealed)
    }

    fn seal_row_anew(&self, table: Table, row: &SealedRow) -> Result<SealedRow> {
        let tenant = Tenant::from_stored(row.tenant.clone());
        let anew = |place: Place<'_>, value: &Option<Vec<u8>>| -> Result<Option<Vec<u8>>> {
            let Some(value) = value else { return Ok(None) };
            let plain = self.vault.open_value(&place, value)?;
            Ok(Some(self.vault.seal(&self.rng, &place, &plain)?))
        };
        let secrets_place = match table {
            Table::Integrations => integration_place_of(&tenant, &row.id, row.generation),
            Table::Connections => connection_place(&tenant, &row.id),
            Table::Sources => source_place(&tenant, &row.id, row.generation),
        };
        Ok(SealedRow {
            secrets: anew(secrets_place, &row.secrets)?,
            token_set: anew(token_place(&tenant, &row.id, row.generation), &row.token_set)?,
            previous_token_set: anew(token_place(&tenant, &row.id, row.generation - 1), &row.previous_token_set)?,
            ..row.clone()
        })
    }
}

/// The tables with long-lived sealed columns.
#[derive(Clone, Copy)]
enum Table {
    Integrations,
    Connections,
    Sources,
}

impl Table {
    fn rows(self, tx: &Tx<'_>, after: &str) -> StoreResult<Vec<SealedRow>> {
        match self {
            Table::Integrations => tx.sealed_integrations(after, BATCH),
            Table::Connections => tx.sealed_connections(after, BATCH),
            Table::Sources => tx.sealed_sources(after, BATCH),
        }
    }

    fn write(self, tx: &Tx<'_>, was: &SealedRow, row: &SealedRow) -> StoreResult<bool> {
        match self {
            Table::Integrations => tx.reseal_integration(was, row),
            Table::Connections => tx.reseal_connection(was, row),
            Table::Sources => tx.reseal_source(was, row),
        }
    }
}
