//! What is different in version 3.

use super::*;

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
    assert_eq!(rig.wire(), b"\x89\0", "a dead connection would say so now");
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
