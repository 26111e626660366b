//! How a connection's API is called with the token set in hand.

use std::sync::Arc;

use keyholder_provider::{Api, Credentials, KnownError};

use super::Base;
use crate::allowance::Allowance;
use crate::endpoints::Urgency;
use crate::error::{Error, Result, invalid};
use crate::live::Live;
use crate::open::Broker;
use crate::renew::{Enough, Wish};

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

impl ApiAccess {
    /// The names of the secondary tokens that calls carry.
    fn secondaries(&self) -> impl Iterator<Item = &str> {
        self.api.token.iter().filter_map(|placement| placement.secondary.as_deref())
    }

    /// Whether calls carry the access token.
    fn carries_main(&self) -> bool {
        self.api.token.iter().any(|placement| placement.secondary.is_none())
    }
}

impl Broker {
    /// A token set in which all tokens that calls carry are fresh, or as good as can be had.
    pub(super) async fn fresh_for_call(&self, live: Arc<Live>) -> Result<Arc<Live>> {
        if live.secondary.is_empty() && live.is_fresh(None, self.now_ms()) {
            return Ok(live);
        }
        Box::pin(self.made_fresh(live)).await
    }

    async fn made_fresh(&self, mut live: Arc<Live>) -> Result<Arc<Live>> {
        if live.secondary.is_empty() {
            return self.fresh(live, None).await;
        }
        let api = self.api_access(&live).await?;
        let secondaries: Vec<String> = api.secondaries().map(str::to_owned).collect();
        if api.carries_main() {
            live = self.fresh(live, None).await?;
        }
        for name in secondaries {
            live = self.fresh_secondary(live, &name, None).await?;
        }
        Ok(live)
    }

    /// The token set after a renewal of what the API refused although it should be valid: of the secondary token, where calls carry only one that has a refresh token of its own.
    pub(super) async fn renewed_for_call(&self, live: &Arc<Live>) -> Result<Arc<Live>> {
        let api = self.api_access(live).await?;
        let by_itself =
            |name: &&str| live.secondary.get(*name).is_some_and(|it| it.renewed_by_itself && it.expires_at.is_some());
        match api.secondaries().find(by_itself).filter(|_| !api.carries_main()) {
            Some(name) => self.other_secondary(live, name).await,
            None => {
                let wish = Wish { enough: Enough::NewerThan(live.generation), urgency: Urgency::Reader };
                self.renew(&live.id, wish).await
            }
        }
    }

    /// A token set with another secondary token `name`. A renewal makes one token; those that end before this one come first.
    async fn other_secondary(&self, live: &Arc<Live>, name: &str) -> Result<Arc<Live>> {
        let refused = live.secondary.get(name).and_then(|it| Some((it.expires_at?, &it.access_token)));
        let (ends_at, refused) = refused.ok_or_else(|| Error::not_found("token", name))?;
        let wish = Wish { enough: Enough::SecondariesValidAt(ends_at), urgency: Urgency::Reader };
        for _ in 0..live.secondary.len() {
            let renewed = self.renew(&live.id, wish).await?;
            if renewed.secondary.get(name).is_some_and(|it| !it.access_token.ct_eq(refused)) {
                return Ok(renewed);
            }
        }
        Err(Error::not_found("other token", name))
    }

    /// How the connection's API is called; worked out once a token set.
    pub(crate) async fn api_access<'a>(&self, live: &'a Arc<Live>) -> Result<&'a ApiAccess> {
        if let Some(api) = live.api.get() {
            return Ok(api);
        }
        Box::pin(live.api.get_or_try_init(|| self.work_out_access(live))).await
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
