//! What becomes of packets.

use super::*;

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
