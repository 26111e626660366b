//! One API server, as calls reach it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};

use super::alarm::Stopwatch;
use super::body::Body;
use super::circuit::Circuit;
use super::connector::{Connector, speaks_http2};
use super::http1::{Http1, Pool};
use super::http2::{Lease, Shared};
use super::{EgressError, EgressFault, innermost, origin_of};
use crate::clock::Clock;

/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// A connection must be there, name looked up and TLS agreed, within this time.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);
/// From so many calls at once on, they go ahead in step.
const MANY: usize = 3;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// One API server, with the connections to it that are kept and what is known of its health.
pub struct Upstream {
    /// `https://api.example.com:8443/`
    uri: Uri,
    host: HeaderValue,
    connectors: Arc<Connectors>,
    /// [`HTTP1`] or [`HTTP2`], as the last connection showed; 0 as long as there was none.
    speaks: AtomicU8,
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    circuit: Circuit,
    /// Calls that wait for their reply's head.
    waiting: AtomicUsize,
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
    /// had been idle is sent once more, if its method is idempotent and its body is in memory (RFC 9110 §9.2.2), and so is one that the server says it has not looked
    /// at (RFC 9113 §8.7).
    ///
    /// A request with `Upgrade` that is answered with 101 has a [`hyper::upgrade::OnUpgrade`] in the reply's extensions.
    pub async fn send(
        &self,
        request: impl Into<Box<Request<Body>>>,
        head_within: Duration,
    ) -> Result<Response<Body>, EgressError> {
        let request = request.into();
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
                // Who takes a connection and is slow with an answer may be quick with the next.
                if matches!(fault, EgressFault::Dns(_) | EgressFault::Connect(_) | EgressFault::Tls(_)) {
                    self.circuit.failed(self.pool.watch.now());
                }
                Err(self.fault(fault))
            }
        }
    }

    async fn exchange(
        &self,
        request: Box<Request<Body>>,
        began: Duration,
        head_within: Duration,
    ) -> Result<Response<Body>, EgressFault> {
        let wants_upgrade = request.headers().contains_key(header::UPGRADE);
        let _waiting = Waiting::one_more(&self.waiting);
        self.in_step().await;
        let (mut request, mut is_repeated) = (request, false);
        let mut response = loop {
            let way = self.way(wants_upgrade, is_repeated, began, head_within).await?;
            let is_fresh = way.is_fresh;
            let copy = if may_be_sent_again(&request, &way) { again(&request) } else { None };
            let is_idempotent = request.method().is_idempotent();
            let answered = match way.connection {
                Connection::Own(connection) => {
                    self.for_http1(&mut request, wants_upgrade);
                    connection.exchange(request, began, head_within).await
                }
                Connection::Shared(lease) => {
                    self.for_http2(&mut request);
                    Box::pin(lease.exchange(*request, &self.pool.watch, began, head_within)).await
                }
            };
            let failed = match answered {
                Ok(response) => break response,
                Err(failed) => failed,
            };
            // The server had closed the connection, or has said that it has not looked at the request.
            let was_unused = failed.unsent.is_some() && !is_fresh;
            let is_safe = failed.refused || failed.silently && is_idempotent && !is_fresh;
            request = match (failed.unsent, copy) {
                (Some(unsent), _) if was_unused => unsent,
                (_, Some(copy)) if is_safe && !is_repeated => {
                    is_repeated = true;
                    copy
                }
                _ => return Err(failed.what),
            };
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !wants_upgrade {
            let why = "it switched to another protocol, which nobody had asked for";
            return Err(EgressFault::Lost(why.to_owned()));
        }
        self.look_after_idle();
        self.in_step().await;
        // What the caller is told is a message of his own connection.
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }

    /// Where many calls are under way, each stops before it is written, and before its reply is, until all that are ready have come as far. So what is done for each is done
    /// in a row, and the writes follow each other so closely that the other side doesn't fall asleep in between: waking it was a third of a call's cost.
    async fn in_step(&self) {
        if self.waiting.load(Ordering::Relaxed) > MANY {
            tokio::task::yield_now().await;
        }
    }

    /// A connection for one call: an idle one, a shared one, or a new one. Only HTTP/1.1 can be upgraded.
    async fn way(
        &self,
        wants_upgrade: bool,
        fresh: bool,
        began: Duration,
        within: Duration,
    ) -> Result<Way, EgressFault> {
        let may_share = !wants_upgrade && self.uri.scheme() == Some(&Scheme::HTTPS);
        let shared = || self.shared.lease().map(|lease| Way { connection: Connection::Shared(lease), is_fresh: false });
        if may_share && let Some(way) = shared() {
            return Ok(way);
        }
        if !fresh && let Some(connection) = self.pool.take(began) {
            return Ok(Way { connection: Connection::Own(connection), is_fresh: false });
        }
        let watch = &self.pool.watch;
        let left = (began + within).saturating_sub(watch.now());
        let opening = async {
            // Whoever needs a connection while one is opened to a server that may share it waits for that, and fails with it.
            let mut last = match may_share && self.speaks.load(Ordering::Relaxed) != HTTP1 {
                true => Some(self.shared.opening.lock().await),
                false => None,
            };
            if let Some(way) = may_share.then(shared).flatten() {
                return Ok(way);
            }
            if self.speaks.load(Ordering::Relaxed) == HTTP1 {
                last = None;
            }
            if let Some((_, fault)) = last.as_ref().and_then(|last| last.as_ref()).filter(|(at, _)| *at > began) {
                return Err(fault.clone());
            }
            let opened = self.open(may_share).await;
            if let (Some(last), Err(fault)) = (&mut last, &opened) {
                **last = Some((watch.now(), fault.clone()));
            }
            opened.map(|connection| Way { connection, is_fresh: true })
        };
        watch.clock().timeout(left, opening).await.unwrap_or(Err(EgressFault::Timeout(within)))
    }

    async fn open(&self, may_share: bool) -> Result<Connection, EgressFault> {
        let connector = if may_share { &self.connectors.any } else { &self.connectors.http1 };
        let connected = self.pool.watch.clock().timeout(CONNECTED_WITHIN, connector.connect(self.uri.clone())).await;
        let late = || EgressFault::Connect(format!("there was no connection within {} s", CONNECTED_WITHIN.as_secs()));
        let stream = connected.unwrap_or_else(|| Err(late()))?;
        let refused = |error: &(dyn std::error::Error + 'static)| EgressFault::Connect(innermost(error));
        if speaks_http2(&stream) {
            self.speaks.store(HTTP2, Ordering::Relaxed);
            let lease = self.shared.begin(stream).await.map_err(|error| refused(&error))?;
            return Ok(Connection::Shared(lease));
        }
        if may_share {
            self.speaks.store(HTTP1, Ordering::Relaxed);
        }
        let connection = Http1::begin(stream, &self.pool).await.map_err(|error| refused(&error))?;
        Ok(Connection::Own(connection))
    }

    /// As HTTP/1.1 writes it: origin form, and the host in a field of its own.
    fn for_http1(&self, request: &mut Request<Body>, wants_upgrade: bool) {
        if let Some(path) = request.uri().path_and_query()
            && request.uri().scheme().is_some()
        {
            *request.uri_mut() = Uri::from(path.clone());
        }
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        headers.entry(header::HOST).or_insert_with(|| self.host.clone());
        if !wants_upgrade && headers.contains_key(header::TE) {
            // RFC 9110 §10.1.4.
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }

    /// As HTTP/2 writes it: scheme, host and path apart.
    fn for_http2(&self, request: &mut Request<Body>) {
        let mut parts = self.uri.clone().into_parts();
        if let Some(path) = request.uri().path_and_query() {
            parts.path_and_query = Some(path.clone());
        }
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
    }

    /// Has idle connections closed in time, as long as there are any.
    fn look_after_idle(&self) {
        if self.is_swept.load(Ordering::Relaxed) || self.is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pool, shared) = (Arc::downgrade(&self.pool), Arc::downgrade(&self.shared));
        let is_swept = Arc::clone(&self.is_swept);
        let clock = self.pool.watch.clock().clone();
        tokio::spawn(async move {
            loop {
                clock.sleep(SWEEP_EVERY).await;
                let (Some(pool), Some(shared)) = (pool.upgrade(), shared.upgrade()) else { return };
                pool.sweep();
                shared.sweep();
                if pool.is_empty() && shared.is_empty() {
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

/// A call that waits for its reply's head.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn one_more(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a call goes out on.
struct Way {
    connection: Connection,
    /// Nobody has used it before.
    is_fresh: bool,
}

enum Connection {
    Own(Box<Http1>),
    Shared(Lease),
}

/// Whether a request may have to be sent twice: because a connection may turn out to be closed, if it does the same twice (RFC 9110 §9.2.2); and where a server
/// can say that it has not looked at it.
fn may_be_sent_again(request: &Request<Body>, way: &Way) -> bool {
    match way.connection {
        Connection::Own(_) => !way.is_fresh && request.method().is_idempotent(),
        Connection::Shared(_) => true,
    }
}

/// The same request again, if its body is at hand.
fn again(request: &Request<Body>) -> Option<Box<Request<Body>>> {
    let mut copy = Box::new(Request::new(request.body().again()?));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// How connections to servers are made.
pub(super) struct Connectors {
    /// With HTTP/2 where the server wants it.
    pub(super) any: Connector,
    pub(super) http1: Connector,
}

/// The servers that are called, each once.
pub(super) struct Upstreams {
    clock: Clock,
    connectors: Arc<Connectors>,
    by_origin: papaya::HashMap<String, Arc<Upstream>>,
}

impl Upstreams {
    pub(super) fn new(clock: Clock, connectors: Connectors) -> Self {
        Self { clock, connectors: Arc::new(connectors), by_origin: papaya::HashMap::new() }
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
        let is_idle = |it: &Upstream| it.pool.is_empty() && it.shared.is_empty() && it.circuit.is_closed();
        let is_used = |it: &Arc<Upstream>| Arc::strong_count(it) > 1 || !is_idle(it);
        self.by_origin.pin().retain(|_, it| is_used(it));
    }

    fn upstream(&self, origin: &str) -> Upstream {
        // Without user information, which has no place on the wire.
        let uri = Uri::try_from(origin).expect("scheme, host and port of a URL are a URL");
        let watch = Stopwatch::new(self.clock.clone());
        Upstream {
            host: host_field(&uri),
            uri,
            connectors: Arc::clone(&self.connectors),
            speaks: AtomicU8::new(0),
            pool: Arc::new(Pool::new(watch.clone())),
            shared: Arc::new(Shared::new(watch)),
            circuit: Circuit::default(),
            waiting: AtomicUsize::new(0),
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
