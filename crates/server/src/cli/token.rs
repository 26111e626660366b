//! `keyholder token`: an access token, for a program that can't be given a Keyholder address.

use std::time::Duration;

use clap::Args;

use super::Context;
use super::error::Result;
use super::output::text;
use super::values::duration;

/// Print a connection's access token, and nothing else
#[derive(Args)]
#[command(
    after_help = "Example:\n  curl -H \"Authorization: Bearer $(keyholder token crm)\" https://api.example.com/contacts\n  keyholder token crm --min-ttl 5m --json"
)]
pub(crate) struct Token {
    /// Name or id
    connection: String,
    /// It must be valid for at least this long; it is renewed first if it isn't [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    min_ttl: Option<Duration>,
    /// A secondary token, by the name that the provider's definition gives it
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
}

impl Token {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let min_ttl = self.min_ttl.map(|ttl| ttl.as_secs().to_string());
        let given = [("min_ttl", min_ttl.as_deref()), ("token", self.token.as_deref())];
        let query: Vec<(&str, &str)> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let reply = context.api()?.query(&["connections", &self.connection, "token"], &query).await?;
        if context.out.json { context.out.json(&reply) } else { context.out.line(text(&reply, "access_token")) }
    }
}
