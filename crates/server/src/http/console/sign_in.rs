//! Becoming an operator, signing in, signing out.

use askama::Template;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use keyholder_broker::model::{For, Theme};
use keyholder_broker::{Error, Proof};
use keyholder_oauth::Secret;
use serde::Deserialize;

use super::super::input::{InPath, InQuery, read_up_to};
use super::super::origin::{canonical, is_cross_site};
use super::super::problem::{ApiError, Problem, Refusal};
use super::super::{App, assets};
use super::again::{self, Kept};
use super::forms::{Field, Pairs, Posted, Wrong, mark, wrongs};
use super::passkeys::PasskeyButton;
use super::session::{COOKIE, Person, person, signed_in};
use super::words::ENGLISH;
use super::{places, render};

/// Most bytes of a form that anybody may send: what was kept of another form is in it, encoded once more.
const MOST_POSTED: usize = 4 * again::MOST;

#[derive(Template)]
#[template(path = "console/welcome.html")]
struct Welcome {
    style: String,
    /// Somebody who chooses anew how to sign in has a name.
    name: Option<Field>,
    password: Field,
    passkey: PasskeyButton,
    wrong: Vec<Wrong>,
}

#[derive(Template)]
#[template(path = "console/sign_in.html")]
struct SignIn {
    style: String,
    name: Field,
    password: Field,
    passkey: PasskeyButton,
    next: String,
    wrong: Vec<Wrong>,
    kept: Kept,
}

/// `GET /console/welcome/{token}`: looking uses nothing up.
pub(in crate::http) async fn welcome(State(app): State<App>, InPath(token): InPath, headers: HeaderMap) -> Response {
    let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if plain && let Some(elsewhere) = canonical(&app, &headers, &places::welcome(&token)) {
        return elsewhere;
    }
    match app.broker.read_operator_link(&token).await {
        Ok(for_whom) => welcome_page(&app, &token, &for_whom, StatusCode::OK, "Owner", None),
        Err(error) => refused(&Problem::of(&error)),
    }
}

/// `POST /console/welcome/{token}`.
pub(in crate::http) async fn join(
    State(app): State<App>,
    InPath(token): InPath,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let for_whom = match app.broker.read_operator_link(&token).await {
        Ok(for_whom) => for_whom,
        Err(error) => return refused(&Problem::of(&error)),
    };
    let form = match posted(&app, &headers, request).await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let password = form.secret("password").unwrap_or_else(|| Secret::new(""));
    let proof = form.secret("passkey").map_or(Proof::Password(password), Proof::Passkey);
    match app.broker.join(&token, form.one("name"), &proof).await {
        Ok(session) => signed_in(&app, &session, render::to(places::HOME)),
        Err(error) => match wrongs(&error) {
            Some(_) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                welcome_page(&app, &token, &for_whom, status, form.one("name"), Some(&error))
            }
            None => refused(&Problem::of(&error)),
        },
    }
}

fn welcome_page(
    app: &App,
    token: &str,
    for_whom: &For,
    status: StatusCode,
    name: &str,
    error: Option<&Error>,
) -> Response {
    let mut password = Field::text("password", "Password", ENGLISH.password_help).required().secret(false);
    let mut name =
        Field::text("name", "Your name", "Shown to the others here, and in the audit.").value(name).required();
    name.autocomplete = "username";
    let wrong = error.and_then(wrongs).unwrap_or_default();
    let wrong = mark(&mut [&mut name, &mut password, &mut Field::text("passkey", "Passkey", "")], &wrong);
    let passkey = PasskeyButton::join(app, token);
    let name = matches!(for_whom, For::New { .. }).then_some(name);
    render::alone(status, &Welcome { style: assets::console_paths().0, name, password, passkey, wrong })
}

/// Where to go on after signing in.
#[derive(Deserialize)]
pub(in crate::http) struct Next {
    #[serde(default)]
    next: String,
}

/// `GET /console/sign-in`.
pub(in crate::http) async fn page(
    State(app): State<App>,
    InQuery(Next { next }): InQuery<Next>,
    headers: HeaderMap,
) -> Response {
    let next = places::within(&next);
    if let Some(elsewhere) = canonical(&app, &headers, &places::sign_in(next)) {
        return elsewhere;
    }
    match person(&app, &headers, String::new()).await {
        Ok(Some(_)) => render::to(next),
        Ok(None) => sign_in_page(&app, StatusCode::OK, "", next, None, Kept::default()),
        Err(error) => refused(&Problem::of(&error)),
    }
}

/// `POST /console/sign-in`.
pub(in crate::http) async fn sign_in(State(app): State<App>, headers: HeaderMap, request: Request) -> Response {
    let form = match posted(&app, &headers, request).await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let (name, next) = (form.one("name"), places::within(form.one("next")));
    let password = form.secret("password").unwrap_or_else(|| Secret::new(""));
    let session = match form.secret("passkey") {
        Some(sent) => app.broker.sign_in_by_passkey(&sent).await,
        None => app.broker.sign_in(name, &password).await,
    };
    match session {
        Ok(session) => {
            // Whoever was signed in here before isn't any more.
            if let Some(before) = COOKIE.read(&app, &headers)
                && let Err(error) = app.broker.sign_out(&before).await
            {
                return refused(&Problem::of(&error));
            }
            let kept = Kept::of_form(&form);
            match kept.is_empty() {
                true => signed_in(&app, &session, render::to(next)),
                false => signed_in(&app, &session, again::page(&app, &session, next, &kept).await),
            }
        }
        Err(error) => match wrongs(&error) {
            Some(_) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                sign_in_page(&app, status, name, next, Some(&error), Kept::of_form(&form))
            }
            None => refused(&Problem::of(&error)),
        },
    }
}

/// The page to sign in on; `kept` is what somebody had posted who was signed out.
pub(super) fn sign_in_page(
    app: &App,
    status: StatusCode,
    name: &str,
    next: &str,
    error: Option<&Error>,
    kept: Kept,
) -> Response {
    let mut name = Field::text("name", "Name", "").value(name).required();
    name.autocomplete = "username";
    let mut password = Field::text("password", "Password", "").required().secret(false);
    password.autocomplete = "current-password";
    let wrong = error.and_then(wrongs).unwrap_or_default();
    let wrong = mark(&mut [&mut name, &mut password, &mut Field::text("passkey", "Passkey", "")], &wrong);
    let passkey = PasskeyButton::sign_in(app);
    let style = assets::console_paths().0;
    render::alone(status, &SignIn { style, name, password, passkey, next: next.to_owned(), wrong, kept })
}

/// A form of whoever isn't signed in: it must come from here.
async fn posted(app: &App, headers: &HeaderMap, request: Request) -> Result<Pairs, Response> {
    if is_cross_site(app, headers) {
        return Err(refused(&Problem::of_refusal(&Refusal::CrossSite)));
    }
    let body = read_up_to(MOST_POSTED, request).await.map_err(|ApiError(problem)| refused(&problem))?;
    Ok(Pairs::read(&body))
}

fn refused(problem: &Problem) -> Response {
    problem.log();
    render::problem_alone(problem)
}

/// `POST /console/sign-out`.
pub(in crate::http) async fn sign_out(State(app): State<App>, person: Person, _: Posted) -> Result<Response, ApiError> {
    app.broker.sign_out(person.token().expose()).await?;
    let mut response = render::to(places::SIGN_IN);
    if let Some(cookie) = COOKIE.clear(&app) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// `POST /console/theme`.
pub(in crate::http) async fn theme(State(app): State<App>, person: Person, form: Posted) -> Result<Response, ApiError> {
    app.broker.set_theme(&person.caller, Theme::of(form.one("theme"))).await?;
    Ok(render::to(places::within(form.one("back"))))
}

/// `GET /`.
pub(in crate::http) async fn root() -> Response {
    render::to(places::HOME)
}
