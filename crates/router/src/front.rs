//! The front door of one app, as the supervisor holds it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::accept::{self, ListenerHandle};
use crate::backend::{Backend, BackendId, HandOff};
use crate::config::FrontConfig;
use crate::connection;
use crate::members::Members;
use crate::pick::Picker;
use crate::stats::{Counters, FrontStats};

/// The front door of one app. Cheap to clone. All but [`Front::new`] needs a runtime with IO and time.
#[derive(Clone)]
pub struct Front {
    shared: Arc<Shared>,
}

/// What all connections of a front door share.
pub(crate) struct Shared {
    pub(crate) config: FrontConfig,
    pub(crate) members: Members,
    pub(crate) picker: Picker,
    pub(crate) counters: Counters,
    pub(crate) connections: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
}

impl Front {
    /// A front door without workers.
    pub fn new(config: FrontConfig) -> Self {
        let picker = Picker::new(&config);
        Self {
            shared: Arc::new(Shared {
                config,
                members: Members::default(),
                picker,
                counters: Counters::default(),
                connections: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// Serves the connections of a socket that listens. It can be called for several sockets.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn listen(&self, listener: TcpListener) -> io::Result<ListenerHandle> {
        accept::listen(&self.shared, listener)
    }

    /// A worker is up and takes sessions from now on.
    pub fn add(&self, backend: Arc<dyn Backend>) {
        self.shared.members.add(backend);
    }

    /// No new session to this worker any more; it keeps those it has.
    pub fn drain(&self, id: BackendId) {
        self.shared.members.drain(id);
    }

    /// Waits for the requests this worker is working on, at most for `timeout`, then ends its legs and forgets it. Its
    /// sessions are unknown from then on.
    pub async fn retire(&self, id: BackendId, timeout: Duration) {
        self.shared.members.retire(id, timeout).await;
    }

    /// The worker's process is gone. Its pending requests are answered at once, its sessions are unknown from now on.
    pub fn lost(&self, id: BackendId) {
        self.shared.members.lost(id);
    }

    /// Routes a connection again that was handed over to a worker that died without taking it. One whose request is not
    /// there to be read any more is closed: the worker had begun with it.
    pub fn reroute(&self, connection: HandOff) {
        connection::reroute(&self.shared, connection);
    }

    /// The counters.
    pub fn stats(&self) -> FrontStats {
        let connections = self.shared.connections.load(std::sync::atomic::Ordering::Relaxed);
        self.shared.counters.read(connections as u64)
    }
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("app", &self.shared.config.app).field("stats", &self.stats()).finish()
    }
}
