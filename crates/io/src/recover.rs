//! The way back from hyper: the raw stream and the unread bytes of an upgraded connection.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::Conn;

/// Anything that reads and writes: what [`Raw::Other`] boxes.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> AsyncReadWrite for T {}

/// The stream under an upgraded connection.
pub enum Raw {
    /// A TCP socket.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// A stream this crate does not know (TLS, a test's duplex, ...): it works, but cannot be exported.
    Other(Pin<Box<dyn AsyncReadWrite + Send>>),
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Tcp(stream) => f.debug_tuple("Tcp").field(stream).finish(),
            Raw::Unix(stream) => f.debug_tuple("Unix").field(stream).finish(),
            Raw::Other(_) => f.write_str("Other"),
        }
    }
}

/// A connection after its upgrade.
#[derive(Debug)]
pub struct Recovered {
    /// The stream.
    pub stream: Raw,
    /// What was read past the head of the upgrade request.
    pub unread: Bytes,
    /// What has to be written before all else: the head of the 101, if [`HoldHead`](crate::HoldHead) was asked for, or if it
    /// comes from a [`TakeOver`](crate::TakeOver).
    pub unwritten: Vec<u8>,
}

/// Takes the raw stream back, with the bytes hyper had read past the head of the upgrade request.
///
/// Knows [`Conn`], [`TcpStream`] and [`UnixStream`] behind `hyper::server::conn::http1` and behind hyper-util's
/// `auto` builder (which axum uses). Whatever else is underneath stays a boxed stream, with its unread bytes inside.
pub fn recover(upgraded: Upgraded) -> Recovered {
    let written = |stream, unread| Recovered { stream, unread, unwritten: Vec::new() };
    let upgraded = match downcast::<Conn>(upgraded) {
        Ok((mut conn, unread)) => {
            conn.put_back(unread);
            return conn.into_recovered();
        }
        Err(upgraded) => upgraded,
    };
    let upgraded = match downcast::<TcpStream>(upgraded) {
        Ok((stream, unread)) => {
            // Frames leave when they are written; a `Conn` has it from its listener.
            let _ = stream.set_nodelay(true);
            return written(Raw::Tcp(stream), unread);
        }
        Err(upgraded) => upgraded,
    };
    match downcast::<UnixStream>(upgraded) {
        Ok((stream, unread)) => written(Raw::Unix(stream), unread),
        Err(upgraded) => written(Raw::Other(Box::pin(TokioIo::new(upgraded))), Bytes::new()),
    }
}

fn downcast<T>(upgraded: Upgraded) -> Result<(T, Bytes), Upgraded>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let upgraded = match upgraded.downcast::<TokioIo<T>>() {
        Ok(parts) => return Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    auto::upgrade::downcast::<TokioIo<T>>(upgraded).map(|parts| (parts.io.into_inner(), parts.read_buf))
}
