//! Usage: how often each key used each connection in each hour, and how that went.
//!
//! Counted in memory, without a lock that connections share, and written every few seconds by one task that adds to the hour's rows. What can't be written is kept and
//! tried again; when that lasts, the gate through which tokens leave is closed, as with the audit. A killed process loses the last seconds.

mod counters;
mod read;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::Map;
use crate::audit::{Gate, Writer};
use crate::clock::{Clock, Rng};
use crate::model::{Caller, ConnectionId, KeyId, SegmentId, SourceId, Tenant};
use crate::store::{Store, StoreError, StoreResult, Tx, UsageRow};

use counters::{Counters, Of};
pub use read::{UsageFilter, UsageLine, UsagePage};

/// From one write to the next. Ten thousand connections in use are ten thousand rows a write, on the core that serves them.
const WRITE_EVERY: Duration = Duration::from_secs(15);
/// Most rows of a transaction: a renewal's commit must not wait for ten thousand of them.
const ROWS: usize = 1000;
const RETRY: Duration = Duration::from_secs(1);
/// While usage couldn't be written for so long, nothing leaves.
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// What is counted and not written yet.
pub(crate) struct Usage {
    counters: Map<Of, Counters>,
    /// Something was counted since it was last taken.
    is_counted: AtomicBool,
    counted: Arc<Notify>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    /// How many rows the writer has in hand.
    writing: Arc<AtomicUsize>,
}

/// What a call came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called {
    /// How it ended.
    pub(crate) end: CallEnd,
    /// Bytes of the request's body.
    pub(crate) sent: u64,
    /// Bytes of the reply's body.
    pub(crate) received: u64,
    /// Until the reply's head.
    pub(crate) took: Duration,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnd {
    /// The API answered with this status.
    Answered(u16),
    /// It didn't, or not to the end.
    Failed,
}

impl Usage {
    /// Starts the writer. `process` names this data folder: of each batch it writes down that it is in, so that none is added twice.
    pub(crate) fn start(store: Store, clock: Clock, rng: Rng, gate: Arc<Gate>, process: String) -> Arc<Self> {
        // One waits, one is written: who flushes meanwhile waits for his turn.
        let (flushes, asked) = mpsc::channel(1);
        let counted = Arc::<Notify>::default();
        let (counters, is_counted) = (Map::default(), AtomicBool::new(false));
        let writing = Arc::<AtomicUsize>::default();
        let usage = Arc::new(Self {
            counters,
            is_counted,
            counted: Arc::clone(&counted),
            flushes,
            writing: Arc::clone(&writing),
        });
        let name = format!("usage {process}");
        let writer = UsageWriter { usage: Arc::downgrade(&usage), counted, store, clock, rng, gate, name, writing };
        tokio::spawn(writer.run(asked));
        usage
    }

    /// Counts a hand-out.
    pub(crate) fn handed_out(&self, at: i64, caller: &Caller, connection: &ConnectionId) {
        self.count(at, Some(caller), &caller.tenant, connection, None, Counters::hand_out);
    }

    /// Counts a call that is over.
    pub(crate) fn called(
        &self,
        at: i64,
        caller: &Caller,
        connection: &ConnectionId,
        source: Option<&SourceId>,
        call: &Called,
    ) {
        self.count(at, Some(caller), &caller.tenant, connection, source, |counters| counters.call(call));
    }

    /// Counts a renewal.
    pub(crate) fn renewed(&self, at: i64, tenant: &Tenant, connection: &ConnectionId, ok: bool) {
        self.count(at, None, tenant, connection, None, |counters| counters.renewal(ok));
    }

    fn count(
        &self,
        at: i64,
        caller: Option<&Caller>,
        tenant: &Tenant,
        connection: &ConnectionId,
        source: Option<&SourceId>,
        count: impl FnOnce(&Counters),
    ) {
        let key: Option<KeyId> = caller.map(|caller| caller.key.clone());
        let of = Of { hour: at.div_euclid(HOUR_MS), key, connection: connection.clone(), source: source.cloned() };
        let counters = self.counters.pin();
        match counters.get(&of) {
            Some(found) => count(found),
            None => count(counters.get_or_insert_with(of, || Counters::new(tenant.clone()))),
        }
        // Mostly it is only looked at, which takes it from nobody.
        if !self.is_counted.load(Ordering::Relaxed) && !self.is_counted.swap(true, Ordering::AcqRel) {
            self.counted.notify_one();
        }
    }

    /// Returns when all that was counted before is on disk.
    pub(crate) async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.flushes.send(done).await.is_ok() {
            let _ = waiting.await;
        }
    }

    /// How many rows are not on disk. Takes what was counted, so it is for a stop that can't write.
    pub(crate) fn unwritten(&self, now: i64) -> usize {
        self.take(now).len() + self.writing.load(Ordering::Relaxed)
    }

    /// Takes what was counted, in the order of the rows' keys: two processes that add to the same rows must not wait for each other in turn.
    fn take(&self, now: i64) -> Vec<UsageRow> {
        let hour = now.div_euclid(HOUR_MS);
        // Before looking: what is counted from now on may be missed, and is told again.
        self.is_counted.swap(false, Ordering::AcqRel);
        let counters = self.counters.pin();
        let mut rows = Vec::new();
        for (of, counted) in &counters {
            match counted.take() {
                Some(figures) => rows.push(UsageRow {
                    hour: of.hour,
                    tenant: counted.tenant.clone(),
                    caller: of.key.clone(),
                    connection: of.connection.clone(),
                    source: of.source.clone(),
                    figures,
                }),
                // Whoever found it in its hour has long added to it.
                None if (of.hour - hour).abs() > 1 => drop(counters.remove(of)),
                None => {}
            }
        }
        rows.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        rows
    }
}

/// The only one who writes usage in this process.
struct UsageWriter {
    usage: Weak<Usage>,
    counted: Arc<Notify>,
    store: Store,
    clock: Clock,
    rng: Rng,
    gate: Arc<Gate>,
    /// Where in `meta` the last batch stands.
    name: String,
    writing: Arc<AtomicUsize>,
}

impl UsageWriter {
    async fn run(self, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        loop {
            let due = async {
                self.counted.notified().await;
                self.clock.sleep(WRITE_EVERY).await;
            };
            let flushed = tokio::select! {
                biased;
                asked = asked.recv() => match asked {
                    Some(flushed) => Some(flushed),
                    // Nobody counts any more.
                    None => return,
                },
                () = due => None,
            };
            let Some(usage) = self.usage.upgrade() else { return };
            let rows = usage.take(self.clock.now_ms());
            // The broker may end meanwhile.
            drop(usage);
            self.writing.store(rows.len(), Ordering::Relaxed);
            let mut rows = rows.into_iter();
            loop {
                let batch: Vec<UsageRow> = rows.by_ref().take(ROWS).collect();
                if batch.is_empty() {
                    break;
                }
                let count = batch.len();
                self.write(batch).await;
                self.writing.fetch_sub(count, Ordering::Relaxed);
            }
            if let Some(flushed) = flushed {
                let _ = flushed.send(());
            }
        }
    }

    /// A batch; of one that holds what the database will never take all but that.
    async fn write(&self, rows: Vec<UsageRow>) {
        let rows = Arc::new(rows);
        if self.add(Arc::clone(&rows)).await.is_ok() {
            return;
        }
        for row in rows.iter() {
            if let Err(error) = self.add(Arc::new(vec![row.clone()])).await {
                tracing::error!(%error, connection = %row.connection, hour = row.hour, "a figure of usage is refused by the database for ever, and is dropped");
            }
        }
    }

    /// Until it holds, or is refused for ever.
    async fn add(&self, rows: Arc<Vec<UsageRow>>) -> StoreResult<()> {
        let batch = SegmentId::new(&self.clock, &self.rng);
        let began = self.clock.moment();
        loop {
            let (name, batch, rows) = (self.name.clone(), batch.clone(), Arc::clone(&rows));
            match self.store.write(move |tx| add(tx, &name, &batch, &rows)).await {
                Ok(()) => {
                    self.gate.open(Writer::Usage);
                    return Ok(());
                }
                Err(error) if is_lasting(&error) => {
                    // It can write, only not this.
                    self.gate.open(Writer::Usage);
                    return Err(error);
                }
                Err(error) => {
                    let failing = self.clock.since(began);
                    if failing < PATIENCE {
                        tracing::error!(%error, "usage can't be written; when that lasts for a minute, no token is handed out until it can");
                    } else {
                        self.gate.close(Writer::Usage);
                        tracing::error!(%error, "usage can't be written for more than a minute; no token is handed out until it can");
                    }
                    self.clock.sleep(RETRY).await;
                }
            }
        }
    }
}

/// A row's key, as the table has it.
fn key(row: &UsageRow) -> (i64, &str, &str, &str, &str) {
    let (caller, source) = (row.caller.as_ref(), row.source.as_ref());
    let (caller, source) = (caller.map_or("", |key| key.as_str()), source.map_or("", |source| source.as_str()));
    (row.hour, row.tenant.as_str(), row.connection.as_str(), caller, source)
}

/// Whether what was refused is refused again, however often it is tried.
fn is_lasting(error: &StoreError) -> bool {
    match error {
        StoreError::Refused(_) | StoreError::Taken | StoreError::InUse => true,
        StoreError::Engine(_)
        | StoreError::Unreachable(_)
        | StoreError::Unreadable { .. }
        | StoreError::Schema(_)
        | StoreError::Location(_)
        | StoreError::Closed => false,
    }
}

/// Adds a batch, unless it is in already, by a commit whose answer was lost.
fn add(tx: &Tx<'_>, name: &str, batch: &SegmentId, rows: &[UsageRow]) -> StoreResult<()> {
    if tx.meta(name)?.is_some_and(|last| last == batch.as_str()) {
        return Ok(());
    }
    tx.put_meta(name, batch.as_str())?;
    tx.add_usage(rows)
}
