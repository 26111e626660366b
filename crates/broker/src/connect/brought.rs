//! A refresh token that was obtained elsewhere: used at once, to prove it.

use keyholder_oauth::{Grant, Secret, sha256};

use super::back::Finished;
use super::confirm::{CompletedBy, Source};
use super::leave::Typed;
use crate::error::{Error, Result, invalid};
use crate::learn::LEARNT;
use crate::model::{Caller, ConnectSession, Connection, Integration};
use crate::open::Broker;

/// The field of forms and of the API.
pub(super) const REFRESH_TOKEN: &str = "refresh_token";

impl Broker {
    /// Authorises a connection with a refresh token that the caller brings. It is renewed at once: whoever else has it may find it spent.
    ///
    /// # Errors
    /// The provider refuses it, or a person would have to choose; the connection stays as it was.
    pub async fn bring_refresh_token(&self, caller: &Caller, id_or_name: &str, refresh_token: &Secret) -> Result<()> {
        let connection = self.find_connection(caller, id_or_name).await?;
        self.fence.check()?;
        let integration = self.opened_integration(&connection.integration).await?;
        if !self.grant_of(&integration).await?.needs_a_person() {
            return Err(invalid(REFRESH_TOKEN, "this method needs none: it runs by itself", "leave it out"));
        }
        check(refresh_token)?;
        let connection = self.revived(connection).await?;
        self.record(caller, "connection.authorize", connection.id.as_str(), "ok", None)?;
        let typed = self.typed_of(&connection)?;
        // In a task of its own: a caller that goes away must not abandon a token that is being spent.
        let (broker, refresh_token) = (self.clone(), refresh_token.clone());
        let brought = tokio::spawn(async move {
            let grant = Grant::RefreshToken { refresh_token: &refresh_token };
            let tokens = broker.exchange_grant(&integration, &typed, &grant).await?;
            let tokens = kept(tokens, &refresh_token);
            let granted = broker.settle_brought(&integration, typed, tokens).await?;
            broker.connect_directly(&connection, granted, Source::Fresh, CompletedBy::RefreshToken).await
        });
        brought.await.map_err(|_| Error::Internal("a refresh token's renewal ended without an answer"))?
    }

    /// The same for a person on a page, who confirms the account in this browser or through the application.
    pub(super) async fn bring_on_page(
        &self,
        integration: &Integration,
        connection: &Connection,
        session: &ConnectSession,
        browser: &Secret,
        typed: Typed,
        refresh_token: Secret,
    ) -> Result<Finished> {
        check(&refresh_token)?;
        let browser_hash = sha256(browser.expose().as_bytes());
        let (broker, integration, connection, session) =
            (self.clone(), integration.clone(), connection.clone(), session.clone());
        let brought = tokio::spawn(async move {
            let grant = Grant::RefreshToken { refresh_token: &refresh_token };
            let tokens = broker.exchange_grant(&integration, &typed, &grant).await?;
            let tokens = kept(tokens, &refresh_token);
            let granted = broker.settle_brought(&integration, typed, tokens).await?;
            broker.keep_pending(&connection, &session, browser_hash, granted).await
        });
        brought.await.map_err(|_| Error::Internal("a refresh token's renewal ended without an answer"))?
    }

    /// A connection's values as they stand, for a grant that asks nobody. What the provider said of the older grant doesn't count, but for what was chosen.
    pub(super) fn typed_of(&self, connection: &Connection) -> Result<Typed> {
        let mut variables = connection.variables.clone();
        variables.retain(|name, _| !name.contains('.') || name.starts_with(LEARNT));
        Ok(Typed { variables, secrets: self.connection_secrets(connection)? })
    }
}

/// A reply without a refresh token leaves the one that was sent (RFC 6749 §6).
fn kept(mut tokens: keyholder_oauth::TokenSet, sent: &Secret) -> keyholder_oauth::TokenSet {
    tokens.refresh_token.get_or_insert_with(|| sent.clone());
    tokens
}

fn check(refresh_token: &Secret) -> Result<()> {
    const LONGEST: usize = 16 << 10;
    let text = refresh_token.expose();
    match text {
        "" => Err(invalid(REFRESH_TOKEN, "it is missing", "paste the refresh token")),
        _ if text.len() > LONGEST || text.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err(invalid(REFRESH_TOKEN, "it is too long, or has spaces or line breaks in it", "paste the token alone"))
        }
        _ => Ok(()),
    }
}
