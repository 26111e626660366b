//! The certificate by which a client shows who it is (RFC 8705 §2).

use std::sync::Arc;

use keyholder_oauth::{Secret, date_ms};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// A certificate chain with its private key.
pub(crate) struct Identity(Arc<SingleCertAndKey>);

impl Identity {
    /// Reads PEM texts; the error says what is wrong with them.
    pub(crate) fn read(chain: &str, key: &Secret) -> Result<Self, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| "the client certificate can't be read".to_owned())?;
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
            .map_err(|_| "the client certificate's private key can't be read".to_owned())?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| format!("the client certificate and its private key can't be used: {error}"))?;
        Ok(Self(Arc::new(certified.into())))
    }

    /// The same trust, and this identity. Sessions are not shared: one that is resumed is whose who began it.
    pub(super) fn with(&self, config: &ClientConfig) -> ClientConfig {
        let mut config = config.clone();
        config.resumption = Resumption::disabled();
        config.client_auth_cert_resolver = self.0.clone();
        config
    }
}

/// When the first certificate of a PEM chain ends, Unix milliseconds (RFC 5280 §4.1.2.5).
pub(crate) fn certificate_ends_at(chain: &str) -> Option<i64> {
    let first = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    let (certificate, _) = element(&first, SEQUENCE)?;
    let (mut to_be_signed, _) = element(certificate, SEQUENCE)?;
    if let Some((_, rest)) = element(to_be_signed, VERSION) {
        to_be_signed = rest;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        // Serial number, signature algorithm, issuer.
        to_be_signed = element(to_be_signed, tag)?.1;
    }
    let (validity, _) = element(to_be_signed, SEQUENCE)?;
    let not_after = time(validity)?.1;
    date_ms(&time(not_after)?.0)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The content of a DER element of this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match usize::from(head[1]) {
        short @ ..0x80 => (short, rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80).filter(|(bytes, _)| bytes.len() <= 4)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    if head[0] != tag {
        return None;
    }
    rest.split_at_checked(length)
}

/// A time as RFC 3339 writes it, and what follows it.
fn time(der: &[u8]) -> Option<(String, &[u8])> {
    let (text, century, rest) = match element(der, UTC_TIME) {
        Some((text, rest)) => {
            // Two digits of a year mean 1950 to 2049.
            let century = if text.first()? < &b'5' { "20" } else { "19" };
            (text, century, rest)
        }
        None => {
            let (text, rest) = element(der, GENERALIZED_TIME)?;
            (text, "", rest)
        }
    };
    let digits = format!("{century}{}", std::str::from_utf8(text).ok()?);
    let part = |from: usize, to: usize| digits.get(from..to);
    let (day, clock) = ([part(0, 4)?, part(4, 6)?, part(6, 8)?], [part(8, 10)?, part(10, 12)?, part(12, 14)?]);
    Some((format!("{}T{}Z", day.join("-"), clock.join(":")), rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_when_it_ends() {
        let chain = include_str!("../../tests/it/tls.crt");
        assert_eq!(certificate_ends_at(chain), date_ms("2126-10-29T13:11:14Z"));
        assert_eq!(certificate_ends_at("nonsense"), None);
    }

    #[test]
    fn broken_der_is_no_certificate() {
        let whole = CertificateDer::from_pem_slice(include_bytes!("../../tests/it/tls.crt")).unwrap();
        for length in 0..whole.len() {
            // None of them may panic.
            let _ = element(&whole[..length], SEQUENCE).and_then(|(content, _)| time(content));
        }
        assert_eq!(element(&[0x30, 0x85, 1, 1, 1, 1, 1], SEQUENCE), None);
        assert_eq!(element(&[0x30, 3, 1], SEQUENCE), None);
    }

    #[test]
    fn times_of_both_forms_are_read() {
        let written = |tag: u8, text: &str| {
            let der = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            time(&der).map(|(text, _)| text)
        };
        assert_eq!(written(UTC_TIME, "491231235959Z").as_deref(), Some("2049-12-31T23:59:59Z"));
        assert_eq!(written(UTC_TIME, "500101000000Z").as_deref(), Some("1950-01-01T00:00:00Z"));
        assert_eq!(written(GENERALIZED_TIME, "20500101000000Z").as_deref(), Some("2050-01-01T00:00:00Z"));
        assert_eq!(written(UTC_TIME, "49"), None);
    }
}
