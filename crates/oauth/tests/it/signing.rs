//! Signed tokens, judged by another implementation's verification, and client assertions. The keys in `keys/` are nobody's.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use keyholder_oauth::*;
use serde_json::{Map, Value, json};

use crate::requests::{AT, body, endpoint};

macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("keys/", $name))
    };
}

const RSA: [&str; 3] = [key!("rsa.pkcs8.pem"), key!("rsa.pkcs1.pem"), key!("rsa.jwk")];
const P256: [&str; 3] = [key!("p256.pkcs8.pem"), key!("p256.sec1.pem"), key!("p256.jwk")];
const P384: [&str; 3] = [key!("p384.pkcs8.pem"), key!("p384.sec1.pem"), key!("p384.jwk")];
const ED25519_KEYS: [&str; 2] = [key!("ed25519.pkcs8.pem"), key!("ed25519.jwk")];

fn members(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Header, claims, what is signed, signature.
fn parts(token: &str) -> (Value, Value, String, Vec<u8>) {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = input.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (read(header), read(claims), input.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap())
}

fn verified(algorithm: Algorithm, key: &str, by: &'static dyn VerificationAlgorithm, public: &[u8]) {
    let claims = members(json!({"iss": "me", "n": 1}));
    let token = sign_jwt(algorithm, &key.into(), &members(json!({"x5t": "t"})), &claims).unwrap();
    let (header, read, input, signature) = parts(token.expose());
    assert_eq!(read, json!({"iss": "me", "n": 1}));
    assert_eq!((&header["typ"], &header["alg"]), (&json!("JWT"), &json!(algorithm.to_string())));
    assert_eq!(header["x5t"], "t");
    assert_eq!(header.get("kid").is_some(), key.contains("\"kid\""), "{header}");
    UnparsedPublicKey::new(by, public).verify(input.as_bytes(), &signature).unwrap();
}

#[test]
fn every_algorithm_with_every_form_of_key() {
    let rsa: [(Algorithm, &'static dyn VerificationAlgorithm); 6] = [
        (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
        (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
        (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
        (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
        (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
        (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
    ];
    for (algorithm, by) in rsa {
        RSA.iter().for_each(|key| verified(algorithm, key, by, include_bytes!("keys/rsa.pub.der")));
    }
    P256.iter()
        .for_each(|key| verified(Algorithm::ES256, key, &ECDSA_P256_SHA256_FIXED, include_bytes!("keys/p256.pub")));
    P384.iter()
        .for_each(|key| verified(Algorithm::ES384, key, &ECDSA_P384_SHA384_FIXED, include_bytes!("keys/p384.pub")));
    ED25519_KEYS.iter().for_each(|key| verified(Algorithm::EdDSA, key, &ED25519, include_bytes!("keys/ed25519.pub")));
}

#[test]
fn keys_as_they_are_pasted() {
    // One line, as in Google's key files; a certificate before the key.
    let one_line = RSA[0].replace('\n', "\\n");
    let after_certificate = format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}", RSA[1]);
    for key in [one_line, after_certificate, format!("  {}  ", RSA[2])] {
        sign_jwt(Algorithm::RS256, &key.as_str().into(), &Map::new(), &Map::new()).unwrap();
    }
}

#[test]
fn hmac_vectors() {
    // RFC 7515 appendix A.1: the key as a JWK, the input's bytes as given there.
    let key = "{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}";
    let token = sign_jwt(Algorithm::HS256, &key.into(), &Map::new(), &members(json!({"iss": "joe"}))).unwrap();
    let (_, _, input, signature) = parts(token.expose());
    let bytes = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    assert_eq!(signature, hmac_of(Hash::Sha256, &bytes, input.as_bytes()));
    assert_eq!(
        Encoding::Base64url.encode(&hmac_of(
            Hash::Sha256,
            &bytes,
            b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        )),
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    // RFC 2202 §3 test case 2; RFC 4231 §4.3.
    let (key, data) = (b"Jefe", b"what do ya want for nothing?");
    assert_eq!(Encoding::Hex.encode(&hmac_of(Hash::Sha1, key, data)), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    assert_eq!(
        Encoding::Hex.encode(&hmac_of(Hash::Sha256, key, data)),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    assert!(Encoding::Base64.encode(&hmac_of(Hash::Sha512, key, data)).starts_with("Fkt6e/z4"));
}

#[test]
fn keys_that_do_not_do() {
    let sign = |algorithm, key: &str| sign_jwt(algorithm, &key.into(), &Map::new(), &Map::new()).unwrap_err();
    assert_eq!(sign(Algorithm::RS256, "hush"), SignError::BadKey("no PEM of a private key"));
    assert_eq!(sign(Algorithm::RS256, "{"), SignError::BadKey("not valid JSON"));
    let encrypted = RSA[0].replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE");
    assert_eq!(sign(Algorithm::RS256, &encrypted), SignError::BadKey("encrypted"));
    assert_eq!(sign(Algorithm::RS256, &RSA[0][..400]), SignError::BadKey("a PEM without its end"));
    for (algorithm, key) in [
        (Algorithm::RS256, P256[0]),
        (Algorithm::RS256, P256[1]),
        (Algorithm::RS256, P256[2]),
        (Algorithm::PS512, ED25519_KEYS[1]),
        (Algorithm::ES256, P384[0]),
        (Algorithm::ES256, P384[2]),
        (Algorithm::ES384, RSA[1]),
        (Algorithm::EdDSA, RSA[0]),
        (Algorithm::HS256, RSA[2]),
    ] {
        let error = sign(algorithm, key);
        assert_eq!(error, SignError::WrongKind(algorithm));
        assert!(!error.to_string().contains("BEGIN"));
    }
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
    }
}

fn assertion(request: &http::Request<SecretBytes>) -> String {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(body(request).as_bytes())
        .into_owned()
        .filter(|(name, _)| name == "client_assertion")
        .collect();
    pairs[0].1.clone()
}

#[test]
fn client_assertions_of_rfc_7523() {
    let client = Client { id: "client-1".into(), secret: Some("a shared secret".into()), key: Some(P256[2].into()) };
    let mut endpoint = endpoint(ClientAuth::ClientSecretJwt, BodyFormat::Form);
    let request = token_request(&endpoint, &client, &Grant::ClientCredentials, Some("s"), &AT).unwrap();
    let signed = assertion(&request);
    assert_eq!(
        body(&request),
        format!(
            "grant_type=client_credentials&scope=s&client_id=client-1\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={signed}"
        )
    );
    assert!(!request.headers().contains_key(AUTHORIZATION));
    let (header, claims, input, signature) = parts(&signed);
    assert_eq!(header, json!({"typ": "JWT", "alg": "HS256"}));
    // The endpoint's address without its query (RFC 7523 §3).
    assert_eq!(
        claims,
        json!({"iss": "client-1", "sub": "client-1", "aud": "https://as.example/token", "jti": "BwcHBwcHBwcHBwcHBwcHBw",
            "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 1_700_000_060})
    );
    assert_eq!(signature, hmac_of(Hash::Sha256, b"a shared secret", input.as_bytes()));

    endpoint.client_auth = ClientAuth::PrivateKeyJwt;
    endpoint.client_assertion = ClientAssertion {
        audience: Some("https://as.example".into()),
        algorithm: Some(Algorithm::ES256),
        lifetime: Some(std::time::Duration::from_secs(300)),
        header: members(json!({"kid": "k-1"})),
        claims: members(json!({"sub": "someone", "resource": "r"})),
    };
    let request = token_request(&endpoint, &client, &Grant::ClientCredentials, None, &AT).unwrap();
    let (header, claims, input, signature) = parts(&assertion(&request));
    assert_eq!(header, json!({"typ": "JWT", "alg": "ES256", "kid": "k-1"}));
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!("https://as.example"), &json!("someone")));
    assert_eq!((&claims["exp"], &claims["resource"]), (&json!(1_700_000_300), &json!("r")));
    let public: &[u8] = include_bytes!("keys/p256.pub");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(input.as_bytes(), &signature).unwrap();

    // A shared secret can't take the place of a key, nor a key that of a secret.
    endpoint.client_assertion.algorithm = Some(Algorithm::HS256);
    let error = token_request(&endpoint, &client, &Grant::ClientCredentials, None, &AT).unwrap_err();
    assert_eq!(error, RequestError::Sign(SignError::WrongKind(Algorithm::HS256)));
}
