//! Probes.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::App;

/// The process is alive; whether it can work is [`ready`]'s.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// Not stopping, and the store can be read and written.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    if !app.serving.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "stopping"})));
    }
    match app.broker.ready().await {
        // It serves what it holds, so it stays in; who watches it sees that nothing is renewed.
        Ok(()) => match app.broker.fenced() {
            Some(fenced) => (StatusCode::OK, Json(json!({"status": "ok", "fenced": fenced.reason.as_str()}))),
            None => (StatusCode::OK, Json(json!({"status": "ok"}))),
        },
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "the database can't be read or written"}))),
    }
}
