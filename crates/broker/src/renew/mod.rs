//! Renewal: the heart. One function, five steps: claim, send, escrow, commit, clear.
//!
//! Whoever wants a newer token (hand-out, gateway, scheduler, command, test) comes through [`Broker::renew`]. In one process everybody who
//! wants the same connection renewed waits for the same task; across processes the claim in the row decides ([`claims`]). The task is nobody's future: a
//! caller that goes away abandons no exchange. What is tried after a lost reply is [`recovery`]'s.

mod claims;
mod commit;
mod complete;
mod due;
mod failure;
mod grant;
mod recovery;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use http::header;
use keyholder_oauth::{FailureKind, Secret, TokenSet, read_token_reply, token_request};
use keyholder_provider::Recovery;
use tokio::sync::oneshot;

pub(crate) use self::claims::Claims;
use self::claims::{CLAIM, PATIENCE, Standing, YOUNG};
use self::commit::New;
use self::complete::Completed;
pub(crate) use self::complete::is_complete;
pub(crate) use self::due::endpoint_key;
use self::failure::{Failed, left};
use self::grant::{Step, request_parts, step};
pub(crate) use self::grant::{granted_scope, reply_rules, spent_for_renewal};
use self::recovery::Lost;
pub(crate) use self::recovery::is_unreadable;

use crate::clock::{Moment, millis};
use crate::egress::Bounds;
use crate::endpoints::{Closed, Pass, Urgency};
use crate::error::{Error, Result};
use crate::escrow::{Held, RawReply};
use crate::explain::{self, Deed};
use crate::live::{Live, LiveSecondary};
use crate::model::{Attempt, AttemptId, Connection, ConnectionId, ConnectionState, Status};
use crate::open::Broker;
use crate::plan::Plan;
use crate::points::blocking;
use crate::token_set::{succeed, succeed_as, without_refresh};

/// How often a foreign claim is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Secondary tokens that end so soon are renewed with the main one: somewhat more than how far ahead that is due.
const SECONDARIES_AHEAD: Duration = Duration::from_secs(20 * 60);

/// What a renewal task answers to all who wait for it.
pub(crate) type Outcome = Result<Arc<Live>>;

/// What a caller of [`Broker::renew`] wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) enough: Enough,
    pub(crate) urgency: Urgency,
}

impl Wish {
    /// A person asks, whom backoff doesn't hold up.
    fn insists(self) -> bool {
        self.urgency == Urgency::Person
    }

    /// The API refused a token that should be valid.
    fn refused_by_api(self) -> bool {
        matches!((self.enough, self.urgency), (Enough::NewerThan(_), Urgency::Reader))
    }
}

/// A renewal under way.
#[derive(Clone)]
pub(crate) struct Running {
    urgency: Urgency,
    answer: Shared<oneshot::Receiver<Outcome>>,
}

/// What makes sending unnecessary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Enough {
    /// A token valid beyond this time, Unix milliseconds.
    ValidAt(i64),
    /// A token set of a later generation than this one.
    NewerThan(i64),
    /// Secondary tokens that are valid beyond this time, Unix milliseconds. A renewal renews one that has a refresh token of its own, or the main token,
    /// with which the others come.
    SecondariesValidAt(i64),
}

/// What a person is told about a renewal that was asked for.
#[derive(Clone, Debug)]
pub struct RenewalNote {
    /// Generation of the token set now in place.
    pub generation: i64,
    /// Its access token's expiry, Unix milliseconds.
    pub expires_at: Option<i64>,
}

/// The right to send.
struct Claim {
    attempt: Attempt,
    /// Just before it was taken: the process's own time, and what its clock showed.
    taken: Moment,
    taken_at: i64,
    /// When this refresh token was first sent without an answer, Unix milliseconds.
    lost_at: Option<i64>,
}

/// Why a task has no token.
enum Stop {
    /// To be recorded in the row.
    Failed(Box<Failed>),
    /// The refresh token is dead, but this method needs no person: the grant is run anew.
    RunGrantAnew,
    /// The process was halted for so long that the claim is too old to send under it.
    TooLate,
    /// Nothing was sent.
    Error(Error),
    /// Something was sent, and what came of it could not be settled: the claim stays until it runs out, and the reply in escrow.
    Unsettled(Error),
}

impl Stop {
    fn failed(failed: Failed) -> Self {
        Stop::Failed(Box::new(failed))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

impl Broker {
    /// Renews a connection's token set, or waits for who is doing so already.
    ///
    /// | the row says | what happens |
    /// | --- | --- |
    /// | it already has what is wished for | that is answered; nothing is sent |
    /// | draft, pending, revoked | error |
    /// | reconnect | the recorded reason, unless a person insists |
    /// | backoff not over | the recorded reason, unless a person insists |
    /// | somebody's claim stands | wait until it ends, then look again |
    /// | none of these | claim, send, escrow, commit, clear |
    pub(crate) async fn renew(&self, id: &ConnectionId, wish: Wish) -> Outcome {
        loop {
            let Running { urgency, answer } = self.join_renewal(id, wish)?;
            let outcome = answer.await.unwrap_or(Err(Error::Internal("a renewal ended without an answer")));
            match (&outcome, wish.enough) {
                // The task that was joined had been asked for less and sent nothing.
                (Ok(live), Enough::NewerThan(generation)) if live.generation <= generation => {}
                // It was held up by what doesn't hold up this one.
                (Err(Error::NotReady { .. } | Error::StillRenewing), _) if wish.urgency < urgency => {}
                _ => return outcome,
            }
        }
    }

    /// As [`Self::renew`], for who doesn't wait for it.
    pub(crate) fn begin_renewal(&self, id: &ConnectionId, wish: Wish) {
        if let Err(error) = self.join_renewal(id, wish) {
            tracing::debug!(%error, connection = %id, "no renewal was begun");
        }
    }

    /// The task that renews this connection: the one under way, or a new one.
    fn join_renewal(&self, id: &ConnectionId, wish: Wish) -> Result<Running> {
        let mut renewals = lock(&self.renewals);
        if let Some(under_way) = renewals.get(id) {
            return Ok(under_way.clone());
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Error::StillRenewing);
        }
        let (answer, waiting) = oneshot::channel();
        // All who wait are woken in the order in which they came: a simulation can be replayed.
        let running = Running { urgency: wish.urgency, answer: waiting.shared() };
        renewals.insert(id.clone(), running.clone());
        let (broker, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let under_way = UnderWay { broker: &broker, id: &id };
            let outcome = broker.renew_task(&id, wish).await;
            // Out of the map first: who comes after this reads the row anew.
            drop(under_way);
            let after = outcome.as_ref().ok().cloned();
            let _ = answer.send(outcome);
            if let Some(live) = after.filter(|_| !matches!(wish.enough, Enough::SecondariesValidAt(_))) {
                broker.renew_secondaries(&live).await;
            }
        });
        Ok(running)
    }

    /// Secondary tokens with a refresh token of their own follow the main one, each in a renewal of its own; nobody waits for it.
    async fn renew_secondaries(&self, live: &Live) {
        let at = self.now_ms() + millis(SECONDARIES_AHEAD);
        let due = |it: &&LiveSecondary| it.renewed_by_itself && it.expires_at.is_some_and(|ends| ends <= at);
        for _ in 0..live.secondary.values().filter(due).count() {
            let wish = Wish { enough: Enough::SecondariesValidAt(at), urgency: Urgency::Background };
            // Boxed: a renewal begins another one.
            let renewal: Pin<Box<dyn Future<Output = Outcome> + Send + '_>> = Box::pin(self.renew(&live.id, wish));
            if let Err(error) = renewal.await {
                tracing::info!(%error, connection = %live.id, "a secondary token was not renewed; it is tried again when it is due");
                return;
            }
        }
    }

    /// Returns when no renewal is under way; no new one begins. For a graceful stop.
    pub async fn finish_renewals(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let all_done = async {
            loop {
                let Some(one) = lock(&self.renewals).values().next().cloned() else { break };
                let _ = one.answer.await;
            }
        };
        if self.clock.timeout(CLAIM, all_done).await.is_none() {
            // Their replies are in escrow, and committed at the next start.
            tracing::warn!("some renewals could not be stored before the stop");
        }
    }

    async fn renew_task(&self, id: &ConnectionId, wish: Wish) -> Outcome {
        self.commit_left_behind(id).await?;
        let mut run_grant_anew = false;
        loop {
            let wanted = id.clone();
            let (row, now) = self.store.read(move |tx| Ok((tx.connection_by_id(&wanted)?, tx.now_ms()?))).await?;
            let row = row.ok_or_else(|| Error::not_found("connection", id.as_str()))?;
            self.know_keys([row.secrets.as_ref(), row.token_set.as_ref()]).await?;
            if let Some(live) = self.already(&row, wish)? {
                self.publish(&live).await;
                return Ok(live);
            }
            self.fence.check()?;
            self.check_may_renew(&row, wish)?;
            let old = match &row.token_set {
                Some(sealed) => Some(self.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed)?),
                None => None,
            };
            let plan = match self.plan(&row, old.as_ref()).await {
                Ok(plan) => plan,
                Err(error @ (Error::Store(_) | Error::Vault(_))) => return Err(error),
                Err(error) => {
                    let failed = Failed::unsent(explain::no_request(&error, self.now_ms()), &row);
                    return self.fail_unsent(&row, None, failed).await;
                }
            };
            let recovery = &plan.rendered.recovery;
            #[cfg(test)]
            let recovery = match self.settings.points.sabotages(crate::simulation::Sabotage::NoCaution) {
                true => &Recovery::SingleUse,
                false => recovery,
            };
            let sends_token = spent_for_renewal(&plan, old.as_ref()).is_some()
                || matches!(wish.enough, Enough::SecondariesValidAt(_));
            let harmful = sends_token && recovery::second_use_harms(recovery);
            let patience = if harmful { PATIENCE } else { Duration::ZERO };
            let standing = self.claims.judge(&self.clock, &row, now, patience);
            #[cfg(test)]
            let standing = match &row.attempt {
                Some(theirs) if self.settings.points.sabotages(crate::simulation::Sabotage::NoWaiting) => {
                    Standing::Over(theirs.clone())
                }
                _ => standing,
            };
            let dead = match standing {
                Standing::Free => None,
                Standing::Over(attempt) => Some(attempt),
                // What isn't urgent comes again by itself.
                Standing::Stands(_) if wish.urgency == Urgency::Background => return Err(Error::StillRenewing),
                // This process's own, which it kept after it had sent without an answer: nobody is at it.
                Standing::Stands(left) if row.attempt.as_ref().is_some_and(|kept| kept.owner == self.instance) => {
                    return Err(Error::NotReady {
                        connection: row.name.clone(),
                        state: row.state.status(),
                        failure: row.state.failure().cloned(),
                        retry_after: Some(left),
                    });
                }
                Standing::Stands(left) => {
                    self.clock.sleep(LOOK_AGAIN.min(left)).await;
                    continue;
                }
            };
            // What is unknown about the main refresh token is settled before another one is used. Without one, it is another's that is unknown.
            let main_is_unknown = row.lost_at.is_some() && spent_for_renewal(&plan, old.as_ref()).is_some();
            let enough = if main_is_unknown { Enough::ValidAt(now) } else { wish.enough };
            let step = match step(&plan, old.as_ref(), enough, run_grant_anew) {
                Some(step) => step,
                None => return self.nothing_to_renew_with(&row, dead.as_ref(), wish).await,
            };
            if step.deed == Deed::Refresh
                && let Some(until) = too_young(&row, &plan, self.now_ms())
            {
                return Err(self.too_young(&row, until));
            }
            // Nobody knows how far a dead owner came.
            let lost_at = row.lost_at.or(dead.as_ref().map(|dead| dead.deadline - millis(CLAIM)));
            let lost_at = lost_at.filter(|_| step.deed.spends());
            if let Some(at) = lost_at
                && !wish.insists()
                && !wish.refused_by_api()
                && recovery::must_wait(recovery, Lost::of(&row, at, self.now_ms())).is_some()
            {
                let failed = Failed::lost(explain::owner_died(self.now_ms()), at, recovery);
                return self.fail_unsent(&row, dead.as_ref(), failed).await;
            }
            let endpoint = endpoint_key(&plan);
            let pass = match self.endpoints.enter(&self.clock, &self.rng, &endpoint, wish.urgency).await {
                Ok(pass) => pass,
                Err(closed) => return Err(self.circuit_open(&row, &closed)),
            };
            // The wait for room may have been long.
            self.fence.check()?;

            // 1. CLAIM
            let Some(claim) = self.claim(&row, lost_at, recovery).await? else { continue };
            match self.exchange(&row, &plan, old, &step, &claim, pass).await {
                Ok(live) => return Ok(live),
                Err(Stop::RunGrantAnew) => {
                    self.release(&row, &claim.attempt).await;
                    run_grant_anew = true;
                }
                Err(Stop::TooLate) => self.release(&row, &claim.attempt).await,
                Err(Stop::Error(error)) => {
                    self.release(&row, &claim.attempt).await;
                    return Err(error);
                }
                Err(Stop::Unsettled(error)) => {
                    self.clear_escrow(&row, &claim.attempt, true, Some(&error));
                    return Err(error);
                }
                Err(Stop::Failed(failed)) => {
                    let unreadable = failed.unreadable;
                    let failed = self.fail(&row, Some(&claim.attempt), *failed).await;
                    self.clear_escrow(&row, &claim.attempt, unreadable, failed.as_ref().err());
                    return failed;
                }
            }
        }
    }

    /// Steps 2 to 5.
    async fn exchange(
        &self,
        row: &Connection,
        plan: &Plan,
        old: Option<TokenSet>,
        step: &Step,
        claim: &Claim,
        pass: Pass,
    ) -> std::result::Result<Arc<Live>, Stop> {
        let deed = step.deed;
        let (endpoint, grant, scope) = request_parts(row, plan, step)?;
        let request = token_request(endpoint, &plan.client, &grant, scope, &self.moment()).map_err(Error::from);
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                return Err(Stop::failed(Failed::unsent(explain::no_request(&error, self.now_ms()), row)));
            }
        };
        self.reach("claimed").await?;
        if !self.is_young(claim) {
            return Err(Stop::TooLate);
        }

        // 2. SEND: this is the renewal's own task; one connection, one request, no redirect, a deadline shorter than the claim.
        let recovery = &plan.rendered.recovery;
        let sent_at = claim.lost_at.unwrap_or(self.now_ms());
        let fetched = match self.ask(plan, endpoint, request, Bounds::PROVIDER).await {
            Ok(fetched) => fetched,
            Err(Error::Egress(error)) => {
                let explained = explain::unreachable(&error, self.now_ms());
                if explained.failure.kind == FailureKind::Transient {
                    pass.failed(None);
                }
                let open = deed.spends() && error.what.may_have_arrived();
                return Err(Stop::failed(match claim.lost_at {
                    _ if open => Failed::unanswered(explained, sent_at, recovery),
                    Some(at) => Failed::still_lost(explained, at, recovery),
                    None => Failed::plain(explained),
                }));
            }
            Err(error) => {
                return Err(Stop::failed(Failed::unsent(explain::no_request(&error, self.now_ms()), row)));
            }
        };
        let replied = self.clock.moment();
        let held = Held {
            connection: row.id.clone(),
            attempt: claim.attempt.id.clone(),
            reply: RawReply {
                generation: row.generation,
                received_at: self.now_ms(),
                status: fetched.status,
                content_type: fetched
                    .headers
                    .get(header::CONTENT_TYPE)
                    .and_then(|v| v.to_str().ok())
                    .map(str::to_owned),
                answers: step.answers(),
                body: fetched.body,
            },
        };
        self.reach("replied").await.map_err(Stop::Unsettled)?;

        // 3. ESCROW. If the disk refuses, the reply still is in memory, and committing it at once is the best that is left.
        let held = self.put_in_escrow(held, replied).await.map_err(Stop::Unsettled)?;
        self.reach("escrowed").await.map_err(Stop::Unsettled)?;

        // 4. COMMIT
        let headers = fetched.headers;
        let came_at = held.reply.received_at;
        let rules = reply_rules(plan, &held.reply.answers);
        let read = read_token_reply(rules, held.reply.status, &headers, held.reply.body.expose(), came_at);
        let own_plan = plan;
        let outcome = match (read, &step.secondary, old) {
            (Ok(tokens), Some(name), Some(old)) => {
                pass.answered();
                let told = format!("The token `{name}` was renewed.");
                let new = New::secondary(succeed_as(old, name, tokens), came_at, told);
                self.commit(row, plan, new).await.map_err(Stop::Unsettled)
            }
            (Ok(tokens), _, old) => {
                pass.answered();
                let first = row.connected_at.is_none();
                let told = told_of_renewal(first, claim.lost_at.is_some()).to_owned();
                match self.completed(row, plan, deed, tokens).await? {
                    Ok(Completed { plan, tokens, learnt }) => {
                        let plan = plan.as_ref().unwrap_or(own_plan);
                        let tokens = succeed(old, tokens, came_at);
                        let new = New { tokens, came_at, is_main: true, told, learnt };
                        self.commit(row, plan, new).await.map_err(Stop::Unsettled)
                    }
                    Err(explained) => Err(Stop::failed(Failed::plain(explained))),
                }
            }
            // The others go on; nothing renews this one any more.
            (Err(refused), Some(name), Some(old)) if refused.kind == FailureKind::Grant => {
                pass.answered();
                let secrets: Vec<&Secret> = plan.sensitive().chain(&step.token).collect();
                let failure = explain::refusal(deed, &refused, plan.known(), &secrets, came_at).failure;
                tracing::info!(connection = %row.id, token = name, code = failure.code, "a secondary token can't be renewed any more");
                let told =
                    format!("The token `{name}` can't be renewed any more. {} {}", failure.message, failure.remedy);
                let new = New::secondary(without_refresh(old, name, came_at), came_at, told);
                self.commit(row, plan, new).await.map_err(Stop::Unsettled)
            }
            (Err(refused), ..) => {
                match refused.kind {
                    FailureKind::Transient => pass.failed(refused.retry_after),
                    FailureKind::Setup | FailureKind::Grant => pass.answered(),
                }
                if refused.kind == FailureKind::Grant && deed == Deed::Refresh && !plan.rendered.grant.needs_a_person()
                {
                    Err(Stop::RunGrantAnew)
                } else {
                    let secrets: Vec<&Secret> = plan.sensitive().chain(&step.token).collect();
                    let known = plan.known();
                    let explained = explain::refusal(deed, &refused, known, &secrets, self.now_ms());
                    let open = deed.spends() && recovery::leaves_open(&refused);
                    let mut failed = match claim.lost_at {
                        _ if open => Failed::lost(explained, sent_at, recovery),
                        Some(at) => Failed::still_lost(explained, at, recovery),
                        None => Failed::plain(explained),
                    };
                    failed.unreadable = is_unreadable(&refused);
                    Err(Stop::failed(failed))
                }
            }
        };

        // 5. CLEAR; a refusal's reply once it is recorded.
        if outcome.is_ok() {
            self.reach("committed").await.map_err(Stop::Unsettled)?;
        }
        if matches!(outcome, Ok(_) | Err(Stop::RunGrantAnew)) {
            self.clear_escrow(row, &claim.attempt, false, None);
        }
        if outcome.is_ok() {
            self.reach("cleared").await.map_err(Stop::Unsettled)?;
        }
        outcome
    }

    /// Removes a reply that has been dealt with. One that could not be stored, or not be read, stays: it is the only copy of what may be a token set, and
    /// the next renewal begins with it.
    fn clear_escrow(&self, row: &Connection, attempt: &Attempt, unreadable: bool, error: Option<&Error>) {
        let not_stored = matches!(error, Some(Error::Store(_) | Error::Vault(_)));
        if (not_stored || unreadable) && self.escrow.holds(&row.id, &attempt.id) {
            return self.leave_behind(&row.id, &attempt.id);
        }
        if let Err(error) = self.escrow.clear(&row.id, &attempt.id) {
            tracing::warn!(%error, "a committed reply could not be removed from escrow; it is tried again");
            if self.escrow.holds(&row.id, &attempt.id) {
                self.leave_behind(&row.id, &attempt.id);
            }
        }
    }

    /// A point at which a test may end everything; its error stands for one of the store.
    async fn reach(&self, point: &'static str) -> Result<()> {
        let points = &self.settings.points;
        points.reach(point).await.map_err(|error| Error::File { what: point.to_owned(), cause: error.to_string() })
    }

    /// By both clocks: one stands still while the machine sleeps, the other may be set.
    fn is_young(&self, claim: &Claim) -> bool {
        #[cfg(test)]
        if self.settings.points.sabotages(crate::simulation::Sabotage::OldClaims) {
            return true;
        }
        self.clock.since(claim.taken) < YOUNG && self.now_ms() - claim.taken_at < millis(YOUNG)
    }

    fn circuit_open(&self, row: &Connection, closed: &Closed) -> Error {
        let now = self.now_ms();
        Error::NotReady {
            connection: row.name.clone(),
            state: row.state.status(),
            failure: Some(explain::circuit_open(closed.since, closed.until, now)),
            retry_after: Some(left(closed.until, now)),
        }
    }

    /// Nothing is sent that the provider would refuse.
    fn too_young(&self, row: &Connection, until: i64) -> Error {
        let now = self.now_ms();
        Error::NotReady {
            connection: row.name.clone(),
            state: row.state.status(),
            failure: Some(explain::too_young(until, now)),
            retry_after: Some(left(until, now)),
        }
    }

    /// What the row already has, if it is enough.
    fn already(&self, row: &Connection, wish: Wish) -> Result<Option<Arc<Live>>> {
        let usable = matches!(row.state.status(), Status::Connected | Status::Failing | Status::Reconnect);
        let enough = usable
            && match wish.enough {
                Enough::ValidAt(at) => row.token_expires_at.is_none_or(|expires| expires > at),
                Enough::NewerThan(generation) => row.generation > generation,
                // Its tokens tell.
                Enough::SecondariesValidAt(_) => true,
            };
        if !enough {
            return Ok(None);
        }
        let live = self.live_of(row)?;
        Ok(match wish.enough {
            Enough::SecondariesValidAt(at) => live.filter(|live| live.secondaries_are_valid_at(at)),
            Enough::ValidAt(_) | Enough::NewerThan(_) => live,
        })
    }

    fn check_may_renew(&self, row: &Connection, wish: Wish) -> Result<()> {
        let not_ready = |retry_after| {
            Err(Error::NotReady {
                connection: row.name.clone(),
                state: row.state.status(),
                failure: row.state.failure().cloned(),
                retry_after,
            })
        };
        match row.state {
            ConnectionState::Revoked | ConnectionState::Pending => not_ready(None),
            ConnectionState::Draft(_) | ConnectionState::Reconnect(_) if !wish.insists() => not_ready(None),
            // Held back for the sake of an access token that the API no longer takes.
            _ if row.lost_at.is_some() && wish.refused_by_api() => Ok(()),
            _ => match row.retry_at.map(|at| at - self.now_ms()) {
                Some(wait) if wait > 0 && !wish.insists() => {
                    not_ready(Some(Duration::from_millis(wait.unsigned_abs())))
                }
                _ => Ok(()),
            },
        }
    }

    fn new_attempt(&self) -> AttemptId {
        AttemptId::new(&self.clock, &self.rng)
    }

    /// Takes the right to send; `None`: the row moved on, or somebody was quicker.
    async fn claim(&self, row: &Connection, lost_at: Option<i64>, recovery: &Recovery) -> Result<Option<Claim>> {
        let (taken, taken_at) = (self.clock.moment(), self.now_ms());
        let (attempt, owner) = (self.new_attempt(), self.instance.clone());
        let seen = row.clone();
        // A claim that stayed after a lost reply was told of then.
        let is_news = row.attempt.is_some() && row.lost_at.is_none();
        let event = is_news.then(|| {
            let told = recovery::told(recovery);
            let text = format!("The process that was renewing this connection ended in the middle of it. {told}");
            self.event(
                row,
                "taken_over",
                if lost_at.is_some() {
                    text.as_str()
                } else {
                    "The process that was renewing this connection ended in the middle of it; another goes on."
                },
            )
        });
        let claimed = self
            .store
            .write(move |tx| {
                let attempt = Attempt { id: attempt, owner, deadline: tx.now_ms()?.saturating_add(millis(CLAIM)) };
                let claimed = tx.claim(&seen, &attempt, lost_at)?;
                if let Some(event) = event.filter(|_| claimed) {
                    event.write(tx)?;
                }
                Ok(claimed.then_some(attempt))
            })
            .await?;
        Ok(claimed.map(|attempt| Claim { attempt, taken, taken_at, lost_at }))
    }

    async fn release(&self, row: &Connection, attempt: &Attempt) {
        let (id, attempt) = (row.id.clone(), attempt.id.clone());
        if let Err(error) = self.store.write(move |tx| tx.release(&id, &attempt)).await {
            tracing::warn!(%error, "a claim could not be given back; it ends by itself");
        }
    }

    async fn put_in_escrow(&self, held: Held, replied: Moment) -> Result<Held> {
        let broker = self.clone();
        #[cfg(test)]
        if self.settings.points.sabotages(crate::simulation::Sabotage::NoEscrow) {
            return Ok(held);
        }
        let put = move || {
            let connection = &held.connection;
            match broker.escrow.put(&broker.clock, &broker.vault, &broker.rng, &held) {
                // The only time in which a dead process, or a power cut, takes a token with it: its width can be read here, on any disk.
                Ok(written) => {
                    let (written, synced) = (broker.clock.between(replied, written), broker.clock.since(replied));
                    let (written, synced) = (written.as_micros(), synced.as_micros());
                    tracing::debug!(written, synced, %connection, "a provider's reply is in escrow (microseconds since it came)");
                }
                Err(error) => {
                    tracing::error!(%error, %connection, "a provider's reply could not be put in escrow; it is committed from memory");
                }
            }
            held
        };
        blocking(put).await.map_err(|_| Error::Internal("the escrow's thread ended"))
    }
}

fn told_of_renewal(first: bool, was_lost: bool) -> &'static str {
    match (first, was_lost) {
        (true, _) => "The grant was run and the first token received.",
        (false, true) => {
            "The access token was renewed. The reply that had been lost before did no harm: the provider took the same refresh token again."
        }
        (false, false) => "The access token was renewed.",
    }
}

/// Until when the provider doesn't renew what the row has, Unix milliseconds; `None`: it does.
pub(crate) fn too_young(row: &Connection, plan: &Plan, now: i64) -> Option<i64> {
    let until = row.renewed_at?.saturating_add(millis(plan.rendered.refresh_min_age?));
    (until > now).then_some(until)
}

/// Takes the task out of the map even when it panics.
struct UnderWay<'a> {
    broker: &'a Broker,
    id: &'a ConnectionId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.broker.renewals).remove(self.id);
    }
}

/// A map keyed by connection; a panic elsewhere leaves it usable.
pub(crate) fn lock<T>(map: &Mutex<HashMap<ConnectionId, T>>) -> MutexGuard<'_, HashMap<ConnectionId, T>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}
