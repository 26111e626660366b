//! Configuration: what was written, then what it means. A flag beats the environment, which beats the file, which beats the default.

mod meaning;
mod stop;
mod written;

pub use meaning::{ClientConfig, Config};
pub use written::{DEFAULT_FILE, Overrides};

/// A key that can't be taken: which, where it was written, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {key}: {reason}; {remedy}")]
pub struct ConfigError {
    /// The key, as it stands in the file.
    pub key: &'static str,
    /// Environment variable, flag or file and line.
    pub place: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// Reads flags, environment and file.
///
/// # Errors
/// The first key that can't be taken.
pub fn load(overrides: &Overrides) -> Result<Config, ConfigError> {
    meaning::understand(written::gather(overrides, &environment)?, &environment)
}

/// The one place that reads the environment. An empty variable counts as not set.
#[expect(clippy::disallowed_methods, reason = "the configuration reads the environment")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
