//! The token, revocation and introspection endpoints.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use axum::body::Bytes;
use axum::extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::Sandbox;
use crate::client_auth::{OauthError, Presented};
use crate::faults::{Call, GRANTS, Kind, On};
use crate::options::{Client, Rotation, SCOPES, USERS};
use crate::reply::Reply;
use crate::state::{Grant, Issue, State, milliseconds};

/// `POST /token` (RFC 6749 §3.2).
pub(crate) async fn token(
    extract::State(sandbox): extract::State<Sandbox>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Presented::read(&headers, &body);
    let client = sandbox.known_client(request.claimed_client());
    let call = Call { grant: request.parameter("grant_type"), client: Some(&client), ..Call::new(On::Token, "token") };
    let _in_flight = request.parameter("refresh_token").map(|token| InFlight::enter(&sandbox, token));
    let work = |state: &mut State, kinds: &[Kind]| exchange(&sandbox, state, kinds, &request);
    sandbox.answer(call, |state, kinds| work(state, kinds).unwrap_or_else(OauthError::reply)).await
}

/// `POST /revoke` (RFC 7009): a refresh token ends its grant, an access token only itself.
pub(crate) async fn revoke(
    extract::State(sandbox): extract::State<Sandbox>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Presented::read(&headers, &body);
    let client = sandbox.known_client(request.claimed_client());
    let call = Call { client: Some(&client), ..Call::new(On::Revoke, "revoke") };
    sandbox.answer(call, |state, _| end(state, &request).unwrap_or_else(OauthError::reply)).await
}

/// `POST /introspect` (RFC 7662), for any client that proves itself.
pub(crate) async fn introspect(
    extract::State(sandbox): extract::State<Sandbox>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Presented::read(&headers, &body);
    let client = sandbox.known_client(request.claimed_client());
    let call = Call { client: Some(&client), ..Call::new(None, "introspect") };
    sandbox.answer(call, |state, _| describe(&sandbox, state, &request).unwrap_or_else(OauthError::reply)).await
}

/// Counts a token request for one refresh token while it is under way, also when the client goes away meanwhile.
struct InFlight<'a> {
    sandbox: &'a Sandbox,
    token: &'a str,
}

impl<'a> InFlight<'a> {
    fn enter(sandbox: &'a Sandbox, token: &'a str) -> Self {
        sandbox.lock().enter(token);
        Self { sandbox, token }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.sandbox.lock().leave(self.token);
    }
}

impl Sandbox {
    /// The name under which a client is counted.
    fn known_client(&self, claimed: Option<&str>) -> String {
        claimed.filter(|id| self.lock().client(id).is_some()).unwrap_or("unknown").to_owned()
    }
}

fn exchange(sandbox: &Sandbox, state: &mut State, kinds: &[Kind], request: &Presented) -> Result<Reply, OauthError> {
    if kinds.contains(&Kind::Revoked) {
        let token = request.parameter("refresh_token");
        token.and_then(|token| state.grant_of_refresh(token)).into_iter().for_each(|grant| state.revoke_grant(grant));
    }
    let client = request.authenticate(state)?;
    let task = Task { sandbox, client, request, now: sandbox.now() };
    match request.required("grant_type")? {
        "authorization_code" => task.code(state),
        "client_credentials" => task.client_credentials(state),
        "password" => task.password(state),
        "refresh_token" => {
            let rotation = sandbox.options().rotation;
            task.refresh(state, if kinds.contains(&Kind::ReuseKills) { Rotation::Family } else { rotation })
        }
        _ => Err(OauthError::new("unsupported_grant_type", format!("supported are {}", GRANTS.join(" ")))),
    }
}

/// A token request of a client that has proved itself.
struct Task<'a> {
    sandbox: &'a Sandbox,
    client: Client,
    request: &'a Presented,
    now: i64,
}

impl Task<'_> {
    fn code(&self, state: &mut State) -> Result<Reply, OauthError> {
        let invalid = |why: &str| OauthError::new("invalid_grant", why);
        let presented = self.request.required("code")?;
        let code = state.codes.get(presented).filter(|code| code.client == self.client.id);
        let code = code.cloned().ok_or_else(|| invalid("unknown code"))?;
        if let Some(grant) = code.spent_for {
            // RFC 6749 §4.1.2: a code that comes twice may have been stolen, so its tokens end.
            state.counters.reuse_detections += 1;
            state.revoke_grant(grant);
            return Err(invalid("the code was used before: what it gave is revoked"));
        }
        if code.expires_at <= self.now {
            return Err(invalid("the code has expired"));
        }
        if code.redirect_uri.as_deref() != self.request.parameter("redirect_uri") {
            return Err(invalid("redirect_uri differs from the authorization request's"));
        }
        check_verifier(code.challenge.as_deref(), self.request.parameter("code_verifier"))?;
        let grant = self.grant("authorization_code", Some(code.account), code.scope.clone());
        let id = state.open_grant(grant);
        if let Some(code) = state.codes.get_mut(presented) {
            code.spent_for = Some(id);
        }
        Ok(self.issue(state, id, code.scope, true, None))
    }

    fn client_credentials(&self, state: &mut State) -> Result<Reply, OauthError> {
        if self.client.secret.is_none() {
            return Err(OauthError::new("unauthorized_client", "a public client can't act for itself"));
        }
        let scope =
            known_scope(self.request.parameter("scope")).map_err(|error| OauthError::new("invalid_scope", error))?;
        let id = state.open_grant(self.grant("client_credentials", None, scope.clone()));
        Ok(self.issue(state, id, scope, false, None))
    }

    fn password(&self, state: &mut State) -> Result<Reply, OauthError> {
        let login = (self.request.required("username")?, self.request.required("password")?);
        if !USERS.contains(&login) {
            return Err(OauthError::new("invalid_grant", "wrong user name or password"));
        }
        let scope =
            known_scope(self.request.parameter("scope")).map_err(|error| OauthError::new("invalid_scope", error))?;
        let id = state.open_grant(self.grant("password", Some(login.0.to_owned()), scope.clone()));
        Ok(self.issue(state, id, scope, true, None))
    }

    fn refresh(&self, state: &mut State, rotation: Rotation) -> Result<Reply, OauthError> {
        let token = self.request.required("refresh_token")?;
        let used = state.use_refresh(token, &self.client.id, rotation, self.now);
        let id = used.map_err(|why| OauthError::new("invalid_grant", why))?;
        let granted = state.grant(id).map(|grant| grant.scope.clone()).unwrap_or_default();
        let scope = match self.request.parameter("scope") {
            None => granted,
            // Less than was granted is allowed, for this access token only; more never (RFC 6749 §6).
            Some(asked) => {
                let asked = split(asked);
                if asked.iter().any(|scope| !granted.contains(scope)) {
                    return Err(OauthError::new("invalid_scope", "more than what was granted"));
                }
                asked
            }
        };
        if self.sandbox.options().access_dies {
            state.remove_access_of(id);
        }
        let rotates = rotation != Rotation::Static;
        if rotates {
            state.replace_refresh(token, self.now);
        }
        Ok(self.issue(state, id, scope, rotates, Some(token.to_owned())))
    }

    fn grant(&self, grant_type: &'static str, account: Option<String>, scope: Vec<String>) -> Grant {
        Grant { client: self.client.id.clone(), account, scope, grant_type, revoked: false }
    }

    /// Records new tokens; the reply of RFC 6749 §5.1. The scope is always named, the same or not.
    fn issue(&self, state: &mut State, grant: u64, scope: Vec<String>, refresh: bool, from: Option<String>) -> Reply {
        let options = self.sandbox.options();
        let access = self.sandbox.fresh("at_");
        let refresh = refresh.then(|| {
            let expires_at = options.refresh_ttl.map(|ttl| self.now.saturating_add(milliseconds(ttl)));
            (self.sandbox.fresh("rt_"), expires_at)
        });
        let mut reply = json!({
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": options.access_ttl,
            "scope": scope.join(" "),
        });
        if let Some((token, _)) = &refresh {
            reply["refresh_token"] = token.as_str().into();
        }
        let access_expires_at = self.now.saturating_add(milliseconds(options.access_ttl));
        let grant_type =
            if from.is_some() { "refresh_token" } else { state.grant(grant).map_or("", |grant| grant.grant_type) };
        state.counters.saw_issue(grant_type);
        state.issue(Issue { grant, scope, access, access_expires_at, refresh, from, now: self.now });
        Reply::ok(reply)
    }
}

/// RFC 7636 §4.6; a verifier without a challenge is a downgrade (RFC 9700 §4.8.2).
fn check_verifier(challenge: Option<&str>, verifier: Option<&str>) -> Result<(), OauthError> {
    let hashed = |verifier: &str| URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    match (challenge, verifier) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(OauthError::new("invalid_grant", "code_verifier for a code without a challenge")),
        (Some(_), None) => Err(OauthError::new("invalid_grant", "code_verifier is missing")),
        (Some(challenge), Some(verifier)) if hashed(verifier) == challenge && (43..=128).contains(&verifier.len()) => {
            Ok(())
        }
        (Some(_), Some(_)) => Err(OauthError::new("invalid_grant", "code_verifier does not match the challenge")),
    }
}

fn split(scope: &str) -> Vec<String> {
    let unique: BTreeSet<&str> = scope.split_ascii_whitespace().collect();
    unique.into_iter().map(str::to_owned).collect()
}

/// The scopes in `text`, sorted, each once; `read` if it names none. Errors with a description.
pub(crate) fn known_scope(text: Option<&str>) -> Result<Vec<String>, String> {
    let scope = split(text.unwrap_or("read"));
    match scope.iter().find(|scope| !SCOPES.iter().any(|(known, _)| known == scope)) {
        // Only what RFC 6749 §5.2 allows in a description, which an echo of the scope might not be.
        Some(_) => {
            let known = SCOPES.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            Err(format!("unknown scope; known are {}", known.join(" ")))
        }
        None => Ok(scope),
    }
}

fn end(state: &mut State, request: &Presented) -> Result<Reply, OauthError> {
    let client = request.authenticate(state)?;
    let token = request.required("token")?;
    // The hint only says where to look first (RFC 7009 §2.1); here both places are as near.
    let refresh = state.grant_of_refresh(token);
    let Some(grant) = refresh.or_else(|| state.access(token).map(|access| access.grant)) else {
        return Ok(Reply::empty(StatusCode::OK));
    };
    if state.grant(grant).is_none_or(|grant| grant.client != client.id) {
        return Err(OauthError::new("unauthorized_client", "the token belongs to another client"));
    }
    match refresh {
        Some(grant) => state.revoke_grant(grant),
        None => state.remove_access(token),
    }
    Ok(Reply::empty(StatusCode::OK))
}

fn describe(sandbox: &Sandbox, state: &State, request: &Presented) -> Result<Reply, OauthError> {
    let client = request.authenticate(state)?;
    if client.secret.is_none() {
        return Err(OauthError::invalid_client("a public client can't introspect (RFC 7662 section 2.1)"));
    }
    let token = request.required("token")?;
    let now = sandbox.now();
    let base = |grant: &Grant, scope: &[String]| {
        json!({
            "active": true,
            "iss": sandbox.base_url(),
            "client_id": grant.client,
            "sub": grant.account.as_deref().unwrap_or(&grant.client),
            "username": grant.account,
            "scope": scope.join(" "),
        })
    };
    let mut found = json!({"active": false});
    if let Some((access, grant)) = state.live_access(token, now) {
        found = base(grant, &access.scope);
        found["token_type"] = "Bearer".into();
        found["iat"] = (access.issued_at / 1000).into();
        found["exp"] = (access.expires_at / 1000).into();
    } else if let Some((grant, expires_at)) = state.live_refresh(token, sandbox.options().rotation, now) {
        found = base(grant, &grant.scope);
        found["exp"] = expires_at.map_or(Value::Null, |at| (at / 1000).into());
    }
    if let Value::Object(object) = &mut found {
        object.retain(|_, value| !value.is_null());
    }
    Ok(Reply::ok(found))
}
