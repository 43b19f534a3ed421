//! What waits to be written to a worker, and which of it may be written next. No socket here.
//!
//! The rule about descriptors. Node pairs the last descriptor of a read (of at most [`READ`] bytes) with the next
//! message that announces one. The kernel ends a read behind the message a descriptor came with, so they meet, unless
//! that message is cut by the end of a full read: then its rest is read together with what follows, and takes the next
//! descriptor. Two things exclude it:
//!
//! - One descriptor alone on its way meets its message however that is cut.
//! - While all bytes from the beginning of the last confirmed announcement up to the end of the new one fit into a
//!   read, the new one is not cut: every read that could begin from then on reaches beyond it.
//!
//! Both need such a message to be one write. It is short: the kernel takes all of it or nothing.
//!
//! A message that announces a descriptor and brings none (a ping) would take that of another: it goes alone.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::encode::Value;
use super::message::{Handed, Serialization, ToWorker};

/// How much Node (libuv) reads at once.
pub(super) const READ: u64 = 64 * 1024;

/// What our own messages, which no limit of a worker's making bounds, may take beyond the limit for relayed ones.
const CONTROL_BYTES: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct OutboxLimits {
    pub(super) queue_bytes: usize,
    pub(super) in_flight_handles: usize,
    pub(super) queued_handles: usize,
}

/// Which limit a message is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    QueueBytes,
    QueuedHandles,
}

/// What the worker has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmed {
    Connection(u64),
    Shared,
    Ping,
    /// Something that was never sent.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Outbox {
    serialization: Serialization,
    limits: OutboxLimits,
    /// Numbers what is queued, so that a descriptor never goes before a message that was queued before it.
    stamp: u64,
    plain: VecDeque<(u64, Bytes)>,
    plain_bytes: usize,
    handles: VecDeque<(u64, Waiting)>,
    /// A ping that waits to be written, and since when.
    ping: Option<Instant>,
    current: Option<Current>,
    /// Bytes of this channel up to now.
    written: u64,
    in_flight: VecDeque<InFlight>,
    /// Where the last confirmed announcement begins.
    confirmed: u64,
}

#[derive(Debug)]
enum Waiting {
    Connection(Handed),
    /// The frame is ready; these are never taken back.
    Shared(Bytes, OwnedFd),
}

#[derive(Debug)]
struct Current {
    rest: Bytes,
    /// What goes with the first byte.
    carries: Carries,
}

#[derive(Debug)]
enum Carries {
    Nothing,
    Ping,
    Connection(Handed),
    Shared(OwnedFd),
}

#[derive(Debug)]
struct InFlight {
    begins: u64,
    since: Instant,
    what: Confirmed,
}

impl Outbox {
    pub(super) fn new(serialization: Serialization, limits: OutboxLimits) -> Self {
        Self {
            serialization,
            limits,
            stamp: 0,
            plain: VecDeque::new(),
            plain_bytes: 0,
            handles: VecDeque::new(),
            ping: None,
            current: None,
            written: 0,
            in_flight: VecDeque::new(),
            confirmed: 0,
        }
    }

    /// Takes a message, or gives it back.
    pub(super) fn push(&mut self, message: ToWorker) -> Result<(), (ToWorker, Over)> {
        let value = match message {
            ToWorker::Relay(frame) => {
                if self.plain_bytes + frame.len() > self.limits.queue_bytes {
                    return Err((ToWorker::Relay(frame), Over::QueueBytes));
                }
                self.queue(frame);
                return Ok(());
            }
            ToWorker::Connection(handed) => {
                if self.handles.len() >= self.limits.queued_handles {
                    return Err((ToWorker::Connection(handed), Over::QueuedHandles));
                }
                self.stamp += 1;
                self.handles.push_back((self.stamp, Waiting::Connection(handed)));
                return Ok(());
            }
            ToWorker::Shared { ack, key, fd, udp, sockname, ticket_keys } => {
                if self.handles.len() >= self.limits.queued_handles {
                    let message = ToWorker::Shared { ack, key, fd, udp, sockname, ticket_keys };
                    return Err((message, Over::QueuedHandles));
                }
                let value = Value::bound(ack, None, &key, sockname.as_ref(), ticket_keys.as_deref());
                let frame = value.shared(udp).frame(self.serialization);
                self.stamp += 1;
                self.handles.push_back((self.stamp, Waiting::Shared(frame.into(), fd)));
                return Ok(());
            }
            // What is on its way is answered by the same event loop.
            ToWorker::Ping => {
                if self.in_flight.is_empty() && self.ping.is_none() {
                    self.ping = Some(Instant::now());
                }
                return Ok(());
            }
            ToWorker::Bound { ack, ref key, ref sockname, ref ticket_keys } => {
                Value::bound(ack, None, key, sockname.as_ref(), ticket_keys.as_deref())
            }
            ToWorker::Refused { ack, errno, ref key, ref ticket_keys } => {
                Value::bound(ack, Some(errno), key, None, ticket_keys.as_deref())
            }
            ToWorker::Ack { ack } => Value::ack(ack),
            ToWorker::Shutdown => Value::shutdown(),
            ToWorker::AdapterExit { worker } => Value::adapter_exit(worker),
            ToWorker::LetGo { batch, pause_ms } => Value::let_go(batch, pause_ms),
            ToWorker::AdapterGone { ref uid, ref nsp } => Value::adapter_gone(uid, nsp),
        };
        let frame = value.frame(self.serialization);
        if self.plain_bytes + frame.len() > self.limits.queue_bytes.saturating_add(CONTROL_BYTES) {
            return Err((message, Over::QueueBytes));
        }
        self.queue(frame.into());
        Ok(())
    }

    /// Confirms a descriptor the worker sent. Beyond any limit: Node sends no second one before this.
    pub(super) fn push_handle_ack(&mut self) {
        self.queue(Value::handle_ack().frame(self.serialization).into());
    }

    fn queue(&mut self, frame: Bytes) {
        self.plain_bytes += frame.len();
        self.stamp += 1;
        self.plain.push_back((self.stamp, frame));
    }

    /// What to write now. `None`: nothing, or nothing until the worker confirms something.
    pub(super) fn next(&mut self) -> Option<(&[u8], Option<&OwnedFd>)> {
        if self.current.is_none() {
            self.current = self.choose();
        }
        let Current { rest, carries } = self.current.as_ref()?;
        let fd = match carries {
            Carries::Connection(handed) => Some(&handed.fd),
            Carries::Shared(fd) => Some(fd),
            Carries::Nothing | Carries::Ping => None,
        };
        Some((rest, fd))
    }

    /// That much of it was written, and the descriptor with it.
    pub(super) fn wrote(&mut self, bytes: usize) {
        let Some(current) = &mut self.current else { return };
        let what = match std::mem::replace(&mut current.carries, Carries::Nothing) {
            Carries::Nothing => None,
            Carries::Ping => Some((Confirmed::Ping, self.ping.take().unwrap_or_else(Instant::now))),
            Carries::Connection(handed) => Some((Confirmed::Connection(handed.seq), Instant::now())),
            Carries::Shared(_) => Some((Confirmed::Shared, Instant::now())),
        };
        if let Some((what, since)) = what {
            self.in_flight.push_back(InFlight { begins: self.written, since, what });
        }
        let bytes = bytes.min(current.rest.len());
        current.rest.advance(bytes);
        self.written += bytes as u64;
        if current.rest.is_empty() {
            self.current = None;
        }
    }

    /// The worker has confirmed the oldest descriptor on its way, or said that it did not get it.
    pub(super) fn confirm(&mut self) -> Confirmed {
        let Some(InFlight { begins, what, .. }) = self.in_flight.pop_front() else {
            return Confirmed::Nothing;
        };
        self.confirmed = begins;
        what
    }

    /// Since when the worker owes an answer.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|oldest| oldest.since).or(self.ping)
    }

    /// Takes back connections of which nothing was written.
    pub(super) fn take_unsent(&mut self, mut pick: impl FnMut(&Handed) -> bool) -> Vec<Handed> {
        let mut taken = Vec::new();
        // It was chosen, but the socket took nothing yet.
        match self.current.take() {
            Some(Current { carries: Carries::Connection(handed), .. }) if pick(&handed) => taken.push(handed),
            kept => self.current = kept,
        }
        for (stamp, waiting) in std::mem::take(&mut self.handles) {
            match waiting {
                Waiting::Connection(handed) if pick(&handed) => taken.push(handed),
                kept => self.handles.push_back((stamp, kept)),
            }
        }
        taken
    }

    pub(super) fn clear(&mut self) {
        self.plain.clear();
        self.plain_bytes = 0;
        self.handles.clear();
        self.ping = None;
        self.current = None;
        self.in_flight.clear();
    }

    fn choose(&mut self) -> Option<Current> {
        if self.ping.is_some() {
            if self.in_flight.is_empty() {
                let rest = Value::ping().frame(self.serialization).into();
                return Some(Current { rest, carries: Carries::Ping });
            }
            self.ping = None;
        }
        let plain = self.plain.front().map_or(u64::MAX, |&(stamp, _)| stamp);
        if self.handles.front().is_some_and(|&(stamp, _)| stamp < plain)
            && let Some(current) = self.choose_handle()
        {
            return Some(current);
        }
        let (_, rest) = self.plain.pop_front()?;
        self.plain_bytes -= rest.len();
        Some(Current { rest, carries: Carries::Nothing })
    }

    fn choose_handle(&mut self) -> Option<Current> {
        if self.in_flight.len() >= self.limits.in_flight_handles.max(1)
            || self.in_flight.iter().any(|in_flight| in_flight.what == Confirmed::Ping)
        {
            return None;
        }
        let (_, waiting) = self.handles.front()?;
        let frame: Bytes = match waiting {
            Waiting::Connection(handed) => Value::connection(handed).frame(self.serialization).into(),
            Waiting::Shared(frame, _) => frame.clone(),
        };
        let end = self.written + frame.len() as u64;
        if !self.in_flight.is_empty() && end - self.confirmed > READ {
            return None;
        }
        let carries = match self.handles.pop_front()?.1 {
            Waiting::Connection(handed) => Carries::Connection(handed),
            Waiting::Shared(_, fd) => Carries::Shared(fd),
        };
        Some(Current { rest: frame, carries })
    }
}
