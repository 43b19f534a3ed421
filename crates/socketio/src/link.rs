//! One connection as its sockets share it: the engine's handle and what is kept of the handshake.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{Extensions, HeaderMap};
use parking_lot::Mutex;
use sundew_engineio::{Handshake, ProtocolVersion, SessionHandle};

use crate::builder::Options;
use crate::namespace::Table;
use crate::socket::Inner;

pub(crate) struct Link {
    pub(crate) handle: SessionHandle,
    /// The client speaks Socket.IO 2.
    pub(crate) legacy: bool,
    pub(crate) peer_addr: Option<SocketAddr>,
    /// Milliseconds since the epoch.
    pub(crate) issued: u64,
    pub(crate) url: Box<str>,
    pub(crate) headers: Option<Box<HeaderMap>>,
    pub(crate) extensions: Option<Box<Extensions>>,
    /// Acknowledgements the client owes, over all its sockets.
    pub(crate) pending_acks: AtomicUsize,
    /// Sockets that have left, and whose `on_disconnecting` or `on_disconnect` still waits for something.
    pub(crate) parting: AtomicUsize,
    /// The connection is being closed because its queue was full: for which socket, and in which namespace.
    pub(crate) overflowed: OnceLock<Box<(Arc<str>, Arc<Table>)>>,
    sockets: Mutex<Vec<Weak<Inner>>>,
}

impl Link {
    pub(crate) fn new(handle: SessionHandle, mut request: Handshake, options: &Options) -> Link {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let url = request.parts.uri.path_and_query().map_or("/", |url| url.as_str()).into();
        let issued = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let headers = options.keep_headers.then(|| Box::new(request.parts.headers));
        let mut kept = Extensions::new();
        for keep in &options.keep_extensions {
            keep(&mut request.parts.extensions, &mut kept);
        }
        let extensions = (!kept.is_empty()).then(|| Box::new(kept));
        Link { extensions, ..Link::resumed(handle, url, request.peer_addr, issued, headers) }
    }

    /// As it was in another process.
    pub(crate) fn resumed(
        handle: SessionHandle,
        url: Box<str>,
        peer_addr: Option<SocketAddr>,
        issued: u64,
        headers: Option<Box<HeaderMap>>,
    ) -> Link {
        Link {
            legacy: handle.version() == ProtocolVersion::V3,
            handle,
            peer_addr,
            issued,
            url,
            headers,
            extensions: None,
            pending_acks: AtomicUsize::new(0),
            parting: AtomicUsize::new(0),
            overflowed: OnceLock::new(),
            sockets: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, socket: &Arc<Inner>) {
        self.sockets.lock().push(Arc::downgrade(socket));
    }

    pub(crate) fn remove(&self, socket: &Arc<Inner>) {
        let mut sockets = self.sockets.lock();
        sockets.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(socket)));
        sockets.shrink_to_fit();
    }

    pub(crate) fn sockets(&self) -> Vec<Arc<Inner>> {
        self.sockets.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn owes_acks(&self) -> bool {
        self.pending_acks.load(Ordering::Relaxed) > 0
    }
}
