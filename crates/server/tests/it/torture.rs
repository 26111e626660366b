//! `kill -9` on the real binary in the middle of renewals, many times over, at a provider that ends a grant whose spent refresh token comes again.
//!
//! A batch is a new installation with some hundred connections. Each of its lives starts the binary, asks for a few renewals at once, and kills it: at a named
//! point of a renewal, at some job of its store, at a random moment after the provider saw a request or answered it. Nobody waits out a dead process's claim: a
//! connection whose renewal was cut is left alone until the batch ends. Then the binary must renew all others at once; and a server whose clock is
//! ahead, in the test's own process, must leave the cut ones alone as long as their access tokens are good, and renew them afterwards, but for those
//! whose newest refresh token died with a process in the one unavoidable window: between the provider's answer and the write to escrow.
//! These it finds dead once, says so, and works again after a new consent.
//!
//! The moments are drawn, not waited for: a process is killed at them whatever it does.
//!
//! Whether a reply was in that window is known from outside: the provider's book says what was issued, and the kernel which replies were given their names in
//! escrow. So a token that is lost anywhere else is found, wherever the fault is.

mod eyes;
mod figures;

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use axum::http::Request;
use http_body_util::BodyExt;
use keyholder_broker::clock::{Clock, ManualClock, Rng};
use keyholder_broker::store::Location;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::eyes::Eyes;
use self::figures::Figures;
use crate::app::{Caller, config_of, full, serve, wire};
use crate::person::Person;
use crate::postgres;
use crate::process::keyholder;
use crate::watched::{Delay, LIFE, Watched};

/// Token endpoints; a process asks each at most 40 times in its first two seconds.
const ENDPOINTS: usize = 8;
/// Connections of a batch.
const CONNECTIONS: u64 = 240;
/// A batch ends when fewer than these are left.
const ENOUGH: usize = 32;
/// Renewals at once in one life.
const AT_ONCE: u64 = 8;
/// A random moment lies within so many microseconds.
const MOMENT: u64 = 8_000;

/// The points of a renewal that each is reached once; with the number of the renewal that stops there.
const POINTS: [&str; 9] = [
    "claimed",
    "replied",
    "escrow.write",
    "escrow.rename",
    "escrow.sync",
    "escrowed",
    "committed",
    "escrow.clear",
    "cleared",
];

/// When a process is killed.
pub enum Kill {
    /// When somebody reaches this point for the nth time, or when all is done before.
    At(&'static str, u64),
    /// So long after the provider saw the nth request.
    AfterRequest(u64, Duration),
    /// So long after the provider answered the nth.
    AfterReply(u64, Duration),
}

/// Which database.
#[derive(Clone, Copy, Debug)]
enum Engine {
    Sqlite,
    Postgres,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_it_loses_no_token_but_in_the_window() {
    println!("{}", run(Engine::Sqlite, 26, 128, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_on_postgres_it_loses_no_token_but_in_the_window() {
    println!("{}", run(Engine::Postgres, 26, 128, 1).await);
}

/// `make torture KILLS=2000`: the same for long.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as KILLS says"]
async fn killed_many_times() {
    let number = |name: &str, default| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let engine = match std::env::var("ENGINE").as_deref() {
        Ok("postgres") => Engine::Postgres,
        Ok("sqlite") | Err(_) => Engine::Sqlite,
        Ok(other) => panic!("ENGINE={other}: write sqlite or postgres"),
    };
    println!("{}", run(engine, number("KILLS", 2000), CONNECTIONS, number("SEED", 1)).await);
}

/// Answers its figures.
async fn run(engine: Engine, kills: u64, connections: u64, seed: u64) -> String {
    let figures = torture(engine, kills, connections, seed).await;
    assert!(figures.wrongs.is_empty(), "{engine:?}, seed {seed}\n{figures}");
    format!("{engine:?}, seed {seed}\n{figures}")
}

async fn torture(engine: Engine, kills: u64, connections: u64, seed: u64) -> Figures {
    let rng = Rng::seeded(seed);
    let mut figures = Figures::default();
    while figures.kills() < kills {
        let mut batch = Batch::prepare(engine, &rng, connections).await;
        while figures.kills() < kills && batch.connections.iter().filter(|it| it.cut.is_none()).count() >= ENOUGH {
            let at_once = 1 + below(&rng, AT_ONCE);
            let kill = choose(&rng, figures.kills(), at_once);
            batch.life(&rng, &kill, at_once, &mut figures).await;
        }
        batch.end(&mut figures).await;
    }
    figures
}

/// Each kind in turn, so that a short run has them all.
fn choose(rng: &Rng, number: u64, at_once: u64) -> Kill {
    let nth = 1 + below(rng, at_once);
    let moment = Duration::from_micros(below(rng, MOMENT));
    match usize::try_from(number).unwrap() % (POINTS.len() + 4) {
        0 => Kill::At("store.read", 1 + below(rng, 10 + 5 * at_once)),
        1 => Kill::At("store.write", 1 + below(rng, 5 + 5 * at_once)),
        2 => Kill::AfterRequest(nth, moment),
        3 => Kill::AfterReply(nth, moment),
        point => Kill::At(POINTS[point - 4], nth),
    }
}

fn below(rng: &Rng, bound: u64) -> u64 {
    u64::from_be_bytes(rng.bytes()) % bound
}

/// Half of the replies leave at once.
fn delays(rng: &Rng) -> Delay {
    let after = below(rng, 2) * below(rng, MOMENT);
    Delay { before: Duration::from_micros(below(rng, 2_000)), after: Duration::from_micros(after) }
}

/// An installation, its provider and its connections.
struct Batch {
    folder: TempDir,
    /// Its URL; `None`: a file in the folder.
    database: Option<String>,
    provider: Watched,
    eyes: Eyes,
    key: String,
    connections: Vec<Connection>,
    /// The replies that have come into escrow.
    set_aside: HashSet<String>,
}

struct Connection {
    id: String,
    /// Its grant in the provider's book.
    grant: usize,
    /// A process died in the middle of its renewal, and left no reply in escrow; the newest token set before that.
    cut: Option<usize>,
}

/// A process.
pub struct Process {
    child: Child,
    pub url: oneshot::Receiver<String>,
}

impl Process {
    pub fn start(folder: &Path, database: Option<&str>, stop_at: Option<&Kill>) -> Self {
        let mut command = keyholder(folder);
        command.envs(database.map(|url| ("KEYHOLDER_DATABASE_URL", url)));
        command.env("KEYHOLDER_LOG", "warn,keyholder_broker::renew=debug").args(["serve", "--listen", "127.0.0.1:0"]);
        if let Some(Kill::At(point, nth)) = stop_at {
            command.env("KEYHOLDER_STOP_AT", format!("{point}:{nth}"));
        }
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (tell, url) = oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
            let url = lines.find_map(|line| {
                let line = line.unwrap();
                Some(line[line.find("http://")?..].split_whitespace().next().unwrap().to_owned())
            });
            url.map(|url| tell.send(url));
            // What it says afterwards must have somewhere to go.
            lines.for_each(drop);
        });
        Self { child, url }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Batch {
    /// A new installation; a person has consented to every connection.
    async fn prepare(engine: Engine, rng: &Rng, connections: u64) -> Self {
        let provider = Watched::start(ENDPOINTS, below(rng, u64::MAX), delays, false).await;
        let folder = tempfile::tempdir().unwrap();
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(postgres::of_folder(folder.path())),
        };
        let mut process = Process::start(folder.path(), database.as_deref(), None);
        let url = (&mut process.url).await.unwrap();
        let key = std::fs::read_to_string(folder.path().join("admin-key")).unwrap().trim().to_owned();
        let admin = Caller::of(&url, Some(key.clone()));
        provider.integrate(&admin).await;
        let connections = futures_util::future::join_all((0..connections).map(async |number| {
            let integration = format!("endpoint-{}", number % ENDPOINTS as u64);
            let body = json!({"name": format!("c{number}"), "integration": integration});
            let id = admin.post("/v1/connections", body).await.ok(201)["id"].as_str().unwrap().to_owned();
            let grant = consent(&admin, &provider, &id).await;
            Connection { id, grant, cut: None }
        }))
        .await;
        process.kill();
        let eyes = Eyes::on(folder.path());
        Self { folder, database, provider, eyes, key, connections, set_aside: HashSet::new() }
    }

    /// One life of the binary, and its end.
    async fn life(&mut self, rng: &Rng, kill: &Kill, at_once: u64, figures: &mut Figures) {
        let before = self.provider.seen();
        let sets: Vec<_> = self.connections.iter().map(|it| self.provider.book().newest(it.grant)).collect();
        let mut process = Process::start(self.folder.path(), self.database.as_deref(), Some(kill));
        let mut renewals = JoinSet::new();
        let mut asked = Vec::new();
        let mut done_before = false;
        let started = tokio::select! {
            url = &mut process.url => Some(url.expect("it ends before it listens")),
            () = self.eyes.stopped() => None,
        };
        let mut results = Vec::new();
        if let Some(url) = started {
            let all = self.connections.len();
            let from = usize::try_from(below(rng, all as u64)).unwrap();
            let sound = (0..all).map(|at| (from + at) % all).filter(|at| self.connections[*at].cut.is_none());
            asked.extend(sound.take(usize::try_from(at_once).unwrap()));
            for at in &asked {
                let (at, caller) = (*at, Caller::of(&url, Some(self.key.clone())));
                let path = format!("/v1/connections/{}/refresh", self.connections[at].id);
                renewals.spawn(async move { (at, try_post(&caller, &path).await) });
            }
            let all_done = async {
                while let Some(result) = renewals.join_next().await {
                    results.push(result.unwrap());
                }
            };
            let moment = async {
                let after = match kill {
                    Kill::At(..) => return self.eyes.stopped().await,
                    Kill::AfterRequest(nth, after) => {
                        self.provider.until(|seen| seen.arrived >= before.arrived + nth).await;
                        after
                    }
                    Kill::AfterReply(nth, after) => {
                        self.provider.until(|seen| seen.answered >= before.answered + nth).await;
                        after
                    }
                };
                Clock::System.sleep(*after).await;
            };
            tokio::select! {
                biased;
                () = moment => {}
                () = all_done => done_before = true,
            }
        }
        // The others go on while one stands still; they are met at any point.
        if matches!(kill, Kill::At(..)) && !done_before {
            Clock::System.sleep(Duration::from_micros(below(rng, 2_000))).await;
        }
        let killed = Instant::now();
        process.kill();
        while let Some(result) = renewals.join_next().await {
            results.push(result.unwrap());
        }
        self.provider.idle().await;
        let named = self.replies_set_aside().await;
        let mut seen = figures.kill(kill.name(), done_before);
        for (at, result) in results {
            let connection = &mut self.connections[at];
            let set_aside = named.iter().filter(|name| name.starts_with(&connection.id)).count();
            let mut book = self.provider.book();
            let issued = book.newest(connection.grant) - sets[at];
            match &result {
                Some((200, _)) => {}
                Some((status, body)) => figures.wrongs.push(format!("a sound connection: {status} {body}")),
                None => {
                    seen.in_flight += 1;
                    connection.cut = (set_aside == 0).then_some(sets[at]);
                }
            }
            match (issued, set_aside, &result) {
                (0, 0, None) => seen.unsent += 1,
                (1, 0, None) => {
                    match book.grants[connection.grant].left {
                        Some(left) if left < killed => seen.lost += 1,
                        _ => seen.lost_on_the_way += 1,
                    }
                    book.grants[connection.grant].lost = true;
                }
                (1, 1, None) => seen.durable += 1,
                (1, 1, Some(_)) => {}
                other => figures.wrongs.push(format!("{}: issued, in escrow, answer: {other:?}", kill.name())),
            }
        }
        figures.add(seen);
    }

    /// The replies that came into escrow in this life, without their endings. One that was written whole, but not named, is given its name by the next process.
    async fn replies_set_aside(&mut self) -> Vec<String> {
        let mut names = self.eyes.replies_named().await;
        for entry in std::fs::read_dir(self.folder.path().join("escrow")).unwrap() {
            let entry = entry.unwrap();
            // It is written by one call, so it is empty or whole.
            if entry.metadata().unwrap().len() > 0 {
                names.push(entry.file_name().into_string().unwrap());
            }
        }
        let stems = names.iter().filter_map(|name| Some(name.rsplit_once('.')?.0.to_owned()));
        stems.filter(|stem| self.set_aside.insert(stem.clone())).collect()
    }

    /// Every connection works again, or is known to be lost.
    async fn end(mut self, figures: &mut Figures) {
        self.with_the_binary(figures).await;
        self.came_late(figures).await;
        self.after_the_claims(figures).await;
        let book = self.provider.book();
        figures.wrongs.extend(book.wrongs());
        if book.most_at_once > 1 {
            figures.wrongs.push(format!("{} requests with one refresh token at once", book.most_at_once));
        }
        let counted = self.provider.sandbox.counters().reuse_detections;
        let refused: u64 = book.grants.iter().map(|grant| grant.refused).sum();
        if counted != refused {
            figures.wrongs.push(format!("{refused} refusals, but {counted} reuses"));
        }
        figures.reuses_when_dead += refused;
        figures.read_log(&std::fs::read_to_string(self.folder.path().join("log")).unwrap());
    }

    /// A request that a dead process had sent may have been read by the provider when the life had been judged already.
    async fn came_late(&self, figures: &mut Figures) {
        self.provider.idle().await;
        let mut book = self.provider.book();
        for connection in &self.connections {
            let issued = connection.cut.map_or(0, |set| book.newest(connection.grant) - set);
            if issued == 1 && !book.grants[connection.grant].lost {
                book.grants[connection.grant].lost = true;
                figures.late += 1;
            }
        }
    }

    /// The binary starts once more: what waited in escrow is in place, and what was not cut is renewed at once.
    async fn with_the_binary(&mut self, figures: &mut Figures) {
        let mut process = Process::start(self.folder.path(), self.database.as_deref(), None);
        let url = (&mut process.url).await.unwrap();
        let admin = Caller::of(&url, Some(self.key.clone()));
        if std::fs::read_dir(self.folder.path().join("escrow")).unwrap().count() > 0 {
            figures.wrongs.push("replies are left in escrow after a start".to_owned());
        }
        futures_util::future::join_all(self.connections.iter().filter(|it| it.cut.is_none()).map(async |connection| {
            admin.post(&format!("/v1/connections/{}/refresh", connection.id), json!({})).await.ok(200);
        }))
        .await;
        for connection in &self.connections {
            let history = admin.get(&format!("/v1/connections/{}/events?limit=200", connection.id)).await.ok(200);
            let events = history["items"].as_array().unwrap();
            figures.recovered += events.iter().filter(|event| event["kind"] == "recovered").count() as u64;
        }
        process.kill();
    }

    /// The clock is set ahead, so that the claims of the dead are over: first while the access tokens are good, then when they have expired.
    async fn after_the_claims(&mut self, figures: &mut Figures) {
        let ahead = Duration::from_secs(600);
        self.provider.set_ahead(ahead);
        let clock = ManualClock::starting_at(self.provider.now_ms());
        let ticking = clock.clone();
        let ticks = tokio::spawn(async move {
            loop {
                Clock::System.sleep(Duration::from_millis(20)).await;
                ticking.advance(Duration::from_millis(20));
            }
        });
        let mut config = config_of(self.folder.path());
        if let Some(url) = &self.database {
            config.database = Location::from_url(url, None).unwrap();
        }
        let (url, key) = serve(config, Clock::Manual(clock.clone())).await;
        let admin = Caller::of(&url, Some(key));
        let cut: Vec<_> = self.connections.iter().filter(|it| it.cut.is_some()).collect();

        let is_lost = |connection: &Connection| self.provider.book().grants[connection.grant].lost;
        let requests = |grant: usize| self.provider.book().grants[grant].requests;
        let token = async |connection: &Connection| {
            admin.get(&format!("/v1/connections/{}/token?min_ttl=86400", connection.id)).await
        };
        futures_util::future::join_all(cut.iter().map(async |connection| {
            let lost = is_lost(connection);
            let before = requests(connection.grant);
            let answer = token(connection).await.ok(200);
            assert_eq!(self.provider.book().grant_of(answer["access_token"].as_str().unwrap()), connection.grant);
            if lost {
                assert_eq!(requests(connection.grant), before, "sent although the access token is good");
            }
        }))
        .await;

        self.provider.set_ahead(ahead + LIFE);
        clock.advance(LIFE);
        let dead = futures_util::future::join_all(cut.iter().map(async |connection| {
            let lost = is_lost(connection);
            let answer = token(connection).await;
            if lost {
                answer.problem(409, "not_connected");
                assert_eq!(self.provider.book().grants[connection.grant].refused, 1);
            } else {
                answer.ok(200);
            }
            lost.then_some(*connection)
        }))
        .await;
        for connection in dead.into_iter().flatten() {
            let shown = admin.get(&format!("/v1/connections/{}", connection.id)).await.ok(200);
            assert_eq!(shown["state"], "reconnect", "{shown}");
            consent(&admin, &self.provider, &connection.id).await;
            admin.post(&format!("/v1/connections/{}/refresh", connection.id), json!({})).await.ok(200);
            figures.consented_again += 1;
        }
        ticks.abort();
    }
}

impl Kill {
    fn name(&self) -> &'static str {
        match self {
            Kill::At(point, _) => point,
            Kill::AfterRequest(..) => "a moment after a request",
            Kill::AfterReply(..) => "a moment after a reply",
        }
    }
}

/// A person consents, and confirms that the account is theirs; answers the number of the grant.
async fn consent(admin: &Caller, provider: &Watched, id: &str) -> usize {
    be_authorised(admin, id).await;
    let token = admin.get(&format!("/v1/connections/{id}/token")).await.ok(200);
    provider.book().grant_of(token["access_token"].as_str().unwrap())
}

/// A person consents, and confirms that the account is theirs.
pub async fn be_authorised(admin: &Caller, id: &str) {
    let begun = admin.post(&format!("/v1/connections/{id}/authorize"), json!({})).await.ok(200);
    let person = Person::new(&admin.url, wire());
    let page = person.follow(begun["authorize_url"].as_str().unwrap()).await;
    let done = person.post(&page.url, &[("decision", "yes")]).await;
    assert_eq!(done.status, 200, "{done:?}");
}

/// Status and body, or nothing from a server that died.
async fn try_post(caller: &Caller, path: &str) -> Option<(u16, Value)> {
    let request = Request::post(format!("{}{path}", caller.url))
        .header("authorization", format!("Bearer {}", caller.key.as_ref().unwrap()))
        .header("content-type", "application/json")
        .body(full("{}"))
        .unwrap();
    let response = wire().request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, serde_json::from_slice(&body).ok()?))
}
