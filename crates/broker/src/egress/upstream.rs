//! One API server, as calls reach it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};

use super::alarm::Stopwatch;
use super::body::Body;
use super::circuit::Circuit;
use super::connector::Connector;
use super::http1::{Http1, NoReply, Pool};
use super::{EgressError, EgressFault, innermost, origin_of};
use crate::clock::Clock;

/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// One API server, with the connections to it that are kept and what is known of its health.
pub struct Upstream {
    /// `https://api.example.com:8443/`
    uri: Uri,
    host: HeaderValue,
    connector: Connector,
    pool: Arc<Pool>,
    circuit: Circuit,
    /// Whether somebody looks after idle connections.
    is_swept: Arc<AtomicBool>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.origin())
    }
}

impl Upstream {
    /// Sends an API call to this server, whatever host its URL names, and answers as soon as the reply's head is there, which must be within `head_within` of the last part
    /// of the request's body that was sent: an upload may take its time as long as it moves. The reply's body streams, and breaks off when nothing comes for
    /// [`super::IDLE`]. Dropping the future or the reply's body cancels the call.
    ///
    /// A reply may come before the request's body is over, which then goes on for as long as it moves. A call that is lost with a connection that
    /// had been idle is sent once more, if its method is idempotent and its body is in memory (RFC 9110 §9.2.2).
    ///
    /// A request with `Upgrade` that is answered with 101 has a [`hyper::upgrade::OnUpgrade`] in the reply's extensions.
    pub async fn send(&self, request: Request<Body>, head_within: Duration) -> Result<Response<Body>, EgressError> {
        let began = self.pool.watch.now();
        let answered = match self.circuit.check(began) {
            Ok(()) => self.exchange(request, began, head_within).await,
            Err(open) => return Err(self.fault(open)),
        };
        match answered {
            Ok(response) => {
                self.circuit.held();
                Ok(response)
            }
            Err(fault) => {
                let is_unreachable = matches!(
                    fault,
                    EgressFault::Dns(_) | EgressFault::Connect(_) | EgressFault::Tls(_) | EgressFault::Timeout(_)
                );
                if is_unreachable {
                    self.circuit.failed(self.pool.watch.now());
                }
                Err(self.fault(fault))
            }
        }
    }

    async fn exchange(
        &self,
        request: Request<Body>,
        began: Duration,
        head_within: Duration,
    ) -> Result<Response<Body>, EgressFault> {
        let wants_upgrade = request.headers().contains_key(header::UPGRADE);
        let mut request = self.fitted(request);
        let mut answered = None;
        while let Some(connection) = self.pool.take(began) {
            let copy = again(&request);
            match connection.exchange(request, began, head_within).await {
                Ok(response) => {
                    answered = Some(response);
                    request = Request::default();
                    break;
                }
                // The server had closed it.
                Err(NoReply { unsent: Some(unsent), .. }) => request = unsent,
                Err(NoReply { what, silently, .. }) => match copy.filter(|_| silently) {
                    None => return Err(what),
                    Some(copy) => {
                        request = copy;
                        break;
                    }
                },
            }
        }
        let response = match answered {
            Some(response) => response,
            None => {
                let connection = self.connect(began, head_within).await?;
                connection.exchange(request, began, head_within).await.map_err(|failed| failed.what)?
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !wants_upgrade {
            let why = "it switched to another protocol, which nobody had asked for";
            return Err(EgressFault::Lost(why.to_owned()));
        }
        self.look_after_idle();
        Ok(response)
    }

    async fn connect(&self, began: Duration, within: Duration) -> Result<Box<Http1>, EgressFault> {
        let watch = &self.pool.watch;
        let left = (began + within).saturating_sub(watch.now());
        let connecting = async {
            let stream = self.connector.connect(self.uri.clone()).await?;
            Http1::begin(stream, &self.pool).await.map_err(|error| EgressFault::Connect(innermost(&error)))
        };
        watch.clock().timeout(left, connecting).await.unwrap_or(Err(EgressFault::Timeout(within)))
    }

    /// The request as HTTP/1.1 writes it: origin form, and the host in a field of its own.
    fn fitted(&self, mut request: Request<Body>) -> Request<Body> {
        if let Some(path) = request.uri().path_and_query()
            && request.uri().scheme().is_some()
        {
            *request.uri_mut() = Uri::from(path.clone());
        }
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().entry(header::HOST).or_insert_with(|| self.host.clone());
        request
    }

    /// Has idle connections closed in time, as long as there are any.
    fn look_after_idle(&self) {
        if self.is_swept.load(Ordering::Relaxed) || self.is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pool, is_swept) = (Arc::downgrade(&self.pool), Arc::clone(&self.is_swept));
        let clock = self.pool.watch.clock().clone();
        tokio::spawn(async move {
            loop {
                clock.sleep(SWEEP_EVERY).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.sweep();
                if pool.is_empty() {
                    is_swept.store(false, Ordering::Relaxed);
                    return;
                }
            }
        });
    }

    fn origin(&self) -> String {
        origin_of(&self.uri)
    }

    fn fault(&self, what: EgressFault) -> EgressError {
        EgressError { origin: self.origin(), what }
    }
}

/// The same request again, if it may be sent twice: what it does is the same (RFC 9110 §9.2.2), and its body is at hand.
fn again(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_idempotent() || request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let mut copy = Request::new(request.body().again()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// The servers that are called, each once.
pub(super) struct Upstreams {
    clock: Clock,
    connector: Connector,
    by_origin: papaya::HashMap<String, Arc<Upstream>>,
}

impl Upstreams {
    pub(super) fn new(clock: Clock, connector: Connector) -> Self {
        Self { clock, connector, by_origin: papaya::HashMap::new() }
    }

    /// The server of a URL that the policy permits.
    pub(super) fn of(&self, uri: &Uri) -> Arc<Upstream> {
        let origin = origin_of(uri).to_ascii_lowercase();
        let all = self.by_origin.pin();
        if let Some(known) = all.get(&origin) {
            return Arc::clone(known);
        }
        let new = Arc::new(self.upstream(&origin));
        Arc::clone(all.get_or_insert(origin, new))
    }

    pub(super) fn drop_idle(&self) {
        let is_used = |it: &Arc<Upstream>| Arc::strong_count(it) > 1 || !it.pool.is_empty() || !it.circuit.is_closed();
        self.by_origin.pin().retain(|_, it| is_used(it));
    }

    fn upstream(&self, origin: &str) -> Upstream {
        // Without user information, which has no place on the wire.
        let uri = Uri::try_from(origin).expect("scheme, host and port of a URL are a URL");
        Upstream {
            host: host_field(&uri),
            uri,
            connector: self.connector.clone(),
            pool: Arc::new(Pool::new(Stopwatch::new(self.clock.clone()))),
            circuit: Circuit::default(),
            is_swept: Arc::default(),
        }
    }
}

/// What stands in `Host`: no port that is the scheme's own.
fn host_field(uri: &Uri) -> HeaderValue {
    let host = uri.host().unwrap_or_default();
    let usual = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    let text = match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    HeaderValue::try_from(text).expect("a URL's host is plain text")
}
