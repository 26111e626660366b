//! Starting: keys, folders and databases that fit together, and those that don't.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use keyholder_broker::clock::ManualClock;
use keyholder_broker::vault::RootKeySource;
use keyholder_broker::{Error, Idempotency, Settings};

use crate::app::{App, Database, START, admin, open, open_with, settings};

pub fn clock() -> ManualClock {
    ManualClock::starting_at(START)
}

/// A data folder that was used once; its broker has stopped.
async fn used(seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), &clock(), seed).await.unwrap();
    assert!(opened.new_root_key);
    stop(opened.broker).await;
    folder
}

/// Waits until the last handle is gone: the audit's writer holds none, so flushing is enough.
pub async fn stop(broker: keyholder_broker::Broker) {
    broker.finish_renewals().await;
    broker.finish_records().await;
    drop(broker);
}

async fn refusal(settings: Settings) -> String {
    match open_with(settings, &clock(), 7).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_first_start_makes_a_root_key_that_only_its_owner_reads() {
    let folder = used(1).await;
    assert_eq!(mode(&folder.path().join("root-key")), 0o600);
    let again = open(folder.path(), &clock(), 2).await.unwrap();
    assert!(!again.new_root_key);
    assert_eq!(again.recovered, 0);
    again.broker.ready().await.unwrap();
}

#[tokio::test]
async fn another_root_key_is_refused_with_the_remedy() {
    let (folder, other) = (used(1).await, used(2).await);
    fs::copy(other.path().join("root-key"), folder.path().join("root-key")).unwrap();
    let error = refusal(settings(folder.path())).await;
    assert!(error.contains("put the right key back"), "{error}");
    let text = fs::read_to_string(other.path().join("root-key")).unwrap();
    assert!(!error.contains(text.trim()), "{error}");
}

#[tokio::test]
async fn a_missing_root_key_is_not_made_anew_while_there_is_data() {
    let folder = used(1).await;
    let key = folder.path().join("root-key");
    fs::remove_file(&key).unwrap();
    let error = refusal(settings(folder.path())).await;
    assert!(error.contains("is missing") && error.contains("backup"), "{error}");
    assert!(!key.exists());
}

#[tokio::test]
async fn a_root_key_that_others_may_read_is_refused() {
    let folder = used(1).await;
    let key = folder.path().join("root-key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = refusal(settings(folder.path())).await;
    assert!(error.contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn a_broken_root_key_is_refused_without_showing_it() {
    let folder = used(1).await;
    fs::write(folder.path().join("root-key"), "khroot1_tooshort").unwrap();
    let error = refusal(settings(folder.path())).await;
    assert!(error.contains("not a root key") && !error.contains("tooshort"), "{error}");
}

#[tokio::test]
async fn the_root_key_may_come_from_a_value_or_a_command() {
    let folder = used(1).await;
    let text = fs::read_to_string(folder.path().join("root-key")).unwrap();
    let sources = [
        RootKeySource::Value(text.trim().into()),
        RootKeySource::Command(format!("cat {}", folder.path().join("root-key").display())),
    ];
    for root_key in sources {
        let opened = open_with(Settings { root_key, ..settings(folder.path()) }, &clock(), 3).await.unwrap();
        stop(opened.broker).await;
    }
    let failing = RootKeySource::Command("exit 3".to_owned());
    let error = refusal(Settings { root_key: failing, ..settings(folder.path()) }).await;
    assert!(error.contains("command failed"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = used(1).await;
    let database = Database::of(folder.path());
    database.run("INSERT INTO migrations (number, checksum, applied_at) VALUES (99, 'of the future', 0)");
    let error = refusal(settings(folder.path())).await;
    assert!(error.contains("99") && error.contains("newer version"), "{error}");
    assert_eq!(database.number("SELECT max(number) FROM migrations"), 99);
}

#[tokio::test]
async fn one_process_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), &clock(), 1).await.unwrap();
    let second = open(folder.path(), &clock(), 2).await;
    assert!(matches!(second.err(), Some(Error::FolderInUse(_))));
    stop(first.broker).await;
    open(folder.path(), &clock(), 3).await.unwrap();
}

#[tokio::test]
async fn the_administrators_key_is_made_once_and_again_when_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), &clock(), 1).await.unwrap().broker;
    let first = admin(&broker).await;
    assert_eq!(admin(&broker).await.key, first.key);
    let path = folder.path().join("admin-key");
    assert_eq!(mode(&path), 0o600);
    let lost = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_ne!(admin(&broker).await.key, first.key);
    let lost = keyholder_broker::model::PlainKey(lost.trim().into());
    // The lost key was replaced, so whoever found it can't use it.
    assert!(matches!(broker.authenticate(&lost).await, Err(Error::Unauthenticated(_))));
}

#[tokio::test]
async fn what_others_may_enter_is_made_private() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let opened = open(folder.path(), &clock(), 1).await.unwrap();
    assert_eq!((mode(folder.path()), mode(&folder.path().join("escrow"))), (0o700, 0o700));
    assert_eq!(mode(&folder.path().join("lock")), 0o600);
    stop(opened.broker).await;
}

#[tokio::test]
async fn a_request_that_its_process_did_not_survive_frees_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), &clock(), 1).await.unwrap();
    let caller = admin(&opened.broker).await;
    let begin = async |broker: &keyholder_broker::Broker| broker.begin_idempotent(&caller, "k", [1; 32]).await.unwrap();
    assert!(matches!(begin(&opened.broker).await, Idempotency::First));
    assert!(matches!(begin(&opened.broker).await, Idempotency::UnderWay));
    stop(opened.broker).await;
    let later = clock();
    if crate::ON_POSTGRES {
        // Another replica may still be at work on it.
        let again = open(folder.path(), &later, 3).await.unwrap();
        assert!(matches!(begin(&again.broker).await, Idempotency::UnderWay));
        stop(again.broker).await;
        later.advance(std::time::Duration::from_secs(300));
    }
    let again = open(folder.path(), &later, 2).await.unwrap();
    assert!(matches!(begin(&again.broker).await, Idempotency::First));
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_not_ready() {
    let app = App::start().await;
    app.broker.ready().await.unwrap();
    app.refuse("BEFORE UPDATE ON meta");
    app.broker.ready().await.unwrap();
    app.advance(5);
    assert!(app.broker.ready().await.is_err());
    app.relent();
    app.broker.ready().await.unwrap();
}
