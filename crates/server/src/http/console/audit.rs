//! The audit: read with filters, and taken away as a file.

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header};
use keyholder_broker::{AuditFilter, AuditPart, AuditRow, Error};
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::input::InQuery;
use super::super::problem::ApiError;
use super::forms::{Field, Time};
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

const SHOWN: i64 = 50;
/// Rows that are read at once for a file, and the most that it has.
const CHUNK: i64 = 1000;
const MOST: usize = 1_000_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::http) struct Query {
    caller: String,
    connection: String,
    action: String,
    outcome: String,
    since: String,
    until: String,
    before: String,
}

impl Query {
    fn filter(&self) -> AuditFilter {
        let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        AuditFilter {
            caller: some(&self.caller),
            object: some(&self.connection),
            action: some(&self.action),
            outcome: some(&self.outcome),
            since: day(&self.since),
            until: day(&self.until).map(|at| at + DAY_MS - 1),
        }
    }

    /// Of the page, or of a file of the same rows.
    fn path(&self, path: &str, before: &str) -> String {
        let Query { caller, connection, action, outcome, since, until, .. } = self;
        let given = [
            ("caller", caller),
            ("connection", connection),
            ("action", action),
            ("outcome", outcome),
            ("since", since),
            ("until", until),
        ];
        let given: Vec<_> =
            given.iter().map(|(name, value)| (*name, value.as_str())).chain([("before", before)]).collect();
        places::with(path, &given)
    }
}

/// The beginning of a day, `2026-11-22`, in UTC: Unix milliseconds. Howard Hinnant's `days_from_civil`.
pub(super) fn day(text: &str) -> Option<i64> {
    let mut parts = text.trim().splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some((era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468) * DAY_MS)
}

#[derive(Template)]
#[template(path = "console/audit.html")]
struct Page<'a> {
    page: Frame<'a>,
    fields: Vec<Field>,
    rows: Vec<Row>,
    older: Option<String>,
    csv: String,
    json: String,
    is_filtered: bool,
}

/// A record.
struct Row {
    at: Time,
    actor: String,
    action: String,
    object: String,
    /// Where what it is about is shown, where it is.
    href: Option<String>,
    outcome: String,
    detail: String,
}

/// `GET /console/audit`.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InQuery(query): InQuery<Query>,
) -> Result<Response, ApiError> {
    let part = AuditPart::Newest { before: Some(query.before.clone()).filter(|it| !it.is_empty()) };
    let read = app.broker.read_audit(&person.caller, query.filter(), part, SHOWN).await?;
    let text = |name: &'static str, label: &str, value: &str| Field::text(name, label, "").value(value);
    let outcomes = [("", "any"), ("ok", "ok"), ("refused", "refused")];
    let outcomes = outcomes.map(|(value, label)| (value.to_owned(), label.to_owned()));
    let template = Page {
        page: frame(&app, &person, Menu::Audit).await,
        fields: vec![
            text("caller", "Who", &query.caller).example("name or id"),
            text("connection", "On what", &query.connection).example("name or id"),
            text("action", "Action", &query.action).example("connection, token.read, …"),
            text("outcome", "Outcome", &query.outcome).choices(outcomes),
            text("since", "From", &query.since).kind("date"),
            text("until", "Up to", &query.until).kind("date"),
        ],
        rows: read.rows.into_iter().map(row).collect(),
        older: read.older.map(|before| query.path(places::AUDIT, &before)),
        csv: query.path(places::AUDIT_CSV, ""),
        json: query.path(places::AUDIT_JSON, ""),
        is_filtered: !query.path("", "").is_empty(),
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}

fn row(it: AuditRow) -> Row {
    let href = match it.object.split_once('_').map(|(kind, _)| kind) {
        Some("con") => Some(places::connection(&it.object)),
        Some("int") => Some(places::integration(&it.object)),
        Some("src") => Some(places::source(&it.object)),
        _ => None,
    };
    Row {
        at: Time::at(it.at),
        actor: it.actor,
        action: it.action,
        object: it.object,
        href,
        outcome: it.outcome,
        detail: it.detail.unwrap_or_default(),
    }
}

/// `GET /console/audit.csv`.
pub(in crate::http) async fn csv(State(app): State<App>, person: Person, InQuery(query): InQuery<Query>) -> Response {
    let head = "at,actor,key_id,action,object,source,outcome,detail,id\r\n";
    file(app, person, &query, "text/csv; charset=utf-8", "audit.csv", head, line)
}

/// `GET /console/audit.jsonl`.
pub(in crate::http) async fn json(State(app): State<App>, person: Person, InQuery(query): InQuery<Query>) -> Response {
    file(app, person, &query, "application/jsonl; charset=utf-8", "audit.jsonl", "", |row| {
        let mut text = serde_json::to_string(&Record::from(row)).unwrap_or_default();
        text.push('\n');
        text
    })
}

/// The rows, newest first, read while they are sent.
fn file(
    app: App,
    person: Person,
    query: &Query,
    kind: &'static str,
    name: &str,
    head: &'static str,
    write: fn(&AuditRow) -> String,
) -> Response {
    let filter = query.filter();
    // Where to go on, and how many rows were sent.
    let pages = stream::try_unfold(Some((None, 0)), move |from| {
        let (app, caller, filter) = (app.clone(), person.caller.clone(), filter.clone());
        async move {
            let Some((before, sent)) = from else { return Ok::<_, Error>(None) };
            let is_first = before.is_none();
            let page = app.broker.read_audit(&caller, filter, AuditPart::Newest { before }, CHUNK).await?;
            let sent = sent + page.rows.len();
            let mut text = if is_first { head.to_owned() } else { String::new() };
            text.extend(page.rows.iter().map(write));
            let next = page.older.filter(|_| sent < MOST).map(|older| (Some(older), sent));
            Ok(Some((Bytes::from(text), next)))
        }
    });
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, Body::from_stream(pages)).into_response()
}

/// A record as JSON.
#[derive(Serialize)]
struct Record<'a> {
    id: &'a str,
    at: String,
    actor: &'a str,
    key_id: Option<&'a str>,
    action: &'a str,
    object: &'a str,
    source: Option<&'a str>,
    outcome: &'a str,
    detail: Option<&'a str>,
}

impl<'a> From<&'a AuditRow> for Record<'a> {
    fn from(it: &'a AuditRow) -> Self {
        Self {
            id: &it.id,
            at: Time::at(it.at).iso,
            actor: &it.actor,
            key_id: it.key_id.as_deref(),
            action: &it.action,
            object: &it.object,
            source: it.source.as_deref(),
            outcome: &it.outcome,
            detail: it.detail.as_deref(),
        }
    }
}

/// A line of a CSV file (RFC 4180).
fn line(it: &AuditRow) -> String {
    let at = Time::at(it.at).iso;
    let some = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let (key, source, detail) = (some(&it.key_id), some(&it.source), some(&it.detail));
    let cells = [&at, &it.actor, &key, &it.action, &it.object, &source, &it.outcome, &detail, &it.id];
    let mut line = cells.map(|text| cell(text)).join(",");
    line.push_str("\r\n");
    line
}

/// Spreadsheets take what begins with such a sign as a formula, even in quotes: a quote before it makes it a text. In countries whose separator is the
/// semicolon a cell begins within ours, whatever quotes stand around it.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for part in text.split_inclusive([';', '\t', '\n', '\r']) {
        if part.trim_start_matches([' ', '"']).starts_with(['=', '+', '-', '@', '\t', '\r']) {
            safe.push('\'');
        }
        safe.push_str(part);
    }
    if safe.contains([',', ';', '"', '\t', '\n', '\r']) { format!("\"{}\"", safe.replace('"', "\"\"")) } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_texts() {
        for (text, written) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-1,2", "\"'-1,2\""),
            ("+49", "'+49"),
            ("x;=1+1", "\"x;'=1+1\""),
            ("x;\"=1+1", "\"x;'\"\"=1+1\""),
            ("x; @a", "\"x;' @a\""),
            ("x\t-1", "\"x\t'-1\""),
            ("x\r\n+1", "\"x\r\n'+1\""),
            ("a;b=c-d", "\"a;b=c-d\""),
        ] {
            assert_eq!(cell(text), written);
        }
    }

    #[test]
    fn days_begin_at_midnight() {
        assert_eq!(day("1970-01-01"), Some(0));
        assert_eq!(day("2000-02-29"), Some(951_782_400_000));
        assert_eq!(day(" 2026-11-22 "), Some(1_795_305_600_000));
        for text in ["", "2026", "2026-13-01", "2026-00-01", "2026-01-32", "-1-1-1", "x-y-z", "99999-01-01"] {
            assert_eq!(day(text), None, "{text}");
        }
    }
}
