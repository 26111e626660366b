//! Versions of definitions: what an integration was made with stays what it runs with.

use keyholder_oauth::sha256;
use keyholder_provider::{Catalogue, Definition};

use crate::open::Broker;

impl Broker {
    /// The version that a definition in the catalogue has.
    pub(crate) fn version_of(&self, definition: &Definition) -> String {
        if Catalogue::is_built_in(definition) { built_in_version(definition) } else { "1".to_owned() }
    }
}

/// A built-in definition is known by its content, with that of what it extends.
fn built_in_version(definition: &Definition) -> String {
    let texts: Vec<&str> =
        std::iter::once(&*definition.text).chain(definition.bases.iter().map(|base| &*base.text)).collect();
    let hash = sha256(texts.join("\0").as_bytes());
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("built-in-{short}")
}
