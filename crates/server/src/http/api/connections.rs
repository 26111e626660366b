//! Connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderName, StatusCode, header};
use keyholder_broker::model::{Caller, Connection, Status};
use keyholder_broker::store::Filter;
use keyholder_broker::{
    Authorize, Cause, ConnectionEdit, DeviceCode, Error, Exchange, FieldError, HandedToken, NewConnection,
    RevocationOutcome, Shown, ShownConnection, TestReport, TestStep, TestWish,
};
use keyholder_oauth::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InPath, InQuery, Input, PageQuery, cut, duration};
use super::super::problem::{ApiError, FailureBody};

/// A connection. Its tokens and secrets are never shown here.
#[derive(Serialize, JsonSchema)]
pub struct ConnectionBody {
    id: String,
    name: String,
    /// Name of its integration.
    integration: String,
    provider: String,
    method: String,
    /// Who the grant belongs to, in the application's words.
    owner: Option<String>,
    username: Option<String>,
    tags: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    /// What the provider said when it was connected: `callback.NAME`, `lookup.NAME`.
    learnt: BTreeMap<String, String>,
    /// `draft`, `pending`, `connected`, `failing`, `reconnect` or `revoked`.
    state: &'static str,
    /// `grey`, `green` or `red`.
    color: &'static str,
    /// What is wrong and what to do, in one text.
    reason: Option<String>,
    /// The same in parts.
    failure: Option<FailureBody>,
    failures: FailuresBody,
    /// Granted scope.
    scope: Option<String>,
    /// The account at the provider, as far as it told.
    account: Option<String>,
    /// The access token's expiry, Unix milliseconds; `null`: not known, or no token.
    expires_at: Option<i64>,
    /// Raised by every renewal.
    generation: i64,
    /// When it is renewed by itself, Unix milliseconds.
    next_renewal_at: Option<i64>,
    /// When only a person can bring it back, as far as is known and if it isn't renewed before, Unix milliseconds. Keyholder warns ahead of it.
    dies_at: Option<i64>,
    /// When the grant was made, Unix milliseconds.
    connected_at: Option<i64>,
    /// Unix milliseconds.
    renewed_at: Option<i64>,
    /// Unix milliseconds.
    created_at: i64,
    /// Unix milliseconds.
    updated_at: i64,
}

/// Failures of renewal since the last success.
#[derive(Serialize, JsonSchema)]
pub struct FailuresBody {
    setup: i64,
    grant: i64,
    transient: i64,
}

/// Connections.
#[derive(Serialize, JsonSchema)]
pub struct ConnectionList {
    items: Vec<ConnectionBody>,
    /// Cursor of the next page.
    next: Option<String>,
}

/// A new connection.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConnectionBody {
    /// Unique.
    name: String,
    /// Name or id of an integration.
    integration: String,
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

/// What shall change; fields left out stay, an empty text takes a variable or a choice away.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionEditBody {
    username: Option<String>,
    password: Option<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// What would be asked after connecting, by name.
    #[serde(default)]
    choices: BTreeMap<String, String>,
}

/// How to authorise.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizeBody {
    /// Who will consent; `complete` must name the same.
    owner: Option<String>,
    /// Where the browser goes when done, with a one-time code.
    return_url: Option<String>,
    /// A refresh token that was obtained elsewhere. It is renewed at once, so whoever else has it may find it spent.
    refresh_token: Option<String>,
}

/// A code that a person types at the provider (RFC 8628). The connection is connected when they have.
#[derive(Serialize, JsonSchema)]
pub struct DeviceBody {
    user_code: String,
    /// Where they type it.
    verification_uri: String,
    /// The same with the code in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_uri_complete: Option<String>,
    /// Until when, Unix milliseconds.
    expires_at: i64,
    /// How often the provider is asked, seconds.
    interval: u64,
}

/// What authorising came to.
#[derive(Serialize, JsonSchema)]
pub struct AuthorizeReply {
    /// The connection's id.
    connection: String,
    state: &'static str,
    /// To be opened by the person, when one is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorize_url: Option<String>,
    /// Until when that link works, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    /// To be told to the person, where they consent on another device.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceBody>,
}

/// Completing a consent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompleteBody {
    /// The one-time code of the return URL.
    code: String,
    /// The user in whose session this happens.
    owner: Option<String>,
}

/// An access token.
#[derive(Serialize, JsonSchema)]
pub struct TokenReply {
    access_token: String,
    token_type: String,
    /// Unix milliseconds; `null`: the provider doesn't say.
    expires_at: Option<i64>,
    scope: Option<String>,
    /// The connection's id.
    connection: String,
    /// Raised by every renewal.
    generation: i64,
    /// The name of the secondary token that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Whole seconds left. Last, because only this changes from one reply to the next.
    expires_in: Option<i64>,
}

/// A renewal's outcome.
#[derive(Serialize, JsonSchema)]
pub struct RefreshReply {
    /// The connection's id.
    connection: String,
    state: &'static str,
    generation: i64,
    /// Unix milliseconds.
    expires_at: Option<i64>,
}

/// What a test found.
#[derive(Serialize, JsonSchema)]
pub struct TestReply {
    /// All steps held.
    ok: bool,
    steps: Vec<StepBody>,
}

/// How a connection is tested.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestBody {
    /// Treat the token in hand as if it had expired: it is renewed, which may use up a refresh token, and the call made with the new one.
    #[serde(default)]
    renew: bool,
}

/// A step of a test.
#[derive(Serialize, JsonSchema)]
pub struct StepBody {
    /// `settings`, `discovery`, `token`, `renewal`, `introspection` or `call`.
    name: &'static str,
    ok: bool,
    message: String,
    /// What to do, where it didn't hold.
    remedy: Option<String>,
    /// What is probably wrong, where it didn't hold: `invalid_client`, `redirect_mismatch`, `invalid_scope`, `wrong_grant`, `unreachable`, `refused`, `tls`, `clock`,
    /// `not_json`, `expired`, `audience`, `insufficient_scope`, `header_prefix`, `no_refresh_token`, `grant_dead`, `rate_limited`, `provider_down`,
    /// `not_connected`, `not_allowed`, `settings` or `other`.
    cause: Option<&'static str>,
    /// Milliseconds.
    took_ms: i64,
    /// What was sent and answered, without secrets.
    exchanges: Vec<ExchangeBody>,
}

/// A request, and what came of it.
#[derive(Serialize, JsonSchema)]
pub struct ExchangeBody {
    /// `discovery`, `token_endpoint`, `introspection_endpoint`, `revocation_endpoint`, `lookup` or `api`.
    to: &'static str,
    request: MessageBody,
    reply: Option<MessageBody>,
    /// Why there was no reply.
    failure: Option<String>,
    /// Milliseconds.
    took_ms: i64,
}

/// A message without its secrets.
#[derive(Serialize, JsonSchema)]
pub struct MessageBody {
    /// `POST https://…/token`, or `200 OK`.
    line: String,
    headers: Vec<HeaderBody>,
    /// At most 8 KiB of text; of anything else its length and type.
    body: String,
    /// The body is longer than what is shown.
    truncated: bool,
}

/// A header.
#[derive(Serialize, JsonSchema)]
pub struct HeaderBody {
    name: String,
    value: String,
}

/// What ending a connection came to.
#[derive(Serialize, JsonSchema)]
pub struct RevokeReply {
    connection: ConnectionBody,
    revocation: RevocationBody,
}

/// What became of the grant at the provider.
#[derive(Serialize, JsonSchema)]
pub struct RevocationBody {
    /// `revoked`, `not_offered`, `nothing_held` or `failed`.
    outcome: &'static str,
    message: String,
}

/// A connection's history.
#[derive(Serialize, JsonSchema)]
pub struct EventList {
    /// Newest first.
    items: Vec<EventBody>,
}

/// An entry of the history.
#[derive(Serialize, JsonSchema)]
pub struct EventBody {
    id: String,
    /// Unix milliseconds.
    at: i64,
    kind: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    integration: Option<String>,
    state: Option<String>,
    owner: Option<String>,
    provider: Option<String>,
    tag: Option<String>,
    search: Option<String>,
    after: Option<String>,
    limit: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct TokenQuery {
    min_ttl: Option<String>,
    token: Option<String>,
}

pub(crate) async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Json<ConnectionList>, ApiError> {
    let page = PageQuery::new(query.after, query.limit).page()?;
    let integration = match query.integration {
        Some(name) => Some(app.broker.integration(&caller, &name).await?.id),
        None => None,
    };
    let state = query.state.as_deref().map(state).transpose()?;
    let tag = query.tag.as_deref().map(tag);
    let filter = Filter { integration, state, owner: query.owner, provider: query.provider, tag, search: query.search };
    let items = app.broker.connections(&caller, &filter, &page).await?;
    let (items, next) = cut(items, &page, |it| it.connection.id.to_string());
    Ok(Json(ConnectionList { items: items.iter().map(body).collect(), next }))
}

/// `name=value`, or a name alone.
pub(in crate::http) fn tag(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

pub(crate) async fn add(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Input(new): Input<NewConnectionBody>,
) -> Result<(StatusCode, Json<ConnectionBody>), ApiError> {
    let new = NewConnection {
        name: new.name,
        integration: new.integration,
        owner: new.owner,
        username: new.username,
        password: new.password.map(Secret::new),
        variables: new.variables,
        choices: new.choices,
        tags: new.tags,
    };
    Ok((StatusCode::CREATED, Json(body(&app.broker.add_connection(&caller, new).await?))))
}

pub(crate) async fn show(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<Json<ConnectionBody>, ApiError> {
    Ok(Json(body(&app.broker.connection(&caller, &name).await?)))
}

pub(crate) async fn edit(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    Input(edit): Input<ConnectionEditBody>,
) -> Result<Json<ConnectionBody>, ApiError> {
    let edit = ConnectionEdit {
        username: edit.username,
        password: edit.password.map(Secret::new),
        variables: edit.variables,
        choices: edit.choices,
    };
    Ok(Json(body(&app.broker.edit_connection(&caller, &name, edit).await?)))
}

pub(crate) async fn remove(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<StatusCode, ApiError> {
    app.broker.remove_connection(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn events(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<Json<EventList>, ApiError> {
    let events = app.broker.history(&caller, &name, 200).await?;
    let items = events
        .into_iter()
        .map(|it| EventBody { id: it.id.to_string(), at: it.at, kind: it.kind, message: it.message })
        .collect();
    Ok(Json(EventList { items }))
}

pub(crate) async fn authorize(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    Input(wish): Input<AuthorizeBody>,
) -> Result<Json<AuthorizeReply>, ApiError> {
    let outcome = match wish.refresh_token.map(Secret::new) {
        Some(refresh_token) => {
            app.broker.bring_refresh_token(&caller, &name, &refresh_token).await?;
            Authorize::Done(Status::Connected)
        }
        None => app.broker.authorize(&caller, &name, wish.owner, wish.return_url).await?,
    };
    let connection = app.broker.connection(&caller, &name).await?.connection;
    Ok(Json(authorize_reply(&connection, outcome)))
}

/// What authorising this connection came to.
pub(super) fn authorize_reply(connection: &Connection, outcome: Authorize) -> AuthorizeReply {
    let (authorize_url, expires_at, device) = match outcome {
        Authorize::Done(_) => (None, None, None),
        Authorize::Person(link) => (Some(link.url), Some(link.session.expires_at), None),
        Authorize::Device(code) => (None, Some(code.expires_at), Some(device_body(code))),
    };
    // A connection that works goes on while it is authorised again.
    let state = if device.is_some() { Status::Pending } else { connection.state.status() };
    AuthorizeReply { connection: connection.id.to_string(), state: state.as_str(), authorize_url, expires_at, device }
}

fn device_body(code: DeviceCode) -> DeviceBody {
    DeviceBody {
        user_code: code.user_code,
        verification_uri: code.verification_uri,
        verification_uri_complete: code.verification_uri_complete,
        expires_at: code.expires_at,
        interval: code.interval.as_secs(),
    }
}

pub(crate) async fn cancel(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<Json<ConnectionBody>, ApiError> {
    app.broker.cancel_authorization(&caller, &name).await?;
    Ok(Json(body(&app.broker.connection(&caller, &name).await?)))
}

pub(crate) async fn complete(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    Input(done): Input<CompleteBody>,
) -> Result<Json<ConnectionBody>, ApiError> {
    Ok(Json(body(&app.broker.complete(&caller, &name, &done.code, done.owner.as_deref()).await?)))
}

/// RFC 6749 §5.1 asks the same of a token reply: no cache keeps it.
type NotCached = [(HeaderName, &'static str); 1];

pub(crate) async fn token(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    InQuery(query): InQuery<TokenQuery>,
) -> Result<(NotCached, Json<TokenReply>), ApiError> {
    read_token(&app, &caller, &name, query).await
}

/// The same, however the request came here.
pub(crate) async fn read_token(
    app: &App,
    caller: &Arc<Caller>,
    name: &str,
    query: TokenQuery,
) -> Result<(NotCached, Json<TokenReply>), ApiError> {
    let min_ttl = query.min_ttl.as_deref().map(|text| duration("min_ttl", text)).transpose()?;
    let token = match query.token.as_deref() {
        None => app.broker.token(caller, name, min_ttl).await?,
        Some(token) => app.broker.secondary_token(caller, name, token, min_ttl).await?,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(token.into())))
}

impl From<HandedToken> for TokenReply {
    fn from(token: HandedToken) -> Self {
        Self {
            access_token: token.access_token.expose().to_owned(),
            token_type: token.token_type,
            expires_at: token.expires_at,
            scope: token.scope,
            connection: token.connection.to_string(),
            generation: token.generation,
            token: token.token,
            expires_in: token.expires_in,
        }
    }
}

/// A reply without its end, the value of `expires_in`: all of it that stays the same as long as the token does.
pub(crate) fn written_up_to_expires_in(token: HandedToken) -> Vec<u8> {
    let reply = TokenReply { expires_in: None, ..token.into() };
    // Text and numbers, which can always be written.
    let mut text = serde_json::to_vec(&reply).unwrap_or_default();
    text.truncate(text.len().saturating_sub("null}".len()));
    text
}

pub(crate) async fn refresh(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<Json<RefreshReply>, ApiError> {
    let note = app.broker.refresh(&caller, &name).await?;
    let connection = app.broker.connection(&caller, &name).await?.connection;
    Ok(Json(RefreshReply {
        connection: connection.id.to_string(),
        state: connection.state.status().as_str(),
        generation: note.generation,
        expires_at: note.expires_at,
    }))
}

pub(crate) async fn test(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    Input(test): Input<TestBody>,
) -> Result<Json<TestReply>, ApiError> {
    let wish = TestWish { renew: test.renew };
    Ok(Json(test_reply(app.broker.test(&caller, &name, wish, &|_| ()).await?)))
}

pub(super) fn test_reply(report: TestReport) -> TestReply {
    TestReply { ok: report.ok, steps: report.steps.into_iter().map(step_body).collect() }
}

fn step_body(step: TestStep) -> StepBody {
    StepBody {
        name: step.name,
        ok: step.ok,
        message: step.message,
        remedy: step.remedy,
        cause: step.cause.map(Cause::as_str),
        took_ms: step.took_ms,
        exchanges: step.exchanges.into_iter().map(exchange_body).collect(),
    }
}

fn exchange_body(it: Exchange) -> ExchangeBody {
    ExchangeBody {
        to: it.to,
        request: message_body(it.request),
        reply: it.reply.map(message_body),
        failure: it.failure,
        took_ms: it.took_ms,
    }
}

fn message_body(it: Shown) -> MessageBody {
    let header = |(name, value)| HeaderBody { name, value };
    let headers = it.headers.into_iter().map(header).collect();
    MessageBody { line: it.line, headers, body: it.body, truncated: it.truncated }
}

pub(crate) async fn revoke(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<Json<RevokeReply>, ApiError> {
    let (connection, outcome) = app.broker.revoke(&caller, &name).await?;
    let word = match outcome {
        RevocationOutcome::Revoked => "revoked",
        RevocationOutcome::NotOffered => "not_offered",
        RevocationOutcome::NothingHeld => "nothing_held",
        RevocationOutcome::Failed(_) => "failed",
    };
    let revocation = RevocationBody { outcome: word, message: outcome.message() };
    Ok(Json(RevokeReply { connection: body(&connection), revocation }))
}

fn state(word: &str) -> Result<Status, ApiError> {
    Status::from_stored(word).ok_or_else(|| {
        let remedy = "use draft, pending, connected, failing, reconnect or revoked";
        Error::Invalid(vec![FieldError::new("state", "there is no such state", remedy)]).into()
    })
}

pub(super) fn body(shown: &ShownConnection) -> ConnectionBody {
    let it = &shown.connection;
    let status = it.state.status();
    let failure = it.state.failure();
    let (learnt, variables) = it.variables.clone().into_iter().partition(|(name, _)| name.contains('.'));
    ConnectionBody {
        id: it.id.to_string(),
        name: it.name.clone(),
        integration: shown.integration.clone(),
        provider: shown.provider.clone(),
        method: shown.method.clone(),
        owner: it.owner.clone(),
        username: it.username.clone(),
        tags: it.tags.clone(),
        variables,
        learnt,
        state: status.as_str(),
        color: match status {
            Status::Draft | Status::Pending | Status::Revoked => "grey",
            Status::Connected => "green",
            Status::Failing | Status::Reconnect => "red",
        },
        reason: failure.map(|failure| format!("{} {}", failure.message, failure.remedy)),
        failure: failure.map(FailureBody::from),
        failures: FailuresBody { setup: it.failures.setup, grant: it.failures.grant, transient: it.failures.transient },
        scope: it.scope.clone(),
        account: it.account.clone(),
        expires_at: it.token_expires_at,
        generation: it.generation,
        next_renewal_at: it.due_at,
        dies_at: it.dies_at,
        connected_at: it.connected_at,
        renewed_at: it.renewed_at,
        created_at: it.created_at,
        updated_at: it.updated_at,
    }
}
