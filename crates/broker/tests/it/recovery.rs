//! After a lost reply, a dead owner, a clock that was set, a process that was halted: what is tried, and what isn't.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyholder_broker::clock::{Clock, ManualClock};
use keyholder_broker::model::{Attempt, Connection, Status};
use keyholder_broker::points::{Points, Verdict};
use keyholder_broker::store::Store;
use keyholder_broker::{Error, NewIntegration, NewVersion};
use keyholder_sandbox::Options;
use serde_json::json;

use crate::app::{App, START, settings};
use crate::fake::Fake;
use crate::gateway::get;

/// A consent connection of a provider with this recovery class, whose token endpoint is the test: `at-1` for an hour, and `rt-1`.
async fn classed(class: &str) -> (App, Fake) {
    let app = App::start().await;
    let fake = consented(&app, class, "").await;
    (app, fake)
}

async fn consented(app: &App, class: &str, reply: &str) -> Fake {
    let mut fake = Fake::start().await;
    app.broker.add_provider(&app.admin, "classed.toml", &definition(app, &fake, class, reply)).await.unwrap();
    let new = NewIntegration {
        provider: "classed".to_owned(),
        variables: Default::default(),
        ..app.plain("authorization_code")
    };
    app.add_integration(new).await;
    app.add_connection("crm", "authorization_code").await;
    let answer = async { fake.next().await.json(200, tokens(1)) };
    tokio::join!(app.consent("crm"), answer);
    fake
}

fn definition(app: &App, fake: &Fake, class: &str, reply: &str) -> String {
    let base = app.sandbox.base_url();
    let window = if class == "window" { "window = \"60s\"\n" } else { "" };
    format!(
        "schema = 1\nid = \"classed\"\nname = \"Classed\"\n[[methods]]\ngrant = \"authorization_code\"\nlabel = \"A person consents\"\n\
         [authorize]\nurl = \"{base}/authorize\"\n[token]\nurl = \"{}\"\n[token.reply]\n{reply}\n[refresh]\nrecovery = \"{class}\"\n{window}\
         [api]\nbase_url = \"{base}/api\"\n",
        fake.url("/token")
    )
}

fn tokens(number: u32) -> serde_json::Value {
    json!({"access_token": format!("at-{number}"), "expires_in": 3600, "refresh_token": format!("rt-{number}")})
}

/// A renewal that a caller waits for, and whose reply is lost on the way.
async fn lose_a_reply(app: &App, fake: &mut Fake) {
    let lose = async {
        let request = fake.next().await;
        assert_eq!(request.member("refresh_token").as_deref(), Some("rt-1"));
        request.json(502, json!({}));
    };
    let (served, ()) = tokio::join!(app.waited_for("crm", 3000), lose);
    assert_eq!(served, "at-1", "it is valid");
}

async fn history(app: &App) -> String {
    let events = app.broker.history(&app.admin, "crm", 100).await.unwrap();
    events.iter().map(|event| format!("{}: {}\n", event.kind, event.message)).collect()
}

#[tokio::test]
async fn each_class_is_tried_again_in_its_own_time() {
    let classes = [
        ("static", 2_000, "stay valid"),
        ("until_used", 2_000, "until its successor is used"),
        ("window", 1_000, "for a while"),
        ("single_use", 2_000, "if it didn't, sending it again helps"),
        ("access_dies", 1_000, "the access token before it are both spent"),
        ("family", 2_600_000, "end the whole grant"),
    ];
    for (class, most, words) in classes {
        let (app, mut fake) = classed(class).await;
        app.advance(1000);
        lose_a_reply(&app, &mut fake).await;
        let row = app.row("crm").await;
        assert_eq!((row.state.status(), row.lost_at), (Status::Failing, Some(app.now())), "{class}");
        let wait = row.retry_at.unwrap() - app.now();
        let least = if most > 2_000 { most } else { most / 2 };
        assert!((least..=most).contains(&wait), "{class}: {wait} ms");
        let told = history(&app).await;
        assert!(told.contains("The provider may have acted on the request") && told.contains(words), "{told}");
        // Nobody sends before that, and a token that is valid is served meanwhile.
        assert_eq!(app.waited_for("crm", 3000).await, "at-1");
        assert!(fake.is_quiet(), "{class}");
        app.clock.advance(Duration::from_millis(wait.unsigned_abs()));

        let take = async {
            let request = fake.next().await;
            assert_eq!(request.member("refresh_token").as_deref(), Some("rt-1"));
            request.json(200, tokens(2));
        };
        let (renewed, ()) = tokio::join!(app.waited_for("crm", 3000), take);
        assert_eq!(renewed, "at-2", "{class}");
        assert_eq!(app.row("crm").await.lost_at, None);
        assert!(history(&app).await.contains("did no harm"), "{class}");
    }
}

/// Without an answer the first request may still arrive: where a second use does harm, the claim stays, and 20 s beyond it.
#[tokio::test]
async fn a_request_without_an_answer_keeps_its_claim_where_a_second_use_does_harm() {
    for (class, keeps) in
        [("static", false), ("until_used", false), ("window", false), ("single_use", true), ("access_dies", true)]
    {
        let (app, mut fake) = classed(class).await;
        app.advance(1000);
        let silence = async {
            let request = fake.next().await;
            app.advance(31);
            request
        };
        let (served, _request) = tokio::join!(app.waited_for("crm", 3000), silence);
        assert_eq!(served, "at-1", "it is valid");
        app.broker.doctor(&app.admin).await.unwrap();
        let row = loop {
            let row = app.row("crm").await;
            if row.state.status() == Status::Failing {
                break row;
            }
        };
        assert_eq!(row.attempt.is_some(), keeps, "{class}");
        let wait = row.retry_at.unwrap() - app.now();
        assert!(if keeps { wait == 29_000 } else { wait <= 2_000 }, "{class}: {wait} ms");
        if keeps {
            // Even a person who insists is told how long.
            let refused = app.broker.refresh(&app.admin, "crm").await;
            assert!(
                matches!(refused, Err(Error::NotReady { retry_after: Some(left), .. }) if left.as_millis() == 29_000)
            );
        }
        assert!(fake.is_quiet());
    }
}

#[tokio::test]
async fn within_the_window_it_is_tried_again_and_again() {
    let (app, mut fake) = classed("window").await;
    app.advance(1000);
    lose_a_reply(&app, &mut fake).await;
    // After the fifth the token endpoint's circuit opens.
    for _ in 0..4 {
        let wait = app.row("crm").await.retry_at.unwrap() - app.now();
        assert!(wait <= 1000, "{wait}");
        app.clock.advance(Duration::from_millis(wait.unsigned_abs()));
        let lose = async { fake.next().await.json(502, json!({})) };
        tokio::join!(app.waited_for("crm", 3000), lose);
    }
    // The window has closed.
    app.advance(60);
    let lose = async { fake.next().await.json(502, json!({})) };
    tokio::join!(app.waited_for("crm", 3000), lose);
    assert!(app.row("crm").await.retry_at.unwrap() - app.now() > 10_000);
}

#[tokio::test]
async fn a_refusal_after_a_lost_reply_says_that_one_was_lost() {
    let (app, mut fake) = classed("single_use").await;
    app.advance(1000);
    lose_a_reply(&app, &mut fake).await;
    app.advance(60);
    let refuse = async { fake.next().await.json(400, json!({"error": "invalid_grant"})) };
    // The access token is valid all the same.
    let (served, ()) = tokio::join!(app.waited_for("crm", 3000), refuse);
    assert_eq!((served.as_str(), app.status("crm").await), ("at-1", Status::Reconnect));
    let told = history(&app).await;
    assert!(told.contains("a reply had been lost, and with it the refresh token that replaced this one"), "{told}");
}

#[tokio::test]
async fn a_person_who_insists_lifts_the_caution_of_a_family() {
    let (app, mut fake) = classed("family").await;
    app.advance(1000);
    lose_a_reply(&app, &mut fake).await;
    let take = async { fake.next().await.json(200, tokens(2)) };
    let (renewed, ()) = tokio::join!(app.broker.refresh(&app.admin, "crm"), take);
    assert_eq!(renewed.unwrap().generation, 2);
}

#[tokio::test]
async fn an_api_that_refuses_the_token_lifts_the_caution_of_a_family() {
    let (app, mut fake) = classed("family").await;
    app.advance(1000);
    lose_a_reply(&app, &mut fake).await;
    app.advance(60);
    assert_eq!(app.waited_for("crm", 3000).await, "at-1");
    assert!(fake.is_quiet());
    // The sandbox's API doesn't know the token that the test made up: 401.
    let called = tokio::spawn({
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        async move { broker.proxy(&admin, "crm", get("/me")).await.map(drop) }
    });
    let again = fake.next().await;
    assert_eq!(again.member("refresh_token").as_deref(), Some("rt-1"));
    again.json(200, tokens(2));
    called.await.unwrap().unwrap();
    assert_eq!(app.row("crm").await.generation, 2);
}

/// A claim must not pass on what was read before somebody else sent without an answer.
#[tokio::test]
async fn what_was_read_before_a_reply_was_lost_is_no_ground_for_a_claim() {
    let (app, mut fake) = classed("family").await;
    app.advance(1000);
    let seen = app.row("crm").await;
    lose_a_reply(&app, &mut fake).await;
    let now = app.row("crm").await;
    let database = settings(app.folder.path()).database;
    let store = Store::open(&database, Clock::Manual(app.clock.clone()), Points::default()).unwrap();
    let attempt =
        Attempt { id: "att_00000000000000000000000000".parse().unwrap(), owner: "other".to_owned(), deadline: 0 };
    for (lost_at, failures) in [(None, seen.failures), (now.lost_at, seen.failures), (None, now.failures)] {
        let (attempt, stale) = (attempt.clone(), Connection { lost_at, failures, ..now.clone() });
        assert!(!store.write(move |tx| tx.claim(&stale, &attempt, None)).await.unwrap());
    }
    assert!(store.write(move |tx| tx.claim(&now, &attempt, None)).await.unwrap());
}

#[tokio::test]
async fn a_dead_owner_of_a_family_costs_no_valid_token() {
    let (app, mut fake) = classed("family").await;
    app.advance(1000);
    let caller = tokio::spawn({
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        async move { broker.token(&admin, "crm", Some(Duration::from_secs(3000))).await }
    });
    let in_flight = fake.next().await;
    let after = app.crashed_with(|_| ()).await.app;
    // The claim and the patience are over; the access token is valid for 40 min more.
    after.advance(100);
    assert_eq!(after.waited_for("crm", 3000).await, "at-1");
    assert!(fake.is_quiet());
    let row = after.row("crm").await;
    assert_eq!((row.state.status(), row.lost_at), (Status::Failing, Some(START + 1_000_000)));
    assert_eq!(row.retry_at, row.token_expires_at);
    let told = history(&after).await;
    assert!(told.contains("ended in the middle of it"), "{told}");

    after.advance(2500);
    let take = async {
        let again = fake.next().await;
        assert_eq!(again.member("refresh_token").as_deref(), Some("rt-1"));
        again.json(200, tokens(3));
    };
    let (renewed, ()) = tokio::join!(after.secret("crm"), take);
    assert_eq!(renewed, "at-3");
    drop(in_flight);
    caller.abort();
}

#[tokio::test]
async fn a_clock_set_forward_takes_no_claim_away() {
    let (app, mut fake) = classed("single_use").await;
    let sibling = app.sibling().await;
    app.advance(3600);
    let mine = tokio::spawn({
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        async move { broker.token(&admin, "crm", None).await.map(|handed| handed.generation) }
    });
    let in_flight = fake.next().await;
    // An hour later, as the clock says; no time has passed.
    app.clock.set(app.now() + 3_600_000);
    let waiting = tokio::spawn({
        let (broker, admin) = (sibling.broker.clone(), sibling.admin.clone());
        async move { broker.token(&admin, "crm", None).await.map(|handed| handed.generation) }
    });
    for _ in 0..20 {
        app.broker.doctor(&app.admin).await.unwrap();
        sibling.broker.doctor(&app.admin).await.unwrap();
        app.advance(1);
    }
    assert!(fake.is_quiet(), "the request is in flight");
    in_flight.json(200, tokens(2));
    assert_eq!(mine.await.unwrap().unwrap(), 2);
    app.advance(1);
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_clock_set_back_keeps_no_dead_claim_alive() {
    let (app, mut fake) = classed("single_use").await;
    app.advance(3600);
    let caller = tokio::spawn({
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        async move { broker.token(&admin, "crm", None).await.map(drop) }
    });
    let in_flight = fake.next().await;
    let after = app.crashed_with(|_| ()).await.app;
    // The access token is as valid again as it was a day before; a person asks.
    after.clock.set(after.now() - 24 * 3_600_000);
    let asked = tokio::spawn({
        let (broker, admin) = (after.broker.clone(), after.admin.clone());
        async move { broker.refresh(&admin, "crm").await.map(drop) }
    });
    for _ in 0..59 {
        after.broker.doctor(&after.admin).await.unwrap();
        assert!(fake.is_quiet(), "the dead owner's request may be in flight");
        after.advance(1);
    }
    // The claim is judged from when it was first seen, a moment after the start.
    while fake.is_quiet() {
        after.advance(1);
        after.broker.doctor(&after.admin).await.unwrap();
    }
    let again = fake.next().await;
    assert_eq!(again.member("refresh_token").as_deref(), Some("rt-1"));
    again.json(200, tokens(3));
    // Who asked has gone away after 45 s; the renewal is done all the same.
    assert!(matches!(asked.await.unwrap(), Err(Error::StillRenewing)));
    after.broker.finish_renewals().await;
    assert_eq!(after.row("crm").await.generation, 2);
    drop(in_flight);
    caller.abort();
}

#[tokio::test]
async fn a_process_that_was_halted_after_its_claim_sends_nothing_under_it() {
    let clock = ManualClock::starting_at(START);
    let claims = Arc::new(AtomicUsize::new(0));
    let points = Points::with({
        let (clock, claims) = (clock.clone(), Arc::clone(&claims));
        move |point| {
            if point == "claimed" && claims.fetch_add(1, Ordering::Relaxed) == 0 {
                // The machine sleeps: with the longest reply, the request could outlive the claim.
                clock.advance(Duration::from_secs(10));
            }
            Verdict::Go
        }
    });
    let app = App::with_points(Options::default(), &clock, points).await;
    let mut fake = consented(&app, "single_use", "").await;
    app.advance(3600);
    let answer = async { fake.next().await.json(200, tokens(2)) };
    let (renewed, ()) = tokio::join!(app.token("crm"), answer);
    assert_eq!(renewed.unwrap().generation, 2);
    assert_eq!(claims.load(Ordering::Relaxed), 2, "the first claim was given back");
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_reply_in_which_no_token_was_found_is_read_again_with_a_better_definition() {
    let app = App::start().await;
    let mut fake = consented(&app, "single_use", "").await;
    app.advance(3600);
    let strange = async {
        let mine = json!({"data": {"access_token": "at-2", "expires_in": 3600, "refresh_token": "rt-2"}});
        fake.next().await.json(200, mine);
    };
    let (refused, ()) = tokio::join!(app.token("crm"), strange);
    assert!(matches!(refused, Err(Error::NotReady { state: Status::Failing, .. })));
    assert_eq!(app.escrow().len(), 1, "it holds the only refresh token that works");

    let better = "access_token = \"/data/access_token\"\nrefresh_token = \"/data/refresh_token\"\nexpires_in = \"/data/expires_in\"";
    let definition = definition(&app, &fake, "single_use", better);
    app.broker.add_provider(&app.admin, "classed.toml", &definition).await.unwrap();
    app.broker.upgrade_integration(&app.admin, "authorization_code", NewVersion::default()).await.unwrap();
    assert_eq!(app.secret("crm").await, "at-2");
    assert!(fake.is_quiet() && app.escrow().is_empty());
    assert_eq!(app.row("crm").await.state.status(), Status::Connected);
}
