//! To whom and how: `io.to("room").except("other").volatile().emit(...)`.

mod broadcast;
mod emitter;
mod remote;
mod room_names;

use sundew_engineio::Frames;

use crate::Socket;
use crate::error::EmitError;
use crate::namespace::Listening;

pub use broadcast::Broadcast;
pub use emitter::SocketEmitter;
pub use remote::RemoteSocket;
pub use room_names::RoomNames;

/// How one event is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flags {
    /// Only if the socket is ready to receive.
    pub(crate) volatile: bool,
    /// As it is, even if the connection compresses.
    pub(crate) uncompressed: bool,
}

impl Flags {
    /// Frames as they were asked for.
    pub(crate) fn mark(self, frames: Frames) -> Frames {
        if self.uncompressed { frames.without_compression() } else { frames }
    }
}

/// What became of a broadcast on this server. May be ignored.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many sockets of this server it was handed to.
    pub sockets: usize,
    /// Those it could not be handed to: disconnected meanwhile, or their queue was full (the namespace's policy was
    /// applied). Those a volatile event was not meant for are in neither count.
    pub failed: usize,
    /// Why nothing was sent at all, if so. It was logged.
    pub error: Option<EmitError>,
}

impl Sent {
    pub(crate) fn count(
        &mut self,
        delivered: &Result<bool, EmitError>,
        socket: &Socket,
        listening: Option<&Listening>,
    ) {
        match delivered {
            Ok(true) => {
                self.sockets += 1;
                if let Some(listening) = listening {
                    listening.tell(socket);
                }
            }
            Ok(false) => {}
            Err(_) => self.failed += 1,
        }
    }

    pub(crate) fn and(self, other: Sent) -> Sent {
        Sent {
            sockets: self.sockets + other.sockets,
            failed: self.failed + other.failed,
            error: self.error.or(other.error),
        }
    }
}
