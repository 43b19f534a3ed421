//! What the front door knows of a worker: a slot with a way to hand over a connection, a way to open a leg, and a load.
//! Processes, channels and restarts are behind this trait and unknown here.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::accept::At;
use crate::moving::{Arrival, Departure, Mover, Moving};

/// A worker: a slot of the app, and which worker of that slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// The slot, 0 to N-1. Hashing is over slots, so that a respawn moves nothing.
    pub slot: u16,
    /// Counts the workers of the slot, modulo 256.
    pub generation: u8,
}

impl std::fmt::Display for BackendId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A client's connection on its way to a worker, with its next request unread. The socket does not block and is
/// registered with no runtime. Close it, never shut it down: the worker may share it already.
#[derive(Debug)]
#[non_exhaustive]
pub struct HandOff {
    /// The connection: TCP, or a unix socket.
    pub socket: OwnedFd,
    /// The client, an IPv4 one as such whatever the socket's family. None behind a unix socket.
    pub peer: Option<SocketAddr>,
    /// Where a proxy said that the client is somebody else than the socket tells: the client, as the socket would tell it.
    pub told: Option<SocketAddr>,
    /// It opens a new session: the worker counts it in its placements.
    pub places: bool,
    /// The client came by TLS, which ends here: the socket is one end of a pair, and tells nothing of the client.
    pub secure: bool,
    /// Nothing was looked at ([`Serve::Raw`](crate::Serve)): it is routed again as it is, too.
    pub(crate) raw: bool,
    pub(crate) at: At,
    /// How often it came back from a worker.
    pub(crate) moves: u8,
    /// Another node sent it, on behalf of its client.
    pub(crate) of_node: bool,
}

impl HandOff {
    /// A connection with a request to be read.
    pub fn new(socket: OwnedFd, peer: Option<SocketAddr>, places: bool) -> Self {
        let (raw, moves, at) = (false, 0, At::default());
        Self { socket, peer, told: None, places, secure: false, raw, at, moves, of_node: false }
    }
}

/// What the front door may expect of a worker. The default is a native one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// It takes clients' connections. Otherwise Socket.IO's websockets are relayed through a leg.
    pub takes_connections: bool,
    /// Its session ids tell the owner, and it reports their number. Otherwise both are learned from its answers to
    /// handshakes.
    pub tells_sessions: bool,
    /// It wants request heads as the client sent them, with `x-sundew-peer` added. Otherwise `X-Forwarded-*` is.
    pub transparent: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { takes_connections: true, tells_sessions: true, transparent: false }
    }
}

/// The front door's end of a connection to a worker that carries the requests of many clients, one at a time.
#[derive(Debug)]
pub enum Leg {
    /// One end of a socket pair.
    Unix(tokio::net::UnixStream),
    /// A TCP connection.
    Tcp(tokio::net::TcpStream),
    /// One end of a socket pair behind which another node is, and who can be asked there for a session.
    Node(tokio::net::UnixStream, Arc<dyn Mover>),
}

/// A worker, as the front door sees it.
pub trait Backend: Send + Sync + 'static {
    /// Which worker this is. Never changes.
    fn id(&self) -> BackendId;

    /// What to expect of it. Never changes.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Passes a client's connection on. Never blocks.
    ///
    /// # Errors
    /// Gives the connection back when the worker cannot take it now.
    fn hand_over(&self, connection: HandOff) -> Result<(), HandOff>;

    /// Opens a leg to the worker. Never blocks.
    ///
    /// # Errors
    /// When the worker cannot take one now.
    fn open_leg(&self) -> io::Result<Leg>;

    /// Makes a pair of connected sockets for a client's connection that is relayed: our end, and the one to be handed over.
    /// Neither blocks.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    fn pair(&self) -> io::Result<(Leg, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((Leg::Unix(tokio::net::UnixStream::from_std(ours)?), theirs.into()))
    }

    /// Freezes a session of the worker's, to let it go on elsewhere. None: it stays. `limit`: the most bytes of state.
    /// The default: every session stays.
    fn export(self: Arc<Self>, sid: &str, limit: u32) -> Moving<Option<Departure>> {
        let _ = (sid, limit);
        Box::pin(std::future::ready(None))
    }

    /// Lets the worker go on with a session that was frozen elsewhere. The default takes none.
    fn import(self: Arc<Self>, state: Vec<u8>) -> Moving<Result<Arrival, String>> {
        let _ = state;
        Box::pin(std::future::ready(Err("this worker takes no sessions of others".to_owned())))
    }

    /// The sessions the worker reported last.
    fn sessions(&self) -> u32;

    /// How many of the new sessions sent to the worker are in that report.
    fn placements_seen(&self) -> u64;

    /// It does not answer at the moment: new sessions, and requests without one, go to others while there are any.
    fn is_stuck(&self) -> bool {
        false
    }

    /// Something was routed to it just now.
    fn touched(&self) {}
}
