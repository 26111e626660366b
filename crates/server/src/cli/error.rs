//! What a command ends with instead of its result, in words that say what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use keyholder_broker::egress::{EgressError, EgressFault};
use serde::Deserialize;

use super::output::clean;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The command line asks for something that can't be.
    Usage(String),
    /// The server said no.
    Problem(Box<Problem>),
    /// No server answers.
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What happened instead.
        cause: String,
    },
    /// The server answered something that isn't Keyholder's.
    Odd(String),
    /// There is no API key.
    NoKey {
        /// Where one was looked for.
        file: PathBuf,
        /// Why it could not be read.
        cause: io::Error,
    },
    /// A file, a stream or the terminal.
    Io {
        /// Which.
        what: String,
        /// Why.
        cause: io::Error,
    },
    /// Whatever else, as one sentence.
    Failed(String),
    /// Everything was said already; only the exit code is left.
    Said,
}

/// Result of every command.
pub(crate) type Result<T = ()> = std::result::Result<T, CliError>;

/// The server's problem document (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) title: String,
    pub(crate) status: u16,
    pub(crate) detail: String,
    pub(crate) code: String,
    errors: Vec<FieldError>,
    failure: Option<Failure>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FieldError {
    field: String,
    reason: String,
    remedy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    remedy: String,
}

impl Problem {
    /// What every problem of Keyholder's has as its type; an API's own problem has another.
    pub(crate) const TYPE: &str = "urn:keyholder:problem:";

    /// Reads a body, if it is a problem document of Keyholder's.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().filter(|problem: &Self| problem.kind.starts_with(Self::TYPE))
    }
}

impl CliError {
    /// A failed read or write.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |cause| CliError::Io { what, cause }
    }

    /// No reply, or none that could be read.
    pub(crate) fn no_reply(url: &str, error: &EgressError) -> Self {
        match &error.what {
            EgressFault::Connect(cause) | EgressFault::Dns(cause) => {
                CliError::Unreachable { url: url.to_owned(), cause: cause.clone() }
            }
            _ => CliError::Failed(error.to_string()),
        }
    }

    /// 2 for a wrong command line, 1 for everything else. A reader that went away (`… | head`) is no failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::Io { cause, .. } if cause.kind() == io::ErrorKind::BrokenPipe => 0,
            _ => 1,
        }
    }

    /// Whether there is nothing to say any more.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, CliError::Said) || self.exit_code() == 0
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(text) | CliError::Failed(text) | CliError::Odd(text) => f.write_str(&clean(text)),
            CliError::Problem(problem) => problem.fmt(f),
            CliError::Unreachable { url, cause } => write!(
                f,
                "no Keyholder answers at {url} ({})\n  Start one with `keyholder serve`, or set KEYHOLDER_URL to where it runs.",
                clean(cause)
            ),
            CliError::NoKey { file, cause } => write!(
                f,
                "there is no API key: {} can't be read ({cause})\n  Set KEYHOLDER_API_KEY, or run this where `keyholder serve` keeps its data (see --data-dir).",
                file.display()
            ),
            CliError::Io { what, cause } => write!(f, "{what}: {cause}"),
            CliError::Said => Ok(()),
        }
    }
}

impl fmt::Display for Problem {
    /// The detail, then one line for each field and for the remedy, unless the detail holds them already.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repeats = !self.errors.is_empty() && self.errors.iter().all(|error| self.detail.contains(&error.reason));
        let head = [&self.detail, &self.title].into_iter().find(|text| !text.is_empty());
        match head {
            Some(_) if repeats && !self.title.is_empty() => f.write_str(&clean(&self.title))?,
            Some(head) => f.write_str(&clean(head))?,
            None => write!(f, "the server answered {}", self.status)?,
        }
        for FieldError { field, reason, remedy } in &self.errors {
            write!(f, "\n  {}: {}; {}", clean(field), clean(reason), clean(remedy))?;
        }
        match &self.failure {
            Some(Failure { remedy }) if !remedy.is_empty() && !self.detail.contains(remedy.as_str()) => {
                write!(f, "\n  {}", clean(remedy))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(problem: serde_json::Value) -> String {
        serde_json::from_value::<Problem>(problem).unwrap().to_string()
    }

    #[test]
    fn a_problem_is_told_once_with_its_remedy() {
        let field = serde_json::json!({"field": "scopes", "reason": "it is empty", "remedy": "give one"});
        assert_eq!(
            shown(
                serde_json::json!({"title": "Invalid request", "detail": "scopes: it is empty; give one", "errors": [field]})
            ),
            "Invalid request\n  scopes: it is empty; give one"
        );
        assert_eq!(
            shown(
                serde_json::json!({"title": "Not ready", "detail": "It is over.", "failure": {"remedy": "Connect again."}})
            ),
            "It is over.\n  Connect again."
        );
        assert_eq!(
            shown(serde_json::json!({"detail": "It is over. Connect again.", "failure": {"remedy": "Connect again."}})),
            "It is over. Connect again."
        );
        assert_eq!(shown(serde_json::json!({"status": 418})), "the server answered 418");
    }

    #[test]
    fn only_keyholders_problems_are_taken_for_keyholders() {
        assert!(Problem::read(br#"{"type": "urn:keyholder:problem:not_found", "detail": "x"}"#).is_some());
        assert!(Problem::read(br#"{"type": "https://api.example.com/problems/1", "detail": "x"}"#).is_none());
        assert!(Problem::read(b"<html>").is_none());
    }
}
