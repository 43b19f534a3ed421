//! The encrypted side of a client's connection: what a [`Client`](crate::client::Client) reads and writes when its socket
//! carries TLS. The same rules as for a plain socket hold: nothing is taken that was not asked for, nobody waits in here,
//! and tokio's readiness stays true.
//!
//! What is bounded: plaintext that was looked at (as much as the caller has room for, and one record), and ciphertext that
//! waits to be sent ([`SEND_LIMIT`]). What does not fit is not taken, and so waits in the socket.

use std::io::{self, IoSlice};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustls::ServerConnection;
use tokio::io::{Interest, Ready};

use crate::backend::Leg;

/// Ciphertext that waits to be sent, in bytes. Nothing is encrypted while some waits.
const SEND_LIMIT: usize = 64 * 1024;

/// A TLS session after its handshake.
pub(crate) struct Session {
    inner: Mutex<Inner>,
}

struct Inner {
    tls: ServerConnection,
    /// Plaintext that was looked at and not taken.
    seen: Vec<u8>,
    /// So much of it was taken.
    taken: usize,
    /// The client sends no more: it said so, or its side of the connection has ended.
    ended: bool,
    /// Our side ends once all was sent.
    ending: bool,
}

impl Session {
    pub(crate) fn new(mut tls: ServerConnection) -> Self {
        tls.set_buffer_limit(Some(SEND_LIMIT));
        let inner = Inner { tls, seen: Vec::new(), taken: 0, ended: false, ending: false };
        Self { inner: Mutex::new(inner) }
    }

    /// Looks at what is there. 0 is the end. `unread`: as in the client, for the ciphertext.
    pub(crate) fn peek(&self, socket: &Leg, unread: &mut bool, buffer: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner.lock();
        while inner.seen().len() < buffer.len() {
            let mut part = [0; 4096];
            match inner.decrypted(&mut part)? {
                Some(0) => break,
                Some(length) => inner.seen.extend_from_slice(&part[..length]),
                None => match inner.receive(socket, unread) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                },
            }
        }
        let seen = inner.seen();
        let length = seen.len().min(buffer.len());
        if length == 0 && !inner.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..length].copy_from_slice(&seen[..length]);
        Ok(length)
    }

    /// Takes what is there. 0 is the end.
    pub(crate) fn read(&self, socket: &Leg, unread: &mut bool, buffer: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner.lock();
        if !inner.seen().is_empty() {
            let length = inner.seen().len().min(buffer.len());
            buffer[..length].copy_from_slice(&inner.seen()[..length]);
            inner.take(length);
            return Ok(length);
        }
        let mut length = 0;
        while length < buffer.len() {
            match inner.decrypted(&mut buffer[length..]) {
                Ok(Some(0)) => break,
                Ok(Some(more)) => length += more,
                Ok(None) => match inner.receive(socket, unread) {
                    Ok(()) => {}
                    Err(_) if length > 0 => break,
                    Err(error) => return Err(error),
                },
                Err(_) if length > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(length)
    }

    /// Takes what was looked at before and throws it away.
    pub(crate) fn discard(&self, count: usize) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.seen().len() < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        inner.take(count);
        Ok(())
    }

    /// Puts `new` in the place of the first `length` bytes that were looked at.
    pub(crate) fn replace(&self, length: usize, new: &[u8]) {
        let mut inner = self.inner.lock();
        let rest = inner.seen().get(length..).unwrap_or_default();
        inner.seen = [new, rest].concat();
        inner.taken = 0;
    }

    /// Takes what was looked at.
    pub(crate) fn take_seen(&self) -> Vec<u8> {
        let mut inner = self.inner.lock();
        let seen = inner.seen().to_vec();
        inner.take(seen.len());
        seen
    }

    /// Encrypts and sends what can be sent now; how much of it was taken.
    pub(crate) fn write(&self, socket: &Leg, bytes: &[u8]) -> io::Result<usize> {
        use io::Write;
        let mut inner = self.inner.lock();
        if !inner.flush(socket)? {
            return Ok(0);
        }
        let taken = inner.tls.writer().write(bytes)?;
        inner.flush(socket)?;
        Ok(taken)
    }

    /// Waits for the socket, and meanwhile sends what could not be sent before.
    pub(crate) async fn ready(&self, socket: &Leg, interest: Interest) -> io::Result<Ready> {
        loop {
            if !self.inner.lock().tls.wants_write() {
                return socket.ready(interest).await;
            }
            let ready = socket.ready(interest.add(Interest::WRITABLE)).await?;
            let flushed = self.inner.lock().flush(socket)?;
            let reads = interest.is_readable() && (ready.is_readable() || ready.is_read_closed());
            if reads || (interest.is_writable() && flushed) {
                return Ok(ready);
            }
        }
    }

    /// Says that nothing more comes, and ends our side of the connection once all is sent.
    pub(crate) fn end(&self, socket: &Leg) {
        let mut inner = self.inner.lock();
        if !std::mem::replace(&mut inner.ending, true) {
            inner.tls.send_close_notify();
        }
        let _ = inner.flush(socket);
    }

    /// Ends our side and waits until all is sent, for a bounded time.
    pub(crate) async fn finish(&self, socket: &Leg, timeout: Duration) {
        self.end(socket);
        let all = async {
            while self.inner.lock().tls.wants_write() {
                if socket.ready(Interest::WRITABLE).await.is_err() || self.inner.lock().flush(socket).is_err()
                {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(timeout, all).await;
    }
}

impl Inner {
    fn seen(&self) -> &[u8] {
        &self.seen[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.seen.len() {
            // An idle connection holds no buffer.
            self.seen = Vec::new();
            self.taken = 0;
        }
    }

    /// Plaintext that is there already. 0 is the end, none that more has to be received first.
    fn decrypted(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        use io::Read;
        if self.ended {
            return Ok(Some(0));
        }
        match self.tls.reader().read(buffer) {
            Ok(length) => {
                self.ended = length == 0;
                Ok(Some(length))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // Without a word of goodbye: HTTP knows by itself what is complete.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.ended = true;
                Ok(Some(0))
            }
            Err(error) => Err(error),
        }
    }

    /// Receives more ciphertext. Whether it was all there is shows in the readiness, as with a plain socket.
    fn receive(&mut self, socket: &Leg, unread: &mut bool) -> io::Result<()> {
        let mut input = Input { socket, whole: false };
        if *unread {
            let result = self.tls.read_tls(&mut input);
            let empty = matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            *unread = !(empty || input.whole);
            result?;
        } else {
            let mut received = false;
            let result = socket.try_io(Interest::READABLE, || {
                self.tls.read_tls(&mut input)?;
                received = true;
                if input.whole { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            if !received {
                result?;
            }
        }
        let processed = self.tls.process_new_packets();
        // What is to be said about it, an alert perhaps.
        let _ = self.flush(socket);
        processed.map(|_| ()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Sends what waits; whether all of it was sent.
    fn flush(&mut self, socket: &Leg) -> io::Result<bool> {
        while self.tls.wants_write() {
            // Before asking the runtime: of a new connection it knows nothing yet.
            let sent = match self.tls.write_tls(&mut Output(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.try_io(Interest::WRITABLE, || self.tls.write_tls(&mut Output(socket)))
                }
                sent => sent,
            };
            match sent {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if self.ending {
            // Nobody else holds this socket: what was handed over is one end of a pair.
            let _ = rustix::net::shutdown(socket, Shutdown::Write);
        }
        Ok(true)
    }
}

/// Reads from the socket, and notices when that was all.
struct Input<'a> {
    socket: &'a Leg,
    whole: bool,
}

impl io::Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        let (_, length) = rustix::net::recv(self.socket, buffer, RecvFlags::DONTWAIT)?;
        self.whole = length > 0 && length < room;
        Ok(length)
    }
}

struct Output<'a>(&'a Leg);

impl io::Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        crate::leg::send(self.0, bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::sendmsg(self.0, parts, &mut rustix::net::SendAncillaryBuffer::default(), flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
