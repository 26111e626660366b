//! Renewal ahead of need, and sweeping.
//!
//! Work follows what is due. A look takes the connections that are due soonest; where these are more than it takes, as after an outage, it goes from token endpoint to
//! token endpoint, so that a queue at one keeps no other waiting. An endpoint is given as many renewals as it has room for, and none while its circuit is open: what waits,
//! waits in the database, and nothing is written for waiting.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::{Rng, millis};
use crate::endpoints::{Room, Urgency};
use crate::ends::Warned;
use crate::error::{Error, Result};
use crate::model::{ConnectSession, ConnectionId, PendingGrant};
use crate::open::{Broker, Retention};
use crate::renew::{Enough, Wish};
use crate::store::{Due, StoreResult, Tx};
use crate::usage::HOUR_MS;

/// As many due rows are looked at in one go; where there are more, endpoint by endpoint.
const WINDOW: usize = 512;
/// As many endpoints are looked at in one go.
const PAGE: usize = 500;
/// Renewals handed to tasks at once, over all endpoints.
const AT_WORK: usize = 256;
/// One in so many of the rows that are due soonest is taken, by chance: replicas that look at the same time seldom take the same ones.
const SPREAD: usize = 4;
/// A burst of commits is one look.
const GAP: Duration = Duration::from_millis(100);
/// Where there was no room, and nobody tells when there is.
const NO_ROOM: Duration = Duration::from_secs(1);
/// A row that is still due after its renewal was refused for a reason that is not recorded in it is looked at again after this.
const REFUSED: Duration = Duration::from_secs(60);
/// Device grants that are asked for in one go.
const DEVICES: i64 = 64;
/// Revocations at once of grants that nobody confirmed.
const REVOKED_AT_ONCE: usize = 8;
/// Sweeping, and the longest sleep.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Segments of the audit that one transaction takes away, and most transactions of a sweep: more than the fullest half minute has.
const SEGMENTS: usize = 200;
const PORTIONS: usize = 30;
/// Kept replies live for a day.
const KEEP_REPLIES: Duration = Duration::from_secs(24 * 3600);

impl Broker {
    /// Renews what is due and sweeps what has expired, until `shutdown`.
    pub async fn run_scheduler(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut sweep_at = i64::MIN;
        let mut rounds = Rounds::default();
        let mut warned = Warned::default();
        let revoking = Arc::new(Semaphore::new(REVOKED_AT_ONCE));
        loop {
            let now = self.now_ms();
            // Further away than one interval: the clock was set back.
            if now >= sweep_at || sweep_at > now + millis(SWEEP_EVERY) {
                sweep_at = now + millis(SWEEP_EVERY);
                self.sweep(&revoking)
                    .await
                    .unwrap_or_else(|error| tracing::error!(%error, "sweeping failed; it is tried again"));
                self.warn_ahead(&mut warned).await.unwrap_or_else(
                    |error| tracing::error!(%error, "what ends soon could not be looked up; it is tried again"),
                );
            }
            let wake = self.renew_due(&mut rounds).await.unwrap_or_else(|error| {
                tracing::error!(%error, "what is due could not be read; it is tried again");
                now + millis(NO_ROOM)
            });
            // From now on: the clock went on during the look.
            let pause = wake.min(sweep_at).saturating_sub(self.now_ms()).clamp(0, millis(SWEEP_EVERY));
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                () = self.clock.sleep(Duration::from_millis(pause.unsigned_abs())) => continue,
                () = self.due.notified() => {}
            }
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                () = self.clock.sleep(GAP) => {}
            }
        }
    }

    /// Hands what is due to tasks, as far as there is room; answers until when nothing more will be to do, Unix milliseconds.
    async fn renew_due(&self, rounds: &mut Rounds) -> Result<i64> {
        let now = self.now_ms();
        if self.fence.check().is_err() {
            return Ok(now + millis(SWEEP_EVERY));
        }
        let read = self.store.read(move |tx| {
            let by_database = tx.now_ms()?;
            let (devices, next_device) = tx.device_grants_due(by_database, DEVICES)?;
            let next_device = next_device.map(|at| now.saturating_add(at - by_database));
            Ok((tx.due(now, count(WINDOW))?, tx.next_due(now)?, devices, next_device))
        });
        let (due, next, devices, next_device) = read.await?;
        self.ask_devices(devices);
        let wake = [next, next_device].into_iter().flatten().min().unwrap_or(i64::MAX);
        let mut look = Look { broker: self, now, wake, taken: Vec::new(), rounds };
        if due.len() < WINDOW {
            let mut by_endpoint: BTreeMap<String, Vec<Due>> = BTreeMap::new();
            for row in due {
                by_endpoint.entry(row.endpoint.clone()).or_default().push(row);
            }
            for (endpoint, rows) in by_endpoint {
                let room = look.room(&endpoint);
                look.take(rows, room);
            }
        } else {
            look.page().await?;
        }
        let (wake, taken) = (look.wake, look.taken);
        for (ticket, generation) in taken {
            self.renew_in_background(ticket, generation);
        }
        Ok(wake.clamp(now + millis(GAP), now + millis(SWEEP_EVERY)))
    }

    fn renew_in_background(&self, ticket: Ticket, generation: i64) {
        let broker = self.clone();
        tokio::spawn(async move {
            let wish = Wish { enough: Enough::NewerThan(generation), urgency: Urgency::Background };
            if let Err(error) = broker.renew(&ticket.connection, wish).await {
                broker.was_not_renewed(&ticket, generation, &error).await;
            }
            drop(ticket);
            broker.due.notify_one();
        });
    }

    /// A failure is recorded in the row, with the time of the next attempt. A refusal is not: so that its row isn't looked at again and again, it is moved, once.
    async fn was_not_renewed(&self, ticket: &Ticket, generation: i64, error: &Error) {
        let connection = &ticket.connection;
        if !matches!(error, Error::NotReady { .. } | Error::StillRenewing) {
            tracing::warn!(%error, %connection, "a scheduled renewal did not take place; it is tried again");
        }
        let now = self.now_ms();
        let is_closed = matches!(self.endpoints.room(&ticket.endpoint, now, 0), Room::Closed(_));
        if is_closed || self.stopping.load(Ordering::Relaxed) {
            // The circuit keeps it from being taken.
            return;
        }
        let (id, again) = (connection.clone(), now + millis(REFUSED.mul_f64(0.5 + self.rng.unit() / 2.0)));
        if let Err(error) = self.store.write(move |tx| tx.postpone(&id, generation, again, now)).await {
            tracing::warn!(%error, %connection, "its time could not be moved");
            // The ticket does it meanwhile.
            self.clock.sleep(REFUSED).await;
        }
    }

    /// Takes away what has expired, has grants revoked that nobody confirmed, commits what waits in escrow.
    async fn sweep(&self, revoking: &Arc<Semaphore>) -> Result<()> {
        let now = self.now_ms();
        self.live.drop_expired(now);
        self.allowances.drop_idle(now);
        self.key_gates.drop_idle(now);
        self.egress.drop_idle();
        self.sources.drop_idle();
        self.retry_left_behind().await?;
        self.forget_past(now).await?;
        // In one transaction: what is taken away and what follows from it happen both or not at all.
        let sweep = self.store.write(move |tx| {
            tx.lock_expired(now)?;
            tx.sweep_console(now, now - millis(crate::operator::IDLE))?;
            tx.sweep_sign_in_failures(now - millis(crate::operator::FORGOTTEN))?;
            let swept = tx.sweep(now, now - millis(KEEP_REPLIES))?;
            for pending in &swept.unconfirmed {
                noted(&pending.connection, tx.attempt(|tx| tx.end_consent(&pending.connection, None, now)));
            }
            for session in &swept.sessions {
                noted(&session.connection, tx.attempt(|tx| end_session(tx, session, now)));
            }
            Ok(swept.unconfirmed)
        });
        for pending in sweep.await? {
            self.revoke_in_background(pending, revoking);
        }
        Ok(())
    }

    /// Takes away what is kept no longer, in portions: nobody's commit shall wait for all of it.
    async fn forget_past(&self, now: i64) -> Result<()> {
        let Retention { audit, usage } = self.settings.retention;
        let before = |kept: Duration| now.saturating_sub(millis(kept));
        let (audit, usage) = (audit.map(before), usage.map(before));
        if let Some(before) = usage {
            self.store.write(move |tx| tx.sweep_usage(before.div_euclid(HOUR_MS))).await?;
        }
        let Some(before) = audit else { return Ok(()) };
        for _ in 0..PORTIONS {
            if self.store.write(move |tx| tx.sweep_audit(before, SEGMENTS)).await? < SEGMENTS {
                break;
            }
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
        Some(draft) if unused && draft.connected_at.is_none() => match tx.source_on_connection(&draft.id)? {
            None => tx.remove_connection(&session.connection),
            Some(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

/// One row that can't be handled doesn't keep the others.
fn noted(connection: &ConnectionId, done: StoreResult<()>) {
    if let Err(error) = done {
        tracing::error!(%error, %connection, "the end of a consent could not be noted");
    }
}

/// One look at what is due.
struct Look<'a> {
    broker: &'a Broker,
    now: i64,
    /// When to look again, Unix milliseconds.
    wake: i64,
    taken: Vec<(Ticket, i64)>,
    rounds: &'a mut Rounds,
}

/// What one look leaves to the next.
#[derive(Default)]
struct Rounds {
    handed_out: HandedOut,
    /// The endpoint at which the next page begins.
    at: String,
}

impl Look<'_> {
    /// The next endpoints in turn, and of each that has due rows as many as there is room for.
    async fn page(&mut self) -> Result<()> {
        let (now, from) = (self.now, std::mem::take(&mut self.rounds.at));
        let page = self.broker.store.read(move |tx| tx.due_endpoints(&from, count(PAGE))).await?;
        if page.len() >= PAGE {
            self.begin_next_page_at(page.last().map(|(endpoint, _)| endpoint));
        }
        let mut wanted = Vec::new();
        let mut planned = 0;
        for (endpoint, due_at) in &page {
            if due_at.is_none_or(|at| at > now) {
                continue;
            }
            if self.rounds.handed_out.count() + planned >= AT_WORK {
                self.begin_next_page_at(Some(endpoint));
                break;
            }
            let room = self.room(endpoint);
            if room > 0 {
                planned += room;
                wanted.push((endpoint.clone(), room, self.rounds.handed_out.count_at(endpoint)));
            }
        }
        let rows = self.broker.store.read(move |tx| {
            let rows = |(endpoint, room, held): (String, usize, usize)| {
                Ok((tx.due_at(&endpoint, now, count(room * SPREAD + held + 1))?, room))
            };
            wanted.into_iter().map(rows).collect::<StoreResult<Vec<_>>>()
        });
        for (rows, room) in rows.await? {
            self.take(rows, room);
        }
        Ok(())
    }

    fn begin_next_page_at(&mut self, endpoint: Option<&String>) {
        self.rounds.at = endpoint.cloned().unwrap_or_default();
        self.wake_at(self.now + millis(GAP));
    }

    /// How many renewals the endpoint may be given.
    fn room(&mut self, endpoint: &str) -> usize {
        match self.broker.endpoints.room(endpoint, self.now, self.rounds.handed_out.count_at(endpoint)) {
            Room::Free(0) => {
                self.wake_at(self.now + millis(NO_ROOM));
                0
            }
            Room::Free(free) => free,
            Room::Closed(until) => {
                self.wake_at(until);
                0
            }
        }
    }

    /// Takes up to `room` of an endpoint's rows, by chance among those that are due soonest.
    fn take(&mut self, mut rows: Vec<Due>, room: usize) {
        let handed_out = &self.rounds.handed_out;
        rows.retain(|row| !handed_out.holds(row));
        let room = room.min(AT_WORK.saturating_sub(handed_out.count()));
        if rows.len() > room && room > 0 {
            self.wake = self.wake.min(self.now + millis(NO_ROOM));
        }
        rows.truncate(room * SPREAD);
        for row in pick(rows, room, &self.broker.rng) {
            let generation = row.generation;
            self.taken.push((handed_out.take(row), generation));
        }
    }

    fn wake_at(&mut self, at: i64) {
        self.wake = self.wake.min(at);
    }
}

/// `wanted` of the rows, by chance.
fn pick(mut rows: Vec<Due>, wanted: usize, rng: &Rng) -> Vec<Due> {
    let wanted = wanted.min(rows.len());
    for to in 0..wanted {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small index"
        )]
        let from = to + (rng.unit() * (rows.len() - to) as f64) as usize;
        rows.swap(to, from);
    }
    rows.truncate(wanted);
    rows
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The connections whose renewal is in a task of the scheduler's, by token endpoint.
#[derive(Clone, Default)]
struct HandedOut(Arc<Mutex<HashMap<String, HashSet<ConnectionId>>>>);

/// A connection's place in [`HandedOut`], given back when its task ends.
struct Ticket {
    connection: ConnectionId,
    endpoint: String,
    of: HandedOut,
}

impl HandedOut {
    fn take(&self, row: Due) -> Ticket {
        self.lock().entry(row.endpoint.clone()).or_default().insert(row.id.clone());
        Ticket { connection: row.id, endpoint: row.endpoint, of: self.clone() }
    }

    fn holds(&self, row: &Due) -> bool {
        self.lock().get(&row.endpoint).is_some_and(|held| held.contains(&row.id))
    }

    fn count(&self) -> usize {
        self.lock().values().map(HashSet::len).sum()
    }

    fn count_at(&self, endpoint: &str) -> usize {
        self.lock().get(endpoint).map_or(0, HashSet::len)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<ConnectionId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut all = self.of.lock();
        if let Some(held) = all.get_mut(&self.endpoint) {
            held.remove(&self.connection);
            if held.is_empty() {
                all.remove(&self.endpoint);
            }
        }
    }
}

#[cfg(test)]
mod outage;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn due(endpoint: &str, rng: &Rng) -> Due {
        Due { id: ConnectionId::new(&Clock::System, rng), endpoint: endpoint.to_owned(), generation: 1 }
    }

    #[test]
    fn a_ticket_holds_its_connection_and_nothing_stays_behind() {
        let rng = Rng::seeded(1);
        let handed_out = HandedOut::default();
        let (first, second) = (due("a", &rng), due("b", &rng));
        let tickets = [handed_out.take(first.clone()), handed_out.take(second)];
        assert!(handed_out.holds(&first));
        assert!(!handed_out.holds(&due("a", &rng)));
        assert_eq!((handed_out.count(), handed_out.count_at("a")), (2, 1));
        drop(tickets);
        assert!(handed_out.lock().is_empty());
    }

    #[test]
    fn rows_are_picked_by_chance_each_once() {
        let rng = Rng::seeded(1);
        let rows: Vec<_> = (0..32).map(|_| due("a", &rng)).collect();
        let ids = |rows: Vec<Due>| rows.into_iter().map(|row| row.id.to_string()).collect::<HashSet<_>>();
        let (one, other) = (ids(pick(rows.clone(), 8, &rng)), ids(pick(rows.clone(), 8, &rng)));
        assert_eq!((one.len(), other.len()), (8, 8));
        assert_ne!(one, other);
        assert_eq!(ids(pick(rows.clone(), 99, &rng)), ids(rows));
    }
}
