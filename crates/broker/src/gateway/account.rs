//! Seventh phase: what is held until the reply's last byte has gone, and counted then.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::credential::KeptBody;
use super::wanted::UntilOver;
use super::{Call, Due, Via};
use crate::allowance::Turn;
use crate::clock::{Clock, Moment};
use crate::egress::{Body, BoxError, empty};
use crate::live::Live;
use crate::model::{Caller, ConnectionId, SourceId};
use crate::open::Broker;
use crate::usage::{CallEnd, Called, Usage};

/// What a call holds while it lasts.
#[derive(Default)]
pub(crate) struct Account {
    /// Its places among its key's calls, and among its connection's.
    _of_key: Turn,
    pub(super) of_connection: Turn,
    _unwanted: Option<UntilOver>,
    /// Made when the call is on the record.
    count: Option<Count>,
}

/// What is counted of a call when this is dropped.
struct Count {
    usage: Arc<Usage>,
    clock: Clock,
    caller: Arc<Caller>,
    connection: ConnectionId,
    source: Option<SourceId>,
    at: i64,
    began: Moment,
    /// Until the reply's head; until the end, where none came.
    took: Option<Duration>,
    end: CallEnd,
    sent: u64,
    received: u64,
}

impl Account {
    pub(super) fn new(of_key: Turn) -> Self {
        Self { _of_key: of_key, of_connection: None, _unwanted: None, count: None }
    }

    /// The call is on the record, and goes out with so many bytes.
    pub(super) fn begins(
        &mut self,
        broker: &Broker,
        caller: &Arc<Caller>,
        live: &Live,
        via: Via<'_>,
        at: i64,
        sent: u64,
    ) {
        let (clock, usage) = (broker.clock.clone(), Arc::clone(&broker.usage));
        let (caller, connection, began) = (Arc::clone(caller), live.id.clone(), clock.moment());
        let (took, end, received) = (None, CallEnd::Failed, 0);
        let source = via.source().cloned();
        self.count = Some(Count { usage, clock, caller, connection, source, at, began, took, end, sent, received });
    }

    /// The reply's head is there.
    pub(super) fn answered(&mut self, status: StatusCode) {
        if let Some(count) = &mut self.count {
            count.end = CallEnd::Answered(status.as_u16());
            count.took = Some(count.clock.since(count.began));
        }
    }

    fn received(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BoxError>>>) {
        let Some(count) = &mut self.count else { return };
        match frame {
            Poll::Ready(Some(Ok(frame))) => count.received += frame.data_ref().map_or(0, |data| data.len() as u64),
            Poll::Ready(Some(Err(_))) => count.end = CallEnd::Failed,
            Poll::Ready(None) | Poll::Pending => {}
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let took = self.took.unwrap_or_else(|| self.clock.since(self.began));
        let called = Called { end: self.end, sent: self.sent, received: self.received, took };
        self.usage.called(self.at, &self.caller, &self.connection, self.source.as_ref(), &called);
    }
}

/// An API's reply as it streams back; the call is over when this has ended or is dropped.
pub struct Reply {
    body: Body,
    account: Account,
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
        call.account.answered(response.status());
        let due = call.due.map(|due| self.alarm(due));
        response.map(|body| Reply { body, account: call.account, due })
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
        self.account.received(&frame);
        if frame.is_pending()
            && let Some(due) = &mut self.due
            && due.rings.as_mut().poll(cx).is_ready()
        {
            let within = due.within;
            // The API is told, too, by an end of its connection.
            self.body = empty();
            self.due = None;
            let late = format!("the reply was not over within {within:?}, as its caller asked");
            let late = Poll::Ready(Some(Err(late.into())));
            self.account.received(&late);
            return late;
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
