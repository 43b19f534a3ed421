//! What the front door knows of a worker: a slot with a way to hand over a connection, a way to open a leg, and a load.
//! Processes, channels and restarts are behind this trait and unknown here.

use std::io;
use std::net::SocketAddr;

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
pub struct HandOff {
    /// The connection.
    pub socket: std::net::TcpStream,
    /// The client.
    pub peer: Option<SocketAddr>,
    /// The request opens a new session: the worker counts it in its placements.
    pub places: bool,
}

/// The front door's end of a connection to a worker that carries the requests of many clients, one at a time.
#[derive(Debug)]
pub enum Leg {
    /// One end of a socket pair.
    Unix(tokio::net::UnixStream),
    /// A TCP connection.
    Tcp(tokio::net::TcpStream),
}

/// A worker, as the front door sees it.
pub trait Backend: Send + Sync + 'static {
    /// Which worker this is. Never changes.
    fn id(&self) -> BackendId;

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

    /// The sessions the worker reported last.
    fn sessions(&self) -> u32;

    /// How many of the new sessions sent to the worker are in that report.
    fn placements_seen(&self) -> u64;
}
