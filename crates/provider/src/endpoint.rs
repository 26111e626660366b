//! Which URLs and host names credentials may be sent to.

use url::{Host, Url};

/// Checks that an address is absolute, https (or http on loopback), and without user info and fragment.
///
/// RFC 6749 §3.1 and §3.2: endpoints must not have a fragment, requests must use TLS. The error is a reason in plain words.
pub(crate) fn check_endpoint(url: &Url) -> Result<(), String> {
    let Some(host) = url.host() else {
        return Err("it has no host".to_owned());
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&host) => {}
        "http" => return Err("plain http would show credentials to the network".to_owned()),
        other => return Err(format!("the scheme `{other}` is not https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user name or password in it".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it has a fragment (`#…`)".to_owned());
    }
    Ok(())
}

/// Reads an address that somebody typed. Backslashes, spaces and control characters, which URL parsers repair in different ways, are refused.
pub(crate) fn read_endpoint(text: &str) -> Result<Url, String> {
    if text.chars().any(|c| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Err("it has a space, a backslash or a control character in it".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("it is not an absolute URL ({error})"))?;
    check_endpoint(&url)?;
    Ok(url)
}

/// Whether a text is a host name or a part of one, in ASCII. Internationalised names must be given in their `xn--` form.
pub(crate) fn is_host_text(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// Whether `pattern` (an exact host or `*.example.com`) covers `host`; both in lower case. `*.` stands for one or more labels.
pub(crate) fn host_covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == host,
    }
}

/// Whether an entry of `api.hosts` is an exact host, or `*.` before at least two labels: `*.com` would name strangers.
pub(crate) fn is_host_pattern(text: &str) -> bool {
    match text.strip_prefix("*.") {
        Some(suffix) => is_host_text(suffix) && suffix.contains('.'),
        None => is_host_text(text),
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in [
            "https://a.example/x?y=z",
            "http://127.0.0.1:8080/t",
            "http://127.9.9.9/",
            "http://[::1]:1/",
            "http://localhost/",
        ] {
            read_endpoint(good).unwrap();
        }
        for (bad, reason) in [
            ("http://a.example/", "plain http"),
            ("http://localhost.evil.example/", "plain http"),
            ("http://128.0.0.1/", "plain http"),
            ("ftp://a.example/", "scheme `ftp`"),
            ("https://user@a.example/", "user name"),
            ("https://:pw@a.example/", "user name"),
            ("https://a.example/#x", "fragment"),
            ("https://a.example\\@b.example/", "backslash"),
            ("https://a.example/ x", "space"),
            ("https://a.example/\r\nx", "control"),
            ("/token", "not an absolute URL"),
            ("mailto:a@b.example", "no host"),
        ] {
            let error = read_endpoint(bad).unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    #[test]
    fn host_patterns() {
        assert!(host_covers("*.example.com", "a.example.com"));
        assert!(host_covers("*.example.com", "a.b.example.com"));
        assert!(!host_covers("*.example.com", "example.com"));
        assert!(!host_covers("*.example.com", "badexample.com"));
        assert!(!host_covers("*.example.com", ".example.com"));
        assert!(host_covers("example.com", "example.com"));
        assert!(!host_covers("example.com", "a.example.com"));
        assert!(is_host_pattern("*.example.com") && is_host_pattern("a.example.com"));
        assert!(
            !is_host_pattern("*.com")
                && !is_host_pattern("*")
                && !is_host_pattern("a.*.com")
                && !is_host_pattern("a/b")
        );
    }
}
