//! A session's task: gives it what arrives, drives its futures, and lets what it sends leave in one write per batch.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use super::now;
use super::shared::{Arrival, AtRest, Brought, Posted, Shared, Taker, Uncorked};
use super::socket::{Reader, unite};
use crate::proto::framing::{Broken, Framing};
use crate::proto::incoming::Incoming;
use crate::proto::packet::Packet;
use crate::{CloseReason, ProtocolVersion, Session};

/// Runs a session from its handshake to its end.
pub(crate) struct SessionTask<S: Session> {
    shared: Arc<Shared>,
    session: Option<S>,
    version: ProtocolVersion,
    link: Option<Link>,
    /// A request's body that is being worked off.
    posted: Option<Box<Posted>>,
    /// Not reading, because the session is behind.
    paused: bool,
    /// On the way to another process, or from it: nothing is read.
    frozen: bool,
    /// It comes from another process, and its connection does later.
    expected: bool,
    /// The other side has been told that nothing more comes.
    shut_down: bool,
}

/// The reading side of a websocket, or of a stream of WebTransport.
struct Link {
    reader: Reader,
    decoder: Framing,
    /// Bytes read and not decoded yet.
    unread: BytesMut,
    /// The peer has ended the connection, or it has failed: what the last read found.
    ended: bool,
}

impl From<Arrival> for Link {
    fn from(Arrival { reader, decoder, unread }: Arrival) -> Link {
        Link { reader, decoder, unread, ended: false }
    }
}

impl Link {
    /// Reads once.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.reader.poll_batch(cx, &mut self.decoder)) {
            Ok(Some(batch)) => self.unread = batch,
            Ok(None) | Err(_) => self.ended = true,
        }
        Poll::Ready(())
    }
}

/// What there was to receive.
#[derive(PartialEq, Eq)]
enum Received {
    Something,
    Nothing,
    /// Something may be there, but the session does not want it yet.
    Held,
}

// Nothing in it is pinned: the session is only ever used by `&mut`.
impl<S: Session> Unpin for SessionTask<S> {}

impl<S: Session> SessionTask<S> {
    pub(crate) fn new(shared: Arc<Shared>, session: S, arrival: Option<Arrival>) -> SessionTask<S> {
        SessionTask {
            version: shared.look(|state| state.machine.dialect().version),
            shared,
            session: Some(session),
            link: arrival.map(Link::from),
            posted: None,
            paused: false,
            frozen: false,
            expected: false,
            shut_down: false,
        }
    }

    /// A session that another process exported.
    pub(crate) fn resumed(shared: Arc<Shared>, session: S) -> SessionTask<S> {
        let mut task = SessionTask::new(shared, session, None);
        task.expected = true;
        task
    }

    /// Begins a batch and takes what others have brought.
    fn begin(&mut self, cx: &Context<'_>) {
        let Brought { posted, arrival, frozen } = self.shared.cork(cx);
        self.frozen = frozen;
        if let Some(posted) = posted {
            // There is one body at a time: the one before was worked off, or its session is over.
            self.posted = Some(Box::new(posted));
        }
        if let Some(arrival) = arrival {
            self.link = Some(Link::from(*arrival));
            if std::mem::take(&mut self.expected)
                && let Some(session) = &mut self.session
            {
                session.arrived();
            }
        }
    }

    /// Gives the session what has arrived: one body or one read at most.
    fn receive(&mut self, cx: &mut Context<'_>) -> Received {
        let Some(session) = self.session.as_ref().filter(|_| !self.frozen) else { return Received::Nothing };
        let held = !session.ready_for_more();
        if held != self.paused {
            self.paused = held;
            self.shared.within_batch(|state| state.machine.set_paused(held, now()));
        }
        if held {
            return Received::Held;
        }
        if let Some(posted) = self.posted.take() {
            self.digest_body(posted);
            return Received::Something;
        }
        let Some(link) = &mut self.link else { return Received::Nothing };
        if link.unread.is_empty() && !link.ended && link.poll_read(cx).is_pending() {
            return Received::Nothing;
        }
        if link.ended {
            self.shared.within_batch(|state| state.machine.disconnected());
        } else {
            self.digest();
        }
        Received::Something
    }

    /// After a batch that received something: whether there is something for another one. If not, the other one is spared, as
    /// all that may come, but for what it would read, wakes the task.
    fn goes_on(&mut self, cx: &mut Context<'_>) -> bool {
        // Only `receive` tells that the session is behind, or is so no longer.
        if self.posted.is_some() || self.session.as_ref().is_some_and(|session| !session.ready_for_more()) {
            return true;
        }
        // Nothing is received while frozen, and only this task freezes: between batches, in `leave`.
        debug_assert!(!self.frozen);
        let Some(link) = &mut self.link else { return false };
        !link.unread.is_empty() || link.ended || link.poll_read(cx).is_ready()
    }

    /// Gives the session the messages of a request, until it has enough.
    fn digest_body(&mut self, mut posted: Box<Posted>) {
        let Some(session) = &mut self.session else { return };
        while session.ready_for_more() {
            match posted.packets.next() {
                Some(Ok(packet)) => {
                    let message = self.shared.within_batch(|state| state.machine.packet(packet, now));
                    if let Some(message) = message {
                        session.message(message);
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(peer = ?session.peer_addr(), %error, "a body with a packet that cannot be read");
                    self.shared.within_batch(|state| state.machine.unreadable(now()));
                }
                None => {
                    let _ = posted.taken.send(());
                    return;
                }
            }
        }
        self.posted = Some(posted);
    }

    /// Gives the session the messages of a read, until it has enough.
    fn digest(&mut self) {
        let (Some(link), Some(session)) = (&mut self.link, &mut self.session) else { return };
        while session.ready_for_more() {
            // Nearly all reads end with a message.
            let used_up = link.unread.is_empty() && link.decoder.is_idle();
            let decoded = if used_up { Ok(None) } else { link.decoder.decode(&mut link.unread) };
            let item = match decoded {
                Ok(Some(item)) => item,
                Ok(None) => {
                    // Gives back the read's memory, which messages may still share.
                    link.unread = BytesMut::new();
                    return;
                }
                Err(Broken { reason, frame, rule }) => {
                    tracing::debug!(peer = ?session.peer_addr(), rule, "a client broke a rule of its transport");
                    return self.fail(reason, frame);
                }
            };
            let message = match Incoming::of(item, self.version) {
                Incoming::Packet(Packet::Message(message))
                    if !self.shared.is_attentive() && self.shared.is_open() =>
                {
                    Some(message)
                }
                Incoming::Packet(packet) => {
                    self.shared.within_batch(|state| state.machine.packet(packet, now))
                }
                Incoming::Ping(answer) => {
                    self.shared.within_batch(|state| state.machine.control(answer));
                    continue;
                }
                Incoming::Nothing => continue,
                Incoming::Over(reason, frame) => return self.fail(reason, frame),
                Incoming::Unreadable(error) => {
                    tracing::debug!(peer = ?session.peer_addr(), %error, "a packet that cannot be read");
                    return self.shared.within_batch(|state| state.machine.unreadable(now()));
                }
            };
            match message {
                Some(message) => session.message(message),
                None if !self.shared.is_open() => return,
                None => {}
            }
        }
    }

    /// Somebody wants to take the session to another process: freezes it there and then if it is at rest.
    fn leave(&mut self) {
        if self.shared.look(|state| matches!(state.taker.as_deref(), Some(Taker::Socket(_)))) {
            return self.leave_with_socket();
        }
        let link = self.link.as_ref().filter(|link| {
            // What has come and was not told of yet would be left behind.
            self.posted.is_none() && !self.paused && link.unread.is_empty() && link.reader.is_drained()
        });
        let half_read = link.map(|link| link.decoder.half_read());
        let state = match (&half_read, &mut self.session) {
            (Some(_), Some(session)) => session.export(),
            _ => None,
        };
        let at_rest = state.zip(half_read).map(|(state, half_read)| AtRest { state, half_read });
        self.shared.act(|state| {
            let Some(Taker::State(taker)) = state.taker.take().map(|taker| *taker) else { return };
            let at_rest = at_rest.filter(|_| state.machine.is_at_rest() && !state.frozen);
            let freezes = at_rest.is_some();
            // It thaws again when whoever asked is gone, see `Exported`.
            if taker.send(at_rest).is_ok() && freezes {
                state.set_frozen(true);
            }
        });
    }

    /// Frozen before, it is taken away now. Nothing of it is left when whoever takes it has it.
    fn leave_with_socket(&mut self) {
        let link = self.link.take();
        debug_assert!(link.as_ref().is_none_or(|link| link.unread.is_empty()));
        let given = self.shared.act(|state| {
            let Some(Taker::Socket(taker)) = state.taker.take().map(|taker| *taker) else { return None };
            let queued = state.machine.outbox().to_vec();
            let socket = link.zip(state.writer.take()).and_then(|(link, writer)| unite(link.reader, writer));
            state.machine.forget(CloseReason::Moved);
            Some((taker, socket?, queued))
        });
        if let Some(session) = self.session.take() {
            session.close(CloseReason::Moved);
        }
        if let Some((taker, socket, queued)) = given {
            // Nobody there: the connection ends with it.
            let _ = taker.send((socket, queued));
        }
    }

    fn fail(&self, reason: CloseReason, frame: bytes::Bytes) {
        self.shared.within_batch(|state| state.machine.connection_failed(reason, frame, now()));
    }

    /// The session is over; what is left is to let the last output go and to see the connection end.
    fn poll_end(&mut self, cx: &mut Context<'_>, closed: bool) -> Poll<()> {
        if closed {
            return Poll::Ready(());
        }
        if !self.shut_down && self.shared.look(|state| state.machine.is_lingering()) {
            self.shut_down = self
                .shared
                .act(|state| state.writer.as_mut().is_none_or(|writer| writer.poll_shutdown(cx).is_ready()));
        }
        // A peer that ends the connection first needs no last output any more.
        match &mut self.link {
            Some(link) => link.reader.poll_drain(cx),
            None => Poll::Pending,
        }
    }
}

impl<S: Session> Future for SessionTask<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            this.begin(cx);
            let received = this.receive(cx);
            if let Some(session) = &mut this.session {
                session.poll(cx);
            }
            let Uncorked { over, closed, wanted } = this.shared.uncork(cx);
            if let Some(reason) = over {
                if let Some(session) = this.session.take() {
                    session.close(reason);
                }
                this.posted = None;
                return this.poll_end(cx, closed);
            }
            let again = match received {
                Received::Something => this.goes_on(cx),
                Received::Nothing => false,
                Received::Held => this.session.as_ref().is_some_and(|session| session.ready_for_more()),
            };
            if !again {
                if wanted {
                    this.leave();
                }
                return Poll::Pending;
            }
        }
    }
}

impl<S: Session> Drop for SessionTask<S> {
    fn drop(&mut self) {
        // The runtime may stop, or a handler panic, at any point.
        self.shared.abandon();
        if let Some(session) = self.session.take() {
            let reason = self.shared.look(|state| state.machine.over());
            let reason = reason.unwrap_or(CloseReason::TransportError);
            // After a panic it may find its own things broken, and a second one here would end the process.
            if catch_unwind(AssertUnwindSafe(|| session.close(reason))).is_err() {
                tracing::error!("a session panicked when it was told of its end");
            }
        }
    }
}
