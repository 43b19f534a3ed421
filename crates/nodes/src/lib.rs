//! Several hosts: who is there, sealed connections between them, and whose a session is.
//!
//! ```text
//! registry (Redis, a list, DNS) -> addresses -> keep: one link per node (signs of life, questions)
//!                                                 |-> doors: the front doors learn which nodes can be reached
//! a front door -> leg -> seal, pump == network == serve -> pump -> the other node's front door
//! ```
//!
//! A front door sends on what belongs to another node: the session id names it (the tag of native workers), or the
//! others are asked (`find`). To it, a node is a worker that takes requests; HTTP is not known here, nor are processes.

mod config;
mod core;
mod doors;
mod find;
mod keep;
mod leg;
mod memory;
mod moving;
mod pump;
mod registry;
mod seal;
mod secret;
mod serve;
mod table;
mod wire;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use sundew_channel::tag::TagKey;
use sundew_router::{Finder, Front};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

pub use config::{ClusterConfig, Limits, Registry, Secret};
pub use core::RegistryInfo;
pub use table::NodeInfo;

use crate::core::Core;
use crate::doors::Name;
use crate::find::Seeker;
use crate::memory::Memory;
use crate::wire::Identity;

/// This node, as part of its cluster. Cheap to clone; lives as long as the runtime.
#[derive(Clone)]
pub struct Nodes {
    core: Arc<Core>,
    number: u8,
    leaving: mpsc::Sender<oneshot::Sender<()>>,
}

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesInfo {
    /// This node's number.
    pub number: u8,
    /// Where the others reach it.
    pub addr: String,
    /// What tells who is there.
    pub registry: RegistryInfo,
    /// The other nodes.
    pub nodes: Vec<NodeInfo>,
    /// The traffic of each front door.
    pub apps: Vec<AppTraffic>,
    /// Searches that were not made: too many at once.
    pub asks_refused: u64,
}

/// What a front door had to do with other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppTraffic {
    /// The app.
    pub app: String,
    /// Which of its front doors; empty for the only one.
    pub door: String,
    /// Requests sent to the node that has their session.
    pub forwarded: u64,
    /// Websockets relayed to the node that has their session.
    pub relayed: u64,
    /// Those of them whose session has come here since.
    pub moved: u64,
    /// Requests, and websockets, taken for other nodes.
    pub from_nodes: u64,
    /// Searches for a session at the other nodes.
    pub asked: u64,
    /// Those that found it.
    pub found: u64,
}

impl Nodes {
    /// Joins the cluster. `memory`: the file in which the node remembers who it is.
    ///
    /// # Errors
    /// What is wrong, in words: the address cannot be used, the registry gives no number.
    pub async fn start(config: ClusterConfig, memory: &Path) -> Result<Self, String> {
        let listen = &config.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            format!("cannot listen on {listen} for other nodes: {error}. `cluster.listen` is an ip:port of this host")
        })?;
        let bound = listener.local_addr().map_err(|error| error.to_string())?;
        let addr = match &config.advertise {
            Some(addr) => addr.clone(),
            None => advertised(&config, bound).await?,
        };
        let kept = |error: std::io::Error| {
            format!("cannot keep this node's identity in {}: {error}", memory.display())
        };
        let mut remembered = Memory::load(memory).map_err(kept)?;
        let me =
            Identity { id: remembered.id.clone(), run: memory::random().map_err(kept)?, number: None, addr };
        let core = Core::new(config, me);
        let mut registry = registry::Registry::new(&core)?;
        // Before it has a number: who looks whether this node lives gets an answer.
        let serving = tokio::spawn(serve::serve(core.clone(), listener));
        let number = match registry.join(&core, remembered.number).await {
            Ok(number) => number,
            Err(trouble) => {
                serving.abort();
                return Err(trouble);
            }
        };
        core.me.write().number = Some(number);
        remembered.number = Some(number);
        remembered.store(memory).map_err(kept)?;
        let (leaving, left) = mpsc::channel(1);
        tokio::spawn(registry::run(core.clone(), registry, left));
        tracing::info!(node = number, addr = core.me().addr, "joined the cluster");
        Ok(Self { core, number, leaving })
    }

    /// What it was started with.
    pub fn config(&self) -> &ClusterConfig {
        &self.core.config
    }

    /// This node's number in session ids.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The key of an app's session ids, the same on every node.
    pub fn tag_key(&self, app: &str) -> TagKey {
        self.core.keys.tags(app)
    }

    /// Who asks the others for the sessions of a front door.
    pub fn finder(&self, app: &str, door: &str) -> Arc<dyn Finder> {
        let name = Name { app: app.to_owned(), door: door.to_owned() };
        Arc::new(Seeker { asking: self.core.asking.clone(), name })
    }

    /// A front door takes part from now on, until it is gone. `door`: its name in the app, the same on every node.
    pub fn open(&self, app: &str, door: &str, front: &Front) {
        self.core.doors.add(Name { app: app.to_owned(), door: door.to_owned() }, front);
    }

    /// The cluster, as this node sees it.
    pub fn info(&self) -> NodesInfo {
        let core = &self.core;
        let state = core.registry.lock();
        let registry = RegistryInfo {
            kind: core.config.registry.to_string(),
            trouble: state.trouble.clone(),
            seen_ms: state.seen.map(|seen| u64::try_from(seen.elapsed().as_millis()).unwrap_or(u64::MAX)),
        };
        drop(state);
        let apps = core.doors.stats().into_iter().map(|(Name { app, door }, stats)| AppTraffic {
            app,
            door,
            forwarded: stats.forwarded,
            relayed: stats.relayed,
            moved: stats.moved,
            from_nodes: stats.from_nodes,
            asked: stats.asked,
            found: stats.found,
        });
        NodesInfo {
            number: self.number,
            addr: core.me().addr,
            registry,
            nodes: core.table.infos(),
            apps: apps.collect(),
            asks_refused: core.asking.refused.load(Ordering::Relaxed),
        }
    }

    /// Leaves in order: its number is free at once.
    pub async fn leave(&self) {
        let (left, done) = oneshot::channel();
        if self.leaving.send(left).await.is_ok() {
            let _ = tokio::time::timeout(self.core.config.limits.registry_wait(), done).await;
        }
    }
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Where the others reach a node that does not say so: where it listens, or by the address it talks to the registry from.
async fn advertised(config: &ClusterConfig, bound: SocketAddr) -> Result<String, String> {
    if !bound.ip().is_unspecified() {
        return Ok(bound.to_string());
    }
    let teach = || {
        "cannot tell by which address the other nodes reach this one: set `cluster.advertise` to host:port"
            .to_owned()
    };
    let somebody = registry::Registry::somebody(config).ok_or_else(teach)?;
    let mut found = tokio::net::lookup_host(&somebody).await.map_err(|_| teach())?;
    let there = found.next().ok_or_else(teach)?;
    // Nothing is sent: the system only looks for the way there.
    let own = UdpSocket::bind(if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
        .and_then(|socket| socket.connect(there).and_then(|()| socket.local_addr()));
    own.map(|own| SocketAddr::new(own.ip(), bound.port()).to_string()).map_err(|_| teach())
}
