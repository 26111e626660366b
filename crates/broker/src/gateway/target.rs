//! Third phase: where a call goes. Scheme, host and port are the definition's; the caller can only choose among the hosts that it names, and writes the path.

use http::header::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, uri};
use keyholder_oauth::Params;
use url::Url;

use super::{ApiAccess, Call, Via};
use crate::error::{Error, Result, invalid};

/// What paths are appended to, taken apart once.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    scheme: Scheme,
    authority: Authority,
    /// Without a slash at its end.
    path: String,
    query: Option<String>,
}

/// What a call asks for, below the base URL.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    /// Another of the definition's hosts.
    pub(crate) host: Option<&'a HeaderValue>,
}

impl Base {
    /// The parts of a base URL.
    pub(crate) fn new(url: &Url) -> Result<Self> {
        let bad = |_| invalid("base_url", "it is no address of an API", "give one like https://api.example.com/v2");
        let mut authority = url.host_str().unwrap_or_default().to_owned();
        if let Some(port) = url.port() {
            authority = format!("{authority}:{port}");
        }
        Ok(Self {
            scheme: Scheme::try_from(url.scheme()).map_err(bad)?,
            authority: Authority::try_from(authority).map_err(bad)?,
            path: url.path().trim_end_matches('/').to_owned(),
            query: url.query().map(str::to_owned),
        })
    }
}

/// The target of a call.
pub(super) fn of(call: &Call<'_>, api: &ApiAccess) -> Result<Uri> {
    let asked = Asked { path: call.request.path(), query: call.request.target.query(), host: call.host() };
    match call.via {
        Via::Connection => build(api, &api.base, asked),
        Via::Source(source) => {
            let uri = build(api, &source.base, asked)?;
            let missing = |name: &str| !names(uri.query()).any(|there| there == name);
            let mut added = Params::new();
            source.query.iter().filter(|(name, _)| missing(name)).for_each(|(name, value)| added.push(name, value));
            if added.is_empty() { Ok(uri) } else { with_query(uri, &added) }
        }
    }
}

/// Scheme, host and port of the base, its path and query, then the caller's.
pub(crate) fn build(api: &ApiAccess, base: &Base, asked: Asked<'_>) -> Result<Uri> {
    let chosen = match asked.host {
        None => None,
        Some(host) => Some(chosen_host(api, base, host)?),
    };
    // Whoever names a host, even the base URL's own, writes the path from its root.
    let path = if chosen.is_some() { "" } else { base.path.as_str() };
    let queries = [base.query.as_deref(), asked.query];
    let room = path.len() + asked.path.len() + queries.iter().flatten().map(|query| query.len() + 1).sum::<usize>();
    let mut text = String::with_capacity(room);
    text.push_str(path);
    text.push_str(asked.path);
    for (query, mark) in queries.into_iter().flatten().zip(['?', '&']) {
        text.push(mark);
        text.push_str(query);
    }
    let mut parts = uri::Parts::default();
    parts.scheme = Some(base.scheme.clone());
    parts.authority = Some(chosen.unwrap_or_else(|| base.authority.clone()));
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).map_err(bad_path)?);
    Uri::from_parts(parts).map_err(bad_path)
}

fn bad_path(cause: impl std::fmt::Display) -> Error {
    invalid("path", format!("it holds characters that a URL may not have ({cause})"), "percent-encode them")
}

/// The host that the caller names, if it is the base URL's or one that the definition allows.
fn chosen_host(api: &ApiAccess, base: &Base, host: &HeaderValue) -> Result<Authority> {
    let chosen = host.to_str().unwrap_or_default().to_ascii_lowercase();
    if chosen == base.authority.as_str() || chosen == base.authority.host() {
        return Ok(base.authority.clone());
    }
    let plain = !chosen.is_empty() && chosen.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    if plain && api.api.allows(&chosen) {
        return Authority::try_from(chosen).map_err(bad_path);
    }
    Err(Error::HostNotAllowed { host: chosen.chars().take(100).collect(), allowed: api.api.hosts.clone() })
}

/// Puts parameters into a target's query, in place of the caller's of the same name.
pub(super) fn with_query(uri: Uri, params: &Params) -> Result<Uri> {
    let own = without(uri.query().unwrap_or_default(), |name| params.contains(name));
    let separator = if own.is_empty() { "" } else { "&" };
    let path = format!("{}?{own}{separator}{}", uri.path(), params.to_form());
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| Error::Internal("a query fits no URL"))?);
    Uri::from_parts(parts).map_err(|_| Error::Internal("a query fits no URL"))
}

/// A query or form without some parameters, the others as they were written.
pub(super) fn without(form: &str, unwanted: impl Fn(&str) -> bool) -> String {
    let is_wanted = |pair: &&str| {
        let mut parsed = url::form_urlencoded::parse(pair.as_bytes());
        !pair.is_empty() && parsed.next().is_none_or(|(name, _)| !unwanted(&name))
    };
    form.split('&').filter(is_wanted).collect::<Vec<_>>().join("&")
}

/// The names of a query's parameters.
fn names(query: Option<&str>) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).map(|(name, _)| name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use keyholder_provider::{Api, Credentials, Limits};

    use super::*;
    use crate::allowance::Allowance;

    fn api() -> ApiAccess {
        let hosts = vec!["api.example.com".to_owned(), "*.files.example.com".to_owned()];
        let base_url: Url = "https://api.example.com/v2/?key=1".parse().unwrap();
        let base = Base::new(&base_url).unwrap();
        let api = Api {
            base_url: Some(base_url),
            hosts,
            token: Vec::new(),
            headers: Vec::new(),
            query: Params::new(),
            verify: None,
            expired_when: Vec::new(),
            limits: Limits::default(),
        };
        let allowance = Arc::new(Allowance::new(Limits::default()));
        ApiAccess { base, api, credentials: Credentials::default(), allowance, known_errors: Vec::new() }
    }

    fn built(api: &ApiAccess, path: &str, query: Option<&str>, host: Option<&str>) -> Result<String> {
        let host = host.map(|host| host.parse().unwrap());
        Ok(build(api, &api.base, Asked { path, query, host: host.as_ref() })?.to_string())
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
        let on_a_port =
            ApiAccess { base: Base::new(&"https://api.example.com:8443/v2/".parse().unwrap()).unwrap(), ..api() };
        for host in ["api.example.com", "api.example.com:8443"] {
            let own = self::built(&on_a_port, "/x", None, Some(host)).unwrap();
            assert_eq!(own, "https://api.example.com:8443/x");
        }
        for host in ["evil.example", "files.example.com", "a.files.example.com:1", "a@b.files.example.com", ""] {
            assert!(matches!(built("/x", None, Some(host)), Err(Error::HostNotAllowed { .. })), "{host}");
        }
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
}
