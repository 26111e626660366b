//! A first definition out of a discovery document, for a person to complete.

use std::fmt::Write as _;

use keyholder_oauth::{Metadata, ResourceMetadata};
use url::Url;

use crate::definition::GrantKind;
use crate::template::UrlTemplate;

/// How many scopes of the document are written; some servers list hundreds.
const MAX_SCOPES: usize = 40;

/// Writes a definition in TOML for the server that a discovery document describes. [`crate::parse`] accepts it.
///
/// Endpoints that credentials must not be sent to, such as plain http ones, are left out. Characters of `id` that an id may
/// not have become `-`. `api` is what the API says of itself (RFC 9728), if it was asked.
pub fn draft(metadata: &Metadata, api: Option<&ResourceMetadata>, id: &str) -> String {
    let id = plain_id(id);
    let name = api.and_then(|api| api.resource_name.as_deref()).map(str::trim).filter(|name| !name.is_empty());
    let mut out = format!(
        "# Drafted from the server's discovery document. Check each fact, then write `checked` and `source`.\nschema = 1\nid = {}\nname = {}\n",
        quote(&id),
        quote(name.unwrap_or(&id))
    );
    if let Some(docs) = api.and_then(|api| api.resource_documentation.as_ref()).and_then(usable) {
        let _ = writeln!(out, "docs = {}", quote(&docs));
    }
    for grant in grants(metadata) {
        let _ = write!(out, "\n[[methods]]\ngrant = {}\n", quote(grant.as_str()));
    }
    scopes(&mut out, metadata, api);
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
    let resource = api.and_then(|api| usable(&api.resource));
    let indicator = |out: &mut String| {
        if let Some(resource) = &resource {
            // RFC 8707; servers that don't know it ignore it.
            let _ = writeln!(out, "params = {{ resource = {} }}", quote(resource));
        }
    };
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
        indicator(&mut out);
    }
    if let Some(url) = device_url(metadata).filter(|_| grants(metadata).contains(&GrantKind::DeviceCode)) {
        let _ = write!(out, "\n[device]\nurl = {}\n", quote(&url));
        indicator(&mut out);
    }
    out.push_str("\n[token]\n");
    endpoint(&mut out, metadata.token_endpoint.as_ref(), fallback);
    if let Some(client_auth) = client_auth(metadata) {
        let _ = writeln!(out, "client_auth = {}", quote(client_auth));
    }
    indicator(&mut out);
    out.push_str("\n[refresh]\n# What happens to a refresh token whose reply was lost is not in a discovery document; this is the careful assumption.\nrecovery = \"single_use\"\n");
    if let Some(url) = metadata.revocation_endpoint.as_ref().and_then(usable) {
        let _ = write!(out, "\n[revoke]\nurl = {}\n", quote(&url));
    }
    out.push_str("\n[api]\n");
    match &resource {
        Some(resource) => drop(writeln!(out, "base_url = {}", quote(resource))),
        None => out.push_str("# base_url = \"https://api.example.com\"\n"),
    }
    let methods = api.and_then(|api| api.bearer_methods_supported.as_deref()).unwrap_or_default();
    let takes = |place: &str| methods.iter().any(|method| method == place);
    let elsewhere = ["body", "query"].into_iter().find(|place| takes(place));
    if let Some(place) = elsewhere.filter(|_| !takes("header")) {
        let _ = writeln!(out, "token = {{ in = \"{place}\", name = \"access_token\" }}");
    }
    out
}

/// RFC 8414 §2: a document without the list means authorization_code and implicit.
fn grants(metadata: &Metadata) -> Vec<GrantKind> {
    use GrantKind::{AuthorizationCode, ClientCredentials, DeviceCode, Password};
    let listed = |grant: &GrantKind| {
        let types = metadata.grant_types_supported.as_deref().unwrap_or_default();
        types.iter().any(|name| name == grant.grant_type())
    };
    let usable = |grant: &GrantKind| *grant != DeviceCode || device_url(metadata).is_some();
    let all = [AuthorizationCode, ClientCredentials, Password, DeviceCode];
    let grants: Vec<_> = all.into_iter().filter(listed).filter(usable).collect();
    if grants.is_empty() { vec![AuthorizationCode] } else { grants }
}

fn device_url(metadata: &Metadata) -> Option<String> {
    metadata.device_authorization_endpoint.as_ref().and_then(usable)
}

fn scopes(out: &mut String, metadata: &Metadata, api: Option<&ResourceMetadata>) {
    let of_api = api.and_then(|api| api.scopes_supported.as_deref()).unwrap_or_default();
    let of_server = metadata.scopes_supported.as_deref().unwrap_or_default();
    if of_api.is_empty() && of_server.is_empty() {
        return;
    }
    out.push_str("\n[scopes]\n");
    let has = |scope: &&str| of_server.iter().any(|known| known == scope);
    // A list that can't be asked for as it is would make the draft invalid.
    let sound = |scope: &&str| !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic());
    let wanted: Vec<&str> = of_api.iter().map(String::as_str).filter(sound).take(MAX_SCOPES).collect();
    let default: Vec<String> =
        ["openid"].iter().copied().filter(has).chain(wanted.iter().copied()).map(quote).collect();
    if !default.is_empty() {
        let _ = writeln!(out, "default = [{}]", default.join(", "));
    }
    if has(&"offline_access") && !wanted.contains(&"offline_access") {
        out.push_str("# Asks for a refresh token.\nalways = [\"offline_access\"]\n");
    }
    if !of_server.is_empty() {
        out.push_str("# The server's document lists:\n");
    }
    for scope in of_server.iter().take(MAX_SCOPES) {
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
        let definition = parse("draft.toml", &draft(&document, None, "ID Example!")).unwrap();
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
        let definition = parse("draft.toml", &draft(&document, None, "id")).unwrap();
        assert_eq!(definition.methods[0].name, "client_credentials");
    }

    #[test]
    fn a_server_for_devices() {
        let grants = ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"];
        let document = |device: &str| {
            metadata(serde_json::json!({
                "issuer": "https://id.example", "authorization_endpoint": "https://id.example/auth", "token_endpoint": "https://id.example/token",
                "device_authorization_endpoint": device, "grant_types_supported": grants,
            }))
        };
        let methods = |device: &str| {
            let definition = parse("draft.toml", &draft(&document(device), None, "id")).unwrap();
            definition.methods.iter().map(|method| method.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(methods("https://id.example/device"), ["authorization_code", "device_code"]);
        assert_eq!(methods("http://id.example/device"), ["authorization_code"], "codes are not asked for in the clear");
    }

    #[test]
    fn what_the_api_says_of_itself() {
        let document = metadata(serde_json::json!({
            "issuer": "https://id.example", "authorization_endpoint": "https://id.example/auth", "token_endpoint": "https://id.example/token",
            "scopes_supported": ["openid", "offline_access"],
        }));
        let api: ResourceMetadata = serde_json::from_value(serde_json::json!({
            "resource": "https://api.example/v1", "authorization_servers": ["https://id.example"], "scopes_supported": ["read", "bad scope", "openid"],
            "bearer_methods_supported": ["query"], "resource_name": "Example\n", "resource_documentation": "https://docs.example/",
        }))
        .unwrap();
        let definition = parse("draft.toml", &draft(&document, Some(&api), "api-example")).unwrap();
        assert_eq!((definition.name.as_str(), definition.docs.as_deref()), ("Example", Some("https://docs.example/")));
        let rendered =
            definition.render(definition.method(None).unwrap(), &Values::new(), &Choice::default(), None).unwrap();
        assert_eq!(rendered.requested_scopes, ["openid", "read", "offline_access"]);
        assert_eq!(rendered.api.base_url.as_ref().unwrap().as_str(), "https://api.example/v1");
        assert!(rendered.api.header().is_none());
        assert_eq!(rendered.token.params.iter().collect::<Vec<_>>(), [("resource", "https://api.example/v1")]);
        assert_eq!(rendered.authorize.unwrap().params.iter().count(), 1);
    }

    #[test]
    fn refused_addresses_are_left_out() {
        let document = metadata(serde_json::json!({
            "issuer": "http://id.example", "authorization_endpoint": "http://id.example/auth", "token_endpoint": "http://id.example/token",
        }));
        let text = draft(&document, None, "");
        assert!(!text.contains("http://"), "{text}");
        parse("draft.toml", &text).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_the_document_says(id in ".*", issuer in "(https://[a-z]{1,9}\\.example/)?.{0,20}", scope in ".*", endpoint in "https://[a-z]{1,9}\\.example/.{0,20}") {
            let document = metadata(serde_json::json!({
                "issuer": issuer, "authorization_endpoint": endpoint, "token_endpoint": endpoint, "revocation_endpoint": endpoint, "scopes_supported": [scope],
            }));
            let text = draft(&document, None, &id);
            prop_assert!(parse("draft.toml", &text).is_ok(), "{text}\n{:?}", parse("draft.toml", &text));
        }
    }
}
