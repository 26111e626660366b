//! An integration's own fields: whether each has the form it needs, and whether what the client authenticates with is there.

use keyholder_oauth::{ClientAuth, Secret};
use keyholder_provider::{AskedOf, Method, ValueError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value};

use crate::access::rate_errors;
use crate::error::{Error, FieldError, Result, invalid};
use crate::model::{Integration, RenewalPolicy};

/// Longest key or chain, in bytes.
const MAX_PEM: usize = 64 << 10;

/// Whether the fields that are no variables have the form they need.
pub(super) fn check_fields(integration: &Integration) -> Result<()> {
    check_client_id(&integration.client_id)?;
    check_header_prefix(integration.header_prefix.as_deref())?;
    check_time(integration.client_secret_expires_at)?;
    check_content_type(integration.content_type.as_deref())?;
    check_description(&integration.description)?;
    check_renewal(&integration.renewal)?;
    let errors: Vec<FieldError> = rate_errors(&integration.limits).collect();
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    if let Some(key) = &integration.client_key {
        check_key(key)?;
    }
    check_certificate(integration)?;
    let texts = [
        ("audience", &integration.audience),
        ("grant_type", &integration.grant_type),
        ("token_key", &integration.token_key),
    ];
    for (field, text) in texts {
        if text.as_deref().is_some_and(|text| text.len() > 2048 || text.chars().any(char::is_control)) {
            let remedy = "give a short text without line breaks";
            return Err(invalid(field, "it is too long or holds control characters", remedy));
        }
    }
    Ok(())
}

/// Whether the standard inputs are as the method wants them.
pub(super) fn check_inputs(method: &Method, integration: &Integration) -> Result<()> {
    let given = [
        ("client_id", vec![integration.client_id.as_str()]),
        ("client_secret", integration.client_secret.iter().map(Secret::expose).collect()),
        ("client_key", integration.client_key.iter().map(Secret::expose).collect()),
        ("scope", integration.scopes.iter().map(String::as_str).collect()),
        ("audience", integration.audience.iter().map(String::as_str).collect()),
        ("grant_type", integration.grant_type.iter().map(String::as_str).collect()),
        ("token_key", integration.token_key.iter().map(String::as_str).collect()),
    ];
    method.check_inputs(AskedOf::Integration, &given).map_err(unfit)?;
    method.check_extra(&integration.extra).map_err(unfit)?;
    if integration.content_type.is_some() && method.writes_own_body() {
        return Err(invalid("content_type", "this provider's definition writes the body itself", "leave it out"));
    }
    Ok(())
}

/// The same for what a connection gives.
pub(crate) fn check_user(method: &Method, username: Option<&str>, password: Option<&Secret>) -> Result<()> {
    let given = [
        ("username", username.into_iter().collect()),
        ("password", password.into_iter().map(Secret::expose).collect()),
    ];
    method.check_inputs(AskedOf::Connection, &given).map_err(unfit)
}

/// Under the names that the API gives these fields.
fn unfit(errors: Vec<ValueError>) -> Error {
    let field = |error: ValueError| {
        let name = if error.variable == "scope" { "scopes".to_owned() } else { error.variable };
        FieldError::new(name, error.reason, error.remedy)
    };
    Error::Invalid(errors.into_iter().map(field).collect())
}

/// Whether there is what this way to authenticate needs.
pub(super) fn check_credentials(auth: ClientAuth, integration: &Integration) -> Result<()> {
    let (field, is_there, what) = match auth {
        ClientAuth::None => return Ok(()),
        ClientAuth::Basic
        | ClientAuth::RawBasic
        | ClientAuth::Post
        | ClientAuth::Json
        | ClientAuth::Query
        | ClientAuth::ClientSecretJwt => {
            ("client_secret", integration.client_secret.is_some(), "the secret the provider shows for this client")
        }
        ClientAuth::PrivateKeyJwt => (
            "client_key",
            integration.client_key.is_some(),
            "the private key whose public half the provider has for this client",
        ),
        ClientAuth::Tls => (
            "client_certificate",
            integration.client_certificate.is_some(),
            "the certificate that the provider has for this client, and its private key",
        ),
    };
    if is_there {
        return Ok(());
    }
    Err(invalid(
        field,
        format!("it is missing, but this client authenticates by `{auth}`"),
        format!("give {what}, or set client_auth to `none` for a public client"),
    ))
}

fn check_client_id(client_id: &str) -> Result<()> {
    if client_id.is_empty() || client_id.len() > 2048 || client_id.chars().any(char::is_control) {
        return Err(invalid(
            "client_id",
            "it is empty, too long, or holds control characters",
            "copy the client id (application id, consumer key) from the provider's page of your application",
        ));
    }
    Ok(())
}

fn check_content_type(content_type: Option<&str>) -> Result<()> {
    match content_type {
        None | Some("form" | "json") => Ok(()),
        Some(_) => Err(invalid(
            "content_type",
            "token requests are `form` or `json`",
            "use one of these; for another type write a definition whose [token] has a body of that type",
        )),
    }
}

/// As many characters as a person reads.
fn check_description(text: &str) -> Result<()> {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\r' && c != '\t';
    if text.chars().count() > 500 || text.chars().any(odd) {
        return Err(invalid("description", "it is too long or holds control characters", "use up to 500 characters"));
    }
    Ok(())
}

fn check_renewal(renewal: &RenewalPolicy) -> Result<()> {
    const YEAR: u32 = 366 * 24 * 3600;
    const MONTH: u32 = 31 * 24 * 3600;
    let lifetime = renewal.token_lifetime.is_some_and(|seconds| !(10..=10 * YEAR).contains(&seconds));
    let ahead = renewal.ahead.is_some_and(|seconds| !(1..=MONTH).contains(&seconds));
    let lifetime = lifetime.then(|| {
        FieldError::new(
            "renewal.token_lifetime",
            "no token lives so long, or so short a time",
            "give 10 seconds to 10 years, or leave it out so that the reply or the definition decides",
        )
    });
    let ahead = ahead.then(|| {
        FieldError::new(
            "renewal.ahead",
            "it is no time ahead of a token's end",
            "give 1 second to 31 days, or leave it out so that Keyholder chooses",
        )
    });
    let errors: Vec<_> = lifetime.into_iter().chain(ahead).collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

/// The prefix stands in a header, before a space and the token.
fn check_header_prefix(prefix: Option<&str>) -> Result<()> {
    if prefix.is_some_and(|prefix| prefix.len() > 100 || prefix.bytes().any(|b| !(b' '..=b'~').contains(&b))) {
        return Err(invalid(
            "header_prefix",
            "it is too long or holds characters that a header may not have",
            "write a word like Bearer, or leave it empty",
        ));
    }
    Ok(())
}

/// Seconds for milliseconds are the usual slip.
fn check_time(client_secret_expires_at: Option<i64>) -> Result<()> {
    const YEAR_2001: i64 = 1_000_000_000_000;
    const YEAR_5138: i64 = 100_000_000_000_000;
    if client_secret_expires_at.is_some_and(|at| !(YEAR_2001..YEAR_5138).contains(&at)) {
        return Err(invalid(
            "client_secret_expires_at",
            "it is no time of this century in milliseconds",
            "give Unix milliseconds, like 1798761600000 for 2027-01-01",
        ));
    }
    Ok(())
}

/// A private key as the signing of assertions reads it: PEM or JWK.
fn check_key(key: &Secret) -> Result<()> {
    let text = key.expose().trim();
    let is_jwk = || {
        let members: Option<Map<String, Value>> = serde_json::from_str(text).ok();
        members.is_some_and(|jwk| jwk.contains_key("kty") && (jwk.contains_key("d") || jwk.contains_key("k")))
    };
    if text.len() <= MAX_PEM && (PrivateKeyDer::from_pem_slice(text.as_bytes()).is_ok() || is_jwk()) {
        return Ok(());
    }
    Err(invalid(
        "client_key",
        "it is no private key that can be read",
        "give a private key as PEM (PKCS#8, PKCS#1 or SEC1, not encrypted) or as JWK",
    ))
}

fn check_certificate(integration: &Integration) -> Result<()> {
    let own_key = integration.client_certificate_key.as_ref();
    let Some(chain) = &integration.client_certificate else {
        let alone = own_key.is_some();
        let remedy = "give client_certificate with it, or client_key for `private_key_jwt`";
        return if alone { Err(invalid("client_certificate_key", "there is no certificate", remedy)) } else { Ok(()) };
    };
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    if chain.len() > MAX_PEM || !certificates.is_ok_and(|certificates| !certificates.is_empty()) {
        return Err(invalid(
            "client_certificate",
            "it is no certificate chain that can be read",
            "give it as PEM, the client's own certificate first",
        ));
    }
    let key = own_key.or(integration.client_key.as_ref()).map(|key| key.expose().as_bytes());
    if key.is_some_and(|key| key.len() <= MAX_PEM && PrivateKeyDer::from_pem_slice(key).is_ok()) {
        return Ok(());
    }
    Err(Error::Invalid(vec![FieldError::new(
        "client_certificate_key",
        "the certificate's private key is missing, or is none that can be read",
        "give it as PEM, not encrypted; client_key is used if it is that key",
    )]))
}
