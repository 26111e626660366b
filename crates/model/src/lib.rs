//! The renewal protocol as a model: `docs/dev/renewal-model.md` says what it shows and what it leaves out.
//!
//! `Renewal::next` is the protocol, one arm a step. A checker (stateright) walks through every order in which the steps of all replicas, the network,
//! the provider, time and the faults can happen, and judges each state by the [`properties`].

pub mod properties;
pub mod provider;
pub mod state;

use stateright::{Model, Property};

use crate::provider::{Answer, Class, Provider};
use crate::state::{Claim, Exchange, Faults, Generation, Past, Process, Replica, Reply, Row, Sight, State, Ticks};

/// A request is only sent under a claim that is not older.
const YOUNG: Ticks = 1;
/// From the sending on: so long the client waits, and so long the provider may still act.
const EXCHANGE: Ticks = 2;
/// A claim's life.
const CLAIM: Ticks = 4;
/// What a dead owner gets beyond it, where a second use harms.
const PATIENCE: Ticks = 2;

/// The rules of the protocol. A model with one taken out must fail, or the model would show nothing.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The claim compares generation and attempt with what was read.
    pub claim_compares: bool,
    /// It compares `lost_at` too: that there is no attempt now, as there was none then, doesn't mean that there was none in between.
    pub claim_compares_lost: bool,
    /// A foreign claim is respected until it is dead.
    pub takeover_waits: bool,
    /// Where a second use harms, the claim of a request without an answer stays in the row: the provider may yet act on it.
    pub silence_keeps_the_claim: bool,
    /// Nothing is sent under an old claim.
    pub only_young_claims_send: bool,
    /// The reply is durable before it is committed.
    pub escrow: bool,
    /// The commit compares the generation.
    pub commit_compares: bool,
    /// The record of a refusal compares generation and attempt.
    pub refusal_compares: bool,
    /// At a start, escrow comes first.
    pub start_commits: bool,
    /// `family`: after a lost reply, nothing is sent before the access token has expired.
    pub family_waits: bool,
}

impl Rules {
    /// Keyholder's.
    pub const ALL: Rules = Rules {
        claim_compares: true,
        claim_compares_lost: true,
        takeover_waits: true,
        silence_keeps_the_claim: true,
        only_young_claims_send: true,
        escrow: true,
        commit_compares: true,
        refusal_compares: true,
        start_commits: true,
        family_waits: true,
    };
}

/// One connection, renewed by some replicas.
///
/// Time passes in ticks of some ten seconds. What matters is their order: a request is sent at most 1 tick after its claim and is over 2 ticks later, before
/// the claim's end at 4; patience adds 2. A process may take any time for any step; the clock is the same for all.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// How the provider treats a used refresh token.
    pub class: Class,
    /// How many processes.
    pub replicas: usize,
    /// It is renewed so many times.
    pub renewals: Generation,
    /// What may go wrong.
    pub faults: Faults,
    /// What the replicas keep to.
    pub rules: Rules,
}

/// What can happen next. The number is the replica, or the place on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A replica reads the row and finds that it may claim.
    Read(usize),
    /// Of a dead owner it is recorded that its request may have been used; the class forbids to send yet.
    RecordDeath(usize),
    /// Step 1.
    Claim(usize),
    /// The claim is written, but the database's answer is lost.
    ClaimUnheard(usize),
    /// The claim grew old: it is given back, nothing was sent.
    Release(usize),
    /// So too, but the write fails.
    ReleaseFails(usize),
    /// Step 2.
    Send(usize),
    /// The provider acts on a request.
    Arrive(usize),
    /// Its answer comes to who waits.
    Deliver(usize),
    /// A request, or an answer, is lost.
    Lose(usize),
    /// The client waits no longer: a deadline, or a broken connection. The request may be on its way all the same.
    GiveUp(usize),
    /// A request without an answer is recorded.
    RecordSilence(usize),
    /// `invalid_grant` is recorded.
    RecordRefusal(usize),
    /// One of these records can't be written.
    RecordFails(usize),
    /// Step 3.
    Escrow(usize),
    /// The disk refuses; the reply is committed from memory.
    EscrowFails(usize),
    /// Step 4.
    Commit(usize),
    /// It is written, but the database's answer is lost, and so it is tried again.
    CommitUnheard(usize),
    /// Step 5.
    Clear(usize),
    /// A process dies.
    Crash(usize),
    /// It starts again.
    Start(usize),
    /// It never will, and its disk is lost.
    Bury(usize),
    /// The access token expires.
    Expire,
    /// The provider's window closes.
    CloseWindow,
    /// Time passes.
    Tick,
}

impl Model for Renewal {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            row: Row { generation: 0, token: 0, attempt: None, lost: false, reconnect: false },
            replicas: vec![Replica { process: Process::Idle, escrow: None }; self.replicas],
            wire: Vec::new(),
            provider: Provider::new(),
            expired: false,
            left: self.faults,
            past: Past::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..state.replicas.len() {
            self.of_replica(state, at, actions);
        }
        for (at, exchange) in state.wire.iter().enumerate() {
            actions.push(if exchange.answer.is_none() { Action::Arrive(at) } else { Action::Deliver(at) });
            if state.left.losses > 0 {
                actions.push(Action::Lose(at));
            }
        }
        if self.class == Class::Family && !state.expired {
            actions.push(Action::Expire);
        }
        if !state.provider.closing.is_empty() {
            actions.push(Action::CloseWindow);
        }
        if self.may_tick(state) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.next(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Renewal {
    /// What a replica can do next, and what can happen to it.
    fn of_replica(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let left = &state.left;
        let mut may = |action, allowed| {
            if allowed {
                actions.push(action);
            }
        };
        match state.replicas[at].process {
            Process::Idle => {
                let held_back = self.held_back(state);
                may(Action::Read(at), self.is_free(state) && !held_back);
                may(Action::RecordDeath(at), self.is_free(state) && held_back && state.row.attempt.is_some());
            }
            Process::Seen(_) => {
                may(Action::Claim(at), true);
                may(Action::ClaimUnheard(at), left.writes > 0);
            }
            Process::Claimed(_, age) => {
                let in_time = age <= YOUNG || !self.rules.only_young_claims_send;
                may(Action::Send(at), in_time);
                may(Action::Release(at), !in_time);
                may(Action::ReleaseFails(at), !in_time && left.writes > 0);
            }
            Process::Waiting(claim) => {
                let on_its_way = state.wire.iter().any(|exchange| exchange.claim == claim);
                may(Action::GiveUp(at), !on_its_way || left.losses > 0);
            }
            Process::Unanswered(_) => {
                may(Action::RecordSilence(at), true);
                may(Action::RecordFails(at), left.writes > 0);
            }
            Process::Answered(_, Answer::Refused) => {
                may(Action::RecordRefusal(at), true);
                may(Action::RecordFails(at), left.writes > 0);
            }
            Process::Answered(_, Answer::Tokens(_)) => {
                may(Action::Escrow(at), true);
                may(Action::EscrowFails(at), left.writes > 0);
            }
            Process::Committing(_) => {
                may(Action::Commit(at), true);
                may(Action::CommitUnheard(at), left.writes > 0);
            }
            Process::Clearing => may(Action::Clear(at), true),
            Process::Down => {
                may(Action::Start(at), true);
                may(Action::Bury(at), true);
            }
            Process::Gone => {}
        }
        // Before the claim a crash changes nothing.
        let alive =
            !matches!(state.replicas[at].process, Process::Idle | Process::Seen(_) | Process::Down | Process::Gone);
        may(Action::Crash(at), alive && left.crashes > 0);
    }

    /// The row needs a renewal, and nobody's claim stands.
    fn is_free(&self, state: &State) -> bool {
        let row = &state.row;
        let stands = row.attempt.is_some_and(|(_, age)| self.rules.takeover_waits && age < self.claims_end());
        row.generation < self.renewals && !row.reconnect && !stands
    }

    /// Sending could end an access token that is still good.
    fn held_back(&self, state: &State) -> bool {
        let unsure = state.row.lost || state.row.attempt.is_some();
        self.class == Class::Family && unsure && !state.expired && self.rules.family_waits
    }

    /// The age at which a claim is dead.
    fn claims_end(&self) -> Ticks {
        CLAIM + if self.class.second_use_harms() { PATIENCE } else { 0 }
    }

    /// Time stands still only before what can't be later: the end of an exchange, and, without a fault, the sending.
    fn may_tick(&self, state: &State) -> bool {
        let someone_ages = !state.wire.is_empty()
            || state.row.attempt.is_some_and(|(_, age)| age < self.claims_end())
            || state.replicas.iter().any(|replica| matches!(replica.process, Process::Claimed(_, age) if age <= YOUNG));
        let too_late = state.wire.iter().any(|exchange| exchange.age == EXCHANGE);
        someone_ages && !too_late && (state.left.delays > 0 || !grows_old(state))
    }

    /// One step.
    fn next(&self, state: &mut State, action: Action) {
        match action {
            Action::Read(at) => {
                let row = &state.row;
                let dead = row.attempt.map(|(attempt, _)| attempt);
                let sight = Sight { generation: row.generation, token: row.token, dead, lost: row.lost };
                state.replicas[at].process = Process::Seen(sight);
            }
            Action::RecordDeath(_) => {
                self.take_over(state);
                state.row.attempt = None;
            }
            Action::Claim(at) => {
                let claim = self.claim(state, at);
                state.replicas[at].process = claim.map_or(Process::Idle, |claim| Process::Claimed(claim, 0));
            }
            Action::ClaimUnheard(at) => {
                state.left.writes -= 1;
                self.claim(state, at);
                state.replicas[at].process = Process::Idle;
            }
            Action::Release(at) => {
                if let Process::Claimed(claim, _) = state.replicas[at].process
                    && is_his(&state.row, claim)
                {
                    state.row.attempt = None;
                }
                state.replicas[at].process = Process::Idle;
            }
            Action::ReleaseFails(at) | Action::RecordFails(at) => {
                state.left.writes -= 1;
                state.replicas[at].process = Process::Idle;
            }
            Action::Send(at) => {
                if let Process::Claimed(claim, _) = state.replicas[at].process {
                    state.wire.push(Exchange { claim, age: 0, answer: None });
                    state.replicas[at].process = Process::Waiting(claim);
                }
            }
            Action::Arrive(at) => self.arrive(state, at),
            Action::Deliver(at) => {
                let Exchange { claim, answer, .. } = state.wire.remove(at);
                if let (Some(to), Some(answer)) = (state.waiting(claim), answer) {
                    state.replicas[to].process = Process::Answered(claim, answer);
                }
            }
            Action::Lose(at) => {
                state.left.losses -= 1;
                let lost = state.wire.remove(at);
                state.vanishes(reply_of(lost.claim, lost.answer));
            }
            Action::GiveUp(at) => {
                if let Process::Waiting(claim) = state.replicas[at].process {
                    // For nothing where there is nothing to wait for any more.
                    if state.wire.iter().any(|exchange| exchange.claim == claim) {
                        state.left.losses -= 1;
                    }
                    stop_waiting(state, claim);
                    state.replicas[at].process = Process::Unanswered(claim);
                }
            }
            Action::RecordSilence(at) => {
                if let Process::Unanswered(claim) = state.replicas[at].process
                    && is_his(&state.row, claim)
                {
                    state.row.lost = true;
                    if !(self.rules.silence_keeps_the_claim && self.class.second_use_harms()) {
                        state.row.attempt = None;
                    }
                }
                state.replicas[at].process = Process::Idle;
            }
            Action::RecordRefusal(at) => {
                if let Process::Answered(claim, _) = state.replicas[at].process
                    && (is_his(&state.row, claim) || !self.rules.refusal_compares)
                {
                    state.row.reconnect = true;
                    state.row.attempt = None;
                }
                state.replicas[at].process = Process::Idle;
            }
            Action::Escrow(at) | Action::EscrowFails(at) => {
                if let Process::Answered(claim, answer) = state.replicas[at].process
                    && let Some(reply) = reply_of(claim, Some(answer))
                {
                    if action == Action::EscrowFails(at) {
                        state.left.writes -= 1;
                    } else if self.rules.escrow {
                        state.replicas[at].escrow = Some(reply);
                    }
                    state.replicas[at].process = Process::Committing(reply);
                }
            }
            Action::Commit(at) => {
                self.commit(state, at);
                state.replicas[at].process = Process::Clearing;
            }
            Action::CommitUnheard(at) => {
                state.left.writes -= 1;
                self.commit(state, at);
            }
            Action::Clear(at) => {
                let cleared = state.replicas[at].escrow.take();
                state.past.dropped |= cleared.is_some_and(|reply| reply.generation >= state.row.generation);
                state.replicas[at].process = Process::Idle;
            }
            Action::Crash(at) => {
                state.left.crashes -= 1;
                let refused_write = state.left.writes < self.faults.writes;
                let replica = &mut state.replicas[at];
                let process = std::mem::replace(&mut replica.process, Process::Down);
                match process {
                    Process::Waiting(claim) => stop_waiting(state, claim),
                    Process::Answered(claim, answer) => state.vanishes(reply_of(claim, Some(answer))),
                    // Only a disk that refused is an excuse for holding it in memory alone.
                    Process::Committing(reply) if replica.escrow.is_none() && refused_write => {
                        state.vanishes(Some(reply));
                    }
                    _ => {}
                }
            }
            Action::Start(at) => {
                let replica = &mut state.replicas[at];
                replica.process = match replica.escrow {
                    Some(reply) if self.rules.start_commits => {
                        state.past.recovered |= reply.generation == state.row.generation;
                        Process::Committing(reply)
                    }
                    _ => Process::Idle,
                };
            }
            Action::Bury(at) => {
                state.replicas[at].process = Process::Gone;
                let buried = state.replicas[at].escrow.take();
                state.vanishes(buried);
            }
            Action::Expire => state.expired = true,
            Action::CloseWindow => state.provider.close_window(),
            Action::Tick => self.tick(state),
        }
    }

    /// Step 1: compare and set. The claim of a dead owner is taken over; its request may have been used.
    fn claim(&self, state: &mut State, at: usize) -> Option<Claim> {
        let Process::Seen(sight) = state.replicas[at].process else { return None };
        let row = &state.row;
        let as_seen = row.generation == sight.generation && row.attempt.map(|(attempt, _)| attempt) == sight.dead;
        if (self.rules.claim_compares && !as_seen) || (self.rules.claim_compares_lost && row.lost != sight.lost) {
            return None;
        }
        if sight.dead.is_some() {
            self.take_over(state);
        } else {
            state.row.lost = sight.lost;
        }
        let claim = Claim { attempt: state.free_id(), generation: sight.generation, token: sight.token };
        state.row.attempt = Some((claim.attempt, 0));
        Some(claim)
    }

    /// The owner of the claim in the row is dead; nobody knows how far it came.
    fn take_over(&self, state: &mut State) {
        let dead = state.row.attempt.is_some_and(|(_, age)| age >= self.claims_end());
        let holds_a_reply = state.uncommitted().any(|reply| reply.generation == state.row.generation);
        state.past.overstayed |= dead && holds_a_reply;
        state.past.taken_over = true;
        state.row.lost = true;
    }

    /// The provider acts. An answer that nobody waits for is lost.
    fn arrive(&self, state: &mut State, at: usize) {
        let Exchange { claim, .. } = state.wire[at];
        let before = state.provider.live;
        let answer = state.provider.redeem(self.class, claim.token);
        if answer == Answer::Refused && self.class == Class::Family && !before.is_empty() && !state.past.overstayed {
            state.past.killed_held |= !before.common(state.held()).is_empty();
            state.past.killed_valid |= !state.expired;
        }
        if state.waiting(claim).is_some() {
            state.wire[at].answer = Some(answer);
        } else {
            state.wire.remove(at);
            state.vanishes(reply_of(claim, Some(answer)));
        }
    }

    /// Step 4: compares the generation only. Who has claimed since has sent a used token; this reply is the newest there is.
    fn commit(&self, state: &mut State, at: usize) {
        let Process::Committing(reply) = state.replicas[at].process else { return };
        if reply.generation != state.row.generation && self.rules.commit_compares {
            return;
        }
        state.row =
            Row { generation: reply.generation + 1, token: reply.token, attempt: None, lost: false, reconnect: false };
        state.expired = false;
        if state.row.generation > state.past.newest.0 {
            state.past.newest = (state.row.generation, state.row.token);
        }
    }

    fn tick(&self, state: &mut State) {
        if grows_old(state) {
            state.left.delays -= 1;
        }
        if let Some((_, age)) = &mut state.row.attempt {
            *age = (*age + 1).min(self.claims_end());
        }
        for exchange in &mut state.wire {
            exchange.age += 1;
        }
        for replica in &mut state.replicas {
            if let Process::Claimed(_, age) = &mut replica.process {
                *age = (*age + 1).min(YOUNG + 1);
            }
        }
    }
}

/// With the next tick, a claim would be too old to send under.
fn grows_old(state: &State) -> bool {
    state.replicas.iter().any(|replica| matches!(replica.process, Process::Claimed(_, YOUNG)))
}

/// The row is as this claim's owner left it.
fn is_his(row: &Row, claim: Claim) -> bool {
    row.generation == claim.generation && row.attempt.is_some_and(|(attempt, _)| attempt == claim.attempt)
}

/// An answer on its way to who no longer waits is lost; a request goes on.
fn stop_waiting(state: &mut State, claim: Claim) {
    if let Some(at) = state.wire.iter().position(|exchange| exchange.claim == claim && exchange.answer.is_some()) {
        let lost = state.wire.remove(at);
        state.vanishes(reply_of(claim, lost.answer));
    }
}

fn reply_of(claim: Claim, answer: Option<Answer>) -> Option<Reply> {
    match answer {
        Some(Answer::Tokens(token)) => Some(Reply { generation: claim.generation, token }),
        _ => None,
    }
}
