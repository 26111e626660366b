//! Connections: their rows, the claim and the commits of renewal.

use super::{Change, Row, StoreError, StoreResult, Tx, Val, from_json, sql, to_json};
use crate::model::{
    Attempt, AttemptId, Connection, ConnectionId, ConnectionState, Failure, Failures, IntegrationId, Status, Tenant,
};

macro_rules! columns {
    () => {
        "id, tenant, name, integration, owner, username, tags, variables, secrets, state, failure, token_set, generation, token_expires_at, scope, account, \
         due_at, attempt, attempt_owner, attempt_deadline, failures_setup, failures_grant, failures_transient, retry_at, connected_at, renewed_at, created_at, updated_at, lost_at, dies_at"
    };
}

sql! {
    ADD = "INSERT INTO connections (id, tenant, name, integration, owner, username, tags, variables, secrets, state, generation, \
        failures_setup, failures_grant, failures_transient, created_at, updated_at) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'draft', 0, 0, 0, 0, ?10, ?10)";
    BY_NAME = concat!("SELECT ", columns!(), " FROM connections WHERE tenant = ?1 AND (id = ?2 OR name = ?2)");
    BY_ID = concat!("SELECT ", columns!(), " FROM connections WHERE id = ?1");
    LIST = concat!("SELECT ", columns!(), " FROM connections WHERE tenant = ?1 AND id > ?2 \
        AND (cast(?3 AS text) IS NULL OR integration = ?3) AND (cast(?4 AS text) IS NULL OR state = ?4) AND (cast(?5 AS text) IS NULL OR owner = ?5) \
        AND (cast(?7 AS text) IS NULL OR integration IN (SELECT i.id FROM integrations i WHERE i.tenant = ?1 AND i.provider = ?7)) \
        AND (cast(?8 AS text) IS NULL OR tags LIKE ?8 ESCAPE '!') \
        AND (cast(?9 AS text) IS NULL OR lower(name) LIKE ?9 ESCAPE '!' OR lower(owner) LIKE ?9 ESCAPE '!' OR lower(account) LIKE ?9 ESCAPE '!' OR id LIKE ?9 ESCAPE '!') \
        ORDER BY id LIMIT ?6");
    IDS_OF_INTEGRATION = "SELECT id FROM connections WHERE integration = ?1";
    // A claim that ends later than any claim may was written before the clock was set back.
    DUE = "SELECT id, endpoint, generation FROM connections WHERE due_at <= ?1 AND (attempt IS NULL OR attempt_deadline NOT BETWEEN ?1 AND ?1 + 120000) ORDER BY due_at LIMIT ?2";
    DUE_AT = "SELECT id, endpoint, generation FROM connections WHERE endpoint = ?3 AND due_at <= ?1 AND (attempt IS NULL OR attempt_deadline NOT BETWEEN ?1 AND ?1 + 120000) \
        ORDER BY due_at LIMIT ?2";
    NEXT_DUE = "SELECT min(due_at) FROM connections WHERE due_at > ?1";
    NEXT_CLAIM_END = "SELECT min(attempt_deadline) FROM connections WHERE attempt_deadline > ?1";
    CLAIMED = "SELECT id, attempt FROM connections WHERE attempt_deadline IS NOT NULL";
    // From endpoint to endpoint by the index, whatever the number of rows between them.
    DUE_ENDPOINTS = "WITH RECURSIVE e (endpoint, n) AS (SELECT cast(?1 AS text), cast(1 AS bigint) UNION ALL \
        SELECT (SELECT min(c.endpoint) FROM connections c WHERE c.endpoint > e.endpoint AND c.due_at IS NOT NULL), e.n + 1 FROM e \
        WHERE e.endpoint IS NOT NULL AND e.n < ?2) \
        SELECT e.endpoint, (SELECT min(c.due_at) FROM connections c WHERE c.endpoint = e.endpoint AND c.due_at IS NOT NULL) FROM e WHERE e.endpoint IS NOT NULL";
    POSTPONE = "UPDATE connections SET due_at = ?3 WHERE id = ?1 AND generation = ?2 AND due_at <= ?4";
    CLAIM = "UPDATE connections SET attempt = ?3, attempt_owner = ?4, attempt_deadline = ?5, lost_at = ?7 \
        WHERE id = ?1 AND generation = ?2 AND attempt IS NOT DISTINCT FROM ?6 AND lost_at IS NOT DISTINCT FROM ?8 \
        AND failures_setup + failures_grant + failures_transient = ?9 AND state <> 'revoked'";
    COMMIT = "UPDATE connections SET previous_token_set = token_set, token_set = ?3, generation = generation + 1, \
        token_expires_at = ?4, scope = ?5, account = coalesce(?6, account), due_at = ?7, endpoint = ?9, dies_at = ?10, lost_at = NULL, warned_at = CASE WHEN dies_at = ?10 THEN warned_at END, state = 'connected', failure = NULL, \
        attempt = NULL, attempt_owner = NULL, attempt_deadline = NULL, failures_setup = 0, failures_grant = 0, failures_transient = 0, retry_at = NULL, \
        connected_at = coalesce(connected_at, ?8), renewed_at = ?11, updated_at = ?8 \
        WHERE id = ?1 AND generation = ?2 AND state <> 'revoked'";
    COMMIT_EXPIRY = "UPDATE connections SET token_set = ?3, token_expires_at = ?4, due_at = ?5, dies_at = ?6 \
        WHERE id = ?1 AND generation = ?2 AND token_expires_at IS NULL AND token_set IS NOT NULL";
    PUT_LEARNT = "UPDATE connections SET variables = ?4 WHERE id = ?1 AND generation = ?2 AND variables = ?3";
    // A new grant: its life begins.
    ADOPT = "UPDATE connections SET previous_token_set = token_set, token_set = ?3, generation = generation + 1, \
        token_expires_at = ?4, scope = ?5, account = ?6, due_at = ?7, endpoint = ?11, dies_at = ?12, lost_at = NULL, warned_at = NULL, state = 'connected', failure = NULL, secrets = ?9, variables = ?10, \
        attempt = NULL, attempt_owner = NULL, attempt_deadline = NULL, failures_setup = 0, failures_grant = 0, failures_transient = 0, retry_at = NULL, \
        connected_at = ?8, renewed_at = ?8, updated_at = ?8 WHERE id = ?1 AND generation = ?2 AND state <> 'revoked'";
    FAIL = "UPDATE connections SET state = ?4, failure = ?5, failures_setup = ?6, failures_grant = ?7, failures_transient = ?8, retry_at = ?9, due_at = ?10, lost_at = ?12, \
        attempt = CASE WHEN ?13 = 1 THEN attempt END, attempt_owner = CASE WHEN ?13 = 1 THEN attempt_owner END, \
        attempt_deadline = CASE WHEN ?13 = 1 THEN attempt_deadline END, updated_at = ?11 \
        WHERE id = ?1 AND generation = ?2 AND attempt IS NOT DISTINCT FROM ?3 AND state <> 'revoked'";
    RELEASE = "UPDATE connections SET attempt = NULL, attempt_owner = NULL, attempt_deadline = NULL WHERE id = ?1 AND attempt = ?2";
    BEGIN_CONSENT = "UPDATE connections SET state = 'pending', failure = NULL, updated_at = ?2 WHERE id = ?1 AND state = 'draft'";
    END_CONSENT = "UPDATE connections SET state = 'draft', failure = ?2, updated_at = ?3 WHERE id = ?1 AND state = 'pending'";
    REVOKE = "UPDATE connections SET state = 'revoked', failure = NULL, token_set = NULL, previous_token_set = NULL, secrets = NULL, generation = generation + 1, \
        token_expires_at = NULL, due_at = NULL, lost_at = NULL, dies_at = NULL, warned_at = NULL, retry_at = NULL, attempt = NULL, attempt_owner = NULL, attempt_deadline = NULL, updated_at = ?2 WHERE id = ?1";
    REVIVE = "UPDATE connections SET state = 'draft', updated_at = ?2 WHERE id = ?1 AND state = 'revoked'";
    PUT_SECRETS = "UPDATE connections SET secrets = ?2, username = coalesce(?3, username), variables = ?4, retry_at = NULL, updated_at = ?5 WHERE id = ?1";
    TRY_AGAIN = "UPDATE connections SET state = 'failing', due_at = ?2 WHERE id = ?1 AND state IN ('reconnect', 'failing')";
    // Said once; a renewal that moves the end says it is not so near.
    WARN = "UPDATE connections SET warned_at = ?1 WHERE id IN (SELECT id FROM connections WHERE dies_at > ?2 AND dies_at <= ?3 AND renewed_at < dies_at - ?4 \
        AND (warned_at IS NULL OR warned_at < dies_at - ?4) AND state IN ('connected', 'failing') ORDER BY dies_at LIMIT ?5) \
        AND (warned_at IS NULL OR warned_at < dies_at - ?4) RETURNING id, tenant, name, dies_at";
    ENDING = "SELECT id, tenant, name, dies_at FROM connections WHERE tenant = ?1 AND dies_at > ?2 AND dies_at <= ?3 AND warned_at IS NOT NULL \
        AND state IN ('connected', 'failing') ORDER BY dies_at LIMIT ?4";
    REMOVE = "DELETE FROM connections WHERE id = ?1";
    REMOVE_EVENTS = "DELETE FROM events WHERE connection = ?1";
    REMOVE_SESSIONS = "DELETE FROM connect_sessions WHERE connection = ?1";
    REMOVE_CONSENTS = "DELETE FROM consents WHERE connection = ?1";
    OF_OWNER = "SELECT id, state FROM connections WHERE tenant = ?1 AND integration = ?2 AND owner = ?3 ORDER BY id LIMIT 50";
    // Whether there is one or more is all that matters.
    ANY_IN_USE = "SELECT id, state FROM connections WHERE tenant = ?1 AND integration = ?2 AND state IN ('connected', 'failing', 'reconnect') LIMIT 2";
    ANY = "SELECT id, state FROM connections WHERE tenant = ?1 AND integration = ?2 LIMIT 2";
    COUNTS = "SELECT (SELECT count(*) FROM integrations WHERE tenant = ?1), (SELECT count(*) FROM data_sources WHERE tenant = ?1), \
        (SELECT count(*) FROM api_keys WHERE tenant = ?1 AND revoked_at IS NULL)";
    TALLIES = "SELECT (SELECT count(*) FROM (SELECT 1 FROM connections WHERE tenant = ?1 LIMIT 1000) a), \
        (SELECT count(*) FROM (SELECT 1 FROM integrations WHERE tenant = ?1 LIMIT 1000) b), \
        (SELECT count(*) FROM (SELECT 1 FROM data_sources WHERE tenant = ?1 LIMIT 1000) c), \
        (SELECT count(*) FROM (SELECT 1 FROM api_keys WHERE tenant = ?1 AND revoked_at IS NULL LIMIT 1000) d)";
    COUNT_BY_STATE = "SELECT state, count(*) FROM connections WHERE tenant = ?1 GROUP BY state";
}

/// What a list of connections is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Under this integration.
    pub integration: Option<IntegrationId>,
    /// In this state.
    pub state: Option<Status>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Under an integration of this provider, by its id.
    pub provider: Option<String>,
    /// With this tag, of this value where one is given.
    pub tag: Option<(String, Option<String>)>,
    /// With this text in name, owner, account or id.
    pub search: Option<String>,
}

impl Filter {
    /// Patterns for what is searched: each sign stands for itself.
    fn patterns(&self) -> (Option<String>, Option<String>) {
        let plain = |text: &str| {
            text.chars()
                .flat_map(|c| matches!(c, '%' | '_' | '!').then_some('!').into_iter().chain([c]))
                .collect::<String>()
        };
        // Tags are stored as a JSON object of texts.
        let tag = self.tag.as_ref().map(|(name, value)| {
            let pair = value
                .as_ref()
                .map_or_else(|| format!("{}:", to_json(name)), |value| format!("{}:{}", to_json(name), to_json(value)));
            format!("%{}%", plain(&pair))
        });
        (tag, self.search.as_ref().map(|text| format!("%{}%", plain(&text.to_lowercase()))))
    }
}

/// A connection whose time has come.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its id.
    pub id: ConnectionId,
    /// The token endpoint that renews it; empty where none has yet.
    pub endpoint: String,
    /// Of the token set it has.
    pub generation: i64,
}

/// A connection that may be a caller's own.
#[derive(Clone, Debug)]
pub struct OwnConnection {
    /// Its id.
    pub id: ConnectionId,
    /// Its state.
    pub status: Status,
}

/// A connection whose end is near.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Its id.
    pub id: ConnectionId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Its name.
    pub name: String,
    /// When only a person can bring it back, Unix milliseconds.
    pub dies_at: i64,
}

/// A new token set on its way into the row, sealed under the next generation.
#[derive(Clone)]
pub struct CommitTokens {
    /// Sealed under `generation + 1`.
    pub sealed: Vec<u8>,
    /// Access token's expiry, Unix milliseconds.
    pub expires_at: Option<i64>,
    /// Granted scope.
    pub scope: Option<String>,
    /// The account, where this reply named it.
    pub account: Option<String>,
    /// When the scheduler shall renew it.
    pub due_at: Option<i64>,
    /// When the refresh token dies, as far as is known, Unix milliseconds.
    pub dies_at: Option<i64>,
    /// Which token endpoint renews it.
    pub endpoint: String,
    /// When the main token came, Unix milliseconds.
    pub renewed_at: i64,
    /// Now, Unix milliseconds.
    pub now: i64,
}

/// What was learnt of a token set that is in the row already.
#[derive(Clone, Debug)]
pub struct CommitExpiry {
    /// The token set with it, sealed under the row's generation.
    pub sealed: Vec<u8>,
    /// Access token's expiry, Unix milliseconds.
    pub expires_at: i64,
    /// When the scheduler shall renew it.
    pub due_at: Option<i64>,
    /// When the refresh token dies, as far as is known, Unix milliseconds.
    pub dies_at: Option<i64>,
}

/// A failed attempt on its way into the row.
#[derive(Clone, Debug)]
pub struct RecordFailure {
    /// `Failing`, `Reconnect` or (where nothing was ever granted) `Draft`.
    pub state: ConnectionState,
    /// Counters after it.
    pub failures: Failures,
    /// No attempt before this.
    pub retry_at: Option<i64>,
    /// When the scheduler looks again.
    pub due_at: Option<i64>,
    /// When a request with this refresh token was first sent whose outcome nobody knows, Unix milliseconds.
    pub lost_at: Option<i64>,
    /// The claim stays and runs out by itself: what was sent may still be under way.
    pub keeps_claim: bool,
    /// Now, Unix milliseconds.
    pub now: i64,
}

impl Tx<'_> {
    /// Adds a draft connection.
    pub fn add_connection(&self, it: &Connection) -> StoreResult<()> {
        let (tags, variables) = (to_json(&it.tags), to_json(&it.variables));
        let values = [
            Val::T(it.id.as_str()),
            Val::T(it.tenant.as_str()),
            Val::T(&it.name),
            Val::T(it.integration.as_str()),
            Val::opt_t(it.owner.as_deref()),
            Val::opt_t(it.username.as_deref()),
            Val::T(&tags),
            Val::T(&variables),
            Val::opt_b(it.secrets.as_deref()),
            Val::I(it.created_at),
        ];
        self.execute(&ADD, &values)?;
        // It may be the one that a caller of a data source means, or make that doubtful.
        self.announce(&Change::Connection(it.id.clone()))
    }

    /// The connection of this id or name.
    pub fn connection(&self, tenant: &Tenant, id_or_name: &str) -> StoreResult<Option<Connection>> {
        self.row(&BY_NAME, &[Val::T(tenant.as_str()), Val::T(id_or_name)], read_connection)
    }

    /// The connection of this id, whoever asks: for renewal and the callback.
    pub fn connection_by_id(&self, id: &ConnectionId) -> StoreResult<Option<Connection>> {
        self.row(&BY_ID, &[Val::T(id.as_str())], read_connection)
    }

    /// Connections after `after`.
    pub fn connections(
        &self,
        tenant: &Tenant,
        filter: &Filter,
        after: &str,
        limit: i64,
    ) -> StoreResult<Vec<Connection>> {
        let (tag, search) = filter.patterns();
        let values = [
            Val::T(tenant.as_str()),
            Val::T(after),
            Val::opt_t(filter.integration.as_ref().map(IntegrationId::as_str)),
            Val::opt_t(filter.state.map(Status::as_str)),
            Val::opt_t(filter.owner.as_deref()),
            Val::I(limit),
            Val::opt_t(filter.provider.as_deref()),
            Val::opt_t(tag.as_deref()),
            Val::opt_t(search.as_deref()),
        ];
        self.rows(&LIST, &values, read_connection)
    }

    /// Ids of an integration's connections.
    pub fn connections_of(&self, integration: &IntegrationId) -> StoreResult<Vec<ConnectionId>> {
        self.rows(&IDS_OF_INTEGRATION, &[Val::T(integration.as_str())], |row| read_id(row, 0))
    }

    /// The connections of this owner under an integration; without an owner, two of all that are there, those in use first.
    pub fn own_connections(
        &self,
        tenant: &Tenant,
        integration: &IntegrationId,
        owner: Option<&str>,
    ) -> StoreResult<Vec<OwnConnection>> {
        let of = [Val::T(tenant.as_str()), Val::T(integration.as_str())];
        let read = |row: &Row<'_>| {
            let unreadable = StoreError::Unreadable { table: "connections", column: "state" };
            Ok(OwnConnection { id: read_id(row, 0)?, status: Status::from_stored(&row.t(1)?).ok_or(unreadable)? })
        };
        match owner {
            Some(owner) => {
                self.rows(&OF_OWNER, &[Val::T(tenant.as_str()), Val::T(integration.as_str()), Val::T(owner)], read)
            }
            None => {
                let in_use = self.rows(&ANY_IN_USE, &of, read)?;
                if in_use.is_empty() { self.rows(&ANY, &of, read) } else { Ok(in_use) }
            }
        }
    }

    /// How many integrations, data sources and live API keys there are.
    pub fn counts(&self, tenant: &Tenant) -> StoreResult<(i64, i64, i64)> {
        let counted = self.row(&COUNTS, &[Val::T(tenant.as_str())], |row| Ok((row.i(0)?, row.i(1)?, row.i(2)?)))?;
        Ok(counted.unwrap_or_default())
    }

    /// Connections, integrations, data sources, live keys, each counted to 1,000 at most: what stands on every page must cost nothing.
    pub fn tallies(&self, tenant: &Tenant) -> StoreResult<[i64; 4]> {
        let counted =
            self.row(&TALLIES, &[Val::T(tenant.as_str())], |row| Ok([row.i(0)?, row.i(1)?, row.i(2)?, row.i(3)?]))?;
        Ok(counted.unwrap_or_default())
    }

    /// How many connections are in which state.
    pub fn count_by_state(&self, tenant: &Tenant) -> StoreResult<Vec<(String, i64)>> {
        self.rows(&COUNT_BY_STATE, &[Val::T(tenant.as_str())], |row| Ok((row.t(0)?, row.i(1)?)))
    }

    /// Connections that are due, soonest first, without those on which a claim stands.
    pub fn due(&self, now: i64, limit: i64) -> StoreResult<Vec<Due>> {
        self.rows(&DUE, &[Val::I(now), Val::I(limit)], read_due)
    }

    /// As [`Self::due`], those of one token endpoint.
    pub fn due_at(&self, endpoint: &str, now: i64, limit: i64) -> StoreResult<Vec<Due>> {
        self.rows(&DUE_AT, &[Val::I(now), Val::I(limit), Val::T(endpoint)], read_due)
    }

    /// When the next one is due after `now`, or the claim on one ends, Unix milliseconds.
    pub fn next_due(&self, now: i64) -> StoreResult<Option<i64>> {
        let first = |sql| self.row(sql, &[Val::I(now)], |row| row.opt_i(0)).map(Option::flatten);
        let (due, claim_end) = (first(&NEXT_DUE)?, first(&NEXT_CLAIM_END)?);
        Ok(due.into_iter().chain(claim_end).min())
    }

    /// The connections on which a claim is held, with it.
    pub fn claimed(&self) -> StoreResult<Vec<(ConnectionId, AttemptId)>> {
        self.rows(&CLAIMED, &[], |row| Ok((read_id(row, 0)?, row.t(1)?.parse().map_err(|_| unreadable("attempt"))?)))
    }

    /// Up to `limit` token endpoints in order, `from` the first, each with the time at which its first connection is due.
    pub fn due_endpoints(&self, from: &str, limit: i64) -> StoreResult<Vec<(String, Option<i64>)>> {
        self.rows(&DUE_ENDPOINTS, &[Val::T(from), Val::I(limit)], |row| Ok((row.t(0)?, row.opt_i(1)?)))
    }

    /// Moves the due time of a connection that is still due at `now`; a renewal in between has set a better one.
    pub fn postpone(&self, id: &ConnectionId, generation: i64, due_at: i64, now: i64) -> StoreResult<()> {
        let values = [Val::T(id.as_str()), Val::I(generation), Val::I(due_at), Val::I(now)];
        self.execute(&POSTPONE, &values).map(drop)
    }

    /// Marks up to `limit` connections that end after `after`, at `until` at the latest, as warned of, and answers them; not those whose last renewal was within `ahead` of their
    /// end, whose life is that short, nor those warned of within it.
    pub fn warn_of_end(&self, after: i64, until: i64, ahead: i64, limit: i64, now: i64) -> StoreResult<Vec<Ending>> {
        let values = [Val::I(now), Val::I(after), Val::I(until), Val::I(ahead), Val::I(limit)];
        self.rows(&WARN, &values, read_ending)
    }

    /// A tenant's connections that were warned of and end after `after`, at `until` at the latest, soonest first.
    pub fn ending(&self, tenant: &Tenant, after: i64, until: i64, limit: i64) -> StoreResult<Vec<Ending>> {
        let values = [Val::T(tenant.as_str()), Val::I(after), Val::I(until), Val::I(limit)];
        self.rows(&ENDING, &values, read_ending)
    }

    /// Step 1 of renewal: takes the right to send with what `seen` holds, in the place of its claim, if that is over. `false`: the row is no longer as it was
    /// seen, be it that somebody was quicker, or that what is known of its refresh token has changed.
    pub fn claim(&self, seen: &Connection, attempt: &Attempt, lost_at: Option<i64>) -> StoreResult<bool> {
        let values = [
            Val::T(seen.id.as_str()),
            Val::I(seen.generation),
            Val::T(attempt.id.as_str()),
            Val::T(&attempt.owner),
            Val::I(attempt.deadline),
            Val::opt_t(seen.attempt.as_ref().map(|attempt| attempt.id.as_str())),
            Val::opt_i(lost_at),
            Val::opt_i(seen.lost_at),
            Val::I(seen.failures.all()),
        ];
        Ok(self.execute(&CLAIM, &values)? == 1)
    }

    /// Step 4 of renewal: the new token set, if `generation` still stands.
    ///
    /// The claim need not: it may have run out while the store was away. The reply in hand holds the newest refresh token there is, so whoever
    /// claimed since sent a spent one, and must not make this one be thrown away.
    pub fn commit_tokens(&self, id: &ConnectionId, generation: i64, tokens: &CommitTokens) -> StoreResult<bool> {
        let values = [
            Val::T(id.as_str()),
            Val::I(generation),
            Val::B(&tokens.sealed),
            Val::opt_i(tokens.expires_at),
            Val::opt_t(tokens.scope.as_deref()),
            Val::opt_t(tokens.account.as_deref()),
            Val::opt_i(tokens.due_at),
            Val::I(tokens.now),
            Val::T(&tokens.endpoint),
            Val::opt_i(tokens.dies_at),
            Val::I(tokens.renewed_at),
        ];
        let committed = self.execute(&COMMIT, &values)? == 1;
        if committed {
            self.announce(&Change::Tokens(id.clone(), generation + 1))?;
        }
        Ok(committed)
    }

    /// When a token set ends that was committed under this generation without saying so.
    pub fn commit_expiry(&self, id: &ConnectionId, generation: i64, known: &CommitExpiry) -> StoreResult<bool> {
        let values = [
            Val::T(id.as_str()),
            Val::I(generation),
            Val::B(&known.sealed),
            Val::I(known.expires_at),
            Val::opt_i(known.due_at),
            Val::opt_i(known.dies_at),
        ];
        Ok(self.execute(&COMMIT_EXPIRY, &values)? == 1)
    }

    /// What the provider told with the token set of this generation, in place of the variables `before`.
    pub fn put_learnt(
        &self,
        id: &ConnectionId,
        generation: i64,
        before: &crate::model::Values,
        variables: &crate::model::Values,
    ) -> StoreResult<bool> {
        let (before, variables) = (to_json(before), to_json(variables));
        let values = [Val::T(id.as_str()), Val::I(generation), Val::T(&before), Val::T(&variables)];
        let put = self.execute(&PUT_LEARNT, &values)? == 1;
        if put {
            self.announce(&Change::Connection(id.clone()))?;
        }
        Ok(put)
    }

    /// A confirmed consent's token set: a new grant wins over whatever renewal of the old one is in flight.
    pub fn adopt_tokens(
        &self,
        id: &ConnectionId,
        generation: i64,
        tokens: &CommitTokens,
        secrets: Option<&[u8]>,
        variables: &crate::model::Values,
    ) -> StoreResult<bool> {
        let variables = to_json(variables);
        let values = [
            Val::T(id.as_str()),
            Val::I(generation),
            Val::B(&tokens.sealed),
            Val::opt_i(tokens.expires_at),
            Val::opt_t(tokens.scope.as_deref()),
            Val::opt_t(tokens.account.as_deref()),
            Val::opt_i(tokens.due_at),
            Val::I(tokens.now),
            Val::opt_b(secrets),
            Val::T(&variables),
            Val::T(&tokens.endpoint),
            Val::opt_i(tokens.dies_at),
        ];
        let adopted = self.execute(&ADOPT, &values)? == 1;
        if adopted {
            self.announce(&Change::Tokens(id.clone(), generation + 1))?;
        }
        Ok(adopted)
    }

    /// Records a failed attempt and gives the claim back.
    pub fn record_failure(
        &self,
        id: &ConnectionId,
        generation: i64,
        attempt: Option<&AttemptId>,
        failed: &RecordFailure,
    ) -> StoreResult<bool> {
        let failure = failed.state.failure().map(to_json);
        let values = [
            Val::T(id.as_str()),
            Val::I(generation),
            Val::opt_t(attempt.map(AttemptId::as_str)),
            Val::T(failed.state.status().as_str()),
            Val::opt_t(failure.as_deref()),
            Val::I(failed.failures.setup),
            Val::I(failed.failures.grant),
            Val::I(failed.failures.transient),
            Val::opt_i(failed.retry_at),
            Val::opt_i(failed.due_at),
            Val::I(failed.now),
            Val::opt_i(failed.lost_at),
            Val::I(i64::from(failed.keeps_claim)),
        ];
        Ok(self.execute(&FAIL, &values)? == 1)
    }

    /// Gives a claim back when nothing was sent.
    pub fn release(&self, id: &ConnectionId, attempt: &AttemptId) -> StoreResult<()> {
        self.execute(&RELEASE, &[Val::T(id.as_str()), Val::T(attempt.as_str())]).map(drop)
    }

    /// A draft becomes pending; other states keep what they are while a person consents again.
    pub fn begin_consent(&self, id: &ConnectionId, now: i64) -> StoreResult<()> {
        self.execute(&BEGIN_CONSENT, &[Val::T(id.as_str()), Val::I(now)]).map(drop)
    }

    /// A consent came to nothing: a pending connection is a draft again, with the reason.
    pub fn end_consent(&self, id: &ConnectionId, why: Option<&Failure>, now: i64) -> StoreResult<()> {
        let why = why.map(to_json);
        let values = [Val::T(id.as_str()), Val::opt_t(why.as_deref()), Val::I(now)];
        self.execute(&END_CONSENT, &values).map(drop)
    }

    /// Ends a connection on purpose and forgets its tokens and secrets.
    pub fn revoke_connection(&self, id: &ConnectionId, now: i64) -> StoreResult<()> {
        // They would bring it back to life.
        self.forget_invitations(id)?;
        self.announce(&Change::Connection(id.clone()))?;
        self.execute(&REVOKE, &[Val::T(id.as_str()), Val::I(now)]).map(drop)
    }

    /// Forgets the links, consents and device codes that could authorise a connection; `false` when there were none.
    pub fn forget_invitations(&self, id: &ConnectionId) -> StoreResult<bool> {
        let mut any = self.forget_device_grant(id)?;
        for sql in [&REMOVE_SESSIONS, &REMOVE_CONSENTS] {
            any |= self.execute(sql, &[Val::T(id.as_str())])? > 0;
        }
        Ok(any)
    }

    /// A revoked connection may be authorised anew.
    pub fn revive_connection(&self, id: &ConnectionId, now: i64) -> StoreResult<()> {
        self.execute(&REVIVE, &[Val::T(id.as_str()), Val::I(now)]).map(drop)
    }

    /// Replaces what a connection was told: user name, password, variables.
    pub fn put_connection_input(
        &self,
        id: &ConnectionId,
        username: Option<&str>,
        variables: &crate::model::Values,
        secrets: Option<&[u8]>,
        now: i64,
    ) -> StoreResult<()> {
        let variables = to_json(variables);
        let values = [Val::T(id.as_str()), Val::opt_b(secrets), Val::opt_t(username), Val::T(&variables), Val::I(now)];
        self.announce(&Change::Connection(id.clone()))?;
        self.execute(&PUT_SECRETS, &values).map(drop)
    }

    /// A connection whose grant runs by itself, and didn't, is tried again at once.
    pub fn try_again(&self, id: &ConnectionId, now: i64) -> StoreResult<()> {
        self.execute(&TRY_AGAIN, &[Val::T(id.as_str()), Val::I(now)]).map(drop)
    }

    /// Removes a connection and all that hangs on it; the audit stays.
    pub fn remove_connection(&self, id: &ConnectionId) -> StoreResult<()> {
        self.announce(&Change::Connection(id.clone()))?;
        self.forget_invitations(id)?;
        for sql in [&REMOVE_EVENTS, &REMOVE] {
            self.execute(sql, &[Val::T(id.as_str())])?;
        }
        Ok(())
    }
}

fn read_ending(row: &Row<'_>) -> StoreResult<Ending> {
    Ok(Ending { id: read_id(row, 0)?, tenant: Tenant::from_stored(row.t(1)?), name: row.t(2)?, dies_at: row.i(3)? })
}

fn read_due(row: &Row<'_>) -> StoreResult<Due> {
    Ok(Due { id: read_id(row, 0)?, endpoint: row.t(1)?, generation: row.i(2)? })
}

fn read_id(row: &Row<'_>, column: usize) -> StoreResult<ConnectionId> {
    row.t(column)?.parse().map_err(|_| unreadable("id"))
}

fn unreadable(column: &'static str) -> StoreError {
    StoreError::Unreadable { table: "connections", column }
}

fn read_connection(row: &Row<'_>) -> StoreResult<Connection> {
    let status = Status::from_stored(&row.t(9)?).ok_or(unreadable("state"))?;
    let failure = row.opt_t(10)?.map(|text| from_json("connections", "failure", &text)).transpose()?;
    Ok(Connection {
        id: read_id(row, 0)?,
        tenant: Tenant::from_stored(row.t(1)?),
        name: row.t(2)?,
        integration: row.t(3)?.parse().map_err(|_| unreadable("integration"))?,
        owner: row.opt_t(4)?,
        username: row.opt_t(5)?,
        tags: from_json("connections", "tags", &row.t(6)?)?,
        variables: from_json("connections", "variables", &row.t(7)?)?,
        secrets: row.opt_b(8)?,
        state: ConnectionState::from_stored(status, failure),
        token_set: row.opt_b(11)?,
        generation: row.i(12)?,
        token_expires_at: row.opt_i(13)?,
        scope: row.opt_t(14)?,
        account: row.opt_t(15)?,
        due_at: row.opt_i(16)?,
        attempt: read_attempt(row)?,
        failures: Failures { setup: row.i(20)?, grant: row.i(21)?, transient: row.i(22)? },
        retry_at: row.opt_i(23)?,
        connected_at: row.opt_i(24)?,
        renewed_at: row.opt_i(25)?,
        created_at: row.i(26)?,
        updated_at: row.i(27)?,
        lost_at: row.opt_i(28)?,
        dies_at: row.opt_i(29)?,
    })
}

fn read_attempt(row: &Row<'_>) -> StoreResult<Option<Attempt>> {
    let Some(id) = row.opt_t(17)? else {
        return Ok(None);
    };
    Ok(Some(Attempt { id: id.parse().map_err(|_| unreadable("attempt"))?, owner: row.t(18)?, deadline: row.i(19)? }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Location, Sql, Store};
    use super::*;
    use crate::clock::Clock;
    use crate::points::Points;

    /// What the scheduler asks every time must not grow with what is stored.
    #[tokio::test]
    async fn what_is_due_is_found_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("k.db"));
        let store = Store::open(&location, Clock::System, Points::default()).unwrap();
        for (name, sql, values) in [
            ("DUE", &DUE, vec![Val::I(1), Val::I(1)]),
            ("DUE_AT", &DUE_AT, vec![Val::I(1), Val::I(1), Val::T("")]),
            ("NEXT_DUE", &NEXT_DUE, vec![Val::I(1)]),
            ("NEXT_CLAIM_END", &NEXT_CLAIM_END, vec![Val::I(1)]),
            ("CLAIMED", &CLAIMED, vec![]),
            ("DUE_ENDPOINTS", &DUE_ENDPOINTS, vec![Val::T(""), Val::I(1)]),
        ] {
            let explain = Sql(Box::leak(format!("EXPLAIN QUERY PLAN {}", sql.0).into_boxed_str()));
            let plan = store.read(move |tx| tx.rows(&explain, &values, |row| row.t(3))).await.unwrap();
            let of_the_table: Vec<_> =
                plan.iter().filter(|line| line.contains(" connections") || line.contains(" c ")).collect();
            assert!(!of_the_table.is_empty(), "{name}: {plan:?}");
            assert!(of_the_table.iter().all(|line| line.starts_with("SEARCH")), "{name}: {plan:?}");
            assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{name}: {plan:?}");
        }
    }
}
