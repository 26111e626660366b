//! What happens by itself: renewal ahead of need, once; and replies kept for repeated requests.

use keyholder_broker::clock::Clock;
use keyholder_broker::model::Status;
use keyholder_broker::points::Points;
use keyholder_broker::store::Store;
use keyholder_broker::{Idempotency, IntegrationEdit, KeptReply, NewIntegration, Verdict};
use serde_json::json;
use tokio::sync::oneshot;

use crate::app::{App, START};
use crate::fake::{Arrived, Fake};
use crate::renewal::{with_fake, with_fake_refresh};

/// The scheduler at work, until it is dropped.
struct Scheduler {
    _stop: oneshot::Sender<()>,
}

fn start(app: &App) -> Scheduler {
    let (stop, stopped) = oneshot::channel();
    let broker = app.broker.clone();
    tokio::spawn(async move { broker.run_scheduler(async { drop(stopped.await) }).await });
    Scheduler { _stop: stop }
}

/// The next request, the clock going on second by second until it comes.
pub async fn by_the_clock(app: &App, fake: &mut Fake) -> Arrived {
    while fake.is_quiet() {
        app.advance(1);
        app.broker.doctor(&app.admin).await.unwrap();
    }
    fake.next().await
}

#[tokio::test]
async fn a_due_token_is_renewed_ahead_by_itself_and_once() {
    let (app, mut fake) = with_fake_refresh().await;
    let _scheduler = start(&app);
    // Due 15 minutes before its end, and a little jitter earlier.
    for _ in 0..86 {
        app.advance(30);
        app.broker.doctor(&app.admin).await.unwrap();
    }
    assert!(fake.is_quiet(), "not yet due");
    let request = by_the_clock(&app, &mut fake).await;
    assert!(app.now() < START + 2_705_000);
    assert_eq!(request.member("refresh_token").as_deref(), Some("rt-1"));
    assert_eq!(app.secret("crm").await, "at-1", "nobody waits for it");
    request.json(200, json!({"access_token": "at-2", "expires_in": 3600, "refresh_token": "rt-2"}));
    while app.row("crm").await.generation == 1 {}
    for _ in 0..20 {
        app.advance(30);
        app.broker.doctor(&app.admin).await.unwrap();
    }
    assert!(fake.is_quiet(), "once");
    assert_eq!(app.secret("crm").await, "at-2");
}

#[tokio::test]
async fn what_fails_is_tried_again_when_its_time_has_come_and_not_before() {
    let (app, mut fake) = with_fake_refresh().await;
    let _scheduler = start(&app);
    app.advance(2700);
    for failures in 1..=6 {
        let request = by_the_clock(&app, &mut fake).await;
        assert!(app.row("crm").await.retry_at.is_none_or(|at| at <= app.now()), "before its time");
        request.json(500, json!({}));
        while app.row("crm").await.failures.transient < failures {}
        let row = app.row("crm").await;
        assert_eq!((row.state.status(), row.due_at), (Status::Failing, row.retry_at));
    }
    by_the_clock(&app, &mut fake).await.json(200, json!({"access_token": "at-2", "expires_in": 3600}));
    while app.status("crm").await != Status::Connected {}
    assert!(app.now() - START < 3_600_000 + 120_000);
}

#[tokio::test]
async fn a_dead_grant_is_not_tried_again() {
    let (app, mut fake) = with_fake_refresh().await;
    let _scheduler = start(&app);
    app.advance(2700);
    by_the_clock(&app, &mut fake).await.json(400, json!({"error": "invalid_grant"}));
    while app.status("crm").await != Status::Reconnect {}
    assert_eq!(app.row("crm").await.due_at, None);
    for _ in 0..200 {
        app.advance(30);
        app.broker.doctor(&app.admin).await.unwrap();
    }
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_revocation_of_what_nobody_confirmed() {
    let (app, mut fake) = with_fake().await;
    let token = app.invite("crm").await;
    let begun = app.leave(&token).await;
    let back = app.decide(&begun.redirect, "allow", "alice").await;
    let answer = async { fake.next().await.json(200, json!({"access_token": "at-1", "expires_in": 3600})) };
    let (finished, ()) = tokio::join!(app.return_with(&back, &begun), answer);
    finished.unwrap();
    assert_eq!(app.status("crm").await, Status::Pending);

    app.advance(3600);
    let (stop, stopped) = oneshot::channel::<()>();
    let broker = app.broker.clone();
    let scheduler = tokio::spawn(async move { broker.run_scheduler(async { drop(stopped.await) }).await });
    let unanswered = fake.next().await;
    assert_eq!((unanswered.path.as_str(), unanswered.member("token").as_deref()), ("/revoke", Some("at-1")));
    assert_ne!(app.status("crm").await, Status::Pending);
    drop(stop);
    scheduler.await.unwrap();
}

#[tokio::test]
async fn a_due_time_that_a_renewal_has_set_meanwhile_stands() {
    let app = App::start().await;
    app.machine("crm").await;
    let row = app.row("crm").await;
    let store = Store::open(&app.database.location(), Clock::Manual(app.clock.clone()), Points::default()).unwrap();
    let (id, due, now, generation) = (row.id.clone(), row.due_at.unwrap(), app.now(), row.generation);
    assert!(due > now);
    store.write(move |tx| tx.postpone(&id, generation, now + 60_000, now)).await.unwrap();
    assert_eq!(app.row("crm").await.due_at, Some(due));
    let id = row.id.clone();
    store.write(move |tx| tx.postpone(&id, generation, due + 60_000, due)).await.unwrap();
    assert_eq!(app.row("crm").await.due_at, Some(due + 60_000));
}

#[tokio::test]
async fn no_renewal_begins_while_the_process_stops_and_those_under_way_end() {
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let caller = tokio::spawn({
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        async move { broker.token(&admin, "crm", None).await }
    });
    let request = fake.next().await;
    let answer = async { request.json(200, json!({"access_token": "at-2", "expires_in": 3600})) };
    tokio::join!(app.broker.finish_renewals(), answer);
    assert_eq!(caller.await.unwrap().unwrap().access_token.expose(), "at-2");
    app.advance(3600);
    assert!(app.token("crm").await.is_err());
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_reply_and_another_is_told_apart() {
    let app = App::start().await;
    let begin = |hash: u8| app.broker.begin_idempotent(&app.admin, "order-1", [hash; 32]);
    assert!(matches!(begin(1).await.unwrap(), Idempotency::First));
    assert!(matches!(begin(1).await.unwrap(), Idempotency::UnderWay));
    let reply = KeptReply {
        status: 201,
        content_type: "application/json".to_owned(),
        body: "{\"key\":\"planted\"}".to_owned(),
    };
    app.broker.keep_reply(&app.admin, "order-1", &reply).await.unwrap();
    let Idempotency::Replay(kept) = begin(1).await.unwrap() else { panic!("it was kept") };
    assert_eq!((kept.status, kept.content_type.as_str(), kept.body), (201, "application/json", reply.body));
    assert!(matches!(begin(2).await.unwrap(), Idempotency::Differs));
    // Another key's caller has names of its own.
    let other = app.caller("agent", &[keyholder_broker::model::Scope::Manage], Default::default()).await;
    assert!(matches!(app.broker.begin_idempotent(&other, "order-1", [1; 32]).await.unwrap(), Idempotency::First));
    app.broker.forget_reply(&other, "order-1").await.unwrap();
    assert!(matches!(app.broker.begin_idempotent(&other, "order-1", [9; 32]).await.unwrap(), Idempotency::First));

    // A day later it is forgotten.
    let _scheduler = start(&app);
    app.advance(24 * 3600);
    while app.count("SELECT count(*) FROM idempotency") > 0 {
        app.broker.doctor(&app.admin).await.unwrap();
    }
    assert!(matches!(begin(2).await.unwrap(), Idempotency::First));
}

/// What doctor says of this.
async fn found(app: &App, name: &str) -> Vec<(Verdict, String)> {
    let checks = app.broker.doctor(&app.admin).await.unwrap();
    checks.into_iter().filter(|check| check.name == name).map(|check| (check.verdict, check.message)).collect()
}

async fn warnings(app: &App) -> Vec<String> {
    let events = app.broker.history(&app.admin, "crm", 100).await.unwrap();
    events.into_iter().filter(|event| event.kind == "ends_soon").map(|event| event.message).collect()
}

#[tokio::test]
async fn the_end_of_a_grant_is_warned_of_at_14_and_3_days_and_one_once_each() {
    const DAY: u64 = 24 * 3600;
    let app = App::start().await;
    app.consented("crm").await;
    let ends = |days: u64| app.now() + i64::try_from(days * DAY * 1000).unwrap();
    app.database.run(&format!("UPDATE connections SET due_at = NULL, dies_at = {}", ends(20)));
    let _scheduler = start(&app);
    let mut gone = 0;
    for (days, said) in [(6, "14 days"), (17, "3 days"), (19, "24 h")] {
        let before = warnings(&app).await.len();
        app.advance(days * DAY - 60 - gone);
        for _ in 0..20 {
            assert_eq!(found(&app, "database").await.len(), 1);
        }
        assert_eq!(warnings(&app).await.len(), before, "not yet");
        app.advance(60);
        while warnings(&app).await.len() == before {}
        assert!(warnings(&app).await[0].contains(said), "{:?}", warnings(&app).await);
        app.advance(31);
        gone = days * DAY + 31;
        for _ in 0..20 {
            assert!(matches!(&found(&app, "connection").await[..], [(Verdict::Warning, _)]));
        }
        assert_eq!(warnings(&app).await.len(), before + 1, "once");
    }
}

#[tokio::test]
async fn a_life_so_short_that_it_always_is_near_its_end_is_not_warned_of() {
    let app = App::start().await;
    app.consented("crm").await;
    app.database.run(&format!("UPDATE connections SET due_at = NULL, dies_at = {}", app.now() + 12 * 3_600_000));
    let _scheduler = start(&app);
    for _ in 0..100 {
        app.advance(600);
        assert!(found(&app, "connection").await.is_empty());
    }
    assert!(warnings(&app).await.is_empty());
}

#[tokio::test]
async fn a_client_secret_that_expires_is_warned_of_and_named_as_the_cause() {
    let app = App::start().await;
    let ends = app.now() + 2 * 24 * 3_600_000;
    let new = NewIntegration { client_secret_expires_at: Some(ends), ..app.plain("client_credentials") };
    app.add_integration(new).await;
    app.add_connection("crm", "client_credentials").await;
    app.run("crm").await.unwrap();
    assert!(matches!(&found(&app, "client secret").await[..], [(Verdict::Warning, it)] if it.contains("2 days")));
    app.advance(5 * 24 * 3600);
    assert!(matches!(&found(&app, "client secret").await[..], [(Verdict::Problem, _)]));
    app.fault("error:invalid_client");
    assert!(app.token("crm").await.is_err());
    let row = app.row("crm").await;
    assert!(row.state.failure().unwrap().remedy.contains("probably expired"), "{row:?}");

    // What was said of the old secret doesn't hold for a new one.
    let edit = IntegrationEdit { client_secret: Some("sandbox-secret".into()), ..IntegrationEdit::default() };
    let edited = app.broker.edit_integration(&app.admin, "client_credentials", edit).await.unwrap();
    assert_eq!(edited.client_secret_expires_at, None);
    assert!(found(&app, "client secret").await.is_empty());
    let seconds = IntegrationEdit { client_secret_expires_at: Some(Some(ends / 1000)), ..IntegrationEdit::default() };
    let refused = app.broker.edit_integration(&app.admin, "client_credentials", seconds).await.err().unwrap();
    assert!(format!("{refused:?}").contains("client_secret_expires_at"));
}
