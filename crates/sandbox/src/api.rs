//! The protected API and userinfo. Bearer tokens in the header only (RFC 6750 §2.1).

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Shared};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Sandbox;
use crate::faults::{Call, Kind, On};
use crate::reply::{Reply, invalid_token};
use crate::state::{Access, Grant, State};

/// `GET /api/me`: whom the token stands for.
pub(crate) async fn me(Shared(sandbox): Shared<Sandbox>, headers: HeaderMap) -> Response {
    sandbox.serve_api("api:/api/me", &headers, None, |bearer| Reply::ok(bearer.describe())).await
}

/// `ANY /api/echo` and below: what arrived. Never the token: its header is named by scheme only, and wherever else it stands
/// it is replaced.
pub(crate) async fn echo(
    Shared(sandbox): Shared<Sandbox>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = bearer_token(&headers).unwrap_or_default();
    let mask = |text: &str| {
        if token.is_empty() { text.to_owned() } else { text.replace(token, "****") }
    };
    let work = |bearer: &Bearer| {
        Reply::ok(json!({
            "method": method.as_str(),
            "path": mask(uri.path()),
            "query": uri.query().map(mask),
            "authorization": headers.get(AUTHORIZATION).and_then(scheme),
            "headers": visible_headers(&headers, mask),
            "token": bearer.describe(),
            "body": describe_body(&body, mask),
        }))
    };
    sandbox.serve_api("api:/api/echo", &headers, None, work).await
}

/// `GET /api/stream?bytes=N[&chunked=1]`: so many bytes, by default with a length.
pub(crate) async fn stream(
    Shared(sandbox): Shared<Sandbox>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Response {
    let work = |_: &Bearer| {
        let reply = Reply::stream(pattern(query.bytes)).header(CONTENT_TYPE, "application/octet-stream");
        if query.chunked == 1 { reply } else { reply.header(CONTENT_LENGTH, &query.bytes.to_string()) }
    };
    sandbox.serve_api("api:/api/stream", &headers, None, work).await
}

#[derive(Deserialize)]
pub(crate) struct StreamQuery {
    bytes: u64,
    #[serde(default)]
    chunked: u8,
}

/// `POST /api/upload`: counts and hashes the body without keeping it.
pub(crate) async fn upload(Shared(sandbox): Shared<Sandbox>, headers: HeaderMap, body: Body) -> Response {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut hash) = (0_u64, digest::Context::new(&digest::SHA256));
    while let Some(Ok(chunk)) = chunks.next().await {
        bytes += chunk.len() as u64;
        hash.update(&chunk);
    }
    sandbox.lock().counters.uploaded_bytes += bytes;
    let sha256 = hex(hash.finish().as_ref());
    let work = |_: &Bearer| Reply::ok(json!({"bytes": bytes, "sha256": sha256}));
    sandbox.serve_api("api:/api/upload", &headers, None, work).await
}

/// `GET /api/slow?ms=N` (1000): an answer that takes its time, ten minutes at most.
pub(crate) async fn slow(
    Shared(sandbox): Shared<Sandbox>,
    Query(query): Query<SlowQuery>,
    headers: HeaderMap,
) -> Response {
    let ms = query.ms.unwrap_or(1000).min(600_000);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    sandbox.serve_api("api:/api/slow", &headers, None, |_| Reply::ok(json!({"waited_ms": ms}))).await
}

#[derive(Deserialize)]
pub(crate) struct SlowQuery {
    ms: Option<u64>,
}

/// `GET /api/admin`: needs the scope `admin`.
pub(crate) async fn admin(Shared(sandbox): Shared<Sandbox>, headers: HeaderMap) -> Response {
    sandbox.serve_api("api:/api/admin", &headers, Some("admin"), |bearer| Reply::ok(bearer.describe())).await
}

/// `GET` or `POST /userinfo` (OpenID Connect Core §5.3): needs the scope `openid`.
pub(crate) async fn userinfo(Shared(sandbox): Shared<Sandbox>, headers: HeaderMap) -> Response {
    let work = |bearer: &Bearer| {
        let account = bearer.grant.account.as_deref().unwrap_or(&bearer.grant.client);
        let has = |scope: &str| bearer.access.scope.iter().any(|granted| granted == scope);
        let mut claims = json!({"sub": account});
        if has("profile") {
            claims["name"] = account.into();
            claims["preferred_username"] = account.into();
        }
        if has("email") {
            claims["email"] = format!("{account}@sandbox.example").into();
            claims["email_verified"] = true.into();
        }
        Reply::ok(claims)
    };
    sandbox.serve_api("userinfo", &headers, Some("openid"), work).await
}

/// A token that holds, and what it stands for.
struct Bearer {
    access: Access,
    grant: Grant,
    now: i64,
}

impl Bearer {
    fn describe(&self) -> Value {
        json!({
            "account": self.grant.account,
            "client_id": self.grant.client,
            "scope": self.access.scope.join(" "),
            "grant_type": self.grant.grant_type,
            "expires_in": (self.access.expires_at - self.now) / 1000,
        })
    }
}

impl Sandbox {
    /// Lets `work` answer if the request has a valid token with the scope that is needed.
    async fn serve_api(
        &self,
        endpoint: &str,
        headers: &HeaderMap,
        needs: Option<&str>,
        work: impl Fn(&Bearer) -> Reply,
    ) -> Response {
        let client = self.client_of(headers);
        let call = Call { client: Some(&client), ..Call::new(On::Api, endpoint) };
        self.answer(call, |state, kinds| match self.bearer(state, kinds, headers, needs) {
            Ok(bearer) => work(&bearer),
            Err(refusal) => *refusal,
        })
        .await
    }

    fn client_of(&self, headers: &HeaderMap) -> String {
        let state = self.lock();
        let access = bearer_token(headers).and_then(|token| state.access(token));
        let grant = access.and_then(|access| state.grant(access.grant));
        grant.map_or("unknown", |grant| &grant.client).to_owned()
    }

    /// RFC 6750 §3.1.
    fn bearer(
        &self,
        state: &mut State,
        kinds: &[Kind],
        headers: &HeaderMap,
        needs: Option<&str>,
    ) -> Result<Bearer, Box<Reply>> {
        let Some(token) = bearer_token(headers) else {
            // Without any authentication, no error code: it would tell a stranger what to try.
            let reply = Reply::json(StatusCode::UNAUTHORIZED, json!({"message": "a bearer token is needed"}));
            let document = format!("{}/.well-known/oauth-protected-resource/api", self.base_url());
            let challenge = format!("Bearer realm=\"sandbox\", resource_metadata=\"{document}\"");
            return Err(Box::new(reply.header(WWW_AUTHENTICATE, &challenge)));
        };
        if kinds.contains(&Kind::Revoked) {
            state.access(token).map(|access| access.grant).into_iter().for_each(|grant| state.revoke_grant(grant));
        }
        let now = self.now();
        let live = state.live_access(token, now).map(|(access, grant)| (access.clone(), grant.clone()));
        let (access, grant) =
            live.ok_or_else(|| Box::new(invalid_token("the token is unknown, expired or revoked")))?;
        state.used_access(token);
        match needs.filter(|needs| !access.scope.iter().any(|scope| scope == needs)) {
            Some(needs) => Err(Box::new(insufficient_scope(needs))),
            None => Ok(Bearer { access, grant, now }),
        }
    }
}

fn insufficient_scope(needs: &str) -> Reply {
    let challenge = format!("Bearer realm=\"sandbox\", error=\"insufficient_scope\", scope=\"{needs}\"");
    let body = json!({"error": "insufficient_scope", "error_description": format!("the scope {needs} is needed")});
    Reply::json(StatusCode::FORBIDDEN, body).header(WWW_AUTHENTICATE, &challenge)
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn scheme(header: &HeaderValue) -> Option<String> {
    let (scheme, _) = header.to_str().ok()?.split_once(' ')?;
    Some(format!("{scheme} ****"))
}

/// A header that comes more than once is joined by commas, which means the same (RFC 9110 §5.3).
fn visible_headers(headers: &HeaderMap, mask: impl Fn(&str) -> String) -> BTreeMap<String, String> {
    let mut visible = BTreeMap::<String, String>::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != AUTHORIZATION) {
        let value = mask(&String::from_utf8_lossy(value.as_bytes()));
        let joined = visible.entry(name.as_str().to_owned()).or_default();
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(&value);
    }
    visible
}

fn describe_body(body: &[u8], mask: impl Fn(&str) -> String) -> Value {
    const SHOWN: usize = 64 << 10;
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= SHOWN);
    let sha256 = hex(digest::digest(&digest::SHA256, body).as_ref());
    json!({"bytes": body.len(), "sha256": sha256, "text": text.map(mask)})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digits from 0 to 9, over and over; no memory grows with the length.
fn pattern(bytes: u64) -> Body {
    const CHUNK: &[u8] = &{
        let mut chunk = [b'0'; 64_000];
        let mut at = 0;
        while at < chunk.len() {
            chunk[at] = b'0' + (at % 10) as u8;
            at += 1;
        }
        chunk
    };
    let chunks = stream::unfold(bytes, |left| async move {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK.len());
        (now > 0).then(|| (Ok::<_, io::Error>(Bytes::from_static(&CHUNK[..now])), left - now as u64))
    });
    Body::from_stream(chunks)
}
