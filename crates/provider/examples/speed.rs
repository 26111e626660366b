//! How long it takes to read definitions and to render requests: `cargo run --release -p keyholder-provider --example speed`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it measures, and shows what it measured"
)]

use std::time::Instant;

use keyholder_oauth::{Client, Grant, Moment, Secret, token_request};
use keyholder_provider::{Catalogue, Choice, Values, parse};

const DEFINITIONS: usize = 1000;
const REQUESTS: usize = 5000;
const RUNS: usize = 20;

fn main() {
    let catalogue = Catalogue::built_in();
    let loading = best(|| drop(std::hint::black_box(Catalogue::built_in())));
    println!("load the catalogue: {:.2} ms", loading * 1e3);
    let reading = best(|| assert!(std::hint::black_box(Catalogue::built_in().iter().count()) > 0));
    println!("read all of its {} definitions: {:.1} ms", catalogue.iter().count(), reading * 1e3);
    let texts: Vec<(String, String)> =
        catalogue.iter().map(|it| (format!("{}.toml", it.id), it.text.to_string())).collect();
    let many: Vec<_> = texts.iter().cycle().take(DEFINITIONS).collect();
    let bytes: usize = many.iter().map(|(_, text)| text.len()).sum();
    let reading = best(|| many.iter().for_each(|(file, text)| assert!(parse(file, text).is_ok())));
    println!("read {DEFINITIONS} definitions ({bytes} bytes): {:.1} ms", reading * 1e3);

    let client = Client { id: "client".into(), secret: Some("secret".into()), key: None };
    let moment = Moment { now_ms: 1_700_000_000_000, random: [7; 32] };
    let refresh_token = Secret::new("refresh token");
    for (id, pairs) in
        [("slack", vec![("user_scope", "chat:write users:read")]), ("salesforce", vec![]), ("microsoft", vec![])]
    {
        let definition = catalogue.definition(id).unwrap();
        let values: Values = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let choice = Choice { client: Some(client.clone()), moment: Some(moment), ..Choice::default() };
        let method = definition.method(None).unwrap();
        let rendering = best(|| {
            for _ in 0..REQUESTS {
                std::hint::black_box(definition.render(method, &values, &choice, None).unwrap());
            }
        });
        let rendered = definition.render(method, &values, &choice, None).unwrap();
        let grant = Grant::RefreshToken { refresh_token: &refresh_token };
        let requesting = best(|| {
            for _ in 0..REQUESTS {
                std::hint::black_box(token_request(&rendered.refresh, &client, &grant, None, &moment).unwrap());
            }
        });
        let each = |seconds: f64| seconds / REQUESTS as f64 * 1e6;
        println!("{id}: render everything {:.1} µs, make the request {:.1} µs", each(rendering), each(requesting));
    }
}

/// Seconds of the quickest of some runs.
fn best(work: impl Fn()) -> f64 {
    let once = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| once()).fold(f64::INFINITY, f64::min)
}
