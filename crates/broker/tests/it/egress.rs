//! Outbound calls by the real resolver and real sockets.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use keyholder_broker::clock::{Clock, ManualClock};
use keyholder_broker::egress::{Bounds, Egress, EgressError, EgressFault, Fetched, Policy};
use keyholder_oauth::SecretBytes;

use crate::app::{App, START};
use crate::fake::Fake;

fn egress(allow: &str) -> (Egress, ManualClock) {
    let clock = ManualClock::starting_at(START);
    (Egress::new(Clock::Manual(clock.clone()), Policy::new(allow.parse().unwrap()), None).unwrap(), clock)
}

async fn fetch(egress: &Egress, url: &str) -> Result<Fetched, EgressError> {
    let request = Request::post(url).body(SecretBytes::new(b"secret=planted".to_vec())).unwrap();
    egress.fetch(request, Bounds::PROVIDER).await
}

#[tokio::test]
async fn this_machine_is_refused_by_name_and_by_address_unless_it_is_listed() {
    let fake = Fake::start().await;
    let port = fake.address.port();
    let (closed, _) = egress("");
    for scheme in ["http", "https"] {
        for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "127.1"] {
            let error = fetch(&closed, &format!("{scheme}://{host}:{port}/")).await.err().unwrap();
            // The odd spellings may already be no name to the resolver or to TLS.
            assert!(
                matches!(error.what, EgressFault::Refused(_)) || host == "2130706433" || host == "127.1",
                "{error}"
            );
            assert!(!error.what.may_have_arrived(), "{error}");
        }
    }
    assert!(fake.is_quiet());
    let (open, _) = egress("127.0.0.1");
    for host in ["127.0.0.1", "localhost"] {
        let answer = async {
            let mut fake = Fake::start().await;
            let url = format!("http://{host}:{}/", fake.address.port());
            let provider = async { fake.next().await.json(200, serde_json::json!({})) };
            tokio::join!(fetch(&open, &url), provider).0
        };
        assert_eq!(answer.await.unwrap().status, 200, "{host}");
    }
}

#[tokio::test]
async fn a_rule_with_a_port_opens_that_port_only() {
    let (listed, other) = (Fake::start().await, Fake::start().await);
    let (egress, _) = egress(&listed.address.to_string());
    for url in [
        format!("http://{}/", other.address),
        format!("https://{}/", other.address),
        format!("http://localhost:{}/", other.address.port()),
        format!("https://localhost:{}/", other.address.port()),
    ] {
        let error = fetch(&egress, &url).await.err().unwrap();
        assert!(matches!(error.what, EgressFault::Refused(_)), "{url}: {error}");
    }
    // The listed one is reached: it speaks no TLS.
    let error = fetch(&egress, &format!("https://localhost:{}/", listed.address.port())).await.err().unwrap();
    assert!(!matches!(error.what, EgressFault::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_redirect_of_the_token_endpoint_is_not_followed() {
    let app = App::start().await;
    app.consented("crm").await;
    app.fault("token=redirect");
    app.advance(3600);
    let error = app.token("crm").await.unwrap_err().to_string();
    assert!(error.contains("redirects elsewhere") && error.contains("Set the token endpoint"), "{error}");
    assert_eq!((app.seen("elsewhere"), app.sent("refresh_token")), (0, 1));
}

#[tokio::test]
async fn a_huge_reply_is_cut_off() {
    let app = App::start().await;
    app.fault("token=huge");
    app.add_integration(app.plain("client_credentials")).await;
    app.add_connection("crm", "client_credentials").await;
    let error = app.run("crm").await.unwrap_err().to_string();
    assert!(error.contains(&format!("larger than {} bytes", 1 << 20)), "{error}");
}

#[tokio::test]
async fn silence_ends_by_the_clock_wherever_it_begins() {
    let mut fake = Fake::start().await;
    let (egress, clock) = egress("127.0.0.1");
    let url = fake.url("/");
    let silence = async {
        let arrived = fake.next().await;
        clock.advance(Duration::from_secs(30));
        arrived
    };
    let (fetched, _arrived) = tokio::join!(fetch(&egress, &url), silence);
    let error = fetched.err().unwrap();
    assert_eq!(error.what, EgressFault::Timeout(Duration::from_secs(30)));
    assert!(error.what.may_have_arrived());

    // Also in the middle of a body.
    let (frames, body) = tokio::sync::mpsc::unbounded_channel::<Result<&str, std::io::Error>>();
    let answer = async {
        let arrived = fake.next().await;
        let body = futures_util::stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
        arrived.respond(Response::new(Body::from_stream(body)));
        frames.send(Ok("{\"access_")).unwrap();
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(30));
    };
    let (fetched, ()) = tokio::join!(fetch(&egress, &url), answer);
    assert_eq!(fetched.err().unwrap().what, EgressFault::Timeout(Duration::from_secs(30)));
    drop(frames);
}

#[tokio::test]
async fn what_is_shown_of_a_failed_call_is_its_origin() {
    let (egress, _) = egress("");
    let error = fetch(&egress, "https://user:pass@10.0.0.1/token?client_secret=planted").await.err().unwrap();
    assert_eq!(error.origin, "https://10.0.0.1");
    assert!(!format!("{error} {error:?}").contains("planted"));
}
