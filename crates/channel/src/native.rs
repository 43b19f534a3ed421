//! What the supervisor and a native (Rust) worker say to each other.
//!
//! The messages are in `message.rs`, the two ends in `channel.rs`. JSON, one message per packet: it is not on the path
//! of any request but the hand-off, where one short message moves a whole connection, and it can be read in a trace.

mod channel;
mod message;

pub use channel::{Channel, Endpoint, RecvError, SendError, SupervisorChannel, WorkerChannel, pair};
pub use message::{
    ConnectionKind, LetGo, NoTarget, PROTOCOL, PeerId, RouteLimits, SessionState, Target, ToSupervisor,
    ToWorker, Welcome,
};
