//! Authorization requests and callbacks.

use keyholder_oauth::*;
use url::Url;

fn url_for(endpoint: &str, params: &[(&str, &str)], renames: &[(&str, Option<&str>)]) -> String {
    let mut extra = Params::new();
    for (name, value) in params {
        extra.push(*name, *value);
    }
    let renames: Vec<_> = renames.iter().map(|(from, to)| ((*from).to_owned(), to.map(str::to_owned))).collect();
    let request = AuthorizeRequest {
        endpoint: &Url::parse(endpoint).unwrap(),
        client_id: "c id",
        redirect_uri: "https://k.example/callback/a?b=c",
        scope: Some("openid a:b+c"),
        scope_format: ScopeFormat::Text,
        state: "st",
        code_challenge: Some("ch"),
        nonce: Some("no"),
        params: &extra,
        renames: &renames,
    };
    authorize_url(&request).to_string()
}

const STANDARD: &str = "response_type=code&client_id=c%20id&redirect_uri=https%3A%2F%2Fk.example%2Fcallback%2Fa%3Fb%3Dc\
                        &scope=openid%20a%3Ab%2Bc&state=st&code_challenge=ch&code_challenge_method=S256&nonce=no";

/// The callback of a provider that keeps to the RFCs.
pub fn read_callback(query: &str) -> Result<ReceivedCallback, CallbackError> {
    ReceivedCallback::parse(query, &CallbackRules::default())
}

#[test]
fn the_address_of_a_consent() {
    assert_eq!(url_for("https://as.example/a", &[], &[]), format!("https://as.example/a?{STANDARD}"));
}

#[test]
fn what_is_not_given_is_not_sent() {
    let request = AuthorizeRequest {
        endpoint: &Url::parse("https://as.example/a").unwrap(),
        client_id: "c",
        redirect_uri: "r",
        scope: None,
        scope_format: ScopeFormat::Text,
        state: "s",
        code_challenge: None,
        nonce: None,
        params: &Params::new(),
        renames: &[],
    };
    let expected = "https://as.example/a?response_type=code&client_id=c&redirect_uri=r&state=s";
    assert_eq!(authorize_url(&request).as_str(), expected);
}

#[test]
fn the_endpoints_own_query_is_kept_but_not_doubled() {
    let url = url_for(
        "https://as.example/a?tenant=a+b%2Fc&scope=old&flag&&prompt=none&%73tate=fixed",
        &[("prompt", "consent")],
        &[],
    );
    assert_eq!(url, format!("https://as.example/a?tenant=a+b%2Fc&flag&{STANDARD}&prompt=consent"));
}

#[test]
fn more_parameters_are_appended_or_replace() {
    let url =
        url_for("https://as.example/a", &[("access_type", "offline"), ("scope", "x"), ("r", "1"), ("r", "2")], &[]);
    let standard = STANDARD.replace("openid%20a%3Ab%2Bc", "x");
    assert_eq!(url, format!("https://as.example/a?{standard}&access_type=offline&r=1&r=2"));
}

#[test]
fn what_protects_the_consent_is_not_replaced() {
    let attack =
        [("state", "x"), ("state", "y"), ("code_challenge", "x"), ("code_challenge_method", "plain"), ("nonce", "x")];
    assert_eq!(url_for("https://as.example/a", &attack, &[]), format!("https://as.example/a?{STANDARD}"));
    let renamed = url_for("https://as.example/a", &[("csrf", "x")], &[("state", Some("csrf"))]);
    assert_eq!(renamed, format!("https://as.example/a?{}", STANDARD.replace("&state=", "&csrf=")));
}

#[test]
fn standard_parameters_are_renamed_or_dropped() {
    let url = url_for("https://as.example/a", &[], &[("client_id", Some("client_key")), ("nonce", None)]);
    let expected = STANDARD.replace("client_id", "client_key").replace("&nonce=no", "");
    assert_eq!(url, format!("https://as.example/a?{expected}"));
}

const ISSUER: &str = "https://as.example";

fn check(query: &str, issuer: Option<&str>, issuer_required: bool) -> Result<ValidatedCallback, CallbackError> {
    let expected = Expected { state_sha256: sha256(b"st"), issuer, issuer_required };
    read_callback(query)?.check(&expected)
}

#[test]
fn a_good_callback() {
    let received = read_callback("?code=c%2Bd+e&state=st&iss=https%3A%2F%2Fas.example&realmId=9&x").unwrap();
    assert_eq!(received.state(), "st");
    assert_eq!(received.issuer(), Some(ISSUER));
    let expected = Expected { state_sha256: sha256(b"st"), issuer: Some(ISSUER), issuer_required: true };
    let callback = received.check(&expected).unwrap();
    assert_eq!(callback.code().expose(), "c+d e");
    assert_eq!(callback.other(), [("realmId".to_owned(), "9".to_owned()), ("x".to_owned(), String::new())]);
}

#[test]
fn issuers() {
    let mismatch = |received: &str| {
        Some(CallbackError::IssuerMismatch { expected: ISSUER.to_owned(), received: received.to_owned() })
    };
    let table = [
        ("", Some(ISSUER), false, None),
        ("", Some(ISSUER), true, Some(CallbackError::IssuerMissing { expected: ISSUER.to_owned() })),
        ("&iss=https://as.example", Some(ISSUER), false, None),
        ("&iss=https://as.example", None, false, None),
        ("", None, false, None),
        // Compared as text: no normalisation (RFC 9207 §2.4).
        ("&iss=https://as.example/", Some(ISSUER), false, mismatch("https://as.example/")),
        ("&iss=https://AS.example", Some(ISSUER), true, mismatch("https://AS.example")),
        ("&iss=", Some(ISSUER), false, mismatch("")),
        // The issuer is checked before an error answer is believed.
        ("&error=access_denied&iss=https://evil", Some(ISSUER), false, mismatch("https://evil")),
    ];
    for (query, issuer, required, error) in table {
        assert_eq!(check(&format!("code=c&state=st{query}"), issuer, required).err(), error, "{query}");
    }
}

#[test]
fn callbacks_that_are_refused() {
    let refused = |error: &str, description: Option<&str>| CallbackError::Refused {
        error: error.to_owned(),
        description: description.map(str::to_owned),
    };
    let table = [
        ("code=c&state=x", CallbackError::StateMismatch),
        ("error=access_denied&state=x", CallbackError::StateMismatch),
        ("code=c", CallbackError::MissingState),
        ("code=c&state=", CallbackError::MissingState),
        ("", CallbackError::MissingState),
        ("state=st", CallbackError::MissingCode),
        ("state=st&code=", CallbackError::MissingCode),
        ("code=c&code=d&state=st", CallbackError::Duplicate("code".to_owned())),
        ("code=c&st%61te=st&state=st", CallbackError::Duplicate("state".to_owned())),
        ("code=c&state=st&a=1&a=1", CallbackError::Duplicate("a".to_owned())),
        ("code=%ff&state=st", CallbackError::NotUtf8),
        ("state=st&error=access_denied", refused("access_denied", None)),
        ("state=st&error=a%00b&error_description=No+%0d%0a%1b[31mway", refused("ab", Some("No [31mway"))),
        ("state=st&error=access_denied&code=c", refused("access_denied", None)),
    ];
    for (query, error) in table {
        assert_eq!(check(query, None, false).err(), Some(error), "{query}");
    }
}

#[test]
fn a_callback_is_bounded() {
    let query = |length: usize| format!("state=st&code={}", "c".repeat(length - 14));
    assert!(check(&query(16 * 1024), None, false).is_ok());
    assert_eq!(check(&query(16 * 1024 + 1), None, false).err(), Some(CallbackError::TooLong));
}

#[test]
fn debug_of_a_callback_shows_no_value() {
    let received = read_callback("code=hush&state=hush2&error_description=hush3&x=hush4").unwrap();
    assert_eq!(format!("{received:?}"), "ReceivedCallback { .. }");
    let callback = check("code=hush&state=st&x=hush", None, false).unwrap();
    assert_eq!(format!("{callback:?}"), "ValidatedCallback { .. }");
}

#[test]
fn a_provider_with_its_own_words_for_the_callback() {
    // Amazon's Selling Partner API and Instagram.
    let rules = CallbackRules {
        code: "spapi_oauth_code".into(),
        state: "customField".into(),
        strip_code_suffix: Some("#_".into()),
        signature: None,
    };
    let query = "spapi_oauth_code=abc%23_&customField=st&selling_partner_id=A1";
    let received = ReceivedCallback::parse(query, &rules).unwrap();
    assert_eq!(received.state(), "st");
    let expected = Expected { state_sha256: sha256(b"st"), issuer: None, issuer_required: false };
    let callback = received.check(&expected).unwrap();
    assert_eq!(callback.code().expose(), "abc");
    assert_eq!(callback.other(), [("selling_partner_id".to_owned(), "A1".to_owned())]);
}

#[test]
fn a_signed_callback() {
    // Shopify's example: the parameters without `hmac`, sorted.
    let signed = "code=0907a61c0c8d55e99db179b68161bc00&shop=some-shop.myshopify.com&state=0.6784241404160823&timestamp=1337178173";
    let key = Secret::new("hush");
    let signature = |over| CallbackSignature {
        parameter: "hmac".into(),
        hash: Hash::Sha256,
        encoding: Encoding::Hex,
        key: key.clone(),
        over,
    };
    let rules = |over| CallbackRules { signature: Some(signature(over)), ..CallbackRules::default() };
    let hmac = Encoding::Hex.encode(&hmac_of(Hash::Sha256, b"hush", signed.as_bytes()));
    assert_eq!(hmac, "700e2dadb827fcc8609e9d5ce208b2e9cdaab9df07390d2cbca10d7c328fc4bf");
    let (first, rest) = signed.split_once('&').unwrap();
    let shuffled = format!("?{rest}&hmac={hmac}&{first}");
    assert!(ReceivedCallback::parse(&shuffled, &rules(SignedOver::SortedQuery)).is_ok());
    let wrong =
        |query: &str, over| ReceivedCallback::parse(query, &rules(over)).err() == Some(CallbackError::Signature);
    assert!(wrong(&shuffled, SignedOver::Query));
    assert!(!wrong(&format!("{signed}&hmac={hmac}"), SignedOver::Query));
    assert!(wrong(&shuffled.replace("some-shop", "evil-shop"), SignedOver::SortedQuery));
    assert!(wrong(signed, SignedOver::SortedQuery));
    assert!(wrong(&format!("{signed}&hmac="), SignedOver::SortedQuery));
    assert!(wrong(&format!("{shuffled}&extra=1"), SignedOver::SortedQuery));
}
