//! The pages of consent, and the callback.

pub(super) mod brand;
mod page;
mod words;

use std::collections::BTreeMap;

use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{HeaderMap, SET_COOKIE};
use keyholder_broker::{Completed, Error, Finished, View};
use keyholder_oauth::CallbackError;

use super::App;
use super::input::{InPath, read_body, read_posted};
use super::origin::{Cookie, canonical, is_cross_site};
use super::problem::{ApiError, Problem, Refusal};
use brand::{Look, look};
use page::{Mark, Message};
use words::fill;

/// Ties a consent to the browser that began it. Lax: the provider's redirect back is a top-level navigation from another site and must bring it.
const COOKIE: Cookie = Cookie { name: "keyholder-browser", same_site: "Lax", path_on_http: "/", lives: 3600 };

/// `GET /connect/{token}`: an invitation, or the question whether this is the right account.
pub(super) async fn page(State(app): State<App>, InPath(token): InPath, headers: HeaderMap) -> Response {
    // Tokens are base64url. Anything else is no link.
    let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if plain && let Some(elsewhere) = canonical(&app, &headers, &format!("/connect/{token}")) {
        return elsewhere;
    }
    let (browser, look) = (COOKIE.read(&app, &headers), look(&app, &headers).await);
    match app.broker.open_link(&token, browser.as_deref()).await {
        Err(error) => failed(&look, &error),
        Ok(View::Invitation(session)) if session.direct => leave(&app, &look, &token, &headers, &BTreeMap::new()).await,
        Ok(view) => show(&look, view),
    }
}

fn show(look: &Look, view: View) -> Response {
    match view {
        View::Invitation(session) => page::invitation(look, &session, &BTreeMap::new(), &[]),
        View::Device { provider, code } => page::device(look, provider, &code),
        View::Onward(finished) => went(look, Ok(finished)),
        View::Choice { provider, lookup, options } => page::choice(look, provider, lookup, options, None),
        View::Confirmation { provider, account, connection, scope } => {
            page::confirmation(look, provider, account, connection, scope)
        }
    }
}

/// `POST /connect/{token}`: what the person typed, or the yes or no.
pub(super) async fn answer(
    State(app): State<App>,
    InPath(token): InPath,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let look = look(&app, &headers).await;
    if is_cross_site(&app, &headers) {
        return refused(&look, &Problem::of_refusal(&Refusal::CrossSite));
    }
    // Whoever knows no link doesn't get to send a body.
    let browser = COOKIE.read(&app, &headers);
    let view = match app.broker.open_link(&token, browser.as_deref()).await {
        Ok(view) => view,
        Err(error) => return failed(&look, &error),
    };
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(ApiError(problem)) => return refused(&look, &problem),
    };
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    match view {
        View::Invitation(_) => leave(&app, &look, &token, &headers, &form).await,
        View::Choice { provider, lookup, options } => match form.get("choice") {
            Some(value) => went(&look, app.broker.choose(&token, browser.as_deref(), value).await),
            None => page::choice(&look, provider, lookup, options, Some(look.words.which_wrong)),
        },
        View::Device { .. } | View::Onward(_) => show(&look, view),
        View::Confirmation { .. } => match form.get("decision").map(String::as_str) {
            Some(word @ ("yes" | "no")) => decide(&app, &look, &token, &headers, word == "yes").await,
            _ => show(&look, view),
        },
    }
}

/// `GET /callback/{integration}`.
pub(super) async fn callback(
    State(app): State<App>,
    InPath(integration): InPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let (browser, look) = (COOKIE.read(&app, &headers), look(&app, &headers).await);
    let query = query.as_deref().unwrap_or("");
    went(&look, app.broker.finish_consent(&integration, query, browser.as_deref()).await)
}

/// `POST /callback/{integration}`: some providers let the browser post the answer, from their site and so without our cookie. It comes back by GET, with it.
pub(super) async fn callback_posted(State(app): State<App>, InPath(integration): InPath, request: Request) -> Response {
    let look = look(&app, request.headers()).await;
    let body = match read_posted(request).await {
        Ok(body) => body,
        Err(ApiError(problem)) => return refused(&look, &problem),
    };
    let received = match std::str::from_utf8(&body) {
        Ok(body) => app.broker.receive_posted(&integration, body).await,
        Err(_) => Err(CallbackError::NotUtf8.into()),
    };
    match received {
        Ok(url) => Redirect::to(url.as_str()).into_response(),
        Err(error) => failed(&look, &error),
    }
}

/// Away from this address: no code must stay in the history.
fn went(look: &Look, finished: Result<Finished, Error>) -> Response {
    match finished {
        Ok(Finished::Return(url)) => Redirect::to(url.as_str()).into_response(),
        Ok(Finished::Confirm(url)) => Redirect::to(&url).into_response(),
        Err(error) => failed(look, &error),
    }
}

async fn leave(app: &App, look: &Look, token: &str, headers: &HeaderMap, typed: &BTreeMap<String, String>) -> Response {
    let browser = COOKIE.read(app, headers);
    match app.broker.begin_consent(token, browser.as_deref(), typed).await {
        Ok(begun) => {
            let mut response = Redirect::to(begun.redirect.as_str()).into_response();
            if let Some(cookie) = COOKIE.set(app, &begun.browser) {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            response
        }
        // What was typed doesn't fit: the same page again, with what is wrong beside the field.
        Err(Error::Invalid(errors)) => match app.broker.open_link(token, browser.as_deref()).await {
            Ok(View::Invitation(session)) if !session.questions.is_empty() => {
                page::invitation(look, &session, typed, &errors)
            }
            _ => failed(look, &Error::Invalid(errors)),
        },
        Err(error) => failed(look, &error),
    }
}

async fn decide(app: &App, look: &Look, code: &str, headers: &HeaderMap, yes: bool) -> Response {
    let browser = COOKIE.read(app, headers);
    let message = match app.broker.decide(code, browser.as_deref(), yes).await {
        Err(error) => return failed(look, &error),
        Ok(Completed::Connected(name)) => Message {
            mark: Mark::Good,
            title: look.words.connected.to_owned(),
            text: fill(look.words.connected_text, &[("connection", &name)]),
            remedy: None,
        },
        Ok(Completed::Declined) => Message {
            mark: Mark::Neutral,
            title: look.words.declined.to_owned(),
            text: look.words.declined_text.to_owned(),
            remedy: Some(look.words.declined_remedy.to_owned()),
        },
    };
    page::message(look, http::StatusCode::OK, message)
}

fn failed(look: &Look, error: &Error) -> Response {
    let problem = Problem::of(error);
    match error {
        // Nothing was used up: the invitation leads there again.
        Error::Callback(CallbackError::Refused { .. }) => {
            refused_with(look, &problem, Some(look.words.mind_changed.to_owned()))
        }
        _ => refused(look, &problem),
    }
}

fn refused(look: &Look, problem: &Problem) -> Response {
    refused_with(look, problem, None)
}

/// The page of a problem; `remedy` where the problem itself names none.
fn refused_with(look: &Look, problem: &Problem, remedy: Option<String>) -> Response {
    problem.log();
    let status = http::StatusCode::from_u16(problem.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let (text, remedy) = match &problem.failure {
        Some(failure) => (failure.message.clone(), Some(failure.remedy.clone())),
        None => (sentence(&problem.detail), remedy),
    };
    page::message(look, status, Message { mark: Mark::Bad, title: look.words.failed.to_owned(), text, remedy })
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}
