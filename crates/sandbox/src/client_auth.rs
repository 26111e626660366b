//! Reads the body and the client's proof of a request to the token, revocation or introspection endpoint.

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::options::{Client, ClientAuth};
use crate::reply::Reply;
use crate::state::State;

/// An error reply of RFC 6749 §5.2.
pub(crate) struct OauthError {
    status: StatusCode,
    code: &'static str,
    description: String,
}

impl OauthError {
    pub(crate) fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, description: description.into() }
    }

    pub(crate) fn invalid_client(description: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, code: "invalid_client", description: description.into() }
    }

    pub(crate) fn reply(self) -> Reply {
        let reply = Reply::json(self.status, json!({"error": self.code, "error_description": self.description}));
        // A 401 must say how to authenticate (RFC 9110 §11.6.1).
        match self.status {
            StatusCode::UNAUTHORIZED => reply.header(WWW_AUTHENTICATE, "Basic realm=\"sandbox\", charset=\"UTF-8\""),
            _ => reply,
        }
    }
}

/// A request that was read, not yet believed.
pub(crate) struct Presented {
    form: Result<Vec<(String, String)>, OauthError>,
    credentials: Result<Credentials, OauthError>,
}

struct Credentials {
    id: String,
    secret: Option<String>,
    method: ClientAuth,
}

impl Presented {
    pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let json = is_json(headers);
        let form = if json { read_json(body) } else { read_form(body) };
        let credentials = read_credentials(headers, form.as_deref().unwrap_or_default(), json);
        Self { form, credentials }
    }

    /// A parameter; an empty one is as good as none (RFC 6749 §3.2).
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let form = self.form.as_deref().ok()?;
        find(form, name)
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, OauthError> {
        self.parameter(name).ok_or_else(|| OauthError::new("invalid_request", format!("{name} is missing")))
    }

    /// Who the client says it is, for filters and counters.
    pub(crate) fn claimed_client(&self) -> Option<&str> {
        self.credentials.as_ref().ok().map(|credentials| credentials.id.as_str())
    }

    /// The client, if it exists and proved itself by the method it is registered for.
    pub(crate) fn authenticate(&self, state: &State) -> Result<Client, OauthError> {
        let again = |error: &OauthError| OauthError {
            status: error.status,
            code: error.code,
            description: error.description.clone(),
        };
        self.form.as_ref().map_err(again)?;
        let Credentials { id, secret, method } = self.credentials.as_ref().map_err(again)?;
        let client = state.client(id).ok_or_else(|| OauthError::invalid_client("no such client"))?;
        if let Some(registered) = client.auth.filter(|registered| registered != method) {
            let description = format!("{id} is registered for the method {registered}, the request used {method}");
            return Err(OauthError::invalid_client(description));
        }
        if client.secret != *secret {
            return Err(OauthError::invalid_client("wrong client secret"));
        }
        Ok(client.clone())
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.trim_start().to_ascii_lowercase().starts_with("application/json")
}

fn read_form(body: &[u8]) -> Result<Vec<(String, String)>, OauthError> {
    let form: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
    match duplicate(&form) {
        Some(name) => Err(OauthError::new("invalid_request", format!("{name} comes twice (RFC 6749 section 3.2)"))),
        None => Ok(form),
    }
}

fn read_json(body: &[u8]) -> Result<Vec<(String, String)>, OauthError> {
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
        return Err(OauthError::new("invalid_request", "the body is not a JSON object"));
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(object.into_iter().map(|(name, value)| (name, text(value))).collect())
}

/// The first name that comes twice.
pub(crate) fn duplicate(form: &[(String, String)]) -> Option<&str> {
    let twice = |(at, (name, _)): &(usize, &(String, String))| form[..*at].iter().any(|(earlier, _)| earlier == name);
    form.iter().enumerate().find(twice).map(|(_, (name, _))| name.as_str())
}

/// The value of a parameter that is there and not empty.
pub(crate) fn find<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    form.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// RFC 6749 §2.3: one method a request. A `client_id` beside Basic is tolerated if it is the same: many clients send it.
fn read_credentials(headers: &HeaderMap, form: &[(String, String)], json: bool) -> Result<Credentials, OauthError> {
    let id = find(form, "client_id").map(str::to_owned);
    let secret = find(form, "client_secret").map(str::to_owned);
    let Some(header) = headers.get(AUTHORIZATION) else {
        let id = id.ok_or_else(|| OauthError::invalid_client("the request names no client"))?;
        let method = match (&secret, json) {
            (None, _) => ClientAuth::None,
            (Some(_), true) => ClientAuth::Json,
            (Some(_), false) => ClientAuth::Post,
        };
        return Ok(Credentials { id, secret, method });
    };
    let basic = header.to_str().ok().and_then(read_basic);
    let (basic_id, basic_secret) =
        basic.ok_or_else(|| OauthError::invalid_client("the Authorization header is not HTTP Basic"))?;
    if secret.is_some() || id.is_some_and(|id| id != basic_id) {
        return Err(OauthError::new("invalid_request", "two ways of client authentication in one request"));
    }
    Ok(Credentials { id: basic_id, secret: Some(basic_secret), method: ClientAuth::Basic })
}

fn read_basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((form_decode(id), form_decode(secret)))
}

/// RFC 6749 §2.3.1: both halves are form-encoded. The two separators are kept from splitting the value.
fn form_decode(text: &str) -> String {
    let text = text.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_form_decoded() {
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let cases = [
            ("me:secret", Some(("me", "secret"))),
            ("a%3Ab:p%26q%3D+r", Some(("a:b", "p&q= r"))),
            ("me:x&y=z", Some(("me", "x&y=z"))),
            ("me:", Some(("me", ""))),
            ("me", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(id, secret)| (id.to_owned(), secret.to_owned()));
            assert_eq!(read_basic(&header(text)), expected, "{text}");
        }
        assert_eq!(read_basic("Bearer abc"), None);
    }

    #[test]
    fn duplicates_are_found() {
        let form = |text: &str| read_form(text.as_bytes()).map_err(|error| error.description);
        assert_eq!(form("a=1&b=2&a=3").unwrap_err(), "a comes twice (RFC 6749 section 3.2)");
        assert_eq!(form("a=1&b=2").unwrap().len(), 2);
    }
}
