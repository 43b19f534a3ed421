//! One request over one leg: `exchange.rs` waits and carries the request, `downstream.rs` the response, `relay.rs` what
//! follows an upgrade.
//!
//! A request without a body stays unread in the client's socket until its response begins. A worker that goes away
//! before that costs nothing: the request is still there to be routed again.

mod downstream;
mod exchange;
mod relay;

pub(crate) use exchange::{About, End, Exchange, Pending, Sent};
pub(crate) use relay::{Relay, Still, relay};
