//! Adapters between Socket.IO servers: the local bus that joins the workers of one app on one host.
//!
//! [`LocalBus`] speaks over unix socket pairs that somebody hands it (the supervisor makes them, one for each pair of
//! workers). Who the workers are, and when they come and go, is not decided here: a link that ends is a worker gone.

mod local;

pub use local::{LocalBus, PeerName};
