//! The test that explains: settings, token, renewal, call, step by step, with what was exchanged and what is probably wrong.
//!
//! The steps go on until one fails. Each is told as soon as it is over, so that whoever looks on sees where it hangs.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use keyholder_oauth::{Metadata, TokenSet};
use keyholder_provider::{Definition, ErrorPhase, KnownError, PlaceOfToken, Verify};
use serde::Serialize;

use crate::cause::{Called, Cause, Claims, Evidence, Failing, Ours, Seen, cause, of_own_refusal};
use crate::clock::{Moment, millis};
use crate::egress::{Body, EgressFault, full};
use crate::endpoints::Urgency;
use crate::error::{Error, Result};
use crate::explain::{self, known_error, sentence};
use crate::gateway::{ApiAccess, Asked, Outgoing, Via, build};
use crate::live::Live;
use crate::model::{Caller, Connection, Failure, Integration};
use crate::open::Broker;
use crate::plan::Plan;
use crate::redact::{self, Kind};
use crate::renew::{Enough, Wish, spent_for_renewal, too_young};
use crate::token::WAIT;
use crate::trace::{Entered, Exchange, shown, status_line};

/// An answer to the definition's cheap call is read up to this size.
const VERIFIED_BODY: usize = 1 << 20;

/// What to do where nothing better is known.
const UNKNOWN: &str = "Compare what was sent and answered with the provider's documentation; where nothing is wrong there, ask its support, with this report.";

/// What a test is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestWish {
    /// The token in hand is treated as if it had expired: it is renewed, and the call made with the new one.
    pub renew: bool,
}

/// What a test found.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// All steps held.
    pub ok: bool,
    /// The steps, in order; the first that failed is the last.
    pub steps: Vec<TestStep>,
}

/// One step of a test.
#[derive(Clone, Debug, Serialize)]
pub struct TestStep {
    /// `settings`, `discovery`, `token`, `renewal`, `introspection` or `call`.
    pub name: &'static str,
    /// Whether it held.
    pub ok: bool,
    /// What happened.
    pub message: String,
    /// What to do, where it didn't hold.
    pub remedy: Option<String>,
    /// What is probably wrong, where it didn't hold.
    pub cause: Option<Cause>,
    /// What was sent and answered, without secrets.
    pub exchanges: Vec<Exchange>,
    /// Milliseconds.
    pub took_ms: i64,
}

impl TestStep {
    /// Of what has no connection to begin with.
    pub(crate) fn without_connection(error: &Error) -> Self {
        Self {
            name: "token",
            ok: false,
            message: sentence(error.to_string()),
            remedy: Some("Say whose connection is meant; where there is none, make it and connect it.".to_owned()),
            cause: Some(Cause::NotConnected),
            exchanges: Vec::new(),
            took_ms: 0,
        }
    }
}

/// Is told of each step when it is over.
pub(crate) type Told<'a> = &'a (dyn Fn(&TestStep) + Send + Sync);

impl Broker {
    /// Tests a connection: do its settings make requests, does the provider give a token, does the API take it? `told` hears of each step when it is over.
    ///
    /// A grant that needs no person is asked anew. Of people's the token in hand is tested, unless `wish` has it renewed, which may use up a refresh token. The
    /// call is the cheap one that the definition names; without one there is none.
    pub async fn test(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        wish: TestWish,
        told: &(dyn Fn(&TestStep) + Send + Sync),
    ) -> Result<TestReport> {
        let row = self.find_connection(caller, id_or_name).await?;
        let detail = wish.renew.then(|| "renew".to_owned());
        self.record(caller, "connection.test", row.id.as_str(), "ok", detail)?;
        let mut testing = Testing::begin(self, &row, told);
        if testing.settings().await?
            && let Some(live) = testing.token(wish, true).await
            && let Some(live) = testing.renewal(wish, live).await
            && testing.introspection(&live).await
        {
            testing.call(&live).await;
        }
        Ok(testing.report())
    }
}

/// A test under way.
pub(crate) struct Testing<'a> {
    broker: &'a Broker,
    row: &'a Connection,
    trace: Entered<'a>,
    told: Told<'a>,
    steps: Vec<TestStep>,
    began: Moment,
    plan: Option<Plan>,
    ours: Option<Ours>,
}

impl<'a> Testing<'a> {
    pub(crate) fn begin(broker: &'a Broker, row: &'a Connection, told: Told<'a>) -> Self {
        let (trace, began) = (broker.traces.enter(&row.id), broker.clock.moment());
        Self { broker, row, trace, told, steps: Vec::new(), began, plan: None, ours: None }
    }

    pub(crate) fn report(self) -> TestReport {
        TestReport { ok: self.steps.iter().all(|step| step.ok), steps: self.steps }
    }

    /// Whether what is set up makes requests, to addresses that may be called; and whether the provider's document is there, if there should be one.
    pub(crate) async fn settings(&mut self) -> Result<bool> {
        let (broker, row) = (self.broker, self.row);
        let integration = broker.opened_integration(&row.integration).await?;
        let tokens = self.tokens()?;
        let definition = match broker.definition_of(&integration).await {
            Ok(definition) => definition,
            Err(error) => return Ok(self.fail("settings", &error, Failing::Said)),
        };
        let mut step = "settings";
        let mut document = None;
        match broker.discovery_of(&definition, &integration, row, tokens.as_ref()) {
            Err(error) => return Ok(self.fail(step, &error, Failing::Said)),
            Ok(None) => {}
            Ok(Some(discovery)) => {
                let issuer = &discovery.issuer;
                self.hold(
                    step,
                    format!("The settings are complete; the provider's addresses are in the document of {issuer}."),
                );
                step = "discovery";
                match broker.discover_anew(&discovery, &[Arc::clone(&self.trace)]).await {
                    Ok(found) => document = Some(found),
                    Err(error) => return Ok(self.fail(step, &error, Failing::Said)),
                }
            }
        }
        let plan = match broker.plan(row, tokens.as_ref()).await {
            Ok(plan) => plan,
            Err(error @ (Error::Store(_) | Error::Vault(_))) => return Err(error),
            Err(error) => return Ok(self.fail(step, &error, Failing::Said)),
        };
        self.ours = Some(ours(broker, &definition, &integration, &plan, document.as_ref()));
        let token_url = &plan.rendered.token.url;
        for url in std::iter::once(token_url).chain(&plan.rendered.api.base_url) {
            if let Err(error) = broker.egress.check(url) {
                return Ok(self.fail(step, &error.into(), Failing::Said));
            }
        }
        let scopes = plan.rendered.requested_scopes.join(" ");
        let asked = if scopes.is_empty() { "no scope".to_owned() } else { format!("`{scopes}`") };
        let message = format!(
            "The token endpoint is {}{}; the client authenticates by `{}` and asks for {asked}.",
            token_url.origin().ascii_serialization(),
            token_url.path(),
            plan.rendered.token.client_auth.as_str()
        );
        self.plan = Some(plan);
        Ok(self.hold(step, message))
    }

    /// Reads what is set up, for a judgement of what failed already. What can't be read is not judged by.
    pub(crate) async fn know_settings(&mut self) {
        let (broker, row) = (self.broker, self.row);
        let read = async {
            let integration = broker.opened_integration(&row.integration).await?;
            let definition = broker.definition_of(&integration).await?;
            let plan = broker.plan(row, self.tokens()?.as_ref()).await?;
            Ok::<_, Error>((ours(broker, &definition, &integration, &plan, None), plan))
        };
        if let Ok((ours, plan)) = read.await {
            (self.ours, self.plan) = (Some(ours), Some(plan));
        }
    }

    fn tokens(&self) -> Result<Option<TokenSet>> {
        let row = self.row;
        let open = |sealed| self.broker.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed);
        row.token_set.as_deref().map(open).transpose()
    }

    /// A token to go on with: a new one where no person is needed, `anew` is wanted and none will be renewed anyway; else the one in hand.
    pub(crate) async fn token(&mut self, wish: TestWish, anew: bool) -> Option<Arc<Live>> {
        let (broker, row) = (self.broker, self.row);
        let for_a_person = self.plan.as_ref().is_none_or(|plan| plan.rendered.grant.needs_a_person());
        let will_be_renewed = wish.renew && row.token_set.is_some();
        let anew = anew && !for_a_person && !will_be_renewed && !self.is_too_young();
        let outcome = if anew {
            broker.asked_anew(row).await
        } else {
            match broker.live_of_row(row).await {
                Ok(live) => broker.fresh(live, Some(Duration::ZERO)).await,
                Err(error) => Err(error),
            }
        };
        match outcome {
            Ok(live) => {
                self.hide(&live);
                let renewed = live.generation > row.generation;
                let message = token_message(live.expires_at, broker.now_ms(), anew, renewed);
                self.hold("token", message);
                Some(live)
            }
            Err(error) => {
                let failing =
                    if self.has_nothing_to_renew_with() { Failing::NothingToRenewWith } else { Failing::Said };
                self.fail("token", &error, failing);
                None
            }
        }
    }

    /// A newer token, where `wish` wants one.
    pub(crate) async fn renewal(&mut self, wish: TestWish, live: Arc<Live>) -> Option<Arc<Live>> {
        // What was asked anew just now is new.
        if !wish.renew || live.generation > self.row.generation {
            return Some(live);
        }
        if self.has_nothing_to_renew_with() {
            let error = Error::NotPossible(
                "there is no refresh token, so this connection can't be renewed without a person".to_owned(),
            );
            self.fail("renewal", &error, Failing::NothingToRenewWith);
            return None;
        }
        match self.broker.asked_anew(self.row).await {
            Ok(renewed) => {
                self.hide(&renewed);
                let generation = renewed.generation;
                let told = expiry(renewed.expires_at, self.broker.now_ms());
                self.hold("renewal", format!("The provider gave a new token, generation {generation}; {told}."));
                Some(renewed)
            }
            Err(error) => {
                self.fail("renewal", &error, Failing::Said);
                None
            }
        }
    }

    /// What the provider says of the token, where it can be asked (RFC 7662). That it doesn't answer is no fault of the connection's.
    pub(crate) async fn introspection(&mut self, live: &Live) -> bool {
        let broker = self.broker;
        let asked = async {
            let id = live.id.clone();
            let row = broker.store.read(move |tx| tx.connection_by_id(&id)).await.ok()??;
            let sealed = row.token_set.as_deref()?;
            let tokens = broker.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed).ok()?;
            let plan = broker.plan(&row, Some(&tokens)).await.ok()?;
            plan.rendered.introspect.as_ref()?;
            Some(broker.introspect(&plan, &tokens.access_token).await)
        };
        match asked.await {
            None => true,
            Some(Ok(told)) if told.active => {
                let expiry = told.expires_at.map(|at| format!("; {}", expiry(Some(at), broker.now_ms())));
                let message = format!("The provider says that the token is active{}.", expiry.unwrap_or_default());
                self.hold("introspection", message)
            }
            Some(Ok(_)) => {
                let message = "The provider says that the token is not active.".to_owned();
                let remedy = "Refresh the connection; if it stays so, authorise it again.".to_owned();
                self.end("introspection", false, message, Some(remedy), Some(Cause::Expired))
            }
            Some(Err(error)) => {
                let why = sentence(error.to_string());
                self.hold("introspection", format!("The provider doesn't say whether the token is active: {why}"))
            }
        }
    }

    /// The definition's cheap call.
    async fn call(&mut self, live: &Arc<Live>) -> bool {
        let api = match self.broker.api_access(live).await {
            Ok(api) => api,
            // No base URL: there is nothing to call, which is no fault.
            Err(Error::Invalid(_)) => return true,
            Err(error) => return self.fail("call", &error, Failing::Said),
        };
        let Some(verify) = &api.api.verify else { return true };
        let answer = match self.verified(live, api, verify).await {
            Ok(answer) => answer,
            Err(error) => return self.fail("call", &error, Failing::Said),
        };
        let (path, status) = (verify.path.split('?').next().unwrap_or_default(), answer.status);
        let answered = format!("{} {path} answered {}", verify.method, status.as_u16());
        if answer.fits {
            return self.hold("call", format!("{answered}."));
        }
        let known = known_error(&api.known_errors, ErrorPhase::Api, |code| answer.says(code));
        let meaning = known.and_then(|known| known.meaning.clone()).map(sentence).unwrap_or_default();
        let message = match status.is_success() {
            true => format!("{answered}, but not what a working connection is told. {meaning}"),
            false => format!("{} {path} answered {status}. {meaning}", verify.method),
        };
        self.refused_call(live, api, message.trim_end().to_owned(), known.map(|known| known.remedy.clone()))
    }

    /// The API answered, but not as it should. `remedy` is the definition's, which knows best.
    pub(crate) fn refused_call(
        &mut self,
        live: &Live,
        api: &ApiAccess,
        message: String,
        remedy: Option<String>,
    ) -> bool {
        let (exchanges, seen) = self.trace.take();
        let status = seen.as_ref().and_then(|seen| seen.status).unwrap_or_default();
        let evidence = Evidence {
            failing: Failing::Call(Box::new(called(live, api))),
            code: None,
            said: &message,
            seen: seen.as_ref(),
            ours: self.ours.as_ref(),
            now: self.broker.now_ms(),
        };
        let (found, own) = cause(&evidence);
        let remedy = remedy.or(own).unwrap_or_else(|| call_remedy(status).to_owned());
        self.add("call", false, message, Some(remedy), Some(found), exchanges)
    }

    /// Makes the definition's cheap call.
    async fn verified(&self, live: &Live, api: &ApiAccess, verify: &Verify) -> Result<Answered> {
        let broker = self.broker;
        let (path, query) = verify.path.split_once('?').map_or((verify.path.as_str(), None), |(p, q)| (p, Some(q)));
        let uri = build(api, &api.base, Asked { path, query, host: None })?;
        let _turn = broker.turn(live, api).await?;
        let mut headers: HeaderMap = verify.headers.iter().cloned().collect();
        let mut sent = Bytes::new();
        if let Some((content_type, body)) = verify.body() {
            headers.insert(header::CONTENT_TYPE, content_type);
            sent = Bytes::copy_from_slice(body.expose());
        }
        let outgoing = Outgoing { method: &verify.method, headers, kept: Some(&sent) };
        let request = outgoing.request(api, uri, full(sent.clone()))?;
        let line = format!("{} {}", request.method(), redact::url(request.uri()));
        let mut noted = Exchange {
            to: "api",
            request: shown(line, request.headers(), &sent, Kind::Sent),
            reply: None,
            failure: None,
            took_ms: 0,
        };
        let began = broker.clock.moment();
        let response = match broker.send_once(api, &api.base, request).await {
            Ok(response) => response,
            Err(error) => {
                noted.took_ms = millis(broker.clock.since(began));
                noted.failure = Some(error.to_string());
                self.trace.note(noted, Seen { fault: fault_of(&error), ..Seen::default() });
                return Err(error);
            }
        };
        let (response, expired) = broker.judged(api, Via::Connection, &verify.method, response).await?;
        let (head, body) = response.into_parts();
        let (status, read) = (head.status, read(body).await);
        noted.took_ms = millis(broker.clock.since(began));
        let body = read.clone().unwrap_or_default();
        noted.reply = Some(shown(status_line(status.as_u16()), &head.headers, &body, Kind::Plain));
        self.trace.note(noted, Seen::reply(status.as_u16(), &head.headers, &body));
        if read.is_none() && verify.expect.is_some() {
            return Err(Error::Gone("the API's answer broke off, or is larger than 1 MiB"));
        }
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_expected = verify.expect.as_ref().is_none_or(|expect| expect.holds(&said));
        Ok(Answered { status, fits: status.is_success() && is_expected && !expired, body })
    }

    /// Notes a call that went another way than [`Self::verified`].
    pub(crate) fn note(&self, exchange: Exchange, seen: Seen) {
        self.trace.note(exchange, seen);
    }

    /// Its tokens are in nothing that is told.
    pub(crate) fn hide(&self, live: &Live) {
        self.trace.hide(std::iter::once(&live.access_token));
        self.trace.hide(live.secondary.values().map(|it| &it.access_token));
    }

    fn is_too_young(&self) -> bool {
        let young = |plan: &Plan| too_young(self.row, plan, self.broker.now_ms()).is_some();
        self.plan.as_ref().is_some_and(young) && self.row.token_set.is_some()
    }

    /// Only a person could bring a new token.
    fn has_nothing_to_renew_with(&self) -> bool {
        let Some(plan) = &self.plan else { return false };
        let Ok(Some(tokens)) = self.tokens() else { return false };
        plan.rendered.grant.needs_a_person() && spent_for_renewal(plan, Some(&tokens)).is_none()
    }

    pub(crate) fn hold(&mut self, name: &'static str, message: String) -> bool {
        self.end(name, true, message, None, None)
    }

    /// Ends with a failure, and judges what is behind it.
    pub(crate) fn fail(&mut self, name: &'static str, error: &Error, failing: Failing) -> bool {
        let now = self.broker.now_ms();
        let said = Said::of(error, now);
        let (exchanges, seen) = self.trace.take();
        let seen = seen.or_else(|| said.fault.clone().map(|fault| Seen { fault: Some(fault), ..Seen::default() }));
        let evidence = Evidence {
            failing,
            code: said.code.as_deref(),
            said: &said.message,
            seen: seen.as_ref(),
            ours: self.ours.as_ref(),
            now,
        };
        let is_dead = matches!(evidence.failing, Failing::NothingToRenewWith);
        let (found, own) = match of_own_refusal(error).filter(|_| !is_dead) {
            Some((found, remedy)) => (found, Some(remedy.to_owned())),
            None if said.code.is_some() || seen.is_some() || is_dead => cause(&evidence),
            None => (Cause::Other, None),
        };
        let remedy = if self.is_certain(&said) { said.remedy.or(own) } else { own.or(said.remedy) };
        self.add(name, false, said.message, remedy, Some(found), exchanges)
    }

    /// Whether the remedy is the definition's own word, or that of a secret whose end is known.
    fn is_certain(&self, said: &Said) -> bool {
        let Some((plan, remedy)) = self.plan.as_ref().zip(said.remedy.as_deref()) else { return false };
        let is_ended = plan.client_secret_expires_at.is_some_and(|at| at <= self.broker.now_ms());
        let is_of_definition = |known: &KnownError| known.remedy == remedy;
        plan.rendered.known_errors.iter().any(is_of_definition)
            || (is_ended && said.code.as_deref() == Some("invalid_client"))
    }

    fn end(
        &mut self,
        name: &'static str,
        ok: bool,
        message: String,
        remedy: Option<String>,
        cause: Option<Cause>,
    ) -> bool {
        let (exchanges, _) = self.trace.take();
        self.add(name, ok, message, remedy, cause, exchanges)
    }

    fn add(
        &mut self,
        name: &'static str,
        ok: bool,
        message: String,
        remedy: Option<String>,
        cause: Option<Cause>,
        exchanges: Vec<Exchange>,
    ) -> bool {
        let took_ms = millis(self.broker.clock.since(self.began));
        self.began = self.broker.clock.moment();
        let remedy = remedy.or_else(|| (!ok).then(|| UNKNOWN.to_owned()));
        let (message, remedy) = (self.trace.hidden(&message), remedy.map(|remedy| self.trace.hidden(&remedy)));
        let step = TestStep { name, ok, message, remedy, cause, exchanges, took_ms };
        (self.told)(&step);
        self.steps.push(step);
        ok
    }
}

impl Broker {
    /// A newer token set than the row's, because a person wants one.
    async fn asked_anew(&self, row: &Connection) -> Result<Arc<Live>> {
        let wish = Wish { enough: Enough::NewerThan(row.generation), urgency: Urgency::Person };
        self.wait_for(WAIT, self.renew(&row.id, wish)).await
    }
}

/// What of the settings can be what is wrong.
fn ours(
    broker: &Broker,
    definition: &Definition,
    integration: &Integration,
    plan: &Plan,
    document: Option<&Metadata>,
) -> Ours {
    let method = definition.method(Some(&integration.method)).ok();
    let known = method.map_or(&definition.scopes, |method| &method.scopes).known.iter().map(|(name, _)| name.clone());
    let of_document = document.and_then(|document| document.scopes_supported.clone()).unwrap_or_default();
    let texts = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let setup = method.map_or(&definition.setup, |method| &method.setup);
    let rendered = &plan.rendered;
    Ours {
        grant: rendered.grant,
        client_auth: rendered.token.client_auth,
        offered_auth: texts(document.and_then(|it| it.token_endpoint_auth_methods_supported.as_ref())),
        scopes: rendered.requested_scopes.clone(),
        known_scopes: if of_document.is_empty() { known.collect() } else { of_document },
        methods: definition.methods.iter().map(|method| method.name.clone()).collect(),
        offered_grants: texts(document.and_then(|it| it.grant_types_supported.as_ref())),
        redirect_uri: rendered.authorize.as_ref().map(|_| broker.redirect_uri(&integration.id)),
        audience: integration.audience.clone(),
        consent_params: rendered
            .authorize
            .iter()
            .flat_map(|authorize| authorize.params.iter())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        setup: std::iter::once(setup.text.as_str())
            .chain(setup.steps.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

fn called(live: &Live, api: &ApiAccess) -> Called {
    let in_header =
        |place: &PlaceOfToken| matches!(place, PlaceOfToken::Header(name) if *name == header::AUTHORIZATION);
    let main = api.api.token.iter().find(|it| it.secondary.is_none() && in_header(&it.place));
    Called {
        host: api.api.base_url.as_ref().and_then(|url| url.host_str()).unwrap_or_default().to_owned(),
        expires_at: live.expires_at,
        claims: Claims::of(live.access_token.expose()),
        granted: live.scope.clone(),
        prefix: main.map(|placement| placement.prefix.clone()),
    }
}

/// An error as a step tells it.
struct Said {
    message: String,
    remedy: Option<String>,
    code: Option<String>,
    fault: Option<EgressFault>,
}

impl Said {
    fn of(error: &Error, now: i64) -> Self {
        let of_failure = |failure: &Failure, fault| Self {
            message: failure.message.clone(),
            remedy: Some(failure.remedy.clone()).filter(|remedy| !remedy.is_empty()),
            code: failure.code.clone(),
            fault,
        };
        match error {
            Error::NotReady { failure: Some(failure), .. } | Error::Exchange(failure) => of_failure(failure, None),
            Error::Egress(egress) | Error::DiscoveryUnreachable(egress) => {
                of_failure(&explain::unreachable(egress, now).failure, Some(egress.what.clone()))
            }
            other => Self { message: sentence(other.to_string()), remedy: None, code: None, fault: None },
        }
    }
}

fn fault_of(error: &Error) -> Option<EgressFault> {
    match error {
        Error::Egress(egress) => Some(egress.what.clone()),
        _ => None,
    }
}

/// A whole body, if it is not too large.
async fn read(mut body: Body) -> Option<Bytes> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > VERIFIED_BODY {
            return None;
        }
    }
    Some(read.freeze())
}

/// What came of the definition's cheap call.
struct Answered {
    status: StatusCode,
    /// It is what the definition expects of a connection that works.
    fits: bool,
    body: Bytes,
}

impl Answered {
    /// Whether a word of the answer is this code.
    fn says(&self, code: &str) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.')).any(|word| word == code)
    }
}

/// An API's answer to a call that went through the gateway, as it is shown.
pub(crate) fn exchange_of(
    method: &Method,
    url: &str,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    took_ms: i64,
) -> (Exchange, Seen) {
    let uri = url.parse().unwrap_or_default();
    let request = shown(format!("{method} {}", redact::url(&uri)), &HeaderMap::new(), &[], Kind::Sent);
    let reply = Some(shown(status_line(status), headers, body, Kind::Plain));
    (Exchange { to: "api", request, reply, failure: None, took_ms }, Seen::reply(status, headers, body))
}

pub(crate) fn call_remedy(status: u16) -> &'static str {
    match status {
        401 => {
            "The API doesn't accept the token: check the audience and the header prefix, then refresh or authorise again."
        }
        403 => "The token is valid but may not do this: check the scopes, and the account's rights at the provider.",
        404 => "Check the API base URL.",
        429 => "The API limits the calls; try again later.",
        500.. => "The API has a problem; try again later.",
        _ => "Compare the API base URL with the provider's documentation.",
    }
}

fn token_message(expires_at: Option<i64>, now: i64, anew: bool, renewed: bool) -> String {
    let which = match (anew, renewed) {
        (true, _) => "The provider gave a new token",
        (false, true) => "The token had expired and was renewed",
        (false, false) => "A token is there",
    };
    format!("{which}; {}.", expiry(expires_at, now))
}

fn expiry(expires_at: Option<i64>, now: i64) -> String {
    match expires_at {
        Some(at) => format!("it expires in {} s", (at - now).max(0) / 1000),
        None => "the provider doesn't say when it expires".to_owned(),
    }
}
