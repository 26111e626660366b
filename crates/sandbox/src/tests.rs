#![allow(clippy::unwrap_used)]
//! The whole sandbox: in-process through the router, and on a socket where a connection must be cut.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Request, StatusCode};
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use url::Url;

use super::*;

const CALLBACK: &str = "https://app.example/callback?keep=1";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// Of RFC 7636, appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A sandbox with a clock that stands still and numbers for randomness.
struct Bench {
    sandbox: Sandbox,
    clock: Arc<AtomicI64>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn member(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.text)).to_owned()
    }

    fn header(&self, name: impl axum::http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A parameter of the redirect.
    fn sent_back(&self, name: &str) -> Option<String> {
        assert_eq!(self.status, StatusCode::FOUND, "{}", self.text);
        let url = Url::parse(self.header(LOCATION)).unwrap();
        assert!(url.as_str().starts_with(CALLBACK), "{url}");
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

fn bench(options: Options) -> Bench {
    let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
    let ticks = clock.clone();
    let random = AtomicU8::new(0);
    let options = Options { redirect_uris: vec![CALLBACK.to_owned()], ..options };
    let sandbox = Sandbox::new(
        options,
        Arc::new(move || ticks.load(Ordering::SeqCst)),
        Arc::new(move || [random.fetch_add(1, Ordering::SeqCst); 32]),
    );
    Bench { sandbox, clock }
}

fn calm() -> Bench {
    bench(Options::default())
}

fn rotating(rotation: Rotation) -> Bench {
    bench(Options { rotation, ..Options::default() })
}

impl Bench {
    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn fault(&self, flag: &str) {
        self.sandbox.set_fault(flag.parse().unwrap());
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.sandbox.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 64 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post_json(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn form(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send(form_request(path, form, None)).await
    }

    /// As `sandbox-basic`.
    async fn basic(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send(form_request(path, form, Some("sandbox-basic:sandbox-secret"))).await
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.basic("/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn login(&self) -> Answer {
        let form =
            [("grant_type", "password"), ("username", "alice"), ("password", "wonderland"), ("scope", "write read")];
        let answer = self.basic("/token", &form).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer
    }

    async fn api(&self, path: &str, token: &str) -> Answer {
        self.send(Request::get(path).header(AUTHORIZATION, format!("Bearer {token}")).body(Body::empty()).unwrap())
            .await
    }

    async fn consent(&self, changes: &[(&str, &str)]) -> Answer {
        self.form("/authorize/decision", &authorize_with(changes)).await
    }

    async fn exchange(&self, code: &str, verifier: &str) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", verifier),
        ];
        self.basic("/token", &form).await
    }
}

fn form_request(path: &str, form: &[(&str, &str)], basic: Option<&str>) -> Request<Body> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut request = Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(basic) = basic {
        request = request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(basic)));
    }
    request.body(Body::from(body)).unwrap()
}

/// A good authorization request with a decision; a change with an empty value leaves the parameter out.
fn authorize_with<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut pairs = vec![
        ("client_id", "sandbox-basic"),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("state", "s t&te"),
        ("scope", "read write"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("decision", "allow"),
        ("account", "alice"),
    ];
    for (name, value) in changes {
        pairs.retain(|(key, _)| key != name);
        pairs.push((name, value));
    }
    pairs.retain(|(_, value)| !value.is_empty());
    pairs
}

fn query(pairs: &[(&str, &str)]) -> String {
    let own = ["decision", "account"];
    let pairs = pairs.iter().filter(|(name, _)| !own.contains(name));
    format!("/authorize?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

// ---- authorization server

#[tokio::test]
async fn discovery_names_the_issuer_twice_over() {
    let bench = calm();
    let openid = bench.get("/.well-known/openid-configuration").await.json();
    let oauth = bench.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(openid, oauth);
    assert_eq!(openid["issuer"], bench.sandbox.base_url());
    assert_eq!(openid["token_endpoint"], "http://127.0.0.1:8790/token");
    bench.fault("discovery=wrong_issuer");
    let wrong = bench.get("/.well-known/openid-configuration").await.json();
    assert_eq!(wrong["issuer"], "https://impostor.example");
}

#[tokio::test]
async fn consent_leads_to_a_code_and_the_code_to_tokens_once() {
    let bench = calm();
    let page = bench.get(&query(&authorize_with(&[]))).await;
    assert_eq!(page.status, StatusCode::OK);
    for text in ["Sandbox client (basic)", "sandbox-basic", "Change your data", "alice", "bob", "value=\"s t&amp;te\""]
    {
        assert!(page.text.contains(text), "{text} is missing in {}", page.text);
    }
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));

    let back = bench.consent(&[("account", "bob")]).await;
    assert_eq!(back.sent_back("state").unwrap(), "s t&te");
    assert_eq!(back.sent_back("iss").unwrap(), bench.sandbox.base_url());
    let code = back.sent_back("code").unwrap();

    assert_eq!(bench.exchange(&code, &VERIFIER.replace('d', "e")).await.member("error"), "invalid_grant");
    let tokens = bench.exchange(&code, VERIFIER).await;
    assert_eq!(tokens.member("scope"), "read write");
    assert_eq!(tokens.header("cache-control"), "no-store");
    let access = tokens.member("access_token");
    assert_eq!(bench.api("/api/me", &access).await.member("account"), "bob");

    assert_eq!(bench.exchange(&code, VERIFIER).await.member("error"), "invalid_grant");
    assert_eq!(bench.api("/api/me", &access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.refresh(&tokens.member("refresh_token")).await.member("error"), "invalid_grant");
    assert_eq!(bench.sandbox.counters().reuse_detections, 1);
}

#[tokio::test]
async fn a_code_is_bound_to_its_client_its_address_and_its_minute() {
    let bench = calm();
    let code = bench.consent(&[]).await.sent_back("code").unwrap();
    let form = [("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER)];
    let other = form_request(
        "/token",
        &[&form[..], &[("client_id", "sandbox-post"), ("client_secret", "sandbox-secret"), ("redirect_uri", CALLBACK)]]
            .concat(),
        None,
    );
    assert_eq!(bench.send(other).await.member("error_description"), "unknown code");
    let without = bench.basic("/token", &form).await;
    assert_eq!(without.member("error_description"), "redirect_uri differs from the authorization request's");
    bench.pass(60);
    assert_eq!(bench.exchange(&code, VERIFIER).await.member("error_description"), "the code has expired");
}

#[tokio::test]
async fn errors_are_shown_until_the_address_is_trusted_and_sent_back_afterwards() {
    let bench = calm();
    let shown: &[&[(&str, &str)]] = &[
        &[("client_id", "")],
        &[("client_id", "<b>nobody</b>")],
        &[("redirect_uri", "https://app.example/callback")],
        &[("redirect_uri", "https://app.example/callback?keep=1#x")],
        &[("account", "mallory")],
        &[("decision", "perhaps")],
    ];
    for changes in shown {
        let answer = bench.consent(changes).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{changes:?}");
        assert!(answer.headers.get(LOCATION).is_none() && !answer.text.contains("<b>nobody"), "{changes:?}");
    }
    let twice = bench.get(&format!("{}&state=again", query(&authorize_with(&[])))).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);

    let sent: &[(&[(&str, &str)], &str)] = &[
        (&[("response_type", "")], "invalid_request"),
        (&[("response_type", "token")], "unsupported_response_type"),
        (&[("scope", "read everything")], "invalid_scope"),
        (&[("code_challenge", "")], "invalid_request"),
        (&[("code_challenge_method", "plain")], "invalid_request"),
        (&[("code_challenge", "short")], "invalid_request"),
        (&[("decision", "deny")], "access_denied"),
        (&[("choose", "1")], "access_denied"),
    ];
    for (changes, error) in sent {
        let answer = bench.consent(changes).await;
        assert_eq!(answer.sent_back("error").unwrap(), *error, "{changes:?}");
        assert_eq!(answer.sent_back("state").unwrap(), "s t&te");
        assert_eq!(answer.sent_back("iss").unwrap(), bench.sandbox.base_url());
        assert_eq!(answer.sent_back("code"), None);
    }
    let silent = bench.get(&query(&authorize_with(&[("prompt", "none")]))).await;
    assert_eq!(silent.sent_back("error").unwrap(), "consent_required");
}

#[tokio::test]
async fn a_person_may_leave_scopes_out() {
    let bench = calm();
    let code = bench.consent(&[("choose", "1"), ("granted", "read")]).await.sent_back("code").unwrap();
    assert_eq!(bench.exchange(&code, VERIFIER).await.member("scope"), "read");
}

#[tokio::test]
async fn options_open_redirects_drop_pkce_and_approve_by_themselves() {
    let open = bench(Options {
        any_redirect: true,
        require_pkce: false,
        auto_approve: Some("alice".to_owned()),
        ..Options::default()
    });
    let changes = [("redirect_uri", "http://127.0.0.1:1234/cb"), ("code_challenge", ""), ("code_challenge_method", "")];
    let back = open.get(&query(&authorize_with(&changes))).await;
    assert!(back.header(LOCATION).starts_with("http://127.0.0.1:1234/cb?code=code_"), "{}", back.header(LOCATION));
    let script = open.consent(&[("redirect_uri", "javascript:alert(1)")]).await;
    assert_eq!(script.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_issuer_faults_meet_the_redirect_and_not_the_page() {
    let bench = calm();
    bench.fault("authorize=wrong_issuer,times=1");
    assert_eq!(bench.get(&query(&authorize_with(&[]))).await.status, StatusCode::OK);
    assert_eq!(bench.consent(&[]).await.sent_back("iss").unwrap(), "https://impostor.example");
    bench.fault("no_iss,times=1");
    assert_eq!(bench.consent(&[]).await.sent_back("iss"), None);
    assert_eq!(bench.consent(&[]).await.sent_back("iss").unwrap(), bench.sandbox.base_url());
}

#[tokio::test]
async fn a_client_must_use_the_method_it_is_registered_for() {
    let bench = calm();
    let grant = ("grant_type", "client_credentials");
    let secret = ("client_secret", "sandbox-secret");
    let by_post = [grant, ("client_id", "sandbox-post"), secret];
    assert_eq!(bench.form("/token", &by_post).await.status, StatusCode::OK);
    assert_eq!(bench.basic("/token", &[grant]).await.status, StatusCode::OK);
    let json =
        json!({"grant_type": "client_credentials", "client_id": "sandbox-json", "client_secret": "sandbox-secret"});
    assert_eq!(bench.post_json("/token", &json).await.status, StatusCode::OK);

    let refused = [
        form_request("/token", &[grant, ("client_id", "sandbox-basic"), secret], None),
        form_request("/token", &[grant, ("client_id", "sandbox-json"), secret], None),
        form_request("/token", &[grant], Some("sandbox-post:sandbox-secret")),
        form_request("/token", &[grant], Some("sandbox-basic:wrong")),
        form_request("/token", &[grant], Some("nobody:sandbox-secret")),
        form_request("/token", &[grant, ("client_id", "sandbox-post")], None),
        form_request("/token", &[grant], None),
    ];
    for request in refused {
        let answer = bench.send(request).await;
        assert_eq!((answer.status, answer.member("error")), (StatusCode::UNAUTHORIZED, "invalid_client".to_owned()));
        assert!(answer.header(WWW_AUTHENTICATE).starts_with("Basic realm="));
    }
    let both = bench.basic("/token", &[grant, secret]).await;
    assert_eq!(both.member("error_description"), "two ways of client authentication in one request");
    assert_eq!(bench.basic("/token", &[grant, ("client_id", "sandbox-basic")]).await.status, StatusCode::OK);
    let public = bench.form("/token", &[grant, ("client_id", "sandbox-public")]).await;
    assert_eq!(public.member("error"), "unauthorized_client");
}

#[tokio::test]
async fn token_requests_are_refused_by_the_book() {
    let bench = calm();
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "invalid_request"),
        (&[("grant_type", "magic")], "unsupported_grant_type"),
        (&[("grant_type", "client_credentials"), ("grant_type", "password")], "invalid_request"),
        (&[("grant_type", "client_credentials"), ("scope", "read everything")], "invalid_scope"),
        (&[("grant_type", "password"), ("username", "alice")], "invalid_request"),
        (&[("grant_type", "password"), ("username", "alice"), ("password", "builder")], "invalid_grant"),
        (&[("grant_type", "refresh_token"), ("refresh_token", "rt_made-up")], "invalid_grant"),
        (&[("grant_type", "authorization_code"), ("code", "")], "invalid_request"),
    ];
    for (form, error) in cases {
        let answer = bench.basic("/token", form).await;
        assert_eq!((answer.status, answer.member("error").as_str()), (StatusCode::BAD_REQUEST, *error), "{form:?}");
    }
    let broken = Request::post("/token").header(CONTENT_TYPE, "application/json").body(Body::from("{")).unwrap();
    assert_eq!(bench.send(broken).await.member("error_description"), "the body is not a JSON object");
}

// ---- renewal

#[tokio::test]
async fn scope_may_shrink_for_one_access_token_and_never_grow() {
    let bench = calm();
    let first = bench.login().await;
    let less = [("grant_type", "refresh_token"), ("refresh_token", &first.member("refresh_token")), ("scope", "read")];
    let second = bench.basic("/token", &less).await;
    assert_eq!(second.member("scope"), "read");
    let more =
        [("grant_type", "refresh_token"), ("refresh_token", &second.member("refresh_token")), ("scope", "admin")];
    assert_eq!(bench.basic("/token", &more).await.member("error"), "invalid_scope");
    assert_eq!(bench.refresh(&second.member("refresh_token")).await.member("scope"), "read write");
}

#[tokio::test]
async fn static_tokens_stay() {
    let bench = rotating(Rotation::Static);
    let token = bench.login().await.member("refresh_token");
    for _ in 0..3 {
        let renewed = bench.refresh(&token).await;
        assert_eq!(renewed.status, StatusCode::OK);
        assert!(renewed.json().get("refresh_token").is_none());
    }
}

#[tokio::test]
async fn rotation_refuses_the_old_one_and_keeps_the_grant() {
    let bench = rotating(Rotation::Rotate);
    let old = bench.login().await.member("refresh_token");
    let new = bench.refresh(&old).await.member("refresh_token");
    assert_eq!(bench.refresh(&old).await.member("error"), "invalid_grant");
    assert_eq!(bench.refresh(&new).await.status, StatusCode::OK);
    assert_eq!(bench.sandbox.counters().reuse_detections, 1);
}

#[tokio::test]
async fn reuse_kills_the_family() {
    let bench = rotating(Rotation::Family);
    let old = bench.login().await.member("refresh_token");
    let new = bench.refresh(&old).await;
    assert_eq!(bench.refresh(&old).await.member("error"), "invalid_grant");
    assert_eq!(bench.refresh(&new.member("refresh_token")).await.member("error"), "invalid_grant");
    assert_eq!(bench.api("/api/me", &new.member("access_token")).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_window_closes() {
    let bench = rotating(Rotation::Window(30));
    let old = bench.login().await.member("refresh_token");
    let new = bench.refresh(&old).await.member("refresh_token");
    bench.pass(30);
    assert_eq!(bench.refresh(&old).await.status, StatusCode::OK);
    bench.pass(1);
    assert_eq!(bench.refresh(&old).await.member("error"), "invalid_grant");
    assert_eq!(bench.refresh(&new).await.status, StatusCode::OK);
}

#[tokio::test]
async fn until_used_ends_with_the_first_use_of_a_replacement() {
    let bench = rotating(Rotation::UntilUsed);
    let old = bench.login().await.member("refresh_token");
    bench.refresh(&old).await;
    let again = bench.refresh(&old).await;
    assert_eq!(again.status, StatusCode::OK);
    bench.api("/api/me", &again.member("access_token")).await;
    assert_eq!(bench.refresh(&old).await.member("error"), "invalid_grant");

    let renewed = bench.refresh(&again.member("refresh_token")).await;
    let next = bench.refresh(&renewed.member("refresh_token")).await;
    assert_eq!(next.status, StatusCode::OK);
    assert_eq!(bench.refresh(&again.member("refresh_token")).await.member("error"), "invalid_grant");
}

#[tokio::test]
async fn tokens_expire_and_access_may_die_with_the_renewal() {
    let bench = bench(Options { access_ttl: 3, refresh_ttl: Some(10), access_dies: true, ..Options::default() });
    let first = bench.login().await;
    assert_eq!(first.json()["expires_in"], 3);
    let second = bench.refresh(&first.member("refresh_token")).await;
    assert_eq!(bench.api("/api/me", &first.member("access_token")).await.status, StatusCode::UNAUTHORIZED);
    bench.pass(2);
    assert_eq!(bench.api("/api/me", &second.member("access_token")).await.json()["expires_in"], 1);
    bench.pass(1);
    let expired = bench.api("/api/me", &second.member("access_token")).await;
    assert!(expired.header(WWW_AUTHENTICATE).contains("error=\"invalid_token\""));
    bench.pass(7);
    let late = bench.refresh(&second.member("refresh_token")).await;
    assert_eq!(late.member("error_description"), "the refresh token has expired");
}

#[tokio::test]
async fn simultaneous_renewals_of_one_token_are_counted() {
    let bench = rotating(Rotation::Static);
    let token = bench.login().await.member("refresh_token");
    bench.refresh(&token).await;
    bench.refresh(&token).await;
    assert_eq!(bench.sandbox.counters().max_simultaneous_refreshes, 1);
    bench.fault("slow:20");
    tokio::join!(bench.refresh(&token), bench.refresh(&token), bench.refresh(&token), bench.refresh("rt_other"));
    assert_eq!(bench.sandbox.counters().max_simultaneous_refreshes, 3);
}

// ---- revocation and introspection

#[tokio::test]
async fn revoking_a_refresh_token_ends_the_grant_and_an_access_token_itself() {
    let bench = calm();
    let first = bench.login().await;
    let (access, refresh) = (first.member("access_token"), first.member("refresh_token"));
    let stranger = [("client_id", "sandbox-post"), ("client_secret", "sandbox-secret"), ("token", refresh.as_str())];
    assert_eq!(bench.form("/revoke", &stranger).await.member("error"), "unauthorized_client");
    assert_eq!(bench.form("/revoke", &[("token", &refresh)]).await.member("error"), "invalid_client");
    assert_eq!(bench.basic("/revoke", &[("token", "unknown")]).await.status, StatusCode::OK);

    assert_eq!(bench.basic("/revoke", &[("token", &access)]).await.status, StatusCode::OK);
    assert_eq!(bench.api("/api/me", &access).await.status, StatusCode::UNAUTHORIZED);
    let second = bench.refresh(&refresh).await;
    let newest = second.member("refresh_token");
    assert_eq!(
        bench.basic("/revoke", &[("token", &newest), ("token_type_hint", "access_token")]).await.status,
        StatusCode::OK
    );
    assert_eq!(bench.api("/api/me", &second.member("access_token")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.refresh(&newest).await.member("error"), "invalid_grant");
}

#[tokio::test]
async fn introspection_tells_the_truth() {
    let bench = calm();
    let tokens = bench.login().await;
    let access = bench.basic("/introspect", &[("token", &tokens.member("access_token"))]).await.json();
    assert_eq!(
        access,
        json!({
            "active": true, "iss": "http://127.0.0.1:8790", "client_id": "sandbox-basic", "sub": "alice", "username": "alice",
            "scope": "read write", "token_type": "Bearer", "iat": 1_700_000_000, "exp": 1_700_003_600,
        })
    );
    let refresh = tokens.member("refresh_token");
    assert_eq!(bench.basic("/introspect", &[("token", &refresh)]).await.json()["active"], true);
    bench.refresh(&refresh).await;
    assert_eq!(bench.basic("/introspect", &[("token", &refresh)]).await.json(), json!({"active": false}));
    let public = bench.form("/introspect", &[("token", &refresh), ("client_id", "sandbox-public")]).await;
    assert_eq!(public.member("error"), "invalid_client");
}

// ---- API

#[tokio::test]
async fn the_api_refuses_by_rfc_6750() {
    let bench = calm();
    let none = bench.get("/api/me").await;
    assert_eq!(none.status, StatusCode::UNAUTHORIZED);
    let challenge = none.header(WWW_AUTHENTICATE);
    assert!(challenge.starts_with("Bearer realm=\"sandbox\", resource_metadata=\"http"), "{challenge}");
    assert!(!challenge.contains("error="), "without any authentication no error code is told");
    let bad = bench.api("/api/me", "at_made-up").await;
    assert!(bad.header(WWW_AUTHENTICATE).contains("error=\"invalid_token\""));
    let token = bench.login().await.member("access_token");
    for (path, scope) in [("/api/admin", "admin"), ("/userinfo", "openid")] {
        let refused = bench.api(path, &token).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert!(refused.header(WWW_AUTHENTICATE).contains(&format!("error=\"insufficient_scope\", scope=\"{scope}\"")));
    }
    let form =
        [("grant_type", "password"), ("username", "bob"), ("password", "builder"), ("scope", "admin openid email")];
    let token = bench.basic("/token", &form).await.member("access_token");
    assert_eq!(bench.api("/api/admin", &token).await.status, StatusCode::OK);
    let claims = bench.api("/userinfo", &token).await.json();
    assert_eq!(claims, json!({"sub": "bob", "email": "bob@sandbox.example", "email_verified": true}));
}

#[tokio::test]
async fn echo_shows_the_call_and_never_the_token() {
    let bench = calm();
    let token = bench.login().await.member("access_token");
    let request = Request::patch(format!("/api/echo/a%20b?x=1&leak={token}"))
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header("x-many", "1")
        .header("x-many", "2")
        .header("x-leak", format!("also {token}"))
        .body(Body::from("hello"))
        .unwrap();
    let answer = bench.send(request).await;
    assert!(!answer.text.contains(&token));
    let echo = answer.json();
    assert_eq!(echo["method"], "PATCH");
    assert_eq!(echo["path"], "/api/echo/a%20b");
    assert_eq!(echo["query"], "x=1&leak=****");
    assert_eq!(echo["authorization"], "Bearer ****");
    assert_eq!(echo["headers"], json!({"x-many": "1, 2", "x-leak": "also ****"}));
    assert_eq!(echo["token"]["client_id"], "sandbox-basic");
    assert_eq!(echo["body"]["text"], "hello");
    assert_eq!(echo["body"]["sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
}

#[tokio::test]
async fn streams_have_the_length_asked_for_and_uploads_are_counted() {
    let bench = calm();
    let token = bench.login().await.member("access_token");
    let stream = bench.api("/api/stream?bytes=64012", &token).await;
    assert_eq!((stream.text.len(), stream.header("content-length")), (64_012, "64012"));
    assert!(stream.text.ends_with("678901"));
    assert_eq!(bench.api("/api/stream?bytes=5&chunked=1", &token).await.header("content-length"), "");
    assert_eq!(bench.api("/api/slow?ms=1", &token).await.json()["waited_ms"], 1);

    let upload = Request::post("/api/upload").header(AUTHORIZATION, format!("Bearer {token}"));
    let answer = bench.send(upload.body(Body::from("hello")).unwrap()).await;
    assert_eq!(answer.json()["bytes"], 5);
    assert_eq!(bench.sandbox.counters().uploaded_bytes, 5);
}

// ---- faults

#[tokio::test]
async fn token_replies_are_spoiled_as_asked() {
    let bench = calm();
    let login = [("grant_type", "password"), ("username", "alice"), ("password", "wonderland")];
    let spoiled = async |flag: &str| {
        bench.sandbox.clear_faults();
        bench.fault(flag);
        bench.basic("/token", &login).await
    };
    let answer = spoiled("no_expires_in").await;
    assert!(answer.json().get("expires_in").is_none() && answer.json().get("token_type").is_some());
    assert!(spoiled("no_token_type").await.json().get("token_type").is_none());
    assert_eq!(spoiled("expires_text").await.json()["expires_in"], "3600");
    let form = spoiled("form_reply").await;
    assert_eq!(form.header(CONTENT_TYPE), "application/x-www-form-urlencoded");
    assert!(form.text.contains("access_token=at_") && form.text.contains("expires_in=3600"), "{}", form.text);
    let cut = spoiled("malformed").await;
    assert!(cut.text.starts_with('{') && serde_json::from_str::<Value>(&cut.text).is_err());
    assert_eq!(cut.header(CONTENT_TYPE), "application/json");
    assert_eq!(spoiled("empty").await.text, "");
    let page = spoiled("html").await;
    assert_eq!((page.status, page.header(CONTENT_TYPE)), (StatusCode::OK, "text/html; charset=utf-8"));
    let limited = spoiled("rate_limited:7").await;
    assert_eq!((limited.status, limited.header(RETRY_AFTER)), (StatusCode::TOO_MANY_REQUESTS, "7"));
    assert_eq!(spoiled("server_error").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let status = spoiled("status:418,body=teapot").await;
    assert_eq!((status.status.as_u16(), status.text.as_str()), (418, "teapot"));
    let error = spoiled("error_200").await;
    assert_eq!((error.status, error.member("error").as_str()), (StatusCode::OK, "invalid_grant"));
    assert_eq!(spoiled("error:invalid_client").await.status, StatusCode::UNAUTHORIZED);
    let away = spoiled("redirect").await;
    assert_eq!((away.status, away.header(LOCATION)), (StatusCode::FOUND, "http://127.0.0.1:8790/elsewhere"));
    let huge = spoiled("huge").await;
    assert!(huge.text.len() > 50 << 20);
    assert_eq!(huge.json()["token_type"], "Bearer");
    assert_eq!(spoiled("slow_body:0").await.json()["token_type"], "Bearer");
    let began = Instant::now();
    assert_eq!(spoiled("slow:30").await.status, StatusCode::OK);
    assert!(began.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn a_duplicated_request_meets_its_own_rotation() {
    let bench = calm();
    let token = bench.login().await.member("refresh_token");
    bench.fault("token=duplicated,times=1,grant=refresh_token");
    assert_eq!(bench.refresh(&token).await.member("error"), "invalid_grant");
    let counters = bench.sandbox.counters();
    assert_eq!((counters.issued["refresh_token"], counters.reuse_detections), (1, 1));
}

#[tokio::test]
async fn faults_change_rotation_and_revoke() {
    let bench = rotating(Rotation::Static);
    let old = bench.login().await.member("refresh_token");
    bench.fault("reuse_kills,times=2");
    let new = bench.refresh(&old).await.member("refresh_token");
    bench.refresh(&old).await;
    assert_eq!(bench.refresh(&new).await.member("error_description"), "the grant was revoked");

    let tokens = bench.login().await;
    bench.fault("api=revoked,times=1");
    assert_eq!(bench.api("/api/me", &tokens.member("access_token")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.refresh(&tokens.member("refresh_token")).await.member("error"), "invalid_grant");

    let tokens = bench.login().await;
    bench.fault("token=revoked,times=1");
    assert_eq!(bench.refresh(&tokens.member("refresh_token")).await.member("error"), "invalid_grant");
}

#[tokio::test]
async fn faults_can_meet_one_client_only() {
    let bench = calm();
    let token = bench.login().await.member("access_token");
    bench.fault("unauthorized,client=sandbox-post");
    assert_eq!(bench.api("/api/me", &token).await.status, StatusCode::OK);
    bench.fault("unauthorized,client=sandbox-basic,times=1");
    assert_eq!(bench.api("/api/me", &token).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.api("/api/me", &token).await.status, StatusCode::OK);
}

// ---- admin

#[tokio::test]
async fn counters_tell_what_was_seen_and_can_be_reset() {
    let bench = calm();
    bench.login().await;
    bench.refresh("rt_made-up").await;
    bench.form("/token", &[("grant_type", "magic"), ("client_id", "nobody")]).await;
    bench.get("/api/me").await;
    let counters: Counters = serde_json::from_value(bench.get("/admin/counters").await.json()).unwrap();
    assert_eq!(counters, bench.sandbox.counters());
    assert_eq!((counters.endpoints["token"], counters.endpoints["api"], counters.api["/api/me"]), (3, 1, 1));
    assert_eq!((counters.grants["password"], counters.grants["refresh_token"], counters.grants["other"]), (1, 1, 1));
    assert_eq!((counters.clients["sandbox-basic"], counters.clients["unknown"]), (2, 2));
    assert_eq!((counters.errors["invalid_grant"], counters.errors["invalid_client"]), (1, 1));
    assert_eq!(counters.issued["password"], 1);
    bench.send(Request::delete("/admin/counters").body(Body::empty()).unwrap()).await;
    assert_eq!(bench.sandbox.counters(), Counters::default());
}

#[tokio::test]
async fn faults_are_set_listed_and_removed_over_http() {
    let bench = calm();
    let set = bench.post_json("/admin/faults", &json!({"on": "token", "kind": "slow", "ms": 0, "times": 2})).await;
    assert_eq!((set.status, set.json()), (StatusCode::CREATED, json!({"id": 1})));
    bench.login().await;
    let listed = bench.get("/admin/faults").await.json();
    let expected =
        json!({"id": 1, "on": "token", "kind": "slow", "ms": 0, "times": 2, "after": 0, "hits": 1, "left": 1});
    assert_eq!(listed, json!({"faults": [expected]}));
    assert!(bench.get("/").await.text.contains("slow"));
    let delete = |path: &str| Request::delete(path).body(Body::empty()).unwrap();
    assert_eq!(bench.send(delete("/admin/faults/1")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.send(delete("/admin/faults/1")).await.member("reason"), "no fault 1 is set");
    assert_eq!(bench.send(delete("/admin/faults")).await.json(), json!({"removed": 0}));
}

#[tokio::test]
async fn bad_input_names_field_reason_and_remedy() {
    let bench = calm();
    let cases = [
        ("/admin/faults", json!({"on": "token"}), "kind"),
        ("/admin/faults", json!({"kind": "lost", "on": "tokn"}), "on"),
        ("/admin/faults", json!({"kind": "lost", "times": -1}), "times"),
        ("/admin/faults", json!([]), "body"),
        ("/admin/revoke", json!({}), "body"),
        ("/admin/revoke", json!({"all": false}), "all"),
        ("/admin/revoke", json!({"user": "alice"}), "user"),
        ("/admin/clients", json!({"id": ""}), "id"),
        ("/admin/clients", json!({"id": "x", "auth": "magic"}), "client"),
    ];
    for (path, body, field) in cases {
        let answer = bench.post_json(path, &body).await;
        assert_eq!((answer.status, answer.member("field").as_str()), (StatusCode::BAD_REQUEST, field), "{body}");
        assert_eq!(answer.header(CONTENT_TYPE), "application/problem+json");
        assert!(!answer.member("reason").is_empty() && !answer.member("remedy").is_empty());
    }
}

#[tokio::test]
async fn the_operator_revokes_expires_and_registers() {
    let bench = calm();
    let (first, second) = (bench.login().await, bench.login().await);
    let by_token = json!({"refresh_token": first.member("refresh_token")});
    assert_eq!(bench.post_json("/admin/revoke", &by_token).await.json(), json!({"revoked": 1}));
    assert_eq!(bench.post_json("/admin/revoke", &json!({"account": "alice"})).await.json(), json!({"revoked": 1}));
    assert_eq!(bench.api("/api/me", &second.member("access_token")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.post_json("/admin/revoke", &json!({"all": true})).await.json(), json!({"revoked": 0}));

    let third = bench.login().await;
    assert!(bench.post_json("/admin/expire", &json!({})).await.json()["expired"].as_u64().unwrap() >= 1);
    assert_eq!(bench.api("/api/me", &third.member("access_token")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.refresh(&third.member("refresh_token")).await.status, StatusCode::OK);

    let client = json!({"id": "mine", "secret": "a:b %", "redirect_uris": ["https://mine.example/cb"]});
    assert_eq!(bench.post_json("/admin/clients", &client).await.status, StatusCode::CREATED);
    let request = form_request("/token", &[("grant_type", "client_credentials")], Some("mine:a%3Ab+%25"));
    assert_eq!(bench.send(request).await.status, StatusCode::OK);
}

// ---- on a socket

/// Serves on a free port; returns the address and what stops it.
async fn listening(sandbox: &Sandbox) -> (std::net::SocketAddr, tokio::sync::oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let sandbox = sandbox.clone();
    tokio::spawn(async move { sandbox.serve(listener, async { drop(stopped.await) }).await });
    (address, stop)
}

/// All bytes until the server closes.
async fn raw(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    // A reset is as good an end as a close.
    let _ = stream.read_to_string(&mut reply).await;
    reply
}

fn raw_post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /token HTTP/1.1\r\nhost: sandbox\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn lost_works_and_says_nothing_and_drop_does_not_even_work() {
    let bench = calm();
    let (address, _stop) = listening(&bench.sandbox).await;
    let post = raw_post("grant_type=client_credentials&client_id=sandbox-post&client_secret=sandbox-secret");
    bench.fault("token=lost,times=1");
    assert_eq!(raw(address, &post).await, "");
    assert_eq!(bench.sandbox.counters().issued["client_credentials"], 1);
    bench.fault("token=drop,times=1");
    assert_eq!(raw(address, &post).await, "");
    assert_eq!(bench.sandbox.counters().issued["client_credentials"], 1);
    assert!(raw(address, &post).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(bench.sandbox.counters().endpoints["token"], 3);
}

#[tokio::test]
async fn a_router_served_by_others_cuts_the_connection_too() {
    let bench = calm();
    bench.fault("token=lost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = bench.sandbox.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(raw(address, &raw_post("grant_type=password")).await, "");
}

#[tokio::test]
async fn a_stopped_sandbox_cuts_the_connections_that_were_kept_open() {
    let sandbox = Sandbox::with_system(Options::default());
    let (address, stop) = listening(&sandbox).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /admin/faults HTTP/1.1\r\nhost: sandbox\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    stop.send(()).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn run_takes_its_issuer_from_the_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(run(listener, Options::default(), async { drop(stopped.await) }));
    let request = "GET /.well-known/openid-configuration HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n\r\n";
    assert!(raw(address, request).await.contains(&format!("\"issuer\":\"http://{address}\"")));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
