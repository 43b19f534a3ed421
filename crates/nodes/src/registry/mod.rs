//! Who is there, and which number this node has. What tells so is one of three: Redis, a list, DNS.

mod dns;
mod list;
mod redis;

use std::sync::Arc;
use std::time::Instant;

use crate::config;
use crate::core::{Core, Found};

/// A registry in use.
pub(crate) enum Registry {
    Redis(Box<redis::Redis>),
    List(list::List),
    Dns(dns::Dns),
}

impl Registry {
    pub(crate) fn new(core: &Core) -> Result<Self, String> {
        Ok(match &core.config.registry {
            config::Registry::Redis(url) => Self::Redis(Box::new(redis::Redis::new(url, &core.config)?)),
            config::Registry::List(nodes) => Self::List(list::List::new(nodes.clone())),
            config::Registry::Dns { name, port } => Self::Dns(dns::Dns::new(name.clone(), *port)),
        })
    }

    /// A host every node talks to, to find out by which address this one is seen.
    pub(crate) fn somebody(config: &config::ClusterConfig) -> Option<String> {
        match &config.registry {
            config::Registry::Redis(url) => redis::host(url),
            config::Registry::List(nodes) => nodes.first().cloned(),
            config::Registry::Dns { name, port } => Some(format!("{name}:{port}")),
        }
    }

    /// Finds this node's number. `before`: the one it had when it last ran.
    pub(crate) async fn join(&mut self, core: &Arc<Core>, before: Option<u8>) -> Result<u8, String> {
        match self {
            Self::Redis(redis) => redis.join(core, before).await,
            Self::List(list) => list.join(core).await,
            Self::Dns(dns) => dns.join(core),
        }
    }

    /// Says that this node is there, and asks who else is.
    async fn refresh(&mut self, core: &Arc<Core>) -> Result<Vec<Found>, String> {
        match self {
            Self::Redis(redis) => redis.refresh(core).await,
            Self::List(list) => Ok(list.found()),
            Self::Dns(dns) => dns.refresh().await,
        }
    }

    async fn leave(&mut self, core: &Arc<Core>) {
        if let Self::Redis(redis) = self {
            redis.leave(core).await;
        }
    }
}

/// Goes on refreshing until told to leave. While the registry is away, who is known stays known.
pub(crate) async fn run(
    core: Arc<Core>,
    mut registry: Registry,
    mut leaving: tokio::sync::mpsc::Receiver<tokio::sync::oneshot::Sender<()>>,
) {
    loop {
        match registry.refresh(&core).await {
            Ok(found) => {
                core.listed(&found);
                let mut state = core.registry.lock();
                state.seen = Some(Instant::now());
                if state.trouble.take().is_some() {
                    tracing::info!("the registry answers again");
                }
            }
            Err(trouble) => {
                let before = core.registry.lock().trouble.replace(trouble.clone());
                if before.as_ref() != Some(&trouble) {
                    tracing::warn!("{trouble}. Known nodes stay known; new ones join when it is back");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(core.config.limits.heartbeat()) => {}
            left = leaving.recv() => {
                let Some(left) = left else { return };
                registry.leave(&core).await;
                let _ = left.send(());
                return;
            }
        }
    }
}
