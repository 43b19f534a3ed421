//! Carries bytes both ways after an upgrade, until both sides have ended. No buffer is held while nothing moves.

use std::io;
use std::time::Duration;

use tokio::io::Interest;

use crate::backend::Leg;
use crate::client::Client;
use crate::scratch;

/// Rounds in a row before others get their turn.
const ROUNDS: u32 = 32;

#[derive(Default)]
struct Way {
    waiting: Vec<u8>,
    /// Its source has ended.
    ended: bool,
    /// And its end was passed on.
    closed: bool,
}

impl Way {
    fn wants_more(&self) -> bool {
        !self.ended && self.waiting.is_empty()
    }

    /// Moves what can be moved; whether anything was.
    fn step(
        &mut self,
        buffer: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        write: impl Fn(&[u8]) -> io::Result<usize>,
        close: impl FnOnce(),
    ) -> io::Result<bool> {
        if !self.waiting.is_empty() {
            let written = write(&self.waiting)?;
            self.waiting.drain(..written);
            if self.waiting.is_empty() {
                self.waiting = Vec::new();
            }
            return Ok(written > 0);
        }
        if self.ended {
            if !std::mem::replace(&mut self.closed, true) {
                close();
            }
            return Ok(false);
        }
        match read(buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => {
                let written = write(&buffer[..length])?;
                self.waiting.extend_from_slice(&buffer[written..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Relays until both sides have ended, or one has failed. `rest`: how long the client has once the worker has ended.
pub(crate) async fn relay(client: &mut Client, leg: &Leg, rest: Duration) {
    Relay::default().run(client, leg, rest, None).await;
}

/// Whether a relay can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Still {
    Open,
    Ended,
}

/// Both ways.
#[derive(Default)]
pub(crate) struct Relay {
    up: Way,
    down: Way,
}

impl Relay {
    /// Relays until both sides have ended, or one has failed; or until nothing has moved for `quiet`, with nothing on its
    /// way.
    pub(crate) async fn run(
        &mut self,
        client: &mut Client,
        leg: &Leg,
        rest: Duration,
        quiet: Option<Duration>,
    ) -> Still {
        let Self { up, down } = self;
        client.left_unread(true);
        while !(up.closed && down.closed) {
            let moved = scratch::with(0, |scratch| -> io::Result<bool> {
                for _ in 0..ROUNDS {
                    let sent = up.step(
                        &mut scratch.input,
                        |buffer| client.read(buffer),
                        |bytes| leg.write(bytes),
                        || leg.end(),
                    )?;
                    let received = down.step(
                        &mut scratch.leg,
                        |buffer| leg.read(buffer),
                        |bytes| client.write(bytes),
                        || client.end(),
                    )?;
                    if !sent && !received {
                        return Ok(false);
                    }
                }
                Ok(true)
            });
            match moved {
                Err(_) => return Still::Ended,
                Ok(true) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(false) => {}
            }
            let of = |read: bool, write: bool| match (read, write) {
                (true, true) => Some(Interest::READABLE.add(Interest::WRITABLE)),
                (true, false) => Some(Interest::READABLE),
                (false, true) => Some(Interest::WRITABLE),
                (false, false) => None,
            };
            let theirs = of(up.wants_more(), !down.waiting.is_empty());
            let ours = of(down.wants_more(), !up.waiting.is_empty());
            let over = async {
                match down.closed {
                    // The worker is not there any more, whatever the client still thinks.
                    true => tokio::time::sleep(rest).await,
                    false => std::future::pending().await,
                }
            };
            let quiet = quiet.filter(|_| up.wants_more() && down.wants_more());
            tokio::select! {
                () = over, if theirs.is_some() || ours.is_some() => return Still::Ended,
                _ = async { client.ready(theirs.unwrap_or(Interest::READABLE)).await }, if theirs.is_some() => {}
                _ = async { leg.ready(ours.unwrap_or(Interest::READABLE)).await }, if ours.is_some() => {}
                () = tokio::time::sleep(quiet.unwrap_or_default()), if quiet.is_some() => return Still::Open,
                else => {}
            }
        }
        Still::Ended
    }

    /// Passes on what the worker has said so far, as the system knows it: the runtime may not have heard of it yet.
    pub(crate) async fn empty(&mut self, client: &mut Client, leg: &Leg) -> Still {
        loop {
            let moved = scratch::with(0, |scratch| {
                let read = |buffer: &mut [u8]| leg.read_now(buffer);
                self.down.step(&mut scratch.leg, read, |bytes| client.write(bytes), || {})
            });
            match moved {
                _ if self.down.ended => return Still::Ended,
                Ok(true) => {}
                Ok(false) if self.down.waiting.is_empty() => return Still::Open,
                Ok(false) if client.ready(Interest::WRITABLE).await.is_ok() => {}
                _ => return Still::Ended,
            }
        }
    }

    /// Passes on all that the worker still says, to its end. An error means that the client could not be told all of it.
    pub(crate) async fn finish(&mut self, client: &mut Client, leg: &Leg) -> io::Result<()> {
        loop {
            let moved = scratch::with(0, |scratch| {
                let read = |buffer: &mut [u8]| match leg.read(buffer) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(0),
                    done => done,
                };
                self.down.step(&mut scratch.leg, read, |bytes| client.write(bytes), || {})
            })?;
            match (moved, self.down.waiting.is_empty()) {
                (true, _) => {}
                (false, true) if self.down.ended => return Ok(()),
                (false, true) => drop(leg.ready(Interest::READABLE).await),
                (false, false) => drop(client.ready(Interest::WRITABLE).await?),
            }
        }
    }
}
