//! The test that explains: which steps there are, what each fault is traced to, what is shown, and that no secret is.

use std::sync::Mutex;

use axum::body::Body;
use axum::http::Response;
use keyholder_broker::model::{Happened, Limits, Scope, Status};
use keyholder_broker::{Cause, Heard, NewIntegration, TestReport, TestWish, Watch};
use serde_json::json;

use crate::app::App;
use crate::fake::{Arrived, Fake};

fn last(report: &TestReport) -> (&'static str, Option<Cause>, String) {
    let step = report.steps.last().unwrap();
    (step.name, step.cause, step.remedy.clone().unwrap_or_default())
}

fn names(report: &TestReport) -> Vec<&'static str> {
    report.steps.iter().map(|step| step.name).collect()
}

/// A connection by the definition `spoken`, which has a call to test with; the fake is token endpoint and API.
async fn spoken(grant: &str, rest: &str) -> (App, Fake) {
    let (app, fake) = (App::start().await, Fake::start().await);
    let authorize = match grant {
        "authorization_code" => format!("[authorize]\nurl = \"{}/authorize\"\n", app.sandbox.base_url()),
        _ => String::new(),
    };
    let text = format!(
        "schema = 1\nid = \"spoken\"\nname = \"Spoken\"\n[[methods]]\ngrant = \"{grant}\"\nlabel = \"One\"\n\
         [scopes.known]\nread = \"Read\"\n\"offline.all\" = \"Stay\"\n\
         {authorize}[token]\nurl = \"FAKE/token\"\n\
         [api]\nbase_url = \"FAKE/api\"\nverify = \"/me\"\n{rest}"
    );
    let text = text.replace("FAKE", &fake.url(""));
    app.broker.add_provider(&app.admin, "spoken.toml", &text).await.unwrap_or_else(|error| panic!("{error}"));
    let new = NewIntegration {
        provider: "spoken".to_owned(),
        scopes: vec!["read".to_owned()],
        variables: Default::default(),
        ..app.plain(grant)
    };
    app.add_integration(new).await;
    app.add_connection("crm", grant).await;
    (app, fake)
}

impl App {
    async fn test_by(&self, wish: TestWish) -> TestReport {
        self.broker.test(&self.admin, "crm", wish, &|_| ()).await.unwrap()
    }
}

const RENEW: TestWish = TestWish { renew: true };

#[tokio::test]
async fn the_sandboxs_faults_have_their_causes() {
    for (fault, cause, words) in [
        ("error:invalid_client", Cause::InvalidClient, "not the secret's own id"),
        ("error:invalid_scope", Cause::InvalidScope, "`read write`"),
        ("error:unauthorized_client", Cause::WrongGrant, "client_credentials"),
        ("error:unsupported_grant_type", Cause::WrongGrant, "settings of your application"),
        ("error_200:invalid_client", Cause::InvalidClient, "secret"),
        ("html", Cause::NotJson, "A web page answered"),
        ("malformed", Cause::NotJson, "breaks off"),
        ("lost", Cause::Unreachable, "broke before the reply"),
        ("drop", Cause::Unreachable, "broke before the reply"),
        ("rate_limited:9", Cause::RateLimited, ""),
        ("server_error", Cause::ProviderDown, ""),
        ("huge", Cause::NotJson, "far more"),
    ] {
        let app = App::start().await;
        app.machine("crm").await;
        app.fault(fault);
        let report = app.test("crm").await.unwrap();
        let (name, found, remedy) = last(&report);
        assert_eq!((name, found), ("token", Some(cause)), "{fault}: {report:?}");
        assert!(remedy.contains(words), "{fault}: {remedy}");
        let exchange = &report.steps.last().unwrap().exchanges[0];
        assert!(
            exchange.request.line.starts_with("POST http://127.0.0.1") && exchange.request.line.ends_with("/token")
        );
        assert!(exchange.reply.is_some() != exchange.failure.is_some(), "{fault}");
    }
}

#[tokio::test]
async fn addresses_that_lead_nowhere_have_their_causes() {
    for (token_url, cause, step) in [
        ("http://127.0.0.1:1/token", Cause::Unreachable, "token"),
        ("https://127.0.0.1:PORT/token", Cause::Tls, "token"),
        ("https://10.0.0.1/token", Cause::Refused, "settings"),
    ] {
        let app = App::start().await;
        let port = app.sandbox.base_url().rsplit(':').next().unwrap().to_owned();
        let mut new = app.plain("client_credentials");
        new.variables.insert("token_url".to_owned(), token_url.replace("PORT", &port));
        app.add_integration(new).await;
        app.add_connection("crm", "client_credentials").await;
        let report = app.test("crm").await.unwrap();
        let (name, found, remedy) = last(&report);
        assert_eq!((name, found), (step, Some(cause)), "{token_url}: {report:?}");
        assert!(!remedy.is_empty());
    }
}

#[tokio::test]
async fn a_discovery_document_has_a_step_of_its_own_and_says_what_the_provider_knows() {
    let app = App::start().await;
    app.add_integration(app.oidc("client_credentials")).await;
    app.add_connection("crm", "client_credentials").await;
    let report = app.test("crm").await.unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!(names(&report)[..3], ["settings", "discovery", "token"]);
    assert_eq!(report.steps[1].exchanges[0].to, "discovery");
    app.fault("token=error:invalid_scope,times=1");
    let (_, cause, remedy) = last(&app.test("crm").await.unwrap());
    assert!(cause == Some(Cause::InvalidScope) && remedy.contains("`read write`"), "{remedy}");
    app.fault("discovery=html");
    let report = app.test("crm").await.unwrap();
    assert_eq!((last(&report).0, last(&report).1), ("discovery", Some(Cause::NotJson)), "{report:?}");
}

#[tokio::test]
async fn a_machines_grant_is_asked_anew_and_peoples_only_when_it_is_wished() {
    let app = App::start().await;
    app.machine("crm").await;
    let before = app.sent("client_credentials");
    let report = app.test("crm").await.unwrap();
    assert_eq!((report.ok, app.sent("client_credentials")), (true, before + 1));
    assert_eq!((names(&report), app.row("crm").await.generation), (vec!["settings", "token"], 2));
    let report = app.test_by(RENEW).await;
    assert_eq!((names(&report), app.row("crm").await.generation), (vec!["settings", "token", "renewal"], 3));

    let app = App::start().await;
    app.consented("crm").await;
    let report = app.test("crm").await.unwrap();
    assert_eq!((names(&report), app.sent("refresh_token")), (vec!["settings", "token"], 0));
    let report = app.test_by(RENEW).await;
    assert_eq!(names(&report), ["settings", "token", "renewal"]);
    assert_eq!((report.ok, app.row("crm").await.generation, app.sent("refresh_token")), (true, 2, 1));
    assert!(report.steps[2].message.contains("generation 2"), "{}", report.steps[2].message);
    app.advance(3600);
    let report = app.test("crm").await.unwrap();
    assert!(report.ok && report.steps[1].message.contains("had expired and was renewed"), "{report:?}");
    app.fault("revoked,grant=refresh_token");
    let report = app.test_by(RENEW).await;
    assert_eq!((last(&report).0, last(&report).1), ("renewal", Some(Cause::GrantDead)), "{report:?}");
    assert_eq!(app.status("crm").await, Status::Reconnect);
}

#[tokio::test]
async fn without_a_refresh_token_nothing_is_renewed_and_nothing_harmed() {
    let (app, mut fake) = spoken("authorization_code", "").await;
    let answer = async {
        fake.next().await.json(200, json!({"access_token": "a1", "expires_in": 3600}));
        fake.next().await.json(200, json!({"email": "ada@example.com"}));
    };
    tokio::join!(app.consent("crm"), answer);
    let report = app.test_by(RENEW).await;
    let (name, cause, remedy) = last(&report);
    assert_eq!((name, cause), ("renewal", Some(Cause::NoRefreshToken)));
    assert!(remedy.contains("Add the scope `offline.all`"), "{remedy}");
    assert_eq!(app.status("crm").await, Status::Connected, "a test breaks nothing");
    app.advance(3600);
    let report = app.test("crm").await.unwrap();
    assert_eq!((last(&report).0, last(&report).1), ("token", Some(Cause::NoRefreshToken)), "{report:?}");
}

fn refuse(request: Arrived, challenge: &str) {
    let response = Response::builder().status(401).header("www-authenticate", challenge);
    // The test's clock stands still, the server's doesn't.
    let response = response.header("date", "-");
    request.respond(response.body(Body::from("{\"error\":\"no\"}")).unwrap());
}

#[tokio::test]
async fn a_401_at_the_call_is_explained_by_what_the_token_says() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let jwt =
        |claims: serde_json::Value| format!("eyJhbGciOiJub25lIn0.{}.c2lnbmF0dXJl", BASE64.encode(claims.to_string()));
    let app_and_fake = spoken("client_credentials", "").await;
    let (app, mut fake) = app_and_fake;
    let soon = app.now() / 1000 + 3600;
    for (token, challenge, cause, words) in [
        ("opaque-token".to_owned(), "Bearer", Cause::HeaderPrefix, "sent as `Bearer …`"),
        ("opaque-token".to_owned(), "Token realm=\"api\"", Cause::HeaderPrefix, "asks for `Token`"),
        (
            "opaque-token".to_owned(),
            "Bearer error=\"insufficient_scope\", scope=\"admin\"",
            Cause::InsufficientScope,
            "`admin`",
        ),
        (jwt(json!({"exp": soon, "aud": "https://other.example.org"})), "Bearer", Cause::Audience, "other.example.org"),
        (jwt(json!({"exp": soon - 7200})), "Bearer", Cause::Expired, "60 min ago"),
    ] {
        let answers = async {
            fake.next().await.json(200, json!({"access_token": token, "expires_in": 7200, "scope": "read"}));
            refuse(fake.next().await, challenge);
        };
        let (report, ()) = tokio::join!(app.test("crm"), answers);
        let report = report.unwrap();
        let (name, found, remedy) = last(&report);
        assert_eq!((name, found), ("call", Some(cause)), "{challenge}: {remedy}");
        assert!(remedy.contains(words), "{challenge}: {remedy}");
        let shown = format!("{report:?}");
        assert!(!shown.contains(&token) && !shown.contains("c2lnbmF0dXJl"), "{shown}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_named() {
    let (app, mut fake) = spoken("client_credentials", "").await;
    let answer = async {
        let said = json!({"error": "invalid_client", "error_description": "the assertion's iat is in the future"});
        fake.next().await.json(401, said);
    };
    let (report, ()) = tokio::join!(app.test("crm"), answer);
    let (_, cause, remedy) = last(&report.unwrap());
    assert!(cause == Some(Cause::Clock) && remedy.contains("NTP"), "{remedy}");
}

#[tokio::test]
async fn the_definitions_remedy_comes_first() {
    let known = "[[errors]]\ncode = \"invalid_client\"\nremedy = \"Ask Ada.\"\n";
    let (app, mut fake) = spoken("client_credentials", known).await;
    let answer = async { fake.next().await.json(401, json!({"error": "invalid_client"})) };
    let (report, ()) = tokio::join!(app.test("crm"), answer);
    assert_eq!(last(&report.unwrap()), ("token", Some(Cause::InvalidClient), "Ask Ada.".to_owned()));
}

#[tokio::test]
async fn what_is_exchanged_is_shown_without_a_secret_and_each_step_when_it_is_over() {
    let rest = "token = [{ in = \"query\", name = \"t\" }, { in = \"header\", name = \"X-User\", token = \"user\" }]\n\
                [token.secondary.user]\naccess_token = \"/user/t\"\n";
    let (app, mut fake) = spoken("client_credentials", rest).await;
    let told = Mutex::new(Vec::new());
    let heard = |step: &keyholder_broker::TestStep| told.lock().unwrap().push(step.name);
    let answers = async {
        let said = json!({"access_token": "canary Xq81", "odd": "canary-Xq82", "user": {"t": "canary-Xq83"}});
        fake.next().await.json(200, said);
        assert_eq!(*told.lock().unwrap(), ["settings"], "told before the token is there");
        let request = fake.next().await;
        assert_eq!(*told.lock().unwrap(), ["settings", "token"]);
        let echo = json!({
            "sent": request.query,
            "again": ["canary Xq81", "canary%20Xq81"],
            "user": text(&request, "x-user"),
            "name": "Ada",
        });
        request.json(200, echo);
    };
    let (report, ()) = tokio::join!(app.broker.test(&app.admin, "crm", TestWish::default(), &heard), answers);
    let report = report.unwrap();
    assert!(report.ok, "{report:?}");
    let shown = format!("{report:?}{}", serde_json::to_string(&report).unwrap());
    assert!(!shown.contains("Xq8") && !shown.contains("sandbox-secret"), "{shown}");
    let token = &report.steps[1].exchanges[0];
    assert!(token.request.body.contains("grant_type=client_credentials"), "{token:?}");
    assert!(token.request.headers.contains(&("authorization".to_owned(), "Basic ••••".to_owned())), "{token:?}");
    let call = &report.steps[2].exchanges[0];
    assert!(call.reply.as_ref().unwrap().body.contains("Ada"), "{call:?}");
    assert!(call.request.line.starts_with("GET http"), "{call:?}");
}

fn text<'a>(request: &'a Arrived, name: &str) -> &'a str {
    request.headers[name].to_str().unwrap()
}

#[tokio::test]
async fn who_listens_hears_what_happens_once_and_what_was_missed_first() {
    let app = App::start().await;
    app.machine("crm").await;
    app.add_connection("other", "client_credentials").await;
    let mut watch = app.broker.watch(&app.admin, Some("crm"), None).await.unwrap();
    app.run("other").await.unwrap();
    app.advance(1);
    app.broker.refresh(&app.admin, "crm").await.unwrap();
    app.advance(1);
    let first = heard(&app, &mut watch).await;
    assert_eq!((first.kind.as_str(), first.name.as_deref()), ("renewed", Some("crm")), "{first:?}");
    drop(watch);

    app.advance(1);
    app.broker.refresh(&app.admin, "crm").await.unwrap();
    let mut again = app.broker.watch(&app.admin, Some("crm"), Some(first.id.as_str())).await.unwrap();
    let second = heard(&app, &mut again).await;
    assert_eq!((second.kind.as_str(), second.id > first.id), ("renewed", true));
    let mut strange = app.broker.watch(&app.admin, None, Some("no id")).await.unwrap();
    assert!(matches!(strange.next().await, Heard::Missed));

    let limits = Limits { connections: ["other".to_owned()].into(), ..Limits::default() };
    let limited = app.caller("limited", &[Scope::Read], limits).await;
    assert!(app.broker.watch(&limited, Some("crm"), None).await.is_err());
    let mut limited = app.broker.watch(&limited, None, Some(first.id.as_str())).await.unwrap();
    app.advance(1);
    app.broker.refresh(&app.admin, "other").await.unwrap();
    assert_eq!(heard(&app, &mut limited).await.name.as_deref(), Some("other"));
}

/// The next event; the clock goes on until it is read.
async fn heard(app: &App, watch: &mut Watch) -> std::sync::Arc<Happened> {
    let ticking = async {
        loop {
            app.clock.advance(std::time::Duration::from_millis(500));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        heard = watch.next() => match heard {
            Heard::Event(event) => event,
            Heard::Missed => panic!("nothing was missed"),
        },
        () = ticking => unreachable!(),
    }
}

#[tokio::test]
async fn what_is_looked_up_with_a_new_token_is_shown_too() {
    let more =
        "[[after_connect]]\nname = \"team\"\nurl = \"FAKE/team\"\nextract = { team = \"/id\" }\nrefresh = true\n";
    let (app, mut fake) = spoken("client_credentials", more).await;
    let answers = async {
        fake.next().await.json(200, json!({"access_token": "canary-token-1", "expires_in": 7200}));
        fake.next().await.json(200, json!({"id": "t-1"}));
        fake.next().await.json(200, json!({}));
    };
    let (report, ()) = tokio::join!(app.test("crm"), answers);
    let report = report.unwrap();
    let asked: Vec<_> = report.steps[1].exchanges.iter().map(|it| it.to).collect();
    assert_eq!((report.ok, asked), (true, vec!["token_endpoint", "lookup"]), "{report:?}");
    let shown = &report.steps[1].exchanges[1];
    assert!(shown.request.line.ends_with("/team") && shown.reply.as_ref().unwrap().body.contains("t-1"), "{shown:?}");
    assert!(!format!("{report:?}").contains("canary-token-1"));
}
