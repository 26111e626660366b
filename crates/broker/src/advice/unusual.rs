//! Use that isn't as it was: a new key, a burst, calls at night. Pure.

use super::{Advice, On, Severity};
use crate::model::ConnectionId;
use crate::store::{FirstUse, HourOfCalls};
use crate::usage::HOUR_MS;

/// An hour with more calls than this can be a burst.
pub(super) const MANY: i64 = 100;
/// So many times what is usual.
const TIMES: i64 = 10;
/// Before so many hours with calls nothing is usual.
const USUAL_FROM: usize = 24;

/// `caller`: the name of the key or the person, where it is still there.
pub(super) fn new_caller(found: &FirstUse, caller: Option<&str>) -> Advice {
    let FirstUse { connection, name, caller: key, .. } = found;
    Advice {
        rule: "new_caller",
        severity: Severity::Medium,
        on: On::Connection(connection.clone(), name.clone()),
        text: format!("“{}” used it in the last day for the first time in a month.", caller.unwrap_or(key)),
        reason: "Whoever turns up where they never were may have a key or a session in wrong hands; or somebody has just begun to use it.",
        source: "Unusual use",
        href: format!("/console/audit?connection={connection}&caller={key}"),
        link: "See what it did",
    }
}

/// `hours`: of one connection; those before `recent` say what is usual.
pub(super) fn burst(hours: &[HourOfCalls], recent: i64) -> Option<Advice> {
    let mut usual: Vec<i64> = hours.iter().filter(|it| it.hour < recent).map(|it| it.calls).collect();
    usual.sort_unstable();
    let median = *usual.get(usual.len() / 2)?;
    let most = hours.iter().filter(|it| it.hour >= recent).max_by_key(|it| it.calls)?;
    if usual.len() < USUAL_FROM || most.calls <= MANY || most.calls <= TIMES * median {
        return None;
    }
    Some(Advice {
        rule: "burst",
        severity: Severity::Medium,
        on: On::Connection(most.connection.clone(), most.name.clone()),
        text: format!("{} calls within an hour, where {median} are usual.", most.calls),
        reason: "A loop gone wrong uses up what the provider allows; a stolen key reads all it can.",
        source: "Unusual use",
        href: usage_at(&most.connection, most.hour),
        link: "See who called",
    })
}

pub(super) fn night(found: &HourOfCalls) -> Advice {
    Advice {
        rule: "night",
        severity: Severity::Low,
        on: On::Connection(found.connection.clone(), found.name.clone()),
        text: format!(
            "{} calls between midnight and five, where there were none in the two weeks before.",
            found.calls
        ),
        reason: "A new job that runs at night, or somebody who hopes that nobody looks.",
        source: "Unusual use",
        href: usage_at(&found.connection, found.hour),
        link: "See who called",
    }
}

/// The usage of that hour and the day before it, by caller.
fn usage_at(connection: &ConnectionId, hour: i64) -> String {
    let (from, to) = ((hour - 23) * HOUR_MS, hour * HOUR_MS);
    format!("/console/usage?connection={connection}&by=caller&from={from}&to={to}")
}
