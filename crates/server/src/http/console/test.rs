//! The test page: told while the test runs, step by step, without a script.

use std::convert::Infallible;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderName, HeaderValue, StatusCode};
use keyholder_broker::{Cause, Exchange, Shown, TestReport, TestStep, TestWish};
use tokio::sync::mpsc;

use super::super::App;
use super::super::input::InPath;
use super::super::problem::{ApiError, Problem};
use super::connection::Found;
use super::forms::Posted;
use super::session::Person;
use super::{Frame, Menu, frame, render};

/// Stands in the page where the steps go.
const MARK: &str = "<!-- steps -->";

#[derive(Template)]
#[template(path = "console/test.html")]
struct TestPage<'a> {
    page: Frame<'a>,
    it: Tested,
}

/// What is tested.
struct Tested {
    id: String,
    name: String,
    provider: String,
    needs_a_person: bool,
    /// It runs now, and the steps follow.
    runs: bool,
    renews: bool,
}

/// A step as the page shows it.
#[derive(Template)]
#[template(path = "console/test_step.html")]
pub(super) struct StepPart {
    number: usize,
    title: &'static str,
    tone: &'static str,
    verdict: &'static str,
    message: String,
    cause: Option<&'static str>,
    remedy: Option<String>,
    took_ms: i64,
    exchanges: Vec<Exchange>,
}

#[derive(Template)]
#[template(path = "console/test_end.html")]
struct EndPart<'a> {
    csrf: &'a str,
    id: &'a str,
    needs_a_person: bool,
    ok: bool,
    /// Why the test itself could not go on.
    problem: Option<String>,
    redirect_uri: Option<&'a str>,
    report: String,
}

fn tested(found: &Found, runs: bool, renews: bool) -> Tested {
    Tested {
        id: found.id(),
        name: found.shown.connection.name.clone(),
        provider: found.provider.clone(),
        needs_a_person: found.needs_a_person(),
        runs,
        renews,
    }
}

/// `GET /console/connections/{connection}/test`: what it will do.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let found = Found::of(&app.broker, &person, &name).await?;
    let page = frame(&app, &person, Menu::Connections).await;
    Ok(render::page(&person, StatusCode::OK, &TestPage { page, it: tested(&found, false, false) }))
}

/// `POST /console/connections/{connection}/test`: runs it, and sends each step when it is over.
pub(in crate::http) async fn run(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    posted: Posted,
) -> Result<Response, ApiError> {
    let wish = TestWish { renew: posted.flag("renew") };
    let found = Found::of(&app.broker, &person, &name).await?;
    let page = frame(&app, &person, Menu::Connections).await;
    let whole = TestPage { page, it: tested(&found, true, wish.renew) }.render();
    let whole = whole.map_err(|_| keyholder_broker::Error::Internal("the test page could not be rendered"))?;
    let (head, foot) = whole.split_once(MARK).map_or((whole.clone(), String::new()), |(a, b)| (a.into(), b.into()));
    let (send, receive) = mpsc::unbounded_channel();
    // Whoever goes away leaves the test to its end; what it learnt is recorded.
    let _ = send.send(Bytes::from(head));
    tokio::spawn(async move {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let told = |step: &TestStep| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            let _ = send.send(Bytes::from(step_part(number, step)));
        };
        let outcome = app.broker.test(&person.caller, &found.id(), wish, &told).await;
        let _ = send.send(Bytes::from(end_part(&person, &found, outcome)));
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

pub(super) fn step_part(number: usize, step: &TestStep) -> String {
    let part = StepPart {
        number,
        title: title(step.name),
        tone: if step.ok { "good" } else { "bad" },
        verdict: if step.ok { "held" } else { "failed" },
        message: step.message.clone(),
        cause: step.cause.map(cause_in_words),
        remedy: step.remedy.clone(),
        took_ms: step.took_ms,
        exchanges: step.exchanges.clone(),
    };
    part.render().unwrap_or_default()
}

fn end_part(person: &Person, found: &Found, outcome: Result<TestReport, keyholder_broker::Error>) -> String {
    let id = found.id();
    let (ok, problem, report) = match &outcome {
        Ok(report) => (report.ok, None, in_text(report)),
        Err(error) => {
            let problem = Problem::of(error);
            problem.log();
            (false, Some(render::sentence(&error.to_string())), String::new())
        }
    };
    let mismatched = outcome.iter().flat_map(|it| &it.steps).any(|it| it.cause == Some(Cause::RedirectMismatch));
    let part = EndPart {
        csrf: &person.csrf,
        id: &id,
        needs_a_person: found.needs_a_person(),
        ok,
        problem,
        redirect_uri: found.redirect_uri().filter(|_| mismatched || !ok),
        report,
    };
    part.render().unwrap_or_default()
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
