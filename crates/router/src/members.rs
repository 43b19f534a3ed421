//! The workers behind a front door, as they come, drain and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::backend::{Abilities, Backend, BackendId, HandOff};
use crate::direct::Promises;
use crate::leg::Legs;
use crate::sids::Owner;
use crate::tally::Tally;

/// A worker and what the front door remembers of it.
pub(crate) struct Member {
    pub(crate) id: BackendId,
    pub(crate) abilities: Abilities,
    /// As the owner of learned sessions.
    pub(crate) owner: Arc<Owner>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) legs: Arc<Legs>,
    draining: AtomicBool,
    /// New sessions sent there so far.
    placed: AtomicU64,
    /// The same, when it was last settled.
    settled: AtomicU64,
    /// Socket.IO websockets that run through a leg.
    relayed: AtomicU32,
    /// Clients that were told to come to its own door.
    pub(crate) promised: Promises,
    pub(crate) tally: Tally,
    in_flight: AtomicUsize,
    quiet: Notify,
}

impl Member {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            id: backend.id(),
            abilities: backend.abilities(),
            owner: Arc::new(Owner::new(backend.id())),
            relayed: AtomicU32::new(0),
            promised: Promises::default(),
            tally: Tally::default(),
            placed: AtomicU64::new(backend.placements_seen()),
            settled: AtomicU64::new(u64::MAX),
            backend,
            legs: Arc::default(),
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            quiet: Notify::new(),
        }
    }

    /// Takes new sessions.
    pub(crate) fn is_open(&self) -> bool {
        !self.draining.load(Ordering::SeqCst)
    }

    /// The sessions it reported, those we know of ourselves, and those sent there since.
    pub(crate) fn load(&self) -> u64 {
        let placed = self.placed.load(Ordering::Relaxed);
        // The report may be ahead of us for a moment.
        let unseen = placed.saturating_sub(self.backend.placements_seen());
        let known = u64::from(self.owner.polling()) + u64::from(self.relayed());
        u64::from(self.backend.sessions()) + known + unseen + self.promised.count()
    }

    /// Forgets sessions that were sent there and never arrived (their client left too early), once none has been sent for
    /// as long as it takes to report one. Otherwise each would weigh on the worker for ever.
    fn settle(&self) {
        let placed = self.placed.load(Ordering::Relaxed);
        if self.settled.swap(placed, Ordering::Relaxed) == placed {
            let seen = self.backend.placements_seen();
            let _ = self.placed.compare_exchange(placed, seen, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Requests it is working on for us.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst) as u64
    }

    pub(crate) fn place(&self) {
        self.placed.fetch_add(1, Ordering::Relaxed);
    }

    /// A session that was to be placed never reached the worker.
    pub(crate) fn unplace(&self) {
        let seen = self.backend.placements_seen();
        // Unless it was settled meanwhile: then it was taken back already.
        let taken_back = |placed: u64| (placed > seen).then(|| placed - 1);
        let _ = self.placed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken_back);
    }

    /// Passes a connection on, unless the worker does not take it now.
    pub(crate) fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
        let places = connection.places;
        self.backend.hand_over(connection)?;
        self.backend.touched();
        self.tally.handed_off.add();
        if places {
            self.tally.handshakes.add();
        }
        Ok(())
    }

    pub(crate) fn relayed(&self) -> u32 {
        self.relayed.load(Ordering::Relaxed)
    }

    /// Its process is gone, or it is retired.
    pub(crate) fn end(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.owner.is_gone_now();
        self.legs.close();
    }
}

/// A new session on its way to a worker. Dropped, it is taken back, unless it is known by then that it arrived.
pub(crate) struct Placed(Option<Arc<Member>>);

impl Placed {
    pub(crate) fn new(member: &Arc<Member>) -> Self {
        member.place();
        Self(Some(member.clone()))
    }

    /// The worker reports its sessions itself.
    pub(crate) fn is_reported(&self) -> bool {
        self.0.as_ref().is_some_and(|member| member.abilities.tells_sessions)
    }

    /// The worker has it, and will report it.
    pub(crate) fn arrived(mut self) {
        self.0 = None;
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(member) = &self.0 {
            member.unplace();
        }
    }
}

/// A session's websocket that runs through a leg.
pub(crate) struct Relayed(Arc<Member>);

impl Relayed {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        member.relayed.fetch_add(1, Ordering::Relaxed);
        Self(member)
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.0.relayed.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request a worker is working on.
pub(crate) struct InFlight(pub(crate) Arc<Member>);

impl InFlight {
    /// Ask [`Member::is_open`] afterwards: either it tells of a drain, or who retires the worker sees this request. Both
    /// are sequentially consistent for that.
    pub(crate) fn new(member: Arc<Member>) -> Self {
        member.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(member)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && !self.0.is_open() {
            self.0.quiet.notify_waiters();
        }
    }
}

/// All workers of an app.
#[derive(Default)]
pub(crate) struct Members {
    list: RwLock<Vec<Arc<Member>>>,
    arrived: Notify,
}

impl Members {
    pub(crate) fn add(&self, backend: Arc<dyn Backend>) {
        let member = Arc::new(Member::new(backend));
        let mut list = self.list.write();
        list.retain(|old| old.id != member.id);
        list.push(member);
        drop(list);
        self.arrived.notify_waiters();
    }

    pub(crate) fn find(&self, id: BackendId) -> Option<Arc<Member>> {
        self.list.read().iter().find(|member| member.id == id).cloned()
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&[Arc<Member>]) -> T) -> T {
        look(&self.list.read())
    }

    pub(crate) fn drain(&self, id: BackendId) {
        if let Some(member) = self.find(id) {
            member.draining.store(true, Ordering::SeqCst);
        }
    }

    pub(crate) fn lost(&self, id: BackendId) {
        if let Some(member) = self.find(id) {
            self.remove(&member);
            member.end();
        }
    }

    pub(crate) async fn retire(&self, id: BackendId, timeout: Duration) {
        let Some(member) = self.find(id) else { return };
        member.draining.store(true, Ordering::SeqCst);
        let quiet = async {
            loop {
                let notified = member.quiet.notified();
                let mut notified = std::pin::pin!(notified);
                notified.as_mut().enable();
                if member.in_flight() == 0 {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(timeout, quiet).await;
        self.remove(&member);
        member.end();
    }

    /// This one, and not another of the same name: a worker that closed its server may have come back meanwhile.
    fn remove(&self, gone: &Arc<Member>) {
        self.list.write().retain(|member| !Arc::ptr_eq(member, gone));
    }

    /// Waits until a worker takes new sessions. `false` when the time is over.
    pub(crate) async fn wait(&self, deadline: tokio::time::Instant) -> bool {
        let arrived = async {
            loop {
                let notified = self.arrived.notified();
                let mut notified = std::pin::pin!(notified);
                notified.as_mut().enable();
                if self.with(|list| list.iter().any(|member| member.is_open())) {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout_at(deadline, arrived).await.is_ok()
    }

    /// A period of promises is over.
    pub(crate) fn age_promises(&self) {
        self.with(|list| list.iter().for_each(|member| member.promised.age()));
    }

    /// Closes idle legs. `settle`: at most as often as workers report their load.
    pub(crate) fn sweep(&self, age: Duration, settle: bool) {
        self.with(|list| {
            for member in list {
                member.legs.sweep(age);
                if settle {
                    member.settle();
                }
            }
        });
    }
}
