//! Stopping, restarting and deleting: not graceful towards sessions, as with pm2. What is graceful is in `reload.rs`.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;

use super::{Operations, Watcher, by_app, first_failure, gone};
use crate::api::{Failure, FailureKind, ProcessInfo, Status, Step, Target};
use crate::dispatcher::State;
use crate::ecosystem::AppConfig;
use crate::state::Place;
use crate::worker::Stop;

/// Processes of an app that are restarted at once, so that the others go on meanwhile: pm2's number.
const AT_ONCE: usize = 2;

impl Operations {
    /// Stops processes; their entries stay.
    pub(crate) async fn stop(&self, target: Target, watcher: &Watcher) -> Result<Vec<ProcessInfo>, Failure> {
        let places = self.resolve(target).await?;
        for (app, places) in by_app(places.clone()) {
            let _gate = self.enter(&app, true).await?;
            join_all(places.iter().cloned().map(|place| self.stop_place(place, watcher))).await;
        }
        self.infos(places).await
    }

    async fn stop_place(&self, place: Place, watcher: &Watcher) {
        watcher.step(&place, Step::Stopping);
        let at = place.clone();
        let waits = self.dispatcher.run(move |state| state.stop_slot(&at.app, at.slot, false)).await;
        gone(waits.unwrap_or_default()).await;
        watcher.step(&place, Step::Stopped);
    }

    /// Stops processes and starts them again.
    pub(crate) async fn restart(
        &self,
        target: Target,
        watcher: &Watcher,
    ) -> Result<Vec<ProcessInfo>, Failure> {
        let places = self.resolve(target).await?;
        for (app, places) in by_app(places.clone()) {
            let _gate = self.enter(&app, true).await?;
            self.restart_places(&app, &places, None, watcher).await?;
        }
        self.infos(places).await
    }

    /// Restarts an app with a new configuration, and as many instances as that says.
    pub(super) async fn restart_app(
        &self,
        config: Arc<AppConfig>,
        watcher: &Watcher,
    ) -> Result<Vec<Place>, Failure> {
        let name = config.name.clone();
        let mut gate = self.enter(&name, true).await?;
        let places = self.fit(config.clone(), watcher).await?;
        self.restart_places(&name, &places, Some(config.clone()), watcher).await?;
        self.complete(config, places, &mut gate, watcher).await
    }

    /// Restarts places of one app, a few at a time.
    pub(super) async fn restart_places(
        &self,
        app: &str,
        places: &[Place],
        config: Option<Arc<AppConfig>>,
        watcher: &Watcher,
    ) -> Result<(), Failure> {
        let at_once = if places.len() <= 2 { 1 } else { AT_ONCE };
        let restarts = places.iter().cloned().map(|place| self.restart_owned(place, config.clone(), watcher));
        let results = stream::iter(restarts).buffered(at_once).collect().await;
        first_failure(app, results)
    }

    async fn restart_owned(
        &self,
        place: Place,
        config: Option<Arc<AppConfig>>,
        watcher: &Watcher,
    ) -> Result<(), Failure> {
        self.restart_place(&place, config, watcher).await
    }

    pub(super) async fn restart_place(
        &self,
        place: &Place,
        config: Option<Arc<AppConfig>>,
        watcher: &Watcher,
    ) -> Result<(), Failure> {
        let at = place.clone();
        let new = config.clone();
        let stopped = self.dispatcher.run(move |state| {
            let slot = state.apps.get_mut(&at.app)?.slots.get_mut(&at.slot)?;
            slot.current.as_ref()?;
            if let Some(config) = new {
                slot.config = config;
            }
            Some(state.stop_slot(&at.app, at.slot, true))
        });
        let Some(waits) = stopped.await? else { return self.launch(place, config, watcher).await };
        watcher.step(place, Step::Stopping);
        gone(waits).await;
        // It was started in the same step in which its end was noted.
        let at = place.clone();
        let phase = self.dispatcher.run(move |state| {
            let slot = state.apps.get(&at.app)?.slots.get(&at.slot)?;
            let timeout = std::time::Duration::from_millis(slot.config.listen_timeout);
            Ok::<_, String>(
                slot.current.as_ref().map(|worker| (worker.phase.subscribe(), timeout)).ok_or_else(|| {
                    slot.reason.clone().unwrap_or_else(|| "it was stopped meanwhile".to_owned())
                }),
            )
            .ok()
        });
        match phase.await? {
            Some(Ok((phase, timeout))) => self.settle(place, phase, timeout, watcher).await,
            Some(Err(reason)) => {
                let message = format!("{} ({}) did not start: {reason}", place.app, place.pm_id);
                Err(Failure::new(FailureKind::Start, message))
            }
            None => Err(Failure::new(FailureKind::NotFound, format!("process {} is gone", place.pm_id))),
        }
    }

    /// Stops processes and removes their entries; an app without any is gone, and its addresses are free.
    pub(crate) async fn delete(
        &self,
        target: Target,
        watcher: &Watcher,
    ) -> Result<Vec<ProcessInfo>, Failure> {
        let places = self.resolve(target).await?;
        for (app, places) in by_app(places) {
            self.delete_places(&app, &places, watcher).await?;
        }
        Ok(Vec::new())
    }

    /// Removes an app.
    pub(super) async fn delete_app(&self, app: &str, watcher: &Watcher) -> Result<(), Failure> {
        let name = app.to_owned();
        let places = self.dispatcher.run(move |state| {
            let mut places = state.places();
            places.retain(|place| place.app == name);
            places
        });
        let places = places.await?;
        self.delete_places(app, &places, watcher).await
    }

    async fn delete_places(&self, app: &str, places: &[Place], watcher: &Watcher) -> Result<(), Failure> {
        let _gate = self.enter(app, true).await?;
        join_all(places.iter().cloned().map(|place| self.stop_place(place, watcher))).await;
        let (name, removed) = (app.to_owned(), places.to_vec());
        let waits = self.dispatcher.run(move |state| state.forget(&name, &removed)).await?;
        gone(waits).await;
        let name = app.to_owned();
        self.dispatcher.run(move |state| state.close_if_empty(&name)).await?;
        for place in places {
            watcher.step(place, Step::Deleted);
        }
        Ok(())
    }

    /// Ends everything. Drains: no new sessions, requests in flight are answered, sessions stay until their app's
    /// `drainTimeout` and are let go of in paced batches then; the processes are stopped when they have none. Without
    /// `patient` that time is not given.
    pub(crate) async fn end(&self, patient: bool, watcher: &Watcher) -> Result<(), Failure> {
        let (places, waits) = self.dispatcher.run(move |state| state.end(patient)).await?;
        for place in &places {
            watcher.step(place, Step::Stopping);
        }
        gone(waits).await;
        for place in &places {
            watcher.step(place, Step::Stopped);
        }
        Ok(())
    }

    /// Ends everything without waiting for anything.
    pub(crate) async fn end_now(&self) -> Result<(), Failure> {
        let waits = self.dispatcher.run(|state| {
            state.ending = true;
            let workers = state.apps.values().flat_map(|app| app.workers());
            let waits: Vec<_> =
                workers.map(|worker| (worker.stop(Stop::Now), worker.phase.subscribe()).1).collect();
            waits
        });
        gone(waits.await?).await;
        Ok(())
    }
}

impl State {
    fn forget(
        &mut self,
        name: &str,
        places: &[Place],
    ) -> Vec<tokio::sync::watch::Receiver<crate::worker::Phase>> {
        let Some(app) = self.apps.get_mut(name) else { return Vec::new() };
        for place in places {
            if app.slots.get(&place.slot).is_some_and(|slot| slot.pm_id == place.pm_id) {
                app.slots.remove(&place.slot);
            }
        }
        if !app.slots.is_empty() {
            return Vec::new();
        }
        // What was scaled away before may still hold sessions.
        let leaving = app.leaving.iter();
        leaving
            .map(|leaving| (leaving.worker.stop(Stop::Gently), leaving.worker.phase.subscribe()).1)
            .collect()
    }

    fn close_if_empty(&mut self, name: &str) {
        if self.apps.get(name).is_some_and(|app| app.slots.is_empty())
            && let Some(mut app) = self.apps.remove(name)
        {
            app.close_listeners();
        }
        if self.apps.is_empty() {
            // As pm2 does.
            self.next_pm_id = 0;
        }
    }

    fn end(
        &mut self,
        patient: bool,
    ) -> (Vec<Place>, Vec<tokio::sync::watch::Receiver<crate::worker::Phase>>) {
        self.ending = true;
        let places = self.places();
        let inputs = self.inputs.clone();
        let mut waits = Vec::new();
        for app in self.apps.values_mut() {
            app.interrupt.send_modify(|count| *count += 1);
            // Polling sessions that may stay come back on new connections.
            if !patient {
                app.close_listeners();
            }
            let mut workers = Vec::new();
            for slot in app.slots.values_mut() {
                slot.cancel_restart();
                slot.again = false;
                slot.status = if slot.current.is_some() { Status::Stopping } else { Status::Stopped };
                if let Some(worker) = &slot.incoming {
                    worker.stop(Stop::Gently);
                    waits.push(worker.phase.subscribe());
                }
                match slot.current.take_if(|worker| worker.routed) {
                    Some(worker) => workers.push(worker),
                    None => {
                        if let Some(worker) = &slot.current {
                            worker.stop(Stop::Gently);
                            waits.push(worker.phase.subscribe());
                        }
                    }
                }
            }
            for worker in workers {
                let timeout = if patient { worker.config.sundew.drain_timeout } else { 0 };
                app.leave(worker, std::time::Duration::from_millis(timeout), inputs.clone());
            }
        }
        let names: Vec<String> = self.apps.keys().cloned().collect();
        for name in names.iter().filter(|_| !patient) {
            self.let_go(name);
        }
        let leaving = self.apps.values().flat_map(|app| &app.leaving);
        waits.extend(leaving.map(|leaving| leaving.worker.phase.subscribe()));
        (places, waits)
    }
}
