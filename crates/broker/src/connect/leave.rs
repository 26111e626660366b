//! Off to the provider: everything the way back will need is stored before the browser leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use keyholder_oauth::{AuthorizeRequest, Secret, Verifier, authorize_url, random_token, sha256};
use keyholder_provider::{AskedOf, GrantKind, Pkce};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::back::Finished;
use super::brought::REFRESH_TOKEN;
use super::confirm::OpenChoice;
use super::session::asked_of_person;
use crate::clock::millis;
use crate::error::{Error, Result, invalid};
use crate::learn::LEARNT;
use crate::manage::sort_values;
use crate::model::{Consent, SecretInput, Tenant, Values};
use crate::open::Broker;
use crate::plan::PASSWORD;
use crate::vault::Place;

/// How long a consent may take at the provider.
const CONSENT_LIFE: Duration = Duration::from_secs(10 * 60);

/// A consent under way.
pub struct Begun {
    /// Where the browser goes now: to the provider, or to a page of ours where nothing more is to be done there.
    pub redirect: Url,
    /// Value of the cookie that binds the consent to this browser; to be set before it leaves.
    pub browser: Secret,
}

/// What is sealed with a consent, and goes from there into the pending grant.
pub(crate) struct ConsentSecrets {
    pub(crate) verifier: Option<Verifier>,
    pub(crate) nonce: Option<Secret>,
    pub(crate) typed: Typed,
}

/// All values of the connection, as the person completed them, and later with what the provider said. They replace the stored ones when the grant is confirmed.
#[derive(Clone)]
pub(crate) struct Typed {
    pub(crate) variables: Values,
    pub(crate) secrets: SecretInput,
}

impl Broker {
    /// Takes what the person typed, stores the consent, and says where the browser goes.
    ///
    /// `browser` is the value of the binding cookie, when the browser brought one.
    pub async fn begin_consent(&self, token: &str, browser: Option<&str>, typed: &Values) -> Result<Begun> {
        self.fence.check()?;
        let (session, connection) = self.session_of_link(token).await?;
        let integration = self.opened_integration(&session.integration).await?;
        let definition = self.definition_of(&integration).await?;
        let method = definition.method(Some(&integration.method))?;
        let mut typed = typed.clone();
        let brought = match method.grant {
            GrantKind::RefreshToken => typed.remove(REFRESH_TOKEN).map(|token| Secret::new(token.trim())),
            _ => None,
        };
        let mut known = self.connection_secrets(&connection)?;
        let password = known.remove(PASSWORD);
        // What the provider said of the older grant doesn't count for a new one; what was chosen then may be chosen again.
        let (said, mut all): (Values, Values) =
            connection.variables.clone().into_iter().partition(|(name, _)| name.contains('.'));
        all.extend(known.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned())));
        for name in typed.keys() {
            if !asked_of_person(&definition, method, &connection, &known).any(|asked| asked.name == *name) {
                return Err(invalid(format!("variables.{name}"), "it isn't asked for here", "leave it out"));
            }
        }
        all.extend(typed);
        let (mut variables, mut secrets) = sort_values(&definition, method, AskedOf::Connection, &all)?;
        variables.extend(said.into_iter().filter(|(name, _)| name.starts_with(LEARNT)));
        if let Some(password) = password {
            secrets.insert(PASSWORD.to_owned(), password);
        }
        let browser =
            browser.filter(|value| is_random(value)).map_or_else(|| random_token(self.rng.bytes()), Secret::new);
        match method.grant {
            GrantKind::DeviceCode => {
                let page = (session.id.clone(), sha256(browser.expose().as_bytes()));
                self.begin_device(&integration, &connection, Typed { variables, secrets }, Some(page)).await?;
                return Ok(Begun { redirect: own_page(self.link(&Secret::new(token)))?, browser });
            }
            GrantKind::RefreshToken => {
                let typed = Typed { variables, secrets };
                let brought = brought.unwrap_or_else(|| Secret::new(""));
                let finished =
                    self.bring_on_page(&integration, &connection, &session, &browser, typed, brought).await?;
                let redirect = match finished {
                    Finished::Return(url) => url,
                    Finished::Confirm(link) => own_page(link)?,
                };
                return Ok(Begun { redirect, browser });
            }
            _ => {}
        }
        let request = self.consent_request(&integration, &variables, &secrets).await?;
        let authorize = request.authorize.as_ref().ok_or_else(|| {
            Error::NotPossible("this method has no authorization endpoint; set `authorization_url`".to_owned())
        })?;

        let state = random_token(self.rng.bytes());
        let verifier = (authorize.pkce != Pkce::Off).then(|| Verifier::from_random(self.rng.bytes()));
        let nonce = authorize.nonce.then(|| random_token(self.rng.bytes()));
        let redirect_uri = self.redirect_uri(&integration.id);
        let challenge = verifier.as_ref().map(Verifier::challenge_s256);
        let redirect = authorize_url(&AuthorizeRequest {
            endpoint: &authorize.url,
            client_id: &integration.client_id,
            redirect_uri: &redirect_uri,
            scope: request.scope.as_deref(),
            scope_format: authorize.scope_format,
            state: state.expose(),
            code_challenge: challenge.as_deref(),
            nonce: nonce.as_ref().map(Secret::expose),
            params: &authorize.params,
            renames: &authorize.renames,
        });
        let state_hash = sha256(state.expose().as_bytes());
        let kept = ConsentSecrets { verifier, nonce, typed: Typed { variables, secrets } };
        let consent = Consent {
            state_hash,
            tenant: session.tenant.clone(),
            connection: connection.id.clone(),
            integration: integration.id.clone(),
            session: session.id.clone(),
            sealed: self.vault.seal(&self.rng, &consent_place(&session.tenant, &hex(&state_hash)), &kept.write()?)?,
            issuer: request.issuer.clone(),
            issuer_required: request.issuer_required,
            redirect_uri,
            browser_hash: sha256(browser.expose().as_bytes()),
            answer: None,
            expires_at: self.now_ms() + millis(CONSENT_LIFE),
        };
        let now = self.now_ms();
        self.store
            .write(move |tx| {
                tx.lock_connection(&consent.connection)?;
                tx.add_consent(&consent)?;
                tx.begin_consent(&consent.connection, now)
            })
            .await?;
        Ok(Begun { redirect, browser })
    }

    pub(crate) fn open_consent(&self, consent: &Consent) -> Result<ConsentSecrets> {
        let row = hex(&consent.state_hash);
        ConsentSecrets::read(&self.vault.open_value(&consent_place(&consent.tenant, &row), &consent.sealed)?)
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    variables: Values,
    secrets: BTreeMap<String, Zeroizing<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    choice: Option<OpenChoice>,
}

const VERIFIER: &str = "\u{0}verifier";
const NONCE: &str = "\u{0}nonce";

impl ConsentSecrets {
    fn write(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut all = self.typed.secrets.clone();
        all.extend(self.verifier.as_ref().map(|v| (VERIFIER.to_owned(), Secret::new(v.expose()))));
        all.extend(self.nonce.as_ref().map(|n| (NONCE.to_owned(), n.clone())));
        Typed { variables: self.typed.variables.clone(), secrets: all }.write(None)
    }

    fn read(json: &[u8]) -> Result<Self> {
        let (mut typed, _) = Typed::read(json)?;
        Ok(Self {
            verifier: typed.secrets.remove(VERIFIER).map(Verifier::from_secret),
            nonce: typed.secrets.remove(NONCE),
            typed,
        })
    }
}

impl Typed {
    pub(super) fn write(&self, choice: Option<&OpenChoice>) -> Result<Zeroizing<Vec<u8>>> {
        let secrets =
            self.secrets.iter().map(|(name, secret)| (name.clone(), Zeroizing::new(secret.expose().to_owned())));
        let written =
            Written { variables: self.variables.clone(), secrets: secrets.collect(), choice: choice.cloned() };
        let mut out = Zeroizing::new(Vec::with_capacity(16 << 10));
        serde_json::to_writer(&mut *out, &written)
            .map_err(|_| Error::Internal("typed values could not be written as JSON"))?;
        Ok(out)
    }

    pub(super) fn read(json: &[u8]) -> Result<(Self, Option<OpenChoice>)> {
        let written: Written =
            serde_json::from_slice(json).map_err(|_| Error::Internal("sealed values have an unknown form"))?;
        let secrets = written.secrets.into_iter().map(|(name, secret)| (name, Secret::new(secret.as_str())));
        Ok((Self { variables: written.variables, secrets: secrets.collect() }, written.choice))
    }
}

fn own_page(link: String) -> Result<Url> {
    Url::parse(&link).map_err(|_| Error::Internal("a link of our own is no URL"))
}

/// The value of the binding cookie is always one that we made: 43 characters of base64url.
fn is_random(value: &str) -> bool {
    value.len() == 43 && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

pub(super) fn consent_place<'a>(tenant: &'a Tenant, row: &'a str) -> Place<'a> {
    Place { tenant: tenant.as_str(), table: "consents", row, column: "sealed", generation: 0 }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
