//! Integrations.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keyholder_broker::model::{Integration, Rate, RenewalPolicy};
use keyholder_broker::{Error, FieldError, IntegrationEdit, NewIntegration, NewVersion};
use keyholder_oauth::{ClientAuth, Secret};
use keyholder_provider::Extra;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InPath, InQuery, Input, PageQuery, cut};
use super::super::problem::ApiError;

/// An integration. Its secrets are never shown.
#[derive(Serialize, JsonSchema)]
pub struct IntegrationBody {
    id: String,
    name: String,
    /// For people.
    description: String,
    /// Id of the provider.
    provider: String,
    /// The version of its definition, on which the integration stays until it is upgraded.
    provider_version: String,
    /// When the definition's facts were compared with the provider's pages; `null`: not yet.
    provider_checked: Option<String>,
    /// Name of the provider's method.
    method: String,
    /// The method's grant.
    grant: Option<&'static str>,
    client_id: String,
    has_client_secret: bool,
    /// When the provider stops taking the client secret, as far as somebody said, Unix milliseconds.
    client_secret_expires_at: Option<i64>,
    has_client_key: bool,
    /// Certificate chain as PEM, for client authentication by `tls`.
    client_certificate: Option<String>,
    scopes: Vec<String>,
    audience: Option<String>,
    header_prefix: Option<String>,
    /// Overrides how the client authenticates.
    client_auth: Option<String>,
    /// Sent as `grant_type` instead of the grant's own name.
    grant_type: Option<String>,
    /// What the body of token and refresh requests is instead of what the provider's definition says.
    content_type: Option<String>,
    /// Where the access token stands in the reply, instead of where the provider's definition says.
    token_key: Option<String>,
    limits: RateBody,
    extra: ExtraBody,
    renewal: RenewalBody,
    variables: BTreeMap<String, String>,
    /// Names of the secret variables that have a value.
    secret_variables: Vec<String>,
    /// To be registered at the provider, letter by letter.
    redirect_uri: String,
    /// What this provider minds about it.
    redirect_note: Option<String>,
    /// Unix milliseconds.
    created_at: i64,
    /// Unix milliseconds.
    updated_at: i64,
}

/// Integrations.
#[derive(Serialize, JsonSchema)]
pub struct IntegrationList {
    items: Vec<IntegrationBody>,
    /// Cursor of the next page.
    next: Option<String>,
}

/// A new integration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewIntegrationBody {
    /// Unique.
    name: String,
    /// For people, up to 500 characters.
    #[serde(default)]
    description: String,
    /// Id of a provider.
    provider: String,
    /// A method of it; the first when not given.
    method: Option<String>,
    client_id: String,
    /// Left out for a public client.
    client_secret: Option<String>,
    /// When the provider stops taking it, Unix milliseconds. Keyholder warns ahead of it.
    client_secret_expires_at: Option<i64>,
    /// Private key as PEM or JWK, for `private_key_jwt`.
    client_key: Option<String>,
    /// Certificate chain as PEM, for `tls`.
    client_certificate: Option<String>,
    /// Its private key as PEM; `client_key` when not given.
    client_certificate_key: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    audience: Option<String>,
    /// Instead of `Bearer`.
    header_prefix: Option<String>,
    /// `basic`, `raw_basic`, `post`, `json`, `query`, `client_secret_jwt`, `private_key_jwt`, `tls` or `none`.
    client_auth: Option<String>,
    /// Instead of the grant's own name.
    grant_type: Option<String>,
    /// What the body of token and refresh requests is: `form` or `json`.
    content_type: Option<String>,
    /// Where the access token stands in the reply: a member's name, or a JSON pointer.
    token_key: Option<String>,
    #[serde(default)]
    limits: RateBody,
    #[serde(default)]
    extra: ExtraBody,
    #[serde(default)]
    renewal: RenewalBody,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// How many calls through the gateway each connection may make; the definition's limits hold beside it. `null`: no limit.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateBody {
    /// Calls a second; as many may come at once.
    per_second: Option<f64>,
    /// Calls at the same time.
    concurrent: Option<u32>,
}

impl From<Rate> for RateBody {
    fn from(it: Rate) -> Self {
        Self { per_second: it.per_second, concurrent: it.concurrent }
    }
}

impl From<RateBody> for Rate {
    fn from(it: RateBody) -> Self {
        Self { per_second: it.per_second, concurrent: it.concurrent }
    }
}

/// Parameters beside those of the provider's definition, by the request that they go with; those of the same name are replaced. None may be secret.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExtraBody {
    /// With the person, to the authorization endpoint.
    authorize: Vec<ParameterBody>,
    /// With the request that obtains a token.
    token: Vec<ParameterBody>,
    /// With the request that renews one.
    refresh: Vec<ParameterBody>,
}

/// A parameter of a request. A name may come more than once.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParameterBody {
    name: String,
    value: String,
}

impl From<Extra> for ExtraBody {
    fn from(it: Extra) -> Self {
        let bodies = |params: Vec<(String, String)>| {
            params.into_iter().map(|(name, value)| ParameterBody { name, value }).collect()
        };
        Self { authorize: bodies(it.authorize), token: bodies(it.token), refresh: bodies(it.refresh) }
    }
}

impl From<ExtraBody> for Extra {
    fn from(it: ExtraBody) -> Self {
        let pairs = |bodies: Vec<ParameterBody>| bodies.into_iter().map(|body| (body.name, body.value)).collect();
        Self { authorize: pairs(it.authorize), token: pairs(it.token), refresh: pairs(it.refresh) }
    }
}

/// How connections are renewed, where that is to differ from what Keyholder makes of the definition.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RenewalBody {
    /// How long an access token lives where the reply doesn't say, in seconds.
    token_lifetime: Option<u32>,
    /// How long before its end it is renewed, in seconds; at most three quarters of its life.
    ahead: Option<u32>,
    /// Ahead of need; else only at use, and refresh tokens that die of disuse do.
    by_itself: bool,
}

impl Default for RenewalBody {
    fn default() -> Self {
        RenewalPolicy::default().into()
    }
}

impl From<RenewalPolicy> for RenewalBody {
    fn from(it: RenewalPolicy) -> Self {
        Self { token_lifetime: it.token_lifetime, ahead: it.ahead, by_itself: it.by_itself }
    }
}

impl From<RenewalBody> for RenewalPolicy {
    fn from(it: RenewalBody) -> Self {
        Self { token_lifetime: it.token_lifetime, ahead: it.ahead, by_itself: it.by_itself }
    }
}

/// What shall change; fields left out stay. `null` takes `audience`, `header_prefix`, `client_auth`, `grant_type`, `content_type`, `token_key`, `client_certificate` or `client_secret_expires_at` away, an empty text a key or a variable.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntegrationEditBody {
    name: Option<String>,
    description: Option<String>,
    client_id: Option<String>,
    /// A new one; what was said of the old one's end goes with it.
    client_secret: Option<String>,
    /// When the provider stops taking it, Unix milliseconds.
    #[serde(default, deserialize_with = "given")]
    client_secret_expires_at: Option<Option<i64>>,
    /// A new private key.
    client_key: Option<String>,
    /// A new certificate chain; the key of the old one goes with it.
    #[serde(default, deserialize_with = "given")]
    client_certificate: Option<Option<String>>,
    /// Its private key.
    client_certificate_key: Option<String>,
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    audience: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    header_prefix: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    client_auth: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    grant_type: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    content_type: Option<Option<String>>,
    /// A new one takes `admin`.
    #[serde(default, deserialize_with = "given")]
    token_key: Option<Option<String>>,
    /// Takes the place of both limits.
    limits: Option<RateBody>,
    /// Takes the place of all parameters.
    extra: Option<ExtraBody>,
    /// Takes the place of all of it, from each connection's next renewal on.
    renewal: Option<RenewalBody>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// Which version, and what it needs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeBody {
    /// The version; the newest when left out.
    version: Option<String>,
    /// Values for variables that it has and the old one has not.
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// Only tell what would change.
    #[serde(default)]
    dry_run: bool,
}

/// An upgrade, done or only looked at.
#[derive(Serialize, JsonSchema)]
pub struct UpgradeReply {
    /// The integration as it is now.
    integration: IntegrationBody,
    from: String,
    to: String,
    /// What differs in the texts, as `diff -u` writes it; those of extended definitions too.
    difference: String,
    /// Addresses that change.
    addresses: Vec<AddressBody>,
    /// Variables that must be given with the upgrade.
    missing: Vec<String>,
    /// Variables that each connection must be given.
    missing_in_connections: Vec<String>,
    /// Variables whose values go, because nothing uses them any more.
    dropped: Vec<String>,
}

/// An address that changes.
#[derive(Serialize, JsonSchema)]
pub struct AddressBody {
    /// The definition's field.
    field: String,
    before: Option<String>,
    after: Option<String>,
}

/// `null` is not the same as left out.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

pub(crate) async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<IntegrationList>, ApiError> {
    let page = query.page()?;
    let items = app.broker.integrations(&caller, &page).await?;
    let (items, next) = cut(items, &page, |it| it.id.to_string());
    let mut bodies = Vec::with_capacity(items.len());
    for item in items {
        // The list has no secrets; whether there is one is shown all the same.
        bodies.push(body(&app, &app.broker.integration(&caller, item.id.as_str()).await?).await);
    }
    Ok(Json(IntegrationList { items: bodies, next }))
}

pub(crate) async fn show(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<Json<IntegrationBody>, ApiError> {
    Ok(Json(body(&app, &app.broker.integration(&caller, &name).await?).await))
}

pub(crate) async fn add(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Input(new): Input<NewIntegrationBody>,
) -> Result<(StatusCode, Json<IntegrationBody>), ApiError> {
    let integration = app.broker.add_integration(&caller, new_integration(new)?).await?;
    Ok((StatusCode::CREATED, Json(body(&app, &integration).await)))
}

pub(super) fn new_integration(new: NewIntegrationBody) -> Result<NewIntegration, ApiError> {
    Ok(NewIntegration {
        id: None,
        name: new.name,
        description: new.description,
        provider: new.provider,
        method: new.method,
        client_id: new.client_id,
        client_secret: new.client_secret.map(Secret::new),
        client_secret_expires_at: new.client_secret_expires_at,
        client_key: new.client_key.map(Secret::new),
        client_certificate: new.client_certificate,
        client_certificate_key: new.client_certificate_key.map(Secret::new),
        scopes: new.scopes,
        audience: new.audience,
        header_prefix: new.header_prefix,
        client_auth: new.client_auth.as_deref().map(client_auth).transpose()?,
        grant_type: new.grant_type,
        content_type: new.content_type,
        token_key: new.token_key,
        limits: new.limits.into(),
        extra: new.extra.into(),
        renewal: new.renewal.into(),
        variables: new.variables,
    })
}

pub(crate) async fn edit(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    Input(edit): Input<IntegrationEditBody>,
) -> Result<Json<IntegrationBody>, ApiError> {
    let client_auth = match edit.client_auth {
        None => None,
        Some(None) => Some(None),
        Some(Some(word)) => Some(Some(client_auth(&word)?)),
    };
    let edit = IntegrationEdit {
        name: edit.name,
        description: edit.description,
        client_id: edit.client_id,
        client_secret: edit.client_secret.map(Secret::new),
        client_secret_expires_at: edit.client_secret_expires_at,
        client_key: edit.client_key.map(Secret::new),
        client_certificate: edit.client_certificate,
        client_certificate_key: edit.client_certificate_key.map(Secret::new),
        scopes: edit.scopes,
        audience: edit.audience,
        header_prefix: edit.header_prefix,
        client_auth,
        grant_type: edit.grant_type,
        content_type: edit.content_type,
        token_key: edit.token_key,
        limits: edit.limits.map(Rate::from),
        extra: edit.extra.map(Extra::from),
        renewal: edit.renewal.map(RenewalPolicy::from),
        variables: edit.variables,
    };
    Ok(Json(body(&app, &app.broker.edit_integration(&caller, &name, edit).await?).await))
}

pub(crate) async fn upgrade(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
    Input(wanted): Input<UpgradeBody>,
) -> Result<Json<UpgradeReply>, ApiError> {
    let new = NewVersion { version: wanted.version, variables: wanted.variables, dry_run: wanted.dry_run };
    let upgrade = app.broker.upgrade_integration(&caller, &name, new).await?;
    let meaning = upgrade.meaning;
    let address = |(field, before, after)| AddressBody { field, before, after };
    Ok(Json(UpgradeReply {
        integration: body(&app, &upgrade.integration).await,
        from: upgrade.from,
        to: upgrade.to,
        difference: upgrade.difference,
        addresses: meaning.addresses.into_iter().map(address).collect(),
        missing: meaning.missing,
        missing_in_connections: meaning.missing_in_connections,
        dropped: meaning.dropped,
    }))
}

pub(crate) async fn remove(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(name): InPath,
) -> Result<StatusCode, ApiError> {
    app.broker.remove_integration(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn client_auth(word: &str) -> Result<ClientAuth, ApiError> {
    word.parse().map_err(|_| {
        let known: Vec<_> = ClientAuth::ALL.iter().map(ToString::to_string).collect();
        let reason = "there is no such client authentication";
        Error::Invalid(vec![FieldError::new("client_auth", reason, format!("use one of: {}", known.join(", ")))]).into()
    })
}

pub(super) async fn body(app: &App, it: &Integration) -> IntegrationBody {
    let definition = app.broker.definition_of(it).await.ok();
    let method = definition.as_ref().and_then(|d| d.method(Some(&it.method)).ok());
    IntegrationBody {
        id: it.id.to_string(),
        name: it.name.clone(),
        description: it.description.clone(),
        provider: it.provider.clone(),
        provider_version: it.provider_version.clone(),
        provider_checked: definition.as_ref().and_then(|d| d.checked.clone()),
        method: it.method.clone(),
        grant: method.map(|m| m.grant.as_str()),
        client_id: it.client_id.clone(),
        has_client_secret: it.client_secret.is_some(),
        client_secret_expires_at: it.client_secret_expires_at,
        has_client_key: it.client_key.is_some(),
        client_certificate: it.client_certificate.clone(),
        scopes: it.scopes.clone(),
        audience: it.audience.clone(),
        header_prefix: it.header_prefix.clone(),
        client_auth: it.client_auth.map(|auth| auth.to_string()),
        grant_type: it.grant_type.clone(),
        content_type: it.content_type.clone(),
        token_key: it.token_key.clone(),
        limits: it.limits.into(),
        extra: it.extra.clone().into(),
        renewal: it.renewal.into(),
        variables: it.variables.clone(),
        secret_variables: it.secret_variables.keys().cloned().collect(),
        redirect_uri: app.broker.redirect_uri(&it.id),
        redirect_note: definition.as_ref().and_then(|d| d.setup.redirect_note.clone()),
        created_at: it.created_at,
        updated_at: it.updated_at,
    }
}
