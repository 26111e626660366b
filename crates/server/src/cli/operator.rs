//! `keyholder operator`: people who use the console.

use clap::Subcommand;
use serde_json::json;

use super::Context;
use super::error::Result;
use super::output::text;

/// Let people use the console
#[derive(Subcommand)]
#[command(after_help = "Example:\n  keyholder operator link\n  keyholder operator link --reset Anna")]
pub(crate) enum Operator {
    /// Make a link by which a person sets up a way to sign in, once and within an hour
    #[command(
        after_help = "Example:\n  keyholder operator link --scope read --scope manage --scope call\n  keyholder operator link --reset Anna"
    )]
    Link {
        /// What somebody new may do: read, manage, call, admin; may be repeated [default: admin]
        #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "reset")]
        scopes: Vec<String>,
        /// For this operator, by name or id, who chooses anew how to sign in
        #[arg(long, value_name = "OPERATOR")]
        reset: Option<String>,
    },
}

impl Operator {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        let Operator::Link { scopes, reset } = self;
        let made = api.post(&["operators", "links"], &json!({"scopes": scopes, "reset": reset})).await?;
        if out.json {
            return out.json(&made);
        }
        out.line(format!("To be opened once, within an hour: {}", text(&made, "url")))
    }
}
