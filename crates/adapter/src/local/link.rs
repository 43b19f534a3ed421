//! One link to another worker: a writing task with a bounded queue, and a reading task.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::frame::{Frame, FrameError, GREETING, read_frame, read_greeting};

/// How many bytes may wait for a peer that does not read. One frame is always taken when nothing else waits.
pub(crate) const QUEUE_LIMIT: usize = 16 << 20;
/// How many more bytes may wait so that the other side learns how its requests ended.
const NOTES_LIMIT: usize = 1 << 20;

/// The other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName {
    /// The worker's slot.
    pub slot: u16,
    /// Which worker of that slot.
    pub generation: u8,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (generation {})", self.slot, self.generation)
    }
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The peer does not read, and [`QUEUE_LIMIT`] bytes wait for it.
    Full,
    /// The peer is gone.
    Closed,
}

/// Who gets what a link reads.
pub(super) trait Receiver: Send + Sync + 'static {
    fn received(&self, link: &Arc<Link>, frame: Frame);
    /// The last call for this link.
    fn ended(&self, link: &Arc<Link>);
}

/// The sending side of a link; what is read goes to the [`Receiver`].
#[derive(Debug)]
pub(super) struct Link {
    /// Of this process: a worker's name may come back, a link does not.
    pub(super) id: u64,
    pub(super) peer: PeerName,
    queue: Mutex<Queue>,
    wake: Notify,
    /// Held by the one who waits for `room`: the others come after it.
    turn: tokio::sync::Mutex<()>,
    room: Notify,
    /// A stretch of drops has begun.
    full: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    dropped: u64,
    /// Within a stretch of drops, which is logged once.
    dropping: bool,
    closed: bool,
}

impl Queue {
    fn push(&mut self, frame: Bytes, limit: usize) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        if self.bytes > 0 && self.bytes + frame.len() > limit {
            return Err(Refused::Full);
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
        Ok(())
    }
}

impl Link {
    /// Starts both tasks, in the current runtime.
    pub(super) fn start(peer: PeerName, stream: UnixStream, receiver: Arc<dyn Receiver>) -> Arc<Link> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link {
            id,
            peer,
            queue: Mutex::default(),
            wake: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            room: Notify::new(),
            full: Notify::new(),
        });
        let (reader, writer) = stream.into_split();
        tokio::spawn(write(link.clone(), writer));
        tokio::spawn(read(link.clone(), reader, receiver));
        link
    }

    /// Queues a frame. Never waits, and logs nothing.
    pub(super) fn send(&self, frame: Bytes) -> Result<(), Refused> {
        self.send_within(QUEUE_LIMIT, frame)
    }

    /// Queues a small frame, also where [`send`](Link::send) would not any more.
    pub(super) fn note(&self, frame: Bytes) -> Result<(), Refused> {
        self.send_within(QUEUE_LIMIT + NOTES_LIMIT, frame)
    }

    /// Queues a frame as soon as there is room for it, behind all that wait for room already. Fails only when the link has
    /// ended.
    pub(super) async fn send_in_turn(&self, frame: Bytes) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        loop {
            let queued = self.queue.lock().push(frame.clone(), QUEUE_LIMIT);
            if queued != Err(Refused::Full) {
                self.wake.notify_one();
                return queued;
            }
            self.room.notified().await;
        }
    }

    fn send_within(&self, limit: usize, frame: Bytes) -> Result<(), Refused> {
        let mut queue = self.queue.lock();
        let queued = queue.push(frame, limit);
        if queued == Err(Refused::Full) {
            queue.dropped += 1;
            if !std::mem::replace(&mut queue.dropping, true) {
                // Told by the writing task: whoever sends may hold locks, and a log line may come back as a message.
                self.full.notify_one();
            }
            return queued;
        }
        drop(queue);
        self.wake.notify_one();
        queued
    }

    /// How many frames were dropped because the peer did not read.
    pub(super) fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// Ends the link once what is queued has been written.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
        self.room.notify_one();
    }

    /// The next frame to write. It counts as waiting until [`written`](Link::written).
    async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut queue = self.queue.lock();
                if let Some(frame) = queue.frames.pop_front() {
                    return Some(frame);
                }
                if queue.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    fn tell_of_drops(&self) {
        let queue = self.queue.lock();
        if !queue.dropping {
            return;
        }
        let waiting = queue.bytes;
        drop(queue);
        tracing::warn!(peer = %self.peer, waiting, "worker does not read its bus: messages to it are dropped");
    }

    fn written(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.bytes -= bytes;
        self.room.notify_one();
        if queue.bytes == 0 && std::mem::take(&mut queue.dropping) {
            let dropped = queue.dropped;
            drop(queue);
            tracing::warn!(peer = %self.peer, dropped, "worker reads its bus again; messages to it were dropped");
        }
    }
}

async fn write(link: Arc<Link>, mut writer: OwnedWriteHalf) {
    let result = async {
        writer.write_all(&GREETING).await?;
        while let Some(frame) = link.next().await {
            let mut writing = pin!(writer.write_all(&frame));
            loop {
                tokio::select! {
                    biased;
                    written = &mut writing => break written?,
                    () = link.full.notified() => link.tell_of_drops(),
                }
            }
            link.written(frame.len());
        }
        writer.shutdown().await
    };
    if let Err(error) = result.await {
        tracing::debug!(peer = %link.peer, %error, "a link of the bus ended");
    }
    // Nobody writes any more, so nothing may be queued.
    let mut queue = link.queue.lock();
    queue.closed = true;
    queue.frames.clear();
    queue.bytes = 0;
    drop(queue);
    link.room.notify_one();
}

async fn read(link: Arc<Link>, reader: OwnedReadHalf, receiver: Arc<dyn Receiver>) {
    let ending = Ending { link, receiver };
    let Ending { link, receiver } = &ending;
    let mut reader = BufReader::new(reader);
    let result: Result<(), FrameError> = async {
        read_greeting(&mut reader).await?;
        while let Some(frame) = read_frame(&mut reader).await? {
            // What is the app's in it may panic, destructors too. That is one message lost, not the link.
            if catch_unwind(AssertUnwindSafe(|| receiver.received(link, frame))).is_err() {
                tracing::error!(peer = %link.peer, "a message of the bus panicked");
            }
        }
        Ok(())
    }
    .await;
    match result {
        Ok(()) => tracing::debug!(peer = %link.peer, "a worker left the bus"),
        Err(FrameError::Io(error)) => tracing::debug!(peer = %link.peer, %error, "a worker left the bus"),
        Err(error) => tracing::error!(peer = %link.peer, %error, "a worker was cut off the bus"),
    }
}

/// However reading ends, the receiver hears of it.
struct Ending {
    link: Arc<Link>,
    receiver: Arc<dyn Receiver>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.link.close();
        self.receiver.ended(&self.link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::frame::encode;

    /// Tells of the end.
    struct Panics(tokio::sync::mpsc::UnboundedSender<()>);

    /// A panic that cannot even be caught.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload of a panic");
        }
    }

    impl Receiver for Panics {
        fn received(&self, _: &Arc<Link>, _: Frame) {
            std::panic::panic_any(Bomb);
        }

        fn ended(&self, _: &Arc<Link>) {
            self.0.send(()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_link_whose_reading_panics_has_ended() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (ended, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let link = Link::start(PeerName { slot: 0, generation: 1 }, ours, Arc::new(Panics(ended)));
        theirs.write_all(&GREETING).await.unwrap();
        theirs.write_all(&encode(b"{}", &[]).unwrap()).await.unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), hears.recv()).await.unwrap().unwrap();
        assert_eq!(link.send(Bytes::from_static(b"x")), Err(Refused::Closed));
        // The other side learns of it too.
        read_greeting(&mut theirs).await.unwrap();
        assert!(read_frame(&mut theirs).await.unwrap().is_none());
    }
}
