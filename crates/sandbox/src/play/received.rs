//! A request as it came.

use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, Uri};
use serde_json::Value;
use url::form_urlencoded;

use super::script::{Address, Part, parts};

/// Parameters with their names; texts, or in JSON whatever it has.
pub(super) type Params = Vec<(String, Value)>;

pub(super) struct Received {
    pub(super) method: Method,
    pub(super) address: Address,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// What a body is expected to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    Form,
    Json,
    /// Content type and text.
    Template(String, String),
    /// Everything is in the query.
    Empty,
}

impl Received {
    pub(super) fn new(method: Method, uri: &Uri, headers: HeaderMap, body: Vec<u8>) -> Option<Self> {
        let named = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = uri.authority().map(|authority| authority.as_str()).or(named)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self { method, address: Address::read(&format!("https://{host}{path}"))?, headers, body })
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The content type without its parameters.
    pub(super) fn content_type(&self) -> &str {
        let full = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        full.split(';').next().unwrap_or_default().trim()
    }

    pub(super) fn query(&self) -> Params {
        self.address.query.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
    }

    /// The body's parameters, if it is what is expected; else what it should be and what it is.
    pub(super) fn params(&self, form: &BodyKind) -> Result<Params, (String, String)> {
        let (wanted, is_right) = match form {
            BodyKind::Form => ("application/x-www-form-urlencoded", self.content_type() == FORM),
            BodyKind::Json => ("application/json", self.content_type() == "application/json"),
            BodyKind::Template(content_type, _) => {
                (content_type.as_str(), self.header("content-type") == Some(content_type))
            }
            BodyKind::Empty => ("no body", self.body.is_empty()),
        };
        if !is_right {
            let got = if *form == BodyKind::Empty {
                format!("{} bytes", self.body.len())
            } else {
                self.content_type().to_owned()
            };
            return Err((wanted.to_owned(), got));
        }
        match form {
            BodyKind::Form => Ok(form_urlencoded::parse(&self.body)
                .map(|(name, value)| (name.into_owned(), value.into_owned().into()))
                .collect()),
            BodyKind::Json => match serde_json::from_slice(&self.body) {
                Ok(Value::Object(members)) => Ok(members.into_iter().collect()),
                _ => Err(("a JSON object".to_owned(), "something else".to_owned())),
            },
            BodyKind::Template(..) | BodyKind::Empty => Ok(Vec::new()),
        }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// What stands in a body where its template has `{{params.NAME}}`; `None` if the rest differs. `fill` gives the other values, escaped.
pub(super) fn taken_apart(
    template: &str,
    body: &str,
    escape: &impl Fn(&str) -> String,
    fill: impl Fn(&str) -> Option<String>,
) -> Option<Vec<(String, String)>> {
    // Text that must stand there, and the parameter after it.
    let mut pieces: Vec<(String, Option<String>)> = vec![(String::new(), None)];
    for part in parts(template) {
        let last = pieces.last_mut()?;
        match part {
            Part::Text(text) => last.0.push_str(text),
            Part::Name(name) => match name.strip_prefix("params.") {
                Some(param) => {
                    last.1 = Some(param.to_owned());
                    pieces.push((String::new(), None));
                }
                None => last.0.push_str(&escape(&fill(name).unwrap_or_default())),
            },
        }
    }
    let mut found = Vec::new();
    let mut rest = body.strip_prefix(pieces.first()?.0.as_str())?;
    for pair in pieces.windows(2) {
        let name = pair[0].1.clone()?;
        let next = pair[1].0.as_str();
        let end = if next.is_empty() && pair[1].1.is_none() { rest.len() } else { rest.find(next)? };
        found.push((name, rest[..end].to_owned()));
        rest = &rest[end + next.len()..];
    }
    rest.is_empty().then_some(found)
}

/// A value as a body of this content type has it.
pub(super) fn escaped(content_type: &str, value: &str) -> String {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    if name.ends_with("json") {
        let quoted = Value::from(value).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    } else if name.ends_with("xml") {
        let mut out = String::new();
        for c in value.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&apos;"),
                plain => out.push(plain),
            }
        }
        out
    } else if name == FORM {
        form_urlencoded::byte_serialize(value.as_bytes()).collect()
    } else {
        value.to_owned()
    }
}
