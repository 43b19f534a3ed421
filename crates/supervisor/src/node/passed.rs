//! Connections that reach the worker through the pipe its preload reads, instead of Node's own messages: the same
//! hand-over for a fraction of the work on both sides.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use sundew_channel::node::{Carries, Verdict};
use sundew_router::{Front, HandOff};

use super::Node;

/// What is on its way, until the worker confirms it.
#[derive(Debug)]
pub(crate) enum Passed {
    /// A client's connection, and where it goes when this worker does not take it.
    Client { connection: HandOff, front: Front },
    /// The worker's end of a leg.
    Leg(OwnedFd),
}

impl AsFd for Passed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Client { connection, .. } => connection.socket.as_fd(),
            Self::Leg(fd) => fd.as_fd(),
        }
    }
}

impl Passed {
    fn is_client(&self) -> bool {
        matches!(self, Self::Client { .. })
    }
}

/// The number by which a worker knows one of its servers on the pipe; 0: it does not take its connections there.
pub(crate) type ServerNumber = Arc<AtomicU32>;

impl Node {
    /// The number of the server of this name. It changes when the worker asks for the same address again.
    pub(crate) fn server_number(&self, key: &str) -> ServerNumber {
        self.servers.lock().entry(key.to_owned()).or_default().clone()
    }

    /// The worker told the number of the server that asks for this address.
    pub(crate) fn server_is(&self, key: &str, number: Option<u32>) {
        self.server_number(key).store(number.unwrap_or(0), Ordering::Relaxed);
    }

    /// It closed that server. Who still sends to it does so by Node's own messages, which find the next one of this name.
    pub(crate) fn forget_server(&self, key: &str) {
        if let Some(number) = self.servers.lock().remove(key) {
            number.store(0, Ordering::Relaxed);
        }
    }

    /// Reads what the worker says of what was sent to it.
    pub(crate) async fn read_verdicts(&self) {
        let Some(pipe) = &self.pipe else { return };
        pipe.run(|verdict| {
            self.pulse.answered(&self.app, self.id);
            match verdict {
                Verdict::Taken(Passed::Client { connection, .. }) => self.count_taken(&connection),
                Verdict::Refused(Passed::Client { connection, front }) => {
                    front.reroute(connection, Some(self.id));
                }
                // The front door hears of a leg that was not taken by its end.
                Verdict::Taken(Passed::Leg(_)) | Verdict::Refused(Passed::Leg(_)) => {}
            }
        })
        .await;
    }

    /// Sends it through the pipe, if the worker takes connections of this server there.
    pub(super) fn pass(&self, server: u32, passed: Passed) -> Result<(), Passed> {
        let Some(pipe) = self.pipe.as_ref().filter(|_| server != 0) else { return Err(passed) };
        let carries = if passed.is_client() { Carries::Client } else { Carries::Leg };
        match pipe.send(server, carries, passed) {
            Ok(first) => {
                if first {
                    self.pulse.watch();
                }
                Ok(())
            }
            Err((passed, _)) => Err(passed),
        }
    }

    /// Since when the oldest of them waits.
    pub(super) fn oldest_passed(&self) -> Option<Instant> {
        self.pipe.as_ref()?.oldest()
    }

    /// The same of clients' connections, and how many there are.
    pub(super) fn clients_passed(&self) -> (Option<Instant>, usize) {
        self.pipe.as_ref().map_or((None, 0), |pipe| pipe.waiting(Passed::is_client))
    }

    /// Clients' connections that were not sent yet go elsewhere. How many.
    pub(super) fn reroute_not_passed(&self) -> usize {
        let unsent = self.pipe.as_ref().map(|pipe| pipe.take_unsent(Passed::is_client)).unwrap_or_default();
        self.reroute_passed(unsent)
    }

    /// The worker is gone: what it never took goes elsewhere.
    pub(super) fn close_pipe(&self) {
        let left = self.pipe.as_ref().map(|pipe| pipe.close()).unwrap_or_default();
        self.reroute_passed(left);
    }

    fn reroute_passed(&self, left: Vec<Passed>) -> usize {
        let clients = left.into_iter().filter_map(|passed| match passed {
            Passed::Client { connection, front } => Some((connection, front)),
            Passed::Leg(_) => None,
        });
        clients.map(|(connection, front)| front.reroute(connection, Some(self.id))).count()
    }
}
