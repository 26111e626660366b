//! What is merged before anything is read: what a definition extends, and what phases take from each other.

use std::rc::Rc;

use super::Bases;
use crate::definition::Base;
use crate::error::DefinitionError;
use crate::source::{Node, Sources, Value};

/// The longest chain of definitions that extend each other.
const MAX_CHAIN: usize = 8;

/// What belongs to one definition alone.
const NOT_INHERITED: [&str; 5] = ["schema", "id", "aliases", "extends", "checked"];

/// What a renewal and a further exchange take from `[token]`, where they don't say it themselves.
const LIKE_TOKEN: [&str; 9] =
    ["method", "client_auth", "client_assertion", "body", "headers", "rename", "drop", "reply", "secondary"];

/// The same for the other requests that the client authenticates.
const LIKE_CLIENT: [&str; 6] = ["client_auth", "client_assertion", "body", "headers", "rename", "drop"];

/// Reads a definition and those that it extends into one tree; beside it those, nearest first.
pub(super) fn load(
    sources: &mut Sources,
    file: &str,
    text: &str,
    bases: Bases<'_>,
) -> Result<(Node, Vec<Base>), DefinitionError> {
    let mut chain = vec![sources.read(file, text)?];
    let mut ids: Vec<String> = chain[0].member("id").and_then(Node::as_text).map(str::to_owned).into_iter().collect();
    let mut found = Vec::new();
    while let Some(extends) = chain.last().and_then(|tree| tree.member("extends")).cloned() {
        let wrong = |reason: String, remedy: &str| Err(sources.error_at(extends.place, &[], reason, remedy));
        let Some(id) = extends.as_text() else {
            return wrong("it is not a text".to_owned(), "write the id of a definition");
        };
        if ids.iter().any(|known| known == id) {
            return wrong(format!("`{id}` extends this definition, or is it"), "let it extend another one");
        }
        if chain.len() >= MAX_CHAIN {
            return wrong(
                format!("there are more than {MAX_CHAIN} definitions in the chain"),
                "extend one that is nearer",
            );
        }
        let Some((base_file, base_text)) = bases(id) else {
            return wrong(format!("there is no definition `{id}`"), "write the id of a definition that is there");
        };
        ids.push(id.to_owned());
        chain.push(sources.read(&base_file, &base_text)?);
        found.push(Base { id: id.to_owned(), text: base_text.into() });
    }
    let mut trees = chain.into_iter().rev();
    let first =
        trees.next().ok_or_else(|| sources.error(&Node::default(), &[], "it is empty", "write a definition"))?;
    Ok((trees.fold(first, |base, over| extended(&base, &over)), found))
}

fn extended(base: &Node, over: &Node) -> Node {
    let base = base.only(|key| !NOT_INHERITED.contains(&key));
    let mut merged = base.merged(over);
    if let (Some(old), Some(new)) = (base.member("methods"), over.member("methods")) {
        let mut methods = old.items().to_vec();
        for method in new.items() {
            match methods.iter_mut().find(|known| name_of(known) == name_of(method)) {
                Some(known) => *known = known.merged(method),
                None => methods.push(method.clone()),
            }
        }
        merged.put("methods", Node { value: Value::Array(Rc::new(methods)), place: new.place });
    }
    merged
}

fn name_of(method: &Node) -> Option<&str> {
    method.member("name").or_else(|| method.member("grant")).and_then(Node::as_text)
}

/// The phases with what they take from `[token]`; what they say themselves is merged over it, key by key.
pub(super) fn inherited(phases: &Node) -> Node {
    let mut all = phases.clone();
    let Some(token) = phases.member("token") else { return all };
    for (phase, keys, always) in [
        ("refresh", &LIKE_TOKEN[..], true),
        ("follow_up", &LIKE_TOKEN[..], false),
        ("revoke", &LIKE_CLIENT[..], true),
        ("introspect", &LIKE_CLIENT[..], true),
        ("device", &LIKE_CLIENT[..], false),
    ] {
        let base = token.only(|key| keys.contains(&key));
        match phases.member(phase) {
            Some(own) => all.put(phase, base.merged(own)),
            None if always => all.put(phase, base),
            None => {}
        }
    }
    all
}
