//! Options of a server: those of the engine, and those of Socket.IO.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Extensions, HeaderMap};
use sundew_engineio::{
    Config as EngineConfig, ConnectionError, Cookie, Cors, HttpCompression, PerMessageDeflate, Transports,
};

use crate::SocketIo;
use crate::adapter::{Adapter, Alone};
use crate::parser::{Codec, Parser};
use crate::recovery::Recovery;

/// Moves what is to be kept from the extensions of a request to others.
pub(crate) type KeepExtension = fn(&mut Extensions, &mut Extensions);

/// Options of Socket.IO itself.
pub(crate) struct Options {
    pub(crate) connect_timeout: Duration,
    pub(crate) handler_timeout: Duration,
    pub(crate) ack_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_attachments: usize,
    /// What may be held for a socket until its CONNECT is answered: as much as may be queued afterwards.
    pub(crate) max_held_bytes: usize,
    /// Bytes and packets of a connection's outgoing queue.
    pub(crate) max_queued: (usize, usize),
    pub(crate) max_depth: usize,
    pub(crate) max_namespaces: usize,
    pub(crate) max_dynamic_namespaces: usize,
    pub(crate) max_namespace_length: usize,
    pub(crate) cleanup_empty_namespaces: bool,
    pub(crate) max_rooms: usize,
    pub(crate) max_in_progress: usize,
    pub(crate) max_waiting: usize,
    pub(crate) max_waiting_bytes: usize,
    pub(crate) max_auth: usize,
    pub(crate) max_pending_acks: usize,
    pub(crate) max_server_events: usize,
    pub(crate) keep_headers: bool,
    pub(crate) keep_extensions: Vec<KeepExtension>,
    /// Websockets may have agreed to compression.
    pub(crate) deflates: bool,
    pub(crate) client_dir: Option<PathBuf>,
}

/// Builds a [`SocketIo`]. Every limit has a safe default and a name.
pub struct Builder {
    pub(crate) engine: EngineConfig,
    pub(crate) options: Options,
    pub(crate) codec: Codec,
    pub(crate) adapter: Arc<dyn Adapter>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) state: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Default for Builder {
    fn default() -> Builder {
        let mut engine = EngineConfig::default();
        engine.path = "/socket.io/".into();
        Builder {
            engine,
            options: Options {
                connect_timeout: Duration::from_secs(45),
                handler_timeout: Duration::from_secs(5),
                ack_timeout: Duration::from_secs(5),
                request_timeout: Duration::from_secs(5),
                max_attachments: 10,
                max_held_bytes: EngineConfig::default().max_queued_bytes,
                max_queued: (0, 0),
                max_depth: 128,
                max_namespaces: 100,
                max_dynamic_namespaces: 10_000,
                max_namespace_length: 256,
                cleanup_empty_namespaces: true,
                max_rooms: 10_000,
                max_in_progress: 256,
                max_waiting: 1024,
                max_waiting_bytes: 2 << 20,
                max_auth: 64 << 10,
                max_pending_acks: 10_000,
                max_server_events: 1024,
                keep_headers: false,
                keep_extensions: Vec::new(),
                deflates: false,
                client_dir: None,
            },
            codec: Codec::Json,
            adapter: Arc::new(Alone),
            recovery: None,
            state: HashMap::new(),
        }
    }
}

impl Builder {
    /// The server.
    pub fn build(mut self) -> SocketIo {
        self.options.max_held_bytes = self.engine.max_queued_bytes;
        self.options.max_queued = (self.engine.max_queued_bytes, self.engine.max_queued_packets);
        self.options.deflates = self.engine.per_message_deflate.is_some();
        SocketIo::from_builder(self)
    }

    /// Changes any option of the engine.
    #[must_use]
    pub fn engine(mut self, change: impl FnOnce(&mut EngineConfig)) -> Builder {
        change(&mut self.engine);
        self
    }

    /// The path. Default `/socket.io/`; a slash is added at the end.
    #[must_use]
    pub fn path(mut self, path: &str) -> Builder {
        self.engine.path = format!("{}/", path.trim_end_matches('/'));
        self
    }

    /// Time between heartbeats (`pingInterval`). Default 25 s.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Builder {
        self.engine.ping_interval = interval;
        self
    }

    /// How long a heartbeat may stay unanswered (`pingTimeout`). Default 20 s.
    #[must_use]
    pub fn ping_timeout(mut self, timeout: Duration) -> Builder {
        self.engine.ping_timeout = timeout;
        self
    }

    /// The largest message in bytes, on every transport (`maxHttpBufferSize`). Default 1,000,000.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Builder {
        self.engine.max_payload = bytes;
        self
    }

    /// The transports offered. Default polling and websocket. WebTransport needs the feature `webtransport`, and a port of
    /// its own: `SocketIo::serve_webtransport`.
    #[must_use]
    pub fn transports(mut self, transports: Transports) -> Builder {
        self.engine.transports = transports;
        self
    }

    /// Whether clients of Socket.IO 2 are served (`allowEIO3`). Default false.
    ///
    /// Such a client's public `socket.id` is its session's id, by protocol: whoever learns it can read, write and end
    /// that session. With newer clients knowing an id gives nothing. So do not show the ids of sockets whose
    /// [`is_legacy`](crate::Socket::is_legacy) is true to other clients.
    #[must_use]
    pub fn allow_eio3(mut self, allow: bool) -> Builder {
        self.engine.allow_eio3 = allow;
        self
    }

    /// Whether JSONP polling is served, for browsers without CORS. Default false: with it any page can open a session
    /// with its visitor's cookies.
    #[must_use]
    pub fn allow_jsonp(mut self, allow: bool) -> Builder {
        self.engine.allow_jsonp = allow;
        self
    }

    /// Cross-origin answers. Default none.
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Builder {
        self.engine.cors = Some(cors);
        self
    }

    /// Makes session ids (`generateId`): at most 64 characters of `[A-Za-z0-9_-]`, unguessable, and none of a client's choosing.
    /// These are not the sockets' public ids.
    #[must_use]
    pub fn generate_id(mut self, generate: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Builder {
        self.engine.generate_id = Arc::new(generate);
        self
    }

    /// How long an upgrade may take (`upgradeTimeout`), and a WebTransport client to open its session. Default 10 s.
    #[must_use]
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Builder {
        self.engine.upgrade_timeout = timeout;
        self
    }

    /// Sets a cookie with the session's id at polling handshakes (`cookie`), for load balancers that want one. Default
    /// none.
    #[must_use]
    pub fn cookie(mut self, cookie: Cookie) -> Builder {
        self.engine.cookie = Some(cookie);
        self
    }

    /// Adds headers to the answers of handshakes (`io.engine.on("initial_headers")`).
    #[must_use]
    pub fn initial_headers(
        mut self,
        add: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static,
    ) -> Builder {
        self.engine.initial_headers = Some(Arc::new(add));
        self
    }

    /// Adds headers to every good answer (`io.engine.on("headers")`).
    #[must_use]
    pub fn headers(mut self, add: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static) -> Builder {
        self.engine.headers = Some(Arc::new(add));
        self
    }

    /// Is told of every request that is refused by one of the protocol's errors, or for want of room
    /// (`io.engine.on("connection_error")`).
    #[must_use]
    pub fn on_connection_error(
        mut self,
        hook: impl Fn(&ConnectionError<'_>) + Send + Sync + 'static,
    ) -> Builder {
        self.engine.on_connection_error = Some(Arc::new(hook));
        self
    }

    /// Compression of polling answers (`httpCompression`). Default from 1,024 bytes on; `None` turns it off.
    #[must_use]
    pub fn http_compression(mut self, options: Option<HttpCompression>) -> Builder {
        self.engine.http_compression = options;
        self
    }

    /// Compression of websocket messages (`perMessageDeflate`). Default `None`. A broadcast is
    /// compressed once for all clients that agree on the same, unless context takeover is on.
    #[must_use]
    pub fn per_message_deflate(mut self, options: Option<PerMessageDeflate>) -> Builder {
        self.engine.per_message_deflate = options;
        self
    }

    /// Decides about handshakes (`allowRequest`), before there is a session. `Err` refuses with 403, websockets with 400 as Node
    /// does; its text, if not empty, is the answer's message.
    #[must_use]
    pub fn allow_request<F, Fut>(mut self, allow: F) -> Builder
    where
        F: Fn(&Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.engine.allow_request = Some(Arc::new(move |parts| Box::pin(allow(parts))));
        self
    }

    /// How much may wait for one connection, in bytes and in packets, before emits answer
    /// `EmitError::Full`. Default 2 MiB and 4096.
    #[must_use]
    pub fn max_queued(mut self, bytes: usize, packets: usize) -> Builder {
        self.engine.max_queued_bytes = bytes;
        self.engine.max_queued_packets = packets;
        self
    }

    /// How packets are written into messages (Node's `parser`); clients need the same one. Default: JSON with binary
    /// attachments, which every client speaks. With the feature `msgpack` there is
    /// `Msgpack`, as `socket.io-msgpack-parser`.
    #[must_use]
    pub fn parser(mut self, parser: impl Parser) -> Builder {
        self.codec = Codec::Other(Arc::new(parser));
        self
    }

    /// Lets clients that come back within a window have their id, rooms and data again, and the events they missed
    /// (`connectionStateRecovery`). Default off.
    ///
    /// Events get one more argument then, which client-side handlers of a variable number of arguments see. Not kept, as in
    /// Node: volatile events, and those that ask for an acknowledgement. With [`Memory`](crate::recovery::Memory), the
    /// client may come back to any server that is joined to the one it was on, for as long as that one is there.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sundew_socketio::{Socket, SocketIo, recovery::Recovery};
    /// let recovery = Recovery::new().max_disconnection_duration(Duration::from_secs(60));
    /// let io = SocketIo::builder().connection_state_recovery(recovery).build();
    /// io.on_connect(async |socket: Socket| {
    ///     if !socket.recovered() {
    ///         socket.join("news");
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn connection_state_recovery(mut self, recovery: Recovery) -> Builder {
        self.recovery = Some(recovery);
        self
    }

    /// What joins this server to the others. Default [`Alone`].
    #[must_use]
    pub fn adapter(mut self, adapter: impl Adapter) -> Builder {
        self.adapter = Arc::new(adapter);
        self
    }

    /// How long a connection may exist without joining a namespace (`connectTimeout`). Default 45 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long [`SocketIo::close`](crate::SocketIo::close), and with it the end of the process, waits for handlers that
    /// still run when all clients are gone (5 s). A supervisor may be less patient: `kill_timeout`, 1.6 s unless set.
    #[must_use]
    pub fn handler_timeout(mut self, timeout: Duration) -> Builder {
        self.options.handler_timeout = timeout;
        self
    }

    /// How long `emit_with_ack` waits unless told otherwise. Default 5 s.
    #[must_use]
    pub fn ack_timeout(mut self, timeout: Duration) -> Builder {
        self.options.ack_timeout = timeout;
        self
    }

    /// How long other servers may take to answer (fetching sockets). Default 5 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Builder {
        self.options.request_timeout = timeout;
        self
    }

    /// The most binary values in one packet (`maxAttachments` of Node's parser). Default 10. A packet with more closes
    /// the connection.
    #[must_use]
    pub fn max_attachments(mut self, count: usize) -> Builder {
        self.options.max_attachments = count;
        self
    }

    /// How deep a client may nest arrays and objects in what it sends, the array of an event itself included. Default 128,
    /// what serde_json reads: more has no effect. A packet that goes deeper closes the connection.
    #[must_use]
    pub fn max_depth(mut self, levels: usize) -> Builder {
        self.options.max_depth = levels.min(128);
        self
    }

    /// The most namespaces one connection may join. Default 100; further ones are refused with a connect error. One that was
    /// left counts for as long as its `on_disconnecting` and `on_disconnect` wait for something.
    #[must_use]
    pub fn max_namespaces(mut self, count: usize) -> Builder {
        self.options.max_namespaces = count;
        self
    }

    /// The most namespaces that may exist because clients asked for them (of [`SocketIo::of_pattern`] and
    /// [`SocketIo::of_when`]), those included that stay empty for a while because clients may be recovered in them. Default
    /// 10,000; further ones are refused with a connect error, a warning, and
    /// [`Troubles::namespaces_refused`](crate::Troubles::namespaces_refused).
    #[must_use]
    pub fn max_dynamic_namespaces(mut self, count: usize) -> Builder {
        self.options.max_dynamic_namespaces = count;
        self
    }

    /// The longest name, in bytes, of a namespace that exists because a client asked for it. Default 256; a longer one is
    /// an invalid namespace.
    #[must_use]
    pub fn max_namespace_length(mut self, bytes: usize) -> Builder {
        self.options.max_namespace_length = bytes;
        self
    }

    /// Whether a namespace that exists because a client asked for it goes when its last socket has left, cannot come back, and
    /// none of its handlers is at work (`cleanupEmptyChildNamespaces`). Default true, unlike Node: otherwise clients could fill the server with names.
    #[must_use]
    pub fn cleanup_empty_namespaces(mut self, cleanup: bool) -> Builder {
        self.options.cleanup_empty_namespaces = cleanup;
        self
    }

    /// The most rooms one socket may be in. Default 10,000; further ones are refused with a warning. With connection state
    /// recovery, of as many rooms that it has left is remembered when it was in there, until what they were told has arrived.
    #[must_use]
    pub fn max_rooms(mut self, count: usize) -> Builder {
        self.options.max_rooms = count;
        self
    }

    /// The most event handlers of one connection in progress at once. Default 256. When reached, nothing is read
    /// from the client until one ends; while handlers wait for acknowledgements of this client, reading goes on and up to
    /// [`max_waiting`](Builder::max_waiting) events wait.
    #[must_use]
    pub fn max_in_progress(mut self, count: usize) -> Builder {
        self.options.max_in_progress = count.max(1);
        self
    }

    /// The most events of one connection that wait for `on_connect` to return, or for an earlier handler in the serial
    /// order. Default 1024. When reached, nothing is read from the client, its acknowledgements included: a handler that
    /// waits for one, sent behind more events than this, waits until `ack_timeout`.
    #[must_use]
    pub fn max_waiting(mut self, count: usize) -> Builder {
        self.options.max_waiting = count.max(1);
        self
    }

    /// The same in bytes. Default 2 MiB. One event may go beyond.
    #[must_use]
    pub fn max_waiting_bytes(mut self, bytes: usize) -> Builder {
        self.options.max_waiting_bytes = bytes.max(1);
        self
    }

    /// The largest `auth` of a client, in bytes of JSON, for each namespace it joins: it is kept for as long as the socket.
    /// Default 64 KiB. A larger one is answered with a connect error.
    #[must_use]
    pub fn max_auth(mut self, bytes: usize) -> Builder {
        self.options.max_auth = bytes;
        self
    }

    /// The most acknowledgements one socket may owe. Default 10,000; beyond, emits answer
    /// `EmitError::TooManyAcks`.
    #[must_use]
    pub fn max_pending_acks(mut self, count: usize) -> Builder {
        self.options.max_pending_acks = count;
        self
    }

    /// The most handlers of other servers' events (`on_server_event`) in progress at once. Default 1024; events that meet as
    /// many are dropped with a warning and [`Troubles::server_events_dropped`](crate::Troubles::server_events_dropped).
    #[must_use]
    pub fn max_server_events(mut self, count: usize) -> Builder {
        self.options.max_server_events = count.min(tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// Keeps the handshake request's headers for as long as the connection lives. Default false: they cost a few
    /// hundred bytes to several kilobytes each.
    #[must_use]
    pub fn keep_headers(mut self, keep: bool) -> Builder {
        self.options.keep_headers = keep;
        self
    }

    /// Keeps a value that a layer around the server has put into the extensions of the handshake request (who the user is,
    /// say) for as long as the connection lives: [`Socket::extension`](crate::Socket::extension) and
    /// [`HttpExtension`](crate::HttpExtension) give it to handlers. For several types, call it for each. A connection with
    /// such a value stays in its process: it cannot be handed to another at a reload, and its client reconnects.
    #[must_use]
    pub fn keep_extension<T: Clone + Send + Sync + 'static>(mut self) -> Builder {
        self.options.keep_extensions.push(|from, to| {
            if let Some(value) = from.remove::<T>() {
                to.insert(value);
            }
        });
        self
    }

    /// Serves the browser client from the `dist` folder of an installed `socket.io-client` npm package
    /// (`serveClient`): `socket.io[.esm|.msgpack][.min].js` and their `.map` under the server's path. Nothing is
    /// compiled in. Default: not served.
    #[must_use]
    pub fn serve_client(mut self, dist: impl Into<PathBuf>) -> Builder {
        self.options.client_dir = Some(dist.into());
        self
    }

    /// Gives handlers a value, as `State<T>`. One per type; the last wins.
    #[must_use]
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Builder {
        self.state.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("engine", &self.engine).finish_non_exhaustive()
    }
}
