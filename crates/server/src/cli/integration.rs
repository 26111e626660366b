//! `keyholder integration`: registrations at providers.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Context;
use super::error::{CliError, Result};
use super::output::{Cell, Out, Tint, clean, pairs, relative, text, words};
use super::values::{date, duration, object, pair, scopes, secret_from_stdin, secret_from_terminal};

/// Manage your registrations at providers
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  keyholder integration add login --provider oidc --client-id app-1 --var issuer=https://login.example.com --scope 'openid offline_access'"
)]
pub(crate) enum Integration {
    Add(Add),
    /// List the integrations
    #[command(after_help = "Example:\n  keyholder integration list")]
    List,
    /// Show an integration, with the redirect URI to register
    #[command(after_help = "Example:\n  keyholder integration show login")]
    Show {
        /// Name or id
        integration: String,
    },
    Edit(Edit),
    Upgrade(Upgrade),
    /// Remove an integration that has no connections
    #[command(after_help = "Example:\n  keyholder integration rm login")]
    Rm {
        /// Name or id
        integration: String,
    },
}

/// Add an integration
///
/// Without --client-secret and --client-secret-stdin the secret is asked for on the terminal; a secret on the command line can be
/// seen by other users of the machine and stays in the shell's history.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder integration add login --provider oidc --client-id app-1 --var issuer=https://login.example.com\n  pass show crm | keyholder integration add crm --provider oauth2 --method client_credentials --client-id app-2 \\\n      --client-secret-stdin --var token_url=https://auth.example.com/token --var api_base_url=https://api.example.com"
)]
pub(crate) struct Add {
    /// Name, unique
    name: String,
    /// Provider, as `keyholder provider list` names it
    #[arg(long, value_name = "PROVIDER")]
    provider: String,
    /// One of the provider's methods [default: its first]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Client id, as the provider gave it
    #[arg(long, value_name = "ID")]
    client_id: String,
    #[command(flatten)]
    secret: SecretFlags,
    /// Day on which the provider stops taking the client secret, like 2027-01-31; Keyholder warns ahead of it
    #[arg(long, value_name = "DATE", value_parser = date)]
    client_secret_expires: Option<i64>,
    /// Scope to ask for; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Value for one of the provider's variables; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// Audience or resource to ask tokens for
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// How the client authenticates: basic, raw_basic, post, json, query, client_secret_jwt, private_key_jwt, tls or none [default: as the provider says]
    #[arg(long, value_name = "WAY")]
    client_auth: Option<String>,
    #[command(flatten)]
    own: OwnFlags,
    /// What stands before the token in API calls; may be empty [default: as the provider says, mostly Bearer]
    #[arg(long, value_name = "PREFIX")]
    header_prefix: Option<String>,
}

/// What only some providers need.
#[derive(Args)]
struct OwnFlags {
    /// File with the client's private key, PEM or JWK, for private_key_jwt
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// File with the client's certificate chain, PEM, for tls
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
    /// File with the certificate's private key, PEM [default: the client key]
    #[arg(long, value_name = "FILE")]
    client_certificate_key: Option<PathBuf>,
    /// grant_type to send [default: as the provider says]
    #[arg(long, value_name = "NAME")]
    grant_type: Option<String>,
    /// What the body of token requests is, form or json [default: as the provider says]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Where the access token stands in the reply, a name or a JSON pointer [default: as the provider says]
    #[arg(long, value_name = "PLACE")]
    token_key: Option<String>,
    /// At most so many API calls a second by each connection; 0 for no limit. The two limits are set together
    #[arg(long, value_name = "CALLS")]
    per_second: Option<f64>,
    /// At most so many API calls at the same time by each connection; 0 for no limit
    #[arg(long, value_name = "CALLS")]
    concurrent: Option<u32>,
    /// For people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Parameter beside the provider's, for the authorize, token or refresh request; may be repeated. Those given are all there are
    #[arg(long = "extra", value_name = "REQUEST:NAME=VALUE", value_parser = parameter)]
    extra: Vec<(String, String, String)>,
    /// How long a token lives where the reply doesn't say, like 1h. These three are set together
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    token_lifetime: Option<u64>,
    /// How long before its end a token is renewed, like 10m [default: as Keyholder chooses]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    renew_ahead: Option<u64>,
    /// Renew at use only; refresh tokens that die of disuse will
    #[arg(long)]
    renew_at_use: bool,
}

impl OwnFlags {
    /// The fields that were given.
    fn body(&self) -> Result<Map<String, Value>> {
        let read = |file: &Option<PathBuf>| file.as_deref().map(text_of).transpose();
        let fields = [
            ("client_key", read(&self.client_key)?),
            ("client_certificate", read(&self.client_certificate)?),
            ("client_certificate_key", read(&self.client_certificate_key)?),
            ("grant_type", self.grant_type.clone()),
            ("content_type", self.content_type.clone()),
            ("token_key", self.token_key.clone()),
            ("description", self.description.clone()),
        ];
        let mut body: Map<String, Value> =
            fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), json!(value?)))).collect();
        if self.per_second.is_some() || self.concurrent.is_some() {
            let (pace, count) =
                (self.per_second.filter(|pace| *pace != 0.0), self.concurrent.filter(|count| *count != 0));
            body.insert("limits".to_owned(), json!({"per_second": pace, "concurrent": count}));
        }
        if !self.extra.is_empty() {
            let of = |request: &str| -> Vec<Value> {
                let wanted = self.extra.iter().filter(|(to, ..)| to == request);
                wanted.map(|(_, name, value)| json!({"name": name, "value": value})).collect()
            };
            let extra = json!({"authorize": of("authorize"), "token": of("token"), "refresh": of("refresh")});
            body.insert("extra".to_owned(), extra);
        }
        if self.token_lifetime.is_some() || self.renew_ahead.is_some() || self.renew_at_use {
            let (lifetime, ahead) = (self.token_lifetime, self.renew_ahead);
            let renewal = json!({"token_lifetime": lifetime, "ahead": ahead, "by_itself": !self.renew_at_use});
            body.insert("renewal".to_owned(), renewal);
        }
        Ok(body)
    }
}

/// `token:resource=https://api.example`.
fn parameter(text: &str) -> std::result::Result<(String, String, String), String> {
    let wrong = || "write it as REQUEST:NAME=VALUE, where REQUEST is authorize, token or refresh".to_owned();
    let (request, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (name, value) = pair(rest).map_err(|_| wrong())?;
    let known = ["authorize", "token", "refresh"].contains(&request);
    if known { Ok((request.to_owned(), name, value)) } else { Err(wrong()) }
}

fn seconds(text: &str) -> std::result::Result<u64, String> {
    duration(text).map(|duration| duration.as_secs())
}

fn text_of(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(CliError::io(file.display().to_string()))
}

/// Put an integration on another version of its provider's definition
///
/// An integration stays on the version it was made with. This shows what differs, in the text and in what it means, and changes it.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder integration upgrade crm --dry-run\n  keyholder integration upgrade crm --to 3"
)]
pub(crate) struct Upgrade {
    /// Name or id
    integration: String,
    /// The version, as `keyholder provider versions` names it [default: the newest]
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Value for a variable that the version has and the old one has not; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct SecretFlags {
    /// Read the client secret from standard input
    #[arg(long)]
    client_secret_stdin: bool,
    /// Client secret; better by --client-secret-stdin
    #[arg(long, value_name = "SECRET", conflicts_with = "client_secret_stdin")]
    client_secret: Option<String>,
}

impl SecretFlags {
    fn given(&self) -> Result<Option<String>> {
        if self.client_secret_stdin { secret_from_stdin().map(Some) } else { Ok(self.client_secret.clone()) }
    }
}

/// Change an integration; what is not named stays
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder integration edit login --scope 'openid offline_access email'\n  pass show login | keyholder integration edit login --client-secret-stdin"
)]
pub(crate) struct Edit {
    /// Name or id
    integration: String,
    /// New name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// New client id
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    #[command(flatten)]
    secret: SecretFlags,
    /// Day on which the provider stops taking the client secret, like 2027-01-31; a new secret forgets the old one's
    #[arg(long, value_name = "DATE", value_parser = date)]
    client_secret_expires: Option<i64>,
    /// New scopes, all of them; they count from the next consent on
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// New value of a variable, an empty one takes it away; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// New audience
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// New client authentication
    #[arg(long, value_name = "WAY")]
    client_auth: Option<String>,
    /// New header prefix
    #[arg(long, value_name = "PREFIX")]
    header_prefix: Option<String>,
    #[command(flatten)]
    own: OwnFlags,
    /// Back to what the provider says: audience, client-auth, header-prefix, grant-type, token-key, client-certificate, client-secret-expires, extra or renewal; may be repeated
    #[arg(long = "reset", value_name = "FIELD", value_parser = ["audience", "client-auth", "header-prefix", "grant-type", "token-key", "client-certificate", "client-secret-expires", "extra", "renewal"])]
    reset: Vec<String>,
}

impl Integration {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        match self {
            Integration::Add(add) => {
                let added = api.post(&["integrations"], &add.body()?).await?;
                if out.json { out.json(&added) } else { tell_next(out, &added) }
            }
            Integration::List => {
                let items = api.list(&["integrations"], &[]).await?;
                if out.json {
                    return out.json(&json!({"items": items}));
                }
                let rows: Vec<Vec<Cell>> = items.iter().map(|item| row(item, out.now_ms())).collect();
                out.table(&["NAME", "PROVIDER", "METHOD", "CLIENT ID", "SECRET EXPIRES", "SCOPES"], &rows)
            }
            Integration::Show { integration } => {
                let shown = api.get(&["integrations", &integration]).await?;
                if out.json { out.json(&shown) } else { show(out, &shown) }
            }
            Integration::Edit(edit) => {
                let changed = api.patch(&["integrations", &edit.integration], &edit.body()?).await?;
                if out.json { out.json(&changed) } else { show(out, &changed) }
            }
            Integration::Upgrade(upgrade) => {
                let body =
                    json!({"version": upgrade.to, "variables": object(&upgrade.variables), "dry_run": upgrade.dry_run});
                let reply = api.post(&["integrations", &upgrade.integration, "upgrade"], &body).await?;
                if out.json { out.json(&reply) } else { tell_upgrade(out, &upgrade, &reply) }
            }
            Integration::Rm { integration } => {
                api.delete(&["integrations", &integration]).await?;
                if out.json { Ok(()) } else { out.line(format!("The integration {integration} is gone.")) }
            }
        }
    }
}

impl Add {
    fn body(&self) -> Result<Value> {
        let public = self.client_auth.as_deref() == Some("none");
        let by_key = self.own.client_key.is_some() || self.own.client_certificate.is_some();
        let secret = match self.secret.given()? {
            None if !public && !by_key => secret_from_terminal("Client secret (empty for none): ")?,
            given => given,
        };
        let mut body = json!({
            "name": self.name,
            "provider": self.provider,
            "method": self.method,
            "client_id": self.client_id,
            "client_secret": secret,
            "client_secret_expires_at": self.client_secret_expires,
            "scopes": scopes(&self.scopes),
            "audience": self.audience,
            "header_prefix": self.header_prefix,
            "client_auth": self.client_auth,
            "variables": object(&self.variables),
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.own.body()?);
        }
        Ok(body)
    }
}

impl Edit {
    /// Only what shall change; `null` takes a field away.
    fn body(&self) -> Result<Value> {
        let secret = self.secret.given()?;
        let named = [
            ("name", &self.name),
            ("client_id", &self.client_id),
            ("client_secret", &secret),
            ("audience", &self.audience),
            ("client_auth", &self.client_auth),
            ("header_prefix", &self.header_prefix),
        ];
        let mut body = Map::new();
        for (field, value) in named {
            body.extend(value.as_ref().map(|value| (field.to_owned(), json!(value))));
        }
        body.extend(self.own.body()?);
        body.extend(self.client_secret_expires.map(|at| ("client_secret_expires_at".to_owned(), json!(at))));
        body.extend(self.reset.iter().map(|field| match field.as_str() {
            "client-secret-expires" => ("client_secret_expires_at".to_owned(), Value::Null),
            // Their defaults are objects.
            "extra" | "renewal" => (field.clone(), json!({})),
            field => (field.replace('-', "_"), Value::Null),
        }));
        if !self.scopes.is_empty() {
            body.insert("scopes".to_owned(), json!(scopes(&self.scopes)));
        }
        if !self.variables.is_empty() {
            body.insert("variables".to_owned(), object(&self.variables));
        }
        if body.is_empty() {
            return Err(CliError::Usage("say what shall change; see `keyholder integration edit --help`".to_owned()));
        }
        Ok(Value::Object(body))
    }
}

/// What to copy, and what to do now.
pub(super) fn tell_next(out: &Out, added: &Value) -> Result {
    let name = clean(text(added, "name"));
    out.line(format!("The integration {name} is there."))?;
    if added["provider_checked"].is_null() && text(added, "provider_version").starts_with("built-in") {
        let provider = clean(text(added, "provider"));
        out.line(out.paint(
            &format!("What is known of {provider} was not compared with the provider's pages; see `keyholder provider show {provider}`."),
            Tint::Yellow,
        ))?;
    }
    if text(added, "grant") == "password" {
        return out.line(format!("Next: keyholder connection add NAME --integration '{name}' --username USER"));
    }
    if text(added, "grant") != "authorization_code" {
        return out.line(format!("Next: keyholder connect {name}"));
    }
    out.line("Register this redirect URI at the provider, exactly as it stands, letter case included:")?;
    out.line(format!("\n  {}\n", out.paint(&clean(text(added, "redirect_uri")), Tint::Bold)))?;
    match text(added, "redirect_note") {
        "" => {}
        note => out.line(clean(note))?,
    }
    out.line(format!("Then: keyholder connect {name}"))
}

fn tell_upgrade(out: &Out, asked: &Upgrade, reply: &Value) -> Result {
    let (name, from, to) = (clean(text(&reply["integration"], "name")), text(reply, "from"), text(reply, "to"));
    if from == to {
        return out.line(format!("The integration {name} is on version {to} already."));
    }
    for line in text(reply, "difference").lines() {
        let tint = match line.as_bytes().first() {
            Some(b'+') => Tint::Green,
            Some(b'-') => Tint::Red,
            _ => Tint::Dim,
        };
        out.line(out.paint(&clean(line), tint))?;
    }
    let place = |address: &Value, member: &str| match text(address, member) {
        "" => "none".to_owned(),
        place => clean(place),
    };
    for address in reply["addresses"].as_array().into_iter().flatten() {
        let field = clean(text(address, "field"));
        out.line(format!("{field} changes from {} to {}.", place(address, "before"), place(address, "after")))?;
    }
    let told = [
        ("missing", "must be given with the upgrade, as --var NAME=VALUE"),
        ("missing_in_connections", "must be given to each connection"),
        ("dropped", "are not used any more, and their values go"),
    ];
    for (member, what) in told {
        let names = words(&reply[member]);
        if !names.is_empty() {
            out.line(format!("Variables that {what}: {names}"))?;
        }
    }
    if asked.dry_run {
        return out
            .line(format!("Nothing was changed: {name} is on version {from}; without --dry-run it would be on {to}."));
    }
    out.line(format!("The integration {name} was on version {from} and is on {to} now."))
}

fn row(integration: &Value, now: i64) -> Vec<Cell> {
    vec![
        text(integration, "name").into(),
        text(integration, "provider").into(),
        text(integration, "method").into(),
        text(integration, "client_id").into(),
        relative(&integration["client_secret_expires_at"], now).into(),
        words(&integration["scopes"]).into(),
    ]
}

/// A limit of calls, where there is one.
fn calls(integration: &Value, field: &str) -> String {
    integration["limits"][field].as_f64().map_or(String::new(), |calls| calls.to_string())
}

fn parameters(integration: &Value) -> String {
    let of = |request: &str| -> Vec<String> {
        let params = integration["extra"][request].as_array().into_iter().flatten();
        params.map(|param| format!("{request}:{}={}", text(param, "name"), text(param, "value"))).collect()
    };
    ["authorize", "token", "refresh"].map(of).concat().join(" ")
}

/// What differs from what Keyholder chooses.
fn renewal(integration: &Value) -> String {
    let renewal = &integration["renewal"];
    let seconds =
        |field: &str, says: &str| renewal[field].as_u64().map(|seconds| says.replace('#', &seconds.to_string()));
    let at_use = (renewal["by_itself"] == false).then(|| "at use only".to_owned());
    let parts = [seconds("token_lifetime", "a token lives # s"), seconds("ahead", "# s ahead of its end"), at_use];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn show(out: &Out, integration: &Value) -> Result {
    let secret = if integration["has_client_secret"] == true { "kept, never shown" } else { "none" };
    out.facts(&[
        ("name", Cell::tinted(text(integration, "name"), Tint::Bold)),
        ("description", text(integration, "description").into()),
        ("id", text(integration, "id").into()),
        ("provider", text(integration, "provider").into()),
        ("its version", text(integration, "provider_version").into()),
        ("method", text(integration, "method").into()),
        ("client id", text(integration, "client_id").into()),
        ("client secret", secret.into()),
        ("it expires", relative(&integration["client_secret_expires_at"], out.now_ms()).into()),
        ("client key", if integration["has_client_key"] == true { "kept, never shown" } else { "" }.into()),
        ("certificate", if integration["client_certificate"].is_string() { "kept" } else { "" }.into()),
        ("grant type", text(integration, "grant_type").into()),
        ("content type", text(integration, "content_type").into()),
        ("token key", text(integration, "token_key").into()),
        ("calls a second", calls(integration, "per_second").into()),
        ("calls at once", calls(integration, "concurrent").into()),
        ("more parameters", parameters(integration).into()),
        ("renewal", renewal(integration).into()),
        ("client auth", text(integration, "client_auth").into()),
        ("scopes", words(&integration["scopes"]).into()),
        ("audience", text(integration, "audience").into()),
        ("header prefix", integration["header_prefix"].as_str().map_or(String::new(), |p| format!("“{p}”")).into()),
        ("variables", pairs(&integration["variables"]).into()),
        ("secret variables", words(&integration["secret_variables"]).into()),
        ("redirect URI", text(integration, "redirect_uri").into()),
        ("", Cell::tinted(text(integration, "redirect_note"), Tint::Dim)),
        ("made", relative(&integration["created_at"], out.now_ms()).into()),
    ])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Integration,
    }

    fn edit(words: &[&str]) -> Result<Value> {
        let words = ["x", "edit", "crm"].iter().chain(words);
        match Line::try_parse_from(words).unwrap().command {
            Integration::Edit(edit) => edit.body(),
            _ => unreachable!(),
        }
    }

    #[test]
    fn an_edit_sends_only_what_shall_change() {
        assert_eq!(
            edit(&["--name", "new", "--reset", "header-prefix", "--var", "a=", "--scope", "x y"]).unwrap(),
            json!({"name": "new", "header_prefix": null, "variables": {"a": ""}, "scopes": ["x", "y"]})
        );
        assert_eq!(
            edit(&["--client-secret-expires", "2027-01-31"]).unwrap(),
            json!({"client_secret_expires_at": 1_801_353_600_000_i64})
        );
        assert_eq!(edit(&["--reset", "client-secret-expires"]).unwrap(), json!({"client_secret_expires_at": null}));
        assert_eq!(
            edit(&["--extra", "token:resource=https://a/?b=c", "--extra", "token:resource=b", "--renew-ahead", "10m"])
                .unwrap(),
            json!({
                "extra": {
                    "authorize": [],
                    "token": [{"name": "resource", "value": "https://a/?b=c"}, {"name": "resource", "value": "b"}],
                    "refresh": [],
                },
                "renewal": {"token_lifetime": null, "ahead": 600, "by_itself": true},
            })
        );
        assert_eq!(edit(&["--reset", "renewal", "--reset", "extra"]).unwrap(), json!({"renewal": {}, "extra": {}}));
        assert!(parameter("elsewhere:a=b").is_err() && parameter("token:a").is_err());
        assert!(matches!(edit(&[]), Err(CliError::Usage(_))));
    }
}
