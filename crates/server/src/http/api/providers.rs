//! Providers.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keyholder_broker::ShownProvider;
use keyholder_provider::{Definition, ErrorPhase, KnownError, Method, Variable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InPath, InQuery, Input};
use super::super::problem::ApiError;

/// A provider.
#[derive(Serialize, JsonSchema)]
pub struct ProviderBody {
    /// Its id.
    id: String,
    /// Other ids under which it is found.
    aliases: Vec<String>,
    /// The version that this is: a number for one of your own, `built-in-…` for one that comes with the program.
    version: String,
    /// It comes with the program.
    built_in: bool,
    /// The definition that it builds on.
    extends: Option<String>,
    /// Its name.
    name: String,
    /// Its documentation.
    docs: Option<String>,
    /// When its facts were compared with the provider's pages; `null`: not yet.
    checked: Option<String>,
    /// Where its facts come from.
    source: Vec<String>,
    /// Ways to authenticate; the first is the default.
    methods: Vec<MethodBody>,
    /// What an integration or a connection is asked for.
    variables: Vec<VariableBody>,
    /// How scopes are written, and which are known.
    scopes: ScopesBody,
    /// What to register there, and how.
    setup: SetupBody,
    /// Error codes with their remedy.
    errors: Vec<KnownErrorBody>,
    /// The text, in TOML; left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<String>,
}

/// A method.
#[derive(Serialize, JsonSchema)]
pub struct MethodBody {
    name: String,
    label: String,
    /// `authorization_code`, `client_credentials`, `password`, …
    grant: &'static str,
    /// The standard inputs it has a use for, in the order to ask for them. Their names are those of the API's fields; `scope` is `scopes`.
    inputs: Vec<VariableBody>,
    /// Names of the variables it has a use for, in the order to ask for them; they are described in `variables`.
    variables: Vec<String>,
    /// What is asked after connecting if there are several, by the name that `choices` has.
    choices: Vec<String>,
}

/// A variable, or a standard input.
#[derive(Serialize, JsonSchema)]
pub struct VariableBody {
    name: String,
    label: String,
    help: String,
    default: Option<String>,
    /// `required`, `optional`, `hidden` or `fixed`.
    presence: serde_json::Value,
    secret: bool,
    /// `text`, `host`, `url`, `number`, `scopes` or `pem`.
    kind: serde_json::Value,
    /// `integration` or `connection`: who gives the value.
    asked_of: serde_json::Value,
    /// A regular expression the whole value must match.
    pattern: Option<String>,
    /// The values there are; empty: any.
    choices: Vec<ChoiceBody>,
    example: Option<String>,
    /// The methods that use it; empty: all.
    methods: Vec<String>,
}

/// A value to choose.
#[derive(Serialize, JsonSchema)]
pub struct ChoiceBody {
    value: String,
    label: String,
}

/// An error code of the provider's.
#[derive(Serialize, JsonSchema)]
pub struct KnownErrorBody {
    code: String,
    /// `authorize`, `token`, `refresh`, `revoke` or `api`; `null`: anywhere.
    phase: Option<&'static str>,
    meaning: Option<String>,
    remedy: String,
}

/// Scopes.
#[derive(Serialize, JsonSchema)]
pub struct ScopesBody {
    separator: String,
    default: Vec<String>,
    /// Asked for beside whatever is asked for.
    always: Vec<String>,
    known: Vec<KnownScope>,
}

/// A known scope.
#[derive(Serialize, JsonSchema)]
pub struct KnownScope {
    scope: String,
    meaning: String,
}

/// Registering at the provider.
#[derive(Serialize, JsonSchema)]
pub struct SetupBody {
    register_url: Option<String>,
    text: String,
    /// The same, step by step.
    steps: Vec<String>,
    redirect_note: Option<String>,
    /// Whether the redirect URI's letter case counts; `null`: not known.
    redirect_case_sensitive: Option<bool>,
}

/// The versions of a definition.
#[derive(Serialize, JsonSchema)]
pub struct VersionList {
    /// The newest first.
    items: Vec<VersionBody>,
}

/// A version of a definition.
#[derive(Serialize, JsonSchema)]
pub struct VersionBody {
    version: String,
    /// New integrations are made with it.
    newest: bool,
    /// When it was added, or first used if it comes with the program, Unix milliseconds; `null`: never used.
    created_at: Option<i64>,
    /// How many integrations stay on it.
    integrations: i64,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    search: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct VersionQuery {
    version: Option<String>,
}

/// Providers.
#[derive(Serialize, JsonSchema)]
pub struct ProviderList {
    items: Vec<ProviderBody>,
    /// Always `null`: the catalogue comes whole.
    next: Option<String>,
}

/// A definition to add or check.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDefinition {
    /// The definition, TOML.
    definition: String,
    /// Name for messages; `definition.toml` when not given.
    file: Option<String>,
}

/// What a check found.
#[derive(Serialize, JsonSchema)]
pub struct CheckBody {
    ok: bool,
    errors: Vec<MistakeBody>,
}

/// A mistake in a definition.
#[derive(Serialize, JsonSchema)]
pub struct MistakeBody {
    file: String,
    line: usize,
    column: usize,
    field: String,
    reason: String,
    remedy: String,
}

/// What to draft from.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoverRequest {
    /// An issuer, or its discovery document.
    url: String,
}

/// A drafted definition.
#[derive(Serialize, JsonSchema)]
pub struct Draft {
    /// TOML.
    definition: String,
}

pub(crate) async fn list(State(app): State<App>, InQuery(query): InQuery<ListQuery>) -> Json<ProviderList> {
    let search = query.search.unwrap_or_default().to_lowercase();
    let found = |it: &ShownProvider| {
        let names = [&it.definition.id, &it.definition.name].into_iter().chain(&it.definition.aliases);
        let names: Vec<String> = names.map(|name| name.to_lowercase()).collect();
        search.split_whitespace().all(|word| names.iter().any(|name| name.contains(word)))
    };
    let items = app.broker.providers().iter().filter(|it| found(it)).map(body).collect();
    Json(ProviderList { items, next: None })
}

pub(crate) async fn show(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(id): InPath,
    InQuery(query): InQuery<VersionQuery>,
) -> Result<Json<ProviderBody>, ApiError> {
    let shown = app.broker.provider(&caller, &id, query.version.as_deref()).await?;
    let definition = Some(shown.definition.text.to_string());
    Ok(Json(ProviderBody { definition, ..body(&shown) }))
}

pub(crate) async fn versions(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(id): InPath,
) -> Result<Json<VersionList>, ApiError> {
    let versions = app.broker.provider_versions(&caller, &id).await?;
    let items = versions
        .into_iter()
        .map(|it| VersionBody {
            version: it.version,
            newest: it.newest,
            created_at: it.created_at,
            integrations: it.integrations,
        })
        .collect();
    Ok(Json(VersionList { items }))
}

pub(crate) async fn add(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Input(new): Input<NewDefinition>,
) -> Result<(StatusCode, Json<ProviderBody>), ApiError> {
    let added = app.broker.add_provider(&caller, &new.file_name(), &new.definition).await?;
    Ok((StatusCode::CREATED, Json(body(&added))))
}

pub(crate) async fn remove(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(id): InPath,
    InQuery(query): InQuery<VersionQuery>,
) -> Result<StatusCode, ApiError> {
    app.broker.remove_provider(&caller, &id, query.version.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn check(State(app): State<App>, Input(new): Input<NewDefinition>) -> Json<CheckBody> {
    let errors: Vec<_> = app
        .broker
        .check_provider(&new.file_name(), &new.definition)
        .into_iter()
        .map(|e| MistakeBody {
            file: e.file,
            line: e.line,
            column: e.column,
            field: e.field,
            reason: e.reason,
            remedy: e.remedy,
        })
        .collect();
    Json(CheckBody { ok: errors.is_empty(), errors })
}

pub(crate) async fn discover(
    State(app): State<App>,
    Input(wanted): Input<DiscoverRequest>,
) -> Result<Json<Draft>, ApiError> {
    Ok(Json(Draft { definition: app.broker.discover_provider(&wanted.url).await? }))
}

impl NewDefinition {
    fn file_name(&self) -> String {
        self.file.clone().unwrap_or_else(|| "definition.toml".to_owned())
    }
}

fn body(shown: &ShownProvider) -> ProviderBody {
    let it = &shown.definition;
    ProviderBody {
        id: it.id.clone(),
        aliases: it.aliases.clone(),
        version: shown.version.clone(),
        built_in: shown.built_in,
        extends: it.bases.first().map(|base| base.id.clone()),
        name: it.name.clone(),
        docs: it.docs.clone(),
        checked: it.checked.clone(),
        source: it.source.clone(),
        methods: it.methods.iter().map(|of| method(it, of)).collect(),
        variables: it.variables.iter().map(variable).collect(),
        scopes: ScopesBody {
            separator: it.scopes.separator.clone(),
            default: it.scopes.default.clone(),
            always: it.scopes.always.clone(),
            known: it
                .scopes
                .known
                .iter()
                .map(|(scope, meaning)| KnownScope { scope: scope.clone(), meaning: meaning.clone() })
                .collect(),
        },
        setup: SetupBody {
            register_url: it.setup.register_url.clone(),
            text: it.setup.text.clone(),
            steps: it.setup.steps.clone(),
            redirect_note: it.setup.redirect_note.clone(),
            redirect_case_sensitive: it.setup.redirect_case_sensitive,
        },
        errors: it.known_errors.iter().map(known_error).collect(),
        definition: None,
    }
}

fn method(definition: &Definition, it: &Method) -> MethodBody {
    MethodBody {
        name: it.name.clone(),
        label: it.label.clone(),
        grant: it.grant.as_str(),
        inputs: it.inputs.iter().map(variable).collect(),
        variables: definition.variables_of(it).map(|variable| variable.name.clone()).collect(),
        choices: it.choices().map(str::to_owned).collect(),
    }
}

fn known_error(it: &KnownError) -> KnownErrorBody {
    let phase = it.phase.map(|phase| match phase {
        ErrorPhase::Authorize => "authorize",
        ErrorPhase::Token => "token",
        ErrorPhase::Refresh => "refresh",
        ErrorPhase::Revoke => "revoke",
        ErrorPhase::Api => "api",
    });
    KnownErrorBody { code: it.code.clone(), phase, meaning: it.meaning.clone(), remedy: it.remedy.clone() }
}

fn variable(it: &Variable) -> VariableBody {
    let choice = |(value, label): &(String, String)| ChoiceBody { value: value.clone(), label: label.clone() };
    VariableBody {
        name: it.name.clone(),
        label: it.label.clone(),
        help: it.help.clone(),
        default: it.default.clone(),
        presence: serde_json::json!(it.presence),
        secret: it.secret,
        kind: serde_json::json!(it.kind),
        asked_of: serde_json::json!(it.asked_of),
        pattern: it.pattern.as_ref().map(|pattern| pattern.as_str().to_owned()),
        choices: it.choices.iter().map(choice).collect(),
        example: it.example.clone(),
        methods: it.methods.clone(),
    }
}
