//! The checked form of a provider definition. Made only by [`crate::parse`].

use std::collections::BTreeMap;
use std::time::Duration;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method as HttpMethod};
use keyholder_oauth::{Algorithm, ClientAuth, Encoding, Hash, Pointer, Predicate, ReplyRules, ScopeFormat, SignedOver};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::template::{PathTemplate, Template, UrlTemplate};

/// Values of variables by name, and beside them what a provider said: `reply.NAME` (a text member of the token reply),
/// `callback.NAME` (captured from the callback) and `lookup.NAME` (learnt after connecting). See [`Definition::render`].
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
    /// What it was read from, without what it extends.
    pub text: Arc<str>,
    /// What it extends, as it was read: id and text, nearest first.
    pub bases: Vec<Base>,
}

/// A definition that another one extends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its id.
    pub id: String,
    /// Its text.
    pub text: Arc<str>,
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
    /// What may be asked for and how it is written.
    pub scopes: ScopeRules,
    /// The standard inputs that it has a use for, in the order to ask for them. Their names are those of the API's fields.
    pub inputs: Vec<Variable>,
    /// How to register an application for it.
    pub setup: Setup,
    pub(crate) phases: Arc<Phases>,
}

impl Method {
    /// How the client authenticates at the token endpoint, where the definition says.
    pub fn client_auth(&self) -> Option<ClientAuth> {
        self.phases.token.client_auth
    }

    /// Whether PKCE is used.
    pub fn pkce(&self) -> Pkce {
        self.phases.authorize.pkce
    }
}

/// The grants that a method can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// A person consents in a browser (RFC 6749 §4.1).
    AuthorizationCode,
    /// The application acts for itself (RFC 6749 §4.4).
    ClientCredentials,
    /// The application holds a user's password (RFC 6749 §4.3).
    Password,
    /// Somebody brings a refresh token that was obtained elsewhere (RFC 6749 §6).
    RefreshToken,
    /// A person consents on another device (RFC 8628).
    DeviceCode,
    /// The application signs who it acts for (RFC 7523 §2.1).
    JwtBearer,
    /// The application brings a SAML assertion (RFC 7522 §2.1).
    SamlBearer,
    /// One token for another (RFC 8693).
    TokenExchange,
}

impl Variable {
    /// What its choice says under a name.
    pub(crate) fn set(&self, choice: &str, name: &str) -> Option<&str> {
        self.sets.get(choice)?.get(name).map(String::as_str)
    }
}

impl GrantKind {
    /// All of them, in the order of their documentation.
    pub const ALL: [Self; 8] = [
        Self::AuthorizationCode,
        Self::ClientCredentials,
        Self::Password,
        Self::RefreshToken,
        Self::DeviceCode,
        Self::JwtBearer,
        Self::SamlBearer,
        Self::TokenExchange,
    ];

    /// The name in definitions and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
            Self::RefreshToken => "refresh_token",
            Self::DeviceCode => "device_code",
            Self::JwtBearer => "jwt_bearer",
            Self::SamlBearer => "saml_bearer",
            Self::TokenExchange => "token_exchange",
        }
    }

    /// The name on the wire (`grant_type`) and in discovery documents.
    pub fn grant_type(self) -> &'static str {
        match self {
            Self::AuthorizationCode | Self::ClientCredentials | Self::Password | Self::RefreshToken => self.as_str(),
            Self::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
            Self::JwtBearer => "urn:ietf:params:oauth:grant-type:jwt-bearer",
            Self::SamlBearer => "urn:ietf:params:oauth:grant-type:saml2-bearer",
            Self::TokenExchange => "urn:ietf:params:oauth:grant-type:token-exchange",
        }
    }

    /// Whether a person must consent, so that nobody else can run it anew.
    pub fn needs_a_person(self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::DeviceCode | Self::RefreshToken)
    }
}

/// An input that a definition has a placeholder for.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Letters, digits and `_`.
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
    /// The values there are, with their labels; empty means any.
    pub choices: Vec<(String, String)>,
    /// What each choice says beside its label, for `{{variable.NAME}}`: by choice, then by name.
    pub sets: BTreeMap<String, BTreeMap<String, String>>,
    /// Shown in an empty field.
    pub example: Option<String>,
    /// Names of the methods that need it; empty means all.
    pub methods: Vec<String>,
}

/// Whether a value must be given. A default counts as given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// A list of scopes, separated by spaces or commas; rendered with the provider's separator.
    Scopes,
    /// A key or certificate, or another text of several lines.
    Pem,
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
        // By itself too: `a)|(b` would open the group that anchors it.
        regex_lite::Regex::new(text).map_err(|error| error.to_string())?;
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
    /// How several are sent.
    pub format: ScopeFormat,
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
    /// The same, step by step.
    pub steps: Vec<String>,
    /// What to mind about the redirect URI.
    pub redirect_note: Option<String>,
    /// Whether the redirect URI's letter case counts; `None` = not known.
    pub redirect_case_sensitive: Option<bool>,
}

/// A provider's error with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownError {
    /// The error code, or a word that the description has (`AADSTS50011`).
    pub code: String,
    /// Where it occurs; `None` = anywhere.
    pub phase: Option<ErrorPhase>,
    /// What it means, in plain words.
    pub meaning: Option<String>,
    /// What to do, in plain words.
    pub remedy: String,
}

/// Where a known error occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorPhase {
    /// The authorization request and its callback.
    Authorize,
    /// The token request.
    Token,
    /// Renewal.
    Refresh,
    /// Revocation.
    Revoke,
    /// Calls of the API.
    Api,
}

/// Whether the code challenge of RFC 7636 is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RevokedToken {
    /// The usual: with it the whole grant ends (RFC 7009 §2.1).
    #[default]
    RefreshToken,
    /// For providers that take only this one.
    AccessToken,
}

/// Which token a renewal sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RefreshWith {
    /// RFC 6749 §6.
    #[default]
    RefreshToken,
    /// The access token extends itself; there is no refresh token.
    AccessToken,
}

/// Whether renewals are made only so that the refresh token does not die of disuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepAlive {
    /// As often as its idle life asks for, where that is known.
    #[default]
    ByIdleLife,
    /// Never.
    Off,
    /// At least this often.
    Every(Duration),
}

/// When the exchange after the first one is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FollowUpWhen {
    /// After each.
    #[default]
    Always,
    /// Only if the first reply brought no refresh token.
    MissingRefresh,
}

/// How the browser brings the answer back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResponseMode {
    /// In the query of the redirect URI (RFC 6749 §4.1.2).
    #[default]
    Query,
    /// By posting a form to it (OAuth 2.0 Form Post Response Mode).
    FormPost,
}

/// What an API's reset header is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResetUnit {
    /// Seconds from now.
    #[default]
    Seconds,
    /// Milliseconds from now.
    Ms,
    /// Seconds since 1970.
    Unix,
    /// A date as HTTP writes it, or RFC 3339.
    Date,
}

/// What an API's timeout header is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TimeoutUnit {
    /// Whole seconds, rounded up.
    #[default]
    Seconds,
    /// Milliseconds.
    Ms,
}

impl TimeoutUnit {
    /// A time in this unit; never zero, which some servers take for none.
    pub fn of(self, time: Duration) -> u64 {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        match self {
            TimeoutUnit::Seconds => ms.div_ceil(1000),
            TimeoutUnit::Ms => ms,
        }
    }
}

/// What an API allows, and how it says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Calls a second.
    pub per_second: Option<f64>,
    /// Calls at the same time.
    pub concurrent: Option<u32>,
    /// Says how many calls are left.
    pub remaining_header: Option<HeaderName>,
    /// Says when there are more.
    pub reset_header: Option<HeaderName>,
    /// What `reset_header` is written in.
    pub reset_unit: ResetUnit,
    /// Says how long to wait, where it is not `Retry-After`.
    pub retry_after_header: Option<HeaderName>,
    /// Takes how long the caller still waits, where it says so.
    pub timeout_header: Option<HeaderName>,
    /// What `timeout_header` is written in.
    pub timeout_unit: TimeoutUnit,
}

/// Besides a 401: what means that the access token has expired.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpiredWhen {
    /// Only with this status; `None` = any.
    pub status: Option<u16>,
    /// What the body must say; `None` = the status alone counts.
    pub body: Option<Predicate>,
}

/// The templates, phase by phase.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phases {
    pub discover: Option<Discover>,
    pub authorize: AuthorizePhase,
    pub callback: CallbackPhase,
    pub device: Option<RequestPhase>,
    pub token: RequestPhase,
    pub reply: ReplyRules,
    pub refresh: RefreshPhase,
    pub follow_up: Option<FollowUpPhase>,
    pub revoke: Option<RequestPhase>,
    pub revoke_token: RevokedToken,
    pub introspect: Option<RequestPhase>,
    pub register: Option<RequestPhase>,
    pub userinfo: Option<UserinfoPhase>,
    pub lookups: Vec<LookupPhase>,
    pub api: ApiPhase,
    pub computed: BTreeMap<String, Computed>,
}

#[derive(Clone, Debug)]
pub(crate) struct Discover {
    pub issuer: UrlTemplate,
    /// Issuer as rendered → issuer as the document has it.
    pub documents: BTreeMap<String, String>,
}

/// A text with placeholders, or a value that is sent as it is.
#[derive(Clone, Debug)]
pub(crate) enum ParamValue {
    Text(Template),
    Json(Value),
    /// The computed value of this name, which is made when the request is.
    Hashed(String),
}

pub(crate) type Texts = Vec<(String, Template)>;
pub(crate) type ParamTemplates = Vec<(String, ParamValue)>;
pub(crate) type Renames = Vec<(String, Option<String>)>;

#[derive(Clone, Debug, Default)]
pub(crate) struct AuthorizePhase {
    pub url: Option<UrlTemplate>,
    pub params: ParamTemplates,
    /// Sent only when that scope is asked for.
    pub scope_params: BTreeMap<String, Vec<(String, String)>>,
    pub renames: Renames,
    pub pkce: Pkce,
    pub nonce: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct CallbackPhase {
    pub issuer: Option<UrlTemplate>,
    pub issuer_required: bool,
    /// The parameters that hold the code and the state.
    pub code: Option<String>,
    pub state: Option<String>,
    pub strip_code_suffix: Option<String>,
    pub response_mode: ResponseMode,
    pub captures: Vec<Capture>,
    pub signature: Option<SignaturePhase>,
}

/// A parameter of the callback that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    pub name: String,
    pub parameter: String,
    pub pattern: Option<Pattern>,
    pub kind: Kind,
    pub required: bool,
    /// Stands until the callback has come, and where it does not have the parameter.
    pub default: Option<Template>,
}

#[derive(Clone, Debug)]
pub(crate) struct SignaturePhase {
    pub parameter: String,
    pub hash: Hash,
    pub encoding: Encoding,
    pub key: Template,
    pub over: SignedOver,
}

/// What all requests have in common.
#[derive(Clone, Debug)]
pub(crate) struct RequestPhase {
    pub url: Option<UrlTemplate>,
    pub method: HttpMethod,
    pub client_auth: Option<ClientAuth>,
    pub client_assertion: AssertionPhase,
    pub body: Option<BodyPhase>,
    pub headers: Vec<(HeaderName, Template)>,
    pub query: Texts,
    pub params: ParamTemplates,
    pub renames: Renames,
}

impl Default for RequestPhase {
    /// A request of which nothing is said: by POST.
    fn default() -> Self {
        Self {
            url: Default::default(),
            method: HttpMethod::POST,
            client_auth: Default::default(),
            client_assertion: Default::default(),
            body: Default::default(),
            headers: Default::default(),
            query: Default::default(),
            params: Default::default(),
            renames: Default::default(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct AssertionPhase {
    pub audience: Option<Template>,
    pub algorithm: Option<Algorithm>,
    pub lifetime: Option<Duration>,
    pub header: Texts,
    pub claims: Texts,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BodyPhase {
    Form,
    Json,
    Query,
    Template(HeaderValue, Template),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RefreshPhase {
    pub request: RequestPhase,
    pub reply: ReplyRules,
    pub with: RefreshWith,
    pub sends_scope: bool,
    pub min_age: Option<Duration>,
    pub keep_alive: KeepAlive,
    pub recovery: Recovery,
    pub life: RefreshLife,
}

#[derive(Clone, Debug)]
pub(crate) struct FollowUpPhase {
    pub request: RequestPhase,
    pub reply: ReplyRules,
    pub when: FollowUpWhen,
}

#[derive(Clone, Debug)]
pub(crate) struct UserinfoPhase {
    pub url: Option<UrlTemplate>,
    pub headers: Vec<(HeaderName, Template)>,
    pub query: Texts,
    pub account: Option<Pointer>,
    pub name: Option<Pointer>,
    pub email: Option<Pointer>,
}

#[derive(Clone, Debug)]
pub(crate) struct LookupPhase {
    pub name: String,
    pub request: RequestPhase,
    /// Below the API's base URL, instead of the request's URL.
    pub path: Option<PathTemplate>,
    pub list: Pointer,
    pub filter: Option<Predicate>,
    pub extract: Vec<(String, Pointer)>,
    pub choose: Option<ChoosePhase>,
    pub required: bool,
    pub refresh: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ChoosePhase {
    pub value: Pointer,
    pub label: Option<Pointer>,
    pub save: String,
}

#[derive(Clone, Debug)]
pub(crate) struct PlacementPhase {
    pub place: PlaceOfToken,
    pub prefix: String,
    pub secondary: Option<String>,
}

/// Where the access token goes in a call of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceOfToken {
    /// In this header.
    Header(HeaderName),
    /// In this parameter of the query.
    Query(String),
    /// In this member of the form or JSON object that is sent.
    Body(String),
}

#[derive(Clone, Debug)]
pub(crate) struct VerifyPhase {
    pub request: RequestPhase,
    pub path: PathTemplate,
    pub expect: Option<Predicate>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ApiPhase {
    pub base_url: Option<UrlTemplate>,
    pub hosts: Vec<Template>,
    /// Empty: as RFC 6750 §2.1 has it.
    pub token: Vec<PlacementPhase>,
    pub headers: Vec<(HeaderName, Template)>,
    pub query: Texts,
    pub verify: Option<VerifyPhase>,
    pub expired_when: Vec<ExpiredWhen>,
    pub limits: Limits,
}

#[derive(Clone, Debug)]
pub(crate) enum Computed {
    Hmac {
        hash: Hash,
        key: Template,
        over: Template,
        encoding: Encoding,
    },
    /// With a parameter of the request in `over`, it is made when the request is.
    Hash {
        hash: Hash,
        over: Template,
        encoding: Encoding,
    },
    Jwt {
        algorithm: Algorithm,
        key: Template,
        header: Texts,
        claims: Vec<(String, Claim)>,
    },
    Base64 {
        text: Template,
        encoding: Encoding,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Claim {
    Text(Template),
    Json(Value),
    /// So many seconds from now.
    Time(i64),
    /// One that no other token has.
    Random,
}

/// Names of JSON members and their values.
pub(crate) type Members = Map<String, Value>;
