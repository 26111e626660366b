//! Fourth phase: the request as it goes out, cleaned of what ends here (RFC 9110 §7.6), with the tokens in their places.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use keyholder_oauth::Params;

use super::caller::OWN;
use super::target::{with_query, without};
use super::wanted::Wanted;
use super::{ApiAccess, Call, ProxyRequest, Via};
use crate::egress::{Body, empty, full};
use crate::error::{Error, Result, invalid};
use crate::open::Broker;

/// Bodies up to this size are kept, so that they can be sent again.
const KEPT_BODY: u64 = 256 << 10;

/// A body that is kept must be there within this time.
const KEPT_WITHIN: Duration = Duration::from_secs(60);

/// A request's body, as far as it is kept.
pub(crate) enum KeptBody {
    /// Not looked at yet.
    Unread,
    /// Small enough to be sent again.
    Kept(Bytes),
    /// It waits until the API wants it.
    Awaited(Arc<Wanted>),
    /// It streams through, and can't be repeated.
    Streamed,
}

impl KeptBody {
    /// The body, where it is kept.
    pub(super) fn kept(&self) -> Option<&Bytes> {
        match self {
            KeptBody::Kept(body) => Some(body),
            KeptBody::Unread | KeptBody::Awaited(_) | KeptBody::Streamed => None,
        }
    }
}

impl Call<'_> {
    /// Whether its key or data source lets only some methods or paths pass.
    pub(super) fn is_limited(&self) -> bool {
        let limits = &self.caller.limits;
        let is_ruled = matches!(self.via, Via::Source(source) if !source.rules.is_empty());
        is_ruled || !limits.methods.is_empty() || !limits.paths.is_empty()
    }

    /// Whether nothing of the body has gone for good.
    pub(super) fn can_repeat(&self) -> bool {
        match &self.body {
            KeptBody::Unread | KeptBody::Kept(_) => true,
            KeptBody::Awaited(wanted) => wanted.is_untouched(),
            KeptBody::Streamed => false,
        }
    }

    /// Takes a body back that the API didn't want; whether the call can be repeated then.
    pub(super) fn take_back(&mut self) -> bool {
        if let KeptBody::Awaited(wanted) = &self.body
            && let Some(body) = wanted.take_back()
        {
            self.request.body = body;
            self.body = KeptBody::Unread;
        }
        self.can_repeat()
    }

    /// Whether the caller asks to switch to WebSocket, the only protocol that passes.
    pub(super) fn upgrades(&self) -> bool {
        let request = &self.request;
        let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
        request.upgrade.is_some()
            && request.method == Method::GET
            && request.headers.get(header::UPGRADE).is_some_and(is_websocket)
    }
}

/// What belongs to the request that goes out, apart from its target and the body to send now.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: HeaderMap,
    /// The body, where it is kept.
    pub(crate) kept: Option<&'a Bytes>,
}

impl Broker {
    /// The request that goes out for a call.
    pub(super) async fn credential(
        &self,
        call: &mut Call<'_>,
        api: &ApiAccess,
        target: Uri,
    ) -> Result<Box<Request<Body>>> {
        let body = match &call.body {
            KeptBody::Kept(body) => full(body.clone()),
            _ => self.body(call).await?,
        };
        let mut headers = passed(&call.request, call.is_limited());
        if let Via::Source(source) = call.via {
            for (name, value) in &source.headers {
                headers.entry(name).or_insert_with(|| value.clone());
            }
        }
        if call.upgrades() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        let outgoing = Outgoing { method: &call.request.method, headers, kept: call.body.kept() };
        let mut request = outgoing.request(api, target, body)?;
        if let Some((due, name)) = call.due.zip(api.api.limits.timeout_header.as_ref()) {
            let left = api.api.limits.timeout_unit.of(self.left(due));
            request.headers_mut().insert(name.clone(), left.into());
        }
        if let KeptBody::Awaited(wanted) = &call.body {
            wanted.ask(&mut request);
        }
        Ok(request)
    }

    /// The body to send. A small one of known length is read and kept; one whose caller asks whether it is wanted waits for the API's word; any other streams through.
    async fn body(&self, call: &mut Call<'_>) -> Result<Body> {
        let body = std::mem::replace(&mut call.request.body, empty());
        let length = body.size_hint().exact();
        if length == Some(0) {
            call.body = KeptBody::Kept(Bytes::new());
            return Ok(body);
        }
        if length.is_some_and(|length| length <= KEPT_BODY) {
            let mut reading = Box::pin(body.collect());
            let read = match reading.as_mut().now_or_never() {
                Some(read) => read,
                None => {
                    let late = Error::Unfinished("the request's body did not come within a minute; send it faster");
                    self.clock.timeout(KEPT_WITHIN, reading).await.ok_or(late)?
                }
            };
            let kept = read.map_err(|_| Error::Unfinished("the request's body broke off"))?.to_bytes();
            call.body = KeptBody::Kept(kept.clone());
            return Ok(full(kept));
        }
        if call.request.expects_continue() {
            let (wanted, body) = Wanted::new(body, self.clock.clone());
            call.body = KeptBody::Awaited(wanted);
            return Ok(body);
        }
        call.body = KeptBody::Streamed;
        Ok(body)
    }
}

impl Outgoing<'_> {
    /// The request with the tokens in their places.
    pub(crate) fn request(self, api: &ApiAccess, uri: Uri, body: Body) -> Result<Box<Request<Body>>> {
        let credentials = &api.credentials;
        let mut request = Box::new(Request::new(body));
        let mut query = api.api.query.clone();
        for (name, value) in credentials.query.iter() {
            query.set(name, value);
        }
        let mut content_type = None;
        if !credentials.body.is_empty() {
            if matches!(*self.method, Method::GET | Method::HEAD) {
                for (name, value) in credentials.body.iter() {
                    query.set(name, value);
                }
            } else {
                let (body, kind) = with_tokens(self.kept, &self.headers, &credentials.body)?;
                *request.body_mut() = full(body);
                content_type = Some(kind);
            }
        }
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers;
        let headers = request.headers_mut();
        if let Some(kind) = content_type {
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::CONTENT_TYPE, kind);
        }
        for (name, value) in api.api.headers.iter().chain(&credentials.headers) {
            headers.insert(name, value.clone());
        }
        *request.uri_mut() = if query.is_empty() { uri } else { with_query(uri, &query)? };
        Ok(request)
    }
}

/// The caller's headers without what ends at this hop, or is between the caller and Keyholder.
fn passed(request: &ProxyRequest, is_limited: bool) -> HeaderMap {
    let headers = &request.headers;
    let named = named_by_connection(headers);
    let mut passed = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let text = name.as_str();
        let stays = ends_at_hop(text) || is_callers_own(text) || (is_limited && overrides(text));
        if !stays && !named.contains(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    // Trailers pass (RFC 9110 §10.1.4); nothing else that `TE` could ask for does.
    let takes_trailers = |value: &HeaderValue| {
        value.to_str().is_ok_and(|te| te.split(',').any(|it| it.trim().eq_ignore_ascii_case("trailers")))
    };
    if headers.iter().any(|(name, value)| *name == header::TE && takes_trailers(value)) {
        passed.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    passed
}

/// The fields that `Connection` names, beside those that end here anyway.
pub(super) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    // A look at each is quicker than a search for one.
    headers
        .iter()
        .filter(|(name, _)| *name == header::CONNECTION)
        .filter_map(|(_, value)| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !["", "close", "keep-alive", "te", "upgrade"].iter().any(|own| name.eq_ignore_ascii_case(own)))
        .filter_map(|name| name.parse().ok())
        // A caller must not strip what frames the message.
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect()
}

/// Whether a field is of one connection only (RFC 9110 §7.6.1).
pub(super) fn ends_at_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What belongs between the caller and Keyholder and is no business of the provider's.
fn is_callers_own(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "cookie"
            | "host"
            | "expect"
            | "forwarded"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-proto"
            | "x-real-ip"
    ) || name.starts_with(OWN)
}

/// With these some servers take a request for another than it says it is, which would slip past limits and rules on methods and paths.
fn overrides(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "x-http-method",
        "x-http-method-override",
        "http-method-override",
        "x-method-override",
        "method-override",
        "x-original-url",
        "x-original-uri",
        "x-rewrite-url",
    ];
    NAMES.iter().any(|it| is_like(name, it))
}

/// The same of a parameter in the query.
pub(super) fn overrides_in_query(name: &str) -> bool {
    const NAMES: [&str; 4] = ["-method", "-httpmethod", "x-http-method", "x-http-method-override"];
    // PHP leaves out spaces before a name, and what follows a NUL.
    let name = name.trim_start_matches(' ').split('\0').next().unwrap_or_default();
    NAMES.iter().any(|it| is_like(name, it))
}

/// Whether some servers take one name for the other: CGI makes `_` of `-` in headers, PHP makes it of dots, spaces and brackets in parameters.
fn is_like(name: &str, wanted: &str) -> bool {
    let folded = name.bytes().map(|byte| match byte {
        b'_' | b'.' | b' ' | b'[' => b'-',
        other => other.to_ascii_lowercase(),
    });
    name.len() == wanted.len() && folded.eq(wanted.bytes())
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
        let request = ProxyRequest { headers, ..ProxyRequest::new(Method::GET, "/").unwrap() };
        let passed = passed(&request, false);
        let mut left: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "te"]);
    }

    fn params(pairs: &[(&str, &str)]) -> Params {
        let mut params = Params::new();
        pairs.iter().for_each(|(name, value)| params.push(*name, *value));
        params
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
}
