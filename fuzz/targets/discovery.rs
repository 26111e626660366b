//! Any bytes as a discovery document, and a draft made of it.
#![no_main]

use keyholder_oauth::read_metadata;
use keyholder_provider::{Catalogue, Choice, Values, draft, parse};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static BUILT_IN: Catalogue = Catalogue::built_in();
}

fuzz_target!(|body: &[u8]| {
    let Ok(metadata) = read_metadata("https://as.example", 200, body) else { return };
    assert_eq!(metadata.issuer, "https://as.example");
    let usable = |url: &Option<url::Url>| url.as_ref().is_some_and(|url| url.scheme() == "https" && url.username().is_empty());
    if usable(&metadata.authorization_endpoint) && usable(&metadata.token_endpoint) {
        let drafted = draft(&metadata, None, "fuzz");
        if let Err(errors) = parse("drafted.toml", &drafted) {
            panic!("{}\n{drafted}", errors[0]);
        }
    }
    let definition = BUILT_IN.with(|catalogue| catalogue.definition("oidc")).expect("it comes with the program");
    let values = Values::from([("issuer".to_owned(), "https://as.example".to_owned())]);
    if let Ok(rendered) = definition.render(&definition.methods[0], &values, &Choice::default(), Some(&metadata)) {
        for url in [&rendered.token.url, &rendered.refresh.url].into_iter().chain(rendered.authorize.iter().map(|it| &it.url)) {
            assert!(url.scheme() == "https" || url.scheme() == "http", "{url}");
            assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url}");
        }
    }
});
