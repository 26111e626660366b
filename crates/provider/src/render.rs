//! A definition with values put in: what the protocol needs to know for one integration or connection.

use http::{HeaderName, HeaderValue};
use keyholder_oauth::{ClientAuth, Metadata, Params, ReplyRules, TokenEndpoint, discovery_urls, issuer_of};
use url::Url;

use crate::definition::{
    Definition, GrantKind, KnownError, Method, Pkce, Recovery, RefreshLife, RequestPhase, RevokedToken, Values,
    Variable,
};
use crate::endpoint::{check_endpoint, host_covers, is_host_pattern, read_endpoint};
use crate::error::RenderError;
use crate::template::{Placeholder, REPLY, Template, UrlProblem, UrlTemplate};

/// What an integration chooses beside the values of variables.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Instead of the definition's and the discovery document's, at every endpoint.
    pub client_auth: Option<ClientAuth>,
    /// Instead of the definition's prefix before the token in API calls; may be empty.
    pub header_prefix: Option<String>,
    /// For whom the token is meant; goes where the definition has `{{audience}}`. Empty is the same as none.
    pub audience: Option<String>,
    /// What to ask for; empty means the definition's default. An entry with spaces counts as several.
    pub scopes: Vec<String>,
}

/// Where the discovery document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// What `issuer` in the document must be, to the letter (RFC 8414 §3.3).
    pub issuer: String,
    /// Where to look, in this order.
    pub urls: Vec<Url>,
}

/// Everything about one provider that the broker needs in order to obtain, renew, use and revoke tokens.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The grant to run.
    pub grant: GrantKind,
    /// What `iss` in the callback is compared with (RFC 9207), if known.
    pub issuer: Option<String>,
    /// Whether a callback without `iss` is refused.
    pub issuer_required: bool,
    /// Only for [`GrantKind::AuthorizationCode`].
    pub authorize: Option<Authorize>,
    /// Where the grant is exchanged.
    pub token: TokenEndpoint,
    /// Where refresh tokens are used; its parameters are its own, not those of `token`.
    pub refresh: TokenEndpoint,
    /// Whether the refresh request repeats the scope (RFC 6749 §6 leaves it open).
    pub refresh_sends_scope: bool,
    /// How replies of `token` and `refresh` are read.
    pub reply: ReplyRules,
    /// The requested scopes joined as the provider wants them; `None` if there are none.
    pub scope: Option<String>,
    /// The same, one by one, without repetition.
    pub requested_scopes: Vec<String>,
    /// How to revoke, if the provider has a way that is known.
    pub revoke: Option<Revoke>,
    /// How tokens are used.
    pub api: Api,
    /// What happens to a refresh token whose reply was lost.
    pub recovery: Recovery,
    /// How long refresh tokens live.
    pub refresh_life: RefreshLife,
    /// Error codes with their remedy.
    pub known_errors: Vec<KnownError>,
}

/// The authorization request.
#[derive(Clone, Debug)]
pub struct Authorize {
    /// The endpoint; may have a query, which is kept (RFC 6749 §3.1).
    pub url: Url,
    /// Parameters beyond the standard ones.
    pub params: Params,
    /// Standard name and the provider's name for it; `None` = the parameter is not sent.
    pub renames: Vec<(String, Option<String>)>,
    /// Whether to send a code challenge.
    pub pkce: Pkce,
    /// Whether to send a nonce: the definition says that the provider knows it, and `openid` is asked for.
    pub nonce: bool,
}

/// Revocation (RFC 7009).
#[derive(Clone, Debug)]
pub struct Revoke {
    /// Where and how.
    pub endpoint: TokenEndpoint,
    /// Which token to name.
    pub token: RevokedToken,
}

/// How the API is called.
#[derive(Clone, Debug)]
pub struct Api {
    /// What paths are appended to. `None` if nobody gave one, or if it comes from the token reply and there is none yet.
    pub base_url: Option<Url>,
    /// The only hosts that may get credentials, in lower case: exact, or `*.example.com` for everything below. That of `base_url` is among them or covered.
    pub hosts: Vec<String>,
    /// Header that carries the token.
    pub header: HeaderName,
    /// Before the token, with a space between unless it is empty.
    pub prefix: String,
    /// Sent with every call.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A path below `base_url` whose GET is cheap, needs a token and changes nothing.
    pub verify_path: Option<String>,
}

impl Api {
    /// Whether a host, in lower case as [`Url::host_str`] gives it, may get credentials.
    pub fn allows(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| host_covers(pattern, host))
    }
}

impl Definition {
    /// The method of this name, or the first one. `code` is short for the method `authorization_code`.
    pub fn method(&self, name: Option<&str>) -> Result<&Method, RenderError> {
        let wanted = match name {
            None => return Ok(&self.methods[0]),
            Some("code") => GrantKind::AuthorizationCode.as_str(),
            Some(name) => name,
        };
        self.methods.iter().find(|method| method.name == wanted).ok_or_else(|| RenderError::UnknownMethod {
            provider: self.id.clone(),
            method: wanted.to_owned(),
            known: self.methods.iter().map(|method| method.name.clone()).collect(),
        })
    }

    /// Where the discovery document is; `None` if the definition uses none.
    pub fn discovery(&self, method: &Method, values: &Values) -> Result<Option<Discovery>, RenderError> {
        let Some(discover) = &self.phases.discover else {
            return Ok(None);
        };
        let inputs = Inputs { definition: self, method, values, audience: None };
        let Some(text) = inputs.url_text("discover.issuer", &discover.issuer)? else {
            return Ok(None);
        };
        let issuer = issuer_of(&text);
        let url = read_endpoint(&issuer).map_err(|reason| bad_url("discover.issuer", reason))?;
        let issuer = discover.documents.get(&issuer).cloned().unwrap_or(issuer);
        Ok(Some(Discovery { issuer, urls: discovery_urls(&url) }))
    }

    /// Puts values into the templates.
    ///
    /// `values` holds those of the integration and of the connection together. The text members of the token reply
    /// (`TokenSet::extra`) may be added as `reply.NAME`; a definition whose API base comes from the reply gives
    /// [`Api::base_url`] only then. Values for variables that do not exist are ignored here; `check_values` refuses them.
    ///
    /// What the definition says wins over `discovered`. Client authentication is, in this order: the choice's, the
    /// definition's, one that the discovery document offers, `basic` (RFC 6749 §2.3.1, RFC 8414 §2).
    pub fn render(
        &self,
        method: &Method,
        values: &Values,
        choice: &Choice,
        discovered: Option<&Metadata>,
    ) -> Result<Rendered, RenderError> {
        let audience = choice.audience.as_deref().filter(|audience| !audience.is_empty());
        let inputs = Inputs { definition: self, method, values, audience };
        for variable in self.variables_of(method) {
            inputs.value_of(variable)?;
        }
        let requested_scopes = self.requested_scopes(method, &choice.scopes)?;
        let endpoints = Endpoints { inputs, client_auth: choice.client_auth, discovered };
        let token = endpoints.token()?;
        Ok(Rendered {
            grant: method.grant,
            issuer: endpoints.issuer()?,
            issuer_required: self.phases.callback.issuer_required
                || discovered.is_some_and(|document| document.authorization_response_iss_parameter_supported),
            authorize: endpoints.authorize(&requested_scopes)?,
            refresh: endpoints.refresh(&token)?,
            refresh_sends_scope: self.phases.refresh_sends_scope,
            reply: self.phases.reply.clone(),
            scope: (!requested_scopes.is_empty()).then(|| requested_scopes.join(&self.scopes.separator)),
            requested_scopes,
            revoke: endpoints.revoke(&token)?,
            api: endpoints.inputs.api(choice.header_prefix.as_deref())?,
            token,
            recovery: self.phases.recovery,
            refresh_life: self.phases.refresh_life,
            known_errors: self.known_errors.clone(),
        })
    }

    fn requested_scopes(&self, method: &Method, chosen: &[String]) -> Result<Vec<String>, RenderError> {
        let separator = self.scopes.separator.as_str();
        let mut scopes: Vec<String> = Vec::new();
        let default = method.default_scopes.as_ref().unwrap_or(&self.scopes.default);
        let always = method.always_scopes.as_ref().unwrap_or(&self.scopes.always);
        let asked = if chosen.is_empty() { default } else { chosen };
        // A separator inside an entry can only mean that somebody pasted the provider's notation.
        for scope in asked
            .iter()
            .chain(always)
            .flat_map(|entry| entry.split(separator))
            .flat_map(|entry| entry.split(' '))
            .filter(|scope| !scope.is_empty())
        {
            if scope.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(RenderError::BadScope { position: scopes.len() + 1 });
            }
            if !scopes.iter().any(|known| known == scope) {
                scopes.push(scope.to_owned());
            }
        }
        Ok(scopes)
    }

    /// Renaming the scope parameter goes with the other renames of a request.
    fn renames(&self, renames: &[(String, Option<String>)]) -> Vec<(String, Option<String>)> {
        let mut renames = renames.to_vec();
        if self.scopes.parameter != "scope" {
            renames.push(("scope".to_owned(), Some(self.scopes.parameter.clone())));
        }
        renames
    }
}

/// What placeholders are filled from.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    definition: &'a Definition,
    method: &'a Method,
    values: &'a Values,
    audience: Option<&'a str>,
}

impl Inputs<'_> {
    fn value(&self, placeholder: &Placeholder) -> Result<Option<String>, RenderError> {
        match placeholder {
            Placeholder::Audience => Ok(self.audience.map(str::to_owned)),
            Placeholder::Reply(name) => {
                Ok(self.values.get(&format!("{REPLY}{name}")).filter(|value| !value.is_empty()).cloned())
            }
            Placeholder::Variable(name) => {
                let variable = self.variable(name);
                variable
                    .filter(|variable| variable.applies_to(self.method))
                    .map_or(Ok(None), |variable| self.value_of(variable))
            }
        }
    }

    fn value_of(&self, variable: &Variable) -> Result<Option<String>, RenderError> {
        match self.values.get(&variable.name).filter(|value| !value.is_empty()) {
            Some(value) => {
                variable.check(value)?;
                Ok(Some(value.clone()))
            }
            None => {
                variable.check_missing()?;
                Ok(variable.default.clone())
            }
        }
    }

    fn variable(&self, name: &str) -> Option<&Variable> {
        self.definition.variables.iter().find(|variable| variable.name == name)
    }

    fn url(&self, field: &'static str, template: &UrlTemplate) -> Result<Option<Url>, RenderError> {
        template.render(|placeholder| self.value(placeholder).map_err(UrlError::Value)).map_err(|error| match error {
            UrlError::Value(error) => error,
            UrlError::Url(problem) => bad_url(field, problem.to_string()),
        })
    }

    /// As `url`, but a whole-URL value keeps its spelling: issuers are compared to the letter.
    fn url_text(&self, field: &'static str, template: &UrlTemplate) -> Result<Option<String>, RenderError> {
        match template {
            UrlTemplate::Whole(placeholder) => self.value(placeholder),
            UrlTemplate::Parts { .. } => Ok(self.url(field, template)?.map(|url| issuer_text(&url))),
        }
    }

    fn params(&self, templates: &[(String, Template)]) -> Result<Params, RenderError> {
        let mut params = Params::new();
        for (name, template) in templates {
            if let Some(value) = template.render(|placeholder| self.value(placeholder))? {
                params.push(name.as_str(), value);
            }
        }
        Ok(params)
    }

    fn headers(&self, templates: &[(HeaderName, Template)]) -> Result<Vec<(HeaderName, HeaderValue)>, RenderError> {
        let mut headers = Vec::new();
        for (name, template) in templates {
            let Some(text) = template.render(|placeholder| self.value(placeholder))? else {
                continue;
            };
            let mut value =
                HeaderValue::from_str(&text).map_err(|_| RenderError::BadHeader { header: name.to_string() })?;
            value.set_sensitive(template.placeholders().any(|placeholder| self.is_secret(placeholder)));
            headers.push((name.clone(), value));
        }
        Ok(headers)
    }

    fn is_secret(&self, placeholder: &Placeholder) -> bool {
        matches!(placeholder, Placeholder::Variable(name) if self.variable(name).is_some_and(|variable| variable.secret))
    }

    fn api(&self, prefix: Option<&str>) -> Result<Api, RenderError> {
        let phase = &self.definition.phases.api;
        let mut hosts = Vec::new();
        for template in &phase.hosts {
            let Some(host) = template.render(|placeholder| self.value(placeholder))? else {
                continue;
            };
            let host = host.to_ascii_lowercase();
            if !is_host_pattern(&host) {
                return Err(bad_url("api.hosts", format!("`{host}` is neither a host nor *.example.com")));
            }
            hosts.push(host);
        }
        let base_url = phase.base_url.as_ref().map_or(Ok(None), |template| self.url("api.base_url", template))?;
        if let (Some(template), Some(host)) = (&phase.base_url, base_url.as_ref().and_then(Url::host_str)) {
            let covered = hosts.iter().any(|pattern| host_covers(pattern, host));
            // Whoever can forge a reply must not choose where tokens go.
            if !covered
                && template.placeholders().iter().any(|(placeholder, _)| matches!(placeholder, Placeholder::Reply(_)))
            {
                return Err(RenderError::HostNotListed { host: host.to_owned() });
            }
            if !covered {
                hosts.push(host.to_owned());
            }
        }
        Ok(Api {
            base_url,
            hosts,
            header: phase.header.clone(),
            prefix: prefix.unwrap_or(&phase.prefix).to_owned(),
            headers: self.headers(&phase.headers)?,
            verify_path: self.method.verify.clone().or_else(|| phase.verify.clone()).filter(|path| !path.is_empty()),
        })
    }
}

/// Requests to the authorization server.
struct Endpoints<'a> {
    inputs: Inputs<'a>,
    client_auth: Option<ClientAuth>,
    discovered: Option<&'a Metadata>,
}

impl Endpoints<'_> {
    fn issuer(&self) -> Result<Option<String>, RenderError> {
        let phase = &self.inputs.definition.phases.callback;
        let fixed =
            phase.issuer.as_ref().map_or(Ok(None), |template| self.inputs.url_text("callback.issuer", template))?;
        // A document for many tenants has a pattern such as `{tenantid}` for an issuer, which nothing equals.
        let found = self.discovered.map(|document| document.issuer.clone()).filter(|issuer| !issuer.contains('{'));
        Ok(fixed.or(found))
    }

    fn authorize(&self, scopes: &[String]) -> Result<Option<Authorize>, RenderError> {
        if self.inputs.method.grant != GrantKind::AuthorizationCode {
            return Ok(None);
        }
        let phase = &self.inputs.definition.phases.authorize;
        let mut params = self.inputs.params(&phase.params)?;
        for (name, value) in scopes.iter().filter_map(|scope| phase.scope_params.get(scope)).flatten() {
            params.set(name.as_str(), value.as_str());
        }
        Ok(Some(Authorize {
            url: self.required("authorize.url", phase.url.as_ref(), |document| &document.authorization_endpoint)?,
            params,
            renames: self.inputs.definition.renames(&phase.renames),
            pkce: phase.pkce,
            nonce: phase.nonce && scopes.iter().any(|scope| scope == "openid"),
        }))
    }

    fn token(&self) -> Result<TokenEndpoint, RenderError> {
        let phase = &self.inputs.definition.phases.token;
        let url = self.required("token.url", phase.url.as_ref(), |document| &document.token_endpoint)?;
        let client_auth = match self.client_auth.or(phase.client_auth) {
            Some(client_auth) => client_auth,
            None => self.discovered.map_or(Ok(ClientAuth::Basic), offered_client_auth)?,
        };
        self.request(phase, url, client_auth)
    }

    fn refresh(&self, token: &TokenEndpoint) -> Result<TokenEndpoint, RenderError> {
        let phase = &self.inputs.definition.phases.refresh;
        let url = phase.url.as_ref().map_or(Ok(None), |template| self.inputs.url("refresh.url", template))?;
        self.request(
            phase,
            url.unwrap_or_else(|| token.url.clone()),
            self.client_auth.or(phase.client_auth).unwrap_or(token.client_auth),
        )
    }

    fn revoke(&self, token: &TokenEndpoint) -> Result<Option<Revoke>, RenderError> {
        let phases = &self.inputs.definition.phases;
        let no_phase = RequestPhase::default();
        let phase = phases.revoke.as_ref().unwrap_or(&no_phase);
        let Some(url) = self.optional("revoke.url", phase.url.as_ref(), |document| &document.revocation_endpoint)?
        else {
            return Ok(None);
        };
        let endpoint = self.request(phase, url, self.client_auth.or(phase.client_auth).unwrap_or(token.client_auth))?;
        Ok(Some(Revoke { endpoint, token: phases.revoke_token }))
    }

    fn request(&self, phase: &RequestPhase, url: Url, client_auth: ClientAuth) -> Result<TokenEndpoint, RenderError> {
        Ok(TokenEndpoint {
            url,
            client_auth,
            body: phase.body.unwrap_or_default(),
            headers: self.inputs.headers(&phase.headers)?,
            params: self.inputs.params(&phase.params)?,
            renames: self.inputs.definition.renames(&phase.renames),
        })
    }

    fn required(
        &self,
        field: &'static str,
        template: Option<&UrlTemplate>,
        of: fn(&Metadata) -> &Option<Url>,
    ) -> Result<Url, RenderError> {
        let waiting = self.discovered.is_none() && self.inputs.definition.phases.discover.is_some();
        self.optional(field, template, of)?.ok_or(if waiting {
            RenderError::NeedsDiscovery { field }
        } else {
            RenderError::NoEndpoint { field }
        })
    }

    fn optional(
        &self,
        field: &'static str,
        template: Option<&UrlTemplate>,
        of: fn(&Metadata) -> &Option<Url>,
    ) -> Result<Option<Url>, RenderError> {
        if let Some(template) = template
            && let Some(url) = self.inputs.url(field, template)?
        {
            return Ok(Some(url));
        }
        let Some(url) = self.discovered.and_then(|document| of(document).as_ref()) else {
            return Ok(None);
        };
        check_endpoint(url)
            .map_err(|reason| bad_url(field, format!("the discovery document's address is refused: {reason}")))?;
        Ok(Some(url.clone()))
    }
}

/// Picks from `token_endpoint_auth_methods_supported`; a document without it means `client_secret_basic` (RFC 8414 §2).
fn offered_client_auth(document: &Metadata) -> Result<ClientAuth, RenderError> {
    let Some(offered) = &document.token_endpoint_auth_methods_supported else {
        return Ok(ClientAuth::Basic);
    };
    let known = [
        ("client_secret_basic", ClientAuth::Basic),
        ("client_secret_post", ClientAuth::Post),
        ("none", ClientAuth::None),
    ];
    let found = known.into_iter().find(|(name, _)| offered.iter().any(|method| method == name));
    match found {
        Some((_, client_auth)) => Ok(client_auth),
        None if offered.is_empty() => Ok(ClientAuth::Basic),
        None => Err(RenderError::ClientAuth { offered: offered.clone() }),
    }
}

/// An issuer without a path is written without the `/` that URL parsers add.
fn issuer_text(url: &Url) -> String {
    let text = url.as_str();
    if url.path() == "/" { text.trim_end_matches('/').to_owned() } else { text.to_owned() }
}

fn bad_url(field: &str, reason: String) -> RenderError {
    RenderError::BadUrl { field: field.to_owned(), reason }
}

/// What can go wrong while a URL is filled.
enum UrlError {
    Value(RenderError),
    Url(UrlProblem),
}

impl From<UrlProblem> for UrlError {
    fn from(problem: UrlProblem) -> Self {
        UrlError::Url(problem)
    }
}

#[cfg(test)]
mod tests;
