//! The checked form of a provider definition. Made only by [`crate::parse`].

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use keyholder_oauth::{BodyFormat, ClientAuth, ReplyRules};
use serde::{Deserialize, Serialize};

use crate::template::{Template, UrlTemplate};

/// Values of variables by name. `reply.NAME` holds what the provider's token reply said (see [`Definition::render`]).
pub type Values = BTreeMap<String, String>;

/// How one authorization server and its API behave.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Lower-case letters, digits and `-`; unique in a catalogue.
    pub id: String,
    /// Other ids under which the catalogue finds it.
    pub aliases: Vec<String>,
    /// It stands for any server of a kind, so people know the server by its host and not by the definition's name.
    pub generic: bool,
    /// For people.
    pub name: String,
    /// The provider's page about OAuth.
    pub docs: Option<String>,
    /// The day (`YYYY-MM-DD`) on which somebody compared the facts with the sources.
    pub checked: Option<String>,
    /// Pages that the facts come from.
    pub source: Vec<String>,
    /// At least one; the first is the default.
    pub methods: Vec<Method>,
    /// In the order of the file, which is the order to ask for them.
    pub variables: Vec<Variable>,
    /// What may be asked for and how it is written.
    pub scopes: ScopeRules,
    /// How to register an application with the provider.
    pub setup: Setup,
    /// Error codes with their remedy in plain words.
    pub known_errors: Vec<KnownError>,
    pub(crate) phases: Phases,
}

/// One way that a provider lets an application authenticate.
#[derive(Clone, Debug)]
pub struct Method {
    /// Name in the API and the CLI, by custom that of the grant.
    pub name: String,
    /// For people.
    pub label: String,
    /// The grant that it runs.
    pub grant: GrantKind,
    pub(crate) default_scopes: Option<Vec<String>>,
    pub(crate) always_scopes: Option<Vec<String>>,
    pub(crate) verify: Option<String>,
}

/// The grants that a method can run. Refreshing is not one: it belongs to each that yields a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// A person consents in a browser (RFC 6749 §4.1).
    AuthorizationCode,
    /// The application acts for itself (RFC 6749 §4.4).
    ClientCredentials,
    /// The application holds a user's password (RFC 6749 §4.3).
    Password,
}

impl GrantKind {
    /// The name in definitions, in the API and on the wire (`grant_type`).
    pub fn as_str(self) -> &'static str {
        match self {
            GrantKind::AuthorizationCode => "authorization_code",
            GrantKind::ClientCredentials => "client_credentials",
            GrantKind::Password => "password",
        }
    }
}

/// An input that a definition has a placeholder for.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Lower-case letters, digits and `_`.
    pub name: String,
    /// For people; the name if the definition gives none.
    pub label: String,
    /// One or two sentences for people; may be empty.
    pub help: String,
    /// Used where no value is given.
    pub default: Option<String>,
    /// Whether a value must be given, and whether it may be.
    pub presence: Presence,
    /// Whether the value must be sealed and never shown.
    pub secret: bool,
    /// What the whole value must match.
    pub pattern: Option<Pattern>,
    /// Who is asked for it.
    pub asked_of: AskedOf,
    /// What kind of text it is.
    pub kind: Kind,
    /// The same as `kind == Kind::Url`: the value is an absolute URL.
    pub is_url: bool,
    /// Names of the methods that need it; empty means all.
    pub methods: Vec<String>,
}

/// Whether a value must be given. A default counts as given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Must have a value.
    #[default]
    Required,
    /// May be left out; parameters, headers and URLs made of it are then left out too.
    Optional,
    /// May be left out and is not asked for in forms.
    Hidden,
    /// Always the default; no value is accepted.
    Fixed,
}

/// Who gives a variable's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedOf {
    /// Whoever sets the integration up: one value for all its connections.
    #[default]
    Integration,
    /// Whoever connects: a value for each connection.
    Connection,
}

/// What kind of text a variable's value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Any text without control characters.
    #[default]
    Text,
    /// A host name or a part of one; the only kind that may stand in a URL's host.
    Host,
    /// An absolute https URL; may be the whole of a URL field.
    Url,
    /// Digits.
    Number,
}

/// A regular expression that a whole value must match.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: regex_lite::Regex,
}

impl Pattern {
    /// Compiles `text`; the error is the regex library's, in English.
    pub fn new(text: &str) -> Result<Self, String> {
        let regex = regex_lite::Regex::new(&format!("^(?:{text})$")).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// The expression as written, without anchors; fits an HTML `pattern` attribute.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `value` matches. A line break never does: `$` must not match before one.
    pub fn matches(&self, value: &str) -> bool {
        !value.contains('\n') && self.regex.is_match(value)
    }
}

/// What scopes may be asked for and how the list is written.
#[derive(Clone, Debug)]
pub struct ScopeRules {
    /// Stands between two scopes; one space unless the definition says otherwise.
    pub separator: String,
    /// Name of the parameter, `scope` unless the definition says otherwise.
    pub parameter: String,
    /// Asked for when the integration names none.
    pub default: Vec<String>,
    /// Asked for beside whatever is asked for.
    pub always: Vec<String>,
    /// Names and explanations for people, in the order of the file; not a limit.
    pub known: Vec<(String, String)>,
}

/// How to register an application with the provider.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Where to register.
    pub register_url: Option<String>,
    /// How, in plain text.
    pub text: String,
    /// What to mind about the redirect URI.
    pub redirect_note: Option<String>,
}

/// A provider's error with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownError {
    /// The error code, or a word that the description has (`AADSTS50011`).
    pub code: String,
    /// What to do, in plain words.
    pub remedy: String,
}

/// Whether the code challenge of RFC 7636 is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pkce {
    /// The provider refuses without.
    Required,
    /// Sent; the provider may ignore it.
    #[default]
    Offered,
    /// The provider refuses with it.
    Off,
}

/// What the provider does with a refresh token whose reply was lost: may it be sent again?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// Refresh tokens stay the same.
    Static,
    /// The old one still works for this long after its use.
    Window(Duration),
    /// The old one works until the new one (or its access token) is used.
    UntilUsed,
    /// The old one is dead after its use. Assumed where nothing is known.
    #[default]
    SingleUse,
    /// A second use of the old one ends the whole grant.
    Family,
    /// As `SingleUse`, and its use also ends the access token before it: a lost reply leaves nothing that works.
    AccessDies,
}

/// How long refresh tokens live. `None` = not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefreshLife {
    /// Dies when not used for this long.
    pub idle: Option<Duration>,
    /// Dies this long after consent, used or not.
    pub absolute: Option<Duration>,
}

/// Which token a revocation names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedToken {
    /// The usual: with it the whole grant ends (RFC 7009 §2.1).
    #[default]
    RefreshToken,
    /// For providers that take only this one.
    AccessToken,
}

/// The templates, phase by phase.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phases {
    pub discover: Option<Discover>,
    pub authorize: AuthorizePhase,
    pub callback: CallbackPhase,
    pub token: RequestPhase,
    pub reply: ReplyRules,
    pub refresh: RequestPhase,
    pub refresh_sends_scope: bool,
    pub recovery: Recovery,
    pub refresh_life: RefreshLife,
    pub revoke: Option<RequestPhase>,
    pub revoke_token: RevokedToken,
    pub api: ApiPhase,
}

#[derive(Clone, Debug)]
pub(crate) struct Discover {
    pub issuer: UrlTemplate,
    /// Issuer as rendered → issuer as the document has it.
    pub documents: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct AuthorizePhase {
    pub url: Option<UrlTemplate>,
    pub params: Vec<(String, Template)>,
    /// Sent only when that scope is asked for.
    pub scope_params: BTreeMap<String, BTreeMap<String, String>>,
    pub renames: Vec<(String, Option<String>)>,
    pub pkce: Pkce,
    pub nonce: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct CallbackPhase {
    pub issuer: Option<UrlTemplate>,
    pub issuer_required: bool,
}

/// What the token, refresh and revocation requests have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestPhase {
    pub url: Option<UrlTemplate>,
    pub client_auth: Option<ClientAuth>,
    pub body: Option<BodyFormat>,
    pub headers: Vec<(HeaderName, Template)>,
    pub params: Vec<(String, Template)>,
    pub renames: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct ApiPhase {
    pub base_url: Option<UrlTemplate>,
    pub hosts: Vec<Template>,
    pub header: HeaderName,
    pub prefix: String,
    pub headers: Vec<(HeaderName, Template)>,
    pub verify: Option<String>,
}

impl Default for ApiPhase {
    /// RFC 6750 §2.1.
    fn default() -> Self {
        Self {
            base_url: None,
            hosts: Vec::new(),
            header: http::header::AUTHORIZATION,
            prefix: "Bearer".to_owned(),
            headers: Vec::new(),
            verify: None,
        }
    }
}
