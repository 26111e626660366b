//! The pages of consent, and the callback.

mod page;

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
use page::{Mark, Message};

/// Ties a consent to the browser that began it. Lax: the provider's redirect back is a top-level navigation from another site and must bring it.
const COOKIE: Cookie = Cookie { name: "keyholder-browser", same_site: "Lax", path_on_http: "/", lives: 3600 };

/// `GET /connect/{token}`: an invitation, or the question whether this is the right account.
pub(super) async fn page(State(app): State<App>, InPath(token): InPath, headers: HeaderMap) -> Response {
    // Tokens are base64url. Anything else is no link.
    let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if plain && let Some(elsewhere) = canonical(&app, &headers, &format!("/connect/{token}")) {
        return elsewhere;
    }
    let browser = COOKIE.read(&app, &headers);
    match app.broker.open_link(&token, browser.as_deref()).await {
        Err(error) => failed(&app, &error),
        Ok(View::Invitation(session)) if session.direct => leave(&app, &token, &headers, &BTreeMap::new()).await,
        Ok(view) => show(&app, view),
    }
}

fn show(app: &App, view: View) -> Response {
    match view {
        View::Invitation(session) => page::invitation(app, &session, &BTreeMap::new(), &[]),
        View::Device { provider, code } => page::device(app, provider, &code),
        View::Onward(finished) => went(app, Ok(finished)),
        View::Choice { provider, lookup, options } => page::choice(app, provider, lookup, options, None),
        View::Confirmation { provider, account, connection, scope } => {
            page::confirmation(app, provider, account, connection, scope)
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
    if is_cross_site(&app, &headers) {
        return refused(&app, &Problem::of_refusal(&Refusal::CrossSite));
    }
    // Whoever knows no link doesn't get to send a body.
    let browser = COOKIE.read(&app, &headers);
    let view = match app.broker.open_link(&token, browser.as_deref()).await {
        Ok(view) => view,
        Err(error) => return failed(&app, &error),
    };
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(ApiError(problem)) => return refused(&app, &problem),
    };
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    match view {
        View::Invitation(_) => leave(&app, &token, &headers, &form).await,
        View::Choice { provider, lookup, options } => match form.get("choice") {
            Some(value) => went(&app, app.broker.choose(&token, browser.as_deref(), value).await),
            None => page::choice(&app, provider, lookup, options, Some("Choose one of these.")),
        },
        View::Device { .. } | View::Onward(_) => show(&app, view),
        View::Confirmation { .. } => match form.get("decision").map(String::as_str) {
            Some(word @ ("yes" | "no")) => decide(&app, &token, &headers, word == "yes").await,
            _ => show(&app, view),
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
    let browser = COOKIE.read(&app, &headers);
    let query = query.as_deref().unwrap_or("");
    went(&app, app.broker.finish_consent(&integration, query, browser.as_deref()).await)
}

/// `POST /callback/{integration}`: some providers let the browser post the answer, from their site and so without our cookie. It comes back by GET, with it.
pub(super) async fn callback_posted(State(app): State<App>, InPath(integration): InPath, request: Request) -> Response {
    let body = match read_posted(request).await {
        Ok(body) => body,
        Err(ApiError(problem)) => return refused(&app, &problem),
    };
    let received = match std::str::from_utf8(&body) {
        Ok(body) => app.broker.receive_posted(&integration, body).await,
        Err(_) => Err(CallbackError::NotUtf8.into()),
    };
    match received {
        Ok(url) => Redirect::to(url.as_str()).into_response(),
        Err(error) => failed(&app, &error),
    }
}

/// Away from this address: no code must stay in the history.
fn went(app: &App, finished: Result<Finished, Error>) -> Response {
    match finished {
        Ok(Finished::Return(url)) => Redirect::to(url.as_str()).into_response(),
        Ok(Finished::Confirm(url)) => Redirect::to(&url).into_response(),
        Err(error) => failed(app, &error),
    }
}

async fn leave(app: &App, token: &str, headers: &HeaderMap, typed: &BTreeMap<String, String>) -> Response {
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
                page::invitation(app, &session, typed, &errors)
            }
            _ => failed(app, &Error::Invalid(errors)),
        },
        Err(error) => failed(app, &error),
    }
}

async fn decide(app: &App, code: &str, headers: &HeaderMap, yes: bool) -> Response {
    let browser = COOKIE.read(app, headers);
    let message = match app.broker.decide(code, browser.as_deref(), yes).await {
        Err(error) => return failed(app, &error),
        Ok(Completed::Connected(name)) => Message {
            mark: Mark::Good,
            title: "Connected".to_owned(),
            text: format!("“{name}” is connected. You can close this page."),
            remedy: None,
        },
        Ok(Completed::Declined) => Message {
            mark: Mark::Neutral,
            title: "Nothing was connected".to_owned(),
            text: "What was granted has been given back to the provider.".to_owned(),
            remedy: Some("To connect another account, ask for a new link and sign in with that account.".to_owned()),
        },
    };
    page::message(app, http::StatusCode::OK, message)
}

fn failed(app: &App, error: &Error) -> Response {
    let problem = Problem::of(error);
    match error {
        // Nothing was used up: the invitation leads there again.
        Error::Callback(CallbackError::Refused { .. }) => {
            refused_with(app, &problem, Some("If you changed your mind, open the link again and accept.".to_owned()))
        }
        _ => refused(app, &problem),
    }
}

fn refused(app: &App, problem: &Problem) -> Response {
    refused_with(app, problem, None)
}

/// The page of a problem; `remedy` where the problem itself names none.
fn refused_with(app: &App, problem: &Problem, remedy: Option<String>) -> Response {
    problem.log();
    let status = http::StatusCode::from_u16(problem.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let (text, remedy) = match &problem.failure {
        Some(failure) => (failure.message.clone(), Some(failure.remedy.clone())),
        None => (sentence(&problem.detail), remedy),
    };
    page::message(app, status, Message { mark: Mark::Bad, title: "That didn't work".to_owned(), text, remedy })
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}
