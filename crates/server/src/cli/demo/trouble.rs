//! What breaks, what people are told, and how it is mended.

use serde_json::json;

use super::super::error::Result;
use super::super::output::text;
use super::narrator::{Held, expect};
use super::story::{Story, expect_refused, expect_state};

impl Story<'_> {
    pub(super) async fn an_outage(&self) -> Result<Held<()>> {
        self.provider.break_down(json!({"on": "token", "kind": "server_error"})).await?;
        let refused = self.admin.post(&["connections", "calendar", "refresh"], &json!({})).await;
        expect_refused(refused, 503, "renewing during an outage")?;
        let failing = self.admin.get(&["connections", "calendar"]).await?;
        expect_state(&failing, "failing")?;
        expect(failing["failure"]["kind"] == "transient", || {
            format!("an outage was taken for {}", failing["failure"]["kind"])
        })?;
        let token = self.token("calendar").await?;
        let status = self.provider.status_for(text(&token, "access_token")).await?;
        expect(status == 200, || format!("the token that was still valid answered {status}"))?;
        self.provider.mend().await?;
        self.admin.post(&["connections", "calendar", "refresh"], &json!({})).await?;
        expect_state(&self.admin.get(&["connections", "calendar"]).await?, "connected")?;
        let reason = text(&failing["failure"], "message");
        Ok(Held::new(
            (),
            format!(
                "The connection is failing: “{reason}” Its valid token is still served. The outage ends: connected."
            ),
        )
        .by_hand("keyholder connection show calendar"))
    }

    pub(super) async fn consent_is_withdrawn(&self) -> Result<Held<String>> {
        self.provider.withdraw(&self.account().await?).await?;
        let refused = self.admin.post(&["connections", "calendar", "refresh"], &json!({})).await;
        expect_refused(refused, 409, "renewing a dead grant")?;
        let dead = self.admin.get(&["connections", "calendar"]).await?;
        expect_state(&dead, "reconnect")?;
        let (reason, remedy) = (text(&dead["failure"], "message"), text(&dead["failure"], "remedy"));
        expect(!reason.is_empty() && !remedy.is_empty(), || "there is no reason or no remedy".to_owned())?;
        let line = format!("The person says no at the provider. State reconnect: “{reason}” What to do: “{remedy}”");
        let link = self.admin.post(&["connections", "calendar", "authorize"], &json!({})).await?;
        Ok(Held::new(text(&link, "authorize_url").to_owned(), line)
            .by_hand("keyholder connection list --state reconnect"))
    }

    pub(super) async fn mended(&self, link: &str) -> Result<Held<()>> {
        self.consent(link).await?;
        expect_state(&self.admin.get(&["connections", "calendar"]).await?, "connected")?;
        let account = self.account().await?;
        self.token("calendar").await?;
        Ok(Held::new((), format!("One click on a new link, and the same connection works again, as {account}."))
            .by_hand("keyholder connect calendar"))
    }

    pub(super) async fn revoked_on_purpose(&self) -> Result<Held<()>> {
        let token = self.token("intranet").await?;
        let reply = self.admin.post(&["connections", "intranet", "revoke"], &json!({})).await?;
        let outcome = text(&reply["revocation"], "outcome");
        expect(outcome == "revoked", || format!("the provider was told with the outcome {outcome}"))?;
        let status = self.provider.status_for(text(&token, "access_token")).await?;
        expect(status == 401, || format!("the revoked token still gets {status}"))?;
        expect_refused(
            self.admin.get(&["connections", "intranet", "token"]).await,
            409,
            "a token of a revoked connection",
        )?;
        Ok(Held::new(
            (),
            "The intranet is let go: the provider was told, the old token is dead, no other is handed out.",
        )
        .by_hand("keyholder connection revoke intranet"))
    }

    /// Whom the calendar's token stands for, as its API says.
    async fn account(&self) -> Result<String> {
        let (status, me) = self.call(&self.admin, "calendar", "/me").await?;
        expect(status == 200, || format!("the API answered {status}"))?;
        Ok(text(&me, "account").to_owned())
    }
}
