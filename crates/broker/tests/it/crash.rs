//! A reply that came is never lost: not by a full disk, not by a crash between any two steps.

use std::path::Path;

use keyholder_broker::model::Status;
use keyholder_broker::{Error, Page};
use serde_json::json;

use crate::app::{App, Database};
use crate::fake::Fake;
use crate::logs::Logs;
use crate::renewal::{with_fake, with_fake_refresh};

const NO_COMMIT: &str = "BEFORE UPDATE OF token_set ON connections";
const NO_CLAIM: &str = "BEFORE UPDATE OF attempt ON connections WHEN (NEW.attempt IS NOT NULL)";

#[tokio::test]
async fn a_reply_in_escrow_is_committed_at_the_start_after_a_crash() {
    let logs = Logs::catch();
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let renewing = renew_into_a_full_disk(&app, &mut fake, &logs).await;
    assert_eq!(app.escrow().len(), 1);

    // The crash: what is on disk now, and nothing else.
    let after = app.crashed_with(relent).await;
    assert_eq!(after.recovered, 1);
    let after = after.app;
    let row = after.row("crm").await;
    assert_eq!((row.generation, row.state.status()), (2, Status::Connected));
    assert!(row.attempt.is_none() && after.escrow().is_empty());
    assert_eq!(after.secret("crm").await, "at-2");
    assert!(after.kinds("crm").await.contains(&"recovered".to_owned()));
    assert!(fake.is_quiet());
    // The refresh token of the reply, not the spent one, is used next.
    after.advance(3600);
    let used = async { fake.next().await.member("refresh_token") };
    let (_, used) = tokio::join!(after.token("crm"), used);
    assert_eq!(used.as_deref(), Some("rt-2"));
    renewing.abort();
}

#[tokio::test]
async fn a_reply_that_cannot_be_committed_at_the_start_comes_before_the_next_request() {
    let logs = Logs::catch();
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let renewing = renew_into_a_full_disk(&app, &mut fake, &logs).await;
    let after = app.crashed_with(|_| ()).await;
    assert_eq!(after.recovered, 0);
    let after = after.app;
    assert_eq!(after.escrow().len(), 1, "it stays");
    assert!(after.token("crm").await.is_err());
    after.relent();
    assert_eq!(after.secret("crm").await, "at-2");
    assert!(fake.is_quiet() && after.escrow().is_empty());
    renewing.abort();
}

#[tokio::test]
async fn a_full_disk_that_has_room_again_costs_nothing() {
    let logs = Logs::catch();
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let renewing = renew_into_a_full_disk(&app, &mut fake, &logs).await;
    app.relent();
    app.advance(1);
    assert_eq!(renewing.await.unwrap().unwrap(), "at-2");
    assert_eq!((app.row("crm").await.generation, app.escrow().len()), (2, 0));
    assert!(fake.is_quiet());
}

#[tokio::test]
async fn a_claim_that_ran_out_while_the_store_was_away_loses_no_token() {
    let logs = Logs::catch();
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let renewing = renew_into_a_full_disk(&app, &mut fake, &logs).await;
    app.relent();
    // Another process took the dead claim over.
    app.database.run("UPDATE connections SET attempt = 'att_00000000000000000000000000', attempt_owner = 'other'");
    app.advance(1);
    assert_eq!(renewing.await.unwrap().unwrap(), "at-2");
    assert_eq!(app.row("crm").await.generation, 2);
    app.broker.finish_renewals().await;
    assert!(fake.is_quiet(), "nothing was revoked");
}

#[tokio::test]
async fn a_store_that_cannot_be_written_spends_no_refresh_token() {
    let app = App::start().await;
    app.consented("crm").await;
    app.advance(3600);
    app.refuse(NO_CLAIM);
    for _ in 0..3 {
        let refused = app.token("crm").await.unwrap_err();
        assert!(matches!(refused, Error::Store(_)), "{refused}");
        assert!(refused.to_string().contains("the disk is full"), "{refused}");
    }
    assert_eq!((app.sent("refresh_token"), app.status("crm").await), (0, Status::Connected));
    app.relent();
    assert_eq!(app.token("crm").await.unwrap().generation, 2);
}

#[tokio::test]
async fn a_store_that_is_locked_spends_no_refresh_token() {
    let app = App::start().await;
    app.consented("crm").await;
    app.advance(3600);
    // What the audit still has to write would meet the lock as well, and close the door for another reason.
    app.broker.audit_records(&app.admin, &Page::first()).await.unwrap();
    let lock = app.database.lock();
    let refused = app.token("crm").await.unwrap_err();
    assert!(refused.to_string().contains("lock"), "{refused}");
    assert_eq!(app.sent("refresh_token"), 0);
    drop(lock);
    assert_eq!(app.token("crm").await.unwrap().generation, 2);
}

#[tokio::test]
async fn nobody_sends_while_a_dead_processs_request_may_be_in_flight() {
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let caller = tokio::spawn(caller_of(&app));
    let in_flight = fake.next().await;
    // The process dies: no escrow, only the claim.
    let after = app.crashed_with(|_| ()).await.app;
    let waiting = tokio::spawn(caller_of(&after));
    for _ in 0..12 {
        // 40 s for the claim, 20 s more because a second use may do harm.
        settle(&after).await;
        assert!(fake.is_quiet());
        after.advance(5);
    }
    // The claim is judged from when it was first seen, a moment after the start.
    while fake.is_quiet() {
        after.advance(1);
        settle(&after).await;
    }
    let again = fake.next().await;
    assert_eq!(again.member("refresh_token").as_deref(), Some("rt-1"));
    again.json(200, json!({"access_token": "at-3", "expires_in": 3600, "refresh_token": "rt-3"}));
    // This caller's own patience of 45 s is over; the renewal is not.
    assert!(matches!(waiting.await.unwrap(), Err(Error::StillRenewing)));
    assert_eq!(after.secret("crm").await, "at-3");
    drop(in_flight);
    caller.abort();
}

#[tokio::test]
async fn a_damaged_reply_does_not_stop_its_connection_for_ever() {
    let logs = Logs::catch();
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let renewing = renew_into_a_full_disk(&app, &mut fake, &logs).await;
    let reply = app.escrow().remove(0);
    let after = app
        .crashed_with(|folder| {
            relent(folder);
            std::fs::write(folder.join("escrow").join(reply.file_name().unwrap()), b"noise").unwrap();
        })
        .await
        .app;
    after.advance(61);
    let answer = async {
        let request = fake.next().await;
        assert_eq!(request.member("refresh_token").as_deref(), Some("rt-1"));
        request.json(200, json!({"access_token": "at-3", "expires_in": 3600}));
    };
    let (handed, ()) = tokio::join!(after.token("crm"), answer);
    assert_eq!(handed.unwrap().access_token.expose(), "at-3");
    renewing.abort();
}

#[tokio::test]
async fn each_reply_in_escrow_of_a_connection_is_looked_at() {
    let logs = Logs::catch();
    let (app, mut fake) = with_fake_refresh().await;
    app.advance(3600);
    let renewing = renew_into_a_full_disk(&app, &mut fake, &logs).await;
    let reply = app.escrow().remove(0).file_name().unwrap().to_str().unwrap().to_owned();
    for last in ["0", "7", "f"] {
        // Attempts before it, and after it.
        let (stem, _) = reply.strip_suffix(".reply").unwrap().split_at(reply.len() - ".reply".len() - 1);
        let other = format!("{stem}{last}.reply");
        if other == reply {
            continue;
        }
        let after = app
            .crashed_with(|folder| {
                relent(folder);
                std::fs::write(folder.join("escrow").join(other), b"noise").unwrap();
            })
            .await;
        assert_eq!(after.recovered, 1);
        assert_eq!(after.app.secret("crm").await, "at-2");
    }
    renewing.abort();
}

#[tokio::test]
async fn a_code_whose_tokens_cannot_be_stored_leaves_no_grant_behind() {
    let (app, mut fake) = with_fake().await;
    app.refuse("BEFORE INSERT ON pending_grants");
    let token = app.invite("crm").await;
    let begun = app.leave(&token).await;
    let back = app.decide(&begun.redirect, "allow", "alice").await;
    let provider = async {
        fake.next().await.json(200, json!({"access_token": "at-1", "refresh_token": "rt-1"}));
        let revocation = fake.next().await;
        assert_eq!((revocation.path.as_str(), revocation.member("token").as_deref()), ("/revoke", Some("rt-1")));
        revocation.json(200, json!({}));
    };
    let (finished, ()) = tokio::join!(app.return_with(&back, &begun), provider);
    assert!(matches!(finished.err(), Some(Error::Store(_))));
    assert_eq!(app.status("crm").await, Status::Draft);
}

/// Starts a renewal whose reply comes, is put in escrow, and can't be committed.
async fn renew_into_a_full_disk(
    app: &App,
    fake: &mut Fake,
    logs: &Logs,
) -> tokio::task::JoinHandle<keyholder_broker::Result<String>> {
    let caller = tokio::spawn(caller_of(app));
    let request = fake.next().await;
    app.refuse(NO_COMMIT);
    request.json(200, json!({"access_token": "at-2", "expires_in": 3600, "refresh_token": "rt-2"}));
    logs.wait_for("can't be stored yet").await;
    caller
}

fn caller_of(app: &App) -> impl Future<Output = keyholder_broker::Result<String>> + use<> {
    let (broker, admin) = (app.broker.clone(), app.admin.clone());
    async move { broker.token(&admin, "crm", None).await.map(|handed| handed.access_token.expose().to_owned()) }
}

fn relent(folder: &Path) {
    Database::of(folder).relent();
}

/// Lets everything that can go on without the clock go on: a write and a read come back behind all that was asked before.
async fn settle(app: &App) {
    for _ in 0..3 {
        app.broker.doctor(&app.admin).await.unwrap();
    }
}
