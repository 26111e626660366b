//! Integrations.

use std::sync::Arc;

use keyholder_oauth::{ClientAuth, Secret};
use keyholder_provider::{AskedOf, Definition, Extra, RenderError};

use super::fields::{check_credentials, check_fields, check_inputs};
use super::providers::{ShownProvider, shown};
use super::{Page, check_name, sort_values, taken};
use crate::error::{Error, FieldError, Result, invalid};
use crate::model::{Caller, Integration, IntegrationId, Rate, RenewalPolicy, Scope, SecretInput, Values};
use crate::open::Broker;
use crate::store::{StoreError, StoreResult, Tx};

/// What a new integration shall be. Without `Debug`: variables may be secret.
#[derive(Clone, Default)]
pub struct NewIntegration {
    /// One that [`Broker::reserve_integration`] gave; a new one when not given.
    pub id: Option<IntegrationId>,
    /// Unique in the tenant.
    pub name: String,
    /// For people.
    pub description: String,
    /// Id of a definition.
    pub provider: String,
    /// A method of it; the first one when not given.
    pub method: Option<String>,
    /// Client identifier.
    pub client_id: String,
    /// Client secret; none for a public client.
    pub client_secret: Option<Secret>,
    /// When the provider stops taking it, Unix milliseconds.
    pub client_secret_expires_at: Option<i64>,
    /// Private key as PEM or JWK.
    pub client_key: Option<Secret>,
    /// Certificate chain as PEM.
    pub client_certificate: Option<String>,
    /// The certificate's private key as PEM; `client_key` when not given.
    pub client_certificate_key: Option<Secret>,
    /// Scopes to ask for.
    pub scopes: Vec<String>,
    /// Audience or resource.
    pub audience: Option<String>,
    /// Overrides the token's prefix in the header.
    pub header_prefix: Option<String>,
    /// Overrides how the client authenticates.
    pub client_auth: Option<ClientAuth>,
    /// Sent as `grant_type` instead of the grant's own name.
    pub grant_type: Option<String>,
    /// What the body of token and refresh requests is: `form` or `json`.
    pub content_type: Option<String>,
    /// Where the access token stands in the reply.
    pub token_key: Option<String>,
    /// How many calls each of its connections may make.
    pub limits: Rate,
    /// Parameters beside the definition's.
    pub extra: Extra,
    /// How its connections are renewed.
    pub renewal: RenewalPolicy,
    /// Values for the definition's variables.
    pub variables: Values,
}

/// What shall change; `None` leaves a field as it is. Without `Debug`: variables may be secret.
#[derive(Clone, Default)]
pub struct IntegrationEdit {
    /// New name.
    pub name: Option<String>,
    /// New description.
    pub description: Option<String>,
    /// New client identifier.
    pub client_id: Option<String>,
    /// New client secret. What was said of the old one's end goes with it.
    pub client_secret: Option<Secret>,
    /// When the provider stops taking it, Unix milliseconds; `Some(None)` takes it away.
    pub client_secret_expires_at: Option<Option<i64>>,
    /// New private key; an empty one takes it away.
    pub client_key: Option<Secret>,
    /// New certificate chain; `Some(None)` takes it and its key away.
    pub client_certificate: Option<Option<String>>,
    /// The new certificate's private key; an empty one takes it away.
    pub client_certificate_key: Option<Secret>,
    /// New scopes; they count from the next consent on.
    pub scopes: Option<Vec<String>>,
    /// New audience; `Some(None)` takes it away.
    pub audience: Option<Option<String>>,
    /// New header prefix; `Some(None)` takes it away.
    pub header_prefix: Option<Option<String>>,
    /// New client authentication; `Some(None)` takes it away.
    pub client_auth: Option<Option<ClientAuth>>,
    /// New `grant_type`; `Some(None)` takes it away.
    pub grant_type: Option<Option<String>>,
    /// New `content_type`; `Some(None)` takes it away.
    pub content_type: Option<Option<String>>,
    /// New place of the access token in the reply; `Some(None)` takes it away.
    pub token_key: Option<Option<String>>,
    /// New limits of the calls of each connection.
    pub limits: Option<Rate>,
    /// New parameters, all of them.
    pub extra: Option<Extra>,
    /// New renewal, all of it; it counts from each connection's next renewal on.
    pub renewal: Option<RenewalPolicy>,
    /// Variables to set; an empty value takes one away.
    pub variables: Values,
}

/// An integration that is ready to be stored.
#[derive(Clone)]
pub(super) struct MadeIntegration {
    pub(super) integration: Integration,
    provider: ShownProvider,
    sealed: Option<Vec<u8>>,
}

impl MadeIntegration {
    /// Stores it; `false` when its definition was removed meanwhile.
    pub(super) fn write(&self, tx: &Tx<'_>) -> StoreResult<bool> {
        let held = hold(tx, &self.integration, &self.provider)?;
        if held {
            tx.add_integration(&self.integration, self.sealed.as_deref())?;
        }
        Ok(held)
    }
}

impl Broker {
    /// Adds an integration. What it needs of the provider (its discovery document) is asked now, so that a mistake shows at once.
    pub async fn add_integration(&self, caller: &Caller, new: NewIntegration) -> Result<Integration> {
        let made = self.new_integration(caller, new).await?;
        let integration = made.integration.clone();
        let written = self.store.write(move |tx| made.write(tx)).await;
        if !written.map_err(|error| taken(error, "integration", &integration.name))? {
            return Err(Error::ChangedMeanwhile("provider"));
        }
        self.record(caller, "integration.create", integration.id.as_str(), "ok", Some(integration.name.clone()))?;
        Ok(integration)
    }

    /// An id for an integration that isn't there yet, so that its redirect URI can be registered first.
    pub fn reserve_integration(&self) -> IntegrationId {
        IntegrationId::new(&self.clock, &self.rng)
    }

    /// An integration, checked and sealed but not stored yet.
    pub(super) async fn new_integration(&self, caller: &Caller, new: NewIntegration) -> Result<MadeIntegration> {
        self.require_unlimited(caller, "no integrations", &new.name)?;
        check_name(&new.name)?;
        let provider = self.provider_for(&new.provider)?;
        let definition = Arc::clone(&provider.definition);
        let method = definition.method(new.method.as_deref()).map_err(|e| {
            let names: Vec<_> = definition.methods.iter().map(|m| m.name.as_str()).collect();
            FieldError::new("method", e.to_string(), format!("use one of: {}", names.join(", ")))
        });
        let method = method.map_err(|e| Error::Invalid(vec![e]))?;
        let (variables, secret_variables) = sort_values(&definition, method, AskedOf::Integration, &new.variables)?;
        let now = self.now_ms();
        let integration = Integration {
            id: new.id.unwrap_or_else(|| self.reserve_integration()),
            tenant: caller.tenant.clone(),
            name: new.name,
            description: new.description,
            provider_version: provider.version.clone(),
            provider: definition.id.clone(),
            method: method.name.clone(),
            client_id: new.client_id,
            client_secret: given(new.client_secret),
            client_secret_expires_at: new.client_secret_expires_at,
            client_key: given(new.client_key),
            client_certificate: new.client_certificate.filter(|text| !text.is_empty()),
            client_certificate_key: given(new.client_certificate_key),
            scopes: new.scopes,
            audience: new.audience.filter(|text| !text.is_empty()),
            header_prefix: new.header_prefix,
            client_auth: new.client_auth,
            grant_type: new.grant_type.filter(|text| !text.is_empty()),
            content_type: new.content_type.filter(|text| !text.is_empty()),
            token_key: new.token_key.filter(|text| !text.is_empty()),
            limits: new.limits,
            extra: new.extra,
            renewal: new.renewal,
            variables,
            secret_variables,
            generation: 1,
            created_at: now,
            updated_at: now,
        };
        self.check_integration(&definition, &integration).await?;
        let sealed = self.seal_integration(&integration)?;
        Ok(MadeIntegration { integration, provider, sealed })
    }

    /// The integration of this id or name, its secrets opened.
    pub async fn integration(&self, caller: &Caller, id_or_name: &str) -> Result<Integration> {
        let (tenant, name) = (caller.tenant.clone(), id_or_name.to_owned());
        let (integration, sealed) = self
            .store
            .read(move |tx| tx.integration(&tenant, &name))
            .await?
            .ok_or_else(|| Error::not_found("integration", id_or_name))?;
        self.know_keys([sealed.as_ref()]).await?;
        self.open_integration(integration, sealed.as_deref())
    }

    /// A page of integrations, without their secrets.
    pub async fn integrations(&self, caller: &Caller, page: &Page) -> Result<Vec<Integration>> {
        let (tenant, after, limit) = (caller.tenant.clone(), page.after.clone(), page.limit);
        Ok(self.store.read(move |tx| tx.integrations(&tenant, &after, limit)).await?)
    }

    /// Changes an integration. Failing connections under it are tried again at once.
    pub async fn edit_integration(
        &self,
        caller: &Caller,
        id_or_name: &str,
        edit: IntegrationEdit,
    ) -> Result<Integration> {
        self.require_unlimited(caller, "no integrations", id_or_name)?;
        let mut integration = self.integration(caller, id_or_name).await?;
        let definition = self.definition_of(&integration).await?;
        if edit.variables.iter().any(|(name, value)| integration.variables.get(name) != Some(value)) {
            // Variables say where client secret and refresh tokens are sent; whoever may send them elsewhere may read them.
            self.require(caller, Scope::Admin)?;
        }
        if edit.token_key.as_ref().is_some_and(|key| *key != integration.token_key) {
            // It says which member of a reply is handed out.
            self.require(caller, Scope::Admin)?;
        }
        apply(&mut integration, edit, &definition)?;
        check_name(&integration.name)?;
        self.check_integration(&definition, &integration).await?;
        integration.generation += 1;
        integration.updated_at = self.now_ms();
        let sealed = self.seal_integration(&integration)?;
        let (stored, now) = (integration.clone(), self.now_ms());
        let written = self
            .store
            .write(move |tx| {
                let written = tx.update_integration(&stored, sealed.as_deref())?;
                tx.forget_backoff(&stored.id, now)?;
                Ok(written)
            })
            .await
            .map_err(|error| taken(error, "integration", &integration.name))?;
        if !written {
            return Err(Error::ChangedMeanwhile("integration"));
        }
        self.live.forget_of(&integration.id);
        self.due.notify_one();
        self.record(caller, "integration.edit", integration.id.as_str(), "ok", Some(integration.name.clone()))?;
        Ok(integration)
    }

    /// Removes an integration that has no connections.
    pub async fn remove_integration(&self, caller: &Caller, id_or_name: &str) -> Result<()> {
        self.require_unlimited(caller, "no integrations", id_or_name)?;
        let integration = self.integration(caller, id_or_name).await?;
        let (tenant, id) = (caller.tenant.clone(), integration.id.clone());
        self.store.write(move |tx| tx.remove_integration(&tenant, &id)).await.map_err(|error| match error {
            StoreError::InUse => {
                Error::InUse { what: "integration", name: integration.name.clone(), by: "connections or data sources" }
            }
            other => other.into(),
        })?;
        self.record(caller, "integration.remove", integration.id.as_str(), "ok", Some(integration.name))
    }

    /// Where the provider sends the person back: one redirect URI an integration, compared letter by letter by most providers.
    pub fn redirect_uri(&self, id: &IntegrationId) -> String {
        let base = self.settings.public_url.as_str().trim_end_matches('/');
        format!("{base}/callback/{id}")
    }

    fn provider_for(&self, provider: &str) -> Result<ShownProvider> {
        let newest = self.definitions.newest();
        newest.catalogue.definition(provider).map(|it| shown(&newest, it)).ok_or_else(|| {
            invalid(
                "provider",
                format!("there is no provider `{}`", provider.chars().take(60).collect::<String>()),
                "see `keyholder provider list`; `oauth2` takes any endpoints by hand, `oidc` any discovery document",
            )
        })
    }

    /// Makes the plan that every connection under it will make. Values that each connection brings are not known yet, so a plan that only lacks those is fine.
    pub(super) async fn check_integration(&self, definition: &Definition, integration: &Integration) -> Result<()> {
        check_fields(integration)?;
        let method = definition.method(Some(&integration.method))?;
        check_inputs(method, integration)?;
        let asks_connection = definition
            .variables_of(method)
            .any(|variable| variable.asked_of == AskedOf::Connection && variable.default.is_none());
        let plan = match self.plan_for(integration, &Values::new(), SecretInput::new(), None).await {
            Ok(plan) => plan,
            Err(Error::Render(RenderError::NotSaidYet { .. })) => return Ok(()),
            Err(Error::Render(_)) if asks_connection => {
                return integration.client_auth.map_or(Ok(()), |auth| check_credentials(auth, integration));
            }
            Err(error) => return Err(error),
        };
        check_credentials(plan.rendered.token.client_auth, integration)
    }
}

/// Sees to it that a version stays: one's own is held until the integration is on it, `false` if it is gone; a built-in one's text is kept.
pub(super) fn hold(tx: &Tx<'_>, integration: &Integration, provider: &ShownProvider) -> StoreResult<bool> {
    let (tenant, id, definition) = (&integration.tenant, &integration.provider, &provider.definition);
    if provider.built_in {
        let (text, bases) = (&definition.text, &definition.bases);
        tx.keep_built_in(tenant, id, &provider.version, text, bases, integration.updated_at)?;
        return Ok(true);
    }
    tx.lock_provider(tenant, id, &provider.version)?;
    Ok(tx.provider_version(tenant, id, &provider.version)?.is_some())
}

fn given(secret: Option<Secret>) -> Option<Secret> {
    secret.filter(|secret| !secret.is_empty())
}

fn apply(integration: &mut Integration, edit: IntegrationEdit, definition: &Definition) -> Result<()> {
    let mut all = integration.variables.clone();
    let exposed = |(name, secret): (&String, &Secret)| (name.clone(), secret.expose().to_owned());
    all.extend(integration.secret_variables.iter().map(exposed));
    all.extend(edit.variables);
    let method = definition.method(Some(&integration.method))?;
    (integration.variables, integration.secret_variables) =
        sort_values(definition, method, AskedOf::Integration, &all)?;
    let put = |field: &mut String, value: Option<String>| {
        if let Some(value) = value {
            *field = value;
        }
    };
    put(&mut integration.name, edit.name);
    put(&mut integration.description, edit.description);
    put(&mut integration.client_id, edit.client_id);
    if let Some(secret) = edit.client_secret {
        integration.client_secret = given(Some(secret));
        integration.client_secret_expires_at = None;
    }
    if let Some(key) = edit.client_key {
        integration.client_key = given(Some(key));
    }
    if let Some(chain) = edit.client_certificate {
        integration.client_certificate = chain.filter(|text| !text.is_empty());
        // A key belongs to one certificate.
        integration.client_certificate_key = None;
    }
    if let Some(key) = edit.client_certificate_key {
        integration.client_certificate_key = given(Some(key));
    }
    integration.client_secret_expires_at =
        edit.client_secret_expires_at.unwrap_or(integration.client_secret_expires_at);
    integration.scopes = edit.scopes.unwrap_or(std::mem::take(&mut integration.scopes));
    integration.audience = edit.audience.unwrap_or(integration.audience.take());
    integration.header_prefix = edit.header_prefix.unwrap_or(integration.header_prefix.take());
    integration.client_auth = edit.client_auth.unwrap_or(integration.client_auth);
    integration.grant_type = edit.grant_type.unwrap_or(integration.grant_type.take()).filter(|text| !text.is_empty());
    integration.content_type =
        edit.content_type.unwrap_or(integration.content_type.take()).filter(|text| !text.is_empty());
    integration.limits = edit.limits.unwrap_or(integration.limits);
    integration.extra = edit.extra.unwrap_or(std::mem::take(&mut integration.extra));
    integration.renewal = edit.renewal.unwrap_or(integration.renewal);
    integration.token_key = edit.token_key.unwrap_or(integration.token_key.take()).filter(|text| !text.is_empty());
    Ok(())
}
