//! Token replies (RFC 6749 §5.1), as the standard has them and as they come.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::expiry::{self, ExpiryRules};
use crate::failure::{Reply, TokenFailure};
use crate::secret::Secret;
use crate::text::{MAX_NAME, clean, looks_like_jwt};

/// How a reply of the token endpoint is read. `Default` is RFC 6749 §5.
#[derive(Clone, Debug)]
pub struct ReplyRules {
    /// Where the access token stands.
    pub access_token: Pointer,
    /// Where the refresh token stands.
    pub refresh_token: Pointer,
    /// Where the lifetime stands; a date there is understood too.
    pub expires_in: Pointer,
    /// Where the refresh token's lifetime stands; other common names of it are understood too.
    pub refresh_expires_in: Pointer,
    /// Where the granted scope stands.
    pub scope: Pointer,
    /// Where the token type stands.
    pub token_type: Pointer,
    /// Where the ID token of OpenID Connect stands.
    pub id_token: Pointer,
    /// Where the end stands as a date; beside the names that are in use everywhere.
    pub expires_at: Option<Pointer>,
    /// What the expiry is written in.
    pub expiry: Expiry,
    /// The lifetime if neither the reply nor the token itself gives one.
    pub default_lifetime: Option<Duration>,
    /// More tokens in the same reply.
    pub secondary: Vec<SecondaryRules>,
    /// What a 2xx reply must say to be a success. With it, the error member alone doesn't make a
    /// failure of a 2xx reply.
    pub success: Option<Predicate>,
    /// What makes a failure of a 2xx reply, beside an error member.
    pub error_when: Option<Predicate>,
    /// Where the error code stands.
    pub error: Pointer,
    /// Where the explanation of an error stands.
    pub error_description: Pointer,
    /// The provider's error codes for a dead grant. These three lists come before the standard codes and ignore case; `*` at the
    /// end stands for any rest. A code that the explanation begins with counts too (`AADSTS50173: …`).
    pub dead: Vec<String>,
    /// The provider's error codes for what may pass.
    pub retry: Vec<String>,
    /// The provider's error codes for a wrong set-up.
    pub setup: Vec<String>,
    /// The top-level members to keep in [`TokenSet::extra`]; empty keeps all that may be kept.
    pub keep: Vec<String>,
}

impl Default for ReplyRules {
    fn default() -> Self {
        Self {
            access_token: "access_token".into(),
            refresh_token: "refresh_token".into(),
            expires_in: "expires_in".into(),
            refresh_expires_in: "refresh_token_expires_in".into(),
            scope: "scope".into(),
            token_type: "token_type".into(),
            id_token: "id_token".into(),
            expires_at: None,
            expiry: Expiry::Seconds,
            default_lifetime: None,
            secondary: Vec::new(),
            success: None,
            error_when: None,
            error: "error".into(),
            error_description: "error_description".into(),
            dead: Vec::new(),
            retry: Vec::new(),
            setup: Vec::new(),
            keep: Vec::new(),
        }
    }
}

/// A JSON pointer (RFC 6901) into a reply, like `/authed_user/access_token`. A bare name `x` means `/x`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Pointer(String);

impl Pointer {
    /// Reads a pointer or a bare name.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self(if text.starts_with('/') { text } else { format!("/{text}") })
    }

    /// The whole reply.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// The pointer, with its leading `/` unless it is the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it points at; `null` counts as missing.
    pub fn find<'a>(&self, reply: &'a Value) -> Option<&'a Value> {
        reply.pointer(&self.0).filter(|value| !value.is_null())
    }
}

impl From<String> for Pointer {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Pointer {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a reply's expiry is written in. Written in snake case; `seconds` is the default (RFC 6749 §5.1).
///
/// With `Seconds` and `Milliseconds`, a number too large for a lifetime, and a text that is a date, are read as dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// A lifetime in seconds.
    #[default]
    Seconds,
    /// A lifetime in milliseconds.
    Milliseconds,
    /// A date in seconds since 1970.
    Unix,
    /// A date in milliseconds since 1970.
    UnixMs,
    /// A date as text (RFC 3339, or as in HTTP).
    Date,
    /// Whatever the reply says, the token's own `exp` counts.
    Jwt,
    /// Tokens don't end: only an expiry in the reply itself counts, neither the token's own `exp` nor the default.
    Never,
}

/// A question about a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    /// Where to look.
    pub pointer: Pointer,
    /// What to ask.
    pub test: Test,
}

/// What is asked of a value. In a form, `true` is `"true"` and `0` is `"0"`.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It is there and equals this.
    Equals(Value),
    /// It is there and does not equal this.
    NotEquals(Value),
    /// It is there, or is not.
    Exists(bool),
}

impl Predicate {
    /// Whether the reply has it so.
    pub fn holds(&self, reply: &Value) -> bool {
        let found = self.pointer.find(reply);
        let same = |value: &Value, wanted: &Value| {
            value == wanted || as_text(value).is_some_and(|text| Some(text) == as_text(wanted))
        };
        match &self.test {
            Test::Equals(wanted) => found.is_some_and(|value| same(value, wanted)),
            Test::NotEquals(wanted) => found.is_some_and(|value| !same(value, wanted)),
            Test::Exists(wanted) => found.is_some() == *wanted,
        }
    }
}

/// Where one more token stands in a reply.
#[derive(Clone, Debug)]
pub struct SecondaryRules {
    /// By which it is asked for.
    pub name: String,
    /// Where the token stands; a reply without it has no such token.
    pub access_token: Pointer,
    /// Where its own refresh token stands.
    pub refresh_token: Option<Pointer>,
    /// Where its lifetime stands.
    pub expires_in: Option<Pointer>,
    /// Where its granted scope stands.
    pub scope: Option<Pointer>,
    /// Where its type stands.
    pub token_type: Option<Pointer>,
    /// What its expiry is written in.
    pub expiry: Expiry,
    /// Its lifetime if the reply doesn't tell.
    pub default_lifetime: Option<Duration>,
}

/// One more token that came in the same reply. `Debug` hides it.
#[derive(Clone, Debug)]
pub struct SecondaryToken {
    /// The token.
    pub access_token: Secret,
    /// Its own refresh token; without one it is renewed with the main one.
    pub refresh_token: Option<Secret>,
    /// Its type; `Bearer` if the reply does not say.
    pub token_type: String,
    /// When it ends, in Unix milliseconds; `None` = unknown.
    pub expires_at: Option<i64>,
    /// Its granted scope.
    pub scope: Option<Vec<String>>,
}

/// What a grant was exchanged for. `Debug` hides the tokens and shows only the names in `extra`.
#[derive(Clone)]
pub struct TokenSet {
    /// The access token: printable ASCII, so that it fits a header.
    pub access_token: Secret,
    /// The refresh token; `None` if the reply brought none, then an older one stays good (RFC 6749 §6).
    pub refresh_token: Option<Secret>,
    /// The ID token of OpenID Connect, unverified.
    pub id_token: Option<Secret>,
    /// The token type as the server writes it; `Bearer` if it does not.
    pub token_type: String,
    /// When the access token ends, in Unix milliseconds; `None` = unknown, which is not "never".
    pub expires_at: Option<i64>,
    /// When the refresh token ends, in Unix milliseconds; `None` = unknown.
    pub refresh_expires_at: Option<i64>,
    /// The granted scope; `None` = as requested (RFC 6749 §5.1).
    pub scope: Option<Vec<String>>,
    /// More tokens of the same grant, by the names that the rules give them.
    pub secondary: BTreeMap<String, SecondaryToken>,
    /// What the provider returned beside these. Whatever is named like a token, a secret or a password,
    /// or holds one of the tokens, is removed at every depth; times of expiry stay.
    pub extra: Map<String, Value>,
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet")
            .field("access_token", &self.access_token)
            .field("refresh_token", &self.refresh_token)
            .field("id_token", &self.id_token)
            .field("token_type", &self.token_type)
            .field("expires_at", &self.expires_at)
            .field("refresh_expires_at", &self.refresh_expires_at)
            .field("scope", &self.scope)
            .field("secondary", &self.secondary)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Reads the reply of a token endpoint. `now_ms` is Unix milliseconds.
///
/// The body may be JSON or a form, whatever its content type says. The expiry may be a number or text,
/// a lifetime or a date; the scope text or an array. A 2xx reply with an error member is a failure.
///
/// # Errors
/// [`TokenFailure`] says which of three kinds it is; it never holds a token.
pub fn read_token_reply(
    rules: &ReplyRules,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
) -> Result<TokenSet, TokenFailure> {
    let reply = Reply::read(rules, status, headers, body, now_ms);
    if let Some(failure) = reply.refusal() {
        return Err(failure);
    }
    let data = reply.data().ok_or_else(|| reply.not_a_token())?;
    let access_token = header_token(&rules.access_token, data).ok_or_else(|| reply.not_a_token())?;
    let secrets = Secrets::in_reply(rules, data);
    let refresh_token = body_token(&rules.refresh_token, data);
    Ok(TokenSet {
        expires_at: expiry::expires_at(&ExpiryRules::of(rules), data, &access_token, now_ms),
        refresh_expires_at: expiry::refresh_expires_at(rules, data, refresh_token.as_deref(), now_ms),
        refresh_token: refresh_token.map(Secret::new),
        id_token: body_token(&rules.id_token, data).map(Secret::new),
        token_type: token_type(Some(&rules.token_type), data, &secrets),
        scope: scope(&rules.scope, data, &secrets),
        secondary: rules.secondary.iter().filter_map(|rules| secondary(rules, data, &secrets, now_ms)).collect(),
        extra: extra(rules, data, &secrets),
        access_token: Secret::new(access_token),
    })
}

/// An access token must fit a header, or using it would fail in a way that nobody understands.
fn header_token(pointer: &Pointer, reply: &Value) -> Option<String> {
    let text = body_token(pointer, reply)?.trim().to_owned();
    let sendable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    sendable.then_some(text)
}

/// Other tokens are sent in a body, where anything goes. None is dropped for its looks: it may be the
/// only one that is still good.
fn body_token(pointer: &Pointer, reply: &Value) -> Option<String> {
    let value = pointer.find(reply).filter(|value| !value.is_boolean())?;
    as_text(value).filter(|text| !text.trim().is_empty())
}

fn secondary(
    rules: &SecondaryRules,
    reply: &Value,
    secrets: &Secrets,
    now_ms: i64,
) -> Option<(String, SecondaryToken)> {
    let access_token = header_token(&rules.access_token, reply)?;
    let expiry_rules = ExpiryRules {
        expires_in: rules.expires_in.as_ref(),
        expires_at: None,
        expiry: rules.expiry,
        default_lifetime: rules.default_lifetime,
    };
    let token = SecondaryToken {
        refresh_token: rules.refresh_token.as_ref().and_then(|place| body_token(place, reply)).map(Secret::new),
        token_type: token_type(rules.token_type.as_ref(), reply, secrets),
        expires_at: expiry::expires_at(&expiry_rules, reply, &access_token, now_ms),
        scope: rules.scope.as_ref().and_then(|place| scope(place, reply, secrets)),
        access_token: Secret::new(access_token),
    };
    Some((rules.name.clone(), token))
}

fn token_type(place: Option<&Pointer>, reply: &Value, secrets: &Secrets) -> String {
    let said = place.and_then(|place| place.find(reply)).and_then(Value::as_str).filter(|text| !secrets.touch(text));
    said.and_then(|text| clean(text, MAX_NAME)).unwrap_or_else(|| "Bearer".to_owned())
}

/// Text separated by spaces (RFC 6749 §3.3) or commas, or an array. An empty one says nothing.
fn scope(place: &Pointer, reply: &Value, secrets: &Secrets) -> Option<Vec<String>> {
    let scopes: Vec<String> = match place.find(reply)? {
        Value::String(text) => text.split([' ', ',', '\t', '\r', '\n']).map(str::to_owned).collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => return None,
    };
    let scopes: Vec<String> = scopes.into_iter().filter(|scope| !scope.is_empty() && !secrets.touch(scope)).collect();
    (!scopes.is_empty()).then_some(scopes)
}

fn extra(rules: &ReplyRules, reply: &Value, secrets: &Secrets) -> Map<String, Value> {
    let read = [&rules.expires_in, &rules.scope, &rules.token_type];
    let wanted = |name: &String| {
        let kept = rules.keep.is_empty() || rules.keep.contains(name);
        kept && !read.iter().any(|pointer| pointer.as_str().strip_prefix('/') == Some(name))
    };
    match secrets.without(reply) {
        Some(Value::Object(members)) => members.into_iter().filter(|(name, _)| wanted(name)).collect(),
        _ => Map::new(),
    }
}

/// A shorter text under a token's own name is a test's token, and occurs in innocent text.
const SHORTEST_TOKEN: usize = 6;

/// A shorter text under a name that only sounds secret (`token_use`) is more likely a word.
const SHORTEST_SECRET: usize = 16;

/// The secrets that a reply holds: where the rules say, and whatever is named like one.
pub(crate) struct Secrets(Vec<Secret>);

impl Secrets {
    pub(crate) fn in_reply(rules: &ReplyRules, reply: &Value) -> Self {
        let mut found = Vec::new();
        let more = rules.secondary.iter().flat_map(|more| [Some(&more.access_token), more.refresh_token.as_ref()]);
        for pointer in [&rules.access_token, &rules.refresh_token, &rules.id_token].into_iter().chain(more.flatten()) {
            let text = pointer.find(reply).and_then(as_text);
            note(text.as_deref(), SHORTEST_TOKEN, &mut found);
        }
        collect(reply, &mut found);
        // The longest first, so that masking one that is part of another leaves no rest.
        found.sort_by_key(|secret| Reverse(secret.expose().len()));
        Self(found)
    }

    /// Whether the text holds a secret, or looks like one.
    fn touch(&self, text: &str) -> bool {
        looks_like_jwt(text) || self.0.iter().any(|secret| text.contains(secret.expose()))
    }

    /// The text with `****` for each secret.
    pub(crate) fn mask(&self, text: &str) -> String {
        let mask = |text: String, secret: &Secret| text.replace(secret.expose(), "****");
        self.0.iter().fold(text.to_owned(), mask)
    }

    /// The value without what is secret in it.
    fn without(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Object(members) => {
                let kept = members.iter().filter(|(name, value)| !is_secret(name, value) && !self.touch(name));
                Some(Value::Object(
                    kept.filter_map(|(name, value)| Some((name.clone(), self.without(value)?))).collect(),
                ))
            }
            Value::Array(items) => Some(Value::Array(items.iter().filter_map(|item| self.without(item)).collect())),
            Value::String(text) => (!self.touch(text)).then(|| value.clone()),
            Value::Number(number) => (!self.touch(&number.to_string())).then(|| value.clone()),
            Value::Null | Value::Bool(_) => Some(value.clone()),
        }
    }
}

fn collect(value: &Value, found: &mut Vec<Secret>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if is_secret(name, value) {
                    note(value.as_str(), SHORTEST_SECRET, found);
                }
                collect(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

fn note(text: Option<&str>, shortest: usize, found: &mut Vec<Secret>) {
    found.extend(text.map(str::trim).filter(|text| text.len() >= shortest).map(Secret::new));
}

/// Whether a member is secret by its name. A number under a name that speaks of expiry is not: a refresh
/// token's lifetime must be kept.
fn is_secret(name: &str, value: &Value) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let lifetime = name.contains("expir")
        && as_text(value).is_some_and(|text| text.parse::<u64>().is_ok_and(|number| number < 1 << 42));
    let named = ["token", "secret", "password", "passwd", "apikey", "privatekey", "credential", "assertion"];
    !lifetime && named.iter().any(|part| name.contains(part))
}

/// A member's text: text as it is, numbers and truth values as JSON writes them.
pub fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}
