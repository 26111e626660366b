//! Which placeholder may stand where.

use std::collections::BTreeMap;

use super::Checker;
use crate::definition::{Claim, Computed, Kind};
use crate::endpoint::{is_host_text, read_endpoint};
use crate::template::{Part, Place, Placeholder, Source, Template};

/// Phases that come before there is a token.
const BEFORE_TOKEN: [&str; 6] = ["discover", "authorize", "callback", "device", "token", "register"];

/// Phases in which a token goes to an address below the hosts of `[api]`, so that a provider may name that address.
const BELOW_HOSTS: [&str; 3] = ["api", "after_connect", "userinfo"];

/// Phases whose requests the client authenticates.
const CLIENT_REQUESTS: [&str; 6] = ["token", "refresh", "follow_up", "revoke", "introspect", "device"];

impl Checker {
    /// Notes that a placeholder is used and checks that it may stand where it does.
    pub(super) fn placeholder(&self, path: &[&str], placeholder: &Placeholder, place: Option<Place>) {
        let phase = path.first().copied().unwrap_or_default();
        let name = placeholder.name();
        let steers = matches!(place, Some(Place::Host | Place::Whole));
        let refused = |remedy: &str| self.error(path, format!("{} may not stand here", placeholder.shown()), remedy);
        // What is computed is judged where it is used.
        let anywhere = phase == "computed";
        let in_address = CLIENT_REQUESTS.contains(&phase) && path.last() == Some(&"url");
        if in_address && self.is_secret(placeholder) {
            // Addresses of token endpoints are kept and shown.
            return refused("an address is no place for a secret: use it in params, query or headers");
        }
        match placeholder {
            Placeholder::Variable(name) => self.variable_placeholder(path, name, place),
            Placeholder::Choice(name) => self.choice_placeholder(path, name, place),
            Placeholder::Input(_) if steers || phase == "discover" => {
                refused("use it in params, query or headers, or make a variable of kind host or url");
            }
            Placeholder::Input(_) => {
                self.used.borrow_mut().insert(name.to_owned());
            }
            Placeholder::Said(Source::Callback, _) => {
                let Some(captured) = self.known.captures.get(name.trim_start_matches("callback.")) else {
                    return self.error(
                        path,
                        format!("nothing captures {{{{{name}}}}}"),
                        "add it to [callback.capture]",
                    );
                };
                self.used.borrow_mut().insert(name.to_owned());
                if BEFORE_TOKEN.contains(&phase) && phase != "token" {
                    refused("use it in [token] and what comes after it");
                }
                if path == ["token", "url"] && !captured.has_default {
                    self.error(
                        path,
                        format!("before the callback nothing says what {{{{{name}}}}} is"),
                        format!("give [callback.capture.{}] a default", name.trim_start_matches("callback.")),
                    );
                }
                self.steering(path, name, captured.kind, place);
            }
            Placeholder::Said(source, _) => {
                if *source == Source::Lookup && !self.lookup_is_known(path, name) {
                    return;
                }
                let below_hosts = BELOW_HOSTS.contains(&phase) && path.get(1) != Some(&"hosts");
                if !anywhere && (BEFORE_TOKEN.contains(&phase) || steers && !below_hosts) {
                    refused("use it after [token], in an address below [api], or in a path, params, query or headers");
                }
            }
            Placeholder::Token(_) if !anywhere && (steers || BEFORE_TOKEN.contains(&phase)) => {
                refused("use it after [token], in params, query or headers");
            }
            Placeholder::Token(_) => {}
            Placeholder::Computed(name) => self.computed_placeholder(path, name, steers),
            Placeholder::Param(_) if path.last() == Some(&"template") => {}
            Placeholder::Param(_) => refused("use it in the template of a body"),
        }
    }

    fn is_secret(&self, placeholder: &Placeholder) -> bool {
        match placeholder {
            Placeholder::Variable(name) => self.variables.iter().any(|it| it.name == *name && it.secret),
            Placeholder::Input(_) => {
                matches!(placeholder.name(), "client_secret" | "client_key" | "password" | "refresh_token")
            }
            Placeholder::Token(_) => true,
            _ => false,
        }
    }

    fn variable_placeholder(&self, path: &[&str], name: &str, place: Option<Place>) {
        self.used.borrow_mut().insert(name.to_owned());
        let Some(variable) = self.variables.iter().find(|variable| variable.name == name) else {
            let known: Vec<_> = self.variables.iter().map(|variable| variable.name.as_str()).collect();
            let known = if known.is_empty() { String::new() } else { format!(", or use one of: {}", known.join(", ")) };
            return self.error(
                path,
                format!("there is no variable `{name}`"),
                format!("add [variables.{name}]{known}"),
            );
        };
        match place {
            Some(Place::Host) if variable.kind != Kind::Host => {
                self.error(
                    path,
                    format!("`{name}` could change the host"),
                    "make the variable `kind = \"host\"` with a pattern",
                );
            }
            Some(Place::Whole) if variable.kind != Kind::Url => {
                self.error(path, format!("`{name}` is not a URL"), "make the variable `kind = \"url\"`");
            }
            Some(Place::PathOrQuery) if variable.kind == Kind::Url => {
                self.error(
                    path,
                    format!("`{name}` is a whole URL"),
                    "let it be the whole of this field, or make the variable a text",
                );
            }
            _ => {}
        }
    }

    /// What a choice says is the definition's own word, so it may steer an address by itself.
    fn choice_placeholder(&self, path: &[&str], name: &str, place: Option<Place>) {
        let (of, member) = name.split_once('.').unwrap_or((name, ""));
        self.used.borrow_mut().extend([of.to_owned(), name.to_owned()]);
        let Some(variable) = self.variables.iter().find(|variable| variable.name == of) else {
            return self.error(path, format!("there is no variable `{of}`"), format!("add [variables.{of}]"));
        };
        if !variable.choices.iter().any(|(choice, _)| variable.set(choice, member).is_some()) {
            return self.error(
                path,
                format!("the choices of `{of}` do not say `{member}`"),
                format!("add it to each of [variables.{of}.choices]"),
            );
        }
        for (choice, _) in &variable.choices {
            let Some(value) = variable.set(choice, member) else { continue };
            let (fits, what) = match place {
                Some(Place::Host) => (is_host_text(value), "a host"),
                Some(Place::Whole) => (read_endpoint(value).is_ok(), "a URL"),
                _ => continue,
            };
            if !fits {
                self.error(
                    path,
                    format!("`{value}`, which {{{{{name}}}}} may be, is not {what}"),
                    format!("correct it in [variables.{of}.choices.{choice}]"),
                );
            }
        }
    }

    /// A captured value may steer an address if its pattern says which ones.
    fn steering(&self, path: &[&str], name: &str, kind: Kind, place: Option<Place>) {
        let wanted = match place {
            Some(Place::Host) => Kind::Host,
            Some(Place::Whole) => Kind::Url,
            _ => return,
        };
        if kind != wanted {
            let word = if wanted == Kind::Host { "host" } else { "url" };
            self.error(
                path,
                format!("`{name}` could change the host"),
                format!("capture it with `kind = \"{word}\"` and a pattern"),
            );
        }
    }

    fn lookup_is_known(&self, path: &[&str], name: &str) -> bool {
        let Some(saved_by) = self.known.lookups.get(name.trim_start_matches("lookup.")) else {
            self.error(path, format!("no lookup saves {{{{{name}}}}}"), "extract or choose it in [[after_connect]]");
            return false;
        };
        self.used.borrow_mut().insert(name.to_owned());
        let here = path.get(1).and_then(|index| index.parse::<usize>().ok()).filter(|_| path[0] == "after_connect");
        if here.is_some_and(|here| here <= *saved_by) {
            self.error(path, format!("{{{{{name}}}}} is learnt later"), "use what an earlier lookup saves");
            return false;
        }
        true
    }

    fn computed_placeholder(&self, path: &[&str], name: &str, steers: bool) {
        self.used.borrow_mut().insert(format!("computed.{name}"));
        let Some(computed) = self.known.computed.get(name) else {
            if self.known.broken.contains(name) {
                return;
            }
            return self.error(path, format!("there is no computed value `{name}`"), format!("add [computed.{name}]"));
        };
        if steers {
            return self.error(path, "a computed value may not change the host", "use it in params, query or headers");
        }
        let mut made_of = BTreeMap::new();
        self.made_of(name, computed, &mut made_of);
        if path[0] == "api" && made_of.values().any(|computed| has_time(computed)) {
            return self.error(
                path,
                format!("`{name}` grows old, and calls would go on sending it"),
                "use it in the requests of other phases",
            );
        }
        if made_of.values().any(|computed| needs_request(computed)) {
            return self.error(
                path,
                format!("`{name}` is made of a request's own parameters"),
                "let it be the whole of a parameter in the params of [token], [refresh] or another request of the client",
            );
        }
        self.made_of_may_stand(path, &made_of);
    }

    /// A hash over a request's own parameters, as the whole of another one.
    pub(super) fn hashed(&self, path: &[&str], template: &Template) -> Option<String> {
        let [Part::Value(Placeholder::Computed(name))] = template.parts.as_slice() else { return None };
        let computed = self.known.computed.get(name).filter(|computed| needs_request(computed))?;
        if !matches!(path, [phase, "params", _] if CLIENT_REQUESTS.contains(phase)) {
            return None;
        }
        let Computed::Hash { over, .. } = computed else {
            self.error(
                &["computed", name],
                "only a hash may be made of a request's parameters",
                "write it with `hash`, or without {{params.NAME}}",
            );
            return None;
        };
        if names(computed).next().is_some() {
            self.error(
                &["computed", name, "over"],
                "a computed value may not stand beside a request's parameters",
                "write out what it is made of",
            );
        }
        self.used.borrow_mut().insert(format!("computed.{name}"));
        for placeholder in
            over.placeholders().filter(|it| !matches!(it, Placeholder::Param(_) | Placeholder::Computed(_)))
        {
            self.placeholder(path, placeholder, None);
        }
        Some(name.clone())
    }

    fn made_of_may_stand(&self, path: &[&str], made_of: &BTreeMap<&str, &Computed>) {
        for template in made_of.values().flat_map(|computed| templates(computed)) {
            for placeholder in template.placeholders().filter(|it| !matches!(it, Placeholder::Computed(_))) {
                self.placeholder(path, placeholder, None);
            }
        }
    }

    /// A computed value and all that it is made of, each once.
    fn made_of<'c>(&'c self, name: &'c str, computed: &'c Computed, all: &mut BTreeMap<&'c str, &'c Computed>) {
        if all.insert(name, computed).is_some() {
            return;
        }
        for name in names(computed) {
            if let Some((name, computed)) = self.known.computed.get_key_value(name) {
                self.made_of(name, computed, all);
            }
        }
    }
}

/// The templates that a computed value is made of.
pub(super) fn templates(computed: &Computed) -> Vec<&Template> {
    match computed {
        Computed::Hmac { key, over, .. } => vec![key, over],
        Computed::Hash { over, .. } => vec![over],
        Computed::Base64 { text, .. } => vec![text],
        Computed::Jwt { key, header, claims, .. } => {
            let claims = claims.iter().filter_map(|(_, claim)| match claim {
                Claim::Text(template) => Some(template),
                Claim::Json(_) | Claim::Time(_) | Claim::Random => None,
            });
            [key].into_iter().chain(header.iter().map(|(_, template)| template)).chain(claims).collect()
        }
    }
}

/// Whether it is made of the parameters of a request.
fn needs_request(computed: &Computed) -> bool {
    let of_request = |template: &&Template| template.placeholders().any(|it| matches!(it, Placeholder::Param(_)));
    templates(computed).iter().any(of_request)
}

/// The computed values that one is made of.
pub(super) fn names(computed: &Computed) -> impl Iterator<Item = &str> {
    templates(computed).into_iter().flat_map(|template| template.placeholders()).filter_map(|placeholder| {
        match placeholder {
            Placeholder::Computed(name) => Some(name.as_str()),
            _ => None,
        }
    })
}

fn has_time(computed: &Computed) -> bool {
    match computed {
        Computed::Jwt { claims, .. } => claims.iter().any(|(_, claim)| matches!(claim, Claim::Time(_) | Claim::Random)),
        Computed::Hmac { .. } | Computed::Hash { .. } | Computed::Base64 { .. } => false,
    }
}
