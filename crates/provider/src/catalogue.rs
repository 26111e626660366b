//! The definitions at hand, by id.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::built_in::BUILT_IN;
use crate::check::{merged_with, parse_with};
use crate::definition::Definition;
use crate::error::DefinitionError;

/// Definitions by id and alias. Cheap to clone parts of: every definition is shared.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    definitions: BTreeMap<String, Entry>,
}

/// A definition, or a file of the program's that is read when somebody asks: most processes need few of them.
#[derive(Clone, Debug)]
enum Entry {
    Read(Arc<Definition>),
    BuiltIn { file: &'static str, text: &'static str, read: Arc<OnceLock<Arc<Definition>>> },
}

impl Catalogue {
    /// A catalogue without definitions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The definitions that come with the program. Each is read when it is asked for first.
    ///
    /// # Panics
    /// When a broken one is asked for; the tests of this crate read all of them.
    pub fn built_in() -> Self {
        let entry = |&(file, text): &(&'static str, &'static str)| {
            let id = file.strip_suffix(".toml").unwrap_or(file);
            (id.to_owned(), Entry::BuiltIn { file, text, read: Arc::default() })
        };
        Self { definitions: BUILT_IN.iter().map(entry).collect() }
    }

    /// The definition with this id or alias; an id wins over an alias of another.
    pub fn definition(&self, id: &str) -> Option<Arc<Definition>> {
        let by_alias = || self.iter().find(|definition| definition.aliases.iter().any(|alias| alias == id));
        self.definitions.get(id).map(Entry::definition).or_else(by_alias).cloned()
    }

    /// Reads a definition that may extend those that are here. `file` is only for the errors.
    ///
    /// # Errors
    /// As [`crate::parse`].
    pub fn parse(&self, file: &str, text: &str) -> Result<Definition, Vec<DefinitionError>> {
        parse_with(file, text, &|id| self.text(id))
    }

    /// A definition as data, merged over those that it extends: for who reads the language by themselves, as a rehearsal's judge does.
    /// What a method says in its own way still stands beside the method, and phases take nothing from each other yet.
    ///
    /// # Errors
    /// As [`crate::parse`].
    pub fn merged(&self, file: &str, text: &str) -> Result<serde_json::Value, Vec<DefinitionError>> {
        merged_with(file, text, &|id| self.text(id))
    }

    fn text(&self, id: &str) -> Option<(String, String)> {
        let text = match self.definitions.get(id)? {
            Entry::Read(definition) => definition.text.to_string(),
            Entry::BuiltIn { text, .. } => (*text).to_owned(),
        };
        Some((format!("{id}.toml"), text))
    }

    /// The ids of the definitions that build on this one, nearest first; their texts must be read again when it changes.
    pub fn extended_by(&self, id: &str) -> Vec<String> {
        let mut found = vec![id.to_owned()];
        let mut next = 0;
        while next < found.len() {
            let base = found[next].clone();
            let more =
                self.iter().filter(|it| it.bases.first().is_some_and(|it| it.id == base)).map(|it| it.id.clone());
            let more: Vec<String> = more.filter(|id| !found.contains(id)).collect();
            found.extend(more);
            next += 1;
        }
        found.split_off(1)
    }

    /// All definitions in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.definitions.values().map(Entry::definition)
    }

    /// Adds a definition and returns the one that it replaces.
    pub fn insert(&mut self, definition: Arc<Definition>) -> Option<Arc<Definition>> {
        let replaced = self.definitions.insert(definition.id.clone(), Entry::Read(definition));
        replaced.map(|entry| Arc::clone(entry.definition()))
    }
}

impl Entry {
    fn definition(&self) -> &Arc<Definition> {
        match self {
            Self::Read(definition) => definition,
            Self::BuiltIn { file, text, read } => read.get_or_init(|| match parse_with(file, text, &built_in_text) {
                Ok(definition) => Arc::new(definition),
                Err(errors) => panic!(
                    "built-in definition: {}",
                    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
                ),
            }),
        }
    }
}

/// The text of the built-in definition of this id, and its file's name.
fn built_in_text(id: &str) -> Option<(String, String)> {
    let (file, text) = BUILT_IN.iter().copied().find(|(file, _)| file.strip_suffix(".toml") == Some(id))?;
    Some((file.to_owned(), text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn files() -> BTreeSet<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../providers");
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".toml")).collect()
    }

    #[test]
    fn files_are_named_after_their_id_and_names_are_unique() {
        let catalogue = Catalogue::built_in();
        let mut names = BTreeSet::new();
        for definition in catalogue.iter() {
            assert!(files().contains(&format!("{}.toml", definition.id)), "{}", definition.id);
            for name in definition.aliases.iter().chain([&definition.id]) {
                assert!(names.insert(name.clone()), "{name} is taken twice");
                assert_eq!(catalogue.definition(name).unwrap().id, definition.id);
            }
        }
        assert!(catalogue.definition("nobody").is_none());
    }

    #[test]
    fn merged_is_what_is_written_over_what_it_extends() {
        let mut catalogue = Catalogue::new();
        let base = r#"
            schema = 1
            id = "base"
            name = "Base"
            methods = [{ grant = "authorization_code" }]
            authorize = { url = "https://base.example/authorize", params = { prompt = "consent", max = 3 } }
            token = { url = "https://base.example/token" }
        "#;
        catalogue.insert(Arc::new(catalogue.parse("base.toml", base).unwrap()));
        let over = r#"
            schema = 1
            id = "over"
            extends = "base"
            authorize = { params = { prompt = false } }
            methods = [{ grant = "client_credentials" }]
        "#;
        let merged = catalogue.merged("over.toml", over).unwrap();
        assert_eq!(merged["id"], "over");
        assert_eq!(merged["authorize"]["params"], serde_json::json!({"max": 3}));
        assert_eq!(merged["methods"].as_array().unwrap().len(), 2);
        assert!(catalogue.merged("wrong.toml", "schema = 2").is_err());
    }
}
