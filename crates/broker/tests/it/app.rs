//! The test app: a sandbox on a real socket and a broker on a temporary folder, both on one clock that stands still until a test moves it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use keyholder_broker::clock::{Clock, ManualClock, Rng};
use keyholder_broker::egress::{Egress, Policy};
use keyholder_broker::model::{Caller, Connection, Limits, NewKey, PlainKey, Scope, Status, Values};
use keyholder_broker::points::Points;
use keyholder_broker::store::UsageGroup;
use keyholder_broker::vault::RootKeySource;
use keyholder_broker::{
    AuditFilter, AuditPart, Authorize, Begun, Broker, Completed, Finished, HandedToken, NewConnection, NewIntegration,
    Opened, Page, Result, Settings, TestReport, TestWish, UsageFilter,
};
use keyholder_oauth::{Secret, sha256};
use keyholder_sandbox::{Options, Sandbox};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use url::Url;

pub use crate::database::Database;

/// Where every clock starts: 2026-09-21.
pub const START: i64 = 1_790_000_000_000;
/// Where people reach the broker under test.
pub const PUBLIC_URL: &str = "http://127.0.0.1:8787/";

/// Everything a test needs.
pub struct App {
    pub sandbox: Sandbox,
    pub broker: Broker,
    pub admin: Arc<Caller>,
    pub clock: ManualClock,
    pub folder: Arc<TempDir>,
    pub database: Database,
}

/// A broker after a crash.
pub struct Restarted {
    pub app: App,
    /// Replies that were committed at its start.
    pub recovered: usize,
}

impl App {
    /// A well-behaved sandbox that approves every consent as alice.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// A sandbox with these options; any redirect URI is accepted, and alice approves at once.
    pub async fn with(options: Options) -> Self {
        Self::with_points(options, &ManualClock::starting_at(START), Points::default()).await
    }

    /// As [`Self::start`], where people reach it at another address.
    pub async fn at(public_url: &str) -> Self {
        let public_url = public_url.parse().unwrap();
        Self::set(Options::default(), &ManualClock::starting_at(START), |settings| settings.public_url = public_url)
            .await
    }

    /// As [`Self::with`], with something that happens at the points of a renewal.
    pub async fn with_points(options: Options, clock: &ManualClock, points: Points) -> Self {
        Self::set(options, clock, |settings| settings.points = points).await
    }

    async fn set(options: Options, clock: &ManualClock, set: impl FnOnce(&mut Settings)) -> Self {
        let clock = clock.clone();
        let sandbox = serve_sandbox(options, &clock).await;
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let mut settings = settings(folder.path());
        set(&mut settings);
        let broker = open_with(settings, &clock, 1).await.unwrap().broker;
        let admin = admin(&broker).await;
        Self { sandbox, broker, admin, clock, database: Database::of(folder.path()), folder }
    }

    /// What a crash leaves: a copy of data folder and database as they are now, `changed`, and a new broker on it.
    pub async fn crashed_with(&self, changed: impl FnOnce(&Path)) -> Restarted {
        let copy = Arc::new(tempfile::tempdir().unwrap());
        copy_folder(self.folder.path(), copy.path());
        let database = self.database.copied_to(copy.path());
        changed(copy.path());
        // The copy stands for the same file after the crash; a place that isn't known yet tells no copy from its original.
        database.run("DELETE FROM meta WHERE name = 'home'");
        let opened = open(copy.path(), &self.clock, 2).await.unwrap();
        let (sandbox, clock) = (self.sandbox.clone(), self.clock.clone());
        let app = Self { sandbox, broker: opened.broker, admin: self.admin.clone(), clock, folder: copy, database };
        Restarted { app, recovered: opened.recovered }
    }

    /// A second process on the same database, with a data folder of its own.
    pub async fn sibling(&self) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let settings = Settings { data_dir: folder.path().to_owned(), ..settings(self.folder.path()) };
        if !crate::ON_POSTGRES {
            // The product refuses a second process on an SQLite file; claims must hold against one all the same.
            std::fs::remove_file(self.folder.path().join("keyholder.db.lock")).unwrap();
        }
        let broker = open_with(settings, &self.clock, 3).await.unwrap().broker;
        let (sandbox, clock, database) = (self.sandbox.clone(), self.clock.clone(), self.database.clone());
        Self { sandbox, broker, admin: self.admin.clone(), clock, folder, database }
    }

    pub fn now(&self) -> i64 {
        self.broker.now_ms()
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Makes the database refuse what `trigger` describes, as a full disk would: `BEFORE UPDATE OF token_set ON connections`.
    pub fn refuse(&self, trigger: &str) {
        self.database.refuse(trigger);
    }

    /// The disk has room again.
    pub fn relent(&self) {
        self.database.relent();
    }

    /// One number from the database.
    pub fn count(&self, sql: &str) -> i64 {
        self.database.number(sql)
    }

    /// How many records of this kind the audit has.
    pub async fn recorded(&self, action: &str, outcome: &str) -> usize {
        let some = |text: &str| Some(text.to_owned());
        let filter = AuditFilter { action: some(action), outcome: some(outcome), ..AuditFilter::default() };
        let (mut count, mut after) = (0, None);
        loop {
            let part = AuditPart::Oldest { after };
            let page = self.broker.read_audit(&self.admin, filter.clone(), part, 1000).await.unwrap();
            count += page.rows.len();
            match page.next {
                Some(next) => after = Some(next),
                None => return count,
            }
        }
    }

    /// Returns when what was counted is on disk.
    pub async fn flush_usage(&self) {
        let filter = UsageFilter { from: self.now(), to: self.now(), ..UsageFilter::default() };
        self.broker.usage(&self.admin, filter, UsageGroup::Hour, &Page::first()).await.unwrap();
    }

    /// How many requests with this `grant_type` the sandbox's token endpoint saw.
    pub fn sent(&self, grant: &str) -> u64 {
        self.sandbox.counters().grants.get(grant).copied().unwrap_or(0)
    }

    /// How many requests an endpoint of the sandbox saw.
    pub fn seen(&self, endpoint: &str) -> u64 {
        self.sandbox.counters().endpoints.get(endpoint).copied().unwrap_or(0)
    }

    pub fn fault(&self, fault: &str) {
        self.sandbox.set_fault(fault.parse().unwrap());
    }

    /// What an integration under `oauth2` with the sandbox's endpoints is made of.
    pub fn plain(&self, method: &str) -> NewIntegration {
        let base = self.sandbox.base_url();
        let mut variables = values([
            ("token_url", &format!("{base}/token")),
            ("revocation_url", &format!("{base}/revoke")),
            ("api_base_url", &format!("{base}/api")),
        ]);
        if method == "authorization_code" {
            variables.insert("authorization_url".to_owned(), format!("{base}/authorize"));
        }
        NewIntegration {
            name: method.to_owned(),
            provider: "oauth2".to_owned(),
            method: Some(method.to_owned()),
            client_id: "sandbox-basic".to_owned(),
            client_secret: Some("sandbox-secret".into()),
            scopes: vec!["read".to_owned(), "write".to_owned()],
            variables,
            ..NewIntegration::default()
        }
    }

    /// As [`Self::plain`], by discovery document.
    pub fn oidc(&self, method: &str) -> NewIntegration {
        let base = self.sandbox.base_url();
        let variables = values([("issuer", base), ("api_base_url", &format!("{base}/api"))]);
        NewIntegration { provider: "oidc".to_owned(), variables, ..self.plain(method) }
    }

    pub async fn add_integration(&self, new: NewIntegration) {
        self.broker.add_integration(&self.admin, new).await.unwrap();
    }

    /// A connection of the client credentials grant, authorised.
    pub async fn machine(&self, name: &str) {
        self.add_integration(self.plain("client_credentials")).await;
        self.add_connection(name, "client_credentials").await;
        self.run(name).await.unwrap();
    }

    /// A connection of alice's by the password grant, authorised.
    pub async fn password(&self, name: &str) {
        self.add_integration(self.plain("password")).await;
        self.broker.add_connection(&self.admin, alice(name, "wonderland")).await.unwrap();
        self.run(name).await.unwrap();
    }

    /// A connection of alice's by consent, confirmed.
    pub async fn consented(&self, name: &str) {
        self.add_integration(self.plain("authorization_code")).await;
        self.add_connection(name, "authorization_code").await;
        self.consent(name).await;
    }

    pub async fn add_connection(&self, name: &str, integration: &str) {
        let new =
            NewConnection { name: name.to_owned(), integration: integration.to_owned(), ..NewConnection::default() };
        self.broker.add_connection(&self.admin, new).await.unwrap();
    }

    /// Authorises a connection that needs no person.
    pub async fn run(&self, name: &str) -> Result<Status> {
        match self.broker.authorize(&self.admin, name, None, None).await? {
            Authorize::Done(status) => Ok(status),
            Authorize::Person(_) | Authorize::Device(_) => panic!("{name} needs a person"),
        }
    }

    /// The whole consent of an existing connection, confirmed in the browser.
    pub async fn consent(&self, name: &str) {
        let token = self.invite(name).await;
        let begun = self.leave(&token).await;
        let back = self.decide(&begun.redirect, "allow", "alice").await;
        let finished = self.return_with(&back, &begun).await.unwrap();
        let Finished::Confirm(link) = finished else { panic!("no return URL was given") };
        let confirmed = self.broker.decide(token_of(&link), Some(begun.browser.expose()), true).await.unwrap();
        assert!(matches!(confirmed, Completed::Connected(connected) if connected == name));
    }

    /// The token of a link that authorises a connection.
    pub async fn invite(&self, name: &str) -> String {
        match self.broker.authorize(&self.admin, name, None, None).await.unwrap() {
            Authorize::Person(link) => token_of(&link.url).to_owned(),
            Authorize::Done(_) | Authorize::Device(_) => panic!("{name} leads to no link"),
        }
    }

    /// The person goes off to the provider.
    pub async fn leave(&self, token: &str) -> Begun {
        self.broker.begin_consent(token, None, &Values::new()).await.unwrap()
    }

    /// The person decides at the sandbox; answers where the browser is sent back to.
    pub async fn decide(&self, redirect: &Url, decision: &str, account: &str) -> Url {
        let query = redirect.query().unwrap();
        let request = Request::post("/authorize/decision")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("{query}&decision={decision}&account={account}")))
            .unwrap();
        let response = self.sandbox.router().oneshot(request).await.unwrap();
        let Some(location) = response.headers().get(header::LOCATION).cloned() else {
            let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            panic!("no redirect: {}", String::from_utf8_lossy(&text));
        };
        location.to_str().unwrap().parse().unwrap()
    }

    /// The browser comes back to the callback, with its cookie.
    pub async fn return_with(&self, back: &Url, begun: &Begun) -> Result<Finished> {
        self.broker.finish_consent(integration_of(back), back.query().unwrap(), Some(begun.browser.expose())).await
    }

    pub async fn token(&self, name: &str) -> Result<HandedToken> {
        self.broker.token(&self.admin, name, None).await
    }

    /// A test of a connection.
    pub async fn test(&self, name: &str) -> Result<TestReport> {
        self.broker.test(&self.admin, name, TestWish::default(), &|_| ()).await
    }

    /// A test of the data source `api`.
    pub async fn test_source(&self) -> Result<TestReport> {
        self.broker.test_source(&self.admin, "api", None, TestWish::default(), &|_| ()).await
    }

    /// The access token itself.
    pub async fn secret(&self, name: &str) -> String {
        self.token(name).await.unwrap().access_token.expose().to_owned()
    }

    /// The access token of who waits for one that lives so long, and takes what there is.
    pub async fn waited_for(&self, name: &str, seconds: u64) -> String {
        let min_ttl = Some(Duration::from_secs(seconds));
        self.broker.token(&self.admin, name, min_ttl).await.unwrap().access_token.expose().to_owned()
    }

    pub async fn row(&self, name: &str) -> Connection {
        self.broker.connection(&self.admin, name).await.unwrap().connection
    }

    pub async fn status(&self, name: &str) -> Status {
        self.row(name).await.state.status()
    }

    /// Kinds of a connection's history, in the order of the alphabet: the clock stands still between them.
    pub async fn kinds(&self, name: &str) -> Vec<String> {
        let events = self.broker.history(&self.admin, name, 100).await.unwrap();
        let mut kinds: Vec<_> = events.into_iter().map(|event| event.kind).collect();
        kinds.sort_unstable();
        kinds
    }

    /// A caller with a key of its own.
    pub async fn caller(&self, name: &str, scopes: &[Scope], limits: Limits) -> Arc<Caller> {
        let scopes: BTreeSet<Scope> = scopes.iter().copied().collect();
        let new = NewKey { name: name.to_owned(), scopes, limits, expires_at: None };
        let made = self.broker.create_key(&self.admin, new).await.unwrap();
        self.broker.authenticate(&made.key).await.unwrap()
    }

    /// Whether the sandbox's API takes this access token.
    pub async fn is_accepted(&self, access_token: &str) -> bool {
        let request = Request::get("/api/me").header(header::AUTHORIZATION, format!("Bearer {access_token}"));
        let response = self.sandbox.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        response.status().is_success()
    }

    /// What waits in escrow.
    pub fn escrow(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("escrow")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// A sandbox on a real socket, on the test's clock.
async fn serve_sandbox(options: Options, clock: &ManualClock) -> Sandbox {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { any_redirect: true, ..options }.at(&listener).unwrap();
    let (clock, drawn) = (Clock::Manual(clock.clone()), AtomicU64::new(0));
    let random = move || sha256(&drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let sandbox = Sandbox::new(options, Arc::new(move || clock.now_ms()), Arc::new(random));
    let served = sandbox.clone();
    tokio::spawn(async move { served.serve(listener, std::future::pending()).await });
    sandbox
}

/// A broker on this folder that may call 127.0.0.1.
pub async fn open(folder: &Path, clock: &ManualClock, seed: u64) -> Result<Opened> {
    open_with(settings(folder), clock, seed).await
}

pub async fn open_with(settings: Settings, clock: &ManualClock, seed: u64) -> Result<Opened> {
    let clock = Clock::Manual(clock.clone());
    let egress = Egress::new(clock.clone(), Policy::new("127.0.0.1".parse().unwrap()), None).unwrap();
    Broker::open(settings, clock, Rng::seeded(seed), egress).await
}

pub fn settings(folder: &Path) -> Settings {
    Settings {
        public_url: PUBLIC_URL.parse().unwrap(),
        data_dir: folder.to_owned(),
        database: Database::of(folder).location(),
        root_key: RootKeySource::File(folder.join("root-key")),
        pace: keyholder_broker::Pace::default(),
        retention: keyholder_broker::Retention::default(),
        points: Points::default(),
    }
}

pub async fn admin(broker: &Broker) -> Arc<Caller> {
    let path = broker.ensure_admin_key().await.unwrap();
    let key = std::fs::read_to_string(path).unwrap();
    broker.authenticate(&PlainKey(Secret::new(key.trim()))).await.unwrap()
}

/// A connection of alice's by the password grant.
pub fn alice(name: &str, password: &str) -> NewConnection {
    NewConnection {
        name: name.to_owned(),
        integration: "password".to_owned(),
        username: Some("alice".to_owned()),
        password: Some(Secret::new(password)),
        ..NewConnection::default()
    }
}

pub fn values<const N: usize>(pairs: [(&str, &str); N]) -> Values {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What stands behind `/connect/`.
pub fn token_of(link: &str) -> &str {
    link.strip_prefix(PUBLIC_URL).unwrap().strip_prefix("connect/").unwrap()
}

/// What stands behind `/callback/`.
pub fn integration_of(back: &Url) -> &str {
    back.path().strip_prefix("/callback/").unwrap()
}

pub fn query_value(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// All but SQLite's shared memory, which a start after a crash builds anew.
pub fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&path, &target);
        } else if path.extension().is_none_or(|extension| extension != "db-shm") {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
