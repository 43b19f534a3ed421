//! What one worker was given by a front door, and what became of it. Counted per process: one that takes another's place
//! begins at zero.

use crate::stats::{Counter, counters};

counters! {
    /// What a worker was given since it was started, and what became of it. All but `in_flight` only grow.
    WorkerStats of Tally, beside
    /// Requests it is working on now.
    in_flight:
    /// Requests for a new session that it answered, or that were handed over with their connection.
    handshakes,
    /// Connections handed over to it.
    handed_off,
    /// Requests it answered over a leg.
    proxied,
    /// Upgrades that run through a leg.
    tunnelled,
    /// Connections that came back from it: part of those handed over.
    returned,
    /// Requests for which it could not be reached.
    unreachable,
    /// Requests whose leg ended before an answer.
    unanswered,
    /// Answers that are no HTTP.
    invalid,
    /// Answers that ended in the middle.
    cut,
    /// Requests whose body or answer stood still for too long.
    stalled,
    /// Requests whose client went away before the answer was complete.
    client_gone,
}
