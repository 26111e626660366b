//! A copy of a database renews nothing until an operator says which copy is live. On SQLite, where a copy is a file.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use keyholder_broker::model::{FenceReason, Status, Values};
use keyholder_broker::points::{Points, Verdict};
use keyholder_broker::store::Location;
use keyholder_broker::{Error, Opened, Settings};

use crate::app::{App, Database, copy_folder, open, open_with, settings};

/// The process ends, gracefully or not, `meanwhile` something happens to its folder, and another begins there.
async fn restarted(app: App, graceful: bool, meanwhile: impl FnOnce(&Path)) -> App {
    let App { sandbox, broker, admin, clock, folder, database } = app;
    broker.finish_renewals().await;
    broker.finish_records().await;
    if graceful {
        broker.change_mark().await;
    }
    drop(broker);
    closed(folder.path()).await;
    meanwhile(folder.path());
    let broker = open(folder.path(), &clock, 5).await.unwrap().broker;
    App { sandbox, broker, admin, clock, folder, database }
}

/// Waits until the last connection has ended: only a lone one can leave the mode with a log beside the file.
async fn closed(folder: &Path) {
    loop {
        let sql = rusqlite::Connection::open(folder.join("keyholder.db")).unwrap();
        sql.busy_timeout(std::time::Duration::ZERO).unwrap();
        let alone = sql.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0));
        if alone.is_ok_and(|mode| mode == "delete") {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn sql(app: &App) -> rusqlite::Connection {
    rusqlite::Connection::open(app.folder.path().join("keyholder.db")).unwrap()
}

fn reason(app: &App) -> Option<FenceReason> {
    app.broker.fenced().map(|fenced| fenced.reason)
}

/// Sets the database aside as a backup would.
fn back_up(app: &App) -> tempfile::TempDir {
    let backup = tempfile::tempdir().unwrap();
    sql(app).execute("VACUUM INTO ?1", [backup.path().join("backup.db").to_str().unwrap()]).unwrap();
    backup
}

/// Puts a backup in the place of the database, as an operator does: into the same file.
fn restore(backup: &Path, folder: &Path) {
    for beside in ["keyholder.db-wal", "keyholder.db-shm"] {
        let _ = fs::remove_file(folder.join(beside));
    }
    fs::write(folder.join("keyholder.db"), fs::read(backup.join("backup.db")).unwrap()).unwrap();
}

#[tokio::test]
async fn a_restart_is_no_copy() {
    let mut app = App::start().await;
    app.consented("crm").await;
    for graceful in [true, false, false, true] {
        app = restarted(app, graceful, |_| ()).await;
        assert_eq!(reason(&app), None);
        app.broker.change_mark().await;
        assert_eq!(reason(&app), None);
    }
    app.advance(3600);
    assert_eq!(app.token("crm").await.unwrap().generation, 2);
    let instance = app.broker.instance().await.unwrap();
    assert_eq!((instance.epoch, instance.fenced, instance.running), (1, None, 0));
}

#[tokio::test]
async fn an_older_copy_in_the_databases_place_is_fenced_until_it_is_said_to_be_live() {
    for graceful in [true, false] {
        let app = App::start().await;
        app.consented("crm").await;
        let backup = back_up(&app);
        // What happens after the backup spends the refresh token that the backup holds.
        app.advance(3600);
        let newer = app.secret("crm").await;
        app.broker.change_mark().await;
        let app = restarted(app, graceful, |folder| restore(backup.path(), folder)).await;
        assert_eq!(reason(&app), Some(FenceReason::Older));
        let sent = app.sent("refresh_token");
        let refused = app.broker.refresh(&app.admin, "crm").await.unwrap_err();
        assert!(matches!(refused, Error::Fenced(_)) && refused.to_string().contains("doctor --live"), "{refused}");
        assert_eq!((app.sent("refresh_token"), app.status("crm").await), (sent, Status::Connected));
        assert!(app.is_accepted(&newer).await, "the live copy's grant goes on");

        // It stays fenced over a restart, and the epoch says how often somebody decided.
        let app = restarted(app, graceful, |_| ()).await;
        assert_eq!(reason(&app), Some(FenceReason::Older));
        let live = app.broker.declare_live(&app.admin).await.unwrap();
        assert_eq!((live.epoch, live.fenced, reason(&app)), (2, None, None));
        let app = restarted(app, graceful, |_| ()).await;
        assert_eq!(reason(&app), None);
        // It tries; that its refresh token is spent is the provider's to say.
        let _ = app.broker.refresh(&app.admin, "crm").await;
        assert_eq!(app.sent("refresh_token"), sent + 1);
    }
}

#[tokio::test]
async fn a_database_exchanged_under_a_running_process_is_fenced() {
    let app = App::start().await;
    app.password("crm").await;
    let (name, older): (String, String) =
        sql(&app).query_row("SELECT id, mark FROM instances", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    app.broker.change_mark().await;
    assert_eq!(reason(&app), None);
    // What a restored copy says.
    sql(&app).execute("UPDATE instances SET mark = ?2 WHERE id = ?1", [name, older]).unwrap();
    app.broker.change_mark().await;
    assert_eq!(reason(&app), Some(FenceReason::Older));
}

#[tokio::test]
async fn a_copy_elsewhere_serves_what_is_valid_and_ends_nothing_while_the_original_goes_on() {
    let app = App::start().await;
    app.consented("crm").await;
    let held = app.secret("crm").await;
    let elsewhere = Arc::new(tempfile::tempdir().unwrap());
    copy_folder(app.folder.path(), elsewhere.path());
    let Opened { broker, fenced, .. } = open(elsewhere.path(), &app.clock, 6).await.unwrap();
    assert_eq!(fenced.map(|fenced| fenced.reason), Some(FenceReason::Moved));
    let (sandbox, admin, clock) = (app.sandbox.clone(), app.admin.clone(), app.clock.clone());
    let database = Database::of(elsewhere.path());
    let copy = App { sandbox, broker, admin, clock, folder: elsewhere, database };

    assert_eq!(copy.secret("crm").await, held);
    let (revoked, link) = (copy.seen("revoke"), app.invite("crm").await);
    let refusals = [
        copy.broker.revoke(&copy.admin, "crm").await.err(),
        copy.broker.remove_connection(&copy.admin, "crm").await.err(),
        copy.broker.refresh(&copy.admin, "crm").await.err(),
        copy.broker.authorize(&copy.admin, "crm", None, None).await.err(),
        copy.broker.begin_consent(&link, None, &Values::new()).await.err(),
        copy.broker.finish_consent("itg", "state=x&code=y", None).await.err(),
        copy.broker.complete(&copy.admin, "crm", "code", None).await.err(),
        copy.broker.decide("code", None, true).await.err(),
    ];
    for refused in refusals {
        assert!(matches!(refused, Some(Error::Fenced(_))), "{refused:?}");
    }
    assert_eq!((copy.seen("revoke"), copy.row("crm").await.generation), (revoked, 1));
    let report = copy.broker.doctor(&copy.admin).await.unwrap();
    let check = report.iter().find(|check| check.name == "instance").unwrap();
    assert!(check.remedy.as_ref().unwrap().contains("doctor --live"), "{check:?}");

    // When the token has expired, the copy has none; the original renews.
    app.advance(3600);
    assert!(matches!(copy.token("crm").await, Err(Error::Fenced(_))));
    assert_eq!((reason(&app), app.token("crm").await.unwrap().generation), (None, 2));
}

#[tokio::test]
async fn a_crash_between_any_two_writes_of_the_mark_is_no_copy() {
    let app = App::start().await;
    let App { broker, clock, folder, .. } = app;
    drop(broker);
    let mut writes = 0;
    for fail_at in 0.. {
        let done = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&done);
        // Each job of the store from here on fails, as if the process had died before it.
        let points = Points::with(move |point| {
            let mut count = counted.lock().unwrap();
            *count += usize::from(point == "store.write");
            if point == "store.write" && *count > fail_at {
                return Verdict::Fail(std::io::Error::other("gone"));
            }
            Verdict::Go
        });
        let died = open_with(Settings { points, ..settings(folder.path()) }, &clock, 8).await;
        let started = died.is_ok();
        drop(died);
        let opened = open(folder.path(), &clock, 9).await.unwrap();
        assert_eq!(opened.fenced, None, "after {fail_at} writes");
        // As if the file's last change had been lost: the database has the mark that the file names next.
        drop(opened);
        let file = folder.path().join("instance");
        let mut own: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        own["mark"] = serde_json::json!("1.before");
        fs::write(&file, own.to_string()).unwrap();
        let opened = open(folder.path(), &clock, 10).await.unwrap();
        assert_eq!(opened.fenced, None);
        drop(opened);
        writes = fail_at;
        if started {
            break;
        }
    }
    assert!(writes >= 2, "the loop saw the writes of a start");
}

#[tokio::test]
async fn an_older_data_folder_goes_on_under_a_new_name() {
    let app = App::start().await;
    let file = app.folder.path().join("instance");
    let older = fs::read(&file).unwrap();
    app.broker.change_mark().await;
    app.broker.change_mark().await;
    let app = restarted(app, true, |_| fs::write(&file, older).unwrap()).await;
    assert_eq!(reason(&app), None);
    assert_eq!(app.count("SELECT count(*) FROM instances"), 2);
}

#[tokio::test]
async fn an_operator_can_fence_a_copy_by_hand() {
    let app = App::start().await;
    app.password("crm").await;
    let retired = app.broker.retire(&app.admin).await.unwrap();
    assert_eq!(retired.fenced.unwrap().reason, FenceReason::Retired);
    app.advance(3600);
    assert!(matches!(app.token("crm").await, Err(Error::Fenced(_))));
    let app = restarted(app, true, |_| ()).await;
    assert_eq!(reason(&app), Some(FenceReason::Retired));
    app.broker.declare_live(&app.admin).await.unwrap();
    assert_eq!(app.token("crm").await.unwrap().generation, 2);
    // Nothing was fenced any more: saying it again changes nothing.
    assert_eq!(app.broker.declare_live(&app.admin).await.unwrap().epoch, 2);
}

#[tokio::test]
async fn another_clusters_database_is_refused_and_left_alone() {
    let app = App::start().await;
    let other = tempfile::tempdir().unwrap();
    drop(open(other.path(), &app.clock, 77).await.unwrap());
    closed(other.path()).await;
    let App { broker, clock, folder, .. } = app;
    drop(broker);
    closed(folder.path()).await;
    // Even with a root key that opens it; and a database that was never used is another one too.
    fs::copy(other.path().join("root-key"), folder.path().join("root-key")).unwrap();
    for database in ["keyholder.db", "new.db"] {
        let database = other.path().join(database);
        let location = Location::Sqlite(database.clone());
        let mixed = open_with(Settings { database: location, ..settings(folder.path()) }, &clock, 4).await;
        let Err(error) = mixed else { panic!("it started") };
        assert!(matches!(error, Error::OtherCluster { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("KEYHOLDER_DATABASE_URL") && text.contains("instance"), "{text}");
        let sql = rusqlite::Connection::open(&database).unwrap();
        let joined: i64 = sql.query_row("SELECT count(*) FROM instances", [], |row| row.get(0)).unwrap();
        let keys: i64 = sql.query_row("SELECT count(*) FROM data_keys", [], |row| row.get(0)).unwrap();
        assert!(joined == keys && joined <= 1, "{joined} joined, {keys} keys");
    }
}
