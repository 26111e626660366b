//! Virtual time: it stands still while anything can be done, and jumps to the next thing that is waited for when nothing can.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::millis;

/// What a clock of the simulation that nobody has set shows at the beginning: 2026-09-21.
const START: i64 = 1_790_000_000_000;

/// The time of one run.
#[derive(Default)]
pub(crate) struct Time(Mutex<State>);

#[derive(Default)]
struct State {
    now: Duration,
    /// By deadline, then in the order in which they were asked for.
    timers: BTreeMap<(Duration, u64), Option<Waker>>,
    asked: u64,
    is_over: bool,
}

impl Time {
    /// How much time has passed.
    pub(crate) fn now(&self) -> Duration {
        self.lock().now
    }

    /// Returns when `duration` has passed.
    pub(crate) fn sleep(self: &Arc<Self>, duration: Duration) -> Sleep {
        let mut state = self.lock();
        state.asked += 1;
        let key = (state.now.saturating_add(duration), state.asked);
        Sleep { time: Arc::clone(self), key }
    }

    /// Called when nothing can be done at this time any more.
    pub(crate) fn advance(&self) {
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        let ((deadline, _), waker) = state.timers.pop_first().expect("something must be waited for");
        state.now = state.now.max(deadline);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The run has ended: nothing happens any more.
    pub(crate) fn end(&self) {
        self.lock().is_over = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Time::sleep`].
pub(crate) struct Sleep {
    time: Arc<Time>,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.time.lock();
        if state.now >= self.key.0 {
            state.timers.remove(&self.key);
            return Poll::Ready(());
        }
        state.timers.insert(self.key, Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.time.lock().timers.remove(&self.key);
    }
}

/// A machine's clocks: the one on its wall can be set; the monotonic one stands still while the machine sleeps; and nothing moves on a machine that is halted.
#[derive(Clone)]
pub struct SimulatedClock {
    time: Arc<Time>,
    machine: Arc<Mutex<Machine>>,
}

#[derive(Default)]
struct Machine {
    /// How much the wall clock differs from the time, milliseconds.
    set_by: i64,
    /// How long the monotonic clock has stood still before `halt`.
    slept: Duration,
    halt: Halt,
}

#[derive(Clone, Copy, Default)]
struct Halt {
    from: Duration,
    until: Duration,
    asleep: bool,
}

impl SimulatedClock {
    pub(crate) fn new(time: &Arc<Time>) -> Self {
        Self { time: Arc::clone(time), machine: Arc::default() }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        START + millis(self.time.now()) + self.machine().set_by
    }

    pub(crate) fn passed(&self) -> Duration {
        let now = self.time.now();
        let machine = self.machine();
        let Halt { from, until, asleep } = machine.halt;
        let still = if asleep { now.min(until).saturating_sub(from) } else { Duration::ZERO };
        now.saturating_sub(machine.slept + still)
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        let until = self.passed().saturating_add(duration);
        loop {
            self.time.sleep(until.saturating_sub(self.passed())).await;
            self.is_running().await;
            if self.passed() >= until {
                return;
            }
        }
    }

    /// Returns when the machine isn't halted.
    pub(crate) async fn is_running(&self) {
        loop {
            let left = self.machine().halt.until.saturating_sub(self.time.now());
            if left.is_zero() {
                return;
            }
            self.time.sleep(left).await;
        }
    }

    /// Sets the wall clock to differ from the time by so many milliseconds.
    pub(crate) fn set_by(&self, milliseconds: i64) {
        self.machine().set_by = milliseconds;
    }

    /// Halts the machine for `duration`, `asleep` with its monotonic clock.
    pub(crate) fn halt(&self, duration: Duration, asleep: bool) {
        let now = self.time.now();
        let mut machine = self.machine();
        let Halt { from, until, asleep: was_asleep } = machine.halt;
        if until > now {
            return;
        }
        if was_asleep {
            machine.slept += until - from;
        }
        machine.halt = Halt { from: now, until: now + duration, asleep };
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimulatedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.now_ms())
    }
}
