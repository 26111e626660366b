//! The authorization endpoint: the request, and what brings the browser back.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::Value;
use url::form_urlencoded;

use super::judge::{Judge, Want, replace};
use super::keys;
use super::received::Received;
use super::shape::matching;
use super::stage::{Fresh, Stage};
use crate::html;
use crate::reply::Reply;

/// A code that was given out.
pub(super) struct Code {
    pub(super) code: String,
    pub(super) challenge: Option<String>,
}

/// How the browser comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    /// Where it goes; with the answer in its query unless that is posted.
    pub url: String,
    /// The answer, if the browser posts it (OAuth 2.0 Form Post Response Mode).
    pub form: Option<String>,
}

impl Back {
    pub(super) fn reply(&self) -> Reply {
        match &self.form {
            None => Reply::redirect(&self.url),
            Some(form) => Reply::page(StatusCode::OK, html::form_post(&self.url, form)),
        }
    }
}

impl Stage {
    pub(super) fn judge_authorize(&self, judge: &mut Judge<'_>, got: &Received) {
        judge.method("GET", got);
        let script = &self.script;
        let pkce = script.text("/authorize/pkce").unwrap_or("offered") != "off";
        let scopes = script.scopes();
        let nonce = script.is("/authorize/nonce") && scopes.iter().any(|scope| scope == "openid");
        let named = |name: &str, want| (name.to_owned(), want);
        let mut standard = vec![
            named("response_type", Want::text("code")),
            named("client_id", Want::text(script.registration.client_id.as_str())),
            named("redirect_uri", Want::text(self.redirect_uri.as_str())),
        ];
        standard.extend(judge.scope());
        let mut guards = vec![named("state", Want::Random)];
        if pkce {
            guards.push(named("code_challenge", Want::Random));
            guards.push(named("code_challenge_method", Want::text("S256")));
        }
        if nonce {
            guards.push(named("nonce", Want::Random));
        }
        let mut wants = judge.renamed("authorize", standard);
        replace(&mut wants, judge.texts("/authorize/params"));
        for scope in &scopes {
            let fixed =
                script.field("/authorize/scope_params")[scope.as_str()].as_object().cloned().unwrap_or_default();
            replace(&mut wants, fixed.into_iter().map(|(name, value)| (name, Want::Is(value))).collect());
        }
        if script.text("/callback/response_mode") == Some("form_post")
            && !wants.iter().any(|(name, _)| name == "response_mode")
        {
            wants.push(named("response_mode", Want::text("form_post")));
        }
        replace(&mut wants, judge.renamed("authorize", guards));
        if let Some(address) = script.endpoint("authorize", &self.known) {
            for (name, value) in address.query {
                if !wants.iter().any(|(known, _)| *known == name) {
                    wants.push((name, Want::text(value)));
                }
            }
        }
        judge.compare("query", wants, got.query(), false);
    }

    /// The person agrees.
    pub(super) fn consent(&mut self, got: &Received, fresh: Fresh<'_>) -> Option<Back> {
        let script = &self.script;
        let wire = |name: &str| script.field("/authorize/rename")[name].as_str().unwrap_or(name).to_owned();
        let sent = |name: &str| {
            let name = wire(name);
            got.address.query.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
        };
        let redirect_uri = self.redirect_uri.clone();
        let code = fresh("code_");
        let (state, challenge, nonce) = (sent("state")?, sent("code_challenge"), sent("nonce"));
        let named = |name: &str| script.field("/callback/rename")[name].as_str().unwrap_or(name).to_owned();
        let suffix = script.text("/callback/strip_code_suffix").unwrap_or_default();
        let mut pairs = vec![(named("code"), format!("{code}{suffix}")), (named("state"), state)];
        let mut captured = Vec::new();
        for (name, capture) in script.table("/callback/capture") {
            let parameter = capture.as_str().or(capture["parameter"].as_str()).unwrap_or_default().to_owned();
            let value = sample(name, capture);
            pairs.push((parameter, value.clone()));
            captured.push((format!("callback.{name}"), value));
        }
        if let Some(issuer) = self.announced_issuer() {
            pairs.push(("iss".to_owned(), issuer));
        }
        if let Some(signature) = self.signature(&pairs) {
            pairs.push(signature);
        }
        let answer = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        self.known.extend(captured);
        self.known.insert("code".to_owned(), code.clone());
        self.nonce = nonce;
        let posted = self.script.text("/callback/response_mode") == Some("form_post");
        let separator = if redirect_uri.contains('?') { '&' } else { '?' };
        let back = if posted {
            Back { url: redirect_uri.clone(), form: Some(answer) }
        } else {
            Back { url: format!("{redirect_uri}{separator}{answer}"), form: None }
        };
        self.code = Some(Code { code, challenge });
        Some(back)
    }

    /// What the callback's `iss` is, if the provider names itself (RFC 9207).
    fn announced_issuer(&self) -> Option<String> {
        let script = &self.script;
        let fixed = script.text("/callback/issuer").and_then(|template| script.fill(template, &self.known));
        fixed.or_else(|| self.document_issuer().filter(|issuer| !issuer.contains('{')))
    }

    fn signature(&self, pairs: &[(String, String)]) -> Option<(String, String)> {
        let rule = self.script.field("/callback/signature");
        let parameter = rule["parameter"].as_str()?.to_owned();
        let key = self.script.fill(rule["key"].as_str()?, &self.known)?;
        let written =
            pairs.iter().map(|pair| form_urlencoded::Serializer::new(String::new()).extend_pairs([pair]).finish());
        let over: String = match rule["over"].as_str() {
            Some("query") => written.collect::<Vec<_>>().join("&"),
            _ => written.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("&"),
        };
        let mac = keys::hmac(rule["algorithm"].as_str().unwrap_or("hmac_sha256"), key.as_bytes(), over.as_bytes())?;
        Some((parameter, keys::encode(rule["encoding"].as_str().unwrap_or("hex"), &mac)))
    }
}

/// A value as the definition wants it captured.
fn sample(name: &str, capture: &Value) -> String {
    match (capture["pattern"].as_str(), capture["kind"].as_str()) {
        (Some(pattern), _) => matching(pattern),
        (None, Some("number")) => "4815162342".to_owned(),
        (None, Some("host")) => "captured.example".to_owned(),
        (None, Some("url")) => "https://captured.example".to_owned(),
        _ => format!("captured {name} & more"),
    }
}
