//! Acknowledgements one socket owes.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};

use crate::packet::Args;

/// Who waits for an acknowledgement. Dropping it tells them that none will come.
#[derive(Debug)]
pub(crate) enum Waiter {
    One(oneshot::Sender<Args>),
    /// A broadcast: unbounded, but at most one value per recipient is ever sent.
    Many(mpsc::UnboundedSender<Args>),
}

impl Waiter {
    pub(crate) fn resolve(self, args: Args) {
        // The other side may have given up: then nobody wants to know.
        match self {
            Waiter::One(sender) => drop(sender.send(args)),
            Waiter::Many(sender) => drop(sender.send(args)),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Acks {
    closed: bool,
    waiting: HashMap<u64, Waiter>,
}

/// Why an acknowledgement cannot be waited for.
pub(crate) enum Refused {
    Closed,
    TooMany,
}

impl Acks {
    pub(crate) fn insert(&mut self, id: u64, waiter: Waiter, most: usize) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        if self.waiting.len() >= most {
            return Err(Refused::TooMany);
        }
        self.waiting.insert(id, waiter);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn take(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&id);
        if self.waiting.is_empty() {
            // Sockets live long and are many: an idle one holds no table.
            self.waiting = HashMap::new();
        }
        waiter
    }

    /// No acknowledgement will come any more; returns those who wait.
    pub(crate) fn close(&mut self) -> HashMap<u64, Waiter> {
        self.closed = true;
        std::mem::take(&mut self.waiting)
    }
}
