//! The channel between supervisor and worker, and the marks that tie a session to its worker.
//!
//! - [`native`]: what the supervisor and a Rust worker say to each other, over a `SOCK_SEQPACKET` pair that carries
//!   one message, and at most one file descriptor, per packet.
//! - [`tag`]: the worker's mark inside a session id, so that the front door finds the owner without a table.
//!
//! No routing, no processes, no HTTP: this crate only moves messages and descriptors.

mod inherit;
pub mod native;
mod seqpacket;
pub mod tag;

pub use inherit::{ENV, InheritError};
pub use seqpacket::MAX_MESSAGE;
