//! Running it: audit and doctor.

use axum::Json;
use axum::extract::State;
use keyholder_broker::{AuditFilter, AuditPage, AuditPart, Error, FieldError, Instance, SealStatus, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InQuery, PageQuery};
use super::super::problem::ApiError;

/// Audit records: newest first, or oldest first with `after` or `order=oldest`.
#[derive(Serialize, JsonSchema)]
pub struct AuditList {
    items: Vec<AuditBody>,
    /// Cursor for `after`: what is recorded after all that was looked at here; null where there was nothing.
    next: Option<String>,
    /// Cursor for `before`, newest first only: what was recorded before; missing where there is no more. With filters a page may have fewer
    /// items than asked for, even none, and still lead on.
    #[serde(skip_serializing_if = "Option::is_none")]
    older: Option<String>,
}

/// An audit record.
#[derive(Serialize, JsonSchema)]
pub struct AuditBody {
    /// Sorts by when it was recorded; a cursor for `after` and `before`.
    id: String,
    /// Unix milliseconds.
    at: i64,
    /// Name of the key, `person` or `keyholder`.
    actor: String,
    /// Id of the key.
    key_id: Option<String>,
    /// What: `token.read`, `proxy.call`, `connection.create`, …
    action: String,
    /// On what.
    object: String,
    /// By which data source, for calls.
    source: Option<String>,
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

/// Which part of the audit.
#[derive(Debug, Deserialize)]
pub(crate) struct AuditQuery {
    after: Option<String>,
    before: Option<String>,
    order: Option<String>,
    limit: Option<i64>,
    caller: Option<String>,
    connection: Option<String>,
    action: Option<String>,
    outcome: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
}

impl AuditQuery {
    fn part(&self) -> Result<AuditPart, ApiError> {
        let refused = |field, reason: &str, remedy| -> Result<_, ApiError> {
            Err(Error::Invalid(vec![FieldError::new(field, reason, remedy)]).into())
        };
        // An empty cursor is none, as in other lists.
        let cursor = |given: &Option<String>| given.clone().filter(|given| !given.is_empty());
        match (cursor(&self.after), cursor(&self.before), self.order.as_deref()) {
            (Some(_), Some(_), _) => refused("before", "`after` is given too", "give one of them"),
            (after @ Some(_), None, None | Some("oldest")) | (after @ None, None, Some("oldest")) => {
                Ok(AuditPart::Oldest { after })
            }
            (None, before, None | Some("newest")) => Ok(AuditPart::Newest { before }),
            (_, _, Some("oldest" | "newest")) => refused(
                "order",
                "it contradicts the cursor",
                "leave it out: `after` goes on to newer records, `before` to older ones",
            ),
            _ => refused("order", "there is no such order", "give `newest` or `oldest`"),
        }
    }
}

pub(crate) async fn audit(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InQuery(query): InQuery<AuditQuery>,
) -> Result<Json<AuditList>, ApiError> {
    let (part, page) = (query.part()?, PageQuery::new(None, query.limit).page()?);
    let filter = AuditFilter {
        caller: query.caller,
        object: query.connection,
        action: query.action,
        outcome: query.outcome,
        since: query.since,
        until: query.until,
    };
    let AuditPage { rows, next, older } = app.broker.read_audit(&caller, filter, part, page.limit - 1).await?;
    let items = rows
        .into_iter()
        .map(|row| AuditBody {
            id: row.id,
            at: row.at,
            actor: row.actor,
            key_id: row.key_id,
            action: row.action,
            object: row.object,
            source: row.source,
            outcome: row.outcome,
            detail: row.detail,
        })
        .collect();
    Ok(Json(AuditList { items, next, older }))
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
