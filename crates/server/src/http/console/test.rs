//! The test page of connections and data sources: told while the test runs, step by step, without a script.

use std::convert::Infallible;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderName, HeaderValue, StatusCode};
use keyholder_broker::{Cause, Error, Exchange, Shown, ShownSource, TestReport, TestStep, TestWish};
use tokio::sync::mpsc;

use super::super::App;
use super::super::input::InPath;
use super::super::problem::{ApiError, Problem};
use super::connection::Found;
use super::forms::{Field, Posted};
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

/// Stands in the page where the steps go.
const MARK: &str = "<!-- steps -->";

#[derive(Template)]
#[template(path = "console/test.html")]
struct TestPage<'a> {
    page: Frame<'a>,
    it: &'a Subject,
    /// It runs now, and the steps follow.
    runs: bool,
    renews: bool,
}

/// A connection or a data source that is tested.
struct Subject {
    what: What,
    id: String,
    name: String,
    /// The list it stands in, with its address.
    list: (&'static str, &'static str),
    href: String,
    /// What the test does about the token.
    token: String,
    /// A renewal may use up what a person granted.
    for_a_person: bool,
    /// Of a consent in a browser, with the page that compares it.
    redirect: Option<(String, String)>,
    /// Whose connection is meant, where that must be said.
    owner: Option<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Connection,
    Source,
}

impl Subject {
    fn of_connection(found: &Found) -> Self {
        let token = match found.needs_a_person() {
            true => "The token in hand is tested.".to_owned(),
            false => format!("{} is asked for a new token.", found.provider),
        };
        let place = places::connection(&found.id());
        Self {
            what: What::Connection,
            id: found.id(),
            name: found.shown.connection.name.clone(),
            list: ("Connections", places::CONNECTIONS),
            token,
            for_a_person: found.needs_a_person(),
            redirect: found.redirect_uri().map(|uri| (uri.to_owned(), format!("{place}/redirect"))),
            href: place,
            owner: None,
        }
    }

    /// `behind`: the connection, where all callers share one.
    fn of_source(source: &ShownSource, behind: Option<&Found>, owner: &str) -> Self {
        let of_connection = behind.map(Self::of_connection);
        let help = "Each caller has a connection of their own here: say whose is tested.";
        let asks = source.connection.is_none();
        Self {
            what: What::Source,
            id: source.source.id.to_string(),
            name: source.source.name.clone(),
            list: ("Data sources", places::SOURCES),
            href: places::source(source.source.id.as_str()),
            token: "The token in hand is tested, and the call is the data source's health request.".to_owned(),
            for_a_person: behind.is_none_or(Found::needs_a_person),
            redirect: of_connection.and_then(|it| it.redirect),
            owner: asks.then(|| Field::text("owner", "Whose connection", help).value(owner)),
        }
    }

    fn menu(&self) -> Menu {
        match self.what {
            What::Connection => Menu::Connections,
            What::Source => Menu::Sources,
        }
    }

    async fn test(&self, app: &App, person: &Person, wish: TestWish, told: Told<'_>) -> Result<TestReport, Error> {
        let owner = self.owner.as_ref().map(|field| field.value.as_str()).filter(|owner| !owner.is_empty());
        match self.what {
            What::Connection => app.broker.test(&person.caller, &self.id, wish, told).await,
            What::Source => app.broker.test_source(&person.caller, &self.id, owner, wish, told).await,
        }
    }
}

/// Hears of each step when it is over.
type Told<'a> = &'a (dyn Fn(&TestStep) + Send + Sync);

/// A step as a page shows it.
pub(super) struct Step {
    pub(super) number: usize,
    pub(super) title: &'static str,
    pub(super) ok: bool,
    pub(super) message: String,
    pub(super) cause: Option<&'static str>,
    pub(super) remedy: Option<String>,
    pub(super) took_ms: i64,
    pub(super) exchanges: Vec<Exchange>,
}

#[derive(Template)]
#[template(path = "console/test_step.html")]
struct StepPart {
    step: Step,
}

#[derive(Template)]
#[template(path = "console/test_end.html")]
struct EndPart<'a> {
    csrf: &'a str,
    it: &'a Subject,
    ok: bool,
    /// Why the test itself could not go on.
    problem: Option<String>,
    redirect: Option<&'a (String, String)>,
    report: String,
}

/// `GET /console/connections/{connection}/test`: what it will do.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let found = Found::of(&app.broker, &person, &name).await?;
    Ok(before(&app, &person, &Subject::of_connection(&found)).await)
}

/// `POST /console/connections/{connection}/test`: runs it, and sends each step when it is over.
pub(in crate::http) async fn run(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    posted: Posted,
) -> Result<Response, ApiError> {
    let found = Found::of(&app.broker, &person, &name).await?;
    Ok(running(app, person, Subject::of_connection(&found), &posted).await?)
}

/// `GET /console/sources/{source}/test`: what it will do.
pub(in crate::http) async fn source_page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let subject = source(&app, &person, &name, "").await?;
    Ok(before(&app, &person, &subject).await)
}

/// `POST /console/sources/{source}/test`: runs it, and sends each step when it is over.
pub(in crate::http) async fn run_source(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    posted: Posted,
) -> Result<Response, ApiError> {
    let subject = source(&app, &person, &name, posted.one("owner")).await?;
    Ok(running(app, person, subject, &posted).await?)
}

async fn source(app: &App, person: &Person, name: &str, owner: &str) -> Result<Subject, Error> {
    let source = app.broker.source(&person.caller, name).await?;
    let behind = match &source.connection {
        Some(connection) => Some(Found::of(&app.broker, person, connection).await?),
        None => None,
    };
    Ok(Subject::of_source(&source, behind.as_ref(), owner))
}

async fn before(app: &App, person: &Person, it: &Subject) -> Response {
    let page = frame(app, person, it.menu()).await;
    render::page(person, StatusCode::OK, &TestPage { page, it, runs: false, renews: false })
}

async fn running(app: App, person: Person, it: Subject, posted: &Posted) -> Result<Response, Error> {
    let wish = TestWish { renew: posted.flag("renew") };
    let page = frame(&app, &person, it.menu()).await;
    let whole = TestPage { page, it: &it, runs: true, renews: wish.renew }.render();
    let whole = whole.map_err(|_| Error::Internal("the test page could not be rendered"))?;
    let (head, foot) = whole.split_once(MARK).map_or((whole.clone(), String::new()), |(a, b)| (a.into(), b.into()));
    let (send, receive) = mpsc::unbounded_channel();
    // Whoever goes away leaves the test to its end; what it learnt is recorded.
    let _ = send.send(Bytes::from(head));
    tokio::spawn(async move {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let told = |step: &TestStep| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            let part = StepPart { step: Step::of(number, step) };
            let _ = send.send(Bytes::from(part.render().unwrap_or_default()));
        };
        let outcome = it.test(&app, &person, wish, &told).await;
        let _ = send.send(Bytes::from(end_part(&person, &it, outcome)));
        let _ = send.send(Bytes::from(foot));
    });
    Ok(streamed(receive))
}

fn streamed(receive: mpsc::UnboundedReceiver<Bytes>) -> Response {
    let parts = stream::unfold(receive, |mut receive| async move {
        let part = receive.recv().await?;
        Some((Ok::<_, Infallible>(part), receive))
    });
    let mut response = (StatusCode::OK, render::headers(), Body::from_stream(parts)).into_response();
    // Proxies that keep a reply until it is whole would keep the progress, too.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

impl Step {
    pub(super) fn of(number: usize, step: &TestStep) -> Self {
        Self {
            number,
            title: title(step.name),
            ok: step.ok,
            message: step.message.clone(),
            cause: step.cause.map(cause_in_words),
            remedy: step.remedy.clone(),
            took_ms: step.took_ms,
            exchanges: step.exchanges.clone(),
        }
    }
}

fn end_part(person: &Person, it: &Subject, outcome: Result<TestReport, Error>) -> String {
    let (ok, problem, report) = match &outcome {
        Ok(report) => (report.ok, None, in_text(report)),
        Err(error) => {
            let problem = Problem::of(error);
            problem.log();
            (false, Some(render::sentence(&error.to_string())), String::new())
        }
    };
    let redirect = it.redirect.as_ref().filter(|_| !ok);
    EndPart { csrf: &person.csrf, it, ok, problem, redirect, report }.render().unwrap_or_default()
}

fn title(name: &str) -> &'static str {
    match name {
        "settings" => "Settings",
        "discovery" => "Discovery document",
        "token" => "Token",
        "renewal" => "Renewal",
        "introspection" => "What the provider says of the token",
        "call" => "A call of the API",
        _ => "Step",
    }
}

fn cause_in_words(cause: Cause) -> &'static str {
    match cause {
        Cause::InvalidClient => "client id, secret, or how the client authenticates",
        Cause::RedirectMismatch => "the redirect URI isn't the registered one",
        Cause::InvalidScope => "a scope that the provider doesn't know or give",
        Cause::WrongGrant => "this grant isn't allowed or offered",
        Cause::Unreachable => "nothing answers at the address",
        Cause::Refused => "this installation's own rules forbid the address",
        Cause::Tls => "the certificate, or no TLS at this address",
        Cause::Clock => "a clock that is wrong",
        Cause::NotJson => "a page or a garbled text instead of data",
        Cause::Expired => "the token has ended",
        Cause::Audience => "the token is meant for another API",
        Cause::InsufficientScope => "a scope or a right is missing",
        Cause::HeaderPrefix => "how the token is sent, or a token that was revoked",
        Cause::NoRefreshToken => "there is no refresh token",
        Cause::GrantDead => "the provider ended the grant",
        Cause::RateLimited => "asked too often",
        Cause::ProviderDown => "the provider has a problem of its own",
        Cause::NotConnected => "there is no connection that is connected",
        Cause::NotAllowed => "the data source's own rules",
        Cause::Settings => "a setting that is missing, or that can't be used",
        Cause::Other => "not known; the message says all there is",
    }
}

/// The whole report as text, for a colleague or the provider's support.
fn in_text(report: &TestReport) -> String {
    let mut lines = Vec::new();
    for step in &report.steps {
        let verdict = if step.ok { "held" } else { "FAILED" };
        lines.push(format!("{} ({verdict}, {} ms): {}", title(step.name), step.took_ms, step.message));
        lines.extend(step.cause.map(|cause| format!("  Probable cause: {}", cause_in_words(cause))));
        lines.extend(step.remedy.as_ref().map(|remedy| format!("  What to do: {remedy}")));
        for exchange in &step.exchanges {
            lines.extend(message_in_text(">", &exchange.request));
            lines.extend(exchange.reply.iter().flat_map(|reply| message_in_text("<", reply)));
            lines.extend(exchange.failure.as_ref().map(|why| format!("  ! {why}")));
        }
    }
    lines.join("\n")
}

fn message_in_text(mark: &str, message: &Shown) -> Vec<String> {
    let headers = message.headers.iter().map(|(name, value)| format!("{name}: {value}"));
    let lines = std::iter::once(message.line.clone()).chain(headers).chain(message.body.lines().map(str::to_owned));
    lines.map(|line| format!("  {mark} {line}")).collect()
}
