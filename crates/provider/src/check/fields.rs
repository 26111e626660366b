//! The kinds of fields: what a URL, a header, a parameter, a length of time may be.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::Checker;
use crate::definition::Kind;
use crate::endpoint::{is_host_pattern, read_endpoint};
use crate::schema::Table;
use crate::source::Path;
use crate::template::{Place, Placeholder, Template, UrlTemplate};

impl Checker<'_> {
    pub(super) fn required(&self, path: Path<'_>, text: Option<String>) -> String {
        let text = text.unwrap_or_default();
        if text.trim().is_empty() {
            self.error(path, "it is missing or empty", "add it");
        }
        text
    }

    pub(super) fn url(&self, path: Path<'_>, text: Option<String>) -> Option<UrlTemplate> {
        let remedy = "give an absolute https:// URL without user name and fragment, or \"{{name}}\" of a variable of kind url (http:// is for loopback only)";
        let url = self.keep(path, UrlTemplate::parse(&text?), remedy)?;
        for (placeholder, place) in url.placeholders() {
            self.placeholder(path, placeholder, Some(place));
        }
        Some(url)
    }

    pub(super) fn page(&self, path: Path<'_>, page: Option<&str>) {
        if let Some(Err(reason)) = page.map(read_page) {
            self.error(path, reason, "give the https:// address of a page");
        }
    }

    pub(super) fn params(&self, phase: &str, raw: Table) -> Vec<(String, Template)> {
        let table = [phase, "params"];
        let params = self.source.order(&table, raw).into_iter();
        params.filter_map(|(name, text)| Some((name.clone(), self.text(&[phase, "params", &name], &text)?))).collect()
    }

    pub(super) fn headers(&self, phase: &str, raw: Table) -> Vec<(HeaderName, Template)> {
        let table = [phase, "headers"];
        let headers = self.source.order(&table, raw).into_iter();
        headers
            .filter_map(|(name, text)| {
                let path = [phase, "headers", name.as_str()];
                let header = self.header_name(&path, &name)?;
                let template = self.text(&path, &text)?;
                if template.as_literal().is_some_and(|text| HeaderValue::from_str(&text).is_err()) {
                    self.error(
                        &path,
                        "the value has characters that a header may not have",
                        "remove line breaks and control characters",
                    );
                }
                Some((header, template))
            })
            .collect()
    }

    pub(super) fn header_name(&self, path: Path<'_>, name: &str) -> Option<HeaderName> {
        self.keep(
            path,
            HeaderName::try_from(name).map_err(|_| "it is not a header's name".to_owned()),
            "write it like \"X-Api-Version\"",
        )
    }

    pub(super) fn text(&self, path: Path<'_>, text: &str) -> Option<Template> {
        let template = self.keep(path, Template::parse(text), "write {{name}} with a variable's name")?;
        for placeholder in template.placeholders() {
            self.placeholder(path, placeholder, None);
        }
        Some(template)
    }

    pub(super) fn host(&self, path: Path<'_>, text: &str) -> Option<Template> {
        let template = self.keep(path, Template::parse(text), "write {{name}} with a variable's name")?;
        for placeholder in template.placeholders() {
            self.placeholder(path, placeholder, Some(Place::Host));
        }
        let sample = template.render(|_| Ok::<_, ()>(Some("x".to_owned()))).ok().flatten().unwrap_or_default();
        if !is_host_pattern(&sample) || sample != sample.to_ascii_lowercase() {
            self.error(
                path,
                "it is not a host",
                "write a host in lower case, without https:// and port, or \"*.example.com\" for all below one",
            );
        }
        Some(template)
    }

    pub(super) fn prefix(&self, prefix: &str) {
        if !prefix.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            self.error(
                &["api", "prefix"],
                "it has characters that a header may not have",
                "write it like \"Bearer\", or \"\" for none",
            );
        }
    }

    pub(super) fn path(&self, path: Path<'_>, text: Option<&str>) {
        let Some(text) = text else { return };
        if !text.is_empty()
            && (!text.starts_with('/')
                || text.starts_with("//")
                || text.contains(['\\', '#', '{'])
                || text.chars().any(|c| !c.is_ascii_graphic()))
        {
            self.error(
                path,
                "it is not a path",
                "write a path below base_url, beginning with one `/`; \"\" switches the check off",
            );
        }
    }

    pub(super) fn renames(&self, phase: &str, rename: Table, drop: Vec<String>) -> Vec<(String, Option<String>)> {
        for (index, name) in drop.iter().enumerate() {
            if rename.contains_key(name) {
                self.error(
                    &[phase, "drop", &index.to_string()],
                    format!("`{name}` is renamed too"),
                    "keep one of the two",
                );
            }
        }
        let renamed = rename.into_iter().map(|(from, to)| (from, Some(to)));
        renamed.chain(drop.into_iter().map(|name| (name, None))).collect()
    }

    pub(super) fn duration(&self, path: Path<'_>, text: Option<&str>) -> Option<Duration> {
        let text = text?;
        let parsed = read_duration(text);
        if parsed.is_none() {
            self.error(
                path,
                "it is not a length of time",
                "write a number and a unit: \"60s\", \"30m\", \"12h\" or \"90d\"",
            );
        }
        parsed
    }

    /// Notes that a placeholder is used and checks that it may stand where it does.
    pub(super) fn placeholder(&self, path: Path<'_>, placeholder: &Placeholder, place: Option<Place>) {
        let name = placeholder.name();
        let in_api = path.first() == Some(&"api");
        match placeholder {
            Placeholder::Variable(name) => self.used.borrow_mut().insert(name.clone()),
            Placeholder::Reply(_) if in_api && place != Some(Place::Host) => return,
            Placeholder::Audience if !in_api && !matches!(place, Some(Place::Host | Place::Whole)) => {
                return;
            }
            Placeholder::Reply(_) => {
                return self.error(
                    path,
                    format!("{{{{{name}}}}} may not stand here"),
                    "use it in [api]: as the whole of base_url, in a path or in a header",
                );
            }
            Placeholder::Audience => {
                return self.error(
                    path,
                    "{{audience}} may not stand here",
                    "use it in params or headers of [authorize], [token] and [refresh]",
                );
            }
        };
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
                self.error(path, format!("`{name}` is not a URL"), "make the variable `kind = \"url\"`")
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

    /// The value, or an error at `path`.
    pub(super) fn keep<T>(&self, path: Path<'_>, result: Result<T, String>, remedy: &str) -> Option<T> {
        result.map_err(|reason| self.error(path, reason, remedy)).ok()
    }

    pub(super) fn error(&self, path: Path<'_>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.errors.borrow_mut().push(self.source.error(path, reason, remedy));
    }
}

fn read_page(text: &str) -> Result<(), String> {
    // A page may have a fragment; it is for people.
    read_endpoint(text.split('#').next().unwrap_or_default()).map(|_| ())
}

pub(super) fn read_duration(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    if number.is_empty() || number.len() > 6 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok().map(|number| Duration::from_secs(number * unit))
}
