//! Polls and bodies.

use super::*;

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
fn what_becomes_of_requests_is_no_matter_after_an_upgrade() {
    let mut rig = polling();
    assert_eq!(rig.get(), None);
    rig.machine.post_opened().unwrap();
    rig.upgrade();
    rig.machine.post_failed();
    rig.machine.get_lost();
    assert_eq!(rig.over(), None);
    rig.send("still there");
    assert_eq!(rig.wire(), b"\x81\x0c4still there");
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
