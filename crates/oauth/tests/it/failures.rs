//! Token replies seen in the wild that bring no token, and how they are sorted.

use std::time::Duration;

use FailureKind::{Grant, Setup, Transient};
use FailureShape::{Html, HttpStatus, NotAToken, OauthError, Redirect, TooManyRequests};
use http::HeaderMap;
use http::header::RETRY_AFTER;
use keyholder_oauth::*;
use serde_json::json;

use crate::replies::{NOW, read};

const EMPTY: FailureShape = NotAToken("it is empty");
const NO_FORMAT: FailureShape = NotAToken("it is neither JSON nor a form");
const CUT: FailureShape = NotAToken("its JSON ends too early");
const MALFORMED: FailureShape = NotAToken("its JSON is malformed");
const NO_TOKEN: FailureShape = NotAToken("there is no access token where the definition says");
const BAD_TOKEN: FailureShape = NotAToken("its access token is empty or holds characters that no header may carry");

#[test]
fn replies_by_their_kind() {
    type Row = (u16, &'static str, FailureKind, FailureShape, Option<&'static str>, Option<&'static str>);
    let table: Vec<Row> = vec![
        // RFC 6749 §5.2.
        (
            400,
            r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
            Grant,
            OauthError,
            Some("invalid_grant"),
            Some("Token has been expired or revoked."),
        ),
        (401, r#"{"error":"invalid_client"}"#, Setup, OauthError, Some("invalid_client"), None),
        (400, r#"{"error":"unauthorized_client"}"#, Setup, OauthError, Some("unauthorized_client"), None),
        (400, r#"{"error":"unsupported_grant_type"}"#, Setup, OauthError, Some("unsupported_grant_type"), None),
        (400, r#"{"error":"invalid_scope"}"#, Setup, OauthError, Some("invalid_scope"), None),
        (400, r#"{"error":"invalid_request"}"#, Setup, OauthError, Some("invalid_request"), None),
        (400, r#"{"error":"invalid_target"}"#, Setup, OauthError, Some("invalid_target"), None),
        (403, r#"{"error":"access_denied"}"#, Grant, OauthError, Some("access_denied"), None),
        (400, r#"{"error":"interaction_required"}"#, Grant, OauthError, Some("interaction_required"), None),
        (400, r#"{"error":"login_required"}"#, Grant, OauthError, Some("login_required"), None),
        (400, r#"{"error":"consent_required"}"#, Grant, OauthError, Some("consent_required"), None),
        (400, r#"{"error":"temporarily_unavailable"}"#, Transient, OauthError, Some("temporarily_unavailable"), None),
        (400, r#"{"error":"server_error"}"#, Transient, OauthError, Some("server_error"), None),
        (400, r#"{"error":"slow_down"}"#, Transient, OauthError, Some("slow_down"), None),
        (
            400,
            "error=invalid_grant&error_description=gone+away",
            Grant,
            OauthError,
            Some("invalid_grant"),
            Some("gone away"),
        ),
        // GitHub: errors with 200, as a form.
        (
            200,
            "error=bad_verification_code&error_description=The+code+passed+is+incorrect+or+expired.&error_uri=https%3A%2F%2Fdocs.github.com",
            Setup,
            OauthError,
            Some("bad_verification_code"),
            Some("The code passed is incorrect or expired."),
        ),
        (
            200,
            r#"{"error":"invalid_grant","access_token":"sneaky-token"}"#,
            Grant,
            OauthError,
            Some("invalid_grant"),
            None,
        ),
        // Slack without its rule.
        (
            200,
            r#"{"ok":false,"error":"invalid_refresh_token"}"#,
            Setup,
            OauthError,
            Some("invalid_refresh_token"),
            None,
        ),
        // A code that nobody knows.
        (400, r#"{"error":"weird"}"#, Setup, OauthError, Some("weird"), None),
        (401, r#"{"error":"weird"}"#, Setup, OauthError, Some("weird"), None),
        (403, r#"{"error":"Forbidden"}"#, Transient, OauthError, Some("Forbidden"), None),
        // Facebook: an object. Google's APIs: an object with a status.
        (
            400,
            r#"{"error":{"message":"Error validating access token","type":"OAuthException","code":190,"fbtrace_id":"A"}}"#,
            Setup,
            OauthError,
            Some("OAuthException"),
            Some("Error validating access token"),
        ),
        (
            401,
            r#"{"error":{"code":401,"message":"No.","status":"UNAUTHENTICATED"}}"#,
            Setup,
            OauthError,
            Some("UNAUTHENTICATED"),
            Some("No."),
        ),
        (400, r#"{"error":{"code":190}}"#, Setup, OauthError, Some("190"), None),
        (400, r#"{"error":{"message":"only text"}}"#, Setup, OauthError, Some("only text"), None),
        (400, r#"{"error":{"deep":[{"reason":"here"}]}}"#, Setup, OauthError, Some("here"), None),
        (400, r#"{"error":["invalid_grant","more"]}"#, Grant, OauthError, Some("invalid_grant"), None),
        (400, r#"{"error":true,"message":"No."}"#, Transient, OauthError, None, Some("No.")),
        // Fitbit: a list named `errors`.
        (
            400,
            r#"{"errors":[{"errorType":"invalid_grant","message":"Refresh token invalid: x."}],"success":false}"#,
            Grant,
            OauthError,
            Some("invalid_grant"),
            Some("Refresh token invalid: x."),
        ),
        (200, r#"{"errors":[{"errorType":"invalid_grant"}]}"#, Grant, OauthError, Some("invalid_grant"), None),
        (400, r#"{"code":"invalid_grant","message":"No."}"#, Grant, OauthError, Some("invalid_grant"), Some("No.")),
        // Infrastructure: no OAuth error in the body.
        (401, r#"{"message":"Unauthorized"}"#, Transient, HttpStatus, None, Some("Unauthorized")),
        (403, r#"{"code":403,"message":"Forbidden"}"#, Transient, HttpStatus, None, Some("Forbidden")),
        (400, "", Transient, HttpStatus, None, None),
        (400, "Bad Request", Transient, HttpStatus, None, None),
        (403, "<html>denied</html>", Transient, Html, None, None),
        (408, "", Transient, HttpStatus, None, None),
        (429, "", Transient, TooManyRequests, None, None),
        (429, r#"{"error":"invalid_grant"}"#, Transient, TooManyRequests, Some("invalid_grant"), None),
        (500, r#"{"error":"invalid_grant"}"#, Transient, OauthError, Some("invalid_grant"), None),
        (503, "<!DOCTYPE html><title>Maintenance</title>", Transient, Html, None, None),
        (502, "", Transient, HttpStatus, None, None),
        // Wrong address.
        (404, "<html></html>", Setup, Html, None, None),
        (404, r#"{"message":"Not Found"}"#, Setup, HttpStatus, None, Some("Not Found")),
        (405, "", Setup, HttpStatus, None, None),
        (410, "", Setup, HttpStatus, None, None),
        (302, "<html>Moved</html>", Setup, Redirect, None, None),
        (307, "", Setup, Redirect, None, None),
        // Not a token reply.
        (200, "", Transient, EMPTY, None, None),
        (204, "  \n", Transient, EMPTY, None, None),
        (200, "\n<html>Sign in</html>", Transient, Html, None, None),
        (200, "hello there", Transient, NO_FORMAT, None, None),
        (200, "hello = there", Transient, NO_FORMAT, None, None),
        (200, r#"{"access_token":"ab"#, Transient, CUT, None, None),
        (200, r#"{"access_token":"ab",}"#, Transient, MALFORMED, None, None),
        (200, "{}", Setup, NO_TOKEN, None, None),
        (200, r#"[{"access_token":"a"}]"#, Setup, NO_TOKEN, None, None),
        (200, r#""a-bare-string""#, Setup, NO_TOKEN, None, None),
        (
            200,
            r#"{"success":false,"message":"Invalid refresh token"}"#,
            Setup,
            NO_TOKEN,
            None,
            Some("Invalid refresh token"),
        ),
        (200, r#"{"access_token":null}"#, Setup, NO_TOKEN, None, None),
        (200, r#"{"access_token":" "}"#, Setup, BAD_TOKEN, None, None),
        (200, r#"{"access_token":"a\r\nX: y"}"#, Setup, BAD_TOKEN, None, None),
        (200, r#"{"access_token":"ä"}"#, Setup, BAD_TOKEN, None, None),
        (200, r#"{"access_token":{"x":1}}"#, Setup, BAD_TOKEN, None, None),
        (200, r#"{"access_token":true}"#, Setup, BAD_TOKEN, None, None),
    ];
    for (status, body, kind, what, code, description) in table {
        let failure = read(&ReplyRules::default(), status, "", body).unwrap_err();
        let expected = TokenFailure {
            kind,
            code: code.map(str::to_owned),
            description: description.map(str::to_owned),
            status,
            retry_after: None,
            what,
        };
        assert_eq!(failure, expected, "{status} {body}");
    }
}

#[test]
fn a_definitions_codes_come_before_the_standard_ones() {
    let rules = ReplyRules {
        dead: vec!["unauthorized_client".to_owned(), "bad_refresh_token".to_owned()],
        retry: vec!["ratelimited".to_owned(), "invalid_request".to_owned()],
        setup: vec!["access_denied".to_owned()],
        ..ReplyRules::default()
    };
    let table = [
        // Atlassian: a dead refresh token is 403 `unauthorized_client`.
        (403, r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#, Grant),
        (200, "error=bad_refresh_token", Grant),
        (500, r#"{"error":"Bad_Refresh_Token"}"#, Grant),
        (200, r#"{"error":"ratelimited"}"#, Transient),
        (400, r#"{"error":"invalid_request"}"#, Transient),
        (403, r#"{"error":"access_denied"}"#, Setup),
        (500, r#"{"error":"access_denied"}"#, Transient),
    ];
    for (status, body, kind) in table {
        assert_eq!(read(&rules, status, "", body).unwrap_err().kind, kind, "{body}");
    }
}

#[test]
fn slack_says_no_with_200() {
    let rules = ReplyRules {
        success: Some(Predicate { pointer: "/ok".into(), test: Test::Equals(json!(true)) }),
        dead: vec!["invalid_refresh_token".to_owned()],
        ..ReplyRules::default()
    };
    let failure = read(&rules, 200, "application/json", r#"{"ok":false,"error":"invalid_refresh_token"}"#).unwrap_err();
    assert_eq!(
        (failure.kind, failure.what, failure.code.as_deref()),
        (Grant, OauthError, Some("invalid_refresh_token"))
    );
    let silent = read(&rules, 200, "application/json", r#"{"ok":false}"#).unwrap_err();
    assert_eq!((silent.kind, silent.what, silent.code), (Setup, OauthError, None));
}

#[test]
fn codes_and_texts_where_the_definition_points() {
    let rules = ReplyRules {
        error: "/error/code".into(),
        error_description: "/error/message".into(),
        dead: vec!["190".to_owned()],
        ..ReplyRules::default()
    };
    let body = r#"{"error":{"message":"Session has expired","type":"OAuthException","code":190}}"#;
    let failure = read(&rules, 400, "", body).unwrap_err();
    assert_eq!((failure.kind, failure.code.as_deref()), (Grant, Some("190")));
    assert_eq!(failure.description.as_deref(), Some("Session has expired"));
}

#[test]
fn retry_after_in_seconds_and_as_a_date() {
    for (status, value, expected) in [
        (429, "120", Some(Duration::from_secs(120))),
        (503, "Tue, 14 Nov 2023 22:15:20 GMT", Some(Duration::from_secs(120))),
        (429, "Tue, 14 Nov 2023 22:00:00 GMT", Some(Duration::ZERO)),
        (429, "a while", None),
    ] {
        let headers: HeaderMap = [(RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
        let failure = read_token_reply(&ReplyRules::default(), status, &headers, b"", NOW).unwrap_err();
        assert_eq!((failure.kind, failure.retry_after), (Transient, expected), "{value}");
    }
}

#[test]
fn descriptions_are_one_bounded_line_without_tokens() {
    let body = json!({
        "error": "invalid_grant\u{7}",
        "error_description": format!("a\u{0}\r\nb at-12345678 eyJa.eyJb.c {}", "x".repeat(400)),
        "access_token": "at-12345678",
    });
    let failure = read(&ReplyRules::default(), 400, "", &body.to_string()).unwrap_err();
    let description = failure.description.unwrap();
    assert!(description.starts_with("a b **** **** xxx"), "{description}");
    assert_eq!(description.chars().count(), 300);
    assert_eq!(failure.code.as_deref(), Some("invalid_grant"));
}

#[test]
fn a_failure_is_one_plain_sentence() {
    let table = [
        (
            400,
            r#"{"error":"invalid_grant","error_description":"gone"}"#,
            "the provider refused the request (HTTP 400): invalid_grant: gone",
        ),
        (429, "", "the provider is asked too often (HTTP 429)"),
        (302, "", "the endpoint redirects elsewhere (HTTP 302), which is not followed"),
        (200, "<p>", "the endpoint answered with an HTML page (HTTP 200)"),
        (200, "", "the token reply can't be used: it is empty (HTTP 200)"),
        (502, "", "the endpoint answered with HTTP 502"),
    ];
    for (status, body, expected) in table {
        assert_eq!(read(&ReplyRules::default(), status, "", body).unwrap_err().to_string(), expected);
    }
}

#[test]
fn codes_by_number_prefix_and_first_word() {
    let list = |codes: &[&str]| codes.iter().map(|code| (*code).to_owned()).collect();
    let rules = ReplyRules {
        dead: list(&["AADSTS7000*", "4001"]),
        retry: list(&["aadsts90*"]),
        error_when: Some(Predicate { pointer: "/code".into(), test: Test::NotEquals(json!(0)) }),
        error: "code".into(),
        ..ReplyRules::default()
    };
    let table = [
        (400, r#"{"code":"invalid_grant","error_description":"AADSTS70008: The code expired."}"#, Grant),
        (400, r#"{"code":"invalid_client","error_description":"AADSTS7000112: disabled"}"#, Grant),
        (400, r#"{"code":"x","error_description":"see AADSTS7000112"}"#, Setup),
        (400, r#"{"code":"x","error_description":"AADSTS90033 try later"}"#, Transient),
        // TikTok for business: 200 and a number.
        (200, r#"{"code":4001,"message":"token is dead"}"#, Grant),
        (200, r#"{"code":5000,"message":"who knows"}"#, Setup),
    ];
    for (status, body, kind) in table {
        let failure = read(&rules, status, "application/json", body).unwrap_err();
        assert_eq!(failure.kind, kind, "{body}");
    }
    read(&rules, 200, "application/json", r#"{"code":0,"access_token":"a"}"#).unwrap();
    let missing = ReplyRules {
        error_when: Some(Predicate { pointer: "/data".into(), test: Test::Exists(false) }),
        ..ReplyRules::default()
    };
    assert!(read(&missing, 200, "application/json", r#"{"access_token":"a"}"#).is_err());
}
