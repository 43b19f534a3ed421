//! The head of a 101 that waits for the first bytes of what the connection becomes, so that both leave in one write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the head begins. Whatever else is written is never held.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// A request extension: lets whoever answers an upgrade request, and takes the connection over with
/// [`recover`](crate::recover), have the head of its 101 leave together with its own first bytes. Only for a server that
/// speaks first after an upgrade: the client hears nothing before that.
#[derive(Debug, Clone, Default)]
pub struct HoldHead(Arc<AtomicBool>);

impl HoldHead {
    /// The head of the answer, if that is a 101, is given to whoever takes the connection over, and not written.
    pub fn hold(&self) {
        // Service and connection are polled by the same task.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection's side of it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    wanted: HoldHead,
    bytes: Vec<u8>,
}

impl Held {
    pub(crate) fn handle(&self) -> HoldHead {
        self.wanted.clone()
    }

    /// Whether what is written now is held: from the head of a 101 on, nothing else is.
    pub(crate) fn takes(&mut self, first: &[u8]) -> bool {
        if !self.bytes.is_empty() {
            return true;
        }
        if !self.wanted.0.load(Ordering::Relaxed) {
            return false;
        }
        // Somebody between made it another answer: it is not for us.
        let takes = first.starts_with(SWITCHING);
        self.wanted.0.store(takes, Ordering::Relaxed);
        takes
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
