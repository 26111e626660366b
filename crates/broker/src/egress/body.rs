//! Bodies of API calls and their replies: an enum, so that the usual ones cost no allocation.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::BoxError;
use super::{http1, http2};

type Boxed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

/// A streamed body, outbound or back.
pub struct Body {
    kind: Kind,
    /// Told of every part that is taken.
    upload: Option<Arc<Upload>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    /// All of it is here, trailers too; boxed, since it is rare and large.
    Trailed(Bytes, Option<Box<HeaderMap>>),
    Incoming(Incoming),
    Boxed(Boxed),
    Own(Box<http1::Reply>),
    Shared(Box<http2::Reply>),
}

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// A body that is there already.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// What a server receives.
    pub fn from_incoming(incoming: Incoming) -> Self {
        let is_over = http_body::Body::is_end_stream(&incoming);
        Self::of(if is_over { Kind::Empty } else { Kind::Incoming(incoming) })
    }

    /// Any other body.
    pub fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::of(Kind::Boxed(Box::pin(body.map_err(Into::into))))
    }

    /// How many bytes it has, if all of them are in memory: then nothing more can go wrong with it, and no time passes until its end.
    pub fn in_memory(&self) -> Option<usize> {
        match &self.kind {
            Kind::Empty => Some(0),
            Kind::Full(bytes) | Kind::Trailed(bytes, _) => Some(bytes.len()),
            Kind::Incoming(_) | Kind::Boxed(_) | Kind::Own(_) | Kind::Shared(_) => None,
        }
    }

    /// The same body again, where it is in memory.
    pub(crate) fn again(&self) -> Option<Self> {
        match &self.kind {
            Kind::Empty => Some(Self::empty()),
            Kind::Full(bytes) => Some(Self::of(Kind::Full(bytes.clone()))),
            Kind::Trailed(..) | Kind::Incoming(_) | Kind::Boxed(_) | Kind::Own(_) | Kind::Shared(_) => None,
        }
    }

    /// All of a body with what stands behind it.
    pub(super) fn trailed(bytes: Bytes, trailers: HeaderMap) -> Self {
        Self::of(Kind::Trailed(bytes, Some(Box::new(trailers))))
    }

    pub(super) fn reply(reply: Box<http1::Reply>) -> Self {
        Self::of(Kind::Own(reply))
    }

    pub(super) fn shared_reply(reply: Box<http2::Reply>) -> Self {
        Self::of(Kind::Shared(reply))
    }

    /// Lets `upload` know of every part that is taken, unless there is nothing to wait for.
    pub(super) fn watched_by(&mut self, upload: &Arc<Upload>) {
        if self.in_memory().is_none() {
            self.upload = Some(Arc::clone(upload));
        }
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, upload: None }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what it holds.
        f.write_str("Body")
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Trailed(bytes, _) if !bytes.is_empty() => Some(Ok(Frame::data(mem::take(bytes)))),
            Kind::Trailed(_, trailers) => trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))),
            Kind::Incoming(incoming) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(BoxError::from))
            }
            Kind::Boxed(body) => ready!(body.as_mut().poll_frame(cx)),
            Kind::Own(reply) => ready!(reply.poll_frame(cx)),
            Kind::Shared(reply) => ready!(reply.poll_frame(cx)),
        };
        if let Some(upload) = &this.upload {
            upload.moved.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Trailed(_, trailers) => trailers.is_none(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
            Kind::Own(reply) => reply.is_end_stream(),
            Kind::Shared(reply) => reply.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // An exact length would make an HTTP/1.1 connection leave the trailers out.
            Kind::Trailed(..) => SizeHint::default(),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
            Kind::Own(reply) => reply.size_hint(),
            Kind::Shared(reply) => reply.size_hint(),
        }
    }
}

/// A request's body on its way, as the connection sees it.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// An upload may take its time, standing still may not.
    moved: AtomicBool,
}

impl Upload {
    /// Whether it has moved since this was asked last.
    pub(super) fn has_moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed) && self.moved.swap(false, Ordering::Relaxed)
    }
}
