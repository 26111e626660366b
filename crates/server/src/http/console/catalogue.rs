//! Providers: the catalogue, one of them, and definitions of one's own, by hand or from a discovery document.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{Said, Scope};
use keyholder_broker::{Error, FieldError};
use serde::Deserialize;

use super::super::App;
use super::super::input::{InPath, InQuery};
use super::super::problem::ApiError;
use super::forms::{Field, Posted, Wrong, mark, wrongs};
use super::session::Person;
use super::setup::Wish;
use super::{Frame, Menu, frame, places, render};

#[derive(Template)]
#[template(path = "console/providers.html")]
struct Providers<'a> {
    page: Frame<'a>,
    search: String,
    items: Vec<Item>,
    by_hand: String,
    discover: String,
    import: &'static str,
    /// What a new connection is made for stays in the addresses.
    wish: Wish,
    may_add: bool,
}

/// A provider of the list.
struct Item {
    href: String,
    name: String,
    /// What it is found by.
    words: String,
    own: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::http) struct Search {
    q: String,
    #[serde(rename = "for")]
    wanted_by: String,
    back: String,
    just: String,
    panel: String,
}

/// `GET /console/providers`.
pub(in crate::http) async fn list(
    State(app): State<App>,
    person: Person,
    InQuery(search): InQuery<Search>,
) -> Response {
    let wish = Wish {
        wanted_by: search.wanted_by,
        back: search.back,
        just: search.just,
        panel: search.panel,
        ..Wish::default()
    };
    let wanted: Vec<String> = search.q.to_lowercase().split_whitespace().map(str::to_owned).collect();
    let known = app.broker.providers();
    let mut items: Vec<Item> = known
        .iter()
        // It has a card of its own.
        .filter(|it| it.definition.id != BY_HAND)
        .map(|it| {
            let definition = &it.definition;
            let words = [&definition.id, &definition.name].into_iter().chain(&definition.aliases);
            let mut words: Vec<String> = words.map(|word| word.to_lowercase()).collect();
            words.dedup();
            Item {
                href: wish.place(&definition.id),
                name: definition.name.clone(),
                words: words.join(" "),
                own: !it.built_in,
            }
        })
        .filter(|item| wanted.iter().all(|word| item.words.contains(word)))
        .collect();
    items.sort_by_key(|item| (!item.own, item.name.to_lowercase()));
    let template = Providers {
        page: frame(&app, &person, Menu::Providers).await,
        search: search.q,
        items,
        by_hand: wish.place(BY_HAND),
        discover: format!("{}/discover", places::PROVIDERS),
        import: places::IMPORT,
        wish,
        may_add: person.may(Scope::Manage),
    };
    render::page(&person, StatusCode::OK, &template)
}

/// The definition that takes all addresses by hand.
const BY_HAND: &str = "oauth2";

#[derive(Template)]
#[template(path = "console/provider.html")]
struct ProviderPage<'a> {
    page: Frame<'a>,
    name: String,
    id: String,
    version: String,
    built_in: bool,
    docs: Option<String>,
    checked: Option<String>,
    methods: Vec<(String, &'static str, String)>,
    scopes: Vec<(String, String)>,
    text: String,
    new: String,
    may_add: bool,
}

/// `GET /console/providers/{provider}`.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let shown = app.broker.provider(&person.caller, &id, None).await?;
    let definition = &shown.definition;
    let place = |method: &str| Wish { method: method.to_owned(), ..Wish::default() }.place(&definition.id);
    let methods = definition.methods.iter().map(|it| (it.label.clone(), it.grant.as_str(), place(&it.name)));
    let template = ProviderPage {
        page: frame(&app, &person, Menu::Providers).await,
        name: definition.name.clone(),
        id: definition.id.clone(),
        version: shown.version.clone(),
        built_in: shown.built_in,
        docs: definition.docs.clone().filter(|url| url.starts_with("https://") || url.starts_with("http://")),
        checked: definition.checked.clone(),
        methods: methods.collect(),
        scopes: definition.scopes.known.clone(),
        text: definition.text.to_string(),
        new: places::new_connection(&definition.id),
        may_add: person.may(Scope::Manage),
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}

#[derive(Template)]
#[template(path = "console/definition.html")]
struct DefinitionPage<'a> {
    page: Frame<'a>,
    title: &'static str,
    /// What the one field is for.
    text: &'static str,
    action: String,
    button: &'static str,
    wrong: Vec<Wrong>,
    field: Field,
}

/// `GET /console/providers/discover`.
pub(in crate::http) async fn discover(State(app): State<App>, person: Person) -> Response {
    discover_page(&app, &person, StatusCode::OK, "", &[]).await
}

/// `POST /console/providers/discover`: what is found becomes a draft to look at.
pub(in crate::http) async fn draft(
    State(app): State<App>,
    person: Person,
    posted: Posted,
) -> Result<Response, ApiError> {
    let url = posted.one("url").to_owned();
    match app.broker.discover_provider(&url).await {
        Ok(text) => Ok(definition_page(&app, &person, StatusCode::OK, &text, &[]).await),
        Err(error) => {
            let wrong = wrongs(&error).ok_or_else(|| ApiError::from(error))?;
            let wrong: Vec<_> = wrong.into_iter().map(|it| FieldError { field: "url".to_owned(), ..it }).collect();
            Ok(discover_page(&app, &person, StatusCode::UNPROCESSABLE_ENTITY, &url, &wrong).await)
        }
    }
}

/// `GET /console/providers/new`.
pub(in crate::http) async fn new(State(app): State<App>, person: Person) -> Response {
    definition_page(&app, &person, StatusCode::OK, "", &[]).await
}

/// `POST /console/providers/new`.
pub(in crate::http) async fn add(State(app): State<App>, person: Person, posted: Posted) -> Result<Response, ApiError> {
    let text = posted.one("definition").to_owned();
    let wrong = match app.broker.add_provider(&person.caller, "definition.toml", &text).await {
        Ok(added) => {
            let said = Said::good(format!("The definition of {} is saved.", added.definition.name)).saved("definition");
            return Ok(render::moved(places::new_connection(&added.definition.id), said));
        }
        Err(Error::Definition(mistakes)) => mistakes
            .into_iter()
            .map(|it| {
                let reason = format!(
                    "line {}, {}: {}",
                    it.line,
                    if it.field.is_empty() { "the text" } else { &it.field },
                    it.reason
                );
                FieldError::new("definition", reason, it.remedy)
            })
            .collect(),
        Err(Error::Taken { name, .. }) => {
            let reason = format!("the id `{name}` belongs to a provider that comes with the program");
            vec![FieldError::new("definition", reason, "write another id")]
        }
        Err(error) => return Err(error.into()),
    };
    Ok(definition_page(&app, &person, StatusCode::UNPROCESSABLE_ENTITY, &text, &wrong).await)
}

async fn discover_page(app: &App, person: &Person, status: StatusCode, url: &str, wrong: &[FieldError]) -> Response {
    let help = "Of the server, its discovery document, or an API that names its server: https://login.example.com";
    let mut field = Field::text("url", "Address", help).required().kind("url").mono().value(url);
    let wrong = mark(&mut [&mut field], wrong);
    let template = DefinitionPage {
        page: frame(app, person, Menu::Providers).await,
        title: "From a discovery document",
        text: "Many servers publish their addresses and abilities (OpenID Connect Discovery, RFC 8414, RFC 9728). What is found becomes a definition that you can look at before it is saved.",
        action: format!("{}/discover", places::PROVIDERS),
        button: "Look there",
        wrong,
        field,
    };
    render::page(person, status, &template)
}

async fn definition_page(app: &App, person: &Person, status: StatusCode, text: &str, wrong: &[FieldError]) -> Response {
    let help = "TOML; the provider language's page in the documentation explains it.";
    let mut field = Field::text("definition", "Definition", help).required().lines(24).value(text);
    let wrong = mark(&mut [&mut field], wrong);
    let template = DefinitionPage {
        page: frame(app, person, Menu::Providers).await,
        title: "A definition of your own",
        text: "It says where the server is and how it behaves. Saved, it stands in the catalogue beside the others.",
        action: format!("{}/new", places::PROVIDERS),
        button: "Save and set up",
        wrong,
        field,
    };
    render::page(person, status, &template)
}
