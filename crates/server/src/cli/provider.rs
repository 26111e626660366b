//! `keyholder provider`: the catalogue and the definitions of one's own.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use keyholder_provider::DefinitionError;
use serde_json::{Value, json};

use super::Context;
use super::error::{CliError, Result};
use super::output::{Cell, Out, Tint, clean, relative, text, words};
use super::rehearse;

/// See the providers, check and add definitions
#[derive(Subcommand)]
#[command(
    after_help = "Example:\n  keyholder provider list mail\n  keyholder provider discover https://login.example.com > example.toml"
)]
pub(crate) enum Provider {
    /// List the providers
    #[command(after_help = "Example:\n  keyholder provider list\n  keyholder provider list google mail")]
    List {
        /// Only those with all these words in their id, name or other names
        words: Vec<String>,
    },
    /// Show a provider: its methods, what they ask for, scopes, what to register there, known errors
    #[command(after_help = "Example:\n  keyholder provider show oidc\n  keyholder provider show acme@2 --text")]
    Show {
        /// Its id, with @VERSION for another version than the newest
        provider: String,
        /// The definition's text
        #[arg(long)]
        text: bool,
    },
    /// Check a definition without adding it; exits 1 when it has mistakes. Needs a server only if it extends a definition that you have added there
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
    /// Add a definition, or a new version of the one with the same id; integrations stay on the version they have
    #[command(after_help = "Example:\n  keyholder provider add example.toml")]
    Add {
        /// The definition, a TOML file
        file: PathBuf,
    },
    /// List the versions of a definition, and how many integrations stay on each
    #[command(after_help = "Example:\n  keyholder provider versions acme")]
    Versions {
        /// Its id
        provider: String,
    },
    /// Remove a definition of your own, or one version of it, that no integration uses
    #[command(after_help = "Example:\n  keyholder provider rm acme\n  keyholder provider rm acme@1")]
    Rm {
        /// Its id, with @VERSION for one version
        provider: String,
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
            Provider::List { words } => list(context, &words.join(" ")).await,
            Provider::Show { provider, text: only_text } => {
                let (id, version) = id_and_version(&provider);
                let shown = context.api()?.query(&["providers", id], &version).await?;
                match (out.json, only_text) {
                    (true, _) => out.json(&shown),
                    (_, true) => out.raw(text(&shown, "definition").as_bytes()),
                    _ => show(out, &shown),
                }
            }
            Provider::Check { file } => check(context, &file).await,
            Provider::Test { definitions, method } => rehearse::test(out, &definitions, method.as_deref()).await,
            Provider::Add { file } => {
                let file_name = file.display().to_string();
                let bytes = read(&file)?;
                let definition = match keyholder_provider::read_text(&file_name, &bytes) {
                    Ok(definition) => definition,
                    Err(error) => return Err(CliError::Failed(error.to_string())),
                };
                let body = json!({"file": file_name, "definition": definition});
                let added = context.api()?.post(&["providers"], &body).await?;
                if out.json {
                    return out.json(&added);
                }
                let (id, version) = (text(&added, "id"), text(&added, "version"));
                out.line(format!("The provider {id} is there, version {version}."))?;
                if version == "1" {
                    return out.line(format!("Next: keyholder integration add NAME --provider {id} --client-id …"));
                }
                out.line("Integrations stay on the version they have; put one on this with `keyholder integration upgrade NAME`.")
            }
            Provider::Versions { provider } => versions(context, &provider).await,
            Provider::Rm { provider } => {
                let (id, version) = id_and_version(&provider);
                context.api()?.delete_with(&["providers", id], &version).await?;
                if out.json { Ok(()) } else { out.line(format!("The provider {provider} is gone.")) }
            }
            Provider::Discover { url } => {
                let draft = context.api()?.post(&["providers", "discover"], &json!({"url": url})).await?;
                if out.json { out.json(&draft) } else { out.raw(text(&draft, "definition").as_bytes()) }
            }
        }
    }
}

/// `acme@2`; ids have no `@`.
fn id_and_version(name: &str) -> (&str, Vec<(&str, &str)>) {
    match name.split_once('@') {
        Some((id, version)) => (id, vec![("version", version)]),
        None => (name, Vec::new()),
    }
}

const NOT_COMPARED: &str = "not compared with the provider's pages";

async fn list(context: &Context, search: &str) -> Result {
    let query: Vec<_> = [("search", search)].into_iter().filter(|(_, words)| !words.is_empty()).collect();
    let items = context.api()?.list(&["providers"], &query).await?;
    let out = &context.out;
    if out.json {
        return out.json(&json!({"items": items}));
    }
    if items.is_empty() && !search.is_empty() {
        return out.line("No provider fits. `oauth2` takes any endpoints by hand, `oidc` any discovery document; `keyholder provider discover URL` drafts a definition.");
    }
    let methods = |item: &Value| {
        let names: Vec<&str> = item["methods"].as_array().into_iter().flatten().map(|m| text(m, "name")).collect();
        names.join(" ")
    };
    let mark = |item: &Value| if item["checked"].is_null() { "not compared" } else { text(item, "checked") }.to_owned();
    let rows: Vec<Vec<Cell>> = items
        .iter()
        .map(|item| {
            let checked = if item["checked"].is_null() { Tint::Yellow } else { Tint::Dim };
            vec![
                text(item, "id").into(),
                text(item, "name").into(),
                Cell::tinted(mark(item), checked),
                Cell::tinted(methods(item), Tint::Dim),
            ]
        })
        .collect();
    out.table(&["ID", "NAME", "CHECKED", "METHODS"], &rows)?;
    if items.iter().any(|item| item["checked"].is_null()) {
        out.line(format!("\n{}", out.paint(&format!("not compared: {NOT_COMPARED} yet"), Tint::Dim)))?;
    }
    Ok(())
}

async fn versions(context: &Context, provider: &str) -> Result {
    let listed = context.api()?.get(&["providers", provider, "versions"]).await?;
    let out = &context.out;
    if out.json {
        return out.json(&listed);
    }
    let row = |it: &Value| -> Vec<Cell> {
        vec![
            text(it, "version").into(),
            if it["newest"] == true { "newest" } else { "" }.into(),
            it["integrations"].to_string().into(),
            relative(&it["created_at"], out.now_ms()).into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = listed["items"].as_array().into_iter().flatten().map(row).collect();
    out.table(&["VERSION", "", "INTEGRATIONS", "SINCE"], &rows)
}

fn show(out: &Out, provider: &Value) -> Result {
    let setup = &provider["setup"];
    let checked = match text(provider, "checked") {
        "" => Cell::tinted(NOT_COMPARED, Tint::Yellow),
        date => date.into(),
    };
    out.facts(&[
        ("id", text(provider, "id").into()),
        ("other names", words(&provider["aliases"]).into()),
        ("name", text(provider, "name").into()),
        ("version", text(provider, "version").into()),
        ("extends", text(provider, "extends").into()),
        ("documentation", text(provider, "docs").into()),
        ("checked", checked),
        ("sources", words(&provider["source"]).into()),
        ("register at", text(setup, "register_url").into()),
        ("default scopes", words(&provider["scopes"]["default"]).into()),
        ("scopes always asked for", words(&provider["scopes"]["always"]).into()),
    ])?;
    if !text(setup, "text").is_empty() {
        out.line(format!("\n{}", clean(text(setup, "text"))))?;
    }
    let steps = items(&setup["steps"]);
    if !steps.is_empty() {
        out.line(format!("\n{}", out.paint("Setting up", Tint::Bold)))?;
        for (number, step) in steps.iter().enumerate() {
            out.line(format!("{:>2}. {}", number + 1, clean(step.as_str().unwrap_or_default())))?;
        }
    }
    for note in [text(setup, "redirect_note"), case_note(setup)].iter().filter(|note| !note.is_empty()) {
        out.line(format!("\n{}", clean(note)))?;
    }
    let rows =
        |list: &Value, row: &dyn Fn(&Value) -> Vec<Cell>| -> Vec<Vec<Cell>> { items(list).iter().map(row).collect() };
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
    for method in items(&provider["methods"]) {
        let title = format!("What {} asks for", text(method, "name"));
        let named = items(&method["variables"]);
        let variables = items(&provider["variables"]).iter().filter(|it| named.contains(&it["name"]));
        let asked: Vec<Vec<Cell>> = items(&method["inputs"]).iter().chain(variables).map(input).collect();
        section(out, &title, &["NAME", "", "ASKED OF", "DEFAULT", ""], &asked)?;
    }
    section(
        out,
        "Scopes",
        &["SCOPE", ""],
        &rows(&provider["scopes"]["known"], &|scope| {
            vec![text(scope, "scope").into(), Cell::tinted(text(scope, "meaning"), Tint::Dim)]
        }),
    )?;
    section(
        out,
        "Known errors",
        &["CODE", "MEANS", "WHAT TO DO"],
        &rows(&provider["errors"], &|error| {
            vec![text(error, "code").into(), text(error, "meaning").into(), text(error, "remedy").into()]
        }),
    )
}

/// A standard input or a variable: its name, and what a person needs to know of it.
fn input(it: &Value) -> Vec<Cell> {
    let choices: Vec<&str> = items(&it["choices"]).iter().map(|choice| text(choice, "value")).collect();
    let told = [
        text(it, "label").to_owned(),
        text(it, "help").to_owned(),
        if choices.is_empty() { String::new() } else { format!("One of: {}.", choices.join(", ")) },
        if text(it, "example").is_empty() { String::new() } else { format!("For example {}.", text(it, "example")) },
    ];
    let told: Vec<&str> =
        told.iter().map(String::as_str).filter(|part| !part.is_empty() && *part != text(it, "name")).collect();
    vec![
        text(it, "name").into(),
        text(it, "presence").into(),
        text(it, "asked_of").into(),
        text(it, "default").into(),
        Cell::tinted(told.join(" · "), Tint::Dim),
    ]
}

fn case_note(setup: &Value) -> &'static str {
    match setup["redirect_case_sensitive"].as_bool() {
        Some(true) => "The provider compares the redirect URI letter case included.",
        Some(false) => "The provider doesn't mind the letter case of the redirect URI.",
        None => "",
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn section(out: &Out, title: &str, head: &[&str], rows: &[Vec<Cell>]) -> Result {
    if rows.is_empty() {
        return Ok(());
    }
    out.line(format!("\n{}", out.paint(title, Tint::Bold)))?;
    out.table(head, rows)
}

/// With the catalogue that comes with the program; a definition that extends one of the server's own is checked there.
async fn check(context: &Context, file: &Path) -> Result {
    let (name, bytes) = (file.display().to_string(), read(file)?);
    let text = match keyholder_provider::read_text(&name, &bytes) {
        Ok(text) => text,
        Err(error) => return tell(&context.out, &name, &String::from_utf8_lossy(&bytes), &[error]),
    };
    let mut errors = keyholder_provider::parse(&name, text).err().unwrap_or_default();
    if let [error] = &errors[..]
        && error.field == "extends"
        && let Ok(api) = context.api()
    {
        match api.post(&["providers", "check"], &json!({"file": name, "definition": text})).await {
            Ok(checked) => errors = mistakes(&checked),
            Err(CliError::Unreachable { .. } | CliError::NoKey { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    tell(&context.out, &name, text, &errors)
}

fn tell(out: &Out, file: &str, source: &str, errors: &[DefinitionError]) -> Result {
    if out.json {
        let errors: Vec<Value> = errors
            .iter()
            .map(|e| json!({"file": e.file, "line": e.line, "column": e.column, "field": e.field, "reason": e.reason, "remedy": e.remedy}))
            .collect();
        out.json(&json!({"ok": errors.is_empty(), "errors": errors}))?;
    } else {
        for error in errors {
            out.line(clean(&error.to_string()))?;
            if error.file == file {
                for line in pointed(source, error.line, error.column) {
                    out.line(out.paint(&line, Tint::Dim))?;
                }
            }
        }
        if errors.is_empty() {
            out.line(format!("{} {file} is sound.", out.paint("✓", Tint::Green)))?;
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(CliError::Said) }
}

/// The line of a mistake, and a caret below its column. Of a long line only what stands around it.
fn pointed(source: &str, line: usize, column: usize) -> Vec<String> {
    const AROUND: usize = 50;
    let Some(text) = source.split('\n').nth(line.saturating_sub(1)) else { return Vec::new() };
    let first = column.saturating_sub(1).saturating_sub(AROUND);
    // One column a character, whatever it is, or the caret would stand elsewhere.
    let shown: String =
        text.chars().skip(first).take(2 * AROUND).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let margin = line.to_string().len();
    let caret = column.saturating_sub(1) - first;
    vec![format!("  {line} | {}", shown.trim_end()), format!("  {:margin$} | {:caret$}^", "", "")]
}

/// As the server tells them.
fn mistakes(checked: &Value) -> Vec<DefinitionError> {
    let number =
        |it: &Value, member: &str| it[member].as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(1);
    let mistake = |it: &Value| DefinitionError {
        file: text(it, "file").to_owned(),
        line: number(it, "line"),
        column: number(it, "column"),
        field: text(it, "field").to_owned(),
        reason: text(it, "reason").to_owned(),
        remedy: text(it, "remedy").to_owned(),
    };
    items(&checked["errors"]).iter().map(mistake).collect()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(CliError::io(file.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_its_column() {
        let source = "schema = 1\r\n\tname = \u{e9}x\r\n";
        assert_eq!(pointed(source, 2, 9), ["  2 |  name = éx", "    |         ^"]);
        assert_eq!(pointed(source, 9, 1), Vec::<String>::new());
        let long = format!("a = \"{}X{}\"", "b".repeat(1000), "c".repeat(1000));
        let lines = pointed(&long, 1, 1006);
        let caret = lines[1].find('^').unwrap();
        assert_eq!(lines[0].as_bytes()[caret], b'X');
        assert!(lines[0].len() < 120);
    }

    #[test]
    fn a_version_stands_behind_an_at() {
        assert_eq!(id_and_version("acme@2"), ("acme", vec![("version", "2")]));
        assert_eq!(id_and_version("acme"), ("acme", vec![]));
    }
}
