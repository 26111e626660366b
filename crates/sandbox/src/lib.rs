//! An OAuth 2.0 authorization server and API that misbehaves on demand.
//!
//! It is a judge, so it shares no code with what it judges: it reads and writes the protocol by itself. Everything is in
//! memory, behind one lock that is never held while waiting.
//!
//! | module | holds |
//! | --- | --- |
//! | [`options`] | what a sandbox is started with: clients, lives, rotation |
//! | [`faults`] | what may go wrong, where and how often; the reader of `--fault` and of `POST /admin/faults` |
//! | [`state`] | grants, codes, tokens, counters: what is true now |
//! | `reply` | a reply before it is sent, and how a fault spoils it |
//! | `client_auth`, `token`, `authorize`, `discovery` | the authorization server |
//! | `api`, `admin` | the protected API, and the operator's way in |
//! | `html` | the pages |
//! | [`play`] | the provider that a definition describes, as an independent judge |
//!
//! To serve one: [`run`]. To hold one in a test: [`Sandbox::new`], then [`Sandbox::router`] or [`Sandbox::serve`].

// The sandbox is slow on purpose, in real time; the clock for lives and the random source are arguments, and read for real in one place.
#![allow(clippy::disallowed_methods, reason = "faults are slow in real time")]

mod admin;
mod api;
mod authorize;
mod client_auth;
mod discovery;
pub mod faults;
mod html;
pub mod options;
pub mod play;
mod reply;
mod serve;
pub mod state;
mod token;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::Response;
use axum::routing::{any, get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::net::TcpListener;

pub use faults::{BadInput, Fault, Kind, On};
pub use options::{Client, ClientAuth, Options, Rotation, SCOPES, USERS};
pub use state::{Counters, Which};

use faults::Call;
use reply::Reply;
use state::State;

/// Gives the time: Unix milliseconds.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;
/// Gives 256 fresh random bits at each call.
pub type Random = Arc<dyn Fn() -> [u8; 32] + Send + Sync>;

/// Serves a sandbox with the system's clock and random source until `shutdown` completes; open connections are then cut.
///
/// Without [`Options::base_url`], the issuer is the listener's own address. Errors: the listener's address can't be read.
pub async fn run(
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let options = options.at(&listener)?;
    Sandbox::with_system(options).serve(listener, shutdown).await
}

/// A running sandbox: clones share one state.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    base_url: String,
    options: Options,
    now: Now,
    random: Random,
    state: Mutex<State>,
}

impl Sandbox {
    /// A sandbox that serves nothing yet. Without [`Options::base_url`] its issuer is `http://127.0.0.1:8790`.
    pub fn new(mut options: Options, now: Now, random: Random) -> Self {
        let base_url = options.base_url.take().unwrap_or_else(|| options::DEFAULT_URL.to_owned());
        let mut state = State::default();
        options.all_clients().into_iter().for_each(|client| state.add_client(client));
        std::mem::take(&mut options.faults).into_iter().for_each(|fault| {
            state.faults.add(fault);
        });
        Self(Arc::new(Inner {
            base_url: base_url.trim_end_matches('/').to_owned(),
            options,
            now,
            random,
            state: Mutex::new(state),
        }))
    }

    /// As [`Sandbox::new`], with the system's clock and random source.
    pub fn with_system(options: Options) -> Self {
        Self::new(options, Arc::new(system_now), Arc::new(system_random))
    }

    /// The table of routes.
    pub fn router(&self) -> Router {
        const ECHO_LIMIT: usize = 10 << 20;
        Router::new()
            .route("/", get(admin::home))
            .route("/.well-known/openid-configuration", get(discovery::document))
            .route("/.well-known/oauth-authorization-server", get(discovery::document))
            .route("/.well-known/oauth-protected-resource/api", get(discovery::resource))
            .route("/authorize", get(authorize::page))
            .route("/authorize/decision", post(authorize::decision))
            .route("/token", post(token::token))
            .route("/revoke", post(token::revoke))
            .route("/introspect", post(token::introspect))
            .route("/userinfo", get(api::userinfo).post(api::userinfo))
            .route("/elsewhere", any(discovery::elsewhere))
            .route("/api/me", get(api::me))
            .route("/api/echo", any(api::echo))
            .route("/api/echo/{*rest}", any(api::echo))
            .route("/api/stream", get(api::stream))
            .route("/api/upload", post(api::upload).put(api::upload))
            .route("/api/slow", get(api::slow))
            .route("/api/admin", get(api::admin))
            .route("/admin/counters", get(admin::counters).delete(admin::reset_counters))
            .route("/admin/faults", post(admin::set_fault).get(admin::faults).delete(admin::clear_faults))
            .route("/admin/faults/{id}", axum::routing::delete(admin::remove_fault))
            .route("/admin/clients", post(admin::add_client))
            .route("/admin/revoke", post(admin::revoke))
            .route("/admin/expire", post(admin::expire))
            .layer(DefaultBodyLimit::max(ECHO_LIMIT))
            .with_state(self.clone())
    }

    /// Serves on a bound socket until `shutdown` completes; open connections are then cut, as by a server that dies.
    ///
    /// Errors: none today; the result is there for the caller's `?`.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        serve::serve(self.router(), listener, shutdown).await;
        Ok(())
    }

    /// The issuer and the root of every URL, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// What it has seen since the start or the last [`Sandbox::reset_counters`].
    pub fn counters(&self) -> Counters {
        self.lock().counters.clone()
    }

    /// Sets every counter to nought.
    pub fn reset_counters(&self) {
        self.lock().counters = Counters::default();
    }

    /// Adds a fault to those that are set; returns its id.
    pub fn set_fault(&self, fault: Fault) -> u64 {
        self.lock().faults.add(fault)
    }

    /// Removes every fault; returns how many there were.
    pub fn clear_faults(&self) -> usize {
        self.lock().faults.clear()
    }

    /// Adds a client, or replaces the one with the same id.
    pub fn add_client(&self, client: Client) {
        self.lock().add_client(client);
    }

    /// Revokes the grants that `which` names, with all their tokens; returns how many there were.
    pub fn revoke(&self, which: &Which) -> usize {
        self.lock().revoke_which(which)
    }

    /// Lets every access token expire now; returns how many were still valid. Refresh tokens keep their life.
    pub fn expire_access_tokens(&self) -> usize {
        let now = self.now();
        self.lock().expire_access_tokens(now)
    }

    fn options(&self) -> &Options {
        &self.0.options
    }

    fn now(&self) -> i64 {
        (self.0.now)()
    }

    /// A new unguessable value with a readable prefix.
    fn fresh(&self, prefix: &str) -> String {
        format!("{prefix}{}", URL_SAFE_NO_PAD.encode((self.0.random)()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one gate of every endpoint: counts the call, claims the faults that meet it, lets `work` answer under the lock
    /// (twice, once or not at all, as the faults say), and sends what the faults leave of the reply.
    async fn answer(&self, call: Call<'_>, mut work: impl FnMut(&mut State, &[Kind]) -> Reply) -> Response {
        let (kinds, reply) = {
            let mut state = self.lock();
            state.counters.saw_call(&call);
            let kinds = state.faults.claim(&call);
            state.counters.saw_faults(&kinds);
            let reply = reply::decide(&kinds, self.base_url(), || work(&mut state, &kinds));
            state.counters.saw_reply(&reply);
            (kinds, reply)
        };
        reply::deliver(&kinds, reply).await
    }
}

fn system_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[allow(clippy::expect_used, reason = "without randomness there is nothing to go on with")]
fn system_random() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source works");
    bytes
}

#[cfg(test)]
mod tests;
