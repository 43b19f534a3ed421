//! Sessions and events in this process' memory, bounded.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::{Logged, Mark, Offset, Recipients, SavedSession, Seen, Store};

/// What an entry costs beside its payload.
const OVERHEAD: usize = 128;
/// What a binary value costs beside its bytes.
const ATTACHMENT: usize = 64;
/// What a namespace's log costs beside what is in it.
const LOG: usize = 1024;
/// So many origins are known before those that have long been silent are forgotten.
const FEW_ORIGINS: usize = 64;

/// What has expired is dropped so often where nothing happens.
const SWEEP: Duration = Duration::from_secs(10);

/// Keeps everything in this process. Servers that are joined by an adapter ask each other for the sessions of clients that
/// come back elsewhere; what a process kept is gone with it.
///
/// There are limits for each namespace, and one for all together. When one is reached, the oldest goes, of all namespaces
/// that of the fullest, and clients that may have missed it start anew.
#[derive(Debug)]
pub struct Memory {
    max_total_bytes: usize,
    max_bytes: usize,
    max_packets: usize,
    max_sessions: usize,
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    logs: HashMap<String, Log>,
    /// No log that is gone had a later event: a new one goes on from here.
    floor: Offset,
    /// Nor does anybody miss a later event because of one that had to go before its time; as long as that matters.
    dropped: Offset,
    dropped_until: Option<Instant>,
    /// The last event that had expired in a log that is gone.
    expired_offset: Offset,
    /// How many logs there were when those without anything in them were last dropped.
    swept: usize,
    /// Of all logs.
    bytes: usize,
    /// When what has expired was last dropped everywhere.
    expired: Option<Instant>,
}

impl Logs {
    /// Drops what has expired where nobody looks, now and then.
    fn expire(&mut self, now: Instant) {
        if *self.expired.get_or_insert(now) + SWEEP > now {
            return;
        }
        self.expired = Some(now);
        if self.dropped_until.is_some_and(|until| until <= now) {
            (self.dropped, self.dropped_until) = (Offset::default(), None);
        }
        for log in self.logs.values_mut() {
            log.expire(now);
            log.forget(now, usize::MAX);
        }
        self.bytes = self.logs.values().map(Log::size).sum();
    }

    /// Makes room, a little more than there has to be: all logs are looked at. The fullest ones lose their oldest.
    fn shrink(&mut self, most: usize, now: Instant) {
        if self.bytes <= most {
            return;
        }
        self.drop_those(|log| log.is_over(now));
        let goal = most - most / 64;
        let mut logs: BinaryHeap<_> = self.logs.values_mut().map(Fullest::new).collect();
        while self.bytes > goal
            && let Some(Fullest { size, log }) = logs.pop()
        {
            let next = logs.peek().map_or(0, |fullest| fullest.size);
            while log.shed() && log.size() >= next && self.bytes - size + log.size() > goal {}
            let left = if log.is_empty() { 0 } else { log.size() };
            self.bytes = self.bytes - size + left;
            if 0 < left && left < size {
                logs.push(Fullest { size: left, log });
            }
        }
        // With these goes what is known of gaps: whoever was here before may have one.
        for log in self.logs.values().filter(|log| log.is_empty()) {
            self.dropped = self.dropped.max(log.last);
            self.dropped_until = self.dropped_until.max(log.depended_on());
        }
        self.drop_those(Log::is_empty);
    }

    fn drop_those(&mut self, which: impl Fn(&Log) -> bool) {
        let last = self.logs.values().filter(|log| which(log)).map(|log| log.last).max();
        self.floor = self.floor.max(last.unwrap_or_default());
        let expired = self.logs.values().filter(|log| which(log)).map(|log| log.expired).max();
        self.expired_offset = self.expired_offset.max(expired.unwrap_or_default());
        self.logs.retain(|_, log| !which(log));
        self.swept = self.logs.len();
        self.bytes = self.logs.values().map(Log::size).sum();
    }

    /// Names of namespaces made on demand are many: what has nothing in it any more goes.
    fn sweep(&mut self, now: Instant) {
        if self.logs.len() < 16 + 2 * self.swept {
            return;
        }
        for log in self.logs.values_mut() {
            log.expire(now);
            log.forget(now, usize::MAX);
        }
        self.drop_those(|log| log.is_over(now));
    }
}

/// A log by its size.
struct Fullest<'a> {
    size: usize,
    log: &'a mut Log,
}

impl<'a> Fullest<'a> {
    fn new(log: &'a mut Log) -> Fullest<'a> {
        Fullest { size: log.size(), log }
    }
}

impl PartialEq for Fullest<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size
    }
}

impl Eq for Fullest<'_> {}

impl PartialOrd for Fullest<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Fullest<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.size.cmp(&other.size)
    }
}

impl Memory {
    /// With the default limits.
    pub fn new() -> Memory {
        Memory {
            max_total_bytes: 128 << 20,
            max_bytes: 16 << 20,
            max_packets: 20_000,
            max_sessions: 100_000,
            logs: Mutex::default(),
        }
    }

    /// How many bytes of events and sessions are kept, of all namespaces together. Default 128 MiB.
    #[must_use]
    pub fn max_total_bytes(mut self, bytes: usize) -> Memory {
        self.max_total_bytes = bytes;
        self
    }

    /// How many bytes of events are kept for a namespace. Default 16 MiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Memory {
        self.max_bytes = bytes;
        self
    }

    /// How many events are kept for a namespace. Default 20,000.
    #[must_use]
    pub fn max_packets(mut self, packets: usize) -> Memory {
        self.max_packets = packets;
        self
    }

    /// How many sessions that may come back are kept for a namespace. Default 100,000.
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Memory {
        self.max_sessions = sessions;
        self
    }

    /// What a namespace's events take now: packets and bytes.
    pub fn usage(&self, nsp: &str) -> (usize, usize) {
        self.logs.lock().logs.get(nsp).map_or((0, 0), |log| (log.entries.len(), log.bytes))
    }

    /// What events and sessions of all namespaces take now, in bytes.
    pub fn total_bytes(&self) -> usize {
        self.logs.lock().bytes
    }

    #[cfg(test)]
    pub(super) fn namespaces(&self) -> usize {
        self.logs.lock().logs.len()
    }

    fn change(&self, nsp: &str, now: Instant, change: impl FnOnce(&mut Log)) {
        let mut logs = self.logs.lock();
        let logs = &mut *logs;
        if !logs.logs.contains_key(nsp) {
            let log = Log {
                last: logs.floor,
                dropped: logs.dropped,
                expired: logs.expired_offset,
                fixed: LOG + nsp.len(),
                ..Log::default()
            };
            logs.bytes += log.size();
            logs.logs.insert(nsp.to_owned(), log);
        }
        let Some(log) = logs.logs.get_mut(nsp) else { return };
        let before = log.size();
        change(log);
        log.expire(now);
        log.forget(now, self.max_sessions);
        while (log.bytes > self.max_bytes || log.entries.len() > self.max_packets) && log.drop_oldest() {}
        logs.bytes = logs.bytes - before + log.size();
        // Behind the change: its offset follows the last one there was before.
        logs.expire(now);
        logs.sweep(now);
        logs.shrink(self.max_total_bytes, now);
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

#[derive(Debug, Default)]
struct Log {
    fixed: usize,
    last: Offset,
    entries: VecDeque<Entry>,
    /// Of events.
    bytes: usize,
    /// Of sessions.
    kept: usize,
    /// The last event that was dropped although it had not expired, or before which one is missing.
    dropped: Offset,
    dropped_until: Option<Instant>,
    /// The last event that has expired.
    expired: Offset,
    origins: HashMap<u64, Origin>,
    sessions: HashMap<Arc<str>, Kept>,
    /// In the order in which they were saved. May name sessions that are gone.
    order: VecDeque<(u64, Arc<str>)>,
    saves: u64,
}

/// What was heard of one origin.
#[derive(Debug)]
struct Origin {
    /// The last number.
    number: u64,
    /// The last number that is missing although it may not have expired.
    missing: u64,
    /// When nothing depends on it any more.
    until: Instant,
}

#[derive(Debug)]
struct Entry {
    event: Logged,
    to: Recipients,
    size: usize,
    expires: Instant,
}

#[derive(Debug)]
struct Kept {
    session: SavedSession,
    /// Which save this is: a session may be saved, taken and saved again.
    save: u64,
    size: usize,
    expires: Instant,
}

impl Log {
    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.size;
        Some(entry)
    }

    fn size(&self) -> usize {
        self.fixed + self.bytes + self.kept
    }

    /// Drops the oldest of what takes the most. False if there is nothing.
    fn shed(&mut self) -> bool {
        match self.kept > self.bytes {
            true => self.forget_oldest(),
            false => self.drop_oldest(),
        }
    }

    /// Drops an event before its time.
    fn drop_oldest(&mut self) -> bool {
        let Some(entry) = self.pop() else { return false };
        self.dropped = self.dropped.max(entry.event.offset);
        self.dropped_until = self.dropped_until.max(Some(entry.expires));
        if let Some(mark) = entry.event.mark
            && let Some(origin) = self.origins.get_mut(&mark.origin)
        {
            origin.missing = origin.missing.max(mark.number);
        }
        true
    }

    fn keep(&mut self, session: SavedSession, expires: Instant) {
        self.saves += 1;
        let (save, pid) = (self.saves, session.pid.clone());
        let stays = session.stays.iter().map(|(room, stays)| room.len() + 64 + size_of_val(&**stays));
        let fixed = 2 * OVERHEAD + session.id.len() + 2 * pid.len();
        let size = fixed + stays.sum::<usize>() + weight(&session.data);
        self.remove(&pid);
        self.kept += size;
        self.order.push_back((save, pid.clone()));
        self.sessions.insert(pid, Kept { session, save, size, expires });
    }

    fn remove(&mut self, pid: &str) -> Option<Kept> {
        let kept = self.sessions.remove(pid)?;
        self.kept -= kept.size;
        Some(kept)
    }

    fn forget_oldest(&mut self) -> bool {
        while let Some((save, pid)) = self.order.pop_front() {
            if self.sessions.get(&pid).is_some_and(|kept| kept.save == save) {
                self.remove(&pid);
                return true;
            }
        }
        false
    }

    /// Hears of an event that is appended next.
    fn hear(&mut self, mark: Mark, offset: Offset, now: Instant, expires: Instant) {
        // For as long again as the event is kept: other servers may have heard of it a little later.
        let until = expires + (expires - now);
        if !self.origins.contains_key(&mark.origin) && self.origins.len() >= FEW_ORIGINS {
            self.origins.retain(|_, origin| origin.until > now);
        }
        // What came before the first that is heard, nobody here knows.
        let first = Origin { number: mark.number, missing: mark.number.saturating_sub(1), until };
        let origin = self.origins.entry(mark.origin).or_insert(first);
        if mark.number > origin.number + 1 {
            // The way from there was too full: whoever was to get those has a gap.
            origin.missing = mark.number - 1;
            self.dropped = offset;
            self.dropped_until = self.dropped_until.max(Some(expires));
        }
        origin.number = origin.number.max(mark.number);
        origin.until = until;
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.sessions.is_empty()
    }

    /// Until when it matters what was dropped, and what was heard of other servers.
    fn depended_on(&self) -> Option<Instant> {
        self.dropped_until.max(self.origins.values().map(|origin| origin.until).max())
    }

    fn is_over(&self, now: Instant) -> bool {
        self.is_empty() && self.depended_on().is_none_or(|until| until <= now)
    }

    fn expire(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|entry| entry.expires <= now) {
            self.expired = self.pop().map_or(self.expired, |entry| entry.event.offset);
        }
    }

    /// Drops sessions that have expired, and from the oldest on while there are more than `most`.
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((save, pid)) = self.order.front() {
            match self.sessions.get(pid).filter(|kept| kept.save == *save) {
                Some(kept) if kept.expires > now && self.sessions.len() <= most => return,
                Some(_) => drop(self.forget_oldest()),
                // Taken since.
                None => drop(self.order.pop_front()),
            }
        }
    }
}

/// About what a value takes in memory.
fn weight(value: &Value) -> usize {
    const NODE: usize = size_of::<Value>();
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| NODE + name.len() + weight(value)).sum(),
        _ => 0,
    }
}

impl Store for Memory {
    fn last(&self, nsp: &str) -> Offset {
        let logs = self.logs.lock();
        logs.logs.get(nsp).map_or(logs.floor, |log| log.last)
    }

    fn append(&self, nsp: &str, event: Logged, to: Recipients, now: Instant, expires: Instant) {
        let names = to.rooms.iter().chain(&to.except).map(|name| name.len() + 24).sum::<usize>();
        let attachments =
            event.packet.attachments().iter().map(|data| data.len() + ATTACHMENT).sum::<usize>();
        let size = event.packet.json().len() + attachments + names + OVERHEAD;
        self.change(nsp, now, |log| {
            if let Some(mark) = event.mark {
                log.hear(mark, event.offset, now, expires);
            }
            if event.offset <= log.last && log.entries.is_empty() {
                // A log made just now, and another namespace's has raised the floor since the offset was given.
                log.dropped = log.dropped.min(Offset(event.offset.0 - 1));
                log.expired = log.expired.min(Offset(event.offset.0 - 1));
            }
            log.last = event.offset;
            log.bytes += size;
            log.entries.push_back(Entry { event, to, size, expires });
        });
    }

    fn save(&self, nsp: &str, session: SavedSession, now: Instant, expires: Instant) {
        self.change(nsp, now, |log| log.keep(session, expires));
    }

    fn holds(&self, nsp: &str, pid: &str, now: Instant) -> bool {
        let logs = self.logs.lock();
        logs.logs.get(nsp).and_then(|log| log.sessions.get(pid)).is_some_and(|kept| kept.expires > now)
    }

    fn take(&self, nsp: &str, pid: &str, now: Instant) -> Option<SavedSession> {
        let mut logs = self.logs.lock();
        let logs = &mut *logs;
        let log = logs.logs.get_mut(nsp)?;
        let before = log.size();
        log.forget(now, self.max_sessions);
        let kept = log.remove(pid);
        logs.bytes = logs.bytes - before + log.size();
        kept.filter(|kept| kept.expires > now).map(|kept| kept.session)
    }

    fn since(&self, nsp: &str, after: Offset, session: &SavedSession) -> Option<Vec<Logged>> {
        let logs = self.logs.lock();
        let log = logs.logs.get(nsp);
        // A client that has the last event meant for it misses nothing up to the moment it left, however long ago that
        // event was and whatever became of it.
        let after = if after >= session.sent { after.max(session.left) } else { after };
        if log.map_or(logs.dropped, |log| log.dropped) > after {
            return None;
        }
        let Some(log) = log else { return Some(Vec::new()) };
        // A connection that was held up may have been found lost only long after. Nobody knows any more whom these were for,
        // but where it was none of them for it.
        let (from, to) = session.lull;
        if log.expired > after && !(from <= after && log.expired < to) {
            return None;
        }
        let first = log.entries.partition_point(|entry| entry.event.offset <= after);
        let entries = log.entries.iter().skip(first);
        let missed = entries.filter(|entry| entry.to.include(entry.event.offset, session));
        Some(missed.map(|entry| entry.event.clone()).collect())
    }

    fn seen(&self, nsp: &str) -> Seen {
        let logs = self.logs.lock();
        let origins = logs.logs.get(nsp).into_iter().flat_map(|log| &log.origins);
        origins.map(|(&origin, heard)| Mark { origin, number: heard.number }).collect()
    }

    fn unseen(&self, nsp: &str, seen: &Seen, from: Offset, session: &SavedSession) -> Option<Vec<Logged>> {
        let logs = self.logs.lock();
        let Some(log) = logs.logs.get(nsp) else { return Some(Vec::new()) };
        // The origins of which there may be more, from the latest event backwards.
        let mut open = HashSet::new();
        for (&origin, heard) in &log.origins {
            match seen.of(origin) {
                Some(number) if heard.missing > number => return None,
                None if heard.missing > 0 && log.dropped > from => return None,
                Some(number) if heard.number <= number => {}
                _ => drop(open.insert(origin)),
            }
        }
        let mut events = Vec::new();
        for Entry { event, to, .. } in log.entries.iter().rev() {
            if open.is_empty() {
                break;
            }
            let Some(mark) = event.mark.filter(|mark| open.contains(&mark.origin)) else { continue };
            let new = seen.of(mark.origin).map_or(event.offset > from, |number| mark.number > number);
            if !new {
                open.remove(&mark.origin);
            } else if to.include(event.offset, session) {
                events.push(event.clone());
            }
        }
        events.reverse();
        Some(events)
    }
}
