//! What an API allows a connection: how fast, how many calls at once, and not before when.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, RETRY_AFTER};
use keyholder_oauth::{date_ms, retry_after};
use keyholder_provider::{Limits, ResetUnit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::{Clock, millis};
use crate::model::ConnectionId;

/// A call waits so long for its turn; then it is told when to come again.
const PATIENCE: Duration = Duration::from_secs(10);
/// An API that asks to wait longer is asked again after this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What one connection's API allows, and what it said last.
#[derive(Debug)]
pub(crate) struct Allowance {
    limits: Limits,
    /// The API said not to call before this, Unix milliseconds.
    not_before: AtomicI64,
    /// When the calls so far would have been made at an even pace, Unix microseconds.
    paced_until: AtomicI64,
    calls: Option<Arc<Semaphore>>,
}

/// The right to call, until it is dropped; `None` where any number may at once.
pub(crate) type Turn = Option<OwnedSemaphorePermit>;

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
        let calls = limits.concurrent.map(|calls| Arc::new(Semaphore::new(calls.max(1) as usize)));
        Self { limits, not_before: AtomicI64::new(i64::MIN), paced_until: AtomicI64::new(0), calls }
    }

    /// Waits for its turn, but not for long.
    pub(crate) async fn enter(&self, clock: &Clock) -> Result<Turn, NotBefore> {
        let now = clock.now_ms();
        self.check(now)?;
        let busy = || NotBefore { at: clock.now_ms() + 1000, said: false };
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
        if let Some(wait) = self.pace(clock.now_ms())? {
            clock.sleep(wait).await;
            self.check(clock.now_ms())?;
        }
        Ok(permit)
    }

    fn check(&self, now: i64) -> Result<(), NotBefore> {
        let at = self.not_before.load(Ordering::Relaxed);
        if at > now { Err(NotBefore { at, said: true }) } else { Ok(()) }
    }

    /// Takes the next place in the pace; what a second allows may come at once.
    fn pace(&self, now: i64) -> Result<Option<Duration>, NotBefore> {
        let Some(per_second) = self.limits.per_second.filter(|rate| *rate > 0.0) else { return Ok(None) };
        #[expect(clippy::cast_possible_truncation, reason = "microseconds between two calls")]
        let between = (1e6 / per_second) as i64;
        let at_once = (1_000_000 - between).max(0);
        let (now, patience) = (now * 1000, millis(PATIENCE) * 1000);
        let taken = self.paced_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            let until = until.max(now);
            (until - at_once - now <= patience).then_some(until + between)
        });
        let late = |until: i64| until - at_once - now;
        match taken {
            Ok(until) if late(until) > 0 => Ok(Some(Duration::from_micros(late(until).unsigned_abs()))),
            Ok(_) => Ok(None),
            Err(until) => Err(NotBefore { at: (now + late(until)) / 1000, said: false }),
        }
    }

    /// What an answer says of the next calls.
    pub(crate) fn hear(&self, status: u16, headers: &HeaderMap, now: i64) {
        let text = |name: &HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
        let limits = &self.limits;
        let reset = || reset_at(text(limits.reset_header.as_ref()?)?, limits.reset_unit, now);
        let refused = matches!(status, 429 | 503);
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
pub(crate) struct Allowances(papaya::HashMap<ConnectionId, Arc<Allowance>>);

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
            allowance.hear(status, &headers(&said), NOW);
            let refused = allowance.check(NOW).err().map(|not| (not.at - NOW) / 1000);
            assert_eq!(refused, expected, "{status} {said:?}");
            assert!(expected.is_none_or(|wait| allowance.check(NOW + wait * 1000).is_ok()));
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
        let allowance = Allowance::new(Limits { per_second: Some(4.0), ..Limits::default() });
        let waits: Vec<_> = (0..6).map(|_| allowance.pace(NOW).unwrap().map_or(0, |wait| wait.as_millis())).collect();
        assert_eq!(waits, [0, 0, 0, 0, 250, 500], "as many as a second allows come at once");
        assert_eq!(allowance.pace(NOW + 60_000).unwrap(), None);
        let slow = Allowance::new(Limits { per_second: Some(0.1), ..Limits::default() });
        assert_eq!(slow.pace(NOW).unwrap(), None);
        assert_eq!(slow.pace(NOW).unwrap(), Some(Duration::from_secs(10)));
        assert_eq!(slow.pace(NOW).unwrap_err(), NotBefore { at: NOW + 20_000, said: false });
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
