//! Renewal: once, whoever asks; nothing lost, whatever the provider does.

use std::time::Duration;

use keyholder_broker::model::{Failure, Status};
use keyholder_broker::{ConnectionEdit, Error, HandedToken, IntegrationEdit, Result};
use keyholder_oauth::FailureKind;
use keyholder_sandbox::{Options, Rotation, Which};
use serde_json::json;
use tokio::task::JoinSet;

use crate::app::App;
use crate::fake::{Arrived, Fake};

fn rotating(rotation: Rotation) -> Options {
    Options { rotation, ..Options::default() }
}

/// What a caller is told instead of a token.
fn told(answer: Result<HandedToken>) -> (Status, Failure, Option<Duration>) {
    match answer.unwrap_err() {
        Error::NotReady { state, failure, retry_after, .. } => (state, failure.unwrap(), retry_after),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn ten_thousand_callers_of_an_expired_token_make_one_request() {
    let app = App::with(rotating(Rotation::Family)).await;
    app.password("crm").await;
    app.advance(3600);
    app.fault("token=slow:50");
    let mut callers = JoinSet::new();
    for _ in 0..10_000 {
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        callers.spawn(async move { broker.token(&admin, "crm", None).await });
    }
    let mut tokens = std::collections::BTreeSet::new();
    while let Some(handed) = callers.join_next().await {
        let handed = handed.unwrap().unwrap();
        tokens.insert((handed.generation, handed.access_token.expose().to_owned()));
    }
    assert_eq!(tokens.len(), 1, "everybody gets the same token");
    assert_eq!(tokens.first().unwrap().0, 2);
    assert_eq!((app.sent("refresh_token"), app.sandbox.counters().max_simultaneous_refreshes), (1, 1));
    app.flush_usage().await;
    assert_eq!(app.recorded("token.read", "ok").await, 10_000);
    assert_eq!(app.count("SELECT sum(hand_outs) FROM usage"), 10_000);
    assert_eq!(app.count("SELECT sum(renewals) FROM usage WHERE caller = ''"), 2, "the first grant, and the renewal");
}

#[tokio::test]
async fn callers_that_go_away_abandon_no_exchange() {
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        callers.spawn(async move { broker.token(&admin, "crm", None).await });
    }
    let request = fake.next().await;
    callers.shutdown().await;
    request.json(200, json!({"access_token": "at-2", "expires_in": 3600, "refresh_token": "rt-2"}));
    assert_eq!(app.secret("crm").await, "at-2");
    assert!(fake.is_quiet());
    assert_eq!(app.row("crm").await.generation, 2);
    assert!(app.escrow().is_empty());

    // And the new refresh token is the one that is used next.
    app.advance(3600);
    let next = async { fake.next().await.member("refresh_token") };
    let (_, used) = tokio::join!(app.token("crm"), next);
    assert_eq!(used.as_deref(), Some("rt-2"));
}

#[tokio::test]
async fn a_replaced_refresh_token_is_used_next() {
    let app = App::with(rotating(Rotation::Rotate)).await;
    app.consented("crm").await;
    for generation in 2..6 {
        app.advance(3600);
        assert_eq!(app.token("crm").await.unwrap().generation, generation);
    }
    assert_eq!((app.sent("refresh_token"), app.sandbox.counters().reuse_detections), (4, 0));
}

#[tokio::test]
async fn a_reply_without_a_refresh_token_keeps_the_old_one() {
    let app = App::with(rotating(Rotation::Static)).await;
    app.consented("crm").await;
    for generation in 2..4 {
        app.advance(3600);
        assert_eq!(app.token("crm").await.unwrap().generation, generation);
    }
    assert_eq!(app.sent("refresh_token"), 2);
}

#[tokio::test]
async fn unusual_but_usable_replies_are_taken() {
    for fault in ["token=expires_text", "token=form_reply", "token=no_token_type", "token=duplicated"] {
        let app = App::with(rotating(Rotation::Static)).await;
        app.fault(fault);
        app.machine("crm").await;
        let handed = app.token("crm").await.unwrap();
        assert_eq!((handed.expires_in, handed.token_type.as_str()), (Some(3600), "Bearer"), "{fault}");
    }
}

#[tokio::test]
async fn an_unknown_lifetime_is_served_until_the_api_says_no() {
    let app = App::start().await;
    app.fault("token=no_expires_in");
    app.machine("crm").await;
    app.advance(365 * 24 * 3600);
    let handed = app.token("crm").await.unwrap();
    assert_eq!((handed.expires_at, handed.generation), (None, 1));
}

#[tokio::test]
async fn a_valid_token_is_served_while_its_renewal_fails_and_the_reason_is_told_after() {
    let app = App::start().await;
    app.consented("crm").await;
    let first = app.secret("crm").await;
    app.sandbox.revoke(&Which::All);
    app.advance(3600 - 20);
    assert_eq!(app.waited_for("crm", 30).await, first);
    let row = app.row("crm").await;
    assert_eq!((row.state.status(), row.failures.grant), (Status::Reconnect, 1));
    assert_eq!(row.state.failure().unwrap().code.as_deref(), Some("invalid_grant"));

    app.advance(20);
    let (state, failure, _) = told(app.token("crm").await);
    assert_eq!((state, failure.kind), (Status::Reconnect, FailureKind::Grant));
    assert!(failure.remedy.contains("Authorise the connection again"), "{}", failure.remedy);
    assert_eq!(app.sent("refresh_token"), 1, "a dead grant is not asked for again");
    assert_eq!(app.kinds("crm").await, ["connected", "consented", "created", "failed"]);

    app.consent("crm").await;
    assert_eq!(app.token("crm").await.unwrap().generation, 2);
}

#[tokio::test]
async fn a_slow_renewal_does_not_hold_up_who_has_a_valid_token() {
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600 - 20);
    // Who wishes for no more than a valid token doesn't wait at all: this clock stands still.
    assert_eq!(app.secret("crm").await, "at-1");
    let request = fake.next().await;
    let caller = async {
        // The patience of who wishes for more ends; the renewal's doesn't.
        app.advance(2);
    };
    let (served, ()) = tokio::join!(app.waited_for("crm", 60), caller);
    assert_eq!(served, "at-1");
    request.json(200, json!({"access_token": "at-2", "expires_in": 3600}));
    app.broker.finish_renewals().await;
    assert_eq!(app.row("crm").await.generation, 2);
    assert_eq!(app.secret("crm").await, "at-2");
}

#[tokio::test]
async fn a_provider_that_never_answers_is_given_up_and_callers_are_told() {
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let silence = async {
        let request = fake.next().await;
        app.advance(31);
        request
    };
    let (answer, _request) = tokio::join!(app.token("crm"), silence);
    let (state, failure, retry_after) = told(answer);
    assert_eq!((state, failure.kind), (Status::Failing, FailureKind::Transient));
    assert!(failure.message.contains("did not answer within 30 s"), "{}", failure.message);
    assert!(retry_after.unwrap() >= Duration::from_secs(1));
    // It may still get there: the claim stays until it can't.
    let over_at = app.row("crm").await.attempt.unwrap().deadline + 20_000;
    assert_eq!(app.row("crm").await.retry_at, Some(over_at));
}

#[tokio::test]
async fn a_lost_reply_is_never_two_live_requests() {
    let app = App::with(rotating(Rotation::Rotate)).await;
    app.consented("crm").await;
    app.fault("token=lost,times=1,grant=refresh_token");
    app.advance(3600);
    let (state, failure, _) = told(app.token("crm").await);
    assert_eq!((state, failure.kind), (Status::Failing, FailureKind::Transient));
    assert!(failure.remedy.contains("may have acted"), "{}", failure.remedy);
    app.advance(60);
    // The reply is gone and with it the new refresh token: nobody can help that, but it is told.
    let (state, failure, _) = told(app.token("crm").await);
    assert_eq!((state, failure.code.as_deref()), (Status::Reconnect, Some("invalid_grant")));
    let counters = app.sandbox.counters();
    assert_eq!((app.sent("refresh_token"), counters.max_simultaneous_refreshes), (2, 1));
}

#[tokio::test]
async fn where_reuse_kills_the_grant_a_lost_reply_does_not_kill_a_valid_token() {
    let app = App::with(rotating(Rotation::Family)).await;
    app.broker.add_provider(&app.admin, "strict.toml", &strict(&app, "family")).await.unwrap();
    app.add_integration(keyholder_broker::NewIntegration {
        provider: "strict".to_owned(),
        variables: Default::default(),
        ..app.plain("authorization_code")
    })
    .await;
    app.add_connection("crm", "authorization_code").await;
    app.consent("crm").await;
    let first = app.secret("crm").await;
    app.fault("token=lost,times=1,grant=refresh_token");
    app.advance(3600 - 29);
    assert_eq!(app.waited_for("crm", 60).await, first);
    app.advance(20);
    assert_eq!(app.waited_for("crm", 60).await, first);
    assert_eq!((app.sent("refresh_token"), app.sandbox.counters().reuse_detections), (1, 0));
    assert!(app.is_accepted(&first).await, "the sandbox would have revoked it with the grant");
    app.advance(9);
    assert_eq!(told(app.token("crm").await).0, Status::Failing, "the first request may still arrive");
    app.advance(31);
    assert_eq!(told(app.token("crm").await).0, Status::Reconnect);
}

#[tokio::test]
async fn a_wrong_client_secret_is_a_matter_of_set_up_and_never_of_the_grant() {
    let app = App::start().await;
    app.consented("crm").await;
    let edit = |secret: &str| IntegrationEdit { client_secret: Some(secret.into()), ..IntegrationEdit::default() };
    app.broker.edit_integration(&app.admin, "authorization_code", edit("wrong")).await.unwrap();
    app.advance(3600);
    for failures in 1..=5 {
        let (state, failure, retry_after) = told(app.token("crm").await);
        assert_eq!((state, failure.kind), (Status::Failing, FailureKind::Setup));
        assert_eq!(failure.code.as_deref(), Some("invalid_client"));
        assert!(failure.remedy.contains("client secret"), "{}", failure.remedy);
        let row = app.row("crm").await;
        assert_eq!((row.failures.setup, row.failures.transient, row.failures.grant), (failures, 0, 0));
        assert_eq!(row.retry_at, failure.next_try_at);
        assert_eq!(app.sent("refresh_token"), failures.unsigned_abs());
        // Not before its time, by whomever.
        app.clock.advance(retry_after.unwrap() - Duration::from_millis(1));
        assert_eq!(told(app.token("crm").await).0, Status::Failing);
        assert_eq!(app.sent("refresh_token"), failures.unsigned_abs());
        app.clock.advance(Duration::from_millis(1));
    }
    // Corrected, it is tried at once, whatever the backoff.
    told(app.token("crm").await);
    app.broker.edit_integration(&app.admin, "authorization_code", edit("sandbox-secret")).await.unwrap();
    assert_eq!(app.row("crm").await.retry_at, None);
    assert_eq!(app.token("crm").await.unwrap().generation, 2);
    let row = app.row("crm").await;
    assert_eq!((row.state.status(), row.failures), (Status::Connected, Default::default()));
}

#[tokio::test]
async fn each_fault_of_a_provider_is_of_its_kind_and_passes() {
    use FailureKind::{Setup, Transient};
    let faults = [
        ("status:500", Transient, "HTTP 500"),
        ("server_error", Transient, "HTTP 503"),
        ("rate_limited:600", Transient, "too often"),
        ("html", Transient, "HTML page"),
        ("malformed", Transient, "can't be used"),
        ("empty", Transient, "it is empty"),
        ("drop", Transient, "broke before the reply"),
        ("huge", Transient, "larger than"),
        ("redirect", Setup, "redirects elsewhere"),
        ("status:404", Setup, "HTTP 404"),
        ("status:403", Transient, "HTTP 403"),
        ("error:temporarily_unavailable", Transient, "temporarily_unavailable"),
        ("error:invalid_scope", Setup, "invalid_scope"),
        ("error_200:server_error", Transient, "server_error"),
    ];
    for (fault, kind, words) in faults {
        let app = App::with(rotating(Rotation::Static)).await;
        app.consented("crm").await;
        app.fault(&format!("token={fault},times=1"));
        app.advance(3600);
        let (state, failure, retry_after) = told(app.token("crm").await);
        assert_eq!((state, failure.kind), (Status::Failing, kind), "{fault}: {}", failure.message);
        assert!(failure.message.contains(words), "{fault}: {}", failure.message);
        let row = app.row("crm").await;
        assert_eq!((row.failures.setup, row.failures.transient), if kind == Setup { (1, 0) } else { (0, 1) });
        let wait = retry_after.unwrap();
        assert_eq!(row.retry_at, Some(app.now() + i64::try_from(wait.as_millis()).unwrap()), "{fault}");
        if fault.starts_with("rate_limited") {
            assert!(wait >= Duration::from_secs(600), "{wait:?}");
        }
        app.clock.advance(wait - Duration::from_millis(1));
        told(app.token("crm").await);
        assert_eq!(app.sent("refresh_token"), 1, "{fault}: nothing is sent before its time");
        app.clock.advance(Duration::from_millis(1));
        assert_eq!(app.token("crm").await.unwrap().generation, 2, "{fault}");
        assert_eq!((app.status("crm").await, app.seen("elsewhere")), (Status::Connected, 0));
    }
}

#[tokio::test]
async fn backoff_grows_and_stays_bounded() {
    let app = App::start().await;
    app.consented("crm").await;
    app.fault("token=server_error");
    app.advance(3600);
    let mut waits = Vec::new();
    for _ in 0..14 {
        let wait = told(app.token("crm").await).2.unwrap();
        waits.push(wait);
        app.clock.advance(wait);
    }
    assert!(waits[0] <= Duration::from_secs(2) && waits[0] >= Duration::from_secs(1), "{waits:?}");
    assert!(waits[6] >= Duration::from_secs(64), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(900)), "{waits:?}");
    assert_eq!(app.row("crm").await.failures.transient, 14);
}

#[tokio::test]
async fn a_person_who_insists_is_not_held_up_by_backoff() {
    let app = App::start().await;
    app.consented("crm").await;
    app.fault("token=server_error,times=1");
    app.advance(3600);
    told(app.token("crm").await);
    // Somebody else's look at the same moment, which backoff does hold up, is not taken for the answer.
    let (held_up, insisted) = tokio::join!(app.token("crm"), app.broker.refresh(&app.admin, "crm"));
    assert_eq!(insisted.unwrap().generation, 2);
    drop(held_up);
    assert_eq!(app.sent("refresh_token"), 2);
}

#[tokio::test]
async fn wishing_for_more_life_than_there_is_ends_no_connection() {
    let (app, mut fake) = with_fake().await;
    let answer = async { fake.next().await.json(200, json!({"access_token": "at-1", "expires_in": 3600})) };
    tokio::join!(app.consent("crm"), answer);
    app.advance(1800);
    let handed = app.broker.token(&app.admin, "crm", Some(Duration::from_secs(3000))).await.unwrap();
    assert_eq!(handed.access_token.expose(), "at-1");
    assert_eq!(app.status("crm").await, Status::Connected, "it is valid for half an hour more");
    let refused = app.broker.refresh(&app.admin, "crm").await.unwrap_err().to_string();
    assert!(refused.contains("no refresh token"), "{refused}");
    assert_eq!(app.status("crm").await, Status::Connected);

    app.advance(1800);
    let (state, failure, _) = told(app.token("crm").await);
    assert_eq!((state, failure.kind), (Status::Reconnect, FailureKind::Grant));
    assert!(failure.message.contains("no refresh token"), "{}", failure.message);
}

#[tokio::test]
async fn what_was_never_authorised_cannot_be_refreshed_and_stays_a_draft() {
    let app = App::start().await;
    app.add_integration(app.plain("authorization_code")).await;
    app.add_connection("crm", "authorization_code").await;
    let refused = app.broker.refresh(&app.admin, "crm").await.unwrap_err();
    assert!(matches!(refused, Error::NotReady { state: Status::Draft, failure: None, .. }), "{refused}");
    assert_eq!(app.status("crm").await, Status::Draft);
}

#[tokio::test]
async fn two_processes_send_once() {
    let (app, mut fake) = with_fake_refresh().await;
    let sibling = app.sibling().await;
    app.advance(3600);
    let answer = async {
        let request = fake.next().await;
        // The sibling now sees the claim, and waits.
        let waiting = tokio::spawn({
            let (broker, admin) = (sibling.broker.clone(), sibling.admin.clone());
            async move { broker.token(&admin, "crm", None).await }
        });
        request.json(200, json!({"access_token": "at-2", "expires_in": 3600, "refresh_token": "rt-2"}));
        Some(waiting)
    };
    let (mine, waiting) = tokio::join!(app.token("crm"), answer);
    assert_eq!(mine.unwrap().access_token.expose(), "at-2");
    // It looks again after 200 ms of this clock, if it saw the claim; perhaps it is about to begin to wait.
    let waiting = waiting.unwrap();
    while !waiting.is_finished() {
        app.clock.advance(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap().unwrap().access_token.expose(), "at-2");
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_connection_that_is_ended_meanwhile_gets_no_late_token() {
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let answer = async {
        let request = fake.next().await;
        let ended = app.broker.revoke(&app.admin, "crm");
        let told_provider = async {
            assert_eq!(fake.next().await.member("token").as_deref(), Some("rt-1"));
        };
        let (ended, ()) = tokio::join!(ended, told_provider);
        assert_eq!(ended.unwrap().0.connection.state.status(), Status::Revoked);
        request.json(200, json!({"access_token": "at-2", "expires_in": 3600, "refresh_token": "rt-2"}));
        // What came too late is nobody's, and the provider is told.
        assert_eq!(fake.next().await.member("token").as_deref(), Some("rt-2"));
    };
    let (late, ()) = tokio::join!(app.token("crm"), answer);
    assert!(late.is_err());
    assert_eq!(app.status("crm").await, Status::Revoked);
    assert!(matches!(app.token("crm").await, Err(Error::NotReady { state: Status::Revoked, .. })));
}

#[tokio::test]
async fn a_token_that_was_replaced_by_a_new_consent_meanwhile_revokes_nothing() {
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let answer = async {
        let request = fake.next().await;
        let code = async {
            let exchange = fake.next().await;
            assert_eq!(exchange.member("grant_type").as_deref(), Some("authorization_code"));
            exchange.json(200, json!({"access_token": "new", "expires_in": 3600, "refresh_token": "rt-new"}));
        };
        tokio::join!(app.consent("crm"), code);
        request.json(200, json!({"access_token": "at-2", "expires_in": 3600, "refresh_token": "rt-2"}));
    };
    // Many providers hold one grant for a person and a client: revoking the old would end the new.
    let (handed, ()) = tokio::join!(app.token("crm"), answer);
    assert_eq!(handed.unwrap().access_token.expose(), "new");
    assert_eq!(app.secret("crm").await, "new");
    app.broker.finish_renewals().await;
    assert!(fake.is_quiet());
}

/// Many threads, so that a token may be read just before, and put into memory just after, the connection is ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_is_in_memory_after_the_end() {
    let app = App::start().await;
    app.machine("crm").await;
    for _ in 0..40 {
        // Out of memory, so that the next callers read the row.
        app.broker.edit_connection(&app.admin, "crm", ConnectionEdit::default()).await.unwrap();
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let (broker, admin) = (app.broker.clone(), app.admin.clone());
            callers.spawn(async move { broker.token(&admin, "crm", None).await.map(drop) });
        }
        app.broker.revoke(&app.admin, "crm").await.unwrap();
        callers.join_all().await;
        assert!(matches!(app.token("crm").await, Err(Error::NotReady { state: Status::Revoked, .. })));
        app.run("crm").await.unwrap();
    }
}

/// A consent connection whose provider is the test itself.
pub async fn with_fake() -> (App, Fake) {
    let app = App::start().await;
    let fake = Fake::start().await;
    let mut new = app.plain("authorization_code");
    new.variables.insert("token_url".to_owned(), fake.url("/token"));
    new.variables.insert("revocation_url".to_owned(), fake.url("/revoke"));
    app.add_integration(new).await;
    app.add_connection("crm", "authorization_code").await;
    (app, fake)
}

/// As [`with_fake`], consented: `at-1` for an hour, and `rt-1`.
pub async fn with_fake_refresh() -> (App, Fake) {
    let (app, mut fake) = with_fake().await;
    let grant = |request: Arrived| {
        request.json(200, json!({"access_token": "at-1", "expires_in": 3600, "refresh_token": "rt-1"}))
    };
    let answer = async { grant(fake.next().await) };
    tokio::join!(app.consent("crm"), answer);
    (app, fake)
}

/// A definition with the sandbox's endpoints and this recovery class.
fn strict(app: &App, recovery: &str) -> String {
    let base = app.sandbox.base_url();
    format!(
        "schema = 1\nid = \"strict\"\nname = \"Strict\"\n[[methods]]\ngrant = \"authorization_code\"\nlabel = \"A person consents\"\n\
         [authorize]\nurl = \"{base}/authorize\"\n[token]\nurl = \"{base}/token\"\n[refresh]\nrecovery = \"{recovery}\"\n"
    )
}
