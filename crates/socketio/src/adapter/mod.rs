//! The adapter: what joins the servers of one app, so that rooms and broadcasts reach across them.
//!
//! It works on operations ("these sockets join this room"), not on packets or sockets: what happens on this server
//! has already happened when an adapter hears of it, and never depends on it. No wire format lives here; each adapter
//! has its own.

mod local;
mod types;

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;

pub use local::Local;
pub use types::{BroadcastOptions, HandshakeInfo, Operation, Request, Response, SocketInfo};

/// Joins this server to the others of the app.
///
/// Object-safe, and no type parameter of anything in user code.
pub trait Adapter: Send + Sync + 'static {
    /// Called once, before the first session. `local` carries out what other servers ask for.
    fn start(&self, local: Local);

    /// Tells all other servers, without waiting for them. Must not block, nor call [`Local`] of any server: where clients can
    /// be recovered it is called under a lock. What one server publishes reaches another in the order of the calls.
    ///
    /// # Errors
    /// The operation could not be handed on; the caller reports it, and this server has done its own part already.
    fn publish(&self, nsp: &str, operation: &Operation) -> Result<(), AdapterError>;

    /// Asks all other servers. The stream yields their answers as they come and ends when every living server
    /// has answered; one that dies meanwhile counts as having answered. After `timeout` it yields
    /// [`AdapterError::Timeout`] once and ends.
    ///
    /// Each server's answers are those that [`Local::answer`] yields there.
    fn request(&self, nsp: &str, request: Request, timeout: Duration) -> Responses;

    /// How many servers the app has, this one included. With 1 nothing is published.
    fn server_count(&self) -> usize;

    /// How many messages were dropped so far because other servers did not read them:
    /// [`Troubles::bus_dropped`](crate::Troubles::bus_dropped).
    fn dropped(&self) -> u64 {
        0
    }

    /// Leaves the cluster. Nothing is published afterwards.
    fn close(&self);
}

/// Answers of other servers.
pub type Responses = Pin<Box<dyn Stream<Item = Result<Response, AdapterError>> + Send>>;

/// Why other servers could not be reached.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// Not every server answered in time. Those that did were yielded before.
    #[error(
        "{missing} of the other servers did not answer within {timeout:?}; raise the timeout, or see why they are slow"
    )]
    Timeout {
        /// How many did not answer.
        missing: usize,
        /// How long they had.
        timeout: Duration,
    },
    /// The adapter's own queue towards a server is full.
    #[error("the queue towards another server is full: {0}")]
    Full(String),
    /// The link to the other servers is down.
    #[error("other servers cannot be reached: {0}")]
    Unavailable(String),
    /// A server could not answer, or not send all of its answer. What came of it was yielded before.
    #[error("the answers of the other servers are not complete: {0}")]
    Failed(String),
}

/// No other servers: the room index of this one is all there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Adapter for Alone {
    fn start(&self, _: Local) {}

    fn publish(&self, _: &str, _: &Operation) -> Result<(), AdapterError> {
        Ok(())
    }

    fn request(&self, _: &str, _: Request, _: Duration) -> Responses {
        Box::pin(futures_util::stream::empty())
    }

    fn server_count(&self) -> usize {
        1
    }

    fn close(&self) {}
}

impl<A: Adapter + ?Sized> Adapter for std::sync::Arc<A> {
    fn start(&self, local: Local) {
        (**self).start(local);
    }

    fn publish(&self, nsp: &str, operation: &Operation) -> Result<(), AdapterError> {
        (**self).publish(nsp, operation)
    }

    fn request(&self, nsp: &str, request: Request, timeout: Duration) -> Responses {
        (**self).request(nsp, request, timeout)
    }

    fn server_count(&self) -> usize {
        (**self).server_count()
    }

    fn dropped(&self) -> u64 {
        (**self).dropped()
    }

    fn close(&self) {
        (**self).close();
    }
}
