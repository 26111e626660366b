//! The person who started completes; anybody else's attempt revokes what was granted.

use std::time::Duration;

use keyholder_oauth::{Secret, TokenSet, random_token, sha256};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::back::{Finished, with_query};
use super::exchange::Granted;
use super::leave::Typed;
use crate::clock::millis;
use crate::error::{Error, Result, invalid};
use crate::learn::LEARNT;
use crate::live::to_live;
use crate::manage::ShownConnection;
use crate::model::{
    Caller, ConnectSession, Connection, ConnectionId, ConnectionState, DeviceGrant, PendingGrant, PendingId, Tenant,
};
use crate::open::Broker;
use crate::renew::{endpoint_key, granted_scope};
use crate::settle::Committed;
use crate::store::{CommitTokens, StoreError, StoreResult, Tx};
use crate::token_set;
use crate::vault::Place;

/// How long a grant waits to be confirmed.
const PENDING_LIFE: Duration = Duration::from_secs(15 * 60);

/// What a waiting grant holds.
pub(crate) struct HeldGrant {
    pub(crate) tokens: TokenSet,
    pub(crate) typed: Typed,
    /// What a person must choose before it can be used.
    pub(crate) choice: Option<OpenChoice>,
}

/// Several items of which a person must choose one.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct OpenChoice {
    /// Name of the lookup that found them.
    pub(crate) lookup: String,
    /// `lookup.NAME` that keeps the choice, without `lookup.`.
    pub(crate) saves: String,
    /// Values with their labels.
    pub(crate) options: Vec<(String, String)>,
}

/// Who completed.
#[derive(Clone, Copy, Debug)]
pub enum CompletedBy {
    /// The person, in the browser that began.
    Browser,
    /// The application, for its own user.
    Application,
    /// The person, on another device (RFC 8628).
    Device,
    /// Whoever brought the refresh token.
    RefreshToken,
}

/// What became of a waiting grant.
pub enum Completed {
    /// The connection is connected. Its name.
    Connected(String),
    /// The person said that it was the wrong account; what was granted is revoked.
    Declined,
}

impl Broker {
    /// Completes for the application: `code` from the return URL, `owner` as the session named it.
    ///
    /// # Errors
    /// Another owner than the session's: what was granted is revoked.
    pub async fn complete(
        &self,
        caller: &Caller,
        id_or_name: &str,
        code: &str,
        owner: Option<&str>,
    ) -> Result<ShownConnection> {
        self.fence.check()?;
        let connection = self.find_connection(caller, id_or_name).await?;
        let pending = self.pending_of_link(code).await?.filter(|pending| pending.connection == connection.id).ok_or(
            Error::Gone("this code is unknown, used, or older than 15 minutes; begin the authorization again"),
        )?;
        let session = self.session_of_pending(&pending).await?;
        if session.return_url.is_none() {
            return Err(Error::Gone("this grant is confirmed by the person in the browser, not by its application"));
        }
        if session.owner.as_deref() != owner {
            self.decline(
                &pending,
                "Somebody else than the person who began tried to complete; what was granted was revoked.",
            )
            .await?;
            self.record(
                caller,
                "connection.complete",
                connection.id.as_str(),
                "refused",
                Some("another owner".to_owned()),
            )?;
            return Err(Error::WrongOwner);
        }
        self.adopt(&pending, CompletedBy::Application).await?;
        self.record(caller, "connection.complete", connection.id.as_str(), "ok", None)?;
        self.connection(caller, connection.id.as_str()).await
    }

    /// The person's answer in the browser: is this the right account?
    pub async fn decide(&self, code: &str, browser: Option<&str>, yes: bool) -> Result<Completed> {
        self.fence.check()?;
        let pending = self
            .pending_of_link(code)
            .await?
            .ok_or(Error::Gone("this confirmation is unknown, already given, or older than 15 minutes; begin again"))?;
        self.check_confirming(&pending, browser).await?;
        let outcome = if yes { "ok" } else { "refused" };
        self.record_person(&pending.tenant, "connection.confirm", pending.connection.as_str(), outcome)?;
        if yes {
            return self.adopt(&pending, CompletedBy::Browser).await.map(Completed::Connected);
        }
        self.decline(&pending, "The person said that this was not the right account; what was granted was revoked.")
            .await?;
        Ok(Completed::Declined)
    }

    /// Only the browser that began may see a grant.
    pub(super) fn check_browser(&self, pending: &PendingGrant, browser: Option<&str>) -> Result<()> {
        match browser {
            Some(value) if sha256(value.as_bytes()) == pending.browser_hash => Ok(()),
            _ => Err(Error::WrongBrowser),
        }
    }

    /// Only the browser that began may confirm a grant, and only where no application completes it for its own user.
    pub(super) async fn check_confirming(&self, pending: &PendingGrant, browser: Option<&str>) -> Result<()> {
        self.check_browser(pending, browser)?;
        if self.session_of_pending(pending).await?.return_url.is_some() {
            return Err(Error::Gone("this grant is completed by the application that asked for it; go back there"));
        }
        Ok(())
    }

    async fn session_of_pending(&self, pending: &PendingGrant) -> Result<ConnectSession> {
        let id = pending.session.clone();
        let found = self.store.read(move |tx| tx.session(&id)).await?;
        found.ok_or(Error::Gone("the session of this grant is over; begin the authorization again"))
    }

    /// The waiting grant of a one-time code.
    pub(crate) async fn pending_of_link(&self, code: &str) -> Result<Option<PendingGrant>> {
        let hash = sha256(code.as_bytes());
        let pending = self.store.read(move |tx| tx.pending_by_code(&hash)).await?;
        self.know_keys([pending.as_ref().map(|pending| &pending.sealed)]).await?;
        Ok(pending.filter(|pending| pending.expires_at > self.now_ms()))
    }

    /// Seals what was granted as a grant that waits for its person, and uses the session up; answers where the browser goes.
    pub(super) async fn keep_pending(
        &self,
        connection: &Connection,
        session: &ConnectSession,
        browser_hash: [u8; 32],
        granted: Granted,
    ) -> Result<Finished> {
        let (code, must_choose) = (random_token(self.rng.bytes()), granted.held.choice.is_some());
        self.store_pending(connection, session, browser_hash, granted, Source::Fresh, Some(&code)).await?;
        self.next_stop(connection, session, &code, must_choose)
    }

    /// The same for a browser that will come by itself, where there is no `code` yet.
    pub(super) async fn store_pending(
        &self,
        connection: &Connection,
        session: &ConnectSession,
        browser_hash: [u8; 32],
        granted: Granted,
        source: Source,
        code: Option<&Secret>,
    ) -> Result<()> {
        let stored = async {
            let id = PendingId::new(&self.clock, &self.rng);
            let pending = PendingGrant {
                sealed: self.seal_pending(&connection.tenant, &id, &granted.held)?,
                id,
                tenant: connection.tenant.clone(),
                connection: connection.id.clone(),
                session: session.id.clone(),
                code_hash: code.map(|code| sha256(code.expose().as_bytes())),
                browser_hash,
                account: granted.account.clone(),
                expires_at: self.now_ms() + millis(PENDING_LIFE),
            };
            let message = "A person consented at the provider; the grant waits to be confirmed.";
            let (event, now) = (self.event(connection, "consented", message), self.now_ms());
            let stored = self.store.write(move |tx| {
                tx.lock_connection(&pending.connection)?;
                if !source.take(tx)? || !tx.use_session(&pending.session, now)? {
                    // Another consent of the same invitation was quicker, or the connection was ended.
                    return Err(StoreError::Taken);
                }
                tx.add_pending(&pending)?;
                event.write(tx)
            });
            match stored.await {
                Err(StoreError::Taken) => Err(Error::Gone("this link was already used; ask for a new one")),
                stored => Ok(stored?),
            }
        };
        if let Err(error) = stored.await {
            // Nobody will ever confirm it.
            let HeldGrant { tokens, typed, .. } = granted.held;
            self.revoke_unwanted(connection, typed, &tokens).await;
            return Err(error);
        }
        Ok(())
    }

    /// A choice and a yes are given here; where an application waits, it completes.
    pub(super) fn next_stop(
        &self,
        connection: &Connection,
        session: &ConnectSession,
        code: &Secret,
        must_choose: bool,
    ) -> Result<Finished> {
        match &session.return_url {
            Some(return_url) if !must_choose => {
                let pairs = [("connection", connection.id.as_str()), ("code", code.expose())];
                Ok(Finished::Return(with_query(return_url, &pairs)?))
            }
            _ => Ok(Finished::Confirm(self.link(code))),
        }
    }

    /// The person's choice among several items, in the browser that began; answers where the browser goes next.
    pub async fn choose(&self, code: &str, browser: Option<&str>, value: &str) -> Result<Finished> {
        self.fence.check()?;
        let pending = self.pending_of_link(code).await?.ok_or(NO_CHOICE)?;
        self.check_browser(&pending, browser)?;
        let HeldGrant { tokens, mut typed, choice } = self.open_pending(&pending)?;
        let choice = choice.ok_or(NO_CHOICE)?;
        if !choice.options.iter().any(|(option, _)| option == value) {
            return Err(invalid("choice", "it is not among what there is to choose from", "choose one of the list"));
        }
        typed.variables.insert(format!("{LEARNT}{}", choice.saves), value.to_owned());
        let (session, connection) = (self.session_of_pending(&pending).await?, self.connection_of(&pending).await?);
        let integration = self.opened_integration(&connection.integration).await?;
        let (variables, choice, account) = self.learn_all(&integration, &typed, &tokens, None).await?;
        let held = HeldGrant { tokens, typed: Typed { variables, ..typed }, choice };
        let sealed = self.seal_pending(&pending.tenant, &pending.id, &held)?;
        // The old code was in an address of ours; who completes gets another.
        let code = random_token(self.rng.bytes());
        let (account, hash) = (account.or(pending.account.clone()), sha256(code.expose().as_bytes()));
        if !self.store.write(move |tx| tx.replace_pending(&pending, &sealed, account.as_deref(), &hash)).await? {
            return Err(NO_CHOICE);
        }
        self.next_stop(&connection, &session, &code, held.choice.is_some())
    }

    /// Puts the waiting token set into the connection; answers the connection's name.
    async fn adopt(&self, pending: &PendingGrant, by: CompletedBy) -> Result<String> {
        let held = self.open_pending(pending)?;
        if held.choice.is_some() {
            return Err(Error::Gone("the person must first choose what shall be connected, in the browser that began"));
        }
        let source = Source::Pending(pending.clone());
        self.connect(&pending.connection, &held, pending.account.as_deref(), &source, by).await
    }

    /// Puts a token set into a connection; answers the connection's name.
    pub(super) async fn connect(
        &self,
        connection: &ConnectionId,
        held: &HeldGrant,
        account: Option<&str>,
        source: &Source,
        by: CompletedBy,
    ) -> Result<String> {
        let HeldGrant { tokens, typed, .. } = held;
        loop {
            let wanted = connection.clone();
            let found = self.store.read(move |tx| tx.connection_by_id(&wanted)).await?;
            let row = found.ok_or(Error::Gone("the connection was removed in the meantime; begin again"))?;
            let integration = self.opened_integration(&row.integration).await?;
            let plan = self.plan_for(&integration, &typed.variables, typed.secrets.clone(), Some(tokens)).await?;
            let now = self.now_ms();
            // A new grant: an old one's age doesn't count.
            let times = self.times(&plan, tokens, None, now);
            let commit = CommitTokens {
                sealed: self.seal_tokens(&row.tenant, row.id.as_str(), row.generation + 1, tokens)?,
                expires_at: tokens.expires_at,
                scope: granted_scope(&plan, tokens),
                account: account.map(str::to_owned),
                due_at: times.due_at,
                dies_at: times.dies_at,
                endpoint: endpoint_key(&plan),
                renewed_at: now,
                now,
            };
            let secrets = self.seal_connection_secrets(&row.tenant, row.id.as_str(), &typed.secrets)?;
            let event = self.event(&row, "connected", connected_message(by, account));
            let (id, generation, taken, variables) =
                (row.id.clone(), row.generation, source.clone(), typed.variables.clone());
            let scope = commit.scope.clone();
            let outcome = self
                .store
                .write(move |tx| {
                    tx.lock_connection(&id)?;
                    // A connection that was ended meanwhile takes nothing any more.
                    let ended = |row: Connection| matches!(row.state, ConnectionState::Revoked);
                    if !taken.is_there(tx)? || tx.connection_by_id(&id)?.is_none_or(ended) {
                        return Err(StoreError::Taken);
                    }
                    if !tx.adopt_tokens(&id, generation, &commit, secrets.as_deref(), &variables)? {
                        return Ok(Adopted::MovedOn);
                    }
                    taken.take(tx)?;
                    event.write(tx)?;
                    Ok(Adopted::Done)
                })
                .await;
            match outcome {
                Ok(Adopted::MovedOn) => {}
                Ok(Adopted::Done) => {
                    let live = to_live(&row, row.generation + 1, now, scope, tokens);
                    self.publish(&std::sync::Arc::new(live)).await;
                    let committed = Committed { tokens, generation: row.generation + 1, renewed_at: now };
                    self.ask_expiry(&row, &plan, committed).await;
                    self.due.notify_one();
                    return Ok(row.name);
                }
                Err(StoreError::Taken) => {
                    return Err(Error::Gone(
                        "this confirmation was already given, or the connection was ended meanwhile",
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a waiting grant away and revokes it at the provider.
    async fn decline(&self, pending: &PendingGrant, message: &str) -> Result<()> {
        let connection = self.connection_of(pending).await?;
        let event = self.event(&connection, "declined", message);
        let (taken, id, now) = (pending.clone(), connection.id.clone(), self.now_ms());
        let was_there = self
            .store
            .write(move |tx| {
                tx.lock_connection(&id)?;
                let was_there = tx.take_pending(&taken)?;
                tx.end_consent(&id, None, now)?;
                event.write(tx)?;
                Ok(was_there)
            })
            .await?;
        if was_there {
            self.drop_pending(pending).await;
        }
        Ok(())
    }

    /// Revokes at the provider what a grant that nobody will confirm holds. Its row is already gone.
    pub(crate) async fn drop_pending(&self, pending: &PendingGrant) {
        let dropped = async {
            let held = self.open_pending(pending)?;
            let connection = self.connection_of(pending).await?;
            self.revoke_unwanted(&connection, held.typed, &held.tokens).await;
            Ok::<_, Error>(())
        };
        if let Err(error) = dropped.await {
            tracing::warn!(%error, connection = %pending.connection, "an unconfirmed grant could not be revoked at the provider");
        }
    }

    /// Revokes at the provider a grant that was made for this connection and will not become its own.
    pub(crate) async fn revoke_unwanted(&self, connection: &Connection, typed: Typed, tokens: &TokenSet) {
        // The request may be made of the token, so each has its plan.
        let secondary = tokens.secondary.values().map(|token| token_set::as_main(tokens, token));
        for tokens in [tokens.clone()].into_iter().chain(secondary) {
            let planned = async {
                let integration = self.opened_integration(&connection.integration).await?;
                self.plan_for(&integration, &typed.variables, typed.secrets.clone(), Some(&tokens)).await
            };
            match planned.await {
                Ok(plan) => self.revoke_orphan(&plan, &tokens).await,
                Err(error) => {
                    tracing::warn!(%error, connection = %connection.id, "an unwanted grant could not be revoked at the provider");
                }
            }
        }
    }

    pub(crate) async fn connection_of(&self, pending: &PendingGrant) -> Result<Connection> {
        let id = pending.connection.clone();
        let found = self.store.read(move |tx| tx.connection_by_id(&id)).await?;
        found.ok_or(Error::Gone("the connection was removed in the meantime; begin again"))
    }

    /// Seals a waiting grant: the token set behind its length, then the typed values with the open choice.
    fn seal_pending(&self, tenant: &Tenant, id: &PendingId, held: &HeldGrant) -> Result<Vec<u8>> {
        let (tokens, typed) = (token_set::write(&held.tokens)?, held.typed.write(held.choice.as_ref())?);
        let mut plain = Zeroizing::new(Vec::with_capacity(8 + tokens.len() + typed.len()));
        plain.extend_from_slice(&(tokens.len() as u64).to_be_bytes());
        plain.extend_from_slice(&tokens);
        plain.extend_from_slice(&typed);
        Ok(self.vault.seal(&self.rng, &pending_place(tenant, id), &plain)?)
    }

    /// Opens what [`Self::seal_pending`] sealed.
    pub(crate) fn open_pending(&self, pending: &PendingGrant) -> Result<HeldGrant> {
        let damaged = || Error::Internal("a sealed pending grant has an unknown form");
        let plain = self.vault.open_value(&pending_place(&pending.tenant, &pending.id), &pending.sealed)?;
        let (length, rest) = plain.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| damaged())?;
        let (tokens, typed) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let (typed, choice) = Typed::read(typed)?;
        Ok(HeldGrant { tokens: token_set::read(tokens)?, typed, choice })
    }
}

const NO_CHOICE: Error =
    Error::Gone("this choice is unknown, already made, or older than 15 minutes; begin the authorization again");

/// Where a grant stood until it becomes a connection's, or waits for its person.
#[derive(Clone)]
pub(super) enum Source {
    /// Nowhere: it has just come.
    Fresh,
    /// Waiting for its person.
    Pending(PendingGrant),
    /// Waiting for the provider's answer.
    Device(DeviceGrant),
}

impl Source {
    fn is_there(&self, tx: &Tx<'_>) -> StoreResult<bool> {
        match self {
            Source::Fresh => Ok(true),
            Source::Pending(pending) => Ok(tx.pending(pending.id.as_str())?.is_some()),
            Source::Device(device) => Ok(tx
                .device_grant(&device.connection)?
                .is_some_and(|it| it.id == device.id && it.ask_at == device.ask_at)),
        }
    }

    fn take(&self, tx: &Tx<'_>) -> StoreResult<bool> {
        match self {
            Source::Fresh => Ok(true),
            Source::Pending(pending) => tx.take_pending(pending),
            Source::Device(device) => tx.take_device_grant(device),
        }
    }
}

enum Adopted {
    Done,
    /// A renewal of the old grant committed in between; read the row again.
    MovedOn,
}

fn connected_message(by: CompletedBy, account: Option<&str>) -> String {
    let who = match by {
        CompletedBy::Browser => "The person confirmed in the browser",
        CompletedBy::Application => "The application completed for its user",
        CompletedBy::Device => "The person consented on another device",
        CompletedBy::RefreshToken => "A refresh token was brought and renewed at once",
    };
    match account {
        Some(account) => format!("{who}; connected as {account}."),
        None => format!("{who}; connected."),
    }
}

fn pending_place<'a>(tenant: &'a Tenant, id: &'a PendingId) -> Place<'a> {
    Place { tenant: tenant.as_str(), table: "pending_grants", row: id.as_str(), column: "sealed", generation: 0 }
}
