//! What the browser brings back from the provider (RFC 6749 §4.1.2, RFC 9207).

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::pkce::sha256;
use crate::query;
use crate::secret::Secret;
use crate::text::{MAX_NAME, MAX_TEXT, clean};

/// The longest query that is read, in bytes.
const MAX_QUERY: usize = 16 * 1024;

/// A callback as it came: well-formed, believed in nothing yet. `Debug` shows no value.
pub struct ReceivedCallback {
    state: Secret,
    issuer: Option<String>,
    code: Option<Secret>,
    error: Option<String>,
    error_description: Option<String>,
    other: Vec<(String, String)>,
}

/// What a callback must agree with; recorded before the browser left.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The SHA-256 digest of the state that was sent.
    pub state_sha256: [u8; 32],
    /// The issuer that the browser was sent to, if it is known.
    pub issuer: Option<&'a str>,
    /// Whether the server promises to name itself (`authorization_response_iss_parameter_supported`).
    pub issuer_required: bool,
}

/// A callback that passed [`ReceivedCallback::check`], the only way to have one. `Debug` shows no value.
pub struct ValidatedCallback {
    code: Secret,
    other: Vec<(String, String)>,
}

/// Why a callback was refused. Text from the request is cut and cleaned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// A parameter came twice, which RFC 6749 §3.1 forbids.
    #[error("the answer has the parameter `{0}` more than once; begin the authorization again")]
    Duplicate(String),
    /// There is no `state`.
    #[error("the answer has no `state`; begin the authorization again, and do not open the callback address by hand")]
    MissingState,
    /// The `state` is not the one that was sent.
    #[error("the answer's `state` is not the one that was sent; begin the authorization again in this browser")]
    StateMismatch,
    /// There is neither a `code` nor an `error`.
    #[error(
        "the answer has neither a `code` nor an `error`; check that the provider is set up for the authorization code grant"
    )]
    MissingCode,
    /// Another server answered than was asked (RFC 9207 §2.4).
    #[error(
        "the answer comes from the issuer `{received}`, but `{expected}` was asked; correct the issuer in the set-up, or begin again"
    )]
    IssuerMismatch {
        /// The issuer that the browser was sent to.
        expected: String,
        /// The issuer that the answer names.
        received: String,
    },
    /// The server promises to name itself and did not (RFC 9207 §2.4).
    #[error("the answer does not name its issuer, but `{expected}` promises to; begin the authorization again")]
    IssuerMissing {
        /// The issuer that the browser was sent to.
        expected: String,
    },
    /// The provider said no (RFC 6749 §4.1.2.1).
    #[error("the provider refused: {error}{}", .description.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// The provider's error code, `access_denied` if the person declined.
        error: String,
        /// The provider's explanation.
        description: Option<String>,
    },
    /// The query is longer than 16 KiB.
    #[error("the answer is longer than 16 KiB; begin the authorization again")]
    TooLong,
    /// The query does not decode to UTF-8.
    #[error("the answer is not valid UTF-8; begin the authorization again")]
    NotUtf8,
}

impl ReceivedCallback {
    /// Reads the query of the callback, with or without its leading `?`.
    ///
    /// # Errors
    /// [`CallbackError`]: `TooLong`, `NotUtf8`, `Duplicate` or `MissingState`.
    pub fn parse(query: &str) -> Result<Self, CallbackError> {
        let query = query.strip_prefix('?').unwrap_or(query);
        if query.len() > MAX_QUERY {
            return Err(CallbackError::TooLong);
        }
        let mut pairs = query::parse(query).ok_or(CallbackError::NotUtf8)?;
        refuse_duplicates(&pairs)?;
        let mut take = |name: &str| {
            let place = pairs.iter().position(|(known, _)| known == name)?;
            Some(pairs.remove(place).1)
        };
        Ok(Self {
            state: take("state").filter(|state| !state.is_empty()).ok_or(CallbackError::MissingState)?.into(),
            issuer: take("iss"),
            code: take("code").filter(|code| !code.is_empty()).map(Secret::new),
            error: take("error").filter(|error| !error.is_empty()),
            error_description: take("error_description"),
            other: pairs,
        })
    }

    /// The state as it came, to find the consent that it belongs to.
    pub fn state(&self) -> &str {
        self.state.expose()
    }

    /// The issuer that the answer names (RFC 9207 §2).
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Compares the answer with what was recorded before the browser left: state, issuer, then the
    /// provider's own error. An error answer is believed only after state and issuer agree.
    ///
    /// # Errors
    /// [`CallbackError`]; the consent is over then, whichever it is.
    pub fn check(self, expected: &Expected<'_>) -> Result<ValidatedCallback, CallbackError> {
        let state = sha256(self.state.expose().as_bytes());
        verify_slices_are_equal(&state, &expected.state_sha256).map_err(|_| CallbackError::StateMismatch)?;
        check_issuer(self.issuer.as_deref(), expected)?;
        if let Some(error) = self.error {
            let description = self.error_description.and_then(|text| clean(&text, MAX_TEXT));
            return Err(CallbackError::Refused { error: shown(&error), description });
        }
        let code = self.code.ok_or(CallbackError::MissingCode)?;
        Ok(ValidatedCallback { code, other: self.other })
    }
}

impl ValidatedCallback {
    /// The authorization code; good for one use.
    pub fn code(&self) -> &Secret {
        &self.code
    }

    /// The parameters that RFC 6749 and RFC 9207 don't define, in order, for a definition to pick from.
    pub fn other(&self) -> &[(String, String)] {
        &self.other
    }
}

impl fmt::Debug for ReceivedCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedCallback").finish_non_exhaustive()
    }
}

impl fmt::Debug for ValidatedCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidatedCallback").finish_non_exhaustive()
    }
}

fn refuse_duplicates(pairs: &[(String, String)]) -> Result<(), CallbackError> {
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(CallbackError::Duplicate(shown(pair[0]))),
        None => Ok(()),
    }
}

/// RFC 9207 §2.4: compared as text, without any normalisation.
fn check_issuer(received: Option<&str>, expected: &Expected<'_>) -> Result<(), CallbackError> {
    match (received, expected.issuer) {
        (Some(received), Some(issuer)) if received != issuer => {
            Err(CallbackError::IssuerMismatch { expected: issuer.to_owned(), received: shown(received) })
        }
        (None, issuer) if expected.issuer_required => {
            Err(CallbackError::IssuerMissing { expected: issuer.unwrap_or("the server").to_owned() })
        }
        _ => Ok(()),
    }
}

fn shown(text: &str) -> String {
    clean(text, MAX_NAME).unwrap_or_default()
}
