//! Simulation: the real broker on machines, a network, a disk, a database and a provider that are simulated, in virtual time, every choice from one seed.
//!
//! Hours of faults take milliseconds, and a seed that fails does the same things in the same order when it is run again:
//! `SEED=17 make simulate`.

#![allow(clippy::unwrap_used, reason = "it is a test")]

mod chaos;
mod crowd;
mod nth;
mod provider;
mod replica;
mod run;
mod time;
mod world;

pub(crate) use chaos::Sabotage;
pub(crate) use replica::Replica;
pub use time::SimulatedClock;

use chaos::{Chaos, Dice};
use world::Figures;

/// Runs these seeds; answers the figures, and what each seed that failed showed.
fn run_seeds(seeds: impl Iterator<Item = u64>, loud: bool) -> (Figures, Vec<(u64, Vec<String>)>) {
    let egress = run::egress();
    let (mut figures, mut failed) = (Figures::default(), Vec::new());
    for seed in seeds {
        let folder = run::folder();
        let report = run::run(seed, &egress, folder.path(), loud);
        figures.add(&report.figures);
        if !report.violations.is_empty() {
            failed.push((seed, report.violations));
        }
    }
    (figures, failed)
}

#[test]
fn a_seed_does_the_same_twice() {
    let egress = run::egress();
    for seed in 31..=33 {
        let fingerprints = [(); 2].map(|()| {
            let folder = run::folder();
            run::run(seed, &egress, folder.path(), false).fingerprint
        });
        assert_eq!(fingerprints[0], fingerprints[1], "seed {seed}");
    }
}

#[test]
fn no_seed_breaks_a_rule() {
    let (figures, failed) = run_seeds(1..=16, false);
    told(&figures, &failed);
}

/// As many seeds as the environment says: `SEED=17 make simulate`, `make simulate SEEDS=100000`.
#[test]
#[ignore = "as long as you like: make simulate"]
fn simulate() {
    let (figures, failed) = match setting("SEED") {
        Some(seed) => run_seeds(seed..=seed, true),
        None => {
            let from = setting("FROM").unwrap_or(1);
            run_seeds(from..from + setting("SEEDS").unwrap_or(1000), false)
        }
    };
    told(&figures, &failed);
}

/// The simulation can fail: each of these rules, broken, is noticed.
#[test]
fn a_broken_rule_is_noticed() {
    let egress = run::egress();
    let rules =
        [Sabotage::OldClaims, Sabotage::NoWaiting, Sabotage::NoEscrow, Sabotage::NoRecovery, Sabotage::NoCaution];
    for rule in rules {
        let noticed = (1..200).find_map(|seed| {
            let mut dice = Dice::of(seed);
            let chaos = Chaos::of(seed, &mut dice).harsh(rule);
            let folder = run::folder();
            let report = run::run_with(chaos, dice, &egress, folder.path(), false);
            Some((seed, report.violations.into_iter().next()?))
        });
        println!("{rule:?}: {noticed:?}");
        assert!(noticed.is_some(), "{rule:?} is not noticed");
    }
}

fn told(figures: &Figures, failed: &[(u64, Vec<String>)]) {
    println!("{figures}");
    for (seed, violations) in failed {
        println!("SEED={seed} make simulate");
        violations.iter().for_each(|violation| println!("    {violation}"));
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
}

#[expect(clippy::disallowed_methods, reason = "a test's own settings")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
