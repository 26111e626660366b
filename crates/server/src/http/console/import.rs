//! Settings of other programs: read, and made into connections at once; what a file lacks is asked for in the form. The file's secrets never come back to the browser.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::{Error, FieldError, NewConnection, NewIntegration, SetUp, Wanted};
use keyholder_provider::GrantKind;
use keyholder_provider::import::{Format, ImportError, Imported, environment, import};

use super::super::App;
use super::super::problem::ApiError;
use super::forms::{Field, Pairs, Posted, Wrong, mark};
use super::session::Person;
use super::setup::{About, Wish, of_settings, run_at_once, told};
use super::{Frame, Menu, frame, places, render};

/// Longest form with a file.
const MOST: usize = 4 << 20;

#[derive(Template)]
#[template(path = "console/import.html")]
struct ImportPage<'a> {
    page: Frame<'a>,
    wrong: Vec<Wrong>,
    before: Vec<Field>,
    /// Their text may come from a file.
    texts: Vec<Field>,
    after: Vec<Field>,
    most: usize,
    items: Vec<Item>,
}

/// What was found in the file.
struct Item {
    name: String,
    method: &'static str,
    client_id: String,
    places: Vec<(String, String)>,
    notes: Vec<(String, String)>,
    /// Where the connection is that was made of it.
    made: Option<String>,
    redirect_uri: Option<String>,
    failed: Option<String>,
}

/// `GET /console/import`.
pub(in crate::http) async fn page(State(app): State<App>, person: Person) -> Response {
    shown(&app, &person, StatusCode::OK, None, &[], Vec::new()).await
}

/// `POST /console/import`: looks only, or makes what the file has.
pub(in crate::http) async fn bring(
    State(app): State<App>,
    person: Person,
    posted: Posted<MOST>,
) -> Result<Response, ApiError> {
    let unfit = StatusCode::UNPROCESSABLE_ENTITY;
    let found = match found(&posted) {
        Ok(found) => found,
        Err(wrong) => return Ok(shown(&app, &person, unfit, Some(&posted), &wrong, Vec::new()).await),
    };
    if posted.one("then") == "look" {
        let items = found.iter().map(Item::of).collect();
        return Ok(shown(&app, &person, StatusCode::OK, Some(&posted), &[], items).await);
    }
    if let [one] = found.as_slice() {
        return match make(&app, &person, one).await {
            Ok(made) if one.notes.is_empty() => Ok(onwards(&app, &person, one, &made.id).await),
            Ok(made) => Ok(shown(&app, &person, StatusCode::OK, None, &[], vec![made.item(one)]).await),
            Err(error) => match of_settings(&error) {
                Some(wrong) => in_form(&app, &person, one, &wrong).await,
                None => Err(error.into()),
            },
        };
    }
    let mut items = Vec::with_capacity(found.len());
    for one in &found {
        items.push(match make(&app, &person, one).await {
            Ok(made) => made.item(one),
            Err(error) => Item { failed: Some(render::sentence(&error.to_string())), ..Item::of(one) },
        });
    }
    Ok(shown(&app, &person, StatusCode::OK, Some(&posted), &[], items).await)
}

fn found(posted: &Pairs) -> Result<Vec<Imported>, Vec<FieldError>> {
    let wrong = |row: &'static str| {
        move |error: ImportError| {
            let remedy =
                error.remedy.replace("--set ", "under “Values”, write ").replace("--env FILE", "as the environment");
            vec![FieldError::new(row, format!("{}: {}", error.field, error.reason), remedy)]
        }
    };
    let format = match posted.one("format") {
        "bruno" => Format::Bruno,
        "insomnia" => Format::Insomnia,
        "curl" => Format::Curl,
        _ => Format::Postman,
    };
    let mut given: BTreeMap<String, String> = match posted.one("env") {
        "" => BTreeMap::new(),
        text => environment(format, text).map_err(wrong("env"))?,
    };
    for line in posted.lines("given") {
        let Some((name, value)) = line.split_once('=') else {
            let remedy = "write one a line, as name=value";
            return Err(vec![FieldError::new("given", "a line has no name and value", remedy)]);
        };
        given.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    let mut found = import(format, posted.one("file"), &given).map_err(wrong("file"))?;
    if let Some(only) = posted.opt("only") {
        let names = found.iter().map(|one| one.name.clone()).collect::<Vec<_>>().join(", ");
        found.retain(|one| one.name == only);
        if found.is_empty() {
            let remedy = format!("use one of: {names}");
            return Err(vec![FieldError::new("only", "the file has no settings of this name", remedy)]);
        }
    }
    Ok(found)
}

/// Adds a definition where the file says more than the built-in one can, then integration and connection; nothing stays of what is refused.
async fn make(app: &App, person: &Person, one: &Imported) -> Result<Made, Error> {
    let provider = one.provider();
    let added = match one.definition() {
        Some(text) => match app.broker.provider(&person.caller, &provider, None).await {
            Ok(known) if *known.definition.text == *text => false,
            Ok(_) => return Err(Error::Taken { what: "provider", name: provider }),
            Err(_) => {
                app.broker.add_provider(&person.caller, &format!("{provider}.toml"), &text).await?;
                true
            }
        },
        None => false,
    };
    let integration = NewIntegration {
        name: one.name.clone(),
        provider: provider.clone(),
        method: Some(one.grant.as_str().to_owned()),
        client_id: one.client_id.clone(),
        client_secret: one.client_secret.clone(),
        client_auth: one.client_auth,
        header_prefix: one.header_prefix.clone(),
        audience: one.audience.clone(),
        scopes: one.scopes.clone(),
        variables: one.variables.clone(),
        ..NewIntegration::default()
    };
    let connection = NewConnection {
        name: one.name.clone(),
        username: one.username.clone(),
        password: one.password.clone(),
        ..NewConnection::default()
    };
    let set_up = SetUp { integration: Wanted::New(Box::new(integration)), connection: Some(connection) };
    match app.broker.set_up(&person.caller, set_up).await {
        Ok((integration, connection)) => {
            let has_code = one.grant == GrantKind::AuthorizationCode;
            let id = connection.map(|it| it.connection.id.to_string()).unwrap_or_default();
            Ok(Made { id, redirect_uri: has_code.then(|| app.broker.redirect_uri(&integration.id)) })
        }
        Err(error) => {
            // The form is filled with a definition's values, so it stays for that.
            if added && of_settings(&error).is_none() {
                app.broker.remove_provider(&person.caller, &provider, None).await?;
            }
            Err(error)
        }
    }
}

/// The file said everything: on to its connection, which is connected where nobody has to consent.
async fn onwards(app: &App, person: &Person, one: &Imported, id: &str) -> Response {
    let connected = run_at_once(app, person, id, one.grant).await;
    let place = match &connected {
        None => places::of_connection(id, "authorize"),
        Some(Ok(())) => places::of_connection(id, "test"),
        Some(Err(_)) => places::connection(id),
    };
    render::moved(place, told(&one.name, connected.as_ref()))
}

/// A connection that was made of what a file has.
struct Made {
    id: String,
    redirect_uri: Option<String>,
}

impl Made {
    fn item(self, one: &Imported) -> Item {
        let place = match one.grant.needs_a_person() {
            true => places::of_connection(&self.id, "authorize"),
            false => places::connection(&self.id),
        };
        Item { made: Some(place), redirect_uri: self.redirect_uri, ..Item::of(one) }
    }
}

/// The form with what the file has, save its secrets, and what it lacks marked.
async fn in_form(app: &App, person: &Person, one: &Imported, wrong: &[FieldError]) -> Result<Response, ApiError> {
    let id = app.broker.reserve_integration().to_string();
    let wish = Wish { id, ..Wish::default() };
    let about = About::of(app, person, &one.provider(), wish).await?;
    let own = [
        ("method", one.grant.as_str().to_owned()),
        ("name", one.name.clone()),
        ("client_id", one.client_id.clone()),
        ("client_auth", one.client_auth.map(|auth| auth.to_string()).unwrap_or_default()),
        ("header_prefix", one.header_prefix.clone().unwrap_or_default()),
        ("audience", one.audience.clone().unwrap_or_default()),
        ("scopes", one.scopes.join("\n")),
        ("username", one.username.clone().unwrap_or_default()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let variables = one.variables.iter().map(|(name, value)| (format!("variables.{name}"), value.clone()));
    let typed = Pairs::from(own.chain(variables).collect::<Vec<_>>());
    Ok(about.page(app, person, StatusCode::UNPROCESSABLE_ENTITY, Some(&typed), wrong).await)
}

impl Item {
    fn of(one: &Imported) -> Self {
        // Others may be secret.
        const ADDRESSES: [&str; 4] = ["authorization_url", "token_url", "refresh_url", "api_base_url"];
        let places = one.variables.iter().filter(|(name, _)| ADDRESSES.contains(&name.as_str()));
        let notes = one.notes.iter().map(|note| {
            let remedy = note.remedy.replace("--set ", "under “Values”, write ").replace("with --env FILE", "below");
            (note.field.clone(), render::sentence(&format!("{}; {remedy}", note.reason)))
        });
        Self {
            name: one.name.clone(),
            method: one.grant.as_str(),
            client_id: one.client_id.clone(),
            places: places.map(|(name, value)| (name.clone(), value.clone())).collect(),
            notes: notes.collect(),
            made: None,
            redirect_uri: None,
            failed: None,
        }
    }
}

async fn shown(
    app: &App,
    person: &Person,
    status: StatusCode,
    typed: Option<&Pairs>,
    wrong: &[FieldError],
    items: Vec<Item>,
) -> Response {
    let programs =
        [("postman", "Postman (collection)"), ("bruno", "Bruno"), ("insomnia", "Insomnia"), ("curl", "A curl command")];
    let programs = programs.map(|(value, label)| (value.to_owned(), label.to_owned()));
    let value = |name: &str| typed.map_or(String::new(), |typed| typed.one(name).to_owned());
    let mut before = vec![Field::text("format", "What wrote it", "").choices(programs).value(value("format"))];
    let text = |name, label, help| Field { secret: true, ..Field::text(name, label, help).lines(8) };
    let file =
        text("file", "Its text", "It may hold secrets: they are sealed when it is saved, and never sent back here.")
            .required();
    let env = text("env", "Environment", "If the settings use variables of an environment, its file too.");
    let mut texts = vec![file, env];
    let given = "For variables without a value, and for what the file lacks, one a line: client_id=…, api_base_url=…";
    let given = Field { secret: true, ..Field::text("given", "Values", given).lines(3) };
    let only =
        Field::text("only", "Only the settings of this name", "Where the file has several.").value(value("only"));
    let mut after = vec![given, only];
    let mut fields: Vec<&mut Field> = before.iter_mut().chain(&mut texts).chain(&mut after).collect();
    let wrong = mark(&mut fields, wrong);
    let page = frame(app, person, Menu::Providers).await;
    render::page(person, status, &ImportPage { page, wrong, before, texts, after, most: MOST / 2, items })
}
