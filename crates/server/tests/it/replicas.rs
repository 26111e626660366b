//! Three processes on one PostgreSQL, and everybody wants the same token at once.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use keyholder_broker::clock::Rng;
use serde_json::json;
use tempfile::TempDir;

use crate::app::Caller;
use crate::browser::Browser;
use crate::console;
use crate::postgres;
use crate::torture::{Process, be_authorised};
use crate::watched::{Delay, Watched};

const PROCESSES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_of_three_processes_make_one_request() {
    println!("{}", run(5, 200).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_of_one_shows_what_another_does() {
    let mut replicas = Replicas::prepare(|_| Delay { before: Duration::ZERO, after: Duration::ZERO }).await;
    let (first, second) = (replicas.add().await, replicas.add().await);
    replicas.stale_connection("crm", &first).await;
    let link = second.post("/v1/operators/links", json!({"scopes": ["admin"]})).await.ok(201);
    let browser = tokio::task::block_in_place(|| {
        let browser = Browser::start();
        console::join(&browser, link["url"].as_str().unwrap());
        browser.goto(&format!("{}/console/connections/crm", second.url));
        browser.see("● live");
        browser.eval("window.stays = 1");
        browser
    });
    first.post("/v1/connections/crm/revoke", json!({})).await.ok(200);
    tokio::task::block_in_place(|| {
        browser.see("Connect again");
        assert_eq!(browser.text_of(".head .pill"), "revoked");
        assert_eq!(browser.eval("window.stays"), json!(1), "without a reload");
        // Who signed in at one is signed in at the other: sessions are the database's.
        browser.goto(&format!("{}/console/connections/crm", first.url));
        assert_eq!(browser.text_of(".head .pill"), "revoked");
    });
}

/// `make replicas ROUNDS=50 CALLERS=2000`: the same for long.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as ROUNDS says"]
async fn many_times_many_callers_make_one_request() {
    let number = |name: &str, default| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    println!("{}", run(number("ROUNDS", 50), number("CALLERS", 2000)).await);
}

/// A process dies while its request is at the provider. Its claim stands for 40 s, and 20 s more, because a second use would end the grant.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for a minute of real time"]
async fn a_dead_ones_claim_is_waited_out_by_the_others() {
    const CLAIM_AND_PATIENCE: Duration = Duration::from_secs(60);
    let slow = |_: &Rng| Delay { before: Duration::ZERO, after: Duration::from_secs(20) };
    let mut replicas = Replicas::prepare(slow).await;
    let first = replicas.add().await;
    let path = replicas.stale_connection("slow", &first).await;
    let asking = path.clone();
    let caller = tokio::spawn(async move { first.get(&asking).await });
    replicas.provider.until(|seen| seen.arrived > 0).await;
    let others = [replicas.add().await, replicas.add().await];
    replicas.processes[0].kill();
    assert!(caller.await.is_err(), "it was killed before it had an answer");
    replicas.provider.book().grants[0].lost = true;
    let answers = others.iter().map(async |admin| {
        loop {
            // Who can't wait any longer is told to come again.
            let answer = admin.get(&path).await;
            if answer.status != 503 {
                return answer;
            }
        }
    });
    for answer in futures_util::future::join_all(answers).await {
        // The reply died with the process, and with it the newest refresh token.
        answer.problem(409, "not_connected");
    }
    let book = replicas.provider.book();
    assert_eq!((book.grants[0].requests, book.grants[0].refused, book.most_at_once), (2, 1, 1));
    assert!(book.wrongs().is_empty(), "{:?}", book.wrongs());
    let between = book.grants[0].came[1] - book.grants[0].came[0];
    assert!(between >= CLAIM_AND_PATIENCE, "sent again after {between:?}: the first might have been under way");
    println!("killed in flight: the others sent after {between:?}");
}

/// Answers its figures.
async fn run(rounds: usize, callers: usize) -> String {
    let mut replicas = Replicas::prepare(up_to_two_seconds).await;
    let mut admins = Vec::new();
    for _ in 0..PROCESSES {
        admins.push(replicas.add().await);
    }
    let began = Instant::now();
    for round in 0..rounds {
        let path = replicas.stale_connection(&format!("round-{round}"), &admins[round % PROCESSES]).await;
        let all = admins.iter().flat_map(|admin| (0..callers).map(|_| admin.get(&path)));
        let answers = futures_util::future::join_all(all).await;
        let tokens: HashSet<String> =
            answers.into_iter().map(|it| it.ok(200)["access_token"].as_str().unwrap().to_owned()).collect();
        assert_eq!(tokens.len(), 1, "round {round}: everybody has the new token");
        let book = replicas.provider.book();
        assert_eq!(book.grants[round].came.len(), 1, "round {round}: one request");
        assert_eq!(book.grant_of(tokens.iter().next().unwrap()), round);
    }
    let (book, counters) = (replicas.provider.book(), replicas.provider.sandbox.counters());
    assert_eq!((book.most_at_once, counters.reuse_detections), (1, 0));
    assert_eq!(counters.grants["refresh_token"], rounds as u64);
    format!(
        "{PROCESSES} processes, {callers} callers each, {rounds} rounds: {} requests at the provider, at most {} at once for one refresh token, {} reuses; {:?}",
        counters.grants["refresh_token"],
        book.most_at_once,
        counters.reuse_detections,
        began.elapsed()
    )
}

fn up_to_two_seconds(rng: &Rng) -> Delay {
    Delay { before: Duration::ZERO, after: Duration::from_secs(2).mul_f64(rng.unit()) }
}

/// Processes with a data folder each, one database and one root key.
struct Replicas {
    provider: Watched,
    database: String,
    folders: Vec<TempDir>,
    processes: Vec<Process>,
}

impl Replicas {
    async fn prepare(delay: fn(&Rng) -> Delay) -> Self {
        let provider = Watched::start(1, 1, delay, true).await;
        let folder = tempfile::tempdir().unwrap();
        let database = postgres::of_folder(folder.path());
        Self { provider, database, folders: vec![folder], processes: Vec::new() }
    }

    /// Starts one more; answers its administrator. The first makes the root key and the administrator's.
    async fn add(&mut self) -> Caller {
        let is_first = self.processes.is_empty();
        if !is_first {
            let folder = tempfile::tempdir().unwrap();
            fs::copy(self.folders[0].path().join("root-key"), folder.path().join("root-key")).unwrap();
            self.folders.push(folder);
        }
        let mut process = Process::start(self.folders.last().unwrap().path(), Some(&self.database), None);
        let url = (&mut process.url).await.unwrap();
        self.processes.push(process);
        let key = fs::read_to_string(self.folders[0].path().join("admin-key")).unwrap().trim().to_owned();
        let admin = Caller::of(&url, Some(key));
        if is_first {
            self.provider.integrate(&admin).await;
        }
        admin
    }

    /// A connection whose access token has expired when it comes; answers the path of its token. Callers and schedulers want it renewed at once.
    async fn stale_connection(&self, name: &str, admin: &Caller) -> String {
        let connection = json!({"name": name, "integration": "endpoint-0"});
        admin.post("/v1/connections", connection).await.ok(201);
        be_authorised(admin, name).await;
        format!("/v1/connections/{name}/token")
    }
}
