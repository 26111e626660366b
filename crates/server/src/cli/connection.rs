//! `keyholder connection`: authorised grants.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Context;
use super::api::Api;
use super::error::{CliError, Result};
use super::output::{Cell, Out, Tint, clean, pairs, relative, state, text, utc};
use super::values::{object, pair, secret_from_stdin, secret_from_terminal};

/// Manage connections
#[derive(Subcommand)]
#[command(after_help = "Example:\n  keyholder connection list\n  keyholder connection test crm")]
pub(crate) enum Connection {
    Add(Add),
    /// List the connections and how they are
    #[command(after_help = "Example:\n  keyholder connection list --state reconnect")]
    List {
        /// Only of this integration
        #[arg(long, value_name = "INTEGRATION")]
        integration: Option<String>,
        /// Only in this state: draft, pending, connected, failing, reconnect or revoked
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Only of this owner
        #[arg(long, value_name = "OWNER")]
        owner: Option<String>,
    },
    /// Show a connection: its state, the reason, and what to do
    #[command(after_help = "Example:\n  keyholder connection show crm")]
    Show(Named),
    Edit(Edit),
    /// Test a connection step by step, and say what is probably wrong. Exits 1 when a step fails
    #[command(after_help = "Example:\n  keyholder connection test crm --verbose")]
    Test(Test),
    /// Renew the token now
    #[command(after_help = "Example:\n  keyholder connection refresh crm")]
    Refresh(Named),
    /// Give up an authorization that is under way: its links and codes are worth nothing afterwards
    #[command(after_help = "Example:\n  keyholder connection cancel crm")]
    Cancel(Named),
    /// End a connection, at the provider too
    #[command(after_help = "Example:\n  keyholder connection revoke crm")]
    Revoke(Named),
    /// End a connection and remove it
    #[command(after_help = "Example:\n  keyholder connection rm crm")]
    Rm(Named),
    /// Show what happened to a connection
    #[command(after_help = "Example:\n  keyholder connection history crm")]
    History(Named),
}

#[derive(Args)]
pub(crate) struct Named {
    /// Name or id
    connection: String,
}

#[derive(Args)]
pub(crate) struct Test {
    /// Name or id
    connection: String,
    #[command(flatten)]
    how: TestHow,
}

/// How a connection or a data source is tested.
#[derive(Args)]
pub(crate) struct TestHow {
    /// Treat the token in hand as if it had expired: renew it, which may use up a refresh token, and go on with the new one
    #[arg(long)]
    pub(crate) renew: bool,
    /// Show what was sent and answered, without secrets
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// Add a connection; a grant that needs no person is run at once
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder connection add crm --integration crm\n  pass show intranet | keyholder connection add intranet --integration intranet --username ada --password-stdin"
)]
pub(crate) struct Add {
    /// Name, unique
    name: String,
    /// The integration it stands under
    #[arg(long, value_name = "INTEGRATION")]
    integration: String,
    /// Who the grant belongs to, in your words
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// User name at the provider, for the password grant
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input; without this it is asked for on the terminal
    #[arg(long)]
    password_stdin: bool,
    /// Value for one of the provider's variables; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// What would be asked to choose after connecting; may be repeated
    #[arg(long = "choose", value_name = "NAME=VALUE", value_parser = pair)]
    choices: Vec<(String, String)>,
    /// Label of your own; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = pair)]
    tags: Vec<(String, String)>,
    /// Do not run the grant
    #[arg(long)]
    no_authorize: bool,
}

/// Change what a connection was told
#[derive(Args)]
#[command(after_help = "Example:\n  pass show intranet | keyholder connection edit intranet --password-stdin")]
pub(crate) struct Edit {
    /// Name or id
    connection: String,
    /// New user name at the provider
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Read the new password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// New value of a variable, an empty one takes it away; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// New choice of what is asked after connecting, an empty one takes it away; may be repeated
    #[arg(long = "choose", value_name = "NAME=VALUE", value_parser = pair)]
    choices: Vec<(String, String)>,
}

impl Connection {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        match self {
            Connection::Add(add) => add.run(&api, out).await,
            Connection::List { integration, state, owner } => {
                let filters = [("integration", integration), ("state", state), ("owner", owner)];
                let query: Vec<(&str, &str)> =
                    filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
                list(out, api.list(&["connections"], &query).await?, !query.is_empty())
            }
            Connection::Show(Named { connection }) => {
                let shown = api.get(&["connections", &connection]).await?;
                if out.json { out.json(&shown) } else { show(out, &shown) }
            }
            Connection::Edit(edit) => {
                let changed = api.patch(&["connections", &edit.connection], &edit.body()?).await?;
                if out.json { out.json(&changed) } else { show(out, &changed) }
            }
            Connection::Test(Test { connection, how }) => {
                let report = api.post(&["connections", &connection, "test"], &json!({"renew": how.renew})).await?;
                tell_test(out, &report, how.verbose)
            }
            Connection::Refresh(Named { connection }) => {
                let reply = api.post(&["connections", &connection, "refresh"], &json!({})).await?;
                if out.json {
                    return out.json(&reply);
                }
                let expires = relative(&reply["expires_at"], out.now_ms());
                let expires = if expires.is_empty() { String::new() } else { format!("; it expires {expires}") };
                out.line(format!("{connection} has a new token, generation {}{expires}.", reply["generation"]))
            }
            Connection::Cancel(Named { connection }) => {
                let shown = api.post(&["connections", &connection, "cancel"], &json!({})).await?;
                if out.json {
                    return out.json(&shown);
                }
                out.line(format!(
                    "No authorization of {connection} is under way any more; it is {}.",
                    clean(text(&shown, "state"))
                ))
            }
            Connection::Revoke(Named { connection }) => {
                let reply = api.post(&["connections", &connection, "revoke"], &json!({})).await?;
                if out.json {
                    return out.json(&reply);
                }
                out.line(format!("{connection} is revoked. {}", clean(text(&reply["revocation"], "message"))))
            }
            Connection::Rm(Named { connection }) => {
                api.delete(&["connections", &connection]).await?;
                if out.json { Ok(()) } else { out.line(format!("The connection {connection} is gone.")) }
            }
            Connection::History(Named { connection }) => {
                let history = api.get(&["connections", &connection, "events"]).await?;
                if out.json { out.json(&history) } else { tell_history(out, &history) }
            }
        }
    }
}

impl Add {
    async fn run(self, api: &Api, out: &Out) -> Result {
        let password = match (&self.username, self.password_stdin) {
            (_, true) => Some(secret_from_stdin()?),
            (Some(_), false) => Some(secret_from_terminal("Password: ")?.ok_or_else(no_password)?),
            (None, false) => None,
        };
        let body = json!({
            "name": self.name,
            "integration": self.integration,
            "owner": self.owner,
            "username": self.username,
            "password": password,
            "variables": object(&self.variables),
            "choices": object(&self.choices),
            "tags": object(&self.tags),
        });
        let added = api.post(&["connections"], &body).await?;
        let integration = api.get(&["integrations", text(&added, "integration")]).await?;
        let for_a_person =
            matches!(text(&integration, "grant"), "authorization_code" | "device_code" | "refresh_token");
        if for_a_person || self.no_authorize {
            if out.json {
                return out.json(&added);
            }
            out.line(format!("The connection {} is there, nothing is authorised yet.", self.name))?;
            return out.line(format!("Next: keyholder connect {} --connection {}", self.integration, self.name));
        }
        authorize_machine(api, out, &self.name).await
    }
}

fn no_password() -> CliError {
    CliError::Usage("the password is missing; pipe it in with --password-stdin".to_owned())
}

/// Runs a grant that needs no person, and tells what came of it.
pub(crate) async fn authorize_machine(api: &Api, out: &Out, connection: &str) -> Result {
    api.post(&["connections", connection, "authorize"], &json!({})).await?;
    let shown = api.get(&["connections", connection]).await?;
    tell_connected(out, &shown)
}

/// A connection that was just connected.
pub(crate) fn tell_connected(out: &Out, connection: &Value) -> Result {
    if out.json {
        return out.json(connection);
    }
    let name = clean(text(connection, "name"));
    let account = match text(connection, "account") {
        "" => String::new(),
        account => format!(" as {}", clean(account)),
    };
    out.line(format!("{} {name} is connected{account}.", out.paint("✓", Tint::Green)))?;
    out.line(format!("Try: keyholder call {name} PATH, or keyholder token {name}"))
}

impl Edit {
    fn body(&self) -> Result<Value> {
        let mut body = Map::new();
        body.extend(self.username.as_ref().map(|name| ("username".to_owned(), json!(name))));
        if self.password_stdin {
            body.insert("password".to_owned(), json!(secret_from_stdin()?));
        }
        if !self.variables.is_empty() {
            body.insert("variables".to_owned(), object(&self.variables));
        }
        if !self.choices.is_empty() {
            body.insert("choices".to_owned(), object(&self.choices));
        }
        if body.is_empty() {
            return Err(CliError::Usage("say what shall change; see `keyholder connection edit --help`".to_owned()));
        }
        Ok(Value::Object(body))
    }
}

fn list(out: &Out, items: Vec<Value>, filtered: bool) -> Result {
    if out.json {
        return out.json(&json!({"items": items}));
    }
    if items.is_empty() && filtered {
        return out.line("No connection fits.");
    }
    if items.is_empty() {
        return out.line("There are no connections. Make one with `keyholder connect INTEGRATION`.");
    }
    let now = out.now_ms();
    let row = |it: &Value| {
        vec![
            text(it, "name").into(),
            state(it),
            text(it, "integration").into(),
            text(it, "owner").into(),
            text(it, "account").into(),
            relative(&it["expires_at"], now).into(),
            Cell::tinted(text(&it["failure"], "message"), Tint::Dim),
        ]
    };
    let rows: Vec<Vec<Cell>> = items.iter().map(row).collect();
    out.table(&["NAME", "STATE", "INTEGRATION", "OWNER", "ACCOUNT", "EXPIRES", "REASON"], &rows)
}

fn show(out: &Out, it: &Value) -> Result {
    let now = out.now_ms();
    let failure = &it["failure"];
    let generation = it["generation"].as_i64().filter(|generation| *generation > 0);
    out.facts(&[
        ("name", Cell::tinted(text(it, "name"), Tint::Bold)),
        ("state", state(it)),
        ("reason", text(failure, "message").into()),
        ("what to do", Cell::tinted(text(failure, "remedy"), Tint::Bold)),
        ("tried again", relative(&failure["next_try_at"], now).into()),
        ("id", text(it, "id").into()),
        (
            "integration",
            format!("{} ({}, {})", text(it, "integration"), text(it, "provider"), text(it, "method")).into(),
        ),
        ("owner", text(it, "owner").into()),
        ("account", text(it, "account").into()),
        ("user name", text(it, "username").into()),
        ("scope", text(it, "scope").into()),
        ("token expires", relative(&it["expires_at"], now).into()),
        ("renewed", relative(&it["renewed_at"], now).into()),
        ("next renewal", relative(&it["next_renewal_at"], now).into()),
        ("ends", relative(&it["dies_at"], now).into()),
        ("generation", generation.map_or(String::new(), |generation| generation.to_string()).into()),
        ("variables", pairs(&it["variables"]).into()),
        ("learnt", pairs(&it["learnt"]).into()),
        ("tags", pairs(&it["tags"]).into()),
        ("connected", relative(&it["connected_at"], now).into()),
        ("made", relative(&it["created_at"], now).into()),
    ])
}

pub(crate) fn tell_test(out: &Out, report: &Value, verbose: bool) -> Result {
    if out.json {
        out.json(report)?;
    } else {
        for step in items(&report["steps"]) {
            tell_step(out, step, verbose)?;
        }
    }
    if report["ok"] == true { Ok(()) } else { Err(CliError::Said) }
}

fn tell_step(out: &Out, step: &Value, verbose: bool) -> Result {
    let (mark, tint) = if step["ok"] == true { ("✓", Tint::Green) } else { ("✗", Tint::Red) };
    let name = format!("{:<9}", clean(text(step, "name")));
    out.line(format!("{} {name} {}", out.paint(mark, tint), clean(text(step, "message"))))?;
    if !text(step, "cause").is_empty() {
        out.line(format!("            Probable cause: {}", clean(text(step, "cause")).replace('_', " ")))?;
    }
    if !text(step, "remedy").is_empty() {
        out.line(format!("            {}", out.paint(&clean(text(step, "remedy")), Tint::Dim)))?;
    }
    let exchanges = items(&step["exchanges"]).filter(|_| verbose);
    exchanges.into_iter().try_for_each(|exchange| tell_exchange(out, exchange))
}

/// As it went over the wire: the request, an empty line, the reply.
fn tell_exchange(out: &Out, exchange: &Value) -> Result {
    let (request, reply) = (&exchange["request"], &exchange["reply"]);
    for (mark, message) in [(">", request), ("<", reply)] {
        let headers = items(&message["headers"]).map(|it| format!("{}: {}", text(it, "name"), text(it, "value")));
        let body = text(message, "body").lines().map(str::to_owned);
        let more = (message["truncated"] == true).then(|| "…".to_owned());
        let lines = std::iter::once(text(message, "line").to_owned()).filter(|line| !line.is_empty());
        for line in lines.chain(headers).chain(body).chain(more) {
            out.line(format!("    {}", out.paint(&format!("{mark} {}", clean(&line)), Tint::Dim)))?;
        }
    }
    if !text(exchange, "failure").is_empty() {
        out.line(format!("    {}", out.paint(&format!("! {}", clean(text(exchange, "failure"))), Tint::Dim)))?;
    }
    Ok(())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn tell_history(out: &Out, history: &Value) -> Result {
    let row = |event: &Value| {
        vec![Cell::tinted(utc(&event["at"]), Tint::Dim), text(event, "kind").into(), text(event, "message").into()]
    };
    let rows: Vec<Vec<Cell>> = history["items"].as_array().into_iter().flatten().map(row).collect();
    out.table(&["AT", "WHAT", ""], &rows)
}
