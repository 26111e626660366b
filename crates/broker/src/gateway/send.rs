//! Fifth phase: in its turn, on the record, to the API.

use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;

use super::{ApiAccess, Base, Call};
use crate::allowance::Turn;
use crate::audit::CallRecord;
use crate::egress::Body;
use crate::error::{Error, Result};
use crate::live::Live;
use crate::open::Broker;

/// An API's first byte may take this long after the last of the request's.
const HEAD_WITHIN: Duration = Duration::from_secs(120);

/// Of a request's announced bytes, so many count: sums of them stay numbers that a database can hold.
const MOST_COUNTED: u64 = 1 << 38;

impl Broker {
    /// Sends a call's request. The first time it waits for its turn, and writes down what is done.
    pub(super) async fn send(
        &self,
        call: &mut Call<'_>,
        live: &Live,
        api: &ApiAccess,
        request: Box<Request<Body>>,
    ) -> Result<Response<Body>> {
        if !call.is_recorded {
            call.account.of_connection = self.turn(live, api).await?;
            let host = request.uri().host().unwrap_or_default();
            let (method, path) = (&call.request.method, call.request.path());
            let record = CallRecord { connection: &live.id, source: call.via.source(), method, host, path };
            let now = self.now_ms();
            self.audit.record_call(now, call.caller, record).await?;
            call.is_recorded = true;
            // What the caller announced, which may be more than anybody ever sends.
            let sent = request.body().size_hint().exact().unwrap_or(0).min(MOST_COUNTED);
            call.account.begins(self, call.caller, live, call.via, now, sent);
        }
        let base = call.via.base(api);
        self.send_once(api, base, request).await
    }

    /// Sends a request to an API, has its reply's head, and hears what it says of further calls.
    pub(crate) async fn send_once(
        &self,
        api: &ApiAccess,
        base: &Base,
        request: Box<Request<Body>>,
    ) -> Result<Response<Body>> {
        let response = match base.upstream(request.uri(), &self.egress)? {
            Some(upstream) => upstream.send(request, HEAD_WITHIN).await?,
            None => Box::pin(self.egress.send(request, HEAD_WITHIN)).await?,
        };
        api.allowance.hear(response.status().as_u16(), response.headers(), || self.now_ms());
        Ok(response)
    }

    /// Waits until the connection's API may be called.
    pub(crate) async fn turn(&self, live: &Live, api: &ApiAccess) -> Result<Turn> {
        api.allowance.enter(&self.clock).await.map_err(|not| Error::ApiLimited {
            connection: live.name.clone(),
            said: not.said,
            retry_after: Duration::from_millis((not.at - self.now_ms()).max(0).unsigned_abs()),
        })
    }
}
