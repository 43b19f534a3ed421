//! The client's side of a connection: reads that never take more than is asked for, and keep tokio's readiness true.
//!
//! Readiness comes by edges: an event tells that something arrived, once. So it is cleared exactly when a read found
//! less than it had room for, and what is left unread on purpose is remembered (`unread`), since nothing will tell of it
//! again.
//!
//! The runtime hears of a connection when it has to be waited for: a websocket whose request is there already is handed
//! over before.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, Shutdown};
use tokio::io::{Interest, Ready};

use crate::accept::At;
use crate::access::Line;
use crate::backend::Leg;
use crate::http::forward::Peers;
use crate::leg::send;
use crate::request_id::RequestId;
use crate::scratch;
use crate::tls::Session;

/// Who a connection is from: the client, or the last of the proxies in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// None: it came through a unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// That is the word of the proxy at its other end.
    announced: bool,
}

impl From<Option<SocketAddr>> for Peer {
    fn from(address: Option<SocketAddr>) -> Self {
        Self { address, announced: false }
    }
}

pub(crate) struct Client {
    stream: Stream,
    peer: Peer,
    /// Whose request it is, where a proxy in between says so.
    told: Option<SocketAddr>,
    pub(crate) at: At,
    /// The access log's entry of its request.
    pub(crate) line: Option<Box<Line>>,
    /// The id of the request under way, where requests have one.
    pub(crate) request_id: Option<RequestId>,
    /// What it says is encrypted.
    tls: Option<Box<Session>>,
    /// It came by TLS, whether or not that ends here.
    pub(crate) secure: bool,
    /// There may be bytes that no event will tell of.
    unread: bool,
    /// The client had ended its side when its request was read. It waits for the answer all the same.
    pub(crate) half_closed: bool,
    /// It is another node, that sends on what its clients want.
    pub(crate) is_node: bool,
}

enum Stream {
    /// The runtime does not know of it yet.
    New(OwnedFd),
    /// The same kinds of socket as a leg.
    Watched(Leg),
    /// It was taken out, or could not be registered.
    Gone,
}

impl Client {
    /// A connection that does not block, and is registered with no runtime.
    pub(crate) fn new(socket: OwnedFd, peer: impl Into<Peer>) -> Self {
        Self::of(Stream::New(socket), peer)
    }

    /// One the runtime knows of already.
    pub(crate) fn watched_one(socket: Leg, peer: impl Into<Peer>) -> Self {
        Self::of(Stream::Watched(socket), peer)
    }

    fn of(stream: Stream, peer: impl Into<Peer>) -> Self {
        Self {
            stream,
            peer: peer.into(),
            told: None,
            at: At::default(),
            line: None,
            request_id: None,
            tls: None,
            secure: false,
            unread: true,
            half_closed: false,
            is_node: false,
        }
    }

    /// It came in here.
    pub(crate) fn at(mut self, at: At) -> Self {
        self.at = at;
        self
    }

    /// The connection comes from this client, by the word of the proxy at its other end.
    pub(crate) fn announced(&mut self, client: SocketAddr) {
        let address = self.fd().map_or(client, |socket| as_told_by(socket, client));
        self.peer = Peer { address: Some(address), announced: true };
    }

    /// The next request is this client's, by the word of proxies. None: it is the peer's.
    pub(crate) fn told(&mut self, client: Option<SocketAddr>) {
        self.told = client.map(|client| match (client.ip(), self.peer.address) {
            (IpAddr::V4(ip), Some(SocketAddr::V6(_))) => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), client.port())
            }
            _ => client,
        });
    }

    /// After the handshake.
    pub(crate) fn encrypted(stream: Leg, peer: Peer, tls: Session) -> Self {
        Self { tls: Some(Box::new(tls)), secure: true, ..Self::watched_one(stream, peer) }
    }

    /// Its socket cannot be handed over: what comes out of it is not what the client says.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Puts `head` in the place of the `length` bytes of one that were looked at. For encrypted connections.
    pub(crate) fn replace_head(&mut self, length: usize, head: &[u8]) {
        if let Some(tls) = &self.tls {
            tls.replace(length, head);
        }
    }

    /// One client, one address, whichever family the listening socket has.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.raw_peer().map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }

    /// Another node tells whose request this is.
    pub(crate) fn set_peer(&mut self, peer: Option<SocketAddr>) {
        self.peer = Peer { address: peer, announced: true };
    }

    /// The client as the socket tells it, or would tell it.
    pub(crate) fn raw_peer(&self) -> Option<SocketAddr> {
        self.told.or(self.peer.address)
    }

    /// The same, if it is not what the socket tells.
    pub(crate) fn other_than_socket(&self) -> Option<SocketAddr> {
        self.told.or(self.peer.address.filter(|_| self.peer.announced || self.secure))
    }

    /// Who the connection is from, whoever its requests are.
    pub(crate) fn connection_peer(&self) -> Peer {
        self.peer
    }

    /// As workers are told.
    pub(crate) fn peers(&self) -> Peers<'_> {
        let request_id = self.request_id.as_ref().map(|id| &*id.text);
        Peers { client: self.raw_peer(), last_hop: self.peer.address, secure: self.secure, request_id }
    }

    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.raw_peer().map(|peer| peer.ip().to_canonical())
    }

    /// Out of the runtime.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        match self.stream {
            Stream::New(socket) => Ok(socket),
            Stream::Watched(stream) => stream.into_fd(),
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.stream {
            Stream::New(socket) => Ok(socket.as_fd()),
            Stream::Watched(stream) => Ok(stream.as_fd()),
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Once the runtime knows of it.
    fn watched(&self) -> Option<&Leg> {
        if let Stream::Watched(stream) = &self.stream { Some(stream) } else { None }
    }

    fn watch(&mut self) -> io::Result<&Leg> {
        if let Stream::New(_) = &self.stream
            && let Stream::New(socket) = std::mem::replace(&mut self.stream, Stream::Gone)
        {
            self.stream = Stream::Watched(Leg::from_fd(socket)?);
        }
        self.watched().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The socket as it is, and who is at its other end.
    pub(crate) fn into_tcp(self) -> io::Result<(tokio::net::TcpStream, Peer)> {
        let peer = self.peer;
        // Watched anew: what is there already would be news to nobody else.
        match Leg::from_fd(self.into_fd()?)? {
            Leg::Tcp(stream) => Ok((stream, peer)),
            Leg::Unix(_) | Leg::Node(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes what was looked at, of an encrypted connection.
    pub(crate) fn take_seen(&mut self) -> Vec<u8> {
        self.tls.as_ref().map(|tls| tls.take_seen()).unwrap_or_default()
    }

    /// Came by TLS, which ended elsewhere.
    pub(crate) fn secured(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Tells that bytes are left that were seen.
    pub(crate) fn left_unread(&mut self, unread: bool) {
        self.unread = unread;
    }

    /// There may be bytes that were not taken: closed now, the connection would be reset.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread
    }

    pub(crate) async fn ready(&mut self, interest: Interest) -> io::Result<Ready> {
        self.watch()?;
        match (&self.stream, &self.tls) {
            (Stream::Watched(stream), None) => stream.ready(interest).await,
            (Stream::Watched(stream), Some(tls)) => tls.ready(stream, interest).await,
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Looks at what is there, without taking it. 0 is the end.
    pub(crate) fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.tls, &self.stream) {
            (Some(tls), Stream::Watched(stream)) => tls.peek(stream, &mut self.unread, buffer),
            _ => self.recv(buffer, RecvFlags::PEEK),
        }
    }

    /// Takes what is there. 0 is the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.tls, &self.stream) {
            (Some(tls), Stream::Watched(stream)) => tls.read(stream, &mut self.unread, buffer),
            _ => self.recv(buffer, RecvFlags::empty()),
        }
    }

    fn recv(&mut self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let room = buffer.len();
        let fd = self.fd()?;
        let mut recv = || -> io::Result<usize> {
            let (_, length) = rustix::net::recv(fd, &mut *buffer, flags | RecvFlags::DONTWAIT)?;
            Ok(length)
        };
        let Some(stream) = self.watched().filter(|_| !self.unread) else {
            let result = recv();
            match &result {
                // Looking takes nothing away: it may still be there.
                Ok(length) if *length < room && !flags.contains(RecvFlags::PEEK) => self.unread = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unread = false,
                _ => {}
            }
            return result;
        };
        let mut length = None;
        let result = stream.try_io(Interest::READABLE, || {
            let got = recv()?;
            length = Some(got);
            if got < room && got > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (length, result) {
            (Some(length), _) => Ok(length),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Takes `count` bytes that were looked at before and throws them away. `spare` is overwritten.
    pub(crate) fn discard(&mut self, mut count: usize, spare: &mut [u8]) -> io::Result<()> {
        if let Some(tls) = &self.tls {
            return tls.discard(count);
        }
        while count > 0 {
            let part = count.min(spare.len());
            match rustix::net::recv(self.fd()?, &mut spare[..part], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, length)) => count -= length,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Something may have come, and it is none of our business yet: be told of what comes next.
    pub(crate) fn look_later(&mut self) {
        if let Some(stream) = self.watched() {
            let _ = stream
                .try_io(Interest::READABLE, || -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) });
        }
        self.unread = true;
    }

    /// Writes what can be written now; how much that is.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(line) = &self.line else { return self.send(bytes) };
        let written = self.send(bytes)?;
        line.wrote(&bytes[..written]);
        Ok(written)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        if let (Some(tls), Some(stream)) = (&self.tls, self.watched()) {
            return tls.write(stream, bytes);
        }
        // Before asking the runtime: of a new connection it knows nothing yet.
        let fd = self.fd()?;
        match send(fd, bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        let Some(stream) = self.watched() else { return Ok(0) };
        match stream.try_io(Interest::WRITABLE, || send(fd, bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            done => done,
        }
    }

    /// Ends our side. Only for a socket that nobody else holds.
    pub(crate) fn end(&self) {
        match (&self.tls, self.watched()) {
            (Some(tls), Some(stream)) => tls.end(stream),
            _ => {
                if let Ok(fd) = self.fd() {
                    let _ = rustix::net::shutdown(fd, Shutdown::Write);
                }
            }
        }
    }

    /// Before it is closed: what is encrypted may not have gone out yet, and its end has to be said.
    pub(crate) async fn finish(&self, timeout: Duration) {
        if let (Some(tls), Some(stream)) = (&self.tls, self.watched()) {
            tls.finish(stream, timeout).await;
        }
    }

    /// Ends our side, and takes what still comes for a while: a socket closed with unread bytes is reset, and takes the
    /// answer with it.
    pub(crate) async fn linger(mut self, bytes: u64, timeout: Duration) {
        // Nobody else holds this socket: it was not handed over.
        self.end();
        self.unread = true;
        let drain = async {
            let mut left = bytes;
            loop {
                let read = scratch::with(0, |scratch| self.read(&mut scratch.leg));
                match read {
                    Ok(0) => return,
                    Ok(length) => match left.checked_sub(length as u64) {
                        Some(rest) => left = rest,
                        None => return,
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if self.ready(Interest::READABLE).await.is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
                tokio::task::consume_budget().await;
            }
        };
        let _ = tokio::time::timeout(timeout, drain).await;
    }
}

/// The client's address as the socket tells it: an IPv4 one can be written as IPv6.
pub(crate) fn as_told_by(socket: impl AsFd, peer: SocketAddr) -> SocketAddr {
    let domain = rustix::net::sockopt::socket_domain(socket);
    match peer.ip() {
        IpAddr::V4(ip) if domain == Ok(AddressFamily::INET6) => {
            SocketAddr::new(ip.to_ipv6_mapped().into(), peer.port())
        }
        _ => peer,
    }
}
