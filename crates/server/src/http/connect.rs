//! The pages of consent, and the callback.

mod page;

use std::collections::BTreeMap;

use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{COOKIE, HOST, HeaderMap, HeaderValue, ORIGIN, SET_COOKIE};
use keyholder_broker::{Completed, Error, Finished, View};
use keyholder_oauth::{CallbackError, Secret};
use url::Url;

use super::App;
use super::input::{InPath, read_body, read_posted};
use super::problem::{ApiError, Problem, Refusal};
use page::{Mark, Message};

/// `GET /connect/{token}`: an invitation, or the question whether this is the right account.
pub(super) async fn page(State(app): State<App>, InPath(token): InPath, headers: HeaderMap) -> Response {
    if let Some(elsewhere) = canonical(&app, &headers, &token) {
        return elsewhere;
    }
    let browser = browser_cookie(&app, &headers);
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
    let browser = browser_cookie(&app, &headers);
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
    let browser = browser_cookie(&app, &headers);
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
    let browser = browser_cookie(app, headers);
    match app.broker.begin_consent(token, browser.as_deref(), typed).await {
        Ok(begun) => {
            let mut response = Redirect::to(begun.redirect.as_str()).into_response();
            if let Some(cookie) = set_cookie(app, &begun.browser) {
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
    let browser = browser_cookie(app, headers);
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

/// `__Host-` ties the cookie to exactly this host over https (RFC 6265bis §4.1.3.2); plain http on loopback can't have it.
fn cookie_name(app: &App) -> &'static str {
    if app.broker.public_url().scheme() == "https" { "__Host-keyholder-browser" } else { "keyholder-browser" }
}

fn browser_cookie(app: &App, headers: &HeaderMap) -> Option<String> {
    let name = cookie_name(app);
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()))
}

/// Lax: the provider's redirect back is a top-level navigation from another site and must bring it.
fn set_cookie(app: &App, browser: &Secret) -> Option<HeaderValue> {
    let secure = if app.broker.public_url().scheme() == "https" { "; Secure" } else { "" };
    let text =
        format!("{}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600{secure}", cookie_name(app), browser.expose());
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A form from elsewhere: told by `Sec-Fetch-Site`, or where that is missing by `Origin`. Programs that send neither bring no browser's cookies.
fn is_cross_site(app: &App, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let public = app.broker.public_url().origin().ascii_serialization();
    origin.as_bytes() != public.as_bytes()
}

/// On one machine the server has two names; the cookie would be lost between them. Everything happens under the public one.
fn canonical(app: &App, headers: &HeaderMap, token: &str) -> Option<Response> {
    let public = app.broker.public_url();
    let host = headers.get(HOST)?.to_str().ok()?;
    let asked = Url::parse(&format!("{}://{host}/", public.scheme())).ok()?;
    let loopback = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if asked.host_str() == public.host_str() || !loopback(&asked) || !loopback(public) {
        return None;
    }
    // Tokens are base64url. Anything else is no link, and might not fit a header.
    if !token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return None;
    }
    let target = format!("{}/connect/{token}", public.as_str().trim_end_matches('/'));
    Some(Redirect::temporary(&target).into_response())
}
