//! The definitions at hand: the newest of each id, and the versions that integrations stay on.
//!
//! A version never changes: its text is kept with the texts of what it extends. So what is in memory of it is right for ever, and only which one is
//! the newest must be followed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use keyholder_oauth::sha256;
use keyholder_provider::{Catalogue, Definition, parse_over};

use crate::error::{Error, Result};
use crate::model::{Integration, Tenant};
use crate::open::Broker;
use crate::store::StoredDefinition;

/// See the module.
pub(crate) struct Definitions {
    built_in: Catalogue,
    newest: RwLock<Newest>,
    /// By `id@version`, as they were asked for.
    versions: papaya::HashMap<String, Arc<Definition>>,
}

/// The newest definition of each id.
#[derive(Clone)]
pub(crate) struct Newest {
    pub(crate) catalogue: Arc<Catalogue>,
    /// The numbers of the user's own, by id; what isn't here comes with the program.
    pub(crate) own: Arc<BTreeMap<String, i64>>,
}

impl Newest {
    /// The version of a definition that is in the catalogue.
    pub(crate) fn version_of(&self, definition: &Definition) -> String {
        self.own.get(&definition.id).map_or_else(|| built_in_version(definition), i64::to_string)
    }

    /// Whether a definition that is in the catalogue comes with the program.
    pub(crate) fn is_built_in(&self, id: &str) -> bool {
        !self.own.contains_key(id)
    }
}

impl Definitions {
    /// Those that come with the program.
    pub(crate) fn new(built_in: Catalogue) -> Self {
        let newest = Newest { catalogue: Arc::new(built_in.clone()), own: Arc::default() };
        Self { built_in, newest: RwLock::new(newest), versions: papaya::HashMap::new() }
    }

    /// The newest, as it stands.
    pub(crate) fn newest(&self) -> Newest {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, newest: Newest) {
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = newest;
    }
}

impl Broker {
    /// The catalogue as it stands: the newest of each.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.definitions.newest().catalogue
    }

    /// The definition that an integration stays on.
    pub async fn definition_of(&self, integration: &Integration) -> Result<Arc<Definition>> {
        self.definition_at(&integration.tenant, &integration.provider, &integration.provider_version).await
    }

    /// A version of a definition.
    pub(crate) async fn definition_at(&self, tenant: &Tenant, id: &str, version: &str) -> Result<Arc<Definition>> {
        let name = format!("{id}@{version}");
        if let Some(known) = self.definitions.versions.pin().get(&name).cloned() {
            return Ok(known);
        }
        let newest = self.definitions.newest();
        let in_catalogue = newest.catalogue.definition(id).filter(|it| it.id == id && newest.version_of(it) == version);
        let definition = match in_catalogue {
            Some(definition) => definition,
            None => {
                let (tenant, id, version) = (tenant.clone(), id.to_owned(), version.to_owned());
                let stored = self.store.read(move |tx| tx.provider_version(&tenant, &id, &version)).await?;
                let stored = stored.ok_or_else(|| Error::not_found("version of a provider", name.clone()))?;
                Arc::new(read_stored(&stored)?)
            }
        };
        self.definitions.versions.pin().insert(name, Arc::clone(&definition));
        Ok(definition)
    }

    /// Puts the newest of the stored definitions beside the built-in ones. One that this version can't read is left out, with a warning.
    pub(crate) async fn load_own_providers(&self) -> Result<()> {
        let stored = self.store.read(|tx| tx.providers(&Tenant::default_tenant())).await?;
        let before = self.definitions.newest();
        let mut catalogue = self.definitions.built_in.clone();
        let mut own = BTreeMap::new();
        for it in stored {
            // Asked for an id that it doesn't have, a catalogue reads all of its files for their aliases.
            let known = before.own.get(&it.id).and_then(|_| before.catalogue.definition(&it.id));
            let known = known.filter(|known| *known.text == *it.text && known.bases == it.bases);
            match known.map_or_else(|| read_stored(&it).map(Arc::new), Ok) {
                Ok(definition) => {
                    own.insert(definition.id.clone(), it.number);
                    catalogue.insert(definition);
                }
                Err(error) => {
                    tracing::error!(provider = it.id, version = it.version, %error, "a stored definition can't be read")
                }
            }
        }
        self.definitions.replace(Newest { catalogue: Arc::new(catalogue), own: Arc::new(own) });
        // A version may have been removed.
        self.forget_versions();
        Ok(())
    }

    /// What is in memory may be another database's.
    pub(crate) fn forget_versions(&self) {
        self.definitions.versions.pin().clear();
    }
}

/// Reads a version as it was when it was added.
pub(crate) fn read_stored(stored: &StoredDefinition) -> Result<Definition> {
    parse_over(&format!("{}@{}", stored.id, stored.version), &stored.text, &stored.bases).map_err(Error::Definition)
}

/// A built-in definition is known by its content, with that of what it extends.
fn built_in_version(definition: &Definition) -> String {
    let bases = definition.bases.iter().map(|base| &*base.text);
    let texts: Vec<&str> = std::iter::once(&*definition.text).chain(bases).collect();
    let hash = sha256(texts.join("\0").as_bytes());
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("built-in-{short}")
}
