//! Where connections come from: a socket of this process, or the supervisor.

use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sundew_channel::native::ToSupervisor;
use sundew_io::{Conn, Origin};
use tokio::net::{TcpListener, TcpSocket};

use crate::cluster::{Cluster, try_cluster};
use crate::placement::Placement;

/// Connections the system may hold until they are accepted. The system's own bound (`somaxconn`) applies too.
const BACKLOG: u32 = 4096;
/// How long to wait when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Yields the connections of an app: axum's listener, alone and in a cluster.
///
/// Use it with [`serve`](crate::serve). It works with `axum::serve` too, but then nobody ends the worker gracefully,
/// and requests that come through the supervisor's proxy have no client address.
#[derive(Debug)]
pub struct Listener {
    source: Source,
    local: SocketAddr,
}

#[derive(Debug)]
enum Source {
    Alone(TcpListener),
    Cluster { cluster: Cluster, ready: bool },
}

impl Listener {
    /// Listens on `addr` (`ip:port` or `host:port`; port 0 takes a free one). Alone, this process binds it. Under the
    /// supervisor it is bound once for all workers, before the first of them serves.
    ///
    /// # Errors
    /// When the address is none, or cannot be bound; when the supervisor refuses it or is gone.
    pub async fn bind(addr: impl Display) -> io::Result<Listener> {
        let addr = addr.to_string();
        match try_cluster()? {
            Some(cluster) => Listener::of(cluster, &addr).await,
            None => Listener::alone(&addr).await,
        }
    }

    /// Listens on `addr` in `cluster`, for programs (and tests) that are workers of more than the process's own.
    ///
    /// # Errors
    /// See [`bind`](Listener::bind).
    pub async fn of(cluster: &Cluster, addr: &str) -> io::Result<Listener> {
        cluster.start()?;
        let local = cluster.listen(addr).await?;
        Ok(Listener { source: Source::Cluster { cluster: cluster.clone(), ready: false }, local })
    }

    async fn alone(addr: &str) -> io::Result<Listener> {
        let explain = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => ": another process listens there, stop it or take another port",
                io::ErrorKind::PermissionDenied => ": ports below 1024 need a privilege, take a higher one",
                _ => "",
            };
            io::Error::new(error.kind(), format!("cannot listen on {addr:?} ({error}){hint}"))
        };
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address");
        for addr in tokio::net::lookup_host(addr).await.map_err(explain)? {
            match bind(addr) {
                Ok(listener) => {
                    let local = listener.local_addr()?;
                    return Ok(Listener { source: Source::Alone(listener), local });
                }
                Err(error) => last = error,
            }
        }
        Err(explain(last))
    }

    /// The address clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The cluster this listens in; `None` alone.
    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.source {
            Source::Cluster { cluster, .. } => Some(cluster),
            Source::Alone(_) => None,
        }
    }

    /// The next connection, and the count of the session it opens, if it does. Says `Ready` the first time. Cancel-safe.
    pub(crate) async fn next(&mut self) -> (Conn, Option<Placement>) {
        match &mut self.source {
            Source::Alone(listener) => (accept(listener).await, None),
            Source::Cluster { cluster, ready } => {
                if !*ready {
                    cluster.send(ToSupervisor::Ready).await;
                    *ready = true;
                }
                let incoming = cluster.accept().await;
                let placement = incoming.places.then(|| Placement::new(cluster.clone()));
                (incoming.conn, placement)
            }
        }
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // What it accepts inherits it.
    socket.set_nodelay(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: &TcpListener) -> Conn {
    loop {
        // Without what `accept` itself keeps of who waits: there is nobody but this loop.
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((stream, peer)) => return Conn::tcp(stream, Some(peer), Origin::Accepted),
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before accept")
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept: too many open files? Trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// What axum is told of a connection without an address: a leg of the proxy carries requests of many clients.
const NO_ADDR: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));

impl axum::serve::Listener for Listener {
    type Io = Conn;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Conn, SocketAddr) {
        let (conn, _placement) = self.next().await;
        let peer = conn.peer_addr().unwrap_or(NO_ADDR);
        (conn, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}
