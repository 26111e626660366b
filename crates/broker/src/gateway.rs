//! The injecting gateway: an API call with the token put in on the way.
//!
//! Phases: who calls and may they (policy) → which token → the target, built from the definition → headers cleaned (RFC 9110 §7.6) and the credential
//! placed → streamed out → streamed back. A 401 renews once and repeats once, if the body could be kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use keyholder_oauth::Params;
use keyholder_provider::{Api, Credentials, KnownError};
use url::Url;

use crate::allowance::{Allowance, Turn};
use crate::clock::millis;
use crate::egress::{Body, full};
use crate::endpoints::Urgency;
use crate::error::{Error, Result, invalid};
use crate::live::Live;
use crate::model::{Caller, Grip};
use crate::open::Broker;
use crate::renew::{Enough, Wish};

/// An API's first byte may take this long after the last of the request's.
const HEAD_WITHIN: Duration = Duration::from_secs(120);
/// Bodies up to this size are kept, so that they can be sent again after a 401.
const KEPT_BODY: u64 = 256 << 10;
/// Answers up to this size are looked at for what means that the token has expired.
const JUDGED_BODY: u64 = 64 << 10;
const RENEWAL: Duration = Duration::from_secs(45);

/// After a renewal that made nothing of a 401, the next 401 may renew again: some paths answer 401 to every token.
const UNHELPED: Duration = Duration::from_secs(60);

/// Chooses another of the definition's hosts than the base URL's.
const HOST_CHOICE: &str = "keyholder-host";

/// Connection-specific fields (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What belongs between the caller and Keyholder and is no business of the provider's.
const CALLERS_OWN: [HeaderName; 11] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::HOST,
    header::EXPECT,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static(HOST_CHOICE),
];

/// With these some servers take a request for another than it says it is, which would slip past a key's limits on methods and paths.
const OVERRIDES: [&str; 5] =
    ["x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"];

/// How a connection's API is called with the token set in hand.
#[derive(Debug)]
pub(crate) struct ApiAccess {
    pub(crate) base_url: Url,
    pub(crate) api: Api,
    /// The tokens, each where it goes.
    pub(crate) credentials: Credentials,
    pub(crate) allowance: Arc<Allowance>,
    pub(crate) known_errors: Vec<KnownError>,
}

/// What a call asks for, below the base URL.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    /// Another of the definition's hosts.
    pub(crate) host: Option<&'a HeaderValue>,
}

/// A caller's request, as it came in.
pub struct ProxyRequest {
    /// Method.
    pub method: Method,
    /// What stands behind `/proxy`, percent-encoded as the caller sent it: `/v3/contacts`.
    pub path: String,
    /// Query without the question mark, as the caller sent it.
    pub query: Option<String>,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Body,
    /// `Content-Length`, where it is known.
    pub length: Option<u64>,
}

impl Broker {
    /// Calls the connection's API for a caller, and streams the reply back.
    pub async fn proxy(&self, caller: &Caller, id_or_name: &str, request: ProxyRequest) -> Result<Response<Body>> {
        let ProxyRequest { method, path, query, mut headers, body, length } = request;
        let live = self.live(caller, id_or_name).await?;
        let grip = Grip::Call { method: method.as_str(), path: &path };
        self.require_grip(caller, &live.id, &live.name, grip)?;
        if headers.contains_key(HOST_CHOICE) && !caller.limits.paths.is_empty() {
            // The limit's paths are those below the base URL; on another host they would mean something else.
            return Err(Error::Limited("host"));
        }
        check_method(&method)?;
        check_path(&path)?;
        let live = self.fresh(live, None).await?;
        let api = self.api_access(&live).await?;
        let host = headers.get(HOST_CHOICE).cloned();
        let asked = Asked { path: &path, query: query.as_deref(), host: host.as_ref() };
        let uri = target(api, asked)?;
        let turn = self.turn(&live, api).await?;
        let called = format!("{} {}{}", method, uri.host().unwrap_or(""), path);
        self.record_in_turn(caller, "proxy.call", live.id.as_str(), Some(called)).await?;

        clean_request(&mut headers);
        if !caller.limits.methods.is_empty() || !caller.limits.paths.is_empty() {
            for name in OVERRIDES {
                headers.remove(name);
            }
        }
        let (body, kept) = keep_small(body, length).await?;
        let outgoing = Outgoing { method: &method, headers: &headers, kept: kept.as_ref() };
        let (first, expired) = self.call(api, &outgoing, uri, body).await?;
        let response = match kept.clone().filter(|_| expired) {
            None => first,
            Some(kept) => match self.renewed_after_401(&live).await {
                None => first,
                Some(renewed) => {
                    // Its address may have come with the tokens.
                    let api = self.api_access(&renewed).await?;
                    let (second, expired) = self.call(api, &outgoing, target(api, asked)?, full(kept)).await?;
                    if expired {
                        renewed.unhelped_at.store(self.now_ms(), Ordering::Relaxed);
                    }
                    second
                }
            },
        };
        Ok(match turn {
            None => response,
            // The call is over when its reply's body is.
            Some(turn) => response.map(|body| {
                body.map_frame(move |frame| {
                    let _held = &turn;
                    frame
                })
                .boxed_unsync()
            }),
        })
    }

    /// Waits until the connection's API may be called.
    pub(crate) async fn turn(&self, live: &Live, api: &ApiAccess) -> Result<Turn> {
        api.allowance.enter(&self.clock).await.map_err(|not| Error::ApiLimited {
            connection: live.name.clone(),
            said: not.said,
            retry_after: Duration::from_millis((not.at - self.now_ms()).max(0).unsigned_abs()),
        })
    }

    /// One call, its reply cleaned; and whether that means that the token has expired.
    pub(crate) async fn call(
        &self,
        api: &ApiAccess,
        outgoing: &Outgoing<'_>,
        uri: Uri,
        body: Body,
    ) -> Result<(Response<Body>, bool)> {
        let response = self.egress.send(outgoing.request(api, uri, body)?, HEAD_WITHIN).await?;
        api.allowance.hear(response.status().as_u16(), response.headers(), self.now_ms());
        let (response, expired) = judged(&api.api, outgoing.method, response).await?;
        Ok((clean_response(response, &api.credentials), expired))
    }

    /// How the connection's API is called; worked out once a token set.
    pub(crate) async fn api_access<'a>(&self, live: &'a Arc<Live>) -> Result<&'a ApiAccess> {
        live.api
            .get_or_try_init(|| async {
                let id = live.id.clone();
                let row = self
                    .store
                    .read(move |tx| tx.connection_by_id(&id))
                    .await?
                    .ok_or_else(|| Error::not_found("connection", live.name.as_str()))?;
                let tokens = match &row.token_set {
                    Some(sealed) => self.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed)?,
                    None => return Err(Error::ChangedMeanwhile("connection")),
                };
                let rendered = self.plan(&row, Some(&tokens)).await?.rendered;
                let api = rendered.api;
                let base_url = api.base_url.clone().ok_or_else(|| {
                    invalid(
                        "api_base_url",
                        "this connection has no API base URL, so there is nothing to call",
                        "set the integration's variable `api_base_url`, for example https://api.example.com",
                    )
                })?;
                Ok(ApiAccess {
                    base_url,
                    credentials: api.credentials(&tokens)?,
                    allowance: self.allowances.of(&live.id, &api.limits),
                    known_errors: rendered.known_errors,
                    api,
                })
            })
            .await
    }

    /// A 401 with a token that should be valid: it was revoked, or its life wasn't known. One renewal; `None` when that fails too, or has just made no difference, and the API's own 401 is the answer.
    async fn renewed_after_401(&self, live: &Arc<Live>) -> Option<Arc<Live>> {
        let unhelped_at = live.unhelped_at.load(Ordering::Relaxed);
        if self.now_ms().saturating_sub(unhelped_at) < millis(UNHELPED) {
            return None;
        }
        let wish = Wish { enough: Enough::NewerThan(live.generation), urgency: Urgency::Reader };
        self.wait_for(RENEWAL, self.renew(&live.id, wish)).await.ok()
    }
}

/// The target is the definition's: base URL, then the caller's path and query. The caller can only choose among the hosts that the definition names.
pub(crate) fn target(api: &ApiAccess, asked: Asked<'_>) -> Result<Uri> {
    let base = &api.base_url;
    let mut authority = base.host_str().unwrap_or_default().to_owned();
    if let Some(port) = base.port() {
        authority = format!("{authority}:{port}");
    }
    let mut path = format!("{}{}", base.path().trim_end_matches('/'), asked.path);
    if let Some(chosen) = asked.host {
        let chosen = chosen.to_str().unwrap_or_default().to_ascii_lowercase();
        if chosen != authority && Some(chosen.as_str()) != base.host_str() {
            check_host(api, &chosen)?;
            authority = chosen;
        }
        // Whoever names a host, even the base URL's own, writes the path from its root.
        path = asked.path.to_owned();
    }
    if let Some(query) = merged_query(base.query(), asked.query) {
        path = format!("{path}?{query}");
    }
    let bad = |_| invalid("path", "it holds characters that a URL may not have", "percent-encode them");
    Uri::builder()
        .scheme(base.scheme())
        .authority(Authority::try_from(authority).map_err(|e| bad(e.to_string()))?)
        .path_and_query(PathAndQuery::try_from(path).map_err(|e| bad(e.to_string()))?)
        .build()
        .map_err(|e| bad(e.to_string()))
}

fn check_host(api: &ApiAccess, chosen: &str) -> Result<()> {
    let plain = !chosen.is_empty() && chosen.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    if plain && api.api.allows(chosen) {
        return Ok(());
    }
    Err(Error::HostNotAllowed { host: chosen.chars().take(100).collect(), allowed: api.api.hosts.clone() })
}

/// TRACE would answer with the credential that was put in (RFC 9110 §9.3.8); CONNECT asks for a tunnel, which this is not.
fn check_method(method: &Method) -> Result<()> {
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return Err(invalid("method", "the gateway doesn't pass on TRACE and CONNECT", "use another method"));
    }
    Ok(())
}

/// Dot segments would climb out of the base URL's path, and out of a key's limits, also where a server decodes them or the slash first, once or twice, or
/// cuts a segment's parameters off (`..;a=b`); a backslash is a slash to some servers.
fn check_path(path: &str) -> Result<()> {
    let plain = decoded_for_check(path);
    let climbs = plain.as_ref().is_none_or(|plain| {
        plain.contains('\\') || plain.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
    });
    if climbs || !path.starts_with('/') {
        return Err(invalid(
            "path",
            "it has `.` or `..` segments or a backslash",
            "write the path below the API's base URL without them",
        ));
    }
    Ok(())
}

/// The path with what matters to [`check_path`] decoded as often as it is encoded; `None` when that is more often than anybody does in earnest.
fn decoded_for_check(path: &str) -> Option<String> {
    let mut plain = path.to_ascii_lowercase();
    for _ in 0..8 {
        let once = [("%2e", "."), ("%2f", "/"), ("%5c", "\\"), ("%3b", ";"), ("%25", "%")]
            .iter()
            .fold(plain.clone(), |text, (encoded, meant)| text.replace(encoded, meant));
        if once == plain {
            return Some(plain);
        }
        plain = once;
    }
    None
}

fn merged_query(own: Option<&str>, callers: Option<&str>) -> Option<String> {
    match (own, callers) {
        (Some(own), Some(callers)) => Some(format!("{own}&{callers}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

/// Takes out what ends at this hop: connection-specific fields, those that `Connection` names, and the caller's own.
fn clean_request(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in &CALLERS_OWN {
        headers.remove(name);
    }
    // RFC 9110 §7.6.3: a gateway names itself to the server.
    headers.append(header::VIA, HeaderValue::from_static("1.1 keyholder"));
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A caller must not strip what frames the message or carries the credential.
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn clean_response(mut response: Response<Body>, credentials: &Credentials) -> Response<Body> {
    let headers = response.headers_mut();
    remove_hop_by_hop(headers);
    // A provider's session cookie would be a credential that bypasses Keyholder.
    headers.remove(header::SET_COOKIE);
    if !credentials.query.is_empty() || !credentials.body.is_empty() {
        hide_tokens(headers, credentials);
    }
    response
}

/// A redirect repeats the query that led to it: the token is taken out of it, and every other header goes that holds one.
fn hide_tokens(headers: &mut HeaderMap, credentials: &Credentials) {
    let placed = || credentials.query.iter().chain(credentials.body.iter());
    let holds_token = |text: &[u8]| {
        placed().any(|(_, token)| {
            let encoded: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
            [token, &encoded].iter().any(|form| text.windows(form.len().max(1)).any(|part| part == form.as_bytes()))
        })
    };
    if let Some(text) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok())
        && let Some((path, query)) = text.split_once('?')
    {
        let (query, fragment) = query.split_once('#').map_or((query, None), |(query, rest)| (query, Some(rest)));
        let kept = without(query, |name| placed().any(|(own, _)| own == name));
        let fragment = fragment.map(|rest| format!("#{rest}")).unwrap_or_default();
        let mark = if kept.is_empty() { "" } else { "?" };
        if let Ok(value) = HeaderValue::from_str(&format!("{path}{mark}{kept}{fragment}")) {
            headers.insert(header::LOCATION, value);
        }
    }
    let names: Vec<_> =
        headers.iter().filter(|(_, value)| holds_token(value.as_bytes())).map(|(name, _)| name.clone()).collect();
    for name in names {
        headers.remove(name);
    }
}

/// A caller's request, apart from its target and the body to send now.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    /// The body, where it is small.
    pub(crate) kept: Option<&'a Bytes>,
}

impl Outgoing<'_> {
    /// The outbound request with the tokens in their places.
    fn request(&self, api: &ApiAccess, uri: Uri, body: Body) -> Result<Request<Body>> {
        let credentials = &api.credentials;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        for (name, value) in api.api.headers.iter().chain(&credentials.headers) {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let mut query = api.api.query.clone();
        for (name, value) in credentials.query.iter() {
            query.set(name, value);
        }
        if !credentials.body.is_empty() {
            if matches!(*self.method, Method::GET | Method::HEAD) {
                for (name, value) in credentials.body.iter() {
                    query.set(name, value);
                }
            } else {
                let (body, content_type) = with_tokens(self.kept, self.headers, &credentials.body)?;
                *request.body_mut() = full(body);
                request.headers_mut().remove(header::CONTENT_LENGTH);
                request.headers_mut().insert(header::CONTENT_TYPE, content_type);
            }
        }
        *request.uri_mut() = if query.is_empty() { uri } else { with_query(uri, &query)? };
        Ok(request)
    }
}

/// Puts parameters into a target's query, in place of the caller's of the same name.
fn with_query(uri: Uri, params: &Params) -> Result<Uri> {
    let own = without(uri.query().unwrap_or_default(), |name| params.contains(name));
    let separator = if own.is_empty() { "" } else { "&" };
    let path = format!("{}?{own}{separator}{}", uri.path(), params.to_form());
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| Error::Internal("a query fits no URL"))?);
    Uri::from_parts(parts).map_err(|_| Error::Internal("a query fits no URL"))
}

/// A query or form without some parameters, the others as they were written.
fn without(form: &str, unwanted: impl Fn(&str) -> bool) -> String {
    let is_wanted = |pair: &&str| {
        let mut parsed = url::form_urlencoded::parse(pair.as_bytes());
        !pair.is_empty() && parsed.next().is_none_or(|(name, _)| !unwanted(&name))
    };
    form.split('&').filter(is_wanted).collect::<Vec<_>>().join("&")
}

/// Puts tokens into a form or a JSON object, and leaves the rest as it was written.
fn with_tokens(body: Option<&Bytes>, headers: &HeaderMap, tokens: &Params) -> Result<(Bytes, HeaderValue)> {
    let refused = |reason: &str| {
        let remedy = "send a form or a JSON object of at most 256 KiB, of known length and without that member";
        invalid("body", format!("this API takes the token in the body, and {reason}"), remedy)
    };
    let body = body.ok_or_else(|| refused("this one is too large, or of unknown length"))?;
    let text = std::str::from_utf8(body).map_err(|_| refused("this one is no text"))?;
    let content_type = headers.get(header::CONTENT_TYPE).filter(|_| !body.is_empty());
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    let Some(content_type) = content_type else {
        let empty = body.is_empty().then(|| Bytes::from(tokens.to_form()));
        return empty.map(|body| (body, form)).ok_or_else(|| refused("this one has no content type"));
    };
    let kind = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let written = if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let own = without(text, |name| tokens.contains(name));
        let separator = if own.is_empty() { "" } else { "&" };
        format!("{own}{separator}{}", tokens.to_form())
    } else if kind.to_ascii_lowercase().ends_with("json") {
        let members: std::collections::HashMap<String, serde::de::IgnoredAny> =
            serde_json::from_str(text).map_err(|_| refused("this one is no JSON object"))?;
        if members.keys().any(|name| tokens.contains(name)) {
            return Err(refused("this one has a member of its name"));
        }
        let rest = text.trim_start().strip_prefix('{').unwrap_or_default();
        let own = tokens.to_json();
        let own = own.strip_suffix('}').unwrap_or_default();
        let separator = if members.is_empty() { "" } else { "," };
        format!("{own}{separator}{rest}")
    } else {
        return Err(refused("this one is neither a form nor JSON"));
    };
    Ok((Bytes::from(written), content_type.clone()))
}

/// Whether an answer means that the token has expired. A body is only looked at where the definition asks for it, and it is small, JSON and of known length; it goes on
/// byte for byte.
async fn judged(api: &Api, method: &Method, response: Response<Body>) -> Result<(Response<Body>, bool)> {
    let status = response.status().as_u16();
    let fitting = || api.expired_when.iter().filter(|when| when.status.is_none_or(|wanted| wanted == status));
    if status == 401 || fitting().any(|when| when.body.is_none()) {
        return Ok((response, true));
    }
    if fitting().next().is_none() || *method == Method::HEAD {
        return Ok((response, false));
    }
    if !may_be_judged(&response) {
        return Ok((response, false));
    }
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Error::Gone("the API's answer broke off; try again"))?.to_bytes();
    let expired = api.has_expired(status, &body);
    Ok((Response::from_parts(head, full(body)), expired))
}

fn may_be_judged(response: &Response<Body>) -> bool {
    let text = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default();
    let is_json = kind.trim().to_ascii_lowercase().ends_with("json") && text(header::CONTENT_ENCODING).is_none();
    is_json && response.body().size_hint().exact().is_some_and(|length| length <= JUDGED_BODY)
}

/// A small body of known length is read and kept; any other streams through and can't be repeated.
async fn keep_small(body: Body, length: Option<u64>) -> Result<(Body, Option<Bytes>)> {
    // A request without a body says nothing of its length.
    match length.or(body.size_hint().exact()) {
        Some(length) if length <= KEPT_BODY => {
            let kept = body.collect().await.map_err(|_| Error::Gone("the request's body broke off"))?.to_bytes();
            Ok((full(kept.clone()), Some(kept)))
        }
        _ => Ok((body, None)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use keyholder_provider::Limits;

    use super::*;

    fn api() -> ApiAccess {
        let hosts = vec!["api.example.com".to_owned(), "*.files.example.com".to_owned()];
        let base_url: Url = "https://api.example.com/v2/?key=1".parse().unwrap();
        let api = Api {
            base_url: Some(base_url.clone()),
            hosts,
            token: Vec::new(),
            headers: Vec::new(),
            query: Params::new(),
            verify: None,
            expired_when: Vec::new(),
            limits: Limits::default(),
        };
        let allowance = Arc::new(Allowance::new(Limits::default()));
        ApiAccess { base_url, api, credentials: Credentials::default(), allowance, known_errors: Vec::new() }
    }

    fn built(api: &ApiAccess, path: &str, query: Option<&str>, host: Option<&str>) -> Result<String> {
        let host = host.map(|host| host.parse().unwrap());
        Ok(target(api, Asked { path, query, host: host.as_ref() })?.to_string())
    }

    #[test]
    fn the_target_is_the_definitions_whatever_the_caller_writes() {
        let built = |path, query, host| built(&api(), path, query, host);
        assert_eq!(
            built("/contacts/a%2Fb", Some("q=%20"), None).unwrap(),
            "https://api.example.com/v2/contacts/a%2Fb?key=1&q=%20"
        );
        assert_eq!(built("//evil.example/x", None, None).unwrap(), "https://api.example.com/v2//evil.example/x?key=1");
        assert_eq!(built("/@evil.example", None, None).unwrap(), "https://api.example.com/v2/@evil.example?key=1");
        assert_eq!(built("/x", None, Some("eu.files.example.com")).unwrap(), "https://eu.files.example.com/x?key=1");
        let own = built("/x", None, Some("api.example.com")).unwrap();
        assert_eq!(own, "https://api.example.com/x?key=1", "a named host is meant from its root");
        let on_a_port = ApiAccess { base_url: "https://api.example.com:8443/v2/".parse().unwrap(), ..api() };
        for host in ["api.example.com", "api.example.com:8443"] {
            let own = self::built(&on_a_port, "/x", None, Some(host)).unwrap();
            assert_eq!(own, "https://api.example.com:8443/x");
        }
        for host in ["evil.example", "files.example.com", "a.files.example.com:1", "a@b.files.example.com", ""] {
            assert!(matches!(built("/x", None, Some(host)), Err(Error::HostNotAllowed { .. })), "{host}");
        }
    }

    #[test]
    fn paths_that_climb_are_refused() {
        for path in
            ["/../x", "/a/..", "/a/%2e%2E/b", "/a%2F..%2fb", "/./x", "/a\\..\\b", "/a%5c..", "x"].into_iter().chain([
                "/a/%252e%252e/b",
                "/a/%25252E./b",
                "/a/..;a=b/c",
                "/a/%2e%2e;/c",
                "/a/..%3bx/c",
                "/a/.%253b",
                "/a%255cb",
            ])
        {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert!(check_path(&format!("/a%{}2e", "25".repeat(9))).is_err(), "encoded too often");
        for path in
            ["/", "/a..b", "/...", "/a/%2f/b", "/.well-known/x", "/a;v=1/b", "/a%252Fb", "/100%25/%253b", "/a;../b"]
        {
            assert!(check_path(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn hop_by_hop_and_the_callers_credentials_end_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Internal, content-length"),
            ("x-internal", "1"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("authorization", "Bearer khk_secret"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "1.2.3.4"),
            ("host", "keyholder"),
            ("accept", "text/csv"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        clean_request(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "via"]);
    }

    fn params(pairs: &[(&str, &str)]) -> Params {
        let mut params = Params::new();
        pairs.iter().for_each(|(name, value)| params.push(*name, *value));
        params
    }

    #[test]
    fn a_token_in_the_query_replaces_the_callers_and_leaves_the_rest() {
        let put = |query: &str| {
            let uri = format!("https://api.example.com/x{query}").parse().unwrap();
            with_query(uri, &params(&[("access_token", "a+b")])).unwrap().to_string()
        };
        assert_eq!(put(""), "https://api.example.com/x?access_token=a%2Bb");
        assert_eq!(put("?q=%20&q=a+b"), "https://api.example.com/x?q=%20&q=a+b&access_token=a%2Bb");
        assert_eq!(put("?access%5ftoken=mine&q=1&access_token"), "https://api.example.com/x?q=1&access_token=a%2Bb");
    }

    #[test]
    fn a_token_goes_into_forms_and_json_objects_only() {
        let put = |kind: &'static str, body: &'static str| {
            let mut headers = HeaderMap::new();
            if !kind.is_empty() {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            let body = Bytes::from_static(body.as_bytes());
            with_tokens(Some(&body), &headers, &params(&[("token", "a\"b")]))
                .map(|(body, kind)| (String::from_utf8(body.to_vec()).unwrap(), kind.to_str().unwrap().to_owned()))
        };
        let json = "application/json; charset=utf-8";
        let text = |kind, body| put(kind, body).unwrap().0;
        assert_eq!(text(json, "{\"n\":1.10}"), "{\"token\":\"a\\\"b\",\"n\":1.10}");
        assert_eq!(text(json, " { } "), "{\"token\":\"a\\\"b\" } ");
        let form = "application/x-www-form-urlencoded";
        assert_eq!(text(form, "token=mine&a=%20"), "a=%20&token=a%22b");
        assert_eq!(put("", "").unwrap(), ("token=a%22b".to_owned(), form.to_owned()));
        for (kind, body) in [(json, "[1]"), (json, "{\"token\":1}"), ("text/plain", "x"), ("", "x")] {
            assert!(put(kind, body).is_err(), "{kind} {body}");
        }
        assert!(with_tokens(None, &HeaderMap::new(), &params(&[("token", "x")])).is_err());
    }

    #[test]
    fn a_token_does_not_come_back_in_a_header() {
        let credentials = Credentials { query: params(&[("access_token", "a+b")]), ..Credentials::default() };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("location", "https://api.example.com/y?access_token=a%2Bb&q=1#top"),
            ("link", "<https://api.example.com/x?access_token=a%2Bb&page=2>; rel=next"),
            ("x-echo", "a+b"),
            ("x-kept", "a b"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        hide_tokens(&mut headers, &credentials);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("location", "https://api.example.com/y?q=1#top"), ("x-kept", "a b")]);
        headers.insert(header::LOCATION, HeaderValue::from_static("/y?access_token=other"));
        hide_tokens(&mut headers, &credentials);
        assert_eq!(headers[header::LOCATION], "/y");
    }
}
