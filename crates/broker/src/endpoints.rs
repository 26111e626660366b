//! How token endpoints are asked: so many requests at once, so many a second, and none while one is down.
//!
//! [`Gate`] decides, and is a plain state machine: it is told the time and never waits. [`Endpoints`] lets requests wait for its decisions. Each
//! endpoint has a small lock of its own, which nobody holds while waiting. All of it is this process's: replicas each have their own.

mod gate;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use self::gate::{Admitted, Decision, Gate};
use crate::clock::{Clock, Rng};

/// So many endpoints are kept before idle ones are looked for.
const KEPT: usize = 64;

/// How fast this process asks one token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests at once; at least 1.
    pub at_once: usize,
    /// Requests a second; at least 1.
    pub per_second: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { at_once: 8, per_second: 20 }
    }
}

/// Who waits for the answer; the first go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// A person asked for it: passes an open circuit.
    Person,
    /// A program needs the token now.
    Reader,
    /// Nobody yet.
    Background,
}

/// The circuit is open: nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Until when, Unix milliseconds.
    pub(crate) until: i64,
    /// Since when, Unix milliseconds.
    pub(crate) since: i64,
}

/// What background work finds at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// So many requests could go now.
    Free(usize),
    /// None before this, Unix milliseconds.
    Closed(i64),
}

/// All token endpoints in use.
pub(crate) struct Endpoints {
    pace: Pace,
    all: Mutex<All>,
}

struct All {
    endpoints: HashMap<String, Arc<Endpoint>>,
    /// At this number idle ones are forgotten.
    tidy_at: usize,
}

struct Endpoint {
    name: String,
    state: Mutex<State>,
}

struct State {
    gate: Gate,
    /// In the order in which they go.
    waiting: BTreeMap<(Urgency, u64), oneshot::Sender<Result<Admitted, Closed>>>,
    tickets: u64,
}

impl Endpoints {
    pub(crate) fn new(pace: Pace) -> Self {
        let pace = Pace { at_once: pace.at_once.max(1), per_second: pace.per_second.max(1) };
        Self { pace, all: Mutex::new(All { endpoints: HashMap::new(), tidy_at: KEPT }) }
    }

    /// A place to send a token request to `endpoint`: waits for room and for its turn; `Err` while its circuit is open.
    pub(crate) async fn enter(
        &self,
        clock: &Clock,
        rng: &Rng,
        endpoint: &str,
        urgency: Urgency,
    ) -> Result<Pass, Closed> {
        let endpoint = self.endpoint(endpoint, clock.now_ms());
        let admitted = Waiting::begin(&endpoint, clock, urgency).end().await?;
        let pass = Pass { endpoint, clock: clock.clone(), rng: rng.clone(), admitted: Some(admitted) };
        if !admitted.wait.is_zero() {
            clock.sleep(admitted.wait).await;
            let now = clock.now_ms();
            let closed = lock(&pass.endpoint.state).gate.closed_since(admitted, now);
            if let Some(closed) = closed.filter(|_| urgency != Urgency::Person) {
                return Err(closed);
            }
        }
        Ok(pass)
    }

    /// How many more background requests the endpoint would take, when `on_the_way` may not have asked for their place yet.
    pub(crate) fn room(&self, endpoint: &str, now: i64, on_the_way: usize) -> Room {
        let Some(endpoint) = self.lock().endpoints.get(endpoint).cloned() else {
            return Room::Free(self.pace.at_once.saturating_sub(on_the_way));
        };
        let state = lock(&endpoint.state);
        match state.gate.room(now) {
            Room::Free(places) => {
                let taken = (state.gate.in_flight + state.waiting.len()).max(on_the_way);
                Room::Free(places.saturating_sub(taken))
            }
            closed @ Room::Closed(_) => closed,
        }
    }

    /// The endpoints whose circuit is open, by name.
    pub(crate) fn down(&self, now: i64) -> Vec<(String, Closed)> {
        let all: Vec<_> = self.lock().endpoints.values().cloned().collect();
        let down = |endpoint: &Arc<Endpoint>| Some((endpoint.name.clone(), lock(&endpoint.state).gate.is_down(now)?));
        let mut down: Vec<_> = all.iter().filter_map(down).collect();
        down.sort_by(|a, b| a.0.cmp(&b.0));
        down
    }

    fn endpoint(&self, name: &str, now: i64) -> Arc<Endpoint> {
        let mut all = self.lock();
        if let Some(known) = all.endpoints.get(name) {
            return Arc::clone(known);
        }
        if all.endpoints.len() >= all.tidy_at {
            // Who holds a second handle is about to enter.
            all.endpoints.retain(|_, it| Arc::strong_count(it) > 1 || !lock(&it.state).is_idle(now));
            all.tidy_at = KEPT.max(all.endpoints.len() * 2);
        }
        let state = State { gate: Gate::new(self.pace), waiting: BTreeMap::new(), tickets: 0 };
        let new = Arc::new(Endpoint { name: name.to_owned(), state: Mutex::new(state) });
        all.endpoints.insert(name.to_owned(), Arc::clone(&new));
        new
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        lock(&self.all)
    }
}

/// The right to send one request. Say how it ended; dropped, it says nothing.
#[must_use]
pub(crate) struct Pass {
    endpoint: Arc<Endpoint>,
    clock: Clock,
    rng: Rng,
    admitted: Option<Admitted>,
}

impl Pass {
    /// The endpoint answered as one that works, be it with a refusal.
    pub(crate) fn answered(mut self) {
        self.end(|gate, admitted, _| gate.answered(admitted));
    }

    /// No answer, or one that says that it may pass; `retry_after` is what the provider asked for.
    pub(crate) fn failed(mut self, retry_after: Option<Duration>) {
        let jitter = self.rng.unit();
        self.end(|gate, admitted, now| gate.failed(admitted, retry_after, now, jitter));
    }

    fn end(&mut self, say: impl FnOnce(&mut Gate, Admitted, i64)) {
        let Some(admitted) = self.admitted.take() else { return };
        let now = self.clock.now_ms();
        let mut state = lock(&self.endpoint.state);
        let before = state.gate.is_open();
        say(&mut state.gate, admitted, now);
        let after = state.gate.is_open();
        state.serve(now);
        drop(state);
        match (before, after) {
            (false, true) => {
                tracing::warn!(endpoint = %self.endpoint.name, "a token endpoint doesn't answer: it is left alone for a while");
            }
            (true, false) => tracing::info!(endpoint = %self.endpoint.name, "a token endpoint answers again"),
            _ => {}
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.end(|gate, admitted, _| gate.left(admitted));
    }
}

/// A request's place in the queue, given up when it is dropped.
struct Waiting<'a> {
    endpoint: &'a Endpoint,
    clock: &'a Clock,
    ticket: (Urgency, u64),
    decision: oneshot::Receiver<Result<Admitted, Closed>>,
    is_decided: bool,
}

impl<'a> Waiting<'a> {
    fn begin(endpoint: &'a Endpoint, clock: &'a Clock, urgency: Urgency) -> Self {
        let (decide, decision) = oneshot::channel();
        let mut state = lock(&endpoint.state);
        state.tickets += 1;
        let ticket = (urgency, state.tickets);
        state.waiting.insert(ticket, decide);
        state.serve(clock.now_ms());
        drop(state);
        Self { endpoint, clock, ticket, decision, is_decided: false }
    }

    async fn end(mut self) -> Result<Admitted, Closed> {
        // Whoever takes a request out of the queue tells it why.
        let decided = (&mut self.decision).await.unwrap_or(Err(Closed { until: 0, since: 0 }));
        self.is_decided = true;
        decided
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_decided {
            return;
        }
        let mut state = lock(&self.endpoint.state);
        state.waiting.remove(&self.ticket);
        if let Ok(Ok(admitted)) = self.decision.try_recv() {
            state.gate.left(admitted);
        }
        state.serve(self.clock.now_ms());
    }
}

impl State {
    /// Decides about all who wait, the most urgent first, until there is no more room.
    fn serve(&mut self, now: i64) {
        while let Some(first) = self.waiting.first_entry() {
            match self.gate.admit(first.key().0, now) {
                Decision::Wait => break,
                Decision::Go(admitted) => {
                    if first.remove().send(Ok(admitted)).is_err() {
                        self.gate.left(admitted);
                    }
                }
                Decision::Closed(closed) => drop(first.remove().send(Err(closed))),
            }
        }
        if self.gate.is_open() {
            // A person who waits for room keeps nobody from being told that the circuit is open.
            let behind = self.waiting.split_off(&(Urgency::Reader, 0));
            for (ticket, decide) in behind {
                match self.gate.refused(ticket.0, now) {
                    Some(closed) => drop(decide.send(Err(closed))),
                    None => drop(self.waiting.insert(ticket, decide)),
                }
            }
        }
    }

    fn is_idle(&self, now: i64) -> bool {
        self.waiting.is_empty() && self.gate.is_idle(now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
