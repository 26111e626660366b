//! Second phase: may this caller send this request with this connection?

use http::Method;

use super::credential::overrides_in_query;
use super::{Call, SourceAccess, Via};
use crate::error::{Error, Result, invalid};
use crate::live::Live;
use crate::model::{Caller, Grip};
use crate::open::Broker;

impl Broker {
    /// Refuses, on the record where the key's limits forbid it, a request that may not be sent.
    pub(super) fn policy(&self, call: &Call<'_>, live: &Live) -> Result<()> {
        let (method, path) = (&call.request.method, call.request.path());
        match call.via {
            Via::Connection => {
                let grip = Grip::Call { method: method.as_str(), path };
                self.require_grip(call.caller, &live.id, &live.name, grip)?;
            }
            Via::Source(source) => {
                let limits = &call.caller.limits;
                let path = if limits.paths.is_empty() { None } else { source.limited_path(limits, path) };
                let grip = Grip::Behind { method: method.as_str(), path: path.as_deref() };
                self.require_grip(call.caller, &live.id, &live.name, grip)?;
                if call.host().is_some() {
                    let remedy = "leave it out; call another host by the connection, or make a data source for it";
                    return Err(invalid("Keyholder-Host", "a data source has one host", remedy));
                }
            }
        }
        if !call.caller.limits.paths.is_empty() && call.host().is_some() {
            // The limit's paths are those below the base URL; on another host they would mean something else.
            return Err(Error::Limited("host"));
        }
        check_method(method)?;
        check_path(path)?;
        if call.is_limited() {
            check_query(call.request.target.query().unwrap_or_default())?;
        }
        match call.via {
            Via::Connection => Ok(()),
            Via::Source(source) => self.check_rules(call.caller, source, method, path),
        }
    }

    /// Refuses, on the record, a call that the data source's rules don't let pass.
    fn check_rules(&self, caller: &Caller, source: &SourceAccess, method: &Method, path: &str) -> Result<()> {
        let checked = source.check_rules(method, path);
        if checked.is_err() {
            let called = format!("no rule lets {method} {path} pass");
            self.record(caller, "access.refused", source.id.as_str(), "refused", Some(called))?;
        }
        checked
    }
}

/// TRACE would answer with the credential that was put in (RFC 9110 §9.3.8); CONNECT asks for a tunnel, which this is not.
fn check_method(method: &Method) -> Result<()> {
    if matches!(*method, Method::TRACE | Method::CONNECT) {
        return Err(invalid("method", "the gateway doesn't pass on TRACE and CONNECT", "use another method"));
    }
    Ok(())
}

/// With some parameters servers take a request for one of another method than it says it is. Some separate them by semicolons.
fn check_query(query: &str) -> Result<()> {
    let names = query.split(['&', ';']).filter_map(|pair| url::form_urlencoded::parse(pair.as_bytes()).next());
    match names.map(|(name, _)| name).find(|name| overrides_in_query(name)) {
        None => Ok(()),
        Some(name) => Err(invalid(
            "query",
            format!(
                "`{}` makes some servers take the request for another, and this key or data source lets only some pass",
                name.escape_default()
            ),
            "leave it out, and send the request with the method that is meant",
        )),
    }
}

/// Dot segments would climb out of the base URL's path, and out of a key's limits, also where a server decodes them or the slash first, once or twice, by some old
/// way of encoding, or cuts a segment's parameters off (`..;a=b`), or what looks like a query or fragment once it is decoded; a backslash is a slash to some servers.
fn check_path(path: &str) -> Result<()> {
    let climbs = match path.contains('%') {
        true => decoded_for_check(path).is_none_or(|plain| climbs(&plain)),
        false => climbs(path),
    };
    if climbs || !path.starts_with('/') {
        return Err(invalid(
            "path",
            "it has `.` or `..` segments or a backslash",
            "write the path below the API's base URL without them",
        ));
    }
    Ok(())
}

fn climbs(plain: &str) -> bool {
    // In nearly every path no segment begins with a dot.
    let mut before = b'/';
    let mut may_climb = false;
    for byte in plain.bytes() {
        may_climb |= byte == b'\\' || (byte == b'.' && before == b'/');
        before = byte;
    }
    if !may_climb {
        return false;
    }
    // A NUL ends a text for some.
    let is_dots = |segment: &str| matches!(segment.split([';', '?', '#', '\0']).next(), Some("." | ".."));
    plain.contains('\\') || plain.split('/').any(is_dots)
}

/// What matters to [`climbs`], as it may be encoded: also in too many bytes (which RFC 3629 §3 forbids, and old decoders take), and what parsers of URLs leave out.
const ENCODED: [(&str, &str); 27] = [
    ("%2e", "."),
    ("%c0%ae", "."),
    ("%e0%80%ae", "."),
    ("%f0%80%80%ae", "."),
    ("%u002e", "."),
    ("%2f", "/"),
    ("%c0%af", "/"),
    ("%e0%80%af", "/"),
    ("%f0%80%80%af", "/"),
    ("%u002f", "/"),
    ("%5c", "\\"),
    ("%c1%9c", "\\"),
    ("%e0%81%9c", "\\"),
    ("%f0%80%81%9c", "\\"),
    ("%u005c", "\\"),
    ("%3b", ";"),
    ("%3f", "?"),
    ("%c0%bf", "?"),
    ("%u003f", "?"),
    ("%23", "#"),
    ("%c0%a3", "#"),
    ("%u0023", "#"),
    ("%00", "\0"),
    ("%09", ""),
    ("%0a", ""),
    ("%0d", ""),
    ("%25", "%"),
];

/// The path with what matters to [`climbs`] decoded as often as it is encoded; `None` when that is more often than anybody does in earnest.
fn decoded_for_check(path: &str) -> Option<String> {
    let mut plain = path.to_ascii_lowercase();
    for _ in 0..8 {
        let before = plain.clone();
        for (encoded, meant) in ENCODED {
            if plain.contains(encoded) {
                plain = plain.replace(encoded, meant);
            }
        }
        if plain == before {
            return Some(plain);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
                "/%c0%ae%c0%ae/",
                "/a/%C0%AE./x",
                "/a/..%c0%af..",
                "/a%25c1%259cb",
                "/a/%e0%80%ae%e0%80%ae/",
                "/a/%u002e%u002e/",
                "/a/..%00/b",
                "/a/..%00.json",
                "/a/.%09./b",
                "/a/..%3fb",
                "/a/..%2523/b",
                "/a/%2e%2e%c0%bf",
                "/a/%0d..%0A/b",
            ])
        {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert!(check_path(&format!("/a%{}2e", "25".repeat(9))).is_err(), "encoded too often");
        for path in [
            "/",
            "/a..b",
            "/...",
            "/a/%2f/b",
            "/.well-known/x",
            "/a;v=1/b",
            "/a%252Fb",
            "/100%25/%253b",
            "/a;../b",
            "/%00",
            "/a%09b",
            "/%FF",
            "/%c3%a4",
            "/%c0%80",
            "/a%3fb",
            "/a%23../b",
        ] {
            assert!(check_path(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn parameters_that_change_the_method_are_refused() {
        for query in [
            "_method=DELETE",
            "a=1&_METHOD=DELETE",
            "a=1;_method=DELETE",
            "%5Fmethod=DELETE",
            ".method=DELETE",
            "+_method=DELETE",
            "_method%00x=DELETE",
            "_HttpMethod=PATCH",
            "X-HTTP-Method-Override=DELETE",
            "_method",
        ] {
            assert!(check_query(query).is_err(), "{query}");
        }
        for query in ["", "method=DELETE", "a=_method", "http_method=GET", "q=%00"] {
            assert!(check_query(query).is_ok(), "{query}");
        }
    }
}
