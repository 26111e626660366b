//! What the operator of the practice provider does, and what its API says to a token.

use http::header::{self, HeaderValue};
use http::{Method, Request};
use keyholder_broker::egress::{Bounds, Egress};
use keyholder_oauth::SecretBytes;
use serde_json::{Value, json};
use url::Url;

use super::super::error::{CliError, Result};

/// A practice provider, from its operator's side.
pub(super) struct Provider {
    pub(super) base: Url,
    egress: Egress,
}

impl Provider {
    /// The provider at `base`.
    pub(super) fn new(base: &Url, egress: Egress) -> Self {
        Self { base: base.clone(), egress }
    }

    /// An address of it.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    /// Registers an application.
    pub(super) async fn register(&self, id: &str, secret: &str, redirect_uris: &[&str]) -> Result {
        let client = json!({"id": id, "name": "Demo application", "secret": secret, "redirect_uris": redirect_uris});
        self.admin(Method::POST, "/admin/clients", Some(client)).await.map(drop)
    }

    /// What it saw since the last time; sets its counters to nought.
    pub(super) async fn take_counters(&self) -> Result<Value> {
        let counters = self.counters().await?;
        self.admin(Method::DELETE, "/admin/counters", None).await?;
        Ok(counters)
    }

    /// What it saw.
    pub(super) async fn counters(&self) -> Result<Value> {
        self.admin(Method::GET, "/admin/counters", None).await
    }

    /// From now on something goes wrong.
    pub(super) async fn break_down(&self, fault: Value) -> Result {
        self.admin(Method::POST, "/admin/faults", Some(fault)).await.map(drop)
    }

    /// Nothing goes wrong any more.
    pub(super) async fn mend(&self) -> Result {
        self.admin(Method::DELETE, "/admin/faults", None).await.map(drop)
    }

    /// A person withdraws every consent.
    pub(super) async fn withdraw(&self, account: &str) -> Result {
        self.admin(Method::POST, "/admin/revoke", Some(json!({"account": account}))).await.map(drop)
    }

    /// Every access token ends before its time.
    pub(super) async fn expire_tokens(&self) -> Result {
        self.admin(Method::POST, "/admin/expire", None).await.map(drop)
    }

    /// The status that its API answers to a token.
    pub(super) async fn status_for(&self, token: &str) -> Result<u16> {
        let mut credential = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| CliError::Failed("a token fits no header".to_owned()))?;
        credential.set_sensitive(true);
        let (status, _) = self.send(Method::GET, "/api/me", None, Some(credential)).await?;
        Ok(status)
    }

    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, body) = self.send(method, path, body, None).await?;
        match status {
            200..=299 if body.is_empty() => Ok(Value::Null),
            200..=299 => {
                serde_json::from_slice(&body).map_err(|_| CliError::Failed(format!("{path} answered no JSON")))
            }
            _ => Err(CliError::Failed(format!("the practice provider refused {path}: {status}"))),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        credential: Option<HeaderValue>,
    ) -> Result<(u16, Vec<u8>)> {
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let mut request = Request::new(SecretBytes::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.at(path).parse().map_err(|_| CliError::Failed(format!("{path} is no path")))?;
        request.headers_mut().extend(credential.map(|credential| (header::AUTHORIZATION, credential)));
        let fetched = self.egress.fetch(request, Bounds::PROVIDER).await;
        let fetched = fetched.map_err(|error| CliError::Failed(error.to_string()))?;
        Ok((fetched.status, fetched.body.expose().to_vec()))
    }
}
