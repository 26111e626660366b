//! What is signed, and how it is checked: HMACs, JSON Web Tokens, and the keys of a rehearsal.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::script::{Known, Script, milliseconds};

/// A new private key for a signature algorithm (`RS256`, `ES256`, `EdDSA`, …) as PEM (PKCS#8); `None` where the key is a shared secret.
pub fn private_key(algorithm: &str) -> Option<String> {
    let der = match algorithm {
        "ES256" => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?.to_pkcs8v1().ok()?.as_ref().to_vec(),
        "ES384" => EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).ok()?.to_pkcs8v1().ok()?.as_ref().to_vec(),
        "EdDSA" => Ed25519KeyPair::generate().ok()?.to_pkcs8v1().ok()?.as_ref().to_vec(),
        "HS256" | "HS384" | "HS512" => return None,
        _ => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
            let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            der.as_ref().to_vec()
        }
    };
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| str::from_utf8(line).ok()).collect();
    Some(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
}

pub(super) fn hmac(hash: &str, key: &[u8], over: &[u8]) -> Option<Vec<u8>> {
    use aws_lc_rs::hmac;
    let algorithm = match hash {
        "sha1" | "hmac_sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" | "hmac_sha256" | "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "sha512" | "hmac_sha512" | "HS512" => hmac::HMAC_SHA512,
        _ => return None,
    };
    Some(hmac::sign(&hmac::Key::new(algorithm, key), over).as_ref().to_vec())
}

pub(super) fn digest(hash: &str, of: &[u8]) -> Option<Vec<u8>> {
    use aws_lc_rs::digest;
    let algorithm = match hash {
        "sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => &digest::SHA256,
        "sha512" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, of).as_ref().to_vec())
}

pub(super) fn encode(encoding: &str, bytes: &[u8]) -> String {
    match encoding {
        "base64" => STANDARD.encode(bytes),
        "base64url" => URL_SAFE_NO_PAD.encode(bytes),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Stands for a signed token that is yet to be compared.
pub(super) fn mark(computed: &str) -> String {
    format!("{MARK}{computed}{MARK}")
}

const MARK: char = '\u{1}';

/// Whether a text is what was expected, where marks stand for signed tokens; the error says why not.
pub(super) fn matches(
    script: &Script,
    known: &Known,
    now: i64,
    expected: &str,
    got: &str,
) -> Result<(), Option<String>> {
    let Some((before, rest)) = expected.split_once(MARK) else {
        return if expected == got { Ok(()) } else { Err(None) };
    };
    let (name, after) = rest.split_once(MARK).unwrap_or((rest, ""));
    let inner = got.strip_prefix(before).and_then(|got| got.strip_suffix(after)).ok_or(None)?;
    let rule = &script.field("/computed")[name]["jwt"];
    let text = |value: &Value| value.as_str().and_then(|text| script.fill(text, known));
    let key = text(&rule["key"]).unwrap_or_default();
    let mut claims = Vec::new();
    for (claim, value) in rule["claims"].as_object().into_iter().flatten() {
        let wanted = match (claim.as_str(), value.as_str()) {
            ("iat" | "nbf" | "exp", Some(time)) => Claim::At(now + offset(time)),
            ("jti", Some("random")) => Claim::Any,
            (_, Some(_)) => match text(value) {
                Some(text) => Claim::Is(text.into()),
                None => continue,
            },
            _ => Claim::Is(value.clone()),
        };
        claims.push((claim.clone(), wanted));
    }
    let mut header: Vec<(String, Value)> = Vec::new();
    let kid = [("kid", &rule["kid"])];
    let named = rule["header"].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value));
    for (name, value) in named.chain(kid) {
        header.extend(text(value).map(|text| (name.to_owned(), text.into())));
    }
    let algorithm = rule["alg"].as_str().unwrap_or_default();
    check(inner, algorithm, &key, &header, &claims)
        .map_err(|why| Some(format!("the signed token computed.{name}: {why}")))
}

/// `now`, `+5m`, `-30s`, in milliseconds.
fn offset(time: &str) -> i64 {
    let length = |text: &str| milliseconds(text).unwrap_or(0);
    match (time.strip_prefix('+'), time.strip_prefix('-')) {
        (Some(later), _) => length(later),
        (_, Some(earlier)) => -length(earlier),
        _ => 0,
    }
}

/// What a claim must be.
pub(super) enum Claim {
    Is(Value),
    /// A time, Unix milliseconds.
    At(i64),
    /// Anything but nothing.
    Any,
}

/// Checks a compact JWT: algorithm, signature, these members of the header, and exactly these claims.
pub(super) fn check(
    jwt: &str,
    algorithm: &str,
    key: &str,
    header: &[(String, Value)],
    claims: &[(String, Claim)],
) -> Result<(), String> {
    let mut pieces = jwt.split('.');
    let (Some(head), Some(body), Some(signature), None) = (pieces.next(), pieces.next(), pieces.next(), pieces.next())
    else {
        return Err("it is not a JWT".to_owned());
    };
    let json = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (Some(Value::Object(found)), Some(Value::Object(said))) = (json(head), json(body)) else {
        return Err("its parts are no JSON".to_owned());
    };
    let alg = found.get("alg").and_then(Value::as_str).unwrap_or_default();
    if alg != algorithm {
        return Err(format!("it is signed with {alg}, not {algorithm}"));
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "its signature is damaged".to_owned())?;
    verify(algorithm, key, format!("{head}.{body}").as_bytes(), &signature)?;
    for (name, value) in header {
        if found.get(name) != Some(value) {
            return Err(format!("its header has not the {name} that the definition gives"));
        }
    }
    for (name, wanted) in claims {
        let value = said.get(name).ok_or_else(|| format!("the claim {name} is missing"))?;
        let fits = match wanted {
            Claim::Is(wanted) => value == wanted,
            Claim::At(at) => value.as_i64().is_some_and(|seconds| (seconds - at / 1000).abs() <= 2),
            Claim::Any => value.as_str().is_some_and(|text| !text.is_empty()),
        };
        if !fits {
            return Err(format!("the claim {name} is not as the definition says"));
        }
    }
    match said.keys().find(|name| !claims.iter().any(|(known, _)| known == *name)) {
        Some(name) => Err(format!("the claim {name} is not in the definition")),
        None => Ok(()),
    }
}

fn verify(algorithm: &str, key: &str, input: &[u8], signature: &[u8]) -> Result<(), String> {
    let wrong = || "its signature does not hold".to_owned();
    if let Some(mac) = hmac(algorithm, key.as_bytes(), input) {
        return if mac == signature { Ok(()) } else { Err(wrong()) };
    }
    let der: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(der.trim()).map_err(|_| "the rehearsal's key can't be read".to_owned())?;
    let public: Vec<u8> =
        match algorithm {
            "ES256" => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
                .map(|it| it.public_key().as_ref().to_vec()),
            "ES384" => EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der)
                .map(|it| it.public_key().as_ref().to_vec()),
            "EdDSA" => Ed25519KeyPair::from_pkcs8(&der).map(|it| it.public_key().as_ref().to_vec()),
            _ => RsaKeyPair::from_pkcs8(&der).map(|it| it.public_key().as_ref().to_vec()),
        }
        .map_err(|_| format!("the rehearsal's key is not one for {algorithm}"))?;
    let by: &'static dyn VerificationAlgorithm = match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
        "ES384" => &signature::ECDSA_P384_SHA384_FIXED,
        "EdDSA" => &signature::ED25519,
        _ => return Err(format!("{algorithm} is not known")),
    };
    UnparsedPublicKey::new(by, public).verify(input, signature).map_err(|_| wrong())
}
