//! Real Node workers for the tests: started as the supervisor starts them, with a script of the test's own.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use sundew_channel::node::{
    FromWorker, Handed, Inbox, Limits, NodeChannel, Query, Serialization, SockName, ToWorker, env, pair,
};

/// Far more than anything here takes: it only keeps a broken test from waiting for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The port the worker believes it listens on.
pub(crate) const PORT: u16 = 4242;

/// The Node to test with: `$SUNDEW_TEST_NODE`, or the one of the machine. `None`, with a word why, if there is none.
pub(crate) fn node() -> Option<PathBuf> {
    let node = PathBuf::from(std::env::var_os("SUNDEW_TEST_NODE").unwrap_or_else(|| "node".into()));
    match Command::new(&node).arg("--version").output() {
        Ok(_) => Some(node),
        Err(error) => {
            println!("skipped: {} does not run here ({error})", node.display());
            None
        }
    }
}

pub(crate) struct Worker {
    pub(crate) channel: Arc<NodeChannel>,
    pub(crate) child: Child,
    inbox: Inbox,
    dir: PathBuf,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.channel.close();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Worker {
    pub(crate) fn start(node: &PathBuf, serialization: Serialization, script: &str) -> Self {
        Self::start_with(node, serialization, Limits::default(), script)
    }

    pub(crate) fn start_with(
        node: &PathBuf,
        serialization: Serialization,
        limits: Limits,
        script: &str,
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sundew-node-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("app.js");
        std::fs::write(&file, script).unwrap();

        let (ours, theirs) = pair().unwrap();
        let mut command = Command::new(node);
        command.arg(&file).envs(env(3, serialization, number.into()));
        command.fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: 3 }]).unwrap();
        let child = command.spawn().unwrap();
        // The command holds the worker's end.
        drop(command);

        let channel = Arc::new(NodeChannel::new(ours, serialization, limits).unwrap());
        let writer = channel.clone();
        tokio::spawn(async move { writer.run().await });
        Self { channel, child, inbox: Inbox::default(), dir }
    }

    /// The next message. `None`: the channel has ended.
    pub(crate) async fn recv(&mut self) -> Option<FromWorker> {
        tokio::time::timeout(PATIENCE, self.channel.recv(&mut self.inbox))
            .await
            .expect("the worker says nothing")
            .unwrap()
    }

    pub(crate) async fn expect(&mut self, expected: FromWorker) {
        assert_eq!(self.recv().await, Some(expected));
    }

    /// The next message for which `pick` has an answer; others are dropped.
    pub(crate) async fn find<T>(&mut self, mut pick: impl FnMut(&FromWorker) -> Option<T>) -> T {
        loop {
            let message = self.recv().await.expect("the worker's channel ended");
            if let Some(found) = pick(&message) {
                return found;
            }
        }
    }

    pub(crate) async fn query(&mut self) -> (u64, Query) {
        self.find(|message| match message {
            FromWorker::QueryServer { seq, query } => Some((*seq, query.clone())),
            _ => None,
        })
        .await
    }

    /// Answers the next query, and waits until the server listens and the app is ready.
    pub(crate) async fn serve(&mut self) -> String {
        let (ack, query) = self.query().await;
        let key = query.key();
        let sockname = Some(SockName { address: "::".into(), port: PORT, ipv6: true });
        self.send(ToWorker::Bound { ack, key: key.clone(), sockname, ticket_keys: query.ticket_keys });
        // In either order, by version.
        let mut left = 2;
        self.find(|message| {
            left -= i32::from(matches!(message, FromWorker::Ready | FromWorker::Listening(_)));
            (left == 0).then_some(())
        })
        .await;
        key
    }

    pub(crate) fn send(&self, message: ToWorker) {
        self.channel.send(message).unwrap();
    }

    /// Lets a script go on that waits for this.
    pub(crate) fn unblock(&self) {
        std::fs::write(self.dir.join("go"), "").unwrap();
    }

    pub(crate) fn hand(&self, key: &str, seq: u64, fd: OwnedFd) {
        self.send(ToWorker::Connection(Handed {
            key: Some(key.to_owned()),
            seq,
            leg: false,
            client: None,
            fd,
        }));
    }
}

/// Clients' connections, and our end of each.
pub(crate) struct Door(TcpListener);

impl Door {
    pub(crate) fn open() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(crate) fn connect(&self) -> (Client, OwnedFd) {
        let client = TcpStream::connect(self.0.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (ours, _) = self.0.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Client(client), ours.into())
    }
}

pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(client)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn ask(&mut self, path: &str) {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    }

    /// The body of the answer. Blocks its own thread: the workers' messages have to be read meanwhile.
    pub(crate) async fn answer(mut self) -> String {
        tokio::task::spawn_blocking(move || {
            let mut answer = String::new();
            // A reset after the answer is no business of these tests.
            let _ = self.0.read_to_string(&mut answer);
            answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(answer)
        })
        .await
        .unwrap()
    }
}
