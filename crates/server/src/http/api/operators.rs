//! Operators of the console.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keyholder_broker::model::For;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::Input;
use super::super::problem::ApiError;
use super::keys::scope;

/// Whom a link is for; empty: somebody new, who may do everything.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorLinkRequest {
    /// What somebody new may do: `read`, `manage`, `call`, `admin`; everything when not given.
    #[serde(default)]
    scopes: Vec<String>,
    /// Name or id of an operator who shall choose anew how to sign in.
    reset: Option<String>,
}

/// A link for a person.
#[derive(Serialize, JsonSchema)]
pub struct OperatorLinkBody {
    /// To be opened once.
    url: String,
    /// Unix milliseconds.
    expires_at: i64,
}

pub(crate) async fn link(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Input(wish): Input<OperatorLinkRequest>,
) -> Result<(StatusCode, Json<OperatorLinkBody>), ApiError> {
    let for_whom = match wish.reset {
        Some(name) => For::Reset(app.broker.operator(&caller, &name).await?.id),
        None if wish.scopes.is_empty() => For::New { scopes: BTreeSet::from([keyholder_broker::model::Scope::Admin]) },
        None => For::New { scopes: wish.scopes.iter().map(|word| scope(word)).collect::<Result<_, _>>()? },
    };
    let made = app.broker.operator_link(&caller, for_whom).await?;
    Ok((StatusCode::CREATED, Json(OperatorLinkBody { url: made.url, expires_at: made.expires_at })))
}
