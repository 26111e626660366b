//! The fields of a definition as they are written. What they mean and whether they fit together is `check`'s business;
//! nothing is required here, so that a missing field is reported by its own name.

use std::collections::BTreeMap;

use keyholder_oauth::{BodyFormat, ClientAuth};
use serde::Deserialize;

use crate::definition::{AskedOf, GrantKind, Kind, Pkce, Presence, RevokedToken};

/// Keys in alphabetical order; `Source::order` gives back that of the file.
pub(crate) type Table<T = String> = BTreeMap<String, T>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub schema: Option<i64>,
    pub id: Option<String>,
    #[serde(default)]
    pub aliases: Vec<String>,
    pub name: Option<String>,
    #[serde(default)]
    pub generic: bool,
    pub docs: Option<String>,
    pub checked: Option<String>,
    #[serde(default)]
    pub source: Vec<String>,
    #[serde(default)]
    pub methods: Vec<Method>,
    #[serde(default)]
    pub variables: Table<Variable>,
    #[serde(default)]
    pub scopes: Scopes,
    pub discover: Option<Discover>,
    #[serde(default)]
    pub authorize: Authorize,
    #[serde(default)]
    pub callback: Callback,
    #[serde(default)]
    pub token: Token,
    #[serde(default)]
    pub refresh: Refresh,
    pub revoke: Option<Revoke>,
    #[serde(default)]
    pub api: Api,
    #[serde(default)]
    pub setup: Setup,
    #[serde(default)]
    pub errors: Vec<KnownError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Method {
    pub name: Option<String>,
    pub label: Option<String>,
    pub grant: Option<GrantKind>,
    pub default_scopes: Option<Vec<String>>,
    pub always_scopes: Option<Vec<String>>,
    pub verify: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    pub label: Option<String>,
    #[serde(default)]
    pub help: String,
    pub default: Option<String>,
    #[serde(default)]
    pub presence: Presence,
    #[serde(default)]
    pub secret: bool,
    pub pattern: Option<String>,
    #[serde(default)]
    pub asked_of: AskedOf,
    #[serde(default)]
    pub kind: Kind,
    #[serde(default)]
    pub methods: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scopes {
    pub separator: Option<String>,
    pub parameter: Option<String>,
    #[serde(default)]
    pub default: Vec<String>,
    #[serde(default)]
    pub always: Vec<String>,
    #[serde(default)]
    pub known: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Discover {
    pub issuer: Option<String>,
    #[serde(default)]
    pub documents: Table,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authorize {
    pub url: Option<String>,
    #[serde(default)]
    pub params: Table,
    #[serde(default)]
    pub scope_params: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    pub rename: Table,
    #[serde(default)]
    pub drop: Vec<String>,
    #[serde(default)]
    pub pkce: Pkce,
    #[serde(default)]
    pub nonce: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Callback {
    pub issuer: Option<String>,
    #[serde(default)]
    pub issuer_required: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub url: Option<String>,
    pub client_auth: Option<ClientAuth>,
    pub body: Option<BodyFormat>,
    #[serde(default)]
    pub headers: Table,
    #[serde(default)]
    pub params: Table,
    #[serde(default)]
    pub rename: Table,
    #[serde(default)]
    pub drop: Vec<String>,
    #[serde(default)]
    pub reply: Reply,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reply {
    pub access_token: Option<String>,
    pub refresh_token: Option<String>,
    pub id_token: Option<String>,
    pub token_type: Option<String>,
    pub scope: Option<String>,
    pub expires_in: Option<String>,
    pub refresh_expires_in: Option<String>,
    #[serde(default)]
    pub expiry_unit: Unit,
    pub default_lifetime: Option<String>,
    #[serde(default)]
    pub never_expires: bool,
    pub success: Option<Success>,
    pub error: Option<String>,
    pub error_description: Option<String>,
    #[serde(default)]
    pub dead: Vec<String>,
    #[serde(default)]
    pub retry: Vec<String>,
    #[serde(default)]
    pub setup: Vec<String>,
    #[serde(default)]
    pub keep: Vec<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    #[default]
    Seconds,
    Milliseconds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Success {
    pub pointer: Option<String>,
    pub equals: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    pub url: Option<String>,
    pub client_auth: Option<ClientAuth>,
    pub body: Option<BodyFormat>,
    pub headers: Option<Table>,
    #[serde(default)]
    pub params: Table,
    #[serde(default)]
    pub sends_scope: bool,
    pub recovery: Option<RecoveryName>,
    pub window: Option<String>,
    pub idle_life: Option<String>,
    pub absolute_life: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecoveryName {
    Static,
    Window,
    UntilUsed,
    SingleUse,
    Family,
    AccessDies,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoke {
    pub url: Option<String>,
    #[serde(default)]
    pub token: RevokedToken,
    pub client_auth: Option<ClientAuth>,
    pub body: Option<BodyFormat>,
    pub headers: Option<Table>,
    #[serde(default)]
    pub params: Table,
    #[serde(default)]
    pub rename: Table,
    #[serde(default)]
    pub drop: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    pub base_url: Option<String>,
    #[serde(default)]
    pub hosts: Vec<String>,
    pub header: Option<String>,
    pub prefix: Option<String>,
    #[serde(default)]
    pub headers: Table,
    pub verify: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setup {
    pub register_url: Option<String>,
    #[serde(default)]
    pub text: String,
    pub redirect_note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownError {
    pub code: Option<String>,
    pub remedy: Option<String>,
}
