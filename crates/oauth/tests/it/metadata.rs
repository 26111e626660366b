//! Discovery documents.

use keyholder_oauth::*;
use serde_json::json;
use url::Url;

#[test]
fn where_documents_are_looked_for() {
    let urls = |issuer: &str| -> Vec<String> {
        discovery_urls(&Url::parse(issuer).unwrap()).iter().map(Url::to_string).collect()
    };
    let root = [
        "https://as.example/.well-known/openid-configuration",
        "https://as.example/.well-known/oauth-authorization-server",
    ];
    assert_eq!(urls("https://as.example"), root);
    assert_eq!(urls("https://as.example/"), root);
    let tenant = [
        "https://as.example:8443/t/1/.well-known/openid-configuration",
        "https://as.example:8443/.well-known/oauth-authorization-server/t/1",
        "https://as.example:8443/.well-known/openid-configuration/t/1",
    ];
    assert_eq!(urls("https://as.example:8443/t/1"), tenant);
    assert_eq!(urls("https://as.example:8443/t/1/?a=b#c"), tenant);
}

#[test]
fn a_pasted_address_gives_its_issuer() {
    let table = [
        (" https://as.example/t/1 ", "https://as.example/t/1"),
        ("https://as.example/", "https://as.example/"),
        ("https://as.example/.well-known/openid-configuration", "https://as.example"),
        ("https://as.example/t/1/.well-known/openid-configuration?p=1", "https://as.example/t/1"),
        ("https://as.example/.well-known/oauth-authorization-server/t/1", "https://as.example/t/1"),
        ("https://as.example/.well-known/oauth-authorization-server/", "https://as.example"),
        (
            "https://as.example/.well-known/openid-configuration.json",
            "https://as.example/.well-known/openid-configuration.json",
        ),
    ];
    for (pasted, issuer) in table {
        assert_eq!(issuer_of(pasted), issuer, "{pasted}");
    }
}

#[test]
fn every_place_to_look_leads_back_to_the_issuer() {
    for issuer in ["https://as.example", "https://as.example/t/1"] {
        for url in discovery_urls(&Url::parse(issuer).unwrap()) {
            assert_eq!(issuer_of(url.as_str()), issuer, "{url}");
        }
    }
}

#[test]
fn a_full_document() {
    let document = json!({
        "issuer": "https://as.example",
        "authorization_endpoint": "https://as.example/a?x=1",
        "token_endpoint": "https://as.example/t",
        "revocation_endpoint": "https://as.example/r",
        "introspection_endpoint": "https://as.example/i",
        "userinfo_endpoint": "https://as.example/u",
        "device_authorization_endpoint": "https://as.example/d",
        "pushed_authorization_request_endpoint": "https://as.example/p",
        "registration_endpoint": "https://as.example/reg",
        "jwks_uri": "https://as.example/k",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid"],
        "grant_types_supported": ["authorization_code"],
        "authorization_response_iss_parameter_supported": true,
    });
    let body = format!("\u{feff}{document}");
    let metadata = read_metadata("https://as.example", 200, body.as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&metadata).unwrap(), document);
    assert_eq!(serde_json::from_value::<Metadata>(document).unwrap(), metadata);
}

#[test]
fn odd_members_are_passed_over() {
    let document = json!({
        "issuer": "https://as.example",
        "authorization_endpoint": "javascript:alert(1)",
        "token_endpoint": 7,
        "revocation_endpoint": "/relative",
        "jwks_uri": null,
        "scopes_supported": "openid profile",
        "grant_types_supported": ["password", 5],
        "authorization_response_iss_parameter_supported": "yes",
        "unknown": {"a": []},
    });
    let metadata = read_metadata("https://as.example", 200, document.to_string().as_bytes()).unwrap();
    assert_eq!(metadata.authorization_endpoint, None);
    assert_eq!(metadata.token_endpoint, None);
    assert_eq!(metadata.revocation_endpoint, None);
    assert_eq!(metadata.scopes_supported, None);
    assert_eq!(metadata.grant_types_supported, Some(vec!["password".to_owned()]));
    assert!(!metadata.authorization_response_iss_parameter_supported);
}

#[test]
fn documents_that_are_refused() {
    let mismatch = |received: &str| DiscoveryError::IssuerMismatch {
        expected: "https://as.example".to_owned(),
        received: received.to_owned(),
    };
    let table = [
        (404, r#"{"issuer":"https://as.example"}"#, DiscoveryError::Status(404)),
        (200, "<html>", DiscoveryError::NotJson),
        (200, "[]", DiscoveryError::NotJson),
        (200, "{}", DiscoveryError::MissingIssuer),
        (200, r#"{"issuer":null}"#, DiscoveryError::MissingIssuer),
        // Auth0 ends its issuer with a slash: not the same issuer (RFC 8414 §3.3), but the text says what to do.
        (200, r#"{"issuer":"https://as.example/"}"#, mismatch("https://as.example/")),
        (200, r#"{"issuer":"https://evil.example"}"#, mismatch("https://evil.example")),
    ];
    for (status, body, error) in table {
        assert_eq!(read_metadata("https://as.example", status, body.as_bytes()), Err(error), "{body}");
    }
    assert!(mismatch("https://as.example/").to_string().ends_with("set the issuer to exactly `https://as.example/`"));
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[test]
fn where_an_apis_document_may_be() {
    let urls = |text: &str| resource_urls(&url(text)).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(urls("https://a.example"), ["https://a.example/.well-known/oauth-protected-resource"]);
    assert_eq!(
        urls("https://a.example/v1/?x#y"),
        [
            "https://a.example/.well-known/oauth-protected-resource/v1",
            "https://a.example/.well-known/oauth-protected-resource"
        ]
    );
    assert_eq!(
        resource_of(&url("https://a.example/.well-known/oauth-protected-resource/v1")).as_str(),
        "https://a.example/v1"
    );
    assert_eq!(resource_of(&url("https://a.example/v1?x")).as_str(), "https://a.example/v1");
    let named = |header: &str| resource_metadata_of(header).map(|url| url.to_string());
    let place = Some("https://a.example/d".to_owned());
    assert_eq!(named("Bearer realm=\"x\", resource_metadata=\"https://a.example/d\", scope=\"a\""), place);
    assert_eq!(named("Bearer resource_metadata=https://a.example/d"), place);
    assert_eq!(named("Bearer resource_metadata=\"javascript:alert(1)\""), None);
    assert_eq!(named("Basic realm=\"x\""), None);
}

#[test]
fn an_apis_document() {
    let read = |api: &str, status: u16, body: &str| read_resource_metadata(&url(api), status, body.as_bytes());
    let body = r#"{"resource": "https://a.example/v1", "authorization_servers": ["https://id.example", 5], "scopes_supported": "odd", "resource_documentation": "javascript:x"}"#;
    let metadata = read("https://a.example/v1", 200, body).unwrap();
    assert_eq!(metadata.authorization_servers.as_deref(), Some(&["https://id.example".to_owned()][..]));
    assert_eq!((metadata.scopes_supported, metadata.resource_documentation), (None, None));
    // What is said of the whole host holds below it; never for another host, or a path that only begins alike.
    read("https://a.example/v1/contacts", 200, body).unwrap();
    for api in [
        "https://a.example/v10",
        "https://a.example/",
        "https://b.example/v1",
        "http://a.example/v1",
        "https://a.example:444/v1",
    ] {
        assert!(matches!(read(api, 200, body), Err(DiscoveryError::ResourceMismatch { .. })), "{api}");
    }
    assert_eq!(read("https://a.example", 404, body), Err(DiscoveryError::Status(404)));
    assert_eq!(read("https://a.example", 200, "<html>"), Err(DiscoveryError::NotJson));
    assert_eq!(read("https://a.example", 200, "{}"), Err(DiscoveryError::MissingResource));
    assert_eq!(read("https://a.example", 200, r#"{"resource": "nothing"}"#), Err(DiscoveryError::MissingResource));
}
