//! Token requests (RFC 6749 §4.1.3, §4.3.2, §4.4.2, §6).

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use serde::Deserialize;
use url::Url;

use crate::client_auth::{Client, ClientAuth};
use crate::error::RequestError;
use crate::params::Params;
use crate::pkce::Verifier;
use crate::query;
use crate::secret::{Secret, SecretBytes};

/// Where the parameters of a request go. Written in snake case; `form` is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded`, as RFC 6749 §3.2 demands.
    #[default]
    Form,
    /// One JSON object of strings.
    Json,
    /// The query of the URL; the body is empty. The URL then holds secrets: never log it.
    Query,
}

/// How a token endpoint (or another one that a client authenticates at) is asked.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    /// The endpoint. Its own query is kept (RFC 6749 §3.2), a fragment is not sent.
    pub url: Url,
    /// How the client authenticates.
    pub client_auth: ClientAuth,
    /// Where the parameters go. [`ClientAuth::Json`] makes it [`BodyFormat::Json`].
    pub body: BodyFormat,
    /// More headers. They replace those set here, `Accept`, `Content-Type` and `Authorization` too.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// More parameters, named as they are sent. One that is there already is replaced.
    pub params: Params,
    /// `(standard name, new name or None = drop)`, for the standard parameters and the client's credentials.
    pub renames: Vec<(String, Option<String>)>,
}

/// What is exchanged for a token set.
#[derive(Clone, Copy, Debug)]
pub enum Grant<'a> {
    /// RFC 6749 §4.1.3, with the verifier of RFC 7636 §4.5.
    AuthorizationCode {
        /// The code from the callback; good for one use.
        code: &'a Secret,
        /// The redirect URI of the authorization request, byte for byte.
        redirect_uri: &'a str,
        /// The PKCE verifier, if a challenge was sent.
        verifier: Option<&'a Verifier>,
    },
    /// RFC 6749 §4.4.2.
    ClientCredentials,
    /// RFC 6749 §4.3.2.
    Password {
        /// The resource owner's name.
        username: &'a str,
        /// The resource owner's password.
        password: &'a Secret,
    },
    /// RFC 6749 §6.
    RefreshToken {
        /// The refresh token.
        refresh_token: &'a Secret,
    },
}

/// Builds the request that exchanges a grant for a token set.
///
/// Always a POST (RFC 6749 §3.2) with `Accept: application/json`. The parameters' order is
/// `grant_type`, the grant's own, `scope`, `endpoint.params`, the client's credentials.
/// `scope` is already joined with the provider's separator and sent only if given.
/// With [`BodyFormat::Query`] the request's URI holds secrets.
///
/// # Errors
/// [`RequestError`] if the client lacks a secret or the endpoint can't be asked; nothing was sent.
pub fn token_request(
    endpoint: &TokenEndpoint,
    client: &Client,
    grant: &Grant<'_>,
    scope: Option<&str>,
) -> Result<Request<SecretBytes>, RequestError> {
    let mut params = grant_params(grant);
    if let Some(scope) = scope {
        params.push("scope", scope);
    }
    client_request(endpoint, client, params)
}

/// Builds a request that the client authenticates, out of its standard parameters.
pub(crate) fn client_request(
    endpoint: &TokenEndpoint,
    client: &Client,
    mut params: Params,
) -> Result<Request<SecretBytes>, RequestError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let mut credentials = Params::new();
    endpoint.client_auth.apply(client, &mut headers, &mut credentials)?;

    params.apply_renames(&endpoint.renames);
    credentials.apply_renames(&endpoint.renames);
    params.overlay(&endpoint.params);
    for (name, value) in credentials.iter() {
        params.set(name, value);
    }

    let format = if endpoint.client_auth == ClientAuth::Json { BodyFormat::Json } else { endpoint.body };
    let (url, body) = place(&endpoint.url, &params, format, &mut headers);
    override_headers(&mut headers, &endpoint.headers);

    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri(url)?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn grant_params(grant: &Grant<'_>) -> Params {
    let mut params = Params::new();
    match grant {
        Grant::AuthorizationCode { code, redirect_uri, verifier } => {
            params.push("grant_type", "authorization_code");
            params.push("code", code.expose());
            params.push("redirect_uri", *redirect_uri);
            if let Some(verifier) = verifier {
                params.push("code_verifier", verifier.expose());
            }
        }
        Grant::ClientCredentials => params.push("grant_type", "client_credentials"),
        Grant::Password { username, password } => {
            params.push("grant_type", "password");
            params.push("username", *username);
            params.push("password", password.expose());
        }
        Grant::RefreshToken { refresh_token } => {
            params.push("grant_type", "refresh_token");
            params.push("refresh_token", refresh_token.expose());
        }
    }
    params
}

fn place(url: &Url, params: &Params, format: BodyFormat, headers: &mut HeaderMap) -> (Url, SecretBytes) {
    let (content_type, body) = match format {
        BodyFormat::Query => {
            return (query::with_params(url, params), SecretBytes::new(Vec::new()));
        }
        BodyFormat::Form => ("application/x-www-form-urlencoded", params.to_form()),
        BodyFormat::Json => ("application/json", params.to_json()),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    (url.clone(), SecretBytes::new(body.into_bytes()))
}

/// A header named by the definition replaces ours; named twice, it is sent twice.
fn override_headers(headers: &mut HeaderMap, ours: &[(HeaderName, HeaderValue)]) {
    for (name, _) in ours {
        headers.remove(name);
    }
    for (name, value) in ours {
        let mut value = value.clone();
        value.set_sensitive(value.is_sensitive() || name == AUTHORIZATION);
        headers.append(name, value);
    }
}

fn uri(mut url: Url) -> Result<Uri, RequestError> {
    // RFC 6749 §3.2: the endpoint has no fragment.
    url.set_fragment(None);
    let sendable = matches!(url.scheme(), "https" | "http") && url.username().is_empty() && url.password().is_none();
    let parsed = sendable.then(|| url.as_str().parse().ok()).flatten();
    parsed.ok_or_else(|| {
        RequestError::BadUrl(format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path()))
    })
}
