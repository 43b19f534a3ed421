//! Engine.IO server: a sans-IO protocol core and the server that drives it.
//!
//! `proto` has the rules (packets, payloads, websocket framing, verification of requests, the session's state
//! machine) and touches no socket, no task and no clock. `server` moves bytes and time around it. The protocol above
//! implements [`Protocol`] and [`Session`] and gets an [`Engine`], which answers HTTP requests, or sits before another
//! service as an [`EngineLayer`].

mod answer;
mod body;
mod config;
mod engine;
mod frames;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod hooks;
mod id;
mod layer;
mod message;
mod proto;
mod protocol;
mod server;
#[cfg(feature = "webtransport")]
pub mod webtransport;

pub use answer::Answer;
pub use body::Body;
pub use config::{
    AllowOrigin, AllowRequest, Config, Cors, GenerateId, HttpCompression, Pace, PerMessageDeflate, Transports,
};
pub use engine::{Engine, Stats};
pub use frames::{Frames, FramesBuilder};
pub use handle::{Closed, SendError, SessionHandle, WeakHandle};
pub use hooks::{AddHeaders, ConnectionError, Cookie, OnConnectionError, SameSite};
pub use id::random_id;
pub use layer::{EngineLayer, EngineService, ServiceFuture};
pub use message::{Message, Text};
pub use protocol::{CloseReason, Handshake, Protocol, ProtocolVersion, Session, Transport};
pub use server::moving::{Arriving, Exported, ImportError};
