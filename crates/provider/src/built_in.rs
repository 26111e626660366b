//! The files of `providers/`, embedded. A new file needs a line here; a test says so if it is forgotten.

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../providers/", $name)))),*]
    };
}

/// File name and text.
pub(crate) const BUILT_IN: &[(&str, &str)] = files![
    "amazon-cognito.toml",
    "atlassian.toml",
    "dropbox.toml",
    "github.toml",
    "google.toml",
    "hubspot.toml",
    "linkedin.toml",
    "microsoft.toml",
    "notion.toml",
    "oauth2.toml",
    "oidc.toml",
    "salesforce.toml",
    "slack.toml",
    "xero.toml",
];
