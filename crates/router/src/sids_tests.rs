use std::time::Duration;

use super::*;

fn owner(slot: u16) -> Arc<Owner> {
    Arc::new(Owner::new(BackendId { slot, generation: 0 }))
}

/// All of the table, not a quarter.
fn sweep(sids: &Sids, now: u32) {
    for _ in 0..4 {
        sids.sweep(now);
    }
}

fn leg() -> (Arc<Leg>, std::os::unix::net::UnixStream) {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let theirs = theirs.into_std().unwrap();
    theirs.set_nonblocking(false).unwrap();
    theirs.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    (Arc::new(Leg::Unix(ours)), theirs)
}

#[test]
fn a_session_is_remembered_until_it_was_silent_for_its_time() {
    let (sids, worker) = (Sids::new(10), owner(3));
    assert!(sids.find(b"a").is_none());
    sids.learn(b"a", &worker, 50, 100);
    sids.learn(b"b", &worker, 20, 100);
    assert_eq!(worker.polling(), 2);
    assert_eq!(sids.find(b"a").unwrap().owner.id.slot, 3);
    sweep(&sids, 120);
    assert!(sids.find(b"b").is_some(), "the last second counts");
    sids.find(b"a").unwrap().touch(120, true);
    sweep(&sids, 121);
    assert!(sids.find(b"b").is_none());
    sweep(&sids, 170);
    assert!(sids.find(b"a").is_some(), "the request has renewed it");
    sweep(&sids, 171);
    assert!(sids.find(b"a").is_none());
    assert_eq!((worker.polling(), sids.is_empty()), (0, true));
}

#[test]
fn a_client_that_left_its_poll_has_to_come_back_soon() {
    let (sids, worker) = (Sids::new(10), owner(0));
    for name in [b"a", b"b"] {
        sids.learn(name, &worker, 1000, 0);
        sids.find(name).unwrap().abandon(10);
        sids.find(name).unwrap().abandon(10);
    }
    assert_eq!(worker.polling(), 0);
    sweep(&sids, 15);
    sids.find(b"a").unwrap().touch(15, true);
    sweep(&sids, 16);
    assert!(sids.find(b"a").is_some() && sids.find(b"b").is_none());
    assert_eq!(worker.polling(), 1);
}

#[test]
fn an_upgraded_session_does_not_count_and_goes_soon() {
    let (sids, worker) = (Sids::new(10), owner(0));
    sids.learn(b"a", &worker, 1000, 0);
    let session = sids.find(b"a").unwrap();
    session.upgrade(5);
    session.upgrade(5);
    assert_eq!(worker.polling(), 0);
    session.touch(6, true);
    assert_eq!(worker.polling(), 0, "the poll that was under way");
    sweep(&sids, 66);
    assert!(sids.find(b"a").is_some());
    sweep(&sids, 67);
    assert!(sids.find(b"a").is_none());
    assert_eq!(worker.polling(), 0);
}

#[test]
fn an_upgrade_that_failed_is_noticed_by_the_polls_that_go_on() {
    let (sids, worker) = (Sids::new(10), owner(0));
    sids.learn(b"a", &worker, 1000, 0);
    let session = sids.find(b"a").unwrap();
    session.upgrade(5);
    session.touch(20, false);
    assert_eq!(worker.polling(), 0);
    session.touch(20, true);
    assert_eq!(worker.polling(), 1);
    sweep(&sids, 1020);
    assert!(sids.find(b"a").is_some());
}

#[test]
fn it_is_bounded_and_a_name_is_counted_once() {
    let (sids, first, second) = (Sids::new(2), owner(0), owner(1));
    sids.learn(b"a", &first, 10, 0);
    assert!(!sids.is_full());
    sids.learn(b"a", &second, 10, 0);
    assert!(!sids.is_full());
    assert_eq!((first.polling(), second.polling()), (0, 1));
    sids.learn(b"b", &second, 10, 0);
    assert!(sids.is_full());
    sids.forget(&sids.find(b"a").unwrap());
    assert!(!sids.is_full());
    assert_eq!(second.polling(), 1);
}

#[test]
fn forgetting_twice_or_a_namesake_changes_nothing() {
    let (sids, worker) = (Sids::new(10), owner(0));
    sids.learn(b"a", &worker, 10, 0);
    let old = sids.find(b"a").unwrap();
    sids.forget(&old);
    sids.forget(&old);
    sids.learn(b"a", &worker, 10, 0);
    sids.forget(&old);
    assert!(sids.find(b"a").is_some());
    assert_eq!(worker.polling(), 1);
    old.upgrade(1);
    old.touch(100, true);
    assert_eq!(worker.polling(), 1);
}

#[test]
fn the_sessions_of_a_worker_that_is_gone_are_unknown_at_once() {
    let (sids, gone, there) = (Sids::new(1000), owner(0), owner(1));
    for index in 0..500u32 {
        let worker = if index % 2 == 0 { &gone } else { &there };
        sids.learn(format!("session {index}").as_bytes(), worker, 1000, 0);
    }
    assert_eq!(sids.polling_of(&gone).len(), 250);
    gone.is_gone_now();
    assert!(sids.find(b"session 0").is_none());
    assert!(sids.find(b"session 1").is_some());
    sweep(&sids, 1);
    assert_eq!((gone.polling(), there.polling()), (0, 250));
    assert_eq!(sids.count.load(Ordering::Relaxed), 250);
}

#[tokio::test]
async fn who_is_let_go_sees_its_leg_end_and_a_leg_given_back_is_left_alone() {
    use std::io::Read;
    let (sids, worker) = (Sids::new(10), owner(0));
    let mut byte = [0];
    for waits in [true, false] {
        sids.learn(b"a", &worker, 10, 0);
        let session = sids.find(b"a").unwrap();
        let (ours, mut theirs) = leg();
        assert!(session.begin_poll(&ours));
        sweep(&sids, 1000);
        assert!(sids.find(b"a").is_some(), "a poll that waits keeps it");
        if !waits {
            session.end_poll(&ours);
        }
        sids.let_go(&session);
        assert!(session.is_over() && sids.find(b"a").is_none());
        assert_eq!(matches!(theirs.read(&mut byte), Ok(0)), waits);
        assert!(!session.begin_poll(&ours), "too late");
        assert_eq!(worker.polling(), 0);
    }
}

#[test]
fn two_who_asked_at_once_for_another_nodes_session_share_it() {
    let (sids, node) = (Sids::new(8), Arc::new(Owner::new(BackendId { slot: 257, generation: 0 })));
    sids.remember(b"a", &node, 120, 0);
    let first = sids.find(b"a").unwrap();
    sids.remember(b"a", &node, 120, 0);
    assert!(!first.is_over() && Arc::ptr_eq(&first, &sids.find(b"a").unwrap()));
    // The node came back: what was known of it before is not.
    let again = Arc::new(Owner::new(BackendId { slot: 257, generation: 0 }));
    sids.remember(b"a", &again, 120, 0);
    assert!(first.is_over() && Arc::ptr_eq(&sids.find(b"a").unwrap().owner, &again));
}
