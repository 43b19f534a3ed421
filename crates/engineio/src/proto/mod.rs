//! The protocol, without IO: bytes and instants in, decisions and bytes out.
//!
//! What may not live here: sockets, tasks, locks, a clock, HTTP bodies. Every rule of Engine.IO and of the websocket's
//! and WebTransport's framing is in this module and is tested without a runtime; `server` only moves bytes and time.

pub(crate) mod deflate;
pub(crate) mod dialect;
pub(crate) mod encoding;
pub(crate) mod framing;
pub(crate) mod incoming;
pub(crate) mod jsonp;
pub(crate) mod outbox;
pub(crate) mod packet;
pub(crate) mod payload;
pub(crate) mod payload_v3;
pub(crate) mod request;
pub(crate) mod session;
pub(crate) mod websocket;
#[cfg(any(feature = "webtransport", test, fuzzing))]
pub(crate) mod webtransport;

#[cfg(test)]
mod session_tests;
