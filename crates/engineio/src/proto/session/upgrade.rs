//! From polling to a websocket: the probe.

use std::time::Instant;

use super::{Heartbeat, Machine, Probe, ProbeId, ProbeStep};
use crate::Transport;
use crate::proto::packet::Packet;

impl Machine {
    /// A websocket connected with this session's id. `Err`: close it. The probe must be over by the instant given.
    pub(crate) fn probe_opened(&mut self, now: Instant) -> Result<(ProbeId, Instant), ()> {
        if !self.is_open()
            || self.transport != Transport::Polling
            || self.probe != Probe::None
            || !self.settings.allow_upgrades
        {
            return Err(());
        }
        self.probes += 1;
        self.probe = Probe::Silent;
        let until = now + self.settings.upgrade_timeout;
        self.probe_until = Some(until);
        Ok((ProbeId(self.probes), until))
    }

    /// A packet arrived on the probing websocket.
    pub(crate) fn probe_packet(&mut self, id: ProbeId, packet: &Packet, now: Instant) -> ProbeStep {
        if id.0 != self.probes || self.probe == Probe::None || !self.is_open() {
            return ProbeStep::Failed;
        }
        match packet {
            Packet::Ping(data) if data == "probe" => {
                self.probe = Probe::Probed;
                ProbeStep::Pong
            }
            Packet::Upgrade => {
                self.transport = Transport::Websocket;
                self.clear_probe();
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
