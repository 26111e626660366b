//! Where the store lives.

use std::path::{Path, PathBuf};

use super::{Server, StoreError};

/// Where the store lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<Server>),
}

impl Location {
    /// Reads a database URL: `sqlite:PATH` (relative paths are taken from the working folder) or `postgres://USER:PASSWORD@HOST/DATABASE`. `ca_file`
    /// holds PEM certificates of authorities that PostgreSQL's certificate may come from, beside the system's.
    ///
    /// # Errors
    /// What is wrong with it; never the URL itself, which may hold a password.
    pub fn from_url(url: &str, ca_file: Option<&Path>) -> Result<Self, StoreError> {
        match url.split_once(':') {
            Some(("sqlite", path)) if !path.trim_start_matches("//").is_empty() => {
                Ok(Location::Sqlite(Path::new(path.strip_prefix("//").unwrap_or(path)).to_owned()))
            }
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                Ok(Location::Postgres(Box::new(Server::from_url(url, ca_file)?)))
            }
            Some((scheme, _)) if scheme.len() <= 20 => Err(StoreError::Location(format!(
                "`{scheme}:` with what stands behind it is not a database this version opens; use `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`"
            ))),
            _ => Err(StoreError::Location(
                "a database URL begins with its scheme, for example `sqlite:/var/lib/keyholder/keyholder.db` or `postgres://keyholder@db.internal/keyholder`"
                    .to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_says_what_is_wrong_with_it() {
        let read = |url| Location::from_url(url, None);
        assert_eq!(read("sqlite:///var/k.db").unwrap(), Location::Sqlite("/var/k.db".into()));
        assert_eq!(read("sqlite:k.db").unwrap(), Location::Sqlite("k.db".into()));
        for wrong in ["mysql://x", "k.db", "sqlite:", "postgres:x"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("sqlite:") && error.contains("postgres://"), "{error}");
        }
    }
}
