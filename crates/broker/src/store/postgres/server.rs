//! Which PostgreSQL server, as its URL says.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::Tls;
use crate::store::{StoreError, StoreResult};
use crate::trust;

/// A PostgreSQL database: where it is, and how it is entered. Never shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    config: Config,
    ca_file: Option<PathBuf>,
}

impl Server {
    pub(crate) fn from_url(url: &str, ca_file: Option<&Path>) -> StoreResult<Self> {
        let wrong = |why: String| {
            StoreError::Location(format!(
                "{why}; write `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require`, with %-encoding for special characters of the password (`@` is `%40`, `/` is `%2F`)"
            ))
        };
        let (url, mode) = take_ssl_mode(url).map_err(wrong)?;
        // The library names the parameter that it didn't understand, never its value.
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            wrong(format!("it can't be read ({why})"))
        })?;
        check_names(&config).map_err(wrong)?;
        let near = config.get_hosts().iter().all(is_this_machine);
        config
            .ssl_mode(mode.unwrap_or(if near { SslMode::Disable } else { SslMode::Prefer }))
            .application_name("keyholder")
            .connect_timeout(Duration::from_secs(5))
            // A server that vanished without a word is noticed within half a minute.
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(20));
        Ok(Self { config, ca_file: ca_file.map(Path::to_owned) })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whom to believe; nothing where connections are in the clear.
    pub(super) fn tls(&self) -> StoreResult<Option<Tls>> {
        if self.config.get_ssl_mode() == SslMode::Disable {
            return Ok(None);
        }
        let extra = self.ca_file.as_ref().map(|path| {
            std::fs::read(path).map_err(|e| StoreError::Location(format!("the CA file {}: {e}", path.display())))
        });
        let config = trust::client(extra.transpose()?.as_deref()).map_err(|e| StoreError::Location(e.to_string()))?;
        Ok(Some(Tls::new(config)))
    }

    /// Is TLS refused rather than done without?
    pub(super) fn insists_on_tls(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }

    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or("this process's user")
    }

    pub(super) fn database(&self) -> &str {
        self.config.get_dbname().or(self.config.get_user()).unwrap_or("named like this process's user")
    }

    /// `HOST:PORT` of each host.
    pub(super) fn hosts(&self) -> String {
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{}", port(at)),
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(folder) => format!("{}/.s.PGSQL.{}", folder.display(), port(at)),
        });
        hosts.collect::<Vec<_>>().join(", ")
    }
}

/// Host and database, for the log and errors.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database `{}` at {}", self.database(), self.hosts())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

/// The URL without `sslmode`, of which the library knows fewer words than people write.
fn take_ssl_mode(url: &str) -> Result<(String, Option<SslMode>), String> {
    let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let mut mode = None;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", "disable")) => mode = Some(SslMode::Disable),
            Some(("sslmode", "prefer")) => mode = Some(SslMode::Prefer),
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => mode = Some(SslMode::Require),
            Some(("sslmode", _)) => {
                return Err("`sslmode` is none of disable, prefer, require and verify-full".to_owned());
            }
            Some(("sslrootcert", _)) => {
                return Err("`sslrootcert` is said by KEYHOLDER_CA_FILE here; leave it out".to_owned());
            }
            _ => rest.push(pair),
        }
    }
    let rest = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    Ok((format!("{address}{rest}"), mode))
}

/// What will be shown in errors must not hold a piece of a password that was not encoded.
fn check_names(config: &Config) -> Result<(), String> {
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("it names no host".to_owned());
    }
    let odd_host = config.get_hosts().iter().any(|host| match host {
        Host::Tcp(name) => !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)),
        Host::Unix(_) => false,
    });
    if odd_host {
        return Err("the host has a character that no host name has".to_owned());
    }
    if config.get_dbname().is_some_and(|name| name.contains(['@', '/'])) {
        return Err("the database's name has an `@` or a `/`".to_owned());
    }
    Ok(())
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(url: &str) -> Server {
        Server::from_url(url, None).unwrap()
    }

    #[test]
    fn sslmode_and_where_the_server_is_decide_about_tls() {
        let modes = [
            ("postgres://u@127.0.0.1/d", SslMode::Disable),
            ("postgres://u@localhost/d", SslMode::Disable),
            ("postgres://u@/d?host=/run/postgresql", SslMode::Disable),
            ("postgres://u@db.internal/d", SslMode::Prefer),
            ("postgres://u@127.0.0.1/d?sslmode=require", SslMode::Require),
            ("postgres://u@db.internal/d?sslmode=verify-full&connect_timeout=3", SslMode::Require),
            ("postgres://u@db.internal/d?sslmode=disable", SslMode::Disable),
        ];
        for (url, mode) in modes {
            assert_eq!(read(url).config.get_ssl_mode(), mode, "{url}");
        }
        assert_eq!(read("postgresql://u:p@[::1]:6432/d").to_string(), "database `d` at [::1]:6432");
    }

    #[test]
    fn a_url_that_cant_be_read_says_why_and_keeps_the_password() {
        let wrong = [
            ("postgres://u:sesame@h/d?sslmode=maybe", "sslmode"),
            ("postgres://u:sesame@h/d?sslrootcert=x", "KEYHOLDER_CA_FILE"),
            ("postgres://u:sesame@h/d?colour=red", "colour"),
            ("postgres://u:sesame@h:port/d", "port"),
            ("postgres://u:half@sesame@h/d", "host"),
            ("postgres://u:sesame@/d", "host"),
        ];
        for (url, why) in wrong {
            let error = Server::from_url(url, None).expect_err(url).to_string();
            assert!(
                error.contains(why) && error.contains("write `postgres://") && !error.contains("sesame"),
                "{url}: {error}"
            );
        }
        let shown = format!("{:?}", read("postgres://u:sesame@h/d"));
        assert!(!shown.contains("sesame"), "{shown}");
    }
}
