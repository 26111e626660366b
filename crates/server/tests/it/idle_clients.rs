//! The real binary with ten thousand clients that keep their connections and say nothing.

use std::fs;
use std::path::Path;

use keyholder_sandbox::Sandbox;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::app::{Caller, auto_approving};
use crate::process::Server;

const CLIENTS: u64 = 10_000;
/// What a process needs beside its clients; the server keeps a quarter of its files for calls outwards.
const OTHERS: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections() {
    let clients = most_clients();
    if clients < CLIENTS {
        println!("only {clients} connections: the limit of open files allows no more (ulimit -Hn)");
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "warn");
    let (caller, _sandbox) = machine(&server, folder.path()).await;
    let call = async || caller.get("/v1/connections/m/proxy/me").await.ok(200);
    call().await;
    let before = memory_of(&server);
    let mut idle = Vec::new();
    for number in 0..clients {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        idle.push(stream);
        if number % 500 == 0 {
            call().await;
        }
    }
    for _ in 0..100 {
        call().await;
    }
    let each = memory_of(&server).saturating_sub(before) / clients;
    println!("{clients} idle connections: {each} bytes of memory each");
    assert!(each < 32 << 10, "{each} bytes for an idle connection");
    // They are still there, and can be used.
    let (first, last) = (idle.swap_remove(0), idle.pop().unwrap());
    for mut stream in [first, last] {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer).contains("HTTP/1.1 200 OK"));
    }
    drop(idle);
    call().await;
    let ended = tokio::task::block_in_place(|| server.terminate());
    assert!(ended.status.success(), "{}", ended.printed);
}

/// Raises this process's limit of open files, which its children inherit; answers how many clients fit beside the rest.
fn most_clients() -> u64 {
    // A third more than the server's clients: it keeps a quarter for itself.
    let wanted = CLIENTS * 4 / 3 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(wanted, |hard| hard.min(wanted)).max(limit.current.unwrap_or(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }).unwrap();
    CLIENTS.min((most.saturating_sub(OTHERS)) * 3 / 4)
}

/// A caller of the server, and the provider whose machine `m` it has connected.
async fn machine(server: &Server, folder: &Path) -> (Caller, Sandbox) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sandbox = Sandbox::with_system(auto_approving().at(&listener).unwrap());
    let serving = sandbox.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    let key = fs::read_to_string(folder.join("admin-key")).unwrap().trim().to_owned();
    let caller = Caller::of(&server.url, Some(key));
    let base = sandbox.base_url();
    let body = json!({
        "name": "own", "provider": "oauth2", "method": "client_credentials", "client_id": "sandbox-basic", "client_secret": "sandbox-secret",
        "variables": {"token_url": format!("{base}/token"), "api_base_url": format!("{base}/api")},
    });
    caller.post("/v1/integrations", body).await.ok(201);
    caller.post("/v1/connections", json!({"name": "m", "integration": "own"})).await.ok(201);
    caller.post("/v1/connections/m/authorize", json!({})).await.ok(200);
    (caller, sandbox)
}

/// Resident memory in bytes.
fn memory_of(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
