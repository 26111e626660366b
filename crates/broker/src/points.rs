//! Named points of a renewal at which a test can make an effect fail, or the process stand still as if it had died there.
//!
//! In release builds there is nothing of it. In order: `store.read` and `store.write` (before every job of the store), `claimed`, `replied`, `escrow.write`,
//! `escrow.rename`, `escrow.sync`, `escrowed`, `committed`, `escrow.clear`, `cleared`.

use std::io;
#[cfg(debug_assertions)]
use std::sync::Arc;

/// What happens at a point.
pub enum Verdict {
    /// Work goes on.
    Go,
    /// The effect fails with this error.
    Fail(io::Error),
    /// Nothing ever happens again here.
    Stop,
}

/// The points of one broker.
#[derive(Clone, Default)]
pub struct Points {
    #[cfg(debug_assertions)]
    hook: Option<Arc<dyn Fn(&'static str) -> Verdict + Send + Sync>>,
    /// The machine of a simulation that this broker runs on.
    #[cfg(test)]
    pub(crate) simulated: Option<Arc<crate::simulation::Replica>>,
}

#[cfg(debug_assertions)]
impl Points {
    /// Every point, in the order of a renewal.
    pub const NAMES: [&'static str; 11] = [
        "store.read",
        "store.write",
        "claimed",
        "replied",
        "escrow.write",
        "escrow.rename",
        "escrow.sync",
        "escrowed",
        "committed",
        "escrow.clear",
        "cleared",
    ];

    /// Asks `hook` at every point.
    pub fn with(hook: impl Fn(&'static str) -> Verdict + Send + Sync + 'static) -> Self {
        Self {
            hook: Some(Arc::new(hook)),
            #[cfg(test)]
            simulated: None,
        }
    }

    /// The points of a broker on a machine of a simulation.
    #[cfg(test)]
    pub(crate) fn on(replica: Arc<crate::simulation::Replica>) -> Self {
        Self { simulated: Some(replica), ..Self::default() }
    }

    /// Whether a simulation breaks this rule on purpose.
    #[cfg(test)]
    pub(crate) fn sabotages(&self, rule: crate::simulation::Sabotage) -> bool {
        self.simulated.as_ref().is_some_and(|replica| replica.sabotages(rule))
    }

    fn verdict(&self, point: &'static str) -> Verdict {
        self.hook.as_ref().map_or(Verdict::Go, |hook| hook(point))
    }

    /// Called where a task does, or has just done, what `point` names.
    pub(crate) async fn reach(&self, point: &'static str) -> io::Result<()> {
        #[cfg(test)]
        if let Some(replica) = &self.simulated {
            return replica.reach(point).await;
        }
        match self.verdict(point) {
            Verdict::Go => Ok(()),
            Verdict::Fail(error) => Err(error),
            Verdict::Stop => std::future::pending().await,
        }
    }

    /// As [`Self::reach`], on a thread that may block.
    pub(crate) fn touch(&self, point: &'static str) -> io::Result<()> {
        #[cfg(test)]
        if let Some(replica) = &self.simulated {
            return replica.touch(point);
        }
        match self.verdict(point) {
            Verdict::Go => Ok(()),
            Verdict::Fail(error) => Err(error),
            Verdict::Stop => loop {
                std::thread::park();
            },
        }
    }
}

#[cfg(not(debug_assertions))]
impl Points {
    #[expect(clippy::unused_async, reason = "where there are points, a task can stand still at one")]
    pub(crate) async fn reach(&self, _: &'static str) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn touch(&self, _: &'static str) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Points {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Points")
    }
}

/// Runs code that blocks on a thread that may. In unit tests at once: a simulation does everything in its order.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    if cfg!(test) { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}
