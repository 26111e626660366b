//! Renewal ahead of need, and sweeping.
//!
//! Work follows what is due: one query for the next due rows, a bounded number of renewals at once at each token endpoint.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::millis;
use crate::error::{Error, Result};
use crate::model::{ConnectionId, IntegrationId};
use crate::open::Broker;
use crate::renew::{Enough, Wish};

/// Rows looked at in one go.
const BATCH: i64 = 200;
/// Renewals at once for one integration, and so at most for one of its provider's endpoints.
const AT_ONCE: usize = 8;
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
        loop {
            let now = self.now_ms();
            if now.saturating_sub(swept_at) >= millis(SWEEP_EVERY) {
                swept_at = now;
                self.sweep()
                    .await
                    .unwrap_or_else(|error| tracing::error!(%error, "sweeping failed; it is tried again"));
            }
            let pause = match self.renew_due().await {
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

    /// Hands every due row to a task; answers how long nothing more will be due.
    async fn renew_due(&self) -> Result<Duration> {
        let now = self.now_ms();
        let due = self.store.read(move |tx| tx.due(now, BATCH)).await?;
        let full = due.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        for (connection, integration, generation) in due {
            let id = connection.clone();
            let again_at = now + millis(HANDED_OUT);
            // Out of the way of the next look; the renewal sets the real time.
            self.store.write(move |tx| tx.postpone(&id, again_at, now)).await?;
            self.renew_in_background(connection, &integration, generation);
        }
        if full {
            return Ok(Duration::ZERO);
        }
        let next = self.store.read(|tx| tx.next_due()).await?;
        let wait = next.map_or(millis(SWEEP_EVERY), |next| next - self.now_ms()).clamp(5, millis(SWEEP_EVERY));
        Ok(Duration::from_millis(wait.unsigned_abs()))
    }

    fn renew_in_background(&self, connection: ConnectionId, integration: &IntegrationId, generation: i64) {
        let slots = self.slots(integration);
        let broker = self.clone();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_slot) = slots.acquire().await else { return };
            let wish = Wish { enough: Enough::NewerThan(generation), insist: false };
            match broker.renew(&connection, wish).await {
                Ok(_) => {}
                // Recorded in the row, with the time of the next attempt.
                Err(Error::NotReady { .. }) => {}
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

    /// Takes away what has expired, revokes grants nobody confirmed, commits what waits in escrow.
    async fn sweep(&self) -> Result<()> {
        let now = self.now_ms();
        self.live.drop_expired(now);
        self.retry_left_behind().await?;
        let swept = self.store.write(move |tx| tx.sweep(now, now - millis(KEEP_REPLIES))).await?;
        for pending in &swept.unconfirmed {
            self.drop_pending(pending).await;
            let (id, now) = (pending.connection.clone(), self.now_ms());
            self.store.write(move |tx| tx.end_consent(&id, None, now)).await?;
        }
        for session in swept.sessions {
            let now = self.now_ms();
            self.store
                .write(move |tx| {
                    tx.end_consent(&session.connection, None, now)?;
                    let unused = session.made_connection && session.used_at.is_none();
                    match tx.connection_by_id(&session.connection)? {
                        Some(draft) if unused && draft.connected_at.is_none() => {
                            tx.remove_connection(&session.connection)
                        }
                        _ => Ok(()),
                    }
                })
                .await?;
        }
        Ok(())
    }
}
