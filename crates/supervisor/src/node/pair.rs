//! The two ends of a leg to a Node worker.
//!
//! With the preload a pair of unix sockets: it costs a fraction of a TCP connection, and the preload gives each request
//! its client's address anyway. Without, a pair of TCP sockets on the loopback interface: a program that reads
//! `socket.remoteAddress` finds an address there, and `trust proxy: 'loopback'` works.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sundew_router::Leg;

/// Where the ends of TCP pairs meet. Nobody else gets in: an end is kept only if its address is the one expected.
static MEETING: OnceLock<Mutex<TcpListener>> = OnceLock::new();
/// Strangers at the meeting place in a row, before it is given up.
const STRANGERS: u32 = 64;

/// Our end, and the worker's.
pub(crate) fn leg(unix: bool) -> io::Result<(Leg, OwnedFd)> {
    if unix {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        return Ok((Leg::Unix(tokio::net::UnixStream::from_std(ours)?), theirs.into()));
    }
    let (ours, theirs) = tcp()?;
    Ok((Leg::Tcp(tokio::net::TcpStream::from_std(ours)?), theirs.into()))
}

fn meeting() -> io::Result<&'static Mutex<TcpListener>> {
    if let Some(meeting) = MEETING.get() {
        return Ok(meeting);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok(MEETING.get_or_init(|| Mutex::new(listener)))
}

fn tcp() -> io::Result<(TcpStream, TcpStream)> {
    // Held over both steps: the next one to be accepted is the one that connected.
    let listener = meeting()?.lock();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let ours = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&ours, &listener.local_addr()?) {
        // On the loopback interface a connection is made within the call, and reported as being made.
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let ours = TcpStream::from(ours);
    let expected = ours.local_addr()?;
    for _ in 0..STRANGERS {
        let (theirs, from): (TcpStream, SocketAddr) = listener.accept()?;
        if from == expected {
            ours.set_nodelay(true)?;
            theirs.set_nodelay(true)?;
            theirs.set_nonblocking(true)?;
            return Ok((ours, theirs));
        }
    }
    Err(io::Error::other("strangers connect to the port the supervisor uses to reach its workers"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn the_ends_of_a_tcp_pair_belong_together_whoever_else_connects() {
        let address = meeting().unwrap().lock().local_addr().unwrap();
        let _strangers: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
        let (mut ours, mut theirs) = tcp().unwrap();
        ours.write_all(b"x").unwrap();
        let mut byte = [0];
        theirs.set_nonblocking(false).unwrap();
        theirs.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
        assert_eq!(theirs.peer_addr().unwrap(), ours.local_addr().unwrap());
    }
}
