//! What a definition says beside the standard: each is done as it is written.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use base64::Engine;
use http_body_util::BodyExt;
use keyholder_broker::egress::full;
use keyholder_broker::model::Status;
use keyholder_broker::{Error, NewIntegration, ProxyRequest, Reply};
use keyholder_oauth::FailureKind;
use serde_json::{Value, json};

use crate::app::{App, START};
use crate::fake::{Arrived, Fake};
use crate::gateway::get;
use crate::judgement::later;
use crate::logs::Logs;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A connection `crm`, not authorised yet, of a provider whose definition ends in `rest`; `FAKE` in it is the test's own address.
async fn spoken(grant: &str, rest: &str) -> (App, Fake) {
    let app = App::start().await;
    let fake = Fake::start().await;
    let authorize = match grant {
        "authorization_code" => format!("[authorize]\nurl = \"{}/authorize\"\n", app.sandbox.base_url()),
        _ => String::new(),
    };
    let head = format!(
        "schema = 1\nid = \"spoken\"\nname = \"Spoken\"\n[[methods]]\ngrant = \"{grant}\"\nlabel = \"One\"\n\
         {authorize}[token]\nurl = \"FAKE/token\"\n"
    );
    let text = format!("{head}{rest}").replace("FAKE", &fake.url(""));
    app.broker.add_provider(&app.admin, "spoken.toml", &text).await.unwrap_or_else(|error| panic!("{error}"));
    let new = NewIntegration { provider: "spoken".to_owned(), variables: Default::default(), ..app.plain(grant) };
    app.add_integration(new).await;
    app.add_connection("crm", grant).await;
    (app, fake)
}

/// The same, consented: the test answers the code with `reply`.
async fn consented(rest: &str, reply: Value) -> (App, Fake) {
    let (app, mut fake) = spoken("authorization_code", rest).await;
    let answer = async { fake.next().await.json(200, reply) };
    tokio::join!(app.consent("crm"), answer);
    (app, fake)
}

/// The same, of a machine.
async fn machine(rest: &str, reply: Value) -> (App, Fake) {
    let (app, mut fake) = spoken("client_credentials", rest).await;
    let answer = async { fake.next().await.json(200, reply) };
    let (done, ()) = tokio::join!(app.run("crm"), answer);
    done.unwrap();
    (app, fake)
}

fn hour(token: &str) -> Value {
    json!({"access_token": token, "expires_in": HOUR, "refresh_token": format!("r-{token}")})
}

impl App {
    async fn secondary(&self, name: &str) -> keyholder_broker::Result<String> {
        let handed = self.broker.secondary_token(&self.admin, "crm", name, None).await?;
        Ok(handed.access_token.expose().to_owned())
    }

    async fn called(&self, request: ProxyRequest) -> Response<Reply> {
        self.broker.proxy(&self.admin, "crm", request).await.unwrap()
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().unwrap()
}

async fn read(response: Response<Reply>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

fn post(body: &'static str, kind: &'static str) -> ProxyRequest {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", kind.parse().unwrap());
    ProxyRequest { headers, body: full(body), ..ProxyRequest::new(Method::POST, "/x").unwrap() }
}

#[tokio::test]
async fn a_renewal_is_read_by_its_own_rules_after_a_crash_too() {
    let logs = Logs::catch();
    let rules = "[refresh]\nrecovery = \"single_use\"\n[refresh.reply]\naccess_token = \"/data/token\"\nrefresh_token = \"/data/next\"\nexpires_in = \"/data/life\"\n";
    let (app, mut fake) = consented(rules, hour("a1")).await;
    let nested = |token: &str| json!({"data": {"token": token, "next": format!("r-{token}"), "life": HOUR}});
    app.advance(HOUR);
    let answer = async { fake.next().await.json(200, nested("a2")) };
    let (token, ()) = tokio::join!(app.secret("crm"), answer);
    assert_eq!(token, "a2");

    app.advance(HOUR);
    let caller = tokio::spawn({
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        async move { broker.token(&admin, "crm", None).await.map(drop) }
    });
    let request = fake.next().await;
    app.refuse("BEFORE UPDATE OF token_set ON connections");
    request.json(200, nested("a3"));
    logs.wait_for("can't be stored yet").await;
    let after = app.crashed_with(|folder| crate::database::Database::of(folder).relent()).await;
    caller.abort();
    assert_eq!((after.recovered, after.app.secret("crm").await.as_str()), (1, "a3"));
}

#[tokio::test]
async fn an_access_token_that_extends_itself_is_sent_when_it_is_old_enough() {
    let rules = "[refresh]\nurl = \"FAKE/refresh\"\nmethod = \"GET\"\nclient_auth = \"none\"\nwith = \"access_token\"\nmin_age = \"24h\"\n\
                 params = { grant_type = \"ig_refresh_token\" }\n";
    let (app, mut fake) = consented(rules, json!({"access_token": "long-1", "expires_in": 60 * DAY})).await;
    let row = app.row("crm").await;
    assert_eq!(row.dies_at, Some(START + 60 * 86_400_000));
    let due = row.due_at.unwrap() - START;
    assert!((27 * 86_400_000..=30 * 86_400_000).contains(&due), "{due}");

    let early = app.broker.refresh(&app.admin, "crm").await.unwrap_err();
    let Error::NotReady { retry_after, failure, .. } = &early else { panic!("{early}") };
    assert_eq!(*retry_after, Some(Duration::from_secs(DAY)));
    assert!(failure.as_ref().unwrap().message.contains("as young as this one"), "{early}");
    assert_eq!(app.status("crm").await, Status::Connected);

    app.advance(DAY);
    let answer = async {
        let request = fake.next().await;
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/refresh"));
        let query = request.query.clone().unwrap();
        assert!(query.contains("access_token=long-1") && query.contains("grant_type=ig_refresh_token"), "{query}");
        assert!(!query.contains("refresh_token=long"), "{query}");
        request.json(200, json!({"access_token": "long-2", "expires_in": 60 * DAY}));
    };
    let (renewed, ()) = tokio::join!(app.broker.refresh(&app.admin, "crm"), answer);
    assert_eq!((renewed.unwrap().generation, app.secret("crm").await.as_str()), (2, "long-2"));
}

#[tokio::test]
async fn an_expired_token_that_is_too_young_says_when() {
    let (app, mut fake) = consented(
        "[refresh]\nmin_age = \"10m\"\n",
        json!({"access_token": "a1", "expires_in": 300, "refresh_token": "r1"}),
    )
    .await;
    assert_eq!(app.row("crm").await.due_at, Some(START + 600_000));
    app.advance(400);
    let Err(Error::NotReady { retry_after, .. }) = app.token("crm").await else { panic!("there is no token") };
    assert_eq!(retry_after, Some(Duration::from_secs(200)));
    assert!(fake.is_quiet());
    app.advance(200);
    let answer = async { fake.next().await.json(200, hour("a2")) };
    assert_eq!(tokio::join!(app.secret("crm"), answer).0, "a2");
}

#[tokio::test]
async fn a_refresh_token_is_kept_alive_as_the_definition_says() {
    let due = |rules: &'static str| async move {
        let reply = json!({"access_token": "a1", "expires_in": 365 * DAY, "refresh_token": "r1"});
        let (app, _fake) = consented(rules, reply).await;
        (app.row("crm").await.due_at.unwrap() - START) / 86_400_000
    };
    assert!((40..=45).contains(&due("[refresh]\nidle_life = \"90d\"\n").await));
    assert!((28..=30).contains(&due("[refresh]\nidle_life = \"90d\"\nkeep_alive = \"30d\"\n").await));
    assert_eq!(due("[refresh]\nidle_life = \"90d\"\nkeep_alive = false\n").await, 364);
}

#[tokio::test]
async fn a_machines_token_is_exchanged_once_more() {
    let rules = "[follow_up]\nurl = \"FAKE/long\"\nmethod = \"GET\"\nclient_auth = \"query\"\n\
                 params = { grant_type = \"fb_exchange_token\", fb_exchange_token = \"{{access_token}}\" }\n";
    let (app, mut fake) = spoken("client_credentials", rules).await;
    let answer = async {
        fake.next().await.json(200, json!({"access_token": "short", "expires_in": 60, "instance": "eu"}));
        let second = fake.next().await;
        let query = second.query.clone().unwrap();
        assert!(query.contains("fb_exchange_token=short") && query.contains("client_id=sandbox-basic"), "{query}");
        second.json(200, json!({"access_token": "long", "expires_in": DAY}));
    };
    tokio::join!(app.run("crm"), answer).0.unwrap();
    let handed = app.token("crm").await.unwrap();
    assert_eq!((handed.access_token.expose(), handed.expires_in), ("long", Some(86_400)));

    // A second exchange that is refused is a failure of the grant.
    app.advance(DAY);
    let answer = async {
        fake.next().await.json(200, json!({"access_token": "short-2", "expires_in": 60}));
        fake.next().await.json(400, json!({"error": "invalid_request", "error_description": "no short-2"}));
    };
    let (refused, ()) = tokio::join!(app.token("crm"), answer);
    let Err(Error::NotReady { failure: Some(failure), .. }) = refused else { panic!("it was refused") };
    assert_eq!(failure.kind, FailureKind::Setup);
    assert!(failure.message.contains("invalid_request") && !failure.message.contains("short-2"), "{}", failure.message);
}

const TWO_TOKENS: &str = "[token.secondary.user]\naccess_token = \"/user/access_token\"\nrefresh_token = \"/user/refresh_token\"\nexpires_in = \"/user/expires_in\"\n";

fn two(main: &str, user: Value) -> Value {
    let mut reply = hour(main);
    reply["user"] = user;
    reply
}

fn user(token: &str) -> Value {
    json!({"access_token": token, "refresh_token": format!("r-{token}"), "expires_in": HOUR, "token_type": "user"})
}

#[tokio::test]
async fn a_secondary_token_is_handed_out_and_follows_the_main_one_by_its_own_refresh_token() {
    let (app, mut fake) = consented(TWO_TOKENS, two("a1", user("u1"))).await;
    assert_eq!((app.secret("crm").await.as_str(), app.secondary("user").await.unwrap().as_str()), ("a1", "u1"));
    let unknown = app.secondary("bot").await.unwrap_err();
    assert!(matches!(unknown, Error::NotFound { what: "token", .. }), "{unknown}");

    app.advance(HOUR - 600);
    let answer = async {
        let main = fake.next().await;
        assert_eq!(main.member("refresh_token").as_deref(), Some("r-a1"));
        main.json(200, hour("a2"));
        let own = fake.next().await;
        assert_eq!(own.member("refresh_token").as_deref(), Some("r-u1"));
        own.json(200, hour("u2"));
    };
    let (_, ()) = tokio::join!(app.broker.refresh(&app.admin, "crm"), answer);
    app.broker.finish_renewals().await;
    assert_eq!((app.secret("crm").await.as_str(), app.secondary("user").await.unwrap().as_str()), ("a2", "u2"));
    let row = app.row("crm").await;
    assert_eq!((row.generation, row.renewed_at), (3, Some(app.now())));
}

#[tokio::test]
async fn a_secondary_token_that_has_ended_is_renewed_when_it_is_asked_for() {
    let mut short = user("u1");
    short["expires_in"] = json!(60);
    let (app, mut fake) = consented(TWO_TOKENS, two("a1", short)).await;
    app.advance(100);
    let answer = async {
        let own = fake.next().await;
        assert_eq!(own.member("refresh_token").as_deref(), Some("r-u1"));
        own.json(200, hour("u2"));
    };
    assert_eq!(tokio::join!(app.secondary("user"), answer).0.unwrap(), "u2");
    assert_eq!(app.secret("crm").await, "a1");
    let row = app.row("crm").await;
    assert_eq!((row.generation, row.renewed_at, row.token_expires_at), (2, Some(START), Some(START + 3_600_000)));

    // Its refresh token is dead: the others go on, and it is gone when it has ended.
    app.advance(HOUR + 1);
    let answer = async {
        fake.next().await.json(400, json!({"error": "invalid_grant"}));
    };
    let (refused, ()) = tokio::join!(app.secondary("user"), answer);
    assert!(matches!(refused.unwrap_err(), Error::NotFound { what: "token", .. }));
    assert_eq!(app.status("crm").await, Status::Connected);
    assert!(
        app.broker
            .history(&app.admin, "crm", 9)
            .await
            .unwrap()
            .iter()
            .any(|it| it.message.contains("`user` can't be renewed any more"))
    );
}

/// Calls that carry only a secondary token: that one is renewed, ahead of its end and after a 401, and the main one stays.
#[tokio::test]
async fn the_gateway_renews_the_token_that_it_placed() {
    let rules = format!(
        "[api]\nbase_url = \"FAKE/api\"\ntoken = [{{ in = \"header\", name = \"X-User\", token = \"user\" }}]\n{TWO_TOKENS}"
    );
    let (app, mut fake) = consented(&rules, two("a1", user("u1"))).await;
    app.advance(HOUR);
    let answers = async {
        let renewal = fake.next().await;
        assert_eq!((renewal.path.as_str(), renewal.member("refresh_token").as_deref()), ("/token", Some("r-u1")));
        renewal.json(200, hour("u2"));
        let refused = fake.next().await;
        assert_eq!(text(&refused.headers, "x-user"), "u2");
        refused.json(401, json!({}));
        let renewal = fake.next().await;
        assert_eq!((renewal.path.as_str(), renewal.member("refresh_token").as_deref()), ("/token", Some("r-u2")));
        renewal.json(200, hour("u3"));
        let repeated = fake.next().await;
        assert_eq!(text(&repeated.headers, "x-user"), "u3");
        repeated.json(200, json!({}));
    };
    let (response, ()) = tokio::join!(app.called(get("/x")), answers);
    assert_eq!(response.status(), StatusCode::OK);
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_secondary_token_without_a_refresh_token_comes_with_the_main_one() {
    let rules = "[token.secondary.user]\naccess_token = \"/user/access_token\"\nexpires_in = \"/user/expires_in\"\n";
    let short = |token: &str| json!({"access_token": token, "expires_in": 60});
    let (app, mut fake) = consented(rules, two("a1", short("u1"))).await;
    app.advance(100);
    let answer = async { fake.next().await.json(200, two("a2", short("u2"))) };
    assert_eq!(tokio::join!(app.secondary("user"), answer).0.unwrap(), "u2");
    app.advance(100);
    // A reply without it: what has ended does not stay.
    let answer = async { fake.next().await.json(200, hour("a3")) };
    let (gone, ()) = tokio::join!(app.secondary("user"), answer);
    assert!(matches!(gone.unwrap_err(), Error::NotFound { .. }));
    assert_eq!(app.secret("crm").await, "a3");
}

const IN_QUERY: &str = "[api]\nbase_url = \"FAKE/api\"\nquery = { v = \"2\" }\nheaders = { X-App = \"{{client_id}}\" }\nverify = \"/me\"\n\
                        token = [{ in = \"query\", name = \"access_token\" }, { in = \"header\", name = \"X-User\", token = \"user\" }]\n\
                        [token.secondary.user]\naccess_token = \"/user/access_token\"\n";

#[tokio::test]
async fn tokens_go_where_the_definition_says_and_a_token_in_the_query_is_shown_nowhere() {
    let logs = Logs::catch();
    let (app, mut fake) = machine(IN_QUERY, two("canary+Xq81", json!({"access_token": "canary-Xq82"}))).await;
    let answer = async {
        let request: Arrived = fake.next().await;
        assert_eq!(
            (request.path.as_str(), request.query.as_deref()),
            ("/api/x", Some("q=%20&v=2&access_token=canary%2BXq81"))
        );
        assert_eq!(
            (text(&request.headers, "x-user"), text(&request.headers, "x-app")),
            ("canary-Xq82", "sandbox-basic")
        );
        assert!(!request.headers.contains_key("authorization"));
        let to = format!("/elsewhere?{}", request.query.as_deref().unwrap());
        let response = Response::builder().status(302).header("location", to).header("x-echo", "canary+Xq81");
        request.respond(response.body(axum::body::Body::empty()).unwrap());
    };
    let (response, ()) = tokio::join!(app.called(get("/x?q=%20&access_token=mine")), answer);
    let mut shown = format!("{response:?}");
    assert_eq!((response.status(), text(response.headers(), "location")), (StatusCode::FOUND, "/elsewhere?q=%20&v=2"));

    // A failure on the way, and a test whose call fails.
    let cut = async {
        fake.next().await.json(200, two("canary+Xq81", json!({"access_token": "canary-Xq82"})));
        drop(fake.next().await)
    };
    let (refused, ()) = tokio::join!(app.test("crm"), cut);
    shown.push_str(&format!("{refused:?}"));
    let closed = IN_QUERY.replace("FAKE/api", "http://127.0.0.1:1/api");
    let (unreachable, _fake) = machine(&closed, two("canary+Xq81", json!({"access_token": "canary-Xq82"}))).await;
    let refused = unreachable.broker.proxy(&unreachable.admin, "crm", get("/x")).await.unwrap_err();
    shown.push_str(&format!("{refused} {refused:?}"));
    shown.push_str(&format!(
        "{:?}",
        app.broker.audit_records(&app.admin, &keyholder_broker::Page::first()).await.unwrap()
    ));
    shown.push_str(&format!("{:?}", app.broker.history(&app.admin, "crm", 99).await.unwrap()));
    shown.push_str(&logs.text());
    assert!(shown.contains("proxy.call"));
    for canary in ["Xq81", "Xq82"] {
        assert!(!shown.contains(canary), "{canary} in {shown}");
    }
}

#[tokio::test]
async fn a_token_goes_into_the_body_beside_what_the_caller_sent() {
    let rules = "[api]\nbase_url = \"FAKE/api\"\ntoken = { in = \"body\", name = \"auth\" }\n";
    let (app, mut fake) = machine(rules, json!({"access_token": "a\"1"})).await;
    for (sent, kind, arrives) in [
        ("{\"n\":1.10}", "application/json", "{\"auth\":\"a\\\"1\",\"n\":1.10}"),
        ("n=%20&auth=mine", "application/x-www-form-urlencoded", "n=%20&auth=a%221"),
    ] {
        let answer = async {
            let request = fake.next().await;
            assert_eq!(
                (String::from_utf8_lossy(&request.body).as_ref(), text(&request.headers, "content-type")),
                (arrives, kind)
            );
            assert_eq!(text(&request.headers, "content-length"), arrives.len().to_string());
            request.json(200, json!({}));
        };
        tokio::join!(app.called(post(sent, kind)), answer);
    }
    let refused = app.broker.proxy(&app.admin, "crm", post("{}", "text/plain")).await.unwrap_err();
    assert!(refused.to_string().contains("neither a form nor JSON"), "{refused}");
}

#[tokio::test]
async fn an_answer_that_means_an_expired_token_renews_once_and_others_pass_byte_for_byte() {
    let rules = "[api]\nbase_url = \"FAKE/api\"\nexpired_when = [{ status = 418 }, { status = 200, pointer = \"/error/code\", equals = 190 }]\n";
    let (app, mut fake) = machine(rules, json!({"access_token": "a1"})).await;
    let odd = "{ \"error\" : {\"code\":191}, \"n\":1.10 }";
    let json_answer = |text: &'static str| {
        Response::builder().header("content-type", "application/json").body(axum::body::Body::from(text)).unwrap()
    };
    let (response, ()) = tokio::join!(app.called(get("/x")), async { fake.next().await.respond(json_answer(odd)) });
    assert_eq!(read(response).await, odd.as_bytes());

    for (number, expired) in [
        Response::builder().status(418).body(axum::body::Body::empty()).unwrap(),
        json_answer("{\"error\":{\"code\":190}}"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = async {
            fake.next().await.respond(expired);
            fake.next().await.json(200, json!({"access_token": format!("b{number}")}));
            let again = fake.next().await;
            assert_eq!(text(&again.headers, "authorization"), format!("Bearer b{number}"));
            again.json(200, json!({"fine": true}));
        };
        let (response, ()) = tokio::join!(app.called(get("/x")), answer);
        assert_eq!(read(response).await, b"{\"fine\":true}");
    }
    assert_eq!(app.row("crm").await.generation, 3);
}

#[tokio::test]
async fn the_api_hears_how_long_its_caller_waits() {
    let rules = "[api]\nbase_url = \"FAKE/api\"\nlimits = { timeout_header = \"X-Timeout\", timeout_unit = \"ms\" }\n";
    let (app, mut fake) = machine(rules, json!({"access_token": "a1"})).await;
    let asking = |own: &[(&'static str, &'static str)]| {
        let mut request = get("/x");
        let own = own.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        request.headers.extend(own);
        request
    };
    let hurried = asking(&[("keyholder-timeout", "10s"), ("keyholder-retry", "1"), ("x-timeout", "99999")]);
    let answer = async {
        let first = fake.next().await;
        assert_eq!(text(&first.headers, "x-timeout"), "10000", "the gateway's word, not the caller's");
        app.clock.advance(Duration::from_secs(4));
        first.respond(
            Response::builder().status(503).header("retry-after", "0").body(axum::body::Body::empty()).unwrap(),
        );
        let again = later(&app, &mut fake).await;
        let left: u64 = text(&again.headers, "x-timeout").parse().unwrap();
        assert!((1..=6000).contains(&left), "{left}");
        again.json(200, json!({}));
    };
    tokio::join!(app.called(hurried), answer);
    let answer = async {
        let arrived = fake.next().await;
        assert_eq!(text(&arrived.headers, "x-timeout"), "5", "who sets no deadline here may set it there");
        arrived.json(200, json!({}));
    };
    tokio::join!(app.called(asking(&[("x-timeout", "5")])), answer);
}

#[tokio::test]
async fn what_the_api_says_of_its_limits_is_heeded() {
    let rules =
        "[api]\nbase_url = \"FAKE/api\"\nlimits = { remaining_header = \"X-Left\", reset_header = \"X-Reset\" }\n";
    let (app, mut fake) = machine(rules, json!({"access_token": "a1"})).await;
    let answer = async {
        let response =
            Response::builder().status(429).header("retry-after", "30").body(axum::body::Body::from("slower"));
        fake.next().await.respond(response.unwrap());
    };
    let (response, ()) = tokio::join!(app.called(get("/x")), answer);
    assert_eq!((response.status(), text(response.headers(), "retry-after")), (StatusCode::TOO_MANY_REQUESTS, "30"));
    assert_eq!(read(response).await, b"slower");

    app.advance(10);
    let refused = app.broker.proxy(&app.admin, "crm", get("/x")).await.unwrap_err();
    assert!(
        matches!(refused, Error::ApiLimited { said: true, retry_after, .. } if retry_after == Duration::from_secs(20)),
        "{refused}"
    );
    assert!(fake.is_quiet());

    app.advance(20);
    let answer = async {
        let response = Response::builder().header("x-left", "0").header("x-reset", "5").body(axum::body::Body::empty());
        fake.next().await.respond(response.unwrap());
    };
    assert_eq!(tokio::join!(app.called(get("/x")), answer).0.status(), StatusCode::OK);
    assert!(matches!(app.broker.proxy(&app.admin, "crm", get("/x")).await, Err(Error::ApiLimited { .. })));
}

#[tokio::test]
async fn the_test_makes_the_definitions_call_and_judges_the_answer() {
    let rules = "[api]\nbase_url = \"FAKE/api\"\nverify = { method = \"POST\", path = \"/auth.test?full=1\", expect = { pointer = \"/ok\", equals = true } }\n\
                 [[errors]]\ncode = \"not_authed\"\nphase = \"api\"\nmeaning = \"the workspace removed the application\"\nremedy = \"Install it again.\"\n";
    let (app, mut fake) = machine(rules, json!({"access_token": "a1"})).await;
    for (said, ok) in [(json!({"ok": true}), true), (json!({"ok": false, "error": "not_authed"}), false)] {
        let answer = async {
            fake.next().await.json(200, json!({"access_token": "a2"}));
            let request = fake.next().await;
            assert_eq!(
                (request.method.as_str(), request.path.as_str(), request.query.as_deref()),
                ("POST", "/api/auth.test", Some("full=1"))
            );
            request.json(200, said);
        };
        let (report, ()) = tokio::join!(app.test("crm"), answer);
        let report = report.unwrap();
        let call = report.steps.iter().find(|step| step.name == "call").unwrap();
        assert_eq!(call.ok, ok, "{}", call.message);
        if !ok {
            assert_eq!(call.remedy.as_deref(), Some("Install it again."));
            assert!(call.message.ends_with("The workspace removed the application."), "{}", call.message);
        }
    }
}

#[tokio::test]
async fn introspection_says_when_a_token_ends() {
    let rules = "[introspect]\nurl = \"FAKE/introspect\"\n";
    let (app, mut fake) = spoken("authorization_code", rules).await;
    let active = |seconds: i64| json!({"active": true, "exp": (START + seconds * 1000) / 1000});
    let answers = async {
        fake.next().await.json(200, json!({"access_token": "a1", "refresh_token": "r1"}));
        let asked = fake.next().await;
        assert_eq!((asked.path.as_str(), asked.member("token").as_deref()), ("/introspect", Some("a1")));
        asked.json(200, active(7200));
    };
    tokio::join!(app.consent("crm"), answers);
    let row = app.row("crm").await;
    assert_eq!(row.token_expires_at, Some(START + 7_200_000));
    assert!(row.due_at.is_some_and(|due| due < START + 7_200_000));
    assert_eq!(app.token("crm").await.unwrap().expires_in, Some(7200));

    app.advance(7200);
    let answers = async {
        fake.next().await.json(200, json!({"access_token": "a2"}));
        fake.next().await.json(200, active(14_400));
    };
    let (handed, ()) = tokio::join!(app.token("crm"), answers);
    assert_eq!((handed.unwrap().expires_in, app.row("crm").await.generation), (Some(7200), 2));

    for (answer, ok, told) in [
        (active(14_400), true, "active; it expires in 7200 s"),
        (json!({"active": false}), false, "not active"),
        (json!({"error": "invalid_client"}), true, "doesn't say"),
    ] {
        let answers = async { fake.next().await.json(if answer.get("error").is_some() { 401 } else { 200 }, answer) };
        let (report, ()) = tokio::join!(app.test("crm"), answers);
        let report = report.unwrap();
        let step = report.steps.iter().find(|step| step.name == "introspection").unwrap();
        assert_eq!((step.ok, step.message.contains(told)), (ok, true), "{}", step.message);
    }

    // An answer that tells nothing leaves it unknown, and a connection that works.
    app.advance(7200);
    let answers = async {
        fake.next().await.json(200, json!({"access_token": "a3"}));
        fake.next().await.json(500, json!({}));
    };
    let (handed, ()) = tokio::join!(app.token("crm"), answers);
    assert_eq!((handed.unwrap().expires_at, app.status("crm").await), (None, Status::Connected));
}

const SITES: &str = "[[after_connect]]\nname = \"sites\"\nurl = \"FAKE/sites\"\nchoose = { value = \"/id\", save = \"site\" }\nrefresh = true\n\
                     [api]\nbase_url = \"FAKE/site/{{lookup.site}}\"\n";

#[tokio::test]
async fn a_machine_learns_with_its_first_token_and_again_after_each_renewal() {
    let (app, mut fake) = spoken("client_credentials", SITES).await;
    let token = |number: u32| json!({"access_token": format!("a{number}"), "expires_in": HOUR});
    let answers = async {
        fake.next().await.json(200, token(1));
        let asked = fake.next().await;
        assert_eq!((asked.path.as_str(), text(&asked.headers, "authorization")), ("/sites", "Bearer a1"));
        asked.json(200, json!([{"id": "s1"}, {"id": "s2"}]));
    };
    let (refused, ()) = tokio::join!(app.run("crm"), answers);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("s1, s2") && refused.contains("\"choices\": {\"site\""), "{refused}");
    assert!(app.row("crm").await.token_set.is_none());

    let answers = async {
        fake.next().await.json(200, token(2));
        fake.next().await.json(200, json!([{"id": "s1"}]));
    };
    tokio::join!(app.run("crm"), answers).0.unwrap();
    let call = |place: &'static str| (get("/x"), place);
    let (request, place) = call("/site/s1/x");
    let answer = async {
        let arrived = fake.next().await;
        assert_eq!(arrived.path, place);
        arrived.json(200, json!({}));
    };
    tokio::join!(app.called(request), answer);

    // The account moved; then the lookup fails, and what was learnt stays.
    app.advance(HOUR);
    for (status, sites) in [(200, json!([{"id": "s3"}])), (500, json!({}))] {
        let answers = async {
            fake.next().await.json(200, token(3));
            fake.next().await.json(status, sites);
        };
        let (renewed, ()) = tokio::join!(app.broker.refresh(&app.admin, "crm"), answers);
        renewed.unwrap();
        assert_eq!(app.row("crm").await.variables["lookup.site"], "s3");
        let (request, place) = call("/site/s3/x");
        let answer = async {
            let arrived = fake.next().await;
            assert_eq!(arrived.path, place);
            arrived.json(200, json!({}));
        };
        tokio::join!(app.called(request), answer);
    }
}

#[tokio::test]
async fn revocation_is_asked_as_the_definition_says_for_each_token() {
    let rules = format!(
        "{TWO_TOKENS}[revoke]\nurl = \"FAKE/auth.revoke\"\nmethod = \"GET\"\nclient_auth = \"none\"\ntoken = \"access_token\"\n\
         headers = {{ Authorization = \"Bearer {{{{access_token}}}}\" }}\ndrop = [\"token\", \"token_type_hint\", \"client_id\"]\n"
    );
    let (app, mut fake) = consented(&rules, two("a1", user("u1"))).await;
    let answers = async {
        for token in ["a1", "u1"] {
            let asked = fake.next().await;
            assert_eq!(
                (asked.method.as_str(), asked.path.as_str(), asked.query.as_deref()),
                ("GET", "/auth.revoke", None)
            );
            assert_eq!(text(&asked.headers, "authorization"), format!("Bearer {token}"));
            asked.json(200, json!({"ok": true}));
        }
    };
    let (revoked, ()) = tokio::join!(app.broker.revoke(&app.admin, "crm"), answers);
    assert_eq!(revoked.unwrap().1, keyholder_broker::RevocationOutcome::Revoked);
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_client_signs_with_its_key() {
    let app = App::start().await;
    let mut fake = Fake::start().await;
    let text = format!(
        "schema = 1\nid = \"signed\"\nname = \"Signed\"\n[[methods]]\ngrant = \"client_credentials\"\nlabel = \"One\"\n\
         [token]\nurl = \"{}\"\nclient_auth = \"private_key_jwt\"\nclient_assertion = {{ algorithm = \"ES256\" }}\n",
        fake.url("/token")
    );
    app.broker.add_provider(&app.admin, "signed.toml", &text).await.unwrap();
    let new = NewIntegration {
        provider: "signed".to_owned(),
        variables: Default::default(),
        client_secret: None,
        client_key: Some(include_str!("tls.key").into()),
        client_certificate: Some(include_str!("tls.crt").to_owned()),
        ..app.plain("client_credentials")
    };
    app.add_integration(new).await;
    app.add_connection("crm", "client_credentials").await;
    let answer = async {
        let request = fake.next().await;
        let assertion = request.member("client_assertion").unwrap();
        let [header, claims, signature] = assertion.split('.').collect::<Vec<_>>().try_into().unwrap();
        let read = |part: &str| -> Value {
            serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(read(header)["alg"], "ES256");
        let claims = read(claims);
        assert_eq!((&claims["sub"], &claims["aud"]), (&json!("sandbox-basic"), &json!(fake.url("/token"))));
        assert_eq!(claims["iat"], START / 1000);
        assert!(!signature.is_empty() && request.member("client_secret").is_none());
        request.json(200, json!({"access_token": "a1"}));
    };
    tokio::join!(app.run("crm"), answer).0.unwrap();
    assert_eq!(app.secret("crm").await, "a1");

    // Its certificate ends in a century; a warning comes ahead.
    let found = || async {
        let checks = app.broker.doctor(&app.admin).await.unwrap();
        checks
            .into_iter()
            .filter(|check| check.name == "client certificate")
            .map(|check| check.message)
            .collect::<Vec<_>>()
    };
    assert!(found().await.is_empty());
    let ends_at = 4_948_953_074_000;
    app.clock.set(ends_at - 10 * 86_400_000);
    assert!(matches!(&found().await[..], [it] if it.contains("10 days")));
    app.clock.set(ends_at);
    assert!(matches!(&found().await[..], [it] if it.contains("has expired")));
}
