//! Token replies seen in the wild that bring a token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use keyholder_oauth::*;
use serde_json::json;

/// Tue, 14 Nov 2023 22:13:20 GMT
pub const NOW: i64 = 1_700_000_000_000;

pub fn read(rules: &ReplyRules, status: u16, content_type: &str, body: &str) -> Result<TokenSet, TokenFailure> {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
    }
    read_token_reply(rules, status, &headers, body.as_bytes(), NOW)
}

fn json_reply(body: &str) -> TokenSet {
    read(&ReplyRules::default(), 200, "application/json", body).unwrap()
}

fn in_seconds(token_set: &TokenSet) -> Option<i64> {
    token_set.expires_at.map(|at| (at - NOW) / 1000)
}

fn scopes(token_set: &TokenSet) -> Option<Vec<&str>> {
    token_set.scope.as_ref().map(|scope| scope.iter().map(String::as_str).collect())
}

fn jwt(claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.sig", part(r#"{"alg":"RS256"}"#), part(claims))
}

#[test]
fn the_example_of_rfc_6749_section_5_1() {
    let set = json_reply(
        r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"example","expires_in":3600,
            "refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA","example_parameter":"example_value"}"#,
    );
    assert_eq!(set.access_token.expose(), "2YotnFZFEjr1zCsicMWpAA");
    assert_eq!(set.refresh_token.as_ref().unwrap().expose(), "tGzv3JOkF0XG5Qx2TlKWIA");
    assert_eq!(set.token_type, "example");
    assert_eq!(set.expires_at, Some(NOW + 3_600_000));
    assert!(set.scope.is_none() && set.id_token.is_none());
    assert_eq!(json!(set.extra), json!({"example_parameter": "example_value"}));
}

#[test]
fn github_answers_with_a_form_unless_asked_for_json() {
    let body = "access_token=gho_16C7e42F292c6912E7710c838347Ae178B4a&scope=repo%2Cgist&token_type=bearer";
    let set = read(&ReplyRules::default(), 200, "application/x-www-form-urlencoded; charset=utf-8", body).unwrap();
    assert_eq!(set.access_token.expose(), "gho_16C7e42F292c6912E7710c838347Ae178B4a");
    assert_eq!(set.token_type, "bearer");
    assert_eq!(scopes(&set), Some(vec!["repo", "gist"]));
    assert_eq!(set.expires_at, None);
}

#[test]
fn facebook_answers_with_a_form_in_plain_text() {
    for content_type in ["text/plain; charset=UTF-8", "text/html", ""] {
        let set = read(&ReplyRules::default(), 200, content_type, "access_token=EAAB%7Cx&expires=5183999").unwrap();
        assert_eq!(set.access_token.expose(), "EAAB|x");
        assert_eq!(in_seconds(&set), Some(5_183_999));
        assert_eq!(set.token_type, "Bearer");
    }
}

#[test]
fn json_in_plain_text_and_with_a_byte_order_mark() {
    for content_type in ["text/plain", "text/html; charset=utf-8", "application/octet-stream", ""] {
        let body = "\u{feff}\r\n {\"access_token\":\"a\"}\n";
        assert_eq!(read(&ReplyRules::default(), 200, content_type, body).unwrap().access_token.expose(), "a");
    }
}

#[test]
fn a_201_is_a_success() {
    assert!(read(&ReplyRules::default(), 201, "application/json", r#"{"access_token":"a"}"#).is_ok());
}

#[test]
fn refresh_tokens_have_lifetimes_too() {
    let by_jwt = format!(r#""refresh_token":"{}""#, jwt(r#"{"exp":1700003600}"#));
    let table = [
        // Microsoft, LinkedIn, GitHub.
        (r#""refresh_token_expires_in":86399"#, Some(86_399)),
        (r#""refresh_token_expires_in":"15897600""#, Some(15_897_600)),
        // Keycloak, where 0 is an offline token's.
        (r#""refresh_expires_in":1800"#, Some(1800)),
        (r#""refresh_expires_in":0"#, None),
        // Intuit.
        (r#""x_refresh_token_expires_in":8726400"#, Some(8_726_400)),
        (r#""refresh_token_expires_at":1700003600"#, Some(3600)),
        (r#""refresh_token_expires_at":"2023-11-14T23:13:20Z""#, Some(3600)),
        (by_jwt.as_str(), Some(3600)),
        (r#""refresh_token":"opaque","expires_in":3600"#, None),
    ];
    for (members, expected) in table {
        let set = json_reply(&format!(r#"{{"access_token":"a",{members}}}"#));
        assert_eq!(set.refresh_expires_at.map(|at| (at - NOW) / 1000), expected, "{members}");
    }
    let rules = ReplyRules { refresh_expires_in: "/data/life".into(), ..ReplyRules::default() };
    let set = read(&rules, 200, "application/json", r#"{"access_token":"a","data":{"life":60}}"#).unwrap();
    assert_eq!(set.refresh_expires_at, Some(NOW + 60_000));
}

#[test]
fn lifetimes_as_they_come() {
    let table = [
        // PayPal and eBay send text.
        (r#""expires_in":"32400""#, Some(32400)),
        (r#""expires_in":" 3600.0 ""#, Some(3600)),
        (r#""expires_in":3599.9"#, Some(3599)),
        // Mailchimp: 0 is "does not expire".
        (r#""expires_in":0"#, None),
        (r#""expires_in":-1"#, None),
        (r#""expires_in":null"#, None),
        (r#""expires_in":"""#, None),
        (r#""expires_in":"never""#, None),
        (r#""expires_in":"NaN""#, None),
        (r#""expires_in":"inf""#, None),
        (r#""expires_in":1e300"#, None),
        (r#""expires_in":9223372036854775807"#, None),
        (r#""expires_in":{}"#, None),
        (r#""expires_in":true"#, None),
        // Strava sends both; the lifetime counts, because it needs no clock but ours.
        (r#""expires_at":1700009999,"expires_in":21600"#, Some(21600)),
        (r#""expires_at":1700003600"#, Some(3600)),
        (r#""expires_at":"1700003600""#, Some(3600)),
        (r#""expires_at":1700003600000"#, Some(3600)),
        (r#""expires_at":"2023-11-14T23:13:20Z""#, Some(3600)),
        (r#""expires_at":1600000000"#, None),
        (r#""expires_at":3600"#, None),
        // Azure AD v1.
        (r#""expires_on":"1700003600""#, Some(3600)),
        // ASP.NET.
        (r#"".expires":"Tue, 14 Nov 2023 23:13:20 GMT""#, Some(3600)),
        (r#""expires":3600"#, Some(3600)),
        (r#""expires":1700003600"#, Some(3600)),
        (r#""expires_in":1700003600"#, Some(3600)),
        (r#""scope":null"#, None),
    ];
    for (member, expected) in table {
        let set = json_reply(&format!(r#"{{"access_token":"a",{member}}}"#));
        assert_eq!(in_seconds(&set), expected, "{member}");
    }
}

#[test]
fn fiserv_counts_in_milliseconds() {
    let rules = ReplyRules { expiry: Expiry::Milliseconds, ..ReplyRules::default() };
    let expiry = |body: &str| in_seconds(&read(&rules, 200, "application/json", body).unwrap());
    assert_eq!(expiry(r#"{"access_token":"a","expires_in":900000}"#), Some(900));
    assert_eq!(expiry(r#"{"access_token":"a","expires_in":"5184000000"}"#), Some(5_184_000));
}

#[test]
fn without_an_expiry_the_token_and_then_the_default_decide() {
    let hour = ReplyRules { default_lifetime: Some(Duration::from_secs(7200)), ..ReplyRules::default() };
    let never = ReplyRules { expiry: Expiry::Never, ..hour.clone() };
    let plain = ReplyRules::default();
    let with_exp = jwt(r#"{"exp":1700003600}"#);
    // Salesforce gives no `expires_in`.
    let opaque = "00Dx0000000BV7z!AR8AQAxo9UfVkh8AlV0Gomt9Czx9LjHnSSpwBMmbRcgKFmxOtvxjTrKW";
    let table = [
        (&plain, with_exp.as_str(), Some(3600)),
        (&hour, with_exp.as_str(), Some(3600)),
        (&never, with_exp.as_str(), None),
        (&plain, opaque, None),
        (&hour, opaque, Some(7200)),
        (&never, opaque, None),
        (&hour, &jwt(r#"{"exp":1600000000}"#), Some(7200)),
        (&plain, &jwt(r#"{"exp":"soon"}"#), None),
        (&plain, &jwt("nonsense"), None),
        (&plain, "a.b.c", None),
        (&plain, &format!("{with_exp}.x.y"), None),
    ];
    for (rules, token, expected) in table {
        let body = json!({"access_token": token}).to_string();
        assert_eq!(in_seconds(&read(rules, 200, "application/json", &body).unwrap()), expected, "{token}");
    }
    // What the reply says counts even for tokens that usually don't end.
    let body = r#"{"access_token":"a","expires_in":28800}"#;
    assert_eq!(in_seconds(&read(&never, 200, "application/json", body).unwrap()), Some(28800));
}

#[test]
fn salesforce_leaves_its_instance_in_extra() {
    let set = json_reply(
        r#"{"access_token":"00D!AR8","signature":"sig=","scope":"api refresh_token","id_token":"eyJ.eyJ.x",
            "instance_url":"https://x.my.salesforce.com","id":"https://login.salesforce.com/id/1/2",
            "token_type":"Bearer","issued_at":"1627399000"}"#,
    );
    assert_eq!(set.expires_at, None);
    assert_eq!(set.id_token.unwrap().expose(), "eyJ.eyJ.x");
    assert_eq!(
        json!(set.extra),
        json!({"signature": "sig=", "instance_url": "https://x.my.salesforce.com",
               "id": "https://login.salesforce.com/id/1/2", "issued_at": "1627399000"})
    );
}

#[test]
fn mailchimp_has_no_expiry_and_no_scope() {
    let set = json_reply(r#"{"access_token":"5c6ccc561059aa386da9d112215bae55","expires_in":0,"scope":null}"#);
    assert_eq!((set.expires_at, set.scope), (None, None));
}

#[test]
fn scopes_as_they_come() {
    let table = [
        (r#""a b""#, Some(vec!["a", "b"])),
        (r#"" a  b ""#, Some(vec!["a", "b"])),
        (r#""read,activity:read_all""#, Some(vec!["read", "activity:read_all"])),
        (r#""a, b""#, Some(vec!["a", "b"])),
        // Twitch.
        (r#"["channel:moderate","chat:edit"]"#, Some(vec!["channel:moderate", "chat:edit"])),
        ("[]", None),
        (r#""""#, None),
        ("null", None),
        ("7", None),
    ];
    for (scope, expected) in table {
        let set = json_reply(&format!(r#"{{"access_token":"a","scope":{scope}}}"#));
        assert_eq!(scopes(&set), expected, "{scope}");
    }
}

#[test]
fn token_types_as_they_come() {
    let table = [
        (r#"{"access_token":"a"}"#, "Bearer"),
        (r#"{"access_token":"a","token_type":null}"#, "Bearer"),
        (r#"{"access_token":"a","token_type":""}"#, "Bearer"),
        (r#"{"access_token":"a","token_type":1}"#, "Bearer"),
        (r#"{"access_token":"a","token_type":"mac"}"#, "mac"),
    ];
    for (body, expected) in table {
        assert_eq!(json_reply(body).token_type, expected, "{body}");
    }
}

#[test]
fn a_refresh_token_is_never_dropped_for_its_looks() {
    let refresh = |value: &str| {
        let set = json_reply(&format!(r#"{{"access_token":" a\n","refresh_token":{value}}}"#));
        assert_eq!(set.access_token.expose(), "a");
        set.refresh_token.map(|token| token.expose().to_owned())
    };
    assert_eq!(refresh(r#""r ü\n""#).as_deref(), Some("r ü\n"));
    assert_eq!(refresh("12345").as_deref(), Some("12345"));
    assert_eq!(refresh(r#""""#), None);
    assert_eq!(refresh("null"), None);
    assert_eq!(refresh("false"), None);
}

#[test]
fn slack_nests_the_persons_token() {
    let rules = ReplyRules {
        access_token: "/authed_user/access_token".into(),
        scope: "/authed_user/scope".into(),
        success: Some(Predicate { pointer: "ok".into(), test: Test::Equals(json!(true)) }),
        ..ReplyRules::default()
    };
    let body = r#"{"ok":true,"access_token":"xoxb-bot-1","token_type":"bot","team":{"id":"T1","name":"x"},
                   "authed_user":{"id":"U1","scope":"chat:write,users:read","access_token":"xoxp-user-1","token_type":"user"}}"#;
    let set = read(&rules, 200, "application/json", body).unwrap();
    assert_eq!(set.access_token.expose(), "xoxp-user-1");
    assert_eq!(scopes(&set), Some(vec!["chat:write", "users:read"]));
    let extra = json!({"ok": true, "team": {"id": "T1", "name": "x"}, "authed_user": {"id": "U1", "scope": "chat:write,users:read"}});
    assert_eq!(json!(set.extra), extra);
}

#[test]
fn a_reply_that_is_a_list_can_be_pointed_into() {
    let rules = ReplyRules { access_token: "/0/access_token".into(), ..ReplyRules::default() };
    let set = read(&rules, 200, "application/json", r#"[{"access_token":"a"}]"#).unwrap();
    assert_eq!(set.access_token.expose(), "a");
    assert!(set.extra.is_empty());
}

#[test]
fn a_rule_for_success_outweighs_the_error_member() {
    // TikTok reports `error: {code: "ok"}` with every success.
    let rules = ReplyRules {
        success: Some(Predicate { pointer: "/error/code".into(), test: Test::Equals(json!("ok")) }),
        error: "/error/code".into(),
        ..ReplyRules::default()
    };
    assert!(read(&rules, 200, "", r#"{"error":{"code":"ok"},"access_token":"a"}"#).is_ok());
    let in_a_form = ReplyRules {
        success: Some(Predicate { pointer: "ok".into(), test: Test::Equals(json!(true)) }),
        ..ReplyRules::default()
    };
    assert!(read(&in_a_form, 200, "", "ok=true&access_token=a").is_ok());
    assert!(read(&in_a_form, 200, "", "ok=false&access_token=a").is_err());
    assert!(read(&in_a_form, 200, "", "access_token=a").is_err());
}

#[test]
fn an_empty_error_member_is_no_error() {
    for empty in ["null", "\"\"", "false", "0", "[]", "{}"] {
        let body = format!(r#"{{"access_token":"a","error":{empty}}}"#);
        assert!(read(&ReplyRules::default(), 200, "", &body).is_ok(), "{empty}");
    }
}

#[test]
fn extra_keeps_what_is_no_secret() {
    let body = json!({
        "access_token": "at-123456", "refresh_token": "rt-123456", "expires_in": 1, "scope": "a", "token_type": "Bearer",
        "realmId": "9", "refresh_token_expires_in": 8_726_400, "x_refresh_token_expires_in": "100",
        "bot_token": "bt", "clientSecret": "cs", "user": {"name": "n", "Password": "p", "api-key": "k", "session": "at-123456"},
        "copies": ["at-123456", "kept", "Bearer rt-123456", 5], "url": "https://x/?t=at-123456", "at-123456": 1, "jwt": "eyJa.eyJb.c",
        "ok": true, "none": null,
    });
    let set = json_reply(&body.to_string());
    let expected = json!({
        "realmId": "9", "refresh_token_expires_in": 8_726_400, "x_refresh_token_expires_in": "100",
        "user": {"name": "n"}, "copies": ["kept", 5], "ok": true, "none": null,
    });
    assert_eq!(json!(set.extra), expected);

    let rules = ReplyRules { keep: vec!["realmId".to_owned(), "bot_token".to_owned()], ..ReplyRules::default() };
    let set = read(&rules, 200, "", &body.to_string()).unwrap();
    assert_eq!(json!(set.extra), json!({"realmId": "9"}));
}

#[test]
fn debug_of_a_token_set_shows_no_value() {
    let set = json_reply(r#"{"access_token":"hush-1","refresh_token":"hush-2","id_token":"hush-3","email":"hush-4"}"#);
    let shown = format!("{set:?}");
    assert!(!shown.contains("hush") && shown.contains("\"email\""), "{shown}");
}

#[test]
fn pointers_and_units_are_read_from_settings() {
    assert_eq!(Pointer::new("a"), Pointer::from("/a"));
    assert_eq!(serde_json::from_str::<Pointer>("\"a\"").unwrap().to_string(), "/a");
    assert_eq!(serde_json::from_str::<Expiry>("\"milliseconds\"").unwrap(), Expiry::Milliseconds);
}

#[test]
fn what_an_expiry_is_written_in() {
    let hour = 3_600_000;
    let with_exp = jwt(r#"{"exp":1700003600}"#);
    let table = [
        (Expiry::Unix, r#""expires_in":1700003600"#, Some(hour)),
        (Expiry::Unix, r#""expires_in":3600"#, None),
        (Expiry::UnixMs, r#""expires_in":"1700003600000""#, Some(hour)),
        (Expiry::Date, r#""expires_in":"2023-11-14T23:13:20Z""#, Some(hour)),
        (Expiry::Seconds, r#""data":{"until":"2023-11-14T23:13:20Z"},"expires_in":60"#, Some(hour)),
        (Expiry::Milliseconds, r#""expires_in":3600000"#, Some(hour)),
        (Expiry::Jwt, r#""expires_in":60"#, Some(hour)),
        (Expiry::Never, r#""other":1"#, None),
        (Expiry::Never, r#""expires_in":3600"#, Some(hour)),
    ];
    for (expiry, member, expected) in table {
        let token = if expiry == Expiry::Jwt { &with_exp } else { "opaque" };
        let rules = ReplyRules { expiry, expires_at: Some("/data/until".into()), ..ReplyRules::default() };
        let body = format!(r#"{{"access_token":"{token}",{member}}}"#);
        let set = read(&rules, 200, "application/json", &body).unwrap();
        assert_eq!(set.expires_at.map(|at| at - NOW), expected, "{expiry:?} {member}");
    }
}

#[test]
fn slack_gives_the_person_a_token_of_their_own() {
    let rules = ReplyRules {
        success: Some(Predicate { pointer: "ok".into(), test: Test::Equals(json!(true)) }),
        secondary: vec![SecondaryRules {
            name: "user".into(),
            access_token: "/authed_user/access_token".into(),
            refresh_token: Some("/authed_user/refresh_token".into()),
            expires_in: Some("/authed_user/expires_in".into()),
            scope: Some("/authed_user/scope".into()),
            token_type: Some("/authed_user/token_type".into()),
            expiry: Expiry::Seconds,
            default_lifetime: None,
        }],
        ..ReplyRules::default()
    };
    let body = r#"{"ok":true,"access_token":"xoxb-17653672481-19874698323","token_type":"bot","scope":"commands,incoming-webhook","expires_in":43200,
        "authed_user":{"id":"U1234","scope":"chat:write","access_token":"xoxe-1-user-1234567890","refresh_token":"xoxe-r-user-1234567890",
        "token_type":"user","expires_in":60},"note":"holds xoxe-r-user-1234567890"}"#;
    let set = read(&rules, 200, "application/json", body).unwrap();
    let user = &set.secondary["user"];
    assert_eq!(user.access_token.expose(), "xoxe-1-user-1234567890");
    assert_eq!(user.refresh_token.as_ref().unwrap().expose(), "xoxe-r-user-1234567890");
    assert_eq!((user.token_type.as_str(), user.expires_at), ("user", Some(NOW + 60_000)));
    assert_eq!(user.scope.as_deref().unwrap(), ["chat:write"]);
    assert_eq!(in_seconds(&set), Some(43_200));
    let shown = format!("{set:?} {}", json!(set.extra));
    assert!(!shown.contains("xoxe-1-user") && !shown.contains("xoxe-r-user"), "{shown}");
    // Without user scopes there is no such token.
    let set = read(&rules, 200, "application/json", r#"{"ok":true,"access_token":"xoxb","authed_user":{"id":"U1"}}"#);
    assert!(set.unwrap().secondary.is_empty());
}
