//! The people of the console, for administrators: inviting, roles, links for those who can't sign in, removing.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{For, Operator, Scope};
use keyholder_broker::{OperatorEdit, OperatorLink};

use super::super::App;
use super::super::input::InPath;
use super::super::problem::ApiError;
use super::callers::good;
use super::forms::{Field, Posted, Time, Wrong};
use super::passkeys::PasskeyButton;
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

/// What somebody may do, in a word. The command line can give other scopes.
struct Role {
    word: &'static str,
    label: &'static str,
    meaning: &'static str,
    scopes: &'static [Scope],
}

const ROLES: [Role; 3] = [
    Role {
        word: "administrator",
        label: "Administrator",
        meaning: "everything, with people, keys and the audit",
        scopes: &[Scope::Admin],
    },
    Role {
        word: "editor",
        label: "Editor",
        meaning: "sets up, changes, removes and calls; sees no keys and no audit",
        scopes: &[Scope::Read, Scope::Manage, Scope::Call],
    },
    Role { word: "viewer", label: "Viewer", meaning: "looks, and changes nothing", scopes: &[Scope::Read] },
];

/// The scopes of a role's word; none where nobody chose one.
fn scopes_of(word: &str) -> Option<BTreeSet<Scope>> {
    ROLES.iter().find(|role| role.word == word).map(|role| role.scopes.iter().copied().collect())
}

/// A role by its name; other scopes by theirs.
pub(super) fn role_of(scopes: &BTreeSet<Scope>) -> String {
    let named = ROLES.iter().find(|role| role.scopes.iter().copied().collect::<BTreeSet<_>>() == *scopes);
    let words = || scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
    named.map_or_else(words, |role| role.label.to_owned())
}

/// A field to choose a role in; `other`: scopes that no role has, which may stay.
fn role_field(chosen: &str, other: Option<String>) -> Field {
    let other = other.map(|words| (String::new(), format!("As it is: {words}")));
    let roles = ROLES.iter().map(|role| (role.word.to_owned(), role.label.to_owned()));
    let help: Vec<_> = ROLES.iter().map(|role| format!("{}: {}.", role.label, role.meaning)).collect();
    Field::text("role", "Role", help.join(" ")).value(chosen).choices(other.into_iter().chain(roles))
}

/// Somebody in the list.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: String,
    /// How they sign in.
    pub(super) ways: String,
    pub(super) seen: Option<Time>,
    pub(super) is_you: bool,
}

/// All of them, for an administrator's settings.
pub(super) async fn list(app: &App, person: &Person) -> Result<Vec<Listed>, ApiError> {
    let found = app.broker.operators(&person.caller).await?;
    let listed = |it: &Operator| Listed {
        id: it.id.to_string(),
        name: it.name.clone(),
        role: role_of(&it.scopes),
        ways: ways(it),
        seen: it.seen_at.map(Time::at),
        is_you: it.id == person.caller.key,
    };
    Ok(found.iter().map(listed).collect())
}

/// How somebody signs in, in words.
pub(super) fn ways(operator: &Operator) -> String {
    let passkeys = match operator.passkeys {
        0 => None,
        1 => Some("a passkey".to_owned()),
        many => Some(format!("{many} passkeys")),
    };
    let all: Vec<_> = operator.has_password.then(|| "password".to_owned()).into_iter().chain(passkeys).collect();
    all.join(", ")
}

/// A form of a few rows.
#[derive(Template)]
#[template(path = "console/small_form.html")]
pub(super) struct SmallForm<'a> {
    pub(super) page: Frame<'a>,
    pub(super) title: String,
    pub(super) text: Vec<String>,
    pub(super) fields: Vec<Field>,
    pub(super) wrong: Vec<Wrong>,
    pub(super) button: &'static str,
    /// In place of the button.
    pub(super) passkey: Option<PasskeyButton>,
}

#[derive(Template)]
#[template(path = "console/person_link.html")]
struct LinkMade<'a> {
    page: Frame<'a>,
    title: String,
    url: String,
    ends: Time,
}

/// `GET /console/settings/people/new`.
pub(in crate::http) async fn invite_form(State(app): State<App>, person: Person) -> Response {
    let form = SmallForm {
        page: frame(&app, &person, Menu::Settings).await,
        title: "Invite somebody".to_owned(),
        text: vec![
            "You get a link to send them. Whoever opens it first chooses a name and a way to sign in, so send it where only they read it."
                .to_owned(),
        ],
        fields: vec![role_field("viewer", None)],
        wrong: Vec::new(),
        button: "Make the link",
        passkey: None,
    };
    render::page(&person, StatusCode::OK, &form)
}

/// `POST /console/settings/people/new`: the link is shown in the answer, and never again.
pub(in crate::http) async fn invite(
    State(app): State<App>,
    person: Person,
    form: Posted,
) -> Result<Response, ApiError> {
    let scopes = scopes_of(form.one("role")).unwrap_or_default();
    let made = app.broker.operator_link(&person.caller, For::New { scopes }).await?;
    Ok(link_made(&app, &person, "The link for somebody new".to_owned(), made).await)
}

async fn link_made(app: &App, person: &Person, title: String, made: OperatorLink) -> Response {
    let (page, ends) = (frame(app, person, Menu::Settings).await, Time::at(made.expires_at));
    render::page(person, StatusCode::OK, &LinkMade { page, title, url: made.url, ends })
}

/// `GET /console/settings/people/{person}/role`.
pub(in crate::http) async fn role_form(
    State(app): State<App>,
    person: Person,
    InPath(who): InPath,
) -> Result<Response, ApiError> {
    let found = app.broker.operator(&person.caller, &who).await?;
    let role = ROLES.iter().find(|role| role.label == role_of(&found.scopes));
    let other = role.is_none().then(|| role_of(&found.scopes));
    let form = SmallForm {
        page: frame(&app, &person, Menu::Settings).await,
        title: format!("What “{}” may do", found.name),
        text: vec![
            "Where the role changes, they are signed out everywhere, and sign in again with the new one.".to_owned(),
        ],
        fields: vec![role_field(role.map_or("", |role| role.word), other)],
        wrong: Vec::new(),
        button: "Change the role",
        passkey: None,
    };
    Ok(render::page(&person, StatusCode::OK, &form))
}

/// `POST /console/settings/people/{person}/role`.
pub(in crate::http) async fn role(
    State(app): State<App>,
    person: Person,
    InPath(who): InPath,
    form: Posted,
) -> Result<Response, ApiError> {
    let found = app.broker.operator(&person.caller, &who).await?;
    let scopes = scopes_of(form.one("role")).filter(|scopes| *scopes != found.scopes);
    if scopes.is_none() {
        return Ok(render::moved(places::PEOPLE, good("Nothing changed.")));
    }
    let edit = OperatorEdit { scopes, ..OperatorEdit::default() };
    app.broker.edit_operator(&person.caller, &found.id, edit, Some(person.token().expose())).await?;
    Ok(render::moved(places::PEOPLE, good(format!("The role of “{}” is changed.", found.name))))
}

/// `GET /console/settings/people/{person}/link`.
pub(in crate::http) async fn ask_link(
    State(app): State<App>,
    person: Person,
    InPath(who): InPath,
) -> Result<Response, ApiError> {
    let found = app.broker.operator(&person.caller, &who).await?;
    let confirm = render::Confirm {
        title: format!("Make a link for “{}”?", found.name),
        text: vec![
            "For who can't sign in any more, or whose way of signing in somebody else has. With the link they choose a new one; what they had is good for nothing from then on, and all their sessions end."
                .to_owned(),
            "Whoever opens the link first becomes them here: send it where only they read it.".to_owned(),
        ],
        button: "Make the link",
        back: places::PEOPLE.to_owned(),
    };
    Ok(render::confirm(&app, &person, Menu::Settings, confirm).await)
}

/// `POST /console/settings/people/{person}/link`: the link is shown in the answer, and never again.
pub(in crate::http) async fn link(
    State(app): State<App>,
    person: Person,
    InPath(who): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    let found = app.broker.operator(&person.caller, &who).await?;
    let made = app.broker.operator_link(&person.caller, For::Reset(found.id)).await?;
    Ok(link_made(&app, &person, format!("The link for “{}”", found.name), made).await)
}

/// `GET /console/settings/people/{person}/remove`.
pub(in crate::http) async fn ask_remove(
    State(app): State<App>,
    person: Person,
    InPath(who): InPath,
) -> Result<Response, ApiError> {
    let found = app.broker.operator(&person.caller, &who).await?;
    let confirm = render::Confirm {
        title: format!("Remove “{}”?", found.name),
        text: vec![
            "They are signed out everywhere and can't sign in any more. That can't be taken back; a new link makes a new person.".to_owned(),
            "What they did stays in the audit. Keys that they made go on working: look through the callers too.".to_owned(),
        ],
        button: "Remove",
        back: places::PEOPLE.to_owned(),
    };
    Ok(render::confirm(&app, &person, Menu::Settings, confirm).await)
}

/// `POST /console/settings/people/{person}/remove`.
pub(in crate::http) async fn remove(
    State(app): State<App>,
    person: Person,
    InPath(who): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    let found = app.broker.operator(&person.caller, &who).await?;
    app.broker.remove_operator(&person.caller, &found.id).await?;
    Ok(render::moved(places::PEOPLE, good(format!("“{}” is removed.", found.name))))
}
