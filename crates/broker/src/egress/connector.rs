//! Resolver and TLS below the client.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{BadTrust, Policy};

/// TLS over TCP over checked addresses.
pub(super) type Connector = HttpsConnector<HttpConnector<GuardedResolver>>;

pub(super) fn build(policy: &Arc<Policy>, extra_ca: Option<&[u8]>) -> Result<Connector, BadTrust> {
    let mut http = HttpConnector::new_with_resolver(GuardedResolver(Arc::clone(policy)));
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(10)));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| BadTrust::Tls(e.to_string()))?
        .with_root_certificates(roots(extra_ca)?)
        .with_no_client_auth();
    Ok(hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http))
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

/// Why the resolver gave no address.
#[derive(Debug)]
pub(super) enum Refused {
    /// There are addresses, but none may be connected to.
    Policy(String),
    /// There is none.
    Dns(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Policy(why) | Refused::Dns(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refused {}

/// The system's resolver, behind the policy: what it answers is what is connected to, so a name can't point elsewhere a moment later.
#[derive(Clone)]
pub(super) struct GuardedResolver(Arc<Policy>);

impl tower::Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let found = lookup(name.as_str()).await?;
            let mut refusal = Refused::Dns("the name has no address".to_owned());
            let mut permitted = Vec::new();
            for address in found {
                match policy.permits(name.as_str(), address.ip()) {
                    Ok(()) => permitted.push(address),
                    Err(why) => refusal = Refused::Policy(why),
                }
            }
            if permitted.is_empty() {
                return Err(refusal);
            }
            Ok(permitted.into_iter())
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks DNS")]
async fn lookup(host: &str) -> Result<Vec<SocketAddr>, Refused> {
    tokio::net::lookup_host((host, 0)).await.map(Iterator::collect).map_err(|e| Refused::Dns(e.to_string()))
}
