//! A token set as it is sealed into a connection's row, and the rules for putting a new one in an old one's place.

use std::collections::BTreeMap;

use keyholder_oauth::{SecondaryToken, Secret, TokenSet};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::model::Tenant;
use crate::open::Broker;
use crate::vault::Place;

#[derive(Serialize)]
struct Written<'a> {
    access_token: &'a str,
    refresh_token: Option<&'a str>,
    id_token: Option<&'a str>,
    token_type: &'a str,
    expires_at: Option<i64>,
    refresh_expires_at: Option<i64>,
    scope: Option<&'a [String]>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secondary: BTreeMap<&'a str, WrittenSecondary<'a>>,
    extra: &'a serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct WrittenSecondary<'a> {
    access_token: &'a str,
    refresh_token: Option<&'a str>,
    token_type: &'a str,
    expires_at: Option<i64>,
    scope: Option<&'a [String]>,
}

#[derive(Deserialize)]
struct Read {
    access_token: Secret,
    refresh_token: Option<Secret>,
    id_token: Option<Secret>,
    token_type: String,
    expires_at: Option<i64>,
    refresh_expires_at: Option<i64>,
    scope: Option<Vec<String>>,
    #[serde(default)]
    secondary: BTreeMap<String, ReadSecondary>,
    #[serde(default)]
    extra: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct ReadSecondary {
    access_token: Secret,
    refresh_token: Option<Secret>,
    token_type: String,
    expires_at: Option<i64>,
    scope: Option<Vec<String>>,
}

/// The token set as JSON, in memory that is wiped.
pub(crate) fn write(tokens: &TokenSet) -> Result<Zeroizing<Vec<u8>>> {
    // Reserved at once: a buffer that grows leaves copies of secrets behind.
    let mut out = Zeroizing::new(Vec::with_capacity(64 << 10));
    let written = Written {
        access_token: tokens.access_token.expose(),
        refresh_token: tokens.refresh_token.as_ref().map(Secret::expose),
        id_token: tokens.id_token.as_ref().map(Secret::expose),
        token_type: &tokens.token_type,
        expires_at: tokens.expires_at,
        refresh_expires_at: tokens.refresh_expires_at,
        scope: tokens.scope.as_deref(),
        secondary: tokens.secondary.iter().map(|(name, token)| (name.as_str(), write_secondary(token))).collect(),
        extra: &tokens.extra,
    };
    serde_json::to_writer(&mut *out, &written)
        .map_err(|_| Error::Internal("a token set could not be written as JSON"))?;
    Ok(out)
}

/// A set whose main token is one of the secondary ones of another, as it is revoked.
pub(crate) fn as_main(tokens: &TokenSet, secondary: &SecondaryToken) -> TokenSet {
    TokenSet {
        access_token: secondary.access_token.clone(),
        refresh_token: secondary.refresh_token.clone(),
        secondary: BTreeMap::new(),
        ..tokens.clone()
    }
}

/// Reads what [`write`] wrote.
pub(crate) fn read(json: &[u8]) -> Result<TokenSet> {
    let read: Read =
        serde_json::from_slice(json).map_err(|_| Error::Internal("a sealed token set has an unknown form"))?;
    Ok(TokenSet {
        access_token: read.access_token,
        refresh_token: read.refresh_token,
        id_token: read.id_token,
        token_type: read.token_type,
        expires_at: read.expires_at,
        refresh_expires_at: read.refresh_expires_at,
        scope: read.scope,
        secondary: read.secondary.into_iter().map(|(name, read)| (name, read_secondary(read))).collect(),
        extra: read.extra,
    })
}

fn write_secondary(token: &SecondaryToken) -> WrittenSecondary<'_> {
    WrittenSecondary {
        access_token: token.access_token.expose(),
        refresh_token: token.refresh_token.as_ref().map(Secret::expose),
        token_type: &token.token_type,
        expires_at: token.expires_at,
        scope: token.scope.as_deref(),
    }
}

fn read_secondary(read: ReadSecondary) -> SecondaryToken {
    let ReadSecondary { access_token, refresh_token, token_type, expires_at, scope } = read;
    SecondaryToken { access_token, refresh_token, token_type, expires_at, scope }
}

/// What a refresh leaves unsaid stays as it was: the refresh token (RFC 6749 §6; most providers that don't rotate omit it), the scope (§5.1), and
/// what came beside the tokens at consent, such as the API's base URL. A secondary token stays until it has expired by `now` without a refresh
/// token of its own.
pub(crate) fn succeed(old: Option<TokenSet>, mut new: TokenSet, now: i64) -> TokenSet {
    let Some(old) = old else { return new };
    if new.refresh_token.is_none() {
        // The old one stays, and with it its end; some providers say a new one.
        new.refresh_token = old.refresh_token;
        new.refresh_expires_at = new.refresh_expires_at.or(old.refresh_expires_at);
    }
    new.id_token = new.id_token.or(old.id_token);
    new.scope = new.scope.or(old.scope);
    for (name, before) in old.secondary {
        let after = new.secondary.remove(&name);
        if let Some(token) = succeed_secondary(before, after, now) {
            new.secondary.insert(name, token);
        }
    }
    let newer = std::mem::replace(&mut new.extra, old.extra);
    new.extra.extend(newer);
    new
}

fn succeed_secondary(before: SecondaryToken, after: Option<SecondaryToken>, now: i64) -> Option<SecondaryToken> {
    match after {
        Some(mut after) => {
            after.refresh_token = after.refresh_token.or(before.refresh_token);
            after.scope = after.scope.or(before.scope);
            Some(after)
        }
        None => {
            Some(before).filter(|before| before.refresh_token.is_some() || before.expires_at.is_none_or(|at| at > now))
        }
    }
}

/// The token set with the secondary token `name` renewed by its own refresh token. The reply has it where the definition says, or, as the answer to
/// any refresh, in the place of the main one.
pub(crate) fn succeed_as(mut old: TokenSet, name: &str, mut reply: TokenSet) -> TokenSet {
    let renewed = reply.secondary.remove(name).unwrap_or(SecondaryToken {
        access_token: reply.access_token,
        refresh_token: reply.refresh_token,
        token_type: reply.token_type,
        expires_at: reply.expires_at,
        scope: reply.scope,
    });
    let before = old.secondary.remove(name);
    let both = match before {
        Some(before) => succeed_secondary(before, Some(renewed), 0),
        None => Some(renewed),
    };
    old.secondary.extend(both.map(|token| (name.to_owned(), token)));
    old
}

/// The token set without the own refresh token of the secondary token `name`, and without that one if it has expired by `now`.
pub(crate) fn without_refresh(mut tokens: TokenSet, name: &str, now: i64) -> TokenSet {
    if let Some(mut token) = tokens.secondary.remove(name) {
        token.refresh_token = None;
        let left = succeed_secondary(token, None, now);
        tokens.secondary.extend(left.map(|token| (name.to_owned(), token)));
    }
    tokens
}

impl Broker {
    /// Seals a token set under the generation it will have.
    pub(crate) fn seal_tokens(
        &self,
        tenant: &Tenant,
        row: &str,
        generation: i64,
        tokens: &TokenSet,
    ) -> Result<Vec<u8>> {
        Ok(self.vault.seal(&self.rng, &token_place(tenant, row, generation), &write(tokens)?)?)
    }

    /// Opens a connection's sealed token set.
    pub(crate) fn open_tokens(&self, tenant: &Tenant, row: &str, generation: i64, sealed: &[u8]) -> Result<TokenSet> {
        read(&self.vault.open_value(&token_place(tenant, row, generation), sealed)?)
    }
}

/// Where a token set is sealed to.
pub(crate) fn token_place<'a>(tenant: &'a Tenant, row: &'a str, generation: i64) -> Place<'a> {
    Place { tenant: tenant.as_str(), table: "connections", row, column: "token_set", generation }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tokens(json: serde_json::Value) -> TokenSet {
        read(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_refresh_reply_keeps_what_it_leaves_out() {
        let old = tokens(
            serde_json::json!({"access_token": "a1", "refresh_token": "r1", "id_token": null, "token_type": "Bearer",
            "expires_at": 1, "refresh_expires_at": 9, "scope": ["read"], "extra": {"instance_url": "https://x", "n": 1}}),
        );
        let new = tokens(
            serde_json::json!({"access_token": "a2", "refresh_token": null, "id_token": null, "token_type": "Bearer",
            "expires_at": 2, "scope": null, "extra": {"n": 2}}),
        );
        let both = succeed(Some(old), new, 1);
        let again = read(&write(&both).unwrap()).unwrap();
        assert_eq!(again.access_token.expose(), "a2");
        assert_eq!(again.refresh_token.unwrap().expose(), "r1");
        assert_eq!(again.scope.unwrap(), ["read"]);
        assert_eq!((again.expires_at, again.refresh_expires_at), (Some(2), Some(9)));
        assert_eq!(again.extra["instance_url"], "https://x");
        assert_eq!(again.extra["n"], 2);
    }

    fn with_users(token: &str, refresh_token: Option<&str>, expires_at: i64) -> TokenSet {
        let user = serde_json::json!({"access_token": token, "refresh_token": refresh_token, "token_type": "user", "expires_at": expires_at});
        tokens(serde_json::json!({"access_token": "a", "token_type": "Bearer", "secondary": {"user": user}}))
    }

    #[test]
    fn a_secondary_token_stays_while_it_can_be_used_or_renewed() {
        let silent = || tokens(serde_json::json!({"access_token": "a2", "token_type": "Bearer"}));
        let left = |old, now| succeed(Some(old), silent(), now).secondary.remove("user");
        assert_eq!(left(with_users("u1", None, 9), 8).unwrap().access_token.expose(), "u1");
        assert!(left(with_users("u1", None, 9), 9).is_none(), "it is of no use any more");
        assert!(left(with_users("u1", Some("ur1"), 9), 9).is_some(), "it can be renewed");

        let newer = succeed(Some(with_users("u1", Some("ur1"), 9)), with_users("u2", None, 20), 9);
        let again = read(&write(&newer).unwrap()).unwrap().secondary.remove("user").unwrap();
        assert_eq!((again.access_token.expose(), again.expires_at), ("u2", Some(20)));
        assert_eq!((again.refresh_token.unwrap().expose(), again.token_type.as_str()), ("ur1", "user"));
    }

    #[test]
    fn a_secondary_token_that_was_renewed_leaves_the_others_alone() {
        let reply = tokens(
            serde_json::json!({"access_token": "u2", "refresh_token": "ur2", "token_type": "user", "expires_at": 30}),
        );
        let set = succeed_as(with_users("u1", Some("ur1"), 9), "user", reply);
        assert_eq!((set.access_token.expose(), set.refresh_token.is_none()), ("a", true));
        let user = &set.secondary["user"];
        assert_eq!((user.access_token.expose(), user.expires_at), ("u2", Some(30)));
        assert_eq!(user.refresh_token.as_ref().unwrap().expose(), "ur2");
    }
}
