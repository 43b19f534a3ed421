//! The server: sockets, tasks and time around the protocol core. It has no protocol rule of its own.

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
