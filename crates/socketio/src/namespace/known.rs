//! The handlers of events, and what a member knows of them: to find one for each event takes no lock and counts nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use super::Table;
use crate::call::EventCall;
use crate::handler::Erased;

/// The handlers of a namespace's events, by name. Copied when they change and somebody knows them.
///
/// Clients choose what is looked up, the app what is in it: no hash needs a key here.
#[derive(Default, Clone)]
pub(super) struct Events(Arc<FxHashMap<Arc<str>, Erased<EventCall>>>);

impl Events {
    pub(super) fn get(&self, event: &str) -> Option<(&Arc<str>, &Erased<EventCall>)> {
        self.0.get_key_value(event)
    }
}

/// The handlers of a namespace's events, and of its parent's, as they were when last looked at.
#[derive(Default)]
pub(crate) struct Known {
    changes: u64,
    own: Option<Events>,
    inherited: Option<Events>,
}

impl Known {
    /// The handler of an event.
    pub(crate) fn find(&mut self, table: &Table, event: &str) -> Option<(&Arc<str>, &Erased<EventCall>)> {
        let changes = table.changes();
        if changes != self.changes {
            // Counted before they are read: a change in between is seen the next time.
            self.changes = changes;
            let own = table.handlers.read().events.clone();
            let inherited = table.parent.as_ref().map(|parent| parent.handlers.read().events.clone());
            // Nothing is locked any more: those known before may be the last of their kind, and what they hold may come back
            // here.
            (self.own, self.inherited) = (Some(own), inherited);
        }
        [&self.own, &self.inherited].into_iter().find_map(|events| events.as_ref()?.get(event))
    }
}

impl Table {
    /// Of both: it only grows.
    fn changes(&self) -> u64 {
        let parent = self.parent.as_ref().map_or(0, |parent| parent.changes.load(Ordering::Acquire));
        self.changes.load(Ordering::Acquire) + parent
    }

    /// Sets or takes away the handler of an event.
    pub(super) fn set_handler(&self, event: &str, handler: Option<Erased<EventCall>>) {
        let mut handlers = self.handlers.write();
        let events = Arc::make_mut(&mut handlers.events.0);
        let set = handler.is_some();
        let before = match handler {
            Some(handler) => events.insert(event.into(), handler),
            None => events.remove(event),
        };
        self.changes.fetch_add(1, Ordering::Release);
        drop(handlers);
        // What it holds may come back here.
        match set {
            true => self.replaced(before, event),
            false => drop(before),
        }
    }
}
