//! OpenAPI 3.1, made from the table of routes and the types of the bodies, so that it can't say anything else than the program does.

use axum::Json;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::routes::{Route, table};

/// `GET /openapi.json`.
pub(super) async fn serve() -> Json<Value> {
    Json(document())
}

/// The document.
pub fn document() -> Value {
    // OpenAPI 3.1 schemas are JSON Schema 2020-12.
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths = Map::new();
    for route in table().into_iter().filter(|route| route.documented) {
        let item = paths.entry(route.path.replace("{*path}", "{path}")).or_insert_with(|| json!({}));
        let methods: &[&str] = if route.method == "any" {
            &["get", "put", "post", "delete", "patch", "head", "options"]
        } else {
            &[route.method]
        };
        for method in methods {
            item[*method] = operation(&route, method, &problem, &mut generator);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keyholder",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Holds OAuth 2.0 connections for the programs that use them",
            "description": "Times are Unix milliseconds. Things are named by id or by their unique name. Errors are problem documents (RFC 9457). A POST with an `Idempotency-Key` is done once.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, `khk_…`"}},
        },
    })
}

fn operation(route: &Route, method: &str, problem: &Schema, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route, method),
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": {
            route.success.to_string(): success(route, generator),
            "default": {
                "description": "A problem",
                "content": {"application/problem+json": {"schema": problem}},
            },
        },
    });
    if let Some(input) = route.input {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": input(generator)}}});
    }
    if let Some(scope) = route.scope {
        operation["security"] = json!([{"key": []}]);
        operation["x-scope"] = json!(scope.as_str());
    }
    operation
}

fn success(route: &Route, generator: &mut SchemaGenerator) -> Value {
    match route.output {
        Some(output) => json!({"description": "Done", "content": {"application/json": {"schema": output(generator)}}}),
        None if route.success == 204 => json!({"description": "Done"}),
        None if route.method == "any" => json!({"description": "What the API answered"}),
        None => json!({"description": "A page, a redirect or a document"}),
    }
}

fn parameters(route: &Route) -> Value {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        let name = name.trim_start_matches('*');
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
    });
    let in_query = route.query.iter().map(|(name, text)| {
        let schema = if *name == "limit" { "integer" } else { "string" };
        json!({"name": name, "in": "query", "required": false, "description": text, "schema": {"type": schema}})
    });
    in_path.chain(in_query).collect()
}

/// `get_v1_connections_connection_token`: unique, and stable as long as the path is.
fn operation_id(route: &Route, method: &str) -> String {
    let path: String = route.path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let words: Vec<&str> = path.split('_').filter(|word| !word.is_empty()).collect();
    format!("{method}_{}", words.join("_"))
}
