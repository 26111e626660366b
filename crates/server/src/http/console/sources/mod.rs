//! Data sources: APIs under a name, their saved requests, and running these.

mod form;
pub(in crate::http) mod request;
pub(in crate::http) mod runner;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{AllowRule, Said, SavedRequest, Scope, SourceVariable};
use keyholder_broker::{Error, FieldError, ShownSource};

use super::super::App;
use super::super::input::{InPath, InQuery, PageQuery, cut};
use super::super::problem::ApiError;
use super::forms::{Posted, wrongs};
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

#[derive(Template)]
#[template(path = "console/sources.html")]
struct List<'a> {
    page: Frame<'a>,
    sources: Vec<Row>,
    next: Option<String>,
    may_manage: bool,
}

/// A data source in the list.
struct Row {
    name: String,
    description: String,
    href: String,
    behind: String,
    base: String,
    requests: usize,
}

#[derive(Template)]
#[template(path = "console/source.html")]
struct One<'a> {
    page: Frame<'a>,
    it: Shown,
}

/// A data source on its page.
struct Shown {
    name: String,
    description: String,
    place: String,
    behind: String,
    /// Where the connection or integration is.
    behind_href: String,
    is_each_callers: bool,
    base: String,
    defaults: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    allow: Vec<String>,
    requests: Vec<Saved>,
    may_manage: bool,
    may_call: bool,
}

/// A saved request in the list of its source.
struct Saved {
    name: String,
    description: String,
    line: String,
    href: String,
}

fn base_of(it: &ShownSource) -> String {
    it.source.base_url.clone().unwrap_or_else(|| "the connection's own".to_owned())
}

/// `GET /console/sources`.
pub(in crate::http) async fn list(
    State(app): State<App>,
    person: Person,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let page = query.page()?;
    let found = app.broker.list_sources(&person.caller, &page).await?;
    let (sources, next) = cut(found, &page, |it| it.source.id.to_string());
    let row = |it: &ShownSource| Row {
        name: it.source.name.clone(),
        description: it.source.description.clone(),
        href: places::source(it.source.id.as_str()),
        behind: match (&it.connection, &it.integration) {
            (Some(connection), _) => connection.clone(),
            (None, Some(integration)) => format!("each caller's own under {integration}"),
            (None, None) => String::new(),
        },
        base: base_of(it),
        requests: it.source.spec.requests.len(),
    };
    let template = List {
        page: frame(&app, &person, Menu::Sources).await,
        sources: sources.iter().map(row).collect(),
        next: next.map(|after| places::with(places::SOURCES, &[("after", &after)])),
        may_manage: person.may(Scope::Manage),
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}

/// `GET /console/sources/{source}`.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &name).await?;
    let template = One { page: frame(&app, &person, Menu::Sources).await, it: shown(&it, &person) };
    Ok(render::page(&person, StatusCode::OK, &template))
}

fn shown(it: &ShownSource, person: &Person) -> Shown {
    let (source, spec) = (&it.source, &it.source.spec);
    let place = places::source(source.id.as_str());
    let (behind, behind_href) = match (&it.connection, &it.integration) {
        (Some(name), _) => (name.clone(), places::connection(name)),
        (None, name) => (name.clone().unwrap_or_default(), places::integration(name.as_deref().unwrap_or_default())),
    };
    let saved = |(name, request): (&String, &SavedRequest)| Saved {
        name: name.clone(),
        description: request.description.clone(),
        line: format!("{} {}", method_of(request), request.path),
        href: request::place(source.id.as_str(), name),
    };
    Shown {
        name: source.name.clone(),
        description: source.description.clone(),
        behind,
        behind_href,
        is_each_callers: it.connection.is_none(),
        base: base_of(it),
        defaults: spec.headers.iter().chain(&spec.query).map(|(name, value)| (name.clone(), value.clone())).collect(),
        variables: spec.variables.iter().map(|(name, variable)| (name.clone(), value_of(variable))).collect(),
        allow: spec.allow.iter().map(rule).collect(),
        requests: spec.requests.iter().map(saved).collect(),
        may_manage: person.may(Scope::Manage),
        may_call: person.may(Scope::Call),
        place,
    }
}

fn method_of(request: &SavedRequest) -> &str {
    match request.method.as_str() {
        "" if request.body.is_some() || !request.form.is_empty() => "POST",
        "" => "GET",
        method => method,
    }
}

fn value_of(variable: &SourceVariable) -> String {
    match (&variable.value, variable.secret) {
        (_, true) => "•••• (secret)".to_owned(),
        (Some(value), false) => value.clone(),
        (None, false) => "given at each call, or by the connection".to_owned(),
    }
}

/// A rule in a line: `GET HEAD /contacts/**`.
fn rule(rule: &AllowRule) -> String {
    let methods = rule.methods.iter().map(String::as_str);
    methods.chain([rule.path.as_str()]).collect::<Vec<_>>().join(" ")
}

/// `GET /console/sources/new`.
pub(in crate::http) async fn new(
    State(app): State<App>,
    person: Person,
    InQuery(query): InQuery<form::Query>,
) -> Result<Response, ApiError> {
    form::show(&app, &person, None, &form::empty(&query), StatusCode::OK, &[]).await
}

/// `POST /console/sources/new`.
pub(in crate::http) async fn create(
    State(app): State<App>,
    person: Person,
    posted: Posted,
) -> Result<Response, ApiError> {
    let made = match form::new_source(&posted) {
        Ok(new) => app.broker.add_source(&person.caller, new).await,
        Err(wrong) => Err(Error::Invalid(wrong)),
    };
    match made {
        Ok(made) => {
            let source = made.source.source;
            let said =
                Said::good(format!("“{}” is there. Save a request, and run it.", source.name)).saved("source new");
            Ok(render::moved(places::source(source.id.as_str()), said))
        }
        Err(error) => match of_form(&error) {
            Some(wrong) => {
                let unfit = StatusCode::UNPROCESSABLE_ENTITY;
                form::show(&app, &person, None, &form::posted(&posted), unfit, &wrong).await
            }
            None => Err(error.into()),
        },
    }
}

/// `GET /console/sources/{source}/edit`.
pub(in crate::http) async fn edit(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &name).await?;
    form::show(&app, &person, Some(&it), &form::stored(&it), StatusCode::OK, &[]).await
}

/// `POST /console/sources/{source}/edit`.
pub(in crate::http) async fn save(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    posted: Posted,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &name).await?;
    let saved = match form::edit_of(&posted, &it) {
        Ok(edit) => app.broker.edit_source(&person.caller, it.source.id.as_str(), edit).await,
        Err(wrong) => Err(Error::Invalid(wrong)),
    };
    match saved {
        Ok(saved) => {
            let said = Said::good("Saved.").saved(format!("source {}", it.source.id));
            Ok(render::moved(places::source(saved.source.id.as_str()), said))
        }
        Err(error) => match of_form(&error) {
            Some(wrong) => {
                let unfit = StatusCode::UNPROCESSABLE_ENTITY;
                form::show(&app, &person, Some(&it), &form::posted(&posted), unfit, &wrong).await
            }
            None => Err(error.into()),
        },
    }
}

/// The mistakes of the form that an error names.
fn of_form(error: &Error) -> Option<Vec<FieldError>> {
    match error {
        Error::HostNotAllowed { .. } => {
            let remedy = "give an address of the connection's API, or set the API base URL of its integration";
            Some(vec![FieldError::new("base_url", error.to_string(), remedy)])
        }
        Error::NotFound { what: what @ ("connection" | "integration"), .. } => {
            Some(vec![FieldError::new(*what, format!("this {what} is gone"), "choose another, or make one")])
        }
        other => wrongs(other),
    }
}

/// `GET /console/sources/{source}/remove`.
pub(in crate::http) async fn ask_remove(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &name).await?;
    let requests = it.source.spec.requests.len();
    let confirm = render::Confirm {
        title: format!("Remove “{}”?", it.source.name),
        text: vec![
            format!("Its {requests} saved requests go with it, and whoever calls it by this name is refused."),
            "The connection behind it stays.".to_owned(),
        ],
        button: "Remove it",
        back: places::source(it.source.id.as_str()),
    };
    Ok(render::confirm(&app, &person, Menu::Sources, confirm).await)
}

/// `POST /console/sources/{source}/remove`.
pub(in crate::http) async fn remove(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    app.broker.remove_source(&person.caller, &name).await?;
    Ok(render::moved(places::SOURCES, Said::good("The data source is removed.")))
}
