//! A WebSocket: once the API has agreed, bytes go both ways until one side ends, or what allowed it does.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::{self, HeaderValue};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy, split};

use super::account::Account;
use super::{Call, Due, Via};
use crate::clock::millis;
use crate::egress::Body;
use crate::error::{Error, Result};
use crate::live::Live;
use crate::model::{Caller, ConnectionId, SourceId, Status};
use crate::open::Broker;

/// When one side has ended, the other gets this long for what it still has to say.
const FAREWELL: Duration = Duration::from_secs(5);
/// What is said to end is looked at at once; what nobody says (a key's expiry, a lost announcement) after this.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What a tunnel hangs on, and holds.
struct Tunnel {
    caller: Arc<Caller>,
    connection: ConnectionId,
    /// The data source by which it was opened, as it was then.
    source: Option<(SourceId, i64)>,
    due: Option<Due>,
    account: Account,
}

impl Broker {
    /// Joins the caller's connection with the API's, which have both agreed to switch.
    pub(super) fn tunnel(&self, call: &mut Call<'_>, live: &Live, response: &mut Response<Body>) -> Result<()> {
        let ours = response.extensions_mut().remove::<OnUpgrade>();
        let (Some(callers), Some(apis)) = (call.request.upgrade.take(), ours) else {
            return Err(Error::Internal("a protocol was switched without a connection to switch"));
        };
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let mut tunnel = Tunnel {
            caller: Arc::clone(call.caller),
            connection: live.id.clone(),
            source: match call.via {
                Via::Connection => None,
                Via::Source(source) => Some((source.id.clone(), source.generation)),
            },
            due: call.due,
            account: std::mem::take(&mut call.account),
        };
        tunnel.account.answered(response.status());
        let broker = self.clone();
        tokio::spawn(async move {
            // Who goes away in between has nothing to join.
            let Ok((callers, apis)) = tokio::try_join!(callers, apis) else { return };
            tokio::select! {
                () = join(&broker, callers, apis) => {}
                () = broker.until_it_ends(&tunnel) => {}
            }
        });
        Ok(())
    }

    /// Returns when the key or the connection has ended, the data source is another, or the call is due.
    async fn until_it_ends(&self, tunnel: &Tunnel) {
        let (mut keys, mut connections) = (self.keys.forgotten(), self.live.forgotten());
        let mut sources = self.sources.forgotten();
        loop {
            let now = self.now_ms();
            let ends = [tunnel.due.map(|due| due.at), tunnel.caller.expires_at].into_iter().flatten().min();
            let left = ends.map_or(i64::MAX, |at| at - now);
            if left <= 0 || !self.may_go_on(tunnel).await {
                return;
            }
            let wait = Duration::from_millis(left.min(millis(LOOK_EVERY)).unsigned_abs());
            let told = async {
                tokio::select! { _ = keys.changed() => {}, _ = connections.changed() => {}, _ = sources.changed() => {} }
            };
            let _ = self.clock.timeout(wait, told).await;
        }
    }

    /// Whether key, connection and data source are still what they were. While the database is away, they are.
    async fn may_go_on(&self, tunnel: &Tunnel) -> bool {
        let (tenant, key, connection) =
            (tunnel.caller.tenant.clone(), tunnel.caller.key.clone(), tunnel.connection.clone());
        let opened_by = tunnel.source.clone();
        let read = self.store.read(move |tx| {
            let source_is_same = match opened_by {
                None => true,
                Some((id, generation)) => {
                    tx.source(&tenant, id.as_str())?.is_some_and(|(source, _)| source.generation == generation)
                }
            };
            Ok((tx.key(&tenant, key.as_str())?, tx.connection_by_id(&connection)?, source_is_same))
        });
        let Ok((key, connection, source_is_same)) = read.await else { return true };
        let is_connected = |status| matches!(status, Status::Connected | Status::Failing | Status::Reconnect);
        source_is_same
            && key.is_some_and(|key| key.revoked_at.is_none())
            && connection.is_some_and(|it| is_connected(it.state.status()))
    }
}

/// Copies both ways until both sides have ended, or one has and the other's farewell is over.
async fn join(broker: &Broker, callers: Upgraded, apis: Upgraded) {
    let (mut from_caller, mut to_caller) = split(TokioIo::new(callers));
    let (mut from_api, mut to_api) = split(TokioIo::new(apis));
    let up = async {
        let _ = copy(&mut from_caller, &mut to_api).await;
        let _ = to_api.shutdown().await;
    };
    let down = async {
        let _ = copy(&mut from_api, &mut to_caller).await;
        let _ = to_caller.shutdown().await;
    };
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        () = &mut up => drop(broker.clock.timeout(FAREWELL, down).await),
        () = &mut down => drop(broker.clock.timeout(FAREWELL, up).await),
    }
}
