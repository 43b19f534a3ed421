//! The two ends of a channel: [`Endpoint`] needs no runtime, [`Channel`] lives in one.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{ToSupervisor, ToWorker, Welcome};
use crate::inherit::{self, InheritError};
use crate::seqpacket::{self, MAX_MESSAGE};

/// How long a sender waits when the system has too many descriptors on the way.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);

/// The supervisor's end.
pub type SupervisorChannel = Channel<ToSupervisor, ToWorker>;
/// The worker's end.
pub type WorkerChannel = Channel<ToWorker, ToSupervisor>;

/// Why a message could not be sent. The message, and the descriptor, were not sent in part either.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The other side has too much unread. Wait, or use another worker.
    #[error("the channel is full: the other side does not read")]
    Full,
    /// The other side is gone.
    #[error("the channel is closed: the other side is gone")]
    Closed,
    /// The message is longer than a packet may be.
    #[error("a message of {size} bytes is over the channel's limit of {MAX_MESSAGE}")]
    TooLong {
        /// Its length in bytes.
        size: usize,
    },
    /// The system refused.
    #[error("cannot send over the channel: {0}")]
    Io(#[source] io::Error),
}

/// Why no message could be received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// A packet came that is no message of this protocol. The next one can still be received.
    #[error("not a message of this protocol ({source}): {text:?}")]
    Unknown {
        /// Why it could not be read.
        source: serde_json::Error,
        /// Its beginning.
        text: String,
    },
    /// The system refused.
    #[error("cannot receive over the channel: {0}")]
    Io(#[from] io::Error),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        match rustix::io::Errno::from_io_error(&error) {
            // TOOMANYREFS: too many descriptors on the way; ends as the other side takes some. NOBUFS likewise.
            Some(rustix::io::Errno::AGAIN | rustix::io::Errno::TOOMANYREFS | rustix::io::Errno::NOBUFS) => {
                Self::Full
            }
            Some(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET | rustix::io::Errno::NOTCONN) => {
                Self::Closed
            }
            _ => Self::Io(error),
        }
    }
}

/// Makes a channel: the supervisor's end and the worker's.
///
/// # Errors
/// When the system has no sockets left.
pub fn pair() -> io::Result<(Endpoint<ToSupervisor, ToWorker>, Endpoint<ToWorker, ToSupervisor>)> {
    let (ours, theirs) = seqpacket::pair()?;
    Ok((Endpoint::new(ours), Endpoint::new(theirs)))
}

/// One end of a channel, without a runtime: to queue messages for a process that does not run yet, and to read the
/// first one before there is a runtime. Receives `R`, sends `S`.
#[derive(Debug)]
pub struct Endpoint<R, S> {
    socket: OwnedFd,
    messages: PhantomData<fn(S) -> R>,
}

impl<R: DeserializeOwned, S: Serialize> Endpoint<R, S> {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, messages: PhantomData }
    }

    /// Sends without waiting, with a descriptor beside it if there is one. The descriptor stays open here.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn try_send(&self, message: &S, fd: Option<BorrowedFd<'_>>) -> Result<(), SendError> {
        send(self.socket.as_fd(), message, fd)
    }

    /// Waits for a message, blocking the thread, at most for `timeout`. `None` when the other side is gone.
    ///
    /// # Errors
    /// Also when the time is over ([`io::ErrorKind::TimedOut`]).
    pub fn recv_blocking(&self, timeout: Duration) -> Result<Option<(R, Option<OwnedFd>)>, RecvError> {
        loop {
            if !seqpacket::wait_readable(self.socket.as_fd(), timeout)? {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no message within {timeout:?}"),
                )
                .into());
            }
            match recv(self.socket.as_fd()) {
                Err(RecvError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => continue,
                done => return done,
            }
        }
    }

    /// Moves the end into the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    ///
    /// # Panics
    /// Outside of a runtime with IO enabled.
    pub fn into_channel(self) -> io::Result<Channel<R, S>> {
        Ok(Channel { socket: UnixStream::from_std(self.socket.into())?, messages: PhantomData })
    }

    /// The descriptor, to let a child inherit it (for instance with `command-fds`).
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// The value of [`ENV`](crate::ENV) for a child that inherits this end as descriptor `fd`.
    ///
    /// # Errors
    /// When the socket cannot be inspected.
    pub fn env_value(&self, fd: RawFd) -> io::Result<String> {
        inherit::env_value(self.socket.as_fd(), fd)
    }
}

impl Endpoint<ToWorker, ToSupervisor> {
    /// Takes the end that the supervisor left for this process. `None` when there is no supervisor: the process was
    /// started by hand, or by a worker.
    ///
    /// # Errors
    /// See [`InheritError`]. A second call is an error too.
    pub fn from_env() -> Result<Option<Self>, InheritError> {
        Ok(inherit::take()?.map(Self::new))
    }

    /// Reads the [`Welcome`], which the supervisor queued before this process began: it does not wait in practice.
    ///
    /// # Errors
    /// When it does not come within `timeout`, or something else comes.
    pub fn welcome(&self, timeout: Duration) -> Result<Welcome, RecvError> {
        match self.recv_blocking(timeout)? {
            Some((ToWorker::Welcome(welcome), _)) => Ok(welcome),
            Some((other, _)) => {
                Err(io::Error::other(format!("the first message must be the welcome, not {other:?}")).into())
            }
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// One end of a channel in a runtime. Receives `R`, sends `S`; both by `&self`, so one task may receive while others
/// send (share it in an `Arc`). Messages arrive in the order they were sent.
#[derive(Debug)]
pub struct Channel<R, S> {
    // Not really a stream, and never used as one: tokio's socket is what watches a descriptor it owns.
    socket: UnixStream,
    messages: PhantomData<fn(S) -> R>,
}

impl<R: DeserializeOwned, S: Serialize> Channel<R, S> {
    /// Waits for a message. `None` when the other side is gone. Cancel-safe: a dropped call loses no message.
    ///
    /// # Errors
    /// See [`RecvError`].
    pub async fn recv(&self) -> Result<Option<(R, Option<OwnedFd>)>, RecvError> {
        let read = || match recv(self.socket.as_fd()) {
            Err(RecvError::Io(error)) => Err(error),
            done => Ok(done),
        };
        self.socket.async_io(Interest::READABLE, read).await?
    }

    /// Sends, waiting while the other side has too much unread. The descriptor stays open here. Cancel-safe: a dropped
    /// call has sent all or nothing.
    ///
    /// # Errors
    /// Never [`SendError::Full`].
    pub async fn send(&self, message: &S, fd: Option<BorrowedFd<'_>>) -> Result<(), SendError> {
        let text = encode(message)?;
        loop {
            let write = || seqpacket::send(self.socket.as_fd(), &text, fd);
            let Err(error) = self.socket.async_io(Interest::WRITABLE, write).await else { return Ok(()) };
            match SendError::from(error) {
                // Not this socket's own queue is full but what all of them may have on the way: no event tells when
                // that has room again.
                SendError::Full => tokio::time::sleep(CROWDED_PAUSE).await,
                error => return Err(error),
            }
        }
    }

    /// Sends without waiting. The descriptor stays open here: close it once the worker has confirmed it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn try_send(&self, message: &S, fd: Option<BorrowedFd<'_>>) -> Result<(), SendError> {
        send(self.socket.as_fd(), message, fd)
    }
}

thread_local! {
    /// One per thread that talks over channels, not one per channel.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn send<S: Serialize>(
    socket: BorrowedFd<'_>,
    message: &S,
    fd: Option<BorrowedFd<'_>>,
) -> Result<(), SendError> {
    seqpacket::send(socket, &encode(message)?, fd).map_err(SendError::from)
}

fn encode<S: Serialize>(message: &S) -> Result<Vec<u8>, SendError> {
    let text = serde_json::to_vec(message).map_err(|error| SendError::Io(error.into()))?;
    if text.len() > MAX_MESSAGE { Err(SendError::TooLong { size: text.len() }) } else { Ok(text) }
}

fn recv<R: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Option<(R, Option<OwnedFd>)>, RecvError> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(MAX_MESSAGE, 0);
        let Some((length, fd)) = seqpacket::recv(socket, buffer)? else {
            return Ok(None);
        };
        let text = &buffer[..length];
        match serde_json::from_slice(text) {
            Ok(message) => Ok(Some((message, fd))),
            Err(source) => {
                let text = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
                Err(RecvError::Unknown { source, text })
            }
        }
    })
}
