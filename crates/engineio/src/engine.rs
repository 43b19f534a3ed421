//! The engine: all sessions of one server, and the entrance for HTTP requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};

use crate::{Body, Config, Pace, Protocol};

/// An Engine.IO server. Cheap to clone.
pub struct Engine<P: Protocol>(Arc<Shared<P>>);

struct Shared<P> {
    config: Config,
    protocol: P,
}

/// How many sessions there are, and were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sessions open now, and those whose client still has to fetch the close packet.
    pub sessions: usize,
    /// Those on polling.
    pub polling: usize,
    /// Those on a websocket.
    pub websocket: usize,
    /// Sessions opened so far.
    pub handshakes: u64,
    /// Sessions moved from polling to a websocket so far.
    pub upgrades: u64,
    /// Requests refused so far.
    pub refused: u64,
}

impl<P: Protocol> Engine<P> {
    /// An engine that serves `protocol`.
    pub fn new(config: Config, protocol: P) -> Engine<P> {
        Engine(Arc::new(Shared { config, protocol }))
    }

    /// The options in force.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The protocol it serves.
    pub fn protocol(&self) -> &P {
        &self.0.protocol
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Completes when the number of sessions changes after this call. To miss nothing: call it, read
    /// [`stats`](Engine::stats), then await.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        unimplemented!()
    }

    /// Whether a request for this path is the engine's.
    pub fn path_matches(&self, path: &str) -> bool {
        path.starts_with(&self.0.config.path)
    }

    /// Answers one request: CORS, verification, handshake, polling, upgrade. Dropping the future while a poll
    /// waits ends that session (the client is gone).
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send,
        B::Data: Send,
    {
        let _ = request;
        unimplemented!()
    }

    /// Waits until no session is left or `deadline` has passed; then closes those that are left, in paced batches,
    /// by closing the engine session (never a disconnect packet of the protocol above, after which clients do not
    /// come back). Returns when no session is left. New sessions are not refused: that is the router's part.
    pub async fn drain(&self, deadline: Duration, pace: Pace) {
        let _ = (deadline, pace);
        unimplemented!()
    }

    /// Closes every session now, and refuses new ones with 503. Returns when none is left.
    pub async fn close(&self) {
        unimplemented!()
    }
}

impl<P: Protocol> Clone for Engine<P> {
    fn clone(&self) -> Engine<P> {
        Engine(self.0.clone())
    }
}

impl<P: Protocol> fmt::Debug for Engine<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.0.config).finish_non_exhaustive()
    }
}
