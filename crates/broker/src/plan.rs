//! A plan: what a provider's definition says once the values of an integration and a connection are put in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use keyholder_oauth::{
    BodyFormat, Client, ClientAuth, Metadata, Moment, Secret, SecretBytes, TokenEndpoint, TokenSet, read_metadata,
};
use keyholder_provider::{Choice, ConsentRequest, Definition, Discovery, Limits, Rendered};

use crate::clock::millis;
use crate::egress::{Bounds, Fetched, Identity, origin_of};
use crate::error::{Error, Result, invalid};
use crate::explain::Known;
use crate::model::{Connection, Integration, IntegrationId, Rate, RenewalPolicy, SecretInput, Tenant, Values};
use crate::open::Broker;
use crate::trace::{Noting, Trace};
use crate::vault::Place;

/// A discovery document is asked for again after this.
const DISCOVERY_FRESH: Duration = Duration::from_secs(3600);

/// Most documents kept; there are never so many issuers in use, so what is more was only looked at once.
const DISCOVERED: usize = 4096;

/// Discovery documents that were read, by issuer and address.
#[derive(Default)]
pub(crate) struct Discovered {
    documents: papaya::HashMap<String, Arc<Document>>,
}

struct Document {
    read_at: i64,
    metadata: Metadata,
}

/// Everything needed to talk to a connection's provider.
pub(crate) struct Plan {
    pub(crate) rendered: Rendered,
    pub(crate) client: Client,
    /// The certificate chain by which the client authenticates (RFC 8705), with its private key.
    certificate: Option<(String, Secret)>,
    /// When the client secret ends, as far as somebody said.
    pub(crate) client_secret_expires_at: Option<i64>,
    /// Secrets of the connection: its password, and secret variables.
    pub(crate) secrets: SecretInput,
    /// Secret variables of the integration.
    pub(crate) integration_secrets: SecretInput,
    /// How its tokens are renewed.
    pub(crate) renewal: RenewalPolicy,
    /// The tests of this connection that are under way: they note what is asked.
    pub(crate) traces: Vec<Arc<Trace>>,
}

impl Plan {
    /// What helps to explain a refusal.
    pub(crate) fn known(&self) -> Known<'_> {
        Known { errors: &self.rendered.known_errors, client_secret_expires_at: self.client_secret_expires_at }
    }

    /// Which endpoint of the provider this is.
    fn name_of(&self, endpoint: &TokenEndpoint) -> &'static str {
        let is = |other: Option<&TokenEndpoint>| other.is_some_and(|other| std::ptr::eq(other, endpoint));
        if is(self.rendered.introspect.as_ref()) {
            "introspection_endpoint"
        } else if is(self.rendered.revoke.as_ref().map(|revoke| &revoke.endpoint)) {
            "revocation_endpoint"
        } else {
            "token_endpoint"
        }
    }

    /// What is asked with it is noted there, without its secrets and the tokens.
    pub(crate) fn noted_by(&mut self, traces: &[Arc<Trace>], tokens: Option<&TokenSet>) {
        self.traces = traces.to_vec();
        for trace in traces {
            trace.hide(self.sensitive());
            trace.hide_client(&self.client);
            tokens.into_iter().for_each(|tokens| trace.hide_tokens(tokens));
        }
    }

    /// All that may be sent and must not be shown when a provider echoes it; tokens, codes and verifiers come beside.
    pub(crate) fn sensitive(&self) -> impl Iterator<Item = &Secret> {
        let certificate = self.certificate.iter().map(|(_, key)| key);
        let client = self.client.secret.iter().chain(&self.client.key).chain(certificate);
        client.chain(self.secrets.values()).chain(self.integration_secrets.values())
    }
}

/// What a definition is rendered with.
struct Ingredients {
    definition: Arc<Definition>,
    values: Values,
    client: Client,
    choice: Choice,
    discovered: Option<Metadata>,
}

/// The key of [`SecretInput`] that holds the password grant's password; no variable can be named so.
pub(crate) const PASSWORD: &str = "\u{0}password";

impl Broker {
    /// The plan of a connection; `tokens`, where there are some, lend what the provider returned beside them.
    pub(crate) async fn plan(&self, connection: &Connection, tokens: Option<&TokenSet>) -> Result<Plan> {
        let integration = self.opened_integration(&connection.integration).await?;
        let secrets = self.connection_secrets(connection)?;
        let mut plan = self.plan_for(&integration, &connection.variables, secrets, tokens).await?;
        plan.noted_by(&self.traces.of(&connection.id), tokens);
        Ok(plan)
    }

    /// The plan under an integration for these connection values.
    pub(crate) async fn plan_for(
        &self,
        integration: &Integration,
        variables: &Values,
        secrets: SecretInput,
        tokens: Option<&TokenSet>,
    ) -> Result<Plan> {
        let made = self.ingredients(integration, variables, &secrets, tokens).await?;
        let method = made.definition.method(Some(&integration.method))?;
        let mut rendered = made.definition.render(method, &made.values, &made.choice, made.discovered.as_ref())?;
        tighten(&mut rendered.api.limits, integration.limits);
        live_for(&mut rendered, integration.renewal);
        Ok(Plan {
            rendered,
            client: made.client,
            certificate: certificate(integration),
            client_secret_expires_at: integration.client_secret_expires_at,
            secrets,
            integration_secrets: integration.secret_variables.clone(),
            renewal: integration.renewal,
            traces: Vec::new(),
        })
    }

    /// As far as a plan goes before the callback has come, which may bring what its other addresses are made of.
    pub(crate) async fn consent_request(
        &self,
        integration: &Integration,
        variables: &Values,
        secrets: &SecretInput,
    ) -> Result<ConsentRequest> {
        let made = self.ingredients(integration, variables, secrets, None).await?;
        let method = made.definition.method(Some(&integration.method))?;
        Ok(made.definition.consent_request(method, &made.values, &made.choice, made.discovered.as_ref())?)
    }

    /// Where the discovery document of a connection's provider is, if it has one.
    pub(crate) fn discovery_of(
        &self,
        definition: &Definition,
        integration: &Integration,
        connection: &Connection,
        tokens: Option<&TokenSet>,
    ) -> Result<Option<Discovery>> {
        let method = definition.method(Some(&integration.method))?;
        let secrets = self.connection_secrets(connection)?;
        let values = all_values(integration, &connection.variables, &secrets, tokens);
        Ok(definition.discovery(method, &values)?)
    }

    async fn ingredients(
        &self,
        integration: &Integration,
        variables: &Values,
        secrets: &SecretInput,
        tokens: Option<&TokenSet>,
    ) -> Result<Ingredients> {
        let definition = self.definition_of(integration).await?;
        let method = definition.method(Some(&integration.method))?;
        let values = all_values(integration, variables, secrets, tokens);
        let client = Client {
            id: integration.client_id.clone(),
            secret: integration.client_secret.clone(),
            key: integration.client_key.clone(),
        };
        let choice = Choice {
            client_auth: integration.client_auth,
            header_prefix: integration.header_prefix.clone(),
            audience: integration.audience.clone(),
            scopes: integration.scopes.clone(),
            grant_type: integration.grant_type.clone(),
            body: integration.content_type.as_deref().map(body_format),
            token_key: integration.token_key.clone(),
            extra: integration.extra.clone(),
            client: Some(client.clone()),
            password: secrets.get(PASSWORD).cloned(),
            tokens: tokens.map(Into::into),
            redirect_uri: Some(self.redirect_uri(&integration.id)),
            moment: Some(self.moment()),
            ..Choice::default()
        };
        let discovered = match definition.discovery(method, &values)? {
            Some(discovery) => Some(self.discover(&discovery).await?),
            None => None,
        };
        Ok(Ingredients { definition, values, client, choice, discovered })
    }

    /// Sends a request that the client authenticates, to the endpoint it was made for; once, as [`crate::egress::Egress::fetch`].
    pub(crate) async fn ask(
        &self,
        plan: &Plan,
        endpoint: &TokenEndpoint,
        request: Request<SecretBytes>,
        bounds: Bounds,
    ) -> Result<Fetched> {
        let bad = |reason: String| {
            let remedy = "put the certificate that the provider has for this client, and its private key, in with `keyholder integration edit`";
            invalid("client_certificate", reason, remedy)
        };
        // Some want it beside a client secret.
        let identity = match &plan.certificate {
            Some((chain, key)) => Some(Identity::read(chain, key).map_err(bad)?),
            None if endpoint.client_auth == ClientAuth::Tls => {
                return Err(
                    bad("the client authenticates by `tls`, but the integration has no certificate".to_owned()),
                );
            }
            None => None,
        };
        let noting = Noting::begin(&plan.traces, plan.name_of(endpoint), &request, &self.clock);
        let fetched = match &identity {
            Some(identity) => self.egress.fetch_as(identity, request, bounds).await,
            None => self.egress.fetch(request, bounds).await,
        };
        if let Some(noting) = noting {
            noting.end(&fetched, &self.clock);
        }
        Ok(fetched?)
    }

    /// What a signed request needs beside its key.
    pub(crate) fn moment(&self) -> Moment {
        Moment { now_ms: self.now_ms(), random: self.rng.bytes() }
    }

    /// The issuer's document: from memory while it is fresh, else fetched; a stale one serves while the issuer can't be reached.
    pub(crate) async fn discover(&self, discovery: &Discovery) -> Result<Metadata> {
        let now = self.now_ms();
        let place = place_of(discovery);
        let known = self.discovered.documents.pin().get(&place).cloned();
        if let Some(known) = known.as_ref().filter(|known| now - known.read_at < millis(DISCOVERY_FRESH)) {
            return Ok(known.metadata.clone());
        }
        match self.discover_anew(discovery, &[]).await {
            Ok(metadata) => Ok(metadata),
            Err(error) => match known {
                Some(stale) => {
                    tracing::warn!(%error, "an old discovery document is used");
                    Ok(stale.metadata.clone())
                }
                None => Err(error),
            },
        }
    }

    /// As [`Self::discover`], whatever memory has.
    pub(crate) async fn discover_anew(&self, discovery: &Discovery, traces: &[Arc<Trace>]) -> Result<Metadata> {
        let metadata = self.fetch_metadata(discovery, traces).await?;
        let document = Document { read_at: self.now_ms(), metadata: metadata.clone() };
        let documents = self.discovered.documents.pin();
        if documents.len() >= DISCOVERED {
            documents.clear();
        }
        documents.insert(place_of(discovery), Arc::new(document));
        Ok(metadata)
    }

    /// Asks each place where the document may be; the first valid one counts, else the most telling error.
    async fn fetch_metadata(&self, discovery: &Discovery, traces: &[Arc<Trace>]) -> Result<Metadata> {
        let mut telling: Option<Error> = None;
        for url in &discovery.urls {
            let request = Request::get(url.as_str())
                .header(http::header::ACCEPT, "application/json")
                .body(SecretBytes::new(Vec::new()))
                .map_err(|_| Error::Internal("a discovery URL is no URI"))?;
            let noting = Noting::begin(traces, "discovery", &request, &self.clock);
            let fetched = self.egress.fetch(request, Bounds::PROVIDER).await;
            if let Some(noting) = noting {
                noting.end(&fetched, &self.clock);
            }
            let reply = match fetched {
                Ok(reply) => reply,
                Err(error) => return Err(Error::DiscoveryUnreachable(error)),
            };
            match read_metadata(&discovery.issuer, reply.status, reply.body.expose()) {
                Ok(metadata) => return Ok(metadata),
                Err(cause) => {
                    let missing = matches!(cause, keyholder_oauth::DiscoveryError::Status(_));
                    let error = Error::Discovery { url: format!("{}{}", origin_of(&uri(url)), url.path()), cause };
                    if !missing || telling.is_none() {
                        telling = Some(error);
                    }
                }
            }
        }
        Err(telling.unwrap_or(Error::Internal("an issuer has no place for its document")))
    }

    /// The integration of this id with its secrets opened.
    pub(crate) async fn opened_integration(&self, id: &IntegrationId) -> Result<Integration> {
        let wanted = id.clone();
        let (integration, sealed) = self
            .store
            .read(move |tx| tx.integration_by_id(&wanted))
            .await?
            .ok_or_else(|| Error::not_found("integration", id.as_str()))?;
        self.know_keys([sealed.as_ref()]).await?;
        self.open_integration(integration, sealed.as_deref())
    }

    /// Puts an integration's sealed secrets in.
    pub(crate) fn open_integration(&self, mut integration: Integration, sealed: Option<&[u8]>) -> Result<Integration> {
        if let Some(sealed) = sealed {
            let plain = self.vault.open_value(&integration_place(&integration), sealed)?;
            let mut secrets = read_secrets(&plain)?;
            integration.client_secret = secrets.remove(CLIENT_SECRET);
            integration.client_key = secrets.remove(CLIENT_KEY);
            integration.client_certificate_key = secrets.remove(CLIENT_CERTIFICATE_KEY);
            integration.secret_variables = secrets;
        }
        Ok(integration)
    }

    /// Seals an integration's secrets to its place and generation.
    pub(crate) fn seal_integration(&self, integration: &Integration) -> Result<Option<Vec<u8>>> {
        let mut secrets = integration.secret_variables.clone();
        let own = [
            (CLIENT_SECRET, &integration.client_secret),
            (CLIENT_KEY, &integration.client_key),
            (CLIENT_CERTIFICATE_KEY, &integration.client_certificate_key),
        ];
        secrets.extend(own.into_iter().filter_map(|(name, secret)| Some((name.to_owned(), secret.clone()?))));
        if secrets.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.vault.seal(&self.rng, &integration_place(integration), &write_secrets(&secrets)?)?))
    }

    /// A connection's password and secret variables.
    pub(crate) fn connection_secrets(&self, connection: &Connection) -> Result<SecretInput> {
        match &connection.secrets {
            None => Ok(SecretInput::new()),
            Some(sealed) => {
                let place = connection_place(&connection.tenant, connection.id.as_str());
                read_secrets(&self.vault.open_value(&place, sealed)?)
            }
        }
    }

    /// Seals a connection's password and secret variables.
    pub(crate) fn seal_connection_secrets(
        &self,
        tenant: &Tenant,
        row: &str,
        secrets: &SecretInput,
    ) -> Result<Option<Vec<u8>>> {
        if secrets.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.vault.seal(&self.rng, &connection_place(tenant, row), &write_secrets(secrets)?)?))
    }
}

/// The smaller of what the definition and the integration allow.
fn tighten(limits: &mut Limits, own: Rate) {
    let smaller = |one: f64, other: f64| one.min(other);
    limits.per_second = limits.per_second.into_iter().chain(own.per_second).reduce(smaller);
    limits.concurrent = limits.concurrent.into_iter().chain(own.concurrent).min();
}

/// The integration's word on how long a token lives that comes without one; it knows its registration better than the definition does.
fn live_for(rendered: &mut Rendered, renewal: RenewalPolicy) {
    let Some(seconds) = renewal.token_lifetime else { return };
    let follow_up = rendered.follow_up.as_mut().map(|follow_up| &mut follow_up.reply);
    for reply in [&mut rendered.reply, &mut rendered.refresh_reply].into_iter().chain(follow_up) {
        reply.default_lifetime = Some(Duration::from_secs(seconds.into()));
    }
}

/// The keys under which an integration's secrets hold what is no variable; none can be named so.
const CLIENT_SECRET: &str = "\u{0}client_secret";
const CLIENT_KEY: &str = "\u{0}client_key";
const CLIENT_CERTIFICATE_KEY: &str = "\u{0}client_certificate_key";

fn certificate(integration: &Integration) -> Option<(String, Secret)> {
    let key = integration.client_certificate_key.as_ref().or(integration.client_key.as_ref())?;
    Some((integration.client_certificate.clone()?, key.clone()))
}

/// Integration's and connection's values together; the connection's win, and the reply's stand apart as `reply.NAME`.
pub(crate) fn all_values(
    integration: &Integration,
    variables: &Values,
    secrets: &SecretInput,
    tokens: Option<&TokenSet>,
) -> Values {
    let exposed = |(name, secret): (&String, &Secret)| (name.clone(), secret.expose().to_owned());
    let returned = tokens
        .into_iter()
        .flat_map(|tokens| &tokens.extra)
        .filter_map(|(name, value)| Some((format!("reply.{name}"), plain_text(value)?)));
    let mut values = integration.variables.clone();
    values.extend(integration.secret_variables.iter().map(exposed));
    values.extend(variables.clone());
    values.extend(secrets.iter().filter(|(name, _)| !name.starts_with('\u{0}')).map(exposed));
    values.extend(returned);
    values
}

/// Ids are numbers in many replies.
fn plain_text(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// An integration's `content_type`, which was checked when it was set.
fn body_format(content_type: &str) -> BodyFormat {
    if content_type == "json" { BodyFormat::Json } else { BodyFormat::Form }
}

/// Secrets by name as JSON, in memory that is wiped.
pub(crate) fn write_secrets(secrets: &SecretInput) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    let exposed: BTreeMap<&str, &str> = secrets.iter().map(|(name, secret)| (name.as_str(), secret.expose())).collect();
    let mut out = zeroize::Zeroizing::new(Vec::with_capacity(16 << 10));
    serde_json::to_writer(&mut *out, &exposed).map_err(|_| Error::Internal("secrets could not be written as JSON"))?;
    Ok(out)
}

/// Reads what [`write_secrets`] wrote.
pub(crate) fn read_secrets(json: &[u8]) -> Result<SecretInput> {
    serde_json::from_slice(json).map_err(|_| Error::Internal("sealed secrets have an unknown form"))
}

fn integration_place(integration: &Integration) -> Place<'_> {
    integration_place_of(&integration.tenant, integration.id.as_str(), integration.generation)
}

/// Where an integration's secrets are sealed to.
pub(crate) fn integration_place_of<'a>(tenant: &'a Tenant, row: &'a str, generation: i64) -> Place<'a> {
    Place { tenant: tenant.as_str(), table: "integrations", row, column: "secrets", generation }
}

/// Where a connection's secrets are sealed to.
pub(crate) fn connection_place<'a>(tenant: &'a Tenant, row: &'a str) -> Place<'a> {
    Place { tenant: tenant.as_str(), table: "connections", row, column: "secrets", generation: 0 }
}

/// Where the secrets of a data source are sealed to.
pub(crate) fn source_place<'a>(tenant: &'a Tenant, row: &'a str, generation: i64) -> Place<'a> {
    Place { tenant: tenant.as_str(), table: "data_sources", row, column: "secrets", generation }
}

/// By address too: a definition may expect another issuer in a document than the one it is fetched from.
fn place_of(discovery: &Discovery) -> String {
    format!("{} {}", discovery.issuer, discovery.urls.first().map_or("", url::Url::as_str))
}

fn uri(url: &url::Url) -> http::Uri {
    url.as_str().parse().unwrap_or_default()
}
