//! What may go wrong: the kinds, where each makes sense, and how a fault is written on the command line and in JSON.
//!
//! One reader serves both: a flag is first turned into the JSON members it stands for.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};

/// Something that goes wrong at an endpoint.
///
/// As a flag: `[on=]kind[:value][,member=value…]` (`lost`, `slow:2000`, `api=status:500`, `token=lost,times=1,grant=refresh_token`).
/// As JSON: `{"on", "kind", "times", "after", "grant", "client", …}`, read by [`Fault::from_json`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// Where it happens.
    pub on: On,
    /// What happens.
    #[serde(flatten)]
    pub kind: Kind,
    /// How many requests it hits; 0: for ever.
    pub times: u64,
    /// How many matching requests pass unharmed before.
    pub after: u64,
    /// Only token requests with this `grant_type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Only requests of this client (at the API: with a token of this client).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl Fault {
    /// A fault that hits every request at `on`.
    pub fn new(on: On, kind: Kind) -> Self {
        Self { on, kind, times: 0, after: 0, grant: None, client: None }
    }

    /// The same, for the next `times` requests only (0: for ever).
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// The same, for one `grant_type` only.
    pub fn grant(mut self, grant: &str) -> Self {
        self.grant = Some(grant.to_owned());
        self
    }

    /// Reads the members of a JSON object.
    ///
    /// Errors name the first member that is unknown, missing or out of place.
    pub fn from_json(members: Map<String, Value>) -> Result<Self, BadInput> {
        let mut members = Members(members);
        let name = members
            .text("kind")?
            .ok_or_else(|| BadInput::new("kind", "it is missing", format!("use one of {}", names(KINDS))))?;
        let spec = KINDS.iter().find(|spec| spec.name == name).ok_or_else(|| unknown_kind(&name))?;
        let fault = Self {
            on: members.text("on")?.map_or(Ok(spec.on[0]), |on| on.parse())?,
            times: members.number("times", 0)?,
            after: members.number("after", 0)?,
            grant: members.text("grant")?,
            client: members.text("client")?,
            kind: Kind::read(spec.name, &mut members)?,
        };
        members.finish(spec)?;
        fault.check(spec)
    }

    fn check(self, spec: &KindSpec) -> Result<Self, BadInput> {
        if !spec.on.contains(&self.on) {
            let places = spec.on.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let reason = format!("{} can't happen on {}", spec.name, self.on);
            return Err(BadInput::new("on", reason, format!("use {places}")));
        }
        match &self.grant {
            Some(_) if self.on != On::Token => Err(BadInput::new(
                "grant",
                format!("{} requests have no grant", self.on),
                "leave it out, or set on to token",
            )),
            Some(grant) if !GRANTS.contains(&grant.as_str()) => Err(BadInput::new(
                "grant",
                format!("\"{grant}\" is not a grant type"),
                format!("use one of {}", GRANTS.join(", ")),
            )),
            _ => Ok(self),
        }
    }
}

impl FromStr for Fault {
    type Err = BadInput;

    fn from_str(flag: &str) -> Result<Self, BadInput> {
        let mut parts = flag.split(',');
        let head = parts.next().unwrap_or_default();
        let (on, head) = head.split_once('=').map_or((None, head), |(on, rest)| (Some(on), rest));
        let (kind, value) = head.split_once(':').map_or((head, None), |(kind, value)| (kind, Some(value)));
        let mut members = Map::new();
        members.insert("kind".to_owned(), kind.into());
        if let Some(on) = on {
            members.insert("on".to_owned(), on.into());
        }
        if let Some(value) = value {
            let spec = KINDS.iter().find(|spec| spec.name == kind).ok_or_else(|| unknown_kind(kind))?;
            let member = spec.members.first().ok_or_else(|| {
                BadInput::new("kind", format!("{kind} takes no value"), format!("write {kind} without :{value}"))
            })?;
            members.insert((*member).to_owned(), scalar(value));
        }
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                BadInput::new(
                    "fault",
                    format!("\"{part}\" is not NAME=VALUE"),
                    "write it as in lost,times=1,grant=refresh_token",
                )
            })?;
            members.insert(name.to_owned(), scalar(value));
        }
        Self::from_json(members)
    }
}

/// Where a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// `POST /token`.
    Token,
    /// `GET /authorize`; for the issuer kinds, the redirect that ends the consent.
    Authorize,
    /// `/api/…` and `/userinfo`.
    Api,
    /// `POST /revoke`.
    Revoke,
    /// Both discovery documents.
    Discovery,
}

const PLACES: &[On] = &[On::Token, On::Authorize, On::Api, On::Revoke, On::Discovery];

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Authorize => "authorize",
            Self::Api => "api",
            Self::Revoke => "revoke",
            Self::Discovery => "discovery",
        })
    }
}

impl FromStr for On {
    type Err = BadInput;

    fn from_str(text: &str) -> Result<Self, BadInput> {
        PLACES.iter().copied().find(|place| place.to_string() == text).ok_or_else(|| {
            let places = PLACES.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            BadInput::new(
                "on",
                format!("\"{text}\" is not a place where a fault can happen"),
                format!("use one of {places}"),
            )
        })
    }
}

/// What happens. The names in JSON and in flags are these in snake case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// The request is worked at once, the reply comes so many milliseconds later.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// The request is worked, then the connection is cut without a reply.
    Lost,
    /// The connection is cut before any work.
    Drop,
    /// The request is worked twice and the second reply is sent, as by a proxy that repeats.
    Duplicated,
    /// The request is worked, the reply is cut in the middle of its text.
    Malformed,
    /// The request is worked, the reply has no body.
    Empty,
    /// No work: a page of HTML with status 200, as from a captive portal.
    Html,
    /// No work: this status and body.
    Status {
        /// 200 to 599.
        status: u16,
        /// Sent as it is.
        body: String,
    },
    /// No work: 429 with `Retry-After`.
    RateLimited {
        /// Seconds.
        retry_after: u64,
    },
    /// No work: 503.
    ServerError,
    /// No work: an OAuth error reply (RFC 6749 §5.2) with status 400, or 401 for `invalid_client`.
    Error {
        /// The OAuth error code.
        error: String,
    },
    /// No work: an OAuth error body with status 200.
    #[serde(rename = "error_200")]
    Error200 {
        /// The OAuth error code.
        error: String,
    },
    /// No work: 302 to `/elsewhere`, which counts who followed.
    Redirect,
    /// No work: 401 `invalid_token`, although the token is valid.
    Unauthorized,
    /// The request is worked, the reply is padded with 50 MB.
    Huge,
    /// The request is worked, the reply's head comes at once and its body byte by byte.
    SlowBody {
        /// Milliseconds between two bytes.
        ms: u64,
    },
    /// The token reply says nothing of the expiry.
    NoExpiresIn,
    /// The token reply has `expires_in` as text.
    ExpiresText,
    /// The token reply is form-encoded.
    FormReply,
    /// The token reply has no `token_type`.
    NoTokenType,
    /// The document, or the redirect's `iss`, names another issuer.
    WrongIssuer,
    /// The redirect has no `iss`.
    NoIss,
    /// Refresh tokens rotate by [`crate::Rotation::Family`], whatever the options say.
    ReuseKills,
    /// The grant that the request relies on is revoked just before.
    Revoked,
}

impl Kind {
    /// The name in flags, JSON and counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Slow { .. } => "slow",
            Self::Lost => "lost",
            Self::Drop => "drop",
            Self::Duplicated => "duplicated",
            Self::Malformed => "malformed",
            Self::Empty => "empty",
            Self::Html => "html",
            Self::Status { .. } => "status",
            Self::RateLimited { .. } => "rate_limited",
            Self::ServerError => "server_error",
            Self::Error { .. } => "error",
            Self::Error200 { .. } => "error_200",
            Self::Redirect => "redirect",
            Self::Unauthorized => "unauthorized",
            Self::Huge => "huge",
            Self::SlowBody { .. } => "slow_body",
            Self::NoExpiresIn => "no_expires_in",
            Self::ExpiresText => "expires_text",
            Self::FormReply => "form_reply",
            Self::NoTokenType => "no_token_type",
            Self::WrongIssuer => "wrong_issuer",
            Self::NoIss => "no_iss",
            Self::ReuseKills => "reuse_kills",
            Self::Revoked => "revoked",
        }
    }

    /// Whether it answers in place of the endpoint.
    pub(crate) fn replaces_work(&self) -> bool {
        matches!(
            self,
            Self::Drop
                | Self::Html
                | Self::Status { .. }
                | Self::RateLimited { .. }
                | Self::ServerError
                | Self::Error { .. }
                | Self::Error200 { .. }
                | Self::Redirect
                | Self::Unauthorized
        )
    }

    fn concerns_issuer(&self) -> bool {
        matches!(self, Self::WrongIssuer | Self::NoIss)
    }

    fn read(name: &str, members: &mut Members) -> Result<Self, BadInput> {
        Ok(match name {
            "slow" => Self::Slow { ms: members.number("ms", 2000)? },
            "lost" => Self::Lost,
            "drop" => Self::Drop,
            "duplicated" => Self::Duplicated,
            "malformed" => Self::Malformed,
            "empty" => Self::Empty,
            "html" => Self::Html,
            "status" => Self::Status { status: members.status()?, body: members.text("body")?.unwrap_or_default() },
            "rate_limited" => Self::RateLimited { retry_after: members.number("retry_after", 1)? },
            "server_error" => Self::ServerError,
            "error" => Self::Error { error: members.error_code()? },
            "error_200" => Self::Error200 { error: members.error_code()? },
            "redirect" => Self::Redirect,
            "unauthorized" => Self::Unauthorized,
            "huge" => Self::Huge,
            "slow_body" => Self::SlowBody { ms: members.number("ms", 100)? },
            "no_expires_in" => Self::NoExpiresIn,
            "expires_text" => Self::ExpiresText,
            "form_reply" => Self::FormReply,
            "no_token_type" => Self::NoTokenType,
            "wrong_issuer" => Self::WrongIssuer,
            "no_iss" => Self::NoIss,
            "reuse_kills" => Self::ReuseKills,
            "revoked" => Self::Revoked,
            _ => return Err(unknown_kind(name)),
        })
    }
}

/// Why an input was refused: which field, the reason, the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadInput {
    /// The member or flag.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead.
    pub remedy: String,
}

impl BadInput {
    /// All three at once.
    pub fn new(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.reason, self.remedy)
    }
}

impl std::error::Error for BadInput {}

/// A request as the faults and the counters see it.
pub(crate) struct Call<'a> {
    pub(crate) on: Option<On>,
    pub(crate) endpoint: &'a str,
    pub(crate) grant: Option<&'a str>,
    pub(crate) client: Option<&'a str>,
    /// At the authorization endpoint: the reply ends the consent.
    pub(crate) redirects: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(on: impl Into<Option<On>>, endpoint: &'a str) -> Self {
        Self { on: on.into(), endpoint, grant: None, client: None, redirects: false }
    }
}

/// The faults that are set, in the order in which they were.
#[derive(Default)]
pub(crate) struct Faults {
    set: Vec<Active>,
    last_id: u64,
}

/// A fault with what is left of it.
#[derive(Clone, Serialize)]
pub(crate) struct Active {
    id: u64,
    #[serde(flatten)]
    fault: Fault,
    hits: u64,
    /// `null` in JSON: for ever.
    left: Option<u64>,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) -> u64 {
        self.last_id += 1;
        let left = (fault.times > 0).then_some(fault.times);
        self.set.push(Active { id: self.last_id, fault, hits: 0, left });
        self.last_id
    }

    pub(crate) fn list(&self) -> &[Active] {
        &self.set
    }

    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.set).len()
    }

    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.set.len();
        self.set.retain(|active| active.id != id);
        self.set.len() < before
    }

    /// The kinds that hit this call. All that match do; of those that answer in place of the endpoint only the first, and the
    /// others wait for their turn.
    pub(crate) fn claim(&mut self, call: &Call<'_>) -> Vec<Kind> {
        let mut kinds = Vec::<Kind>::new();
        for active in &mut self.set {
            let replaced = kinds.iter().any(Kind::replaces_work);
            if active.matches(call) && !(replaced && active.fault.kind.replaces_work()) && active.spend() {
                kinds.push(active.fault.kind.clone());
            }
        }
        self.set.retain(|active| active.left != Some(0));
        kinds
    }
}

impl Active {
    fn matches(&self, call: &Call<'_>) -> bool {
        let wanted = |filter: &Option<String>, found: Option<&str>| filter.is_none() || filter.as_deref() == found;
        Some(self.fault.on) == call.on
            && wanted(&self.fault.grant, call.grant)
            && wanted(&self.fault.client, call.client)
            && (self.fault.on != On::Authorize || self.meets_consent(call))
    }

    /// The issuer kinds wait for the redirect; the others hit the page.
    fn meets_consent(&self, call: &Call<'_>) -> bool {
        if self.fault.kind.concerns_issuer() { call.redirects } else { call.endpoint == "authorize" }
    }

    fn spend(&mut self) -> bool {
        if self.fault.after > 0 {
            self.fault.after -= 1;
            return false;
        }
        self.hits += 1;
        self.left = self.left.map(|left| left - 1);
        true
    }
}

/// The grants that the token endpoint knows.
pub(crate) const GRANTS: &[&str] = &["authorization_code", "client_credentials", "password", "refresh_token"];

struct KindSpec {
    name: &'static str,
    /// Its own members; a flag's value is the first.
    members: &'static [&'static str],
    /// Where it makes sense; the first is the default.
    on: &'static [On],
}

const fn spec(name: &'static str, members: &'static [&'static str], on: &'static [On]) -> KindSpec {
    KindSpec { name, members, on }
}

const KINDS: &[KindSpec] = &[
    spec("slow", &["ms"], PLACES),
    spec("lost", &[], PLACES),
    spec("drop", &[], PLACES),
    spec("duplicated", &[], PLACES),
    spec("malformed", &[], PLACES),
    spec("empty", &[], PLACES),
    spec("html", &[], PLACES),
    spec("status", &["status", "body"], PLACES),
    spec("rate_limited", &["retry_after"], PLACES),
    spec("server_error", &[], PLACES),
    spec("error", &["error"], PLACES),
    spec("error_200", &["error"], PLACES),
    spec("redirect", &[], PLACES),
    spec("huge", &[], PLACES),
    spec("slow_body", &["ms"], PLACES),
    spec("no_expires_in", &[], &[On::Token]),
    spec("expires_text", &[], &[On::Token]),
    spec("form_reply", &[], &[On::Token]),
    spec("no_token_type", &[], &[On::Token]),
    spec("reuse_kills", &[], &[On::Token]),
    spec("revoked", &[], &[On::Token, On::Api]),
    spec("unauthorized", &[], &[On::Api]),
    spec("wrong_issuer", &[], &[On::Discovery, On::Authorize]),
    spec("no_iss", &[], &[On::Authorize]),
];

fn names(kinds: &[KindSpec]) -> String {
    kinds.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ")
}

fn unknown_kind(name: &str) -> BadInput {
    BadInput::new("kind", format!("\"{name}\" is not a kind of fault"), format!("use one of {}", names(KINDS)))
}

/// A flag's value as JSON: digits are a number.
fn scalar(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| text.into(), Value::from)
}

/// JSON members that are taken one by one; what is left over is unknown.
struct Members(Map<String, Value>);

impl Members {
    fn text(&mut self, name: &str) -> Result<Option<String>, BadInput> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            // A flag's value made of digits, as in body=200.
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(BadInput::new(name, "it is not text", "write it as a JSON string")),
        }
    }

    fn number(&mut self, name: &str, default: u64) -> Result<u64, BadInput> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_u64().ok_or_else(|| {
                BadInput::new(
                    name,
                    format!("{value} is not a whole number"),
                    "use 0 or more, without quotes or a fraction",
                )
            }),
        }
    }

    /// hyper sends no 1xx as a final reply.
    fn status(&mut self) -> Result<u16, BadInput> {
        let status = self.number("status", 500)?;
        u16::try_from(status)
            .ok()
            .filter(|status| (200..=599).contains(status))
            .ok_or_else(|| BadInput::new("status", format!("{status} is not the status of a reply"), "use 200 to 599"))
    }

    fn error_code(&mut self) -> Result<String, BadInput> {
        Ok(self.text("error")?.unwrap_or_else(|| "invalid_grant".to_owned()))
    }

    fn finish(self, spec: &KindSpec) -> Result<(), BadInput> {
        let Some(name) = self.0.keys().next() else {
            return Ok(());
        };
        let mut known = vec!["on", "kind", "times", "after", "grant", "client"];
        known.extend(spec.members);
        let reason = format!("{} has no such member", spec.name);
        Err(BadInput::new(name, reason, format!("use only {}", known.join(", "))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_and_json_say_the_same() {
        let cases = [
            ("lost", json!({"kind": "lost"})),
            ("token=lost", json!({"on": "token", "kind": "lost"})),
            ("slow:2500", json!({"kind": "slow", "ms": 2500})),
            ("api=status:500", json!({"on": "api", "kind": "status", "status": 500})),
            ("status:418,body=teapot", json!({"kind": "status", "status": 418, "body": "teapot"})),
            ("rate_limited:30,times=2", json!({"kind": "rate_limited", "retry_after": 30, "times": 2})),
            ("error_200:invalid_client", json!({"kind": "error_200", "error": "invalid_client"})),
            ("unauthorized", json!({"on": "api", "kind": "unauthorized"})),
            ("wrong_issuer", json!({"on": "discovery", "kind": "wrong_issuer"})),
            (
                "token=lost,times=1,after=2,grant=refresh_token,client=me",
                json!({"kind": "lost", "times": 1, "after": 2, "grant": "refresh_token", "client": "me"}),
            ),
        ];
        for (flag, json) in cases {
            let from_json = Fault::from_json(json.as_object().unwrap().clone()).unwrap();
            assert_eq!(flag.parse::<Fault>().unwrap(), from_json, "{flag}");
        }
    }

    #[test]
    fn every_kind_is_read_under_its_name_and_written_back() {
        for spec in KINDS {
            let fault = spec.name.parse::<Fault>().unwrap();
            assert_eq!(fault.kind.name(), spec.name);
            assert_eq!(fault.on, spec.on[0]);
            let written = serde_json::to_value(&fault).unwrap();
            assert_eq!(written["kind"], spec.name);
            assert_eq!(Fault::from_json(written.as_object().unwrap().clone()).unwrap(), fault);
        }
    }

    #[test]
    fn the_users_page_lists_every_kind() {
        let page = include_str!("../../../docs/sandbox.md");
        for spec in KINDS {
            assert!(page.contains(&format!("| `{}", spec.name)), "docs/sandbox.md has no row for {}", spec.name);
        }
    }

    #[test]
    fn refusals_name_field_reason_and_remedy() {
        let cases = [
            ("slwo", "kind: \"slwo\" is not a kind of fault; use one of slow, lost, drop"),
            ("slwo:3", "kind: \"slwo\" is not a kind of fault; use one of slow, lost, drop"),
            ("tokn=lost", "on: \"tokn\" is not a place where a fault can happen; use one of token, authorize, api"),
            ("token=no_iss", "on: no_iss can't happen on token; use authorize"),
            ("slow:soon", "ms: \"soon\" is not a whole number; use 0 or more"),
            ("lost:3", "kind: lost takes no value; write lost without :3"),
            ("lost,often", "fault: \"often\" is not NAME=VALUE; write it as in"),
            ("lost,ms=3", "ms: lost has no such member; use only on, kind, times, after, grant, client"),
            ("status:99", "status: 99 is not the status of a reply; use 200 to 599"),
            ("lost,grant=refresh", "grant: \"refresh\" is not a grant type; use one of authorization_code"),
            ("api=lost,grant=password", "grant: api requests have no grant; leave it out"),
        ];
        for (flag, text) in cases {
            let error = flag.parse::<Fault>().unwrap_err().to_string();
            assert!(error.starts_with(text), "{flag}: {error}");
        }
    }

    #[test]
    fn a_fault_waits_hits_so_often_and_goes() {
        let mut faults = Faults::default();
        faults.add("lost,after=1,times=2,grant=password".parse().unwrap());
        let hit = |faults: &mut Faults, grant| {
            faults.claim(&Call { grant: Some(grant), ..Call::new(On::Token, "token") }).len()
        };
        assert_eq!(hit(&mut faults, "refresh_token"), 0);
        let hits: Vec<_> = (0..4).map(|_| hit(&mut faults, "password")).collect();
        assert_eq!(hits, [0, 1, 1, 0]);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn replies_in_place_of_the_endpoint_take_turns_and_the_others_add_up() {
        let mut faults = Faults::default();
        for flag in ["status:500,times=1", "slow:1", "html,times=1"] {
            faults.add(flag.parse().unwrap());
        }
        let mut names = || {
            let kinds = faults.claim(&Call::new(On::Token, "token"));
            kinds.iter().map(Kind::name).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["status", "slow"]);
        assert_eq!(names(), ["slow", "html"]);
        assert_eq!(names(), ["slow"]);
    }
}
