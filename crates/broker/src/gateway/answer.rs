//! Sixth phase: what the reply means, and what of it the caller gets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use keyholder_oauth::Secret;
use keyholder_provider::{Api, Credentials};

use super::caller::OWN;
use super::credential::{KeptBody, ends_at_hop, named_by_connection};
use super::target::without;
use super::{ApiAccess, Call, Via};
use crate::clock::millis;
use crate::egress::{Body, EgressFault, full};
use crate::error::{Error, Result};
use crate::live::Live;
use crate::open::Broker;

/// Answers up to this size are looked at for what means that the token has expired.
const JUDGED_BODY: u64 = 64 << 10;
const RENEWAL: Duration = Duration::from_secs(45);

/// After a renewal that made nothing of a 401, the next 401 may renew again: some paths answer 401 to every token.
const UNHELPED: Duration = Duration::from_secs(60);

/// Before the first repetition about so long, before each further one twice that.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A repetition is not waited for longer: then the answer is the caller's.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What becomes of a reply.
pub(super) enum Answer {
    /// It is the caller's.
    Passed(Response<Body>),
    /// The call is sent once more, with these tokens.
    Again(Arc<Live>),
}

impl Broker {
    /// Judges what came of a call. What may pass is tried again as often as the caller allows; the first reply that says that the token has expired makes one renewal and
    /// one repetition; both only if the body was kept.
    pub(super) async fn answer(
        &self,
        call: &mut Call<'_>,
        live: &Arc<Live>,
        api: &ApiAccess,
        sent: Result<Response<Body>>,
    ) -> Result<Answer> {
        if let (Ok(_), KeptBody::Awaited(wanted)) = (&sent, &call.body) {
            wanted.answered();
        }
        if let Some(wait) = self.wait_before_repeating(call, api, &sent) {
            drop(sent);
            call.take_back();
            call.tried += 1;
            Box::pin(self.clock.sleep(wait)).await;
            return Ok(Answer::Again(self.fresh_for_call(Arc::clone(live)).await?));
        }
        let (mut response, expired) = self.judged(api, call.via, &call.request.method, sent?).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.tunnel(call, live, &mut response)?;
            return Ok(Answer::Passed(response));
        }
        if expired && call.is_renewed {
            live.unhelped_at.store(self.now_ms(), Ordering::Relaxed);
        } else if expired
            && call.take_back()
            && let Some(renewed) = Box::pin(self.renewed_after_401(live)).await
        {
            call.is_renewed = true;
            return Ok(Answer::Again(renewed));
        }
        Ok(Answer::Passed(response))
    }

    /// How long to wait before a call is repeated that failed in a way that may pass; `None`: it isn't repeated. Only what is idempotent (RFC 9110 §9.2.2) is.
    fn wait_before_repeating(
        &self,
        call: &Call<'_>,
        api: &ApiAccess,
        sent: &Result<Response<Body>>,
    ) -> Option<Duration> {
        if call.tried >= call.retries || !call.request.method.is_idempotent() || !call.can_repeat() {
            return None;
        }
        let now = self.now_ms();
        let hinted = match sent {
            Ok(response) => match response.status().as_u16() {
                429 | 502 | 503 | 504 => api.allowance.closed_for(now),
                _ => return None,
            },
            Err(Error::Egress(error)) => match error.what {
                EgressFault::Dns(_) | EgressFault::Connect(_) | EgressFault::Lost(_) => None,
                _ => return None,
            },
            Err(_) => return None,
        };
        let wait =
            hinted.unwrap_or_else(|| FIRST_WAIT.saturating_mul(1 << call.tried).mul_f64(0.5 + self.rng.unit() / 2.0));
        let is_in_time = call.due.is_none_or(|due| wait < self.left(due));
        (wait <= LONGEST_WAIT && is_in_time).then_some(wait)
    }

    /// A reply as the caller may have it; and whether it means that the token has expired.
    pub(crate) async fn judged(
        &self,
        api: &ApiAccess,
        via: Via<'_>,
        method: &Method,
        response: Response<Body>,
    ) -> Result<(Response<Body>, bool)> {
        let (response, expired) = judged(&api.api, method, response).await?;
        Ok((clean_response(response, &api.credentials, via), expired))
    }

    /// A 401 with a token that should be valid: it was revoked, or its life wasn't known. One renewal; `None` when that fails too, or has just made no difference, and the API's own 401 is the answer.
    async fn renewed_after_401(&self, live: &Arc<Live>) -> Option<Arc<Live>> {
        let unhelped_at = live.unhelped_at.load(Ordering::Relaxed);
        if self.now_ms().saturating_sub(unhelped_at) < millis(UNHELPED) {
            return None;
        }
        self.wait_for(RENEWAL, self.renewed_for_call(live)).await.ok()
    }
}

fn clean_response(mut response: Response<Body>, credentials: &Credentials, via: Via<'_>) -> Response<Body> {
    let headers = response.headers_mut();
    remove_what_ends(headers, |name| {
        // A provider's session cookie would be a credential that bypasses Keyholder; and what Keyholder says is said by nobody else.
        ends_at_hop(name) || name == "set-cookie" || name.starts_with(OWN) || is_for_shared_caches(name)
    });
    if headers.contains_key(header::CACHE_CONTROL) {
        keep_private(headers);
    }
    if !credentials.query.is_empty() || !credentials.body.is_empty() || !via.secrets().is_empty() {
        hide_secrets(headers, credentials, via);
    }
    response
}

/// What tells only shared caches how long to keep a reply (RFC 9213; `Cloudflare-CDN-Cache-Control` and the like).
fn is_for_shared_caches(name: &str) -> bool {
    name.ends_with("cdn-cache-control") || name == "surrogate-control"
}

/// A shared cache keeps no reply to a request with `Authorization`, which every call to Keyholder has, unless the reply allows it (RFC 9111 §3.5). What an API allows, it allows
/// for requests to itself; in front of Keyholder it would give one connection's data to whoever asks.
fn keep_private(headers: &mut HeaderMap) {
    let allows = |directive: &str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["public", "s-maxage", "must-revalidate"].iter().any(|it| name.eq_ignore_ascii_case(it))
    };
    let texts: Vec<&str> =
        headers.get_all(header::CACHE_CONTROL).iter().map(|value| value.to_str().unwrap_or("public")).collect();
    let directives = || texts.iter().flat_map(|text| text.split(',')).map(str::trim);
    if !directives().any(allows) {
        return;
    }
    let stays = |it: &&str| !it.is_empty() && (!allows(it) || it.eq_ignore_ascii_case("must-revalidate"));
    let own = std::iter::once("private").chain(directives().filter(stays)).collect::<Vec<_>>().join(", ");
    let value = HeaderValue::try_from(own).unwrap_or(HeaderValue::from_static("private"));
    headers.insert(header::CACHE_CONTROL, value);
}

/// Takes out the headers that end here, and those that `Connection` names.
fn remove_what_ends(headers: &mut HeaderMap, ends: impl Fn(&str) -> bool) {
    let named = named_by_connection(headers);
    while let Some(name) = headers.keys().find(|name| ends(name.as_str()) || named.contains(name)).cloned() {
        headers.remove(name);
    }
}

/// A redirect repeats the query that led to it: tokens, and what a data source adds, are taken out of it, and every other header goes that holds a token or a
/// secret of the source.
fn hide_secrets(headers: &mut HeaderMap, credentials: &Credentials, via: Via<'_>) {
    let placed = || credentials.query.iter().chain(credentials.body.iter());
    let secrets = || placed().map(|(_, token)| token).chain(via.secrets().iter().map(Secret::expose));
    let holds_secret = |text: &[u8]| {
        secrets().any(|token| {
            let encoded: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
            [token, &encoded].iter().any(|form| text.windows(form.len().max(1)).any(|part| part == form.as_bytes()))
        })
    };
    if let Some(text) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok())
        && let Some((path, query)) = text.split_once('?')
    {
        let (query, fragment) = query.split_once('#').map_or((query, None), |(query, rest)| (query, Some(rest)));
        let kept = without(query, |name| placed().any(|(own, _)| own == name) || via.adds_to_query(name));
        let fragment = fragment.map(|rest| format!("#{rest}")).unwrap_or_default();
        let mark = if kept.is_empty() { "" } else { "?" };
        if let Ok(value) = HeaderValue::from_str(&format!("{path}{mark}{kept}{fragment}")) {
            headers.insert(header::LOCATION, value);
        }
    }
    let names: Vec<_> =
        headers.iter().filter(|(_, value)| holds_secret(value.as_bytes())).map(|(name, _)| name.clone()).collect();
    for name in names {
        headers.remove(name);
    }
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
    let body =
        Box::pin(body.collect()).await.map_err(|_| Error::Gone("the API's answer broke off; try again"))?.to_bytes();
    let expired = api.has_expired(status, &body);
    Ok((Response::from_parts(head, full(body)), expired))
}

fn may_be_judged(response: &Response<Body>) -> bool {
    let text = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default();
    let is_json = kind.trim().to_ascii_lowercase().ends_with("json") && text(header::CONTENT_ENCODING).is_none();
    is_json && response.body().size_hint().exact().is_some_and(|length| length <= JUDGED_BODY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use keyholder_oauth::Params;

    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let mut params = Params::new();
        pairs.iter().for_each(|(name, value)| params.push(*name, *value));
        params
    }

    #[test]
    fn no_reply_is_for_a_shared_cache() {
        for (said, expected) in [
            (&["max-age=60"][..], "max-age=60"),
            (&["no-store"], "no-store"),
            (&["public, max-age=60"], "private, max-age=60"),
            (&["max-age=60, S-MaxAge=600, must-revalidate"], "private, max-age=60, must-revalidate"),
            (&["max-age=60", "PUBLIC"], "private, max-age=60"),
            (&["no-cache=\"set-cookie, x\", public"], "private, no-cache=\"set-cookie, x\""),
            (&["\u{e4}"], "private"),
        ] {
            let mut response = Response::new(full(bytes::Bytes::new()));
            for value in said {
                response.headers_mut().append(header::CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
            }
            for name in ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control"] {
                response.headers_mut().insert(name, HeaderValue::from_static("max-age=60"));
            }
            let cleaned = clean_response(response, &Credentials::default(), Via::Connection);
            let left: Vec<_> =
                cleaned.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            assert_eq!(left, [("cache-control", expected)]);
        }
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
        hide_secrets(&mut headers, &credentials, Via::Connection);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("location", "https://api.example.com/y?q=1#top"), ("x-kept", "a b")]);
        headers.insert(header::LOCATION, HeaderValue::from_static("/y?access_token=other"));
        hide_secrets(&mut headers, &credentials, Via::Connection);
        assert_eq!(headers[header::LOCATION], "/y");
    }
}
