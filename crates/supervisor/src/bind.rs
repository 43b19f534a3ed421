//! Binds the addresses of apps: once per app and address, for all its workers, for as long as the app runs.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections the system may have ready for us: a burst of clients is no reason to refuse any.
const BACKLOG: i32 = 1024;

/// Where an app is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        if let Self::Tcp(addr) = self { Some(*addr) } else { None }
    }

    /// Two of them cannot be bound at once.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => one.port() == other.port(),
            _ => self == other,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Why an address could not be served: for people, and as a program gets it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self { errno: Errno::INVAL.raw_os_error(), text: text.into() }
    }

    pub(crate) fn in_use(text: impl Into<String>) -> Self {
        Self { errno: Errno::ADDRINUSE.raw_os_error(), text: text.into() }
    }

    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self { errno: Errno::NOMEM.raw_os_error(), text: text.into() }
    }
}

/// Every address of this host, as Node has it: both families where the system has both.
pub(crate) fn everywhere(port: u16) -> SocketAddr {
    static HAS_V6: LazyLock<bool> = LazyLock::new(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok());
    if *HAS_V6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() }
}

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
pub(crate) fn bind(addr: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let socket = socket(addr, SocketType::STREAM, v6_only)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Binds a UDP port.
pub(crate) fn bind_datagram(addr: SocketAddr, v6_only: bool) -> io::Result<UdpSocket> {
    let socket = socket(addr, SocketType::DGRAM, v6_only)?;
    rustix::net::bind(&socket, &addr)?;
    Ok(socket.into())
}

fn socket(addr: SocketAddr, kind: SocketType, v6_only: bool) -> io::Result<std::os::fd::OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if addr.is_ipv6() {
        // As Node does: `::` is every address, unless somebody says otherwise.
        sockopt::set_ipv6_v6only(&socket, v6_only)?;
    }
    Ok(socket)
}

/// Binds a path. What a program that is gone has left there is removed.
pub(crate) fn bind_path(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            use std::os::unix::fs::FileTypeExt;
            // A file that is no socket refuses connections just as one that was left behind: it is somebody's.
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(error);
            }
            let refused = std::os::unix::net::UnixStream::connect(path);
            if !refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Why it could not be bound. `holder` is another app of this daemon that has the port.
pub(crate) fn explain(addr: &Address, error: &io::Error, holder: Option<&str>) -> Refusal {
    let port = addr.tcp().map_or(0, |addr| addr.port());
    let what = match addr {
        Address::Tcp(_) => format!("port {port}"),
        Address::Unix(_) => "that path".to_owned(),
    };
    let text = match (error.kind(), holder) {
        (io::ErrorKind::AddrInUse, Some(app)) => {
            format!(
                "cannot listen on {addr}: the app {app:?} of this daemon listens on {what} already. Give one of them \
                 another, or the same address and places of their own (`sundew.hosts`, `sundew.prefix`)"
            )
        }
        (io::ErrorKind::AddrInUse, None) => {
            format!(
                "cannot listen on {addr}: another program listens on {what} already (`ss -ltnp` shows which). End it or use another"
            )
        }
        (io::ErrorKind::PermissionDenied, _) if addr.tcp().is_some() && port < 1024 => {
            format!(
                "cannot listen on {addr}: ports below 1024 need the right to (CAP_NET_BIND_SERVICE). Use a higher one"
            )
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            format!("cannot listen on {addr}: no network interface of this host has that address")
        }
        _ => format!("cannot listen on {addr}: {error}"),
    };
    Refusal { errno: error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_at_a_path_is_removed_only_if_it_is_a_socket_nobody_listens_on() {
        let folder = std::env::temp_dir().join(format!("sundew-bind-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("it");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind_path(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        let first = bind_path(&path).unwrap();
        assert_eq!(bind_path(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let _again = bind_path(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
