//! A request's body that says when it last moved: an upload may take its time, standing still may not.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Body, BoxError};
use crate::clock::Clock;

pub(super) struct Sending {
    body: Body,
    clock: Clock,
    moved_at: Arc<AtomicI64>,
}

impl Sending {
    /// The body, and when its last part was taken, Unix milliseconds; now, to begin with.
    pub(super) fn new(body: Body, clock: Clock) -> (Self, Arc<AtomicI64>) {
        let moved_at = Arc::new(AtomicI64::new(clock.now_ms()));
        (Self { body, clock, moved_at: Arc::clone(&moved_at) }, moved_at)
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.moved_at.store(self.clock.now_ms(), Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
