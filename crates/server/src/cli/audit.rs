//! `keyholder audit`: who did what.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::error::Result;
use super::output::{Cell, Out, Tint, text, utc};

/// How often `--follow` looks for more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Show who did what: hand-outs, calls, consents, changes, refusals
#[derive(Args)]
#[command(after_help = "Example:\n  keyholder audit --limit 50\n  keyholder audit --follow")]
pub(crate) struct Audit {
    /// How many of the newest entries
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Go on showing what happens, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        let mut items = entries(api.query(&["audit"], &[("limit", &self.limit.to_string())]).await?);
        // The newest come newest first; people read downwards.
        items.reverse();
        if !self.follow && out.json {
            return out.json(&json!({"items": items}));
        }
        show(out, &items)?;
        if !self.follow {
            return Ok(());
        }
        let mut last = items.last().map(|item| text(item, "id").to_owned());
        loop {
            out.clock().sleep(LOOK_EVERY).await;
            let mut query = vec![("limit", "200")];
            query.extend(last.as_deref().map(|last| ("after", last)));
            let mut more = entries(api.query(&["audit"], &query).await?);
            if last.is_none() {
                more.reverse();
            }
            show(out, &more)?;
            last = more.last().map(|item| text(item, "id").to_owned()).or(last);
        }
    }
}

fn entries(mut page: Value) -> Vec<Value> {
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
