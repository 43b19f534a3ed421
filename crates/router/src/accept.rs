//! Accepts connections: one loop per listening socket. What becomes of them is decided elsewhere.

use std::future::Future as _;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::announced::{self, ProxyProtocol};
use crate::client::Client;
use crate::connection;
use crate::front::Shared;
use crate::http::answer::Answer;
use crate::raw;
use crate::rendezvous::AddressKey;
use crate::site::Site;
use crate::tls::{self, Tls};

/// How long to wait when there are no descriptors left: accepting at once would fail again, and spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// A client that vanished without a word is found after this long, and three probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A socket that listens.
#[derive(Debug)]
pub enum Listening {
    /// On an address.
    Tcp(TcpListener),
    /// On a path. Its file is the caller's to remove.
    Unix(UnixListener),
}

/// What is done with the connections of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Serve {
    /// Each request is routed.
    #[default]
    Http,
    /// Each connection is handed over at once, unread: for what is no HTTP, or encrypted. Placed by the client's address
    /// with [`Affinity::Ip`](crate::Affinity), otherwise as a new session is.
    Raw,
    /// TLS ends here; what it carries is served as with [`Http`](Self::Http), and as HTTP/2.
    Tls(Tls),
}

/// A listening socket being served. Dropped, it goes on being served.
#[derive(Debug)]
pub struct ListenerHandle {
    task: JoinHandle<()>,
    local: Option<SocketAddr>,
}

impl ListenerHandle {
    /// The address it listens on, unless that is a path.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Accepts no further connection and closes the socket, unless somebody else holds it too. The connections that
    /// exist go on.
    pub fn stop(&self) {
        self.task.abort();
    }
}

pub(crate) fn listen(
    shared: &Arc<Shared>,
    listening: Listening,
    serve: Serve,
    at: At,
) -> io::Result<ListenerHandle> {
    let (listener, local) = match listening {
        Listening::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            // What is set here is inherited by every connection: no system call for each.
            rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
            rustix::net::sockopt::set_socket_keepalive(&listener, true)?;
            rustix::net::sockopt::set_tcp_keepidle(&listener, KEEPALIVE_AFTER)?;
            let local = listener.local_addr()?;
            (OwnedFd::from(listener), Some(local))
        }
        Listening::Unix(listener) => {
            listener.set_nonblocking(true)?;
            (OwnedFd::from(listener), None)
        }
    };
    // Never used as a stream: tokio's socket is what watches a descriptor it owns.
    let listener = UnixStream::from_std(listener.into())?;
    shared.start_sweep();
    let task = tokio::spawn(accept(shared.clone(), listener, serve, at));
    Ok(ListenerHandle { task, local })
}

async fn accept(shared: Arc<Shared>, listener: UnixStream, serve: Serve, at: At) {
    let mut exhausted = false;
    loop {
        match listener.async_io(Interest::READABLE, || accept_one(&listener)).await {
            Ok((stream, peer)) => {
                exhausted = false;
                begin(&shared, stream, peer, &serve, &at);
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // Once per time it happens, not once per connection.
                    if !std::mem::replace(&mut exhausted, true) {
                        tracing::warn!(app = shared.config.app, %error, "cannot accept connections for now: raise the limit of open files (ulimit -n)");
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The client was gone before we looked (and the other passing errors of accept(2)).
                _ => {
                    tracing::debug!(app = shared.config.app, %error, "a connection failed before it was accepted")
                }
            },
        }
    }
}

/// Accepts a connection that blocks nobody, and leaves the runtime out of it for now.
fn accept_one(listener: &UnixStream) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    // Who connects to a path has no address.
    Ok((socket, peer.and_then(|peer| SocketAddr::try_from(peer).ok())))
}

fn begin(shared: &Arc<Shared>, stream: OwnedFd, peer: Option<SocketAddr>, serve: &Serve, at: &At) {
    shared.counters.accepted.add();
    let mut held = Counted::new(shared);
    held.at = at.clone();
    let mut client = Client::new(stream, peer);
    let announced = shared.config.proxy_protocol != ProxyProtocol::Off;
    let refused = match () {
        () if held.is_too_many => Some(Answer::Full),
        () if !announced && !held.count_client(client.ip()) => Some(Answer::TooManyOfClient),
        () => None,
    };
    match (refused, serve) {
        (Some(why), _) => {
            shared.counters.rejected_connections.add();
            if *serve == Serve::Http {
                connection::refuse(&mut client, why);
            }
        }
        _ if announced => drop(tokio::spawn(announced::serve(held, client, serve.clone()))),
        (None, Serve::Http) => {
            let mut serving = Box::pin(connection::serve(held, client, None, 0));
            // A websocket's request has often arrived by now: it is handed over without a task, and without the
            // runtime hearing of it. A task polls it again, so that nothing is lost with this waker.
            if serving.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                tokio::spawn(serving);
            }
        }
        (None, Serve::Raw) => raw::serve(held, client),
        (None, Serve::Tls(tls)) => drop(tokio::spawn(tls::serve(held, client, tls.clone()))),
    }
}

/// Where a connection came in.
#[derive(Debug, Clone, Default)]
pub(crate) struct At {
    /// The slot whose own door it came to.
    pub(crate) slot: Option<u16>,
    /// The address, where several apps may be.
    pub(crate) site: Option<Site>,
}

/// A connection that counts as held.
pub(crate) struct Counted {
    pub(crate) shared: Arc<Shared>,
    /// There were as many as there may be.
    pub(crate) is_too_many: bool,
    pub(crate) at: At,
    /// Whose connections it counts among, where those are limited.
    client: Option<AddressKey>,
}

impl Counted {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let before = shared.connections.fetch_add(1, Ordering::Relaxed);
        let is_too_many = before >= shared.config.limits.max_connections;
        Self { shared: shared.clone(), is_too_many, at: At::default(), client: None }
    }

    /// Counts it as this client's. `false`: that one has as many as it may. A proxy has those of many.
    pub(crate) fn count_client(&mut self, client: Option<IpAddr>) -> bool {
        let config = &self.shared.config;
        let (limit, Some(ip)) = (config.limits.connections_per_ip, client) else { return true };
        if limit == 0 || config.trusted_proxies.contains(client) {
            return true;
        }
        self.client = self.shared.crowds.enter(ip, limit);
        self.client.is_some()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            self.shared.crowds.leave(client);
        }
    }
}
