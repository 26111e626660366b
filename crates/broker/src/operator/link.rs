//! Links by which people become operators: long, random, stored hashed, good for an hour and for one use.

use std::time::Duration;

use keyholder_oauth::{Secret, random_token, sha256};

use super::{Proof, caller_of};
use crate::clock::millis;
use crate::error::{Error, Result};
use crate::manage::{check_name, taken};
use crate::model::{For, KeyId, Operator, Passkey, Scope, Tenant};
use crate::open::Broker;
use crate::store::{StoredLink, StoredOperator, StoredPasskey};

/// How long a link can be used.
pub(super) const LINK_LIFE: Duration = Duration::from_secs(60 * 60);

/// A link for a person.
#[derive(Clone, Debug)]
pub struct OperatorLink {
    /// To be opened once.
    pub url: String,
    /// Unix milliseconds.
    pub expires_at: i64,
}

/// What a passkey is called that was made at a link.
const FIRST_PASSKEY: &str = "First passkey";

const GONE: Error = Error::Gone(
    "this link is unknown, already used, or older than an hour; restart `keyholder serve` while nobody has set up the console, or run `keyholder operator link`",
);

impl Broker {
    /// The link by which the owner sets up the console; `None` once there is an operator. Each start makes a new one, and those of earlier starts end.
    pub async fn first_link(&self) -> Result<Option<String>> {
        let tenant = Tenant::default_tenant();
        let (token, operator) = (random_token(self.rng.bytes()), KeyId::new(&self.clock, &self.rng));
        let (hash, expires_at) = (sha256(token.expose().as_bytes()), self.now_ms() + millis(LINK_LIFE));
        let made = self.store.write(move |tx| {
            tx.drop_first_links(&tenant)?;
            if !tx.operators(&tenant)?.is_empty() {
                return Ok(false);
            }
            tx.add_operator_link(
                &hash,
                &StoredLink { tenant, operator, scopes: [Scope::Admin].into(), first: true, expires_at },
            )?;
            Ok(true)
        });
        Ok(made.await?.then(|| self.welcome_url(&token)))
    }

    pub(super) fn welcome_url(&self, token: &Secret) -> String {
        format!("{}/console/welcome/{}", self.settings.public_url.as_str().trim_end_matches('/'), token.expose())
    }

    /// Whom a link is for. Looking at it uses nothing up.
    ///
    /// # Errors
    /// [`Error::Gone`] for one that is unknown, used or too old.
    pub async fn read_operator_link(&self, token: &str) -> Result<For> {
        let link = self.link_of(token).await?;
        Ok(if link.scopes.is_empty() { For::Reset(link.operator) } else { For::New { scopes: link.scopes } })
    }

    pub(super) async fn link_of(&self, token: &str) -> Result<StoredLink> {
        let hash = sha256(token.as_bytes());
        let found = self.store.read(move |tx| tx.operator_link(&hash)).await?;
        found.filter(|link| link.expires_at > self.now_ms()).ok_or(GONE)
    }

    /// Uses a link up: somebody new becomes an operator of this name, or the operator it is for signs in so from then on, and no other way. Signs in:
    /// answers the session's token.
    ///
    /// # Errors
    /// [`Error::Gone`]; a name, password or passkey that can't be used.
    pub async fn join(&self, token: &str, name: &str, proof: &Proof) -> Result<Secret> {
        let link = self.link_of(token).await?;
        let is_new = !link.scopes.is_empty();
        let name = match is_new {
            true => name.to_owned(),
            false => self.operator_of(&link.tenant, link.operator.as_str()).await?.ok_or(GONE)?.operator.name,
        };
        check_name(&name)?;
        let now = self.now_ms();
        let (password_hash, passkey) = match proof {
            Proof::Password(password) => {
                super::password::check(password, &name)?;
                (Some(self.hash_password(password).await?), None)
            }
            Proof::Passkey(sent) => {
                let key = self.registered(sent, &link.operator).await?;
                let shown = Passkey { name: FIRST_PASSKEY.to_owned(), created_at: now, used_at: None };
                (None, Some(StoredPasskey { operator: link.operator.clone(), shown, key }))
            }
        };
        let hash = sha256(token.as_bytes());
        let (session, session_hash) = self.new_session_token();
        let ends_at = super::session::ends_at(now);
        let wanted = name.clone();
        let joined = self.store.write(move |tx| {
            if !tx.take_operator_link(&hash)? {
                return Ok(None);
            }
            let StoredLink { tenant, operator: id, scopes, first, .. } = link;
            if is_new {
                if first && !tx.operators(&tenant)?.is_empty() {
                    return Ok(None);
                }
                let has_password = password_hash.is_some();
                let operator = Operator {
                    id: id.clone(),
                    name,
                    scopes,
                    has_password,
                    passkeys: 0,
                    theme: None,
                    seen_at: None,
                    created_at: now,
                };
                tx.add_operator(&StoredOperator { tenant: tenant.clone(), operator, password_hash })?;
            } else {
                tx.drop_operator_links(&id)?;
                tx.put_operator_password(&id, password_hash.as_deref())?;
                tx.remove_passkeys(&id)?;
                tx.end_console_sessions(&id, None)?;
            }
            if let Some(passkey) = passkey {
                tx.add_passkey(&tenant, &passkey)?;
            }
            tx.add_console_session(&session_hash, &tenant, &id, now, ends_at)?;
            tx.operator(&tenant, id.as_str())
        });
        let stored = joined.await.map_err(|error| taken(error, "operator", &wanted))?.ok_or(GONE)?;
        self.record(&caller_of(&stored), "operator.join", stored.operator.id.as_str(), "ok", None)?;
        Ok(session)
    }
}
