//! How a session ends.

use super::*;

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
