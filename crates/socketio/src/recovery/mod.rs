//! Connection state recovery: a client that comes back within the window finds its id, rooms and data again, and gets
//! the events it missed (Node's `connectionStateRecovery`, <https://socket.io/docs/v4/connection-state-recovery>).
//!
//! Here live the options, the store's trait and the store in memory; `live` ties them to a namespace, `sending` gives
//! events their places on the way out, `stays` knows when a socket was in which rooms, `elsewhere` brings a session from the
//! server that kept it to the one its client has come back to. The store has no clock and no runtime: instants come in as
//! arguments.
//!
//! What is on the wire is Node's: a private id in the answer to CONNECT, an offset behind the arguments of every event,
//! both sent back by the client as `{pid, offset}`. Offsets are numbers that count up in the order in which events are
//! queued for every single socket, so one of them says what its client has, however old it is.

mod busy;
pub(crate) mod elsewhere;
pub(crate) mod live;
mod memory;
pub(crate) mod sending;
mod stays;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use memory::Memory;
pub use store::{Elsewhere, Fetching, Logged, Mark, Offset, Recipients, SavedSession, Seen, Stay, Store};

/// Options of connection state recovery ([`Builder::connection_state_recovery`](crate::Builder::connection_state_recovery)).
#[derive(Clone)]
pub struct Recovery {
    pub(crate) window: Duration,
    pub(crate) skip_middlewares: bool,
    pub(crate) lookup_timeout: Duration,
    pub(crate) max_lookups: usize,
    pub(crate) store: Arc<dyn Store>,
}

impl Recovery {
    /// With Node's defaults, and a [`Memory`] store with its own.
    pub fn new() -> Recovery {
        Recovery {
            window: Duration::from_secs(120),
            skip_middlewares: true,
            lookup_timeout: Duration::from_secs(1),
            max_lookups: 1024,
            store: Arc::new(Memory::new()),
        }
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

    /// How long a session that is not here is looked for on the other servers of the app; its client starts anew after that.
    /// Default one second: on one machine answers come within a millisecond, unless a server is stuck or gone.
    #[must_use]
    pub fn lookup_timeout(mut self, timeout: Duration) -> Recovery {
        self.lookup_timeout = timeout;
        self
    }

    /// How many sessions are looked for at the same time; more wait, for as long as
    /// [`lookup_timeout`](Recovery::lookup_timeout). Default 1,024.
    #[must_use]
    pub fn max_lookups(mut self, lookups: usize) -> Recovery {
        self.max_lookups = lookups;
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
