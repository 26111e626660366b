//! Providers.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keyholder_provider::{Definition, Variable, parse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InPath, Input};
use super::super::problem::ApiError;

/// A provider.
#[derive(Serialize, JsonSchema)]
pub struct ProviderBody {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// Its documentation.
    docs: Option<String>,
    /// When its facts were compared with their source; `null`: not yet.
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
}

/// A method.
#[derive(Serialize, JsonSchema)]
pub struct MethodBody {
    name: String,
    label: String,
    /// `authorization_code`, `client_credentials`, `password`, …
    grant: &'static str,
}

/// A variable.
#[derive(Serialize, JsonSchema)]
pub struct VariableBody {
    name: String,
    label: String,
    help: String,
    default: Option<String>,
    /// `required`, `optional`, `hidden` or `fixed`.
    presence: serde_json::Value,
    secret: bool,
    /// `text`, `host`, `url` or `number`.
    kind: serde_json::Value,
    /// `integration` or `connection`: who gives the value.
    asked_of: serde_json::Value,
    /// A regular expression the whole value must match.
    pattern: Option<String>,
    /// The methods that use it; empty: all.
    methods: Vec<String>,
}

/// Scopes.
#[derive(Serialize, JsonSchema)]
pub struct ScopesBody {
    separator: String,
    default: Vec<String>,
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
    redirect_note: Option<String>,
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

pub(crate) async fn list(State(app): State<App>) -> Json<ProviderList> {
    Json(ProviderList { items: app.broker.providers().iter().map(|it| body(it)).collect(), next: None })
}

pub(crate) async fn show(State(app): State<App>, InPath(id): InPath) -> Result<Json<ProviderBody>, ApiError> {
    Ok(Json(body(&*app.broker.provider(&id)?)))
}

pub(crate) async fn add(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Input(new): Input<NewDefinition>,
) -> Result<(StatusCode, Json<ProviderBody>), ApiError> {
    let definition = app.broker.add_provider(&caller, &new.file_name(), &new.definition).await?;
    Ok((StatusCode::CREATED, Json(body(&definition))))
}

pub(crate) async fn check(Input(new): Input<NewDefinition>) -> Json<CheckBody> {
    let errors = parse(&new.file_name(), &new.definition).err().unwrap_or_default();
    let errors: Vec<_> = errors
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

fn body(it: &Definition) -> ProviderBody {
    ProviderBody {
        id: it.id.clone(),
        name: it.name.clone(),
        docs: it.docs.clone(),
        checked: it.checked.clone(),
        source: it.source.clone(),
        methods: it
            .methods
            .iter()
            .map(|m| MethodBody { name: m.name.clone(), label: m.label.clone(), grant: m.grant.as_str() })
            .collect(),
        variables: it.variables.iter().map(variable).collect(),
        scopes: ScopesBody {
            separator: it.scopes.separator.clone(),
            default: it.scopes.default.clone(),
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
            redirect_note: it.setup.redirect_note.clone(),
        },
    }
}

fn variable(it: &Variable) -> VariableBody {
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
        methods: it.methods.clone(),
    }
}
