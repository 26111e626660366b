//! `keyholder key`: API keys of the programs that use Keyholder.

use std::time::Duration;

use clap::Subcommand;
use keyholder_broker::clock::millis;
use serde_json::{Value, json};

use super::Context;
use super::error::Result;
use super::output::{Cell, Tint, relative, text, words};
use super::values::duration;

/// Make, list and revoke API keys
#[derive(Subcommand)]
#[command(after_help = "Example:\n  keyholder key create nightly-job --scope token --connection crm --expires 90d")]
pub(crate) enum Key {
    /// Make a key; it is shown this once
    ///
    /// Scopes: read (see what there is), manage (change and authorise it), token (read access tokens), call (call APIs without
    /// seeing a token), admin (everything, keys and the audit too).
    #[command(
        after_help = "Example:\n  keyholder key create reporting --scope call --connection crm --method GET --path /v3/contacts"
    )]
    Create {
        /// Name, unique among the live keys
        name: String,
        /// What it may do: read, manage, token, call, admin; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// Only this connection; may be repeated
        #[arg(long = "connection", value_name = "CONNECTION")]
        connections: Vec<String>,
        /// Only this data source, and connections only through it; may be repeated
        #[arg(long = "source", value_name = "SOURCE")]
        sources: Vec<String>,
        /// Only API calls with this HTTP method; may be repeated
        #[arg(long = "method", value_name = "METHOD")]
        methods: Vec<String>,
        /// Only API calls to this path and below; may be repeated
        #[arg(long = "path", value_name = "PATH")]
        paths: Vec<String>,
        /// At most so many calls and hand-outs a second [default: no limit]
        #[arg(long, value_name = "CALLS")]
        per_second: Option<f64>,
        /// At most so many calls at the same time [default: no limit]
        #[arg(long, value_name = "CALLS")]
        concurrent: Option<u32>,
        /// It ends after this time: 12h, 90d [default: no end]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// List the keys
    #[command(after_help = "Example:\n  keyholder key list")]
    List,
    /// End a key; it stops working at once
    #[command(after_help = "Example:\n  keyholder key revoke nightly-job")]
    Revoke {
        /// Name or id
        key: String,
    },
}

impl Key {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        match self {
            Key::Create { name, scopes, connections, sources, methods, paths, per_second, concurrent, expires } => {
                let limits = json!({
                    "connections": connections, "sources": sources, "methods": methods, "paths": paths,
                    "per_second": per_second, "concurrent": concurrent,
                });
                let body = json!({
                    "name": name,
                    "scopes": scopes,
                    "limits": limits,
                    "expires_at": expires.map(|life| out.now_ms().saturating_add(millis(life))),
                });
                let made = api.post(&["keys"], &body).await?;
                if out.json {
                    return out.json(&made);
                }
                out.line(text(&made, "key"))?;
                super::note(
                    "This is the only time it is shown. Programs send it as `Authorization: Bearer …`; the commands read KEYHOLDER_API_KEY.",
                );
                Ok(())
            }
            Key::List => {
                let items = api.list(&["keys"], &[]).await?;
                if out.json {
                    return out.json(&json!({"items": items}));
                }
                let now = out.now_ms();
                let rows: Vec<Vec<Cell>> = items.iter().map(|key| row(key, now)).collect();
                out.table(&["NAME", "KEY", "SCOPES", "LIMITED TO", "LAST USED", "EXPIRES", "STATE"], &rows)
            }
            Key::Revoke { key } => {
                let revoked = api.delete(&["keys", &key]).await?;
                if out.json { out.json(&revoked) } else { out.line(format!("The key {key} no longer works.")) }
            }
        }
    }
}

fn row(key: &Value, now: i64) -> Vec<Cell> {
    let limits = &key["limits"];
    let count =
        |field: &str, unit: &str| limits[field].as_f64().map_or(String::new(), |calls| format!("{calls} {unit}"));
    let limits = [
        words(&limits["connections"]),
        words(&limits["sources"]),
        words(&limits["methods"]),
        words(&limits["paths"]),
        count("per_second", "a second"),
        count("concurrent", "at once"),
    ];
    let over = key["expires_at"].as_i64().is_some_and(|at| at <= now);
    let (state, tint) = match (key["revoked_at"].is_null(), over) {
        (false, _) => ("revoked", Tint::Dim),
        (true, true) => ("expired", Tint::Dim),
        (true, false) => ("live", Tint::Green),
    };
    let limits = limits.into_iter().filter(|limit| !limit.is_empty()).collect::<Vec<_>>().join("; ");
    vec![
        text(key, "name").into(),
        Cell::tinted(format!("{}…", text(key, "hint")), Tint::Dim),
        words(&key["scopes"]).into(),
        limits.into(),
        relative(&key["last_used_at"], now).into(),
        relative(&key["expires_at"], now).into(),
        Cell::tinted(state, tint),
    ]
}
