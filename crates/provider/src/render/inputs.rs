//! What placeholders are filled from.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use keyholder_oauth::{BodyPart, HashedParam, Params, ScopeFormat, hash_of, hmac_of, sign_jwt};
use serde_json::{Value, json};
use url::Url;

use super::{Choice, UrlError, bad_url, check_capture, issuer_text};
use crate::definition::{
    Claim, Computed, Definition, Kind, Members, Method, ParamTemplates, ParamValue, Texts, Values, Variable,
};
use crate::error::RenderError;
use crate::template::{Input, Part, Placeholder, Source, Template, Token, UrlTemplate};

/// The longest computed value, in bytes: made of each other, they could double with each step.
const MAX_COMPUTED: usize = 64 << 10;

pub(super) struct Inputs<'a> {
    pub definition: &'a Definition,
    pub method: &'a Method,
    pub values: &'a Values,
    pub choice: &'a Choice,
    /// The requested scopes as one text.
    pub scope: Option<String>,
    /// Values of variables that passed their checks.
    variables: BTreeMap<&'a str, Cow<'a, str>>,
    /// Computed once each.
    computed: RefCell<BTreeMap<&'a str, Option<String>>>,
}

impl<'a> Inputs<'a> {
    /// Checks the values of a method's variables. With `lenient`, what is missing is left to be missed where it is used.
    pub fn new(
        definition: &'a Definition,
        method: &'a Method,
        values: &'a Values,
        choice: &'a Choice,
        scopes: &[String],
        lenient: bool,
    ) -> Result<Self, RenderError> {
        let mut variables = BTreeMap::new();
        for variable in definition.variables_of(method) {
            match values.get(&variable.name).filter(|value| !value.is_empty()) {
                Some(value) => {
                    variable.check(value)?;
                    variables.insert(variable.name.as_str(), filled(variable, value, method));
                }
                None => {
                    if !lenient {
                        variable.check_missing()?;
                    }
                    if let Some(default) = &variable.default {
                        variables.insert(variable.name.as_str(), filled(variable, default, method));
                    }
                }
            }
        }
        for capture in &method.phases.callback.captures {
            if let Some(value) = values.get(&format!("callback.{}", capture.name)) {
                check_capture(capture, value)?;
            }
        }
        let separator = if method.scopes.format == ScopeFormat::Text { method.scopes.separator.as_str() } else { " " };
        Ok(Self {
            definition,
            method,
            values,
            choice,
            scope: (!scopes.is_empty()).then(|| scopes.join(separator)),
            variables,
            computed: RefCell::default(),
        })
    }

    /// The first placeholder of what the provider says that has no value yet.
    pub fn unsaid(&self, template: &UrlTemplate) -> Option<String> {
        template.placeholders().into_iter().find_map(|(placeholder, _)| match placeholder {
            Placeholder::Said(_, name) => (!self.values.contains_key(name)).then(|| name.clone()),
            _ => None,
        })
    }

    pub fn value(&self, placeholder: &Placeholder) -> Result<Option<Cow<'_, str>>, RenderError> {
        let client = self.choice.client.as_ref();
        let secret = |secret: Option<&'a keyholder_oauth::Secret>| secret.map(|secret| Cow::Borrowed(secret.expose()));
        let tokens = self.choice.tokens.as_ref();
        Ok(match placeholder {
            Placeholder::Variable(name) => self.variables.get(name.as_str()).cloned(),
            Placeholder::Choice(name) => self.choice(name),
            Placeholder::Said(source, name) => {
                let said = self.values.get(name).filter(|value| !value.is_empty());
                match (said, source) {
                    (Some(value), _) => Some(Cow::Borrowed(value.as_str())),
                    (None, Source::Callback) => self.capture_default(name)?.map(Cow::Owned),
                    (None, _) => None,
                }
            }
            Placeholder::Input(Input::RedirectUri) => self.choice.redirect_uri.as_deref().map(Cow::Borrowed),
            Placeholder::Input(Input::Audience) => self.input("audience", self.choice.audience.as_deref()),
            Placeholder::Input(Input::Username) => self.input("username", self.choice.username.as_deref()),
            Placeholder::Input(Input::ClientId) => self.input("client_id", client.map(|client| client.id.as_str())),
            Placeholder::Input(Input::Scope) => self.scope.as_deref().map(Cow::Borrowed),
            Placeholder::Input(Input::Password) => secret(self.choice.password.as_ref()),
            Placeholder::Input(Input::ClientSecret) => secret(client.and_then(|client| client.secret.as_ref())),
            Placeholder::Input(Input::ClientKey) => secret(client.and_then(|client| client.key.as_ref())),
            Placeholder::Token(Token::Access) => secret(tokens.and_then(|tokens| tokens.access_token.as_ref())),
            Placeholder::Token(Token::Refresh) => secret(tokens.and_then(|tokens| tokens.refresh_token.as_ref())),
            Placeholder::Token(Token::Id) => secret(tokens.and_then(|tokens| tokens.id_token.as_ref())),
            Placeholder::Computed(name) => self.computed(name)?.map(Cow::Owned),
            // Left for when the request is made.
            Placeholder::Param(_) => None,
        })
    }

    /// What the choice of a variable says under a name: `variable.NAME`.
    fn choice(&self, name: &str) -> Option<Cow<'_, str>> {
        let (of, member) = name.split_once('.')?;
        let chosen = self.variables.get(of)?;
        let variable = self.definition.variables.iter().find(|variable| variable.name == of)?;
        variable.set(chosen, member).map(Cow::Borrowed)
    }

    /// What stands for `callback.NAME` as long as the provider has not said it.
    fn capture_default(&self, name: &str) -> Result<Option<String>, RenderError> {
        let captures = &self.method.phases.callback.captures;
        let capture = captures.iter().find(|capture| name.strip_prefix("callback.") == Some(&capture.name));
        let Some((capture, default)) = capture.and_then(|capture| Some((capture, capture.default.as_ref()?))) else {
            return Ok(None);
        };
        let value = self.text(default)?;
        if let Some(value) = &value {
            check_capture(capture, value)?;
        }
        Ok(value)
    }

    /// A standard input: what was chosen, else the definition's default.
    fn input<'s>(&'s self, name: &str, chosen: Option<&'s str>) -> Option<Cow<'s, str>> {
        let default = || self.method.inputs.iter().find(|input| input.name == name)?.default.as_deref();
        chosen.filter(|value| !value.is_empty()).or_else(default).map(Cow::Borrowed)
    }

    /// What is sent as `grant_type` instead of the grant's own.
    pub fn grant_type(&self) -> Option<Cow<'_, str>> {
        self.input("grant_type", self.choice.grant_type.as_deref())
    }

    pub fn text(&self, template: &Template) -> Result<Option<String>, RenderError> {
        template.render(|placeholder| self.value(placeholder))
    }

    pub fn url(&self, field: &'static str, template: &UrlTemplate) -> Result<Option<Url>, RenderError> {
        template.render(|placeholder| self.value(placeholder).map_err(UrlError::Value)).map_err(|error| match error {
            UrlError::Value(error) => error,
            UrlError::Url(problem) => bad_url(field, problem.to_string()),
        })
    }

    /// As `url`, but a whole-URL value keeps its spelling: issuers are compared to the letter.
    pub fn url_text(&self, field: &'static str, template: &UrlTemplate) -> Result<Option<String>, RenderError> {
        match template {
            UrlTemplate::Whole { base, path, query } if path.is_empty() && query.is_empty() => {
                Ok(self.value(base)?.map(Cow::into_owned))
            }
            // Written with a slash at its end, an issuer has one.
            UrlTemplate::Fixed { url, has_path: true } => Ok(Some(url.to_string())),
            UrlTemplate::Parts { path, .. } if !path.is_empty() => Ok(self.url(field, template)?.map(String::from)),
            _ => Ok(self.url(field, template)?.map(|url| issuer_text(&url))),
        }
    }

    pub fn params(&self, templates: &ParamTemplates) -> Result<Params, RenderError> {
        let mut params = Params::new();
        for (name, value) in templates {
            match value {
                ParamValue::Json(value) => params.push_json(name.as_str(), value),
                // Made when the request is: see `hashed`.
                ParamValue::Hashed(_) => {}
                ParamValue::Text(template) => {
                    if let Some(text) = self.text(template)? {
                        params.push(name.as_str(), text);
                    }
                }
            }
        }
        Ok(params)
    }

    /// Parameters that are made when the request is.
    pub fn hashed(&self, templates: &ParamTemplates) -> Result<Vec<HashedParam>, RenderError> {
        let mut hashed = Vec::new();
        for (name, value) in templates {
            let ParamValue::Hashed(computed) = value else { continue };
            let Some(Computed::Hash { hash, over, encoding }) = self.method.phases.computed.get(computed) else {
                continue;
            };
            if let Some(over) = self.parts(over)? {
                hashed.push(HashedParam { name: name.clone(), hash: *hash, encoding: *encoding, over });
            }
        }
        Ok(hashed)
    }

    /// The pieces of a text in which parameters of a request stand; `None` if another value is missing.
    fn parts(&self, template: &Template) -> Result<Option<Vec<BodyPart>>, RenderError> {
        let mut parts = Vec::with_capacity(template.parts.len());
        for part in &template.parts {
            parts.push(match part {
                Part::Text(text) => BodyPart::Text(text.clone()),
                Part::Value(Placeholder::Param(name)) => BodyPart::Param(name.clone()),
                Part::Value(placeholder) => match self.value(placeholder)? {
                    Some(value) => BodyPart::Text(value.into_owned()),
                    None => return Ok(None),
                },
            });
        }
        Ok(Some(parts))
    }

    pub fn texts(&self, templates: &Texts) -> Result<Params, RenderError> {
        let mut params = Params::new();
        for (name, template) in templates {
            if let Some(text) = self.text(template)? {
                params.push(name.as_str(), text);
            }
        }
        Ok(params)
    }

    pub fn members(&self, templates: &Texts) -> Result<Members, RenderError> {
        let mut members = Members::new();
        for (name, template) in templates {
            if let Some(text) = self.text(template)? {
                members.insert(name.clone(), Value::String(text));
            }
        }
        Ok(members)
    }

    pub fn headers(&self, templates: &[(HeaderName, Template)]) -> Result<Vec<(HeaderName, HeaderValue)>, RenderError> {
        let mut headers = Vec::with_capacity(templates.len());
        for (name, template) in templates {
            let Some(text) = self.text(template)? else { continue };
            let mut value =
                HeaderValue::from_str(&text).map_err(|_| RenderError::BadHeader { header: name.to_string() })?;
            value.set_sensitive(template.placeholders().any(|placeholder| self.is_secret(placeholder)));
            headers.push((name.clone(), value));
        }
        Ok(headers)
    }

    fn is_secret(&self, placeholder: &Placeholder) -> bool {
        match placeholder {
            Placeholder::Variable(name) => self.definition.variables.iter().any(|it| it.name == *name && it.secret),
            Placeholder::Input(input) => matches!(input, Input::ClientSecret | Input::ClientKey | Input::Password),
            Placeholder::Token(_) | Placeholder::Computed(_) => true,
            Placeholder::Said(..) | Placeholder::Choice(_) | Placeholder::Param(_) => false,
        }
    }

    fn computed(&self, name: &str) -> Result<Option<String>, RenderError> {
        let Some((name, computed)) = self.method.phases.computed.get_key_value(name) else { return Ok(None) };
        if let Some(known) = self.computed.borrow().get(name.as_str()) {
            return Ok(known.clone());
        }
        let value = self.compute(name, computed)?;
        if value.as_ref().is_some_and(|value| value.len() > MAX_COMPUTED) {
            return Err(failed(name, format!("it is longer than {MAX_COMPUTED} bytes")));
        }
        self.computed.borrow_mut().insert(name, value.clone());
        Ok(value)
    }

    /// `None` if something that it is made of is missing.
    fn compute(&self, name: &str, computed: &Computed) -> Result<Option<String>, RenderError> {
        match computed {
            Computed::Base64 { text, encoding } => Ok(self.text(text)?.map(|text| encoding.encode(text.as_bytes()))),
            Computed::Hash { hash, over, encoding } => {
                Ok(self.text(over)?.map(|over| encoding.encode(&hash_of(*hash, over.as_bytes()))))
            }
            Computed::Hmac { hash, key, over, encoding } => {
                let (Some(key), Some(over)) = (self.text(key)?, self.text(over)?) else { return Ok(None) };
                Ok(Some(encoding.encode(&hmac_of(*hash, key.as_bytes(), over.as_bytes()))))
            }
            Computed::Jwt { algorithm, key, header, claims } => {
                let Some(key) = self.text(key)? else { return Ok(None) };
                let mut members = Members::new();
                for (claim, value) in claims {
                    let moment =
                        || self.choice.moment.ok_or_else(|| failed(name, "nothing says what time it is".to_owned()));
                    let value = match value {
                        Claim::Json(value) => value.clone(),
                        Claim::Time(seconds) => json!(moment()?.seconds().saturating_add(*seconds)),
                        Claim::Random => json!(moment()?.jti()),
                        Claim::Text(template) => match self.text(template)? {
                            Some(text) => Value::String(text),
                            None => continue,
                        },
                    };
                    members.insert(claim.clone(), value);
                }
                let signed = sign_jwt(*algorithm, &key.into(), &self.members(header)?, &members)
                    .map_err(|error| failed(name, error.to_string()))?;
                Ok(Some(signed.expose().to_owned()))
            }
        }
    }
}

/// A variable's value as it is put in.
fn filled<'a>(variable: &Variable, value: &'a str, method: &Method) -> Cow<'a, str> {
    if variable.kind != Kind::Scopes {
        return Cow::Borrowed(value);
    }
    let words: Vec<&str> = value.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    Cow::Owned(words.join(&method.scopes.separator))
}

fn failed(name: &str, reason: String) -> RenderError {
    RenderError::Computed { name: name.to_owned(), reason }
}
