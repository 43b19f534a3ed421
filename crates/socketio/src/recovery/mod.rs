//! Connection state recovery: a client that comes back within the window finds its id, rooms and data again, and gets
//! the events it missed (Node's `connectionStateRecovery`, <https://socket.io/docs/v4/connection-state-recovery>).
//!
//! Here live the options, the store's trait and the store in memory; `live` ties them to a namespace. The store has no
//! clock and no runtime: instants come in as arguments.
//!
//! What is on the wire is Node's: a private id in the answer to CONNECT, an offset behind the arguments of every event,
//! both sent back by the client as `{pid, offset}`. Offsets are numbers that count up in the order in which events are
//! queued for every single socket, so one of them says what its client has, however old it is.

pub(crate) mod live;
mod memory;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Packet;

pub use memory::Memory;

/// Options of connection state recovery ([`Builder::connection_state_recovery`](crate::Builder::connection_state_recovery)).
#[derive(Clone)]
pub struct Recovery {
    pub(crate) window: Duration,
    pub(crate) skip_middlewares: bool,
    pub(crate) store: Arc<dyn Store>,
}

impl Recovery {
    /// With Node's defaults, and a [`Memory`] store with its own.
    pub fn new() -> Recovery {
        Recovery { window: Duration::from_secs(120), skip_middlewares: true, store: Arc::new(Memory::new()) }
    }

    /// How long after its disconnection a client may come back (`maxDisconnectionDuration`). Default two minutes.
    #[must_use]
    pub fn max_disconnection_duration(mut self, window: Duration) -> Recovery {
        self.window = window;
        self
    }

    /// Whether a client that is recovered goes past the middleware (`skipMiddlewares`). Default true, as in Node's code.
    #[must_use]
    pub fn skip_middlewares(mut self, skip: bool) -> Recovery {
        self.skip_middlewares = skip;
        self
    }

    /// Where sessions and events are kept.
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Recovery {
        self.store = Arc::new(store);
        self
    }
}

impl Default for Recovery {
    fn default() -> Recovery {
        Recovery::new()
    }
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery")
            .field("window", &self.window)
            .field("skip_middlewares", &self.skip_middlewares)
            .finish_non_exhaustive()
    }
}

/// A place in the order of a namespace's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The one behind it.
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

/// Whom an event was for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients {
    /// One socket alone, by its id.
    pub socket: Option<Arc<str>>,
    /// The members of these rooms; everybody if empty.
    pub rooms: Vec<String>,
    /// But not the members of these.
    pub except: Vec<String>,
}

impl Recipients {
    /// Whether a socket in those rooms was meant.
    pub fn include(&self, id: &str, rooms: &[String]) -> bool {
        if let Some(socket) = &self.socket {
            return **socket == *id;
        }
        let among = |names: &[String]| names.iter().any(|name| rooms.contains(name));
        (self.rooms.is_empty() || among(&self.rooms)) && !among(&self.except)
    }
}

/// A socket that has left and may come back.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedSession {
    /// Its public id.
    pub id: Arc<str>,
    /// Its private id: whoever knows it can take the session up.
    pub pid: Arc<str>,
    /// Its rooms, that of its own id among them.
    pub rooms: Vec<String>,
    /// What the app attached with [`Socket::set_data`](crate::Socket::set_data).
    pub data: serde_json::Value,
    /// The last event before it connected.
    pub start: Offset,
    /// The last event that was meant for it.
    pub sent: Offset,
    /// The last event when it left.
    pub left: Offset,
}

/// An event that is kept.
pub type Logged = (Offset, Arc<Packet>);

/// Where sessions and events are kept. All methods are called by the server's tasks and must not block; those about
/// one namespace's events are called one after another.
pub trait Store: Send + Sync + 'static {
    /// The last event's place; the default if there was none.
    fn last(&self, nsp: &str) -> Offset;

    /// Keeps an event until `expires`, or for as long as there is room. `offset` follows [`last`](Store::last), which is
    /// `offset` afterwards.
    fn append(
        &self,
        nsp: &str,
        offset: Offset,
        packet: Arc<Packet>,
        to: Recipients,
        now: Instant,
        expires: Instant,
    );

    /// Keeps a session until `expires`, or for as long as there is room.
    fn save(&self, nsp: &str, session: SavedSession, now: Instant, expires: Instant);

    /// Takes a session out: it can be taken up once.
    fn take(&self, nsp: &str, pid: &str, now: Instant) -> Option<SavedSession>;

    /// The events behind `after` that were meant for the session, in order. `None`: some may be missing, because events
    /// behind `after` were dropped before they expired.
    fn since(&self, nsp: &str, after: Offset, session: &SavedSession) -> Option<Vec<Logged>>;
}
