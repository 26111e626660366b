//! A first definition out of what a server or an API publishes about itself.

use http::{Request, StatusCode, header};
use keyholder_oauth::{
    DiscoveryError, ResourceMetadata, SecretBytes, discovery_urls, issuer_of, read_resource_metadata,
    resource_metadata_of, resource_of, resource_urls,
};
use keyholder_provider::{Discovery, draft};
use url::Url;

use crate::egress::{Bounds, Fetched, origin_of};
use crate::error::{Error, Result, invalid};
use crate::open::Broker;

/// How many of an API's authorization servers are asked.
const SERVERS: usize = 4;

impl Broker {
    /// Drafts a definition from what `url` leads to: an issuer or its discovery document (OpenID Connect Discovery, RFC 8414), or an API or
    /// its document (RFC 9728), which names the authorization server.
    pub async fn discover_provider(&self, url: &str) -> Result<String> {
        let issuer = issuer_of(url.trim());
        let parsed = Url::parse(&issuer).map_err(|e| {
            invalid(
                "url",
                format!("it is no URL: {e}"),
                "give an issuer like https://login.example.com, or an API's address",
            )
        })?;
        let resource = resource_of(&parsed);
        let names_an_api = resource.path() != parsed.path();
        let of_issuer = if names_an_api {
            // Never shown: the API's own error tells more.
            Err(Error::Internal("an API's document is no issuer's"))
        } else {
            self.discover(&Discovery { urls: discovery_urls(&parsed), issuer }).await
        };
        let no_issuer = match of_issuer {
            Ok(metadata) => return Ok(draft(&metadata, None, &id_of(&parsed))),
            Err(error @ Error::DiscoveryUnreachable(_)) => return Err(error),
            Err(error) => error,
        };
        let Some(api) = self.api_metadata(&resource).await else {
            return Err(match no_issuer {
                Error::Internal(_) => Error::Discovery { url: shown(&parsed), cause: DiscoveryError::MissingResource },
                error => error,
            });
        };
        let api = api.map_err(|cause| Error::Discovery { url: shown(&resource), cause })?;
        let mut telling = None;
        for server in api.authorization_servers.iter().flatten().take(SERVERS) {
            let Ok(address) = Url::parse(server) else { continue };
            match self.discover(&Discovery { urls: discovery_urls(&address), issuer: server.clone() }).await {
                Ok(metadata) => return Ok(draft(&metadata, Some(&api), &id_of(&resource))),
                Err(error) => telling = telling.or(Some(error)),
            }
        }
        Err(telling.unwrap_or(Error::Discovery { url: shown(&resource), cause: DiscoveryError::NoAuthorizationServer }))
    }

    /// What an API says of itself: at the well-known places, else where its refusal points (RFC 9728 §5.1). `None`: it says nothing.
    async fn api_metadata(&self, api: &Url) -> Option<std::result::Result<ResourceMetadata, DiscoveryError>> {
        let mut telling = None;
        for place in resource_urls(api) {
            let Some(reply) = self.published(&place).await else { continue };
            match read_resource_metadata(api, reply.status, reply.body.expose()) {
                Ok(metadata) => return Some(Ok(metadata)),
                Err(DiscoveryError::Status(_) | DiscoveryError::NotJson) => {}
                Err(other) => telling = telling.or(Some(Err(other))),
            }
        }
        let refusal = self.published(api).await.filter(|reply| reply.status == StatusCode::UNAUTHORIZED.as_u16());
        let challenges = refusal.iter().flat_map(|reply| reply.headers.get_all(header::WWW_AUTHENTICATE));
        let named = challenges.filter_map(|value| resource_metadata_of(value.to_str().ok()?)).next();
        let reply = match &named {
            Some(place) => self.published(place).await,
            None => None,
        };
        reply.map(|reply| read_resource_metadata(api, reply.status, reply.body.expose())).or(telling)
    }

    async fn published(&self, url: &Url) -> Option<Fetched> {
        let request = Request::get(url.as_str())
            .header(header::ACCEPT, "application/json")
            .body(SecretBytes::new(Vec::new()))
            .ok()?;
        self.egress.fetch(request, Bounds::PROVIDER).await.ok()
    }
}

fn id_of(url: &Url) -> String {
    url.host_str().unwrap_or("provider").replace(['.', ':', '[', ']'], "-")
}

fn shown(url: &Url) -> String {
    format!("{}{}", origin_of(&url.as_str().parse().unwrap_or_default()), url.path())
}
