//! Promises of the native channel: order, one message per packet, descriptors, the end, back-pressure, inheritance.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sundew_channel::native::{
    self, ConnectionKind, Endpoint, LetGo, PROTOCOL, RecvError, SendError, ToSupervisor, ToWorker, Welcome,
};
use sundew_channel::tag::TagKey;

fn welcome() -> Welcome {
    Welcome {
        protocol: PROTOCOL,
        app: "chat".into(),
        slot: 3,
        generation: 1,
        node: 0,
        tag_key: TagKey::from_bytes([9; 16]),
        drain_timeout_ms: 30_000,
        let_go: LetGo::default(),
        route: None,
        features: vec![],
    }
}

#[test]
fn the_welcome_is_read_without_a_runtime_and_before_the_process_answers() {
    let (ours, theirs) = native::pair().unwrap();
    ours.try_send(&ToWorker::Welcome(welcome()), None).unwrap();
    assert_eq!(theirs.welcome(Duration::ZERO).unwrap(), welcome());
    let late = theirs.recv_blocking(Duration::from_millis(10));
    assert!(matches!(late, Err(RecvError::Io(e)) if e.kind() == std::io::ErrorKind::TimedOut));
    drop(ours);
    assert!(theirs.recv_blocking(Duration::from_secs(1)).unwrap().is_none());
}

#[tokio::test]
async fn descriptors_travel_beside_their_own_message() {
    let (ours, theirs) = native::pair().unwrap();
    let (ours, theirs) = (ours.into_channel().unwrap(), theirs.into_channel().unwrap());
    let mut kept = Vec::new();
    for seq in 1..=40 {
        let (near, far) = UnixStream::pair().unwrap();
        let message = ToWorker::Connection { seq, kind: ConnectionKind::Leg, peer: None, places: false };
        ours.try_send(&message, Some(far.as_fd())).unwrap();
        ours.try_send(&ToWorker::Drain { deadline_ms: seq }, None).unwrap();
        kept.push(near);
    }
    for (index, near) in kept.iter_mut().enumerate() {
        let (message, fd) = theirs.recv().await.unwrap().unwrap();
        assert!(matches!(message, ToWorker::Connection { seq, .. } if seq == index as u64 + 1));
        let mut far = UnixStream::from(fd.unwrap());
        near.write_all(&[index as u8]).unwrap();
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0] as usize, index, "the wrong descriptor came with the message");
        let (message, fd) = theirs.recv().await.unwrap().unwrap();
        assert_eq!(message, ToWorker::Drain { deadline_ms: index as u64 + 1 });
        assert!(fd.is_none());
    }
    theirs.send(&ToSupervisor::Accepted { through: 40 }, None).await.unwrap();
    assert_eq!(ours.recv().await.unwrap().unwrap().0, ToSupervisor::Accepted { through: 40 });
    drop(theirs);
    assert!(ours.recv().await.unwrap().is_none());
    assert!(matches!(ours.try_send(&ToWorker::Shutdown, None), Err(SendError::Closed)));
}

#[tokio::test]
async fn a_reader_that_stops_costs_a_bound_and_blocks_nobody() {
    let (ours, theirs) = native::pair().unwrap();
    let (ours, theirs) = (ours.into_channel().unwrap(), theirs.into_channel().unwrap());
    let message = ToWorker::Bound { id: 1, result: Err("x".repeat(1000)) };
    let mut sent = 0;
    loop {
        match ours.try_send(&message, None) {
            Ok(()) => sent += 1,
            Err(SendError::Full) => break,
            Err(other) => panic!("{other}"),
        }
        assert!(sent < 100_000, "a channel nobody reads must fill up");
    }
    let waiting = async {
        ours.send(&ToWorker::Shutdown, None).await.unwrap();
    };
    let reading = async {
        for _ in 0..sent {
            assert_eq!(theirs.recv().await.unwrap().unwrap().0, message);
        }
        assert_eq!(theirs.recv().await.unwrap().unwrap().0, ToWorker::Shutdown);
    };
    tokio::join!(waiting, reading);
}

#[tokio::test]
async fn a_foreign_message_is_named_and_the_next_one_still_comes() {
    let (ours, theirs) = native::pair().unwrap();
    let theirs = theirs.into_channel().unwrap();
    let raw = ours.into_fd();
    rustix::net::send(&raw, b"{\"later\":1}", rustix::net::SendFlags::empty()).unwrap();
    rustix::net::send(&raw, b"\"shutdown\"", rustix::net::SendFlags::empty()).unwrap();
    match theirs.recv().await {
        Err(RecvError::Unknown { text, .. }) => assert_eq!(text, "{\"later\":1}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(theirs.recv().await.unwrap().unwrap().0, ToWorker::Shutdown);
}

#[tokio::test]
async fn too_long_is_refused_before_it_is_sent() {
    let (ours, theirs) = native::pair().unwrap();
    let message = ToWorker::Bound { id: 1, result: Err("x".repeat(70_000)) };
    assert!(matches!(ours.try_send(&message, None), Err(SendError::TooLong { .. })));
    ours.try_send(&ToWorker::Shutdown, None).unwrap();
    assert_eq!(theirs.recv_blocking(Duration::ZERO).unwrap().unwrap().0, ToWorker::Shutdown);
}

#[test]
fn without_a_supervisor_there_is_no_channel() {
    // The test runner was not started by a supervisor.
    assert!(Endpoint::from_env().unwrap().is_none());
    let (ours, _theirs) = native::pair().unwrap();
    let value = ours.env_value(7).unwrap();
    let (fd, inode) = value.split_once(':').unwrap();
    assert_eq!(fd, "7");
    let fd = ours.into_fd();
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    assert_eq!(link.to_str().unwrap(), format!("socket:[{inode}]"));
}
