//! Providers: the catalogue, and the user's own definitions with their versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyholder_provider::{Definition, DefinitionError};

use crate::definitions::Newest;
use crate::error::{Error, Result};
use crate::model::{Caller, Scope};
use crate::open::Broker;
use crate::store::StoreError;

/// A definition with its version.
#[derive(Clone)]
pub struct ShownProvider {
    /// The definition.
    pub definition: Arc<Definition>,
    /// Its version.
    pub version: String,
    /// It comes with the program.
    pub built_in: bool,
}

/// A version of a definition.
#[derive(Clone, Debug)]
pub struct ProviderVersion {
    /// Its name.
    pub version: String,
    /// New integrations are made with it.
    pub newest: bool,
    /// When it was added, or first used if it comes with the program; `None`: it was never used. Unix milliseconds.
    pub created_at: Option<i64>,
    /// How many integrations stay on it.
    pub integrations: i64,
}

impl Broker {
    /// The newest of all definitions, in the order of their ids.
    pub fn providers(&self) -> Vec<ShownProvider> {
        let newest = self.definitions.newest();
        newest.catalogue.iter().map(|it| shown(&newest, Arc::clone(it))).collect()
    }

    /// A version of the definition of this id or alias; the newest, if none is named.
    pub async fn provider(&self, caller: &Caller, id: &str, version: Option<&str>) -> Result<ShownProvider> {
        let newest = self.definitions.newest();
        let known = newest.catalogue.definition(id).map(|it| shown(&newest, it));
        let Some(version) = version else { return known.ok_or_else(|| Error::not_found("provider", id)) };
        let id = known.map_or_else(|| id.to_owned(), |known| known.definition.id.clone());
        let definition = self.definition_at(&caller.tenant, &id, version).await?;
        Ok(ShownProvider { definition, version: version.to_owned(), built_in: version.parse::<i64>().is_err() })
    }

    /// The versions of a definition, the newest first.
    pub async fn provider_versions(&self, caller: &Caller, id: &str) -> Result<Vec<ProviderVersion>> {
        let newest = self.definitions.newest();
        let definition = newest.catalogue.definition(id).ok_or_else(|| Error::not_found("provider", id))?;
        let current = newest.version_of(&definition);
        let (tenant, id) = (caller.tenant.clone(), definition.id.clone());
        let stored = self.store.read(move |tx| tx.provider_versions(&tenant, &id)).await?;
        let mut versions: Vec<_> = stored
            .into_iter()
            .map(|(it, integrations)| ProviderVersion {
                newest: it.version == current,
                version: it.version,
                created_at: Some(it.created_at),
                integrations,
            })
            .collect();
        if !versions.iter().any(|it| it.newest) {
            versions.push(ProviderVersion { version: current, newest: true, created_at: None, integrations: 0 });
        }
        versions.sort_by_key(|it| !it.newest);
        Ok(versions)
    }

    /// What is wrong with a definition, which may extend those that are here.
    pub fn check_provider(&self, file: &str, text: &str) -> Vec<DefinitionError> {
        self.catalogue().parse(file, text).err().unwrap_or_default()
    }

    /// Adds one of the user's own definitions, or a new version of it. Integrations stay on the version they have. A built-in one can't be replaced.
    ///
    /// What extends it gets a new version too; where that would not be sound, nothing is added. The same text again makes no new version.
    pub async fn add_provider(&self, caller: &Caller, file: &str, text: &str) -> Result<ShownProvider> {
        self.require_unlimited(caller, "no providers", file)?;
        // What another process has added counts.
        self.load_own_providers().await?;
        let newest = self.definitions.newest();
        let definition = Arc::new(newest.catalogue.parse(file, text).map_err(Error::Definition)?);
        let id = definition.id.clone();
        let replaces = newest.own.contains_key(&id);
        for name in definition.aliases.iter().chain([&id]) {
            // Found under another definition's name, it would take that one's place.
            if newest.catalogue.definition(name).is_some_and(|known| known.id != id || !replaces) {
                return Err(Error::Taken { what: "provider", name: name.clone() });
            }
        }
        if replaces {
            // Integrations will be upgraded to it: whoever may send their secrets elsewhere may read them.
            self.require(caller, Scope::Admin)?;
        }
        let known = newest.catalogue.definition(&id);
        if let Some(known) = known.filter(|known| known.text == definition.text && known.bases == definition.bases) {
            return Ok(shown(&newest, known));
        }
        let changed = with_what_extends(&newest, definition)?;
        let (tenant, now, own) = (caller.tenant.clone(), self.now_ms(), Arc::clone(&newest.own));
        let written = self.store.write(move |tx| {
            for it in &changed {
                let number = tx.newest_provider(&tenant, &it.id)?;
                // Also one that this process has not seen, or can't read, would be replaced.
                if own.get(&it.id).copied().unwrap_or(0) != number {
                    return Ok(false);
                }
            }
            for it in &changed {
                tx.add_provider(&tenant, &it.id, &it.text, &it.bases, now)?;
            }
            Ok(true)
        });
        match written.await {
            Ok(true) => {}
            Ok(false) | Err(StoreError::Taken) => return Err(Error::ChangedMeanwhile("provider")),
            Err(error) => return Err(error.into()),
        }
        self.load_own_providers().await?;
        let added = self.provider(caller, &id, None).await?;
        self.record(caller, "provider.add", &id, "ok", Some(format!("version {}", added.version)))?;
        Ok(added)
    }

    /// Removes one of the user's own definitions, or a version of it. Refused while integrations stay on it, or other definitions extend it.
    pub async fn remove_provider(&self, caller: &Caller, id: &str, version: Option<&str>) -> Result<()> {
        self.require_unlimited(caller, "no providers", id)?;
        self.load_own_providers().await?;
        let newest = self.definitions.newest();
        let Some(number) = newest.own.get(id).copied() else {
            return Err(match newest.catalogue.definition(id) {
                Some(known) if known.id != id => Error::not_found("provider of your own", id),
                Some(_) => {
                    Error::NotPossible(format!("the provider `{id}` comes with the program and can't be removed"))
                }
                None => Error::not_found("provider", id),
            });
        };
        let removes_newest = version.is_none_or(|version| version == number.to_string());
        if removes_newest && !newest.catalogue.extended_by(id).is_empty() {
            return Err(Error::InUse { what: "provider", name: id.to_owned(), by: "definitions that extend it" });
        }
        let (tenant, wanted, only) = (caller.tenant.clone(), id.to_owned(), version.map(str::to_owned));
        let removed = self.store.write(move |tx| {
            let versions = tx.provider_versions(&tenant, &wanted)?;
            let own = versions.into_iter().map(|(it, _)| it).filter(|it| it.number > 0);
            let names: Vec<_> =
                own.map(|it| it.version).filter(|it| only.as_ref().is_none_or(|only| it == only)).collect();
            for version in &names {
                tx.lock_provider(&tenant, &wanted, version)?;
                if tx.provider_used(&tenant, &wanted, version)? > 0 {
                    return Err(StoreError::InUse);
                }
            }
            names.iter().try_for_each(|version| tx.remove_provider(&tenant, &wanted, version))?;
            Ok(names.len())
        });
        let name = version.map_or_else(|| id.to_owned(), |version| format!("{id}@{version}"));
        match removed.await {
            Ok(0) => return Err(Error::not_found("version of a provider", name)),
            Ok(_) => {}
            Err(StoreError::InUse) => {
                return Err(Error::InUse { what: "provider", name, by: "integrations that stay on it" });
            }
            Err(error) => return Err(error.into()),
        }
        self.load_own_providers().await?;
        self.record(caller, "provider.remove", &name, "ok", None)
    }
}

pub(super) fn shown(newest: &Newest, definition: Arc<Definition>) -> ShownProvider {
    let (version, built_in) = (newest.version_of(&definition), newest.is_built_in(&definition.id));
    ShownProvider { definition, version, built_in }
}

/// A definition, and behind it those that extend it, read again over it.
fn with_what_extends(newest: &Newest, definition: Arc<Definition>) -> Result<Vec<Arc<Definition>>> {
    let mut catalogue = (*newest.catalogue).clone();
    let extended_by = catalogue.extended_by(&definition.id);
    catalogue.insert(Arc::clone(&definition));
    let mut changed = vec![definition];
    let texts: BTreeMap<_, _> = newest.catalogue.iter().map(|it| (&it.id, &it.text)).collect();
    for id in extended_by {
        let Some(text) = texts.get(&id) else { continue };
        let again = Arc::new(catalogue.parse(&format!("{id}.toml"), text).map_err(Error::Definition)?);
        catalogue.insert(Arc::clone(&again));
        changed.push(again);
    }
    Ok(changed)
}
