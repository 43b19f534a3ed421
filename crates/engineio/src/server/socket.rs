//! The two halves of an upgraded connection. Tcp and unix sockets can be written to from any task without waking the
//! one that owns the session; other streams are only ever polled.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use rustix::io::writev;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use sundew_io::{AsyncReadWrite, Raw};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::{tcp, unix};

use crate::proto::framing::Framing;
use crate::proto::outbox::Outbox;

type Boxed = Pin<Box<dyn AsyncReadWrite + Send>>;

/// How much is read at a time. One buffer per thread: an idle session has none.
const READ_SIZE: usize = 64 * 1024;
/// How many queued messages leave in one write.
const MAX_SLICES: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// The half that reads: owned by the session's task.
pub(crate) enum Reader {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
    Other(ReadHalf<Boxed>),
}

/// The half that writes: under the session's lock.
pub(crate) enum Writer {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
    Other(Buffered),
}

/// A stream that may have a buffer of its own (TLS): what it took leaves at the latest when it is flushed.
pub(crate) struct Buffered {
    half: WriteHalf<Boxed>,
    /// Something was written since the last flush that came to its end.
    flush_due: bool,
}

pub(crate) fn split(raw: Raw) -> (Reader, Writer) {
    match raw {
        Raw::Tcp(stream) => {
            let (reader, writer) = stream.into_split();
            (Reader::Tcp(reader), Writer::Tcp(writer))
        }
        Raw::Unix(stream) => {
            let (reader, writer) = stream.into_split();
            (Reader::Unix(reader), Writer::Unix(writer))
        }
        Raw::Other(stream) => {
            let (reader, writer) = tokio::io::split(stream);
            (Reader::Other(reader), Writer::Other(Buffered { half: writer, flush_due: false }))
        }
    }
}

/// The connection whole again, where that can be.
pub(crate) fn unite(reader: Reader, writer: Writer) -> Option<Raw> {
    match (reader, writer) {
        (Reader::Tcp(reader), Writer::Tcp(writer)) => reader.reunite(writer).ok().map(Raw::Tcp),
        (Reader::Unix(reader), Writer::Unix(writer)) => reader.reunite(writer).ok().map(Raw::Unix),
        _ => None,
    }
}

impl Reader {
    /// Reads once. Returns how much: nothing is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut count = None;
            let result = match self {
                Reader::Tcp(half) => {
                    let stream = half.as_ref();
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || read(stream.as_fd(), into, &mut count))
                }
                Reader::Unix(half) => {
                    let stream = half.as_ref();
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || read(stream.as_fd(), into, &mut count))
                }
                Reader::Other(half) => {
                    let mut buf = ReadBuf::new(into);
                    ready!(Pin::new(half).poll_read(cx, &mut buf))?;
                    return Poll::Ready(Ok(buf.filled().len()));
                }
            };
            match (count, result) {
                // Also beside a `WouldBlock`, which was for the runtime.
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                (None, result) => return Poll::Ready(result.map(|()| 0)),
            }
        }
    }

    /// Reads once. What completes a large half-read message goes straight into `decoder`; the rest is handed back,
    /// in memory of its own. `None`: the peer has ended the connection.
    pub(crate) fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Framing,
    ) -> Poll<io::Result<Option<BytesMut>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = ready!(self.poll_read(cx, scratch))?;
            let read = &mut scratch[..count];
            if read.is_empty() {
                return Poll::Ready(Ok(None));
            }
            let used = decoder.absorb(read);
            // A message that a handler keeps must hold what its peer sent, not a whole read buffer.
            Poll::Ready(Ok(Some(BytesMut::from(&read[used..]))))
        })
    }

    /// Nothing is there to be read, as the system says: the runtime may not have heard of it yet. An end counts as
    /// something.
    pub(crate) fn is_drained(&self) -> bool {
        let peek = |socket: BorrowedFd<'_>| {
            let read = recv(socket, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
            matches!(read, Err(rustix::io::Errno::AGAIN))
        };
        match self {
            Reader::Tcp(half) => peek(half.as_ref().as_fd()),
            Reader::Unix(half) => peek(half.as_ref().as_fd()),
            // It may hold something back, and could not be taken to another process anyway.
            Reader::Other(_) => false,
        }
    }

    /// Something is there to be read, as the system says. Of a stream that is not the system's nobody knows.
    pub(crate) fn has_more(&self) -> bool {
        !matches!(self, Reader::Other(_)) && !self.is_drained()
    }

    /// Reads and forgets until the peer ends the connection.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                match ready!(self.poll_read(cx, scratch)) {
                    Ok(count) if count > 0 => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
    }
}

impl Writer {
    /// Writes from the front of `outbox`; [`poll_flush`](Writer::poll_flush) has to follow. Without a context nothing is
    /// registered: `Pending` then means that the session's task has to come back with one.
    pub(crate) fn poll_write(
        &mut self,
        cx: Option<&mut Context<'_>>,
        outbox: &Outbox,
    ) -> Poll<io::Result<usize>> {
        if let Some(bytes) = outbox.single() {
            return self.poll_write_slices(cx, &[IoSlice::new(bytes)]);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = outbox.chunks(&mut slices);
        self.poll_write_slices(cx, &slices[..filled])
    }

    fn poll_write_slices(
        &mut self,
        mut cx: Option<&mut Context<'_>>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let result = match &mut *self {
                Writer::Tcp(half) => {
                    let stream = half.as_ref();
                    stream.try_io(Interest::WRITABLE, || write(stream.as_fd(), slices))
                }
                Writer::Unix(half) => {
                    let stream = half.as_ref();
                    stream.try_io(Interest::WRITABLE, || write(stream.as_fd(), slices))
                }
                Writer::Other(stream) => return stream.poll_write(cx, slices),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                result => return Poll::Ready(result),
            }
            let Some(cx) = cx.as_deref_mut() else { return Poll::Pending };
            ready!(match self {
                Writer::Tcp(half) => half.as_ref().poll_write_ready(cx),
                Writer::Unix(half) => half.as_ref().poll_write_ready(cx),
                Writer::Other(_) => return Poll::Pending,
            })?;
        }
    }

    /// Sees to it that what was written leaves. The context is as in [`poll_write`](Writer::poll_write).
    pub(crate) fn poll_flush(&mut self, cx: Option<&mut Context<'_>>) -> Poll<io::Result<()>> {
        match self {
            Writer::Other(stream) => stream.poll_flush(cx),
            // The system has it.
            Writer::Tcp(_) | Writer::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    /// Says that nothing more will come. Best effort: the deadline of the close covers the rest.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let done = match self {
            Writer::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Writer::Unix(half) => Pin::new(half).poll_shutdown(cx),
            Writer::Other(stream) => Pin::new(&mut stream.half).poll_shutdown(cx),
        };
        done.map(drop)
    }

    /// Gives it up together with its other half, which ends the connection. Dropped alone, it would first tell the peer that
    /// nothing more comes: a call into the system that the end makes unnecessary.
    pub(crate) fn release(self) {
        match self {
            Writer::Tcp(half) => half.forget(),
            Writer::Unix(half) => half.forget(),
            Writer::Other(_) => {}
        }
    }

    /// Makes the coming drop a reset: a peer that takes nothing must not keep the kernel holding our last output.
    pub(crate) fn abort(&mut self) {
        if let Writer::Tcp(half) = self {
            let _ = half.as_ref().set_zero_linger();
        }
    }
}

/// Reads into `into`, and says how much in `count`. `WouldBlock` beside a count tells the runtime that there is no more: what
/// filled less than the room was all there was, and with edge-triggered events nobody has to ask again to be told of the next.
/// The runtime's own reading does the same.
///
/// Straight from the system: what libc does around a call, for threads that may be cancelled, is felt when there is one for
/// every message.
fn read(socket: BorrowedFd<'_>, into: &mut [u8], count: &mut Option<usize>) -> io::Result<()> {
    let room = into.len();
    let (read, _) = recv(socket, into, RecvFlags::empty())?;
    *count = Some(read);
    if read > 0 && read < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

/// Writes, straight into the system as well.
fn write(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(match slices {
        [slice] => send(socket, slice, SendFlags::NOSIGNAL)?,
        _ => writev(socket, slices)?,
    })
}

impl Buffered {
    fn poll_write(
        &mut self,
        cx: Option<&mut Context<'_>>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut idle = Context::from_waker(Waker::noop());
        let cx = cx.unwrap_or(&mut idle);
        let written = ready!(Pin::new(&mut self.half).poll_write_vectored(cx, slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.flush_due = true;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&mut self, cx: Option<&mut Context<'_>>) -> Poll<io::Result<()>> {
        if self.flush_due {
            let mut idle = Context::from_waker(Waker::noop());
            ready!(Pin::new(&mut self.half).poll_flush(cx.unwrap_or(&mut idle)))?;
            self.flush_due = false;
        }
        Poll::Ready(Ok(()))
    }
}
