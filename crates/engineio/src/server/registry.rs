//! What all sessions of an engine share: options, the table of ids, counters, the timer wheel.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::heartbeat::Heartbeat;
use super::shared::Shared;
use crate::proto::session::Settings;
use crate::{Config, Stats, Transport, Transports};

/// Locks of the table. Requests for different sessions rarely meet.
const SHARDS: usize = 16;

pub(crate) struct Registry {
    pub(crate) config: Config,
    pub(crate) settings: Arc<Settings>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) counters: Counters,
    /// Told whenever the number of sessions changes.
    pub(crate) changed: Notify,
    /// No new sessions: the engine was closed.
    closed: AtomicBool,
    /// Sessions are being closed, whoever comes.
    pub(crate) draining: AtomicBool,
    hasher: RandomState,
    shards: [Mutex<HashSet<Entry>>; SHARDS],
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// All there are, counted for itself: between two of the three below, a session may move from the one that was not read
    /// yet to the one that was, and an engine that has it the whole time would look empty.
    sessions: AtomicUsize,
    polling: AtomicUsize,
    websocket: AtomicUsize,
    webtransport: AtomicUsize,
    handshakes: AtomicU64,
    upgrades: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// Why there is no place for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    Closed,
    Full,
    Taken,
}

impl NoPlace {
    pub(crate) fn message(self) -> &'static str {
        match self {
            NoPlace::Closed => "the server is shutting down",
            NoPlace::Full => "too many sessions",
            NoPlace::Taken => "its id is here already",
        }
    }
}

/// A session in the table, found by its id.
struct Entry(Arc<Shared>);

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        self.0.sid()
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.sid().hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.0.sid() == other.0.sid()
    }
}

impl Eq for Entry {}

impl Registry {
    pub(crate) fn new(config: Config) -> Registry {
        let settings = Settings {
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            upgrade_timeout: config.upgrade_timeout,
            close_timeout: config.close_timeout,
            max_queued_bytes: config.max_queued_bytes,
            max_queued_packets: config.max_queued_packets,
            upgrades: match config.allow_upgrades {
                true => Transports { polling: false, ..config.transports },
                false => Transports::NONE,
            },
        };
        Registry {
            heartbeat: Heartbeat::new(&settings),
            settings: Arc::new(settings),
            config,
            counters: Counters::default(),
            changed: Notify::new(),
            closed: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            hasher: RandomState::new(),
            shards: Default::default(),
        }
    }

    fn shard(&self, sid: &str) -> &Mutex<HashSet<Entry>> {
        &self.shards[self.hasher.hash_one(sid) as usize % SHARDS]
    }

    pub(crate) fn find(&self, sid: &str) -> Option<Arc<Shared>> {
        self.shard(sid).lock().get(sid).map(|entry| entry.0.clone())
    }

    /// No session is entered any more once this returns.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Whoever has not seen it yet is entering a session under one of these.
        for shard in &self.shards {
            drop(shard.lock());
        }
        self.changed.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether there is a place for another session now.
    pub(crate) fn place(&self) -> Result<(), NoPlace> {
        if self.is_closed() {
            return Err(NoPlace::Closed);
        }
        if self.len() >= self.config.max_sessions {
            return Err(NoPlace::Full);
        }
        Ok(())
    }

    /// Enters a session. `opened`: it begins here.
    pub(crate) fn insert(
        &self,
        session: &Arc<Shared>,
        transport: Transport,
        opened: bool,
    ) -> Result<(), NoPlace> {
        {
            let mut shard = self.shard(session.sid()).lock();
            self.place()?;
            if !shard.insert(Entry(session.clone())) {
                return Err(NoPlace::Taken);
            }
            self.counters.sessions.fetch_add(1, Ordering::Relaxed);
            self.counters.of(transport).fetch_add(1, Ordering::Relaxed);
        }
        self.counters.handshakes.fetch_add(u64::from(opened), Ordering::Relaxed);
        self.changed.notify_waiters();
        Ok(())
    }

    pub(crate) fn upgraded(&self, to: Transport) {
        self.counters.polling.fetch_sub(1, Ordering::Relaxed);
        self.counters.of(to).fetch_add(1, Ordering::Relaxed);
        self.counters.upgrades.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(crate) fn remove(&self, sid: &str, transport: Transport) {
        if self.shard(sid).lock().remove(sid) {
            self.counters.of(transport).fetch_sub(1, Ordering::Relaxed);
            self.counters.sessions.fetch_sub(1, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.counters.sessions.load(Ordering::Relaxed)
    }

    /// Every session there is now.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(shard.lock().iter().map(|entry| entry.0.clone()));
        }
        all
    }

    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.counters;
        Stats {
            sessions: self.len(),
            polling: counters.polling.load(Ordering::Relaxed),
            websocket: counters.websocket.load(Ordering::Relaxed),
            webtransport: counters.webtransport.load(Ordering::Relaxed),
            handshakes: counters.handshakes.load(Ordering::Relaxed),
            upgrades: counters.upgrades.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }
}

impl Counters {
    fn of(&self, transport: Transport) -> &AtomicUsize {
        match transport {
            Transport::Polling => &self.polling,
            Transport::Websocket => &self.websocket,
            Transport::WebTransport => &self.webtransport,
        }
    }
}
