//! The text of a definition as a tree in which every key and value knows where it stands, so that texts can be merged first,
//! and read and judged afterwards.

use std::fmt;
use std::rc::Rc;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::DefinitionError;

/// The longest text that is read, in bytes; the longest definitions have some thousands.
pub(crate) const MAX_TEXT: usize = 1 << 20;

/// Most keys of a table and items of a list; the longest list of scopes has some hundreds.
const MAX_ENTRIES: usize = 2000;

/// Deeper than any definition; the parser gives up some way behind it.
const DEEP: usize = 32;

/// The place of a whole file: its first character, which may be that of a key too.
const ROOT: usize = usize::MAX;

/// Keys from the top, items of an array by their number.
pub(crate) type Path<'p> = &'p [&'p str];

/// The files that a definition is made of: its own first, then those that it extends.
#[derive(Default)]
pub(crate) struct Sources {
    files: Vec<File>,
}

struct File {
    name: String,
    text: String,
    tree: Node,
}

/// Where in which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    file: usize,
    at: usize,
}

/// A value with its place: that of its key for a table or an array of a key, else its own. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Table(Rc<Vec<Entry>>),
    Array(Rc<Vec<Node>>),
    Text(Rc<str>),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// A date or a time, which no field is; or a number that is too large.
    Other(&'static str),
}

/// In the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: Rc<str>,
    place: Place,
    pub node: Node,
}

impl Sources {
    /// Reads the syntax of one more file; the error is that of the first line that is not TOML.
    pub fn read(&mut self, name: &str, text: &str) -> Result<Node, DefinitionError> {
        let file = self.files.len();
        let wrong = |at: usize, reason: String, remedy: &str| problem(name, text, at, String::new(), reason, remedy);
        if text.len() > MAX_TEXT {
            return Err(wrong(
                0,
                format!("the file has {} bytes, and at most {MAX_TEXT} are read", text.len()),
                "write a shorter one",
            ));
        }
        // What the parser says of depth, and whether it says where, hangs on features that other crates may switch on.
        let is_depth = |message: &str| message.contains("recurs");
        let tree = DeTable::parse(text).map_err(|error| match error.span().filter(|_| !is_depth(error.message())) {
            Some(span) => wrong(span.start, error.message().to_owned(), "write TOML as https://toml.io describes it"),
            None => wrong(deep_end(text), "it is nested too deeply".to_owned(), "write it flatter"),
        })?;
        if let Some(at) = crowded(tree.get_ref()) {
            let reason = format!("there are more than {MAX_ENTRIES} beside each other");
            return Err(wrong(at, reason, "write fewer"));
        }
        let tree = Node { value: table(file, tree.get_ref()), place: Place { file, at: ROOT } };
        self.files.push(File { name: name.to_owned(), text: text.to_owned(), tree: tree.clone() });
        Ok(tree)
    }

    /// An error at a field of a tree made of these files, or at the nearest table above it if the field is missing.
    pub fn error(
        &self,
        root: &Node,
        path: Path<'_>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> DefinitionError {
        let (place, known) = root.find(path);
        self.error_at(place, &path[known..], reason, remedy)
    }

    /// An error at a place; `missing` are the keys below it that are not there.
    pub fn error_at(
        &self,
        place: Place,
        missing: Path<'_>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> DefinitionError {
        let file = &self.files[place.file];
        let mut path = file.tree.path_of(place).unwrap_or_default();
        path.extend(missing.iter().map(|step| (*step).to_owned()));
        let at = if place.at == ROOT { 0 } else { place.at };
        problem(&file.name, &file.text, at, show(&path), reason.into(), &remedy.into())
    }

    /// Reads the fields of a tree; the error is that of the first unknown field or wrong type.
    pub fn fields<T: de::DeserializeOwned>(&self, tree: &Node) -> Result<T, DefinitionError> {
        T::deserialize(tree).map_err(|error| {
            let place = error.place.unwrap_or(tree.place);
            self.error_at(place, &[], error.reason, "write the field as docs/provider-language.md describes it")
        })
    }
}

impl Default for Node {
    /// A table without entries, at the start of the first file.
    fn default() -> Self {
        Self { value: Value::Table(Rc::default()), place: Place { file: 0, at: ROOT } }
    }
}

impl Node {
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A member of a table.
    pub fn member(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| &*entry.key == key).map(|entry| &entry.node)
    }

    /// The same table with only the members whose keys fit.
    pub fn only(&self, fits: impl Fn(&str) -> bool) -> Self {
        let entries = self.entries().iter().filter(|entry| fits(&entry.key)).cloned().collect();
        Self { value: Value::Table(Rc::new(entries)), place: self.place }
    }

    /// Puts a member in the place of that of the same key, or after all others.
    pub fn put(&mut self, key: &str, node: Node) {
        let Value::Table(entries) = &mut self.value else { return };
        let entries = Rc::make_mut(entries);
        match entries.iter_mut().find(|entry| &*entry.key == key) {
            Some(entry) => entry.node = node,
            None => entries.push(Entry { key: key.into(), place: node.place, node }),
        }
    }

    /// The two merged key by key: tables merge, everything else is replaced, and `false` where something other than a truth
    /// value stood removes it.
    pub fn merged(&self, over: &Node) -> Node {
        let (Value::Table(base), Value::Table(more)) = (&self.value, &over.value) else {
            return over.clone();
        };
        let mut entries = (**base).clone();
        for entry in more.iter() {
            let Some(known) = entries.iter().position(|known| known.key == entry.key) else {
                entries.push(entry.clone());
                continue;
            };
            let removes = matches!(entry.node.value, Value::Bool(false));
            if removes && !matches!(entries[known].node.value, Value::Bool(_)) {
                entries.remove(known);
            } else {
                let node = entries[known].node.merged(&entry.node);
                entries[known] = Entry { node, ..entry.clone() };
            }
        }
        Node { value: Value::Table(Rc::new(entries)), place: over.place }
    }

    /// The same as JSON; dates, which no field has, are `null`.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Table(entries) => {
                entries.iter().map(|entry| (entry.key.to_string(), entry.node.to_json())).collect()
            }
            Value::Array(items) => items.iter().map(Node::to_json).collect(),
            Value::Text(text) => (&**text).into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Bool(yes) => (*yes).into(),
            Value::Other(_) => serde_json::Value::Null,
        }
    }

    /// The place of a field and how many steps of the path there are.
    fn find(&self, path: Path<'_>) -> (Place, usize) {
        let mut here = self;
        for (known, step) in path.iter().enumerate() {
            let child = match &here.value {
                Value::Table(_) => here.member(step),
                Value::Array(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
                _ => None,
            };
            match child {
                Some(child) => here = child,
                None => return (here.place, known),
            }
        }
        (here.place, path.len())
    }

    fn path_of(&self, place: Place) -> Option<Vec<String>> {
        let children: Vec<(String, Place, &Node)> = match &self.value {
            Value::Table(entries) => {
                entries.iter().map(|entry| (entry.key.to_string(), entry.place, &entry.node)).collect()
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, item)| (index.to_string(), item.place, item)).collect()
            }
            _ => Vec::new(),
        };
        for (name, key, child) in children {
            if key == place || child.place == place {
                return Some(vec![name]);
            }
            if let Some(mut path) = child.path_of(place) {
                path.insert(0, name);
                return Some(path);
            }
        }
        None
    }
}

/// Where a text that is nested too deeply becomes so: at a bracket, or in a key of very many parts.
fn deep_end(text: &str) -> usize {
    let (mut depth, mut dots, mut quote) = (0_usize, 0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (_, '\n') => (dots, quote) = (0, None),
            (Some(_), _) => {}
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, '.') => dots += 1,
            (None, '=') => dots = 0,
            _ => {}
        }
        if depth > DEEP || dots > DEEP {
            return at;
        }
    }
    0
}

/// The first key or item that is too many.
fn crowded(entries: &DeTable<'_>) -> Option<usize> {
    fn of_value(value: &Spanned<DeValue<'_>>) -> Option<usize> {
        match value.get_ref() {
            DeValue::Table(entries) => crowded(entries),
            DeValue::Array(items) => match items.get(MAX_ENTRIES) {
                Some(item) => Some(item.span().start),
                None => items.iter().find_map(of_value),
            },
            _ => None,
        }
    }
    if entries.len() > MAX_ENTRIES {
        let mut places: Vec<usize> = entries.iter().map(|(key, _)| key.span().start).collect();
        places.sort_unstable();
        return places.get(MAX_ENTRIES).copied();
    }
    entries.iter().find_map(|(_, value)| of_value(value))
}

fn table(file: usize, entries: &DeTable<'_>) -> Value {
    let mut entries: Vec<_> = entries
        .iter()
        .map(|(key, value)| {
            let place = Place { file, at: key.span().start };
            let mut node = node(file, value);
            if matches!(node.value, Value::Table(_) | Value::Array(_)) {
                node.place = place;
            }
            Entry { key: Rc::from(key.get_ref().as_ref()), place, node }
        })
        .collect();
    entries.sort_by_key(|entry| entry.place.at);
    Value::Table(Rc::new(entries))
}

fn node(file: usize, value: &Spanned<DeValue<'_>>) -> Node {
    let place = Place { file, at: value.span().start };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(Rc::from(text.as_ref())),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Other("large number"), Value::Integer)
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok().filter(|number: &f64| number.is_finite());
            number.map_or(Value::Other("infinite number"), Value::Float)
        }
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(_) => Value::Other("date"),
        DeValue::Array(items) => Value::Array(Rc::new(items.iter().map(|item| node(file, item)).collect())),
        DeValue::Table(entries) => table(file, entries),
    };
    Node { value, place }
}

/// `methods[0].name`
fn show(path: &[String]) -> String {
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

/// Why a tree does not have the form of a type, and where: the innermost place that is known.
#[derive(Debug)]
pub(crate) struct FieldError {
    place: Option<Place>,
    reason: String,
}

impl FieldError {
    fn or_at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self { place: None, reason: reason.to_string() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for FieldError {}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match &self.value {
            Value::Table(entries) => visitor.visit_map(Entries { rest: entries, node: None }),
            Value::Array(items) => visitor.visit_seq(Items(items)),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Other(kind) => Err(de::Error::invalid_type(Unexpected::Other(kind), &visitor)),
        }
        .map_err(|error: FieldError| error.or_at(self.place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        match &self.value {
            Value::Text(text) => {
                let name: StrDeserializer<'_, FieldError> = (**text).into_deserializer();
                visitor.visit_enum(name).map_err(|error| error.or_at(self.place))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Entries<'de> {
    rest: &'de [Entry],
    node: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldError> {
        let Some((entry, rest)) = self.rest.split_first() else { return Ok(None) };
        (self.rest, self.node) = (rest, Some(&entry.node));
        let key: StrDeserializer<'_, FieldError> = (*entry.key).into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.or_at(entry.place))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, FieldError> {
        let node = self.node.take().ok_or_else(|| <FieldError as de::Error>::custom("a value without its key"))?;
        seed.deserialize(node)
    }
}

struct Items<'de>(&'de [Node]);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, FieldError> {
        let Some((item, rest)) = self.0.split_first() else { return Ok(None) };
        self.0 = rest;
        seed.deserialize(item).map(Some)
    }
}
