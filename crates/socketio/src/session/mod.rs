//! Socket.IO on one connection: which namespaces it has joined, the packet half received, the handlers in progress.
//! Owned by the connection's task, so nothing here is locked; when the connection ends, what is unfinished moves to a
//! task of its own.

mod export;
pub(crate) mod legacy;
mod member;
pub(crate) mod running;
mod violation;

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream};
use sundew_engineio::{CloseReason, Frames, Handshake, Message, Protocol, Session, SessionHandle, Text};
use tokio::time::Instant;

use crate::error::{ConnectError, short};
use crate::io::Shared;
use crate::link::Link;
use crate::namespace::{Asking, Claim, Decided, Hold};
use crate::packet::{Args, EventName, Header, Kind, ParseError, check, check_placeholders, parse};
use crate::parser::{Codec, Incoming, PacketType, Parser};
use crate::socket::Inner;
use crate::troubles::AtWork;
use crate::{DisconnectReason, Packet, Socket};
pub(crate) use member::new_id;
use member::{Arrived, Member, Phase, Sent, Waiting};
use running::drop_apps;
use running::{Done, Running, What};
use violation::{Violation, check_depth};

/// Socket.IO, as the engine sees it.
pub struct Server(Arc<Shared>);

impl Server {
    pub(crate) fn new(shared: Arc<Shared>) -> Server {
        Server(shared)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Protocol for Server {
    type Session = Connection;

    fn open(&self, handle: SessionHandle, request: Handshake) -> Connection {
        let options = &self.0.options;
        let mut connection = Connection::new(self.0.clone(), Arc::new(Link::new(handle, request, options)));
        connection.wait_for_the_first(options.connect_timeout);
        if connection.link.legacy
            && let Err(error) = connection.connect("/", "")
        {
            connection.broken(&error);
        }
        connection
    }

    fn resume(&self, handle: SessionHandle, state: &[u8]) -> Result<Connection, String> {
        self.take_up(handle, state)
    }
}

/// One connection.
pub struct Connection {
    shared: Arc<Shared>,
    link: Arc<Link>,
    members: Vec<Member>,
    partial: Option<Box<Partial>>,
    /// Made when first needed, gone when empty: an idle connection has none.
    running: Option<Box<FuturesUnordered<Running>>>,
    /// Event handlers in `running`.
    in_progress: usize,
    /// Events queued at the members.
    waiting: Waiting,
    /// Namespaces a parent is asked about. None while there are none.
    asking: Option<Box<FuturesUnordered<Asking>>>,
    /// Middlewares at work whose client waits for them no longer.
    abandoned: usize,
    /// Its client was held back, and that was told.
    held_back: Cell<bool>,
    /// Until when a namespace has to be joined; none once one is.
    joins_by: Option<Instant>,
    /// The client broke the protocol: nothing it sends counts any more.
    over: bool,
    _at_work: AtWork,
}

/// A packet whose attachments have not all arrived.
struct Partial {
    text: Text,
    attachments: Vec<Bytes>,
    expected: usize,
}

/// An event or an acknowledgement for one of the namespaces joined.
struct Addressed {
    index: usize,
    ack: Option<u64>,
    /// Of an event: its name, and where in the payload its arguments start.
    event: Option<(EventName, usize)>,
    /// Where the payload starts in the message.
    payload: usize,
}

impl Session for Connection {
    fn message(&mut self, message: Message) {
        if self.over {
            return;
        }
        let result = match (&self.shared.codec, message) {
            (Codec::Json, Message::Text(text)) => self.text(text),
            (Codec::Json, Message::Binary(bytes)) => self.binary(bytes),
            (Codec::Other(parser), message) => self.foreign(&*parser.clone(), message),
        };
        if let Err(error) = result {
            self.broken(&error);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.joins_by.is_some_and(|until| until <= Instant::now()) {
            self.joins_by = None;
            let peer = self.link.peer_addr;
            tracing::debug!(
                ?peer,
                "the client joined no namespace within connect_timeout: closing its connection"
            );
            self.link.handle.close(CloseReason::ForcedClose);
        }
        let _ = self.drive(cx);
    }

    fn ready_for_more(&self) -> bool {
        let options = &self.shared.options;
        let limit = if self.waiting.count >= options.max_waiting {
            "max_waiting"
        } else if self.waiting.bytes >= options.max_waiting_bytes {
            "max_waiting_bytes"
        // Handlers that wait for this client's acknowledgements must not keep them from being read.
        } else if self.in_progress >= options.max_in_progress && !self.link.owes_acks() {
            "max_in_progress"
        } else {
            return true;
        };
        self.hold_back(limit);
        false
    }

    fn export(&mut self) -> Option<Vec<u8>> {
        self.snapshot()
    }

    fn arrived(&mut self) {
        self.settle_in();
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.link.peer_addr
    }

    fn close(mut self, reason: CloseReason) {
        if reason == CloseReason::Moved {
            return self.vanish();
        }
        let mut reason = DisconnectReason::from(reason);
        if let Some((socket, table)) = self.link.overflowed.get().map(|overflowed| &**overflowed) {
            reason = DisconnectReason::QueueFull;
            tracing::warn!(
                socket = &**socket,
                nsp = &*table.name,
                max_queued = ?table.options.max_queued,
                "the outgoing queue was full, as the client reads too slowly or too much was emitted at once: disconnected (see \
                 max_queued, emit_async and when_full)"
            );
        }
        self.joins_by = None;
        self.over = true;
        for member in self.members.extract_if(.., |member| member.phase == Phase::Middleware) {
            let reason = if member.leaving { DisconnectReason::ClientNamespaceDisconnect } else { reason };
            self.abandoned += 1;
            member.socket.inner().abandon(reason);
        }
        for member in &self.members {
            member.leave(reason);
        }
        // Predicates of the app's, in the middle of their work.
        drop_apps(&self.shared.counters, self.asking.take());
        match (self.running.is_some(), tokio::runtime::Handle::try_current()) {
            (true, Ok(runtime)) => {
                runtime.spawn(async move {
                    std::future::poll_fn(|cx| self.drive(cx)).await;
                    self.drop_members();
                });
            }
            // Nothing to go on with, or the runtime is being torn down.
            _ => self.drop_members(),
        }
    }
}

impl Connection {
    fn new(shared: Arc<Shared>, link: Arc<Link>) -> Connection {
        Connection {
            _at_work: AtWork::new(&shared.counters),
            shared,
            link,
            members: Vec::new(),
            partial: None,
            running: None,
            asking: None,
            abandoned: 0,
            held_back: Cell::new(false),
            in_progress: 0,
            waiting: Waiting::default(),
            joins_by: None,
            over: false,
        }
    }

    /// A namespace has to be joined within `timeout`.
    fn wait_for_the_first(&mut self, timeout: Duration) {
        // None: longer than clocks go.
        self.joins_by = Instant::now().checked_add(timeout);
        if let Some(until) = self.joins_by {
            self.link.handle.wake_at(Some(until.into_std()));
        }
    }

    fn text(&mut self, text: Text) -> Result<(), Violation> {
        if self.partial.is_some() {
            return Err(Violation::AttachmentsMissing);
        }
        let header = parse(&text, self.shared.options.max_attachments)?;
        check_depth(header.payload, self.shared.options.max_depth)?;
        if header.attachments > 0 {
            let expected = header.attachments;
            self.partial =
                Some(Box::new(Partial { text, attachments: Vec::with_capacity(expected), expected }));
            return Ok(());
        }
        if let Some(to) = self.address(header, &text)? {
            self.deliver(to, text, Vec::new());
        }
        Ok(())
    }

    fn binary(&mut self, bytes: Bytes) -> Result<(), Violation> {
        let partial = self.partial.as_mut().ok_or(Violation::UnexpectedBinary)?;
        partial.attachments.push(bytes);
        if partial.attachments.len() < partial.expected {
            return Ok(());
        }
        let Some(partial) = self.partial.take() else { return Ok(()) };
        let Partial { text, attachments, expected } = *partial;
        let header = parse(&text, expected)?;
        check_placeholders(header.payload, expected)?;
        if let Some(to) = self.address(header, &text)? {
            self.deliver_rarely(to, text, attachments);
        }
        Ok(())
    }

    /// A message of the app's own parser: a whole packet. What the built-in parser checks is checked here.
    fn foreign(&mut self, parser: &dyn Parser, message: Message) -> Result<(), Violation> {
        let Incoming { kind, nsp, ack, data } = parser.decode(message).map_err(Violation::Parser)?;
        let kind = match kind {
            PacketType::Connect => Kind::Connect,
            PacketType::Disconnect => Kind::Disconnect,
            PacketType::Event => Kind::Event,
            PacketType::Ack => Kind::Ack,
            // Only the server sends it.
            PacketType::ConnectError => return Err(ParseError::Payload.into()),
        };
        let (json, attachments) = data.map(Packet::into_parts).unwrap_or_default();
        if !nsp.starts_with('/') {
            return Err(ParseError::Namespace.into());
        }
        check_depth(&json, self.shared.options.max_depth)?;
        let text = Text::from(json);
        let event = check(kind, &text)?;
        if kind == Kind::Ack && ack.is_none() {
            return Err(ParseError::AckId.into());
        }
        let header = Header { kind, attachments: attachments.len(), nsp: &nsp, ack, payload: &text, event };
        if let Some(to) = self.address(header, &text)? {
            self.deliver_rarely(to, text, attachments);
        }
        Ok(())
    }

    /// Whom a packet is for, if it is an event or an acknowledgement; any other is dealt with.
    #[inline(always)]
    fn address(&mut self, header: Header<'_>, text: &Text) -> Result<Option<Addressed>, Violation> {
        let Header { kind, nsp, ack, payload, event, .. } = header;
        let (nsp, query) = match self.link.legacy {
            true => legacy::split(nsp),
            false => (nsp, String::new()),
        };
        if kind == Kind::Connect {
            return self.connect(nsp, if self.link.legacy { &query } else { payload }).map(|()| None);
        }
        if kind == Kind::Disconnect
            && let Some(asking) = self.asked(nsp)
        {
            asking.withdrawn = true;
        }
        // Not joined, left, or being left: what comes late is ignored. Node closes the connection; here a packet that
        // crossed a DISCONNECT on its way costs its client nothing.
        let Some(index) = self.member(nsp) else { return Ok(None) };
        if kind == Kind::Disconnect {
            self.arrive(index, Arrived::Leave);
            return Ok(None);
        }
        Ok(Some(Addressed { index, ack, event, payload: text.len() - payload.len() }))
    }

    #[inline(always)]
    fn deliver(&mut self, to: Addressed, text: Text, attachments: Vec<Bytes>) {
        let Addressed { index, ack, event, payload } = to;
        match (event, ack) {
            (Some((name, rest)), ack) => {
                self.event(index, Sent { name, ack, text, payload, rest: payload + rest, attachments });
            }
            (None, Some(id)) => {
                let args = Args::new(text, payload, None, attachments);
                self.members[index].socket.inner().acknowledged(id, args);
            }
            (None, None) => {}
        }
    }

    /// The same, not inlined: for what is not on the way of nearly all messages.
    #[inline(never)]
    fn deliver_rarely(&mut self, to: Addressed, text: Text, attachments: Vec<Bytes>) {
        self.deliver(to, text, attachments);
    }

    fn connect(&mut self, nsp: &str, auth: &str) -> Result<(), Violation> {
        self.forget_gone();
        let named = |member: &&Member| &*member.socket.inner().table.name == nsp;
        let undecided = |member: &Member| named(&member) && member.phase == Phase::Middleware;
        if let Some(index) = self.members.iter().position(undecided) {
            if !self.members[index].leaving {
                self.asked_already(nsp);
                return Ok(());
            }
            // It was taken back. This one may say something else: the middleware decides anew.
            let member = self.members.swap_remove(index);
            self.waiting.take(&member.queue);
            self.abandoned += 1;
            member.socket.inner().abandon(DisconnectReason::ClientNamespaceDisconnect);
        }
        if self.asked(nsp).is_some() {
            self.asked_already(nsp);
            return Ok(());
        }
        let joined = |member: &Member| !member.leaving && !member.socket.inner().is_gone();
        if self.members.iter().filter(named).any(joined) {
            return Err(Violation::ConnectedTwice);
        }
        if let Some(index) = self.members.iter().position(|member| named(&member)) {
            let old = &self.members[index];
            // The id of the new socket is the same: the old one cannot stay for what it sent before it left.
            if self.link.legacy && !old.queue.is_empty() {
                let old = self.members.swap_remove(index);
                self.waiting.take(&old.queue);
                old.socket.inner().leave(DisconnectReason::ClientNamespaceDisconnect);
                self.part(&old.socket);
            }
        }
        let asking = self.asking.as_ref().map_or(0, |asking| asking.len());
        let parting = self.link.parting.load(Ordering::Relaxed);
        if self.members.len() + asking + self.abandoned + parting >= self.shared.options.max_namespaces {
            self.refuse(nsp, &ConnectError::new("Too many namespaces"));
            return Ok(());
        }
        if auth.len() > self.shared.options.max_auth {
            self.refuse(nsp, &ConnectError::new("Auth too large"));
            return Ok(());
        }
        match self.shared.registry.claim(&self.shared, nsp, auth) {
            Claim::Granted(hold) => self.look_and_join(hold, auth),
            Claim::Refused(error) => self.refuse(nsp, &error),
            Claim::Asked(asking) => self.asking.get_or_insert_default().push(asking),
        }
        Ok(())
    }

    /// A client that goes back and forth before it has an answer (`connect`, `disconnect`, `connect`) sends CONNECT twice
    /// and nothing in between: the first answer is for both.
    fn asked_already(&self, nsp: &str) {
        tracing::debug!(nsp, peer = ?self.link.peer_addr, "asked for twice before it was decided: answered once");
    }

    /// Sockets that have left, and of which nothing waits, count no more.
    fn forget_gone(&mut self) {
        let gone = |member: &mut Member| {
            member.phase != Phase::Middleware && member.queue.is_empty() && member.socket.inner().is_gone()
        };
        let gone: Vec<_> = self.members.extract_if(.., gone).collect();
        for member in gone {
            self.part(&member.socket);
        }
    }

    /// Nothing of this socket begins any more. What still runs may fail, and keeps the namespace that is to hear of it.
    fn part(&self, socket: &Socket) {
        socket.inner().drop_handlers();
        let is_its = |running: &Running| running.is_of(socket);
        if !self.running.as_ref().is_some_and(|running| running.iter().any(is_its)) {
            socket.inner().let_go();
        }
    }

    fn asked(&mut self, nsp: &str) -> Option<&mut Asking> {
        self.asking.as_mut()?.iter_mut().find(|asking| !asking.withdrawn && &*asking.nsp == nsp)
    }

    /// A parent has decided.
    fn decided(&mut self, decided: Decided) {
        if !decided.withdrawn {
            match decided.result {
                Ok(hold) if decided.looked => self.join(hold, &decided.auth),
                Ok(hold) => self.look_and_join(hold, &decided.auth),
                Err(error) => self.refuse(&decided.nsp, &error),
            }
        }
    }

    /// Joins; first, the session the client wants to take up is looked for elsewhere if it is not here.
    fn look_and_join(&mut self, hold: Hold, auth: &str) {
        let looking = if self.link.legacy { Err(hold) } else { Asking::to_look_for(hold, auth) };
        match looking {
            Ok(asking) => self.asking.get_or_insert_default().push(asking),
            Err(hold) => self.join(hold, auth),
        }
    }

    fn join(&mut self, hold: Hold, auth: &str) {
        let table = hold.table().clone();
        let inner = match self.link.legacy {
            // Such clients cannot be recovered.
            true => {
                let id = legacy::socket_id(&table.name, self.link.handle.sid());
                Some(Inner::new(id, table.clone(), self.link.clone(), auth, None))
            }
            false => Inner::connecting(table.clone(), self.link.clone(), auth),
        };
        let Some(inner) = inner else {
            return self.refuse(&table.name, &ConnectError::new("Internal error"));
        };
        *inner.hold.lock() = Some(hold);
        self.members.push(Member::new(Arc::new(inner).into()));
        self.admit(self.members.len() - 1);
    }

    /// It does not come to a socket. What a client of Socket.IO 2 is told is the same, as in Node.
    fn refuse(&self, nsp: &str, error: &ConnectError) {
        tracing::debug!(nsp = short(nsp), peer = ?self.link.peer_addr, error = error.message, "refused");
        self.shared.counters.connects_refused.fetch_add(1, Ordering::Relaxed);
        self.send(self.shared.codec.connect_error(nsp, error));
    }

    /// Its socket does not enter.
    fn turn_away(&self, nsp: &str, error: &ConnectError) {
        if !self.link.legacy {
            return self.refuse(nsp, error);
        }
        tracing::debug!(nsp, peer = ?self.link.peer_addr, error = error.message, "refused");
        self.shared.counters.connects_refused.fetch_add(1, Ordering::Relaxed);
        self.send(self.shared.codec.connect_error_legacy(nsp, error));
    }

    fn send(&self, frames: Frames) {
        if self.link.handle.send(frames).is_err() && self.link.handle.is_open() {
            // It asks for more than it reads: thousands of CONNECTs whose answers pile up.
            self.link.handle.close(CloseReason::ForcedClose);
        }
    }

    /// The index of the live member of that namespace.
    #[inline(always)]
    fn member(&self, nsp: &str) -> Option<usize> {
        self.members.iter().position(|member| {
            !member.leaving && &*member.socket.inner().table.name == nsp && !member.socket.inner().is_gone()
        })
    }

    fn broken(&mut self, error: &Violation) {
        self.over = true;
        self.partial = None;
        self.shared.counters.protocol_errors.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(peer = ?self.link.peer_addr, %error, "the client broke the protocol: closing its connection");
        self.link.handle.close(CloseReason::ForcedClose);
    }

    /// Starts a handler; if it waits, it goes on in `running`.
    fn start(&mut self, running: Running) -> Option<Done> {
        match running.first() {
            Ok(done) => Some(done),
            Err(rest) => {
                self.running.get_or_insert_default().push(rest);
                None
            }
        }
    }

    /// Goes on with what is running, until nothing can. Ready when nothing is left.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(asking) = &mut self.asking {
            match Pin::new(&mut **asking).poll_next(cx) {
                Poll::Ready(Some(decided)) => self.decided(decided),
                Poll::Ready(None) => self.asking = None,
                Poll::Pending => break,
            }
        }
        while let Some(running) = &mut self.running {
            match Pin::new(&mut **running).poll_next(cx) {
                Poll::Ready(Some(done)) => self.finished(done),
                Poll::Ready(None) => self.running = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    fn finished(&mut self, done: Done) {
        if matches!(done.what, What::Event(_) | What::Any(_)) {
            self.in_progress -= 1;
        }
        if let Some(index) = self.members.iter().position(|member| member.socket == done.socket) {
            self.advance(index, done);
        } else {
            if matches!(done.what, What::Middleware) {
                self.abandoned -= 1;
            }
            // It is no member any more: what this handler has registered meanwhile may hold the socket.
            self.part(&done.socket);
        }
        // One place became free: any member may have waited for it.
        for index in (0..self.members.len()).rev() {
            self.pump(index);
        }
    }

    /// Nothing more is read from the client for now, because of what its handlers do. Told once: from then on it may be so at
    /// any time.
    fn hold_back(&self, option: &'static str) {
        if !self.held_back.replace(true) && !self.over {
            let count = self.shared.counters.held_back.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_power_of_two() {
                let (in_progress, waiting) = (self.in_progress, self.waiting.count);
                tracing::warn!(
                    peer = ?self.link.peer_addr,
                    in_progress,
                    waiting,
                    count,
                    "nothing more is read from a client until a handler of its has ended ({option})"
                );
            }
        }
    }

    fn drop_members(&mut self) {
        drop_apps(&self.shared.counters, self.running.take());
        for member in std::mem::take(&mut self.members) {
            self.part(&member.socket);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("namespaces", &self.members.len())
            .field("in_progress", &self.in_progress)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
