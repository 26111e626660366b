//! What must hold in every state, and what must be reachable for that to mean something.

use stateright::{Model, Property};

use crate::Renewal;
use crate::provider::Class;
use crate::state::{Process, State};

/// The provider never works on two requests with the same refresh token, or on one while the reply to another is awaited.
///
/// Where a second use is harmless, a request that nobody waits for any more doesn't count: there, sending again is the remedy.
pub const ONE_SEND: &str = "never two live sends of one refresh token";
/// A generation is committed once, and what is in the row is the newest of them.
pub const NEVER_BACK: &str = "the committed generation never goes back";
/// A reply on disk leaves it only when it, or something newer, is in the row.
pub const DURABLE: &str = "a durable reply ends up committed, or something newer is";
/// A reply on disk that is as new as the row is one the provider honours.
pub const USABLE: &str = "a durable reply is usable";
/// The newest refresh token is in our hands, unless a reply was lost on the network, or with a process before it was durable.
pub const NOTHING_LOST: &str = "a token is lost only with a reply that was not durable yet";
/// `reconnect` is true: the provider honours no token that is in our hands.
pub const TRUE_RECONNECT: &str = "reconnect only when no token in our hands is honoured";
/// `family`: no request of ours ends a grant whose newest refresh token is in our hands.
pub const NO_KILL: &str = "no grant is killed whose live token is in our hands";
/// `family`: nor one whose access token is still valid.
pub const NO_EARLY_KILL: &str = "no grant is killed while its access token is valid";
/// When nothing more goes wrong, everything ends well: renewed, or waiting for a person for a true reason, and no reply waits on a disk.
pub const ENDS_WELL: &str = "whatever happened, it ends renewed or in a true reconnect";

/// All of them.
pub fn all() -> Vec<Property<Renewal>> {
    let always = |name, condition: fn(&Renewal, &State) -> bool| Property::always(name, condition);
    let sometimes = |name, condition: fn(&Renewal, &State) -> bool| Property::sometimes(name, condition);
    vec![
        always(ONE_SEND, one_send),
        always(NEVER_BACK, never_back),
        always(DURABLE, |_, state| !state.past.dropped),
        always(USABLE, usable),
        always(NOTHING_LOST, |model, state| excused(model, state) || state.past.reply_lost || ours_is_honoured(state)),
        always(TRUE_RECONNECT, |model, state| {
            !state.row.reconnect || excused(model, state) || !ours_is_honoured(state)
        }),
        always(NO_KILL, |_, state| !state.past.killed_held),
        always(NO_EARLY_KILL, |_, state| !state.past.killed_valid),
        always(ENDS_WELL, |model, state| !is_at_rest(model, state) || well(model, state)),
        // None of these would say anything if nothing happened.
        sometimes("renewed as often as asked", |model, state| state.row.generation == model.renewals),
        sometimes("a reply from before a crash is committed", |_, state| {
            state.past.recovered && state.row.generation > 0
        }),
        sometimes("a dead owner's claim is taken over", |_, state| state.past.taken_over),
        sometimes("an owner overstays", |_, state| state.past.overstayed),
        sometimes("a reply is lost", |_, state| state.past.reply_lost),
        sometimes("a connection needs a person", |model, state| {
            state.row.reconnect || matches!(model.class, Class::Static | Class::UntilUsed)
        }),
    ]
}

fn one_send(model: &Renewal, state: &State) -> bool {
    let counts = |claim| model.class.second_use_harms() || state.waiting(claim).is_some();
    let mut live: Vec<_> =
        state.wire.iter().filter(|exchange| counts(exchange.claim)).map(|exchange| exchange.claim.token).collect();
    // A static token is the same in every generation: there, the generation tells one use from the next.
    if model.class == Class::Static {
        live = state.wire.iter().filter(|e| counts(e.claim)).map(|e| e.claim.generation).collect();
    }
    live.sort_unstable();
    live.windows(2).all(|pair| pair[0] != pair[1])
}

fn never_back(_: &Renewal, state: &State) -> bool {
    state.past.newest == (state.row.generation, state.row.token)
}

fn usable(model: &Renewal, state: &State) -> bool {
    let durable = state.replicas.iter().filter_map(|replica| replica.escrow);
    let mut current = durable.filter(|reply| reply.generation == state.row.generation);
    excused(model, state)
        || current.all(|reply| !state.provider.live.common([reply.token].into_iter().collect()).is_empty())
}

/// An owner that held a reply stayed away for longer than patience lasts. Where the used token is taken all the same, this is no excuse.
fn excused(model: &Renewal, state: &State) -> bool {
    state.past.overstayed && !matches!(model.class, Class::Static | Class::UntilUsed)
}

fn ours_is_honoured(state: &State) -> bool {
    !state.held().common(state.provider.live).is_empty()
}

/// Nothing can happen any more. A test shows that there is a way to such a state from every other.
fn is_at_rest(model: &Renewal, state: &State) -> bool {
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    actions.is_empty()
}

fn well(model: &Renewal, state: &State) -> bool {
    let nobody_left = state.replicas.iter().all(|replica| replica.process == Process::Gone);
    let true_reconnect = state.row.reconnect && !ours_is_honoured(state);
    let waiting_on_disk = state.replicas.iter().any(|replica| replica.escrow.is_some());
    nobody_left || ((state.row.generation == model.renewals || true_reconnect) && !waiting_on_disk)
}
