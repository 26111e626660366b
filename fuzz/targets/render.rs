//! A definition in which everything that can steer an address comes from outside, filled with anything: the hosts are those that
//! the definition says.
#![no_main]

use std::sync::LazyLock;

use keyholder_oauth::{Client, Grant, Moment, Secret, token_request};
use keyholder_provider::{Choice, Definition, Values, parse};
use libfuzzer_sys::fuzz_target;
use url::Url;

const NAMES: [&str; 7] = ["shop", "server", "any", "callback.zone", "reply.any", "reply.host", "lookup.any"];

static STEERED: LazyLock<Definition> = LazyLock::new(|| {
    parse("steered.toml", include_str!("steered.toml")).unwrap_or_else(|errors| panic!("{}", errors[0]))
});

fuzz_target!(|text: &str| {
    let mut values = Values::from([
        ("shop".to_owned(), "a".to_owned()),
        ("server".to_owned(), "https://s.example".to_owned()),
    ]);
    for (name, value) in NAMES.iter().zip(text.split('\u{1f}')).filter(|(_, value)| !value.is_empty()) {
        values.insert((*name).to_owned(), value.to_owned());
    }
    let client = Client { id: "id-1".into(), secret: Some("hush".into()), key: None };
    let moment = Moment { now_ms: 1_700_000_000_000, random: [7; 32] };
    let choice = Choice { client: Some(client.clone()), moment: Some(moment), ..Choice::default() };
    let Ok(rendered) = STEERED.render(&STEERED.methods[0], &values, &choice, None) else { return };
    let host = |url: &Url| url.host_str().unwrap_or_default().to_owned();

    let authorize = rendered.authorize.expect("a person consents").url;
    assert_eq!(host(&authorize), format!("{}.shop.example", values["shop"]));
    assert_eq!(authorize.path_segments().map(Iterator::count), Some(1), "{authorize}");
    assert!(authorize.query_pairs().count() <= 1, "{authorize}");
    let server = Url::parse(&values["server"]).expect("it was read");
    assert_eq!((host(&rendered.token.url), rendered.token.url.port()), (host(&server), server.port()));
    let zone = values.get("callback.zone").map_or("us", String::as_str);
    assert_eq!(host(&rendered.refresh.url), format!("{zone}.acme.example"));
    assert!(["eu", "us"].contains(&zone));
    assert!(rendered.revoke.is_none_or(|revoke| host(&revoke.endpoint.url) == "acme.example"));
    let addresses = rendered.api.base_url.iter().chain(rendered.lookups.iter().filter_map(|it| it.url.as_ref()));
    for url in addresses.chain(rendered.userinfo.iter().map(|userinfo| &userinfo.url)) {
        assert!(host(url).ends_with(".acme.example"), "{url}");
        assert!(url.scheme() == "https" && url.username().is_empty() && url.fragment().is_none(), "{url}");
    }
    assert_eq!(rendered.api.hosts, ["*.acme.example"]);
    if let Some(verify) = rendered.api.verify {
        let url = Url::parse(&format!("https://acme.example{}", verify.path)).expect("a path");
        assert_eq!((host(&url).as_str(), url.path_segments().map(Iterator::count)), ("acme.example", Some(1)));
    }
    let refresh_token = Secret::new("rt");
    for (endpoint, grant) in [
        (&rendered.token, Grant::ClientCredentials),
        (&rendered.refresh, Grant::RefreshToken { refresh_token: &refresh_token }),
    ] {
        let Ok(request) = token_request(endpoint, &client, &grant, None, &moment) else { continue };
        assert_eq!(request.uri().host(), endpoint.url.host_str());
        let body = request.body().expose();
        match request.headers()["content-type"].as_bytes() {
            b"application/json" => {
                let body: serde_json::Value = serde_json::from_slice(body).expect("escaped");
                assert_eq!(body["a"].as_str(), Some(values.get("any").map_or("", String::as_str)));
                assert_eq!((body["i"].as_str(), body.as_object().map(|it| it.len())), (Some("id-1"), Some(2)));
            }
            _ => {
                let pairs: Vec<_> = url::form_urlencoded::parse(body).collect();
                assert!(pairs.len() <= 5, "{pairs:?}");
                assert!(pairs.iter().any(|(name, value)| name == "refresh_token" && value == "rt"));
            }
        }
    }
});
