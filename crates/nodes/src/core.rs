//! What everything here shares, and which addresses a link is kept to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::config::ClusterConfig;
use crate::doors::Doors;
use crate::find::Asking;
use crate::keep;
use crate::leg::Way;
use crate::secret::Keys;
use crate::table::Table;
use crate::wire::Identity;

/// An address where a node is, as somebody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) addr: String,
    /// Which number it has to have, where that is fixed.
    pub(crate) number: Option<u8>,
}

struct Target {
    /// The registry names it.
    listed: bool,
    /// When it last told of itself.
    introduced: Option<Instant>,
    number: Option<u8>,
}

/// How the registry is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryInfo {
    /// What it is.
    pub kind: String,
    /// Why it could not be used last time; none if it could.
    pub trouble: Option<String>,
    /// Milliseconds since it could be used.
    pub seen_ms: Option<u64>,
}

/// The state of the registry.
#[derive(Default)]
pub(crate) struct RegistryState {
    pub(crate) trouble: Option<String>,
    pub(crate) seen: Option<Instant>,
}

/// The heart of a node.
pub(crate) struct Core {
    pub(crate) config: ClusterConfig,
    pub(crate) keys: Keys,
    pub(crate) link_key: [u8; 32],
    pub(crate) me: RwLock<Identity>,
    pub(crate) table: Arc<Table>,
    pub(crate) doors: Doors,
    pub(crate) asking: Arc<Asking>,
    pub(crate) registry: Mutex<RegistryState>,
    targets: Mutex<HashMap<String, Target>>,
}

impl Core {
    pub(crate) fn new(config: ClusterConfig, me: Identity) -> Arc<Self> {
        let keys = Keys::new(config.secret.clone());
        let table = Arc::new(Table::default());
        let limits = &config.limits;
        let asking = Asking::new(table.clone(), limits.asks_in_flight, limits.ask_timeout());
        Arc::new(Self {
            link_key: keys.link(),
            keys,
            config,
            me: RwLock::new(me),
            table,
            doors: Doors::default(),
            asking: Arc::new(asking),
            registry: Mutex::default(),
            targets: Mutex::default(),
        })
    }

    pub(crate) fn me(&self) -> Identity {
        self.me.read().clone()
    }

    pub(crate) fn way(&self, addr: &str) -> Arc<Way> {
        Arc::new(Way {
            addr: addr.to_owned(),
            key: self.link_key,
            connect_timeout: self.config.limits.connect_timeout(),
            silence: self.config.limits.expiry(),
            move_quiet: self.config.limits.move_quiet(),
            move_timeout: self.config.limits.move_timeout(),
        })
    }

    /// The registry names these, and no others.
    pub(crate) fn listed(self: &Arc<Self>, found: &[Found]) {
        let mine = self.me.read().addr.clone();
        let mut targets = self.targets.lock();
        targets.values_mut().for_each(|target| target.listed = false);
        for Found { addr, number } in found.iter().filter(|found| found.addr != mine) {
            match targets.get_mut(addr) {
                Some(target) => target.listed = true,
                None => {
                    let target = Target { listed: true, introduced: None, number: *number };
                    targets.insert(addr.clone(), target);
                    tokio::spawn(keep::keep(self.clone(), addr.clone()));
                }
            }
        }
    }

    /// A node told where it is.
    pub(crate) fn introduced(self: &Arc<Self>, addr: &str) {
        if addr == self.me.read().addr {
            return;
        }
        let introduced = Some(Instant::now());
        let mut targets = self.targets.lock();
        match targets.get_mut(addr) {
            Some(target) => target.introduced = introduced,
            None => {
                targets.insert(addr.to_owned(), Target { listed: false, introduced, number: None });
                tokio::spawn(keep::keep(self.clone(), addr.to_owned()));
            }
        }
    }

    /// The number the node at this address has to have, where that is fixed.
    pub(crate) fn expected(&self, addr: &str) -> Option<u8> {
        self.targets.lock().get(addr)?.number
    }

    /// Whether to go on looking for a node at an address where none answers. If not, it is forgotten.
    pub(crate) fn is_wanted(&self, addr: &str) -> bool {
        let patience = 2 * self.config.limits.expiry();
        let mut targets = self.targets.lock();
        let wanted = targets.get(addr).is_some_and(|target| {
            target.listed || target.introduced.is_some_and(|at| at.elapsed() < patience)
        });
        if !wanted {
            targets.remove(addr);
            self.table.forget(addr);
        }
        wanted
    }
}
