//! How the API is called.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request};
use keyholder_oauth::{Params, Predicate, Secret, SecretBytes, TokenSet};
use url::Url;

use super::bad_url;
use super::inputs::Inputs;
use crate::definition::{BodyPhase, ExpiredWhen, Limits, PlaceOfToken};
use crate::endpoint::{host_covers, is_host_pattern};
use crate::error::RenderError;
use crate::template::{Place, Placeholder, Source, UrlTemplate};

/// How the API is called.
#[derive(Clone, Debug)]
pub struct Api {
    /// What paths are appended to. `None` if nobody gave one, or if it comes from the token reply or a lookup that is yet to come.
    pub base_url: Option<Url>,
    /// The only hosts that may get credentials, in lower case: exact, or `*.example.com` for everything below. That of `base_url` is among them or covered.
    pub hosts: Vec<String>,
    /// Where the token goes; at least one place.
    pub token: Vec<Placement>,
    /// Sent with every call.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Sent with every call, in the query.
    pub query: Params,
    /// A call that is cheap, needs a token and changes nothing.
    pub verify: Option<Verify>,
    /// Besides a 401: what means that the token has expired.
    pub expired_when: Vec<ExpiredWhen>,
    /// What the API allows.
    pub limits: Limits,
}

/// One place where a token goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where.
    pub place: PlaceOfToken,
    /// Before the token, with a space between unless it is empty.
    pub prefix: String,
    /// The secondary token of this name; `None` = the access token.
    pub secondary: Option<String>,
}

/// A call that shows whether a connection works.
#[derive(Clone, Debug)]
pub struct Verify {
    /// GET unless the definition says otherwise.
    pub method: Method,
    /// Below the base URL, with its query.
    pub path: String,
    /// Beside those of every call.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the body says, if there is one.
    pub params: Params,
    /// The body is JSON, else a form.
    pub json: bool,
    /// What the answer must say, beside a status that is a success.
    pub expect: Option<Predicate>,
}

impl Verify {
    /// The body with its content type; `None` for a call without one.
    pub fn body(&self) -> Option<(HeaderValue, SecretBytes)> {
        let (content_type, body) = match self.json {
            _ if self.params.is_empty() => return None,
            true => ("application/json", self.params.to_json()),
            false => ("application/x-www-form-urlencoded", self.params.to_form()),
        };
        Some((HeaderValue::from_static(content_type), SecretBytes::new(body.into_bytes())))
    }
}

/// What is added to a call. `Debug` shows names only.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// They replace those of the same name; marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// They replace parameters of the same name.
    pub query: Params,
    /// For the form or JSON object that is sent.
    pub body: Params,
}

impl Api {
    /// Whether a host, in lower case as [`Url::host_str`] gives it, may get credentials.
    pub fn allows(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| host_covers(pattern, host))
    }

    /// The first header that carries the access token, with what stands before it: all there is, for most APIs.
    pub fn header(&self) -> Option<(&HeaderName, &str)> {
        self.token.iter().find_map(|placement| match &placement.place {
            PlaceOfToken::Header(name) if placement.secondary.is_none() => Some((name, placement.prefix.as_str())),
            _ => None,
        })
    }

    /// The tokens in their places.
    ///
    /// # Errors
    /// [`RenderError::MissingToken`] if the connection has no such secondary token, [`RenderError::BadHeader`].
    pub fn credentials(&self, tokens: &TokenSet) -> Result<Credentials, RenderError> {
        let mut credentials = Credentials::default();
        for placement in &self.token {
            let token = match &placement.secondary {
                None => &tokens.access_token,
                Some(name) => tokens
                    .secondary
                    .get(name)
                    .map(|token| &token.access_token)
                    .ok_or_else(|| RenderError::MissingToken { name: name.clone() })?,
            };
            let text = Secret::new(match placement.prefix.as_str() {
                "" => token.expose().to_owned(),
                prefix => format!("{prefix} {}", token.expose()),
            });
            match &placement.place {
                PlaceOfToken::Header(name) => {
                    let mut value = HeaderValue::from_str(text.expose())
                        .map_err(|_| RenderError::BadHeader { header: name.to_string() })?;
                    value.set_sensitive(true);
                    credentials.headers.push((name.clone(), value));
                }
                PlaceOfToken::Query(name) => credentials.query.set(name.as_str(), text.expose()),
                PlaceOfToken::Body(name) => credentials.body.set(name.as_str(), text.expose()),
            }
        }
        Ok(credentials)
    }

    /// Whether an answer means that the access token has expired.
    pub fn has_expired(&self, status: u16, body: &[u8]) -> bool {
        let mut data: Option<serde_json::Value> = None;
        status == 401
            || self.expired_when.iter().any(|when| {
                when.status.is_none_or(|wanted| wanted == status)
                    && when.body.as_ref().is_none_or(|predicate| {
                        let read = || serde_json::from_slice(body).unwrap_or_default();
                        predicate.holds(data.get_or_insert_with(read))
                    })
            })
    }

    /// The call of `verify`, with the tokens in their places; `None` if there is none, or no base URL yet.
    ///
    /// # Errors
    /// [`RenderError`], as [`Api::credentials`].
    pub fn verify_request(&self, tokens: &TokenSet) -> Result<Option<Request<SecretBytes>>, RenderError> {
        let (Some(verify), Some(base)) = (&self.verify, &self.base_url) else { return Ok(None) };
        let call = Call {
            field: "api.verify",
            method: verify.method.clone(),
            url: below(base, &verify.path),
            headers: &verify.headers,
            query: &Params::new(),
            params: verify.params.clone(),
            json: verify.json,
        };
        self.request(call, tokens).map(Some)
    }

    /// A request of ours with the API's headers and query, `more` of its own, and the tokens in their places.
    pub(super) fn request(&self, call: Call<'_>, tokens: &TokenSet) -> Result<Request<SecretBytes>, RenderError> {
        let credentials = self.credentials(tokens)?;
        let mut url = call.url;
        let mut query = self.query.clone();
        for (name, value) in call.query.iter().chain(credentials.query.iter()) {
            query.set(name, value);
        }
        let mut params = call.params;
        for (name, value) in credentials.body.iter() {
            params.set(name, value);
        }
        let in_query = call.method == Method::GET;
        let more = if in_query { params.iter().collect::<Vec<_>>() } else { Vec::new() };
        let pairs: Vec<(&str, &str)> = query.iter().chain(more).collect();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        let (content_type, body) = match call.json {
            _ if in_query || params.is_empty() => (None, String::new()),
            true => (Some("application/json"), params.to_json()),
            false => (Some("application/x-www-form-urlencoded"), params.to_form()),
        };
        let mut request = Request::new(SecretBytes::new(body.into_bytes()));
        *request.method_mut() = call.method;
        *request.uri_mut() =
            url.as_str().parse().map_err(|_| bad_url(call.field, "it is not an address".to_owned()))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, value) in self.headers.iter().chain(call.headers).chain(&credentials.headers) {
            headers.insert(name, value.clone());
        }
        Ok(request)
    }

    /// Whoever can forge a reply must not choose where tokens go.
    pub(super) fn must_allow(&self, template: &UrlTemplate, url: &Url) -> Result<(), RenderError> {
        let host = url.host_str().unwrap_or_default();
        if provider_says(template) && !self.allows(host) {
            return Err(RenderError::HostNotListed { host: host.to_owned() });
        }
        Ok(())
    }
}

/// A request of ours with the tokens.
pub(super) struct Call<'a> {
    /// The definition's field, for errors.
    pub field: &'static str,
    pub method: Method,
    pub url: Url,
    pub headers: &'a [(HeaderName, HeaderValue)],
    pub query: &'a Params,
    pub params: Params,
    pub json: bool,
}

/// A path with its query, below a base URL.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url
}

/// Whether an address is one that the provider named.
fn provider_says(template: &UrlTemplate) -> bool {
    template.placeholders().iter().any(|(placeholder, place)| {
        *place != Place::PathOrQuery && matches!(placeholder, Placeholder::Said(Source::Reply | Source::Lookup, _))
    })
}

impl Inputs<'_> {
    pub(super) fn api(&self, prefix: Option<&str>) -> Result<Api, RenderError> {
        let phase = &self.method.phases.api;
        let mut hosts = Vec::new();
        for template in &phase.hosts {
            let Some(host) = self.text(template)? else { continue };
            let host = host.to_ascii_lowercase();
            if !is_host_pattern(&host) {
                return Err(bad_url("api.hosts", format!("`{host}` is neither a host nor *.example.com")));
            }
            hosts.push(host);
        }
        let base_url = phase.base_url.as_ref().map_or(Ok(None), |template| self.url("api.base_url", template))?;
        if let (Some(template), Some(host)) = (&phase.base_url, base_url.as_ref().and_then(Url::host_str)) {
            let covered = hosts.iter().any(|pattern| host_covers(pattern, host));
            if !covered && provider_says(template) {
                return Err(RenderError::HostNotListed { host: host.to_owned() });
            }
            if !covered {
                hosts.push(host.to_owned());
            }
        }
        let verify = match &phase.verify {
            None => None,
            Some(verify) => match verify.path.render(|placeholder| self.value(placeholder))? {
                None => None,
                Some(path) => Some(Verify {
                    method: verify.request.method.clone(),
                    path,
                    headers: self.headers(&verify.request.headers)?,
                    params: self.params(&verify.request.params)?,
                    json: verify.request.body == Some(BodyPhase::Json),
                    expect: verify.expect.clone(),
                }),
            },
        };
        Ok(Api {
            base_url,
            hosts,
            token: self.placements(prefix),
            headers: self.headers(&phase.headers)?,
            query: self.texts(&phase.query)?,
            verify,
            expired_when: phase.expired_when.clone(),
            limits: phase.limits.clone(),
        })
    }

    /// The definition's places, or that of RFC 6750 §2.1. The chosen prefix is for the first header.
    fn placements(&self, prefix: Option<&str>) -> Vec<Placement> {
        let written = self.method.phases.api.token.iter();
        let mut placements: Vec<Placement> = written
            .map(|phase| Placement {
                place: phase.place.clone(),
                prefix: phase.prefix.clone(),
                secondary: phase.secondary.clone(),
            })
            .collect();
        if placements.is_empty() {
            let place = PlaceOfToken::Header(http::header::AUTHORIZATION);
            placements.push(Placement { place, prefix: "Bearer".to_owned(), secondary: None });
        }
        let first = placements.iter_mut().find(|placement| matches!(placement.place, PlaceOfToken::Header(_)));
        if let (Some(prefix), Some(first)) = (prefix, first) {
            first.prefix = prefix.to_owned();
        }
        placements
    }
}
