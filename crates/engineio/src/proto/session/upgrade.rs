//! From polling to a websocket or WebTransport: the probe.

use std::time::Instant;

use super::{Heartbeat, Machine, Phase, Probe, ProbeId, ProbeStep};
use crate::proto::packet::Packet;
use crate::proto::websocket;
use crate::{ProtocolVersion, Transport};

impl Machine {
    /// What a session like this may move to.
    pub(crate) fn may_upgrade(&self, to: Transport) -> bool {
        self.transport == Transport::Polling
            && self.settings.upgrades.contains(to)
            // Clients of version 3 know nothing of it.
            && (to == Transport::Websocket || self.dialect.version == ProtocolVersion::V4)
    }

    /// A connection of the transport `to` came with this session's id. `Err`: close it.
    pub(crate) fn probe_opened(&mut self, to: Transport, now: Instant) -> Result<ProbeId, ()> {
        if !self.is_open() || self.probe != Probe::None || !self.may_upgrade(to) {
            return Err(());
        }
        self.probes += 1;
        self.probe = Probe::Silent(to);
        self.probe_until = Some(now + self.settings.upgrade_timeout);
        Ok(ProbeId(self.probes))
    }

    /// Whether a connection is there that may become the session's. A client that has its answer asks for nothing on polling any
    /// more: what is queued when this side closes, and that it does, waits for it on the new connection.
    pub(crate) fn is_probing(&self) -> bool {
        match self.probe {
            Probe::None => false,
            Probe::Silent(_) => self.is_open(),
            Probe::Probed(_) => matches!(self.phase, Phase::Open | Phase::Closing(..)),
        }
    }

    /// Whether this probe goes on. If not, its connection is to be closed, unless it has become the session's.
    pub(crate) fn is_probing_by(&self, id: ProbeId) -> bool {
        self.is_probing() && id.0 == self.probes
    }

    /// A packet arrived on the probing connection.
    pub(crate) fn probe_packet(&mut self, id: ProbeId, packet: &Packet, now: Instant) -> ProbeStep {
        let (Probe::Silent(to) | Probe::Probed(to)) = self.probe else { return ProbeStep::Failed };
        if !self.is_probing_by(id) {
            return ProbeStep::Failed;
        }
        match packet {
            Packet::Ping(data) if data == "probe" => {
                self.probe = Probe::Probed(to);
                ProbeStep::Pong
            }
            Packet::Upgrade => {
                self.transport = to;
                self.clear_probe();
                if to == Transport::WebTransport {
                    self.outbox.unwrap();
                }
                if let Phase::Closing(reason, _) = self.phase {
                    self.last_output(reason, websocket::CLOSE, now);
                }
                // A ping sent on polling is answered here, so its time starts anew. (Node stops it instead, and
                // never misses a pong that does not come.)
                if let Heartbeat::PongBy(until, _) = &mut self.heartbeat {
                    *until = now + self.settings.ping_timeout;
                }
                ProbeStep::Upgraded
            }
            _ => {
                self.clear_probe();
                ProbeStep::Failed
            }
        }
    }

    /// The probe's connection is gone; the session goes on as if it had never been.
    pub(crate) fn probe_failed(&mut self, id: ProbeId) {
        if id.0 == self.probes {
            self.clear_probe();
        }
    }

    pub(super) fn clear_probe(&mut self) {
        self.probe = Probe::None;
        self.probe_until = None;
    }
}
