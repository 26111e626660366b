//! Values in the shape that a definition says: places, questions, samples.

use serde_json::{Map, Value, json};

/// A place in a reply as a JSON pointer: a bare name means the member at the top.
pub(super) fn pointer(place: &str) -> String {
    if place.is_empty() || place.starts_with('/') { place.to_owned() } else { format!("/{place}") }
}

/// Puts a value where the pointer says, making tables and lists on the way.
pub(super) fn put(root: &mut Value, place: &str, value: Value) {
    let mut here = root;
    for step in pointer(place).split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if let (Ok(index), true) = (step.parse::<usize>(), here.is_null() || here.is_array()) {
            if here.is_null() {
                *here = json!([]);
            }
            let Value::Array(items) = here else { return };
            if items.len() <= index {
                items.resize(index + 1, Value::Null);
            }
            here = &mut items[index];
            continue;
        }
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here = &mut here[step.as_str()];
    }
    *here = value;
}

/// Makes the answer to a question yes (or no).
pub(super) fn answer(root: &mut Value, question: &Value, yes: bool) {
    let Some(place) = question["pointer"].as_str() else { return };
    let there = root.pointer(&pointer(place)).cloned().filter(|value| !value.is_null());
    let (wanted, same) = match (question.get("equals"), question.get("not_equals"), question.get("exists")) {
        (Some(wanted), _, _) => (Some(wanted), yes),
        (_, Some(wanted), _) => (Some(wanted), !yes),
        (_, _, Some(Value::Bool(exists))) => {
            match (*exists == yes, there) {
                (true, None) => put(root, place, json!("rehearsed")),
                (false, Some(_)) => put(root, place, Value::Null),
                _ => {}
            }
            return;
        }
        _ => return,
    };
    let wanted = wanted.cloned().unwrap_or_default();
    match there {
        _ if same => put(root, place, wanted),
        Some(known) if known != wanted => {}
        _ => put(root, place, other_than(&wanted)),
    }
}

fn other_than(value: &Value) -> Value {
    match value {
        Value::Bool(truth) => json!(!truth),
        Value::Number(number) => json!(number.as_i64().unwrap_or(0) + 1),
        Value::String(text) => json!(format!("not_{text}")),
        _ => json!("other"),
    }
}

/// A text that matches a regular expression, as far as definitions use them: characters, classes, groups, alternatives and
/// repetitions. The first alternative, the first character of a class, and as few repetitions as may be (though six of what may be more than that,
/// so that a sample is not taken for a part of something else).
pub fn matching(pattern: &str) -> String {
    let mut rest = pattern.chars().collect::<Vec<_>>().into_iter().peekable();
    alternatives(&mut rest)
}

type Chars = std::iter::Peekable<std::vec::IntoIter<char>>;

fn alternatives(rest: &mut Chars) -> String {
    let mut all = vec![String::new()];
    while let Some(next) = rest.next() {
        let one = match next {
            ')' => break,
            '|' => {
                all.push(String::new());
                continue;
            }
            '(' => {
                if rest.next_if_eq(&'?').is_some() {
                    // `(?:`, `(?i)`, `(?P<name>`
                    while let Some(next) = rest.peek() {
                        let ends = matches!(next, ':' | '>' | ')');
                        let closes = *next == ')';
                        if closes {
                            break;
                        }
                        rest.next();
                        if ends {
                            break;
                        }
                    }
                }
                alternatives(rest)
            }
            '[' => class(rest),
            '\\' => escaped(rest.next().unwrap_or('\\')).to_owned(),
            '^' | '$' => continue,
            '.' => "a".to_owned(),
            plain => plain.to_string(),
        };
        let times = repetitions(rest);
        if let Some(last) = all.last_mut() {
            last.push_str(&one.repeat(times));
        }
    }
    all.into_iter().next().unwrap_or_default()
}

fn escaped(what: char) -> String {
    match what {
        'd' => "7".to_owned(),
        'w' => "a".to_owned(),
        's' => " ".to_owned(),
        plain => plain.to_string(),
    }
}

/// A character of a class; a letter or digit if there is one.
fn class(rest: &mut Chars) -> String {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut found: Vec<char> = Vec::new();
    while let Some(next) = rest.next() {
        match next {
            ']' if !found.is_empty() => break,
            '\\' => found.extend(escaped(rest.next().unwrap_or('\\')).chars()),
            plain => found.push(plain),
        }
    }
    if negated {
        return ['a', '7', '-'].iter().find(|c| !found.contains(c)).unwrap_or(&'z').to_string();
    }
    found.iter().find(|c| c.is_ascii_alphanumeric()).or(found.first()).map(char::to_string).unwrap_or_default()
}

fn repetitions(rest: &mut Chars) -> usize {
    match rest.peek() {
        Some('?') => {
            rest.next();
            0
        }
        Some('*') => {
            rest.next();
            6
        }
        Some('+') => {
            rest.next();
            6
        }
        Some('{') => {
            rest.next();
            let bounds: String = std::iter::from_fn(|| rest.next_if(|next| *next != '}')).collect();
            rest.next();
            let (least, most) = bounds.split_once(',').unwrap_or((&bounds, &bounds));
            let least: usize = least.trim().parse().unwrap_or(0);
            let most: usize = most.trim().parse().unwrap_or(usize::MAX);
            least.max(6.min(most))
        }
        _ => 1,
    }
}
