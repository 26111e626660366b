//! One connection for each grant, and the gateway over one of them.

use keyholder_oauth::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::super::api::Api;
use super::super::connect::{newest_event, outcome_since};
use super::super::error::Result;
use super::super::output::text;
use super::browser::Browser;
use super::narrator::{Held, expect};
use super::story::{Story, expect_refused, expect_state};

/// How often a link that a person may click is looked at.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// A link for a person.
pub(super) struct Link {
    pub(super) url: String,
    /// The newest entry of the connection's history before.
    before: String,
}

impl Story<'_> {
    pub(super) async fn client_credentials(&self) -> Result<Held<()>> {
        self.integration(
            &self.provider,
            json!({
                "name": "machine", "provider": "oidc", "method": "client_credentials", "client_id": "demo-machine", "scopes": ["read"],
                "variables": {"issuer": self.provider.at(""), "api_base_url": self.provider.at("/api")},
            }),
        )
        .await?;
        self.connection(json!({"name": "machine", "integration": "machine"})).await?;
        let token = self.token("machine").await?;
        let status = self.provider.status_for(text(&token, "access_token")).await?;
        expect(status == 200, || format!("the API answered {status} to the token"))?;
        Ok(Held::new((), format!("A machine has a token with the scope {}, good for {} min.", text(&token, "scope"), minutes(&token)))
            .by_hand("keyholder integration add machine --provider oidc --method client_credentials …\nkeyholder connect machine\nkeyholder token machine"))
    }

    pub(super) async fn password(&self) -> Result<Held<()>> {
        self.integration(
            &self.provider,
            json!({
                "name": "intranet", "provider": "oauth2", "method": "password", "client_id": "demo-intranet", "scopes": ["read", "offline_access"],
                "variables": {
                    "token_url": self.provider.at("/token"), "revocation_url": self.provider.at("/revoke"),
                    "api_base_url": self.provider.at("/api"),
                },
            }),
        )
        .await?;
        self.secrets.borrow_mut().insert("builder".to_owned());
        let bob = json!({"name": "intranet", "integration": "intranet", "username": "bob", "password": "builder"});
        self.connection(bob).await?;
        self.token("intranet").await?;
        let (status, me) = self.call(&self.admin, "intranet", "/me").await?;
        expect(status == 200 && me["account"] == "bob", || format!("the API answered {status}, {me}"))?;
        Ok(Held::new((), "An old intranet lets bob in by his password, which is sealed and never shown again.")
            .by_hand("keyholder connection add intranet --integration intranet --username bob"))
    }

    pub(super) async fn invite(&self) -> Result<Held<Link>> {
        let calendar = self
            .integration(
                &self.provider,
                json!({
                    "name": "calendar", "provider": "oidc", "client_id": "demo-calendar", "scopes": ["openid", "offline_access", "read"],
                    "variables": {"issuer": self.provider.at(""), "api_base_url": self.provider.at("/api")},
                }),
            )
            .await?;
        self.admin
            .post(&["connections"], &json!({"name": "calendar", "integration": "calendar", "owner": "alice"}))
            .await?;
        let link = self.link().await?;
        let line = format!(
            "alice gets a link; the redirect URI {} is registered at the provider.",
            text(&calendar, "redirect_uri")
        );
        Ok(Held::new(link, line).by_hand("keyholder connect calendar"))
    }

    /// An invitation for whoever sits at a browser.
    async fn link(&self) -> Result<Link> {
        let before = newest_event(&self.admin, "calendar").await?;
        let wish = json!({"integration": "calendar", "connection": "calendar"});
        let session = self.admin.post(&["connect-sessions"], &wish).await?;
        Ok(Link { url: text(&session, "url").to_owned(), before })
    }

    pub(super) async fn authorization_code(&self, link: Link) -> Result<Held<()>> {
        let left = if self.ask { self.ask_the_person(link).await? } else { Some(link) };
        let who = match left {
            None => "You said yes",
            Some(link) => {
                self.consent(&link.url).await?;
                "alice says yes, first to the provider, then that it was she who began"
            }
        };
        expect_state(&self.admin.get(&["connections", "calendar"]).await?, "connected")?;
        let (_, me) = self.call(&self.admin, "calendar", "/me").await?;
        expect(me["account"].is_string(), || format!("the API doesn't know whom the token stands for: {me}"))?;
        self.token("calendar").await?;
        Ok(Held::new((), format!("{who}; connected as {} with PKCE.", text(&me, "account"))))
    }

    /// Offers the link. Answers `None` when the person went through with it, after Enter the link that is left to the demo's browser.
    async fn ask_the_person(&self, mut link: Link) -> Result<Option<Link>> {
        let offer = "Open this link and say yes yourself, or press Enter and the demo's browser does it:";
        self.narrator.aside(&format!("{offer}\n\n  {}\n\n", link.url))?;
        let mut enter = BufReader::new(tokio::io::stdin());
        let mut line = String::new();
        let mut pressed = std::pin::pin!(enter.read_line(&mut line));
        loop {
            tokio::select! {
                _ = &mut pressed => return Ok(Some(link)),
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
            match outcome_since(&self.admin, "calendar", &link.before).await? {
                None => {}
                Some(Ok(())) => return Ok(None),
                Some(Err(why)) => {
                    link = self.link().await?;
                    self.narrator.aside(&format!("{why}\nSo nothing is connected. {offer}\n\n  {}\n\n", link.url))?;
                }
            }
        }
    }

    /// The scripted person: goes where the link leads, allows it as alice, and confirms.
    pub(super) async fn consent(&self, link: &str) -> Result {
        let mut browser = Browser::new(self.egress.clone());
        let mut page = browser.open(link).await?;
        // A link for one's own application leads to the provider at once; an invitation shows a page first.
        if page.url.port() == self.stage.url.port() {
            let form = page.form(None)?;
            page = browser.submit(&page, &form, &form.fields).await?;
        }
        let form = page.form(Some(("decision", "allow")))?;
        let page = browser.submit(&page, &form, &form.click("decision", "allow")?).await?;
        let form = page.form(Some(("decision", "yes")))?;
        let page = browser.submit(&page, &form, &form.fields).await?;
        expect(page.status == 200, || format!("the last page has the status {}", page.status))
    }

    pub(super) async fn gateway(&self) -> Result<Held<Api>> {
        let limits = json!({"connections": ["calendar"], "methods": ["GET"], "paths": ["/me", "/echo"]});
        let key = self.admin.post(&["keys"], &json!({"name": "agent", "scopes": ["call"], "limits": limits})).await?;
        let key = text(&key, "key");
        self.secrets.borrow_mut().insert(key.to_owned());
        let agent = self.admin.with_key(Secret::new(key));

        let (status, seen) = self.call(&agent, "calendar", "/echo/events?when=today").await?;
        let what = || format!("the API answered {status}, {seen}");
        expect(status == 200 && seen["path"] == "/api/echo/events" && seen["query"] == "when=today", what)?;
        expect(seen["authorization"] == "Bearer ****", || format!("the API saw {}", seen["authorization"]))?;
        let (seen, token) = (seen.to_string(), self.token("calendar").await?);
        expect(!seen.contains(key), || "the caller's own key reached the provider".to_owned())?;
        expect(!seen.contains(text(&token, "access_token")), || "the token came back to the caller".to_owned())?;
        expect_refused(agent.get(&["connections", "calendar", "token"]).await, 403, "reading the token")?;
        let (elsewhere, _) = self.call(&agent, "calendar", "/admin").await?;
        expect(elsewhere == 403, || format!("a path outside the key's limits answered {elsewhere}"))?;
        let line = "An agent calls alice's API and gets 200. It never saw the token: reading it is refused, and so is any other path.";
        Ok(Held::new(agent, line).by_hand("keyholder key create agent --scope call --connection calendar --method GET --path /me\nkeyholder call calendar /me"))
    }

    pub(super) async fn on_the_record(&self) -> Result<Held<()>> {
        let audit = self.admin.query(&["audit"], &[("limit", "200")]).await?;
        let items = audit["items"].as_array().map_or(&[][..], Vec::as_slice);
        let count = |actor: &str, outcome: &str| {
            items.iter().filter(|item| item["actor"] == actor && item["outcome"] == outcome).count()
        };
        let (called, refused) = (count("agent", "ok"), count("agent", "refused"));
        expect(called == 1 && refused == 2, || {
            format!("the agent has {called} calls and {refused} refusals on record, not 1 and 2")
        })?;
        let hand_outs = items.iter().filter(|item| item["action"] == "token.read").count();
        expect(hand_outs >= 4, || format!("only {hand_outs} hand-outs are on record"))?;
        Ok(Held::new(
            (),
            format!(
                "{} entries so far: {hand_outs} tokens handed out, the agent's call, its 2 refusals, every change.",
                items.len()
            ),
        )
        .by_hand("keyholder audit"))
    }
}

fn minutes(token: &Value) -> i64 {
    (token["expires_in"].as_i64().unwrap_or(0) + 30) / 60
}
