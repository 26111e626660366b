//! Texts with `{{placeholders}}`, and how a value is escaped where it stands.

use std::borrow::Cow;
use std::fmt;

use url::Url;

use crate::endpoint::{check_endpoint, is_host_text, read_endpoint};

/// What stands between `{{` and `}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// A variable of the definition.
    Variable(String),
    /// A standard input, such as `{{audience}}`.
    Input(Input),
    /// What a provider said: `{{reply.NAME}}` and the like. Its text is the whole name, as in [`Values`](crate::Values).
    Said(Source, String),
    /// What the choice of a variable says beside its label: `{{region.host}}`, whole.
    Choice(String),
    /// One of `[computed]`.
    Computed(String),
    /// A token that was obtained: `{{access_token}}` and the like.
    Token(Token),
    /// A parameter of the request, by its standard name: `{{params.NAME}}`, in templates of bodies.
    Param(String),
}

/// The standard inputs that have a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Audience,
    ClientId,
    ClientSecret,
    ClientKey,
    Username,
    Password,
    Scope,
    RedirectUri,
}

/// Who said a value that is not the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A text member of the token reply.
    Reply,
    /// Captured from the callback.
    Callback,
    /// Learnt after connecting.
    Lookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Access,
    Refresh,
    Id,
}

const INPUTS: [(&str, Input); 8] = [
    ("audience", Input::Audience),
    ("client_id", Input::ClientId),
    ("client_secret", Input::ClientSecret),
    ("client_key", Input::ClientKey),
    ("username", Input::Username),
    ("password", Input::Password),
    ("scope", Input::Scope),
    ("redirect_uri", Input::RedirectUri),
];

const TOKENS: [(&str, Token); 3] =
    [("access_token", Token::Access), ("refresh_token", Token::Refresh), ("id_token", Token::Id)];

const SOURCES: [(&str, Source); 3] =
    [("reply.", Source::Reply), ("callback.", Source::Callback), ("lookup.", Source::Lookup)];

/// Whether a name already means something, so that no variable may have it.
pub(crate) fn is_reserved(name: &str) -> bool {
    let others = ["grant_type", "token_key"];
    INPUTS.iter().any(|(known, _)| *known == name)
        || TOKENS.iter().any(|(known, _)| *known == name)
        || others.contains(&name)
}

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
    /// `"{{token_url}}"`: the value is the URL, or with `"{{server}}/token"` what a path is appended to.
    Whole { base: Placeholder, path: Vec<Part>, query: Vec<Part> },
    /// Without a placeholder: parsed once. A path may be written or be the parser's.
    Fixed { url: Url, has_path: bool },
    /// Everything else. The parts keep what separates them: the path its first `/`, the query its `?`.
    Parts { scheme: &'static str, authority: Vec<Part>, path: Vec<Part>, query: Vec<Part> },
}

/// A path below an address that is given elsewhere, with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathTemplate {
    path: Vec<Part>,
    query: Vec<Part>,
}

impl Placeholder {
    /// What it names, in the words of its kind.
    pub fn name(&self) -> &str {
        let known = |names: &[(&'static str, Input)], input: &Input| {
            names.iter().find(|(_, known)| known == input).map_or("", |(name, _)| *name)
        };
        match self {
            Placeholder::Variable(name)
            | Placeholder::Said(_, name)
            | Placeholder::Choice(name)
            | Placeholder::Computed(name)
            | Placeholder::Param(name) => name,
            Placeholder::Input(input) => known(&INPUTS, input),
            Placeholder::Token(token) => TOKENS.iter().find(|(_, known)| known == token).map_or("", |(name, _)| *name),
        }
    }

    /// As written, braces and all.
    pub fn shown(&self) -> String {
        let prefix = match self {
            Placeholder::Computed(_) => "computed.",
            Placeholder::Param(_) => "params.",
            _ => "",
        };
        format!("{{{{{prefix}{}}}}}", self.name())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let name = text.trim();
        if let Some((_, input)) = INPUTS.iter().find(|(known, _)| *known == name) {
            return Ok(Placeholder::Input(*input));
        }
        if let Some((_, token)) = TOKENS.iter().find(|(known, _)| *known == name) {
            return Ok(Placeholder::Token(*token));
        }
        let is_member = |member: &str| {
            !member.is_empty() && member.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        for (prefix, source) in SOURCES {
            if name.strip_prefix(prefix).is_some_and(is_member) {
                return Ok(Placeholder::Said(source, name.to_owned()));
            }
        }
        match (name.strip_prefix("computed."), name.strip_prefix("params.")) {
            (Some(computed), _) if is_variable_name(computed) => Ok(Placeholder::Computed(computed.to_owned())),
            (_, Some(param)) if is_member(param) => Ok(Placeholder::Param(param.to_owned())),
            _ if is_variable_name(name) => Ok(Placeholder::Variable(name.to_owned())),
            _ if name.split_once('.').is_some_and(|(of, member)| is_variable_name(of) && is_variable_name(member)) => {
                Ok(Placeholder::Choice(name.to_owned()))
            }
            _ => Err(format!("`{{{{{name}}}}}` is not a placeholder")),
        }
    }
}

/// Letters, digits and `_`, a letter first.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
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
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Puts values in as they are; `None` if one of them is missing.
    pub fn render<'v, E>(
        &self,
        mut value: impl FnMut(&Placeholder) -> Result<Option<Cow<'v, str>>, E>,
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

impl PathTemplate {
    /// The error is a reason in plain words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = Template::parse(text)?.parts;
        let literal =
            |wrong: fn(&str) -> bool| parts.iter().any(|part| matches!(part, Part::Text(text) if wrong(text)));
        let begins =
            matches!(parts.first(), Some(Part::Text(text)) if text.starts_with('/') && !text.starts_with("//"));
        if !begins || literal(|text| text.contains(['\\', '#']) || text.chars().any(|c| !c.is_ascii_graphic())) {
            return Err("it is not a path".to_owned());
        }
        let UrlTemplate::Parts { path, query, .. } = split("https", parts)? else {
            return Err("it is not a path".to_owned());
        };
        let path = Self { path, query };
        let sample = path.render(|_| Ok::<_, ()>(Some(Cow::Borrowed("x")))).ok().flatten().unwrap_or_default();
        match sample.split(['?']).next().is_some_and(|path| path.split('/').any(is_dot_segment)) {
            true => Err("the path has a `.` or `..` segment".to_owned()),
            false => Ok(path),
        }
    }

    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        values(&self.path).chain(values(&self.query))
    }

    /// The path with its query, escaped; `None` if a value is missing.
    pub fn render<'v, E>(
        &self,
        mut value: impl FnMut(&Placeholder) -> Result<Option<Cow<'v, str>>, E>,
    ) -> Result<Option<String>, E> {
        fill_tail(&self.path, &self.query, &mut value)
    }
}

/// A path and a query with their values escaped; `None` if one is missing.
fn fill_tail<'v, E>(
    path: &[Part],
    query: &[Part],
    value: &mut impl FnMut(&Placeholder) -> Result<Option<Cow<'v, str>>, E>,
) -> Result<Option<String>, E> {
    let mut out = String::new();
    for (parts, escape) in [(path, escape_segment as fn(&str, &mut String)), (query, escape_query)] {
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(placeholder) => match value(placeholder)? {
                    Some(value) => escape(&value, &mut out),
                    None => return Ok(None),
                },
            }
        }
    }
    Ok(Some(out))
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
        let must = "a URL must begin with https:// or with one placeholder, alone or before a `/`";
        let (first, rest) = match template.parts.as_slice() {
            [Part::Value(base)] => {
                return Ok(UrlTemplate::Whole { base: base.clone(), path: Vec::new(), query: Vec::new() });
            }
            [Part::Value(base), Part::Text(text), ..] if text.starts_with('/') => {
                return Self::appended(base, &template.parts[1..]);
            }
            [Part::Text(first), rest @ ..] => (first, rest),
            _ => return Err(must.to_owned()),
        };
        let (scheme, first) = match (first.strip_prefix("https://"), first.strip_prefix("http://")) {
            (Some(first), _) => ("https", first),
            (_, Some(first)) => ("http", first),
            _ => return Err(must.to_owned()),
        };
        let mut parts = vec![Part::Text(first.to_owned())];
        parts.extend_from_slice(rest);
        let split = split(scheme, parts)?;
        let sample = split.check_literals()?;
        Ok(match (&split, sample) {
            (UrlTemplate::Parts { path, .. }, Some(url)) if split.placeholders().is_empty() => {
                UrlTemplate::Fixed { url, has_path: !path.is_empty() }
            }
            _ => split,
        })
    }

    fn appended(base: &Placeholder, tail: &[Part]) -> Result<Self, String> {
        let mut sample = vec![Part::Text("x.example".to_owned())];
        sample.extend_from_slice(tail);
        let split = split("https", sample)?;
        split.check_literals()?;
        match split {
            UrlTemplate::Parts { path, query, .. } => Ok(UrlTemplate::Whole { base: base.clone(), path, query }),
            whole => Ok(whole),
        }
    }

    /// Placeholders with whether they stand in the host.
    pub fn placeholders(&self) -> Vec<(&Placeholder, Place)> {
        let (first, path, query) = match self {
            UrlTemplate::Fixed { .. } => return Vec::new(),
            UrlTemplate::Whole { base, path, query } => (vec![(base, Place::Whole)], path, query),
            UrlTemplate::Parts { authority, path, query, .. } => {
                (values(authority).map(|placeholder| (placeholder, Place::Host)).collect(), path, query)
            }
        };
        let inside = values(path).chain(values(query)).map(|placeholder| (placeholder, Place::PathOrQuery));
        first.into_iter().chain(inside).collect()
    }

    /// The URL, or `None` if a value is missing. However the values look, the host is the one written in the authority.
    pub fn render<'v, E: From<UrlProblem>>(
        &self,
        mut value: impl FnMut(&Placeholder) -> Result<Option<Cow<'v, str>>, E>,
    ) -> Result<Option<Url>, E> {
        let (scheme, authority, path, query) = match self {
            UrlTemplate::Fixed { url, .. } => return Ok(Some(url.clone())),
            UrlTemplate::Whole { base, path, query } => return Self::render_whole(base, path, query, value),
            UrlTemplate::Parts { scheme, authority, path, query } => (scheme, authority, path, query),
        };
        let mut host = String::new();
        for part in authority {
            match part {
                Part::Text(text) => host.push_str(text),
                Part::Value(placeholder) => match value(placeholder)? {
                    // Neither a port nor anything else beside the host.
                    Some(value) if !is_host_text(&value) => {
                        return Err(UrlProblem("the host has characters that a host may not have".to_owned()).into());
                    }
                    Some(value) => host.push_str(&value),
                    None => return Ok(None),
                },
            }
        }
        let Some(tail) = fill_tail(path, query, &mut value)? else { return Ok(None) };
        Ok(Some(assemble(scheme, &host, &tail)?))
    }

    fn render_whole<'v, E: From<UrlProblem>>(
        base: &Placeholder,
        path: &[Part],
        query: &[Part],
        mut value: impl FnMut(&Placeholder) -> Result<Option<Cow<'v, str>>, E>,
    ) -> Result<Option<Url>, E> {
        let Some(text) = value(base)? else { return Ok(None) };
        let url = read_endpoint(&text).map_err(UrlProblem)?;
        if path.is_empty() && query.is_empty() {
            return Ok(Some(url));
        }
        let Some(tail) = fill_tail(path, query, &mut value)? else { return Ok(None) };
        if url.query().is_some() {
            return Err(UrlProblem("a path is appended to it, and it has a query (`?…`)".to_owned()).into());
        }
        if tail.split('?').next().is_some_and(|path| path.split('/').any(is_dot_segment)) {
            return Err(UrlProblem("the path has a `.` or `..` segment".to_owned()).into());
        }
        let whole = format!("{}{tail}", url.as_str().trim_end_matches('/'));
        let appended = read_endpoint(&whole).map_err(UrlProblem)?;
        if (appended.host_str(), appended.port()) != (url.host_str(), url.port()) {
            return Err(UrlProblem("the host is not written in its plain form".to_owned()).into());
        }
        Ok(Some(appended))
    }

    /// Fills the template with harmless values and checks the result, so that an error in the literal text shows when the file is read.
    fn check_literals(&self) -> Result<Option<Url>, String> {
        if let UrlTemplate::Parts { scheme: "http", authority, .. } = self
            && values(authority).next().is_some()
        {
            return Err("plain http would show credentials to the network".to_owned());
        }
        self.render(|_| Ok::<_, UrlProblem>(Some(Cow::Borrowed("x")))).map_err(|problem| problem.0)
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

impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlTemplate::Whole { base, path, query } => {
                f.write_str(&base.shown())?;
                path.iter().chain(query).try_for_each(|part| part.fmt(f))
            }
            UrlTemplate::Fixed { url, has_path: true } => f.write_str(url.as_str()),
            UrlTemplate::Fixed { url, has_path: false } => f.write_str(url.as_str().trim_end_matches('/')),
            UrlTemplate::Parts { scheme, authority, path, query } => {
                write!(f, "{scheme}://")?;
                authority.iter().chain(path).chain(query).try_for_each(|part| part.fmt(f))
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| part.fmt(f))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Text(text) => f.write_str(text),
            Part::Value(placeholder) => f.write_str(&placeholder.shown()),
        }
    }
}

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

/// Parses the finished text, and once more the authority alone: both must name the same host, spelled as in the template. This
/// is the last word on "a value can never change the host"; the escaping before it only makes good values pass.
fn assemble(scheme: &str, authority: &str, tail: &str) -> Result<Url, UrlProblem> {
    let problem = |reason: &str| UrlProblem(reason.to_owned());
    let bare = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    if !is_host_text(bare) && !authority.starts_with('[') {
        return Err(problem("the host has characters that a host may not have, or an empty part"));
    }
    if tail.split('?').next().is_some_and(|path| path.split('/').any(is_dot_segment)) {
        return Err(problem("the path has a `.` or `..` segment"));
    }
    let alone = Url::parse(&format!("{scheme}://{authority}/"))
        .map_err(|error| UrlProblem(format!("it is not a URL ({error})")))?;
    let text = format!("{scheme}://{authority}{tail}");
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
fn escape_segment(value: &str, out: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

fn escape_query(value: &str, out: &mut String) {
    out.extend(url::form_urlencoded::byte_serialize(value.as_bytes()));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn render(template: &str, value: &str) -> Result<Url, String> {
        let url = UrlTemplate::parse(template)?;
        url.render(|_| Ok::<_, UrlProblem>(Some(Cow::Borrowed(value)))).map(Option::unwrap).map_err(|problem| problem.0)
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
            ("https://h.example/{{X-Y}}", "not a placeholder"),
            ("https://h.example/{{computed.}}", "not a placeholder"),
            ("https://h.example/{{}}", "not a placeholder"),
            ("https://h.example/{{reply.}}", "not a placeholder"),
            ("h.example/{{x}}", "must begin with https://"),
            ("{{x}}.example/token", "must begin with https://"),
            ("{{x}}{{y}}", "must begin with https://"),
            ("{{x}}/../token", "`..`"),
            ("{{x}}/token#a", "fragment"),
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
        assert_eq!(template.render(|_| Ok::<_, ()>(None::<Cow<'_, str>>)).unwrap(), None);
        assert_eq!(template.render(|_| Ok::<_, ()>(Some("1".into()))).unwrap().as_deref(), Some("a 1 b"));
    }
}
