#![allow(clippy::unwrap_used)]

use std::time::Duration;

use keyholder_oauth::{BodyFormat, Client, Grant, Secret, token_request};
use proptest::prelude::*;

use super::*;
use crate::endpoint::host_covers;
use crate::{AskedOf, Catalogue, parse};

/// Tue, 14 Nov 2023 22:13:20 GMT
const AT: Moment = Moment { now_ms: 1_700_000_000_000, random: [7; 32] };

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn built_in(id: &str) -> std::sync::Arc<Definition> {
    Catalogue::built_in().definition(id).unwrap()
}

fn render(id: &str, method: &str, pairs: &[(&str, &str)]) -> Result<Rendered, RenderError> {
    let definition = built_in(id);
    definition.render(definition.method(Some(method))?, &values(pairs), &Choice::default(), None)
}

fn metadata(document: serde_json::Value) -> Metadata {
    serde_json::from_value(document).unwrap()
}

fn example_metadata() -> Metadata {
    metadata(serde_json::json!({
        "issuer": "https://id.example",
        "authorization_endpoint": "https://id.example/auth",
        "token_endpoint": "https://id.example/token",
        "revocation_endpoint": "https://id.example/revoke",
        "device_authorization_endpoint": "https://id.example/device",
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

fn params(params: &Params) -> Vec<(String, String)> {
    params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn every_method_of_the_catalogue_renders() {
    let document = example_metadata();
    for definition in Catalogue::built_in().iter() {
        for method in &definition.methods {
            let mut values: Values =
                definition.variables_of(method).map(|variable| (variable.name.clone(), variable.sample())).collect();
            for asked_of in [AskedOf::Integration, AskedOf::Connection] {
                let asked = definition.variables.iter().filter(|variable| variable.asked_of == asked_of);
                let given = asked
                    .filter_map(|variable| values.get_key_value(&variable.name))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                definition.check_values(method, asked_of, &given).unwrap();
            }
            values.insert("reply.instance_url".to_owned(), "https://acme.my.salesforce.com".to_owned());
            let rendered = definition.render(method, &values, &Choice::default(), Some(&document)).unwrap();
            assert_eq!(rendered.authorize.is_some(), method.grant == GrantKind::AuthorizationCode, "{}", definition.id);
            // Some only know it once they are connected.
            for base_url in rendered.api.base_url.iter() {
                let host = base_url.host_str().unwrap();
                assert!(rendered.api.hosts.iter().any(|known| host_covers(known, host)), "{}", definition.id);
            }
            let client = Client { id: "id".into(), secret: Some(Secret::new("secret")), key: None };
            let scope = rendered.scope.as_deref();
            match token_request(&rendered.token, &client, &Grant::ClientCredentials, scope, &AT) {
                // Keys are no part of a definition.
                Ok(_) | Err(keyholder_oauth::RequestError::MissingKey) => {}
                Err(error) => panic!("{}: {error}", definition.id),
            }
        }
    }
}

#[test]
fn the_catalogue_says_where_its_facts_come_from() {
    for definition in Catalogue::built_in().iter() {
        assert!(!definition.source.is_empty() && definition.docs.is_some(), "{}", definition.id);
        assert!(!(definition.setup.text.is_empty() && definition.setup.steps.is_empty()), "{}", definition.id);
    }
}

#[test]
fn by_hand() {
    let definition = built_in("oauth2");
    let method = definition.method(Some("code")).unwrap();
    let given =
        values(&[("authorization_url", "https://a.example/auth?x=1"), ("token_url", "http://127.0.0.1:9000/token")]);
    let choice = Choice {
        audience: Some("https://api.example".into()),
        scopes: vec!["a b".into(), "c".into(), "a".into()],
        ..Choice::default()
    };
    let rendered = definition.render(method, &given, &choice, None).unwrap();
    let authorize = rendered.authorize.unwrap();
    assert_eq!(authorize.url.as_str(), "https://a.example/auth?x=1");
    assert_eq!(params(&authorize.params), [("audience".to_owned(), "https://api.example".to_owned())]);
    assert_eq!(rendered.refresh.url.as_str(), "http://127.0.0.1:9000/token");
    assert!(rendered.refresh.params.is_empty());
    assert_eq!(rendered.scope.as_deref(), Some("a b c"));
    assert_eq!(rendered.token.client_auth, ClientAuth::Basic);
    assert!(
        rendered.revoke.is_none()
            && rendered.api.base_url.is_none()
            && rendered.api.hosts.is_empty()
            && rendered.issuer.is_none()
    );
    assert_eq!(rendered.api.header(), Some((&http::header::AUTHORIZATION, "Bearer")));
    assert_eq!(rendered.recovery, Recovery::SingleUse);

    let rendered = render(
        "oauth2",
        "client_credentials",
        &[
            ("token_url", "https://a.example/t"),
            ("refresh_url", "https://a.example/r"),
            ("revocation_url", "https://a.example/v"),
            ("api_base_url", "https://API.example/v1"),
        ],
    )
    .unwrap();
    assert!(rendered.authorize.is_none() && rendered.scope.is_none() && rendered.token.params.is_empty());
    assert_eq!(rendered.refresh.url.as_str(), "https://a.example/r");
    assert_eq!(rendered.revoke.unwrap().endpoint.url.as_str(), "https://a.example/v");
    assert_eq!(rendered.api.hosts, ["api.example"]);
}

#[test]
fn an_issuer_keeps_its_spelling() {
    for issuer in ["https://id.example", "https://id.example/", "https://id.example/t1", "https://id.example/t1/"] {
        let text = format!(
            r#"
            schema = 1
            id = "a"
            name = "A"
            methods = [{{ grant = "authorization_code" }}]
            authorize = {{ url = "https://id.example/authorize" }}
            callback = {{ issuer = "{issuer}" }}
            token = {{ url = "https://id.example/token" }}
        "#
        );
        let definition = parse("a.toml", &text).unwrap();
        let method = definition.method(None).unwrap();
        let rendered = definition.render(method, &values(&[]), &Choice::default(), None).unwrap();
        assert_eq!(rendered.issuer.as_deref(), Some(issuer));
    }
}

#[test]
fn a_discovered_endpoint_of_which_nothing_is_said_is_asked_by_post() {
    let text = r#"
        schema = 1
        id = "a"
        name = "A"
        discover = { issuer = "https://id.example" }
        methods = [{ grant = "client_credentials" }]
    "#;
    let definition = parse("a.toml", text).unwrap();
    let method = definition.method(None).unwrap();
    let rendered = definition.render(method, &values(&[]), &Choice::default(), Some(&example_metadata())).unwrap();
    for endpoint in [rendered.token, rendered.refresh, rendered.revoke.unwrap().endpoint] {
        assert_eq!(endpoint.method, http::Method::POST, "{}", endpoint.url);
    }
}

#[test]
fn what_is_missing_is_named() {
    let missing = render("oauth2", "code", &[("token_url", "https://a.example/t")]).unwrap_err();
    assert!(missing.to_string().contains("variable `authorization_url`: it is required"), "{missing}");
    let unknown = render("github", "device", &[]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "provider `github` has no method `device`; use one of: authorization_code, device_code"
    );
    assert!(built_in("github").method(Some("client_credentials")).is_err());
    assert_eq!(built_in("oidc").method(None).unwrap().name, "authorization_code");
}

#[test]
fn by_discovery() {
    let definition = built_in("oidc");
    let method = definition.method(None).unwrap();
    let given = values(&[("issuer", "https://id.example")]);
    let discovery = definition.discovery(method, &given).unwrap().unwrap();
    assert_eq!(discovery.issuer, "https://id.example");
    assert_eq!(discovery.urls[0].as_str(), "https://id.example/.well-known/openid-configuration");
    let pasted = values(&[("issuer", "https://id.example/.well-known/openid-configuration")]);
    assert_eq!(definition.discovery(method, &pasted).unwrap().unwrap(), discovery);
    assert_eq!(
        definition.render(method, &given, &Choice::default(), None).unwrap_err(),
        RenderError::NeedsDiscovery { field: "token.url" }
    );

    let rendered = definition.render(method, &given, &Choice::default(), Some(&example_metadata())).unwrap();
    assert_eq!(rendered.token.client_auth, ClientAuth::Post);
    assert_eq!(rendered.revoke.unwrap().endpoint.client_auth, ClientAuth::Post);
    assert_eq!(rendered.issuer.as_deref(), Some("https://id.example"));
    assert!(rendered.issuer_required && rendered.authorize.as_ref().unwrap().nonce);
    assert_eq!(rendered.requested_scopes, ["openid"]);

    let choice = Choice {
        client_auth: Some(ClientAuth::None),
        scopes: vec!["read".into()],
        header_prefix: Some(String::new()),
        ..Choice::default()
    };
    let rendered = definition.render(method, &given, &choice, Some(&example_metadata())).unwrap();
    assert_eq!(
        (rendered.token.client_auth, rendered.refresh.client_auth, rendered.revoke.unwrap().endpoint.client_auth),
        (ClientAuth::None, ClientAuth::None, ClientAuth::None)
    );
    assert!(!rendered.authorize.unwrap().nonce);
    assert_eq!(rendered.api.header(), Some((&http::header::AUTHORIZATION, "")));

    assert!(built_in("oauth2").discovery(built_in("oauth2").method(None).unwrap(), &Values::new()).unwrap().is_none());
}

#[test]
fn what_a_discovery_document_may_not_say() {
    let definition = built_in("oidc");
    let method = definition.method(Some("client_credentials")).unwrap();
    let given = values(&[("issuer", "https://id.example")]);
    let render = |document| definition.render(method, &given, &Choice::default(), Some(&metadata(document)));
    let http = render(serde_json::json!({"issuer": "https://id.example", "token_endpoint": "http://id.example/token"}))
        .unwrap_err();
    assert!(http.to_string().contains("plain http"), "{http}");
    let nothing = render(serde_json::json!({"issuer": "https://id.example"})).unwrap_err();
    assert_eq!(nothing, RenderError::NoEndpoint { field: "token.url" });
    let token = "https://id.example/token";
    for (offered, expected) in [
        (serde_json::json!(["client_secret_post", "client_secret_basic"]), ClientAuth::Basic),
        (serde_json::json!(["none", "client_secret_post"]), ClientAuth::Post),
        (serde_json::json!(["none"]), ClientAuth::None),
        (serde_json::json!(["private_key_jwt"]), ClientAuth::PrivateKeyJwt),
        (serde_json::json!([]), ClientAuth::Basic),
        (serde_json::Value::Null, ClientAuth::Basic),
    ] {
        let rendered = render(
            serde_json::json!({"issuer": "https://id.example", "token_endpoint": token, "token_endpoint_auth_methods_supported": offered}),
        );
        assert_eq!(rendered.unwrap().token.client_auth, expected);
    }
    let jwt = render(
        serde_json::json!({"issuer": "https://id.example", "token_endpoint": token, "token_endpoint_auth_methods_supported": ["self_signed_tls_client_auth"]}),
    );
    assert_eq!(jwt.unwrap_err(), RenderError::ClientAuth { offered: vec!["self_signed_tls_client_auth".into()] });
}

#[test]
fn a_document_for_many_tenants() {
    let text = r#"
schema = 1
id = "acme"
name = "Acme"
methods = [{ grant = "authorization_code" }]

[variables.tenant]
default = "common"

[discover]
issuer = "https://id.example/{{tenant}}/v2.0"
documents = { "https://id.example/common/v2.0" = "https://id.example/{tenantid}/v2.0" }
"#;
    let definition = parse("acme.toml", text).unwrap();
    let method = definition.method(None).unwrap();
    let common = definition.discovery(method, &Values::new()).unwrap().unwrap();
    assert_eq!(common.issuer, "https://id.example/{tenantid}/v2.0");
    assert_eq!(common.urls[0].as_str(), "https://id.example/common/v2.0/.well-known/openid-configuration");
    let one = definition.discovery(method, &values(&[("tenant", "a1")])).unwrap().unwrap();
    assert_eq!(one.issuer, "https://id.example/a1/v2.0");

    let mut document = example_metadata();
    document.issuer = common.issuer;
    document.authorization_response_iss_parameter_supported = false;
    assert_eq!(definition.render(method, &Values::new(), &Choice::default(), Some(&document)).unwrap().issuer, None);
}

#[test]
fn quirks_of_the_catalogue() {
    let microsoft = render("microsoft", "code", &[]).unwrap();
    assert_eq!(microsoft.token.url.as_str(), "https://login.microsoftonline.com/common/oauth2/v2.0/token");
    assert_eq!(microsoft.scope.as_deref(), Some("openid User.Read offline_access"));
    assert_eq!(microsoft.api.verify.unwrap().path, "/me");
    let microsoft = render("microsoft", "client_credentials", &[("tenant", "contoso.onmicrosoft.com")]).unwrap();
    assert_eq!(
        microsoft.token.url.as_str(),
        "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"
    );
    assert_eq!(microsoft.scope.as_deref(), Some("https://graph.microsoft.com/.default"));
    assert!(microsoft.api.verify.is_none());

    let definition = built_in("slack");
    let choice = Choice { scopes: vec!["chat:write,users:read".into(), "team:read".into()], ..Choice::default() };
    let slack = definition.render(definition.method(None).unwrap(), &Values::new(), &choice, None).unwrap();
    assert_eq!(slack.scope.as_deref(), Some("chat:write,users:read,team:read"));
    assert!(slack.authorize.unwrap().params.is_empty());
    assert!(slack.reply.success.is_some());
    let slack = render("slack", "code", &[("user_scope", "chat:write users:read")]).unwrap();
    assert_eq!(
        params(&slack.authorize.unwrap().params),
        [("user_scope".to_owned(), "chat:write,users:read".to_owned())]
    );

    let notion = render("notion", "code", &[]).unwrap();
    assert_eq!((notion.token.body, notion.token.client_auth), (BodyFormat::Json, ClientAuth::Basic));
    assert_eq!((notion.refresh.body, notion.revoke.unwrap().endpoint.body), (BodyFormat::Json, BodyFormat::Json));
    assert_eq!(notion.api.headers[0].1, "2025-09-03");

    let xero = render("xero", "code", &[]).unwrap();
    assert_eq!(xero.recovery, Recovery::Window(Duration::from_secs(1800)));
    assert!(xero.api.headers.is_empty());

    assert_eq!(render("linkedin", "code", &[]).unwrap().authorize.unwrap().pkce, Pkce::Off);
    assert_eq!(render("google", "code", &[]).unwrap().issuer.as_deref(), Some("https://accounts.google.com"));
    assert_eq!(render("atlassian", "code", &[]).unwrap().scope.as_deref(), Some("read:me offline_access"));
}

#[test]
fn the_api_host_may_come_from_a_listed_host_only() {
    let before = render("salesforce", "code", &[]).unwrap();
    assert_eq!(before.api.base_url, None);
    assert_eq!(before.api.hosts, ["*.salesforce.com", "*.force.com"]);
    assert!(before.api.allows("acme.my.salesforce.com") && !before.api.allows("salesforce.com.evil.example"));
    let after = render("salesforce", "code", &[("reply.instance_url", "https://Acme.my.salesforce.com")]).unwrap();
    assert_eq!(after.api.base_url.unwrap().as_str(), "https://acme.my.salesforce.com/");
    assert_eq!(after.api.hosts, before.api.hosts);
    for (url, reason) in [
        ("https://evil.example", "which `api.hosts` does not list"),
        ("https://salesforce.com.evil.example", "does not list"),
        ("https://evilsalesforce.com", "does not list"),
        ("https://acme.my.salesforce.com@evil.example", "user name"),
        ("http://acme.my.salesforce.com", "plain http"),
        ("https://evil.example\\.salesforce.com", "backslash"),
    ] {
        let error = render("salesforce", "code", &[("reply.instance_url", url)]).unwrap_err().to_string();
        assert!(error.contains(reason), "{url}: {error}");
    }
}

#[test]
fn hosts_cannot_be_injected() {
    let hosts = [
        "evil.example",
        "evil.example/",
        "evil.example/.salesforce.com",
        "evil.example#.salesforce.com",
        "evil.example?.salesforce.com",
        "a@evil.salesforce.com",
        "evil.example%2f.salesforce.com",
        "evil.example\\.salesforce.com",
        "evil\r\n.salesforce.com",
        "a b.salesforce.com",
        "evil.example:443.salesforce.com",
        "ⓔvil.salesforce.com",
        "salesforce.com.",
        ".salesforce.com",
        "-.salesforce.com",
        "a.salesforce.com\n",
    ];
    for host in hosts {
        let error = render("salesforce", "code", &[("host", host)]).unwrap_err();
        assert!(matches!(error, RenderError::Value(_)), "{host:?}: {error}");
        assert!(!error.to_string().contains(host), "the error repeats the value: {error}");
    }
    for url in [
        "http://evil.example/t",
        "https://u:p@a.example/t",
        "https://a.example/t#f",
        "https://a.example\\t",
        "javascript:alert(1)",
        "//a.example",
        "https://",
    ] {
        assert!(matches!(render("oauth2", "password", &[("token_url", url)]), Err(RenderError::Value(_))), "{url}");
    }
}

#[test]
fn values_are_checked_for_whom_they_are_asked() {
    let text = r#"
schema = 1
id = "acme"
name = "Acme"
[[methods]]
grant = "client_credentials"
[variables.tenant_id]
asked_of = "connection"
pattern = "[0-9A-Fa-f-]{36}"
[token]
url = "https://acme.example/token"
[api]
headers = { X-Tenant = "{{tenant_id}}" }
"#;
    let definition = parse("acme.toml", text).unwrap();
    let method = definition.method(None).unwrap();
    let tenant = values(&[("tenant_id", "70784a63-d24b-46a9-a4db-0e70a274b056")]);
    definition.check_values(method, AskedOf::Connection, &tenant).unwrap();
    let errors = definition.check_values(method, AskedOf::Integration, &tenant).unwrap_err();
    assert_eq!(errors[0].to_string(), "variable `tenant_id`: each connection has its own; give it with the connection");
    let errors = definition
        .check_values(method, AskedOf::Connection, &values(&[("tenant_id", "x"), ("reply.x", "y")]))
        .unwrap_err();
    assert_eq!(errors.len(), 2);

    let definition = built_in("oauth2");
    let method = definition.method(Some("client_credentials")).unwrap();
    let errors = definition
        .check_values(method, AskedOf::Integration, &values(&[("nope", "x"), ("api_base_url", "http://a.example")]))
        .unwrap_err();
    let names: Vec<_> = errors.iter().map(|error| error.variable.as_str()).collect();
    assert_eq!(names, ["api_base_url", "nope", "token_url"]);
    // The one of another method is kept, an empty one is none.
    definition
        .check_values(
            method,
            AskedOf::Integration,
            &values(&[
                ("token_url", "https://a.example"),
                ("authorization_url", "https://a.example"),
                ("refresh_url", ""),
            ]),
        )
        .unwrap();
}

#[test]
fn fixed_and_secret_variables() {
    let text = r#"
schema = 1
id = "acme"
name = "Acme"
methods = [{ grant = "client_credentials" }]

[variables.plan]
presence = "fixed"
default = "basic"

[variables.key]
secret = true

[scopes]
parameter = "scopes"

[token]
url = "https://acme.example/{{plan}}/token"
headers = { X-Key = "k {{key}}", X-Aud = "{{audience}}" }
rename = { client_id = "client_key" }
drop = ["grant_type"]
"#;
    let definition = parse("acme.toml", text).unwrap();
    let method = definition.method(None).unwrap();
    let render = |pairs: &[(&str, &str)]| definition.render(method, &values(pairs), &Choice::default(), None);
    let token = render(&[("key", "s")]).unwrap().token;
    assert_eq!(token.url.path(), "/basic/token");
    assert_eq!(token.headers.len(), 1);
    assert!(token.headers[0].1.is_sensitive() && token.headers[0].1 == "k s");
    let renames = [("client_id", Some("client_key")), ("grant_type", None), ("scope", Some("scopes"))];
    assert_eq!(token.renames, renames.map(|(from, to)| (from.to_owned(), to.map(str::to_owned))));
    assert!(render(&[("key", "s"), ("plan", "gold")]).unwrap_err().to_string().contains("fixed by the definition"));
    assert!(render(&[("key", "s\r\nX-Evil: 1")]).unwrap_err().to_string().contains("control character"));
    // Latin-1 aside, HTTP has no letters beyond ASCII; the value is refused or carried, never repaired.
    let bad = Choice { audience: Some("a\nb".into()), ..Choice::default() };
    assert_eq!(
        definition.render(method, &values(&[("key", "s")]), &bad, None).unwrap_err(),
        RenderError::BadHeader { header: "x-aud".into() }
    );
    let bad = Choice { scopes: vec!["a\tb".into()], ..Choice::default() };
    assert_eq!(
        definition.render(method, &values(&[("key", "s")]), &bad, None).unwrap_err(),
        RenderError::BadScope { position: 1 }
    );
}

/// Texts that URL parsers are known to stumble over, and anything else.
fn nasty() -> impl Strategy<Value = String> {
    prop_oneof![
        ".*",
        "[a-zA-Z0-9.-]{0,20}",
        "(https?:)?[/\\\\]{0,2}[a-z@:%#?.0-9]{0,20}",
        "[/@#?\\\\:%.\r\n\t \u{ff0e}\u{3002}\u{2044}a0]{1,12}",
        "[a-z]{1,5}[/@#?\\\\:%.]{1,2}[a-z]{1,5}\\.salesforce\\.com",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_host_never_changes(value in nasty(), audience in nasty(), scope in nasty()) {
        let choice = Choice { audience: Some(audience), scopes: vec![scope], ..Choice::default() };
        for (id, variable, allowed) in [("microsoft", "tenant", "login.microsoftonline.com"), ("salesforce", "host", "*.salesforce.com"), ("slack", "user_scope", "slack.com")] {
            let definition = DEFINITIONS.with(|catalogue| catalogue.definition(id).unwrap());
            for method in &definition.methods {
                let Ok(rendered) = definition.render(method, &values(&[(variable, &value)]), &choice, None) else { continue };
                let authorize = rendered.authorize.map(|authorize| authorize.url);
                for url in authorize.iter().chain([&rendered.token.url, &rendered.refresh.url]) {
                    prop_assert_eq!(url.scheme(), "https");
                    prop_assert!(host_covers(allowed, url.host_str().unwrap()), "{}", url);
                    prop_assert!(url.port().is_none() && url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{}", url);
                    if id == "microsoft" {
                        prop_assert_eq!(url.path_segments().unwrap().count(), 4);
                    }
                }
            }
        }
    }

    #[test]
    fn a_reply_never_widens_the_hosts(value in nasty()) {
        let definition = DEFINITIONS.with(|catalogue| catalogue.definition("salesforce").unwrap());
        if let Ok(rendered) = definition.render(&definition.methods[0], &values(&[("reply.instance_url", &value)]), &Choice::default(), None) {
            prop_assert_eq!(&rendered.api.hosts, &["*.salesforce.com", "*.force.com"]);
            if let Some(url) = rendered.api.base_url {
                prop_assert!(rendered.api.hosts.iter().any(|pattern| host_covers(pattern, url.host_str().unwrap())));
            }
        }
    }
}

thread_local! {
    static DEFINITIONS: Catalogue = Catalogue::built_in();
}

#[test]
fn a_scope_may_bring_parameters_of_its_own() {
    let prompt = |scopes: &[&str]| {
        let definition = Catalogue::built_in().definition("oidc").unwrap();
        let values = Values::from([("issuer".to_owned(), "https://id.example".to_owned())]);
        let choice = Choice { scopes: scopes.iter().map(|s| (*s).to_owned()).collect(), ..Choice::default() };
        let method = definition.method(None).unwrap();
        let document: Metadata = serde_json::from_value(serde_json::json!({"issuer": "https://id.example",
            "authorization_endpoint": "https://id.example/a", "token_endpoint": "https://id.example/t"}))
        .unwrap();
        let rendered = definition.render(method, &values, &choice, Some(&document)).unwrap();
        let authorize = rendered.authorize.unwrap();
        authorize.params.iter().find(|(name, _)| *name == "prompt").map(|(_, value)| value.to_owned())
    };
    assert_eq!(prompt(&["openid", "offline_access"]).as_deref(), Some("consent"));
    assert_eq!(prompt(&["openid"]), None);
}
