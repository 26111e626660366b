//! PKCE (RFC 7636) and the random values of a consent.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;

/// A code verifier (RFC 7636 §4.1): known to us alone until the code is exchanged.
#[derive(Clone, Debug)]
pub struct Verifier(Secret);

impl Verifier {
    /// A verifier of 43 characters out of 256 random bits, as RFC 7636 §4.1 recommends.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(random_token(bytes))
    }

    /// A verifier that was stored while the person was away.
    pub fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }

    /// The verifier itself, for the token request or to be sealed.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The S256 challenge for the authorization request (RFC 7636 §4.2): 43 characters.
    pub fn challenge_s256(&self) -> String {
        URL_SAFE_NO_PAD.encode(sha256(self.0.expose().as_bytes()))
    }
}

/// 256 random bits as 43 characters of base64url, for `state` and `nonce`.
pub fn random_token(bytes: [u8; 32]) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// The SHA-256 digest, for a state that is stored hashed.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, data).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7636 appendix B.
    const RANDOM: [u8; 32] = [
        116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105, 214, 191,
        240, 91, 88, 5, 88, 83, 132, 141, 121,
    ];

    #[test]
    fn the_example_of_rfc_7636_appendix_b() {
        let verifier = Verifier::from_random(RANDOM);
        assert_eq!(verifier.expose(), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(verifier.challenge_s256(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let stored = Verifier::from_secret(Secret::new(verifier.expose()));
        assert_eq!(stored.challenge_s256(), verifier.challenge_s256());
    }

    #[test]
    fn debug_hides_the_verifier() {
        assert_eq!(format!("{:?}", Verifier::from_random(RANDOM)), "Verifier(****)");
    }

    #[test]
    fn random_tokens_have_43_characters() {
        assert_eq!(random_token([255; 32]).expose(), "__________________________________________8");
    }
}
