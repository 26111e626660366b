//! Whose account was connected, as far as the token reply told.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyholder_oauth::{Secret, TokenSet};
use serde_json::{Map, Value};

use crate::learn::name;

/// The account's name, or the reason to refuse the reply.
///
/// The ID token came straight from the token endpoint, so its signature need not be checked (OpenID Connect Core §3.1.3.7, 6); its nonce is.
pub(super) fn account(tokens: &TokenSet, nonce: Option<&Secret>) -> Result<Option<String>, &'static str> {
    let claims = tokens.id_token.as_ref().and_then(claims);
    if let (Some(claims), Some(nonce)) = (&claims, nonce) {
        let received = claims.get("nonce").and_then(Value::as_str).map(Secret::new);
        if received.is_some_and(|received| !received.ct_eq(nonce)) {
            return Err("the ID token was made for another request (its nonce differs); begin again");
        }
    }
    Ok(claims.as_ref().and_then(name).or_else(|| name(&tokens.extra)))
}

fn claims(id_token: &Secret) -> Option<Map<String, Value>> {
    let payload = id_token.expose().split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}
