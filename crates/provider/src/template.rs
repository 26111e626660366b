//! Texts with `{{placeholders}}`, and how a value is escaped where it stands.

use std::fmt;

use url::Url;

use crate::endpoint::{check_endpoint, is_host_text, read_endpoint};

/// What stands between `{{` and `}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// A variable of the definition.
    Variable(String),
    /// A member of the token reply: `{{reply.NAME}}`.
    Reply(String),
    /// The integration's audience: `{{audience}}`.
    Audience,
}

/// The placeholder that is filled from the integration's own field, not from a variable.
pub(crate) const AUDIENCE: &str = "audience";
/// Before the names of members of the token reply.
pub(crate) const REPLY: &str = "reply.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Value(Placeholder),
}

/// A text in which values stand as they are; escaping is the duty of whatever the text is put into (form, JSON, query, header).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub parts: Vec<Part>,
}

/// A URL in which each value is escaped for its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UrlTemplate {
    /// `"{{token_url}}"`: the value is the URL.
    Whole(Placeholder),
    /// Everything else. The parts keep what separates them: the path its first `/`, the query its `?`.
    Parts { scheme: &'static str, authority: Vec<Part>, path: Vec<Part>, query: Vec<Part> },
}

impl Placeholder {
    /// As written between the braces.
    pub fn name(&self) -> String {
        match self {
            Placeholder::Variable(name) => name.clone(),
            Placeholder::Reply(name) => format!("{REPLY}{name}"),
            Placeholder::Audience => AUDIENCE.to_owned(),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let name = text.trim();
        if name == AUDIENCE {
            return Ok(Placeholder::Audience);
        }
        if let Some(member) = name.strip_prefix(REPLY)
            && !member.is_empty()
            && member.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        {
            return Ok(Placeholder::Reply(member.to_owned()));
        }
        if is_variable_name(name) {
            return Ok(Placeholder::Variable(name.to_owned()));
        }
        Err(format!("`{{{{{name}}}}}` is not a placeholder"))
    }
}

/// Lower-case letters, digits and `_`, a letter first.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl Template {
    /// The error is a reason in plain words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find("{{") {
            push_text(&mut parts, &rest[..open])?;
            let inner = &rest[open + 2..];
            let close = inner.find("}}").ok_or("`{{` is not closed by `}}`")?;
            parts.push(Part::Value(Placeholder::parse(&inner[..close])?));
            rest = &inner[close + 2..];
        }
        push_text(&mut parts, rest)?;
        Ok(Self { parts })
    }

    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        values(&self.parts)
    }

    /// The text, if it has no placeholder.
    pub fn as_literal(&self) -> Option<String> {
        join(&self.parts, |_, _| Err(())).ok()
    }

    /// Puts values in as they are; `None` if one of them is missing.
    pub fn render<E>(
        &self,
        mut value: impl FnMut(&Placeholder) -> Result<Option<String>, E>,
    ) -> Result<Option<String>, E> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(placeholder) => match value(placeholder)? {
                    Some(value) => out.push_str(&value),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(out))
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains("}}") {
        return Err("`}}` without `{{` before it".to_owned());
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

fn values(parts: &[Part]) -> impl Iterator<Item = &Placeholder> {
    parts.iter().filter_map(|part| match part {
        Part::Value(placeholder) => Some(placeholder),
        Part::Text(_) => None,
    })
}

impl UrlTemplate {
    /// Cuts a text into the parts of a URL; what is literal is checked here. The error is a reason in plain words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = Template::parse(text)?;
        if let [Part::Value(placeholder)] = template.parts.as_slice() {
            return Ok(UrlTemplate::Whole(placeholder.clone()));
        }
        let [Part::Text(first), rest @ ..] = template.parts.as_slice() else {
            return Err("a URL must begin with https:// or be one placeholder alone".to_owned());
        };
        let (scheme, first) = match (first.strip_prefix("https://"), first.strip_prefix("http://")) {
            (Some(first), _) => ("https", first),
            (_, Some(first)) => ("http", first),
            _ => {
                return Err("a URL must begin with https:// or be one placeholder alone".to_owned());
            }
        };
        let mut parts = vec![Part::Text(first.to_owned())];
        parts.extend_from_slice(rest);
        let url = split(scheme, parts)?;
        url.check_literals()?;
        Ok(url)
    }

    /// Placeholders with whether they stand in the host.
    pub fn placeholders(&self) -> Vec<(&Placeholder, Place)> {
        match self {
            UrlTemplate::Whole(placeholder) => vec![(placeholder, Place::Whole)],
            UrlTemplate::Parts { authority, path, query, .. } => {
                let inside = values(path).chain(values(query)).map(|placeholder| (placeholder, Place::PathOrQuery));
                values(authority).map(|placeholder| (placeholder, Place::Host)).chain(inside).collect()
            }
        }
    }

    /// The URL, or `None` if a value is missing. However the values look, the host is the one written in the authority.
    pub fn render<E: From<UrlProblem>>(
        &self,
        mut value: impl FnMut(&Placeholder) -> Result<Option<String>, E>,
    ) -> Result<Option<Url>, E> {
        let UrlTemplate::Parts { scheme, authority, path, query } = self else {
            return self.render_whole(value);
        };
        let mut missing = false;
        let mut fill = |parts: &[Part], escape: fn(&str) -> String| {
            join(parts, |placeholder, out: &mut String| {
                match value(placeholder)? {
                    Some(value) => out.push_str(&escape(&value)),
                    None => missing = true,
                }
                Ok::<(), E>(())
            })
        };
        let authority = fill(authority, str::to_owned)?;
        let path = fill(path, escape_segment)?;
        let query = fill(query, escape_query)?;
        if missing {
            return Ok(None);
        }
        Ok(Some(assemble(scheme, &authority, &path, &query)?))
    }

    fn render_whole<E: From<UrlProblem>>(
        &self,
        mut value: impl FnMut(&Placeholder) -> Result<Option<String>, E>,
    ) -> Result<Option<Url>, E> {
        let UrlTemplate::Whole(placeholder) = self else {
            return Ok(None);
        };
        let Some(text) = value(placeholder)? else {
            return Ok(None);
        };
        Ok(Some(read_endpoint(&text).map_err(UrlProblem)?))
    }

    /// Fills the template with harmless values and checks the result, so that an error in the literal text shows when the file is read.
    fn check_literals(&self) -> Result<(), String> {
        if let UrlTemplate::Parts { scheme: "http", authority, .. } = self
            && values(authority).next().is_some()
        {
            return Err("plain http would show credentials to the network".to_owned());
        }
        self.render(|_| Ok::<_, UrlProblem>(Some("x".to_owned()))).map(|_| ()).map_err(|problem| problem.0)
    }
}

/// Where in a URL a placeholder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Whole,
    Host,
    PathOrQuery,
}

/// Why a rendered URL is refused.
#[derive(Clone, Debug)]
pub(crate) struct UrlProblem(pub String);

impl fmt::Display for UrlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn split(scheme: &'static str, parts: Vec<Part>) -> Result<UrlTemplate, String> {
    let (mut authority, mut path, mut query) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    for part in parts {
        let text = match part {
            Part::Value(_) => {
                [&mut authority, &mut path, &mut query][at].push(part);
                continue;
            }
            Part::Text(text) => text,
        };
        let mut rest = text.as_str();
        while let Some(cut) = rest.find(boundary(at)) {
            let (before, after) = rest.split_at(cut);
            push_text([&mut authority, &mut path, &mut query][at], before)?;
            at = if after.starts_with('/') { 1 } else { 2 };
            rest = after;
        }
        push_text([&mut authority, &mut path, &mut query][at], rest)?;
    }
    Ok(UrlTemplate::Parts { scheme, authority, path, query })
}

/// What ends the authority (0), the path (1) and the query (2; nothing does, a fragment is refused later).
fn boundary(at: usize) -> &'static [char] {
    match at {
        0 => &['/', '?'],
        1 => &['?'],
        _ => &[],
    }
}

fn join<E>(parts: &[Part], mut value: impl FnMut(&Placeholder, &mut String) -> Result<(), E>) -> Result<String, E> {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Value(placeholder) => value(placeholder, &mut out)?,
        }
    }
    Ok(out)
}

/// Parses the finished text, and once more the authority alone: both must name the same host, spelled as in the template. This
/// is the last word on "a value can never change the host"; the escaping before it only makes good values pass.
fn assemble(scheme: &str, authority: &str, path: &str, query: &str) -> Result<Url, UrlProblem> {
    let problem = |reason: &str| UrlProblem(reason.to_owned());
    let bare = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    if !is_host_text(bare) && !authority.starts_with('[') {
        return Err(problem("the host has characters that a host may not have, or an empty part"));
    }
    if path.split('/').any(is_dot_segment) {
        return Err(problem("the path has a `.` or `..` segment"));
    }
    let alone = Url::parse(&format!("{scheme}://{authority}/"))
        .map_err(|error| UrlProblem(format!("it is not a URL ({error})")))?;
    let text = format!("{scheme}://{authority}{path}{query}");
    let url = read_endpoint(&text).map_err(UrlProblem)?;
    check_endpoint(&alone).map_err(UrlProblem)?;
    let written = authority.to_ascii_lowercase();
    let host = url.host_str().unwrap_or_default();
    let port = written.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    if !port || (url.host_str(), url.port()) != (alone.host_str(), alone.port()) {
        return Err(problem("the host is not written in its plain form"));
    }
    Ok(url)
}

/// URL parsers treat `%2e` as a dot when they resolve `..`.
fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// Everything but the unreserved characters of RFC 3986 §2.3 is escaped, so that a value stays within its segment.
fn escape_segment(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn escape_query(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn render(template: &str, value: &str) -> Result<Url, String> {
        let url = UrlTemplate::parse(template)?;
        url.render(|_| Ok::<_, UrlProblem>(Some(value.to_owned()))).map(Option::unwrap).map_err(|problem| problem.0)
    }

    #[test]
    fn values_are_escaped_for_their_place() {
        let nasty = "a/b?c#d@e&f=%2f ü";
        assert_eq!(
            render("https://h.example/{{x}}/t", nasty).unwrap().as_str(),
            "https://h.example/a%2Fb%3Fc%23d%40e%26f%3D%252f%20%C3%BC/t"
        );
        assert_eq!(
            render("https://h.example/t?q={{x}}&r=1", nasty).unwrap().as_str(),
            "https://h.example/t?q=a%2Fb%3Fc%23d%40e%26f%3D%252f+%C3%BC&r=1"
        );
        assert_eq!(render("https://{{x}}.h.example:444/t", "Acme").unwrap().as_str(), "https://acme.h.example:444/t");
        assert_eq!(render("https://h.example?q={{x}}", "/").unwrap().as_str(), "https://h.example/?q=%2F");
    }

    #[test]
    fn a_value_cannot_change_the_host() {
        for value in [
            "evil.example/",
            "a@evil.example",
            "evil.example#",
            "evil.example?",
            "a\r\nb",
            "evil%2fx",
            "ü",
            "a\\b",
            "",
            "a b",
            "a:1",
            "[::1]",
        ] {
            let host = render("https://{{x}}.h.example/t", value).map(|url| url.host_str().unwrap().to_owned());
            assert!(host.is_err(), "{value:?} gave {host:?}");
        }
        // Numbers are read as an address by URL parsers.
        assert!(render("https://{{x}}/t", "2130706433").is_err());
        for value in [".", "..", "%2e%2E"] {
            let path = render("https://h.example/{{x}}/t", value);
            assert!(path.is_err() || path.unwrap().path() == "/%252e%252E/t");
        }
    }

    #[test]
    fn broken_templates() {
        for (text, reason) in [
            ("https://h.example/{{x", "not closed"),
            ("https://h.example/x}}", "without `{{`"),
            ("https://h.example/{{X}}", "not a placeholder"),
            ("https://h.example/{{}}", "not a placeholder"),
            ("https://h.example/{{reply.}}", "not a placeholder"),
            ("h.example/{{x}}", "must begin with https://"),
            ("{{x}}/token", "must begin with https://"),
            ("http://h.example/{{x}}", "plain http"),
            ("http://{{x}}/", "plain http"),
            ("https://h.example/#{{x}}", "fragment"),
            ("https://u@h.example/{{x}}", "may not have"),
            ("https://h.example/../{{x}}", "`..`"),
        ] {
            let error = UrlTemplate::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_value_leaves_the_text_out() {
        let template = Template::parse("a {{ x }} b").unwrap();
        assert_eq!(template.render(|_| Ok::<_, ()>(None)).unwrap(), None);
        assert_eq!(template.render(|_| Ok::<_, ()>(Some("1".into()))).unwrap().as_deref(), Some("a 1 b"));
    }
}
