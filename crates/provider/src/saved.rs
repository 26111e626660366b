//! Texts with `{{placeholders}}` outside definitions: the addresses, headers, parameters and bodies of requests that users save.
//!
//! A placeholder is a variable, or what a provider said (`{{callback.NAME}}`, `{{lookup.NAME}}`, `{{reply.NAME}}`). Each value is escaped for the place
//! where it stands, by the same code as in definitions; tokens and client secrets have no placeholder here, since they are put in on the way.

use std::borrow::Cow;

use keyholder_oauth::Params;
use serde_json::Value;
use url::Url;

use crate::template::{Part, PathTemplate, Place, Placeholder, Template, UrlProblem, UrlTemplate};

/// A header's or a parameter's value: values stand as they are, and whoever sends it escapes the whole.
#[derive(Clone, Debug)]
pub struct Text(Template);

/// The address that paths are appended to.
#[derive(Clone, Debug)]
pub struct Address(UrlTemplate);

/// A path with its query.
#[derive(Clone, Debug)]
pub struct Path(PathTemplate);

/// What is sent with a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// A JSON text: values become strings in it, or numbers and booleans where they stand alone.
    Json(Json),
    /// A form's parameters.
    Form(Vec<(String, Text)>),
    /// Any other text.
    Text(Text, Escape),
}

/// A JSON text with placeholders inside its strings.
#[derive(Clone, Debug)]
pub enum Json {
    /// What has no placeholder: a number, `true`, `null`.
    Plain(Value),
    /// A string.
    Text(Text),
    /// An array.
    List(Vec<Json>),
    /// An object, in the order of its names.
    Object(Vec<(String, Json)>),
}

/// How values are escaped in a text that is neither JSON nor a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// They stand as they are.
    None,
    /// As the text of an XML or HTML element or of a quoted attribute.
    Xml,
}

/// Where in an address a placeholder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// It is the whole address, or its beginning.
    Whole,
    /// In the host.
    Host,
    /// In the path.
    Path,
}

impl Text {
    /// The error is a reason in plain words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = Template::parse(text)?;
        template.placeholders().try_for_each(check)?;
        Ok(Self(template))
    }

    /// The names it needs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.placeholders().map(Placeholder::name)
    }

    /// The text without its values, for checks of what is written around them.
    pub fn literal(&self) -> String {
        self.fill(|_| Some(Cow::Borrowed(""))).unwrap_or_default()
    }

    /// `None` if a value is missing.
    pub fn fill<'v>(&self, values: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<String> {
        let Ok(text) = self.0.render(|placeholder| Ok::<_, std::convert::Infallible>(values(placeholder.name())));
        text
    }

    /// The name, if it is one placeholder and nothing else.
    fn alone(&self) -> Option<&str> {
        match self.0.parts.as_slice() {
            [Part::Value(placeholder)] => Some(placeholder.name()),
            _ => None,
        }
    }
}

impl Address {
    /// The error is a reason in plain words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = UrlTemplate::parse(text)?;
        template.placeholders().iter().try_for_each(|(placeholder, _)| check(placeholder))?;
        Ok(Self(template))
    }

    /// The names it needs, and where each stands.
    pub fn names(&self) -> Vec<(&str, Spot)> {
        let spot = |place| match place {
            Place::Whole => Spot::Whole,
            Place::Host => Spot::Host,
            Place::PathOrQuery => Spot::Path,
        };
        self.0.placeholders().into_iter().map(|(placeholder, place)| (placeholder.name(), spot(place))).collect()
    }

    /// `None` if a value is missing. However the values look, the host is the one written in the authority.
    ///
    /// # Errors
    /// A value that doesn't fit its place, as a reason in plain words.
    pub fn fill<'v>(&self, values: impl Fn(&str) -> Option<Cow<'v, str>>) -> Result<Option<Url>, String> {
        self.0.render(|placeholder| Ok::<_, UrlProblem>(values(placeholder.name()))).map_err(|problem| problem.0)
    }
}

impl Path {
    /// The error is a reason in plain words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = PathTemplate::parse(text)?;
        template.placeholders().try_for_each(check)?;
        Ok(Self(template))
    }

    /// The names it needs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.placeholders().map(Placeholder::name)
    }

    /// The path with its query, each value escaped so that it stays in its segment or parameter; `None` if one is missing.
    pub fn fill<'v>(&self, values: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<String> {
        let Ok(text) = self.0.render(|placeholder| Ok::<_, std::convert::Infallible>(values(placeholder.name())));
        text
    }
}

impl Body {
    /// The names it needs.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Body::Json(json) => json.names(),
            Body::Form(params) => params.iter().flat_map(|(_, text)| text.names()).collect(),
            Body::Text(text, _) => text.names().collect(),
        }
    }

    /// The body; members, items and parameters whose value is missing are left out. `None` if nothing is left, or a value of any other text is missing. `is_bare`
    /// names the values that are JSON numbers or booleans, and are written as such where they stand alone.
    pub fn fill<'v>(
        &self,
        values: impl Fn(&str) -> Option<Cow<'v, str>>,
        is_bare: impl Fn(&str) -> bool,
    ) -> Option<String> {
        match self {
            Body::Json(json) => json.fill(&values, &is_bare).map(|value| value.to_string()),
            Body::Form(params) => {
                let mut form = Params::new();
                for (name, text) in params {
                    if let Some(value) = text.fill(&values) {
                        form.push(name.as_str(), value);
                    }
                }
                Some(form.to_form())
            }
            Body::Text(text, escape) => text.fill(|name: &str| values(name).map(|value| escape.apply(value))),
        }
    }
}

impl Json {
    /// The error is a reason in plain words.
    pub fn parse(value: &Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => Json::Text(Text::parse(text)?),
            Value::Array(items) => Json::List(items.iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| match name.contains("{{") {
                    true => Err(format!("the member's name `{name}` has a placeholder; only values may")),
                    false => Ok((name.clone(), Self::parse(value)?)),
                };
                Json::Object(members.iter().map(member).collect::<Result<_, _>>()?)
            }
            plain => Json::Plain(plain.clone()),
        })
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Json::Plain(_) => Vec::new(),
            Json::Text(text) => text.names().collect(),
            Json::List(items) => items.iter().flat_map(Self::names).collect(),
            Json::Object(members) => members.iter().flat_map(|(_, value)| value.names()).collect(),
        }
    }

    fn fill<'v>(
        &self,
        values: &impl Fn(&str) -> Option<Cow<'v, str>>,
        is_bare: &impl Fn(&str) -> bool,
    ) -> Option<Value> {
        Some(match self {
            Json::Plain(value) => value.clone(),
            Json::Text(text) => {
                let filled = text.fill(values)?;
                let bare = text.alone().filter(|name| is_bare(name)).and_then(|_| serde_json::from_str(&filled).ok());
                bare.filter(|value: &Value| value.is_number() || value.is_boolean()).unwrap_or(Value::String(filled))
            }
            Json::List(items) => items.iter().filter_map(|item| item.fill(values, is_bare)).collect(),
            Json::Object(members) => {
                let member = |(name, value): &(String, Json)| Some((name.clone(), value.fill(values, is_bare)?));
                members.iter().filter_map(member).collect::<serde_json::Map<_, _>>().into()
            }
        })
    }
}

impl Escape {
    fn apply(self, value: Cow<'_, str>) -> Cow<'_, str> {
        const MARKUP: [char; 5] = ['&', '<', '>', '"', '\''];
        if self == Escape::None || !value.contains(MARKUP) {
            return value;
        }
        let mut out = String::with_capacity(value.len() + 16);
        for c in value.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&#39;"),
                other => out.push(other),
            }
        }
        Cow::Owned(out)
    }
}

fn check(placeholder: &Placeholder) -> Result<(), String> {
    match placeholder {
        Placeholder::Variable(_) | Placeholder::Said(..) => Ok(()),
        Placeholder::Token(_) | Placeholder::Input(_) => {
            Err(format!("`{}` has no place here: Keyholder puts credentials in on the way", placeholder.shown()))
        }
        Placeholder::Choice(_) | Placeholder::Computed(_) | Placeholder::Param(_) => {
            Err(format!("`{}` is for definitions only", placeholder.shown()))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    const NASTY: &str = "a/../b?c=1&d#e\"}],\u{fc} <x>&'\\";

    fn nasty(_: &str) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(NASTY))
    }

    fn none(_: &str) -> Option<Cow<'static, str>> {
        None
    }

    #[test]
    fn a_value_stays_in_its_place() {
        let path = Path::parse("/contacts/{{id}}/notes?q={{id}}&limit=5").unwrap();
        let filled = path.fill(nasty).unwrap();
        let (path, query) = filled.split_once('?').unwrap();
        assert_eq!(path.split('/').count(), 4, "{path}");
        let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        assert_eq!(pairs, [("q".into(), NASTY.into()), ("limit".into(), "5".into())]);

        let json = Body::Json(Json::parse(&json!({"note": "n: {{x}}", "list": ["{{x}}", 1], "ok": true})).unwrap());
        let sent: Value = serde_json::from_str(&json.fill(nasty, |_| true).unwrap()).unwrap();
        assert_eq!(sent, json!({"note": format!("n: {NASTY}"), "list": [NASTY, 1], "ok": true}));

        let form = Body::Form(vec![("a".to_owned(), Text::parse("{{x}}").unwrap())]);
        let form = form.fill(nasty, |_| false).unwrap();
        let sent: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).collect();
        assert_eq!(sent, [("a".into(), NASTY.into())]);

        let xml = Body::Text(Text::parse("<q a=\"{{x}}\"/>").unwrap(), Escape::Xml).fill(nasty, |_| false).unwrap();
        assert_eq!(xml, "<q a=\"a/../b?c=1&amp;d#e&quot;}],\u{fc} &lt;x&gt;&amp;&#39;\\\"/>");
    }

    #[test]
    fn a_value_never_changes_the_host() {
        for text in ["https://{{x}}.example.com/v1", "https://api.example.com/{{x}}", "{{x}}/v1", "{{x}}"] {
            let address = Address::parse(text).unwrap();
            for value in ["evil.example/", "a@evil.example", "evil.example#", "..", "x\\y", "evil.example:1"] {
                let filled = address.fill(|_: &str| Some(Cow::Borrowed(value)));
                let host = filled.ok().flatten().and_then(|url| url.host_str().map(str::to_owned));
                assert!(host.is_none_or(|host| host == "api.example.com"), "{text} {value}");
            }
        }
        assert!(Address::parse("http://{{x}}.example.com").is_err());
        let names = Address::parse("https://{{x}}.example.com/{{y}}").unwrap();
        assert_eq!(names.names(), [("x", Spot::Host), ("y", Spot::Path)]);
    }

    #[test]
    fn numbers_and_booleans_stand_bare_where_they_stand_alone() {
        let json = Body::Json(Json::parse(&json!({"a": "{{n}}", "b": "no {{n}}", "c": "{{s}}"})).unwrap());
        let filled = json.fill(|_: &str| Some(Cow::Borrowed("-1.5")), |name| name == "n").unwrap();
        assert_eq!(filled, r#"{"a":-1.5,"b":"no -1.5","c":"-1.5"}"#);
        let trick = json.fill(|_: &str| Some(Cow::Borrowed("[1]")), |_| true).unwrap();
        assert_eq!(trick, r#"{"a":"[1]","b":"no [1]","c":"[1]"}"#);
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        let json = Body::Json(Json::parse(&json!({"a": "{{x}}", "b": ["{{x}}", 1], "c": {"d": "{{x}}"}})).unwrap());
        assert_eq!(json.fill(none, |_| false).unwrap(), r#"{"b":[1],"c":{}}"#);
        assert_eq!(Text::parse("a {{x}}").unwrap().fill(none), None);
        assert_eq!(Path::parse("/a/{{x}}").unwrap().fill(none), None);
        assert_eq!(Address::parse("https://a.example/{{x}}").unwrap().fill(none), Ok(None));
    }

    #[test]
    fn credentials_and_what_only_definitions_know_have_no_placeholder() {
        for text in
            ["{{access_token}}", "{{client_secret}}", "{{password}}", "{{computed.x}}", "{{params.x}}", "{{a.b}}"]
        {
            assert!(Text::parse(text).is_err(), "{text}");
        }
        for text in ["{{x}}", "{{callback.realmId}}", "{{lookup.site}}", "{{reply.instance}}"] {
            assert!(Text::parse(text).is_ok(), "{text}");
        }
        for (text, reason) in [("{{x", "not closed"), ("x}}", "without"), ("{{x y}}", "not a placeholder")] {
            let error = Text::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(Json::parse(&json!({"{{x}}": 1})).is_err());
        for path in ["x", "//x", "/a/../b", "/a#b", "/a b"] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }
}
