//! The token endpoint and those beside it: what is exchanged, renewed, asked about and revoked.

use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::judge::{Complaint, Judge, Want, Wants};
use super::received::Received;
use super::script::SECONDARY;
use super::shape;
use super::stage::{Access, Fresh, Part, Refresh, Stage};
use crate::reply::Reply;

/// Codes that a device asked for.
pub(super) struct Device {
    code: String,
    approved: bool,
}

/// Life of an access token unless something else follows from the definition, milliseconds.
const LIFE: i64 = 3_600_000;

/// Refresh tokens that say when they end end after this.
const REFRESH_LIFE: i64 = 30 * 86_400_000;

impl Stage {
    pub(super) fn judge_client(&self, part: Part, got: &Received, now: i64) -> Vec<Complaint> {
        let Some(address) = self.script.endpoint(part.name(), &self.known) else { return Vec::new() };
        let judge = self.judge(now);
        let standard = match part {
            Part::Device => {
                let id = Want::text(self.script.registration.client_id.as_str());
                [vec![("client_id".to_owned(), id)], judge.scope()].concat()
            }
            Part::Refresh => self.refresh_params(&judge, now),
            Part::FollowUp => Vec::new(),
            Part::Revoke | Part::Introspect => {
                // Secondary tokens are revoked beside the grant, each by itself.
                let second = self.second_in(got).filter(|_| part == Part::Revoke);
                let hint = if second.is_some() { "access_token" } else { self.hint(part) };
                let token = second.or_else(|| self.known.get(hint)).cloned();
                vec![
                    ("token".to_owned(), Want::Among(token.into_iter().collect(), "the current token")),
                    ("token_type_hint".to_owned(), Want::Maybe(hint.into())),
                ]
            }
            _ => self.grant_params(&judge),
        };
        // A value that is computed over the request's own parameters needs them.
        let mut known = self.known.clone();
        let id = self.script.registration.client_id.clone();
        let sent = standard.iter().filter_map(|(name, want)| match want {
            Want::Is(value) => Some((name, value.as_str()?.to_owned())),
            Want::Among(known, _) => Some((name, known.last()?.clone())),
            _ => None,
        });
        known.extend(sent.map(|(name, value)| (format!("params.{name}"), value)));
        known.insert("params.client_id".to_owned(), id);
        let mut judge = Judge::new(&self.script, &known, now);
        judge.client_request(part.name(), &address, standard, got);
        judge.complaints
    }

    /// Which token a revocation or a question names.
    fn hint(&self, part: Part) -> &'static str {
        let wants_access = part == Part::Introspect || self.script.text("/revoke/token") == Some("access_token");
        if wants_access || !self.known.contains_key("refresh_token") { "access_token" } else { "refresh_token" }
    }

    fn grant_params(&self, judge: &Judge<'_>) -> Wants {
        let script = &self.script;
        let registration = &script.registration;
        let named = |name: &str, want| (name.to_owned(), want);
        let text = |value: &Option<String>| Want::text(value.clone().unwrap_or_default());
        let grant_type = script.input("grant_type").unwrap_or_else(|| wire_name(&script.grant).to_owned());
        let mut params = vec![named("grant_type", Want::text(grant_type))];
        match script.grant.as_str() {
            "authorization_code" => {
                let code = self.code.as_ref();
                let known = code.map(|code| code.code.clone()).into_iter().collect();
                params.push(named("code", Want::Among(known, "the code, once")));
                params.push(named("redirect_uri", Want::text(self.redirect_uri.as_str())));
                if let Some(challenge) = code.and_then(|code| code.challenge.clone()) {
                    params.push(named("code_verifier", Want::Verifier(challenge)));
                }
            }
            "password" => {
                params.push(named("username", text(&registration.username)));
                params.push(named("password", text(&registration.password)));
                params.extend(judge.scope());
            }
            "device_code" => {
                let known = self.device.iter().map(|device| device.code.clone()).collect();
                params.push(named("device_code", Want::Among(known, "the device code")));
                if !matches!(
                    script.client_auth("token"),
                    "post" | "none" | "tls" | "client_secret_jwt" | "private_key_jwt"
                ) {
                    // Clients that prove themselves elsewhere may name themselves here too (RFC 8628 §3.4).
                    params.push(named("client_id", Want::Maybe(registration.client_id.as_str().into())));
                }
            }
            // What these may do often stands in the assertion; a scope beside it does no harm.
            "jwt_bearer" | "saml_bearer" => params.extend(judge.scope().into_iter().map(|(name, want)| match want {
                Want::Is(value) => (name, Want::Maybe(value)),
                other => (name, other),
            })),
            _ => params.extend(judge.scope()),
        }
        params
    }

    fn refresh_params(&self, judge: &Judge<'_>, now: i64) -> Wants {
        let mut params = vec![("grant_type".to_owned(), Want::text("refresh_token"))];
        if self.renews_itself() {
            let known = self.known.get("access_token").cloned().into_iter().collect();
            params.push(("access_token".to_owned(), Want::Among(known, "the current access token")));
        } else {
            let known = self.refresh.iter().filter(|it| self.is_accepted(it, now)).map(|it| it.token.clone()).collect();
            params.push(("refresh_token".to_owned(), Want::Among(known, "a refresh token that is still good")));
        }
        if self.script.is("/refresh/sends_scope") {
            params.extend(judge.scope());
        }
        params
    }

    /// The access token extends itself.
    fn renews_itself(&self) -> bool {
        self.script.text("/refresh/with") == Some("access_token")
    }

    /// Whether a refresh token may be used (again), by the recovery class.
    fn is_accepted(&self, token: &Refresh, now: i64) -> bool {
        let Some(replaced_at) = token.replaced_at else { return !self.revoked };
        let window = self.script.length("/refresh/window").unwrap_or(0);
        !self.revoked
            && match self.script.text("/refresh/recovery") {
                Some("static") => true,
                Some("window") => now - replaced_at <= window,
                _ => false,
            }
    }

    /// New tokens for what was exchanged.
    pub(super) fn tokens(&mut self, part: Part, now: i64, fresh: Fresh<'_>) -> Reply {
        if part == Part::Token && self.script.grant == "device_code" {
            match &self.device {
                Some(device) if device.approved => {}
                _ => return self.error(part, "authorization_pending".into(), "nobody has typed the code yet"),
            }
        }
        let young = self.access.last().is_some_and(|access| {
            self.script.length("/refresh/min_age").is_some_and(|least| now - access.issued_at < least)
        });
        if part == Part::Refresh && young {
            return self.error(part, "invalid_request".into(), "the token is too young to be renewed");
        }
        let rotates = part != Part::Refresh || self.script.text("/refresh/recovery") != Some("static");
        if part == Part::Refresh {
            if rotates {
                self.refresh.iter_mut().for_each(|it| {
                    it.replaced_at.get_or_insert(now);
                });
            }
            if self.script.text("/refresh/recovery") == Some("access_dies") {
                self.expire_access_tokens(now);
            }
        }
        (self.code, self.device) = (None, None);
        let reply = self.token_reply(part, now, rotates, fresh);
        Reply::ok(reply)
    }

    fn token_reply(&mut self, part: Part, now: i64, rotates: bool, fresh: Fresh<'_>) -> Value {
        let rules = self.script.field(&format!("/{}/reply", part.name())).clone();
        let place = |name: &str| rules[name].as_str().unwrap_or(name).to_owned();
        let expiry = rules["expiry"].as_str().unwrap_or("seconds").to_owned();
        let life = self.life(&expiry, rules["default_lifetime"].as_str());
        let ends_at = life.map(|life| now + life);
        let access = if expiry == "jwt" {
            jwt(&json!({"exp": ends_at.unwrap_or(now) / 1000, "jti": fresh("")}))
        } else {
            fresh("access_")
        };
        let mut reply = json!({});
        for name in self.said("reply.") {
            let value = self.sample(&name);
            reply[name.trim_start_matches("reply.")] = value.clone().into();
            self.known.insert(name, value);
        }
        shape::put(&mut reply, &place("access_token"), access.clone().into());
        shape::put(&mut reply, &place("token_type"), "Bearer".into());
        let scopes = self.script.scopes();
        if !scopes.is_empty() {
            shape::put(&mut reply, &place("scope"), scopes.join(self.script.separator()).into());
        }
        if rotates && self.gives_refresh(part) {
            let token = fresh("refresh_");
            shape::put(&mut reply, &place("refresh_token"), token.clone().into());
            if let Some(place) = rules["refresh_expires_in"].as_str() {
                shape::put(&mut reply, place, lifetime(REFRESH_LIFE, now, &expiry));
            }
            self.refresh.push(Refresh { token: token.clone(), replaced_at: None });
            self.known.insert("refresh_token".to_owned(), token);
        }
        if scopes.iter().any(|scope| scope == "openid") && self.script.has_person() && part != Part::FollowUp {
            let token = self.id_token(now);
            shape::put(&mut reply, &place("id_token"), token.clone().into());
            self.known.insert("id_token".to_owned(), token);
        }
        let silent = rules["default_lifetime"].is_string() || self.script.text("/introspect/url").is_some();
        if let (Some(life), false) = (life, silent) {
            match (rules["expires_at"].as_str(), expiry.as_str()) {
                (Some(place), kind) => shape::put(&mut reply, place, date(now + life, kind)),
                // The token itself knows better.
                (None, "jwt") => shape::put(&mut reply, &place("expires_in"), 7.into()),
                (None, kind) => shape::put(&mut reply, &place("expires_in"), lifetime(life, now, kind)),
            }
        }
        self.secondary_tokens(part, now, fresh, &mut reply);
        shape::answer(&mut reply, &rules["success"], true);
        shape::answer(&mut reply, &rules["error_when"], false);
        self.access.push(Access { token: access.clone(), issued_at: now, ends_at });
        self.known.insert("access_token".to_owned(), access);
        reply
    }

    fn secondary_tokens(&mut self, part: Part, now: i64, fresh: Fresh<'_>, reply: &mut Value) {
        let rules = self.script.field(&format!("/{}/secondary", part.name())).clone();
        for (name, rules) in rules.as_object().into_iter().flatten() {
            let place = |field: &str| rules[field].as_str().map(str::to_owned);
            let token = fresh("second_");
            let expiry = rules["expiry"].as_str().unwrap_or("seconds");
            let fields: [(&str, Value); 3] =
                [("access_token", token.clone().into()), ("token_type", "Bearer".into()), ("scope", "second".into())];
            for (field, value) in fields {
                if let Some(place) = place(field) {
                    shape::put(reply, &place, value);
                }
            }
            if let Some(place) = place("expires_in").filter(|_| expiry != "never") {
                shape::put(reply, &place, lifetime(LIFE, now, expiry));
            }
            // Kept there too so that it is masked where it is shown.
            self.known.insert(format!("{SECONDARY}{name}"), token.clone());
            self.secondary.insert(name.clone(), token);
        }
    }

    /// How long an access token lives; `None`: for ever.
    fn life(&self, expiry: &str, default: Option<&str>) -> Option<i64> {
        if expiry == "never" && !self.script.writes_refresh() {
            return None;
        }
        let stated = default.and_then(super::script::milliseconds);
        let least = self.script.length("/refresh/min_age").map_or(LIFE, |least| LIFE.max(2 * least));
        Some(stated.unwrap_or(least))
    }

    /// Whether the provider gives refresh tokens, as far as the definition lets one guess.
    fn gives_refresh(&self, part: Part) -> bool {
        let script = &self.script;
        let follows = script.field("/follow_up").is_object();
        let first_of_two = follows && part == Part::Token;
        let suits = script.has_person() || matches!(script.grant.as_str(), "password" | "refresh_token");
        let never = script.text("/token/reply/expiry") == Some("never");
        suits && !first_of_two && !self.renews_itself() && (script.writes_refresh() || !(never || follows))
    }

    fn id_token(&self, now: i64) -> String {
        let issuer = self.document_issuer().or_else(|| {
            self.script.text("/callback/issuer").and_then(|template| self.script.fill(template, &self.known))
        });
        jwt(&json!({
            "iss": issuer.unwrap_or_else(|| "https://issuer.example".to_owned()),
            "sub": "account-1",
            "aud": self.script.registration.client_id,
            "nonce": self.nonce,
            "name": "A Rehearsed Account",
            "email": "rehearsed@account.example",
            "iat": now / 1000,
            "exp": now / 1000 + 600,
        }))
    }

    pub(super) fn device_codes(&mut self, fresh: Fresh<'_>) -> Reply {
        let code = fresh("device_");
        self.known.insert("code".to_owned(), code.clone());
        let body = json!({
            "device_code": code,
            "user_code": "WDJB-MJHT",
            "verification_uri": "https://device.example/activate",
            "expires_in": 600,
            "interval": 5,
        });
        self.device = Some(Device { code, approved: false });
        Reply::ok(body)
    }

    pub(super) fn approve_device(&mut self) -> bool {
        self.device.as_mut().map(|device| device.approved = true).is_some()
    }

    pub(super) fn revoke(&mut self, got: &Received) -> Reply {
        self.revoked |= self.second_in(got).is_none();
        Reply::empty(StatusCode::OK)
    }

    /// The secondary token that a request names.
    fn second_in(&self, got: &Received) -> Option<&String> {
        let body = String::from_utf8_lossy(&got.body);
        let named = |token: &str| body.contains(token) || got.address.query.iter().any(|(_, value)| value == token);
        self.secondary.values().find(|token| named(token))
    }

    pub(super) fn introspect(&self, now: i64) -> Reply {
        let access = self.access.last().filter(|access| !self.revoked && access.ends_at.is_none_or(|at| at > now));
        Reply::ok(match access {
            None => json!({"active": false}),
            Some(access) => json!({"active": true, "exp": access.ends_at.map(|at| at / 1000)}),
        })
    }

    pub(super) fn can_renew(&self) -> bool {
        let machine = !self.script.has_person() && self.script.grant != "refresh_token";
        machine || self.renews_itself() || self.known.contains_key("refresh_token")
    }

    pub(super) fn min_age(&self) -> Duration {
        let least = self.script.length("/refresh/min_age").unwrap_or(0);
        Duration::from_millis(least.unsigned_abs())
    }

    pub(super) fn can_revoke(&self) -> bool {
        self.script.endpoint("revoke", &self.known).is_some()
    }

    pub(super) fn end_of(&self, token: &str) -> Option<Option<i64>> {
        self.access.iter().find(|access| access.token == token).map(|access| access.ends_at)
    }

    pub(super) fn expire_access_tokens(&mut self, now: i64) {
        self.access.iter_mut().for_each(|access| access.ends_at = Some(access.ends_at.map_or(now, |at| at.min(now))));
    }
}

/// RFC 6749 and its extensions name grants so.
fn wire_name(grant: &str) -> &str {
    match grant {
        "device_code" => "urn:ietf:params:oauth:grant-type:device_code",
        "jwt_bearer" => "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "saml_bearer" => "urn:ietf:params:oauth:grant-type:saml2-bearer",
        "token_exchange" => "urn:ietf:params:oauth:grant-type:token-exchange",
        plain => plain,
    }
}

/// A lifetime as it is written.
fn lifetime(life: i64, now: i64, expiry: &str) -> Value {
    match expiry {
        "milliseconds" => life.into(),
        "unix" | "unix_ms" | "date" => date(now + life, expiry),
        _ => (life / 1000).into(),
    }
}

/// A date as it is written.
fn date(at: i64, expiry: &str) -> Value {
    match expiry {
        "unix" => (at / 1000).into(),
        "unix_ms" | "milliseconds" => at.into(),
        _ => rfc3339(at / 1000).into(),
    }
}

/// Seconds since 1970 as RFC 3339 has them.
fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years are counted from March, so that the leap day is last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + late;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// A token that looks signed; nobody checks that.
fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmVk", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims))
}
