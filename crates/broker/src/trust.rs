//! Whom a TLS connection believes: for providers and for the database alike.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The trust store can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BadTrust {
    /// The file of `KEYHOLDER_CA_FILE` holds no certificate.
    #[error("the file of KEYHOLDER_CA_FILE holds no usable PEM certificate: {0}")]
    Extra(String),
    /// The TLS library refused its own defaults.
    #[error("TLS could not be set up: {0}")]
    Tls(String),
}

/// TLS 1.2 and 1.3 with certificate and host name checked; `extra_ca` are PEM certificates of authorities beside the system's.
pub(crate) fn client(extra_ca: Option<&[u8]>) -> Result<ClientConfig, BadTrust> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| BadTrust::Tls(e.to_string()))?
        .with_root_certificates(roots(extra_ca)?)
        .with_no_client_auth())
}

/// The system's authorities; where the system has none, Mozilla's; and the extra file.
fn roots(extra_ca: Option<&[u8]>) -> Result<RootCertStore, BadTrust> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(pem) = extra_ca {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| BadTrust::Extra(e.to_string()))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(BadTrust::Extra("none found".to_owned()));
        }
    }
    Ok(roots)
}
