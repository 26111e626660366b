#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::fields::read_duration;
use super::*;
use crate::definition::Recovery;

/// A definition that is right; each broken one below differs from it in one line or two.
const RIGHT: &str = r#"schema = 1
id = "acme"
name = "Acme"

[[methods]]
grant = "authorization_code"

[variables.region]
kind = "host"
pattern = "[a-z]+"

[authorize]
url = "https://{{region}}.acme.example/authorize"
params = { audience = "{{audience}}" }

[token]
url = "https://{{region}}.acme.example/token"
"#;

fn errors(text: &str) -> Vec<String> {
    parse("acme.toml", text).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect()
}

/// The errors after one replacement in the right definition.
fn broken(from: &str, to: &str) -> Vec<String> {
    assert!(RIGHT.contains(from), "{from}");
    errors(&RIGHT.replacen(from, to, 1))
}

/// The one error after a replacement must begin with `line:column: field: reason`.
fn assert_error(from: &str, to: &str, begin: &str) {
    let errors = broken(from, to);
    assert_eq!(errors.len(), 1, "{from:?} → {to:?}: {errors:#?}");
    assert!(errors[0].starts_with(&format!("acme.toml:{begin}")), "{from:?} → {to:?}: {}", errors[0]);
    assert!(errors[0].contains("; "), "no remedy: {}", errors[0]);
}

/// As `assert_error`, with lines added at the end, where line 19 is the first.
fn assert_appended(lines: &str, begin: &str) {
    let end = "/token\"\n";
    assert_error(end, &format!("{end}\n{lines}\n"), begin);
}

#[test]
fn the_right_one_is_accepted() {
    let definition = parse("acme.toml", RIGHT).unwrap();
    assert_eq!(definition.methods[0].name, "authorization_code");
    assert_eq!(definition.variables[0].label, "region");
    assert_eq!(definition.scopes.separator, " ");
    assert_eq!(definition.methods[0].phases.refresh.recovery, Recovery::SingleUse);
}

#[test]
fn an_error_is_one_line() {
    assert_eq!(
        broken(
            "[token]\nurl = \"https://{{region}}.acme.example/token\"",
            "[token]\nurl = \"https://{{zone}}.acme.example/token\""
        ),
        ["acme.toml:17:7: token.url: there is no variable `zone`; add [variables.zone], or use one of: region"]
    );
}

#[test]
fn syntax_and_types() {
    assert_error("schema = 1", "schema = ", "1:10: string values must be quoted");
    assert_error("schema = 1", "schema = \"1\"", "1:10: schema: invalid type");
    assert_error("name = \"Acme\"", "name = \"Acme\"\nnmae = \"Acme\"", "4:1: nmae: unknown field `nmae`");
    assert_error("[token]\n", "[token]\nclientauth = \"basic\"\n", "17:1: token.clientauth: unknown field");
    assert_error(
        "[token]\n",
        "[token]\nclient_auth = \"magic\"\n",
        "17:15: token.client_auth: unknown variant `magic`",
    );
    assert_error(
        "grant = \"authorization_code\"",
        "grant = \"implicit\"",
        "6:9: methods[0].grant: unknown variant `implicit`",
    );
    assert_error("id = \"acme\"", "id = \"acme\"\nid = \"acme\"", "3:1: duplicate key");
    assert_appended("[token.reply]\nexpires = \"x\"", "20:1: token.reply.expires: unknown field");
    assert_appended("[refresh]\nrecovery = \"maybe\"", "20:12: refresh.recovery: unknown variant");
}

#[test]
fn the_top() {
    assert_error("schema = 1", "schema = 2", "1:10: schema: 2 is not a version");
    assert_error("schema = 1", "", "1:1: schema: it is missing");
    assert_error("id = \"acme\"", "id = \"Acme Inc\"", "2:6: id: it has other characters");
    assert_error("id = \"acme\"\n", "", "1:1: id: it is missing or empty");
    assert_error("name = \"Acme\"", "name = \" \"", "3:8: name: it is missing or empty");
    assert_error("name = \"Acme\"", "name = \"Acme\"\ndocs = \"acme.example\"", "4:8: docs: it is not an absolute URL");
    assert_error("name = \"Acme\"", "name = \"Acme\"\nchecked = \"22.11.2026\"", "4:11: checked: it is not a date");
    assert_error(
        "name = \"Acme\"",
        "name = \"Acme\"\nsource = [\"https://a.example/\", \"http://b.example/\"]",
        "4:33: source[1]: plain http",
    );
    assert_error(
        "name = \"Acme\"",
        "name = \"Acme\"\naliases = [\"B C\"]",
        "4:12: aliases[0]: it has other characters",
    );
}

#[test]
fn methods() {
    assert_error("grant = \"authorization_code\"", "label = \"x\"", "5:1: methods[0].grant: it is missing");
    assert_error("[[methods]]", "[[methods]]\nname = \"A B\"", "6:8: methods[0].name: it has other characters");
    assert_error(
        "[variables.region]",
        "[[methods]]\ngrant = \"authorization_code\"\n\n[variables.region]",
        "8:1: methods[1]: there are two methods",
    );
    assert_error(
        "[[methods]]",
        "[[methods]]\napi = { verify = \"me\" }",
        "6:18: methods[0].api.verify: it is not a path",
    );
    assert_error("[[methods]]\ngrant = \"authorization_code\"\n", "", "1:1: methods: there is none");
}

#[test]
fn variables() {
    assert_error("pattern = \"[a-z]+\"\n", "", "8:12: variables.region.pattern: a host variable without one");
    assert_error("pattern = \"[a-z]+\"", "pattern = \"[a-z\"", "10:11: variables.region.pattern: ");
    assert_error("pattern = \"[a-z]+\"", "pattern = 'a)|(?:.*'", "10:11: variables.region.pattern: ");
    assert_appended(
        "[variables.zone]\n\n[refresh]\nurl = \"https://{{zone}}.acme.example\"",
        "22:7: refresh.url: `zone` could change the host",
    );
    assert_error(
        "kind = \"host\"",
        "kind = \"host\"\ndefault = \"EU\"",
        "10:11: variables.region.default: it does not match [a-z]+",
    );
    assert_error(
        "kind = \"host\"",
        "kind = \"host\"\npresence = \"fixed\"",
        "8:12: variables.region.default: a fixed variable",
    );
    assert_appended(
        "[variables.extra]\nsecret = true\ndefault = \"eu\"\n[token.params]\nextra = \"{{extra}}\"",
        "21:11: variables.extra.default: a secret in a definition",
    );
    assert_error(
        "kind = \"host\"",
        "kind = \"host\"\nmethods = [\"password\"]",
        "10:12: variables.region.methods[0]: there is no method `password`",
    );
    assert_appended("[variables.extra]", "19:12: variables.extra: no placeholder uses it");
    assert_appended("[variables.audience]", "19:12: variables.audience: `audience` is a standard input");
    assert_appended("[variables.Extra-1]", "19:12: variables.Extra-1: the name has other characters");
    assert_appended("[variables.Region]", "19:12: variables.Region: it differs from `region` by letter case only");
}

#[test]
fn urls() {
    let token = "url = \"https://{{region}}.acme.example/token\"";
    for (url, reason) in [
        ("http://acme.example/token", "plain http"),
        ("http://{{region}}.acme.example/token", "plain http"),
        ("https://user@acme.example/token", "the host has characters"),
        ("https://acme.example/token#x", "it has a fragment"),
        ("https://acme.example/{{region", "`{{` is not closed"),
        ("https://acme.example/{{Reg-ion}}", "`{{Reg-ion}}` is not a placeholder"),
        ("https://acme.example/{{reply.host}}", "{{reply.host}} may not stand here"),
        ("{{region}}.acme.example/token", "a URL must begin with"),
        ("{{region}}/token", "`region` is not a URL"),
        ("{{region}}", "`region` is not a URL"),
        ("token", "a URL must begin with"),
        ("{{audience}}", "{{audience}} may not stand here"),
    ] {
        assert_error(token, &format!("url = \"{url}\""), &format!("17:7: token.url: {reason}"));
    }
    assert_error(
        "[token]\nurl = \"https://{{region}}.acme.example/token\"",
        "[token]",
        "16:2: token.url: it is missing",
    );
    assert_error(
        "url = \"https://{{region}}.acme.example/authorize\"\n",
        "",
        "12:2: authorize.url: the method authorization_code needs it",
    );
    assert_appended("[discover]", "19:2: discover.issuer: it is missing");
    assert_appended("[refresh]\nurl = \"http://acme.example\"", "20:7: refresh.url: plain http");
    assert_appended("[revoke]\nurl = \"x\"", "20:7: revoke.url: a URL must begin");
    assert_appended(
        "[variables.u]\nkind = \"url\"\n\n[refresh]\nurl = \"https://acme.example/{{u}}\"",
        "23:7: refresh.url: `u` is a whole URL",
    );
    parse("acme.toml", &RIGHT.replace(token, "url = \"http://127.0.0.1:9000/token\"")).unwrap();
}

#[test]
fn params_and_headers() {
    assert_error(
        "params = { audience = \"{{audience}}\" }",
        "params = { a = \"{{b}}\" }",
        "14:16: authorize.params.a: there is no variable `b`",
    );
    assert_appended("[token.headers]\n\"A B\" = \"x\"", "20:9: token.headers.A B: it is not a header's name");
    assert_appended("[token.headers]\nA = \"x\\ny\"", "20:5: token.headers.A: the value has characters");
    assert_appended("[refresh.params]\na = \"}}\"", "20:5: refresh.params.a: `}}` without");
    assert_appended(
        "[revoke]\nurl = \"https://acme.example/\"\nrename = { a = \"b\" }\ndrop = [\"a\"]",
        "22:9: revoke.drop[0]: `a` is renamed too",
    );
}

#[test]
fn refresh_and_reply() {
    assert_appended(
        "[refresh]\nrecovery = \"window\"",
        "19:2: refresh.window: recovery is `window`, and its length is missing",
    );
    assert_appended("[refresh]\nwindow = \"60s\"", "20:10: refresh.window: recovery is not `window`");
    assert_appended("[refresh]\nidle_life = \"soon\"", "20:13: refresh.idle_life: it is not a length of time");
    assert_appended("[refresh]\nabsolute_life = \"1y\"", "20:17: refresh.absolute_life: it is not a length of time");
    assert_appended("[token.reply]\naccess_token = \"\"", "20:16: token.reply.access_token: it does not name a member");
    assert_appended(
        "[token.reply]\nsuccess = { pointer = \"/ok\" }",
        "20:1: token.reply.success: it needs a pointer and",
    );
    assert_appended(
        "[token.reply]\nexpiry = \"never\"\ndefault_lifetime = \"1h\"",
        "21:20: token.reply.default_lifetime: tokens that never expire",
    );
}

#[test]
fn api_and_the_rest() {
    assert_appended("[api]\nbase_url = \"{{reply.instance_url}}\"", "19:2: api.hosts: the base URL comes from a reply");
    assert_appended(
        "[api]\nbase_url = \"https://{{reply.x}}.acme.example\"",
        "19:2: api.hosts: the base URL comes from a reply",
    );
    assert_appended(
        "[api]\nhosts = [\"{{reply.x}}.acme.example\"]",
        "20:10: api.hosts[0]: {{reply.x}} may not stand here",
    );
    assert_appended("[api]\nhosts = [\"*.com\"]", "20:10: api.hosts[0]: it is not a host");
    assert_appended("[api]\nhosts = [\"a.example\", \"https://b.example\"]", "20:23: api.hosts[1]: it is not a host");
    assert_appended("[api]\nhosts = [\"A.example\"]", "20:10: api.hosts[0]: it is not a host");
    assert_appended("[api]\ntoken = { name = \"A B\" }", "20:18: api.token.name: it is not a header's name");
    assert_appended("[api]\ntoken = [{}, { prefix = \"Bearer\\n\" }]", "20:25: api.token[1].prefix: it has characters");
    assert_appended("[api]\nverify = \"//evil.example\"", "20:10: api.verify: it is not a path");
    assert_appended(
        "[api]\nheaders = { X-A = \"{{params.a}}\" }",
        "20:19: api.headers.X-A: {{params.a}} may not stand here",
    );
    assert_appended("[scopes]\nseparator = \"\"", "20:13: scopes.separator: it is empty");
    assert_appended("[setup]\nregister_url = \"acme\"", "20:16: setup.register_url: it is not an absolute URL");
    assert_appended("[[errors]]\ncode = \"x\"", "19:1: errors[0].remedy: it is missing or empty");
}

#[test]
fn all_errors_come_in_the_order_of_the_text() {
    let text =
        RIGHT.replace("id = \"acme\"", "id = \"A\"").replace("/token\"", "/{{a}}\"").replace("\"[a-z]+\"", "\"[\"");
    let lines: Vec<_> = parse("acme.toml", &text).unwrap_err().iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 10, 17]);
}

#[test]
fn order_is_that_of_the_file() {
    let text = RIGHT
        .replace("params = { audience = \"{{audience}}\" }", "params = { z = \"1\", a = \"2\", m = \"3\" }")
        + "\n[variables.alpha]\n[variables.zulu]\n[scopes.known]\nz = \"\"\n\"a.b\" = \"\"\n[refresh.params]\nx = \"{{zulu}}{{alpha}}\"\n";
    let definition = parse("acme.toml", &text).unwrap();
    let names: Vec<_> = definition.variables.iter().map(|variable| variable.name.as_str()).collect();
    assert_eq!(names, ["region", "alpha", "zulu"]);
    let params: Vec<_> = definition.methods[0].phases.authorize.params.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(params, ["z", "a", "m"]);
    assert_eq!(definition.scopes.known[1].0, "a.b");
}

#[test]
fn examples_in_the_documentation_are_accepted() {
    let pages =
        [include_str!("../../../../docs/provider-language.md"), include_str!("../../../../docs/dev/add-a-provider.md")];
    for page in pages {
        let whole = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let examples: Vec<_> = whole.filter(|example| example.trim_start().starts_with("schema = 1")).collect();
        assert!(!examples.is_empty());
        for example in examples {
            parse("example", example).unwrap();
        }
    }
}

#[test]
fn lengths_of_time() {
    assert_eq!(read_duration("60s"), Some(Duration::from_secs(60)));
    assert_eq!(read_duration("30m"), Some(Duration::from_secs(1800)));
    assert_eq!(read_duration("90d"), Some(Duration::from_secs(7_776_000)));
    for text in ["", "s", "1", "-1s", "1.5h", "1 h", "9999999d", "1µ", "١s"] {
        assert_eq!(read_duration(text), None, "{text}");
    }
}

/// The errors of a file that may extend these.
fn extending(files: &[(&str, &str)], text: &str) -> Result<Definition, Vec<String>> {
    let bases = |id: &str| {
        let (_, text) = files.iter().find(|(known, _)| *known == id)?;
        Some((format!("{id}.toml"), (*text).to_owned()))
    };
    parse_with("own.toml", text, &bases).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn a_definition_may_extend_another() {
    let own = r#"schema = 1
extends = "acme"
id = "acme-eu"
name = "Acme EU"

[[methods]]
grant = "authorization_code"
label = "A person in Europe"

[[methods]]
grant = "client_credentials"

[variables.region]
default = "eu"

[authorize.params]
audience = false
prompt = "consent"

[token]
client_auth = "post"
"#;
    let definition = extending(&[("acme", RIGHT)], own).unwrap();
    assert_eq!((definition.id.as_str(), definition.name.as_str()), ("acme-eu", "Acme EU"));
    let methods: Vec<_> =
        definition.methods.iter().map(|method| (method.name.as_str(), method.label.as_str())).collect();
    assert_eq!(methods, [("authorization_code", "A person in Europe"), ("client_credentials", "client_credentials")]);
    let region = &definition.variables[0];
    assert_eq!((region.default.as_deref(), region.pattern.as_ref().unwrap().as_str()), (Some("eu"), "[a-z]+"));
    let phases = &definition.methods[0].phases;
    let params: Vec<_> = phases.authorize.params.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(params, ["prompt"]);
    assert!(phases.token.url.is_some() && phases.token.client_auth.is_some());

    let again = "schema = 1\nextends = \"acme-eu\"\nid = \"third\"\n[token]\nclient_auth = \"none\"\n";
    let third = extending(&[("acme", RIGHT), ("acme-eu", own)], again).unwrap();
    assert_eq!((third.name.as_str(), third.methods.len()), ("Acme EU", 2));

    let catalogue = crate::Catalogue::built_in();
    let google = catalogue.parse("x", "schema = 1\nextends = \"google\"\nid = \"google-ads\"\n").unwrap();
    assert_eq!((google.aliases.len(), google.checked), (0, None));
    let mut catalogue = catalogue;
    catalogue.insert(Arc::new(catalogue.parse("x", "schema = 1\nextends = \"github\"\nid = \"ours\"\n").unwrap()));
    assert_eq!(catalogue.extended_by("github"), ["ours"]);
    assert!(catalogue.parse("y", "schema = 1\nextends = \"ours\"\nid = \"theirs\"\n").is_ok());
}

#[test]
fn errors_of_what_is_extended() {
    let error = |files: &[(&str, &str)], text: &str| extending(files, text).map(|_| ()).unwrap_err();
    let own = "schema = 1\nid = \"own\"\nextends = ";
    let one = |files: &[(&str, &str)], extends: &str, begin: &str| {
        let errors = error(files, &format!("{own}{extends}\n"));
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].starts_with(begin), "{}", errors[0]);
    };
    one(&[], "\"nobody\"", "own.toml:3:11: extends: there is no definition `nobody`; ");
    one(&[], "7", "own.toml:3:11: extends: it is not a text");
    one(&[("own", "schema = 1")], "\"own\"", "own.toml:3:11: extends: `own` extends this definition, or is it");
    one(
        &[("a", "id = \"a\"\nextends = \"b\""), ("b", "id = \"b\"\nextends = \"a\"")],
        "\"a\"",
        "b.toml:2:11: extends: `a` extends this definition",
    );
    one(&[("a", "id = ")], "\"a\"", "a.toml:1:6: string values must be quoted");
    one(&[("a", "nmae = \"x\"")], "\"a\"", "a.toml:1:1: nmae: unknown field");
    let chain: Vec<(String, String)> = (0..9).map(|i| (format!("c{i}"), format!("extends = \"c{}\"", i + 1))).collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    one(&chain, "\"c0\"", "c6.toml:1:11: extends: there are more than 8 definitions");

    // What is wrong in the base names the base; what is missing, the table that was written last.
    let base = RIGHT.replace("https://{{region}}.acme.example/token", "https://{{zone}}.acme.example/token");
    let errors =
        error(&[("base", &base)], "schema = 1\nid = \"own\"\nextends = \"base\"\n[refresh]\nrecovery = \"window\"\n");
    assert_eq!(
        errors,
        [
            "own.toml:4:2: refresh.window: recovery is `window`, and its length is missing; write it like \"60s\"",
            "base.toml:17:7: token.url: there is no variable `zone`; add [variables.zone], or use one of: region",
        ]
    );
    // `false` removes what is there, and nothing else.
    let errors = error(&[("base", RIGHT)], "schema = 1\nid = \"own\"\nextends = \"base\"\n[revoke]\nurl = false\n");
    assert!(errors[0].starts_with("own.toml:5:7: revoke.url: invalid type: boolean `false`"), "{}", errors[0]);
}

#[test]
fn a_table_that_nothing_reads() {
    let machine = RIGHT.replace("authorization_code", "client_credentials");
    assert_eq!(
        errors(&machine),
        [
            "acme.toml:12:2: authorize: no method has a use for it; remove it, or add a method with the grant authorization_code"
        ]
    );
    assert_appended("[device]\nurl = \"https://a.example/\"", "19:2: device: no method has a use for it");
    assert_error(
        "[variables.region]",
        "[[methods]]\ngrant = \"client_credentials\"\nauthorize = { nonce = true }\n\n[variables.region]",
        "10:1: methods[1].authorize: the grant client_credentials has no use for it",
    );
    assert_appended("[computed.x]\nbase64 = \"a\"", "19:11: computed.x: no placeholder uses it");
    assert_appended(
        "[[after_connect]]\nurl = \"https://a.example/\"\nextract = { id = \"/0/id\" }",
        "21:18: after_connect[0].extract.id: no placeholder uses it",
    );
    assert_appended(
        "[[after_connect]]\nurl = \"https://a.example/\"",
        "19:1: after_connect[0]: nothing is taken from its answer",
    );
    assert_error(
        "[[methods]]",
        "[[methods]]\ninputs = { username = { label = \"x\" } }",
        "6:12: methods[0].inputs.username: the grant authorization_code has no use for it",
    );
}

#[test]
fn where_values_of_the_provider_may_stand() {
    let api = "[api]\nhosts = [\"*.acme.example\"]\n";
    for (text, reason) in [
        ("[refresh]\nurl = \"{{reply.server}}/t\"", "refresh.url: {{reply.server}} may not stand here"),
        (
            "[refresh]\nurl = \"https://{{reply.zone}}.acme.example/t\"",
            "refresh.url: {{reply.zone}} may not stand here",
        ),
        ("[refresh]\nparams = { a = \"{{lookup.x}}\" }", "refresh.params.a: no lookup saves {{lookup.x}}"),
        ("[refresh]\nparams = { a = \"{{callback.x}}\" }", "refresh.params.a: nothing captures {{callback.x}}"),
        ("[refresh]\nparams = { a = \"{{computed.x}}\" }", "refresh.params.a: there is no computed value `x`"),
        (
            "[refresh]\nurl = \"https://{{access_token}}.acme.example/t\"",
            "refresh.url: {{access_token}} may not stand here",
        ),
        ("[revoke]\nurl = \"https://{{client_id}}.acme.example/t\"", "revoke.url: {{client_id}} may not stand here"),
        (
            "[callback.capture]\nzone = \"zone\"\n[refresh]\nurl = \"https://{{callback.zone}}.acme.example/t\"",
            "refresh.url: `callback.zone` could change the host",
        ),
        (
            "[callback.capture]\nzone = { parameter = \"zone\", kind = \"host\" }\n[refresh]\nparams = { z = \"{{callback.zone}}\" }",
            "callback.capture.zone.pattern: whoever forges an answer could name any host",
        ),
        (
            "[computed.x]\nbase64 = \"{{access_token}}\"\n[token.params]\na = \"{{computed.x}}\"",
            "token.params.a: {{access_token}} may not stand here",
        ),
        (
            "[computed.x]\nbase64 = \"{{computed.y}}\"\n[computed.y.jwt]\nalg = \"HS256\"\nkey = \"k\"\nclaims = { iat = \"now\" }\n[api.headers]\na = \"{{computed.x}}\"",
            "api.headers.a: `x` grows old",
        ),
        (
            "[[after_connect]]\nurl = \"https://acme.example/{{lookup.a}}\"\nextract = { a = \"/a\" }",
            "after_connect[0].url: {{lookup.a}} is learnt later",
        ),
    ] {
        let errors = broken("/token\"\n", &format!("/token\"\n\n{text}\n"));
        assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
        assert!(errors[0].contains(reason), "{text}: {}", errors[0]);
    }
    // These may.
    for text in [
        "[refresh]\nparams = { a = \"{{reply.patient}}\", b = \"{{access_token}}\" }".to_owned(),
        format!("{api}base_url = \"{{{{reply.server}}}}/v1\""),
        format!("{api}base_url = \"https://x.acme.example/{{{{reply.site}}}}\""),
        format!("{api}base_url = \"https://{{{{reply.host}}}}/v1\""),
        "[refresh]\nparams = { back = \"{{redirect_uri}}\" }".to_owned(),
        // Kept for people, though nothing else uses it.
        "[callback.capture]\nseller = \"selling_partner_id\"".to_owned(),
        "[[after_connect]]\nname = \"organisations\"\nurl = \"https://acme.example/\"\nextract = { id = \"/0/id\" }"
            .to_owned(),
    ] {
        parse("acme.toml", &format!("{RIGHT}\n{text}\n")).unwrap();
    }
}

#[test]
fn an_address_of_the_token_endpoint_holds_no_secret() {
    for (url, shown) in [
        ("https://acme.example/{{client_secret}}/token", "{{client_secret}}"),
        ("https://acme.example/token?pin={{pin}}", "{{pin}}"),
    ] {
        let text = RIGHT
            .replace("[token]\nurl = \"https://{{region}}.acme.example/token\"", &format!("[token]\nurl = \"{url}\""))
            + "\n[variables.pin]\nsecret = true\n";
        let expected = format!("{shown} may not stand here; an address is no place for a secret");
        let errors = errors(&text);
        assert!(errors.iter().any(|error| error.contains(&expected)), "{errors:?}");
    }
}

#[test]
fn what_the_callback_names_before_it_has_come() {
    let token = "[token]\nurl = \"https://{{region}}.acme.example/token\"\n";
    let with = |default: &str| {
        let capture = "[callback.capture.server]\nparameter = \"server\"\nkind = \"url\"\npattern = 'https://[a-z]+\\.acme\\.example'\n";
        let text = format!("{capture}{default}\n[token]\nurl = \"{{{{callback.server}}}}/token\"\n");
        parse("acme.toml", &RIGHT.replace(token, &text)).map_err(|errors| errors[0].to_string())
    };
    with("default = \"https://us.acme.example\"").unwrap();
    with("default = \"https://{{region}}.acme.example\"").unwrap();
    for (default, error) in [
        (
            "",
            "acme.toml:22:7: token.url: before the callback nothing says what {{callback.server}} is; give [callback.capture.server] a default",
        ),
        (
            "default = \"https://evil.example\"",
            "acme.toml:20:11: callback.capture.server.default: it does not match https://[a-z]+\\.acme\\.example; give one that fits the kind and the pattern",
        ),
        (
            "default = \"https://{{callback.server}}\"",
            "acme.toml:20:11: callback.capture.server.default: {{callback.server}} may not stand here; use a fixed text or variables",
        ),
        (
            "default = \"https://{{zone}}.acme.example\"",
            "acme.toml:20:11: callback.capture.server.default: there is no variable `zone`; add [variables.zone], or use one of: region",
        ),
    ] {
        assert_eq!(with(default).unwrap_err(), error);
    }
}

#[test]
fn choices_that_say_more() {
    let with = |choices: &str, url: &str| {
        let text = RIGHT
            .replace("kind = \"host\"\npattern = \"[a-z]+\"", &format!("choices = {{ {choices} }}"))
            .replace("https://{{region}}.acme.example/token", url)
            .replace("{{region}}.", "");
        parse("acme.toml", &text).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let right = "eu = { label = \"Europe\", host = \"eu.acme.example\" }, us = { host = \"us.acme.example\" }";
    let definition = with(right, "https://{{region.host}}/token").unwrap();
    let labels: Vec<_> = definition.variables[0].choices.iter().map(|(_, label)| label.as_str()).collect();
    assert_eq!(labels, ["Europe", "us"]);
    assert_eq!(definition.variables[0].sets["us"]["host"], "us.acme.example");
    for (choices, url, error) in [
        (right, "https://{{region.zone}}/token", "16:7: token.url: the choices of `region` do not say `zone`"),
        (right, "https://{{zone.host}}/token", "16:7: token.url: there is no variable `zone`"),
        (right, "https://a.example/{{region}}", "9:45: variables.region.choices.eu.host: no placeholder uses it"),
        (
            "eu = { host = \"eu.acme.example/x\" }",
            "https://{{region.host}}/token",
            "16:7: token.url: `eu.acme.example/x`, which {{region.host}} may be, is not a host",
        ),
        (
            "eu = { host = \"http://acme.example\" }",
            "{{region.host}}/token",
            "16:7: token.url: `http://acme.example`, which {{region.host}} may be, is not a URL",
        ),
        (
            "eu = { host = \"eu.acme.example\" }, us = \"America\"",
            "https://{{region.host}}/token",
            "9:53: variables.region.choices.us: it does not say `host`, which `eu` says",
        ),
        (
            "eu = { host = \"{{region}}\" }",
            "https://a.example/{{region.host}}",
            "9:27: variables.region.choices.eu.host: it is empty, or has a placeholder",
        ),
        (
            "eu = { host = 7 }",
            "https://a.example/{{region.host}}",
            "9:27: variables.region.choices.eu.host: invalid type",
        ),
    ] {
        let found = with(choices, url).map(|_| ()).unwrap_err();
        assert!(found.iter().any(|it| it.contains(error)), "{choices} {url}: {found:#?}");
    }
    assert_appended(
        "[inputs.audience]\nchoices = { a = { more = \"b\" } }",
        "20:26: inputs.audience.choices.a.more: choices of a standard input have labels only",
    );
}

#[test]
fn hashes_over_a_request() {
    let with = |params: &str, over: &str| {
        broken_or_right(&format!("{params}\n[computed.h]\nhash = \"sha256\"\nover = \"{over}\""))
    };
    assert_eq!(
        with("[token.params]\nh = \"{{computed.h}}\"", "{{client_secret}}|{{params.code}}"),
        Vec::<String>::new()
    );
    let late = "`h` is made of a request's own parameters; let it be the whole of a parameter";
    for (params, over, error) in [
        ("[token.params]\nh = \"x{{computed.h}}\"", "{{params.code}}", late),
        ("[token.headers]\nh = \"{{computed.h}}\"", "{{params.code}}", late),
        ("[api.headers]\nh = \"{{computed.h}}\"", "{{params.code}}", late),
        (
            "[token.params]\nh = \"{{computed.h}}\"",
            "{{access_token}}{{params.code}}",
            "token.params.h: {{access_token}} may not stand here",
        ),
        (
            "[computed.i]\nbase64 = \"x\"\n[token.params]\nh = \"{{computed.h}}\"",
            "{{computed.i}}{{params.code}}",
            "computed.h.over: a computed value may not stand beside",
        ),
        (
            "[computed.i]\nbase64 = \"{{params.code}}\"\n[token.params]\nh = \"{{computed.i}}{{computed.h}}\"",
            "x",
            "computed.i.base64: {{params.code}} may not stand here",
        ),
    ] {
        let found = with(params, over);
        assert!(found.iter().any(|it| it.contains(error)), "{params} {over}: {found:#?}");
    }
}

/// The errors with lines added at the end.
fn broken_or_right(lines: &str) -> Vec<String> {
    parse("acme.toml", &format!("{RIGHT}\n{lines}\n"))
        .map_or_else(|errors| errors.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

#[test]
fn a_call_that_shows_whether_it_works() {
    let api = "[api]\nbase_url = \"https://acme.example\"\n";
    for (verify, error) in [
        ("{ path = \"/x\", params = { a = 1 } }", "api.verify.params: a GET has no body for them"),
        ("{ path = \"/x\", method = \"POST\", body = \"query\" }", "api.verify.body: it is neither `json` nor `form`"),
        ("{ path = \"/x\", body = \"json\" }", "api.verify.body: a GET has none"),
        ("{ method = \"POST\" }", "api.verify.path: it is missing"),
    ] {
        let found = broken_or_right(&format!("{api}verify = {verify}"));
        assert!(found[0].contains(error), "{verify}: {found:#?}");
    }
}

#[test]
fn computed_values_and_their_circles() {
    let circle = "[computed.a]\nbase64 = \"{{computed.b}}\"\n[computed.b]\nbase64 = \"{{computed.a}}\"";
    let found = broken("/token\"\n", &format!("/token\"\n\n{circle}\n"));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("acme.toml:19:11: computed.a: it is made of itself; "), "{}", found[0]);
    for (text, begin) in [
        ("[computed.a]\nencoding = \"hex\"", "19:11: computed.a: it needs one of `hmac`, `hash`, `jwt` and `base64`"),
        ("[computed.a]\nhmac = \"md5\"", "20:8: computed.a.hmac: unknown variant `md5`"),
        ("[computed.a.jwt]\nkey = \"k\"", "19:13: computed.a.jwt.alg: it is missing"),
        (
            "[computed.a.jwt]\nalg = \"HS256\"\nkey = \"k\"\nclaims = { exp = \"soon\" }",
            "22:18: computed.a.jwt.claims.exp: it is not a time",
        ),
    ] {
        let used = format!("{text}\n[revoke]\nurl = \"https://a.example/\"\nparams = {{ x = \"{{{{computed.a}}}}\" }}");
        let found = broken("/token\"\n", &format!("/token\"\n\n{used}\n"));
        assert!(found[0].starts_with(&format!("acme.toml:{begin}")), "{text}: {found:#?}");
    }
}

#[test]
fn what_a_grant_needs() {
    let with = |grant: &str, text: &str| {
        format!(
            "schema = 1\nid = \"a\"\nname = \"A\"\n[[methods]]\ngrant = \"{grant}\"\n[token]\nurl = \"https://a.example/\"\n{text}"
        )
    };
    for (grant, field) in [
        ("device_code", "device.url"),
        ("jwt_bearer", "token.params.assertion"),
        ("saml_bearer", "token.params.assertion"),
        ("token_exchange", "token.params.subject_token"),
        ("authorization_code", "authorize.url"),
    ] {
        let found = errors(&with(grant, ""));
        assert!(found[0].contains(&format!("{field}: the method {grant} needs it")), "{found:#?}");
    }
    for grant in ["client_credentials", "password", "refresh_token"] {
        parse("a", &with(grant, "")).unwrap();
    }
}

#[test]
fn inputs_and_choices() {
    let text = RIGHT.to_owned()
        + "\n[inputs.audience]\nlabel = \"API\"\nhelp = \"Which API\"\ndefault = \"a\"\nchoices = { a = \"First\", b = \"Second\" }\norder = 1\n[inputs.client_secret]\npresence = \"optional\"\n[inputs.client_id]\nexample = \"abc\"\npattern = \"[a-z]+\"\n";
    let definition = parse("acme.toml", &text).unwrap();
    let inputs = &definition.methods[0].inputs;
    let names: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["audience", "client_id", "client_secret", "scope"]);
    assert_eq!(inputs[0].choices, [("a".to_owned(), "First".to_owned()), ("b".to_owned(), "Second".to_owned())]);
    assert!(inputs[2].secret && inputs[2].presence == crate::Presence::Optional);
    assert!(inputs[0].check("b").is_ok() && inputs[0].check("c").is_err());
    assert_appended(
        "[inputs.audience]\nchoices = [\"a\"]\ndefault = \"b\"",
        "21:11: inputs.audience.default: it is not one of the choices",
    );
    assert_appended("[inputs.scope]\ndefault = \"b\"", "20:11: inputs.scope.default: its default has another place");
    assert_appended(
        "[inputs.client_secret]\ndefault = \"b\"",
        "20:11: inputs.client_secret.default: a secret in a definition",
    );
    assert_appended("[inputs.nobody]", "19:9: inputs.nobody: unknown field `nobody`");
    assert_error(
        "kind = \"host\"",
        "kind = \"host\"\nchoices = [\"eu\", \"U S\"]",
        "10:1: variables.region.choices: `U S`: it is not a host name",
    );
    assert_error(
        "kind = \"host\"",
        "kind = \"host\"\nexample = \"U S\"",
        "10:11: variables.region.example: it is not a host name",
    );
}

#[test]
fn requests_in_detail() {
    for (text, begin) in [
        ("[refresh]\nmethod = \"get\"", "20:10: refresh.method: unknown variant `get`"),
        ("[refresh]\nmethod = \"GET\"\nbody = \"json\"", "21:8: refresh.body: a GET has none"),
        (
            "[refresh]\nbody = { content_type = \"a\\nb\", template = \"x\" }",
            "20:25: refresh.body.content_type: it is not a content type",
        ),
        ("[refresh]\nbody = { content_type = \"text/xml\" }", "20:1: refresh.body.template: it is missing"),
        ("[refresh]\nbody = \"yaml\"", "20:8: refresh.body: unknown variant `yaml`"),
        ("[refresh]\nmin_age = \"1w\"", "20:11: refresh.min_age: it is not a length of time"),
        ("[refresh]\nkeep_alive = \"often\"", "20:14: refresh.keep_alive: it is not a length of time"),
        ("[refresh.params]\na = \"{{params.code}}\"", "20:5: refresh.params.a: {{params.code}} may not stand here"),
        ("[token.client_assertion]\nalgorithm = \"RS1\"", "20:13: token.client_assertion.algorithm: unknown variant"),
        ("[token.secondary.user]\nscope = \"/s\"", "19:18: token.secondary.user.access_token: it is missing"),
        ("[token.reply]\ndead = [\"a*b\"]", "20:9: token.reply.dead[0]: it does not name a code"),
        ("[token.reply]\ndead = [true]", "20:9: token.reply.dead[0]: invalid type"),
        ("[token.reply]\nexpiry = \"weeks\"", "20:10: token.reply.expiry: unknown variant"),
        (
            "[token.reply]\nerror_when = { pointer = \"/a\", equals = 1, exists = true }",
            "20:1: token.reply.error_when: it needs a pointer and one of",
        ),
        ("[callback]\nrename = { realm = \"r\" }", "20:20: callback.rename.realm: `realm` is not one of"),
        ("[callback.signature]\nencoding = \"hex\"", "19:11: callback.signature.parameter: it is missing"),
        ("[scopes]\nformat = \"array\"\nseparator = \",\"", "21:13: scopes.separator: nothing stands between"),
        ("[api]\ntoken = { token = \"user\" }", "20:19: api.token.token: there is no token `user`"),
        ("[api]\nexpired_when = {}", "20:1: api.expired_when: it says nothing"),
        (
            "[api]\nexpired_when = [{ status = 403 }, { status = 7 }]",
            "20:46: api.expired_when[1].status: 7 is not a status",
        ),
        ("[api.limits]\nper_second = 0.0", "20:14: api.limits.per_second: it is not a rate"),
        ("[api.limits]\nper_second = 0.0009", "20:14: api.limits.per_second: it is not a rate"),
        ("[api.limits]\nper_second = 1e-300", "20:14: api.limits.per_second: it is not a rate"),
        ("[api.limits]\nreset_header = \"A B\"", "20:16: api.limits.reset_header: it is not a header's name"),
        ("[api]\nverify = { path = \"/a/../b\" }", "20:19: api.verify.path: the path has a `.` or `..`"),
        (
            "[[after_connect]]\npath = \"/x\"\nextract = { a = \"/a\" }\n[api.headers]\na = \"{{lookup.a}}\"",
            "20:8: after_connect[0].path: [api] has no base_url",
        ),
        ("[[errors]]\ncode = \"a\"\nremedy = \"b\"\nphase = \"later\"", "22:9: errors[0].phase: unknown variant"),
        ("[discover]\nissuer = \"https://{{audience}}/x\"", "20:10: discover.issuer: {{audience}} may not stand here"),
    ] {
        assert_appended(text, begin);
    }
}

#[test]
fn hostile_files() {
    let long = format!("schema = 1\nid = \"a\"\nname = \"{}\"", "x".repeat(10 << 20));
    assert_eq!(
        errors(&long),
        ["acme.toml:1:1: the file has 10485789 bytes, and at most 1048576 are read; write a shorter one"]
    );
    let deep = format!("schema = {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(errors(&deep)[0].starts_with("acme.toml:1:42: it is nested too deeply"), "{:?}", errors(&deep));
    let keys = format!("{} = 1", vec!["a"; 5000].join("."));
    assert!(errors(&keys)[0].starts_with("acme.toml:1:66: it is nested too deeply"), "{:?}", errors(&keys));
    let inline = format!("schema = {}1{}", "{ a = ".repeat(5000), " }".repeat(5000));
    assert!(!errors(&inline).is_empty());
    // Values that double with each step are refused when they are made, not made.
    let mut doubling = format!(
        "{RIGHT}[revoke]\nurl = \"https://a.example/\"\nparams = {{ x = \"{{{{computed.c29}}}}\" }}\n[computed.c0]\nbase64 = \"x\"\n"
    );
    for n in 1..30 {
        doubling += &format!("[computed.c{n}]\nbase64 = \"{{{{computed.c{}}}}}{{{{computed.c{}}}}}\"\n", n - 1, n - 1);
    }
    let definition = parse("acme.toml", &doubling).unwrap();
    let values = crate::Values::from([("region".to_owned(), "eu".to_owned())]);
    let error = definition.render(&definition.methods[0], &values, &crate::Choice::default(), None).unwrap_err();
    assert!(error.to_string().contains("longer than 65536 bytes"), "{error}");
    for wrong in [
        "methods = 7",
        "methods = [7]",
        "variables = []",
        "token = \"x\"",
        "api = { token = 7 }",
        "scopes = 1979-05-27",
        "token = { params = 9223372036854775808 }",
        "after_connect = {}",
        "errors = [[]]",
    ] {
        let key = wrong.split(' ').next().unwrap();
        let found = errors(&format!("schema = 1\nid = \"a\"\nname = \"A\"\n{wrong}\n"));
        assert!(!found.is_empty(), "{key}: {found:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*", cut in 0usize..400, more in "[\\[\\]={}\"'a-z0-9.\n ]{0,60}") {
        let _ = parse("x", &text);
        let cut = cut.min(RIGHT.len());
        let _ = parse("x", &format!("{}{more}{}", &RIGHT[..cut], &RIGHT[cut..]));
        let _ = parse("x", &format!("{}{text}{}", &RIGHT[..cut], &RIGHT[cut..]));
    }
}
