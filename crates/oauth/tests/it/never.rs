//! What must never happen, whatever comes: a panic, a token in something that is shown.

use crate::consent::read_callback;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use keyholder_oauth::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// No other generated text can hold these.
const TOKENS: [&str; 3] = ["AT~canary~1", "RT~canary~2", "IT~canary~3"];

fn shown(result: &Result<TokenSet, TokenFailure>) -> String {
    match result {
        Ok(set) => format!("{set:?} {set:#?} {}", json!(set.extra)),
        Err(failure) => format!("{failure:?} {failure:#?} {failure}"),
    }
}

/// Text that may hold a token, or be one.
fn text() -> impl Strategy<Value = String> {
    let token = prop::sample::select(TOKENS.to_vec());
    prop_oneof![
        token.clone().prop_map(str::to_owned),
        (any::<String>(), token, any::<String>()).prop_map(|(before, token, after)| format!("{before}{token}{after}")),
        prop::sample::select(vec!["invalid_grant", "ok", "3600", "Bearer", ""]).prop_map(str::to_owned),
        any::<String>(),
    ]
}

/// A member's name that means something to the reader, or anything.
fn name() -> impl Strategy<Value = String> {
    let known = vec![
        "error",
        "error_description",
        "errors",
        "message",
        "code",
        "scope",
        "token_type",
        "expires_in",
        "expires",
        "expires_at",
        "ok",
        "user",
        "bot_token",
        "refresh_token_expires_in",
    ];
    prop_oneof![4 => prop::sample::select(known).prop_map(str::to_owned), 1 => text()]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn reply() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(name(), value(), 0..8).prop_map(|members| {
        let mut members: Map<String, Value> = members.into_iter().collect();
        for (name, token) in ["access_token", "refresh_token", "id_token"].iter().zip(TOKENS) {
            members.insert((*name).to_owned(), json!(token));
        }
        members
    })
}

fn status() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(200_u16), 2 => Just(400), 1 => any::<u16>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_reply_never_panics_nor_leaks(members in reply(), status in status(), now in any::<i64>()) {
        let body = Value::Object(members).to_string();
        let result = read_token_reply(&ReplyRules::default(), status, &HeaderMap::new(), body.as_bytes(), now);
        let shown = shown(&result);
        prop_assert!(!shown.contains("canary"), "{}", shown);
    }

    #[test]
    fn a_form_never_panics_nor_leaks(pairs in prop::collection::vec((name(), text()), 0..6), status in status()) {
        let mut params = Params::new();
        for (name, token) in ["access_token", "refresh_token", "id_token"].iter().zip(TOKENS) {
            params.push(*name, token);
        }
        for (name, value) in pairs {
            params.push(name, value);
        }
        let headers: HeaderMap = [(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap())].into_iter().collect();
        let result = read_token_reply(&ReplyRules::default(), status, &headers, params.to_form().as_bytes(), 0);
        let shown = shown(&result);
        prop_assert!(!shown.contains("canary"), "{}", shown);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(body in any::<Vec<u8>>(), status in any::<u16>(), now in any::<i64>()) {
        let _ = read_token_reply(&ReplyRules::default(), status, &HeaderMap::new(), &body, now);
        let _ = read_revocation_reply(status, &HeaderMap::new(), &body, now);
        let _ = read_metadata("https://as.example", 200, &body);
    }

    #[test]
    fn a_reply_that_is_no_data_shows_nothing_of_itself(before in "[^{\\[\"<=]*", status in any::<u16>()) {
        let body = format!("{before} canary");
        let result = read_token_reply(&ReplyRules::default(), status, &HeaderMap::new(), body.as_bytes(), 0);
        prop_assert!(!shown(&result).contains("canary"));
    }

    #[test]
    fn a_failures_texts_are_bounded(error in any::<String>(), description in "\\PC{0,2000}", status in 400_u16..600) {
        let body = json!({"error": error, "error_description": description}).to_string();
        let failure = read_token_reply(&ReplyRules::default(), status, &HeaderMap::new(), body.as_bytes(), 0).unwrap_err();
        for text in [&failure.code, &failure.description].into_iter().flatten() {
            prop_assert!(text.chars().count() <= 300 && !text.chars().any(char::is_control));
        }
    }

    #[test]
    fn a_callback_never_panics(query in any::<String>()) {
        let _ = read_callback(&query);
    }

    #[test]
    fn a_callback_of_pieces_never_panics(pieces in prop::collection::vec("(state|code|iss|error|x)?(=|%|%4|%ff|\\+|&|;|é){0,4}", 0..12)) {
        let expected = Expected { state_sha256: sha256(b"st"), issuer: Some("https://as.example"), issuer_required: true };
        if let Ok(received) = read_callback(&pieces.join("&")) {
            let _ = received.check(&expected);
        }
    }

    #[test]
    fn a_callback_gives_back_what_was_sent(state in ".+", code in ".+", value in any::<String>()) {
        let mut params = Params::new();
        params.push("state", &state);
        params.push("code", &code);
        params.push("other", &value);
        let received = read_callback(&params.to_form()).unwrap();
        prop_assert_eq!(received.state(), &state);
        let expected = Expected { state_sha256: sha256(state.as_bytes()), issuer: None, issuer_required: false };
        let callback = received.check(&expected).unwrap();
        prop_assert_eq!(callback.code().expose(), &code);
        prop_assert_eq!(callback.other(), [("other".to_owned(), value)]);
    }

    #[test]
    fn an_authorize_url_carries_exactly_what_was_asked(scope in any::<String>(), state in ".+", extra in any::<String>()) {
        let endpoint = url::Url::parse("https://as.example/a?own=1").unwrap();
        let mut params = Params::new();
        params.push("extra", &extra);
        let url = authorize_url(&AuthorizeRequest {
            endpoint: &endpoint, client_id: "c", redirect_uri: "r", scope: Some(&scope), state: &state,
            scope_format: ScopeFormat::Text, code_challenge: None, nonce: None, params: &params, renames: &[],
        });
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let expected = [("own", "1"), ("response_type", "code"), ("client_id", "c"), ("redirect_uri", "r"),
            ("scope", &scope), ("state", &state), ("extra", &extra)];
        prop_assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        prop_assert_eq!(url.host_str(), Some("as.example"));
    }

    #[test]
    fn issuers_and_their_documents_never_panic(text in any::<String>(), path in "[a-z/%.]{0,20}") {
        let _ = issuer_of(&text);
        if let Ok(issuer) = url::Url::parse(&format!("https://as.example/{path}")) {
            prop_assert!(!discovery_urls(&issuer).is_empty());
        }
    }
}
