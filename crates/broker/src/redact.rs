//! Requests and replies as people may see them: everything that could be used is masked, what explains stays.
//!
//! Two nets, since each has holes: members are masked by their names, whatever they hold; then every value that is known to be secret is masked, wherever it
//! stands and however it is written.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, Uri, header};
use keyholder_oauth::Secret;
use serde_json::Value;
use zeroize::Zeroizing;

/// Stands for what is not shown.
const MASK: &str = "••••";

/// Most of a body that is shown, in bytes.
const SHOWN: usize = 8 << 10;

/// Most of a body that is kept until all secrets are known: one that stands across the end of what is shown must be recognised.
const KEPT: usize = 64 << 10;

/// Shorter values guess nothing, and would mask ordinary words. As the whole value of a member they are masked all the same.
const SHORTEST: usize = 6;

/// Whose body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What is sent.
    Sent,
    /// A reply that may hold tokens under any name: only what is known to explain stays.
    OfTokens,
    /// A reply of an API, or a document.
    Plain,
}

/// A body as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownBody {
    pub(crate) text: String,
    pub(crate) truncated: bool,
}

/// A URL without the secrets of its query.
pub(crate) fn url(uri: &Uri) -> String {
    let origin = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => {
            // A name and password before the host are a secret as a whole.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}")
        }
        _ => String::new(),
    };
    match uri.query() {
        None => format!("{origin}{}", uri.path()),
        Some(query) => format!("{origin}{}?{}", uri.path(), form(query, "&")),
    }
}

/// Headers by name, in their order; those that are credentials without them.
pub(crate) fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        (name.to_string(), header_value(name.as_str(), &text))
    };
    headers.iter().map(shown).collect()
}

fn header_value(name: &str, value: &str) -> String {
    match name {
        // What precedes the credential is its scheme, which explains a lot; without one all of it is the credential.
        "authorization" | "proxy-authorization" => match value.split_once(' ') {
            Some((scheme, _)) => format!("{scheme} {MASK}"),
            None => MASK.to_owned(),
        },
        "cookie" | "set-cookie" | "dpop" => MASK.to_owned(),
        "location" | "content-location" | "link" | "refresh" => {
            let (target, fragment) = value.split_once('#').map_or((value, None), |(it, rest)| (it, Some(rest)));
            let target = match target.split_once('?') {
                Some((before, query)) => format!("{before}?{}", form(query, "&")),
                None => target.to_owned(),
            };
            // Some servers answer in the fragment (RFC 6749 §4.2.2).
            match fragment {
                Some(fragment) if fragment.contains('=') => format!("{target}#{}", form(fragment, "&")),
                Some(fragment) => format!("{target}#{fragment}"),
                None => target,
            }
        }
        "www-authenticate" | "proxy-authenticate" => value.to_owned(),
        _ if is_secret_header(name) => masked(value),
        _ => value.to_owned(),
    }
}

/// `content-type: text/plain` and `x-xss-protection` are no secrets; `x-api-key`, `x-auth-token` and the like are.
fn is_secret_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "token",
        "secret",
        "password",
        "session",
        "auth",
        "api-key",
        "apikey",
        "signature",
        "credential",
        "x-key",
        "auth-key",
        "access-key",
    ]
    .iter()
    .any(|part| name.contains(part))
        || name.ends_with("-key")
}

/// A body of this content type.
pub(crate) fn body(content_type: Option<&str>, bytes: &[u8], kind: Kind) -> ShownBody {
    let content_type = content_type.unwrap_or_default();
    let bare = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let length = bytes.len();
    if bytes.is_empty() {
        return ShownBody { text: String::new(), truncated: false };
    }
    let hidden = |what: &str| ShownBody { text: format!("({} bytes of {what})", grouped(length)), truncated: false };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return hidden(if bare.is_empty() { "binary data" } else { &bare });
    };
    let json = || serde_json::from_str::<Value>(text).ok().filter(|value| value.is_object() || value.is_array());
    match bare.as_str() {
        "application/x-www-form-urlencoded" => cut(form_lines(text, kind)),
        _ if bare.ends_with("json") || bare == "text/javascript" || bare.is_empty() => match json() {
            Some(value) => cut(json_text(value, kind)),
            // Nobody can say which of it is a token.
            None if kind == Kind::OfTokens => hidden("text that is no valid JSON"),
            None => cut(members_in_text(text)),
        },
        // Some servers say that of everything.
        "text/html" | "application/xhtml+xml" => match (json(), kind) {
            (Some(value), _) => cut(json_text(value, kind)),
            (None, Kind::OfTokens) if is_form(text) => cut(form_lines(text, kind)),
            // A page may hold a token in any place.
            (None, Kind::OfTokens) => hidden(&titled(&bare, text)),
            (None, _) => cut(members_in_text(text)),
        },
        _ if bare.starts_with("text/") => match (json(), kind) {
            (Some(value), _) => cut(json_text(value, kind)),
            (None, Kind::OfTokens) if is_form(text) => cut(form_lines(text, kind)),
            (None, Kind::OfTokens) => hidden(&bare),
            (None, _) if bare == "text/xml" => hidden(&bare),
            (None, _) => cut(members_in_text(text)),
        },
        _ => hidden(&bare),
    }
}

/// A page's type, and its title, which mostly tells whose it is and what went wrong.
fn titled(kind: &str, page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title>").map(|at| at + "<title>".len()).and_then(|from| {
        let to = from + lower.get(from..)?.find("</title")?;
        page.get(from..to)
    });
    match title.map(|title| title.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|title| !title.is_empty()) {
        Some(title) => format!("{kind}, titled “{}”", title.chars().take(100).collect::<String>()),
        None => kind.to_owned(),
    }
}

/// Whether a text without spaces could be a form, which some providers send as plain text.
fn is_form(text: &str) -> bool {
    text.contains('=') && !text.contains(char::is_whitespace) && !text.contains('<')
}

fn form(text: &str, separator: &str) -> String {
    form_pairs(text, Kind::Sent).join(separator)
}

fn form_lines(text: &str, kind: Kind) -> String {
    form_pairs(text, kind).join("\n")
}

fn form_pairs(text: &str, kind: Kind) -> Vec<String> {
    url::form_urlencoded::parse(text.as_bytes())
        .map(|(name, value)| {
            let value = if is_masked(&name, kind) { masked(&value) } else { value.into_owned() };
            format!("{name}={value}")
        })
        .collect()
}

fn json_text(mut value: Value, kind: Kind) -> String {
    mask_members(&mut value, "", kind);
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

fn mask_members(value: &mut Value, name: &str, kind: Kind) {
    match value {
        Value::Object(members) => {
            for (own, member) in members.iter_mut() {
                // Whatever stands below a secret name is secret: `{"token": {"value": …}}`.
                let name = if is_secret(name) { name } else { own };
                mask_members(member, name, kind);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask_members(item, name, kind)),
        Value::String(text) if is_masked(name, kind) => *text = masked(text),
        // JSON in a text, as a server that writes down what it received has it.
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
            if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                mask_members(&mut inner, name, kind);
                *text = inner.to_string();
            }
        }
        Value::Number(number) if is_secret(name) && !explains(name) => {
            *value = Value::String(masked(&number.to_string()))
        }
        _ => {}
    }
}

/// Masks what text that can't be parsed gives a secret's name.
fn members_in_text(text: &str) -> String {
    assigned_in_text(&quoted_in_text(text))
}

/// Masks `name=value` and `<name>value`, to what ends the value.
fn assigned_in_text(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['=', '>']) {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let name = &before[before.trim_end_matches(is_name).len()..];
        let is_tag = rest[at..].starts_with('>');
        let fits =
            !name.is_empty() && is_secret(name) && (!is_tag || before[..before.len() - name.len()].ends_with('<'));
        out.push_str(&rest[..=at]);
        rest = after;
        if fits {
            let (value, left) = match after.chars().next() {
                Some('"' | '\'') if !is_tag => quoted(after),
                _ => {
                    let ends = |c: char| if is_tag { c == '<' } else { c.is_whitespace() || "&;,<>\"')".contains(c) };
                    after.split_at(after.find(ends).unwrap_or(after.len()))
                }
            };
            out.push_str(&masked(value));
            rest = left;
        }
    }
    out.push_str(rest);
    out
}

/// Masks `"name": "value"`, to the value's end or that of the text.
fn quoted_in_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(colon) = rest.find(':') {
        let (before, after) = rest.split_at(colon);
        let name = before.trim_end().strip_suffix(['"', '\'']).and_then(|it| it.rsplit(['"', '\'']).next());
        let value = after[1..].trim_start();
        let is_text = value.starts_with(['"', '\'']);
        match name.filter(|name| is_text && is_secret(name)) {
            Some(_) => {
                out.push_str(before);
                out.push_str(": \"");
                let (inside, left) = quoted(value);
                out.push_str(&masked(inside));
                out.push('"');
                rest = left;
            }
            None => {
                out.push_str(&rest[..=colon]);
                rest = &after[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// What a text that begins with a quote holds, and what comes behind it.
fn quoted(text: &str) -> (&str, &str) {
    let quote = text.chars().next().unwrap_or('"');
    let inside = &text[quote.len_utf8()..];
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return (&inside[..at], &inside[at + c.len_utf8()..]),
            _ => {}
        }
    }
    (inside, "")
}

fn is_masked(name: &str, kind: Kind) -> bool {
    match kind {
        Kind::Sent | Kind::Plain => is_secret(name),
        Kind::OfTokens => !explains(name),
    }
}

/// Members of a token reply that explain and never hold a token.
fn explains(name: &str) -> bool {
    const NAMES: [&str; 22] = [
        "token_type",
        "issued_token_type",
        "expires_in",
        "expires",
        "expires_at",
        "expires_on",
        "ext_expires_in",
        "refresh_token_expires_in",
        "refresh_expires_in",
        "scope",
        "scopes",
        "error",
        "error_description",
        "error_uri",
        "error_codes",
        "error_code",
        "suberror",
        "message",
        "detail",
        "title",
        "status",
        "active",
    ];
    NAMES.iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// Whether a member of this name is a secret, whatever it holds.
fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 11] = [
        "token",
        "secret",
        "passw",
        "passphrase",
        "assertion",
        "signature",
        "credential",
        "apikey",
        "privatekey",
        "authorization",
        "cookie",
    ];
    const WHOLE: [&str; 19] = [
        "code",
        "codeverifier",
        "usercode",
        "devicecode",
        "key",
        "sig",
        "sign",
        "hmac",
        "mac",
        "pwd",
        "pass",
        "pin",
        "otp",
        "jwt",
        "sid",
        "sessionid",
        "state",
        "nonce",
        "samlresponse",
    ];
    if explains(name)
        || matches!(
            name,
            "token_endpoint"
                | "token_type_hint"
                | "subject_token_type"
                | "requested_token_type"
                | "client_assertion_type"
        )
    {
        return false;
    }
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let is_key = name.ends_with("key") && !["publickey", "primarykey", "foreignkey"].contains(&name.as_str());
    // Documents name their endpoints and what they support.
    let is_about =
        name.ends_with("endpoint") || name.ends_with("supported") || name.ends_with("url") || name.ends_with("uri");
    !is_about && (is_key || PARTS.iter().any(|part| name.contains(part)) || WHOLE.contains(&name.as_str()))
}

fn masked(value: &str) -> String {
    match value.chars().count() {
        0 => String::new(),
        1 => format!("{MASK} (1 character)"),
        count => format!("{MASK} ({count} characters)"),
    }
}

fn cut(text: String) -> ShownBody {
    let (text, truncated) = up_to(KEPT, text);
    ShownBody { text, truncated }
}

/// As much of a body as is shown, and whether that isn't all of it.
pub(crate) fn shown_part(text: String) -> (String, bool) {
    up_to(SHOWN, text)
}

fn up_to(most: usize, mut text: String) -> (String, bool) {
    let truncated = text.len() > most;
    text.truncate(text.floor_char_boundary(most));
    (text, truncated)
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How servers write a value that they repeat, longest first.
pub(crate) fn ways_to_write(secret: &str) -> Vec<Zeroizing<String>> {
    let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = serde_json::to_string(secret).unwrap_or_default();
    let json = json.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(secret).to_owned();
    let entities = |quote: &str, apostrophe: &str, slash: &str| {
        let text = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('"', quote).replace('\'', apostrophe).replace('/', slash)
    };
    let bytes = secret.as_bytes();
    let padded = STANDARD.encode(bytes);
    let mut ways = vec![
        in_lower_hex(&encoded),
        in_lower_hex(&encoded.replace('+', "%20")),
        encoded.replace('+', "%20"),
        encoded,
        // As PHP writes it.
        json.replace('/', "\\/"),
        json,
        entities("&quot;", "&#39;", "/"),
        entities("&quot;", "&#x27;", "&#x2F;"),
        entities("&#34;", "&#39;", "&#47;"),
        padded.trim_end_matches('=').to_owned(),
        padded,
        URL_SAFE_NO_PAD.encode(bytes),
        secret.to_owned(),
    ];
    ways.retain(|way| way.len() >= SHORTEST);
    ways.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    ways.dedup();
    ways.into_iter().map(Zeroizing::new).collect()
}

/// `%2F` as `%2f`.
fn in_lower_hex(encoded: &str) -> String {
    let mut out = encoded.to_owned().into_bytes();
    for at in 0..out.len() {
        if out[at] == b'%' {
            let digits = at + 1..(at + 3).min(out.len());
            out[digits].make_ascii_lowercase();
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Values that must not be seen, in all the ways in which they are written.
#[derive(Default)]
pub(crate) struct Hidden {
    /// Longest first: one may be part of another.
    forms: Vec<Zeroizing<String>>,
}

impl Hidden {
    /// One more secret.
    pub(crate) fn add(&mut self, secret: &Secret) {
        let secret = secret.expose();
        if secret.len() < SHORTEST || self.forms.iter().any(|form| form.as_str() == secret) {
            return;
        }
        // A key of several lines arrives with its lines joined or escaped.
        let lines = secret.lines().map(str::trim).filter(|line| line.len() >= 24 && !line.starts_with("-----"));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        self.forms.extend(ways_to_write(secret).into_iter().chain(lines.into_iter().map(Zeroizing::new)));
        self.sort();
    }

    /// A client as `Authorization: Basic` writes it (RFC 6749 §2.3.1).
    pub(crate) fn add_pair(&mut self, id: &str, secret: &Secret) {
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let plain = Zeroizing::new(format!("{id}:{}", secret.expose()));
        let encoded = Zeroizing::new(format!("{}:{}", encode(id), encode(secret.expose())));
        self.forms.extend([&plain, &encoded].map(|pair| Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
        self.sort();
    }

    fn sort(&mut self) {
        self.forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        self.forms.dedup();
    }

    /// The text without them, and without whatever looks like a signed token.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for form in &self.forms {
            if text.contains(form.as_str()) {
                text = text.replace(form.as_str(), MASK);
            }
        }
        without_jwts(&text)
    }
}

/// Masks `header.payload.signature` with a header that is a JSON object in base64url.
fn without_jwts(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        let found = &rest[at..];
        let end = found.find(|c| !is_part(c)).unwrap_or(found.len());
        out.push_str(&rest[..at]);
        // Cut ones too: their payload tells all but the signature.
        if found[..end].contains('.') || end > 40 {
            out.push_str(MASK);
        } else {
            out.push_str(&found[..end]);
        }
        rest = &found[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: Option<&str> = Some("application/json; charset=utf-8");
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

    fn shown(content_type: Option<&str>, text: &str, kind: Kind) -> String {
        body(content_type, text.as_bytes(), kind).text
    }

    #[test]
    fn a_url_keeps_its_parameters_but_not_their_secrets() {
        for (uri, expected) in [
            (
                "https://api.example.com/v1/x?page=2&access_token=abc",
                "https://api.example.com/v1/x?page=2&access_token=•••• (3 characters)",
            ),
            ("https://ada:pw@example.com/", "https://example.com/"),
            (
                "https://example.com/p?code=1&state=xyz",
                "https://example.com/p?code=•••• (1 character)&state=•••• (3 characters)",
            ),
        ] {
            assert_eq!(url(&uri.parse().unwrap()), expected);
        }
    }

    #[test]
    fn headers_that_are_credentials_keep_their_scheme() {
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer abc"),
            ("proxy-authorization", "abc"),
            ("cookie", "session=1"),
            ("set-cookie", "session=1; Secure"),
            ("dpop", "abc"),
            ("x-api-key", "abc"),
            ("x-auth-token", "abcd"),
            ("location", "https://example.com/?code=abc&page=1"),
            ("www-authenticate", "Bearer error=\"invalid_token\""),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            map.insert(header::HeaderName::from_static(name), value.parse().unwrap());
        }
        let left: Vec<_> = headers(&map).into_iter().map(|(_, value)| value).collect();
        assert_eq!(
            left,
            [
                "Bearer ••••",
                "••••",
                "••••",
                "••••",
                "••••",
                "•••• (3 characters)",
                "•••• (4 characters)",
                "https://example.com/?code=•••• (3 characters)&page=1",
                "Bearer error=\"invalid_token\"",
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ]
        );
    }

    #[test]
    fn a_body_keeps_what_explains() {
        for (content_type, text, kind, expected) in [
            (
                FORM,
                "grant_type=password&username=ada&password=pw",
                Kind::Sent,
                "grant_type=password\nusername=ada\npassword=•••• (2 characters)",
            ),
            (
                FORM,
                "client_assertion_type=urn%3Ax&client_assertion=abc",
                Kind::Sent,
                "client_assertion_type=urn:x\nclient_assertion=•••• (3 characters)",
            ),
            (
                JSON,
                r#"{"access_token":"abc","odd":"abc","expires_in":3600,"token_type":"Bearer"}"#,
                Kind::OfTokens,
                "{\n  \"access_token\": \"•••• (3 characters)\",\n  \"expires_in\": 3600,\n  \"odd\": \"•••• (3 characters)\",\n  \"token_type\": \"Bearer\"\n}",
            ),
            (
                JSON,
                r#"{"error":"invalid_client","error_description":"no"}"#,
                Kind::OfTokens,
                "{\n  \"error\": \"invalid_client\",\n  \"error_description\": \"no\"\n}",
            ),
            (
                JSON,
                r#"{"name":"Ada","token":{"value":"abc"}}"#,
                Kind::Plain,
                "{\n  \"name\": \"Ada\",\n  \"token\": {\n    \"value\": \"•••• (3 characters)\"\n  }\n}",
            ),
            (JSON, r#"{"access_token":"abc"#, Kind::OfTokens, "(20 bytes of text that is no valid JSON)"),
            (
                JSON,
                r#"{"n":1,"access_token":"ab\"c"#,
                Kind::Plain,
                "{\"n\":1,\"access_token\": \"•••• (5 characters)\"",
            ),
            (
                Some("text/plain"),
                "access_token=abc&expires=9",
                Kind::OfTokens,
                "access_token=•••• (3 characters)\nexpires=9",
            ),
            (Some("text/plain"), "the token is abc", Kind::OfTokens, "(16 bytes of text/plain)"),
            (
                Some("text/html"),
                "<html><title>\n Log in </title><input value=\"abc\">",
                Kind::OfTokens,
                "(49 bytes of text/html, titled “Log in”)",
            ),
            (Some("text/html"), "{\"odd\":\"abc\"}", Kind::OfTokens, "{\n  \"odd\": \"•••• (3 characters)\"\n}"),
            (
                Some("text/plain"),
                "no: refresh_token=abc&a=1 <api_key>abc</api_key> b > c",
                Kind::Plain,
                "no: refresh_token=•••• (3 characters)&a=1 <api_key>•••• (3 characters)</api_key> b > c",
            ),
            (
                Some("text/plain"),
                "Größe=5, ß>6, über token=abc: “é”=1",
                Kind::Plain,
                "Größe=5, ß>6, über token=•••• (4 characters) “é”=1",
            ),
            (
                JSON,
                r#"{"got":"{\"authorization\":\"Bearer abc\"}"}"#,
                Kind::Plain,
                "{\n  \"got\": \"{\\\"authorization\\\":\\\"•••• (10 characters)\\\"}\"\n}",
            ),
            (Some("application/soap+xml"), "<token>abc</token>", Kind::Plain, "(18 bytes of application/soap+xml)"),
            (Some("image/png"), "x", Kind::Plain, "(1 bytes of image/png)"),
            (None, "", Kind::Plain, ""),
        ] {
            assert_eq!(shown(content_type, text, kind), expected, "{text}");
        }
        let long = body(Some("text/plain"), &b"x ".repeat(KEPT), Kind::Plain);
        assert_eq!((long.text.len(), long.truncated), (KEPT, true));
        assert_eq!(shown_part(long.text).0.len(), SHOWN);
        assert_eq!(body(Some("text/plain"), &vec![0xff; 1234], Kind::Plain).text, "(1,234 bytes of text/plain)");
    }

    #[test]
    fn documents_keep_the_names_of_their_endpoints() {
        let document = r#"{"token_endpoint":"https://a/t","token_endpoint_auth_methods_supported":["none"]}"#;
        assert!(!shown(JSON, document, Kind::Plain).contains(MASK));
    }

    #[test]
    fn known_values_are_hidden_however_they_are_written() {
        let mut hidden = Hidden::default();
        hidden.add(&Secret::new("p\"w+ d/1"));
        hidden.add_pair("me", &Secret::new("p\"w+ d/1"));
        for text in [
            "p\"w+ d/1",
            "p%22w%2B+d%2F1",
            "p%22w%2B%20d%2F1",
            "p\\\"w+ d/1",
            "p\\\"w+ d\\/1",
            "p%22w%2b+d%2f1",
            "p&quot;w+ d/1",
            "p&#34;w+ d&#47;1",
            STANDARD.encode("p\"w+ d/1").trim_end_matches('='),
            &STANDARD.encode("me:p\"w+ d/1"),
            &STANDARD.encode("me:p%22w%2B+d%2F1"),
        ] {
            assert_eq!(hidden.hide(&format!("a {text} b")), format!("a {MASK} b"), "{text}");
        }
        assert_eq!(hidden.hide("x eyJhbGciOiJub25lIn0.eyJhIjoxfQ.abc y"), format!("x {MASK} y"));
        hidden.add(&Secret::new("short"));
        assert_eq!(hidden.hide("short words stay"), "short words stay");
    }

    proptest! {
        #[test]
        fn any_text_is_shown(text in "(token|é|ß|[=<>:\"'\\\\ a•]){0,30}", kind in prop_oneof![Just(Kind::Plain), Just(Kind::OfTokens), Just(Kind::Sent)]) {
            for content_type in ["text/plain", "text/html", "application/json", "application/x-www-form-urlencoded"] {
                prop_assert!(!text.is_empty() || shown(Some(content_type), &text, kind).is_empty());
                let _ = shown(Some(content_type), &text, kind);
            }
            let location = http::HeaderValue::from_str(&text).ok();
            let fields = location.map(|value| HeaderMap::from_iter([(header::LOCATION, value)])).unwrap_or_default();
            prop_assert_eq!(headers(&fields).len(), fields.len());
        }

        #[test]
        fn no_secret_comes_through(
            secret in "[A-Za-z0-9+/=_.~\"& -]{12,40}",
            name in "(access_token|odd|client_secret|x|data)",
            place in 0..7usize,
        ) {
            // A value of spaces only is nothing that a provider gives out.
            prop_assume!(secret.trim().len() >= 12 && !secret.contains("  "));
            let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let json = serde_json::json!({ "list": [{ &name: &secret }], "said": format!("got {secret}!") }).to_string();
            let text = match place {
                0 => shown(JSON, &json, Kind::Plain),
                1 => shown(JSON, &json, Kind::OfTokens),
                2 => shown(FORM, &format!("{name}={encoded}&b=1"), Kind::Sent),
                3 => shown(Some("text/html"), &format!("<p>{secret}</p>"), Kind::Plain),
                4 => shown(Some("text/plain"), &format!("{name}={encoded}"), Kind::OfTokens),
                5 => url(&format!("https://example.com/a?{name}={encoded}").parse().unwrap()),
                _ => shown(JSON, &json[..json.len() - 3], Kind::Plain),
            };
            let mut hidden = Hidden::default();
            hidden.add(&Secret::new(secret.clone()));
            let text = hidden.hide(&text);
            prop_assert!(!text.contains(&secret), "{text}");
            prop_assert!(!text.contains(&encoded), "{text}");
        }
    }
}
