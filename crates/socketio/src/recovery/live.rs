//! Recovery at work in one namespace. Its lock orders everything: an event's place, its way into the queues of its
//! recipients, the leaving of a socket and its coming back happen under it, so that each socket gets its events in the order
//! of their offsets. No handler and no serialization of the app's runs under it, but a parser of its own.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sundew_engineio::Frames;
use tokio::sync::Semaphore;

use super::busy::{Busy, OnItsWay};
use super::elsewhere::Wanted;
use super::stays::{Now, Stays};
use super::{Logged, Offset, Recovery, SavedSession, Store};
use crate::namespace::Table;
use crate::rooms::TooManyRooms;
use crate::session::new_id;
use crate::socket::Inner;
use crate::{DisconnectReason, Socket};

/// Longer is as good as for ever, and further than clocks go.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What an event takes in a queue besides its JSON and the name of its namespace: the frame's head, its type, its offset.
const OVERHEAD: usize = 64;

/// What the namespaces of one server share.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(super) recovery: Recovery,
    /// Before the offsets of this server: those of an earlier one, which clients still have, are no offsets here.
    pub(super) epoch: Arc<str>,
    /// How long it may take until a lost connection is noticed.
    pub(super) grace: Duration,
    /// As many bytes and packets may be replayed: half of what fits into a queue, as other things are sent at the same time.
    most: (usize, usize),
    /// Sessions that may be looked for elsewhere at the same time.
    pub(super) lookups: Arc<Semaphore>,
}

impl Settings {
    pub(crate) fn new(mut recovery: Recovery, grace: Duration, most: (usize, usize)) -> Settings {
        recovery.window = recovery.window.min(LONGEST);
        let grace = grace.min(LONGEST);
        let epoch = new_id().map_or_else(|| "0000-".into(), |id| format!("{}-", &id[..4]).into());
        let lookups = Arc::new(Semaphore::new(recovery.max_lookups.min(Semaphore::MAX_PERMITS)));
        Settings { recovery, epoch, grace, most: (most.0 / 2, most.1 / 2), lookups }
    }
}

/// Of one namespace.
pub(crate) struct Live {
    pub(super) settings: Settings,
    pub(super) order: Mutex<()>,
    /// What marks of events that were emitted here begin with, and how many there were.
    pub(super) origin: u64,
    pub(super) published: AtomicU64,
    /// The sockets connected, by their private ids.
    pub(super) pids: Mutex<HashMap<Arc<str>, Weak<Inner>>>,
    pub(super) away: Mutex<Away>,
    pub(super) busy: Busy,
    /// What times are counted from.
    began: Instant,
    /// Until when somebody who has left may come back.
    awaited: Mutex<Option<Instant>>,
}

/// Whether a session has gone to another server, or was ended by this one. Shared by all that a client was here as that session.
type Gone = Arc<AtomicBool>;

/// Of sockets that have left and may come back, for as long as the app holds one of them.
#[derive(Default)]
pub(super) struct Away {
    gone: HashMap<Arc<str>, Gone>,
    /// How many there were when those nobody holds were last dropped.
    swept: usize,
}

impl Away {
    fn insert(&mut self, pid: Arc<str>, gone: Gone) {
        if self.gone.len() >= 64 + 2 * self.swept {
            self.gone.retain(|_, gone| Arc::strong_count(gone) > 1);
            self.swept = self.gone.len();
        }
        self.gone.insert(pid, gone);
    }

    pub(super) fn take(&mut self, pid: &str) -> Option<Gone> {
        self.gone.remove(pid)
    }
}

/// Of one socket.
pub(crate) struct Resume {
    pub(crate) pid: Arc<str>,
    pub(crate) recovered: bool,
    was_elsewhere: bool,
    start: AtomicU64,
    sent: AtomicU64,
    /// When that was, in milliseconds.
    at: AtomicU64,
    /// As in [`SavedSession`].
    lull: [AtomicU64; 2],
    stays: Mutex<Stays>,
    /// It has left and may come back.
    saved: AtomicBool,
    gone: Gone,
    /// Until it enters the namespace.
    restored: Mutex<Option<Box<Restored>>>,
    /// Until CONNECT is answered.
    missed: Mutex<Vec<Frames>>,
    /// As in [`SavedSession`].
    replayed: Mutex<Option<(Offset, Instant)>>,
}

/// A session that was taken up again.
pub(crate) struct Restored {
    pub(crate) session: SavedSession,
    missed: Vec<Logged>,
    /// Until when these are kept.
    until: Instant,
    /// What comes after this is kept for as long again.
    at: Instant,
    /// What is missed since is not in there.
    upto: Offset,
    gone: Option<Gone>,
    /// Until it is in its namespace.
    on_its_way: Option<OnItsWay>,
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
            was_elsewhere: session.is_some_and(|session| session.said.is_some()),
            start: AtomicU64::new(start),
            sent: AtomicU64::new(sent),
            at: AtomicU64::new(0),
            lull: Default::default(),
            stays: Mutex::default(),
            saved: AtomicBool::new(false),
            gone: restored.as_ref().and_then(|restored| restored.gone.clone()).unwrap_or_default(),
            restored: Mutex::new(restored.map(Box::new)),
            missed: Mutex::default(),
            replayed: Mutex::default(),
        })
    }

    /// What is sent before the answer to CONNECT.
    pub(crate) fn take_missed(&self) -> Vec<Frames> {
        std::mem::take(&mut *self.missed.lock())
    }

    /// It does not come to a socket: whoever waits for the session need not.
    pub(crate) fn forget(&self) {
        let restored = self.restored.lock().take();
        drop(restored);
    }

    /// Whether it was kept when it left, and has not gone to another server.
    fn may_return(&self) -> bool {
        self.saved.load(Ordering::Relaxed) && !self.gone.load(Ordering::Relaxed)
    }

    fn addressed(&self, offset: Offset, now: u64) {
        self.sent.store(offset.0, Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
    }

    fn set_lull(&self, (from, to): (Offset, Offset)) {
        self.lull[0].store(from.0, Ordering::Relaxed);
        self.lull[1].store(to.0, Ordering::Relaxed);
    }

    fn lull(&self) -> (Offset, Offset) {
        let [from, to] = self.lull.each_ref().map(|offset| Offset(offset.load(Ordering::Relaxed)));
        (from, to)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// That of a session which has missed something: before the first it was sent nothing for as long as it was away.
fn lull(session: &SavedSession, missed: &[Logged]) -> (Offset, Offset) {
    match missed.first() {
        Some(event) if event.offset > session.left => (session.sent, event.offset),
        _ => session.lull,
    }
}

impl Live {
    pub(crate) fn new(settings: Settings) -> Live {
        Live {
            settings,
            order: Mutex::default(),
            // Seeded by the system: no secret, and nobody else's.
            origin: RandomState::new().hash_one(()),
            published: AtomicU64::new(0),
            pids: Mutex::default(),
            away: Mutex::default(),
            busy: Busy::default(),
            began: Live::now(),
            awaited: Mutex::default(),
        }
    }

    pub(super) fn millis(&self) -> u64 {
        millis(Live::now() - self.began)
    }

    /// An event for that socket. `now`: in milliseconds.
    pub(super) fn addressed(&self, inner: &Inner, offset: Offset, now: u64) {
        if let Some(resume) = &inner.resume {
            let alone = now.saturating_sub(resume.at.load(Ordering::Relaxed));
            if alone > millis(self.settings.grace) {
                resume.set_lull((Offset(resume.sent.load(Ordering::Relaxed)), offset));
            }
            resume.addressed(offset, now);
        }
    }

    /// Until when somebody who has left may come back, and what is sent meanwhile has to be kept.
    pub(crate) fn awaited_until(&self) -> Option<Instant> {
        let now = Live::now();
        self.awaited.lock().filter(|until| now < *until)
    }

    /// A socket joins a room: what was sent there before is not for it.
    pub(crate) fn join(&self, inner: &Inner, room: &str) -> Result<bool, TooManyRooms> {
        let _order = self.order.lock();
        let joined = inner.table.join(&inner.id, room)?;
        if joined {
            self.with_stays(inner, |stays, now| stays.join(room, now));
        }
        Ok(joined)
    }

    /// A socket leaves a room: what is sent there from now on is not for it.
    pub(crate) fn leave_room(&self, inner: &Inner, room: &str) {
        let table = &inner.table;
        let _order = self.order.lock();
        if table.rooms.write().leave(&inner.id, room) {
            self.with_stays(inner, |stays, now| stays.leave(room, now));
        }
    }

    fn with_stays(&self, inner: &Inner, change: impl FnOnce(&mut Stays, &Now)) {
        // An app's handle may be an old one of a socket that has come back.
        let socket = inner.table.rooms.read().get(&inner.id);
        if let Some(resume) = socket.as_ref().and_then(|socket| socket.inner().resume.as_ref()) {
            change(&mut resume.stays.lock(), &self.now_of(&inner.table, resume));
        }
    }

    fn now_of(&self, table: &Table, resume: &Resume) -> Now {
        let millis = self.millis();
        Now {
            last: self.store().last(&table.name),
            sent: Offset(resume.sent.load(Ordering::Relaxed)),
            millis,
            // What it was sent before has arrived, or its connection would have been found lost.
            arrived: millis.saturating_sub(self::millis(self.settings.grace)),
            most: table.options.max_rooms,
        }
    }

    /// Keeps a session for its client.
    pub(super) fn save(&self, table: &Table, session: SavedSession) {
        let until = session.until;
        {
            let mut awaited = self.awaited.lock();
            *awaited = (*awaited).max(Some(until));
        }
        self.store().save(&table.name, session, Live::now(), until);
    }

    /// Whether a socket that has left may come back: its session is here, or about to be a socket again.
    pub(super) fn may_return(&self, table: &Table, inner: &Inner) -> bool {
        inner.resume.as_ref().filter(|resume| resume.may_return()).is_some_and(|resume| {
            self.store().holds(&table.name, &resume.pid, Live::now()) || self.busy.is(&resume.pid)
        })
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.settings.recovery.store
    }

    pub(crate) fn skips_middleware(&self) -> bool {
        self.settings.recovery.skip_middlewares
    }

    pub(super) fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// The session a client wants to take up, if it is there and nothing is lost. `auth` is the CONNECT payload.
    pub(crate) fn restore(&self, table: &Table, auth: &str) -> Option<Restored> {
        let wanted = Wanted::read(auth)?;
        self.end_if_alive(&wanted.pid);
        let _order = self.order.lock();
        let session = self.store().take(&table.name, &wanted.pid, Live::now())?;
        let gone = self.away.lock().take(&wanted.pid);
        let missed = self.missed(table, &session, wanted.offset())?;
        let replayed = session.not_received(wanted.offset());
        // What came when it was away is kept for longer than what was lost with its connection.
        let away = missed.first().is_some_and(|event| event.offset > session.left);
        let until = session.until + if away { self.settings.grace } else { Duration::ZERO };
        let until = replayed.map_or(until, |(_, before)| before.min(until));
        let upto = self.store().last(&table.name);
        let (at, on_its_way) = (Live::now(), self.busy.begin(&wanted.pid));
        Some(Restored { session, missed, until, at, upto, gone, on_its_way })
    }

    /// What a client has missed, if nothing is lost and it is no more than can be sent again.
    pub(super) fn missed(
        &self,
        table: &Table,
        session: &SavedSession,
        offset: Option<&str>,
    ) -> Option<Vec<Logged>> {
        if session.not_received(offset).is_some_and(|(_, until)| until <= Live::now()) {
            return None;
        }
        let missed = self.store().since(&table.name, session.received(offset)?, session)?;
        let bytes = |event: &Logged| event.packet.size() + table.name.len() + OVERHEAD;
        let packets = |event: &Logged| 1 + event.packet.attachments().len();
        let (most_bytes, most_packets) = self.settings.most;
        if missed.iter().map(bytes).sum::<usize>() > most_bytes
            || missed.iter().map(packets).sum::<usize>() > most_packets
        {
            tracing::debug!(
                nsp = &*table.name,
                "not recovered: more was missed than fits into half of a queue (max_queued)"
            );
            return None;
        }
        Some(missed)
    }

    /// A socket enters the namespace: `enter` puts it into its rooms. False if what it missed meanwhile is lost.
    pub(crate) fn open(&self, table: &Table, inner: &Arc<Inner>, enter: impl FnOnce()) -> bool {
        let Some(resume) = &inner.resume else {
            enter();
            return true;
        };
        let _order = self.order.lock();
        let restored = resume.restored.lock().take();
        // To the end of all this: those who wait find it among the sockets connected.
        let mut _on_its_way = None;
        match restored {
            None => {
                let last = self.store().last(&table.name);
                resume.start.store(last.0, Ordering::Relaxed);
                resume.addressed(last, self.millis());
                enter();
            }
            Some(restored) => {
                let Restored { mut session, mut missed, until, upto, on_its_way, .. } = *restored;
                _on_its_way = on_its_way;
                let left = session.left;
                // Up to here nothing is missing; the middleware may have taken its time since.
                session.left = upto;
                let more = self.store().since(&table.name, upto, &session);
                session.left = left;
                match more {
                    Some(more) => missed.extend(more),
                    None => return false,
                }
                let frames = missed.iter().map(|event| self.frames(table, &event.packet, event.offset));
                let Ok(frames) = frames.collect::<Result<Vec<_>, _>>() else { return false };
                resume.set_lull(lull(&session, &missed));
                resume.addressed(missed.last().map_or(session.sent, |event| event.offset), self.millis());
                if let Some(event) = missed.last() {
                    *resume.replayed.lock() = Some((event.offset, until));
                }
                *resume.missed.lock() = frames;
                let mut joined = session.rooms();
                let mut stays = Stays::new(session.stays, session.forgotten, session.sent, self.millis());
                let now = self.now_of(table, resume);
                let left_in = inner.rooms_after_middleware();
                joined.retain(|room| {
                    let stays_in = left_in.as_ref().is_none_or(|rooms| rooms.contains(&**room));
                    if !stays_in {
                        stays.leave(room, &now);
                    }
                    stays_in
                });
                *resume.stays.lock() = stays;
                enter();
                let own = joined.iter().any(|room| **room == *inner.id);
                let mut rooms = table.rooms.write();
                for room in &joined {
                    // As many as it was allowed to join before.
                    let _ = rooms.join(&inner.id, room, table.options.max_rooms);
                }
                if !own {
                    rooms.leave(&inner.id, &inner.id);
                }
            }
        }
        if !inner.is_gone() {
            self.pids.lock().insert(resume.pid.clone(), Arc::downgrade(inner));
        }
        true
    }

    /// A socket that has left does not come back.
    pub(crate) fn end(&self, inner: &Inner) {
        if let Some(resume) = &inner.resume {
            let _order = self.order.lock();
            resume.gone.store(true, Ordering::Relaxed);
            self.away.lock().take(&resume.pid);
            self.store().take(&inner.table.name, &resume.pid, Live::now());
        }
    }

    /// Its connection was lost before the middleware had decided: it may come back as what it still is.
    pub(crate) fn put_back(&self, table: &Table, inner: &Inner) {
        let restored = inner.resume.as_ref().and_then(|resume| resume.restored.lock().take());
        let Some(restored) = restored else { return };
        let _order = self.order.lock();
        let Restored { mut session, missed, until, at, upto, gone, .. } = *restored;
        session.lull = lull(&session, &missed);
        if missed.is_empty() {
            session.left = upto;
        }
        if let Some(event) = missed.last() {
            session.replayed = Some((event.offset, until));
        }
        if let Some(gone) = gone {
            self.away.lock().insert(session.pid.clone(), gone);
        }
        session.until = at + self.settings.recovery.window;
        self.save(table, session);
    }

    /// A socket leaves its rooms, to come back if the reason allows it.
    pub(crate) fn leave(&self, table: &Table, inner: &Arc<Inner>, reason: Option<DisconnectReason>) {
        let _order = self.order.lock();
        let rooms = table.rooms.read().rooms_of(&inner.id);
        table.rooms.write().remove(&inner.id, &Socket::from(inner.clone()));
        let Some(resume) = &inner.resume else { return };
        self.pids.lock().remove(&resume.pid);
        if !reason.is_some_and(DisconnectReason::is_recoverable) || resume.gone.load(Ordering::Relaxed) {
            return;
        }
        let stays = std::mem::take(&mut *resume.stays.lock());
        let (stays, forgotten) = stays.save(rooms);
        let session = SavedSession {
            id: inner.id.clone(),
            pid: resume.pid.clone(),
            stays,
            forgotten,
            data: Socket::from(inner.clone()).data(),
            epoch: self.settings.epoch.clone(),
            said: resume.was_elsewhere.then(|| {
                let wanted = Wanted::read(&inner.auth);
                wanted.as_ref().and_then(Wanted::offset).unwrap_or_default().into()
            }),
            start: Offset(resume.start.load(Ordering::Relaxed)),
            sent: Offset(resume.sent.load(Ordering::Relaxed)),
            left: self.store().last(&table.name),
            lull: resume.lull(),
            until: Live::now() + self.settings.recovery.window,
            replayed: *resume.replayed.lock(),
        };
        resume.saved.store(true, Ordering::Relaxed);
        self.away.lock().insert(resume.pid.clone(), resume.gone.clone());
        self.save(table, session);
    }
}
