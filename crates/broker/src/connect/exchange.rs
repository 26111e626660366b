//! From a grant to a token set of a known account: the exchange, what follows it, and what the provider then tells.

use keyholder_oauth::{Grant, Secret, TokenEndpoint, TokenSet, read_token_reply, token_request};
use keyholder_provider::FollowUpWhen;

use super::account::account;
use super::confirm::{HeldGrant, OpenChoice};
use super::leave::Typed;
use crate::egress::Bounds;
use crate::error::{Error, Result};
use crate::explain::{self, Deed, sentence};
use crate::learn::{LEARNT, Learning, Which};
use crate::model::{Connection, Failure, Integration, Values};
use crate::open::Broker;
use crate::plan::Plan;
use crate::token_set::succeed;
use keyholder_oauth::{FailureKind, ReplyRules};

/// A grant with what the provider told of it.
pub(super) struct Granted {
    pub(super) held: HeldGrant,
    pub(super) account: Option<String>,
}

impl Broker {
    /// Exchanges a grant, once, and makes the exchange that follows, where there is one.
    pub(super) async fn exchange_grant(
        &self,
        integration: &Integration,
        typed: &Typed,
        grant: &Grant<'_>,
    ) -> Result<TokenSet> {
        let plan = self.plan_for(integration, &typed.variables, typed.secrets.clone(), None).await?;
        let rendered = &plan.rendered;
        let tokens = match grant {
            Grant::RefreshToken { .. } => {
                let scope = rendered.scope.as_deref().filter(|_| rendered.refresh_sends_scope);
                self.ask_for_tokens(&plan, &rendered.refresh, &rendered.refresh_reply, grant, scope).await?
            }
            _ => self.ask_for_tokens(&plan, &rendered.token, &rendered.reply, grant, None).await?,
        };
        self.follow_up(integration, typed, tokens).await
    }

    /// The exchange after the first one (short-lived for long-lived), as the definition wants it.
    async fn follow_up(&self, integration: &Integration, typed: &Typed, first: TokenSet) -> Result<TokenSet> {
        let plan = self.plan_for(integration, &typed.variables, typed.secrets.clone(), Some(&first)).await?;
        let is_due = |when| when == FollowUpWhen::Always || first.refresh_token.is_none();
        let Some(next) = plan.rendered.follow_up.as_ref().filter(|next| is_due(next.when)) else { return Ok(first) };
        match self.ask_for_tokens(&plan, &next.endpoint, &next.reply, &Grant::Own, None).await {
            Ok(second) => Ok(succeed(Some(first), second, self.now_ms())),
            Err(error) => {
                self.revoke_orphan(&plan, &first).await;
                Err(error)
            }
        }
    }

    /// One request for tokens, sent once.
    pub(super) async fn ask_for_tokens(
        &self,
        plan: &Plan,
        endpoint: &TokenEndpoint,
        rules: &ReplyRules,
        grant: &Grant<'_>,
        scope: Option<&str>,
    ) -> Result<TokenSet> {
        let request = token_request(endpoint, &plan.client, grant, scope, &self.moment())?;
        let reply = self.ask(plan, endpoint, request, Bounds::PROVIDER).await.map_err(|error| match error {
            Error::Egress(error) => Error::Exchange(explain::unreachable(&error, self.now_ms()).failure),
            other => other,
        })?;
        read_token_reply(rules, reply.status, &reply.headers, reply.body.expose(), self.now_ms()).map_err(|refused| {
            let own = secrets_of(grant);
            let secrets: Vec<&Secret> = plan.sensitive().chain(&own).collect();
            let deed = if matches!(grant, Grant::RefreshToken { .. }) { Deed::Refresh } else { Deed::Exchange };
            Error::Exchange(explain::refusal(deed, &refused, plan.known(), &secrets, self.now_ms()).failure)
        })
    }

    /// As [`Self::settle`], of a refresh token that somebody brought: if it fails, the token stays theirs.
    pub(super) async fn settle_brought(
        &self,
        integration: &Integration,
        typed: Typed,
        tokens: TokenSet,
    ) -> Result<Granted> {
        let (variables, choice, account) = self.learn_all(integration, &typed, &tokens, None).await?;
        Ok(Granted { held: HeldGrant { tokens, typed: Typed { variables, ..typed }, choice }, account })
    }

    /// Asks the provider for all that has to be known before the grant is used. If that fails, the grant is given back.
    pub(super) async fn settle(
        &self,
        connection: &Connection,
        integration: &Integration,
        typed: Typed,
        tokens: TokenSet,
        nonce: Option<&Secret>,
    ) -> Result<Granted> {
        match self.learn_all(integration, &typed, &tokens, nonce).await {
            Ok((variables, choice, account)) => {
                let typed = Typed { variables, ..typed };
                Ok(Granted { held: HeldGrant { tokens, typed, choice }, account })
            }
            Err(error) => {
                // Nobody will ever confirm it.
                self.revoke_unwanted(connection, typed, &tokens).await;
                Err(error)
            }
        }
    }

    /// The connection's variables with what was learnt, what a person must still choose, and whose account it is.
    pub(super) async fn learn_all(
        &self,
        integration: &Integration,
        typed: &Typed,
        tokens: &TokenSet,
        nonce: Option<&Secret>,
    ) -> Result<(Values, Option<OpenChoice>, Option<String>)> {
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
        let which = Which::AfterConnect;
        let learning = self.learn(integration, &typed.variables, &typed.secrets, tokens, which, &[]).await?;
        let mut variables = typed.variables.clone();
        let choice = match learning {
            Learning::Done(learnt) => {
                variables.retain(|name, _| !name.starts_with(LEARNT));
                variables.extend(learnt);
                None
            }
            Learning::Choose { lookup, saves, options, sofar } => {
                variables.extend(sofar);
                Some(OpenChoice { lookup, saves, options })
            }
        };
        if named.is_some() {
            return Ok((variables, choice, named));
        }
        let plan = self.plan_for(integration, &variables, typed.secrets.clone(), Some(tokens)).await?;
        let account = self.ask_for_account(&plan, tokens).await;
        Ok((variables, choice, account))
    }
}

/// What a grant sends and a refusal must not show.
fn secrets_of(grant: &Grant<'_>) -> Vec<Secret> {
    match grant {
        Grant::AuthorizationCode { code, verifier, .. } => {
            let verifier = verifier.map(|verifier| Secret::new(verifier.expose()));
            std::iter::once((*code).clone()).chain(verifier).collect()
        }
        Grant::RefreshToken { refresh_token } => vec![(*refresh_token).clone()],
        Grant::DeviceCode { device_code } => vec![(*device_code).clone()],
        _ => Vec::new(),
    }
}
