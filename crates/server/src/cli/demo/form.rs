//! A reader of HTML forms, as far as server-rendered pages need one: no script, no nesting, no surprises.

use super::super::error::{CliError, Result};

/// A form of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Where it is sent; empty: to the page's own address.
    pub(super) action: String,
    /// `post`, or anything else for `get`.
    pub(super) method: String,
    /// What is sent as it stands: hidden and filled fields, ticked boxes.
    pub(super) fields: Vec<(String, String)>,
    /// What a click adds: name and value of each button.
    pub(super) buttons: Vec<(String, String)>,
}

impl Form {
    /// The fields as they are sent after a click on the button of this name and value; a button that isn't there is an error.
    pub(super) fn click(&self, name: &str, value: &str) -> Result<Vec<(String, String)>> {
        let wanted = (name.to_owned(), value.to_owned());
        if !self.buttons.contains(&wanted) {
            return Err(CliError::Failed(format!("the form has no button {name}={value}")));
        }
        let mut sent = self.fields.clone();
        sent.push(wanted);
        Ok(sent)
    }
}

/// All forms of a page, in its order.
pub(super) fn forms(html: &str) -> Vec<Form> {
    let mut forms = Vec::new();
    let mut open: Option<Form> = None;
    for tag in tags(html) {
        match (tag.name.as_str(), &mut open) {
            ("form", _) => {
                forms.extend(open.take());
                let method = tag.value("method").unwrap_or("get").to_ascii_lowercase();
                open = Some(Form {
                    action: tag.value("action").unwrap_or_default().to_owned(),
                    method,
                    ..Form::default()
                });
            }
            ("/form", _) => forms.extend(open.take()),
            ("input", Some(form)) if tag.is_sent() => form.fields.extend(tag.field("on")),
            ("button", Some(form)) => form.buttons.extend(tag.field("")),
            _ => {}
        }
    }
    forms.extend(open);
    forms
}

/// A tag with its attributes, entities resolved.
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn value(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// An unticked box isn't sent (HTML, "constructing the entry list"), nor is a button that isn't clicked.
    fn is_sent(&self) -> bool {
        match self.value("type") {
            Some("checkbox" | "radio") => self.value("checked").is_some(),
            Some("submit" | "button" | "reset" | "image" | "file") => false,
            _ => true,
        }
    }

    fn field(&self, default: &str) -> Option<(String, String)> {
        let name = self.value("name").filter(|name| !name.is_empty())?;
        let default = if matches!(self.value("type"), Some("checkbox" | "radio")) { default } else { "" };
        Some((name.to_owned(), self.value("value").unwrap_or(default).to_owned()))
    }
}

fn tags(html: &str) -> impl Iterator<Item = Tag> {
    let mut rest = html;
    std::iter::from_fn(move || {
        loop {
            let after = &rest[rest.find('<')? + 1..];
            if let Some(comment) = after.strip_prefix("!--") {
                rest = comment.split_once("-->").map_or("", |(_, behind)| behind);
                continue;
            }
            let (tag, behind) = read_tag(after);
            rest = behind;
            return Some(tag);
        }
    })
}

/// Reads behind a `<`; answers the tag and what follows its `>`.
fn read_tag(text: &str) -> (Tag, &str) {
    let end = text.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(text.len());
    let mut tag = Tag { name: text[..end].trim_end_matches('/').to_ascii_lowercase(), attributes: Vec::new() };
    if text.starts_with('/') {
        tag.name = format!("/{}", text[1..end].to_ascii_lowercase());
    }
    let mut rest = &text[end..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() {
            return (tag, rest);
        }
        if let Some(behind) = rest.strip_prefix('>') {
            return (tag, behind);
        }
        // A stray `=` would be a name of its own; it must not stop the reading.
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '=' | '>' | '/'))
            .unwrap_or(rest.len())
            .max(if rest.starts_with('=') { 1 } else { 0 });
        let name = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start();
        let mut value = "";
        if let Some(behind) = rest.strip_prefix('=') {
            (value, rest) = read_value(behind.trim_start());
        }
        tag.attributes.push((name, unescape(value)));
    }
}

fn read_value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            return quoted.split_once(quote).unwrap_or((quoted, ""));
        }
    }
    text.split_at(text.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(text.len()))
}

/// The entities that escaping functions write: five by name, all by number.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        match rest.find(';').and_then(|end| Some((entity(&rest[1..end])?, end))) {
            Some((character, end)) => {
                plain.push(character);
                rest = &rest[end + 1..];
            }
            None => {
                plain.push('&');
                rest = &rest[1..];
            }
        }
    }
    plain + rest
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_consent_form_is_read_as_a_browser_would() {
        let html = r#"<!doctype html><style>a>b{}</style><!-- <form> -->
            <FORM METHOD="POST" action="/authorize/decision?a=1&amp;b=2">
            <input type="hidden" name="state" value="&quot;&#39;&#x26;&lt;"><input type=hidden name=bare value=x/y>
            <label><input type="radio" name="account" value="alice" checked><input type="radio" name="account" value="bob"></label>
            <input type="checkbox" name="granted" value="read" checked/><input type="checkbox" name="all" checked>
            <input name="typed" required><input value="nameless"><input type="submit" name="no" value="no">
            <button name="decision" value="deny">Deny</button><button class='main' name='decision' value='allow'>Allow</button><button>Plain</button>
            </form><input name="outside" value="1">"#;
        let form = forms(html).remove(0);
        assert_eq!((form.method.as_str(), form.action.as_str()), ("post", "/authorize/decision?a=1&b=2"));
        let fields = [
            ("state", "\"'&<"),
            ("bare", "x/y"),
            ("account", "alice"),
            ("granted", "read"),
            ("all", "on"),
            ("typed", ""),
        ];
        assert_eq!(form.fields, pairs(&fields));
        assert_eq!(form.buttons, pairs(&[("decision", "deny"), ("decision", "allow")]));
        assert_eq!(form.click("decision", "allow").unwrap().last().unwrap().1, "allow");
        assert!(form.click("decision", "maybe").is_err());
    }

    #[test]
    fn two_forms_are_two() {
        let html = r#"<form method="post"><input name="d" value="yes"></form><form><input name="d" value="no"></form>"#;
        let forms = forms(html);
        assert_eq!(forms.len(), 2);
        assert_eq!(forms[0].fields, pairs(&[("d", "yes")]));
        assert_eq!(forms[1].method, "get");
    }

    #[test]
    fn broken_markup_ends() {
        for html in
            ["<", "<form", "<form =", "<form a=\"", "<!--", "<form><input name='x", "&#xffffffff;", "<form / = / >"]
        {
            forms(html);
        }
        assert_eq!(unescape("a & b &nope; &#x110000; &"), "a & b &nope; &#x110000; &");
    }
}
