//! `keyholder usage`: how often what was used.

use std::cmp::Reverse;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keyholder_broker::clock::millis;
use serde_json::{Value, json};

use super::Context;
use super::error::Result;
use super::output::{Cell, Tint, text, utc};
use super::values::duration;

/// What is summed up.
#[derive(Clone, Copy, ValueEnum)]
enum By {
    Connection,
    Caller,
    Source,
    Hour,
}

/// Show how often what was used: hand-outs, calls, renewals, errors, bytes, times
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder usage\n  keyholder usage --since 30d --by caller --connection crm\n  keyholder usage --by hour"
)]
pub(crate) struct Usage {
    /// The last so and so long, in whole hours: 6h, 30d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    since: Duration,
    /// Sum up by this
    #[arg(long, value_enum, default_value_t = By::Connection)]
    by: By,
    /// Only of this connection (name or id)
    #[arg(long, value_name = "CONNECTION")]
    connection: Option<String>,
    /// Only by this API key (name or id)
    #[arg(long, value_name = "KEY")]
    caller: Option<String>,
}

impl Usage {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        let (by, head) = match self.by {
            By::Connection => ("connection", "CONNECTION"),
            By::Caller => ("caller", "CALLER"),
            By::Source => ("source", "DATA SOURCE"),
            By::Hour => ("hour", "HOUR"),
        };
        let from = out.now_ms().saturating_sub(millis(self.since)).to_string();
        let mut query = vec![("by", by), ("from", from.as_str())];
        query.extend(self.connection.as_deref().map(|connection| ("connection", connection)));
        query.extend(self.caller.as_deref().map(|caller| ("caller", caller)));
        let mut items = api.list(&["usage"], &query).await?;
        if out.json {
            return out.json(&json!({"items": items}));
        }
        if !matches!(self.by, By::Hour) {
            items.sort_by_key(|item| Reverse(count(item, "calls").saturating_add(count(item, "hand_outs"))));
        }
        let rows: Vec<Vec<Cell>> = items.iter().map(|item| row(item, self.by)).collect();
        let head = [head, "HAND-OUTS", "CALLS", "4XX", "5XX", "FAILED", "RENEWALS", "SENT", "RECEIVED", "P50", "P99"];
        out.table(&head, &rows)
    }
}

fn count(item: &Value, member: &str) -> i64 {
    item[member].as_i64().unwrap_or(0)
}

fn row(item: &Value, by: By) -> Vec<Cell> {
    let of = match by {
        By::Hour => utc(&text(item, "of").parse::<i64>().unwrap_or(0).into()),
        _ => match (text(item, "name"), text(item, "of")) {
            ("", "") if matches!(by, By::Caller) => "(Keyholder)".to_owned(),
            ("", "") => "(none)".to_owned(),
            ("", id) => id.to_owned(),
            (name, _) => name.to_owned(),
        },
    };
    // What is none leaves its place empty, and a column without any goes.
    let number = |number: i64| if number == 0 { String::new() } else { number.to_string() };
    let error = |member: &str| Cell::tinted(number(count(&item["errors"], member)), Tint::Red);
    let time = |member: &str| item["took"][member].as_f64().map(milliseconds).unwrap_or_default();
    vec![
        of.into(),
        number(count(item, "hand_outs")).into(),
        number(count(item, "calls")).into(),
        error("client"),
        error("server"),
        error("keyholder"),
        number(count(item, "renewals")).into(),
        bytes(count(item, "bytes_sent")).into(),
        bytes(count(item, "bytes_received")).into(),
        time("p50").into(),
        time("p99").into(),
    ]
}

fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// `1.4 MB`; empty for none.
fn bytes(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return if bytes == 0 { String::new() } else { format!("{bytes} B") };
    }
    let (mut size, mut unit) = (bytes as f64 / 1000.0, 0);
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        let shown = [0, 999, 1000, 1_449_000, 999_949, 999_960, 5_000_000_000].map(bytes);
        assert_eq!(shown, ["", "999 B", "1.0 kB", "1.4 MB", "999.9 kB", "1.0 MB", "5.0 GB"]);
    }
}
