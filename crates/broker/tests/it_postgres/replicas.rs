//! Two replicas on one database: what one changes, the other doesn't use for more than a second.

use std::time::Duration;

use keyholder_broker::model::{FenceReason, Limits, NewKey, PlainKey, Scope, Status};
use keyholder_broker::{ConnectionEdit, Error, IntegrationEdit, ProxyRequest};

use crate::app::{App, alice, copy_folder, open, values};

/// A connection whose token both hold in memory, and a key that both know.
async fn two() -> (App, App, PlainKey) {
    let one = App::start().await;
    one.password("crm").await;
    let other = one.sibling().await;
    let new =
        NewKey { name: "k".to_owned(), scopes: [Scope::Token].into(), limits: Limits::default(), expires_at: None };
    let key = one.broker.create_key(&one.admin, new).await.unwrap().key;
    for app in [&one, &other] {
        app.broker.catch_up().await.unwrap();
        app.broker.authenticate(&key).await.unwrap();
        app.token("crm").await.unwrap();
    }
    (one, other, key)
}

/// What makes memory old, and what shows that it isn't used.
#[tokio::test]
async fn within_a_second_memory_answers_and_after_it_the_database_does() {
    let (one, other, key) = two().await;
    let before = other.secret("crm").await;
    one.broker.revoke_key(&one.admin, "k").await.unwrap();
    one.broker.refresh(&one.admin, "crm").await.unwrap();
    // The clock stands still, so nobody has looked: this is memory's answer, and it may be.
    assert!(other.broker.authenticate(&key).await.is_ok());
    assert_eq!(other.secret("crm").await, before);
    one.clock.advance(Duration::from_millis(999));
    assert!(other.broker.authenticate(&key).await.is_ok());
    one.clock.advance(Duration::from_millis(1));
    assert!(matches!(other.broker.authenticate(&key).await, Err(Error::Unauthenticated(_))));
    assert_eq!(other.secret("crm").await, one.secret("crm").await);
    assert_ne!(other.secret("crm").await, before);
}

#[tokio::test]
async fn a_look_brings_every_kind_of_change() {
    let (one, other, key) = two().await;
    one.broker.revoke_key(&one.admin, "k").await.unwrap();
    other.broker.catch_up().await.unwrap();
    assert!(matches!(other.broker.authenticate(&key).await, Err(Error::Unauthenticated(_))));

    one.broker.refresh(&one.admin, "crm").await.unwrap();
    other.broker.catch_up().await.unwrap();
    assert_eq!(other.token("crm").await.unwrap().generation, 2);

    one.broker.revoke(&one.admin, "crm").await.unwrap();
    other.broker.catch_up().await.unwrap();
    assert!(matches!(other.token("crm").await, Err(Error::NotReady { state: Status::Revoked, .. })));

    one.broker.add_connection(&one.admin, alice("gone", "wonderland")).await.unwrap();
    one.run("gone").await.unwrap();
    other.token("gone").await.unwrap();
    one.broker.remove_connection(&one.admin, "gone").await.unwrap();
    other.broker.catch_up().await.unwrap();
    assert!(matches!(other.token("gone").await, Err(Error::NotFound { .. })));

    // What a replica seals with a new data key, another opens, also before it has heard of the key.
    one.broker.seal_rotate(&one.admin).await.unwrap();
    one.broker.add_connection(&one.admin, alice("sealed", "wonderland")).await.unwrap();
    one.run("sealed").await.unwrap();
    assert_eq!(other.token("sealed").await.unwrap().generation, 1);

    one.broker.retire(&one.admin).await.unwrap();
    other.broker.catch_up().await.unwrap();
    assert_eq!(other.broker.fenced().unwrap().reason, FenceReason::Retired);
    one.broker.declare_live(&one.admin).await.unwrap();
    other.broker.catch_up().await.unwrap();
    assert_eq!(other.broker.fenced(), None);
    other.broker.change_mark().await;
    assert_eq!(other.broker.fenced(), None, "a folder that knows the older epoch learns its mark anew");
}

#[tokio::test]
async fn how_an_api_is_called_follows_its_integration_and_definition() {
    let (one, other, _) = two().await;
    let call = async |app: &App| {
        let request = ProxyRequest::new(http::Method::GET, "/me").unwrap();
        app.broker.proxy(&app.admin, "crm", request).await.map(|reply| reply.status().as_u16())
    };
    assert_eq!(call(&other).await.unwrap(), 200);
    let variables = values([("api_base_url", &format!("{}/nowhere", one.sandbox.base_url()))]);
    let edit = IntegrationEdit { variables, ..IntegrationEdit::default() };
    one.broker.edit_integration(&one.admin, "password", edit).await.unwrap();
    other.broker.catch_up().await.unwrap();
    assert_eq!(call(&other).await.unwrap(), 404);
}

#[tokio::test]
async fn a_replicas_own_change_costs_it_nothing() {
    let (one, other, _) = two().await;
    one.broker.refresh(&one.admin, "crm").await.unwrap();
    one.broker.catch_up().await.unwrap();
    // The row can't be read now: only memory can answer.
    one.database.run("ALTER TABLE connections RENAME TO away");
    assert_eq!(one.token("crm").await.unwrap().generation, 2);
    one.database.run("ALTER TABLE away RENAME TO connections");
    drop(other);
}

#[tokio::test]
async fn who_cannot_look_trusts_no_memory_and_reads_the_row() {
    let (one, other, key) = two().await;
    one.database.run("ALTER TABLE changes RENAME TO away");
    other.clock.advance(Duration::from_secs(1));
    assert!(other.broker.catch_up().await.is_err());
    assert!(other.broker.authenticate(&key).await.is_ok(), "the row says that it is valid");
    assert_eq!(other.token("crm").await.unwrap().generation, 1);
    // Changed behind everybody's back, as by a replica whose announcement can't be read.
    one.database.run("UPDATE api_keys SET revoked_at = 1 WHERE name = 'k'");
    one.database.run("UPDATE connections SET state = 'revoked', token_set = NULL");
    assert!(matches!(other.broker.authenticate(&key).await, Err(Error::Unauthenticated(_))));
    assert!(matches!(other.token("crm").await, Err(Error::NotReady { state: Status::Revoked, .. })));
    one.database.run("ALTER TABLE away RENAME TO changes");
    other.broker.catch_up().await.unwrap();
}

#[tokio::test]
async fn a_change_that_becomes_visible_late_is_heard() {
    let (one, other, key) = two().await;
    // A transaction takes its number, and commits after one that took the next.
    let number = "SELECT nextval(pg_get_serial_sequence('changes', 'seq'))";
    let early = one.database.number(number);
    one.broker.edit_connection(&one.admin, "crm", ConnectionEdit::default()).await.unwrap();
    other.broker.catch_up().await.unwrap();
    one.database.run("UPDATE api_keys SET revoked_at = 1 WHERE name = 'k'");
    one.database.run(&format!(
        "INSERT INTO changes (seq, at, kind, object) SELECT {early}, {}, 'key', id FROM api_keys WHERE name = 'k'",
        one.now()
    ));
    other.broker.catch_up().await.unwrap();
    assert!(matches!(other.broker.authenticate(&key).await, Err(Error::Unauthenticated(_))));
}

#[tokio::test]
async fn a_copy_of_the_database_is_fenced_and_the_original_goes_on() {
    let (one, other, _) = two().await;
    let copy = tempfile::tempdir().unwrap();
    copy_folder(one.folder.path(), copy.path());
    let _database = one.database.copied_to(copy.path());
    let fenced = open(copy.path(), &one.clock, 9).await.unwrap().fenced;
    assert_eq!(fenced.unwrap().reason, FenceReason::Moved);
    for app in [&one, &other] {
        app.broker.change_mark().await;
        assert_eq!(app.broker.fenced(), None);
    }
    assert_eq!(one.broker.instance().await.unwrap().running, 2);
}

#[tokio::test]
async fn each_replica_has_an_administrators_key_of_its_own() {
    let (one, other, _) = two().await;
    let keys = async |app: &App| std::fs::read_to_string(app.broker.ensure_admin_key().await.unwrap()).unwrap();
    let (first, second) = (keys(&one).await, keys(&other).await);
    assert_ne!(first, second);
    assert_eq!(keys(&one).await, first, "the other's start took nothing away");
}
