//! Bruno: `.bru` files, and collections that it exported as JSON.

use std::collections::BTreeMap;

use keyholder_oauth::ClientAuth;
use serde_json::{Map, Value};

use super::vars::Vars;
use super::{Extra, Found, ImportError, Phase, Place, error, not_json};

const DEEPEST: usize = 32;

pub(super) fn read(text: &str, given: &BTreeMap<String, String>) -> Result<Vec<Found>, ImportError> {
    if text.trim_start().starts_with('{') {
        return collection(text, given);
    }
    let blocks = blocks(text)?;
    if blocks.is_empty() {
        return Err(error(
            "file",
            "it is not a .bru file",
            "choose a .bru file, or export the collection from Bruno as JSON",
        ));
    }
    let Some(oauth2) = blocks.get("auth:oauth2") else { return Ok(Vec::new()) };
    let of_file = ["vars:pre-request", "vars"].into_iter().filter_map(|name| blocks.get(name)).flatten();
    let vars = Vars::new(of_file.map(|one| (one.name.clone(), one.value.clone())), given);
    let name = blocks.get("meta").and_then(|meta| meta.iter().find(|one| one.name == "name"));
    let members: Map<String, Value> =
        oauth2.iter().map(|one| (one.name.clone(), Value::String(one.value.clone()))).collect();
    let mut found = settings(name.map_or("collection", |name| &name.value), &members, &vars);
    for (block, phase, place) in EXTRAS {
        for one in blocks.get(&format!("auth:oauth2:additional_params:{block}")).into_iter().flatten() {
            extra(&mut found, &vars, phase, place, one.name.clone(), &one.value);
        }
    }
    let verbs = ["get", "post", "put", "patch", "delete", "head", "options"];
    let url = verbs.iter().filter_map(|verb| blocks.get(*verb)).flatten().find(|one| one.name == "url");
    found.api_urls.extend(url.and_then(|url| vars.fill(&url.value).ok()));
    Ok(vec![found])
}

pub(super) fn environment(text: &str) -> Result<BTreeMap<String, String>, ImportError> {
    let blocks = blocks(text)?;
    let vars = blocks.get("vars").ok_or_else(|| {
        error(
            "environment",
            "it is not an environment of Bruno",
            "choose a .bru file out of the collection's folder `environments`",
        )
    })?;
    Ok(vars.iter().map(|one| (one.name.clone(), one.value.clone())).collect())
}

const EXTRAS: [(&str, Phase, Place); 8] = [
    ("auth_req:headers", Phase::Authorize, Place::Header),
    ("auth_req:queryparams", Phase::Authorize, Place::Query),
    ("access_token_req:headers", Phase::Token, Place::Header),
    ("access_token_req:queryparams", Phase::Token, Place::Query),
    ("access_token_req:body", Phase::Token, Place::Body),
    ("refresh_token_req:headers", Phase::Refresh, Place::Header),
    ("refresh_token_req:queryparams", Phase::Refresh, Place::Query),
    ("refresh_token_req:body", Phase::Refresh, Place::Body),
];

struct Line {
    name: String,
    value: String,
}

/// The blocks of a `.bru` file that hold names and values. Those with text in them (`body:json`, scripts) are passed over.
fn blocks(text: &str) -> Result<BTreeMap<String, Vec<Line>>, ImportError> {
    let mut blocks: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(name) = line.strip_suffix('{').or_else(|| line.trim_end().strip_suffix('{')).map(str::trim) else {
            continue;
        };
        let mut block = Vec::new();
        let mut closed = false;
        while let Some((_, line)) = lines.next() {
            if line.starts_with('}') {
                closed = true;
                break;
            }
            let line = line.trim();
            // `~` switches a line off.
            let Some((name, value)) = line.split_once(':').filter(|_| !line.starts_with('~')) else { continue };
            let mut value = value.trim().to_owned();
            if let Some(opened) = value.strip_prefix("'''") {
                let mut text = vec![opened.to_owned()];
                while !text.last().is_some_and(|line| line.trim_end().ends_with("'''")) {
                    let Some((_, line)) = lines.next() else { break };
                    text.push(line.trim().to_owned());
                }
                value = text.join("\n").trim_end().trim_end_matches("'''").trim().to_owned();
            }
            block.push(Line { name: name.trim().to_owned(), value });
        }
        if !closed {
            return Err(error(
                "file",
                format!("the block that line {} opens has no end", at + 1),
                "close it with a `}` at the beginning of a line",
            ));
        }
        blocks.entry(name.to_owned()).or_default().extend(block);
    }
    Ok(blocks)
}

fn collection(text: &str, given: &BTreeMap<String, String>) -> Result<Vec<Found>, ImportError> {
    let file: Value = serde_json::from_str(text).map_err(|at| not_json("a Bruno collection", &at))?;
    if !file["items"].is_array() && !file["root"].is_object() {
        return Err(error(
            "file",
            "it is not a collection of Bruno's",
            "export the collection from Bruno as JSON, or choose a .bru file",
        ));
    }
    let variables = |list: &Value| -> Vec<(String, String)> {
        let list = list.as_array().into_iter().flatten().filter(|one| one["enabled"] != false);
        list.filter_map(|one| Some((one["name"].as_str()?.to_owned(), one["value"].as_str()?.to_owned()))).collect()
    };
    // With several environments nobody can say which is meant.
    let environments = file["environments"].as_array().map_or(&[][..], Vec::as_slice);
    let only = match environments {
        [only] => variables(&only["variables"]),
        _ => Vec::new(),
    };
    let vars = Vars::new(variables(&file["root"]["request"]["vars"]["req"]).into_iter().chain(only), given);
    let mut found = Vec::new();
    let name = file["name"].as_str().unwrap_or("collection");
    let around = own(&file["root"]["request"], name, None, &vars, &mut found);
    walk(&file["items"], name, around, &vars, 0, &mut found);
    Ok(found)
}

fn walk(items: &Value, name: &str, around: Option<usize>, vars: &Vars, depth: usize, found: &mut Vec<Found>) {
    for item in items.as_array().into_iter().flatten() {
        let name = item["name"].as_str().unwrap_or(name);
        // A folder keeps its settings in its root.
        let request = if item["request"].is_object() { &item["request"] } else { &item["root"]["request"] };
        let own = own(request, name, around, vars, found);
        if let (Some(at), Some(url)) = (own, request["url"].as_str()) {
            found[at].api_urls.extend(vars.fill(url).ok());
        }
        if depth < DEEPEST {
            walk(&item["items"], name, own, vars, depth + 1, found);
        }
    }
}

fn own(request: &Value, name: &str, around: Option<usize>, vars: &Vars, found: &mut Vec<Found>) -> Option<usize> {
    match request["auth"]["mode"].as_str() {
        None | Some("inherit") => around,
        Some("oauth2") => {
            let oauth2 = request["auth"]["oauth2"].as_object()?;
            let mut one = settings(name, oauth2, vars);
            for (key, phase) in
                [("authorization", Phase::Authorize), ("token", Phase::Token), ("refresh", Phase::Refresh)]
            {
                let list = oauth2.get("additionalParameters").and_then(|all| all[key].as_array()).into_iter().flatten();
                for extra_one in list.filter(|one| one["enabled"] != false) {
                    let place = match extra_one["sendIn"].as_str() {
                        Some("headers") => Place::Header,
                        Some("queryparams") => Place::Query,
                        _ => Place::Body,
                    };
                    let text = |key: &str| extra_one[key].as_str().unwrap_or_default().to_owned();
                    extra(&mut one, vars, phase, place, text("name"), &text("value"));
                }
            }
            found.push(one);
            Some(found.len() - 1)
        }
        Some(_) => None,
    }
}

fn extra(found: &mut Found, vars: &Vars, phase: Phase, place: Place, name: String, value: &str) {
    if name.is_empty() {
        return;
    }
    if let Some(value) = found.fill(vars, &name, value) {
        found.extras.push(Extra { phase, place, name, value });
    }
}

/// `members` are written in snake case in `.bru` files and in camel case in JSON.
fn settings(name: &str, members: &Map<String, Value>, vars: &Vars) -> Found {
    let mut found = Found { name: name.to_owned(), client_auth: Some(ClientAuth::Post), ..Found::default() };
    for (key, value) in members {
        let said = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => String::new(),
        };
        match snake(key).as_str() {
            "grant_type" => found.grant = said,
            "authorization_url" => found.authorization_url = found.fill(vars, key, &said),
            "access_token_url" => found.token_url = found.fill(vars, key, &said),
            "refresh_token_url" => found.refresh_url = found.fill(vars, key, &said),
            "client_id" => found.client_id = found.fill(vars, key, &said),
            "client_secret" => found.client_secret = found.fill(vars, key, &said),
            "username" => found.username = found.fill(vars, key, &said),
            "password" => found.password = found.fill(vars, key, &said),
            "scope" => found.scope = found.fill(vars, key, &said),
            "credentials_placement" if said == "basic_auth_header" => found.client_auth = Some(ClientAuth::Basic),
            "token_header_prefix" => found.header_prefix = found.fill(vars, key, &said),
            "token_placement" if said == "url" => {
                found.token_query.get_or_insert_with(|| "access_token".to_owned());
            }
            "token_query_key" => {
                let name = found.fill(vars, key, &said);
                let in_url = members.iter().any(|(key, value)| snake(key) == "token_placement" && value == "url");
                found.token_query = name.filter(|_| in_url).or(found.token_query.take());
            }
            "callback_url" => found.left_out("redirect_uri", !said.is_empty()),
            "state" => found.left_out("state", !said.is_empty()),
            "access_token" => found.left_out("access_token", !said.is_empty()),
            "credentials_placement"
            | "token_placement"
            | "pkce"
            | "credentials_id"
            | "auto_fetch_token"
            | "auto_refresh_token"
            | "token_source"
            | "reuse_token"
            | "additional_parameters" => {}
            _ => found.note(key, "it is not known here", "see what it does, and add it to the definition by hand"),
        }
    }
    found
}

fn snake(key: &str) -> String {
    let mut out = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
