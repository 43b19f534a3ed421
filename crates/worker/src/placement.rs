//! Counts the requests for a new session that the front door marked.
//!
//! The front door adds what it has placed, but not yet seen counted, to a worker's load. So each mark counts exactly
//! once, and only when the request is over: from then on the session is in the load itself.

use crate::cluster::Cluster;

/// Counts one placement when dropped, however the request ends.
#[derive(Debug)]
pub(crate) struct Placement(Cluster);

impl Placement {
    pub(crate) fn new(cluster: Cluster) -> Placement {
        Placement(cluster)
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        self.0.count_placement();
    }
}
