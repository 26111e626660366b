//! Why a step of a test failed, judged from what was seen: pure, no I/O.
//!
//! [`crate::explain`] says what a refusal means wherever it happens. Here more is known: the exchange itself, what the provider offers, what the token says of
//! itself. A remedy that the definition knows for an error stays; ours are guesses beside it.

mod redirect;
mod remedy;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use keyholder_oauth::{ClientAuth, date_ms};
use keyholder_provider::GrantKind;
use serde::Serialize;
use serde_json::Value;

pub use redirect::{Difference, redirect_difference};
use remedy::{
    invalid_client, invalid_scope, missing_scope, no_refresh_token, other_audience, prefix, redirect, wrong_grant,
};

use crate::egress::EgressFault;
use crate::error::Error;
use crate::model::Status;

/// Clocks that are so far apart fail signatures and expiries, in milliseconds.
const CLOCKS_APART: i64 = 60_000;

/// What is probably wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The provider doesn't know the client, or its secret is wrong.
    InvalidClient,
    /// The redirect URI isn't the registered one.
    RedirectMismatch,
    /// A scope that the provider doesn't know or doesn't give.
    InvalidScope,
    /// The client may not use this grant, or the provider doesn't offer it.
    WrongGrant,
    /// Nothing answered: no address, no connection, no reply in time.
    Unreachable,
    /// This installation's own policy forbids the address.
    Refused,
    /// The certificate or the handshake.
    Tls,
    /// The clocks of the two machines differ.
    Clock,
    /// A page or a garbled text instead of data.
    NotJson,
    /// The token has expired.
    Expired,
    /// The token is meant for another API.
    Audience,
    /// The grant doesn't cover the call.
    InsufficientScope,
    /// The API doesn't take the token as it is sent.
    HeaderPrefix,
    /// There is nothing to renew with.
    NoRefreshToken,
    /// The provider ended the grant.
    GrantDead,
    /// Asked too often.
    RateLimited,
    /// The provider fails by itself.
    ProviderDown,
    /// Nobody has connected it, or it was ended.
    NotConnected,
    /// The data source's own rules don't let the call pass.
    NotAllowed,
    /// A setting is missing, or can't be used.
    Settings,
    /// Something else; the message says what is known.
    Other,
}

impl Cause {
    /// The word in API and CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::InvalidClient => "invalid_client",
            Cause::RedirectMismatch => "redirect_mismatch",
            Cause::InvalidScope => "invalid_scope",
            Cause::WrongGrant => "wrong_grant",
            Cause::Unreachable => "unreachable",
            Cause::Refused => "refused",
            Cause::Tls => "tls",
            Cause::Clock => "clock",
            Cause::NotJson => "not_json",
            Cause::Expired => "expired",
            Cause::Audience => "audience",
            Cause::InsufficientScope => "insufficient_scope",
            Cause::HeaderPrefix => "header_prefix",
            Cause::NoRefreshToken => "no_refresh_token",
            Cause::GrantDead => "grant_dead",
            Cause::RateLimited => "rate_limited",
            Cause::ProviderDown => "provider_down",
            Cause::NotConnected => "not_connected",
            Cause::NotAllowed => "not_allowed",
            Cause::Settings => "settings",
            Cause::Other => "other",
        }
    }
}

/// What came back, or why nothing did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) fault: Option<EgressFault>,
    pub(crate) status: Option<u16>,
    /// The clock of the one who answered, Unix milliseconds.
    pub(crate) date: Option<i64>,
    /// The title of a page that came instead of data; empty where it has none.
    pub(crate) page: Option<String>,
    /// It said that it is JSON, and isn't.
    pub(crate) garbled: bool,
    /// `WWW-Authenticate`.
    pub(crate) challenge: Option<String>,
}

impl Seen {
    pub(crate) fn reply(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let kind = text(http::header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
        let start = body.trim_ascii_start();
        let starts_as_page = start.get(..1) == Some(b"<") && !kind.contains("xml");
        let is_page = kind.starts_with("text/html") || (kind.is_empty() && starts_as_page);
        let is_json = kind.contains("json");
        Self {
            fault: None,
            status: Some(status),
            date: text(http::header::DATE).and_then(date_ms),
            page: is_page.then(|| title(&String::from_utf8_lossy(body))),
            garbled: is_json && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err(),
            challenge: text(http::header::WWW_AUTHENTICATE).map(str::to_owned),
        }
    }
}

/// What was set up here, as far as it can be what is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    pub(crate) grant: GrantKind,
    pub(crate) client_auth: ClientAuth,
    /// The names of client authentications that the discovery document offers.
    pub(crate) offered_auth: Vec<String>,
    pub(crate) scopes: Vec<String>,
    /// Those that the provider is known to have; empty: nothing is known.
    pub(crate) known_scopes: Vec<String>,
    /// The definition's methods.
    pub(crate) methods: Vec<String>,
    /// What the discovery document offers; empty: nothing is known.
    pub(crate) offered_grants: Vec<String>,
    pub(crate) redirect_uri: Option<String>,
    pub(crate) audience: Option<String>,
    /// Parameters of the consent that the definition sets, such as `access_type=offline`.
    pub(crate) consent_params: Vec<(String, String)>,
    pub(crate) setup: String,
}

/// A call that the API didn't take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Called {
    pub(crate) host: String,
    /// When the token ends by what the provider said, Unix milliseconds.
    pub(crate) expires_at: Option<i64>,
    /// What the token says of itself, where it is a JWT.
    pub(crate) claims: Option<Claims>,
    pub(crate) granted: Option<String>,
    /// What stands before the token; `None`: it isn't sent in `Authorization`.
    pub(crate) prefix: Option<String>,
}

/// Of a JWT access token (RFC 9068), unverified: it is only looked at to explain a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Unix milliseconds.
    pub(crate) expires_at: Option<i64>,
    pub(crate) audience: Vec<String>,
    pub(crate) scopes: Vec<String>,
}

impl Claims {
    pub(crate) fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let claims = claims.as_object()?;
        let texts = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.split(' ').map(str::to_owned).collect(),
            Some(Value::Array(items)) => items.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        Some(Self {
            expires_at: claims.get("exp").and_then(Value::as_i64).map(|at| at.saturating_mul(1000)),
            audience: texts(claims.get("aud")),
            scopes: texts(claims.get("scope").or(claims.get("scp"))),
        })
    }
}

/// What a step failed with.
#[derive(Clone, Debug)]
pub(crate) enum Failing {
    /// The provider said so, or something on the way.
    Said,
    /// The renewal has no refresh token.
    NothingToRenewWith,
    /// The API refused the call.
    Call(Box<Called>),
}

/// All that a judgement is made of.
pub(crate) struct Evidence<'a> {
    pub(crate) failing: Failing,
    /// The OAuth error code.
    pub(crate) code: Option<&'a str>,
    /// What was said, in words.
    pub(crate) said: &'a str,
    pub(crate) seen: Option<&'a Seen>,
    pub(crate) ours: Option<&'a Ours>,
    pub(crate) now: i64,
}

/// What is probably wrong, and what to do about it; `None` for the remedy: what the failure says itself is the best that is known.
pub(crate) fn cause(evidence: &Evidence<'_>) -> (Cause, Option<String>) {
    if matches!(evidence.failing, Failing::NothingToRenewWith) {
        return (Cause::NoRefreshToken, evidence.ours.map(no_refresh_token));
    }
    if let Some(fault) = evidence.seen.and_then(|seen| seen.fault.as_ref()) {
        return by_fault(fault);
    }
    if let Some(remedy) = clocks(evidence) {
        return (Cause::Clock, Some(remedy));
    }
    if let Failing::Call(called) = &evidence.failing {
        return by_call(evidence, called);
    }
    if let Some(found) = evidence.code.and_then(|code| by_code(code, evidence)) {
        return found;
    }
    by_shape(evidence)
}

/// Of what was refused here, whatever was exchanged before: the cause is known, and what to do about it.
pub(crate) fn of_own_refusal(error: &Error) -> Option<(Cause, &'static str)> {
    Some(match error {
        Error::NotAllowed { .. } => (
            Cause::NotAllowed,
            "Add a rule for it to what may be called in the data source, or correct the request's method and path.",
        ),
        Error::HostNotAllowed { .. } => {
            (Cause::Refused, "Call a host that the definition names, or set the API base URL to this one.")
        }
        Error::ApiLimited { .. } | Error::CallerLimited { .. } => {
            (Cause::RateLimited, "Wait as long as it says, then try again.")
        }
        Error::NotReady { failure: None, state: Status::Pending, .. } => (
            Cause::NotConnected,
            "Have the person finish the consent in the browser, or make a new link on the connection's page.",
        ),
        Error::NotReady { failure: None, .. } => (Cause::NotConnected, "Connect it on its page, then try again."),
        Error::StillRenewing => (
            Cause::Unreachable,
            "Try again in a few seconds; if it stays, the connection's history says how the renewal went.",
        ),
        Error::Gone(_) => (Cause::Unreachable, LOST),
        Error::Invalid(_) | Error::Render(_) | Error::Request(_) => {
            (Cause::Settings, "Correct that in the integration, the connection or the data source.")
        }
        Error::Fenced(_) => {
            (Cause::Refused, "Say which copy is live, in the settings or by `keyholder doctor --live`, then try again.")
        }
        _ => return None,
    })
}

const LOST: &str = "The connection broke before the reply was there; try again. If it stays, something in between cuts it: a proxy, a firewall, or the provider's load balancer.";

fn by_fault(fault: &EgressFault) -> (Cause, Option<String>) {
    let remedy = |text: &str| Some(text.to_owned());
    match fault {
        EgressFault::Refused(_) => (
            Cause::Refused,
            remedy("Correct the address, or allow it in KEYHOLDER_EGRESS_ALLOW and restart Keyholder."),
        ),
        EgressFault::Dns(_) => (
            Cause::Unreachable,
            remedy(
                "Check the spelling of the host in the integration's or the data source's addresses, and this machine's DNS.",
            ),
        ),
        EgressFault::Connect(_) | EgressFault::CircuitOpen { .. } => (
            Cause::Unreachable,
            remedy("Check host and port, that the provider is up, and that a firewall lets this machine reach it."),
        ),
        EgressFault::Timeout(_) => (
            Cause::Unreachable,
            remedy(
                "The provider is slow or hangs; try again. If it stays, check the address, and whether a proxy is in between.",
            ),
        ),
        EgressFault::Lost(_) => (Cause::Unreachable, remedy(LOST)),
        EgressFault::TooLarge(_) => (
            Cause::NotJson,
            remedy("Check the address: what answers there sends far more than a reply of this kind has."),
        ),
        EgressFault::Tls(_) => (
            Cause::Tls,
            remedy(
                "Check that the address speaks https on this port, and its certificate. A private authority's certificate goes into the file that KEYHOLDER_CA_FILE names.",
            ),
        ),
    }
}

/// The clock is what is wrong where somebody says so, or where it differs and times are what was judged.
fn clocks(evidence: &Evidence<'_>) -> Option<String> {
    let apart = evidence.seen.and_then(|seen| seen.date).map(|theirs| evidence.now - theirs);
    let differs = apart.filter(|apart| apart.abs() > CLOCKS_APART);
    let said = evidence.said.to_ascii_lowercase();
    let says_so = ["iat", "nbf", "exp"].iter().any(|claim| has_word(&said, claim))
        || ["clock", "skew", "not yet valid", "issued in the future", "not before"]
            .iter()
            .any(|words| said.contains(words));
    let is_signed = evidence.ours.is_some_and(|ours| {
        matches!(ours.client_auth, ClientAuth::ClientSecretJwt | ClientAuth::PrivateKeyJwt)
            || ours.grant == GrantKind::JwtBearer
    });
    let is_judged_by_time = match &evidence.failing {
        Failing::Call(called) => {
            let theirs = evidence.seen.filter(|seen| seen.status == Some(401)).and_then(|seen| seen.date);
            // By our clock it is valid, by theirs it isn't.
            let ends = called.claims.as_ref().and_then(|claims| claims.expires_at);
            ends.zip(theirs).is_some_and(|(ends, theirs)| ends > evidence.now && ends <= theirs)
        }
        _ => is_signed && matches!(evidence.code, Some("invalid_client" | "invalid_grant" | "invalid_request")),
    };
    if !(says_so || differs.is_some() && is_judged_by_time) {
        return None;
    }
    Some(match differs {
        Some(apart) => format!(
            "This machine's clock is {} {} the provider's. Set it by NTP (`timedatectl set-ntp true`), then try again.",
            length(apart.abs()),
            if apart > 0 { "ahead of" } else { "behind" }
        ),
        None => "The provider doesn't agree with a time in the request. Set this machine's clock by NTP (`timedatectl set-ntp true`), then try again.".to_owned(),
    })
}

fn by_code(code: &str, evidence: &Evidence<'_>) -> Option<(Cause, Option<String>)> {
    let ours = evidence.ours;
    let said = evidence.said.to_ascii_lowercase();
    let names_redirect = said.contains("redirect_uri") || said.contains("redirect uri") || said.contains("reply url");
    Some(match code {
        "invalid_client" => (Cause::InvalidClient, ours.map(invalid_client)),
        "redirect_uri_mismatch" => (Cause::RedirectMismatch, ours.map(redirect)),
        "invalid_request" | "invalid_grant" if names_redirect => (Cause::RedirectMismatch, ours.map(redirect)),
        "invalid_scope" => (Cause::InvalidScope, ours.map(invalid_scope)),
        "unauthorized_client" | "unsupported_grant_type" | "unsupported_response_type" => {
            (Cause::WrongGrant, ours.map(wrong_grant))
        }
        "invalid_target" => (Cause::Audience, None),
        "invalid_grant" | "access_denied" | "interaction_required" | "login_required" | "consent_required" => {
            (Cause::GrantDead, None)
        }
        "slow_down" => (Cause::RateLimited, None),
        "temporarily_unavailable" | "server_error" => (Cause::ProviderDown, None),
        _ => return None,
    })
}

fn by_shape(evidence: &Evidence<'_>) -> (Cause, Option<String>) {
    let Some(seen) = evidence.seen else { return (Cause::Other, None) };
    match (&seen.page, seen.status) {
        (_, Some(429)) => (Cause::RateLimited, None),
        (Some(title), status) if !matches!(status, Some(500..)) => {
            let what = if title.is_empty() { String::new() } else { format!(", “{title}”") };
            let remedy = format!(
                "A web page answered{what}: the address is a page for people, or something in between (a captive portal, a proxy's login) answers instead. Compare it with the provider's documentation."
            );
            (Cause::NotJson, Some(remedy))
        }
        (_, Some(500..)) => (Cause::ProviderDown, None),
        _ if seen.garbled => (
            Cause::NotJson,
            Some("The reply breaks off or isn't valid JSON: try again; if it stays, something in between changes it, or the address is wrong.".to_owned()),
        ),
        _ => (Cause::Other, None),
    }
}

fn by_call(evidence: &Evidence<'_>, called: &Called) -> (Cause, Option<String>) {
    let status = evidence.seen.and_then(|seen| seen.status);
    let challenge = evidence.seen.and_then(|seen| seen.challenge.as_deref()).unwrap_or_default();
    match status {
        Some(401) => {}
        Some(403) => return (Cause::InsufficientScope, missing_scope(challenge, called)),
        Some(404 | 405) => {
            return (Cause::Other, Some("Check the API base URL: the token was not what the API minded.".to_owned()));
        }
        _ => return by_shape(evidence),
    }
    let ends = [called.expires_at, called.claims.as_ref().and_then(|claims| claims.expires_at)];
    if let Some(ended) = ends.into_iter().flatten().min().filter(|ended| *ended <= evidence.now) {
        let remedy = format!(
            "The token ended {} ago. Refresh the connection; if its life is shorter than the provider says, set a token lifetime in the integration.",
            length(evidence.now - ended)
        );
        return (Cause::Expired, Some(remedy));
    }
    if let Some(remedy) = other_audience(evidence.ours, called) {
        return (Cause::Audience, Some(remedy));
    }
    if challenge.contains("insufficient_scope") {
        return (Cause::InsufficientScope, missing_scope(challenge, called));
    }
    let says_expired = challenge.to_ascii_lowercase().contains("expired");
    if says_expired {
        let remedy = "The API says that the token has expired although its life isn't over: it was revoked, or lives shorter than the provider says. Refresh the connection, and set a token lifetime in the integration.";
        return (Cause::Expired, Some(remedy.to_owned()));
    }
    (Cause::HeaderPrefix, Some(prefix(challenge, called)))
}

/// The first words of a page's title, or of its first heading.
fn title(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let between = |open: &str, close: &str| {
        let start = lower.find(open)?;
        let start = start + lower[start..].find('>')? + 1;
        let end = start + lower[start..].find(close)?;
        page.get(start..end)
    };
    let text = between("<title", "</title").or_else(|| between("<h1", "</h1")).unwrap_or_default();
    // No markup: what stands in a heading may have some.
    let mut plain = String::new();
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            _ if inside || c.is_control() && !c.is_whitespace() => {}
            _ => plain.push(c),
        }
    }
    plain.split_whitespace().take(8).collect::<Vec<_>>().join(" ").chars().take(80).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|it| it == word)
}

fn length(ms: i64) -> String {
    match ms / 1000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
