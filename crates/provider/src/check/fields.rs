//! The kinds of fields: what a URL, a header, a parameter, a length of time may be.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use keyholder_oauth::Pointer;

use super::Checker;
use crate::definition::{ParamTemplates, ParamValue, Renames, Texts};
use crate::endpoint::{is_host_pattern, read_endpoint};
use crate::schema::{Table, Value};
use crate::template::{PathTemplate, Place, Template, UrlTemplate};

/// A path with more steps after it.
pub(super) fn join<'p>(at: &[&'p str], more: &[&'p str]) -> Vec<&'p str> {
    [at, more].concat()
}

impl Checker {
    pub(super) fn required(&self, path: &[&str], text: Option<String>) -> String {
        let text = text.unwrap_or_default();
        if text.trim().is_empty() {
            self.error(path, "it is missing or empty", "add it");
        }
        text
    }

    pub(super) fn url(&self, path: &[&str], text: Option<String>) -> Option<UrlTemplate> {
        let remedy = "give an absolute https:// URL without user name and fragment, or \"{{name}}\" of a variable of kind url (http:// is for loopback only)";
        let text = text?;
        let known = self.urls.borrow().get(&text).cloned();
        let url = match known {
            Some(url) => url,
            None => self.keep(path, UrlTemplate::parse(&text), remedy)?,
        };
        self.urls.borrow_mut().entry(text).or_insert_with(|| url.clone());
        for (placeholder, place) in url.placeholders() {
            self.placeholder(path, placeholder, Some(place));
        }
        Some(url)
    }

    pub(super) fn page(&self, path: &[&str], page: Option<&str>) {
        if let Some(Err(reason)) = page.map(read_page) {
            self.error(path, reason, "give the https:// address of a page");
        }
    }

    pub(super) fn params(&self, at: &[&str], raw: &Table<Value>) -> ParamTemplates {
        let mut params = Vec::new();
        for (name, value) in raw.iter() {
            self.plain_name(at, name);
            let value = match value {
                Value::String(text) => {
                    let path = join(at, &[name]);
                    let hashed = Template::parse(text).ok().and_then(|template| self.hashed(&path, &template));
                    match hashed {
                        Some(hashed) => Some(ParamValue::Hashed(hashed)),
                        None => self.text(&path, text).map(ParamValue::Text),
                    }
                }
                value => {
                    if has_placeholder(value) {
                        let reason = "a list or a table is sent as it is, so nothing is put in for a placeholder";
                        self.error(&join(at, &[name]), reason, "use texts of their own, or a template of the body");
                    }
                    Some(ParamValue::Json(value.clone()))
                }
            };
            params.extend(value.map(|value| (name.to_owned(), value)));
        }
        params
    }

    pub(super) fn texts(&self, at: &[&str], raw: &Table) -> Texts {
        raw.iter().for_each(|(name, _)| self.plain_name(at, name));
        raw.iter().filter_map(|(name, text)| Some((name.to_owned(), self.text(&join(at, &[name]), text)?))).collect()
    }

    fn plain_name(&self, at: &[&str], name: &str) {
        if name.contains("{{") || name.is_empty() || name.chars().any(char::is_control) {
            let reason = "the name is empty, or has a placeholder or a control character";
            self.error(&join(at, &[name]), reason, "write the name as it is sent; placeholders stand in values");
        }
    }

    pub(super) fn headers(&self, at: &[&str], raw: &Table) -> Vec<(HeaderName, Template)> {
        let mut headers = Vec::new();
        for (name, text) in raw.iter() {
            let path = join(at, &[name]);
            let (Some(header), Some(template)) = (self.header_name(&path, name), self.text(&path, text)) else {
                continue;
            };
            if template.as_literal().is_some_and(|text| HeaderValue::from_str(text).is_err()) {
                self.error(
                    &path,
                    "the value has characters that a header may not have",
                    "remove line breaks and control characters",
                );
            }
            headers.push((header, template));
        }
        headers
    }

    pub(super) fn header_name(&self, path: &[&str], name: &str) -> Option<HeaderName> {
        self.keep(
            path,
            HeaderName::try_from(name).map_err(|_| "it is not a header's name".to_owned()),
            "write it like \"X-Api-Version\"",
        )
    }

    pub(super) fn text(&self, path: &[&str], text: &str) -> Option<Template> {
        let template = self.keep(path, Template::parse(text), "write {{name}} with a variable's name")?;
        for placeholder in template.placeholders() {
            self.placeholder(path, placeholder, None);
        }
        Some(template)
    }

    pub(super) fn host(&self, path: &[&str], text: &str) -> Option<Template> {
        let template = self.keep(path, Template::parse(text), "write {{name}} with a variable's name")?;
        for placeholder in template.placeholders() {
            self.placeholder(path, placeholder, Some(Place::Host));
        }
        let sample = template.render(|_| Ok::<_, ()>(Some(Cow::Borrowed("x")))).ok().flatten().unwrap_or_default();
        if !is_host_pattern(&sample) || sample != sample.to_ascii_lowercase() {
            self.error(
                path,
                "it is not a host",
                "write a host in lower case, without https:// and port, or \"*.example.com\" for all below one",
            );
        }
        Some(template)
    }

    pub(super) fn prefix(&self, path: &[&str], prefix: &str) {
        if !prefix.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            self.error(
                path,
                "it has characters that a header may not have",
                "write it like \"Bearer\", or \"\" for none",
            );
        }
    }

    pub(super) fn path(&self, path: &[&str], text: &str) -> Option<PathTemplate> {
        let remedy = "write a path below base_url, beginning with one `/`";
        let template = self.keep(path, PathTemplate::parse(text), remedy)?;
        for placeholder in template.placeholders() {
            self.placeholder(path, placeholder, Some(Place::PathOrQuery));
        }
        Some(template)
    }

    pub(super) fn renames(&self, at: &[&str], rename: &Table, drop: &[String]) -> Renames {
        for (index, name) in drop.iter().enumerate() {
            if rename.contains_key(name) {
                self.error(
                    &join(at, &["drop", &index.to_string()]),
                    format!("`{name}` is renamed too"),
                    "keep one of the two",
                );
            }
        }
        for (name, to) in rename.iter().filter(|(_, to)| to.is_empty()) {
            self.error(
                &join(at, &["rename", name]),
                format!("it has no name{to}"),
                "give the provider's name, or use `drop`",
            );
        }
        let renamed = rename.iter().map(|(from, to)| (from.to_owned(), Some(to.clone())));
        renamed.chain(drop.iter().map(|name| (name.clone(), None))).collect()
    }

    pub(super) fn duration(&self, path: &[&str], text: Option<&str>) -> Option<Duration> {
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

    /// A place in a reply.
    pub(super) fn pointer(&self, path: &[&str], written: Option<&str>) -> Option<Pointer> {
        let written = written?;
        if written.is_empty() || written.contains("//") || written.ends_with('/') {
            self.error(
                path,
                "it does not name a member of the reply",
                "write a name, or a JSON pointer like \"/data/access_token\"",
            );
        }
        Some(Pointer::new(written))
    }

    /// The value, or an error at `path`.
    pub(super) fn keep<T>(&self, path: &[&str], result: Result<T, String>, remedy: &str) -> Option<T> {
        result.map_err(|reason| self.error(path, reason, remedy)).ok()
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

fn has_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("{{"),
        Value::Array(items) => items.iter().any(has_placeholder),
        Value::Object(members) => members.values().any(has_placeholder),
        _ => false,
    }
}
