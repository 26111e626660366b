//! Connect sessions.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keyholder_broker::NewConnectSession;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::Input;
use super::super::problem::ApiError;

/// A new connect session.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSessionBody {
    /// Name or id of an integration.
    integration: String,
    /// A connection to authorise (again); a new one is made when left out.
    connection: Option<String>,
    /// Who will consent, in the application's words; `complete` must name the same.
    owner: Option<String>,
    /// Where the browser goes when done: with `connection` and `code`, or with `connection` and `error`. Left out, the person confirms on Keyholder's page.
    return_url: Option<String>,
    /// Values the person is not asked for.
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// What the person is not asked to choose after connecting, by name.
    #[serde(default)]
    choices: BTreeMap<String, String>,
    /// Labels of a new connection.
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// A connect session.
#[derive(Serialize, JsonSchema)]
pub struct SessionBody {
    id: String,
    /// The link for the person.
    url: String,
    /// Until when it works, Unix milliseconds.
    expires_at: i64,
    /// The connection's id.
    connection: String,
    /// The integration's id.
    integration: String,
}

pub(crate) async fn create(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Input(new): Input<NewSessionBody>,
) -> Result<(StatusCode, Json<SessionBody>), ApiError> {
    let new = NewConnectSession {
        integration: new.integration,
        connection: new.connection,
        owner: new.owner,
        return_url: new.return_url,
        variables: new.variables,
        choices: new.choices,
        tags: new.tags,
    };
    let link = app.broker.create_session(&caller, new).await?;
    let body = SessionBody {
        id: link.session.id.to_string(),
        url: link.url,
        expires_at: link.session.expires_at,
        connection: link.session.connection.to_string(),
        integration: link.session.integration.to_string(),
    };
    Ok((StatusCode::CREATED, Json(body)))
}
