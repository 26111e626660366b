//! The database of a test app, on whichever engine, seen from outside the product.

use std::path::{Path, PathBuf};

use keyholder_broker::store::Location;

use crate::postgres;

/// A database that belongs to one data folder.
#[derive(Clone)]
pub enum Database {
    Sqlite(PathBuf),
    /// A user's URL, and the schema of the same name.
    Postgres {
        url: String,
        schema: String,
    },
}

/// The database can't be written until this is dropped.
pub struct Lock {
    _held: Box<dyn std::any::Any>,
}

impl Database {
    /// The database of this data folder.
    pub fn of(folder: &Path) -> Self {
        if crate::ON_POSTGRES {
            Self::Postgres { url: postgres::of_folder(folder), schema: postgres::schema_of(folder) }
        } else {
            Self::Sqlite(folder.join("keyholder.db"))
        }
    }

    pub fn location(&self) -> Location {
        match self {
            Self::Sqlite(path) => Location::Sqlite(path.clone()),
            Self::Postgres { url, .. } => Location::from_url(url, None).unwrap(),
        }
    }

    /// Runs statements.
    pub fn run(&self, sql: &str) {
        match self {
            Self::Sqlite(path) => rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap(),
            Self::Postgres { url, .. } => drop(postgres::sql(url, sql)),
        }
    }

    /// One number.
    pub fn number(&self, sql: &str) -> i64 {
        match self {
            Self::Sqlite(path) => {
                rusqlite::Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
            }
            Self::Postgres { url, .. } => postgres::sql(url, sql)[0][0].as_deref().unwrap().parse().unwrap(),
        }
    }

    /// Refuses what `trigger` describes: `BEFORE UPDATE OF token_set ON connections`, with or without `WHEN (…)`.
    pub fn refuse(&self, trigger: &str) {
        match self {
            Self::Sqlite(_) => self
                .run(&format!("CREATE TRIGGER refusal {trigger} BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")),
            Self::Postgres { .. } => {
                let (event, when) = trigger.split_once(" WHEN ").unwrap_or((trigger, "(true)"));
                self.run(REFUSE);
                self.run(&format!("CREATE TRIGGER refusal {event} FOR EACH ROW WHEN {when} EXECUTE FUNCTION refuse()"));
            }
        }
    }

    /// Refuses nothing more.
    pub fn relent(&self) {
        match self {
            Self::Sqlite(_) => self.run("DROP TRIGGER refusal"),
            Self::Postgres { .. } => self.run("DROP FUNCTION refuse CASCADE"),
        }
    }

    /// Keeps everybody else from writing.
    pub fn lock(&self) -> Lock {
        match self {
            Self::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                Lock { _held: Box::new(connection) }
            }
            Self::Postgres { url, .. } => {
                Lock { _held: Box::new(postgres::Held::by(url, "BEGIN; LOCK TABLE connections IN EXCLUSIVE MODE")) }
            }
        }
    }

    /// All rows of all tables as text, sealed values byte by byte. Nothing on SQLite, whose files a test reads itself.
    pub fn everything(&self) -> String {
        let Self::Postgres { url, .. } = self else { return String::new() };
        let rows = self.tables().into_iter().flat_map(|table| {
            postgres::sql(url, &format!("SET bytea_output = 'escape'; SELECT t::text FROM {table} t"))
        });
        rows.flatten().flatten().collect::<Vec<_>>().join("\n")
    }

    /// A copy as it is now, for another data folder. On SQLite the folder's copy has it.
    pub fn copied_to(&self, folder: &Path) -> Self {
        let copy = Self::of(folder);
        if let (Self::Postgres { url, schema: from }, Self::Postgres { schema: to, .. }) = (self, &copy) {
            // Foreign keys are left behind.
            let tables = self.tables().into_iter().map(|table| {
                format!(
                    "CREATE TABLE {to}.{table} (LIKE {from}.{table} INCLUDING ALL); INSERT INTO {to}.{table} SELECT * FROM {from}.{table}; \
                     ALTER TABLE {to}.{table} OWNER TO {to};"
                )
            });
            let triggers = postgres::sql(
                url,
                "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'refusal' AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace)",
            );
            let triggers = triggers.into_iter().flatten().flatten();
            let triggers = triggers
                .map(|text| text.replace(from, to).replace("FUNCTION refuse", &format!("FUNCTION {to}.refuse")));
            let text = format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ; {} GRANT USAGE ON SCHEMA {from} TO {to}; GRANT ALL ON ALL SEQUENCES IN SCHEMA {from} TO {to}; COMMIT",
                tables.collect::<String>()
            );
            postgres::sql(&postgres::server(), &text);
            for trigger in triggers {
                copy.run(REFUSE);
                copy.run(&trigger);
            }
        }
        copy
    }

    fn tables(&self) -> Vec<String> {
        let Self::Postgres { url, .. } = self else { return Vec::new() };
        let found = postgres::sql(url, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()");
        found.into_iter().flatten().flatten().collect()
    }
}

const REFUSE: &str = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END $$";
