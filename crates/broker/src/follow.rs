//! Following what other processes change: what this one holds in memory is never older than a second.
//!
//! Whoever changes what others hold writes a row into `changes`, in the same transaction. Every process looks four times a second, and drops what
//! was changed. Memory counts for a second from when a look *began*; whoever comes later looks himself, and where that fails goes to the row.
//!
//! Numbers become visible out of order: a transaction takes its number before it commits. A number that was passed over is looked for until no
//! transaction can live that long.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::millis;
use crate::error::Result;
use crate::open::Broker;
use crate::store::{Change, Numbered, StoreResult, Tx};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long memory counts after a look began.
const TRUSTED: Duration = Duration::from_secs(1);
/// Longer than a transaction may live: a number that is still missing then was given back.
const GIVEN_UP: Duration = Duration::from_secs(120);
/// Announced changes are kept for this long; more than any process needs to catch up with.
const KEPT: Duration = Duration::from_secs(600);
/// Between two changes of the mark, and two sweeps.
const UPKEEP_EVERY: Duration = Duration::from_secs(30);
/// No request is at work for longer.
const UNANSWERED: Duration = Duration::from_secs(300);

/// How far this process has heard.
pub(crate) struct Follower {
    /// Are there other processes on the database?
    shared: bool,
    /// When the last look that succeeded began, Unix milliseconds of this machine's clock.
    looked_at: AtomicI64,
    /// How many looks have begun.
    begun: AtomicU64,
    heard: Mutex<Option<Heard>>,
}

impl Follower {
    pub(crate) fn new(shared: bool) -> Self {
        Self { shared, looked_at: AtomicI64::new(i64::MIN), begun: AtomicU64::new(0), heard: Mutex::default() }
    }

    /// One load: this stands in front of every hand-out.
    pub(crate) fn is_current(&self, now: i64) -> bool {
        // A clock that was set back has said nothing about how long ago the look was.
        !self.shared || (0..millis(TRUSTED)).contains(&now.saturating_sub(self.looked_at.load(Ordering::Acquire)))
    }
}

/// Which numbers were heard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    /// All numbers up to here are heard, missing, or given up.
    last: i64,
    /// Passed over: from, to, and when that was noticed by the database's clock.
    missing: Vec<(i64, i64, i64)>,
    /// The database's clock at the last look, Unix milliseconds.
    at: i64,
}

impl Heard {
    /// Where one begins who holds nothing in memory: far enough back that what is still to become visible lies ahead.
    fn from(settled: i64, at: i64) -> Self {
        Self { last: settled, missing: Vec::new(), at }
    }

    /// Takes note of what a look brought.
    fn note(&mut self, changes: &[Numbered], at: i64) {
        for (number, _) in changes {
            if *number > self.last {
                if *number > self.last + 1 {
                    self.missing.push((self.last + 1, number - 1, at));
                }
                self.last = *number;
            } else {
                self.missing = self.missing.iter().flat_map(|gap| without(*gap, *number)).collect();
            }
        }
        self.missing.retain(|(_, _, noticed)| at - noticed < millis(GIVEN_UP));
        self.at = at;
    }
}

/// What is left of a gap when one of its numbers has come.
fn without((from, to, noticed): (i64, i64, i64), number: i64) -> Vec<(i64, i64, i64)> {
    if !(from..=to).contains(&number) {
        return vec![(from, to, noticed)];
    }
    [(from, number - 1, noticed), (number + 1, to, noticed)].into_iter().filter(|(from, to, _)| from <= to).collect()
}

/// What a look brings.
struct Looked {
    changes: Vec<Numbered>,
    heard: Heard,
    /// What lies between was not seen: everything in memory may be old.
    from_anew: bool,
}

/// Reads what was changed since `heard`.
fn look_into(tx: &Tx<'_>, heard: Option<Heard>) -> StoreResult<Looked> {
    let at = tx.now_ms()?;
    let (settled, last) = tx.last_changes(at - millis(GIVEN_UP))?;
    // Too long ago, or another database's numbers and clock: a server took over that had not received all, or a backup was restored.
    let continues =
        heard.filter(|heard| heard.last <= last.max(settled) && (0..millis(GIVEN_UP)).contains(&(at - heard.at)));
    let from_anew = continues.is_none();
    let mut heard = continues.unwrap_or_else(|| Heard::from(settled, at));
    let mut changes = Vec::new();
    for (from, to, _) in &heard.missing {
        changes.extend(tx.changes_between(*from, *to)?);
    }
    changes.extend(tx.changes_after(heard.last)?);
    heard.note(&changes, at);
    Ok(Looked { changes, heard, from_anew })
}

impl Broker {
    /// Whether memory may be used: a look began less than a second ago, or this one makes it so. Where it can't, the row must be read.
    pub(crate) async fn is_current(&self) -> bool {
        let asked_at = self.now_ms();
        if self.follower.is_current(asked_at) {
            return true;
        }
        let begun = self.follower.begun.load(Ordering::Relaxed);
        let mut heard = self.follower.heard.lock().await;
        if self.follower.begun.load(Ordering::Relaxed) == begun {
            return self.look(&mut heard).await.is_ok();
        }
        // Somebody else looked since: that one's outcome is ours too, and a database that is away is not asked by each in turn.
        self.follower.looked_at.load(Ordering::Acquire) >= asked_at
    }

    /// Looks now, whether it is time or not.
    pub async fn catch_up(&self) -> Result<()> {
        let mut heard = self.follower.heard.lock().await;
        self.look(&mut heard).await
    }

    async fn look(&self, heard: &mut Option<Heard>) -> Result<()> {
        let began = self.now_ms();
        self.follower.begun.fetch_add(1, Ordering::Relaxed);
        let before = heard.clone();
        let Looked { changes, heard: after, from_anew } = self
            .store
            .read(|tx| look_into(tx, before))
            .await
            .inspect_err(|_| self.claims.database_was_away(&self.clock))?;
        if from_anew {
            self.forget_everything().await?;
        }
        for (_, change) in changes {
            self.hear(change).await?;
        }
        *heard = Some(after);
        self.follower.looked_at.store(began, Ordering::Release);
        Ok(())
    }

    /// Drops what was changed. What this process changed itself is here already: the generation says so.
    async fn hear(&self, change: Change) -> Result<()> {
        match change {
            Change::Tokens(id, generation) => self.live.forget_before(&id, generation),
            Change::Connection(id) => {
                self.live.forget(&id);
                self.sources.forget_own();
            }
            Change::Key(id) => self.keys.forget(&id),
            Change::Integration(id) => self.live.forget_of(&id),
            Change::Source(id) => self.sources.forget(&id),
            // What integrations stay on never changes.
            Change::Providers => self.load_own_providers().await?,
            Change::DataKeys => self.load_data_keys().await?,
            Change::Fence => self.hear_fence().await?,
            Change::Unknown => self.forget_everything().await?,
        }
        Ok(())
    }

    async fn forget_everything(&self) -> Result<()> {
        self.live.forget_all();
        self.sources.forget_all();
        self.keys.forget_all();
        self.forget_versions();
        self.load_own_providers().await?;
        self.load_data_keys().await?;
        self.hear_fence().await
    }

    async fn hear_fence(&self) -> Result<()> {
        if self.fence.set(self.store.read(|tx| tx.identity()).await?.fenced) {
            // A fence that was lifted: what waited is due. Escrow is looked at with the next sweep.
            self.due.notify_one();
        }
        Ok(())
    }

    /// Follows the other processes, changes the mark and sweeps, until `shutdown`.
    pub async fn run_follower(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let (mut kept_at, mut said) = (self.now_ms(), false);
        let pause = if self.follower.shared { LOOK_EVERY } else { UPKEEP_EVERY };
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                () = self.clock.sleep(pause) => {}
            }
            if self.follower.shared {
                let looked = self.catch_up().await;
                match &looked {
                    Err(error) if !said => {
                        tracing::error!(%error, "what other replicas change can't be followed; until it can, nothing is answered from memory");
                    }
                    Ok(()) if said => tracing::info!("what other replicas change is followed again"),
                    _ => {}
                }
                said = looked.is_err();
            }
            if self.now_ms().abs_diff(kept_at) >= UPKEEP_EVERY.as_millis().try_into().unwrap_or(u64::MAX) {
                kept_at = self.now_ms();
                self.change_mark().await;
                self.sweep_shared().await;
            }
        }
    }

    /// What a start would sweep if there were one process.
    async fn sweep_shared(&self) {
        if !self.follower.shared {
            return;
        }
        let now = self.now_ms();
        let swept = self.store.write(move |tx| {
            tx.forget_unanswered(now - millis(UNANSWERED))?;
            tx.sweep_changes(tx.now_ms()? - millis(KEPT))
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "old announcements could not be swept; it is tried again");
        }
    }

    /// Frees the `Idempotency-Key`s of requests that ended with their process: all at the start of the only one, else those that nobody is at work on any more.
    pub(crate) async fn free_unanswered(&self) -> Result<()> {
        let before = if self.follower.shared { self.now_ms() - millis(UNANSWERED) } else { i64::MAX };
        Ok(self.store.write(move |tx| tx.forget_unanswered(before)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(all: &[i64]) -> Vec<Numbered> {
        all.iter().map(|number| (*number, Change::Fence)).collect()
    }

    #[test]
    fn a_number_that_was_passed_over_is_looked_for_until_no_transaction_can_live_that_long() {
        let mut heard = Heard::from(10, 0);
        heard.note(&numbers(&[11, 14, 16]), 1_000);
        assert_eq!((heard.last, &heard.missing[..]), (16, &[(12, 13, 1_000), (15, 15, 1_000)][..]));
        heard.note(&numbers(&[13, 17]), 2_000);
        assert_eq!((heard.last, &heard.missing[..]), (17, &[(12, 12, 1_000), (15, 15, 1_000)][..]));
        heard.note(&numbers(&[15, 20]), 3_000);
        assert_eq!(&heard.missing[..], &[(12, 12, 1_000), (18, 19, 3_000)][..]);
        heard.note(&[], 121_000);
        assert_eq!(&heard.missing[..], &[(18, 19, 3_000)][..]);
    }

    #[test]
    fn memory_counts_for_a_second_from_when_a_look_began_and_never_by_a_clock_that_was_set_back() {
        let follower = Follower::new(true);
        assert!(!follower.is_current(0), "nothing was looked at yet");
        follower.looked_at.store(5_000, Ordering::Release);
        let current = [4_999, 5_000, 5_999, 6_000].map(|now| follower.is_current(now));
        assert_eq!(current, [false, true, true, false]);
        assert!(Follower::new(false).is_current(i64::MAX), "one process hears itself");
    }
}
