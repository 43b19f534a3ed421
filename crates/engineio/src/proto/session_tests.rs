//! Every rule of the session, on a clock that only moves when told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::dialect::Dialect;
use super::packet::Packet;
use super::session::{Machine, ProbeId, ProbeStep, Refused, Settings, Unsendable};
use super::websocket;
use crate::{CloseReason, Frames, Message, ProtocolVersion, Transport, Transports};

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
        self.machine.packet(packet, self.now)
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
        let (id, until) = self.machine.probe_opened(self.to, self.now).unwrap();
        assert_eq!(until, self.now + UPGRADE);
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

// --- Sending ---

#[test]
fn what_is_sent_before_the_first_answer_follows_the_open_packet() {
    let now = Instant::now();
    let open = Frames::control("0{}");
    let mut machine = Machine::new(Arc::new(settings()), Transport::Polling, Dialect::V4, open, now);
    machine.send(Frames::text("hi")).unwrap();
    assert_eq!(machine.poll_get().unwrap().body, "0{}\x1e4hi");
}

#[test]
fn a_waiting_poll_gets_what_is_sent() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    rig.send("a");
    assert_eq!(rig.poll(), Some("4a".into()));
    rig.send("b");
    rig.send("c");
    assert_eq!(rig.poll(), None, "no poll waits");
    assert_eq!(rig.get(), Some("4b\x1e4c".into()));
}

#[test]
fn the_outbox_is_bounded_in_packets_and_bytes() {
    let mut rig = polling();
    for _ in 0..10 {
        rig.send("x");
    }
    let (why, frames) = rig.machine.send(Frames::text("x")).unwrap_err();
    assert_eq!((why, frames), (Unsendable::Full, Frames::text("x")));
    assert!(!rig.machine.has_room());
    assert!(rig.get().is_some());
    assert!(rig.machine.has_room());
    rig.send(&"x".repeat(900));
    assert_eq!(rig.machine.send(Frames::text(&"x".repeat(100))).unwrap_err().0, Unsendable::Full);
    rig.send(&"x".repeat(10));
}

#[test]
fn one_message_over_the_bound_passes_alone() {
    let mut rig = websocket();
    rig.send(&"x".repeat(5000));
    assert_eq!(rig.machine.send(Frames::text("x")).unwrap_err().0, Unsendable::Full);
    rig.wire();
    rig.send("x");
}

#[test]
fn answers_to_websocket_pings_are_bounded() {
    let mut rig = websocket();
    for _ in 0..1000 {
        rig.machine.control(websocket::pong(b"x"));
    }
    assert!(rig.machine.outbox().packets() <= 10);
    rig.wire();
    rig.machine.control(websocket::pong(b"x"));
    assert_eq!(rig.wire(), b"\x8a\x01x");
}

// --- Polling ---

#[test]
fn a_second_poll_ends_the_session() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    assert_eq!(rig.machine.get_opened(), Err(Refused::Overlap));
    assert_eq!(rig.poll(), Some("1".into()), "the first poll learns it");
    assert_eq!(rig.over(), Some(CloseReason::TransportError));
    assert_eq!(rig.machine.get_opened(), Err(Refused::Unknown));
}

#[test]
fn a_second_body_ends_the_session() {
    let mut rig = polling();
    rig.machine.post_opened().unwrap();
    assert_eq!(rig.machine.post_opened(), Err(Refused::Overlap));
    assert_eq!(rig.over(), Some(CloseReason::TransportError));
}

#[test]
fn bodies_one_after_another_are_fine_and_so_is_one_that_was_too_large() {
    let mut rig = polling();
    for _ in 0..3 {
        rig.machine.post_opened().unwrap();
        rig.machine.post_done();
    }
    assert!(rig.machine.is_open());
}

#[test]
fn a_poll_whose_client_left_ends_the_session() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    rig.machine.get_lost();
    assert_eq!(rig.over(), Some(CloseReason::TransportError));
    assert!(rig.machine.is_gone());
}

#[test]
fn a_body_whose_client_left_ends_the_session() {
    let mut rig = polling();
    rig.machine.post_opened().unwrap();
    rig.machine.post_failed();
    assert_eq!(rig.over(), Some(CloseReason::TransportError));
}

#[test]
fn the_clients_close_packet_answers_the_poll_with_a_noop() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    rig.packet(Packet::Close);
    assert_eq!(rig.poll(), Some("6".into()));
    assert_eq!(rig.over(), Some(CloseReason::TransportClose));
    assert!(rig.machine.is_closed());
}

#[test]
fn an_unreadable_packet_ends_the_session() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    rig.machine.unreadable(rig.now);
    assert_eq!(rig.poll(), Some("1".into()));
    assert_eq!(rig.over(), Some(CloseReason::ParseError));
}

// --- Packets ---

#[test]
fn messages_are_handed_on_and_the_rest_is_not() {
    let mut rig = websocket();
    assert_eq!(rig.packet(text("a")), Some(Message::Text("a".into())));
    for packet in [Packet::Pong, Packet::Noop, Packet::Upgrade, Packet::Open] {
        assert_eq!(rig.packet(packet), None);
    }
    assert!(rig.machine.is_open());
}

#[test]
fn another_message_at_the_same_instant_changes_nothing() {
    // With nothing due, and with a pong due.
    for due in [Duration::ZERO, INTERVAL] {
        let mut rig = websocket();
        rig.advance(due + Duration::from_secs(1));
        rig.packet(text("a"));
        let before = (rig.machine.poll_timeout(), rig.wire());
        assert_eq!(rig.packet(text("b")), Some(Message::Text("b".into())));
        assert_eq!((rig.machine.poll_timeout(), rig.wire()), (before.0, Vec::new()));
        assert!(rig.machine.is_open());
    }
}

#[test]
fn a_client_must_not_ping() {
    for mut rig in [polling(), websocket()] {
        rig.packet(Packet::Ping(Bytes::new()));
        assert_eq!(rig.over(), Some(CloseReason::TransportError));
    }
}

#[test]
fn nothing_is_handed_on_after_the_end() {
    let mut rig = websocket();
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert_eq!(rig.packet(text("late")), None);
}

// --- Heartbeat ---

#[test]
fn pings_come_one_interval_after_the_handshake_and_after_each_pong() {
    let mut rig = websocket();
    for _ in 0..3 {
        assert_eq!(rig.machine.poll_timeout(), Some(rig.now + INTERVAL));
        rig.advance(INTERVAL - Duration::from_millis(1));
        assert_eq!(rig.wire(), b"");
        rig.advance(Duration::from_millis(1));
        assert_eq!(rig.wire(), b"\x81\x012");
        rig.advance(Duration::from_secs(3));
        rig.packet(Packet::Pong);
    }
}

#[test]
fn a_ping_without_a_pong_ends_the_session() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    rig.advance(INTERVAL);
    assert_eq!(rig.poll(), Some("2".into()));
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + TIMEOUT));
    rig.advance(TIMEOUT);
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
    assert!(rig.machine.is_gone());
    assert_eq!(rig.machine.poll_timeout(), None);
}

#[test]
fn a_websocket_that_does_not_pong_is_closed_without_its_backlog() {
    let mut rig = websocket();
    rig.advance(INTERVAL);
    rig.send("never read");
    rig.advance(TIMEOUT);
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
    assert_eq!(rig.wire(), websocket::CLOSE);
}

#[test]
fn the_first_other_packet_moves_the_pong_deadline_once() {
    let mut rig = websocket();
    rig.advance(INTERVAL);
    rig.advance(TIMEOUT / 2);
    rig.packet(text("busy"));
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + TIMEOUT));
    rig.advance(TIMEOUT / 2);
    rig.packet(text("still busy"));
    rig.advance(TIMEOUT / 2);
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
}

#[test]
fn a_client_that_is_held_back_is_not_timed_out() {
    let mut rig = websocket();
    rig.advance(INTERVAL);
    rig.machine.set_paused(true, rig.now);
    rig.advance(TIMEOUT);
    rig.advance(TIMEOUT);
    assert!(rig.machine.is_open());
    rig.machine.set_paused(false, rig.now);
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + TIMEOUT));
    rig.advance(TIMEOUT);
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
}

// --- Upgrade ---

#[test]
fn a_probe_moves_the_session_and_its_backlog() {
    let mut rig = polling();
    rig.upgrade();
    assert_eq!(rig.machine.transport(), Transport::Websocket);
    rig.send("on the new one");
    assert_eq!(rig.wire(), b"\x81\x0f4on the new one");
    assert_eq!(rig.machine.get_opened(), Err(Refused::WrongTransport));
    assert_eq!(rig.machine.post_opened(), Err(Refused::WrongTransport));
}

#[test]
fn polls_return_at_once_during_a_probe() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    let id = rig.probe();
    assert_eq!(rig.poll(), None, "a connection alone says nothing");
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
    assert_eq!(rig.poll(), Some("6".into()), "the waiting poll");
    assert_eq!(rig.get(), Some("6".into()), "a new poll");
    rig.send("meanwhile");
    assert_eq!(rig.get(), Some("4meanwhile".into()));
    assert_eq!(rig.probe_packet(id, Packet::Upgrade), ProbeStep::Upgraded);
}

#[test]
fn a_poll_that_waits_at_the_upgrade_is_answered() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    let id = rig.probe();
    assert_eq!(rig.probe_packet(id, Packet::Upgrade), ProbeStep::Upgraded);
    assert_eq!(rig.poll(), Some("6".into()));
}

#[test]
fn a_failed_probe_leaves_the_session_on_polling() {
    let mut rig = polling();
    let id = rig.probe();
    assert_eq!(rig.probe_packet(id, text("what")), ProbeStep::Failed);
    let id = rig.probe();
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
    rig.machine.probe_failed(id);
    assert_eq!(rig.get(), None, "polls wait again");
    rig.send("alive");
    assert_eq!(rig.poll(), Some("4alive".into()));
    rig.upgrade();
}

#[test]
fn a_probe_has_a_deadline() {
    let mut rig = polling();
    let id = rig.probe();
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + UPGRADE));
    rig.advance(UPGRADE);
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Failed);
    assert!(rig.machine.is_open());
    let next = rig.probe();
    rig.machine.probe_failed(id);
    assert_eq!(
        rig.probe_packet(next, Packet::Ping("probe".into())),
        ProbeStep::Pong,
        "the old one is no matter"
    );
}

#[test]
fn only_one_probe_and_only_on_an_open_polling_session() {
    let mut rig = polling();
    rig.probe();
    assert!(rig.machine.probe_opened(Transport::Websocket, rig.now).is_err());
    let mut rig = polling();
    rig.upgrade();
    assert!(rig.machine.probe_opened(Transport::Websocket, rig.now).is_err());
    let mut rig = polling();
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert!(rig.machine.probe_opened(Transport::Websocket, rig.now).is_err());
    let settings = Settings { upgrades: Transports::NONE, ..settings() };
    let mut machine = Machine::new(
        Arc::new(settings),
        Transport::Polling,
        Dialect::V4,
        Frames::control("0{}"),
        Instant::now(),
    );
    assert!(machine.probe_opened(Transport::Websocket, Instant::now()).is_err());
}

#[test]
fn an_upgrade_gives_a_pending_pong_its_full_time() {
    let mut rig = polling();
    rig.advance(INTERVAL);
    rig.advance(TIMEOUT / 2);
    rig.upgrade();
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + TIMEOUT));
}

// --- Closing ---

#[test]
fn closing_answers_a_waiting_poll() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert_eq!(rig.over(), Some(CloseReason::ForcedClose));
    assert_eq!(rig.poll(), Some("1".into()));
    assert!(rig.machine.is_closed());
}

#[test]
fn closing_without_a_poll_waits_for_the_next_one() {
    let mut rig = polling();
    rig.send("last");
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert!(!rig.machine.is_gone());
    assert_eq!(rig.get(), Some("4last".into()));
    assert!(!rig.machine.is_gone());
    assert_eq!(rig.get(), Some("1".into()));
    assert!(rig.machine.is_closed());
}

#[test]
fn closing_does_not_wait_for_ever() {
    for mut rig in [polling(), websocket()] {
        rig.send("stuck");
        rig.machine.close(CloseReason::ServerShutdown, rig.now);
        assert_eq!(rig.machine.poll_timeout(), Some(rig.now + CLOSING));
        rig.advance(CLOSING);
        assert!(rig.machine.is_closed());
        assert_eq!(rig.machine.outbox().bytes(), 0);
        assert_eq!(rig.over(), Some(CloseReason::ServerShutdown));
    }
}

#[test]
fn a_websocket_sends_its_backlog_and_then_the_close_frame() {
    let mut rig = websocket();
    rig.send("last");
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert_eq!(rig.over(), Some(CloseReason::ForcedClose));
    assert!(!rig.machine.is_gone());
    assert_eq!(rig.machine.send(Frames::text("too late")).unwrap_err().0, Unsendable::Closed);
    assert_eq!(rig.wire(), b"\x81\x054last\x88\x00");
    assert!(rig.machine.is_lingering() && rig.machine.is_gone());
    rig.machine.disconnected();
    assert!(rig.machine.is_closed());
    assert_eq!(rig.over(), Some(CloseReason::ForcedClose), "the first reason stays");
}

#[test]
fn a_lost_websocket_is_a_transport_close() {
    let mut rig = websocket();
    rig.machine.disconnected();
    assert_eq!(rig.over(), Some(CloseReason::TransportClose));
    assert!(rig.machine.is_closed());
}

#[test]
fn a_broken_frame_is_answered_with_its_code() {
    let mut rig = websocket();
    let frame = websocket::Violation::TooBig.close_frame();
    rig.machine.connection_failed(CloseReason::TransportError, frame, rig.now);
    assert_eq!(rig.wire(), b"\x88\x02\x03\xf1");
    assert_eq!(rig.over(), Some(CloseReason::TransportError));
}

#[test]
fn closing_twice_keeps_the_first_reason() {
    let mut rig = websocket();
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    rig.machine.close(CloseReason::ServerShutdown, rig.now);
    assert_eq!(rig.wire(), websocket::CLOSE);
    assert_eq!(rig.over(), Some(CloseReason::ForcedClose));
}

// --- Version 3 ---

const V3: Dialect = Dialect { version: ProtocolVersion::V3, binary: true, jsonp: None };

#[test]
fn in_version_3_the_client_pings() {
    let mut rig = speaking(V3, Transport::Websocket);
    for _ in 0..5 {
        rig.advance(INTERVAL);
        assert_eq!(rig.wire(), b"", "the server does not ping");
        rig.packet(Packet::Ping(Bytes::new()));
        assert_eq!(rig.wire(), b"\x81\x013");
    }
    rig.advance(INTERVAL + TIMEOUT - Duration::from_millis(1));
    assert_eq!(rig.over(), None);
    rig.advance(Duration::from_millis(1));
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
}

#[test]
fn in_version_3_only_a_ping_counts_as_a_sign_of_life() {
    let mut rig = speaking(V3, Transport::Polling);
    rig.advance(INTERVAL);
    assert!(rig.packet(text("x")).is_some());
    rig.advance(TIMEOUT);
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
}

#[test]
fn in_version_3_a_pong_has_the_wrong_direction() {
    let mut rig = speaking(V3, Transport::Polling);
    rig.packet(Packet::Pong);
    assert_eq!(rig.over(), Some(CloseReason::TransportError));
}

#[test]
fn a_version_3_client_that_is_not_read_is_not_given_up() {
    let mut rig = speaking(V3, Transport::Websocket);
    rig.machine.set_paused(true, rig.now);
    rig.advance(INTERVAL + TIMEOUT);
    assert_eq!(rig.over(), None);
    rig.machine.set_paused(false, rig.now);
    rig.advance(INTERVAL + TIMEOUT);
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
}

#[test]
fn pings_of_version_3_do_not_fill_the_queue() {
    let mut rig = speaking(V3, Transport::Polling);
    for _ in 0..1000 {
        rig.packet(Packet::Ping(Bytes::new()));
    }
    assert!(rig.machine.outbox().packets() <= 10);
}

#[test]
fn version_3_words_everything_its_own_way() {
    let mut rig = speaking(V3, Transport::Polling);
    assert_eq!(rig.get(), None);
    rig.send("h\u{e9}");
    assert_eq!(rig.poll(), Some("3:4h\u{e9}".into()));
    assert_eq!(rig.get(), None);
    let id = rig.probe();
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
    assert_eq!(rig.poll(), Some("1:6".into()));
    assert_eq!(rig.probe_packet(id, Packet::Upgrade), ProbeStep::Upgraded);
    rig.machine.send(Frames::binary(&[1, 2])).unwrap();
    assert_eq!(rig.wire(), b"\x82\x03\x04\x01\x02");
    assert!(!rig.machine.is_at_rest(), "it cannot be taken to another process");
}

#[test]
fn a_script_is_told_of_the_end_as_a_script() {
    let mut rig = speaking(Dialect { binary: false, jsonp: Some(2), ..V3 }, Transport::Polling);
    rig.machine.send(Frames::binary(&[1, 2, 3, 4])).unwrap();
    assert_eq!(rig.get(), Some("___eio[2](\"10:b4AQIDBA==\");".into()));
    assert_eq!(rig.get(), None);
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert_eq!(rig.poll(), Some("___eio[2](\"1:1\");".into()));
}

// --- WebTransport ---

#[test]
fn webtransport_has_a_framing_of_its_own() {
    let mut rig = rig(Transport::WebTransport);
    rig.send("hello");
    rig.machine.send(Frames::with_attachments("51-[]", &[Bytes::from_static(&[1, 2])])).unwrap();
    assert_eq!(rig.machine.outbox().packets(), 3);
    assert_eq!(rig.wire(), b"\x064hello\x06451-[]\x82\x01\x02");
    assert_eq!((rig.machine.outbox().bytes(), rig.machine.outbox().packets()), (0, 0));
    rig.advance(INTERVAL);
    assert_eq!(rig.wire(), b"\x012", "a ping");
    assert_eq!(rig.packet(Packet::Pong), None);
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + INTERVAL));
    rig.advance(INTERVAL);
    rig.advance(TIMEOUT);
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
}

#[test]
fn webtransport_closes_without_a_word() {
    let mut rig = rig(Transport::WebTransport);
    rig.send("last");
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert!(!rig.machine.is_gone(), "what is queued leaves first");
    assert_eq!(rig.wire(), b"\x054last");
    assert!(rig.machine.is_lingering());

    for end in [
        |rig: &mut Rig| rig.machine.close(CloseReason::ParseError, rig.now),
        |rig: &mut Rig| rig.machine.unreadable(rig.now),
        |rig: &mut Rig| rig.machine.connection_failed(CloseReason::ParseError, Bytes::new(), rig.now),
    ] {
        let mut rig = self::rig(Transport::WebTransport);
        end(&mut rig);
        assert!(rig.machine.is_lingering(), "with nothing queued nothing is waited for");
        assert_eq!(rig.over(), Some(CloseReason::ParseError));
        assert_eq!(rig.wire(), b"");
        rig.advance(CLOSING);
        assert!(rig.machine.is_closed());
    }
}

#[test]
fn a_probe_moves_a_session_and_its_backlog_to_webtransport() {
    let mut rig = polling();
    rig.to = Transport::WebTransport;
    assert_eq!(rig.get(), None);
    let id = rig.probe();
    assert!(rig.machine.probe_opened(Transport::Websocket, rig.now).is_err(), "one at a time");
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
    assert_eq!(rig.poll(), Some("6".into()));
    rig.send("before");
    rig.machine.send(Frames::binary(&[7])).unwrap();
    assert_eq!(rig.probe_packet(id, Packet::Upgrade), ProbeStep::Upgraded);
    assert_eq!(rig.machine.transport(), Transport::WebTransport);
    rig.send("after");
    assert_eq!(rig.wire(), b"\x074before\x81\x07\x064after");
    assert_eq!(rig.machine.get_opened(), Err(Refused::WrongTransport));
    assert!(!rig.machine.is_at_rest(), "it does not go to another process");
}

#[test]
fn nobody_moves_to_what_is_not_offered() {
    let webtransport = Transports { webtransport: true, ..Transports::NONE };
    let websocket = Transports { websocket: true, ..Transports::NONE };
    for (upgrades, dialect, to, may) in [
        (webtransport, Dialect::V4, Transport::WebTransport, true),
        (webtransport, Dialect::V4, Transport::Websocket, false),
        (websocket, Dialect::V4, Transport::WebTransport, false),
        (webtransport, V3, Transport::WebTransport, false),
        (websocket, V3, Transport::Websocket, true),
    ] {
        let settings = Arc::new(Settings { upgrades, ..settings() });
        let now = Instant::now();
        let mut machine = Machine::new(settings, Transport::Polling, dialect, Frames::control("0{}"), now);
        assert_eq!(machine.probe_opened(to, now).is_ok(), may, "{to} of {upgrades:?}");
    }
}
