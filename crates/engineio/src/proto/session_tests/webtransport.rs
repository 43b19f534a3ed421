//! The framing of WebTransport, its end, and moves to it.

use super::*;

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
