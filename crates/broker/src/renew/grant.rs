//! Which grant gives a new token, and what its request is made of.

use std::time::Duration;

use keyholder_oauth::{Grant, ReplyRules, Secret, TokenEndpoint, TokenSet, read_token_reply, token_request};
use keyholder_provider::{FollowUpWhen, GrantKind, RefreshWith};

use super::Enough;
use crate::egress::Bounds;
use crate::error::{Error, Result, invalid};
use crate::escrow::Answers;
use crate::explain::{self, Deed, Explained};
use crate::model::Connection;
use crate::open::Broker;
use crate::plan::{PASSWORD, Plan};

/// The exchange after a grant must not outlast the patience of those who wait for both.
const FOLLOW_UP: Bounds = Bounds { time: Duration::from_secs(15), ..Bounds::PROVIDER };

/// What to do for a new token.
pub(super) struct Step {
    pub(super) deed: Deed,
    /// What is sent for it; nothing where a grant is run.
    pub(super) token: Option<Secret>,
    /// The secondary token that it renews.
    pub(super) secondary: Option<String>,
}

impl Step {
    /// What its reply answers.
    pub(super) fn answers(&self) -> Answers {
        match (&self.secondary, self.deed) {
            (Some(name), _) => Answers::Secondary(name.clone()),
            (None, Deed::Refresh | Deed::Secondary) => Answers::Refresh,
            (None, Deed::Machine(_) | Deed::Exchange) => Answers::Grant,
        }
    }
}

/// What to do for a new token; `None`: only a person can.
pub(super) fn step(plan: &Plan, old: Option<&TokenSet>, enough: Enough, run_grant_anew: bool) -> Option<Step> {
    if let (Enough::SecondariesValidAt(at), Some(old)) = (enough, old)
        && let Some(step) = secondary_step(old, at)
    {
        return Some(step);
    }
    match (spent_for_renewal(plan, old), plan.rendered.grant) {
        (Some(token), _) if !run_grant_anew => {
            Some(Step { deed: Deed::Refresh, token: Some(token.clone()), secondary: None })
        }
        (_, grant) if grant.needs_a_person() => {
            // The main token can't be renewed, but what was asked for was any renewal.
            secondary_step(old.filter(|_| matches!(enough, Enough::NewerThan(_)))?, i64::MAX)
        }
        (_, machine) => Some(Step { deed: Deed::Machine(machine), token: None, secondary: None }),
    }
}

/// The token that renews: the refresh token, or the access token where that extends itself.
pub(crate) fn spent_for_renewal<'a>(plan: &Plan, tokens: Option<&'a TokenSet>) -> Option<&'a Secret> {
    match plan.rendered.refresh_with {
        RefreshWith::RefreshToken => tokens?.refresh_token.as_ref(),
        RefreshWith::AccessToken => Some(&tokens?.access_token),
    }
}

/// Of the secondary tokens with a refresh token of their own that aren't valid at `at`, the one that ends first is renewed.
fn secondary_step(tokens: &TokenSet, at: i64) -> Option<Step> {
    let ending = tokens.secondary.iter().filter_map(|(name, token)| {
        let refresh_token = token.refresh_token.as_ref()?;
        Some((token.expires_at.filter(|ends| *ends <= at)?, name, refresh_token))
    });
    let (_, name, token) = ending.min_by_key(|(ends, ..)| *ends)?;
    Some(Step { deed: Deed::Secondary, token: Some(token.clone()), secondary: Some(name.clone()) })
}

/// Endpoint, grant and scope of the request.
pub(super) fn request_parts<'a>(
    row: &'a Connection,
    plan: &'a Plan,
    step: &'a Step,
) -> Result<(&'a TokenEndpoint, Grant<'a>, Option<&'a str>)> {
    let scope = plan.rendered.scope.as_deref();
    match (step.deed, &step.token) {
        (Deed::Refresh, Some(token)) => {
            let grant = match plan.rendered.refresh_with {
                RefreshWith::RefreshToken => Grant::RefreshToken { refresh_token: token },
                RefreshWith::AccessToken => Grant::AccessToken { access_token: token },
            };
            Ok((&plan.rendered.refresh, grant, scope.filter(|_| plan.rendered.refresh_sends_scope)))
        }
        // The scope is the main token's.
        (Deed::Secondary, Some(token)) => {
            Ok((&plan.rendered.refresh, Grant::RefreshToken { refresh_token: token }, None))
        }
        (Deed::Machine(GrantKind::Password), _) => {
            let username = row.username.as_deref().ok_or_else(|| missing("username"))?;
            let password = plan.secrets.get(PASSWORD).ok_or_else(|| missing("password"))?;
            Ok((&plan.rendered.token, Grant::Password { username, password }, scope))
        }
        (Deed::Machine(grant), _) => {
            let grant = match grant {
                GrantKind::JwtBearer => Grant::JwtBearer,
                GrantKind::SamlBearer => Grant::SamlBearer,
                GrantKind::TokenExchange => Grant::TokenExchange,
                _ => Grant::ClientCredentials,
            };
            Ok((&plan.rendered.token, grant, scope))
        }
        (Deed::Refresh | Deed::Secondary | Deed::Exchange, _) => Err(Error::Internal("there is nothing to renew with")),
    }
}

/// The rules by which a reply is read.
pub(crate) fn reply_rules<'a>(plan: &'a Plan, answers: &Answers) -> &'a ReplyRules {
    match answers {
        Answers::Refresh | Answers::Secondary(_) => &plan.rendered.refresh_reply,
        Answers::Grant => &plan.rendered.reply,
    }
}

/// Whether what a grant gave is exchanged once more.
pub(super) fn needs_follow_up(plan: &Plan, tokens: &TokenSet) -> bool {
    plan.rendered.follow_up.as_ref().is_some_and(|follow_up| match follow_up.when {
        FollowUpWhen::Always => true,
        FollowUpWhen::MissingRefresh => tokens.refresh_token.is_none(),
    })
}

impl Broker {
    /// Exchanges what a grant gave once more, where the definition says so ([`needs_follow_up`]); `plan` is rendered with `first`.
    pub(super) async fn exchange_again(
        &self,
        plan: &Plan,
        deed: Deed,
        first: TokenSet,
    ) -> std::result::Result<TokenSet, Explained> {
        let Some(follow_up) = &plan.rendered.follow_up else { return Ok(first) };
        let request = token_request(&follow_up.endpoint, &plan.client, &Grant::Own, None, &self.moment())
            .map_err(|error| explain::no_request(&error.into(), self.now_ms()))?;
        let reply = self.ask(plan, &follow_up.endpoint, request, FOLLOW_UP).await;
        let reply = reply.map_err(|error| explain::no_request(&error, self.now_ms()))?;
        let now = self.now_ms();
        match read_token_reply(&follow_up.reply, reply.status, &reply.headers, reply.body.expose(), now) {
            Ok(second) => Ok(crate::token_set::succeed(Some(first), second, now)),
            Err(refused) => {
                let secrets: Vec<&Secret> = plan.sensitive().chain([&first.access_token]).collect();
                Err(explain::refusal(deed, &refused, plan.known(), &secrets, now))
            }
        }
    }
}

fn missing(field: &'static str) -> Error {
    invalid(
        field,
        "the connection has none (ending a connection deletes it)",
        "give it again with `keyholder connection edit` or PATCH /v1/connections/{id}",
    )
}

/// Granted scope; what was asked for where the provider is silent, which RFC 6749 §5.1 lets mean "as asked".
pub(crate) fn granted_scope(plan: &Plan, tokens: &TokenSet) -> Option<String> {
    match &tokens.scope {
        Some(scope) => Some(scope.join(" ")),
        None => Some(plan.rendered.requested_scopes.join(" ")).filter(|scope| !scope.is_empty()),
    }
}
