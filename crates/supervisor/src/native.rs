//! A native worker as the front door sees it: connections and legs go over its channel, in order, without ever blocking.
//!
//! The supervisor keeps its copy of a handed-over socket until the worker confirms it, so that what a dying worker never
//! took can be routed again. Who the worker is and whether it should live is not decided here.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sundew_channel::native::{ConnectionKind, PeerId, SendError, SupervisorChannel, ToWorker};
use sundew_router::{Arrival, Backend, BackendId, Departure, HandOff, Leg, Moving};
use tokio::sync::{Notify, watch};

use crate::api::Sessions;
use crate::moves::{self, Moves};

/// Connections and legs on their way to one worker, not confirmed yet. Beyond it the front door uses another worker.
const UNCONFIRMED_LIMIT: usize = 256;
/// Messages that wait for room in the channel, besides those connections.
const QUEUE_LIMIT: usize = 1024;

/// The supervisor's side of one native worker.
pub(crate) struct Native {
    id: BackendId,
    app: String,
    channel: Arc<SupervisorChannel>,
    outbox: Mutex<Outbox>,
    /// The queue is not empty.
    queued: Notify,
    confirmed: watch::Sender<u64>,
    sessions: Mutex<Sessions>,
    placements: AtomicU64,
    pub(crate) moves: Moves,
    drained: watch::Sender<bool>,
    /// What it was sent has been waiting for too long.
    hung: AtomicBool,
    /// From here on it is.
    hung_after: Duration,
}

#[derive(Default)]
struct Outbox {
    seq: u64,
    queue: VecDeque<(ToWorker, Option<Carried>)>,
    unconfirmed: VecDeque<Unconfirmed>,
    /// Something is queued or between the queue and the channel: what comes now has to queue behind it.
    sending: bool,
    closed: bool,
}

/// A descriptor that travels beside a message.
enum Carried {
    /// A client's connection: kept until confirmed.
    Client(HandOff),
    /// The far end of a pair: of no use here once it is sent.
    End(OwnedFd),
}

struct Unconfirmed {
    seq: u64,
    since: Instant,
    /// None: a leg, which is of use to nobody else.
    connection: Option<HandOff>,
}

impl Native {
    pub(crate) fn new(
        app: &str,
        id: BackendId,
        channel: SupervisorChannel,
        hung_after: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            app: app.to_owned(),
            channel: Arc::new(channel),
            outbox: Mutex::default(),
            queued: Notify::new(),
            confirmed: watch::Sender::new(0),
            sessions: Mutex::default(),
            placements: AtomicU64::new(0),
            moves: Moves::default(),
            drained: watch::Sender::new(false),
            hung: AtomicBool::new(false),
            hung_after,
        })
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        PeerId { slot: self.id.slot, generation: self.id.generation }
    }

    pub(crate) fn channel(&self) -> &SupervisorChannel {
        &self.channel
    }

    /// Moves what waits into the channel as the worker makes room. Ends when the channel does, and gives back the
    /// connection that was on its way then.
    pub(crate) async fn run(self: Arc<Self>) -> Option<HandOff> {
        loop {
            self.queued.notified().await;
            loop {
                let (message, carried) = {
                    let mut outbox = self.outbox.lock();
                    if outbox.closed {
                        return None;
                    }
                    let Some(next) = outbox.queue.pop_front() else { break };
                    next
                };
                // The lock is not held while waiting; `push` sees that the queue is busy by `sending`.
                let fd = carried.as_ref().map(Carried::fd);
                let result = self.channel.send(&message, fd).await;
                let mut outbox = self.outbox.lock();
                outbox.sending = !outbox.queue.is_empty();
                match result {
                    Ok(()) => outbox.sent(&message, carried),
                    Err(error) => {
                        tracing::debug!(app = self.app, worker = %self.id, %error, "cannot send to the worker");
                        outbox.closed = true;
                        return match carried {
                            Some(Carried::Client(connection)) => Some(connection),
                            _ => None,
                        };
                    }
                }
            }
        }
    }

    /// Sends a message without a descriptor, after all that was sent before.
    pub(crate) fn tell(&self, message: ToWorker) {
        // An error means the worker is gone, which is noticed elsewhere.
        let _ = self.push(&mut self.outbox.lock(), |_| message, None);
    }

    /// Sends the connection of a session that the worker has imported. An error means that it will never get it.
    pub(crate) fn attach(&self, id: u64, socket: OwnedFd) -> io::Result<()> {
        let mut outbox = self.outbox.lock();
        let message = |seq| ToWorker::Attach { seq, id };
        let pushed = self.push(&mut outbox, message, Some(Carried::End(socket)));
        pushed.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Sends one end of a pair to another worker. Gives the number by which it will be confirmed.
    pub(crate) fn introduce(&self, peer: PeerId, end: OwnedFd) -> u64 {
        let mut outbox = self.outbox.lock();
        let _ = self.push(&mut outbox, |seq| ToWorker::Peer { seq, id: peer }, Some(Carried::End(end)));
        outbox.seq
    }

    /// Waits until the worker has taken everything up to `seq`.
    pub(crate) async fn confirmed(&self, seq: u64) {
        // It cannot fail: the sender is in `self`.
        let _ = self.confirmed.subscribe().wait_for(|through| *through >= seq).await;
    }

    /// Waits until the worker has taken everything sent so far.
    pub(crate) async fn all_confirmed(&self) {
        let seq = self.outbox.lock().seq;
        self.confirmed(seq).await;
    }

    /// The worker confirmed.
    pub(crate) fn confirm(&self, through: u64) {
        let mut outbox = self.outbox.lock();
        while outbox.unconfirmed.front().is_some_and(|first| first.seq <= through) {
            outbox.unconfirmed.pop_front();
        }
        if self.hung.swap(false, Ordering::Relaxed) {
            tracing::info!(app = self.app, worker = %self.id, "the worker takes connections again");
        }
        drop(outbox);
        self.confirmed.send_if_modified(|before| std::mem::replace(before, through.max(*before)) < through);
    }

    /// Connections that wait to be taken.
    pub(crate) fn unconfirmed(&self) -> u64 {
        self.outbox.lock().unconfirmed.len() as u64
    }

    /// How long the oldest of them has waited.
    pub(crate) fn oldest_unconfirmed(&self) -> Option<Duration> {
        self.outbox.lock().unconfirmed.front().map(|first| first.since.elapsed())
    }

    pub(crate) fn report_load(&self, sessions: Sessions, placements: u64) {
        *self.sessions.lock() = sessions;
        self.placements.store(placements, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> Sessions {
        *self.sessions.lock()
    }

    pub(crate) fn report_drained(&self) {
        self.drained.send_replace(true);
    }

    /// Waits until the worker says that no session is left.
    pub(crate) async fn drained(&self) {
        let _ = self.drained.subscribe().wait_for(|drained| *drained).await;
    }

    /// The worker is gone: takes no more, and gives back the connections it had not confirmed.
    pub(crate) fn close(&self) -> Vec<HandOff> {
        let mut outbox = self.outbox.lock();
        outbox.closed = true;
        let unconfirmed = std::mem::take(&mut outbox.unconfirmed);
        let queue = std::mem::take(&mut outbox.queue);
        self.moves.close();
        // Ends `run`, which would keep the channel open for good.
        self.queued.notify_one();
        let queued = queue.into_iter().filter_map(|(_, carried)| match carried {
            Some(Carried::Client(connection)) => Some(connection),
            _ => None,
        });
        unconfirmed.into_iter().filter_map(|one| one.connection).chain(queued).collect()
    }

    /// Sends at once if nothing waits, queues otherwise. An error gives the connection back.
    fn push(
        &self,
        outbox: &mut Outbox,
        message: impl FnOnce(u64) -> ToWorker,
        carried: Option<Carried>,
    ) -> Result<(), Option<Carried>> {
        if outbox.closed || outbox.queue.len() >= QUEUE_LIMIT {
            return Err(carried);
        }
        let seq = outbox.seq + u64::from(carried.is_some());
        let message = message(seq);
        if outbox.queue.is_empty() && !outbox.sending {
            let sent = self.channel.try_send(&message, carried.as_ref().map(Carried::fd));
            match sent {
                Ok(()) => {
                    outbox.seq = seq;
                    outbox.sent(&message, carried);
                    return Ok(());
                }
                Err(SendError::Full) => {}
                Err(error) => {
                    tracing::debug!(app = self.app, worker = %self.id, %error, "cannot send to the worker");
                    outbox.closed |= matches!(error, SendError::Closed);
                    return Err(carried);
                }
            }
        }
        outbox.seq = seq;
        outbox.queue.push_back((message, carried));
        outbox.sending = true;
        self.queued.notify_one();
        Ok(())
    }

    fn note_hung(&self, outbox: &Outbox) {
        let waiting = outbox.unconfirmed.front().map(|first| first.since.elapsed());
        let Some(waiting) = waiting.filter(|waiting| *waiting > self.hung_after) else { return };
        if !self.hung.swap(true, Ordering::Relaxed) {
            tracing::warn!(app = self.app, worker = %self.id, ?waiting, "the worker does not take its connections: it hangs");
        }
    }
}

impl Carried {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Client(connection) => connection.socket.as_fd(),
            Self::End(end) => end.as_fd(),
        }
    }
}

impl Outbox {
    fn sent(&mut self, message: &ToWorker, carried: Option<Carried>) {
        let (ToWorker::Connection { seq, .. } | ToWorker::Attach { seq, .. }) = message else { return };
        let connection = match carried {
            Some(Carried::Client(connection)) => Some(connection),
            _ => None,
        };
        self.unconfirmed.push_back(Unconfirmed { seq: *seq, since: Instant::now(), connection });
    }
}

impl Backend for Native {
    fn id(&self) -> BackendId {
        self.id
    }

    fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
        let mut outbox = self.outbox.lock();
        self.note_hung(&outbox);
        // A worker that hangs gets no more: nobody would read them.
        if self.is_stuck() || outbox.unconfirmed.len() + outbox.queue.len() >= UNCONFIRMED_LIMIT {
            return Err(connection);
        }
        let HandOff { peer, places, .. } = connection;
        let kind = ConnectionKind::HandOff;
        let message = |seq| ToWorker::Connection { seq, kind, peer, places };
        match self.push(&mut outbox, message, Some(Carried::Client(connection))) {
            Err(Some(Carried::Client(connection))) => Err(connection),
            _ => Ok(()),
        }
    }

    fn open_leg(&self) -> io::Result<Leg> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let mut outbox = self.outbox.lock();
        self.note_hung(&outbox);
        if outbox.queue.len() >= UNCONFIRMED_LIMIT {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        let kind = ConnectionKind::Leg;
        let message = |seq| ToWorker::Connection { seq, kind, peer: None, places: false };
        match self.push(&mut outbox, message, Some(Carried::End(theirs.into()))) {
            Ok(()) => Ok(Leg::Unix(tokio::net::UnixStream::from_std(ours)?)),
            Err(_) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    }

    fn export(self: Arc<Self>, sid: &str, limit: u32) -> Moving<Option<Departure>> {
        moves::export(self, sid, limit)
    }

    fn import(self: Arc<Self>, state: Vec<u8>) -> Moving<Result<Arrival, String>> {
        moves::import(self, state)
    }

    fn sessions(&self) -> u32 {
        self.sessions.lock().total
    }

    fn placements_seen(&self) -> u64 {
        self.placements.load(Ordering::Relaxed)
    }

    fn is_stuck(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use sundew_channel::native::{WorkerChannel, pair};

    use super::*;

    fn worker() -> (Arc<Native>, WorkerChannel) {
        let (ours, theirs) = pair().unwrap();
        let native = Native::new(
            "a",
            BackendId { slot: 0, generation: 0 },
            ours.into_channel().unwrap(),
            Duration::from_secs(1),
        );
        tokio::spawn(native.clone().run());
        (native, theirs.into_channel().unwrap())
    }

    fn connection(listener: &TcpListener) -> (TcpStream, HandOff) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        (client, HandOff::new(socket.into(), Some(peer), true))
    }

    #[tokio::test]
    async fn unconfirmed_connections_come_back_and_confirmed_ones_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (native, worker) = worker();
        let mut clients = Vec::new();
        for _ in 0..3 {
            let (client, connection) = connection(&listener);
            native.hand_over(connection).unwrap();
            clients.push(client);
        }
        for expected in 1..=3 {
            let (message, fd) = worker.recv().await.unwrap().unwrap();
            assert!(matches!(message, ToWorker::Connection { seq, places: true, .. } if seq == expected));
            assert!(fd.is_some());
        }
        assert!(native.oldest_unconfirmed().is_some());
        native.confirm(2);
        let back = native.close();
        let back: Vec<_> = back.iter().map(|one| one.peer.unwrap()).collect();
        assert_eq!(back, [clients[2].local_addr().unwrap()]);
        let (_client, connection) = connection(&listener);
        assert!(native.hand_over(connection).is_err(), "a closed one takes nothing");
    }

    #[tokio::test]
    async fn a_worker_that_does_not_read_gets_a_bounded_number() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (native, _worker) = worker();
        let mut clients = Vec::new();
        let refused = loop {
            let (client, connection) = connection(&listener);
            clients.push(client);
            if native.hand_over(connection).is_err() {
                break clients.len();
            }
        };
        assert_eq!(refused, UNCONFIRMED_LIMIT + 1);
        assert_eq!(native.close().len(), UNCONFIRMED_LIMIT);
    }

    #[tokio::test]
    async fn order_survives_a_full_channel() {
        let (native, worker) = worker();
        for deadline_ms in 0..QUEUE_LIMIT as u64 {
            native.tell(ToWorker::Drain { deadline_ms });
        }
        for expected in 0..QUEUE_LIMIT as u64 {
            let (message, _) = worker.recv().await.unwrap().unwrap();
            assert_eq!(message, ToWorker::Drain { deadline_ms: expected });
        }
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_keeps_no_task_and_so_no_channel() {
        let (ours, _theirs) = pair().unwrap();
        let native = Native::new(
            "a",
            BackendId { slot: 0, generation: 0 },
            ours.into_channel().unwrap(),
            Duration::from_secs(1),
        );
        let running = tokio::spawn(native.clone().run());
        tokio::task::yield_now().await;
        native.close();
        let ended = tokio::time::timeout(Duration::from_secs(5), running).await;
        assert!(ended.is_ok_and(|run| run.is_ok_and(|connection| connection.is_none())));
        assert_eq!(Arc::strong_count(&native), 1);
    }
}
