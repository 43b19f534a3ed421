//! The channel in a runtime: one task receives, one writes what is left over, everybody sends.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use super::message::{FromWorker, Handed, Serialization, ToWorker};

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
pub struct Inbox {}

/// The supervisor's end of the channel to a Node worker.
#[derive(Debug)]
pub struct NodeChannel {
    _socket: OwnedFd,
}

impl NodeChannel {
    /// Takes our end into the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    ///
    /// # Panics
    /// Outside of a runtime with IO enabled.
    pub fn new(ours: OwnedFd, _serialization: Serialization, _limits: Limits) -> io::Result<Self> {
        Ok(Self { _socket: ours })
    }

    /// The next message. `None`: the channel has ended. One task only. Reads whether or not there is room to write.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the system fails; the channel is of no use then.
    pub async fn recv(&self, _inbox: &mut Inbox) -> io::Result<Option<FromWorker>> {
        Ok(None)
    }

    /// Queues the message and writes as much as the socket takes now. Never waits; [`run`](Self::run) writes the rest.
    ///
    /// # Errors
    /// Gives the message back, with its descriptor, when the channel has ended or the message is over a limit.
    pub fn send(&self, message: ToWorker) -> Result<(), SendError> {
        Err(SendError { message: Box::new(message), why: WhyNot::Closed })
    }

    /// Writes what is queued as the socket takes it. Ends when the channel does. One task only. Cancel-safe.
    pub async fn run(&self) {}

    /// Drops what is queued; sending fails from now on, and [`run`](Self::run) ends. The worker sees the end of the
    /// channel when this value is dropped.
    pub fn close(&self) {}

    /// Takes back the connections in the queue that `pick` wants, so that others can have them. Those already written
    /// are out of reach.
    pub fn take_unsent(&self, _pick: impl FnMut(&Handed) -> bool) -> Vec<Handed> {
        Vec::new()
    }
}
