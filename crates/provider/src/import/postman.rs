//! Postman collections, v2.0 and v2.1, as Postman writes them.

use std::collections::BTreeMap;

use keyholder_oauth::ClientAuth;
use serde_json::{Map, Value};

use super::vars::Vars;
use super::{Extra, Found, ImportError, Phase, Place, error, not_json};

/// Folders in folders; Postman's own has no such depth.
const DEEPEST: usize = 32;

pub(super) fn read(text: &str, given: &BTreeMap<String, String>) -> Result<Vec<Found>, ImportError> {
    let file: Value = serde_json::from_str(text).map_err(|at| not_json("a Postman collection", &at))?;
    // An export through Postman's API has the collection one level down.
    let collection = file.get("collection").unwrap_or(&file);
    if !collection["info"].is_object() && !collection["item"].is_array() {
        return Err(error(
            "file",
            "it is not a Postman collection",
            "in Postman, choose Export and the format Collection v2.1",
        ));
    }
    let vars = Vars::new(pairs(&collection["variable"]), given);
    let mut found = Vec::new();
    let name = collection["info"]["name"].as_str().unwrap_or("collection");
    walk(collection, name, None, &vars, 0, &mut found);
    Ok(found)
}

pub(super) fn environment(text: &str) -> Result<BTreeMap<String, String>, ImportError> {
    let file: Value = serde_json::from_str(text).map_err(|at| not_json("a Postman environment", &at))?;
    if !file["values"].is_array() {
        return Err(error("environment", "it is not a Postman environment", "export it from Postman's Environments"));
    }
    Ok(pairs(&file["values"]).collect())
}

/// Goes through folders and requests; a request without settings of its own uses those around it.
fn walk(item: &Value, name: &str, around: Option<usize>, vars: &Vars, depth: usize, found: &mut Vec<Found>) {
    let request = item.get("request").unwrap_or(item);
    let auth = [&item["auth"], &request["auth"]].into_iter().find(|auth| auth.is_object());
    let own = match auth {
        Some(auth) if auth["type"] == "oauth2" => {
            found.push(settings(name, auth, vars));
            Some(found.len() - 1)
        }
        // Another kind, or none, on purpose.
        Some(_) => None,
        None => around,
    };
    if let (Some(at), Some(url)) = (own, address(&request["url"])) {
        found[at].api_urls.extend(vars.fill(&url).ok());
    }
    if depth < DEEPEST {
        for inner in item["item"].as_array().into_iter().flatten() {
            walk(inner, inner["name"].as_str().unwrap_or(name), own, vars, depth + 1, found);
        }
    }
}

fn settings(name: &str, auth: &Value, vars: &Vars) -> Found {
    let mut found = Found { name: name.to_owned(), client_auth: Some(ClientAuth::Basic), ..Found::default() };
    let written = members(&auth["oauth2"]);
    let text = |key: &str| match written.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(yes)) => yes.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    for (key, value) in &written {
        let said = text(key);
        match key.as_str() {
            "grant_type" => found.grant = said,
            "authUrl" => found.authorization_url = found.fill(vars, key, &said),
            "accessTokenUrl" => found.token_url = found.fill(vars, key, &said),
            "refreshTokenUrl" => found.refresh_url = found.fill(vars, key, &said),
            "clientId" => found.client_id = found.fill(vars, key, &said),
            "clientSecret" => found.client_secret = found.fill(vars, key, &said),
            "username" => found.username = found.fill(vars, key, &said),
            "password" => found.password = found.fill(vars, key, &said),
            "scope" => found.scope = found.fill(vars, key, &said),
            "audience" => found.audience = found.fill(vars, key, &said),
            "resource" => found.resource = found.fill(vars, key, &said),
            "headerPrefix" => found.header_prefix = found.fill(vars, key, &said),
            "client_authentication" => {
                found.client_auth = Some(if said == "body" { ClientAuth::Post } else { ClientAuth::Basic });
            }
            "addTokenTo" if said == "queryParams" => found.token_query = Some("access_token".to_owned()),
            "authRequestParams" => extras(&mut found, vars, Phase::Authorize, key, value),
            "tokenRequestParams" => extras(&mut found, vars, Phase::Token, key, value),
            "refreshRequestParams" => extras(&mut found, vars, Phase::Refresh, key, value),
            "state" => found.left_out("state", !said.is_empty()),
            "redirect_uri" => found.left_out("redirect_uri", !said.is_empty()),
            "accessToken" => found.left_out("access_token", !said.is_empty()),
            "refreshToken" => found.left_out("refresh_token", !said.is_empty()),
            "code_verifier" => found.left_out("code_verifier", !said.is_empty()),
            "challengeAlgorithm" if said == "plain" => {
                found.note(
                    key,
                    "a code challenge is always sent as S256",
                    "nothing is to be done; every server that knows PKCE must know S256 (RFC 7636 §4.2)",
                );
            }
            "tokenType" if said == "id_token" => found.note(
                key,
                "API calls are made with the access token, not with the ID token",
                "ask the API's maker for a scope or audience that the access token is good for",
            ),
            // How Postman shows and keeps tokens.
            "addTokenTo" | "challengeAlgorithm" | "tokenType" | "tokenName" | "useBrowser" | "timestamp"
            | "authUrl_port" | "event_param" => {}
            other => {
                found.note(other, "it is not known here", "see what it does, and add it to the definition by hand")
            }
        }
    }
    found
}

fn extras(found: &mut Found, vars: &Vars, phase: Phase, field: &str, list: &Value) {
    for one in list.as_array().into_iter().flatten() {
        let name = one["key"].as_str().unwrap_or_default();
        if name.is_empty() || one["enabled"] == false {
            continue;
        }
        let place = match one["send_as"].as_str() {
            Some("request_header") => Place::Header,
            Some("request_url") => Place::Query,
            _ => Place::Body,
        };
        let field = format!("{field}.{name}");
        let value = one["value"].as_str().map_or_else(|| scalar(&one["value"]), str::to_owned);
        if let Some(value) = found.fill(vars, &field, &value) {
            found.extras.push(Extra { phase, place, name: name.to_owned(), value });
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ => String::new(),
    }
}

/// v2.1 writes a list of keys and values, v2.0 an object.
fn members(oauth2: &Value) -> Map<String, Value> {
    match oauth2 {
        Value::Object(members) => members.clone(),
        Value::Array(list) => {
            list.iter().filter_map(|one| Some((one["key"].as_str()?.to_owned(), one["value"].clone()))).collect()
        }
        _ => Map::new(),
    }
}

/// Variables: `key` or `id`, and `value`; those that are switched off don't count.
fn pairs(list: &Value) -> impl Iterator<Item = (String, String)> {
    let list = list.as_array().into_iter().flatten();
    list.filter(|one| one["disabled"] != true && one["enabled"] != false).filter_map(|one| {
        let name = one["key"].as_str().or_else(|| one["id"].as_str())?;
        let value = one["value"].as_str().map_or_else(|| scalar(&one["value"]), str::to_owned);
        Some((name.to_owned(), value)).filter(|(_, value)| !value.is_empty())
    })
}

/// The address of a request: a text, or an object with it as `raw`.
pub(super) fn address(url: &Value) -> Option<String> {
    url.as_str().or_else(|| url["raw"].as_str()).map(str::to_owned)
}
