//! Each capability of the provider language, run by the broker against the sandbox in the part of the provider; and the proof that the sandbox
//! would have noticed: a client that follows another definition than the one that is played fails.

use keyholder::rehearsal::Rehearsal;

/// What all cases build on.
const BASE: &str = r#"
schema = 1
id = "acme"
name = "Acme"

[[methods]]
grant = "authorization_code"

[scopes]
default = ["read", "write:all"]

[authorize]
url = "https://login.acme.example/authorize"

[token]
url = "https://login.acme.example/token"

[revoke]
url = "https://login.acme.example/revoke"

[api]
base_url = "https://api.acme.example/v1"
verify = "/me"
"#;

/// A capability: its name, the definition that is played, and definitions that a client may not follow instead.
type Case = (&'static str, &'static str, &'static [&'static str]);

const MACHINE: &str = "methods = [{ grant = \"client_credentials\" }]\n";

const CASES: &[Case] = &[
    ("as the standards have it", "", &["token = { client_auth = 'post' }"]),
    // Client authentication.
    (
        "client_auth basic",
        "token = { client_auth = 'basic' }",
        &["token = { client_auth = 'post' }", "token = { client_auth = 'raw_basic' }"],
    ),
    ("client_auth raw_basic", "token = { client_auth = 'raw_basic' }", &["token = { client_auth = 'basic' }"]),
    ("client_auth post", "token = { client_auth = 'post' }", &["", "token = { client_auth = 'json' }"]),
    ("client_auth json", "token = { client_auth = 'json' }", &["token = { client_auth = 'post' }"]),
    ("client_auth query", "token = { client_auth = 'query' }", &["token = { client_auth = 'post' }"]),
    ("client_auth none", "token = { client_auth = 'none' }", &["token = { client_auth = 'post' }"]),
    (
        "client_auth client_secret_jwt",
        "token = { client_auth = 'client_secret_jwt' }",
        &["token = { client_auth = 'post' }"],
    ),
    (
        "client_auth private_key_jwt",
        "token = { client_auth = 'private_key_jwt' }",
        &[
            "token = { client_auth = 'client_secret_jwt' }",
            "token = { client_auth = 'private_key_jwt', client_assertion = { audience = 'https://other.example' } }",
        ],
    ),
    (
        "client_assertion",
        "token = { client_auth = 'private_key_jwt', client_assertion = { audience = 'https://login.acme.example', algorithm = 'ES256', lifetime = '5m', header = { kid = 'k1' }, claims = { env = 'test' } } }",
        &[
            "token = { client_auth = 'private_key_jwt', client_assertion = { audience = 'https://login.acme.example', algorithm = 'ES256', lifetime = '5m', header = { kid = 'k2' }, claims = { env = 'test' } } }",
            "token = { client_auth = 'private_key_jwt', client_assertion = { audience = 'https://login.acme.example', algorithm = 'ES256', header = { kid = 'k1' }, claims = { env = 'test' } } }",
        ],
    ),
    ("client_auth of one phase", "revoke = { client_auth = 'post' }", &[""]),
    // Requests.
    ("method GET", "token = { method = 'GET', client_auth = 'post' }", &["token = { client_auth = 'post' }"]),
    ("body json", "token = { body = 'json' }", &[""]),
    ("body query", "token = { body = 'query' }", &[""]),
    (
        "body template",
        "token = { client_auth = 'post' }\nrefresh = { body = { content_type = 'application/xml', template = '<r><t>{{params.refresh_token}}</t><s>{{params.client_secret}}</s></r>' } }",
        &[
            "token = { client_auth = 'post' }",
            "token = { client_auth = 'post' }\nrefresh = { body = { content_type = 'application/xml', template = '<r><t>{{params.refresh_token}}</t></r>' } }",
        ],
    ),
    ("headers", "token = { headers = { X-Version = '7' } }", &["", "token = { headers = { X-Version = '8' } }"]),
    ("query", "token = { query = { v = '7' } }", &["", "token = { params = { v = '7' } }"]),
    (
        "params",
        "token = { params = { audience = 'https://a.example/?x=1' } }",
        &["", "token = { params = { audience = 'x' } }"],
    ),
    (
        "typed params",
        "token = { body = 'json', params = { all = true, n = 3, list = ['a'] } }",
        &["token = { body = 'json', params = { all = 'true', n = 3, list = ['a'] } }"],
    ),
    (
        "rename and drop",
        "authorize = { rename = { client_id = 'client_key' }, drop = ['response_type'] }\ntoken = { client_auth = 'post', rename = { client_id = 'client_key', client_secret = 'key' } }",
        &["token = { client_auth = 'post' }"],
    ),
    (
        "refresh has its own params",
        "refresh = { params = { again = 'yes' } }",
        &["", "refresh = { params = { again = 'yes' } }\ntoken = { params = { again = 'yes' } }"],
    ),
    ("refresh url", "refresh = { url = 'https://login.acme.example/renew' }", &[""]),
    ("sends_scope", "refresh = { sends_scope = true }", &[""]),
    // Scopes.
    ("scope separator", "scopes = { separator = ',' }", &[""]),
    ("scope parameter", "scopes = { parameter = 'permissions' }", &[""]),
    (
        "scopes as an array",
        "methods = [{ grant = 'client_credentials' }]\ntoken = { body = 'json' }\nscopes = { format = 'array' }",
        &["methods = [{ grant = 'client_credentials' }]\ntoken = { body = 'json' }"],
    ),
    ("scopes one by one", "scopes = { format = 'repeat' }", &[""]),
    ("scopes that are always asked for", "scopes = { always = ['offline'] }", &[""]),
    (
        "a second list of scopes",
        "scopes = { separator = ',' }\nauthorize = { params = { user_scope = '{{more}}' } }\nvariables = { more = { kind = 'scopes' } }",
        &["scopes = { separator = ',' }"],
    ),
    // The authorization request and its answer.
    ("pkce off", "authorize = { pkce = 'off' }", &[""]),
    ("pkce required", "authorize = { pkce = 'required' }", &["authorize = { pkce = 'off' }"]),
    (
        "nonce",
        "scopes = { default = ['openid'] }\nauthorize = { nonce = true }",
        &["scopes = { default = ['openid'] }"],
    ),
    (
        "authorize params",
        "authorize = { params = { prompt = 'consent' } }",
        &["", "authorize = { params = { prompt = 'none' } }"],
    ),
    (
        "scope_params",
        "authorize = { scope_params = { 'write:all' = { admin = '1' }, other = { not = 'sent' } } }",
        &[""],
    ),
    (
        "callback issuer",
        "callback = { issuer = 'https://login.acme.example', issuer_required = true }",
        &["callback = { issuer = 'https://other.example' }"],
    ),
    ("callback rename", "callback = { rename = { code = 'acme_code', state = 'acme_state' } }", &[""]),
    ("callback strip_code_suffix", "callback = { strip_code_suffix = '#_' }", &[""]),
    ("callback form_post", "callback = { response_mode = 'form_post' }", &[""]),
    (
        "callback capture",
        "callback = { capture = { realm = { parameter = 'realmId', pattern = '[0-9]+' } } }\nrefresh = { params = { realm = '{{callback.realm}}' } }",
        &[
            "",
            "callback = { capture = { realm = { parameter = 'realmId', pattern = '[a-z]+' } } }\nrefresh = { params = { realm = '{{callback.realm}}' } }",
        ],
    ),
    (
        "callback capture of an address",
        "callback = { capture = { server = { parameter = 'accounts-server', kind = 'url', pattern = 'https://eu\\.acme\\.example' } } }\nrefresh = { url = '{{callback.server}}/token' }",
        &[""],
    ),
    (
        "callback signature",
        "callback = { signature = { parameter = 'hmac', key = '{{client_secret}}' } }",
        &[
            "callback = { signature = { parameter = 'hmac', key = '{{client_secret}}x' } }",
            "callback = { signature = { parameter = 'hmac', algorithm = 'hmac_sha512', key = '{{client_secret}}' } }",
        ],
    ),
    (
        "callback signature of the query as it came",
        "callback = { capture = { first = 'a_first' }, signature = { parameter = 'sig', key = '{{client_secret}}', algorithm = 'hmac_sha1', encoding = 'base64', over = 'query' } }",
        &[
            "callback = { capture = { first = 'a_first' }, signature = { parameter = 'sig', key = '{{client_secret}}', algorithm = 'hmac_sha1', encoding = 'base64' } }",
        ],
    ),
    // Replies.
    (
        "reply places",
        "token = { reply = { access_token = '/data/accessToken', refresh_token = '/data/refreshToken', expires_in = '/data/expiresIn', scope = '/data/scopes', token_type = '/data/type' } }",
        &[""],
    ),
    ("expiry in milliseconds", "token = { reply = { expiry = 'milliseconds' } }", &[""]),
    ("expiry in seconds since 1970", "token = { reply = { expiry = 'unix' } }", &[]),
    ("expiry in milliseconds since 1970", "token = { reply = { expiry = 'unix_ms' } }", &[]),
    ("expiry as a date", "token = { reply = { expires_at = '/data/until', expiry = 'date' } }", &[""]),
    ("expiry of the token itself", "token = { reply = { expiry = 'jwt' } }", &[""]),
    ("no expiry", "token = { reply = { expiry = 'never' } }", &["token = { reply = { default_lifetime = '2h' } }"]),
    ("default_lifetime", "token = { reply = { default_lifetime = '2h' } }", &[""]),
    ("success", "token = { reply = { success = { pointer = '/ok', equals = true } } }", &[]),
    (
        "error_when",
        "token = { reply = { error_when = { pointer = '/code', not_equals = 0 }, error = '/code', error_description = '/message' } }",
        &[],
    ),
    (
        "a secondary token",
        "token = { secondary = { user = { access_token = '/authed_user/access_token' } } }\napi = { token = { token = 'user' } }",
        &[""],
    ),
    ("introspection tells the expiry", "introspect = { url = 'https://login.acme.example/introspect' }", &[""]),
    // Renewal.
    ("recovery static", "refresh = { recovery = 'static' }", &[]),
    ("recovery window", "refresh = { recovery = 'window', window = '60s' }", &[]),
    ("recovery until_used", "refresh = { recovery = 'until_used' }", &[]),
    ("recovery family", "refresh = { recovery = 'family' }", &[]),
    ("recovery access_dies", "refresh = { recovery = 'access_dies' }", &[]),
    ("an access token that extends itself", "refresh = { with = 'access_token' }", &[""]),
    ("min_age", "refresh = { min_age = '24h' }", &[]),
    (
        "follow_up",
        "follow_up = { method = 'GET', params = { grant_type = 'long', short = '{{access_token}}' } }\nrefresh = { with = 'access_token' }",
        &["refresh = { with = 'access_token' }"],
    ),
    (
        "follow_up when there is no refresh token",
        "follow_up = { when = 'missing_refresh', params = { grant_type = 'long', short = '{{access_token}}' } }\nrefresh = { recovery = 'static' }",
        &["refresh = { recovery = 'static' }"],
    ),
    ("revocation of the access token", "revoke = { token = 'access_token' }", &[""]),
    ("no revocation", "revoke = false", &[]),
    // With a token.
    (
        "userinfo",
        "userinfo = { url = 'https://login.acme.example/me?fields=id', account = '/id', headers = { X-Want = 'id' } }",
        &["userinfo = { url = 'https://login.acme.example/me', account = '/id' }"],
    ),
    ("token in a header of its own", "api = { token = { name = 'X-Token' } }", &[""]),
    ("token with another prefix", "api = { token = { prefix = 'Zoho-oauthtoken' } }", &[""]),
    ("token in the query", "api = { token = { in = 'query', name = 'token' } }", &[""]),
    (
        "token in several places",
        "api = { token = [{ name = 'X-Token' }, { in = 'query', name = 'token' }] }",
        &["api = { token = { name = 'X-Token' } }"],
    ),
    (
        "api headers and query",
        "api = { headers = { Client-Id = '{{client_id}}' }, query = { proof = '{{computed.proof}}' } }\ncomputed = { proof = { hmac = 'sha256', key = '{{client_secret}}', over = '{{access_token}}' } }",
        &["", "api = { headers = { Client-Id = '{{client_id}}' } }"],
    ),
    (
        "verify",
        "api = { verify = { method = 'POST', path = '/ping', expect = { pointer = '/ok', equals = true } } }",
        &[
            "api = { verify = { path = '/ping', expect = { pointer = '/ok', equals = true } } }",
            "api = { verify = { method = 'POST', path = '/ping', expect = { pointer = '/ok', equals = false } } }",
        ],
    ),
    ("expired_when", "api = { expired_when = { status = 200, pointer = '/error/code', equals = 190 } }", &[""]),
    ("expired_when, by the status alone", "api = { expired_when = { status = 403 } }", &[""]),
    ("base_url from the reply", "api = { base_url = '{{reply.instance}}/v1', hosts = ['*.acme.example'] }", &[""]),
    (
        "after_connect",
        "api = { base_url = '{{lookup.site}}/v1', hosts = ['*.acme.example'] }\nafter_connect = [{ url = 'https://login.acme.example/sites', extract = { site = '/sites/0/url' } }]",
        &[""],
    ),
    (
        "after_connect, the first item that fits",
        "after_connect = [{ path = '/accounts', list = '/items', where = { pointer = '/main', equals = true }, extract = { account = '/id' } }]\napi = { headers = { X-Account = '{{lookup.account}}' } }",
        &[
            "after_connect = [{ path = '/accounts', extract = { account = '/items/0/id' } }]\napi = { headers = { X-Account = '{{lookup.account}}' } }",
        ],
    ),
    (
        "after_connect, a person chooses",
        "after_connect = [{ path = '/sites', list = '/sites', choose = { value = '/id', label = '/name', save = 'site' } }]\napi = { headers = { X-Site = '{{lookup.site}}' } }",
        &[""],
    ),
    (
        "after_connect, each with what those before it learnt",
        "after_connect = [{ path = '/me', extract = { user = '/id' } }, { path = '/users/{{lookup.user}}/site', method = 'POST', params = { q = 'x' }, extract = { site = '/site' }, refresh = true }]\napi = { headers = { X-Site = '{{lookup.site}}' } }",
        &[""],
    ),
    (
        "computed base64",
        "token = { client_auth = 'none', headers = { X-Pair = 'Pair {{computed.pair}}' } }\ncomputed = { pair = { base64 = '{{client_id}}:{{client_secret}}' } }",
        &["token = { client_auth = 'none' }"],
    ),
    (
        "computed jwt",
        "methods = [{ grant = 'jwt_bearer' }]\ntoken = { client_auth = 'none', params = { assertion = '{{computed.signed}}' } }\ncomputed = { signed = { jwt = { alg = 'RS256', key = '{{client_key}}', kid = 'k1', claims = { iss = '{{client_id}}', iat = 'now', exp = '+5m', jti = 'random' } } } }",
        &[
            "methods = [{ grant = 'jwt_bearer' }]\ntoken = { client_auth = 'none', params = { assertion = '{{computed.signed}}' } }\ncomputed = { signed = { jwt = { alg = 'RS256', key = '{{client_key}}', kid = 'k1', claims = { iss = '{{client_id}}', iat = 'now', exp = '+6m', jti = 'random' } } } }",
        ],
    ),
    // Grants and inputs.
    ("client_credentials", MACHINE, &[]),
    (
        "password",
        "methods = [{ grant = 'password' }]",
        &["methods = [{ grant = 'password' }]\ntoken = { rename = { username = 'user' } }"],
    ),
    ("refresh_token", "methods = [{ grant = 'refresh_token' }]", &[]),
    (
        "device_code",
        "methods = [{ grant = 'device_code' }]\ndevice = { url = 'https://login.acme.example/device' }",
        &["methods = [{ grant = 'device_code' }]\ndevice = { url = 'https://login.acme.example/other' }"],
    ),
    (
        "saml_bearer",
        "methods = [{ grant = 'saml_bearer' }]\ntoken = { params = { assertion = '{{saml}}' } }\nvariables = { saml = { secret = true } }",
        &[],
    ),
    (
        "token_exchange",
        "methods = [{ grant = 'token_exchange' }]\ntoken = { params = { subject_token = '{{subject}}', subject_token_type = 'urn:ietf:params:oauth:token-type:jwt' } }\nvariables = { subject = { secret = true, asked_of = 'connection' } }",
        &[
            "methods = [{ grant = 'token_exchange' }]\ntoken = { params = { subject_token = 'x{{subject}}', subject_token_type = 'urn:ietf:params:oauth:token-type:jwt' } }\nvariables = { subject = { secret = true, asked_of = 'connection' } }",
        ],
    ),
    (
        "grant_type fixed",
        "methods = [{ grant = 'client_credentials' }]\ninputs = { grant_type = { default = 'account_credentials', presence = 'fixed' } }",
        &[MACHINE],
    ),
    ("audience", "authorize = { params = { audience = '{{audience}}' } }", &[""]),
    (
        "variables in hosts, paths and queries",
        "authorize = { url = 'https://{{region}}.acme.example/{{account}}/authorize?a={{account}}' }\nvariables = { region = { kind = 'host', pattern = '[a-z]{2}' }, account = {} }",
        &[
            "authorize = { url = 'https://{{region}}.acme.example/{{account}}/authorize' }\nvariables = { region = { kind = 'host', pattern = '[a-z]{2}' }, account = {} }",
        ],
    ),
    (
        "values that follow from a choice",
        "authorize = { url = 'https://{{region.login}}/authorize' }\nvariables = { region = { choices = { eu = { label = 'Europe', login = 'eu.acme.example' }, us = { label = 'America', login = 'us.acme.example' } } } }",
        &[""],
    ),
    ("the redirect URI in a renewal", "refresh = { params = { back = '{{redirect_uri}}' } }", &[""]),
    (
        "a token endpoint that the callback names",
        "callback = { capture = { server = { parameter = 'server', kind = 'host', pattern = '(eu|login)\\.acme\\.example', default = 'login.acme.example' } } }\ntoken = { url = 'https://{{callback.server}}/token' }",
        &[""],
    ),
    ("a host out of the reply", "api = { base_url = 'https://{{reply.host}}/v1', hosts = ['*.acme.example'] }", &[""]),
    (
        "a hash over the code",
        "token = { params = { hash = '{{computed.proof}}' } }\ncomputed = { proof = { hash = 'sha256', over = '{{client_secret}}|{{params.code}}' } }",
        &[
            "",
            "token = { params = { hash = '{{computed.proof}}' } }\ncomputed = { proof = { hash = 'sha256', over = '{{client_secret}}{{params.code}}' } }",
        ],
    ),
    (
        "verify with a body",
        "api = { verify = { method = 'POST', path = '/graphql', headers = { X-Api = '3' }, params = { query = '{ viewer { id } }' }, expect = { pointer = '/data', exists = true } } }",
        &["api = { verify = { method = 'POST', path = '/graphql', params = { query = '{ viewer }' } } }"],
    ),
    (
        "a method says it in its own way",
        "methods = [{ grant = 'authorization_code', token = { client_auth = 'post', params = { x = '1' } } }]",
        &["methods = [{ grant = 'authorization_code', token = { client_auth = 'post' } }]"],
    ),
    (
        "discover",
        "discover = { issuer = 'https://id.acme.example/t1' }\nauthorize = { url = false }\ntoken = { url = false }\nrevoke = { url = false }",
        &[""],
    ),
    (
        "discover, where the document names another issuer",
        "discover = { issuer = 'https://id.acme.example/t1', documents = { 'https://id.acme.example/t1' = 'https://id.acme.example/{tenant}' } }\nauthorize = { url = false }\ntoken = { url = false }\nrevoke = { url = false }",
        &[
            "discover = { issuer = 'https://id.acme.example/t1' }\nauthorize = { url = false }\ntoken = { url = false }\nrevoke = { url = false }",
        ],
    ),
];

/// [`BASE`] without its person.
fn machine() -> String {
    let (begin, rest) = BASE.split_once("[authorize]").unwrap();
    let (_, rest) = rest.split_once("[token]").unwrap();
    format!("{begin}[token]{rest}").replace("authorization_code", "client_credentials").replace("acme\"", "machine\"")
}

/// The fragment as a definition that builds on [`BASE`], or on the machine's.
fn definition(id: &str, fragment: &str) -> String {
    let base =
        if fragment.contains("methods =") && !fragment.contains("authorization_code") { "machine" } else { "acme" };
    format!("schema = 1\nextends = \"{base}\"\nid = \"{id}\"\n{fragment}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_capability_is_run_and_its_absence_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Rehearsal::open(folder.path()).await.unwrap();
    stage.add("acme.toml", BASE).await.unwrap();
    stage.add("machine.toml", &machine()).await.unwrap();
    let mut failures = Vec::new();
    for (number, (name, played, others)) in CASES.iter().enumerate() {
        let id = format!("case-{number}");
        let (client, part) = match stage.add(&format!("{id}.toml"), &definition(&id, played)).await {
            Ok(_) => stage.definition(&id).unwrap(),
            Err(why) => {
                failures.push(format!("{name}: {why}"));
                continue;
            }
        };
        let method = client.methods.last().unwrap();
        let failure = stage.rehearse(&client, method, &part).await.failure();
        if let Some(failure) = failure {
            failures.push(format!("{name}: {failure}"));
        }
        for (other, fragment) in others.iter().enumerate() {
            let id = format!("case-{number}-other-{other}");
            if let Err(why) = stage.add(&format!("{id}.toml"), &definition(&id, fragment)).await {
                failures.push(format!("{name}, otherwise: {why}"));
                continue;
            }
            let (client, _) = stage.definition(&id).unwrap();
            let method = client.methods.last().unwrap();
            if stage.rehearse(&client, method, &part).await.ok {
                failures.push(format!("{name}: a client that follows `{fragment}` was not noticed"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
