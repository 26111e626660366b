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
    assert_eq!(definition.phases.recovery, Recovery::SingleUse);
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
    assert_error("[[methods]]", "[[methods]]\nverify = \"me\"", "6:10: methods[0].verify: it is not a path");
    assert_error("[[methods]]\ngrant = \"authorization_code\"\n", "", "1:1: methods: there is none");
}

#[test]
fn variables() {
    assert_error("pattern = \"[a-z]+\"\n", "", "8:12: variables.region.pattern: a host variable without one");
    assert_error("pattern = \"[a-z]+\"", "pattern = \"[a-z\"", "10:11: variables.region.pattern: ");
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
    assert_error(
        "kind = \"host\"",
        "kind = \"host\"\nsecret = true\ndefault = \"eu\"",
        "11:11: variables.region.default: a secret in a definition",
    );
    assert_error(
        "kind = \"host\"",
        "kind = \"host\"\nmethods = [\"password\"]",
        "10:12: variables.region.methods[0]: there is no method `password`",
    );
    assert_appended("[variables.extra]", "19:12: variables.extra: no placeholder uses it");
    assert_appended("[variables.audience]", "19:12: variables.audience: `audience` is the integration's own field");
    assert_appended("[variables.Extra]", "19:12: variables.Extra: the name has other characters");
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
        ("https://acme.example/{{Region}}", "`{{Region}}` is not a placeholder"),
        ("https://acme.example/{{reply.host}}", "{{reply.host}} may not stand here"),
        ("{{region}}/token", "a URL must begin with"),
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
    assert_appended("[token.reply]\nsuccess = { pointer = \"/ok\" }", "20:1: token.reply.success: it needs both");
    assert_appended(
        "[token.reply]\nnever_expires = true\ndefault_lifetime = \"1h\"",
        "21:20: token.reply.default_lifetime: tokens that never expire",
    );
}

#[test]
fn api_and_the_rest() {
    assert_appended("[api]\nbase_url = \"{{reply.instance_url}}\"", "19:2: api.hosts: the base URL comes from a reply");
    assert_appended(
        "[api]\nhosts = [\"a.example\"]\nbase_url = \"https://{{reply.x}}.acme.example\"",
        "21:12: api.base_url: {{reply.x}} may not stand here",
    );
    assert_appended("[api]\nhosts = [\"*.com\"]", "20:10: api.hosts[0]: it is not a host");
    assert_appended("[api]\nhosts = [\"a.example\", \"https://b.example\"]", "20:23: api.hosts[1]: it is not a host");
    assert_appended("[api]\nhosts = [\"A.example\"]", "20:10: api.hosts[0]: it is not a host");
    assert_appended("[api]\nheader = \"A B\"", "20:10: api.header: it is not a header's name");
    assert_appended("[api]\nprefix = \"Bearer\\n\"", "20:10: api.prefix: it has characters");
    assert_appended("[api]\nverify = \"//evil.example\"", "20:10: api.verify: it is not a path");
    assert_appended(
        "[api]\nheaders = { X-A = \"{{audience}}\" }",
        "20:19: api.headers.X-A: {{audience}} may not stand here",
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
    let params: Vec<_> = definition.phases.authorize.params.iter().map(|(name, _)| name.as_str()).collect();
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

proptest! {
    #[test]
    fn no_text_panics(text in ".*", cut in 0usize..400, more in "[\\[\\]={}\"'a-z0-9.\n ]{0,60}") {
        let _ = parse("x", &text);
        let cut = cut.min(RIGHT.len());
        let _ = parse("x", &format!("{}{more}{}", &RIGHT[..cut], &RIGHT[cut..]));
        let _ = parse("x", &format!("{}{text}{}", &RIGHT[..cut], &RIGHT[cut..]));
    }
}
