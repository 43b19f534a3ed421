//! A socket's state, and its way out: frames are held until CONNECT is answered, then go to the engine.

mod leaving;

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use sundew_engineio::{CloseReason, Frames, SendError};

use super::acks::{Acks, Refused, Waiter};
use crate::call::{DisconnectCall, EventCall};
use crate::error::{EmitError, short};
use crate::handler::Erased;
use crate::link::Link;
use crate::namespace::{Hold, Listener, OnFull, Table, Watch};
use crate::packet::Args;
use crate::recovery::live::{Live, Restored, Resume};
use crate::session::new_id;
use crate::session::running::drop_apps;
use crate::troubles::Counters;
use crate::{DisconnectReason, Socket};

/// In middleware: not in the namespace yet.
const NEW: u8 = 0;
const OPEN: u8 = 1;
const GONE: u8 = 2;
/// The same, and this side wanted it: what the client sent and what has not begun does not begin any more.
const KICKED: u8 = 3;

/// How many packets may be held for a socket whose CONNECT is not answered yet.
const MOST_HELD: usize = 1024;

pub(crate) struct Inner {
    pub(crate) id: Arc<str>,
    pub(crate) table: Arc<Table>,
    pub(crate) link: Arc<Link>,
    /// What it takes to come back, if the server lets clients.
    pub(crate) resume: Option<Box<Resume>>,
    /// The CONNECT payload: JSON, or empty.
    pub(crate) auth: Box<str>,
    state: AtomicU8,
    holding: AtomicBool,
    held: Mutex<Held>,
    /// Its queue was full and has taken nothing since.
    slow: AtomicBool,
    acks: Mutex<Acks>,
    pub(crate) own: RwLock<Option<Box<Own>>>,
    /// Whether there may be something in it.
    has_own: AtomicBool,
    /// Whether they were dropped for good. Changed under the lock of `own`.
    bare: AtomicBool,
    pub(crate) kept: Mutex<Option<Box<Kept>>>,
    /// Of a namespace that goes when it is empty: keeps it until this socket has left and its connection is done with it.
    pub(crate) hold: Mutex<Option<Hold>>,
}

/// What waits until CONNECT is answered.
#[derive(Default)]
struct Held {
    frames: Vec<Frames>,
    bytes: usize,
}

/// Handlers of this socket alone.
#[derive(Default)]
pub(crate) struct Own {
    pub(crate) events: HashMap<Arc<str>, OwnEvent>,
    /// Of handlers for once that events are on their way to: whether they were called.
    used: HashMap<Arc<str>, Arc<AtomicBool>>,
    pub(crate) watch: Watch,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) disconnecting: Option<Erased<DisconnectCall>>,
    pub(crate) disconnect: Option<Erased<DisconnectCall>>,
}

impl Own {
    /// One by one: two that panic at once would end the process.
    fn drop_each(self, counters: &Counters) {
        let Own { events, used, watch, listeners, disconnecting, disconnect } = self;
        drop(used);
        events.into_values().for_each(|event| drop_apps(counters, event));
        watch.any.into_iter().chain(watch.middleware).for_each(|watcher| drop_apps(counters, watcher));
        listeners.into_iter().for_each(|listener| drop_apps(counters, listener));
        disconnecting.into_iter().chain(disconnect).for_each(|handler| drop_apps(counters, handler));
    }
}

#[derive(Clone)]
pub(crate) struct OwnEvent {
    pub(crate) handler: Erased<EventCall>,
    /// For the first one only.
    pub(crate) once: bool,
}

/// What the app attached.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) data: serde_json::Value,
    pub(crate) values: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    /// Rooms to be in on entering the namespace.
    rooms: Vec<Box<str>>,
}

/// Calls `handler` if nobody has. An event that comes too late, as it waited in a middleware with the one that was first,
/// goes to whoever handles it now.
fn once(handler: Erased<EventCall>, used: Arc<AtomicBool>) -> Erased<EventCall> {
    Arc::new(move |call: &mut EventCall| {
        let inner = call.socket.inner().clone();
        if inner.use_up(&call.event, &handler, &used) {
            return handler(call);
        }
        match inner.table.find(&inner, &call.event).and_then(|found| found.handler) {
            Some(handler) => handler(call),
            None => {
                inner.unhandled(&call.event);
                Ok(Box::pin(async { Ok(()) }))
            }
        }
    })
}

impl Inner {
    pub(crate) fn new(
        id: Arc<str>,
        table: Arc<Table>,
        link: Arc<Link>,
        auth: &str,
        resume: Option<Resume>,
    ) -> Inner {
        Inner {
            resume: resume.map(Box::new),
            id,
            table,
            link,
            auth: auth.into(),
            state: AtomicU8::new(NEW),
            holding: AtomicBool::new(true),
            held: Mutex::default(),
            slow: AtomicBool::new(false),
            acks: Mutex::default(),
            own: RwLock::default(),
            has_own: AtomicBool::new(false),
            bare: AtomicBool::new(false),
            kept: Mutex::default(),
            hold: Mutex::default(),
        }
    }

    /// Whether it may have handlers of its own.
    pub(crate) fn has_own(&self) -> bool {
        self.has_own.load(Ordering::Acquire)
    }

    /// Changes what it has of its own. Nothing comes to that when all of it was dropped: nobody would drop it again.
    pub(crate) fn with_own(&self, change: impl FnOnce(&mut Own)) {
        let mut own = self.own.write();
        if self.bare.load(Ordering::Relaxed) {
            return;
        }
        change(own.get_or_insert_default());
        self.has_own.store(true, Ordering::Release);
    }

    /// Its own handler of an event, if it has one. One that is for once is used up when it is called: a middleware may still
    /// refuse the event.
    pub(crate) fn own_handler(&self, event: &str) -> Option<(Arc<str>, Erased<EventCall>)> {
        let (name, own) = {
            let own = self.own.read();
            let (name, event) = own.as_ref()?.events.get_key_value(event)?;
            (name.clone(), event.clone())
        };
        if !own.once {
            return Some((name, own.handler));
        }
        let used = match &mut *self.own.write() {
            Some(own) => own.used.entry(name.clone()).or_default().clone(),
            None => Arc::default(),
        };
        Some((name, once(own.handler, used)))
    }

    /// Whether this handler, which is for once, is still to be called. It is not any more.
    fn use_up(&self, event: &str, handler: &Erased<EventCall>, used: &AtomicBool) -> bool {
        let mut own = self.own.write();
        if let Some(own) = &mut *own {
            if !own.events.get(event).is_some_and(|own| own.once && Arc::ptr_eq(&own.handler, handler)) {
                return false;
            }
            // Whoever calls it has another: nothing is dropped here.
            own.events.remove(event);
            own.used.remove(event);
        }
        // Those of a socket that has left are dropped, but not what was sent before.
        !used.swap(true, Ordering::Relaxed)
    }

    /// Nobody handles this event.
    pub(crate) fn unhandled(&self, event: &str) {
        self.table.counters.unhandled.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(
            nsp = &*self.table.name,
            socket = &*self.id,
            event = short(event),
            "no handler for this event"
        );
    }

    /// A client asks to join; with recovery, perhaps as what it was before. `None` if the system has no randomness.
    pub(crate) fn connecting(table: Arc<Table>, link: Arc<Link>, auth: &str) -> Option<Inner> {
        let Some(recovery) = &table.recovery else {
            return Some(Inner::new(new_id()?, table, link, auth, None));
        };
        let restored = recovery.restore(&table, auth);
        let old = restored.as_ref().map(|Restored { session, .. }| {
            // Middleware that is asked again sees the rooms, and may leave them.
            let rooms = if recovery.skips_middleware() { Vec::new() } else { session.rooms() };
            (session.id.clone(), session.data.clone(), rooms)
        });
        let resume = Resume::new(restored)?;
        let Some((id, data, rooms)) = old else {
            return Some(Inner::new(new_id()?, table, link, auth, Some(resume)));
        };
        let inner = Inner::new(id, table, link, auth, Some(resume));
        if !data.is_null() || !rooms.is_empty() {
            let rooms = rooms.into_iter().map(String::into_boxed_str).collect();
            *inner.kept.lock() = Some(Box::new(Kept { data, rooms, ..Kept::default() }));
        }
        Some(inner)
    }

    /// Of a session that was taken up: the rooms its middleware has left it in, if it was asked again.
    pub(crate) fn rooms_after_middleware(&self) -> Option<HashSet<Box<str>>> {
        let kept = self.kept.lock();
        let rooms = || kept.iter().flat_map(|kept| kept.rooms.iter().cloned()).collect();
        (!self.skips_middleware()).then(rooms)
    }

    /// What it is now, if its client has come back since: an app's handle may be one from before.
    pub(crate) fn back(&self) -> Option<Socket> {
        let left = self.resume.is_some() && self.is_gone();
        let now = left.then(|| self.table.rooms.read().get(&self.id)).flatten();
        now.filter(|socket| !std::ptr::eq(&**socket.inner(), self))
    }

    /// Whether it was let in before.
    pub(crate) fn skips_middleware(&self) -> bool {
        self.resume.as_ref().is_some_and(|resume| resume.recovered)
            && self.table.recovery.as_ref().is_some_and(Live::skips_middleware)
    }

    /// In middleware.
    pub(crate) fn is_new(&self) -> bool {
        self.state.load(Ordering::Acquire) == NEW
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Acquire) >= GONE
    }

    /// Whether this side disconnected it.
    pub(crate) fn was_kicked(&self) -> bool {
        self.state.load(Ordering::Acquire) == KICKED
    }

    /// Enters the namespace. False if it was disconnected meanwhile.
    pub(crate) fn open(self: &Arc<Self>) -> bool {
        if self.state.compare_exchange(NEW, OPEN, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        self.link.add(self);
        // Another thread that disconnects it meanwhile takes it out after this, or has been here before.
        let enter = || {
            let mut rooms = self.table.rooms.write();
            if !self.is_gone() {
                rooms.insert(self.id.clone(), Socket::from(self.clone()));
            }
        };
        match &self.table.recovery {
            None => enter(),
            Some(recovery) => {
                if !recovery.open(&self.table, self, enter) {
                    // It starts anew on a new connection.
                    self.state.store(GONE, Ordering::Release);
                    self.link.remove(self);
                    self.link.handle.close(CloseReason::ForcedClose);
                    return false;
                }
            }
        }
        if self.is_gone() {
            self.link.remove(self);
            return false;
        }
        let rooms = self.kept.lock().as_mut().map(|kept| std::mem::take(&mut kept.rooms));
        for room in rooms.iter().flatten() {
            self.join(room);
        }
        tracing::debug!(
            socket = &*self.id,
            nsp = &*self.table.name,
            peer = ?self.link.peer_addr,
            transport = %self.link.handle.transport(),
            recovered = self.resume.as_ref().is_some_and(|resume| resume.recovered),
            "connected"
        );
        true
    }

    /// What its middleware has made of its rooms; none once it has entered. Entering takes the same lock, after the state has
    /// changed: no room is forgotten.
    fn in_middleware<R>(&self, change: impl FnOnce(&mut Vec<Box<str>>) -> R) -> Option<R> {
        if !self.is_new() {
            return None;
        }
        let mut kept = self.kept.lock();
        self.is_new().then(|| change(&mut kept.get_or_insert_default().rooms))
    }

    /// In middleware: joins the room on entering. False if it is to be joined now.
    pub(crate) fn joins_later(&self, room: &str) -> bool {
        let noted = self.in_middleware(|rooms| {
            if rooms.iter().any(|other| **other == *room) {
                return true;
            }
            let fits = rooms.len() < self.table.options.max_rooms;
            if fits {
                rooms.push(room.into());
            }
            fits
        });
        if noted == Some(false) {
            self.table.refuse_room(&self.id, room);
        }
        noted.is_some()
    }

    /// Joins a room at once.
    pub(crate) fn join(&self, room: &str) {
        let joined = match &self.table.recovery {
            Some(recovery) => recovery.join(self, room),
            None => self.table.join(&self.id, room),
        };
        // Told when nothing is locked: whoever writes the log may emit.
        if joined.is_err() {
            self.table.refuse_room(&self.id, room);
        }
    }

    /// Leaves a room at once.
    pub(crate) fn leave_room(&self, room: &str) {
        match &self.table.recovery {
            Some(recovery) => recovery.leave_room(self, room),
            None => drop(self.table.rooms.write().leave(&self.id, room)),
        }
    }

    /// In middleware: does not join the room on entering. False if it is to be left now.
    pub(crate) fn joins_no_more(&self, room: &str) -> bool {
        self.in_middleware(|rooms| rooms.retain(|other| **other != *room)).is_some()
    }

    /// In middleware: the rooms it joins on entering.
    pub(crate) fn rooms_to_join(&self) -> Option<Vec<String>> {
        self.in_middleware(|rooms| rooms.iter().map(|room| room.to_string()).collect())
    }

    /// Whether the client waits for an answer to CONNECT.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.holding.load(Ordering::Acquire)
    }

    /// Whether nothing about it is of this process alone.
    pub(crate) fn can_move(&self) -> bool {
        self.is_open()
            && self.link.extensions.is_none()
            && !self.holding.load(Ordering::Acquire)
            && self.acks.lock().is_empty()
            && self.own.read().is_none()
            && self.kept.lock().as_ref().is_none_or(|kept| kept.values.is_empty())
    }

    /// Goes on with what another process knew of it, in its namespace and out of all rooms.
    pub(crate) fn resume(self: &Arc<Self>, data: serde_json::Value) {
        // CONNECT was answered there.
        self.holding.store(false, Ordering::Release);
        if !data.is_null() {
            *self.kept.lock() = Some(Box::new(Kept { data, ..Kept::default() }));
        }
        self.open();
    }

    /// It goes on in another process: out of everything, without a word.
    pub(crate) fn vanish(self: &Arc<Self>) {
        if self.state.swap(GONE, Ordering::AcqRel) == OPEN {
            self.withdraw(None);
        }
        self.let_go();
        self.drop_handlers();
    }

    /// Out of its rooms, to come back if it left for a reason that allows it; those who wait for its acknowledgements hear that none will come.
    fn withdraw(self: &Arc<Self>, reason: Option<DisconnectReason>) {
        match &self.table.recovery {
            Some(recovery) => recovery.leave(&self.table, self, reason),
            None => self.table.rooms.write().remove(&self.id, &Socket::from(self.clone())),
        }
        self.link.remove(self);
        self.close_acks();
    }

    /// No acknowledgement will come any more: those who wait hear of it.
    fn close_acks(&self) {
        let unanswered = self.acks.lock().close();
        self.link.pending_acks.fetch_sub(unanswered.len(), Ordering::Relaxed);
        drop(unanswered);
    }

    /// Answers CONNECT, then sends what was held. Does nothing the second time.
    pub(crate) fn release(&self) {
        if !self.holding.load(Ordering::Acquire) {
            return;
        }
        let mut held = self.held.lock();
        if !self.holding.load(Ordering::Acquire) {
            return;
        }
        let pid = self.resume.as_ref().map(|resume| &*resume.pid);
        let answer = match self.link.legacy {
            true => self.table.codec.connect_legacy(&self.table.name),
            false => self.table.codec.connect(&self.table.name, &self.id, pid),
        };
        let missed = self.resume.as_ref().map(|resume| resume.take_missed()).unwrap_or_default();
        // As one: what a client hears and is not answered for, it hears again when it comes back.
        let answer = if missed.is_empty() { answer } else { Frames::all(missed.into_iter().chain([answer])) };
        let answered = self.link.handle.send(answer).is_ok();
        if !answered {
            // Rather nothing than with a gap, or unanswered: it comes back, and what is kept is still there.
            self.link.handle.close(CloseReason::ForcedClose);
        }
        // What waited is sent like anything else.
        let mut full = 0;
        for frames in std::mem::take(&mut *held).frames.into_iter().filter(|_| answered) {
            if matches!(self.link.handle.send(frames), Err(SendError::Full(_))) {
                full += 1;
                if self.table.on_full() == OnFull::Disconnect {
                    // Nothing that comes later may pass.
                    self.disconnect_slow();
                    break;
                }
            }
        }
        // Under the lock: whoever waits for it finds the way out open, and everything before it sent.
        self.holding.store(false, Ordering::Release);
        drop(held);
        (0..full).for_each(|_| drop(self.full()));
    }

    /// Sends. On a full queue the namespace's policy is applied. False if it is volatile and was left out.
    pub(crate) fn deliver(&self, frames: Frames, volatile: bool) -> Result<bool, EmitError> {
        self.deliver_within(frames, volatile, Duration::ZERO)
    }

    /// The same, for one of many: see [`SessionHandle::send_within`](sundew_engineio::SessionHandle::send_within).
    pub(crate) fn deliver_within(
        &self,
        frames: Frames,
        volatile: bool,
        burst: Duration,
    ) -> Result<bool, EmitError> {
        if volatile && !self.is_writable() {
            self.table.counters.volatile_dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let delivered = self.try_deliver_within(frames, burst).map(|()| true);
        if delivered.is_ok() && self.slow.load(Ordering::Relaxed) {
            self.slow.store(false, Ordering::Relaxed);
        }
        delivered.map_err(|error| match error {
            SendError::Closed(_) => EmitError::Closed,
            SendError::Full(_) => self.full(),
        })
    }

    /// Sends; on a full queue gives the frames back and does nothing else.
    pub(crate) fn try_deliver(&self, frames: Frames) -> Result<(), SendError> {
        self.try_deliver_within(frames, Duration::ZERO)
    }

    #[inline(always)]
    fn try_deliver_within(&self, frames: Frames, burst: Duration) -> Result<(), SendError> {
        if self.is_gone() {
            return Err(SendError::Closed(frames));
        }
        if self.holding.load(Ordering::Acquire) {
            let mut held = self.held.lock();
            // It may have been refused meanwhile, and what was held is gone.
            if self.is_gone() {
                return Err(SendError::Closed(frames));
            }
            if self.holding.load(Ordering::Acquire) {
                let bytes = held.bytes + frames.len();
                // One that is larger is taken alone, as by the queue itself.
                if held.frames.len() >= MOST_HELD
                    || (bytes > self.table.options.max_held_bytes && !held.frames.is_empty())
                {
                    return Err(SendError::Full(frames));
                }
                held.bytes = bytes;
                held.frames.push(frames);
                return Ok(());
            }
        }
        self.link.handle.send_within(frames, burst)
    }

    /// Whether so much would not be taken because its queue is full, and may be once there is [`room`](Inner::room).
    pub(crate) fn is_full_for(&self, bytes: usize, packets: usize) -> bool {
        self.is_open()
            && !self.holding.load(Ordering::Acquire)
            && self.link.handle.is_open()
            && !self.link.handle.has_room_for(bytes, packets)
    }

    /// Waits until what was not taken may be tried again.
    pub(crate) async fn room(&self, bytes: usize, packets: usize) -> Result<(), EmitError> {
        while self.holding.load(Ordering::Acquire) {
            match self.state.load(Ordering::Acquire) {
                // The middleware itself may be what waits here.
                NEW => return Err(EmitError::Full { policy: self.table.on_full() }),
                // CONNECT is answered when `on_connect` first waits.
                OPEN => tokio::task::yield_now().await,
                _ => return Err(EmitError::Closed),
            }
        }
        self.link.handle.room_for(bytes, packets).await.map_err(|_| EmitError::Closed)
    }

    fn full(&self) -> EmitError {
        let policy = self.table.on_full();
        self.table.counters.queue_full.fetch_add(1, Ordering::Relaxed);
        if !self.slow.swap(true, Ordering::AcqRel) {
            self.table.too_slow(&self.id, policy);
        }
        if policy == OnFull::Disconnect {
            self.disconnect_slow();
        }
        EmitError::Full { policy }
    }

    fn disconnect_slow(&self) {
        // Its task tells of it: here something may be locked that whoever writes the log needs.
        if self.link.overflowed.set(Box::new((self.id.clone(), self.table.clone()))).is_ok() {
            self.link.handle.close(CloseReason::ForcedClose);
        }
    }

    /// Whether a volatile event would be sent now.
    pub(crate) fn is_writable(&self) -> bool {
        !self.holding.load(Ordering::Acquire) && self.link.handle.is_writable()
    }

    /// Waits for an acknowledgement.
    pub(crate) fn expect(&self, id: u64, waiter: Waiter) -> Result<(), EmitError> {
        let most = self.table.options.max_pending_acks;
        self.acks.lock().insert(id, waiter, most).map_err(|refused| match refused {
            Refused::Closed => EmitError::Closed,
            Refused::TooMany => EmitError::TooManyAcks,
        })?;
        if self.link.pending_acks.fetch_add(1, Ordering::Relaxed) == 0 {
            // It may read nothing because its handlers are too many, and they may be what waits for this one.
            self.link.handle.ask_again();
        }
        Ok(())
    }

    /// Waits no longer.
    pub(crate) fn forget(&self, id: u64) -> Option<Waiter> {
        let waiter = self.acks.lock().take(id)?;
        self.link.pending_acks.fetch_sub(1, Ordering::Relaxed);
        Some(waiter)
    }

    /// An acknowledgement came. One nobody waits for (any more) is ignored, as Node does.
    pub(crate) fn acknowledged(&self, id: u64, args: Args) {
        match self.forget(id) {
            Some(waiter) => waiter.resolve(args),
            None => tracing::debug!(socket = &*self.id, id, "an acknowledgement nobody waits for"),
        }
    }
}
