//! A first definition out of a discovery document, for a person to complete.

use std::fmt::Write as _;

use keyholder_oauth::Metadata;
use url::Url;

use crate::definition::GrantKind;
use crate::template::UrlTemplate;

/// How many scopes of the document are written; some servers list hundreds.
const MAX_SCOPES: usize = 40;

/// Writes a definition in TOML for the server that a discovery document describes. [`crate::parse`] accepts it.
///
/// Endpoints that credentials must not be sent to, such as plain http ones, are left out. Characters of `id` that an id may
/// not have become `-`.
pub fn draft(metadata: &Metadata, id: &str) -> String {
    let id = plain_id(id);
    let mut out = format!(
        "# Drafted from the server's discovery document. Check each fact, then write `checked` and `source`.\nschema = 1\nid = {}\nname = {}\n",
        quote(&id),
        quote(&id)
    );
    for grant in grants(metadata) {
        let _ = write!(out, "\n[[methods]]\ngrant = {}\n", quote(grant.as_str()));
    }
    scopes(&mut out, metadata);
    let issuer =
        Some(&metadata.issuer).filter(|issuer| !issuer.contains(['{', '}']) && UrlTemplate::parse(issuer).is_ok());
    if let Some(issuer) = issuer {
        let _ = write!(
            out,
            "\n# Endpoints that are not given below are taken from the discovery document.\n[discover]\nissuer = {}\n",
            quote(issuer)
        );
    }
    // A definition must say where tokens come from, even if the document could not.
    let fallback = issuer.is_none().then_some("https://server.invalid/");
    if grants(metadata).contains(&GrantKind::AuthorizationCode) {
        out.push_str("\n[authorize]\n");
        endpoint(&mut out, metadata.authorization_endpoint.as_ref(), fallback);
        out.push_str(match &metadata.code_challenge_methods_supported {
            Some(methods) if methods.iter().any(|method| method == "S256") => {
                "# The document lists S256.\npkce = \"offered\"\n"
            }
            _ => "# The document does not list S256; servers that do not know it ignore it.\npkce = \"offered\"\n",
        });
        let _ = writeln!(out, "nonce = {}", issuer.is_some());
    }
    out.push_str("\n[token]\n");
    endpoint(&mut out, metadata.token_endpoint.as_ref(), fallback);
    if let Some(client_auth) = client_auth(metadata) {
        let _ = writeln!(out, "client_auth = {}", quote(client_auth));
    }
    out.push_str("\n[refresh]\n# What happens to a refresh token whose reply was lost is not in a discovery document; this is the careful assumption.\nrecovery = \"single_use\"\n");
    if let Some(url) = metadata.revocation_endpoint.as_ref().and_then(usable) {
        let _ = write!(out, "\n[revoke]\nurl = {}\n", quote(&url));
    }
    out.push_str("\n[api]\n# base_url = \"https://api.example.com\"\n");
    out
}

/// RFC 8414 §2: a document without the list means authorization_code and implicit.
fn grants(metadata: &Metadata) -> Vec<GrantKind> {
    let all = [GrantKind::AuthorizationCode, GrantKind::ClientCredentials, GrantKind::Password];
    let listed = |grant: &GrantKind| {
        metadata.grant_types_supported.as_ref().is_some_and(|types| types.iter().any(|name| name == grant.as_str()))
    };
    let grants: Vec<_> = all.into_iter().filter(listed).collect();
    if grants.is_empty() { vec![GrantKind::AuthorizationCode] } else { grants }
}

fn scopes(out: &mut String, metadata: &Metadata) {
    let Some(supported) = &metadata.scopes_supported else {
        return;
    };
    out.push_str("\n[scopes]\n");
    if supported.iter().any(|scope| scope == "openid") {
        out.push_str("default = [\"openid\"]\n");
    }
    out.push_str("# The document lists:\n");
    for scope in supported.iter().take(MAX_SCOPES) {
        let _ = writeln!(out, "#   {}", quote(scope));
    }
}

fn endpoint(out: &mut String, url: Option<&Url>, fallback: Option<&str>) {
    match (url.and_then(usable), fallback) {
        (Some(url), _) => {
            let _ = writeln!(out, "url = {}", quote(&url));
        }
        (None, Some(fallback)) => {
            let _ = writeln!(
                out,
                "# The document gives no usable address; write the right one.\nurl = {}",
                quote(fallback)
            );
        }
        (None, None) => {}
    }
}

fn client_auth(metadata: &Metadata) -> Option<&'static str> {
    let offered = metadata.token_endpoint_auth_methods_supported.as_ref()?;
    let known = [("client_secret_basic", "basic"), ("client_secret_post", "post"), ("none", "none")];
    known.into_iter().find(|(name, _)| offered.iter().any(|method| method == name)).map(|(_, name)| name)
}

fn plain_id(id: &str) -> String {
    let plain: String =
        id.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() { "draft".to_owned() } else { plain.to_owned() }
}

/// An address as a definition may have it. Braces would be read as placeholders; in a URL they may be written in percent.
fn usable(url: &Url) -> Option<String> {
    let text = url.as_str().replace('{', "%7B").replace('}', "%7D");
    UrlTemplate::parse(&text).is_ok().then_some(text)
}

/// A basic string of TOML, on one line whatever the text holds.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Choice, Values, parse};

    fn metadata(document: serde_json::Value) -> Metadata {
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_draft_is_a_definition() {
        let document = metadata(serde_json::json!({
            "issuer": "https://id.example/realms/a",
            "authorization_endpoint": "https://id.example/auth?x={{y}}",
            "token_endpoint": "https://id.example/token",
            "revocation_endpoint": "https://id.example/revoke",
            "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "grant_types_supported": ["client_credentials", "authorization_code", "implicit"],
            "scopes_supported": ["openid", "a\"b", "c\nd"],
        }));
        let definition = parse("draft.toml", &draft(&document, "ID Example!")).unwrap();
        assert_eq!(definition.id, "id-example");
        let names: Vec<_> = definition.methods.iter().map(|method| method.name.as_str()).collect();
        assert_eq!(names, ["authorization_code", "client_credentials"]);
        let rendered =
            definition.render(definition.method(None).unwrap(), &Values::new(), &Choice::default(), None).unwrap();
        assert_eq!(rendered.token.url.as_str(), "https://id.example/token");
        assert_eq!(rendered.token.client_auth, keyholder_oauth::ClientAuth::Post);
        assert_eq!(rendered.revoke.unwrap().endpoint.url.as_str(), "https://id.example/revoke");
        assert_eq!(rendered.requested_scopes, ["openid"]);
    }

    #[test]
    fn a_server_for_machines() {
        let document = metadata(serde_json::json!({
            "issuer": "https://id.example", "authorization_endpoint": "https://id.example/auth", "token_endpoint": "https://id.example/token",
            "grant_types_supported": ["client_credentials"],
        }));
        let definition = parse("draft.toml", &draft(&document, "id")).unwrap();
        assert_eq!(definition.methods[0].name, "client_credentials");
    }

    #[test]
    fn refused_addresses_are_left_out() {
        let document = metadata(serde_json::json!({
            "issuer": "http://id.example", "authorization_endpoint": "http://id.example/auth", "token_endpoint": "http://id.example/token",
        }));
        let text = draft(&document, "");
        assert!(!text.contains("http://"), "{text}");
        parse("draft.toml", &text).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_the_document_says(id in ".*", issuer in "(https://[a-z]{1,9}\\.example/)?.{0,20}", scope in ".*", endpoint in "https://[a-z]{1,9}\\.example/.{0,20}") {
            let document = metadata(serde_json::json!({
                "issuer": issuer, "authorization_endpoint": endpoint, "token_endpoint": endpoint, "revocation_endpoint": endpoint, "scopes_supported": [scope],
            }));
            let text = draft(&document, &id);
            prop_assert!(parse("draft.toml", &text).is_ok(), "{text}\n{:?}", parse("draft.toml", &text));
        }
    }
}
