//! What the outside is told about apps and processes. Looks, changes nothing but the samples of use.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use sundew_router::{BackendId, FrontStats, WorkerStats};

use crate::api::{
    Description, Draining, Failure, FailureKind, Pm2Env, ProcessInfo, Sessions, Stream, SundewInfo, Target,
    Traffic, WorkerErrors,
};
use crate::dispatcher::State;
use crate::ecosystem::{AppConfig, ExecMode, Kind};
use crate::exit::millis;
use crate::link::Link;
use crate::state::{App, Place, Slot};
use crate::tls::Secure;
use crate::worker::Worker;

impl State {
    /// Every process, by id.
    pub(crate) fn list(&mut self) -> Vec<ProcessInfo> {
        let places = self.places();
        places.iter().filter_map(|place| self.info(place)).collect()
    }

    /// Every place, by id.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = self
            .apps
            .iter()
            .flat_map(|(app, state)| {
                state.slots.iter().map(|(slot, entry)| Place {
                    pm_id: entry.pm_id,
                    app: app.clone(),
                    slot: *slot,
                })
            })
            .collect();
        places.sort();
        places
    }

    /// What a target means now.
    ///
    /// # Errors
    /// When it means nothing: pm2 ends with 1 then, also for `all` of nothing.
    pub(crate) fn resolve(&self, target: &Target) -> Result<Vec<Place>, Failure> {
        let all = self.places();
        let not_found = |message: String| Failure::new(FailureKind::NotFound, message);
        let words = match target {
            Target::All if all.is_empty() => {
                return Err(not_found("no process found: nothing was started".to_owned()));
            }
            Target::All => return Ok(all),
            Target::These(words) => words,
        };
        let mut found: Vec<Place> = Vec::new();
        for word in words {
            let id = word.parse::<u32>().ok();
            let mut these: Vec<&Place> = all.iter().filter(|place| Some(place.pm_id) == id).collect();
            if these.is_empty() {
                these = all.iter().filter(|place| place.app == *word).collect();
            }
            if these.is_empty() {
                let namespace = |place: &&Place| {
                    self.apps.get(&place.app).is_some_and(|app| app.config.namespace == *word)
                };
                these = all.iter().filter(namespace).collect();
            }
            if these.is_empty() {
                let known: Vec<&str> = self.apps.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(not_found(format!(
                    "process or namespace {word:?} not found (there are: {known})"
                )));
            }
            found.extend(these.into_iter().cloned());
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// A process.
    pub(crate) fn info(&mut self, place: &Place) -> Option<ProcessInfo> {
        let app = self.apps.get(&place.app)?;
        let slot = app.slots.get(&place.slot)?;
        let config = &slot.config;
        let worker = slot.current.as_ref();
        let path = |stream| {
            let path = self.log_file(config, slot.pm_id, stream);
            path.map_or_else(|| "/dev/null".to_owned(), |path| path.display().to_string())
        };
        let pm2_env = Pm2Env {
            name: config.name.clone(),
            namespace: config.namespace.clone(),
            status: slot.status,
            restart_time: slot.restarts,
            unstable_restarts: slot.policy.unstable(),
            pm_uptime: slot.started_at.map_or(0, millis),
            created_at: millis(slot.created_at),
            exec_mode: match config.exec_mode {
                ExecMode::Cluster => "cluster_mode".to_owned(),
                ExecMode::Fork => "fork_mode".to_owned(),
            },
            instances: u32::try_from(app.slots.len()).unwrap_or(u32::MAX),
            pm_exec_path: config.script.display().to_string(),
            pm_cwd: config.cwd.display().to_string(),
            pm_out_log_path: path(Stream::Out),
            pm_err_log_path: path(Stream::Err),
            args: config.args.clone(),
            exec_interpreter: config.interpreter.first().cloned().unwrap_or_else(|| "none".to_owned()),
            autorestart: config.autorestart,
            instance: u32::from(place.slot),
            exit_code: slot.last_exit.as_ref().and_then(|exit| exit.code),
        };
        let sundew = sundew_info(app, place.slot, slot);
        let (pid, started) = worker.map_or((0, Instant::now()), |worker| (worker.pid, worker.started));
        let (name, pm_id) = (config.name.clone(), slot.pm_id);
        let monit = if pid == 0 { Default::default() } else { self.sampler.sample(pid, started) };
        Some(ProcessInfo { pid, name, pm_id, pm2_env, monit, sundew })
    }

    /// Everything about some processes.
    pub(crate) fn describe(&mut self, target: &Target) -> Result<Vec<Description>, Failure> {
        let places = self.resolve(target)?;
        let describe = |place: &Place| {
            let process = self.info(place)?;
            let app = self.apps.get(&place.app)?;
            let config = &app.slots.get(&place.slot)?.config;
            let env = config.env.keys().map(|name| (name.clone(), String::new())).collect();
            let config = AppConfig { env, ..AppConfig::clone(config) };
            Some(Description { process, front: front(app), config })
        };
        Ok(places.iter().filter_map(describe).collect())
    }
}

fn sundew_info(app: &App, index: u16, slot: &Slot) -> SundewInfo {
    let worker = slot.current.as_ref();
    let link = worker.map(|worker| &worker.link);
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    SundewInfo {
        slot: index,
        generation: worker.map_or(0, |worker| worker.generation),
        kind: match slot.config.kind {
            Kind::Native => "native".to_owned(),
            Kind::Node => "node".to_owned(),
            Kind::Port => "port".to_owned(),
            Kind::None => "none".to_owned(),
        },
        listening: app.listening.iter().map(|listening| listening.addr.to_string()).collect(),
        direct: app.doors.get(&index).map(|door| door.addr.to_string()),
        tls: app.secure.as_ref().map(Secure::info),
        sessions: worker.map(sessions).unwrap_or_default(),
        traffic: worker.map(|worker| traffic(app, worker)).unwrap_or_default(),
        draining: app.leaving.iter().find(|leaving| leaving.worker.slot == index).map(|leaving| Draining {
            pid: leaving.worker.pid,
            generation: leaving.worker.generation,
            sessions: sessions(&leaving.worker),
            deadline_ms: millis(
                leaving.deadline.borrow().saturating_duration_since(tokio::time::Instant::now()),
            ),
        }),
        last_exit: slot.last_exit.clone(),
        reason: slot.reason.clone(),
        restart_in_ms: slot.restart_at.map(|at| millis(at.saturating_duration_since(Instant::now()))),
        stuck_ms: link.and_then(Link::stuck_for).map(millis),
        unaccepted_ms: link.and_then(Link::oldest_unaccepted).map(millis),
        log_lines_lost: slot.lost_lines.load(Ordering::Relaxed),
    }
}

fn traffic(app: &App, worker: &Worker) -> Traffic {
    let id = BackendId { slot: worker.slot, generation: worker.generation };
    let mut sum = WorkerStats::default();
    for front in app.all_fronts() {
        sum += front.stats_of(id).unwrap_or_default();
    }
    Traffic {
        in_flight: sum.in_flight,
        handing_off: worker.link.unaccepted(),
        handshakes: sum.handshakes,
        handed_off: sum.handed_off,
        proxied: sum.proxied,
        tunnelled: sum.tunnelled,
        errors: WorkerErrors {
            returned: sum.returned,
            unreachable: sum.unreachable,
            unanswered: sum.unanswered,
            invalid: sum.invalid,
            cut: sum.cut,
            stalled: sum.stalled,
            client_gone: sum.client_gone,
        },
    }
}

fn sessions(worker: &Worker) -> Sessions {
    worker.link.sessions()
}

fn front(app: &App) -> BTreeMap<String, u64> {
    if app.config.kind == Kind::None {
        return BTreeMap::new();
    }
    let mut sum = FrontStats::default();
    for front in app.all_fronts() {
        sum += front.stats();
    }
    sum.all().map(|(name, value)| (name.to_owned(), value)).collect()
}
