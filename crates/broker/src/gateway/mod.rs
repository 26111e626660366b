//! The injecting gateway: an API call with the token put in on the way.
//!
//! A call goes through seven phases, in this order, each in the file of its name:
//!
//! 1. `caller`: who calls, and what the call asks of the gateway itself;
//! 2. `policy`: may this caller send this request with this connection;
//! 3. `target`: where it goes, built from the definition;
//! 4. `credential`: the request as it goes out, cleaned of what ends here, with the tokens in their places;
//! 5. `send`: in its turn, on the record, to the API;
//! 6. `answer`: what the reply means. A 401 renews once and goes back to the third phase once;
//! 7. `account`: what is held and counted until the reply's last byte has gone.

mod account;
mod answer;
mod api;
mod caller;
mod credential;
mod policy;
mod send;
mod target;

use std::sync::Arc;

use http::header::HeaderMap;
use http::uri::PathAndQuery;
use http::{Method, Response};

pub use account::Reply;
pub(crate) use api::ApiAccess;
pub(crate) use credential::{KeptBody, Outgoing};
pub(crate) use target::{Asked, Base, build};

use crate::egress::{Body, empty};
use crate::error::{Result, invalid};
use crate::live::Live;
use crate::model::Caller;
use crate::open::Broker;
use answer::Answer;

/// A caller's request, as it came in.
pub struct ProxyRequest {
    /// Method.
    pub method: Method,
    /// Path and query, percent-encoded as the caller sent them.
    pub target: PathAndQuery,
    /// Where in `target` the API's own path begins: behind `/proxy`.
    pub tail: usize,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Body,
}

impl ProxyRequest {
    /// A request without headers and body for a path below the API's base URL, with its query: `/v3/contacts?page=2`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for what can't stand in a URL.
    pub fn new(method: Method, path: &str) -> Result<Self> {
        let target = PathAndQuery::try_from(path).map_err(|e| {
            invalid(
                "path",
                format!("it can't stand in a URL: {e}"),
                "begin with a slash, and percent-encode what must be",
            )
        })?;
        Ok(Self { method, target, tail: 0, headers: HeaderMap::new(), body: empty() })
    }

    /// The path below the API's base URL.
    pub(crate) fn path(&self) -> &str {
        self.target.path().get(self.tail..).unwrap_or_default()
    }
}

/// By which way a call reaches a connection's API.
#[derive(Clone, Copy)]
pub(crate) enum Via<'a> {
    /// By the connection itself.
    Connection,
    /// By a data source.
    #[expect(dead_code, reason = "data sources make it")]
    Source(&'a Arc<SourceAccess>),
}

/// A data source as calls use it.
pub(crate) struct SourceAccess {
    /// What paths are appended to, instead of the definition's base URL.
    pub(crate) base: Base,
    /// Sent where the caller's request has no header of the name.
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Sent where the caller's query has no parameter of the name.
    pub(crate) query: keyholder_oauth::Params,
}

/// A call on its way.
pub(crate) struct Call<'a> {
    caller: &'a Arc<Caller>,
    via: Via<'a>,
    request: ProxyRequest,
    body: KeptBody,
    turn: crate::allowance::Turn,
    /// How often it was sent.
    sent: u32,
}

impl Broker {
    /// Calls the connection's API for a caller, and streams the reply back.
    pub async fn proxy(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        request: ProxyRequest,
    ) -> Result<Response<Reply>> {
        let live = self.live(caller, id_or_name).await?;
        self.call_api(caller, live, Via::Connection, request).await
    }

    /// Calls an API for a caller with a connection's tokens.
    pub(crate) async fn call_api(
        &self,
        caller: &Arc<Caller>,
        live: Arc<Live>,
        via: Via<'_>,
        request: ProxyRequest,
    ) -> Result<Response<Reply>> {
        let mut call = caller::call(caller, via, request);
        self.policy(&call, &live)?;
        let mut live = self.fresh(live, None).await?;
        loop {
            let api = self.api_access(&live).await?;
            let target = target::of(&call, api)?;
            let outgoing = credential::place(&mut call, api, target).await?;
            let sent = self.send(&mut call, &live, api, outgoing).await?;
            match self.answer(&mut call, &live, api, sent).await? {
                Answer::Again(renewed) => live = renewed,
                Answer::Passed(response) => return Ok(account::close(call, response)),
            }
        }
    }
}
