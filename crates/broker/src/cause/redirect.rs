//! Two redirect URIs, compared as a provider does.

/// Where what is sent and what is registered part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first character, counted from 0, at which they differ.
    pub at: usize,
    /// How, in words.
    pub why: String,
}

/// Compares the redirect URI that is sent with the one that is registered, as a provider does: letter by letter (RFC 9700 §2.1). `None`: they are the same.
pub fn redirect_difference(sent: &str, registered: &str) -> Option<Difference> {
    if sent == registered {
        return None;
    }
    let at = sent.chars().zip(registered.chars()).take_while(|(one, other)| one == other).count();
    Some(Difference { at, why: why_different(sent, registered) })
}

fn why_different(sent: &str, registered: &str) -> String {
    let trimmed = registered.trim();
    if trimmed != registered {
        let rest = if trimmed == sent { "" } else { ", and more is different" };
        return format!("The registered one has white space before or behind it{rest}.");
    }
    if registered.chars().any(char::is_whitespace) {
        return "The registered one has white space in it.".to_owned();
    }
    if registered.is_empty() {
        return "Nothing is registered.".to_owned();
    }
    if sent.strip_suffix('/') == Some(registered) {
        return "The registered one lacks the slash at its end.".to_owned();
    }
    if registered.strip_suffix('/') == Some(sent) {
        return "The registered one has a slash at its end, ours has none.".to_owned();
    }
    if sent.eq_ignore_ascii_case(registered) {
        return "The letter case differs; most providers compare it.".to_owned();
    }
    let (Ok(ours), Ok(theirs)) = (url::Url::parse(sent), url::Url::parse(registered)) else {
        return "The registered one is no absolute address; it must begin with https:// and have all that ours has."
            .to_owned();
    };
    if ours.scheme() != theirs.scheme() {
        return format!("The scheme differs: ours is {}, the registered one {}.", ours.scheme(), theirs.scheme());
    }
    if ours.host_str() != theirs.host_str() {
        let (one, other) = (ours.host_str().unwrap_or_default(), theirs.host_str().unwrap_or_default());
        return format!("The host differs: ours is {one}, the registered one {other}.");
    }
    if ours.port_or_known_default() != theirs.port_or_known_default() {
        let port = |url: &url::Url| url.port_or_known_default().map_or_else(String::new, |port| port.to_string());
        return format!("The port differs: ours is {}, the registered one {}.", port(&ours), port(&theirs));
    }
    if ours.path() == theirs.path() && ours.query() != theirs.query() {
        return match (ours.query(), theirs.query()) {
            (None, _) => "The registered one has a query (from the question mark on), ours has none.".to_owned(),
            (_, None) => "The registered one lacks the query (from the question mark on).".to_owned(),
            _ => "The queries (from the question mark on) differ.".to_owned(),
        };
    }
    if ours.path() != theirs.path() {
        if ours.path().eq_ignore_ascii_case(theirs.path()) {
            return "The letter case of the path differs; most providers compare it.".to_owned();
        }
        return "The path (what follows the host) differs.".to_owned();
    }
    if theirs.fragment().is_some() {
        return "The registered one has a fragment (from the # on), which no redirect URI may have.".to_owned();
    }
    "They mean the same, but are written differently (a default port, or percent-encoding), which most providers don't see through.".to_owned()
}
