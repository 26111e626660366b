//! What the written keys mean.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use keyholder_broker::clock::{Clock, Rng};
use keyholder_broker::egress::{Egress, Policy, Rules};
use keyholder_broker::points::Points;
use keyholder_broker::store::Location;
use keyholder_broker::vault::RootKeySource;
use keyholder_broker::{Broker, Error, Opened, Pace, Retention, Settings};
use keyholder_oauth::Secret;
use url::Url;

use super::ConfigError;
use super::stop::stop_at;
use super::written::{Placed, Written};
use crate::cli::values::duration;

/// The whole configuration, understood.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Where people and providers reach it; the listen address by plain http when nothing else is said.
    pub public_url: Url,
    /// Data folder.
    pub data_dir: PathBuf,
    /// Database.
    pub database: Location,
    /// Root key.
    pub root_key: RootKeySource,
    /// Exceptions of the outbound policy.
    pub egress_allow: Rules,
    /// PEM certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long the server goes on accepting requests after SIGTERM, while the readiness probe says that it stops.
    pub stop_delay: Duration,
    /// How fast one token endpoint is asked.
    pub pace: Pace,
    /// Threads that answer requests; `None`: as many as there are cores.
    pub workers: Option<usize>,
    /// How long what happened is kept.
    pub retention: Retention,
    /// Whether the console may start a sandbox in this process. Only where the public URL is this machine's own.
    pub sandbox: bool,
    /// Filter of the log.
    pub log: String,
    /// Write the log as JSON lines.
    pub log_json: bool,
    /// What the commands that call a server use.
    pub client: ClientConfig,
    /// Where a test makes the process stand still; nothing in release builds.
    pub points: Points,
}

/// How the commands reach the server.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server (`KEYHOLDER_URL`; else the public URL).
    pub url: Url,
    /// The API key (`KEYHOLDER_API_KEY`).
    pub api_key: Option<Secret>,
    /// Where `serve` leaves the administrator's key; read when no key is given.
    pub key_file: PathBuf,
}

pub(super) fn understand(
    written: Written,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let listen = parse::<SocketAddr>(&written, "listen", "write an address and a port, like 127.0.0.1:8787")?;
    let public_url = public_url(&written, listen)?;
    let data_dir = PathBuf::from(text(&written, "data_dir").unwrap_or_default());
    let (log, log_json) = log(&text(&written, "log").unwrap_or_default());
    let client_url = match environment("KEYHOLDER_URL") {
        Some(value) => web_url("url", &Placed { value, place: "KEYHOLDER_URL".to_owned() })?,
        None => local_url(listen),
    };
    Ok(Config {
        listen,
        database: database(&written, &data_dir)?,
        root_key: root_key(&written, &data_dir, environment)?,
        egress_allow: parse(&written, "egress_allow", "separate hosts and networks by commas")?,
        ca_file: text(&written, "ca_file").map(PathBuf::from),
        stop_delay: stop_delay(&written)?,
        pace: pace(&written)?,
        workers: workers(&written)?,
        retention: retention(&written)?,
        sandbox: sandbox(&written)?,
        log,
        log_json,
        client: ClientConfig {
            url: client_url,
            api_key: environment("KEYHOLDER_API_KEY").map(|key| Secret::new(key.trim())),
            key_file: data_dir.join("admin-key"),
        },
        points: stop_at(environment, &data_dir)?,
        public_url,
        data_dir,
    })
}

impl Config {
    /// The outbound client that this configuration describes.
    pub fn egress(&self, clock: Clock) -> Result<Egress, ConfigError> {
        let extra = match &self.ca_file {
            Some(path) => Some(std::fs::read(path).map_err(|e| self.bad_ca(path, e.to_string()))?),
            None => None,
        };
        let policy = Policy::new(self.egress_allow.clone());
        let here = matches!(self.public_url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let policy = if self.sandbox && here { policy.with_room_for_sandbox() } else { policy };
        Egress::new(clock, policy, extra.as_deref())
            .map_err(|e| self.bad_ca(self.ca_file.as_deref().unwrap_or(&self.data_dir), e.to_string()))
    }

    /// Opens the broker: data folder, database, root key.
    ///
    /// # Errors
    /// The reason, in words for the operator.
    pub async fn open_broker(&self) -> Result<Opened, Box<dyn std::error::Error + Send + Sync>> {
        make_private_folder(&self.data_dir)
            .map_err(|e| Error::File { what: self.data_dir.display().to_string(), cause: e.to_string() })?;
        let settings = Settings {
            public_url: self.public_url.clone(),
            data_dir: self.data_dir.clone(),
            database: self.database.clone(),
            root_key: self.root_key.clone(),
            pace: self.pace,
            retention: self.retention,
            points: self.points.clone(),
        };
        let egress = self.egress(Clock::System)?;
        Ok(Broker::open(settings, Clock::System, Rng::System, egress).await?)
    }

    /// Takes the port that was really bound, where the configuration said 0.
    pub fn bound(mut self, address: SocketAddr) -> Self {
        if self.listen.port() == 0 {
            if self.public_url == local_url(self.listen) {
                self.public_url = local_url(address);
            }
            self.listen = address;
        }
        self
    }

    fn bad_ca(&self, path: &std::path::Path, reason: String) -> ConfigError {
        ConfigError {
            key: "ca_file",
            place: path.display().to_string(),
            reason,
            remedy: "name a readable file of PEM certificates".to_owned(),
        }
    }
}

/// Makes the data folder for its owner only.
fn make_private_folder(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn text(written: &Written, key: &str) -> Option<String> {
    written.get(key).map(|placed| placed.value.clone()).filter(|value| !value.is_empty())
}

fn parse<T>(written: &Written, key: &'static str, remedy: &str) -> Result<T, ConfigError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let empty = Placed { value: String::new(), place: "the default configuration".to_owned() };
    let placed = written.get(key).unwrap_or(&empty);
    placed.value.parse().map_err(|error: T::Err| bad(key, placed, error.to_string(), remedy))
}

fn pace(written: &Written) -> Result<Pace, ConfigError> {
    let remedy = "write a whole number from 1 to 1000";
    let number = |key| match parse::<u16>(written, key, remedy)? {
        number @ 1..=1000 => Ok(number),
        _ => Err(bad(key, &written[key], "it is out of range".to_owned(), remedy)),
    };
    Ok(Pace { at_once: number("renewals_per_endpoint")?.into(), per_second: number("renewals_per_second")?.into() })
}

fn sandbox(written: &Written) -> Result<bool, ConfigError> {
    parse(written, "sandbox", "write true or false")
}

fn workers(written: &Written) -> Result<Option<usize>, ConfigError> {
    let Some(placed) = written.get("workers") else { return Ok(None) };
    let remedy = "write a whole number from 1 to 1000";
    match parse::<u16>(written, "workers", remedy)? {
        number @ 1..=1000 => Ok(Some(number.into())),
        _ => Err(bad("workers", placed, "it is out of range".to_owned(), remedy)),
    }
}

fn retention(written: &Written) -> Result<Retention, ConfigError> {
    let kept = |key| {
        let days: u32 = parse(written, key, "write a whole number of days, or 0 for ever")?;
        Ok((days > 0).then(|| Duration::from_secs(u64::from(days) * 24 * 3600)))
    };
    Ok(Retention { audit: kept("audit_days")?, usage: kept("usage_days")? })
}

fn bad(key: &'static str, placed: &Placed, reason: String, remedy: &str) -> ConfigError {
    ConfigError { key, place: placed.place.clone(), reason, remedy: remedy.to_owned() }
}

fn public_url(written: &Written, listen: SocketAddr) -> Result<Url, ConfigError> {
    let Some(placed) = written.get("public_url") else { return Ok(local_url(listen)) };
    let url = web_url("public_url", placed)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        // Authorization codes and the cookie that binds a consent to its browser would travel in the clear (RFC 6749 §3.1.2.1).
        let reason = "plain http is only for this machine itself".to_owned();
        let remedy = "write https://, and let a reverse proxy with a certificate stand in front";
        return Err(bad("public_url", placed, reason, remedy));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn web_url(key: &'static str, placed: &Placed) -> Result<Url, ConfigError> {
    let remedy = "write it like https://keyholder.example.com, without a query";
    let url = Url::parse(&placed.value).map_err(|e| bad(key, placed, e.to_string(), remedy))?;
    let fits = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty();
    if fits { Ok(url) } else { Err(bad(key, placed, "it is not the URL of a web server".to_owned(), remedy)) }
}

/// How this machine reaches the listening server.
fn local_url(listen: SocketAddr) -> Url {
    let host = match listen.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
        std::net::IpAddr::V4(v4) => v4.to_string(),
    };
    let text = format!("http://{host}:{}/", listen.port());
    text.parse().unwrap_or_else(|_| unreachable!("an address and a port make a URL"))
}

fn database(written: &Written, data_dir: &std::path::Path) -> Result<Location, ConfigError> {
    match written.get("database_url") {
        None => Ok(Location::Sqlite(data_dir.join("keyholder.db"))),
        Some(placed) => {
            let ca_file = text(written, "ca_file").map(PathBuf::from);
            Location::from_url(&placed.value, ca_file.as_deref()).map_err(|e| {
                let remedy = "write it like sqlite:/var/lib/keyholder/keyholder.db or postgres://keyholder:PASSWORD@db.internal/keyholder";
                bad("database_url", placed, e.to_string(), remedy)
            })
        }
    }
}

fn stop_delay(written: &Written) -> Result<Duration, ConfigError> {
    let Some(placed) = written.get("stop_delay") else { return Ok(Duration::ZERO) };
    duration(&placed.value).map_err(|reason| bad("stop_delay", placed, reason, "write a duration like 5s, or 0"))
}

fn root_key(
    written: &Written,
    data_dir: &std::path::Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<RootKeySource, ConfigError> {
    let value = environment("KEYHOLDER_ROOT_KEY");
    let (file, command) = (written.get("root_key_file"), written.get("root_key_command"));
    match (value, file, command) {
        (Some(value), None, None) => Ok(RootKeySource::Value(Secret::new(value))),
        (None, Some(file), None) => Ok(RootKeySource::File(PathBuf::from(&file.value))),
        (None, None, Some(command)) => Ok(RootKeySource::Command(command.value.clone())),
        (None, None, None) => Ok(RootKeySource::File(data_dir.join("root-key"))),
        _ => Err(ConfigError {
            key: "root_key",
            place: "KEYHOLDER_ROOT_KEY, root_key_file, root_key_command".to_owned(),
            reason: "more than one of them is set".to_owned(),
            remedy: "set only the one that shall count".to_owned(),
        }),
    }
}

/// The filter, and whether `json` stands behind it.
fn log(text: &str) -> (String, bool) {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| *part != "json").collect();
    (parts.join(","), text.split(',').any(|part| part.trim() == "json"))
}

#[cfg(test)]
mod tests {
    use super::super::written::{KEYS, Overrides, gather};
    use super::*;

    fn with(variables: &[(&str, &str)], overrides: &Overrides) -> Result<Config, ConfigError> {
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        understand(gather(overrides, &environment)?, &environment)
    }

    #[test]
    fn the_default_file_documents_every_key() {
        for (key, variable) in KEYS {
            assert!(super::super::DEFAULT_FILE.contains(&format!("{key} = ")), "{key}");
            assert!(super::super::DEFAULT_FILE.contains(variable), "{variable}");
        }
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_default() {
        let none = Overrides::default();
        let config = with(&[], &none).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8787");
        assert_eq!(config.public_url.as_str(), "http://127.0.0.1:8787/");
        assert_eq!(config.client.key_file, PathBuf::from("./keyholder-data/admin-key"));
        let variables = [("KEYHOLDER_LISTEN", "127.0.0.1:1"), ("KEYHOLDER_LOG", "debug,json")];
        let config = with(&variables, &none).unwrap();
        assert_eq!((config.listen.port(), config.log.as_str(), config.log_json), (1, "debug", true));
        assert_eq!((config.workers, with(&[("KEYHOLDER_WORKERS", "1")], &none).unwrap().workers), (None, Some(1)));
        assert_eq!((config.retention.audit, config.retention.usage.unwrap().as_secs()), (None, 400 * 86_400));
        let flags = Overrides { listen: Some(([127, 0, 0, 1], 2).into()), ..Overrides::default() };
        assert_eq!(with(&variables, &flags).unwrap().listen.port(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_a_remedy() {
        let wrong = [
            ("KEYHOLDER_LISTEN", "everywhere"),
            ("KEYHOLDER_PUBLIC_URL", "keyholder.example"),
            ("KEYHOLDER_PUBLIC_URL", "http://keyholder.example"),
            ("KEYHOLDER_PUBLIC_URL", "http://192.0.2.1:8787"),
            ("KEYHOLDER_DATABASE_URL", "mysql://x"),
            ("KEYHOLDER_EGRESS_ALLOW", "10.0.0.0/99"),
            ("KEYHOLDER_WORKERS", "0"),
            ("KEYHOLDER_WORKERS", "many"),
            ("KEYHOLDER_AUDIT_DAYS", "-1"),
        ];
        for (variable, value) in wrong {
            let error = with(&[(variable, value)], &Overrides::default()).unwrap_err();
            assert_eq!(error.place, variable);
            assert!(!error.remedy.is_empty());
        }
        for url in ["https://keyholder.example", "http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"] {
            with(&[("KEYHOLDER_PUBLIC_URL", url)], &Overrides::default()).unwrap();
        }
        let everywhere = with(&[("KEYHOLDER_LISTEN", "0.0.0.0:8787")], &Overrides::default()).unwrap();
        assert_eq!(everywhere.public_url.as_str(), "http://127.0.0.1:8787/");
        let two = [("KEYHOLDER_ROOT_KEY", "x"), ("KEYHOLDER_ROOT_KEY_FILE", "y")];
        assert!(with(&two, &Overrides::default()).unwrap_err().reason.contains("more than one"));
    }
}
