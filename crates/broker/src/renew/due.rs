//! When a token set is renewed, and when it dies.

use keyholder_oauth::TokenSet;
use keyholder_provider::GrantKind;

use crate::open::Broker;
use crate::plan::Plan;

/// The times of a token set, Unix milliseconds.
pub(crate) struct Times {
    /// When the scheduler renews. `None` where only use or a person can tell.
    pub(crate) due_at: Option<i64>,
    /// When the refresh token dies. `None`: not known, or never.
    pub(crate) dies_at: Option<i64>,
}

impl Broker {
    /// Due: expiry − min(15 min, half the life), spread a little earlier by jitter.
    pub(crate) fn times(&self, plan: &Plan, tokens: &TokenSet, _connected_at: Option<i64>, now: i64) -> Times {
        let none = Times { due_at: None, dies_at: None };
        let Some(expires) = tokens.expires_at else { return none };
        if tokens.refresh_token.is_none() && plan.rendered.grant == GrantKind::AuthorizationCode {
            return none;
        }
        let life = (expires - now).max(0);
        let ahead = (life / 2).min(15 * 60 * 1000);
        #[expect(clippy::cast_possible_truncation, reason = "a tenth of at most 15 minutes")]
        let jitter = (ahead as f64 * 0.1 * self.rng.unit()) as i64;
        Times { due_at: Some(expires - ahead - jitter), dies_at: None }
    }
}

/// Which token endpoint renews this plan's connections: its address without query. Renewals are bounded, and broken off, by it.
pub(crate) fn endpoint_key(plan: &Plan) -> String {
    let mut url = plan.rendered.refresh.url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}
