//! Carries bytes between a sealed connection and the plain socket pair whose other end is a front door's. No buffer is
//! held while nothing moves.
//!
//! The first byte of each record tells what it is: bytes, or a word about moving the session whose websocket this is
//! (`moving.rs`). A word keeps its place among the bytes: it leaves when all that was written to the pair before has left,
//! and is heard when all that came before is in the pair.

use std::cell::RefCell;
use std::io;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use snow::TransportState;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

use crate::moving::{Side, Word};
use crate::seal::{self, PLAIN, SEALED, Sealed};

/// What a record of bytes begins with.
const BYTES: u8 = 0;

/// Rounds in a row before others get their turn.
const ROUNDS: u32 = 16;

struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
    plain: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; 4 * (2 + SEALED)],
        output: Vec::with_capacity(2 + SEALED),
        plain: vec![0; SEALED],
    });
}

/// One direction.
#[derive(Default)]
struct Way {
    /// To be written first.
    waiting: Vec<u8>,
    /// Its source has ended.
    ended: bool,
    /// And that was passed on.
    closed: bool,
}

struct Pump {
    plain: UnixStream,
    stream: TcpStream,
    noise: TransportState,
    out: Way,
    back: Way,
    /// The beginning of a record.
    partial: Vec<u8>,
    /// To be said when everything before it has left.
    say: Option<Word>,
    /// To be heard when everything before it is in the pair.
    heard: Option<Word>,
    side: Side,
}

/// Carries until both sides have ended, or one has failed.
pub(crate) async fn pump(plain: UnixStream, sealed: Sealed, side: Side) {
    let Sealed { stream, noise } = sealed;
    let (out, back) = (Way::default(), Way::default());
    let mut pump =
        Pump { plain, stream, noise, out, back, partial: Vec::new(), say: None, heard: None, side };
    while !(pump.out.closed && pump.back.closed) {
        let moved = SCRATCH.with_borrow_mut(|scratch| -> io::Result<bool> {
            for _ in 0..ROUNDS {
                let sent = pump.send(scratch)?;
                let received = pump.receive(scratch)?;
                if !sent && !received {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        match moved {
            // Closing both tells both.
            Err(_) => return,
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => pump.wait().await,
        }
    }
}

impl Pump {
    /// From the front door to the other node. Whether anything moved.
    fn send(&mut self, scratch: &mut Scratch) -> io::Result<bool> {
        if !self.out.waiting.is_empty() {
            return drain(&mut self.out.waiting, |bytes| write(&self.stream, bytes));
        }
        if self.out.ended {
            self.out.closed = true;
            return Ok(false);
        }
        // Before a word, the system itself is asked: the runtime may not know yet of what is there.
        let (head, input) = scratch.input.split_at_mut(1);
        scratch.output.clear();
        let input = &mut input[..PLAIN - 1];
        let got = if self.say.is_some() { read_now(&self.plain, input) } else { read(&self.plain, input) };
        match got? {
            // Not one side only, but gone: so is the other.
            Some(0) if hung_up(&self.plain) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Some(length) => {
                head[0] = BYTES;
                self.out.ended = length == 0;
                seal::seal(&mut self.noise, &scratch.input[..1 + length], &mut scratch.output)?;
            }
            None => {
                let Some(word) = self.say.take() else { return Ok(false) };
                seal::seal(&mut self.noise, &word.to_record(), &mut scratch.output)?;
            }
        }
        let written = write(&self.stream, &scratch.output)?;
        self.out.waiting.extend_from_slice(&scratch.output[written..]);
        Ok(true)
    }

    /// From the other node to the front door.
    fn receive(&mut self, scratch: &mut Scratch) -> io::Result<bool> {
        if !self.back.waiting.is_empty() {
            return drain(&mut self.back.waiting, |bytes| write(&self.plain, bytes));
        }
        if let Some(word) = self.heard.take() {
            self.side.hear(word, &mut self.say);
            return Ok(true);
        }
        if self.back.ended {
            return Ok(false);
        }
        let room = scratch.input.len() - self.partial.len();
        scratch.input[..self.partial.len()].copy_from_slice(&self.partial);
        let held = self.partial.len();
        let length = match record(&self.partial)? {
            // It was behind a word.
            Some(_) => held,
            None => match read(&self.stream, &mut scratch.input[held..held + room])? {
                None => return Ok(false),
                // Without its last record: it was cut off.
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(length) => held + length,
            },
        };
        let mut rest = &scratch.input[..length];
        while let Some((record, after)) = record(rest)? {
            let opened = seal::open(&mut self.noise, record, &mut scratch.plain)?;
            rest = after;
            let plain = match scratch.plain[..opened].split_first() {
                Some((&BYTES, plain)) => plain,
                Some((_, _)) => {
                    let word = Word::from_record(&scratch.plain[..opened]);
                    self.heard = Some(word.ok_or(io::ErrorKind::InvalidData)?);
                    // What is behind it has to wait.
                    break;
                }
                None => return Err(io::ErrorKind::InvalidData.into()),
            };
            if plain.is_empty() {
                self.back.ended = true;
                break;
            }
            let written = if self.back.waiting.is_empty() { write(&self.plain, plain)? } else { 0 };
            self.back.waiting.extend_from_slice(&plain[written..]);
        }
        self.partial = rest.to_vec();
        Ok(true)
    }

    async fn wait(&mut self) {
        if self.back.ended && self.back.waiting.is_empty() && !self.back.closed {
            self.back.closed = true;
            let _ = rustix::net::shutdown(&self.plain, Shutdown::Write);
            return;
        }
        let ours = interest(!self.out.ended && self.out.waiting.is_empty(), !self.back.waiting.is_empty());
        // Also when nothing is expected of it any more: that it is gone has to show.
        let theirs = interest(!self.back.ended && self.back.waiting.is_empty(), !self.out.waiting.is_empty());
        let none = ours.is_none() && theirs.is_none();
        let idle = self.say.is_none();
        tokio::select! {
            _ = ready(ours, |interest| self.plain.ready(interest)), if ours.is_some() => {}
            _ = ready(theirs, |interest| self.stream.ready(interest)), if theirs.is_some() => {}
            word = self.side.next(), if idle => self.say = Some(word),
            () = std::future::ready(()), if none => {}
        }
    }
}

fn interest(read: bool, write: bool) -> Option<Interest> {
    match (read, write) {
        (true, true) => Some(Interest::READABLE.add(Interest::WRITABLE)),
        (true, false) => Some(Interest::READABLE),
        (false, true) => Some(Interest::WRITABLE),
        (false, false) => None,
    }
}

async fn ready<F: Future<Output = io::Result<Ready>>>(
    interest: Option<Interest>,
    wait: impl FnOnce(Interest) -> F,
) {
    if let Some(interest) = interest {
        let _ = wait(interest).await;
    }
}

/// The first record, and what is behind it.
fn record(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let [high, low, rest @ ..] = bytes else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > SEALED {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(rest.split_at_checked(length))
}

fn drain(waiting: &mut Vec<u8>, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
    let written = write(waiting)?;
    waiting.drain(..written);
    if waiting.is_empty() {
        *waiting = Vec::new();
    }
    Ok(written > 0)
}

/// A socket of the runtime.
trait Socket: std::os::fd::AsFd {
    fn try_io<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T>;
}

impl Socket for TcpStream {
    fn try_io<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        TcpStream::try_io(self, interest, io)
    }
}

impl Socket for UnixStream {
    fn try_io<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        UnixStream::try_io(self, interest, io)
    }
}

/// Reads what is there; none is nothing so far, 0 the end.
fn read(socket: &impl Socket, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let result = socket.try_io(Interest::READABLE, || {
        let (_, length) = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT)?;
        Ok(length)
    });
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`read`], without asking the runtime.
fn read_now(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
        Ok((_, length)) => Ok(Some(length)),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes what can be written now; how much that is.
fn write(socket: &impl Socket, bytes: &[u8]) -> io::Result<usize> {
    let send = || -> io::Result<usize> {
        loop {
            match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    };
    match socket.try_io(Interest::WRITABLE, send) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        done => done,
    }
}

/// Both of its sides have ended.
fn hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let polled = rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::seal::{SealError, accept, connect};

    const SECOND: Duration = Duration::from_secs(1);

    async fn sealed(
        key: [u8; 32],
        other: [u8; 32],
    ) -> (Result<Sealed, SealError>, Result<Sealed, SealError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let accepting = async {
            let (stream, _) = listener.accept().await.unwrap();
            accept(stream, &other, SECOND, SECOND).await
        };
        tokio::join!(connect(&addr, &key, SECOND, SECOND), accepting)
    }

    /// Two ends of a leg, and what is between them.
    async fn leg() -> (UnixStream, UnixStream) {
        let (near, far) = sealed([7; 32], [7; 32]).await;
        let ((one, one_end), (other, other_end)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        tokio::spawn(pump(one_end, near.unwrap(), Side::Still));
        tokio::spawn(pump(other_end, far.unwrap(), Side::Still));
        (one, other)
    }

    #[tokio::test]
    async fn who_does_not_know_the_secret_stays_out() {
        let (near, far) = sealed([7; 32], [8; 32]).await;
        assert!(matches!(near, Err(SealError::Stranger)));
        assert!(matches!(far, Err(SealError::Stranger)));
    }

    #[tokio::test]
    async fn bytes_go_both_ways_at_once_and_neither_side_waits_for_the_other() {
        let (one, other) = leg().await;
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
        let (mut read_one, mut write_one) = one.into_split();
        let (mut read_other, mut write_other) = other.into_split();
        let (there, back) = (bytes.clone(), bytes.clone());
        let sending = async {
            tokio::join!(async { write_one.write_all(&there).await.unwrap() }, async {
                write_other.write_all(&back).await.unwrap()
            });
            // One side ends; what the other still says arrives.
            write_one.shutdown().await.unwrap();
            write_other.write_all(b"last").await.unwrap();
            write_other.shutdown().await.unwrap();
        };
        let (mut got_one, mut got_other) = (Vec::new(), Vec::new());
        let (_, one, other) =
            tokio::join!(sending, read_one.read_to_end(&mut got_one), read_other.read_to_end(&mut got_other));
        one.unwrap();
        other.unwrap();
        assert!(got_other == bytes);
        assert!(got_one == [&bytes[..], b"last"].concat());
    }

    #[tokio::test]
    async fn who_goes_away_takes_the_other_side_along() {
        let (one, mut other) = leg().await;
        drop(one);
        assert_eq!(other.read(&mut [0; 8]).await.unwrap(), 0);
        // Not one side only: writing fails too, once that is known.
        let deadline = tokio::time::Instant::now() + 5 * SECOND;
        while other.write_all(b"x").await.is_ok() {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
