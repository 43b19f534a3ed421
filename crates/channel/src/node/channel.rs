//! The channel in a runtime: one task receives, one writes what is left over, everybody sends.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::decode::decode;
use super::deframe::{Deframer, Piece};
use super::message::{FromWorker, Handed, Serialization, ToWorker};
use super::outbox::{Confirmed, Outbox, OutboxLimits, Over};
use super::stream;

/// How long to wait when the system has too many descriptors on their way: no event tells when there are fewer.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);

/// Bounds of what a worker can make the supervisor hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message taken from the worker. A longer one is read and dropped.
    pub message_bytes: usize,
    /// What may wait for the worker to read it. Over it a [`ToWorker::Relay`] is refused.
    pub queue_bytes: usize,
    /// Descriptors on their way that the worker has not confirmed: it keeps them if it is stuck.
    pub in_flight_handles: usize,
    /// Descriptors that wait behind those.
    pub queued_handles: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 16 * 1024 * 1024,
            queue_bytes: 64 * 1024 * 1024,
            in_flight_handles: 8,
            queued_handles: 1024,
        }
    }
}

/// A message that was not taken, with the descriptor in it.
#[derive(Debug, thiserror::Error)]
#[error("the message to the Node worker was not sent: {why}")]
pub struct SendError {
    /// The message.
    pub message: Box<ToWorker>,
    /// Why.
    pub why: WhyNot,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhyNot {
    /// The channel has ended or was closed.
    #[error("its channel has ended")]
    Closed,
    /// See [`Limits::queue_bytes`].
    #[error("more than `queue_bytes` wait for it to read them")]
    QueueBytes,
    /// See [`Limits::queued_handles`].
    #[error("more than `queued_handles` connections wait for it to take them")]
    QueuedHandles,
}

/// Makes a channel: the supervisor's end (nonblocking) and the worker's. Both are closed on exec; the worker's has to be
/// left open for the child (for instance with `command-fds`).
///
/// # Errors
/// When the system has no sockets left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours.into(), theirs.into()))
}

/// What the environment of a Node worker must say: where its channel is, and which number it has. Node removes all three
/// before the app runs.
pub fn env(fd: RawFd, serialization: Serialization, unique_id: u64) -> [(&'static str, String); 3] {
    let mode = match serialization {
        Serialization::Advanced => "advanced",
        Serialization::Json => "json",
    };
    [
        ("NODE_CHANNEL_FD", fd.to_string()),
        ("NODE_CHANNEL_SERIALIZATION_MODE", mode.to_owned()),
        ("NODE_UNIQUE_ID", unique_id.to_string()),
    ]
}

/// What was read and not yet looked at. Belongs to the task that receives.
#[derive(Debug, Default)]
pub struct Inbox {
    deframer: Option<Deframer>,
    /// The last read brought a descriptor. It belongs to the last message of that read: the kernel ends one there.
    got_handle: bool,
    /// The message of which a part was read brought a descriptor.
    partial_has_handle: bool,
}

/// The supervisor's end of the channel to a Node worker.
#[derive(Debug)]
pub struct NodeChannel {
    // Never used as a stream: tokio's socket is what watches a descriptor it owns.
    socket: UnixStream,
    serialization: Serialization,
    message_bytes: usize,
    outbox: Mutex<Outbox>,
    closed: AtomicBool,
    /// There is something for `run`: more to write than the socket took, or the end.
    wake: Notify,
}

/// How far writing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flushed {
    All,
    Blocked,
    Crowded,
    Closed,
}

impl NodeChannel {
    /// Takes our end into the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    ///
    /// # Panics
    /// Outside of a runtime with IO enabled.
    pub fn new(ours: OwnedFd, serialization: Serialization, limits: Limits) -> io::Result<Self> {
        stream::prepare(ours.as_fd())?;
        let outbox_limits = OutboxLimits {
            queue_bytes: limits.queue_bytes,
            in_flight_handles: limits.in_flight_handles,
            queued_handles: limits.queued_handles,
        };
        Ok(Self {
            socket: UnixStream::from_std(ours.into())?,
            serialization,
            message_bytes: limits.message_bytes,
            outbox: Mutex::new(Outbox::new(serialization, outbox_limits)),
            closed: AtomicBool::new(false),
            wake: Notify::new(),
        })
    }

    /// The next message. `None`: the channel has ended. One task only. Reads whether or not there is room to write.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the system fails; the channel is of no use then.
    pub async fn recv(&self, inbox: &mut Inbox) -> io::Result<Option<FromWorker>> {
        let Inbox { deframer, got_handle, partial_has_handle } = inbox;
        let deframer = deframer.get_or_insert_with(|| Deframer::new(self.serialization, self.message_bytes));
        loop {
            if let Some(piece) = deframer.next() {
                return Ok(Some(self.took(piece, std::mem::take(partial_has_handle))));
            }
            *partial_has_handle |= std::mem::take(got_handle) && deframer.is_amid_frame();
            let read =
                self.socket.async_io(Interest::READABLE, || stream::recv(self.socket.as_fd(), deframer));
            match read.await {
                Ok(stream::Read { bytes: 0, .. }) => {
                    self.close();
                    return Ok(None);
                }
                Ok(read) => *got_handle = read.descriptors > 0,
                Err(error) => {
                    self.close();
                    return Err(error);
                }
            }
        }
    }

    fn took(&self, piece: Piece, had_handle: bool) -> FromWorker {
        let message = match piece {
            Piece::Frame(frame) => decode(self.serialization, frame),
            Piece::TooLong(bytes) => {
                tracing::warn!(
                    bytes,
                    limit = self.message_bytes,
                    "skipped a Node worker's message: too long"
                );
                if had_handle {
                    self.confirm_handle();
                }
                return FromWorker::TooLong { bytes };
            }
        };
        let confirmed = |this: &Self| {
            let mut outbox = this.outbox.lock();
            let confirmed = outbox.confirm();
            this.flush_or_wake(&mut outbox);
            match confirmed {
                Confirmed::Connection(seq) => Some(seq),
                Confirmed::Shared | Confirmed::Ping | Confirmed::Nothing => None,
            }
        };
        match message {
            FromWorker::HandleAck { .. } => FromWorker::HandleAck { seq: confirmed(self) },
            FromWorker::HandleNack { .. } => FromWorker::HandleNack { seq: confirmed(self) },
            FromWorker::Handle => {
                self.confirm_handle();
                FromWorker::Handle
            }
            other => other,
        }
    }

    fn confirm_handle(&self) {
        let mut outbox = self.outbox.lock();
        outbox.push_handle_ack();
        self.flush_or_wake(&mut outbox);
    }

    /// Queues the message and writes as much as the socket takes now. Never waits; [`run`](Self::run) writes the rest.
    ///
    /// # Errors
    /// Gives the message back, with its descriptor, when the channel has ended or the message is over a limit.
    pub fn send(&self, message: ToWorker) -> Result<(), SendError> {
        let refused = |message, why| Err(SendError { message: Box::new(message), why });
        let mut outbox = self.outbox.lock();
        // Looked at under the lock: nothing is queued after `close` has emptied the queue.
        if self.is_closed() {
            return refused(message, WhyNot::Closed);
        }
        match outbox.push(message) {
            Ok(()) => {
                self.flush_or_wake(&mut outbox);
                Ok(())
            }
            Err((message, Over::QueueBytes)) => refused(message, WhyNot::QueueBytes),
            Err((message, Over::QueuedHandles)) => refused(message, WhyNot::QueuedHandles),
        }
    }

    /// Writes what is queued as the socket takes it. Ends when the channel does. One task only. Cancel-safe.
    pub async fn run(&self) {
        loop {
            let flushed = self.flush(&mut self.outbox.lock());
            match flushed {
                Flushed::All => self.wake.notified().await,
                Flushed::Crowded => tokio::time::sleep(CROWDED_PAUSE).await,
                Flushed::Blocked => tokio::select! {
                    _ = self.socket.async_io(Interest::WRITABLE, || self.flush_ready()) => {}
                    () = self.wake.notified() => {}
                },
                Flushed::Closed => return,
            }
        }
    }

    /// Since when the worker owes the answer to a ping or to a descriptor: how long its event loop has not turned.
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.outbox.lock().unanswered_since()
    }

    /// The channel has ended, or was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Drops what is queued; sending fails from now on, and [`run`](Self::run) ends. The worker sees the end of the
    /// channel when this value is dropped.
    pub fn close(&self) {
        let mut outbox = self.outbox.lock();
        self.close_locked(&mut outbox);
    }

    fn close_locked(&self, outbox: &mut Outbox) {
        self.closed.store(true, Ordering::Release);
        outbox.clear();
        self.wake.notify_one();
    }

    /// Takes back the connections in the queue that `pick` wants, so that others can have them. Those already written
    /// are out of reach.
    pub fn take_unsent(&self, pick: impl FnMut(&Handed) -> bool) -> Vec<Handed> {
        self.outbox.lock().take_unsent(pick)
    }

    fn flush_or_wake(&self, outbox: &mut Outbox) {
        if self.flush(outbox) != Flushed::All {
            self.wake.notify_one();
        }
    }

    fn flush(&self, outbox: &mut Outbox) -> Flushed {
        if self.is_closed() {
            return Flushed::Closed;
        }
        while let Some((bytes, fd)) = outbox.next() {
            match stream::send(self.socket.as_fd(), bytes, fd.map(AsFd::as_fd)) {
                Ok(written) => outbox.wrote(written),
                Err(stream::SendFailed::Blocked) => return Flushed::Blocked,
                Err(stream::SendFailed::Crowded) => return Flushed::Crowded,
                Err(stream::SendFailed::Ended(error)) => {
                    tracing::debug!(%error, "a Node worker's channel has ended");
                    self.close_locked(outbox);
                    return Flushed::Closed;
                }
            }
        }
        Flushed::All
    }

    /// For tokio, which has to hear when the socket is full to wait for it.
    fn flush_ready(&self) -> io::Result<()> {
        match self.flush(&mut self.outbox.lock()) {
            Flushed::Blocked => Err(io::ErrorKind::WouldBlock.into()),
            Flushed::All | Flushed::Crowded | Flushed::Closed => Ok(()),
        }
    }
}
