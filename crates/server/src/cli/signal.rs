//! When a person or a supervisor wants a server to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Completes at the first interrupt (Ctrl-C) or termination signal after the call, not only after the first poll: a server says that it is there when it can
/// already be stopped.
pub(crate) fn stop() -> impl Future<Output = ()> + Send + 'static {
    // Without a handler the signal ends the process by itself.
    let (interrupt, terminate) = (signal(SignalKind::interrupt()).ok(), signal(SignalKind::terminate()).ok());
    async move {
        tokio::select! {
            () = received(interrupt) => {}
            () = received(terminate) => {}
        }
    }
}

async fn received(signals: Option<Signal>) {
    match signals {
        Some(mut signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}
