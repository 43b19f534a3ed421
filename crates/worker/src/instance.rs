//! Which worker this process is.

use crate::cluster;

/// Which worker of its app this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// The app's name under the supervisor; `None` alone.
    pub app: Option<String>,
    /// The worker's slot, from 0. A worker that takes another's place takes its slot. 0 alone.
    pub slot: u16,
    /// Which worker of that slot this is: every start counts one up, and wraps.
    pub generation: u8,
    /// The process id.
    pub pid: u32,
}

/// Which worker this process is.
pub fn instance() -> Instance {
    let pid = std::process::id();
    match cluster() {
        Some(cluster) => {
            let welcome = cluster.welcome();
            Instance {
                app: Some(welcome.app.clone()),
                slot: welcome.slot,
                generation: welcome.generation,
                pid,
            }
        }
        None => Instance { app: None, slot: 0, generation: 0, pid },
    }
}
