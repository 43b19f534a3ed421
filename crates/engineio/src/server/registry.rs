//! What all sessions of an engine share: options, the table of ids, counters, the timer wheel.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
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
    /// Clients choose what is looked up; what is in the table is this server's choice, or that of the app's `generate_id`. So no
    /// hash needs a key here.
    hasher: FxBuildHasher,
    /// The sessions by their ids.
    shards: [Shard; SHARDS],
}

type Shard = Mutex<HashTable<Arc<Shared>>>;

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
            hasher: FxBuildHasher,
            shards: Default::default(),
        }
    }

    /// Where the session of that id is, and its hash there. Hashed once: a table uses the lowest bits of it and the highest.
    fn shard(&self, sid: &str) -> (&Shard, u64) {
        let hash = self.hasher.hash_one(sid);
        (&self.shards[(hash >> 20) as usize % SHARDS], hash)
    }

    pub(crate) fn find(&self, sid: &str) -> Option<Arc<Shared>> {
        let (shard, hash) = self.shard(sid);
        shard.lock().find(hash, |session| session.sid() == sid).cloned()
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
            let sid = session.sid();
            let (shard, hash) = self.shard(sid);
            let mut shard = shard.lock();
            if self.is_closed() {
                return Err(NoPlace::Closed);
            }
            let most = self.config.max_sessions;
            // Taken first: those who come at the same time may be in other shards.
            let take = |sessions: usize| (sessions < most).then_some(sessions + 1);
            let taken = self.counters.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            taken.map_err(|_| NoPlace::Full)?;
            let rehash = |session: &Arc<Shared>| self.hasher.hash_one(session.sid());
            match shard.entry(hash, |session| session.sid() == sid, rehash) {
                Entry::Occupied(_) => {
                    self.counters.sessions.fetch_sub(1, Ordering::Relaxed);
                    return Err(NoPlace::Taken);
                }
                Entry::Vacant(place) => drop(place.insert(session.clone())),
            }
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
        let (shard, hash) = self.shard(sid);
        let found =
            shard.lock().find_entry(hash, |session| session.sid() == sid).ok().map(|found| found.remove().0);
        if found.is_some() {
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
            all.extend(shard.lock().iter().cloned());
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
