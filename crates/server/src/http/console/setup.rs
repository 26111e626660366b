//! The one form: an integration with its connection, either alone, and changes to them.

pub(in crate::http) mod fields;
pub(in crate::http) mod read;

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use keyholder_broker::model::{Integration, IntegrationId, Said, Scope};
use keyholder_broker::{Authorize, Error, FieldError, SetUp, ShownConnection, Wanted};
use keyholder_oauth::{Secret, sha256};
use keyholder_provider::{Definition, GrantKind, Method, Variable};
use serde::Deserialize;

use super::super::App;
use super::super::input::{InPath, InQuery};
use super::super::problem::ApiError;
use super::forms::{Pairs, Posted, Time, Wrong, wrongs};
use super::render::{self, Message, sentence};
use super::session::{PART, Person};
use super::{Frame, Menu, frame, places};
use fields::{Purpose, Rows, Source, acts_for_itself};

#[derive(Template)]
#[template(path = "console/setup.html")]
struct SetupPage<'a> {
    page: Frame<'a>,
    form: Form,
}

/// The form as its template shows it.
pub(in crate::http) struct Form {
    pub(in crate::http) title: String,
    pub(in crate::http) provider: String,
    /// Where it came from, and what that is called.
    pub(in crate::http) crumbs: Vec<(String, String)>,
    pub(in crate::http) action: String,
    /// Key of its draft.
    pub(in crate::http) draft: String,
    /// Of what is changed; a stale one saves nothing.
    pub(in crate::http) version: Option<String>,
    /// It comes back with remarks.
    pub(in crate::http) came: bool,
    pub(in crate::http) wrong: Vec<Wrong>,
    pub(in crate::http) secrets_lost: bool,
    /// What somebody else saved meanwhile, by label.
    pub(in crate::http) stored: Vec<(String, String)>,
    /// What else is touched by it.
    pub(in crate::http) shared: Option<String>,
    pub(in crate::http) rows: Rows,
    pub(in crate::http) more_open: bool,
    pub(in crate::http) redirect: Option<Redirect>,
    /// The integration that is there, in words.
    pub(in crate::http) client: Vec<(&'static str, String)>,
    /// Where that is changed.
    pub(in crate::http) client_edit: Option<String>,
    pub(in crate::http) guide: Guide,
    /// Label of the button that saves and goes on; none where saving is all.
    pub(in crate::http) connect: Option<&'static str>,
    pub(in crate::http) save: &'static str,
    pub(in crate::http) back: String,
}

/// The redirect URI, and what to mind about it.
pub(in crate::http) struct Redirect {
    pub(in crate::http) uri: String,
    pub(in crate::http) note: String,
    pub(in crate::http) when: Option<&'static str>,
}

/// How to register an application with the provider.
pub(in crate::http) struct Guide {
    pub(in crate::http) register_url: Option<String>,
    pub(in crate::http) text: String,
    pub(in crate::http) steps: Vec<String>,
    pub(in crate::http) docs: Option<String>,
    pub(in crate::http) checked: Option<String>,
}

/// What the address of the form says.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::http) struct Wish {
    pub(in crate::http) method: String,
    /// Make the connection under this integration.
    pub(in crate::http) integration: String,
    /// The new integration's id, so that its redirect URI is known first, and stays over reloads.
    pub(in crate::http) id: String,
    /// `integration`: no connection.
    pub(in crate::http) just: String,
    /// What it is made for, and where that is.
    #[serde(rename = "for")]
    pub(in crate::http) wanted_by: String,
    pub(in crate::http) back: String,
    /// In a side panel.
    pub(in crate::http) panel: String,
}

impl Wish {
    /// The address of the form with all of it.
    pub(in crate::http) fn place(&self, provider: &str) -> String {
        let query = [
            ("method", self.method.as_str()),
            ("integration", &self.integration),
            ("id", &self.id),
            ("just", &self.just),
            ("for", &self.wanted_by),
            ("back", &self.back),
            ("panel", &self.panel),
        ];
        places::with(&places::new_connection(provider), &query)
    }
}

/// What a form for something new is about.
pub(in crate::http) struct About {
    definition: Arc<Definition>,
    /// Under which the connection is made.
    under: Option<Integration>,
    purpose: Purpose,
    id: Option<IntegrationId>,
    wish: Wish,
}

/// `GET /console/connections/new/{provider}`.
pub(in crate::http) async fn new(
    State(app): State<App>,
    person: Person,
    InPath(provider): InPath,
    InQuery(wish): InQuery<Wish>,
) -> Result<Response, ApiError> {
    let about = About::of(&app, &person, &provider, wish).await?;
    if about.purpose.has_integration() && about.id.is_none() {
        let id = app.broker.reserve_integration().to_string();
        return Ok(render::to(Wish { id, ..about.wish }.place(&about.definition.id)));
    }
    Ok(about.page(&app, &person, StatusCode::OK, None, &[]).await)
}

/// `POST /console/connections/new/{provider}`.
pub(in crate::http) async fn create(
    State(app): State<App>,
    person: Person,
    InPath(provider): InPath,
    InQuery(wish): InQuery<Wish>,
    headers: HeaderMap,
    posted: Posted,
) -> Result<Response, ApiError> {
    let about = About::of(&app, &person, &provider, wish).await?;
    let in_panel = headers.contains_key(PART) && !about.wish.panel.is_empty();
    about.save(&app, &person, &posted, in_panel).await
}

impl About {
    pub(in crate::http) async fn of(app: &App, person: &Person, provider: &str, wish: Wish) -> Result<Self, Error> {
        if !wish.integration.is_empty() {
            let under = app.broker.integration(&person.caller, &wish.integration).await?;
            let definition = app.broker.definition_of(&under).await?;
            return Ok(Self { definition, under: Some(under), purpose: Purpose::Connection, id: None, wish });
        }
        let definition = app.broker.provider(&person.caller, provider, None).await?.definition;
        let purpose = if wish.just == "integration" { Purpose::Integration } else { Purpose::Both };
        let id = wish.id.parse().ok();
        Ok(Self { definition, under: None, purpose, id, wish })
    }

    fn methods(&self) -> Vec<&Method> {
        let wanted = self.under.as_ref().map(|it| it.method.as_str());
        self.definition.methods.iter().filter(|method| wanted.is_none_or(|name| method.name == name)).collect()
    }

    fn method(&self, name: &str) -> Option<&Method> {
        self.methods().into_iter().find(|method| method.name == name)
    }

    /// Saves what was typed; or the form again, with what is wrong.
    pub(in crate::http) async fn save(
        &self,
        app: &App,
        person: &Person,
        posted: &Pairs,
        in_panel: bool,
    ) -> Result<Response, ApiError> {
        let named = if posted.one("method").is_empty() { self.only_method() } else { posted.one("method") };
        let Some(method) = self.method(named) else {
            let remedy = "choose one of the list";
            let wrong = [FieldError::new("method", "nobody said who acts", remedy)];
            return Ok(self.page(app, person, StatusCode::UNPROCESSABLE_ENTITY, Some(posted), &wrong).await);
        };
        let read = match read::read(posted, &self.definition, method, self.purpose, self.id.clone()) {
            Ok(read) => read,
            Err(wrong) => {
                return Ok(self.page(app, person, StatusCode::UNPROCESSABLE_ENTITY, Some(posted), &wrong).await);
            }
        };
        let integration = match &self.under {
            Some(under) => Wanted::Named(under.id.to_string()),
            None => Wanted::New(Box::new(read.integration)),
        };
        let connection = self.purpose.has_connection().then_some(read.connection);
        match app.broker.set_up(&person.caller, SetUp { integration, connection }).await {
            Ok((integration, connection)) => {
                let brought = read.refresh_token;
                Ok(self.made(app, person, posted, method, (integration, connection), brought, in_panel).await)
            }
            Err(Error::Taken { what: "integration id", name }) => {
                let said = Said::good("This form was saved already; here is what it made.").saved(self.draft());
                Ok(render::moved(places::integration(&name), said))
            }
            Err(error) => {
                let Some(wrong) = of_settings(&error) else { return Err(error.into()) };
                Ok(self.page(app, person, StatusCode::UNPROCESSABLE_ENTITY, Some(posted), &wrong).await)
            }
        }
    }

    fn only_method(&self) -> &str {
        match self.methods().as_slice() {
            [one] => &one.name,
            _ => "",
        }
    }

    /// On to what was made; a machine's grant is run first.
    #[allow(clippy::too_many_arguments, reason = "all of what a saved form knows")]
    async fn made(
        &self,
        app: &App,
        person: &Person,
        posted: &Pairs,
        method: &Method,
        (integration, connection): (Integration, Option<ShownConnection>),
        refresh_token: Option<Secret>,
        in_panel: bool,
    ) -> Response {
        let said = |said: Said| said.saved(self.draft());
        let Some(ShownConnection { connection, .. }) = connection else {
            let made = Said::good(format!("The integration “{}” is saved.", integration.name));
            return render::moved(places::integration(integration.id.as_str()), said(made));
        };
        let (id, name) = (connection.id.to_string(), connection.name);
        let wants_person = method.grant.needs_a_person() && refresh_token.is_none();
        let connects = posted.one("then") == "connect";
        let connected = match refresh_token {
            Some(token) => Some(app.broker.bring_refresh_token(&person.caller, &id, &token).await),
            None if connects => run_at_once(app, person, &id, method.grant).await,
            None => None,
        };
        let told = told(&name, connected.as_ref());
        if in_panel {
            return attached(&id, &name, told);
        }
        if self.wish.back.starts_with(places::HOME) {
            let back = places::within(&self.wish.back);
            let joint = if back.contains('?') { '&' } else { '?' };
            return render::moved(format!("{back}{joint}connection={id}"), said(told));
        }
        let place = match connected {
            None if wants_person && connects => places::of_connection(&id, "authorize"),
            Some(Ok(())) => places::of_connection(&id, "test"),
            _ => places::connection(&id),
        };
        render::moved(place, said(told))
    }

    fn draft(&self) -> String {
        format!("new {}", self.definition.id)
    }

    /// The form.
    pub(in crate::http) async fn page(
        &self,
        app: &App,
        person: &Person,
        status: StatusCode,
        typed: Option<&Pairs>,
        wrong: &[FieldError],
    ) -> Response {
        let methods = self.methods();
        let named = typed.map_or(self.wish.method.as_str(), |typed| typed.one("method"));
        let chosen = self.method(named).or(methods.first().copied()).unwrap_or(&self.definition.methods[0]);
        let kept = std::collections::BTreeSet::new();
        let source = Source { definition: &self.definition, methods, chosen, purpose: self.purpose, typed, kept };
        let id = self.id.as_ref().or(self.under.as_ref().map(|it| &it.id));
        let name = &self.definition.name;
        let title = match (self.purpose, &self.under) {
            (Purpose::Integration, _) => format!("New integration: {name}"),
            (_, Some(under)) => format!("New connection under “{}”", under.name),
            _ => format!("New connection: {name}"),
        };
        let choose = places::with(
            places::PROVIDERS,
            &[
                ("for", &self.wish.wanted_by),
                ("back", &self.wish.back),
                ("just", &self.wish.just),
                ("panel", &self.wish.panel),
            ],
        );
        let back = if self.wish.back.is_empty() { choose.clone() } else { places::within(&self.wish.back).to_owned() };
        let form = Form {
            title,
            crumbs: vec![(choose, "Choose a provider".to_owned()), (String::new(), name.clone())],
            action: self.wish.place(&self.definition.id),
            draft: self.draft(),
            client: self.under.as_ref().map(facts).unwrap_or_default(),
            connect: self.purpose.has_connection().then_some("Save and connect"),
            save: if self.purpose.has_connection() { "Save as a draft" } else { "Save" },
            back,
            ..Form::of(app, &source, id, wrong)
        };
        show(app, person, status, form, Menu::Connections).await
    }
}

/// Connects what needs nobody's consent; `None`: this needs it.
pub(in crate::http) async fn run_at_once(
    app: &App,
    person: &Person,
    id: &str,
    grant: GrantKind,
) -> Option<Result<(), Error>> {
    if !acts_for_itself(grant) && grant != GrantKind::Password {
        return None;
    }
    let done = app.broker.authorize(&person.caller, id, None, None).await;
    Some(done.map(|done: Authorize| drop(done)))
}

/// How it went, once it was saved; `None`: nobody tried to connect it.
pub(in crate::http) fn told(name: &str, connected: Option<&Result<(), Error>>) -> Said {
    match connected {
        Some(Ok(())) => Said::good(format!("“{name}” is connected.")),
        Some(Err(error)) => {
            Said::bad(format!("“{name}” is saved, but not connected: {}", sentence(&error.to_string())))
        }
        None => Said::good(format!("“{name}” is saved.")),
    }
}

impl Form {
    /// What all forms have; title, address and buttons are the page's.
    pub(in crate::http) fn of(
        app: &App,
        source: &Source<'_>,
        id: Option<&IntegrationId>,
        wrong: &[FieldError],
    ) -> Self {
        let mut rows = Rows::of(source);
        let wrong = rows.mark(wrong);
        let setup = &source.chosen.setup;
        let none = setup.text.is_empty() && setup.steps.is_empty() && setup.register_url.is_none();
        let setup = if none { &source.definition.setup } else { setup };
        let link =
            |url: &Option<String>| url.clone().filter(|url| url.starts_with("https://") || url.starts_with("http://"));
        let has_code = |method: &&Method| method.grant == GrantKind::AuthorizationCode;
        let case = match setup.redirect_case_sensitive {
            Some(true) => "Letter case counts.",
            Some(false) => "Letter case doesn't count.",
            None => "Whether letter case counts isn't known, so keep it.",
        };
        let has_secrets = source.typed.is_some_and(|typed| {
            let secret = |name: &str| is_secret(source.definition, name);
            typed.iter().any(|(name, value)| !value.is_empty() && secret(name))
        });
        Self {
            title: String::new(),
            provider: source.definition.name.clone(),
            crumbs: Vec::new(),
            action: String::new(),
            draft: String::new(),
            version: None,
            came: !wrong.is_empty(),
            secrets_lost: !wrong.is_empty() && has_secrets,
            wrong,
            stored: Vec::new(),
            shared: None,
            more_open: rows.more_wrong(),
            rows,
            redirect: id
                .filter(|_| source.methods.iter().any(has_code) && source.purpose != Purpose::EditConnection)
                .map(|id| Redirect {
                    uri: app.broker.redirect_uri(id),
                    note: format!("{case} {}", setup.redirect_note.as_deref().unwrap_or_default()).trim().to_owned(),
                    when: (!source.methods.iter().all(|it| it.grant == GrantKind::AuthorizationCode))
                        .then_some("authorization_code"),
                }),
            client: Vec::new(),
            client_edit: None,
            guide: Guide {
                register_url: link(&setup.register_url),
                text: setup.text.clone(),
                steps: setup.steps.clone(),
                docs: link(&source.definition.docs),
                checked: source.definition.checked.clone(),
            },
            connect: None,
            save: "Save",
            back: places::CONNECTIONS.to_owned(),
        }
    }
}

/// Answers with a form.
pub(in crate::http) async fn show(app: &App, person: &Person, status: StatusCode, form: Form, menu: Menu) -> Response {
    render::page(person, status, &SetupPage { page: frame(app, person, menu).await, form })
}

/// What is wrong with the settings themselves; `None` where something else is.
pub(in crate::http) fn of_settings(error: &Error) -> Option<Vec<FieldError>> {
    match error {
        Error::Render(render) => {
            let remedy = "see the addresses and variables of this provider";
            Some(vec![FieldError::new("The provider's definition", render.to_string(), remedy)])
        }
        other => wrongs(other),
    }
}

/// Rows whose value never goes back to the browser.
pub(in crate::http) fn is_secret(definition: &Definition, name: &str) -> bool {
    const OWN: [&str; 5] = ["client_secret", "client_key", "client_certificate_key", "password", "refresh_token"];
    let secret = |variable: &Variable| variable.secret && name.strip_prefix("variables.") == Some(&variable.name);
    OWN.contains(&name) || definition.variables.iter().any(secret)
}

/// An integration that is there, in words.
fn facts(it: &Integration) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Integration", it.name.clone()), ("Client ID", it.client_id.clone())];
    if !it.scopes.is_empty() {
        facts.push(("Scopes", it.scopes.join(" ")));
    }
    facts
}

/// Tells the panel what was made: the script takes it into the form behind.
fn attached(id: &str, name: &str, said: Said) -> Response {
    let encoded =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    let message =
        Message { title: format!("“{name}” is made"), text: said.text, errors: Vec::new(), links: Vec::new() };
    let mut response = render::message_alone(StatusCode::OK, message).into_response();
    if let Ok(made) = HeaderValue::from_str(&format!("{} {}", encoded(id), encoded(name))) {
        response.headers_mut().insert(HeaderName::from_static("keyholder-made"), made);
    }
    response
}

/// `GET /console/connections/{connection}/edit`.
pub(in crate::http) async fn edit_connection(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let edited = Edited::of(&app, &person, &name).await?;
    let stored = edited.stored();
    Ok(edited.page(&app, &person, StatusCode::OK, &stored, &[], Vec::new()).await)
}

/// `POST /console/connections/{connection}/edit`.
pub(in crate::http) async fn save_connection(
    State(app): State<App>,
    person: Person,
    InPath(name): InPath,
    posted: Posted,
) -> Result<Response, ApiError> {
    let edited = Edited::of(&app, &person, &name).await?;
    let unfit = StatusCode::UNPROCESSABLE_ENTITY;
    if posted.one("version") != edited.version() {
        let stored = difference(&edited.stored(), &posted);
        return Ok(edited.page(&app, &person, unfit, &posted, &stale("connection"), stored).await);
    }
    let method = edited.definition.method(Some(&edited.integration.method)).map_err(Error::from)?;
    let connection = &edited.shown.connection;
    let edit = read::connection_edit(&posted, &edited.definition, method, &connection.variables);
    let bound = connection.token_set.is_some() && !person.may(Scope::Admin);
    if let Some(changed) = edit.variables.keys().next().filter(|_| bound) {
        return Ok(edited.page(&app, &person, unfit, &posted, &needs_admin(changed), Vec::new()).await);
    }
    match app.broker.edit_connection(&person.caller, connection.id.as_str(), edit).await {
        Ok(_) => {
            let said = Said::good("Saved. What failed is tried again now; the rest counts from the next use on.")
                .saved(edited.draft());
            Ok(render::moved(places::connection(connection.id.as_str()), said))
        }
        Err(error) => match of_settings(&error) {
            Some(wrong) => Ok(edited.page(&app, &person, unfit, &posted, &wrong, Vec::new()).await),
            None => Err(error.into()),
        },
    }
}

/// A connection that is changed.
struct Edited {
    shown: ShownConnection,
    integration: Integration,
    definition: Arc<Definition>,
    /// How many others stand under its integration.
    others: usize,
}

impl Edited {
    async fn of(app: &App, person: &Person, name: &str) -> Result<Self, Error> {
        let shown = app.broker.connection(&person.caller, name).await?;
        let integration = app.broker.integration(&person.caller, shown.connection.integration.as_str()).await?;
        let definition = app.broker.definition_of(&integration).await?;
        let others = super::integration::connections_under(app, person, &integration).await?.len().saturating_sub(1);
        Ok(Self { shown, integration, definition, others })
    }

    fn draft(&self) -> String {
        format!("edit {}", self.shown.connection.id)
    }

    /// Of what can be changed here: a renewal is no change.
    fn version(&self) -> String {
        let it = &self.shown.connection;
        let secrets = it.secrets.as_deref().unwrap_or_default();
        let text = format!("{:?} {:?} {secrets:?}", it.username, it.variables);
        URL_SAFE_NO_PAD.encode(&sha256(text.as_bytes())[..12])
    }

    /// What is stored, as it would be typed.
    fn stored(&self) -> Pairs {
        let it = &self.shown.connection;
        let mut pairs = vec![("username".to_owned(), it.username.clone().unwrap_or_default())];
        pairs.extend(it.variables.iter().map(|(name, value)| match name.strip_prefix("lookup.") {
            Some(choice) => (format!("choices.{choice}"), value.clone()),
            None => (format!("variables.{name}"), value.clone()),
        }));
        Pairs::from(pairs)
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
        let method = self.definition.method(Some(&self.integration.method)).ok();
        let chosen = method.unwrap_or(&self.definition.methods[0]);
        let connection = &self.shown.connection;
        let has_secrets = connection.secrets.is_some();
        let secrets = self.definition.variables_of(chosen).filter(|it| it.secret && has_secrets);
        let kept = secrets.map(|it| format!("variables.{}", it.name)).collect();
        let source = Source {
            definition: &self.definition,
            methods: vec![chosen],
            chosen,
            purpose: Purpose::EditConnection,
            typed: Some(typed),
            kept,
        };
        let place = places::connection(connection.id.as_str());
        let shared = match self.others {
            0 => "No other connection shares them.".to_owned(),
            1 => "Another connection shares them.".to_owned(),
            others => format!("{others} other connections share them."),
        };
        let form = Form {
            title: format!("Change “{}”", connection.name),
            crumbs: vec![
                (places::CONNECTIONS.to_owned(), "Connections".to_owned()),
                (place.clone(), connection.name.clone()),
            ],
            action: format!("{place}/edit"),
            draft: self.draft(),
            version: Some(self.version()),
            client: facts(&self.integration),
            client_edit: Some(places::of_integration(self.integration.id.as_str(), "edit")),
            shared: Some(shared),
            stored: labelled(&source, stored),
            back: place,
            ..Form::of(app, &source, None, wrong)
        };
        show(app, person, status, form, Menu::Connections).await
    }
}

/// Somebody else saved something since the form was opened.
pub(in crate::http) fn stale(what: &str) -> Vec<FieldError> {
    let reason = "somebody saved it since you opened this form; what they saved stands beside it, and yours is here";
    vec![FieldError::new(format!("This {what}"), reason, "look at both, and save again if yours shall stand")]
}

/// Changing these values needs more than this person may.
pub(in crate::http) fn needs_admin(variable: &str) -> Vec<FieldError> {
    let reason = "changing it needs the admin scope: it may be where secrets are sent";
    vec![FieldError::new(format!("variables.{variable}"), reason, "ask an owner to change it")]
}

/// What is stored where something else was typed.
pub(in crate::http) fn difference(stored: &Pairs, typed: &Pairs) -> Vec<(String, String)> {
    let differs = |name: &str, value: &str| typed.iter().any(|(known, _)| known == name) && typed.one(name) != value;
    let rows = stored.iter().filter(|(name, value)| differs(name, value.trim()));
    rows.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The same under the labels of the form's rows.
pub(in crate::http) fn labelled(source: &Source<'_>, stored: Vec<(String, String)>) -> Vec<(String, String)> {
    let rows = Rows::of(source);
    let cards = [rows.about, rows.client, rows.places, rows.may, rows.account, rows.more];
    let labels: Vec<(String, String)> = cards.into_iter().flatten().map(|field| (field.name, field.label)).collect();
    let label = |name: &str| labels.iter().find(|(known, _)| known == name).map(|(_, label)| label.clone());
    stored.into_iter().map(|(name, value)| (label(&name).unwrap_or(name), value)).collect()
}

/// A day, as a date field has it.
pub(in crate::http) fn day(ms: i64) -> String {
    Time::at(ms).iso.chars().take(10).collect()
}
