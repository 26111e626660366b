//! What an API allows a connection: how fast, how many calls at once, and not before when.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, RETRY_AFTER};
use keyholder_oauth::{date_ms, retry_after};
use keyholder_provider::{Limits, ResetUnit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Map;
use crate::clock::{Clock, millis};
use crate::model::{ConnectionId, KeyId, Rate};

/// A call waits so long for its turn; then it is told when to come again.
const PATIENCE: Duration = Duration::from_secs(10);
/// A slower pace, which no check lets pass any more, is this one: times stay numbers.
const SLOWEST: f64 = 0.001;
/// Who finds no place comes again after this, in milliseconds.
const BUSY: i64 = 1000;
/// An API that asks to wait longer is asked again after this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How fast calls may come, and how many at once.
#[derive(Debug)]
pub(crate) struct Gate {
    rate: Rate,
    /// When the calls so far would have been made at an even pace, Unix microseconds.
    paced_until: AtomicI64,
    calls: Option<Arc<Semaphore>>,
}

/// The right to call, until it is dropped; `None` where any number may at once.
pub(crate) type Turn = Option<OwnedSemaphorePermit>;

impl Gate {
    fn new(rate: Rate) -> Self {
        let calls = rate.concurrent.map(|calls| Arc::new(Semaphore::new(calls.max(1) as usize)));
        Self { rate, paced_until: AtomicI64::new(0), calls }
    }

    /// A turn, or when to come again, Unix milliseconds.
    pub(crate) fn enter_at_once(&self, now: i64) -> Result<Turn, i64> {
        let permit = match &self.calls {
            None => None,
            Some(calls) => Some(Arc::clone(calls).try_acquire_owned().map_err(|_| now + BUSY)?),
        };
        self.pace(|| now, Duration::ZERO)?;
        Ok(permit)
    }

    /// Waits for a turn, but not for long; else says when to come again, Unix milliseconds.
    async fn enter(&self, clock: &Clock) -> Result<(Turn, bool), i64> {
        let busy = || clock.now_ms() + BUSY;
        let permit = match &self.calls {
            None => None,
            Some(calls) => {
                let permit = match Arc::clone(calls).try_acquire_owned() {
                    Ok(permit) => Ok(permit),
                    Err(_) => clock.timeout(PATIENCE, Arc::clone(calls).acquire_owned()).await.ok_or_else(busy)?,
                };
                Some(permit.map_err(|_| busy())?)
            }
        };
        let wait = self.pace(|| clock.now_ms(), PATIENCE)?;
        if let Some(wait) = wait {
            Box::pin(clock.sleep(wait)).await;
        }
        Ok((permit, wait.is_some()))
    }

    /// Takes the next place in the pace; what a second allows may come at once.
    fn pace(&self, now: impl Fn() -> i64, patience: Duration) -> Result<Option<Duration>, i64> {
        let Some(per_second) = self.rate.per_second.filter(|rate| *rate > 0.0) else { return Ok(None) };
        #[expect(clippy::cast_possible_truncation, reason = "microseconds between two calls")]
        let between = (1e6 / per_second.max(SLOWEST)) as i64;
        let at_once = (1_000_000 - between).max(0);
        let (now, patience) = (now() * 1000, millis(patience) * 1000);
        let taken = self.paced_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            let until = until.max(now);
            (until - at_once - now <= patience).then_some(until + between)
        });
        let late = |until: i64| until - at_once - now;
        match taken {
            Ok(until) if late(until) > 0 => Ok(Some(Duration::from_micros(late(until).unsigned_abs()))),
            Ok(_) => Ok(None),
            Err(until) => Err((now + late(until)) / 1000),
        }
    }

    /// Whether it would let in as many as a new one.
    fn is_idle(&self, now: i64) -> bool {
        let all = self.rate.concurrent.unwrap_or(0).max(1) as usize;
        let is_free = |calls: &Arc<Semaphore>| calls.available_permits() >= all;
        self.paced_until.load(Ordering::Relaxed) <= now * 1000 && self.calls.as_ref().is_none_or(is_free)
    }
}

/// The gates of keys that are limited in their calls; each process has its own.
#[derive(Default)]
pub(crate) struct KeyGates(Map<KeyId, Arc<Gate>>);

impl KeyGates {
    /// A key's gate.
    pub(crate) fn of(&self, key: &KeyId, rate: Rate) -> Arc<Gate> {
        Arc::clone(self.0.pin().get_or_insert_with(key.clone(), || Arc::new(Gate::new(rate))))
    }

    /// Takes out those that nobody waits at.
    pub(crate) fn drop_idle(&self, now: i64) {
        self.0.pin().retain(|_, gate| Arc::strong_count(gate) > 1 || !gate.is_idle(now));
    }
}

/// What one connection's API allows, and what it said last.
#[derive(Debug)]
pub(crate) struct Allowance {
    limits: Limits,
    gate: Gate,
    /// The API said not to call before this, Unix milliseconds.
    not_before: AtomicI64,
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBefore {
    /// Unix milliseconds.
    pub(crate) at: i64,
    /// The API said so; else it is the definition's pace.
    pub(crate) said: bool,
}

impl Allowance {
    pub(crate) fn new(limits: Limits) -> Self {
        let rate = Rate { per_second: limits.per_second, concurrent: limits.concurrent };
        Self { limits, gate: Gate::new(rate), not_before: AtomicI64::new(i64::MIN) }
    }

    /// Waits for its turn, but not for long.
    pub(crate) async fn enter(&self, clock: &Clock) -> Result<Turn, NotBefore> {
        self.check(|| clock.now_ms())?;
        let (turn, has_waited) = self.gate.enter(clock).await.map_err(|at| NotBefore { at, said: false })?;
        if has_waited {
            self.check(|| clock.now_ms())?;
        }
        Ok(turn)
    }

    /// How long the API takes no calls, where it said so.
    pub(crate) fn closed_for(&self, now: i64) -> Option<Duration> {
        let left = self.not_before.load(Ordering::Relaxed).saturating_sub(now);
        (left > 0).then(|| Duration::from_millis(left.unsigned_abs()))
    }

    fn check(&self, now: impl Fn() -> i64) -> Result<(), NotBefore> {
        let at = self.not_before.load(Ordering::Relaxed);
        if at != i64::MIN && at > now() { Err(NotBefore { at, said: true }) } else { Ok(()) }
    }

    /// What an answer says of the next calls.
    pub(crate) fn hear(&self, status: u16, headers: &HeaderMap, now: impl Fn() -> i64) {
        let refused = matches!(status, 429 | 503);
        if !refused && self.limits.remaining_header.is_none() {
            return;
        }
        let now = now();
        let text = |name: &HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
        let limits = &self.limits;
        let reset = || reset_at(text(limits.reset_header.as_ref()?)?, limits.reset_unit, now);
        let own = || text(limits.retry_after_header.as_ref()?);
        let told = || Some(now.saturating_add(millis(retry_after(own().or_else(|| text(&RETRY_AFTER))?, now)?)));
        let is_last = || Some(text(limits.remaining_header.as_ref()?)?.parse::<f64>().ok()? <= 0.0);
        let at = match refused {
            true => told().or_else(|| reset().filter(|_| status == 429)),
            false => reset().filter(|_| is_last() == Some(true)),
        };
        if let Some(at) = at.filter(|at| *at > now) {
            self.not_before.store(at.min(now + millis(LONGEST)), Ordering::Relaxed);
        }
    }
}

fn reset_at(text: &str, unit: ResetUnit, now: i64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
    let number = |factor: f64| Some((text.parse::<f64>().ok().filter(|n| n.is_finite())? * factor) as i64);
    match unit {
        ResetUnit::Seconds => Some(now.saturating_add(number(1000.0)?)),
        ResetUnit::Ms => Some(now.saturating_add(number(1.0)?)),
        // Some count in milliseconds; in seconds such a number would be three thousand years away.
        ResetUnit::Unix => number(1000.0).map(|at| if at > 100_000_000_000_000 { at / 1000 } else { at }),
        ResetUnit::Date => date_ms(text),
    }
}

/// The allowances of connections that are called. They outlive token sets.
#[derive(Default)]
pub(crate) struct Allowances(Map<ConnectionId, Arc<Allowance>>);

impl Allowances {
    /// A connection's allowance; a new one if its definition says something else now.
    pub(crate) fn of(&self, connection: &ConnectionId, limits: &Limits) -> Arc<Allowance> {
        let all = self.0.pin();
        if let Some(known) = all.get(connection).filter(|known| known.limits == *limits) {
            return Arc::clone(known);
        }
        let new = Arc::new(Allowance::new(limits.clone()));
        all.insert(connection.clone(), Arc::clone(&new));
        new
    }

    /// Takes out what nobody holds and says nothing any more.
    pub(crate) fn drop_idle(&self, now: i64) {
        let is_used = |it: &Arc<Allowance>| Arc::strong_count(it) > 1 || it.not_before.load(Ordering::Relaxed) > now;
        self.0.pin().retain(|_, it| is_used(it));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const NOW: i64 = 1_790_000_000_000;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn limits() -> Limits {
        Limits {
            remaining_header: Some(HeaderName::from_static("x-left")),
            reset_header: Some(HeaderName::from_static("x-reset")),
            retry_after_header: Some(HeaderName::from_static("x-wait")),
            ..Limits::default()
        }
    }

    #[test]
    fn what_an_api_says_is_kept() {
        type Said = [(&'static str, &'static str)];
        let table: [(u16, &Said, Option<i64>); 10] = [
            (429, &[("retry-after", "30")], Some(30)),
            (503, &[("retry-after", "30")], Some(30)),
            (429, &[("retry-after", "30"), ("x-wait", "7")], Some(7)),
            (429, &[("x-reset", "12")], Some(12)),
            (503, &[("x-reset", "12")], None),
            (200, &[("x-left", "0"), ("x-reset", "12")], Some(12)),
            (200, &[("x-left", "1"), ("x-reset", "12")], None),
            (200, &[("retry-after", "30")], None),
            (429, &[("retry-after", "soon")], None),
            (429, &[("retry-after", "99999999")], Some(24 * 3600)),
        ];
        for (status, said, expected) in table {
            let said: Vec<(&'static str, &str)> = said.to_vec();
            let allowance = Allowance::new(limits());
            allowance.hear(status, &headers(&said), || NOW);
            let refused = allowance.check(|| NOW).err().map(|not| (not.at - NOW) / 1000);
            assert_eq!(refused, expected, "{status} {said:?}");
            assert!(expected.is_none_or(|wait| allowance.check(|| NOW + wait * 1000).is_ok()));
        }
    }

    #[test]
    fn a_reset_is_read_in_its_unit() {
        for (text, unit, expected) in [
            ("5", ResetUnit::Seconds, Some(NOW + 5000)),
            ("250", ResetUnit::Ms, Some(NOW + 250)),
            ("1790000060", ResetUnit::Unix, Some(NOW + 60_000)),
            ("1790000060000", ResetUnit::Unix, Some(NOW + 60_000)),
            ("2026-09-21T14:14:20Z", ResetUnit::Date, Some(1_790_000_060_000)),
            ("never", ResetUnit::Seconds, None),
        ] {
            assert_eq!(reset_at(text, unit, NOW), expected, "{text}");
        }
    }

    #[test]
    fn calls_keep_the_pace() {
        let gate = |per_second| Gate::new(Rate { per_second: Some(per_second), concurrent: None });
        let (fast, slow) = (gate(4.0), gate(0.1));
        let pace = |gate: &Gate, now| gate.pace(|| now, PATIENCE);
        let waits: Vec<_> = (0..6).map(|_| pace(&fast, NOW).unwrap().map_or(0, |wait| wait.as_millis())).collect();
        assert_eq!(waits, [0, 0, 0, 0, 250, 500], "as many as a second allows come at once");
        assert_eq!(pace(&fast, NOW + 60_000).unwrap(), None);
        assert_eq!(pace(&slow, NOW).unwrap(), None);
        assert_eq!(pace(&slow, NOW).unwrap(), Some(Duration::from_secs(10)));
        assert_eq!(pace(&slow, NOW).unwrap_err(), NOW + 20_000);
        let never = gate(f64::MIN_POSITIVE);
        assert_eq!(pace(&never, NOW).unwrap(), None);
        assert_eq!(pace(&never, NOW).unwrap_err(), NOW + 1_000_000);
    }

    #[test]
    fn a_key_is_not_made_to_wait_but_told_when() {
        let gates = KeyGates::default();
        let (clock, rng) = (Clock::Manual(ManualClock::starting_at(NOW)), crate::clock::Rng::seeded(1));
        let key = KeyId::new(&clock, &rng);
        let gate = gates.of(&key, Rate { per_second: Some(2.0), concurrent: Some(1) });
        let first = gate.enter_at_once(NOW).unwrap();
        assert_eq!(gate.enter_at_once(NOW).unwrap_err(), NOW + BUSY, "one at a time");
        drop(first);
        drop(gate.enter_at_once(NOW).unwrap());
        assert_eq!(gate.enter_at_once(NOW).unwrap_err(), NOW + 500, "two a second");
        drop(gate);
        gates.drop_idle(NOW);
        assert!(gates.0.pin().contains_key(&key), "it remembers while it says something");
        gates.drop_idle(NOW + 60_000);
        assert!(!gates.0.pin().contains_key(&key));
    }

    #[tokio::test]
    async fn so_many_calls_at_once_and_no_more() {
        let clock = ManualClock::starting_at(NOW);
        let (clock, steering) = (Clock::Manual(clock.clone()), clock);
        let allowance = Allowance::new(Limits { concurrent: Some(1), ..Limits::default() });
        let first = allowance.enter(&clock).await.unwrap();
        let (second, ()) = tokio::join!(allowance.enter(&clock), async { steering.advance(PATIENCE) });
        assert!(!second.unwrap_err().said);
        let (third, ()) = tokio::join!(allowance.enter(&clock), async { drop(first) });
        assert!(third.is_ok());
    }
}
