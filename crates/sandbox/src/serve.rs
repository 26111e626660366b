//! The accept loop. It is our own because a fault must be able to cut a connection without a reply, and because a stopped
//! sandbox must not go on answering on connections that were kept open.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::reply::Hangup;

/// Accepts until `shutdown` completes. The connections' tasks belong to this future: they end with it.
pub(crate) async fn serve(router: Router, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(connection(router.clone(), stream)); }
                // Out of file descriptors, most likely: give the open connections time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(router: Router, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| respond(router.clone(), request));
    // No time limit: a connection that idles is not closed under a client's next request, unless a fault says so.
    let served = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service);
    // An error here is a client that went away or a fault that cut the connection: both are daily bread.
    let _ = served.await;
}

/// hyper cuts an HTTP/1 connection when the service fails, without a byte of a reply.
async fn respond(router: Router, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
    let response = router.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
    match response.extensions().get::<Hangup>() {
        Some(Hangup) => Err(io::ErrorKind::ConnectionAborted.into()),
        None => Ok(response),
    }
}
