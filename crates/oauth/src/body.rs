//! What a reply's body is, whatever its content type says.

use http::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value};
use url::form_urlencoded;

/// A body by its look. Content types are hints at best: form-encoded replies come as `text/plain`,
/// JSON as `text/html`.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing but white space.
    Empty,
    /// A page for people.
    Html,
    /// Neither JSON, nor a form, nor a page; the text says why.
    Garbled(&'static str),
    /// JSON of any type, or a form as an object of strings.
    Data(Value),
}

impl Body {
    pub(crate) fn parse(headers: &HeaderMap, body: &[u8]) -> Self {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match body.first() {
            None => Self::Empty,
            Some(b'<') => Self::Html,
            Some(b'{' | b'[' | b'"') => json(body),
            Some(_) if looks_like_form(body, content_type) => form(body),
            Some(_) if content_type.starts_with("text/html") => Self::Html,
            Some(_) => Self::Garbled("it is neither JSON nor a form"),
        }
    }

    pub(crate) fn data(&self) -> Option<&Value> {
        match self {
            Self::Data(value) => Some(value),
            _ => None,
        }
    }
}

fn json(body: &[u8]) -> Body {
    match serde_json::from_slice(body) {
        Ok(value) => Body::Data(value),
        Err(error) if error.is_eof() => Body::Garbled("its JSON ends too early"),
        Err(_) => Body::Garbled("its JSON is malformed"),
    }
}

/// A form by its content type, or because it begins with a plain name and `=` and holds no white space.
fn looks_like_form(body: &[u8], content_type: &str) -> bool {
    let Some(equals) = body.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let named = body[..equals].iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.%[]".contains(byte));
    let declared = content_type.starts_with("application/x-www-form-urlencoded");
    declared || (equals > 0 && named && !body.iter().any(u8::is_ascii_whitespace))
}

/// Of a repeated name the first value counts.
fn form(body: &[u8]) -> Body {
    let mut members = Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        members.entry(name).or_insert_with(|| Value::String(value.into_owned()));
    }
    Body::Data(Value::Object(members))
}
