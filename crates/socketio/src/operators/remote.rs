//! One socket, wherever it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Broadcast, RoomNames, Sent};
use crate::adapter::{HandshakeInfo, SocketInfo};
use crate::error::BroadcastAckError;
use crate::namespace::Table;
use crate::packet::EmitArgs;

/// A socket of this or another server, as it was when fetched.
#[derive(Clone)]
pub struct RemoteSocket {
    info: SocketInfo,
    table: Arc<Table>,
    local: bool,
}

impl RemoteSocket {
    pub(super) fn new(info: SocketInfo, table: Arc<Table>, local: bool) -> RemoteSocket {
        RemoteSocket { info, table, local }
    }

    /// Its public id.
    pub fn id(&self) -> &str {
        &self.info.id
    }

    /// How it connected.
    pub fn handshake(&self) -> &HandshakeInfo {
        &self.info.handshake
    }

    /// The rooms it was in.
    pub fn rooms(&self) -> &[String] {
        &self.info.rooms
    }

    /// The data attached to it.
    pub fn data(&self) -> &serde_json::Value {
        &self.info.data
    }

    fn select(&self) -> Broadcast {
        let select = Broadcast::new(self.table.clone()).to(self.id());
        if self.local { select.local() } else { select }
    }

    /// With a time limit for its acknowledgement.
    pub fn timeout(&self, timeout: Duration) -> Broadcast {
        self.select().timeout(timeout)
    }

    /// Sends it an event, wherever it is.
    pub fn emit(&self, event: &str, args: impl EmitArgs) -> Sent {
        self.select().emit(event, args)
    }

    /// Sends it an event and waits for its acknowledgement.
    ///
    /// # Errors
    /// As [`Broadcast::emit_with_ack`]; nobody there any more is `Incomplete` too.
    pub async fn emit_with_ack<T: DeserializeOwned>(
        &self,
        event: &str,
        args: impl EmitArgs,
    ) -> Result<T, BroadcastAckError> {
        let answers = self.select().emit_with_ack(event, args).await?;
        let gone = || BroadcastAckError::Incomplete { answers: Vec::new(), expected: 1, missing: 1 };
        answers.into_iter().next().ok_or_else(gone)
    }

    /// Puts it into rooms.
    pub fn join(&self, rooms: impl RoomNames) {
        self.select().sockets_join(rooms);
    }

    /// Takes it out of rooms.
    pub fn leave(&self, rooms: impl RoomNames) {
        self.select().sockets_leave(rooms);
    }

    /// Disconnects it.
    pub fn disconnect(&self, close: bool) {
        self.select().disconnect_sockets(close);
    }
}

impl fmt::Debug for RemoteSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}
