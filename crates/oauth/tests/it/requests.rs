//! Exact bytes of token requests.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request};
use keyholder_oauth::*;
use url::Url;

pub const ODD_ID: &str = "c:odd id/+%";
pub const ODD_SECRET: &str = "p@ss:w/+ %rd&=x";

/// base64 of `c%3Aodd+id%2F%2B%25:p%40ss%3Aw%2F%2B+%25rd%26%3Dx`
const BASIC: &str = "Basic YyUzQW9kZCtpZCUyRiUyQiUyNTpwJTQwc3MlM0F3JTJGJTJCKyUyNXJkJTI2JTNEeA==";
/// base64 of `c:odd id/+%:p@ss:w/+ %rd&=x`
const RAW_BASIC: &str = "Basic YzpvZGQgaWQvKyU6cEBzczp3LysgJXJkJj14";

const ID_FORM: &str = "&client_id=c%3Aodd+id%2F%2B%25";
const BOTH_FORM: &str = "&client_id=c%3Aodd+id%2F%2B%25&client_secret=p%40ss%3Aw%2F%2B+%25rd%26%3Dx";
const ID_JSON: &str = r#","client_id":"c:odd id/+%""#;
const BOTH_JSON: &str = r#","client_id":"c:odd id/+%","client_secret":"p@ss:w/+ %rd&=x""#;

/// Tue, 14 Nov 2023 22:13:20 GMT
pub const AT: Moment = Moment { now_ms: 1_700_000_000_123, random: [7; 32] };

pub fn client() -> Client {
    Client { id: ODD_ID.to_owned(), secret: Some(ODD_SECRET.into()), key: None }
}

pub fn endpoint(client_auth: ClientAuth, body: BodyFormat) -> TokenEndpoint {
    let url = Url::parse("https://as.example/token?tenant=a%20b").unwrap();
    TokenEndpoint { body, ..TokenEndpoint::new(url, client_auth) }
}

pub fn body(request: &Request<SecretBytes>) -> &str {
    std::str::from_utf8(request.body().expose()).unwrap()
}

fn header(request: &Request<SecretBytes>, name: HeaderName) -> Option<&str> {
    request.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn every_grant_with_every_client_auth_in_every_format() {
    let (code, verifier) = (Secret::new("c/o+d e"), Verifier::from_secret(Secret::new("ver~ifier")));
    let (password, refresh) = (Secret::new("pä&=\""), Secret::new("1//re+fr"));
    // The grant, its scope, its parameters as a form and as the members of a JSON object.
    let grants = [
        (
            Grant::AuthorizationCode {
                code: &code,
                redirect_uri: "https://k.example/cb?x=1",
                verifier: Some(&verifier),
            },
            None,
            "grant_type=authorization_code&code=c%2Fo%2Bd+e&redirect_uri=https%3A%2F%2Fk.example%2Fcb%3Fx%3D1&code_verifier=ver%7Eifier",
            r#""grant_type":"authorization_code","code":"c/o+d e","redirect_uri":"https://k.example/cb?x=1","code_verifier":"ver~ifier""#,
        ),
        (
            Grant::AuthorizationCode { code: &code, redirect_uri: "https://k.example/cb", verifier: None },
            None,
            "grant_type=authorization_code&code=c%2Fo%2Bd+e&redirect_uri=https%3A%2F%2Fk.example%2Fcb",
            r#""grant_type":"authorization_code","code":"c/o+d e","redirect_uri":"https://k.example/cb""#,
        ),
        (
            Grant::ClientCredentials,
            Some("a b:c"),
            "grant_type=client_credentials&scope=a+b%3Ac",
            r#""grant_type":"client_credentials","scope":"a b:c""#,
        ),
        (
            Grant::Password { username: "ann@x", password: &password },
            Some(""),
            "grant_type=password&username=ann%40x&password=p%C3%A4%26%3D%22&scope=",
            r#""grant_type":"password","username":"ann@x","password":"pä&=\"","scope":"""#,
        ),
        (
            Grant::RefreshToken { refresh_token: &refresh },
            None,
            "grant_type=refresh_token&refresh_token=1%2F%2Fre%2Bfr",
            r#""grant_type":"refresh_token","refresh_token":"1//re+fr""#,
        ),
    ];
    let auths = [
        (ClientAuth::Basic, Some(BASIC), "", ""),
        (ClientAuth::RawBasic, Some(RAW_BASIC), "", ""),
        (ClientAuth::Post, None, BOTH_FORM, BOTH_JSON),
        (ClientAuth::Json, None, "", BOTH_JSON),
        (ClientAuth::Tls, None, ID_FORM, ID_JSON),
        (ClientAuth::None, None, ID_FORM, ID_JSON),
    ];
    for (grant, scope, grant_form, grant_json) in &grants {
        for (auth, authorization, auth_form, auth_json) in auths {
            for format in [BodyFormat::Form, BodyFormat::Json] {
                let request = token_request(&endpoint(auth, format.clone()), &client(), grant, *scope, &AT).unwrap();
                let json = format == BodyFormat::Json || auth == ClientAuth::Json;
                let (content_type, expected) = if json {
                    ("application/json", format!("{{{grant_json}{auth_json}}}"))
                } else {
                    ("application/x-www-form-urlencoded", format!("{grant_form}{auth_form}"))
                };
                let context = format!("{grant:?} {auth} {format:?}");
                assert_eq!(body(&request), expected, "{context}");
                assert_eq!(header(&request, CONTENT_TYPE), Some(content_type), "{context}");
                assert_eq!(header(&request, AUTHORIZATION), authorization, "{context}");
                assert_eq!(header(&request, ACCEPT), Some("application/json"), "{context}");
                assert_eq!(request.headers().len(), 2 + usize::from(authorization.is_some()), "{context}");
                assert_eq!(request.method(), Method::POST);
                assert_eq!(request.uri(), "https://as.example/token?tenant=a%20b");
            }
        }
    }
}

#[test]
fn parameters_in_the_query() {
    let endpoint = endpoint(ClientAuth::Post, BodyFormat::Query);
    let refresh = Secret::new("r +");
    let request =
        token_request(&endpoint, &client(), &Grant::RefreshToken { refresh_token: &refresh }, None, &AT).unwrap();
    assert_eq!(
        request.uri(),
        "https://as.example/token?tenant=a%20b&grant_type=refresh_token&refresh_token=r%20%2B\
         &client_id=c%3Aodd%20id%2F%2B%25&client_secret=p%40ss%3Aw%2F%2B%20%25rd%26%3Dx"
    );
    assert!(request.body().is_empty());
    assert_eq!(header(&request, CONTENT_TYPE), None);
}

#[test]
fn more_parameters_stand_between_the_grant_and_the_credentials() {
    let mut endpoint = endpoint(ClientAuth::Post, BodyFormat::Form);
    endpoint.params.push("audience", "https://api");
    endpoint.params.push("resource", "a");
    endpoint.params.push("resource", "b");
    endpoint.params.push("grant_type", "account_credentials");
    let client = Client { id: "id".to_owned(), secret: Some("hush".into()), key: None };
    let request = token_request(&endpoint, &client, &Grant::ClientCredentials, Some("s"), &AT).unwrap();
    assert_eq!(
        body(&request),
        "grant_type=account_credentials&scope=s&audience=https%3A%2F%2Fapi&resource=a&resource=b&client_id=id&client_secret=hush"
    );
}

#[test]
fn standard_parameters_are_renamed_or_dropped() {
    let mut endpoint = endpoint(ClientAuth::Post, BodyFormat::Form);
    let rename = |from: &str, to: Option<&str>| (from.to_owned(), to.map(str::to_owned));
    // TikTok's name for the client id; a server that rejects `grant_type`; a literal that is no standard name.
    endpoint.renames =
        vec![rename("client_id", Some("client_key")), rename("grant_type", None), rename("extra", Some("never"))];
    endpoint.params.push("extra", "1");
    let client = Client { id: "id".to_owned(), secret: Some("hush".into()), key: None };
    let refresh = Secret::new("r");
    let request =
        token_request(&endpoint, &client, &Grant::RefreshToken { refresh_token: &refresh }, None, &AT).unwrap();
    assert_eq!(body(&request), "refresh_token=r&extra=1&client_key=id&client_secret=hush");
}

#[test]
fn headers_of_the_definition_win() {
    let mut endpoint = endpoint(ClientAuth::Basic, BodyFormat::Form);
    let value = HeaderValue::from_static;
    endpoint.headers = vec![
        (ACCEPT, value("application/vnd.x+json")),
        (AUTHORIZATION, value("Token t")),
        (HeaderName::from_static("x-api"), value("1")),
        (HeaderName::from_static("x-api"), value("2")),
    ];
    let request = token_request(&endpoint, &client(), &Grant::ClientCredentials, None, &AT).unwrap();
    assert_eq!(header(&request, ACCEPT), Some("application/vnd.x+json"));
    assert_eq!(header(&request, AUTHORIZATION), Some("Token t"));
    assert_eq!(request.headers().get_all("x-api").iter().count(), 2);
    assert_eq!(request.headers().get_all(ACCEPT).iter().count(), 1);
}

#[test]
fn a_missing_secret_is_an_error_where_one_is_needed() {
    let public = Client { id: "id".to_owned(), secret: None, key: None };
    for auth in ClientAuth::ALL {
        let result = token_request(&endpoint(auth, BodyFormat::Form), &public, &Grant::ClientCredentials, None, &AT);
        let expected = match auth {
            ClientAuth::None | ClientAuth::Tls => None,
            ClientAuth::PrivateKeyJwt => Some(RequestError::MissingKey),
            auth => Some(RequestError::MissingSecret(auth)),
        };
        assert_eq!(result.err(), expected, "{auth}");
    }
    // Reddit's installed apps have an empty secret and must send it.
    let empty = Client { id: "id".to_owned(), secret: Some("".into()), key: None };
    let basic = endpoint(ClientAuth::Basic, BodyFormat::Form);
    let request = token_request(&basic, &empty, &Grant::ClientCredentials, None, &AT).unwrap();
    assert_eq!(header(&request, AUTHORIZATION), Some("Basic aWQ6"));
}

#[test]
fn a_public_client_with_a_secret_does_not_send_it() {
    let request =
        token_request(&endpoint(ClientAuth::None, BodyFormat::Form), &client(), &Grant::ClientCredentials, None, &AT)
            .unwrap();
    assert_eq!(body(&request), "grant_type=client_credentials&client_id=c%3Aodd+id%2F%2B%25");
}

#[test]
fn addresses_that_nothing_can_be_sent_to_are_refused() {
    let table = [
        ("ftp://as.example/t?secret=x", "ftp://as.example/t"),
        ("https://user:hush@as.example/t", "https://as.example/t"),
        ("mailto:a@b", "mailto://a@b"),
    ];
    for (url, shown) in table {
        let mut endpoint = endpoint(ClientAuth::Basic, BodyFormat::Form);
        endpoint.url = Url::parse(url).unwrap();
        let error = token_request(&endpoint, &client(), &Grant::ClientCredentials, None, &AT).unwrap_err();
        assert_eq!(error, RequestError::BadUrl(shown.to_owned()));
    }
    let mut endpoint = endpoint(ClientAuth::Basic, BodyFormat::Form);
    endpoint.url = Url::parse("https://as.example/t?a=1#part").unwrap();
    let request = token_request(&endpoint, &client(), &Grant::ClientCredentials, None, &AT).unwrap();
    assert_eq!(request.uri(), "https://as.example/t?a=1");
}

#[test]
fn names_of_client_auth_round_trip() {
    for auth in ClientAuth::ALL {
        assert_eq!(auth.to_string().parse(), Ok(auth));
        assert_eq!(serde_json::to_value(auth).unwrap(), auth.as_str());
    }
    let error = "magic".parse::<ClientAuth>().unwrap_err();
    assert!(error.to_string().starts_with("`magic` is not a client authentication"));
}

#[test]
fn debug_of_a_request_and_its_parts_shows_no_secret() {
    let mut endpoint = endpoint(ClientAuth::Basic, BodyFormat::Form);
    endpoint.params.push("api_key", "hush-param");
    endpoint.headers.push((AUTHORIZATION, HeaderValue::from_static("hush-header")));
    let secret = Secret::new("hush-secret");
    let client = Client { id: "id".to_owned(), secret: Some(secret.clone()), key: None };
    let verifier = Verifier::from_secret(secret.clone());
    let grants = [
        Grant::AuthorizationCode { code: &secret, redirect_uri: "x", verifier: Some(&verifier) },
        Grant::Password { username: "u", password: &secret },
        Grant::RefreshToken { refresh_token: &secret },
    ];
    for grant in grants {
        let request = token_request(&endpoint, &client, &grant, None, &AT).unwrap();
        let shown = format!("{request:?} {grant:?} {client:?} {:?}", endpoint.params);
        assert!(!shown.contains("hush"), "{shown}");
        assert!(!shown.contains(BASIC), "{shown}");
    }
    let basic =
        token_request(&self::endpoint(ClientAuth::Basic, BodyFormat::Form), &client, &grants[1], None, &AT).unwrap();
    assert!(basic.headers()[AUTHORIZATION].is_sensitive());
    assert!(format!("{basic:?}").contains("\"authorization\": Sensitive"));
}

#[test]
fn the_query_has_its_own_parameters() {
    let mut endpoint = endpoint(ClientAuth::Query, BodyFormat::Json);
    endpoint.query.push("locale", "de DE");
    endpoint.params.push_json("ttl", &serde_json::json!(3600));
    endpoint.params.push_json("nested", &serde_json::json!({"a": [true]}));
    endpoint.params.push_json("text", &serde_json::json!("3600"));
    endpoint.renames = vec![("client_id".to_owned(), Some("appKey".to_owned()))];
    let client = Client { id: "i".to_owned(), secret: Some("s".into()), key: None };
    let request = token_request(&endpoint, &client, &Grant::Own, None, &AT).unwrap();
    assert_eq!(request.uri(), "https://as.example/token?tenant=a%20b&appKey=i&client_secret=s&locale=de%20DE");
    assert_eq!(body(&request), r#"{"ttl":3600,"nested":{"a":[true]},"text":"3600"}"#);
    endpoint.body = BodyFormat::Form;
    let request = token_request(&endpoint, &client, &Grant::Own, None, &AT).unwrap();
    assert_eq!(body(&request), "ttl=3600&nested=%7B%22a%22%3A%5Btrue%5D%7D&text=3600");
    endpoint.method = Method::GET;
    let token = Secret::new("short lived");
    let request = token_request(&endpoint, &client, &Grant::AccessToken { access_token: &token }, None, &AT).unwrap();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(
        request.uri(),
        "https://as.example/token?tenant=a%20b&appKey=i&client_secret=s&locale=de%20DE\
         &grant_type=refresh_token&access_token=short%20lived&ttl=3600&nested=%7B%22a%22%3A%5Btrue%5D%7D&text=3600"
    );
    assert!(request.body().is_empty() && header(&request, CONTENT_TYPE).is_none());
}

#[test]
fn the_grants_that_bring_an_assertion() {
    let mut endpoint = endpoint(ClientAuth::None, BodyFormat::Form);
    let client = Client { id: "i".to_owned(), ..Client::default() };
    let code = Secret::new("dev+code");
    endpoint.params.push("assertion", "a.b.c");
    for (grant, expected) in [
        (
            Grant::JwtBearer,
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c&client_id=i",
        ),
        (
            Grant::SamlBearer,
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Asaml2-bearer&assertion=a.b.c&client_id=i",
        ),
        (
            Grant::TokenExchange,
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&assertion=a.b.c&client_id=i",
        ),
        (
            Grant::DeviceCode { device_code: &code },
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=dev%2Bcode&assertion=a.b.c&client_id=i",
        ),
    ] {
        assert_eq!(body(&token_request(&endpoint, &client, &grant, None, &AT).unwrap()), expected);
    }
}

#[test]
fn scopes_in_three_forms() {
    let client = Client { id: "i".to_owned(), ..Client::default() };
    for (scope_format, format, expected) in [
        (ScopeFormat::Text, BodyFormat::Form, "grant_type=client_credentials&scope=a+b&client_id=i"),
        (ScopeFormat::Repeat, BodyFormat::Form, "grant_type=client_credentials&scope=a&scope=b&client_id=i"),
        (
            ScopeFormat::Array,
            BodyFormat::Form,
            "grant_type=client_credentials&scope=%5B%22a%22%2C%22b%22%5D&client_id=i",
        ),
        (
            ScopeFormat::Array,
            BodyFormat::Json,
            r#"{"grant_type":"client_credentials","scope":["a","b"],"client_id":"i"}"#,
        ),
    ] {
        let endpoint = TokenEndpoint { scope_format, ..endpoint(ClientAuth::None, format) };
        let request = token_request(&endpoint, &client, &Grant::ClientCredentials, Some("a b"), &AT).unwrap();
        assert_eq!(body(&request), expected);
    }
}

#[test]
fn a_body_in_a_form_of_its_own() {
    let text = |text: &str| BodyPart::Text(text.to_owned());
    let param = |name: &str| BodyPart::Param(name.to_owned());
    let secret = Secret::new("r<\"\\&");
    let grant = Grant::RefreshToken { refresh_token: &secret };
    for (content_type, parts, expected) in [
        (
            "application/vnd.x+json; charset=utf-8",
            vec![
                text(r#"{"auth":{"id":""#),
                param("client_id"),
                text(r#"","t":""#),
                param("refresh_token"),
                text(r#""}}"#),
            ],
            r#"{"auth":{"id":"c:odd id/+%","t":"r<\"\\&"}}"#,
        ),
        ("text/xml", vec![text("<t>"), param("refresh_token"), text("</t>")], "<t>r&lt;&quot;\\&amp;</t>"),
        ("text/plain", vec![param("refresh_token"), param("code")], "r<\"\\&"),
        ("application/x-www-form-urlencoded", vec![text("t="), param("refresh_token")], "t=r%3C%22%5C%26"),
    ] {
        let template = BodyTemplate { content_type: HeaderValue::from_static(content_type), parts };
        let mut endpoint = endpoint(ClientAuth::Post, BodyFormat::Template(template));
        endpoint.renames = vec![("client_id".to_owned(), None)];
        let request = token_request(&endpoint, &client(), &grant, None, &AT).unwrap();
        assert_eq!((body(&request), header(&request, CONTENT_TYPE)), (expected, Some(content_type)));
        assert!(!format!("{endpoint:?}").contains("r<"));
    }
}
