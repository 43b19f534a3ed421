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

/// Options that mean here what they mean there.
macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("See [`sundew_socketio::Builder::", stringify!($name), "`].")]
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
        engine(change: impl FnOnce(&mut Config));
        path(path: &str);
        ping_interval(interval: Duration);
        ping_timeout(timeout: Duration);
        max_payload(bytes: usize);
        transports(transports: Transports);
        allow_eio3(allow: bool);
        allow_jsonp(allow: bool);
        cors(cors: Cors);
        http_compression(options: Option<HttpCompression>);
        per_message_deflate(options: Option<PerMessageDeflate>);
        upgrade_timeout(timeout: Duration);
        cookie(cookie: Cookie);
        initial_headers(add: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static);
        headers(add: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static);
        on_connection_error(hook: impl Fn(&ConnectionError<'_>) + Send + Sync + 'static);
        max_queued(bytes: usize, packets: usize);
        parser(parser: impl Parser);
        connection_state_recovery(recovery: Recovery);
        connect_timeout(timeout: Duration);
        handler_timeout(timeout: Duration);
        ack_timeout(timeout: Duration);
        request_timeout(timeout: Duration);
        max_attachments(count: usize);
        max_depth(levels: usize);
        max_namespaces(count: usize);
        max_dynamic_namespaces(count: usize);
        max_namespace_length(bytes: usize);
        cleanup_empty_namespaces(cleanup: bool);
        max_rooms(count: usize);
        max_in_progress(count: usize);
        max_waiting(count: usize);
        max_waiting_bytes(bytes: usize);
        max_auth(bytes: usize);
        max_pending_acks(count: usize);
        max_server_events(count: usize);
        keep_headers(keep: bool);
        serve_client(dist: impl Into<PathBuf>);
        state(value: impl Clone + Send + Sync + 'static);
    }

    /// See [`sundew_socketio::Builder::keep_extension`].
    #[must_use]
    pub fn keep_extension<T: Clone + Send + Sync + 'static>(mut self) -> Builder {
        self.inner = self.inner.keep_extension::<T>();
        self
    }

    /// See [`sundew_socketio::Builder::allow_request`].
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
