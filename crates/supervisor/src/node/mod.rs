//! A Node worker. The supervisor is its cluster primary: it speaks Node's own IPC (`sundew_channel::node`), so that
//! `cluster`, `process.send('ready')` and @socket.io/cluster-adapter work as they are.
//!
//! - [`Node`]: the channel, what was handed over and not taken yet, whether the event loop answers.
//! - [`door`]: the worker as one front door sees it.
//! - [`passed`]: connections on their way through the preload's own pipe.
//! - [`listen`]: reads what the worker says.
//! - [`hub`]: carries @socket.io/cluster-adapter's messages between the workers of an app.
//! - [`pulse`]: finds out that an event loop is blocked.
//! - [`count`]: how many connections it has, where it does not tell.
//! - [`drain`]: empties a worker that was replaced.
//! - [`preload`]: the small script that gives requests their client's address.

mod count;
pub(crate) mod door;
pub(crate) mod drain;
pub(crate) mod hub;
pub(crate) mod listen;
pub(crate) mod pair;
mod passed;
pub(crate) mod preload;
pub(crate) mod pulse;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sundew_channel::node::{HandPipe, Handed, NodeChannel, ToWorker, WhyNot};
use sundew_router::{BackendId, Front, HandOff};

use crate::api::Sessions;
use count::Count;
use hub::Hub;
use passed::Passed;
use pulse::Pulse;

/// The ways to a Node process.
pub(crate) struct NodeLink {
    pub(crate) channel: NodeChannel,
    /// With our preload: the pipe it reads.
    pub(crate) pipe: Option<NodePipe>,
    /// Node's number of a cluster worker.
    pub(crate) unique_id: Option<u64>,
}

/// See [`passed`].
pub(crate) type NodePipe = HandPipe<Passed>;

/// The supervisor's side of one Node process.
pub(crate) struct Node {
    pub(crate) id: BackendId,
    app: String,
    channel: NodeChannel,
    pipe: Option<NodePipe>,
    /// Its servers on that pipe, by the name of their address.
    servers: Mutex<HashMap<String, passed::ServerNumber>>,
    /// Numbers what is sent.
    seq: AtomicU64,
    open: Mutex<Open>,
    /// Node's number of it, by which old adapters name it.
    pub(crate) unique_id: Option<u64>,
    /// Client connections it has taken, those opening a session among them, and those that have ended again.
    taken: AtomicU64,
    placed: AtomicU64,
    ended: AtomicU64,
    count: Count,
    pub(crate) hub: Arc<Hub>,
    pub(crate) pulse: Pulse,
    /// It runs our preload: legs need no address of their own, and it tells of connections that end.
    pub(crate) preload: bool,
    /// Where it serves.
    doors: Mutex<Vec<Front>>,
}

/// What waits for an answer.
#[derive(Default)]
struct Open {
    ping: Option<Instant>,
    /// Legs on their way, oldest first.
    legs: VecDeque<(u64, Instant)>,
    /// Clients' connections that were not taken yet, oldest first.
    clients: VecDeque<Client>,
    closed: bool,
}

struct Client {
    seq: u64,
    since: Instant,
    connection: HandOff,
    /// Where it came from, and goes when this worker does not take it.
    front: Front,
    /// Sent as `sticky:connection`: it is taken once it has arrived.
    sticky: bool,
}

impl Node {
    pub(crate) fn new(
        app: &str,
        id: BackendId,
        NodeLink { channel, pipe, unique_id }: NodeLink,
        hub: Arc<Hub>,
        pulse: Pulse,
    ) -> Arc<Self> {
        Arc::new(Self {
            preload: pipe.is_some(),
            pipe,
            servers: Mutex::default(),
            id,
            app: app.to_owned(),
            channel,
            seq: AtomicU64::new(1),
            open: Mutex::default(),
            unique_id,
            taken: AtomicU64::new(0),
            placed: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            count: Count::default(),
            hub,
            pulse,
            doors: Mutex::default(),
        })
    }

    /// It runs as this process.
    pub(crate) fn runs_as(&self, pid: u32) {
        self.count.runs_as(pid);
    }

    pub(crate) fn channel(&self) -> &NodeChannel {
        &self.channel
    }

    pub(crate) fn app(&self) -> &str {
        &self.app
    }

    /// Sends a message without a descriptor of ours. That it cannot be sent means that the worker is gone, which is
    /// noticed elsewhere, or that it has not read for long.
    pub(crate) fn tell(&self, message: ToWorker) {
        if let Err(error) = self.channel.send(message) {
            tracing::debug!(app = self.app, worker = %self.id, %error, "cannot send to the worker");
        }
    }

    /// The front doors it is known at, for its sessions.
    pub(crate) fn at_door(&self, front: Front) {
        self.count.begin();
        self.doors.lock().push(front);
    }

    /// It is known at a front door.
    pub(crate) fn serves(&self) -> bool {
        !self.doors.lock().is_empty()
    }

    pub(crate) fn not_at_door(&self, gone: &Front) {
        self.doors.lock().retain(|front| !front.is_same(gone));
    }

    /// Asks its event loop for a sign of life.
    pub(crate) fn ping(&self) {
        let mut open = self.open.lock();
        if !open.closed && open.ping.is_none() && self.channel.send(ToWorker::Ping).is_ok() {
            self.watch_if_first(&open);
            open.ping = Some(Instant::now());
        }
    }

    /// For how long it has answered nothing of what it was asked. `None`: nothing is open.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let oldest = [self.open.lock().oldest(), self.oldest_passed()].into_iter().flatten().min()?;
        Some(self.pulse.last().map_or(oldest, |last| last.max(oldest)).elapsed())
    }

    fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed)
    }

    fn watch_if_first(&self, open: &Open) {
        if open.oldest().is_none() {
            self.pulse.watch();
        }
    }

    /// Hands a client's connection over. `key`: to this server of the worker; none: as `sticky:connection`.
    fn hand_over(
        &self,
        key: Option<&str>,
        server: u32,
        front: &Front,
        connection: HandOff,
    ) -> Result<(), HandOff> {
        // The pipe has no room for an address that is not the socket's own: a proxy stands between.
        let server = if connection.told.is_some() || connection.secure { 0 } else { server };
        let connection = match self.pass(server, Passed::Client { connection, front: front.clone() }) {
            Ok(()) => return Ok(()),
            Err(Passed::Client { connection, .. }) => connection,
            Err(Passed::Leg(_)) => return Ok(()),
        };
        if server != 0 {
            return Err(connection);
        }
        let mut open = self.open.lock();
        if open.closed {
            return Err(connection);
        }
        // Kept until it is taken: what a dying worker never looked at is routed again.
        let Ok(fd) = connection.socket.try_clone() else { return Err(connection) };
        let seq = self.next_seq();
        let secure = if connection.secure { "; tls" } else { "" };
        let client = connection.told.map(|client| format!("{client}{secure}"));
        let handed = Handed { key: key.map(Into::into), seq, leg: false, client, fd };
        if self.channel.send(ToWorker::Connection(handed)).is_err() {
            return Err(connection);
        }
        self.watch_if_first(&open);
        let (since, sticky) = (Instant::now(), key.is_none());
        open.clients.push_back(Client { seq, since, connection, front: front.clone(), sticky });
        Ok(())
    }

    /// Hands the worker's end of a leg over.
    fn hand_leg(&self, key: Option<&str>, server: u32, fd: OwnedFd) -> io::Result<()> {
        if server != 0 {
            return self.pass(server, Passed::Leg(fd)).map_err(|_| io::ErrorKind::WouldBlock.into());
        }
        let mut open = self.open.lock();
        let seq = self.next_seq();
        let handed = Handed { key: key.map(Into::into), seq, leg: true, client: None, fd };
        self.channel.send(ToWorker::Connection(handed)).map_err(|error| match error.why {
            WhyNot::Closed => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::WouldBlock,
        })?;
        self.watch_if_first(&open);
        open.legs.push_back((seq, Instant::now()));
        Ok(())
    }

    /// A descriptor arrived (`whole`), or a message came without the descriptor it was to carry. None: a ping.
    pub(crate) fn arrived(&self, seq: Option<u64>, whole: bool) {
        self.pulse.answered(&self.app, self.id);
        let mut open = self.open.lock();
        // Whatever is answered, the event loop turns.
        open.ping = None;
        let Some(seq) = seq else { return };
        open.legs.retain(|(leg, _)| *leg != seq);
        let taken = if whole { open.take(seq, |client| client.sticky) } else { open.take(seq, |_| true) };
        drop(open);
        if whole {
            self.took(taken);
        } else if taken.is_some() {
            tracing::warn!(app = self.app, worker = %self.id, "a connection did not reach the worker: has it too many open files?");
            self.reroute(taken);
        }
    }

    /// The worker took a connection, or refused it: `maxConnections`, or a server that was closed.
    pub(crate) fn accepted(&self, seq: u64, accepted: bool) {
        let client = self.open.lock().take(seq, |_| true);
        if accepted { self.took(client) } else { self.reroute(client) }
    }

    fn took(&self, client: Option<Client>) {
        if let Some(client) = client {
            self.count_taken(&client.connection);
        }
    }

    fn count_taken(&self, connection: &HandOff) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if connection.places {
            self.placed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reroute(&self, client: Option<Client>) {
        if let Some(Client { connection, front, .. }) = client {
            front.reroute(connection, Some(self.id));
        }
    }

    /// Connections that have not even been written to its channel go elsewhere: it does not read.
    pub(crate) fn reroute_unsent(&self) -> usize {
        let mut open = self.open.lock();
        let unsent = self.channel.take_unsent(|one| !one.leg);
        let clients: Vec<Client> = unsent.iter().filter_map(|one| open.take(one.seq, |_| true)).collect();
        drop(open);
        let count = clients.len();
        clients.into_iter().for_each(|client| self.reroute(Some(client)));
        count + self.reroute_not_passed()
    }

    /// The worker is gone: what it had not taken is routed again.
    pub(crate) fn close(&self) {
        self.channel.close();
        let clients = {
            let mut open = self.open.lock();
            open.closed = true;
            open.ping = None;
            open.legs.clear();
            std::mem::take(&mut open.clients)
        };
        self.hub.leave(self);
        self.pulse.end();
        self.doors.lock().clear();
        clients.into_iter().for_each(|client| self.reroute(Some(client)));
        self.close_pipe();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.open.lock().closed
    }

    /// So many of the connections it took have ended.
    pub(crate) fn report_ended(&self, total: u64) {
        self.ended.store(total, Ordering::Relaxed);
    }

    /// Connections it took and has still.
    fn connections(&self) -> u32 {
        let taken = self.taken.load(Ordering::Relaxed);
        let open = match self.preload {
            true => taken.saturating_sub(self.ended.load(Ordering::Relaxed)),
            false => self.count.open(taken),
        };
        u32::try_from(open).unwrap_or(u32::MAX)
    }

    /// Client connections on their way to it.
    pub(crate) fn waiting(&self) -> u32 {
        u32::try_from(self.open.lock().clients.len() + self.clients_passed().1).unwrap_or(u32::MAX)
    }

    /// What it carries, over all its front doors.
    pub(crate) fn load(&self) -> Sessions {
        let polling = self.doors.lock().iter().map(|front| front.learned(self.id)).sum::<u32>();
        let websocket = self.connections();
        Sessions { total: polling.saturating_add(websocket), polling, websocket }
    }

    /// Connections that wait to be taken.
    pub(crate) fn unaccepted(&self) -> u64 {
        let sent = self.open.lock().clients.len();
        (sent + self.clients_passed().1) as u64
    }

    /// How long the oldest connection has waited to be taken.
    pub(crate) fn oldest_unaccepted(&self) -> Option<Duration> {
        let oldest = self.open.lock().clients.front().map(|client| client.since);
        [oldest, self.clients_passed().0].into_iter().flatten().min().map(|since| since.elapsed())
    }
}

impl Open {
    fn take(&mut self, seq: u64, wanted: impl Fn(&Client) -> bool) -> Option<Client> {
        // Almost always the first one.
        let at = self.clients.iter().position(|client| client.seq == seq)?;
        if wanted(&self.clients[at]) { self.clients.remove(at) } else { None }
    }

    /// Since when something has been waiting for an answer.
    fn oldest(&self) -> Option<Instant> {
        let leg = self.legs.front().map(|(_, since)| *since);
        let client = self.clients.front().map(|client| client.since);
        [self.ping, leg, client].into_iter().flatten().min()
    }
}
