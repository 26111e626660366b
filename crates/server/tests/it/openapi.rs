//! The document at `/openapi.json`: it is sound, it stays as it is, and what the server answers is what it says.

use std::collections::BTreeSet;

use http::Method;
use keyholder::http::{document, table};
use serde_json::{Value, json};

use crate::app::{App, Reply, full};

#[test]
fn the_document_stays_as_it_is() {
    // A change of the API shows here; accept it with `cargo insta accept`, or INSTA_UPDATE=always.
    insta::assert_json_snapshot!("openapi", document());
}

#[tokio::test]
async fn the_server_serves_the_document() {
    let app = App::start().await;
    assert_eq!(app.anonymous().get("/openapi.json").await.ok(200), document());
}

#[test]
fn operation_ids_are_unique() {
    let document = document();
    let mut seen = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "{method} {path}: {id} comes twice");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut references = BTreeSet::new();
    gather(&document, &mut references);
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn gather(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                into.insert(reference.clone());
            }
            members.values().for_each(|member| gather(member, into));
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, into)),
        _ => {}
    }
}

/// What JSON Schema says of a value, as far as our document uses it. Stricter in one thing: a member that the schema doesn't name is an error.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(document, document.pointer(&reference[1..]).unwrap(), value, at);
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[word].as_array() {
            let refusals: Vec<_> = choices.iter().filter_map(|it| check(document, it, value, at).err()).collect();
            if refusals.len() == choices.len() {
                return Err(refusals.join("; or "));
            }
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|word| is(word, value)) {
        return Err(format!("{at}: {value} is no {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        return Err(format!("{at}: {value} is none of {allowed:?}"));
    }
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            check(document, &schema["items"], item, &format!("{at}[{index}]"))?;
        }
    }
    if let (Some(members), true) = (value.as_object(), types.contains(&"object")) {
        check_members(document, schema, members, at)?;
    }
    Ok(())
}

fn check_members(
    document: &Value,
    schema: &Value,
    members: &serde_json::Map<String, Value>,
    at: &str,
) -> Result<(), String> {
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(required) {
            return Err(format!("{at}: {required} is missing"));
        }
    }
    for (name, member) in members {
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(known), _) => check(document, known, member, &format!("{at}.{name}"))?,
            (None, Value::Object(_) | Value::Bool(true)) => {
                check(document, &schema["additionalProperties"], member, &format!("{at}.{name}"))?;
            }
            // Members named by numbers.
            (None, _) if schema["patternProperties"].is_object() => {
                let known = schema["patternProperties"].as_object().unwrap().values().next().unwrap();
                check(document, known, member, &format!("{at}.{name}"))?;
            }
            (None, _) => return Err(format!("{at}: {name} is not in the document")),
        }
    }
    Ok(())
}

fn is(word: &str, value: &Value) -> bool {
    match word {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the document uses the type {other}"),
    }
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let document = document();
    let schema = json!({"$ref": "#/components/schemas/TokenReply"});
    let good = json!({"access_token": "a", "token_type": "Bearer", "expires_at": 1, "expires_in": null, "scope": null, "connection": "c", "generation": 1});
    assert_eq!(check(&document, &schema, &good, "$"), Ok(()));
    for (member, value) in [("access_token", json!(1)), ("expires_at", json!("soon")), ("more", json!(1))] {
        let mut bad = good.clone();
        bad[member] = value;
        assert!(check(&document, &schema, &bad, "$").is_err(), "{member}");
    }
    let mut bad = good;
    bad.as_object_mut().unwrap().remove("access_token");
    assert!(check(&document, &schema, &bad, "$").is_err());
}

/// Calls routes by their template and holds every reply against the document.
struct Checked<'a> {
    app: &'a App,
    document: Value,
    seen: BTreeSet<(String, String)>,
}

impl Checked<'_> {
    async fn call(&mut self, method: &str, template: &str, name: &str, body: Value) -> Value {
        let parts = template.split('/').map(|part| if part.starts_with('{') { name } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        let verb: Method = method.to_uppercase().parse().unwrap();
        let body = if matches!(method, "get" | "delete") { String::new() } else { body.to_string() };
        let reply = self.app.admin().send(verb, &path, &[], full(body)).await;
        self.seen.insert((method.to_owned(), template.to_owned()));
        self.hold(method, template, reply)
    }

    fn hold(&self, method: &str, template: &str, reply: Reply) -> Value {
        let responses = &self.document["paths"][template][method]["responses"];
        let place = format!("{method} {template}: {} {}", reply.status, reply.text());
        let response = responses.get(reply.status.to_string()).unwrap_or(&responses["default"]);
        assert!(reply.status < 400, "{place}");
        if response.get("content").is_none() {
            return Value::Null;
        }
        let (kind, schema) = response["content"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(reply.header("content-type"), Some(kind.as_str()), "{place}");
        let value = reply.json();
        check(&self.document, &schema["schema"], &value, "$").unwrap_or_else(|why| panic!("{place}\n{why}"));
        value
    }
}

const OWN: &str = r#"
schema = 1
id = "own"
name = "Own"
source = ["https://own.example/docs"]
[[methods]]
grant = "client_credentials"
[token]
url = "https://own.example/token"
"#;

#[tokio::test]
async fn every_success_is_what_the_document_says() {
    let app = App::start().await;
    let base = app.sandbox.base_url().to_owned();
    let mut on = Checked { app: &app, document: document(), seen: BTreeSet::new() };

    on.call("get", "/v1/providers", "", json!(null)).await;
    on.call("get", "/v1/providers/{provider}", "oauth2", json!(null)).await;
    on.call("post", "/v1/providers", "", json!({"definition": OWN})).await;
    on.call("get", "/v1/providers/{provider}/versions", "oauth2", json!(null)).await;
    on.call("post", "/v1/providers/check", "", json!({"definition": OWN})).await;
    on.call("post", "/v1/providers/check", "", json!({"definition": "schema = 2", "file": "x.toml"})).await;
    on.call("post", "/v1/providers/discover", "", json!({"url": base})).await;

    on.call("post", "/v1/integrations", "", app.integration_body("people", "authorization_code")).await;
    on.call("post", "/v1/integrations", "", app.integration_body("machines", "client_credentials")).await;
    on.call("get", "/v1/integrations", "", json!(null)).await;
    on.call("get", "/v1/integrations/{integration}", "people", json!(null)).await;
    on.call("patch", "/v1/integrations/{integration}", "people", json!({"audience": "a", "scopes": ["read"]})).await;

    for (name, integration) in [("machine", "machines"), ("alice", "people")] {
        on.call("post", "/v1/connections", "", json!({"name": name, "integration": integration, "tags": {"a": "b"}}))
            .await;
    }
    let of = |verb: &str| format!("/v1/connections/{{connection}}{verb}");
    on.call("patch", &of(""), "machine", json!({})).await;
    on.call("post", &of("/authorize"), "machine", json!({})).await;
    on.call("get", &of("/token"), "machine", json!(null)).await;
    on.call("post", &of("/refresh"), "machine", json!({})).await;
    on.call("post", &of("/test"), "machine", json!({})).await;
    on.call("get", &of("/events"), "machine", json!(null)).await;
    let person = json!({"owner": "alice", "return_url": "https://app.example/done"});
    let begun = on.call("post", &of("/authorize"), "alice", person).await;
    let back = app.person().follow(begun["authorize_url"].as_str().unwrap()).await;
    let code = back.parameter("code").unwrap();
    on.call("post", &of("/complete"), "alice", json!({"code": code, "owner": "alice"})).await;
    on.call("post", &of("/cancel"), "alice", json!({})).await;
    on.call("get", "/v1/connections", "", json!(null)).await;
    on.call("get", &of(""), "alice", json!(null)).await;

    // A connection with a failure has more members.
    app.fault("error:invalid_client");
    app.admin().post("/v1/connections/machine/refresh", json!({})).await.problem(502, "setup_refused");
    let failing = on.call("get", &of(""), "machine", json!(null)).await;
    assert_eq!(failing["failure"]["kind"], "setup");
    app.sandbox.clear_faults();
    on.call("post", &of("/test"), "machine", json!({})).await;

    let source = json!({
        "name": "api", "connection": "machine", "base_url": format!("{base}/api/echo"), "variables": {"x": "1", "y": {"secret": true, "value": "2"}},
        "health": {"path": "/"}, "requests": {"api": {"path": "/{{x}}", "extract": "$.path", "expect": {"status": [200]}}}, "allow": [{"path": "/**"}],
    });
    on.call("post", "/v1/data-sources", "", source).await;
    let made = json!({"name": "more", "integration": app.integration_body("of more", "client_credentials"), "connection": {"name": "of more"}});
    on.call("post", "/v1/data-sources", "", made).await;
    on.call("get", "/v1/data-sources", "", json!(null)).await;
    let of_source = |verb: &str| format!("/v1/data-sources/{{source}}{verb}");
    on.call("get", &of_source(""), "api", json!(null)).await;
    on.call("patch", &of_source(""), "api", json!({"description": "for checks"})).await;
    on.call("post", &of_source("/test"), "api", json!({})).await;
    on.call("post", &of_source("/requests/{request}/run"), "api", json!({"variables": {"x": 2}})).await;
    on.call("delete", &of_source(""), "more", json!(null)).await;

    on.call("post", "/v1/connect-sessions", "", json!({"integration": "people", "owner": "bob"})).await;
    on.call("post", &of("/revoke"), "alice", json!({})).await;
    on.call("delete", &of(""), "alice", json!(null)).await;

    on.call("post", "/v1/keys", "", json!({"name": "k", "scopes": ["read"], "limits": {"methods": ["GET"]}})).await;
    on.call("get", "/v1/keys", "", json!(null)).await;
    on.call("delete", "/v1/keys/{key}", "k", json!(null)).await;
    on.call("post", "/v1/operators/links", "", json!({"scopes": ["read"]})).await;
    on.call("get", "/v1/audit", "", json!(null)).await;
    let advice = on.call("get", "/v1/advice", "", json!(null)).await;
    assert!(!advice["items"].as_array().unwrap().is_empty(), "{advice}");
    let used = on.call("get", "/v1/usage", "", json!(null)).await;
    assert!(!used["items"].as_array().unwrap().is_empty(), "{used}");
    on.call("get", "/v1/doctor", "", json!(null)).await;
    on.call("get", "/v1/seal", "", json!(null)).await;
    on.call("post", "/v1/seal/rotate", "", json!({})).await;
    on.call("get", "/v1/instance", "", json!(null)).await;
    on.call("post", "/v1/instance/retire", "", json!({})).await;
    on.call("post", "/v1/instance/live", "", json!({})).await;

    on.call("post", "/v1/integrations", "", app.integration_body("spare", "client_credentials")).await;
    on.call("post", "/v1/integrations/{integration}/upgrade", "spare", json!({"dry_run": true})).await;
    on.call("delete", "/v1/integrations/{integration}", "spare", json!(null)).await;
    on.call("delete", "/v1/providers/{provider}", "own", json!(null)).await;

    let missed: Vec<_> = table()
        .iter()
        // A stream has no end, and is no JSON; `console::connection` reads it.
        .filter(|route| route.scope.is_some() && route.method != "any" && route.path != "/v1/events")
        .filter(|route| !on.seen.contains(&(route.method.to_owned(), route.path.to_owned())))
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert!(missed.is_empty(), "nobody held these replies against the document: {missed:?}");
}

#[tokio::test]
async fn a_problem_is_what_the_document_says() {
    let app = App::start().await;
    app.draft("new", "authorization_code").await;
    app.draft("machine", "client_credentials").await;
    app.fault("status:503");
    let admin = app.admin();
    let problems = [
        admin.get("/v1/connections/nothing").await,
        admin.post("/v1/connections", json!({"name": "x", "more": 1})).await,
        admin.get("/v1/connections/new/token").await,
        admin.get("/v1/connections/machine/token").await,
        app.anonymous().get("/v1/keys").await,
        admin.post("/v1/providers", json!({"definition": "schema = 2"})).await,
    ];
    let document = document();
    for reply in problems {
        assert!(reply.status >= 400);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        check(&document, &json!({"$ref": "#/components/schemas/Problem"}), &reply.json(), "$").unwrap();
    }
}
