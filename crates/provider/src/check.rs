//! From the text of a definition to a checked [`Definition`]: every rule of the language that is not syntax.

mod fields;
mod phases;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::mem::take;

use crate::definition::{Definition, Kind, KnownError, Method, Pattern, Presence, ScopeRules, Setup, Variable};
use crate::error::DefinitionError;
use crate::schema::{self, Table};
use crate::source::{Path, Source};
use crate::template::{AUDIENCE, is_variable_name};

/// Reads a definition. `file` is only for the errors; pass what the user knows the text by.
///
/// All errors are returned, in the order of the text, unless the syntax, a field's name or a type is wrong: then only the first.
pub fn parse(file: &str, text: &str) -> Result<Definition, Vec<DefinitionError>> {
    let source = Source::read(file, text).map_err(|error| vec![error])?;
    let raw: schema::File = source.fields().map_err(|error| vec![error])?;
    let checker = Checker { source, errors: RefCell::default(), used: RefCell::default(), variables: Vec::new() };
    checker.definition(raw)
}

/// The version of the language that this crate reads.
const SCHEMA: i64 = 1;

struct Checker<'a> {
    source: Source<'a>,
    errors: RefCell<Vec<DefinitionError>>,
    /// Names of variables that have a placeholder.
    used: RefCell<BTreeSet<String>>,
    variables: Vec<Variable>,
}

impl Checker<'_> {
    fn definition(mut self, mut raw: schema::File) -> Result<Definition, Vec<DefinitionError>> {
        self.schema(raw.schema);
        let id = self.id(&["id"], raw.id.take());
        for (index, alias) in raw.aliases.iter().enumerate() {
            self.id(&["aliases", &index.to_string()], Some(alias.clone()));
        }
        let name = self.required(&["name"], raw.name.take());
        self.page(&["docs"], raw.docs.as_deref());
        for (index, page) in raw.source.iter().enumerate() {
            self.page(&["source", &index.to_string()], Some(page));
        }
        self.date(&["checked"], raw.checked.as_deref());
        let methods = self.methods(take(&mut raw.methods));
        self.variables = self.declared(take(&mut raw.variables), &methods);
        let phases = self.phases(&mut raw, &methods);
        let scopes = self.scopes(raw.scopes);
        let setup = self.setup(raw.setup);
        let known_errors = self.known_errors(raw.errors);
        self.unused();
        let mut errors = self.errors.into_inner();
        if !errors.is_empty() {
            errors.sort_by_key(|error| (error.line, error.column));
            return Err(errors);
        }
        Ok(Definition {
            id,
            aliases: raw.aliases,
            generic: raw.generic,
            name,
            docs: raw.docs,
            checked: raw.checked,
            source: raw.source,
            methods,
            variables: self.variables,
            scopes,
            setup,
            known_errors,
            phases,
        })
    }

    // The top of the file.

    fn schema(&self, schema: Option<i64>) {
        match schema {
            Some(SCHEMA) => {}
            None => self.error(&["schema"], "it is missing", "write `schema = 1` at the top"),
            Some(other) => self.error(
                &["schema"],
                format!("{other} is not a version of the language that this program reads"),
                "write `schema = 1`",
            ),
        }
    }

    fn id(&self, path: Path<'_>, id: Option<String>) -> String {
        let id = self.required(path, id);
        let fits = id.len() <= 64
            && !id.starts_with('-')
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !id.is_empty() && !fits {
            self.error(
                path,
                "it has other characters than lower-case letters, digits and `-`, or is too long",
                "write it like `acme-crm`, at most 64 characters",
            );
        }
        id
    }

    fn date(&self, path: Path<'_>, date: Option<&str>) {
        let is_date = |date: &str| {
            let parts: Vec<_> = date.split('-').collect();
            let number = |part: &str, digits: usize, most: u32| {
                part.len() == digits && part.parse::<u32>().is_ok_and(|number| (1..=most).contains(&number))
            };
            matches!(parts.as_slice(), [year, month, day] if number(year, 4, 9999) && number(month, 2, 12) && number(day, 2, 31))
        };
        if date.is_some_and(|date| !is_date(date)) {
            self.error(path, "it is not a date", "write it like \"2026-01-31\"");
        }
    }

    fn methods(&self, raw: Vec<schema::Method>) -> Vec<Method> {
        if raw.is_empty() {
            self.error(&["methods"], "there is none", "add [[methods]] with a grant");
        }
        let mut names = BTreeSet::new();
        let mut methods = Vec::new();
        for (index, method) in raw.into_iter().enumerate() {
            let index = index.to_string();
            let Some(grant) = method.grant else {
                self.error(
                    &["methods", &index, "grant"],
                    "it is missing",
                    "write authorization_code, client_credentials or password",
                );
                continue;
            };
            let name = method.name.unwrap_or_else(|| grant.as_str().to_owned());
            if !is_variable_name(&name) {
                self.error(
                    &["methods", &index, "name"],
                    "it has other characters than lower-case letters, digits and `_`",
                    "write it like `client_credentials`",
                );
            }
            if !names.insert(name.clone()) {
                self.error(
                    &["methods", &index],
                    format!("there are two methods `{name}`"),
                    "give each method its own name",
                );
            }
            self.path(&["methods", &index, "verify"], method.verify.as_deref());
            methods.push(Method {
                label: method.label.unwrap_or_else(|| name.clone()),
                name,
                grant,
                default_scopes: method.default_scopes,
                always_scopes: method.always_scopes,
                verify: method.verify,
            });
        }
        methods
    }

    // Variables.

    fn declared(&self, raw: Table<schema::Variable>, methods: &[Method]) -> Vec<Variable> {
        self.source
            .order(&["variables"], raw)
            .into_iter()
            .map(|(name, variable)| self.variable(name, variable, methods))
            .collect()
    }

    fn variable(&self, name: String, raw: schema::Variable, methods: &[Method]) -> Variable {
        let path = ["variables", name.as_str()];
        let at = |field| ["variables", name.as_str(), field];
        if !is_variable_name(&name) {
            self.used.borrow_mut().insert(name.clone());
            self.error(
                &path,
                "the name has other characters than lower-case letters, digits and `_`",
                "write it like `account_id`",
            );
        }
        if name == AUDIENCE {
            self.error(
                &path,
                "`audience` is the integration's own field",
                "remove the variable and use {{audience}} where it goes",
            );
            self.used.borrow_mut().insert(name.clone());
        }
        let pattern = raw.pattern.as_deref().and_then(|text| {
            self.keep(&at("pattern"), Pattern::new(text), "write a regular expression for the whole value")
        });
        if raw.kind == Kind::Host && raw.pattern.is_none() {
            self.error(
                &at("pattern"),
                "a host variable without one could name any host",
                "say which hosts are the provider's",
            );
        }
        if raw.presence == Presence::Fixed && raw.default.is_none() {
            self.error(&at("default"), "a fixed variable is always its default, and has none", "give the default");
        }
        if raw.secret && raw.default.is_some() {
            self.error(&at("default"), "a secret in a definition is not secret", "remove the default, or `secret`");
        }
        for (index, method) in raw.methods.iter().enumerate() {
            if !methods.iter().any(|known| known.name == *method) {
                self.error(
                    &["variables", &name, "methods", &index.to_string()],
                    format!("there is no method `{method}`"),
                    "name a method of this file",
                );
            }
        }
        let variable = Variable {
            label: raw.label.unwrap_or_else(|| name.clone()),
            help: raw.help,
            default: raw.default,
            presence: raw.presence,
            secret: raw.secret,
            pattern,
            asked_of: raw.asked_of,
            kind: raw.kind,
            is_url: raw.kind == Kind::Url,
            methods: raw.methods,
            name: name.clone(),
        };
        if let Some(Err(error)) = variable.default.as_deref().map(|default| variable.check(default)) {
            self.error(&at("default"), error.reason, error.remedy);
        }
        variable
    }

    fn unused(&self) {
        for variable in &self.variables {
            if !self.used.borrow().contains(&variable.name) {
                self.error(
                    &["variables", &variable.name],
                    "no placeholder uses it",
                    format!("remove it, or write {{{{{}}}}} where it belongs", variable.name),
                );
            }
        }
    }

    // The rest of the file.

    fn scopes(&self, raw: schema::Scopes) -> ScopeRules {
        let separator = raw.separator.unwrap_or_else(|| " ".to_owned());
        if separator.is_empty() {
            self.error(
                &["scopes", "separator"],
                "it is empty",
                "write what stands between two scopes, such as \" \" or \",\"",
            );
        }
        ScopeRules {
            separator,
            parameter: raw.parameter.unwrap_or_else(|| "scope".to_owned()),
            default: raw.default,
            always: raw.always,
            known: self.source.order(&["scopes", "known"], raw.known),
        }
    }

    fn setup(&self, raw: schema::Setup) -> Setup {
        self.page(&["setup", "register_url"], raw.register_url.as_deref());
        Setup { register_url: raw.register_url, text: raw.text.trim().to_owned(), redirect_note: raw.redirect_note }
    }

    fn known_errors(&self, raw: Vec<schema::KnownError>) -> Vec<KnownError> {
        let mut errors = Vec::new();
        for (index, error) in raw.into_iter().enumerate() {
            let index = index.to_string();
            let code = self.required(&["errors", &index, "code"], error.code);
            let remedy = self.required(&["errors", &index, "remedy"], error.remedy);
            errors.push(KnownError { code, remedy });
        }
        errors
    }
}

#[cfg(test)]
mod tests;
