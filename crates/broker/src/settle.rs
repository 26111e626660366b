//! What is asked once a token set is safe: when it ends, where its reply doesn't say (RFC 7662), and what may have changed at the provider.

use std::sync::Arc;
use std::time::Duration;

use keyholder_oauth::{Introspection, Secret, TokenSet, introspection_request, read_introspection_reply};

use crate::egress::Bounds;
use crate::error::{Error, Result};
use crate::explain::masked_refusal;
use crate::learn::{LEARNT, Learning, Which};
use crate::live::{Live, to_live};
use crate::model::Connection;
use crate::open::Broker;
use crate::plan::Plan;
use crate::renew::granted_scope;
use crate::store::CommitExpiry;

/// Callers wait meanwhile.
const ASKING: Bounds = Bounds { time: Duration::from_secs(5), bytes: 256 << 10 };

impl Broker {
    /// After a token set has been committed to `row` under `generation`: asks for an end that isn't known. Answers the token set with it; whatever fails
    /// leaves things as they were.
    pub(crate) async fn ask_expiry(
        &self,
        row: &Connection,
        plan: &Plan,
        committed: Committed<'_>,
    ) -> Option<Arc<Live>> {
        let Committed { tokens, generation, renewed_at } = committed;
        if tokens.expires_at.is_some() || plan.rendered.introspect.is_none() {
            return None;
        }
        let told = match self.introspect(plan, &tokens.access_token).await {
            Ok(told) => told,
            Err(error) => {
                tracing::debug!(%error, connection = %row.id, "the provider doesn't say when the token ends");
                return None;
            }
        };
        let now = self.now_ms();
        let ends = told.expires_at.filter(|at| told.active && *at > now)?;
        let tokens = TokenSet { expires_at: Some(ends), ..tokens.clone() };
        let times = self.times_since(plan, &tokens, row.connected_at, renewed_at, now);
        let sealed = self.seal_tokens(&row.tenant, row.id.as_str(), generation, &tokens).ok()?;
        let known = CommitExpiry { sealed, expires_at: ends, due_at: times.due_at, dies_at: times.dies_at };
        let id = row.id.clone();
        match self.store.write(move |tx| tx.commit_expiry(&id, generation, &known)).await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                tracing::warn!(%error, connection = %row.id, "when the token ends could not be stored");
                return None;
            }
        }
        let live = Arc::new(to_live(row, generation, renewed_at, granted_scope(plan, &tokens), &tokens));
        self.publish(&live).await;
        Some(live)
    }

    /// Asks the provider about an access token.
    pub(crate) async fn introspect(&self, plan: &Plan, token: &Secret) -> Result<Introspection> {
        let endpoint = plan.rendered.introspect.as_ref().ok_or(Error::Internal("there is no introspection"))?;
        let request = introspection_request(endpoint, &plan.client, token, "access_token", &self.moment())?;
        let reply = self.ask(plan, endpoint, request, ASKING).await?;
        read_introspection_reply(reply.status, &reply.headers, reply.body.expose(), self.now_ms()).map_err(|refused| {
            let secrets: Vec<&Secret> = plan.sensitive().chain([token]).collect();
            Error::NotPossible(masked_refusal(&refused, &secrets).to_string())
        })
    }

    /// Makes the lookups that the definition wants repeated after a renewal. One that fails leaves what was learnt before.
    pub(crate) async fn learn_again(&self, row: &Connection, plan: &Plan, committed: Committed<'_>) {
        if !plan.rendered.lookups.iter().any(|lookup| lookup.refresh) {
            return;
        }
        let learnt = async {
            let integration = self.opened_integration(&row.integration).await?;
            let which = Which::AfterRenewal;
            let (secrets, tokens, traces) = (&plan.secrets, committed.tokens, &plan.traces);
            let learning = self.learn(&integration, &row.variables, secrets, tokens, which, traces).await?;
            let (Learning::Done(learnt) | Learning::Choose { sofar: learnt, .. }) = learning;
            let mut variables = row.variables.clone();
            variables.extend(learnt.into_iter().filter(|(name, _)| name.starts_with(LEARNT)));
            if variables == row.variables {
                return Ok(());
            }
            let (id, generation, before) = (row.id.clone(), committed.generation, row.variables.clone());
            // Somebody may change the connection's own variables at the same time; the next renewal learns again.
            self.store.write(move |tx| tx.put_learnt(&id, generation, &before, &variables)).await?;
            // How the API is called may have been made of it.
            self.live.forget(&row.id);
            Ok::<_, Error>(())
        };
        if let Err(error) = learnt.await {
            tracing::warn!(%error, connection = %row.id, "what the provider tells after a renewal could not be learnt; what was learnt before stays");
        }
    }
}

/// A token set that is in the row.
#[derive(Clone, Copy)]
pub(crate) struct Committed<'a> {
    pub(crate) tokens: &'a TokenSet,
    pub(crate) generation: i64,
    /// When the main token came, Unix milliseconds.
    pub(crate) renewed_at: i64,
}
