//! `keyholder provider`: the catalogue and the definitions of one's own.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::Context;
use super::error::{CliError, Result};
use super::output::{Cell, Out, Tint, clean, text, words};
use super::rehearse;

/// See the providers, check and add definitions
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  keyholder provider list mail\n  keyholder provider discover https://login.example.com > example.toml"
)]
pub(crate) enum Provider {
    /// List the providers
    #[command(after_help = "Example:\n  keyholder provider list\n  keyholder provider list mail")]
    List {
        /// Only those with this in their id or name
        word: Option<String>,
    },
    /// Show a provider: its methods, variables, scopes, and what to register there
    #[command(after_help = "Example:\n  keyholder provider show oidc")]
    Show {
        /// Its id
        provider: String,
    },
    /// Check a definition without adding it; exits 1 when it has mistakes. Needs no server
    #[command(after_help = "Example:\n  keyholder provider check example.toml")]
    Check {
        /// The definition, a TOML file
        file: PathBuf,
    },
    /// Run a definition's methods against a practice provider that plays its part; exits 1 when something fails. Needs no server
    ///
    /// Connects, renews, calls the API and revokes, with made-up values and hosts that lead to this process only. The practice provider
    /// reads the definition by itself, takes nothing but what it says, and names what it expected instead.
    #[command(
        after_help = "Example:\n  keyholder provider test acme.toml\n  keyholder provider test acme.toml --method client_credentials\n  keyholder provider test providers/*.toml"
    )]
    Test {
        /// Definitions: TOML files, or ids of the catalogue
        #[arg(required = true, value_name = "FILE")]
        definitions: Vec<String>,
        /// Only this method
        #[arg(long)]
        method: Option<String>,
    },
    /// Add a definition, or put it in the place of the one with the same id
    #[command(after_help = "Example:\n  keyholder provider add example.toml")]
    Add {
        /// The definition, a TOML file
        file: PathBuf,
    },
    /// Draft a definition from an issuer or from its discovery document's address
    #[command(after_help = "Example:\n  keyholder provider discover https://login.example.com > example.toml")]
    Discover {
        /// The issuer
        url: String,
    },
}

impl Provider {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let out = &context.out;
        match self {
            Provider::List { word } => list(context, word).await,
            Provider::Show { provider } => {
                let shown = context.api()?.get(&["providers", &provider]).await?;
                if out.json { out.json(&shown) } else { show(out, &shown) }
            }
            Provider::Check { file } => check(out, &file),
            Provider::Test { definitions, method } => rehearse::test(out, &definitions, method.as_deref()).await,
            Provider::Add { file } => {
                let (file_name, definition) = (file.display().to_string(), read(&file)?);
                let body = json!({"file": file_name, "definition": definition});
                let added = context.api()?.post(&["providers"], &body).await?;
                if out.json {
                    return out.json(&added);
                }
                let id = text(&added, "id");
                out.line(format!(
                    "The provider {id} is there. Next: keyholder integration add NAME --provider {id} --client-id …"
                ))
            }
            Provider::Discover { url } => {
                let draft = context.api()?.post(&["providers", "discover"], &json!({"url": url})).await?;
                if out.json { out.json(&draft) } else { out.raw(text(&draft, "definition").as_bytes()) }
            }
        }
    }
}

async fn list(context: &Context, word: Option<String>) -> Result {
    let mut items = context.api()?.list(&["providers"], &[]).await?;
    if let Some(word) = word.map(|word| word.to_lowercase()) {
        items
            .retain(|item| [text(item, "id"), text(item, "name")].iter().any(|has| has.to_lowercase().contains(&word)));
    }
    if context.out.json {
        return context.out.json(&json!({"items": items}));
    }
    let methods = |item: &Value| {
        let names: Vec<&str> = item["methods"].as_array().into_iter().flatten().map(|m| text(m, "name")).collect();
        names.join(" ")
    };
    let rows: Vec<Vec<Cell>> = items
        .iter()
        .map(|item| vec![text(item, "id").into(), text(item, "name").into(), Cell::tinted(methods(item), Tint::Dim)])
        .collect();
    context.out.table(&["ID", "NAME", "METHODS"], &rows)
}

fn show(out: &Out, provider: &Value) -> Result {
    let setup = &provider["setup"];
    out.facts(&[
        ("id", text(provider, "id").into()),
        ("name", text(provider, "name").into()),
        ("documentation", text(provider, "docs").into()),
        ("checked", text(provider, "checked").into()),
        ("register at", text(setup, "register_url").into()),
        ("default scopes", words(&provider["scopes"]["default"]).into()),
    ])?;
    for line in [text(setup, "text"), text(setup, "redirect_note")].iter().filter(|line| !line.is_empty()) {
        out.line(format!("\n{}", clean(line)))?;
    }
    let rows = |list: &Value, row: &dyn Fn(&Value) -> Vec<Cell>| -> Vec<Vec<Cell>> {
        list.as_array().into_iter().flatten().map(row).collect()
    };
    section(
        out,
        "Methods",
        &["METHOD", "GRANT", ""],
        &rows(&provider["methods"], &|method| {
            vec![
                text(method, "name").into(),
                text(method, "grant").into(),
                Cell::tinted(text(method, "label"), Tint::Dim),
            ]
        }),
    )?;
    section(
        out,
        "Variables",
        &["VARIABLE", "", "ASKED OF", "DEFAULT", ""],
        &rows(&provider["variables"], &|variable| {
            vec![
                text(variable, "name").into(),
                text(variable, "presence").into(),
                text(variable, "asked_of").into(),
                text(variable, "default").into(),
                Cell::tinted(text(variable, "help"), Tint::Dim),
            ]
        }),
    )?;
    section(
        out,
        "Scopes",
        &["SCOPE", ""],
        &rows(&provider["scopes"]["known"], &|scope| {
            vec![text(scope, "scope").into(), Cell::tinted(text(scope, "meaning"), Tint::Dim)]
        }),
    )
}

fn section(out: &Out, title: &str, head: &[&str], rows: &[Vec<Cell>]) -> Result {
    if rows.is_empty() {
        return Ok(());
    }
    out.line(format!("\n{}", out.paint(title, Tint::Bold)))?;
    out.table(head, rows)
}

fn check(out: &Out, file: &Path) -> Result {
    let errors = keyholder_provider::parse(&file.display().to_string(), &read(file)?).err().unwrap_or_default();
    if out.json {
        let errors: Vec<Value> = errors
            .iter()
            .map(|e| json!({"file": e.file, "line": e.line, "column": e.column, "field": e.field, "reason": e.reason, "remedy": e.remedy}))
            .collect();
        out.json(&json!({"ok": errors.is_empty(), "errors": errors}))?;
    } else {
        errors.iter().try_for_each(|error| out.line(clean(&error.to_string())))?;
        if errors.is_empty() {
            out.line(format!("{} {} is sound.", out.paint("✓", Tint::Green), file.display()))?;
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(CliError::Said) }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(CliError::io(file.display().to_string()))
}
