//! Fifth phase: in its turn, on the record, to the API.

use std::time::Duration;

use http::{Request, Response};

use super::{ApiAccess, Call};
use crate::allowance::Turn;
use crate::egress::Body;
use crate::error::{Error, Result};
use crate::live::Live;
use crate::open::Broker;

/// An API's first byte may take this long after the last of the request's.
const HEAD_WITHIN: Duration = Duration::from_secs(120);

impl Broker {
    /// Sends a call's request. The first time it waits for its turn, and writes down what is done.
    pub(super) async fn send(
        &self,
        call: &mut Call<'_>,
        live: &Live,
        api: &ApiAccess,
        request: Request<Body>,
    ) -> Result<Response<Body>> {
        if call.sent == 0 {
            call.turn = self.turn(live, api).await?;
            let (host, path) = (request.uri().host().unwrap_or_default(), call.request.path());
            let called = format!("{} {host}{path}", call.request.method);
            self.record_in_turn(call.caller, "proxy.call", live.id.as_str(), Some(called)).await?;
        }
        call.sent += 1;
        self.send_once(request).await
    }

    /// Sends a request to an API, and has its reply's head.
    pub(crate) async fn send_once(&self, request: Request<Body>) -> Result<Response<Body>> {
        Ok(self.egress.send(request, HEAD_WITHIN).await?)
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
