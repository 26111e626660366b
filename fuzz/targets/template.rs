//! Any text as a URL, a path, a header and a parameter of a definition, filled with anything: what was written in the template's host
//! stays the host.
#![no_main]

use keyholder_oauth::{Client, Grant, Moment, token_request};
use keyholder_provider::{Choice, Values, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut parts = text.split('\u{1f}');
    let (url, path, plain, value) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let quoted = |text: &str| serde_json::Value::from(text).to_string().replace('\u{7f}', "");
    let file = format!(
        "schema = 1\nid = \"a\"\nname = \"A\"\n[[methods]]\ngrant = \"client_credentials\"\n\
         [variables.v]\npresence = \"optional\"\n[variables.h]\nkind = \"host\"\npattern = \"[a-z]+\"\n\
         [token]\nurl = {}\nclient_auth = \"none\"\nheaders = {{ X-A = {p} }}\nparams = {{ v = \"{{{{v}}}}\", h = \"{{{{h}}}}\", p = {p} }}\n\
         [api]\nbase_url = \"https://b.example\"\nverify = {}\n",
        quoted(url),
        quoted(if path.is_empty() { "/" } else { path }),
        p = quoted(plain),
    );
    let Ok(definition) = parse("a.toml", &file) else { return };
    let choice = Choice { moment: Some(Moment { now_ms: 0, random: [0; 32] }), ..Choice::default() };
    let filled = |v: &str| {
        let values = Values::from([("h".to_owned(), "eu".to_owned()), ("v".to_owned(), v.to_owned())]);
        definition.render(&definition.methods[0], &values, &choice, None).ok()
    };
    let Some(known) = filled("x") else { return };
    let Some(rendered) = filled(value) else { return };
    assert_eq!(
        (rendered.token.url.scheme(), rendered.token.url.host(), rendered.token.url.port()),
        (known.token.url.scheme(), known.token.url.host(), known.token.url.port())
    );
    assert!(rendered.token.url.username().is_empty() && rendered.token.url.fragment().is_none());
    assert_eq!(rendered.token.url.path_segments().map(Iterator::count), known.token.url.path_segments().map(Iterator::count));
    if let Some(verify) = rendered.api.verify {
        assert!(verify.path.starts_with('/') && !verify.path.starts_with("//") && !verify.path.contains(['\\', '#', '\n']));
    }
    let client = Client { id: "id".into(), secret: None, key: None };
    let moment = Moment { now_ms: 0, random: [0; 32] };
    if let Ok(request) = token_request(&rendered.token, &client, &Grant::ClientCredentials, None, &moment) {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(request.body().expose()).into_owned().collect();
        let sent = pairs.iter().find(|(name, _)| name == "v").map_or("", |(_, value)| value);
        assert_eq!(sent, value);
    }
});
