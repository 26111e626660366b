//! Running it: audit and doctor.

use axum::Json;
use axum::extract::State;
use keyholder_broker::{Instance, SealStatus, Verdict};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InQuery, PageQuery, cut};
use super::super::problem::ApiError;

/// Audit records: without `after` the newest, newest first; behind a cursor oldest first.
#[derive(Serialize, JsonSchema)]
pub struct AuditList {
    items: Vec<AuditBody>,
    /// Cursor: what is recorded after the newest record shown.
    next: Option<String>,
}

/// An audit record.
#[derive(Serialize, JsonSchema)]
pub struct AuditBody {
    id: String,
    /// Unix milliseconds.
    at: i64,
    /// Name of the key, `person` or `keyholder`.
    actor: String,
    /// What: `token.read`, `proxy.call`, `connection.create`, …
    action: String,
    /// On what.
    object: String,
    /// `ok` or `refused`.
    outcome: String,
    detail: Option<String>,
}

/// What was looked at.
#[derive(Serialize, JsonSchema)]
pub struct DoctorReply {
    checks: Vec<CheckBody>,
}

/// One thing that was looked at.
#[derive(Serialize, JsonSchema)]
pub struct CheckBody {
    name: &'static str,
    /// `ok`, `warning` or `problem`.
    verdict: &'static str,
    message: String,
    remedy: Option<String>,
}

/// Which data keys hold how much.
#[derive(Serialize, JsonSchema)]
pub struct SealBody {
    /// Number of the data key that seals.
    newest: u32,
    /// How many long-lived values each data key sealed, by number.
    values: std::collections::BTreeMap<u32, u64>,
    /// How many of them still wait to be sealed anew.
    left: u64,
}

/// Which installation this is.
#[derive(Serialize, JsonSchema)]
pub struct InstanceBody {
    /// The cluster's name, made with its database.
    cluster: String,
    /// 1, and one more for every time that a fence was lifted.
    epoch: i64,
    /// Processes that work on the database, as far as they were seen within the last minute.
    running: i64,
    /// Why nothing is renewed; empty where it is.
    fence: Option<FenceBody>,
}

/// A fence.
#[derive(Serialize, JsonSchema)]
pub struct FenceBody {
    /// `older` (the database went back in time), `moved` (it is at another place) or `retired` (an operator said so).
    reason: &'static str,
    /// What happened.
    message: &'static str,
    /// Since when, Unix milliseconds.
    since: i64,
}

pub(crate) async fn instance(State(app): State<App>) -> Result<Json<InstanceBody>, ApiError> {
    Ok(Json(instance_body(app.broker.instance().await?)))
}

pub(crate) async fn declare_live(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<InstanceBody>, ApiError> {
    Ok(Json(instance_body(app.broker.declare_live(&caller).await?)))
}

pub(crate) async fn retire(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<InstanceBody>, ApiError> {
    Ok(Json(instance_body(app.broker.retire(&caller).await?)))
}

fn instance_body(instance: Instance) -> InstanceBody {
    let fence = instance.fenced.map(|fenced| FenceBody {
        reason: fenced.reason.as_str(),
        message: fenced.reason.message(),
        since: fenced.since,
    });
    InstanceBody { cluster: instance.cluster, epoch: instance.epoch, running: instance.running, fence }
}

pub(crate) async fn seal_status(State(app): State<App>) -> Result<Json<SealBody>, ApiError> {
    Ok(Json(seal_body(app.broker.seal_status().await?)))
}

pub(crate) async fn seal_rotate(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<SealBody>, ApiError> {
    Ok(Json(seal_body(app.broker.seal_rotate(&caller).await?)))
}

fn seal_body(status: SealStatus) -> SealBody {
    SealBody { newest: status.newest, values: status.values, left: status.left }
}

pub(crate) async fn audit(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<AuditList>, ApiError> {
    let page = query.page()?;
    let rows = app.broker.audit_records(&caller, &page).await?;
    let newest = rows.iter().map(|row| row.id.clone()).max();
    let (rows, _) = cut(rows, &page, |row| row.id.clone());
    let next = if page.after.is_empty() { newest } else { rows.last().map(|row| row.id.clone()) };
    let items = rows
        .into_iter()
        .map(|row| AuditBody {
            id: row.id,
            at: row.at,
            actor: row.actor,
            action: row.action,
            object: row.object,
            outcome: row.outcome,
            detail: row.detail,
        })
        .collect();
    Ok(Json(AuditList { items, next }))
}

pub(crate) async fn doctor(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<DoctorReply>, ApiError> {
    let checks = app.broker.doctor(&caller).await?;
    let checks = checks
        .into_iter()
        .map(|check| CheckBody {
            name: check.name,
            verdict: match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Problem => "problem",
            },
            message: check.message,
            remedy: check.remedy,
        })
        .collect();
    Ok(Json(DoctorReply { checks }))
}
