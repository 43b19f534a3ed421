//! Recovery at work in one namespace. Its lock orders everything: an event's place, its way into the queues of its
//! recipients, the leaving of a socket and its coming back happen under it, so that each socket gets its events in the order
//! of their offsets. No handler and no serialization of the app's runs under it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sundew_engineio::{CloseReason, Frames, SendError};

use super::{Logged, Offset, Recipients, Recovery, SavedSession, Store};
use crate::adapter::BroadcastOptions;
use crate::error::EmitError;
use crate::namespace::{Listening, Table};
use crate::operators::{Flags, Sent};
use crate::packet::{Kind, Packet};
use crate::session::new_id;
use crate::socket::Inner;
use crate::{DisconnectReason, Socket};

/// What the namespaces of one server share.
#[derive(Clone)]
pub(crate) struct Settings {
    recovery: Recovery,
    /// Before the offsets of this server: those of an earlier one, which clients still have, are no offsets here.
    epoch: Arc<str>,
    /// How long it may take until a lost connection is noticed.
    grace: Duration,
    /// As many bytes and packets may be replayed: what fits into a queue.
    most: (usize, usize),
}

impl Settings {
    pub(crate) fn new(recovery: Recovery, grace: Duration, most: (usize, usize)) -> Settings {
        let epoch = new_id().map_or_else(|| "0000-".into(), |id| format!("{}-", &id[..4]).into());
        Settings { recovery, epoch, grace, most }
    }
}

/// Of one namespace.
pub(crate) struct Live {
    settings: Settings,
    order: Mutex<()>,
    /// The sockets connected, by their private ids.
    pids: Mutex<HashMap<Arc<str>, Weak<Inner>>>,
}

/// Of one socket.
pub(crate) struct Resume {
    pub(crate) pid: Arc<str>,
    pub(crate) recovered: bool,
    start: AtomicU64,
    sent: AtomicU64,
    /// It has left and may come back.
    saved: AtomicBool,
    /// Until it enters the namespace.
    restored: Mutex<Option<Box<Restored>>>,
    /// Until CONNECT is answered.
    missed: Mutex<Vec<Frames>>,
}

/// A session that was taken up again.
pub(crate) struct Restored {
    pub(crate) session: SavedSession,
    missed: Vec<Logged>,
    /// What is missed since is not in there.
    upto: Offset,
}

/// How one socket is emitted to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Now,
    Volatile,
    /// If the queue is full, nothing happens.
    IfRoom,
}

impl Resume {
    /// Of a session that was taken up, or a new one. `None` if the system has no randomness.
    pub(crate) fn new(restored: Option<Restored>) -> Option<Resume> {
        let pid = match &restored {
            Some(restored) => restored.session.pid.clone(),
            None => new_id()?,
        };
        let session = restored.as_ref().map(|restored| &restored.session);
        let (start, sent) = session.map_or((0, 0), |session| (session.start.0, session.sent.0));
        Some(Resume {
            pid,
            recovered: restored.is_some(),
            start: AtomicU64::new(start),
            sent: AtomicU64::new(sent),
            saved: AtomicBool::new(false),
            restored: Mutex::new(restored.map(Box::new)),
            missed: Mutex::default(),
        })
    }

    /// What is sent before the answer to CONNECT.
    pub(crate) fn take_missed(&self) -> Vec<Frames> {
        std::mem::take(&mut *self.missed.lock())
    }

    fn addressed(&self, offset: Offset) {
        self.sent.store(offset.0, Ordering::Relaxed);
    }
}

fn addressed(inner: &Inner, offset: Offset) {
    if let Some(resume) = &inner.resume {
        resume.addressed(offset);
    }
}

impl Live {
    pub(crate) fn new(settings: Settings) -> Live {
        Live { settings, order: Mutex::default(), pids: Mutex::default() }
    }

    fn store(&self) -> &dyn Store {
        &*self.settings.recovery.store
    }

    pub(crate) fn skips_middleware(&self) -> bool {
        self.settings.recovery.skip_middlewares
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn text(&self, offset: Offset) -> String {
        let mut text = String::from(&*self.settings.epoch);
        let mut digits = [0; 13];
        let (mut at, mut rest) = (digits.len(), offset.0);
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        text.extend(digits[at..].iter().map(|&digit| char::from(digit)));
        text
    }

    fn parse(&self, text: &str) -> Option<Offset> {
        u64::from_str_radix(text.strip_prefix(&*self.settings.epoch)?, 36).ok().map(Offset)
    }

    fn frames(&self, table: &Table, packet: &Packet, offset: Offset) -> Result<Frames, EmitError> {
        let offset = self.text(offset);
        Ok(table.codec.frames_with(Kind::Event, &table.name, None, packet, Some(&offset))?)
    }

    /// An event that is not kept. The client takes the last text of any event for an offset, so one that ends in a text
    /// is followed by the offset of the last event that was kept: all those up to it are before it in the queue.
    fn passing(&self, table: &Table, packet: &Packet) -> Result<Frames, EmitError> {
        if packet.ends_in_text() {
            return self.frames(table, packet, self.store().last(&table.name));
        }
        Ok(table.codec.frames(Kind::Event, &table.name, None, packet)?)
    }

    fn append(&self, table: &Table, offset: Offset, packet: Arc<Packet>, to: Recipients) {
        let now = Live::now();
        // Longer than sessions: what was lost before the loss was noticed is needed too.
        let expires = now + self.settings.recovery.window + self.settings.grace;
        self.store().append(&table.name, offset, packet, to, now, expires);
    }

    /// Emits to one socket.
    pub(crate) fn emit(
        &self,
        socket: &Socket,
        packet: &Arc<Packet>,
        how: How,
        flags: Flags,
    ) -> Result<(), EmitError> {
        let table = &socket.inner().table;
        let sent = self.emit_in_order(socket.inner(), packet, how, flags)?;
        if sent && let Some(listening) = Listening::new(table, packet) {
            listening.tell(socket);
        }
        Ok(())
    }

    /// False if it is volatile and was left out.
    fn emit_in_order(
        &self,
        inner: &Inner,
        packet: &Arc<Packet>,
        how: How,
        flags: Flags,
    ) -> Result<bool, EmitError> {
        let table = &inner.table;
        let _order = self.order.lock();
        if how == How::Volatile || inner.is_new() {
            return inner.deliver(flags.mark(self.passing(table, packet)?), how == How::Volatile);
        }
        let back = match inner.is_gone() {
            false => None,
            true if !inner.resume.as_ref().is_some_and(|resume| resume.saved.load(Ordering::Relaxed)) => {
                return Err(EmitError::Closed);
            }
            // It may have come back: then this handle is an old one of the same socket.
            true => table.rooms.read().get(&inner.id),
        };
        let inner = back.as_ref().map_or(inner, |socket| &**socket.inner());
        let offset = self.store().last(&table.name).next();
        let frames = flags.mark(self.frames(table, packet, offset)?);
        let sent = match how {
            How::IfRoom => match inner.try_deliver(frames) {
                Err(SendError::Full(_)) => return Err(EmitError::Full { policy: table.on_full() }),
                Err(SendError::Closed(_)) => Err(EmitError::Closed),
                Ok(()) => Ok(true),
            },
            _ => inner.deliver(frames, false),
        };
        addressed(inner, offset);
        let to = Recipients { socket: Some(inner.id.clone()), ..Recipients::default() };
        self.append(table, offset, packet.clone(), to);
        match sent {
            // The client gets it when it comes back.
            Err(EmitError::Closed) => Ok(true),
            sent => sent,
        }
    }

    /// Emits to those selected.
    pub(crate) fn broadcast(&self, table: &Table, packet: &Packet, opts: &BroadcastOptions) -> Sent {
        let listening = Listening::new(table, packet);
        let (sent, told) = match self.broadcast_in_order(table, packet, opts, listening.is_some()) {
            Ok(sent) => sent,
            Err(error) => {
                tracing::error!(nsp = &*table.name, %error, "a broadcast was not sent");
                return Sent { error: Some(error), ..Sent::default() };
            }
        };
        for (listening, socket) in
            listening.iter().flat_map(|listening| told.iter().map(move |s| (listening, s)))
        {
            listening.tell(socket);
        }
        sent
    }

    /// Returns the recipients too, if somebody wants to know of them.
    fn broadcast_in_order(
        &self,
        table: &Table,
        packet: &Packet,
        opts: &BroadcastOptions,
        tell: bool,
    ) -> Result<(Sent, Vec<Socket>), EmitError> {
        let packet = Arc::new(packet.clone());
        let _order = self.order.lock();
        let offset = (!opts.volatile).then(|| self.store().last(&table.name).next());
        let frames = match offset {
            Some(offset) => self.frames(table, &packet, offset)?,
            None => self.passing(table, &packet)?,
        };
        let frames = table.for_many(frames, opts);
        let (mut sent, mut told) = (Sent::default(), Vec::new());
        for socket in table.select(opts).iter() {
            let inner = socket.inner();
            if let Some(offset) = offset {
                addressed(inner, offset);
            }
            let result = inner.deliver(frames.clone(), opts.volatile);
            if tell && matches!(result, Ok(true)) {
                told.push(socket.clone());
            }
            sent.count(&result, socket, None);
        }
        if let Some(offset) = offset {
            let to = Recipients { socket: None, rooms: opts.rooms.clone(), except: opts.except.clone() };
            self.append(table, offset, packet, to);
        }
        Ok((sent, told))
    }

    /// The session a client wants to take up, if it is there and nothing is lost. `auth` is the CONNECT payload.
    pub(crate) fn restore(&self, table: &Table, auth: &str) -> Option<Restored> {
        #[derive(serde::Deserialize)]
        struct Wanted {
            pid: String,
            #[serde(default)]
            offset: serde_json::Value,
        }
        if !auth.contains("\"pid\"") {
            return None;
        }
        let Wanted { pid, offset } = serde_json::from_str(auth).ok()?;
        let old = self.pids.lock().get(&*pid).and_then(Weak::upgrade);
        if let Some(old) = old {
            // The client has lost a connection that still looks alive from here.
            old.leave(DisconnectReason::TransportClose);
            old.link.handle.close(CloseReason::TransportClose);
        }
        let _order = self.order.lock();
        let session = self.store().take(&table.name, &pid, Live::now())?;
        // No offset, or one of an earlier session: nothing came since this one began.
        let offset = offset.as_str().and_then(|text| self.parse(text));
        let after = offset.filter(|offset| (session.start..=session.left).contains(offset));
        let missed = self.store().since(&table.name, after.unwrap_or(session.start), &session)?;
        let bytes = |(_, packet): &Logged| packet.size();
        let packets = |(_, packet): &Logged| 1 + packet.attachments().len();
        let (most_bytes, most_packets) = self.settings.most;
        if missed.iter().map(bytes).sum::<usize>() > most_bytes
            || missed.iter().map(packets).sum::<usize>() > most_packets
        {
            tracing::debug!(
                nsp = &*table.name,
                "not recovered: more was missed than fits into a queue (max_queued)"
            );
            return None;
        }
        Some(Restored { session, missed, upto: self.store().last(&table.name) })
    }

    /// A socket enters the namespace: `enter` puts it into its rooms. False if what it missed meanwhile is lost.
    pub(crate) fn open(&self, table: &Table, inner: &Arc<Inner>, enter: impl FnOnce()) -> bool {
        let Some(resume) = &inner.resume else {
            enter();
            return true;
        };
        let _order = self.order.lock();
        let restored = resume.restored.lock().take();
        match restored {
            None => {
                let last = self.store().last(&table.name);
                resume.start.store(last.0, Ordering::Relaxed);
                resume.addressed(last);
                enter();
            }
            Some(restored) => {
                let Restored { mut session, mut missed, upto } = *restored;
                // Up to here nothing is missing; the middleware may have taken its time since.
                session.left = upto;
                match self.store().since(&table.name, upto, &session) {
                    Some(more) => missed.extend(more),
                    None => return false,
                }
                let frames = missed.iter().map(|(offset, packet)| self.frames(table, packet, *offset));
                let Ok(frames) = frames.collect::<Result<Vec<_>, _>>() else { return false };
                if let Some((offset, _)) = missed.last() {
                    resume.addressed(*offset);
                }
                *resume.missed.lock() = frames;
                enter();
                let own = session.rooms.iter().any(|room| **room == *inner.id);
                let mut rooms = table.rooms.write();
                for room in &session.rooms {
                    // As many as it was allowed to join before.
                    let _ = rooms.join(&inner.id, room, table.options.max_rooms);
                }
                if !own {
                    rooms.leave(&inner.id, &inner.id);
                }
            }
        }
        self.pids.lock().insert(resume.pid.clone(), Arc::downgrade(inner));
        true
    }

    /// A socket leaves its rooms, to come back if the reason allows it.
    pub(crate) fn leave(&self, table: &Table, inner: &Arc<Inner>, reason: Option<DisconnectReason>) {
        let _order = self.order.lock();
        let rooms = table.rooms.read().rooms_of(&inner.id);
        table.rooms.write().remove(&inner.id);
        let Some(resume) = &inner.resume else { return };
        self.pids.lock().remove(&resume.pid);
        if !reason.is_some_and(DisconnectReason::is_recoverable) {
            return;
        }
        let session = SavedSession {
            id: inner.id.clone(),
            pid: resume.pid.clone(),
            rooms,
            data: Socket::from(inner.clone()).data(),
            start: Offset(resume.start.load(Ordering::Relaxed)),
            sent: Offset(resume.sent.load(Ordering::Relaxed)),
            left: self.store().last(&table.name),
        };
        resume.saved.store(true, Ordering::Relaxed);
        let now = Live::now();
        self.store().save(&table.name, session, now, now + self.settings.recovery.window);
    }
}
