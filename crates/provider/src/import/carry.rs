//! From what was found to an integration: the built-in `oauth2` where that says everything, else a definition that builds on it.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue};
use keyholder_oauth::{ClientAuth, Secret};
use toml::{Table, Value};
use url::Url;

use super::{Extra, Found, ImportError, Imported, Phase, Place, error};
use crate::definition::{GrantKind, Values};

/// The definition that imported ones build on.
pub(super) const BASE: &str = "oauth2";

pub(super) fn carry(mut found: Found, given: &BTreeMap<String, String>) -> Result<Imported, ImportError> {
    let say = |field: &str| given.get(field).filter(|value| !value.is_empty()).cloned();
    let grant = grant(&mut found)?;
    queries_apart(&mut found);
    let mut variables = Values::new();
    let token_url = say("token_url").or(found.token_url.take()).ok_or_else(|| missing(&found, "token_url"))?;
    variables.insert("token_url".to_owned(), token_url);
    if grant == GrantKind::AuthorizationCode {
        let url = say("authorization_url")
            .or(found.authorization_url.take())
            .ok_or_else(|| missing(&found, "authorization_url"))?;
        variables.insert("authorization_url".to_owned(), url);
    }
    if let Some(url) = found.refresh_url.take().filter(|url| *url != variables["token_url"]) {
        variables.insert("refresh_url".to_owned(), url);
    }
    if let Some(url) = say("api_base_url").or_else(|| api_base_url(&mut found)) {
        variables.insert("api_base_url".to_owned(), url);
    }
    let client_id = say("client_id").or(found.client_id.take()).unwrap_or_default();
    if client_id.is_empty() {
        found.note("client_id", "the file has none", "give one with --set client_id=VALUE");
    }
    let client_secret = say("client_secret").or(found.client_secret.take());
    let mut client_auth = found.client_auth;
    if client_secret.is_none() && matches!(client_auth, Some(ClientAuth::Basic | ClientAuth::Post | ClientAuth::Json)) {
        let unknown = found.notes.iter().any(|note| matches!(note.field.as_str(), "clientSecret" | "client_secret"));
        if !unknown && grant == GrantKind::AuthorizationCode {
            client_auth = Some(ClientAuth::None);
            found.note(
                "client_secret",
                "the file has none, so the client is taken for a public one",
                "if it has a secret, give it with `keyholder integration edit`, and the client authentication too",
            );
        }
    }
    let beyond = beyond(&mut found, &mut variables, client_secret.as_deref());
    Ok(Imported {
        name: label(&found.name),
        beyond,
        grant,
        client_id,
        client_secret: client_secret.map(Secret::new),
        client_auth,
        header_prefix: found.header_prefix.filter(|prefix| prefix != "Bearer"),
        audience: found.audience,
        scopes: found.scope.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        variables,
        username: found.username.filter(|_| grant == GrantKind::Password),
        password: found.password.map(Secret::new).filter(|_| grant == GrantKind::Password),
        notes: found.notes,
    })
}

fn grant(found: &mut Found) -> Result<GrantKind, ImportError> {
    let grant = match found.grant.as_str() {
        "authorization_code" | "authorization_code_with_pkce" => GrantKind::AuthorizationCode,
        // What Postman leaves out is its default.
        "" if found.authorization_url.is_some() => GrantKind::AuthorizationCode,
        "" | "client_credentials" => GrantKind::ClientCredentials,
        "password" | "password_credentials" => GrantKind::Password,
        "implicit" => {
            found.note("grant_type", "the implicit grant is not used any more (RFC 9700 §2.1.2); the authorization code grant takes its place", "allow the authorization code grant for the client at the provider, and see that the token URL is right");
            GrantKind::AuthorizationCode
        }
        "refresh_token" => {
            found.note(
                "grant_type",
                "a refresh is no grant to begin with",
                "give the authorization URL with --set authorization_url=URL, and connect anew",
            );
            GrantKind::AuthorizationCode
        }
        other => {
            let other: String = other.chars().filter(|c| c.is_ascii_graphic()).take(80).collect();
            return Err(error(
                "grant_type",
                format!("`{other}` can't be imported"),
                "write a definition with that grant; docs/provider-language.md tells how",
            ));
        }
    };
    Ok(grant)
}

/// What stands in the query of an address becomes a parameter: there may be secrets among it, and addresses are shown.
fn queries_apart(found: &mut Found) {
    let refreshes_elsewhere = found.refresh_url.is_some();
    let mut extras = Vec::new();
    for (url, phase) in [
        (&mut found.authorization_url, Phase::Authorize),
        (&mut found.token_url, Phase::Token),
        (&mut found.refresh_url, Phase::Refresh),
    ] {
        let Some((address, query)) = url.as_ref().and_then(|url| url.split_once('?')) else { continue };
        let pairs = url::form_urlencoded::parse(query.split('#').next().unwrap_or_default().as_bytes());
        for (name, value) in pairs.into_owned().filter(|(name, _)| !name.is_empty()) {
            let extra = Extra { phase, place: Place::Query, name, value };
            if phase == Phase::Token && !refreshes_elsewhere {
                extras.push(Extra { phase: Phase::Refresh, ..extra.clone() });
            }
            extras.push(extra);
        }
        *url = Some(address.to_owned());
    }
    found.extras.extend(extras);
}

fn missing(found: &Found, field: &str) -> ImportError {
    let of_file = found.notes.iter().find(|note| {
        matches!(
            (field, note.field.as_str()),
            ("token_url", "accessTokenUrl" | "access_token_url" | "url")
                | ("authorization_url", "authUrl" | "authorizationUrl" | "authorization_url")
        )
    });
    match of_file {
        Some(note) => error(field, note.reason.clone(), note.remedy.clone()),
        None => error(field, "the file has none", format!("give one with --set {field}=URL")),
    }
}

/// Scheme, host and port of most requests that use the settings.
fn api_base_url(found: &mut Found) -> Option<String> {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for url in found.api_urls.iter().filter_map(|url| Url::parse(url).ok()).filter(|url| url.has_host()) {
        *counted.entry(url.origin().ascii_serialization()).or_default() += 1;
    }
    if counted.len() > 1 {
        found.note(
            "url",
            "the requests go to several hosts, and the one of most of them became the API base URL",
            "set the integration's variable api_base_url if it shall be another",
        );
    }
    counted.into_iter().max_by_key(|(_, times)| *times).map(|(origin, _)| origin)
}

/// What `oauth2` can't say, as a definition that builds on it says it. Values that look secret become secret variables: a definition is no place for them.
fn beyond(found: &mut Found, variables: &mut Values, client_secret: Option<&str>) -> Table {
    let mut file = Table::new();
    let mut names = BTreeSet::new();
    if let Some(resource) = found.resource.take().filter(|resource| is_literal(found, "resource", resource)) {
        for phase in ["authorize", "token"] {
            table(&mut file, &[phase, "params"]).insert("resource".to_owned(), Value::String(resource.clone()));
        }
    }
    if let Some(name) = found.token_query.take().filter(|name| is_literal(found, "token_query_key", name)) {
        let mut token = Table::new();
        token.insert("in".to_owned(), "query".into());
        token.insert("name".to_owned(), name.into());
        table(&mut file, &["api"]).insert("token".to_owned(), Value::Table(token));
    }
    if found.json_body {
        table(&mut file, &["token"]).insert("body".to_owned(), "json".into());
    }
    if found.method_get {
        table(&mut file, &["token"]).insert("method".to_owned(), "GET".into());
    }
    for extra in std::mem::take(&mut found.extras) {
        let Extra { phase, place, name, value } = extra;
        if !is_literal(found, &name, &value) {
            continue;
        }
        // The standard parameter, given another way.
        if name == "audience" && place != Place::Header && found.audience.as_ref().is_none_or(|known| *known == value) {
            found.audience = Some(value);
            continue;
        }
        if Some(value.as_str()) == client_secret {
            found.note(
                &name,
                "it repeats the client secret, which is sent by the client authentication",
                "if the server wants it here, write params = { … = \"{{client_secret}}\" } into the definition",
            );
            continue;
        }
        if place == Place::Header && (HeaderName::try_from(&name).is_err() || HeaderValue::from_str(&value).is_err()) {
            found.note(&name, "it can't be a header", "see what was meant");
            continue;
        }
        let at: &[&str] = match (phase, place) {
            (Phase::Authorize, Place::Header) => {
                found.note(
                    &name,
                    "a browser that is sent to the provider can't send headers of ours",
                    "see whether the server takes it as a parameter",
                );
                continue;
            }
            (Phase::Authorize, _) => &["authorize", "params"],
            (Phase::Token, Place::Header) => &["token", "headers"],
            (Phase::Token, Place::Query) => &["token", "query"],
            (Phase::Token, Place::Body) => &["token", "params"],
            (Phase::Refresh, Place::Header) => &["refresh", "headers"],
            (Phase::Refresh, Place::Query) => &["refresh", "query"],
            (Phase::Refresh, Place::Body) => &["refresh", "params"],
        };
        if table(&mut file, at).contains_key(&name) {
            found.note(&name, "it is there twice, and the first is carried over", "see which one was meant");
            continue;
        }
        let written = if looks_secret(&name) {
            let variable = variable_name(&name, &names);
            let mut about = Table::new();
            about.insert("label".to_owned(), label(&name).into());
            about.insert("secret".to_owned(), true.into());
            table(&mut file, &["variables"]).insert(variable.clone(), Value::Table(about));
            names.insert(variable.clone());
            variables.insert(variable.clone(), value);
            format!("{{{{{variable}}}}}")
        } else {
            value
        };
        table(&mut file, at).insert(name, Value::String(written));
    }
    file
}

/// The definition's text.
pub(super) fn definition(name: &str, beyond: &Table) -> String {
    let mut head = Table::new();
    head.insert("schema".to_owned(), 1.into());
    head.insert("extends".to_owned(), BASE.into());
    head.insert("id".to_owned(), id_of(name).into());
    head.insert("name".to_owned(), label(name).into());
    let text = |table: &Table| toml::to_string(table).unwrap_or_default();
    format!("# Imported. Addresses and client are the integration's.\n{}\n{}", text(&head), text(beyond))
}

/// Braces would be read as a placeholder.
fn is_literal(found: &mut Found, field: &str, value: &str) -> bool {
    let is_placeholder = [field, value].iter().any(|text| text.contains("{{") || text.contains("}}"));
    if is_placeholder {
        found.note(
            field,
            "its name or value has `{{` or `}}`, which would be read as a placeholder",
            "add it to the definition by hand",
        );
    }
    !is_placeholder
}

fn table<'t>(file: &'t mut Table, path: &[&str]) -> &'t mut Table {
    path.iter().fold(file, |table, name| {
        let inner = table.entry((*name).to_owned()).or_insert_with(|| Value::Table(Table::new()));
        if !inner.is_table() {
            *inner = Value::Table(Table::new());
        }
        match inner {
            Value::Table(inner) => inner,
            _ => unreachable!("it was made a table"),
        }
    })
}

fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "secret", "token", "passw", "pwd", "auth", "assertion", "signature", "cookie", "credential"]
        .iter()
        .any(|word| name.contains(word))
}

/// A name that no standard input, no variable of the base and no other variable has.
fn variable_name(name: &str, taken: &BTreeSet<String>) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(40).collect();
    let first = format!("imported_{}", plain.trim_matches('_'));
    let mut name = first.clone();
    let mut number = 2;
    while taken.contains(&name) {
        name = format!("{first}_{number}");
        number += 1;
    }
    name
}

fn label(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
    if plain.trim().is_empty() { "Imported".to_owned() } else { plain.trim().to_owned() }
}

/// The id of the definition for settings of this name.
pub(super) fn id_of(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let plain: String = name.chars().map(plain).take(50).collect();
    let parts = plain.split('-').filter(|part| !part.is_empty());
    ["imported"].into_iter().chain(parts).collect::<Vec<_>>().join("-")
}
