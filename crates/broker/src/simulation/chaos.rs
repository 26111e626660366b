//! What goes wrong in a run: drawn from its seed, and so different in each.

use std::time::Duration;

use super::provider::Class;

/// Every choice of a run comes from here (SplitMix64).
#[derive(Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6b65_7968_6f6c_6465)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `from` to `to`, both possible.
    pub(super) fn number(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    /// True so many times in ten thousand.
    pub(super) fn once_in(&mut self, per_10_000: u64) -> bool {
        self.next() % 10_000 < per_10_000
    }

    pub(super) fn of_list<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.next() % list.len() as u64).unwrap_or(0)]
    }

    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.number(from, to))
    }

    pub(super) fn seconds(&mut self, from: u64, to: u64) -> Duration {
        self.millis(from * 1000, to * 1000)
    }

    /// Mostly short, sometimes as long as `most`.
    pub(super) fn delay(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        let bound = self.of_list(&[20, 20, 200, 2_000, most]).min(most);
        self.millis(0, bound)
    }
}

/// What can be out of order for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    Database,
    Disk,
    /// Nothing answers.
    Provider,
}

/// A rule that is broken on purpose, to see whether the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A request is sent under a claim of any age.
    OldClaims,
    /// Nobody waits for the end of another's claim.
    NoWaiting,
    /// A reply is not put in escrow.
    NoEscrow,
    /// What waits in escrow at the start is not looked at.
    NoRecovery,
    /// A refresh token that a dead process may have spent is sent again at once, whatever the class.
    NoCaution,
}

/// Rates are per ten thousand.
#[derive(Clone, Debug)]
pub(super) struct Chaos {
    pub(super) seed: u64,
    pub(super) replicas: usize,
    pub(super) grants: Vec<(Class, Duration)>,
    /// At each machine.
    pub(super) callers: u64,
    /// For how long things go wrong.
    pub(super) lasts: Duration,
    pub(super) store_fails: u64,
    /// The write took place, or will, but its answer is lost.
    pub(super) store_doubts: u64,
    pub(super) store_slow: Duration,
    pub(super) network_slow: Duration,
    /// Every reply takes its time, any between none and the whole; else most come soon.
    pub(super) evenly: bool,
    pub(super) refused: u64,
    pub(super) lost_before: u64,
    pub(super) lost_after: u64,
    /// 429 and 503, which nothing is done for.
    pub(super) busy: u64,
    /// 500 and 502, after it was done.
    pub(super) broken: u64,
    /// At each point of a renewal.
    pub(super) crashes: u64,
    pub(super) halts: u64,
    pub(super) disk_fails: u64,
    /// A process that died comes back within this.
    pub(super) absence: Duration,
    /// A process lives no longer than this.
    pub(super) lifetime: Duration,
    /// Replicas look at what others changed four times a second; else only when they are asked for a token.
    pub(super) follows: bool,
    /// Clocks are wrong, and set.
    pub(super) clocks: bool,
    pub(super) outages: Vec<(Outage, Option<usize>, Duration, Duration)>,
    pub(super) sabotage: Option<Sabotage>,
}

impl Chaos {
    /// A run in which nothing goes wrong.
    pub(super) fn none(seed: u64, replicas: usize, grants: Vec<(Class, Duration)>) -> Self {
        let never = Duration::MAX;
        Self {
            seed,
            replicas,
            grants,
            callers: 0,
            lasts: Duration::ZERO,
            store_fails: 0,
            store_doubts: 0,
            store_slow: Duration::ZERO,
            network_slow: Duration::ZERO,
            evenly: false,
            refused: 0,
            lost_before: 0,
            lost_after: 0,
            busy: 0,
            broken: 0,
            crashes: 0,
            halts: 0,
            disk_fails: 0,
            absence: Duration::ZERO,
            lifetime: never,
            follows: false,
            clocks: false,
            outages: Vec::new(),
            sabotage: None,
        }
    }

    /// The run of this seed.
    pub(super) fn of(seed: u64, dice: &mut Dice) -> Self {
        let replicas = dice.of_list(&[1, 2, 3, 3]);
        let grants = (0..dice.number(1, 4)).map(|_| {
            let life = dice.of_list(&[60, 120, 300, 600, 1800]);
            (dice.of_list(&Class::ALL), Duration::from_secs(life))
        });
        let grants: Vec<_> = grants.collect();
        let lasts = dice.seconds(600, 5400);
        let rate = |dice: &mut Dice, rates: &[u64]| dice.of_list(rates);
        let mut chaos = Self {
            callers: dice.number(0, 2),
            lasts,
            store_fails: rate(dice, &[0, 0, 30, 300]),
            store_doubts: rate(dice, &[0, 0, 30, 300]),
            store_slow: Duration::from_millis(dice.of_list(&[5, 5, 50, 3000])),
            network_slow: Duration::from_secs(dice.of_list(&[1, 5, 40, 60])),
            refused: rate(dice, &[0, 0, 300, 2000]),
            lost_before: rate(dice, &[0, 0, 300, 2000]),
            lost_after: rate(dice, &[0, 0, 300, 2000]),
            busy: rate(dice, &[0, 0, 300, 2000]),
            broken: rate(dice, &[0, 0, 300, 1000]),
            crashes: rate(dice, &[0, 0, 30, 300]),
            halts: rate(dice, &[0, 0, 0, 200]),
            disk_fails: rate(dice, &[0, 0, 0, 300]),
            absence: Duration::from_secs(dice.of_list(&[1, 5, 15, 60, 1800])),
            lifetime: Duration::from_secs(dice.of_list(&[200, 1000, 100_000, 100_000])),
            follows: dice.once_in(1000),
            clocks: dice.once_in(1500),
            ..Self::none(seed, replicas, grants)
        };
        for _ in 0..dice.of_list(&[0, 0, 1, 2, 4]) {
            let what = dice.of_list(&[Outage::Database, Outage::Database, Outage::Disk, Outage::Provider]);
            let whose = usize::try_from(dice.number(0, replicas as u64)).ok().filter(|one| *one < replicas);
            let from = dice.millis(0, u64::try_from(lasts.as_millis()).unwrap_or(0));
            let long = Duration::from_secs(dice.of_list(&[5, 60, 600, 7200]));
            chaos.outages.push((what, whose, from, from + dice.delay(long)));
        }
        chaos
    }

    /// With this rule broken, and what the rule is for happening often.
    pub(super) fn harsh(self, rule: Sabotage) -> Self {
        let class = if rule == Sabotage::NoCaution { Class::Family } else { Class::UntilUsed };
        let grants = vec![(class, Duration::from_secs(300)), (Class::Family, Duration::from_secs(120))];
        let chaos = Self {
            sabotage: Some(rule),
            replicas: 3,
            grants,
            clocks: false,
            store_doubts: 0,
            store_fails: 0,
            outages: Vec::new(),
            absence: Duration::from_secs(5),
            disk_fails: 0,
            ..self
        };
        match rule {
            Sabotage::OldClaims => Self { halts: 1500, crashes: 0, network_slow: Duration::from_secs(60), ..chaos },
            Sabotage::NoWaiting => Self { network_slow: Duration::from_secs(60), ..chaos },
            Sabotage::NoEscrow | Sabotage::NoRecovery => Self { crashes: 500, ..chaos },
            Sabotage::NoCaution => Self { crashes: 500, ..chaos },
        }
    }
}
