//! How often what was used.

use axum::Json;
use axum::extract::State;
use keyholder_broker::store::{Figures, UsageGroup};
use keyholder_broker::{Error, FieldError, UsageFilter, UsageLine, UsagePage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::caller::Authenticated;
use super::super::input::{InQuery, PageQuery, cut};
use super::super::problem::ApiError;

/// So much of usage is summed up when nothing is said: a day.
const DAY_MS: i64 = 24 * 3_600_000;

/// Usage, summed up.
#[derive(Serialize, JsonSchema)]
pub struct UsageList {
    /// From when on, Unix milliseconds: a whole hour.
    from: i64,
    /// Up to when: a whole hour.
    to: i64,
    /// `connection`, `caller`, `source` or `hour`.
    by: &'static str,
    items: Vec<UsageBody>,
    /// Cursor of the next page; null at the end.
    next: Option<String>,
}

/// The figures of one connection, key, data source or hour.
#[derive(Serialize, JsonSchema)]
pub struct UsageBody {
    /// Id of the connection, key or data source; empty for what Keyholder did by itself, and for calls by no data source. Of an hour its beginning, Unix
    /// milliseconds as text.
    of: String,
    /// Its name, where it still has one.
    name: Option<String>,
    /// Tokens handed out.
    hand_outs: i64,
    /// Calls to the API.
    calls: i64,
    /// Renewals by Keyholder, whoever was waiting.
    renewals: i64,
    /// Renewals that failed.
    failed_renewals: i64,
    errors: UsageErrors,
    /// Bytes of the requests' bodies.
    bytes_sent: i64,
    /// Bytes of the replies' bodies.
    bytes_received: i64,
    took: UsageTimes,
}

/// Calls that came to nothing.
#[derive(Serialize, JsonSchema)]
pub struct UsageErrors {
    /// The API answered 400 to 499.
    client: i64,
    /// It answered 500 or above.
    server: i64,
    /// It didn't answer, or not to the end.
    keyholder: i64,
}

/// How long calls took until the reply's head, in milliseconds.
#[derive(Serialize, JsonSchema)]
pub struct UsageTimes {
    /// Half of the calls took no longer; null without calls. As exact as `calls` is fine.
    p50: Option<f64>,
    /// Nine of ten.
    p90: Option<f64>,
    /// 99 of a hundred.
    p99: Option<f64>,
    /// How many calls took up to 1 ms, 2, 4, and so on up to 16,384 ms; the last number counts those that took longer.
    calls: Vec<i64>,
}

/// Which figures.
#[derive(Debug, Deserialize)]
pub(crate) struct UsageQuery {
    from: Option<i64>,
    to: Option<i64>,
    by: Option<String>,
    connection: Option<String>,
    caller: Option<String>,
    source: Option<String>,
    after: Option<String>,
    limit: Option<i64>,
}

pub(crate) async fn usage(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    InQuery(query): InQuery<UsageQuery>,
) -> Result<Json<UsageList>, ApiError> {
    let page = PageQuery::new(query.after, query.limit).page()?;
    let (by, group) = group(query.by.as_deref().unwrap_or("connection"))?;
    let to = query.to.unwrap_or_else(|| app.broker.now_ms());
    let filter = UsageFilter {
        from: query.from.unwrap_or(to.saturating_sub(DAY_MS)),
        to,
        connection: query.connection,
        caller: query.caller,
        source: query.source,
    };
    let UsagePage { from, to, lines } = app.broker.usage(&caller, filter, group, &page).await?;
    let (lines, next) = cut(lines, &page, |line| line.of.clone());
    Ok(Json(UsageList { from, to, by, items: lines.into_iter().map(body).collect(), next }))
}

fn group(by: &str) -> Result<(&'static str, UsageGroup), ApiError> {
    Ok(match by {
        "connection" => ("connection", UsageGroup::Connection),
        "caller" => ("caller", UsageGroup::Caller),
        "source" => ("source", UsageGroup::Source),
        "hour" => ("hour", UsageGroup::Hour),
        _ => {
            let remedy = "give connection, caller, source or hour";
            return Err(Error::Invalid(vec![FieldError::new("by", "usage isn't summed up by that", remedy)]).into());
        }
    })
}

fn body(line: UsageLine) -> UsageBody {
    let UsageLine { of, name, figures } = line;
    let [p50, p90, p99] = [50, 90, 99].map(|percent| figures.took_ms(percent));
    let Figures { hand_outs, calls, renewals, failed_renewals, sent, received, took, .. } = figures;
    UsageBody {
        of,
        name,
        hand_outs,
        calls,
        renewals,
        failed_renewals,
        errors: UsageErrors {
            client: figures.client_errors,
            server: figures.server_errors,
            keyholder: figures.own_errors,
        },
        bytes_sent: sent,
        bytes_received: received,
        took: UsageTimes { p50, p90, p99, calls: took.to_vec() },
    }
}
