//! Whether somebody else's claim still stands: whether a request of his may be in flight.
//!
//! A claim ends with its deadline, by the database's clock. Clocks are set, though, forward and back, and a request in flight doesn't care. So a deadline only
//! counts while the clock has run evenly, and a claim that was watched for its whole length, by a clock that nobody sets, is over whatever its deadline says.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment, millis};
use crate::model::{Attempt, AttemptId, Connection, ConnectionId};

/// How long a claim stands: longer than one exchange may take ([`crate::egress::Bounds::PROVIDER`]) and begin late ([`YOUNG`]), so that nobody sends
/// while a request may be in flight.
pub(super) const CLAIM: Duration = Duration::from_secs(40);
/// A request is only sent under a claim younger than this: a process that was halted after its claim sends nothing when it wakes.
pub(super) const YOUNG: Duration = Duration::from_secs(8);
/// Where a second use of a refresh token would do harm, a dead owner gets this much longer to come back with its escrow.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// A clock that differs this much from what has passed was set.
const SET: Duration = Duration::from_secs(2);

/// What the claim on a row means for who wants to renew it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none.
    Free,
    /// Its owner is dead, or has given up without a word; whatever it sent is no longer in flight.
    Over(Attempt),
    /// It stands. Look again after this.
    Stands(Duration),
}

/// What this process knows of others' claims.
#[derive(Default)]
pub(crate) struct Claims(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// Claims in the way of a renewal here, and since when they are seen.
    watched: HashMap<ConnectionId, (AttemptId, Moment)>,
    /// What the database's clock showed, and when.
    read: Option<(i64, Moment)>,
    /// When it was last found to have been set.
    set: Option<Moment>,
}

impl Claims {
    /// Judges the claim on `row`. `now` is the database's time, Unix milliseconds; `patience` what an owner gets beyond its deadline.
    pub(super) fn judge(&self, clock: &Clock, row: &Connection, now: i64, patience: Duration) -> Standing {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.note(clock, now);
        let Some(attempt) = &row.attempt else {
            seen.watched.remove(&row.id);
            return Standing::Free;
        };
        let since = match seen.watched.get(&row.id) {
            Some((watched, since)) if *watched == attempt.id => *since,
            _ => {
                let since = clock.moment();
                seen.watched.insert(row.id.clone(), (attempt.id.clone(), since));
                since
            }
        };
        let whole = CLAIM + patience;
        let watched_for = clock.since(since);
        if watched_for >= whole {
            return Standing::Over(attempt.clone());
        }
        let until = attempt.deadline.saturating_add(millis(patience));
        // A deadline further away than any claim is long was written before the clock was set back.
        if seen.runs_evenly(clock, whole) && until <= now.saturating_add(millis(whole)) {
            let left = Duration::from_millis(until.saturating_sub(now).max(0).unsigned_abs());
            if left.is_zero() {
                return Standing::Over(attempt.clone());
            }
            return Standing::Stands(left.min(whole - watched_for));
        }
        Standing::Stands(whole - watched_for)
    }

    /// From now on it is seen when the database's clock, which shows `now`, is set.
    pub(crate) fn begin(&self, clock: &Clock, now: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(clock, now);
    }

    /// A renewal here ended: nobody watches any more.
    pub(super) fn forget(&self, id: &ConnectionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).watched.remove(id);
    }
}

impl Seen {
    fn note(&mut self, clock: &Clock, now: i64) {
        if let Some((shown, at)) = self.read {
            let expected = shown.saturating_add(millis(clock.since(at)));
            if now.abs_diff(expected) > SET.as_millis().try_into().unwrap_or(u64::MAX) {
                tracing::warn!(
                    milliseconds = now.saturating_sub(expected),
                    "the database's clock was set; claims are judged by watching them until all from before are over"
                );
                self.set = Some(clock.moment());
            }
        }
        self.read = Some((now, clock.moment()));
    }

    fn runs_evenly(&self, clock: &Clock, whole: Duration) -> bool {
        self.set.is_none_or(|set| clock.since(set) > whole)
    }
}
