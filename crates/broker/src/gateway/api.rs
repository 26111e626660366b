//! How a connection's API is called with the token set in hand.

use std::sync::Arc;

use keyholder_provider::{Api, Credentials, KnownError};

use super::Base;
use crate::allowance::Allowance;
use crate::error::{Error, Result, invalid};
use crate::live::Live;
use crate::open::Broker;

/// How a connection's API is called; worked out once a token set.
#[derive(Debug)]
pub(crate) struct ApiAccess {
    /// What paths are appended to.
    pub(crate) base: Base,
    pub(crate) api: Api,
    /// The tokens, each where it goes.
    pub(crate) credentials: Credentials,
    pub(crate) allowance: Arc<Allowance>,
    pub(crate) known_errors: Vec<KnownError>,
}

impl Broker {
    /// How the connection's API is called; worked out once a token set.
    pub(crate) async fn api_access<'a>(&self, live: &'a Arc<Live>) -> Result<&'a ApiAccess> {
        if let Some(api) = live.api.get() {
            return Ok(api);
        }
        live.api.get_or_try_init(|| self.work_out_access(live)).await
    }

    async fn work_out_access(&self, live: &Live) -> Result<ApiAccess> {
        let id = live.id.clone();
        let row = self
            .store
            .read(move |tx| tx.connection_by_id(&id))
            .await?
            .ok_or_else(|| Error::not_found("connection", live.name.as_str()))?;
        let tokens = match &row.token_set {
            Some(sealed) => self.open_tokens(&row.tenant, row.id.as_str(), row.generation, sealed)?,
            None => return Err(Error::ChangedMeanwhile("connection")),
        };
        let rendered = self.plan(&row, Some(&tokens)).await?.rendered;
        let api = rendered.api;
        let base_url = api.base_url.as_ref().ok_or_else(|| {
            invalid(
                "api_base_url",
                "this connection has no API base URL, so there is nothing to call",
                "set the integration's variable `api_base_url`, for example https://api.example.com",
            )
        })?;
        Ok(ApiAccess {
            base: Base::new(base_url)?,
            credentials: api.credentials(&tokens)?,
            allowance: self.allowances.of(&live.id, &api.limits),
            known_errors: rendered.known_errors,
            api,
        })
    }
}
