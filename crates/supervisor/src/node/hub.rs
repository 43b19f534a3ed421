//! Carries the messages of @socket.io/cluster-adapter between the workers of one app: what its `setupPrimary()` does in a
//! Node primary. Frames are passed on as they came, byte by byte, so binary data stays what it is; the hub reads only who
//! they are for.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use sundew_channel::node::{Requester, ToWorker};

use super::Node;

/// Adapters (one per namespace) a worker may have that are remembered by name. Answers to others go to everybody.
const UIDS: usize = 4096;

/// The workers of one app that use the adapter.
#[derive(Default)]
pub(crate) struct Hub {
    members: Mutex<Vec<Member>>,
}

struct Member {
    node: Weak<Node>,
    uids: HashSet<String>,
    /// Its adapter is of version 0.2, which has no uids and has to be told of workers that are gone.
    old: bool,
    /// Messages it did not get since it last kept up.
    lost: u64,
}

/// What a message says about its way.
pub(crate) struct Envelope {
    pub(crate) uid: Option<String>,
    /// It is an answer: for the one that asked.
    pub(crate) requester: Option<Requester>,
    pub(crate) frame: Bytes,
}

impl Hub {
    /// Passes a message on. Its sender is a member from now on.
    pub(crate) fn relay(&self, from: &Arc<Node>, envelope: Envelope) {
        let Envelope { uid, requester, frame } = envelope;
        let mut members = self.members.lock();
        let index = match members.iter().position(|member| member.is(from)) {
            Some(index) => index,
            None => {
                let node = Arc::downgrade(from);
                members.push(Member { node, uids: HashSet::new(), old: uid.is_none(), lost: 0 });
                members.len() - 1
            }
        };
        let sender = &mut members[index];
        if let Some(uid) = uid.filter(|uid| sender.uids.len() < UIDS && !sender.uids.contains(uid)) {
            sender.uids.insert(uid);
        }
        let asked = |member: &Member| match &requester {
            Some(Requester::Uid(uid)) => member.uids.contains(uid),
            Some(Requester::Worker(number)) => {
                member.node.upgrade().is_some_and(|node| node.unique_id == Some(*number))
            }
            None => false,
        };
        let to = members.iter().position(asked);
        for (at, member) in members.iter_mut().enumerate() {
            if at != index && to.is_none_or(|to| to == at) {
                member.send(frame.clone());
            }
        }
    }

    /// A worker is gone.
    pub(super) fn leave(&self, node: &Node) {
        let mut members = self.members.lock();
        let Some(at) = members.iter().position(|member| std::ptr::eq(member.node.as_ptr(), node)) else {
            return;
        };
        let gone = members.remove(at);
        let Some(worker) = node.unique_id.filter(|_| gone.old) else { return };
        for member in members.iter().filter(|member| member.old) {
            if let Some(other) = member.node.upgrade() {
                other.tell(ToWorker::AdapterExit { worker });
            }
        }
    }
}

impl Member {
    fn is(&self, node: &Arc<Node>) -> bool {
        std::ptr::eq(self.node.as_ptr(), Arc::as_ptr(node))
    }

    fn send(&mut self, frame: Bytes) {
        let Some(node) = self.node.upgrade() else { return };
        match node.channel.send(ToWorker::Relay(frame)) {
            Ok(()) => {
                if self.lost > 0 {
                    tracing::warn!(app = node.app, worker = %node.id, lost = self.lost, "the worker reads again: so many broadcasts of other workers did not reach it");
                    self.lost = 0;
                }
            }
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!(app = node.app, worker = %node.id, %error, "broadcasts of other workers do not reach the worker");
                }
                self.lost += 1;
            }
        }
    }
}
