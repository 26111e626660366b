//! HTTP/1.1 on both sides.

use super::*;
use crate::peers::{Nginx, NodeApi, PythonApi};

/// Files, ranges, validators, compression, methods, targets, statuses.
pub(super) fn read_calls() -> Vec<Value> {
    let mut calls = Vec::new();
    for file in ["empty.txt", "one.txt", "page.html", "record.json", "random.bin"] {
        calls.push(get(&format!("/files/{file}")));
        calls.push(call(&format!("HEAD {file}"), "HEAD", &format!("/files/{file}")));
        calls.push(with(get(&format!("/gzip/{file}")), &[("Accept-Encoding", "gzip")]));
        calls.push(with(get(&format!("/gzip/{file}")), &[("Accept-Encoding", "identity")]));
    }
    for range in ["bytes=0-9", "bytes=-5", "bytes=3000000-", "bytes=0-0", "bytes=99999999-", "bytes=nonsense"] {
        calls.push(with(get("/files/random.bin"), &[("Range", range)]));
    }
    for condition in [
        ("If-None-Match", "\"6553f100-1\""),
        ("If-None-Match", "W/\"other\""),
        ("If-Match", "\"other\""),
        ("If-Modified-Since", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("If-Unmodified-Since", "Tue, 14 Nov 2000 22:13:20 GMT"),
    ] {
        calls.push(with(get("/files/one.txt"), &[condition]));
    }
    calls.push(with(get("/files/one.txt"), &[("If-Range", "\"6553f100-1\""), ("Range", "bytes=0-0")]));
    for status in [204, 301, 302, 304, 307, 400, 403, 404, 409, 410, 418, 422, 500, 599] {
        calls.push(get(&format!("/{status}")));
    }
    for target in
        ["/", "/a/b", "/a%2Fb", "/%C3%A4?x=%20+%2B&&x=1&=", "/a;b=c,d?", "/@me:x", "/a?next=https://evil.example/?x"]
    {
        calls.push(with(get(target), &[("X-Own", "stays; a=\"b, c\""), ("Accept", "text/csv;q=0.5, */*")]));
    }
    for method in ["POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT"] {
        calls.push(call(method, method, "/methods"));
    }
    calls.push(call("POST to a file", "POST", "/files/one.txt"));
    calls.push(get("/headers"));
    calls.push(get(&format!("/{}", "long".repeat(3000))));
    calls.push(with(get("/"), &[("X-Own", &"long".repeat(3000))]));
    calls
}

/// Uploads of known and unknown length, read back and removed.
pub(super) fn write_calls() -> Vec<Value> {
    let mut calls = Vec::new();
    for (size, chunked) in [(0, false), (1, false), (1, true), (300_000, false), (5_000_000, false), (5_000_000, true)]
    {
        let how = format!("{size} bytes, chunked: {chunked}");
        let mut put = call(&format!("PUT {how}"), "PUT", "/upload/a/b");
        put["body"] = json!({"size": size, "chunked": chunked});
        put["headers"] = json!([["Content-Type", "application/x-own"]]);
        calls.extend([
            put,
            call(&format!("GET {how}"), "GET", "/upload/a/b"),
            call(&format!("DELETE {how}"), "DELETE", "/upload/a/b"),
        ]);
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_serves_files_ranges_and_refusals() {
    let nginx = Nginx::start();
    let ways = Ways::to(&nginx.plain).await;
    for client in Client::HTTP1 {
        let seen = ways.compare(client, &read_calls());
        assert!(seen.iter().any(|it| it.status == 206) && seen.iter().any(|it| it.status == 599), "{client:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_takes_uploads() {
    let nginx = Nginx::start();
    let ways = Ways::to(&nginx.plain).await;
    for client in Client::HTTP1 {
        let seen = ways.compare(client, &write_calls());
        let kept = seen.iter().filter(|it| it.name.starts_with("GET"));
        assert_eq!(
            kept.map(|it| it.length).collect::<Vec<_>>(),
            [0, 1, 1, 300_000, 5_000_000, 5_000_000],
            "{client:?}"
        );
    }
}

/// Refused by its length while it is still being sent.
#[tokio::test(flavor = "multi_thread")]
async fn nginx_refuses_what_is_too_large() {
    let nginx = Nginx::start();
    let ways = Ways::to(&nginx.plain).await;
    let mut put = call("PUT too much", "PUT", "/small/x");
    put["body"] = json!({"size": 3_000_000});
    for client in [Client::Curl, Client::Requests, Client::Httpx, Client::NodeHttp] {
        let seen = ways.compare(client, &[put.clone(), get("/files/one.txt")]);
        assert_eq!((seen[0].status, seen[1].status), (413, 200), "{client:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_in_python_sees_the_same_requests() {
    let api = PythonApi::start();
    let ways = Ways::to(&api.plain).await;
    echoes(&ways, &Client::HTTP1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_in_node_sees_the_same_requests() {
    let api = NodeApi::start();
    let ways = Ways::to(&api.plain).await;
    echoes(&ways, &Client::HTTP1);
    for client in Client::HTTP1 {
        ways.compare(client, &[get("/odd")]);
    }
}

pub(super) fn echoes(ways: &Ways, clients: &[Client]) {
    let mut calls = vec![get("/x/y%2Fz?a=%20b&c")];
    for (body, method) in [
        (json!({"text": ""}), "POST"),
        (json!({"text": "{\"a\": \"caf\u{e9}\"}"}), "PATCH"),
        (json!({"size": 300_000}), "POST"),
        (json!({"size": 3_000_000}), "PUT"),
        (json!({"size": 3_000_000, "chunked": true}), "POST"),
    ] {
        let mut it = call(&format!("{method} {body}"), method, "/bodies");
        it["body"] = body;
        it["headers"] =
            json!([["Content-Type", "application/json; charset=utf-8"], ["Prefer", "respond-async"], ["X-Empty", ""]]);
        calls.push(it);
    }
    for &client in clients {
        for seen in ways.compare(client, &calls) {
            let shown: Value = serde_json::from_str(seen.text()).unwrap();
            assert!(!shown.to_string().contains("khk_"), "{shown}");
        }
    }
}
