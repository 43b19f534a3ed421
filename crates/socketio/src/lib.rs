//! Socket.IO server over Engine.IO: namespaces, rooms, acks, middleware and the adapter trait.
//!
//! ```no_run
//! use sundew_socketio::{Socket, SocketIo, extract::Data};
//!
//! # async fn f() -> std::io::Result<()> {
//! let io = SocketIo::new();
//! io.of("/chat")
//!     .on_connect(async |socket: Socket| socket.join("lobby"))
//!     .on("message", async |socket: Socket, Data(text): Data<String>| {
//!         socket.to("lobby").emit("message", text);
//!     });
//! let app: axum::Router = axum::Router::new().layer(io.layer());
//! # Ok(()) }
//! ```
//!
//! Here live the Socket.IO protocol (v5), namespaces and their handlers, sockets, rooms, acknowledgements
//! and the [`adapter`] trait. What may not: transports (they are the engine's), and anything about processes or
//! clusters (an adapter's, and the `sundew` crate's).

mod ack;
pub mod adapter;
mod as_written;
mod builder;
pub mod call;
mod client;
mod error;
pub mod extract;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod io;
mod link;
mod namespace;
mod operators;
mod packet;
pub mod parser;
mod query;
mod reason;
pub mod recovery;
mod rooms;
mod service;
mod session;
mod socket;
mod troubles;

pub use ack::{Ack, AckFuture};
pub use builder::Builder;
pub use error::{AckError, BroadcastAckError, ConnectError, EmitError, EventError, Failure, HandlerError};
pub use extract::{Auth, Data, Event, Extract, ExtractError, HttpExtension, State};
pub use handler::{EventMiddleware, Handler, Middleware, Outcome};
pub use io::SocketIo;
pub use namespace::{Namespace, OnFull, Order, Params, ParamsError, PatternError, ServerAcks};
pub use operators::{Broadcast, RemoteSocket, RoomNames, Sent, SocketEmitter};
pub use packet::{Args, DataError, EmitArgs, Packet};
pub use reason::DisconnectReason;
pub use service::{NotFound, SocketIoLayer, SocketIoService};
pub use session::{Connection, Server};
pub use socket::Socket;
pub use troubles::Troubles;

pub use sundew_engineio as engineio;
#[cfg(feature = "webtransport")]
pub use sundew_engineio::webtransport;
