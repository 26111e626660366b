//! The test that explains: token, then a call, step by step.

use http::Method;
use serde::Serialize;

use crate::egress::empty;
use crate::error::{Error, Result};
use crate::gateway::{ProxyRequest, call, target};
use crate::model::{Caller, Failure};
use crate::open::Broker;

/// What a test found.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// All steps held.
    pub ok: bool,
    /// The steps, in order; the first that failed is the last.
    pub steps: Vec<TestStep>,
}

/// One step of a test.
#[derive(Clone, Debug, Serialize)]
pub struct TestStep {
    /// `token` or `call`.
    pub name: &'static str,
    /// Whether it held.
    pub ok: bool,
    /// What happened.
    pub message: String,
    /// What to do, where it didn't hold.
    pub remedy: Option<String>,
}

impl Broker {
    /// Tests a connection: is there a token, and does the API take it? The call is the cheap one that the definition names; without one only the token is tested.
    pub async fn test(&self, caller: &Caller, id_or_name: &str) -> Result<TestReport> {
        let connection = self.find_connection(caller, id_or_name).await?;
        self.record(caller, "connection.test", connection.id.as_str(), "ok", None)?;
        let mut steps = Vec::new();
        let token = match self.live(caller, id_or_name).await {
            Ok(live) => self.fresh(live, Some(std::time::Duration::ZERO)).await,
            Err(error) => Err(error),
        };
        match token {
            Err(error) => steps.push(failed("token", &error)),
            Ok(live) => {
                steps.push(held("token", token_message(live.expires_at, self.now_ms())));
                steps.extend(self.test_call(&live).await);
            }
        }
        Ok(TestReport { ok: steps.iter().all(|step| step.ok), steps })
    }

    async fn test_call(&self, live: &std::sync::Arc<crate::live::Live>) -> Option<TestStep> {
        let api = match self.api_access(live).await {
            Ok(api) => api,
            // No base URL: there is nothing to call, which is no fault.
            Err(Error::Invalid(_)) => return None,
            Err(error) => return Some(failed("call", &error)),
        };
        let path = api.verify_path.clone()?;
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (path, None),
        };
        let headers = http::HeaderMap::new();
        let request = ProxyRequest { method: Method::GET, path, query, headers, body: empty(), length: Some(0) };
        let outbound =
            target(api, &request).and_then(|uri| call(api, live, &Method::GET, &uri, &request.headers, empty()));
        let path = request.path;
        let sent = async { Ok(self.egress.send(outbound?, std::time::Duration::from_secs(30)).await?) };
        Some(match sent.await {
            Err(error) => failed("call", &error),
            Ok(response) if response.status().is_success() => {
                held("call", format!("GET {} answered {}.", path, response.status().as_u16()))
            }
            Ok(response) => TestStep {
                name: "call",
                ok: false,
                message: format!("GET {} answered {}.", path, response.status()),
                remedy: Some(call_remedy(response.status().as_u16()).to_owned()),
            },
        })
    }
}

fn call_remedy(status: u16) -> &'static str {
    match status {
        401 => {
            "The API doesn't accept the token: check the audience and the header prefix, then refresh or authorise again."
        }
        403 => "The token is valid but may not do this: check the scopes, and the account's rights at the provider.",
        404 => "Check the API base URL.",
        429 => "The API limits the calls; try again later.",
        500.. => "The API has a problem; try again later.",
        _ => "Compare the API base URL with the provider's documentation.",
    }
}

fn token_message(expires_at: Option<i64>, now: i64) -> String {
    match expires_at {
        Some(at) => format!("A token is there; it expires in {} s.", (at - now).max(0) / 1000),
        None => "A token is there; the provider doesn't say when it expires.".to_owned(),
    }
}

fn held(name: &'static str, message: String) -> TestStep {
    TestStep { name, ok: true, message, remedy: None }
}

fn failed(name: &'static str, error: &Error) -> TestStep {
    let (message, remedy) = match error {
        Error::NotReady { failure: Some(Failure { message, remedy, .. }), .. } => {
            (message.clone(), Some(remedy.clone()))
        }
        other => (crate::explain::sentence(other.to_string()), None),
    };
    TestStep { name, ok: false, message, remedy }
}
