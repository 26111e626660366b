//! A reply's body that breaks off when nothing comes for too long: hyper itself waits for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::BoxError;
use crate::clock::Clock;

/// Longest silence within a body. Long enough for event streams that send a heartbeat a minute.
pub const IDLE: Duration = Duration::from_secs(180);

pub(super) struct IdleTimeout {
    body: Incoming,
    clock: Clock,
    /// Runs only while the body is awaited.
    silence: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl IdleTimeout {
    pub(super) fn new(body: Incoming, clock: Clock) -> Self {
        Self { body, clock, silence: None }
    }
}

impl Body for IdleTimeout {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let clock = self.clock.clone();
        let silence = self.silence.get_or_insert_with(|| Box::pin(async move { clock.sleep(IDLE).await }));
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Some(Err("the provider sent nothing for too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
