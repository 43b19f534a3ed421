//! The requests of a session on polling.

use super::{CLOSE_PACKET, Machine, NOOP_PACKET, Phase, Probe, Refused};
use crate::proto::dialect::Answer;
use crate::{CloseReason, Transport};

impl Machine {
    /// A poll came in. It is answered by [`poll_get`](Machine::poll_get), now or later.
    pub(crate) fn get_opened(&mut self) -> Result<(), Refused> {
        self.polling_allowed()?;
        if self.get {
            self.end(CloseReason::TransportError);
            return Err(Refused::Overlap);
        }
        (self.get, self.polled) = (true, true);
        Ok(())
    }

    /// The answer of the waiting poll, when there is one to give.
    pub(crate) fn poll_get(&mut self) -> Option<Answer> {
        if !self.get {
            return None;
        }
        let answer = match self.phase {
            Phase::Closed(_) | Phase::Lingering(..) => self.last_word(CLOSE_PACKET),
            // What is queued is for the connection the session has moved to, and in that one's framing.
            Phase::Open | Phase::Closing(..) if self.transport != Transport::Polling => {
                self.last_word(NOOP_PACKET)
            }
            // The close packet gets an answer of its own: socket.io-client hands messages on a tick later than it obeys a
            // close packet, so it would drop those of the same payload.
            Phase::Closing(..) if !self.outbox.is_empty() => self.outbox.take_answer(&self.dialect),
            Phase::Closing(reason, _) => {
                self.phase = Phase::Closed(reason);
                self.dialect.control(CLOSE_PACKET)
            }
            Phase::Open if !self.outbox.is_empty() => self.outbox.take_answer(&self.dialect),
            // No timer: a client that probes waits for its poll to return before it upgrades.
            Phase::Open if matches!(self.probe, Probe::Probed(_)) => self.dialect.control(NOOP_PACKET),
            Phase::Open => return None,
        };
        self.get = false;
        Some(answer)
    }

    /// The client of the waiting poll is gone, or its answer was lost.
    pub(crate) fn get_lost(&mut self) {
        self.get = false;
        self.request_lost();
    }

    /// A body is coming in.
    pub(crate) fn post_opened(&mut self) -> Result<(), Refused> {
        self.polling_allowed()?;
        if self.post {
            self.end(CloseReason::TransportError);
            return Err(Refused::Overlap);
        }
        self.post = true;
        Ok(())
    }

    /// The body was received, or refused for its size: the session goes on.
    pub(crate) fn post_done(&mut self) {
        self.post = false;
    }

    /// The client went away in the middle of its body, or sent one of a kind that is not allowed.
    pub(crate) fn post_failed(&mut self) {
        self.post = false;
        self.request_lost();
    }

    /// What becomes of a request of a session that has left polling since is no matter.
    fn request_lost(&mut self) {
        if self.transport == Transport::Polling {
            self.end(CloseReason::TransportError);
        }
    }

    fn polling_allowed(&self) -> Result<(), Refused> {
        if self.is_gone() {
            Err(Refused::Unknown)
        } else if self.transport != Transport::Polling {
            Err(Refused::WrongTransport)
        } else {
            Ok(())
        }
    }
}
