//! One namespace on a connection: middleware, `on_connect`, then its events in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sundew_engineio::Text;

use super::Connection;
use super::running::{Done, Running, What};
use crate::ack::Owed;
use crate::call::{ConnectCall, EventCall};
use crate::error::{ConnectError, Failure, HandlerError};
use crate::namespace::{Found, Known, Pass, Used, Watch};
use crate::packet::{Args, EventName};
use crate::{DisconnectReason, Socket};

/// A socket as its connection sees it.
pub(super) struct Member {
    pub(super) socket: Socket,
    pub(super) phase: Phase,
    /// What waits until `phase` is open.
    pub(super) queue: VecDeque<Arrived>,
    /// The client has left; only what it sent before goes on.
    pub(super) leaving: bool,
    /// Of the namespace's rate limit, if it has one.
    pub(super) used: Used,
    pub(super) known: Known,
    /// What the last handler was called with that ran where it was found, for the next one: of a client that sends the same event
    /// again, no references are counted.
    pub(super) last: Option<(Socket, Arc<str>)>,
}

/// An event as a client sent it.
pub(super) struct Sent {
    pub(super) name: EventName,
    pub(super) ack: Option<u64>,
    pub(super) text: Text,
    /// Where in `text` the JSON array starts, and what follows its first element.
    pub(super) payload: usize,
    pub(super) rest: usize,
    pub(super) attachments: Vec<Bytes>,
}

impl Sent {
    fn name(&self) -> &str {
        self.name.of(&self.text[self.payload..])
    }

    /// The call of a handler; `event` is the name.
    #[inline(always)]
    fn call(self, socket: Socket, event: Arc<str>) -> EventCall {
        let ack = self.ack.map(|id| Arc::new(Owed::new(id)));
        let args = Args::new(self.text, self.payload, Some(self.rest), self.attachments);
        EventCall { socket, event, args, ack }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The middleware decides.
    Middleware,
    /// `on_connect` has not returned.
    Connecting,
    Open,
    /// In the serial order: a handler runs.
    Busy,
}

/// What a client sent and what waits for its turn.
pub(super) enum Arrived {
    Event(EventCall),
    Leave,
}

impl Arrived {
    fn size(&self) -> usize {
        match self {
            Arrived::Event(call) => call.event.len() + call.args.size(),
            Arrived::Leave => 0,
        }
    }
}

/// What is queued at the members of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waiting {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Waiting {
    pub(super) fn take(&mut self, queue: &VecDeque<Arrived>) {
        self.count -= queue.len();
        self.bytes -= queue.iter().map(Arrived::size).sum::<usize>();
    }
}

impl Member {
    pub(super) fn new(socket: Socket) -> Member {
        Member {
            socket,
            phase: Phase::Middleware,
            queue: VecDeque::new(),
            leaving: false,
            used: Used::default(),
            known: Known::default(),
            last: None,
        }
    }

    /// Leaves. One that has said goodbye, and waits for its handlers, has left for that reason.
    pub(super) fn leave(&self, reason: DisconnectReason) {
        let said = self.leaving.then_some(DisconnectReason::ClientNamespaceDisconnect);
        self.socket.inner().leave(said.unwrap_or(reason));
    }
}

impl Connection {
    /// Asks the middleware.
    pub(super) fn admit(&mut self, index: usize) {
        let socket = self.members[index].socket.clone();
        let chain = socket.inner().table.gathered(|handlers| handlers.middleware.clone());
        if chain.is_empty() || socket.inner().skips_middleware() {
            return self.enter(index);
        }
        let mut call = ConnectCall { socket: socket.clone() };
        let work = async move {
            for middleware in chain {
                middleware(&mut call)?.await?;
            }
            Ok(())
        };
        if let Some(done) = self.start(Running::new(Ok(Box::pin(work)), socket, What::Middleware)) {
            self.advance(index, done);
        }
    }

    /// Enters the namespace and runs `on_connect`; CONNECT is answered when that returns or first waits.
    fn enter(&mut self, index: usize) {
        let socket = self.members[index].socket.clone();
        if !socket.inner().open() {
            // Disconnected by its own middleware, or while that was at work.
            let member = self.members.swap_remove(index);
            let inner = member.socket.inner();
            self.waiting.take(&member.queue);
            if inner.is_unanswered() {
                self.turn_away(&inner.table.name, &ConnectError::new("Disconnected by the server"));
            }
            inner.keep_out();
            return;
        }
        if self.joins_by.take().is_some() {
            self.link.handle.wake_at(None);
        }
        let handler = socket.inner().table.inherited(|handlers| handlers.connect.clone());
        self.members[index].phase = Phase::Connecting;
        let done = match handler {
            Some(handler) => {
                let mut call = ConnectCall { socket: socket.clone() };
                self.start(Running::call(socket.clone(), What::Connect, || handler(&mut call)))
            }
            None => Some(Done { socket: socket.clone(), what: What::Connect, refused: None }),
        };
        socket.inner().release();
        if let Some(done) = done {
            self.advance(index, done);
        }
    }

    /// A handler of this member has ended.
    pub(super) fn advance(&mut self, index: usize, done: Done) {
        match done.what {
            What::Middleware => match done.refused {
                None => self.enter(index),
                Some(error) => {
                    let member = self.members.swap_remove(index);
                    self.waiting.take(&member.queue);
                    self.turn_away(&member.socket.inner().table.name, &error);
                    member.socket.inner().keep_out();
                }
            },
            What::Connect => self.members[index].phase = Phase::Open,
            What::Event(_) => {
                if self.members[index].phase == Phase::Busy {
                    self.members[index].phase = Phase::Open;
                }
            }
            What::Any(_) | What::Disconnecting | What::Disconnect => {}
        }
    }

    #[inline(always)]
    pub(super) fn event(&mut self, index: usize, sent: Sent) {
        let member = &mut self.members[index];
        let table = &member.socket.inner().table;
        match table.pass(&mut member.used) {
            Pass::Yes => {}
            over => return over_the_limit(&member.socket, sent.name(), sent.ack, &over),
        }
        let now = member.phase == Phase::Open
            && member.queue.is_empty()
            && self.in_progress < self.shared.options.max_in_progress;
        if !now {
            // Its handler is looked for when its turn comes: `on_connect` may still register it.
            let event = sent.name().into();
            let mut call = sent.call(member.socket.clone(), event);
            // It may be a few bytes of a large body, which would stay with it.
            call.args = call.args.detached();
            return self.arrive(index, Arrived::Event(call));
        }
        // Nearly always, the namespace's handler is all there is: it runs where it was found.
        if table.is_plain(member.socket.inner())
            && let Some((event, handler)) = member.known.find(table, sent.name())
        {
            let (socket, event) = match member.last.take() {
                Some((socket, last)) if Arc::ptr_eq(&last, event) => (socket, last),
                Some((socket, _)) => (socket, event.clone()),
                None => (member.socket.clone(), event.clone()),
            };
            match Running::event(sent.call(socket, event), handler) {
                Ok(last) => member.last = Some(last),
                Err(rest) => self.waits(index, rest),
            }
            return;
        }
        match table.find(member.socket.inner(), sent.name()) {
            Some(found) => {
                let call = sent.call(member.socket.clone(), found.event.clone());
                self.run(index, call, found);
            }
            None => self.members[index].socket.inner().unhandled(sent.name()),
        }
    }

    /// Takes its place in the member's order.
    pub(super) fn arrive(&mut self, index: usize, arrived: Arrived) {
        if matches!(arrived, Arrived::Leave) {
            self.members[index].leaving = true;
        }
        self.waiting.count += 1;
        self.waiting.bytes += arrived.size();
        self.members[index].queue.push_back(arrived);
        self.pump(index);
    }

    /// Starts what may start.
    pub(super) fn pump(&mut self, index: usize) {
        while let Some(member) = self.members.get_mut(index)
            && member.phase == Phase::Open
            && self.in_progress < self.shared.options.max_in_progress
            && let Some(arrived) = member.queue.pop_front()
        {
            self.waiting.count -= 1;
            self.waiting.bytes -= arrived.size();
            if member.queue.is_empty() {
                // Sockets live long and are many: an idle one holds no buffer.
                member.queue = VecDeque::new();
            }
            match arrived {
                // As Node: nothing of a client that was thrown out begins any more.
                Arrived::Event(call) if call.socket.inner().was_kicked() => {}
                Arrived::Event(call) => {
                    let table = &call.socket.inner().table;
                    match table.find(call.socket.inner(), &call.event) {
                        Some(found) => self.run(index, call, found),
                        None => call.socket.inner().unhandled(&call.event),
                    }
                }
                Arrived::Leave => {
                    let member = self.members.swap_remove(index);
                    member.socket.inner().leave(DisconnectReason::ClientNamespaceDisconnect);
                    self.part(&member.socket);
                    return;
                }
            }
        }
    }

    fn run(&mut self, index: usize, mut call: EventCall, found: Found) {
        let Found { handler, watch, .. } = found;
        let Watch { any, middleware } = watch.map(|watch| *watch).unwrap_or_default();
        for observer in any {
            let mut seen = call.observed();
            let what = What::Any(call.event.clone());
            self.in_progress += 1;
            if self.start(Running::call(seen.socket.clone(), what, || observer(&mut seen))).is_some() {
                self.in_progress -= 1;
            }
        }
        if handler.is_none() {
            call.socket.inner().unhandled(&call.event);
        }
        let began = match handler {
            Some(handler) if middleware.is_empty() => Running::event(call, &handler).map(drop),
            None if middleware.is_empty() => return,
            handler => {
                let (socket, owed, what) =
                    (call.socket.clone(), call.ack.clone(), What::Event(call.event.clone()));
                let work = async move {
                    for middleware in middleware {
                        middleware(&mut call)?.await?;
                    }
                    match handler {
                        Some(handler) => handler(&mut call)?.await,
                        None => Ok(()),
                    }
                };
                Running::new(Ok(Box::pin(work)), socket, what).owing(owed).first().map(drop)
            }
        };
        if let Err(rest) = began {
            self.waits(index, rest);
        }
    }

    /// The handler of an event waits.
    fn waits(&mut self, index: usize, rest: Running) {
        if self.members[index].socket.inner().table.is_serial() {
            self.members[index].phase = Phase::Busy;
        }
        self.in_progress += 1;
        self.running.get_or_insert_default().push(rest);
    }
}

/// An event that its socket may not send at this moment.
fn over_the_limit(socket: &Socket, event: &str, ack: Option<u64>, pass: &Pass) {
    let failure = Failure::RateLimited;
    if let Some(id) = ack {
        Owed::new(id).fail(socket, &failure.for_client());
    }
    let table = &socket.inner().table;
    if *pass == Pass::StillOver {
        table.counters.rate_limited.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let (namespace, socket_id) = (table.name.to_string(), socket.id().into());
    table.report(&HandlerError { namespace, socket_id, event: event.into(), failure });
}

/// A socket's public id. `None` if the system has no randomness.
pub(crate) fn new_id() -> Option<Arc<str>> {
    sundew_engineio::random_id().map(Arc::from)
}
