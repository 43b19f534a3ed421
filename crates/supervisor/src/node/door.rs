//! A Node worker as one front door sees it: one of the worker's servers, or, for an app written for
//! @socket.io/sticky, the worker itself.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sundew_router::{Abilities, Backend, BackendId, Front, HandOff, Leg};

use super::passed::ServerNumber;
use super::{Node, pair};

/// A server of a worker.
pub(crate) struct Door {
    node: Arc<Node>,
    /// By which name the worker knows its server. None: it takes `sticky:connection`.
    key: Option<String>,
    /// And by which number, on the pipe of its preload.
    server: ServerNumber,
    /// The front door itself: whatever the worker does not take comes back to it.
    front: Front,
}

impl Door {
    pub(crate) fn new(node: Arc<Node>, key: Option<String>, front: Front) -> Arc<Self> {
        let server = key.as_deref().map(|key| node.server_number(key)).unwrap_or_default();
        Arc::new(Self { node, key, server, front })
    }

    fn number(&self) -> u32 {
        self.server.load(Ordering::Relaxed)
    }
}

impl Backend for Door {
    fn id(&self) -> BackendId {
        self.node.id
    }

    fn abilities(&self) -> Abilities {
        Abilities { takes_connections: true, tells_sessions: false, transparent: self.node.preload }
    }

    fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
        self.node.hand_over(self.key.as_deref(), self.number(), &self.front, connection)
    }

    fn open_leg(&self) -> io::Result<Leg> {
        let (ours, theirs) = pair::leg(self.node.preload)?;
        self.node.hand_leg(self.key.as_deref(), self.number(), theirs)?;
        Ok(ours)
    }

    fn pair(&self) -> io::Result<(Leg, OwnedFd)> {
        pair::leg(self.node.preload)
    }

    fn sessions(&self) -> u32 {
        self.node.connections()
    }

    fn placements_seen(&self) -> u64 {
        self.node.placed.load(Ordering::Relaxed)
    }

    fn is_stuck(&self) -> bool {
        self.node.pulse.is_stuck()
    }

    fn touched(&self) {
        if self.node.pulse.is_due() {
            self.node.ping();
        }
    }
}
