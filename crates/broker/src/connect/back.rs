//! Back from the provider.

use keyholder_oauth::{
    CallbackError, CallbackRules, Expected, FailureKind, Grant, ReceivedCallback, random_token, sha256,
};
use keyholder_provider::{ResponseMode, ValueError};
use url::Url;
use zeroize::Zeroizing;

use super::leave::{ConsentSecrets, consent_place, hex};
use crate::error::{Error, Result};
use crate::explain::sentence;
use crate::model::{ConnectSession, Connection, Consent, Failure, IntegrationId};
use crate::open::Broker;
use crate::vault::Place;

/// Where the browser goes after the callback.
pub enum Finished {
    /// To the application, with a one-time code, or with the error.
    Return(Url),
    /// To the page that asks whether this was the right account, or which one is meant.
    Confirm(String),
}

const UNKNOWN: Error = Error::Gone(
    "this authorization is unknown, already finished, or took longer than ten minutes; begin again (going back or reloading this page doesn't help)",
);

/// A posted answer is kept behind the hash of its ticket, of this length.
const TICKET: usize = 32;
/// The parameter that brings the ticket back.
const TICKET_NAME: &str = "keyholder_ticket";

impl Broker {
    /// The callback: checks it, exchanges the code once, seals the tokens as pending.
    ///
    /// `integration` is what the callback's path names, `browser` the value of the binding cookie.
    pub async fn finish_consent(&self, integration: &str, query: &str, browser: Option<&str>) -> Result<Finished> {
        self.fence.check()?;
        let (rules, _) = self.callback_of(integration).await?;
        let received = ReceivedCallback::parse(query, &rules)?;
        let state_hash = sha256(received.state().as_bytes());
        let consent = self.store.write(move |tx| tx.take_consent(&state_hash)).await?;
        let consent = consent.filter(|consent| self.is_open(consent, integration)).ok_or(UNKNOWN)?;
        let same_browser = browser.is_some_and(|value| {
            // Both are hashes of 256 random bits: comparing them leaks nothing that helps.
            sha256(value.as_bytes()) == consent.browser_hash
        });
        if !same_browser {
            self.give_up(&consent, None).await?;
            return Err(Error::WrongBrowser);
        }
        let (session, connection) = self.of_consent(&consent).await?;
        // In a task of its own: a browser that goes away must not abandon a code that is being exchanged.
        let (broker, query, task) = (self.clone(), query.to_owned(), (consent.clone(), connection, session.clone()));
        let finished = tokio::spawn(async move {
            let (consent, connection, session) = task;
            broker.check_and_exchange(&query, &consent, &connection, &session).await
        });
        match finished.await.map_err(|_| Error::Internal("the code exchange ended without an answer"))? {
            Ok(finished) => Ok(finished),
            Err(error) => self.refused(&consent, &session, error).await,
        }
    }

    /// A callback that the browser posts (OAuth 2.0 Form Post Response Mode). Such a request comes from another site and without
    /// the binding cookie, so the answer is kept, sealed, and the browser sent to the address that it comes back to by GET, with
    /// the cookie. That address holds the state, which is good for one use, and a ticket that only the browser which posted has:
    /// whoever began the consent and had somebody else consent holds the cookie, but not that.
    ///
    /// The first answer of a state counts.
    pub async fn receive_posted(&self, integration: &str, body: &str) -> Result<Url> {
        self.fence.check()?;
        let (rules, mode) = self.callback_of(integration).await?;
        if mode != ResponseMode::FormPost {
            return Err(Error::NotPossible(
                "this provider's definition doesn't say that answers are posted; set `response_mode = \"form_post\"` in its `[callback]`"
                    .to_owned(),
            ));
        }
        let received = ReceivedCallback::parse(body, &rules)?;
        let state_hash = sha256(received.state().as_bytes());
        let consent = self.store.read(move |tx| tx.consent(&state_hash)).await?;
        let consent = consent.filter(|consent| self.is_open(consent, integration)).ok_or(UNKNOWN)?;
        let row = hex(&state_hash);
        let ticket = random_token(self.rng.bytes());
        let mut kept = Zeroizing::new(Vec::with_capacity(TICKET + body.len()));
        kept.extend_from_slice(&sha256(ticket.expose().as_bytes()));
        kept.extend_from_slice(body.as_bytes());
        let sealed = self.vault.seal(&self.rng, &answer_place(&consent, &row), &kept)?;
        if !self.store.write(move |tx| tx.keep_answer(&state_hash, &sealed)).await? {
            return Err(UNKNOWN);
        }
        let pairs = [(rules.state.as_str(), received.state()), (TICKET_NAME, ticket.expose())];
        with_query(&self.redirect_uri(&consent.integration), &pairs)
    }

    /// How callbacks of an integration are read, as far as no consent is known yet.
    async fn callback_of(&self, integration: &str) -> Result<(CallbackRules, ResponseMode)> {
        let found = match integration.parse::<IntegrationId>() {
            Ok(id) => self.store.read(move |tx| tx.integration_by_id(&id)).await?,
            Err(_) => None,
        };
        // A state that is shown at a door that isn't there is spent like one at the wrong door.
        let Some((found, _)) = found else { return Ok((CallbackRules::default(), ResponseMode::Query)) };
        let definition = self.definition_of(&found).await?;
        let method = definition.method(Some(&found.method))?;
        Ok((method.callback_rules(), method.response_mode()))
    }

    fn is_open(&self, consent: &Consent, integration: &str) -> bool {
        consent.expires_at > self.now_ms() && consent.integration.as_str() == integration
    }

    async fn check_and_exchange(
        &self,
        query: &str,
        consent: &Consent,
        connection: &Connection,
        session: &ConnectSession,
    ) -> Result<Finished> {
        self.know_keys([Some(&consent.sealed), consent.answer.as_ref()]).await?;
        let ConsentSecrets { verifier, nonce, mut typed } = self.open_consent(consent)?;
        let integration = self.opened_integration(&consent.integration).await?;
        let callback = self.consent_request(&integration, &typed.variables, &typed.secrets).await?.callback;
        let posted = match &consent.answer {
            Some(answer) => Some(self.vault.open_value(&answer_place(consent, &hex(&consent.state_hash)), answer)?),
            None => None,
        };
        let answer = match &posted {
            Some(kept) => {
                let (ticket, body) = kept.split_at_checked(TICKET).ok_or(UNKNOWN)?;
                let brought = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == TICKET_NAME);
                if brought.is_none_or(|(_, brought)| sha256(brought.as_bytes()) != *ticket) {
                    return Err(Error::WrongBrowser);
                }
                std::str::from_utf8(body).map_err(|_| CallbackError::NotUtf8)?
            }
            None => query,
        };
        let validated = ReceivedCallback::parse(answer, &callback.rules)?.check(&Expected {
            state_sha256: consent.state_hash,
            issuer: consent.issuer.as_deref(),
            issuer_required: consent.issuer_required,
        })?;
        typed.variables.extend(callback.capture(validated.other()).map_err(|error| self.unfit(&error))?);
        let grant = Grant::AuthorizationCode {
            code: validated.code(),
            redirect_uri: &consent.redirect_uri,
            verifier: verifier.as_ref(),
        };
        let tokens = self.exchange_grant(&integration, &typed, &grant).await?;
        let granted = self.settle(connection, &integration, typed, tokens, nonce.as_ref()).await?;
        self.keep_pending(connection, session, consent.browser_hash, granted).await
    }

    fn unfit(&self, error: &ValueError) -> Error {
        Error::Exchange(Failure {
            kind: FailureKind::Setup,
            code: None,
            message: sentence(format!("the provider's answer was refused: {}: {}", error.variable, error.reason)),
            remedy: sentence(error.remedy.clone()),
            at: self.now_ms(),
            next_try_at: None,
        })
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

fn answer_place<'a>(consent: &'a Consent, row: &'a str) -> Place<'a> {
    Place { column: "answer", ..consent_place(&consent.tenant, row) }
}

pub(super) fn with_query(url: &str, pairs: &[(&str, &str)]) -> Result<Url> {
    let mut url = Url::parse(url).map_err(|_| Error::Internal("a stored return URL is no URL"))?;
    url.query_pairs_mut().extend_pairs(pairs);
    Ok(url)
}
