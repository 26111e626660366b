//! Before something dangerous: whoever sits here shows again that it is them, where that was more than ten minutes ago. What they had sent is kept in the
//! page that asks, and goes on its way with the answer.

use askama::Template;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use keyholder_broker::{FieldError, Proof};
use keyholder_oauth::Secret;

use super::super::App;
use super::super::input::read_up_to;
use super::super::problem::{ApiError, Problem, Refusal};
use super::again::{self, Kept};
use super::forms::{Field, Pairs, Wrong, mark, wrongs};
use super::passkeys::PasskeyButton;
use super::session::Person;
use super::{Frame, Menu, frame, render};

/// What the fields of the answer begin with, which no other form has.
pub(super) const FIELDS: &str = "again.";

#[derive(Template)]
#[template(path = "console/proof.html")]
struct Asked<'a> {
    page: Frame<'a>,
    pairs: Vec<(String, String)>,
    secrets: Vec<Field>,
    password: Option<Field>,
    passkey: Option<PasskeyButton>,
    wrong: Vec<Wrong>,
}

/// Lets a dangerous form pass that brings an answer; else the page that asks for one.
pub(super) async fn pass(app: &App, person: &Person, request: Request) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    let read = read_up_to(again::MOST, Request::from_parts(parts.clone(), body)).await;
    let bytes = read.map_err(IntoResponse::into_response)?;
    let form = Pairs::read(&bytes);
    if !Secret::new(person.csrf.clone()).is(form.one("csrf")) {
        return Err(ApiError::from(Refusal::StaleForm).into_response());
    }
    let answer = (form.secret("again.password").map(Proof::Password))
        .or_else(|| form.secret("again.passkey").map(Proof::Passkey));
    let Some(answer) = answer else { return Err(ask(app, person, &form, None).await) };
    match app.broker.prove(&person.caller, person.token().expose(), &answer).await {
        Ok(()) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Err(error) => Err(match wrongs(&error) {
            Some(wrong) => ask(app, person, &form, Some(&wrong)).await,
            None => ApiError::from(error).into_response(),
        }),
    }
}

/// The row for one's password again; `None` for who has none.
pub(super) fn password_field(has_password: bool) -> Option<Field> {
    let mut field = Field::text("again.password", "Your password now", "").required().secret(false);
    field.autocomplete = "current-password";
    has_password.then_some(field)
}

async fn ask(app: &App, person: &Person, form: &Pairs, wrong: Option<&[FieldError]>) -> Response {
    let problem = Problem::of_refusal(&Refusal::ProveAgain);
    let status = match wrong {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::from_u16(problem.status).unwrap_or(StatusCode::OK),
    };
    let found = match app.broker.operator(&person.caller, person.caller.key.as_str()).await {
        Ok(found) => found,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let kept = Kept::of_posted(form);
    let mut password = password_field(found.has_password);
    let wrong: Vec<_> = (wrong.unwrap_or_default().iter())
        .map(|it| FieldError { field: format!("{FIELDS}{}", it.field), ..it.clone() })
        .collect();
    let mut button = Field::text("again.passkey", "Passkey", "");
    let wrong = mark(&mut password.iter_mut().chain([&mut button]).collect::<Vec<_>>(), &wrong);
    let asked = Asked {
        page: frame(app, person, Menu::Home).await,
        secrets: kept.secrets.iter().map(|name| Field::text(name, label(name), "").secret(false)).collect(),
        pairs: kept.pairs,
        password,
        passkey: (found.passkeys > 0).then(|| PasskeyButton::prove(app)),
        wrong,
    };
    render::page(person, status, &asked)
}

/// What a secret of a dangerous form is called there.
fn label(name: &str) -> &str {
    if name == "password" { "New password" } else { name }
}
