//! Whether values fit the variables of a definition, and the standard inputs of a method.

use std::collections::BTreeSet;

use crate::definition::{
    AskedOf, BodyPhase, Capture, Definition, Kind, Method, Presence, RequestPhase, Values, Variable,
};
use crate::endpoint::{is_host_text, read_endpoint};
use crate::error::ValueError;

/// Longest value of a variable, in bytes. Endpoints commonly refuse headers and URLs beyond this.
pub(crate) const MAX_VALUE: usize = 8192;

/// Longest key or certificate, in bytes.
const MAX_PEM: usize = 64 << 10;

impl Definition {
    /// Checks what an integration or a connection gives for its variables.
    ///
    /// All errors are returned: unknown names, values for variables that the other one is asked for, missing required ones (a
    /// default counts as given), and values that do not fit the kind or the pattern. Names of variables that belong to another
    /// method are accepted and ignored, so that a change of method keeps what was typed. An empty value is the same as none.
    pub fn check_values(&self, method: &Method, asked_of: AskedOf, values: &Values) -> Result<(), Vec<ValueError>> {
        let given = values.iter().filter(|(_, value)| !value.is_empty());
        let unfit = given.filter_map(|(name, value)| self.check_given(asked_of, name, value).err());
        let asked = self.variables_of(method).filter(|variable| variable.asked_of == asked_of);
        let missing = asked
            .filter(|variable| values.get(&variable.name).is_none_or(String::is_empty))
            .filter_map(|variable| variable.check_missing().err());
        let errors: Vec<_> = unfit.chain(missing).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The variables that a method has a use for, in the order of the file.
    pub fn variables_of(&self, method: &Method) -> impl Iterator<Item = &Variable> {
        self.variables.iter().filter(move |variable| variable.applies_to(method))
    }

    fn check_given(&self, asked_of: AskedOf, name: &str, value: &str) -> Result<(), ValueError> {
        let Some(variable) = self.variables.iter().find(|variable| variable.name == name) else {
            let known: Vec<_> = self.variables.iter().map(|variable| variable.name.as_str()).collect();
            let remedy = if known.is_empty() {
                "this provider has no variables; remove it".to_owned()
            } else {
                format!("use one of: {}", known.join(", "))
            };
            return Err(error(name, "there is no such variable", &remedy));
        };
        if variable.asked_of != asked_of {
            return Err(match variable.asked_of {
                AskedOf::Integration => error(
                    name,
                    "it belongs to the integration, not to one connection",
                    "set it where the integration is set up",
                ),
                AskedOf::Connection => error(name, "each connection has its own", "give it with the connection"),
            });
        }
        variable.check(value)
    }
}

/// Standard inputs that anybody may give: they override what a definition says, a client authenticates with them, or (an audience) another method uses them.
const ALWAYS_TAKEN: [&str; 5] = ["client_secret", "client_key", "audience", "grant_type", "token_key"];

/// Standard inputs whose absence is judged elsewhere: where it is known how the client authenticates, and where a refresh token is brought.
const CREDENTIALS: [&str; 3] = ["client_secret", "client_key", "refresh_token"];

impl Method {
    /// The body of token requests is a text of the definition's own, which nobody can choose another type for.
    pub fn writes_own_body(&self) -> bool {
        matches!(self.phases.token.body, Some(BodyPhase::Template(..)))
    }

    /// Checks what an integration or a connection gives for the standard inputs: names as in [`Self::inputs`], scopes one by one.
    ///
    /// All errors are returned: a value for an input that the method has no use for, one that does not fit pattern or choices or
    /// is not the fixed one, and missing required ones. An empty value is the same as none.
    pub fn check_inputs(&self, asked_of: AskedOf, given: &[(&str, Vec<&str>)]) -> Result<(), Vec<ValueError>> {
        let mut errors = Vec::new();
        for (name, values) in given {
            let values: Vec<&str> = values.iter().copied().filter(|value| !value.is_empty()).collect();
            if values.is_empty() {
                continue;
            }
            match self.inputs.iter().find(|input| input.name == *name && input.asked_of == asked_of) {
                Some(input) if *name == "scope" => errors.extend(self.check_scopes(input, &values).err()),
                Some(input) => errors.extend(values.iter().find_map(|value| input.check(value).err())),
                None if ALWAYS_TAKEN.contains(name) => {}
                None => {
                    errors.push(error(name, "this method has no use for it", "leave it out, or choose another method"))
                }
            }
        }
        let is_given =
            |name: &str| given.iter().any(|(known, values)| *known == name && values.iter().any(|v| !v.is_empty()));
        let asked = self.inputs.iter().filter(|input| input.asked_of == asked_of);
        let missing = asked
            .filter(|input| !is_given(&input.name) && !CREDENTIALS.contains(&input.name.as_str()))
            .filter_map(|input| input.check_missing().err());
        errors.extend(missing);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn check_scopes(&self, input: &Variable, given: &[&str]) -> Result<(), ValueError> {
        let separator = self.scopes.separator.as_str();
        let words = |text: &'_ str| -> BTreeSet<String> {
            text.split(separator)
                .flat_map(|part| part.split(' '))
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let wanted: BTreeSet<String> = given.iter().flat_map(|text| words(text)).collect();
        if input.presence == Presence::Fixed {
            return if wanted == self.scopes.default.iter().flat_map(|text| words(text)).collect() {
                Ok(())
            } else {
                Err(error(&input.name, "the provider's definition fixes the scopes", "leave them out"))
            };
        }
        wanted.iter().try_for_each(|scope| input.check(scope))
    }

    /// Every address that it sends something to, as the definition writes it, by field.
    pub fn addresses(&self) -> Vec<(String, String)> {
        let phases = &*self.phases;
        let request = |phase: &Option<RequestPhase>| phase.as_ref().and_then(|phase| phase.url.clone());
        let urls = [
            ("discover.issuer", phases.discover.as_ref().map(|discover| discover.issuer.clone())),
            ("authorize.url", phases.authorize.url.clone()),
            ("device.url", request(&phases.device)),
            ("token.url", phases.token.url.clone()),
            ("refresh.url", phases.refresh.request.url.clone()),
            ("follow_up.url", phases.follow_up.as_ref().and_then(|phase| phase.request.url.clone())),
            ("revoke.url", request(&phases.revoke)),
            ("introspect.url", request(&phases.introspect)),
            ("register.url", request(&phases.register)),
            ("userinfo.url", phases.userinfo.as_ref().and_then(|phase| phase.url.clone())),
            ("api.base_url", phases.api.base_url.clone()),
        ];
        let fixed = urls.into_iter().filter_map(|(field, url)| Some((field.to_owned(), url?.to_string())));
        let lookups = phases.lookups.iter().filter_map(|lookup| {
            Some((format!("after_connect.{}.url", lookup.name), lookup.request.url.as_ref()?.to_string()))
        });
        let hosts: Vec<String> = phases.api.hosts.iter().map(ToString::to_string).collect();
        let hosts = (!hosts.is_empty()).then(|| ("api.hosts".to_owned(), hosts.join(" ")));
        fixed.chain(lookups).chain(hosts).collect()
    }

    /// What a person may have to choose after connecting, by the name under which it is kept: `lookup.NAME`.
    pub fn choices(&self) -> impl Iterator<Item = &str> {
        self.phases.lookups.iter().filter_map(|lookup| lookup.choose.as_ref()).map(|choose| choose.save.as_str())
    }
}

impl Variable {
    /// Whether a method has a use for it.
    pub fn applies_to(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(&method.name)
    }

    /// Whether a value fits; the error does not repeat it.
    pub fn check(&self, value: &str) -> Result<(), ValueError> {
        if self.presence == Presence::Fixed && self.default.as_deref() != Some(value) {
            return Err(error(&self.name, "its value is fixed by the definition", "remove it"));
        }
        let longest = if self.kind == Kind::Pem { MAX_PEM } else { MAX_VALUE };
        if value.len() > longest {
            return Err(error(&self.name, &format!("it is longer than {longest} bytes"), "give a shorter one"));
        }
        let breaks_line = |c: char| self.kind == Kind::Pem && matches!(c, '\n' | '\r' | '\t');
        if value.chars().any(|c| c.is_control() && !breaks_line(c)) {
            return Err(error(
                &self.name,
                "it has a line break or a control character",
                "give it on one line, without them",
            ));
        }
        check_kind(self.kind, value).map_err(|(reason, remedy)| error(&self.name, &reason, remedy))?;
        if !self.choices.is_empty() && !self.choices.iter().any(|(choice, _)| choice == value) {
            let known: Vec<_> = self.choices.iter().map(|(choice, _)| choice.as_str()).collect();
            return Err(error(
                &self.name,
                "it is not one of the choices",
                &format!("use one of: {}", known.join(", ")),
            ));
        }
        match &self.pattern {
            Some(pattern) if !pattern.matches(value) => {
                Err(error(&self.name, &format!("it does not match {}", pattern.as_str()), self.hint()))
            }
            _ => Ok(()),
        }
    }

    /// A value that fits, for trying a definition out: its default, its first choice or its example, else one made up for its kind.
    /// Where a pattern is given and none of the three, the one made up may not fit.
    pub fn sample(&self) -> String {
        let given = self.default.clone().filter(|default| !default.is_empty());
        let chosen = || self.choices.first().map(|(choice, _)| choice.clone());
        given.or_else(chosen).or_else(|| self.example.clone()).unwrap_or_else(|| match self.kind {
            Kind::Text | Kind::Pem => "sample".to_owned(),
            Kind::Host => "sample.example".to_owned(),
            Kind::Url => "https://sample.example".to_owned(),
            Kind::Number => "42".to_owned(),
            Kind::Scopes => "read write".to_owned(),
        })
    }

    /// The error for a variable without a value, if that is one.
    pub(crate) fn check_missing(&self) -> Result<(), ValueError> {
        if self.presence == Presence::Required && self.default.is_none() {
            return Err(error(&self.name, "it is required", self.hint()));
        }
        Ok(())
    }

    fn hint(&self) -> &str {
        if self.help.is_empty() { "give a value that fits" } else { &self.help }
    }
}

impl Capture {
    /// Whether what the provider's answer says fits; the error is a reason that does not repeat it.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        if value.chars().any(char::is_control) || value.len() > MAX_VALUE {
            return Err("it is too long or has control characters".to_owned());
        }
        check_kind(self.kind, value).map_err(|(reason, _)| reason)?;
        match &self.pattern {
            Some(pattern) if !pattern.matches(value) => Err(format!("it does not match {}", pattern.as_str())),
            _ => Ok(()),
        }
    }
}

/// Whether a value is of a kind; the error is a reason and a remedy.
pub(crate) fn check_kind(kind: Kind, value: &str) -> Result<(), (String, &'static str)> {
    match kind {
        Kind::Text | Kind::Pem => Ok(()),
        Kind::Number if value.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
        Kind::Number => Err(("it is not a number".to_owned(), "give digits only")),
        Kind::Scopes if value.chars().all(|c| c.is_ascii_graphic() || c == ' ') => Ok(()),
        Kind::Scopes => Err(("it is not a list of scopes".to_owned(), "separate them by spaces or commas")),
        Kind::Host if is_host_text(value) => Ok(()),
        Kind::Host => {
            Err(("it is not a host name".to_owned(), "give the name alone, without https:// and path, in ASCII"))
        }
        Kind::Url => read_endpoint(value).map(|_| ()).map_err(|reason| {
            (
                reason,
                "give an absolute https:// URL without user name, password and fragment (http:// is for loopback only)",
            )
        }),
    }
}

fn error(variable: &str, reason: &str, remedy: &str) -> ValueError {
    ValueError { variable: variable.to_owned(), reason: reason.to_owned(), remedy: remedy.to_owned() }
}
