//! Why there is no token: sorted by what can be done about it.

use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::body::Body;
use crate::expiry;
use crate::reply::{ReplyRules, Secrets, as_text};
use crate::text::{MAX_NAME, MAX_TEXT, clean};

/// Whose move it is after a failure. Written in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The set-up is wrong: an operator must correct it. The grant may be as good as ever.
    Setup,
    /// The grant is dead: a person must consent again.
    Grant,
    /// It may pass by itself: try again later.
    Transient,
}

/// Why there is no token.
///
/// Safe to show: it never holds a token of the reply; text from the provider is one line of at most 300
/// characters without control characters. Masking an echo of what was sent is the caller's duty.
///
/// | the reply | kind |
/// | --- | --- |
/// | a code that the rules' `dead` lists | `Grant` |
/// | 408, 429, 5xx | `Transient` |
/// | a code that the rules' `retry` or `setup` lists | as listed |
/// | `invalid_grant`, `access_denied`, `expired_token`, `…_required` of OpenID Connect | `Grant` |
/// | `invalid_client`, `unauthorized_client`, `unsupported_grant_type`, `unsupported_token_type`, `invalid_scope`, `invalid_request`, `invalid_target` | `Setup` |
/// | `temporarily_unavailable`, `server_error`, `slow_down`, `authorization_pending` | `Transient` |
/// | 3xx, 404, 405, 410 | `Setup` |
/// | another code with 2xx, 400, 401, 422 | `Setup` |
/// | 2xx with data in which there is no token | `Setup` |
/// | anything else: HTML, an empty or garbled body, a 4xx without an OAuth error | `Transient` |
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct TokenFailure {
    /// Whose move it is.
    pub kind: FailureKind,
    /// The error code (RFC 6749 §5.2), or the provider's own.
    pub code: Option<String>,
    /// The provider's explanation.
    pub description: Option<String>,
    /// The HTTP status.
    pub status: u16,
    /// How long the provider asks to wait (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
    /// What came instead of a token.
    pub what: FailureShape,
}

/// What came instead of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureShape {
    /// An error that the provider states (RFC 6749 §5.2), whatever the status.
    OauthError,
    /// 429.
    TooManyRequests,
    /// 3xx; redirects are not followed.
    Redirect,
    /// A page for people.
    Html,
    /// A 2xx reply that is not a token reply; the text ends the sentence "the token reply can't be used: …".
    NotAToken(&'static str),
    /// Another status than 2xx that says no more.
    HttpStatus,
}

impl TokenFailure {
    fn sentence(&self) -> String {
        let status = self.status;
        let mut text = match &self.what {
            FailureShape::OauthError => format!("the provider refused the request (HTTP {status})"),
            FailureShape::TooManyRequests => {
                format!("the provider is asked too often (HTTP {status})")
            }
            FailureShape::Redirect => {
                format!("the endpoint redirects elsewhere (HTTP {status}), which is not followed")
            }
            FailureShape::Html => {
                format!("the endpoint answered with an HTML page (HTTP {status})")
            }
            FailureShape::NotAToken(why) => {
                format!("the token reply can't be used: {why} (HTTP {status})")
            }
            FailureShape::HttpStatus => format!("the endpoint answered with HTTP {status}"),
        };
        for detail in [&self.code, &self.description].into_iter().flatten() {
            text.push_str(": ");
            text.push_str(detail);
        }
        text
    }
}

/// A reply that is being read.
pub(crate) struct Reply<'a> {
    rules: &'a ReplyRules,
    status: u16,
    body: Body,
    retry_after: Option<Duration>,
}

impl<'a> Reply<'a> {
    pub(crate) fn read(rules: &'a ReplyRules, status: u16, headers: &HeaderMap, body: &[u8], now_ms: i64) -> Self {
        let wait = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wait.and_then(|value| expiry::retry_after(value, now_ms));
        Self { rules, status, body: Body::parse(headers, body), retry_after }
    }

    pub(crate) fn data(&self) -> Option<&Value> {
        self.body.data()
    }

    /// The failure, unless this is a 2xx reply that states no error.
    pub(crate) fn refusal(&self) -> Option<TokenFailure> {
        let what = match (self.status, &self.body) {
            (429, _) => FailureShape::TooManyRequests,
            (300..400, _) => FailureShape::Redirect,
            (200..300, Body::Data(data)) => {
                return self.is_refused(data).then(|| self.failure(FailureShape::OauthError));
            }
            (200..300, Body::Html) | (_, Body::Html) => FailureShape::Html,
            (200..300, _) => return None,
            (_, Body::Data(data)) if self.error_in(data).is_some() => FailureShape::OauthError,
            _ => FailureShape::HttpStatus,
        };
        Some(self.failure(what))
    }

    /// As [`Reply::refusal`], but a 2xx says all: the body of a revocation is not looked at unless it
    /// states an error (RFC 7009 §2.2).
    pub(crate) fn revocation_refusal(&self) -> Option<TokenFailure> {
        let page = (200..300).contains(&self.status) && matches!(self.body, Body::Html);
        if page { None } else { self.refusal() }
    }

    /// For a 2xx reply that states no error and yet holds no token.
    pub(crate) fn not_a_token(&self) -> TokenFailure {
        self.failure(match &self.body {
            Body::Empty => FailureShape::NotAToken("it is empty"),
            Body::Html => FailureShape::Html,
            Body::Garbled(why) => FailureShape::NotAToken(why),
            Body::Data(data) if self.error_in(data).is_some() => FailureShape::OauthError,
            Body::Data(data) if self.rules.access_token.find(data).is_some() => {
                FailureShape::NotAToken("its access token is empty or holds characters that no header may carry")
            }
            Body::Data(_) => FailureShape::NotAToken("there is no access token where the definition says"),
        })
    }

    /// Whether a 2xx reply is an error all the same: by the definition's rules, or, where there is none
    /// for success, because it has an error member that isn't empty.
    fn is_refused(&self, data: &Value) -> bool {
        let wrong = self.rules.error_when.as_ref().is_some_and(|rule| rule.holds(data));
        wrong
            || match &self.rules.success {
                Some(rule) => !rule.holds(data),
                None => self.rules.error.find(data).is_some_and(states_something),
            }
    }

    fn failure(&self, what: FailureShape) -> TokenFailure {
        let said = self.data().map(|data| self.said(data)).unwrap_or_default();
        TokenFailure {
            kind: self.kind(said.code.as_deref(), said.description.as_deref()),
            code: said.code,
            description: said.description,
            status: self.status,
            retry_after: self.retry_after,
            what,
        }
    }

    /// The table in the documentation of [`TokenFailure`].
    fn kind(&self, code: Option<&str>, description: Option<&str>) -> FailureKind {
        // Where the code is a number or a word for many cases, the explanation begins with a finer one.
        let first_word = description.and_then(|text| text.split([' ', ':', ',']).next());
        let listed =
            |list: &[String]| code.iter().chain(&first_word).any(|code| list.iter().any(|known| covers(known, code)));
        match self.status {
            _ if listed(&self.rules.dead) => FailureKind::Grant,
            408 | 429 | 500.. => FailureKind::Transient,
            _ if listed(&self.rules.retry) => FailureKind::Transient,
            _ if listed(&self.rules.setup) => FailureKind::Setup,
            status => code.and_then(standard_kind).unwrap_or_else(|| self.kind_by_status(status, code.is_some())),
        }
    }

    fn kind_by_status(&self, status: u16, has_code: bool) -> FailureKind {
        match status {
            300..400 | 404 | 405 | 410 => FailureKind::Setup,
            200..300 | 400 | 401 | 422 if has_code => FailureKind::Setup,
            200..300 if self.data().is_some() => FailureKind::Setup,
            _ => FailureKind::Transient,
        }
    }

    fn said(&self, data: &Value) -> Said {
        let secrets = Secrets::in_reply(self.rules, data);
        let shown = |text: String, max| clean(&secrets.mask(&text), max);
        let error = self.error_in(data);
        let code = error.and_then(code_in);
        let description = self.description_in(data, error).filter(|text| Some(text) != code.as_ref());
        Said {
            code: code.and_then(|text| shown(text, MAX_NAME)),
            description: description.and_then(|text| shown(text, MAX_TEXT)),
        }
    }

    /// The error where the rules say, or under another name that is in use.
    fn error_in<'b>(&self, data: &'b Value) -> Option<&'b Value> {
        let declared = self.rules.error.find(data).filter(|value| states_something(value));
        declared.or_else(|| OTHER_ERRORS.iter().find_map(|name| data.get(name).filter(|value| is_error(value))))
    }

    fn description_in(&self, data: &Value, error: Option<&Value>) -> Option<String> {
        let declared = self.rules.error_description.find(data).and_then(first_string);
        declared.or_else(|| error.and_then(text_in)).or_else(|| text_in(data))
    }
}

/// What a body says about its error, fit to be shown.
#[derive(Default)]
struct Said {
    code: Option<String>,
    description: Option<String>,
}

/// Where errors stand that aren't where RFC 6749 §5.2 puts them.
const OTHER_ERRORS: [&str; 5] = ["errors", "error_code", "errorCode", "errorType", "code"];

/// Where the code stands in an error that is an object, best first.
const CODES: [&str; 9] =
    ["error", "code", "error_code", "errorCode", "errorType", "error_type", "type", "status", "name"];

/// Where the explanation stands, best first.
const TEXTS: [&str; 10] = [
    "error_description",
    "message",
    "description",
    "error_message",
    "errorMessage",
    "error_msg",
    "detail",
    "details",
    "title",
    "msg",
];

/// Whether an entry of a list of codes means this code: `AADSTS7000*` covers all that begin so.
fn covers(known: &str, code: &str) -> bool {
    match known.strip_suffix('*') {
        Some(begin) => code.get(..begin.len()).is_some_and(|start| start.eq_ignore_ascii_case(begin)),
        None => known.eq_ignore_ascii_case(code),
    }
}

fn standard_kind(code: &str) -> Option<FailureKind> {
    Some(match code {
        // RFC 6749 §5.2, RFC 8628 §3.5.
        "invalid_grant" | "access_denied" | "expired_token" => FailureKind::Grant,
        // OpenID Connect Core §3.1.2.6: the server wants to see the person.
        "interaction_required" | "login_required" | "consent_required" | "account_selection_required" => {
            FailureKind::Grant
        }
        // RFC 6749 §5.2, RFC 8707 §2, RFC 7009 §2.2.1.
        "invalid_client" | "unauthorized_client" | "unsupported_grant_type" | "invalid_scope" | "invalid_request" => {
            FailureKind::Setup
        }
        "invalid_target" | "unsupported_token_type" => FailureKind::Setup,
        // RFC 6749 §4.1.2.1, RFC 8628 §3.5.
        "temporarily_unavailable" | "server_error" | "slow_down" | "authorization_pending" => FailureKind::Transient,
        _ => return None,
    })
}

/// `"error": null`, `""`, `false`, `0`, `[]` and `{}` say that there is none.
fn states_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(stated) => *stated,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Under another name than the rules give, a number is more likely a status than an error code.
fn is_error(value: &Value) -> bool {
    let status = matches!(value, Value::Number(_) | Value::Bool(_))
        || value.as_str().is_some_and(|text| text.parse::<f64>().is_ok());
    !status && states_something(value)
}

/// The code of an error that may be text, a number, an object or a list of these.
fn code_in(error: &Value) -> Option<String> {
    match error {
        Value::Object(members) => code_in_object(members),
        Value::Array(items) => items.iter().find_map(code_in),
        Value::String(text) => (!text.trim().is_empty()).then(|| text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) => None,
    }
}

fn code_in_object(members: &Map<String, Value>) -> Option<String> {
    let named = CODES.iter().find_map(|name| members.get(*name).and_then(first_string));
    let other = || {
        members.iter().filter(|(name, _)| !TEXTS.contains(&name.as_str())).find_map(|(_, value)| first_string(value))
    };
    let number =
        || CODES.iter().find_map(|name| members.get(*name).filter(|value| value.is_number()).and_then(as_text));
    named.or_else(number).or_else(other).or_else(|| members.values().find_map(first_string))
}

fn text_in(value: &Value) -> Option<String> {
    match value {
        Value::Object(members) => TEXTS.iter().find_map(|name| members.get(*name).and_then(first_string)),
        Value::Array(items) => items.iter().find_map(text_in),
        _ => None,
    }
}

fn first_string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.trim().is_empty()).then(|| text.trim().to_owned()),
        Value::Array(items) => items.iter().find_map(first_string),
        Value::Object(members) => members.values().find_map(first_string),
        _ => None,
    }
}
