//! Starting and stopping the workers of a slot: the dispatcher's steps that touch processes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sundew_router::BackendId;
use tokio::sync::watch;

use crate::api::{Status, Stream};
use crate::dispatcher::{Input, State};
use crate::ecosystem::{AppConfig, Kind, LogFile, LogFormat};
use crate::link::Link;
use crate::logs::{self, DateFormat, Recent, Source};
use crate::spawn::{self, Identity};
use crate::state::Slot;
use crate::worker::{self, Execution, Phase, Report, Stop, Worker, WorkerId};
use crate::{Home, exit, node, port};

impl State {
    /// Starts the worker of a slot that has none. A program that cannot be started leaves the slot errored.
    pub(crate) fn launch(&mut self, name: &str, index: u16) -> watch::Receiver<Phase> {
        let Some(config) = self.slot_config(name, index) else { return over("there is no such process") };
        if let Some(slot) = self.apps.get_mut(name).and_then(|app| app.slots.get_mut(&index)) {
            slot.cancel_restart();
            slot.status = Status::Launching;
            slot.reason = None;
        }
        self.supersede(name, index, |slot| slot.current.take());
        let started = self.spawn(name, index, config);
        let Some(slot) = self.apps.get_mut(name).and_then(|app| app.slots.get_mut(&index)) else {
            return over("there is no such process");
        };
        match started {
            Ok(worker) => {
                slot.started_at = Some(worker.started_at);
                // Nothing tells when a program is up that is supervised only, unless it says "ready" itself.
                if worker.ready {
                    slot.status = Status::Online;
                    worker.phase.send_replace(Phase::Online);
                }
                let phase = worker.phase.subscribe();
                slot.current = Some(worker);
                phase
            }
            Err(reason) => {
                tracing::error!(app = name, slot = index, "{reason}");
                slot.status = Status::Errored;
                slot.last_exit = Some(exit::not_started(reason.clone()));
                slot.reason = Some(reason.clone());
                over(&reason)
            }
        }
    }

    /// Starts a worker that is to replace the slot's. It serves once it is ready, without anybody asking.
    pub(crate) fn replace(
        &mut self,
        name: &str,
        index: u16,
        config: Arc<AppConfig>,
    ) -> watch::Receiver<Phase> {
        self.supersede(name, index, |slot| slot.incoming.take());
        let started = self.spawn(name, index, config);
        let slot = self.apps.get_mut(name).and_then(|app| app.slots.get_mut(&index));
        match (started, slot) {
            (Ok(worker), Some(slot)) => {
                let phase = worker.phase.subscribe();
                slot.incoming = Some(worker);
                phase
            }
            (Err(reason), _) => over(&reason),
            (Ok(_), None) => over("there is no such process"),
        }
    }

    /// A worker that came between two steps of an operation (a restart timer, a reload that was ended) makes room. It is
    /// told to leave and seen to its end as any other: simply forgotten, it would stay known at the front door.
    fn supersede(&mut self, name: &str, index: u16, take: impl FnOnce(&mut Slot) -> Option<Worker>) {
        let inputs = self.inputs.clone();
        let Some(app) = self.apps.get_mut(name) else { return };
        if let Some(worker) = app.slots.get_mut(&index).and_then(take) {
            app.leave(worker, Duration::ZERO, inputs);
        }
    }

    fn slot_config(&self, name: &str, index: u16) -> Option<Arc<AppConfig>> {
        Some(self.apps.get(name)?.slots.get(&index)?.config.clone())
    }

    fn spawn(&mut self, name: &str, index: u16, config: Arc<AppConfig>) -> Result<Worker, String> {
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let (foreground, home) = (self.foreground, self.home.clone());
        let log_file = |pm_id, stream| log_file(&config, &home, foreground, pm_id, stream);
        let app = self.apps.get_mut(name).ok_or("there is no such app")?;
        let next = app.generations.entry(index).or_insert(0);
        let generation = *next;
        *next = next.wrapping_add(1);
        let slot = app.slots.get(&index).ok_or("there is no such process")?;
        let (pm_id, restarts, lost) = (slot.pm_id, slot.restarts, slot.lost_lines.clone());

        let (link, inheritance) = self.connect(name, BackendId { slot: index, generation }, &config)?;
        let identity = Identity { pm_id, slot: index, restarts };
        let mut child = spawn::spawn(&config, identity, &self.home, inheritance, crate::reap::know)?;
        let pid = child.id().unwrap_or(0);
        let (started, started_at) = (Instant::now(), SystemTime::now());
        tracing::info!(app = name, slot = index, generation, pid, "started");

        let recent = Arc::new(Recent::default());
        let date = config.log_date_format.as_deref().filter(|format| !format.is_empty()).map(DateFormat::new);
        let source = |stream| Source {
            name: name.to_owned(),
            pm_id,
            stream,
            file: log_file(pm_id, stream),
            date: date.clone(),
            json: config.log_format == LogFormat::Json,
            hub: self.hub.clone(),
            lost: lost.clone(),
            recent: (stream == Stream::Err).then(|| recent.clone()),
            console: self.foreground,
        };
        let out = child.stdout.take().map(|pipe| tokio::spawn(logs::pump(pipe, source(Stream::Out))));
        let err = child.stderr.take().map(|pipe| tokio::spawn(logs::pump(pipe, source(Stream::Err))));

        let (phase, _) = watch::channel(Phase::Launching);
        let (stop, stopped) = watch::channel(Stop::Not);
        let execution = Execution {
            id,
            child,
            started,
            kill_timeout: Duration::from_millis(config.kill_timeout),
            tree: config.treekill,
            message: link.node().filter(|_| config.shutdown_with_message).cloned(),
            stop: stopped,
            pumps: [out, err].into_iter().flatten().collect(),
            inputs: self.inputs.clone(),
        };
        tokio::spawn(execution.run());
        let front = self.apps.get(name).map(|app| app.front.clone());
        match (&link, front) {
            (Link::Native(native), Some(front)) => {
                tokio::spawn(worker::listen(id, native.clone(), front.downgrade(), self.inputs.clone()));
                let running = native.clone();
                tokio::spawn(async move {
                    if let Some(connection) = running.run().await {
                        front.reroute(connection, None);
                    }
                });
            }
            (Link::Node(node), _) => {
                node.runs_as(pid);
                tokio::spawn(node::listen::listen(id, node.clone(), self.inputs.clone()));
                let running = node.clone();
                tokio::spawn(async move { running.channel().run().await });
                let running = node.clone();
                tokio::spawn(async move { running.read_verdicts().await });
                if config.kind == Kind::Node {
                    tokio::spawn(node::pulse::watch(id, node.clone(), self.inputs.clone()));
                }
            }
            (Link::Port(port), _) => {
                tokio::spawn(port::knock(id, port.clone(), phase.subscribe(), self.inputs.clone()));
            }
            _ => {}
        }
        let ready = match config.kind {
            Kind::None => !(config.wait_ready && link.node().is_some()),
            _ => false,
        };
        if !ready {
            let (inputs, timeout) = (self.inputs.clone(), Duration::from_millis(config.listen_timeout));
            tokio::spawn(async move {
                tokio::time::sleep(timeout).await;
                let _ = inputs.send(Input::Report(id, Report::Late)).await;
            });
        }
        if config.kind != Kind::Native {
            self.records.add(pid, name, config.kill_timeout);
        }
        self.owners.insert(id, name.to_owned());
        Ok(Worker {
            id,
            pid,
            slot: index,
            generation,
            started,
            started_at,
            said_hello: false,
            asked: Vec::new(),
            said_ready: false,
            leaves: false,
            blame: None,
            ready,
            routed: false,
            listens: Vec::new(),
            fatal: None,
            config,
            link,
            recent,
            phase,
            stop,
        })
    }

    /// Where a stream is stored: in the foreground only where the configuration asks for it, as containers want it.
    pub(crate) fn log_file(
        &self,
        config: &AppConfig,
        pm_id: u32,
        stream: Stream,
    ) -> Option<std::path::PathBuf> {
        log_file(config, &self.home, self.foreground, pm_id, stream)
    }

    /// Tells the processes of a slot to leave, and gives what to wait on until they are gone. With `again` the slot
    /// starts anew then.
    pub(crate) fn stop_slot(&mut self, name: &str, index: u16, again: bool) -> Vec<watch::Receiver<Phase>> {
        let Some(app) = self.apps.get_mut(name) else { return Vec::new() };
        if let Some(worker) = app.slots.get(&index).and_then(|slot| slot.current.as_ref()) {
            app.drain(worker);
        }
        let Some(slot) = app.slots.get_mut(&index) else { return Vec::new() };
        slot.cancel_restart();
        slot.again = again;
        let mut waits = Vec::new();
        if let Some(worker) = &slot.incoming {
            // It never served: nothing to be gentle about but its own state.
            worker.stop(Stop::Gently);
            waits.push(worker.phase.subscribe());
        }
        match &slot.current {
            Some(worker) => {
                slot.status = Status::Stopping;
                worker.stop(Stop::Gently);
                waits.push(worker.phase.subscribe());
            }
            None => {
                slot.status = Status::Stopped;
                slot.reason = None;
            }
        }
        for leaving in app.leaving.iter().filter(|leaving| leaving.worker.slot == index) {
            leaving.worker.stop(Stop::Gently);
            waits.push(leaving.worker.phase.subscribe());
        }
        app.close_if_stopped();
        waits
    }

    /// Moves the worker of a slot out of the choice and forgets the slot: what scaling down does.
    pub(crate) fn remove_slot(&mut self, name: &str, index: u16) -> Vec<watch::Receiver<Phase>> {
        let inputs = self.inputs.clone();
        let Some(app) = self.apps.get_mut(name) else { return Vec::new() };
        let Some(mut slot) = app.slots.remove(&index) else { return Vec::new() };
        let mut waits = Vec::new();
        for worker in [slot.incoming.take(), slot.current.take()].into_iter().flatten() {
            waits.push(worker.phase.subscribe());
            let timeout = Duration::from_millis(worker.config.sundew.drain_timeout);
            app.leave(worker, timeout, inputs.clone());
        }
        app.close_spare_doors();
        waits
    }

    /// The replaced workers of an app let go of their sessions now. Gives what to wait on until they are gone.
    pub(crate) fn let_go(&mut self, name: &str) -> Vec<watch::Receiver<Phase>> {
        let Some(app) = self.apps.get(name) else { return Vec::new() };
        app.leaving
            .iter()
            .map(|leaving| {
                leaving.deadline.send_if_modified(|at| {
                    let now = tokio::time::Instant::now();
                    std::mem::replace(at, now.min(*at)) > now
                });
                leaving.worker.phase.subscribe()
            })
            .collect()
    }
}

fn log_file(
    config: &AppConfig,
    home: &Home,
    foreground: bool,
    pm_id: u32,
    stream: Stream,
) -> Option<std::path::PathBuf> {
    let file = if stream == Stream::Err { &config.error_file } else { &config.out_file };
    if foreground && *file == LogFile::Default {
        return None;
    }
    logs::path(config, home, pm_id, stream)
}

/// What to wait on for a process that never was.
fn over(reason: &str) -> watch::Receiver<Phase> {
    watch::channel(Phase::Over(reason.to_owned())).1
}
