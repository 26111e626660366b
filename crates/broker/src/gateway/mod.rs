//! The injecting gateway: an API call with the token put in on the way.
//!
//! A call goes through seven phases, in this order, each in the file of its name:
//!
//! 1. `caller`: who calls, and what the call asks of the gateway itself;
//! 2. `policy`: may this caller send this request with this connection;
//! 3. `target`: where it goes, built from the definition;
//! 4. `credential`: the request as it goes out, cleaned of what ends here, with the tokens in their places;
//! 5. `send`: in its turn, on the record, to the API;
//! 6. `answer`: what the reply means. A 401 renews once, and goes back to the third phase once; so does, as often as the caller allows, what may pass;
//! 7. `account`: what is held and counted until the reply's last byte has gone.
//!
//! What seldom happens (loading, renewal, repetition, a new connection) is a future in a box of its own: it would make the future of each call larger, and each is
//! moved a few times before it is polled. Requests are in boxes for the same reason: each function on the way would have room for one.

mod account;
mod answer;
mod api;
mod caller;
mod credential;
mod policy;
mod send;
mod target;
mod tunnel;
mod wanted;

use std::sync::Arc;

use http::header::{EXPECT, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Response, Version};
use hyper::upgrade::OnUpgrade;
use keyholder_oauth::Secret;

use account::Account;
pub use account::Reply;
pub(crate) use api::ApiAccess;
pub(crate) use caller::Due;
pub(crate) use credential::{KeptBody, Outgoing};
pub(crate) use target::{Asked, Base, build};

use crate::egress::{Body, empty};
use crate::error::{Result, invalid};
use crate::live::Live;
use crate::model::{Caller, SourceId};
use crate::open::Broker;
use crate::source::Rule;
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
    /// The HTTP version in which it came.
    pub version: Version,
    /// The caller's connection, where the request asks to switch its protocol.
    pub upgrade: Option<OnUpgrade>,
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
        let (headers, body, version) = (HeaderMap::new(), empty(), Version::HTTP_11);
        Ok(Self { method, target, tail: 0, headers, body, version, upgrade: None })
    }

    /// Whether the caller waits to be told that the body is wanted (RFC 9110 §10.1.1).
    fn expects_continue(&self) -> bool {
        let is_continue = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        self.version == Version::HTTP_11 && self.headers.get(EXPECT).is_some_and(is_continue)
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
    Source(&'a Arc<SourceAccess>),
}

impl<'a> Via<'a> {
    /// What the call's path is appended to.
    fn base(self, api: &'a ApiAccess) -> &'a Base {
        match self {
            Via::Connection => &api.base,
            Via::Source(source) => &source.base,
        }
    }

    /// Secrets that a data source adds to calls.
    fn secrets(self) -> &'a [Secret] {
        match self {
            Via::Connection => &[],
            Via::Source(source) => &source.secrets,
        }
    }

    /// Whether a data source adds a parameter of this name to each call.
    fn adds_to_query(self, name: &str) -> bool {
        matches!(self, Via::Source(source) if source.query.contains(name))
    }

    /// The data source, where it is by one.
    fn source(self) -> Option<&'a SourceId> {
        match self {
            Via::Connection => None,
            Via::Source(source) => Some(&source.id),
        }
    }
}

/// A data source as calls use it: its placeholders filled for one connection.
pub(crate) struct SourceAccess {
    /// Its id.
    pub(crate) id: SourceId,
    /// Raised with each change of it.
    pub(crate) generation: i64,
    /// Its name.
    pub(crate) name: String,
    /// What paths are appended to, instead of the definition's base URL; on a host that the definition allows.
    pub(crate) base: Base,
    /// The base URL's path below the connection's own; `None` where it lies beside that.
    pub(crate) below: Option<String>,
    /// Sent where the caller's request has no header of the name.
    pub(crate) headers: Vec<(http::HeaderName, HeaderValue)>,
    /// Sent where the caller's query has no parameter of the name.
    pub(crate) query: keyholder_oauth::Params,
    /// The values of its secret variables that are long enough to be told from other text; they don't come back in a reply's headers.
    pub(crate) secrets: Vec<Secret>,
    /// What may be called; empty: everything.
    pub(crate) rules: Vec<Rule>,
}

/// A call on its way.
pub(crate) struct Call<'a> {
    caller: &'a Arc<Caller>,
    via: Via<'a>,
    request: Box<ProxyRequest>,
    body: KeptBody,
    account: Account,
    due: Option<Due>,
    /// How often it may be sent again if it fails in a way that may pass.
    retries: u32,
    /// How often it was sent again for that.
    tried: u32,
    /// A 401 has renewed its token.
    is_renewed: bool,
    is_recorded: bool,
}

impl Broker {
    /// Calls the connection's API for a caller, and streams the reply back.
    pub async fn proxy(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        request: impl Into<Box<ProxyRequest>>,
    ) -> Result<Response<Reply>> {
        let request = request.into();
        let due = self.due(&request)?;
        let call = async {
            let live = self.live(caller, id_or_name).await?;
            self.call_api(caller, live, Via::Connection, request, due).await
        };
        match due {
            None => call.await,
            Some(due) => self.by(due, call).await,
        }
    }

    /// Calls an API for a caller with a connection's tokens. Whoever calls this gives it up when it is due ([`Self::by`]).
    pub(crate) async fn call_api(
        &self,
        caller: &Arc<Caller>,
        live: Arc<Live>,
        via: Via<'_>,
        request: Box<ProxyRequest>,
        due: Option<Due>,
    ) -> Result<Response<Reply>> {
        let mut call = self.caller(caller, via, request, due)?;
        self.policy(&call, &live)?;
        let mut live = self.fresh_for_call(live).await?;
        loop {
            let api = self.api_access(&live).await?;
            let target = target::of(&call, api)?;
            let outgoing = self.credential(&mut call, api, target).await?;
            let sent = self.send(&mut call, &live, api, outgoing).await;
            match self.answer(&mut call, &live, api, sent).await? {
                Answer::Again(fresh) => live = fresh,
                Answer::Passed(response) => return Ok(self.account(call, response)),
            }
        }
    }
}
