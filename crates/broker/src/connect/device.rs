//! A person consents on another device (RFC 8628): they are told a code, and the provider is asked again and again whether they have typed it.
//!
//! The device code is sealed in the store, so that the question goes on after a restart. Whoever moves the time of the next question asks; so one
//! process does, and another takes over when it died.

use std::time::Duration;

use keyholder_oauth::{FailureKind, Grant, Secret, TokenSet, device_request, read_device_reply, sha256};
use keyholder_provider::GrantKind;

use super::back::Finished;
use super::confirm::{CompletedBy, Source};
use super::exchange::Granted;
use super::leave::Typed;
use crate::clock::millis;
use crate::egress::Bounds;
use crate::error::{Error, Result};
use crate::explain::{self, Deed};
use crate::learn::Learning;
use crate::model::{
    Caller, ConnectSession, Connection, DeviceGrant, DeviceGrantId, Failure, Integration, SessionId, Tenant,
};
use crate::open::Broker;
use crate::vault::Place;

/// Nobody else asks for so long after a question was sent: longer than the exchange and the one that may follow it.
const ASKING: Duration = Duration::from_secs(90);
/// The same once there are tokens, while lookups are made. A process that dies then leaves a spent device code.
const SETTLING: Duration = Duration::from_secs(5 * 60);
/// Added to the interval when the provider says `slow_down` (RFC 8628 §3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Between two questions while the provider can't be reached.
const UNREACHABLE: Duration = Duration::from_secs(30);
/// However fast the provider says it may be asked.
const LEAST: Duration = Duration::from_secs(1);
/// No person takes longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// The key of the device code among sealed values; no variable can be named so.
const DEVICE_CODE: &str = "\u{0}device_code";

/// What the person must be told.
#[derive(Clone, Debug)]
pub struct DeviceCode {
    /// What they type.
    pub user_code: String,
    /// Where they type it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// Until when, Unix milliseconds.
    pub expires_at: i64,
    /// How often the provider is asked.
    pub interval: Duration,
}

impl From<&DeviceGrant> for DeviceCode {
    fn from(grant: &DeviceGrant) -> Self {
        Self {
            user_code: grant.user_code.clone(),
            verification_uri: grant.verification_uri.clone(),
            verification_uri_complete: grant.verification_uri_complete.clone(),
            expires_at: grant.expires_at,
            interval: Duration::from_millis(grant.interval_ms.unsigned_abs()),
        }
    }
}

impl Broker {
    /// Asks the provider for a code to tell the person, and begins to wait for them. With `page`, they confirm in that browser.
    pub(super) async fn begin_device(
        &self,
        integration: &Integration,
        connection: &Connection,
        typed: Typed,
        page: Option<(SessionId, [u8; 32])>,
    ) -> Result<DeviceCode> {
        let plan = self.plan_for(integration, &typed.variables, typed.secrets.clone(), None).await?;
        let endpoint = plan.rendered.device.as_ref().ok_or_else(|| {
            Error::NotPossible("this method has no device authorization endpoint; set `device.url`".to_owned())
        })?;
        let request = device_request(endpoint, &plan.client, plan.rendered.scope.as_deref(), &self.moment())?;
        let reply = self.ask(&plan, endpoint, request, Bounds::PROVIDER).await.map_err(|error| match error {
            Error::Egress(error) => Error::Exchange(explain::unreachable(&error, self.now_ms()).failure),
            other => other,
        })?;
        let now = self.now_ms();
        let told = read_device_reply(reply.status, &reply.headers, reply.body.expose(), now).map_err(|refused| {
            let secrets: Vec<&Secret> = plan.sensitive().collect();
            let deed = Deed::Machine(GrantKind::DeviceCode);
            Error::Exchange(explain::refusal(deed, &refused, plan.known(), &secrets, now).failure)
        })?;
        let id = DeviceGrantId::new(&self.clock, &self.rng);
        let mut kept = typed;
        kept.secrets.insert(DEVICE_CODE.to_owned(), told.device_code);
        let interval = told.interval.clamp(LEAST, LONGEST);
        let mut grant = DeviceGrant {
            sealed: self.vault.seal(&self.rng, &place(&connection.tenant, &id), &kept.write(None)?)?,
            id,
            tenant: connection.tenant.clone(),
            connection: connection.id.clone(),
            integration: integration.id.clone(),
            page,
            user_code: told.user_code.chars().filter(|c| !c.is_control()).take(200).collect(),
            verification_uri: told.verification_uri.into(),
            verification_uri_complete: told.verification_uri_complete.map(Into::into),
            interval_ms: millis(interval),
            ask_at: 0,
            expires_at: told.expires_at.min(now + millis(LONGEST)),
        };
        let code = DeviceCode::from(&grant);
        self.store
            .write(move |tx| {
                tx.lock_connection(&grant.connection)?;
                grant.ask_at = tx.now_ms()?.saturating_add(grant.interval_ms);
                tx.put_device_grant(&grant)?;
                tx.begin_consent(&grant.connection, now)
            })
            .await?;
        self.due.notify_one();
        Ok(code)
    }

    /// Begins to ask for each of these, in the background.
    pub(crate) fn ask_devices(&self, due: Vec<DeviceGrant>) {
        for seen in due {
            let broker = self.clone();
            tokio::spawn(async move {
                let connection = seen.connection.clone();
                if let Err(error) = broker.ask_device(seen).await {
                    tracing::warn!(%error, %connection, "a device grant could not be asked for; it is tried again");
                }
                broker.due.notify_one();
            });
        }
    }

    /// Asks for each whose time has come, and waits for the answers: for who runs no scheduler.
    pub async fn ask_devices_once(&self) -> Result<()> {
        let due = self.store.read(|tx| tx.device_grants_due(tx.now_ms()?, i64::from(u8::MAX))).await?.0;
        for seen in due {
            self.ask_device(seen).await?;
        }
        Ok(())
    }

    /// One question.
    async fn ask_device(&self, seen: DeviceGrant) -> Result<()> {
        let Some(grant) = self.move_device(seen, ASKING, None).await? else { return Ok(()) };
        // First of all: one that can't be opened must not be asked for for ever.
        if grant.expires_at <= self.now_ms() {
            return self.end_device(&grant, expired(self.now_ms())).await;
        }
        self.know_keys([Some(&grant.sealed)]).await?;
        let plain = self.vault.open_value(&place(&grant.tenant, &grant.id), &grant.sealed)?;
        let (mut typed, _) = Typed::read(&plain)?;
        let device_code =
            typed.secrets.remove(DEVICE_CODE).ok_or(Error::Internal("a sealed device grant has an unknown form"))?;
        let exchanged = async {
            let integration = self.opened_integration(&grant.integration).await?;
            let tokens =
                self.exchange_grant(&integration, &typed, &Grant::DeviceCode { device_code: &device_code }).await?;
            Ok::<_, Error>((integration, tokens))
        };
        let failure = match exchanged.await {
            Ok((integration, tokens)) => return self.device_answered(grant, &integration, typed, tokens).await,
            Err(Error::Exchange(failure)) => failure,
            Err(error) => {
                self.move_device(grant, UNREACHABLE, None).await?;
                return Err(error);
            }
        };
        let interval = Duration::from_millis(grant.interval_ms.unsigned_abs());
        let left = Duration::from_millis((grant.expires_at - self.now_ms()).max(0).unsigned_abs());
        match (failure.code.as_deref(), failure.kind) {
            (Some("authorization_pending"), _) => self.move_device(grant, interval.min(left), None).await.map(drop),
            (Some("slow_down"), _) => {
                let slower = interval.saturating_add(SLOWER);
                self.move_device(grant, slower.min(left), Some(slower)).await.map(drop)
            }
            (Some("expired_token"), _) => self.end_device(&grant, expired(self.now_ms())).await,
            (_, FailureKind::Transient) => {
                self.move_device(grant, interval.max(UNREACHABLE).min(left), None).await.map(drop)
            }
            _ => self.end_device(&grant, failure).await,
        }
    }

    /// Sets the time of the next question from now; `None`: another process has it, or it was given up.
    async fn move_device(
        &self,
        seen: DeviceGrant,
        wait: Duration,
        interval: Option<Duration>,
    ) -> Result<Option<DeviceGrant>> {
        let interval_ms = interval.map_or(seen.interval_ms, millis);
        let moved = self.store.write(move |tx| {
            let ask_at = tx.now_ms()?.saturating_add(millis(wait.max(LEAST)));
            let moved = tx.move_device_grant(&seen, ask_at, interval_ms)?;
            Ok(moved.then_some(DeviceGrant { ask_at, interval_ms, ..seen }))
        });
        Ok(moved.await?)
    }

    /// The person said yes: what was granted waits for them in their browser, or, where the API asked, is the connection's.
    async fn device_answered(
        &self,
        grant: DeviceGrant,
        integration: &Integration,
        typed: Typed,
        tokens: TokenSet,
    ) -> Result<()> {
        let row = grant.connection.clone();
        let found = self.store.read(move |tx| tx.connection_by_id(&row)).await?;
        let connection = found.ok_or(Error::Gone("the connection was removed in the meantime"))?;
        let Some(grant) = self.move_device(grant, SETTLING, None).await? else {
            self.revoke_unwanted(&connection, typed, &tokens).await;
            return Ok(());
        };
        let settled = self.settle(&connection, integration, typed, tokens, None).await;
        let done = match settled {
            Ok(granted) => self.device_settled(&grant, &connection, granted).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Error::Exchange(failure)) => self.end_device(&grant, failure).await,
            Err(error) => {
                let failure = explain::no_request(&error, self.now_ms()).failure;
                self.end_device(&grant, failure).await?;
                Err(error)
            }
        }
    }

    async fn device_settled(&self, grant: &DeviceGrant, connection: &Connection, granted: Granted) -> Result<()> {
        let source = Source::Device(grant.clone());
        if let Some((session, browser_hash)) = &grant.page {
            let id = session.clone();
            let session = self.store.read(move |tx| tx.session(&id)).await?;
            let session = session.ok_or(Error::Gone("the session of this grant is over; begin again"))?;
            return self.store_pending(connection, &session, *browser_hash, granted, source, None).await;
        }
        self.connect_directly(connection, granted, source, CompletedBy::Device).await
    }

    /// It came to nothing.
    async fn end_device(&self, grant: &DeviceGrant, why: Failure) -> Result<()> {
        let (grant, now) = (grant.clone(), self.now_ms());
        let row = grant.connection.clone();
        let Some(connection) = self.store.read(move |tx| tx.connection_by_id(&row)).await? else { return Ok(()) };
        let event = self.event(&connection, "refused", format!("{} {}", why.message, why.remedy));
        let ended = self.store.write(move |tx| {
            tx.lock_connection(&grant.connection)?;
            if tx.take_device_grant(&grant)? {
                tx.end_consent(&grant.connection, Some(&why), now)?;
                event.write(tx)?;
            }
            Ok(())
        });
        Ok(ended.await?)
    }

    /// What a page of this session shows of a device grant: the code, in the browser that asked for it.
    pub(super) async fn device_of_page(
        &self,
        session: &ConnectSession,
        browser: Option<&str>,
    ) -> Result<Option<DeviceCode>> {
        let connection = session.connection.clone();
        let found = self.store.read(move |tx| tx.device_grant(&connection)).await?;
        let hash = browser.map(|value| sha256(value.as_bytes()));
        let is_theirs = |grant: &DeviceGrant| match (&grant.page, hash) {
            (Some((of, browser_hash)), Some(hash)) => *of == session.id && *browser_hash == hash,
            _ => false,
        };
        Ok(found.filter(is_theirs).as_ref().map(DeviceCode::from))
    }

    /// Where the browser of a session goes whose person has said yes on the other device.
    pub(super) async fn after_device(&self, token: &str, browser: Option<&str>) -> Result<Option<Finished>> {
        let hash = sha256(token.as_bytes());
        let found = self.store.read(move |tx| {
            let Some(session) = tx.session_by_token(&hash)? else { return Ok(None) };
            let pending = tx.pending_of_session(&session.id)?;
            Ok(pending.map(|pending| (session, pending)))
        });
        let Some((session, pending)) = found.await? else { return Ok(None) };
        if pending.code_hash.is_some() || pending.expires_at <= self.now_ms() {
            return Ok(None);
        }
        self.check_browser(&pending, browser)?;
        self.know_keys([Some(&pending.sealed)]).await?;
        let must_choose = self.open_pending(&pending)?.choice.is_some();
        let connection = self.connection_of(&pending).await?;
        let code = keyholder_oauth::random_token(self.rng.bytes());
        let code_hash = sha256(code.expose().as_bytes());
        if !self.store.write(move |tx| tx.name_pending(&pending, &code_hash)).await? {
            return Ok(None);
        }
        self.next_stop(&connection, &session, &code, must_choose).map(Some)
    }

    /// Gives up the authorization that is under way: links, consents and device codes are worth nothing afterwards, and what
    /// nobody has confirmed is revoked. A connection that is connected stays so.
    pub async fn cancel_authorization(&self, caller: &Caller, id_or_name: &str) -> Result<()> {
        self.fence.check()?;
        let connection = self.find_connection(caller, id_or_name).await?;
        let event = self.event(&connection, "cancelled", "The authorization under way was given up.");
        let (id, now) = (connection.id.clone(), self.now_ms());
        let waiting = self.store.write(move |tx| {
            tx.lock_connection(&id)?;
            let waiting = tx.take_pending_of(&id)?;
            if tx.forget_invitations(&id)? || !waiting.is_empty() {
                event.write(tx)?;
            }
            tx.end_consent(&id, None, now)?;
            Ok(waiting)
        });
        for pending in waiting.await? {
            self.know_keys([Some(&pending.sealed)]).await?;
            self.drop_pending(&pending).await;
        }
        self.record(caller, "connection.cancel", connection.id.as_str(), "ok", None)
    }

    /// Puts a grant into its connection that no browser waits for.
    pub(super) async fn connect_directly(
        &self,
        connection: &Connection,
        granted: Granted,
        source: Source,
        by: CompletedBy,
    ) -> Result<()> {
        let Granted { held, account } = granted;
        // What somebody brought may be in use elsewhere, and stays theirs.
        let is_brought = matches!(source, Source::Fresh);
        if let Some(choice) = held.choice {
            if !is_brought {
                self.revoke_unwanted(connection, held.typed, &held.tokens).await;
            }
            let open = Learning::Choose {
                lookup: choice.lookup,
                saves: choice.saves,
                options: choice.options,
                sofar: Default::default(),
            };
            return open.without_a_person(self.now_ms()).map(drop);
        }
        let connected = self.connect(&connection.id, &held, account.as_deref(), &source, by).await.map(drop);
        if connected.is_err() && !is_brought {
            self.revoke_unwanted(connection, held.typed, &held.tokens).await;
        }
        connected
    }
}

fn expired(now: i64) -> Failure {
    Failure {
        kind: FailureKind::Grant,
        code: Some("expired_token".to_owned()),
        message: "Nobody typed the code at the provider in time.".to_owned(),
        remedy: "Begin the authorization again.".to_owned(),
        at: now,
        next_try_at: None,
    }
}

fn place<'a>(tenant: &'a Tenant, id: &'a DeviceGrantId) -> Place<'a> {
    Place { tenant: tenant.as_str(), table: "device_grants", row: id.as_str(), column: "sealed", generation: 0 }
}
