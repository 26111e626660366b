//! `keyholder seal`: which keys seal what is stored, and a new one.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::error::Result;
use super::output::Out;

/// See and change the keys that seal what is stored
#[derive(Subcommand)]
#[command(after_help = "Example:\n  keyholder seal status\n  keyholder seal rotate")]
pub(crate) enum Seal {
    Status(Status),
    Rotate(Rotate),
}

/// Show which data keys seal how many values
#[derive(Args)]
#[command(after_help = "Example:\n  keyholder seal status")]
pub(crate) struct Status {}

/// Make a new data key and seal everything anew with it, in the background
///
/// The server goes on working meanwhile; `seal status` shows how far it is. Stopped in between, it goes on at the next start.
#[derive(Args)]
#[command(after_help = "Example:\n  keyholder seal rotate")]
pub(crate) struct Rotate {}

impl Seal {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        let status = match self {
            Seal::Status(Status {}) => api.get(&["seal"]).await?,
            Seal::Rotate(Rotate {}) => api.post(&["seal", "rotate"], &json!({})).await?,
        };
        if out.json { out.json(&status) } else { show(out, &status) }
    }
}

fn show(out: &Out, status: &Value) -> Result {
    let newest = &status["newest"];
    out.line(format!("Data key {newest} seals."))?;
    for (key, count) in status["values"].as_object().into_iter().flatten() {
        out.line(format!("  data key {key}: {count} values"))?;
    }
    match status["left"].as_u64() {
        Some(0) | None => out.line("Nothing waits to be sealed anew."),
        Some(left) => out.line(format!("{left} values wait to be sealed anew; it happens in the background.")),
    }
}
