//! Revocation requests and replies.

use http::HeaderMap;
use keyholder_oauth::*;

use crate::requests::{AT, body, client, endpoint};

#[test]
fn the_request_of_rfc_7009_section_2_1() {
    let mut endpoint = endpoint(ClientAuth::Basic, BodyFormat::Form);
    endpoint.params.push("force", "true");
    let token = Secret::new("45ghiukldjahdnhzdauz");
    let request = revocation_request(&endpoint, &client(), &token, "refresh_token", &AT).unwrap();
    assert_eq!(body(&request), "token=45ghiukldjahdnhzdauz&token_type_hint=refresh_token&force=true");
    assert!(request.headers().contains_key("authorization"));
    let request = revocation_request(&endpoint, &client(), &token, "", &AT).unwrap();
    assert_eq!(body(&request), "token=45ghiukldjahdnhzdauz&force=true");
}

#[test]
fn replies() {
    let read =
        |status, body: &str| read_revocation_reply(status, &HeaderMap::new(), body.as_bytes(), 0).map_err(|f| f.kind);
    let table = [
        (200, "", Ok(())),
        (204, "", Ok(())),
        (200, "{}", Ok(())),
        (200, "OK", Ok(())),
        (200, "<html>done</html>", Ok(())),
        // Google answers 400 for a token that is revoked already.
        (400, r#"{"error":"invalid_token"}"#, Ok(())),
        (200, r#"{"ok":false,"error":"not_allowed"}"#, Err(FailureKind::Setup)),
        (400, r#"{"error":"unsupported_token_type"}"#, Err(FailureKind::Setup)),
        (401, r#"{"error":"invalid_client"}"#, Err(FailureKind::Setup)),
        (503, r#"{"error":"invalid_token"}"#, Err(FailureKind::Transient)),
        (404, "", Err(FailureKind::Setup)),
        (302, "", Err(FailureKind::Setup)),
    ];
    for (status, body, expected) in table {
        assert_eq!(read(status, body), expected, "{status} {body}");
    }
}
