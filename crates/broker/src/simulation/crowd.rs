//! Three processes, two thousand callers at each, fifty rounds, replies that take anything up to a minute: never two requests at once for one token.

use std::sync::Arc;
use std::time::Duration;

use super::chaos::{Chaos, Dice};
use super::provider::Class;
use super::replica::Replica;
use super::run::{self, caller, set_up, simulate, start_alone};
use super::world::World;
use crate::error::Error;
use crate::open::Broker;

const PROCESSES: usize = 3;
const CALLERS: usize = 2000;
const ROUNDS: usize = 50;
const LIFE: Duration = Duration::from_secs(120);

/// How calls ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    token: u64,
    still_renewing: u64,
    not_now: u64,
}

#[test]
fn a_crowd_at_three_processes_sends_one_request_at_a_time() {
    {
        let class = Class::UntilUsed;
        let folder = run::folder();
        let chaos = Chaos {
            network_slow: Duration::from_secs(60),
            evenly: true,
            ..Chaos::none(7, PROCESSES, vec![(class, LIFE)])
        };
        let world = run::world(chaos, Dice::of(7), &run::egress(), folder.path(), false);
        let ended = Arc::<std::sync::Mutex<Ended>>::default();
        let report = simulate(&world, |world| rounds(world, Arc::clone(&ended)));
        let figures = &report.figures;
        println!(
            "{}: {PROCESSES} processes × {CALLERS} callers × {ROUNDS} rounds: {} requests, {} renewals, most at once for one token {}; {:?}",
            class.word(),
            figures.requests,
            figures.renewals,
            figures.most_at_once,
            ended.lock().unwrap(),
        );
        assert_eq!(report.violations, Vec::<String>::new());
        assert_eq!(figures.most_at_once, 1);
        assert!(figures.requests >= 20, "the rounds did ask");
    }
}

async fn rounds(world: Arc<World>, ended: Arc<std::sync::Mutex<Ended>>) {
    set_up(&world).await;
    let mut brokers = Vec::new();
    for machine in 0..PROCESSES {
        let replica = Replica::new(&world, machine, 1);
        brokers.push(start_alone(&world, &replica).await);
    }
    for _ in 0..ROUNDS {
        // Every round begins with an expired token.
        world.time.sleep(LIFE + Duration::from_secs(1)).await;
        let mut calls = Vec::with_capacity(PROCESSES * CALLERS);
        for broker in &brokers {
            for _ in 0..CALLERS {
                let pause = world.dice(|dice| dice.millis(0, 60_000));
                calls.push(tokio::spawn(one(Arc::clone(&world), broker.clone(), pause)));
            }
        }
        for call in calls {
            let outcome = call.await.unwrap();
            let mut ended = ended.lock().unwrap();
            match outcome {
                Ok(()) => ended.token += 1,
                Err(Error::StillRenewing) => ended.still_renewing += 1,
                Err(Error::NotReady { .. }) => ended.not_now += 1,
                Err(error) => world.violation(format!("a caller is told {error}")),
            }
        }
    }
}

async fn one(world: Arc<World>, broker: Broker, pause: Duration) -> Result<(), Error> {
    world.time.sleep(pause).await;
    broker.token(&caller(), "c0", None).await.map(drop)
}
