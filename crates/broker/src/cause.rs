//! Why a step of a test failed, judged from what was seen: pure, no I/O.
//!
//! [`crate::explain`] says what a refusal means wherever it happens. Here more is known: the exchange itself, what the provider offers, what the token says of
//! itself. A remedy that the definition knows for an error stays; ours are guesses beside it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use keyholder_oauth::{ClientAuth, date_ms};
use keyholder_provider::GrantKind;
use serde::Serialize;
use serde_json::Value;

use crate::egress::EgressFault;

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

fn by_fault(fault: &EgressFault) -> (Cause, Option<String>) {
    let remedy = |text: &str| Some(text.to_owned());
    match fault {
        EgressFault::Refused(_) => (
            Cause::Refused,
            remedy("Correct the address, or allow it in KEYHOLDER_EGRESS_ALLOW and restart Keyholder."),
        ),
        EgressFault::Dns(_) => (
            Cause::Unreachable,
            remedy("Check the spelling of the host in the integration's addresses, and this machine's DNS."),
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
        EgressFault::Lost(_) => (
            Cause::Unreachable,
            remedy(
                "The connection broke before the reply; try again. If it stays, something in between cuts it: a proxy, a firewall, or the provider's load balancer.",
            ),
        ),
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

fn other_audience(ours: Option<&Ours>, called: &Called) -> Option<String> {
    let claims = called.claims.as_ref().filter(|claims| !claims.audience.is_empty())?;
    let is_meant = claims.audience.iter().any(|audience| {
        let host = url::Url::parse(audience).ok().and_then(|url| url.host_str().map(str::to_owned));
        let is_host = |name: &str| name == called.host || called.host.ends_with(&format!(".{name}"));
        // An audience that is no address is a name that only the two of them know.
        host.is_none_or(|host| is_host(&host))
            && (url::Url::parse(audience).is_ok() || !audience.contains('.') || is_host(audience))
    });
    if is_meant {
        return None;
    }
    let meant = claims.audience.join(", ");
    let asked = ours.and_then(|ours| ours.audience.as_deref()).map_or_else(
        || "the integration asks for no audience".to_owned(),
        |audience| format!("the integration asks for `{audience}`"),
    );
    Some(format!(
        "The token is meant for {meant}, not for {}; {asked}. Set the integration's audience to the API's, as the provider's documentation names it.",
        called.host
    ))
}

/// What the challenge asks for and the grant hasn't (RFC 6750 §3.1).
fn missing_scope(challenge: &str, called: &Called) -> Option<String> {
    let wanted = parameter(challenge, "scope")?;
    let granted = called.granted.as_deref().unwrap_or_default();
    let from_token = called.claims.as_ref().map(|claims| claims.scopes.as_slice()).unwrap_or_default();
    let has = |scope: &str| granted.split([' ', ',']).any(|it| it == scope) || from_token.iter().any(|it| it == scope);
    let missing: Vec<&str> = wanted.split([' ', ',']).filter(|scope| !scope.is_empty() && !has(scope)).collect();
    if missing.is_empty() {
        return None;
    }
    let granted = if granted.is_empty() { "no scope that is known".to_owned() } else { format!("`{granted}`") };
    Some(format!(
        "The API asks for `{}`; granted is {granted}. Add it to the integration's scopes, and authorise the connection again.",
        missing.join(" ")
    ))
}

/// A parameter of a challenge: `Bearer scope="a b"`.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let at = challenge.match_indices(name).map(|(at, _)| at).find(|at| {
        let before = challenge[..*at].chars().next_back();
        before.is_none_or(|c| c == ' ' || c == ',') && challenge[at + name.len()..].trim_start().starts_with('=')
    })?;
    let value = challenge[at + name.len()..].trim_start().strip_prefix('=')?.trim_start();
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split([',', ' ']).next(),
    }
}

fn prefix(challenge: &str, called: &Called) -> String {
    let Some(sent) = &called.prefix else {
        return "The API doesn't accept the token: check where the definition puts it, then refresh the connection or authorise it again.".to_owned();
    };
    let asked = challenge.split([' ', ',']).next().unwrap_or_default();
    let sent_as = if sent.is_empty() { "alone".to_owned() } else { format!("as `{sent} …`") };
    if !asked.is_empty() && !asked.eq_ignore_ascii_case(sent) && !asked.contains('=') {
        return format!(
            "The token was sent {sent_as}, and the API asks for `{asked}`. Set the integration's header prefix to what the API's documentation shows."
        );
    }
    format!(
        "The token is valid by all that is known, and was sent {sent_as}. Compare the header prefix with the API's documentation; else the token was revoked, or is for another account or region: refresh the connection or authorise it again."
    )
}

fn invalid_client(ours: &Ours) -> String {
    let offered = if ours.offered_auth.is_empty() {
        String::new()
    } else {
        format!("; the provider offers {}", ours.offered_auth.join(", "))
    };
    let mismatch = ours
        .client_auth
        .registered_name()
        .filter(|own| !ours.offered_auth.is_empty() && !ours.offered_auth.iter().any(|it| it == own));
    let first = match (mismatch, ours.client_auth) {
        (Some(_), _) => String::new(),
        (None, ClientAuth::PrivateKeyJwt) => "Check the client id, and that the provider has the public part of this private key. ".to_owned(),
        (None, ClientAuth::Tls) => "Check the client id, and that the provider knows this certificate. ".to_owned(),
        (None, _) => "Check client id and secret: copy the secret anew (its value, not the secret's own id or name, and without spaces), and see whether it has expired. ".to_owned(),
    };
    let how = format!("The client authenticates by `{}`{offered}", ours.client_auth.as_str());
    format!("{first}{how}; the integration's client authentication can be changed.")
}

fn redirect(ours: &Ours) -> String {
    match &ours.redirect_uri {
        Some(uri) => format!(
            "Register exactly {uri} at the provider. Letter case, a slash at the end, http or https and the port all count."
        ),
        None => "Register exactly the integration's redirect URI at the provider, letter by letter.".to_owned(),
    }
}

fn invalid_scope(ours: &Ours) -> String {
    let unknown: Vec<&str> = ours
        .scopes
        .iter()
        .map(String::as_str)
        .filter(|scope| !ours.known_scopes.is_empty() && !ours.known_scopes.iter().any(|it| it == scope))
        .collect();
    let enable = "or enable them for the client in the provider's settings";
    match unknown.as_slice() {
        [] => format!(
            "Asked for is `{}`. Take out what the provider's documentation doesn't list, {enable}.",
            ours.scopes.join(" ")
        ),
        unknown => format!(
            "As far as is known the provider has no scope {}. Correct the integration's scopes, {enable}.",
            unknown.iter().map(|scope| format!("`{scope}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}

fn wrong_grant(ours: &Ours) -> String {
    let own = ours.grant.grant_type();
    if !ours.offered_grants.is_empty() && !ours.offered_grants.iter().any(|it| it == own) {
        return format!(
            "The provider offers {}, not `{own}`. Make an integration with another method.",
            ours.offered_grants.join(", ")
        );
    }
    let others: Vec<&str> = ours.methods.iter().map(String::as_str).filter(|it| *it != ours.grant.as_str()).collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!(", or make an integration with another method ({})", others.join(", ")),
    };
    format!("Allow the grant `{own}` for this client in the provider's settings of your application{others}.")
}

fn no_refresh_token(ours: &Ours) -> String {
    let is_offline = |scope: &&String| scope.to_ascii_lowercase().contains("offline");
    let again = "then authorise the connection again";
    if let Some(scope) = ours.known_scopes.iter().find(is_offline).filter(|scope| !ours.scopes.contains(scope)) {
        return format!("The provider gave no refresh token. Add the scope `{scope}` to the integration, {again}.");
    }
    if let Some((name, value)) = ours.consent_params.iter().find(|(name, value)| {
        ["access_type", "token_access_type", "prompt", "duration"].contains(&name.as_str()) || value == "offline"
    }) {
        return format!(
            "The provider gave no refresh token although `{name}={value}` asks for one: some give it only at the first consent. Take the application's access away in the account's settings at the provider, {again}."
        );
    }
    let setup = ours.setup.split_terminator(['\n']).find(|line| {
        let line = line.to_ascii_lowercase();
        line.contains("refresh") || line.contains("offline")
    });
    match setup {
        Some(line) => format!("The provider gave no refresh token. {} — {again}.", line.trim().trim_end_matches('.')),
        None => format!(
            "The provider gave no refresh token. Look in its documentation for what asks for one (a scope such as `offline_access`, a setting of the application), {again}."
        ),
    }
}

/// Where what is sent and what is registered part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first character, counted from 0, at which they differ.
    pub at: usize,
    /// How, in words.
    pub why: String,
}

/// Compares the redirect URI that is sent with the one that is registered, as a provider does: letter by letter (RFC 9700 §2.1). `None`: they are the same.
pub fn redirect_difference(sent: &str, registered: &str) -> Option<Difference> {
    if sent == registered {
        return None;
    }
    let at = sent.chars().zip(registered.chars()).take_while(|(one, other)| one == other).count();
    Some(Difference { at, why: why_different(sent, registered) })
}

fn why_different(sent: &str, registered: &str) -> String {
    let trimmed = registered.trim();
    if trimmed != registered {
        let rest = if trimmed == sent { "" } else { ", and more is different" };
        return format!("The registered one has white space before or behind it{rest}.");
    }
    if registered.chars().any(char::is_whitespace) {
        return "The registered one has white space in it.".to_owned();
    }
    if registered.is_empty() {
        return "Nothing is registered.".to_owned();
    }
    if sent.strip_suffix('/') == Some(registered) {
        return "The registered one lacks the slash at its end.".to_owned();
    }
    if registered.strip_suffix('/') == Some(sent) {
        return "The registered one has a slash at its end, ours has none.".to_owned();
    }
    if sent.eq_ignore_ascii_case(registered) {
        return "The letter case differs; most providers compare it.".to_owned();
    }
    let (Ok(ours), Ok(theirs)) = (url::Url::parse(sent), url::Url::parse(registered)) else {
        return "The registered one is no absolute address; it must begin with https:// and have all that ours has."
            .to_owned();
    };
    if ours.scheme() != theirs.scheme() {
        return format!("The scheme differs: ours is {}, the registered one {}.", ours.scheme(), theirs.scheme());
    }
    if ours.host_str() != theirs.host_str() {
        let (one, other) = (ours.host_str().unwrap_or_default(), theirs.host_str().unwrap_or_default());
        return format!("The host differs: ours is {one}, the registered one {other}.");
    }
    if ours.port_or_known_default() != theirs.port_or_known_default() {
        let port = |url: &url::Url| url.port_or_known_default().map_or_else(String::new, |port| port.to_string());
        return format!("The port differs: ours is {}, the registered one {}.", port(&ours), port(&theirs));
    }
    if ours.path() == theirs.path() && ours.query() != theirs.query() {
        return match (ours.query(), theirs.query()) {
            (None, _) => "The registered one has a query (from the question mark on), ours has none.".to_owned(),
            (_, None) => "The registered one lacks the query (from the question mark on).".to_owned(),
            _ => "The queries (from the question mark on) differ.".to_owned(),
        };
    }
    if ours.path() != theirs.path() {
        if ours.path().eq_ignore_ascii_case(theirs.path()) {
            return "The letter case of the path differs; most providers compare it.".to_owned();
        }
        return "The path (what follows the host) differs.".to_owned();
    }
    if theirs.fragment().is_some() {
        return "The registered one has a fragment (from the # on), which no redirect URI may have.".to_owned();
    }
    "They mean the same, but are written differently (a default port, or percent-encoding), which most providers don't see through.".to_owned()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000_000_000;

    fn ours() -> Ours {
        let texts = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
        Ours {
            grant: GrantKind::AuthorizationCode,
            client_auth: ClientAuth::Basic,
            offered_auth: Vec::new(),
            scopes: texts(&["read", "wrong"]),
            known_scopes: texts(&["read", "offline_access"]),
            methods: texts(&["authorization_code", "client_credentials"]),
            offered_grants: Vec::new(),
            redirect_uri: Some("https://k/callback/int_1".to_owned()),
            audience: None,
            consent_params: Vec::new(),
            setup: String::new(),
        }
    }

    fn said(code: Option<&str>, said: &str, seen: &Seen, ours: &Ours) -> (Cause, String) {
        let evidence = Evidence { failing: Failing::Said, code, said, seen: Some(seen), ours: Some(ours), now: NOW };
        let (cause, remedy) = cause(&evidence);
        (cause, remedy.unwrap_or_default())
    }

    #[test]
    fn codes_lead_to_what_to_change() {
        let seen = Seen { status: Some(400), ..Seen::default() };
        for (code, text, cause, words) in [
            ("invalid_client", "", Cause::InvalidClient, "not the secret's own id"),
            ("invalid_scope", "", Cause::InvalidScope, "no scope `wrong`."),
            ("unauthorized_client", "", Cause::WrongGrant, "client_credentials"),
            ("unsupported_grant_type", "", Cause::WrongGrant, "authorization_code"),
            ("redirect_uri_mismatch", "", Cause::RedirectMismatch, "https://k/callback/int_1"),
            ("invalid_request", "the redirect_uri is not registered", Cause::RedirectMismatch, "slash at the end"),
            ("invalid_grant", "token revoked", Cause::GrantDead, ""),
            ("invalid_grant", "JWT: iat is in the future", Cause::Clock, "NTP"),
            ("server_error", "", Cause::ProviderDown, ""),
            ("slow_down", "", Cause::RateLimited, ""),
            ("odd", "", Cause::Other, ""),
        ] {
            let (found, remedy) = said(Some(code), text, &seen, &ours());
            assert_eq!(found, cause, "{code}");
            assert!(remedy.contains(words), "{code}: {remedy}");
        }
    }

    #[test]
    fn what_the_provider_offers_is_compared() {
        let seen = Seen { status: Some(401), ..Seen::default() };
        let offered = Ours { offered_auth: vec!["client_secret_post".to_owned()], ..ours() };
        let (_, remedy) = said(Some("invalid_client"), "", &seen, &offered);
        assert!(
            remedy.starts_with("The client authenticates by `basic`; the provider offers client_secret_post"),
            "{remedy}"
        );
        let grants = Ours { offered_grants: vec!["client_credentials".to_owned()], ..ours() };
        let (_, remedy) = said(Some("unsupported_grant_type"), "", &seen, &grants);
        assert!(remedy.starts_with("The provider offers client_credentials"), "{remedy}");
        let all_known = Ours { scopes: vec!["read".to_owned()], ..ours() };
        assert!(said(Some("invalid_scope"), "", &seen, &all_known).1.contains("Asked for is `read`"));
    }

    #[test]
    fn faults_on_the_way_have_their_own_causes() {
        for (fault, cause) in [
            (EgressFault::Dns(String::new()), Cause::Unreachable),
            (EgressFault::Connect(String::new()), Cause::Unreachable),
            (EgressFault::Timeout(Duration::from_secs(30)), Cause::Unreachable),
            (EgressFault::Lost(String::new()), Cause::Unreachable),
            (EgressFault::Tls(String::new()), Cause::Tls),
            (EgressFault::Refused(String::new()), Cause::Refused),
            (EgressFault::TooLarge(1), Cause::NotJson),
        ] {
            let seen = Seen { fault: Some(fault.clone()), ..Seen::default() };
            let (found, remedy) = said(None, "", &seen, &ours());
            assert_eq!(found, cause, "{fault:?}");
            assert!(!remedy.is_empty());
        }
    }

    #[test]
    fn clocks_are_blamed_where_times_are_judged() {
        let late = Seen { status: Some(401), date: Some(NOW - 300_000), ..Seen::default() };
        assert_eq!(said(Some("invalid_client"), "", &late, &ours()).0, Cause::InvalidClient, "a secret knows no time");
        let signed = Ours { client_auth: ClientAuth::PrivateKeyJwt, ..ours() };
        let (cause, remedy) = said(Some("invalid_client"), "", &late, &signed);
        assert!(cause == Cause::Clock && remedy.contains("5 min ahead of"), "{remedy}");
        let near = Seen { date: Some(NOW - 30_000), ..late };
        assert_eq!(said(Some("invalid_client"), "", &near, &signed).0, Cause::InvalidClient);
        assert_eq!(said(None, "the client expected iatrogenic", &near, &ours()).0, Cause::Other);
    }

    #[test]
    fn what_came_instead_of_data_is_told() {
        let headers = |kind: &str| HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind.parse().unwrap())]);
        let page = b"<html><head><TITLE>\n Sign in to <b>Corp</b> WiFi</TITLE>";
        let (cause, remedy) = said(None, "", &Seen::reply(200, &headers("text/html"), page), &ours());
        assert!(cause == Cause::NotJson && remedy.contains("“Sign in to Corp WiFi”"), "{remedy}");
        assert_eq!(
            said(None, "", &Seen::reply(200, &headers("application/json"), b"{\"a\":"), &ours()).0,
            Cause::NotJson
        );
        assert_eq!(said(None, "", &Seen::reply(503, &headers("text/html"), page), &ours()).0, Cause::ProviderDown);
        assert_eq!(said(None, "", &Seen::reply(429, &headers("text/plain"), b"slow"), &ours()).0, Cause::RateLimited);
        assert_eq!(Seen::reply(200, &HeaderMap::new(), b" <html>").page.as_deref(), Some(""));
    }

    fn refused(status: u16, challenge: &str, called: Called, ours: &Ours) -> (Cause, String) {
        let seen = Seen { status: Some(status), challenge: Some(challenge.to_owned()), ..Seen::default() };
        let failing = Failing::Call(Box::new(called));
        let evidence = Evidence { failing, code: None, said: "", seen: Some(&seen), ours: Some(ours), now: NOW };
        let (cause, remedy) = cause(&evidence);
        (cause, remedy.unwrap_or_default())
    }

    #[test]
    fn a_refused_call_is_explained_by_the_token_first() {
        let called = || Called {
            host: "api.example.com".to_owned(),
            expires_at: Some(NOW + 1000),
            granted: Some("read".to_owned()),
            prefix: Some("Bearer".to_owned()),
            ..Called::default()
        };
        let meant_for = |audience: &str| Called {
            claims: Some(Claims { audience: vec![audience.to_owned()], ..Claims::default() }),
            ..called()
        };
        let scope = "Bearer error=\"insufficient_scope\", scope=\"read admin\"";
        for (status, challenge, called, cause, words) in [
            (401, "", Called { expires_at: Some(NOW - 120_000), ..called() }, Cause::Expired, "2 min ago"),
            (401, "", meant_for("https://other.example.org/"), Cause::Audience, "meant for https://other.example.org/"),
            (401, "", meant_for("https://example.com"), Cause::HeaderPrefix, ""),
            (401, "", meant_for("00000003-0000"), Cause::HeaderPrefix, ""),
            (401, scope, called(), Cause::InsufficientScope, "`admin`; granted is `read`"),
            (403, scope, called(), Cause::InsufficientScope, "`admin`"),
            (403, "", called(), Cause::InsufficientScope, ""),
            (401, "Bearer error=\"invalid_token\", error_description=\"expired\"", called(), Cause::Expired, "revoked"),
            (401, "Zoho-oauthtoken realm=\"x\"", called(), Cause::HeaderPrefix, "asks for `Zoho-oauthtoken`"),
            (401, "Bearer", called(), Cause::HeaderPrefix, "sent as `Bearer …`"),
            (404, "", called(), Cause::Other, "base URL"),
            (502, "", called(), Cause::ProviderDown, ""),
            (429, "", called(), Cause::RateLimited, ""),
        ] {
            let (found, remedy) = refused(status, challenge, called, &ours());
            assert_eq!(found, cause, "{status} {challenge}: {remedy}");
            assert!(remedy.contains(words), "{status} {challenge}: {remedy}");
        }
    }

    #[test]
    fn a_token_that_says_what_it_is_is_read() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"exp":12,"aud":["a","b"],"scp":"x y"}"#);
        let claims = Claims::of(&format!("e30.{payload}.sig")).unwrap();
        assert_eq!((claims.expires_at, claims.audience.len(), claims.scopes.len()), (Some(12_000), 2, 2));
        assert_eq!(Claims::of("opaque"), None);
        assert_eq!(Claims::of("a.b.c"), None);
    }

    #[test]
    fn nothing_to_renew_with_leads_to_what_asks_for_it() {
        let remedy = |ours: &Ours| {
            let failing = Failing::NothingToRenewWith;
            let evidence = Evidence { failing, code: None, said: "", seen: None, ours: Some(ours), now: NOW };
            let (found, remedy) = cause(&evidence);
            assert_eq!(found, Cause::NoRefreshToken);
            remedy.unwrap()
        };
        assert!(remedy(&ours()).contains("Add the scope `offline_access`"));
        let none = Ours { known_scopes: Vec::new(), ..ours() };
        let by_param = Ours { consent_params: vec![("access_type".to_owned(), "offline".to_owned())], ..none.clone() };
        assert!(remedy(&by_param).contains("`access_type=offline`"));
        let by_setup = Ours { setup: "Make an app.\nTick “Allow offline access”.".to_owned(), ..none.clone() };
        assert!(remedy(&by_setup).contains("Tick “Allow offline access”"));
        assert!(remedy(&none).contains("documentation"));
    }

    #[test]
    fn two_addresses_are_compared_letter_by_letter() {
        const SENT: &str = "https://keys.example.com/callback/int_1";
        for (registered, at, words) in [
            ("https://keys.example.com/callback/int_1/", 39, "slash at its end"),
            ("https://keys.example.com/Callback/int_1", 25, "letter case"),
            ("http://keys.example.com/callback/int_1", 4, "scheme"),
            ("https://key.example.com/callback/int_1", 11, "host"),
            ("https://keys.example.com:8443/callback/int_1", 24, "port"),
            ("https://keys.example.com:443/callback/int_1", 24, "mean the same"),
            ("https://keys.example.com/callback/int_1?a=1", 39, "query"),
            ("https://keys.example.com/callback/int_2", 38, "path"),
            ("https://keys.example.com/callback/int_1#", 39, "fragment"),
            (" https://keys.example.com/callback/int_1", 0, "white space"),
            ("https://keys.example.com/call back/int_1", 29, "white space"),
            ("keys.example.com", 0, "absolute"),
            ("", 0, "Nothing"),
        ] {
            let found = redirect_difference(SENT, registered).unwrap();
            assert_eq!(found.at, at, "{registered}");
            assert!(found.why.contains(words), "{registered}: {}", found.why);
        }
        assert_eq!(redirect_difference(SENT, SENT), None);
    }

    proptest! {
        #[test]
        fn a_difference_is_where_the_texts_part(one in ".{0,40}", other in ".{0,40}") {
            match redirect_difference(&one, &other) {
                None => prop_assert_eq!(one, other),
                Some(found) => {
                    let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
                    prop_assert_eq!(&a[..found.at], &b[..found.at]);
                    prop_assert!(a.get(found.at) != b.get(found.at));
                }
            }
        }

        #[test]
        fn any_page_has_a_title(page in ".{0,200}") {
            let seen = Seen::reply(200, &HeaderMap::new(), format!("<title>{page}").as_bytes());
            prop_assert!(seen.page.unwrap().chars().count() <= 80);
        }
    }
}
