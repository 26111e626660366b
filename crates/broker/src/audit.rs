//! The audit: a record for every hand-out, call, consent, change and refusal.
//!
//! Records go through a bounded queue to one writer, so that handing out a token waits for no disk; it writes them in segments ([`segment`]). When a write fails,
//! everything here refuses, and with it every token; when the queue is full, tokens wait for room in it. What is in the queue when the process is killed (at most some milliseconds) is lost; a graceful stop writes it.

mod methods;
mod read;
mod segment;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a measurement that can't go on says so by panicking")]
mod speed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::{Clock, Rng};
use crate::error::{Error, Result};
use crate::model::{Caller, ConnectionId, KeyId, SegmentId, SourceId, Tenant};
use crate::store::Store;

pub(crate) use methods::Methods;
pub use read::{AuditFilter, AuditPage, AuditPart, AuditRow};

/// Most records that wait to be written: a quarter of a second at the most that a core hands out, which a disk may take to sync.
const QUEUE: usize = 32_768;
/// Most records of a segment.
const SEGMENT: usize = 512;
/// Most records of a write: after a slow one, the next takes what has come meanwhile.
const WRITE: usize = 16 * SEGMENT;
/// From the first record to its write, unless many wait: a write costs much the same for one record and for hundreds.
const GATHER: Duration = Duration::from_millis(10);
const RETRY: Duration = Duration::from_millis(250);
/// Who reads what was recorded or counted waits so long for what is not on disk yet; then what is there must do.
pub(crate) const READERS_WAIT: Duration = Duration::from_secs(2);
/// Longer paths and details are cut off behind this many bytes.
const LONGEST: usize = 2048;

/// The way in to the audit; clones share the queue.
#[derive(Clone)]
pub(crate) struct AuditLog {
    queue: mpsc::Sender<Entry>,
    gate: Arc<Gate>,
}

/// Open while what happens can be written down.
#[derive(Default)]
pub(crate) struct Gate {
    /// Who can't write, a bit each.
    closed: AtomicU8,
    /// Wakes who waits in turn when writing begins to fail.
    failed: Notify,
    /// Ends the writer's pause.
    hurry: Notify,
    /// How many records are being written.
    writing: AtomicUsize,
}

/// Who may close the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Writer {
    /// The audit's.
    Audit = 1,
    /// That of usage.
    Usage = 2,
    /// Nobody any more: the process stops.
    Nobody = 4,
}

impl Gate {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn open(&self, writer: Writer) {
        self.closed.fetch_and(!(writer as u8), Ordering::Relaxed);
    }

    pub(crate) fn close(&self, writer: Writer) {
        self.closed.fetch_or(writer as u8, Ordering::Relaxed);
        // Repeated with each try: who began to wait a moment after the first must not wait for ever.
        self.failed.notify_waiters();
    }
}

enum Entry {
    Record(Record),
    Flush(oneshot::Sender<()>),
    /// Nothing is taken any more.
    End(oneshot::Sender<()>),
}

/// A record as it waits.
struct Record {
    /// Unix milliseconds.
    at: i64,
    who: Who,
    what: What,
}

enum Who {
    Caller(Arc<Caller>),
    Named(Box<Named>),
}

/// Somebody of whom there is no [`Caller`] to share.
struct Named {
    tenant: Tenant,
    key: Option<KeyId>,
    name: String,
}

enum What {
    Token { connection: ConnectionId, secondary: Option<Box<str>> },
    Call { connection: ConnectionId, source: Option<SourceId>, method: Method, target: Target },
    Other(Box<Other>),
}

struct Other {
    action: &'static str,
    object: String,
    outcome: &'static str,
    detail: Option<String>,
}

/// Host and path behind each other.
struct Target {
    text: Box<str>,
    host: usize,
}

/// A call to an API that is about to go out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallRecord<'a> {
    /// With whose token.
    pub(crate) connection: &'a ConnectionId,
    /// By which data source, if by one.
    pub(crate) source: Option<&'a SourceId>,
    /// HTTP method.
    pub(crate) method: &'a Method,
    /// Which server.
    pub(crate) host: &'a str,
    /// As the caller wrote it, without the query, which may hold secrets.
    pub(crate) path: &'a str,
}

/// Anything else, from the slower paths.
pub(crate) struct NewRecord<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) key: Option<&'a KeyId>,
    /// The key's name, `person` or `keyholder`.
    pub(crate) actor: &'a str,
    pub(crate) action: &'static str,
    pub(crate) object: &'a str,
    /// `ok` or `refused`.
    pub(crate) outcome: &'static str,
    pub(crate) detail: Option<String>,
}

impl AuditLog {
    /// Starts the writer.
    pub(crate) fn start(store: Store, clock: Clock, rng: Rng) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let gate = Arc::<Gate>::default();
        let writer = SegmentWriter { store, clock, rng, gate: Arc::clone(&gate) };
        tokio::spawn(writer.run(entries));
        Self { queue, gate }
    }

    /// What is closed while something can't be written down.
    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Writes down that a connection's token, or the secondary one of that name, is handed out. A burst that fills the queue waits until the writer has made room.
    ///
    /// # Errors
    /// [`Error::AuditUnavailable`] while records can't be written: then what was to be recorded must not happen.
    pub(crate) async fn record_token(
        &self,
        at: i64,
        caller: &Arc<Caller>,
        connection: &ConnectionId,
        secondary: Option<&str>,
    ) -> Result<()> {
        let what = What::Token { connection: connection.clone(), secondary: secondary.map(Box::from) };
        self.record_in_turn(Record { at, who: Who::Caller(Arc::clone(caller)), what }).await
    }

    /// As [`Self::record_token`] for a connection's own token, but refuses where the queue is full; then nothing is recorded.
    pub(crate) fn record_token_at_once(&self, at: i64, caller: &Arc<Caller>, connection: &ConnectionId) -> Result<()> {
        let what = What::Token { connection: connection.clone(), secondary: None };
        self.record_at_once(Record { at, who: Who::Caller(Arc::clone(caller)), what })
    }

    /// Writes down a call, as [`Self::record_token`].
    pub(crate) async fn record_call(&self, at: i64, caller: &Arc<Caller>, call: CallRecord<'_>) -> Result<()> {
        let what = What::Call {
            connection: call.connection.clone(),
            source: call.source.cloned(),
            method: call.method.clone(),
            target: Target::new(call.host, call.path),
        };
        self.record_in_turn(Record { at, who: Who::Caller(Arc::clone(caller)), what }).await
    }

    /// Writes down anything else; refuses where the queue is full.
    ///
    /// # Errors
    /// As [`Self::record_token`].
    pub(crate) fn record(&self, at: i64, new: NewRecord<'_>) -> Result<()> {
        let who = Named { tenant: new.tenant.clone(), key: new.key.cloned(), name: new.actor.to_owned() };
        let what = Other {
            action: new.action,
            object: new.object.chars().take(200).collect(),
            outcome: new.outcome,
            detail: new.detail.map(|detail| cut(&detail).to_owned()),
        };
        self.record_at_once(Record { at, who: Who::Named(Box::new(who)), what: What::Other(Box::new(what)) })
    }

    fn record_at_once(&self, record: Record) -> Result<()> {
        if self.gate.is_closed() {
            return Err(Error::AuditUnavailable);
        }
        self.queue.try_send(Entry::Record(record)).map_err(|_| Error::AuditUnavailable)
    }

    async fn record_in_turn(&self, record: Record) -> Result<()> {
        if self.gate.is_closed() {
            return Err(Error::AuditUnavailable);
        }
        match self.queue.try_send(Entry::Record(record)) {
            Ok(()) => Ok(()),
            // Boxed: what seldom happens shall not make everybody's future larger.
            Err(mpsc::error::TrySendError::Full(entry)) => Box::pin(self.wait_for_room(entry)).await,
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Error::AuditUnavailable),
        }
    }

    async fn wait_for_room(&self, entry: Entry) -> Result<()> {
        tokio::select! {
            biased;
            sent = self.queue.send(entry) => sent.map_err(|_| Error::AuditUnavailable),
            () = self.gate.failed.notified() => Err(Error::AuditUnavailable),
        }
    }

    /// Returns when all that was recorded before is on disk.
    pub(crate) async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.queue.send(Entry::Flush(done)).await.is_ok() {
            self.gate.hurry.notify_one();
            let _ = waiting.await;
        }
    }

    /// As [`Self::flush`], and nothing is recorded after it: what comes later is refused, never taken and lost.
    pub(crate) async fn end(&self) {
        self.gate.close(Writer::Nobody);
        let (done, waiting) = oneshot::channel();
        // The gate was looked at before a record is put into the queue, so the queue's own end decides.
        if self.queue.send(Entry::End(done)).await.is_ok() {
            self.gate.hurry.notify_one();
            let _ = waiting.await;
        }
    }

    /// About how many records are not on disk.
    pub(crate) fn unwritten(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity() + self.gate.writing.load(Ordering::Relaxed)
    }
}

impl Target {
    fn new(host: &str, path: &str) -> Self {
        let path = cut(path);
        let mut text = String::with_capacity(host.len() + path.len());
        text.push_str(host);
        text.push_str(path);
        Self { text: text.into_boxed_str(), host: host.len() }
    }

    fn parts(&self) -> (&str, &str) {
        self.text.split_at(self.host)
    }
}

impl Record {
    fn tenant(&self) -> &Tenant {
        match &self.who {
            Who::Caller(caller) => &caller.tenant,
            Who::Named(named) => &named.tenant,
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// The only one who writes the audit in this process.
struct SegmentWriter {
    store: Store,
    clock: Clock,
    rng: Rng,
    gate: Arc<Gate>,
}

impl SegmentWriter {
    async fn run(self, mut entries: mpsc::Receiver<Entry>) {
        let (mut batch, mut ended) = (Vec::with_capacity(SEGMENT), Vec::new());
        while entries.recv_many(&mut batch, WRITE).await > 0 {
            self.gate.writing.store(batch.len(), Ordering::Relaxed);
            if batch.len() < SEGMENT {
                self.gather(&mut entries, &mut batch).await;
            }
            let (mut records, mut flushed) = (Vec::with_capacity(batch.len()), Vec::new());
            for entry in batch.drain(..) {
                match entry {
                    Entry::Record(record) => records.push(record),
                    Entry::Flush(done) => flushed.push(done),
                    Entry::End(done) => {
                        entries.close();
                        ended.push(done);
                    }
                }
            }
            self.write(records).await;
            for done in flushed {
                let _ = done.send(());
            }
        }
        for done in ended {
            let _ = done.send(());
        }
    }

    /// What comes within a moment goes with the first; and what was recorded ahead of some work doesn't stand before it at the store.
    async fn gather(&self, entries: &mut mpsc::Receiver<Entry>, batch: &mut Vec<Entry>) {
        tokio::select! {
            biased;
            () = self.gate.hurry.notified() => {}
            () = self.clock.gather(GATHER) => {}
        }
        while batch.len() < WRITE
            && let Ok(entry) = entries.try_recv()
        {
            batch.push(entry);
        }
    }

    /// Until it holds: a record is never dropped while the process lives.
    async fn write(&self, records: Vec<Record>) {
        self.gate.writing.store(records.len(), Ordering::Relaxed);
        if records.is_empty() {
            return;
        }
        // Each with an id that stays, so that a write whose answer was lost adds nothing when it is repeated.
        let ids: Vec<_> = records.chunks(SEGMENT).map(|_| SegmentId::new(&self.clock, &self.rng)).collect();
        let whole = Arc::new((ids, records));
        loop {
            let whole = Arc::clone(&whole);
            let written = self.store.write(move |tx| {
                let (ids, records) = &*whole;
                ids.iter().zip(records.chunks(SEGMENT)).try_for_each(|(id, records)| {
                    let mut segments = segment::of(records).into_iter();
                    segments.try_for_each(|(tenant, segment)| tx.add_audit(tenant, id, &segment))
                })
            });
            match written.await {
                Ok(()) => {
                    self.gate.writing.store(0, Ordering::Relaxed);
                    return self.gate.open(Writer::Audit);
                }
                Err(error) => {
                    self.gate.close(Writer::Audit);
                    tracing::error!(%error, "the audit can't be written; no token is handed out until it can");
                    self.clock.sleep(RETRY).await;
                }
            }
        }
    }
}
