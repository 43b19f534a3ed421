//! The connection type: a TCP or unix stream that knows how it reached this process.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::hold::Held;
use crate::stall::Stall;
use crate::{HoldHead, Raw, Recovered};

/// What is smaller leaves as one piece of memory: to copy it costs less than a vectored write does.
const GATHERED: usize = 1024;

/// The client's own address, as a request extension. The server loop sets it once per request; whoever needs the
/// address reads it from there and never from a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// How a connection reached this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This process accepted it itself.
    Accepted,
    /// The supervisor accepted it, looked at its first request and passed the socket here.
    HandedOff,
    /// A leg of the supervisor's proxy: many clients' requests, one after another.
    Leg,
}

/// A connection to serve: what a listener yields and hyper drives.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    peer: Option<SocketAddr>,
    origin: Origin,
    /// Absent until somebody may want it.
    held: Option<Held>,
    /// Was read and put back: what is read next.
    unread: Bytes,
    /// Absent unless there is a limit.
    stall: Option<Box<Stall>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Conn {
    /// A TCP connection, with `TCP_NODELAY` set by whoever accepted it. `peer` is the client's address where it is known from elsewhere (a hand-off says it);
    /// otherwise the socket is asked.
    pub fn tcp(stream: TcpStream, peer: Option<SocketAddr>, origin: Origin) -> Conn {
        let peer = peer.or_else(|| stream.peer_addr().ok());
        Conn { stream: Stream::Tcp(stream), peer, origin, held: None, unread: Bytes::new(), stall: None }
    }

    /// A unix-socket connection. It has no peer address of its own.
    pub fn unix(stream: UnixStream, origin: Origin) -> Conn {
        Conn {
            stream: Stream::Unix(stream),
            peer: None,
            origin,
            held: None,
            unread: Bytes::new(),
            stall: None,
        }
    }

    /// The client's address, where it is known from elsewhere.
    #[must_use]
    pub fn with_peer(self, peer: Option<SocketAddr>) -> Conn {
        Conn { peer: peer.or(self.peer), ..self }
    }

    /// The client's address, if this connection has one client and it is known.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// How the connection reached this process.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// To be given to requests that ask for an upgrade.
    pub fn hold_head(&mut self) -> HoldHead {
        self.held.get_or_insert_default().handle()
    }

    /// From now on a write fails (`TimedOut`) that could not be done for so long: a client that takes nothing.
    pub fn limit_stalls(&mut self, limit: Duration) {
        self.stall = Some(Box::new(Stall::new(limit)));
    }

    fn watched<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.stall {
            Some(stall) => stall.watch(cx, written),
            None => written,
        }
    }

    /// Gives back what was read and not used: whoever reads next begins with it.
    pub fn put_back(&mut self, bytes: Bytes) {
        self.unread = if self.unread.is_empty() { bytes } else { [&bytes[..], &self.unread].concat().into() };
    }

    /// The stream itself.
    pub fn into_raw(self) -> Raw {
        self.into_recovered().stream
    }

    /// The stream, what was read of it and not used, and what was to be written to it and is held.
    pub fn into_recovered(self) -> Recovered {
        let stream = match self.stream {
            Stream::Tcp(stream) => Raw::Tcp(stream),
            Stream::Unix(stream) => Raw::Unix(stream),
        };
        let unwritten = self.held.map_or_else(Vec::new, Held::into_bytes);
        Recovered { stream, unread: self.unread, unwritten }
    }
}

macro_rules! each {
    ($conn:expr, $stream:ident => $call:expr) => {
        match &mut $conn.as_mut().get_mut().stream {
            Stream::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..length]);
            self.unread.advance(length);
            if self.unread.is_empty() {
                // Even the end of it would keep its memory.
                self.unread = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(held) = self.held.as_mut().filter(|_| !buf.is_empty())
            && held.takes(buf)
        {
            held.push(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        let written = each!(self, stream => stream.poll_write(cx, buf));
        self.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if total <= GATHERED {
            let mut gathered = [0; GATHERED];
            let mut filled = 0;
            for buf in bufs {
                gathered[filled..filled + buf.len()].copy_from_slice(buf);
                filled += buf.len();
            }
            return self.poll_write(cx, &gathered[..filled]);
        }
        let written = each!(self, stream => stream.poll_write_vectored(cx, bufs));
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_gets_nowhere_has_a_limit() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut conn = Conn::unix(ours, Origin::Accepted);
        conn.limit_stalls(LIMIT);
        let reading = tokio::spawn(async move {
            // Slow, but not too slow.
            for _ in 0..20 {
                sleep(LIMIT / 2).await;
                theirs.read_exact(&mut vec![0; 1 << 20]).await.expect("more");
            }
            (theirs, Instant::now())
        });
        let error = loop {
            if let Err(error) = conn.write_all(&[0; 1 << 20]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (_theirs, stopped) = reading.await.expect("it did not panic");
        assert!(stopped.elapsed() >= LIMIT && stopped.elapsed() < LIMIT * 2, "{:?}", stopped.elapsed());
    }
}
