//! Pings, pongs and their deadlines.

use super::*;

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
fn a_message_says_something_only_while_a_pong_is_awaited_and_once() {
    let mut rig = websocket();
    assert!(!rig.machine.is_attentive());
    rig.packet(text("before"));
    rig.advance(INTERVAL);
    assert!(rig.machine.is_attentive());
    rig.packet(text("busy"));
    assert!(!rig.machine.is_attentive());
    rig.packet(Packet::Pong);
    assert!(!rig.machine.is_attentive());
    rig.advance(INTERVAL);
    assert!(rig.machine.is_attentive());
    rig.packet(Packet::Pong);
    assert!(!rig.machine.is_attentive());
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

#[test]
fn a_client_that_is_held_back_goes_on_getting_pings() {
    let mut rig = websocket();
    rig.machine.set_paused(true, rig.now);
    rig.advance(INTERVAL);
    for _ in 0..3 {
        assert_eq!(rig.wire(), b"\x81\x012");
        rig.advance(TIMEOUT);
    }
    for _ in 0..3 {
        rig.advance(TIMEOUT);
    }
    assert_eq!(rig.wire(), b"\x81\x012", "those it does not take do not pile up");
}

#[test]
fn a_client_that_is_held_back_and_polls_no_more_is_given_up() {
    let mut rig = polling();
    rig.machine.set_paused(true, rig.now);
    rig.advance(INTERVAL);
    for _ in 0..3 {
        assert_eq!(rig.get(), Some("2".into()));
        rig.advance(TIMEOUT);
    }
    assert!(rig.machine.is_open());
    rig.advance(TIMEOUT);
    assert_eq!(rig.over(), Some(CloseReason::PingTimeout));
}

#[test]
fn a_client_that_answers_pings_it_does_not_take_is_sent_one() {
    for mut rig in [polling(), websocket(), rig(Transport::WebTransport)] {
        for _ in 0..20 {
            rig.advance(INTERVAL);
            rig.packet(Packet::Pong);
        }
        assert_eq!(rig.machine.outbox().packets(), 1);
        assert!(rig.machine.is_open());
        // Once it is taken, the next one comes.
        match rig.machine.transport() {
            Transport::Polling => assert_eq!(rig.get(), Some("2".into())),
            Transport::Websocket => assert_eq!(rig.wire(), b"\x81\x012"),
            Transport::WebTransport => assert_eq!(rig.wire(), b"\x012"),
        }
        rig.advance(INTERVAL);
        assert_eq!(rig.machine.outbox().packets(), 1);
    }
}

#[test]
fn a_waiting_request_is_a_sign_of_life() {
    let mut rig = polling();
    rig.machine.set_paused(true, rig.now);
    rig.machine.post_opened().unwrap();
    rig.advance(INTERVAL);
    for _ in 0..5 {
        rig.advance(TIMEOUT);
    }
    assert!(rig.machine.is_open(), "the connection of its body would tell");
}
