//! What the supervisor and a Node worker say to each other: the supervisor is the primary of Node's own cluster, so
//! that an unmodified `server.listen(8080)` gets its connections from us.
//!
//! The protocol is Node's, internal and undocumented, and has not changed in what matters here from Node 16 to 26.
//! The messages are in `message.rs`, their two spellings in `v8.rs`, `json.rs` and `encode.rs`, where a message ends in
//! `deframe.rs`, what may be written when in `outbox.rs`; only `channel.rs` and `stream.rs` touch a socket.

mod channel;
mod message;

pub use channel::{Inbox, Limits, NodeChannel, SendError, WhyNot, env, pair};
pub use message::{AddressType, FromWorker, Handed, Query, Requester, Serialization, SockName, ToWorker};
