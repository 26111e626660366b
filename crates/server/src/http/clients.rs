//! The clients' connections: what each is doing, and which has been at it for too long.
//!
//! No connection has a timer, and no request sets one: a connection counts what it does, and one task looks at all of them every few seconds.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

/// Between two looks; the limits below are counted in looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A head that has begun must be there within this, and a new connection's first one: 15 seconds.
const HEAD: u32 = 3;
/// A connection without a request ends after this: 75 seconds.
const IDLE: u32 = 15;
/// So long an idle connection has for its goodbye: 10 seconds.
const GOODBYE: u32 = 2;
/// A client that takes nothing of its answer for this long has gone: 60 seconds.
const STALLED: u32 = 12;
/// When there is no room for a new connection, so many that are idle end at once.
const ROOM: usize = 64;

/// All connections of clients.
pub(super) struct Clients {
    open: Mutex<Open>,
    /// Told when the last one has ended.
    none: Notify,
    slots: Arc<Semaphore>,
}

#[derive(Default)]
struct Open {
    next: u64,
    clients: HashMap<u64, (Arc<Client>, Seen)>,
}

/// What the last look saw of a connection, and for how many looks that is so.
#[derive(Clone, Copy, Default)]
struct Seen {
    requests: u64,
    moved: u64,
    /// No request.
    quiet: u32,
    /// A head under way.
    head: u32,
    /// An answer that isn't taken.
    stalled: u32,
}

/// What a connection is told.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Told {
    Nothing,
    /// End when the requests under way are answered.
    Finish,
    /// End now.
    End,
}

impl Clients {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), none: Notify::new(), slots: Arc::new(Semaphore::new(most)) })
    }

    /// A place for one more connection. Where all are taken, idle connections make room.
    pub(super) async fn slot(&self) -> Slot {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Slot(Some(slot));
        }
        self.make_room();
        // The semaphore is never closed.
        Slot(Arc::clone(&self.slots).acquire_owned().await.ok())
    }

    /// Takes a new connection into account, as long as what is returned lives.
    pub(super) fn enter(self: &Arc<Self>) -> Entered {
        let client = Arc::new(Client::default());
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.clients.insert(number, (Arc::clone(&client), Seen::default()));
        Entered { clients: Arc::clone(self), number, client }
    }

    /// Looks at all of them, and ends those that have been at it for too long.
    pub(super) fn look(&self) {
        for (client, seen) in self.open().clients.values_mut() {
            client.tell(seen.look(client));
        }
        if self.slots.available_permits() == 0 {
            self.make_room();
        }
    }

    /// Ends those that have been idle for longest.
    fn make_room(&self) {
        let open = self.open();
        let idle = |(client, seen): &&(Arc<Client>, Seen)| !client.is_busy() && seen.quiet > 0;
        let mut idle: Vec<_> = open.clients.values().filter(idle).collect();
        idle.sort_unstable_by_key(|(_, seen)| std::cmp::Reverse(seen.quiet));
        idle.iter().take(ROOM).for_each(|(client, _)| client.tell(Told::End));
    }

    /// Has all finish what is under way, and returns when they have.
    pub(super) async fn finish(&self) {
        loop {
            let gone = self.none.notified();
            {
                let open = self.open();
                if open.clients.is_empty() {
                    return;
                }
                open.clients.values().for_each(|(client, _)| client.tell(Told::Finish));
            }
            gone.await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn look(&mut self, client: &Client) -> Told {
        let (requests, moved) = (client.requests.load(Ordering::Relaxed), client.moved.load(Ordering::Relaxed));
        let counted = |so_far: u32, goes_on: bool| if goes_on { so_far + 1 } else { 0 };
        let quiet = requests == self.requests && !client.is_busy();
        let in_head = client.head_begun.load(Ordering::Relaxed) && !client.is_http2.load(Ordering::Relaxed);
        *self = Self {
            requests,
            moved,
            quiet: counted(self.quiet, quiet),
            head: counted(self.head, quiet && (in_head || requests == 0)),
            stalled: counted(self.stalled, client.is_stuck() && moved == self.moved),
        };
        if self.head > HEAD || self.stalled > STALLED || self.quiet > IDLE + GOODBYE {
            Told::End
        } else if self.quiet > IDLE {
            Told::Finish
        } else {
            Told::Nothing
        }
    }
}

/// Held by an open socket.
pub(super) struct Slot(#[expect(dead_code, reason = "held")] Option<tokio::sync::OwnedSemaphorePermit>);

/// A connection that is taken into account.
pub(super) struct Entered {
    clients: Arc<Clients>,
    number: u64,
    pub(super) client: Arc<Client>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.clients.open();
        open.clients.remove(&self.number);
        if open.clients.is_empty() {
            self.clients.none.notify_waiters();
        }
    }
}

/// What one connection is doing. Written by its own tasks, read by the look.
#[derive(Default)]
pub(super) struct Client {
    is_http2: AtomicBool,
    /// Requests that have begun.
    requests: AtomicU64,
    /// Those that wait for their answer, or for its end.
    under_way: AtomicUsize,
    /// Something came since the last request began.
    head_begun: AtomicBool,
    /// The socket takes no more.
    blocked: AtomicBool,
    /// Answers of which a piece waits to be taken.
    waiting: AtomicUsize,
    /// Counts what was taken.
    moved: AtomicU64,
    told: AtomicU8,
    task: OnceLock<Waker>,
}

impl Client {
    /// A request has begun.
    pub(super) fn asks(&self) {
        raise(&self.requests);
        self.head_begun.store(false, Ordering::Relaxed);
    }

    /// Something came.
    pub(super) fn sent(&self) {
        if !self.is_busy() {
            self.head_begun.store(true, Ordering::Relaxed);
        }
    }

    /// The socket took something, or would not.
    pub(super) fn took<T>(&self, written: &Poll<T>) {
        let blocked = written.is_pending();
        self.blocked.store(blocked, Ordering::Relaxed);
        // By HTTP/2 it takes answers to its own pings too; there, pieces of answers count.
        if !blocked && !self.is_http2.load(Ordering::Relaxed) {
            raise(&self.moved);
        }
    }

    pub(super) fn speaks_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    fn is_stuck(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) || self.waiting.load(Ordering::Relaxed) > 0
    }

    fn tell(&self, told: Told) {
        if told as u8 > self.told.fetch_max(told as u8, Ordering::AcqRel)
            && let Some(task) = self.task.get()
        {
            task.wake_by_ref();
        }
    }
}

/// Only the connection's own task counts, so that it needs no lock on the bus.
fn raise(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// A request under way: from when it waits until its answer's body has ended.
pub(super) struct UnderWay {
    client: Arc<Client>,
    /// A piece was given that isn't known to be taken.
    gave: bool,
}

impl UnderWay {
    pub(super) fn new(client: &Arc<Client>) -> Self {
        client.under_way.fetch_add(1, Ordering::Relaxed);
        Self { client: Arc::clone(client), gave: false }
    }

    /// The answer's body was asked for more: what it gave before is taken.
    pub(super) fn gives(&mut self, piece: bool) {
        if self.gave {
            self.client.moved.fetch_add(1, Ordering::Relaxed);
        }
        match (self.gave, piece) {
            (false, true) => drop(self.client.waiting.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.client.waiting.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        self.gave = piece;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.gives(false);
        self.client.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that can be asked to end when all is answered.
pub(super) trait Finish {
    fn finish(self: Pin<&mut Self>);
}

/// Drives a connection until it ends, or is told to; `None` when it was ended in the middle.
pub(super) async fn watched<C: Future + Finish + Unpin>(client: &Client, connection: &mut C) -> Option<C::Output> {
    let mut finishing = false;
    std::future::poll_fn(|context: &mut Context<'_>| {
        // A task's waker stays the same, so that one is enough.
        client.task.get_or_init(|| context.waker().clone());
        let told = client.told.load(Ordering::Acquire);
        if told == Told::End as u8 {
            return Poll::Ready(None);
        }
        if told == Told::Finish as u8 && !finishing {
            finishing = true;
            Pin::new(&mut *connection).finish();
        }
        Pin::new(&mut *connection).poll(context).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(seen: &mut Seen, client: &Client) -> (u32, Told) {
        (1..100)
            .map(|count| (count, seen.look(client)))
            .find(|(_, told)| *told != Told::Nothing)
            .unwrap_or((100, Told::Nothing))
    }

    #[test]
    fn a_silent_connection_and_an_unfinished_head_end_before_an_idle_one() {
        let (client, mut seen) = (Client::default(), Seen::default());
        assert_eq!(looks(&mut seen, &client).0, HEAD + 1, "never a request");

        client.asks();
        assert!(seen.look(&client) == Told::Nothing);
        assert!(looks(&mut seen, &client) == (IDLE + 1, Told::Finish), "idle");
        client.asks();
        assert!(seen.look(&client) == Told::Nothing, "a new request counts anew");
        for _ in 0..IDLE - 1 {
            assert!(seen.look(&client) == Told::Nothing);
        }
        // A head that begins late has its own time.
        client.sent();
        assert!(seen.look(&client) == Told::Nothing);
        client.asks();
        client.sent();
        assert!(seen.look(&client) == Told::Nothing);
        assert!(looks(&mut seen, &client) == (HEAD + 1, Told::End));
    }

    #[test]
    fn a_request_under_way_may_take_its_time_unless_its_answer_is_not_taken() {
        let (client, mut seen) = (Arc::new(Client::default()), Seen::default());
        client.asks();
        let mut answer = UnderWay::new(&client);
        client.sent();
        assert_eq!(looks(&mut seen, &client).0, 100, "an upload, or an API that thinks");
        answer.gives(true);
        for _ in 0..STALLED {
            assert!(seen.look(&client) == Told::Nothing);
        }
        answer.gives(true);
        assert!(seen.look(&client) == Told::Nothing, "it was taken");
        assert!(looks(&mut seen, &client) == (STALLED + 1, Told::End));
        answer.gives(false);
        assert_eq!(looks(&mut seen, &client).0, 100, "the API gives nothing, which is not the client's fault");
        drop(answer);
        assert_eq!((client.is_busy(), client.is_stuck()), (false, false));
        client.took(&Poll::<()>::Pending);
        assert_eq!(looks(&mut seen, &client).1 as u8, Told::End as u8, "a last answer that isn't taken");
    }

    #[tokio::test]
    async fn where_all_places_are_taken_the_idle_ones_go() {
        let clients = Clients::new(3);
        let mut taken = Vec::new();
        for _ in 0..3 {
            let entered = clients.enter();
            entered.client.asks();
            taken.push((clients.slot().await, entered));
        }
        let _busy = UnderWay::new(&taken[0].1.client);
        clients.look();
        taken[2].1.client.asks();
        clients.look();
        let mut waiting = std::pin::pin!(clients.slot());
        assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
        let told = taken.iter().map(|(_, entered)| entered.client.told.load(Ordering::Relaxed) == Told::End as u8);
        assert_eq!(told.collect::<Vec<_>>(), [false, true, false], "neither a busy one nor one that has just asked");
        taken.remove(1);
        waiting.await;
    }
}
