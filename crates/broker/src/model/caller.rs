//! Callers: who uses Keyholder by API.

use std::collections::BTreeSet;

use keyholder_oauth::Secret;
use serde::{Deserialize, Serialize};

use super::{ConnectionId, KeyId, SourceId, Tenant};

/// What an API key may do. Credential-reading scopes stand apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See providers, integrations, connections and their states.
    Read,
    /// Make, change, authorise and remove them.
    Manage,
    /// Read access tokens.
    Token,
    /// Call APIs through the gateway, never seeing a token.
    Call,
    /// Everything, and keys and the audit beside.
    Admin,
}

impl Scope {
    /// All scopes, narrowest first.
    pub const ALL: [Scope; 5] = [Scope::Read, Scope::Manage, Scope::Token, Scope::Call, Scope::Admin];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Manage => "manage",
            Scope::Token => "token",
            Scope::Call => "call",
            Scope::Admin => "admin",
        }
    }
}

/// How fast calls may come, and how many at once; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// Calls a second; as many may come at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Calls at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
}

impl Rate {
    /// Does it limit nothing?
    pub fn is_unlimited(&self) -> bool {
        self.per_second.is_none() && self.concurrent.is_none()
    }
}

/// Where a key may be used, and how much. An empty list means "no limit of this kind".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Names or ids of the connections it may use, by themselves or behind data sources.
    pub connections: BTreeSet<String>,
    /// Names or ids of the data sources it may use. Where there are some, connections are out of its reach but through these.
    pub sources: BTreeSet<String>,
    /// HTTP methods it may send through the gateway, upper case.
    pub methods: BTreeSet<String>,
    /// Path prefixes it may call through the gateway, such as `/v3/contacts`.
    pub paths: BTreeSet<String>,
    /// How many calls through the gateway, and hand-outs.
    #[serde(flatten)]
    pub rate: Rate,
}

/// What a caller wants to do with a connection, for the check against [`Limits`].
#[derive(Clone, Copy, Debug)]
pub enum Grip<'a> {
    /// Read its token, or see it.
    Connection,
    /// Call `method` `path` with it.
    Call {
        /// HTTP method, upper case.
        method: &'a str,
        /// Path below the API's base URL, with a leading slash.
        path: &'a str,
    },
    /// Reach it through a data source, before it is known by which call.
    Reached,
    /// The same through a data source, for which [`Limits::refuses_source`] has been asked.
    Behind {
        /// HTTP method, upper case.
        method: &'a str,
        /// Path below the base URL that the key's paths are meant below: the source's for a key that is limited to sources, else the connection's, with a leading slash.
        /// `None`: the source lies beside the connection's base URL.
        path: Option<&'a str>,
    },
}

impl Limits {
    /// `None` when allowed, else what stands against it.
    pub fn refusal(&self, id: &ConnectionId, name: &str, grip: Grip<'_>) -> Option<&'static str> {
        let listed = |list: &BTreeSet<String>, item: &str| list.is_empty() || list.contains(item);
        if !listed(&self.connections, name) && !listed(&self.connections, id.as_str()) {
            return Some("connection");
        }
        let (method, path) = match grip {
            Grip::Connection | Grip::Call { .. } if !self.sources.is_empty() => return Some("data source"),
            Grip::Connection | Grip::Reached => return None,
            Grip::Call { method, path } => (method, Some(path)),
            Grip::Behind { method, path } => (method, path),
        };
        if !listed(&self.methods, method) {
            return Some("method");
        }
        let below = |prefix: &String| {
            let rest = path.and_then(|path| path.strip_prefix(prefix.trim_end_matches('/')));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        (!self.paths.is_empty() && !self.paths.iter().any(below)).then_some("path")
    }

    /// Whether a data source is none of those that it may use.
    pub fn refuses_source(&self, id: &SourceId, name: &str) -> bool {
        !self.sources.is_empty() && !self.sources.contains(id.as_str()) && !self.sources.contains(name)
    }

    /// Whether it is kept to some connections or data sources.
    pub fn are_to_some(&self) -> bool {
        !self.connections.is_empty() || !self.sources.is_empty()
    }
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key it showed.
    pub key: KeyId,
    /// The key's name, for the audit.
    pub name: String,
    /// Its tenant: everything it can reach.
    pub tenant: Tenant,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// Where.
    pub limits: Limits,
    /// After this the key is no longer accepted, Unix milliseconds.
    pub expires_at: Option<i64>,
}

impl Caller {
    /// Does it hold `scope`, or `admin`, which holds all?
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// A key as the store lists it: never the key itself.
#[derive(Clone, Debug)]
pub struct StoredKey {
    /// What it lets do.
    pub caller: Caller,
    /// First characters of the key, to tell keys apart.
    pub hint: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds; at most a minute behind.
    pub last_used_at: Option<i64>,
    /// Unix milliseconds.
    pub revoked_at: Option<i64>,
}

/// What a new key shall be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Unique among the tenant's live keys.
    pub name: String,
    /// What it may do; at least one.
    pub scopes: BTreeSet<Scope>,
    /// Where.
    pub limits: Limits,
    /// Unix milliseconds.
    pub expires_at: Option<i64>,
}

/// A key in the only moment it is seen: when it is made, or shown by a caller.
#[derive(Clone, Debug)]
pub struct PlainKey(pub Secret);

impl PlainKey {
    /// What every key begins with, so that scanners of leaked secrets can know it.
    pub const PREFIX: &'static str = "khk_";

    /// SHA-256: the key has 256 random bits, so no slow hash is needed.
    pub fn hash(&self) -> [u8; 32] {
        keyholder_oauth::sha256(self.0.expose().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_name_what_stands_against_a_call() {
        let id: ConnectionId = "con_00000000000000000000000000".parse().expect("an id");
        let set = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        let (connections, methods, paths) = (set(&["crm"]), set(&["GET"]), set(&["/v3/contacts"]));
        let limits = Limits { connections, methods, paths, ..Limits::default() };
        let call = |method, path| limits.refusal(&id, "crm", Grip::Call { method, path });
        assert_eq!(call("GET", "/v3/contacts/1"), None);
        assert_eq!(call("GET", "/v3/contacts"), None);
        assert_eq!(call("GET", "/v3/contactsx"), Some("path"));
        assert_eq!(call("POST", "/v3/contacts"), Some("method"));
        assert_eq!(limits.refusal(&id, "erp", Grip::Connection), Some("connection"));
        assert_eq!(Limits::default().refusal(&id, "erp", Grip::Connection), None);
        assert_eq!(limits.refusal(&id, "erp", Grip::Reached), Some("connection"));
        assert_eq!(limits.refusal(&id, "crm", Grip::Reached), None);
        let behind = |path| limits.refusal(&id, "crm", Grip::Behind { method: "GET", path });
        assert_eq!((behind(Some("/v3/contacts/1")), behind(None)), (None, Some("path")));
    }

    #[test]
    fn a_key_for_data_sources_reaches_connections_through_them_only() {
        let id: ConnectionId = "con_00000000000000000000000000".parse().expect("an id");
        let source: SourceId = "src_00000000000000000000000000".parse().expect("an id");
        let limits = Limits { sources: ["invoices".to_owned()].into(), ..Limits::default() };
        let call = Grip::Call { method: "GET", path: "/" };
        assert_eq!(limits.refusal(&id, "crm", call), Some("data source"));
        assert_eq!(limits.refusal(&id, "crm", Grip::Connection), Some("data source"));
        assert_eq!(limits.refusal(&id, "crm", Grip::Behind { method: "GET", path: None }), None);
        assert!(!limits.refuses_source(&source, "invoices") && limits.refuses_source(&source, "contacts"));
        let both = Limits { connections: ["erp".to_owned()].into(), ..limits };
        assert_eq!(both.refusal(&id, "crm", Grip::Behind { method: "GET", path: None }), Some("connection"));
    }

    #[test]
    fn limits_are_stored_flat_and_old_ones_still_read() {
        let rate = Rate { per_second: Some(0.5), concurrent: Some(3) };
        let limits = Limits { rate, ..Limits::default() };
        let stored = serde_json::to_string(&limits).expect("plain data");
        assert_eq!(
            stored,
            r#"{"connections":[],"sources":[],"methods":[],"paths":[],"per_second":0.5,"concurrent":3}"#
        );
        assert_eq!(serde_json::from_str::<Limits>(&stored).expect("its own text"), limits);
        assert_eq!(serde_json::from_str::<Limits>(r#"{"paths":[]}"#).expect("an older text"), Limits::default());
    }
}
