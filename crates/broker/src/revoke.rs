//! Ending a connection on purpose, at the provider too where it can be told (RFC 7009).

use keyholder_oauth::{Secret, TokenSet, read_revocation_reply, revocation_request};
use keyholder_provider::RevokedToken;

use crate::egress::Bounds;
use crate::error::Result;
use crate::explain::{masked_refusal, sentence};
use crate::manage::{ShownConnection, shown};
use crate::model::{Caller, Connection};
use crate::open::Broker;
use crate::plan::Plan;
use crate::token_set;

/// What became of the grant at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationOutcome {
    /// The provider confirmed.
    Revoked,
    /// The provider has no way to be told; the tokens die by themselves. The person can remove the application in their account there.
    NotOffered,
    /// There was nothing to revoke.
    NothingHeld,
    /// The provider could not be told; why.
    Failed(String),
}

impl RevocationOutcome {
    /// One plain sentence.
    pub fn message(&self) -> String {
        match self {
            RevocationOutcome::Revoked => "The provider confirmed that the grant is revoked.".to_owned(),
            RevocationOutcome::NotOffered => {
                "The provider offers no revocation; the tokens were deleted here and die there by themselves. The person can also remove the application in their account at the provider.".to_owned()
            }
            RevocationOutcome::NothingHeld => "No tokens were held.".to_owned(),
            RevocationOutcome::Failed(why) => {
                format!("The tokens were deleted here, but the provider could not be told: {why} Remove the application in the account at the provider.")
            }
        }
    }
}

/// What the provider will be told when a connection is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationAhead {
    /// This address, without its query, is told.
    At(String),
    /// The provider has no way to be told, as far as is known.
    NotOffered,
    /// There is nothing to revoke.
    NothingHeld,
    /// The settings don't say now; why.
    NotKnown(String),
}

impl RevocationAhead {
    /// In plain words.
    pub fn message(&self) -> String {
        match self {
            RevocationAhead::At(address) => {
                format!("Its tokens are deleted here, and the provider is told at {address} that the grant is over, so that they are worth nothing there either.")
            }
            RevocationAhead::NotOffered => {
                "Its tokens are deleted here. No revocation endpoint of the provider is known, so it is not told: there they stay valid until they end by themselves. To end them at once, remove the application in the account's settings at the provider.".to_owned()
            }
            RevocationAhead::NothingHeld => "It holds no tokens, so the provider has nothing to be told.".to_owned(),
            RevocationAhead::NotKnown(why) => {
                format!("Its tokens are deleted here. Whether the provider can be told isn't known now: {why}")
            }
        }
    }
}

impl Broker {
    /// What the provider will be told when this connection is ended.
    pub async fn revocation_ahead(&self, caller: &Caller, id_or_name: &str) -> Result<RevocationAhead> {
        let connection = self.find_connection(caller, id_or_name).await?;
        let Some(sealed) = &connection.token_set else { return Ok(RevocationAhead::NothingHeld) };
        let tokens = self.open_tokens(&connection.tenant, connection.id.as_str(), connection.generation, sealed)?;
        Ok(match self.plan(&connection, Some(&tokens)).await {
            Ok(Plan { rendered, .. }) => rendered.revoke.map_or(RevocationAhead::NotOffered, |revoke| {
                let url = revoke.endpoint.url;
                RevocationAhead::At(format!("{}{}", url.origin().ascii_serialization(), url.path()))
            }),
            Err(error) => RevocationAhead::NotKnown(sentence(error.to_string())),
        })
    }

    /// Ends a connection: revokes at the provider, forgets tokens and secrets.
    pub async fn revoke(&self, caller: &Caller, id_or_name: &str) -> Result<(ShownConnection, RevocationOutcome)> {
        let connection = self.find_connection(caller, id_or_name).await?;
        let outcome = self.revoke_row(&connection).await?;
        self.record(caller, "connection.revoke", connection.id.as_str(), "ok", Some(outcome.message()))?;
        let integration = self.opened_integration(&connection.integration).await?;
        let after = self.find_connection(caller, connection.id.as_str()).await?;
        Ok((shown(after, &integration), outcome))
    }

    /// Ends it here first, so that nothing is handed out any more, then tells the provider.
    pub(crate) async fn revoke_row(&self, connection: &Connection) -> Result<RevocationOutcome> {
        // The provider would end the live copy's grant with it.
        self.fence.check()?;
        let (id, now) = (connection.id.clone(), self.now_ms());
        let (last, waiting) = self
            .store
            .write(move |tx| {
                // Read in the same transaction: a renewal may have committed since `connection` was read.
                tx.lock_connection(&id)?;
                let last = tx.connection_by_id(&id)?;
                tx.revoke_connection(&id, now)?;
                Ok((last, tx.take_pending_of(&id)?))
            })
            .await?;
        self.live.forget(&connection.id);
        let last = last.as_ref().unwrap_or(connection);
        let tokens = match &last.token_set {
            Some(sealed) => Some(self.open_tokens(&last.tenant, last.id.as_str(), last.generation, sealed)?),
            None => None,
        };
        let plan = match &tokens {
            Some(tokens) => Some(self.plan(last, Some(tokens)).await),
            None => None,
        };
        for pending in waiting {
            self.drop_pending(&pending).await;
        }
        let outcome = match (plan, &tokens) {
            (Some(Ok(plan)), Some(tokens)) => {
                let main = self.revoke_tokens(&plan, tokens).await;
                self.revoke_secondaries(last, &plan, tokens, main).await
            }
            (Some(Err(error)), _) => RevocationOutcome::Failed(sentence(error.to_string())),
            _ => RevocationOutcome::NothingHeld,
        };
        let event =
            self.event(connection, "revoked", format!("The connection was ended on purpose. {}", outcome.message()));
        self.store.write(move |tx| event.write(tx)).await?;
        Ok(outcome)
    }

    /// A token set that belongs to no connection any more: the provider is told, as far as it can be.
    pub(crate) async fn revoke_orphan(&self, plan: &Plan, tokens: &TokenSet) {
        if let RevocationOutcome::Failed(why) = self.revoke_tokens(plan, tokens).await {
            tracing::warn!(why, "a token set that nobody wants could not be revoked at the provider");
        }
    }

    /// The same for each secondary token, as if it were the main one; the first that fails is told.
    async fn revoke_secondaries(
        &self,
        row: &Connection,
        plan: &Plan,
        tokens: &TokenSet,
        main: RevocationOutcome,
    ) -> RevocationOutcome {
        if plan.rendered.revoke.is_none() {
            return main;
        }
        let mut outcome = main;
        for (name, token) in &tokens.secondary {
            let as_main = token_set::as_main(tokens, token);
            // The request may be made of the token.
            let revoked = match self.plan(row, Some(&as_main)).await {
                Ok(plan) => self.revoke_tokens(&plan, &as_main).await,
                Err(error) => RevocationOutcome::Failed(sentence(error.to_string())),
            };
            if let (RevocationOutcome::Failed(why), RevocationOutcome::Revoked) = (revoked, &outcome) {
                outcome = RevocationOutcome::Failed(format!("(the token `{name}`) {why}"));
            }
        }
        outcome
    }

    async fn revoke_tokens(&self, plan: &Plan, tokens: &TokenSet) -> RevocationOutcome {
        if let Err(fenced) = self.fence.check() {
            return RevocationOutcome::Failed(sentence(fenced.to_string()));
        }
        let Some(revoke) = &plan.rendered.revoke else { return RevocationOutcome::NotOffered };
        let (token, hint): (&Secret, &str) = match (revoke.token, &tokens.refresh_token) {
            (RevokedToken::RefreshToken, Some(refresh_token)) => (refresh_token, "refresh_token"),
            _ => (&tokens.access_token, "access_token"),
        };
        let request = match revocation_request(&revoke.endpoint, &plan.client, token, hint, &self.moment()) {
            Ok(request) => request,
            Err(error) => return RevocationOutcome::Failed(sentence(error.to_string())),
        };
        match self.ask(plan, &revoke.endpoint, request, Bounds::PROVIDER).await {
            Err(error) => RevocationOutcome::Failed(sentence(error.to_string())),
            Ok(reply) => {
                match read_revocation_reply(reply.status, &reply.headers, reply.body.expose(), self.now_ms()) {
                    Ok(()) => RevocationOutcome::Revoked,
                    Err(refused) => {
                        let secrets: Vec<&Secret> = plan.sensitive().chain([token]).collect();
                        RevocationOutcome::Failed(sentence(masked_refusal(&refused, &secrets).to_string()))
                    }
                }
            }
        }
    }
}
