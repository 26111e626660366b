//! The model, checked: whole, and with each rule taken out.

#![allow(clippy::print_stdout, reason = "`make model` shows the figures")]

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use keyholder_model::properties::{
    self, DURABLE, ENDS_WELL, NEVER_BACK, NO_EARLY_KILL, NO_KILL, NOTHING_LOST, ONE_SEND, TRUE_RECONNECT, USABLE,
};
use keyholder_model::provider::Class;
use keyholder_model::state::Faults;
use keyholder_model::{Renewal, Rules};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

const ONE_OF_EACH: Faults = Faults { crashes: 1, losses: 1, writes: 1, delays: 1 };

/// Where a used token is still taken, there are many more states. What is left out there is shown by the other classes, to which it is the same.
fn small(class: Class) -> Renewal {
    let faults = match class {
        Class::Window => Faults { writes: 0, delays: 0, ..ONE_OF_EACH },
        Class::UntilUsed => Faults { delays: 0, ..ONE_OF_EACH },
        _ => ONE_OF_EACH,
    };
    Renewal { class, replicas: 2, renewals: 2, faults, rules: Rules::ALL }
}

/// Walks through every state, and prints how many there are.
fn holds(model: Renewal) {
    let Renewal { class, replicas, renewals, faults, .. } = model.clone();
    let checked = model.checker().threads(1).spawn_bfs().join();
    println!(
        "{class:?}: {replicas} replicas, {renewals} renewals, {faults:?}: {} states, at most {} steps",
        checked.unique_state_count(),
        checked.max_depth()
    );
    for property in checked.model().properties() {
        let found = checked.discovery(property.name);
        match property.expectation {
            Expectation::Sometimes => assert!(found.is_some(), "{class:?}: never happens: {}", property.name),
            _ => {
                let trace = found.map(|path| format!("{:#?}\n{:#?}", path.clone().into_actions(), path.last_state()));
                assert!(trace.is_none(), "{class:?}: not true: {}\n{}", property.name, trace.unwrap_or_default());
            }
        }
        println!("  holds: {}", property.name);
    }
}

/// From every state there is a way to one in which nothing more can happen, where [`ENDS_WELL`] is judged: no run is caught in a circle.
fn rest_can_be_reached(model: &Renewal) {
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut before: HashMap<u64, Vec<u64>> = HashMap::new();
    let (mut at_rest, mut to_do) = (Vec::new(), model.init_states());
    while let Some(state) = to_do.pop() {
        let from = hasher.hash_one(&state);
        if !seen.insert(from) {
            continue;
        }
        let next = model.next_states(&state);
        if next.is_empty() {
            at_rest.push(from);
        }
        for state in next {
            before.entry(hasher.hash_one(&state)).or_default().push(from);
            to_do.push(state);
        }
    }
    let states = seen.len();
    while let Some(state) = at_rest.pop() {
        if seen.remove(&state) {
            at_rest.extend(before.get(&state).into_iter().flatten());
        }
    }
    assert!(seen.is_empty(), "{:?}: {} of {states} states are caught in a circle", model.class, seen.len());
    println!("{:?}: rest can be reached from all of {states} states", model.class);
}

/// Walks until the property is found to be broken.
fn fails(model: Renewal, property: &'static str) {
    let class = model.class;
    assert!(properties::all().iter().any(|one| one.name == property));
    let checked = model.checker().finish_when(HasDiscoveries::AnyOf([property].into())).threads(1).spawn_bfs().join();
    let path = checked.discovery(property).unwrap_or_else(|| panic!("not noticed: {property}"));
    println!("{class:?}: {property}, broken by {:?}", path.into_actions());
}

fn without(class: Class, take_out: impl Fn(&mut Rules)) -> Renewal {
    let mut model = Renewal { faults: ONE_OF_EACH, ..small(class) };
    take_out(&mut model.rules);
    model
}

mod protocol {
    use super::*;

    #[test]
    fn holds_where_a_token_is_static() {
        holds(small(Class::Static));
    }

    #[test]
    fn holds_where_a_used_token_has_a_window() {
        holds(small(Class::Window));
    }

    #[test]
    fn holds_where_a_used_token_waits_for_its_successor() {
        holds(small(Class::UntilUsed));
    }

    #[test]
    fn holds_where_a_token_is_for_a_single_use() {
        holds(small(Class::SingleUse));
    }

    #[test]
    fn holds_where_a_second_use_ends_the_grant() {
        holds(small(Class::Family));
    }

    #[test]
    fn holds_where_the_access_token_dies() {
        holds(small(Class::AccessDies));
    }

    #[test]
    fn rest_can_be_reached_where_a_token_is_taken_again() {
        rest_can_be_reached(&Renewal {
            faults: Faults { writes: 0, delays: 0, ..ONE_OF_EACH },
            ..small(Class::UntilUsed)
        });
    }

    #[test]
    fn rest_can_be_reached_where_a_second_use_ends_the_grant() {
        rest_can_be_reached(&Renewal {
            faults: Faults { writes: 0, delays: 0, ..ONE_OF_EACH },
            ..small(Class::Family)
        });
    }
}

/// Minutes, so not with every test run: `make model`. (`access_dies` has the same states as `single_use`.)
mod in_the_large {
    use super::*;

    fn holds_in_the_large(class: Class) {
        let (more, three) = match class {
            Class::Window | Class::UntilUsed => {
                let faults = Faults { writes: 0, delays: 0, ..ONE_OF_EACH };
                (ONE_OF_EACH, Renewal { replicas: 3, renewals: 1, faults, ..small(class) })
            }
            _ => (Faults { crashes: 2, losses: 2, ..ONE_OF_EACH }, Renewal { replicas: 3, ..small(class) }),
        };
        holds(Renewal { faults: more, ..small(class) });
        holds(three);
    }

    #[test]
    #[ignore = "large: `make model`"]
    fn holds_where_a_token_is_static() {
        holds_in_the_large(Class::Static);
    }

    #[test]
    #[ignore = "large: `make model`"]
    fn holds_where_a_used_token_has_a_window() {
        holds_in_the_large(Class::Window);
    }

    #[test]
    #[ignore = "large: `make model`"]
    fn holds_where_a_used_token_waits_for_its_successor() {
        holds_in_the_large(Class::UntilUsed);
    }

    #[test]
    #[ignore = "large: `make model`"]
    fn holds_where_a_token_is_for_a_single_use() {
        holds_in_the_large(Class::SingleUse);
    }

    #[test]
    #[ignore = "large: `make model`"]
    fn holds_where_a_second_use_ends_the_grant() {
        holds_in_the_large(Class::Family);
    }
}

/// A model that can't fail shows nothing.
mod without_a_rule {
    use super::*;

    #[test]
    fn a_claim_that_compares_nothing_sends_twice() {
        fails(
            without(Class::SingleUse, |rules| (rules.claim_compares, rules.claim_compares_lost) = (false, false)),
            ONE_SEND,
        );
    }

    #[test]
    fn a_takeover_that_does_not_wait_sends_twice() {
        fails(without(Class::SingleUse, |rules| rules.takeover_waits = false), ONE_SEND);
        fails(without(Class::Window, |rules| rules.takeover_waits = false), ONE_SEND);
    }

    #[test]
    fn a_takeover_that_does_not_wait_kills_a_family() {
        fails(without(Class::Family, |rules| rules.takeover_waits = false), NO_KILL);
        fails(without(Class::Family, |rules| rules.takeover_waits = false), USABLE);
        fails(without(Class::SingleUse, |rules| rules.takeover_waits = false), TRUE_RECONNECT);
    }

    #[test]
    fn giving_the_claim_back_after_silence_kills_a_family() {
        fails(without(Class::Family, |rules| rules.silence_keeps_the_claim = false), ONE_SEND);
        fails(without(Class::Family, |rules| rules.silence_keeps_the_claim = false), NO_KILL);
    }

    /// Between reading and claiming, another replica has claimed, sent, died or heard nothing, and its claim was taken out of the row: it looks as before.
    #[test]
    fn a_claim_that_does_not_compare_lost_at_kills_a_family() {
        fails(without(Class::Family, |rules| rules.claim_compares_lost = false), NO_EARLY_KILL);
    }

    #[test]
    fn an_old_claim_sends_twice() {
        fails(without(Class::Family, |rules| rules.only_young_claims_send = false), ONE_SEND);
        fails(without(Class::Family, |rules| rules.only_young_claims_send = false), NO_KILL);
    }

    #[test]
    fn without_escrow_a_crash_takes_the_reply() {
        let no_losses = Faults { losses: 0, ..ONE_OF_EACH };
        let model = without(Class::SingleUse, |rules| rules.escrow = false);
        fails(Renewal { faults: no_losses, ..model }, NOTHING_LOST);
    }

    #[test]
    fn a_commit_that_compares_nothing_goes_back() {
        fails(without(Class::Window, |rules| rules.commit_compares = false), NEVER_BACK);
        fails(without(Class::SingleUse, |rules| rules.commit_compares = false), NEVER_BACK);
    }

    #[test]
    fn a_refusal_that_compares_nothing_ends_a_living_connection() {
        fails(without(Class::Window, |rules| rules.refusal_compares = false), ENDS_WELL);
    }

    #[test]
    fn a_start_that_leaves_escrow_alone_gives_up_a_living_connection() {
        fails(without(Class::SingleUse, |rules| rules.start_commits = false), ENDS_WELL);
    }

    #[test]
    fn a_family_that_is_not_waited_for_dies_early() {
        fails(without(Class::Family, |rules| rules.family_waits = false), NO_EARLY_KILL);
    }

    #[test]
    fn durable_replies_are_judged() {
        fails(without(Class::SingleUse, |rules| rules.commit_compares = false), DURABLE);
    }
}
