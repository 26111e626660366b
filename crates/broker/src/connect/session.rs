//! Links for people, and what stands behind them.

use std::time::Duration;

use keyholder_oauth::{Secret, random_token, sha256};
use keyholder_provider::{
    AskedOf, Authorize as Authorization, Definition, GrantKind, Kind, Method, Presence, Variable,
};
use url::Url;

use super::back::Finished;
use super::brought::REFRESH_TOKEN;
use super::confirm::HeldGrant;
use super::device::DeviceCode;
use crate::clock::millis;
use crate::endpoints::Urgency;
use crate::error::{Error, Result, invalid};
use crate::manage::{NewConnection, choose, sort_given};
use crate::model::{
    Caller, ConnectSession, Connection, ConnectionState, Integration, PendingGrant, SecretInput, SessionId, Status,
    Values,
};
use crate::open::Broker;
use crate::plan::Plan;
use crate::renew::{Enough, Wish};
use crate::store::NewSession;

/// How long an invitation can be used.
const SESSION_LIFE: Duration = Duration::from_secs(60 * 60);

/// What a new connect session shall be. Without `Debug`: variables may be secret.
#[derive(Clone, Default)]
pub struct NewConnectSession {
    /// Id or name of the integration.
    pub integration: String,
    /// An existing connection to authorise (again); else a new one is made.
    pub connection: Option<String>,
    /// Who will consent, in the application's words; `complete` must name the same.
    pub owner: Option<String>,
    /// Where the browser goes when done.
    pub return_url: Option<String>,
    /// Values that the person is not asked for.
    pub variables: Values,
    /// What the person is not asked to choose after connecting, by name.
    pub choices: Values,
    /// Labels of a new connection.
    pub tags: Values,
}

/// A connect session and the link to it. The link works for whoever has it, until it is used.
pub struct SessionLink {
    /// The session.
    pub session: ConnectSession,
    /// The link.
    pub url: String,
}

/// What [`Broker::authorize`] came to.
pub enum Authorize {
    /// The grant needed no person; the connection's state now.
    Done(Status),
    /// A person must open this link.
    Person(SessionLink),
    /// A person must type this code on another device; the connection is connected when they have.
    Device(DeviceCode),
}

/// What a `/connect/…` link shows.
pub enum View {
    /// An invitation.
    Invitation(OpenSession),
    /// A code to be typed at the provider, on this device or another.
    Device {
        /// Display name of the provider.
        provider: String,
        /// The code, and where it is typed.
        code: DeviceCode,
    },
    /// Nothing: the person has said yes on the other device, and the browser goes on.
    Onward(Finished),
    /// A grant of which the person must choose a part: one of several organisations, sites, accounts.
    Choice {
        /// Display name of the provider.
        provider: String,
        /// What is chosen, by the definition's name for it.
        lookup: String,
        /// Values with their labels, as the provider gave them.
        options: Vec<(String, String)>,
    },
    /// A grant that waits for the person's yes.
    Confirmation {
        /// Display name of the provider.
        provider: String,
        /// The account at the provider, as far as it told.
        account: Option<String>,
        /// Name of the connection.
        connection: String,
        /// Granted scope.
        scope: Vec<String>,
    },
}

/// An invitation, as its page shows it.
pub struct OpenSession {
    /// Display name of the provider.
    pub provider: String,
    /// Name of the integration: who asks.
    pub integration: String,
    /// Scopes that will be asked for, with what they mean where the definition knows.
    pub scopes: Vec<(String, Option<String>)>,
    /// What only this person knows.
    pub questions: Vec<Question>,
    /// Why the last attempt came to nothing.
    pub failed: Option<String>,
    /// The provider's page isn't opened from here: a code is shown instead, or the token is brought.
    pub stays_here: bool,
    /// Go on without showing a page: nothing is asked, and the application's own redirect brought the person here.
    pub direct: bool,
}

/// A variable to be asked for.
pub struct Question {
    /// Its name: the form's field.
    pub name: String,
    /// Its label.
    pub label: String,
    /// Help, may be empty.
    pub help: String,
    /// What the field starts with.
    pub value: String,
    /// Must be filled in.
    pub required: bool,
    /// Shown as dots.
    pub secret: bool,
    /// What kind of text it is.
    pub kind: Kind,
    /// The values there are, with their labels; empty: any.
    pub choices: Vec<(String, String)>,
    /// Shown in an empty field.
    pub example: Option<String>,
}

impl Broker {
    /// Authorises a connection: runs a grant that needs no person, or makes the link for the person.
    ///
    /// # Errors
    /// When a grant is run and fails, the reason; it is recorded in the connection too.
    pub async fn authorize(
        &self,
        caller: &Caller,
        id_or_name: &str,
        owner: Option<String>,
        return_url: Option<String>,
    ) -> Result<Authorize> {
        let connection = self.find_connection(caller, id_or_name).await?;
        self.fence.check()?;
        let integration = self.opened_integration(&connection.integration).await?;
        let owner = owner.or(connection.owner.clone());
        let return_url = return_url.map(|url| check_return(url, owner.as_deref())).transpose()?;
        let connection = self.revived(connection).await?;
        self.record(caller, "connection.authorize", connection.id.as_str(), "ok", None)?;
        let grant = self.grant_of(&integration).await?;
        if grant == GrantKind::DeviceCode {
            if return_url.is_some() {
                return Err(invalid(
                    "return_url",
                    "no browser comes back where a code is typed on another device",
                    "leave it out, or make a connect session, whose page waits for the person",
                ));
            }
            let typed = self.typed_of(&connection)?;
            return Ok(Authorize::Device(self.begin_device(&integration, &connection, typed, None).await?));
        }
        if grant == GrantKind::RefreshToken {
            return Err(invalid(
                REFRESH_TOKEN,
                "it is missing: this method uses one that you bring",
                "give it, or make a connect session, whose page asks for it",
            ));
        }
        if !grant.needs_a_person() {
            let wish = Wish { enough: Enough::NewerThan(connection.generation), urgency: Urgency::Person };
            self.wait_for(Duration::from_secs(60), self.renew(&connection.id, wish)).await?;
            return Ok(Authorize::Done(Status::Connected));
        }
        let session = ConnectSession { owner, return_url, direct: true, ..self.session_for(&connection) };
        Ok(Authorize::Person(self.store_session(session).await?))
    }

    /// Makes a connect session, with a new connection unless one is named.
    pub async fn create_session(&self, caller: &Caller, new: NewConnectSession) -> Result<SessionLink> {
        let integration = self.integration(caller, &new.integration).await?;
        if !self.grant_of(&integration).await?.needs_a_person() {
            return Err(Error::NotPossible(format!(
                "the method `{}` needs no person; make a connection and authorise it with `POST /v1/connections/{{id}}/authorize`",
                integration.method
            )));
        }
        let made_connection = new.connection.is_none();
        let known_owner = match &new.connection {
            Some(name) => self.find_connection(caller, name).await?.owner,
            None => None,
        };
        let owner = new.owner.clone().or(known_owner);
        let return_url = new.return_url.map(|url| check_return(url, owner.as_deref())).transpose()?;
        let connection = match new.connection {
            Some(name) => self.existing_for_session(caller, &integration, &name, &new.variables, &new.choices).await?,
            None => {
                let draft = NewConnection {
                    name: self.name_for_session(&integration),
                    integration: integration.name.clone(),
                    owner: new.owner.clone(),
                    variables: new.variables,
                    choices: new.choices,
                    tags: new.tags,
                    ..NewConnection::default()
                };
                self.add_connection(caller, draft).await?.connection
            }
        };
        let session = ConnectSession { owner, return_url, made_connection, ..self.session_for(&connection) };
        let link = self.store_session(session).await?;
        self.record(caller, "session.create", link.session.id.as_str(), "ok", Some(connection.id.to_string()))?;
        Ok(link)
    }

    /// What a link shows: an invitation; or, in the browser that began (`browser` is its binding cookie), a grant waiting for a yes.
    pub async fn open_link(&self, token: &str, browser: Option<&str>) -> Result<View> {
        if let Some(pending) = self.pending_of_link(token).await? {
            self.check_browser(&pending, browser)?;
            return self.waiting(&pending, browser).await;
        }
        if let Some(finished) = self.after_device(token, browser).await? {
            return Ok(View::Onward(finished));
        }
        let (session, connection) = self.session_of_link(token).await?;
        let integration = self.opened_integration(&session.integration).await?;
        let definition = self.definition_of(&integration).await?;
        let method = definition.method(Some(&integration.method))?;
        if let Some(code) = self.device_of_page(&session, browser).await? {
            return Ok(View::Device { provider: definition.name.clone(), code });
        }
        let known = self.connection_secrets(&connection)?;
        let mut questions: Vec<_> = asked_of_person(&definition, method, &connection, &known)
            .map(|v| Question {
                name: v.name.clone(),
                label: v.label.clone(),
                help: v.help.clone(),
                value: v.default.clone().unwrap_or_default(),
                required: v.presence == Presence::Required,
                secret: v.secret,
                kind: v.kind,
                choices: v.choices.clone(),
                example: v.example.clone(),
            })
            .collect();
        if method.grant == GrantKind::RefreshToken {
            let input = method.inputs.iter().find(|input| input.name == REFRESH_TOKEN);
            questions.push(Question {
                name: REFRESH_TOKEN.to_owned(),
                label: input.map_or("Refresh token", |input| &input.label).to_owned(),
                help: input.map_or("", |input| &input.help).to_owned(),
                value: String::new(),
                required: true,
                secret: true,
                kind: Kind::Text,
                choices: Vec::new(),
                example: None,
            });
        }
        let meaning =
            |scope: &str| definition.scopes.known.iter().find(|(name, _)| name == scope).map(|(_, text)| text.clone());
        // Values the person has yet to give may be missing for the whole plan; what the integration names is asked for in any case.
        let request = self.consent_request(&integration, &connection.variables, &known).await.ok();
        let asked = match &request {
            Some(request) => &request.requested_scopes,
            None if integration.scopes.is_empty() => &definition.scopes.default,
            None => &integration.scopes,
        };
        Ok(View::Invitation(OpenSession {
            provider: provider_name(&definition, request.as_ref().and_then(|it| it.authorize.as_ref())),
            integration: integration.name.clone(),
            scopes: asked.iter().map(|scope| (scope.clone(), meaning(scope))).collect(),
            failed: match &connection.state {
                ConnectionState::Draft(Some(failure)) if method.grant == GrantKind::DeviceCode => {
                    Some(format!("{} {}", failure.message, failure.remedy))
                }
                _ => None,
            },
            stays_here: method.grant != GrantKind::AuthorizationCode,
            direct: session.direct && questions.is_empty(),
            questions,
        }))
    }

    async fn waiting(&self, pending: &PendingGrant, browser: Option<&str>) -> Result<View> {
        let connection = self.connection_of(pending).await?;
        let integration = self.opened_integration(&connection.integration).await?;
        let HeldGrant { tokens, typed, choice } = self.open_pending(pending)?;
        let plan = self.plan_for(&integration, &typed.variables, typed.secrets, Some(&tokens)).await.ok();
        let definition = self.definition_of(&integration).await?;
        if let Some(choice) = choice {
            return Ok(View::Choice {
                provider: provider_name(&definition, authorize_of(plan.as_ref())),
                lookup: choice.lookup,
                options: choice.options,
            });
        }
        self.check_confirming(pending, browser).await?;
        // A provider that says nothing granted what was asked for (RFC 6749 §5.1).
        let asked = plan.as_ref().map_or(integration.scopes, |plan| plan.rendered.requested_scopes.clone());
        Ok(View::Confirmation {
            provider: provider_name(&definition, authorize_of(plan.as_ref())),
            account: pending.account.clone(),
            connection: connection.name,
            scope: tokens.scope.unwrap_or(asked),
        })
    }

    /// The session behind a link, still usable, and its connection.
    pub(crate) async fn session_of_link(&self, token: &str) -> Result<(ConnectSession, Connection)> {
        let hash = sha256(token.as_bytes());
        let found = self
            .store
            .read(move |tx| {
                let Some(session) = tx.session_by_token(&hash)? else { return Ok(None) };
                let connection = tx.connection_by_id(&session.connection)?;
                Ok(connection.map(|connection| (session, connection)))
            })
            .await?;
        let (session, connection) = found.ok_or(Error::Gone(
            "this link is unknown, already used, or its time is over; ask for a new one if you need to connect again",
        ))?;
        if session.used_at.is_some() {
            return Err(Error::Gone("this link was already used; ask for a new one if you need to connect again"));
        }
        if session.expires_at <= self.now_ms() {
            return Err(Error::Gone("this link has expired; ask for a new one"));
        }
        Ok((session, connection))
    }

    /// The grant of an integration's method.
    pub(crate) async fn grant_of(&self, integration: &Integration) -> Result<GrantKind> {
        let definition = self.definition_of(integration).await?;
        Ok(definition.method(Some(&integration.method))?.grant)
    }

    /// A revoked connection is a draft again when somebody wants to authorise it.
    pub(super) async fn revived(&self, connection: Connection) -> Result<Connection> {
        if connection.state != ConnectionState::Revoked {
            return Ok(connection);
        }
        let (id, now) = (connection.id.clone(), self.now_ms());
        self.store.write(move |tx| tx.revive_connection(&id, now)).await?;
        Ok(Connection { state: ConnectionState::Draft(None), ..connection })
    }

    async fn existing_for_session(
        &self,
        caller: &Caller,
        integration: &Integration,
        name: &str,
        variables: &Values,
        choices: &Values,
    ) -> Result<Connection> {
        let connection = self.find_connection(caller, name).await?;
        if connection.integration != integration.id {
            return Err(invalid(
                "connection",
                "it stands under another integration",
                "name that integration, or leave `connection` out",
            ));
        }
        self.require_for_values(caller, &connection, variables, choices)?;
        if !variables.is_empty() || !choices.is_empty() {
            let definition = self.definition_of(integration).await?;
            let method = definition.method(Some(&integration.method))?;
            let mut secrets = self.connection_secrets(&connection)?;
            let (open, secret) = sort_given(&definition, method, AskedOf::Connection, variables)?;
            let mut all = connection.variables.clone();
            all.extend(open);
            choose(method, &mut all, choices)?;
            secrets.extend(secret);
            let sealed = self.seal_connection_secrets(&connection.tenant, connection.id.as_str(), &secrets)?;
            let (id, now) = (connection.id.clone(), self.now_ms());
            self.store.write(move |tx| tx.put_connection_input(&id, None, &all, sealed.as_deref(), now)).await?;
        }
        let connection = self.revived(connection).await?;
        let id = connection.id.clone();
        self.store.read(move |tx| tx.connection_by_id(&id)).await?.ok_or_else(|| Error::not_found("connection", name))
    }

    fn name_for_session(&self, integration: &Integration) -> String {
        let tail: String = SessionId::new(&self.clock, &self.rng).as_str().chars().rev().take(8).collect();
        format!("{}-{tail}", integration.name.chars().take(80).collect::<String>())
    }

    fn session_for(&self, connection: &Connection) -> ConnectSession {
        ConnectSession {
            id: SessionId::new(&self.clock, &self.rng),
            tenant: connection.tenant.clone(),
            integration: connection.integration.clone(),
            connection: connection.id.clone(),
            owner: None,
            return_url: None,
            direct: false,
            made_connection: false,
            expires_at: self.now_ms() + millis(SESSION_LIFE),
            used_at: None,
        }
    }

    async fn store_session(&self, session: ConnectSession) -> Result<SessionLink> {
        let token = random_token(self.rng.bytes());
        let (stored, hash, now) = (session.clone(), sha256(token.expose().as_bytes()), self.now_ms());
        self.store.write(move |tx| tx.add_session(&NewSession { session: &stored, token_hash: &hash }, now)).await?;
        let url = self.link(&token);
        Ok(SessionLink { session, url })
    }

    /// `{public URL}/connect/{token}`.
    pub(crate) fn link(&self, token: &Secret) -> String {
        format!("{}/connect/{}", self.settings.public_url.as_str().trim_end_matches('/'), token.expose())
    }
}

/// What people call the provider: the definition's name, or for a generic one the host they will sign in at.
fn provider_name(definition: &Definition, authorize: Option<&Authorization>) -> String {
    let authorize = authorize.filter(|_| definition.generic);
    authorize.and_then(|authorize| authorize.url.host_str()).unwrap_or(&definition.name).to_owned()
}

fn authorize_of(plan: Option<&Plan>) -> Option<&Authorization> {
    plan.and_then(|plan| plan.rendered.authorize.as_ref())
}

/// A return URL needs an owner: `complete` must be able to tell that the person who comes back is the one who was invited.
fn check_return(url: String, owner: Option<&str>) -> Result<String> {
    let url = check_return_url(url)?;
    if owner.is_none_or(str::is_empty) {
        return Err(invalid(
            "owner",
            "it is missing, but with a return_url your application completes for its own user",
            "name the user who is to consent, and name the same user when you call complete",
        ));
    }
    Ok(url)
}

/// The browser is sent there with a one-time code, so it must be https, or http on this machine.
fn check_return_url(text: String) -> Result<String> {
    let bad = |reason: &str| {
        invalid(
            "return_url",
            reason.to_owned(),
            "give an absolute https URL of your application (http only for localhost), without a fragment",
        )
    };
    let url = Url::parse(&text).map_err(|e| bad(&format!("it is no URL: {e}")))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if !(url.scheme() == "https" || url.scheme() == "http" && loopback) {
        return Err(bad("it is neither https nor http on this machine"));
    }
    if url.fragment().is_some() || !url.username().is_empty() {
        return Err(bad("it has a fragment or a user name"));
    }
    Ok(text)
}

/// The variables that only the person can give: those of the connection that nobody has given yet. Nothing else may be answered; what the
/// application fixed steers where the person, and the client's secret, are sent.
pub(super) fn asked_of_person<'a>(
    definition: &'a Definition,
    method: &'a Method,
    connection: &'a Connection,
    known: &'a SecretInput,
) -> impl Iterator<Item = &'a Variable> {
    definition
        .variables_of(method)
        .filter(|v| v.asked_of == AskedOf::Connection && matches!(v.presence, Presence::Required | Presence::Optional))
        .filter(|v| !connection.variables.contains_key(&v.name) && !known.contains_key(&v.name))
}
