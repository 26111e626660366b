//! Providers: the catalogue, and the user's own definitions.

use std::sync::{Arc, PoisonError};

use keyholder_provider::{Definition, parse};

use crate::error::{Error, Result};
use crate::model::{Caller, Scope, Tenant};
use crate::open::Broker;

impl Broker {
    /// All definitions, in the order of their ids.
    pub fn providers(&self) -> Vec<Arc<Definition>> {
        self.catalogue().iter().map(Arc::clone).collect()
    }

    /// The definition of this id or alias.
    pub fn provider(&self, id: &str) -> Result<Arc<Definition>> {
        self.definition(id)
    }

    /// Adds one of the user's own definitions, or replaces it. A built-in one can't be replaced.
    pub async fn add_provider(&self, caller: &Caller, file: &str, text: &str) -> Result<Arc<Definition>> {
        self.require_unlimited(caller, "no providers", file)?;
        let definition = Arc::new(self.catalogue().parse(file, text).map_err(Error::Definition)?);
        let id = definition.id.clone();
        let (tenant, stored_id, stored_text, now) = (caller.tenant.clone(), id.clone(), text.to_owned(), self.now_ms());
        let own = self.store.read(move |tx| tx.providers(&tenant)).await?;
        let replaces = own.iter().any(|(known, _)| *known == id);
        let names = definition.aliases.iter().chain([&id]);
        for name in names {
            // Found under another definition's name, it would take that one's place.
            if self.catalogue().definition(name).is_some_and(|known| known.id != id || !replaces) {
                return Err(Error::Taken { what: "provider", name: name.clone() });
            }
        }
        if replaces {
            // Integrations use it already: whoever may send their secrets elsewhere may read them.
            self.require(caller, Scope::Admin)?;
        }
        let tenant = caller.tenant.clone();
        self.store.write(move |tx| tx.put_provider(&tenant, &stored_id, &stored_text, now)).await?;
        self.put_in_catalogue(Arc::clone(&definition));
        if replaces {
            self.live.forget_all();
        }
        self.record(caller, "provider.add", &id, "ok", None)?;
        Ok(definition)
    }

    /// Puts the stored definitions beside the built-in ones. One that this version can't read is left out, with a warning.
    pub(crate) async fn load_own_providers(&self) -> Result<()> {
        let own = self.store.read(|tx| tx.providers(&Tenant::default_tenant())).await?;
        for (id, text) in own {
            match parse(&id, &text) {
                Ok(definition) => self.put_in_catalogue(Arc::new(definition)),
                Err(errors) => {
                    tracing::error!(provider = id, errors = %Error::Definition(errors), "a stored definition can't be read");
                }
            }
        }
        Ok(())
    }

    fn put_in_catalogue(&self, definition: Arc<Definition>) {
        let mut held = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut held).insert(definition);
    }
}
