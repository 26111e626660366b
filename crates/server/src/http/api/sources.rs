//! Data sources.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use keyholder_broker::model::{AllowRule, Expect, SavedRequest, SourceSpec, SourceVariable, ValueKind};
use keyholder_broker::{
    MadeSource, NewConnection, NewSource, Preview, RunReply, ShownSource, SourceEdit, SourceRun, TestWish,
    VariableEdit, Wanted,
};
use keyholder_oauth::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InPath, InPaths, InQuery, Input, PageQuery, cut};
use super::super::problem::ApiError;
use super::connections::{
    AuthorizeReply, ConnectionBody, TestReply, authorize_reply, body as connection_body, test_reply,
};
use super::integrations::{IntegrationBody, NewIntegrationBody, body as integration_body, given, new_integration};

/// A data source. Values of secret variables are never shown.
#[derive(Serialize, JsonSchema)]
pub struct SourceBody {
    id: String,
    name: String,
    description: String,
    /// What paths are appended to; `null`: the connection's own API base URL.
    base_url: Option<String>,
    /// Name of the connection that it is reached through.
    connection: Option<String>,
    /// Without a connection: name of the integration under which each caller's own is used.
    integration: Option<String>,
    headers: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    variables: BTreeMap<String, VariableBody>,
    health: Option<RequestBody>,
    requests: BTreeMap<String, RequestBody>,
    allow: Vec<AllowBody>,
    /// Unix milliseconds.
    created_at: i64,
    /// Unix milliseconds.
    updated_at: i64,
}

/// A data source that was made, and what was made with it.
#[derive(Serialize, JsonSchema)]
pub struct CreatedSourceBody {
    #[serde(flatten)]
    source: SourceBody,
    /// What was made with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<MadeBody>,
}

/// What was made with a data source.
#[derive(Serialize, JsonSchema)]
pub struct MadeBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    integration: Option<IntegrationBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<ConnectionBody>,
    /// What authorising the connection came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorize: Option<AuthorizeReply>,
    /// Why it could not be authorised. It is there all the same: correct what is wrong, and authorise it.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorize_error: Option<String>,
}

/// Data sources.
#[derive(Serialize, JsonSchema)]
pub struct SourceList {
    items: Vec<SourceBody>,
    /// Cursor of the next page.
    next: Option<String>,
}

/// A variable: its value alone, or all that is said of it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VariableBody {
    /// For people.
    #[serde(default)]
    label: String,
    /// One or two sentences for people.
    #[serde(default)]
    help: String,
    /// Its value; that of a secret is taken, and never shown.
    value: Option<String>,
    /// Used where neither a run, nor the source, nor its connection gives a value.
    default: Option<String>,
    /// Must have a value wherever it is used; else what is made of it is left out.
    #[serde(default = "yes")]
    required: bool,
    /// Sealed, and never shown.
    #[serde(default)]
    secret: bool,
    /// `text`, `number` or `boolean`; the latter two are JSON's where they stand alone in a JSON body.
    #[serde(default)]
    kind: KindWord,
    /// A regular expression that the whole value must match.
    pattern: Option<String>,
    /// The values there are; empty: any.
    #[serde(default)]
    choices: Vec<String>,
    /// Whether it has a value here; not looked at in requests, so that what is shown can be sent back.
    #[serde(default)]
    has_value: bool,
}

/// What kind of text a value is.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KindWord {
    /// Any text.
    #[default]
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

fn yes() -> bool {
    true
}

/// A saved request. Texts may have placeholders, `{{name}}`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestBody {
    #[serde(default)]
    description: String,
    /// GET when not given, or POST with a body.
    #[serde(default)]
    method: String,
    /// Below the base URL, with a leading slash; may have a query.
    path: String,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// JSON, or a text.
    body: Option<Value>,
    /// A form's parameters, instead of a body.
    #[serde(default)]
    form: BTreeMap<String, String>,
    /// A JSONPath (RFC 9535) into the reply.
    extract: Option<String>,
    /// What the reply must be; any success when not given.
    expect: Option<ExpectBody>,
}

/// What a reply must be.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectBody {
    /// One of these; any success when empty.
    #[serde(default)]
    status: Vec<u16>,
    /// A JSONPath that must find something.
    found: Option<String>,
}

/// Calls that may be made.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowBody {
    /// In capitals; any when empty.
    #[serde(default)]
    methods: BTreeSet<String>,
    /// Below the base URL: `/contacts`, `/contacts/*` (one more segment), `/contacts/**` (it and all below).
    path: String,
}

/// A new data source. Texts may have placeholders, `{{name}}`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSourceBody {
    /// Unique.
    name: String,
    #[serde(default)]
    description: String,
    /// What paths are appended to; the connection's own API base URL when left out. Its host must be one that the provider's definition allows.
    base_url: Option<String>,
    /// Name or id of a connection; or a new one, as for `POST /v1/connections`, made with the data source or not at all.
    connection: Option<NamedOr<SourceConnectionBody>>,
    /// Without a connection: each caller's own under this integration is used. Name or id; or a new one, as for `POST /v1/integrations`, under which a new connection stands.
    integration: Option<NamedOr<NewIntegrationBody>>,
    /// Sent with calls that have no header of the name.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Sent with calls that have no parameter of the name.
    #[serde(default)]
    query: BTreeMap<String, String>,
    /// What placeholders stand for.
    #[serde(default)]
    variables: BTreeMap<String, ValueOr<VariableBody>>,
    /// A call that shows whether the source works.
    health: Option<RequestBody>,
    /// Saved requests by name.
    #[serde(default)]
    requests: BTreeMap<String, RequestBody>,
    /// What may be called; everything below the base URL when empty.
    #[serde(default)]
    allow: Vec<AllowBody>,
}

/// A connection to be made with a data source.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConnectionBody {
    /// Unique.
    name: String,
    /// Name or id of an integration; the data source's `integration` when left out.
    integration: Option<String>,
    owner: Option<String>,
    /// For the password grant.
    username: Option<String>,
    /// For the password grant.
    password: Option<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// What would be asked after connecting, by name.
    #[serde(default)]
    choices: BTreeMap<String, String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// What shall change; what is left out stays. In `headers`, `query`, `variables` and `requests` each name is set as a whole, and `null` takes it away; `allow` is replaced; `null` takes
/// `health` away, and leads `base_url` back to the connection's own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceEditBody {
    name: Option<String>,
    description: Option<String>,
    #[serde(default, deserialize_with = "given")]
    base_url: Option<Option<String>>,
    /// Name or id of another connection.
    connection: Option<String>,
    /// Name or id of an integration, under which each caller's own connection is used from now on.
    integration: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    #[serde(default)]
    query: BTreeMap<String, Option<String>>,
    #[serde(default)]
    variables: BTreeMap<String, Option<ValueOr<VariableBody>>>,
    #[serde(default)]
    requests: BTreeMap<String, Option<RequestBody>>,
    #[serde(default, deserialize_with = "given")]
    health: Option<Option<RequestBody>>,
    allow: Option<Vec<AllowBody>>,
}

/// How a saved request is run.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunBody {
    /// Values for its placeholders: texts, numbers, booleans.
    #[serde(default)]
    variables: BTreeMap<String, Scalar>,
    /// Whose connection is meant, where each caller uses its own; the header `Keyholder-Owner` says the same.
    owner: Option<String>,
    /// How many bytes of the reply to show, at most 1048576; 65536 when left out.
    limit: Option<usize>,
}

/// How a data source is tested.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTestBody {
    /// Whose connection is meant, where each caller uses its own.
    owner: Option<String>,
    /// Treat the token in hand as if it had expired: it is renewed, and the call made with the new one.
    #[serde(default)]
    renew: bool,
}

/// What an API answered to a saved request.
#[derive(Serialize, JsonSchema)]
pub struct RunReplyBody {
    status: u16,
    /// It is what the request expects; any success, where it says nothing.
    expected: bool,
    headers: BTreeMap<String, String>,
    /// The body's beginning, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The body's beginning in base 64, where it is anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The whole body's length in bytes, as far as it is known.
    size: Option<u64>,
    /// The body is longer than what is shown.
    truncated: bool,
    /// What the request's JSONPath found.
    #[serde(skip_serializing_if = "Option::is_none")]
    extracted: Option<Vec<Value>>,
    /// Why nothing could be looked for in the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    took_ms: i64,
}

/// A text, a number or a boolean.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// As it is.
    Text(String),
    /// As JSON writes it.
    Number(serde_json::Number),
    /// `true` or `false`.
    Boolean(bool),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
            Scalar::Boolean(boolean) => boolean.to_string(),
        }
    }
}

/// A name, or what is to be made.
pub enum NamedOr<T> {
    Named(String),
    New(Box<T>),
}

/// A value, or all that is said of it.
pub type ValueOr<T> = NamedOr<T>;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NamedOr<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = NamedOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or an object")
            }

            fn visit_str<E>(self, text: &str) -> Result<NamedOr<T>, E> {
                Ok(NamedOr::Named(text.to_owned()))
            }

            // By its own struct, not untagged: so an error names the field.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NamedOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|it| NamedOr::New(Box::new(it)))
            }
        }
        from.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for NamedOr<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("TextOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let object = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"type": "string"}, object]})
    }
}

pub(crate) async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<SourceList>, ApiError> {
    let page = query.page()?;
    let items = app.broker.list_sources(&caller, &page).await?;
    let (items, next) = cut(items, &page, |it| it.source.id.to_string());
    let mut bodies = Vec::with_capacity(items.len());
    for item in items {
        // The list has no secrets; whether there is one is shown all the same.
        bodies.push(body(app.broker.source(&caller, item.source.id.as_str()).await?));
    }
    Ok(Json(SourceList { items: bodies, next }))
}

pub(crate) async fn show(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<Json<SourceBody>, ApiError> {
    Ok(Json(body(app.broker.source(&caller, &name).await?)))
}

pub(crate) async fn add(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Input(new): Input<NewSourceBody>,
) -> Result<(StatusCode, Json<CreatedSourceBody>), ApiError> {
    let connection = new.connection.map(|connection| match connection {
        NamedOr::Named(name) => Wanted::Named(name),
        NamedOr::New(new) => Wanted::New(Box::new(new_connection(*new))),
    });
    let integration = match new.integration {
        None => None,
        Some(NamedOr::Named(name)) => Some(Wanted::Named(name)),
        Some(NamedOr::New(new)) => Some(Wanted::New(Box::new(new_integration(*new)?))),
    };
    let variable = |(name, it)| {
        let variable = match it {
            NamedOr::Named(value) => SourceVariable { value: Some(value), required: true, ..SourceVariable::default() },
            NamedOr::New(whole) => variable(*whole),
        };
        (name, variable)
    };
    let spec = SourceSpec {
        headers: new.headers,
        query: new.query,
        variables: new.variables.into_iter().map(variable).collect(),
        health: new.health.map(request),
        requests: new.requests.into_iter().map(|(name, it)| (name, request(it))).collect(),
        allow: new.allow.into_iter().map(rule).collect(),
    };
    let new = NewSource {
        name: new.name,
        description: new.description,
        base_url: new.base_url,
        connection,
        integration,
        spec,
    };
    let MadeSource { source, integration, connection, authorize } = app.broker.add_source(&caller, new).await?;
    let made = if integration.is_some() || connection.is_some() {
        let (authorize, authorize_error) = match (&connection, authorize) {
            (Some(connection), Some(Ok(outcome))) => (Some(authorize_reply(&connection.connection, outcome)), None),
            (_, Some(Err(error))) => (None, Some(error.to_string())),
            _ => (None, None),
        };
        let integration = match &integration {
            Some(integration) => Some(integration_body(&app, integration).await),
            None => None,
        };
        Some(MadeBody { integration, connection: connection.as_ref().map(connection_body), authorize, authorize_error })
    } else {
        None
    };
    Ok((StatusCode::CREATED, Json(CreatedSourceBody { source: body(source), made })))
}

pub(crate) async fn edit(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    Input(edit): Input<SourceEditBody>,
) -> Result<Json<SourceBody>, ApiError> {
    let variable = |it| match it {
        NamedOr::Named(value) => VariableEdit::Value(value),
        NamedOr::New(whole) => VariableEdit::Whole(Box::new(variable(*whole))),
    };
    let edit = SourceEdit {
        name: edit.name,
        description: edit.description,
        base_url: edit.base_url,
        connection: edit.connection,
        integration: edit.integration,
        headers: edit.headers,
        query: edit.query,
        variables: edit.variables.into_iter().map(|(name, it)| (name, it.map(variable))).collect(),
        requests: edit.requests.into_iter().map(|(name, it)| (name, it.map(request))).collect(),
        health: edit.health.map(|health| health.map(request)),
        allow: edit.allow.map(|rules| rules.into_iter().map(rule).collect()),
    };
    Ok(Json(body(app.broker.edit_source(&caller, &name, edit).await?)))
}

pub(crate) async fn remove(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<StatusCode, ApiError> {
    app.broker.remove_source(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn run(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPaths([source, request]): InPaths<2>,
    headers: HeaderMap,
    Input(run): Input<RunBody>,
) -> Result<Json<RunReplyBody>, ApiError> {
    let run = SourceRun {
        variables: run.variables.into_iter().map(|(name, value)| (name, value.text())).collect(),
        owner: run.owner.or_else(|| owner(&headers)),
        limit: run.limit,
    };
    Ok(Json(run_reply(app.broker.run_source(&caller, &source, &request, run).await?)))
}

pub(crate) async fn test(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    headers: HeaderMap,
    Input(test): Input<SourceTestBody>,
) -> Result<Json<TestReply>, ApiError> {
    let owner = test.owner.or_else(|| owner(&headers));
    let wish = TestWish { renew: test.renew };
    Ok(Json(test_reply(app.broker.test_source(&caller, &name, owner.as_deref(), wish, &|_| ()).await?)))
}

fn owner(headers: &HeaderMap) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get("keyholder-owner")?.as_bytes()).into_owned())
}

fn new_connection(new: SourceConnectionBody) -> NewConnection {
    NewConnection {
        name: new.name,
        integration: new.integration.unwrap_or_default(),
        owner: new.owner,
        username: new.username,
        password: new.password.map(Secret::new),
        variables: new.variables,
        choices: new.choices,
        tags: new.tags,
    }
}

fn variable(it: VariableBody) -> SourceVariable {
    SourceVariable {
        label: it.label,
        help: it.help,
        value: it.value,
        default: it.default,
        required: it.required,
        secret: it.secret,
        kind: match it.kind {
            KindWord::Text => ValueKind::Text,
            KindWord::Number => ValueKind::Number,
            KindWord::Boolean => ValueKind::Boolean,
        },
        pattern: it.pattern,
        choices: it.choices,
    }
}

fn request(it: RequestBody) -> SavedRequest {
    SavedRequest {
        description: it.description,
        method: it.method,
        path: it.path,
        query: it.query,
        headers: it.headers,
        body: it.body,
        form: it.form,
        extract: it.extract,
        expect: it.expect.map(|it| Expect { status: it.status, found: it.found }),
    }
}

fn rule(it: AllowBody) -> AllowRule {
    AllowRule { methods: it.methods, path: it.path }
}

fn body(shown: ShownSource) -> SourceBody {
    let ShownSource { source, connection, integration } = shown;
    let secrets = source.secrets;
    let variable = |(name, it): (String, SourceVariable)| {
        let has_value = it.value.is_some() || secrets.contains_key(&name);
        (name, variable_body(it, has_value))
    };
    SourceBody {
        id: source.id.to_string(),
        name: source.name,
        description: source.description,
        base_url: source.base_url,
        connection,
        integration,
        headers: source.spec.headers,
        query: source.spec.query,
        variables: source.spec.variables.into_iter().map(variable).collect(),
        health: source.spec.health.map(request_body),
        requests: source.spec.requests.into_iter().map(|(name, it)| (name, request_body(it))).collect(),
        allow: source.spec.allow.into_iter().map(|it| AllowBody { methods: it.methods, path: it.path }).collect(),
        created_at: source.created_at,
        updated_at: source.updated_at,
    }
}

fn variable_body(it: SourceVariable, has_value: bool) -> VariableBody {
    VariableBody {
        label: it.label,
        help: it.help,
        value: it.value,
        default: it.default,
        required: it.required,
        secret: it.secret,
        kind: match it.kind {
            ValueKind::Text => KindWord::Text,
            ValueKind::Number => KindWord::Number,
            ValueKind::Boolean => KindWord::Boolean,
        },
        pattern: it.pattern,
        choices: it.choices,
        has_value,
    }
}

fn request_body(it: SavedRequest) -> RequestBody {
    RequestBody {
        description: it.description,
        method: it.method,
        path: it.path,
        query: it.query,
        headers: it.headers,
        body: it.body,
        form: it.form,
        extract: it.extract,
        expect: it.expect.map(|it| ExpectBody { status: it.status, found: it.found }),
    }
}

fn run_reply(it: RunReply) -> RunReplyBody {
    let (text, body) = match it.preview {
        Preview::Text(text) => (Some(text), None),
        Preview::Bytes(bytes) => (None, Some(STANDARD.encode(bytes))),
    };
    RunReplyBody {
        status: it.status,
        expected: it.expected,
        headers: it.headers,
        text,
        body,
        size: it.size,
        truncated: it.truncated,
        extracted: it.extracted,
        problem: it.problem,
        took_ms: it.took_ms,
    }
}
