//! Time limits that cost nothing until they are near.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::clock::{Clock, Moment};

/// Time since a moment, so that limits are sums of durations.
#[derive(Clone)]
pub(super) struct Stopwatch {
    clock: Clock,
    began: Moment,
}

impl Stopwatch {
    pub(super) fn new(clock: Clock) -> Self {
        let began = clock.moment();
        Self { clock, began }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.since(self.began)
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// One timer for all that happens on a connection. A timer a request would be set and taken back each time; this one is set once, and when it goes off
/// it is set again for what is left.
#[derive(Default)]
pub(super) struct Alarm {
    set: Option<Set>,
}

struct Set {
    at: Duration,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Alarm {
    /// Ready when `deadline` is over.
    pub(super) fn poll(&mut self, watch: &Stopwatch, deadline: Duration, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(set) = self.set.as_mut().filter(|set| set.at <= deadline) {
                ready!(set.sleep.as_mut().poll(cx));
                self.set = None;
            }
            let now = watch.now();
            if now >= deadline {
                return Poll::Ready(());
            }
            let clock = watch.clock.clone();
            let left = deadline - now;
            self.set = Some(Set { at: deadline, sleep: Box::pin(async move { clock.sleep(left).await }) });
        }
    }
}
