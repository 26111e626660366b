//! HTTP/1.1 connections. Each is driven by whoever uses it, inside his own task: first by the request, then by the reply's body. So no other task has to be woken,
//! and dropping the request or the reply closes the connection.

use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};

use super::alarm::{Alarm, Stopwatch};
use super::body::{Body, Upload};
use super::connector::{Listening, Stream};
use super::{BoxError, EgressFault, IDLE, innermost};

/// An idle connection is closed after this, unless its server names another time.
pub(super) const KEPT_IDLE: Duration = Duration::from_secs(30);
/// How many idle connections an upstream keeps.
const MOST_IDLE: usize = 256;
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The idle connections of an upstream.
pub(super) struct Pool {
    idle: SegQueue<Box<Http1>>,
    pub(super) watch: Stopwatch,
}

impl Pool {
    pub(super) fn new(watch: Stopwatch) -> Self {
        Self { idle: SegQueue::new(), watch }
    }

    /// A connection that has been idle for less than it may. Whether its server has closed it meanwhile shows when it is used.
    pub(super) fn take(&self, now: Duration) -> Option<Box<Http1>> {
        std::iter::from_fn(|| self.idle.pop()).find(|connection| now < connection.keep_until)
    }

    fn put(&self, mut connection: Box<Http1>, now: Duration) {
        if self.idle.len() < MOST_IDLE && !connection.keeps.is_zero() {
            connection.keep_until = now + connection.keeps;
            self.idle.push(connection);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// Closes what has been idle for too long, or was closed by its server.
    pub(super) fn sweep(&self) {
        let now = self.watch.now();
        for _ in 0..self.idle.len() {
            let Some(mut connection) = self.idle.pop() else { return };
            connection.drive(&mut unheard());
            if now < connection.keep_until && connection.driver.is_some() {
                self.idle.push(connection);
            }
        }
    }
}

/// One connection.
pub(super) struct Http1 {
    sender: SendRequest<Body>,
    /// Moves bytes; `None` when the connection has ended.
    driver: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    upload: Arc<Upload>,
    watch: Stopwatch,
    alarm: Alarm,
    /// How long the server lets it be idle, and until when that is.
    keeps: Duration,
    keep_until: Duration,
    pool: Weak<Pool>,
}

/// Why there is no reply.
pub(super) struct NoReply {
    pub(super) what: EgressFault,
    /// The request, if nothing of it was sent.
    pub(super) unsent: Option<Box<Request<Body>>>,
    /// The connection ended without a word.
    pub(super) silently: bool,
    /// The server says that it has not looked at the request.
    pub(super) refused: bool,
}

impl Http1 {
    pub(super) async fn begin(stream: Stream, pool: &Arc<Pool>) -> hyper::Result<Box<Self>> {
        let (sender, connection) = Builder::new().max_buf_size(128 << 10).handshake(Listening::to(stream)).await?;
        Ok(Box::new(Self {
            sender,
            driver: Some(Box::pin(connection.with_upgrades())),
            upload: Arc::default(),
            watch: pool.watch.clone(),
            alarm: Alarm::default(),
            keeps: KEPT_IDLE,
            keep_until: Duration::ZERO,
            pool: Arc::downgrade(pool),
        }))
    }

    /// Sends a request; answers when the reply's head is there, which must be within `head_within` of `began` and of each part of the body that was taken.
    pub(super) async fn exchange(
        mut self: Box<Self>,
        mut request: Box<Request<Body>>,
        mut began: Duration,
        head_within: Duration,
    ) -> Result<Response<Body>, NoReply> {
        request.body_mut().watched_by(&self.upload);
        let mut answer = pin!(self.sender.try_send_request(*request));
        let answered = std::future::poll_fn(|cx| {
            self.drive(cx);
            // Only the driver can bring the answer, so nobody else need be woken for it.
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut unheard()) {
                return Poll::Ready(Some(answer));
            }
            let this = &mut *self;
            if this.upload.has_moved() {
                began = this.watch.now();
            }
            this.alarm.poll(&this.watch, began + head_within, cx).map(|()| None)
        });
        match answered.await {
            Some(Ok(response)) => Ok(self.answered(response, began)),
            Some(Err(mut error)) => {
                let unsent = error.take_message().map(Box::new);
                let error = error.into_error();
                let silently = !error.is_user() && !error.is_parse() && !error.is_parse_too_large();
                Err(NoReply { what: lost(&error), unsent, silently, refused: false })
            }
            None => {
                Err(NoReply { what: EgressFault::Timeout(head_within), unsent: None, silently: false, refused: false })
            }
        }
    }

    /// The reply, with as much of its body as is there already: a small one frees the connection at once.
    fn answered(mut self: Box<Self>, response: Response<Incoming>, now: Duration) -> Response<Body> {
        let (mut head, mut body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // The connection now belongs to whoever asked for another protocol.
            self.drive(&mut unheard());
            if let Some(driver) = self.driver {
                tokio::spawn(driver);
            }
            return Response::from_parts(head, Body::empty());
        }
        if let Some(said) = head.headers.get(KEEP_ALIVE) {
            self.keeps = kept_by(said).unwrap_or(KEPT_IDLE);
        }
        if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.remove(CONTENT_LENGTH).is_some() {
            // The chunks count, whatever the length says; whoever sends both is not to be trusted with another request (RFC 9112 §6.3).
            self.keeps = Duration::ZERO;
        }
        let mut ahead = [None, None];
        let mut is_over = body.is_end_stream();
        let mut broken = None;
        for place in &mut ahead {
            if is_over {
                break;
            }
            match Pin::new(&mut body).poll_frame(&mut unheard()) {
                Poll::Ready(None) => is_over = true,
                Poll::Ready(Some(Ok(frame))) => {
                    is_over = frame.is_trailers() || body.is_end_stream();
                    *place = Some(frame);
                    if !is_over {
                        // The end of a chunked body may have come along.
                        self.drive(&mut unheard());
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    broken = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        let mut connection = Some(self);
        if is_over && let Some(connection) = connection.take() {
            connection.settle(now);
        }
        let is_whole = is_over && ahead.iter().flatten().filter(|frame| frame.is_data()).count() < 2;
        Response::from_parts(
            head,
            match is_whole {
                true => whole(ahead),
                false => Body::reply(Box::new(Reply { connection, body, ahead, broken, silent_since: None })),
            },
        )
    }

    /// Moves what can be moved.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            // Dropping it answers whoever still waits.
            self.driver = None;
        }
    }

    /// The reply is over: the connection is free for the next request, or has something left to do, or has ended.
    fn settle(self: Box<Self>, now: Duration) {
        if self.driver.is_none() {
            return;
        }
        if !self.sender.is_ready() {
            tokio::spawn(self.finish());
        } else if let Some(pool) = self.pool.upgrade() {
            pool.put(self, now);
        }
    }

    /// The server has answered before it had the whole request, which goes on as long as it moves.
    async fn finish(mut self: Box<Self>) {
        let mut since = self.watch.now();
        std::future::poll_fn(|cx| {
            self.drive(cx);
            if self.driver.is_none() || self.sender.is_ready() {
                return Poll::Ready(());
            }
            if self.upload.has_moved() {
                since = self.watch.now();
            }
            let this = &mut *self;
            this.alarm.poll(&this.watch, since + IDLE, cx)
        })
        .await;
        let now = self.watch.now();
        if let Some(pool) = self.pool.upgrade()
            && self.driver.is_some()
            && self.sender.is_ready()
        {
            pool.put(self, now);
        }
    }
}

/// A reply's body that is still arriving, with the connection that it arrives on.
pub(super) struct Reply {
    /// `None` once the reply is over.
    connection: Option<Box<Http1>>,
    body: Incoming,
    /// What came with the head.
    ahead: [Option<Frame<Bytes>>; 2],
    /// How it broke off behind that.
    broken: Option<hyper::Error>,
    silent_since: Option<Duration>,
}

impl Reply {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(frame) = self.ahead.iter_mut().find_map(Option::take) {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.broken.take() {
            self.connection = None;
            return Poll::Ready(Some(Err(broke_off(&error))));
        }
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        let mut polled = Pin::new(&mut self.body).poll_frame(&mut unheard());
        if polled.is_pending() {
            connection.drive(cx);
            polled = Pin::new(&mut self.body).poll_frame(&mut unheard());
        }
        match polled {
            Poll::Pending => {
                let since = *self.silent_since.get_or_insert_with(|| connection.watch.now());
                ready!(connection.alarm.poll(&connection.watch, since + IDLE, cx));
                self.connection = None;
                Poll::Ready(Some(Err("the provider sent nothing for too long".into())))
            }
            Poll::Ready(Some(Err(error))) => {
                self.connection = None;
                Poll::Ready(Some(Err(broke_off(&error))))
            }
            Poll::Ready(frame) => {
                self.silent_since = None;
                // A reply of known length is not asked for its end.
                if (frame.is_none() || self.body.is_end_stream())
                    && let Some(mut connection) = self.connection.take()
                {
                    connection.drive(cx);
                    let now = connection.watch.now();
                    connection.settle(now);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ahead.iter().all(Option::is_none) && self.broken.is_none() && self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.iter().flatten().filter_map(|frame| frame.data_ref()).map(Bytes::len).sum::<usize>();
        let ahead = ahead as u64;
        let left = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(left.lower() + ahead);
        if let Some(upper) = left.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

fn whole([first, second]: [Option<Frame<Bytes>>; 2]) -> Body {
    let (mut data, mut trailers) = (Bytes::new(), None::<HeaderMap>);
    for frame in [first, second].into_iter().flatten() {
        match frame.into_data() {
            Ok(bytes) => data = bytes,
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    match trailers {
        Some(trailers) => Body::trailed(data, trailers),
        None => Body::full(data),
    }
}

/// `timeout=5, max=100`; a second less, since the server counts from its own last byte.
fn kept_by(said: &HeaderValue) -> Option<Duration> {
    let said = said.to_str().ok()?;
    let seconds = said.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.saturating_sub(1)).min(KEPT_IDLE))
}

/// Nobody waits for this: who polls knows by himself when to look again.
fn unheard() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn lost(error: &hyper::Error) -> EgressFault {
    let why = innermost(error);
    EgressFault::Lost(if error.is_user() { format!("the request could not be sent whole: {why}") } else { why })
}

fn broke_off(error: &hyper::Error) -> BoxError {
    format!("the provider's reply broke off: {}", innermost(error)).into()
}
