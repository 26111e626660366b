//! Data sources: named APIs reached through connections.
//!
//! `rules` (what may be called) → `read` (a source with its texts parsed; each mistake named) → `fill` (values put in) → `known` (in memory, with the connection
//! behind) → `run` (saved requests, and the health test).

mod fill;
mod known;
mod read;
mod rules;
mod run;

use http::{HeaderMap, Method, Response};
use keyholder_provider::Api;
use std::sync::Arc;
use url::Url;

use crate::error::{Error, Result, invalid};
use crate::gateway::{ProxyRequest, Reply, SourceAccess, Via};
use crate::model::{Caller, Limits};
use crate::open::Broker;

pub(crate) use fill::Filling;
pub(crate) use known::KnownSources;
pub(crate) use read::ReadSource;
pub(crate) use rules::Rule;
pub use run::{Preview, RunReply, SourceRun, Tried};

/// Names the owner whose connection is meant, where each caller uses its own.
pub(crate) const OWNER: &str = "keyholder-owner";

impl Broker {
    /// Calls a data source's API for a caller, and streams the reply back.
    pub async fn proxy_source(
        &self,
        caller: &Arc<Caller>,
        id_or_name: &str,
        request: impl Into<Box<ProxyRequest>>,
    ) -> Result<Response<Reply>> {
        let request = request.into();
        let due = self.due(&request)?;
        let call = async {
            let known = self.known_source(caller, id_or_name).await?;
            let live = self.connection_behind(caller, &known.read.source, owner_of(&request.headers)?).await?;
            let access = self.source_access(&known, &live).await?;
            self.call_api(caller, live, Via::Source(&access), request, due).await
        };
        match due {
            None => call.await,
            Some(due) => self.by(due, call).await,
        }
    }
}

fn owner_of(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(owner) = headers.get(OWNER) else { return Ok(None) };
    let owner = std::str::from_utf8(owner.as_bytes()).ok().filter(|owner| !owner.is_empty());
    owner
        .map(Some)
        .ok_or_else(|| invalid("Keyholder-Owner", "it is empty, or not UTF-8", "name the connection's owner"))
}

impl SourceAccess {
    /// Refuses what its rules don't let pass; the path percent-encoded, without its query.
    pub(crate) fn check_rules(&self, method: &Method, path: &str) -> Result<()> {
        if rules::allows(&self.rules, method, path) {
            return Ok(());
        }
        let path = path.chars().take(200).collect();
        Err(Error::NotAllowed { data_source: self.name.clone(), method: method.to_string(), path })
    }

    /// A call's path as a key's limits mean it; `None` where they can't mean it.
    pub(crate) fn limited_path(&self, limits: &Limits, path: &str) -> Option<String> {
        if limits.sources.is_empty() {
            self.below.as_ref().map(|below| format!("{below}{path}"))
        } else {
            Some(path.to_owned())
        }
    }
}

/// Credentials go only to the hosts that the definition names, and to another port or scheme than the usual only where its base URL has it.
pub(crate) fn check_host(api: &Api, base: &Url) -> Result<()> {
    let host = base.host_str().unwrap_or_default();
    let is_own = api.base_url.as_ref().is_some_and(|own| own.origin() == base.origin());
    if is_own || (api.allows(host) && base.scheme() == "https" && base.port().is_none()) {
        return Ok(());
    }
    let host = base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Err(Error::HostNotAllowed { host, allowed: api.hosts.clone() })
}
