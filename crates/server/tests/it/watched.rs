//! The sandbox behind a watchman: he delays what comes and goes, writes down which grant's refresh token led to which token set, and goes on with a request
//! whose sender died. What Keyholder lost, and what it did that it shouldn't, is judged by his book alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use keyholder_broker::clock::{Clock, Rng};
use keyholder_sandbox::{Options, Rotation, Sandbox};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app::{Caller, auto_approving};

/// Life of its access tokens.
pub const LIFE: Duration = Duration::from_secs(3600);

/// A provider whose refresh tokens rotate, and of which one that comes twice ends its grant. Clones are handles on the same one.
#[derive(Clone)]
pub struct Watched {
    pub sandbox: Sandbox,
    /// Where it answers: as many token endpoints as were asked for, of one provider.
    pub urls: Vec<String>,
    book: Arc<Mutex<Book>>,
    seen: watch::Sender<Seen>,
    ahead: Arc<AtomicI64>,
    rng: Rng,
    delay: fn(&Rng) -> Delay,
    stale: bool,
}

/// How long a refresh request waits before it is worked, and its reply afterwards.
#[derive(Clone, Copy)]
pub struct Delay {
    pub before: Duration,
    pub after: Duration,
}

/// How many refresh requests it has seen.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    pub arrived: u64,
    pub answered: u64,
}

/// What became of each grant.
#[derive(Default)]
pub struct Book {
    pub grants: Vec<Grant>,
    /// Grant, and which of its token sets.
    by_refresh: HashMap<String, (usize, usize)>,
    by_access: HashMap<String, usize>,
    in_flight: HashMap<String, u64>,
    /// The most requests that were under way at once for one refresh token.
    pub most_at_once: u64,
}

/// A grant.
#[derive(Default)]
pub struct Grant {
    /// When the access token of each of its token sets expires; the last is the newest.
    pub expires: Vec<i64>,
    /// When its refresh requests came, and when the reply to the last of them left.
    pub came: Vec<Instant>,
    pub left: Option<Instant>,
    /// Refresh requests that were worked, and those of them that were refused.
    pub requests: u64,
    pub refused: u64,
    /// The newest token set is known to have been lost: only the one before it is held.
    pub lost: bool,
    /// It was refused although nothing was lost, or although the token set that is held was still good.
    pub wrongs: Vec<String>,
}

impl Watched {
    /// Listens on so many ports. `stale`: the first access token of a grant has expired when it comes.
    pub async fn start(endpoints: usize, seed: u64, delay: fn(&Rng) -> Delay, stale: bool) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..endpoints {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let ahead = Arc::new(AtomicI64::new(0));
        let now = Arc::clone(&ahead);
        let options = Options {
            rotation: Rotation::Family,
            access_ttl: LIFE.as_secs(),
            ..auto_approving().at(&listeners[0]).unwrap()
        };
        let sandbox = Sandbox::new(
            options,
            Arc::new(move || Clock::System.now_ms() + now.load(Ordering::Relaxed)),
            Arc::new(|| Rng::System.bytes()),
        );
        let urls = listeners.iter().map(|it| format!("http://{}", it.local_addr().unwrap())).collect();
        let (book, seen) = (Arc::default(), watch::Sender::default());
        let watched = Self { sandbox, urls, book, seen, ahead, rng: Rng::seeded(seed), delay, stale };
        for listener in listeners {
            let router = watched.sandbox.router().layer(from_fn_with_state(watched.clone(), watch_over));
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        watched
    }

    fn definition(&self) -> String {
        let base = &self.urls[0];
        format!(
            r#"
schema = 1
id = "watched"
name = "Watched"
source = ["https://watched.example/docs"]
[[methods]]
grant = "authorization_code"
[variables.token_url]
label = "Token URL"
kind = "url"
[authorize]
url = "{base}/authorize"
[token]
url = "{{{{token_url}}}}"
[refresh]
recovery = "family"
[api]
base_url = "{base}/api"
"#
        )
    }

    /// Adds its definition, and for each endpoint the integration `endpoint-0`, `endpoint-1`, …
    pub async fn integrate(&self, admin: &Caller) {
        admin.post("/v1/providers", json!({"definition": self.definition()})).await.ok(201);
        for (number, base) in self.urls.iter().enumerate() {
            let body = json!({
                "name": format!("endpoint-{number}"),
                "provider": "watched",
                "method": "authorization_code",
                "client_id": "sandbox-basic",
                "client_secret": "sandbox-secret",
                "scopes": ["read"],
                "variables": {"token_url": format!("{base}/token")},
            });
            admin.post("/v1/integrations", body).await.ok(201);
        }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// What it goes by: the machine's clock, and what was added to it.
    pub fn now_ms(&self) -> i64 {
        Clock::System.now_ms() + self.ahead.load(Ordering::Relaxed)
    }

    /// From now on its clock is so much ahead of the machine's.
    pub fn set_ahead(&self, by: Duration) {
        self.ahead.store(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Returns when this is true of what was seen.
    pub async fn until(&self, fits: impl Fn(&Seen) -> bool) {
        self.seen.subscribe().wait_for(fits).await.unwrap();
    }

    /// Returns when every request that came has been answered, whether or not anybody is left to hear it.
    pub async fn idle(&self) {
        self.until(|seen| seen.arrived == seen.answered).await;
    }

    async fn refresh(self, token: String, request: Request, next: Next) -> Response {
        self.book().enter(&token, Instant::now());
        self.seen.send_modify(|seen| seen.arrived += 1);
        let delay = (self.delay)(&self.rng);
        Clock::System.sleep(delay.before).await;
        let (head, body) = whole(next.run(request).await).await;
        self.book().answered(&token, head.status.as_u16(), &body, self.now_ms());
        Clock::System.sleep(delay.after).await;
        self.book().leave(&token, Instant::now());
        self.seen.send_modify(|seen| seen.answered += 1);
        Response::from_parts(head, Body::from(body))
    }
}

/// The watchman at the door.
async fn watch_over(State(watched): State<Watched>, request: Request, next: Next) -> Response {
    if request.uri().path() != "/token" {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let token = url::form_urlencoded::parse(&body).find(|(name, _)| name == "refresh_token");
    let token = token.map(|(_, token)| token.into_owned());
    let request = Request::from_parts(head, Body::from(body));
    match token {
        // A task of its own: it goes on when the sender dies.
        Some(token) => tokio::spawn(watched.refresh(token, request, next)).await.unwrap(),
        None => {
            let (mut head, mut body) = whole(next.run(request).await).await;
            if watched.stale {
                let mut reply: Value = serde_json::from_slice(&body).unwrap();
                reply["expires_in"] = json!(0.001);
                body = reply.to_string().into_bytes();
                head.headers.remove(CONTENT_LENGTH);
            }
            watched.book().began(&body, watched.now_ms());
            Response::from_parts(head, Body::from(body))
        }
    }
}

async fn whole(response: Response) -> (http::response::Parts, Vec<u8>) {
    let (head, body) = response.into_parts();
    (head, body.collect().await.unwrap().to_bytes().to_vec())
}

impl Book {
    /// The grant that an access token belongs to.
    pub fn grant_of(&self, access_token: &str) -> usize {
        self.by_access[access_token]
    }

    /// The newest token set of this grant.
    pub fn newest(&self, grant: usize) -> usize {
        self.grants[grant].expires.len() - 1
    }

    /// All that was done that shouldn't have been.
    pub fn wrongs(&self) -> Vec<String> {
        self.grants.iter().flat_map(|grant| grant.wrongs.iter().cloned()).collect()
    }

    fn began(&mut self, reply: &[u8], now: i64) {
        let reply: Value = serde_json::from_slice(reply).unwrap();
        self.grants.push(Grant::default());
        self.issued(self.grants.len() - 1, &reply, now);
    }

    fn issued(&mut self, grant: usize, reply: &Value, now: i64) {
        let text = |name: &str| reply[name].as_str().unwrap_or_else(|| panic!("no {name}: {reply}")).to_owned();
        let set = self.grants[grant].expires.len();
        self.by_refresh.insert(text("refresh_token"), (grant, set));
        self.by_access.insert(text("access_token"), grant);
        let life = Duration::from_secs_f64(reply["expires_in"].as_f64().unwrap());
        self.grants[grant].expires.push(now + i64::try_from(life.as_millis()).unwrap());
    }

    fn answered(&mut self, token: &str, status: u16, reply: &[u8], now: i64) {
        let (number, set) = self.by_refresh[token];
        let grant = &mut self.grants[number];
        grant.requests += 1;
        if status == 200 {
            self.issued(number, &serde_json::from_slice(reply).unwrap(), now);
            return;
        }
        grant.refused += 1;
        let wrong = match grant.lost {
            false => "although nothing had been lost",
            true if grant.expires[set] > now => "although the access token before it was still good",
            true => return,
        };
        let newest = grant.expires.len() - 1;
        let said = String::from_utf8_lossy(reply);
        grant
            .wrongs
            .push(format!("grant {number}: token set {set} of {newest} was used again, {wrong}: {status} {said}"));
    }

    fn enter(&mut self, token: &str, now: Instant) {
        let (grant, _) = self.by_refresh[token];
        self.grants[grant].came.push(now);
        let running = self.in_flight.entry(token.to_owned()).or_default();
        *running += 1;
        self.most_at_once = self.most_at_once.max(*running);
    }

    fn leave(&mut self, token: &str, now: Instant) {
        let (grant, _) = self.by_refresh[token];
        self.grants[grant].left = Some(now);
        *self.in_flight.get_mut(token).unwrap() -= 1;
    }
}
