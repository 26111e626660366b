//! A client's socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use keyholder_broker::clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::clients::{Client, Slot};

/// A client that is still sending when its answer is there gets this long, and may send this much more, before the connection is closed.
const LINGER_WITHIN: Duration = Duration::from_secs(30);
const LINGER_BYTES: usize = 64 << 20;

/// A socket that says what goes on, and is closed in a way that its last answer arrives: what the client is still sending is read and dropped. Closed
/// at once, the system would reset the connection, and a client that is in the middle of a body that was refused would never see why (RFC 9112 §9.6).
pub(super) struct Stream {
    socket: TcpStream,
    client: Arc<Client>,
    /// Read before, and to be read again.
    again: Bytes,
    left: usize,
    /// Set when the last answer was sent.
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _slot: Slot,
}

impl Stream {
    pub(super) fn new(socket: TcpStream, client: Arc<Client>, slot: Slot) -> Self {
        Self { socket, client, again: Bytes::new(), left: LINGER_BYTES, until: None, _slot: slot }
    }

    /// Has these bytes read again first.
    pub(super) fn again(self, bytes: Bytes) -> Self {
        Self { again: bytes, ..self }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.again.is_empty() {
            let length = self.again.len().min(buf.remaining());
            buf.put_slice(&self.again[..length]);
            self.again.advance(length);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            self.client.sent();
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.client.took(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.client.took(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.until.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
        }
        let until = this.until.get_or_insert_with(|| Box::pin(async { Clock::System.sleep(LINGER_WITHIN).await }));
        let mut dropped = [0; 16 << 10];
        loop {
            let mut buf = ReadBuf::new(&mut dropped);
            match Pin::new(&mut this.socket).poll_read(cx, &mut buf) {
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
