//! Replies that arrived before a crash: found in escrow, committed before anything new is sent.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderValue, header};
use keyholder_oauth::read_token_reply;

use crate::error::{Error, Result};
use crate::escrow::Answers;
use crate::model::{AttemptId, ConnectionId, Status};
use crate::open::Broker;
use crate::renew::{endpoint_key, granted_scope, is_complete, is_unreadable, lock, reply_rules};
use crate::store::CommitTokens;
use crate::token_set::{succeed, succeed_as};
use crate::vault::VaultError;

impl Broker {
    /// Commits what waits in escrow; answers how many replies were token sets that are now in place.
    ///
    /// Called once, at the start, when no renewal is under way in this process. What can't be committed yet is tried again by
    /// [`Self::retry_left_behind`].
    pub(crate) async fn commit_escrow(&self) -> Result<usize> {
        self.escrow.adopt(&self.vault)?;
        #[cfg(test)]
        if self.settings.points.sabotages(crate::simulation::Sabotage::NoRecovery) {
            return Ok(0);
        }
        for (connection, attempt) in self.escrow.waiting()? {
            self.leave_behind(&connection, &attempt);
        }
        self.retry_left_behind().await
    }

    /// Tries again to commit the replies of a process that died.
    pub(crate) async fn retry_left_behind(&self) -> Result<usize> {
        let connections: BTreeSet<_> = lock(&self.left_behind).keys().cloned().collect();
        let mut recovered = 0;
        for connection in connections {
            match self.commit_left_behind(&connection).await {
                Ok(committed) => recovered += usize::from(committed),
                Err(error) => {
                    tracing::error!(%connection, %error, "a reply in escrow can't be committed yet; it stays there")
                }
            }
        }
        Ok(recovered)
    }

    /// Notes a reply in escrow that comes before the connection's next renewal.
    pub(crate) fn leave_behind(&self, connection: &ConnectionId, attempt: &AttemptId) {
        let mut all = lock(&self.left_behind);
        let attempts = all.entry(connection.clone()).or_default();
        attempts.push(attempt.clone());
        // Ids begin with their time: the oldest reply first.
        attempts.sort();
    }

    /// Replies left behind for this connection come before any new renewal: one of them may hold a newer refresh token than the row.
    pub(crate) async fn commit_left_behind(&self, connection: &ConnectionId) -> Result<bool> {
        if self.fence.state().is_some() {
            // In a copy it may be the live one's, which commits it itself.
            return Ok(false);
        }
        let attempts = lock(&self.left_behind).get(connection).cloned().unwrap_or_default();
        let mut committed = false;
        for attempt in &attempts {
            let left = self.commit_left(connection, attempt).await?;
            if left == Left::Unread {
                continue;
            }
            if left == Left::Committed {
                committed = true;
                self.live.forget(connection);
            }
            if let Err(error) = self.escrow.clear(connection, attempt) {
                // It has been dealt with, and holds nothing up.
                tracing::warn!(%connection, %error, "a reply could not be removed from escrow; it is tried again");
                continue;
            }
            let mut all = lock(&self.left_behind);
            if let Some(left) = all.get_mut(connection) {
                left.retain(|one| one != attempt);
                if left.is_empty() {
                    all.remove(connection);
                }
            }
        }
        Ok(committed)
    }

    async fn commit_left(&self, connection: &ConnectionId, attempt: &AttemptId) -> Result<Left> {
        match self.commit_held(connection, attempt).await {
            // Trying again repairs no damage, and the connection must not stand still for ever.
            Err(error @ (Error::Vault(VaultError::Damaged { .. }) | Error::Internal(_))) => {
                tracing::error!(%connection, %error, "a reply in escrow can't be read; it is set aside");
                self.escrow.set_aside(connection, attempt)?;
                Ok(Left::Obsolete)
            }
            // Another task had dealt with it in between.
            Err(_) if !self.escrow.holds(connection, attempt) => Ok(Left::Obsolete),
            done => done,
        }
    }

    async fn commit_held(&self, connection: &ConnectionId, attempt: &AttemptId) -> Result<Left> {
        let held = self.escrow.open_reply(&self.vault, connection, attempt)?;
        let id = held.connection.clone();
        let Some(row) = self.store.read(move |tx| tx.connection_by_id(&id)).await? else {
            return Ok(Left::Obsolete);
        };
        self.know_keys([row.secrets.as_ref(), row.token_set.as_ref()]).await?;
        // A row of an earlier generation than the reply's comes from a backup: the reply is the newer one all the same.
        if row.generation > held.reply.generation || row.state.status() == Status::Revoked {
            // Committed before the crash, or replaced since.
            return Ok(Left::Obsolete);
        }
        let old = match &row.token_set {
            Some(sealed) => Some(self.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed)?),
            None => None,
        };
        let plan = self.plan(&row, old.as_ref()).await?;
        let mut headers = HeaderMap::new();
        if let Some(value) = held.reply.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        let came_at = held.reply.received_at;
        let rules = reply_rules(&plan, &held.reply.answers);
        let read = read_token_reply(rules, held.reply.status, &headers, held.reply.body.expose(), came_at);
        let tokens = match (read, &held.reply.answers, old) {
            (Ok(tokens), Answers::Secondary(name), Some(old)) => succeed_as(old, name, tokens),
            (Ok(_), Answers::Secondary(_), None) => return Ok(Left::Obsolete),
            // It is not all that belongs to the grant, which needs no person and is run anew.
            (Ok(tokens), Answers::Grant, _) if !is_complete(&plan, &row, &tokens) => return Ok(Left::Obsolete),
            (Ok(tokens), _, old) => succeed(old, tokens, came_at),
            // What is in it may still be found, by a corrected definition.
            (Err(refused), ..) if is_unreadable(&refused) => return Ok(Left::Unread),
            (Err(_), ..) => return Ok(Left::Obsolete),
        };
        let is_main = !matches!(held.reply.answers, Answers::Secondary(_));
        let renewed_at = row.renewed_at.filter(|_| !is_main).unwrap_or(came_at);
        let times = self.times_since(&plan, &tokens, row.connected_at, renewed_at, came_at);
        let commit = CommitTokens {
            sealed: self.seal_tokens(&row.tenant, row.id.as_str(), row.generation + 1, &tokens)?,
            expires_at: tokens.expires_at,
            scope: granted_scope(&plan, &tokens),
            account: None,
            due_at: times.due_at,
            dies_at: times.dies_at,
            endpoint: endpoint_key(&plan),
            renewed_at,
            now: came_at,
        };
        let event = self.event(
            &row,
            "recovered",
            "A reply of the provider that had arrived, but not been stored, was found in escrow and committed; nothing was lost.",
        );
        Ok(self
            .store
            .write(move |tx| {
                let committed = tx.commit_tokens(&row.id, row.generation, &commit)?;
                if committed {
                    event.write(tx)?;
                }
                Ok(if committed { Left::Committed } else { Left::Obsolete })
            })
            .await?)
    }
}

/// What became of a reply that was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It is in the row.
    Committed,
    /// It is in the row already, or something newer is, or it was a refusal.
    Obsolete,
    /// No token is found in it; it is looked at again before the next renewal.
    Unread,
}
