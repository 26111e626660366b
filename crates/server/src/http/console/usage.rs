//! Usage: how much of what, over time and by whom.

use std::iter::zip;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::store::{Figures, UsageGroup};
use keyholder_broker::{Page, UsageFilter, UsageLine};
use serde::Deserialize;

use super::super::App;
use super::super::input::{InQuery, PageQuery, cut};
use super::super::problem::ApiError;
use super::chart::{Svg, bars};
use super::forms::{Field, Time};
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

const HOUR: i64 = 3_600_000;
/// Longest time that is drawn, in hours.
const LONGEST: i64 = 400 * 24;
/// Most bars of a chart.
const BARS: i64 = 48;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::http) struct Query {
    /// Hours up to now; `from` and `to` go before.
    hours: String,
    from: Option<i64>,
    to: Option<i64>,
    by: String,
    connection: String,
    caller: String,
    after: String,
}

/// First hour, and the one behind the last, since 1970.
fn span(query: &Query, now: i64) -> (i64, i64) {
    let to = query.to.unwrap_or(now).clamp(0, now + HOUR).div_euclid(HOUR) + 1;
    let hours = query.hours.parse().unwrap_or(24);
    let from = query.from.map_or(to.saturating_sub(hours), |from| from.div_euclid(HOUR));
    (from.clamp(to - LONGEST, to - 1), to)
}

/// How many hours a bar stands for.
fn width(hours: i64) -> i64 {
    let widths = [1, 3, 6, 12, 24, 7 * 24, 30 * 24];
    widths.into_iter().find(|width| parts(hours, *width) <= BARS).unwrap_or(30 * 24)
}

/// How many parts of this size cover so many hours.
fn parts(hours: i64, size: i64) -> i64 {
    (hours + size - 1) / size
}

#[derive(Template)]
#[template(path = "console/usage.html")]
struct View<'a> {
    page: Frame<'a>,
    fields: Vec<Field>,
    charts: Vec<Chart>,
    what: &'static str,
    rows: Vec<Row>,
    next: Option<String>,
    from: Time,
    to: Time,
    is_empty: bool,
}

/// A chart and its figures.
struct Chart {
    id: &'static str,
    title: &'static str,
    /// What it shows, in a sentence.
    sum: String,
    /// Colours, and what they mean.
    keys: Vec<(&'static str, &'static str)>,
    svg: Svg,
    rows: Vec<(Time, Vec<String>)>,
}

/// What one of them used.
struct Row {
    name: String,
    href: Option<String>,
    cells: Vec<(&'static str, String)>,
}

/// `GET /console/usage`.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InQuery(query): InQuery<Query>,
) -> Result<Response, ApiError> {
    let (from, to) = span(&query, app.broker.now_ms());
    let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let filter = UsageFilter {
        from: from * HOUR,
        to: (to - 1) * HOUR,
        connection: some(&query.connection),
        caller: some(&query.caller),
        source: None,
    };
    let all = Page { after: String::new(), limit: LONGEST };
    let hours = app.broker.usage(&person.caller, filter.clone(), UsageGroup::Hour, &all).await?.lines;
    let (what, group) = group(&query.by);
    let page = PageQuery::new(some(&query.after), None).page()?;
    let lines = app.broker.usage(&person.caller, filter, group, &page).await?.lines;
    let (lines, next) = cut(lines, &page, |line| line.of.clone());
    let template = View {
        page: frame(&app, &person, Menu::Usage).await,
        fields: fields(&query, what),
        charts: charts(&columns(&hours, from, to)),
        what,
        rows: lines.into_iter().map(|line| row(line, group, &query)).collect(),
        next: next.map(|after| here(&query, &[("after", &after)])),
        from: Time::at(from * HOUR),
        to: Time::at(to * HOUR),
        is_empty: hours.is_empty(),
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}

fn group(by: &str) -> (&'static str, UsageGroup) {
    match by {
        "caller" => ("caller", UsageGroup::Caller),
        "source" => ("source", UsageGroup::Source),
        _ => ("connection", UsageGroup::Connection),
    }
}

fn fields(query: &Query, what: &'static str) -> Vec<Field> {
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(value, label)| ((*value).to_owned(), (*label).to_owned())).collect::<Vec<_>>()
    };
    let given = [("", "as the link says")];
    let ranges = [("24", "24 hours"), ("168", "7 days"), ("720", "30 days"), ("8760", "a year")];
    let ranges = if query.from.is_some() { [&given[..], &ranges[..]].concat() } else { ranges.to_vec() };
    let hours = if query.hours.is_empty() && query.from.is_none() { "24" } else { &query.hours };
    vec![
        Field::text("hours", "Time", "").value(hours).choices(pairs(&ranges)),
        Field::text("by", "Summed up by", "").value(what).choices(pairs(&[
            ("connection", "connection"),
            ("caller", "caller"),
            ("source", "data source"),
        ])),
        Field::text("connection", "Only the connection", "").value(&query.connection).example("name or id"),
        Field::text("caller", "Only the caller", "").value(&query.caller).example("name or id"),
    ]
}

/// This page with other parameters; an empty one is taken away.
fn here(query: &Query, other: &[(&str, &str)]) -> String {
    let number = |it: Option<i64>| it.map(|it| it.to_string()).unwrap_or_default();
    let (from, to) = (number(query.from), number(query.to));
    let own = [
        ("hours", query.hours.as_str()),
        ("from", &from),
        ("to", &to),
        ("by", &query.by),
        ("connection", &query.connection),
        ("caller", &query.caller),
    ];
    let kept = own.into_iter().filter(|(name, _)| !other.iter().any(|(it, _)| it == name));
    places::with(places::USAGE, &kept.chain(other.iter().copied()).collect::<Vec<_>>())
}

fn row(line: UsageLine, group: UsageGroup, query: &Query) -> Row {
    let UsageLine { of, name, figures } = line;
    let href = match group {
        _ if of.is_empty() => None,
        UsageGroup::Connection => Some(places::connection(&of)),
        UsageGroup::Caller => Some(here(query, &[("caller", &of), ("by", "connection")])),
        _ => Some(places::source(&of)),
    };
    let alone = if group == UsageGroup::Caller { "Keyholder itself" } else { "no data source" };
    let name = name.unwrap_or_else(|| if of.is_empty() { alone.to_owned() } else { of.clone() });
    let errors = figures.client_errors + figures.server_errors + figures.own_errors;
    let cells = vec![
        ("Tokens", figures.hand_outs.to_string()),
        ("Calls", figures.calls.to_string()),
        ("Errors", errors.to_string()),
        ("Renewals", figures.renewals.to_string()),
        ("Failed", figures.failed_renewals.to_string()),
        ("Median", took(&figures, 50)),
        ("99 of 100", took(&figures, 99)),
    ];
    Row { name, href, cells }
}

fn took(figures: &Figures, percent: u32) -> String {
    figures.took_ms(percent).map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0} ms"))
}

/// Sums for each bar, with its beginning.
fn columns(hours: &[UsageLine], from: i64, to: i64) -> Vec<(i64, Figures)> {
    let width = width(to - from);
    let mut columns: Vec<_> =
        (0..parts(to - from, width)).map(|at| ((from + at * width) * HOUR, Figures::default())).collect();
    for line in hours {
        let Ok(at) = line.of.parse::<i64>() else { continue };
        let place = usize::try_from((at.div_euclid(HOUR) - from) / width).unwrap_or(usize::MAX);
        if let Some((_, sum)) = columns.get_mut(place) {
            add(sum, &line.figures);
        }
    }
    columns
}

fn add(sum: &mut Figures, more: &Figures) {
    sum.hand_outs += more.hand_outs;
    sum.calls += more.calls;
    sum.renewals += more.renewals;
    sum.failed_renewals += more.failed_renewals;
    sum.client_errors += more.client_errors;
    sum.server_errors += more.server_errors;
    sum.own_errors += more.own_errors;
    for (sum, more) in zip(&mut sum.took, &more.took) {
        *sum += more;
    }
}

fn charts(columns: &[(i64, Figures)]) -> Vec<Chart> {
    let total = |of: fn(&Figures) -> i64| columns.iter().map(|(_, figures)| of(figures)).sum::<i64>();
    let mut all = Figures::default();
    columns.iter().for_each(|(_, figures)| add(&mut all, figures));
    let times = [50, 90, 99].map(|percent| took(&all, percent));
    vec![
        chart("calls", "Calls", format!("{} calls.", total(|it| it.calls)), &[("accent", "calls")], columns, |it| {
            vec![it.calls]
        }),
        chart(
            "tokens",
            "Tokens handed out",
            format!("{} tokens.", total(|it| it.hand_outs)),
            &[("accent", "tokens")],
            columns,
            |it| vec![it.hand_outs],
        ),
        chart(
            "renewals",
            "Renewals",
            format!("{} renewals, and {} that failed.", total(|it| it.renewals), total(|it| it.failed_renewals)),
            &[("good", "good"), ("bad", "failed")],
            columns,
            |it| vec![it.renewals, it.failed_renewals],
        ),
        chart(
            "errors",
            "Errors",
            format!("{} calls came to nothing.", total(|it| it.client_errors + it.server_errors + it.own_errors)),
            &[("warn", "API said 4xx"), ("bad", "API said 5xx"), ("quiet", "no answer")],
            columns,
            |it| vec![it.client_errors, it.server_errors, it.own_errors],
        ),
        latency(format!("Half of the calls took up to {}, 99 of 100 up to {}.", times[0], times[2]), columns),
    ]
}

fn chart(
    id: &'static str,
    title: &'static str,
    sum: String,
    keys: &[(&'static str, &'static str)],
    columns: &[(i64, Figures)],
    parts: fn(&Figures) -> Vec<i64>,
) -> Chart {
    let values =
        |figures: &Figures| parts(figures).into_iter().map(|part| part.max(0).cast_unsigned()).collect::<Vec<u64>>();
    let drawn: Vec<_> = columns.iter().map(|(at, figures)| (label(*at), values(figures))).collect();
    let rows = columns.iter().map(|(at, figures)| (Time::at(*at), parts(figures).iter().map(i64::to_string).collect()));
    Chart { id, title, sum, keys: keys.to_vec(), svg: bars(&drawn, &colors(keys)), rows: rows.collect() }
}

/// Each bar's steps are at the median, at 90 and at 99 of 100.
fn latency(sum: String, columns: &[(i64, Figures)]) -> Chart {
    let percents = [50, 90, 99];
    let drawn: Vec<_> = columns
        .iter()
        .map(|(at, figures)| {
            let mut before = 0;
            let steps = percents.map(|percent| {
                let ms = figures.took_ms(percent).unwrap_or(0.0).round().max(0.0) as u64;
                let step = ms.saturating_sub(before);
                before = before.max(ms);
                step
            });
            (label(*at), steps.to_vec())
        })
        .collect();
    let rows =
        columns.iter().map(|(at, figures)| (Time::at(*at), percents.map(|percent| took(figures, percent)).to_vec()));
    let keys = vec![("accent", "half"), ("warn", "90 of 100"), ("bad", "99 of 100")];
    let svg = bars(&drawn, &colors(&keys));
    Chart { id: "latency", title: "Time until the reply, ms", sum, keys, svg, rows: rows.collect() }
}

fn colors(keys: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    keys.iter().map(|(color, _)| *color).collect()
}

/// `22 Nov, 19:00`
fn label(at: i64) -> String {
    let text = Time::at(at).text;
    let mut parts = text.split_whitespace();
    let (day, month) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let hour = parts.nth(1).unwrap_or_default();
    format!("{day} {}, {hour}", month.get(..3).unwrap_or(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_drawn_in_few_bars() {
        for (hours, wide) in [(1, 1), (48, 1), (49, 3), (168, 6), (720, 24), (8760, 720), (LONGEST, 720)] {
            assert_eq!(width(hours), wide, "{hours}");
        }
        let now = 1000 * HOUR + 5;
        let of = |hours: &str, from, to| span(&Query { hours: hours.to_owned(), from, to, ..Query::default() }, now);
        assert_eq!(of("", None, None), (977, 1001));
        assert_eq!(of("168", None, None), (833, 1001));
        assert_eq!(of("", Some(900 * HOUR), Some(910 * HOUR)), (900, 911));
        // Nonsense shows little rather than nothing.
        assert_eq!(of("", Some(i64::MAX), Some(0)), (0, 1));
        assert_eq!(of("-5", None, None), (1000, 1001));
        assert_eq!(of("999999999", None, None), (1001 - LONGEST, 1001));
    }

    #[test]
    fn hours_are_summed_into_bars() {
        let line = |hour: i64, calls| UsageLine {
            of: (hour * HOUR).to_string(),
            name: None,
            figures: Figures { calls, ..Figures::default() },
        };
        let columns = columns(&[line(100, 1), line(102, 2), line(103, 4), line(400, 9)], 100, 200);
        let calls: Vec<_> = columns.iter().map(|(at, figures)| (at / HOUR, figures.calls)).collect();
        assert_eq!((calls.len(), calls[0], calls[1]), (34, (100, 3), (103, 4)));
        assert_eq!(label(1_795_374_641_999), "22 Nov, 19:10");
    }
}
