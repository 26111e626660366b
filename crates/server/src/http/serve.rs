//! The loop that serves: bounded header time, a cap on connections, a graceful end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use keyholder_broker::Broker;
use keyholder_broker::clock::{Clock, millis};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use super::App;
use super::front::Front;

/// A client must send its headers within this.
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
/// Most connections at once, where the process may have that many open files; more wait in the kernel's queue.
const CONNECTIONS: usize = 16_384;
/// After a connection that could not be accepted: those that end meanwhile make room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Such failures are logged no more often than this.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(1);
/// A client that is still sending when its answer is there gets this long, and may send this much more, before the connection is closed.
const LINGER_WITHIN: Duration = Duration::from_secs(30);
const LINGER_BYTES: usize = 64 << 20;
/// Requests under way at a stop get this long.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Serves until `shutdown`, which says how long to go on accepting while the readiness probe says that it stops: whoever sends requests here needs
/// that long to notice. Then finishes requests and renewals under way.
pub async fn run(
    broker: Broker,
    listener: TcpListener,
    shutdown: impl Future<Output = Duration> + Send + 'static,
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
    let graceful = GracefulShutdown::new();
    let stopping = async {
        let delay = shutdown.await;
        serving.store(false, Ordering::Relaxed);
        Clock::System.sleep(delay).await;
    };
    accept_until(stopping, &listener, &app, &graceful).await;

    drop(listener);
    let _ = stop_scheduler.send(());
    let _ = scheduler.await;
    let requests = tokio::time::timeout(STOP_WITHIN, graceful.shutdown());
    if requests.await.is_err() {
        tracing::warn!("some requests were still under way when the time for stopping was over");
    }
    broker.finish_renewals().await;
    let _ = stop_follower.send(());
    let _ = follower.await;
    broker.change_mark().await;
    Ok(())
}

async fn accept_until(
    shutdown: impl Future<Output = ()>,
    listener: &TcpListener,
    app: &App,
    graceful: &GracefulShutdown,
) {
    let front = Front::new(app.clone());
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let slots = Arc::new(Semaphore::new(most_connections()));
    let mut acceptor = Acceptor { clock: Clock::System, logged_at: i64::MIN };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (acceptor.next(|| listener.accept()).await, slot)
        };
        let ((stream, _), slot) = tokio::select! {
            () = &mut shutdown => return,
            accepted = accepted => accepted,
        };
        let _ = stream.set_nodelay(true);
        let connection =
            graceful.watch(builder.serve_connection(TokioIo::new(Lingering::new(stream)), front.connection()));
        tokio::spawn(async move {
            // A client that goes away, or speaks no HTTP, is its own affair.
            let _ = connection.await;
            drop(slot);
        });
    }
}

/// A connection that is closed in a way that its last answer arrives: what the client is still sending is read and dropped. Closed at once, the
/// system would reset the connection, and a client that is in the middle of a body that was refused would never see why (RFC 9112 §9.6).
struct Lingering {
    stream: TcpStream,
    left: usize,
    /// Set when the last answer was sent.
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Lingering {
    fn new(stream: TcpStream) -> Self {
        Self { stream, left: LINGER_BYTES, until: None }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let until = this.until.get_or_insert_with(|| Box::pin(async { Clock::System.sleep(LINGER_WITHIN).await }));
        let mut dropped = [0; 16 << 10];
        loop {
            let mut buf = ReadBuf::new(&mut dropped);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && this.left > buf.filled().len() => {
                    this.left -= buf.filled().len();
                }
                // The end, too much, or a connection that is gone: there is nobody to wait for.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(cx).map(Ok),
            }
        }
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

/// As many as there may be open files, less a quarter for the calls outwards, the database and escrow.
fn most_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    most_open_files(&limits).map_or(CONNECTIONS, |files| (files - files / 4).clamp(1, CONNECTIONS))
}

/// The soft limit in Linux's `/proc/self/limits`; `None` where there is none, or no such file.
fn most_open_files(limits: &str) -> Option<usize> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
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

    #[test]
    fn the_limit_of_open_files_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max open files            1024                 524288               files     \n";
        assert_eq!(most_open_files(limits), Some(1024));
        assert_eq!(most_open_files("Max open files            unlimited            unlimited            files"), None);
        assert_eq!(most_open_files(""), None);
    }
}
