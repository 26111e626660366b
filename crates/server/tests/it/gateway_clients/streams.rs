//! What is more than a request and a reply: events, WebSockets, trailers, early and interim answers, calls that are cut.

use super::*;
use crate::peers::{NodeApi, PythonApi};

/// The API sends no event before the last one was acknowledged: nothing may wait in between.
#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_come_one_by_one() {
    let api = PythonApi::start();
    for (base, script) in [(&api.plain, "events.py"), (&api.plain, "events.mjs")] {
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
