//! What a run has seen.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// The figures of a run.
pub struct Figures {
    began: Instant,
    by_point: BTreeMap<&'static str, Killed>,
    /// Kills after which nothing was left to be cut: the point was not reached.
    idle: u64,
    /// Requests that were read by the provider when their process was long dead; their tokens are lost on the way, too.
    pub late: u64,
    /// Replies found in escrow and committed by a later process.
    pub recovered: u64,
    /// Grants that ended when nothing was left to lose.
    pub reuses_when_dead: u64,
    /// Connections whose token was lost in the window, and which a person connected again.
    pub consented_again: u64,
    /// From the reply's last byte until it was written, and until it was synced, microseconds.
    written: Vec<u64>,
    synced: Vec<u64>,
    /// What must not be.
    pub wrongs: Vec<String>,
}

/// Kills at one point, and in what state renewals were then.
#[derive(Default)]
pub struct Killed {
    point: &'static str,
    kills: u64,
    pub in_flight: u64,
    /// The provider had issued nothing yet.
    pub unsent: u64,
    /// The reply was in escrow.
    pub durable: u64,
    /// The provider had used the refresh token, and its reply had not left yet: lost on the way to nobody.
    pub lost_on_the_way: u64,
    /// The provider's reply had left, and was not written yet: lost in the window.
    pub lost: u64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            by_point: BTreeMap::new(),
            idle: 0,
            late: 0,
            recovered: 0,
            reuses_when_dead: 0,
            consented_again: 0,
            written: Vec::new(),
            synced: Vec::new(),
            wrongs: Vec::new(),
        }
    }
}

impl Figures {
    pub fn kills(&self) -> u64 {
        self.by_point.values().map(|killed| killed.kills).sum()
    }

    /// A kill at this point, to be filled in and given to [`Self::add`].
    pub fn kill(&mut self, point: &'static str, idle: bool) -> Killed {
        self.idle += u64::from(idle);
        Killed { point, kills: 1, ..Killed::default() }
    }

    pub fn add(&mut self, killed: Killed) {
        let all = self.by_point.entry(killed.point).or_default();
        all.kills += killed.kills;
        all.in_flight += killed.in_flight;
        all.unsent += killed.unsent;
        all.durable += killed.durable;
        all.lost_on_the_way += killed.lost_on_the_way;
        all.lost += killed.lost;
    }

    /// How wide the window was, each time; and no line may tell of an error.
    pub fn read_log(&mut self, log: &str) {
        for line in log.lines() {
            let number = |name: &str| line.split_once(name)?.1.split_whitespace().next()?.parse().ok();
            if let (Some(written), Some(synced)) = (number(" written="), number(" synced=")) {
                self.written.push(written);
                self.synced.push(synced);
            } else if line.contains(" ERROR ") || line.contains("panicked") {
                self.wrongs.push(line.to_owned());
            }
        }
    }

    fn total(&self, of: impl Fn(&Killed) -> u64) -> u64 {
        self.by_point.values().map(of).sum()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<28}{:>8}{:>12}{:>12}{:>12}{:>12}{:>8}",
            "killed at", "kills", "in flight", "not used", "in escrow", "on the way", "lost"
        )?;
        for (point, it) in &self.by_point {
            let Killed { kills, in_flight, unsent, durable, lost_on_the_way: way, lost, .. } = it;
            writeln!(f, "{point:<28}{kills:>8}{in_flight:>12}{unsent:>12}{durable:>12}{way:>12}{lost:>8}")?;
        }
        let kills = self.kills();
        writeln!(f, "kills                       {kills}, {} of them with nothing under way", self.idle)?;
        writeln!(f, "renewals cut by them        {}", self.total(|it| it.in_flight))?;
        writeln!(f, "replies found in escrow     {}, and committed by the next process", self.recovered)?;
        writeln!(
            f,
            "tokens lost on the way      {}, the reply had not left; {} of them, the request had not been read",
            self.total(|it| it.lost_on_the_way) + self.late,
            self.late
        )?;
        writeln!(
            f,
            "tokens lost in the window   {}, the reply had left, and was not written",
            self.total(|it| it.lost)
        )?;
        writeln!(f, "connected again             {}", self.consented_again)?;
        writeln!(f, "grants ended by reuse       {}, each with nothing left to lose", self.reuses_when_dead)?;
        width(f, "window of a kill", &self.written)?;
        width(f, "window of a power cut", &self.synced)?;
        #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
        let each = self.began.elapsed().as_secs_f64() / kills as f64;
        writeln!(f, "time                        {:?}, {each:.2} s a kill", self.began.elapsed())?;
        writeln!(f, "lost otherwise, violations  {}", self.wrongs.len())?;
        self.wrongs.iter().try_for_each(|wrong| writeln!(f, "  {wrong}"))
    }
}

fn width(f: &mut fmt::Formatter<'_>, what: &str, widths: &[u64]) -> fmt::Result {
    let mut widths = widths.to_vec();
    widths.sort_unstable();
    let Some(most) = widths.len().checked_sub(1) else { return Ok(()) };
    let at = |share: usize| Duration::from_micros(widths[most * share / 1000]);
    let (half, p99, p999, all, of) = (at(500), at(990), at(999), at(1000), widths.len());
    writeln!(f, "{what:<28}p50 {half:?}, p99 {p99:?}, p99.9 {p999:?}, most {all:?}, of {of} renewals")
}
