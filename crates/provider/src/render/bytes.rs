//! A table of fields and the exact bytes that they make: one small definition a row.
#![allow(clippy::unwrap_used, reason = "tests")]

use http::HeaderMap;
use http::header::AUTHORIZATION;
use keyholder_oauth::{
    AuthorizeRequest, Client, FailureKind, Grant, Moment, ReceivedCallback, Secret, SecretBytes, TokenEndpoint,
    TokenSet, authorize_url, device_request, introspection_request, read_token_reply, revocation_request,
    token_request,
};

use super::*;
use crate::{PlaceOfToken, TimeoutUnit, parse};

/// Tue, 14 Nov 2023 22:13:20 GMT
const AT: Moment = Moment { now_ms: 1_700_000_000_000, random: [7; 32] };

const TOKEN: &str = "[token]\nurl = \"https://as.example/t\"\nclient_auth = \"post\"\n";

fn client() -> Client {
    Client { id: "id-1".into(), secret: Some("hush".into()), key: None }
}

fn choice() -> Choice {
    Choice { client: Some(client()), moment: Some(AT), ..Choice::default() }
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn definition(grant: &str, text: &str) -> Definition {
    let head = format!("schema = 1\nid = \"acme\"\nname = \"Acme\"\n[[methods]]\ngrant = \"{grant}\"\n");
    parse("acme.toml", &format!("{head}{text}"))
        .unwrap_or_else(|errors| panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

fn rendered_with(grant: &str, text: &str, pairs: &[(&str, &str)], choice: &Choice) -> Rendered {
    let definition = definition(grant, text);
    definition.render(&definition.methods[0], &values(pairs), choice, None).unwrap()
}

fn rendered(grant: &str, text: &str, pairs: &[(&str, &str)]) -> Rendered {
    rendered_with(grant, text, pairs, &choice())
}

/// Method, address, headers beyond the usual ones, body.
fn bytes(request: &http::Request<SecretBytes>) -> String {
    let mut out = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        let usual = [("accept", "application/json"), ("content-type", "application/x-www-form-urlencoded")];
        let pair = (name.as_str(), std::str::from_utf8(value.as_bytes()).unwrap());
        if !usual.contains(&pair) {
            out.push_str(&format!("{}: {}\n", pair.0, pair.1));
        }
    }
    out + std::str::from_utf8(request.body().expose()).unwrap()
}

fn sent(endpoint: &TokenEndpoint, grant: &Grant<'_>, scope: Option<&str>) -> String {
    bytes(&token_request(endpoint, &client(), grant, scope, &AT).unwrap())
}

fn token(text: &str, pairs: &[(&str, &str)]) -> String {
    let rendered = rendered("client_credentials", &format!("{TOKEN}{text}"), pairs);
    sent(&rendered.token, &Grant::ClientCredentials, rendered.scope.as_deref())
}

fn token_set(json: &str) -> TokenSet {
    read_token_reply(&ReplyRules::default(), 200, &HeaderMap::new(), json.as_bytes(), AT.now_ms).unwrap()
}

/// Header names are the exception: HTTP compares them in any case, and the library writes them in lower case.
#[test]
fn names_keep_their_letter_case() {
    let text = "[authorize]\nurl = \"https://as.example/A/{{Zone}}\"\nparams = { appKey = \"{{client_id}}\" }\n\
        [token]\nurl = \"https://as.example/{{Zone}}/T\"\nclient_auth = \"none\"\nquery = { apiVersion = \"V2\" }\n\
        params = { realmId = \"{{Realm_ID}}\" }\nrename = { client_id = \"clientId\", code = \"authCode\" }\n\
        [refresh]\nbody = \"json\"\nparams = { RealmID = \"{{Realm_ID}}\" }\n\
        [variables.Zone]\n[variables.Realm_ID]\n";
    let rendered = rendered("authorization_code", text, &[("Zone", "EU-West"), ("Realm_ID", "Ab"), ("realm_id", "no")]);
    let authorize = rendered.authorize.as_ref().unwrap();
    assert_eq!(authorize.url.path(), "/A/EU-West");
    assert!(format!("{:?}", authorize.params).contains("appKey"), "{:?}", authorize.params);
    let grant = Grant::RefreshToken { refresh_token: &"rt".into() };
    assert_eq!(
        sent(&rendered.refresh, &grant, None),
        "POST https://as.example/EU-West/T\ncontent-type: application/json\n\
         {\"grant_type\":\"refresh_token\",\"refresh_token\":\"rt\",\"RealmID\":\"Ab\",\"clientId\":\"id-1\"}"
    );
    let code = Grant::AuthorizationCode { code: &"c".into(), redirect_uri: "https://x.example/", verifier: None };
    let exchange = sent(&rendered.token, &code, None);
    assert!(exchange.starts_with("POST https://as.example/EU-West/T?apiVersion=V2\n"), "{exchange}");
    assert!(
        exchange.contains("authCode=c") && exchange.contains("realmId=Ab") && exchange.contains("clientId=id-1"),
        "{exchange}"
    );
}

/// A definition's lines, values of variables, and the bytes that are sent.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);

#[test]
fn the_fields_of_a_request() {
    let table: [Row; 12] = [
        ("", &[], "POST https://as.example/t\ngrant_type=client_credentials&client_id=id-1&client_secret=hush"),
        (
            "method = \"GET\"",
            &[],
            "GET https://as.example/t?grant_type=client_credentials&client_id=id-1&client_secret=hush\n",
        ),
        (
            "query = { v = \"2 0\" }\nheaders = { User-Agent = \"acme/{{client_id}}\" }",
            &[],
            "POST https://as.example/t?v=2%200\nuser-agent: acme/id-1\ngrant_type=client_credentials&client_id=id-1&client_secret=hush",
        ),
        (
            "body = \"json\"\nparams = { ttl = 3600, deep = { a = [true] }, text = \"1\" }",
            &[],
            "POST https://as.example/t\ncontent-type: application/json\n{\"grant_type\":\"client_credentials\",\"ttl\":3600,\"deep\":{\"a\":[true]},\"text\":\"1\",\"client_id\":\"id-1\",\"client_secret\":\"hush\"}",
        ),
        (
            "body = \"query\"",
            &[],
            "POST https://as.example/t?grant_type=client_credentials&client_id=id-1&client_secret=hush\n",
        ),
        (
            "rename = { client_id = \"appKey\", client_secret = \"appSecret\" }\ndrop = [\"grant_type\"]",
            &[],
            "POST https://as.example/t\nappKey=id-1&appSecret=hush",
        ),
        (
            "params = { grant_type = \"account_credentials\", Account_ID = \"{{account}}\", absent = \"{{other}}\" }\n[variables.account]\n[variables.other]\npresence = \"optional\"",
            &[("account", "A&1")],
            "POST https://as.example/t\ngrant_type=account_credentials&Account_ID=A%261&client_id=id-1&client_secret=hush",
        ),
        (
            "body = { content_type = \"application/json\", template = '{\"auth\":{\"key\":\"{{params.client_id}}\",\"tenant\":\"{{tenant}}\"},\"secret\":\"{{client_secret}}\"}' }\n[variables.tenant]",
            &[("tenant", "a\"b")],
            "POST https://as.example/t\ncontent-type: application/json\n{\"auth\":{\"key\":\"id-1\",\"tenant\":\"a\\\"b\"},\"secret\":\"hush\"}",
        ),
        (
            "[scopes]\ndefault = [\"a\", \"b\"]\nseparator = \",\"\nparameter = \"scopes\"",
            &[],
            "POST https://as.example/t\ngrant_type=client_credentials&scopes=a%2Cb&client_id=id-1&client_secret=hush",
        ),
        (
            "[scopes]\ndefault = [\"a\", \"b\"]\nformat = \"repeat\"",
            &[],
            "POST https://as.example/t\ngrant_type=client_credentials&scope=a&scope=b&client_id=id-1&client_secret=hush",
        ),
        (
            "body = \"json\"\n[scopes]\ndefault = [\"a\"]\nformat = \"array\"",
            &[],
            "POST https://as.example/t\ncontent-type: application/json\n{\"grant_type\":\"client_credentials\",\"scope\":[\"a\"],\"client_id\":\"id-1\",\"client_secret\":\"hush\"}",
        ),
        (
            "[inputs.grant_type]\npresence = \"fixed\"\ndefault = \"urn:own\"",
            &[],
            "POST https://as.example/t\ngrant_type=urn%3Aown&client_id=id-1&client_secret=hush",
        ),
    ];
    for (text, pairs, expected) in table {
        assert_eq!(token(text, pairs), expected, "{text}");
    }
}

#[test]
fn values_made_of_others() {
    let hmac = keyholder_oauth::hmac_of(keyholder_oauth::Hash::Sha256, b"hush", b"id-1");
    let hmac = keyholder_oauth::Encoding::Hex.encode(&hmac);
    let table = [
        ("hmac = \"sha256\"\nkey = \"{{client_secret}}\"\nover = \"{{client_id}}\"", hmac.as_str()),
        ("base64 = \"{{client_id}}:{{client_secret}}\"", "aWQtMTpodXNo"),
        ("base64 = \"{{computed.once}}\"\nencoding = \"hex\"\n[computed.once]\nbase64 = \"a\"", "59513d3d"),
        // Without one of the values there is none.
        ("base64 = \"{{absent}}\"\n[variables.absent]\npresence = \"optional\"", ""),
    ];
    for (text, expected) in table {
        let request = token(&format!("params = {{ x = \"{{{{computed.x}}}}\" }}\n[computed.x]\n{text}"), &[]);
        let expected = if expected.is_empty() { String::new() } else { format!("&x={expected}") };
        assert_eq!(
            request,
            format!(
                "POST https://as.example/t\ngrant_type=client_credentials{expected}&client_id=id-1&client_secret=hush"
            )
        );
    }
}

#[test]
fn a_signed_assertion() {
    let text = format!(
        "{TOKEN}params = {{ assertion = \"{{{{computed.assertion}}}}\" }}\ndrop = [\"client_secret\"]\n\
         [computed.assertion.jwt]\nalg = \"HS256\"\nkey = \"{{{{client_secret}}}}\"\nkid = \"k\"\n\
         claims = {{ iss = \"{{{{client_id}}}}\", aud = \"https://as.example\", iat = \"now\", exp = \"+5m\", nbf = \"-30s\", jti = \"random\", roles = [\"a\"] }}\n"
    );
    let rendered = rendered("jwt_bearer", &text, &[]);
    let request = sent(&rendered.token, &Grant::JwtBearer, None);
    let (begin, rest) = request.split_once("&assertion=").unwrap();
    assert_eq!(begin, "POST https://as.example/t\ngrant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer");
    let (assertion, rest) = rest.split_once('&').unwrap();
    assert_eq!(rest, "client_id=id-1");
    let decode = |part: &str| -> serde_json::Value {
        use base64::Engine as _;
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let parts: Vec<&str> = assertion.split('.').collect();
    assert_eq!(decode(parts[0]), serde_json::json!({"typ": "JWT", "alg": "HS256", "kid": "k"}));
    assert_eq!(
        decode(parts[1]),
        serde_json::json!({"iss": "id-1", "aud": "https://as.example", "iat": 1_700_000_000, "exp": 1_700_000_300,
            "nbf": 1_699_999_970, "jti": "BwcHBwcHBwcHBwcHBwcHBw", "roles": ["a"]})
    );
    // Without a clock nothing is signed, rather than signed wrongly.
    let definition = definition("jwt_bearer", &text);
    let no_clock = Choice { moment: None, ..choice() };
    let error = definition.render(&definition.methods[0], &Values::new(), &no_clock, None).unwrap_err();
    assert_eq!(error.to_string(), "computed.assertion: nothing says what time it is");
}

#[test]
fn what_a_client_assertion_says() {
    let text = "[token]\nurl = \"https://as.example/t?x=1\"\nclient_auth = \"client_secret_jwt\"\n\
        client_assertion = { audience = \"https://{{client_id}}.example\", algorithm = \"HS512\", lifetime = \"5m\", header = { kid = \"k\" } }\n";
    let rendered = rendered("client_credentials", text, &[]);
    let assertion = &rendered.token.client_assertion;
    assert_eq!(assertion.audience.as_deref(), Some("https://id-1.example"));
    assert_eq!(
        (assertion.lifetime, &assertion.header["kid"]),
        (Some(Duration::from_secs(300)), &serde_json::json!("k"))
    );
    assert!(sent(&rendered.token, &Grant::ClientCredentials, None).contains("client_assertion_type=urn%3Aietf"));
    assert_eq!(rendered.refresh.client_assertion.audience, assertion.audience);
}

#[test]
fn what_phases_take_from_token() {
    let text = "[token]\nurl = \"https://as.example/t\"\nclient_auth = \"post\"\nbody = \"json\"\n\
        headers = { A = \"1\", B = \"2\" }\nparams = { only = \"here\" }\nquery = { q = \"here\" }\nrename = { client_id = \"key\" }\n\
        [token.reply]\naccess_token = \"/data/t\"\n\
        [refresh]\nheaders = { B = false, C = \"3\" }\n[refresh.reply]\nexpires_in = \"/data/e\"\n\
        [revoke]\nurl = \"https://as.example/r\"\nbody = \"form\"\n\
        [introspect]\nurl = \"https://as.example/i\"\nclient_auth = \"none\"\n\
        [follow_up]\nurl = \"https://as.example/f\"\nmethod = \"GET\"\nbody = false\nparams = { grant_type = \"long\", t = \"{{access_token}}\" }\nclient_auth = \"none\"\n";
    let tokens = Tokens { access_token: Some("at".into()), ..Tokens::default() };
    let rendered = rendered_with(
        "authorization_code",
        &format!("{text}[authorize]\nurl = \"https://as.example/a\"\n"),
        &[],
        &Choice { tokens: Some(tokens), ..choice() },
    );
    let refresh_token = Secret::new("rt");
    assert_eq!(
        sent(&rendered.refresh, &Grant::RefreshToken { refresh_token: &refresh_token }, None),
        "POST https://as.example/t\ncontent-type: application/json\na: 1\nc: 3\n{\"grant_type\":\"refresh_token\",\"refresh_token\":\"rt\",\"key\":\"id-1\",\"client_secret\":\"hush\"}"
    );
    assert_eq!(rendered.refresh_reply.access_token.as_str(), "/data/t");
    assert_eq!(rendered.refresh_reply.expires_in.as_str(), "/data/e");
    assert_eq!(rendered.reply.expires_in.as_str(), "/expires_in");
    let revoke = rendered.revoke.unwrap();
    assert_eq!(
        bytes(&revocation_request(&revoke.endpoint, &client(), &refresh_token, "", &AT).unwrap()),
        "POST https://as.example/r\na: 1\nb: 2\ntoken=rt&key=id-1&client_secret=hush"
    );
    assert_eq!(
        bytes(&introspection_request(&rendered.introspect.unwrap(), &client(), &refresh_token, "", &AT).unwrap()),
        "POST https://as.example/i\ncontent-type: application/json\na: 1\nb: 2\n{\"token\":\"rt\",\"key\":\"id-1\"}"
    );
    let follow_up = rendered.follow_up.unwrap();
    assert_eq!(
        sent(&follow_up.endpoint, &Grant::Own, None),
        "GET https://as.example/f?grant_type=long&t=at&key=id-1\na: 1\nb: 2\n"
    );
    assert_eq!((follow_up.when, follow_up.reply.access_token.as_str()), (FollowUpWhen::Always, "/data/t"));
}

#[test]
fn methods_say_it_in_their_own_way() {
    let text = "schema = 1\nid = \"acme\"\nname = \"Acme\"\n\
        [token]\nurl = \"https://as.example/t\"\nclient_auth = \"post\"\nparams = { kind = \"user\", both = \"1\" }\n\
        [scopes]\ndefault = [\"a\"]\nalways = [\"z\"]\n[api]\nbase_url = \"https://api.example\"\nverify = \"/me\"\n\
        [[methods]]\ngrant = \"client_credentials\"\n\
        [[methods]]\nname = \"app\"\ngrant = \"client_credentials\"\n\
        token = { url = \"https://as.example/app\", params = { kind = \"app\" } }\nscopes = { always = [] }\napi = { verify = false }\n";
    let definition = parse("acme.toml", text).unwrap();
    let render = |name: &str| {
        let method = definition.method(Some(name)).unwrap();
        definition.render(method, &Values::new(), &choice(), None).unwrap()
    };
    let (plain, app) = (render("client_credentials"), render("app"));
    assert_eq!(
        sent(&plain.token, &Grant::ClientCredentials, plain.scope.as_deref()),
        "POST https://as.example/t\ngrant_type=client_credentials&scope=a+z&kind=user&both=1&client_id=id-1&client_secret=hush"
    );
    assert_eq!(
        sent(&app.token, &Grant::ClientCredentials, app.scope.as_deref()),
        "POST https://as.example/app\ngrant_type=client_credentials&scope=a&kind=app&both=1&client_id=id-1&client_secret=hush"
    );
    assert!(plain.api.verify.is_some() && app.api.verify.is_none());
}

#[test]
fn other_grants() {
    let device = rendered(
        "device_code",
        &format!(
            "{TOKEN}[device]\nurl = \"https://as.example/d\"\nparams = {{ tier = \"1\" }}\n[scopes]\ndefault = [\"a\"]\n"
        ),
        &[],
    );
    let request = device_request(&device.device.unwrap(), &client(), device.scope.as_deref(), &AT).unwrap();
    assert_eq!(bytes(&request), "POST https://as.example/d\nclient_id=id-1&scope=a&tier=1&client_secret=hush");
    let exchange = rendered(
        "token_exchange",
        &format!(
            "{TOKEN}params = {{ subject_token = \"{{{{subject}}}}\", subject_token_type = \"urn:ietf:params:oauth:token-type:jwt\" }}\n[variables.subject]\nsecret = true\nasked_of = \"connection\"\n"
        ),
        &[("subject", "j.w.t")],
    );
    assert_eq!(
        sent(&exchange.token, &Grant::TokenExchange, None),
        "POST https://as.example/t\ngrant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=j.w.t\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&client_id=id-1&client_secret=hush"
    );
    let saml = rendered(
        "saml_bearer",
        &format!(
            "{TOKEN}params = {{ assertion = \"{{{{computed.a}}}}\", company_id = \"{{{{company}}}}\" }}\n[variables.company]\n[variables.saml]\nkind = \"pem\"\nsecret = true\n[computed.a]\nbase64 = \"{{{{saml}}}}\"\nencoding = \"base64url\"\n"
        ),
        &[("company", "c1"), ("saml", "<a>\n?</a>")],
    );
    assert!(
        sent(&saml.token, &Grant::SamlBearer, None)
            .ends_with("&assertion=PGE-Cj88L2E-&company_id=c1&client_id=id-1&client_secret=hush")
    );
    // A password with what has to follow it.
    let password = rendered_with(
        "password",
        &format!(
            "{TOKEN}params = {{ password = \"{{{{password}}}}{{{{security_token}}}}\" }}\n[variables.security_token]\nsecret = true\n"
        ),
        &[("security_token", "XYZ")],
        &Choice { password: Some("pw".into()), ..choice() },
    );
    let (secret, name) = (Secret::new("pw"), "ann");
    assert_eq!(
        sent(&password.token, &Grant::Password { username: name, password: &secret }, None),
        "POST https://as.example/t\ngrant_type=password&username=ann&password=pwXYZ&client_id=id-1&client_secret=hush"
    );
    // Instagram and Threads extend the access token itself.
    let threads = rendered_with(
        "authorization_code",
        &format!(
            "{TOKEN}[authorize]\nurl = \"https://as.example/a\"\n[refresh]\nurl = \"https://graph.example/refresh\"\nmethod = \"GET\"\nwith = \"access_token\"\nclient_auth = \"none\"\nparams = {{ grant_type = \"th_refresh_token\" }}\ndrop = [\"client_id\"]\nmin_age = \"24h\"\nkeep_alive = \"30d\"\n"
        ),
        &[],
        &choice(),
    );
    let access_token = Secret::new("at");
    assert_eq!(
        sent(&threads.refresh, &Grant::AccessToken { access_token: &access_token }, None),
        "GET https://graph.example/refresh?grant_type=th_refresh_token&access_token=at\n"
    );
    assert_eq!(
        (threads.refresh_with, threads.refresh_min_age),
        (RefreshWith::AccessToken, Some(Duration::from_secs(86_400)))
    );
    assert_eq!(threads.keep_alive, KeepAlive::Every(Duration::from_secs(30 * 86_400)));
}

const CONSENT: &str =
    "[authorize]\nurl = \"https://as.example/a\"\n[token]\nurl = \"https://as.example/t\"\nclient_auth = \"post\"\n";

fn address(rendered: &Rendered) -> String {
    let authorize = rendered.authorize.as_ref().unwrap();
    let request = AuthorizeRequest {
        endpoint: &authorize.url,
        client_id: "id-1",
        redirect_uri: "https://k.example/cb",
        scope: rendered.scope.as_deref(),
        scope_format: authorize.scope_format,
        state: "st",
        code_challenge: None,
        nonce: None,
        params: &authorize.params,
        renames: &authorize.renames,
    };
    authorize_url(&request).to_string()
}

#[test]
fn the_authorization_request_and_its_callback() {
    let text = CONSENT.replace(
        "/a\"\n",
        "/a\"\nparams = { user_scope = \"{{user_scopes}}\", max_age = 60 }\nrename = { client_id = \"appKey\", state = \"customField\" }\ndrop = [\"response_type\"]\n",
    ) + "[variables.user_scopes]\nkind = \"scopes\"\n[scopes]\nseparator = \"+\"\ndefault = [\"a\", \"b\"]\n[callback]\nresponse_mode = \"form_post\"\n";
    let shown = address(&rendered("authorization_code", &text, &[("user_scopes", "u1, u2")]));
    assert_eq!(
        shown,
        "https://as.example/a?appKey=id-1&redirect_uri=https%3A%2F%2Fk.example%2Fcb&scope=a%2Bb&customField=st&user_scope=u1%2Bu2&max_age=60&response_mode=form_post"
    );

    let text = format!(
        "{CONSENT}[callback]\nrename = {{ code = \"spapi_oauth_code\" }}\nstrip_code_suffix = \"#_\"\n\
         [callback.capture]\nseller = \"selling_partner_id\"\nserver = {{ parameter = \"accounts-server\", kind = \"url\", pattern = 'https://accounts\\.zoho\\.(com|eu)', required = true }}\n\
         [callback.signature]\nparameter = \"hmac\"\n\
         [refresh]\nurl = \"{{{{callback.server}}}}/oauth/v2/token\"\nparams = {{ seller = \"{{{{callback.seller}}}}\" }}\n"
    );
    let before = rendered("authorization_code", &text, &[]);
    let signature = before.callback.rules.signature.as_ref().unwrap();
    assert_eq!((signature.parameter.as_str(), signature.key.expose()), ("hmac", "hush"));
    let query = "accounts-server=https%3A%2F%2Faccounts.zoho.eu&selling_partner_id=A1&spapi_oauth_code=c%23_&state=st";
    let hmac = keyholder_oauth::Encoding::Hex.encode(&keyholder_oauth::hmac_of(
        keyholder_oauth::Hash::Sha256,
        b"hush",
        query.as_bytes(),
    ));
    let received = ReceivedCallback::parse(&format!("{query}&hmac={hmac}"), &before.callback.rules).unwrap();
    let expected = keyholder_oauth::Expected {
        state_sha256: keyholder_oauth::sha256(b"st"),
        issuer: None,
        issuer_required: false,
    };
    let callback = received.check(&expected).unwrap();
    assert_eq!(callback.code().expose(), "c");
    let captured = before.callback.capture(callback.other()).unwrap();
    assert_eq!(captured, values(&[("callback.seller", "A1"), ("callback.server", "https://accounts.zoho.eu")]));

    let pairs: Vec<(&str, &str)> = captured.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let after = rendered("authorization_code", &text, &pairs);
    let refresh_token = Secret::new("rt");
    assert_eq!(
        sent(&after.refresh, &Grant::RefreshToken { refresh_token: &refresh_token }, None),
        "POST https://accounts.zoho.eu/oauth/v2/token\ngrant_type=refresh_token&refresh_token=rt&seller=A1&client_id=id-1&client_secret=hush"
    );
    for evil in [
        "https://evil.example",
        "https://accounts.zoho.com.evil.example",
        "https://accounts.zoho.eu/x",
        "https://accounts.zoho.eu\n",
    ] {
        let other = [("accounts-server".to_owned(), evil.to_owned())];
        let error = before.callback.capture(&other).unwrap_err();
        assert!(error.variable == "callback.server" && !error.to_string().contains("evil"), "{error}");
        let definition = definition("authorization_code", &text);
        let stored = values(&[("callback.server", evil)]);
        assert!(definition.render(&definition.methods[0], &stored, &choice(), None).is_err(), "{evil}");
    }
    assert!(before.callback.capture(&[]).unwrap_err().to_string().contains("does not have it"));
}

#[test]
fn the_callback_names_the_token_endpoint() {
    let text = "[variables.zone]\nchoices = [\"us\", \"cn\"]\ndefault = \"us\"\n\
        [authorize]\nurl = \"https://accounts.acme.example/a\"\n\
        [callback.capture.server]\nparameter = \"accounts-server\"\nkind = \"url\"\npattern = 'https://[a-z]+\\.acme\\.example'\ndefault = \"https://{{zone}}.acme.example\"\n\
        [token]\nurl = \"{{callback.server}}/t\"\nclient_auth = \"none\"\n";
    let asked = |pairs: &[(&str, &str)]| {
        let rendered = rendered("authorization_code", text, pairs);
        let code = Secret::new("c");
        let grant = Grant::AuthorizationCode { code: &code, redirect_uri: "https://k.example/cb", verifier: None };
        let refresh_token = Secret::new("rt");
        let refresh = sent(&rendered.refresh, &Grant::RefreshToken { refresh_token: &refresh_token }, None);
        assert_eq!(
            address(&rendered),
            "https://accounts.acme.example/a?response_type=code&client_id=id-1&redirect_uri=https%3A%2F%2Fk.example%2Fcb&state=st"
        );
        (sent(&rendered.token, &grant, None), refresh)
    };
    let bodies = |server: &str| {
        (
            format!(
                "POST https://{server}/t\ngrant_type=authorization_code&code=c&redirect_uri=https%3A%2F%2Fk.example%2Fcb&client_id=id-1"
            ),
            format!("POST https://{server}/t\ngrant_type=refresh_token&refresh_token=rt&client_id=id-1"),
        )
    };
    assert_eq!(asked(&[]), bodies("us.acme.example"));
    assert_eq!(asked(&[("zone", "cn")]), bodies("cn.acme.example"));
    assert_eq!(asked(&[("zone", "cn"), ("callback.server", "https://eu.acme.example")]), bodies("eu.acme.example"));
    // A default that a variable makes unfit is refused like an answer.
    let unfit = text.replace("choices = [\"us\", \"cn\"]\n", "");
    let definition = definition("authorization_code", &unfit);
    let error = definition.render(&definition.methods[0], &values(&[("zone", "evil.example/")]), &choice(), None);
    assert!(error.unwrap_err().to_string().contains("callback.server"));
}

#[test]
fn a_reply_names_the_api_host() {
    let text = format!(
        "{TOKEN}[api]\nbase_url = \"https://{{{{reply.host}}}}/api/v4\"\nhosts = [\"*.acme.example\"]\n\
         [[after_connect]]\nname = \"who\"\nurl = \"https://{{{{reply.host}}}}/who\"\nextract = {{ id = \"/id\" }}\n\
         [userinfo]\nurl = \"https://{{{{reply.host}}}}/me\"\n"
    );
    let known = rendered("client_credentials", &text, &[("reply.host", "app-eu.acme.example")]);
    assert_eq!(known.api.base_url.as_ref().unwrap().as_str(), "https://app-eu.acme.example/api/v4");
    assert_eq!(known.userinfo.unwrap().url.as_str(), "https://app-eu.acme.example/me");
    let set = token_set(r#"{"access_token":"at"}"#);
    assert_eq!(
        bytes(&known.lookups[0].request(&known.api, &set).unwrap().unwrap()),
        "GET https://app-eu.acme.example/who\nauthorization: Bearer at\n"
    );
    let unknown = rendered("client_credentials", &text, &[]);
    assert!(unknown.api.base_url.is_none() && unknown.userinfo.is_none() && unknown.lookups[0].url.is_none());
    let definition = definition("client_credentials", &text);
    // Until then the issuer's own word counts.
    let document: Metadata = serde_json::from_value(serde_json::json!({"issuer": "https://id.example",
        "userinfo_endpoint": "https://id.example/u"}))
    .unwrap();
    let discovered = definition.render(&definition.methods[0], &Values::new(), &choice(), Some(&document)).unwrap();
    assert_eq!(discovered.userinfo.unwrap().url.as_str(), "https://id.example/u");
    for host in [
        "evil.example",
        "acme.example",
        "evil.example/.acme.example",
        "evil.example#.acme.example",
        "a@eu.acme.example",
        "eu.acme.example:8443",
        "eu.acme.example.",
        "[::1]",
        "eu.acme.example\\@evil.example",
        "",
    ] {
        let rendered = definition.render(&definition.methods[0], &values(&[("reply.host", host)]), &choice(), None);
        assert!(rendered.map_or(true, |rendered| host.is_empty() && rendered.api.base_url.is_none()), "{host}");
    }
}

#[test]
fn one_choice_sets_several_values() {
    let text = "[variables.region]\ndefault = \"us\"\n\
        choices = { us = { label = \"America\", app = \"app.acme.example\", api = \"https://api.acme.example\", scope = \"a b\" }, eu = { label = \"Europe\", app = \"app.eu.acme.example\", api = \"https://api.eu.acme.example\", scope = \"c\" } }\n\
        [authorize]\nurl = \"https://{{region.app}}/oauth\"\nparams = { s = \"{{region.scope}}\" }\n\
        [token]\nurl = \"{{region.api}}/t\"\nclient_auth = \"none\"\n\
        [api]\nbase_url = \"{{region.api}}\"\nhosts = [\"{{region.app}}\"]\n";
    for (region, dot, scope) in [("us", "", "a%20b"), ("eu", ".eu", "c")] {
        let rendered = rendered("authorization_code", text, &[("region", region)]);
        assert_eq!(
            address(&rendered),
            format!(
                "https://app{dot}.acme.example/oauth?response_type=code&client_id=id-1&redirect_uri=https%3A%2F%2Fk.example%2Fcb&state=st&s={scope}"
            )
        );
        assert_eq!(rendered.token.url.as_str(), format!("https://api{dot}.acme.example/t"));
        assert_eq!(rendered.api.hosts, [format!("app{dot}.acme.example"), format!("api{dot}.acme.example")]);
    }
    assert_eq!(rendered("authorization_code", text, &[]).token.url.as_str(), "https://api.acme.example/t");
    let optional = text.replace("default = \"us\"", "presence = \"optional\"");
    let definition = definition("authorization_code", &optional);
    let error = definition.render(&definition.methods[0], &Values::new(), &choice(), None).unwrap_err();
    assert!(matches!(error, RenderError::NoEndpoint { .. }), "{error}");
}

#[test]
fn the_redirect_uri_in_a_renewal() {
    let text =
        format!("{TOKEN}[refresh]\nparams = {{ type = \"refresh\", redirect_uri = \"{{{{redirect_uri}}}}\" }}\n");
    let with = Choice { redirect_uri: Some("https://k.example/cb".into()), ..choice() };
    let refresh_token = Secret::new("rt");
    let grant = Grant::RefreshToken { refresh_token: &refresh_token };
    assert_eq!(
        sent(&rendered_with("client_credentials", &text, &[], &with).refresh, &grant, None),
        "POST https://as.example/t\ngrant_type=refresh_token&refresh_token=rt&type=refresh&redirect_uri=https%3A%2F%2Fk.example%2Fcb&client_id=id-1&client_secret=hush"
    );
    assert!(!sent(&rendered("client_credentials", &text, &[]).refresh, &grant, None).contains("redirect_uri"));
}

#[test]
fn a_hash_over_the_code() {
    let text = format!(
        "{TOKEN}rename = {{ code = \"c\" }}\nparams = {{ hash = \"{{{{computed.code}}}}\" }}\ndrop = [\"client_secret\"]\n\
         [refresh]\nparams = {{ hash = \"{{{{computed.refresh}}}}\", never = \"{{{{computed.code}}}}\" }}\n\
         [computed.code]\nhash = \"sha256\"\nover = \"{{{{client_secret}}}}|{{{{params.code}}}}\"\n\
         [computed.refresh]\nhash = \"sha1\"\nover = \"{{{{params.refresh_token}}}}\"\nencoding = \"base64\"\n"
    );
    let rendered = rendered("client_credentials", &text, &[]);
    let code = Secret::new("c/1");
    let grant = Grant::AuthorizationCode { code: &code, redirect_uri: "https://k.example/cb", verifier: None };
    assert_eq!(
        sent(&rendered.token, &grant, None),
        // printf 'hush|c/1' | sha256sum
        "POST https://as.example/t\ngrant_type=authorization_code&c=c%2F1&redirect_uri=https%3A%2F%2Fk.example%2Fcb&hash=df8579ed3fbda4f88636def34fbcba563830fd143be026e12661f68d4bec7bcd&client_id=id-1"
    );
    let refresh_token = Secret::new("rt");
    assert_eq!(
        sent(&rendered.refresh, &Grant::RefreshToken { refresh_token: &refresh_token }, None),
        // printf rt | openssl sha1 -binary | base64
        "POST https://as.example/t\ngrant_type=refresh_token&refresh_token=rt&hash=%2FQHA15FvbB%2FU46PYsQy97tV0Yyw%3D&client_id=id-1"
    );
    assert!(!format!("{:?}", rendered.token).contains("hush"));
    // Without a request's parameters it is a value like any other.
    let plain =
        token("params = { h = \"{{computed.h}}\" }\n[computed.h]\nhash = \"sha512\"\nover = \"{{client_id}}\"", &[]);
    let sha512 =
        keyholder_oauth::Encoding::Hex.encode(&keyholder_oauth::hash_of(keyholder_oauth::Hash::Sha512, b"id-1"));
    assert_eq!(
        plain,
        format!(
            "POST https://as.example/t\ngrant_type=client_credentials&h={sha512}&client_id=id-1&client_secret=hush"
        )
    );
}

#[test]
fn a_verifying_call_with_a_body() {
    let verify = |more: &str| {
        let text = format!(
            "{TOKEN}[api]\nbase_url = \"https://api.example/v1\"\nverify = {{ method = \"POST\", path = \"/graphql\", {more} }}\n"
        );
        rendered("client_credentials", &text, &[]).api.verify.unwrap()
    };
    let shown = |verify: &Verify| {
        let (content_type, body) = verify.body()?;
        Some(format!("{}\n{}", content_type.to_str().unwrap(), std::str::from_utf8(body.expose()).unwrap()))
    };
    let graphql = verify("headers = { X-A = \"{{client_id}}\" }, params = { query = \"{ viewer { id } }\", n = 1 }");
    assert_eq!(graphql.headers[0].1, "id-1");
    assert_eq!(shown(&graphql).unwrap(), "application/json\n{\"query\":\"{ viewer { id } }\",\"n\":1}");
    let form = verify("body = \"form\", params = { a = \"b c\" }");
    assert_eq!(shown(&form).unwrap(), "application/x-www-form-urlencoded\na=b+c");
    assert_eq!(shown(&verify("expect = { pointer = \"/ok\", exists = true }")), None);
}

#[test]
fn how_replies_are_read() {
    let text = format!(
        "{TOKEN}[token.reply]\naccess_token = \"/data/access_token\"\nexpires_in = \"/data/expires\"\nexpiry = \"unix_ms\"\n\
         error_when = {{ pointer = \"/code\", not_equals = 0 }}\nerror = \"code\"\nerror_description = \"message\"\n\
         dead = [40105, \"AADSTS7000*\"]\n\
         [token.secondary.user]\naccess_token = \"/data/user/token\"\nexpiry = \"never\"\n"
    );
    let rendered = rendered("client_credentials", &text, &[]);
    let read = |body: &str| read_token_reply(&rendered.reply, 200, &HeaderMap::new(), body.as_bytes(), AT.now_ms);
    let set = read(r#"{"code":0,"data":{"access_token":"a","expires":1700000060000,"user":{"token":"u"}}}"#).unwrap();
    assert_eq!((set.access_token.expose(), set.expires_at), ("a", Some(1_700_000_060_000)));
    assert_eq!((set.secondary["user"].access_token.expose(), set.secondary["user"].expires_at), ("u", None));
    assert_eq!(read(r#"{"code":40105,"message":"gone","data":{}}"#).unwrap_err().kind, FailureKind::Grant);
    let chosen = Choice { token_key: Some("/jwt".into()), ..choice() };
    let own = rendered_with("client_credentials", TOKEN, &[], &chosen);
    assert_eq!((own.reply.access_token.as_str(), own.refresh_reply.access_token.as_str()), ("/jwt", "/jwt"));
}

#[test]
fn an_integration_chooses_what_the_body_of_token_requests_is() {
    let body = |text: &str, body: Option<BodyFormat>| {
        let rendered = rendered_with("client_credentials", text, &[], &Choice { body, ..choice() });
        (rendered.token.body, rendered.refresh.body)
    };
    let (form, json) = (BodyFormat::Form, BodyFormat::Json);
    assert_eq!(body(TOKEN, None), (form.clone(), form.clone()));
    assert_eq!(body(TOKEN, Some(json.clone())), (json.clone(), json.clone()));
    let text = format!("{TOKEN}body = \"json\"\n");
    assert_eq!(body(&text, Some(form.clone())), (form.clone(), form.clone()));
    let text =
        format!("{TOKEN}body = {{ content_type = \"text/xml\", template = \"<a>{{{{params.grant_type}}}}</a>\" }}\n");
    assert!(matches!(body(&text, Some(json)).0, BodyFormat::Template(_)));
}

#[test]
fn where_the_token_goes() {
    let text = format!(
        "{TOKEN}[token.secondary.user]\naccess_token = \"/u\"\n[api]\nbase_url = \"https://api.example/v1\"\n\
         token = [{{ name = \"X-Token\" }}, {{ in = \"query\" }}, {{ in = \"body\", name = \"t\", token = \"user\" }}]\n\
         headers = {{ Client-Id = \"{{{{client_id}}}}\" }}\nquery = {{ appsecret_proof = \"{{{{computed.proof}}}}\" }}\n\
         verify = {{ method = \"POST\", path = \"/check?full=1\", expect = {{ pointer = \"/ok\", equals = true }} }}\n\
         expired_when = [{{ status = 403 }}, {{ status = 200, pointer = \"/error/code\", equals = 190 }}]\n\
         [api.limits]\nper_second = 2.5\nconcurrent = 3\nremaining_header = \"X-Remaining\"\nreset_header = \"X-Reset\"\nreset_unit = \"unix\"\ntimeout_header = \"X-Timeout\"\ntimeout_unit = \"ms\"\n\
         [computed.proof]\nhmac = \"sha256\"\nkey = \"{{{{client_secret}}}}\"\nover = \"{{{{access_token}}}}\"\n"
    );
    let set = token_set(r#"{"access_token":"at"}"#);
    let with_tokens = Choice { tokens: Some((&set).into()), header_prefix: Some("OAuth".into()), ..choice() };
    let api = rendered_with("client_credentials", &text, &[], &with_tokens).api;
    assert_eq!(api.header(), Some((&HeaderName::from_static("x-token"), "OAuth")));
    assert_eq!(api.credentials(&set).unwrap_err(), RenderError::MissingToken { name: "user".into() });
    let rules = rendered("client_credentials", &text, &[]).reply;
    let set = read_token_reply(&rules, 200, &HeaderMap::new(), br#"{"access_token":"at","u":"ut"}"#, 0).unwrap();
    let credentials = api.credentials(&set).unwrap();
    assert_eq!(credentials.headers[0].1, "OAuth at");
    assert!(credentials.headers[0].1.is_sensitive());
    assert_eq!((credentials.query.value("access_token"), credentials.body.value("t")), (Some("at"), Some("ut")));
    assert!(!format!("{credentials:?}").contains("ut\""));
    let proof =
        keyholder_oauth::Encoding::Hex.encode(&keyholder_oauth::hmac_of(keyholder_oauth::Hash::Sha256, b"hush", b"at"));
    assert_eq!(api.query.value("appsecret_proof"), Some(proof.as_str()));
    assert_eq!(api.headers[0].1, "id-1");
    let verify = api.verify.as_ref().unwrap();
    assert_eq!((verify.method.as_str(), verify.path.as_str()), ("POST", "/check?full=1"));
    assert_eq!((api.limits.per_second, api.limits.concurrent), (Some(2.5), Some(3)));
    assert_eq!(
        (api.limits.timeout_header.as_ref(), api.limits.timeout_unit.of(Duration::from_millis(1500))),
        (Some(&HeaderName::from_static("x-timeout")), 1500)
    );
    assert_eq!([0, 1, 1000, 1001].map(|ms| TimeoutUnit::Seconds.of(Duration::from_millis(ms))), [1, 1, 1, 2]);
    for (status, body, expired) in [
        (401, "", true),
        (403, "", true),
        (200, r#"{"error":{"code":190}}"#, true),
        (200, r#"{"error":{"code":1}}"#, false),
        (400, r#"{"error":{"code":190}}"#, false),
        (200, "<", false),
    ] {
        assert_eq!(api.has_expired(status, body.as_bytes()), expired, "{status} {body}");
    }
    assert_eq!(rendered("client_credentials", TOKEN, &[]).api.token[0].place, PlaceOfToken::Header(AUTHORIZATION));
}

#[test]
fn what_is_learnt_after_connecting() {
    let text = format!(
        "{TOKEN}[api]\nbase_url = \"https://api.example/ex/{{{{lookup.cloud_id}}}}\"\nheaders = {{ tenant = \"{{{{lookup.tenant}}}}\" }}\n\
         [[after_connect]]\nname = \"sites\"\nurl = \"https://api.example/sites?all=1\"\nheaders = {{ X-V = \"1\" }}\nquery = {{ b = \"2 3\" }}\nextract = {{ cloud_id = \"/id\" }}\nwhere = {{ pointer = \"/name\", equals = \"b\" }}\n\
         [[after_connect]]\npath = \"/tenants/{{{{reply.user}}}}\"\nlist = \"/items\"\nchoose = {{ value = \"/id\", label = \"/name\", save = \"tenant\" }}\nextract = {{ kind = \"/kind\" }}\nrefresh = true\nmethod = \"POST\"\nparams = {{ k = \"v\", n = 1 }}\n\
         [[after_connect]]\nurl = \"https://api.example/kind/{{{{lookup.kind}}}}\"\nextract = {{ last = \"/0\" }}\nrequired = false\n\
         [userinfo]\nurl = \"https://api.example/me/{{{{lookup.last}}}}\"\nname = \"/profile/login\"\n"
    );
    let set = token_set(r#"{"access_token":"at"}"#);
    let first = rendered("client_credentials", &text, &[("reply.user", "a/b")]);
    assert_eq!(
        (first.lookups.len(), first.lookups[0].name.as_str(), first.lookups[1].name.as_str()),
        (3, "sites", "lookup 2")
    );
    assert_eq!(
        bytes(&first.lookups[0].request(&first.api, &set).unwrap().unwrap()),
        "GET https://api.example/sites?all=1&b=2+3\nx-v: 1\nauthorization: Bearer at\n"
    );
    assert!(first.lookups[1].request(&first.api, &set).unwrap().is_none() && first.api.base_url.is_none());
    let learnt = first.lookups[0].read(200, br#"[{"name":"a","id":1},{"name":"b","id":"c/2"}]"#).unwrap();
    assert_eq!(learnt, Learnt::Values(values(&[("lookup.cloud_id", "c/2")])));
    assert!(matches!(first.lookups[0].read(200, b"[]"), Err(LookupError::Missing { .. })));
    assert!(matches!(first.lookups[0].read(403, b"[]"), Err(LookupError::Status { status: 403, .. })));
    assert!(matches!(first.lookups[0].read(200, b"<"), Err(LookupError::NotJson { .. })));

    let second = rendered("client_credentials", &text, &[("reply.user", "a/b"), ("lookup.cloud_id", "c/2")]);
    assert_eq!(second.api.base_url.as_ref().unwrap().as_str(), "https://api.example/ex/c%2F2");
    let lookup = &second.lookups[1];
    assert_eq!(
        bytes(&lookup.request(&second.api, &set).unwrap().unwrap()),
        "POST https://api.example/ex/c%2F2/tenants/a%2Fb\ncontent-type: application/json\nauthorization: Bearer at\n{\"k\":\"v\",\"n\":1}"
    );
    let one = br#"{"items":[{"id":7,"name":"Seven","kind":"x"}]}"#;
    assert_eq!(lookup.read(200, one).unwrap(), Learnt::Values(values(&[("lookup.kind", "x"), ("lookup.tenant", "7")])));
    let two = br#"{"items":[{"id":7,"name":"Seven","kind":"x"},{"id":8,"kind":"y"},{"name":"none"}]}"#;
    let Learnt::Choose(choices) = lookup.read(200, two).unwrap() else { panic!("a person must choose") };
    let shown: Vec<_> = choices.iter().map(|choice| (choice.value.as_str(), choice.label.as_str())).collect();
    assert_eq!(shown, [("7", "Seven"), ("8", "8")]);
    assert_eq!(lookup.chosen(200, two, "8").unwrap(), values(&[("lookup.kind", "y"), ("lookup.tenant", "8")]));
    assert!(lookup.chosen(200, two, "9").is_err() && lookup.refresh);
    assert_eq!(second.lookups[2].read(500, b"").unwrap(), Learnt::Values(Values::new()));

    let all = [("lookup.cloud_id", "c"), ("lookup.kind", "x"), ("lookup.tenant", "7"), ("lookup.last", "l")];
    let last = rendered("client_credentials", &text, &all);
    let userinfo = last.userinfo.unwrap();
    assert_eq!(
        bytes(&userinfo.request(&last.api, &set).unwrap()),
        "GET https://api.example/me/l\ntenant: 7\nauthorization: Bearer at\n"
    );
    let account = userinfo.read(br#"{"sub":"1","profile":{"login":"ann"},"email":"a@b.example"}"#);
    assert_eq!(
        account,
        Account { account: Some("1".into()), name: Some("ann".into()), email: Some("a@b.example".into()) }
    );
    assert_eq!(userinfo.read(b"<"), Account::default());
}

#[test]
fn a_lookup_never_widens_the_hosts() {
    let text = format!(
        "{TOKEN}[api]\nbase_url = \"{{{{lookup.base}}}}/restapi\"\nhosts = [\"*.acme.example\"]\n\
         [[after_connect]]\nurl = \"https://acme.example/who\"\nextract = {{ base = \"/base_uri\" }}\n"
    );
    let definition = definition("client_credentials", &text);
    let render =
        |base: &str| definition.render(&definition.methods[0], &values(&[("lookup.base", base)]), &choice(), None);
    assert_eq!(
        render("https://eu.acme.example/x/").unwrap().api.base_url.unwrap().as_str(),
        "https://eu.acme.example/x/restapi"
    );
    for base in [
        "https://evil.example",
        "https://acme.example.evil.example",
        "http://eu.acme.example",
        "https://eu.acme.example?x",
        "https://a@eu.acme.example",
    ] {
        assert!(render(base).is_err(), "{base}");
    }
}

#[test]
fn registering_by_program() {
    let text = format!(
        "{TOKEN}[register]\nurl = \"https://as.example/r\"\nheaders = {{ Authorization = \"Bearer {{{{initial}}}}\" }}\nparams = {{ client_name = \"Keyholder\", grant_types = [\"authorization_code\"] }}\n[variables.initial]\nsecret = true\n"
    );
    let register = rendered("client_credentials", &text, &[("initial", "i")]).register.unwrap();
    assert_eq!(register.url.as_str(), "https://as.example/r");
    assert!(register.headers[0].1.is_sensitive());
    assert_eq!(
        serde_json::json!(register.metadata),
        serde_json::json!({"client_name": "Keyholder", "grant_types": ["authorization_code"]})
    );
}

/// A definition in which everything that steers an address comes from outside.
fn steered() -> Definition {
    definition(
        "authorization_code",
        "[variables.shop]\nkind = \"host\"\npattern = '[a-z0-9-]+'\n\
         [variables.server]\nkind = \"url\"\n\
         [variables.any]\npresence = \"optional\"\n\
         [authorize]\nurl = \"https://{{shop}}.shop.example/{{any}}?q={{any}}\"\n\
         [token]\nurl = \"{{server}}/t/{{any}}?q={{any}}\"\nclient_auth = \"none\"\nheaders = { X-Any = \"{{any}}\" }\nparams = { p = \"{{any}}\", s = \"{{computed.s}}\" }\n\
         body = { content_type = \"application/json\", template = '{\"a\":\"{{any}}\",\"i\":\"{{params.client_id}}\"}' }\n\
         [callback.capture]\nzone = { parameter = \"zone\", kind = \"host\", pattern = '(eu|us)' }\n\
         [refresh]\nurl = \"https://{{callback.zone}}.acme.example/t\"\nheaders = { X-Reply = \"{{reply.any}}\" }\n\
         [revoke]\nurl = \"https://acme.example/{{reply.any}}/r?x={{lookup.any}}\"\n\
         [api]\nbase_url = \"{{reply.any}}/v/{{lookup.any}}\"\nhosts = [\"*.acme.example\"]\nverify = \"/{{lookup.any}}?y={{lookup.any}}\"\n\
         [[after_connect]]\nurl = \"{{reply.any}}/w\"\nextract = { any = \"/any\" }\n\
         [computed.s]\nbase64 = \"{{any}}\"\n",
    )
}

fn nasty() -> impl proptest::strategy::Strategy<Value = String> {
    proptest::prop_oneof![
        ".*",
        "[a-zA-Z0-9.-]{0,20}",
        "(https?:)?[/\\\\]{0,2}[a-z@:%#?.0-9]{0,20}",
        "https://[a-z@:%#?./\\\\]{0,20}\\.acme\\.example[a-z@:%#?./\\\\]{0,10}",
        "[/@#?\\\\:%.\r\n\t \u{ff0e}\u{3002}\u{2044}a0\"<&]{1,12}",
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    #[test]
    fn no_value_changes_a_host(shop in nasty(), server in nasty(), any in nasty(), zone in nasty(), said in nasty()) {
        let definition = steered();
        let server = if server.is_empty() { "https://s.example" } else { &server };
        let all = values(&[
            ("shop", &shop), ("server", server), ("any", &any), ("callback.zone", &zone), ("reply.any", &said), ("lookup.any", &any),
        ]);
        check_hosts(&definition, &all);
        // And with one at a time, so that the others don't refuse first.
        for (name, value) in &all {
            let mut one = values(&[("shop", "a"), ("server", "https://s.example")]);
            one.insert(name.clone(), value.clone());
            check_hosts(&definition, &one);
        }
    }

    #[test]
    fn no_template_panics(text in nasty(), more in "[{}a-z._/:?#]{0,30}") {
        for text in [format!("https://{more}"), more, text] {
            let _ = crate::template::UrlTemplate::parse(&text);
            let _ = crate::template::PathTemplate::parse(&text);
            let _ = crate::template::Template::parse(&text);
        }
    }
}

fn check_hosts(definition: &Definition, values: &Values) {
    let Ok(rendered) = definition.render(&definition.methods[0], values, &choice(), None) else { return };
    let host = |url: &Url| url.host_str().unwrap().to_owned();
    let authorize = rendered.authorize.unwrap().url;
    assert_eq!(host(&authorize), format!("{}.shop.example", values["shop"]), "{authorize}");
    assert!(authorize.path_segments().unwrap().count() == 1 && authorize.query_pairs().count() == 1, "{authorize}");
    let server = Url::parse(&values["server"]).unwrap();
    assert_eq!((host(&rendered.token.url), rendered.token.url.port()), (host(&server), server.port()));
    match values.get("callback.zone").filter(|zone| !zone.is_empty()) {
        Some(zone) => assert_eq!(host(&rendered.refresh.url), format!("{zone}.acme.example")),
        None => assert_eq!(rendered.refresh.url, rendered.token.url),
    }
    assert!(rendered.revoke.is_none_or(|revoke| host(&revoke.endpoint.url) == "acme.example"));
    for url in rendered.api.base_url.iter().chain(rendered.lookups[0].url.iter()) {
        assert!(host(url).ends_with(".acme.example") && url.username().is_empty() && url.fragment().is_none(), "{url}");
    }
    if let Some(verify) = rendered.api.verify {
        let url = Url::parse(&format!("https://acme.example{}", verify.path)).unwrap();
        assert!(host(&url) == "acme.example" && url.path_segments().unwrap().count() == 1, "{url}");
    }
    if let Ok(request) = token_request(&rendered.token, &client(), &Grant::ClientCredentials, None, &AT) {
        let body: serde_json::Value = serde_json::from_slice(request.body().expose()).unwrap();
        assert_eq!(body["a"].as_str().unwrap(), values.get("any").map_or("", String::as_str));
        assert_eq!(body["i"], "id-1");
    }
}
