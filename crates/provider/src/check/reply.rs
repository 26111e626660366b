//! How replies are read.

use keyholder_oauth::{Pointer, Predicate, ReplyRules, SecondaryRules, Test};

use super::Checker;
use super::fields::join;
use crate::schema::{self, Code, Table, Value};

impl Checker {
    /// The rules of `[phase.reply]` and `[phase.secondary]`.
    pub(super) fn reply(&self, phase: &str, raw: &schema::Reply, secondary: &Table<schema::Secondary>) -> ReplyRules {
        let at = [phase, "reply"];
        let standard = ReplyRules::default();
        let pointer = |field: &str, written: &Option<String>, standard: Pointer| {
            self.pointer(&join(&at, &[field]), written.as_deref()).unwrap_or(standard)
        };
        let expiry = raw.expiry;
        if expiry == keyholder_oauth::Expiry::Never && raw.default_lifetime.is_some() {
            self.error(
                &join(&at, &["default_lifetime"]),
                "tokens that never expire have no lifetime",
                "remove it, or `expiry = \"never\"`",
            );
        }
        ReplyRules {
            access_token: pointer("access_token", &raw.access_token, standard.access_token),
            refresh_token: pointer("refresh_token", &raw.refresh_token, standard.refresh_token),
            id_token: pointer("id_token", &raw.id_token, standard.id_token),
            token_type: pointer("token_type", &raw.token_type, standard.token_type),
            scope: pointer("scope", &raw.scope, standard.scope),
            expires_in: pointer("expires_in", &raw.expires_in, standard.expires_in),
            expires_at: self.pointer(&join(&at, &["expires_at"]), raw.expires_at.as_deref()),
            refresh_expires_in: pointer("refresh_expires_in", &raw.refresh_expires_in, standard.refresh_expires_in),
            error: pointer("error", &raw.error, standard.error),
            error_description: pointer("error_description", &raw.error_description, standard.error_description),
            expiry,
            default_lifetime: self.duration(&join(&at, &["default_lifetime"]), raw.default_lifetime.as_deref()),
            secondary: secondary
                .iter()
                .map(|(name, raw)| self.secondary(&[phase, "secondary", name], name, raw))
                .collect(),
            success: raw.success.as_ref().and_then(|raw| self.predicate(&join(&at, &["success"]), raw)),
            error_when: raw.error_when.as_ref().and_then(|raw| self.predicate(&join(&at, &["error_when"]), raw)),
            dead: self.codes(&join(&at, &["dead"]), &raw.dead),
            retry: self.codes(&join(&at, &["retry"]), &raw.retry),
            setup: self.codes(&join(&at, &["setup"]), &raw.setup),
            keep: raw.keep.clone(),
        }
    }

    fn secondary(&self, at: &[&str; 3], name: &str, raw: &schema::Secondary) -> SecondaryRules {
        let pointer = |field: &str, written: &Option<String>| self.pointer(&join(at, &[field]), written.as_deref());
        if raw.access_token.is_none() {
            self.error(
                &join(at, &["access_token"]),
                "it is missing",
                "say where the token stands, such as \"/authed_user/access_token\"",
            );
        }
        SecondaryRules {
            name: name.to_owned(),
            access_token: pointer("access_token", &raw.access_token).unwrap_or_else(|| "".into()),
            refresh_token: pointer("refresh_token", &raw.refresh_token),
            token_type: pointer("token_type", &raw.token_type),
            scope: pointer("scope", &raw.scope),
            expires_in: pointer("expires_in", &raw.expires_in),
            expiry: raw.expiry,
            default_lifetime: self.duration(&join(at, &["default_lifetime"]), raw.default_lifetime.as_deref()),
        }
    }

    pub(super) fn predicate(&self, at: &[&str], raw: &schema::Predicate) -> Option<Predicate> {
        let test = self.test(at, &raw.equals, &raw.not_equals, raw.exists)?;
        let Some(written) = &raw.pointer else {
            self.error(at, "it needs a pointer", "write it like { pointer = \"/ok\", equals = true }");
            return None;
        };
        Some(Predicate { pointer: self.pointer(&join(at, &["pointer"]), Some(written))?, test })
    }

    pub(super) fn test(
        &self,
        at: &[&str],
        equals: &Option<Value>,
        not_equals: &Option<Value>,
        exists: Option<bool>,
    ) -> Option<Test> {
        match (equals, not_equals, exists) {
            (Some(wanted), None, None) => Some(Test::Equals(wanted.clone())),
            (None, Some(wanted), None) => Some(Test::NotEquals(wanted.clone())),
            (None, None, Some(wanted)) => Some(Test::Exists(wanted)),
            _ => {
                self.error(
                    at,
                    "it needs a pointer and one of `equals`, `not_equals` and `exists`",
                    "write it like { pointer = \"/ok\", equals = true }",
                );
                None
            }
        }
    }

    fn codes(&self, at: &[&str], raw: &[Code]) -> Vec<String> {
        for (index, Code(code)) in raw.iter().enumerate() {
            if code.trim_end_matches('*').is_empty() || code.trim_end_matches('*').contains('*') {
                self.error(
                    &join(at, &[&index.to_string()]),
                    "it does not name a code",
                    "write a code, or its beginning with one `*` at the end",
                );
            }
        }
        raw.iter().map(|Code(code)| code.clone()).collect()
    }
}
