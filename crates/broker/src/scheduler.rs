//! Renewal ahead of need, and sweeping.
//!
//! Work follows what is due: one query for the next due rows, a bounded number of renewals at once at each token endpoint.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::millis;
use crate::endpoints::Urgency;
use crate::error::{Error, Result};
use crate::model::{ConnectSession, ConnectionId, IntegrationId, PendingGrant};
use crate::open::Broker;
use crate::renew::{Enough, Wish};
use crate::store::{StoreResult, Tx};

/// Rows looked at in one go.
const BATCH: i64 = 200;
/// Renewals at once for one integration, and so at most for one of its provider's endpoints.
const AT_ONCE: usize = 8;
/// Renewals of one integration that are handed to a task and wait for their turn; the rest waits in the database.
const WAITING: usize = 1024;
/// A row for which there was no room is looked at again after this.
const NO_ROOM: Duration = Duration::from_secs(5);
/// Revocations at once of grants that nobody confirmed.
const REVOKED_AT_ONCE: usize = 8;
/// Sweeping, and the longest sleep.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// A row whose renewal was just handed to a task is not looked at again before this.
const HANDED_OUT: Duration = Duration::from_secs(60);
/// Kept replies live for a day.
const KEEP_REPLIES: Duration = Duration::from_secs(24 * 3600);

impl Broker {
    /// Renews what is due and sweeps what has expired, until `shutdown`.
    pub async fn run_scheduler(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut swept_at = i64::MIN;
        let handed_out = HandedOut::default();
        let revoking = Arc::new(Semaphore::new(REVOKED_AT_ONCE));
        loop {
            let now = self.now_ms();
            if now.saturating_sub(swept_at) >= millis(SWEEP_EVERY) {
                swept_at = now;
                self.sweep(&revoking)
                    .await
                    .unwrap_or_else(|error| tracing::error!(%error, "sweeping failed; it is tried again"));
            }
            let pause = match self.renew_due(&handed_out).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "what is due could not be read; it is tried again");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = self.due.notified() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    /// Hands every due row to a task, once; answers how long nothing more will be due.
    async fn renew_due(&self, handed_out: &HandedOut) -> Result<Duration> {
        let now = self.now_ms();
        let due = self.store.read(move |tx| tx.due(now, BATCH)).await?;
        let full = due.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        let (mut tickets, mut postponed) = (Vec::new(), Vec::new());
        for (connection, integration, generation) in due {
            let again = match handed_out.take(&connection, &integration) {
                Ok(ticket) => {
                    tickets.push((ticket, generation));
                    HANDED_OUT
                }
                Err(again) => again,
            };
            postponed.push((connection, now + millis(again)));
        }
        // Out of the way of the next look; the renewal sets the real time.
        self.store.write(move |tx| postponed.iter().try_for_each(|(id, at)| tx.postpone(id, *at, now))).await?;
        for (ticket, generation) in tickets {
            self.renew_in_background(ticket, generation);
        }
        if full {
            return Ok(Duration::ZERO);
        }
        let next = self.store.read(|tx| tx.next_due()).await?;
        let wait = next.map_or(millis(SWEEP_EVERY), |next| next - self.now_ms()).clamp(5, millis(SWEEP_EVERY));
        Ok(Duration::from_millis(wait.unsigned_abs()))
    }

    fn renew_in_background(&self, ticket: Ticket, generation: i64) {
        let slots = self.slots(&ticket.integration);
        let broker = self.clone();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_slot) = slots.acquire().await else { return };
            let connection = &ticket.connection;
            let wish = Wish { enough: Enough::NewerThan(generation), urgency: Urgency::Background };
            match broker.renew(connection, wish).await {
                Ok(_) => {}
                // Recorded in the row, with the time of the next attempt; or the process is stopping.
                Err(Error::NotReady { .. } | Error::StillRenewing) => {}
                Err(error) => {
                    tracing::warn!(%error, %connection, "a scheduled renewal did not take place; it is tried again")
                }
            }
        });
    }

    fn slots(&self, integration: &IntegrationId) -> Arc<Semaphore> {
        let mut all = self.endpoint_slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = all.entry(integration.to_string()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        Arc::clone(slots)
    }

    /// Takes away what has expired, has grants revoked that nobody confirmed, commits what waits in escrow.
    async fn sweep(&self, revoking: &Arc<Semaphore>) -> Result<()> {
        let now = self.now_ms();
        self.live.drop_expired(now);
        self.retry_left_behind().await?;
        // In one transaction: what is taken away and what follows from it happen both or not at all.
        let sweep = self.store.write(move |tx| {
            let swept = tx.sweep(now, now - millis(KEEP_REPLIES))?;
            for pending in &swept.unconfirmed {
                noted(&pending.connection, tx.end_consent(&pending.connection, None, now));
            }
            for session in &swept.sessions {
                noted(&session.connection, end_session(tx, session, now));
            }
            Ok(swept.unconfirmed)
        });
        for pending in sweep.await? {
            self.revoke_in_background(pending, revoking);
        }
        Ok(())
    }

    /// A provider may be slow or gone: neither the next renewals nor a stop wait for it.
    fn revoke_in_background(&self, pending: PendingGrant, revoking: &Arc<Semaphore>) {
        let (broker, revoking) = (self.clone(), Arc::clone(revoking));
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_slot) = revoking.acquire().await else { return };
            broker.drop_pending(&pending).await;
        });
    }
}

fn end_session(tx: &Tx<'_>, session: &ConnectSession, now: i64) -> StoreResult<()> {
    if tx.is_awaited(&session.connection)? {
        // Another session of the same connection is still under way.
        return Ok(());
    }
    tx.end_consent(&session.connection, None, now)?;
    let unused = session.made_connection && session.used_at.is_none();
    match tx.connection_by_id(&session.connection)? {
        Some(draft) if unused && draft.connected_at.is_none() => tx.remove_connection(&session.connection),
        _ => Ok(()),
    }
}

/// One row that can't be handled doesn't keep the others.
fn noted(connection: &ConnectionId, done: StoreResult<()>) {
    if let Err(error) = done {
        tracing::error!(%error, %connection, "the end of a consent could not be noted");
    }
}

/// The connections whose renewal waits for its turn or is under way, by integration.
#[derive(Clone, Default)]
struct HandedOut(Arc<Mutex<HashMap<IntegrationId, HashSet<ConnectionId>>>>);

/// A connection's place in [`HandedOut`], given back when its task ends.
struct Ticket {
    connection: ConnectionId,
    integration: IntegrationId,
    of: HandedOut,
}

impl HandedOut {
    /// A ticket, or after which time to look at the row again.
    fn take(&self, connection: &ConnectionId, integration: &IntegrationId) -> std::result::Result<Ticket, Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.entry(integration.clone()).or_default();
        if waiting.contains(connection) {
            return Err(HANDED_OUT);
        }
        if waiting.len() >= WAITING {
            return Err(NO_ROOM);
        }
        waiting.insert(connection.clone());
        Ok(Ticket { connection: connection.clone(), integration: integration.clone(), of: self.clone() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = all.get_mut(&self.integration) {
            waiting.remove(&self.connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Rng};

    #[test]
    fn a_connection_is_handed_out_once_and_an_integration_not_without_bound() {
        let (clock, rng) = (Clock::System, Rng::seeded(1));
        let [integration, other] = [(); 2].map(|()| IntegrationId::new(&clock, &rng));
        let connection = || ConnectionId::new(&clock, &rng);
        let handed_out = HandedOut::default();
        let first = connection();
        let ticket = handed_out.take(&first, &integration);
        assert!(ticket.is_ok());
        assert_eq!(handed_out.take(&first, &integration).err(), Some(HANDED_OUT));
        drop(ticket);
        let _all: Vec<_> = (0..WAITING).map(|_| handed_out.take(&connection(), &integration)).collect();
        assert_eq!(handed_out.take(&first, &integration).err(), Some(NO_ROOM));
        assert!(handed_out.take(&first, &other).is_ok());
    }
}
