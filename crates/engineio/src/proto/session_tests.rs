//! Every rule of the session, on a clock that only moves when told.

mod closing;
mod heartbeat;
mod moving;
mod packets;
mod polling;
mod sending;
mod upgrade;
mod version3;
mod webtransport;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::dialect::Dialect;
use super::packet::Packet;
use super::session::{Machine, ProbeId, ProbeStep, Refused, Settings, Unsendable};
use super::websocket;
use crate::{CloseReason, Frames, Message, ProtocolVersion, Transport, Transports};

const V3: Dialect = Dialect { version: ProtocolVersion::V3, binary: true, jsonp: None };

const INTERVAL: Duration = Duration::from_secs(25);
const TIMEOUT: Duration = Duration::from_secs(20);
const UPGRADE: Duration = Duration::from_secs(10);
const CLOSING: Duration = Duration::from_secs(5);

struct Rig {
    machine: Machine,
    now: Instant,
    /// What it upgrades to.
    to: Transport,
}

fn settings() -> Settings {
    Settings {
        ping_interval: INTERVAL,
        ping_timeout: TIMEOUT,
        upgrade_timeout: UPGRADE,
        close_timeout: CLOSING,
        max_queued_bytes: 1000,
        max_queued_packets: 10,
        upgrades: Transports { polling: false, websocket: true, webtransport: true },
    }
}

/// A session whose open packet has been fetched.
fn rig(transport: Transport) -> Rig {
    speaking(Dialect::V4, transport)
}

fn speaking(dialect: Dialect, transport: Transport) -> Rig {
    let now = Instant::now();
    let machine = Machine::new(Arc::new(settings()), transport, dialect, Frames::control("0{}"), now);
    let mut rig = Rig { machine, now, to: Transport::Websocket };
    match transport {
        Transport::Polling => assert!(rig.poll().unwrap().contains("0{}")),
        Transport::Websocket => assert_eq!(rig.wire(), b"\x81\x030{}"),
        Transport::WebTransport => assert_eq!(rig.wire(), b"\x030{}"),
    }
    rig
}

fn polling() -> Rig {
    rig(Transport::Polling)
}

fn websocket() -> Rig {
    rig(Transport::Websocket)
}

fn text(text: &str) -> Packet {
    Packet::Message(Message::Text(text.into()))
}

impl Rig {
    fn send(&mut self, text: &str) {
        self.machine.send(Frames::text(text)).unwrap();
    }

    fn packet(&mut self, packet: Packet) -> Option<Message> {
        let now = self.now;
        self.machine.packet(packet, || now)
    }

    fn poll(&mut self) -> Option<String> {
        self.machine.poll_get().map(|answer| String::from_utf8(answer.body.to_vec()).unwrap())
    }

    /// A poll that comes in now.
    fn get(&mut self) -> Option<String> {
        self.machine.get_opened().unwrap();
        self.poll()
    }

    /// Everything a websocket writes now.
    fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while !self.machine.outbox().is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 4];
            let filled = self.machine.outbox().chunks(&mut slices);
            let count = slices[..filled].iter().map(|slice| wire.extend_from_slice(slice)).count();
            assert_eq!(count, filled);
            let size = slices[..filled].iter().map(|slice| slice.len()).sum();
            self.machine.written(size);
        }
        wire
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.machine.handle_timeout(self.now);
    }

    fn probe(&mut self) -> ProbeId {
        let id = self.machine.probe_opened(self.to, self.now).unwrap();
        assert!(self.machine.is_probing_by(id));
        id
    }

    fn probe_packet(&mut self, id: ProbeId, packet: Packet) -> ProbeStep {
        self.machine.probe_packet(id, &packet, self.now)
    }

    fn upgrade(&mut self) {
        let id = self.probe();
        assert_eq!(self.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
        assert_eq!(self.probe_packet(id, Packet::Upgrade), ProbeStep::Upgraded);
    }

    fn over(&self) -> Option<CloseReason> {
        self.machine.over()
    }
}
