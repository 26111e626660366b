//! What there is on SQLite only: one process a database.

use keyholder_broker::{Error, Settings};

use crate::app::{open, open_with, settings};
use crate::start::{clock, mode, stop};

#[tokio::test]
async fn a_database_in_use_is_refused_from_another_folder_too() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = open(folder.path(), &clock(), 1).await.unwrap();
    let link = other.path().join("linked.db");
    std::os::unix::fs::symlink(folder.path().join("keyholder.db"), &link).unwrap();
    for database in [folder.path().join("keyholder.db"), link] {
        let database = keyholder_broker::store::Location::Sqlite(database);
        let second = Settings { data_dir: other.path().to_owned(), database, ..settings(folder.path()) };
        assert!(matches!(open_with(second, &clock(), 2).await.err(), Some(Error::FolderInUse(_))));
    }
    stop(first.broker).await;
}

#[tokio::test]
async fn the_databases_lock_is_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), &clock(), 1).await.unwrap();
    for file in ["keyholder.db", "keyholder.db.lock"] {
        assert_eq!(mode(&folder.path().join(file)), 0o600, "{file}");
    }
    stop(opened.broker).await;
}
