//! Every store and file call of a renewal, and of the recovery at a start, fails once; and the process dies once at every point.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::chaos::{Chaos, Dice};
use super::provider::Class;
use super::replica::Replica;
use super::run::{self, Report, caller, look_back, set_up, simulate, start, start_alone};
use super::world::{Script, World};
use crate::egress::Egress;

const LIFE: Duration = Duration::from_secs(600);
/// The provider has answered, and its reply is nowhere but in memory: what dies here takes the grant with it, at a provider that ends one whose token is used twice.
const WINDOW: [&str; 2] = ["replied", "escrow.write"];

/// What is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A renewal that a caller waits for.
    Renewal,
    /// A start that finds a reply in escrow.
    Recovery,
}

/// What came of one try.
struct Tried {
    seen: Vec<&'static str>,
    report: Report,
}

impl Tried {
    fn outcome(&self) -> String {
        let figures = &self.report.figures;
        let lost: Vec<_> = figures.lost.keys().copied().collect();
        match (&self.report.violations[..], &lost[..]) {
            ([], []) => format!("nothing lost, {} requests", figures.requests),
            ([], lost) => format!("LOST: {}", lost.join(", ")),
            (violations, _) => format!("VIOLATION: {}", violations.join(", ")),
        }
    }
}

fn attempt(egress: &Egress, part: Part, at: Option<usize>, stop: bool) -> Tried {
    let folder = run::folder();
    let chaos = Chaos::none(1, 1, vec![(Class::Family, LIFE)]);
    let world = run::world(chaos, Dice::of(1), egress, folder.path(), false);
    let seen = Arc::<std::sync::Mutex<Vec<&'static str>>>::default();
    let report = simulate(&world, |world| {
        let seen = Arc::clone(&seen);
        async move {
            let tried = try_it(&world, part, at, stop).await;
            *seen.lock().unwrap() = tried;
        }
    });
    let seen = seen.lock().unwrap().clone();
    Tried { seen, report }
}

async fn try_it(world: &Arc<World>, part: Part, at: Option<usize>, stop: bool) -> Vec<&'static str> {
    set_up(world).await;
    world.state().calm = true;
    let script = Script { seen: Vec::new(), at, stop };
    let first = Replica::new(world, 0, 1);
    let broker = start_alone(world, &first).await;
    // Nobody has renewed: the access token has expired, and a caller needs one.
    world.time.sleep(LIFE + Duration::from_secs(1)).await;
    match part {
        Part::Renewal => world.state().script = Some(script.clone()),
        Part::Recovery => world.state().dies_at = Some("escrowed"),
    }
    let asking = tokio::spawn({
        let broker = broker.clone();
        async move { broker.token(&caller(), "c0", None).await.map(drop) }
    });
    tokio::select! {
        biased;
        () = first.died.notified() => {}
        _ = asking => {}
    }
    if part == Part::Recovery {
        let mut state = world.state();
        assert!(state.dies_at.take().is_none(), "it died there");
        state.script = Some(script);
    }
    if first.is_alive() {
        tokio::spawn(async move { broker.run_scheduler(std::future::pending()).await });
    }
    // What has died, or could not start, is started again.
    let mut is_up = first.is_alive();
    for life in 2.. {
        if is_up {
            world.time.sleep(Duration::from_secs(60)).await;
        }
        let now_up = world.state().replicas[0].as_ref().is_some_and(|replica| replica.is_alive());
        if is_up && now_up {
            break;
        }
        let next = Replica::new(world, 0, life);
        world.state().replicas[0] = Some(Arc::clone(&next));
        is_up = start(world, &next).await;
        world.time.sleep(Duration::from_secs(1)).await;
    }
    let seen = world.state().script.take().map(|script| script.seen).unwrap_or_default();
    world.time.sleep(Duration::from_secs(1800)).await;
    look_back(world).await;
    seen
}

fn table(title: &str, part: Part) {
    let egress = run::egress();
    let counted = attempt(&egress, part, None, false);
    assert!(counted.report.violations.is_empty(), "{:?}", counted.report.violations);
    println!("{title}\n  n  point          fails once                     | the process dies there");
    let mut lost = BTreeMap::new();
    for (n, point) in counted.seen.iter().enumerate() {
        let has_effect = point.starts_with("store.") || point.starts_with("escrow.");
        let failed = has_effect.then(|| attempt(&egress, part, Some(n), false));
        let died = attempt(&egress, part, Some(n), true);
        let shown = failed.as_ref().map_or_else(|| "-".to_owned(), Tried::outcome);
        println!("{n:>3}  {point:<14} {shown:<30} | {}", died.outcome());
        for tried in failed.iter().chain([&died]) {
            assert_eq!(tried.seen.get(n), Some(point), "the same calls in the same order");
            assert!(tried.report.violations.is_empty(), "{n} {point}: {:?}", tried.report.violations);
        }
        if let Some(failed) = failed {
            assert!(failed.report.figures.lost.is_empty(), "{n} {point}: one failure costs no grant");
        }
        if !died.report.figures.lost.is_empty() {
            lost.insert(n, *point);
        }
    }
    let expected: Vec<_> = if part == Part::Renewal { WINDOW.to_vec() } else { Vec::new() };
    assert_eq!(lost.into_values().collect::<Vec<_>>(), expected, "the one window, and nothing else");
}

#[test]
fn no_single_failure_of_a_renewal_costs_a_grant() {
    table("A renewal", Part::Renewal);
}

#[test]
fn no_single_failure_of_a_recovery_costs_a_grant() {
    table("A start that finds a reply in escrow", Part::Recovery);
}
