//! The server: its namespaces, its engine, its adapter.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sundew_engineio::{Engine, Pace, Stats};
use tokio::sync::Semaphore;
use tower_layer::Layer;

use crate::adapter::{Adapter, Local};
use crate::builder::{Builder, Options};
use crate::namespace::{Namespace, Pattern, PatternError, Registry, Rule, Table};
use crate::parser::Codec;
use crate::recovery::live::Settings;
use crate::service::{NotFound, SocketIoLayer, SocketIoService};
use crate::session::Server;
use crate::troubles::{Counters, Troubles};

/// A Socket.IO server. Cheap to clone: hold one wherever something is to be emitted.
///
/// It is its main namespace `/` as well: `io.on_connect(...)`, `io.emit(...)`, `io.to(...)`.
#[derive(Clone)]
pub struct SocketIo {
    shared: Arc<Shared>,
    main: Namespace,
}

/// What a server's sockets share.
pub(crate) struct Shared {
    pub(crate) options: Arc<Options>,
    pub(crate) codec: Codec,
    pub(crate) adapter: Arc<dyn Adapter>,
    pub(crate) recovery: Option<Settings>,
    pub(crate) state: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) registry: Registry,
    /// Events of other servers that are being handled.
    pub(crate) server_events: Arc<Semaphore>,
    /// Set right after construction: the engine holds this, and this the engine. The circle lasts as long as the server,
    /// which is as long as the process.
    engine: OnceLock<Engine<Server>>,
}

impl Shared {
    pub(crate) fn namespace(&self, nsp: &str) -> Option<Arc<Table>> {
        self.registry.get(nsp)
    }

    fn make(self: &Arc<Self>, nsp: &str) -> Arc<Table> {
        self.registry.make(self, nsp)
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
        let engine = &builder.engine;
        let (grace, most) = (
            engine.ping_interval.saturating_add(engine.ping_timeout),
            (engine.max_queued_bytes, engine.max_queued_packets),
        );
        let shared = Arc::new(Shared {
            recovery: builder.recovery.map(|recovery| Settings::new(recovery, grace, most)),
            codec: builder.codec,
            adapter: builder.adapter,
            state: builder.state,
            counters: Arc::default(),
            registry: Registry::default(),
            server_events: Arc::new(Semaphore::new(builder.options.max_server_events)),
            options: Arc::new(builder.options),
            engine: OnceLock::new(),
        });
        let engine = Engine::new(builder.engine, Server::new(shared.clone()));
        let _ = shared.engine.set(engine);
        let io = SocketIo::from_shared(shared);
        io.shared.adapter.start(Local::new(Arc::downgrade(&io.shared)));
        io
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> SocketIo {
        let main = Namespace::new(shared.make("/"));
        SocketIo { shared, main }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The namespace of that name, made if it does not exist yet. A missing slash is put before it; what follows a `?` or
    /// a `,` is left off (commas end a namespace on the wire). Made so, it stays, even where the name follows a pattern of
    /// [`of_pattern`](SocketIo::of_pattern): its handlers then go before the parent's.
    pub fn of(&self, name: &str) -> Namespace {
        let name = normal(name);
        Namespace::new(self.shared.make(&name))
    }

    /// A parent of all namespaces whose names follow `pattern`, such as `/org-{id}`: each `{name}` stands for one or more
    /// characters other than `/`. A child is made when the first client asks for it, and gone when its last socket has
    /// left (see [`cleanup_empty_namespaces`](Builder::cleanup_empty_namespaces)); at most
    /// [`max_dynamic_namespaces`](Builder::max_dynamic_namespaces) there are at a time. (`of(/regex/)` in Node.)
    ///
    /// What is registered on the parent is for all children, those that exist included. What is emitted on it goes to the
    /// sockets of all children, on all servers. Handlers and middleware read the parameters as
    /// [`Params<T>`](crate::Params). Of several parents whose pattern fits, the one made first has the child.
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, Socket, ConnectError, Params, extract::Auth};
    /// # fn f() -> Result<(), sundew_socketio::PatternError> {
    /// # let io = SocketIo::new();
    /// let orgs = io.of_pattern("/org-{id}")?;
    /// orgs.with(async |Params(org): Params<u32>, Auth(may): Auth<Vec<u32>>| {
    ///     if may.contains(&org) { Ok(()) } else { Err(ConnectError::new("not yours")) }
    /// });
    /// orgs.on("rename", async |socket: Socket, Params(org): Params<u32>| {
    ///     socket.broadcast().emit("renamed", org);
    /// });
    /// orgs.emit("maintenance", "in five minutes");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// It is no pattern.
    pub fn of_pattern(&self, pattern: &str) -> Result<Namespace, PatternError> {
        let rule = Rule::Pattern(Arc::new(Pattern::parse(pattern)?));
        Ok(Namespace::new(self.shared.registry.add_parent(&self.shared, Some(pattern), rule)))
    }

    /// A parent of all namespaces that `allow` allows, given the name a client asks for and its `auth` (null if it sent
    /// none). As [`of_pattern`](SocketIo::of_pattern) in everything else. Asked only for names that are not there yet; while
    /// it waits, the client's other namespaces go on. (`of((name, auth, next) => ...)` in Node.)
    ///
    /// A client that leaves or takes its wish back is not waited for: its call of `allow` is dropped. Sockets of these
    /// namespaces do not move to another worker ([`movable`](Namespace::movable)): nobody there has been asked.
    ///
    /// What it decides is whether the namespace may exist, once for all clients: who may enter is a
    /// [middleware's](Namespace::with) to say.
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, Socket};
    /// # async fn in_database(name: &str) -> bool { true }
    /// # let io = SocketIo::new();
    /// io.of_when(|name, _auth| async move { in_database(&name).await })
    ///     .on_connect(async |socket: Socket| drop(socket.emit("welcome", socket.namespace().name())));
    /// ```
    pub fn of_when<F, Fut>(&self, allow: F) -> Namespace
    where
        F: Fn(String, serde_json::Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        let rule = Rule::When(Arc::new(move |name, auth| Box::pin(allow(name, auth))));
        Namespace::new(self.shared.registry.add_parent(&self.shared, None, rule))
    }

    /// The namespace of that name, if it exists. Unlike [`of`](SocketIo::of), it makes none and keeps none.
    pub fn find(&self, name: &str) -> Option<Namespace> {
        self.shared.namespace(&normal(name)).map(Namespace::new)
    }

    /// The names of all namespaces there are, parents not among them.
    pub fn namespaces(&self) -> Vec<String> {
        self.shared.registry.names()
    }

    /// Hears of every namespace made from now on, before its first socket enters (`new_namespace` in Node): those who ask for
    /// it meanwhile wait, so do not wait in it yourself, nor take a lock that you hold around [`of`](SocketIo::of). Where it panics for a child, nobody enters.
    ///
    /// A child goes when it is empty ([`Builder::cleanup_empty_namespaces`](crate::Builder::cleanup_empty_namespaces)), its
    /// handlers with it. A [`Namespace`] of it that you keep does nothing on this server any more, even when there is a new
    /// one of the same name: [`find`](SocketIo::find) has that.
    pub fn on_new_namespace(&self, hook: impl Fn(&Namespace) + Send + Sync + 'static) -> &SocketIo {
        self.shared.registry.set_on_new(Arc::new(hook));
        self
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

    /// What went wrong so far.
    pub fn troubles(&self) -> Troubles {
        self.shared.counters.troubles(self.shared.adapter.dropped())
    }

    /// A service around `app`, which is an `axum::Router` or any other tower service: requests on the server's path are its
    /// own and never enter `app`, all others go on to it. This is what to serve.
    ///
    /// ```
    /// # use sundew_socketio::SocketIo;
    /// let io = SocketIo::new();
    /// let app: axum::Router = axum::Router::new().route("/", axum::routing::get(|| async { "hello" }));
    /// let service = io.wrap(app);
    /// ```
    pub fn wrap<S>(&self, app: S) -> SocketIoService<S> {
        self.layer().layer(app)
    }

    /// [`wrap`](SocketIo::wrap) as a tower layer, for a place inside other layers (`tower::ServiceBuilder`, or
    /// `Router::layer`, which costs a request four allocations more).
    ///
    /// ```
    /// # use sundew_socketio::SocketIo;
    /// let io = SocketIo::new();
    /// let app: axum::Router = axum::Router::new().layer(io.layer());
    /// ```
    pub fn layer(&self) -> SocketIoLayer {
        SocketIoLayer::new(self.clone())
    }

    /// A tower service of its own: requests off the server's path are answered with 404.
    pub fn into_service(&self) -> SocketIoService<NotFound> {
        self.layer().layer(NotFound)
    }

    /// Serves WebTransport on `listener`, beside HTTP: see [`Engine::serve_webtransport`]. The option
    /// [`transports`](Builder::transports) has to include it. Only with the feature `webtransport`.
    ///
    /// # Errors
    /// See [`ServeError`](crate::webtransport::ServeError).
    ///
    /// ```
    /// # use sundew_socketio::SocketIo;
    /// use sundew_socketio::engineio::Transports;
    /// use sundew_socketio::webtransport::{Certificate, Listener, Options};
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let transports = Transports { webtransport: true, ..Transports::default() };
    /// let io = SocketIo::builder().transports(transports).build();
    /// let certificate = Certificate::from_pem_files("cert.pem", "key.pem")?;
    /// let listener = Listener::bind("0.0.0.0:8443".parse()?, certificate, Options::default())?;
    /// io.serve_webtransport(listener).await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "webtransport")]
    pub async fn serve_webtransport(
        &self,
        listener: crate::webtransport::Listener,
    ) -> Result<(), crate::webtransport::ServeError> {
        self.engine().serve_webtransport(listener).await
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
    /// [`DisconnectReason::ServerShuttingDown`](crate::DisconnectReason::ServerShuttingDown). Then waits for handlers that
    /// still run, `on_disconnect` among them, for at most [`Builder::handler_timeout`].
    pub async fn close(&self) {
        self.engine().close().await;
        self.finish().await;
    }

    /// The second half of [`close`](SocketIo::close), for who bounds the first by another time.
    #[doc(hidden)]
    pub async fn finish(&self) {
        let (counters, most) = (&self.shared.counters, self.shared.options.handler_timeout);
        if tokio::time::timeout(most, counters.at_rest()).await.is_err() {
            let left = counters.at_work();
            tracing::warn!(left, after = ?most, "handlers still run (handler_timeout): they are not waited for");
        }
        self.shared.adapter.close();
    }
}

/// Everything a namespace can do, on the main namespace `/`.
impl Deref for SocketIo {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.main
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
