//! Connections: making, seeing, changing and removing them.

use std::collections::HashMap;

use keyholder_oauth::Secret;
use keyholder_provider::{AskedOf, Definition, GrantKind, Method};

use super::fields::check_user;
use super::{Page, check_name, sort_given, sort_values, taken};
use crate::error::{Error, Result, invalid};
use crate::model::{
    Caller, Connection, ConnectionId, ConnectionState, Event, EventId, Failures, Grip, Happened, Integration, Scope,
    Values,
};
use crate::open::Broker;
use crate::plan::PASSWORD;
use crate::store::{Filter, StoreError, Tx};

/// What a new connection shall be. Without `Debug`: variables may be secret.
#[derive(Clone, Default)]
pub struct NewConnection {
    /// Unique in the tenant.
    pub name: String,
    /// Id or name of the integration.
    pub integration: String,
    /// Who the grant belongs to, in the application's words.
    pub owner: Option<String>,
    /// For the password grant.
    pub username: Option<String>,
    /// For the password grant.
    pub password: Option<Secret>,
    /// Values for the variables asked of connections.
    pub variables: Values,
    /// What a person would be asked to choose after connecting, by name.
    pub choices: Values,
    /// Free labels.
    pub tags: Values,
}

/// What shall change; `None` leaves a field as it is. Without `Debug`: variables may be secret.
#[derive(Clone, Default)]
pub struct ConnectionEdit {
    /// New user name.
    pub username: Option<String>,
    /// New password.
    pub password: Option<Secret>,
    /// Variables to set; an empty value takes one away.
    pub variables: Values,
    /// Choices to set; an empty value takes one away.
    pub choices: Values,
}

/// A connection with what a list shows beside it.
#[derive(Clone, Debug)]
pub struct ShownConnection {
    /// The connection, secrets sealed.
    pub connection: Connection,
    /// Name of its integration.
    pub integration: String,
    /// Id of its provider.
    pub provider: String,
    /// Name of its method.
    pub method: String,
}

impl Broker {
    /// Adds a draft connection.
    pub async fn add_connection(&self, caller: &Caller, new: NewConnection) -> Result<ShownConnection> {
        self.require_unlimited(caller, "no new ones", &new.name)?;
        check_name(&new.name)?;
        let integration = self.integration(caller, &new.integration).await.map_err(|error| match error {
            Error::NotFound { .. } => invalid(
                "integration",
                format!("there is no integration `{}`", new.integration),
                "make it first, or see `keyholder integration list`",
            ),
            other => other,
        })?;
        let definition = self.definition_of(&integration).await?;
        let connection = self.draft_connection(&definition, &integration, new)?;
        let stored = connection.clone();
        let event = self.event(&connection, "created", "The connection was set up.");
        self.store
            .write(move |tx| {
                tx.add_connection(&stored)?;
                event.write(tx)
            })
            .await
            .map_err(|error| taken(error, "connection", &connection.name))?;
        self.sources.forget_own();
        self.record(caller, "connection.create", connection.id.as_str(), "ok", Some(connection.name.clone()))?;
        Ok(shown(connection, &integration))
    }

    /// A draft under an integration; not stored yet.
    pub(crate) fn draft_connection(
        &self,
        definition: &Definition,
        integration: &Integration,
        new: NewConnection,
    ) -> Result<Connection> {
        let method = definition.method(Some(&integration.method))?;
        check_user(method, new.username.as_deref(), new.password.as_ref())?;
        let sorted = match method.grant {
            // The person who consents is asked for what is missing.
            GrantKind::AuthorizationCode | GrantKind::DeviceCode | GrantKind::RefreshToken => {
                sort_given(definition, method, AskedOf::Connection, &new.variables)
            }
            GrantKind::ClientCredentials
            | GrantKind::Password
            | GrantKind::JwtBearer
            | GrantKind::SamlBearer
            | GrantKind::TokenExchange => sort_values(definition, method, AskedOf::Connection, &new.variables),
        };
        let (mut variables, mut secrets) = sorted?;
        choose(method, &mut variables, &new.choices)?;
        if let Some(password) = new.password {
            secrets.insert(PASSWORD.to_owned(), password);
        }
        let (id, now) = (ConnectionId::new(&self.clock, &self.rng), self.now_ms());
        Ok(Connection {
            secrets: self.seal_connection_secrets(&integration.tenant, id.as_str(), &secrets)?,
            id,
            tenant: integration.tenant.clone(),
            name: new.name,
            integration: integration.id.clone(),
            owner: new.owner,
            username: new.username,
            tags: new.tags,
            variables,
            state: ConnectionState::Draft(None),
            token_set: None,
            generation: 0,
            token_expires_at: None,
            scope: None,
            account: None,
            due_at: None,
            lost_at: None,
            dies_at: None,
            attempt: None,
            failures: Failures::default(),
            retry_at: None,
            connected_at: None,
            renewed_at: None,
            created_at: now,
            updated_at: now,
        })
    }

    /// The connection of this id or name, if the caller's limits let it see it.
    pub async fn connection(&self, caller: &Caller, id_or_name: &str) -> Result<ShownConnection> {
        let connection = self.find_connection(caller, id_or_name).await?;
        let integration = self.opened_integration(&connection.integration).await?;
        Ok(shown(connection, &integration))
    }

    pub(crate) async fn find_connection(&self, caller: &Caller, id_or_name: &str) -> Result<Connection> {
        let (tenant, name) = (caller.tenant.clone(), id_or_name.to_owned());
        let connection = self
            .store
            .read(move |tx| tx.connection(&tenant, &name))
            .await?
            .ok_or_else(|| Error::not_found("connection", id_or_name))?;
        self.require_grip(caller, &connection.id, &connection.name, Grip::Connection)?;
        self.know_keys([connection.secrets.as_ref(), connection.token_set.as_ref()]).await?;
        Ok(connection)
    }

    /// A page of connections; those beyond the caller's limits are passed over.
    pub async fn connections(&self, caller: &Caller, filter: &Filter, page: &Page) -> Result<Vec<ShownConnection>> {
        let tag = filter.tag.iter().map(|(name, value)| name.len() + value.as_deref().map_or(0, str::len));
        if filter.search.iter().map(String::len).chain(tag).any(|length| length > LONGEST_SEARCH) {
            return Ok(Vec::new());
        }
        let (caller, filter, page) = (caller.clone(), filter.clone(), page.clone());
        let wanted = usize::try_from(page.limit).unwrap_or(0);
        let read = move |tx: &Tx<'_>| {
            let (mut after, mut integrations, mut out) = (page.after.clone(), HashMap::new(), Vec::new());
            loop {
                let rows = tx.connections(&caller.tenant, &filter, &after, page.limit)?;
                let Some(last) = rows.last() else { return Ok(out) };
                after = last.id.to_string();
                for row in
                    rows.into_iter().filter(|row| caller.limits.refusal(&row.id, &row.name, Grip::Connection).is_none())
                {
                    if !integrations.contains_key(&row.integration)
                        && let Some((integration, _)) = tx.integration_by_id(&row.integration)?
                    {
                        integrations.insert(row.integration.clone(), integration);
                    }
                    if let Some(integration) = integrations.get(&row.integration) {
                        out.push(shown(row, integration));
                    }
                    if out.len() == wanted {
                        return Ok(out);
                    }
                }
            }
        };
        Ok(self.store.read(read).await?)
    }

    /// Whether somebody may tell a connection these values: they may be part of the address that its refresh token and the client's secret are sent to.
    pub(crate) fn require_for_values(
        &self,
        caller: &Caller,
        connection: &Connection,
        variables: &Values,
        choices: &Values,
    ) -> Result<()> {
        let changes = |name: &str, value: &String| connection.variables.get(name) != Some(value);
        let others = variables.iter().any(|(name, value)| changes(name, value))
            || choices.iter().any(|(name, value)| changes(&learnt_name(name), value));
        if connection.token_set.is_some() && others { self.require(caller, Scope::Admin) } else { Ok(()) }
    }

    /// Changes what a connection was told. What failed is tried again at once where its grant runs by itself, else at its next use.
    pub async fn edit_connection(
        &self,
        caller: &Caller,
        id_or_name: &str,
        edit: ConnectionEdit,
    ) -> Result<ShownConnection> {
        let connection = self.find_connection(caller, id_or_name).await?;
        let integration = self.opened_integration(&connection.integration).await?;
        let definition = self.definition_of(&integration).await?;
        let method = definition.method(Some(&integration.method))?;
        self.require_for_values(caller, &connection, &edit.variables, &edit.choices)?;
        let mut old = self.connection_secrets(&connection)?;
        let password = edit.password.or(old.remove(PASSWORD));
        check_user(method, edit.username.as_deref().or(connection.username.as_deref()), password.as_ref())?;
        let (learnt, mut all) = part_learnt(connection.variables.clone());
        all.extend(old.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned())));
        all.extend(edit.variables);
        let (mut variables, mut secrets) = sort_values(&definition, method, AskedOf::Connection, &all)?;
        variables.extend(learnt);
        choose(method, &mut variables, &edit.choices)?;
        if let Some(password) = password {
            secrets.insert(PASSWORD.to_owned(), password);
        }
        let sealed = self.seal_connection_secrets(&connection.tenant, connection.id.as_str(), &secrets)?;
        let (id, now) = (connection.id.clone(), self.now_ms());
        let runs_by_itself = !method.grant.needs_a_person();
        self.store
            .write(move |tx| {
                tx.put_connection_input(&id, edit.username.as_deref(), &variables, sealed.as_deref(), now)?;
                // A corrected password may be all that was missing; a dead consent stays dead.
                if runs_by_itself { tx.try_again(&id, now) } else { Ok(()) }
            })
            .await?;
        self.live.forget(&connection.id);
        self.due.notify_one();
        self.record(caller, "connection.edit", connection.id.as_str(), "ok", None)?;
        self.connection(caller, connection.id.as_str()).await
    }

    /// A connection's history, newest first.
    pub async fn history(&self, caller: &Caller, id_or_name: &str, limit: i64) -> Result<Vec<Event>> {
        let connection = self.find_connection(caller, id_or_name).await?;
        Ok(self.store.read(move |tx| tx.events(&connection.id, limit)).await?)
    }

    /// What happened to connections that the caller may see, newest first; of the newest `limit` of all.
    pub async fn newest_events(&self, caller: &Caller, limit: i64) -> Result<Vec<Happened>> {
        self.require(caller, Scope::Read)?;
        let tenant = caller.tenant.clone();
        let mut newest = self.store.read(move |tx| tx.newest_events(&tenant, limit)).await?;
        newest.retain(|event| event.may_be_heard_by(caller));
        Ok(newest)
    }

    /// Removes a connection. Its grant at the provider is revoked first, where the provider can be told.
    pub async fn remove_connection(&self, caller: &Caller, id_or_name: &str) -> Result<()> {
        let connection = self.find_connection(caller, id_or_name).await?;
        // Before anything is ended at the provider.
        let id = connection.id.clone();
        if self.store.read(move |tx| tx.source_on_connection(&id)).await?.is_some() {
            return Err(Error::InUse { what: "connection", name: connection.name, by: "data sources" });
        }
        self.revoke_row(&connection).await?;
        let id = connection.id.clone();
        self.store
            .write(move |tx| {
                tx.lock_connection(&id)?;
                tx.remove_connection(&id)
            })
            .await
            .map_err(|error| match error {
                StoreError::InUse => {
                    Error::InUse { what: "connection", name: connection.name.clone(), by: "data sources" }
                }
                other => other.into(),
            })?;
        self.live.forget(&connection.id);
        self.sources.forget_own();
        self.record(caller, "connection.remove", connection.id.as_str(), "ok", Some(connection.name))
    }

    /// A line for the history of `connection`.
    pub(crate) fn event(&self, connection: &Connection, kind: &'static str, message: impl Into<String>) -> NewEvent {
        NewEvent {
            id: EventId::new(&self.clock, &self.rng),
            at: self.now_ms(),
            connection: connection.id.clone(),
            tenant: connection.tenant.clone(),
            kind,
            message: message.into(),
        }
    }
}

/// A line for a connection's history, to be written with what it tells.
pub(crate) struct NewEvent {
    id: EventId,
    at: i64,
    connection: ConnectionId,
    tenant: crate::model::Tenant,
    kind: &'static str,
    message: String,
}

impl NewEvent {
    pub(crate) fn write(&self, tx: &Tx<'_>) -> crate::store::StoreResult<()> {
        tx.add_event(&self.id, &self.tenant, &self.connection, self.at, self.kind, &self.message)
    }
}

/// Parts what the provider said (`callback.NAME`, `lookup.NAME`) from the values of variables, whose names have no dot.
fn part_learnt(values: Values) -> (Values, Values) {
    values.into_iter().partition(|(name, _)| name.contains('.'))
}

/// Puts choices among what the provider said; an empty one is taken away.
pub(crate) fn choose(method: &Method, values: &mut Values, choices: &Values) -> Result<()> {
    for (name, value) in choices {
        let known: Vec<&str> = method.choices().collect();
        if !known.contains(&name.as_str()) {
            let remedy = if known.is_empty() {
                "leave `choices` out".to_owned()
            } else {
                format!("use one of: {}", known.join(", "))
            };
            return Err(invalid(format!("choices.{name}"), "there is nothing of this name to choose", remedy));
        }
        if value.len() > MAX_CHOICE || value.chars().any(char::is_control) {
            let remedy = "give the value that the provider uses";
            return Err(invalid(format!("choices.{name}"), "it is too long or holds control characters", remedy));
        }
        if value.is_empty() {
            values.remove(&learnt_name(name));
        } else {
            values.insert(learnt_name(name), value.clone());
        }
    }
    Ok(())
}

fn learnt_name(choice: &str) -> String {
    format!("lookup.{choice}")
}

/// Longest choice, in bytes.
const MAX_CHOICE: usize = 8192;
/// Nothing that is searched is as long, in bytes; and SQLite takes no pattern of more than 50,000.
const LONGEST_SEARCH: usize = 10_000;

pub(crate) fn shown(connection: Connection, integration: &Integration) -> ShownConnection {
    ShownConnection {
        connection,
        integration: integration.name.clone(),
        provider: integration.provider.clone(),
        method: integration.method.clone(),
    }
}
