//! YAML as exports have it, read into JSON values. Depth is bounded, and a file may not repeat parts of itself by name: both could make a small file a huge one.

use serde_json::{Map, Value};
use yaml_rust2::Event;
use yaml_rust2::parser::Parser;
use yaml_rust2::scanner::TScalarStyle;

use super::{ImportError, error};

const DEEPEST: usize = 64;

/// What is being read: a list, or a mapping with the name that waits for its value.
enum Open {
    List(Vec<Value>),
    Members(Map<String, Value>, Option<String>),
}

pub(super) fn read(text: &str) -> Result<Value, ImportError> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    loop {
        let (event, at) = parser.next_token().map_err(|e| broken(e.marker().line(), "it is not YAML"))?;
        let value = match event {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                None
            }
            Event::MappingStart(..) => {
                open.push(Open::Members(Map::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Some(Value::Array(list)),
                Some(Open::Members(members, _)) => Some(Value::Object(members)),
                None => None,
            },
            Event::Scalar(text, style, ..) => Some(scalar(text, style)),
            Event::Alias(_) => {
                return Err(broken(at.line(), "it repeats a part of itself by name, which no export does"));
            }
            Event::StreamEnd => return Err(broken(at.line(), "it is empty")),
            _ => None,
        };
        if open.len() > DEEPEST {
            return Err(broken(at.line(), "it is nested too deeply"));
        }
        let Some(value) = value else { continue };
        match open.last_mut() {
            // The first document counts.
            None => return Ok(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Members(members, name)) => match name.take() {
                Some(name) => drop(members.insert(name, value)),
                None => *name = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            },
        }
    }
}

fn scalar(text: String, style: TScalarStyle) -> Value {
    if style != TScalarStyle::Plain {
        return Value::String(text);
    }
    match text.as_str() {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => Value::String(text),
    }
}

fn broken(line: usize, reason: &str) -> ImportError {
    error("file", format!("line {line}: {reason}"), "export it again")
}
