//! A data source, read: its texts parsed, each mistake named. What passes here can be called.

use std::collections::{BTreeMap, BTreeSet};

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use keyholder_provider::saved::{Address, Body, Escape, Json, Path, Spot, Text};
use keyholder_provider::{AskedOf, Kind, Pattern, Presence, Variable};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::rules::{Rule, allows};
use crate::error::{Error, FieldError, Result};
use crate::model::{DataSource, SavedRequest, SourceVariable, ValueKind, Values};

/// Most entries of each map and list.
const MANY: usize = 200;
/// Longest text, in bytes.
const LONG: usize = 8192;
/// Longest body, in bytes.
const LARGE: usize = 256 << 10;
/// Longest JSONPath, in bytes.
const LONGEST_PATH: usize = 1000;

/// What a source may not send in a header: it frames the message, or is put in on the way, or would have a server take a request for another.
const NOT_ITS_OWN: [&str; 21] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// A data source with its texts parsed.
pub(crate) struct ReadSource {
    pub(crate) source: DataSource,
    pub(super) base: Option<Address>,
    pub(super) headers: Vec<(HeaderName, Text)>,
    pub(super) query: Vec<(String, Text)>,
    pub(super) variables: BTreeMap<String, (Variable, ValueKind)>,
    pub(super) rules: Vec<Rule>,
    pub(super) requests: BTreeMap<String, ReadRequest>,
    pub(super) health: Option<ReadRequest>,
}

/// A saved request with its texts parsed.
pub(super) struct ReadRequest {
    pub(super) method: Method,
    pub(super) path: Path,
    pub(super) query: Vec<(String, Text)>,
    pub(super) headers: Vec<(HeaderName, Text)>,
    pub(super) body: Option<(Body, &'static str)>,
    pub(super) extract: Option<JsonPath>,
    pub(super) expect_status: Vec<u16>,
    pub(super) expect_found: Option<JsonPath>,
}

impl ReadRequest {
    /// The names that it needs.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        let texts = self.query.iter().map(|(_, text)| text).chain(self.headers.iter().map(|(_, text)| text));
        let body = self.body.iter().flat_map(|(body, _)| body.names());
        self.path.names().chain(texts.flat_map(Text::names)).chain(body).collect()
    }
}

impl ReadSource {
    /// Reads a data source.
    ///
    /// # Errors
    /// All mistakes, each with its field, reason and remedy.
    pub(crate) fn read(source: DataSource) -> Result<Self> {
        let mut reader = Reader { errors: Vec::new() };
        let read = reader.source(source);
        if reader.errors.is_empty() { Ok(read) } else { Err(Error::Invalid(reader.errors)) }
    }

    /// The names that headers and query need in every call.
    pub(super) fn shared_names(&self) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter().flat_map(|(_, text)| text.names());
        headers.chain(self.query.iter().flat_map(|(_, text)| text.names()))
    }

    /// The names in the base URL.
    pub(super) fn base_names(&self) -> Vec<(&str, Spot)> {
        self.base.as_ref().map(Address::names).unwrap_or_default()
    }

    /// Whether what stands under a name is a JSON number or boolean.
    pub(super) fn is_bare(&self, name: &str) -> bool {
        self.variables.get(name).is_some_and(|(_, kind)| *kind != ValueKind::Text)
    }

    /// Checks the placeholders against `others`, the variables of the connection's definition: is each known, may each stand where it stands?
    pub(crate) fn check_names(&self, others: &[Variable]) -> Result<()> {
        let mut errors = Vec::new();
        let other = |name: &str| others.iter().find(|variable| variable.name == name);
        let is_said = |name: &str| name.contains('.');
        let is_secret = |name: &str| match self.variables.get(name) {
            Some((variable, _)) => variable.secret || other(name).is_some_and(|it| it.secret),
            None => other(name).is_some_and(|it| it.secret),
        };
        let unknown = |field: String, name: &str| {
            let reason = format!("`{{{{{name}}}}}` is no variable of the data source, nor of its connection");
            FieldError::new(field, reason, format!("declare `{name}` under variables, or correct the name"))
        };
        let hidden = |field: String, name: &str| {
            let reason = format!("`{{{{{name}}}}}` is secret, and paths are written down in the audit and in logs");
            FieldError::new(field, reason, "put it in a header, the query or the body")
        };
        let is_known = |name: &str| is_said(name) || self.variables.contains_key(name) || other(name).is_some();
        for (name, spot) in self.base_names() {
            if !is_known(name) {
                errors.push(unknown("base_url".to_owned(), name));
            } else if is_secret(name) {
                errors.push(hidden("base_url".to_owned(), name));
            }
            let own = self.variables.get(name).map(|(variable, _)| variable);
            let bound = |it: &Variable| {
                it.pattern.is_some() || !it.choices.is_empty() || matches!(it.kind, Kind::Host | Kind::Url)
            };
            if spot != Spot::Path && !is_said(name) && own.or(other(name)).is_some_and(|it| !bound(it)) {
                let reason = format!("`{{{{{name}}}}}` stands in the host, and nothing says which values it may have");
                errors.push(FieldError::new("base_url", reason, format!("give variables.{name} a pattern or choices")));
            }
        }
        let shared = [("headers", &self.source.spec.headers), ("query", &self.source.spec.query)];
        for (group, texts) in shared {
            for (field, text) in texts {
                let names = Text::parse(text).map(|text| text.names().map(str::to_owned).collect::<Vec<_>>());
                let strangers = names.unwrap_or_default().into_iter().filter(|name| !is_known(name));
                errors.extend(strangers.map(|name| unknown(format!("{group}.{field}"), &name)));
            }
        }
        let requests = self.requests.iter().map(|(name, request)| (format!("requests.{name}.path"), request));
        for (field, request) in requests.chain(self.health.iter().map(|request| ("health.path".to_owned(), request))) {
            errors.extend(request.path.names().filter(|name| is_secret(name)).map(|name| hidden(field.clone(), name)));
        }
        for name in self.health.iter().flat_map(ReadRequest::names).filter(|name| !is_known(name)) {
            errors.push(unknown("health".to_owned(), name));
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
    }

    /// Whether a value fits its variable, if that is declared here.
    pub(super) fn check_value(&self, name: &str, value: &str) -> std::result::Result<(), FieldError> {
        match self.variables.get(name) {
            Some((variable, kind)) => check_value(variable, *kind, value),
            None if value.len() > LONG || value.chars().any(char::is_control) => Err(FieldError::new(
                format!("variables.{name}"),
                "it is too long, or has a line break or a control character",
                "give it on one line",
            )),
            None => Ok(()),
        }
    }
}

/// Reads, and collects what is wrong.
struct Reader {
    errors: Vec<FieldError>,
}

impl Reader {
    fn wrong(&mut self, field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(FieldError::new(field, reason, remedy));
    }

    fn source(&mut self, source: DataSource) -> ReadSource {
        let spec = &source.spec;
        self.description("description", &source.description);
        let base = source.base_url.as_deref().and_then(|text| self.base(text));
        let headers = self.headers("headers", &spec.headers);
        let query = self.params("query", &spec.query);
        let variables = self.variables(&source);
        self.count("allow", spec.allow.len());
        let rules: Vec<Rule> = spec.allow.iter().enumerate().filter_map(|(at, rule)| self.rule(at, rule)).collect();
        self.count("requests", spec.requests.len());
        let source_type = spec.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let source_type = source_type.map(|(_, value)| value.as_str());
        let mut requests = BTreeMap::new();
        for (name, request) in &spec.requests {
            let field = format!("requests.{name}");
            if crate::manage::check_name(name).is_err() {
                let remedy = "use 1 to 100 characters without / \\ ? # %, line breaks, or spaces at the ends";
                self.wrong(&field, "it can't be used as a name", remedy);
            }
            if let Some(read) = self.request(&field, request, source_type, &rules) {
                requests.insert(name.clone(), read);
            }
        }
        let health = spec.health.as_ref().and_then(|health| self.request("health", health, source_type, &rules));
        ReadSource { base, headers, query, variables, rules, requests, health, source }
    }

    fn description(&mut self, field: &str, text: &str) {
        if text.len() > LONG || text.chars().any(|c| c.is_control() && c != '\n') {
            self.wrong(field, "it is too long or holds control characters", "write a few sentences");
        }
    }

    fn count(&mut self, field: &str, count: usize) {
        if count > MANY {
            self.wrong(field, format!("it has {count} entries; {MANY} is the most"), "make a second data source");
        }
    }

    fn base(&mut self, text: &str) -> Option<Address> {
        let remedy = "give an absolute https:// URL without user name, password, query and fragment (http:// is for loopback only)";
        if text.len() > 2048 {
            self.wrong("base_url", "it is longer than 2048 bytes", remedy);
            return None;
        }
        if text.contains('?') {
            self.wrong("base_url", "it has a query", "put its parameters under `query`, and leave them out here");
            return None;
        }
        match Address::parse(text) {
            Ok(address) => Some(address),
            Err(reason) => {
                self.wrong("base_url", reason, remedy);
                None
            }
        }
    }

    fn text(&mut self, field: &str, text: &str, longest: usize) -> Option<Text> {
        if text.len() > longest {
            self.wrong(field, format!("it is longer than {longest} bytes"), "shorten it");
            return None;
        }
        match Text::parse(text) {
            Ok(text) => Some(text),
            Err(reason) => {
                self.wrong(field, reason, "write placeholders as {{name}}, and declare the names under variables");
                None
            }
        }
    }

    fn headers(&mut self, group: &str, headers: &Values) -> Vec<(HeaderName, Text)> {
        self.count(group, headers.len());
        let mut read: Vec<(HeaderName, Text)> = Vec::new();
        for (name, value) in headers {
            let field = format!("{group}.{name}");
            let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
                self.wrong(field, "it is no name of a header", "use letters, digits and hyphens");
                continue;
            };
            if NOT_ITS_OWN.contains(&known.as_str()) || known.as_str().starts_with("keyholder-") {
                self.wrong(
                    field,
                    "this header is not for a data source to set",
                    "leave it out; the token is put in on the way",
                );
                continue;
            }
            if read.iter().any(|(other, _)| *other == known) {
                self.wrong(field, "it stands there twice, in other letter case", "keep one of them");
                continue;
            }
            let Some(text) = self.text(&field, value, LONG) else { continue };
            if HeaderValue::from_str(&text.literal()).is_err() {
                self.wrong(field, "it holds characters that a header may not have", "write it in ASCII, on one line");
                continue;
            }
            read.push((known, text));
        }
        read
    }

    fn params(&mut self, group: &str, params: &Values) -> Vec<(String, Text)> {
        self.count(group, params.len());
        let mut read = Vec::new();
        for (name, value) in params {
            let field = format!("{group}.{name}");
            if name.is_empty() || name.len() > 200 || name.contains("{{") {
                self.wrong(field, "it is no name of a parameter", "use 1 to 200 characters without placeholders");
                continue;
            }
            if let Some(text) = self.text(&field, value, LONG) {
                read.push((name.clone(), text));
            }
        }
        read
    }

    fn variables(&mut self, source: &DataSource) -> BTreeMap<String, (Variable, ValueKind)> {
        self.count("variables", source.spec.variables.len());
        let mut read = BTreeMap::new();
        for (name, given) in &source.spec.variables {
            let field = format!("variables.{name}");
            match Text::parse(&format!("{{{{{name}}}}}")) {
                Ok(text) if text.names().eq([name.as_str()]) && !name.contains('.') => {}
                _ => {
                    self.wrong(
                        field,
                        "it is no name of a variable, or one that means something else",
                        "use letters, digits and `_`, a letter first",
                    );
                    continue;
                }
            }
            let Some(variable) = self.variable(&field, name, given) else { continue };
            let secret = source.secrets.get(name).map(keyholder_oauth::Secret::expose);
            for value in [given.value.as_deref(), given.default.as_deref(), secret].into_iter().flatten() {
                self.errors.extend(check_value(&variable, given.kind, value).err());
            }
            read.insert(name.clone(), (variable, given.kind));
        }
        read
    }

    fn variable(&mut self, field: &str, name: &str, given: &SourceVariable) -> Option<Variable> {
        let texts = [&given.label, &given.help];
        if texts.iter().any(|text| text.len() > LONG || text.chars().any(|c| c.is_control() && c != '\n')) {
            self.wrong(field, "its label or help is too long or holds control characters", "write plain sentences");
            return None;
        }
        if given.secret && given.default.is_some() {
            self.wrong(
                format!("{field}.default"),
                "a secret has no default: it would be stored in the clear",
                "give its value instead",
            );
            return None;
        }
        let pattern = match given.pattern.as_deref().map(Pattern::new) {
            Some(Err(reason)) => {
                self.wrong(format!("{field}.pattern"), format!("it is no regular expression: {reason}"), "correct it");
                return None;
            }
            Some(Ok(pattern)) => Some(pattern),
            None => None,
        };
        self.count(&format!("{field}.choices"), given.choices.len());
        Some(Variable {
            name: name.to_owned(),
            label: if given.label.is_empty() { name.to_owned() } else { given.label.clone() },
            help: given.help.clone(),
            default: None,
            presence: if given.required { Presence::Required } else { Presence::Optional },
            secret: given.secret,
            pattern,
            asked_of: AskedOf::Connection,
            kind: Kind::Text,
            is_url: false,
            choices: given.choices.iter().map(|choice| (choice.clone(), choice.clone())).collect(),
            sets: BTreeMap::new(),
            example: None,
            methods: Vec::new(),
        })
    }

    fn rule(&mut self, at: usize, rule: &crate::model::AllowRule) -> Option<Rule> {
        for method in rule.methods.iter().filter(|method| !is_method(method)) {
            let shown: String = method.chars().take(40).collect();
            self.wrong(
                format!("allow[{at}].methods"),
                format!("`{shown}` is no method that the gateway passes on"),
                "write methods in capitals, like GET",
            );
        }
        match Rule::read(rule) {
            Ok(rule) => Some(rule),
            Err(reason) => {
                self.wrong(
                    format!("allow[{at}].path"),
                    reason,
                    "write a path below the base URL like /contacts, /contacts/* or /contacts/**",
                );
                None
            }
        }
    }

    fn request(
        &mut self,
        field: &str,
        request: &SavedRequest,
        source_type: Option<&str>,
        rules: &[Rule],
    ) -> Option<ReadRequest> {
        let before = self.errors.len();
        self.description(&format!("{field}.description"), &request.description);
        let has_body = request.body.is_some() || !request.form.is_empty();
        let word = match request.method.as_str() {
            "" if has_body => "POST",
            "" => "GET",
            word => word,
        };
        if !is_method(word) {
            self.wrong(
                format!("{field}.method"),
                "it is no method that the gateway passes on",
                "write one in capitals, like GET",
            );
        }
        let method = Method::from_bytes(word.as_bytes()).unwrap_or_default();
        let path = self.path(&format!("{field}.path"), &request.path);
        if let Some(path) = path.as_ref().filter(|path| path.names().next().is_none()) {
            let text = path.fill(|_: &str| None).unwrap_or_default();
            if !allows(rules, &method, text.split('?').next().unwrap_or_default()) {
                self.wrong(
                    format!("{field}.path"),
                    format!("no rule under allow lets {method} of this path pass"),
                    "add a rule, or correct the path",
                );
            }
        }
        let query = self.params(&format!("{field}.query"), &request.query);
        let headers = self.headers(&format!("{field}.headers"), &request.headers);
        let own_type = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let content_type = own_type.map(|(_, value)| value.as_str()).or(source_type);
        let body = self.body(field, request, content_type);
        let mut json_path = |member: &str, text: &Option<String>| {
            text.as_deref().and_then(|text| self.json_path(&format!("{field}.{member}"), text))
        };
        let extract = json_path("extract", &request.extract);
        let expect = request.expect.clone().unwrap_or_default();
        let expect_found = json_path("expect.found", &expect.found);
        if expect.status.iter().any(|status| !(100..600).contains(status) || StatusCode::from_u16(*status).is_err()) {
            self.wrong(format!("{field}.expect.status"), "it is no status of an answer", "give numbers like 200");
        }
        let path = path.filter(|_| self.errors.len() == before)?;
        Some(ReadRequest { method, path, query, headers, body, extract, expect_status: expect.status, expect_found })
    }

    fn path(&mut self, field: &str, text: &str) -> Option<Path> {
        let remedy = "write a path below the base URL with a leading slash, percent-encoded, like /contacts/{{id}}";
        let read = if text.len() > LONG { Err("it is too long".to_owned()) } else { Path::parse(text) };
        read.map_err(|reason| self.wrong(field, reason, remedy)).ok()
    }

    fn body(
        &mut self,
        field: &str,
        request: &SavedRequest,
        content_type: Option<&str>,
    ) -> Option<(Body, &'static str)> {
        const FORM: &str = "application/x-www-form-urlencoded";
        const JSON: &str = "application/json";
        let place = format!("{field}.body");
        if !request.form.is_empty() {
            if request.body.is_some() {
                self.wrong(place, "there is a form too", "give one of them");
            }
            return Some((Body::Form(self.params(&format!("{field}.form"), &request.form)), FORM));
        }
        let body = request.body.as_ref()?;
        let size = body.as_str().map_or_else(|| body.to_string().len(), str::len);
        if size > LARGE {
            self.wrong(place, format!("it is longer than {LARGE} bytes"), "send such a body through the gateway");
            return None;
        }
        let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let Value::String(text) = body else { return self.json(&place, body).map(|json| (Body::Json(json), JSON)) };
        if kind.ends_with("json") {
            let remedy = "write valid JSON, with placeholders inside strings only; numbers and booleans are variables of that kind";
            return match serde_json::from_str(text) {
                Ok(value) => self.json(&place, &value).map(|json| (Body::Json(json), JSON)),
                Err(error) => {
                    self.wrong(
                        place,
                        format!(
                            "its content type is JSON, and it is none: line {}, column {}",
                            error.line(),
                            error.column()
                        ),
                        remedy,
                    );
                    None
                }
            };
        }
        if kind == FORM {
            self.wrong(place, "its content type is a form", "give its parameters under `form`");
            return None;
        }
        let escape = if kind.ends_with("xml") || kind == "text/html" { Escape::Xml } else { Escape::None };
        self.text(&place, text, LARGE).map(|text| (Body::Text(text, escape), "text/plain; charset=utf-8"))
    }

    fn json(&mut self, place: &str, value: &Value) -> Option<Json> {
        let remedy = "write placeholders as {{name}} inside strings";
        Json::parse(value).map_err(|reason| self.wrong(place, reason, remedy)).ok()
    }

    fn json_path(&mut self, field: &str, text: &str) -> Option<JsonPath> {
        if text.len() > LONGEST_PATH {
            self.wrong(field, format!("it is longer than {LONGEST_PATH} bytes"), "shorten it");
            return None;
        }
        match JsonPath::parse(text) {
            Ok(_) if !is_bounded(text) => {
                let remedy = "use `$` once, `..` at most twice, and at most three filters";
                self.wrong(field, "it could take very long on a large reply", remedy);
                None
            }
            Ok(path) => Some(path),
            Err(error) => {
                let remedy = "write a JSONPath (RFC 9535) like $.items[*].name; `match` and `search` are not supported";
                self.wrong(field, format!("it is no JSONPath: {error}"), remedy);
                None
            }
        }
    }
}

fn is_method(word: &str) -> bool {
    let known = Method::from_bytes(word.as_bytes()).ok().filter(|_| word.bytes().all(|b| b.is_ascii_uppercase()));
    word.len() <= 20 && known.is_some_and(|method| !matches!(method, Method::TRACE | Method::CONNECT))
}

fn check_value(variable: &Variable, kind: ValueKind, value: &str) -> std::result::Result<(), FieldError> {
    variable.check(value).map_err(FieldError::from)?;
    let unfit =
        |reason: &str, remedy: &str| Err(FieldError::new(format!("variables.{}", variable.name), reason, remedy));
    match kind {
        ValueKind::Text => Ok(()),
        ValueKind::Number if serde_json::from_str::<serde_json::Number>(value).is_ok() => Ok(()),
        ValueKind::Number => unfit("it is not a number", "write one as in JSON, like 5 or -1.5"),
        ValueKind::Boolean if matches!(value, "true" | "false") => Ok(()),
        ValueKind::Boolean => unfit("it is neither true nor false", "write true or false"),
    }
}

/// Whether the work of a JSONPath grows with the reply: what looks at the whole reply for each part of it doesn't.
fn is_bounded(path: &str) -> bool {
    let (mut quote, mut plain) = (None, String::new());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match quote {
            Some(_) if c == '\\' => drop(chars.next()),
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None => plain.push(c),
        }
    }
    plain.matches('$').count() <= 1 && plain.matches("..").count() <= 2 && plain.matches('?').count() <= 3
}

#[cfg(test)]
mod tests {
    use super::is_bounded;

    #[test]
    fn a_path_through_everything_again_and_again_is_not_bounded() {
        assert!(is_bounded("$..a['..*..*..*']"));
        assert!(!is_bounded("$..*..*..*"));
        assert!(!is_bounded(r"$[*,'\'']..*..*..*..*['x']"), "an escaped quote ends no name");
    }
}
