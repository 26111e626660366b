//! `keyholder source`: named APIs reached through connections.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Context;
use super::api::Api;
use super::connection::{TestHow, tell_test};
use super::error::{CliError, Result};
use super::output::{Cell, Out, Tint, clean, note, pairs, relative, text, words};
use super::values::{object, pair, secret_from_stdin};

/// Manage data sources: named APIs with saved requests, reached through connections
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  keyholder source add contacts --connection crm --base-url https://api.example.com/v3 --request 'one=GET /contacts/{{id}}'\n  keyholder source run contacts one --var id=42"
)]
pub(crate) enum Source {
    Add(Add),
    /// List the data sources
    #[command(after_help = "Example:\n  keyholder source list")]
    List,
    /// Show a data source with its requests
    #[command(after_help = "Example:\n  keyholder source show contacts")]
    Show {
        /// Name or id
        source: String,
    },
    Edit(Edit),
    Run(Run),
    /// Test a data source step by step, and say what is probably wrong. Exits 1 when a step fails
    #[command(after_help = "Example:\n  keyholder source test contacts")]
    Test {
        /// Name or id
        source: String,
        /// Whose connection is meant, where each caller uses its own
        #[arg(long, value_name = "OWNER")]
        owner: Option<String>,
        #[command(flatten)]
        how: TestHow,
    },
    /// Remove a data source; its connection stays
    #[command(after_help = "Example:\n  keyholder source rm contacts")]
    Rm {
        /// Name or id
        source: String,
    },
}

/// Add a data source
///
/// With --file its JSON body comes from a file, as `POST /v1/data-sources` takes it and `source show --json` prints it; flags are put over it. In a file, connection and integration may be objects:
/// they are made with the data source, all or nothing.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder source add contacts --connection crm --base-url https://api.example.com/v3 \\\n      --health /me --request 'one=GET /contacts/{{id}}' --allow 'GET /contacts/**'\n  keyholder source add contacts --file contacts.json"
)]
pub(crate) struct Add {
    /// Name, unique
    name: String,
    #[command(flatten)]
    fields: Fields,
}

/// Change a data source; what is not named stays
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder source edit contacts --request 'all=GET /contacts?limit={{limit}}' --var limit=50\n  keyholder source edit contacts --remove requests.one --remove health"
)]
pub(crate) struct Edit {
    /// Name or id
    source: String,
    /// New name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Take away: headers.NAME, query.NAME, variables.NAME, requests.NAME, health, base_url or allow; may be repeated
    #[arg(long = "remove", value_name = "FIELD")]
    remove: Vec<String>,
}

#[derive(Args)]
struct Fields {
    /// Read the body from this JSON file; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What paths are appended to [default: the connection's API base URL]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// The connection it is reached through
    #[arg(long, value_name = "CONNECTION")]
    connection: Option<String>,
    /// Instead of a connection: each caller's own under this integration
    #[arg(long, value_name = "INTEGRATION", conflicts_with = "connection")]
    integration: Option<String>,
    /// Send this header where a call has none of the name; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// Send this parameter where a call has none of the name; may be repeated
    #[arg(long = "query", value_name = "NAME=VALUE", value_parser = pair)]
    query: Vec<(String, String)>,
    /// Value of a variable; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// Read the value of this secret variable from standard input
    #[arg(long, value_name = "NAME")]
    secret_stdin: Option<String>,
    /// Path of a request that shows whether the source works
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    /// Save a request; those with a body come from a file; may be repeated
    #[arg(long = "request", value_name = "NAME=METHOD PATH", value_parser = named_request)]
    requests: Vec<(String, Value)>,
    /// Let only such calls pass: a path below the base URL, * for a segment, /** for all below; may be repeated
    #[arg(long = "allow", value_name = "[METHOD,…] PATH", value_parser = rule)]
    allow: Vec<Value>,
}

/// Run a saved request and print what it answers
///
/// What the request extracts is printed, one value a line; else the body. Exits 1 when the answer is not what the request expects.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder source run contacts one --var id=42\n  keyholder source run contacts one --var id=42 --include"
)]
pub(crate) struct Run {
    /// Name or id of the data source
    source: String,
    /// Name of the request
    request: String,
    /// Value for a placeholder; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// Whose connection is meant, where each caller uses its own
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Show so many bytes of the reply, at most 1048576 [default: 65536]
    #[arg(long, value_name = "BYTES")]
    limit: Option<usize>,
    /// Show the reply's status and headers too
    #[arg(short, long)]
    include: bool,
    /// Print the body, whatever the request extracts
    #[arg(long)]
    body: bool,
}

/// `one=GET /contacts/{{id}}`
fn named_request(text: &str) -> std::result::Result<(String, Value), String> {
    let wrong = || "write it as 'NAME=METHOD PATH', like 'one=GET /contacts/{{id}}'".to_owned();
    let (name, call) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let (method, path) = call.trim().split_once(' ').unwrap_or(("GET", call.trim()));
    if !path.trim_start().starts_with('/') {
        return Err(wrong());
    }
    Ok((name.to_owned(), json!({"method": method, "path": path.trim()})))
}

/// `GET,POST /contacts/**`
fn rule(text: &str) -> std::result::Result<Value, String> {
    let (methods, path) = text.trim().rsplit_once(' ').unwrap_or(("", text.trim()));
    if !path.starts_with('/') {
        return Err("write it as '[METHOD,…] PATH', like 'GET,HEAD /contacts/**'".to_owned());
    }
    let methods: Vec<&str> = methods.split(',').map(str::trim).filter(|method| !method.is_empty()).collect();
    Ok(json!({"methods": methods, "path": path}))
}

impl Source {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        match self {
            Source::Add(add) => add.run(&api, out).await,
            Source::List => list(out, &api.list(&["data-sources"], &[]).await?),
            Source::Show { source } => {
                let shown = api.get(&["data-sources", &source]).await?;
                if out.json { out.json(&shown) } else { show(out, &shown) }
            }
            Source::Edit(edit) => {
                let changed = api.patch(&["data-sources", &edit.source], &edit.body()?).await?;
                if out.json { out.json(&changed) } else { show(out, &changed) }
            }
            Source::Run(run) => run.run(&api, out).await,
            Source::Test { source, owner, how } => {
                let body = json!({"owner": owner, "renew": how.renew});
                let report = api.post(&["data-sources", &source, "test"], &body).await?;
                tell_test(out, &report, how.verbose)
            }
            Source::Rm { source } => {
                api.delete(&["data-sources", &source]).await?;
                if out.json { Ok(()) } else { out.line(format!("The data source {source} is gone.")) }
            }
        }
    }
}

impl Fields {
    /// The file's fields, and over them those of the flags.
    fn body(&self) -> Result<Map<String, Value>> {
        let mut body = self.file_body()?;
        let texts = [
            ("description", &self.description),
            ("base_url", &self.base_url),
            ("connection", &self.connection),
            ("integration", &self.integration),
        ];
        for (field, value) in texts {
            body.extend(value.as_ref().map(|value| (field.to_owned(), json!(value))));
        }
        put(&mut body, "headers", object(&self.headers));
        put(&mut body, "query", object(&self.query));
        put(&mut body, "variables", object(&self.variables));
        if let Some(name) = &self.secret_stdin {
            let secret = json!({"secret": true, "value": secret_from_stdin()?});
            put(&mut body, "variables", json!({name: secret}));
        }
        put(&mut body, "requests", self.requests.iter().cloned().collect::<Map<_, _>>().into());
        if let Some(path) = &self.health {
            body.insert("health".to_owned(), json!({"path": path}));
        }
        if !self.allow.is_empty() {
            body.insert("allow".to_owned(), json!(self.allow));
        }
        Ok(body)
    }

    fn file_body(&self) -> Result<Map<String, Value>> {
        let Some(file) = &self.file else { return Ok(Map::new()) };
        let shown = file.display().to_string();
        let text = match shown.as_str() {
            "-" => std::io::read_to_string(std::io::stdin()),
            _ => std::fs::read_to_string(file),
        };
        let text = text.map_err(CliError::io(shown.clone()))?;
        let mut body: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
            CliError::Usage(format!("{shown} is no JSON object: line {}, column {}", error.line(), error.column()))
        })?;
        // What `source show --json` prints beside, and what is null there, may stay in the file.
        for shown_only in ["id", "name", "created_at", "updated_at"] {
            body.remove(shown_only);
        }
        body.retain(|_, value| !value.is_null());
        Ok(body)
    }
}

/// Members put over those of a field that is an object.
fn put(body: &mut Map<String, Value>, field: &str, members: Value) {
    let Value::Object(members) = members else { return };
    if members.is_empty() {
        return;
    }
    let there = body.entry(field).or_insert_with(|| json!({}));
    if let Value::Object(there) = there {
        there.extend(members);
    }
}

impl Add {
    async fn run(self, api: &Api, out: &Out) -> Result {
        let mut body = self.fields.body()?;
        body.insert("name".to_owned(), json!(self.name));
        let added = api.post(&["data-sources"], &Value::Object(body)).await?;
        if out.json {
            return out.json(&added);
        }
        let name = clean(text(&added, "name"));
        out.line(format!("The data source {name} is there."))?;
        let made = &added["made"];
        for (what, kind) in [("integration", "integration"), ("connection", "connection")] {
            if made[what].is_object() {
                out.line(format!("The {kind} {} was made with it.", clean(text(&made[what], "name"))))?;
            }
        }
        if !text(made, "authorize_error").is_empty() {
            out.line(out.paint(
                &format!("It could not be authorised: {}", clean(text(made, "authorize_error"))),
                Tint::Yellow,
            ))?;
        }
        let authorize = &made["authorize"];
        if !text(authorize, "authorize_url").is_empty() {
            out.line(format!("Open this link to authorise it:\n\n  {}\n", clean(text(authorize, "authorize_url"))))?;
        }
        if authorize["device"].is_object() {
            let device = &authorize["device"];
            let (code, at) = (clean(text(device, "user_code")), clean(text(device, "verification_uri")));
            out.line(format!("Type the code {code} at {at} to authorise it."))?;
        }
        let request = added["requests"].as_object().and_then(|all| all.keys().next());
        match request {
            Some(request) => out.line(format!("Try: keyholder source run {name} {}", clean(request))),
            None => out.line(format!("Try: keyholder source test {name}")),
        }
    }
}

impl Edit {
    fn body(&self) -> Result<Value> {
        let mut body = self.fields.body()?;
        body.extend(self.name.as_ref().map(|name| ("name".to_owned(), json!(name))));
        for field in &self.remove {
            match field.split_once('.') {
                Some((group @ ("headers" | "query" | "variables" | "requests"), name)) if !name.is_empty() => {
                    put(&mut body, group, json!({name: null}));
                }
                None if matches!(field.as_str(), "health" | "base_url") => {
                    body.insert(field.clone(), Value::Null);
                }
                None if field == "allow" => {
                    body.insert(field.clone(), json!([]));
                }
                _ => {
                    let remedy =
                        "use headers.NAME, query.NAME, variables.NAME, requests.NAME, health, base_url or allow";
                    return Err(CliError::Usage(format!("--remove {field}: there is no such field; {remedy}")));
                }
            }
        }
        if body.is_empty() {
            return Err(CliError::Usage("say what shall change; see `keyholder source edit --help`".to_owned()));
        }
        Ok(Value::Object(body))
    }
}

impl Run {
    async fn run(self, api: &Api, out: &Out) -> Result {
        let body = json!({"variables": object(&self.variables), "owner": self.owner, "limit": self.limit});
        let reply = api.post(&["data-sources", &self.source, "requests", &self.request, "run"], &body).await?;
        if out.json {
            out.json(&reply)?;
        } else {
            self.tell(out, &reply)?;
        }
        if reply["expected"] == true {
            return Ok(());
        }
        if !out.json {
            note(format!("the API answered {}, which is not what the request expects", reply["status"]));
        }
        Err(CliError::Said)
    }

    fn tell(&self, out: &Out, reply: &Value) -> Result {
        if self.include {
            out.line(format!("{}  {} ms", reply["status"], reply["took_ms"]))?;
            for (name, value) in reply["headers"].as_object().into_iter().flatten() {
                out.line(format!("{name}: {}", clean(value.as_str().unwrap_or_default())))?;
            }
            out.line("")?;
        }
        if !text(reply, "problem").is_empty() {
            note(text(reply, "problem"));
        }
        match reply["extracted"].as_array().filter(|_| !self.body) {
            Some(found) => {
                for value in found {
                    out.line(value.as_str().map_or_else(|| value.to_string(), clean))?;
                }
                Ok(())
            }
            None => tell_body(out, reply),
        }
    }
}

/// JSON readable, other text as it is, anything else byte for byte.
fn tell_body(out: &Out, reply: &Value) -> Result {
    if let Some(encoded) = reply["body"].as_str() {
        let bytes =
            STANDARD.decode(encoded).map_err(|_| CliError::Odd("the reply's body is not base 64".to_owned()))?;
        out.raw(&bytes)?;
    } else {
        let body = text(reply, "text");
        match serde_json::from_str::<Value>(body) {
            Ok(value) if value.is_object() || value.is_array() => out.line(format!("{value:#}"))?,
            _ if body.is_empty() => {}
            _ => out.line(clean(body))?,
        }
    }
    if reply["truncated"] == true {
        let of = reply["size"].as_u64().map(|size| format!(" of {size} bytes")).unwrap_or_default();
        note(format!("this is only the beginning{of}; see --limit"));
    }
    Ok(())
}

fn list(out: &Out, items: &[Value]) -> Result {
    if out.json {
        return out.json(&json!({"items": items}));
    }
    if items.is_empty() {
        return out
            .line("There are no data sources. Make one with `keyholder source add NAME --connection CONNECTION`.");
    }
    let row = |it: &Value| {
        vec![
            text(it, "name").into(),
            behind(it).into(),
            text(it, "base_url").into(),
            names(&it["requests"]).into(),
            Cell::tinted(text(it, "description"), Tint::Dim),
        ]
    };
    let rows: Vec<Vec<Cell>> = items.iter().map(row).collect();
    out.table(&["NAME", "THROUGH", "BASE URL", "REQUESTS", "DESCRIPTION"], &rows)
}

fn behind(it: &Value) -> String {
    match text(it, "connection") {
        "" => format!("each caller's own of {}", text(it, "integration")),
        connection => connection.to_owned(),
    }
}

fn names(map: &Value) -> String {
    map.as_object().into_iter().flat_map(Map::keys).cloned().collect::<Vec<_>>().join(" ")
}

fn show(out: &Out, it: &Value) -> Result {
    let now = out.now_ms();
    let variable =
        |(name, variable): (&String, &Value)| match (variable["value"].as_str(), variable["has_value"] == true) {
            (Some(value), _) => format!("{name}={value}"),
            (None, true) => format!("{name}=****"),
            (None, false) => name.clone(),
        };
    let variables: Vec<String> = it["variables"].as_object().into_iter().flatten().map(variable).collect();
    let base_url = match text(it, "base_url") {
        "" => "the connection's own",
        url => url,
    };
    out.facts(&[
        ("name", Cell::tinted(text(it, "name"), Tint::Bold)),
        ("description", text(it, "description").into()),
        ("id", text(it, "id").into()),
        ("base URL", base_url.into()),
        ("through", behind(it).into()),
        ("headers", pairs(&it["headers"]).into()),
        ("query", pairs(&it["query"]).into()),
        ("variables", variables.join(" ").into()),
        ("health", call(&it["health"]).into()),
        ("made", relative(&it["created_at"], now).into()),
        ("changed", relative(&it["updated_at"], now).into()),
    ])?;
    let rule = |rule: &Value| -> Vec<Cell> {
        let methods = words(&rule["methods"]);
        vec![if methods.is_empty() { "any".to_owned() } else { methods }.into(), text(rule, "path").into()]
    };
    let rules: Vec<Vec<Cell>> = it["allow"].as_array().into_iter().flatten().map(rule).collect();
    if !rules.is_empty() {
        out.line("")?;
        out.table(&["ALLOWED", "PATH"], &rules)?;
    }
    let request = |(name, it): (&String, &Value)| -> Vec<Cell> {
        vec![name.into(), call(it).into(), text(it, "extract").into(), Cell::tinted(text(it, "description"), Tint::Dim)]
    };
    let requests: Vec<Vec<Cell>> = it["requests"].as_object().into_iter().flatten().map(request).collect();
    if requests.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.table(&["REQUEST", "CALL", "EXTRACTS", "DESCRIPTION"], &requests)
}

/// `GET /contacts/{{id}}`
fn call(request: &Value) -> String {
    let has_body = !request["body"].is_null() || request["form"].as_object().is_some_and(|form| !form.is_empty());
    match (text(request, "path"), text(request, "method")) {
        ("", _) => String::new(),
        (path, "") if has_body => format!("POST {path}"),
        (path, "") => format!("GET {path}"),
        (path, method) => format!("{method} {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_rules_are_one_word_each() {
        let named = |text| named_request(text).unwrap();
        assert_eq!(
            named("one=GET /a/{{id}}?x=1"),
            ("one".to_owned(), json!({"method": "GET", "path": "/a/{{id}}?x=1"}))
        );
        assert_eq!(named("me=/me"), ("me".to_owned(), json!({"method": "GET", "path": "/me"})));
        for text in ["one", "=GET /a", "one=GET a", "one="] {
            assert!(named_request(text).is_err(), "{text}");
        }
        assert_eq!(rule("GET,HEAD /a/**").unwrap(), json!({"methods": ["GET", "HEAD"], "path": "/a/**"}));
        assert_eq!(rule("/a").unwrap(), json!({"methods": [], "path": "/a"}));
        assert!(rule("GET a").is_err());
    }

    #[test]
    fn what_is_removed_is_null() {
        let edit = |remove: &[&str]| Edit {
            source: "x".to_owned(),
            name: None,
            fields: Fields {
                file: None,
                description: None,
                base_url: None,
                connection: None,
                integration: None,
                headers: Vec::new(),
                query: vec![("a".to_owned(), "1".to_owned())],
                variables: Vec::new(),
                secret_stdin: None,
                health: None,
                requests: Vec::new(),
                allow: Vec::new(),
            },
            remove: remove.iter().map(|field| (*field).to_owned()).collect(),
        };
        let body = edit(&["query.b", "health", "allow"]).body().unwrap();
        assert_eq!(body, json!({"query": {"a": "1", "b": null}, "health": null, "allow": []}));
        for field in ["other", "headers.", "health.x"] {
            assert!(edit(&[field]).body().is_err(), "{field}");
        }
    }
}
