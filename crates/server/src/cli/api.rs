//! The client of Keyholder's own HTTP API: the house's one outbound client, allowed to reach the server's host and nothing else private.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use keyholder_broker::clock::Clock;
use keyholder_broker::egress::{AllowRule, Body, Bounds, Egress, Policy, Rules};
use keyholder_oauth::{Secret, SecretBytes};
use serde_json::Value;
use url::Url;

use super::error::{CliError, Problem, Result};

/// Authorising may take the server a minute; lists may be long.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(90), bytes: 64 << 20 };
/// The gateway gives an API two minutes for its first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(180);
/// The largest page.
const PAGE: &str = "200";

/// A server and the key that is shown to it.
#[derive(Clone)]
pub(crate) struct Api {
    egress: Egress,
    base: Url,
    key: Secret,
}

impl Api {
    /// A client of the server at `base`. `extra_ca`: PEM of further authorities.
    pub(crate) fn new(base: &Url, key: Secret, extra_ca: Option<&[u8]>) -> Result<Self> {
        Ok(Self { egress: client_for(&[base], extra_ca)?, base: base.clone(), key })
    }

    /// Where the server is.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// The same server with another key.
    pub(crate) fn with_key(&self, key: Secret) -> Self {
        Self { key, ..self.clone() }
    }

    /// `GET /v1/…`
    pub(crate) async fn get(&self, path: &[&str]) -> Result<Value> {
        self.exchange(Method::GET, self.url(path), None).await
    }

    /// `GET /v1/…?…`
    pub(crate) async fn query(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value> {
        let mut url = self.url(path);
        url.query_pairs_mut().extend_pairs(query);
        self.exchange(Method::GET, url, None).await
    }

    /// All items of a list, page after page.
    pub(crate) async fn list(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<Value>> {
        let (mut items, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut asked = query.to_vec();
            asked.push(("limit", PAGE));
            asked.extend(after.as_deref().map(|after| ("after", after)));
            let mut page = self.query(path, &asked).await?;
            match page["items"].take() {
                Value::Array(more) => items.extend(more),
                _ => return Err(CliError::Odd(format!("{} answered no list", self.url(path)))),
            }
            match page["next"].as_str() {
                Some(next) if after.as_deref() != Some(next) => after = Some(next.to_owned()),
                _ => return Ok(items),
            }
        }
    }

    /// `POST /v1/…`
    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value> {
        self.exchange(Method::POST, self.url(path), Some(body)).await
    }

    /// `PATCH /v1/…`
    pub(crate) async fn patch(&self, path: &[&str], body: &Value) -> Result<Value> {
        self.exchange(Method::PATCH, self.url(path), Some(body)).await
    }

    /// `DELETE /v1/…`
    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value> {
        self.exchange(Method::DELETE, self.url(path), None).await
    }

    /// `DELETE /v1/…?…`
    pub(crate) async fn delete_with(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.exchange(Method::DELETE, url, None).await
    }

    /// A call through the gateway, streamed both ways. `path` begins with a slash and may have a query.
    pub(crate) async fn proxy(
        &self,
        connection: &str,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Body>> {
        // Appended as text: the path is the caller's, byte for byte.
        let uri = format!("{}{path}", self.url(&["connections", connection, "proxy"]));
        let mut request = Request::new(body);
        *request.uri_mut() = uri.parse().map_err(|_| {
            CliError::Usage(format!("`{path}` holds characters that a URL may not have; percent-encode them"))
        })?;
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        self.sign(request.headers_mut())?;
        let sent = self.egress.send(request, HEAD_WITHIN).await;
        sent.map_err(|error| CliError::no_reply(self.base.as_str(), &error))
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }

    async fn exchange(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Value> {
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let mut request = Request::new(SecretBytes::new(body));
        *request.uri_mut() = url.as_str().parse().map_err(|_| CliError::Failed(format!("{url} can't be called")))?;
        *request.method_mut() = method;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.sign(request.headers_mut())?;
        let fetched = self.egress.fetch(request, BOUNDS).await;
        let fetched = fetched.map_err(|error| CliError::no_reply(self.base.as_str(), &error))?;
        read(&url, fetched.status, fetched.body.expose())
    }

    fn sign(&self, headers: &mut HeaderMap) -> Result {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.key.expose()))
            .map_err(|_| CliError::Failed("the API key holds characters that no key has".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("keyholder-cli/", env!("CARGO_PKG_VERSION"))));
        Ok(())
    }
}

/// The house's client, allowed to reach these servers although private or by plain http.
pub(crate) fn client_for(servers: &[&Url], extra_ca: Option<&[u8]>) -> Result<Egress> {
    let mut policy = Policy::new(Rules::default());
    for server in servers {
        let host = server.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        policy.allow(AllowRule::Host(host.to_owned(), server.port()));
    }
    Egress::new(Clock::System, policy, extra_ca).map_err(|error| CliError::Failed(error.to_string()))
}

/// A header as a person writes it: `Name: value`.
pub(crate) fn header_line(line: &str) -> std::result::Result<(HeaderName, HeaderValue), String> {
    let (name, value) = line.split_once(':').ok_or("write it as 'Name: value'")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is no header name"))?;
    let value = value.trim().parse().map_err(|_| "the value holds characters that no header may have".to_owned())?;
    Ok((name, value))
}

fn read(url: &Url, status: u16, body: &[u8]) -> Result<Value> {
    let json = |body: &[u8]| serde_json::from_slice::<Value>(body).ok();
    match status {
        200..=299 if body.is_empty() => Ok(Value::Null),
        200..=299 => json(body).ok_or_else(|| {
            CliError::Odd(format!("{url} answered no JSON; is KEYHOLDER_URL the address of a Keyholder?"))
        }),
        _ => Err(Problem::read(body).map_or_else(
            || CliError::Odd(format!("{url} answered {status}; is KEYHOLDER_URL the address of a Keyholder?")),
            |problem| CliError::Problem(Box::new(problem)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_path_segment() {
        let api = Api::new(&"http://127.0.0.1:8787/".parse().unwrap(), Secret::new("k"), None).unwrap();
        let url = |path: &[&str]| api.url(path).to_string();
        assert_eq!(url(&["connections", "a/b c?"]), "http://127.0.0.1:8787/v1/connections/a%2Fb%20c%3F");
        let api = Api::new(&"https://example.com/keyholder".parse().unwrap(), Secret::new("k"), None).unwrap();
        assert_eq!(api.url(&["keys"]).as_str(), "https://example.com/keyholder/v1/keys");
    }

    #[test]
    fn header_lines() {
        let (name, value) = header_line("X-Trace:  a:b ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-trace", "a:b"));
        assert!(header_line("no colon").is_err());
        assert!(header_line("bad name: x").is_err());
        assert!(header_line("a: b\nc").is_err());
    }

    #[test]
    fn what_is_no_keyholder_is_said_to_be_none() {
        let url: Url = "http://127.0.0.1:8787/v1/keys".parse().unwrap();
        assert!(matches!(read(&url, 204, b""), Ok(Value::Null)));
        assert!(matches!(read(&url, 200, b"<html>"), Err(CliError::Odd(_))));
        assert!(matches!(read(&url, 502, b"bad gateway"), Err(CliError::Odd(_))));
        let problem = br#"{"type": "urn:keyholder:problem:not_found", "detail": "there is no key `x`"}"#;
        assert!(matches!(read(&url, 404, problem), Err(CliError::Problem(p)) if p.detail == "there is no key `x`"));
    }
}
