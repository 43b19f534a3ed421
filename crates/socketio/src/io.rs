//! The server: its namespaces, its engine, its adapter.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use sundew_engineio::{Engine, Pace, Stats};

use crate::adapter::{Adapter, Local};
use crate::builder::{Builder, Options};
use crate::namespace::{Namespace, Table};
use crate::session::Server;

/// A Socket.IO server. Cheap to clone: hold one wherever something is to be emitted.
///
/// Its broadcast methods (`emit`, `to`, ...) are those of the main namespace `/`.
#[derive(Clone)]
pub struct SocketIo {
    shared: Arc<Shared>,
}

/// What a server's sockets share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) adapter: Arc<dyn Adapter>,
    pub(crate) state: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pub(crate) counters: Counters,
    namespaces: RwLock<HashMap<Arc<str>, Arc<Table>>>,
    /// Set right after construction: the engine holds this, and this the engine. The circle lasts as long as the server,
    /// which is as long as the process.
    engine: OnceLock<Engine<Server>>,
}

/// What went wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) handler_errors: AtomicU64,
    pub(crate) queue_full: AtomicU64,
    pub(crate) protocol_errors: AtomicU64,
}

impl Shared {
    pub(crate) fn namespace(&self, nsp: &str) -> Option<Arc<Table>> {
        self.namespaces.read().get(nsp).cloned()
    }
}

impl SocketIo {
    /// A server with default options. The main namespace `/` exists.
    pub fn new() -> SocketIo {
        SocketIo::builder().build()
    }

    /// Options, to build a server from.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_builder(builder: Builder) -> SocketIo {
        let shared = Arc::new(Shared {
            options: builder.options,
            adapter: builder.adapter,
            state: builder.state,
            counters: Counters::default(),
            namespaces: RwLock::default(),
            engine: OnceLock::new(),
        });
        let engine = Engine::new(builder.engine, Server::new(shared.clone()));
        let _ = shared.engine.set(engine);
        let io = SocketIo { shared };
        io.of("/");
        io.shared.adapter.start(Local::new(Arc::downgrade(&io.shared)));
        io
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> SocketIo {
        SocketIo { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The namespace of that name, made if it does not exist yet. A missing slash is put before it; what follows a `?` or
    /// a `,` is left off (commas end a namespace on the wire).
    pub fn of(&self, name: &str) -> Namespace {
        let name = normal(name);
        let mut namespaces = self.shared.namespaces.write();
        let table = namespaces
            .entry(Arc::from(name.as_str()))
            .or_insert_with_key(|name| Arc::new(Table::new(name.clone(), Arc::downgrade(&self.shared))));
        Namespace::new(table.clone())
    }

    /// The engine underneath.
    pub fn engine(&self) -> &Engine<Server> {
        match self.shared.engine.get() {
            Some(engine) => engine,
            None => unreachable!("set in the constructor"),
        }
    }

    /// Counters of the engine: sessions open now, by transport, and so far.
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }

    /// Completes when the number of sessions changes after this call. To miss nothing: call it, read
    /// [`stats`](SocketIo::stats), then await.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + '_ {
        self.engine().changed()
    }

    /// Waits until no session is left or `deadline` has passed, then lets those that are left go in paced batches by
    /// closing their connections: clients come back by themselves, elsewhere. (After a Socket.IO disconnect they would
    /// not.) Returns when none is left.
    pub async fn drain(&self, deadline: Duration, pace: Pace) {
        self.engine().drain(deadline, pace).await;
    }

    /// Closes every session now, refuses new ones, and leaves the cluster. Sockets disconnect with
    /// [`DisconnectReason::ServerShuttingDown`](crate::DisconnectReason::ServerShuttingDown).
    pub async fn close(&self) {
        self.engine().close().await;
        self.shared.adapter.close();
    }
}

impl Default for SocketIo {
    fn default() -> SocketIo {
        SocketIo::new()
    }
}

impl fmt::Debug for SocketIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIo").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn normal(name: &str) -> String {
    let name = name.split(['?', ',']).next().unwrap_or_default();
    if name.starts_with('/') { name.into() } else { format!("/{name}") }
}
