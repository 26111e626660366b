//! What a request must be, and in what it differs.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use url::form_urlencoded;

use super::keys::{self, Claim};
use super::received::{BodyKind, Params, Received, escaped, taken_apart};
use super::script::{Address, Known, SECONDARY, Script, milliseconds};

/// In what a request differs from what the definition says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Complaint {
    /// Which part of the request.
    pub place: String,
    /// What the definition says.
    pub expected: String,
    /// What came.
    pub got: String,
    /// The error code of OAuth that fits.
    #[serde(skip)]
    pub(super) code: &'static str,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, got {}", self.place, self.expected, self.got)
    }
}

/// What a parameter must be.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// This; a text may have marks for signed tokens in it.
    Is(Value),
    /// This, if it is there at all.
    Maybe(Value),
    /// One of these; what for.
    Among(Vec<String>, &'static str),
    /// A verifier with this challenge (RFC 7636 §4.6).
    Verifier(String),
    /// Random, at least 128 bits of it.
    Random,
    /// An assertion of the client for this address.
    Assertion(Address),
}

impl Want {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Want::Is(Value::String(text.into()))
    }
}

/// Names as they are sent, with what they must be.
pub(super) type Wants = Vec<(String, Want)>;

/// Judges one request.
pub(super) struct Judge<'a> {
    pub(super) script: &'a Script,
    pub(super) known: &'a Known,
    pub(super) now: i64,
    pub(super) complaints: Vec<Complaint>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(script: &'a Script, known: &'a Known, now: i64) -> Self {
        Self { script, known, now, complaints: Vec::new() }
    }

    pub(super) fn complain(
        &mut self,
        code: &'static str,
        place: &str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) {
        self.complaints.push(Complaint { place: place.to_owned(), expected: expected.into(), got: got.into(), code });
    }

    /// A request that the client authenticates: method, place of the parameters, headers, the parameters themselves.
    /// `standard` are the parameters by their standard names.
    pub(super) fn client_request(&mut self, phase: &str, address: &Address, standard: Wants, got: &Received) {
        let field = |name: &str| format!("/{phase}/{name}");
        let script = self.script;
        self.method(script.text(&field("method")).unwrap_or("POST"), got);
        let auth = script.client_auth(phase);
        let (credentials, mut query, authorization) = self.credentials(auth, address);
        let body = script.field(&field("body"));
        let is_get = script.text(&field("method")) == Some("GET");
        let form = match body.as_str() {
            _ if is_get || body == "query" => BodyKind::Empty,
            Some("json") => BodyKind::Json,
            None if body.is_object() => {
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                BodyKind::Template(text("content_type"), text("template"))
            }
            _ if auth == "json" => BodyKind::Json,
            _ => BodyKind::Form,
        };
        self.headers(phase, authorization, got);

        let mut params = self.renamed(phase, standard.clone());
        let own = self.texts(&field("params"));
        replace(&mut params, own.clone());
        replace(&mut params, self.renamed(phase, credentials.clone()));
        query = self.renamed(phase, query);
        replace(&mut query, self.texts(&field("query")));
        for (name, value) in &address.query {
            if !query.iter().any(|(known, _)| known == name) {
                query.push((name.clone(), Want::text(value.as_str())));
            }
        }

        if let BodyKind::Template(content_type, template) = &form {
            self.template(content_type, template, [credentials, own, standard].concat(), got);
        } else if form == BodyKind::Empty {
            query.retain(|(name, _)| !params.iter().any(|(other, _)| other == name));
            query.extend(params);
            if let Err((expected, found)) = got.params(&form) {
                self.complain("invalid_request", "body", expected, found);
            }
        } else {
            match got.params(&form) {
                Ok(found) => self.compare("body", params, found, form == BodyKind::Json),
                Err((expected, found)) => self.complain("invalid_request", "content type", expected, found),
            }
        }
        self.compare("query", query, got.query(), false);
    }

    pub(super) fn method(&mut self, wanted: &str, got: &Received) {
        if got.method.as_str() != wanted {
            self.complain("invalid_request", "method", wanted, got.method.as_str());
        }
    }

    /// The definition's headers of a phase, and the client's proof among them.
    fn headers(&mut self, phase: &str, authorization: Option<String>, got: &Received) {
        let own = self.script.table(&format!("/{phase}/headers"));
        self.own_headers(&own, got);
        let names = |name: &str| own.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !names("authorization") {
            let found = got.header("authorization");
            if found != authorization.as_deref() {
                let shown = |header: Option<&str>| header.map_or("none".to_owned(), |text| hidden(text).to_owned());
                let wanted =
                    format!("{} (client_auth = {})", shown(authorization.as_deref()), self.script.client_auth(phase));
                self.complain("invalid_client", "header authorization", wanted, shown(found));
            }
        }
        if !names("accept") && got.header("accept") != Some("application/json") {
            self.complain(
                "invalid_request",
                "header accept",
                "application/json",
                got.header("accept").unwrap_or("none"),
            );
        }
    }

    /// Headers that the definition gives.
    pub(super) fn own_headers(&mut self, own: &[(&str, &Value)], got: &Received) {
        for (name, template) in own {
            let wanted = template.as_str().and_then(|text| self.script.fill(text, self.known));
            let found = got.headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
            let place = format!("header {}", name.to_ascii_lowercase());
            let fits = match (&wanted, found.as_slice()) {
                (None, []) => true,
                (Some(wanted), [found]) => keys::matches(self.script, self.known, self.now, wanted, found).is_ok(),
                // Left out by the definition, so one that is sent anyway stays.
                (None, _) => ["accept", "user-agent", "content-type"].contains(&name.to_ascii_lowercase().as_str()),
                _ => false,
            };
            if !fits {
                let wanted = wanted.map_or("none".to_owned(), |text| self.shown(&text));
                let found = if found.is_empty() { "none".to_owned() } else { hidden(&found.join(" and ")).to_owned() };
                self.complain("invalid_request", &place, wanted, found);
            }
        }
    }

    /// What a client proves itself with: parameters, parameters of the URL, the header.
    fn credentials(&self, auth: &str, address: &Address) -> (Wants, Wants, Option<String>) {
        let registration = &self.script.registration;
        let id = || ("client_id".to_owned(), Want::text(registration.client_id.as_str()));
        let secret = registration.client_secret.clone().unwrap_or_default();
        let pair = || vec![id(), ("client_secret".to_owned(), Want::text(secret.as_str()))];
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let basic = |id: &str, secret: &str| Some(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))));
        match auth {
            "basic" => (Vec::new(), Vec::new(), basic(&encoded(&registration.client_id), &encoded(&secret))),
            "raw_basic" => (Vec::new(), Vec::new(), basic(&registration.client_id, &secret)),
            "post" | "json" => (pair(), Vec::new(), None),
            "query" => (Vec::new(), pair(), None),
            "client_secret_jwt" | "private_key_jwt" => {
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                let assertion = Want::Assertion(address.clone());
                let params = vec![
                    id(),
                    ("client_assertion_type".to_owned(), Want::text(kind)),
                    ("client_assertion".to_owned(), assertion),
                ];
                (params, Vec::new(), None)
            }
            // The certificate of `tls` belongs to the connection; a rehearsal has none.
            _ => (vec![id()], Vec::new(), None),
        }
    }

    /// The definition's own parameters of a phase; those that lack a value are left out.
    pub(super) fn texts(&self, pointer: &str) -> Wants {
        self.filled(&self.script.table(pointer))
    }

    pub(super) fn filled(&self, table: &[(&str, &Value)]) -> Wants {
        let want = |(name, value): &(&str, &Value)| {
            let value = match value.as_str() {
                Some(template) => Value::String(self.script.fill(template, self.known)?),
                None => (*value).clone(),
            };
            Some(((*name).to_owned(), Want::Is(value)))
        };
        table.iter().filter_map(want).collect()
    }

    /// Standard parameters under the names that the definition gives them in this phase.
    pub(super) fn renamed(&self, phase: &str, standard: Wants) -> Wants {
        let renames = self.script.field(&format!("/{phase}/rename"));
        let dropped = self.script.list(&format!("/{phase}/drop"));
        let scope = self.script.text("/scopes/parameter").unwrap_or("scope");
        let rename = |(name, want): (String, Want)| {
            if dropped.contains(&name.as_str()) {
                return None;
            }
            match renames[name.as_str()].as_str() {
                Some(other) => Some((other.to_owned(), want)),
                None if name == "scope" => Some((scope.to_owned(), want)),
                None => Some((name, want)),
            }
        };
        standard.into_iter().filter_map(rename).collect()
    }

    /// The scopes as the definition wants them sent.
    pub(super) fn scope(&self) -> Wants {
        let scopes = self.script.scopes();
        let one = |value: Value| ("scope".to_owned(), Want::Is(value));
        match self.script.text("/scopes/format") {
            _ if scopes.is_empty() => Vec::new(),
            Some("array") => vec![one(scopes.into())],
            Some("repeat") => scopes.into_iter().map(|scope| one(scope.into())).collect(),
            _ => vec![one(scopes.join(self.script.separator()).into())],
        }
    }

    fn template(&mut self, content_type: &str, template: &str, wants: Wants, got: &Received) {
        if let Err((expected, found)) = got.params(&BodyKind::Template(content_type.to_owned(), template.to_owned())) {
            self.complain("invalid_request", "content type", expected, found);
        }
        let body = String::from_utf8_lossy(&got.body);
        let escape = |value: &str| escaped(content_type, value);
        let Some(found) = taken_apart(template, &body, &escape, |name| self.script.value(name, self.known)) else {
            return self.complain("invalid_request", "body", "the definition's template", "another text");
        };
        for (name, text) in found {
            let want = wants.iter().find(|(known, _)| *known == name).map(|(_, want)| want.clone());
            // What is sent must be the escaped form of what it stands for.
            let fits = match want.unwrap_or(Want::text("")) {
                Want::Is(Value::String(wanted)) => text == escape(&wanted),
                Want::Among(known, _) => known.iter().any(|known| text == escape(known)),
                other => self.fits(&other, &Value::String(text.clone()), false).is_ok(),
            };
            if !fits {
                self.complain(
                    "invalid_request",
                    &format!("body, in the place of {name}"),
                    "its value",
                    self.shown(&text),
                );
            }
        }
    }

    /// Exactly these parameters, each with its value.
    pub(super) fn compare(&mut self, place: &str, wants: Wants, mut got: Params, is_json: bool) {
        for (name, want) in wants {
            let place = format!("{place}, {name}");
            let Some(at) = got.iter().position(|(known, _)| *known == name) else {
                if !matches!(want, Want::Maybe(_)) {
                    self.complain(code_of(&name), &place, self.described(&want), "nothing");
                }
                continue;
            };
            let (_, found) = got.remove(at);
            if let Err(why) = self.fits(&want, &found, is_json) {
                let shown = self.shown(found.as_str().unwrap_or(&found.to_string()));
                let expected = why.unwrap_or_else(|| self.described(&want));
                self.complain(code_of(&name), &place, expected, shown);
            }
        }
        for (name, value) in got {
            let shown = self.shown(value.as_str().unwrap_or(&value.to_string()));
            self.complain(code_of(&name), &format!("{place}, {name}"), "no such parameter", shown);
        }
    }

    fn fits(&self, want: &Want, found: &Value, is_json: bool) -> Result<(), Option<String>> {
        let text = found.as_str().unwrap_or_default();
        let when = |fits: bool| if fits { Ok(()) } else { Err(None) };
        match want {
            Want::Is(Value::String(wanted)) => match found {
                Value::String(text) => keys::matches(self.script, self.known, self.now, wanted, text),
                _ => Err(None),
            },
            Want::Is(wanted) | Want::Maybe(wanted) if is_json => when(wanted == found),
            // Elsewhere than in JSON, all is text.
            Want::Is(wanted) | Want::Maybe(wanted) => {
                when(wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned) == text)
            }
            Want::Among(known, _) => when(known.iter().any(|known| known == text)),
            Want::Verifier(challenge) => {
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
                when((43..=128).contains(&text.len()) && URL_SAFE_NO_PAD.encode(hash) == *challenge)
            }
            Want::Random => when(text.len() >= 22),
            Want::Assertion(address) => self.assertion(address, text).map_err(Some),
        }
    }

    /// RFC 7523 §3, with what the definition adds.
    fn assertion(&self, address: &Address, jwt: &str) -> Result<(), String> {
        let phase = "/token/client_assertion";
        let script = self.script;
        let (key, standard) = match script.client_auth("token") {
            "client_secret_jwt" => (script.registration.client_secret.as_deref(), "HS256"),
            _ => (script.registration.client_key.as_deref(), "RS256"),
        };
        let text = |name: &str| script.text(&format!("{phase}/{name}"));
        let lifetime = text("lifetime").and_then(milliseconds).unwrap_or(60_000);
        let audience =
            text("audience").and_then(|text| script.fill(text, self.known)).unwrap_or_else(|| address.shown());
        let id = Value::from(script.registration.client_id.as_str());
        let mut claims = vec![
            ("iss".to_owned(), Claim::Is(id.clone())),
            ("sub".to_owned(), Claim::Is(id)),
            ("aud".to_owned(), Claim::Is(audience.into())),
            ("jti".to_owned(), Claim::Any),
            ("iat".to_owned(), Claim::At(self.now)),
            ("nbf".to_owned(), Claim::At(self.now)),
            ("exp".to_owned(), Claim::At(self.now + lifetime)),
        ];
        for (name, want) in self.texts(&format!("{phase}/claims")) {
            if let Want::Is(value) = want {
                claims.retain(|(known, _)| *known != name);
                claims.push((name, Claim::Is(value)));
            }
        }
        let header: Vec<(String, Value)> = self
            .texts(&format!("{phase}/header"))
            .into_iter()
            .filter_map(|(name, want)| if let Want::Is(value) = want { Some((name, value)) } else { None })
            .collect();
        let algorithm = text("algorithm").unwrap_or(standard);
        keys::check(jwt, algorithm, key.unwrap_or_default(), &header, &claims)
            .map_err(|why| format!("an assertion of the client ({why})"))
    }

    fn described(&self, want: &Want) -> String {
        match want {
            Want::Is(value) | Want::Maybe(value) => self.shown(value.as_str().unwrap_or(&value.to_string())),
            Want::Among(known, what) if known.is_empty() => format!("{what}, but none was given out"),
            Want::Among(_, what) => (*what).to_owned(),
            Want::Verifier(_) => "the verifier of the challenge".to_owned(),
            Want::Random => "a random value of at least 128 bits".to_owned(),
            Want::Assertion(_) => "an assertion of the client".to_owned(),
        }
    }

    /// A text without the rehearsal's secrets: what is practice today may be pasted somewhere tomorrow.
    pub(super) fn shown(&self, text: &str) -> String {
        shown(self.script, self.known, text)
    }
}

/// A text with `****` in the place of each secret of the rehearsal.
pub(super) fn shown(script: &Script, known: &Known, text: &str) -> String {
    let registration = &script.registration;
    let own =
        [&registration.client_secret, &registration.client_key, &registration.password, &registration.refresh_token];
    let mut secrets: Vec<&str> = own.into_iter().flatten().map(String::as_str).collect();
    for name in ["access_token", "refresh_token", "id_token", "code"] {
        secrets.extend(known.get(name).map(String::as_str));
    }
    secrets.extend(known.iter().filter(|(name, _)| name.starts_with(SECONDARY)).map(|(_, token)| token.as_str()));
    let text = secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret, "****"));
    if text.contains('\u{1}') || text.contains("eyJ") { "a signed token".to_owned() } else { text }
}

/// A header without what follows its scheme.
fn hidden(header: &str) -> &str {
    header.split_once(' ').map_or(header, |(scheme, _)| scheme)
}

/// The later ones replace those of the same name.
pub(super) fn replace(params: &mut Wants, more: Wants) {
    for (name, want) in more {
        params.retain(|(known, _)| *known != name);
        params.push((name, want));
    }
}

/// Which error a wrong parameter is.
fn code_of(name: &str) -> &'static str {
    match name {
        "client_id" | "client_secret" | "client_assertion" | "client_assertion_type" => "invalid_client",
        "code" | "code_verifier" | "refresh_token" | "username" | "password" | "device_code" | "assertion" => {
            "invalid_grant"
        }
        "scope" => "invalid_scope",
        _ => "invalid_request",
    }
}
