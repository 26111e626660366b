//! What was written, and where.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;

/// The default file: every key, documented.
pub const DEFAULT_FILE: &str = include_str!("default.toml");

/// Flags of the command line.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Another configuration file; it must exist.
    pub config_file: Option<PathBuf>,
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// Public URL.
    pub public_url: Option<String>,
    /// Data folder.
    pub data_dir: Option<PathBuf>,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) value: String,
    pub(super) place: String,
}

/// Every key that was written somewhere, the strongest place only.
pub(super) type Written = BTreeMap<&'static str, Placed>;

/// The keys and the environment variables behind them.
pub(super) const KEYS: [(&str, &str); 9] = [
    ("listen", "KEYHOLDER_LISTEN"),
    ("public_url", "KEYHOLDER_PUBLIC_URL"),
    ("data_dir", "KEYHOLDER_DATA_DIR"),
    ("database_url", "KEYHOLDER_DATABASE_URL"),
    ("root_key_file", "KEYHOLDER_ROOT_KEY_FILE"),
    ("root_key_command", "KEYHOLDER_ROOT_KEY_COMMAND"),
    ("egress_allow", "KEYHOLDER_EGRESS_ALLOW"),
    ("ca_file", "KEYHOLDER_CA_FILE"),
    ("log", "KEYHOLDER_LOG"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    public_url: Option<String>,
    data_dir: Option<String>,
    database_url: Option<String>,
    root_key_file: Option<String>,
    root_key_command: Option<String>,
    egress_allow: Option<String>,
    ca_file: Option<String>,
    log: Option<String>,
}

pub(super) fn gather(
    overrides: &Overrides,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Written, ConfigError> {
    let mut written = read(DEFAULT_FILE, "the default configuration")?;
    if let Some((path, text)) = file(overrides)? {
        written.extend(read(&text, &path.display().to_string())?);
    }
    for (key, variable) in KEYS {
        if let Some(value) = environment(variable) {
            written.insert(key, Placed { value, place: variable.to_owned() });
        }
    }
    let flags = [
        ("listen", overrides.listen.map(|address| address.to_string())),
        ("public_url", overrides.public_url.clone()),
        ("data_dir", overrides.data_dir.as_ref().map(|path| path.display().to_string())),
    ];
    for (key, value) in flags {
        if let Some(value) = value {
            written.insert(key, Placed { value, place: format!("--{}", key.replace('_', "-")) });
        }
    }
    Ok(written)
}

fn file(overrides: &Overrides) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let (path, must_exist) = match &overrides.config_file {
        Some(path) => (path.clone(), true),
        None => (Path::new("keyholder.toml").to_owned(), false),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(error) => Err(ConfigError {
            key: "config",
            place: path.display().to_string(),
            reason: error.to_string(),
            remedy: "name a file that can be read".to_owned(),
        }),
    }
}

fn read(text: &str, place: &str) -> Result<Written, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        ConfigError {
            key: "file",
            place: format!("{place}, line {line}"),
            reason: error.message().to_owned(),
            remedy: format!("the keys are {}", KEYS.map(|(key, _)| key).join(", ")),
        }
    })?;
    let values = [
        file.listen,
        file.public_url,
        file.data_dir,
        file.database_url,
        file.root_key_file,
        file.root_key_command,
        file.egress_allow,
        file.ca_file,
        file.log,
    ];
    Ok(KEYS
        .into_iter()
        .zip(values)
        .filter_map(|((key, _), value)| Some((key, Placed { value: value?, place: place.to_owned() })))
        .collect())
}
