//! When a person or a supervisor wants a server to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A person at the terminal (Ctrl-C).
    Interrupt,
    /// A supervisor.
    Terminate,
}

/// The signals that came since it was made, not only since they were first waited for: a server says that it is there when it can already be stopped.
pub(crate) struct Stops {
    // Without a handler the signal ends the process by itself.
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Stops {
    pub(crate) fn listen() -> Self {
        Self { interrupt: signal(SignalKind::interrupt()).ok(), terminate: signal(SignalKind::terminate()).ok() }
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            () = received(self.interrupt.as_mut()) => Stop::Interrupt,
            () = received(self.terminate.as_mut()) => Stop::Terminate,
        }
    }
}

/// Completes at the first signal after the call.
pub(crate) fn stop() -> impl Future<Output = ()> + Send + 'static {
    let mut stops = Stops::listen();
    async move {
        stops.next().await;
    }
}

async fn received(signals: Option<&mut Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}
