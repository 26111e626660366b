//! The device grant (RFC 8628) and introspection (RFC 7662).

use std::time::Duration;

use http::HeaderMap;
use keyholder_oauth::*;

use crate::replies::NOW;
use crate::requests::{AT, body, client, endpoint};

#[test]
fn the_device_authorization_request() {
    let endpoint = endpoint(ClientAuth::None, BodyFormat::Form);
    let request = device_request(&endpoint, &client(), Some("a b"), &AT).unwrap();
    assert_eq!(body(&request), "client_id=c%3Aodd+id%2F%2B%25&scope=a+b");
}

#[test]
fn its_answer() {
    let read = |body: &str| read_device_reply(200, &HeaderMap::new(), body.as_bytes(), NOW);
    let grant = read(
        r#"{"device_code":"GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS","user_code":"WDJB-MJHT","verification_uri":"https://example.com/device",
            "verification_uri_complete":"https://example.com/device?user_code=WDJB-MJHT","expires_in":1800,"interval":7}"#,
    )
    .unwrap();
    assert_eq!(grant.device_code.expose(), "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS");
    assert_eq!(
        (grant.user_code.as_str(), grant.verification_uri.as_str()),
        ("WDJB-MJHT", "https://example.com/device")
    );
    assert_eq!(grant.verification_uri_complete.unwrap().query(), Some("user_code=WDJB-MJHT"));
    assert_eq!((grant.expires_at, grant.interval), (NOW + 1_800_000, Duration::from_secs(7)));

    let google = read(
        r#"{"device_code":"d","user_code":"u","verification_url":"https://www.google.com/device","expires_in":"1800"}"#,
    );
    assert_eq!(google.unwrap().interval, Duration::from_secs(5));
    for broken in [
        r#"{"device_code":"d","user_code":"u","verification_uri":"javascript:alert(1)"}"#,
        r#"{"user_code":"u","verification_uri":"https://x.example"}"#,
        "[]",
        "",
    ] {
        assert_eq!(read(broken).unwrap_err().status, 200, "{broken}");
    }
    let refused = read_device_reply(400, &HeaderMap::new(), br#"{"error":"invalid_client"}"#, NOW).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Setup);
}

#[test]
fn introspection() {
    let endpoint = endpoint(ClientAuth::Post, BodyFormat::Form);
    let request = introspection_request(&endpoint, &client(), &Secret::new("t+"), "access_token", &AT).unwrap();
    assert!(body(&request).starts_with("token=t%2B&token_type_hint=access_token&client_id="));
    let read = |body: &str| read_introspection_reply(200, &HeaderMap::new(), body.as_bytes(), NOW).unwrap();
    let good = read(r#"{"active":true,"exp":1700003600,"scope":"a b","username":"ann","sub":"1"}"#);
    assert_eq!((good.active, good.expires_at), (true, Some(NOW + 3_600_000)));
    assert_eq!((good.scope.unwrap().len(), good.account.as_deref()), (2, Some("ann")));
    let dead = read(r#"{"active":false}"#);
    assert_eq!((dead.active, dead.expires_at, dead.scope), (false, None, None));
    assert!(read(r#"{"expires_in":"3600","scope":"a"}"#).active && !read("{}").active);
    assert!(read_introspection_reply(401, &HeaderMap::new(), b"", NOW).is_err());
}
