//! Starting apps: new ones, and those that are there already.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use sundew_nodes::{ClusterConfig, Nodes};
use sundew_router::{Front, FrontConfig, TrustedProxies};
use tokio::sync::watch;

use super::{Operations, Watcher, first_failure};
use crate::api::{Failure, FailureKind, IfPresent, ProcessInfo, StartRequest};
use crate::dispatcher::State;
use crate::ecosystem::{AppConfig, Kind};
use crate::mesh::Mesh;
use crate::state::{App, Place, Slot};
use crate::{keys, logs};

/// The most instances of an app: what fits in a session id's mark.
pub(crate) const MAX_INSTANCES: u32 = 256;

impl Operations {
    /// Starts apps, one after the other, the instances of one side by side. All are tried; the first failure is told.
    pub(crate) async fn start(
        &self,
        request: StartRequest,
        watcher: &Watcher,
    ) -> Result<Vec<ProcessInfo>, Failure> {
        if let Some(cluster) = request.cluster {
            self.join_cluster(cluster).await?;
        }
        let mut places = Vec::new();
        let mut failure = None;
        for config in request.apps {
            match self.start_app(Arc::new(config), request.if_present, watcher).await {
                Ok(started) => places.extend(started),
                Err(failed) => drop(failure.get_or_insert(failed)),
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => self.infos(places).await,
        }
    }

    async fn start_app(
        &self,
        config: Arc<AppConfig>,
        if_present: IfPresent,
        watcher: &Watcher,
    ) -> Result<Vec<Place>, Failure> {
        if self.front_changed(&config).await? {
            match if_present {
                // A front door is made once: the app is made anew.
                IfPresent::Restart => self.delete_app(&config.name, watcher).await?,
                IfPresent::Reload => {
                    return Err(Failure::new(
                        FailureKind::Invalid,
                        format!(
                            "{}: affinity, balance, paths, hosts, prefix, direct, route, limits or the cluster have changed, which a reload cannot do: `sundew start \
                             FILE` restarts the app with them",
                            config.name
                        ),
                    ));
                }
                IfPresent::Refuse | IfPresent::Add => {}
            }
        }
        let (name, new) = (config.name.clone(), config.clone());
        let there = self.dispatcher.run(move |state| state.declare(&new)).await??;
        if !there {
            let mut gate = self.enter(&name, false).await?;
            return self.grow(&name, config.instances, config.clone(), &mut gate, watcher).await;
        }
        match if_present {
            IfPresent::Restart => self.restart_app(config, watcher).await,
            IfPresent::Reload => self.reload_app(config, watcher).await,
            IfPresent::Add => {
                let mut gate = self.enter(&name, false).await?;
                self.grow(&name, config.instances, config.clone(), &mut gate, watcher).await
            }
            IfPresent::Refuse => {
                let (app, script) = (name.clone(), config.script.clone());
                let running = self.dispatcher.run(move |state| {
                    let app = state.apps.get(&app)?;
                    let alive = app.slots.values().any(Slot::is_alive);
                    alive.then(|| app.config.script.clone())
                });
                match running.await? {
                    Some(running) if running == script => Err(Failure::new(
                        FailureKind::Present,
                        format!(
                            "{} runs already as {name:?}: restart or reload it, or add -f to start it once more",
                            script.display()
                        ),
                    )),
                    Some(running) => Err(Failure::new(
                        FailureKind::Present,
                        format!(
                            "{name:?} is the name of {} already: give this one another with --name",
                            running.display()
                        ),
                    )),
                    None => self.restart_app(config, watcher).await,
                }
            }
        }
    }

    /// Whether an app of this name is there, with another front door than this configuration asks for.
    async fn front_changed(&self, config: &Arc<AppConfig>) -> Result<bool, Failure> {
        let new = config.clone();
        let changed = self.dispatcher.run(move |state| {
            let nodes = state.nodes.is_some();
            let changed = |app: &App| !app.config.sundew.same_front(&new.sundew) || app.clustered != nodes;
            state.apps.get(&new.name).is_some_and(changed)
        });
        changed.await
    }

    /// Takes part in a cluster of several hosts, from the first time on that a file says so.
    async fn join_cluster(&self, cluster: ClusterConfig) -> Result<(), Failure> {
        let joined = self.dispatcher.run(|state| (state.nodes.clone(), state.home.clone(), state.ending));
        let (nodes, home, ending) = joined.await?;
        match nodes {
            Some(nodes) if *nodes.config() == cluster => return Ok(()),
            Some(_) => {
                return Err(Failure::new(
                    FailureKind::Invalid,
                    "this daemon is in a cluster with other settings: `sundew kill` ends it, then start again",
                ));
            }
            None if ending => return Ok(()),
            None => {}
        }
        let nodes = Nodes::start(cluster, &home.cluster()).await;
        let nodes = nodes.map_err(|trouble| Failure::new(FailureKind::Start, trouble))?;
        let join = |state: &mut State| {
            state.nodes.get_or_insert(nodes);
        };
        self.dispatcher.run(join).await
    }

    async fn launch_owned(&self, place: Place, watcher: &Watcher) -> Result<(), Failure> {
        self.launch(&place, None, watcher).await
    }

    /// Adds instances and starts them.
    pub(super) async fn grow(
        &self,
        name: &str,
        count: u32,
        config: Arc<AppConfig>,
        gate: &mut super::Gate,
        watcher: &Watcher,
    ) -> Result<Vec<Place>, Failure> {
        let app = name.to_owned();
        let places = self.dispatcher.run(move |state| state.add_slots(&app, count, &config)).await??;
        let launches = join_all(places.clone().into_iter().map(|place| self.launch_owned(place, watcher)));
        tokio::select! {
            results = launches => first_failure(name, results)?,
            () = gate.interrupted() => {
                return Err(Failure::new(FailureKind::Busy, format!("starting {name} was ended by another command")));
            }
        }
        Ok(places)
    }
}

impl State {
    /// Makes sure that there is an app of this name. Says whether there was one.
    pub(crate) fn declare(&mut self, config: &Arc<AppConfig>) -> Result<bool, Failure> {
        if self.ending {
            return Err(Failure::new(FailureKind::Leaving, "the daemon is leaving"));
        }
        if self.apps.contains_key(&config.name) {
            return Ok(true);
        }
        let internal = |message| Failure::new(FailureKind::Internal, message);
        let tag_key = match &self.nodes {
            Some(nodes) => nodes.tag_key(&config.name),
            None => keys::of(&self.home, &config.name).map_err(internal)?,
        };
        let front = FrontConfig {
            affinity: config.sundew.affinity.into(),
            balance: config.sundew.balance.into(),
            paths: config.sundew.paths.clone(),
            advertise: config.sundew.advertise(),
            trusted_proxies: TrustedProxies::parse(&config.sundew.trusted_proxies)
                .map_err(|error| internal(error.to_string()))?,
            forwarded_header: config.sundew.forwarded_header.into(),
            proxy_protocol: config.sundew.proxy_protocol.into(),
            request_id: config.sundew.request_id,
            access_log: logs::access(config, &self.home, self.foreground),
            limits: (&config.sundew.limits).into(),
            node: self.nodes.as_ref().map_or(0, Nodes::number),
            ..FrontConfig::new(config.name.clone(), tag_key)
        };
        // Session ids of native workers name their node; for other sessions the nodes are asked.
        let asks = self.nodes.as_ref().filter(|_| config.kind == Kind::Port);
        let finder = asks.map(|nodes| nodes.finder(&config.name, ""));
        let own_front = Front::new(FrontConfig { finder, ..front.clone() });
        if let Some(nodes) = self.nodes.as_ref().filter(|_| matches!(config.kind, Kind::Native | Kind::Port))
        {
            nodes.open(&config.name, "", &own_front);
        }
        let app = App {
            clustered: self.nodes.is_some(),
            config: config.clone(),
            slots: BTreeMap::new(),
            generations: BTreeMap::new(),
            leaving: Vec::new(),
            front: own_front,
            front_config: front,
            listening: Vec::new(),
            doors: BTreeMap::new(),
            secure: None,
            hub: Arc::default(),
            next_unique_id: 1,
            datagrams: BTreeMap::new(),
            mesh: Mesh::default(),
            tag_key,
            gate: Arc::default(),
            interrupt: watch::channel(0).0,
        };
        self.apps.insert(config.name.clone(), app);
        Ok(false)
    }

    /// Adds stopped processes to an app.
    pub(crate) fn add_slots(
        &mut self,
        name: &str,
        count: u32,
        config: &Arc<AppConfig>,
    ) -> Result<Vec<Place>, Failure> {
        let gone = || Failure::new(FailureKind::NotFound, format!("the app {name:?} is gone"));
        let app = self.apps.get_mut(name).ok_or_else(gone)?;
        let there = u32::try_from(app.slots.len()).unwrap_or(u32::MAX);
        if there.saturating_add(count) > MAX_INSTANCES {
            return Err(Failure::new(
                FailureKind::Invalid,
                format!(
                    "{name}: an app has at most {MAX_INSTANCES} instances, it has {there} and {count} were to be added"
                ),
            ));
        }
        let mut places = Vec::new();
        for _ in 0..count {
            let Some(slot) = app.lowest_free_slot() else { break };
            let pm_id = self.next_pm_id;
            self.next_pm_id += 1;
            app.slots.insert(slot, Slot::new(pm_id, config.clone()));
            places.push(Place { pm_id, app: name.to_owned(), slot });
        }
        Ok(places)
    }
}
