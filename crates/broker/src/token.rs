//! Handing out an access token.

use std::sync::Arc;
use std::time::Duration;

use keyholder_oauth::{Secret, SecretBytes};

use crate::clock::millis;
use crate::endpoints::Urgency;
use crate::error::{Error, Result};
use crate::live::Live;
use crate::model::{Caller, Connection, ConnectionId, Grip, Status};
use crate::open::Broker;
use crate::renew::{Enough, RenewalNote, Wish};

/// A token that has this much left is fresh, where the caller asks for nothing else.
const FRESH: Duration = Duration::from_secs(30);
/// A caller with nothing in hand waits this long for a renewal; the renewal goes on without it.
pub(crate) const WAIT: Duration = Duration::from_secs(45);
/// A token that is valid for this much longer reaches the API in time.
const USABLE: Duration = Duration::from_secs(5);
/// A caller whose token is still valid waits this long for a better one.
const WAIT_WITH_VALID: Duration = Duration::from_secs(2);

/// An access token on its way out. Refresh tokens and client secrets have no way out.
#[derive(Clone, Debug)]
pub struct HandedToken {
    /// The token.
    pub access_token: Secret,
    /// `Bearer`, or what the provider said.
    pub token_type: String,
    /// Unix milliseconds; `None`: the provider didn't say.
    pub expires_at: Option<i64>,
    /// Whole seconds left, rounded down.
    pub expires_in: Option<i64>,
    /// Granted scope.
    pub scope: Option<String>,
    /// The connection.
    pub connection: ConnectionId,
    /// Raised by every renewal.
    pub generation: i64,
    /// The name of a secondary token.
    pub token: Option<String>,
}

/// A fresh token that memory holds, written down and on its way out: what nearly every hand-out is.
pub struct AtHand {
    live: Arc<Live>,
    now: i64,
}

impl AtHand {
    /// What `write` makes of the token, once for a token set: it is kept, and wiped, with it.
    pub fn written(&self, write: impl FnOnce(HandedToken) -> SecretBytes) -> &SecretBytes {
        self.live.written.get_or_init(|| write(handed(&self.live, self.now)))
    }

    /// Whole seconds left, rounded down.
    pub fn expires_in(&self) -> Option<i64> {
        expires_in(self.live.expires_at, self.now)
    }
}

impl Broker {
    /// As [`Self::token`], at once, if memory alone can give a fresh token to a caller who may have it; `None` has recorded nothing.
    pub fn token_at_hand(&self, caller: &Arc<Caller>, id_or_name: &str) -> Option<AtHand> {
        let now = self.now_ms();
        // A key whose calls are counted takes its place in [`Self::token`].
        if !self.follower.is_current(now) || !caller.limits.rate.is_unlimited() {
            return None;
        }
        let live = self.live.find(&caller.tenant, id_or_name)?;
        let may = caller.limits.refusal(&live.id, &live.name, Grip::Connection).is_none();
        if !may || !live.is_fresh(None, now) {
            return None;
        }
        // Written down before it leaves.
        self.audit.record_token_at_once(now, caller, &live.id).ok()?;
        self.usage.handed_out(now, caller, &live.id);
        Some(AtHand { live, now })
    }

    /// An access token of a connection, renewed first when less than `min_ttl` (when not given: 30 s, or a quarter of a shorter life) of it is left.
    ///
    /// A token that is still valid is handed out while its renewal fails or is slow. No `min_ttl` asks for more than nine tenths of a token's
    /// whole life: what the provider makes can't be exceeded.
    pub async fn token(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        min_ttl: Option<Duration>,
    ) -> Result<HandedToken> {
        let live = self.live(caller, id_or_name).await?;
        self.require_grip(caller, &live.id, &live.name, Grip::Connection)?;
        let _turn = self.let_in(caller)?;
        let live = self.fresh(live, min_ttl).await?;
        // Written down before it leaves; when that can't be, it doesn't leave.
        let now = self.now_ms();
        self.audit.record_token(now, caller, &live.id, None).await?;
        self.usage.handed_out(now, caller, &live.id);
        Ok(handed(&live, now))
    }

    /// The secondary token `name` of a connection, as [`Self::token`].
    pub async fn secondary_token(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        name: &str,
        min_ttl: Option<Duration>,
    ) -> Result<HandedToken> {
        let live = self.live(caller, id_or_name).await?;
        self.require_grip(caller, &live.id, &live.name, Grip::Connection)?;
        let _turn = self.let_in(caller)?;
        let live = self.fresh_secondary(live, name, min_ttl).await?;
        let token = live.secondary.get(name).ok_or_else(|| Error::not_found("token", name))?;
        let now = self.now_ms();
        self.audit.record_token(now, caller, &live.id, Some(name)).await?;
        self.usage.handed_out(now, caller, &live.id);
        Ok(HandedToken {
            access_token: token.access_token.clone(),
            token_type: token.token_type.clone(),
            expires_at: token.expires_at,
            expires_in: expires_in(token.expires_at, now),
            scope: token.scope.clone(),
            connection: live.id.clone(),
            generation: live.generation,
            token: Some(name.to_owned()),
        })
    }

    /// A token set whose secondary token `name` is valid for `min_ttl` more, or as good as can be had. A renewal makes one token; where several have
    /// ended, those that ended before this one come first.
    pub(crate) async fn fresh_secondary(
        &self,
        mut live: Arc<Live>,
        name: &str,
        min_ttl: Option<Duration>,
    ) -> Result<Arc<Live>> {
        let unknown = || Error::not_found("token", name);
        let held = live.secondary.get(name).ok_or_else(unknown)?;
        // As for the main token: no wish can make every reading a renewal.
        let life = held.expires_at.map_or(i64::MAX, |at| at.saturating_sub(live.renewed_at).max(0));
        let wanted = min_ttl.map_or(millis(FRESH).min(life / 4), |min_ttl| millis(min_ttl).min(life / 10 * 9));
        let wanted_at = self.now_ms().saturating_add(wanted);
        let before = held.access_token.clone();
        for _ in 0..live.secondary.len() {
            let held = live.secondary.get(name).ok_or_else(unknown)?;
            let now = self.now_ms();
            if held.is_valid_at(wanted_at) || !held.access_token.ct_eq(&before) {
                break;
            }
            let patience = if held.is_valid_at(now) { WAIT_WITH_VALID } else { WAIT };
            let wish = Wish { enough: Enough::SecondariesValidAt(wanted_at), urgency: Urgency::Reader };
            live = match self.wait_for(patience, self.renew(&live.id, wish)).await {
                Err(error) if may_serve_old(&error) && held.is_valid_at(self.now_ms()) => return Ok(live),
                renewed => renewed?,
            };
        }
        match live.secondary.get(name).ok_or_else(unknown)?.is_valid_at(self.now_ms()) {
            true => Ok(live),
            false => Err(Error::NotReady {
                connection: live.name.clone(),
                state: Status::Connected,
                failure: None,
                retry_after: None,
            }),
        }
    }

    /// Renews now, because a person or program says so.
    pub async fn refresh(&self, caller: &Caller, id_or_name: &str) -> Result<RenewalNote> {
        let connection = self.find_connection(caller, id_or_name).await?;
        self.record(caller, "connection.refresh", connection.id.as_str(), "ok", None)?;
        let wish = Wish { enough: Enough::NewerThan(connection.generation), urgency: Urgency::Person };
        let renewed = self.wait_for(WAIT, self.renew(&connection.id, wish)).await?;
        Ok(RenewalNote { generation: renewed.generation, expires_at: renewed.expires_at })
    }

    /// The connection's token set as memory has it, loaded first where it hasn't. It may have expired.
    pub(crate) async fn live(&self, caller: &Caller, id_or_name: &str) -> Result<Arc<Live>> {
        if self.follower.is_current(self.now_ms())
            && let Some(live) = self.live.find(&caller.tenant, id_or_name)
        {
            return Ok(live);
        }
        Box::pin(self.loaded(caller, id_or_name)).await
    }

    async fn loaded(&self, caller: &Caller, id_or_name: &str) -> Result<Arc<Live>> {
        if self.is_current().await
            && let Some(live) = self.live.find(&caller.tenant, id_or_name)
        {
            return Ok(live);
        }
        let row = self.find_connection(caller, id_or_name).await?;
        self.live_of_row(&row).await
    }

    /// A row's token set, put into memory. It may have expired.
    pub(crate) async fn live_of_row(&self, row: &Connection) -> Result<Arc<Live>> {
        let usable = matches!(row.state.status(), Status::Connected | Status::Failing | Status::Reconnect);
        match self.live_of(row)?.filter(|_| usable) {
            Some(live) => {
                self.publish(&live).await;
                Ok(live)
            }
            // Nothing in hand: a machine's grant may succeed now; everything else answers why not.
            None => {
                self.wait_for(
                    WAIT,
                    self.renew(&row.id, Wish { enough: Enough::ValidAt(self.now_ms()), urgency: Urgency::Reader }),
                )
                .await
            }
        }
    }

    /// A token set that is valid for `min_ttl` more, or as good as can be had. Without a wish, 30 s are enough, or a quarter of a shorter life: a
    /// token that lives ten seconds must not be renewed at every use. Who has no wish and a valid token doesn't wait: its renewal runs beside.
    pub(crate) async fn fresh(&self, live: Arc<Live>, min_ttl: Option<Duration>) -> Result<Arc<Live>> {
        let now = self.now_ms();
        if live.is_fresh(min_ttl, now) {
            return Ok(live);
        }
        let wish = Wish { enough: Enough::ValidAt(live.wanted_at(min_ttl, now)), urgency: Urgency::Reader };
        if min_ttl.is_none() && live.is_valid_at(now.saturating_add(millis(USABLE).min(live.life() / 10))) {
            self.begin_renewal(&live.id, wish);
            return Ok(live);
        }
        let patience = if live.is_valid_at(now) { WAIT_WITH_VALID } else { WAIT };
        match self.wait_for(patience, self.renew(&live.id, wish)).await {
            Err(error) if may_serve_old(&error) && live.is_valid_at(self.now_ms()) => Ok(live),
            renewed => renewed,
        }
    }

    /// Waits for a renewal, but not longer than this caller can; the renewal itself goes on.
    pub(crate) async fn wait_for(
        &self,
        patience: Duration,
        renewal: impl Future<Output = Result<Arc<Live>>>,
    ) -> Result<Arc<Live>> {
        self.clock.timeout(patience, renewal).await.unwrap_or(Err(Error::StillRenewing))
    }
}

impl Live {
    /// Whether it is as good as is wished, and valid at all.
    pub(crate) fn is_fresh(&self, min_ttl: Option<Duration>, now: i64) -> bool {
        self.is_valid_at(self.wanted_at(min_ttl, now)) && self.is_valid_at(now)
    }

    /// Until when a token must be valid to be fresh.
    fn wanted_at(&self, min_ttl: Option<Duration>, now: i64) -> i64 {
        let life = self.life();
        let wanted = min_ttl.map_or(millis(FRESH).min(life / 4), |min_ttl| millis(min_ttl).min(life / 10 * 9));
        now.saturating_add(wanted)
    }

    /// A token's whole life, in milliseconds.
    fn life(&self) -> i64 {
        self.expires_at.map_or(i64::MAX, |at| at - self.renewed_at).max(0)
    }
}

fn handed(live: &Live, now: i64) -> HandedToken {
    HandedToken {
        access_token: live.access_token.clone(),
        token_type: live.token_type.clone(),
        expires_at: live.expires_at,
        expires_in: expires_in(live.expires_at, now),
        scope: live.scope.clone(),
        connection: live.id.clone(),
        generation: live.generation,
        token: None,
    }
}

fn expires_in(expires_at: Option<i64>, now: i64) -> Option<i64> {
    expires_at.map(|at| (at - now).max(0) / 1000)
}

/// Not after somebody ended the connection on purpose.
fn may_serve_old(error: &Error) -> bool {
    match error {
        // Connected, too: the endpoint's circuit may be open for the sake of others.
        Error::NotReady { state, .. } => matches!(state, Status::Connected | Status::Failing | Status::Reconnect),
        Error::StillRenewing | Error::Store(_) | Error::Fenced(_) => true,
        _ => false,
    }
}
