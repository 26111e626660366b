//! What the kernel saw happen in a data folder, by inotify: nothing that a process did before it was killed is missed, and nobody has to look again and again.

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::sync::watch;

/// Eyes on one data folder.
pub struct Eyes {
    /// Where a mark is set behind all that was seen before.
    mark: PathBuf,
    marks: u64,
    replies: Arc<Mutex<Vec<String>>>,
    seen: watch::Sender<Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    /// Since the last [`Eyes::replies_named`].
    stopped: bool,
    marks: u64,
}

impl Eyes {
    pub fn on(folder: &Path) -> Self {
        let events = inotify::init(CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&events, folder, WatchFlags::CLOSE_WRITE).unwrap();
        inotify::add_watch(&events, folder.join("escrow"), WatchFlags::MOVED_TO).unwrap();
        let (replies, seen) = (Arc::<Mutex<Vec<String>>>::default(), watch::Sender::default());
        let (named, tell): (_, watch::Sender<Seen>) = (Arc::clone(&replies), seen.clone());
        // It ends with the tests' process.
        std::thread::spawn(move || {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(events, &mut buffer);
            while let Ok(event) = reader.next() {
                let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
                match name {
                    "stopped-at" => tell.send_modify(|seen| seen.stopped = true),
                    "mark" => tell.send_modify(|seen| seen.marks += 1),
                    reply if reply.ends_with(".reply") => named.lock().unwrap().push(reply.to_owned()),
                    _ => {}
                }
            }
        });
        Self { mark: folder.join("mark"), marks: 0, replies, seen }
    }

    /// Returns when a process stands still at its point.
    pub async fn stopped(&self) {
        self.seen.subscribe().wait_for(|seen| seen.stopped).await.unwrap();
    }

    /// The replies that were given their names in escrow since the last call. To be called when the process is dead.
    pub async fn replies_named(&mut self) -> Vec<String> {
        self.marks += 1;
        std::fs::write(&self.mark, "").unwrap();
        self.seen.subscribe().wait_for(|seen| seen.marks == self.marks).await.unwrap();
        self.seen.send_modify(|seen| seen.stopped = false);
        std::mem::take(&mut self.replies.lock().unwrap())
    }
}
