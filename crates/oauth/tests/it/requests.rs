//! Exact bytes of token requests.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request};
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

pub fn client() -> Client {
    Client { id: ODD_ID.to_owned(), secret: Some(ODD_SECRET.into()) }
}

pub fn endpoint(client_auth: ClientAuth, body: BodyFormat) -> TokenEndpoint {
    TokenEndpoint {
        url: Url::parse("https://as.example/token?tenant=a%20b").unwrap(),
        client_auth,
        body,
        headers: Vec::new(),
        params: Params::new(),
        renames: Vec::new(),
    }
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
        (ClientAuth::None, None, ID_FORM, ID_JSON),
    ];
    for (grant, scope, grant_form, grant_json) in &grants {
        for (auth, authorization, auth_form, auth_json) in auths {
            for format in [BodyFormat::Form, BodyFormat::Json] {
                let request = token_request(&endpoint(auth, format), &client(), grant, *scope).unwrap();
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
    let request = token_request(&endpoint, &client(), &Grant::RefreshToken { refresh_token: &refresh }, None).unwrap();
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
    let client = Client { id: "id".to_owned(), secret: Some("hush".into()) };
    let request = token_request(&endpoint, &client, &Grant::ClientCredentials, Some("s")).unwrap();
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
    let client = Client { id: "id".to_owned(), secret: Some("hush".into()) };
    let refresh = Secret::new("r");
    let request = token_request(&endpoint, &client, &Grant::RefreshToken { refresh_token: &refresh }, None).unwrap();
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
    let request = token_request(&endpoint, &client(), &Grant::ClientCredentials, None).unwrap();
    assert_eq!(header(&request, ACCEPT), Some("application/vnd.x+json"));
    assert_eq!(header(&request, AUTHORIZATION), Some("Token t"));
    assert_eq!(request.headers().get_all("x-api").iter().count(), 2);
    assert_eq!(request.headers().get_all(ACCEPT).iter().count(), 1);
}

#[test]
fn a_missing_secret_is_an_error_where_one_is_needed() {
    let public = Client { id: "id".to_owned(), secret: None };
    for auth in ClientAuth::ALL {
        let result = auth.apply(&public, &mut HeaderMap::new(), &mut Params::new());
        let expected = if auth == ClientAuth::None { Ok(()) } else { Err(RequestError::MissingSecret(auth)) };
        assert_eq!(result, expected, "{auth}");
    }
    // Reddit's installed apps have an empty secret and must send it.
    let empty = Client { id: "id".to_owned(), secret: Some("".into()) };
    let mut headers = HeaderMap::new();
    ClientAuth::Basic.apply(&empty, &mut headers, &mut Params::new()).unwrap();
    assert_eq!(headers[AUTHORIZATION], "Basic aWQ6");
}

#[test]
fn a_public_client_with_a_secret_does_not_send_it() {
    let request =
        token_request(&endpoint(ClientAuth::None, BodyFormat::Form), &client(), &Grant::ClientCredentials, None)
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
        let error = token_request(&endpoint, &client(), &Grant::ClientCredentials, None).unwrap_err();
        assert_eq!(error, RequestError::BadUrl(shown.to_owned()));
    }
    let mut endpoint = endpoint(ClientAuth::Basic, BodyFormat::Form);
    endpoint.url = Url::parse("https://as.example/t?a=1#part").unwrap();
    let request = token_request(&endpoint, &client(), &Grant::ClientCredentials, None).unwrap();
    assert_eq!(request.uri(), "https://as.example/t?a=1");
}

#[test]
fn names_of_client_auth_round_trip() {
    for auth in ClientAuth::ALL {
        assert_eq!(auth.to_string().parse(), Ok(auth));
        assert_eq!(serde_json::to_value(auth).unwrap(), auth.as_str());
    }
    let error = "client_secret_jwt".parse::<ClientAuth>().unwrap_err();
    assert!(error.to_string().starts_with("`client_secret_jwt` is not a client authentication"));
}

#[test]
fn debug_of_a_request_and_its_parts_shows_no_secret() {
    let mut endpoint = endpoint(ClientAuth::Basic, BodyFormat::Form);
    endpoint.params.push("api_key", "hush-param");
    endpoint.headers.push((AUTHORIZATION, HeaderValue::from_static("hush-header")));
    let secret = Secret::new("hush-secret");
    let client = Client { id: "id".to_owned(), secret: Some(secret.clone()) };
    let verifier = Verifier::from_secret(secret.clone());
    let grants = [
        Grant::AuthorizationCode { code: &secret, redirect_uri: "x", verifier: Some(&verifier) },
        Grant::Password { username: "u", password: &secret },
        Grant::RefreshToken { refresh_token: &secret },
    ];
    for grant in grants {
        let request = token_request(&endpoint, &client, &grant, None).unwrap();
        let shown = format!("{request:?} {grant:?} {client:?} {:?}", endpoint.params);
        assert!(!shown.contains("hush"), "{shown}");
        assert!(!shown.contains(BASIC), "{shown}");
    }
    let basic = token_request(&self::endpoint(ClientAuth::Basic, BodyFormat::Form), &client, &grants[1], None).unwrap();
    assert!(basic.headers()[AUTHORIZATION].is_sensitive());
    assert!(format!("{basic:?}").contains("\"authorization\": Sensitive"));
}
