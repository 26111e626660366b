//! A connection's page, and what is done with it there.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{Connection, Event, Failure, Happened, Said, Scope, Status, Values};
use keyholder_broker::store::UsageGroup;
use keyholder_broker::{
    Authorize, Broker, Error, Page, RevocationOutcome, ShownConnection, UsageFilter, redirect_difference,
};
use keyholder_provider::{Definition, GrantKind, Method};
use serde::Deserialize;

use super::super::App;
use super::super::input::{InPath, InQuery};
use super::super::problem::ApiError;
use super::advice::Shown as Advice;
use super::forms::{Posted, Time};
use super::render::Confirm;
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

/// So much of its history is shown.
const EVENTS: i64 = 50;
/// Who used it is summed up over so many milliseconds.
const USED_WITHIN: i64 = 30 * 24 * 3600 * 1000;

#[derive(Template)]
#[template(path = "console/connection.html")]
struct ConnectionPage<'a> {
    page: Frame<'a>,
    it: Shown,
}

/// A connection as its page shows it.
struct Shown {
    id: String,
    name: String,
    state: &'static str,
    color: &'static str,
    provider: String,
    integration: String,
    integration_href: String,
    method: String,
    failure: Option<ShownFailure>,
    advice: Vec<Advice>,
    waiting: bool,
    may_manage: bool,
    may_refresh: bool,
    authorize_label: &'static str,
    facts: Vec<Fact>,
    scopes: Vec<ShownScope>,
    tags: Vec<(String, String)>,
    events: Vec<ShownEvent>,
    /// `None`: whoever looks may not see it.
    users: Option<Vec<User>>,
}

struct ShownFailure {
    message: String,
    remedy: String,
    code: Option<String>,
    at: Time,
    next_try_at: Option<Time>,
}

struct Fact {
    label: &'static str,
    text: String,
    time: Option<Time>,
    distance: bool,
}

/// A scope that was asked for or granted.
#[derive(Debug, PartialEq, Eq)]
struct ShownScope {
    name: String,
    /// `both`, `missing`, `more`, or `unknown`.
    state: &'static str,
}

/// Something that happened to a connection.
pub(super) struct ShownEvent {
    pub(super) id: String,
    pub(super) tone: &'static str,
    pub(super) at: Time,
    /// Which connection, where that isn't clear.
    pub(super) of: Option<String>,
    pub(super) href: String,
    pub(super) message: String,
}

impl From<Event> for ShownEvent {
    fn from(event: Event) -> Self {
        let (id, tone, at) = (event.id.to_string(), tone(&event.kind), Time::at(event.at));
        Self { id, tone, at, of: None, href: String::new(), message: event.message }
    }
}

impl From<Happened> for ShownEvent {
    fn from(event: Happened) -> Self {
        Self {
            id: event.id.to_string(),
            tone: tone(&event.kind),
            at: Time::at(event.at),
            of: event.name,
            href: places::connection(event.connection.as_str()),
            message: event.message,
        }
    }
}

struct User {
    href: String,
    name: String,
    hand_outs: i64,
    calls: i64,
    errors: i64,
}

/// `GET /console/connections/{connection}`.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let found = Found::of(&app.broker, &person, &name).await?;
    let events = app.broker.history(&person.caller, &found.shown.connection.id.to_string(), EVENTS).await?;
    let users = if person.may(Scope::Admin) { Some(users(&app.broker, &person, &found).await?) } else { None };
    let advice = app.broker.advice_on(&person.caller, &found.shown.connection.id).await?;
    let live = places::events(Some(found.shown.connection.id.as_str()));
    let page = frame(&app, &person, Menu::Connections).await.live(live);
    let advice = advice.into_iter().map(Advice::from).collect();
    let it = Shown { advice, ..shown(&person, found, events, users) };
    Ok(render::page(&person, StatusCode::OK, &ConnectionPage { page, it }))
}

/// A connection with its definition's words for it.
pub(super) struct Found {
    pub(super) shown: ShownConnection,
    /// The provider's name, for people.
    pub(super) provider: String,
    /// What was asked for.
    asked: Vec<String>,
    grant: Option<GrantKind>,
    redirect_uri: String,
}

impl Found {
    pub(super) async fn of(broker: &Broker, person: &Person, name: &str) -> Result<Self, Error> {
        let shown = broker.connection(&person.caller, name).await?;
        let integration = broker.integration(&person.caller, shown.connection.integration.as_str()).await?;
        let definition = broker.definition_of(&integration).await.ok();
        let method = definition.as_deref().and_then(|it| it.method(Some(&integration.method)).ok());
        Ok(Self {
            provider: definition.as_deref().map_or_else(|| shown.provider.clone(), |it| it.name.clone()),
            asked: asked(&integration.scopes, definition.as_deref(), method),
            grant: method.map(|method| method.grant),
            redirect_uri: broker.redirect_uri(&integration.id),
            shown,
        })
    }

    fn row(&self) -> &Connection {
        &self.shown.connection
    }

    pub(super) fn id(&self) -> String {
        self.row().id.to_string()
    }

    pub(super) fn needs_a_person(&self) -> bool {
        self.grant.is_none_or(GrantKind::needs_a_person)
    }

    /// There is a consent in a browser, which leads back here.
    pub(super) fn redirect_uri(&self) -> Option<&str> {
        (self.grant == Some(GrantKind::AuthorizationCode)).then_some(&*self.redirect_uri)
    }
}

fn asked(chosen: &[String], definition: Option<&Definition>, method: Option<&Method>) -> Vec<String> {
    let Some(rules) = method.map(|it| &it.scopes).or(definition.map(|it| &it.scopes)) else { return chosen.to_vec() };
    let chosen = if chosen.is_empty() { &rules.default } else { chosen };
    let words = chosen.iter().chain(&rules.always).flat_map(|scope| scope.split_whitespace());
    let mut asked: Vec<String> = Vec::new();
    for word in words {
        if !asked.iter().any(|it| it == word) {
            asked.push(word.to_owned());
        }
    }
    asked
}

fn shown(person: &Person, found: Found, events: Vec<Event>, users: Option<Vec<User>>) -> Shown {
    let scopes = compared(&found.asked, found.row().scope.as_deref());
    let needs_a_person = found.needs_a_person();
    let Found { shown, provider, .. } = found;
    let row = shown.connection;
    let status = row.state.status();
    let may_manage = person.may(Scope::Manage);
    let has_tokens = matches!(status, Status::Connected | Status::Failing | Status::Reconnect);
    Shown {
        id: row.id.to_string(),
        state: status.as_str(),
        color: color(status),
        provider,
        integration_href: places::integration(row.integration.as_str()),
        integration: shown.integration,
        method: shown.method,
        failure: row.state.failure().map(shown_failure),
        advice: Vec::new(),
        waiting: status == Status::Pending,
        may_manage,
        may_refresh: may_manage && (has_tokens || !needs_a_person && status != Status::Revoked),
        authorize_label: match status {
            Status::Draft | Status::Pending => "Connect",
            Status::Reconnect | Status::Revoked => "Connect again",
            Status::Connected | Status::Failing => "Authorise again",
        },
        facts: facts(&row),
        scopes,
        tags: pairs(&row.tags),
        events: events.into_iter().map(ShownEvent::from).collect(),
        users,
        name: row.name,
    }
}

pub(super) fn color(status: Status) -> &'static str {
    match status {
        Status::Draft | Status::Pending | Status::Revoked => "",
        Status::Connected => "green",
        Status::Failing | Status::Reconnect => "red",
    }
}

fn shown_failure(failure: &Failure) -> ShownFailure {
    ShownFailure {
        message: failure.message.clone(),
        remedy: failure.remedy.clone(),
        code: failure.code.clone(),
        at: Time::at(failure.at),
        next_try_at: failure.next_try_at.map(Time::at),
    }
}

fn facts(row: &Connection) -> Vec<Fact> {
    let text = |label, text: Option<String>| {
        let text = text.filter(|text| !text.is_empty())?;
        Some(Fact { label, text, time: None, distance: false })
    };
    let time = |label, at: Option<i64>, distance| {
        Some(Fact { label, text: String::new(), time: Some(Time::at(at?)), distance })
    };
    let generation = (row.generation > 0).then(|| row.generation.to_string());
    let facts = [
        text("Account", row.account.clone()),
        text("Owner", row.owner.clone()),
        text("User name", row.username.clone()),
        time("Token expires", row.token_expires_at, true),
        time("Next renewal", row.due_at.filter(|_| row.state.status() == Status::Connected), true),
        time("Ends without a person", row.dies_at, true),
        time("Renewed", row.renewed_at, true),
        text("Generation", generation),
        time("Granted", row.connected_at, false),
        time("Made", Some(row.created_at), false),
        text("Id", Some(row.id.to_string())),
    ];
    facts.into_iter().flatten().collect()
}

/// What was asked for beside what was granted. A provider that names nothing grants what was asked for (RFC 6749 §5.1), as far as is known.
fn compared(asked: &[String], granted: Option<&str>) -> Vec<ShownScope> {
    let granted: Option<Vec<&str>> =
        granted.map(|text| text.split([' ', ',']).filter(|scope| !scope.is_empty()).collect());
    let state = |name: &String| match &granted {
        None => "unknown",
        Some(granted) if granted.contains(&name.as_str()) => "both",
        Some(_) => "missing",
    };
    let of_asked = asked.iter().map(|name| ShownScope { name: name.clone(), state: state(name) });
    let more = granted.iter().flatten().filter(|name| !asked.iter().any(|it| it == *name));
    of_asked.chain(more.map(|name| ShownScope { name: (*name).to_owned(), state: "more" })).collect()
}

fn tone(kind: &str) -> &'static str {
    match kind {
        "renewed" | "connected" | "consented" | "recovered" => "good",
        "failed" | "refused" | "declined" | "revoked" | "reconnect" => "bad",
        "ends_soon" | "taken_over" => "warn",
        _ => "",
    }
}

fn pairs(values: &Values) -> Vec<(String, String)> {
    values.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn users(broker: &Broker, person: &Person, found: &Found) -> Result<Vec<User>, Error> {
    let (now, id) = (broker.now_ms(), found.id());
    let filter =
        UsageFilter { from: now - USED_WITHIN, to: now, connection: Some(id.clone()), ..UsageFilter::default() };
    let used = broker.usage(&person.caller, filter, UsageGroup::Caller, &Page::first()).await?;
    let user = |line: keyholder_broker::UsageLine| User {
        href: places::with(places::USAGE, &[("caller", &line.of), ("connection", &id)]),
        // Renewals ahead of need are nobody else's.
        name: line.name.or(Some(line.of).filter(|of| !of.is_empty())).unwrap_or_else(|| "Keyholder itself".to_owned()),
        hand_outs: line.figures.hand_outs,
        calls: line.figures.calls,
        errors: line.figures.client_errors + line.figures.server_errors + line.figures.own_errors,
    };
    let has_used = |line: &keyholder_broker::UsageLine| line.figures.hand_outs + line.figures.calls > 0;
    Ok(used.lines.into_iter().filter(has_used).map(user).collect())
}

/// `POST /console/connections/{connection}/refresh`.
pub(in crate::http) async fn refresh(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    let said = match app.broker.refresh(&person.caller, &name).await {
        Ok(note) => Said::good(format!("The token was renewed; it is number {} of this connection.", note.generation)),
        Err(error @ (Error::NotFound { .. } | Error::Store(_))) => return Err(error.into()),
        Err(error) => Said::bad(render::sentence(&error.to_string())),
    };
    Ok(render::moved(places::connection(&name), said))
}

/// `POST /console/connections/{connection}/cancel`.
pub(in crate::http) async fn cancel(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    app.broker.cancel_authorization(&person.caller, &name).await?;
    let said = Said::good("Given up: the links and codes that were out are worth nothing any more.");
    Ok(render::moved(places::connection(&name), said))
}

#[derive(Template)]
#[template(path = "console/consent.html")]
struct ConsentPage<'a> {
    page: Frame<'a>,
    it: Consent,
}

struct Consent {
    id: String,
    name: String,
    title: String,
    provider: String,
    /// When this began: what comes afterwards is its outcome.
    since: i64,
    connected: bool,
    failure: Option<ShownFailure>,
    asked: Vec<String>,
    /// A refresh token is typed instead of a consent given.
    brings_token: bool,
    needs_a_person: bool,
    button: &'static str,
    link: Option<Link>,
    code: Option<Code>,
    /// To compare what is registered.
    redirect_uri: String,
}

struct Link {
    url: String,
    until: Time,
}

struct Code {
    user_code: String,
    address: String,
    until: Time,
}

/// Where a consent began.
#[derive(Deserialize)]
pub(in crate::http) struct Since {
    since: Option<i64>,
}

fn consent(found: Found, now: i64, since: Option<i64>) -> Consent {
    let row = found.row();
    let after = |at: Option<i64>| since.is_some_and(|since| at.is_some_and(|at| at >= since));
    let brings_token = found.grant == Some(GrantKind::RefreshToken);
    let needs_a_person = found.needs_a_person();
    Consent {
        id: row.id.to_string(),
        name: row.name.clone(),
        title: format!("Connect {} to {}", row.name, found.provider),
        since: since.unwrap_or(now),
        connected: row.state.status() == Status::Connected && after(row.connected_at),
        failure: row.state.failure().filter(|failure| after(Some(failure.at))).map(shown_failure),
        asked: found.asked.clone(),
        brings_token,
        needs_a_person,
        button: match found.grant {
            Some(GrantKind::DeviceCode) => "Have a code made",
            Some(GrantKind::RefreshToken) => "Use this token",
            _ if !needs_a_person => "Connect now",
            _ => "Make the link",
        },
        link: None,
        code: None,
        redirect_uri: found.redirect_uri().unwrap_or_default().to_owned(),
        provider: found.provider,
    }
}

/// `GET /console/connections/{connection}/authorize`.
pub(in crate::http) async fn authorize_page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    InQuery(query): InQuery<Since>,
) -> Result<Response, ApiError> {
    let it = consent(Found::of(&app.broker, &person, &name).await?, app.broker.now_ms(), query.since);
    let page = frame(&app, &person, Menu::Connections).await;
    Ok(render::page(&person, StatusCode::OK, &ConsentPage { page, it }))
}

/// `POST /console/connections/{connection}/authorize`. The link and the code stand in this answer only.
pub(in crate::http) async fn authorize(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    InQuery(query): InQuery<Since>,
    posted: Posted,
) -> Result<Response, ApiError> {
    let done = |said| Ok(render::moved(places::connection(&name), said));
    let outcome = match posted.secret("refresh_token") {
        Some(token) => app
            .broker
            .bring_refresh_token(&person.caller, &name, &token)
            .await
            .map(|()| Authorize::Done(Status::Connected)),
        None => app.broker.authorize(&person.caller, &name, None, None).await,
    };
    let mut it = consent(Found::of(&app.broker, &person, &name).await?, app.broker.now_ms(), query.since);
    match outcome {
        Ok(Authorize::Done(_)) => return done(Said::good("Connected.")),
        Ok(Authorize::Person(link)) => {
            it.link = Some(Link { url: link.url, until: Time::at(link.session.expires_at) });
        }
        Ok(Authorize::Device(code)) => {
            let address = code.verification_uri_complete.unwrap_or(code.verification_uri);
            it.code = Some(Code { user_code: code.user_code, address, until: Time::at(code.expires_at) });
        }
        Err(error @ (Error::NotFound { .. } | Error::Store(_))) => return Err(error.into()),
        Err(error) => return done(Said::bad(render::sentence(&error.to_string()))),
    }
    let page = frame(&app, &person, Menu::Connections).await.live(places::events(Some(&it.id)));
    Ok(render::page(&person, StatusCode::OK, &ConsentPage { page, it }))
}

/// `GET /console/connections/{connection}/disconnect`.
pub(in crate::http) async fn disconnect_page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let after = "Programs that use it get no token from then on. The connection stays in the list with its history; it can be connected again.";
    ask(&app, &person, &name, "Disconnect", after).await
}

/// What ending a connection does at its provider, and then here; and one button.
async fn ask(app: &App, person: &Person, name: &str, button: &'static str, after: &str) -> Result<Response, ApiError> {
    let it = app.broker.connection(&person.caller, name).await?.connection;
    let ahead = app.broker.revocation_ahead(&person.caller, name).await?;
    let confirm = Confirm {
        title: format!("{button} {}?", it.name),
        text: vec![ahead.message(), after.to_owned()],
        button,
        back: places::connection(it.id.as_str()),
    };
    Ok(render::confirm(app, person, Menu::Connections, confirm).await)
}

/// `POST /console/connections/{connection}/disconnect`.
pub(in crate::http) async fn disconnect(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    let (_, outcome) = app.broker.revoke(&person.caller, &name).await?;
    let text = format!("Disconnected. {}", outcome.message());
    let said = match outcome {
        RevocationOutcome::Failed(_) => Said::bad(text),
        _ => Said::good(text),
    };
    Ok(render::moved(places::connection(&name), said))
}

/// `GET /console/connections/{connection}/remove`.
pub(in crate::http) async fn remove_page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let after = "Then it is gone with its history. What it did stays in the audit. This can't be undone.";
    ask(&app, &person, &name, "Remove", after).await
}

/// `POST /console/connections/{connection}/remove`.
pub(in crate::http) async fn remove(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    app.broker.remove_connection(&person.caller, &name).await?;
    Ok(render::moved(places::CONNECTIONS, Said::good("The connection is gone.")))
}

#[derive(Template)]
#[template(path = "console/redirect.html")]
struct RedirectPage<'a> {
    page: Frame<'a>,
    it: Redirect,
}

/// Two redirect URIs, side by side.
struct Redirect {
    id: String,
    name: String,
    sent: String,
    registered: String,
    /// Nothing was given to compare with.
    is_empty: bool,
    difference: Option<Parted>,
}

/// Where two texts part.
struct Parted {
    why: String,
    sent: Letters,
    registered: Letters,
}

/// A text with the letter that differs.
struct Letters {
    before: String,
    letter: String,
    after: String,
}

impl Letters {
    fn at(text: &str, at: usize) -> Self {
        let mut chars = text.chars();
        let before = chars.by_ref().take(at).collect();
        let letter = match chars.next() {
            None => "(ends here)".to_owned(),
            Some(c) if c.is_whitespace() => "␣".to_owned(),
            Some(c) => c.to_string(),
        };
        Self { before, letter, after: chars.collect() }
    }
}

/// What is registered at the provider, as the person copied it.
#[derive(Deserialize)]
pub(in crate::http) struct Registered {
    #[serde(default)]
    registered: String,
}

/// `GET /console/connections/{connection}/redirect?registered=`.
pub(in crate::http) async fn redirect(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    InQuery(Registered { registered }): InQuery<Registered>,
) -> Result<Response, ApiError> {
    let found = Found::of(&app.broker, &person, &name).await?;
    let sent = found.redirect_uri.clone();
    let difference = redirect_difference(&sent, &registered).filter(|_| !registered.is_empty());
    let difference = difference.map(|it| Parted {
        why: it.why,
        sent: Letters::at(&sent, it.at),
        registered: Letters::at(&registered, it.at),
    });
    let is_empty = registered.is_empty();
    let it = Redirect { id: found.id(), name: found.row().name.clone(), sent, registered, is_empty, difference };
    let page = frame(&app, &person, Menu::Connections).await;
    Ok(render::page(&person, StatusCode::OK, &RedirectPage { page, it }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_scopes_are_compared_with_those_asked_for() {
        let asked = ["read".to_owned(), "write".to_owned()];
        let states = |granted| {
            let shown = compared(&asked, granted);
            shown.into_iter().map(|it| (it.name, it.state)).collect::<Vec<_>>()
        };
        let is = |name: &str, state| (name.to_owned(), state);
        assert_eq!(states(Some("read,admin")), [is("read", "both"), is("write", "missing"), is("admin", "more")]);
        assert_eq!(states(None), [is("read", "unknown"), is("write", "unknown")]);
        assert_eq!(states(Some("")), [is("read", "missing"), is("write", "missing")]);
    }

    #[test]
    fn the_letter_that_differs_stands_alone() {
        let letters = |text, at| {
            let Letters { before, letter, after } = Letters::at(text, at);
            (before, letter, after)
        };
        let own = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(letters("aüc", 1), own("a", "ü", "c"));
        assert_eq!(letters("a c", 1), own("a", "␣", "c"));
        assert_eq!(letters("ab", 2), own("ab", "(ends here)", ""));
    }
}
