//! Whether somebody else's claim still stands: whether a request of his may be in flight.
//!
//! A claim ends with its deadline, by the database's clock. Clocks are set, though, forward and back, and a request in flight doesn't care. So a deadline only
//! counts while the clock has run evenly as far as this process knows, and a claim that was watched for its whole length, by a clock that nobody sets, is over
//! whatever its deadline says. While the database is away an owner can't say what came of its request: when it is back, all watching begins anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
/// So many claims are watched before those that ended unseen are looked for.
const WATCHED: usize = 1024;
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
    /// Since when it is known to run evenly, and the database to be there.
    even_since: Option<Moment>,
}

impl Claims {
    /// Judges the claim on `row`. `now` is the database's time, Unix milliseconds; `patience` what an owner gets beyond its deadline.
    pub(super) fn judge(&self, clock: &Clock, row: &Connection, now: i64, patience: Duration) -> Standing {
        let mut seen = self.lock();
        seen.note(clock, now);
        let Some(attempt) = &row.attempt else {
            seen.watched.remove(&row.id);
            return Standing::Free;
        };
        let since = match seen.watched.get(&row.id) {
            Some((watched, since)) if *watched == attempt.id => *since,
            _ => {
                let since = clock.moment();
                seen.tidy(clock);
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

    /// This process begins to watch: `now` is what the database's clock shows, `claimed` the claims that are held.
    pub(crate) fn begin(&self, clock: &Clock, now: i64, claimed: Vec<(ConnectionId, AttemptId)>) {
        let mut seen = self.lock();
        let moment = clock.moment();
        seen.watched = claimed.into_iter().map(|(id, attempt)| (id, (attempt, moment))).collect();
        seen.read = Some((now, moment));
        seen.even_since = Some(moment);
    }

    /// The database could not be asked.
    pub(crate) fn database_was_away(&self, clock: &Clock) {
        let mut seen = self.lock();
        let moment = clock.moment();
        seen.watched.values_mut().for_each(|(_, since)| *since = moment);
        seen.even_since = Some(moment);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
                self.even_since = Some(clock.moment());
            }
        }
        self.read = Some((now, clock.moment()));
    }

    fn runs_evenly(&self, clock: &Clock, whole: Duration) -> bool {
        self.even_since.is_none_or(|since| clock.since(since) > whole)
    }

    /// Claims that ended unseen are forgotten.
    fn tidy(&mut self, clock: &Clock) {
        if self.watched.len() >= WATCHED {
            self.watched.retain(|_, (_, since)| clock.since(*since) < (CLAIM + PATIENCE) * 2);
        }
    }
}
