//! `keyholder audit`: who did what.

use std::time::Duration;

use clap::Args;
use keyholder_broker::clock::millis;
use serde_json::{Value, json};

use super::Context;
use super::error::Result;
use super::output::{Cell, Out, Tint, text, utc};
use super::values::duration;

/// How often `--follow` looks for more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Show who did what: hand-outs, calls, consents, changes, refusals
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder audit --limit 50\n  keyholder audit --follow --connection crm\n  keyholder audit --caller nightly-job --action proxy.call --since 2h"
)]
pub(crate) struct Audit {
    /// How many of the newest entries
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Go on showing what happens, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only by this API key (name or id), or by `person`
    #[arg(long, value_name = "KEY")]
    caller: Option<String>,
    /// Only on this connection (name or id), or on anything else, by its id
    #[arg(long, value_name = "CONNECTION")]
    connection: Option<String>,
    /// Only this action, or all below it: token.read, proxy.call, connection
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only what was refused
    #[arg(long)]
    refused: bool,
    /// Only the last so and so long: 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        let since = self.since.map(|since| out.now_ms().saturating_sub(millis(since)).to_string());
        let filter = self.filter(since.as_deref());
        let limit = self.limit.to_string();
        let mut page = api.query(&["audit"], &[filter.as_slice(), &[("limit", &limit)]].concat()).await?;
        let mut items = entries(&mut page);
        // With filters a page may end before it is full.
        while let Some(older) = page["older"].as_str().filter(|_| items.len() < usize::from(self.limit)) {
            let rest = (usize::from(self.limit) - items.len()).to_string();
            let query = [filter.as_slice(), &[("limit", &rest), ("before", older)]].concat();
            let mut more = api.query(&["audit"], &query).await?;
            items.extend(entries(&mut more));
            page["older"] = more["older"].take();
        }
        // The newest come newest first; people read downwards.
        items.reverse();
        if !self.follow && out.json {
            return out.json(&json!({"items": items}));
        }
        show(out, &items)?;
        if !self.follow {
            return Ok(());
        }
        let mut seen = page["next"].as_str().map(str::to_owned);
        loop {
            out.clock().sleep(LOOK_EVERY).await;
            let mut query = [filter.as_slice(), &[("limit", "200"), ("order", "oldest")]].concat();
            query.extend(seen.as_deref().map(|seen| ("after", seen)));
            let mut page = api.query(&["audit"], &query).await?;
            show(out, &entries(&mut page))?;
            seen = page["next"].as_str().map(str::to_owned).or(seen);
        }
    }

    fn filter<'a>(&'a self, since: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
        let given = [
            ("caller", self.caller.as_deref()),
            ("connection", self.connection.as_deref()),
            ("action", self.action.as_deref()),
            ("outcome", self.refused.then_some("refused")),
            ("since", since),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

fn entries(page: &mut Value) -> Vec<Value> {
    match page["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// One line an entry, so that what follows stands under what came before.
fn show(out: &Out, items: &[Value]) -> Result {
    for item in items {
        if out.json {
            out.line(item.to_string())?;
            continue;
        }
        let outcome = Cell::tinted(
            format!("{:<8}", text(item, "outcome")),
            if text(item, "outcome") == "ok" { Tint::Green } else { Tint::Red },
        );
        let cells = [
            Cell::tinted(utc(&item["at"]), Tint::Dim),
            outcome,
            format!("{:<20}", text(item, "actor")).into(),
            format!("{:<22}", text(item, "action")).into(),
            text(item, "object").into(),
            text(item, "detail").into(),
        ];
        out.line(out.row(&cells))?;
    }
    Ok(())
}
