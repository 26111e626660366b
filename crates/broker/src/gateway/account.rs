//! Seventh phase: what is held until the reply's last byte has gone.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::credential::KeptBody;
use super::wanted::UntilOver;
use super::{Call, Due};
use crate::allowance::Turn;
use crate::egress::{Body, BoxError, empty};
use crate::open::Broker;

/// What a call holds while it lasts.
#[derive(Default)]
pub(crate) struct Account {
    /// Its places among its key's calls, and among its connection's.
    _of_key: Turn,
    pub(super) of_connection: Turn,
    _unwanted: Option<UntilOver>,
}

impl Account {
    pub(super) fn new(of_key: Turn) -> Self {
        Self { _of_key: of_key, of_connection: None, _unwanted: None }
    }
}

/// An API's reply as it streams back; the call is over when this has ended or is dropped.
pub struct Reply {
    body: Body,
    _account: Account,
    due: Option<Alarm>,
}

/// Rings when a call must be over.
struct Alarm {
    rings: Pin<Box<dyn Future<Output = ()> + Send>>,
    within: Duration,
}

impl Broker {
    /// The reply of a call, which is over when the reply's body is.
    pub(super) fn account(&self, mut call: Call<'_>, response: Response<Body>) -> Response<Reply> {
        if let KeptBody::Awaited(wanted) = call.body {
            call.account._unwanted = Some(UntilOver(wanted));
        }
        let due = call.due.map(|due| self.alarm(due));
        response.map(|body| Reply { body, _account: call.account, due })
    }

    fn alarm(&self, due: Due) -> Alarm {
        let broker = self.clone();
        // How long that is, is known when it begins to wait.
        Alarm { rings: Box::pin(async move { broker.clock.sleep(broker.left(due)).await }), within: due.within }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending()
            && let Some(due) = &mut self.due
            && due.rings.as_mut().poll(cx).is_ready()
        {
            let within = due.within;
            // The API is told, too, by an end of its connection.
            self.body = empty();
            self.due = None;
            return Poll::Ready(Some(Err(
                format!("the reply was not over within {within:?}, as its caller asked").into()
            )));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
