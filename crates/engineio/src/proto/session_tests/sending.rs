//! What is sent: its order and its bounds.

use super::*;

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

#[test]
fn what_leaves_at_once_is_known() {
    let mut rig = polling();
    assert!(rig.machine.is_ready(false), "the next poll takes it, and nothing else waits");
    rig.send("waits");
    assert!(!rig.machine.is_ready(true));
    assert_eq!(rig.get(), Some("4waits".into()));
    assert_eq!(rig.get(), None);
    assert!(rig.machine.is_ready(false));
    let mut rig = websocket();
    assert!(rig.machine.is_ready(true) && !rig.machine.is_ready(false));
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert!(!rig.machine.is_ready(true));
}
