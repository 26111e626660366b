//! Any text as the query that a browser brings back: only the right state gets a code out of it, and what is captured fits.
#![no_main]

use std::sync::LazyLock;

use keyholder_oauth::{Expected, ReceivedCallback, sha256};
use keyholder_provider::{Choice, Rendered, Values, parse};
use libfuzzer_sys::fuzz_target;

const FILE: &str = r##"schema = 1
id = "odd"
name = "Odd"
[[methods]]
grant = "authorization_code"
[authorize]
url = "https://as.example/a"
[callback]
strip_code_suffix = "#_"
rename = RENAME
[callback.capture]
seller = "seller"
server = { parameter = "accounts-server", kind = "url", pattern = 'https://[a-z]+\.acme\.example', default = "https://us.acme.example" }
zone = { parameter = "zone", kind = "host", pattern = '(eu|us)' }
[token]
url = "{{callback.server}}/t"
"##;

static RULES: LazyLock<[Rendered; 2]> = LazyLock::new(|| {
    ["{}", "{ code = \"auth_code\", state = \"custom\" }"].map(|rename| {
        let definition = parse("odd.toml", &FILE.replace("RENAME", rename)).unwrap_or_else(|errors| panic!("{}", errors[0]));
        definition.render(&definition.methods[0], &Values::new(), &Choice::default(), None).expect("it renders")
    })
});

fuzz_target!(|query: &str| {
    for rendered in RULES.iter() {
        let Ok(received) = ReceivedCallback::parse(query, &rendered.callback.rules) else { continue };
        assert!(!received.state().is_empty());
        let right = received.state() == "st";
        let expected = Expected { state_sha256: sha256(b"st"), issuer: Some("https://as.example"), issuer_required: false };
        match received.check(&expected) {
            Ok(callback) => {
                assert!(right && !callback.code().is_empty());
                let Ok(captured) = rendered.callback.capture(callback.other()) else { continue };
                if let Some(server) = captured.get("callback.server") {
                    assert!(server.starts_with("https://") && server.ends_with(".acme.example"), "{server}");
                }
                assert!(captured.get("callback.zone").is_none_or(|zone| zone == "eu" || zone == "us"));
            }
            Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error}"),
        }
    }
});
