//! `keyholder doctor`: what is wrong with an installation, and what to do.

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::error::{CliError, Result};
use super::output::{Out, Tint, clean, text};

/// Say what is wrong with the server and its connections, and what to do
///
/// Exits 1 when there is a problem.
///
/// Two copies of a database (a restored backup, a cloned server) would spend each other's refresh tokens, so a copy is fenced until somebody says which
/// one is live: with --live here, or by leaving this one as it is.
#[derive(Args)]
#[command(after_help = "Example:\n  keyholder doctor\n  keyholder doctor --live")]
pub(crate) struct Doctor {
    /// Say that this copy of the database is the live one, and no other runs: lift its fence
    #[arg(long, conflicts_with = "retire")]
    live: bool,
    /// Say that this copy is not the live one: fence it, so that it renews nothing
    #[arg(long)]
    retire: bool,
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let api = context.api()?;
        if self.live || self.retire {
            let verb = if self.live { "live" } else { "retire" };
            return say(&context.out, &api.post(&["instance", verb], &json!({})).await?);
        }
        let report = api.get(&["doctor"]).await?;
        let out = &context.out;
        let checks = report["checks"].as_array().map_or(&[][..], Vec::as_slice);
        if out.json {
            out.json(&report)?;
        } else {
            out.line(format!("Keyholder at {}", api.base()))?;
            checks.iter().try_for_each(|check| show(out, check))?;
        }
        if checks.iter().any(|check| text(check, "verdict") == "problem") { Err(CliError::Said) } else { Ok(()) }
    }
}

fn say(out: &Out, instance: &Value) -> Result {
    if out.json {
        return out.json(instance);
    }
    let which = format!("cluster {}, epoch {}", clean(text(instance, "cluster")), instance["epoch"]);
    match &instance["fence"] {
        Value::Null => out.line(format!("This copy is the live one ({which}).")),
        fence => out.line(format!("Fenced, nothing is renewed ({which}): {}.", clean(text(fence, "message")))),
    }
}

fn show(out: &Out, check: &Value) -> Result {
    let (mark, tint) = match text(check, "verdict") {
        "ok" => ("✓", Tint::Green),
        "warning" => ("!", Tint::Yellow),
        _ => ("✗", Tint::Red),
    };
    let name = format!("{:<12}", clean(text(check, "name")));
    out.line(format!("{} {name} {}", out.paint(mark, tint), clean(text(check, "message"))))?;
    match text(check, "remedy") {
        "" => Ok(()),
        remedy => out.line(format!("  {:<12} {}", "", out.paint(&clean(remedy), Tint::Dim))),
    }
}
