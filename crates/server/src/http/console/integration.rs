//! An integration: its page, changes, another version of its definition, its removal.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{Integration, Said, Scope, Status};
use keyholder_broker::store::Filter;
use keyholder_broker::{Error, FieldError, NewVersion, Page, ShownConnection, Upgrade};
use keyholder_provider::{Definition, GrantKind};

use super::super::App;
use super::super::input::InPath;
use super::super::problem::ApiError;
use super::forms::{Field, Pairs, Posted, Time, Wrong, mark};
use super::session::Person;
use super::setup::fields::{Purpose, Source};
use super::setup::{Form, day, difference, labelled, needs_admin, of_settings, read, show, stale};
use super::{Frame, Menu, frame, places, render};

#[derive(Template)]
#[template(path = "console/integration.html")]
struct IntegrationPage<'a> {
    page: Frame<'a>,
    name: String,
    description: String,
    provider: (String, String),
    facts: Vec<(&'static str, String)>,
    redirect_uri: Option<String>,
    secret_ends: Option<Time>,
    connections: Vec<Under>,
    place: String,
    new_connection: String,
    may_change: bool,
}

/// A connection under it.
struct Under {
    href: String,
    name: String,
    state: &'static str,
    pill: &'static str,
    owner: String,
}

/// `GET /console/integrations/{integration}`.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let it = app.broker.integration(&person.caller, &name).await?;
    let definition = app.broker.definition_of(&it).await?;
    let connections = connections_under(&app, &person, &it).await?;
    let has_code = definition.method(Some(&it.method)).is_ok_and(|it| it.grant == GrantKind::AuthorizationCode);
    let place = places::integration(it.id.as_str());
    let new_connection = places::with(&places::new_connection(&it.provider), &[("integration", it.id.as_str())]);
    let template = IntegrationPage {
        page: frame(&app, &person, Menu::Integrations).await,
        name: it.name.clone(),
        description: it.description.clone(),
        provider: (definition.name.clone(), places::provider(&it.provider)),
        facts: facts(&it, &definition),
        redirect_uri: has_code.then(|| app.broker.redirect_uri(&it.id)),
        secret_ends: it.client_secret_expires_at.map(Time::at),
        connections: connections.into_iter().map(under).collect(),
        place,
        new_connection,
        may_change: person.may(Scope::Manage),
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}

/// Those that stand under it, as many as fit one page.
pub(in crate::http) async fn connections_under(
    app: &App,
    person: &Person,
    it: &Integration,
) -> Result<Vec<ShownConnection>, Error> {
    let filter = Filter { integration: Some(it.id.clone()), ..Filter::default() };
    app.broker.connections(&person.caller, &filter, &Page::first()).await
}

fn under(it: ShownConnection) -> Under {
    let status = it.connection.state.status();
    let pill = match status {
        Status::Connected => "green",
        Status::Failing => "amber",
        Status::Reconnect => "red",
        Status::Draft | Status::Pending | Status::Revoked => "",
    };
    Under {
        href: places::connection(it.connection.id.as_str()),
        name: it.connection.name,
        state: status.as_str(),
        pill,
        owner: it.connection.owner.unwrap_or_default(),
    }
}

/// What it says, in words; what is as the provider wants it is left out.
fn facts(it: &Integration, definition: &Definition) -> Vec<(&'static str, String)> {
    let method = definition.method(Some(&it.method)).map_or_else(|_| it.method.clone(), |method| method.label.clone());
    let kept = |is_there: bool| if is_there { "Kept, never shown" } else { "" }.to_owned();
    let pairs = |pairs: &[(String, String)]| {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let values = it.variables.iter().map(|(name, value)| format!("{name}={value}"));
    let secrets = it.secret_variables.keys().map(|name| format!("{name} (kept)"));
    let duration = |seconds: Option<u32>| seconds.map(read::in_units).unwrap_or_default();
    let facts = [
        ("Version of the definition", it.provider_version.clone()),
        ("Method", method),
        ("Client ID", it.client_id.clone()),
        ("Client secret", kept(it.client_secret.is_some())),
        ("Private key", kept(it.client_key.is_some())),
        ("Client certificate", kept(it.client_certificate.is_some())),
        ("Client authentication", it.client_auth.map(|auth| auth.to_string()).unwrap_or_default()),
        ("Scopes", it.scopes.join(" ")),
        ("Audience", it.audience.clone().unwrap_or_default()),
        ("Header prefix", it.header_prefix.clone().unwrap_or_default()),
        ("Settings", values.chain(secrets).collect::<Vec<_>>().join("\n")),
        ("Parameters to the authorization URL", pairs(&it.extra.authorize)),
        ("Parameters of token requests", pairs(&it.extra.token)),
        ("Parameters of renewals", pairs(&it.extra.refresh)),
        ("A token lives", duration(it.renewal.token_lifetime)),
        ("Renewed ahead by", duration(it.renewal.ahead)),
        ("Renewal", if it.renewal.by_itself { "" } else { "At use only" }.to_owned()),
        ("Calls a second", it.limits.per_second.map(|it| it.to_string()).unwrap_or_default()),
        ("Calls at once", it.limits.concurrent.map(|it| it.to_string()).unwrap_or_default()),
        ("Id", it.id.to_string()),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// `GET /console/integrations/{integration}/edit`.
pub(in crate::http) async fn edit(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let edited = Edited::of(&app, &person, &name).await?;
    let stored = edited.stored();
    Ok(edited.page(&app, &person, StatusCode::OK, &stored, &[], Vec::new()).await)
}

/// `POST /console/integrations/{integration}/edit`.
pub(in crate::http) async fn save(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    posted: Posted,
) -> Result<Response, ApiError> {
    let edited = Edited::of(&app, &person, &name).await?;
    let again = async |wrong: Vec<FieldError>, stored| {
        Ok(edited.page(&app, &person, StatusCode::UNPROCESSABLE_ENTITY, &posted, &wrong, stored).await)
    };
    if posted.one("version") != edited.integration.generation.to_string() {
        return again(stale("integration"), difference(&edited.stored(), &posted)).await;
    }
    let method = edited.definition.method(Some(&edited.integration.method)).map_err(Error::from)?;
    let edit = match read::integration_edit(&posted, &edited.definition, method, &edited.integration) {
        Ok(edit) => edit,
        Err(wrong) => return again(wrong, Vec::new()).await,
    };
    if let Some(changed) = edit.variables.keys().next().filter(|_| !person.may(Scope::Admin)) {
        return again(needs_admin(changed), Vec::new()).await;
    }
    let id = edited.integration.id.as_str();
    match app.broker.edit_integration(&person.caller, id, edit).await {
        Ok(_) => {
            Ok(render::moved(places::integration(id), Said::good("The integration is saved.").saved(edited.draft())))
        }
        Err(error) => match of_settings(&error) {
            Some(wrong) => again(wrong, Vec::new()).await,
            None => Err(error.into()),
        },
    }
}

/// An integration that is changed.
struct Edited {
    integration: Integration,
    definition: Arc<Definition>,
    connections: usize,
}

impl Edited {
    async fn of(app: &App, person: &Person, name: &str) -> Result<Self, Error> {
        let integration = app.broker.integration(&person.caller, name).await?;
        let definition = app.broker.definition_of(&integration).await?;
        let connections = connections_under(app, person, &integration).await?.len();
        Ok(Self { integration, definition, connections })
    }

    fn draft(&self) -> String {
        format!("edit {}", self.integration.id)
    }

    /// What is stored, as it would be typed.
    fn stored(&self) -> Pairs {
        let it = &self.integration;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let own = [
            ("method", it.method.clone()),
            ("name", it.name.clone()),
            ("description", it.description.clone()),
            ("client_id", it.client_id.clone()),
            ("client_secret_expires_at", it.client_secret_expires_at.map(day).unwrap_or_default()),
            ("client_certificate", text(&it.client_certificate)),
            ("audience", text(&it.audience)),
            ("header_prefix", text(&it.header_prefix)),
            ("client_auth", it.client_auth.map(|auth| auth.to_string()).unwrap_or_default()),
            ("grant_type", text(&it.grant_type)),
            ("content_type", text(&it.content_type)),
            ("token_key", text(&it.token_key)),
            ("limits.per_second", it.limits.per_second.map(|it| it.to_string()).unwrap_or_default()),
            ("limits.concurrent", it.limits.concurrent.map(|it| it.to_string()).unwrap_or_default()),
            ("renewal.token_lifetime", it.renewal.token_lifetime.map(read::in_units).unwrap_or_default()),
            ("renewal.ahead", it.renewal.ahead.map(read::in_units).unwrap_or_default()),
            ("renewal.by_itself", if it.renewal.by_itself { "yes" } else { "no" }.to_owned()),
            ("scopes", it.scopes.join("\n")),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let variables = it.variables.iter().map(|(name, value)| (format!("variables.{name}"), value.clone()));
        let extra = it.extra.phases().into_iter().flat_map(|(phase, pairs)| {
            let row = move |(name, value): &(String, String)| {
                [(format!("extra.{phase}.name"), name.clone()), (format!("extra.{phase}.value"), value.clone())]
            };
            pairs.iter().flat_map(row)
        });
        Pairs::from(own.chain(variables).chain(extra).collect::<Vec<_>>())
    }

    async fn page(
        &self,
        app: &App,
        person: &Person,
        status: StatusCode,
        typed: &Pairs,
        wrong: &[FieldError],
        stored: Vec<(String, String)>,
    ) -> Response {
        let it = &self.integration;
        let method = self.definition.method(Some(&it.method)).ok();
        let chosen = method.unwrap_or(&self.definition.methods[0]);
        let own = [
            ("client_secret", it.client_secret.is_some()),
            ("client_key", it.client_key.is_some()),
            ("client_certificate_key", it.client_certificate_key.is_some()),
        ];
        let kept = own.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name.to_owned());
        let kept = kept.chain(it.secret_variables.keys().map(|name| format!("variables.{name}"))).collect();
        let source = Source {
            definition: &self.definition,
            methods: vec![chosen],
            chosen,
            purpose: Purpose::EditIntegration,
            typed: Some(typed),
            kept,
        };
        let place = places::integration(it.id.as_str());
        let shared = match self.connections {
            0 => None,
            1 => Some("A connection stands under it: what you change counts for it too.".to_owned()),
            many => Some(format!("{many} connections stand under it: what you change counts for all of them.")),
        };
        let form = Form {
            title: format!("Change “{}”", it.name),
            crumbs: vec![
                (places::INTEGRATIONS.to_owned(), "Integrations".to_owned()),
                (place.clone(), it.name.clone()),
            ],
            action: format!("{place}/edit"),
            draft: self.draft(),
            version: Some(it.generation.to_string()),
            shared,
            stored: labelled(&source, stored),
            back: place,
            ..Form::of(app, &source, Some(&it.id), wrong)
        };
        show(app, person, status, form, Menu::Integrations).await
    }
}

#[derive(Template)]
#[template(path = "console/upgrade.html")]
struct UpgradePage<'a> {
    page: Frame<'a>,
    name: String,
    from: String,
    to: String,
    lines: Vec<(&'static str, String)>,
    addresses: Vec<(String, String, String)>,
    missing_in_connections: Vec<String>,
    dropped: Vec<String>,
    wrong: Vec<Wrong>,
    fields: Vec<Field>,
    place: String,
    may_change: bool,
}

/// `GET /console/integrations/{integration}/upgrade`: what the newest version would change.
pub(in crate::http) async fn upgrade(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let seen = look(&app, &person, &name, None).await?;
    Ok(upgrade_page(&app, &person, StatusCode::OK, seen, None, &[]).await)
}

/// `POST /console/integrations/{integration}/upgrade`.
pub(in crate::http) async fn upgrade_now(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    posted: Posted,
) -> Result<Response, ApiError> {
    let version = posted.opt("to");
    let new = NewVersion { version: version.clone(), variables: posted.below("variables."), dry_run: false };
    match app.broker.upgrade_integration(&person.caller, &name, new).await {
        Ok(done) => {
            let text = format!("The integration is on version {} now.", done.to);
            Ok(render::moved(places::integration(done.integration.id.as_str()), Said::good(text)))
        }
        Err(error) => {
            let Some(wrong) = of_settings(&error) else { return Err(error.into()) };
            let seen = look(&app, &person, &name, version).await?;
            Ok(upgrade_page(&app, &person, StatusCode::UNPROCESSABLE_ENTITY, seen, Some(&posted), &wrong).await)
        }
    }
}

async fn look(app: &App, person: &Person, name: &str, version: Option<String>) -> Result<Upgrade, Error> {
    let new = NewVersion { version, dry_run: true, ..NewVersion::default() };
    app.broker.upgrade_integration(&person.caller, name, new).await
}

async fn upgrade_page(
    app: &App,
    person: &Person,
    status: StatusCode,
    seen: Upgrade,
    typed: Option<&Pairs>,
    wrong: &[FieldError],
) -> Response {
    let newest = app.broker.provider(&person.caller, &seen.integration.provider, Some(&seen.to)).await.ok();
    let variables = newest.iter().flat_map(|newest| &newest.definition.variables);
    let missing = variables.filter(|it| seen.meaning.missing.contains(&it.name));
    let mut fields: Vec<Field> = missing
        .map(|variable| {
            let field = Field::from(variable, "variables.");
            let value = typed.filter(|_| !field.secret).map(|typed| typed.one(&field.name).to_owned());
            value.map_or(field.clone(), |value| field.value(value))
        })
        .collect();
    let wrong = mark(&mut fields.iter_mut().collect::<Vec<_>>(), wrong);
    let tone = |line: &str| match line.as_bytes().first() {
        Some(b'+') => "good",
        Some(b'-') => "bad",
        _ => "",
    };
    let none = |place: Option<String>| place.unwrap_or_else(|| "none".to_owned());
    let template = UpgradePage {
        page: frame(app, person, Menu::Integrations).await,
        name: seen.integration.name.clone(),
        lines: seen.difference.lines().map(|line| (tone(line), line.to_owned())).collect(),
        addresses: seen.meaning.addresses.into_iter().map(|(field, a, b)| (field, none(a), none(b))).collect(),
        missing_in_connections: seen.meaning.missing_in_connections,
        dropped: seen.meaning.dropped,
        from: seen.from,
        to: seen.to,
        wrong,
        fields,
        place: places::integration(seen.integration.id.as_str()),
        may_change: person.may(Scope::Admin),
    };
    render::page(person, status, &template)
}

/// `GET /console/integrations/{integration}/remove`.
pub(in crate::http) async fn remove(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let it = app.broker.integration(&person.caller, &name).await?;
    let connections = connections_under(&app, &person, &it).await?.len();
    let text = match connections {
        0 => "Its client secret and settings are deleted. Nothing at the provider changes.".to_owned(),
        1 => "A connection stands under it, so it can't be removed: remove that one first.".to_owned(),
        many => format!("{many} connections stand under it, so it can't be removed: remove those first."),
    };
    let confirm = render::Confirm {
        title: format!("Remove the integration “{}”?", it.name),
        text: vec![text],
        button: "Remove it",
        back: places::integration(it.id.as_str()),
    };
    Ok(render::confirm(&app, &person, Menu::Integrations, confirm).await)
}

/// `POST /console/integrations/{integration}/remove`.
pub(in crate::http) async fn remove_now(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    _: Posted,
) -> Result<Response, ApiError> {
    app.broker.remove_integration(&person.caller, &name).await?;
    Ok(render::moved(places::INTEGRATIONS, Said::good("The integration is removed.")))
}
