//! Where in the text of a definition a field stands.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::DefinitionError;

/// The text of a definition and its syntax tree.
pub(crate) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    tree: Spanned<DeTable<'a>>,
}

/// Keys from the top, items of an array by their number.
pub(crate) type Path<'p> = &'p [&'p str];

impl<'a> Source<'a> {
    /// Reads the syntax; the error is that of the first line that is not TOML.
    pub fn read(file: &'a str, text: &'a str) -> Result<Self, DefinitionError> {
        let tree = DeTable::parse(text).map_err(|error| {
            let at = error.span().unwrap_or(0..0).start;
            problem(
                file,
                text,
                at,
                String::new(),
                error.message().to_owned(),
                "write TOML as https://toml.io describes it",
            )
        })?;
        Ok(Self { file, text, tree })
    }

    /// Reads the fields; the error is that of the first unknown field or wrong type.
    pub fn fields<T: DeserializeOwned>(&self) -> Result<T, DefinitionError> {
        toml::from_str(self.text).map_err(|error: toml::de::Error| {
            let at = error.span().unwrap_or(0..0).start;
            let field = show(&self.path_at(at).iter().map(String::as_str).collect::<Vec<_>>());
            let reason = error.message().lines().next().unwrap_or_default().to_owned();
            problem(
                self.file,
                self.text,
                at,
                field,
                reason,
                "write the field as docs/provider-language.md describes it",
            )
        })
    }

    /// An error at a field's value, or at the nearest table above it if the field is missing.
    pub fn error(&self, path: Path<'_>, reason: impl Into<String>, remedy: impl Into<String>) -> DefinitionError {
        problem(self.file, self.text, self.find(path), show(path), reason.into(), &remedy.into())
    }

    /// Sorts the keys of a table as they stand in the file.
    pub fn order<T>(&self, table: Path<'_>, entries: impl IntoIterator<Item = (String, T)>) -> Vec<(String, T)> {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(key, _)| self.find_key(&[table, &[key.as_str()]].concat()));
        entries
    }

    fn find(&self, path: Path<'_>) -> usize {
        let mut place = 0;
        let mut here = Node::Table(self.tree.get_ref());
        for step in path {
            let Some((key, value)) = here.child(step) else {
                return place;
            };
            here = Node::of(value.get_ref());
            place = match here {
                Node::Leaf => value.span().start,
                _ => key.map_or(value.span().start, |key| key.start),
            };
        }
        place
    }

    fn find_key(&self, path: Path<'_>) -> usize {
        let mut here = Node::Table(self.tree.get_ref());
        let mut place = 0;
        for step in path {
            let Some((key, value)) = here.child(step) else {
                return place;
            };
            place = key.map_or(value.span().start, |key| key.start);
            here = Node::of(value.get_ref());
        }
        place
    }

    /// The path of the smallest key or value that a byte of the text belongs to.
    fn path_at(&self, at: usize) -> Vec<String> {
        let mut best = (usize::MAX, Vec::new());
        let mut stack = vec![(Vec::<String>::new(), Node::Table(self.tree.get_ref()))];
        while let Some((path, node)) = stack.pop() {
            for (name, (key, value)) in node.children() {
                let mut path = path.clone();
                path.push(name);
                for span in key.into_iter().chain([value.span()]) {
                    if span.contains(&at) && span.len() < best.0 {
                        best = (span.len(), path.clone());
                    }
                }
                stack.push((path, Node::of(value.get_ref())));
            }
        }
        best.1
    }
}

/// A value and the place of its key; items of an array have none.
type Child<'t, 'a> = (Option<Range<usize>>, &'t Spanned<DeValue<'a>>);

enum Node<'t, 'a> {
    Table(&'t DeTable<'a>),
    Array(&'t toml::de::DeArray<'a>),
    Leaf,
}

impl<'t, 'a> Node<'t, 'a> {
    fn of(value: &'t DeValue<'a>) -> Self {
        match value {
            DeValue::Table(table) => Node::Table(table),
            DeValue::Array(array) => Node::Array(array),
            _ => Node::Leaf,
        }
    }

    fn child(&self, step: &str) -> Option<Child<'t, 'a>> {
        self.children().into_iter().find(|(name, _)| name == step).map(|(_, child)| child)
    }

    fn children(&self) -> Vec<(String, Child<'t, 'a>)> {
        match self {
            Node::Table(table) => {
                table.iter().map(|(key, value)| (key.get_ref().to_string(), (Some(key.span()), value))).collect()
            }
            Node::Array(array) => {
                array.iter().enumerate().map(|(index, value)| (index.to_string(), (None, value))).collect()
            }
            Node::Leaf => Vec::new(),
        }
    }
}

/// `methods[0].name`
fn show(path: Path<'_>) -> String {
    let mut out = String::new();
    for step in path {
        if !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{step}]"));
            continue;
        }
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(step);
    }
    out
}

fn problem(file: &str, text: &str, at: usize, field: String, reason: String, remedy: &str) -> DefinitionError {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    DefinitionError {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        field,
        reason,
        remedy: remedy.to_owned(),
    }
}
