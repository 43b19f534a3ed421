//! The session as others see it: send, wait, close.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::proto::session::Unsendable;
use crate::server::now;
use crate::server::shared::{BURST, Shared, State};
use crate::{CloseReason, Frames, ProtocolVersion, Transport};

/// A session, to send to and to close. Cheap to clone; it does not keep the session open.
#[derive(Clone)]
pub struct SessionHandle(pub(crate) Arc<Shared>);

/// A [`SessionHandle`] that keeps nothing alive, for registries.
#[derive(Clone)]
pub struct WeakHandle(Weak<Shared>);

/// A message was not taken; it is given back.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The peer reads too slowly: `max_queued_bytes` or `max_queued_packets` would be exceeded.
    #[error("the session's outgoing queue is full: the peer does not read fast enough")]
    Full(Frames),
    /// The session is over.
    #[error("the session is closed")]
    Closed(Frames),
}

/// The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is closed")]
pub struct Closed;

impl SessionHandle {
    /// The session's id. It is a secret between client and server: whoever knows it can act as the client. (Socket.IO 2
    /// clients show it as their `socket.id`: see [`Config::allow_eio3`](crate::Config::allow_eio3).)
    pub fn sid(&self) -> &str {
        self.0.sid()
    }

    /// The transport in use now.
    pub fn transport(&self) -> Transport {
        self.0.look(|state| state.machine.transport())
    }

    /// The version of Engine.IO the client speaks.
    pub fn version(&self) -> ProtocolVersion {
        self.0.look(|state| state.machine.dialect().version)
    }

    /// Whether messages can still be sent.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Whether a message sent now would leave soon: the socket has taken everything so far (a poll waits, or has
    /// nothing to fetch).
    pub fn is_writable(&self) -> bool {
        self.0.look(|state| state.is_writable())
    }

    /// Sends, never blocking. From the session's own task, while it works off a read, the messages are queued and
    /// leave in one write at the end. From elsewhere a lone message is written at once; the rest of a burst, and what
    /// the socket does not take, is left to the session's task.
    ///
    /// # Errors
    /// [`SendError::Full`] and [`SendError::Closed`], with the messages given back.
    pub fn send(&self, frames: Frames) -> Result<(), SendError> {
        self.send_within(frames, BURST)
    }

    /// As [`send`](SessionHandle::send), for one of many recipients: what follows within `burst` on a message that was
    /// written at once is left to the session's task, where it may meet the next one and leave with it in one write.
    /// At least the 500 µs that hold for `send`.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send_within(&self, frames: Frames, burst: Duration) -> Result<(), SendError> {
        self.0.send(frames, burst.max(BURST)).map_err(|(why, frames)| match why {
            Unsendable::Full => SendError::Full(frames),
            Unsendable::Closed => SendError::Closed(frames),
        })
    }

    /// Waits until the queue is at most half full.
    ///
    /// # Errors
    /// The session is over.
    pub async fn ready(&self) -> Result<(), Closed> {
        self.until(|state| state.machine.has_room()).await
    }

    /// Whether messages of so many bytes and packets would be taken now, as far as room is concerned.
    pub fn has_room_for(&self, bytes: usize, packets: usize) -> bool {
        self.0.look(|state| state.machine.has_room_for(bytes, packets))
    }

    /// Waits until messages of so many bytes and packets (see [`Frames::len`] and [`Frames::packets`]) would be taken.
    /// Others may be quicker: it is no promise.
    ///
    /// # Errors
    /// The session is over.
    pub async fn room_for(&self, bytes: usize, packets: usize) -> Result<(), Closed> {
        self.until(|state| state.machine.has_room_for(bytes, packets)).await
    }

    async fn until(&self, room: impl Fn(&State) -> bool) -> Result<(), Closed> {
        loop {
            let news = self.0.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            self.0.waiting.store(true, Ordering::Relaxed);
            let (open, room) = self.0.look(|state| (state.machine.is_open(), room(state)));
            match (open, room) {
                (false, _) => return Err(Closed),
                (true, true) => return Ok(()),
                (true, false) => news.await,
            }
        }
    }

    /// Closes the engine session: what is queued is sent first, within `close_timeout`, then the close packet
    /// (polling) or close frame (websocket). The protocol's session is told at once. Closing twice does nothing.
    pub fn close(&self, reason: CloseReason) {
        self.0.act(|state| state.machine.close(reason, now()));
    }

    /// Has the session's [`poll`](crate::Session::poll) called once at `at`, or up to 100 ms after. There is one such instant
    /// per session, the one that was set last; `None` takes it back. One that is over is not woken. Unlike a timer of the
    /// session's own this costs a few bytes, and nothing when it is taken back.
    pub fn wake_at(&self, at: Option<Instant>) {
        match at {
            Some(_) => self.0.act(|state| state.alarm = at),
            None => self.0.within_batch(|state| state.alarm = None),
        }
    }

    /// Says that the session may be ready for more, for a reason that its own [`poll`](crate::Session::poll) does not see: if
    /// nothing is read from the peer because it was not ([`ready_for_more`](crate::Session::ready_for_more)), it is asked again.
    pub fn ask_again(&self) {
        self.0.look(|state| {
            if state.machine.is_paused() {
                state.wake_task();
            }
        });
    }

    /// A handle that keeps nothing alive.
    pub fn downgrade(&self) -> WeakHandle {
        WeakHandle(Arc::downgrade(&self.0))
    }
}

impl WeakHandle {
    /// The handle, while anybody still holds one.
    pub fn upgrade(&self) -> Option<SessionHandle> {
        self.0.upgrade().map(SessionHandle)
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The sid is a secret: it stays out of logs.
        f.debug_struct("SessionHandle").finish_non_exhaustive()
    }
}

impl fmt::Debug for WeakHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakHandle").finish_non_exhaustive()
    }
}
