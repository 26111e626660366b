//! What was issued, and which part of the provider a request is for.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::authorize::{Back, Code};
use super::judge::{Complaint, Judge, shown};
use super::received::{BodyKind, Received};
use super::script::{Address, Known, Script};
use super::shape;
use super::token::Device;
use crate::reply::{Content, Reply};

/// A request and what became of it, without secrets.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
    /// `authorize`, `token`, `refresh`, …: the definition's words.
    pub phase: String,
    /// The method.
    pub method: String,
    /// The address without its query.
    pub url: String,
    /// Parameters, wherever they stood, as `name=value`.
    pub sent: Vec<String>,
    /// The reply's status.
    pub status: u16,
    /// The reply, if it was JSON.
    pub reply: Value,
    /// In what the request differed from the definition; such a request was refused.
    pub complaints: Vec<Complaint>,
}

/// The parts of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Discovery,
    Authorize,
    Device,
    Token,
    FollowUp,
    Refresh,
    Revoke,
    Introspect,
    Userinfo,
    Lookup(usize),
    Verify,
    Api,
}

pub(super) struct Access {
    pub(super) token: String,
    pub(super) issued_at: i64,
    pub(super) ends_at: Option<i64>,
}

pub(super) struct Refresh {
    pub(super) token: String,
    pub(super) replaced_at: Option<i64>,
}

pub(super) struct Stage {
    pub(super) script: Script,
    /// What was said and issued: `access_token`, `reply.NAME`, `callback.NAME`, `lookup.NAME`, …
    pub(super) known: Known,
    /// What a person has yet to choose.
    pub(super) offered: Known,
    pub(super) code: Option<Code>,
    pub(super) device: Option<Device>,
    pub(super) access: Vec<Access>,
    pub(super) refresh: Vec<Refresh>,
    /// Secondary tokens by name.
    pub(super) secondary: BTreeMap<String, String>,
    pub(super) nonce: Option<String>,
    pub(super) revoked: bool,
    pub(super) redirect_uri: String,
    /// The last call of the API found its token good.
    pub(super) served: bool,
    pub(super) exchanges: Vec<Exchange>,
}

/// Draws a new value that begins so.
pub(super) type Fresh<'a> = &'a mut dyn FnMut(&str) -> String;

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Discovery => "discover",
            Part::Authorize => "authorize",
            Part::Device => "device",
            Part::Token => "token",
            Part::FollowUp => "follow_up",
            Part::Refresh => "refresh",
            Part::Revoke => "revoke",
            Part::Introspect => "introspect",
            Part::Userinfo => "userinfo",
            Part::Lookup(_) => "after_connect",
            Part::Verify => "verify",
            Part::Api => "api",
        }
    }
}

impl Stage {
    pub(super) fn new(script: Script) -> Self {
        let brought = script.registration.refresh_token.clone().filter(|_| script.grant == "refresh_token");
        let refresh = brought.map(|token| Refresh { token, replaced_at: None });
        let mut stage = Self {
            script,
            known: Known::new(),
            offered: Known::new(),
            code: None,
            device: None,
            access: Vec::new(),
            refresh: refresh.into_iter().collect(),
            secondary: BTreeMap::new(),
            nonce: None,
            revoked: false,
            redirect_uri: String::new(),
            served: false,
            exchanges: Vec::new(),
        };
        if let Some(refresh) = stage.refresh.first() {
            stage.known.insert("refresh_token".to_owned(), refresh.token.clone());
        }
        stage
    }

    pub(super) fn judge(&self, now: i64) -> Judge<'_> {
        Judge::new(&self.script, &self.known, now)
    }

    pub(super) fn answer(&mut self, got: &Received, now: i64, fresh: Fresh<'_>) -> Reply {
        let judged = self.parts(got).into_iter().map(|part| (part, self.complaints(part, got, now)));
        let best = judged.min_by_key(|(_, complaints)| complaints.len());
        let Some((part, complaints)) = best else {
            let reply = Reply::json(StatusCode::NOT_FOUND, json!({"error": "not_found"}));
            self.note("nowhere", got, &reply, vec![nowhere(got)]);
            return reply;
        };
        let reply = if complaints.is_empty() {
            match part {
                Part::Discovery => self.document(),
                Part::Authorize => match self.consent(got, fresh) {
                    Some(back) => back.reply(),
                    None => Reply::empty(StatusCode::BAD_REQUEST),
                },
                Part::Device => self.device_codes(fresh),
                Part::Token | Part::FollowUp | Part::Refresh => self.tokens(part, now, fresh),
                Part::Revoke => self.revoke(got),
                Part::Introspect => self.introspect(now),
                _ => self.serve(part, got, now),
            }
        } else {
            self.refusal(part, &complaints)
        };
        self.note(part.name(), got, &reply, complaints);
        reply
    }

    pub(super) fn visited(&mut self, got: &Received, now: i64, fresh: Fresh<'_>) -> Option<Back> {
        let is_it = self.parts(got).contains(&Part::Authorize);
        let complaints = if is_it { self.complaints(Part::Authorize, got, now) } else { vec![nowhere(got)] };
        let back = if is_it && complaints.is_empty() { self.consent(got, fresh) } else { None };
        let reply = back.as_ref().map_or_else(|| Reply::empty(StatusCode::BAD_REQUEST), Back::reply);
        let phase = if is_it { "authorize" } else { "nowhere" };
        self.note(phase, got, &reply, complaints);
        back
    }

    /// The parts that stand at this address; what a request must say decides between several.
    pub(super) fn parts(&self, got: &Received) -> Vec<Part> {
        let is_at = |address: Option<Address>| {
            address.is_some_and(|it| it.host == got.address.host && same_path(&it.path, &got.address.path))
        };
        let at = |phase: &str| is_at(self.script.endpoint(phase, &self.known));
        let person = self.script.grant == "authorization_code";
        let brought = self.script.grant == "refresh_token";
        let mut found = Vec::new();
        let mut add = |part, there: bool| {
            if there {
                found.push(part);
            }
        };
        add(Part::Discovery, self.is_document(got));
        add(Part::Authorize, person && at("authorize"));
        add(Part::Device, self.script.grant == "device_code" && at("device"));
        add(Part::Token, !brought && at("token"));
        add(Part::FollowUp, self.script.field("/follow_up").is_object() && at("follow_up"));
        add(Part::Refresh, at("refresh"));
        add(Part::Revoke, at("revoke"));
        add(Part::Introspect, self.script.text("/introspect/url").is_some() && at("introspect"));
        // Before userinfo, which may be the same address: a lookup must be made, whoever the account is.
        for index in 0..self.lookups() {
            add(Part::Lookup(index), is_at(self.lookup_address(index)));
        }
        add(Part::Userinfo, at("userinfo"));
        if let Some(base) = self.base() {
            let below = below(&base, &got.address);
            add(Part::Verify, is_at(self.verify_address()));
            // Anything below, unless something of the definition's own stands there.
            if found.is_empty() && below {
                found.push(Part::Api);
            }
        }
        found
    }

    fn complaints(&self, part: Part, got: &Received, now: i64) -> Vec<Complaint> {
        let mut judge = self.judge(now);
        match part {
            Part::Discovery => judge.method("GET", got),
            Part::Authorize => self.judge_authorize(&mut judge, got),
            Part::Device | Part::Token | Part::FollowUp | Part::Refresh | Part::Revoke | Part::Introspect => {
                return self.judge_client(part, got, now);
            }
            Part::Userinfo | Part::Lookup(_) | Part::Verify | Part::Api => return self.judge_api(part, got, now),
        }
        judge.complaints
    }

    /// A refusal as this provider words it.
    fn refusal(&self, part: Part, complaints: &[Complaint]) -> Reply {
        let code = complaints.first().map_or("invalid_request", |complaint| complaint.code);
        let text = complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if !matches!(part, Part::Token | Part::FollowUp | Part::Refresh) {
            let status = if code == "invalid_token" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            return Reply::json(status, json!({"error": code, "error_description": text}));
        }
        let dead = self.script.field("/token/reply/dead").get(0).cloned();
        let code = match (code, dead) {
            // The provider's own word for a grant that is no more, which the definition must know.
            ("invalid_grant", Some(dead)) if dead.as_str().is_none_or(|dead| !dead.contains('*')) => dead,
            (code, _) => code.into(),
        };
        self.error(part, code, &text)
    }

    /// An error of the token endpoint, where and how the definition says.
    pub(super) fn error(&self, part: Part, code: Value, text: &str) -> Reply {
        let rules = self.script.field(&format!("/{}/reply", part.name()));
        let place = |name: &str| rules[name].as_str().unwrap_or(name).to_owned();
        let mut body = json!({});
        let unauthorized = code == "invalid_client";
        shape::put(&mut body, &place("error_description"), text.into());
        shape::put(&mut body, &place("error"), code);
        let (success, failure) = (&rules["success"], &rules["error_when"]);
        shape::answer(&mut body, success, false);
        shape::answer(&mut body, failure, true);
        let status = match (success.is_object() || failure.is_object(), unauthorized) {
            (true, _) => StatusCode::OK,
            (_, true) => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        Reply::json(status, body)
    }

    /// Writes down what was asked and answered.
    fn note(&mut self, phase: &str, got: &Received, reply: &Reply, complaints: Vec<Complaint>) {
        let forms = [BodyKind::Form, BodyKind::Json];
        let body = forms.iter().find_map(|form| got.params(form).ok()).unwrap_or_default();
        let show = |text: &str| shown(&self.script, &self.known, text);
        let sent = got.query().into_iter().chain(body).map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let hide = HIDDEN.iter().any(|hidden| name.contains(hidden)) && !text.starts_with("urn:");
            format!("{name}={}", if hide { "****".to_owned() } else { show(&text) })
        });
        let sent = sent.collect();
        let reply_body = match &reply.content {
            Content::Json(value) => masked(value, &show),
            _ => Value::Null,
        };
        self.exchanges.push(Exchange {
            phase: phase.to_owned(),
            method: got.method.to_string(),
            url: got.address.shown(),
            sent,
            status: reply.status.as_u16(),
            reply: reply_body,
            complaints,
        });
    }
}

fn nowhere(got: &Received) -> Complaint {
    let place = format!("{} {}", got.method, got.address.shown());
    let expected = "an address of the definition".to_owned();
    Complaint { place, expected, got: "another one".to_owned(), code: "invalid_request" }
}

/// Parameters whose values are good for one use at most, and nobody's business.
const HIDDEN: [&str; 4] = ["code_verifier", "assertion", "subject_token", "secret"];

fn masked(value: &Value, show: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => show(text).into(),
        Value::Array(items) => items.iter().map(|item| masked(item, show)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let hide = name.contains("token") && value.is_string() && name != "token_type";
                (name.clone(), if hide { "****".into() } else { masked(value, show) })
            })
            .collect(),
        other => other.clone(),
    }
}

/// Whether two paths are the same, however their characters are written.
pub(super) fn same_path(one: &str, other: &str) -> bool {
    let plain = |path: &str| path.split('/').map(decoded).collect::<Vec<_>>();
    plain(one) == plain(other)
}

/// Whether an address is below another.
pub(super) fn below(base: &Address, address: &Address) -> bool {
    let prefix = base.path.trim_end_matches('/');
    base.host == address.host
        && address.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn decoded(segment: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some(&byte) = rest.first() {
        let pair = rest
            .get(1..3)
            .and_then(|pair| str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match pair.filter(|_| byte == b'%') {
            Some(value) => {
                out.push(value);
                rest = &rest[3..];
            }
            None => {
                out.push(byte);
                rest = &rest[1..];
            }
        }
    }
    out
}
