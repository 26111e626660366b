//! A graceful stop of the real binary: who sends requests here notices first, and what a provider answers is kept.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::app::Caller;
use crate::process::{Server, keyholder};

/// A provider whose second token comes when it is let go.
struct Provider {
    base: String,
    asked: mpsc::Receiver<()>,
    go: watch::Sender<bool>,
}

impl Provider {
    async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (ask, asked) = mpsc::channel(8);
        let (go, gone) = watch::channel(false);
        let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let router = Router::new().fallback(async move |State(()): State<()>, _: Request| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            if number > 1 {
                let _ = ask.send(()).await;
                let _ = gone.clone().wait_for(|go| *go).await;
            }
            let body = json!({"access_token": format!("a{number}"), "token_type": "Bearer", "expires_in": 3600});
            let mut response = Response::new(axum::body::Body::from(body.to_string()));
            response.headers_mut().insert("content-type", "application/json".parse().unwrap());
            response
        });
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { base, asked, go }
    }
}

/// A server with a connection `m`, which has its first token.
async fn serving(provider: &Provider, folder: &std::path::Path, delay: &str) -> (Server, Caller) {
    let mut command = keyholder(folder);
    command.env("KEYHOLDER_STOP_DELAY", delay);
    let server = tokio::task::block_in_place(|| Server::of(command));
    let admin = admin(&server, folder);
    let variables = json!({"token_url": format!("{}/token", provider.base)});
    let body = json!({"name": "i", "provider": "oauth2", "method": "client_credentials", "client_id": "c", "client_secret": "s", "variables": variables});
    admin.post("/v1/integrations", body).await.ok(201);
    admin.post("/v1/connections", json!({"name": "m", "integration": "i"})).await.ok(201);
    admin.post("/v1/connections/m/authorize", json!({})).await.ok(200);
    (server, admin)
}

fn admin(server: &Server, folder: &std::path::Path) -> Caller {
    let key = std::fs::read_to_string(folder.join("admin-key")).unwrap();
    Caller::of(&server.url, Some(key.trim().to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_it_is_not_ready_while_it_still_serves_and_a_second_signal_ends_it_at_once() {
    let (provider, folder) = (Provider::serve().await, tempfile::tempdir().unwrap());
    let (server, admin) = serving(&provider, folder.path(), "1h").await;
    assert_eq!(admin.get("/readyz").await.ok(200)["status"], "ok");
    server.signal();
    while admin.get("/readyz").await.status == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(admin.get("/readyz").await.ok(503)["status"], "stopping");
    assert_eq!(admin.get("/v1/connections/m/token").await.ok(200)["access_token"], "a1");
    server.signal();
    let ended = tokio::task::block_in_place(|| server.ended());
    assert_eq!(ended.status.code(), Some(1), "{}", ended.printed);
    assert!(ended.printed.contains("second signal"), "{}", ended.printed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_in_flight_is_committed_before_the_end() {
    let (mut provider, folder) = (Provider::serve().await, tempfile::tempdir().unwrap());
    let (server, admin) = serving(&provider, folder.path(), "0").await;
    let caller = admin.clone();
    // Whoever asked goes away; the renewal is nobody's future.
    let asking = tokio::spawn(async move { caller.post("/v1/connections/m/refresh", json!({})).await });
    provider.asked.recv().await.unwrap();
    asking.abort();
    let url = server.url.clone();
    server.signal();
    while tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    provider.go.send(true).unwrap();
    let ended = tokio::task::block_in_place(|| server.ended());
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
    assert_eq!(std::fs::read_dir(folder.path().join("escrow")).unwrap().count(), 0, "committed, not only kept");

    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "info"));
    let token = self::admin(&server, folder.path()).get("/v1/connections/m/token").await.ok(200);
    assert_eq!((token["access_token"].as_str(), token["generation"].as_i64()), (Some("a2"), Some(2)));
    assert!(provider.asked.try_recv().is_err(), "nothing more was sent");
}
