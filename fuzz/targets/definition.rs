//! Any text as a definition: it is accepted or each error names a place in it; what is accepted renders or says why not.
#![no_main]

use keyholder_oauth::{Client, Moment};
use keyholder_provider::{Choice, Values, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let definition = match parse("fuzz.toml", text) {
        Ok(definition) => definition,
        Err(errors) => {
            assert!(!errors.is_empty());
            let lines = text.matches('\n').count() + 1;
            for error in errors.iter().filter(|error| error.file == "fuzz.toml") {
                assert!((1..=lines).contains(&error.line) && error.column >= 1, "{error}");
                assert!(!error.reason.is_empty() && !error.remedy.is_empty(), "{error}");
            }
            return;
        }
    };
    assert!(!definition.methods.is_empty());
    for method in &definition.methods {
        let values: Values =
            definition.variables_of(method).map(|variable| (variable.name.clone(), variable.sample())).collect();
        let choice = Choice {
            client: Some(Client { id: "id".into(), secret: Some("secret".into()), key: None }),
            redirect_uri: Some("https://k.example/cb".into()),
            moment: Some(Moment { now_ms: 1_700_000_000_000, random: [7; 32] }),
            ..Choice::default()
        };
        if let Ok(rendered) = definition.render(method, &values, &choice, None) {
            let again = definition.render(method, &values, &choice, None).expect("it rendered before");
            assert_eq!(rendered.token.url, again.token.url);
            for url in [&rendered.token.url, &rendered.refresh.url].into_iter().chain(&rendered.api.base_url) {
                assert!(url.scheme() == "https" || url.scheme() == "http" && is_loopback(url), "{url}");
                assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url}");
            }
        }
    }
});

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
