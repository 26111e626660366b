//! What was written, and where.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

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
pub(super) const KEYS: [(&str, &str); 16] = [
    ("listen", "KEYHOLDER_LISTEN"),
    ("public_url", "KEYHOLDER_PUBLIC_URL"),
    ("data_dir", "KEYHOLDER_DATA_DIR"),
    ("database_url", "KEYHOLDER_DATABASE_URL"),
    ("root_key_file", "KEYHOLDER_ROOT_KEY_FILE"),
    ("root_key_command", "KEYHOLDER_ROOT_KEY_COMMAND"),
    ("egress_allow", "KEYHOLDER_EGRESS_ALLOW"),
    ("ca_file", "KEYHOLDER_CA_FILE"),
    ("stop_delay", "KEYHOLDER_STOP_DELAY"),
    ("renewals_per_endpoint", "KEYHOLDER_RENEWALS_PER_ENDPOINT"),
    ("renewals_per_second", "KEYHOLDER_RENEWALS_PER_SECOND"),
    ("sandbox", "KEYHOLDER_SANDBOX"),
    ("workers", "KEYHOLDER_WORKERS"),
    ("audit_days", "KEYHOLDER_AUDIT_DAYS"),
    ("usage_days", "KEYHOLDER_USAGE_DAYS"),
    ("log", "KEYHOLDER_LOG"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Spanned<String>>,
    public_url: Option<Spanned<String>>,
    data_dir: Option<Spanned<String>>,
    database_url: Option<Spanned<String>>,
    root_key_file: Option<Spanned<String>>,
    root_key_command: Option<Spanned<String>>,
    egress_allow: Option<Spanned<String>>,
    ca_file: Option<Spanned<String>>,
    stop_delay: Option<Spanned<String>>,
    renewals_per_endpoint: Option<Spanned<i64>>,
    renewals_per_second: Option<Spanned<i64>>,
    sandbox: Option<Spanned<bool>>,
    workers: Option<Spanned<i64>>,
    audit_days: Option<Spanned<i64>>,
    usage_days: Option<Spanned<i64>>,
    log: Option<Spanned<String>>,
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
        let start = error.span().map_or(0, |span| span.start);
        ConfigError {
            key: "file",
            place: line_of(text, start, place),
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
        file.stop_delay,
        file.renewals_per_endpoint.map(number),
        file.renewals_per_second.map(number),
        file.sandbox.map(|it| Spanned::new(it.span(), it.into_inner().to_string())),
        file.workers.map(number),
        file.audit_days.map(number),
        file.usage_days.map(number),
        file.log,
    ];
    Ok(KEYS
        .into_iter()
        .zip(values)
        .filter_map(|((key, _), value)| {
            let value = value?;
            let place = line_of(text, value.span().start, place);
            Some((key, Placed { value: value.into_inner(), place }))
        })
        .collect())
}

fn number(number: Spanned<i64>) -> Spanned<String> {
    Spanned::new(number.span(), number.into_inner().to_string())
}

/// `place, line 3`: where a byte of the text stands.
fn line_of(text: &str, at: usize, place: &str) -> String {
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    format!("{place}, line {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_a_file_is_named_with_its_line() {
        let error = read("# ours\n\nlisen = \"127.0.0.1:1\"\n", "k.toml").unwrap_err();
        assert_eq!(error.place, "k.toml, line 3");
        assert!(error.reason.contains("lisen") && error.remedy.contains("listen"), "{error}");
        assert_eq!(read("listen = 1", "k.toml").unwrap_err().place, "k.toml, line 1");
        assert_eq!(read("\n\nlisten = \"everywhere\"", "k.toml").unwrap()["listen"].place, "k.toml, line 3");
    }
}
