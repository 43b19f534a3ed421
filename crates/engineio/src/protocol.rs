//! What the protocol above Engine.IO implements: one value per engine, one per session.

use std::fmt;
use std::net::SocketAddr;
use std::task::Context;

use http::request::Parts;

use crate::{Message, SessionHandle};

/// The protocol above: opens its half of every new session.
pub trait Protocol: Send + Sync + 'static {
    /// Its half of one session.
    type Session: Session;

    /// A handshake was accepted. What is sent on `handle` in here leaves right after the open packet.
    fn open(&self, handle: SessionHandle, request: Handshake) -> Self::Session;

    /// A session that another process exported goes on here, with what [`Session::export`] gave there. Nobody was told
    /// of its end there, so nobody is told of a beginning here.
    ///
    /// # Errors
    /// Why it cannot: the state is of another version, or something it needs is not here. The default takes none.
    fn resume(&self, handle: SessionHandle, state: &[u8]) -> Result<Self::Session, String> {
        let _ = (handle, state);
        Err("this server takes no sessions of other processes".to_owned())
    }
}

/// One session of the protocol above, owned by the session's task: no method needs a lock.
pub trait Session: Send + 'static {
    /// A message arrived. All messages of one read are given before [`poll`](Session::poll), as long as
    /// [`ready_for_more`](Session::ready_for_more) says so; what is sent meanwhile leaves in one write.
    fn message(&mut self, message: Message);

    /// Drives the futures this session holds. Called after each batch of messages, when the waker fires, and when
    /// [`SessionHandle::wake_at`] says so.
    fn poll(&mut self, cx: &mut Context<'_>);

    /// Whether more messages may be given; asked before each. While false, nothing is read from the peer
    /// (back-pressure); a later [`poll`](Session::poll) makes it true again, or something else that says so by
    /// [`SessionHandle::ask_again`].
    fn ready_for_more(&self) -> bool;

    /// What another process needs to go on with this session ([`Protocol::resume`]), if it is at rest: nothing under way,
    /// nothing waited for, nothing that is of this process only. The default: it never is.
    fn export(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// The connection of a session that was resumed here has come: from now on its client hears it.
    fn arrived(&mut self) {}

    /// The client's address, for what is logged of it. The default: unknown.
    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// The session is over. Takes `self`, so that unfinished work can move to a task of its own. With
    /// [`CloseReason::Moved`] it goes on elsewhere: nobody is to be told of its end.
    fn close(self, reason: CloseReason);
}

/// The request that opened a session. Nobody keeps it unless the protocol does.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Method, URI, headers and extensions.
    pub parts: Parts,
    /// The client's own address, from the request extension [`sundew_io::PeerAddr`].
    pub peer_addr: Option<SocketAddr>,
    /// The transport the session starts on.
    pub transport: Transport,
    /// The version of Engine.IO the client speaks.
    pub version: ProtocolVersion,
}

/// A version of the Engine.IO protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// Version 3: Socket.IO 2 clients. Only with [`Config::allow_eio3`](crate::Config::allow_eio3).
    V3,
    /// Version 4: Socket.IO 3 and 4 clients.
    V4,
}

/// How a session's packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    Websocket,
    /// WebTransport, over HTTP/3. Only with the feature `webtransport`.
    WebTransport,
}

impl Transport {
    /// The name on the wire (`transport=` in the query).
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Polling => "polling",
            Transport::Websocket => "websocket",
            Transport::WebTransport => "webtransport",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a session ended. The names are those Node's server gives to its `close` event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed, or its connection ended.
    TransportClose,
    /// The connection failed, or the client broke a rule of the transport.
    TransportError,
    /// The client did not answer a ping in time.
    PingTimeout,
    /// The client sent a packet that cannot be read.
    ParseError,
    /// This side closed the session.
    ForcedClose,
    /// The server is shutting down.
    ServerShutdown,
    /// The session goes on in another process.
    Moved,
}

impl CloseReason {
    /// The reason as Node's server words it.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::TransportClose => "transport close",
            CloseReason::TransportError => "transport error",
            CloseReason::PingTimeout => "ping timeout",
            CloseReason::ParseError => "parse error",
            CloseReason::ForcedClose => "forced close",
            CloseReason::ServerShutdown => "server shutting down",
            CloseReason::Moved => "moved",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
