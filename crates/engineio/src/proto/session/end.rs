//! What time brings, and every way a session ends.

use std::time::Instant;

use bytes::Bytes;

use super::{Heartbeat, Machine, PING, Phase, Probe, WEBSOCKET_PING};
use crate::proto::dialect::Answer;
use crate::proto::websocket;
use crate::{CloseReason, Frames, ProtocolVersion, Transport};

impl Machine {
    /// When [`handle_timeout`](Machine::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open => {
                let (Heartbeat::PingAt(at) | Heartbeat::PongBy(at, _) | Heartbeat::PingBy(at)) =
                    self.heartbeat;
                Some(self.probe_until.map_or(at, |until| until.min(at)))
            }
            Phase::Closing(_, until) | Phase::Lingering(_, until) => Some(until),
            Phase::Closed(_) => None,
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Open => {}
            Phase::Closing(_, until) | Phase::Lingering(_, until) => {
                if until <= now {
                    self.disconnected();
                }
                return;
            }
            Phase::Closed(_) => return,
        }
        if self.probe_until.is_some_and(|until| until <= now) {
            self.clear_probe();
        }
        match self.heartbeat {
            Heartbeat::PingAt(at) if at <= now => {
                self.heartbeat = Heartbeat::PongBy(now + self.settings.ping_timeout, false);
                self.ping();
            }
            Heartbeat::PongBy(until, _) | Heartbeat::PingBy(until) if until <= now => {
                if self.paused && self.may_be_there() {
                    self.knock();
                    self.heartbeat = match self.heartbeat {
                        Heartbeat::PongBy(_, extended) => {
                            Heartbeat::PongBy(now + self.settings.ping_timeout, extended)
                        }
                        _ => Heartbeat::PingBy(self.silence(now)),
                    };
                } else {
                    // The peer takes nothing: what is queued for it would only hold memory.
                    self.outbox.discard();
                    self.fail(CloseReason::PingTimeout, websocket::CLOSE, now);
                }
            }
            _ => {}
        }
    }

    /// Asks the client for a sign of life. One that takes nothing, but says all the same that it is there, is asked once: its
    /// pings must not fill the memory.
    fn ping(&mut self) {
        if !self.outbox.has_ping() {
            self.queue(Frames::raw(PING));
            self.outbox.mark_ping();
        }
    }

    /// Whether a client that is not read from may still be there. Its requests tell when they are lost; on polling, one without
    /// any is gone.
    fn may_be_there(&mut self) -> bool {
        let polls = std::mem::take(&mut self.polled) || self.get || self.post;
        self.transport != Transport::Polling || polls
    }

    /// Sends something to a client that is not read from: a connection that has ended says so when it is written to, and clients
    /// give up servers that do not ping.
    fn knock(&mut self) {
        if self.outbox.is_empty() {
            match (self.dialect.version, self.transport) {
                (ProtocolVersion::V4, _) => self.ping(),
                (ProtocolVersion::V3, Transport::Websocket) => {
                    self.outbox.push(Frames::raw(WEBSOCKET_PING));
                }
                (ProtocolVersion::V3, _) => {}
            }
        }
    }

    /// This side closes. What is queued leaves first, within the close timeout.
    pub(crate) fn close(&mut self, reason: CloseReason, now: Instant) {
        if self.is_open() {
            if !matches!(self.probe, Probe::Probed(_)) {
                self.clear_probe();
            }
            match self.transport {
                Transport::Polling => {
                    self.phase = Phase::Closing(reason, now + self.settings.close_timeout);
                }
                Transport::Websocket | Transport::WebTransport => {
                    self.last_output(reason, websocket::CLOSE, now);
                }
            }
        }
    }

    /// What is queued leaves, then the last word: on a websocket that is `frame`. WebTransport has none in its stream; its
    /// end is the connection's to tell.
    pub(super) fn last_output(&mut self, reason: CloseReason, frame: Bytes, now: Instant) {
        let until = now + self.settings.close_timeout;
        if self.transport == Transport::Websocket {
            self.outbox.push(Frames::raw(frame));
        }
        self.phase = match self.outbox.is_empty() {
            true => Phase::Lingering(reason, until),
            false => Phase::Closing(reason, until),
        };
    }

    /// The session goes on in another process. What is queued leaves first, but no close frame: its connection lives on.
    pub(crate) fn move_away(&mut self, now: Instant) {
        if self.is_open() {
            let until = now + self.settings.close_timeout;
            self.phase = if self.outbox.is_empty() {
                Phase::Lingering(CloseReason::Moved, until)
            } else {
                Phase::Closing(CloseReason::Moved, until)
            };
        }
    }

    /// Its connection has come after it. How long ago its last ping was is not known, so one is due.
    pub(crate) fn arrived(&mut self, now: Instant) {
        if self.is_open() {
            self.heartbeat = Heartbeat::PongBy(now + self.settings.ping_timeout, false);
            self.ping();
        }
    }

    /// The session cannot go on: polling ends at once, anything else has its last word, on a websocket `frame`.
    pub(super) fn fail(&mut self, reason: CloseReason, frame: Bytes, now: Instant) {
        if !self.is_open() {
            return;
        }
        match self.transport {
            Transport::Polling => self.end(reason),
            Transport::Websocket | Transport::WebTransport => self.last_output(reason, frame, now),
        }
    }

    /// Ends the session at once. A poll that waits gets a last word.
    pub(super) fn end(&mut self, reason: CloseReason) {
        let reason = self.over().unwrap_or(reason);
        self.phase = Phase::Closed(reason);
        self.clear_probe();
        self.outbox.clear();
    }

    pub(super) fn last_word(&mut self, default: &'static str) -> Answer {
        self.dialect.control(self.word.take().unwrap_or(default))
    }
}
