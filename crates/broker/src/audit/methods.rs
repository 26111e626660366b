//! Which methods a connection's calls had, as far as they are on record.

use std::collections::HashMap;

use super::READERS_WAIT;
use super::read::{BYTES, BYTES_LOOKED_AT, LOOKED_AT};
use super::segment::{Detail, Reader};
use crate::error::Result;
use crate::model::Tenant;
use crate::open::Broker;
use crate::store::{StoreError, StoreResult, Stretch, Tx};

/// Segments fetched at once.
const CHUNK: i64 = 64;

/// Calls with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Methods {
    /// GET and HEAD.
    pub(crate) reading: u64,
    /// All other.
    pub(crate) other: u64,
}

impl Broker {
    /// The calls since `since`, by the connection's id; at most the newest [`LOOKED_AT`] records are looked at.
    pub(crate) async fn methods_used(&self, tenant: &Tenant, since: i64) -> Result<HashMap<String, Methods>> {
        self.clock.timeout(READERS_WAIT, self.audit.flush()).await;
        let tenant = tenant.clone();
        Ok(self.store.read(move |tx| methods(tx, &tenant, since)).await?)
    }
}

fn methods(tx: &Tx<'_>, tenant: &Tenant, since: i64) -> StoreResult<HashMap<String, Methods>> {
    let mut found: HashMap<String, Methods> = HashMap::new();
    let bytes = i64::try_from(BYTES).unwrap_or(i64::MAX);
    let mut stretch = Stretch { from: i64::MAX, forwards: false, since, until: i64::MAX, limit: CHUNK, bytes };
    let (mut looked_at, mut bytes_looked_at) = (0, 0);
    while looked_at < LOOKED_AT && bytes_looked_at < BYTES_LOOKED_AT {
        let read = tx.audit(tenant, &stretch)?;
        for (number, segment) in read.segments {
            stretch.from = number - 1;
            bytes_looked_at += segment.records.len();
            let records: Option<Vec<_>> = Reader::new(&segment).collect();
            let records = records.ok_or(StoreError::Unreadable { table: "audit", column: "records" })?;
            looked_at += records.len();
            for record in records.iter().filter(|record| record.at >= since && record.outcome == "ok") {
                let Detail::Call { method, .. } = record.detail else { continue };
                let methods = match found.get_mut(record.object) {
                    Some(methods) => methods,
                    None => found.entry(record.object.to_owned()).or_default(),
                };
                match method {
                    "GET" | "HEAD" => methods.reading += 1,
                    _ => methods.other += 1,
                }
            }
        }
        if read.is_all {
            break;
        }
    }
    Ok(found)
}
