//! Advice: what the security recommendations for such systems say, computed from what is stored. Each piece names its reason, its source, and where it is mended.
//!
//! What is asked of the store is bounded ([`crate::store`]'s `advice`), and so is what is read of integrations, keys and data sources; the judgement is pure.

mod rules;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]
mod tests;
mod unusual;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyholder_provider::Definition;
use serde::Serialize;

use crate::audit::Methods;
use crate::clock::millis;
use crate::egress::certificate_ends_at;
use crate::error::{Result, invalid};
use crate::model::{
    Behind, Caller, Connection, ConnectionId, DataSource, Integration, IntegrationId, KeyId, Scope, SourceId,
    StoredKey, Tenant, Values,
};
use crate::open::Broker;
use crate::store::{Alike, Ending, FirstUse, HourOfCalls, LongLived, Noted, StoreResult, Tx};
use crate::usage::HOUR_MS;

pub use rules::writes;
use rules::{Kind, of_values, parts};

const DAY: i64 = 24 * HOUR_MS;
const FRESH: Duration = Duration::from_secs(60);
/// Integrations, keys and data sources that are looked at, in pages of the store's size.
const MOST: usize = 1000;
const PAGE: i64 = 200;
const UNUSED_DAYS: i64 = 45;
/// A connection is no longer new after so long, and its callers can be.
const SETTLED: i64 = 7 * DAY;
/// Dismissed advice comes again after so long, where it still holds.
const DISMISSED_FOR: i64 = 90 * DAY;

const DISMISSED: &str = "advice_dismissed";
const UTC_OFFSET: &str = "advice_utc_offset";

/// How soon somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Today.
    High,
    /// This week.
    Medium,
    /// When there is time.
    Low,
}

/// What a piece of advice is about: an id and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// A connection.
    Connection(ConnectionId, String),
    /// An integration.
    Integration(IntegrationId, String),
    /// An API key.
    Key(KeyId, String),
    /// A data source.
    Source(SourceId, String),
    /// The whole installation.
    Instance,
}

impl On {
    /// The kind of thing, as a word.
    pub fn what(&self) -> &'static str {
        match self {
            On::Connection(..) => "connection",
            On::Integration(..) => "integration",
            On::Key(..) => "key",
            On::Source(..) => "data source",
            On::Instance => "installation",
        }
    }

    /// Its id; empty for the installation.
    pub fn id(&self) -> &str {
        match self {
            On::Connection(id, _) => id.as_str(),
            On::Integration(id, _) => id.as_str(),
            On::Key(id, _) => id.as_str(),
            On::Source(id, _) => id.as_str(),
            On::Instance => "",
        }
    }

    /// Its name; empty for the installation.
    pub fn name(&self) -> &str {
        match self {
            On::Connection(_, name) | On::Integration(_, name) | On::Key(_, name) | On::Source(_, name) => name,
            On::Instance => "",
        }
    }
}

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The rule that found it, a stable word.
    pub rule: &'static str,
    /// How soon somebody should look.
    pub severity: Severity,
    /// What it is about.
    pub on: On,
    /// What was found, a sentence.
    pub text: String,
    /// Why it matters.
    pub reason: &'static str,
    /// Who recommends it.
    pub source: &'static str,
    /// The console's page that mends it.
    pub href: String,
    /// What is done there.
    pub link: &'static str,
}

/// Advice as it was computed last, by tenant.
#[derive(Default)]
pub(crate) struct Computed(Mutex<HashMap<String, Kept>>);

/// When it was computed, Unix milliseconds, and what came out.
type Kept = (i64, Arc<Vec<Advice>>);

impl Broker {
    /// All advice, the most pressing first, no older than a minute. About keys only for who may see them.
    pub async fn advice(&self, caller: &Caller) -> Result<Vec<Advice>> {
        self.require(caller, Scope::Read)?;
        self.advice_within(caller, FRESH).await
    }

    /// As [`Self::advice`], computed now.
    pub async fn advice_now(&self, caller: &Caller) -> Result<Vec<Advice>> {
        self.require(caller, Scope::Read)?;
        self.advice_within(caller, Duration::ZERO).await
    }

    /// Advice about a connection and what it shares with others under its integration.
    pub async fn advice_on(&self, caller: &Caller, connection: &ConnectionId) -> Result<Vec<Advice>> {
        let of = self.connection(caller, connection.as_str()).await?.connection;
        let mut advice = self.advice_within(caller, FRESH).await?;
        advice.retain(|it| match &it.on {
            On::Connection(id, _) => *id == of.id,
            On::Integration(id, _) => *id == of.integration,
            On::Key(..) | On::Source(..) | On::Instance => false,
        });
        Ok(advice)
    }

    /// Not to be shown again for three months: `rule`, on what has this id.
    pub async fn dismiss_advice(&self, caller: &Caller, rule: &str, on: &str) -> Result<()> {
        self.require(caller, Scope::Manage)?;
        self.require_unlimited(caller, "no advice", on)?;
        let known = self.advice_within(caller, FRESH).await?;
        if !known.iter().any(|it| it.rule == rule && it.on.id() == on) {
            return Err(invalid("rule", "there is no such advice", "open the page again: it may have been mended"));
        }
        let (now, entry, name) = (self.now_ms(), key(rule, on), of_tenant(DISMISSED, &caller.tenant));
        let write = move |tx: &Tx<'_>| {
            let mut dismissed = read_dismissed(tx, &name)?;
            dismissed.retain(|_, until| *until > now);
            dismissed.insert(entry.clone(), now + DISMISSED_FOR);
            tx.put_meta(&name, &serde_json::to_string(&dismissed).unwrap_or_default())
        };
        self.store.write(write).await?;
        self.record(caller, "advice.dismiss", on, "ok", Some(rule.chars().take(100).collect()))
    }

    /// By how many hours the night is apart from that of UTC.
    pub async fn advice_utc_offset(&self, caller: &Caller) -> Result<i64> {
        let name = of_tenant(UTC_OFFSET, &caller.tenant);
        Ok(self.store.read(move |tx| read_offset(tx, &name)).await?)
    }

    /// Says so.
    pub async fn set_advice_utc_offset(&self, caller: &Caller, hours: i64) -> Result<()> {
        self.require(caller, Scope::Admin)?;
        if !(-12..=14).contains(&hours) {
            return Err(invalid(
                "utc_offset",
                "no place on earth is so far from UTC",
                "give whole hours from -12 to 14",
            ));
        }
        let name = of_tenant(UTC_OFFSET, &caller.tenant);
        self.store.write(move |tx| tx.put_meta(&name, &hours.to_string())).await?;
        self.computed.0.lock().unwrap_or_else(PoisonError::into_inner).remove(caller.tenant.as_str());
        self.record(caller, "advice.settings", "utc_offset", "ok", Some(hours.to_string()))
    }

    async fn advice_within(&self, caller: &Caller, age: Duration) -> Result<Vec<Advice>> {
        self.require_unlimited(caller, "no advice", "advice")?;
        let (tenant, now) = (&caller.tenant, self.now_ms());
        let kept = self.computed.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant.as_str()).cloned();
        let all = match kept.filter(|(at, _)| now - at < millis(age)) {
            Some((_, all)) => all,
            None => {
                let all = Arc::new(self.compute_advice(tenant, now).await?);
                let mut computed = self.computed.0.lock().unwrap_or_else(PoisonError::into_inner);
                computed.insert(tenant.as_str().to_owned(), (now, Arc::clone(&all)));
                all
            }
        };
        let name = of_tenant(DISMISSED, tenant);
        let dismissed = self.store.read(move |tx| read_dismissed(tx, &name)).await?;
        let is_shown = |it: &&Advice| {
            let is_dismissed = dismissed.get(&key(it.rule, it.on.id())).is_some_and(|until| *until > now);
            !is_dismissed && (caller.may(Scope::Admin) || !matches!(it.on, On::Key(..)))
        };
        Ok(all.iter().filter(is_shown).cloned().collect())
    }

    async fn compute_advice(&self, tenant: &Tenant, now: i64) -> Result<Vec<Advice>> {
        let methods = self.methods_used(tenant, now - 30 * DAY).await?;
        let retention = self.settings.retention.usage.map_or(i64::MAX, millis);
        let read_of = tenant.clone();
        let seen = self.store.read(move |tx| Seen::read(tx, &read_of, now, retention, &methods)).await?;
        let mut definitions = HashMap::new();
        for integration in seen.integrations.values() {
            match self.definition_of(integration).await {
                Ok(definition) => drop(definitions.insert(integration.id.clone(), definition)),
                // One that can't be read stands in the log since it was; it must not keep all other advice away.
                Err(error) => {
                    tracing::debug!(integration = %integration.id, %error, "no advice: its definition can't be read")
                }
            }
        }
        let mut advice = seen.judge(&definitions, now);
        if rules::is_plain(self.public_url().as_str()) {
            let values = [("The public URL", self.public_url().as_str())];
            advice.extend(rules::plain_http(On::Instance, values, "/console/settings".to_owned()));
        }
        advice.sort_by(|a, b| {
            (a.severity, a.rule, a.on.name(), a.on.id()).cmp(&(b.severity, b.rule, b.on.name(), b.on.id()))
        });
        Ok(advice)
    }
}

/// All that is judged.
struct Seen {
    integrations: BTreeMap<IntegrationId, Integration>,
    keys: Vec<StoredKey>,
    sources: Vec<DataSource>,
    granted: Vec<Alike>,
    shared: Vec<Alike>,
    roles: Vec<Noted>,
    long: Vec<LongLived>,
    plain: Vec<(Noted, Values)>,
    /// Over so many days.
    unused: (i64, Vec<Noted>),
    ending: Vec<Ending>,
    /// Connections that only read, with how often.
    readers: Vec<(Connection, Methods)>,
    /// Connections behind data sources.
    behind: HashMap<ConnectionId, Connection>,
    /// With the caller's name.
    first_uses: Vec<(FirstUse, Option<String>)>,
    busy: Vec<HourOfCalls>,
    nights: Vec<HourOfCalls>,
    /// Names of those that groups begin with.
    names: HashMap<ConnectionId, String>,
}

impl Seen {
    fn read(
        tx: &Tx<'_>,
        tenant: &Tenant,
        now: i64,
        retention: i64,
        methods: &HashMap<String, Methods>,
    ) -> StoreResult<Self> {
        let hour = now.div_euclid(HOUR_MS);
        let (day, offset) = (24, read_offset(tx, &of_tenant(UTC_OFFSET, tenant))?);
        let sources = pages(|after| tx.sources(tenant, after, PAGE), |it| it.id.as_str())?;
        let mut behind = HashMap::new();
        for source in &sources {
            if let Behind::Connection(id) = &source.behind
                && !behind.contains_key(id)
                && let Some(connection) = tx.connection_by_id(id)?
            {
                behind.insert(id.clone(), connection);
            }
        }
        let mut readers = Vec::new();
        for (id, methods) in methods.iter().filter(|(_, methods)| methods.other == 0).take(MOST) {
            readers.extend(tx.connection(tenant, id)?.map(|connection| (connection, *methods)));
        }
        let mut first_uses = Vec::new();
        for found in tx.new_callers(tenant, hour - 30 * day, hour - day, now - SETTLED)? {
            let name = match tx.key(tenant, &found.caller)? {
                Some(key) => Some(key.caller.name),
                None => tx.operator_name(tenant, &found.caller)?.map(|name| format!("{name} (console)")),
            };
            first_uses.push((found, name));
        }
        let (granted, shared) = (tx.granted_scopes(tenant)?, tx.shared_accounts(tenant)?);
        let mut names = HashMap::new();
        for alike in granted.iter().chain(&shared) {
            names.extend(tx.connection_by_id(&alike.first)?.map(|it| (it.id, it.name)));
        }
        // What is no longer counted can't be told from what was never used.
        let unused = match retention >= UNUSED_DAYS * DAY {
            true => tx.unused(tenant, now - UNUSED_DAYS * DAY, hour - UNUSED_DAYS * day)?,
            false => Vec::new(),
        };
        let integrations = pages(|after| tx.integrations(tenant, after, PAGE), |it| it.id.as_str())?;
        Ok(Self {
            integrations: integrations.into_iter().map(|it| (it.id.clone(), it)).collect(),
            keys: pages(|after| tx.keys(tenant, after, PAGE), |it| it.caller.key.as_str())?,
            sources,
            granted,
            shared,
            roles: tx.accounts_of_roles(tenant)?,
            long: tx.long_lived(tenant, rules::LONG)?,
            plain: tx.plain_addresses(tenant)?,
            unused: (UNUSED_DAYS, unused),
            ending: tx.ending(tenant, now, now + 14 * DAY, PAGE)?,
            readers,
            behind,
            first_uses,
            busy: tx.busy_hours(tenant, hour - 14 * day, hour - day, unusual::MANY)?,
            nights: tx.new_nights(tenant, hour - 15 * day, hour - day, hour - 7 * day, offset)?,
            names,
        })
    }

    fn judge(&self, definitions: &HashMap<IntegrationId, Arc<Definition>>, now: i64) -> Vec<Advice> {
        let kinds: HashMap<&IntegrationId, Kind<'_>> =
            self.integrations.values().filter_map(|it| Some((&it.id, kind(it, definitions.get(&it.id)?)?))).collect();
        let mut advice = Vec::new();
        for kind in kinds.values() {
            advice.extend(rules::password_grant(kind));
            advice.extend(rules::client_in_query(kind));
        }
        for it in self.integrations.values() {
            let (on, edit) =
                (On::Integration(it.id.clone(), it.name.clone()), format!("/console/integrations/{}/edit", it.id));
            advice.extend(rules::plain_http(on.clone(), of_values(&it.variables), edit.clone()));
            for (what, at) in [
                ("The client secret", it.client_secret_expires_at),
                ("The client certificate", it.client_certificate.as_deref().and_then(certificate_ends_at)),
            ] {
                let at = at.filter(|at| *at <= now + 30 * DAY);
                advice
                    .extend(at.map(|at| rules::ends_soon(on.clone(), what, at, now, edit.clone(), "Put a new one in")));
            }
        }
        self.judge_connections(&kinds, now, &mut advice);
        self.judge_sources(&kinds, &mut advice);
        for key in &self.keys {
            advice.extend(rules::key_unlimited(key, now));
            advice.extend(rules::key_unused(key, now));
            let at = key.caller.expires_at.filter(|at| (now..=now + 14 * DAY).contains(at) && key.revoked_at.is_none());
            let on = On::Key(key.caller.key.clone(), key.caller.name.clone());
            advice.extend(at.map(|at| {
                rules::ends_soon(on, "This key", at, now, "/console/callers/new".to_owned(), "Make another")
            }));
        }
        advice.extend(self.first_uses.iter().map(|(found, caller)| unusual::new_caller(found, caller.as_deref())));
        let recent = now.div_euclid(HOUR_MS) - 24;
        advice.extend(
            self.busy.chunk_by(|a, b| a.connection == b.connection).filter_map(|hours| unusual::burst(hours, recent)),
        );
        advice.extend(self.nights.iter().map(unusual::night));
        advice
    }

    fn judge_connections(&self, kinds: &HashMap<&IntegrationId, Kind<'_>>, now: i64, advice: &mut Vec<Advice>) {
        for (connection, methods) in &self.readers {
            let Some(kind) = kinds.get(&connection.integration) else { continue };
            advice.extend(rules::scope_unused(kind, on(connection), &granted(connection, kind), *methods));
        }
        for alike in &self.granted {
            let (Some(kind), Some(name)) = (kinds.get(&alike.integration), self.names.get(&alike.first)) else {
                continue;
            };
            advice.extend(rules::scope_more(kind, alike, name));
        }
        for alike in &self.shared {
            let Some(integration) = self.integrations.get(&alike.integration) else { continue };
            let name = self.names.get(&alike.first).map_or("", String::as_str);
            advice.push(rules::shared_account(&integration.name, alike, name));
        }
        advice.extend(self.roles.iter().filter_map(rules::role_account));
        advice.extend(self.long.iter().filter_map(|found| rules::long_token(kinds.get(&found.integration)?, found)));
        for (noted, values) in &self.plain {
            let href = format!("/console/connections/{}/edit", noted.id);
            advice.extend(rules::plain_http(
                On::Connection(noted.id.clone(), noted.name.clone()),
                of_values(values),
                href,
            ));
        }
        advice.extend(self.unused.1.iter().map(|found| rules::unused(found, self.unused.0)));
        for it in &self.ending {
            let (on, href) =
                (On::Connection(it.id.clone(), it.name.clone()), format!("/console/connections/{}/authorize", it.id));
            advice.push(rules::ends_soon(on, "The grant", it.dies_at, now, href, "Authorise it again"));
        }
    }

    fn judge_sources(&self, kinds: &HashMap<&IntegrationId, Kind<'_>>, advice: &mut Vec<Advice>) {
        let mut by: BTreeMap<&str, Vec<&DataSource>> = BTreeMap::new();
        for source in &self.sources {
            by.entry(behind_id(&source.behind)).or_default().push(source);
            let base = source.base_url.as_deref().map(|url| ("The base URL", url));
            let href = format!("/console/sources/{}/edit", source.id);
            advice.extend(rules::plain_http(On::Source(source.id.clone(), source.name.clone()), base, href));
        }
        for sources in by.values() {
            let allowed: Vec<_> = sources.iter().map(|source| source.spec.allow.as_slice()).collect();
            let found = match &sources[0].behind {
                Behind::Connection(id) => self.behind.get(id).and_then(|connection| {
                    let kind = kinds.get(&connection.integration)?;
                    rules::scope_read_only_source(kind, on(connection), &granted(connection, kind), &allowed)
                }),
                Behind::EachCallers(id) => kinds.get(id).and_then(|kind| {
                    let asked: Vec<_> = kind.asked().cloned().collect();
                    let on = On::Integration(kind.integration.id.clone(), kind.integration.name.clone());
                    rules::scope_read_only_source(kind, on, &asked, &allowed)
                }),
            };
            advice.extend(found);
        }
    }
}

fn behind_id(behind: &Behind) -> &str {
    match behind {
        Behind::Connection(id) => id.as_str(),
        Behind::EachCallers(id) => id.as_str(),
    }
}

fn on(connection: &Connection) -> On {
    On::Connection(connection.id.clone(), connection.name.clone())
}

/// What the provider said was granted; where it named none, what was asked for (RFC 6749 §5.1).
fn granted(connection: &Connection, kind: &Kind<'_>) -> Vec<String> {
    connection.scope.as_deref().map_or_else(|| kind.asked().cloned().collect(), parts)
}

fn kind<'a>(integration: &'a Integration, definition: &'a Definition) -> Option<Kind<'a>> {
    let method = definition.method(Some(&integration.method)).ok()?;
    Some(Kind {
        integration,
        provider: &definition.id,
        grant: method.grant,
        client_auth: method.client_auth(),
        pkce: method.pkce(),
        always: &method.scopes.always,
        default: &method.scopes.default,
        known: &method.scopes.known,
    })
}

/// The first [`MOST`] of a list that is read page by page.
fn pages<T>(read: impl Fn(&str) -> StoreResult<Vec<T>>, id: impl Fn(&T) -> &str) -> StoreResult<Vec<T>> {
    let mut all: Vec<T> = Vec::new();
    loop {
        let after = all.last().map(&id).unwrap_or_default().to_owned();
        let page = read(&after)?;
        let is_last = page.len() < usize::try_from(PAGE).unwrap_or(0);
        all.extend(page);
        if is_last || all.len() >= MOST {
            return Ok(all);
        }
    }
}

fn read_dismissed(tx: &Tx<'_>, name: &str) -> StoreResult<BTreeMap<String, i64>> {
    Ok(tx.meta(name)?.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

fn read_offset(tx: &Tx<'_>, name: &str) -> StoreResult<i64> {
    Ok(tx.meta(name)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn key(rule: &str, on: &str) -> String {
    format!("{rule} {on}")
}

/// Named facts belong to the installation; these to a tenant.
fn of_tenant(name: &str, tenant: &Tenant) -> String {
    format!("{name} {}", tenant.as_str())
}
