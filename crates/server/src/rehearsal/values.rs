//! Made-up values for whatever a definition asks for.

use std::collections::BTreeMap;

use keyholder_broker::{NewConnection, NewIntegration};
use keyholder_oauth::{ClientAuth, Secret};
use keyholder_provider::{AskedOf, Definition, GrantKind, Kind, Method, Presence, Variable};
use keyholder_sandbox::play::{Registration, matching, private_key};
use serde_json::Value;

/// Makes values; keys, which take a while, only once.
#[derive(Default)]
pub(super) struct Values {
    keys: BTreeMap<String, String>,
}

/// The values of one rehearsal.
pub(super) struct Made {
    registration: Registration,
    by_certificate: bool,
}

impl Values {
    /// Values for a method.
    pub(super) fn of(&mut self, definition: &Definition, method: &Method, part: &Value) -> Made {
        let input = |name: &str| method.inputs.iter().find(|input| input.name == name);
        // With characters that every encoding treats in its own way.
        let sample = |name: &str, plain: &str| match input(name) {
            Some(input) if input.pattern.is_some() || !input.choices.is_empty() => fitting(input, plain),
            _ => plain.to_owned(),
        };
        let mut variables = BTreeMap::new();
        for variable in definition.variables_of(method).filter(|variable| variable.presence != Presence::Fixed) {
            let value = if variable.kind == Kind::Pem {
                self.key(&algorithm_for(part, &variable.name))
            } else {
                fitting(variable, &plain(variable))
            };
            variables.insert(variable.name.clone(), value);
        }
        // The part may be another definition's, to see that the difference is noticed.
        let declared = |name: &str| definition.variables.iter().any(|variable| variable.name == name);
        for name in part["variables"].as_object().into_iter().flat_map(|all| all.keys()).filter(|name| !declared(name))
        {
            variables.entry(name.clone()).or_insert_with(|| format!("{name}/1"));
        }
        let key = needs_key(part).then(|| self.key(&algorithm_for(part, "client_key")));
        let is_password = method.grant == GrantKind::Password;
        let registration = Registration {
            client_id: sample("client_id", "client-1@rehearsal"),
            client_secret: Some(sample("client_secret", "s3cret/+=&%: ?")),
            client_key: key,
            audience: part.to_string().contains("{{audience}}").then(|| match input("audience") {
                Some(input) => fitting(input, AUDIENCE),
                None => AUDIENCE.to_owned(),
            }),
            scopes: Vec::new(),
            variables,
            username: is_password.then(|| sample("username", "alice@example.com")),
            password: is_password.then(|| sample("password", "wonder land&+%")),
            refresh_token: (method.grant == GrantKind::RefreshToken).then(|| "brought/+=token".to_owned()),
        };
        Made { registration, by_certificate: part.to_string().contains(r#""client_auth":"tls""#) }
    }

    fn key(&mut self, algorithm: &str) -> String {
        let make = || private_key(algorithm).unwrap_or_else(|| "a shared secret of some length".to_owned());
        self.keys.entry(algorithm.to_owned()).or_insert_with(make).clone()
    }
}

impl Made {
    pub(super) fn registration(&self) -> Registration {
        self.registration.clone()
    }

    pub(super) fn integration(&self, name: &str, definition: &Definition, method: &Method) -> NewIntegration {
        let registration = &self.registration;
        NewIntegration {
            name: name.to_owned(),
            provider: definition.id.clone(),
            method: Some(method.name.clone()),
            client_id: registration.client_id.clone(),
            client_secret: registration.client_secret.clone().map(Secret::new),
            client_key: registration.client_key.clone().map(Secret::new),
            // A rehearsal has no TLS, and on the wire such a client says no more than a public one.
            client_auth: self.by_certificate.then_some(ClientAuth::None),
            audience: registration.audience.clone(),
            variables: self.variables(definition, AskedOf::Integration),
            ..NewIntegration::default()
        }
    }

    pub(super) fn connection(&self, name: &str, definition: &Definition) -> NewConnection {
        let registration = &self.registration;
        NewConnection {
            name: name.to_owned(),
            integration: name.to_owned(),
            username: registration.username.clone(),
            password: registration.password.clone().map(Secret::new),
            variables: self.variables(definition, AskedOf::Connection),
            ..NewConnection::default()
        }
    }

    fn variables(&self, definition: &Definition, asked_of: AskedOf) -> BTreeMap<String, String> {
        let asked = definition.variables.iter().filter(|variable| variable.asked_of == asked_of);
        let given = asked.filter_map(|variable| self.registration.variables.get_key_value(&variable.name));
        given.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

const AUDIENCE: &str = "https://audience.example/api?x=1&y=2";

/// A value of a kind, different for each name.
fn plain(variable: &Variable) -> String {
    let name = variable.name.to_ascii_lowercase().replace('_', "-");
    match variable.kind {
        Kind::Host => format!("{name}.rehearsal.example"),
        Kind::Url => format!("https://{name}.rehearsal.example/{name}"),
        Kind::Number => "4815162342".to_owned(),
        Kind::Scopes => "read write:all".to_owned(),
        Kind::Text | Kind::Pem => format!("{name}/1 & more"),
    }
}

/// What the definition gives as a default, a choice or an example; else the plain value, or one that matches the pattern.
fn fitting(variable: &Variable, plain: &str) -> String {
    let given = variable.default.clone().filter(|default| !default.is_empty());
    let given = given.or_else(|| variable.choices.first().map(|(choice, _)| choice.clone()));
    let given = given.or_else(|| variable.example.clone());
    let fits = |value: &String| variable.pattern.as_ref().is_none_or(|pattern| pattern.matches(value));
    let made = || variable.pattern.as_ref().map(|pattern| matching(pattern.as_str()));
    given.into_iter().chain([plain.to_owned()]).find(fits).or_else(made).unwrap_or_else(|| plain.to_owned())
}

/// Whether a client signs, or a definition signs with its key.
fn needs_key(part: &Value) -> bool {
    let text = part.to_string();
    text.contains("private_key_jwt") || text.contains("{{client_key}}")
}

/// What a key is used with: `client_assertion`, or a signed token that names it.
fn algorithm_for(part: &Value, name: &str) -> String {
    fn search(value: &Value, name: &str) -> Option<String> {
        let members = value.as_object()?;
        let mentions = |key: &str| {
            members.get(key).and_then(Value::as_str).is_some_and(|text| text.contains(&format!("{{{{{name}}}}}")))
        };
        if mentions("key")
            && let Some(algorithm) = members.get("alg").and_then(Value::as_str)
        {
            return Some(algorithm.to_owned());
        }
        let asserted =
            members.get("client_assertion").and_then(|it| it["algorithm"].as_str()).filter(|_| name == "client_key");
        let below = || {
            members.values().find_map(|value| match value {
                Value::Array(items) => items.iter().find_map(|item| search(item, name)),
                value => search(value, name),
            })
        };
        asserted.map(str::to_owned).or_else(below)
    }
    search(part, name).unwrap_or_else(|| "RS256".to_owned())
}
