//! The front doors of this node, by app and name, and which nodes they know.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sundew_router::{Front, FrontStats, WeakFront};

use crate::leg::Way;

/// A front door, by the app and the app's name for it. That is the same on every node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) app: String,
    pub(crate) door: String,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Doors {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    fronts: HashMap<Name, WeakFront>,
    /// The nodes that can be reached.
    up: HashMap<u8, Arc<Way>>,
}

impl Inner {
    fn living(&mut self) -> Vec<(Name, Front)> {
        self.fronts.retain(|_, front| front.upgrade().is_some());
        let living = self.fronts.iter();
        living.filter_map(|(name, front)| Some((name.clone(), front.upgrade()?))).collect()
    }
}

impl Doors {
    /// A front door is there. It is told of the nodes, now and later.
    pub(crate) fn add(&self, name: Name, front: &Front) {
        let mut inner = self.inner.lock();
        for (number, way) in &inner.up {
            front.add_node(*number, way.to(&name));
        }
        inner.fronts.insert(name, front.downgrade());
    }

    /// The front door of that name; where an app has just one, its name does not matter.
    pub(crate) fn find(&self, name: &Name) -> Option<Front> {
        let inner = self.inner.lock();
        if let Some(front) = inner.fronts.get(name).and_then(WeakFront::upgrade) {
            return Some(front);
        }
        let mut of_app = inner.fronts.iter().filter(|(other, _)| other.app == name.app);
        let mut living = of_app.by_ref().filter_map(|(_, front)| front.upgrade());
        living.next().filter(|_| living.next().is_none())
    }

    /// A node can be reached, or can be reached elsewhere.
    pub(crate) fn up(&self, number: u8, way: Arc<Way>) {
        let mut inner = self.inner.lock();
        for (name, front) in inner.living() {
            front.add_node(number, way.to(&name));
        }
        inner.up.insert(number, way);
    }

    /// It cannot any more.
    pub(crate) fn down(&self, number: u8) {
        let mut inner = self.inner.lock();
        inner.up.remove(&number);
        for (_, front) in inner.living() {
            front.lost_node(number);
        }
    }

    pub(crate) fn stats(&self) -> Vec<(Name, FrontStats)> {
        let mut living = self.inner.lock().living();
        living.sort_by(|(one, _), (other, _)| one.cmp(other));
        living.into_iter().map(|(name, front)| (name, front.stats())).collect()
    }
}
