//! The loop that serves: a cap on connections, HTTP/1.1 and HTTP/2 with bounds on what a client may send, a graceful end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keyholder_broker::Broker;
use keyholder_broker::clock::{Clock, millis};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::App;
use super::clients::{Clients, Entered, Finish, LOOK_EVERY, Slot, watched};
use super::front::{Connection, Front};
use super::stream::Stream;

/// Most bytes of a request's head (HTTP/1.1), of a decoded one (HTTP/2), and of what is buffered of a message. A hundred headers are the most.
const HEAD_BYTES: u32 = 64 << 10;
/// Most requests at once on an HTTP/2 connection, and what it may send ahead of what is read of all of them.
const STREAMS: u32 = 128;
const WINDOW: u32 = 1 << 20;
/// Streams that a client opened and reset before they were looked at, and that we reset for its faults: with more, the connection ends.
const RESETS: usize = 20;
const FAULTS: usize = 64;
/// An HTTP/2 client that answers no ping for this long has gone. (By HTTP/1.1 only what it doesn't take tells.)
const PING: Duration = Duration::from_secs(20);
/// Most connections at once, where the process may have that many open files; more wait in the kernel's queue.
const CONNECTIONS: usize = 16_384;
/// After a connection that could not be accepted: those that end meanwhile make room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Such failures are logged no more often than this.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(1);
/// Requests under way at a stop get this long.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Serves until `shutdown`, which says how long to go on accepting while the readiness probe says that it stops: whoever sends requests here needs
/// that long to notice. Then finishes requests and renewals under way.
pub async fn run(
    broker: Broker,
    listener: TcpListener,
    shutdown: impl Future<Output = Duration> + Send + 'static,
) -> io::Result<()> {
    run_by(Clock::System, broker, listener, shutdown).await
}

/// As [`run`]; clients that are silent or slow are judged by this clock.
pub async fn run_by(
    clock: Clock,
    broker: Broker,
    listener: TcpListener,
    shutdown: impl Future<Output = Duration> + Send + 'static,
) -> io::Result<()> {
    let serving = Arc::new(AtomicBool::new(true));
    let app = App::new(broker.clone(), Arc::clone(&serving));
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
    let (stop_follower, follower_stopped) = oneshot::channel::<()>();
    let follower = {
        let broker = broker.clone();
        tokio::spawn(async move {
            broker
                .run_follower(async {
                    let _ = follower_stopped.await;
                })
                .await;
        })
    };
    let clients = Clients::new(most_connections());
    let looking = {
        let clients = Arc::clone(&clients);
        tokio::spawn(async move {
            loop {
                clock.sleep(LOOK_EVERY).await;
                clients.look();
            }
        })
    };
    let stopping = async {
        let delay = shutdown.await;
        serving.store(false, Ordering::Relaxed);
        Clock::System.sleep(delay).await;
    };
    accept_until(stopping, &listener, &Front::new(app), &clients).await;

    drop(listener);
    let _ = stop_scheduler.send(());
    let _ = scheduler.await;
    if Clock::System.timeout(STOP_WITHIN, clients.finish()).await.is_none() {
        tracing::warn!("some requests were still under way when the time for stopping was over");
    }
    looking.abort();
    broker.finish_renewals().await;
    broker.finish_records().await;
    let _ = stop_follower.send(());
    let _ = follower.await;
    broker.change_mark().await;
    Ok(())
}

async fn accept_until(
    shutdown: impl Future<Output = ()>,
    listener: &TcpListener,
    front: &Front,
    clients: &Arc<Clients>,
) {
    let protocols = Protocols::new();
    let mut acceptor = Acceptor { clock: Clock::System, logged_at: i64::MIN };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let slot = clients.slot().await;
            (acceptor.next(|| listener.accept()).await, slot)
        };
        let ((socket, _), slot) = tokio::select! {
            () = &mut shutdown => return,
            accepted = accepted => accepted,
        };
        let _ = socket.set_nodelay(true);
        let entered = clients.enter();
        let service = front.connection(&entered.client);
        tokio::spawn(protocols.clone().serve(socket, slot, entered, service));
    }
}

/// How clients are spoken with.
#[derive(Clone)]
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    fn new() -> Self {
        let mut http1 = http1::Builder::new();
        // Without timers: who is slow is noticed from outside.
        http1.header_read_timeout(None).max_buf_size(HEAD_BYTES as usize).max_header_size(HEAD_BYTES as usize);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            // Frames of a head that goes on and on are bounded by this too.
            .max_header_list_size(HEAD_BYTES)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(FAULTS)
            .initial_stream_window_size(WINDOW / 4)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(HEAD_BYTES as usize)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        Self { http1, http2 }
    }

    /// Serves one connection to its end. A client that goes away, or speaks no HTTP, is its own affair.
    async fn serve(self, socket: TcpStream, slot: Slot, entered: Entered, service: Connection) {
        let client = &entered.client;
        let stream = TokioIo::new(Stream::new(socket, Arc::clone(client), slot));
        let mut connection = self.http1.serve_connection(stream, service).with_upgrades();
        let Some(Err(error)) = watched(client, &mut connection).await else { return };
        // HTTP/2 with prior knowledge (RFC 9113 §3.3): its first bytes are no HTTP/1.1, and are read again.
        if error.is_parse_version_h2()
            && let Some(parts) = connection.into_parts()
        {
            client.speaks_http2();
            let stream = TokioIo::new(parts.io.into_inner().again(parts.read_buf));
            watched(client, &mut Box::pin(self.http2.serve_connection(stream, parts.service))).await;
        }
    }
}

impl Finish for http1::UpgradeableConnection<TokioIo<Stream>, Connection> {
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Finish for Pin<Box<http2::Connection<TokioIo<Stream>, Connection, TokioExecutor>>> {
    fn finish(self: Pin<&mut Self>) {
        self.get_mut().as_mut().graceful_shutdown();
    }
}

/// Accepts in spite of failures, which come in floods: without a free file descriptor every attempt fails at once.
struct Acceptor {
    clock: Clock,
    /// Unix milliseconds.
    logged_at: i64,
}

impl Acceptor {
    async fn next<T, F: Future<Output = io::Result<T>>>(&mut self, mut accept: impl FnMut() -> F) -> T {
        loop {
            match accept().await {
                Ok(accepted) => return accepted,
                Err(error) => self.say(&error),
            }
            self.clock.sleep(ACCEPT_PAUSE).await;
        }
    }

    fn say(&mut self, error: &io::Error) {
        let now = self.clock.now_ms();
        if now.saturating_sub(self.logged_at) >= millis(ACCEPT_LOG_EVERY) {
            self.logged_at = now;
            tracing::warn!(%error, "a connection could not be accepted; it is tried again");
        }
    }
}

/// As many as there may be open files, less a quarter for the calls outwards, the database and escrow. The soft limit is raised to the hard one first:
/// it is low for the sake of programs that use `select`.
fn most_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    files.map_or(CONNECTIONS, |files| (files - files / 4).clamp(1, CONNECTIONS))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use keyholder_broker::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn a_failed_accept_is_tried_again_after_a_pause() {
        let manual = ManualClock::starting_at(0);
        let mut acceptor = Acceptor { clock: Clock::Manual(manual.clone()), logged_at: i64::MIN };
        let tries = std::cell::Cell::new(0);
        let accept = || {
            tries.set(tries.get() + 1);
            let failed = tries.get() < 3;
            std::future::ready(if failed { Err(io::Error::other("too many open files")) } else { Ok(tries.get()) })
        };
        let mut accepted = Box::pin(acceptor.next(accept));
        for tried in 1..3 {
            assert!(accepted.as_mut().now_or_never().is_none());
            assert!(accepted.as_mut().now_or_never().is_none());
            assert_eq!(tries.get(), tried, "no try without a pause");
            manual.advance(ACCEPT_PAUSE);
        }
        assert_eq!(accepted.as_mut().await, 3);
        drop(accepted);
        assert_eq!(acceptor.logged_at, 0, "said once a second");
    }
}
