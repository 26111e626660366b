//! Step 4: the new token set into the row.

use std::sync::Arc;
use std::time::Duration;

use keyholder_oauth::TokenSet;

use super::Outcome;
use super::due::endpoint_key;
use super::grant::granted_scope;
use crate::error::Error;
use crate::live::to_live;
use crate::model::{Connection, Status, Values};
use crate::open::Broker;
use crate::plan::Plan;
use crate::settle::Committed;
use crate::store::CommitTokens;

impl Broker {
    /// Step 4: the new token set into the row, repeated until the store has answered.
    pub(super) async fn commit(&self, row: &Connection, plan: &Plan, new: New) -> Outcome {
        let New { tokens, came_at, is_main, told, learnt } = new;
        let generation = row.generation + 1;
        let renewed_at = row.renewed_at.filter(|_| !is_main).unwrap_or(came_at);
        let times = self.times_since(plan, &tokens, row.connected_at, renewed_at, came_at);
        let commit = CommitTokens {
            sealed: self.seal_tokens(&row.tenant, row.id.as_str(), generation, &tokens)?,
            expires_at: tokens.expires_at,
            scope: granted_scope(plan, &tokens),
            account: None,
            due_at: times.due_at,
            dies_at: times.dies_at,
            endpoint: endpoint_key(plan),
            renewed_at,
            now: came_at,
        };
        let kind = if row.connected_at.is_none() { "connected" } else { "renewed" };
        let event = self.event(row, kind, told);
        let event = Arc::new(event);
        let learnt = learnt.map(|learnt| Arc::new((row.variables.clone(), learnt)));
        let committed = self
            .until_stored(|| {
                let (id, commit, event, generation) =
                    (row.id.clone(), commit.clone(), Arc::clone(&event), row.generation);
                let learnt = learnt.clone();
                self.store.write(move |tx| {
                    let committed = tx.commit_tokens(&id, generation, &commit)?;
                    if committed {
                        if let Some((before, after)) = learnt.as_deref() {
                            tx.put_learnt(&id, generation + 1, before, after)?;
                        }
                        event.write(tx)?;
                    }
                    Ok(committed)
                })
            })
            .await;
        if !committed {
            return self.came_too_late(row, plan, &tokens).await;
        }
        self.usage.renewed(self.now_ms(), &row.tenant, &row.id, true);
        let live = Arc::new(to_live(row, generation, renewed_at, commit.scope, &tokens));
        self.publish(&live).await;
        let committed = Committed { tokens: &tokens, generation, renewed_at };
        let live = self.ask_expiry(row, plan, committed).await.unwrap_or(live);
        if is_main && row.token_set.is_some() {
            self.learn_again(row, plan, committed).await;
        }
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

/// A token set on its way into the row.
pub(super) struct New {
    pub(super) tokens: TokenSet,
    /// When the reply came, Unix milliseconds.
    pub(super) came_at: i64,
    /// The main token was renewed.
    pub(super) is_main: bool,
    /// For the connection's history.
    pub(super) told: String,
    /// The connection's variables with what the provider told.
    pub(super) learnt: Option<Values>,
}

impl New {
    pub(super) fn secondary(tokens: TokenSet, came_at: i64, told: String) -> Self {
        Self { tokens, came_at, is_main: false, told, learnt: None }
    }
}
