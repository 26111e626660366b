//! Values made of others.

use std::collections::{BTreeMap, BTreeSet};

use keyholder_oauth::Encoding;

use super::Checker;
use super::fields::{join, read_duration};
use super::placeholders::names;
use crate::definition::{Claim, Computed};
use crate::schema::{self, Table, Value};
use crate::template::{Placeholder, Template, is_variable_name};

impl Checker {
    pub(super) fn computed(&self, raw: Table<schema::Computed>) -> BTreeMap<String, Computed> {
        let mut all = BTreeMap::new();
        for (name, raw) in raw.0 {
            let at = ["computed", name.as_str()];
            if !is_variable_name(&name) {
                self.error(
                    &at,
                    "the name has other characters than letters, digits and `_`",
                    "write it like `signature`",
                );
            }
            self.declare(&at, &format!("computed.{name}"));
            if let Some(computed) = self.one_computed(&at, raw) {
                all.insert(name, computed);
            }
        }
        self.refuse_cycles(&mut all);
        all
    }

    fn one_computed(&self, at: &[&str; 2], raw: schema::Computed) -> Option<Computed> {
        let field = |name| [at[0], at[1], name];
        let text = |name, text: Option<String>| {
            let text = self.required(&field(name), text);
            self.plain_text(&field(name), &text)
        };
        let unused = |fields: &[(&'static str, bool)], of: &str| {
            for (name, _) in fields.iter().filter(|(_, there)| *there) {
                self.error(&field(name), format!("it has no meaning beside `{of}`"), "remove it");
            }
        };
        match (raw.hmac, raw.jwt, raw.base64, raw.hash) {
            (Some(hash), None, None, None) => Some(Computed::Hmac {
                hash,
                key: text("key", raw.key)?,
                over: text("over", raw.over)?,
                encoding: raw.encoding.unwrap_or_default(),
            }),
            (None, None, None, Some(hash)) => {
                unused(&[("key", raw.key.is_some())], "hash");
                Some(Computed::Hash { hash, over: text("over", raw.over)?, encoding: raw.encoding.unwrap_or_default() })
            }
            (None, Some(jwt), None, None) => {
                unused(
                    &[("key", raw.key.is_some()), ("over", raw.over.is_some()), ("encoding", raw.encoding.is_some())],
                    "jwt",
                );
                self.jwt(&field("jwt"), jwt)
            }
            (None, None, Some(plain), None) => {
                unused(&[("key", raw.key.is_some()), ("over", raw.over.is_some())], "base64");
                let encoding = raw.encoding.unwrap_or(Encoding::Base64);
                Some(Computed::Base64 { text: text("base64", Some(plain))?, encoding })
            }
            _ => {
                self.error(at, "it needs one of `hmac`, `hash`, `jwt` and `base64`", "say how it is made");
                None
            }
        }
    }

    fn jwt(&self, at: &[&str; 3], raw: schema::Jwt) -> Option<Computed> {
        let Some(algorithm) = raw.alg else {
            self.error(&join(at, &["alg"]), "it is missing", "write it like \"RS256\"");
            return None;
        };
        let key = self.required(&join(at, &["key"]), raw.key);
        let mut header = Vec::new();
        for (name, text) in raw.header.iter().chain(raw.kid.iter().map(|kid| ("kid", kid))) {
            let path = if raw.header.contains_key(name) { join(at, &["header", name]) } else { join(at, &["kid"]) };
            header.extend(self.plain_text(&path, text).map(|text| (name.to_owned(), text)));
        }
        let mut claims = Vec::new();
        for (name, value) in raw.claims.iter() {
            claims.extend(self.claim(&join(at, &["claims", name]), name, value).map(|claim| (name.to_owned(), claim)));
        }
        Some(Computed::Jwt { algorithm, key: self.plain_text(&join(at, &["key"]), &key)?, header, claims })
    }

    fn claim(&self, path: &[&str], name: &str, value: &Value) -> Option<Claim> {
        match (name, value.as_str()) {
            ("iat" | "nbf" | "exp", Some(text)) => {
                let time = match text.strip_prefix(['+', '-']) {
                    _ if text == "now" => Some(0),
                    Some(length) => read_duration(length).and_then(|length| i64::try_from(length.as_secs()).ok()),
                    None => None,
                };
                let time = time.map(|seconds| if text.starts_with('-') { -seconds } else { seconds });
                self.keep(
                    path,
                    time.map(Claim::Time).ok_or_else(|| "it is not a time".to_owned()),
                    "write \"now\", \"+5m\" or \"-30s\"",
                )
            }
            ("jti", Some("random")) => Some(Claim::Random),
            (_, Some(text)) => self.plain_text(path, text).map(Claim::Text),
            (_, None) => Some(Claim::Json(value.clone())),
        }
    }

    /// A text whose computed values are not known yet.
    fn plain_text(&self, path: &[&str], text: &str) -> Option<Template> {
        let template = self.keep(path, Template::parse(text), "write {{name}} with a variable's name")?;
        for placeholder in template.placeholders() {
            match placeholder {
                Placeholder::Computed(_) => {}
                // Where it is used tells whether there is such a request.
                Placeholder::Param(_) if path.last() == Some(&"over") => {}
                placeholder => self.placeholder(path, placeholder, None),
            }
        }
        Some(template)
    }

    /// Takes out what is made of itself, so that nothing that follows the names can run for ever.
    fn refuse_cycles(&self, all: &mut BTreeMap<String, Computed>) {
        let mut sound: BTreeSet<String> = BTreeSet::new();
        // Each round takes those that are made of sound ones only; what is left at the end is a cycle or hangs on one.
        loop {
            let next: Vec<String> = all
                .iter()
                .filter(|(name, computed)| !sound.contains(*name) && names(computed).all(|name| sound.contains(name)))
                .map(|(name, _)| name.clone())
                .collect();
            if next.is_empty() {
                break;
            }
            sound.extend(next);
        }
        for (name, computed) in all.iter().filter(|(name, _)| !sound.contains(*name)) {
            let missing = names(computed).find(|used| !all.contains_key(*used));
            match missing {
                Some(missing) => self.error(
                    &["computed", name],
                    format!("there is no computed value `{missing}`"),
                    format!("add [computed.{missing}]"),
                ),
                None => self.error(&["computed", name], "it is made of itself", "break the circle"),
            }
        }
        for computed in all.values() {
            let mut used = self.used.borrow_mut();
            used.extend(names(computed).map(|name| format!("computed.{name}")));
        }
        all.retain(|name, _| sound.contains(name));
    }
}
