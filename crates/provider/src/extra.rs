//! Parameters that an integration has sent beside those of its definition.

use serde::{Deserialize, Serialize};

use crate::definition::{GrantKind, Method};
use crate::error::ValueError;

/// Parameters by the request that they go with, in the order in which they are sent. They take the place of a definition's of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// With the person, to the authorization endpoint.
    pub authorize: Vec<(String, String)>,
    /// With the request that obtains a token.
    pub token: Vec<(String, String)>,
    /// With the request that renews one.
    pub refresh: Vec<(String, String)>,
}

/// Most parameters of one request.
const MOST: usize = 20;
/// Longest name, in characters.
const LONGEST_NAME: usize = 100;
/// Longest value, in bytes.
const LONGEST_VALUE: usize = 2_000;

/// What the protocol itself says (RFC 6749, 7009, 7521, 7636, 8628, 8693, 9101, OpenID Connect): replaced, a request would say something else, or answer somebody else.
const PROTOCOL: [&str; 33] = [
    "access_token",
    "actor_token",
    "actor_token_type",
    "assertion",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "device_code",
    "dpop_jkt",
    "grant_type",
    "id_token",
    "nonce",
    "password",
    "redirect_uri",
    "refresh_token",
    "request",
    "request_uri",
    "requested_token_type",
    "response_mode",
    "response_type",
    "scope",
    "state",
    "subject_token",
    "subject_token_type",
    "token",
    "token_type_hint",
    "user_code",
    "username",
];

impl Extra {
    /// Does it add nothing?
    pub fn is_empty(&self) -> bool {
        self.phases().iter().all(|(_, params)| params.is_empty())
    }

    /// The parameters with the names of their requests.
    pub fn phases(&self) -> [(&'static str, &[(String, String)]); 3] {
        [("authorize", &self.authorize), ("token", &self.token), ("refresh", &self.refresh)]
    }
}

impl Method {
    /// Checks parameters that an integration adds; every mistake is named, under `extra.` and the request's name.
    pub fn check_extra(&self, extra: &Extra) -> Result<(), Vec<ValueError>> {
        let errors: Vec<ValueError> = extra
            .phases()
            .into_iter()
            .flat_map(|(phase, params)| self.mistakes(phase, params).map(move |mistake| error(phase, mistake)))
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn mistakes<'a>(
        &'a self,
        phase: &'static str,
        params: &'a [(String, String)],
    ) -> impl Iterator<Item = (String, String)> + 'a {
        let few = format!("give {MOST} at most");
        let many = (params.len() > MOST).then(|| ("there are too many parameters".to_owned(), few));
        let no_request = (phase == "authorize" && self.grant != GrantKind::AuthorizationCode && !params.is_empty())
            .then(|| ("this method sends nobody to an authorization endpoint".to_owned(), "leave them out".to_owned()));
        let own_body = (phase != "authorize" && self.writes_own_body() && !params.is_empty()).then(|| {
            let remedy = "leave them out, or put them into the body of a definition of your own";
            ("this provider's definition writes the body itself".to_owned(), remedy.to_owned())
        });
        let each = params.iter().filter_map(|(name, value)| self.mistake(name, value));
        many.into_iter().chain(no_request).chain(own_body).chain(each)
    }

    fn mistake(&self, name: &str, value: &str) -> Option<(String, String)> {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        let says = |reason: String, remedy: &str| Some((reason, remedy.to_owned()));
        if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return says(format!("`{shown}` is no name of a parameter"), "use 1 to 100 characters without line breaks");
        }
        if value.len() > LONGEST_VALUE || value.chars().any(char::is_control) {
            return says(
                format!("the value of `{shown}` is too long or holds control characters"),
                "give 2000 bytes at most, without line breaks",
            );
        }
        let lower = name.to_ascii_lowercase();
        if PROTOCOL.contains(&lower.as_str()) || self.renames_to(name) {
            return says(
                format!("`{shown}` is set by the protocol"),
                "leave it out; where there is a field for it, use that",
            );
        }
        if looks_secret(&lower) {
            return says(
                format!("`{shown}` looks like a secret, and parameters are shown"),
                "make it a secret variable of a definition of your own",
            );
        }
        None
    }

    /// Is it what this provider calls a parameter of the protocol?
    fn renames_to(&self, name: &str) -> bool {
        let phases = &self.phases;
        let renames = [&phases.authorize.renames, &phases.token.renames, &phases.refresh.request.renames];
        let own = renames.into_iter().flatten().any(|(_, to)| to.as_deref() == Some(name));
        own || self.scopes.parameter == name
    }
}

/// `token_access_type` is none, `api_key` is one.
fn looks_secret(lower: &str) -> bool {
    ["secret", "password"].iter().any(|word| lower.contains(word))
        || ["key", "token"].iter().any(|word| lower.ends_with(word))
}

fn error(phase: &str, (reason, remedy): (String, String)) -> ValueError {
    ValueError { variable: format!("extra.{phase}"), reason, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    fn method(provider: &str, name: &str) -> Method {
        Catalogue::built_in().definition(provider).unwrap().method(Some(name)).unwrap().clone()
    }

    fn one(name: &str, value: &str) -> Extra {
        Extra { token: vec![(name.to_owned(), value.to_owned())], ..Extra::default() }
    }

    #[test]
    fn what_the_protocol_sets_and_what_looks_secret_is_refused() {
        let method = method("oauth2", "authorization_code");
        let table = [
            ("prompt", "consent", None),
            ("resource", "https://api.example", None),
            ("token_access_type", "offline", None),
            ("client_id", "other", Some("set by the protocol")),
            ("Redirect_URI", "https://evil.example", Some("set by the protocol")),
            ("request_uri", "https://evil.example", Some("set by the protocol")),
            ("code_verifier", "x", Some("set by the protocol")),
            ("api_key", "x", Some("looks like a secret")),
            ("apiToken", "x", Some("looks like a secret")),
            ("x-secret-2", "x", Some("looks like a secret")),
            ("", "x", Some("no name")),
            ("a\nb", "x", Some("no name")),
            ("a", "x\ny", Some("control characters")),
        ];
        for (name, value, expected) in table {
            let found = method.check_extra(&one(name, value)).err().map(|errors| errors[0].clone());
            assert_eq!(found.is_some(), expected.is_some(), "{name}: {found:?}");
            let (found, expected) = (found.map_or(String::new(), |e| e.reason), expected.unwrap_or_default());
            assert!(found.contains(expected), "{name}: {found}");
        }
        let long = method.check_extra(&one("a", &"x".repeat(2_001))).unwrap_err();
        assert!(long[0].reason.contains("too long") && !long[0].reason.contains("xxx"), "{long:?}");
        let many = Extra { refresh: vec![("a".to_owned(), "b".to_owned()); 21], ..Extra::default() };
        assert_eq!(method.check_extra(&many).unwrap_err()[0].variable, "extra.refresh");
    }

    #[test]
    fn a_request_that_there_is_not_takes_none() {
        let extra = Extra { authorize: vec![("prompt".to_owned(), "login".to_owned())], ..Extra::default() };
        assert!(method("oauth2", "authorization_code").check_extra(&extra).is_ok());
        let errors = method("oauth2", "client_credentials").check_extra(&extra).unwrap_err();
        assert_eq!(errors[0].variable, "extra.authorize");
    }
}
