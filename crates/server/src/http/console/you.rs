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
use super::words::ENGLISH;
use super::{Menu, frame, places, proof, render};

/// `GET /console/settings/password`.
pub(in crate::http) async fn password_form(State(app): State<App>, person: Person) -> Result<Response, ApiError> {
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
        Ok(()) => {
            let said = "Your new password counts from now on; your other sessions have ended.";
            Ok(render::moved(places::YOU, good(said)))
        }
        Err(error) => match wrongs(&error) {
            Some(wrong) => show_password(&app, &person, StatusCode::UNPROCESSABLE_ENTITY, &wrong).await,
            None => Err(error.into()),
        },
    }
}

async fn show_password(
    app: &App,
    person: &Person,
    status: StatusCode,
    wrong: &[FieldError],
) -> Result<Response, ApiError> {
    let has_password = app.broker.operator(&person.caller, person.caller.key.as_str()).await?.has_password;
    let mut password = Field::text("password", "New password", ENGLISH.password_help).required().secret(false);
    let wrong = mark(&mut [&mut password], wrong);
    // Asked for at once, where it would be afterwards: the new one need not be typed twice then.
    let now = if person.proved { None } else { proof::password_field(has_password) };
    let form = SmallForm {
        page: frame(app, person, Menu::Settings).await,
        title: "Your password".to_owned(),
        text: vec!["Your other sessions end; this one goes on.".to_owned()],
        fields: now.into_iter().chain([password]).collect(),
        wrong,
        button: "Save",
        passkey: None,
    };
    Ok(render::page(person, status, &form))
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
