//! From polling to a websocket.

use super::*;

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
    assert!(!rig.machine.is_probing_by(id));
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

#[test]
fn a_session_that_is_closed_moves_no_more() {
    let mut rig = polling();
    let id = rig.probe();
    rig.send("last");
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Failed);
    assert_eq!(rig.get(), Some("4last".into()));
    assert_eq!(rig.get(), Some("1".into()));
    assert_eq!(rig.machine.get_opened(), Err(Refused::Unknown));
}

/// A client that has its answer polls no more: what there is to say has to wait for it.
#[test]
fn a_session_that_is_closed_on_its_way_says_so_where_its_client_goes() {
    for says in [true, false] {
        let mut rig = polling();
        let id = rig.probe();
        assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
        if says {
            rig.send("last");
        }
        rig.machine.close(CloseReason::ForcedClose, rig.now);
        assert_eq!(rig.probe_packet(id, Packet::Upgrade), ProbeStep::Upgraded);
        let last: &[u8] = if says { b"\x81\x054last\x88\x00" } else { b"\x88\x00" };
        assert_eq!(rig.wire(), last);
        assert!(rig.machine.is_lingering());
    }
    // It may poll all the same, or do nothing.
    let mut rig = polling();
    let id = rig.probe();
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    assert!(rig.machine.is_probing_by(id));
    assert_eq!(rig.get(), Some("1".into()));
    assert_eq!(rig.probe_packet(id, Packet::Upgrade), ProbeStep::Failed);
    let mut rig = polling();
    let id = rig.probe();
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
    rig.machine.close(CloseReason::ForcedClose, rig.now);
    rig.advance(rig.machine.poll_timeout().unwrap() - rig.now);
    assert!(rig.machine.is_closed() && !rig.machine.is_probing());
}

/// While the session's task works off a batch, no poll is answered.
#[test]
fn a_poll_that_is_held_at_the_upgrade_takes_nothing_of_what_is_said_there() {
    for (to, says, last) in [
        (Transport::Websocket, true, &b"\x81\x054last\x88\x00"[..]),
        (Transport::Websocket, false, b"\x88\x00"),
        (Transport::WebTransport, true, b"\x054last"),
    ] {
        let mut rig = polling();
        rig.to = to;
        let id = rig.probe();
        assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
        rig.machine.get_opened().unwrap();
        if says {
            rig.send("last");
        }
        rig.machine.close(CloseReason::ForcedClose, rig.now);
        assert_eq!(rig.probe_packet(id, Packet::Upgrade), ProbeStep::Upgraded);
        assert_eq!(rig.poll(), Some("6".into()), "{to:?}");
        assert_eq!(rig.wire(), last);
        assert!(rig.machine.is_lingering());
    }
}

#[test]
fn what_waits_goes_along() {
    let mut rig = polling();
    rig.send("one");
    let id = rig.probe();
    assert_eq!(rig.probe_packet(id, Packet::Ping("probe".into())), ProbeStep::Pong);
    rig.send("two");
    assert_eq!(rig.probe_packet(id, Packet::Upgrade), ProbeStep::Upgraded);
    rig.send("three");
    assert_eq!(rig.wire(), b"\x81\x044one\x81\x044two\x81\x064three");
}
