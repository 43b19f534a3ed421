//! A session that goes from one process to another: frozen here, resumed there, and only one of the two ever speaks.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::oneshot;

use super::now;
use super::registry::NoPlace;
use super::shared::{Arrival, AtRest, Shared, Taker};
use super::socket::split;
use crate::CloseReason;
use crate::proto::framing::Framing;
use crate::proto::websocket::Decoder;

/// The version of what [`Exported::state`] gives.
const VERSION: u8 = 1;

/// A session on a websocket, frozen at rest: nothing is read from its connection or written to it. Dropped, it goes on
/// here as if nothing had happened.
#[derive(Debug)]
pub struct Exported {
    frozen: Frozen,
    state: Vec<u8>,
}

/// Thaws the session when dropped.
struct Frozen(Option<Arc<Shared>>);

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.act(|state| state.set_frozen(false));
            shared.wake_task();
        }
    }
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The sid is a secret: it stays out of logs.
        f.write_str("Frozen")
    }
}

impl Exported {
    /// What [`Engine::import`](crate::Engine::import) needs in the other process.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// The session goes on in the other process. What was sent to it meanwhile leaves over its old connection, which then
    /// ends without a close frame: that is for whoever holds the client's.
    ///
    /// Returns whether the session was still open. If not, it was closed here since it was frozen: the protocol has been told
    /// of its end, its old connection ends with a close frame, and the other process should let go of it, too.
    pub fn release(mut self) -> bool {
        let Some(shared) = self.frozen.0.take() else { return false };
        let open = shared.act(|state| {
            let open = state.machine.is_open();
            state.set_frozen(false);
            state.machine.move_away(now());
            open
        });
        shared.wake_task();
        open
    }
}

impl Exported {
    /// The session goes on in the other process, with this connection: to be passed there, where [`Arriving::attach`] takes
    /// it. The bytes were sent to the session meanwhile; they are whole frames, and have to be written to the connection
    /// before anything else. None if the session has ended, or has a connection that cannot be passed on.
    pub async fn into_socket(mut self) -> Option<(sundew_io::Raw, Vec<u8>)> {
        let shared = self.frozen.0.take()?;
        let (taker, socket) = oneshot::channel();
        let mut frozen = Frozen(Some(shared.clone()));
        shared.act(|state| state.taker = state.machine.is_open().then(|| Box::new(Taker::Socket(taker))));
        shared.wake_task();
        let socket = socket.await.ok();
        if socket.is_some() {
            // There is nothing to thaw any more.
            frozen.0 = None;
        }
        socket
    }
}

/// Freezes a session if it is at rest. `limit`: the most bytes of [`Exported::state`].
pub(crate) async fn export(shared: Arc<Shared>, limit: usize) -> Option<Exported> {
    let (taker, answer) = oneshot::channel();
    let asked = shared.act(|state| {
        // One at a time; nor twice, once it is frozen.
        let free = state.taker.is_none() && !state.frozen && state.machine.is_open();
        if free {
            state.taker = Some(Box::new(Taker::State(taker)));
        }
        free
    });
    if !asked {
        return None;
    }
    shared.wake_task();
    let AtRest { state, half_read } = Answer { shared: shared.clone(), answer }.wait().await?;
    let frozen = Frozen(Some(shared.clone()));
    let mut bytes = vec![VERSION];
    for part in [shared.sid().as_bytes(), &half_read, &state] {
        bytes.extend_from_slice(&u32::try_from(part.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    (bytes.len() <= limit).then_some(Exported { frozen, state: bytes })
}

/// Waits for the session's task. Dropped after the task has answered, it thaws the session.
struct Answer {
    shared: Arc<Shared>,
    answer: oneshot::Receiver<Option<AtRest>>,
}

impl Answer {
    async fn wait(mut self) -> Option<AtRest> {
        (&mut self.answer).await.ok().flatten()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.answer.close();
        if matches!(self.answer.try_recv(), Ok(Some(_))) {
            drop(Frozen(Some(self.shared.clone())));
        }
    }
}

/// A session that is being exported, read again.
pub(crate) struct State<'a> {
    pub(crate) sid: &'a str,
    pub(crate) half_read: &'a [u8],
    pub(crate) session: &'a [u8],
}

impl<'a> State<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Option<State<'a>> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut part = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = after;
            Some(part)
        };
        let (sid, half_read, session) = (part()?, part()?, part()?);
        rest.is_empty().then_some(State { sid: std::str::from_utf8(sid).ok()?, half_read, session })
    }
}

/// Why a session of another process cannot go on here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is none, or of another version.
    #[error("not a session of this version")]
    Unreadable,
    /// A session of that id is here already, or the engine was closed, or is full.
    #[error("no place for the session: {0}")]
    NoPlace(&'static str),
    /// The protocol above cannot take it.
    #[error("{0}")]
    Refused(String),
}

impl From<NoPlace> for ImportError {
    fn from(no_place: NoPlace) -> ImportError {
        ImportError::NoPlace(no_place.message())
    }
}

/// A session of another process whose connection has not come yet: it is in the table and can be sent to, and everything
/// waits. Dropped, it is gone, and nobody is told.
pub struct Arriving {
    pub(crate) shared: Option<Arc<Shared>>,
    pub(crate) half_read: BytesMut,
}

impl Arriving {
    /// Goes on with `socket`, and with what was read from it meanwhile and belongs to the session. The client is pinged at
    /// once.
    ///
    /// Returns whether the session took it. If not, it was closed before its connection came, which ends here.
    pub fn attach(mut self, socket: sundew_io::Raw, read: &[u8]) -> bool {
        let Some(shared) = self.shared.take() else { return false };
        let (reader, writer) = split(socket);
        let mut unread = std::mem::take(&mut self.half_read);
        unread.extend_from_slice(read);
        let decoder = Framing::Websocket(Decoder::new(shared.registry().config.max_payload));
        let taken = shared.act(|state| {
            if !state.machine.is_open() {
                // Its task may be gone, and nobody would see the connection end.
                state.machine.disconnected();
                return false;
            }
            state.writer = Some(writer);
            state.arrival = Some(Box::new(Arrival { reader, decoder, unread }));
            state.set_frozen(false);
            state.machine.arrived(now());
            true
        });
        shared.wake_task();
        taken
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.act(|state| state.machine.forget(CloseReason::Moved));
            shared.wake_task();
        }
    }
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arriving").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_session_is_refused() {
        let whole = [&[VERSION, 0, 0, 0, 2][..], b"id", &[0, 0, 0, 0], &[0, 0, 0, 1, b'x']].concat();
        let read = State::read(&whole).unwrap();
        assert_eq!((read.sid, read.half_read, read.session), ("id", &b""[..], &b"x"[..]));
        for cut in 0..whole.len() {
            assert!(State::read(&whole[..cut]).is_none(), "{cut}");
        }
        assert!(State::read(&[&whole[..], b"more"].concat()).is_none());
        assert!(State::read(&[&[VERSION + 1], &whole[1..]].concat()).is_none());
    }
}
