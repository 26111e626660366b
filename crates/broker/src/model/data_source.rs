//! A data source: a named REST API reached through a connection.

use std::collections::{BTreeMap, BTreeSet};

use keyholder_oauth::Secret;
use serde::{Deserialize, Serialize};

use super::{ConnectionId, IntegrationId, SourceId, Tenant, Values};

/// What is called under a name, and through which connection.
#[derive(Clone, Debug)]
pub struct DataSource {
    /// Its id.
    pub id: SourceId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Unique in the tenant.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// What paths are appended to; may have placeholders. `None`: the connection's own API base URL.
    pub base_url: Option<String>,
    /// Through which connection.
    pub behind: Behind,
    /// Everything else, without secret values.
    pub spec: SourceSpec,
    /// Values of its secret variables, sealed in the store.
    pub secrets: BTreeMap<String, Secret>,
    /// Raised by every change; part of what seals its secrets to their place.
    pub generation: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

/// Through which connection a data source is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Always this one.
    Connection(ConnectionId),
    /// Each caller's own under this integration: that of the owner whom the caller names, or the only one that it may use.
    EachCallers(IntegrationId),
}

/// What a data source is made of beside name, address and connection. Texts may have placeholders.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceSpec {
    /// Sent with each call that has no header of that name itself.
    pub headers: Values,
    /// Sent with each call that has no parameter of that name itself.
    pub query: Values,
    /// What placeholders stand for.
    pub variables: BTreeMap<String, SourceVariable>,
    /// A call that is cheap, changes nothing and shows whether the source works.
    pub health: Option<SavedRequest>,
    /// Requests by name.
    pub requests: BTreeMap<String, SavedRequest>,
    /// What may be called; empty: everything below the base URL.
    pub allow: Vec<AllowRule>,
}

/// A variable of a data source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceVariable {
    /// For people; empty: its name.
    pub label: String,
    /// One or two sentences for people; may be empty.
    pub help: String,
    /// Its value here. That of a secret variable is sealed, and stands elsewhere.
    pub value: Option<String>,
    /// Used where no value is given.
    pub default: Option<String>,
    /// Must have a value wherever it is used; else what is made of it is left out.
    pub required: bool,
    /// The value must be sealed and never shown.
    pub secret: bool,
    /// What kind of text it is.
    pub kind: ValueKind,
    /// A regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// The values there are; empty: any.
    pub choices: Vec<String>,
}

/// What kind of text a variable's value is; numbers and booleans are JSON's where they stand alone in a JSON body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    /// Any text.
    #[default]
    Text,
    /// A number as JSON writes it.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// A request that was saved under a name. Texts may have placeholders.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedRequest {
    /// For people; may be empty.
    pub description: String,
    /// Upper case; empty: GET, or POST with a body.
    pub method: String,
    /// Below the base URL, with a leading slash; may have a query.
    pub path: String,
    /// Beside what the path has; those of the same name in the data source give way.
    pub query: Values,
    /// Those of the same name in the data source give way.
    pub headers: Values,
    /// A text, or JSON.
    pub body: Option<serde_json::Value>,
    /// A form's parameters, instead of a body.
    pub form: Values,
    /// A JSONPath (RFC 9535) into the reply.
    pub extract: Option<String>,
    /// What the reply must be; any success when not given.
    pub expect: Option<Expect>,
}

/// What a reply must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Expect {
    /// One of these; empty: any success.
    pub status: Vec<u16>,
    /// A JSONPath that must find something in it.
    pub found: Option<String>,
}

/// Calls that may be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllowRule {
    /// Upper case; empty: any.
    pub methods: BTreeSet<String>,
    /// Path below the base URL; `*` stands for one segment, `**` at the end for any number of them.
    pub path: String,
}
