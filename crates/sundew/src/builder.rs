//! Builds a server for where it runs: alone, or as a worker.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use sundew_adapter::{LocalBus, PeerName};
use sundew_channel::native::Welcome;
use sundew_channel::tag::{self, Tag};
use sundew_engineio::{
    Config, ConnectionError, Cookie, Cors, HttpCompression, PerMessageDeflate, Transports,
};
use sundew_socketio::adapter::Adapter;
use sundew_socketio::parser::Parser;
use sundew_socketio::recovery::Recovery;
use sundew_worker::Cluster;

use crate::SocketIo;
use crate::hooks::Hooks;

/// Builds a [`SocketIo`]: the options of [`sundew_socketio::Builder`], with defaults for where the server runs.
#[derive(Debug)]
pub struct Builder {
    inner: sundew_socketio::Builder,
    own_adapter: bool,
}

/// Options that mean here what they mean there. What is said of one here is the short of it.
macro_rules! forward {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*);)*) => {$(
        $(#[$doc])*
        #[doc = ""]
        #[doc = concat!("The same as [`sundew_socketio::Builder::", stringify!($name), "`].")]
        #[must_use]
        pub fn $name(mut self, $($arg: $type),*) -> Builder {
            self.inner = self.inner.$name($($arg),*);
            self
        }
    )*};
}

impl Builder {
    pub(crate) fn new() -> Builder {
        let mut inner = sundew_socketio::Builder::default();
        if let Some(cluster) = sundew_worker::cluster() {
            inner = inner.generate_id(tagged(cluster.welcome()));
        }
        Builder { inner, own_adapter: false }
    }

    /// The server. Call it inside of a runtime.
    ///
    /// Under the supervisor, and unless told otherwise, session ids carry the worker's tag, and the server is joined to
    /// those of the app's other workers. Its sessions are reported, drained and closed with the worker.
    pub fn build(self) -> SocketIo {
        let bus = match sundew_worker::cluster() {
            Some(cluster) if !self.own_adapter => own_bus().map(|bus| (cluster, bus)),
            _ => None,
        };
        let inner = match &bus {
            Some((_, bus)) => self.inner.adapter(bus.clone()),
            None => self.inner,
        };
        let server = inner.build();
        if let Some((cluster, bus)) = bus {
            connect(cluster, bus);
        }
        sundew_worker::register(Arc::new(Hooks(server.clone())));
        server.into()
    }

    /// What joins this server to others. Default: nothing alone, the local bus between the workers of one app under the
    /// supervisor.
    #[must_use]
    pub fn adapter(mut self, adapter: impl Adapter) -> Builder {
        self.inner = self.inner.adapter(adapter);
        self.own_adapter = true;
        self
    }

    /// Makes session ids: at most 64 characters of `[A-Za-z0-9_-]`, unguessable, and none of a client's choosing. Under the supervisor the default puts the
    /// worker's tag into them, by which requests find it; others have to be learned by the front door.
    #[must_use]
    pub fn generate_id(mut self, generate: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Builder {
        self.inner = self.inner.generate_id(generate);
        self
    }

    forward! {
        /// Changes any option of the engine, those included that have no method here: `max_sessions` (1,000,000),
        /// `close_timeout` (5 s) and `allow_upgrades` (true). See [`engineio::Config`](crate::engineio::Config).
        engine(change: impl FnOnce(&mut Config));
        /// The path the server answers under. Default `/socket.io/`; a slash is added at the end.
        path(path: &str);
        /// Time between heartbeats (`pingInterval`). Default 25 s.
        ping_interval(interval: Duration);
        /// How long a heartbeat may stay unanswered (`pingTimeout`). Default 20 s.
        ping_timeout(timeout: Duration);
        /// The largest message in bytes, on every transport (`maxHttpBufferSize`). Default 1,000,000.
        max_payload(bytes: usize);
        /// The transports offered. Default polling and websocket; WebTransport needs the feature `webtransport`.
        transports(transports: Transports);
        /// Whether clients of Socket.IO 2 are served (`allowEIO3`). Default false. Do not show the ids of such clients to
        /// others: whoever knows one has the session.
        allow_eio3(allow: bool);
        /// Whether JSONP polling is served. Default false: with it any page can open a session with its visitor's
        /// cookies, whatever [`cors`](Builder::cors) says.
        allow_jsonp(allow: bool);
        /// Which pages of other origins may read the answers of polling. Default none: no such header is sent. Websockets
        /// are not held back by it; see [`allow_request`](Builder::allow_request).
        cors(cors: Cors);
        /// Compression of polling answers (`httpCompression`). Default from 1,024 bytes on; `None` turns it off.
        http_compression(options: Option<HttpCompression>);
        /// Compression of websocket messages (`perMessageDeflate`). Default `None`.
        per_message_deflate(options: Option<PerMessageDeflate>);
        /// How long an upgrade may take (`upgradeTimeout`), and a WebTransport client to open its session. Default 10 s.
        upgrade_timeout(timeout: Duration);
        /// Sets a cookie with the session's id at polling handshakes (`cookie`), for load balancers that want one.
        /// Default none.
        cookie(cookie: Cookie);
        /// Adds headers to the answers of handshakes (`io.engine.on("initial_headers")`). Default none.
        initial_headers(add: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static);
        /// Adds headers to every good answer (`io.engine.on("headers")`). Default none.
        headers(add: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static);
        /// Is told of every request that is refused by one of the protocol's errors, or for want of room
        /// (`io.engine.on("connection_error")`). Default none.
        on_connection_error(hook: impl Fn(&ConnectionError<'_>) + Send + Sync + 'static);
        /// How much may wait for one connection, in bytes and in packets, before emits answer
        /// [`EmitError::Full`](crate::EmitError::Full). Default 2 MiB and 4,096.
        max_queued(bytes: usize, packets: usize);
        /// How packets are written into messages (`parser`); clients need the same one. Default: JSON with binary
        /// attachments, which every client speaks.
        parser(parser: impl Parser);
        /// Lets clients that come back within a window have their id, rooms and data again, and the events they missed
        /// (`connectionStateRecovery`). Default off; the window of [`Recovery::new`] is 2 minutes.
        connection_state_recovery(recovery: Recovery);
        /// How long a connection may exist without joining a namespace (`connectTimeout`). Default 45 s.
        connect_timeout(timeout: Duration);
        /// How long the end of the process, and [`close`](sundew_socketio::SocketIo::close), wait for handlers that still
        /// run when all clients are gone. Default 5 s. Handlers of clients that are there have no time limit.
        handler_timeout(timeout: Duration);
        /// How long `emit_with_ack` waits unless told otherwise. Default 5 s.
        ack_timeout(timeout: Duration);
        /// How long other servers may take to answer (`fetch_sockets`). Default 5 s.
        request_timeout(timeout: Duration);
        /// The most binary values in one packet of a client. Default 10; a packet with more closes the connection.
        max_attachments(count: usize);
        /// How deep a client may nest arrays and objects, the array of an event itself included. Default 128, which is
        /// also the most; a packet that goes deeper closes the connection.
        max_depth(levels: usize);
        /// The most namespaces one connection may join. Default 100; further ones are refused with a connect error.
        max_namespaces(count: usize);
        /// The most namespaces that may exist because clients asked for them. Default 10,000; further ones are refused
        /// with a connect error.
        max_dynamic_namespaces(count: usize);
        /// The longest name, in bytes, of a namespace that exists because a client asked for it. Default 256; a longer
        /// one is an invalid namespace.
        max_namespace_length(bytes: usize);
        /// Whether a namespace that exists because a client asked for it goes with its last socket
        /// (`cleanupEmptyChildNamespaces`). Default true.
        cleanup_empty_namespaces(cleanup: bool);
        /// The most rooms one socket may be in. Default 10,000; further ones are refused with a warning.
        max_rooms(count: usize);
        /// The most event handlers of one connection in progress at once. Default 256; when reached, nothing is read from
        /// the client until one ends.
        max_in_progress(count: usize);
        /// The most events of one connection that wait for `on_connect` to return, or for an earlier handler in the
        /// serial order. Default 1,024; when reached, nothing is read from the client, its acknowledgements included.
        max_waiting(count: usize);
        /// The same in bytes. Default 2 MiB; one event may go beyond.
        max_waiting_bytes(bytes: usize);
        /// The largest `auth` of a client, in bytes of JSON, for each namespace it joins. Default 64 KiB; a larger one is
        /// answered with a connect error.
        max_auth(bytes: usize);
        /// The most acknowledgements one socket may owe. Default 10,000; beyond, emits answer
        /// [`EmitError::TooManyAcks`](crate::EmitError::TooManyAcks).
        max_pending_acks(count: usize);
        /// The most handlers of other servers' events (`on_server_event`) in progress at once. Default 1,024; further
        /// events are dropped with a warning.
        max_server_events(count: usize);
        /// Whether the headers of the handshake's request are kept for as long as the connection lives
        /// ([`Socket::headers`](crate::Socket::headers)). Default false: they cost a few hundred bytes to several
        /// kilobytes each.
        keep_headers(keep: bool);
        /// Serves the browser client from the `dist` folder of an installed `socket.io-client` npm package
        /// (`serveClient`), under the server's path. Default: not served.
        serve_client(dist: impl Into<PathBuf>);
        /// Gives handlers a value, as [`State<T>`](crate::State). Default none. One per type; the last wins.
        state(value: impl Clone + Send + Sync + 'static);
    }

    /// Keeps a value that a layer around the server has put into the extensions of the handshake's request, for as long as the
    /// connection lives: [`HttpExtension`](crate::HttpExtension) gives it to handlers. Default none; call it for each type. A
    /// connection with such a value stays in its process.
    ///
    /// The same as [`sundew_socketio::Builder::keep_extension`].
    #[must_use]
    pub fn keep_extension<T: Clone + Send + Sync + 'static>(mut self) -> Builder {
        self.inner = self.inner.keep_extension::<T>();
        self
    }

    /// Decides about handshakes, before there is a session, on every transport (`allowRequest`). Default: all are allowed. `Err`
    /// refuses with 403, websockets with 400; its text, if not empty, is the answer's message.
    ///
    /// Who knows clients by their cookies looks at `Origin` here: browsers let any page open a websocket, and may send the
    /// cookies along.
    ///
    /// ```no_run
    /// # use sundew::SocketIo;
    /// let io = SocketIo::builder()
    ///     .allow_request(|request| {
    ///         let ours = request.headers.get("origin").is_none_or(|origin| origin == "https://example.com");
    ///         async move { if ours { Ok(()) } else { Err("not from this page".into()) } }
    ///     })
    ///     .build();
    /// ```
    ///
    /// The same as [`sundew_socketio::Builder::allow_request`].
    #[must_use]
    pub fn allow_request<F, Fut>(mut self, allow: F) -> Builder
    where
        F: Fn(&Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.inner = self.inner.allow_request(allow);
        self
    }
}

/// The bus of this process's first server. The supervisor makes one link for each pair of workers, and a server takes it
/// whole.
fn own_bus() -> Option<LocalBus> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a second Socket.IO server in one worker: only the first reaches the other workers; use one server with \
             several namespaces, or give this one an adapter"
        );
        return None;
    }
    Some(LocalBus::new())
}

fn connect(cluster: &Cluster, bus: LocalBus) {
    cluster.on_peer(move |peer| {
        let name = PeerName { slot: peer.id.slot, generation: peer.id.generation };
        if let Err(error) = bus.add_peer(name, peer.stream) {
            tracing::error!(peer = %name, %error, "no link to this worker: it does not hear this one's broadcasts");
        }
    });
    if let Err(error) = cluster.start() {
        tracing::error!(%error, "the channel to the supervisor cannot be used");
    }
}

fn tagged(welcome: &Welcome) -> impl Fn(&Parts) -> String + Send + Sync + 'static {
    let Welcome { tag_key: key, node, slot, generation, .. } = welcome.clone();
    // A tag has room for 256 slots, which is the supervisor's limit too.
    let slot = u8::try_from(slot).unwrap_or_else(|_| {
        tracing::error!(
            slot,
            "slots over 255 have no tag of their own: sessions of this worker will not be found"
        );
        u8::MAX
    });
    move |_| tag::new_sid(&key, Tag { node, slot, generation })
}
