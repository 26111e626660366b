//! What decides about one endpoint's requests: a plain state machine, which is told the time and never waits.

use std::time::Duration;

use super::{Closed, Pace, Room, Urgency};
use crate::clock::millis;

/// Failures in a row that open the circuit.
pub(super) const FAILURES: usize = 5;
/// The circuit's first wait; doubled each time up to [`LONGEST`].
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// The circuit's longest wait, unless the provider asks for more.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// A provider that asks to wait longer is asked again after this.
pub(super) const LONGEST_ASKED: Duration = Duration::from_secs(24 * 3600);
/// Unused rate is kept for a burst of as many seconds.
pub(super) const BURST_SECONDS: i64 = 2;
/// A circuit nobody has tried to pass for so long after its wait is forgotten.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

/// What decides about one endpoint's requests. Times are Unix milliseconds.
pub(super) struct Gate {
    pace: Pace,
    pub(super) in_flight: usize,
    /// How many may be in flight: all, but after an outage only as many as answers have come.
    places: usize,
    /// In a row.
    failures: usize,
    /// Openings since it last worked with all places; each doubles the wait.
    pub(super) setbacks: u32,
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
pub(super) struct Admitted {
    pub(super) opening: u64,
    pub(super) is_probe: bool,
    /// It goes after this, to keep the rate.
    pub(super) wait: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Go(Admitted),
    Wait,
    Closed(Closed),
}

impl Gate {
    pub(super) fn new(pace: Pace) -> Self {
        let places = pace.at_once;
        Self { pace, in_flight: 0, places, failures: 0, setbacks: 0, openings: 0, open: None, next_at: i64::MIN }
    }

    /// | circuit | person | reader | background |
    /// | --- | --- | --- | --- |
    /// | closed | goes or waits | goes or waits | goes or waits |
    /// | open | goes | refused | refused |
    /// | open, its wait over | goes as the probe | the same | the same |
    /// | open, the probe under way | goes | waits for its outcome | refused |
    pub(super) fn admit(&mut self, urgency: Urgency, now: i64) -> Decision {
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
    pub(super) fn refused(&self, urgency: Urgency, now: i64) -> Option<Closed> {
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

    pub(super) fn answered(&mut self, admitted: Admitted) {
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
    pub(super) fn failed(&mut self, admitted: Admitted, retry_after: Option<Duration>, now: i64, jitter: f64) {
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
    pub(super) fn left(&mut self, admitted: Admitted) {
        self.in_flight -= 1;
        if let Some(open) = self.open.as_mut().filter(|_| admitted.is_probe && admitted.opening == self.openings) {
            open.probing = false;
        }
    }

    /// Opens the circuit, for longer than the last time.
    pub(super) fn trip(&mut self, asked: Option<i64>, now: i64, jitter: f64) {
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
    pub(super) fn book(&mut self, now: i64) -> Duration {
        let step = 1_000_000 / i64::from(self.pace.per_second);
        let now = now.saturating_mul(1000);
        let at = self.next_at.max(now - BURST_SECONDS * 1_000_000);
        self.next_at = at + step;
        Duration::from_micros(at.saturating_sub(now).max(0).unsigned_abs())
    }

    /// A clock that was set back must not hold anything up for as long.
    pub(super) fn heed_the_clock(&mut self, now: i64) {
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

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The circuit, where it is open.
    pub(super) fn is_down(&self, now: i64) -> Option<Closed> {
        self.open.map(|open| Closed { until: open.until.max(now), since: open.since })
    }

    /// Whether the circuit has opened since, and still is.
    pub(super) fn closed_since(&self, admitted: Admitted, now: i64) -> Option<Closed> {
        self.is_down(now).filter(|_| admitted.opening < self.openings)
    }

    /// The places there are, taken or not.
    pub(super) fn room(&self, now: i64) -> Room {
        match self.open {
            None => Room::Free(self.places),
            Some(open) if open.probing => Room::Closed(now + millis(FIRST)),
            Some(open) if now < open.from => Room::Closed(now + (open.until - open.from)),
            Some(open) if now < open.until => Room::Closed(open.until),
            Some(_) => Room::Free(1),
        }
    }

    /// Nothing to remember: it works with all places and has its whole burst, or nobody asked since the circuit's wait ended long ago.
    pub(super) fn is_idle(&self, now: i64) -> bool {
        let rested = self.next_at.abs_diff(now.saturating_mul(1000)) >= BURST_SECONDS.unsigned_abs() * 1_000_000;
        let sound = match self.open {
            None => self.places == self.pace.at_once && self.failures == 0,
            Some(open) => now - open.until >= millis(FORGOTTEN),
        };
        self.in_flight == 0 && rested && sound
    }
}
