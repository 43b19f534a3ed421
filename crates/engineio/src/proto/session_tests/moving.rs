//! From one process to another.

use super::*;

#[test]
fn only_a_websocket_with_nothing_left_to_say_is_at_rest() {
    let mut rig = websocket();
    assert!(rig.machine.is_at_rest());
    rig.send("unsent");
    assert!(!rig.machine.is_at_rest());
    rig.wire();
    rig.machine.set_paused(true, rig.now);
    assert!(!rig.machine.is_at_rest());
    rig.machine.set_paused(false, rig.now);
    assert!(rig.machine.is_at_rest());
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert!(!rig.machine.is_at_rest());
    assert!(!polling().machine.is_at_rest());
    let mut rig = polling();
    rig.machine.post_opened().unwrap();
    rig.upgrade();
    assert!(!rig.machine.is_at_rest(), "a body is under way");
    rig.machine.post_done();
    assert!(rig.machine.is_at_rest());
    assert!(!speaking(V3, Transport::Websocket).machine.is_at_rest());
}

#[test]
fn who_moves_away_says_what_is_queued_and_no_goodbye() {
    let mut rig = websocket();
    rig.send("last");
    rig.machine.move_away(rig.now);
    assert_eq!(rig.over(), Some(CloseReason::Moved));
    assert!(!rig.machine.is_lingering());
    assert_eq!(rig.wire(), b"\x81\x054last");
    assert!(rig.machine.is_lingering());
    let mut rig = websocket();
    rig.machine.move_away(rig.now);
    assert_eq!((rig.wire(), rig.machine.is_lingering()), (vec![], true));
    rig.advance(CLOSING);
    assert!(rig.machine.is_closed(), "a connection that does not go is given up");
}

#[test]
fn who_has_arrived_pings_at_once() {
    let now = Instant::now();
    let machine = Machine::resumed(Arc::new(settings()), now);
    let mut rig = Rig { machine, now, to: Transport::Websocket };
    assert_eq!(rig.wire(), b"", "its open packet was another process's to send");
    rig.advance(Duration::from_secs(3));
    rig.machine.arrived(rig.now);
    assert_eq!(rig.wire(), b"\x81\x012");
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + TIMEOUT));
    rig.packet(Packet::Pong);
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + INTERVAL));
}
