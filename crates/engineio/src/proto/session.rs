//! One session as a state machine.
//!
//! Its methods come in three kinds: what happened (`get_opened`, `packet`, `close`, ...), the passing of time
//! (`handle_timeout`, with `poll_timeout` saying when), and what is to be done now (`poll_get` for a waiting poll,
//! `outbox` for a websocket, `over` for the protocol above). None of them blocks, none has a clock but the one it is given.

mod end;
mod polling;
mod upgrade;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::deflate::Deflater;
use super::dialect::Dialect;
use super::outbox::Outbox;
use super::packet::Packet;
use super::websocket;
use crate::{CloseReason, Frames, Message, ProtocolVersion, Transport, Transports};

const PING: Bytes = Bytes::from_static(b"\x81\x012");
/// One of the websocket's own, for clients whose protocol has none in this direction.
const WEBSOCKET_PING: Bytes = Bytes::from_static(b"\x89\0");
const CLOSE_PACKET: &str = "1";
const NOOP_PACKET: &str = "6";
const PONG_PACKET: &str = "3";
pub(crate) const PROBE_ANSWER: &str = "3probe";

/// The options the rules depend on.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) upgrade_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) max_queued_bytes: usize,
    pub(crate) max_queued_packets: usize,
    /// What a polling session may move to.
    pub(crate) upgrades: Transports,
}

/// A request the session does not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The session is over: 400, code 1.
    Unknown,
    /// It has left polling: 400, code 3.
    WrongTransport,
    /// A second poll, or a second body, at the same time: 400 without a body, and the session is over.
    Overlap,
}

/// A message that cannot be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsendable {
    Full,
    Closed,
}

/// What a probe's connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeStep {
    /// Answer with [`PROBE_ANSWER`] and go on.
    Pong,
    /// The session is on this connection now.
    Upgraded,
    /// Close this connection; the session stays where it is.
    Failed,
}

/// Which probe is meant: an old one may report late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeId(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// This side has closed; what is queued, then the last word, has until then to leave.
    Closing(CloseReason, Instant),
    /// The last word is written; the peer has until then to end the connection.
    Lingering(CloseReason, Instant),
    Closed(CloseReason),
}

#[derive(Debug, Clone, Copy)]
enum Heartbeat {
    PingAt(Instant),
    /// A pong is awaited. The first packet that is none moves the end once (engine.io 6.6.12).
    PongBy(Instant, Extended),
    /// Version 3: the client pings, and has to by then.
    PingBy(Instant),
}

type Extended = bool;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    None,
    /// A connection of this transport is there and has said nothing yet.
    Silent(Transport),
    /// It has sent `2probe`: polls are answered at once from now on.
    Probed(Transport),
}

#[derive(Debug)]
pub(crate) struct Machine {
    settings: std::sync::Arc<Settings>,
    phase: Phase,
    transport: Transport,
    dialect: Dialect,
    heartbeat: Heartbeat,
    probe: Probe,
    probes: u32,
    probe_until: Option<Instant>,
    /// A poll waits.
    get: bool,
    /// A poll has come since the heartbeat last asked for one.
    polled: bool,
    /// A body is being received.
    post: bool,
    /// Nothing is read from the peer at the moment, so its pong may be waiting unread.
    paused: bool,
    /// What a waiting poll is answered with when there is nothing else to say.
    word: Option<&'static str>,
    /// Compresses messages, on a websocket that has agreed to it.
    deflater: Option<Box<Deflater>>,
    outbox: Outbox,
}

impl Machine {
    /// A session that has just been accepted on `transport`; `open` is its open packet.
    pub(crate) fn new(
        settings: std::sync::Arc<Settings>,
        transport: Transport,
        dialect: Dialect,
        open: Frames,
        now: Instant,
    ) -> Machine {
        let mut machine = Machine {
            phase: Phase::Open,
            transport,
            dialect,
            heartbeat: match dialect.version {
                ProtocolVersion::V4 => Heartbeat::PingAt(now + settings.ping_interval),
                ProtocolVersion::V3 => {
                    Heartbeat::PingBy(now + settings.ping_interval + settings.ping_timeout)
                }
            },
            probe: Probe::None,
            probes: 0,
            probe_until: None,
            // The handshake request of a polling session is its first poll.
            get: transport == Transport::Polling,
            polled: true,
            post: false,
            paused: false,
            word: None,
            deflater: None,
            outbox: Outbox::default(),
            settings,
        };
        machine.queue(open);
        machine
    }

    /// A session that comes from another process, where it was at rest on a websocket.
    pub(crate) fn resumed(settings: std::sync::Arc<Settings>, now: Instant) -> Machine {
        let mut machine =
            Machine::new(settings, Transport::Websocket, Dialect::V4, Frames::raw(Bytes::new()), now);
        machine.outbox.clear();
        machine
    }

    // --- What is so ---

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Why the session is over, once it is: the protocol above is told at once, even if last output is still leaving.
    pub(crate) fn over(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::Open => None,
            Phase::Closing(reason, _) | Phase::Lingering(reason, _) | Phase::Closed(reason) => Some(reason),
        }
    }

    /// Whether the session's id means nothing any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Lingering(..) | Phase::Closed(_))
    }

    /// Whether all is said on the connection and only its end is waited for.
    pub(crate) fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering(..))
    }

    /// Whether nothing at all is left to be done.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// Whether a poll waits for an answer.
    pub(crate) fn has_get(&self) -> bool {
        self.get
    }

    /// Whether a message sent now would leave at once, which those of `volatile` want to know. `writable`: the connection takes
    /// something, if there is one to write to.
    pub(crate) fn is_ready(&self, writable: bool) -> bool {
        self.is_open()
            && match self.transport {
                Transport::Polling => self.get || self.outbox.is_empty(),
                Transport::Websocket | Transport::WebTransport => writable,
            }
    }

    /// What waits to be written, for a websocket or WebTransport.
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether the outbox is at most half full.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.bytes() <= self.settings.max_queued_bytes / 2
            && self.outbox.packets() <= self.settings.max_queued_packets / 2
    }

    /// Whether so much would be taken. One that is larger than the bound still gets through when it is alone.
    fn fits(&self, bytes: usize, packets: usize) -> bool {
        self.outbox.is_empty()
            || (self.outbox.bytes().saturating_add(bytes) <= self.settings.max_queued_bytes
                && self.outbox.packets().saturating_add(packets) <= self.settings.max_queued_packets)
    }

    /// Whether these would be taken.
    pub(crate) fn has_room_for(&self, bytes: usize, packets: usize) -> bool {
        // Version 3 may want them in base64.
        let most = if self.dialect.version == ProtocolVersion::V3 { bytes.saturating_mul(2) } else { bytes };
        self.fits(most, packets)
    }

    /// Whether it could go on elsewhere from here: on a websocket, and everything said. A body that was under way when it left
    /// polling is still to be worked off here.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_open()
            && self.transport == Transport::Websocket
            && self.dialect.version == ProtocolVersion::V4
            && self.deflater.is_none()
            && !self.paused
            && !self.post
            && self.outbox.is_empty()
    }

    // --- Sending ---

    pub(crate) fn send(&mut self, frames: Frames) -> Result<(), (Unsendable, Frames)> {
        if !self.is_open() {
            return Err((Unsendable::Closed, frames));
        }
        let adapted = match self.dialect.version {
            ProtocolVersion::V4 => None,
            ProtocolVersion::V3 => frames.for_v3(self.dialect.binary),
        };
        let size = adapted.as_ref().map_or(frames.len(), Frames::len);
        if !self.fits(size, frames.packets()) {
            return Err((Unsendable::Full, frames));
        }
        let mut frames = adapted.unwrap_or(frames);
        if let Some(deflater) = &mut self.deflater
            && let Some(deflated) = deflater.frames(&frames)
        {
            frames = deflated;
        }
        self.queue(frames);
        Ok(())
    }

    /// Queues what is to be sent, as the transport wants it.
    fn queue(&mut self, frames: Frames) {
        match self.transport {
            // Until it is fetched, it takes as much memory as it needs.
            Transport::Polling => self.outbox.push(frames.shared()),
            Transport::Websocket => self.outbox.join(frames),
            Transport::WebTransport => frames.unwrapped().for_each(|piece| self.outbox.push(piece)),
        }
    }

    /// The websocket the session is on has agreed to compression: from the first message on, those that wait included.
    pub(crate) fn compress_with(&mut self, mut deflater: Box<Deflater>) {
        self.outbox.change(|frames| deflater.frames(frames));
        self.deflater = Some(deflater);
    }

    /// Queues the answer to a websocket ping. A peer that reads nothing gets none: its pings must not fill the memory.
    pub(crate) fn control(&mut self, frame: Bytes) {
        if self.is_open() && self.has_room() {
            self.outbox.push(Frames::raw(frame));
        }
    }

    /// `count` bytes of the outbox were written to the connection.
    pub(crate) fn written(&mut self, count: usize) {
        self.outbox.advance(count);
        if self.outbox.is_empty()
            && let Phase::Closing(reason, until) = self.phase
            && self.transport != Transport::Polling
        {
            self.phase = Phase::Lingering(reason, until);
        }
    }

    // --- Packets ---

    /// Whether it learns something from a message. If not, and as long as it is open, it need not see one.
    pub(crate) fn is_attentive(&self) -> bool {
        matches!(self.heartbeat, Heartbeat::PongBy(_, false))
    }

    /// A packet arrived on the session's transport; a message is handed back. Few packets need the time.
    pub(crate) fn packet(&mut self, packet: Packet, now: impl Fn() -> Instant) -> Option<Message> {
        if !self.is_open() {
            return None;
        }
        match (&packet, self.dialect.version) {
            (Packet::Pong, ProtocolVersion::V4) => {
                self.heartbeat = Heartbeat::PingAt(now() + self.settings.ping_interval);
                return None;
            }
            (Packet::Ping(_), ProtocolVersion::V3) => {
                self.heartbeat = Heartbeat::PingBy(self.silence(now()));
                // The client asks again in time; a queue that is full already needs no answer.
                if self.has_room() {
                    self.queue(Frames::control(PONG_PACKET));
                }
                return None;
            }
            _ => {}
        }
        if let Heartbeat::PongBy(until, extended @ false) = &mut self.heartbeat {
            *extended = true;
            *until = now() + self.settings.ping_timeout;
        }
        match packet {
            Packet::Message(message) => return Some(message),
            // In version 4 only the server pings, in version 3 only the client.
            Packet::Ping(_) | Packet::Pong => self.fail(CloseReason::TransportError, websocket::CLOSE, now()),
            Packet::Close => {
                self.word = Some(NOOP_PACKET);
                self.fail(CloseReason::TransportClose, websocket::CLOSE, now());
            }
            // Node ignores these too.
            Packet::Open | Packet::Upgrade | Packet::Noop => {}
        }
        None
    }

    /// Something arrived that is no packet.
    pub(crate) fn unreadable(&mut self, now: Instant) {
        self.fail(CloseReason::ParseError, websocket::CLOSE, now);
    }

    /// The peer broke a rule of the framing, or sent a close frame; `frame` is the answer on a websocket.
    pub(crate) fn connection_failed(&mut self, reason: CloseReason, frame: Bytes, now: Instant) {
        self.fail(reason, frame, now);
    }

    /// The connection has ended.
    pub(crate) fn disconnected(&mut self) {
        let reason = self.over().unwrap_or(CloseReason::TransportClose);
        self.phase = Phase::Closed(reason);
        self.outbox.clear();
    }

    /// Ends the session at once, for this reason.
    pub(crate) fn forget(&mut self, reason: CloseReason) {
        self.end(reason);
    }

    /// Nobody is left to serve the session: its task was stopped, or panicked.
    pub(crate) fn abort(&mut self) {
        self.end(CloseReason::TransportError);
    }

    /// Reading stops, or goes on again, because the protocol above is behind. A pong that waits unread is no reason
    /// to give the client up.
    pub(crate) fn set_paused(&mut self, paused: bool, now: Instant) {
        if self.paused && !paused {
            let silence = self.silence(now);
            match &mut self.heartbeat {
                Heartbeat::PongBy(until, _) => *until = now + self.settings.ping_timeout,
                Heartbeat::PingBy(until) => *until = silence,
                Heartbeat::PingAt(_) => {}
            }
        }
        self.paused = paused;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Until when a client of version 3 may be silent.
    fn silence(&self, now: Instant) -> Instant {
        now + self.settings.ping_interval + self.settings.ping_timeout
    }
}
