//! The story: who plays, and in what order.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use http::Method;
use http_body_util::BodyExt;
use keyholder_broker::clock::{Clock, Rng};
use keyholder_broker::egress::{Egress, empty};
use keyholder_oauth::{Secret, random_token};
use serde_json::{Value, json};

use super::super::api::{Api, client_for};
use super::super::error::{CliError, Result};
use super::super::output::text;
use super::narrator::{Held, Narrator, expect};
use super::provider::Provider;
use super::stage::Stage;

/// Everybody who plays.
pub(super) struct Story<'a> {
    pub(super) stage: &'a Stage,
    pub(super) narrator: &'a Narrator<'a>,
    /// A person sits at the terminal and may say yes.
    pub(super) ask: bool,
    /// The administrator.
    pub(super) admin: Api,
    /// The provider whose tokens live for an hour.
    pub(super) provider: Provider,
    /// The provider whose tokens live for three seconds.
    pub(super) hasty: Provider,
    /// What the person's browser goes by.
    pub(super) egress: Egress,
    pub(super) clock: Clock,
    /// Everything that must not be found on the disk.
    pub(super) secrets: RefCell<BTreeSet<String>>,
}

impl<'a> Story<'a> {
    /// The story on a stage that is set.
    pub(super) fn new(stage: &'a Stage, narrator: &'a Narrator<'a>, ask: bool) -> Result<Self> {
        let egress = client_for(&[&stage.url, &stage.sandbox, &stage.hasty], None)?;
        let key_file = stage.key_file();
        let key = fs::read_to_string(&key_file).map_err(CliError::io(key_file.display().to_string()))?;
        Ok(Self {
            stage,
            narrator,
            ask,
            admin: Api::new(&stage.url, Secret::new(key.trim()), None)?,
            provider: Provider::new(&stage.sandbox, egress.clone()),
            hasty: Provider::new(&stage.hasty, egress.clone()),
            egress,
            clock: Clock::System,
            secrets: RefCell::default(),
        })
    }

    /// All steps in order; answers how many there were.
    pub(super) async fn tell(&self) -> Result<usize> {
        let tell = self.narrator;
        tell.step("Start", self.start()).await?;
        tell.step("Client credentials", self.client_credentials()).await?;
        tell.step("Password", self.password()).await?;
        let link = tell.step("A person is invited", self.invite()).await?;
        tell.step("Authorization code", self.authorization_code(link)).await?;
        let agent = tell.step("The gateway", self.gateway()).await?;
        tell.step("On the record", self.on_the_record()).await?;
        tell.step("A token expires", self.a_token_expires()).await?;
        tell.step("A token is withdrawn", self.a_token_is_withdrawn(&agent)).await?;
        tell.step("An outage", self.an_outage()).await?;
        let link = tell.step("Consent is withdrawn", self.consent_is_withdrawn()).await?;
        tell.step("Mended", self.mended(&link)).await?;
        tell.step("Revoked on purpose", self.revoked_on_purpose()).await?;
        tell.step("A stolen disk", self.a_stolen_disk()).await?;
        Ok(tell.steps())
    }

    async fn start(&self) -> Result<Held<()>> {
        let report = self.admin.get(&["doctor"]).await?;
        let problem = report["checks"].as_array().into_iter().flatten().find(|check| check["verdict"] == "problem");
        expect(problem.is_none(), || format!("the doctor finds: {}", problem.map_or("", |p| text(p, "message"))))?;
        let (server, provider) = (self.stage.url.as_str(), self.stage.sandbox.as_str());
        Ok(Held::new(
            (),
            format!(
                "The server is at {server} and the practice provider at {provider}; the doctor finds nothing wrong."
            ),
        )
        .by_hand("keyholder serve\nkeyholder sandbox\nkeyholder doctor"))
    }

    async fn a_stolen_disk(&self) -> Result<Held<()>> {
        let (mut files, mut bytes) = (0, 0);
        let entries = fs::read_dir(self.stage.folder()).map_err(CliError::io("the data folder"))?;
        let mut folders: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        while let Some(path) = folders.pop() {
            if path.is_dir() {
                folders.extend(fs::read_dir(&path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())));
            } else {
                let content = fs::read(&path).map_err(CliError::io(path.display().to_string()))?;
                self.expect_no_secret(&path, &content)?;
                (files, bytes) = (files + 1, bytes + content.len());
            }
        }
        let secrets = self.secrets.borrow().len();
        expect(files >= 3 && secrets >= 8, || {
            format!("only {files} files and {secrets} secrets were there to compare")
        })?;
        Ok(Held::new(
            (),
            format!(
                "{files} files, {} KiB searched for {secrets} tokens, passwords and client secrets: none is readable.",
                bytes >> 10
            ),
        ))
    }

    fn expect_no_secret(&self, path: &Path, content: &[u8]) -> Result {
        let secrets = self.secrets.borrow();
        let found = secrets.iter().find(|secret| content.windows(secret.len()).any(|part| part == secret.as_bytes()));
        // Which one is not said: what is printed must not leak it either.
        expect(found.is_none(), || format!("{} holds a secret in the clear", path.display()))
    }

    /// Makes an integration; its client secret is new.
    pub(super) async fn integration(&self, provider: &Provider, integration: Value) -> Result<Value> {
        let secret = random_token(Rng::System.bytes());
        self.secrets.borrow_mut().insert(secret.expose().to_owned());
        let mut body = integration;
        body["client_secret"] = json!(secret.expose());
        // Registered first without a redirect URI, which is only known once the integration is there.
        provider.register(text(&body, "client_id"), secret.expose(), &[]).await?;
        let made = self.admin.post(&["integrations"], &body).await?;
        provider.register(text(&body, "client_id"), secret.expose(), &[text(&made, "redirect_uri")]).await?;
        Ok(made)
    }

    /// Makes a connection and authorises it.
    pub(super) async fn connection(&self, connection: Value) -> Result<Value> {
        let made = self.admin.post(&["connections"], &connection).await?;
        let path = ["connections", text(&made, "id")];
        self.admin.post(&[path[0], path[1], "authorize"], &json!({})).await?;
        let connected = self.admin.get(&path).await?;
        expect_state(&connected, "connected")?;
        Ok(connected)
    }

    /// The token of a connection, with everything beside it.
    pub(super) async fn token(&self, connection: &str) -> Result<Value> {
        let reply = self.admin.get(&["connections", connection, "token"]).await?;
        self.secrets.borrow_mut().insert(text(&reply, "access_token").to_owned());
        Ok(reply)
    }

    /// What an API call through the gateway answers: status and JSON.
    pub(super) async fn call(&self, caller: &Api, connection: &str, path: &str) -> Result<(u16, Value)> {
        let reply = caller.proxy(connection, Method::GET, path, http::HeaderMap::new(), empty()).await?;
        let status = reply.status().as_u16();
        let broke = |error| CliError::Failed(format!("the reply broke off: {error}"));
        let body = reply.into_body().collect().await.map_err(broke)?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// A connection in another state than it should be ends the story with the reason.
pub(super) fn expect_state(connection: &Value, state: &str) -> Result {
    expect(connection["state"] == state, || {
        let (name, is) = (text(connection, "name"), text(connection, "state"));
        format!("{name} should be {state} but is {is}: {}", text(connection, "reason"))
    })
}

/// What the server must refuse; answers its problem's detail.
pub(super) fn expect_refused<T>(outcome: Result<T>, status: u16, what: &str) -> Result<String> {
    match outcome {
        Err(CliError::Problem(problem)) if problem.status == status => Ok(problem.detail),
        Err(error) => Err(error),
        Ok(_) => Err(CliError::Failed(format!("{what} should have been refused"))),
    }
}
