//! The channel between supervisor and worker, and the marks that tie a session to its worker.
//!
//! - [`native`]: what the supervisor and a Rust worker say to each other, over a `SOCK_SEQPACKET` pair that carries
//!   one message, and at most one file descriptor, per packet.
//! - [`node`]: what the supervisor, as the primary of Node's cluster, and a Node worker say to each other, over the
//!   stream socket Node's own `child_process` uses.
//! - [`tag`]: the worker's mark inside a session id, so that the front door finds the owner without a table.
//!
//! No routing, no processes, no HTTP: this crate only moves messages and descriptors.

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod inherit;
pub mod native;
pub mod node;
mod seqpacket;
pub mod tag;

pub use inherit::{ENV, InheritError};
pub use seqpacket::MAX_MESSAGE;
