//! Back from the provider.

use http::{Request, header};
use keyholder_oauth::{
    CallbackError, CallbackRules, Expected, FailureKind, Grant, ReceivedCallback, Secret, SecretBytes, TokenSet,
    ValidatedCallback, Verifier, random_token, read_token_reply, sha256, token_request,
};
use url::Url;

use super::account::{account, described};
use super::leave::{ConsentSecrets, Typed};
use crate::clock::millis;
use crate::egress::Bounds;
use crate::error::{Error, Result};
use crate::explain::{self, Deed, sentence};
use crate::model::{ConnectSession, Connection, Consent, Failure, PendingGrant, PendingId};
use crate::open::Broker;
use crate::store::StoreError;
use crate::token_set::credential;

/// How long a grant waits to be confirmed.
const PENDING_LIFE: std::time::Duration = std::time::Duration::from_secs(15 * 60);

/// Asking for the account's name must not hold up the person.
const ASKING: Bounds = Bounds { time: std::time::Duration::from_secs(5), bytes: 256 << 10 };

/// Where the browser goes after the callback.
pub enum Finished {
    /// To the application, with a one-time code, or with the error.
    Return(Url),
    /// To the page that asks whether this was the right account.
    Confirm(String),
}

impl Broker {
    /// The callback: checks it, exchanges the code once, seals the tokens as pending.
    ///
    /// `integration` is what the callback's path names, `browser` the value of the binding cookie.
    pub async fn finish_consent(&self, integration: &str, query: &str, browser: Option<&str>) -> Result<Finished> {
        self.fence.check()?;
        let received = ReceivedCallback::parse(query, &CallbackRules::default())?;
        let state_hash = sha256(received.state().as_bytes());
        let consent = self
            .store
            .write(move |tx| tx.take_consent(&state_hash))
            .await?
            .filter(|consent| consent.expires_at > self.now_ms() && consent.integration.as_str() == integration)
            .ok_or(Error::Gone(
                "this authorization is unknown, already finished, or took longer than ten minutes; begin again (going back or reloading this page doesn't help)",
            ))?;
        let same_browser = browser.is_some_and(|value| {
            // Both are hashes of 256 random bits: comparing them leaks nothing that helps.
            sha256(value.as_bytes()) == consent.browser_hash
        });
        if !same_browser {
            self.give_up(&consent, None).await?;
            return Err(Error::WrongBrowser);
        }
        let (session, connection) = self.of_consent(&consent).await?;
        match self.check_and_exchange(received, &consent, &connection, &session).await {
            Ok(finished) => Ok(finished),
            Err(error) => self.refused(&consent, &session, error).await,
        }
    }

    async fn check_and_exchange(
        &self,
        received: ReceivedCallback,
        consent: &Consent,
        connection: &Connection,
        session: &ConnectSession,
    ) -> Result<Finished> {
        let callback = received.check(&Expected {
            state_sha256: consent.state_hash,
            issuer: consent.issuer.as_deref(),
            issuer_required: consent.issuer_required,
        })?;
        // In a task of its own: a browser that goes away must not abandon a code that is being exchanged.
        let (broker, consent, connection, session) =
            (self.clone(), consent.clone(), connection.clone(), session.clone());
        tokio::spawn(async move { broker.exchange_code(&callback, &consent, &connection, &session).await })
            .await
            .map_err(|_| Error::Internal("the code exchange ended without an answer"))?
    }

    async fn exchange_code(
        &self,
        callback: &ValidatedCallback,
        consent: &Consent,
        connection: &Connection,
        session: &ConnectSession,
    ) -> Result<Finished> {
        self.know_keys([Some(&consent.sealed)]).await?;
        let ConsentSecrets { verifier, nonce, typed } = self.open_consent(consent)?;
        let tokens = self.tokens_for_code(callback, consent, verifier.as_ref(), &typed).await?;
        let kept = self.keep_pending(consent, connection, session, nonce.as_ref(), &typed, &tokens).await;
        if kept.is_err() {
            // Nobody will ever confirm it.
            self.revoke_unwanted(connection, typed, &tokens).await;
        }
        kept
    }

    /// Seals the tokens as a grant that waits to be confirmed; answers where the browser goes.
    async fn keep_pending(
        &self,
        consent: &Consent,
        connection: &Connection,
        session: &ConnectSession,
        nonce: Option<&Secret>,
        typed: &Typed,
        tokens: &TokenSet,
    ) -> Result<Finished> {
        let named = account(tokens, nonce).map_err(|why| {
            Error::Exchange(Failure {
                kind: FailureKind::Setup,
                code: None,
                message: sentence(why.to_owned()),
                remedy: "If it stays, the provider is misconfigured.".to_owned(),
                at: self.now_ms(),
                next_try_at: None,
            })
        })?;
        let account = match named {
            Some(account) => Some(account),
            None => self.ask_for_account(consent, typed, tokens).await,
        };
        let code = random_token(self.rng.bytes());
        let id = PendingId::new(&self.clock, &self.rng);
        let pending = PendingGrant {
            sealed: self.seal_pending(&consent.tenant, &id, tokens, typed)?,
            id,
            tenant: consent.tenant.clone(),
            connection: connection.id.clone(),
            session: session.id.clone(),
            code_hash: Some(sha256(code.expose().as_bytes())),
            browser_hash: consent.browser_hash,
            account,
            expires_at: self.now_ms() + millis(PENDING_LIFE),
        };
        let event =
            self.event(connection, "consented", "A person consented at the provider; the grant waits to be confirmed.");
        let now = self.now_ms();
        self.store
            .write(move |tx| {
                tx.lock_connection(&pending.connection)?;
                if !tx.use_session(&pending.session, now)? {
                    // Another consent of the same invitation was quicker, or the connection was ended.
                    return Err(StoreError::Taken);
                }
                tx.add_pending(&pending)?;
                event.write(tx)
            })
            .await?;
        Ok(match &session.return_url {
            Some(return_url) => {
                let pairs = [("connection", connection.id.as_str()), ("code", code.expose())];
                Finished::Return(with_query(return_url, &pairs)?)
            }
            None => Finished::Confirm(self.link(&code)),
        })
    }

    async fn tokens_for_code(
        &self,
        callback: &ValidatedCallback,
        consent: &Consent,
        verifier: Option<&Verifier>,
        typed: &Typed,
    ) -> Result<TokenSet> {
        let integration = self.opened_integration(&consent.integration).await?;
        let plan = self.plan_for(&integration, &typed.variables, typed.secrets.clone(), None).await?;
        let grant = Grant::AuthorizationCode { code: callback.code(), redirect_uri: &consent.redirect_uri, verifier };
        let request = token_request(&plan.rendered.token, &plan.client, &grant, None, &self.moment())?;
        let reply = self
            .egress
            .fetch(request, Bounds::PROVIDER)
            .await
            .map_err(|error| Error::Exchange(explain::unreachable(&error, self.now_ms()).failure))?;
        read_token_reply(&plan.rendered.reply, reply.status, &reply.headers, reply.body.expose(), self.now_ms())
            .map_err(|refused| {
                let verifier = verifier.map(|verifier| Secret::new(verifier.expose()));
                let secrets: Vec<&Secret> = plan.sensitive().chain([callback.code()]).chain(&verifier).collect();
                Error::Exchange(
                    explain::refusal(Deed::Exchange, &refused, plan.known(), &secrets, self.now_ms()).failure,
                )
            })
    }

    /// Asks the provider whose account it is: at the userinfo endpoint (OpenID Connect Core §5.3), else by the definition's cheap call. A
    /// provider that doesn't say leaves the person to know.
    async fn ask_for_account(&self, consent: &Consent, typed: &Typed, tokens: &TokenSet) -> Option<String> {
        let integration = self.opened_integration(&consent.integration).await.ok()?;
        let plan = self.plan_for(&integration, &typed.variables, typed.secrets.clone(), Some(tokens)).await.ok()?;
        let api = &plan.rendered.api;
        let verify =
            || Some(format!("{}{}", api.base_url.as_ref()?.as_str().trim_end_matches('/'), api.verify.as_ref()?.path));
        let url = plan.userinfo_endpoint.as_ref().map(ToString::to_string).or_else(verify)?;
        let (name, prefix) = api.header()?;
        let credential = credential(prefix, &tokens.access_token).ok()?;
        let mut request = Request::get(url).header(header::ACCEPT, "application/json");
        for (name, value) in api.headers.iter().filter(|(name, _)| *name != header::ACCEPT) {
            request = request.header(name, value);
        }
        let request = request.header(name, credential).body(SecretBytes::new(Vec::new())).ok()?;
        let reply = self.egress.fetch(request, ASKING).await.ok()?;
        (reply.status == 200).then(|| described(reply.body.expose()))?
    }

    /// The consent came to nothing: recorded, told to the application where it waits for the browser, else shown.
    async fn refused(&self, consent: &Consent, session: &ConnectSession, error: Error) -> Result<Finished> {
        let failure = match &error {
            Error::Exchange(failure) => failure.clone(),
            other => Failure {
                kind: if matches!(other, Error::Callback(CallbackError::Refused { .. })) {
                    FailureKind::Grant
                } else {
                    FailureKind::Setup
                },
                code: match other {
                    Error::Callback(CallbackError::Refused { error, .. }) => Some(error.clone()),
                    _ => None,
                },
                message: sentence(other.to_string()),
                remedy: "Begin the authorization again.".to_owned(),
                at: self.now_ms(),
                next_try_at: None,
            },
        };
        self.give_up(consent, Some(&failure)).await?;
        let Some(return_url) = &session.return_url else { return Err(error) };
        let code = failure.code.as_deref().unwrap_or("server_error");
        let pairs =
            [("connection", consent.connection.as_str()), ("error", code), ("error_description", &failure.message)];
        Ok(Finished::Return(with_query(return_url, &pairs)?))
    }

    async fn give_up(&self, consent: &Consent, why: Option<&Failure>) -> Result<()> {
        let (id, now, why) = (consent.connection.clone(), self.now_ms(), why.cloned());
        let row = consent.connection.clone();
        let Some(connection) = self.store.read(move |tx| tx.connection_by_id(&row)).await? else { return Ok(()) };
        let message = why.as_ref().map_or("A consent came back in another browser and was refused.".to_owned(), |f| {
            format!("{} {}", f.message, f.remedy)
        });
        let event = self.event(&connection, "refused", message);
        Ok(self
            .store
            .write(move |tx| {
                tx.end_consent(&id, why.as_ref(), now)?;
                event.write(tx)
            })
            .await?)
    }

    async fn of_consent(&self, consent: &Consent) -> Result<(ConnectSession, Connection)> {
        let (session, connection) = (consent.session.clone(), consent.connection.clone());
        let found = self.store.read(move |tx| Ok(tx.session(&session)?.zip(tx.connection_by_id(&connection)?))).await?;
        let (session, connection) =
            found.ok_or(Error::Gone("the connection was removed in the meantime; begin again"))?;
        if session.used_at.is_some() {
            return Err(Error::Gone("this link was already used; ask for a new one"));
        }
        Ok((session, connection))
    }
}

fn with_query(url: &str, pairs: &[(&str, &str)]) -> Result<Url> {
    let mut url = Url::parse(url).map_err(|_| Error::Internal("a stored return URL is no URL"))?;
    url.query_pairs_mut().extend_pairs(pairs);
    Ok(url)
}
