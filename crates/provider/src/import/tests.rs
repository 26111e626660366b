#![allow(clippy::unwrap_used, reason = "tests")]

use keyholder_oauth::{Client, Grant, Moment, TokenEndpoint, token_request};
use serde_json::{Value, json};

use super::*;
use crate::{AskedOf, Catalogue, Choice, Rendered};

fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
fn one(format: Format, text: &str, pairs: &[(&str, &str)]) -> Imported {
    let mut all = import(format, text, &given(pairs)).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn a_secret_that_is_there_twice() {
    let command = "curl https://a.example/t -d grant_type=client_credentials -d client_id=i -d api_key=x -d api_key=y";
    let imported = one(Format::Curl, command, &[]);
    assert!(imported.notes.iter().any(|note| note.field == "api_key" && note.reason.contains("twice")));
    assert_eq!(rendered(&imported).token.params.value("api_key"), Some("x"));
}

#[test]
fn braces_that_would_be_a_placeholder() {
    let command = r#"curl https://a.example/t -d grant_type=client_credentials -d client_id=i -d 'claims={"a":{"b":"c"}}' -d audience=x"#;
    let imported = one(Format::Curl, command, &[]);
    assert!(
        imported.notes.iter().any(|note| note.field == "claims" && note.reason.contains("`}}`")),
        "{:?}",
        imported.notes
    );
    assert_eq!(rendered(&imported).token.params.value("claims"), None);
}

#[track_caller]
fn refused(format: Format, text: &str) -> String {
    import(format, text, &BTreeMap::new()).err().unwrap().to_string()
}

/// What Keyholder would do with it.
#[track_caller]
fn rendered(imported: &Imported) -> Rendered {
    let catalogue = Catalogue::built_in();
    let definition = match &imported.definition() {
        Some(text) => catalogue.parse("imported.toml", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}")),
        None => (*catalogue.definition(&imported.provider()).unwrap()).clone(),
    };
    assert_eq!(definition.id, imported.provider());
    let method = definition.method(Some(imported.grant.as_str())).unwrap();
    definition.check_values(method, AskedOf::Integration, &imported.variables).unwrap();
    let choice = Choice {
        client_auth: imported.client_auth,
        header_prefix: imported.header_prefix.clone(),
        audience: imported.audience.clone(),
        scopes: imported.scopes.clone(),
        client: Some(client(imported)),
        ..Choice::default()
    };
    definition.render(method, &imported.variables, &choice, None).unwrap()
}

fn client(imported: &Imported) -> Client {
    Client { id: imported.client_id.clone(), secret: imported.client_secret.clone(), key: None }
}

#[track_caller]
fn token_bytes(imported: &Imported) -> String {
    bytes(imported, &rendered(imported).token, &Grant::ClientCredentials)
}

#[track_caller]
fn bytes(imported: &Imported, endpoint: &TokenEndpoint, grant: &Grant<'_>) -> String {
    let moment = Moment { now_ms: 1_700_000_000_000, random: [7; 32] };
    let scope = rendered(imported).scope.filter(|_| matches!(grant, Grant::ClientCredentials));
    let request = token_request(endpoint, &client(imported), grant, scope.as_deref(), &moment).unwrap();
    let usual = |name: &str| matches!(name, "accept" | "content-type");
    let headers = request.headers().iter().filter(|(name, _)| !usual(name.as_str()));
    let headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    let body = std::str::from_utf8(request.body().expose()).unwrap();
    format!("{} {}\n{}\n{body}", request.method(), request.uri(), headers.join("\n"))
}

fn fields(imported: &Imported) -> Vec<&str> {
    imported.notes.iter().map(|note| note.field.as_str()).collect()
}

fn postman() -> Value {
    json!({
        "info": {"name": "Acme API", "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"},
        "variable": [{"key": "host", "value": "auth.acme.example"}, {"key": "auth", "value": "https://{{host}}"}, {"key": "off", "value": "x", "disabled": true}],
        "auth": {"type": "oauth2", "oauth2": [
            {"key": "grant_type", "value": "authorization_code_with_pkce", "type": "string"},
            {"key": "authUrl", "value": "{{auth}}/authorize", "type": "string"},
            {"key": "accessTokenUrl", "value": "{{auth}}/token", "type": "string"},
            {"key": "refreshTokenUrl", "value": "{{auth}}/refresh", "type": "string"},
            {"key": "clientId", "value": "the-client", "type": "string"},
            {"key": "clientSecret", "value": "the secret", "type": "string"},
            {"key": "scope", "value": "read  write", "type": "string"},
            {"key": "audience", "value": "https://api.acme.example", "type": "string"},
            {"key": "resource", "value": "urn:acme", "type": "string"},
            {"key": "state", "value": "fixed", "type": "string"},
            {"key": "redirect_uri", "value": "https://oauth.pstmn.io/v1/callback", "type": "string"},
            {"key": "client_authentication", "value": "body", "type": "string"},
            {"key": "challengeAlgorithm", "value": "plain", "type": "string"},
            {"key": "code_verifier", "value": "v", "type": "string"},
            {"key": "headerPrefix", "value": "Token", "type": "string"},
            {"key": "addTokenTo", "value": "header", "type": "string"},
            {"key": "tokenName", "value": "mine", "type": "string"},
            {"key": "useBrowser", "value": true, "type": "boolean"},
            {"key": "accessToken", "value": "tok-en-1", "type": "string"},
            {"key": "newInPostman", "value": "x", "type": "string"},
            {"key": "authRequestParams", "value": [
                {"key": "prompt", "value": "consent", "enabled": true, "send_as": "request_url"},
                {"key": "off", "value": "x", "enabled": false, "send_as": "request_url"},
                {"key": "X-No", "value": "x", "enabled": true, "send_as": "request_header"},
            ], "type": "any"},
            {"key": "tokenRequestParams", "value": [
                {"key": "X-Api-Key", "value": "k-123", "enabled": true, "send_as": "request_header"},
                {"key": "v", "value": "2", "enabled": true, "send_as": "request_url"},
                {"key": "ttl", "value": "9", "enabled": true, "send_as": "request_body"},
            ], "type": "any"},
            {"key": "refreshRequestParams", "value": [
                {"key": "X-R", "value": "1", "enabled": true, "send_as": "request_header"},
                {"key": "rq", "value": "2", "enabled": true, "send_as": "request_url"},
                {"key": "rb", "value": "3", "enabled": true, "send_as": "request_body"},
            ], "type": "any"},
        ]},
        "item": [
            {"name": "Folder", "item": [{"name": "Contacts", "request": {"method": "GET", "url": {"raw": "https://api.acme.example/v1/contacts"}}}]},
            {"name": "Open", "request": {"auth": {"type": "noauth"}, "method": "GET", "url": "https://status.acme.example/"}},
        ],
    })
}

#[test]
fn every_field_that_postman_writes() {
    let imported = one(Format::Postman, &postman().to_string(), &[]);
    assert_eq!((imported.name.as_str(), imported.provider().as_str()), ("Acme API", "imported-acme-api"));
    assert_eq!(imported.grant, GrantKind::AuthorizationCode);
    assert_eq!(
        (imported.client_id.as_str(), imported.client_secret.as_ref().unwrap().expose()),
        ("the-client", "the secret")
    );
    assert_eq!(imported.client_auth, Some(ClientAuth::Post));
    assert_eq!(imported.header_prefix.as_deref(), Some("Token"));
    assert_eq!(imported.scopes, ["read", "write"]);
    assert_eq!(imported.variables["api_base_url"], "https://api.acme.example");
    let text = imported.definition().unwrap();
    assert!(!text.contains("k-123"), "a secret stands in the definition: {text}");
    let rendered = rendered(&imported);
    let authorize = rendered.authorize.as_ref().unwrap();
    assert_eq!(authorize.url.as_str(), "https://auth.acme.example/authorize");
    let params: Vec<_> = authorize.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(params, ["audience=https://api.acme.example", "prompt=consent", "resource=urn:acme"]);
    assert_eq!(
        token_bytes(&imported),
        "POST https://auth.acme.example/token?v=2\nx-api-key: k-123\ngrant_type=client_credentials&scope=read+write&audience=https%3A%2F%2Fapi.acme.example&resource=urn%3Aacme&ttl=9&client_id=the-client&client_secret=the+secret"
    );
    assert_eq!(
        bytes(&imported, &rendered.refresh, &Grant::RefreshToken { refresh_token: &Secret::new("r") }),
        "POST https://auth.acme.example/refresh?rq=2\nx-api-key: k-123\nx-r: 1\ngrant_type=refresh_token&refresh_token=r&rb=3&client_id=the-client&client_secret=the+secret",
        "with the token request's headers too"
    );
    assert_eq!(
        fields(&imported),
        ["access_token", "challengeAlgorithm", "code_verifier", "newInPostman", "redirect_uri", "state", "X-No"]
    );
    assert!(imported.notes.iter().all(|note| !format!("{note:?}").contains("tok-en-1")));
}

#[test]
fn what_the_built_in_definition_can_say_needs_no_other() {
    let mut file = postman();
    let keep = ["grant_type", "authUrl", "accessTokenUrl", "clientId", "scope"];
    file["auth"]["oauth2"].as_array_mut().unwrap().retain(|one| keep.contains(&one["key"].as_str().unwrap()));
    let imported = one(Format::Postman, &file.to_string(), &[]);
    assert_eq!((imported.definition().as_deref(), imported.provider().as_str()), (None, "oauth2"));
    // Without a secret it is a public client, and that is said.
    assert_eq!(imported.client_auth, Some(ClientAuth::None));
    assert_eq!(fields(&imported), ["client_secret"]);
    rendered(&imported);
    assert_eq!(
        token_bytes(&imported),
        "POST https://auth.acme.example/token\n\ngrant_type=client_credentials&scope=read+write&client_id=the-client"
    );
}

#[test]
fn requests_with_settings_of_their_own() {
    let own = |grant: &str, id: &str| json!({"type": "oauth2", "oauth2": {"grant_type": grant, "accessTokenUrl": "https://a.example/token", "clientId": id, "clientSecret": "{{secret}}", "username": "u", "password": "p", "addTokenTo": "queryParams"}});
    let file = json!({"info": {"name": "x"}, "item": [
        {"name": "one", "request": {"auth": own("client_credentials", "c"), "url": "https://api.example/a"}},
        {"name": "two", "request": {"auth": own("client_credentials", "c"), "url": "https://api.example/b"}},
        {"name": "three", "request": {"auth": own("password_credentials", "c"), "url": "https://api.example/c"}},
        {"name": "four", "request": {"auth": {"type": "basic"}, "url": "https://api.example/d"}},
    ]});
    let all = import(Format::Postman, &file.to_string(), &given(&[("secret", "s")])).unwrap();
    let names: Vec<_> = all.iter().map(|one| (one.name.clone(), one.grant, one.provider())).collect();
    assert_eq!(
        names,
        [
            ("one".to_owned(), GrantKind::ClientCredentials, "imported-one".to_owned()),
            ("three".to_owned(), GrantKind::Password, "imported-three".to_owned())
        ]
    );
    assert_eq!(
        (all[0].username.as_deref(), all[1].username.as_deref(), all[1].password.as_ref().unwrap().expose()),
        (None, Some("u"), "p")
    );
    assert!(rendered(&all[0]).api.header().is_none(), "the token goes into the query");
    assert!(token_bytes(&all[0]).contains("authorization: Basic Yzpz"));
    // Without a value for the placeholder the secret is missing, and that is said.
    let all = import(Format::Postman, &file.to_string(), &BTreeMap::new()).unwrap();
    assert!(all[0].client_secret.is_none());
    assert_eq!(
        all[0].notes[0].to_owned(),
        Note {
            field: "clientSecret".into(),
            reason: "it uses `secret`, which the file gives no value for".into(),
            remedy: "give one with --set secret=VALUE, or the environment with --env FILE".into()
        }
    );
}

#[test]
fn what_stands_in_the_query_of_an_address_is_a_parameter() {
    let file = json!({"info": {"name": "x"}, "auth": {"type": "oauth2", "oauth2": {
        "grant_type": "client_credentials", "accessTokenUrl": "https://a.example/token?v=1&api_key=k-1", "clientId": "c", "clientSecret": "s", "client_authentication": "body",
    }}});
    let imported = one(Format::Postman, &file.to_string(), &[]);
    assert_eq!(imported.variables["token_url"], "https://a.example/token");
    assert!(!imported.definition().unwrap().contains("k-1"), "a secret stands in the definition");
    let body = "grant_type=client_credentials&client_id=c&client_secret=s";
    assert_eq!(token_bytes(&imported), format!("POST https://a.example/token?api_key=k-1&v=1\n\n{body}"));
    let refresh = rendered(&imported).refresh;
    let sent = bytes(&imported, &refresh, &Grant::RefreshToken { refresh_token: &Secret::new("r") });
    assert!(sent.starts_with("POST https://a.example/token?api_key=k-1&v=1\n"), "{sent}");
    // A value that grows by naming others is not followed.
    let huge = format!("curl https://a.example/{} -d grant_type=client_credentials", "{{a}}".repeat(2000));
    let long = "x".repeat(60_000);
    assert!(import(Format::Curl, &huge, &given(&[("a", &long)])).err().unwrap().to_string().contains("`a`"));
}

#[test]
fn an_environment_of_postman() {
    let text = json!({"name": "prod", "values": [{"key": "a", "value": "1", "enabled": true}, {"key": "b", "value": "2", "enabled": false}]}).to_string();
    assert_eq!(environment(Format::Postman, &text).unwrap(), given(&[("a", "1")]));
    assert!(environment(Format::Postman, "{}").is_err());
}

const BRU: &str = "meta {
  name: Orders
  type: http
}

get {
  url: {{host}}/orders
  body: json
  auth: oauth2
}

auth:oauth2 {
  grant_type: authorization_code
  callback_url: https://app.example/callback
  authorization_url: {{host}}/authorize
  access_token_url: {{host}}/token
  refresh_token_url:
  client_id: {{process.env.ID}}
  client_secret: hush
  scope: orders.read
  state: s
  pkce: true
  credentials_placement: basic_auth_header
  credentials_id: credentials
  token_placement: url
  token_query_key: auth_token
  auto_fetch_token: true
  auto_refresh_token: false
}

auth:oauth2:additional_params:auth_req:queryparams {
  prompt: login
  ~off: x
}

auth:oauth2:additional_params:access_token_req:headers {
  X-T: 1
}

auth:oauth2:additional_params:access_token_req:body {
  b: '''
    one
  '''
}

auth:oauth2:additional_params:refresh_token_req:body {
  again: yes
}

body:json {
  {
    \"auth:oauth2 {\": \"}\"
  }
}

vars:pre-request {
  host: https://acme.example
}
";

#[test]
fn a_file_of_bruno() {
    let imported = one(Format::Bruno, BRU, &[("ID", "id-1")]);
    assert_eq!((imported.name.as_str(), imported.client_id.as_str()), ("Orders", "id-1"));
    assert_eq!(
        token_bytes(&imported),
        "POST https://acme.example/token\nauthorization: Basic aWQtMTpodXNo\nx-t: 1\ngrant_type=client_credentials&scope=orders.read&b=one"
    );
    let rendered = rendered(&imported);
    assert_eq!(
        rendered.refresh.params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        ["again=yes"]
    );
    assert_eq!(imported.variables["api_base_url"], "https://acme.example");
    assert!(imported.definition().unwrap().contains("auth_token"));
    assert_eq!(
        environment(Format::Bruno, "vars {\n  host: https://b.example\n  ~off: x\n}\n").unwrap(),
        given(&[("host", "https://b.example")])
    );
}

#[test]
fn a_collection_of_bruno() {
    let file = json!({"name": "Acme", "version": "1", "items": [
        {"type": "folder", "name": "F", "items": [{"type": "http", "name": "R", "request": {"url": "{{host}}/x", "auth": {"mode": "inherit"}}}]},
    ], "environments": [{"name": "only", "variables": [{"name": "host", "value": "https://acme.example", "enabled": true, "secret": false}]}],
    "root": {"request": {"auth": {"mode": "oauth2", "oauth2": {"grantType": "client_credentials", "accessTokenUrl": "{{host}}/token", "clientId": "c", "clientSecret": "s", "credentialsPlacement": "body",
        "additionalParameters": {"token": [{"name": "q", "value": "1", "enabled": true, "sendIn": "queryparams"}, {"name": "o", "value": "1", "enabled": false, "sendIn": "body"}]}}}}}});
    let imported = one(Format::Bruno, &file.to_string(), &[]);
    assert_eq!(
        token_bytes(&imported),
        "POST https://acme.example/token?q=1\n\ngrant_type=client_credentials&client_id=c&client_secret=s"
    );
    assert_eq!(imported.variables["api_base_url"], "https://acme.example");
}

#[test]
fn exports_of_insomnia() {
    let auth = json!({"type": "oauth2", "grantType": "client_credentials", "accessTokenUrl": "{{ _.host.auth }}/token", "clientId": "c", "clientSecret": "s", "audience": "aud", "credentialsInBody": true, "tokenPrefix": "JWT", "usePkce": true, "state": ""});
    let four = json!({"_type": "export", "__export_format": 4, "resources": [
        {"_id": "wrk_1", "_type": "workspace", "name": "w"},
        {"_id": "env_1", "_type": "environment", "parentId": "wrk_1", "data": {"host": {"auth": "https://acme.example"}}},
        {"_id": "req_1", "_type": "request", "name": "Pets", "url": "https://api.acme.example/pets", "authentication": auth},
    ]});
    let five = "type: collection.insomnia.rest/5.0\nname: w\ncollection:\n  - name: Folder\n    children:\n      - name: Pets\n        url: \"https://api.acme.example/pets\"\n        authentication:\n          type: oauth2\n          grantType: client_credentials\n          accessTokenUrl: \"{{ _.host.auth }}/token\"\n          clientId: c\n          clientSecret: s\n          audience: aud\n          credentialsInBody: true\n          tokenPrefix: JWT\nenvironments:\n  name: Base\n  data:\n    host:\n      auth: https://acme.example\n";
    for text in [four.to_string(), five.to_owned()] {
        let imported = one(Format::Insomnia, &text, &[]);
        assert_eq!((imported.name.as_str(), imported.header_prefix.as_deref()), ("Pets", Some("JWT")));
        assert_eq!(
            token_bytes(&imported),
            "POST https://acme.example/token\n\ngrant_type=client_credentials&audience=aud&client_id=c&client_secret=s"
        );
        assert_eq!(imported.variables["api_base_url"], "https://api.acme.example");
    }
}

#[test]
fn commands() {
    let table = [
        (
            "curl -X POST https://a.example/token -u 'id:se cret' -d grant_type=client_credentials -d 'scope=a b'",
            "POST https://a.example/token\nauthorization: Basic aWQ6c2UrY3JldA==\ngrant_type=client_credentials&scope=a+b",
        ),
        (
            "$ curl --location 'https://a.example/token?v=1' \\\n  --header 'Content-Type: application/x-www-form-urlencoded' \\\n  --header 'X-Tenant: t1' --data-urlencode 'grant_type=client_credentials' --data-urlencode 'client_id=id' --data-urlencode 'client_secret=s&s' --data-urlencode 'account_id=7'",
            "POST https://a.example/token?v=1\nx-tenant: t1\ngrant_type=client_credentials&account_id=7&client_id=id&client_secret=s%26s",
        ),
        (
            "curl https://a.example/token --json '{\"grant_type\": \"client_credentials\", \"client_id\": \"id\", \"client_secret\": \"s\", \"audience\": \"x\"}'",
            "POST https://a.example/token\n\n{\"grant_type\":\"client_credentials\",\"audience\":\"x\",\"client_id\":\"id\",\"client_secret\":\"s\"}",
        ),
        (
            "curl -H\"Authorization: Basic aWQ6cw==\" \"$HOST/token\" -dgrant_type=client_credentials | jq .",
            "POST https://b.example/token\nauthorization: Basic aWQ6cw==\ngrant_type=client_credentials",
        ),
        (
            "curl 'https://a.example/token?grant_type=client_credentials&client_id=id&client_secret=s'",
            "GET https://a.example/token?grant_type=client_credentials&client_id=id&client_secret=s\n\n",
        ),
    ];
    for (command, bytes) in table {
        assert_eq!(token_bytes(&one(Format::Curl, command, &[("HOST", "https://b.example")])), bytes, "{command}");
    }
    let code = "curl https://a.example/token -d grant_type=authorization_code -d code=c -d redirect_uri=https://x -d client_id=id -d client_secret=s";
    assert_eq!(
        refused(Format::Curl, code),
        "authorization_url: the file has none; give one with --set authorization_url=URL"
    );
    let imported = one(Format::Curl, code, &[("authorization_url", "https://a.example/authorize")]);
    assert_eq!((imported.grant, fields(&imported)), (GrantKind::AuthorizationCode, vec!["redirect_uri"]));
}

#[test]
fn what_cannot_be_read_is_said() {
    let table = [
        (Format::Postman, "", "file: it is not a Postman collection: broken JSON at line 1, column 0; export it again"),
        (
            Format::Postman,
            "[]",
            "file: it is not a Postman collection; in Postman, choose Export and the format Collection v2.1",
        ),
        (
            Format::Postman,
            "{\"info\": {}, \"item\": []}",
            "file: it has no OAuth 2.0 settings; choose the file whose collection, folder or request has the authorization type OAuth 2.0",
        ),
        (
            Format::Postman,
            "{\"info\": {}, \"auth\": {\"type\": \"oauth2\", \"oauth2\": \"hush\"}}",
            "token_url: the file has none; give one with --set token_url=URL",
        ),
        (
            Format::Postman,
            "{\"info\": {}, \"auth\": {\"type\": \"oauth2\", \"oauth2\": {\"accessTokenUrl\": \"{{a}}\"}}, \"variable\": [{\"key\": \"a\", \"value\": \"{{b}}\"}, {\"key\": \"b\", \"value\": \"{{a}}{{a}}\"}]}",
            "token_url: it uses `a`, which the file gives no value for; give one with --set a=VALUE, or the environment with --env FILE",
        ),
        (
            Format::Postman,
            "{\"info\": {}, \"auth\": {\"type\": \"oauth2\", \"oauth2\": {\"grant_type\": \"magic\"}}}",
            "grant_type: `magic` can't be imported; write a definition with that grant; docs/provider-language.md tells how",
        ),
        (
            Format::Bruno,
            "hello",
            "file: it is not a .bru file; choose a .bru file, or export the collection from Bruno as JSON",
        ),
        (
            Format::Bruno,
            "auth:oauth2 {\n  grant_type: password",
            "file: the block that line 1 opens has no end; close it with a `}` at the beginning of a line",
        ),
        (
            Format::Insomnia,
            "a: &x [1]\nb: *x",
            "file: line 2: it repeats a part of itself by name, which no export does; export it again",
        ),
        (Format::Insomnia, "a: [", "file: line 2: it is not YAML; export it again"),
        (Format::Insomnia, "", "file: line 1: it is empty; export it again"),
        (
            Format::Insomnia,
            "name: x",
            "file: it is not an export of Insomnia's; export the collection as Insomnia v5, or as Insomnia v4 (JSON)",
        ),
        (Format::Curl, "wget https://a.example", "command: it is no curl command; begin it with `curl`"),
        (Format::Curl, "curl -d 'x", "command: a quotation mark is not closed; copy the whole command"),
        (Format::Curl, "curl -u", "-u: it has no value; write the command as it was run"),
        (
            Format::Curl,
            "curl https://a.example/token -d @file",
            "-d: the body is in a file, which is not read here; write its content into the command",
        ),
        (Format::Curl, "curl -d a=b", "command: it has no address; write the token endpoint's URL"),
    ];
    for (format, text, expected) in table {
        assert_eq!(refused(format, text), expected, "{text}");
    }
    assert!(refused(Format::Postman, &" ".repeat(MAX_FILE + 1)).starts_with("file: it is longer than"));
    assert!(refused(Format::Postman, &"[".repeat(100_000)).contains("broken JSON"));
    for deep in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "a: {".to_owned() + &"a: {".repeat(100_000),
        "a:\n".to_owned() + &(1..500).map(|n| " ".repeat(n) + "a:\n").collect::<String>(),
    ] {
        let why = refused(Format::Insomnia, &deep);
        assert!(why.contains("nested too deeply") || why.contains("not YAML"), "{why}");
    }
}

/// A value that is no address of ours must not become one.
#[test]
fn addresses_are_checked_as_those_that_are_typed() {
    let command = "curl http://plain.example/token -d grant_type=client_credentials -d client_id=a -d client_secret=b";
    let imported = one(Format::Curl, command, &[]);
    let catalogue = Catalogue::built_in();
    let definition = catalogue.definition(&imported.provider()).unwrap();
    let method = definition.method(Some("client_credentials")).unwrap();
    assert!(definition.check_values(method, AskedOf::Integration, &imported.variables).is_err());
}

proptest::proptest! {
    #[test]
    fn nothing_panics(text in "(curl )?[-'\"$\\\\{}a-z:=@ \n%&?/.]{0,80}", name in "\\PC{0,20}", value in "\\PC{0,40}") {
        for format in [Format::Postman, Format::Bruno, Format::Insomnia, Format::Curl] {
            let _ = import(format, &text, &BTreeMap::new());
            let _ = environment(format, &text);
        }
        let phase = |key: &str| json!({"key": key, "value": [{"key": name, "value": value, "send_as": "request_body"}, {"key": name, "value": value, "send_as": "request_url"}, {"key": name, "value": value, "send_as": "request_header"}]});
        let file = json!({"info": {"name": name}, "auth": {"type": "oauth2", "oauth2": [
            {"key": "authUrl", "value": "https://a.example/a"}, {"key": "accessTokenUrl", "value": "https://a.example/t"}, {"key": "clientId", "value": "c"}, {"key": "resource", "value": value},
            phase("authRequestParams"), phase("tokenRequestParams"), phase("refreshRequestParams"),
        ]}});
        // Whatever was found is a definition that can be read.
        for imported in import(Format::Postman, &file.to_string(), &BTreeMap::new()).unwrap_or_default() {
            if let Some(text) = &imported.definition() {
                let catalogue = Catalogue::built_in();
                proptest::prop_assert!(catalogue.parse("imported.toml", text).is_ok(), "{text}\n{:?}", catalogue.parse("imported.toml", text).err());
            }
        }
    }
}
