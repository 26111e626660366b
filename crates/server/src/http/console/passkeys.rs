//! Passkeys in the console: the questions that `passkey.js` puts to browsers, and one's own passkeys. Their answers come as fields of forms.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use keyholder_broker::model::Passkey;
use keyholder_broker::{Error, FieldError, PasskeyQuestion};
use keyholder_oauth::Secret;
use serde::Serialize;

use super::super::input::InPath;
use super::super::origin::is_cross_site;
use super::super::problem::{ApiError, Refusal};
use super::super::{App, assets};
use super::callers::good;
use super::forms::{Field, Pairs, Posted, Time, mark, wrongs};
use super::people::SmallForm;
use super::session::Person;
use super::words::ENGLISH;
use super::{Menu, frame, places, render};

/// A button of a form that asks the browser for a passkey, or why there is none.
pub(super) struct PasskeyButton {
    pub(super) label: &'static str,
    /// There is no other button that matters more.
    pub(super) is_first: bool,
    /// `create` or `get`.
    pub(super) action: &'static str,
    /// Where the question comes from, and what it is for.
    pub(super) question: String,
    pub(super) purpose: &'static str,
    /// The field that takes the answer.
    pub(super) field: &'static str,
    pub(super) refused: Option<String>,
    pub(super) script: String,
    pub(super) words: &'static super::words::Words,
}

impl PasskeyButton {
    fn new(app: &App, action: &'static str, question: impl Into<String>, label: &'static str) -> Self {
        Self {
            label,
            is_first: false,
            action,
            question: question.into(),
            purpose: "",
            field: "passkey",
            refused: app.broker.passkeys_possible().err(),
            script: assets::passkey_path(),
            words: &ENGLISH,
        }
    }

    pub(super) fn sign_in(app: &App) -> Self {
        Self::new(app, "get", places::SIGN_IN_QUESTION, "Sign in with a passkey")
    }

    pub(super) fn join(app: &App, token: &str) -> Self {
        Self::new(app, "create", places::welcome_question(token), "Use a passkey instead")
    }

    pub(super) fn prove(app: &App) -> Self {
        let button = Self::new(app, "get", places::PASSKEY_QUESTION, "Use a passkey");
        Self { purpose: "prove", field: "again.passkey", ..button }
    }

    fn add(app: &App) -> Self {
        Self { is_first: true, ..Self::new(app, "create", places::PASSKEY_QUESTION, "Make the passkey") }
    }
}

/// A question as `passkey.js` reads it.
#[derive(Serialize)]
struct Question {
    challenge: String,
    party: String,
    user: Option<String>,
    name: String,
    known: Vec<String>,
}

fn asked(question: PasskeyQuestion) -> Response {
    let PasskeyQuestion { challenge, party, user, name, known } = question;
    let body = Question { challenge, party, user: user.map(|id| id.to_string()), name, known };
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// `POST /console/sign-in/passkey`.
pub(in crate::http) async fn to_sign_in(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    if is_cross_site(&app, &headers) {
        return Err(Refusal::CrossSite.into());
    }
    Ok(asked(app.broker.passkey_to_sign_in().await?))
}

/// `POST /console/welcome/{token}/passkey`.
pub(in crate::http) async fn to_join(
    State(app): State<App>,
    InPath(token): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if is_cross_site(&app, &headers) {
        return Err(Refusal::CrossSite.into());
    }
    Ok(asked(app.broker.passkey_by_link(&token).await?))
}

/// `POST /console/settings/passkey`.
pub(in crate::http) async fn to_add_or_prove(
    State(app): State<App>,
    person: Person,
    form: Posted,
) -> Result<Response, ApiError> {
    let question = match form.one("for") {
        "prove" => app.broker.passkey_to_prove(&person.caller).await?,
        _ => app.broker.passkey_to_add(&person.caller).await?,
    };
    Ok(asked(question))
}

/// A passkey in the list of one's own.
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) made: Time,
    pub(super) used: Option<Time>,
    pub(super) remove: String,
}

impl From<Passkey> for Shown {
    fn from(it: Passkey) -> Self {
        let remove = format!("{}/remove", places::below(places::PASSKEYS, &it.name));
        Self { name: it.name, made: Time::at(it.created_at), used: it.used_at.map(Time::at), remove }
    }
}

/// `GET /console/settings/passkeys/new`.
pub(in crate::http) async fn form(State(app): State<App>, person: Person) -> Response {
    show(&app, &person, StatusCode::OK, "", &[]).await
}

/// `POST /console/settings/passkeys/new`.
pub(in crate::http) async fn add(State(app): State<App>, person: Person, form: Posted) -> Result<Response, ApiError> {
    let name = form.one("name");
    match app.broker.add_passkey(&person.caller, name, &sent(&form)).await {
        Ok(()) => Ok(render::moved(places::YOU, good(format!("You can sign in with the passkey “{name}” now.")))),
        Err(error) => match wrongs(&error) {
            Some(wrong) => Ok(show(&app, &person, StatusCode::UNPROCESSABLE_ENTITY, name, &wrong).await),
            None => Err(error.into()),
        },
    }
}

/// The answer of a browser, where there is one.
fn sent(form: &Pairs) -> Secret {
    form.secret("passkey").unwrap_or_else(|| Secret::new(""))
}

async fn show(app: &App, person: &Person, status: StatusCode, name: &str, wrong: &[FieldError]) -> Response {
    let help = "So that you know it from your others: what it is kept in, say.";
    let mut name = Field::text("name", "Name", help).value(name).required().example("Phone");
    let mut button = Field::text("passkey", "Passkey", "");
    let wrong = mark(&mut [&mut name, &mut button], wrong);
    let form = SmallForm {
        page: frame(app, person, Menu::Settings).await,
        title: "Add a passkey".to_owned(),
        text: vec![
            "A passkey stays in this device, or in what keeps your passwords, and shows itself to this address only: it can't be guessed, and nobody can be lured into telling it."
                .to_owned(),
        ],
        fields: vec![name],
        wrong,
        button: "",
        passkey: Some(PasskeyButton::add(app)),
    };
    render::page(person, status, &form)
}

/// `GET /console/settings/passkeys/{passkey}/remove`.
pub(in crate::http) async fn ask_remove(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let known = app.broker.passkeys(&person.caller).await?.into_iter().any(|it| it.name == name);
    if !known {
        return Err(Error::NotFound { what: "passkey", name }.into());
    }
    let confirm = render::Confirm {
        title: format!("Remove the passkey “{name}”?"),
        text: vec![
            "Nobody signs in with it any more, and your other sessions end.".to_owned(),
            "The device keeps its part: remove it there too, so that it isn't offered.".to_owned(),
        ],
        button: "Remove it",
        back: places::YOU.to_owned(),
    };
    Ok(render::confirm(&app, &person, Menu::Settings, confirm).await)
}

/// `POST /console/settings/passkeys/{passkey}/remove`.
pub(in crate::http) async fn remove(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    app.broker.remove_passkey(&person.caller, &name, person.token().expose()).await?;
    Ok(render::moved(places::YOU, good(format!("The passkey “{name}” is removed."))))
}
