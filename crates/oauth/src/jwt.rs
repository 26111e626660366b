//! Signing: JSON Web Tokens (RFC 7515, RFC 7518, RFC 8037) and bare HMACs.
//!
//! Time and the token's `jti` are arguments. The salts of PSS and ECDSA signatures are the cryptographic library's own, which
//! takes none from outside; nothing here depends on their values.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{self, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The instant of a request and bytes that no other request has: what a signed request needs beside its key.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Unix milliseconds, UTC.
    pub now_ms: i64,
    /// Out of the caller's random source, new for each request.
    pub random: [u8; 32],
}

impl Moment {
    /// Seconds since 1970, as JWTs count (RFC 7519 §2).
    pub fn seconds(&self) -> i64 {
        self.now_ms.div_euclid(1000)
    }

    /// A `jti` that no other token has (RFC 7519 §4.1.7).
    pub fn jti(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.random[..16])
    }
}

/// A signature algorithm of RFC 7518 §3.1 and RFC 8037 §3.1, by its registered name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "each is its registered name")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Whether both sides share the key.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|known| known.to_string() == name).ok_or(())
    }
}

/// Why a token could not be signed. Texts never repeat the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is in none of the forms that are read.
    #[error(
        "the key can't be read: it is {0}; give a private key as PEM (PKCS#8, PKCS#1 or SEC1, not encrypted) or as JWK"
    )]
    BadKey(&'static str),
    /// The key is of another kind than the algorithm needs.
    #[error("the key does not fit the algorithm {0}; use a key of that kind, or name the algorithm that fits the key")]
    WrongKind(Algorithm),
}

/// Signs a JWT in compact form (RFC 7515 §7.1). `typ` and `alg` stand before the other members of `header`; those named there win.
///
/// For the HMAC algorithms the key is a text as it is, or a JWK of type `oct`; for the others PEM or JWK. A JWK's `kid` goes into
/// the header unless that has one.
///
/// # Errors
/// [`SignError`] if the key can't be read or does not fit.
pub fn sign_jwt(
    algorithm: Algorithm,
    key: &Secret,
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
) -> Result<Secret, SignError> {
    let jwk = read_jwk(key.expose())?;
    let mut full = Map::new();
    full.insert("typ".to_owned(), json!("JWT"));
    full.insert("alg".to_owned(), json!(algorithm.to_string()));
    if let Some(kid) = jwk.as_ref().and_then(|jwk| jwk.get("kid")) {
        full.insert("kid".to_owned(), kid.clone());
    }
    full.extend(header.iter().map(|(name, value)| (name.clone(), value.clone())));
    let part = |members: &Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::Object(members.clone()).to_string());
    let input = format!("{}.{}", part(&full), part(claims));
    let signature = sign(algorithm, key.expose(), jwk.as_ref(), input.as_bytes())?;
    Ok(Secret::new(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

/// A hash function for [`hmac_of`]. Written in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// Only because providers still ask for it.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// HMAC (RFC 2104).
pub fn hmac_of(hash: Hash, key: &[u8], data: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec()
}

/// The hash itself (FIPS 180-4).
pub fn hash_of(hash: Hash, data: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha512 => &digest::SHA512,
    };
    digest(algorithm, data).as_ref().to_vec()
}

/// How bytes are written as text. Written in lower case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Lower-case hexadecimal digits.
    #[default]
    Hex,
    /// RFC 4648 §4, padded.
    Base64,
    /// RFC 4648 §5, not padded.
    Base64url,
}

impl Encoding {
    /// The bytes as text.
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

/// A text that begins as a JWK does, read.
fn read_jwk(key: &str) -> Result<Option<Map<String, Value>>, SignError> {
    if !key.trim_start().starts_with('{') {
        return Ok(None);
    }
    serde_json::from_str(key).map(Some).map_err(|_| SignError::BadKey("not valid JSON"))
}

fn sign(algorithm: Algorithm, key: &str, jwk: Option<&Map<String, Value>>, input: &[u8]) -> Result<Vec<u8>, SignError> {
    let wrong = SignError::WrongKind(algorithm);
    match algorithm {
        Algorithm::HS256 => hmac_sign(hmac::HMAC_SHA256, key, jwk, input).ok_or(wrong),
        Algorithm::HS384 => hmac_sign(hmac::HMAC_SHA384, key, jwk, input).ok_or(wrong),
        Algorithm::HS512 => hmac_sign(hmac::HMAC_SHA512, key, jwk, input).ok_or(wrong),
        Algorithm::RS256 => rsa_sign((&RSA_PKCS1_SHA256, &digest::SHA256), key, jwk, input, wrong),
        Algorithm::RS384 => rsa_sign((&RSA_PKCS1_SHA384, &digest::SHA384), key, jwk, input, wrong),
        Algorithm::RS512 => rsa_sign((&RSA_PKCS1_SHA512, &digest::SHA512), key, jwk, input, wrong),
        Algorithm::PS256 => rsa_sign((&RSA_PSS_SHA256, &digest::SHA256), key, jwk, input, wrong),
        Algorithm::PS384 => rsa_sign((&RSA_PSS_SHA384, &digest::SHA384), key, jwk, input, wrong),
        Algorithm::PS512 => rsa_sign((&RSA_PSS_SHA512, &digest::SHA512), key, jwk, input, wrong),
        Algorithm::ES256 => {
            ec_sign((&ECDSA_P256_SHA256_FIXED_SIGNING, &digest::SHA256), "P-256", key, jwk, input, wrong)
        }
        Algorithm::ES384 => {
            ec_sign((&ECDSA_P384_SHA384_FIXED_SIGNING, &digest::SHA384), "P-384", key, jwk, input, wrong)
        }
        Algorithm::EdDSA => ed_sign(key, jwk, input, wrong),
    }
}

fn hmac_sign(algorithm: hmac::Algorithm, key: &str, jwk: Option<&Map<String, Value>>, input: &[u8]) -> Option<Vec<u8>> {
    let bytes = match jwk {
        Some(jwk) => member(jwk, "k")?,
        None => Zeroizing::new(key.as_bytes().to_vec()),
    };
    Some(hmac::sign(&hmac::Key::new(algorithm, &bytes), input).as_ref().to_vec())
}

fn rsa_sign(
    (padding, hash): (&'static dyn RsaEncoding, &'static digest::Algorithm),
    key: &str,
    jwk: Option<&Map<String, Value>>,
    input: &[u8],
    wrong: SignError,
) -> Result<Vec<u8>, SignError> {
    let pair = match jwk {
        Some(jwk) => pkcs1(jwk).and_then(|der| RsaKeyPair::from_der(&der).ok()),
        None => match pem(key)? {
            Pem::Pkcs8(der) => RsaKeyPair::from_pkcs8(&der).ok(),
            Pem::Pkcs1(der) => RsaKeyPair::from_der(&der).ok(),
            Pem::Sec1(_) => None,
        },
    };
    let pair = pair.ok_or(wrong.clone())?;
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign_digest(padding, &digest(hash, input), &mut signature).map_err(|_| wrong)?;
    Ok(signature)
}

fn ec_sign(
    (algorithm, hash): (&'static EcdsaSigningAlgorithm, &'static digest::Algorithm),
    curve: &str,
    key: &str,
    jwk: Option<&Map<String, Value>>,
    input: &[u8],
    wrong: SignError,
) -> Result<Vec<u8>, SignError> {
    let pair = match jwk {
        Some(jwk) => ec_of_jwk(algorithm, curve, jwk),
        None => match pem(key)? {
            Pem::Pkcs8(der) => EcdsaKeyPair::from_pkcs8(algorithm, &der).ok(),
            Pem::Sec1(der) => EcdsaKeyPair::from_private_key_der(algorithm, &der).ok(),
            Pem::Pkcs1(_) => None,
        },
    };
    let pair = pair.ok_or(wrong.clone())?;
    Ok(pair.sign_digest(&digest(hash, input)).map_err(|_| wrong)?.as_ref().to_vec())
}

fn ec_of_jwk(algorithm: &'static EcdsaSigningAlgorithm, curve: &str, jwk: &Map<String, Value>) -> Option<EcdsaKeyPair> {
    if jwk.get("crv")?.as_str()? != curve {
        return None;
    }
    let mut public = vec![4];
    public.extend_from_slice(&member(jwk, "x")?);
    public.extend_from_slice(&member(jwk, "y")?);
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, &member(jwk, "d")?, &public).ok()
}

fn ed_sign(key: &str, jwk: Option<&Map<String, Value>>, input: &[u8], wrong: SignError) -> Result<Vec<u8>, SignError> {
    let pair = match jwk {
        Some(jwk) => member(jwk, "d").and_then(|seed| Ed25519KeyPair::from_seed_unchecked(&seed).ok()),
        None => match pem(key)? {
            Pem::Pkcs8(der) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok(),
            Pem::Pkcs1(_) | Pem::Sec1(_) => None,
        },
    };
    Ok(pair.ok_or(wrong)?.sign(input).as_ref().to_vec())
}

/// A private key's DER by the label of its PEM.
enum Pem {
    Pkcs8(Zeroizing<Vec<u8>>),
    Pkcs1(Zeroizing<Vec<u8>>),
    Sec1(Zeroizing<Vec<u8>>),
}

/// RFC 7468. Text before the key, such as a certificate or EC parameters, is passed over; line breaks may be written `\n`, as
/// they are in Google's key files.
fn pem(key: &str) -> Result<Pem, SignError> {
    let key = Zeroizing::new(key.replace("\\n", "\n"));
    let end_of_label = key.find("PRIVATE KEY-----").ok_or(SignError::BadKey("no PEM of a private key"))?;
    let begin = key[..end_of_label].rfind("-----BEGIN ").ok_or(SignError::BadKey("no PEM of a private key"))?;
    let label = &key[begin + "-----BEGIN ".len()..end_of_label];
    let rest = &key[end_of_label + "PRIVATE KEY-----".len()..];
    let end = rest.find("-----END ").ok_or(SignError::BadKey("a PEM without its end"))?;
    let text: Zeroizing<String> = Zeroizing::new(rest[..end].chars().filter(|c| !c.is_whitespace()).collect());
    let der =
        || STANDARD.decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| SignError::BadKey("a PEM that is damaged"));
    match label.trim() {
        "" => Ok(Pem::Pkcs8(der()?)),
        "RSA" if text.contains(':') => Err(SignError::BadKey("encrypted")),
        "RSA" => Ok(Pem::Pkcs1(der()?)),
        "EC" => Ok(Pem::Sec1(der()?)),
        "ENCRYPTED" => Err(SignError::BadKey("encrypted")),
        _ => Err(SignError::BadKey("a kind of PEM that is not known")),
    }
}

fn member(jwk: &Map<String, Value>, name: &str) -> Option<Zeroizing<Vec<u8>>> {
    URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?.trim_end_matches('=')).ok().map(Zeroizing::new)
}

/// The members of an RSA JWK (RFC 7518 §6.3.2) as an `RSAPrivateKey` (RFC 8017 appendix A.1.2).
fn pkcs1(jwk: &Map<String, Value>) -> Option<Zeroizing<Vec<u8>>> {
    let mut numbers = Zeroizing::new(vec![2, 1, 0]);
    for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
        let number = member(jwk, name)?;
        let start = number.iter().position(|byte| *byte != 0)?;
        // A first bit that is set would make the number negative.
        let sign: &[u8] = if number[start] & 0x80 == 0 { &[] } else { &[0] };
        numbers.push(2);
        push_length(&mut numbers, sign.len() + number.len() - start);
        numbers.extend_from_slice(sign);
        numbers.extend_from_slice(&number[start..]);
    }
    let mut der = Zeroizing::new(vec![0x30]);
    push_length(&mut der, numbers.len());
    der.extend_from_slice(&numbers);
    Some(der)
}

/// A DER length (X.690 §8.1.3).
fn push_length(der: &mut Vec<u8>, length: usize) {
    let bytes = length.to_be_bytes();
    let digits = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1)..];
    if length >= 0x80 {
        der.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
    }
    der.extend_from_slice(digits);
}
