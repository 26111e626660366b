//! Passkeys of operators: asking browsers for them, signing in, proving again, adding, removing.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyholder_oauth::{Secret, sha256};

use super::passkey::{Answer, Expected, Mismatch, Party};
use super::session::LONGEST_NAME;
use crate::clock::millis;
use crate::error::{Error, Result, invalid};
use crate::manage::{check_name, taken};
use crate::model::{Caller, KeyId, Passkey, PasskeyKey, Tenant};
use crate::open::Broker;
use crate::store::{Purpose, StoredOperator, StoredPasskey};

/// How long a question to a browser can be answered.
const ASKED_FOR: Duration = Duration::from_secs(5 * 60);
/// Most passkeys of one person.
const MOST: usize = 20;

/// What a browser is asked.
#[derive(Clone, Debug)]
pub struct PasskeyQuestion {
    /// Random, base64url: good for one answer, for five minutes.
    pub challenge: String,
    /// The host whose passkeys these are.
    pub party: String,
    /// Whose passkey it is to be, where one is to be made: their id.
    pub user: Option<KeyId>,
    /// Their name, where they have one.
    pub name: String,
    /// The ids of the passkeys they have, base64url.
    pub known: Vec<String>,
}

impl Broker {
    /// Whether there can be passkeys here.
    ///
    /// # Errors
    /// Why not, and what to set.
    pub fn passkeys_possible(&self) -> std::result::Result<(), String> {
        Party::of(&self.settings.public_url).map(drop)
    }

    fn party(&self) -> Result<Party> {
        Party::of(&self.settings.public_url).map_err(Error::NotPossible)
    }

    /// A question for whoever wants to sign in: no name is asked for, the device knows.
    pub async fn passkey_to_sign_in(&self) -> Result<PasskeyQuestion> {
        self.ask_for_passkey(Purpose::SignIn, None).await
    }

    /// A question for who has a link, to make the passkey they will sign in with.
    ///
    /// # Errors
    /// [`Error::Gone`] for a link that is unknown, used or too old.
    pub async fn passkey_by_link(&self, token: &str) -> Result<PasskeyQuestion> {
        let link = self.link_of(token).await?;
        let name = self.operator_of(&link.tenant, link.operator.as_str()).await?.map(|it| it.operator.name);
        let asked = self.ask_for_passkey(Purpose::Add, Some(link.operator)).await?;
        Ok(PasskeyQuestion { name: name.unwrap_or_default(), known: Vec::new(), ..asked })
    }

    /// A question for who is signed in, to make another passkey.
    pub async fn passkey_to_add(&self, caller: &Caller) -> Result<PasskeyQuestion> {
        let name = self.known_operator(caller, caller.key.as_str()).await?.operator.name;
        let asked = self.ask_for_passkey(Purpose::Add, Some(caller.key.clone())).await?;
        Ok(PasskeyQuestion { name, ..asked })
    }

    /// A question for who is signed in, to show that it is still them.
    pub async fn passkey_to_prove(&self, caller: &Caller) -> Result<PasskeyQuestion> {
        self.ask_for_passkey(Purpose::Prove, Some(caller.key.clone())).await
    }

    async fn ask_for_passkey(&self, purpose: Purpose, user: Option<KeyId>) -> Result<PasskeyQuestion> {
        let party = self.party()?;
        let challenge: [u8; 32] = self.rng.bytes();
        let (hash, now) = (sha256(&challenge), self.now_ms());
        let (expires_at, whose) = (now + millis(ASKED_FOR), user.clone());
        let known = self.store.write(move |tx| {
            tx.add_passkey_challenge(&hash, purpose, whose.as_ref(), expires_at)?;
            whose.map_or(Ok(Vec::new()), |whose| tx.passkeys(&whose))
        });
        let known = known.await?.iter().map(|it| URL_SAFE_NO_PAD.encode(&it.key.credential)).collect();
        let user = user.filter(|_| purpose == Purpose::Add);
        Ok(PasskeyQuestion {
            challenge: URL_SAFE_NO_PAD.encode(challenge),
            party: party.id,
            user,
            name: String::new(),
            known,
        })
    }

    /// Signs in by passkey, as the script sent it; answers the token of a new session.
    ///
    /// # Errors
    /// An answer that can't be taken, on the record.
    pub async fn sign_in_by_passkey(&self, sent: &Secret) -> Result<Secret> {
        let tenant = Tenant::default_tenant();
        match self.operator_by_passkey(&tenant, sent, None).await {
            Ok(stored) => self.begin_session(stored).await,
            Err((who, error)) => {
                let shown: String = who.chars().take(LONGEST_NAME).collect();
                self.record_person(&tenant, "operator.sign_in", &shown, "refused")?;
                Err(error)
            }
        }
    }

    /// Whose passkey it is; `only`: it must be this one's, and was asked of them. With an error comes who it was, as far as that is known.
    pub(super) async fn operator_by_passkey(
        &self,
        tenant: &Tenant,
        sent: &Secret,
        only: Option<&KeyId>,
    ) -> std::result::Result<StoredOperator, (String, Error)> {
        let nobody = |error: Error| ("a passkey".to_owned(), error);
        let party = self.party().map_err(nobody)?;
        let answer = Answer::read(sent.expose()).map_err(|it| nobody(refused(it)))?;
        let purpose = if only.is_some() { Purpose::Prove } else { Purpose::SignIn };
        // Used up whatever comes of it.
        let challenge = self.take_challenge(&answer, purpose, only).await.map_err(nobody)?;
        let (of_tenant, credential) = (tenant.clone(), answer.credential.clone());
        let found = self.store.read(move |tx| {
            let Some(passkey) = tx.passkey(&of_tenant, &credential)? else { return Ok(None) };
            Ok(tx.operator(&of_tenant, passkey.operator.as_str())?.map(|stored| (passkey, stored)))
        });
        let found = found.await.map_err(|error| nobody(error.into()))?;
        let Some((passkey, stored)) = found.filter(|(it, _)| only.is_none_or(|only| it.operator == *only)) else {
            return Err(nobody(invalid(
                "passkey",
                "nobody here signs in with this passkey",
                "it may have been removed; choose another, or use your password",
            )));
        };
        let named = |error: Error| (stored.operator.name.clone(), error);
        let expected = Expected { party: &party, challenge };
        let counter =
            answer.proved(&expected, &passkey.key, passkey.operator.as_str()).map_err(|it| named(refused(it)))?;
        let (now, credential) = (self.now_ms(), passkey.key.credential.clone());
        let of_tenant = tenant.clone();
        let counted = self.store.write(move |tx| tx.passkey_used(&of_tenant, &credential, counter, now));
        match counted.await.map_err(|error| named(error.into()))? {
            true => Ok(stored),
            // Another sign-in with a copy was first.
            false => Err(named(refused(Mismatch::Counter))),
        }
    }

    async fn take_challenge(&self, answer: &Answer, purpose: Purpose, whose: Option<&KeyId>) -> Result<[u8; 32]> {
        let hash = answer.challenge().map_err(refused)?;
        let (now, whose) = (self.now_ms(), whose.cloned());
        let taken = self.store.write(move |tx| tx.take_passkey_challenge(&hash, purpose, whose.as_ref(), now)).await?;
        if taken { Ok(hash) } else { Err(refused(Mismatch::Challenge)) }
    }

    /// The passkey that a browser made for somebody.
    pub(super) async fn registered(&self, sent: &Secret, whose: &KeyId) -> Result<PasskeyKey> {
        let party = self.party()?;
        let answer = Answer::read(sent.expose()).map_err(refused)?;
        let challenge = self.take_challenge(&answer, Purpose::Add, Some(whose)).await?;
        answer.registered(&Expected { party: &party, challenge }).map_err(refused)
    }

    /// The passkeys of the operator behind a caller, oldest first.
    pub async fn passkeys(&self, caller: &Caller) -> Result<Vec<Passkey>> {
        let id = caller.key.clone();
        let found = self.store.read(move |tx| tx.passkeys(&id)).await?;
        Ok(found.into_iter().map(|it| it.shown).collect())
    }

    /// Adds a passkey under a name, for the operator behind a caller.
    ///
    /// # Errors
    /// A name that is taken or can't be used; an answer that can't be taken.
    pub async fn add_passkey(&self, caller: &Caller, name: &str, sent: &Secret) -> Result<()> {
        check_name(name)?;
        let key = self.registered(sent, &caller.key).await?;
        let (tenant, operator) = (caller.tenant.clone(), caller.key.clone());
        let shown = Passkey { name: name.to_owned(), created_at: self.now_ms(), used_at: None };
        let new = StoredPasskey { operator, shown, key };
        let added = self.store.write(move |tx| {
            tx.lock_operators(&tenant)?;
            if tx.passkeys(&new.operator)?.len() >= MOST {
                return Ok(false);
            }
            tx.add_passkey(&tenant, &new).map(|()| true)
        });
        if !added.await.map_err(|error| taken(error, "passkey", name))? {
            return Err(Error::NotPossible(format!("you have {MOST} passkeys; remove some first")));
        }
        self.record(caller, "operator.passkey.add", caller.key.as_str(), "ok", Some(name.to_owned()))
    }

    /// Removes a passkey of the operator behind a caller, whose other sessions end; never the last way in. `kept` is the token of the session that goes on.
    pub async fn remove_passkey(&self, caller: &Caller, name: &str, kept: &str) -> Result<()> {
        let (tenant, id, wanted) = (caller.tenant.clone(), caller.key.clone(), name.to_owned());
        let kept = sha256(kept.as_bytes());
        let removed = self.store.write(move |tx| {
            tx.lock_operators(&tenant)?;
            let has_password = tx.operator(&tenant, id.as_str())?.is_some_and(|it| it.operator.has_password);
            let all = tx.passkeys(&id)?;
            if !all.iter().any(|it| it.shown.name == wanted) {
                return Ok(None);
            }
            if !has_password && all.len() == 1 {
                return Ok(Some(false));
            }
            tx.remove_passkey(&id, &wanted)?;
            tx.end_console_sessions(&id, Some(&kept))?;
            Ok(Some(true))
        });
        match removed.await? {
            None => Err(Error::not_found("passkey", name)),
            Some(false) => {
                Err(Error::NotPossible("this is your last way in; add another passkey or a password first".to_owned()))
            }
            Some(true) => {
                self.record(caller, "operator.passkey.remove", caller.key.as_str(), "ok", Some(name.to_owned()))
            }
        }
    }
}

fn refused(mismatch: Mismatch) -> Error {
    let remedy = match mismatch {
        Mismatch::Counter => "sign in another way, and remove the passkey: somebody may have copied it",
        Mismatch::Origin | Mismatch::Party | Mismatch::CrossOrigin => {
            "open the console at its own address, and look who sent you elsewhere"
        }
        Mismatch::Algorithm | Mismatch::Key | Mismatch::NotVerified => "use another device, or a password",
        _ => "try again",
    };
    invalid("passkey", mismatch.to_string(), remedy)
}
