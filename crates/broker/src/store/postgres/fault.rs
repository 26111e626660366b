//! What PostgreSQL, or the way to it, says is wrong, in our errors.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use super::Server;
use crate::store::StoreError;

/// A statement that the server refused. Only its message: details may hold values of rows.
#[derive(Debug)]
struct Refused {
    server: String,
    code: String,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.server, self.message, self.code)?;
        if let Some(remedy) = remedy(&self.code) {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// A statement that failed.
pub(super) fn statement(server: &Server, error: &tokio_postgres::Error) -> StoreError {
    let Some(db) = error.as_db_error() else { return lost(server, error) };
    let code = db.code();
    match code.code() {
        "23505" => StoreError::Taken,
        "23503" => StoreError::InUse,
        // Class 08: connection; 57P01 to 57P05: the server is being stopped, or its pooler.
        code if code.starts_with("08") || code.starts_with("57P") => lost(server, error),
        "42501" => StoreError::Schema(format!(
            "user `{}` may not do this in {server}: {}; make the user its owner (`ALTER DATABASE … OWNER TO …`), or grant CREATE on the schema",
            server.user(),
            db.message()
        )),
        "3F000" => StoreError::Schema(format!(
            "{server} has no schema to create tables in: {}; create one that the user's search_path names",
            db.message()
        )),
        code => {
            let refused =
                Refused { server: server.to_string(), code: code.to_owned(), message: db.message().to_owned() };
            // Class 22: a value that can't be; 23: a constraint.
            match code.starts_with("22") || code.starts_with("23") {
                true => StoreError::Refused(Arc::new(refused)),
                false => StoreError::Engine(Arc::new(refused)),
            }
        }
    }
}

fn remedy(code: &str) -> Option<&'static str> {
    match code {
        "25006" => Some("it takes no writes: name the primary server, not a standby"),
        "53100" => Some("give the server more disk"),
        "55P03" | "57014" => Some("it is tried again; if it stays, look for what holds locks in pg_stat_activity"),
        "40P01" | "40001" => Some("another process was quicker; it is tried again"),
        _ => None,
    }
}

/// The connection ended under a statement. Whether a commit took place is unknown.
fn lost(server: &Server, error: &tokio_postgres::Error) -> StoreError {
    StoreError::Unreachable(format!(
        "the connection to the {server} was lost: {}; it is made again by itself once the server answers",
        cause(error)
    ))
}

/// The server said nothing for so long.
pub(super) fn silent(server: &Server, time: Duration) -> StoreError {
    StoreError::Unreachable(format!(
        "the {server} did not answer within {} s; check that PostgreSQL listens there, and the network between",
        time.as_secs()
    ))
}

/// No connection could be made.
pub(super) fn connecting(server: &Server, error: &tokio_postgres::Error) -> StoreError {
    let (why, remedy) = match error.as_db_error() {
        Some(db) => (db.message().to_owned(), entry_remedy(server, db)),
        None => (cause(error), way_remedy(server, error)),
    };
    StoreError::Unreachable(format!("the {server} can't be used: {why}; {remedy}"))
}

fn entry_remedy(server: &Server, db: &DbError) -> String {
    let code = db.code();
    if *code == SqlState::INVALID_PASSWORD || db.message().contains("password") {
        return format!("check user and password in KEYHOLDER_DATABASE_URL (user `{}`)", server.user());
    }
    if *code == SqlState::INVALID_CATALOG_NAME || db.message().contains("no such database") {
        return format!("create it: `createdb --owner={} {}`", server.user(), server.database());
    }
    if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        return format!("create the user `{}`, or let it in by pg_hba.conf", server.user());
    }
    if *code == SqlState::TOO_MANY_CONNECTIONS {
        return "raise max_connections, or put a pooler in front (8 connections a process are used)".to_owned();
    }
    if code.code().starts_with("57P") {
        return "start again when the server is up".to_owned();
    }
    "see the server's log".to_owned()
}

fn way_remedy(server: &Server, error: &tokio_postgres::Error) -> String {
    let text = error.to_string();
    let said = cause(error);
    if said.contains("certificate") {
        return "the certificate must be for this host name and come from an authority of the system or of KEYHOLDER_CA_FILE; on a network you trust, add `?sslmode=disable`".to_owned();
    }
    if text.contains("TLS") || said.contains("TLS") {
        return match server.insists_on_tls() {
            true => "switch on `ssl` at the server, or add `?sslmode=disable` on a network you trust".to_owned(),
            false => "repair the server's `ssl` settings, or add `?sslmode=disable` on a network you trust".to_owned(),
        };
    }
    if text.contains("password missing") || text.contains("authentication") || said.contains("password") {
        return "put the password into KEYHOLDER_DATABASE_URL, or let the user in without by pg_hba.conf".to_owned();
    }
    let is_io = error.source().is_some_and(|source| source.is::<std::io::Error>());
    if text.contains("connecting to server") || text.contains("connection") && is_io {
        return "check that PostgreSQL runs there and can be reached, and the host and port in KEYHOLDER_DATABASE_URL"
            .to_owned();
    }
    "check that it is PostgreSQL that listens there".to_owned()
}

/// The innermost causes; the library's own words say only in which step.
fn cause(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return db.message().to_owned();
    }
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}
