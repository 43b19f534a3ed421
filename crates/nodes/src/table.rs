//! The nodes there are, as far as is known here. Plain data; no sockets.

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::wire::{Identity, Request};

/// Another node.
pub(crate) struct Known {
    pub(crate) identity: Identity,
    /// While it can be reached: what it is asked by.
    pub(crate) link: Option<mpsc::Sender<Asked>>,
    pub(crate) heard: Instant,
}

/// A question on its way to a node.
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// Gets the answer.
    pub(crate) answer: mpsc::Sender<(u8, bool)>,
}

/// What became of a node that answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// It is known now, and can be reached.
    Up,
    /// It has the number of another one that can be reached.
    Taken(String),
}

/// By number.
#[derive(Default)]
pub(crate) struct Table {
    known: Mutex<BTreeMap<u8, Known>>,
}

/// A node, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number in session ids.
    pub number: u8,
    /// Where the others reach it.
    pub addr: String,
    /// `self`, `up` or `down`.
    pub state: String,
    /// Milliseconds since its last sign of life.
    pub heard_ms: u64,
}

impl Table {
    /// It answered over this link.
    pub(crate) fn met(&self, number: u8, identity: &Identity, link: mpsc::Sender<Asked>) -> Met {
        let mut known = self.known.lock();
        if let Some(before) = known.get(&number)
            && before.identity.id != identity.id
            && before.link.is_some()
        {
            return Met::Taken(before.identity.addr.clone());
        }
        let heard = Instant::now();
        known.insert(number, Known { identity: identity.clone(), link: Some(link), heard });
        Met::Up
    }

    pub(crate) fn heard(&self, number: u8) {
        if let Some(known) = self.known.lock().get_mut(&number) {
            known.heard = Instant::now();
        }
    }

    /// That link has ended. Whether the node cannot be reached now: there may be a newer link.
    pub(crate) fn lost(&self, number: u8, link: &mpsc::Sender<Asked>) -> bool {
        let mut known = self.known.lock();
        let Some(node) = known.get_mut(&number) else { return false };
        if node.link.as_ref().is_some_and(|current| current.same_channel(link)) {
            node.link = None;
        }
        node.link.is_none()
    }

    /// It is no member any more.
    pub(crate) fn forget(&self, addr: &str) {
        self.known.lock().retain(|_, node| node.identity.addr != addr || node.link.is_some());
    }

    /// The links of all nodes that can be reached, and whether those are all nodes.
    pub(crate) fn links(&self) -> (Vec<(u8, mpsc::Sender<Asked>)>, bool) {
        let known = self.known.lock();
        let links: Vec<_> =
            known.iter().filter_map(|(number, node)| Some((*number, node.link.clone()?))).collect();
        let all = links.len() == known.len();
        (links, all)
    }

    pub(crate) fn infos(&self) -> Vec<NodeInfo> {
        let known = self.known.lock();
        let info = |(number, node): (&u8, &Known)| NodeInfo {
            number: *number,
            addr: node.identity.addr.clone(),
            state: if node.link.is_some() { "up" } else { "down" }.to_owned(),
            heard_ms: u64::try_from(node.heard.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        known.iter().map(info).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: &str, addr: &str) -> Identity {
        Identity { id: id.to_owned(), run: "r".to_owned(), number: Some(1), addr: addr.to_owned() }
    }

    fn link() -> mpsc::Sender<Asked> {
        mpsc::channel(1).0
    }

    #[test]
    fn a_number_belongs_to_one_node_that_can_be_reached() {
        let table = Table::default();
        let first = link();
        assert_eq!(table.met(1, &identity("a", "a:1"), first.clone()), Met::Up);
        assert_eq!(table.met(1, &identity("b", "b:1"), link()), Met::Taken("a:1".to_owned()));
        assert!(table.lost(1, &first));
        assert_eq!(table.met(1, &identity("b", "b:1"), link()), Met::Up);
        assert_eq!(table.links().0.len(), 1);
    }

    #[test]
    fn a_node_that_came_back_elsewhere_is_not_lost_with_its_old_link() {
        let table = Table::default();
        let (old, new) = (link(), link());
        table.met(1, &identity("a", "a:1"), old.clone());
        assert_eq!(table.met(1, &identity("a", "a:2"), new.clone()), Met::Up);
        assert!(!table.lost(1, &old), "the new link is there");
        assert_eq!(table.infos()[0].addr, "a:2");
        assert!(table.lost(1, &new));
        assert_eq!(table.infos()[0].state, "down");
        table.forget("a:2");
        assert!(table.infos().is_empty());
    }
}
