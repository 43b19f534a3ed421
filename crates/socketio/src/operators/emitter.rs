//! To one socket: `socket.volatile().timeout(...).emit(...)`.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Broadcast, Flags, RoomNames};
use crate::Socket;
use crate::ack::AckFuture;
use crate::error::EmitError;
use crate::packet::EmitArgs;

/// How to emit to one socket.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until `emit`"]
pub struct SocketEmitter {
    socket: Socket,
    timeout: Duration,
    flags: Flags,
}

impl SocketEmitter {
    pub(crate) fn new(socket: Socket) -> SocketEmitter {
        let timeout = socket.inner().table.options.ack_timeout;
        SocketEmitter { socket, timeout, flags: Flags::default() }
    }

    /// Only if the socket is ready to receive at this moment.
    pub fn volatile(mut self) -> SocketEmitter {
        self.flags.volatile = true;
        self
    }

    /// Whether it may be compressed, where the client's connection does that; without this, it may. For what is compressed
    /// already, like images.
    pub fn compress(mut self, compress: bool) -> SocketEmitter {
        self.flags.uncompressed = !compress;
        self
    }

    /// How long to wait for the acknowledgement.
    pub fn timeout(mut self, timeout: Duration) -> SocketEmitter {
        self.timeout = timeout;
        self
    }

    /// To the others in these rooms instead.
    pub fn to(self, rooms: impl RoomNames) -> Broadcast {
        self.broadcast().to(rooms)
    }

    /// To the others in the namespace instead.
    pub fn broadcast(self) -> Broadcast {
        let mut broadcast = self.socket.broadcast().timeout(self.timeout);
        broadcast.opts.volatile = self.flags.volatile;
        broadcast.opts.uncompressed = self.flags.uncompressed;
        broadcast
    }

    /// As [`Socket::emit`].
    ///
    /// # Errors
    /// As there; with `volatile`, an event that was left out is no error.
    pub fn emit(&self, event: &str, args: impl EmitArgs) -> Result<(), EmitError> {
        self.socket.emit_as(event, args, self.flags)
    }

    /// As [`Socket::emit_with_ack`]. With `volatile`, an event that was left out is [`EmitError::LeftOut`].
    pub fn emit_with_ack<T: DeserializeOwned>(&self, event: &str, args: impl EmitArgs) -> AckFuture<T> {
        AckFuture::send(&self.socket, event, args, self.timeout, self.flags)
    }

    /// Emits the event `message`.
    ///
    /// # Errors
    /// As [`emit`](SocketEmitter::emit).
    pub fn send(&self, args: impl EmitArgs) -> Result<(), EmitError> {
        self.emit("message", args)
    }
}
