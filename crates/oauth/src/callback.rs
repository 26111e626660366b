//! What the browser brings back from the provider (RFC 6749 §4.1.2, RFC 9207).

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::Deserialize;

use crate::jwt::{Encoding, Hash, hmac_of};
use crate::pkce::sha256;
use crate::query;
use crate::secret::Secret;
use crate::text::{MAX_NAME, MAX_TEXT, clean};

/// The longest query that is read, in bytes.
const MAX_QUERY: usize = 16 * 1024;

/// What a provider does differently when it sends the browser back. `Default` is RFC 6749 §4.1.2.
#[derive(Clone, Debug)]
pub struct CallbackRules {
    /// The parameter that holds the code.
    pub code: String,
    /// The parameter that holds the state.
    pub state: String,
    /// Cut off the end of the code (Instagram sends `…#_`).
    pub strip_code_suffix: Option<String>,
    /// How the parameters are signed.
    pub signature: Option<CallbackSignature>,
}

/// A signature over the callback's parameters, which proves that the provider wrote them.
#[derive(Clone, Debug)]
pub struct CallbackSignature {
    /// The parameter that holds it; it is not among those that are signed.
    pub parameter: String,
    /// The hash of the HMAC.
    pub hash: Hash,
    /// How it is written.
    pub encoding: Encoding,
    /// What it is made with, commonly the client secret.
    pub key: Secret,
    /// What it is made over.
    pub over: SignedOver,
}

/// What a callback's signature is made over. Written in snake case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SignedOver {
    /// The other parameters as they came, sorted by name and joined with `&`.
    #[default]
    SortedQuery,
    /// The other parameters as they came, in their order.
    Query,
}

impl Default for CallbackRules {
    fn default() -> Self {
        Self { code: "code".to_owned(), state: "state".to_owned(), strip_code_suffix: None, signature: None }
    }
}

impl CallbackSignature {
    fn holds(&self, query: &str) -> bool {
        let named = |piece: &str, name: &str| {
            query::parse(piece).is_some_and(|pairs| pairs.first().is_some_and(|(known, _)| known == name))
        };
        let (signature, mut rest): (Vec<&str>, Vec<&str>) =
            query.split('&').filter(|piece| !piece.is_empty()).partition(|piece| named(piece, &self.parameter));
        if self.over == SignedOver::SortedQuery {
            rest.sort_unstable();
        }
        let wanted = self.encoding.encode(&hmac_of(self.hash, self.key.expose().as_bytes(), rest.join("&").as_bytes()));
        let given = signature.first().and_then(|piece| query::parse(piece)).and_then(|mut pairs| pairs.pop());
        given.is_some_and(|(_, value)| verify_slices_are_equal(value.as_bytes(), wanted.as_bytes()).is_ok())
    }
}

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
    /// The signature that the provider puts on its answers is missing or wrong.
    #[error("the answer is not signed as the provider signs; begin again, and check the client secret if it stays so")]
    Signature,
    /// The query does not decode to UTF-8.
    #[error("the answer is not valid UTF-8; begin the authorization again")]
    NotUtf8,
}

impl ReceivedCallback {
    /// Reads the query of the callback, with or without its leading `?`, or its body where the provider posts it (OAuth 2.0 Form
    /// Post Response Mode).
    ///
    /// # Errors
    /// [`CallbackError`]: `TooLong`, `Signature`, `NotUtf8`, `Duplicate` or `MissingState`.
    pub fn parse(query: &str, rules: &CallbackRules) -> Result<Self, CallbackError> {
        let query = query.strip_prefix('?').unwrap_or(query);
        if query.len() > MAX_QUERY {
            return Err(CallbackError::TooLong);
        }
        if rules.signature.as_ref().is_some_and(|signature| !signature.holds(query)) {
            return Err(CallbackError::Signature);
        }
        let mut pairs = query::parse(query).ok_or(CallbackError::NotUtf8)?;
        refuse_duplicates(&pairs)?;
        let mut take = |name: &str| {
            let place = pairs.iter().position(|(known, _)| known == name)?;
            Some(pairs.remove(place).1)
        };
        Ok(Self {
            state: take(&rules.state).filter(|state| !state.is_empty()).ok_or(CallbackError::MissingState)?.into(),
            issuer: take("iss"),
            code: take(&rules.code).map(|code| stripped(code, rules)).filter(|code| !code.is_empty()).map(Secret::new),
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

fn stripped(code: String, rules: &CallbackRules) -> String {
    let cut = rules.strip_code_suffix.as_deref().and_then(|suffix| code.strip_suffix(suffix));
    cut.map(str::to_owned).unwrap_or(code)
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
