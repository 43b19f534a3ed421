//! Without descriptors left the front door waits, and goes on when there are some. On its own: the limit is the process's.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use support::{cluster, get};

#[tokio::test]
async fn running_out_of_descriptors_is_survived() {
    let cluster = cluster(1, |_| {});
    assert_eq!(cluster.get("/page").await.1, b"0.0");
    let before = getrlimit(Resource::Nofile);
    let mut peers = Vec::new();
    // All connect, the kernel accepts for us; then there is no number left for the front door.
    for _ in 0..10 {
        let stream = std::net::TcpStream::connect(cluster.addr).unwrap();
        stream.set_nonblocking(true).unwrap();
        peers.push(stream);
    }
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(used - 1), ..before }).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(cluster.front.stats().accepted < 11, "{:?}", cluster.front.stats());
    setrlimit(Resource::Nofile, before).unwrap();
    for stream in peers {
        let mut peer = support::Peer::new(tokio::net::TcpStream::from_std(stream).unwrap());
        assert_eq!(peer.ask(&get("/page")).await.1, b"0.0");
    }
}
