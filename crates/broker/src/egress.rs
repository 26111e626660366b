//! The only outbound HTTP client.
//!
//! Addresses are checked after DNS, and the checked address is the one connected to. Private, loopback, link-local and metadata ranges are
//! refused unless the configuration lists them. No redirect is followed. Token calls use a new connection each and are never sent twice: on a pooled connection that
//! the server has just closed, nobody could say whether a refresh token was used.

mod address;
mod alarm;
mod body;
mod circuit;
mod connector;
mod http1;
mod http2;
mod identity;
mod upstream;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use keyholder_oauth::SecretBytes;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

pub use address::{AllowRule, BadRule, Policy, Rules};
pub use body::Body;
use connector::{Connector, Refused};
pub(crate) use identity::{Identity, certificate_ends_at};
pub use upstream::Upstream;
use upstream::{Connectors, Upstreams};

use crate::clock::Clock;
use crate::trust;
pub use crate::trust::BadTrust;

/// Any error of a streamed body.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Longest silence within a reply's body. Long enough for event streams that send a heartbeat a minute.
pub const IDLE: Duration = Duration::from_secs(180);

/// How long and how large an exchange may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For the whole exchange of [`Egress::fetch`]; until the reply's head of [`Egress::send`].
    pub time: Duration,
    /// Most bytes of a reply of [`Egress::fetch`].
    pub bytes: usize,
}

impl Bounds {
    /// Token, revocation and discovery calls: 30 s, 1 MiB.
    pub const PROVIDER: Bounds = Bounds { time: Duration::from_secs(30), bytes: 1 << 20 };
}

/// A whole reply, bounded.
pub struct Fetched {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body, which may hold tokens.
    pub body: SecretBytes,
}

/// Why nothing, or not enough, came back. Holds host names and causes, never a query or a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressError {
    /// Scheme, host and port of the request.
    pub origin: String,
    /// What happened.
    pub what: EgressFault,
}

/// What went wrong on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressFault {
    /// The configuration forbids it; nothing was sent.
    Refused(String),
    /// No address for the host; nothing was sent.
    Dns(String),
    /// No connection; nothing was sent.
    Connect(String),
    /// The certificate or the handshake is wrong; nothing was sent.
    Tls(String),
    /// No reply within the bound; it may have been acted on.
    Timeout(Duration),
    /// The connection broke after sending; it may have been acted on.
    Lost(String),
    /// The reply is larger than the bound.
    TooLarge(usize),
    /// It has failed so often in a row that it is not called for a while; nothing was sent.
    CircuitOpen {
        /// When it is called again.
        retry_after: Duration,
    },
}

impl EgressFault {
    /// Could the other side have acted on the request?
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, EgressFault::Timeout(_) | EgressFault::Lost(_) | EgressFault::TooLarge(_))
    }
}

impl fmt::Display for EgressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.origin;
        match &self.what {
            EgressFault::Refused(why) => write!(f, "{origin} was not called: {why}"),
            EgressFault::Dns(why) => write!(f, "the host of {origin} has no address: {why}"),
            EgressFault::Connect(why) => write!(f, "no connection to {origin}: {why}"),
            EgressFault::Tls(why) => write!(f, "no secure connection to {origin}: {why}"),
            EgressFault::Timeout(limit) => {
                write!(f, "{origin} did not answer within {} s", limit.as_secs())
            }
            EgressFault::Lost(why) => {
                write!(f, "the connection to {origin} broke before the reply was there: {why}")
            }
            EgressFault::TooLarge(limit) => {
                write!(f, "the reply of {origin} is larger than {limit} bytes")
            }
            EgressFault::CircuitOpen { retry_after } => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                write!(
                    f,
                    "{origin} was not called, since it could not be reached several times in a row; it is tried again in {seconds} s"
                )
            }
        }
    }
}

impl StdError for EgressError {}

/// The client. Clones share its connections.
#[derive(Clone)]
pub struct Egress {
    clock: Clock,
    policy: std::sync::Arc<Policy>,
    /// One connection a request, never sent twice.
    once: Client<Connector, Body>,
    /// The servers of API calls, whose connections are kept.
    upstreams: std::sync::Arc<Upstreams>,
    /// What connections with a certificate of the client's own begin with; `None` in a rehearsal, which has no TLS.
    tls: Option<rustls::ClientConfig>,
    /// The machine of a simulation whose network this is.
    #[cfg(test)]
    simulated: Option<std::sync::Arc<crate::simulation::Replica>>,
}

impl Egress {
    /// A client under `policy`, trusting the system's certificate authorities and those in `extra_ca` (PEM).
    pub fn new(clock: Clock, policy: Policy, extra_ca: Option<&[u8]>) -> Result<Self, BadTrust> {
        let policy = std::sync::Arc::new(policy);
        let tls = trust::client(extra_ca)?;
        let connectors = Connectors {
            any: Connector::guarded_http2(&policy, tls.clone()),
            http1: Connector::guarded(&policy, tls.clone()),
        };
        Ok(Self::with(clock, policy, connectors, Some(tls)))
    }

    /// Whether a sandbox in this process may be called, once it is there.
    pub(crate) fn has_room_for_sandbox(&self) -> bool {
        self.policy.has_room_for_sandbox()
    }

    /// Lets the sandbox in this process be called, at exactly this address.
    pub(crate) fn admit_sandbox(&self, address: std::net::SocketAddr) -> bool {
        self.policy.admit_sandbox(address)
    }

    /// A client for a rehearsal: every host is this loopback address, without TLS, while addresses stay as definitions have them; the
    /// sandbox plays the provider there. Not for a server: no configuration leads here.
    ///
    /// # Panics
    /// If the address is not of this machine: nothing that a rehearsal sends may leave it.
    pub fn rehearsal(clock: Clock, stage: std::net::SocketAddr) -> Self {
        assert!(stage.ip().is_loopback(), "a rehearsal stays on this machine");
        // Definitions may name loopback hosts, plain http too.
        let mut policy = Policy::default();
        policy.allow(AllowRule::Network(std::net::Ipv4Addr::LOCALHOST.into(), 8));
        policy.allow(AllowRule::Network(std::net::Ipv6Addr::LOCALHOST.into(), 128));
        let connectors = Connectors { any: Connector::Rehearsal(stage), http1: Connector::Rehearsal(stage) };
        Self::with(clock, std::sync::Arc::new(policy), connectors, None)
    }

    fn with(
        clock: Clock,
        policy: std::sync::Arc<Policy>,
        connectors: Connectors,
        tls: Option<rustls::ClientConfig>,
    ) -> Self {
        let once = once(connectors.http1.clone());
        let upstreams = Upstreams::new(clock.clone(), connectors);
        Self {
            clock,
            policy,
            once,
            upstreams: std::sync::Arc::new(upstreams),
            tls,
            #[cfg(test)]
            simulated: None,
        }
    }

    /// The same client on a machine of a simulation.
    #[cfg(test)]
    pub(crate) fn on(&self, clock: Clock, replica: std::sync::Arc<crate::simulation::Replica>) -> Self {
        Self { clock, simulated: Some(replica), ..self.clone() }
    }

    /// Whether the address may be called, as far as that is known before its host is looked up.
    pub(crate) fn check(&self, url: &url::Url) -> Result<(), EgressError> {
        let uri: Uri = url.as_str().parse().unwrap_or_default();
        let refused = |why| EgressError { origin: origin_of(&uri), what: EgressFault::Refused(why) };
        self.policy.check_uri(&uri).map_err(refused)
    }

    /// Sends a provider call once and reads the whole reply within `bounds`.
    pub async fn fetch(&self, request: Request<SecretBytes>, bounds: Bounds) -> Result<Fetched, EgressError> {
        self.fetch_by(&self.once, request, bounds).await
    }

    /// As [`Self::fetch`], on a connection that shows the server this certificate. No other request ever uses that connection.
    pub(crate) async fn fetch_as(
        &self,
        identity: &Identity,
        request: Request<SecretBytes>,
        bounds: Bounds,
    ) -> Result<Fetched, EgressError> {
        match &self.tls {
            Some(tls) => {
                let client = once(Connector::guarded(&self.policy, identity.with(tls)));
                self.fetch_by(&client, request, bounds).await
            }
            None => self.fetch(request, bounds).await,
        }
    }

    async fn fetch_by(
        &self,
        client: &Client<Connector, Body>,
        request: Request<SecretBytes>,
        bounds: Bounds,
    ) -> Result<Fetched, EgressError> {
        let origin = origin_of(request.uri());
        let fault = |what| EgressError { origin: origin.clone(), what };
        self.policy.check_uri(request.uri()).map_err(|why| fault(EgressFault::Refused(why)))?;
        let exchange = async {
            #[cfg(test)]
            if let Some(replica) = &self.simulated {
                return replica.exchange(request).await;
            }
            let request = with_length(request);
            let response = client.request(request).await.map_err(|e| classify(&e))?;
            let (head, body) = response.into_parts();
            let body = whole(body, bounds.bytes).await?;
            Ok(Fetched { status: head.status.as_u16(), headers: head.headers, body })
        };
        self.clock.timeout(bounds.time, exchange).await.unwrap_or(Err(EgressFault::Timeout(bounds.time))).map_err(fault)
    }

    /// The server of API calls to `scheme://authority`, with the connections to it that are kept. Its addresses are checked whenever one is made.
    pub fn upstream(&self, scheme: &str, authority: &Authority) -> Result<std::sync::Arc<Upstream>, EgressError> {
        let uri = Uri::builder().scheme(scheme).authority(authority.clone()).path_and_query("/").build();
        let uri = uri.map_err(|error| EgressError {
            origin: format!("{scheme}://{}", authority.host()),
            what: EgressFault::Refused(error.to_string()),
        })?;
        self.policy
            .check_uri(&uri)
            .map_err(|why| EgressError { origin: origin_of(&uri), what: EgressFault::Refused(why) })?;
        Ok(self.upstreams.of(&uri))
    }

    /// Sends an API call to the server that its URL names, as [`Upstream::send`].
    pub async fn send(
        &self,
        request: impl Into<Box<Request<Body>>>,
        head_within: Duration,
    ) -> Result<Response<Body>, EgressError> {
        let request = request.into();
        let uri = request.uri();
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            let why = "the URL has no scheme or no host".to_owned();
            return Err(EgressError { origin: origin_of(uri), what: EgressFault::Refused(why) });
        };
        self.upstream(scheme, authority)?.send(request, head_within).await
    }

    /// Forgets servers that nobody calls any more.
    pub(crate) fn drop_idle(&self) {
        self.upstreams.drop_idle();
    }
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).http1_max_buf_size(128 << 10);
    builder
}

/// A client that uses each connection for one request and sends none twice.
fn once(connector: Connector) -> Client<Connector, Body> {
    builder().pool_max_idle_per_host(0).retry_canceled_requests(false).build(connector)
}

/// An empty body.
pub fn empty() -> Body {
    Body::empty()
}

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Body::full(bytes)
}

/// Scheme, host and port: all of a URL that may be shown.
pub fn origin_of(uri: &Uri) -> String {
    format!(
        "{}://{}",
        uri.scheme_str().unwrap_or("?"),
        // The authority could hold user information; only host and port are shown.
        match (uri.host(), uri.port_u16()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => "?".to_owned(),
        }
    )
}

fn with_length(request: Request<SecretBytes>) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    if !body.is_empty() {
        head.headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    if !head.headers.contains_key(header::USER_AGENT) {
        // Some providers refuse requests without one.
        let agent = concat!("Keyholder/", env!("CARGO_PKG_VERSION"));
        head.headers.insert(header::USER_AGENT, http::HeaderValue::from_static(agent));
    }
    Request::from_parts(head, full(body.expose().to_vec()))
}

fn classify(error: &hyper_util::client::legacy::Error) -> EgressFault {
    match connect_fault(error) {
        EgressFault::Connect(innermost) if !error.is_connect() => EgressFault::Lost(innermost),
        fault => fault,
    }
}

/// Why there is no connection.
fn connect_fault(error: &(dyn StdError + 'static)) -> EgressFault {
    for cause in causes(error) {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return match refused {
                Refused::Policy(why) => EgressFault::Refused(why.clone()),
                Refused::Dns(why) => EgressFault::Dns(why.clone()),
            };
        }
        if let Some(tls) = tls_cause(cause) {
            return EgressFault::Tls(tls);
        }
    }
    EgressFault::Connect(innermost(error))
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn StdError + 'static)| (*cause).source())
}

/// A TLS error hides inside an I/O error, sometimes inside two, which don't name it as their source.
fn tls_cause(cause: &(dyn StdError + 'static)) -> Option<String> {
    match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => tls_cause(inner),
        None => cause.downcast_ref::<rustls::Error>().map(ToString::to_string),
    }
}

/// The whole body, within `limit` bytes.
///
/// Old servers end a body by closing the connection without TLS's farewell, or leave the last chunk out. What has arrived then counts if it is a
/// whole JSON document: it may hold the only copy of a rotated refresh token.
async fn whole(mut body: Incoming, limit: usize) -> Result<SecretBytes, EgressFault> {
    // Room at once for what replies usually hold: a buffer that grows leaves copies of secrets behind.
    let mut read = Zeroizing::new(Vec::with_capacity(limit.min(64 << 10)));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let Some(data) = frame.data_ref() else { continue };
                if read.len() + data.len() > limit {
                    return Err(EgressFault::TooLarge(limit));
                }
                read.extend_from_slice(data);
            }
            Err(_) if serde_json::from_slice::<IgnoredAny>(&read).is_ok() => break,
            Err(error) => return Err(EgressFault::Lost(error.to_string())),
        }
    }
    Ok(SecretBytes::new(read.to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn egress(allow: &str) -> Egress {
        Egress::new(Clock::System, Policy::new(allow.parse().unwrap()), None).unwrap()
    }

    async fn fetch(egress: &Egress, url: &str) -> EgressError {
        let request = Request::get(url).body(SecretBytes::new(Vec::new())).unwrap();
        egress.fetch(request, Bounds::PROVIDER).await.err().unwrap()
    }

    #[tokio::test]
    async fn names_and_addresses_of_private_ranges_are_refused_before_anything_is_sent() {
        let egress = egress("");
        for url in [
            "https://localhost:1/x?token=s3cret",
            "https://127.0.0.1:1/",
            "https://[::1]:1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://10.0.0.1/",
            "https://[::ffff:10.0.0.1]/",
            "http://192.0.2.1/",
        ] {
            let error = fetch(&egress, url).await;
            assert!(matches!(error.what, EgressFault::Refused(_)), "{url}: {error}");
            assert!(!error.to_string().contains("s3cret"));
        }
    }

    #[tokio::test]
    async fn an_allowed_address_is_called_and_a_closed_port_is_a_connect_fault() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = fetch(&egress("127.0.0.1"), &format!("http://127.0.0.1:{port}/")).await;
        assert!(matches!(error.what, EgressFault::Connect(_)), "{error}");
        assert!(!error.what.may_have_arrived());
    }

    #[tokio::test]
    async fn a_rehearsal_calls_every_host_on_one_address_without_tls() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let egress = Egress::rehearsal(Clock::System, listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap();
            String::from_utf8(head[..length].to_vec()).unwrap()
        });
        let request = Request::get("https://login.acme.example/token").body(SecretBytes::new(Vec::new())).unwrap();
        let reply = egress.fetch(request, Bounds::PROVIDER).await.ok().unwrap();
        assert_eq!(reply.body.expose(), b"hi");
        let head = server.join().unwrap();
        assert!(head.starts_with("GET /token HTTP/1.1") && head.contains("host: login.acme.example"), "{head}");
    }

    #[test]
    #[should_panic(expected = "stays on this machine")]
    fn a_rehearsal_never_leaves_the_machine() {
        let _ = Egress::rehearsal(Clock::System, "192.0.2.1:443".parse().unwrap());
    }

    /// What a server that closes the connection after `reply` is understood to have said.
    async fn said(reply: String) -> Result<Fetched, EgressError> {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        });
        let request = Request::get(url).body(SecretBytes::new(Vec::new())).unwrap();
        let answer = egress("127.0.0.1").fetch(request, Bounds::PROVIDER).await;
        server.join().unwrap();
        answer
    }

    #[tokio::test]
    async fn a_body_without_its_end_counts_if_it_is_whole() {
        for cut in ["7\r\n{\"a\":1}\r\n", "5\r\n{\"a\":\r\n"] {
            let is_whole = cut.contains('1');
            let reply = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{cut}");
            let answer = said(reply).await;
            assert_eq!(answer.is_ok(), is_whole, "{cut}");
        }
    }

    /// A server that asks each client for its certificate, and tells whether that was the expected one.
    async fn asking_for_certificates(connections: usize) -> (String, tokio::task::JoinHandle<Vec<bool>>) {
        use rustls::pki_types::pem::PemObject;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = rustls::pki_types::CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_client_cert_verifier(verifier).with_single_cert(vec![own.clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/token", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let mut shown = Vec::new();
            for _ in 0..connections {
                let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
                let certificates = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
                shown.push(certificates.is_some_and(|chain| chain[0] == own));
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                let _ = stream.shutdown().await;
            }
            shown
        });
        (url, server)
    }

    const CERTIFICATE: &str = include_str!("../tests/it/tls.crt");
    const KEY: &str = include_str!("../tests/it/tls.key");

    #[tokio::test]
    async fn a_certificate_is_shown_on_its_own_connections_only() {
        let policy = Policy::new("127.0.0.1".parse().unwrap());
        let egress = Egress::new(Clock::System, policy, Some(CERTIFICATE.as_bytes())).unwrap();
        let identity = Identity::read(CERTIFICATE, &KEY.into()).unwrap();
        let (url, server) = asking_for_certificates(3).await;
        let request = || Request::get(&url).body(SecretBytes::new(Vec::new())).unwrap();
        egress.fetch(request(), Bounds::PROVIDER).await.ok().unwrap();
        egress.fetch_as(&identity, request(), Bounds::PROVIDER).await.ok().unwrap();
        egress.fetch(request(), Bounds::PROVIDER).await.ok().unwrap();
        assert_eq!(server.await.unwrap(), [false, true, false]);
    }

    #[test]
    fn a_certificate_needs_its_own_key() {
        let other = include_str!("../../server/tests/it/client.key");
        assert!(Identity::read(CERTIFICATE, &other.into()).is_err());
        assert!(Identity::read("nonsense", &KEY.into()).is_err());
    }

    #[test]
    fn a_tls_error_is_found_however_deep_it_lies() {
        let tls = rustls::Error::General("the certificate".to_owned());
        let once = std::io::Error::other(tls);
        let twice = std::io::Error::other(once);
        assert!(tls_cause(&twice).unwrap().contains("the certificate"));
        assert_eq!(tls_cause(&std::io::Error::other("else")), None);
    }
}
