//! Socket.IO server over Engine.IO: namespaces, rooms, acks, middleware and the adapter trait.

pub mod adapter;
mod builder;
mod io;
mod namespace;
mod packet;
mod session;

pub use builder::Builder;
pub use io::SocketIo;
pub use namespace::Namespace;
pub use packet::{Args, DataError, EmitArgs, Packet};
pub use session::Server;
