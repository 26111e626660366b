//! Settings of other programs, read into what an integration needs.
//!
//! Each reader (`postman`, `bruno`, `insomnia`, `curl`) turns a file into `Found`; `carry` turns that into an [`Imported`], with a definition of
//! its own where the built-in `oauth2` can't say everything. Nothing is lost silently: what can't be carried over is a [`Note`].

use std::collections::BTreeMap;

use keyholder_oauth::{ClientAuth, Secret};

use crate::definition::{GrantKind, Values};
use vars::Vars;

mod bruno;
mod carry;
mod curl;
mod insomnia;
mod postman;
mod vars;
mod yaml;

/// Longest file, in bytes.
pub const MAX_FILE: usize = 16 << 20;

/// What wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A Postman collection, v2.0 or v2.1.
    Postman,
    /// A `.bru` file of Bruno, or a collection that it exported as JSON.
    Bruno,
    /// An export of Insomnia: version 4 (JSON) or 5 (YAML).
    Insomnia,
    /// A `curl` command line for a token request.
    Curl,
}

/// One set of OAuth 2.0 settings, ready to become an integration. Without `Debug`: variables may be secret.
#[derive(Clone)]
pub struct Imported {
    /// What it is called in the file; may be changed. Names its definition too.
    pub name: String,
    /// The method to use.
    pub grant: GrantKind,
    /// Client identifier; empty when the file has none.
    pub client_id: String,
    /// Client secret.
    pub client_secret: Option<Secret>,
    /// How the client authenticates.
    pub client_auth: Option<ClientAuth>,
    /// Stands before the token in API calls, if it is not `Bearer`.
    pub header_prefix: Option<String>,
    /// Audience.
    pub audience: Option<String>,
    /// Scopes.
    pub scopes: Vec<String>,
    /// Values for the definition's variables, secret ones among them.
    pub variables: Values,
    /// For the password grant.
    pub username: Option<String>,
    /// For the password grant.
    pub password: Option<Secret>,
    /// What was not carried over, or must be looked at.
    pub notes: Vec<Note>,
    /// What `oauth2` can't say.
    beyond: toml::Table,
}

impl Imported {
    /// The id of the definition to use.
    pub fn provider(&self) -> String {
        if self.beyond.is_empty() { carry::BASE.to_owned() } else { carry::id_of(&self.name) }
    }

    /// A definition of its own, in TOML, where the built-in one can't say everything.
    pub fn definition(&self) -> Option<String> {
        (!self.beyond.is_empty()).then(|| carry::definition(&self.name, &self.beyond))
    }
}

/// Something that a person must know. Never holds a value out of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file's name for it.
    pub field: String,
    /// Why it was not carried over, or what is missing.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// Why a file can't be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}; {remedy}")]
pub struct ImportError {
    /// Where in the file.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// Reads the OAuth 2.0 settings of a file. Equal ones count once.
///
/// `given` are values for the file's own placeholders (`{{name}}`), which win over those in the file, and for the fields that a file may lack (`authorization_url`, `token_url`, `client_id`,
/// `api_base_url`).
///
/// # Errors
/// A file that is not of this format, is too long, or has no OAuth 2.0 settings that can be used; the texts repeat no value.
pub fn import(format: Format, text: &str, given: &BTreeMap<String, String>) -> Result<Vec<Imported>, ImportError> {
    if text.len() > MAX_FILE {
        return Err(error(
            "file",
            format!("it is longer than {MAX_FILE} bytes"),
            "export only the folder or request that signs in",
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let found = match format {
        Format::Postman => postman::read(text, given)?,
        Format::Bruno => bruno::read(text, given)?,
        Format::Insomnia => insomnia::read(text, given)?,
        Format::Curl => vec![curl::read(text, given)?],
    };
    let mut usable: Vec<Found> = Vec::new();
    for one in found {
        match usable.iter_mut().find(|known| known.is_same(&one)) {
            Some(known) => known.api_urls.extend(one.api_urls),
            None => usable.push(one),
        }
    }
    if usable.is_empty() {
        return Err(error(
            "file",
            "it has no OAuth 2.0 settings",
            "choose the file whose collection, folder or request has the authorization type OAuth 2.0",
        ));
    }
    let mut imported: Vec<Imported> = Vec::new();
    let mut refused = None;
    for one in usable {
        match carry::carry(one, given) {
            Ok(mut one) => {
                let (name, mut number) = (one.name.clone(), 2);
                while imported.iter().any(|other| carry::id_of(&other.name) == carry::id_of(&one.name)) {
                    one.name = format!("{name} {number}");
                    number += 1;
                }
                imported.push(one);
            }
            Err(why) => refused = refused.or(Some(why)),
        }
    }
    match refused {
        Some(why) if imported.is_empty() => Err(why),
        _ => Ok(imported),
    }
}

/// Values for placeholders out of an environment's file (Postman and Insomnia as JSON, Bruno as `.bru`).
///
/// # Errors
/// As [`import`].
pub fn environment(format: Format, text: &str) -> Result<BTreeMap<String, String>, ImportError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Postman => postman::environment(text),
        Format::Bruno => bruno::environment(text),
        Format::Insomnia => insomnia::environment(text),
        Format::Curl => Err(error("environment", "a command line has none", "leave it out")),
    }
}

/// What a reader found, in this project's words; texts have their placeholders filled.
#[derive(Clone, Default, PartialEq)]
struct Found {
    name: String,
    /// As the file has it.
    grant: String,
    authorization_url: Option<String>,
    token_url: Option<String>,
    refresh_url: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    username: Option<String>,
    password: Option<String>,
    scope: Option<String>,
    audience: Option<String>,
    resource: Option<String>,
    client_auth: Option<ClientAuth>,
    header_prefix: Option<String>,
    /// The query parameter that API calls carry the token in.
    token_query: Option<String>,
    json_body: bool,
    method_get: bool,
    extras: Vec<Extra>,
    /// Addresses of requests that use the settings.
    api_urls: Vec<String>,
    notes: Vec<Note>,
}

impl Found {
    fn is_same(&self, other: &Self) -> bool {
        let plain =
            |found: &Self| Self { name: String::new(), api_urls: Vec::new(), notes: Vec::new(), ..found.clone() };
        plain(self) == plain(other)
    }

    fn note(&mut self, field: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        let note = Note { field: field.to_owned(), reason: reason.into(), remedy: remedy.into() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A text with its placeholders filled; `None`, with a note, when a value is missing. Empty is none.
    fn fill(&mut self, vars: &Vars, field: &str, text: &str) -> Option<String> {
        match vars.fill(text) {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(missing) => {
                self.note(
                    field,
                    format!("it uses `{missing}`, which the file gives no value for"),
                    format!("give one with --set {missing}=VALUE, or the environment with --env FILE"),
                );
                None
            }
        }
    }

    /// What other programs keep for themselves.
    fn left_out(&mut self, field: &str, is_there: bool) {
        if !is_there {
            return;
        }
        let (reason, remedy) = match field {
            "state" => ("Keyholder makes a new one for each consent", "nothing is to be done"),
            "redirect_uri" => {
                ("Keyholder has a redirect URI of its own", "register the integration's redirect URI with the provider")
            }
            "access_token" | "refresh_token" => (
                "a stored token is not taken over",
                "connect anew; or bring a refresh token to a connection of the method refresh_token",
            ),
            "code_verifier" => ("Keyholder makes a new one for each consent", "nothing is to be done"),
            _ => ("it concerns only the program that wrote the file", "nothing is to be done"),
        };
        self.note(field, reason, remedy);
    }
}

/// One more parameter or header.
#[derive(Clone, PartialEq)]
struct Extra {
    phase: Phase,
    place: Place,
    name: String,
    value: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Authorize,
    Token,
    Refresh,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Query,
    Body,
}

fn error(field: &str, reason: impl Into<String>, remedy: impl Into<String>) -> ImportError {
    ImportError { field: field.to_owned(), reason: reason.into(), remedy: remedy.into() }
}

fn not_json(what: &str, at: &serde_json::Error) -> ImportError {
    // Not the library's text: it may repeat a value.
    error(
        "file",
        format!("it is not {what}: broken JSON at line {}, column {}", at.line(), at.column()),
        "export it again",
    )
}

#[cfg(test)]
mod tests;
