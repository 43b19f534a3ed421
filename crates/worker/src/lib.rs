//! The app's side of the channel: the listener, the serve loop, readiness, drain and shutdown.
//!
//! - [`Listener`] and [`serve`]: run an axum app (or any tower service) alone or as one of a supervisor's workers; the
//!   app cannot tell the difference.
//! - [`Cluster`]: what the supervisor said and wants to know. Its two tasks (`inbound`, `outbound`) are the only ones
//!   that touch the channel.
//! - [`Sessions`]: what a session server (the `sundew` crate's `SocketIo`) lends to this crate, so that load can be
//!   reported and sessions can be drained. Nothing of Socket.IO may live here.

mod address;
mod body;
mod cluster;
mod connection;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod http1;
mod inbound;
mod inbox;
mod instance;
mod listener;
mod moving;
mod outbound;
mod output;
mod placement;
mod route;
mod serve;
mod sessions;
mod signals;
mod timer;

pub use body::RequestBody;
pub use cluster::{Cluster, Peer, Phase, cluster, try_cluster};
pub use instance::{Instance, instance};
pub use listener::Listener;
pub use route::{NoRoute, Route};
pub use serve::serve;
pub use sessions::{Export, Import, Pace, SessionStats, Sessions, register};
