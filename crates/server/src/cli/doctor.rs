//! `keyholder doctor`: what is wrong with an installation, and what to do.

use clap::Args;
use serde_json::Value;

use super::Context;
use super::error::{CliError, Result};
use super::output::{Out, Tint, clean, text};

/// Say what is wrong with the server and its connections, and what to do
///
/// Exits 1 when there is a problem.
#[derive(Args)]
#[command(after_help = "Example:\n  keyholder doctor")]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let api = context.api()?;
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
