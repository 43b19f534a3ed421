//! What the dispatcher holds: apps, their slots, the workers in them. Plain data and the questions it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use sundew_channel::tag::TagKey;
use sundew_router::{BackendId, Front, FrontConfig, ListenerHandle, Serve};
use tokio::sync::watch;

use crate::api::{LastExit, Status};
use crate::bind::Address;
use crate::direct::OwnDoor;
use crate::ecosystem::AppConfig;
use crate::link::Link;
use crate::mesh::Mesh;
use crate::native::Native;
use crate::node::door::Door;
use crate::node::hub::Hub;
use crate::policy::Policy;
use crate::site::Shared;
use crate::tls::Secure;
use crate::worker::{Stop, Worker, WorkerId};

/// One process of one app, by what stays the same when it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) pm_id: u32,
    pub(crate) app: String,
    pub(crate) slot: u16,
}

/// An app.
pub(crate) struct App {
    pub(crate) config: Arc<AppConfig>,
    pub(crate) slots: BTreeMap<u16, Slot>,
    /// The next worker of each slot there ever was.
    pub(crate) generations: BTreeMap<u16, u8>,
    /// Workers that were replaced or scaled away and still hold sessions.
    pub(crate) leaving: Vec<Leaving>,
    /// The front door of native workers and of programs with a port. A Node app has one per address instead.
    pub(crate) front: Front,
    pub(crate) front_config: FrontConfig,
    pub(crate) listening: Vec<Listening>,
    /// The ports of single slots.
    pub(crate) doors: BTreeMap<u16, OwnDoor>,
    /// TLS, while the app listens.
    pub(crate) secure: Option<Secure>,
    /// Of Node workers: what carries their broadcasts, and who gets which number.
    pub(crate) hub: Arc<Hub>,
    pub(crate) next_unique_id: u64,
    /// UDP ports of Node workers, which share them.
    pub(crate) datagrams: BTreeMap<String, std::net::UdpSocket>,
    pub(crate) mesh: Mesh,
    pub(crate) tag_key: TagKey,
    /// It was made in a cluster of several hosts.
    pub(crate) clustered: bool,
    /// Held by the operation under way: a second one waits.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    /// Changes when an operation ends the one under way.
    pub(crate) interrupt: watch::Sender<u64>,
}

/// A place of an app.
pub(crate) struct Slot {
    pub(crate) pm_id: u32,
    pub(crate) status: Status,
    pub(crate) config: Arc<AppConfig>,
    pub(crate) current: Option<Worker>,
    /// The worker that is to replace it.
    pub(crate) incoming: Option<Worker>,
    /// Start again as soon as the worker that was told to leave is gone.
    pub(crate) again: bool,
    pub(crate) policy: Policy,
    pub(crate) restarts: u32,
    pub(crate) created_at: SystemTime,
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) last_exit: Option<LastExit>,
    pub(crate) reason: Option<String>,
    pub(crate) restart_at: Option<Instant>,
    /// Changes with every decision about starting: a timer of an older one does nothing.
    pub(crate) epoch: u64,
    pub(crate) lost_lines: Arc<AtomicU64>,
}

/// A worker on its way out.
pub(crate) struct Leaving {
    pub(crate) worker: Worker,
    pub(crate) deadline: watch::Sender<tokio::time::Instant>,
}

/// The name under which workers that take `sticky:connection` share an address.
pub(crate) const STICKY: &str = "sticky";

/// An address of an app.
pub(crate) struct Listening {
    /// As the worker wrote it, or Node's name for it.
    pub(crate) asked: String,
    pub(crate) addr: Address,
    pub(crate) handle: ListenerHandle,
    /// Where its connections go.
    pub(crate) front: Front,
    pub(crate) serve: Serve,
    /// Other apps may be there, too.
    pub(crate) shared: Option<Shared>,
    /// Whoever resumes a TLS session may do so at any worker: all use the first one's keys.
    pub(crate) ticket_keys: Option<String>,
}

/// Where a worker is.
pub(crate) enum Role {
    Current(u16),
    Incoming(u16),
    Leaving,
}

impl Listening {
    /// Accepts no more. A path is free again.
    pub(crate) fn close(&self) {
        self.handle.stop();
        if let Some(shared) = &self.shared {
            shared.site.leave(&self.front);
        }
        if let Address::Unix(path) = &self.addr {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Slot {
    pub(crate) fn new(pm_id: u32, config: Arc<AppConfig>) -> Self {
        Self {
            pm_id,
            status: Status::Stopped,
            config,
            current: None,
            incoming: None,
            again: false,
            policy: Policy::default(),
            restarts: 0,
            created_at: SystemTime::now(),
            started_at: None,
            last_exit: None,
            reason: None,
            restart_at: None,
            epoch: 0,
            lost_lines: Arc::default(),
        }
    }

    /// A process is there or will be without anybody asking.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.status, Status::Stopped | Status::Errored)
    }

    pub(crate) fn cancel_restart(&mut self) {
        self.epoch += 1;
        self.restart_at = None;
    }
}

impl App {
    pub(crate) fn role(&self, id: WorkerId) -> Option<Role> {
        let is = |worker: &Option<Worker>| worker.as_ref().is_some_and(|worker| worker.id == id);
        for (index, slot) in &self.slots {
            if is(&slot.current) {
                return Some(Role::Current(*index));
            }
            if is(&slot.incoming) {
                return Some(Role::Incoming(*index));
            }
        }
        self.leaving.iter().any(|leaving| leaving.worker.id == id).then_some(Role::Leaving)
    }

    pub(crate) fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers().find(|worker| worker.id == id)
    }

    pub(crate) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        let slots = self.slots.values_mut().flat_map(|slot| [slot.current.as_mut(), slot.incoming.as_mut()]);
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.worker);
        slots.flatten().chain(leaving).find(|worker| worker.id == id)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Worker> {
        let slots = self.slots.values().flat_map(|slot| [slot.current.as_ref(), slot.incoming.as_ref()]);
        slots.flatten().chain(self.leaving.iter().map(|leaving| &leaving.worker))
    }

    /// The workers that have sessions or may get them.
    pub(crate) fn serving(&self) -> Vec<Arc<Native>> {
        let routed = self.workers().filter(|worker| worker.routed);
        routed.filter_map(|worker| worker.link.native().cloned()).collect()
    }

    pub(crate) fn lowest_free_slot(&self) -> Option<u16> {
        (0..=u16::from(u8::MAX)).find(|index| !self.slots.contains_key(index))
    }

    /// Nothing runs and nothing will without being asked for: the addresses are free again. Whoever was scaled away
    /// before has no address to be reached at any more either.
    pub(crate) fn close_if_stopped(&mut self) {
        if self.slots.values().all(|slot| slot.status == Status::Stopped && slot.incoming.is_none()) {
            self.close_listeners();
            self.leaving.iter().for_each(|leaving| leaving.worker.stop(Stop::Gently));
        }
    }

    /// Closes the addresses no worker asks for any more, while there are workers that serve: an app that was given another
    /// port. Addresses of an app whose workers are all away stay, for those to come.
    pub(crate) fn close_unused(&mut self) {
        if !self.workers().any(|worker| worker.routed && !worker.listens.is_empty()) {
            return;
        }
        let used: Vec<String> = self.workers().flat_map(|worker| worker.listens.iter().cloned()).collect();
        self.listening.retain(|listening| {
            let keep = used.contains(&listening.asked);
            if !keep {
                tracing::info!(addr = %listening.addr, "no worker listens here any more: closed");
                listening.close();
            }
            keep
        });
        self.move_doors();
        self.secure_again();
        let asked: Vec<&String> = self.workers().flat_map(|worker| &worker.asked).collect();
        let idle: Vec<String> = self.datagrams.keys().filter(|key| !asked.contains(key)).cloned().collect();
        idle.iter().for_each(|key| drop(self.datagrams.remove(key)));
    }

    /// TLS goes where the app is served first: a Node app may have given that up for another port.
    fn secure_again(&mut self) {
        let here = self.listening.iter().find(|here| here.serve == Serve::Http);
        match (here, &mut self.secure) {
            (Some(here), Some(secure)) => {
                let site = here.shared.as_ref().map(|shared| &shared.site);
                secure.move_to(&self.config.name, &here.front, site);
            }
            (None, secure) => *secure = None,
            _ => {}
        }
    }

    pub(crate) fn close_listeners(&mut self) {
        self.secure = None;
        for listening in self.listening.drain(..) {
            listening.close();
        }
        self.close_doors();
        self.datagrams.clear();
    }

    /// The front door must not use this worker any more; what it had not taken is routed again.
    pub(crate) fn lose(&self, worker: &Worker) {
        for front in self.fronts(worker) {
            front.lost(backend_id(worker));
        }
        for connection in worker.link.close() {
            self.front.reroute(connection, None);
        }
    }

    /// The front doors a worker is, or will be, known at.
    pub(crate) fn fronts(&self, worker: &Worker) -> Vec<Front> {
        match &worker.link {
            Link::Off => Vec::new(),
            Link::Native(_) | Link::Port(_) => vec![self.front.clone()],
            Link::Node(_) => {
                let served = self.listening.iter().filter(|here| worker.listens.contains(&here.asked));
                served.map(|here| here.front.clone()).collect()
            }
        }
    }

    /// Every front door of the app.
    pub(crate) fn all_fronts(&self) -> Vec<Front> {
        let mut all = vec![self.front.clone()];
        for here in &self.listening {
            if !all.iter().any(|front| front.is_same(&here.front)) {
                all.push(here.front.clone());
            }
        }
        all
    }

    /// The worker serves from now on.
    pub(crate) fn open_doors(&self, worker: &Worker) {
        match &worker.link {
            Link::Off => {}
            Link::Native(native) => self.front.add(native.clone()),
            Link::Port(port) => self.front.add(port.clone()),
            Link::Node(_) => worker.listens.iter().for_each(|asked| self.open_door(worker, asked)),
        }
    }

    /// One server of a Node worker serves from now on.
    pub(crate) fn open_door(&self, worker: &Worker, asked: &str) {
        let Some(node) = worker.link.node() else { return };
        let Some(here) = self.listening.iter().find(|here| here.asked == asked) else { return };
        let key = (asked != STICKY).then(|| asked.to_owned());
        node.at_door(here.front.clone());
        here.front.add(Door::new(node.clone(), key, here.front.clone()));
    }

    /// No new session to this worker.
    pub(crate) fn drain(&self, worker: &Worker) {
        for front in self.fronts(worker) {
            front.drain(backend_id(worker));
        }
    }
}

pub(crate) fn backend_id(worker: &Worker) -> BackendId {
    BackendId { slot: worker.slot, generation: worker.generation }
}
