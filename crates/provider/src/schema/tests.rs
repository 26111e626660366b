//! `docs/provider.schema.json`: the language as editors know it, made from the types that read it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value as Json, json};

use super::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/provider.schema.json");

macro_rules! named {
    ($($kind:ty: $name:expr, $generator:ident => $schema:expr;)*) => {
        $(impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        })*
    };
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Table_of_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        // `false` removes what is inherited.
        json_schema!({ "type": "object", "additionalProperties": { "anyOf": [value, { "const": false }] } })
    }
}

impl<A: JsonSchema, B: JsonSchema> JsonSchema for Either<A, B> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_{}", A::schema_name(), B::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (short, long) = (generator.subschema_for::<A>(), generator.subschema_for::<B>());
        json_schema!({ "anyOf": [short, long] })
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("One_or_many_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

named! {
    Code: "Code", _generator => json_schema!({ "type": ["string", "integer"] });
}

/// The schema, as it is written into the file.
fn schema() -> String {
    let mut generator = SchemaSettings::draft07().into_generator();
    let members = |schema: Schema| -> Map<String, Json> {
        let schema = schema.to_value();
        schema["properties"].as_object().unwrap().clone()
    };
    let mut phases = members(Phases::json_schema(&mut generator));
    let mut method = members(MethodHead::json_schema(&mut generator));
    let mut file = members(Head::json_schema(&mut generator));
    for properties in [&mut phases, &mut method, &mut file] {
        may_remove(properties);
    }
    method.extend(phases.clone());
    file.extend(phases);
    let methods = json!({
        "description": "One way to authenticate each; the first is the default. A method may have any of the phases, and is merged over them.",
        "type": "array",
        "items": { "type": "object", "properties": method, "additionalProperties": false, "required": ["grant"] },
    });
    file.insert("methods".to_owned(), methods);
    let mut definitions = generator.take_definitions(true);
    for definition in definitions.values_mut() {
        if let Some(properties) = definition.get_mut("properties").and_then(Json::as_object_mut) {
            may_remove(properties);
        }
    }
    let whole = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A provider definition of Keyholder",
        "type": "object",
        "required": ["schema", "id"],
        "properties": file,
        "additionalProperties": false,
        "definitions": definitions,
    });
    format!("{}\n", serde_json::to_string_pretty(&whole).unwrap())
}

/// TOML has no null, and `false` removes what is inherited.
fn may_remove(properties: &mut Map<String, Json>) {
    for property in properties.values_mut() {
        let Some(property) = property.as_object_mut() else { continue };
        property.remove("default");
        if let Some(Json::Array(types)) = property.get_mut("type") {
            types.retain(|it| it != "null");
            if let [one] = types.as_slice() {
                let one = one.clone();
                property.insert("type".to_owned(), one);
            }
        }
        if let Some(Json::Array(any)) = property.get_mut("anyOf") {
            any.retain(|it| *it != json!({ "type": "null" }));
        }
        let is_bool = property.get("type") == Some(&json!("boolean"));
        if !is_bool {
            let description = property.remove("description");
            let mut with_false = json!({ "anyOf": [Json::Object(property.clone()), { "const": false }] });
            if let Some(description) = description {
                with_false["description"] = description;
            }
            *property = with_false.as_object().unwrap().clone();
        }
    }
}

/// Editors must know what the parser knows. `UPDATE=1` writes the file.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test that writes its own snapshot")]
fn the_json_schema_is_the_language() {
    let schema = schema();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(FILE, &schema).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        written == schema,
        "docs/provider.schema.json is not what the types say; look at it after `UPDATE=1 cargo nextest run -p keyholder-provider schema`"
    );
}

/// Every property of the schema is in the reference, by its name.
#[test]
fn every_field_is_in_the_reference() {
    fn names(schema: &Json, into: &mut std::collections::BTreeSet<String>) {
        match schema {
            Json::Object(members) => {
                if let Some(properties) = members.get("properties").and_then(Json::as_object) {
                    into.extend(properties.keys().cloned());
                }
                members.values().for_each(|value| names(value, into));
            }
            Json::Array(items) => items.iter().for_each(|value| names(value, into)),
            _ => {}
        }
    }
    let schema: Json = serde_json::from_str(&schema()).unwrap();
    let mut all = std::collections::BTreeSet::new();
    names(&schema, &mut all);
    let reference = include_str!("../../../../docs/provider-language.md");
    let words: std::collections::BTreeSet<&str> =
        reference.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing: Vec<_> = all.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/provider-language.md does not speak of {missing:?}");
    assert!(all.len() > 150, "the schema lost its properties: {}", all.len());
}

/// The schema accepts what the parser accepts, as far as names and types go.
#[test]
fn the_catalogue_fits_the_schema() {
    let schema: Json = serde_json::from_str(&schema()).unwrap();
    for (file, text) in crate::built_in::BUILT_IN {
        let value: toml::Table = toml::from_str(text).unwrap();
        let value = serde_json::to_value(value).unwrap();
        if let Err(why) = fits(&schema, &schema, &value) {
            panic!("{file}: {why}");
        }
    }
    for wrong in [
        json!({"schema": 1, "id": "a", "nmae": 1}),
        json!({"schema": 1, "id": "a", "token": {"client_auth": "magic"}}),
        json!({"id": "a"}),
    ] {
        assert!(fits(&schema, &schema, &wrong).is_err(), "{wrong}");
    }
}

/// As much of JSON Schema as the file uses.
fn fits(root: &Json, schema: &Json, value: &Json) -> Result<(), String> {
    let Some(rules) = schema.as_object() else { return Ok(()) };
    if let Some(reference) = rules.get("$ref").and_then(Json::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).ok_or(format!("no {reference}"))?;
        return fits(root, target, value);
    }
    for any in ["anyOf", "oneOf"].iter().filter_map(|name| rules.get(*name).and_then(Json::as_array)) {
        let all: Vec<_> = any.iter().map(|one| fits(root, one, value)).collect();
        if all.iter().all(Result::is_err) {
            return Err(format!("{value} fits none: {all:?}"));
        }
    }
    for one in rules.get("allOf").and_then(Json::as_array).into_iter().flatten() {
        fits(root, one, value)?;
    }
    if rules.get("const").is_some_and(|wanted| wanted != value) {
        return Err(format!("{value} is not {}", rules["const"]));
    }
    if rules.get("enum").and_then(Json::as_array).is_some_and(|known| !known.contains(value)) {
        return Err(format!("{value} is not one of {}", rules["enum"]));
    }
    let kind = match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    let allowed = |types: &Json| *types == json!(kind) || (kind == "integer" && *types == json!("number"));
    let typed = match rules.get("type") {
        None => true,
        Some(Json::Array(types)) => types.iter().any(allowed),
        Some(one) => allowed(one),
    };
    if !typed {
        return Err(format!("{value} is not {}", rules["type"]));
    }
    for required in rules.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
        if value.get(required).is_none() {
            return Err(format!("no {required}"));
        }
    }
    if let (Some(items), Some(values)) = (rules.get("items"), value.as_array()) {
        values.iter().try_for_each(|value| fits(root, items, value))?;
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let known = rules.get("properties").and_then(|properties| properties.get(name));
        match known.or(rules.get("additionalProperties")) {
            Some(Json::Bool(false)) => return Err(format!("unknown {name}")),
            Some(schema) => fits(root, schema, member).map_err(|why| format!("{name}: {why}"))?,
            None => {}
        }
    }
    Ok(())
}
