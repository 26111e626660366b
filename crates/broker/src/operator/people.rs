//! Who the operators are, and changing that.

use std::collections::BTreeSet;

use keyholder_oauth::{Secret, random_token, sha256};

use super::link::{LINK_LIFE, OperatorLink};
use super::password;
use crate::clock::millis;
use crate::error::{Error, Result, invalid};
use crate::manage::{check_name, taken};
use crate::model::{Caller, For, KeyId, Operator, Scope, Tenant, Theme};
use crate::open::Broker;
use crate::store::{StoreResult, StoredLink, StoredOperator, Tx};

/// What shall change; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct OperatorEdit {
    /// New name.
    pub name: Option<String>,
    /// New role; the operator's sessions end, but the one that is kept.
    pub scopes: Option<BTreeSet<Scope>>,
    /// New password; the operator's sessions end, but the one that is kept.
    pub password: Option<Secret>,
    /// New colours; `Some(None)`: as the device is set.
    pub theme: Option<Option<Theme>>,
}

impl Broker {
    /// All operators, oldest first.
    pub async fn operators(&self, caller: &Caller) -> Result<Vec<Operator>> {
        self.require(caller, Scope::Admin)?;
        let tenant = caller.tenant.clone();
        let found = self.store.read(move |tx| tx.operators(&tenant)).await?;
        Ok(found.into_iter().map(|it| it.operator).collect())
    }

    /// Makes a link by which somebody becomes an operator, or an operator chooses anew how to sign in.
    pub async fn operator_link(&self, caller: &Caller, for_whom: For) -> Result<OperatorLink> {
        self.require(caller, Scope::Admin)?;
        let (operator, scopes) = match for_whom {
            For::New { scopes } if scopes.is_empty() => return Err(no_scopes()),
            For::New { scopes } => (KeyId::new(&self.clock, &self.rng), scopes),
            For::Reset(id) => (self.known_operator(caller, id.as_str()).await?.operator.id, BTreeSet::new()),
        };
        let object = if scopes.is_empty() { operator.to_string() } else { "new".to_owned() };
        let token = random_token(self.rng.bytes());
        let hash = sha256(token.expose().as_bytes());
        let expires_at = self.now_ms() + millis(LINK_LIFE);
        let link = StoredLink { tenant: caller.tenant.clone(), operator, scopes, first: false, expires_at };
        self.store.write(move |tx| tx.add_operator_link(&hash, &link)).await?;
        self.record(caller, "operator.link", &object, "ok", None)?;
        Ok(OperatorLink { url: self.welcome_url(&token), expires_at })
    }

    /// The operator of this id or name.
    pub async fn operator(&self, caller: &Caller, id_or_name: &str) -> Result<Operator> {
        Ok(self.known_operator(caller, id_or_name).await?.operator)
    }

    pub(super) async fn known_operator(&self, caller: &Caller, id_or_name: &str) -> Result<StoredOperator> {
        let found = self.operator_of(&caller.tenant, id_or_name).await?;
        found.ok_or_else(|| Error::not_found("operator", id_or_name))
    }

    /// Changes an operator: people their own name, password and colours, administrators all. `kept` is the token of the session that goes on where
    /// the others end.
    pub async fn edit_operator(
        &self,
        caller: &Caller,
        id: &KeyId,
        edit: OperatorEdit,
        kept: Option<&str>,
    ) -> Result<()> {
        if *id != caller.key || edit.scopes.is_some() {
            self.require(caller, Scope::Admin)?;
        }
        let before = self.known_operator(caller, id.as_str()).await?;
        let changed = edit.words(&before.operator);
        let name = edit.name.unwrap_or_else(|| before.operator.name.clone());
        check_name(&name)?;
        if edit.scopes.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(no_scopes());
        }
        let hash = match &edit.password {
            Some(password) => {
                password::check(password, &name)?;
                Some(self.hash_password(password).await?)
            }
            None => None,
        };
        let kept = kept.map(|token| sha256(token.as_bytes()));
        let (id, tenant, wanted) = (id.clone(), caller.tenant.clone(), name.clone());
        let of_audit = before.operator.id.clone();
        let done = self.store.write(move |tx| {
            tx.lock_operators(&tenant)?;
            let ends = edit.scopes.is_some() || hash.is_some();
            let scopes = edit.scopes.unwrap_or(before.operator.scopes);
            if !scopes.contains(&Scope::Admin) && is_last_admin(tx, &tenant, &id)? {
                return Ok(false);
            }
            tx.put_operator(&id, &name, &scopes)?;
            if let Some(theme) = edit.theme {
                tx.put_operator_theme(&id, theme)?;
            }
            if let Some(hash) = hash {
                tx.put_operator_password(&id, Some(&hash))?;
                tx.drop_operator_links(&id)?;
            }
            if ends {
                tx.end_console_sessions(&id, kept.as_ref())?;
            }
            Ok(true)
        });
        if !done.await.map_err(|error| taken(error, "operator", &wanted))? {
            return Err(last_admin());
        }
        self.record(caller, "operator.edit", of_audit.as_str(), "ok", Some(changed))
    }

    /// Removes an operator, with all sessions; never the last who may do everything.
    pub async fn remove_operator(&self, caller: &Caller, id: &KeyId) -> Result<()> {
        self.require(caller, Scope::Admin)?;
        let found = self.known_operator(caller, id.as_str()).await?;
        let (id, tenant) = (id.clone(), caller.tenant.clone());
        let removed = self.store.write(move |tx| {
            tx.lock_operators(&tenant)?;
            if is_last_admin(tx, &tenant, &id)? {
                return Ok(false);
            }
            tx.remove_operator(&id).map(|()| true)
        });
        if !removed.await? {
            return Err(last_admin());
        }
        let Operator { id, name, .. } = found.operator;
        self.record(caller, "operator.remove", id.as_str(), "ok", Some(name))
    }

    /// Ends an operator's sessions, but the one of this token, where there is one.
    pub async fn end_sessions(&self, caller: &Caller, id: &KeyId, but: Option<&str>) -> Result<()> {
        if *id != caller.key {
            self.require(caller, Scope::Admin)?;
        }
        let (of_audit, which) = (id.clone(), if but.is_some() { "all other sessions" } else { "all sessions" });
        let (id, but) = (id.clone(), but.map(|token| sha256(token.as_bytes())));
        self.store.write(move |tx| tx.end_console_sessions(&id, but.as_ref())).await?;
        self.record(caller, "operator.sign_out", of_audit.as_str(), "ok", Some(which.to_owned()))
    }
}

impl OperatorEdit {
    /// What it changes, for the audit.
    fn words(&self, before: &Operator) -> String {
        let name =
            self.name.as_ref().filter(|name| **name != before.name).map(|_| format!("name, was {}", before.name));
        let scopes = self.scopes.as_ref().map(|scopes| {
            let words: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
            format!("may now: {}", words.join(", "))
        });
        let password = self.password.as_ref().map(|_| "password".to_owned());
        name.into_iter().chain(scopes).chain(password).collect::<Vec<_>>().join("; ")
    }
}

/// Whether nobody else may do everything.
fn is_last_admin(tx: &Tx<'_>, tenant: &Tenant, id: &KeyId) -> StoreResult<bool> {
    let admins = tx.operators(tenant)?.into_iter().filter(|it| it.operator.scopes.contains(&Scope::Admin));
    Ok(admins.map(|it| it.operator.id).eq([id.clone()]))
}

fn no_scopes() -> Error {
    invalid("scopes", "there must be at least one", "give some of read, manage, call, admin")
}

fn last_admin() -> Error {
    Error::NotPossible("this is the last operator who may do everything; make somebody else one first".to_owned())
}
