//! When a person or a supervisor wants a server to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first interrupt (Ctrl-C) or termination signal.
pub(crate) async fn stop() {
    let received = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            // Without a handler the signal ends the process by itself.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = received(SignalKind::interrupt()) => {}
        () = received(SignalKind::terminate()) => {}
    }
}
