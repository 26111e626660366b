//! The test that explains: token, then a call, step by step.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use keyholder_provider::{ErrorPhase, Verify};
use serde::Serialize;

use crate::egress::{Body, full};
use crate::error::{Error, Result};
use crate::explain::{known_error, sentence};
use crate::gateway::{ApiAccess, Asked, Outgoing, Via, build};
use crate::live::Live;
use crate::model::{Caller, Failure};
use crate::open::Broker;

/// An answer to the definition's cheap call is read up to this size.
const VERIFIED_BODY: usize = 1 << 20;

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
    /// `token`, `introspection` or `call`.
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
                steps.extend(self.test_introspection(&live).await);
                steps.extend(self.test_call(&live).await);
            }
        }
        Ok(TestReport { ok: steps.iter().all(|step| step.ok), steps })
    }

    /// What the provider says of the token, where it can be asked (RFC 7662). That it doesn't answer is no fault of the connection's.
    async fn test_introspection(&self, live: &Live) -> Option<TestStep> {
        let id = live.id.clone();
        let row = self.store.read(move |tx| tx.connection_by_id(&id)).await.ok()??;
        let tokens = self.open_tokens(&row.tenant, row.id.as_str(), row.generation, row.token_set.as_deref()?).ok()?;
        let plan = self.plan(&row, Some(&tokens)).await.ok()?;
        plan.rendered.introspect.as_ref()?;
        Some(match self.introspect(&plan, &tokens.access_token).await {
            Ok(told) if told.active => held("introspection", told_active(told.expires_at, self.now_ms())),
            Ok(_) => TestStep {
                name: "introspection",
                ok: false,
                message: "The provider says that the token is not active.".to_owned(),
                remedy: Some("Refresh the connection; if it stays so, authorise it again.".to_owned()),
            },
            Err(error) => {
                let why = sentence(error.to_string());
                held("introspection", format!("The provider doesn't say whether the token is active: {why}"))
            }
        })
    }

    async fn test_call(&self, live: &std::sync::Arc<Live>) -> Option<TestStep> {
        let api = match self.api_access(live).await {
            Ok(api) => api,
            // No base URL: there is nothing to call, which is no fault.
            Err(Error::Invalid(_)) => return None,
            Err(error) => return Some(failed("call", &error)),
        };
        let verify = api.api.verify.as_ref()?;
        let called = match self.verified(live, api, verify).await {
            Ok(called) => called,
            Err(error) => return Some(failed("call", &error)),
        };
        let (path, status) = (verify.path.split('?').next().unwrap_or_default(), called.status);
        let answered = format!("{} {path} answered {}", verify.method, status.as_u16());
        if called.fits {
            return Some(held("call", format!("{answered}.")));
        }
        let known = known_error(&api.known_errors, ErrorPhase::Api, |code| called.says(code));
        let message = match (status.is_success(), known.and_then(|known| known.meaning.clone())) {
            (true, meaning) => {
                format!(
                    "{answered}, but not what a working connection is told. {}",
                    meaning.map(sentence).unwrap_or_default()
                )
            }
            (false, meaning) => {
                format!("{} {path} answered {status}. {}", verify.method, meaning.map(sentence).unwrap_or_default())
            }
        };
        Some(TestStep {
            name: "call",
            ok: false,
            message: message.trim_end().to_owned(),
            remedy: Some(known.map_or_else(|| call_remedy(status.as_u16()).to_owned(), |known| known.remedy.clone())),
        })
    }

    /// Makes the definition's cheap call.
    async fn verified(&self, live: &Live, api: &ApiAccess, verify: &Verify) -> Result<Called> {
        let (path, query) = verify.path.split_once('?').map_or((verify.path.as_str(), None), |(p, q)| (p, Some(q)));
        let uri = build(api, &api.base, Asked { path, query, host: None })?;
        let _turn = self.turn(live, api).await?;
        let mut headers: HeaderMap = verify.headers.iter().cloned().collect();
        let mut sent = Bytes::new();
        if let Some((content_type, body)) = verify.body() {
            headers.insert(header::CONTENT_TYPE, content_type);
            sent = Bytes::copy_from_slice(body.expose());
        }
        let outgoing = Outgoing { method: &verify.method, headers, kept: Some(&sent) };
        let response = self.send_once(api, &api.base, outgoing.request(api, uri, full(sent.clone()))?).await?;
        let (response, expired) = self.judged(api, Via::Connection, &verify.method, response).await?;
        let status = response.status();
        let body = match read(response.into_body()).await {
            Some(body) => body,
            None if verify.expect.is_none() => Bytes::new(),
            None => return Err(Error::Gone("the API's answer broke off, or is larger than 1 MiB")),
        };
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_expected = verify.expect.as_ref().is_none_or(|expect| expect.holds(&said));
        Ok(Called { status, fits: status.is_success() && is_expected && !expired, body })
    }
}

/// A whole body, if it is not too large.
async fn read(mut body: Body) -> Option<Bytes> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > VERIFIED_BODY {
            return None;
        }
    }
    Some(read.freeze())
}

/// What came of the definition's cheap call.
struct Called {
    status: StatusCode,
    /// It is what the definition expects of a connection that works.
    fits: bool,
    body: Bytes,
}

impl Called {
    /// Whether a word of the answer is this code.
    fn says(&self, code: &str) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.')).any(|word| word == code)
    }
}

pub(crate) fn call_remedy(status: u16) -> &'static str {
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

pub(crate) fn token_message(expires_at: Option<i64>, now: i64) -> String {
    match expires_at {
        Some(at) => format!("A token is there; it expires in {} s.", (at - now).max(0) / 1000),
        None => "A token is there; the provider doesn't say when it expires.".to_owned(),
    }
}

fn told_active(expires_at: Option<i64>, now: i64) -> String {
    let active = "The provider says that the token is active";
    match expires_at {
        Some(at) => format!("{active}; it expires in {} s.", (at - now).max(0) / 1000),
        None => format!("{active}."),
    }
}

pub(crate) fn held(name: &'static str, message: String) -> TestStep {
    TestStep { name, ok: true, message, remedy: None }
}

pub(crate) fn failed(name: &'static str, error: &Error) -> TestStep {
    let (message, remedy) = match error {
        Error::NotReady { failure: Some(Failure { message, remedy, .. }), .. } => {
            (message.clone(), Some(remedy.clone()))
        }
        other => (sentence(other.to_string()), None),
    };
    TestStep { name, ok: false, message, remedy }
}
