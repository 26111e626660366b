//! Data sources: making them, alone or with all they stand on, seeing, changing and removing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyholder_oauth::Secret;
use keyholder_provider::{Definition, Variable};

use super::connections::ShownConnection;
use super::integrations::MadeIntegration;
use super::{NewConnection, NewIntegration, Page, check_name};
use crate::connect::Authorize;
use crate::error::{Error, FieldError, Result, invalid};
use crate::model::{
    AllowRule, Behind, Caller, Connection, DataSource, Grip, Integration, SavedRequest, SecretInput, SourceId,
    SourceSpec, SourceVariable, Values,
};
use crate::open::Broker;
use crate::plan::{all_values, source_place, write_secrets};
use crate::source::{Filling, ReadSource};
use crate::store::{StoreError, Tx};

/// Something that is there under a name, or shall be made.
#[derive(Clone)]
pub enum Wanted<T> {
    /// Id or name.
    Named(String),
    /// To be made with what needs it, or not at all.
    New(Box<T>),
}

/// What a new data source shall be. Without `Debug`: variables may be secret.
#[derive(Clone, Default)]
pub struct NewSource {
    /// Unique in the tenant.
    pub name: String,
    /// For people.
    pub description: String,
    /// What paths are appended to; the connection's own API base URL when not given.
    pub base_url: Option<String>,
    /// The connection that it is reached through.
    pub connection: Option<Wanted<NewConnection>>,
    /// Without a connection: each caller's own under this integration. With a new one: under which it stands.
    pub integration: Option<Wanted<NewIntegration>>,
    /// Everything else. Values of secret variables stand in it, and are sealed apart.
    pub spec: SourceSpec,
}

/// What shall change; `None` and what isn't named stay. Without `Debug`: variables may be secret.
#[derive(Clone, Default)]
pub struct SourceEdit {
    /// New name.
    pub name: Option<String>,
    /// New description.
    pub description: Option<String>,
    /// New base URL; `Some(None)`: the connection's own.
    pub base_url: Option<Option<String>>,
    /// Another connection.
    pub connection: Option<String>,
    /// Each caller's own under this integration.
    pub integration: Option<String>,
    /// Headers to set; `None` takes one away.
    pub headers: BTreeMap<String, Option<String>>,
    /// Parameters to set; `None` takes one away.
    pub query: BTreeMap<String, Option<String>>,
    /// Variables to set; `None` takes one away.
    pub variables: BTreeMap<String, Option<VariableEdit>>,
    /// Requests to set, each as a whole; `None` takes one away.
    pub requests: BTreeMap<String, Option<SavedRequest>>,
    /// New health request; `Some(None)` takes it away.
    pub health: Option<Option<SavedRequest>>,
    /// New rules, all of them.
    pub allow: Option<Vec<AllowRule>>,
}

/// A change of a variable.
#[derive(Clone)]
pub enum VariableEdit {
    /// Its value; a variable that isn't there is made.
    Value(String),
    /// All of it; a secret without a value keeps the one it has.
    Whole(Box<SourceVariable>),
}

/// A data source with what a list shows beside it.
#[derive(Clone, Debug)]
pub struct ShownSource {
    /// The source; of its secrets only the names are for others.
    pub source: DataSource,
    /// Name of its connection.
    pub connection: Option<String>,
    /// Name of the integration under which each caller's own connection is used.
    pub integration: Option<String>,
}

/// A data source that was made, and what was made with it.
pub struct MadeSource {
    /// The source.
    pub source: ShownSource,
    /// The new integration.
    pub integration: Option<Integration>,
    /// The new connection.
    pub connection: Option<ShownConnection>,
    /// What authorising the new connection came to; what went wrong is recorded in the connection too.
    pub authorize: Option<Result<Authorize>>,
}

impl Broker {
    /// Adds a data source, with integration and connection where these shall be made too: all of them or nothing. A new connection is authorised then, or the
    /// link for the person made.
    pub async fn add_source(&self, caller: &Caller, new: NewSource) -> Result<MadeSource> {
        self.require_unlimited(caller, "no data sources", &new.name)?;
        check_name(&new.name)?;
        let base = self.foundation(caller, &new).await?;
        let now = self.now_ms();
        let mut source = DataSource {
            id: SourceId::new(&self.clock, &self.rng),
            tenant: caller.tenant.clone(),
            name: new.name,
            description: new.description,
            base_url: new.base_url.filter(|text| !text.is_empty()),
            behind: base.behind(),
            spec: new.spec,
            secrets: SecretInput::new(),
            generation: 1,
            created_at: now,
            updated_at: now,
        };
        part_secrets(&mut source);
        self.check_source(&source, &base).await?;
        let sealed = self.seal_source(&source)?;
        let made_connection = base.made_connection.clone();
        self.store_source(&source, sealed, &base).await?;
        self.sources.forget_own();
        if let Some(made) = &base.made_integration {
            let (id, name) = (&made.integration.id, made.integration.name.clone());
            self.record(caller, "integration.create", id.as_str(), "ok", Some(name))?;
        }
        if let Some(connection) = &made_connection {
            self.record(caller, "connection.create", connection.id.as_str(), "ok", Some(connection.name.clone()))?;
        }
        self.record(caller, "source.create", source.id.as_str(), "ok", Some(source.name.clone()))?;
        let authorize = match &made_connection {
            Some(connection) => Some(self.authorize(caller, connection.id.as_str(), None, None).await),
            None => None,
        };
        let connection = match &made_connection {
            Some(connection) => Some(self.connection(caller, connection.id.as_str()).await?),
            None => None,
        };
        let source = self.source(caller, source.id.as_str()).await?;
        let integration = base.made_integration.map(|made| made.integration);
        Ok(MadeSource { source, integration, connection, authorize })
    }

    /// What a new source stands on: found, or made but not stored.
    async fn foundation(&self, caller: &Caller, new: &NewSource) -> Result<Foundation> {
        let made_integration = match &new.integration {
            Some(Wanted::New(integration)) => Some(
                self.new_integration(caller, (**integration).clone()).await.map_err(|e| within("integration", e))?,
            ),
            _ => None,
        };
        let named = match &new.integration {
            Some(Wanted::Named(name)) => Some(name.as_str()),
            _ => None,
        };
        let new_connection = match &new.connection {
            Some(Wanted::Named(name)) => {
                if new.integration.is_some() {
                    let remedy = "leave it out; or leave `connection` out, so that each caller uses its own under this integration";
                    return Err(invalid(
                        "integration",
                        "the connection that is named stands under one already",
                        remedy,
                    ));
                }
                return self.on_connection(caller, name).await;
            }
            Some(Wanted::New(connection)) => Some(connection),
            None => None,
        };
        let under = match new_connection.map(|connection| connection.integration.as_str()).unwrap_or_default() {
            "" => named,
            own if named.is_none() && made_integration.is_none() => Some(own),
            own => {
                let same =
                    named == Some(own) || made_integration.as_ref().is_some_and(|made| made.integration.name == own);
                if !same {
                    let remedy = "leave it out, so that the connection stands under the data source's `integration`";
                    return Err(invalid("connection.integration", "it is another than `integration`", remedy));
                }
                named
            }
        };
        let (integration, definition) = match (&made_integration, under) {
            (Some(made), _) => (made.integration.clone(), self.definition_of(&made.integration).await?),
            (None, Some(name)) => self.under_integration(caller, name).await?,
            (None, None) => {
                let remedy = "name one, or give `integration` so that each caller uses its own; both may be objects that are made with the data source";
                return Err(invalid("connection", "it is missing", remedy));
            }
        };
        let Some(new) = new_connection else {
            return Ok(Foundation {
                integration,
                definition,
                connection: None,
                made_integration,
                made_connection: None,
            });
        };
        check_name(&new.name).map_err(|error| within("connection", error))?;
        let connection =
            self.draft_connection(&definition, &integration, (**new).clone()).map_err(|e| within("connection", e))?;
        Ok(Foundation {
            integration,
            definition,
            connection: Some(connection.clone()),
            made_integration,
            made_connection: Some(connection),
        })
    }

    async fn on_connection(&self, caller: &Caller, name: &str) -> Result<Foundation> {
        let connection = self.find_connection(caller, name).await.map_err(|error| match error {
            Error::NotFound { .. } => {
                let reason = format!("there is no connection `{}`", name.chars().take(100).collect::<String>());
                invalid("connection", reason, "make it first, or see `keyholder connection list`")
            }
            other => other,
        })?;
        let integration = self.opened_integration(&connection.integration).await?;
        let definition = self.definition_of(&integration).await?;
        Ok(Foundation {
            integration,
            definition,
            connection: Some(connection),
            made_integration: None,
            made_connection: None,
        })
    }

    async fn under_integration(&self, caller: &Caller, name: &str) -> Result<(Integration, Arc<Definition>)> {
        let integration = self.integration(caller, name).await.map_err(|error| match error {
            Error::NotFound { .. } => {
                let reason = format!("there is no integration `{}`", name.chars().take(100).collect::<String>());
                invalid("integration", reason, "make it first, or see `keyholder integration list`")
            }
            other => other,
        })?;
        let definition = self.definition_of(&integration).await?;
        Ok((integration, definition))
    }

    /// Whether all of it can be read, each placeholder is known, and the connection's credentials may go to its host.
    async fn check_source(&self, source: &DataSource, base: &Foundation) -> Result<()> {
        let read = ReadSource::read(source.clone())?;
        let method = base.definition.method(Some(&base.integration.method))?;
        let others: Vec<Variable> = base.definition.variables_of(method).cloned().collect();
        read.check_names(&others)?;
        let no_values = Values::new();
        let (variables, secrets, tokens) = match &base.connection {
            Some(connection) => {
                self.know_keys([connection.secrets.as_ref(), connection.token_set.as_ref()]).await?;
                let tokens = match &connection.token_set {
                    Some(sealed) => Some(self.open_tokens(
                        &connection.tenant,
                        connection.id.as_str(),
                        connection.generation,
                        sealed,
                    )?),
                    None => None,
                };
                (&connection.variables, self.connection_secrets(connection)?, tokens)
            }
            None => (&no_values, SecretInput::new(), None),
        };
        let behind = all_values(&base.integration, variables, &secrets, tokens.as_ref());
        let filling = Filling::new(&read, &no_values, &behind);
        match self.plan_for(&base.integration, variables, secrets, tokens.as_ref()).await {
            Ok(plan) => filling.check_base(&plan.rendered.api),
            // What the person who connects is still to say: the call itself is refused then, if need be.
            Err(Error::Render(_)) => Ok(()),
            Err(other) => Err(other),
        }
    }

    fn seal_source(&self, source: &DataSource) -> Result<Option<Vec<u8>>> {
        if source.secrets.is_empty() {
            return Ok(None);
        }
        let place = source_place(&source.tenant, source.id.as_str(), source.generation);
        Ok(Some(self.vault.seal(&self.rng, &place, &write_secrets(&source.secrets)?)?))
    }

    /// One transaction: all that is new, or nothing.
    async fn store_source(&self, source: &DataSource, sealed: Option<Vec<u8>>, base: &Foundation) -> Result<()> {
        const WHAT: [&str; 3] = ["integration", "connection", "data source"];
        let made = base.made_integration.as_ref();
        let names = [
            made.map(|made| made.integration.name.clone()).unwrap_or_default(),
            base.made_connection.as_ref().map(|it| it.name.clone()).unwrap_or_default(),
            source.name.clone(),
        ];
        let step = Arc::new(AtomicUsize::new(0));
        let (reached, stored, integration) = (Arc::clone(&step), source.clone(), made.cloned());
        let connection = base.made_connection.clone();
        let event = connection.as_ref().map(|it| self.event(it, "created", "The connection was set up."));
        let write = move |tx: &Tx<'_>| {
            if let Some(integration) = integration
                && !integration.write(tx)?
            {
                return Ok(false);
            }
            reached.store(1, Ordering::Relaxed);
            if let (Some(connection), Some(event)) = (connection, event) {
                tx.add_connection(&connection)?;
                event.write(tx)?;
            }
            reached.store(2, Ordering::Relaxed);
            tx.add_source(&stored, sealed.as_deref())?;
            Ok(true)
        };
        let written = self.store.write(write).await.map_err(|error| {
            let at = step.load(Ordering::Relaxed);
            match error {
                StoreError::InUse => Error::ChangedMeanwhile("connection"),
                other => super::taken(other, WHAT[at], &names[at]),
            }
        })?;
        if written { Ok(()) } else { Err(Error::ChangedMeanwhile("provider")) }
    }

    /// The data source of this id or name, if the caller's limits let it see it.
    pub async fn source(&self, caller: &Caller, id_or_name: &str) -> Result<ShownSource> {
        let source = self.opened_source(&caller.tenant, id_or_name).await?;
        self.require_source(caller, &source.id, &source.name)?;
        let wanted = caller.clone();
        let shown = self.store.read(move |tx| shown_source(tx, &wanted, source)).await?;
        shown.ok_or(Error::Limited("connection"))
    }

    /// A page of data sources; those beyond the caller's limits are passed over. Of secrets not even the names are there.
    pub async fn list_sources(&self, caller: &Caller, page: &Page) -> Result<Vec<ShownSource>> {
        let (caller, page) = (caller.clone(), page.clone());
        let wanted = usize::try_from(page.limit).unwrap_or(0);
        let read = move |tx: &Tx<'_>| {
            let (mut after, mut out) = (page.after.clone(), Vec::new());
            loop {
                let rows = tx.sources(&caller.tenant, &after, page.limit)?;
                let Some(last) = rows.last() else { return Ok(out) };
                after = last.id.to_string();
                for row in rows {
                    if !caller.limits.refuses_source(&row.id, &row.name) {
                        out.extend(shown_source(tx, &caller, row)?);
                    }
                    if out.len() == wanted {
                        return Ok(out);
                    }
                }
            }
        };
        Ok(self.store.read(read).await?)
    }

    /// Changes a data source.
    pub async fn edit_source(&self, caller: &Caller, id_or_name: &str, edit: SourceEdit) -> Result<ShownSource> {
        self.require_unlimited(caller, "no data sources", id_or_name)?;
        let mut source = self.opened_source(&caller.tenant, id_or_name).await?;
        let base = match (&edit.connection, &edit.integration) {
            (Some(_), Some(_)) => {
                return Err(invalid("integration", "there is a connection too", "give one of them"));
            }
            (Some(name), None) => self.on_connection(caller, name).await?,
            (None, Some(name)) => {
                let (integration, definition) = self.under_integration(caller, name).await?;
                Foundation { integration, definition, connection: None, made_integration: None, made_connection: None }
            }
            (None, None) => match &source.behind {
                Behind::Connection(id) => self.on_connection(caller, id.as_str()).await?,
                Behind::EachCallers(id) => {
                    let (integration, definition) = self.under_integration(caller, id.as_str()).await?;
                    Foundation {
                        integration,
                        definition,
                        connection: None,
                        made_integration: None,
                        made_connection: None,
                    }
                }
            },
        };
        let before = (source.behind.clone(), source.base_url.clone());
        source.behind = base.behind();
        let steered = steers(&edit, before.1.as_deref());
        let kept: Vec<String> =
            source.secrets.keys().filter(|name| !is_given(edit.variables.get(*name))).cloned().collect();
        apply(&mut source, edit)?;
        if steered || before != (source.behind.clone(), source.base_url.clone()) {
            secrets_stay(kept)?;
        }
        check_name(&source.name)?;
        part_secrets(&mut source);
        self.check_source(&source, &base).await?;
        source.generation += 1;
        source.updated_at = self.now_ms();
        let sealed = self.seal_source(&source)?;
        let stored = source.clone();
        let written = self.store.write(move |tx| tx.update_source(&stored, sealed.as_deref())).await;
        let written = written.map_err(|error| match error {
            StoreError::InUse => Error::ChangedMeanwhile("connection"),
            other => super::taken(other, "data source", &source.name),
        })?;
        if !written {
            return Err(Error::ChangedMeanwhile("data source"));
        }
        self.sources.forget(&source.id);
        self.record(caller, "source.edit", source.id.as_str(), "ok", Some(source.name.clone()))?;
        self.source(caller, source.id.as_str()).await
    }

    /// Removes a data source; what it was reached through stays.
    pub async fn remove_source(&self, caller: &Caller, id_or_name: &str) -> Result<()> {
        self.require_unlimited(caller, "no data sources", id_or_name)?;
        let (tenant, name) = (caller.tenant.clone(), id_or_name.to_owned());
        let removed = self
            .store
            .write(move |tx| match tx.source(&tenant, &name)? {
                Some((source, _)) => tx.remove_source(&tenant, &source.id).map(|_| Some(source)),
                None => Ok(None),
            })
            .await?
            .ok_or_else(|| Error::not_found("data source", id_or_name))?;
        self.sources.forget(&removed.id);
        self.record(caller, "source.remove", removed.id.as_str(), "ok", Some(removed.name))
    }
}

/// What a data source stands on.
struct Foundation {
    integration: Integration,
    definition: Arc<Definition>,
    /// `None`: each caller's own.
    connection: Option<Connection>,
    /// The integration, where it is still to be stored.
    made_integration: Option<MadeIntegration>,
    /// The connection, where it is still to be stored.
    made_connection: Option<Connection>,
}

impl Foundation {
    fn behind(&self) -> Behind {
        match &self.connection {
            Some(connection) => Behind::Connection(connection.id.clone()),
            None => Behind::EachCallers(self.integration.id.clone()),
        }
    }
}

/// With the names of what it stands on; `None` beyond the caller's limits.
fn shown_source(tx: &Tx<'_>, caller: &Caller, source: DataSource) -> crate::store::StoreResult<Option<ShownSource>> {
    Ok(match &source.behind {
        Behind::Connection(id) => {
            let connection = tx.connection_by_id(id)?;
            let name = connection.map_or_else(|| id.to_string(), |it| it.name);
            caller.limits.refusal(id, &name, Grip::Reached).is_none().then_some(ShownSource {
                source,
                connection: Some(name),
                integration: None,
            })
        }
        Behind::EachCallers(id) => {
            let integration = tx.integration_by_id(id)?.map_or_else(|| id.to_string(), |(it, _)| it.name);
            Some(ShownSource { source, connection: None, integration: Some(integration) })
        }
    })
}

/// Takes the values of secret variables out of what is stored in the clear; those of variables that are gone go.
fn part_secrets(source: &mut DataSource) {
    let variables = &mut source.spec.variables;
    for (name, variable) in variables.iter_mut() {
        let value = variable.value.take().filter(|value| !value.is_empty());
        if variable.secret {
            source.secrets.extend(value.map(|value| (name.clone(), Secret::new(value))));
        } else {
            variable.value = value;
        }
    }
    source.secrets.retain(|name, _| variables.get(name).is_some_and(|variable| variable.secret));
}

fn apply(source: &mut DataSource, edit: SourceEdit) -> Result<()> {
    source.name = edit.name.unwrap_or(std::mem::take(&mut source.name));
    source.description = edit.description.unwrap_or(std::mem::take(&mut source.description));
    source.base_url = edit.base_url.unwrap_or(source.base_url.take()).filter(|text| !text.is_empty());
    let spec = &mut source.spec;
    put(&mut spec.headers, edit.headers);
    put(&mut spec.query, edit.query);
    put(&mut spec.requests, edit.requests);
    for (name, change) in edit.variables {
        match change {
            None => {
                spec.variables.remove(&name);
                source.secrets.remove(&name);
            }
            Some(VariableEdit::Value(value)) => {
                let variable = spec
                    .variables
                    .entry(name.clone())
                    .or_insert_with(|| SourceVariable { required: true, ..Default::default() });
                if value.is_empty() {
                    source.secrets.remove(&name);
                }
                variable.value = Some(value);
            }
            Some(VariableEdit::Whole(variable)) => {
                let was_secret = source.secrets.contains_key(&name);
                if was_secret && !variable.secret && variable.value.is_none() {
                    let remedy = "give its value too, or remove the variable first";
                    return Err(invalid(
                        format!("variables.{name}.secret"),
                        "a secret stays one: its value is not shown",
                        remedy,
                    ));
                }
                spec.variables.insert(name, *variable);
            }
        }
    }
    spec.health = edit.health.unwrap_or(spec.health.take());
    spec.allow = edit.allow.unwrap_or(std::mem::take(&mut spec.allow));
    Ok(())
}

/// Whether an edit takes a variable away or gives it a value.
fn is_given(change: Option<&Option<VariableEdit>>) -> bool {
    match change {
        None => false,
        Some(Some(VariableEdit::Whole(variable))) => variable.value.is_some(),
        Some(None | Some(VariableEdit::Value(_))) => true,
    }
}

/// Whether an edit sets a variable that stands in the base URL.
fn steers(edit: &SourceEdit, base_url: Option<&str>) -> bool {
    let base_url: String = base_url.unwrap_or_default().split_whitespace().collect();
    edit.variables.keys().any(|name| base_url.contains(&format!("{{{{{name}}}}}")))
}

/// Whoever may not see a secret may not have it sent elsewhere either.
fn secrets_stay(kept: Vec<String>) -> Result<()> {
    let remedy =
        "give its value anew, or remove the variable: where requests go is changed, and who changes that must know it";
    let refused = |name| {
        FieldError::new(format!("variables.{name}"), "its value is secret and would go to another server", remedy)
    };
    let errors: Vec<_> = kept.into_iter().map(refused).collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

fn put<T>(into: &mut BTreeMap<String, T>, changes: BTreeMap<String, Option<T>>) {
    for (name, change) in changes {
        match change {
            Some(value) => into.insert(name, value),
            None => into.remove(&name),
        };
    }
}

/// Errors of an object within the data source's, under its field.
fn within(field: &str, error: Error) -> Error {
    match error {
        Error::Invalid(errors) => {
            let named = |error: FieldError| FieldError { field: format!("{field}.{}", error.field), ..error };
            Error::Invalid(errors.into_iter().map(named).collect())
        }
        other => other,
    }
}
