//! How a process is reached besides signals: what its kind comes to.

use std::sync::Arc;

use sundew_router::{Backend, HandOff};

use crate::api::Sessions;
use crate::native::Native;
use crate::node::Node;
use crate::port::Port;

/// A way to a process.
#[derive(Clone)]
pub(crate) enum Link {
    /// None.
    Off,
    /// A native worker, over its channel.
    Native(Arc<Native>),
    /// A Node process: a cluster worker, or one on its own that has a channel.
    Node(Arc<Node>),
    /// A program with a port.
    Port(Arc<Port>),
}

impl Link {
    pub(crate) fn native(&self) -> Option<&Arc<Native>> {
        if let Self::Native(native) = self { Some(native) } else { None }
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        if let Self::Node(node) = self { Some(node) } else { None }
    }

    /// What the process carries.
    pub(crate) fn sessions(&self) -> Sessions {
        match self {
            Self::Off => Sessions::default(),
            Self::Native(native) => native.load(),
            Self::Node(node) => node.load(),
            Self::Port(port) => port.load(),
        }
    }

    /// Connections handed to the process that it has not taken yet.
    pub(crate) fn unaccepted(&self) -> u64 {
        match self {
            Self::Native(native) => native.unconfirmed(),
            Self::Node(node) => node.unaccepted(),
            Self::Off | Self::Port(_) => 0,
        }
    }

    /// How long the oldest connection handed to the process has been waiting to be taken.
    pub(crate) fn oldest_unaccepted(&self) -> Option<std::time::Duration> {
        match self {
            Self::Native(native) => native.oldest_unconfirmed(),
            Self::Node(node) => node.oldest_unaccepted(),
            Self::Off | Self::Port(_) => None,
        }
    }

    /// For how long its event loop has not answered, if that is too long.
    pub(crate) fn stuck_for(&self) -> Option<std::time::Duration> {
        match self {
            Self::Native(native) if native.is_stuck() => native.oldest_unconfirmed(),
            Self::Node(node) if node.pulse.is_stuck() => node.silent_for(),
            _ => None,
        }
    }

    /// The process is gone. Gives back the connections that have nowhere to go by themselves.
    pub(crate) fn close(&self) -> Vec<HandOff> {
        match self {
            Self::Native(native) => native.close(),
            Self::Node(node) => {
                node.close();
                Vec::new()
            }
            Self::Off | Self::Port(_) => Vec::new(),
        }
    }
}
