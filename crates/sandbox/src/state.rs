//! What is true now: clients, grants, codes, tokens, faults, counters. Pure: the time is an argument, the random parts of
//! new tokens are handed in.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::faults::{BadInput, Call, Faults, GRANTS, Kind};
use crate::options::{Client, Rotation};
use crate::reply::Reply;

/// Everything, behind one lock.
#[derive(Default)]
pub(crate) struct State {
    clients: BTreeMap<String, Client>,
    grants: HashMap<u64, Grant>,
    last_grant: u64,
    pub(crate) codes: HashMap<String, Code>,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    in_flight: HashMap<String, u64>,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
}

/// What somebody allowed a client: the family that all its tokens belong to.
#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) client: String,
    /// `None`: the client acts for itself.
    pub(crate) account: Option<String>,
    pub(crate) scope: Vec<String>,
    pub(crate) grant_type: &'static str,
    pub(crate) revoked: bool,
}

/// An authorization code with what it was issued for.
#[derive(Clone)]
pub(crate) struct Code {
    pub(crate) client: String,
    pub(crate) account: String,
    pub(crate) scope: Vec<String>,
    /// As in the authorization request; `None` if it named none.
    pub(crate) redirect_uri: Option<String>,
    pub(crate) challenge: Option<String>,
    pub(crate) expires_at: i64,
    /// The grant it was exchanged for.
    pub(crate) spent_for: Option<u64>,
}

#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) grant: u64,
    pub(crate) scope: Vec<String>,
    pub(crate) issued_at: i64,
    pub(crate) expires_at: i64,
    /// The refresh token that was used to get it.
    from: Option<String>,
}

struct Refresh {
    grant: u64,
    expires_at: Option<i64>,
    replaced_at: Option<i64>,
    /// A token that came from it was used.
    superseded: bool,
    from: Option<String>,
}

impl Refresh {
    /// Whether its use, or reuse, is allowed; see the table at [`State::use_refresh`].
    fn accepted(&self, rotation: Rotation, now: i64) -> bool {
        match (rotation, self.replaced_at) {
            (_, None) | (Rotation::Static, _) => true,
            (Rotation::Window(seconds), Some(at)) => now.saturating_sub(at) <= milliseconds(seconds),
            (Rotation::UntilUsed, _) => !self.superseded,
            (Rotation::Rotate | Rotation::Family, _) => false,
        }
    }
}

/// Why a refresh token was refused; the text is the error's description.
pub(crate) type Refused = &'static str;

/// New tokens to be recorded.
pub(crate) struct Issue {
    pub(crate) grant: u64,
    pub(crate) scope: Vec<String>,
    pub(crate) access: String,
    pub(crate) access_expires_at: i64,
    /// With the time at which it expires.
    pub(crate) refresh: Option<(String, Option<i64>)>,
    pub(crate) from: Option<String>,
    pub(crate) now: i64,
}

/// At each so many access tokens, expired ones are forgotten.
const SWEEP_EVERY: usize = 100_000;

impl State {
    pub(crate) fn add_client(&mut self, client: Client) {
        self.clients.insert(client.id.clone(), client);
    }

    pub(crate) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.get(id)
    }

    pub(crate) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    pub(crate) fn open_grant(&mut self, grant: Grant) -> u64 {
        self.last_grant += 1;
        self.grants.insert(self.last_grant, grant);
        self.last_grant
    }

    pub(crate) fn grant(&self, id: u64) -> Option<&Grant> {
        self.grants.get(&id)
    }

    pub(crate) fn revoke_grant(&mut self, id: u64) {
        if let Some(grant) = self.grants.get_mut(&id) {
            grant.revoked = true;
        }
    }

    pub(crate) fn issue(&mut self, issue: Issue) {
        if let Some((token, expires_at)) = issue.refresh {
            let from = issue.from.clone();
            let refresh = Refresh { grant: issue.grant, expires_at, replaced_at: None, superseded: false, from };
            self.refresh.insert(token, refresh);
        }
        let access = Access {
            grant: issue.grant,
            scope: issue.scope,
            issued_at: issue.now,
            expires_at: issue.access_expires_at,
            from: issue.from,
        };
        self.access.insert(issue.access, access);
        if self.access.len().is_multiple_of(SWEEP_EVERY) {
            self.sweep(issue.now);
        }
    }

    /// Forgets expired access tokens, and the grants that no token is left of.
    fn sweep(&mut self, now: i64) {
        self.access.retain(|_, access| access.expires_at > now);
        let refresh = self.refresh.values().map(|refresh| refresh.grant);
        let used: HashSet<u64> = self.access.values().map(|access| access.grant).chain(refresh).collect();
        self.grants.retain(|id, _| used.contains(id));
    }

    /// Uses a refresh token: returns its grant, or why not.
    ///
    /// | replaced before | static | rotate | window | until_used | family |
    /// | --- | --- | --- | --- | --- | --- |
    /// | no | yes | yes | yes | yes | yes |
    /// | yes | yes | no | within the window | until a replacement was used | no, and the grant is revoked |
    pub(crate) fn use_refresh(
        &mut self,
        token: &str,
        client: &str,
        rotation: Rotation,
        now: i64,
    ) -> Result<u64, Refused> {
        let refresh = self.refresh.get(token).ok_or("unknown refresh token")?;
        let id = refresh.grant;
        let grant = self.grants.get(&id).filter(|grant| grant.client == client).ok_or("unknown refresh token")?;
        if grant.revoked {
            return Err("the grant was revoked");
        }
        if refresh.expires_at.is_some_and(|at| at <= now) {
            return Err("the refresh token has expired");
        }
        if !refresh.accepted(rotation, now) {
            self.counters.reuse_detections += 1;
            if rotation == Rotation::Family {
                self.revoke_grant(id);
                return Err("the refresh token was used before: the grant is revoked");
            }
            return Err("the refresh token was used before");
        }
        self.mark_superseded(refresh.from.clone());
        Ok(id)
    }

    pub(crate) fn replace_refresh(&mut self, token: &str, now: i64) {
        if let Some(refresh) = self.refresh.get_mut(token) {
            refresh.replaced_at.get_or_insert(now);
        }
    }

    /// The grant of a refresh token, whatever became of it.
    pub(crate) fn grant_of_refresh(&self, token: &str) -> Option<u64> {
        self.refresh.get(token).map(|refresh| refresh.grant)
    }

    /// A refresh token that would be accepted: its grant and when it expires.
    pub(crate) fn live_refresh(&self, token: &str, rotation: Rotation, now: i64) -> Option<(&Grant, Option<i64>)> {
        let refresh = self.refresh.get(token)?;
        let grant = self.grants.get(&refresh.grant).filter(|grant| !grant.revoked)?;
        let expired = refresh.expires_at.is_some_and(|at| at <= now);
        (refresh.accepted(rotation, now) && !expired).then_some((grant, refresh.expires_at))
    }

    /// A valid access token with its grant.
    pub(crate) fn live_access(&self, token: &str, now: i64) -> Option<(&Access, &Grant)> {
        let access = self.access.get(token).filter(|access| access.expires_at > now)?;
        let grant = self.grants.get(&access.grant).filter(|grant| !grant.revoked)?;
        Some((access, grant))
    }

    /// An access token, whatever became of it.
    pub(crate) fn access(&self, token: &str) -> Option<&Access> {
        self.access.get(token)
    }

    /// Notes that a token set is in use, which ends the one it replaced ([`Rotation::UntilUsed`]).
    pub(crate) fn used_access(&mut self, token: &str) {
        let from = self.access.get(token).and_then(|access| access.from.clone());
        self.mark_superseded(from);
    }

    fn mark_superseded(&mut self, from: Option<String>) {
        if let Some(old) = from.and_then(|from| self.refresh.get_mut(&from)) {
            old.superseded = true;
        }
    }

    pub(crate) fn remove_access(&mut self, token: &str) {
        self.access.remove(token);
    }

    pub(crate) fn remove_access_of(&mut self, grant: u64) {
        self.access.retain(|_, access| access.grant != grant);
    }

    pub(crate) fn expire_access_tokens(&mut self, now: i64) -> usize {
        let live = self.access.values_mut().filter(|access| access.expires_at > now);
        live.map(|access| access.expires_at = now).count()
    }

    pub(crate) fn revoke_which(&mut self, which: &Which) -> usize {
        let of_token = match which {
            Which::RefreshToken(token) => self.grant_of_refresh(token),
            _ => None,
        };
        let meant = |id: &u64, grant: &Grant| match which {
            Which::RefreshToken(_) => of_token == Some(*id),
            Which::Account(account) => grant.account.as_deref() == Some(account),
            Which::ClientId(client) => grant.client == *client,
            Which::All => true,
        };
        let live = self.grants.iter_mut().filter(|(id, grant)| !grant.revoked && meant(id, grant));
        live.map(|(_, grant)| grant.revoked = true).count()
    }

    pub(crate) fn enter(&mut self, refresh_token: &str) {
        let running = self.in_flight.entry(refresh_token.to_owned()).or_default();
        *running += 1;
        let most = &mut self.counters.max_simultaneous_refreshes;
        *most = (*most).max(*running);
    }

    pub(crate) fn leave(&mut self, refresh_token: &str) {
        if let Some(running) = self.in_flight.get_mut(refresh_token) {
            *running -= 1;
            if *running == 0 {
                self.in_flight.remove(refresh_token);
            }
        }
    }
}

pub(crate) fn milliseconds(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// Which grants an operator revokes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that this refresh token belongs to.
    RefreshToken(String),
    /// All of an account.
    Account(String),
    /// All of a client.
    ClientId(String),
    /// All.
    All,
}

impl Which {
    /// Reads `{"refresh_token": …}`, `{"account": …}`, `{"client_id": …}` or `{"all": true}`.
    ///
    /// Errors: anything but exactly one of these.
    pub fn from_json(members: serde_json::Map<String, serde_json::Value>) -> Result<Self, BadInput> {
        const REMEDY: &str = "send exactly one of refresh_token, account, client_id (text) or all (true)";
        let mut members = members.into_iter();
        let (name, value) = match (members.next(), members.next()) {
            (Some(first), None) => first,
            (None, _) => return Err(BadInput::new("body", "it names nothing to revoke", REMEDY)),
            (_, Some((name, _))) => {
                return Err(BadInput::new(name, "it is the second member", REMEDY));
            }
        };
        match (name.as_str(), value) {
            ("refresh_token", serde_json::Value::String(text)) => Ok(Self::RefreshToken(text)),
            ("account", serde_json::Value::String(text)) => Ok(Self::Account(text)),
            ("client_id", serde_json::Value::String(text)) => Ok(Self::ClientId(text)),
            ("all", serde_json::Value::Bool(true)) => Ok(Self::All),
            _ => Err(BadInput::new(name, "it is unknown or has a value of the wrong type", REMEDY)),
        }
    }
}

/// What the sandbox has seen. Names come from fixed sets, so that a client can't grow them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Requests by endpoint: `discovery`, `authorize`, `decision`, `token`, `revoke`, `introspect`, `userinfo`, `api`, and
    /// `elsewhere` (where the `redirect` fault leads).
    pub endpoints: BTreeMap<String, u64>,
    /// Token requests by `grant_type`; `other` for one that it does not know.
    pub grants: BTreeMap<String, u64>,
    /// Token sets issued, by `grant_type`.
    pub issued: BTreeMap<String, u64>,
    /// Requests by client, at the token, revocation and introspection endpoints and at the API; `unknown` for the others.
    pub clients: BTreeMap<String, u64>,
    /// Error replies by OAuth error code, faults included.
    pub errors: BTreeMap<String, u64>,
    /// API calls by path.
    pub api: BTreeMap<String, u64>,
    /// Faults that hit, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Bytes received by `/api/upload`.
    pub uploaded_bytes: u64,
    /// The most token requests that were under way at once for one refresh token.
    pub max_simultaneous_refreshes: u64,
    /// Refresh tokens and codes that came a second time.
    pub reuse_detections: u64,
}

impl Counters {
    pub(crate) fn saw_call(&mut self, call: &Call<'_>) {
        if let Some(path) = call.endpoint.strip_prefix("api:") {
            count(&mut self.endpoints, "api");
            count(&mut self.api, path);
        } else {
            count(&mut self.endpoints, call.endpoint);
        }
        if let Some(grant) = call.grant {
            count(&mut self.grants, if GRANTS.contains(&grant) { grant } else { "other" });
        }
        if let Some(client) = call.client {
            count(&mut self.clients, client);
        }
    }

    pub(crate) fn saw_faults(&mut self, kinds: &[Kind]) {
        kinds.iter().for_each(|kind| count(&mut self.faults, kind.name()));
    }

    pub(crate) fn saw_reply(&mut self, reply: &Reply) {
        if let Some(error) = reply.error() {
            count(&mut self.errors, error);
        }
    }

    pub(crate) fn saw_error(&mut self, code: &str) {
        count(&mut self.errors, code);
    }

    pub(crate) fn saw_issue(&mut self, grant: &str) {
        count(&mut self.issued, grant);
    }
}

fn count(counters: &mut BTreeMap<String, u64>, name: &str) {
    match counters.get_mut(name) {
        Some(counter) => *counter += 1,
        None => drop(counters.insert(name.to_owned(), 1)),
    }
}
