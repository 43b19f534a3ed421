//! Reload: replaces workers one by one and never trades a healthy one for one that is not ready.
//!
//! Per slot: the new worker starts, is ready and joined with the others, and takes the place of the old one in one step of
//! the dispatcher; the old one keeps its sessions until its deadline (`worker::drain`). Where a new worker fails, the
//! reload stops, and the old ones go on.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Gate, Operations, Watcher, by_app, gone};
use crate::api::{Failure, FailureKind, ProcessInfo, Status, Step, Target};
use crate::dispatcher::State;
use crate::ecosystem::{AppConfig, Kind};
use crate::state::Place;
use crate::worker::{Phase, Stop};

/// What a slot needs.
enum Way {
    /// It serves: the new worker comes first.
    Replace,
    /// Nothing runs there.
    Launch,
    /// It is not routed: there is nothing to move over, as with pm2 in fork mode.
    Restart,
}

impl Operations {
    /// Reloads processes. With `wait` until the replaced ones are gone.
    pub(crate) async fn reload(
        &self,
        target: Target,
        wait: bool,
        watcher: &Watcher,
    ) -> Result<Vec<ProcessInfo>, Failure> {
        let places = self.resolve(target).await?;
        for (app, places) in by_app(places.clone()) {
            let mut gate = self.enter(&app, false).await?;
            let name = app.clone();
            self.dispatcher.run(move |state| state.secure(&name)).await?;
            self.reload_places(&app, &places, None, &mut gate, watcher).await?;
        }
        if wait {
            for (app, places) in by_app(places.clone()) {
                self.wait_for_leaving(&app, &places, watcher).await?;
            }
        }
        self.infos(places).await
    }

    /// Reloads an app with a new configuration, and as many instances as that says. If it fails, the old one stays.
    pub(super) async fn reload_app(
        &self,
        config: Arc<AppConfig>,
        watcher: &Watcher,
    ) -> Result<Vec<Place>, Failure> {
        let name = config.name.clone();
        let mut gate = self.enter(&name, false).await?;
        let app = name.clone();
        let all = self.dispatcher.run(move |state| {
            let mut places = state.places();
            places.retain(|place| place.app == app);
            places
        });
        let mut places = all.await?;
        // Those that are to go need not be replaced before.
        let keep = usize::try_from(config.instances).unwrap_or(usize::MAX);
        places.sort_by_key(|place| place.slot);
        places.truncate(keep);
        self.reload_places(&name, &places, Some(config.clone()), &mut gate, watcher).await?;
        let places = self.fit(config.clone(), watcher).await?;
        self.complete(config, places, &mut gate, watcher).await
    }

    async fn reload_places(
        &self,
        app: &str,
        places: &[Place],
        config: Option<Arc<AppConfig>>,
        gate: &mut Gate,
        watcher: &Watcher,
    ) -> Result<(), Failure> {
        for (done, place) in places.iter().enumerate() {
            let result = tokio::select! {
                result = self.reload_place(place, config.clone(), watcher) => result,
                () = gate.interrupted() => Err(Failure::new(FailureKind::Busy, "ended by another command")),
            };
            if let Err(failure) = result {
                let all = places.len();
                let stand = match done {
                    // What the other command does with them is for it to say.
                    _ if failure.kind == FailureKind::Busy => return Err(failure),
                    0 => "Nothing was replaced: the old workers stay".to_owned(),
                    _ => {
                        format!("{done} of {all} workers were replaced before, the others stay as they were")
                    }
                };
                return Err(Failure::new(
                    FailureKind::Reload,
                    format!(
                        "the reload of {app} stopped at process {}: {}\n{stand}.",
                        place.pm_id, failure.message
                    ),
                ));
            }
        }
        Ok(())
    }

    async fn reload_place(
        &self,
        place: &Place,
        config: Option<Arc<AppConfig>>,
        watcher: &Watcher,
    ) -> Result<(), Failure> {
        let at = place.clone();
        match self.dispatcher.run(move |state| state.way(&at)).await?? {
            Way::Launch => return self.launch(place, config, watcher).await,
            Way::Restart => return self.restart_place(place, config, watcher).await,
            Way::Replace => {}
        }
        // One replaced worker per slot. An earlier one keeps its sessions as long as it was promised to.
        let at = place.clone();
        let earlier = self.dispatcher.run(move |state| state.leaving_of(&at.app, at.slot)).await?;
        if !earlier.is_empty() {
            let detail =
                "waits for the worker of an earlier reload, which keeps its sessions until its deadline";
            watcher.detail(place, Step::Draining, Some(detail.to_owned()));
            gone(earlier).await;
        }
        watcher.step(place, Step::Launching);
        let at = place.clone();
        let phase = self.dispatcher.run(move |state| {
            let slot = state.apps.get(&at.app)?.slots.get(&at.slot)?;
            let config = config.unwrap_or_else(|| slot.config.clone());
            let old = slot.current.as_ref().map(|worker| worker.phase.subscribe());
            Some((state.replace(&at.app, at.slot, config), old))
        });
        let gone = || Failure::new(FailureKind::NotFound, format!("process {} is gone", place.pm_id));
        let (mut phase, _old) = phase.await?.ok_or_else(gone)?;
        // Bounded by `listen_timeout`, at which the dispatcher ends it, and by its `kill_timeout` then.
        let mut guard = Unfinished { operations: self.clone(), place: Some(place.clone()) };
        let outcome = phase.wait_for(|phase| matches!(phase, Phase::Online | Phase::Over(_))).await;
        let outcome = outcome.map(|phase| phase.clone());
        guard.place = None;
        match outcome {
            Ok(Phase::Online) => {
                watcher.step(place, Step::Online);
                watcher.step(place, Step::Draining);
                Ok(())
            }
            Ok(Phase::Over(reason)) => {
                watcher.detail(place, Step::Errored, Some(reason.clone()));
                Err(Failure::new(FailureKind::Reload, format!("the new worker {reason}")))
            }
            _ => Err(gone()),
        }
    }

    async fn wait_for_leaving(&self, app: &str, places: &[Place], watcher: &Watcher) -> Result<(), Failure> {
        for place in places {
            let (name, slot) = (app.to_owned(), place.slot);
            let waits = self.dispatcher.run(move |state| state.leaving_of(&name, slot)).await?;
            gone(waits).await;
            watcher.step(place, Step::Drained);
        }
        Ok(())
    }
}

/// A reload that is dropped in the middle takes its new worker with it.
struct Unfinished {
    operations: Operations,
    place: Option<Place>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let dispatcher = self.operations.dispatcher.clone();
        tokio::spawn(async move {
            let step = move |state: &mut State| {
                let slot = state.apps.get(&place.app).and_then(|app| app.slots.get(&place.slot));
                if let Some(worker) = slot.and_then(|slot| slot.incoming.as_ref()) {
                    worker.stop(Stop::Gently);
                }
            };
            let _ = dispatcher.run(step).await;
        });
    }
}

impl State {
    /// The ends of a slot's replaced workers.
    fn leaving_of(&self, app: &str, slot: u16) -> Vec<watch::Receiver<Phase>> {
        let leaving = self.apps.get(app).map(|app| app.leaving.iter()).into_iter().flatten();
        let of_slot = leaving.filter(|leaving| leaving.worker.slot == slot);
        of_slot.map(|leaving| leaving.worker.phase.subscribe()).collect()
    }

    fn way(&self, place: &Place) -> Result<Way, Failure> {
        if self.ending {
            return Err(Failure::new(FailureKind::Leaving, "the daemon is leaving"));
        }
        let slot = self.apps.get(&place.app).and_then(|app| app.slots.get(&place.slot));
        let gone = || Failure::new(FailureKind::NotFound, format!("process {} is gone", place.pm_id));
        let slot = slot.ok_or_else(gone)?;
        Ok(match (&slot.current, slot.status, slot.config.kind) {
            (None, ..) => Way::Launch,
            (Some(_), Status::Online, kind) if kind != Kind::None => Way::Replace,
            _ => Way::Restart,
        })
    }
}
