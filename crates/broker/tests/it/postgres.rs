//! The PostgreSQL server of the test run: nextest starts it (`.config/nextest.toml`); without nextest, the first test that needs it.
#![allow(dead_code, reason = "unit tests and integration tests use parts of it")]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use keyholder_oauth::sha256;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// URL of the server, as its superuser.
pub fn server() -> String {
    told("KEYHOLDER_TEST_POSTGRES")
}

/// URL of a pooler before it that hands out two servers, transaction by transaction.
pub fn pooler() -> String {
    told("KEYHOLDER_TEST_POOLER")
}

/// The authority that the server's certificate for `localhost` comes from.
pub fn ca_file() -> String {
    told("KEYHOLDER_TEST_POSTGRES_CA")
}

#[expect(clippy::disallowed_methods, reason = "the test runner says by the environment where its server is")]
fn told(name: &str) -> String {
    static STARTED: OnceLock<HashMap<String, String>> = OnceLock::new();
    std::env::var(name).unwrap_or_else(|_| STARTED.get_or_init(start)[name].clone())
}

/// Starts a server that ends with this process.
fn start() -> HashMap<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/postgres.sh");
    let started = Command::new(script).arg(std::process::id().to_string()).output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let said = String::from_utf8(started.stdout).unwrap();
    said.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// URL of a user and schema that belong to `folder` alone, made if they aren't there.
pub fn of_folder(folder: &Path) -> String {
    let name = schema_of(folder);
    if sql(&server(), &format!("SELECT 1 FROM pg_roles WHERE rolname = '{name}'")).is_empty() {
        sql(&server(), &format!("CREATE ROLE {name} LOGIN; CREATE SCHEMA {name} AUTHORIZATION {name}"));
    }
    server().replace("//postgres@", &format!("//{name}@"))
}

/// The schema of [`of_folder`].
pub fn schema_of(folder: &Path) -> String {
    let hash = sha256(folder.to_string_lossy().as_bytes());
    hash[..8].iter().fold("t".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// A database of its own below `url`, for what a schema can't keep apart.
pub fn new_database(url: &str, name: &str) -> String {
    sql(&server(), &format!("CREATE DATABASE {name}"));
    url.replace("/keyholder", &format!("/{name}"))
}

/// What the database answers, row by row, as text.
pub fn sql(url: &str, text: &str) -> Vec<Vec<Option<String>>> {
    try_sql(url, text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

/// On a thread of its own: callers stand in a runtime already.
pub fn try_sql(url: &str, text: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
    let config: Config = url.parse().unwrap();
    let run = || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            let connection = tokio::spawn(connection);
            let said = client.simple_query(text).await?;
            drop(client);
            let _ = connection.await;
            Ok(said.into_iter().filter_map(columns).collect())
        })
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// A session that goes on until it is dropped.
pub struct Held {
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Held {
    /// A session in which `text` was run.
    pub fn by(url: &str, text: &str) -> Self {
        let (config, text): (Config, _) = (url.parse().unwrap(), text.to_owned());
        let (end, ended) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let (client, connection) = config.connect(NoTls).await.unwrap();
                tokio::spawn(connection);
                client.simple_query(&text).await.unwrap();
                ready.send(()).unwrap();
                let _ = ended.await;
                client.simple_query("ROLLBACK").await.unwrap();
            });
        });
        is_ready.recv().unwrap();
        Self { _end: end }
    }
}

fn columns(message: SimpleQueryMessage) -> Option<Vec<Option<String>>> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
}
