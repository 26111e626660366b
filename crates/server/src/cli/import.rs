//! `keyholder import`: OAuth 2.0 settings of other programs become integrations.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use keyholder_provider::Catalogue;
use keyholder_provider::import::{Format, ImportError, Imported, environment, import};
use serde_json::{Value, json};

use super::Context;
use super::api::Api;
use super::error::{CliError, Result};
use super::integration::tell_next;
use super::output::{Cell, Out, Tint, clean, note};
use super::values::{pair, scopes};

/// Make integrations out of a Postman, Bruno or Insomnia file, or out of a curl command
///
/// Reads the OAuth 2.0 settings of the file: addresses, client, scopes, extra parameters and headers of each request. What can't be carried over is said.
/// Where the built-in provider `oauth2` can't say everything, a definition is added too.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder import postman acme.postman_collection.json --dry-run\n  keyholder import postman acme.postman_collection.json --env prod.postman_environment.json\n  keyholder import curl token-request.sh --name acme --set TOKEN_HOST=auth.example.com"
)]
pub(crate) struct Import {
    /// What wrote the file
    format: Program,
    /// The file; - reads standard input
    file: PathBuf,
    /// A file with values for the placeholders: Postman's or Insomnia's environment (JSON), Bruno's (.bru)
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Value for a placeholder of the file, or for what the file lacks: `authorization_url`, `token_url`, `client_id`, `client_secret`, `api_base_url`; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Import only the settings of this name; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The integration's name [default: as in the file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Show what would be made, and make nothing. Needs no server
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Program {
    Postman,
    Bruno,
    Insomnia,
    Curl,
}

impl From<Program> for Format {
    fn from(program: Program) -> Self {
        match program {
            Program::Postman => Format::Postman,
            Program::Bruno => Format::Bruno,
            Program::Insomnia => Format::Insomnia,
            Program::Curl => Format::Curl,
        }
    }
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let found = self.found()?;
        let mut items = Vec::new();
        for imported in &found {
            let definition = imported.definition();
            if let Some(text) = &definition {
                check(text)?;
            }
            if !context.out.json {
                show(&context.out, imported)?;
            }
            let mut item = described(imported);
            if self.dry_run {
                if let Some(text) = definition.filter(|_| !context.out.json) {
                    context.out.line(format!("\nThe definition {}:\n\n{}", imported.provider(), clean_lines(&text)))?;
                }
            } else {
                let api = context.api()?;
                let integration = add(&api, imported).await.inspect_err(|_| {
                    let made = items.iter().filter_map(|item: &Value| item["integration"]["name"].as_str());
                    let made: Vec<&str> = made.collect();
                    if !made.is_empty() {
                        note(format!("made before the failure: {}", made.join(", ")));
                    }
                })?;
                if !context.out.json {
                    context.out.line("")?;
                    tell_next(&context.out, &integration)?;
                }
                item["connection"] = connection(&api, imported, &integration).await?;
                item["integration"] = integration;
            }
            items.push(item);
        }
        if context.out.json { context.out.json(&json!({"items": items})) } else { Ok(()) }
    }

    fn found(&self) -> Result<Vec<Imported>> {
        let format = Format::from(self.format);
        let mut given: BTreeMap<String, String> = match &self.env {
            Some(file) => environment(format, &read(file)?).map_err(|why| refused(file, &why))?,
            None => BTreeMap::new(),
        };
        given.extend(self.set.iter().cloned());
        let mut found = import(format, &read(&self.file)?, &given).map_err(|why| refused(&self.file, &why))?;
        if !self.only.is_empty() {
            let names: Vec<String> = found.iter().map(|one| clean(&one.name)).collect();
            if let Some(unknown) = self.only.iter().find(|only| !found.iter().any(|one| one.name == **only)) {
                return Err(CliError::Usage(format!(
                    "--only {unknown}: the file has no settings of this name; it has: {}",
                    names.join(", ")
                )));
            }
            found.retain(|one| self.only.contains(&one.name));
        }
        match (&self.name, found.as_mut_slice()) {
            (Some(name), [one]) => one.name.clone_from(name),
            (Some(_), several) => {
                let names: Vec<String> = several.iter().map(|one| clean(&one.name)).collect();
                return Err(CliError::Usage(format!(
                    "--name: the file has several settings; choose one with --only: {}",
                    names.join(", ")
                )));
            }
            (None, _) => {}
        }
        Ok(found)
    }
}

fn refused(file: &Path, why: &ImportError) -> CliError {
    CliError::Failed(format!("{}: {why}", file.display()))
}

/// The settings without their secrets.
fn described(imported: &Imported) -> Value {
    let notes: Vec<Value> = imported
        .notes
        .iter()
        .map(|note| json!({"field": note.field, "reason": note.reason, "remedy": note.remedy}))
        .collect();
    json!({
        "name": imported.name,
        "provider": imported.provider(),
        "definition": imported.definition(),
        "method": imported.grant.as_str(),
        "client_id": imported.client_id,
        "has_client_secret": imported.client_secret.is_some(),
        "client_auth": imported.client_auth,
        "scopes": imported.scopes,
        "audience": imported.audience,
        "header_prefix": imported.header_prefix,
        "username": imported.username,
        "variables": plain_variables(imported),
        "notes": notes,
    })
}

/// Those of the built-in definition, which are addresses; others may be secret, and only their names are shown.
fn plain_variables(imported: &Imported) -> BTreeMap<&str, &str> {
    const ADDRESSES: [&str; 4] = ["authorization_url", "token_url", "refresh_url", "api_base_url"];
    let shown = |name: &str| ADDRESSES.contains(&name);
    imported.variables.iter().map(|(name, value)| (name.as_str(), if shown(name) { value } else { "…" })).collect()
}

fn show(out: &Out, imported: &Imported) -> Result {
    let secret = if imported.client_secret.is_some() { "found" } else { "none" };
    out.line(format!("\n{}", out.paint(&clean(&imported.name), Tint::Bold)))?;
    let variables = plain_variables(imported);
    let provider = imported.provider();
    let auth = imported.client_auth.and_then(|auth| serde_json::to_value(auth).ok());
    let mut facts: Vec<(&str, Cell)> = vec![
        ("provider", provider.as_str().into()),
        ("method", imported.grant.as_str().into()),
        ("client id", imported.client_id.as_str().into()),
        ("client secret", secret.into()),
        ("client auth", auth.as_ref().and_then(Value::as_str).unwrap_or_default().into()),
    ];
    let joined = scopes(&imported.scopes).join(" ");
    facts.push(("scopes", joined.as_str().into()));
    facts.extend(imported.audience.iter().map(|audience| ("audience", audience.as_str().into())));
    facts.extend(imported.header_prefix.iter().map(|prefix| ("header prefix", prefix.as_str().into())));
    facts.extend(variables.iter().map(|(name, value)| (*name, (*value).into())));
    out.facts(&facts)?;
    for note in &imported.notes {
        out.line(format!(
            "{} {}: {}; {}.",
            out.paint("!", Tint::Yellow),
            clean(&note.field),
            note.reason,
            clean(&note.remedy)
        ))?;
    }
    Ok(())
}

/// Here already, so that a definition that the server would refuse leaves nothing behind.
fn check(definition: &str) -> Result {
    let errors = Catalogue::built_in().parse("imported.toml", definition).err().unwrap_or_default();
    let errors: Vec<String> = errors.iter().map(|error| clean(&error.to_string())).collect();
    if errors.is_empty() { Ok(()) } else { Err(CliError::Failed(errors.join("\n"))) }
}

/// Adds definition and integration; a definition whose integration is refused is taken away again.
async fn add(api: &Api, imported: &Imported) -> Result<Value> {
    let provider = imported.provider();
    if let Some(definition) = imported.definition() {
        if api.get(&["providers", &provider]).await.is_ok() {
            return Err(CliError::Failed(format!(
                "there is a provider {provider} already; give another name with --name"
            )));
        }
        api.post(&["providers"], &json!({"file": format!("{provider}.toml"), "definition": definition})).await?;
    }
    let body = json!({
        "name": imported.name,
        "provider": provider,
        "method": imported.grant.as_str(),
        "client_id": imported.client_id,
        "client_secret": imported.client_secret.as_ref().map(|secret| secret.expose()),
        "scopes": imported.scopes,
        "audience": imported.audience,
        "header_prefix": imported.header_prefix,
        "client_auth": imported.client_auth,
        "variables": imported.variables,
    });
    match api.post(&["integrations"], &body).await {
        Ok(integration) => Ok(integration),
        Err(why) => {
            if imported.definition().is_some() && api.delete(&["providers", &provider]).await.is_err() {
                note(format!("the provider {provider} was added and could not be removed again"));
            }
            Err(why)
        }
    }
}

/// A password that the file has belongs to a connection.
async fn connection(api: &Api, imported: &Imported, integration: &Value) -> Result<Value> {
    let (Some(username), Some(password)) = (&imported.username, &imported.password) else { return Ok(Value::Null) };
    let body = json!({"name": imported.name, "integration": integration["id"], "username": username, "password": password.expose()});
    api.post(&["connections"], &body).await
}

fn read(file: &Path) -> Result<String> {
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file).map_err(CliError::io(file.display().to_string()));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(CliError::io("standard input".to_owned()))?;
    Ok(text)
}

fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}
