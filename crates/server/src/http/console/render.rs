//! Answers: a page, a way on, a failure.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use keyholder_broker::model::Said;

use super::super::problem::Problem;
use super::super::{App, assets};
use super::session::Person;
use super::{Frame, Menu, frame, places};

/// Scripts and styles from here alone, no frame around it, no form to anywhere else (which binds redirects of forms too: consent is a link).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A page of somebody who is signed in.
pub(in crate::http) fn page(person: &Person, status: StatusCode, template: &impl Template) -> Response {
    html(&person.path, status, template)
}

/// A page without navigation, for whoever comes.
pub(in crate::http) fn alone(status: StatusCode, template: &impl Template) -> Response {
    html("", status, template)
}

fn html(path: &str, status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, headers(), Html(text)).into_response(),
        Err(error) => {
            tracing::error!(path, %error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What every page of the console is sent with.
pub(in crate::http) fn headers() -> HeaderMap {
    let fields: [(HeaderName, &'static str); 9] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "publickey-credentials-get=(self), publickey-credentials-create=(self)",
        ),
        (CONTENT_TYPE, "text/html; charset=utf-8"),
    ];
    fields.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

/// On to another page, which says how it went: after every form that did something, so that going back or reloading repeats nothing.
pub(in crate::http) fn moved(place: impl AsRef<str>, said: Said) -> Response {
    let mut response = to(place);
    // The layer in front keeps it with the session.
    response.extensions_mut().insert(said);
    response
}

/// On to another page.
pub(in crate::http) fn to(place: impl AsRef<str>) -> Response {
    let location = HeaderValue::from_str(place.as_ref()).unwrap_or(HeaderValue::from_static(places::HOME));
    (StatusCode::SEE_OTHER, [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))])
        .into_response()
}

/// Before something that can't be undone: what will happen, and one button.
pub(in crate::http) struct Confirm {
    pub(in crate::http) title: String,
    pub(in crate::http) text: Vec<String>,
    pub(in crate::http) button: &'static str,
    pub(in crate::http) back: String,
}

#[derive(Template)]
#[template(path = "console/confirm.html")]
struct ConfirmPage<'a> {
    page: Frame<'a>,
    confirm: Confirm,
}

/// The page that asks before something is done.
pub(in crate::http) async fn confirm(app: &App, person: &Person, here: Menu, confirm: Confirm) -> Response {
    page(person, StatusCode::OK, &ConfirmPage { page: frame(app, person, here).await, confirm })
}

#[derive(Template)]
#[template(path = "console/message.html")]
struct MessagePage<'a> {
    page: Frame<'a>,
    message: Message,
}

#[derive(Template)]
#[template(path = "console/alone_message.html")]
struct AloneMessage {
    style: String,
    message: Message,
}

/// What a page that only says something says.
pub(in crate::http) struct Message {
    pub(in crate::http) title: String,
    pub(in crate::http) text: String,
    /// Field, reason and remedy.
    pub(in crate::http) errors: Vec<(String, String, String)>,
    /// Where to go from here, and what that is called.
    pub(in crate::http) links: Vec<(String, &'static str)>,
}

impl From<&Problem> for Message {
    fn from(problem: &Problem) -> Self {
        let errors = problem.errors.iter().map(|it| (it.field.clone(), it.reason.clone(), it.remedy.clone()));
        let errors: Vec<_> = errors.collect();
        let (text, remedy) = match &problem.failure {
            Some(failure) => (failure.message.clone(), failure.remedy.clone()),
            None if errors.is_empty() => (sentence(&problem.detail), String::new()),
            None => (String::new(), String::new()),
        };
        let text = [text, remedy].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        Self {
            title: problem.title.to_owned(),
            text,
            errors,
            links: vec![(places::HOME.to_owned(), "To the first page")],
        }
    }
}

/// The page of a problem, within the console.
pub(super) async fn problem(app: &App, person: &Person, problem: &Problem) -> Response {
    let template = MessagePage { page: frame(app, person, Menu::Home).await, message: problem.into() };
    with_wait(page(person, status(problem), &template), problem)
}

/// The page of a problem of whoever isn't signed in.
pub(in crate::http) fn problem_alone(problem: &Problem) -> Response {
    with_wait(message_alone(status(problem), problem.into()), problem)
}

/// The page of an address below the console's at which there is nothing.
pub(in crate::http) fn nothing_there() -> Response {
    let message = Message {
        title: "There is nothing here".to_owned(),
        text: "This address leads to no page; it may have been written down by hand, or what was here is gone."
            .to_owned(),
        errors: Vec::new(),
        links: vec![(places::HOME.to_owned(), "To the first page")],
    };
    message_alone(StatusCode::NOT_FOUND, message)
}

/// A page without navigation that only says something.
pub(in crate::http) fn message_alone(status: StatusCode, message: Message) -> Response {
    alone(status, &AloneMessage { style: assets::console_paths().0, message })
}

fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn with_wait(mut response: Response, problem: &Problem) -> Response {
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A sentence of what begins small and has no stop.
pub(in crate::http) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}
