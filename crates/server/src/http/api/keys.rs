//! API keys.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keyholder_broker::model::{Limits, NewKey, Rate, Scope, StoredKey};
use keyholder_broker::{Error, FieldError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InPath, InQuery, Input, PageQuery, cut};
use super::super::problem::ApiError;

/// An API key.
#[derive(Serialize, JsonSchema)]
pub struct KeyBody {
    id: String,
    name: String,
    /// Its first characters.
    hint: String,
    /// `read`, `manage`, `token`, `call`, `admin`.
    scopes: Vec<&'static str>,
    limits: LimitsBody,
    /// Unix milliseconds.
    created_at: i64,
    /// Unix milliseconds.
    expires_at: Option<i64>,
    /// Unix milliseconds, at most a minute behind.
    last_used_at: Option<i64>,
    /// Unix milliseconds.
    revoked_at: Option<i64>,
    /// The key itself: only in the reply that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// Where a key may be used; an empty list means everywhere.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsBody {
    /// Names or ids of connections, by themselves or behind data sources.
    connections: BTreeSet<String>,
    /// Names or ids of data sources. With some, connections are reached through these only.
    sources: BTreeSet<String>,
    /// HTTP methods through the gateway.
    methods: BTreeSet<String>,
    /// Path prefixes through the gateway.
    paths: BTreeSet<String>,
    /// Calls and hand-outs a second; as many may come at once.
    per_second: Option<f64>,
    /// Calls at the same time.
    concurrent: Option<u32>,
}

/// API keys.
#[derive(Serialize, JsonSchema)]
pub struct KeyList {
    items: Vec<KeyBody>,
    /// Cursor of the next page.
    next: Option<String>,
}

/// A new key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKeyBody {
    /// Unique among live keys.
    name: String,
    /// Some of `read`, `manage`, `token`, `call`, `admin`.
    scopes: Vec<String>,
    #[serde(default)]
    limits: LimitsBody,
    /// Unix milliseconds.
    expires_at: Option<i64>,
}

pub(crate) async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<KeyList>, ApiError> {
    let page = query.page()?;
    let (items, next) = cut(app.broker.keys(&caller, &page).await?, &page, |it| it.caller.key.to_string());
    Ok(Json(KeyList { items: items.iter().map(|it| body(it, None)).collect(), next }))
}

pub(crate) async fn create(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Input(new): Input<NewKeyBody>,
) -> Result<(StatusCode, Json<KeyBody>), ApiError> {
    let new = NewKey {
        name: new.name,
        scopes: new.scopes.iter().map(|word| scope(word)).collect::<Result<_, _>>()?,
        limits: Limits {
            connections: new.limits.connections,
            sources: new.limits.sources,
            methods: new.limits.methods,
            paths: new.limits.paths,
            rate: Rate { per_second: new.limits.per_second, concurrent: new.limits.concurrent },
        },
        expires_at: new.expires_at,
    };
    let made = app.broker.create_key(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(body(&made.stored, Some(made.key.0.expose().to_owned())))))
}

pub(crate) async fn revoke(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InPath(key): InPath,
) -> Result<Json<KeyBody>, ApiError> {
    Ok(Json(body(&app.broker.revoke_key(&caller, &key).await?, None)))
}

pub(super) fn scope(word: &str) -> Result<Scope, ApiError> {
    Scope::ALL.into_iter().find(|scope| scope.as_str() == word).ok_or_else(|| {
        let reason = format!("there is no scope `{}`", word.chars().take(40).collect::<String>());
        Error::Invalid(vec![FieldError::new("scopes", reason, "use some of read, manage, token, call, admin")]).into()
    })
}

fn body(it: &StoredKey, key: Option<String>) -> KeyBody {
    KeyBody {
        id: it.caller.key.to_string(),
        name: it.caller.name.clone(),
        hint: it.hint.clone(),
        scopes: it.caller.scopes.iter().map(|scope| scope.as_str()).collect(),
        limits: LimitsBody {
            connections: it.caller.limits.connections.clone(),
            sources: it.caller.limits.sources.clone(),
            methods: it.caller.limits.methods.clone(),
            paths: it.caller.limits.paths.clone(),
            per_second: it.caller.limits.rate.per_second,
            concurrent: it.caller.limits.rate.concurrent,
        },
        created_at: it.created_at,
        expires_at: it.caller.expires_at,
        last_used_at: it.last_used_at,
        revoked_at: it.revoked_at,
        key,
    }
}
