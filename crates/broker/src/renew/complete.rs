//! What belongs to a machine's grant before it is used: what the definition exchanges it for, and what the provider tells the first time.

use keyholder_oauth::TokenSet;

use super::Stop;
use super::grant::needs_follow_up;
use crate::error::{Error, Result};
use crate::explain::{self, Deed, Explained};
use crate::learn::{LEARNT, Which};
use crate::model::{Connection, Values};
use crate::open::Broker;
use crate::plan::Plan;

impl Broker {
    /// A machine's grant with all that belongs to it before it is used: what the definition exchanges it for, and, the first time, what the provider tells.
    pub(super) async fn completed(
        &self,
        row: &Connection,
        plan: &Plan,
        deed: Deed,
        tokens: TokenSet,
    ) -> std::result::Result<std::result::Result<Completed, Explained>, Stop> {
        let as_it_is = |tokens| Completed { plan: None, tokens, learnt: None };
        if !matches!(deed, Deed::Machine(_)) || is_complete(plan, row, &tokens) {
            return Ok(Ok(as_it_is(tokens)));
        }
        let unanswered = |error| match error {
            error @ (Error::Store(_) | Error::Vault(_)) => Err(Stop::Unsettled(error)),
            Error::Exchange(failure) => Ok(Err(Explained { failure, retry_after: None })),
            error => Ok(Err(explain::no_request(&error, self.now_ms()))),
        };
        let mut done = as_it_is(tokens);
        if needs_follow_up(plan, &done.tokens) {
            let plan = match self.plan(row, Some(&done.tokens)).await {
                Ok(plan) => plan,
                Err(error) => return unanswered(error),
            };
            done.tokens = match self.exchange_again(&plan, deed, done.tokens).await {
                Ok(tokens) => tokens,
                Err(explained) => return Ok(Err(explained)),
            };
            done.plan = Some(plan);
        }
        if needs_lookups(plan, row) {
            match self.learn_first(row, plan, &done.tokens).await {
                Ok(learnt) => done.learnt = Some(learnt),
                Err(error) => {
                    // Nobody will use it.
                    self.revoke_orphan(plan, &done.tokens).await;
                    return unanswered(error);
                }
            }
        }
        Ok(Ok(done))
    }

    /// What the provider tells with a machine's first token; nobody is there to choose.
    async fn learn_first(&self, row: &Connection, plan: &Plan, tokens: &TokenSet) -> Result<Values> {
        let integration = self.opened_integration(&row.integration).await?;
        let which = Which::AfterConnect;
        let (secrets, traces) = (&plan.secrets, &plan.traces);
        let learning = self.learn(&integration, &row.variables, secrets, tokens, which, traces).await?;
        let learnt = learning.without_a_person(self.now_ms())?;
        let mut variables = row.variables.clone();
        variables.retain(|name, _| !name.starts_with(LEARNT));
        variables.extend(learnt);
        Ok(variables)
    }
}

/// A machine's grant with all that belongs to it.
pub(super) struct Completed {
    /// Rendered with the tokens, where that was needed.
    pub(super) plan: Option<Plan>,
    pub(super) tokens: TokenSet,
    pub(super) learnt: Option<Values>,
}

/// Whether a machine's grant can be used as it came.
pub(crate) fn is_complete(plan: &Plan, row: &Connection, tokens: &TokenSet) -> bool {
    !needs_follow_up(plan, tokens) && !needs_lookups(plan, row)
}

fn needs_lookups(plan: &Plan, row: &Connection) -> bool {
    row.token_set.is_none() && !plan.rendered.lookups.is_empty()
}
