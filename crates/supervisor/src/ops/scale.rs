//! The number of instances: more are started side by side, fewer leave as replaced workers do.

use std::sync::Arc;

use super::{Gate, Operations, Watcher, gone};
use crate::api::{Failure, FailureKind, ProcessInfo, Scale, ScaleRequest, Step};
use crate::dispatcher::State;
use crate::ecosystem::{AppConfig, Kind};
use crate::ops::start::MAX_INSTANCES;
use crate::state::Place;

impl Operations {
    /// Changes the number of instances of an app. Returns when the added ones serve; the removed ones keep their
    /// sessions until their deadline.
    pub(crate) async fn scale(
        &self,
        request: ScaleRequest,
        watcher: &Watcher,
    ) -> Result<Vec<ProcessInfo>, Failure> {
        let ScaleRequest { app: name, to } = request;
        let mut gate = self.enter(&name, false).await?;
        let app = name.clone();
        let (now, config) = self
            .dispatcher
            .run(move |state| {
                let app = state.apps.get(&app)?;
                Some((u32::try_from(app.slots.len()).unwrap_or(u32::MAX), app.config.clone()))
            })
            .await?
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format!("the app {name:?} is gone")))?;
        let wanted = match to {
            Scale::To(count) => count,
            Scale::Up(count) => now.saturating_add(count),
            Scale::Down(count) => now.saturating_sub(count),
        };
        if wanted == 0 || wanted > MAX_INSTANCES {
            let message = format!(
                "{name} has {now} instances, {wanted} is not possible: use 1 to {MAX_INSTANCES}, or stop or delete the app"
            );
            return Err(Failure::new(FailureKind::Invalid, message));
        }
        let config = Arc::new(AppConfig { instances: wanted, ..AppConfig::clone(&config) });
        let places = self.fit(config.clone(), watcher).await?;
        let places = self.complete(config, places, &mut gate, watcher).await?;
        self.infos(places).await
    }

    /// Removes the instances that a configuration has no more room for, the highest first, and makes it the app's. Gives
    /// those that stay.
    pub(super) async fn fit(&self, config: Arc<AppConfig>, watcher: &Watcher) -> Result<Vec<Place>, Failure> {
        let name = config.name.clone();
        let routed = config.kind != Kind::None;
        let (stay, removed, waits) = self.dispatcher.run(move |state| state.fit(config)).await?;
        for place in &removed {
            watcher.step(place, if routed { Step::Draining } else { Step::Stopping });
        }
        if !routed {
            gone(waits).await;
        }
        tracing::debug!(app = name, stay = stay.len(), removed = removed.len(), "fitted");
        Ok(stay)
    }

    /// Starts the instances that a configuration has more.
    pub(super) async fn complete(
        &self,
        config: Arc<AppConfig>,
        mut places: Vec<Place>,
        gate: &mut Gate,
        watcher: &Watcher,
    ) -> Result<Vec<Place>, Failure> {
        let there = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let missing = config.instances.saturating_sub(there);
        if missing > 0 {
            let name = config.name.clone();
            places.extend(self.grow(&name, missing, config, gate, watcher).await?);
        }
        Ok(places)
    }
}

type Fitted = (Vec<Place>, Vec<Place>, Vec<tokio::sync::watch::Receiver<crate::worker::Phase>>);

impl State {
    fn fit(&mut self, config: Arc<AppConfig>) -> Fitted {
        let name = config.name.clone();
        let mut places: Vec<Place> = self.places().into_iter().filter(|place| place.app == name).collect();
        places.sort_by_key(|place| place.slot);
        let keep = usize::try_from(config.instances).unwrap_or(usize::MAX).min(places.len());
        let removed = places.split_off(keep);
        if let Some(app) = self.apps.get_mut(&name) {
            app.config = config;
        }
        self.secure(&name);
        let waits = removed.iter().flat_map(|place| self.remove_slot(&name, place.slot)).collect();
        (places, removed, waits)
    }
}
