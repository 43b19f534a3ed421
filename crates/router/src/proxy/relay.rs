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
    let (mut up, mut down) = (Way::default(), Way::default());
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
            Err(_) => return,
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
        tokio::select! {
            () = over, if theirs.is_some() || ours.is_some() => return,
            _ = async { client.ready(theirs.unwrap_or(Interest::READABLE)).await }, if theirs.is_some() => {}
            _ = async { leg.ready(ours.unwrap_or(Interest::READABLE)).await }, if ours.is_some() => {}
            else => {}
        }
    }
}
