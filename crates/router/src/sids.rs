//! The sessions whose owner is known only because the worker's answer was read: session id to owner. Bounded, and without
//! a clock: seconds come in as arguments.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::backend::{BackendId, Leg};

/// The table is cut into so many parts, so that tidying up one holds up nobody for long. A power of two.
const SHARDS: usize = 64;
/// An upgraded session is polled no more; what is late still finds its owner for this long, in seconds.
const UPGRADED_TTL: u32 = 60;
/// Whose client went away amid a poll gets this long to come back, in seconds: most workers end the session then.
const ABANDONED_TTL: u32 = 5;
/// Who still polls this long after its upgrade, in seconds, was not upgraded.
const UPGRADE_FAILED: u32 = 10;

/// A worker, as the owner of sessions.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) id: BackendId,
    /// Its sessions that are polling.
    polling: AtomicU32,
    gone: AtomicBool,
}

impl Owner {
    pub(crate) fn new(id: BackendId) -> Self {
        Self { id, polling: AtomicU32::new(0), gone: AtomicBool::new(false) }
    }

    pub(crate) fn polling(&self) -> u32 {
        self.polling.load(Ordering::Relaxed)
    }

    /// Its sessions are unknown from now on.
    pub(crate) fn is_gone_now(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    sid: Box<[u8]>,
    pub(crate) owner: Arc<Owner>,
    /// Seconds it is remembered without a request.
    ttl: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Forgotten when this second has passed.
    expires: u32,
    upgraded: Option<u32>,
    over: bool,
    /// Its client went away while its poll waited, and has not come back.
    away: bool,
    /// The leg on which a poll waits for its answer.
    poll: Option<Arc<Leg>>,
}

impl State {
    fn counts(&self) -> bool {
        self.upgraded.is_none() && !self.over && !self.away
    }
}

impl Session {
    /// A request for it has come. `polls`: one that only a session makes that is not upgraded.
    pub(crate) fn touch(&self, now: u32, polls: bool) {
        let mut state = self.state.lock();
        let counted = state.counts();
        state.away = false;
        if polls
            && let Some(at) = state.upgraded
            && now.saturating_sub(at) > UPGRADE_FAILED
        {
            state.upgraded = None;
        }
        if !counted && state.counts() {
            self.owner.polling.fetch_add(1, Ordering::Relaxed);
        }
        let ttl = if state.upgraded.is_some() { UPGRADED_TTL } else { self.ttl };
        state.expires = now.saturating_add(ttl);
    }

    /// Its client went away while its poll waited. It does not count until it comes back.
    pub(crate) fn abandon(&self, now: u32) {
        let mut state = self.state.lock();
        self.uncount(&state);
        state.away = true;
        state.expires = state.expires.min(now.saturating_add(ABANDONED_TTL));
    }

    /// Its websocket went to the worker.
    pub(crate) fn upgrade(&self, now: u32) {
        let mut state = self.state.lock();
        self.uncount(&state);
        state.upgraded = Some(now);
        state.expires = now.saturating_add(UPGRADED_TTL);
    }

    /// A poll waits on this leg. `false`: the session is over, there is nothing to wait for.
    pub(crate) fn begin_poll(&self, leg: &Arc<Leg>) -> bool {
        let mut state = self.state.lock();
        if state.over {
            return false;
        }
        state.poll = Some(leg.clone());
        true
    }

    /// It does not wait any more. The leg may be used for another request from then on.
    pub(crate) fn end_poll(&self, leg: &Arc<Leg>) {
        let mut state = self.state.lock();
        if state.poll.as_ref().is_some_and(|waiting| Arc::ptr_eq(waiting, leg)) {
            state.poll = None;
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().over
    }

    /// Ends it here. A poll that waits sees its leg end.
    fn end(&self, answer_poll: bool) {
        let mut state = self.state.lock();
        self.uncount(&state);
        state.over = true;
        if let Some(leg) = state.poll.take().filter(|_| answer_poll) {
            leg.end_both();
        }
    }

    fn uncount(&self, state: &State) {
        if state.counts() {
            self.owner.polling.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn is_expired(&self, now: u32) -> bool {
        if self.owner.gone.load(Ordering::Relaxed) {
            return true;
        }
        let state = self.state.lock();
        // One whose poll waits is alive, however long that takes.
        state.poll.is_none() && state.expires < now
    }
}

/// A session in the table, found by the bytes of its id.
struct Entry(Arc<Session>);

impl Entry {
    /// It counts as polling from now on.
    fn new(sid: &[u8], owner: &Arc<Owner>, ttl: u32, now: u32) -> Self {
        let state =
            State { expires: now.saturating_add(ttl), upgraded: None, over: false, away: false, poll: None };
        owner.polling.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Session { sid: sid.into(), owner: owner.clone(), ttl, state: Mutex::new(state) }))
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        &self.0.sid
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As a slice hashes: it is looked up by one.
        <[u8] as Hash>::hash(&self.0.sid, state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.sid == other.0.sid
    }
}

impl Eq for Entry {}

/// All learned sessions of a front door.
pub(crate) struct Sids {
    shards: Vec<Mutex<HashSet<Entry>>>,
    count: AtomicUsize,
    limit: usize,
    /// The part that is tidied up next.
    next: AtomicUsize,
}

impl Sids {
    /// For about `limit` sessions: the handshakes that are with a worker when it is reached still get in.
    pub(crate) fn new(limit: usize) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { shards, count: AtomicUsize::new(0), limit, next: AtomicUsize::new(0) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// No new session is to be opened.
    pub(crate) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.limit
    }

    fn shard(&self, sid: &[u8]) -> &Mutex<HashSet<Entry>> {
        let sum = sid.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        // The low bits alone would be the last characters' low bits.
        &self.shards[(sum ^ (sum >> 7)) % SHARDS]
    }

    /// Remembers a session. One of the same name is forgotten.
    pub(crate) fn learn(&self, sid: &[u8], owner: &Arc<Owner>, ttl: u32, now: u32) {
        let session = Entry::new(sid, owner, ttl, now);
        let before = self.shard(sid).lock().replace(session);
        self.entered(before);
    }

    /// Remembers another node's session. Two requests may have asked for it at once: who comes second changes nothing, or
    /// it would end what the first one holds.
    pub(crate) fn remember(&self, sid: &[u8], owner: &Arc<Owner>, ttl: u32, now: u32) {
        // The lock is held from the look to the entry.
        let mut shard = self.shard(sid).lock();
        if shard.get(sid).is_some_and(|Entry(session)| Arc::ptr_eq(&session.owner, owner)) {
            return;
        }
        let before = shard.replace(Entry::new(sid, owner, ttl, now));
        drop(shard);
        self.entered(before);
    }

    fn entered(&self, before: Option<Entry>) {
        match before {
            Some(Entry(before)) => before.end(false),
            None => drop(self.count.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) fn find(&self, sid: &[u8]) -> Option<Arc<Session>> {
        if self.is_empty() {
            return None;
        }
        let shard = self.shard(sid).lock();
        let Entry(session) = shard.get(sid)?;
        (!session.owner.gone.load(Ordering::Relaxed)).then(|| session.clone())
    }

    /// The session is over: the worker said so.
    pub(crate) fn forget(&self, session: &Session) {
        self.remove(session);
        session.end(false);
    }

    /// Ends the session for the client: a poll that waits has to be answered by us.
    pub(crate) fn let_go(&self, session: &Session) {
        self.remove(session);
        session.end(true);
    }

    fn remove(&self, session: &Session) {
        let mut shard = self.shard(&session.sid).lock();
        // Another one may have taken its name.
        let is_it = |entry: &Entry| std::ptr::eq(&*entry.0, session);
        if shard.get(&*session.sid).is_some_and(is_it) {
            shard.remove(&*session.sid);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The sessions of a worker that are polling.
    pub(crate) fn polling_of(&self, owner: &Arc<Owner>) -> Vec<Arc<Session>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let of_owner = shard.iter().filter(|Entry(session)| Arc::ptr_eq(&session.owner, owner));
            let polling = of_owner.filter(|Entry(session)| session.state.lock().upgraded.is_none());
            found.extend(polling.map(|Entry(session)| session.clone()));
        }
        found
    }

    /// Forgets what has expired, in the next quarter of the table.
    pub(crate) fn sweep(&self, now: u32) {
        if self.is_empty() {
            return;
        }
        for _ in 0..SHARDS / 4 {
            let next = self.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = self.shards[next].lock();
            let before = shard.len();
            shard.retain(|Entry(session)| {
                let expired = session.is_expired(now);
                if expired {
                    session.end(false);
                }
                !expired
            });
            self.count.fetch_sub(before - shard.len(), Ordering::Relaxed);
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
                shard.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
#[path = "sids_tests.rs"]
mod tests;
