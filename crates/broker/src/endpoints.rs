//! How token endpoints are asked: so many requests at once, so many a second, and none while one is down.
//!
//! [`Gate`] decides, and is a plain state machine: it is told the time and never waits. [`Endpoints`] lets requests wait for its decisions. Each
//! endpoint has a small lock of its own, which nobody holds while waiting. All of it is this process's: replicas each have their own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{Clock, Rng, millis};

/// Failures in a row that open the circuit.
const FAILURES: usize = 5;
/// The circuit's first wait; doubled each time up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
/// The circuit's longest wait, unless the provider asks for more.
const LONGEST: Duration = Duration::from_secs(60);
/// A provider that asks to wait longer is asked again after this.
const LONGEST_ASKED: Duration = Duration::from_secs(24 * 3600);
/// Unused rate is kept for a burst of as many seconds.
const BURST_SECONDS: i64 = 2;
/// A circuit nobody has tried to pass for so long after its wait is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);
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

/// What decides about one endpoint's requests. Times are Unix milliseconds.
struct Gate {
    pace: Pace,
    in_flight: usize,
    /// How many may be in flight: all, but after an outage only as many as answers have come.
    places: usize,
    /// In a row.
    failures: usize,
    /// Openings since it last worked with all places; each doubles the wait.
    setbacks: u32,
    /// Openings ever: tells who was admitted before the last one.
    openings: u64,
    open: Option<Open>,
    /// When the next request would go at an even pace, Unix microseconds.
    next_at: i64,
}

/// An open circuit.
#[derive(Clone, Copy)]
struct Open {
    since: i64,
    /// When its wait began.
    from: i64,
    until: i64,
    /// One request was let through to try.
    probing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Admitted {
    opening: u64,
    is_probe: bool,
    /// It goes after this, to keep the rate.
    wait: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Go(Admitted),
    Wait,
    Closed(Closed),
}

impl Gate {
    fn new(pace: Pace) -> Self {
        let places = pace.at_once;
        Self { pace, in_flight: 0, places, failures: 0, setbacks: 0, openings: 0, open: None, next_at: i64::MIN }
    }

    /// | circuit | person | reader | background |
    /// | --- | --- | --- | --- |
    /// | closed | goes or waits | goes or waits | goes or waits |
    /// | open | goes | refused | refused |
    /// | open, its wait over | goes as the probe | the same | the same |
    /// | open, the probe under way | goes | waits for its outcome | refused |
    fn admit(&mut self, urgency: Urgency, now: i64) -> Decision {
        self.heed_the_clock(now);
        if let Some(closed) = self.refused(urgency, now) {
            return Decision::Closed(closed);
        }
        let may_probe = self.open.is_some_and(|open| !open.probing && now >= open.until);
        let passes = may_probe || urgency == Urgency::Person;
        let room = match self.open {
            Some(_) if passes => self.in_flight < self.pace.at_once,
            Some(_) => false,
            None => self.in_flight < self.places,
        };
        if !room {
            return Decision::Wait;
        }
        if let Some(open) = self.open.as_mut().filter(|_| may_probe) {
            open.probing = true;
        }
        self.in_flight += 1;
        Decision::Go(Admitted { opening: self.openings, is_probe: may_probe, wait: self.book(now) })
    }

    /// Why a request of this urgency may not even wait.
    fn refused(&self, urgency: Urgency, now: i64) -> Option<Closed> {
        let open = self.open?;
        let until = match urgency {
            Urgency::Person => return None,
            Urgency::Reader if open.probing => return None,
            Urgency::Background if open.probing => now + millis(FIRST),
            _ if now >= open.until => return None,
            _ => open.until,
        };
        Some(Closed { until, since: open.since })
    }

    fn answered(&mut self, admitted: Admitted) {
        self.in_flight -= 1;
        self.failures = 0;
        if admitted.opening < self.openings {
            // Asked before the endpoint went down.
            return;
        }
        match self.open.take() {
            Some(_) => self.places = 1,
            None => self.places = (self.places + 1).min(self.pace.at_once),
        }
        if self.places == self.pace.at_once {
            self.setbacks = 0;
        }
    }

    /// `jitter` is 0 to 1.
    fn failed(&mut self, admitted: Admitted, retry_after: Option<Duration>, now: i64, jitter: f64) {
        self.in_flight -= 1;
        self.heed_the_clock(now);
        // One connection may be asked to wait for what concerns it alone, so the endpoint is left alone for so long only when the next one is told the same.
        let most = if admitted.is_probe { LONGEST_ASKED } else { LONGEST };
        let asked = retry_after.filter(|wait| !wait.is_zero()).map(|wait| now + millis(wait.min(most)));
        if let Some(open) = &mut self.open
            && !admitted.is_probe
        {
            open.until = open.until.max(asked.unwrap_or(open.until));
            return;
        }
        if admitted.opening < self.openings {
            return;
        }
        self.failures += 1;
        // On the way back from an outage fewer failures are enough.
        let enough = if self.places < self.pace.at_once { FAILURES.min(self.places) } else { FAILURES };
        if admitted.is_probe || asked.is_some() || self.failures >= enough {
            self.trip(asked, now, jitter);
        }
    }

    /// It ended without a word about the endpoint.
    fn left(&mut self, admitted: Admitted) {
        self.in_flight -= 1;
        if let Some(open) = self.open.as_mut().filter(|_| admitted.is_probe && admitted.opening == self.openings) {
            open.probing = false;
        }
    }

    /// Opens the circuit, for longer than the last time.
    fn trip(&mut self, asked: Option<i64>, now: i64, jitter: f64) {
        let wait = FIRST.saturating_mul(1 << self.setbacks.min(10)).min(LONGEST).mul_f64(0.5 + jitter / 2.0);
        let since = self.open.map_or(now, |open| open.since);
        let until = (now + millis(wait)).max(asked.unwrap_or(now));
        self.open = Some(Open { since, from: now, until, probing: false });
        self.setbacks += 1;
        self.openings += 1;
        self.failures = 0;
        self.places = 1;
    }

    /// How long the next request waits to keep the rate; what wasn't used goes at once, up to a burst.
    fn book(&mut self, now: i64) -> Duration {
        let step = 1_000_000 / i64::from(self.pace.per_second);
        let now = now.saturating_mul(1000);
        let at = self.next_at.max(now - BURST_SECONDS * 1_000_000);
        self.next_at = at + step;
        Duration::from_micros(at.saturating_sub(now).max(0).unsigned_abs())
    }

    /// A clock that was set back must not hold anything up for as long.
    fn heed_the_clock(&mut self, now: i64) {
        if let Some(open) = &mut self.open
            && now < open.from
        {
            open.until -= open.from - now;
            open.from = now;
            open.since = open.since.min(now);
        }
        let step = 1_000_000 / i64::from(self.pace.per_second);
        let most = i64::try_from(self.pace.at_once).unwrap_or(i64::MAX).saturating_mul(step);
        self.next_at = self.next_at.min(now.saturating_mul(1000).saturating_add(most));
    }

    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The circuit, where it is open.
    fn is_down(&self, now: i64) -> Option<Closed> {
        self.open.map(|open| Closed { until: open.until.max(now), since: open.since })
    }

    /// Whether the circuit has opened since, and still is.
    fn closed_since(&self, admitted: Admitted, now: i64) -> Option<Closed> {
        self.is_down(now).filter(|_| admitted.opening < self.openings)
    }

    /// The places there are, taken or not.
    fn room(&self, now: i64) -> Room {
        match self.open {
            None => Room::Free(self.places),
            Some(open) if open.probing => Room::Closed(now + millis(FIRST)),
            Some(open) if now < open.from => Room::Closed(now + (open.until - open.from)),
            Some(open) if now < open.until => Room::Closed(open.until),
            Some(_) => Room::Free(1),
        }
    }

    /// Nothing to remember: it works with all places and has its whole burst, or nobody asked since the circuit's wait ended long ago.
    fn is_idle(&self, now: i64) -> bool {
        let rested = self.next_at.abs_diff(now.saturating_mul(1000)) >= BURST_SECONDS.unsigned_abs() * 1_000_000;
        let sound = match self.open {
            None => self.places == self.pace.at_once && self.failures == 0,
            Some(open) => now - open.until >= millis(FORGOTTEN),
        };
        self.in_flight == 0 && rested && sound
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use futures_util::FutureExt as _;

    const NOW: i64 = 1_790_000_000_000;
    const URL: &str = "https://provider.example/token";

    fn gate() -> Gate {
        Gate::new(Pace { at_once: 8, per_second: 1_000_000 })
    }

    fn go(gate: &mut Gate, urgency: Urgency, now: i64) -> Admitted {
        match gate.admit(urgency, now) {
            Decision::Go(admitted) => admitted,
            other => panic!("{urgency:?} at {}: {other:?}", now - NOW),
        }
    }

    /// A gate that opened at [`NOW`] for its first wait of 1 s.
    fn open_gate() -> Gate {
        let mut gate = gate();
        for _ in 0..FAILURES {
            let admitted = go(&mut gate, Urgency::Reader, NOW);
            gate.failed(admitted, None, NOW, 1.0);
        }
        gate
    }

    fn closed(until: i64) -> Decision {
        Decision::Closed(Closed { until, since: NOW })
    }

    #[test]
    fn failures_in_a_row_open_the_circuit_and_an_answer_between_them_does_not_let_them_add_up() {
        let mut gate = gate();
        for round in 0..3 {
            for _ in 1..FAILURES {
                let admitted = go(&mut gate, Urgency::Background, NOW + round);
                gate.failed(admitted, None, NOW, 0.0);
            }
            let admitted = go(&mut gate, Urgency::Background, NOW + round);
            gate.answered(admitted);
        }
        assert!(!gate.is_open());
        let gate = &mut open_gate();
        assert_eq!(gate.admit(Urgency::Reader, NOW + 999), closed(NOW + 1000));
        assert_eq!(gate.admit(Urgency::Background, NOW), closed(NOW + 1000));
    }

    #[test]
    fn what_the_provider_asks_for_opens_it_at_once_and_for_long_when_it_asks_again() {
        for (asked, first, then) in [(1, 1000, 2000), (30, 30_000, 30_000), (100 * 3600, 60_000, 24 * 3_600_000)] {
            let mut gate = gate();
            let asked = Some(Duration::from_secs(asked));
            let admitted = go(&mut gate, Urgency::Background, NOW);
            gate.failed(admitted, asked, NOW, 1.0);
            assert_eq!(gate.admit(Urgency::Reader, NOW), closed(NOW + first));
            let probe = go(&mut gate, Urgency::Reader, NOW + first);
            gate.failed(probe, asked, NOW + first, 1.0);
            assert_eq!(gate.admit(Urgency::Reader, NOW + first), closed(NOW + first + then));
        }
        let mut gate = gate();
        let admitted = go(&mut gate, Urgency::Background, NOW);
        gate.failed(admitted, Some(Duration::ZERO), NOW, 1.0);
        assert!(!gate.is_open(), "no wait was asked for");
    }

    #[test]
    fn each_probe_that_fails_doubles_the_wait_up_to_a_minute() {
        let mut gate = open_gate();
        let mut now = NOW + 1000;
        for wait in [2, 4, 8, 16, 32, 60, 60, 60] {
            let probe = go(&mut gate, Urgency::Background, now);
            assert!(probe.is_probe);
            assert!(matches!(gate.admit(Urgency::Background, now), Decision::Closed(_)), "one probe only");
            assert_eq!(gate.admit(Urgency::Reader, now), Decision::Wait, "its outcome is waited for");
            gate.failed(probe, None, now, 1.0);
            assert_eq!(gate.admit(Urgency::Reader, now + wait * 1000 - 1), closed(now + wait * 1000));
            now += wait * 1000;
        }
        let probe = go(&mut gate, Urgency::Background, now);
        gate.failed(probe, None, now, 0.0);
        assert_eq!(gate.room(now), Room::Closed(now + 30_000), "half of it, by chance");
    }

    #[test]
    fn a_probe_that_says_nothing_makes_room_for_the_next() {
        let mut gate = open_gate();
        let probe = go(&mut gate, Urgency::Background, NOW + 1000);
        gate.left(probe);
        assert!(go(&mut gate, Urgency::Background, NOW + 1000).is_probe);
    }

    #[test]
    fn after_an_outage_places_come_back_with_the_answers() {
        let mut gate = open_gate();
        let probe = go(&mut gate, Urgency::Background, NOW + 1000);
        gate.answered(probe);
        for places in [1, 2, 4, 8, 8] {
            assert_eq!(gate.room(NOW + 1000), Room::Free(places));
            let round: Vec<_> = (0..places).map(|_| go(&mut gate, Urgency::Reader, NOW + 1000)).collect();
            assert_eq!(gate.admit(Urgency::Reader, NOW + 1000), Decision::Wait);
            round.into_iter().for_each(|admitted| gate.answered(admitted));
        }
        assert_eq!(gate.setbacks, 0);
    }

    #[test]
    fn a_relapse_opens_it_sooner_and_for_longer() {
        let mut gate = open_gate();
        let probe = go(&mut gate, Urgency::Background, NOW + 1000);
        gate.answered(probe);
        let admitted = go(&mut gate, Urgency::Background, NOW + 1000);
        gate.failed(admitted, None, NOW + 1000, 1.0);
        assert_eq!(gate.room(NOW + 1000), Room::Closed(NOW + 3000), "one failure, two seconds");
    }

    #[test]
    fn a_person_passes_and_a_failure_of_theirs_changes_nothing() {
        let mut gate = open_gate();
        let person = go(&mut gate, Urgency::Person, NOW);
        gate.failed(person, None, NOW, 1.0);
        assert_eq!(gate.admit(Urgency::Reader, NOW), closed(NOW + 1000));
        let person = go(&mut gate, Urgency::Person, NOW);
        gate.failed(person, Some(Duration::from_secs(7)), NOW, 1.0);
        assert_eq!(gate.admit(Urgency::Reader, NOW), closed(NOW + 7000));
        let person = go(&mut gate, Urgency::Person, NOW);
        gate.answered(person);
        assert_eq!(gate.room(NOW), Room::Free(1));
    }

    #[test]
    fn who_asked_before_the_opening_says_nothing_about_the_time_after() {
        let mut gate = gate();
        let early: Vec<_> = (0..8).map(|_| go(&mut gate, Urgency::Background, NOW)).collect();
        for admitted in &early[..6] {
            gate.failed(*admitted, None, NOW, 1.0);
        }
        assert_eq!(gate.room(NOW), Room::Closed(NOW + 1000), "the sixth doesn't lengthen it");
        gate.answered(early[6]);
        assert_eq!(gate.room(NOW), Room::Closed(NOW + 1000));
        gate.failed(early[7], Some(Duration::from_secs(5)), NOW, 1.0);
        assert_eq!(gate.room(NOW), Room::Closed(NOW + 5000));
        assert_eq!(gate.in_flight, 0);
    }

    #[test]
    fn the_rate_is_kept_beyond_a_burst() {
        let mut gate = Gate::new(Pace { at_once: usize::MAX, per_second: 10 });
        let waits: Vec<_> = (0..25).map(|_| go(&mut gate, Urgency::Reader, NOW).wait.as_millis()).collect();
        assert!(waits[..=20].iter().all(|wait| *wait == 0), "{waits:?}");
        assert_eq!(waits[21..], [100, 200, 300, 400]);
        assert_eq!(go(&mut gate, Urgency::Reader, NOW + 400).wait.as_millis(), 100);
        assert_eq!(go(&mut gate, Urgency::Reader, NOW + 3_600_000).wait, Duration::ZERO);
    }

    #[test]
    fn a_clock_that_jumps_holds_nothing_up() {
        let mut gate = open_gate();
        let before = NOW - 86_400_000;
        assert_eq!(gate.room(before), Room::Closed(before + 1000));
        assert!(
            matches!(gate.admit(Urgency::Reader, before), Decision::Closed(Closed { until, .. }) if until == before + 1000)
        );
        assert!(go(&mut gate, Urgency::Reader, before + 1000).is_probe);

        let mut gate = Gate::new(Pace { at_once: 4, per_second: 10 });
        let admitted: Vec<_> = (0..4).map(|_| go(&mut gate, Urgency::Reader, NOW)).collect();
        admitted.into_iter().for_each(|admitted| gate.answered(admitted));
        assert!(go(&mut gate, Urgency::Reader, before).wait <= Duration::from_millis(400));

        let mut gate = open_gate();
        assert!(go(&mut gate, Urgency::Background, NOW + 86_400_000).is_probe);
    }

    struct Bench {
        endpoints: Endpoints,
        manual: ManualClock,
        clock: Clock,
        rng: Rng,
    }

    impl Bench {
        fn new(at_once: usize, per_second: u32) -> Self {
            let manual = ManualClock::starting_at(NOW);
            let clock = Clock::Manual(manual.clone());
            Self { endpoints: Endpoints::new(Pace { at_once, per_second }), manual, clock, rng: Rng::seeded(1) }
        }

        fn enter(&self, urgency: Urgency) -> impl Future<Output = Result<Pass, Closed>> {
            Box::pin(self.endpoints.enter(&self.clock, &self.rng, URL, urgency))
        }

        fn pass(&self, urgency: Urgency) -> Pass {
            self.enter(urgency).now_or_never().unwrap().ok().unwrap()
        }

        fn room(&self) -> Room {
            self.endpoints.room(URL, self.clock.now_ms(), 0)
        }
    }

    #[test]
    fn places_go_to_persons_then_readers_then_background_each_in_the_order_they_came() {
        let bench = Bench::new(1, 1_000_000);
        let mut held = bench.pass(Urgency::Background);
        let order = [Urgency::Background, Urgency::Reader, Urgency::Background, Urgency::Person, Urgency::Reader];
        let mut waiting: Vec<_> = order.map(|urgency| bench.enter(urgency)).into_iter().map(Some).collect();
        for one in waiting.iter_mut().flatten() {
            assert!(one.now_or_never().is_none());
        }
        for next in [3, 1, 4, 0, 2] {
            held.answered();
            let mut ready = Vec::new();
            for (at, one) in waiting.iter_mut().enumerate() {
                ready.extend(one.as_mut().and_then(|one| one.now_or_never()).map(|pass| (at, pass)));
            }
            let (at, pass) = ready.pop().unwrap();
            assert_eq!((at, ready.len()), (next, 0));
            held = pass.ok().unwrap();
            waiting[at] = None;
        }
    }

    #[test]
    fn who_goes_away_gives_the_place_back_whether_still_waiting_or_just_admitted() {
        let bench = Bench::new(1, 1_000_000);
        let held = bench.pass(Urgency::Reader);
        let (mut first, mut second, mut third) =
            (bench.enter(Urgency::Reader), bench.enter(Urgency::Reader), bench.enter(Urgency::Reader));
        for waiting in [&mut first, &mut second, &mut third] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(second);
        drop(held);
        // Admitted, but it never looked.
        drop(first);
        let held = third.now_or_never().unwrap().ok().unwrap();
        assert_eq!(bench.room(), Room::Free(0));
        drop(held);
        assert_eq!(bench.room(), Room::Free(1));
    }

    #[test]
    fn who_waits_for_the_rate_holds_a_place_and_gives_it_back() {
        let bench = Bench::new(8, 1);
        for _ in 0..3 {
            bench.pass(Urgency::Reader).answered();
        }
        let mut late = bench.enter(Urgency::Reader);
        assert!((&mut late).now_or_never().is_none());
        assert_eq!(bench.room(), Room::Free(7));
        bench.manual.advance(Duration::from_secs(1));
        late.now_or_never().unwrap().ok().unwrap().answered();
        let mut cancelled = bench.enter(Urgency::Reader);
        assert!((&mut cancelled).now_or_never().is_none());
        drop(cancelled);
        assert_eq!(bench.room(), Room::Free(8));
    }

    #[test]
    fn who_waits_when_the_circuit_opens_is_told_so_but_a_person_goes() {
        let bench = Bench::new(1, 1_000_000);
        for _ in 1..FAILURES {
            bench.pass(Urgency::Background).failed(None);
        }
        let held = bench.pass(Urgency::Background);
        let (mut reader, mut person) = (bench.enter(Urgency::Reader), bench.enter(Urgency::Person));
        assert!((&mut reader).now_or_never().is_none() && (&mut person).now_or_never().is_none());
        held.failed(None);
        assert!(person.now_or_never().is_some_and(|pass| pass.is_ok()));
        let closed = reader.now_or_never().unwrap().err().unwrap();
        assert_eq!((closed.since, bench.endpoints.down(NOW)), (NOW, vec![(URL.to_owned(), closed)]));
    }

    #[test]
    fn readers_wait_for_a_probe_and_one_of_them_is_the_next() {
        let bench = Bench::new(8, 1_000_000);
        for _ in 0..FAILURES {
            bench.pass(Urgency::Reader).failed(None);
        }
        bench.manual.advance(Duration::from_secs(1));
        let probe = bench.pass(Urgency::Background);
        let mut readers: Vec<_> = (0..3).map(|_| bench.enter(Urgency::Reader)).collect();
        assert!(readers.iter_mut().all(|reader| reader.now_or_never().is_none()));
        drop(probe);
        let probe = readers.remove(0).now_or_never().unwrap().ok().unwrap();
        assert!(readers.iter_mut().all(|reader| reader.now_or_never().is_none()));
        probe.failed(None);
        assert!(readers.iter_mut().all(|reader| reader.now_or_never().unwrap().is_err()));
    }

    #[test]
    fn idle_endpoints_are_forgotten_and_those_in_use_are_not() {
        let bench = Bench::new(8, 20);
        let held = bench.pass(Urgency::Reader);
        for n in 0..10_000 {
            let name = format!("https://{n}.example/token");
            let pass = bench.endpoints.enter(&bench.clock, &bench.rng, &name, Urgency::Reader);
            pass.now_or_never().unwrap().ok().unwrap().answered();
            bench.manual.advance(Duration::from_millis(100));
        }
        assert!(bench.endpoints.lock().endpoints.len() <= 2 * KEPT);
        assert_eq!(bench.room(), Room::Free(7));
        drop(held);
    }
}
