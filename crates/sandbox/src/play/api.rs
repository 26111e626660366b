//! What is asked with a token: the API, whose account it is, what is looked up; and the discovery document.

use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};

use super::judge::{Complaint, Judge, Want, Wants, replace};
use super::received::{BodyKind, Received};
use super::script::{Address, Known, percent};
use super::shape;
use super::stage::{Part, Stage, same_path};
use crate::reply::Reply;

/// Whose account it is: the definition's field, its place where nothing is said, and the value.
const ACCOUNT: [(&str, &str, &str); 3] = [
    ("account", "sub", "account-1"),
    ("name", "name", "A Rehearsed Account"),
    ("email", "email", "rehearsed@account.example"),
];

impl Stage {
    /// What the API's paths are appended to.
    pub(super) fn base(&self) -> Option<Address> {
        self.script.address(self.script.text("/api/base_url")?, &self.known)
    }

    fn below_base(&self, path: &str) -> Option<Address> {
        let base = self.base()?;
        let filled = self.script.fill_with(path, &self.known, |value, _| percent(value))?;
        Address::read(&format!("https://{}{}{filled}", base.host, base.path.trim_end_matches('/')))
    }

    pub(super) fn verify_address(&self) -> Option<Address> {
        let verify = self.script.field("/api/verify");
        let path = verify.as_str().or(verify["path"].as_str()).filter(|path| !path.is_empty())?;
        self.below_base(path)
    }

    pub(super) fn lookups(&self) -> usize {
        self.script.field("/after_connect").as_array().map_or(0, Vec::len)
    }

    pub(super) fn lookup_address(&self, index: usize) -> Option<Address> {
        let lookup = &self.script.field("/after_connect")[index];
        match (lookup["url"].as_str(), lookup["path"].as_str()) {
            (Some(url), _) => self.script.address(url, &self.known),
            (_, Some(path)) => self.below_base(path),
            _ => None,
        }
    }

    /// A call with a token: the token in its places, the API's headers and query, and what this call has of its own.
    pub(super) fn judge_api(&self, part: Part, got: &Received, now: i64) -> Vec<Complaint> {
        let complaints = self.judge_with(part, got, now, self.known.clone());
        let Part::Lookup(index) = part else { return complaints };
        if complaints.is_empty() {
            return complaints;
        }
        // Asked again, a lookup may leave out what it and those after it have learnt: no provider asks for it there.
        let later = (index..self.lookups()).flat_map(|index| self.learnt_by(index)).collect::<Vec<_>>();
        let known = self.known.iter().filter(|(name, _)| !later.contains(name));
        self.judge_with(part, got, now, known.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn learnt_by(&self, index: usize) -> Vec<String> {
        let lookup = &self.script.field("/after_connect")[index];
        let extracted = table(&lookup["extract"]).into_iter().map(|(name, _)| name);
        extracted.chain(lookup["choose"]["save"].as_str()).map(|name| format!("lookup.{name}")).collect()
    }

    fn judge_with(&self, part: Part, got: &Received, now: i64, mut known: Known) -> Vec<Complaint> {
        // A value computed over the token is computed over the one that came.
        let presented = self.presented(got);
        if let Some(token) = &presented {
            known.insert("access_token".to_owned(), token.clone());
        }
        let mut judge = Judge::new(&self.script, &known, now);
        let nothing = Value::Null;
        let (address, own) = match part {
            Part::Userinfo => (self.script.endpoint("userinfo", &self.known), self.script.field("/userinfo")),
            Part::Lookup(index) => (self.lookup_address(index), &self.script.field("/after_connect")[index]),
            Part::Verify => (self.verify_address(), self.script.field("/api/verify")),
            _ => (None, &nothing),
        };
        if part != Part::Api {
            judge.method(own["method"].as_str().unwrap_or("GET"), got);
        }
        let mut headers = self.script.table("/api/headers");
        let more = table(&own["headers"]);
        headers.retain(|(name, _)| !more.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)));
        headers.extend(more);
        judge.own_headers(&headers, got);

        let mut query = judge.texts("/api/query");
        replace(&mut query, judge.filled(&table(&own["query"])));
        let mut body = judge.filled(&table(&own["params"]));
        let places = self.places();
        for place in &places {
            let token = self.token_of(place, presented.as_deref());
            let name = place["name"].as_str().unwrap_or("access_token");
            let want =
                (name.to_owned(), Want::Among(token.iter().map(|token| prefixed(place, token)).collect(), "the token"));
            match place["in"].as_str() {
                Some("query") => replace(&mut query, vec![want]),
                Some("body") => replace(&mut body, vec![want]),
                _ => self.judge_header(&mut judge, place, token.as_deref(), got),
            }
        }
        let in_header = |place: &&Value| {
            !matches!(place["in"].as_str(), Some("query" | "body")) && header_of(place) == "authorization"
        };
        if !places.iter().any(|place| in_header(&place))
            && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            && let Some(found) = got.header("authorization")
        {
            let scheme = found.split(' ').next().unwrap_or_default().to_owned();
            judge.complain("invalid_token", "header authorization", "none", scheme);
        }
        if part == Part::Api {
            self.judge_call(&mut judge, query, &places, body, got);
        } else {
            self.judge_own(&mut judge, own, query, body, address, got);
        }
        judge.complaints
    }

    /// A call of somebody else's: what the definition adds must be there, whatever else is.
    fn judge_call(&self, judge: &mut Judge<'_>, query: Wants, places: &[Value], body: Wants, got: &Received) {
        let names: Vec<&str> = query.iter().map(|(name, _)| name.as_str()).collect();
        let found = got.query().into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect();
        judge.compare("query", query.clone(), found, false);
        if places.iter().any(|place| place["in"] == "body") && !got.body.is_empty() {
            let form = if got.content_type() == "application/json" { BodyKind::Json } else { BodyKind::Form };
            let names: Vec<&str> = body.iter().map(|(name, _)| name.as_str()).collect();
            let found = got.params(&form).unwrap_or_default();
            let found = found.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect();
            judge.compare("body", body.clone(), found, form == BodyKind::Json);
        }
    }

    /// A request of the definition's own: exactly what it says.
    fn judge_own(
        &self,
        judge: &mut Judge<'_>,
        own: &Value,
        mut query: Wants,
        body: Wants,
        address: Option<Address>,
        got: &Received,
    ) {
        let address = address.map(|address| address.query).unwrap_or_default();
        for (name, value) in address {
            if !query.iter().any(|(known, _)| *known == name) {
                query.push((name, Want::text(value)));
            }
        }
        if own["method"].as_str().unwrap_or("GET") == "GET" {
            replace(&mut query, body);
        } else if !body.is_empty() {
            let form = if own["body"] == "form" { BodyKind::Form } else { BodyKind::Json };
            match got.params(&form) {
                Ok(found) => judge.compare("body", body, found, form == BodyKind::Json),
                Err((expected, found)) => judge.complain("invalid_request", "content type", expected, found),
            }
        }
        judge.compare("query", query, got.query(), false);
    }

    fn judge_header(&self, judge: &mut Judge<'_>, place: &Value, token: Option<&str>, got: &Received) {
        let name = header_of(place);
        let wanted = token.map(|token| prefixed(place, token));
        let found = got.header(&name);
        if wanted.is_none() || found != wanted.as_deref() {
            let scheme = prefixed(place, "").trim().to_owned();
            let expected = format!("{scheme} and the token").trim_start_matches(" and ").to_owned();
            let got = match found {
                None => "nothing".to_owned(),
                Some(found) => match found.rsplit_once(' ') {
                    Some((scheme, _)) => format!("{scheme} and something"),
                    None => "a token alone, or another one".to_owned(),
                },
            };
            judge.complain("invalid_token", &format!("header {name}"), expected, got);
        }
    }

    /// The places where tokens go, as the definition has them.
    fn places(&self) -> Vec<Value> {
        match self.script.field("/api/token") {
            Value::Array(places) => places.clone(),
            Value::Object(place) => vec![Value::Object(place.clone())],
            _ => vec![json!({})],
        }
    }

    /// The token that belongs in a place: the access token that came, if it was issued, or the secondary one.
    fn token_of(&self, place: &Value, presented: Option<&str>) -> Option<String> {
        match place["token"].as_str() {
            None | Some("access_token") => presented.map(str::to_owned),
            Some(name) => self.secondary.get(name).cloned(),
        }
    }

    /// The issued access token that came with a request, wherever it stands.
    fn presented(&self, got: &Received) -> Option<String> {
        let body = String::from_utf8_lossy(&got.body);
        let came = |token: &str| {
            got.headers
                .values()
                .any(|value| value.to_str().is_ok_and(|value| value.split(' ').any(|word| word == token)))
                || got.address.query.iter().any(|(_, value)| value == token)
                || body.contains(token)
        };
        self.access.iter().rev().map(|access| &access.token).find(|token| came(token)).cloned()
    }

    /// Answers a call with a good token, or says in the provider's way that it has ended.
    pub(super) fn serve(&mut self, part: Part, got: &Received, now: i64) -> Reply {
        let token = self.presented(got);
        let access = self.access.iter().find(|access| Some(&access.token) == token.as_ref());
        let uses_main =
            self.places().iter().any(|place| matches!(place["token"].as_str(), None | Some("access_token")));
        let ended = uses_main && access.is_none_or(|access| access.ends_at.is_some_and(|at| at <= now));
        self.served = !self.revoked && !ended;
        if !self.served {
            return self.expired();
        }
        // One address may be several things: its answer serves all of them.
        let parts = self.parts(got);
        let mut body = if part == Part::Api { json!({"rehearsed": true}) } else { json!({}) };
        if let Some(index) =
            parts.iter().find_map(|part| if let Part::Lookup(index) = part { Some(*index) } else { None })
        {
            body = self.looked_up(index);
        }
        if parts.contains(&Part::Userinfo) && body.is_object() {
            for (name, standard, value) in ACCOUNT {
                let place = self.script.text(&format!("/userinfo/{name}")).unwrap_or(standard).to_owned();
                shape::put(&mut body, &place, value.into());
            }
        }
        if parts.contains(&Part::Verify) {
            shape::answer(&mut body, &self.script.field("/api/verify")["expect"], true);
        }
        Reply::ok(body)
    }

    /// As the definition says that its API words it; else 401 (RFC 6750 §3.1).
    fn expired(&self) -> Reply {
        let rule = match self.script.field("/api/expired_when") {
            Value::Array(rules) => rules.first().cloned().unwrap_or_default(),
            rule => rule.clone(),
        };
        if !rule.is_object() {
            return Reply::json(StatusCode::UNAUTHORIZED, json!({"error": "invalid_token"}))
                .header(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"");
        }
        let mut body = json!({});
        shape::answer(&mut body, &rule, true);
        let status = rule["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        Reply::json(status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK), body)
    }

    /// An answer in which a lookup finds what it looks for. Where a person chooses, and where the first that fits is taken, there are several items.
    fn looked_up(&mut self, index: usize) -> Value {
        let lookup = self.script.field("/after_connect")[index].clone();
        let list = lookup["list"].as_str().unwrap_or_default().to_owned();
        let (asks, filter) = (lookup["choose"].is_object(), lookup["where"].is_object());
        let count = if filter || (asks && self.script.has_person()) { 2 } else { 1 };
        let mut items = Vec::new();
        let mut learnt = Known::new();
        for number in 1..=count {
            let mut item = Value::Null;
            let is_last = number == count;
            let suffix = if is_last { String::new() } else { format!("-{number}") };
            for (name, place) in table(&lookup["extract"]) {
                let value = format!("{}{suffix}", self.sample(&format!("lookup.{name}")));
                shape::put(&mut item, place.as_str().unwrap_or_default(), value.clone().into());
                learnt.insert(format!("lookup.{name}"), value);
            }
            if let (Some(save), Some(place)) = (lookup["choose"]["save"].as_str(), lookup["choose"]["value"].as_str()) {
                let value = format!("{}{suffix}", self.sample(&format!("lookup.{save}")));
                shape::put(&mut item, place, value.clone().into());
                learnt.insert(format!("lookup.{save}"), value);
                if let Some(label) = lookup["choose"]["label"].as_str() {
                    shape::put(&mut item, label, format!("Item {number}").into());
                }
            }
            shape::answer(&mut item, &lookup["where"], is_last);
            items.push(item);
        }
        let waits = asks && count > 1 && !learnt.keys().all(|name| self.known.contains_key(name));
        if waits {
            self.offered.extend(learnt)
        } else {
            self.known.extend(learnt)
        }
        let found = if filter || asks { Value::Array(items) } else { items.pop().unwrap_or_default() };
        let mut body = Value::Null;
        shape::put(&mut body, &list, found);
        body
    }

    /// Names that a definition has placeholders for, such as all that begin with `reply.`.
    pub(super) fn said(&self, prefix: &str) -> Vec<String> {
        let mut names = Vec::new();
        for text in self.script.texts() {
            for part in super::script::parts(text) {
                if let super::script::Part::Name(name) = part
                    && name.starts_with(prefix)
                    && !names.iter().any(|known| known == name)
                {
                    names.push(name.to_owned());
                }
            }
        }
        names
    }

    /// What the provider says under a name: an address on one of the API's hosts if the definition uses it as one.
    pub(super) fn sample(&self, name: &str) -> String {
        let whole = format!("{{{{{name}}}}}");
        let addresses = self.script.addresses();
        let is_url = addresses.iter().any(|address| address.starts_with(&whole));
        let is_host = addresses
            .iter()
            .filter_map(|address| address.split_once("://")?.1.strip_prefix(&whole))
            .any(|rest| rest.is_empty() || rest.starts_with('/'));
        if !is_url && !is_host {
            return format!("rehearsed-{}", name.rsplit('.').next().unwrap_or(name));
        }
        let hosts = self.script.list("/api/hosts");
        let filled = hosts.iter().find_map(|host| self.script.fill(host, &Known::new()));
        let host = filled.unwrap_or_else(|| "api.example".to_owned());
        let host = host.replace("*.", "rehearsed.");
        if is_url { format!("https://{host}") } else { host }
    }

    pub(super) fn is_document(&self, got: &Received) -> bool {
        let Some(issuer) = self.script.issuer(&self.known).and_then(|issuer| Address::read(&issuer)) else {
            return false;
        };
        let path = issuer.path.trim_end_matches('/');
        let is_at = |place: String| same_path(&place, &got.address.path);
        issuer.host == got.address.host
            && (is_at(format!("{path}/.well-known/openid-configuration"))
                || is_at(format!("/.well-known/oauth-authorization-server{path}"))
                || is_at(format!("/.well-known/openid-configuration{path}")))
    }

    /// The issuer that the document names.
    pub(super) fn document_issuer(&self) -> Option<String> {
        let issuer = self.script.written_issuer(&self.known)?;
        let other = self.script.field("/discover/documents")[issuer.as_str()].as_str().map(str::to_owned);
        Some(other.unwrap_or(issuer))
    }

    pub(super) fn document(&self) -> Reply {
        let Some(issuer) = self.document_issuer() else { return Reply::empty(StatusCode::NOT_FOUND) };
        let url = |phase: &str| {
            let base = self.script.issuer(&self.known).unwrap_or_default();
            format!("{base}/rehearsal/{phase}")
        };
        let names_itself = self.script.grant == "authorization_code" && !issuer.contains('{');
        Reply::ok(json!({
            "issuer": issuer,
            "authorization_endpoint": url("authorize"),
            "token_endpoint": url("token"),
            "revocation_endpoint": url("revoke"),
            "userinfo_endpoint": url("userinfo"),
            "device_authorization_endpoint": url("device"),
            "response_types_supported": ["code"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "authorization_response_iss_parameter_supported": names_itself,
        }))
    }
}

fn table(value: &Value) -> Vec<(&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect()
}

fn header_of(place: &Value) -> String {
    place["name"].as_str().unwrap_or("authorization").to_ascii_lowercase()
}

/// A token with what stands before it. Other headers than `Authorization` have no prefix unless one is given.
fn prefixed(place: &Value, token: &str) -> String {
    let is_header = !matches!(place["in"].as_str(), Some("query" | "body"));
    let standard = if is_header && header_of(place) == "authorization" { "Bearer" } else { "" };
    match place["prefix"].as_str().unwrap_or(standard) {
        "" => token.to_owned(),
        prefix => format!("{prefix} {token}"),
    }
}
