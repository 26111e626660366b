//! An integration and its first connection at once, as a person sets them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::connections::{ShownConnection, shown};
use super::integrations::MadeIntegration;
use super::{NewConnection, NewIntegration, Wanted, check_name, taken};
use crate::error::{Error, FieldError, Result};
use crate::model::{Caller, Integration};
use crate::open::Broker;
use crate::store::Tx;

/// What shall be made. Without `Debug`: variables may be secret.
#[derive(Clone)]
pub struct SetUp {
    /// The integration, or the one under which the connection stands.
    pub integration: Wanted<NewIntegration>,
    /// The connection; the integration that it names doesn't count.
    pub connection: Option<NewConnection>,
}

impl Broker {
    /// Makes an integration and a connection under it: both or nothing. Nothing is authorised yet. Mistakes in the connection's own fields are named
    /// `connection.FIELD`, save in those that an integration hasn't.
    pub async fn set_up(&self, caller: &Caller, set_up: SetUp) -> Result<(Integration, Option<ShownConnection>)> {
        let (integration, made) = match set_up.integration {
            Wanted::Named(name) => (self.integration(caller, &name).await?, None),
            Wanted::New(new) => {
                let made = self.new_integration(caller, *new).await?;
                (made.integration.clone(), Some(made))
            }
        };
        let connection = match set_up.connection {
            None => None,
            Some(new) => {
                self.require_unlimited(caller, "no new ones", &new.name)?;
                check_name(&new.name).map_err(of_connection)?;
                let definition = self.definition_of(&integration).await?;
                Some(self.draft_connection(&definition, &integration, new).map_err(of_connection)?)
            }
        };
        let step = Arc::new(AtomicUsize::new(INTEGRATION));
        let (reached, new, draft) = (Arc::clone(&step), made.clone(), connection.clone());
        let event = draft.as_ref().map(|draft| self.event(draft, "created", "The connection was set up."));
        let write = move |tx: &Tx<'_>| {
            reached.store(ID, Ordering::Relaxed);
            if let Some(new) = &new {
                if tx.integration_by_id(&new.integration.id)?.is_some() {
                    return Err(crate::store::StoreError::Taken);
                }
                reached.store(INTEGRATION, Ordering::Relaxed);
                if !new.write(tx)? {
                    return Ok(false);
                }
            }
            reached.store(CONNECTION, Ordering::Relaxed);
            if let (Some(draft), Some(event)) = (draft, event) {
                tx.add_connection(&draft)?;
                event.write(tx)?;
            }
            Ok(true)
        };
        let written = self.store.write(write).await.map_err(|error| match step.load(Ordering::Relaxed) {
            ID => taken(error, "integration id", integration.id.as_str()),
            INTEGRATION => taken(error, "integration", &integration.name),
            _ => taken(error, "connection", connection.as_ref().map_or("", |connection| &connection.name)),
        })?;
        if !written {
            return Err(Error::ChangedMeanwhile("provider"));
        }
        self.tell_of(caller, made.as_ref(), connection.as_ref())?;
        let connection = connection.map(|connection| shown(connection, &integration));
        Ok((integration, connection))
    }

    fn tell_of(
        &self,
        caller: &Caller,
        integration: Option<&MadeIntegration>,
        connection: Option<&crate::model::Connection>,
    ) -> Result<()> {
        if let Some(MadeIntegration { integration, .. }) = integration {
            let name = integration.name.clone();
            self.record(caller, "integration.create", integration.id.as_str(), "ok", Some(name))?;
        }
        if let Some(connection) = connection {
            self.sources.forget_own();
            let name = connection.name.clone();
            self.record(caller, "connection.create", connection.id.as_str(), "ok", Some(name))?;
        }
        Ok(())
    }
}

/// Where the one transaction is.
const ID: usize = 0;
const INTEGRATION: usize = 1;
const CONNECTION: usize = 2;

fn of_connection(error: Error) -> Error {
    let only_its = |field: &str| {
        matches!(field, "username" | "password") || field.starts_with("variables.") || field.starts_with("choices.")
    };
    let named = |error: FieldError| {
        let field = if only_its(&error.field) { error.field } else { format!("connection.{}", error.field) };
        FieldError { field, ..error }
    };
    match error {
        Error::Invalid(errors) => Error::Invalid(errors.into_iter().map(named).collect()),
        other => other,
    }
}
