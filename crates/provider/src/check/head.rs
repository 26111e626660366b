//! What stands beside the phases, variables and inputs above all.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyholder_oauth::{ClientAuth, ScopeFormat};

use super::{Checker, Draft, Parts};
use crate::definition::{
    AskedOf, Base, Definition, GrantKind, Kind, KnownError, Method, Pattern, Presence, ScopeRules, Setup, Variable,
};
use crate::schema::{self, Choices, Either, Table};
use crate::template::{is_reserved, is_variable_name};
use crate::values::MAX_VALUE;

/// The version of the language that this crate reads.
const SCHEMA: i64 = 1;

/// The standard inputs in the order in which people are asked for them, with their labels.
const INPUTS: [(&str, &str); 10] = [
    ("client_id", "Client ID"),
    ("client_secret", "Client secret"),
    ("client_key", "Private key"),
    ("scope", "Scopes"),
    ("audience", "Audience"),
    ("grant_type", "Grant type"),
    ("token_key", "Member of the reply that is the token"),
    ("username", "User name"),
    ("password", "Password"),
    ("refresh_token", "Refresh token"),
];

impl Checker {
    pub(super) fn head(
        &self,
        raw: schema::Head,
        text: &str,
        bases: Vec<Base>,
        methods: Vec<Method>,
        scopes: ScopeRules,
        setup: Setup,
    ) -> Definition {
        match raw.schema {
            Some(SCHEMA) => {}
            None => self.error(&["schema"], "it is missing", "write `schema = 1` at the top"),
            Some(other) => self.error(
                &["schema"],
                format!("{other} is not a version of the language that this program reads"),
                "write `schema = 1`",
            ),
        }
        for (index, alias) in raw.aliases.iter().enumerate() {
            self.id(&["aliases", &index.to_string()], Some(alias.clone()));
        }
        self.page(&["docs"], raw.docs.as_deref());
        for (index, page) in raw.source.iter().enumerate() {
            self.page(&["source", &index.to_string()], Some(page));
        }
        self.date(&["checked"], raw.checked.as_deref());
        Definition {
            id: self.id(&["id"], raw.id),
            name: self.required(&["name"], raw.name),
            aliases: raw.aliases,
            generic: raw.generic,
            docs: raw.docs,
            checked: raw.checked,
            source: raw.source,
            methods,
            variables: self.variables.clone(),
            scopes,
            setup,
            known_errors: self.known_errors(raw.errors),
            text: Arc::from(text),
            bases,
        }
    }

    fn id(&self, path: &[&str], id: Option<String>) -> String {
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

    fn date(&self, path: &[&str], date: Option<&str>) {
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

    pub(super) fn declared_variables(&self, raw: Table<schema::Variable>, drafts: &[Draft]) -> Vec<Variable> {
        let mut variables: Vec<(i64, Variable)> = Vec::new();
        for (name, raw) in raw.0 {
            let path = ["variables", name.as_str()];
            if !is_variable_name(&name) {
                self.error(
                    &path,
                    "the name has other characters than letters, digits and `_`, or does not begin with a letter",
                    "write it like `account_id`",
                );
            } else if is_reserved(&name) {
                self.error(
                    &path,
                    format!("`{name}` is a standard input"),
                    format!("remove the variable; what people are told about it goes into [inputs.{name}]"),
                );
            } else if let Some((_, other)) = variables.iter().find(|(_, other)| other.name.eq_ignore_ascii_case(&name))
            {
                self.error(
                    &path,
                    format!("it differs from `{}` by letter case only", other.name),
                    "give it another name",
                );
            } else {
                self.declare(&path, &name);
            }
            for (index, method) in raw.methods.iter().enumerate() {
                if !drafts.iter().any(|known| known.name == *method) {
                    self.error(
                        &["variables", &name, "methods", &index.to_string()],
                        format!("there is no method `{method}`"),
                        "name a method of this file",
                    );
                }
            }
            variables.push((raw.order.unwrap_or(i64::MAX), self.variable(&path, &name, raw)));
        }
        variables.sort_by_key(|(order, _)| *order);
        variables.into_iter().map(|(_, variable)| variable).collect()
    }

    /// A variable, or what a definition says about a standard input.
    fn variable(&self, path: &[&str; 2], name: &str, raw: schema::Variable) -> Variable {
        let at = |field| [path[0], path[1], field];
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
        let choices = raw.choices.as_ref().map(choices_of).unwrap_or_default();
        let sets = raw.choices.as_ref().map(|choices| self.sets(path, name, choices)).unwrap_or_default();
        let variable = Variable {
            label: raw.label.unwrap_or_else(|| name.to_owned()),
            help: raw.help,
            default: raw.default,
            presence: raw.presence,
            secret: raw.secret,
            pattern,
            asked_of: raw.asked_of,
            kind: raw.kind,
            is_url: raw.kind == Kind::Url,
            choices,
            sets,
            example: raw.example,
            methods: raw.methods,
            name: name.to_owned(),
        };
        // A method may fix what the others choose from.
        for (value, _) in variable.choices.iter().filter(|_| variable.presence != Presence::Fixed) {
            if let Err(error) = variable.check(value) {
                self.error(&at("choices"), format!("`{value}`: {}", error.reason), "correct or remove this choice");
            }
        }
        let is_scope = path[0] == "inputs" && name == "scope";
        for (field, value) in [("default", &variable.default), ("example", &variable.example)] {
            if field == "example" && variable.presence == Presence::Fixed {
                continue;
            }
            let checked = match value.as_deref() {
                // Several scopes are one value, and each is checked by itself.
                Some(_) if is_scope && variable.presence == Presence::Fixed => Ok(()),
                Some(scopes) if is_scope => scopes.split(' ').try_for_each(|scope| variable.check(scope)),
                Some(value) => variable.check(value),
                None => Ok(()),
            };
            if let Err(error) = checked {
                self.error(&at(field), error.reason, error.remedy);
            }
        }
        variable
    }

    /// What choices say beside their labels. All say the same things, so that a placeholder never depends on which was chosen.
    fn sets(&self, path: &[&str; 2], variable: &str, choices: &Choices) -> BTreeMap<String, BTreeMap<String, String>> {
        let Either::Long(choices) = choices else { return BTreeMap::new() };
        let mut sets = BTreeMap::new();
        for (choice, raw) in choices.iter() {
            let Either::Long(table) = raw else { continue };
            let mut set = BTreeMap::new();
            for (name, value) in table.iter().filter(|(name, _)| *name != "label") {
                let at = [path[0], path[1], "choices", choice, name];
                if path[0] != "variables" {
                    self.error(&at, "choices of a standard input have labels only", "make a variable of it");
                    continue;
                }
                if !is_variable_name(name) {
                    self.error(
                        &at,
                        "the name has other characters than letters, digits and `_`",
                        "write it like `api_host`",
                    );
                } else if value.is_empty() || value.contains("{{") || value.chars().any(char::is_control) {
                    self.error(
                        &at,
                        "it is empty, or has a placeholder or a control character in it",
                        "write a fixed text",
                    );
                } else if value.len() > MAX_VALUE {
                    self.error(&at, format!("it is longer than {MAX_VALUE} bytes"), "write a shorter one");
                }
                set.insert(name.to_owned(), value.clone());
            }
            sets.insert(choice.to_owned(), set);
        }
        let mut all: Vec<(&str, &str)> = Vec::new();
        for (choice, _) in choices.iter() {
            for name in sets.get(choice).into_iter().flat_map(BTreeMap::keys) {
                if !all.iter().any(|(known, _)| known == name) {
                    all.push((name, choice));
                }
            }
        }
        for (name, choice) in &all {
            self.declare(&[path[0], path[1], "choices", choice, name], &format!("{variable}.{name}"));
            for (other, _) in
                choices.iter().filter(|(other, _)| sets.get(*other).is_none_or(|set| !set.contains_key(*name)))
            {
                self.error(
                    &[path[0], path[1], "choices", other],
                    format!("it does not say `{name}`, which `{choice}` says"),
                    "let each choice say it",
                );
            }
        }
        sets
    }

    /// The standard inputs that a method has a use for, as it describes them.
    pub(super) fn inputs(&self, draft: &Draft, parts: &Parts) -> Vec<Variable> {
        let raw = &parts.inputs;
        let said = [
            &raw.client_id,
            &raw.client_secret,
            &raw.client_key,
            &raw.scope,
            &raw.audience,
            &raw.grant_type,
            &raw.token_key,
            &raw.username,
            &raw.password,
            &raw.refresh_token,
        ];
        let mut inputs: Vec<(i64, Variable)> = Vec::new();
        for ((name, label), said) in INPUTS.into_iter().zip(said) {
            let Some(presence) = self.standard_presence(name, draft, parts, said.is_some()) else {
                if draft.own.member("inputs").is_some_and(|own| own.member(name).is_some()) {
                    self.error(
                        &["inputs", name],
                        format!("the grant {} has no use for it", draft.grant.as_str()),
                        "remove it",
                    );
                }
                continue;
            };
            let none = schema::Input::default();
            let said = said.as_ref().unwrap_or(&none);
            let path = ["inputs", name];
            if said.default.is_some() && matches!(name, "scope" | "token_key") {
                let place = if name == "scope" { "scopes.default" } else { "token.reply.access_token" };
                self.error(&["inputs", name, "default"], "its default has another place", format!("write {place}"));
            }
            let scopes = || Some(parts.scopes.default.join(" ")).filter(|scopes| !scopes.is_empty());
            let default = match name {
                "scope" => scopes(),
                "token_key" => {
                    let pointer = parts.phases.reply.access_token.as_str();
                    let name = pointer.strip_prefix('/').filter(|name| !name.contains('/'));
                    Some(name.unwrap_or(pointer).to_owned())
                }
                _ => said.default.clone(),
            };
            let raw = schema::Variable {
                label: Some(said.label.clone().unwrap_or_else(|| label.to_owned())),
                help: said.help.clone().unwrap_or_default(),
                default,
                presence: said.presence.unwrap_or(presence),
                secret: said
                    .secret
                    .unwrap_or(matches!(name, "client_secret" | "client_key" | "password" | "refresh_token")),
                pattern: said.pattern.clone(),
                asked_of: if matches!(name, "username" | "password" | "refresh_token") {
                    AskedOf::Connection
                } else {
                    AskedOf::Integration
                },
                kind: if name == "client_key" { Kind::Pem } else { Kind::Text },
                choices: said.choices.clone(),
                order: said.order,
                example: said.example.clone(),
                methods: Vec::new(),
            };
            inputs.push((raw.order.unwrap_or(i64::MAX), self.variable(&path, name, raw)));
        }
        inputs.sort_by_key(|(order, _)| *order);
        inputs.into_iter().map(|(_, input)| input).collect()
    }

    /// Whether a method needs an input; `None` if it has no use for it.
    fn standard_presence(&self, name: &str, draft: &Draft, parts: &Parts, said: bool) -> Option<Presence> {
        let auth = parts.phases.token.client_auth;
        let used = self.used.borrow();
        match name {
            "client_id" => Some(Presence::Required),
            "client_secret" => match auth {
                Some(ClientAuth::None | ClientAuth::Tls | ClientAuth::PrivateKeyJwt) => Some(Presence::Optional),
                _ => Some(Presence::Required),
            },
            "client_key" => match auth {
                Some(ClientAuth::PrivateKeyJwt) => Some(Presence::Required),
                _ if said || used.contains("client_key") => Some(Presence::Optional),
                _ => None,
            },
            "scope" => Some(Presence::Optional),
            "audience" => (said || used.contains("audience")).then_some(Presence::Optional),
            "grant_type" | "token_key" => said.then_some(Presence::Optional),
            "username" | "password" => (draft.grant == GrantKind::Password).then_some(Presence::Required),
            "refresh_token" => (draft.grant == GrantKind::RefreshToken).then_some(Presence::Required),
            _ => None,
        }
    }

    pub(super) fn scopes(&self, raw: schema::Scopes) -> ScopeRules {
        let separator = raw.separator.unwrap_or_else(|| " ".to_owned());
        if separator.is_empty() {
            self.error(
                &["scopes", "separator"],
                "it is empty",
                "write what stands between two scopes, such as \" \" or \",\"",
            );
        }
        if raw.format != schema::ScopeFormat::Text && separator != " " {
            self.error(
                &["scopes", "separator"],
                "nothing stands between scopes in this format",
                "remove it, or `format`",
            );
        }
        ScopeRules {
            separator,
            parameter: raw.parameter.unwrap_or_else(|| "scope".to_owned()),
            format: match raw.format {
                schema::ScopeFormat::Text => ScopeFormat::Text,
                schema::ScopeFormat::Array => ScopeFormat::Array,
                schema::ScopeFormat::Repeat => ScopeFormat::Repeat,
            },
            default: raw.default,
            always: raw.always,
            known: raw.known.0,
        }
    }

    pub(super) fn setup(&self, raw: schema::Setup) -> Setup {
        self.page(&["setup", "register_url"], raw.register_url.as_deref());
        Setup {
            register_url: raw.register_url,
            text: raw.text.trim().to_owned(),
            steps: raw.steps,
            redirect_note: raw.redirect_note,
            redirect_case_sensitive: raw.redirect_case_sensitive,
        }
    }

    fn known_errors(&self, raw: Vec<schema::KnownError>) -> Vec<KnownError> {
        let mut errors = Vec::new();
        for (index, error) in raw.into_iter().enumerate() {
            let index = index.to_string();
            let code = self.required(&["errors", &index, "code"], error.code);
            let remedy = self.required(&["errors", &index, "remedy"], error.remedy);
            errors.push(KnownError { code, phase: error.phase, meaning: error.meaning, remedy });
        }
        errors
    }
}

fn choices_of(raw: &Choices) -> Vec<(String, String)> {
    match raw {
        Either::Short(values) => values.iter().map(|value| (value.clone(), value.clone())).collect(),
        Either::Long(table) => {
            table.iter().map(|(value, choice)| (value.to_owned(), label_of(value, choice))).collect()
        }
    }
}

fn label_of(value: &str, choice: &Either<String, Table>) -> String {
    match choice {
        Either::Short(label) => label.clone(),
        Either::Long(table) => {
            table.iter().find(|(name, _)| *name == "label").map_or_else(|| value.to_owned(), |(_, label)| label.clone())
        }
    }
}
