//! The front door of one app, as the supervisor holds it.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sundew_channel::native::{NoTarget, Target};

use crate::accept::{self, At, ListenerHandle, Listening, Serve};
use crate::advertise;
use crate::backend::{Backend, BackendId, HandOff};
use crate::config::FrontConfig;
use crate::connection;
use crate::crowds::Crowds;
use crate::direct;
use crate::members::Members;
use crate::moving::{Departure, Moving};
use crate::nodes::{Node, Nodes};
use crate::pick::{Picker, Wanted};
use crate::request_id::RequestIds;
use crate::sids::Sids;
use crate::site::Site;
use crate::stats::{Counters, FrontStats};
use crate::tally::WorkerStats;

/// Between two rounds of tidying up.
const SWEEP: Duration = Duration::from_secs(1);

/// The front door of one app. Cheap to clone. All but [`Front::new`] needs a runtime with IO and time.
#[derive(Clone)]
pub struct Front {
    shared: Arc<Shared>,
}

/// What all connections of a front door share.
pub(crate) struct Shared {
    pub(crate) config: FrontConfig,
    pub(crate) members: Members,
    pub(crate) picker: Picker,
    pub(crate) counters: Counters,
    pub(crate) connections: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
    pub(crate) crowds: Crowds,
    pub(crate) sids: Sids,
    pub(crate) nodes: Nodes,
    pub(crate) request_ids: RequestIds,
    /// Seconds since the front door was made, as of the last tidying up.
    seconds: AtomicU32,
    sweeping: AtomicBool,
}

impl Shared {
    /// A clock that costs nothing, in seconds.
    pub(crate) fn now(&self) -> u32 {
        self.seconds.load(Ordering::Relaxed)
    }

    /// Starts the one task that tidies up, unless it runs already. It ends when the front door is gone.
    pub(crate) fn start_sweep(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        let idle = self.config.limits.idle_leg_timeout;
        let settle = u32::try_from((idle / 2).as_secs()).unwrap_or(u32::MAX).max(1);
        let (shared, began) = (Arc::downgrade(self), Instant::now());
        tokio::spawn(async move {
            let mut sweep = tokio::time::interval(SWEEP);
            sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut count = 0u32;
            loop {
                sweep.tick().await;
                let Some(shared) = shared.upgrade() else { return };
                let now = u32::try_from(began.elapsed().as_secs()).unwrap_or(u32::MAX);
                shared.seconds.store(now, Ordering::Relaxed);
                shared.sids.sweep(now);
                count = count.wrapping_add(1);
                if count.is_multiple_of(direct::PERIOD) && shared.config.advertise.is_some() {
                    shared.members.age_promises();
                }
                shared.members.sweep(idle, count.is_multiple_of(settle));
                shared.nodes.sweep(idle);
            }
        });
    }
}

/// What a worker carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberLoad {
    /// All its sessions: those it reports, those below, and those on their way to it.
    pub total: u64,
    /// Polling sessions learned from its answers.
    pub learned: u32,
    /// Websockets of Socket.IO that run through a leg. 0 for a worker that reports its sessions.
    pub relayed: u32,
    /// Requests it is working on.
    pub requests: u64,
}

impl Front {
    /// A front door without workers.
    pub fn new(config: FrontConfig) -> Self {
        let picker = Picker::new(&config);
        let sids = Sids::new(config.limits.learned_sids);
        Self {
            shared: Arc::new(Shared {
                config,
                members: Members::default(),
                picker,
                counters: Counters::default(),
                connections: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
                crowds: Crowds::default(),
                sids,
                nodes: Nodes::default(),
                request_ids: RequestIds::default(),
                seconds: AtomicU32::new(0),
                sweeping: AtomicBool::new(false),
            }),
        }
    }

    /// Serves the connections of a socket that listens. It can be called for several sockets.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn listen(&self, listening: Listening, serve: Serve) -> io::Result<ListenerHandle> {
        accept::listen(&self.shared, listening, serve, At::default())
    }

    /// Serves the connections of a socket whose address apps may share. Each of them listens with a duplicate of it:
    /// whichever accepts a connection, its requests go to the apps they are for.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn listen_at(&self, site: &Site, listening: Listening, serve: Serve) -> io::Result<ListenerHandle> {
        accept::listen(&self.shared, listening, serve, At { slot: None, site: Some(site.clone()) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Serves the connections of a socket that is the door of one slot: what is new there goes to that slot's worker, if
    /// it has one that answers. Sessions that exist are found from here as from everywhere.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn listen_for(&self, slot: u16, listening: Listening, serve: Serve) -> io::Result<ListenerHandle> {
        accept::listen(&self.shared, listening, serve, At { slot: Some(slot), site: None })
    }

    /// Picks the worker for a session that will come to that worker's own door. It counts as one there until it comes, or
    /// for some seconds. None: no worker takes new sessions.
    pub fn promise(&self, client: Option<IpAddr>) -> Option<BackendId> {
        let Shared { picker, members, .. } = &*self.shared;
        let member = picker.place(members, Wanted::Session, client, &[])?;
        member.promised.make();
        Some(member.id)
    }

    /// What a client is told that asks for its route: a worker, as [`Front::promise`] picks it, at its own port. `host` is
    /// the `Host` of its request.
    ///
    /// # Errors
    /// Why nothing can be told.
    pub fn tell(&self, host: &[u8], client: Option<IpAddr>) -> Result<Target, NoTarget> {
        let advertise = self.shared.config.advertise.as_ref().ok_or(NoTarget::Off)?;
        let host = advertise.host.as_deref().or_else(|| advertise::host_of(host)).ok_or(NoTarget::NoHost)?;
        let worker = self.promise(client).ok_or(NoTarget::NoWorker)?;
        let port = advertise.port(worker.slot);
        Ok(Target { scheme: advertise.scheme.clone(), host: host.to_owned(), port })
    }

    /// A worker is up and takes sessions from now on.
    pub fn add(&self, backend: Arc<dyn Backend>) {
        self.shared.start_sweep();
        self.shared.members.add(backend);
    }

    /// No new session to this worker any more; it keeps those it has.
    pub fn drain(&self, id: BackendId) {
        self.shared.members.drain(id);
    }

    /// Waits for the requests this worker is working on, at most for `timeout`, then ends its legs and forgets it. Its
    /// sessions are unknown from then on.
    pub async fn retire(&self, id: BackendId, timeout: Duration) {
        self.shared.members.retire(id, timeout).await;
    }

    /// The worker's process is gone. Its pending requests are answered at once, its sessions are unknown from now on.
    pub fn lost(&self, id: BackendId) {
        self.shared.members.lost(id);
    }

    /// Routes a connection again that was handed over to a worker that did not take it: it died before, refused it, or is
    /// stuck. `except`: not to this one. A connection whose request is not there to be read any more is closed: the worker
    /// had begun with it. So is one that came back too often.
    pub fn reroute(&self, connection: HandOff, except: Option<BackendId>) {
        connection::reroute(&self.shared, connection, except);
    }

    /// The sessions learned from this worker's answers that are polling: neither upgraded nor expired.
    pub fn learned(&self, id: BackendId) -> u32 {
        self.shared.members.find(id).map_or(0, |member| member.owner.polling())
    }

    /// What this worker carries. None: it is not known here.
    pub fn load_of(&self, id: BackendId) -> Option<MemberLoad> {
        let member = self.shared.members.find(id)?;
        Some(MemberLoad {
            total: member.load(),
            learned: member.owner.polling(),
            relayed: member.relayed(),
            requests: member.in_flight(),
        })
    }

    /// What this worker was given, and what became of it. None: it is not known here.
    pub fn stats_of(&self, id: BackendId) -> Option<WorkerStats> {
        let member = self.shared.members.find(id)?;
        Some(member.tally.read(member.in_flight()))
    }

    /// Lets go of the sessions learned from this worker's answers, `batch` at a time with a `pause` in between: a poll that
    /// waits is answered with the close packet, and the session is unknown from then on. Its websockets that are relayed
    /// end too. To be called when it drains.
    pub async fn let_go(&self, id: BackendId, batch: u32, pause: Duration) {
        self.shared.let_go(id, batch, pause).await;
    }

    /// The node of this number can be reached: it gets the requests for its sessions.
    pub fn add_node(&self, number: u8, node: Arc<dyn Node>) {
        self.shared.start_sweep();
        self.shared.nodes.add(number, node);
    }

    /// The node of this number cannot be reached any more. Its pending requests are answered at once, its sessions are
    /// unknown from now on.
    pub fn lost_node(&self, number: u8) {
        self.shared.nodes.lost(number);
    }

    /// Serves a connection of another node, which carries requests of its clients. The socket does not block.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn serve_node(&self, socket: OwnedFd) -> io::Result<()> {
        connection::serve_node(&self.shared, socket)
    }

    /// Whether a worker here has this session.
    pub fn has(&self, sid: &[u8]) -> bool {
        let Shared { sids, picker, members, .. } = &*self.shared;
        let learned = sids.find(sid).is_some_and(|session| !session.owner.id.is_node());
        learned || picker.owner(members, sid).is_some()
    }

    /// Freezes a session of a worker here, to let it go on at another node. None: it stays, for the moment. `limit`: the
    /// most bytes of state.
    pub fn export(&self, sid: &str, limit: u32) -> Moving<Option<Departure>> {
        let Shared { picker, members, .. } = &*self.shared;
        match picker.owner(members, sid.as_bytes()) {
            Some(owner) => Arc::clone(&owner.backend).export(sid, limit),
            None => Box::pin(std::future::ready(None)),
        }
    }

    /// A way to the front door that does not keep it.
    pub fn downgrade(&self) -> WeakFront {
        WeakFront { shared: Arc::downgrade(&self.shared) }
    }

    /// Whether this is the same front door.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The counters.
    pub fn stats(&self) -> FrontStats {
        let connections = self.shared.connections.load(std::sync::atomic::Ordering::Relaxed);
        self.shared.counters.read(connections as u64)
    }
}

/// A front door that may be gone.
#[derive(Clone)]
pub struct WeakFront {
    shared: Weak<Shared>,
}

impl WeakFront {
    /// The front door, if it is still there.
    pub fn upgrade(&self) -> Option<Front> {
        self.shared.upgrade().map(|shared| Front { shared })
    }
}

impl std::fmt::Debug for WeakFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeakFront")
    }
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("app", &self.shared.config.app).field("stats", &self.stats()).finish()
    }
}
