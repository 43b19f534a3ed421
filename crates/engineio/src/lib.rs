//! Engine.IO server: a sans-IO protocol core (proto) and the server that drives it.

mod body;
mod config;
mod engine;
mod frames;
mod handle;
mod layer;
mod message;
mod protocol;

pub use body::Body;
pub use config::{AllowOrigin, AllowRequest, Config, Cors, GenerateId, Pace, Transports};
pub use engine::{Engine, Stats};
pub use frames::{Frames, FramesBuilder};
pub use handle::{Closed, SendError, SessionHandle, WeakHandle};
pub use layer::{EngineLayer, EngineService};
pub use message::{Message, Text};
pub use protocol::{CloseReason, Handshake, Protocol, Session, Transport};
