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
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use url::Url;

use crate::clock::millis;
use crate::egress::{Body, full};
use crate::endpoints::Urgency;
use crate::error::{Error, Result, invalid};
use crate::live::Live;
use crate::model::{Caller, Grip};
use crate::open::Broker;
use crate::renew::{Enough, Wish};
use crate::token_set::credential;

/// An API's first byte may take this long after the last of the request's.
const HEAD_WITHIN: Duration = Duration::from_secs(120);
/// Bodies up to this size are kept, so that they can be sent again after a 401.
const KEPT_BODY: u64 = 256 << 10;
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

/// How a connection's API is called.
#[derive(Clone, Debug)]
pub(crate) struct ApiAccess {
    base_url: Url,
    hosts: Vec<String>,
    header: HeaderName,
    prefix: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) verify_path: Option<String>,
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
        let live = self.live(caller, id_or_name).await?;
        let grip = Grip::Call { method: request.method.as_str(), path: &request.path };
        self.require_grip(caller, &live.id, &live.name, grip)?;
        if request.headers.contains_key(HOST_CHOICE) && !caller.limits.paths.is_empty() {
            // The limit's paths are those below the base URL; on another host they would mean something else.
            return Err(Error::Limited("host"));
        }
        check_method(&request.method)?;
        check_path(&request.path)?;
        let live = self.fresh(live, None).await?;
        let api = self.api_access(&live).await?;
        let uri = target(api, &request)?;
        let called = format!("{} {}{}", request.method, uri.host().unwrap_or(""), request.path);
        self.record_in_turn(caller, "proxy.call", live.id.as_str(), Some(called)).await?;

        let mut headers = request.headers;
        clean_request(&mut headers);
        if !caller.limits.methods.is_empty() || !caller.limits.paths.is_empty() {
            for name in OVERRIDES {
                headers.remove(name);
            }
        }
        let (body, kept) = keep_small(request.body, request.length).await?;
        let first = self.egress.send(call(api, &live, &request.method, &uri, &headers, body)?, HEAD_WITHIN).await?;
        let response = match kept.filter(|_| first.status() == StatusCode::UNAUTHORIZED) {
            None => first,
            Some(kept) => match self.renewed_after_401(&live).await {
                None => first,
                Some(renewed) => {
                    let again = call(api, &renewed, &request.method, &uri, &headers, full(kept))?;
                    let second = self.egress.send(again, HEAD_WITHIN).await?;
                    if second.status() == StatusCode::UNAUTHORIZED {
                        renewed.unhelped_at.store(self.now_ms(), Ordering::Relaxed);
                    }
                    second
                }
            },
        };
        Ok(clean_response(response))
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
                    Some(sealed) => Some(self.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed)?),
                    None => None,
                };
                let api = self.plan(&row, tokens.as_ref()).await?.rendered.api;
                let (header, prefix) = api.header().map(|(name, prefix)| (name.clone(), prefix.to_owned())).ok_or(
                    Error::Internal("this version puts tokens into headers only, and the definition names none"),
                )?;
                let base_url = api.base_url.ok_or_else(|| {
                    invalid(
                        "api_base_url",
                        "this connection has no API base URL, so there is nothing to call",
                        "set the integration's variable `api_base_url`, for example https://api.example.com",
                    )
                })?;
                Ok(ApiAccess {
                    base_url,
                    hosts: api.hosts,
                    header,
                    prefix,
                    headers: api.headers,
                    verify_path: api.verify.map(|verify| verify.path),
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
pub(crate) fn target(api: &ApiAccess, request: &ProxyRequest) -> Result<Uri> {
    let base = &api.base_url;
    let mut authority = base.host_str().unwrap_or_default().to_owned();
    if let Some(port) = base.port() {
        authority = format!("{authority}:{port}");
    }
    let mut path = format!("{}{}", base.path().trim_end_matches('/'), request.path);
    if let Some(chosen) = request.headers.get(HOST_CHOICE) {
        let chosen = chosen.to_str().unwrap_or_default().to_ascii_lowercase();
        if chosen != authority && Some(chosen.as_str()) != base.host_str() {
            check_host(api, &chosen)?;
            authority = chosen;
        }
        // Whoever names a host, even the base URL's own, writes the path from its root.
        path.clone_from(&request.path);
    }
    if let Some(query) = merged_query(base.query(), request.query.as_deref()) {
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
    if plain && api.hosts.iter().any(|pattern| crate::egress::host_matches(pattern, chosen)) {
        return Ok(());
    }
    Err(Error::HostNotAllowed { host: chosen.chars().take(100).collect(), allowed: api.hosts.clone() })
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

fn clean_response(mut response: Response<Body>) -> Response<Body> {
    remove_hop_by_hop(response.headers_mut());
    // A provider's session cookie would be a credential that bypasses Keyholder.
    response.headers_mut().remove(header::SET_COOKIE);
    response
}

/// The outbound request with the credential in its place.
pub(crate) fn call(
    api: &ApiAccess,
    live: &Live,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Request<Body>> {
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers.clone();
    for (name, value) in &api.headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    let credential = credential(&api.prefix, &live.access_token)?;
    request.headers_mut().insert(api.header.clone(), credential);
    Ok(request)
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
    use super::*;
    use crate::egress::empty;

    fn api() -> ApiAccess {
        ApiAccess {
            base_url: "https://api.example.com/v2/?key=1".parse().unwrap(),
            hosts: vec!["api.example.com".to_owned(), "*.files.example.com".to_owned()],
            header: header::AUTHORIZATION,
            prefix: "Bearer".to_owned(),
            headers: Vec::new(),
            verify_path: None,
        }
    }

    fn request(path: &str, query: Option<&str>, host: Option<&str>) -> ProxyRequest {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST_CHOICE, host.parse().unwrap());
        }
        ProxyRequest {
            method: Method::GET,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers,
            body: empty(),
            length: Some(0),
        }
    }

    #[test]
    fn the_target_is_the_definitions_whatever_the_caller_writes() {
        let built = |path, query, host| target(&api(), &request(path, query, host)).map(|uri| uri.to_string());
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
            let own = target(&on_a_port, &request("/x", None, Some(host))).unwrap();
            assert_eq!(own.to_string(), "https://api.example.com:8443/x");
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
}
