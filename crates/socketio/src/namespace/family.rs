//! Parents and children: what a child has from its parent, and what a parent does to all its children.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::time::sleep_until;

use super::pattern::Params;
use super::table::Handlers;
use super::{Registry, Table};

/// A child is looked at again when this is over.
struct Lingering(Option<Weak<Table>>);

impl Lingering {
    fn over(mut self) {
        if let Some(table) = self.0.take().and_then(|table| table.upgrade()) {
            table.lingers.store(false, Ordering::Relaxed);
            table.tidy();
        }
    }
}

impl Drop for Lingering {
    /// Its runtime has ended before.
    fn drop(&mut self) {
        if let Some(table) = self.0.take().and_then(|table| table.upgrade()) {
            table.lingers.store(false, Ordering::Relaxed);
            if let Some(shared) = table.shared.upgrade() {
                shared.registry.unattended();
            }
        }
    }
}

impl Table {
    pub(crate) fn child_of(mut self, parent: Option<Arc<Table>>, params: Params) -> Table {
        self.parent = parent;
        self.params = params;
        self
    }

    pub(crate) fn parent(mut self) -> Table {
        self.is_parent = true;
        self
    }

    /// Takes this child out if it is empty.
    pub(super) fn tidy(&self) {
        if self.options.cleanup_empty_namespaces
            && let Some(shared) = self.shared.upgrade()
        {
            shared.registry.tidy(self);
        }
    }

    /// Until when it stays although it is empty: clients that have left may come back, and miss nothing that is sent to it
    /// meanwhile.
    pub(super) fn awaited_until(&self) -> Option<Instant> {
        self.recovery.as_ref()?.awaited_until()
    }

    /// Takes this child out then, if it is empty.
    pub(super) fn tidy_at(self: &Arc<Self>, until: Instant, registry: &Registry) {
        let Some(runtime) = registry.runtime() else { return registry.unattended() };
        if self.lingers.swap(true, Ordering::Relaxed) {
            return;
        }
        let lingering = Lingering(Some(Arc::downgrade(self)));
        runtime.spawn(async move {
            sleep_until(until.into()).await;
            lingering.over();
        });
    }

    /// Whether it was a child that has gone.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// The first answer: its own, or its parent's.
    pub(crate) fn inherited<T>(&self, pick: impl Fn(&Handlers) -> Option<T>) -> Option<T> {
        let own = pick(&self.handlers.read());
        own.or_else(|| pick(&self.parent.as_ref()?.handlers.read()))
    }

    /// All answers, its parent's first.
    pub(crate) fn gathered<T>(&self, mut pick: impl FnMut(&Handlers) -> Vec<T>) -> Vec<T> {
        let mut all = match &self.parent {
            Some(parent) => pick(&parent.handlers.read()),
            None => Vec::new(),
        };
        all.append(&mut pick(&self.handlers.read()));
        all
    }

    /// The children there are at this moment.
    pub(crate) fn children(&self) -> Vec<Arc<Table>> {
        self.shared.upgrade().map(|shared| shared.registry.children(self)).unwrap_or_default()
    }

    /// What `take` says of this namespace; of a parent, of each child.
    pub(crate) fn each<T>(&self, mut take: impl FnMut(&Table) -> T) -> Vec<T> {
        if self.is_parent {
            self.children().iter().map(|child| take(child)).collect()
        } else {
            vec![take(self)]
        }
    }
}
