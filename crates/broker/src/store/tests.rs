//! The store on both engines, and on PostgreSQL behind a pooler.
#![allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

use std::path::{Path, PathBuf};

use super::*;
use crate::clock::{ManualClock, Rng};
use crate::model::{ConnectionId, KeyId, SegmentId, Tenant};

#[path = "../../tests/it/postgres.rs"]
mod server;

/// Runs each of these tests on SQLite, on PostgreSQL, and on PostgreSQL behind a pooler that gives another server for each transaction.
macro_rules! on_each_engine {
    ($($test:ident),* $(,)?) => {
        mod sqlite { $(#[tokio::test] async fn $test() { super::$test(super::Fresh::sqlite()).await })* }
        mod postgres { $(#[tokio::test] async fn $test() { super::$test(super::Fresh::postgres()).await })* }
        mod pooled { $(#[tokio::test] async fn $test() { super::$test(super::Fresh::pooled()).await })* }
    };
}

on_each_engine![
    every_statement_prepares,
    a_failed_job_undoes_only_itself,
    a_job_that_panics_is_undone_and_the_store_goes_on,
    a_part_of_a_job_may_fail_without_the_rest,
    a_statement_that_failed_fails_its_job_even_if_the_job_goes_on,
    values_come_back_as_they_were,
    text_with_a_nul_is_stored,
    text_is_compared_byte_by_byte,
    a_taken_name_and_a_row_in_use_are_told,
    many_jobs_at_once_are_all_done,
    what_a_job_reads_is_one_state,
    a_locked_row_makes_others_wait,
    two_that_start_at_once_on_an_empty_database_both_come_up,
    an_older_schema_is_brought_up_to_date,
    a_newer_schema_is_refused,
    a_changed_migration_is_refused,
    tables_of_another_program_are_refused,
    the_clock_is_the_databases,
    a_batch_of_the_audit_is_there_once_and_behind_what_was_before,
    usage_is_added_up_and_swept_hour_by_hour,
];

/// An empty database.
struct Fresh {
    location: Location,
    /// URL for a look from outside.
    url: Option<String>,
    folder: tempfile::TempDir,
}

impl Fresh {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { location: Location::Sqlite(folder.path().join("k.db")), url: None, folder }
    }

    fn postgres() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = server::of_folder(folder.path());
        Self { location: Location::from_url(&url, None).unwrap(), url: Some(url), folder }
    }

    fn pooled() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = server::schema_of(folder.path());
        let url = server::new_database(&server::server(), &name);
        let pooled = server::pooler().replace("/keyholder", &format!("/{name}"));
        Self { location: Location::from_url(&pooled, None).unwrap(), url: Some(url), folder }
    }

    fn open(&self) -> StoreResult<Store> {
        Store::open(&self.location, Clock::System, Points::default())
    }

    fn refusal(&self) -> String {
        self.open().err().unwrap().to_string()
    }

    /// Changes the database from outside.
    fn sql(&self, text: &str) {
        match (&self.url, self.path()) {
            (Some(url), _) => drop(server::sql(url, text)),
            (None, path) => rusqlite::Connection::open(path).unwrap().execute_batch(text).unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("k.db")
    }

    /// Brings the schema to what `known` says, as another version of the program would.
    fn migrate(&self, known: &'static [migrate::Migration]) -> StoreResult<()> {
        match &self.location {
            Location::Sqlite(path) => super::sqlite::Threads::open(path, &Clock::System, known).map(drop),
            Location::Postgres(server) => super::postgres::Pool::open(server, &Clock::System, known).map(drop),
        }
    }
}

async fn every_statement_prepares(fresh: Fresh) {
    let tables = [
        access::ALL,
        advice::ALL,
        changes::ALL,
        connections::ALL,
        consents::ALL,
        devices::ALL,
        history::ALL,
        instances::ALL,
        integrations::ALL,
        sources::ALL,
        migrate::ALL,
        operators::ALL,
        sealed::ALL,
        providers::ALL,
        setup::ALL,
        upkeep::ALL,
        usage::ALL,
    ];
    let store = fresh.open().unwrap();
    let prepared = store.read(move |tx| {
        for (name, sql) in tables.into_iter().flatten() {
            tx.prepare(sql).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        Ok(())
    });
    prepared.await.unwrap();
}

async fn a_batch_of_the_audit_is_there_once_and_behind_what_was_before(fresh: Fresh) {
    let store = fresh.open().unwrap();
    let tenant = Tenant::default_tenant();
    let batches: Vec<_> = (0..3).map(|_| SegmentId::new(&Clock::System, &Rng::System)).collect();
    let segment = |at| Segment { from_at: at, to_at: at + 9, count: 1, records: vec![at as u8] };
    // The second is written twice; the third has earlier times, as after a clock was set back.
    for (batch, at) in [(0, 10), (1, 20), (1, 20), (2, 5)] {
        let (tenant, batch) = (tenant.clone(), batches[batch].clone());
        store.write(move |tx| tx.add_audit(&tenant, &batch, &segment(at))).await.unwrap();
    }
    let read = async |forwards, from, since, until| {
        let (tenant, stretch) = (tenant.clone(), Stretch { from, forwards, since, until, limit: 10, bytes: 100 });
        let found = store.read(move |tx| tx.audit(&tenant, &stretch)).await.unwrap();
        assert!(found.is_all);
        found.segments.into_iter().map(|(_, segment)| segment.from_at).collect::<Vec<_>>()
    };
    assert_eq!(read(true, 0, i64::MIN, i64::MAX).await, [10, 20, 5]);
    assert_eq!(read(false, i64::MAX, i64::MIN, i64::MAX).await, [5, 20, 10]);
    assert_eq!(read(true, 2, i64::MIN, i64::MAX).await, [20, 5]);
    assert_eq!(read(true, 0, 15, 19).await, [10]);
    let of_tenant = tenant.clone();
    assert_eq!(store.read(move |tx| tx.first_audit_since(&of_tenant, 20)).await.unwrap(), Some(2));
    assert_eq!(store.write(|tx| tx.sweep_audit(20, 1)).await.unwrap(), 1);
    assert_eq!(read(true, 0, i64::MIN, i64::MAX).await, [10, 20], "the one that ended first goes first");
    assert_eq!(store.write(|tx| tx.sweep_audit(30, 10)).await.unwrap(), 2);
    let (of_tenant, batch) = (tenant.clone(), SegmentId::new(&Clock::System, &Rng::System));
    store.write(move |tx| tx.add_audit(&of_tenant, &batch, &segment(40))).await.unwrap();
    assert_eq!(read(true, 4, i64::MIN, i64::MAX).await, [40], "numbers go on where all was removed");
    for at in [50, 60] {
        let (tenant, batch) = (tenant.clone(), SegmentId::new(&Clock::System, &Rng::System));
        let large = Segment { records: vec![0; 60], ..segment(at) };
        store.write(move |tx| tx.add_audit(&tenant, &batch, &large)).await.unwrap();
    }
    for (forwards, from, bytes, limit, expected) in [
        (true, 0, 61, 10, (2, false)),
        (false, i64::MAX, 119, 10, (1, false)),
        (true, 0, 0, 10, (1, false)),
        (true, 0, 121, 10, (3, true)),
        (true, 0, 121, 3, (3, false)),
        (true, 100, 1, 10, (0, true)),
    ] {
        let (tenant, stretch) =
            (tenant.clone(), Stretch { from, forwards, since: i64::MIN, until: i64::MAX, limit, bytes });
        let found = store.read(move |tx| tx.audit(&tenant, &stretch)).await.unwrap();
        assert_eq!((found.segments.len(), found.is_all), expected, "{bytes} {limit}");
    }
}

async fn usage_is_added_up_and_swept_hour_by_hour(fresh: Fresh) {
    let store = fresh.open().unwrap();
    let (tenant, clock, rng) = (Tenant::default_tenant(), Clock::System, Rng::System);
    let (connection, key) = (ConnectionId::new(&clock, &rng), KeyId::new(&clock, &rng));
    let row = |hour, caller: Option<&KeyId>| UsageRow {
        hour,
        tenant: tenant.clone(),
        caller: caller.cloned(),
        connection: connection.clone(),
        source: None,
        figures: Figures { calls: 3, received: i64::from(u32::MAX), took: [1; TOOK], ..Figures::default() },
    };
    for _ in 0..2 {
        let rows = vec![row(1, Some(&key)), row(1, None), row(2, Some(&key))];
        store.write(move |tx| tx.add_usage(&rows)).await.unwrap();
    }
    let sums = async |by, after: &str| {
        let span =
            UsageSpan { from: 0, to: 9, connection: String::new(), caller: String::new(), source: String::new() };
        let (tenant, after) = (tenant.clone(), after.to_owned());
        store.read(move |tx| tx.usage(&tenant, &span, by, &after, 10)).await.unwrap()
    };
    let sum = |times: i64| Figures {
        calls: 3 * times,
        received: i64::from(u32::MAX) * times,
        took: [times; TOOK],
        ..Figures::default()
    };
    assert_eq!(sums(UsageGroup::Connection, "").await, [(connection.to_string(), sum(6))]);
    assert_eq!(sums(UsageGroup::Hour, "").await, [("1".to_owned(), sum(4)), ("2".to_owned(), sum(2))]);
    assert_eq!(sums(UsageGroup::Hour, "1").await, [("2".to_owned(), sum(2))]);
    assert_eq!(sums(UsageGroup::Caller, "").await, [(String::new(), sum(2)), (key.to_string(), sum(4))]);
    store.write(|tx| tx.sweep_usage(2)).await.unwrap();
    assert_eq!(sums(UsageGroup::Hour, "").await, [("2".to_owned(), sum(2))]);
    store.write(|tx| tx.sweep_usage(2)).await.unwrap();
    assert_eq!(sums(UsageGroup::Hour, "").await, [("2".to_owned(), sum(2))]);
}

async fn a_failed_job_undoes_only_itself(fresh: Fresh) {
    let store = fresh.open().unwrap();
    let good = store.write(|tx| tx.put_meta("a", "1"));
    let bad = store.write(|tx| {
        tx.put_meta("b", "1")?;
        Err::<(), _>(StoreError::Taken)
    });
    let (good, bad) = tokio::join!(good, bad);
    assert!(good.is_ok());
    assert!(matches!(bad, Err(StoreError::Taken)));
    assert_eq!(store.read(|tx| tx.meta("a")).await.unwrap().as_deref(), Some("1"));
    assert_eq!(store.read(|tx| tx.meta("b")).await.unwrap(), None);
}

async fn a_job_that_panics_is_undone_and_the_store_goes_on(fresh: Fresh) {
    let store = fresh.open().unwrap();
    let broken = store.write(|tx| -> StoreResult<()> {
        tx.put_meta("a", "1")?;
        panic!("a bug")
    });
    assert!(matches!(broken.await, Err(StoreError::Closed)));
    for _ in 0..=8 {
        let broken = store.read(|_| -> StoreResult<()> { panic!("a bug") }).await;
        assert!(matches!(broken, Err(StoreError::Closed)));
    }
    store.write(|tx| tx.put_meta("b", "1")).await.unwrap();
    assert_eq!(store.read(|tx| Ok((tx.meta("a")?, tx.meta("b")?))).await.unwrap(), (None, Some("1".to_owned())));
}

async fn a_part_of_a_job_may_fail_without_the_rest(fresh: Fresh) {
    let store = fresh.open().unwrap();
    let done = store.write(|tx| {
        tx.put_meta("before", "1")?;
        let part = tx.attempt(|tx| {
            tx.put_meta("part", "1")?;
            tx.add_data_key(&key(), 1)?;
            tx.add_data_key(&key(), 1)
        });
        assert!(matches!(part, Err(StoreError::Taken)), "{part:?}");
        tx.attempt(|tx| tx.put_meta("after", "1"))
    });
    done.await.unwrap();
    let stored = store.read(|tx| Ok((tx.meta("before")?, tx.meta("part")?, tx.meta("after")?, tx.data_keys()?.len())));
    assert_eq!(stored.await.unwrap(), (Some("1".to_owned()), None, Some("1".to_owned()), 0));
}

/// PostgreSQL does nothing more in such a transaction, and its commit would be a quiet rollback.
async fn a_statement_that_failed_fails_its_job_even_if_the_job_goes_on(fresh: Fresh) {
    let store = fresh.open().unwrap();
    let done = store.write(|tx| {
        tx.put_meta("a", "1")?;
        tx.add_data_key(&key(), 1)?;
        let _ = tx.add_data_key(&key(), 1);
        Ok(())
    });
    let done = done.await;
    let stored = store.read(|tx| tx.meta("a")).await.unwrap();
    assert_eq!(done.is_ok(), stored.is_some(), "what was answered is what was done: {done:?}");
}

async fn values_come_back_as_they_were(fresh: Fresh) {
    const ECHO: Sql = Sql("SELECT cast(?1 AS bigint), cast(?2 AS text), cast(?3 AS bigint), cast(?4 AS text)");
    let store = fresh.open().unwrap();
    let wrapped =
        crate::vault::WrappedKey { id: 7, root_key: "Straße ✓ 'quoted' ?1 $1".to_owned(), wrapped: vec![0, 1, 255] };
    let stored = wrapped.clone();
    store.write(move |tx| tx.add_data_key(&stored, i64::MAX)).await.unwrap();
    let found = store.read(|tx| tx.data_keys()).await.unwrap().remove(0);
    assert_eq!((found.id, found.root_key, found.wrapped), (wrapped.id, wrapped.root_key, wrapped.wrapped));
    let echo = store.read(|tx| {
        tx.row(&ECHO, &[Val::I(i64::MIN), Val::T(""), Val::Null, Val::Null], |row| {
            Ok((row.i(0)?, row.t(1)?, row.opt_i(2)?, row.opt_t(3)?))
        })
    });
    assert_eq!(echo.await.unwrap().unwrap(), (i64::MIN, String::new(), None, None));
}

async fn text_with_a_nul_is_stored(fresh: Fresh) {
    let store = fresh.open().unwrap();
    store.write(|tx| tx.put_meta("a\0b", "c\0d")).await.unwrap();
    let found = store.read(|tx| tx.meta("a\0b")).await.unwrap().unwrap();
    assert!(found.starts_with('c') && found.ends_with('d'), "{found:?}");
}

async fn text_is_compared_byte_by_byte(fresh: Fresh) {
    const ADD: Sql = Sql("INSERT INTO instances (id, mark, started_at, seen_at) VALUES (?1, '', 0, 0)");
    const IDS: Sql = Sql("SELECT id FROM instances WHERE id > ?1 ORDER BY id");
    let store = fresh.open().unwrap();
    let sorted = store.write(|tx| {
        tx.execute_each(&ADD, ["b", "a_", "B", "a-", "ä", "A", "aZ", "a"].iter().map(|id| vec![Val::T(id)]))?;
        tx.rows(&IDS, &[Val::T("A")], |row| row.t(0))
    });
    assert_eq!(sorted.await.unwrap(), ["B", "a", "a-", "aZ", "a_", "b", "ä"]);
}

async fn a_taken_name_and_a_row_in_use_are_told(fresh: Fresh) {
    const ADD: Sql = Sql(
        "INSERT INTO integrations (id, tenant, name, provider, provider_version, method, client_id, scopes, variables, generation, created_at, updated_at) \
         VALUES (?1, 't', ?2, '', '', '', '', '[]', '{}', 0, 0, 0)",
    );
    const USE: Sql = Sql(
        "INSERT INTO connections (id, tenant, name, integration, tags, variables, state, generation, failures_setup, failures_grant, failures_transient, created_at, updated_at) \
         VALUES ('c', 't', 'c', ?1, '{}', '{}', 'draft', 0, 0, 0, 0, 0, 0)",
    );
    const REMOVE: Sql = Sql("DELETE FROM integrations WHERE id = ?1");
    let store = fresh.open().unwrap();
    let add =
        |id: &'static str, name: &'static str| store.write(move |tx| tx.execute(&ADD, &[Val::T(id), Val::T(name)]));
    add("1", "one").await.unwrap();
    assert!(matches!(add("2", "one").await, Err(StoreError::Taken)));
    assert!(matches!(add("1", "two").await, Err(StoreError::Taken)));
    store.write(|tx| tx.execute(&USE, &[Val::T("1")])).await.unwrap();
    assert!(matches!(store.write(|tx| tx.execute(&REMOVE, &[Val::T("1")])).await, Err(StoreError::InUse)));
}

async fn many_jobs_at_once_are_all_done(fresh: Fresh) {
    let (one, other) = (fresh.open().unwrap(), fresh.open().unwrap());
    let jobs = (0..100).map(|at| {
        let store = if at % 2 == 0 { &one } else { &other };
        store.write(move |tx| {
            let name = format!("job {at}");
            tx.put_meta(&name, "begun")?;
            tx.put_meta(&name, &format!("{:?}", tx.meta(&name)?))
        })
    });
    futures_util::future::try_join_all(jobs).await.unwrap();
    let stored = one.read(|tx| (0..100).map(|at| tx.meta(&format!("job {at}"))).collect::<StoreResult<Vec<_>>>());
    assert!(stored.await.unwrap().iter().all(|value| value.as_deref() == Some("Some(\"begun\")")));
}

async fn what_a_job_reads_is_one_state(fresh: Fresh) {
    let store = fresh.open().unwrap();
    store.write(|tx| tx.put_meta("a", "old")).await.unwrap();
    let (read_once, is_read) = std::sync::mpsc::channel();
    let (change, changed) = std::sync::mpsc::channel::<()>();
    let reading = store.clone();
    let reader = tokio::spawn(async move {
        let read = reading.read(move |tx| {
            let first = tx.meta("a")?;
            read_once.send(()).unwrap();
            changed.recv().unwrap();
            Ok((first, tx.meta("a")?))
        });
        read.await.unwrap()
    });
    tokio::task::spawn_blocking(move || is_read.recv().unwrap()).await.unwrap();
    store.write(|tx| tx.put_meta("a", "new")).await.unwrap();
    change.send(()).unwrap();
    assert_eq!(reader.await.unwrap(), (Some("old".to_owned()), Some("old".to_owned())));
    assert_eq!(store.read(|tx| tx.meta("a")).await.unwrap().as_deref(), Some("new"));
}

async fn a_locked_row_makes_others_wait(fresh: Fresh) {
    let store = fresh.open().unwrap();
    fresh.sql(
        "INSERT INTO integrations (id, tenant, name, provider, provider_version, method, client_id, scopes, variables, generation, created_at, updated_at) \
         VALUES ('i', 't', 'i', '', '', '', '', '[]', '{}', 0, 0, 0)",
    );
    let id: ConnectionId = ConnectionId::new(&Clock::System, &Rng::System);
    fresh.sql(&format!(
        "INSERT INTO connections (id, tenant, name, integration, tags, variables, state, generation, failures_setup, failures_grant, failures_transient, created_at, updated_at) \
         VALUES ('{id}', 't', 'c', 'i', '{{}}', '{{}}', 'draft', 0, 0, 0, 0, 0, 0)"
    ));
    // Each adds one to what it read. Without the lock, two would read the same.
    let jobs = (0..20).map(|_| {
        let id = id.clone();
        store.write(move |tx| {
            tx.lock_connection(&id)?;
            let count: i64 = tx.meta("count")?.map_or(0, |text| text.parse().unwrap());
            tx.put_meta("count", &(count + 1).to_string())
        })
    });
    futures_util::future::try_join_all(jobs).await.unwrap();
    assert_eq!(store.read(|tx| tx.meta("count")).await.unwrap().as_deref(), Some("20"));
}

async fn two_that_start_at_once_on_an_empty_database_both_come_up(fresh: Fresh) {
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fresh.open())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for store in started {
        store.unwrap().write(|tx| tx.put_meta("a", "1")).await.unwrap();
    }
}

const OLDER: &[migrate::Migration] =
    &[migrate::Migration { number: 1, text: "CREATE TABLE things (\n    id BIGINT PRIMARY KEY,\n    name TEXT\n);" }];
const NEWER: &[migrate::Migration] = &[
    migrate::Migration { number: 1, text: OLDER[0].text },
    migrate::Migration {
        number: 2,
        text: "ALTER TABLE things ADD COLUMN colour TEXT; CREATE INDEX things_colour ON things (colour);",
    },
];
const CHANGED: &[migrate::Migration] = &[
    migrate::Migration { number: 1, text: "CREATE TABLE things (\n    id BIGINT PRIMARY KEY\n);" },
    migrate::Migration { number: 2, text: NEWER[1].text },
];

async fn an_older_schema_is_brought_up_to_date(fresh: Fresh) {
    fresh.migrate(OLDER).unwrap();
    fresh.sql("INSERT INTO things (id, name) VALUES (1, 'kept')");
    fresh.migrate(NEWER).unwrap();
    fresh.migrate(NEWER).unwrap();
    fresh.sql("UPDATE things SET colour = name WHERE id = 1");
}

async fn a_newer_schema_is_refused(fresh: Fresh) {
    fresh.migrate(NEWER).unwrap();
    let error = fresh.migrate(OLDER).unwrap_err().to_string();
    assert!(error.contains("schema 2") && error.contains("up to 1") && error.contains("newer version"), "{error}");
}

async fn a_changed_migration_is_refused(fresh: Fresh) {
    fresh.migrate(OLDER).unwrap();
    let error = fresh.migrate(CHANGED).unwrap_err().to_string();
    assert!(error.contains("migration 1") && error.contains("modified"), "{error}");
    // And nothing was done.
    fresh.migrate(OLDER).unwrap();
}

async fn tables_of_another_program_are_refused(fresh: Fresh) {
    fresh.sql("CREATE TABLE invoices (id BIGINT)");
    let error = fresh.refusal();
    assert!(error.contains("`invoices`") && error.contains("empty database"), "{error}");
    fresh.sql("DROP TABLE invoices");
    fresh.open().unwrap();
}

async fn the_clock_is_the_databases(fresh: Fresh) {
    let manual = Clock::Manual(ManualClock::starting_at(5));
    let store = Store::open(&fresh.location, manual, Points::default()).unwrap();
    assert_eq!(store.read(|tx| tx.now_ms()).await.unwrap(), 5);
    let store = fresh.open().unwrap();
    let before = Clock::System.now_ms();
    let said = store.write(|tx| tx.now_ms()).await.unwrap();
    assert!((before - 1..=Clock::System.now_ms() + 1).contains(&said), "{said}");
}

fn key() -> crate::vault::WrappedKey {
    crate::vault::WrappedKey { id: 1, root_key: String::new(), wrapped: vec![1] }
}

/// A PostgreSQL that isn't there, isn't one, or doesn't let us in.
mod refusals {
    use super::*;

    fn refusal(url: &str, ca_file: Option<&Path>) -> String {
        let location = Location::from_url(url, ca_file).unwrap();
        let error = Store::open(&location, Clock::System, Points::default()).err().unwrap().to_string();
        assert!(!error.contains("sesame") && !error.contains("wrong-word"), "{error}");
        error
    }

    /// `host:port/database` of the server.
    fn address() -> String {
        server::server().split_once('@').unwrap().1.to_owned()
    }

    #[test]
    fn nobody_listens() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = refusal(&format!("postgres://u:sesame@{free}/keyholder"), None);
        assert!(
            error.contains(&free.to_string())
                && error.contains("refused")
                && error.contains("check that PostgreSQL runs"),
            "{error}"
        );
        let error = refusal("postgres://u:sesame@no-such-host.invalid/keyholder", None);
        assert!(error.contains("no-such-host.invalid") && error.contains("check that PostgreSQL runs"), "{error}");
    }

    #[test]
    fn something_else_listens() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut peer, _) = other.accept().unwrap();
            let _ = peer.read(&mut [0; 100]);
            let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        });
        let error = refusal(&format!("postgres://u:sesame@{address}/keyholder"), None);
        assert!(error.contains(&address.to_string()) && error.contains("check that it is PostgreSQL"), "{error}");
        answering.join().unwrap();
    }

    #[test]
    fn the_password_is_wrong_or_missing() {
        let error = refusal(&format!("postgres://locked:wrong-word@{}", address()), None);
        assert!(error.contains("check user and password") && error.contains("`locked`"), "{error}");
        let error = refusal(&format!("postgres://locked@{}", address()), None);
        assert!(error.contains("put the password into KEYHOLDER_DATABASE_URL"), "{error}");
    }

    #[test]
    fn there_is_no_such_user_or_database() {
        let error = refusal(&server::server().replace("/keyholder", "/nowhere"), None);
        assert!(error.contains("`nowhere`") && error.contains("createdb"), "{error}");
        let error = refusal(&format!("postgres://nobody_here@{}", address()), None);
        assert!(error.contains("`nobody_here`") && error.contains("create the user"), "{error}");
    }

    #[test]
    fn the_user_may_not_make_tables() {
        let url = server::new_database(&server::server(), "of_the_rich");
        let error = refusal(&url.replace("//postgres@", "//poor@"), None);
        assert!(error.contains("`poor`") && error.contains("OWNER TO"), "{error}");
    }

    /// The server's certificate is for `localhost`, from an authority of its own.
    #[tokio::test]
    async fn tls_checks_certificate_and_name() {
        let ca_file = PathBuf::from(server::ca_file());
        let folder = tempfile::tempdir().unwrap();
        let own = server::of_folder(folder.path());
        let url = format!("{}?sslmode=require", own.replace("127.0.0.1", "localhost"));
        let location = Location::from_url(&url, Some(&ca_file)).unwrap();
        let store = Store::open(&location, Clock::System, Points::default()).unwrap();
        let encrypted = store.read(|tx| {
            tx.row(&Sql("SELECT count(*) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl"), &[], |row| row.i(0))
        });
        assert_eq!(encrypted.await.unwrap(), Some(1));

        let error = refusal(&url, None);
        assert!(error.contains("certificate") && error.contains("KEYHOLDER_CA_FILE"), "{error}");
        let error = refusal(&format!("{own}?sslmode=verify-full"), Some(&ca_file));
        assert!(error.contains("certificate") && error.contains("host name"), "{error}");
        let error = refusal(&format!("{}?sslmode=require", server::pooler()), Some(&ca_file));
        assert!(error.contains("sslmode=disable"), "{error}");
    }
}

/// A server that goes away under a running store.
mod outages {
    use super::*;

    /// Ends all connections of the store's user, as a restart does.
    fn cut(url: &str) {
        let user = url.split_once("//").unwrap().1.split_once('@').unwrap().0;
        let cut = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{user}'");
        server::sql(&server::server(), &cut);
    }

    #[tokio::test]
    async fn idle_connections_that_were_closed_cost_nothing() {
        let fresh = Fresh::postgres();
        let store = fresh.open().unwrap();
        for _ in 0..2 {
            let jobs = (0..20).map(|at| store.write(move |tx| tx.put_meta(&at.to_string(), "1")));
            futures_util::future::try_join_all(jobs).await.unwrap();
            cut(fresh.url.as_deref().unwrap());
        }
    }

    #[tokio::test]
    async fn a_job_under_way_fails_and_the_next_does_not() {
        let fresh = Fresh::postgres();
        let store = fresh.open().unwrap();
        let url = fresh.url.clone().unwrap();
        let broken = store.write(move |tx| {
            tx.put_meta("a", "1")?;
            cut(&url);
            tx.put_meta("b", "1")
        });
        let error = broken.await.unwrap_err();
        assert!(matches!(&error, StoreError::Unreachable(text) if text.contains("was lost")), "{error}");
        assert_eq!(store.read(|tx| Ok((tx.meta("a")?, tx.meta("b")?))).await.unwrap(), (None, None));
    }
}
