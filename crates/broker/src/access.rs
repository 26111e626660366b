//! Who calls, and what they may do.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use keyholder_oauth::{Secret, random_token};
use tokio::sync::watch;

use crate::Map;
use crate::error::{Error, FieldError, Result, invalid};
use crate::manage::Page;
use crate::model::{
    Caller, ConnectionId, Grip, KeyId, Limits, NewKey, PlainKey, Rate, Scope, SourceId, StoredKey, Tenant,
};
use crate::open::Broker;
use crate::store::NewStoredKey;
use crate::unconfirmed::Unconfirmed;
use crate::vault::write_private;

/// Last use is noted at most this often, in milliseconds.
const USE_NOTED_EVERY: i64 = 60_000;

/// Keys that were seen, by hash: authenticating a known key runs no SQL.
#[derive(Default)]
pub(crate) struct KeyCache {
    known: Map<[u8; 32], Arc<KnownKey>>,
    /// Raised after keys were taken out: what a [`LastKey`] remembers counts no more.
    version: AtomicU64,
    /// Told when a key is taken out because it has ended.
    forgotten: watch::Sender<()>,
}

impl KeyCache {
    pub(crate) fn forget(&self, key: &KeyId) {
        self.retain(|known| known.caller.key != *key);
    }

    pub(crate) fn forget_all(&self) {
        self.retain(|_| false);
    }

    /// Changes whenever a key may have ended, be it in this process or another.
    pub(crate) fn forgotten(&self) -> watch::Receiver<()> {
        self.forgotten.subscribe()
    }

    fn retain(&self, keep: impl Fn(&KnownKey) -> bool) {
        self.known.pin().retain(|_, known| keep(known));
        self.version.fetch_add(1, Ordering::Release);
        self.forgotten.send_replace(());
    }
}

/// The key that the last request of a client's connection showed: the next one with the same is known without hashing.
#[derive(Default)]
pub struct LastKey(Option<(Secret, Arc<KnownKey>, u64)>);

impl LastKey {
    /// The key's entry, if `shown` is it and no key was taken out since. In a time that doesn't tell how much of it fits: a proxy may send several
    /// callers' requests on one connection.
    fn known(&self, shown: &str, version: u64) -> Option<&Arc<KnownKey>> {
        let (key, known, at) = self.0.as_ref()?;
        (*at == version && key.is(shown)).then_some(known)
    }
}

struct KnownKey {
    caller: Arc<Caller>,
    noted_at: AtomicI64,
}

/// A key that was just made. The only time it can be seen.
pub struct MadeKey {
    /// What it lets do.
    pub stored: StoredKey,
    /// The key itself.
    pub key: PlainKey,
}

impl Broker {
    /// Names the caller that shows `key`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for an unknown, revoked or expired key.
    pub async fn authenticate(&self, key: &PlainKey) -> Result<Arc<Caller>> {
        let hash = key.hash();
        let now = self.now_ms();
        let cached = if self.is_current().await { self.keys.known.pin().get(&hash).cloned() } else { None };
        let known = match cached {
            Some(known) => known,
            None => self.look_up_key(hash).await?,
        };
        if known.caller.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::Unauthenticated(
                "this API key has expired; have a new one made with `keyholder key create`",
            ));
        }
        self.note_use(&known, now);
        Ok(Arc::clone(&known.caller))
    }

    /// As [`Self::authenticate`], where memory alone can tell; `None` where it can't, or where the key is no good.
    pub fn recognise(&self, shown: &str, last: &mut LastKey) -> Option<Arc<Caller>> {
        let now = self.now_ms();
        if !self.follower.is_current(now) {
            return None;
        }
        // Before the look: a key that is taken out after it has raised the version by the time the next request compares.
        let version = self.keys.version.load(Ordering::Acquire);
        if last.known(shown, version).is_none() {
            let known = self.keys.known.pin().get(&keyholder_oauth::sha256(shown.as_bytes())).cloned()?;
            last.0 = Some((Secret::new(shown), known, version));
        }
        let known = last.known(shown, version)?;
        if known.caller.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        self.note_use(known, now);
        Some(Arc::clone(&known.caller))
    }

    async fn look_up_key(&self, hash: [u8; 32]) -> Result<Arc<KnownKey>> {
        let found = self.store.read(move |tx| tx.key_by_hash(&hash)).await?;
        let stored = found.filter(|stored| stored.revoked_at.is_none()).ok_or(Error::Unauthenticated(
            "this API key is unknown or was revoked; check KEYHOLDER_API_KEY, or have a new one made with `keyholder key create`",
        ))?;
        let known = Arc::new(KnownKey {
            caller: Arc::new(stored.caller),
            noted_at: AtomicI64::new(stored.last_used_at.unwrap_or(0)),
        });
        self.keys.known.pin().insert(hash, Arc::clone(&known));
        // Not only out of the map: a connection may have remembered it meanwhile.
        let unconfirmed = Unconfirmed::new(|| self.keys.forget(&known.caller.key));
        // Revoked between the look and the insert, the key would live on in memory: look again.
        let again = self.store.read(move |tx| tx.key_by_hash(&hash)).await?;
        if again.is_none_or(|stored| stored.revoked_at.is_some()) {
            return Err(Error::Unauthenticated("this API key was revoked just now"));
        }
        unconfirmed.confirm();
        Ok(known)
    }

    fn note_use(&self, known: &KnownKey, now: i64) {
        let noted = known.noted_at.load(Ordering::Relaxed);
        let due = now - noted >= USE_NOTED_EVERY
            && known.noted_at.compare_exchange(noted, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if due {
            let (store, id) = (self.store.clone(), known.caller.key.clone());
            tokio::spawn(async move {
                if let Err(error) = store.write(move |tx| tx.key_used(&id, now)).await {
                    tracing::warn!(%error, "the last use of an API key could not be noted");
                }
            });
        }
    }

    /// Refuses, on the record, a caller without `scope`.
    pub fn require(&self, caller: &Caller, scope: Scope) -> Result<()> {
        if caller.may(scope) {
            return Ok(());
        }
        self.record(caller, "access.refused", scope.as_str(), "refused", None)?;
        Err(Error::Forbidden(scope))
    }

    /// Refuses, on the record, a use of a connection that the key's limits forbid.
    pub(crate) fn require_grip(&self, caller: &Caller, id: &ConnectionId, name: &str, grip: Grip<'_>) -> Result<()> {
        match caller.limits.refusal(id, name, grip) {
            None => Ok(()),
            Some(what) => {
                self.record(
                    caller,
                    "access.refused",
                    id.as_str(),
                    "refused",
                    Some(format!("limited to other {what}s")),
                )?;
                Err(Error::Limited(what))
            }
        }
    }

    /// Refuses a key that is limited to some connections what would reach others: making connections, changing what connections share.
    pub(crate) fn require_unlimited(&self, caller: &Caller, what: &'static str, object: &str) -> Result<()> {
        if !caller.limits.are_to_some() {
            return Ok(());
        }
        let (some, limit) = match caller.limits.sources.is_empty() {
            true => ("connections", "connection"),
            false => ("data sources", "data source"),
        };
        self.record(caller, "access.refused", object, "refused", Some(format!("limited to some {some}: {what}")))?;
        Err(Error::Limited(limit))
    }

    /// Refuses, on the record, a use of a data source that the key's limits forbid.
    pub(crate) fn require_source(&self, caller: &Caller, id: &SourceId, name: &str) -> Result<()> {
        if !caller.limits.refuses_source(id, name) {
            return Ok(());
        }
        let detail = Some("limited to other data sources".to_owned());
        self.record(caller, "access.refused", id.as_str(), "refused", detail)?;
        Err(Error::Limited("data source"))
    }

    /// The key of this id, or the live one of this name.
    pub async fn key(&self, caller: &Caller, id_or_name: &str) -> Result<StoredKey> {
        let (tenant, wanted) = (caller.tenant.clone(), id_or_name.to_owned());
        let found = self.store.read(move |tx| tx.key(&tenant, &wanted)).await?;
        found.ok_or_else(|| Error::not_found("API key", id_or_name))
    }

    /// Makes an API key.
    pub async fn create_key(&self, caller: &Caller, new: NewKey) -> Result<MadeKey> {
        check_new_key(&new, self.now_ms())?;
        let made = self.make_key(&caller.tenant, new, random_token(self.rng.bytes())).await?;
        self.record(
            caller,
            "key.create",
            made.stored.caller.key.as_str(),
            "ok",
            Some(made.stored.caller.name.clone()),
        )?;
        Ok(made)
    }

    /// The tenant's keys, revoked ones included.
    pub async fn keys(&self, caller: &Caller, page: &Page) -> Result<Vec<StoredKey>> {
        let (tenant, after, limit) = (caller.tenant.clone(), page.after.clone(), page.limit);
        Ok(self.store.read(move |tx| tx.keys(&tenant, &after, limit)).await?)
    }

    /// Revokes a key, by id or by the name of a live key. It stops working at once.
    pub async fn revoke_key(&self, caller: &Caller, id_or_name: &str) -> Result<StoredKey> {
        let (tenant, name, now) = (caller.tenant.clone(), id_or_name.to_owned(), self.now_ms());
        let revoked = self
            .store
            .write(move |tx| {
                let Some(found) = tx.key(&tenant, &name)? else { return Ok(None) };
                tx.revoke_key(&tenant, &found.caller.key, now)?;
                tx.key(&tenant, found.caller.key.as_str())
            })
            .await?
            .ok_or_else(|| Error::not_found("API key", id_or_name))?;
        self.keys.forget(&revoked.caller.key);
        self.record(caller, "key.revoke", revoked.caller.key.as_str(), "ok", Some(revoked.caller.name.clone()))?;
        Ok(revoked)
    }

    /// Makes sure that the administrator's key of this installation exists and lies in `<data dir>/admin-key`, mode 0600.
    pub async fn ensure_admin_key(&self) -> Result<PathBuf> {
        let path = self.settings.data_dir.join("admin-key");
        if let Ok(text) = fs::read_to_string(&path)
            && self.authenticate(&PlainKey(Secret::new(text.trim()))).await.is_ok()
        {
            return Ok(path);
        }
        let tenant = Tenant::default_tenant();
        let name = self.admin_key_name().await;
        let now = self.now_ms();
        let (of_tenant, lost_name) = (tenant.clone(), name.clone());
        self.store
            .write(move |tx| match tx.key(&of_tenant, &lost_name)? {
                Some(lost) => tx.revoke_key(&of_tenant, &lost.caller.key, now).map(drop),
                None => Ok(()),
            })
            .await?;
        self.keys.retain(|known| known.caller.name != name);
        let new = NewKey { name, scopes: [Scope::Admin].into(), limits: Limits::default(), expires_at: None };
        let made = self.make_key(&tenant, new, random_token(self.rng.bytes())).await?;
        let written = match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => write_private(&path, format!("{}\n", made.key.0.expose()).as_bytes()),
        };
        written.map_err(|e| Error::File { what: path.display().to_string(), cause: e.to_string() })?;
        Ok(path)
    }

    /// A data folder has a key of its own where several work on one database: the start of one must not take away another's.
    async fn admin_key_name(&self) -> String {
        if self.store.is_shared() {
            format!("administrator {}", self.fence.instance().await)
        } else {
            "administrator".to_owned()
        }
    }

    async fn make_key(&self, tenant: &Tenant, new: NewKey, random: Secret) -> Result<MadeKey> {
        let key = PlainKey(Secret::new(format!("{}{}", PlainKey::PREFIX, random.expose())));
        let (id, now, hash) = (KeyId::new(&self.clock, &self.rng), self.now_ms(), key.hash());
        let hint: String = key.0.expose().chars().take(PlainKey::PREFIX.len() + 4).collect();
        let stored = StoredKey {
            caller: Caller {
                key: id.clone(),
                name: new.name.clone(),
                tenant: tenant.clone(),
                scopes: new.scopes.clone(),
                limits: new.limits.clone(),
                expires_at: new.expires_at,
            },
            hint: hint.clone(),
            created_at: now,
            last_used_at: None,
            revoked_at: None,
        };
        let (tenant, name) = (tenant.clone(), new.name.clone());
        self.store
            .write(move |tx| {
                tx.add_key(&NewStoredKey { id: &id, tenant: &tenant, new: &new, hint: &hint, hash: &hash }, now)
            })
            .await
            .map_err(|error| crate::manage::taken(error, "API key", &name))?;
        Ok(MadeKey { stored, key })
    }
}

fn check_new_key(new: &NewKey, now: i64) -> Result<()> {
    crate::manage::check_name(&new.name)?;
    if new.scopes.is_empty() {
        return Err(invalid("scopes", "a key must have at least one", "give some of read, manage, token, call, admin"));
    }
    if new.expires_at.is_some_and(|end| end <= now) {
        return Err(invalid("expires_at", "it lies in the past", "give a later time, in Unix milliseconds"));
    }
    let lower: Vec<_> = new.limits.methods.iter().filter(|m| m.chars().any(|c| !c.is_ascii_uppercase())).collect();
    let relative: Vec<_> = new.limits.paths.iter().filter(|p| !p.starts_with('/')).collect();
    let errors: Vec<_> = lower
        .into_iter()
        .map(|m| {
            FieldError::new("limits.methods", format!("`{m}` is no method"), "write methods in capitals, like GET")
        })
        .chain(relative.into_iter().map(|p| {
            FieldError::new(
                "limits.paths",
                format!("`{p}` doesn't begin with a slash"),
                "write a path prefix like /v3/contacts",
            )
        }))
        .collect();
    let errors: Vec<_> = errors.into_iter().chain(rate_errors(&new.limits.rate)).collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

/// What is wrong with limits of calls.
pub(crate) fn rate_errors(rate: &Rate) -> impl Iterator<Item = FieldError> {
    let bad_pace = rate.per_second.is_some_and(|pace| !(0.001..=1_000_000.0).contains(&pace));
    let bad_count = rate.concurrent.is_some_and(|calls| !(1..=1_000_000).contains(&calls));
    let pace = bad_pace.then(|| {
        let remedy = "give calls a second from 0.001 to 1000000, or leave it out";
        FieldError::new("limits.per_second", "it is no pace", remedy)
    });
    let count = bad_count.then(|| {
        let remedy = "give a number from 1 to 1000000, or leave it out";
        FieldError::new("limits.concurrent", "it is no number of calls", remedy)
    });
    pace.into_iter().chain(count)
}
