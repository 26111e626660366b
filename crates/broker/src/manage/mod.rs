//! Setting up: providers, integrations, connections.

mod connections;
mod counts;
mod difference;
mod discover;
mod fields;
mod integrations;
mod providers;
mod setup;
mod sources;
mod upgrade;

use keyholder_oauth::Secret;
use keyholder_provider::{AskedOf, Definition, Method};

use crate::error::{Error, FieldError, Result, invalid};
use crate::model::{ConnectionId, IntegrationId, KeyId, SecretInput, SessionId, SourceId, Values};
use crate::store::StoreError;

pub use connections::{ConnectionEdit, NewConnection, ShownConnection};
pub(crate) use connections::{choose, shown};
pub use counts::{Counts, Tallies};
pub use integrations::{IntegrationEdit, NewIntegration};
pub use providers::{ProviderVersion, ShownProvider};
pub use setup::SetUp;
pub use sources::{MadeSource, NewSource, ShownSource, SourceEdit, VariableEdit, Wanted};
pub use upgrade::{Meaning, NewVersion, Upgrade};

/// Which part of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Id after which it begins; empty: from the start.
    pub after: String,
    /// Most items, 1 to 200.
    pub limit: i64,
}

impl Page {
    /// Everything that fits one page.
    pub fn first() -> Self {
        Self { after: String::new(), limit: 200 }
    }
}

/// A name goes into URLs, commands and logs.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = !name.trim().is_empty()
        && name.trim() == name
        && name.chars().count() <= 100
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '%'))
        && !is_id(name)
        && name != "."
        && name != "..";
    if fits {
        Ok(())
    } else {
        Err(invalid(
            "name",
            "it can't be used as a name",
            "use 1 to 100 characters without / \\ ? # %, line breaks, or spaces at the ends, and nothing that looks like an id",
        ))
    }
}

/// A name that is an id could pass for somebody else's.
fn is_id(name: &str) -> bool {
    name.parse::<ConnectionId>().is_ok()
        || name.parse::<IntegrationId>().is_ok()
        || name.parse::<KeyId>().is_ok()
        || name.parse::<SessionId>().is_ok()
        || name.parse::<SourceId>().is_ok()
}

/// Says which name is taken.
pub(crate) fn taken(error: StoreError, what: &'static str, name: &str) -> Error {
    match error {
        StoreError::Taken => Error::Taken { what, name: name.to_owned() },
        other => other.into(),
    }
}

/// Checks given values against a definition and parts the secret ones from the others. Empty values count as not given.
pub(crate) fn sort_values(
    definition: &Definition,
    method: &Method,
    asked_of: AskedOf,
    given: &Values,
) -> Result<(Values, SecretInput)> {
    definition
        .check_values(method, asked_of, given)
        .map_err(|errors| Error::Invalid(errors.into_iter().map(FieldError::from).collect()))?;
    Ok(part(definition, given))
}

/// As [`sort_values`], but what is missing may still come.
pub(crate) fn sort_given(
    definition: &Definition,
    method: &Method,
    asked_of: AskedOf,
    given: &Values,
) -> Result<(Values, SecretInput)> {
    let wrong = definition.check_values(method, asked_of, given).err().unwrap_or_default();
    let unfit: Vec<_> = wrong
        .into_iter()
        .filter(|error| given.get(&error.variable).is_some_and(|value| !value.is_empty()))
        .map(FieldError::from)
        .collect();
    if unfit.is_empty() { Ok(part(definition, given)) } else { Err(Error::Invalid(unfit)) }
}

fn part(definition: &Definition, given: &Values) -> (Values, SecretInput) {
    let (mut open, mut secret) = (Values::new(), SecretInput::new());
    for (name, value) in given.iter().filter(|(_, value)| !value.is_empty()) {
        let is_secret = definition.variables.iter().any(|variable| variable.name == *name && variable.secret);
        if is_secret {
            secret.insert(name.clone(), Secret::new(value.clone()));
        } else {
            open.insert(name.clone(), value.clone());
        }
    }
    (open, secret)
}
