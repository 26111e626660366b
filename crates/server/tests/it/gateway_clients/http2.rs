//! HTTP/2 on one side or on both: without TLS and by prior knowledge to the gateway, negotiated by TLS with the API.

use super::http1::{echoes, read_calls, write_calls};
use super::*;
use crate::peers::{Nginx, NodeApi, PythonApi};

/// nginx resets streams whose heads are too long for it, instead of answering.
fn calls() -> Vec<Value> {
    read_calls().into_iter().filter(|call| call.to_string().len() < 10_000).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_by_http2_on_both_sides() {
    let nginx = Nginx::start();
    let ways = Ways::mixed(&nginx.tls).await;
    for client in Client::HTTP2 {
        let seen = ways.compare(client, &calls());
        assert!(seen.iter().all(|it| it.version == "2"), "{client:?}");
        ways.compare(client, &write_calls());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_by_http2_for_clients_that_speak_http1() {
    let nginx = Nginx::start();
    let ways = Ways::mixed(&nginx.tls).await;
    for client in [Client::Curl, Client::NodeHttp] {
        let seen = ways.compare(client, &calls());
        assert!(seen.iter().all(|it| it.version == "1.1"), "{client:?}");
        ways.compare(client, &write_calls());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apis_in_python_and_node_see_the_same_requests() {
    let (python, node) = (PythonApi::start(), NodeApi::start());
    for api in [&python.tls, &node.tls] {
        let ways = Ways::mixed(api).await;
        echoes(&ways, &Client::HTTP2);
    }
}
