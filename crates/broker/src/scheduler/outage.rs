//! A provider that is gone for six hours, in which all tokens fall due, and comes back.
#![allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::StatusCode;
use keyholder_oauth::{Secret, TokenSet};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Rounds;
use crate::clock::{Clock, ManualClock, Rng, millis};
use crate::egress::{Egress, Policy};
use crate::endpoints::Pace;
use crate::model::{PlainKey, Status, Tenant};
use crate::open::{Broker, Settings};
use crate::points::Points;
use crate::store::{CommitTokens, Filter, Location};
use crate::vault::RootKeySource;
use crate::{NewConnection, NewIntegration};

const START: i64 = 1_790_000_000_000;
const HOUR: i64 = 3_600_000;
/// The provider takes this long for an answer.
const ANSWER: Duration = Duration::from_millis(200);

#[tokio::test]
async fn six_hours_without_the_provider_cost_no_connection_and_its_return_is_no_flood() {
    outage(600).await;
}

#[tokio::test]
#[ignore = "takes minutes; `make scale`"]
async fn six_hours_without_the_provider_with_100_000_connections() {
    outage(100_000).await;
}

async fn outage(connections: usize) {
    let mut world = World::start().await;
    world.add_connections(connections).await;

    world.provider.is_down.store(true, Ordering::Relaxed);
    world.run_until(START + 3 * HOUR).await;
    let answered = world.provider.take();
    world.serving.abort();
    assert!(world.serving.is_finished() || (&mut world.serving).await.is_err());
    world.run_until(START + 6 * HOUR).await;

    let by_state = world.by_state().await;
    let sent = world.sent().await;
    assert_eq!(by_state.iter().map(|(_, count)| count).sum::<i64>(), i64::try_from(connections).unwrap());
    assert!(by_state.iter().all(|(state, _)| state == "connected" || state == "failing"), "{by_state:?}");
    // The first five open the circuit; then one probe each half to whole minute.
    assert!((360..760).contains(&sent), "{sent} requests in six hours");
    let three_hours = answered.len();
    assert!((180..380).contains(&three_hours), "{three_hours} requests in three hours");

    world.provider.is_down.store(false, Ordering::Relaxed);
    world.serving = world.provider.serve(world.address).await;
    let back = world.broker.now_ms();
    while world.renewed().await < connections {
        world.run_until(world.broker.now_ms() + 10_000).await;
    }
    let arrived = world.provider.take();
    assert_eq!(arrived.len(), connections, "each once");
    let most_at_once = arrived.iter().map(|one| one.at_once).max().unwrap();
    assert!(most_at_once <= 8, "{most_at_once} at once");
    assert_eq!(arrived[0].at_once, 1, "the probe is alone");
    let pace = Pace::default();
    let most = |window: i64| {
        let within = |from: usize| arrived[from..].iter().take_while(|one| one.at < arrived[from].at + window).count();
        (0..arrived.len()).map(within).max().unwrap()
    };
    // Twenty a second, a burst of two seconds' worth, and what was let go but arrived late.
    let allowed = 10 * pace.per_second as usize + 2 * pace.per_second as usize + pace.at_once;
    assert!(most(10_000) <= allowed, "{} in ten seconds", most(10_000));
    assert_eq!(world.by_state().await, [("connected".to_owned(), i64::try_from(connections).unwrap())]);
    let took = (arrived.last().unwrap().at - back) / 1000;
    println!(
        "{connections} connections, 6 h outage: {sent} requests while it lasted, none dead; after it all renewed in {took} s, at most {most_at_once} at once, {} in any second, {} in any 10 s",
        most(1000),
        most(10_000)
    );
}

/// A broker on a clock that moves when its scheduler sleeps, and a provider on the same clock.
struct World {
    broker: Broker,
    manual: ManualClock,
    rounds: Rounds,
    provider: Arc<Provider>,
    address: SocketAddr,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

struct Provider {
    clock: Clock,
    is_down: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    at_once: usize,
    arrived: Vec<Arrived>,
}

#[derive(Clone, Copy)]
struct Arrived {
    at: i64,
    at_once: usize,
}

impl Provider {
    /// Answers on this address until the task is aborted.
    async fn serve(self: &Arc<Self>, address: SocketAddr) -> JoinHandle<()> {
        let listener = TcpListener::bind(address).await.unwrap();
        self.serve_on(listener)
    }

    fn serve_on(self: &Arc<Self>, listener: TcpListener) -> JoinHandle<()> {
        let provider = Arc::clone(self);
        let router = axum::Router::new().fallback(move || Arc::clone(&provider).answer());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }

    async fn answer(self: Arc<Self>) -> Response {
        let nth = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.at_once += 1;
            let (at, at_once) = (self.clock.now_ms(), seen.at_once);
            seen.arrived.push(Arrived { at, at_once });
            seen.arrived.len()
        };
        self.clock.sleep(ANSWER).await;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).at_once -= 1;
        if self.is_down.load(Ordering::Relaxed) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let body =
            serde_json::json!({"access_token": "at", "refresh_token": format!("rt-{nth}"), "expires_in": 86_400});
        (StatusCode::OK, [("content-type", "application/json")], body.to_string()).into_response()
    }

    fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner).arrived)
    }
}

impl World {
    async fn start() -> Self {
        let manual = ManualClock::starting_at(START);
        let clock = Clock::Manual(manual.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider =
            Arc::new(Provider { clock: clock.clone(), is_down: AtomicBool::new(false), seen: Mutex::default() });
        let serving = provider.serve_on(listener);
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            public_url: "http://127.0.0.1:8787/".parse().unwrap(),
            data_dir: folder.path().to_owned(),
            database: Location::Sqlite(folder.path().join("keyholder.db")),
            root_key: RootKeySource::File(folder.path().join("root-key")),
            pace: Pace::default(),
            retention: crate::open::Retention::default(),
            points: Points::default(),
        };
        let egress = Egress::new(clock.clone(), Policy::new("127.0.0.1".parse().unwrap()), None).unwrap();
        let broker = Broker::open(settings, clock, Rng::seeded(1), egress).await.unwrap().broker;
        Self { broker, manual, rounds: Rounds::default(), provider, address, serving, _folder: folder }
    }

    /// Connected an hour ago to half an hour from now; all due within the six hours. Sealed and stored in a few transactions.
    async fn add_connections(&self, connections: usize) {
        let broker = &self.broker;
        let key = std::fs::read_to_string(broker.ensure_admin_key().await.unwrap()).unwrap();
        let admin = broker.authenticate(&PlainKey(Secret::new(key.trim()))).await.unwrap();
        let token_url = format!("http://{}/token", self.address);
        let variables =
            [("token_url", token_url.as_str()), ("authorization_url", "https://provider.example/authorize")];
        let new = NewIntegration {
            name: "crm".to_owned(),
            provider: "oauth2".to_owned(),
            method: Some("authorization_code".to_owned()),
            client_id: "id".to_owned(),
            client_secret: Some("secret".into()),
            variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            ..NewIntegration::default()
        };
        let integration = broker.add_integration(&admin, new).await.unwrap();
        let definition = broker.definition_of(&integration).await.unwrap();
        for chunk in (0..connections).collect::<Vec<_>>().chunks(5_000) {
            let rows: Vec<_> = chunk
                .iter()
                .map(|n| {
                    let name = format!("crm-{n}");
                    let new = NewConnection { name, integration: "crm".to_owned(), ..NewConnection::default() };
                    let row = broker.draft_connection(&definition, &integration, new).unwrap();
                    let due_in = millis(Duration::from_secs(6 * 3600)) / i64::try_from(connections).unwrap();
                    let due_at = START + i64::try_from(*n).unwrap() * due_in;
                    let tokens = tokens(due_at + 15 * 60_000);
                    let sealed = broker.seal_tokens(&row.tenant, row.id.as_str(), 1, &tokens).unwrap();
                    let commit = CommitTokens {
                        sealed,
                        expires_at: tokens.expires_at,
                        scope: None,
                        account: None,
                        due_at: Some(due_at),
                        dies_at: None,
                        endpoint: token_url.clone(),
                        renewed_at: START,
                        now: START,
                    };
                    (row, commit)
                })
                .collect();
            let stored = broker.store.write(move |tx| {
                rows.iter().try_for_each(|(row, commit)| {
                    tx.add_connection(row)?;
                    tx.commit_tokens(&row.id, 0, commit).map(drop)
                })
            });
            stored.await.unwrap();
        }
    }

    /// What [`Broker::run_scheduler`] does, but here the clock goes on as far as it would sleep; in small steps while renewals are under way.
    async fn run_until(&mut self, end: i64) {
        let mut steps = 0_u32;
        while self.broker.now_ms() < end {
            let mut wake = self.broker.renew_due(&mut self.rounds).await.unwrap().min(end);
            while self.broker.now_ms() < wake {
                let left = Duration::from_millis((wake - self.broker.now_ms()).unsigned_abs());
                let is_busy = self.rounds.handed_out.count() > 0;
                let step = if self.provider.is_down.load(Ordering::Relaxed) { 20 } else { 5 };
                self.manual.advance(if is_busy { left.min(Duration::from_millis(step)) } else { left });
                steps += 1;
                // Everybody else's turn; now and then behind those who write.
                if steps.is_multiple_of(20) && is_busy {
                    self.broker.store.write(|tx| tx.put_meta("turn", "")).await.unwrap();
                } else {
                    self.broker.store.read(|tx| tx.meta("turn")).await.unwrap();
                }
                if self.broker.due.notified().now_or_never().is_some() {
                    wake = wake.min(self.broker.now_ms() + millis(super::GAP));
                }
            }
        }
    }

    async fn by_state(&self) -> Vec<(String, i64)> {
        self.broker.store.read(|tx| tx.count_by_state(&Tenant::default_tenant())).await.unwrap()
    }

    /// How many requests failed, by what the rows say.
    async fn sent(&self) -> i64 {
        let filter = Filter { state: Some(Status::Failing), ..Filter::default() };
        let rows = self.broker.store.read(move |tx| tx.connections(&Tenant::default_tenant(), &filter, "", 10_000));
        rows.await.unwrap().iter().map(|row| row.failures.transient).sum()
    }

    async fn renewed(&self) -> usize {
        let seen = self.provider.seen.lock().unwrap_or_else(PoisonError::into_inner).arrived.len();
        if self.rounds.handed_out.count() == 0 { seen } else { 0 }
    }
}

fn tokens(expires_at: i64) -> TokenSet {
    TokenSet {
        access_token: Secret::new("at-0"),
        refresh_token: Some(Secret::new("rt-0")),
        id_token: None,
        token_type: "Bearer".to_owned(),
        expires_at: Some(expires_at),
        refresh_expires_at: None,
        scope: None,
        secondary: Default::default(),
        extra: serde_json::Map::new(),
    }
}
