//! The audit: a record for every hand-out, call, consent, change and refusal.
//!
//! Records go through a bounded queue to one writer, so that handing out a token waits for no disk. When a write fails,
//! [`AuditLog::record`] refuses, and with it every token; when the queue is full, tokens wait for room in it. What is in the queue when the process is killed (at most a few milliseconds) is lost; a graceful stop writes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::manage::Page;
use crate::model::Caller;
use crate::open::Broker;
use crate::store::{AuditRow, NewAudit, Store, Tx};

/// Most records that wait to be written.
const QUEUE: usize = 8192;
const BATCH: usize = 512;
const RETRY: Duration = Duration::from_millis(250);

/// The way in to the audit; clones share the queue.
#[derive(Clone)]
pub(crate) struct AuditLog {
    queue: mpsc::Sender<Entry>,
    health: Arc<Health>,
}

#[derive(Default)]
struct Health {
    failing: AtomicBool,
    /// Wakes who waits in turn when writing begins to fail.
    failed: Notify,
}

enum Entry {
    Record(NewAudit),
    Flush(oneshot::Sender<()>),
}

impl AuditLog {
    /// Starts the writer.
    pub(crate) fn start(store: Store, clock: Clock) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let health = Arc::<Health>::default();
        tokio::spawn(write_loop(store, clock, entries, Arc::clone(&health)));
        Self { queue, health }
    }

    /// Hands a record to the writer.
    ///
    /// # Errors
    /// [`Error::AuditUnavailable`] while records can't be written: then what was to be recorded must not happen.
    pub(crate) fn record(&self, record: NewAudit) -> Result<()> {
        if self.health.failing.load(Ordering::Relaxed) {
            return Err(Error::AuditUnavailable);
        }
        self.queue.try_send(Entry::Record(record)).map_err(|_| Error::AuditUnavailable)
    }

    /// As [`Self::record`], but a burst that fills the queue waits until the writer has made room.
    pub(crate) async fn record_in_turn(&self, record: NewAudit) -> Result<()> {
        if self.health.failing.load(Ordering::Relaxed) {
            return Err(Error::AuditUnavailable);
        }
        let record = match self.queue.try_send(Entry::Record(record)) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(record)) => record,
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Error::AuditUnavailable),
        };
        tokio::select! {
            biased;
            sent = self.queue.send(record) => sent.map_err(|_| Error::AuditUnavailable),
            () = self.health.failed.notified() => Err(Error::AuditUnavailable),
        }
    }

    /// Returns when all that was recorded before is on disk.
    pub(crate) async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.queue.send(Entry::Flush(done)).await.is_ok() {
            let _ = waiting.await;
        }
    }
}

async fn write_loop(store: Store, clock: Clock, mut entries: mpsc::Receiver<Entry>, health: Arc<Health>) {
    let mut batch = Vec::with_capacity(BATCH);
    while entries.recv_many(&mut batch, BATCH).await > 0 {
        let mut flushed = Vec::new();
        let mut records = Vec::with_capacity(batch.len());
        for entry in batch.drain(..) {
            match entry {
                Entry::Record(record) => records.push(record),
                Entry::Flush(done) => flushed.push(done),
            }
        }
        write(&store, &clock, Arc::new(records), &health).await;
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// Until it holds: a record is never dropped while the process lives.
async fn write(store: &Store, clock: &Clock, records: Arc<Vec<NewAudit>>, health: &Health) {
    if records.is_empty() {
        return;
    }
    loop {
        let records = Arc::clone(&records);
        let written = store.write(move |tx| tx.add_audit(&records)).await;
        health.failing.store(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(()) => return,
            Err(error) => {
                // Repeated with each try: who began to wait a moment after the first must not wait for ever.
                health.failed.notify_waiters();
                tracing::error!(%error, "the audit can't be written; no token is handed out until it can");
                clock.sleep(RETRY).await;
            }
        }
    }
}

impl Broker {
    /// Audit records: without a cursor the newest, newest first; behind a cursor oldest first.
    pub async fn audit_records(&self, caller: &Caller, page: &Page) -> Result<Vec<AuditRow>> {
        self.audit.flush().await;
        let (tenant, page) = (caller.tenant.clone(), page.clone());
        let read = move |tx: &Tx<'_>| {
            if page.after.is_empty() {
                tx.newest_audit(&tenant, page.limit)
            } else {
                tx.audit(&tenant, &page.after, page.limit)
            }
        };
        Ok(self.store.read(read).await?)
    }
}
