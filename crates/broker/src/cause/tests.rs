//! Each cause, from what was seen to what to do.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_000_000_000_000;

fn ours() -> Ours {
    let texts = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
    Ours {
        grant: GrantKind::AuthorizationCode,
        client_auth: ClientAuth::Basic,
        offered_auth: Vec::new(),
        scopes: texts(&["read", "wrong"]),
        known_scopes: texts(&["read", "offline_access"]),
        methods: texts(&["authorization_code", "client_credentials"]),
        offered_grants: Vec::new(),
        redirect_uri: Some("https://k/callback/int_1".to_owned()),
        audience: None,
        consent_params: Vec::new(),
        setup: String::new(),
    }
}

fn said(code: Option<&str>, said: &str, seen: &Seen, ours: &Ours) -> (Cause, String) {
    let evidence = Evidence { failing: Failing::Said, code, said, seen: Some(seen), ours: Some(ours), now: NOW };
    let (cause, remedy) = cause(&evidence);
    (cause, remedy.unwrap_or_default())
}

#[test]
fn codes_lead_to_what_to_change() {
    let seen = Seen { status: Some(400), ..Seen::default() };
    for (code, text, cause, words) in [
        ("invalid_client", "", Cause::InvalidClient, "not the secret's own id"),
        ("invalid_scope", "", Cause::InvalidScope, "no scope `wrong`."),
        ("unauthorized_client", "", Cause::WrongGrant, "client_credentials"),
        ("unsupported_grant_type", "", Cause::WrongGrant, "authorization_code"),
        ("redirect_uri_mismatch", "", Cause::RedirectMismatch, "https://k/callback/int_1"),
        ("invalid_request", "the redirect_uri is not registered", Cause::RedirectMismatch, "slash at the end"),
        ("invalid_grant", "token revoked", Cause::GrantDead, ""),
        ("invalid_grant", "JWT: iat is in the future", Cause::Clock, "NTP"),
        ("server_error", "", Cause::ProviderDown, ""),
        ("slow_down", "", Cause::RateLimited, ""),
        ("odd", "", Cause::Other, ""),
    ] {
        let (found, remedy) = said(Some(code), text, &seen, &ours());
        assert_eq!(found, cause, "{code}");
        assert!(remedy.contains(words), "{code}: {remedy}");
    }
}

#[test]
fn what_the_provider_offers_is_compared() {
    let seen = Seen { status: Some(401), ..Seen::default() };
    let offered = Ours { offered_auth: vec!["client_secret_post".to_owned()], ..ours() };
    let (_, remedy) = said(Some("invalid_client"), "", &seen, &offered);
    assert!(
        remedy.starts_with("The client authenticates by `basic`; the provider offers client_secret_post"),
        "{remedy}"
    );
    let grants = Ours { offered_grants: vec!["client_credentials".to_owned()], ..ours() };
    let (_, remedy) = said(Some("unsupported_grant_type"), "", &seen, &grants);
    assert!(remedy.starts_with("The provider offers client_credentials"), "{remedy}");
    let all_known = Ours { scopes: vec!["read".to_owned()], ..ours() };
    assert!(said(Some("invalid_scope"), "", &seen, &all_known).1.contains("Asked for is `read`"));
}

#[test]
fn faults_on_the_way_have_their_own_causes() {
    for (fault, cause) in [
        (EgressFault::Dns(String::new()), Cause::Unreachable),
        (EgressFault::Connect(String::new()), Cause::Unreachable),
        (EgressFault::Timeout(Duration::from_secs(30)), Cause::Unreachable),
        (EgressFault::Lost(String::new()), Cause::Unreachable),
        (EgressFault::Tls(String::new()), Cause::Tls),
        (EgressFault::Refused(String::new()), Cause::Refused),
        (EgressFault::TooLarge(1), Cause::NotJson),
    ] {
        let seen = Seen { fault: Some(fault.clone()), ..Seen::default() };
        let (found, remedy) = said(None, "", &seen, &ours());
        assert_eq!(found, cause, "{fault:?}");
        assert!(!remedy.is_empty());
    }
}

#[test]
fn clocks_are_blamed_where_times_are_judged() {
    let late = Seen { status: Some(401), date: Some(NOW - 300_000), ..Seen::default() };
    assert_eq!(said(Some("invalid_client"), "", &late, &ours()).0, Cause::InvalidClient, "a secret knows no time");
    let signed = Ours { client_auth: ClientAuth::PrivateKeyJwt, ..ours() };
    let (cause, remedy) = said(Some("invalid_client"), "", &late, &signed);
    assert!(cause == Cause::Clock && remedy.contains("5 min ahead of"), "{remedy}");
    let near = Seen { date: Some(NOW - 30_000), ..late };
    assert_eq!(said(Some("invalid_client"), "", &near, &signed).0, Cause::InvalidClient);
    assert_eq!(said(None, "the client expected iatrogenic", &near, &ours()).0, Cause::Other);
}

#[test]
fn what_came_instead_of_data_is_told() {
    let headers = |kind: &str| HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind.parse().unwrap())]);
    let page = b"<html><head><TITLE>\n Sign in to <b>Corp</b> WiFi</TITLE>";
    let (cause, remedy) = said(None, "", &Seen::reply(200, &headers("text/html"), page), &ours());
    assert!(cause == Cause::NotJson && remedy.contains("“Sign in to Corp WiFi”"), "{remedy}");
    assert_eq!(said(None, "", &Seen::reply(200, &headers("application/json"), b"{\"a\":"), &ours()).0, Cause::NotJson);
    assert_eq!(said(None, "", &Seen::reply(503, &headers("text/html"), page), &ours()).0, Cause::ProviderDown);
    assert_eq!(said(None, "", &Seen::reply(429, &headers("text/plain"), b"slow"), &ours()).0, Cause::RateLimited);
    assert_eq!(Seen::reply(200, &HeaderMap::new(), b" <html>").page.as_deref(), Some(""));
}

fn refused(status: u16, challenge: &str, called: Called, ours: &Ours) -> (Cause, String) {
    let seen = Seen { status: Some(status), challenge: Some(challenge.to_owned()), ..Seen::default() };
    let failing = Failing::Call(Box::new(called));
    let evidence = Evidence { failing, code: None, said: "", seen: Some(&seen), ours: Some(ours), now: NOW };
    let (cause, remedy) = cause(&evidence);
    (cause, remedy.unwrap_or_default())
}

#[test]
fn a_refused_call_is_explained_by_the_token_first() {
    let called = || Called {
        host: "api.example.com".to_owned(),
        expires_at: Some(NOW + 1000),
        granted: Some("read".to_owned()),
        prefix: Some("Bearer".to_owned()),
        ..Called::default()
    };
    let meant_for = |audience: &str| Called {
        claims: Some(Claims { audience: vec![audience.to_owned()], ..Claims::default() }),
        ..called()
    };
    let scope = "Bearer error=\"insufficient_scope\", scope=\"read admin\"";
    for (status, challenge, called, cause, words) in [
        (401, "", Called { expires_at: Some(NOW - 120_000), ..called() }, Cause::Expired, "2 min ago"),
        (401, "", meant_for("https://other.example.org/"), Cause::Audience, "meant for https://other.example.org/"),
        (401, "", meant_for("https://example.com"), Cause::HeaderPrefix, ""),
        (401, "", meant_for("00000003-0000"), Cause::HeaderPrefix, ""),
        (401, scope, called(), Cause::InsufficientScope, "`admin`; granted is `read`"),
        (403, scope, called(), Cause::InsufficientScope, "`admin`"),
        (403, "", called(), Cause::InsufficientScope, ""),
        (401, "Bearer error=\"invalid_token\", error_description=\"expired\"", called(), Cause::Expired, "revoked"),
        (401, "Zoho-oauthtoken realm=\"x\"", called(), Cause::HeaderPrefix, "asks for `Zoho-oauthtoken`"),
        (401, "Bearer", called(), Cause::HeaderPrefix, "sent as `Bearer …`"),
        (404, "", called(), Cause::Other, "base URL"),
        (502, "", called(), Cause::ProviderDown, ""),
        (429, "", called(), Cause::RateLimited, ""),
    ] {
        let (found, remedy) = refused(status, challenge, called, &ours());
        assert_eq!(found, cause, "{status} {challenge}: {remedy}");
        assert!(remedy.contains(words), "{status} {challenge}: {remedy}");
    }
}

#[test]
fn a_token_that_says_what_it_is_is_read() {
    let payload = URL_SAFE_NO_PAD.encode(r#"{"exp":12,"aud":["a","b"],"scp":"x y"}"#);
    let claims = Claims::of(&format!("e30.{payload}.sig")).unwrap();
    assert_eq!((claims.expires_at, claims.audience.len(), claims.scopes.len()), (Some(12_000), 2, 2));
    assert_eq!(Claims::of("opaque"), None);
    assert_eq!(Claims::of("a.b.c"), None);
}

#[test]
fn nothing_to_renew_with_leads_to_what_asks_for_it() {
    let remedy = |ours: &Ours| {
        let failing = Failing::NothingToRenewWith;
        let evidence = Evidence { failing, code: None, said: "", seen: None, ours: Some(ours), now: NOW };
        let (found, remedy) = cause(&evidence);
        assert_eq!(found, Cause::NoRefreshToken);
        remedy.unwrap()
    };
    assert!(remedy(&ours()).contains("Add the scope `offline_access`"));
    let none = Ours { known_scopes: Vec::new(), ..ours() };
    let by_param = Ours { consent_params: vec![("access_type".to_owned(), "offline".to_owned())], ..none.clone() };
    assert!(remedy(&by_param).contains("`access_type=offline`"));
    let by_setup = Ours { setup: "Make an app.\nTick “Allow offline access”.".to_owned(), ..none.clone() };
    assert!(remedy(&by_setup).contains("Tick “Allow offline access”"));
    assert!(remedy(&none).contains("documentation"));
}

#[test]
fn two_addresses_are_compared_letter_by_letter() {
    const SENT: &str = "https://keys.example.com/callback/int_1";
    for (registered, at, words) in [
        ("https://keys.example.com/callback/int_1/", 39, "slash at its end"),
        ("https://keys.example.com/Callback/int_1", 25, "letter case"),
        ("http://keys.example.com/callback/int_1", 4, "scheme"),
        ("https://key.example.com/callback/int_1", 11, "host"),
        ("https://keys.example.com:8443/callback/int_1", 24, "port"),
        ("https://keys.example.com:443/callback/int_1", 24, "mean the same"),
        ("https://keys.example.com/callback/int_1?a=1", 39, "query"),
        ("https://keys.example.com/callback/int_2", 38, "path"),
        ("https://keys.example.com/callback/int_1#", 39, "fragment"),
        (" https://keys.example.com/callback/int_1", 0, "white space"),
        ("https://keys.example.com/call back/int_1", 29, "white space"),
        ("keys.example.com", 0, "absolute"),
        ("", 0, "Nothing"),
    ] {
        let found = redirect_difference(SENT, registered).unwrap();
        assert_eq!(found.at, at, "{registered}");
        assert!(found.why.contains(words), "{registered}: {}", found.why);
    }
    assert_eq!(redirect_difference(SENT, SENT), None);
}

proptest! {
    #[test]
    fn a_difference_is_where_the_texts_part(one in ".{0,40}", other in ".{0,40}") {
        match redirect_difference(&one, &other) {
            None => prop_assert_eq!(one, other),
            Some(found) => {
                let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
                prop_assert_eq!(&a[..found.at], &b[..found.at]);
                prop_assert!(a.get(found.at) != b.get(found.at));
            }
        }
    }

    #[test]
    fn any_page_has_a_title(page in ".{0,200}") {
        let seen = Seen::reply(200, &HeaderMap::new(), format!("<title>{page}").as_bytes());
        prop_assert!(seen.page.unwrap().chars().count() <= 80);
    }
}

#[test]
fn what_was_refused_here_has_a_cause_and_a_remedy() {
    let not_ready = |state| Error::NotReady { connection: "crm".to_owned(), state, failure: None, retry_after: None };
    let rule = Error::NotAllowed { data_source: "api".to_owned(), method: "GET".to_owned(), path: "/x".to_owned() };
    let wait = Error::CallerLimited { key: "job".to_owned(), retry_after: Duration::from_secs(1) };
    for (error, cause, words) in [
        (rule, Cause::NotAllowed, "Add a rule"),
        (Error::HostNotAllowed { host: "x".to_owned(), allowed: Vec::new() }, Cause::Refused, "base URL"),
        (wait, Cause::RateLimited, "Wait"),
        (not_ready(Status::Draft), Cause::NotConnected, "Connect it"),
        (not_ready(Status::Pending), Cause::NotConnected, "finish the consent"),
        (Error::StillRenewing, Cause::Unreachable, "few seconds"),
        (Error::Gone("the API's answer broke off; try again"), Cause::Unreachable, "broke before"),
        (Error::Invalid(Vec::new()), Cause::Settings, "Correct"),
    ] {
        let (found, remedy) = of_own_refusal(&error).unwrap();
        assert!(found == cause && remedy.contains(words), "{error}: {found:?}, {remedy}");
    }
    assert!(of_own_refusal(&Error::Internal("a bug")).is_none());
}
