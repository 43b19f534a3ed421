//! The server: sockets, tasks and time around the protocol core, and what is HTTP's: its answers, and how it opens a
//! websocket. No rule of Engine.IO is decided here.

pub(crate) mod cors;
pub(crate) mod heartbeat;
pub(crate) mod moving;
pub(crate) mod polling;
pub(crate) mod probe;
pub(crate) mod registry;
pub(crate) mod reply;
pub(crate) mod shared;
pub(crate) mod socket;
pub(crate) mod task;
pub(crate) mod upgrade;
#[cfg(feature = "webtransport")]
pub(crate) mod webtransport;
pub(crate) mod wheel;

use std::time::Instant;

/// Now, on the clock of the runtime, which tests can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
