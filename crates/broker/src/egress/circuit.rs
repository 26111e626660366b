//! A server that can't be reached is not called for a while: callers learn it at once, and it is not buried in attempts when it comes back.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use super::EgressFault;
use crate::clock::millis;

/// So many failures in a row open the circuit.
const FAILURES: u32 = 5;
/// How long it stays open at first; doubled at each failure of the one call that then tries.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Whether a server may be called. Times are those of one stopwatch.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    failures: AtomicU32,
    /// Not before this, milliseconds; 0 while it is closed.
    open_until: AtomicI64,
}

impl Circuit {
    /// Refuses while the circuit is open. When its time is over, one call is let through to try; the others go on being refused until it has tried.
    pub(super) fn check(&self, now: Duration) -> Result<(), EgressFault> {
        let until = self.open_until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        let now = millis(now);
        let next = now + millis(pause(self.failures.load(Ordering::Relaxed)));
        let is_mine =
            now >= until && self.open_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_mine {
            return Ok(());
        }
        let until = self.open_until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        Err(EgressFault::CircuitOpen { retry_after: Duration::from_millis((until - now).max(1).unsigned_abs()) })
    }

    /// It answered, whatever it said.
    pub(super) fn held(&self) {
        // Both are looked at: a failure that was being counted meanwhile may have opened it behind this one's back.
        if self.failures.load(Ordering::Relaxed) != 0 || self.open_until.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.open_until.store(0, Ordering::Relaxed);
        }
    }

    /// It could not be reached.
    pub(super) fn failed(&self, now: Duration) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures >= FAILURES {
            self.open_until.store((millis(now) + millis(pause(failures))).max(1), Ordering::Relaxed);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.failures.load(Ordering::Relaxed) == 0
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(FAILURES).min(5);
    (FIRST * 2u32.pow(doublings)).min(LONGEST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_call_try_after_a_growing_pause() {
        let circuit = Circuit::default();
        let mut now = Duration::from_secs(100);
        for _ in 0..4 {
            circuit.failed(now);
        }
        circuit.held();
        for _ in 0..4 {
            circuit.failed(now);
            assert_eq!(circuit.check(now), Ok(()), "an answer in between begins the count anew");
        }
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            circuit.failed(now);
            let pause = Duration::from_secs(seconds);
            assert_eq!(circuit.check(now), Err(EgressFault::CircuitOpen { retry_after: pause }));
            now += pause;
            assert_eq!(circuit.check(now), Ok(()));
            assert!(circuit.check(now).is_err(), "only one tries");
        }
        circuit.held();
        assert_eq!((circuit.check(now), circuit.is_closed()), (Ok(()), true));
    }
}
