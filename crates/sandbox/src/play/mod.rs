//! A play: the sandbox in the part of the provider that a definition describes, on the definition's own hosts.
//!
//! It is an independent judge. It reads the definition by itself, expects of each request exactly what the definition says (method, place, names,
//! client authentication, scopes, headers, signatures), refuses everything else as that provider would, and answers in the provider's shape.
//! Whoever connects to it must come by plain TCP with the definition's host in `Host`.
//!
//! | module | holds |
//! | --- | --- |
//! | `script` | the definition with the values of one rehearsal |
//! | `shape`, `keys` | replies by their places; what is signed |
//! | `received`, `judge` | a request, and in what it differs from what it should be |
//! | `stage` | what was issued, and which part of the provider a request is for |
//! | `authorize`, `token`, `api` | the parts |

mod api;
mod authorize;
mod judge;
mod keys;
mod received;
mod script;
mod shape;
mod stage;
#[cfg(test)]
mod tests;
mod token;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::net::TcpListener;

pub use authorize::Back;
pub use judge::Complaint;
pub use keys::private_key;
pub use script::Registration;
pub use shape::matching;
pub use stage::Exchange;

use crate::reply::{self, Reply};
use crate::{Now, Random, serve};
use received::Received;
use script::Script;
use stage::Stage;

/// A provider in rehearsal; clones share one stage. One definition, method and connection at a time.
#[derive(Clone)]
pub struct Play(Arc<Inner>);

struct Inner {
    now: Now,
    random: Random,
    stage: Mutex<Option<Stage>>,
}

impl Play {
    /// An empty stage.
    pub fn new(now: Now, random: Random) -> Self {
        Self(Arc::new(Inner { now, random, stage: Mutex::new(None) }))
    }

    /// Begins to play the provider that a merged definition describes, for one method and one registration; what was played before is forgotten.
    ///
    /// # Errors
    /// The definition has no such method.
    pub fn perform(&self, definition: &Value, method: &str, registration: Registration) -> Result<(), String> {
        let script = Script::read(definition, method, registration)?;
        *self.stage() = Some(Stage::new(script));
        Ok(())
    }

    /// The only address that consent leads back to.
    pub fn register_redirect_uri(&self, uri: &str) {
        if let Some(stage) = self.stage().as_mut() {
            stage.known.insert("redirect_uri".to_owned(), uri.to_owned());
            stage.redirect_uri = uri.to_owned();
        }
    }

    /// Answers on every host until `shutdown` completes.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) {
        serve::serve(self.router(), listener, shutdown).await;
    }

    /// Everything that is asked, wherever.
    pub fn router(&self) -> Router {
        Router::new().fallback(ask).layer(DefaultBodyLimit::max(10 << 20)).with_state(self.clone())
    }

    /// The person's browser goes where it is sent, and the person agrees; answers what brings it back, or nothing if the request was refused.
    pub fn visit(&self, address: &str) -> Option<Back> {
        let uri: Uri = address.parse().ok()?;
        let got = Received::new(Method::GET, &uri, HeaderMap::new(), Vec::new())?;
        let (now, mut fresh) = ((self.0.now)(), self.fresh());
        self.stage().as_mut()?.visited(&got, now, &mut fresh)
    }

    /// The person types the code of a device and agrees; `false` if no device has asked.
    pub fn approve_device(&self) -> bool {
        self.stage().as_mut().is_some_and(Stage::approve_device)
    }

    /// The person chooses the last of what a lookup offered; until then nobody can know it.
    pub fn choose_last(&self) {
        if let Some(stage) = self.stage().as_mut() {
            let offered = std::mem::take(&mut stage.offered);
            stage.known.extend(offered);
        }
    }

    /// What was asked and answered since the last look.
    pub fn take_exchanges(&self) -> Vec<Exchange> {
        self.stage().as_mut().map(|stage| std::mem::take(&mut stage.exchanges)).unwrap_or_default()
    }

    /// When an access token ends, Unix milliseconds: `None` if it was never issued, `Some(None)` if it has no end.
    pub fn end_of(&self, access_token: &str) -> Option<Option<i64>> {
        self.stage().as_ref()?.end_of(access_token)
    }

    /// Ends the access tokens there are, before their time.
    pub fn expire_access_tokens(&self) {
        let now = (self.0.now)();
        if let Some(stage) = self.stage().as_mut() {
            stage.expire_access_tokens(now);
        }
    }

    /// Whether there is something to renew with: a refresh token, an access token that extends itself, or a grant that needs nobody.
    pub fn can_renew(&self) -> bool {
        self.stage().as_ref().is_some_and(Stage::can_renew)
    }

    /// How old a token must be before it can be renewed.
    pub fn min_age(&self) -> Duration {
        self.stage().as_ref().map(Stage::min_age).unwrap_or_default()
    }

    /// Whether there is a way to revoke.
    pub fn can_revoke(&self) -> bool {
        self.stage().as_ref().is_some_and(Stage::can_revoke)
    }

    /// Whether there is an API to call.
    pub fn has_api(&self) -> bool {
        self.stage().as_ref().is_some_and(|stage| stage.base().is_some())
    }

    /// Whether the last call of the API found its token good.
    pub fn served_api(&self) -> bool {
        self.stage().as_ref().is_some_and(|stage| stage.served)
    }

    /// Whether every token was revoked.
    pub fn is_revoked(&self) -> bool {
        self.stage().as_ref().is_some_and(|stage| stage.revoked)
    }

    fn stage(&self) -> MutexGuard<'_, Option<Stage>> {
        self.0.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> impl FnMut(&str) -> String {
        let random = Arc::clone(&self.0.random);
        move |prefix| format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random()))
    }
}

async fn ask(Shared(play): Shared<Play>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let (now, mut fresh) = ((play.0.now)(), play.fresh());
    let reply = match Received::new(method, &uri, headers, body.to_vec()) {
        None => Reply::empty(StatusCode::BAD_REQUEST),
        Some(got) => match play.stage().as_mut() {
            None => Reply::empty(StatusCode::SERVICE_UNAVAILABLE),
            Some(stage) => stage.answer(&got, now, &mut fresh),
        },
    };
    reply::deliver(&[], reply).await
}
