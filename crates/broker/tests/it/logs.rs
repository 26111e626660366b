//! The log, as a test reads it: what was written so far, and a way to wait for a line.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tracing_subscriber::fmt::MakeWriter;

/// Catches everything that is logged on this thread while it lives; a test's runtime has only this one.
pub struct Logs {
    text: Buffer,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone)]
struct Buffer(Arc<watch::Sender<String>>);

impl Logs {
    pub fn catch() -> Self {
        let text = Buffer(Arc::new(watch::Sender::new(String::new())));
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(text.clone())
            .finish();
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub fn text(&self) -> String {
        self.text.0.borrow().clone()
    }

    /// Returns when a line with this text has been logged.
    pub async fn wait_for(&self, text: &str) {
        self.text.0.subscribe().wait_for(|log| log.contains(text)).await.unwrap();
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|log| log.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
