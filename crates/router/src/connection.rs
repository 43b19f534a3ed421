//! One client connection: its requests one after the other, until one of them is handed over or it ends.

mod exchange;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::time::Instant;

use rustix::net::RecvFlags;

use crate::accept::Counted;
use crate::backend::{BackendId, HandOff};
use crate::client::{Client, as_told_by};
use crate::front::Shared;
use crate::http::answer::{Answer, Manner};
use crate::members::Member;
use crate::moving::Arrival;
use crate::nodes;
use crate::raw::{self, Waiting};
use crate::route::{self, Progress, Routed, Tries};
use crate::sids::Session;
use crate::tls;

/// How often a connection may come back from workers.
const MAX_MOVES: u8 = 16;
/// Between two looks whether a worker that could not take a connection now can.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Answers a connection that is one too many.
pub(crate) fn refuse(client: &mut Client, why: Answer) {
    route::answer(client, why, Manner::CLOSE);
    // What it has sent so far, or closing would reset the connection and take the answer with it. To wait for the rest
    // would be to hold it after all.
    let _ = client.discard(4096, &mut [0; 4096]);
}

/// Serves a connection that came back from a worker that did not take it.
pub(crate) fn reroute(shared: &Arc<Shared>, mut connection: HandOff, except: Option<BackendId>) {
    let mut held = Counted::new(shared);
    held.at = std::mem::take(&mut connection.at);
    if let Some(member) = except.and_then(|id| shared.members.find(id)) {
        member.tally.returned.add();
    }
    connection.moves += 1;
    if connection.moves > MAX_MOVES {
        shared.counters.rejected_no_worker.add();
        return;
    }
    if rustix::io::ioctl_fionbio(&connection.socket, true).is_err() {
        return;
    }
    if connection.raw {
        return raw::reroute(held, connection, except);
    }
    let HandOff { socket, peer, told, secure, moves, of_node, .. } = connection;
    // Gone already, or begun by the worker: there is nothing to route.
    let mut byte = [0; 1];
    if !matches!(
        rustix::net::recv(&socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT),
        Ok((_, 1..))
    ) {
        return;
    }
    let peer = peer.map(|peer| as_told_by(&socket, peer));
    shared.counters.rerouted.add();
    let mut client = Client::new(socket, peer).secured(secure);
    client.is_node = of_node;
    if let Some(told) = told {
        client.announced(told);
    }
    tokio::spawn(serve(held, client, except, moves));
}

/// Serves a connection of another node.
pub(crate) fn serve_node(shared: &Arc<Shared>, socket: OwnedFd) -> io::Result<()> {
    let mut client = Client::new(socket, None);
    client.is_node = true;
    tokio::spawn(serve(Counted::new(shared), client, None, 0));
    Ok(())
}

/// Serves a connection to its end. `refused`: not by this worker; `moves`: how often it came back.
pub(crate) async fn serve(held: Counted, client: Client, refused: Option<BackendId>, moves: u8) {
    let mut next = (held, client, refused, moves);
    loop {
        let (held, client, refused, moves) = next;
        let at = held.at.clone();
        let Some((shared, mut client)) = serve_here(held, client, refused, moves).await else { return };
        let mut held = Counted::new(&shared);
        held.at = at;
        if held.is_too_many || !held.count_client(client.connection_peer().address.map(|peer| peer.ip())) {
            shared.counters.rejected_connections.add();
            return refuse(&mut client, Answer::Full);
        }
        client.left_unread(true);
        next = (held, client, None, moves);
    }
}

/// Serves it until it ends, or its next request is another app's.
async fn serve_here(
    held: Counted,
    client: Client,
    refused: Option<BackendId>,
    moves: u8,
) -> Option<(Arc<Shared>, Client)> {
    let client = client.at(held.at.clone());
    let mut connection = Connection { shared: &held.shared, client, pinned: None, moves };
    let mut tries = Tries::new(refused);
    loop {
        let after = connection.request(&mut tries).await;
        if !matches!(after, After::HandOver { .. })
            && let Some(line) = connection.client.line.take()
        {
            line.end(false);
        }
        match after {
            After::Next => {
                tries = Tries::default();
                connection.client.request_id = None;
            }
            After::Elsewhere(shared) => return Some((shared, connection.client)),
            After::Moved(arrival) => {
                // Out of the runtime before it is closed here, as in a hand-over.
                if let Ok(socket) = connection.client.into_fd()
                    && let Err(error) = arrival.attach(socket)
                {
                    tracing::debug!(app = held.shared.config.app, %error, "a session lost its connection");
                }
                return None;
            }
            After::Close => {
                connection.client.finish(held.shared.config.limits.linger_timeout).await;
                return None;
            }
            After::Linger => {
                let limits = &held.shared.config.limits;
                connection.client.linger(limits.linger_bytes, limits.linger_timeout).await;
                return None;
            }
            After::HandOver { member, sid, session } => match connection.hand_over(&member, sid, session) {
                None => return None,
                Some(back) => {
                    connection = back;
                    tries.except.push(member.id);
                    if sid && !connection.pause(&mut tries).await {
                        connection.no_worker();
                        let limits = &held.shared.config.limits;
                        connection.client.linger(limits.linger_bytes, limits.linger_timeout).await;
                        return None;
                    }
                }
            },
        }
    }
}

/// What follows a request.
enum After {
    Next,
    Close,
    /// The next request is still to be routed, by another app's front door.
    Elsewhere(Arc<Shared>),
    /// Close, once the client has had a chance to read what it was sent.
    Linger,
    /// Its session has come here, and waits for it.
    Moved(Arrival),
    HandOver {
        member: Arc<Member>,
        sid: bool,
        session: Option<Arc<Session>>,
    },
}

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    client: Client,
    /// With affinity to the connection: where it goes.
    pinned: Option<BackendId>,
    /// How often it came back from a worker.
    moves: u8,
}

impl<'a> Connection<'a> {
    /// Serves the next request.
    async fn request(&mut self, tries: &mut Tries) -> After {
        loop {
            match self.routed(tries).await {
                Routed::Answered { keep_alive: true } => return After::Next,
                Routed::Answered { keep_alive: false } => return After::Linger,
                Routed::Elsewhere(shared) => return After::Elsewhere(shared),
                Routed::HandOver { member, sid, session } => {
                    return After::HandOver { member, sid, session };
                }
                Routed::Unreachable { id, sid } => {
                    if let Some(member) = self.shared.members.find(id) {
                        member.tally.unreachable.add();
                    }
                    tries.except.push(id);
                    // It was looked at, and nothing tells of it again.
                    self.client.left_unread(true);
                    // Its owner is the only one; if it is gone, we shall be told in a moment.
                    if sid && !self.pause(tries).await {
                        self.no_worker();
                        return After::Linger;
                    }
                }
                Routed::Sent(mut exchange) => match self.exchange(&mut exchange, tries).await {
                    Some(after) => return after,
                    // It is still unread: route it again.
                    None => {
                        self.shared.counters.retried.add();
                        self.client.left_unread(true);
                    }
                },
                Routed::Refused => {
                    self.no_worker();
                    return After::Linger;
                }
                Routed::Incomplete | Routed::Ended | Routed::NoWorker | Routed::Ask { .. } => {
                    return After::Close;
                }
            }
        }
    }

    /// Hands the connection over, with its request unread. Comes back when the worker does not take it.
    fn hand_over(self, member: &Member, sid: bool, session: Option<Arc<Session>>) -> Option<Self> {
        let Self { shared, mut client, pinned, moves } = self;
        let mut line = client.line.take();
        // Its request is handed over as it came, unless it was decrypted here.
        if !client.is_encrypted()
            && let Some(line) = line.as_mut()
            && client.request_id.as_ref().is_some_and(|id| !id.given)
        {
            line.forget_id();
        }
        let (peer, told, of_connection) =
            (client.peer(), client.other_than_socket(), client.connection_peer());
        let at = client.at.clone();
        let of_node = client.is_node;
        let secure = client.secure;
        // Out of the runtime, and so out of its epoll, before it can be closed here: what is registered there is the
        // connection itself, which lives on in the worker.
        let socket = match client.is_encrypted() {
            false => client.into_fd().ok()?,
            true => tls::hand_over(shared, client, member).ok()?,
        };
        if !sid {
            member.place();
        }
        let hand_off = HandOff { moves, told, secure, at, of_node, ..HandOff::new(socket, peer, !sid) };
        match member.hand_over(hand_off) {
            Ok(()) => {
                if let Some(session) = session {
                    session.upgrade(shared.now());
                }
                shared.counters.handed_off.add();
                if let Some(line) = line {
                    line.end(true);
                }
                None
            }
            Err(back) => {
                if !sid {
                    member.unplace();
                }
                let mut client = Client::new(back.socket, of_connection).at(back.at).secured(secure);
                client.is_node = of_node;
                client.line = line;
                Some(Self { shared, client, pinned, moves })
            }
        }
    }

    fn no_worker(&self) -> Routed<'a> {
        self.shared.counters.rejected_no_worker.add();
        route::answer(&self.client, Answer::NoWorker, Manner::CLOSE)
    }

    /// Waits a moment for a worker that is there and could not be reached. `false` when that has lasted too long.
    async fn pause(&mut self, tries: &mut Tries) -> bool {
        let now = Instant::now();
        let deadline = *tries.deadline.get_or_insert(now + self.shared.config.limits.no_worker_wait);
        tries.start_over();
        self.client.left_unread(true);
        tokio::time::sleep(BUSY_PAUSE).await;
        now < deadline
    }

    /// Waits for a request, and for a worker to send it to.
    async fn routed(&mut self, tries: &mut Tries) -> Routed<'a> {
        let limits = &self.shared.config.limits;
        let mut progress = Progress::default();
        let mut deadline = Instant::now() + limits.idle_timeout;
        let mut ended = false;
        loop {
            let begun = progress.seen > 0;
            match route::route(self.shared, &mut self.client, &mut self.pinned, &mut progress, tries) {
                Routed::Incomplete => {}
                Routed::NoWorker => {
                    if !self.wait_for_worker(tries).await {
                        return self.no_worker();
                    }
                    self.client.left_unread(true);
                    continue;
                }
                Routed::Ask { sid } => {
                    self.ask(&sid, tries).await;
                    self.client.left_unread(true);
                    continue;
                }
                routed => {
                    self.client.half_closed |= ended;
                    return routed;
                }
            }
            if ended {
                return Routed::Ended;
            }
            if !begun && progress.seen > 0 {
                deadline = Instant::now() + limits.head_timeout;
            }
            match tokio::time::timeout_at(deadline, self.client.ready(Interest::READABLE)).await {
                // Looked at before the bytes are: what came before the end is still seen.
                Ok(Ok(ready)) => ended = ready.is_read_closed(),
                Ok(Err(_)) => return Routed::Ended,
                Err(_) if progress.seen > 0 => {
                    self.shared.counters.rejected_slow.add();
                    return route::answer(&self.client, Answer::Slow, Manner::CLOSE);
                }
                Err(_) => return Routed::Ended,
            }
        }
    }

    /// Asks the other nodes for a session, and remembers the answer.
    async fn ask(&self, sid: &[u8], tries: &mut Tries) {
        tries.asked = true;
        let shared = self.shared;
        let Some(finder) = &shared.config.finder else { return };
        shared.counters.asked.add();
        let node = finder.find(sid).await.and_then(|number| shared.nodes.of(number));
        let Some(node) = node else { return };
        shared.counters.found.add();
        if !shared.sids.is_full() {
            shared.sids.remember(sid, &node.owner, nodes::REMEMBERED, shared.now());
        }
        tries.found = Some(node);
    }

    /// Waits until there may be a worker. `false` when that takes too long, or too many wait.
    async fn wait_for_worker(&mut self, tries: &mut Tries) -> bool {
        if !tries.except.is_empty() {
            return self.pause(tries).await;
        }
        let limits = &self.shared.config.limits;
        let Some(_waiting) = Waiting::begin(self.shared) else { return false };
        let deadline = *tries.deadline.get_or_insert_with(|| Instant::now() + limits.no_worker_wait);
        self.shared.members.wait(deadline).await
    }
}
