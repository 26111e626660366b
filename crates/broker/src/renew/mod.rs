//! Renewal: the heart. One function, five steps: claim, send, escrow, commit, clear.
//!
//! Whoever wants a newer token (hand-out, gateway, scheduler, command, test) comes through [`Broker::renew`]. In one process everybody who
//! wants the same connection renewed waits for the same task; across processes the claim in the row decides. The task is nobody's future: a caller
//! that goes away abandons no exchange.

mod due;
mod failure;
mod grant;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header;
use keyholder_oauth::{FailureKind, Secret, TokenSet, read_token_reply, token_request};
use keyholder_provider::{GrantKind, Recovery};
use tokio::sync::watch;

pub(crate) use self::due::endpoint_key;
use self::failure::left;
pub(crate) use self::grant::granted_scope;
use self::grant::{deed, request_parts};

use crate::clock::millis;
use crate::egress::Bounds;
use crate::error::{Error, Result};
use crate::escrow::{Held, RawReply};
use crate::explain::{self, Deed, Explained};
use crate::live::{Live, to_live};
use crate::model::{Attempt, AttemptId, Connection, ConnectionId, ConnectionState, Status};
use crate::open::Broker;
use crate::plan::Plan;
use crate::store::CommitTokens;
use crate::token_set::succeed;

/// How long a claim stands: longer than one exchange may take ([`Bounds::PROVIDER`]), so that nobody sends while it may be in flight.
const CLAIM: Duration = Duration::from_secs(40);
/// Where a second use of a refresh token would do harm, a dead owner gets this much longer to come back with its escrow.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a foreign claim is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a renewal task answers to all who wait for it.
pub(crate) type Outcome = Result<Arc<Live>>;

/// What a caller of [`Broker::renew`] wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) enough: Enough,
    /// A person asks: backoff doesn't hold it up.
    pub(crate) insist: bool,
}

/// A renewal under way.
#[derive(Clone)]
pub(crate) struct Running {
    /// A person asked for it.
    insist: bool,
    answer: watch::Receiver<Option<Outcome>>,
}

/// What makes sending unnecessary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Enough {
    /// A token valid beyond this time, Unix milliseconds.
    ValidAt(i64),
    /// A token set of a later generation than this one.
    NewerThan(i64),
}

/// What a person is told about a renewal that was asked for.
#[derive(Clone, Debug)]
pub struct RenewalNote {
    /// Generation of the token set now in place.
    pub generation: i64,
    /// Its access token's expiry, Unix milliseconds.
    pub expires_at: Option<i64>,
}

/// Why a task has no token.
enum Stop {
    /// Recorded in the row.
    Failed(Box<Explained>),
    /// The refresh token is dead, but this method needs no person: the grant is run anew.
    RunGrantAnew,
    /// Nothing was sent.
    Error(Error),
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
            let Running { insist, mut answer } = self.join_renewal(id, wish)?;
            let outcome = match answer.wait_for(Option::is_some).await {
                Ok(done) => done.clone().unwrap_or(Err(Error::Internal("a renewal ended without an answer"))),
                Err(_) => Err(Error::Internal("a renewal ended without an answer")),
            };
            match (&outcome, wish.enough) {
                // The task that was joined had been asked for less and sent nothing.
                (Ok(live), Enough::NewerThan(generation)) if live.generation <= generation => {}
                // It was held up by what doesn't hold up a person.
                (Err(Error::NotReady { .. }), _) if wish.insist && !insist => {}
                _ => return outcome,
            }
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
        let (answer, waiting) = watch::channel(None);
        let running = Running { insist: wish.insist, answer: waiting };
        renewals.insert(id.clone(), running.clone());
        let (broker, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let under_way = UnderWay { broker: &broker, id: &id };
            let outcome = broker.renew_task(&id, wish).await;
            // Out of the map first: who comes after this reads the row anew.
            drop(under_way);
            answer.send_replace(Some(outcome));
        });
        Ok(running)
    }

    /// Returns when no renewal is under way; no new one begins. For a graceful stop.
    pub async fn finish_renewals(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let all_done = async {
            loop {
                let Some(mut one) = lock(&self.renewals).values().next().cloned() else { break };
                let _ = one.answer.wait_for(Option::is_some).await;
            }
        };
        if self.clock.timeout(CLAIM, all_done).await.is_none() {
            // Their replies are in escrow, and committed at the next start.
            tracing::warn!("some renewals could not be stored before the stop");
        }
        self.audit.flush().await;
    }

    async fn renew_task(&self, id: &ConnectionId, wish: Wish) -> Outcome {
        self.commit_left_behind(id).await?;
        let mut run_grant_anew = false;
        loop {
            let wanted = id.clone();
            let row = self
                .store
                .read(move |tx| tx.connection_by_id(&wanted))
                .await?
                .ok_or_else(|| Error::not_found("connection", id.as_str()))?;
            if let Some(live) = self.already(&row, wish)? {
                self.publish(&live).await;
                return Ok(live);
            }
            self.check_may_renew(&row, wish)?;
            let old = match &row.token_set {
                Some(sealed) => Some(self.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed)?),
                None => None,
            };
            let plan = match self.plan(&row, old.as_ref()).await {
                Ok(plan) => plan,
                Err(error @ (Error::Store(_) | Error::Vault(_))) => return Err(error),
                Err(error) => return self.fail_unsent(&row, explain::no_request(&error, self.now_ms())).await,
            };
            if let Some(until) = self.foreign_claim(&row, &plan) {
                self.clock
                    .sleep(LOOK_AGAIN.min(Duration::from_millis((until - self.now_ms()).max(1).unsigned_abs())))
                    .await;
                continue;
            }
            let deed = match deed(&plan, old.as_ref(), run_grant_anew) {
                Some(deed) => deed,
                None => return self.nothing_to_renew_with(&row, wish).await,
            };

            // 1. CLAIM
            let attempt = self.new_attempt();
            if !self.claim(&row, &attempt).await? {
                continue;
            }
            match self.exchange(&row, &plan, old, deed, &attempt).await {
                Ok(live) => return Ok(live),
                Err(Stop::RunGrantAnew) => {
                    self.release(&row, &attempt).await;
                    run_grant_anew = true;
                }
                Err(Stop::Error(error)) => {
                    self.release(&row, &attempt).await;
                    return Err(error);
                }
                Err(Stop::Failed(explained)) => {
                    let failed = self.fail(&row, &attempt, *explained).await;
                    self.clear_escrow(&row, &attempt, failed.as_ref().err());
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
        deed: Deed,
        attempt: &Attempt,
    ) -> std::result::Result<Arc<Live>, Stop> {
        let refresh_token = old.as_ref().and_then(|tokens| tokens.refresh_token.clone());
        let request = {
            let (endpoint, grant, scope) = request_parts(row, plan, refresh_token.as_ref(), deed)?;
            token_request(endpoint, &plan.client, &grant, scope).map_err(Error::from)
        };
        let request = match request {
            Ok(request) => request,
            Err(error) => return Err(Stop::Failed(Box::new(explain::no_request(&error, self.now_ms())))),
        };

        // 2. SEND: this is the renewal's own task; one connection, one request, no redirect, a deadline shorter than the claim.
        let fetched = match self.egress.fetch(request, Bounds::PROVIDER).await {
            Ok(fetched) => fetched,
            Err(error) => {
                let mut explained = explain::unreachable(&error, self.now_ms());
                if error.what.may_have_arrived() && matches!(plan.rendered.recovery, Recovery::Family) {
                    // Sent a second time, the refresh token could end the grant, and with it the access token that is still good.
                    explained.retry_after = row.token_expires_at.map(|at| left(at, self.now_ms()));
                }
                return Err(Stop::Failed(Box::new(explained)));
            }
        };
        let held = Held {
            connection: row.id.clone(),
            attempt: attempt.id.clone(),
            reply: RawReply {
                generation: row.generation,
                received_at: self.now_ms(),
                status: fetched.status,
                content_type: fetched
                    .headers
                    .get(header::CONTENT_TYPE)
                    .and_then(|v| v.to_str().ok())
                    .map(str::to_owned),
                body: fetched.body,
            },
        };

        // 3. ESCROW. If the disk refuses, the reply still is in memory, and committing it at once is the best that is left.
        let held = self.put_in_escrow(held).await?;

        // 4. COMMIT
        let headers = fetched.headers;
        let read = read_token_reply(
            &plan.rendered.reply,
            held.reply.status,
            &headers,
            held.reply.body.expose(),
            held.reply.received_at,
        );
        let outcome = match read {
            Ok(tokens) => {
                self.commit(row, plan, succeed(old, tokens), held.reply.received_at).await.map_err(Stop::from)
            }
            Err(refused)
                if refused.kind == FailureKind::Grant
                    && deed == Deed::Refresh
                    && plan.rendered.grant != GrantKind::AuthorizationCode =>
            {
                Err(Stop::RunGrantAnew)
            }
            Err(refused) => {
                let secrets: Vec<&Secret> = plan.sensitive().chain(&refresh_token).collect();
                Err(Stop::Failed(Box::new(explain::refusal(
                    deed,
                    &refused,
                    &plan.rendered.known_errors,
                    &secrets,
                    self.now_ms(),
                ))))
            }
        };

        // 5. CLEAR; a refusal's reply once it is recorded.
        match &outcome {
            Ok(_) | Err(Stop::RunGrantAnew) => self.clear_escrow(row, attempt, None),
            Err(Stop::Error(error)) => self.clear_escrow(row, attempt, Some(error)),
            Err(Stop::Failed(_)) => {}
        }
        outcome
    }

    /// Removes a reply that has been dealt with. One that could not be stored stays: it is the only copy, and the next renewal begins with it.
    fn clear_escrow(&self, row: &Connection, attempt: &Attempt, error: Option<&Error>) {
        let not_stored = matches!(error, Some(Error::Store(_) | Error::Vault(_)));
        if not_stored && self.escrow.holds(&row.id, &attempt.id) {
            return self.leave_behind(&row.id, &attempt.id);
        }
        if let Err(error) = self.escrow.clear(&row.id, &attempt.id) {
            tracing::warn!(%error, "a committed reply could not be removed from escrow; it is skipped at the next start");
        }
    }

    /// What the row already has, if it is enough.
    fn already(&self, row: &Connection, wish: Wish) -> Result<Option<Arc<Live>>> {
        let usable = matches!(row.state.status(), Status::Connected | Status::Failing | Status::Reconnect);
        let enough = usable
            && match wish.enough {
                Enough::ValidAt(at) => row.token_expires_at.is_none_or(|expires| expires > at),
                Enough::NewerThan(generation) => row.generation > generation,
            };
        if enough { self.live_of(row) } else { Ok(None) }
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
            ConnectionState::Draft(_) | ConnectionState::Reconnect(_) if !wish.insist => not_ready(None),
            _ => match row.retry_at.map(|at| at - self.now_ms()) {
                Some(wait) if wait > 0 && !wish.insist => not_ready(Some(Duration::from_millis(wait.unsigned_abs()))),
                _ => Ok(()),
            },
        }
    }

    /// Until when somebody else's claim must be respected, Unix milliseconds.
    fn foreign_claim(&self, row: &Connection, plan: &Plan) -> Option<i64> {
        let attempt = row.attempt.as_ref()?;
        let harmful = match plan.rendered.recovery {
            Recovery::SingleUse | Recovery::Family => true,
            Recovery::Static | Recovery::Window(_) | Recovery::UntilUsed | Recovery::AccessDies => false,
        };
        let until = attempt.deadline + if harmful { millis(PATIENCE) } else { 0 };
        (until > self.now_ms()).then_some(until)
    }

    fn new_attempt(&self) -> Attempt {
        Attempt {
            id: AttemptId::new(&self.clock, &self.rng),
            owner: self.instance.clone(),
            deadline: self.now_ms() + millis(CLAIM),
        }
    }

    async fn claim(&self, row: &Connection, attempt: &Attempt) -> Result<bool> {
        let (id, generation, attempt, now) = (row.id.clone(), row.generation, attempt.clone(), self.now_ms());
        Ok(self.store.write(move |tx| tx.claim(&id, generation, &attempt, now)).await?)
    }

    async fn release(&self, row: &Connection, attempt: &Attempt) {
        let (id, attempt) = (row.id.clone(), attempt.id.clone());
        if let Err(error) = self.store.write(move |tx| tx.release(&id, &attempt)).await {
            tracing::warn!(%error, "a claim could not be given back; it ends by itself");
        }
    }

    async fn put_in_escrow(&self, held: Held) -> Result<Held> {
        let broker = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = broker.escrow.put(&broker.vault, &broker.rng, &held) {
                tracing::error!(%error, connection = %held.connection, "a provider's reply could not be put in escrow; it is committed from memory");
            }
            held
        })
        .await
        .map_err(|_| Error::Internal("the escrow's thread ended"))
    }

    /// Step 4: the new token set into the row, repeated until the store has answered.
    async fn commit(&self, row: &Connection, plan: &Plan, tokens: TokenSet, renewed_at: i64) -> Outcome {
        let generation = row.generation + 1;
        let times = self.times(plan, &tokens, row.connected_at, renewed_at);
        let commit = CommitTokens {
            sealed: self.seal_tokens(&row.tenant, row.id.as_str(), generation, &tokens)?,
            expires_at: tokens.expires_at,
            scope: granted_scope(plan, &tokens),
            account: None,
            due_at: times.due_at,
            dies_at: times.dies_at,
            endpoint: endpoint_key(plan),
            now: renewed_at,
        };
        let first = row.connected_at.is_none();
        let event = if first {
            self.event(row, "connected", "The grant was run and the first token received.")
        } else {
            self.event(row, "renewed", "The access token was renewed.")
        };
        let event = Arc::new(event);
        let committed = self
            .until_stored(|| {
                let (id, commit, event, generation) =
                    (row.id.clone(), commit.clone(), Arc::clone(&event), row.generation);
                self.store.write(move |tx| {
                    let committed = tx.commit_tokens(&id, generation, &commit)?;
                    if committed {
                        event.write(tx)?;
                    }
                    Ok(committed)
                })
            })
            .await;
        if !committed {
            return self.came_too_late(row, plan, &tokens).await;
        }
        let live = Arc::new(to_live(row, generation, renewed_at, commit.scope, &tokens));
        self.publish(&live).await;
        self.due.notify_one();
        Ok(live)
    }

    /// The row moved on while the request was under way. A newer token set (of another process, or of a new consent) is the answer, and nothing is
    /// revoked: where a provider holds one grant for a person and a client, that would end the newer one too. On a connection that was ended, the
    /// late token set belongs to nobody.
    async fn came_too_late(&self, row: &Connection, plan: &Plan, tokens: &TokenSet) -> Outcome {
        let id = row.id.clone();
        let newer = self.store.read(move |tx| tx.connection_by_id(&id)).await?;
        let state = newer.as_ref().map_or(Status::Revoked, |newer| newer.state.status());
        if let Some(newer) = newer
            && let Some(live) = self.live_of(&newer)?
        {
            self.publish(&live).await;
            return Ok(live);
        }
        self.revoke_orphan(plan, tokens).await;
        Err(Error::NotReady { connection: row.name.clone(), state, failure: None, retry_after: None })
    }

    /// Repeats a write until the store takes it: what it holds exists nowhere else.
    async fn until_stored<T, F: Future<Output = crate::store::StoreResult<T>>>(&self, write: impl Fn() -> F) -> T {
        let mut pause = Duration::from_millis(50);
        loop {
            match write().await {
                Ok(done) => return done,
                Err(error) => {
                    tracing::error!(%error, "a renewed token set can't be stored yet; it is kept and tried again")
                }
            }
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
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
