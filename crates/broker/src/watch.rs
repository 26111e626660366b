//! Who wants to know at once what happens to connections.
//!
//! One task a process, and only while somebody listens, reads the `events` of the database each second: what other replicas did is heard too, and whoever
//! renews or hands out does nothing for it. Ids begin with the time at which they were made, which is before they can be read; so it looks back a little, and
//! passes over what it has told already.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};

use crate::clock::millis;
use crate::error::Result;
use crate::model::{Caller, ConnectionId, EventId, Happened};
use crate::open::Broker;
use crate::store::StoreResult;

/// How often the database is read.
const EVERY: Duration = Duration::from_secs(1);

/// An event may become readable so long after its id was made, or have been made by a clock that is so far behind.
const LATE: Duration = Duration::from_secs(10);

/// Most events that a listener may lag behind; then it is told that it missed some.
const BEHIND: usize = 256;

/// Listeners, and the task that reads for them.
pub(crate) struct Hub {
    sender: broadcast::Sender<Arc<Happened>>,
    is_reading: Mutex<bool>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BEHIND), is_reading: Mutex::new(false) }
    }
}

/// What a listener hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// Something happened.
    Event(Arc<Happened>),
    /// So much happened that some of it was missed: look at everything anew.
    Missed,
}

/// Hears what happens to the connections that a caller may see.
pub struct Watch {
    caller: Arc<Caller>,
    only: Option<ConnectionId>,
    receiver: broadcast::Receiver<Arc<Happened>>,
    /// What happened before this began, and wasn't heard.
    before: VecDeque<Heard>,
    told: BTreeSet<EventId>,
}

impl Broker {
    /// Listens to what happens to connections from now on: to all that the caller may see, or to `connection`. `after` is the last event that was heard; what came
    /// since is told first.
    pub async fn watch(&self, caller: &Arc<Caller>, connection: Option<&str>, after: Option<&str>) -> Result<Watch> {
        let only = match connection {
            Some(connection) => Some(self.find_connection(caller, connection).await?.id),
            None => None,
        };
        let receiver = self.hub.sender.subscribe();
        self.begin_reading().await?;
        let mut watch =
            Watch { caller: Arc::clone(caller), only, receiver, before: VecDeque::new(), told: BTreeSet::new() };
        if let Some(after) = after {
            watch.before = self.missed(after).await?;
            watch.told = watch.before.iter().filter_map(Heard::id).cloned().collect();
        }
        Ok(watch)
    }

    /// What came after an event that was heard.
    async fn missed(&self, after: &str) -> Result<VecDeque<Heard>> {
        let Ok(after) = after.parse::<EventId>() else { return Ok([Heard::Missed].into()) };
        let most = i64::try_from(BEHIND).unwrap_or(i64::MAX);
        let since = self.store.read(move |tx| tx.events_since(&after, most)).await?;
        if since.len() >= BEHIND {
            return Ok([Heard::Missed].into());
        }
        Ok(since.into_iter().map(|event| Heard::Event(Arc::new(event))).collect())
    }

    /// Begins to read, unless somebody does; what there is already isn't told.
    async fn begin_reading(&self) -> Result<()> {
        {
            let mut is_reading = self.hub.is_reading.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *is_reading, true) {
                return Ok(());
            }
        }
        let mut reading = Reading::default();
        // If this can't begin, another one may.
        let mut place = ReadsPlace { broker: self.clone(), is_left: false };
        let started = self.store.read(move |tx| {
            reading.newest = tx.newest_event()?.map_or(0, |id| id.made_at());
            reading.read(tx)?;
            Ok(reading)
        });
        let mut reading = started.await?;
        tokio::spawn(async move {
            let broker = place.broker.clone();
            while !place.left_if_nobody_listens() {
                broker.clock.sleep(EVERY).await;
                let mut next = reading.clone();
                let read = broker.store.read(move |tx| {
                    let new = next.read(tx)?;
                    Ok((next, new))
                });
                match read.await {
                    Ok((next, new)) => {
                        reading = next;
                        for event in new {
                            // All may have gone meanwhile.
                            let _ = broker.hub.sender.send(Arc::new(event));
                        }
                    }
                    Err(error) => tracing::debug!(%error, "what happened can't be read; it is tried again"),
                }
            }
        });
        Ok(())
    }
}

/// The place of the one who reads; left when this is dropped.
struct ReadsPlace {
    broker: Broker,
    is_left: bool,
}

impl ReadsPlace {
    /// Under the lock: whoever subscribed before it was taken is seen, whoever asks for it afterwards begins to read.
    fn left_if_nobody_listens(&mut self) -> bool {
        let mut is_reading = self.broker.hub.is_reading.lock().unwrap_or_else(PoisonError::into_inner);
        if self.broker.hub.sender.receiver_count() == 0 {
            *is_reading = false;
            self.is_left = true;
        }
        self.is_left
    }
}

impl Drop for ReadsPlace {
    fn drop(&mut self) {
        if !self.is_left {
            *self.broker.hub.is_reading.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
    }
}

/// How far was read.
#[derive(Clone, Default)]
struct Reading {
    /// When the newest that was seen was made, Unix milliseconds.
    newest: i64,
    /// What was told of the last seconds.
    told: BTreeSet<EventId>,
}

impl Reading {
    /// What is new.
    fn read(&mut self, tx: &crate::store::Tx<'_>) -> StoreResult<Vec<Happened>> {
        let mut from = EventId::first_at(self.newest.saturating_sub(millis(LATE)));
        let most = i64::try_from(BEHIND).unwrap_or(i64::MAX);
        let mut new = Vec::new();
        loop {
            let page = tx.events_since(&from, most)?;
            let is_last = page.len() < BEHIND;
            for event in page {
                from = event.id.clone();
                self.newest = self.newest.max(event.id.made_at());
                if self.told.insert(event.id.clone()) {
                    new.push(event);
                }
            }
            if is_last {
                break;
            }
        }
        let floor = EventId::first_at(self.newest.saturating_sub(millis(LATE)));
        self.told = self.told.split_off(&floor);
        Ok(new)
    }
}

impl Heard {
    fn id(&self) -> Option<&EventId> {
        match self {
            Heard::Event(event) => Some(&event.id),
            Heard::Missed => None,
        }
    }
}

impl Watch {
    /// The next that this caller may hear. Dropped while it waits, it has missed nothing.
    pub async fn next(&mut self) -> Heard {
        loop {
            let heard = match self.before.pop_front() {
                Some(heard) => heard,
                None => match self.receiver.recv().await {
                    Ok(event) if self.told.remove(&event.id) => continue,
                    Ok(event) => Heard::Event(event),
                    // The sender lives as long as the broker.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => Heard::Missed,
                },
            };
            match &heard {
                Heard::Event(event) if !self.may_hear(event) => {}
                _ => return heard,
            }
        }
    }

    fn may_hear(&self, event: &Happened) -> bool {
        self.only.as_ref().is_none_or(|only| *only == event.connection) && event.may_be_heard_by(&self.caller)
    }
}
