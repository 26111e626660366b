//! Callers: programs and the keys they show.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{Limits, NewKey, Rate, Said, Scope, StoredKey};
use keyholder_broker::{Error, FieldError};

use super::super::App;
use super::super::input::{InPath, InQuery, PageQuery, cut};
use super::super::problem::ApiError;
use super::forms::{Field, Pairs, Posted, Time, Wrong, mark, wrongs};
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

const DAY_MS: i64 = 24 * 3_600_000;

#[derive(Template)]
#[template(path = "console/callers.html")]
struct List<'a> {
    page: Frame<'a>,
    keys: Vec<Row>,
    next: Option<String>,
}

/// A key in the list.
struct Row {
    id: String,
    name: String,
    hint: String,
    scopes: String,
    limits: String,
    used: Option<Time>,
    ends: Option<Time>,
    /// In a word, with its colour.
    state: (&'static str, &'static str),
    is_live: bool,
}

#[derive(Template)]
#[template(path = "console/caller_new.html")]
struct New<'a> {
    page: Frame<'a>,
    wrong: Vec<Wrong>,
    name: Field,
    scopes: Vec<Tick>,
    scopes_wrong: Option<String>,
    fields: Vec<Field>,
    came: bool,
}

/// A box to tick.
struct Tick {
    name: &'static str,
    meaning: &'static str,
    on: bool,
}

#[derive(Template)]
#[template(path = "console/caller_made.html")]
struct Made<'a> {
    page: Frame<'a>,
    name: String,
    key: String,
}

/// `GET /console/callers`.
pub(in crate::http) async fn list(
    State(app): State<App>,
    person: Person,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let page = query.page()?;
    let (keys, next) = cut(app.broker.keys(&person.caller, &page).await?, &page, |it| it.caller.key.to_string());
    let now = app.broker.now_ms();
    let keys = keys.iter().map(|it| row(it, now)).collect();
    let next = next.map(|after| places::with(places::CALLERS, &[("after", &after)]));
    let template = List { page: frame(&app, &person, Menu::Callers).await, keys, next };
    Ok(render::page(&person, StatusCode::OK, &template))
}

fn row(it: &StoredKey, now: i64) -> Row {
    let state = match (it.revoked_at, it.caller.expires_at) {
        (Some(_), _) => ("revoked", ""),
        (None, Some(end)) if end <= now => ("expired", "red"),
        _ => ("live", "green"),
    };
    Row {
        id: it.caller.key.to_string(),
        name: it.caller.name.clone(),
        hint: it.hint.clone(),
        scopes: it.caller.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", "),
        limits: limits(&it.caller.limits),
        used: it.last_used_at.map(Time::at),
        ends: it.caller.expires_at.map(Time::at),
        state,
        is_live: state.0 == "live",
    }
}

/// Limits in a line.
fn limits(limits: &Limits) -> String {
    let lists = [
        ("connections", &limits.connections),
        ("data sources", &limits.sources),
        ("methods", &limits.methods),
        ("paths", &limits.paths),
    ];
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let lists = lists.map(|(what, list)| format!("{what} {}", list.iter().cloned().collect::<Vec<_>>().join(", ")));
    let pace = limits.rate.per_second.map(|pace| format!("{pace} a second"));
    let count = limits.rate.concurrent.map(|count| format!("{count} at once"));
    let all: Vec<_> = lists.chain(pace).chain(count).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(" · ") }
}

/// `GET /console/callers/new`.
pub(in crate::http) async fn new(State(app): State<App>, person: Person) -> Response {
    form(&app, &person, &Pairs::read(b"scopes=call&ends=90"), StatusCode::OK, &[]).await
}

/// `POST /console/callers/new`: the key is shown in the answer, and never again.
pub(in crate::http) async fn create(
    State(app): State<App>,
    person: Person,
    posted: Posted,
) -> Result<Response, ApiError> {
    let made = match read(&posted, app.broker.now_ms()) {
        Ok(new) => app.broker.create_key(&person.caller, new).await,
        Err(wrong) => Err(Error::Invalid(wrong)),
    };
    match made {
        Ok(made) => {
            let page = frame(&app, &person, Menu::Callers).await;
            let (name, key) = (made.stored.caller.name, made.key.0.expose().to_owned());
            Ok(render::page(&person, StatusCode::OK, &Made { page, name, key }))
        }
        Err(error) => match wrongs(&error) {
            Some(wrong) => Ok(form(&app, &person, &posted, StatusCode::UNPROCESSABLE_ENTITY, &wrong).await),
            None => Err(error.into()),
        },
    }
}

fn read(posted: &Pairs, now: i64) -> Result<NewKey, Vec<FieldError>> {
    let mut wrong = Vec::new();
    let mut keep = |error: FieldError| wrong.push(error);
    let per_second = posted.number::<f64>("limits.per_second").map_err(&mut keep).unwrap_or_default();
    let concurrent = posted.number::<u32>("limits.concurrent").map_err(&mut keep).unwrap_or_default();
    let days = posted.number::<i64>("ends").map_err(&mut keep).unwrap_or_default();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let chosen = posted.all("scopes");
    let set = |name: &str| -> BTreeSet<String> { posted.lines(name).into_iter().collect() };
    Ok(NewKey {
        name: posted.one("name").to_owned(),
        scopes: Scope::ALL.into_iter().filter(|scope| chosen.iter().any(|it| it == scope.as_str())).collect(),
        limits: Limits {
            connections: set("limits.connections"),
            sources: set("limits.sources"),
            methods: posted
                .one("limits.methods")
                .split([' ', ','])
                .filter(|it| !it.is_empty())
                .map(str::to_uppercase)
                .collect(),
            paths: set("limits.paths"),
            rate: Rate { per_second, concurrent },
        },
        expires_at: days.map(|days| now.saturating_add(days.saturating_mul(DAY_MS))),
    })
}

async fn form(app: &App, person: &Person, posted: &Pairs, status: StatusCode, wrong: &[FieldError]) -> Response {
    let text = |name: &'static str, label: &str, help: &str| Field::text(name, label, help).value(posted.one(name));
    let mut name = text("name", "Name", "What the program is called; the audit names it so.").required();
    let ends = [("30", "in 30 days"), ("90", "in 90 days"), ("365", "in a year"), ("", "never")];
    let mut fields = vec![
        text("ends", "It expires", "A key that ends by itself can't be forgotten.")
            .choices(ends.map(|(value, label)| (value.to_owned(), label.to_owned()))),
        text("limits.connections", "Only these connections", "Names or ids, one a line. Empty: all of them.").lines(3),
        text(
            "limits.sources",
            "Only these data sources",
            "One a line. With some, connections are reached through these only.",
        )
        .lines(3),
        text("limits.methods", "Only these methods", "Of calls through the gateway. Empty: any.").example("GET HEAD"),
        text("limits.paths", "Only below these paths", "Of calls through the gateway, one a line. Empty: any.")
            .lines(2)
            .example("/v3/contacts"),
        text("limits.per_second", "Calls a second", "Tokens and calls; as many may come at once. Empty: no limit."),
        text("limits.concurrent", "Calls at the same time", "Empty: no limit."),
    ];
    let chosen = posted.all("scopes");
    let tick = |scope: Scope| Tick {
        name: scope.as_str(),
        meaning: meaning(scope),
        on: chosen.iter().any(|it| it == scope.as_str()),
    };
    let mut of_scopes = Field::text("scopes", "What it may do", "");
    let mut all: Vec<&mut Field> =
        std::iter::once(&mut name).chain([&mut of_scopes]).chain(fields.iter_mut()).collect();
    let wrong = mark(&mut all, wrong);
    let template = New {
        page: frame(app, person, Menu::Callers).await,
        wrong,
        name,
        scopes: Scope::ALL.map(tick).into(),
        scopes_wrong: of_scopes.wrong,
        fields,
        came: status != StatusCode::OK,
    };
    render::page(person, status, &template)
}

/// A scope in a sentence.
pub(super) fn meaning(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "See providers, integrations, connections and their states. No token, no secret.",
        Scope::Manage => "Make, change, authorise and remove them.",
        Scope::Token => "Read access tokens. Whoever has the key has the tokens too.",
        Scope::Call => "Call APIs through Keyholder without ever seeing a token.",
        Scope::Admin => "Everything, with keys and the audit. For people and for setting up, not for programs.",
    }
}

/// `GET /console/callers/{key}/revoke`.
pub(in crate::http) async fn ask_revoke(
    State(app): State<App>,
    person: Person,
    InPath(key): InPath,
) -> Result<Response, ApiError> {
    let found = app.broker.key(&person.caller, &key).await?;
    let used = match found.last_used_at.map(Time::at) {
        Some(time) => format!("It was last used at {}.", time.text),
        None => "It was never used.".to_owned(),
    };
    let confirm = render::Confirm {
        title: format!("Revoke “{}”?", found.caller.name),
        text: vec![
            used,
            "Whoever uses it is refused from now on. That can't be taken back; its name is free again.".to_owned(),
        ],
        button: "Revoke it",
        back: places::CALLERS.to_owned(),
    };
    Ok(render::confirm(&app, &person, Menu::Callers, confirm).await)
}

/// `POST /console/callers/{key}/revoke`.
pub(in crate::http) async fn revoke(
    State(app): State<App>,
    person: Person,
    InPath(key): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    let revoked = app.broker.revoke_key(&person.caller, &key).await?;
    Ok(render::moved(places::CALLERS, Said::good(format!("“{}” is revoked.", revoked.caller.name))))
}

/// It went well.
pub(super) fn good(text: impl Into<String>) -> Said {
    Said::good(text)
}
