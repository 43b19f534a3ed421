//! The supervisor's side of this process: who this worker is, what it was sent, and what it has to say.
//!
//! [`Cluster`] is the state; the tasks in `inbound.rs` and `outbound.rs` move messages between it and the channel.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use sundew_channel::native::{Endpoint, PROTOCOL, PeerId, ToSupervisor, ToWorker, Welcome};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::inbox::{Inbox, Incoming};
use crate::moving::Moves;
use crate::route::Questions;
use crate::{inbound, outbound};

/// How long the first message may take. It was queued before this process began, so it is there.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// How many messages to the supervisor may wait besides load and confirmations, which do not queue.
const OUTBOUND_LIMIT: usize = 64;
/// How many peers may wait for a bus to take them: as many as there can be slots.
const PEER_LIMIT: usize = 256;

/// Where this worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It takes sessions.
    Serving,
    /// The front door gives it no new sessions; it keeps its own until the deadline.
    Draining,
    /// It ends: [`serve`](crate::serve) returns soon.
    Leaving,
}

/// Another worker of the app, to speak to.
#[derive(Debug)]
pub struct Peer {
    /// Who it is.
    pub id: PeerId,
    /// The connection to it, in non-blocking mode. It ends when the other worker is gone.
    pub stream: UnixStream,
}

/// What the supervisor said and wants to know. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<State>);

struct State {
    welcome: Welcome,
    /// The supervisor started this process, so it reads what the process prints.
    started: bool,
    /// Until the tasks start, which takes a runtime.
    idle: Mutex<Option<Idle>>,
    inbox: Inbox,
    /// Wakes the outbound task: something was taken, or a placement counted.
    due: Notify,
    placements: AtomicU64,
    messages: mpsc::Sender<ToSupervisor>,
    bound: Mutex<Bound>,
    peers: Mutex<Peers>,
    questions: Questions,
    moves: Moves,
    phase: watch::Sender<Phase>,
}

struct Idle {
    endpoint: Endpoint<ToWorker, ToSupervisor>,
    messages: mpsc::Receiver<ToSupervisor>,
}

#[derive(Default)]
struct Bound {
    /// The supervisor is gone: nobody will answer.
    closed: bool,
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<SocketAddr, String>>>,
}

enum Peers {
    Waiting(Vec<Peer>),
    Taken(Arc<dyn Fn(Peer) + Send + Sync>),
}

/// The supervisor of this process, or `None` when it runs alone. The first call takes the channel over.
///
/// An unusable channel is logged and counts as none; [`Listener::bind`](crate::Listener::bind) reports it.
pub fn cluster() -> Option<&'static Cluster> {
    match try_cluster() {
        Ok(cluster) => cluster,
        Err(error) => {
            tracing::error!(%error, "no connection to the supervisor");
            None
        }
    }
}

/// As [`cluster`], with the reason when there is a channel that cannot be used.
///
/// # Errors
/// When the environment names a channel that is none, or the supervisor speaks another protocol.
pub fn try_cluster() -> io::Result<Option<&'static Cluster>> {
    static CLUSTER: OnceLock<Result<Option<Cluster>, String>> = OnceLock::new();
    match CLUSTER.get_or_init(from_env) {
        Ok(cluster) => Ok(cluster.as_ref()),
        Err(error) => Err(io::Error::other(error.clone())),
    }
}

fn from_env() -> Result<Option<Cluster>, String> {
    let endpoint = Endpoint::from_env().map_err(|error| error.to_string())?;
    endpoint.map(|endpoint| Cluster::over(endpoint, true)).transpose().map_err(|error| error.to_string())
}

impl Cluster {
    /// Joins over `endpoint`: reads the welcome and answers it. Nothing else happens until [`start`](Cluster::start).
    ///
    /// # Errors
    /// When there is no welcome on the channel, or the supervisor speaks another protocol.
    pub fn join(endpoint: Endpoint<ToWorker, ToSupervisor>) -> io::Result<Cluster> {
        Cluster::over(endpoint, false)
    }

    fn over(endpoint: Endpoint<ToWorker, ToSupervisor>, started: bool) -> io::Result<Cluster> {
        let welcome = endpoint.welcome(WELCOME_TIMEOUT).map_err(io::Error::other)?;
        if welcome.protocol != PROTOCOL {
            return Err(io::Error::other(format!(
                "the supervisor speaks protocol {}, this program {PROTOCOL}: build both from the same Sundew release",
                welcome.protocol
            )));
        }
        let hello = ToSupervisor::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        };
        endpoint.try_send(&hello, None).map_err(io::Error::other)?;
        let (sender, messages) = mpsc::channel(OUTBOUND_LIMIT);
        Ok(Cluster(Arc::new(State {
            welcome,
            started,
            idle: Mutex::new(Some(Idle { endpoint, messages })),
            inbox: Inbox::default(),
            due: Notify::new(),
            placements: AtomicU64::new(0),
            messages: sender,
            bound: Mutex::default(),
            peers: Mutex::new(Peers::Waiting(Vec::new())),
            questions: Questions::default(),
            moves: Moves::default(),
            phase: watch::Sender::new(Phase::Serving),
        })))
    }

    /// Begins to exchange messages, once. Does nothing outside of a runtime, or when it has begun.
    ///
    /// # Errors
    /// When the runtime cannot watch the channel.
    pub fn start(&self) -> io::Result<()> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Ok(()) };
        let Some(Idle { endpoint, messages }) = self.0.idle.lock().take() else { return Ok(()) };
        let channel = Arc::new(endpoint.into_channel()?);
        runtime.spawn(outbound::run(self.clone(), channel.clone(), messages));
        runtime.spawn(inbound::run(self.clone(), channel));
        Ok(())
    }

    pub(crate) fn is_read_by_supervisor(&self) -> bool {
        self.0.started
    }

    /// Who this worker is.
    pub fn welcome(&self) -> &Welcome {
        &self.0.welcome
    }

    /// Where this worker is in its life, and every change of it.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Takes all connections to other workers, those there are and those to come. A second call replaces the first.
    pub fn on_peer(&self, take: impl Fn(Peer) + Send + Sync + 'static) {
        let take: Arc<dyn Fn(Peer) + Send + Sync> = Arc::new(take);
        let before = std::mem::replace(&mut *self.0.peers.lock(), Peers::Taken(take.clone()));
        if let Peers::Waiting(peers) = before {
            peers.into_iter().for_each(|peer| take(peer));
        }
    }

    /// Asks the supervisor to serve `addr` for this worker and its siblings.
    pub(crate) async fn listen(&self, addr: &str) -> io::Result<SocketAddr> {
        let (sender, answer) = oneshot::channel();
        let gone = || {
            io::Error::new(
                io::ErrorKind::BrokenPipe,
                format!("cannot listen on {addr}: the supervisor is gone"),
            )
        };
        let id = {
            let mut bound = self.0.bound.lock();
            if bound.closed {
                return Err(gone());
            }
            bound.next += 1;
            let id = bound.next;
            bound.waiting.insert(id, sender);
            id
        };
        self.send(ToSupervisor::Listen { id, addr: addr.to_owned() }).await;
        match answer.await {
            Ok(Ok(addr)) => Ok(addr),
            Ok(Err(reason)) => Err(io::Error::other(reason)),
            Err(_) => Err(gone()),
        }
    }

    /// Queues a message. When the supervisor is gone, nobody waits for it.
    pub(crate) async fn send(&self, message: ToSupervisor) {
        let _ = self.0.messages.send(message).await;
    }

    /// The next connection to serve. Cancel-safe.
    pub(crate) async fn accept(&self) -> Incoming {
        let incoming = self.0.inbox.take().await;
        self.0.due.notify_one();
        incoming
    }

    pub(crate) fn count_placement(&self) {
        self.0.placements.fetch_add(1, Ordering::Relaxed);
        self.0.due.notify_one();
    }

    pub(crate) fn placements(&self) -> u64 {
        self.0.placements.load(Ordering::Relaxed)
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.0.inbox
    }

    /// Completes when a descriptor was taken or a placement counted.
    pub(crate) async fn due(&self) {
        self.0.due.notified().await;
    }

    pub(crate) fn wake_outbound(&self) {
        self.0.due.notify_one();
    }

    pub(crate) fn answer_listen(&self, id: u64, result: Result<SocketAddr, String>) {
        match self.0.bound.lock().waiting.remove(&id) {
            Some(waiting) => drop(waiting.send(result)),
            None => tracing::warn!(id, "the supervisor answered a listen nobody waits for"),
        }
    }

    /// Nobody will answer any more.
    pub(crate) fn drop_listens(&self) {
        let mut bound = self.0.bound.lock();
        bound.closed = true;
        bound.waiting.clear();
    }

    pub(crate) fn moves(&self) -> &Moves {
        &self.0.moves
    }

    pub(crate) fn questions(&self) -> &Questions {
        &self.0.questions
    }

    pub(crate) fn add_peer(&self, peer: Peer) {
        let take = match &mut *self.0.peers.lock() {
            Peers::Taken(take) => take.clone(),
            Peers::Waiting(peers) if peers.len() < PEER_LIMIT => return peers.push(peer),
            Peers::Waiting(_) => {
                return tracing::warn!(id = ?peer.id, "too many peers and no bus: one dropped");
            }
        };
        take(peer);
    }

    /// Moves on; there is no way back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            let forward = phase as u8 > *now as u8;
            if forward {
                *now = phase;
            }
            forward
        });
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Welcome { app, slot, generation, .. } = self.welcome();
        f.debug_struct("Cluster")
            .field("app", app)
            .field("slot", slot)
            .field("generation", generation)
            .finish_non_exhaustive()
    }
}
