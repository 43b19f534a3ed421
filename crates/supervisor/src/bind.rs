//! Binds the addresses of apps: once per app and address, for all its workers, for as long as the app runs.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections the system may have ready for us: a burst of clients is no reason to refuse any.
const BACKLOG: i32 = 1024;

/// Reads `ip:port` or looks `host:port` up.
pub(crate) async fn resolve(addr: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = addr.parse() {
        return Ok(addr);
    }
    let found = tokio::net::lookup_host(addr).await;
    let mut found =
        found.map_err(|error| format!("cannot listen on {addr:?}: {error}. Use ip:port or host:port"))?;
    found.next().ok_or_else(|| format!("cannot listen on {addr:?}: the name has no address"))
}

/// Binds and listens.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if addr.is_ipv6() {
        // As Node does: `::` is every address.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Why it could not be bound. `holder` is another app of this daemon that has the port.
pub(crate) fn explain(addr: SocketAddr, error: &io::Error, holder: Option<&str>) -> String {
    let port = addr.port();
    match (error.kind(), holder) {
        (io::ErrorKind::AddrInUse, Some(app)) => {
            format!(
                "cannot listen on {addr}: the app {app:?} of this daemon listens on port {port} already. Give one of them another port"
            )
        }
        (io::ErrorKind::AddrInUse, None) => {
            format!(
                "cannot listen on {addr}: another program listens on port {port} already (`ss -ltnp` shows which). End it or use another port"
            )
        }
        (io::ErrorKind::PermissionDenied, _) if port < 1024 => {
            format!(
                "cannot listen on {addr}: ports below 1024 need the right to (CAP_NET_BIND_SERVICE). Use a higher one"
            )
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            format!("cannot listen on {addr}: no network interface of this host has that address")
        }
        _ => format!("cannot listen on {addr}: {error}"),
    }
}
