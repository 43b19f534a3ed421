//! What a store keeps, and what it has to be able to do.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::Packet;

/// A place in the order of a namespace's events on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The one behind it.
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

/// Whom an event was for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients {
    /// One socket alone, by its id.
    pub socket: Option<Arc<str>>,
    /// The members of these rooms; everybody if empty.
    pub rooms: Vec<String>,
    /// But not the members of these.
    pub except: Vec<String>,
}

impl Recipients {
    /// Whether that session's socket was meant by the event at `offset`, in the rooms that it was in then.
    pub fn include(&self, offset: Offset, session: &SavedSession) -> bool {
        if let Some(socket) = &self.socket {
            return *socket == session.id;
        }
        let in_room = |name: &String| {
            session.stays.get(name).is_some_and(|stays| stays.iter().any(|stay| stay.includes(offset)))
        };
        let among = |names: &[String]| names.iter().any(in_room);
        (self.rooms.is_empty() || among(&self.rooms)) && !among(&self.except)
    }
}

/// Which event of all servers' this is. Each server has offsets of its own; by its mark an event is known on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Where it was emitted: a random number of the server and the namespace it was emitted in.
    pub origin: u64,
    /// How many were emitted there before and with it. They reach every other server in this order.
    pub number: u64,
}

/// Which events of all servers' one server has had: of each origin, those up to a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen(HashMap<u64, u64>);

impl Seen {
    /// The last number of that origin; `None` if there was none.
    pub fn of(&self, origin: u64) -> Option<u64> {
        self.0.get(&origin).copied()
    }

    /// The last event of each origin.
    pub fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        self.0.iter().map(|(&origin, &number)| Mark { origin, number })
    }
}

impl FromIterator<Mark> for Seen {
    fn from_iter<I: IntoIterator<Item = Mark>>(marks: I) -> Seen {
        Seen(marks.into_iter().map(|mark| (mark.origin, mark.number)).collect())
    }
}

/// A time that a socket was in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stay {
    /// The last event before it joined; the default if it was in there from its start.
    pub joined: Offset,
    /// The last event before it left; `None` if it has not.
    pub left: Option<Offset>,
}

impl Stay {
    /// Whether the event at `offset` was within.
    pub fn includes(&self, offset: Offset) -> bool {
        self.joined < offset && self.left.is_none_or(|left| offset <= left)
    }
}

/// A socket that has left and may come back.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedSession {
    /// Its public id.
    pub id: Arc<str>,
    /// Its private id: whoever knows it can take the session up.
    pub pid: Arc<str>,
    /// When it was in its rooms, that of its own id among them, and in those that it had left before but may not have had
    /// everything of: for each, from the first stay on.
    pub stays: HashMap<String, Vec<Stay>>,
    /// Of events up to the first one nobody can tell any more which were meant for it, as it has left rooms since; behind that,
    /// up to the second, none was.
    pub forgotten: (Offset, Offset),
    /// What the app attached with [`Socket::set_data`](crate::Socket::set_data).
    pub data: serde_json::Value,
    /// What offsets begin with on the wire that are this server's.
    pub epoch: Arc<str>,
    /// Of a session that was on another server before: what its client said it had had when it connected here, empty if
    /// nothing. `None`: it began here.
    pub said: Option<Arc<str>>,
    /// The last event before it connected.
    pub start: Offset,
    /// The last event that was meant for it.
    pub sent: Offset,
    /// The last event when it left.
    pub left: Offset,
    /// Two events between which none was meant for it: those around the last long time that it was sent nothing.
    pub lull: (Offset, Offset),
    /// Until when what it may have missed is kept.
    pub until: Instant,
    /// Of a session that had come back and was lost again: the last of the events it was sent again, which may not have
    /// arrived, and until when these are kept.
    pub replayed: Option<(Offset, Instant)>,
}

impl SavedSession {
    /// The last event its client has had, by what the client says: the `offset` of its CONNECT packet. Where that is no offset
    /// of this server, it has had none since it connected. A later one if nothing up to that was meant for it. `None` if nobody
    /// can tell what it has missed: it was on another server and says something else than when it came from there, or it has
    /// had too little of what was [`forgotten`](SavedSession::forgotten).
    pub fn received(&self, offset: Option<&str>) -> Option<Offset> {
        let number = offset.and_then(|text| u64::from_str_radix(text.strip_prefix(&*self.epoch)?, 36).ok());
        let own = number.map(Offset).filter(|offset| (self.start..=self.left).contains(offset));
        let none = self.said.as_deref().is_none_or(|said| said == offset.unwrap_or_default());
        let received = own.or_else(|| none.then_some(self.start))?;
        let (from, to) = self.forgotten;
        (received >= from).then_some(received.max(to))
    }

    /// The rooms it is in: its own first, then in the order in which it joined them.
    pub fn rooms(&self) -> Vec<String> {
        let last = self.stays.iter().filter_map(|(room, stays)| Some((stays.last()?, room)));
        let mut rooms: Vec<_> = last.filter(|(stay, _)| stay.left.is_none()).collect();
        rooms.sort_by_key(|&(stay, room)| (**room != *self.id, stay.joined, room));
        rooms.into_iter().map(|(_, room)| room.clone()).collect()
    }

    /// What was sent to it again and has not arrived.
    pub fn not_received(&self, offset: Option<&str>) -> Option<(Offset, Instant)> {
        self.replayed.filter(|&(last, _)| self.received(offset).is_none_or(|received| received < last))
    }
}

/// An event that is kept.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its place on this server.
    pub offset: Offset,
    /// The event.
    pub packet: Arc<Packet>,
    /// Which one it is among those of all servers; `None` if no other server was told of it.
    pub mark: Option<Mark>,
}

/// A session that was kept by another server, with what its client has missed.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// Its public id.
    pub id: Arc<str>,
    /// Its rooms, that of its own id among them.
    pub rooms: Vec<String>,
    /// What the app attached.
    pub data: serde_json::Value,
    /// What that server had for it and its client has not, in order.
    pub missed: Vec<Arc<Packet>>,
    /// What that server had when it gave the session away.
    pub seen: Seen,
}

/// The outcome of [`Store::fetch`].
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Option<Elsewhere>> + Send + 'a>>;

/// Where sessions and events are kept.
///
/// Every server has its own log of a namespace's events, in the order in which it sent them to its clients; a client's
/// offsets are places in it. The methods about it are called by the server's tasks, for one namespace one after another, and
/// must not block: a store that writes elsewhere as well queues what it writes.
///
/// A client may come back to another server. That one asks those it is joined to by its
/// [`Adapter`](crate::adapter::Adapter), so they need no shared store; the sessions of servers that are gone, or not joined,
/// need one. [`fetch`](Store::fetch) is how it gives a session to a server that did not save it. For several servers in one
/// process:
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use std::time::Instant;
/// use sundew_socketio::recovery::*;
///
/// /// The memory of this server, and those of all.
/// struct Shared {
///     own: Arc<Memory>,
///     all: Arc<Mutex<Vec<Arc<Memory>>>>,
/// }
///
/// impl Shared {
///     fn new(all: &Arc<Mutex<Vec<Arc<Memory>>>>) -> Shared {
///         let own = Arc::new(Memory::new());
///         all.lock().unwrap().push(own.clone());
///         Shared { own, all: all.clone() }
///     }
/// }
///
/// impl Store for Shared {
///     fn last(&self, nsp: &str) -> Offset {
///         self.own.last(nsp)
///     }
///     fn append(&self, nsp: &str, event: Logged, to: Recipients, now: Instant, expires: Instant) {
///         self.own.append(nsp, event, to, now, expires);
///     }
///     fn save(&self, nsp: &str, session: SavedSession, now: Instant, expires: Instant) {
///         self.own.save(nsp, session, now, expires);
///     }
///     fn holds(&self, nsp: &str, pid: &str, now: Instant) -> bool {
///         self.own.holds(nsp, pid, now)
///     }
///     fn take(&self, nsp: &str, pid: &str, now: Instant) -> Option<SavedSession> {
///         self.own.take(nsp, pid, now)
///     }
///     fn since(&self, nsp: &str, after: Offset, session: &SavedSession) -> Option<Vec<Logged>> {
///         self.own.since(nsp, after, session)
///     }
///     fn seen(&self, nsp: &str) -> Seen {
///         self.own.seen(nsp)
///     }
///     fn unseen(&self, nsp: &str, seen: &Seen, from: Offset, session: &SavedSession) -> Option<Vec<Logged>> {
///         self.own.unseen(nsp, seen, from, session)
///     }
///     fn is_shared(&self) -> bool {
///         true
///     }
///     fn fetch<'a>(&'a self, nsp: &'a str, pid: &'a str, offset: Option<&'a str>) -> Fetching<'a> {
///         // Here it could wait for a database.
///         Box::pin(async move {
///             self.all.lock().unwrap().iter().find_map(|store| {
///                 let session = store.take(nsp, pid, Instant::now())?;
///                 let missed = store.since(nsp, session.received(offset)?, &session)?;
///                 Some(Elsewhere {
///                     missed: missed.into_iter().map(|event| event.packet).collect(),
///                     seen: store.seen(nsp),
///                     rooms: session.rooms(),
///                     id: session.id,
///                     data: session.data,
///                 })
///             })
///         })
///     }
/// }
///
/// let all = Arc::default();
/// let recovery = Recovery::new().store(Shared::new(&all));
/// # let _ = recovery;
/// ```
pub trait Store: Send + Sync + 'static {
    /// The last event's place; the default if there was none.
    fn last(&self, nsp: &str) -> Offset;

    /// Keeps an event until `expires`, or for as long as there is room. Its offset follows [`last`](Store::last), which it
    /// is afterwards.
    fn append(&self, nsp: &str, event: Logged, to: Recipients, now: Instant, expires: Instant);

    /// Keeps a session until `expires`, or for as long as there is room.
    fn save(&self, nsp: &str, session: SavedSession, now: Instant, expires: Instant);

    /// Whether [`take`](Store::take) would find it.
    fn holds(&self, nsp: &str, pid: &str, now: Instant) -> bool;

    /// Takes a session that this server has saved out: it can be taken up once.
    fn take(&self, nsp: &str, pid: &str, now: Instant) -> Option<SavedSession>;

    /// The events behind `after` that were meant for the session, in order. `None`: some may be missing, because events
    /// behind `after` were dropped, or have expired and are not all within the session's [`lull`](SavedSession::lull).
    fn since(&self, nsp: &str, after: Offset, session: &SavedSession) -> Option<Vec<Logged>>;

    /// Which events of all servers' this one has had, its own included: by the [`mark`](Logged::mark)s of what was
    /// appended, kept or not.
    fn seen(&self, nsp: &str) -> Seen;

    /// The events with a mark that were meant for the session and are not among `seen`, in order. Of origins that `seen`
    /// does not know only those behind `from` count: what is older may be older than the session. `None`: some may be
    /// missing.
    fn unseen(&self, nsp: &str, seen: &Seen, from: Offset, session: &SavedSession) -> Option<Vec<Logged>>;

    /// Whether [`fetch`](Store::fetch) may find anything.
    fn is_shared(&self) -> bool {
        false
    }

    /// Takes a session out that another server has saved; `offset` is what its client says it has had. `None` if there is
    /// none, or if some of what its client missed is missing. It may take as long as [`Recovery::lookup_timeout`] says.
    ///
    /// [`Recovery::lookup_timeout`]: crate::recovery::Recovery::lookup_timeout
    fn fetch<'a>(&'a self, nsp: &'a str, pid: &'a str, offset: Option<&'a str>) -> Fetching<'a> {
        let _ = (nsp, pid, offset);
        Box::pin(std::future::ready(None))
    }
}

/// A store of which the app keeps a handle.
impl<S: Store + ?Sized> Store for Arc<S> {
    fn last(&self, nsp: &str) -> Offset {
        (**self).last(nsp)
    }

    fn append(&self, nsp: &str, event: Logged, to: Recipients, now: Instant, expires: Instant) {
        (**self).append(nsp, event, to, now, expires);
    }

    fn save(&self, nsp: &str, session: SavedSession, now: Instant, expires: Instant) {
        (**self).save(nsp, session, now, expires);
    }

    fn holds(&self, nsp: &str, pid: &str, now: Instant) -> bool {
        (**self).holds(nsp, pid, now)
    }

    fn take(&self, nsp: &str, pid: &str, now: Instant) -> Option<SavedSession> {
        (**self).take(nsp, pid, now)
    }

    fn since(&self, nsp: &str, after: Offset, session: &SavedSession) -> Option<Vec<Logged>> {
        (**self).since(nsp, after, session)
    }

    fn seen(&self, nsp: &str) -> Seen {
        (**self).seen(nsp)
    }

    fn unseen(&self, nsp: &str, seen: &Seen, from: Offset, session: &SavedSession) -> Option<Vec<Logged>> {
        (**self).unseen(nsp, seen, from, session)
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn fetch<'a>(&'a self, nsp: &'a str, pid: &'a str, offset: Option<&'a str>) -> Fetching<'a> {
        (**self).fetch(nsp, pid, offset)
    }
}
