//! Time and randomness as arguments: the real sources for the product, steerable ones for tests.
//!
//! Nothing else in this crate reads a clock, sleeps or draws random bytes; the lint configuration says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Where "now" comes from, in Unix milliseconds UTC.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A clock that stands still until a test moves it.
    Manual(ManualClock),
    /// A machine's clock in a simulation.
    #[cfg(test)]
    Simulated(crate::simulation::SimulatedClock),
}

impl Clock {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now_ms(&self) -> i64 {
        match self {
            Clock::System => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Clock::Manual(manual) => manual.passed.borrow().1,
            #[cfg(test)]
            Clock::Simulated(simulated) => simulated.now_ms(),
        }
    }

    /// A moment of a clock that nobody sets: it stands still while the machine sleeps, and never jumps.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn moment(&self) -> Moment {
        match self {
            Clock::System => Moment(At::Real(std::time::Instant::now())),
            Clock::Manual(manual) => Moment(At::Manual(manual.passed.borrow().0)),
            #[cfg(test)]
            Clock::Simulated(simulated) => Moment(At::Manual(simulated.passed())),
        }
    }

    /// How much time has passed since `earlier`, which must be of this clock.
    pub fn since(&self, earlier: Moment) -> Duration {
        self.between(earlier, self.moment())
    }

    /// How much time passed from one moment of this clock to a later one.
    pub fn between(&self, earlier: Moment, later: Moment) -> Duration {
        match (later.0, earlier.0) {
            (At::Real(later), At::Real(earlier)) => later.saturating_duration_since(earlier),
            (At::Manual(later), At::Manual(earlier)) => later.saturating_sub(earlier),
            (At::Real(_), At::Manual(_)) | (At::Manual(_), At::Real(_)) => Duration::ZERO,
        }
    }

    /// Returns when `duration` has passed on this clock, whatever anybody sets it to meanwhile.
    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps on the machine's clock")]
    pub async fn sleep(&self, duration: Duration) {
        match self {
            Clock::System => tokio::time::sleep(duration).await,
            Clock::Manual(manual) => {
                let mut time = manual.passed.subscribe();
                let until = time.borrow_and_update().0.saturating_add(duration);
                // The sender lives as long as `self`, so waiting can't fail.
                let _ = time.wait_for(|(passed, _)| *passed >= until).await;
            }
            #[cfg(test)]
            Clock::Simulated(simulated) => simulated.sleep(duration).await,
        }
    }

    /// A pause that only saves work. A test's clock, which may stand still, has none.
    pub(crate) async fn gather(&self, pause: Duration) {
        if let Clock::System = self {
            self.sleep(pause).await;
        }
    }

    /// Whether this is a simulation, in which replicas share a database.
    pub(crate) fn is_simulated(&self) -> bool {
        #[cfg(test)]
        if matches!(self, Clock::Simulated(_)) {
            return true;
        }
        false
    }

    /// Runs `work` for at most `limit` of this clock; `None` when time ran out.
    pub fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        // Boxed: an async function would hold its argument twice, and each of its callers with it.
        let mut work = Box::pin(work);
        async move {
            tokio::select! {
                // What is done counts, however late this is looked at: after a halt both may be ready.
                biased;
                done = &mut work => Some(done),
                () = self.sleep(limit) => None,
            }
        }
    }
}

/// A point in time that can only be compared with another of the same clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment(At);

#[derive(Clone, Copy, Debug)]
enum At {
    Real(std::time::Instant),
    Manual(Duration),
}

/// A test's clock: starts where it is told and moves only when told.
#[derive(Clone, Debug)]
pub struct ManualClock {
    /// How much time has passed, and what the clock shows, Unix milliseconds.
    passed: Arc<watch::Sender<(Duration, i64)>>,
}

impl ManualClock {
    /// A clock that shows `now_ms` (Unix milliseconds).
    pub fn starting_at(now_ms: i64) -> Self {
        Self { passed: Arc::new(watch::Sender::new((Duration::ZERO, now_ms))) }
    }

    /// Lets time pass, and wakes everything whose sleep has ended.
    pub fn advance(&self, by: Duration) {
        self.passed.send_modify(|(passed, now)| {
            *passed += by;
            *now += millis(by);
        });
    }

    /// Sets what the clock shows, forward or back, while no time passes.
    pub fn set(&self, now_ms: i64) {
        self.passed.send_modify(|(_, now)| *now = now_ms);
    }
}

/// Where random bytes come from.
#[derive(Clone, Debug)]
pub enum Rng {
    /// The operating system's generator, through the one cryptography library.
    System,
    /// Reproducible bytes for tests: SHA-256 of seed and counter.
    Seeded(Arc<SeededRng>),
}

/// State of [`Rng::Seeded`].
#[derive(Debug)]
pub struct SeededRng {
    seed: u64,
    drawn: AtomicU64,
}

impl Rng {
    /// A reproducible source for tests.
    pub fn seeded(seed: u64) -> Self {
        Rng::Seeded(Arc::new(SeededRng { seed, drawn: AtomicU64::new(0) }))
    }

    /// `N` fresh random bytes.
    #[expect(clippy::disallowed_methods, reason = "the one place that draws random bytes")]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        match self {
            // The library aborts only when the operating system has no entropy at all.
            Rng::System => aws_lc_rs::rand::fill(&mut out).expect("the operating system gives random bytes"),
            Rng::Seeded(seeded) => {
                for chunk in out.chunks_mut(32) {
                    let count = seeded.drawn.fetch_add(1, Ordering::Relaxed);
                    let mut input = [0; 16];
                    input[..8].copy_from_slice(&seeded.seed.to_be_bytes());
                    input[8..].copy_from_slice(&count.to_be_bytes());
                    let block = keyholder_oauth::sha256(&input);
                    chunk.copy_from_slice(&block[..chunk.len()]);
                }
            }
        }
        out
    }

    /// A number in `0.0..1.0`, for jitter.
    pub fn unit(&self) -> f64 {
        let draw = u32::from_be_bytes(self.bytes());
        f64::from(draw) / (f64::from(u32::MAX) + 1.0)
    }
}

/// A duration as whole milliseconds, saturating.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
