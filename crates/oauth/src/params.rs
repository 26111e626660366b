//! Ordered request parameters whose values may be secret.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};
use url::form_urlencoded;

use crate::secret::Secret;

/// Request parameters in the order they are sent. `Debug` prints their names only.
///
/// A name may occur more than once (`resource` of RFC 8707 does).
#[derive(Clone, Default)]
pub struct Params(Vec<Param>);

#[derive(Clone)]
struct Param {
    name: String,
    value: Secret,
    /// The value is a JSON text, and goes into a JSON body as it is.
    is_json: bool,
}

impl Params {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a parameter, whether or not the name is there already.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(Param { name: name.into(), value: Secret::new(value), is_json: false });
    }

    /// Appends a parameter that a JSON body has as this JSON value; elsewhere, texts are sent without their quotes.
    pub fn push_json(&mut self, name: impl Into<String>, value: &serde_json::Value) {
        match value {
            serde_json::Value::String(text) => self.push(name, text),
            value => self.0.push(Param { name: name.into(), value: Secret::new(value.to_string()), is_json: true }),
        }
    }

    /// Replaces the parameter where it stands (and drops its repetitions), or appends it.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.put(Param { name: name.into(), value: Secret::new(value), is_json: false });
    }

    fn put(&mut self, param: Param) {
        let Some(place) = self.0.iter().position(|known| known.name == param.name) else {
            return self.0.push(param);
        };
        let mut index = 0;
        self.0.retain(|known| {
            index += 1;
            index - 1 == place || known.name != param.name
        });
        self.0[place] = param;
    }

    /// Removes every parameter of this name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|known| known.name != name);
    }

    /// Gives every parameter of this name another name, in its place.
    pub fn rename(&mut self, from: &str, to: &str) {
        for param in &mut self.0 {
            if param.name == from {
                param.name = to.to_owned();
            }
        }
    }

    /// Whether a parameter of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.name == name)
    }

    /// The first value of this name. It may be secret.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|known| known.name == name).map(|known| known.value.expose())
    }

    /// Names and values in order. The values may be secret.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|param| (param.name.as_str(), param.value.expose()))
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As `application/x-www-form-urlencoded` (RFC 6749 appendix B): a space is `+`.
    pub fn to_form(&self) -> String {
        // Room for the worst case from the start: growing would leave copies of secrets in freed memory.
        let room = self.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
        form_urlencoded::Serializer::new(String::with_capacity(room)).extend_pairs(self.iter()).finish()
    }

    /// As one JSON object, in order. Of a repeated name only the last value is sent,
    /// since what a server makes of a repeated member is anybody's guess (RFC 8259 §4).
    pub fn to_json(&self) -> String {
        serde_json::to_string(&AsJson(self)).expect("text always serialises")
    }

    /// Renames or drops parameters: `(standard name, new name or None = drop)`.
    pub(crate) fn apply_renames(&mut self, renames: &[(String, Option<String>)]) {
        for (from, to) in renames {
            match to {
                Some(to) => self.rename(from, to),
                None => self.remove(from),
            }
        }
    }

    /// Adds what a definition asks for: replaces the standard parameters it names, appends the rest.
    pub(crate) fn overlay(&mut self, extra: &Params) {
        let standard: Vec<String> = self.0.iter().map(|known| known.name.clone()).collect();
        for param in &extra.0 {
            if standard.contains(&param.name) {
                self.put(param.clone());
            } else {
                self.0.push(param.clone());
            }
        }
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|param| &param.name)).finish()
    }
}

struct AsJson<'a>(&'a Params);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let params = &self.0.0;
        let mut object = serializer.serialize_map(None)?;
        for (place, param) in params.iter().enumerate() {
            let again = params[place + 1..].iter().any(|later| later.name == param.name);
            let json = || serde_json::from_str::<serde_json::Value>(param.value.expose()).ok();
            match param.is_json.then(json).flatten() {
                _ if again => {}
                Some(value) => object.serialize_entry(&param.name, &value)?,
                None => object.serialize_entry(&param.name, param.value.expose())?,
            }
        }
        object.end()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let mut params = Params::new();
        for (name, value) in pairs {
            params.push(*name, *value);
        }
        params
    }

    #[test]
    fn set_keeps_the_place_and_drops_repetitions() {
        let mut some = params(&[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")]);
        some.set("b", "20");
        some.set("a", "10");
        some.set("d", "40");
        assert_eq!(some.to_form(), "a=10&b=20&c=4&d=40");
    }

    #[test]
    fn rename_and_remove_touch_every_occurrence() {
        let mut some = params(&[("a", "1"), ("b", "2"), ("a", "3")]);
        some.rename("a", "x");
        some.remove("b");
        assert_eq!(some.to_form(), "x=1&x=3");
        assert!(some.contains("x") && !some.contains("a") && !some.is_empty());
    }

    #[test]
    fn form_and_json_bytes() {
        let some = params(&[("a b", "ü+ &=%/~*"), ("q", "\"\\\n"), ("a b", "last")]);
        assert_eq!(some.to_form(), "a+b=%C3%BC%2B+%26%3D%25%2F%7E*&q=%22%5C%0A&a+b=last");
        assert_eq!(some.to_json(), r#"{"q":"\"\\\n","a b":"last"}"#);
        assert_eq!(Params::new().to_json(), "{}");
        assert_eq!(Params::new().to_form(), "");
    }

    #[test]
    fn debug_prints_names_only() {
        assert_eq!(format!("{:?}", params(&[("password", "hush")])), r#"{"password"}"#);
    }

    proptest! {
        #[test]
        fn a_form_round_trips(pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..8)) {
            let mut some = Params::new();
            for (name, value) in &pairs {
                some.push(name, value);
            }
            let form = some.to_form();
            let read: Vec<(String, String)> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
            prop_assert_eq!(&read, &pairs);
            let strict = crate::query::parse(&form).unwrap();
            prop_assert_eq!(strict, pairs);
        }

        #[test]
        fn json_is_one_object_of_strings(pairs in prop::collection::btree_map(any::<String>(), any::<String>(), 0..8)) {
            let mut some = Params::new();
            for (name, value) in &pairs {
                some.push(name, value);
            }
            let read: std::collections::BTreeMap<String, String> = serde_json::from_str(&some.to_json()).unwrap();
            prop_assert_eq!(read, pairs);
        }
    }
}
