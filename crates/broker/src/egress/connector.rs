//! Resolver and TLS below the client.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use http::Uri;
use hyper::rt;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::address::port_of;
use super::{BoxError, EgressFault, Policy, connect_fault};

/// A connection to a server.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// How connections are made.
#[derive(Clone)]
pub(super) enum Connector {
    /// TLS over TCP over checked addresses.
    Guarded(HttpsConnector<GuardedTcp>),
    /// Plain TCP to this address, whatever the host: see [`super::Egress::rehearsal`].
    Rehearsal(SocketAddr),
}

impl Connector {
    /// TLS as `config` says, for HTTP/1.1.
    pub(super) fn guarded(policy: &Arc<Policy>, config: ClientConfig) -> Self {
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        Connector::Guarded(builder.enable_http1().wrap_connector(GuardedTcp(Arc::clone(policy))))
    }

    /// The same, and HTTP/2 where the server chooses it (RFC 7301).
    pub(super) fn guarded_http2(policy: &Arc<Policy>, config: ClientConfig) -> Self {
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        Connector::Guarded(builder.enable_all_versions().wrap_connector(GuardedTcp(Arc::clone(policy))))
    }

    /// A connection to the server of `uri`.
    pub(super) async fn connect(&self, uri: Uri) -> Result<Stream, EgressFault> {
        self.clone().oneshot(uri).await.map_err(|error| connect_fault(error.as_ref()))
    }
}

/// Whether the server has chosen HTTP/2.
pub(super) fn speaks_http2(stream: &Stream) -> bool {
    match stream {
        MaybeHttpsStream::Https(tls) => tls.inner().get_ref().1.alpn_protocol() == Some(b"h2"),
        MaybeHttpsStream::Http(_) => false,
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Connector::Guarded(connector) => connector.poll_ready(cx),
            Connector::Rehearsal(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self {
            Connector::Guarded(connector) => connector.call(uri),
            Connector::Rehearsal(address) => {
                let address = *address;
                Box::pin(async move { Ok(MaybeHttpsStream::Http(TokioIo::new(plain(address).await?))) })
            }
        }
    }
}

/// A stream whose failed write waits for what can still be read: a server that refuses an upload answers, and closes while we are sending.
pub(super) struct Listening {
    stream: Stream,
    is_deaf: bool,
}

impl Listening {
    pub(super) fn to(stream: Stream) -> Self {
        Self { stream, is_deaf: false }
    }

    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let is_closed = |kind| matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        match written {
            Poll::Ready(Err(error)) if is_closed(error.kind()) => {
                // The reader finds the end, and is woken for it.
                self.is_deaf = true;
                Poll::Pending
            }
            written => written,
        }
    }
}

impl rt::Read for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl rt::Write for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// TCP to an address that the policy permits. A rule may name a port, which a resolver is not told, so each connection has a resolver of its own.
#[derive(Clone)]
pub(super) struct GuardedTcp(Arc<Policy>);

impl tower::Service<Uri> for GuardedTcp {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let resolver = GuardedResolver { policy: Arc::clone(&self.0), port: port_of(&uri) };
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        Box::pin(async move { Ok(tcp.oneshot(uri).await?) })
    }
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
struct GuardedResolver {
    policy: Arc<Policy>,
    port: u16,
}

impl tower::Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { policy, port } = self.clone();
        Box::pin(async move {
            let found = lookup(name.as_str()).await?;
            let mut refusal = Refused::Dns("the name has no address".to_owned());
            let mut permitted = Vec::new();
            for address in found {
                match policy.permits(name.as_str(), address.ip(), port) {
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

#[expect(clippy::disallowed_methods, reason = "a rehearsal's provider is on this machine")]
async fn plain(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks DNS")]
async fn lookup(host: &str) -> Result<Vec<SocketAddr>, Refused> {
    tokio::net::lookup_host((host, 0)).await.map(Iterator::collect).map_err(|e| Refused::Dns(e.to_string()))
}
