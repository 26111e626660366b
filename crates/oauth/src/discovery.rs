//! Server metadata (RFC 8414, OpenID Connect Discovery 1.0), and that of protected resources (RFC 9728).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use url::Url;

use crate::text::{MAX_TEXT, clean};

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";
const RESOURCE: &str = "/.well-known/oauth-protected-resource";

/// What a server publishes about itself (RFC 8414 §2). Members that are missing, unknown or oddly
/// typed are passed over; only the issuer must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The server's name for itself: a URL, compared as text.
    pub issuer: String,
    /// Where people consent.
    #[serde(default, deserialize_with = "address")]
    pub authorization_endpoint: Option<Url>,
    /// Where grants are exchanged.
    #[serde(default, deserialize_with = "address")]
    pub token_endpoint: Option<Url>,
    /// Where tokens are revoked (RFC 7009).
    #[serde(default, deserialize_with = "address")]
    pub revocation_endpoint: Option<Url>,
    /// Where tokens are looked up (RFC 7662).
    #[serde(default, deserialize_with = "address")]
    pub introspection_endpoint: Option<Url>,
    /// Where OpenID Connect tells who consented.
    #[serde(default, deserialize_with = "address")]
    pub userinfo_endpoint: Option<Url>,
    /// Where device codes are had (RFC 8628).
    #[serde(default, deserialize_with = "address")]
    pub device_authorization_endpoint: Option<Url>,
    /// Where authorization requests are pushed (RFC 9126).
    #[serde(default, deserialize_with = "address")]
    pub pushed_authorization_request_endpoint: Option<Url>,
    /// Where clients register (RFC 7591).
    #[serde(default, deserialize_with = "address")]
    pub registration_endpoint: Option<Url>,
    /// The server's signing keys.
    #[serde(default, deserialize_with = "address")]
    pub jwks_uri: Option<Url>,
    /// Client authentication methods by their registered names (`client_secret_basic`, …).
    #[serde(default, deserialize_with = "names")]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// PKCE methods (`S256`, `plain`).
    #[serde(default, deserialize_with = "names")]
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// Scopes the server cares to name.
    #[serde(default, deserialize_with = "names")]
    pub scopes_supported: Option<Vec<String>>,
    /// Grant types.
    #[serde(default, deserialize_with = "names")]
    pub grant_types_supported: Option<Vec<String>>,
    /// Whether the callback names the issuer (RFC 9207 §3).
    #[serde(default, deserialize_with = "lenient")]
    pub authorization_response_iss_parameter_supported: bool,
}

/// What an API publishes about itself (RFC 9728 §2). Members that are missing, unknown or oddly typed are passed over; only the
/// resource must be there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResourceMetadata {
    /// The API's address.
    pub resource: Url,
    /// Issuers whose tokens it takes.
    #[serde(default, deserialize_with = "names")]
    pub authorization_servers: Option<Vec<String>>,
    /// Scopes to ask for.
    #[serde(default, deserialize_with = "names")]
    pub scopes_supported: Option<Vec<String>>,
    /// Where it takes tokens: `header`, `body`, `query` (RFC 6750 §2).
    #[serde(default, deserialize_with = "names")]
    pub bearer_methods_supported: Option<Vec<String>>,
    /// Its name, for people.
    #[serde(default, deserialize_with = "lenient")]
    pub resource_name: Option<String>,
    /// Its documentation, for developers.
    #[serde(default, deserialize_with = "address")]
    pub resource_documentation: Option<Url>,
}

/// Why a discovery document can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The server answered with another status than 200.
    #[error("there is no discovery document here (HTTP {0}); check the issuer, or give the endpoints by hand")]
    Status(u16),
    /// The document is not a JSON object.
    #[error("the discovery document is not a JSON object; check the issuer, or give the endpoints by hand")]
    NotJson,
    /// The document does not name its issuer.
    #[error("the discovery document names no issuer; check the issuer, or give the endpoints by hand")]
    MissingIssuer,
    /// The document does not name its resource.
    #[error("the document names no resource (RFC 9728); give the authorization server's issuer instead")]
    MissingResource,
    /// The document belongs to another API (RFC 9728 §3.3).
    #[error("the document is that of `{received}`, not of `{expected}`; if you trust it, give `{received}`")]
    ResourceMismatch {
        /// The API that was asked for.
        expected: String,
        /// The resource that the document names, cut and cleaned.
        received: String,
    },
    /// The API's document names no authorization server.
    #[error(
        "the API's document names no authorization server (RFC 9728); ask its maker, and give the server's issuer instead"
    )]
    NoAuthorizationServer,
    /// The document belongs to another issuer (RFC 8414 §3.3).
    #[error(
        "the discovery document is that of the issuer `{received}`, not of `{expected}`; if you trust it, set the issuer to exactly `{received}`"
    )]
    IssuerMismatch {
        /// The issuer that was asked for.
        expected: String,
        /// The issuer that the document names, cut and cleaned.
        received: String,
    },
}

/// Where an issuer's document may be, in the order to try: OpenID Connect Discovery §4.1 (appended to
/// the path), RFC 8414 §3.1 (inserted before the path), and the OpenID document inserted (RFC 8414 §5).
pub fn discovery_urls(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let mut urls: Vec<Url> = Vec::new();
    for place in [format!("{path}{OPENID}"), format!("{OAUTH}{path}"), format!("{OPENID}{path}")] {
        let mut url = issuer.clone();
        url.set_path(&place);
        url.set_query(None);
        url.set_fragment(None);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// Where the document of an API may be: inserted before the path (RFC 9728 §3.1), and that of the whole host, which some give instead.
pub fn resource_urls(resource: &Url) -> Vec<Url> {
    let path = resource.path().trim_end_matches('/');
    let mut urls: Vec<Url> = Vec::new();
    for place in [format!("{RESOURCE}{path}"), RESOURCE.to_owned()] {
        let mut url = resource.clone();
        url.set_path(&place);
        url.set_query(None);
        url.set_fragment(None);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// The API of a pasted address: that of its document gives the API, any other is the API's own.
pub fn resource_of(url: &Url) -> Url {
    let mut resource = url.clone();
    resource.set_query(None);
    resource.set_fragment(None);
    if let Some(path) = url.path().strip_prefix(RESOURCE) {
        resource.set_path(path);
    }
    resource
}

/// The document's address that an API names with its refusal: `WWW-Authenticate: Bearer resource_metadata="…"` (RFC 9728 §5.1).
pub fn resource_metadata_of(www_authenticate: &str) -> Option<Url> {
    let (_, rest) = www_authenticate.split_once("resource_metadata=")?;
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split([',', ' ']).next()?,
    };
    Url::parse(value).ok().filter(|url| matches!(url.scheme(), "https" | "http"))
}

/// Reads an API's document and makes sure that it speaks for this API (RFC 9728 §3.3), or for a part of its host that the API is below: so do many.
///
/// # Errors
/// [`DiscoveryError`]; the texts say the remedy.
pub fn read_resource_metadata(api: &Url, status: u16, body: &[u8]) -> Result<ResourceMetadata, DiscoveryError> {
    if status != 200 {
        return Err(DiscoveryError::Status(status));
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let document: Value = serde_json::from_slice(body).map_err(|_| DiscoveryError::NotJson)?;
    if !document.is_object() {
        return Err(DiscoveryError::NotJson);
    }
    let metadata: ResourceMetadata = serde_json::from_value(document).map_err(|_| DiscoveryError::MissingResource)?;
    let of = &metadata.resource;
    let part = of.path().trim_end_matches('/');
    let below = api.path().strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if of.origin() != api.origin() || !of.origin().is_tuple() || !below {
        return Err(DiscoveryError::ResourceMismatch {
            expected: api.to_string(),
            received: clean(of.as_str(), MAX_TEXT).unwrap_or_default(),
        });
    }
    Ok(metadata)
}

/// The issuer of a pasted address: that of a discovery document gives its issuer, any other is taken
/// for the issuer itself. White space around it is dropped.
pub fn issuer_of(url: &str) -> String {
    let url = url.trim();
    let bare = url.split(['?', '#']).next().unwrap_or(url);
    let document = [OPENID, OAUTH].into_iter().find_map(|known| bare.split_once(known));
    match document {
        // The path that follows is one that the well-known part was inserted before.
        Some((before, after)) if after.is_empty() || after.starts_with('/') => {
            format!("{before}{}", after.trim_end_matches('/'))
        }
        _ => url.to_owned(),
    }
}

/// Reads a discovery document and makes sure that it is the expected issuer's: compared as text,
/// without normalisation (RFC 8414 §3.3).
///
/// # Errors
/// [`DiscoveryError`]; the texts say the remedy.
pub fn read_metadata(expected_issuer: &str, status: u16, body: &[u8]) -> Result<Metadata, DiscoveryError> {
    if status != 200 {
        return Err(DiscoveryError::Status(status));
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let document: Value = serde_json::from_slice(body).map_err(|_| DiscoveryError::NotJson)?;
    if !document.is_object() {
        return Err(DiscoveryError::NotJson);
    }
    // All members but the issuer are lenient, so it is the only one that can fail.
    let metadata: Metadata = serde_json::from_value(document).map_err(|_| DiscoveryError::MissingIssuer)?;
    if metadata.issuer != expected_issuer {
        return Err(DiscoveryError::IssuerMismatch {
            expected: expected_issuer.to_owned(),
            received: clean(&metadata.issuer, MAX_TEXT).unwrap_or_default(),
        });
    }
    Ok(metadata)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let url: Option<Url> = lenient(deserializer)?;
    // A browser is sent to some of these: never to `javascript:` and the like.
    Ok(url.filter(|url| matches!(url.scheme(), "https" | "http")))
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let values: Option<Vec<Value>> = lenient(deserializer)?;
    Ok(values.map(|values| values.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
}

fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}
