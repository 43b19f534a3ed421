//! The one that decides. It owns the state of all apps; executors report to it, operations ask it, and nobody else
//! changes anything.
//!
//! Operations (`ops/`) are sequences of steps with waiting in between. Each step runs here, whole, by [`Dispatcher::run`];
//! the waiting is done outside, on what the step gave back. So no two decisions ever interleave.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use sundew_nodes::Nodes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{Failure, FailureKind, LastExit, Status};
use crate::ecosystem::Kind;
use crate::link::Link;
use crate::logs::Hub;
use crate::node::drain::Leaver;
use crate::policy::Verdict;
use crate::proc::Sampler;
use crate::records::Records;
use crate::state::{App, Role, backend_id};
use crate::worker::{Phase, Report, Stop, WorkerId};
use crate::{Home, bind, exit, worker};

/// Reports and steps that may wait.
const INPUTS: usize = 256;

type StepFn = Box<dyn FnOnce(&mut State) + Send>;

/// What the dispatcher works off, one at a time.
pub(crate) enum Input {
    Step(StepFn),
    Report(WorkerId, Report),
    /// The name in a worker's `Listen` was looked up.
    Resolved {
        id: WorkerId,
        listen: u64,
        asked: String,
        addr: Result<std::net::SocketAddr, String>,
    },
    /// A restart delay is over.
    Due {
        app: String,
        slot: u16,
        epoch: u64,
    },
}

/// How to reach the dispatcher.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    inputs: mpsc::Sender<Input>,
}

/// The dispatcher's own.
pub(crate) struct State {
    pub(crate) home: Home,
    pub(crate) apps: BTreeMap<String, App>,
    /// Which app a worker belongs to.
    pub(crate) owners: HashMap<WorkerId, String>,
    pub(crate) next_worker: u64,
    pub(crate) next_pm_id: u32,
    pub(crate) hub: Hub,
    pub(crate) sampler: Sampler,
    pub(crate) records: Records,
    pub(crate) inputs: mpsc::Sender<Input>,
    /// The other hosts, in a cluster of several.
    pub(crate) nodes: Option<Nodes>,
    /// The script Node workers load first; none if it could not be written.
    pub(crate) preload: Option<String>,
    /// In the foreground: lines go to the standard output, and to files only if configured.
    pub(crate) foreground: bool,
    /// Whether any process is up or will be.
    pub(crate) alive: watch::Sender<bool>,
    /// The daemon ends: nothing is started any more.
    pub(crate) ending: bool,
}

impl Dispatcher {
    /// Starts it in the current runtime.
    pub(crate) fn start(home: Home, foreground: bool) -> Self {
        let (inputs, mut waiting) = mpsc::channel(INPUTS);
        let preload = crate::node::preload::write(&home);
        if let Err(error) = &preload {
            tracing::error!(%error, "cannot write the preload script: Node workers see no client address but in X-Forwarded-For");
        }
        let preload = preload.ok().and_then(|path| path.into_os_string().into_string().ok());
        let mut state = State {
            preload,
            nodes: None,
            records: Records::new(home.processes()),
            home,
            apps: BTreeMap::new(),
            owners: HashMap::new(),
            next_worker: 0,
            next_pm_id: 0,
            hub: Hub::new(),
            sampler: Sampler::default(),
            inputs: inputs.clone(),
            foreground,
            alive: watch::channel(false).0,
            ending: false,
        };
        tokio::spawn(async move {
            while let Some(input) = waiting.recv().await {
                match input {
                    Input::Step(step) => step(&mut state),
                    Input::Report(id, report) => state.report(id, report),
                    Input::Resolved { id, listen, asked, addr } => state.listen(id, listen, asked, addr),
                    Input::Due { app, slot, epoch } => state.due(&app, slot, epoch),
                }
                state.note_alive();
            }
        });
        Self { inputs }
    }

    /// Runs one step of an operation.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, answer) = oneshot::channel();
        let step = Box::new(move |state: &mut State| drop(sender.send(step(state))));
        let gone = || Failure::new(FailureKind::Leaving, "the daemon is leaving");
        self.inputs.send(Input::Step(step)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl State {
    fn note_alive(&self) {
        let alive = self.apps.values().flat_map(|app| app.slots.values()).any(crate::state::Slot::is_alive);
        self.alive.send_if_modified(|before| std::mem::replace(before, alive) != alive);
    }

    pub(crate) fn report(&mut self, id: WorkerId, report: Report) {
        // Its app was deleted, or its end was reported before: nothing waits for this.
        let Some(name) = self.owners.get(&id).cloned() else { return };
        let Some(app) = self.apps.get_mut(&name) else { return };
        match report {
            Report::Exited(exit) => self.exited(&name, id, exit),
            Report::Meshed => self.meshed(&name, id),
            Report::Late => self.late(&name, id),
            Report::Hello => {
                if let Some(worker) = app.worker_mut(id) {
                    worker.said_hello = true;
                }
            }
            Report::Listen { id: listen, addr } => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let resolved = bind::resolve(&addr).await;
                    let _ = inputs.send(Input::Resolved { id, listen, asked: addr, addr: resolved }).await;
                });
            }
            Report::Ready => {
                let serving = app.serving();
                let Some(worker) = app.worker_mut(id) else { return };
                if std::mem::replace(&mut worker.ready, true) {
                    return;
                }
                // Only native workers are joined with each other; the others serve at once.
                let Link::Native(native) = worker.link.clone() else { return self.meshed(&name, id) };
                let complete = app.mesh.complete(&native, &serving);
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    if !complete.await {
                        tracing::warn!(app = name, worker = ?native.peer_id(), "not all workers were joined in time");
                    }
                    let _ = inputs.send(Input::Report(id, Report::Meshed)).await;
                });
            }
            Report::Disconnected => {
                let Some(worker) = app.worker(id) else { return };
                app.lose(worker);
                if worker.config.kind == Kind::None {
                    // A Node program on its own: it may do without.
                    return;
                }
                // Most likely it is ending; if not, it is of no use any more.
                let stop = worker.stop.clone();
                let patience = match worker.leaves {
                    true => Duration::from_millis(worker.config.sundew.drain_timeout),
                    false => Duration::from_secs(1),
                };
                tokio::spawn(async move {
                    tokio::time::sleep(patience).await;
                    stop.send_if_modified(|stop| {
                        std::mem::replace(stop, Stop::Gently.max(*stop)) < Stop::Gently
                    });
                });
            }
            Report::Said(said) => self.said(&name, id, said),
            Report::Hung(silent) => {
                let Some(worker) = app.worker_mut(id) else { return };
                let silent = exit::shown(silent);
                let blame = format!("its event loop did not answer for {silent} (hungRestart): restarted");
                tracing::error!(app = name, slot = worker.slot, pid = worker.pid, "{blame}");
                worker.blame = Some(blame);
                worker.stop(Stop::Now);
            }
            Report::Retired => {
                if let Some(worker) = app.worker(id) {
                    worker.stop(Stop::Gently);
                }
            }
        }
    }

    /// A worker is ready and joined with the others: it serves from now on.
    fn meshed(&mut self, name: &str, id: WorkerId) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let inputs = self.inputs.clone();
        let index = match app.role(id) {
            Some(Role::Current(index) | Role::Incoming(index)) => index,
            _ => return,
        };
        let Some(slot) = app.slots.get_mut(&index) else { return };
        let replaces = slot.incoming.as_ref().is_some_and(|worker| worker.id == id);
        // Told to stop meanwhile: it must get nothing any more.
        let worker = if replaces { &slot.incoming } else { &slot.current };
        if worker.as_ref().is_none_or(|worker| *worker.stop.borrow() != Stop::Not) {
            return;
        }
        let old = if replaces { std::mem::replace(&mut slot.current, slot.incoming.take()) } else { None };
        let Some(new) = &mut slot.current else { return };
        new.routed = new.config.kind != Kind::None;
        let started_at = new.started_at;
        slot.config = new.config.clone();
        slot.status = Status::Online;
        slot.reason = None;
        slot.started_at = Some(started_at);
        new.phase.send_replace(Phase::Online);
        if replaces {
            slot.restarts += 1;
            slot.policy.reset();
        }
        // The new one first: there is no moment without a worker for new sessions.
        if let Some(new) = app.slots.get(&index).and_then(|slot| slot.current.as_ref()) {
            app.open_doors(new);
        }
        if let Some(old) = old {
            let timeout = std::time::Duration::from_millis(old.config.sundew.drain_timeout);
            app.leave(old, timeout, inputs);
        }
    }

    /// A process is gone.
    fn exited(&mut self, name: &str, id: WorkerId, exit: LastExit) {
        self.owners.remove(&id);
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(role) = app.role(id) else { return };
        if let Some(worker) = app.worker(id) {
            app.lose(worker);
            self.sampler.forget(worker.pid);
            self.records.remove(worker.pid);
        }
        match role {
            Role::Leaving => {
                if let Some(index) = app.leaving.iter().position(|leaving| leaving.worker.id == id) {
                    let leaving = app.leaving.remove(index);
                    leaving.worker.phase.send_replace(Phase::Over(exit.text));
                }
                app.close_if_stopped();
            }
            Role::Incoming(index) => {
                let Some(slot) = app.slots.get_mut(&index) else { return };
                let Some(worker) = slot.incoming.take() else { return };
                let why = worker
                    .fatal
                    .clone()
                    .unwrap_or_else(|| format!("{}{}", exit.text, worker.recent.explain()));
                let alone = slot.current.is_none() && slot.is_alive() && slot.status != Status::Stopping;
                if alone {
                    // The old one died meanwhile: the slot goes on as it would have without the reload.
                    self.start_again(name, index, Verdict::Restart(std::time::Duration::ZERO));
                }
                worker.phase.send_replace(Phase::Over(why));
                // Stopped amid a reload, and the old one was the first to leave.
                if let Some(app) = self.apps.get_mut(name) {
                    app.close_if_stopped();
                }
            }
            Role::Current(index) => self.current_exited(name, index, exit),
        }
        if let Some(app) = self.apps.get_mut(name) {
            app.close_unused();
            app.close_spare_doors();
        }
    }

    fn current_exited(&mut self, name: &str, index: u16, exit: LastExit) {
        let ending = self.ending;
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(slot) = app.slots.get_mut(&index) else { return };
        let Some(worker) = slot.current.take() else { return };
        let exit = match &worker.blame {
            Some(blame) => LastExit { text: format!("{} ({blame})", exit.text), ..exit },
            None => exit,
        };
        slot.last_exit = Some(exit.clone());
        let uptime = worker.started.elapsed();
        let mut why = format!("{}{}", exit.text, worker.recent.explain());
        if slot.status == Status::Stopping {
            slot.status = Status::Stopped;
            slot.reason = None;
            if std::mem::take(&mut slot.again) && !ending {
                slot.policy.reset();
                slot.restarts += 1;
                self.launch(name, index);
            } else {
                app.close_if_stopped();
            }
        } else if let Some(reason) = worker.fatal.clone() {
            slot.status = Status::Errored;
            slot.reason = Some(reason.clone());
            why = reason;
        } else {
            let verdict = slot.policy.exited(&worker.config, exit.code, uptime);
            tracing::warn!(app = name, slot = index, pid = worker.pid, "{}", exit.text);
            if slot.incoming.is_none() {
                self.start_again(name, index, verdict);
            } else {
                slot.status = Status::Launching;
            }
        }
        worker.phase.send_replace(Phase::Over(why));
    }

    fn start_again(&mut self, name: &str, index: u16, verdict: Verdict) {
        let ending = self.ending;
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(slot) = app.slots.get_mut(&index) else { return };
        slot.cancel_restart();
        match verdict {
            Verdict::Stop => {
                slot.status = Status::Stopped;
                app.close_if_stopped();
            }
            Verdict::GiveUp { reason } => {
                tracing::error!(app = name, slot = index, "errored: {reason}");
                slot.status = Status::Errored;
                slot.reason = Some(reason);
            }
            Verdict::Restart(_) if ending => slot.status = Status::Stopped,
            Verdict::Restart(delay) if delay.is_zero() => {
                slot.restarts += 1;
                self.launch(name, index);
            }
            Verdict::Restart(delay) => {
                slot.status = Status::WaitingRestart;
                slot.restart_at = Some(Instant::now() + delay);
                let due = Input::Due { app: name.to_owned(), slot: index, epoch: slot.epoch };
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = inputs.send(due).await;
                });
            }
        }
    }

    fn due(&mut self, name: &str, index: u16, epoch: u64) {
        let Some(slot) = self.apps.get_mut(name).and_then(|app| app.slots.get_mut(&index)) else { return };
        if slot.epoch == epoch && slot.status == Status::WaitingRestart && !self.ending {
            slot.restarts += 1;
            self.launch(name, index);
        }
    }
}

impl App {
    /// Takes a worker out of the choice for new sessions and lets it keep its own for `timeout`.
    pub(crate) fn leave(
        &mut self,
        worker: crate::worker::Worker,
        timeout: std::time::Duration,
        inputs: mpsc::Sender<Input>,
    ) {
        let (deadline, changes) = tokio::sync::watch::channel(tokio::time::Instant::now() + timeout);
        self.drain(&worker);
        let let_go = worker.config.sundew.let_go;
        match worker.link.clone() {
            Link::Native(native) if worker.routed => {
                tokio::spawn(worker::drain(worker.id, native, self.front.clone(), let_go, changes, inputs));
            }
            link @ (Link::Node(_) | Link::Port(_)) if worker.routed => {
                let (backend, doors) = (backend_id(&worker), self.fronts(&worker));
                let leaver = Leaver { id: worker.id, backend, node: link.node().cloned(), doors, let_go };
                tokio::spawn(crate::node::drain::drain(leaver, changes, inputs));
            }
            _ => worker.stop(Stop::Gently),
        }
        self.leaving.push(crate::state::Leaving { worker, deadline });
    }
}
