//! Counting.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{CallEnd, Called};
use crate::model::{ConnectionId, KeyId, SourceId, Tenant};
use crate::store::{Figures, TOOK};

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Of {
    /// Since 1970.
    pub(super) hour: i64,
    /// `None`: Keyholder itself.
    pub(super) key: Option<KeyId>,
    pub(super) connection: ConnectionId,
    pub(super) source: Option<SourceId>,
}

/// Ids are ours and random, so that each may be folded before it is hashed, which is quicker.
impl Hash for Of {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_i64(self.hour);
        state.write_u64(folded(self.connection.as_str()));
        state.write_u64(self.key.as_ref().map_or(0, |key| folded(key.as_str())));
        state.write_u64(self.source.as_ref().map_or(0, |source| folded(source.as_str())));
    }
}

/// Three parts of an id over each other: its time as well, for a test's random bits may be the same each time.
fn folded(id: &str) -> u64 {
    let part = |from: usize| {
        let bytes = id.as_bytes().get(from..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    part(6) ^ part(14).rotate_left(21) ^ part(22).rotate_left(42)
}

/// What was counted since it was last taken.
pub(super) struct Counters {
    pub(super) tenant: Tenant,
    hand_outs: AtomicU32,
    renewals: AtomicU32,
    failed_renewals: AtomicU32,
    client_errors: AtomicU32,
    server_errors: AtomicU32,
    own_errors: AtomicU32,
    sent: AtomicU64,
    received: AtomicU64,
    /// Every call is in one of these, so they count the calls too.
    took: [AtomicU32; TOOK],
}

impl Counters {
    pub(super) fn new(tenant: Tenant) -> Self {
        Self {
            tenant,
            hand_outs: AtomicU32::new(0),
            renewals: AtomicU32::new(0),
            failed_renewals: AtomicU32::new(0),
            client_errors: AtomicU32::new(0),
            server_errors: AtomicU32::new(0),
            own_errors: AtomicU32::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            took: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    pub(super) fn hand_out(&self) {
        self.hand_outs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn renewal(&self, ok: bool) {
        let counter = if ok { &self.renewals } else { &self.failed_renewals };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn call(&self, call: &Called) {
        match call.end {
            CallEnd::Answered(400..500) => drop(self.client_errors.fetch_add(1, Ordering::Relaxed)),
            CallEnd::Answered(500..) => drop(self.server_errors.fetch_add(1, Ordering::Relaxed)),
            CallEnd::Answered(_) => {}
            CallEnd::Failed => drop(self.own_errors.fetch_add(1, Ordering::Relaxed)),
        }
        for (bytes, counter) in [(call.sent, &self.sent), (call.received, &self.received)] {
            if bytes > 0 {
                counter.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        self.took[bucket(call.took.as_micros())].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what was counted; `None`: nothing.
    pub(super) fn take(&self) -> Option<Figures> {
        let take = |counter: &AtomicU32| match counter.load(Ordering::Relaxed) {
            // A swap would take the line from who counts.
            0 => 0,
            _ => i64::from(counter.swap(0, Ordering::Relaxed)),
        };
        let take_bytes = |counter: &AtomicU64| match counter.load(Ordering::Relaxed) {
            0 => 0,
            _ => i64::try_from(counter.swap(0, Ordering::Relaxed)).unwrap_or(i64::MAX),
        };
        let took = self.took.each_ref().map(take);
        let figures = Figures {
            hand_outs: take(&self.hand_outs),
            calls: took.iter().sum(),
            renewals: take(&self.renewals),
            failed_renewals: take(&self.failed_renewals),
            client_errors: take(&self.client_errors),
            server_errors: take(&self.server_errors),
            own_errors: take(&self.own_errors),
            sent: take_bytes(&self.sent),
            received: take_bytes(&self.received),
            took,
        };
        (figures != Figures::default()).then_some(figures)
    }
}

/// Up to 1 ms, 2 ms, 4 ms, …; the last one takes all that is longer.
fn bucket(micros: u128) -> usize {
    let bits = u128::BITS - micros.saturating_sub(1).leading_zeros();
    usize::try_from(bits.saturating_sub(LESS)).unwrap_or(0).min(TOOK - 1)
}

/// A millisecond is 1000 µs, and counted as 1024.
const LESS: u32 = 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_fall_into_powers_of_two() {
        let bucket = |ms: f64| bucket((ms * 1024.0) as u128);
        assert_eq!([0.0, 0.5, 1.0].map(bucket), [0; 3]);
        assert_eq!([1.1, 2.0, 2.1, 4.0, 4.1].map(bucket), [1, 1, 2, 2, 3]);
        assert_eq!([16384.0, 16385.0, 1e9].map(bucket), [14, 15, 15]);
    }

    #[test]
    fn what_is_counted_is_taken_once() {
        let counters = Counters::new(Tenant::default_tenant());
        assert_eq!(counters.take(), None);
        let took = Duration::from_millis(3);
        for end in [200, 302, 404, 429, 500, 599].map(CallEnd::Answered).into_iter().chain([CallEnd::Failed]) {
            counters.call(&Called { end, sent: 1, received: 10, took });
        }
        counters.hand_out();
        counters.renewal(true);
        counters.renewal(false);
        let mut expected = Figures { hand_outs: 1, calls: 7, renewals: 1, failed_renewals: 1, ..Figures::default() };
        expected = Figures { client_errors: 2, server_errors: 2, own_errors: 1, sent: 7, received: 70, ..expected };
        expected.took[2] = 7;
        assert_eq!(counters.take(), Some(expected));
        assert_eq!(counters.take(), None);
    }
}
