//! A supervisor's end of the channel, in the test's own process.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sundew_channel::native::{
    ConnectionKind, LetGo, PROTOCOL, SupervisorChannel, ToSupervisor, ToWorker, Welcome, pair,
};
use sundew_channel::tag::TagKey;
use sundew_worker::{Cluster, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// What never comes is noticed after this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Supervisor {
    pub(crate) channel: SupervisorChannel,
    seq: u64,
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        protocol: PROTOCOL,
        app: "test".into(),
        slot: 2,
        generation: 7,
        node: 0,
        tag_key: TagKey::from_bytes([5; 16]),
        drain_timeout_ms: 200,
        let_go: LetGo::default(),
        route: None,
        features: Vec::new(),
    }
}

/// A worker that has joined, and its supervisor.
pub(crate) async fn joined() -> (Supervisor, Cluster) {
    joined_with(welcome()).await
}

/// As [`joined`], with another welcome.
pub(crate) async fn joined_with(welcome: Welcome) -> (Supervisor, Cluster) {
    let (ours, theirs) = pair().unwrap();
    ours.try_send(&ToWorker::Welcome(welcome), None).unwrap();
    let cluster = Cluster::join(theirs).unwrap();
    let mut supervisor = Supervisor { channel: ours.into_channel().unwrap(), seq: 0 };
    let ToSupervisor::Hello { protocol, pid, .. } = supervisor.recv().await else { panic!("no hello") };
    assert_eq!((protocol, pid), (PROTOCOL, std::process::id()));
    (supervisor, cluster)
}

/// A listener on an address the supervisor has said yes to.
pub(crate) async fn listening(supervisor: &mut Supervisor, cluster: &Cluster) -> Listener {
    let addr: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let answer = async {
        let ToSupervisor::Listen { id, addr: asked } = supervisor.recv().await else { panic!("no listen") };
        assert_eq!(asked, "127.0.0.1:8080");
        supervisor.send(ToWorker::Bound { id, result: Ok(addr) }, None).await;
    };
    let (listener, ()) = tokio::join!(Listener::of(cluster, "127.0.0.1:8080"), answer);
    let listener = listener.unwrap();
    assert_eq!(listener.local_addr(), addr);
    listener
}

impl Supervisor {
    pub(crate) async fn recv(&mut self) -> ToSupervisor {
        tokio::time::timeout(PATIENCE, self.channel.recv())
            .await
            .expect("no message")
            .unwrap()
            .expect("gone")
            .0
    }

    /// Skips messages until one is wanted.
    pub(crate) async fn recv_until<T>(&mut self, want: impl Fn(&ToSupervisor) -> Option<T>) -> T {
        loop {
            if let Some(found) = want(&self.recv().await) {
                return found;
            }
        }
    }

    pub(crate) async fn send(&mut self, message: ToWorker, fd: Option<OwnedFd>) {
        self.channel.send(&message, fd.as_ref().map(AsFd::as_fd)).await.unwrap();
    }

    pub(crate) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Opens a leg to the worker.
    pub(crate) async fn leg(&mut self) -> UnixStream {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let seq = self.next_seq();
        let message = ToWorker::Connection { seq, kind: ConnectionKind::Leg, peer: None, places: false };
        self.send(message, Some(theirs.into())).await;
        UnixStream::from_std(ours).unwrap()
    }

    /// Accepts a TCP connection, which sends `head`, and hands it over unread.
    pub(crate) async fn hand_off(&mut self, head: &str, places: bool) -> TcpStream {
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(front.local_addr().unwrap()).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        let (accepted, peer) = front.accept().await.unwrap();
        let seq = self.next_seq();
        let message = ToWorker::Connection { seq, kind: ConnectionKind::HandOff, peer: Some(peer), places };
        self.send(message, Some(accepted.into_std().unwrap().into())).await;
        client
    }
}

/// Reads one response with a `content-length` and returns its body.
pub(crate) async fn read_body(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut got = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase();
            let length = length.split_once("content-length: ").expect("no length").1;
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if body.len() >= length {
                return body.to_owned();
            }
        }
        let read =
            tokio::time::timeout(PATIENCE, stream.read_buf(&mut got)).await.expect("no answer").unwrap();
        assert_ne!(read, 0, "the connection ended after {text:?}");
    }
}
