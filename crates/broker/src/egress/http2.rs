//! HTTP/2 connections: shared by the calls of an upstream, each moved by a task of its own, while a call's streams are driven inside the task that makes it.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, Request, Response, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper_util::rt::TokioIo;

use super::alarm::{Alarm, Stopwatch};
use super::body::{Body, Upload};
use super::connector::Stream;
use super::http1::{KEPT_IDLE, NoReply};
use super::{BoxError, EgressFault, IDLE, innermost};
use crate::clock::Clock;

/// Fields that HTTP/2 has no place for (RFC 9113 §8.2.2).
const CONNECTION_SPECIFIC: [HeaderName; 7] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// While calls are under way on a connection, it is asked this often whether anybody is there still.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Who answers no ping for this long has gone.
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// The connections of an upstream.
pub(super) struct Shared {
    connections: papaya::HashMap<u64, Arc<Http2>>,
    opened: AtomicU64,
    /// Held by whoever opens one, so that those who need one at the same time share it; when and how that failed last.
    pub(super) opening: tokio::sync::Mutex<Option<(Duration, EgressFault)>>,
    watch: Stopwatch,
}

impl Shared {
    pub(super) fn new(watch: Stopwatch) -> Self {
        Self {
            connections: papaya::HashMap::new(),
            opened: AtomicU64::new(0),
            opening: tokio::sync::Mutex::new(None),
            watch,
        }
    }

    /// The right to make a call on a connection that takes one more.
    pub(super) fn lease(&self) -> Option<Lease> {
        self.connections.pin().values().find_map(Http2::lease)
    }

    /// The right to make the first call on a new connection.
    pub(super) async fn begin(self: &Arc<Self>, stream: Stream) -> Result<Lease, h2::Error> {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_frame_size(64 << 10)
            .max_header_list_size(128 << 10)
            .max_send_buffer_size(256 << 10);
        let (sender, mut connection) = builder.handshake::<_, Bytes>(TokioIo::new(stream)).await?;
        let pings = connection.ping_pong();
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let new = Arc::new(Http2 {
            number,
            sender,
            streams: AtomicUsize::new(1),
            alarms: SegQueue::new(),
            idle_since: AtomicU64::new(0),
            shared: Arc::downgrade(self),
        });
        self.connections.pin().insert(number, Arc::clone(&new));
        let (shared, of, clock) = (Arc::downgrade(self), Arc::downgrade(&new), self.watch.clock().clone());
        tokio::spawn(async move {
            tokio::select! {
                // The calls are told by their streams.
                _ = connection => {}
                // And are now, that it is dropped.
                () = until_silent(pings, of, &clock) => {}
            }
            if let Some(shared) = shared.upgrade() {
                shared.retire(number);
            }
        });
        Ok(Lease(new))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Closes what has been idle for too long.
    pub(super) fn sweep(&self) {
        let now = self.watch.now();
        let is_kept = |it: &Arc<Http2>| {
            let idle_since = Duration::from_millis(it.idle_since.load(Ordering::Relaxed));
            it.streams.load(Ordering::Relaxed) > 0 || now < idle_since + KEPT_IDLE
        };
        self.connections.pin().retain(|_, it| is_kept(it));
    }

    /// No call begins on this connection any more.
    fn retire(&self, number: u64) {
        self.connections.pin().remove(&number);
    }
}

/// Returns when nobody is there any more: a connection that died without a word would hold its calls until each is given up.
async fn until_silent(pings: Option<PingPong>, connection: Weak<Http2>, clock: &Clock) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    while let Some(streams) = {
        clock.sleep(PING_EVERY).await;
        connection.upgrade().map(|it| it.streams.load(Ordering::Relaxed))
    } {
        if streams == 0 {
            continue;
        }
        match clock.timeout(PONG_WITHIN, pings.ping(Ping::opaque())).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break,
            None => return,
        }
    }
    // It ends by itself.
    std::future::pending().await
}

/// One connection.
struct Http2 {
    number: u64,
    sender: SendRequest<Bytes>,
    streams: AtomicUsize,
    alarms: SegQueue<Alarm>,
    /// Milliseconds of the upstream's stopwatch.
    idle_since: AtomicU64,
    shared: Weak<Shared>,
}

impl Http2 {
    fn lease(self: &Arc<Self>) -> Option<Lease> {
        let lease = (self.streams.fetch_add(1, Ordering::Relaxed), Lease(Arc::clone(self)));
        // What the server allows at once (RFC 9113 §5.1.2).
        (lease.0 < self.sender.current_max_send_streams()).then_some(lease.1)
    }

    fn retire(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.retire(self.number);
        }
    }
}

/// The right to one stream of a connection, until it is dropped.
pub(super) struct Lease(Arc<Http2>);

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(shared) = self.0.shared.upgrade()
        {
            let now = u64::try_from(shared.watch.now().as_millis()).unwrap_or(u64::MAX);
            self.0.idle_since.store(now, Ordering::Relaxed);
        }
    }
}

impl Lease {
    /// Sends a request in absolute form; answers when the reply's head is there, which must be within `head_within` of `began` and of each part of the body that was taken.
    pub(super) async fn exchange(
        self,
        request: Request<Body>,
        watch: &Stopwatch,
        mut began: Duration,
        head_within: Duration,
    ) -> Result<Response<Body>, NoReply> {
        let mut sender = self.0.sender.clone();
        let usable = std::future::poll_fn(|cx| sender.poll_ready(cx));
        if let Some(Err(error)) = watch.clock().timeout(head_within, usable).await {
            self.0.retire();
            return Err(NoReply { unsent: Some(Box::new(request)), ..no_reply(&error) });
        }
        let (mut head, mut body) = request.into_parts();
        clean(&mut head.headers, &body);
        let is_over = body.is_end_stream();
        let upload: Option<Arc<Upload>> = body.in_memory().is_none().then(Arc::default);
        if let Some(upload) = &upload {
            body.watched_by(upload);
        }
        let (answer, stream) = match sender.send_request(Request::from_parts(head, ()), is_over) {
            Ok(sent) => sent,
            Err(error) => {
                self.0.retire();
                return Err(no_reply(&error));
            }
        };
        let mut sending = (!is_over).then(|| Sending { body, stream });
        let mut alarm = self.0.alarms.pop().unwrap_or_default();
        let mut answer: Pin<&mut ResponseFuture> = pin!(answer);
        let answered = std::future::poll_fn(|cx| {
            if let Err(broken) = send(&mut sending, cx) {
                return Poll::Ready(Err(EgressFault::Lost(format!("the request could not be sent whole: {broken}"))));
            }
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            if upload.as_ref().is_some_and(|upload| upload.has_moved()) {
                began = watch.now();
            }
            alarm.poll(watch, began + head_within, cx).map(|()| Err(EgressFault::Timeout(head_within)))
        });
        let response = match answered.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(no_reply(&error)),
            Err(what) => {
                if matches!(what, EgressFault::Timeout(_)) {
                    // Perhaps nobody is there any more.
                    self.0.retire();
                }
                return Err(NoReply { what, unsent: None, silently: false, refused: false });
            }
        };
        let (head, body) = response.into_parts();
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let reply = Reply {
            ahead: None,
            body,
            length,
            sending,
            upload,
            alarm,
            watch: watch.clone(),
            silent_since: None,
            lease: Some(self),
        };
        Ok(Response::from_parts(head, reply.into_body()))
    }
}

/// A reply's body with its stream.
pub(super) struct Reply {
    /// What came with the head.
    ahead: Option<Result<Bytes, h2::Error>>,
    body: RecvStream,
    /// How much is still to come, where it was said.
    length: Option<u64>,
    /// What is left of the request.
    sending: Option<Sending>,
    upload: Option<Arc<Upload>>,
    alarm: Alarm,
    watch: Stopwatch,
    silent_since: Option<Duration>,
    /// `None` once the reply is over.
    lease: Option<Lease>,
}

impl Reply {
    /// A body that is there already needs no stream.
    fn into_body(mut self) -> Body {
        if !self.body.is_end_stream()
            && let Poll::Ready(Some(first)) = self.poll_data(&mut Context::from_waker(Waker::noop()))
        {
            self.ahead = Some(first);
        }
        if matches!(self.ahead, Some(Err(_))) || !self.body.is_end_stream() {
            return Body::shared_reply(Box::new(self));
        }
        self.settle();
        self.ahead.take().and_then(Result::ok).map_or_else(Body::empty, Body::full)
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        // What goes wrong with the request shows in the reply.
        let _ = send(&mut self.sending, cx);
        let data = match self.ahead.take() {
            Some(ahead) => Poll::Ready(Some(ahead)),
            None => self.poll_data(cx),
        };
        let frame = match data {
            Poll::Ready(Some(data)) => Some(data.map(Frame::data)),
            Poll::Ready(None) => match self.body.poll_trailers(cx) {
                Poll::Ready(trailers) => trailers.map(|trailers| trailers.map(Frame::trailers)).transpose(),
                Poll::Pending => return self.silence(cx),
            },
            Poll::Pending => return self.silence(cx),
        };
        self.silent_since = None;
        match frame {
            Some(Err(error)) => {
                self.lease = None;
                let why = format!("the provider's reply broke off: {}", innermost(&error));
                Poll::Ready(Some(Err(why.into())))
            }
            frame => {
                if frame.is_none() || self.body.is_end_stream() {
                    self.settle();
                }
                Poll::Ready(frame.and_then(Result::ok).map(Ok))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().and_then(|data| data.as_ref().ok()).map_or(0, Bytes::len);
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length + ahead as u64))
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let polled = self.body.poll_data(cx);
        if let Poll::Ready(Some(Ok(data))) = &polled {
            // An error means that the stream has ended, which the next look tells.
            let _ = self.body.flow_control().release_capacity(data.len());
            self.length = self.length.map(|length| length.saturating_sub(data.len() as u64));
        }
        polled
    }

    fn silence(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let since = *self.silent_since.get_or_insert_with(|| self.watch.now());
        ready!(self.alarm.poll(&self.watch, since + IDLE, cx));
        if let Some(lease) = self.lease.take() {
            lease.0.retire();
        }
        Poll::Ready(Some(Err("the provider sent nothing for too long".into())))
    }

    /// The reply is over. A request that isn't goes on as long as it moves.
    fn settle(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let mut alarm = std::mem::take(&mut self.alarm);
        let Some(sending) = self.sending.take() else {
            lease.0.alarms.push(alarm);
            return;
        };
        let (watch, upload) = (self.watch.clone(), self.upload.take());
        tokio::spawn(async move {
            let (mut sending, mut since) = (Some(sending), watch.now());
            std::future::poll_fn(|cx| {
                if send(&mut sending, cx).is_err() || sending.is_none() {
                    return Poll::Ready(());
                }
                if upload.as_ref().is_some_and(|upload| upload.has_moved()) {
                    since = watch.now();
                }
                alarm.poll(&watch, since + IDLE, cx)
            })
            .await;
            drop(lease);
        });
    }
}

/// A request's body on its way.
struct Sending {
    body: Body,
    stream: SendStream<Bytes>,
}

/// Sends what can be sent; `None` remains when that is all. An error is one of the body itself: the server's part shows in its answer.
fn send(sending: &mut Option<Sending>, cx: &mut Context<'_>) -> Result<(), BoxError> {
    let Some(Sending { body, stream }) = sending else { return Ok(()) };
    loop {
        stream.reserve_capacity(1);
        if stream.capacity() == 0 {
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => continue,
                Poll::Ready(_) => break,
                Poll::Pending => return Ok(()),
            }
        }
        if stream.poll_reset(cx).is_ready() {
            break;
        }
        let sent = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Some(Err(error))) => {
                stream.send_reset(Reason::CANCEL);
                *sending = None;
                return Err(error);
            }
            Poll::Ready(None) => stream.send_data(Bytes::new(), true).map(|()| true),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let is_over = body.is_end_stream();
                    stream.send_data(data, is_over).map(|()| is_over)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => stream.send_trailers(trailers).map(|()| true),
                    Err(_) => Ok(false),
                },
            },
        };
        if sent.unwrap_or(true) {
            break;
        }
    }
    *sending = None;
    Ok(())
}

/// Takes out what HTTP/2 has no place for, and says how long the body is.
fn clean(headers: &mut HeaderMap, body: &Body) {
    for name in &CONNECTION_SPECIFIC {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.remove(header::TE);
    }
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

fn no_reply(error: &h2::Error) -> NoReply {
    // The server says that it has not looked at the request (RFC 9113 §8.7).
    let refused =
        error.is_remote() && (error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM));
    NoReply { what: EgressFault::Lost(innermost(error)), unsent: None, silently: error.is_io(), refused }
}
