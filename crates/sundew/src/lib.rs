//! Socket.IO on every core: the one crate an app depends on.
//!
//! An app is an axum program. Alone it binds its port; under the `sundew` supervisor it runs as one of several workers
//! behind one port, with nothing changed:
//!
//! ```no_run
//! use sundew::{Data, Socket, SocketIo};
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let io = SocketIo::builder().build();
//!     io.of("/chat").on_connect(|socket: Socket| async move {
//!         socket.join("lobby");
//!     });
//!     io.of("/chat").on("message", |socket: Socket, Data(text): Data<String>| async move {
//!         socket.to("lobby").emit("message", text);
//!     });
//!     let app = axum::Router::new().route("/page", axum::routing::get(|| async { "hello" }));
//!     let listener = sundew::Listener::bind("0.0.0.0:8080").await?;
//!     sundew::serve(listener, io.wrap(app)).await
//! }
//! ```
//!
//! What this crate adds to `sundew-socketio`, which it re-exports whole: under the supervisor, session ids name their
//! worker, rooms and broadcasts reach the sockets of all workers of the app, and sessions are counted, drained and
//! closed with the worker. Nothing else may live here.

mod builder;
#[cfg(doctest)]
mod guide;
mod hooks;
mod server;

pub use builder::Builder;
pub use server::SocketIo;
pub use sundew_engineio::{
    AllowOrigin, ConnectionError, Cookie, Cors, HttpCompression, Pace, PerMessageDeflate, SameSite, Stats,
    Transport, Transports,
};
pub use sundew_io::PeerAddr;
pub use sundew_socketio::*;
pub use sundew_worker::{Instance, Listener, NoRoute, RequestBody, Route, instance, serve};

/// What joins the servers of one app.
pub mod adapter {
    pub use sundew_adapter::{LocalBus, PeerName};
    pub use sundew_socketio::adapter::*;
}
