//! A definition with values put in: what the protocol needs to know for one integration or connection.

mod api;
mod endpoints;
mod inputs;
mod lookup;

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use keyholder_oauth::{
    BodyFormat, CallbackRules, Client, ClientAuth, Metadata, Moment, Params, Pointer, ReplyRules, ScopeFormat, Secret,
    TokenEndpoint, TokenSet, discovery_urls, issuer_of,
};
use url::Url;

pub use api::{Api, Credentials, Placement, Verify};
pub use lookup::{Account, Choose, Learnt, Lookup, LookupError, Userinfo};

use crate::definition::{
    Capture, Definition, FollowUpWhen, GrantKind, KeepAlive, KnownError, Members, Method, Pkce, Recovery, RefreshLife,
    RefreshWith, ResponseMode, RevokedToken, Values,
};
use crate::endpoint::read_endpoint;
use crate::error::{RenderError, ValueError};
use crate::extra::Extra;
use crate::template::UrlProblem;
use endpoints::Endpoints;
use inputs::Inputs;

/// What is at hand beside the values of variables: what an integration chooses, what a connection holds.
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
    /// Instead of the grant's own `grant_type`.
    pub grant_type: Option<String>,
    /// Instead of the definition's body of token and refresh requests, [`BodyFormat::Form`] or [`BodyFormat::Json`]; a body that the definition writes itself stays.
    pub body: Option<BodyFormat>,
    /// Where the access token stands in the reply, instead of the definition's.
    pub token_key: Option<String>,
    /// Parameters beside the definition's; those of the same name are replaced.
    pub extra: Extra,
    /// For `{{client_id}}`, `{{client_secret}}` and `{{client_key}}`.
    pub client: Option<Client>,
    /// For `{{username}}`.
    pub username: Option<String>,
    /// For `{{password}}`.
    pub password: Option<Secret>,
    /// For `{{access_token}}` and the like.
    pub tokens: Option<Tokens>,
    /// For `{{redirect_uri}}`.
    pub redirect_uri: Option<String>,
    /// For computed tokens that say when they were made.
    pub moment: Option<Moment>,
}

/// The tokens of a connection.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// The access token.
    pub access_token: Option<Secret>,
    /// The refresh token.
    pub refresh_token: Option<Secret>,
    /// The ID token.
    pub id_token: Option<Secret>,
}

impl From<&TokenSet> for Tokens {
    fn from(set: &TokenSet) -> Self {
        Self {
            access_token: Some(set.access_token.clone()),
            refresh_token: set.refresh_token.clone(),
            id_token: set.id_token.clone(),
        }
    }
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
    /// How the callback is read.
    pub callback: Callback,
    /// Where device codes are had; only for [`GrantKind::DeviceCode`].
    pub device: Option<TokenEndpoint>,
    /// Where the grant is exchanged.
    pub token: TokenEndpoint,
    /// How its reply is read.
    pub reply: ReplyRules,
    /// One more exchange after it.
    pub follow_up: Option<FollowUp>,
    /// Where refresh tokens are used; its parameters are its own, not those of `token`.
    pub refresh: TokenEndpoint,
    /// How its reply is read.
    pub refresh_reply: ReplyRules,
    /// Which token it sends.
    pub refresh_with: RefreshWith,
    /// Whether the refresh request repeats the scope (RFC 6749 §6 leaves it open).
    pub refresh_sends_scope: bool,
    /// A token younger than this can't be renewed.
    pub refresh_min_age: Option<Duration>,
    /// Whether to renew so that the refresh token does not die of disuse.
    pub keep_alive: KeepAlive,
    /// What happens to a refresh token whose reply was lost.
    pub recovery: Recovery,
    /// How long refresh tokens live.
    pub refresh_life: RefreshLife,
    /// The requested scopes joined as the provider wants them; `None` if there are none.
    pub scope: Option<String>,
    /// The same, one by one, without repetition.
    pub requested_scopes: Vec<String>,
    /// How to revoke, if the provider has a way that is known.
    pub revoke: Option<Revoke>,
    /// Where tokens are asked about (RFC 7662), if the provider has such a place.
    pub introspect: Option<TokenEndpoint>,
    /// Where a client is registered by program (RFC 7591).
    pub register: Option<Register>,
    /// Who can be asked whose account it is.
    pub userinfo: Option<Userinfo>,
    /// What is learnt after connecting, in this order. Each must be rendered again with what those before it learnt.
    pub lookups: Vec<Lookup>,
    /// How tokens are used.
    pub api: Api,
    /// Error codes with their remedy.
    pub known_errors: Vec<KnownError>,
}

/// What is needed of a provider until its callback has come, which may bring what other addresses are made of.
#[derive(Clone, Debug)]
pub struct ConsentRequest {
    /// What `iss` in the callback is compared with (RFC 9207), if known.
    pub issuer: Option<String>,
    /// Whether a callback without `iss` is refused.
    pub issuer_required: bool,
    /// Only for [`GrantKind::AuthorizationCode`].
    pub authorize: Option<Authorize>,
    /// How the callback is read.
    pub callback: Callback,
    /// The requested scopes joined as the provider wants them; `None` if there are none.
    pub scope: Option<String>,
    /// The same, one by one, without repetition.
    pub requested_scopes: Vec<String>,
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
    /// How several scopes are sent.
    pub scope_format: ScopeFormat,
    /// Whether to send a code challenge.
    pub pkce: Pkce,
    /// Whether to send a nonce: the definition says that the provider knows it, and `openid` is asked for.
    pub nonce: bool,
}

impl Method {
    /// How the callback is read as far as it is known without values: all but the signature. Enough to find the consent that it answers.
    pub fn callback_rules(&self) -> CallbackRules {
        let phase = &self.phases.callback;
        let mut rules = CallbackRules::default();
        rules.code = phase.code.clone().unwrap_or(rules.code);
        rules.state = phase.state.clone().unwrap_or(rules.state);
        rules.strip_code_suffix = phase.strip_code_suffix.clone();
        rules
    }

    /// Whether the browser posts the answer.
    pub fn response_mode(&self) -> ResponseMode {
        self.phases.callback.response_mode
    }
}

/// How the callback is read.
#[derive(Clone, Debug)]
pub struct Callback {
    /// For [`keyholder_oauth::ReceivedCallback::parse`].
    pub rules: CallbackRules,
    /// Whether the browser posts the answer.
    pub response_mode: ResponseMode,
    captures: Vec<Capture>,
}

impl Callback {
    /// What is kept of the callback's other parameters, as `callback.NAME` for [`Values`]; to be kept with the connection.
    ///
    /// # Errors
    /// A parameter that is required and missing, or is not as the definition says. The text never repeats the value.
    pub fn capture(&self, other: &[(String, String)]) -> Result<Values, ValueError> {
        let mut values = Values::new();
        for capture in &self.captures {
            let found = other.iter().find(|(name, value)| *name == capture.parameter && !value.is_empty());
            match found {
                Some((_, value)) => {
                    check_capture(capture, value)?;
                    values.insert(format!("callback.{}", capture.name), value.clone());
                }
                None if capture.required => return Err(unfit(capture, "the provider's answer does not have it")),
                None => {}
            }
        }
        Ok(values)
    }
}

/// A further exchange of the new token.
#[derive(Clone, Debug)]
pub struct FollowUp {
    /// Where and how; with [`keyholder_oauth::Grant::Own`].
    pub endpoint: TokenEndpoint,
    /// How its reply is read.
    pub reply: ReplyRules,
    /// When it is made.
    pub when: FollowUpWhen,
}

/// Revocation (RFC 7009).
#[derive(Clone, Debug)]
pub struct Revoke {
    /// Where and how.
    pub endpoint: TokenEndpoint,
    /// Which token to name.
    pub token: RevokedToken,
}

/// Client registration (RFC 7591).
#[derive(Clone, Debug)]
pub struct Register {
    /// The registration endpoint.
    pub url: Url,
    /// More headers, such as an initial access token.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The client's metadata as far as the definition gives it (RFC 7591 §2).
    pub metadata: Members,
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
        let Some(discover) = &method.phases.discover else {
            return Ok(None);
        };
        let choice = Choice::default();
        let inputs = Inputs::new(self, method, values, &choice, &[], true)?;
        let Some(text) = inputs.url_text("discover.issuer", &discover.issuer)? else {
            return Ok(None);
        };
        let issuer = issuer_of(&text);
        let url = read_endpoint(&issuer).map_err(|reason| bad_url("discover.issuer", reason))?;
        let issuer = discover.documents.get(&issuer).cloned().unwrap_or(issuer);
        Ok(Some(Discovery { issuer, urls: discovery_urls(&url) }))
    }

    /// As [`Definition::render`], for what comes before the callback.
    pub fn consent_request(
        &self,
        method: &Method,
        values: &Values,
        choice: &Choice,
        discovered: Option<&Metadata>,
    ) -> Result<ConsentRequest, RenderError> {
        let requested_scopes = requested_scopes(method, &choice.scopes)?;
        let inputs = Inputs::new(self, method, values, choice, &requested_scopes, false)?;
        let endpoints = Endpoints { inputs: &inputs, client_auth: choice.client_auth, discovered };
        Ok(ConsentRequest {
            issuer: endpoints.issuer()?,
            issuer_required: endpoints.issuer_required(),
            authorize: endpoints.authorize(&requested_scopes)?,
            callback: endpoints.callback()?,
            scope: inputs.scope.clone(),
            requested_scopes,
        })
    }

    /// Puts values into the templates.
    ///
    /// `values` holds those of the integration and of the connection together, and what the provider said: the text members of
    /// the token reply (`TokenSet::extra`) as `reply.NAME`, what [`Callback::capture`] kept, and what lookups learnt as `lookup.NAME`.
    /// An address that needs one that is not there yet is `None`. Values for variables that do not exist are ignored here;
    /// `check_values` refuses them.
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
        let requested_scopes = requested_scopes(method, &choice.scopes)?;
        let inputs = Inputs::new(self, method, values, choice, &requested_scopes, false)?;
        let endpoints = Endpoints { inputs: &inputs, client_auth: choice.client_auth, discovered };
        let phases = &*method.phases;
        let token = endpoints.token()?;
        let api = inputs.api(choice.header_prefix.as_deref())?;
        Ok(Rendered {
            grant: method.grant,
            issuer: endpoints.issuer()?,
            issuer_required: endpoints.issuer_required(),
            authorize: endpoints.authorize(&requested_scopes)?,
            callback: endpoints.callback()?,
            device: endpoints.device(&token)?,
            reply: with_token_key(&phases.reply, choice),
            follow_up: endpoints.follow_up(&token)?,
            refresh: endpoints.refresh(&token)?,
            refresh_reply: with_token_key(&phases.refresh.reply, choice),
            refresh_with: phases.refresh.with,
            refresh_sends_scope: phases.refresh.sends_scope,
            refresh_min_age: phases.refresh.min_age,
            keep_alive: phases.refresh.keep_alive,
            recovery: phases.refresh.recovery,
            refresh_life: phases.refresh.life,
            scope: inputs.scope.clone(),
            revoke: endpoints.revoke(&token)?,
            introspect: endpoints.introspect(&token)?,
            register: endpoints.register()?,
            userinfo: endpoints.userinfo(&api)?,
            lookups: inputs.lookups(&api)?,
            token,
            api,
            requested_scopes,
            known_errors: self.known_errors.clone(),
        })
    }
}

fn requested_scopes(method: &Method, chosen: &[String]) -> Result<Vec<String>, RenderError> {
    let rules = &method.scopes;
    let mut scopes: Vec<String> = Vec::new();
    let asked = if chosen.is_empty() { &rules.default } else { chosen };
    // A separator inside an entry can only mean that somebody pasted the provider's notation.
    for scope in asked
        .iter()
        .chain(&rules.always)
        .flat_map(|entry| entry.split(rules.separator.as_str()))
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

fn with_token_key(rules: &ReplyRules, choice: &Choice) -> ReplyRules {
    let key = choice.token_key.as_deref().filter(|key| !key.is_empty());
    let access_token = key.map_or_else(|| rules.access_token.clone(), Pointer::new);
    ReplyRules { access_token, ..rules.clone() }
}

fn check_capture(capture: &Capture, value: &str) -> Result<(), ValueError> {
    capture.check(value).map_err(|reason| unfit(capture, &reason))
}

fn unfit(capture: &Capture, reason: &str) -> ValueError {
    ValueError {
        variable: format!("callback.{}", capture.name),
        reason: reason.to_owned(),
        remedy: format!("begin again; if it stays so, correct callback.capture.{} in the definition", capture.name),
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
mod bytes;
#[cfg(test)]
mod tests;
