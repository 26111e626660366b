#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use serde_json::json;
use tower::ServiceExt as _;

use super::*;

const NOW: i64 = 1_794_900_000_000;
const BACK: &str = "https://app.example/callback/1";
const BASIC: &str = "Basic Y2xpZW50OnMlMkZjcmV0";

fn definition() -> Value {
    json!({
        "methods": [
            {"grant": "authorization_code"},
            {"grant": "client_credentials", "name": "machine", "token": {"client_auth": "post", "params": {"audience": false}}},
        ],
        "variables": {"region": {"kind": "host"}, "account": {"presence": "optional"}},
        "scopes": {"separator": ",", "default": ["read", "write"], "parameter": "permissions"},
        "authorize": {"url": "https://{{region}}.acme.example/authorize?v=2", "rename": {"client_id": "app"}, "params": {"account": "{{account}}"}},
        "callback": {
            "capture": {"realm": {"parameter": "realmId", "pattern": "[0-9]{4}"}},
            "rename": {"code": "acme_code"},
            "signature": {"parameter": "hmac", "key": "{{client_secret}}"},
            "strip_code_suffix": "#_",
        },
        "token": {
            "url": "https://{{region}}.acme.example/token",
            "client_auth": "basic",
            "params": {"audience": "x y"},
            "headers": {"X-Version": "7"},
            "reply": {
                "access_token": "/data/accessToken", "expires_in": "/data/ttl", "expiry": "milliseconds",
                "success": {"pointer": "/ok", "equals": true}, "error": "/code", "dead": ["gone"],
            },
        },
        "refresh": {"recovery": "single_use", "params": {"again": 1}},
        "revoke": {"url": "https://{{region}}.acme.example/revoke", "token": "access_token"},
        "api": {
            "base_url": "{{reply.api}}/v1",
            "hosts": ["*.acme.example"],
            "token": {"name": "X-Token"},
            "verify": {"path": "/me", "expect": {"pointer": "/ok", "equals": true}},
            "expired_when": {"status": 200, "pointer": "/error/code", "equals": 190},
        },
    })
}

fn registration() -> Registration {
    Registration {
        client_id: "client".to_owned(),
        client_secret: Some("s/cret".to_owned()),
        variables: [("region".to_owned(), "eu".to_owned())].into(),
        ..Registration::default()
    }
}

fn begin(method: &str) -> (Play, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(NOW));
    let (shown, drawn) = (Arc::clone(&time), AtomicU8::new(0));
    let now = move || shown.load(Ordering::Relaxed);
    let play = Play::new(Arc::new(now), Arc::new(move || [drawn.fetch_add(1, Ordering::Relaxed); 32]));
    play.perform(&definition(), method, registration()).unwrap();
    play.register_redirect_uri(BACK);
    (play, time)
}

/// Asks, as a client does, and answers status and body.
async fn ask(play: &Play, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
    let url = url::Url::parse(url).unwrap();
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::builder().method(method).uri(target).header(header::HOST, url.host_str().unwrap());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = play.router().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn token(play: &Play, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
    let mut all = vec![("accept", "application/json"), ("content-type", "application/x-www-form-urlencoded")];
    all.extend(headers);
    ask(play, "POST", "https://eu.acme.example/token", &all, body).await
}

fn authorize_url(more: &str) -> String {
    let back: String = url::form_urlencoded::byte_serialize(BACK.as_bytes()).collect();
    let verifier = "v".repeat(43);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    format!(
        "https://eu.acme.example/authorize?v=2&response_type=code&app=client&redirect_uri={back}&permissions=read%2Cwrite&state={}&code_challenge={}&code_challenge_method=S256{more}",
        "s".repeat(43),
        URL_SAFE_NO_PAD.encode(hash)
    )
}

fn complaints(play: &Play) -> Vec<String> {
    play.take_exchanges()
        .iter()
        .flat_map(|it| it.complaints.iter().map(ToString::to_string).collect::<Vec<_>>())
        .collect()
}

/// A consent, and the body of its token request.
fn consented(play: &Play) -> String {
    let back = play.visit(&authorize_url("")).unwrap();
    let url = url::Url::parse(&back.url).unwrap();
    let value = |name: &str| url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned());
    assert_eq!(value("realmId").unwrap(), "0000");
    assert_eq!(value("hmac").unwrap().len(), 64);
    let code = value("acme_code").unwrap();
    let code = code.strip_suffix("#_").unwrap();
    format!(
        "grant_type=authorization_code&code={code}&redirect_uri=https%3A%2F%2Fapp.example%2Fcallback%2F1&code_verifier={}&audience=x+y",
        "v".repeat(43)
    )
}

/// What a client does otherwise than it should.
type Spoilt = fn(String) -> String;

/// Members of a definition that are changed, what the client does otherwise, and what the judge says of it.
type Judged<'a> = (&'a [(&'static str, &'static str)], Spoilt, &'static str);

#[tokio::test]
async fn a_provider_is_played_from_consent_to_revocation() {
    let (play, time) = begin("authorization_code");
    let body = consented(&play);
    let proof = [("authorization", BASIC), ("x-version", "7")];
    let (status, reply) = token(&play, &proof, &body).await;
    assert_eq!(complaints(&play), [""; 0]);
    assert_eq!((status, &reply["ok"], &reply["data"]["ttl"]), (StatusCode::OK, &json!(true), &json!(3_600_000)));
    assert_eq!(reply["api"], "https://rehearsed.acme.example");
    let access = reply["data"]["accessToken"].as_str().unwrap().to_owned();
    assert_eq!(play.end_of(&access), Some(Some(NOW + 3_600_000)));

    let me = "https://rehearsed.acme.example/v1/me";
    let (status, body) = ask(&play, "GET", me, &[("x-token", &access)], "").await;
    assert_eq!((status, body), (StatusCode::OK, json!({"ok": true})));
    time.fetch_add(3_600_000, Ordering::Relaxed);
    let (status, body) = ask(&play, "GET", me, &[("x-token", &access)], "").await;
    assert_eq!((status, body), (StatusCode::OK, json!({"error": {"code": 190}})));

    let refresh = reply["refresh_token"].as_str().unwrap();
    let body = format!("grant_type=refresh_token&refresh_token={refresh}&again=1");
    let (_, renewed) = token(&play, &proof, &body).await;
    let access = renewed["data"]["accessToken"].as_str().unwrap().to_owned();
    assert_eq!(complaints(&play), [""; 0]);
    let (status, refused) = token(&play, &proof, &body).await;
    assert_eq!((status, &refused["code"], &refused["ok"]), (StatusCode::OK, &json!("gone"), &json!(false)));
    complaints(&play);

    let form = [("accept", "application/json"), ("content-type", "application/x-www-form-urlencoded")];
    let headers = [&form[..], &proof[..]].concat();
    let body = format!("token={access}&token_type_hint=access_token");
    let (status, _) = ask(&play, "POST", "https://eu.acme.example/revoke", &headers, &body).await;
    assert_eq!((status, complaints(&play)), (StatusCode::OK, vec![]));
    assert!(play.is_revoked());
    let (_, body) = ask(&play, "GET", me, &[("x-token", &access)], "").await;
    assert_eq!(body["error"]["code"], 190);
}

#[tokio::test]
async fn what_a_definition_does_not_say_is_refused_and_named() {
    let basic = [("authorization", BASIC), ("x-version", "7")];
    let cases: [Judged<'_>; 8] = [
        (&[("x-version", "7")], |body| body, "header authorization: expected Basic (client_auth = basic), got none"),
        (
            &[("x-version", "7")],
            |body| body + "&client_id=client&client_secret=s%2Fcret",
            "body, client_id: expected no such parameter",
        ),
        (&[("authorization", BASIC)], |body| body, "header x-version: expected 7, got none"),
        (&basic, |body| body.replace("&audience=x+y", ""), "body, audience: expected x y, got nothing"),
        (&basic, |body| body + "&extra=1", "body, extra: expected no such parameter, got 1"),
        (&basic, |body| body + "&audience=x+y", "body, audience: expected no such parameter, got x y"),
        (
            &basic,
            |body| body.replace(&"v".repeat(43), &"w".repeat(43)),
            "body, code_verifier: expected the verifier of the challenge",
        ),
        (&basic, |body| body.replace("code=code_", "code=other_"), "body, code: expected the code, once"),
    ];
    for (headers, spoil, expected) in cases {
        let (play, _) = begin("authorization_code");
        let body = spoil(consented(&play));
        complaints(&play);
        let (_, reply) = token(&play, headers, &body).await;
        let found = complaints(&play);
        assert!(found.iter().any(|complaint| complaint.starts_with(expected)), "{expected}: {found:?}");
        assert!(reply["data"].is_null() && reply["ok"] != true, "{expected}: {reply}");
    }
}

#[tokio::test]
async fn the_authorization_request_is_judged_to_the_letter() {
    let cases: [(Spoilt, &str); 6] = [
        (|url| url + "&prompt=consent", "query, prompt: expected no such parameter"),
        (|url| url.replace("v=2&", ""), "query, v: expected 2, got nothing"),
        (|url| url.replace("app=client", "client_id=client"), "query, app: expected client, got nothing"),
        (|url| url.replace("read%2Cwrite", "read+write"), "query, permissions: expected read,write, got read write"),
        (
            |url| url.replace("&code_challenge_method=S256", ""),
            "query, code_challenge_method: expected S256, got nothing",
        ),
        (
            |url| url.replace("app.example", "evil.example"),
            "query, redirect_uri: expected https://app.example/callback/1",
        ),
    ];
    for (spoil, expected) in cases {
        let (play, _) = begin("authorization_code");
        assert!(play.visit(&spoil(authorize_url(""))).is_none());
        let found = complaints(&play);
        assert!(found.iter().any(|complaint| complaint.starts_with(expected)), "{expected}: {found:?}");
    }
    let (play, _) = begin("authorization_code");
    assert!(play.visit("https://login.other.example/authorize").is_none());
    assert_eq!(
        complaints(&play),
        ["GET https://login.other.example/authorize: expected an address of the definition, got another one"]
    );
}

#[tokio::test]
async fn a_method_is_read_over_what_all_share() {
    let (play, _) = begin("machine");
    let body = "grant_type=client_credentials&permissions=read%2Cwrite&client_id=client&client_secret=s%2Fcret";
    let (status, reply) = token(&play, &[("x-version", "7")], body).await;
    assert_eq!(complaints(&play), [""; 0]);
    assert_eq!(status, StatusCode::OK);
    assert!(reply["refresh_token"].is_null() && play.can_renew());
    assert!(play.perform(&definition(), "password", registration()).is_err());
}

#[tokio::test]
async fn what_was_asked_is_kept_without_secrets() {
    let (play, _) = begin("authorization_code");
    let body = consented(&play);
    let (_, reply) = token(&play, &[("authorization", BASIC), ("x-version", "7")], &body).await;
    let (_, _) = token(&play, &[], "grant_type=client_credentials&client_secret=s%2Fcret").await;
    let kept = serde_json::to_string(&play.take_exchanges()).unwrap();
    let access = reply["data"]["accessToken"].as_str().unwrap();
    for secret in ["s/cret", "s%2Fcret", access, reply["refresh_token"].as_str().unwrap(), &"v".repeat(43)] {
        assert!(!kept.contains(secret), "{secret} in {kept}");
    }
}

#[test]
fn samples_match_their_patterns() {
    let table = [
        ("[0-9]+", "000000"),
        (r"https://accounts\.(zoho\.(com|eu)|x)", "https://accounts.zoho.com"),
        (r"(sandbox-)?api\.example", "api.example"),
        ("[0-9A-Fa-f-]{36}", "000000000000000000000000000000000000"),
        (r"v[0-9]{1,3}\.\d", "v000.7"),
        ("(?:eu|us)[^/]", "eua"),
        ("[A-Za-z][A-Za-z0-9.-]{0,252}", "AAAAAAA"),
    ];
    for (pattern, expected) in table {
        assert_eq!(matching(pattern), expected, "{pattern}");
    }
}

#[test]
fn values_are_put_where_their_place_says() {
    let mut reply = json!({});
    shape::put(&mut reply, "/data/0/token", json!("x"));
    shape::put(&mut reply, "expires_in", json!(7));
    assert_eq!(reply, json!({"data": [{"token": "x"}], "expires_in": 7}));
    for question in [
        json!({"pointer": "/ok", "equals": true}),
        json!({"pointer": "/code", "not_equals": 0}),
        json!({"pointer": "/error", "exists": false}),
        json!({"pointer": "/data", "exists": true}),
    ] {
        let mut yes = json!({});
        let mut no = json!({"error": "x", "data": 1});
        shape::answer(&mut yes, &question, true);
        shape::answer(&mut no, &question, false);
        let holds = |reply: &Value| {
            let found = reply.pointer(question["pointer"].as_str().unwrap()).filter(|value| !value.is_null());
            match (question.get("equals"), question.get("not_equals"), question.get("exists")) {
                (Some(wanted), _, _) => found == Some(wanted),
                (_, Some(wanted), _) => found.is_some_and(|found| found != wanted),
                (_, _, wanted) => wanted == Some(&json!(found.is_some())),
            }
        };
        assert!(holds(&yes) && !holds(&no), "{question}: {yes} {no}");
    }
}

#[test]
fn signed_tokens_are_checked() {
    use keys::{Claim, check, private_key};
    for algorithm in ["ES256", "ES384", "EdDSA", "RS256"] {
        let key = private_key(algorithm).unwrap();
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{algorithm}");
        let claims = [("iss".to_owned(), Claim::Is("me".into()))];
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let forged = format!("{}.{}.AAAA", part(json!({"alg": algorithm})), part(json!({"iss": "me"})));
        assert!(check(&forged, algorithm, &key, &[], &claims).unwrap_err().contains("signature"), "{algorithm}");
    }
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", part(json!({"alg": "HS256", "kid": "1"})), part(json!({"iss": "me", "exp": 100})));
    let mac = keys::hmac("HS256", b"shared", input.as_bytes()).unwrap();
    let jwt = format!("{input}.{}", URL_SAFE_NO_PAD.encode(mac));
    let claims = || [("iss".to_owned(), Claim::Is("me".into())), ("exp".to_owned(), Claim::At(101_000))];
    let kid = [("kid".to_owned(), json!("1"))];
    assert_eq!(check(&jwt, "HS256", "shared", &kid, &claims()), Ok(()));
    assert!(check(&jwt, "HS256", "other", &kid, &claims()).is_err());
    assert!(check(&jwt, "HS256", "shared", &[("kid".to_owned(), json!("2"))], &claims()).is_err());
    assert!(check(&jwt, "HS256", "shared", &kid, &claims()[..1]).unwrap_err().contains("exp is not in the definition"));
}
