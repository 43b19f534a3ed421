//! Why sockets leave.

use std::fmt;

use sundew_engineio::CloseReason;

/// Why a socket left its namespace. The texts are those of Node's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The client closed its connection, or lost it.
    TransportClose,
    /// The connection failed, or the client broke a rule of the transport (a message over the limit).
    TransportError,
    /// The client did not answer a heartbeat in time.
    PingTimeout,
    /// The client sent an Engine.IO packet that cannot be read.
    ParseError,
    /// The client broke a rule of Socket.IO (a malformed packet, a reserved event, a second CONNECT), or this side closed
    /// the connection.
    ForcedClose,
    /// The client was too slow: its outgoing queue was full, and the namespace disconnects then
    /// ([`OnFull`](crate::OnFull)). Not a reason of Node's.
    QueueFull,
    /// [`Socket::disconnect`](crate::Socket::disconnect) was called.
    ServerNamespaceDisconnect,
    /// The client left the namespace.
    ClientNamespaceDisconnect,
    /// The server closes.
    ServerShuttingDown,
}

impl DisconnectReason {
    /// Whether a socket that left for it may be recovered: neither side wanted it to leave
    /// ([`Builder::connection_state_recovery`](crate::Builder::connection_state_recovery)).
    pub fn is_recoverable(self) -> bool {
        !matches!(
            self,
            DisconnectReason::ParseError
                | DisconnectReason::ServerNamespaceDisconnect
                | DisconnectReason::ClientNamespaceDisconnect
        )
    }

    /// The reason as Node's server words it.
    pub fn as_str(self) -> &'static str {
        match self {
            DisconnectReason::TransportClose => "transport close",
            DisconnectReason::TransportError => "transport error",
            DisconnectReason::PingTimeout => "ping timeout",
            DisconnectReason::ParseError => "parse error",
            DisconnectReason::ForcedClose => "forced close",
            DisconnectReason::QueueFull => "queue full",
            DisconnectReason::ServerNamespaceDisconnect => "server namespace disconnect",
            DisconnectReason::ClientNamespaceDisconnect => "client namespace disconnect",
            DisconnectReason::ServerShuttingDown => "server shutting down",
        }
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<CloseReason> for DisconnectReason {
    fn from(reason: CloseReason) -> DisconnectReason {
        match reason {
            CloseReason::TransportClose => DisconnectReason::TransportClose,
            CloseReason::TransportError => DisconnectReason::TransportError,
            CloseReason::PingTimeout => DisconnectReason::PingTimeout,
            CloseReason::ParseError => DisconnectReason::ParseError,
            CloseReason::ServerShutdown => DisconnectReason::ServerShuttingDown,
            _ => DisconnectReason::ForcedClose,
        }
    }
}
