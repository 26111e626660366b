//! A large body whose caller asks whether it is wanted, with `Expect: 100-continue` (RFC 9110 §10.1.1).
//!
//! The API is asked in turn, and the body isn't touched until it says yes; only then is the caller told to send it. An API that answers otherwise (a 401, a 413) spares both the
//! upload, and the body is still there for a repetition.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{HeaderValue, Request, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};

use crate::clock::Clock;
use crate::egress::{Body, BoxError};

/// Old servers never say that they want a body; after this it is sent all the same.
const PATIENCE: Duration = Duration::from_secs(1);

const ASKED: u8 = 0;
const YES: u8 = 1;
/// The API has answered without it.
const NO: u8 = 2;
const GONE: u8 = 3;

/// Whether a body is wanted, and the body.
pub(crate) struct Wanted {
    answer: AtomicU8,
    waits: AtomicWaker,
    /// Only one at a time looks at it: who sends, or, when that has not begun, who takes it back.
    body: Mutex<Option<Body>>,
}

/// The body as it is sent.
struct Awaited {
    wanted: Arc<Wanted>,
    patience: Pin<Box<dyn Future<Output = ()> + Send>>,
    length: SizeHint,
}

impl Wanted {
    /// The body, and who holds it back.
    pub(super) fn new(body: Body, clock: Clock) -> (Arc<Self>, Body) {
        let length = body.size_hint();
        let wanted =
            Arc::new(Self { answer: AtomicU8::new(ASKED), waits: AtomicWaker::new(), body: Mutex::new(Some(body)) });
        let patience = Box::pin(async move { clock.sleep(PATIENCE).await });
        let awaited = Awaited { wanted: Arc::clone(&wanted), patience, length };
        (wanted, Body::boxed(awaited))
    }

    /// Has the API asked.
    pub(super) fn ask(self: &Arc<Self>, request: &mut Request<Body>) {
        request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        let wanted = Arc::clone(self);
        hyper::ext::on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                wanted.say_yes();
            }
        });
    }

    /// Whether nothing of the body has been read.
    pub(super) fn is_untouched(&self) -> bool {
        self.answer.load(Ordering::Acquire) != YES
    }

    /// The API has given its last answer: a body that it didn't want until now is not asked for any more.
    pub(super) fn answered(&self) {
        let _ = self.answer.compare_exchange(ASKED, NO, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The body, if nothing of it has been read. It isn't sent any more then, and what was to send it fails.
    pub(super) fn take_back(&self) -> Option<Body> {
        self.answered();
        self.answer.compare_exchange(NO, GONE, Ordering::AcqRel, Ordering::Acquire).ok()?;
        self.waits.wake();
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn say_yes(&self) {
        let _ = self.answer.compare_exchange(ASKED, YES, Ordering::AcqRel, Ordering::Acquire);
        self.waits.wake();
    }
}

/// Takes a body back when the call is over, so that it doesn't keep the API's connection.
pub(super) struct UntilOver(pub(super) Arc<Wanted>);

impl Drop for UntilOver {
    fn drop(&mut self) {
        drop(self.0.take_back());
    }
}

impl http_body::Body for Awaited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.wanted.waits.register(cx.waker());
        if self.wanted.answer.load(Ordering::Acquire) == ASKED && self.patience.as_mut().poll(cx).is_ready() {
            self.wanted.say_yes();
        }
        match self.wanted.answer.load(Ordering::Acquire) {
            YES => {}
            GONE => return Poll::Ready(Some(Err("the API didn't want the body".into()))),
            _ => return Poll::Pending,
        }
        match &mut *self.wanted.body.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
    }
}
