//! Tokens end; callers don't notice.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::super::api::Api;
use super::super::error::{CliError, Result};
use super::super::output::text;
use super::narrator::{Held, expect};
use super::stage::HASTY_LIFE;
use super::story::Story;

/// Callers that ask for a token at the same moment.
const CALLERS: usize = 200;
/// API calls at the same moment. Each has four ends of connections in this one process.
const CALLS: usize = 100;

impl Story<'_> {
    /// A provider whose tokens live for three seconds. The scheduler renews halfway, callers renew when it comes to it; whoever does, the
    /// provider sees one refresh for every generation and never two at once.
    pub(super) async fn a_token_expires(&self) -> Result<Held<()>> {
        self.integration(
            &self.hasty,
            json!({
                "name": "hasty", "provider": "oidc", "method": "password", "client_id": "demo-hasty", "scopes": ["read", "offline_access"],
                "variables": {"issuer": self.hasty.at("")},
            }),
        )
        .await?;
        self.connection(json!({"name": "hasty", "integration": "hasty", "username": "bob", "password": "builder"}))
            .await?;
        let first = self.token("hasty").await?;
        let ends =
            first["expires_at"].as_i64().ok_or_else(|| CliError::Failed("the token has no expiry".to_owned()))?;
        let left = u64::try_from(ends - self.clock.now_ms()).unwrap_or(0);
        self.clock.sleep(Duration::from_millis(left + 50)).await;
        let status = self.hasty.status_for(text(&first, "access_token")).await?;
        expect(status == 401, || format!("the old token should be dead, but the API answered {status}"))?;

        let tokens = try_join_all((0..CALLERS).map(|_| self.token("hasty"))).await?;
        let old = generation(&first);
        let stale = tokens.iter().filter(|token| generation(token) <= old).count();
        expect(stale == 0, || format!("{stale} callers got the old token"))?;
        let (now, counters) = self.settled().await?;
        let refreshes = refreshes(&counters);
        expect(refreshes == now - 1, || {
            format!("the generation is {now}, but the provider saw {refreshes} refreshes")
        })?;
        expect_never_twice(&counters)?;
        // Its clock ticks on; nobody needs it any more.
        self.admin.delete(&["connections", "hasty"]).await?;
        let times = if refreshes == 1 {
            "one refresh".to_owned()
        } else {
            format!("{refreshes} refreshes, one for each generation")
        };
        Ok(Held::new((), format!(
            "Its life was {HASTY_LIFE} s. Then {CALLERS} callers ask at once: all get a live one, and the provider saw {times}, never two at a time."
        ))
        .by_hand("keyholder token hasty --min-ttl 2s"))
    }

    /// Every access token ends before its time, as after a provider's incident. The callers' 401s become one refresh.
    pub(super) async fn a_token_is_withdrawn(&self, agent: &Api) -> Result<Held<()>> {
        let before = generation(&self.admin.get(&["connections", "calendar"]).await?);
        self.provider.take_counters().await?;
        self.provider.expire_tokens().await?;
        let replies = try_join_all((0..CALLS).map(|_| self.call(agent, "calendar", "/me"))).await?;
        let failed = replies.iter().filter(|(status, _)| *status != 200).count();
        expect(failed == 0, || {
            format!("{failed} of {CALLS} calls failed, the first with {:?}", replies.iter().find(|(s, _)| *s != 200))
        })?;
        let after = generation(&self.admin.get(&["connections", "calendar"]).await?);
        let counters = self.provider.counters().await?;
        let refreshes = refreshes(&counters);
        expect(refreshes == 1 && after == before + 1, || {
            format!("{refreshes} refreshes, generation {before} → {after}")
        })?;
        expect_never_twice(&counters)?;
        let refused = counters["errors"]["invalid_token"].as_i64().unwrap_or(0);
        // What the provider withdrew of the others is renewed too.
        for name in ["machine", "intranet"] {
            self.admin.post(&["connections", name, "refresh"], &json!({})).await?;
        }
        Ok(Held::new(
            (),
            format!(
                "{CALLS} calls at once meet a dead token. {refused} get a 401, one refresh is sent, all {CALLS} succeed. Generation {before} → {after}."
            ),
        ))
    }

    /// The hasty connection's generation and its provider's counters, taken when every refresh that was counted is committed too.
    async fn settled(&self) -> Result<(i64, Value)> {
        for _ in 0..100 {
            let before = self.hasty.counters().await?;
            let now = generation(&self.admin.get(&["connections", "hasty"]).await?);
            let counters = self.hasty.counters().await?;
            if refreshes(&before) == refreshes(&counters) && now > refreshes(&counters) {
                return Ok((now, counters));
            }
            self.clock.sleep(Duration::from_millis(20)).await;
        }
        Err(CliError::Failed("the provider saw more refreshes than were committed".to_owned()))
    }
}

fn generation(of: &Value) -> i64 {
    of["generation"].as_i64().unwrap_or(0)
}

fn refreshes(counters: &Value) -> i64 {
    counters["grants"]["refresh_token"].as_i64().unwrap_or(0)
}

/// A provider that ends the grant at the second use of a refresh token has seen none.
fn expect_never_twice(counters: &Value) -> Result {
    let (at_once, reused) = (&counters["max_simultaneous_refreshes"], &counters["reuse_detections"]);
    expect(at_once == 1 && reused == 0, || format!("{at_once} refreshes at once, {reused} tokens used twice"))
}
