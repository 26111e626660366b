//! What advice is judged by: groups and sums over connections and usage, each bounded.

use super::{Row, StoreError, StoreResult, Tx, Val, from_json, sql};
use crate::model::{ConnectionId, IntegrationId, Tenant, Values};

/// Connections under one integration that have something in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alike {
    /// Under which integration.
    pub integration: IntegrationId,
    /// What they have in common: a scope as granted, an account.
    pub what: String,
    /// The first of them.
    pub first: ConnectionId,
    /// How many.
    pub count: i64,
    /// How many owners they have.
    pub owners: i64,
}

/// Tokens under one integration that live longer than they should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongLived {
    /// Under which integration.
    pub integration: IntegrationId,
    /// How many connections hold one.
    pub count: i64,
    /// The longest life, milliseconds; 0 where none is known.
    pub longest: i64,
    /// How many have no known end.
    pub endless: i64,
}

/// A connection, with a text of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its id.
    pub id: ConnectionId,
    /// Its name.
    pub name: String,
    /// An account, or JSON of variables.
    pub what: String,
}

/// A key that used a connection which it hadn't used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstUse {
    /// Which connection.
    pub connection: ConnectionId,
    /// Its name.
    pub name: String,
    /// The key's id.
    pub caller: String,
    /// In which hour since 1970.
    pub hour: i64,
}

/// Calls with a connection in an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourOfCalls {
    /// Which connection.
    pub connection: ConnectionId,
    /// Its name.
    pub name: String,
    /// Hour since 1970.
    pub hour: i64,
    /// How many.
    pub calls: i64,
}

// Answers end at 200 rows: advice is a list to read, so what is more waits until the first are mended.
sql! {
    GRANTED = "SELECT integration, scope, min(id), count(*), count(DISTINCT owner) FROM connections \
        WHERE tenant = ?1 AND scope IS NOT NULL AND state IN ('connected', 'failing') GROUP BY integration, scope ORDER BY integration, scope LIMIT 200";
    SHARED = "SELECT integration, lower(coalesce(account, username)), min(id), count(*), count(DISTINCT owner) FROM connections \
        WHERE tenant = ?1 AND coalesce(account, username) IS NOT NULL AND owner IS NOT NULL AND state IN ('connected', 'failing') \
        GROUP BY integration, lower(coalesce(account, username)) HAVING count(DISTINCT owner) >= 2 \
        ORDER BY integration, lower(coalesce(account, username)) LIMIT 200";
    // A first choice: what is a role's name is judged elsewhere.
    OF_ROLES = "SELECT id, name, coalesce(account, username) FROM connections WHERE tenant = ?1 AND state IN ('connected', 'failing') AND ( \
        lower(coalesce(account, username)) LIKE 'admin%' OR lower(coalesce(account, username)) LIKE 'info%' OR lower(coalesce(account, username)) LIKE 'no%reply%' \
        OR lower(coalesce(account, username)) LIKE 'team%' OR lower(coalesce(account, username)) LIKE 'service%' OR lower(coalesce(account, username)) LIKE 'support%' \
        OR lower(coalesce(account, username)) LIKE 'office%' OR lower(coalesce(account, username)) LIKE 'root%' OR lower(coalesce(account, username)) LIKE 'shared%' \
        OR lower(coalesce(account, username)) LIKE 'sales%' OR lower(coalesce(account, username)) LIKE 'contact%') ORDER BY id LIMIT 200";
    LONG_LIVED = "SELECT integration, count(*), CAST(max(coalesce(token_expires_at - renewed_at, 0)) AS BIGINT), \
        CAST(sum(CASE WHEN token_expires_at IS NULL THEN 1 ELSE 0 END) AS BIGINT) FROM connections \
        WHERE tenant = ?1 AND state = 'connected' AND (token_expires_at IS NULL OR token_expires_at - renewed_at > ?2) \
        GROUP BY integration ORDER BY integration LIMIT 200";
    PLAIN_VARIABLES = "SELECT id, name, variables FROM connections WHERE tenant = ?1 AND state <> 'revoked' AND variables LIKE '%\"http://%' ORDER BY id LIMIT 200";
    UNUSED = "SELECT id, name, '' FROM connections WHERE tenant = ?1 AND state IN ('connected', 'failing') AND connected_at < ?2 \
        AND id NOT IN (SELECT connection FROM usage WHERE hour >= ?3 AND tenant = ?1 AND hand_outs + calls > 0) ORDER BY connected_at LIMIT 200";
    NEW_CALLERS = "SELECT c.id, c.name, u.caller, CAST(min(u.hour) AS BIGINT) FROM usage u JOIN connections c ON c.id = u.connection \
        WHERE u.hour >= ?2 AND u.tenant = ?1 AND u.caller <> '' AND u.hand_outs + u.calls > 0 AND c.created_at < ?4 \
        GROUP BY c.id, c.name, u.caller HAVING min(u.hour) >= ?3 ORDER BY min(u.hour) DESC, c.id, u.caller LIMIT 200";
    BUSY = "SELECT c.id, c.name, u.hour, CAST(sum(u.calls) AS BIGINT) FROM usage u JOIN connections c ON c.id = u.connection \
        WHERE u.hour >= ?2 AND u.tenant = ?1 AND u.calls > 0 AND u.connection IN \
        (SELECT connection FROM usage WHERE hour >= ?3 AND tenant = ?1 GROUP BY connection, hour HAVING sum(calls) > ?4 ORDER BY sum(calls) DESC LIMIT 50) \
        GROUP BY c.id, c.name, u.hour ORDER BY c.id, u.hour";
    NIGHTS = "SELECT c.id, c.name, CAST(max(u.hour) AS BIGINT), CAST(sum(CASE WHEN u.hour >= ?3 AND (u.hour + ?5) % 24 < 5 THEN u.calls ELSE 0 END) AS BIGINT) \
        FROM usage u JOIN connections c ON c.id = u.connection WHERE u.hour >= ?2 AND u.tenant = ?1 AND u.calls > 0 GROUP BY c.id, c.name \
        HAVING sum(CASE WHEN u.hour >= ?3 AND (u.hour + ?5) % 24 < 5 THEN 1 ELSE 0 END) > 0 \
        AND sum(CASE WHEN u.hour < ?3 AND (u.hour + ?5) % 24 < 5 THEN 1 ELSE 0 END) = 0 AND min(u.hour) < ?4 ORDER BY c.id LIMIT 200";
}

impl Tx<'_> {
    /// What was granted under each integration, in groups of the same scope.
    pub fn granted_scopes(&self, tenant: &Tenant) -> StoreResult<Vec<Alike>> {
        self.rows(&GRANTED, &[Val::T(tenant.as_str())], read_alike)
    }

    /// Accounts and user names, in lower case, that several owners use under one integration.
    pub fn shared_accounts(&self, tenant: &Tenant) -> StoreResult<Vec<Alike>> {
        self.rows(&SHARED, &[Val::T(tenant.as_str())], read_alike)
    }

    /// Connections whose account may be a role's rather than a person's.
    pub fn accounts_of_roles(&self, tenant: &Tenant) -> StoreResult<Vec<Noted>> {
        self.rows(&OF_ROLES, &[Val::T(tenant.as_str())], read_noted)
    }

    /// Connected ones whose token lives longer than so many milliseconds, or for ever as far as is known.
    pub fn long_lived(&self, tenant: &Tenant, longer: i64) -> StoreResult<Vec<LongLived>> {
        self.rows(&LONG_LIVED, &[Val::T(tenant.as_str()), Val::I(longer)], |row| {
            Ok(LongLived {
                integration: row.t(0)?.parse().map_err(|_| unreadable("integration"))?,
                count: row.i(1)?,
                longest: row.i(2)?,
                endless: row.i(3)?,
            })
        })
    }

    /// Connections with a variable that is an address by plain http.
    pub fn plain_addresses(&self, tenant: &Tenant) -> StoreResult<Vec<(Noted, Values)>> {
        let found = self.rows(&PLAIN_VARIABLES, &[Val::T(tenant.as_str())], read_noted)?;
        found.into_iter().map(|it| from_json("connections", "variables", &it.what).map(|values| (it, values))).collect()
    }

    /// Connections that were connected before `connected`, Unix milliseconds, and that nobody used from the hour `since` on.
    pub fn unused(&self, tenant: &Tenant, connected: i64, since: i64) -> StoreResult<Vec<Noted>> {
        self.rows(&UNUSED, &[Val::T(tenant.as_str()), Val::I(connected), Val::I(since)], read_noted)
    }

    /// Keys whose first use of a connection, among the hours from `since` on, was at `recent` or later; of connections made before `made`.
    pub fn new_callers(&self, tenant: &Tenant, since: i64, recent: i64, made: i64) -> StoreResult<Vec<FirstUse>> {
        let values = [Val::T(tenant.as_str()), Val::I(since), Val::I(recent), Val::I(made)];
        self.rows(&NEW_CALLERS, &values, |row| {
            Ok(FirstUse { connection: read_id(row)?, name: row.t(1)?, caller: row.t(2)?, hour: row.i(3)? })
        })
    }

    /// The hours from `since` on of the connections that had more than `calls` in one from `recent` on: of each connection in order.
    pub fn busy_hours(&self, tenant: &Tenant, since: i64, recent: i64, calls: i64) -> StoreResult<Vec<HourOfCalls>> {
        let values = [Val::T(tenant.as_str()), Val::I(since), Val::I(recent), Val::I(calls)];
        self.rows(&BUSY, &values, read_hour)
    }

    /// Connections, known before the hour `known`, that were called between 0 and 5 from the hour `recent` on and never then from `since` to it; `offset`: hours from UTC.
    pub fn new_nights(
        &self,
        tenant: &Tenant,
        since: i64,
        recent: i64,
        known: i64,
        offset: i64,
    ) -> StoreResult<Vec<HourOfCalls>> {
        let values = [Val::T(tenant.as_str()), Val::I(since), Val::I(recent), Val::I(known), Val::I(offset)];
        self.rows(&NIGHTS, &values, read_hour)
    }
}

fn read_alike(row: &Row<'_>) -> StoreResult<Alike> {
    Ok(Alike {
        integration: row.t(0)?.parse().map_err(|_| unreadable("integration"))?,
        what: row.t(1)?,
        first: row.t(2)?.parse().map_err(|_| unreadable("id"))?,
        count: row.i(3)?,
        owners: row.i(4)?,
    })
}

fn read_noted(row: &Row<'_>) -> StoreResult<Noted> {
    Ok(Noted { id: read_id(row)?, name: row.t(1)?, what: row.t(2)? })
}

fn read_hour(row: &Row<'_>) -> StoreResult<HourOfCalls> {
    Ok(HourOfCalls { connection: read_id(row)?, name: row.t(1)?, hour: row.i(2)?, calls: row.i(3)? })
}

fn read_id(row: &Row<'_>) -> StoreResult<ConnectionId> {
    row.t(0)?.parse().map_err(|_| unreadable("id"))
}

fn unreadable(column: &'static str) -> StoreError {
    StoreError::Unreadable { table: "connections", column }
}
