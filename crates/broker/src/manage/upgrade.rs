//! Putting an integration on another version of its provider's definition.

use std::collections::BTreeMap;

use keyholder_provider::{AskedOf, Definition, Method, Presence, Variable};

use super::difference::unified;
use super::integrations::hold;
use super::sort_values;
use crate::error::{Error, Result};
use crate::model::{Caller, Integration, Scope, Values};
use crate::open::Broker;

/// Where to, and what it needs. Without `Debug`: variables may be secret.
#[derive(Clone, Default)]
pub struct NewVersion {
    /// The version's name; the newest when not given.
    pub version: Option<String>,
    /// Values for variables that it has and the old one has not.
    pub variables: Values,
    /// Only tell what would change.
    pub dry_run: bool,
}

/// An upgrade, done or only looked at.
pub struct Upgrade {
    /// The integration as it is now.
    pub integration: Integration,
    /// The version it was on.
    pub from: String,
    /// The version it is on, or would be.
    pub to: String,
    /// What differs in the texts, line by line as `diff -u` writes it; those of extended definitions too.
    pub difference: String,
    /// What that means.
    pub meaning: Meaning,
}

/// What another version means for an integration.
#[derive(Clone, Debug, Default)]
pub struct Meaning {
    /// Addresses that change: field, before, after.
    pub addresses: Vec<(String, Option<String>, Option<String>)>,
    /// Variables that must be given with the upgrade.
    pub missing: Vec<String>,
    /// Variables that each connection must be given.
    pub missing_in_connections: Vec<String>,
    /// Variables whose values go, because nothing uses them any more.
    pub dropped: Vec<String>,
}

impl Broker {
    /// Puts an integration on another version of its definition, the newest if none is named; with `dry_run` only tells what would change.
    pub async fn upgrade_integration(&self, caller: &Caller, id_or_name: &str, new: NewVersion) -> Result<Upgrade> {
        self.require_unlimited(caller, "no integrations", id_or_name)?;
        let before = self.integration(caller, id_or_name).await?;
        let old = self.definition_of(&before).await?;
        let provider = self.provider(caller, &before.provider, new.version.as_deref()).await?;
        let method = provider.definition.method(Some(&before.method)).map_err(|_| {
            Error::NotPossible(format!(
                "version {} of `{}` has no method `{}`; make a new integration with one of its methods",
                provider.version, before.provider, before.method
            ))
        })?;
        let names = (before.provider_version.clone(), provider.version.clone());
        let mut upgrade = Upgrade {
            difference: unified((&names.0, &old), (&names.1, &provider.definition)),
            meaning: meaning(&old, &provider.definition, method, &before, &new.variables),
            integration: before.clone(),
            from: names.0,
            to: names.1,
        };
        if new.dry_run || upgrade.from == upgrade.to {
            return Ok(upgrade);
        }
        // It may send client secret and refresh tokens elsewhere; whoever may do that may read them.
        self.require(caller, Scope::Admin)?;
        let mut values = before.variables.clone();
        values.extend(before.secret_variables.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
        values.retain(|name, _| !upgrade.meaning.dropped.contains(name));
        values.extend(new.variables);
        let (variables, secret_variables) = sort_values(&provider.definition, method, AskedOf::Integration, &values)?;
        let integration = Integration {
            provider_version: provider.version.clone(),
            variables,
            secret_variables,
            generation: before.generation + 1,
            updated_at: self.now_ms(),
            ..before
        };
        self.check_integration(&provider.definition, &integration).await?;
        let sealed = self.seal_integration(&integration)?;
        let (stored, now) = (integration.clone(), self.now_ms());
        let written = self.store.write(move |tx| {
            let written = hold(tx, &stored, &provider)? && tx.update_integration(&stored, sealed.as_deref())?;
            if written {
                tx.forget_backoff(&stored.id, now)?;
            }
            Ok(written)
        });
        if !written.await? {
            return Err(Error::ChangedMeanwhile("integration"));
        }
        self.live.forget_of(&integration.id);
        self.due.notify_one();
        let detail = format!("{} from {} to {}", integration.name, upgrade.from, upgrade.to);
        self.record(caller, "integration.upgrade", integration.id.as_str(), "ok", Some(detail))?;
        upgrade.integration = integration;
        Ok(upgrade)
    }
}

fn meaning(old: &Definition, new: &Definition, method: &Method, it: &Integration, given: &Values) -> Meaning {
    let before: BTreeMap<String, String> =
        old.method(Some(&it.method)).map(|method| method.addresses().into_iter().collect()).unwrap_or_default();
    let after: BTreeMap<String, String> = method.addresses().into_iter().collect();
    let fields: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let addresses = fields
        .into_iter()
        .filter(|field| before.get(*field) != after.get(*field))
        .map(|field| (field.clone(), before.get(field).cloned(), after.get(field).cloned()))
        .collect();
    let needs = |variable: &&Variable, asked_of| {
        variable.asked_of == asked_of && variable.presence == Presence::Required && variable.default.is_none()
    };
    let has = |name: &String| {
        it.variables.contains_key(name) || it.secret_variables.contains_key(name) || given.contains_key(name)
    };
    let was_asked =
        |name: &String| old.variables.iter().any(|known| known.name == *name && known.asked_of == AskedOf::Connection);
    let names = |asked_of, known: &dyn Fn(&String) -> bool| -> Vec<String> {
        let missing = new.variables_of(method).filter(|variable| needs(variable, asked_of) && !known(&variable.name));
        missing.map(|variable| variable.name.clone()).collect()
    };
    let is_used = |name: &&String| {
        new.variables.iter().any(|known| known.name == **name && known.asked_of == AskedOf::Integration)
    };
    Meaning {
        addresses,
        missing: names(AskedOf::Integration, &has),
        missing_in_connections: names(AskedOf::Connection, &was_asked),
        dropped: it.variables.keys().chain(it.secret_variables.keys()).filter(|name| !is_used(name)).cloned().collect(),
    }
}
