//! What is more than a request and a reply: events, WebSockets, trailers, early and interim answers, calls that are cut.

use super::*;
use crate::peers::{NodeApi, PythonApi};

/// The API sends no event before the last one was acknowledged: nothing may wait in between.
#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_come_one_by_one() {
    let api = PythonApi::start();
    for (base, script) in [(&api.plain, "events.py"), (&api.plain, "events.mjs"), (&api.tls, "events.py")] {
        let ways = Ways::to(base).await;
        let (straight, through): (Value, Value) = ways.run(|| program(script), &json!({}));
        assert_eq!(straight, through, "{script}");
        let events = through["events"].as_array().unwrap();
        assert!((9..=10).contains(&events.len()), "{script}: {events:?}");
        assert_eq!(events.last().unwrap()[2], "over", "{script}");
    }
}

fn program(script: &str) -> Command {
    if script.ends_with(".py") { python(script, "") } else { node(script, "") }
}

/// By two libraries, with compression, fragments, pings, large messages, and both sides closing.
#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_say_the_same() {
    let api = PythonApi::start();
    for base in [&api.plain, &api.tls] {
        let ways = Ways::to(base).await;
        for script in ["sockets.py", "sockets.mjs"] {
            let (mut straight, mut through): (Value, Value) = ways.run(|| program(script), &json!({}));
            for told in [&mut straight, &mut through] {
                // A name of a protocol, in letters of either kind (RFC 9110 §7.8).
                if let Some(upgrade) = told["opened"]["headers"].get_mut("upgrade") {
                    *upgrade = upgrade.as_str().unwrap().to_ascii_lowercase().into();
                }
                assert_eq!(told["first"]["path"], "/socket", "{script}: {told}");
            }
            assert_eq!(straight, through, "{script}");
            assert_eq!(through["opened"]["status"], 101, "{script}");
            assert_eq!(through["closed"], json!([4001, "until then"]), "{script}");
        }
    }
}

/// A trailer is passed on where it was announced: HTTP/1.1 has no other (RFC 9110 §6.6.2), and the client must have said that it takes them.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_go_both_ways() {
    let api = NodeApi::start();
    let mut post = sending("trailers", "POST", "/trailers", 100_000, true);
    post["headers"] = json!([["TE", "trailers"], ["Trailer", "x-checked, x-more"]]);
    post["trailers"] = json!([["x-checked", "yes"], ["x-more", "a b"]]);
    let calls = [with(get("/trailers"), &[("TE", "trailers")]), post];
    for (base, client) in [
        (&api.plain, Client::NodeHttp),
        (&api.tls, Client::NodeHttp2),
        (&api.tls, Client::NodeHttp),
        (&api.plain, Client::Curl),
    ] {
        let mut ways = Ways::to(base).await;
        ways.mixed = base == &api.tls;
        let seen = ways.compare(client, &calls);
        assert_eq!(seen[0].trailers.len(), 2, "{client:?}: {seen:?}");
        if client != Client::Curl {
            assert!(
                seen[1].text().contains("\"trailers\":{\"x-checked\":\"yes\",\"x-more\":\"a b\"}"),
                "{client:?}: {seen:?}"
            );
        }
    }
}

/// An answer that begins before the request is over goes on beside it.
#[tokio::test(flavor = "multi_thread")]
async fn early_answers_are_passed_on_while_the_request_goes_on() {
    let api = NodeApi::start();
    for (base, client) in [(&api.plain, Client::Curl), (&api.plain, Client::NodeHttp), (&api.tls, Client::NodeHttp2)] {
        let ways = Ways::mixed(base).await;
        let seen = ways.compare(client, &[sending("early", "POST", "/early", 500_000, true)]);
        assert_eq!(seen[0].length, 500_000 + "early\nlate\n".len() as u64, "{client:?}");
    }
}

/// The answer after an interim one (103) arrives; the interim one ends here.
#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_end_at_the_gateway() {
    let api = NodeApi::start();
    let ways = Ways::to(&api.plain).await;
    let key = ways.app.admin().key.unwrap();
    let job = json!({"calls": [get("/hints"), get("/x")]});
    for client in [Client::Curl, Client::NodeHttp] {
        let seen: Vec<Seen> = ways.tell(client.command(), &ways.gateway(), &key, &job);
        assert_eq!((seen[0].status, seen[0].text(), seen[1].status), (200, "hinted\n", 200), "{client:?}");
    }
}

/// Who asks with `Expect: 100-continue` and is refused has sent nothing: the API decides, not the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_refuses_a_body_before_it_is_sent() {
    let api = NodeApi::start();
    let ways = Ways::to(&api.plain).await;
    let asked = |path: &str| with(sending("expected", "PUT", path, 2_000_000, false), &[("Expect", "100-continue")]);
    let seen = ways.compare(Client::Curl, &[asked("/refused"), asked("/taken"), get("/x")]);
    assert_eq!((seen[0].status, seen[0].text()), (417, "not this\n"));
    assert!(seen[1].text().contains("\"length\": 2000000"), "{seen:?}");
}

/// A client that goes away in the middle of a reply takes the call along, at the API too.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_call_is_cut_at_the_api() {
    let api = NodeApi::start();
    for (base, version) in [(&api.plain, "--http1.1"), (&api.tls, "--http2-prior-knowledge")] {
        let ways = Ways::to(base).await;
        let authorization = format!("Authorization: Bearer {}", ways.app.admin().key.unwrap());
        let address = format!("{}/aborted", ways.gateway());
        let mut curl = Command::new("curl")
            .args(["--silent", "--no-buffer", version, "--header", &authorization, &address])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 100_000];
        tokio::task::block_in_place(|| {
            std::io::Read::read_exact(curl.stdout.as_mut().unwrap(), &mut first).unwrap();
            curl.kill().unwrap();
            curl.wait().unwrap();
        });
        assert!(first.iter().all(|byte| *byte == b'a'));
        let cut = if version == "--http1.1" { 1 } else { 2 };
        // The API answers this when it has seen so many.
        let told = ways.app.admin().get(&format!("/v1/connections/m/proxy/aborts?replies={cut}")).await;
        assert_eq!(told.json()["replies"], cut);
    }
}
