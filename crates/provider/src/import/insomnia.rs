//! Insomnia: exports of version 4 (JSON) and 5 (YAML).

use std::collections::BTreeMap;

use keyholder_oauth::ClientAuth;
use serde_json::Value;

use super::vars::Vars;
use super::{Found, ImportError, error, not_json, yaml};

const DEEPEST: usize = 32;

pub(super) fn read(text: &str, given: &BTreeMap<String, String>) -> Result<Vec<Found>, ImportError> {
    let file = parse(text)?;
    let mut found = Vec::new();
    if let Some(resources) = file["resources"].as_array() {
        let of_kind = |kind: &'static str| resources.iter().filter(move |one| one["_type"] == kind);
        let mut values = BTreeMap::new();
        // The base environment is the one whose parent is the workspace.
        let base =
            of_kind("environment").filter(|one| one["parentId"].as_str().is_some_and(|id| id.starts_with("wrk_")));
        base.for_each(|one| flatten(&one["data"], "", &mut values));
        let vars = Vars::new(values, given);
        for kind in ["request_group", "request"] {
            for one in of_kind(kind) {
                push(one, one["url"].as_str(), &vars, &mut found);
            }
        }
        return Ok(found);
    }
    if !file["type"].as_str().is_some_and(|kind| kind.contains("insomnia.rest/5")) {
        return Err(error(
            "file",
            "it is not an export of Insomnia's",
            "export the collection as Insomnia v5, or as Insomnia v4 (JSON)",
        ));
    }
    let mut values = BTreeMap::new();
    flatten(&file["environments"]["data"], "", &mut values);
    let vars = Vars::new(values, given);
    push(&file, None, &vars, &mut found);
    walk(&file["collection"], &vars, 0, &mut found);
    Ok(found)
}

pub(super) fn environment(text: &str) -> Result<BTreeMap<String, String>, ImportError> {
    let file = parse(text)?;
    let mut values = BTreeMap::new();
    flatten(if file["data"].is_object() { &file["data"] } else { &file }, "", &mut values);
    Ok(values)
}

fn parse(text: &str) -> Result<Value, ImportError> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|at| not_json("an export of Insomnia's", &at));
    }
    yaml::read(text)
}

fn walk(items: &Value, vars: &Vars, depth: usize, found: &mut Vec<Found>) {
    for item in items.as_array().into_iter().flatten() {
        push(item, item["url"].as_str(), vars, found);
        if depth < DEEPEST {
            walk(&item["children"], vars, depth + 1, found);
        }
    }
}

fn push(item: &Value, url: Option<&str>, vars: &Vars, found: &mut Vec<Found>) {
    let auth = &item["authentication"];
    if auth["type"] != "oauth2" || auth["disabled"] == true {
        return;
    }
    let mut one = settings(item["name"].as_str().unwrap_or("collection"), auth, vars);
    one.api_urls.extend(url.and_then(|url| vars.fill(url).ok()));
    found.push(one);
}

fn settings(name: &str, auth: &Value, vars: &Vars) -> Found {
    let mut found = Found { name: name.to_owned(), client_auth: Some(ClientAuth::Basic), ..Found::default() };
    for (key, value) in auth.as_object().into_iter().flatten() {
        let said = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => String::new(),
        };
        match key.as_str() {
            "grantType" => found.grant = said,
            "authorizationUrl" => found.authorization_url = found.fill(vars, key, &said),
            "accessTokenUrl" => found.token_url = found.fill(vars, key, &said),
            "clientId" => found.client_id = found.fill(vars, key, &said),
            "clientSecret" => found.client_secret = found.fill(vars, key, &said),
            "username" => found.username = found.fill(vars, key, &said),
            "password" => found.password = found.fill(vars, key, &said),
            "scope" => found.scope = found.fill(vars, key, &said),
            "audience" => found.audience = found.fill(vars, key, &said),
            "resource" => found.resource = found.fill(vars, key, &said),
            "tokenPrefix" => found.header_prefix = found.fill(vars, key, &said),
            "credentialsInBody" if said == "true" => found.client_auth = Some(ClientAuth::Post),
            "pkceMethod" if said == "plain" => {
                found.note(
                    key,
                    "a code challenge is always sent as S256",
                    "nothing is to be done; every server that knows PKCE must know S256 (RFC 7636 §4.2)",
                );
            }
            "origin" if !said.is_empty() => {
                found.note(
                    key,
                    "no `Origin` is sent with token requests",
                    "if the server wants one, add it to the definition: token.headers = { Origin = \"…\" }",
                );
            }
            "responseType" if !matches!(said.as_str(), "" | "code") => {
                found.note(key, "only the response type `code` is used", "use the authorization code grant");
            }
            "redirectUrl" => found.left_out("redirect_uri", !said.is_empty()),
            "state" => found.left_out("state", !said.is_empty()),
            "accessToken" => found.left_out("access_token", !said.is_empty()),
            "refreshToken" => found.left_out("refresh_token", !said.is_empty()),
            "type" | "disabled" | "usePkce" | "pkceMethod" | "origin" | "responseType" | "credentialsInBody"
            | "code" | "identityToken" | "useDefaultBrowser" => {}
            _ => found.note(key, "it is not known here", "see what it does, and add it to the definition by hand"),
        }
    }
    found
}

/// Values of an environment; those inside others are named with a dot.
fn flatten(data: &Value, before: &str, into: &mut BTreeMap<String, String>) {
    for (name, value) in data.as_object().into_iter().flatten() {
        let name = format!("{before}{name}");
        match value {
            Value::String(text) => drop(into.insert(name, text.clone())),
            Value::Bool(_) | Value::Number(_) => drop(into.insert(name, value.to_string())),
            // Reading bounds the depth.
            Value::Object(_) => flatten(value, &format!("{name}."), into),
            _ => {}
        }
    }
}
