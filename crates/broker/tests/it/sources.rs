//! Data sources: what they are made of, what they refuse, and how they are called.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Response};
use http_body_util::BodyExt;
use keyholder_broker::model::{
    AllowRule, Behind, Caller, Expect, Limits, SavedRequest, Scope, SourceSpec, SourceVariable, Status, ValueKind,
};
use keyholder_broker::{
    Authorize, Cause, Error, NewConnection, NewIntegration, NewSource, Page, Preview, ProxyRequest, Result, RunReply,
    SourceEdit, SourceRun, TestWish, Tried, VariableEdit, Wanted,
};
use serde_json::{Value, json};

use crate::app::{App, values};
use crate::fake::Fake;

fn named<T>(name: &str) -> Option<Wanted<T>> {
    Some(Wanted::Named(name.to_owned()))
}

fn get(path: &str) -> SavedRequest {
    SavedRequest { path: path.to_owned(), ..SavedRequest::default() }
}

fn variable(value: &str) -> SourceVariable {
    SourceVariable { value: Some(value.to_owned()), required: true, ..SourceVariable::default() }
}

fn one<T>(name: &str, it: T) -> BTreeMap<String, T> {
    BTreeMap::from([(name.to_owned(), it)])
}

/// A source on the sandbox's API with a request `echo`.
fn echoing(app: &App, spec: SourceSpec) -> NewSource {
    NewSource {
        name: "api".to_owned(),
        base_url: Some(format!("{}/api/echo", app.sandbox.base_url())),
        connection: named("crm"),
        spec,
        ..NewSource::default()
    }
}

fn with_request(request: SavedRequest) -> SourceSpec {
    SourceSpec { requests: one("echo", request), ..SourceSpec::default() }
}

fn given(variables: &[(&str, &str)]) -> SourceRun {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    SourceRun { variables, ..SourceRun::default() }
}

fn text(reply: &RunReply) -> &str {
    match &reply.preview {
        Preview::Text(text) => text,
        Preview::Bytes(_) => panic!("the reply is no text"),
    }
}

impl App {
    async fn run_request(&self, variables: &[(&str, &str)]) -> Result<RunReply> {
        self.broker.run_source(&self.admin, "api", "echo", given(variables)).await
    }

    /// What the sandbox's echo says arrived.
    async fn echo(&self, variables: &[(&str, &str)]) -> Value {
        let reply = self.run_request(variables).await.unwrap();
        assert_eq!((reply.status, reply.expected), (200, true), "{reply:?}");
        serde_json::from_str(text(&reply)).unwrap()
    }

    async fn called_by(&self, caller: &Arc<Caller>, method: Method, path: &str) -> Result<u16> {
        let request = ProxyRequest::new(method, path).unwrap();
        let response = self.broker.proxy_source(caller, "api", request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        Ok(status)
    }

    async fn add_source(&self, new: NewSource) -> Result<()> {
        self.broker.add_source(&self.admin, new).await.map(drop)
    }
}

/// The fields that an error names.
#[track_caller]
fn fields(error: &Error) -> Vec<&str> {
    match error {
        Error::Invalid(errors) => {
            assert!(errors.iter().all(|error| !error.reason.is_empty() && !error.remedy.is_empty()), "{error}");
            errors.iter().map(|error| error.field.as_str()).collect()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_saved_request_is_filled_sent_and_looked_into() {
    let app = App::start().await;
    app.machine("crm").await;
    let request = SavedRequest {
        method: "PUT".to_owned(),
        path: "/contacts/{{id}}/notes?full={{full}}".to_owned(),
        query: values([("q", "{{word}}"), ("none", "{{missing}}")]),
        headers: values([("x-own", "own"), ("x-shared", "mine")]),
        body: Some(json!({"note": "about {{word}}", "count": "{{count}}", "left": "{{missing}}"})),
        extract: Some("$.headers['x-own']".to_owned()),
        expect: Some(Expect { status: vec![200], found: Some("$.path".to_owned()) }),
        ..SavedRequest::default()
    };
    let optional = SourceVariable::default();
    let count =
        SourceVariable { kind: ValueKind::Number, default: Some("1".to_owned()), required: true, ..optional.clone() };
    let secret = SourceVariable { secret: true, ..variable("hush-hush") };
    let spec = SourceSpec {
        headers: values([("x-shared", "theirs"), ("x-key", "{{key}}")]),
        query: values([("page", "{{page}}")]),
        variables: BTreeMap::from([
            ("missing".to_owned(), optional),
            ("count".to_owned(), count),
            ("page".to_owned(), variable("7")),
            ("key".to_owned(), secret),
        ]),
        ..with_request(request)
    };
    app.add_source(echoing(&app, spec)).await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM data_sources WHERE spec LIKE '%hush%'"), 0, "a secret is sealed");

    let nasty = "a/../b?c=1&d#e\"}";
    let reply = app.run_request(&[("id", "4 2"), ("full", "yes"), ("word", nasty), ("count", "-3")]).await.unwrap();
    assert_eq!((reply.status, reply.expected, reply.truncated), (200, true, false));
    assert_eq!((reply.size, &reply.extracted), (Some(text(&reply).len() as u64), &Some(vec![json!("own")])));
    let seen: Value = serde_json::from_str(text(&reply)).unwrap();
    assert_eq!((&seen["method"], &seen["path"]), (&json!("PUT"), &json!("/api/echo/contacts/4%202/notes")));
    let query: Vec<_> = url::form_urlencoded::parse(seen["query"].as_str().unwrap().as_bytes()).collect();
    assert_eq!(query, [("full".into(), "yes".into()), ("q".into(), nasty.into()), ("page".into(), "7".into())]);
    let body: Value = serde_json::from_str(seen["body"]["text"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!({"note": format!("about {nasty}"), "count": -3}));
    let headers = &seen["headers"];
    assert_eq!(
        (&headers["x-shared"], &headers["x-key"], &headers["content-type"]),
        (&json!("mine"), &json!("hush-hush"), &json!("application/json"))
    );
    assert_eq!(seen["authorization"], "Bearer ****", "the token was put in");
    let records = app.broker.audit_records(&app.admin, &Page::first()).await.unwrap();
    assert!(records.iter().any(|record| record.action == "proxy.call"), "a run is a call, and on the record");
}

#[tokio::test]
async fn values_come_from_the_run_then_the_source_then_its_connection() {
    let app = App::start().await;
    app.machine("crm").await;
    let request = SavedRequest { query: values([("t", "{{token_url}}")]), ..get("/x") };
    app.add_source(echoing(&app, with_request(request))).await.unwrap();
    let asked = |seen: &Value| {
        url::form_urlencoded::parse(seen["query"].as_str().unwrap().as_bytes()).next().unwrap().1.into_owned()
    };
    assert_eq!(asked(&app.echo(&[]).await), format!("{}/token", app.sandbox.base_url()), "the integration's");
    let set = SourceEdit {
        variables: one("token_url", Some(VariableEdit::Value("source's".to_owned()))),
        ..SourceEdit::default()
    };
    app.broker.edit_source(&app.admin, "api", set).await.unwrap();
    assert_eq!(asked(&app.echo(&[]).await), "source's");
    assert_eq!(asked(&app.echo(&[("token_url", "run's")]).await), "run's");
    let unset = SourceEdit { variables: one("token_url", None), ..SourceEdit::default() };
    app.broker.edit_source(&app.admin, "api", unset).await.unwrap();
    assert!(asked(&app.echo(&[]).await).ends_with("/token"), "a changed source is read again");
}

#[tokio::test]
async fn a_value_cannot_leave_its_place() {
    let app = App::start().await;
    app.machine("crm").await;
    let request = SavedRequest { headers: values([("x-id", "{{id}}")]), ..get("/a/{{id}}") };
    app.add_source(echoing(&app, with_request(request))).await.unwrap();
    for id in ["..", "../..", "%2e%2e", "a/../../x", "..;x", "\\..\\"] {
        let error = app.run_request(&[("id", id)]).await.unwrap_err();
        assert_eq!(fields(&error), ["path"], "{id}: {error}");
    }
    for id in ["a\r\nx-evil: 1", "a\nb", "a\u{0}"] {
        let error = app.run_request(&[("id", id)]).await.unwrap_err();
        assert_eq!(fields(&error), ["variables.id"], "{error}");
    }
    let error = app.run_request(&[("id", "\u{20ac}"), ("other", "x")]).await.unwrap_err();
    assert_eq!(fields(&error), ["variables.other"], "what no placeholder takes");
    assert_eq!(fields(&app.run_request(&[]).await.unwrap_err()), ["variables.id"], "what is missing");
    let seen = app.echo(&[("id", "x@evil.example:1/?a#b")]).await;
    assert_eq!(seen["path"], "/api/echo/a/x%40evil.example%3A1%2F%3Fa%23b");
}

#[tokio::test]
async fn a_base_url_leads_only_where_the_definition_allows() {
    let app = App::start().await;
    app.machine("crm").await;
    let at = |base: &str| NewSource { base_url: Some(base.to_owned()), ..echoing(&app, SourceSpec::default()) };
    for base in ["https://evil.example/v1", "http://127.0.0.1:1/api", "https://127.0.0.1:8443/"] {
        assert!(matches!(app.add_source(at(base)).await, Err(Error::HostNotAllowed { .. })), "{base}");
    }
    for base in [
        "http://example.com/",
        "ftp://127.0.0.1/",
        "https://a@127.0.0.1/",
        "/api",
        "https://h.example/?a=1",
        "https://h.example/../x",
        "{{x",
    ] {
        assert_eq!(fields(&app.add_source(at(base)).await.unwrap_err()), ["base_url"], "{base}");
    }
    assert_eq!(
        fields(&app.add_source(at("https://{{region}}.example.com/")).await.unwrap_err()),
        ["base_url"],
        "an unknown variable"
    );
    let free = SourceSpec { variables: one("region", variable("eu")), ..SourceSpec::default() };
    let unbound = NewSource { spec: free.clone(), ..at("https://{{region}}.example.com/") };
    let error = app.add_source(unbound).await.unwrap_err();
    assert!(fields(&error) == ["base_url"] && error.to_string().contains("pattern"), "{error}");
    let bound = SourceVariable { pattern: Some("[a-z]+".to_owned()), ..variable("eu") };
    let spec = SourceSpec { variables: one("region", bound), ..SourceSpec::default() };
    let error = app.add_source(NewSource { spec, ..at("https://{{region}}.example.com/") }).await.unwrap_err();
    assert!(matches!(error, Error::HostNotAllowed { host, .. } if host == "eu.example.com"));
    assert_eq!(app.count("SELECT count(*) FROM data_sources"), 0, "nothing is half written");
}

/// The definition's answer may change after the source was made: then the call itself is refused, and nothing leaves.
#[tokio::test]
async fn a_host_that_is_no_longer_allowed_gets_no_token() {
    let app = App::start().await;
    app.machine("crm").await;
    app.add_source(echoing(&app, with_request(get("/x")))).await.unwrap();
    app.echo(&[]).await;
    let mut edit = keyholder_broker::IntegrationEdit::default();
    edit.variables.insert("api_base_url".to_owned(), "https://elsewhere.example/".to_owned());
    app.broker.edit_integration(&app.admin, "client_credentials", edit).await.unwrap();
    let seen = app.seen("api");
    assert!(matches!(app.run_request(&[]).await, Err(Error::HostNotAllowed { .. })));
    assert!(matches!(app.called_by(&app.admin, Method::GET, "/").await, Err(Error::HostNotAllowed { .. })));
    assert_eq!(app.seen("api"), seen);
}

#[tokio::test]
async fn every_mistake_is_named_and_nothing_is_stored() {
    let app = App::start().await;
    app.machine("crm").await;
    type Break = fn(&mut NewSource);
    fn request(new: &mut NewSource, request: SavedRequest) {
        new.spec.requests = one("r", request);
    }
    fn declared(new: &mut NewSource, it: SourceVariable) {
        new.spec.variables = one("v", it);
    }
    let table: [(&str, Break); 34] = [
        ("name", |new| new.name = "a/b".to_owned()),
        ("name", |new| new.name = String::new()),
        ("description", |new| new.description = "a\u{7}".to_owned()),
        ("requests.r.description", |new| {
            request(
                new,
                SavedRequest { description: "x".repeat(10_000), path: "/x".to_owned(), ..SavedRequest::default() },
            )
        }),
        ("connection", |new| new.connection = None),
        ("connection", |new| new.connection = named("nothing")),
        ("integration", |new| new.integration = named("client_credentials")),
        ("headers.bad name", |new| new.spec.headers = values([("bad name", "x")])),
        ("headers.Authorization", |new| new.spec.headers = values([("Authorization", "x")])),
        ("headers.Keyholder-Host", |new| new.spec.headers = values([("Keyholder-Host", "x")])),
        ("headers.x-a", |new| new.spec.headers = values([("x-a", "a\r\nb")])),
        ("headers.x-a", |new| new.spec.headers = values([("x-a", "{{unknown}}")])),
        ("headers.x-a", |new| new.spec.headers = values([("x-a", "{{access_token}}")])),
        ("query.", |new| new.spec.query = values([("", "x")])),
        ("query.a", |new| new.spec.query = values([("a", "{{b")])),
        ("variables.1a", |new| new.spec.variables = one("1a", variable("x"))),
        ("variables.client_secret", |new| new.spec.variables = one("client_secret", variable("x"))),
        ("variables.v.pattern", |new| declared(new, SourceVariable { pattern: Some("(".to_owned()), ..variable("x") })),
        ("variables.v", |new| declared(new, SourceVariable { pattern: Some("\\d+".to_owned()), ..variable("x") })),
        ("variables.v", |new| declared(new, SourceVariable { choices: vec!["a".to_owned()], ..variable("x") })),
        ("variables.v", |new| declared(new, SourceVariable { kind: ValueKind::Number, ..variable("x") })),
        ("variables.v.default", |new| {
            declared(new, SourceVariable { secret: true, default: Some("x".to_owned()), ..variable("x") })
        }),
        ("requests.r.method", |new| request(new, SavedRequest { method: "get".to_owned(), ..get("/x") })),
        ("requests.r.method", |new| request(new, SavedRequest { method: "TRACE".to_owned(), ..get("/x") })),
        ("requests.r.path", |new| request(new, get("x"))),
        ("requests.r.path", |new| request(new, get("/a/../b"))),
        ("requests.r.path", |new| {
            declared(new, SourceVariable { secret: true, ..variable("x") });
            request(new, get("/{{v}}"));
        }),
        ("requests.r.path", |new| {
            new.spec.allow = vec![AllowRule { path: "/other".to_owned(), ..AllowRule::default() }];
            request(new, get("/x"));
        }),
        ("requests.r.body", |new| {
            let json = values([("content-type", "application/json")]);
            request(new, SavedRequest { headers: json, body: Some(json!("{\"a\": {{v}}}")), ..get("/x") });
        }),
        ("requests.r.extract", |new| request(new, SavedRequest { extract: Some("x[".to_owned()), ..get("/x") })),
        ("requests.r.extract", |new| {
            request(new, SavedRequest { extract: Some("$..a..b..c".to_owned()), ..get("/x") })
        }),
        ("requests.r.expect.status", |new| {
            request(new, SavedRequest { expect: Some(Expect { status: vec![99], found: None }), ..get("/x") });
        }),
        ("allow[0].path", |new| new.spec.allow = vec![AllowRule { path: "/a*".to_owned(), ..AllowRule::default() }]),
        ("allow[0].methods", |new| {
            new.spec.allow = vec![AllowRule { methods: ["get".to_owned()].into(), path: "/".to_owned() }];
        }),
    ];
    for (field, spoil) in table {
        let mut new = echoing(&app, SourceSpec::default());
        spoil(&mut new);
        let error = app.add_source(new).await.unwrap_err();
        assert!(fields(&error).contains(&field), "{field}: {error}");
    }
    assert_eq!(app.count("SELECT count(*) FROM data_sources"), 0);
}

#[tokio::test]
async fn all_is_made_in_one_step_or_nothing() {
    let app = App::start().await;
    let integration = NewIntegration { name: "crm integration".to_owned(), ..app.plain("client_credentials") };
    let connection = NewConnection { name: "crm".to_owned(), ..NewConnection::default() };
    let new = NewSource {
        integration: Some(Wanted::New(Box::new(integration.clone()))),
        connection: Some(Wanted::New(Box::new(connection.clone()))),
        ..echoing(&app, with_request(get("/x")))
    };
    let broken = [
        NewSource { base_url: Some("https://evil.example/".to_owned()), ..new.clone() },
        NewSource { spec: with_request(get("x")), ..new.clone() },
        NewSource {
            connection: Some(Wanted::New(Box::new(NewConnection { name: "a/b".to_owned(), ..connection.clone() }))),
            ..new.clone()
        },
        NewSource {
            integration: Some(Wanted::New(Box::new(NewIntegration {
                client_id: String::new(),
                ..integration.clone()
            }))),
            ..new.clone()
        },
        NewSource {
            connection: Some(Wanted::New(Box::new(NewConnection {
                integration: "other".to_owned(),
                ..connection.clone()
            }))),
            ..new.clone()
        },
    ];
    for new in broken {
        app.add_source(new).await.unwrap_err();
    }
    let all = "SELECT (SELECT count(*) FROM integrations) + (SELECT count(*) FROM connections) + (SELECT count(*) FROM data_sources)";
    assert_eq!(app.count(all), 0);

    let made = app.broker.add_source(&app.admin, new.clone()).await.unwrap();
    assert!(matches!(made.authorize, Some(Ok(Authorize::Done(Status::Connected)))));
    assert_eq!(made.source.connection.as_deref(), Some("crm"));
    assert_eq!(made.connection.unwrap().connection.state.status(), Status::Connected);
    app.echo(&[]).await;

    // The last of three names is taken: the first two don't stay behind.
    let rival = NewSource {
        integration: Some(Wanted::New(Box::new(NewIntegration { name: "second".to_owned(), ..integration }))),
        connection: Some(Wanted::New(Box::new(NewConnection { name: "second".to_owned(), ..connection }))),
        ..new
    };
    let error = app.add_source(rival).await.unwrap_err();
    assert!(matches!(error, Error::Taken { what: "data source", .. }), "{error}");
    assert_eq!(app.count(all), 3);
}

#[tokio::test]
async fn what_a_source_stands_on_is_not_removed_under_it() {
    let app = App::start().await;
    app.machine("crm").await;
    app.add_source(echoing(&app, SourceSpec::default())).await.unwrap();
    let error = app.broker.remove_connection(&app.admin, "crm").await.unwrap_err();
    assert!(matches!(error, Error::InUse { what: "connection", .. }), "{error}");
    assert_eq!(
        (app.seen("revoke"), app.status("crm").await),
        (0, Status::Connected),
        "nothing was ended at the provider"
    );
    let own = SourceEdit { integration: Some("client_credentials".to_owned()), ..SourceEdit::default() };
    let edited = app.broker.edit_source(&app.admin, "api", own).await.unwrap();
    assert!(matches!(edited.source.behind, Behind::EachCallers(_)));
    app.broker.remove_connection(&app.admin, "crm").await.unwrap();
    let error = app.broker.remove_integration(&app.admin, "client_credentials").await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    app.broker.remove_source(&app.admin, "api").await.unwrap();
    app.broker.remove_integration(&app.admin, "client_credentials").await.unwrap();
    assert!(matches!(app.broker.source(&app.admin, "api").await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn calls_by_name_get_what_the_source_adds_and_keep_what_is_theirs() {
    let app = App::start().await;
    app.machine("crm").await;
    let spec = SourceSpec {
        headers: values([("x-default", "source"), ("accept", "application/json")]),
        query: values([("limit", "5"), ("page", "1")]),
        ..SourceSpec::default()
    };
    app.add_source(echoing(&app, spec)).await.unwrap();
    let mut request = ProxyRequest::new(Method::GET, "/x?page=2").unwrap();
    request.headers.insert("accept", "text/csv".parse().unwrap());
    request.headers.insert("keyholder-owner", "alice".parse().unwrap());
    let response = app.broker.proxy_source(&app.admin, "api", request).await.unwrap();
    let seen: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&seen["path"], &seen["query"]), (&json!("/api/echo/x"), &json!("page=2&limit=5")));
    let headers = &seen["headers"];
    assert_eq!((&headers["x-default"], &headers["accept"]), (&json!("source"), &json!("text/csv")));
    assert!(headers["keyholder-owner"].is_null(), "it is for Keyholder alone");
    let mut elsewhere = ProxyRequest::new(Method::GET, "/x").unwrap();
    elsewhere.headers.insert("keyholder-host", "127.0.0.1".parse().unwrap());
    let error = app.broker.proxy_source(&app.admin, "api", elsewhere).await.unwrap_err();
    assert_eq!(fields(&error), ["Keyholder-Host"]);
    assert!(app.called_by(&app.admin, Method::GET, "/../me").await.is_err());
}

#[tokio::test]
async fn rules_let_only_their_calls_pass() {
    let app = App::start().await;
    app.machine("crm").await;
    let rule = |methods: &[&str], path: &str| AllowRule {
        methods: methods.iter().map(|it| (*it).to_owned()).collect(),
        path: path.to_owned(),
    };
    let spec =
        SourceSpec { allow: vec![rule(&["GET"], "/contacts/*"), rule(&[], "/open/**")], ..SourceSpec::default() };
    app.add_source(echoing(&app, spec)).await.unwrap();
    for (method, path) in [(Method::GET, "/contacts/1"), (Method::POST, "/open/a/b")] {
        assert_eq!(app.called_by(&app.admin, method, path).await.unwrap(), 200, "{path}");
    }
    let seen = app.seen("api");
    for (method, path) in [
        (Method::POST, "/contacts/1"),
        (Method::GET, "/contacts"),
        (Method::GET, "/contacts/1/notes"),
        (Method::GET, "/contacts/1%2Fnotes"),
        (Method::GET, "//contacts/1"),
        (Method::GET, "/Contacts/1"),
        (Method::GET, "/admin"),
    ] {
        let refused = app.called_by(&app.admin, method, path).await;
        assert!(matches!(refused, Err(Error::NotAllowed { .. })), "{path}");
    }
    assert_eq!(app.seen("api"), seen, "nothing was sent");
}

#[tokio::test]
async fn a_key_for_a_source_reaches_its_connection_through_it_only() {
    let app = App::start().await;
    app.machine("crm").await;
    app.add_source(echoing(&app, with_request(get("/x")))).await.unwrap();
    let scopes = [Scope::Call, Scope::Token, Scope::Read, Scope::Manage];
    let limited = |limits| app.caller("limited", &scopes, limits);
    let caller = limited(Limits { sources: ["api".to_owned()].into(), ..Limits::default() }).await;
    assert_eq!(app.called_by(&caller, Method::GET, "/x").await.unwrap(), 200);
    assert!(app.broker.run_source(&caller, "api", "echo", SourceRun::default()).await.is_ok());
    assert!(matches!(app.broker.token(&caller, "crm", None).await, Err(Error::Limited("data source"))));
    let direct = app.broker.proxy(&caller, "crm", ProxyRequest::new(Method::GET, "/me").unwrap()).await;
    assert!(matches!(direct, Err(Error::Limited("data source"))));
    assert!(matches!(app.broker.connection(&caller, "crm").await, Err(Error::Limited(_))));
    let again = NewSource { name: "mine".to_owned(), ..echoing(&app, SourceSpec::default()) };
    assert!(matches!(app.broker.add_source(&caller, again).await, Err(Error::Limited(_))));
    app.broker.revoke_key(&app.admin, "limited").await.unwrap();

    let caller = limited(Limits { sources: ["other".to_owned()].into(), ..Limits::default() }).await;
    assert!(matches!(app.called_by(&caller, Method::GET, "/x").await, Err(Error::Limited("data source"))));
    assert!(app.broker.list_sources(&caller, &Page::first()).await.unwrap().is_empty());
    app.broker.revoke_key(&app.admin, "limited").await.unwrap();

    let caller = limited(Limits { connections: ["other".to_owned()].into(), ..Limits::default() }).await;
    assert!(matches!(app.called_by(&caller, Method::GET, "/x").await, Err(Error::Limited("connection"))));
    assert!(matches!(app.broker.source(&caller, "api").await, Err(Error::Limited("connection"))));
    assert!(matches!(
        app.broker.test_source(&caller, "api", None, TestWish::default(), &|_| ()).await,
        Err(Error::Limited("connection"))
    ));
    assert!(matches!(
        app.broker.run_source(&caller, "api", "echo", SourceRun::default()).await,
        Err(Error::Limited("connection"))
    ));
    app.broker.revoke_key(&app.admin, "limited").await.unwrap();

    // Paths are below the connection's base URL, `…/api`: the source's lies in its folder `echo`.
    let caller = limited(Limits { paths: ["/echo/open".to_owned()].into(), ..Limits::default() }).await;
    assert_eq!(app.called_by(&caller, Method::GET, "/open/1").await.unwrap(), 200);
    assert!(matches!(app.called_by(&caller, Method::GET, "/echo/open").await, Err(Error::Limited("path"))));
}

#[tokio::test]
async fn each_caller_uses_its_own_connection() {
    let app = App::start().await;
    app.add_integration(app.plain("client_credentials")).await;
    let new = NewSource {
        connection: None,
        integration: named("client_credentials"),
        ..echoing(&app, with_request(get("/x")))
    };
    app.add_source(new).await.unwrap();
    let run = |owner: Option<&str>| {
        let run = SourceRun { owner: owner.map(str::to_owned), ..SourceRun::default() };
        app.broker.run_source(&app.admin, "api", "echo", run)
    };
    assert!(matches!(run(None).await, Err(Error::NotPossible(_))), "there is none");
    for owner in ["alice", "bob"] {
        let new = NewConnection {
            name: format!("crm of {owner}"),
            integration: "client_credentials".to_owned(),
            owner: Some(owner.to_owned()),
            ..NewConnection::default()
        };
        app.broker.add_connection(&app.admin, new).await.unwrap();
        app.run(&format!("crm of {owner}")).await.unwrap();
        assert_eq!(run(Some(owner)).await.unwrap().status, 200);
        let only = run(None).await;
        assert_eq!(only.is_ok(), owner == "alice", "with two, the owner must be named");
    }
    let error = run(Some("carol")).await.unwrap_err().to_string();
    assert!(error.contains("none of the owner `carol`"), "{error}");
    let limits = Limits { connections: ["crm of bob".to_owned()].into(), ..Limits::default() };
    let bobs = app.caller("bob", &[Scope::Call], limits).await;
    assert_eq!(app.called_by(&bobs, Method::GET, "/x").await.unwrap(), 200, "the only one that the key may use");
    let alices = SourceRun { owner: Some("alice".to_owned()), ..SourceRun::default() };
    let refused = app.broker.run_source(&bobs, "api", "echo", alices).await;
    assert!(matches!(refused, Err(Error::NotPossible(_))), "another's is out of reach");
    app.broker.remove_connection(&app.admin, "crm of alice").await.unwrap();
    assert!(run(Some("alice")).await.is_err());
    assert!(run(None).await.is_ok(), "one is left");
}

/// A machine connection whose API is the test itself, and a source on it.
async fn with_api(spec: SourceSpec) -> (App, Fake) {
    let app = App::start().await;
    let fake = Fake::start().await;
    let mut new = app.plain("client_credentials");
    new.variables.insert("api_base_url".to_owned(), fake.url("/v3/"));
    app.add_integration(new).await;
    app.add_connection("crm", "client_credentials").await;
    app.run("crm").await.unwrap();
    app.add_source(NewSource { base_url: None, ..echoing(&app, spec) }).await.unwrap();
    (app, fake)
}

#[tokio::test]
async fn a_preview_is_bounded_and_says_so() {
    let extract = SavedRequest { extract: Some("$.items[?@.n > 1].n".to_owned()), ..get("/big") };
    let (app, mut fake) = with_api(with_request(extract)).await;
    let long = json!({"items": [{"n": 1}, {"n": 2}, {"n": 3}], "pad": "x".repeat(100_000)}).to_string();
    let run = |limit| {
        let run = SourceRun { limit, ..SourceRun::default() };
        app.broker.run_source(&app.admin, "api", "echo", run)
    };
    let whole = [("/v3/big", 200, long.as_str())];
    let (reply, _) = tokio::join!(run(Some(10)), fake.play(&whole));
    let reply = reply.unwrap();
    assert_eq!((text(&reply), reply.truncated, reply.size), (&long[..10], true, Some(long.len() as u64)));
    assert_eq!(reply.extracted, Some(vec![json!(2), json!(3)]), "what is looked for is looked for in all of it");

    let (reply, _) = tokio::join!(run(None), fake.play(&[("/v3/big", 503, "not json")]));
    let reply = reply.unwrap();
    assert_eq!((reply.status, reply.expected, text(&reply)), (503, false, "not json"));
    assert!(reply.extracted.is_none() && reply.problem.unwrap().contains("not JSON"));

    let answer = async { fake.next().await.respond(Response::new(Body::from(vec![0xff, 0xfe, 0x00]))) };
    let (reply, ()) = tokio::join!(run(None), answer);
    assert_eq!(reply.unwrap().preview, Preview::Bytes(vec![0xff, 0xfe, 0x00]));
    for limit in [0, (1 << 20) + 1] {
        assert_eq!(fields(&run(Some(limit)).await.unwrap_err()), ["limit"]);
    }
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_401_renews_once_in_a_run_too() {
    let (app, mut fake) = with_api(with_request(get("/me"))).await;
    let before = app.sent("client_credentials");
    let (reply, _) = tokio::join!(app.run_request(&[]), fake.play(&[("/v3/me", 401, "{}"), ("/v3/me", 200, "{}")]));
    assert_eq!(reply.unwrap().status, 200);
    assert_eq!(app.sent("client_credentials"), before + 1);
}

#[tokio::test]
async fn a_test_tells_token_and_health_apart() {
    let health =
        SavedRequest { expect: Some(Expect { status: vec![200], found: Some("$.ok".to_owned()) }), ..get("/health") };
    let (app, mut fake) = with_api(SourceSpec { health: Some(health), ..SourceSpec::default() }).await;
    let mut test = async |status, body| {
        let answers = [("/v3/health", status, body)];
        let (report, _) = tokio::join!(app.test_source(), fake.play(&answers));
        let report = report.unwrap();
        let last = report.steps.last().unwrap().clone();
        (report.ok, report.steps.len(), last.message, last.remedy)
    };
    assert_eq!(test(200, "{\"ok\": 1}").await, (true, 3, "GET /health answered 200.".to_owned(), None));
    let (ok, _, message, remedy) = test(200, "{}").await;
    assert!(!ok && message.contains("not what") && remedy.is_some(), "{message}");
    let (ok, _, _, remedy) = test(403, "{}").await;
    assert!(!ok && remedy.unwrap().contains("scopes"));
    app.broker.revoke(&app.admin, "crm").await.unwrap();
    let report = app.test_source().await.unwrap();
    assert_eq!((report.ok, report.steps.len(), report.steps[1].name), (false, 2, "token"));
}

impl App {
    async fn try_request(&self) -> Tried {
        self.broker.try_request(&self.admin, "api", "echo", SourceRun::default()).await.unwrap()
    }
}

#[tokio::test]
async fn a_run_that_finds_nobody_says_why_as_a_test_does() {
    for (base_url, cause) in [
        ("http://127.0.0.1:1/v3/", Cause::Unreachable),
        ("https://127.0.0.1:PORT/v3/", Cause::Tls),
        ("https://10.0.0.1/v3/", Cause::Refused),
    ] {
        let app = App::start().await;
        let port = app.sandbox.base_url().rsplit(':').next().unwrap().to_owned();
        let mut new = app.plain("client_credentials");
        new.variables.insert("api_base_url".to_owned(), base_url.replace("PORT", &port));
        app.add_integration(new).await;
        app.add_connection("crm", "client_credentials").await;
        app.run("crm").await.unwrap();
        app.add_source(NewSource { base_url: None, ..echoing(&app, with_request(get("/x"))) }).await.unwrap();
        let tried = app.try_request().await;
        let step = tried.failed.unwrap();
        assert_eq!((step.name, step.cause), ("call", Some(cause)), "{base_url}: {step:?}");
        assert!(tried.reply.is_none() && step.remedy.is_some_and(|remedy| !remedy.is_empty()), "{base_url}");
    }
}

#[tokio::test]
async fn a_run_that_is_refused_says_why_as_a_test_does() {
    let (app, mut fake) = with_api(with_request(get("/me"))).await;
    let (tried, _) = tokio::join!(app.try_request(), fake.play(&[("/v3/me", 200, "{}")]));
    assert!(tried.failed.is_none() && tried.reply.unwrap().expected);
    let (tried, _) = tokio::join!(app.try_request(), fake.play(&[("/v3/me", 401, "{}"), ("/v3/me", 401, "{}")]));
    let step = tried.failed.unwrap();
    assert_eq!((step.name, step.cause, tried.reply.unwrap().status), ("call", Some(Cause::HeaderPrefix), 401));
    assert!(step.remedy.unwrap().contains("header prefix"));
    let (tried, _) = tokio::join!(app.try_request(), fake.play(&[("/v3/me", 403, "{}")]));
    assert_eq!(tried.failed.unwrap().cause, Some(Cause::InsufficientScope));

    app.fault("error:invalid_client");
    app.advance(48 * 3600);
    let tried = app.try_request().await;
    let step = tried.failed.unwrap();
    assert_eq!((step.name, step.cause), ("token", Some(Cause::InvalidClient)), "{step:?}");
    assert!(tried.reply.is_none() && step.exchanges[0].to == "token_endpoint" && step.remedy.is_some());
    app.broker.revoke(&app.admin, "crm").await.unwrap();
    let step = app.try_request().await.failed.unwrap();
    assert_eq!((step.name, step.cause), ("token", Some(Cause::NotConnected)), "{step:?}");
    let wrong = app.broker.try_request(&app.admin, "api", "echo", given(&[("odd", "1")])).await;
    assert_eq!(fields(&wrong.unwrap_err()), ["variables.odd"]);
    let nobody = app.broker.try_request(&app.admin, "api", "nothing", SourceRun::default()).await;
    assert!(matches!(nobody, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_change_counts_at_once_on_every_replica() {
    let app = App::start().await;
    app.machine("crm").await;
    app.add_source(echoing(&app, with_request(get("/before")))).await.unwrap();
    let sibling = app.sibling().await;
    assert_eq!(sibling.echo(&[]).await["path"], "/api/echo/before");
    let edit = SourceEdit { requests: one("echo", Some(get("/after"))), ..SourceEdit::default() };
    app.broker.edit_source(&app.admin, "api", edit).await.unwrap();
    assert_eq!(app.echo(&[]).await["path"], "/api/echo/after");
    if crate::ON_POSTGRES {
        sibling.broker.catch_up().await.unwrap();
        assert_eq!(sibling.echo(&[]).await["path"], "/api/echo/after");
        app.broker.remove_source(&app.admin, "api").await.unwrap();
        sibling.broker.catch_up().await.unwrap();
        assert!(matches!(sibling.run_request(&[]).await, Err(Error::NotFound { .. })));
    }
}

/// A source whose calls carry the secret `hush-hush` in the header `x-key` and in the query.
fn with_secret(request: SavedRequest) -> SourceSpec {
    SourceSpec {
        headers: values([("x-key", "{{key}}")]),
        query: values([("key", "{{key}}")]),
        variables: one("key", SourceVariable { secret: true, ..variable("hush-hush") }),
        ..with_request(request)
    }
}

#[tokio::test]
async fn a_secret_is_not_sent_elsewhere_by_somebody_who_does_not_know_it() {
    let app = App::start().await;
    app.machine("crm").await;
    app.add_connection("other", "client_credentials").await;
    app.add_source(echoing(&app, with_secret(get("/x")))).await.unwrap();
    let edit = async |edit| app.broker.edit_source(&app.admin, "api", edit).await;
    let elsewhere = || Some(Some(format!("{}/api/echo/else", app.sandbox.base_url())));
    let known = || one("key", Some(VariableEdit::Value("hush-hush".to_owned())));
    for moved in [
        SourceEdit { base_url: Some(None), ..SourceEdit::default() },
        SourceEdit { base_url: elsewhere(), ..SourceEdit::default() },
        SourceEdit { connection: Some("other".to_owned()), ..SourceEdit::default() },
    ] {
        assert_eq!(fields(&edit(moved).await.unwrap_err()), ["variables.key"]);
    }
    assert_eq!(app.echo(&[]).await["path"], "/api/echo/x", "nothing is changed");
    edit(SourceEdit { base_url: elsewhere(), variables: known(), ..SourceEdit::default() }).await.unwrap();
    assert_eq!(app.echo(&[]).await["path"], "/api/echo/else/x");

    // What stands in the base URL steers, too.
    let place = SourceVariable { pattern: Some("[a-z]+".to_owned()), ..variable("there") };
    let base_url = Some(Some(format!("{}/api/echo/{{{{place}}}}", app.sandbox.base_url())));
    let variables = known().into_iter().chain(one("place", Some(VariableEdit::Whole(Box::new(place))))).collect();
    edit(SourceEdit { base_url, variables, ..SourceEdit::default() }).await.unwrap();
    let place = || one("place", Some(VariableEdit::Value("here".to_owned())));
    let refused = edit(SourceEdit { variables: place(), ..SourceEdit::default() }).await.unwrap_err();
    assert_eq!(fields(&refused), ["variables.key"]);
    edit(SourceEdit { variables: place().into_iter().chain(known()).collect(), ..SourceEdit::default() })
        .await
        .unwrap();
    assert_eq!(app.echo(&[]).await["path"], "/api/echo/here/x");
}

#[tokio::test]
async fn a_secret_does_not_come_back_in_a_replys_headers() {
    let (app, mut fake) = with_api(with_secret(get("/x"))).await;
    let request = ProxyRequest::new(Method::GET, "/x?page=2").unwrap();
    let answer = async {
        let request = fake.next().await;
        assert!(request.query.as_deref().unwrap().contains("key=hush-hush"));
        let again = fake_url("/v3/x?page=2&key=hush-hush#end");
        let response = Response::builder().status(301).header("location", &again).header("x-kept", "7");
        request.respond(response.header("link", format!("<{again}>; rel=next")).body(Body::empty()).unwrap());
    };
    let (response, ()) = tokio::join!(app.broker.proxy_source(&app.admin, "api", request), answer);
    let headers = response.unwrap().into_parts().0.headers;
    assert_eq!(headers["location"], fake_url("/v3/x?page=2#end"));
    assert_eq!((headers.get("link"), headers["x-kept"].as_bytes()), (None, &b"7"[..]));
}

fn fake_url(path: &str) -> String {
    format!("https://api.example.com{path}")
}

#[tokio::test]
async fn secrets_of_a_source_survive_a_rotation_and_are_sealed_anew() {
    let app = App::start().await;
    app.machine("crm").await;
    app.add_source(echoing(&app, with_secret(get("/x")))).await.unwrap();
    let edit = SourceEdit { description: Some("changed".to_owned()), ..SourceEdit::default() };
    app.broker.edit_source(&app.admin, "api", edit).await.unwrap();
    assert_eq!(app.echo(&[]).await["headers"]["x-key"], "hush-hush", "a change keeps it, under a new seal");
    app.broker.seal_rotate(&app.admin).await.unwrap();
    while app.broker.seal_status().await.unwrap().left > 0 {
        tokio::task::yield_now().await;
    }
    let restarted = app.crashed_with(|_| {}).await.app;
    assert_eq!(restarted.echo(&[]).await["headers"]["x-key"], "hush-hush");
}

#[tokio::test]
async fn a_source_that_no_second_look_has_confirmed_is_not_in_memory() {
    let reads = crate::access::Reads::default();
    let app = reads.app().await;
    app.machine("crm").await;
    app.token("crm").await.unwrap();
    app.add_source(echoing(&app, SourceSpec::default())).await.unwrap();
    let hide = |is_hidden: bool| {
        let name = if is_hidden { ["other", "api"] } else { ["api", "other"] };
        app.database.run(&format!("UPDATE data_sources SET name = '{}' WHERE name = '{}'", name[0], name[1]));
    };
    let called = async || app.called_by(&app.admin, Method::GET, "/x").await.is_ok();
    reads.leave_nothing(hide, called).await;
}
