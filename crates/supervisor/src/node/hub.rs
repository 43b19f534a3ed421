//! Carries the messages of @socket.io/cluster-adapter between the workers of one app: what its `setupPrimary()` does in a
//! Node primary. Frames are passed on as they came, byte by byte, so binary data stays what it is; the hub reads only who
//! they are for.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use sundew_channel::node::{Requester, ToWorker};

use super::Node;

/// Between two warnings about one worker.
const AGAIN: Duration = Duration::from_secs(10);
/// Adapters (one per namespace) a worker may have that are remembered by name. Answers to others go to everybody.
const UIDS: usize = 4096;

/// The workers of one app that use the adapter.
#[derive(Default)]
pub(crate) struct Hub {
    members: Mutex<Vec<Member>>,
}

struct Member {
    node: Weak<Node>,
    /// Its adapters and the namespace of each.
    uids: HashMap<String, String>,
    /// Its adapter is of version 0.2, which has no uids: workers are known by their number.
    old: bool,
    /// Messages it did not get, and were not told of yet.
    lost: u64,
    /// When that was told last.
    told: Option<Instant>,
}

/// What a message says about its way.
pub(crate) struct Envelope {
    /// The adapter that sent it, and its namespace.
    pub(crate) uid: Option<(String, String)>,
    /// It is an answer: for the one that asked.
    pub(crate) requester: Option<Requester>,
    pub(crate) frame: Bytes,
}

impl Hub {
    /// Passes a message on. Its sender is a member from now on.
    pub(crate) fn relay(&self, from: &Arc<Node>, envelope: Envelope) {
        let Envelope { uid, requester, frame } = envelope;
        let mut members = self.members.lock();
        // What is left to read of a worker that is gone would make it a member for ever: the others know it is gone.
        if from.is_gone() {
            return;
        }
        let index = match members.iter().position(|member| member.is(from)) {
            Some(index) => index,
            None => {
                let node = Arc::downgrade(from);
                members.push(Member { node, uids: HashMap::new(), old: uid.is_none(), lost: 0, told: None });
                members.len() - 1
            }
        };
        let sender = &mut members[index];
        let new = uid.filter(|(uid, _)| sender.uids.len() < UIDS && !sender.uids.contains_key(uid));
        sender.uids.extend(new);
        let asked = |member: &Member| match &requester {
            Some(Requester::Uid(uid)) => member.uids.contains_key(uid),
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

    /// A worker is gone. The others would wait for its answers for ten seconds more, and fail their fetches and
    /// acknowledged broadcasts: they are told.
    pub(super) fn leave(&self, node: &Node) {
        let mut members = self.members.lock();
        let Some(at) = members.iter().position(|member| std::ptr::eq(member.node.as_ptr(), node)) else {
            return;
        };
        let gone = members.remove(at);
        for member in members.iter() {
            let Some(other) = member.node.upgrade() else { continue };
            if let Some(worker) = node.unique_id.filter(|_| gone.old && member.old) {
                other.tell(ToWorker::AdapterExit { worker });
            }
            for (uid, nsp) in &gone.uids {
                other.tell(ToWorker::AdapterGone { uid: uid.clone(), nsp: nsp.clone() });
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
        if let Err(error) = node.channel.send(ToWorker::Relay(frame)) {
            self.lost += 1;
            // At once, and then every now and then: it may go on for as long as the worker is too slow.
            if self.told.is_none_or(|at| at.elapsed() > AGAIN) {
                tracing::warn!(app = node.app, worker = %node.id, %error, lost = self.lost, "broadcasts of other workers do not reach the worker");
                self.told = Some(Instant::now());
                self.lost = 0;
            }
        }
    }
}
