//! What the gateway decides by itself: repetitions, deadlines, limits of keys and connections.

use std::time::Duration;

use axum::body::Body as AxumBody;
use axum::http::{HeaderName, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use keyholder_broker::egress::{Body, BoxError, full};
use keyholder_broker::model::{Limits, Rate, Scope};
use keyholder_broker::{Error, IntegrationEdit, Page, ProxyRequest, Reply};
use serde_json::json;

use crate::app::App;
use crate::fake::{Arrived, Fake};
use crate::gateway::{get, with_api};

fn asking<const N: usize>(mut request: ProxyRequest, headers: [(&'static str, &str); N]) -> ProxyRequest {
    for (name, value) in headers {
        request.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    request
}

fn sending(method: Method, body: &'static str) -> ProxyRequest {
    ProxyRequest { body: full(body), ..ProxyRequest::new(method, "/x").unwrap() }
}

/// The next request, while time passes.
pub async fn later(app: &App, fake: &mut Fake) -> Arrived {
    let mut next = std::pin::pin!(fake.next());
    loop {
        tokio::select! {
            biased;
            arrived = &mut next => return arrived,
            () = tokio::task::yield_now() => app.clock.advance(Duration::from_millis(1)),
        }
    }
}

fn answer(arrived: Arrived, status: u16, headers: &[(&'static str, &str)]) {
    let response =
        headers.iter().fold(Response::builder().status(status), |it, (name, value)| it.header(*name, *value));
    arrived.respond(response.body(AxumBody::from("said")).unwrap());
}

async fn call(app: &App, request: ProxyRequest) -> Result<Response<Reply>, Error> {
    app.broker.proxy(&app.admin, "crm", request).await
}

fn now(app: &App) -> i64 {
    app.broker.now_ms()
}

#[tokio::test]
async fn what_may_pass_is_tried_again_as_often_as_the_caller_says() {
    let (app, mut fake) = with_api().await;
    let answers = async {
        for status in [503, 502, 504] {
            let arrived = later(&app, &mut fake).await;
            assert!(!arrived.headers.keys().any(|name| name.as_str().starts_with("keyholder-")));
            assert_eq!(arrived.body, "same");
            answer(arrived, status, &[]);
        }
        answer(later(&app, &mut fake).await, 200, &[]);
    };
    let asked = asking(sending(Method::PUT, "same"), [("keyholder-retry", "3")]);
    let (response, ()) = tokio::join!(call(&app, asked), answers);
    assert_eq!(response.unwrap().status(), 200);

    // One more failure than asked for is the answer; so is the first where nothing was asked.
    for (retries, answers) in [("1", 2), ("0", 1)] {
        let failing = async {
            for _ in 0..answers {
                answer(later(&app, &mut fake).await, 503, &[]);
            }
        };
        let (response, ()) = tokio::join!(call(&app, asking(get("/x"), [("keyholder-retry", retries)])), failing);
        let response = response.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "said");
    }
    assert!(fake.is_quiet());
    let records = app.broker.audit_records(&app.admin, &Page::first()).await.unwrap();
    let calls = records.iter().filter(|record| record.action == "proxy.call");
    assert_eq!(calls.count(), 3, "a repetition is part of its call");
}

#[tokio::test]
async fn only_what_can_do_no_harm_twice_is_tried_again() {
    let (app, mut fake) = with_api().await;
    for request in [sending(Method::POST, "x"), sending(Method::PATCH, "x"), {
        let pieces = futures_util::stream::iter([Ok::<_, BoxError>(http_body::Frame::data("once".into()))]);
        let body = Body::boxed(http_body_util::StreamBody::new(pieces));
        ProxyRequest { body, ..ProxyRequest::new(Method::PUT, "/x").unwrap() }
    }] {
        let once = async { answer(later(&app, &mut fake).await, 503, &[]) };
        let (response, ()) = tokio::join!(call(&app, asking(request, [("keyholder-retry", "5")])), once);
        assert_eq!(response.unwrap().status(), 503);
    }
    for status in [400, 401, 404, 408, 500, 501, 200] {
        let asked = asking(sending(Method::PUT, "x"), [("keyholder-retry", "5")]);
        let answers = async {
            answer(later(&app, &mut fake).await, status, &[]);
            if status == 401 {
                // A renewal and its repetition need no permission.
                answer(later(&app, &mut fake).await, 401, &[]);
            }
        };
        let (response, ()) = tokio::join!(call(&app, asked), answers);
        assert_eq!(response.unwrap().status(), status);
    }
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_lost_answer_and_a_refused_connection_are_tried_again_where_that_was_asked() {
    let app = App::start().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut new = app.plain("client_credentials");
    new.variables.insert("api_base_url".to_owned(), format!("http://{closed}/"));
    app.add_integration(new).await;
    app.add_connection("crm", "client_credentials").await;
    app.run("crm").await.unwrap();
    let opened = async {
        // The first try has failed when time passes; the second finds a server.
        let listener = tokio::net::TcpListener::bind(closed).await.unwrap();
        let mut next = std::pin::pin!(listener.accept());
        loop {
            tokio::select! {
                biased;
                accepted = &mut next => return accepted.unwrap(),
                () = tokio::task::yield_now() => app.clock.advance(Duration::from_millis(1)),
            }
        }
    };
    let refused = call(&app, get("/x")).await.unwrap_err();
    assert!(matches!(refused, Error::Egress(_)), "{refused}");
    let mut calling = std::pin::pin!(call(&app, asking(get("/x"), [("keyholder-retry", "5")])));
    // As far as it goes while nobody listens.
    for _ in 0..100 {
        tokio::select! { biased; _ = &mut calling => panic!("it has not waited"), () = tokio::task::yield_now() => {} }
    }
    tokio::select! {
        _ = &mut calling => panic!("nobody has answered"),
        (stream, _) = opened => drop(stream),
    }
}

#[tokio::test]
async fn the_apis_own_hint_is_waited_for_within_reason() {
    let (app, mut fake) = with_api().await;
    let began = now(&app);
    let answers = async {
        answer(later(&app, &mut fake).await, 429, &[("retry-after", "7")]);
        answer(later(&app, &mut fake).await, 200, &[]);
    };
    let (response, ()) = tokio::join!(call(&app, asking(get("/x"), [("keyholder-retry", "1")])), answers);
    assert_eq!(response.unwrap().status(), 200);
    assert!(now(&app) - began >= 7000);

    // Neither an hour, nor longer than the caller has.
    for (hint, within) in [("3600", "24h"), ("7", "5s")] {
        app.advance(3600);
        // Renewed here: below, time flies while a slow disk syncs.
        app.token("crm").await.unwrap();
        let once = async { answer(later(&app, &mut fake).await, 429, &[("retry-after", hint)]) };
        let asked = asking(get("/x"), [("keyholder-retry", "5"), ("keyholder-timeout", within)]);
        let (response, ()) = tokio::join!(call(&app, asked), once);
        let response = response.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, hint));
    }
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_call_is_over_when_its_caller_says() {
    let (app, mut fake) = with_api().await;
    let silence = async {
        let arrived = fake.next().await;
        app.clock.advance(Duration::from_millis(1500));
        arrived
    };
    let (response, _arrived) = tokio::join!(call(&app, asking(get("/x"), [("keyholder-timeout", "1500ms")])), silence);
    assert!(matches!(response, Err(Error::DeadlinePassed(within)) if within.as_millis() == 1500));

    // Within the reply's body, too.
    let endless = async {
        let pieces = futures_util::stream::once(async { Ok::<_, BoxError>("first".to_owned()) });
        let pieces = futures_util::StreamExt::chain(pieces, futures_util::stream::pending());
        fake.next().await.respond(Response::new(AxumBody::from_stream(pieces)));
    };
    let (response, ()) = tokio::join!(call(&app, asking(get("/x"), [("keyholder-timeout", "10s")])), endless);
    let mut body = response.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    app.clock.advance(Duration::from_secs(10));
    let broken = body.frame().await.unwrap().unwrap_err().to_string();
    assert!(broken.contains("not over within 10s"), "{broken}");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn what_a_caller_asks_of_the_gateway_must_make_sense() {
    let (app, fake) = with_api().await;
    for (name, value) in [
        ("keyholder-retry", "6"),
        ("keyholder-retry", "-1"),
        ("keyholder-retry", "often"),
        ("keyholder-retry", ""),
        ("keyholder-timeout", "10"),
        ("keyholder-timeout", "0s"),
        ("keyholder-timeout", "25h"),
        ("keyholder-timeout", "soon"),
        ("keyholder-timeout", "99999999999999999999s"),
    ] {
        let refused = call(&app, asking(get("/x"), [(name, value)])).await.unwrap_err();
        let Error::Invalid(errors) = &refused else { panic!("{name} {value}: {refused}") };
        assert!(errors[0].field.eq_ignore_ascii_case(name), "{refused}");
    }
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_key_makes_as_many_calls_as_its_limits_allow() {
    let app = App::start().await;
    app.machine("crm").await;
    let rate = Rate { per_second: Some(2.0), concurrent: Some(1) };
    let caller = app.caller("agent", &[Scope::Call, Scope::Token], Limits { rate, ..Limits::default() }).await;
    let call = async || app.broker.proxy(&caller, "crm", get("/me")).await;
    let first = call().await.unwrap();
    let Err(Error::CallerLimited { key, retry_after }) = call().await else { panic!("two at once") };
    assert_eq!((key.as_str(), retry_after), ("agent", Duration::from_secs(1)));
    drop(first);
    drop(call().await.unwrap());
    let Err(Error::CallerLimited { retry_after, .. }) = call().await else { panic!("three in a second") };
    assert_eq!(retry_after, Duration::from_millis(500));
    assert!(matches!(app.broker.token(&caller, "crm", None).await, Err(Error::CallerLimited { .. })));
    assert!(app.broker.proxy(&app.admin, "crm", get("/me")).await.is_ok(), "another key has its own limits");
    app.clock.advance(retry_after);
    assert!(app.broker.token(&caller, "crm", None).await.is_ok());
    assert!(call().await.is_err(), "a hand-out counts like a call");
    assert_eq!(app.seen("api"), 3, "what is refused isn't sent");
}

#[tokio::test]
async fn each_connection_of_an_integration_makes_as_many_calls_as_that_allows() {
    let (app, mut fake) = with_api().await;
    app.add_connection("erp", "client_credentials").await;
    app.run("erp").await.unwrap();
    let limit = async |per_second, concurrent| {
        let edit = IntegrationEdit { limits: Some(Rate { per_second, concurrent }), ..IntegrationEdit::default() };
        app.broker.edit_integration(&app.admin, "client_credentials", edit).await.unwrap();
    };
    limit(None, Some(1)).await;
    let (first, ()) = tokio::join!(call(&app, get("/x")), async { fake.next().await.json(200, json!({})) });
    let first = first.unwrap();
    let waiting = call(&app, get("/x"));
    let patience = async {
        // Another connection doesn't wait for this one.
        let other = app.broker.proxy(&app.admin, "erp", get("/x"));
        let (other, ()) = tokio::join!(other, async { fake.next().await.json(200, json!({})) });
        assert_eq!(other.unwrap().status(), 200);
        app.advance(10);
    };
    let (refused, ()) = tokio::join!(waiting, patience);
    assert!(matches!(refused, Err(Error::ApiLimited { said: false, .. })), "{refused:?}");
    drop(first);

    limit(Some(0.1), None).await;
    for wait in [0, 10] {
        let began = now(&app);
        let (made, ()) =
            tokio::join!(call(&app, get("/x")), async { later(&app, &mut fake).await.json(200, json!({})) });
        assert_eq!(made.unwrap().status(), 200);
        assert!(now(&app) - began >= wait * 1000, "{wait}");
    }
    limit(None, None).await;
    let (made, ()) = tokio::join!(call(&app, get("/x")), async { fake.next().await.json(200, json!({})) });
    assert_eq!(made.unwrap().status(), 200);
    for limits in [
        Rate { per_second: Some(0.0), concurrent: None },
        Rate { per_second: Some(-1.0), concurrent: None },
        Rate { per_second: Some(f64::NAN), concurrent: None },
        Rate { per_second: Some(f64::INFINITY), concurrent: None },
        Rate { per_second: None, concurrent: Some(0) },
    ] {
        let edit = IntegrationEdit { limits: Some(limits), ..IntegrationEdit::default() };
        let refused = app.broker.edit_integration(&app.admin, "client_credentials", edit).await.unwrap_err();
        assert!(matches!(&refused, Error::Invalid(errors) if errors[0].field.starts_with("limits.")), "{refused}");
    }
}

#[tokio::test]
async fn what_keyholder_says_is_said_by_nobody_else() {
    let (app, mut fake) = with_api().await;
    let pretending = async { answer(fake.next().await, 500, &[("keyholder-error", "not_connected"), ("x-own", "1")]) };
    let (response, ()) = tokio::join!(call(&app, get("/x")), pretending);
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["x-own"].to_str().unwrap()), (500, "1"));
    assert!(!response.headers().contains_key("keyholder-error"));
}
