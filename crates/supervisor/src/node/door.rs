//! A Node worker as one front door sees it: one of the worker's servers, or, for an app written for
//! @socket.io/sticky, the worker itself.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sundew_channel::node::WhyNot;
use sundew_router::{Abilities, Backend, BackendId, Front, HandOff, Leg};

use super::{Node, pair};

/// A server of a worker.
pub(crate) struct Door {
    node: Arc<Node>,
    /// By which name the worker knows its server. None: it takes `sticky:connection`.
    key: Option<String>,
    /// The front door itself: whatever the worker does not take comes back to it.
    front: Front,
}

impl Door {
    pub(crate) fn new(node: Arc<Node>, key: Option<String>, front: Front) -> Arc<Self> {
        Arc::new(Self { node, key, front })
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
        self.node.hand_over(self.key.as_deref(), &self.front, connection)
    }

    fn open_leg(&self) -> io::Result<Leg> {
        let (ours, theirs) = pair::leg(self.node.preload)?;
        match self.node.hand_leg(self.key.as_deref(), theirs) {
            Ok(()) => Ok(ours),
            Err(error) if error.why == WhyNot::Closed => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
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
