//! A rehearsal: a definition's methods run for real, with a broker of its own, against the sandbox in the part of the provider.
//!
//! The broker is the one that the server runs, on a clock that moves only as the rehearsal says, with a client for which every host is the sandbox
//! ([`Egress::rehearsal`]). The sandbox reads the definition by itself and refuses what it does not ask for. All values are made up.

mod person;
mod values;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method as HttpMethod;
use keyholder_broker::clock::{Clock, ManualClock, Rng};
use keyholder_broker::egress::Egress;
use keyholder_broker::model::{Caller, PlainKey};
use keyholder_broker::points::Points;
use keyholder_broker::store::Location;
use keyholder_broker::vault::RootKeySource;
use keyholder_broker::{Broker, Error, Pace, ProxyRequest, RevocationOutcome, Settings, TestWish};
use keyholder_oauth::Secret;
use keyholder_provider::{Catalogue, Definition, Method};
use keyholder_sandbox::play::{Exchange, Play};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;

use values::{Made, Values};

/// What a method's rehearsal showed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The definition's id.
    pub provider: String,
    /// The method's name.
    pub method: String,
    /// All steps held.
    pub ok: bool,
    /// The steps in order; the first that failed is the last.
    pub steps: Vec<Step>,
}

/// One step of a rehearsal.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// `set up`, `connect`, `renew`, `verify`, `call` or `revoke`.
    pub name: &'static str,
    /// Whether it held.
    pub ok: bool,
    /// What happened.
    pub message: String,
    /// What was asked and answered meanwhile.
    pub exchanges: Vec<Exchange>,
}

/// A broker and a stage, ready for one rehearsal after the other.
pub struct Rehearsal {
    broker: Broker,
    admin: Arc<Caller>,
    clock: ManualClock,
    play: Play,
    values: Values,
    count: usize,
}

/// Tue, 17 Nov 2026; no certificate and no token cares.
const BEGIN: i64 = 1_794_900_000_000;

/// What takes longer than this waits for time to pass.
const PATIENCE: Duration = Duration::from_millis(500);

/// Between two rehearsals, so that nothing that is kept for a while comes from the one before.
const PAUSE: Duration = Duration::from_secs(3 * 3600);

impl Rehearsal {
    /// Opens a broker in this empty folder, and a stage on a loopback port.
    ///
    /// # Errors
    /// The folder or the port can't be used.
    pub async fn open(folder: &Path) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let clock = ManualClock::starting_at(BEGIN);
        let (shown, random) = (Clock::Manual(clock.clone()), Rng::seeded(1));
        let play = Play::new(Arc::new(move || shown.now_ms()), Arc::new(move || random.bytes()));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| text(&error))?;
        let stage = listener.local_addr().map_err(|error| text(&error))?;
        let served = play.clone();
        tokio::spawn(async move { served.serve(listener, std::future::pending()).await });
        let settings = Settings {
            public_url: "https://keyholder.example/".parse().map_err(|error| text(&error))?,
            data_dir: folder.to_owned(),
            database: Location::Sqlite(folder.join("keyholder.db")),
            root_key: RootKeySource::File(folder.join("root-key")),
            // Its time stands still, so nothing must wait for it to pass.
            pace: Pace { at_once: 8, per_second: u32::MAX },
            retention: keyholder_broker::Retention::default(),
            points: Points::default(),
        };
        let time = Clock::Manual(clock.clone());
        let egress = Egress::rehearsal(time.clone(), stage);
        let opened = Broker::open(settings, time, Rng::seeded(2), egress).await.map_err(|error| text(&error))?;
        let broker = opened.broker;
        let key = broker.ensure_admin_key().await.map_err(|error| text(&error))?;
        let key = std::fs::read_to_string(key).map_err(|error| text(&error))?;
        let admin = broker.authenticate(&PlainKey(Secret::new(key.trim()))).await.map_err(|error| text(&error))?;
        Ok(Self { broker, admin, clock, play, values: Values::default(), count: 0 })
    }

    /// Makes a definition known; answers the id to rehearse it by, which is another where its own is taken, and its own.
    ///
    /// # Errors
    /// Its mistakes.
    pub async fn add(&self, file: &str, text: &str) -> Result<(String, String), String> {
        let mut catalogue = Catalogue::new();
        self.broker.providers().into_iter().for_each(|it| drop(catalogue.insert(it.definition)));
        let parsed = catalogue.parse(file, text);
        let own = parsed.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?.id;
        let is_taken = catalogue.definition(&own).is_some();
        let id = if is_taken { format!("{own}-rehearsed") } else { own.clone() };
        let text = if is_taken { renamed(text, &own, &id) } else { text.to_owned() };
        self.broker.add_provider(&self.admin, file, &text).await.map_err(|error| error.to_string())?;
        Ok((id, own))
    }

    /// The ids of all definitions.
    pub fn provider_ids(&self) -> Vec<String> {
        self.broker.providers().iter().map(|it| it.definition.id.clone()).collect()
    }

    /// The definition of this id, and as the judge reads it.
    ///
    /// # Errors
    /// There is none.
    pub fn definition(&self, id: &str) -> Result<(Arc<Definition>, Value), String> {
        let mut catalogue = Catalogue::new();
        self.broker.providers().into_iter().for_each(|it| drop(catalogue.insert(it.definition)));
        let definition = catalogue.definition(id).ok_or_else(|| format!("there is no provider `{id}`"))?;
        let merged = catalogue.merged(&format!("{id}.toml"), &definition.text);
        let merged = merged.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        Ok((definition, merged))
    }

    /// Lets time pass for what waits for it, such as a call that would be one too many in its second.
    async fn while_time_passes<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match Clock::System.timeout(PATIENCE, work.as_mut()).await {
                Some(done) => return done,
                None => self.clock.advance(Duration::from_secs(1)),
            }
        }
    }

    /// Runs a method from set-up to revocation while the sandbox plays `part`, by rights the same definition.
    pub async fn rehearse(&mut self, definition: &Definition, method: &Method, part: &Value) -> Report {
        self.clock.advance(PAUSE);
        self.count += 1;
        let mut report =
            Report { provider: definition.id.clone(), method: method.name.clone(), ok: true, steps: Vec::new() };
        let made = self.values.of(definition, method, part);
        let stage = &*self;
        let brought = made.registration().refresh_token;
        let name = format!("rehearsal-{}", stage.count);
        let mut run = Run { stage, method, part, name, brought, secret: String::new() };
        let set_up = run.set_up(definition, &made).await;
        if !report.add("set up", set_up, stage.play.take_exchanges()) {
            return report;
        }
        for name in STEPS {
            let step = async {
                match name {
                    "connect" => run.connect().await,
                    "renew" => run.renew().await,
                    "verify" => run.verify().await,
                    "call" => run.call().await,
                    _ => run.revoke().await,
                }
            };
            let outcome = stage.while_time_passes(step).await;
            let exchanges = stage.play.take_exchanges();
            if !report.add(name, run.judged(name, outcome, &exchanges), exchanges) {
                break;
            }
        }
        report
    }
}

/// The text with another id and without aliases, which might be those of a definition that is there already.
fn renamed(text: &str, own: &str, id: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut in_table, mut in_aliases) = (false, false);
    for line in text.split_inclusive('\n') {
        in_table |= line.starts_with('[');
        let key = line.split('=').next().unwrap_or_default().trim();
        in_aliases |= !in_table && key == "aliases";
        if in_aliases {
            in_aliases = !line.contains(']');
        } else if !in_table && key == "id" {
            out.push_str(&line.replacen(own, id, 1));
        } else {
            out.push_str(line);
        }
    }
    out
}

const STEPS: [&str; 5] = ["connect", "renew", "verify", "call", "revoke"];

impl Report {
    /// Whether to go on.
    fn add(&mut self, name: &'static str, outcome: Result<String, String>, exchanges: Vec<Exchange>) -> bool {
        let (ok, message) = match outcome {
            Ok(message) => (true, message),
            Err(message) => (false, message),
        };
        self.ok &= ok;
        self.steps.push(Step { name, ok, message, exchanges });
        ok
    }

    /// The step that failed, in a few lines.
    pub fn failure(&self) -> Option<String> {
        let step = self.steps.iter().find(|step| !step.ok)?;
        Some(format!("{}, {}: {}: {}", self.provider, self.method, step.name, step.message))
    }
}

/// One rehearsal under way.
struct Run<'a> {
    stage: &'a Rehearsal,
    method: &'a Method,
    part: &'a Value,
    name: String,
    /// The refresh token that somebody brings.
    brought: Option<String>,
    secret: String,
}

/// A sentence on what went well, or on what did not.
type Outcome = Result<String, String>;

impl Run<'_> {
    async fn set_up(&self, definition: &Definition, made: &Made) -> Outcome {
        let stage = self.stage;
        stage.play.perform(self.part, &self.method.name, made.registration())?;
        let plain = |error: Error| error.to_string();
        let integration = made.integration(&self.name, definition, self.method);
        let integration = stage.broker.add_integration(&stage.admin, integration).await.map_err(plain)?;
        stage.play.register_redirect_uri(&stage.broker.redirect_uri(&integration.id));
        stage.broker.add_connection(&stage.admin, made.connection(&self.name, definition)).await.map_err(plain)?;
        Ok("There are an integration and a connection.".to_owned())
    }

    /// What the judge saw counts more than what the broker made of it.
    fn judged(&self, step: &str, outcome: Outcome, exchanges: &[Exchange]) -> Outcome {
        let complaints: Vec<String> = exchanges
            .iter()
            .flat_map(|exchange| {
                exchange.complaints.iter().map(move |complaint| format!("{}: {complaint}", exchange.phase))
            })
            .collect();
        if !complaints.is_empty() {
            return Err(format!("The provider refused. {}", complaints.join("; ")));
        }
        let outcome = outcome?;
        let asked = |phase: &str| exchanges.iter().filter(|exchange| exchange.phase == phase).count();
        let method = &self.method.name;
        if step == "connect" {
            let own = self.part["methods"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|it| it["name"].as_str().or(it["grant"].as_str()) == Some(method));
            let has = |table: &str| {
                let own = own.map_or(&Value::Null, |own| &own[table]);
                if own.is_null() { &self.part[table] } else { own }
            };
            let lookups = has("after_connect").as_array().map_or(0, Vec::len);
            if asked("after_connect") < lookups {
                return Err(format!("Only {} of {lookups} lookups were made.", asked("after_connect")));
            }
            if has("follow_up").is_object() && asked("follow_up") == 0 {
                return Err("The second exchange ([follow_up]) was not made.".to_owned());
            }
        }
        Ok(outcome)
    }

    async fn connect(&mut self) -> Outcome {
        person::connect(self.stage, &self.name, self.brought.as_deref()).await?;
        self.check_token().await
    }

    /// The token in hand is one that was issued, and ends when the provider meant.
    async fn check_token(&mut self) -> Outcome {
        let stage = self.stage;
        let token =
            stage.broker.token(&stage.admin, &self.name, Some(Duration::ZERO)).await.map_err(|e| e.to_string())?;
        self.secret = token.access_token.expose().to_owned();
        let Some(end) = stage.play.end_of(&self.secret) else {
            return Err("The access token is not one that the provider issued.".to_owned());
        };
        match (end, token.expires_at) {
            (Some(end), Some(at)) if (end - at).abs() <= 1000 => {
                Ok(format!("There is an access token; it lives for {} s.", (at - stage.broker.now_ms()) / 1000))
            }
            (None, None) => Ok("There is an access token; it has no end.".to_owned()),
            (end, at) => {
                Err(format!("The provider meant the token to end at {end:?}, and it was understood as {at:?}."))
            }
        }
    }

    async fn renew(&mut self) -> Outcome {
        let stage = self.stage;
        if !stage.play.can_renew() {
            return Ok("The provider gives nothing to renew with; a person must consent again.".to_owned());
        }
        stage.clock.advance(stage.play.min_age());
        let before = self.secret.clone();
        stage.broker.refresh(&stage.admin, &self.name).await.map_err(|error| error.to_string())?;
        let said = self.check_token().await?;
        if self.secret == before {
            return Err("There is no other access token than before.".to_owned());
        }
        Ok(said)
    }

    async fn verify(&mut self) -> Outcome {
        let report = self
            .stage
            .broker
            .test(&self.stage.admin, &self.name, TestWish::default(), &|_| ())
            .await
            .map_err(|error| error.to_string())?;
        let messages: Vec<&str> = report.steps.iter().map(|step| step.message.as_str()).collect();
        if report.ok { Ok(messages.join(" ")) } else { Err(messages.join(" ")) }
    }

    /// A call of the API; before it the token dies, where it can be renewed.
    async fn call(&mut self) -> Outcome {
        let stage = self.stage;
        if !stage.play.has_api() {
            return Ok("The definition names no API.".to_owned());
        }
        let renews = stage.play.can_renew();
        if renews {
            stage.clock.advance(stage.play.min_age());
            stage.play.expire_access_tokens();
        }
        let request = ProxyRequest::new(HttpMethod::GET, "/rehearsal?page=1").map_err(|error| error.to_string())?;
        let response =
            stage.broker.proxy(&stage.admin, &self.name, request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let expired = if renews { " after the token had died and was renewed" } else { "" };
        if status.is_success() && stage.play.served_api() {
            Ok(format!("The API answered {}{expired}.", status.as_u16()))
        } else {
            Err(format!("The API answered {status}{expired}, which means that the token was not taken."))
        }
    }

    async fn revoke(&mut self) -> Outcome {
        let stage = self.stage;
        let revoked = stage.broker.revoke(&stage.admin, &self.name).await;
        let (_, outcome) = revoked.map_err(|error| error.to_string())?;
        match outcome {
            RevocationOutcome::Revoked if stage.play.is_revoked() => Ok(outcome.message()),
            RevocationOutcome::NotOffered if !stage.play.can_revoke() => Ok(outcome.message()),
            other => Err(other.message()),
        }
    }
}
