//! Third phase: where a call goes. Scheme, host and port are the definition's; the caller can only choose among the hosts that it names, and writes the path.

use std::sync::{Arc, OnceLock};

use http::header::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, uri};
use keyholder_oauth::Params;
use url::Url;

use super::{ApiAccess, Call, Via};
use crate::egress::{Egress, Upstream};
use crate::error::{Error, Result, invalid};

/// What paths are appended to, taken apart once.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    scheme: Scheme,
    authority: Authority,
    /// Without a slash at its end.
    path: String,
    query: Option<String>,
    /// The server there; looked up at the first call.
    upstream: OnceLock<Arc<Upstream>>,
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
            upstream: OnceLock::new(),
        })
    }

    /// The server of a target that was built on this, unless its caller chose another host.
    pub(super) fn upstream(&self, target: &Uri, egress: &Egress) -> Result<Option<&Upstream>> {
        if target.authority() != Some(&self.authority) {
            return Ok(None);
        }
        if let Some(upstream) = self.upstream.get() {
            return Ok(Some(upstream));
        }
        let found = egress.upstream(self.scheme.as_str(), &self.authority)?;
        Ok(Some(self.upstream.get_or_init(|| found)))
    }
}

/// The target of a call.
pub(super) fn of(call: &Call<'_>, api: &ApiAccess) -> Result<Uri> {
    let asked = Asked { path: call.request.path(), query: call.request.target.query(), host: call.host() };
    let uri = build(api, call.via.base(api), asked)?;
    match call.via {
        Via::Connection => Ok(uri),
        Via::Source(source) => {
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
    use keyholder_provider::{Api, Credentials, Limits};
    use proptest::prelude::*;

    use super::super::ProxyRequest;
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

    /// What callers try, and where it leads: always to the definition's scheme, host and port, below its path.
    #[test]
    fn no_trick_leads_elsewhere() {
        let table: &[(&str, &str)] = &[
            ("/", "/v2/"),
            ("//", "/v2//"),
            ("//evil.example/x", "/v2//evil.example/x"),
            ("///evil.example", "/v2///evil.example"),
            ("/http://evil.example/", "/v2/http://evil.example/"),
            ("/https:/evil.example", "/v2/https:/evil.example"),
            ("/@evil.example/", "/v2/@evil.example/"),
            ("/:80@evil.example", "/v2/:80@evil.example"),
            ("/user:pass@evil.example:8443/", "/v2/user:pass@evil.example:8443/"),
            ("/%40evil.example", "/v2/%40evil.example"),
            ("/:8080/x", "/v2/:8080/x"),
            ("/;@evil.example", "/v2/;@evil.example"),
            ("/.evil.example", "/v2/.evil.example"),
            ("/%2f%2fevil.example", "/v2/%2f%2fevil.example"),
            ("/[::1]/", "/v2/[::1]/"),
            ("/[::ffff:169.254.169.254]:80/latest", "/v2/[::ffff:169.254.169.254]:80/latest"),
            ("/%5B::1%5D", "/v2/%5B::1%5D"),
            ("/%00", "/v2/%00"),
            ("/%0d%0aHost:%20evil.example", "/v2/%0d%0aHost:%20evil.example"),
            ("/%09x", "/v2/%09x"),
            ("/%23x", "/v2/%23x"),
            ("/%3fx=1", "/v2/%3fx=1"),
            ("/a;b=c", "/v2/a;b=c"),
            ("/%c0%ae%c0%ae/", "/v2/%c0%ae%c0%ae/"),
            ("/%E2%80%A5", "/v2/%E2%80%A5"),
            ("/\u{ff0e}\u{ff0e}/", "/v2/\u{ff0e}\u{ff0e}/"),
        ];
        for (path, expected) in table {
            for query in [None, Some("next=//evil.example"), Some("@evil.example"), Some("/../..")] {
                let uri = target(path, query);
                assert_eq!(uri.scheme_str(), Some("https"), "{path}");
                assert_eq!(uri.authority().map(Authority::as_str), Some("api.example.com"), "{path}");
                assert_eq!(uri.path(), *expected, "{path}");
                let queried = query.map_or("key=1".to_owned(), |query| format!("key=1&{query}"));
                assert_eq!(uri.query(), Some(queried.as_str()), "{path}");
            }
        }
    }

    /// What no URL may hold isn't mended but refused.
    #[test]
    fn what_is_no_path_is_refused() {
        for path in
            ["", "x", "*", "http://evil.example/", "@evil.example", "/a b", "/a\tb", "/a\r\nHost: x", "/\0", "/a\u{7f}"]
        {
            assert!(ProxyRequest::new(http::Method::GET, path).is_err() || path == "*", "{path:?}");
        }
        // A fragment never reaches a server, so it ends the path.
        let request = ProxyRequest::new(http::Method::GET, "/a#@evil.example/").unwrap();
        assert_eq!((request.path(), request.target.query()), ("/a", None));
    }

    fn target(path: &str, query: Option<&str>) -> Uri {
        let api = api();
        build(&api, &api.base, Asked { path, query, host: None }).unwrap()
    }

    proptest! {
        #[test]
        fn nothing_of_the_callers_changes_scheme_host_or_port(path in "/.{0,40}", query in proptest::option::of(".{0,40}"), host in proptest::option::of("[ -~]{0,30}")) {
            let on_a_port = "https://api.example.com:8443/v2/";
            let api = ApiAccess { base: Base::new(&on_a_port.parse().unwrap()).unwrap(), ..api() };
            let host = host.map(|host| HeaderValue::from_str(&host).unwrap());
            let asked = Asked { path: &path, query: query.as_deref(), host: host.as_ref() };
            if let Ok(uri) = build(&api, &api.base, asked) {
                let named = host.and_then(|host| Some(host.to_str().ok()?.to_ascii_lowercase()));
                let authority = uri.authority().unwrap();
                let is_listed = named.is_some_and(|named| named == authority.as_str() && api.api.allows(&named));
                prop_assert_eq!(uri.scheme_str(), Some("https"));
                prop_assert!(authority.as_str() == "api.example.com:8443" || is_listed, "{}", authority);
                // As a server reads it: the first slash ends the authority.
                let reread: Url = uri.to_string().parse().unwrap();
                prop_assert_eq!(reread.host_str(), Some(authority.host()));
                prop_assert_eq!(reread.port(), authority.port_u16());
                prop_assert_eq!((reread.username(), reread.password()), ("", None));
            }
        }

        #[test]
        fn parameters_of_ours_win_and_the_callers_stay_as_they_were(query in "[a-c%&=+]{0,30}", name in "[a-c]{1,2}", value in ".{0,10}") {
            let uri = with_query(format!("https://api.example.com/x?{query}").parse().unwrap(), &params(&[(&name, &value)])).unwrap();
            let written: Vec<_> = url::form_urlencoded::parse(uri.query().unwrap().as_bytes()).into_owned().collect();
            let ours: Vec<_> = written.iter().filter(|(there, _)| *there == name).collect();
            prop_assert_eq!(ours, [&(name.clone(), value)]);
            let others = |text: &str| -> Vec<String> {
                let kept = without(text, |there| there == name);
                kept.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect()
            };
            prop_assert_eq!(others(uri.query().unwrap()), others(&query));
        }
    }
}
