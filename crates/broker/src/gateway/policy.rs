//! Second phase: may this caller send this request with this connection?

use http::Method;

use super::Call;
use crate::error::{Error, Result, invalid};
use crate::live::Live;
use crate::model::Grip;
use crate::open::Broker;

impl Broker {
    /// Refuses, on the record where the key's limits forbid it, a request that may not be sent.
    pub(super) fn policy(&self, call: &Call<'_>, live: &Live) -> Result<()> {
        let (method, path) = (&call.request.method, call.request.path());
        let grip = Grip::Call { method: method.as_str(), path };
        self.require_grip(call.caller, &live.id, &live.name, grip)?;
        if !call.caller.limits.paths.is_empty() && call.host().is_some() {
            // The limit's paths are those below the base URL; on another host they would mean something else.
            return Err(Error::Limited("host"));
        }
        check_method(method)?;
        check_path(path)
    }
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
    let climbs =
        if path.contains('%') { decoded_for_check(path).is_none_or(|plain| climbs(&plain)) } else { climbs(path) };
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
    plain.contains('\\') || plain.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
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
}
