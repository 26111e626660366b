//! Requests to the authorization server.

use keyholder_oauth::{
    BodyFormat, BodyPart, BodyTemplate, CallbackSignature, ClientAssertion, ClientAuth, Escape, Metadata, Params,
    TokenEndpoint,
};
use serde_json::Value;
use url::Url;

use super::inputs::Inputs;
use super::{Api, Authorize, Callback, FollowUp, Register, Revoke, Userinfo, bad_url};
use crate::definition::{AssertionPhase, BodyPhase, GrantKind, Members, RequestPhase, ResponseMode};
use crate::endpoint::check_endpoint;
use crate::error::RenderError;
use crate::template::{Part, Placeholder, UrlTemplate};

pub(super) struct Endpoints<'a, 'i> {
    pub inputs: &'a Inputs<'i>,
    pub client_auth: Option<ClientAuth>,
    pub discovered: Option<&'a Metadata>,
}

impl Endpoints<'_, '_> {
    pub fn issuer(&self) -> Result<Option<String>, RenderError> {
        let phase = &self.inputs.method.phases.callback;
        let fixed =
            phase.issuer.as_ref().map_or(Ok(None), |template| self.inputs.url_text("callback.issuer", template))?;
        // A document for many tenants has a pattern such as `{tenantid}` for an issuer, which nothing equals.
        let found = self.discovered.map(|document| document.issuer.clone()).filter(|issuer| !issuer.contains('{'));
        Ok(fixed.or(found))
    }

    pub fn issuer_required(&self) -> bool {
        self.inputs.method.phases.callback.issuer_required
            || self.discovered.is_some_and(|document| document.authorization_response_iss_parameter_supported)
    }

    pub fn authorize(&self, scopes: &[String]) -> Result<Option<Authorize>, RenderError> {
        if self.inputs.method.grant != GrantKind::AuthorizationCode {
            return Ok(None);
        }
        let phases = &self.inputs.method.phases;
        let phase = &phases.authorize;
        let mut params = self.inputs.params(&phase.params)?;
        for (name, value) in scopes.iter().filter_map(|scope| phase.scope_params.get(scope)).flatten() {
            params.set(name.as_str(), value.as_str());
        }
        add(&mut params, &self.inputs.choice.extra.authorize);
        if phases.callback.response_mode == ResponseMode::FormPost && !params.contains("response_mode") {
            params.push("response_mode", "form_post");
        }
        Ok(Some(Authorize {
            url: self.required("authorize.url", phase.url.as_ref(), |document| &document.authorization_endpoint)?,
            params,
            renames: self.renames(&phase.renames),
            scope_format: self.inputs.method.scopes.format,
            pkce: phase.pkce,
            nonce: phase.nonce && scopes.iter().any(|scope| scope == "openid"),
        }))
    }

    pub fn callback(&self) -> Result<Callback, RenderError> {
        let phase = &self.inputs.method.phases.callback;
        let mut rules = self.inputs.method.callback_rules();
        if let Some(signature) = &phase.signature {
            // Without a key the signature can't hold: everything is refused rather than nothing checked.
            let key = self.inputs.text(&signature.key)?.unwrap_or_default();
            rules.signature = Some(CallbackSignature {
                parameter: signature.parameter.clone(),
                hash: signature.hash,
                encoding: signature.encoding,
                key: key.into(),
                over: signature.over,
            });
        }
        Ok(Callback { rules, response_mode: phase.response_mode, captures: phase.captures.clone() })
    }

    pub fn token(&self) -> Result<TokenEndpoint, RenderError> {
        let phase = &self.inputs.method.phases.token;
        let url = self.required("token.url", phase.url.as_ref(), |document| &document.token_endpoint)?;
        let client_auth = match self.client_auth.or(phase.client_auth) {
            Some(client_auth) => client_auth,
            None => self.discovered.map_or(Ok(ClientAuth::Basic), |document| self.offered_client_auth(document))?,
        };
        let mut endpoint = self.exchange(phase, url, client_auth)?;
        if let Some(grant_type) = self.inputs.grant_type() {
            endpoint.params.set("grant_type", grant_type);
        }
        add_to(&mut endpoint, &self.inputs.choice.extra.token);
        Ok(endpoint)
    }

    pub fn device(&self, token: &TokenEndpoint) -> Result<Option<TokenEndpoint>, RenderError> {
        if self.inputs.method.grant != GrantKind::DeviceCode {
            return Ok(None);
        }
        let none = RequestPhase::default();
        let phase = self.inputs.method.phases.device.as_ref().unwrap_or(&none);
        let url =
            self.required("device.url", phase.url.as_ref(), |document| &document.device_authorization_endpoint)?;
        self.request(phase, url, self.client_auth_of(phase, token)).map(Some)
    }

    pub fn refresh(&self, token: &TokenEndpoint) -> Result<TokenEndpoint, RenderError> {
        let phase = &self.inputs.method.phases.refresh.request;
        let url = self.url_or("refresh.url", phase, token)?;
        let mut endpoint = self.exchange(phase, url, self.client_auth_of(phase, token))?;
        add_to(&mut endpoint, &self.inputs.choice.extra.refresh);
        Ok(endpoint)
    }

    pub fn follow_up(&self, token: &TokenEndpoint) -> Result<Option<FollowUp>, RenderError> {
        let Some(follow_up) = &self.inputs.method.phases.follow_up else { return Ok(None) };
        let phase = &follow_up.request;
        let url = self.url_or("follow_up.url", phase, token)?;
        let endpoint = self.request(phase, url, self.client_auth_of(phase, token))?;
        Ok(Some(FollowUp { endpoint, reply: follow_up.reply.clone(), when: follow_up.when }))
    }

    pub fn revoke(&self, token: &TokenEndpoint) -> Result<Option<Revoke>, RenderError> {
        let phases = &self.inputs.method.phases;
        let endpoint =
            self.beside("revoke.url", phases.revoke.as_ref(), token, |document| &document.revocation_endpoint)?;
        Ok(endpoint.map(|endpoint| Revoke { endpoint, token: phases.revoke_token }))
    }

    pub fn introspect(&self, token: &TokenEndpoint) -> Result<Option<TokenEndpoint>, RenderError> {
        let phase = self.inputs.method.phases.introspect.as_ref();
        self.beside("introspect.url", phase, token, |document| &document.introspection_endpoint)
    }

    pub fn register(&self) -> Result<Option<Register>, RenderError> {
        let none = RequestPhase::default();
        let phase = self.inputs.method.phases.register.as_ref().unwrap_or(&none);
        let url = self.optional("register.url", phase.url.as_ref(), |document| &document.registration_endpoint)?;
        let Some(url) = url else { return Ok(None) };
        let mut metadata = Members::new();
        for (name, value) in &phase.params {
            let value = match value {
                crate::definition::ParamValue::Json(value) => Some(value.clone()),
                crate::definition::ParamValue::Hashed(_) => None,
                crate::definition::ParamValue::Text(template) => self.inputs.text(template)?.map(Value::String),
            };
            metadata.extend(value.map(|value| (name.clone(), value)));
        }
        Ok(Some(Register { url, headers: self.inputs.headers(&phase.headers)?, metadata }))
    }

    pub fn userinfo(&self, api: &Api) -> Result<Option<Userinfo>, RenderError> {
        let phase = self.inputs.method.phases.userinfo.as_ref();
        let template = phase.and_then(|phase| phase.url.as_ref());
        let Some(url) = self.optional("userinfo.url", template, |document| &document.userinfo_endpoint)? else {
            return Ok(None);
        };
        // The discovery document's is the issuer's own word.
        if let Some(template) = template
            && self.inputs.url("userinfo.url", template)?.is_some()
        {
            api.must_allow(template, &url)?;
        }
        let Some(phase) = phase else { return Ok(Some(Userinfo::standard(url))) };
        Ok(Some(Userinfo {
            url,
            headers: self.inputs.headers(&phase.headers)?,
            query: self.inputs.texts(&phase.query)?,
            account: phase.account.clone(),
            name: phase.name.clone(),
            email: phase.email.clone(),
        }))
    }

    /// The address of a request that goes to the token endpoint unless it says otherwise.
    fn url_or(&self, field: &'static str, phase: &RequestPhase, token: &TokenEndpoint) -> Result<Url, RenderError> {
        let url = phase.url.as_ref().map_or(Ok(None), |template| self.inputs.url(field, template))?;
        Ok(url.unwrap_or_else(|| token.url.clone()))
    }

    /// A request that the client authenticates as it does at the token endpoint.
    fn beside(
        &self,
        field: &'static str,
        phase: Option<&RequestPhase>,
        token: &TokenEndpoint,
        of: fn(&Metadata) -> &Option<Url>,
    ) -> Result<Option<TokenEndpoint>, RenderError> {
        let none = RequestPhase::default();
        let phase = phase.unwrap_or(&none);
        let Some(url) = self.optional(field, phase.url.as_ref(), of)? else { return Ok(None) };
        self.request(phase, url, self.client_auth_of(phase, token)).map(Some)
    }

    fn client_auth_of(&self, phase: &RequestPhase, token: &TokenEndpoint) -> ClientAuth {
        self.client_auth.or(phase.client_auth).unwrap_or(token.client_auth)
    }

    /// A request that brings tokens: an integration may choose what its body is.
    fn exchange(&self, phase: &RequestPhase, url: Url, client_auth: ClientAuth) -> Result<TokenEndpoint, RenderError> {
        let mut endpoint = self.request(phase, url, client_auth)?;
        if let Some(body) = &self.inputs.choice.body
            && !matches!(endpoint.body, BodyFormat::Template(_))
        {
            endpoint.body = body.clone();
        }
        Ok(endpoint)
    }

    fn request(&self, phase: &RequestPhase, url: Url, client_auth: ClientAuth) -> Result<TokenEndpoint, RenderError> {
        Ok(TokenEndpoint {
            url,
            method: phase.method.clone(),
            client_auth,
            client_assertion: self.client_assertion(&phase.client_assertion)?,
            body: self.body(phase.body.as_ref())?,
            scope_format: self.inputs.method.scopes.format,
            headers: self.inputs.headers(&phase.headers)?,
            query: self.inputs.texts(&phase.query)?,
            params: self.inputs.params(&phase.params)?,
            hashed: self.inputs.hashed(&phase.params)?,
            renames: self.renames(&phase.renames),
        })
    }

    fn client_assertion(&self, phase: &AssertionPhase) -> Result<ClientAssertion, RenderError> {
        Ok(ClientAssertion {
            audience: phase.audience.as_ref().map_or(Ok(None), |audience| self.inputs.text(audience))?,
            algorithm: phase.algorithm,
            lifetime: phase.lifetime,
            header: self.inputs.members(&phase.header)?,
            claims: self.inputs.members(&phase.claims)?,
        })
    }

    fn body(&self, phase: Option<&BodyPhase>) -> Result<BodyFormat, RenderError> {
        let (content_type, template) = match phase {
            None | Some(BodyPhase::Form) => return Ok(BodyFormat::Form),
            Some(BodyPhase::Json) => return Ok(BodyFormat::Json),
            Some(BodyPhase::Query) => return Ok(BodyFormat::Query),
            Some(BodyPhase::Template(content_type, template)) => (content_type, template),
        };
        let escape = Escape::of_content_type(content_type.to_str().unwrap_or_default());
        let mut parts = Vec::with_capacity(template.parts.len());
        for part in &template.parts {
            parts.push(match part {
                Part::Text(text) => BodyPart::Text(text.clone()),
                Part::Value(Placeholder::Param(name)) => BodyPart::Param(name.clone()),
                Part::Value(placeholder) => {
                    BodyPart::Text(escape.apply(&self.inputs.value(placeholder)?.unwrap_or_default()))
                }
            });
        }
        Ok(BodyFormat::Template(BodyTemplate { content_type: content_type.clone(), parts }))
    }

    /// Renaming the scope parameter goes with the other renames of a request.
    fn renames(&self, renames: &[(String, Option<String>)]) -> Vec<(String, Option<String>)> {
        let mut renames = renames.to_vec();
        let parameter = &self.inputs.method.scopes.parameter;
        if parameter != "scope" {
            renames.push(("scope".to_owned(), Some(parameter.clone())));
        }
        renames
    }

    fn required(
        &self,
        field: &'static str,
        template: Option<&UrlTemplate>,
        of: fn(&Metadata) -> &Option<Url>,
    ) -> Result<Url, RenderError> {
        if let Some(url) = self.optional(field, template, of)? {
            return Ok(url);
        }
        let waiting = self.discovered.is_none() && self.inputs.method.phases.discover.is_some();
        let unsaid = template.and_then(|template| self.inputs.unsaid(template));
        Err(match unsaid {
            Some(what) => RenderError::NotSaidYet { field, what },
            None if waiting => RenderError::NeedsDiscovery { field },
            None => RenderError::NoEndpoint { field },
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

    /// Picks from `token_endpoint_auth_methods_supported`; a document without it means `client_secret_basic` (RFC 8414 §2).
    /// A key is used where there is one, since it proves the most.
    fn offered_client_auth(&self, document: &Metadata) -> Result<ClientAuth, RenderError> {
        let Some(offered) =
            document.token_endpoint_auth_methods_supported.as_ref().filter(|offered| !offered.is_empty())
        else {
            return Ok(ClientAuth::Basic);
        };
        let has_key = self.inputs.choice.client.as_ref().is_some_and(|client| client.key.is_some());
        let order = [
            ClientAuth::Basic,
            ClientAuth::Post,
            ClientAuth::None,
            ClientAuth::PrivateKeyJwt,
            ClientAuth::ClientSecretJwt,
            ClientAuth::Tls,
        ];
        let is_offered = |auth: &ClientAuth| offered.iter().any(|name| Some(name.as_str()) == auth.registered_name());
        let key = Some(ClientAuth::PrivateKeyJwt).filter(|auth| has_key && is_offered(auth));
        key.or_else(|| order.into_iter().find(is_offered))
            .ok_or_else(|| RenderError::ClientAuth { offered: offered.clone() })
    }
}

/// An integration's own parameters in the place of those of the same name. A name may come more than once (RFC 8707 §2).
fn add(params: &mut Params, extra: &[(String, String)]) {
    extra.iter().for_each(|(name, _)| params.remove(name));
    extra.iter().for_each(|(name, value)| params.push(name.as_str(), value.as_str()));
}

fn add_to(endpoint: &mut TokenEndpoint, extra: &[(String, String)]) {
    endpoint.hashed.retain(|hashed| !extra.iter().any(|(name, _)| *name == hashed.name));
    add(&mut endpoint.params, extra);
}
