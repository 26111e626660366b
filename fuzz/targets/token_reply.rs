//! Any bytes as the reply of a token endpoint, read by rules that use all there is.
#![no_main]

use std::sync::LazyLock;

use http::HeaderMap;
use keyholder_oauth::{ReplyRules, read_token_reply};
use keyholder_provider::{Choice, Values, parse};
use libfuzzer_sys::fuzz_target;

const NOW: i64 = 1_700_000_000_000;

const ODD: &str = r#"schema = 1
id = "odd"
name = "Odd"
[[methods]]
grant = "client_credentials"
[token]
url = "https://as.example/t"
[token.reply]
access_token = "/data/token"
refresh_token = "/data/refresh"
expires_in = "/data/expires"
expires_at = "/data/until"
expiry = "EXPIRY"
success = { pointer = "/ok", not_equals = false }
error_when = { pointer = "/code", not_equals = 0 }
error = "/code"
dead = [40105, "GONE*"]
retry = ["busy"]
[token.secondary.user]
access_token = "/data/user/token"
expires_in = "/data/user/expires"
expiry = "date"
"#;

static RULES: LazyLock<Vec<ReplyRules>> = LazyLock::new(|| {
    let odd = ["seconds", "milliseconds", "unix", "unix_ms", "date", "jwt", "never"].map(|expiry| {
        let definition = parse("odd.toml", &ODD.replace("EXPIRY", expiry)).unwrap_or_else(|errors| panic!("{}", errors[0]));
        definition.render(&definition.methods[0], &Values::new(), &Choice::default(), None).expect("it renders").reply
    });
    std::iter::once(ReplyRules::default()).chain(odd).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let status = [200, 400, 401, 403, 429, 500][usize::from(*first >> 3) % 6];
    let rules = &RULES[usize::from(*first & 7)];
    match read_token_reply(rules, status, &HeaderMap::new(), body, NOW) {
        Ok(set) => {
            assert_eq!(status, 200);
            assert!(!set.access_token.is_empty());
            for token in set.secondary.values() {
                assert!(!token.access_token.is_empty());
            }
            let shown = format!("{set:?}");
            let token = set.access_token.expose();
            assert!(token.len() < 8 || set.extra.values().any(|it| it.to_string().contains(token)) || !shown.contains(token), "{shown}");
        }
        Err(failure) => {
            assert!(!failure.to_string().chars().any(char::is_control), "{failure}");
        }
    }
});
