//! The task that reads the channel: connections to the inbox, peers to the bus, drain and shutdown to the sessions.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use std::{io, net};

use sundew_channel::native::{ConnectionKind, RecvError, ToSupervisor, ToWorker, WorkerChannel};
use sundew_io::{Conn, Origin};
use tokio::task::JoinHandle;

use crate::inbox::Incoming;
use crate::sessions::{self, Pace};
use crate::{Cluster, Peer, Phase, output};

pub(crate) async fn run(cluster: Cluster, channel: Arc<WorkerChannel>) {
    let mut inbound = Inbound { cluster, drain: None };
    loop {
        match channel.recv().await {
            Ok(Some((message, fd))) => inbound.take(message, fd).await,
            Ok(None) => break,
            Err(RecvError::Io(error)) => {
                tracing::error!(%error, "the channel to the supervisor failed");
                break;
            }
            Err(error) => tracing::warn!(%error, "a message of the supervisor was ignored"),
        }
    }
    inbound.orphaned();
}

struct Inbound {
    cluster: Cluster,
    drain: Option<JoinHandle<()>>,
}

impl Inbound {
    async fn take(&mut self, message: ToWorker, fd: Option<OwnedFd>) {
        match (message, fd) {
            (ToWorker::Connection { seq, kind, peer, places }, Some(fd)) => {
                match connection(fd, kind, peer) {
                    Ok(conn) => self.cluster.inbox().push(seq, Incoming { conn, places }).await,
                    Err(error) => self.lost(seq, &error),
                }
            }
            (ToWorker::Peer { seq, id }, Some(fd)) => {
                let stream = UnixStream::from(fd);
                match stream.set_nonblocking(true) {
                    Ok(()) => {
                        self.cluster.add_peer(Peer { id, stream });
                        self.passed(seq);
                    }
                    Err(error) => self.lost(seq, &error),
                }
            }
            (ToWorker::Attach { seq, id }, Some(fd)) => match connection(fd, ConnectionKind::HandOff, None) {
                Ok(conn) => {
                    if self.cluster.moves().attach(id, conn.into_raw()).is_none() {
                        tracing::warn!(id, "a connection came for a session that is not here");
                    }
                    self.passed(seq);
                }
                Err(error) => self.lost(seq, &error),
            },
            (
                ToWorker::Connection { seq, .. } | ToWorker::Peer { seq, .. } | ToWorker::Attach { seq, .. },
                None,
            ) => {
                self.lost(seq, &io::Error::other("its descriptor did not come along: too many files open?"));
            }
            (ToWorker::Bound { id, result }, _) => self.cluster.answer_listen(id, result),
            (ToWorker::Routed { id, result }, _) => self.cluster.questions().answer(id, result),
            (ToWorker::Export { id, sid, limit }, _) => {
                self.cluster.moves().export(&self.cluster, id, sid, limit);
            }
            (ToWorker::Settle { id, moved }, _) => self.cluster.moves().settle(id, moved),
            (ToWorker::Import { id, state }, _) => {
                let result = self.cluster.moves().import(&self.cluster, id, &state);
                // Placed here, whatever came of it: if it is here, it is in the load by now.
                self.cluster.count_placement();
                self.cluster.send(ToSupervisor::Imported { id, result }).await;
            }
            (ToWorker::Forget { id }, _) => self.cluster.moves().forget(id),
            (ToWorker::Drain { deadline_ms }, _) => self.drain(Duration::from_millis(deadline_ms)),
            (ToWorker::Shutdown, _) => self.cluster.enter(Phase::Leaving),
            (ToWorker::Welcome(_), _) => tracing::warn!("the supervisor said welcome twice"),
        }
    }

    fn passed(&self, seq: u64) {
        self.cluster.inbox().pass(seq);
        self.cluster.wake_outbound();
    }

    fn lost(&self, seq: u64, error: &io::Error) {
        tracing::error!(seq, %error, "a connection from the supervisor could not be taken");
        self.passed(seq);
    }

    /// The latest word counts: a new deadline replaces the one before.
    fn drain(&mut self, deadline: Duration) {
        self.cluster.enter(Phase::Draining);
        if let Some(before) = self.drain.take() {
            before.abort();
        }
        let cluster = self.cluster.clone();
        self.drain = Some(tokio::spawn(async move {
            sessions::drain(deadline, pace(&cluster)).await;
            cluster.send(ToSupervisor::Drained).await;
        }));
    }

    /// The supervisor is gone and with it the front door: nobody can come back to a session here, so it ends with the
    /// drain it would have had.
    fn orphaned(mut self) {
        if self.cluster.is_read_by_supervisor() {
            output::abandon();
        }
        self.cluster.drop_listens();
        self.cluster.questions().close();
        self.cluster.moves().end();
        if *self.cluster.phase().borrow() == Phase::Leaving {
            return;
        }
        let deadline = Duration::from_millis(self.cluster.welcome().drain_timeout_ms);
        tracing::warn!(
            ?deadline,
            "the supervisor is gone: sessions are let go by the deadline, then this worker ends"
        );
        self.cluster.enter(Phase::Draining);
        if let Some(before) = self.drain.take() {
            before.abort();
        }
        tokio::spawn(async move {
            sessions::drain(deadline, pace(&self.cluster)).await;
            self.cluster.enter(Phase::Leaving);
        });
    }
}

fn pace(cluster: &Cluster) -> Pace {
    let let_go = cluster.welcome().let_go;
    Pace { batch: let_go.batch, pause: Duration::from_millis(let_go.pause_ms) }
}

fn connection(fd: OwnedFd, kind: ConnectionKind, peer: Option<SocketAddr>) -> io::Result<Conn> {
    let origin = match kind {
        ConnectionKind::HandOff => Origin::HandedOff,
        ConnectionKind::Leg => Origin::Leg,
    };
    let tcp = net::TcpStream::from(fd);
    tcp.set_nonblocking(true)?;
    // Only an internet socket has an address std can read.
    if tcp.local_addr().is_ok() {
        Ok(Conn::tcp(tokio::net::TcpStream::from_std(tcp)?, peer, origin))
    } else {
        let unix = UnixStream::from(OwnedFd::from(tcp));
        // A client of another node's comes so, too.
        Ok(Conn::unix(tokio::net::UnixStream::from_std(unix)?, origin).with_peer(peer))
    }
}
