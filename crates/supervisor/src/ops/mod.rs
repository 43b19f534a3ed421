//! Operations: what a command does, as a sequence of the dispatcher's steps with waiting in between. They hold no state
//! of apps; each step sees it as it is then.
//!
//! One operation at a time per app: a second one waits at the app's gate. One that stops things also interrupts the one
//! under way, because whoever says stop does not want to wait for a reload.

mod reload;
mod scale;
mod start;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, mpsc, watch};

use crate::api::{Event, Failure, FailureKind, ProcessInfo, Status, Step, Target};
use crate::dispatcher::{Dispatcher, State};
use crate::ecosystem::AppConfig;
use crate::state::Place;
use crate::worker::Phase;

/// What every operation has at hand: the dispatcher, and somebody who may be watching.
#[derive(Clone)]
pub(crate) struct Operations {
    pub(crate) dispatcher: Dispatcher,
}

/// Who watches an operation. Nobody has to.
#[derive(Clone)]
pub(crate) struct Watcher {
    events: mpsc::Sender<Event>,
}

/// Steps an inattentive watcher may be behind before it misses some.
pub(crate) const EVENTS: usize = 256;

impl Watcher {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events }
    }

    /// Nobody watches.
    pub(crate) fn none() -> Self {
        Self { events: mpsc::channel(1).0 }
    }

    pub(crate) fn step(&self, place: &Place, step: Step) {
        self.detail(place, step, None);
    }

    pub(crate) fn detail(&self, place: &Place, step: Step, detail: Option<String>) {
        let event = Event::Process { name: place.app.clone(), pm_id: place.pm_id, step, detail };
        // The operation waits for nobody.
        let _ = self.events.try_send(event);
    }
}

/// The right to change an app.
pub(crate) struct Gate {
    _guard: OwnedMutexGuard<()>,
    interrupt: watch::Receiver<u64>,
}

impl Gate {
    /// Completes when another operation wants this one to end.
    pub(crate) async fn interrupted(&mut self) {
        if self.interrupt.changed().await.is_err() {
            // The app is gone, and with it whatever is waited for.
            std::future::pending::<()>().await;
        }
    }
}

impl Operations {
    /// Waits for the app's gate. `interrupt` ends the operation that holds it.
    async fn enter(&self, app: &str, interrupt: bool) -> Result<Gate, Failure> {
        loop {
            let name = app.to_owned();
            let (gate, interrupts) = self
                .dispatcher
                .run(move |state| {
                    let app = state.apps.get(&name)?;
                    if interrupt {
                        app.interrupt.send_modify(|count| *count += 1);
                    }
                    // From here on, so that an interruption while waiting for the gate counts.
                    Some((app.gate.clone(), app.interrupt.subscribe()))
                })
                .await?
                .ok_or_else(|| Failure::new(FailureKind::NotFound, format!("the app {app:?} is gone")))?;
            let guard = gate.clone().lock_owned().await;
            // The app may have been deleted meanwhile, and made anew with a gate of its own.
            let name = app.to_owned();
            let is_same = move |state: &mut State| {
                state.apps.get(&name).is_some_and(|app| Arc::ptr_eq(&app.gate, &gate))
            };
            if self.dispatcher.run(is_same).await? {
                return Ok(Gate { _guard: guard, interrupt: interrupts });
            }
        }
    }

    pub(crate) async fn resolve(&self, target: Target) -> Result<Vec<Place>, Failure> {
        self.dispatcher.run(move |state| state.resolve(&target)).await?
    }

    async fn infos(&self, places: Vec<Place>) -> Result<Vec<ProcessInfo>, Failure> {
        self.dispatcher.run(move |state| places.iter().filter_map(|place| state.info(place)).collect()).await
    }

    /// Starts the worker of a place now, whatever its policy says, and waits until it is up.
    async fn launch(
        &self,
        place: &Place,
        config: Option<Arc<AppConfig>>,
        watcher: &Watcher,
    ) -> Result<(), Failure> {
        watcher.step(place, Step::Launching);
        let at = place.clone();
        let (phase, timeout) = self
            .dispatcher
            .run(move |state| {
                if state.ending {
                    return Err(Failure::new(FailureKind::Leaving, "the daemon is leaving"));
                }
                let gone = || Failure::new(FailureKind::NotFound, format!("process {} is gone", at.pm_id));
                let app = state.apps.get_mut(&at.app).ok_or_else(gone)?;
                let slot = app.slots.get_mut(&at.slot).ok_or_else(gone)?;
                if let Some(config) = config {
                    slot.config = config;
                }
                slot.policy.reset();
                let timeout = slot.config.listen_timeout;
                Ok((state.launch(&at.app, at.slot), Duration::from_millis(timeout)))
            })
            .await??;
        self.settle(place, phase, timeout, watcher).await
    }

    /// Waits until a worker that was started is up. One that is late is waited for no longer, but goes on.
    async fn settle(
        &self,
        place: &Place,
        mut phase: watch::Receiver<Phase>,
        timeout: Duration,
        watcher: &Watcher,
    ) -> Result<(), Failure> {
        // Joining the others comes after being ready.
        let settled = phase.wait_for(|phase| *phase != Phase::Launching);
        let settled = match tokio::time::timeout(timeout + Duration::from_secs(5), settled).await {
            Ok(Ok(phase)) => phase.clone(),
            Ok(Err(_)) => Phase::Over("its entry was removed".to_owned()),
            Err(_) => Phase::Late("ready, but not joined with the other workers yet".to_owned()),
        };
        match settled {
            Phase::Online => {
                watcher.step(place, Step::Online);
                Ok(())
            }
            Phase::Late(reason) => {
                let message = format!(
                    "{} ({}) did not start in time, and is still trying: {reason}",
                    place.app, place.pm_id
                );
                Err(Failure::new(FailureKind::Start, message))
            }
            Phase::Launching => Ok(()),
            // A program that was to run once, and did.
            Phase::Over(_) if self.has_finished(place).await? => {
                watcher.step(place, Step::Stopped);
                Ok(())
            }
            Phase::Over(reason) => {
                watcher.detail(place, Step::Errored, Some(reason.clone()));
                Err(Failure::new(
                    FailureKind::Start,
                    format!("{} ({}) did not start: {reason}", place.app, place.pm_id),
                ))
            }
        }
    }
}

impl Operations {
    /// Whether the last process of a place ended well and is not to run again.
    async fn has_finished(&self, place: &Place) -> Result<bool, Failure> {
        let at = place.clone();
        let finished = self.dispatcher.run(move |state| {
            let slot = state.apps.get(&at.app).and_then(|app| app.slots.get(&at.slot));
            slot.is_some_and(|slot| {
                let well = slot.last_exit.as_ref().is_some_and(|exit| exit.code == Some(0));
                slot.status == Status::Stopped && well
            })
        });
        finished.await
    }
}

/// Waits until these processes are gone.
pub(crate) async fn gone(waits: Vec<watch::Receiver<Phase>>) {
    for mut wait in waits {
        // An error means it is gone without saying so.
        let _ = wait.wait_for(|phase| matches!(phase, Phase::Over(_))).await;
    }
}

/// The places of each app, in order.
fn by_app(places: Vec<Place>) -> Vec<(String, Vec<Place>)> {
    let mut apps: Vec<(String, Vec<Place>)> = Vec::new();
    for place in places {
        match apps.iter_mut().find(|(app, _)| *app == place.app) {
            Some((_, places)) => places.push(place),
            None => apps.push((place.app.clone(), vec![place])),
        }
    }
    apps
}

/// The first failure, saying how many more there were.
fn first_failure(app: &str, results: Vec<Result<(), Failure>>) -> Result<(), Failure> {
    let all = results.len();
    let mut failures = results.into_iter().filter_map(Result::err);
    let Some(first) = failures.next() else { return Ok(()) };
    let more = failures.count();
    if more == 0 {
        return Err(first);
    }
    let message =
        format!("{} of {all} processes of {app} did not start. The first: {}", more + 1, first.message);
    Err(Failure::new(first.kind, message))
}
