//! One's own ways to sign in, and one's sessions.

use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, header};
use keyholder_broker::{FieldError, OperatorEdit};
use keyholder_oauth::Secret;

use super::super::App;
use super::super::problem::ApiError;
use super::callers::good;
use super::forms::{Field, Posted, mark, wrongs};
use super::people::SmallForm;
use super::session::{COOKIE, Person};
use super::{Menu, frame, places, render};

/// `GET /console/settings/password`.
pub(in crate::http) async fn password_form(State(app): State<App>, person: Person) -> Response {
    show_password(&app, &person, StatusCode::OK, &[]).await
}

/// `POST /console/settings/password`.
pub(in crate::http) async fn password(
    State(app): State<App>,
    person: Person,
    form: Posted,
) -> Result<Response, ApiError> {
    let password = Some(form.secret("password").unwrap_or_else(|| Secret::new("")));
    let edit = OperatorEdit { password, ..OperatorEdit::default() };
    match app.broker.edit_operator(&person.caller, &person.caller.key, edit, Some(person.token().expose())).await {
        Ok(()) => Ok(render::moved(
            places::YOU,
            good("Your new password counts from now on; your other sessions have ended."),
        )),
        Err(error) => match wrongs(&error) {
            Some(wrong) => Ok(show_password(&app, &person, StatusCode::UNPROCESSABLE_ENTITY, &wrong).await),
            None => Err(error.into()),
        },
    }
}

async fn show_password(app: &App, person: &Person, status: StatusCode, wrong: &[FieldError]) -> Response {
    let mut password =
        Field::text("password", "New password", super::words::ENGLISH.password_help).required().secret(false);
    let wrong = mark(&mut [&mut password], wrong);
    let form = SmallForm {
        page: frame(app, person, Menu::Settings).await,
        title: "Your password".to_owned(),
        text: vec!["Your other sessions end; this one goes on.".to_owned()],
        fields: vec![password],
        wrong,
        button: "Save",
    };
    render::page(person, status, &form)
}

/// `POST /console/settings/sessions`: this one ends with the others.
pub(in crate::http) async fn sign_out_everywhere(
    State(app): State<App>,
    person: Person,
    _: Posted,
) -> Result<Response, ApiError> {
    app.broker.end_sessions(&person.caller, &person.caller.key, None).await?;
    let mut response = render::to(places::SIGN_IN);
    if let Some(cookie) = COOKIE.clear(&app) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
