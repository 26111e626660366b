//! The definitions at hand, by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::built_in::BUILT_IN;
use crate::check::{parse, parse_with};
use crate::definition::Definition;
use crate::error::DefinitionError;

/// Definitions by id and alias. Cheap to clone parts of: every definition is shared.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    definitions: BTreeMap<String, Arc<Definition>>,
}

impl Catalogue {
    /// A catalogue without definitions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The definitions that come with the program.
    ///
    /// # Panics
    /// If an embedded file is broken; the tests of this crate read each of them.
    pub fn built_in() -> Self {
        let mut catalogue = Self::new();
        for (file, text) in BUILT_IN {
            match parse(file, text) {
                Ok(definition) => catalogue.insert(Arc::new(definition)),
                Err(errors) => panic!(
                    "built-in definition: {}",
                    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
                ),
            };
        }
        catalogue
    }

    /// The definition with this id or alias; an id wins over an alias of another.
    pub fn definition(&self, id: &str) -> Option<Arc<Definition>> {
        let by_alias = || self.iter().find(|definition| definition.aliases.iter().any(|alias| alias == id));
        self.definitions.get(id).or_else(by_alias).cloned()
    }

    /// Reads a definition that may extend those that are here. `file` is only for the errors.
    ///
    /// # Errors
    /// As [`crate::parse`].
    pub fn parse(&self, file: &str, text: &str) -> Result<Definition, Vec<DefinitionError>> {
        parse_with(file, text, &|id| {
            let definition = self.definitions.get(id)?;
            Some((format!("{id}.toml"), definition.text.to_string()))
        })
    }

    /// The ids of the definitions that extend this one, whose texts must be read again when it changes.
    pub fn extended_by<'c>(&'c self, id: &'c str) -> impl Iterator<Item = &'c str> {
        self.iter().filter(move |it| it.extends.as_deref() == Some(id)).map(|it| it.id.as_str())
    }

    /// All definitions in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.definitions.values()
    }

    /// Adds a definition and returns the one that it replaces.
    pub fn insert(&mut self, definition: Arc<Definition>) -> Option<Arc<Definition>> {
        self.definitions.insert(definition.id.clone(), definition)
    }
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
    fn the_table_lists_every_file() {
        let listed: BTreeSet<_> = BUILT_IN.iter().map(|(file, _)| (*file).to_owned()).collect();
        assert_eq!(listed, files(), "built_in.rs and providers/ differ");
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
}
