//! Token requests (RFC 6749 §4.1.3, §4.3.2, §4.4.2, §6; RFC 7522, 7523, 8628, 8693).

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use url::Url;
use zeroize::Zeroizing;

use crate::client_auth::{Authenticated, Client, ClientAssertion, ClientAuth};
use crate::error::RequestError;
use crate::jwt::{Encoding, Hash, Moment, hash_of};
use crate::params::Params;
use crate::pkce::Verifier;
use crate::query;
use crate::secret::{Secret, SecretBytes};

/// Where the parameters of a request go; `Form` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded`, as RFC 6749 §3.2 demands.
    #[default]
    Form,
    /// One JSON object.
    Json,
    /// The query of the URL; the body is empty. The URL then holds secrets: never log it.
    Query,
    /// A text of its own that says where each parameter stands.
    Template(BodyTemplate),
}

/// A body in a provider's own form.
#[derive(Clone, PartialEq, Eq)]
pub struct BodyTemplate {
    /// The `Content-Type`; it decides how parameters are escaped.
    pub content_type: HeaderValue,
    /// What is sent, in order.
    pub parts: Vec<BodyPart>,
}

/// A piece of a [`BodyTemplate`].
#[derive(Clone, PartialEq, Eq)]
pub enum BodyPart {
    /// Sent as it is; may hold secrets.
    Text(String),
    /// The request's parameter of this standard name, escaped; nothing if the request has none.
    Param(String),
}

/// How values are escaped in a body, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Inside a JSON string.
    Json,
    /// In the text or an attribute of XML.
    Xml,
    /// In a form.
    Form,
    /// Not at all.
    Plain,
}

/// How several scopes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScopeFormat {
    /// One text (RFC 6749 §3.3).
    #[default]
    Text,
    /// A JSON array; in a form or a query, its text.
    Array,
    /// The parameter once for each.
    Repeat,
}

/// How a token endpoint (or another one that a client authenticates at) is asked.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    /// The endpoint. Its own query is kept (RFC 6749 §3.2), a fragment is not sent.
    pub url: Url,
    /// POST (RFC 6749 §3.2); a GET has its parameters in the query.
    pub method: Method,
    /// How the client authenticates.
    pub client_auth: ClientAuth,
    /// What its assertion says, where it authenticates by one.
    pub client_assertion: ClientAssertion,
    /// Where the parameters go. [`ClientAuth::Json`] makes it [`BodyFormat::Json`].
    pub body: BodyFormat,
    /// How several scopes are sent.
    pub scope_format: ScopeFormat,
    /// More headers. They replace those set here, `Accept`, `Content-Type` and `Authorization` too.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// More parameters of the URL, wherever the others go.
    pub query: Params,
    /// More parameters, named as they are sent. One that is there already is replaced.
    pub params: Params,
    /// More parameters, which are made of others when the request is made.
    pub hashed: Vec<HashedParam>,
    /// `(standard name, new name or None = drop)`, for the standard parameters and the client's credentials.
    pub renames: Vec<(String, Option<String>)>,
}

/// A parameter that is the hash of a text in which others stand. Left out if one of them is not there.
#[derive(Clone)]
pub struct HashedParam {
    /// Its name, as it is sent.
    pub name: String,
    /// How it is made.
    pub hash: Hash,
    /// How it is written.
    pub encoding: Encoding,
    /// What it is made over, in order; nothing is escaped.
    pub over: Vec<BodyPart>,
}

impl TokenEndpoint {
    /// An endpoint as RFC 6749 has it.
    pub fn new(url: Url, client_auth: ClientAuth) -> Self {
        Self {
            url,
            method: Method::POST,
            client_auth,
            client_assertion: ClientAssertion::default(),
            body: BodyFormat::Form,
            scope_format: ScopeFormat::Text,
            headers: Vec::new(),
            query: Params::new(),
            params: Params::new(),
            hashed: Vec::new(),
            renames: Vec::new(),
        }
    }
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
    /// As `RefreshToken`, for servers that extend an access token instead: it is sent as `access_token`.
    AccessToken {
        /// The access token.
        access_token: &'a Secret,
    },
    /// RFC 8628 §3.4.
    DeviceCode {
        /// What [`crate::read_device_reply`] gave.
        device_code: &'a Secret,
    },
    /// RFC 7523 §2.1. The `assertion` is among the endpoint's own parameters.
    JwtBearer,
    /// RFC 7522 §2.1. The `assertion` is among the endpoint's own parameters.
    SamlBearer,
    /// RFC 8693 §2.1. `subject_token`, `subject_token_type` and the rest are among the endpoint's own parameters.
    TokenExchange,
    /// Nothing but the endpoint's own parameters: an exchange that no standard knows.
    Own,
}

/// Builds the request that exchanges a grant for a token set.
///
/// It has `Accept: application/json`. The parameters' order is `grant_type`, the grant's own, `scope`, `endpoint.params`,
/// the client's credentials. `scope` is already joined with the provider's separator (with a space, where the
/// endpoint's format is not `Text`) and sent only if given. With [`BodyFormat::Query`] the request's URI holds secrets.
///
/// # Errors
/// [`RequestError`] if the client lacks a secret or the endpoint can't be asked; nothing was sent.
pub fn token_request(
    endpoint: &TokenEndpoint,
    client: &Client,
    grant: &Grant<'_>,
    scope: Option<&str>,
    moment: &Moment,
) -> Result<Request<SecretBytes>, RequestError> {
    let mut params = grant_params(grant);
    push_scope(&mut params, scope, endpoint.scope_format);
    client_request(endpoint, client, params, moment)
}

/// Adds the scope as the provider wants it.
pub(crate) fn push_scope(params: &mut Params, scope: Option<&str>, format: ScopeFormat) {
    let Some(scope) = scope else { return };
    let each = || scope.split(' ').filter(|scope| !scope.is_empty());
    match format {
        ScopeFormat::Text => params.push("scope", scope),
        ScopeFormat::Array => params.push_json("scope", &each().collect()),
        ScopeFormat::Repeat => each().for_each(|scope| params.push("scope", scope)),
    }
}

/// Builds a request that the client authenticates, out of its standard parameters.
pub(crate) fn client_request(
    endpoint: &TokenEndpoint,
    client: &Client,
    mut params: Params,
    moment: &Moment,
) -> Result<Request<SecretBytes>, RequestError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let (mut credentials, mut query) = (Params::new(), Params::new());
    let mut authenticated = Authenticated { headers: &mut headers, params: &mut credentials, query: &mut query };
    let TokenEndpoint { client_auth, client_assertion, renames, .. } = endpoint;
    client_auth.apply(client, client_assertion, &endpoint.url, moment, &mut authenticated)?;

    let written = match &endpoint.body {
        // A template names the parameters by their standard names.
        BodyFormat::Template(template) => Some(template.fill(&params, &endpoint.params, &credentials)),
        _ => None,
    };
    let standard = |name: &str| {
        [&credentials, &endpoint.params, &params].into_iter().find_map(|params| params.value(name)).map(str::to_owned)
    };
    let hashed: Vec<Option<String>> = endpoint.hashed.iter().map(|hashed| hashed.made(standard)).collect();
    params.apply_renames(renames);
    credentials.apply_renames(renames);
    query.apply_renames(renames);
    params.overlay(&endpoint.params);
    for (param, value) in endpoint.hashed.iter().zip(hashed) {
        if let Some(value) = value {
            params.set(param.name.as_str(), value);
        }
    }
    for (name, value) in credentials.iter() {
        params.set(name, value);
    }
    query.overlay(&endpoint.query);

    let in_query = endpoint.method == Method::GET || endpoint.body == BodyFormat::Query;
    let mut url = if query.is_empty() { endpoint.url.clone() } else { query::with_params(&endpoint.url, &query) };
    let body = if in_query {
        url = query::with_params(&url, &params);
        String::new()
    } else {
        let (content_type, body) = match (&endpoint.body, written) {
            (BodyFormat::Template(template), Some(body)) => (template.content_type.clone(), body),
            (BodyFormat::Json, _) => (HeaderValue::from_static("application/json"), params.to_json()),
            _ if *client_auth == ClientAuth::Json => (HeaderValue::from_static("application/json"), params.to_json()),
            _ => (HeaderValue::from_static("application/x-www-form-urlencoded"), params.to_form()),
        };
        headers.insert(CONTENT_TYPE, content_type);
        body
    };
    override_headers(&mut headers, &endpoint.headers);

    let mut request = Request::new(SecretBytes::new(body.into_bytes()));
    *request.method_mut() = endpoint.method.clone();
    *request.uri_mut() = uri(url)?;
    *request.headers_mut() = headers;
    Ok(request)
}

impl BodyTemplate {
    fn fill(&self, standard: &Params, own: &Params, credentials: &Params) -> String {
        let escape = Escape::of_content_type(self.content_type.to_str().unwrap_or_default());
        let mut out = String::with_capacity(1 << 12);
        for part in &self.parts {
            match part {
                BodyPart::Text(text) => out.push_str(text),
                BodyPart::Param(name) => {
                    let value = [credentials, own, standard].into_iter().find_map(|params| params.value(name));
                    out.push_str(&escape.apply(value.unwrap_or_default()));
                }
            }
        }
        out
    }
}

impl HashedParam {
    fn made(&self, param: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut over = Zeroizing::new(String::with_capacity(1 << 12));
        for part in &self.over {
            match part {
                BodyPart::Text(text) => over.push_str(text),
                BodyPart::Param(name) => over.push_str(&Zeroizing::new(param(name)?)),
            }
        }
        Some(self.encoding.encode(&hash_of(self.hash, over.as_bytes())))
    }
}

impl std::fmt::Debug for HashedParam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashedParam").field("name", &self.name).field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BodyTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyTemplate").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

impl Escape {
    /// By the type's name: `…json`, `…xml`, `application/x-www-form-urlencoded`.
    pub fn of_content_type(content_type: &str) -> Self {
        let name = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if name.ends_with("json") {
            Self::Json
        } else if name.ends_with("xml") {
            Self::Xml
        } else if name == "application/x-www-form-urlencoded" {
            Self::Form
        } else {
            Self::Plain
        }
    }

    /// The value as it may stand in such a body.
    pub fn apply(self, value: &str) -> String {
        match self {
            Self::Json => {
                let quoted = serde_json::Value::from(value).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            Self::Xml => value
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .replace('\'', "&apos;"),
            Self::Form => url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
            Self::Plain => value.to_owned(),
        }
    }
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
        Grant::AccessToken { access_token } => {
            params.push("grant_type", "refresh_token");
            params.push("access_token", access_token.expose());
        }
        Grant::DeviceCode { device_code } => {
            params.push("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
            params.push("device_code", device_code.expose());
        }
        Grant::JwtBearer => params.push("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        Grant::SamlBearer => params.push("grant_type", "urn:ietf:params:oauth:grant-type:saml2-bearer"),
        Grant::TokenExchange => params.push("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        Grant::Own => {}
    }
    params
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
