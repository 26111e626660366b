//! The loop that serves: bounded header time, a cap on connections, a graceful end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use keyholder_broker::Broker;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use super::{App, routes};

/// A client must send its headers within this.
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
/// Most connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 16_384;
/// Requests under way at a stop get this long.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Serves until `shutdown`; then finishes requests and renewals under way.
pub async fn run(
    broker: Broker,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let serving = Arc::new(AtomicBool::new(true));
    let app = App { broker: broker.clone(), serving: Arc::clone(&serving) };
    let (stop_scheduler, scheduler_stopped) = oneshot::channel::<()>();
    let scheduler = {
        let broker = broker.clone();
        tokio::spawn(async move {
            broker
                .run_scheduler(async {
                    let _ = scheduler_stopped.await;
                })
                .await;
        })
    };
    let graceful = GracefulShutdown::new();
    accept_until(shutdown, &listener, &app, &graceful).await;

    serving.store(false, Ordering::Relaxed);
    drop(listener);
    let _ = stop_scheduler.send(());
    let _ = scheduler.await;
    let requests = tokio::time::timeout(STOP_WITHIN, graceful.shutdown());
    if requests.await.is_err() {
        tracing::warn!("some requests were still under way when the time for stopping was over");
    }
    broker.finish_renewals().await;
    Ok(())
}

async fn accept_until(
    shutdown: impl Future<Output = ()>,
    listener: &TcpListener,
    app: &App,
    graceful: &GracefulShutdown,
) {
    let service = TowerToHyperService::new(routes::router(app.clone()));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            () = &mut shutdown => return,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, say: connections that end make room.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            // A client that goes away, or speaks no HTTP, is its own affair.
            let _ = connection.await;
            drop(slot);
        });
    }
}
