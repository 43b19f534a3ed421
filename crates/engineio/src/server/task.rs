//! A session's task: gives it what arrives, drives its futures, and lets what it sends leave in one write per batch.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::now;
use super::shared::{Arrival, Shared};
use super::socket::Reader;
use crate::proto::packet::{Packet, parse_text};
use crate::proto::websocket::{CLOSE, Decoder, Item, Violation, close, pong};
use crate::{CloseReason, Message, Session};

/// Runs a session from its handshake to its end.
pub(crate) struct SessionTask<S: Session> {
    shared: Arc<Shared>,
    session: Option<S>,
    link: Option<Link>,
    /// Not reading, because the session is behind.
    paused: bool,
    lingering: bool,
}

/// The reading side of a websocket.
struct Link {
    reader: Reader,
    decoder: Decoder,
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
        if let Some(arrival) = arrival {
            shared.act(|state| state.arrival = Some(Box::new(arrival)));
        }
        SessionTask { shared, session: Some(session), link: None, paused: false, lingering: false }
    }

    /// Gives the session what has arrived, one read at most.
    fn receive(&mut self, cx: &mut Context<'_>) -> Received {
        let Some(session) = &mut self.session else { return Received::Nothing };
        if !session.ready_for_more() {
            if !self.paused {
                self.paused = true;
                self.shared.within_batch(|state| state.machine.set_paused(true, now()));
            }
            return Received::Held;
        }
        if self.paused {
            self.paused = false;
            self.shared.within_batch(|state| state.machine.set_paused(false, now()));
        }
        let (inbox, taken, arrival) = self.shared.within_batch(|state| {
            (std::mem::take(&mut state.inbox), state.taken.take(), state.arrival.take())
        });
        let posted = taken.is_some();
        for message in inbox {
            session.message(message);
        }
        if let Some(taken) = taken {
            let _ = taken.send(());
        }
        if let Some(arrival) = arrival {
            let Arrival { reader, decoder, unread } = *arrival;
            self.link = Some(Link { reader, decoder });
            if !unread.is_empty() {
                self.digest(unread);
            }
            return Received::Something;
        }
        if posted {
            return Received::Something;
        }
        let Some(link) = &mut self.link else { return Received::Nothing };
        match link.reader.poll_batch(cx, &mut link.decoder) {
            Poll::Pending => Received::Nothing,
            Poll::Ready(Ok(Some(batch))) => {
                self.digest(batch);
                Received::Something
            }
            Poll::Ready(Ok(None) | Err(_)) => {
                self.shared.within_batch(|state| state.machine.disconnected());
                Received::Something
            }
        }
    }

    /// Gives the session the messages in `batch`, all of them.
    fn digest(&mut self, mut batch: BytesMut) {
        let (Some(link), Some(session)) = (&mut self.link, &mut self.session) else { return };
        let now = now();
        loop {
            let packet = match link.decoder.decode(&mut batch) {
                Ok(None) => return,
                Ok(Some(Item::Binary(data))) => Ok(Packet::Message(Message::Binary(data))),
                Ok(Some(Item::Text(text))) => parse_text(text),
                Ok(Some(Item::Ping(data))) => {
                    self.shared.within_batch(|state| state.machine.control(pong(&data)));
                    continue;
                }
                Ok(Some(Item::Pong)) => continue,
                Ok(Some(Item::Close(code))) => {
                    let answer = code.map_or(CLOSE, close);
                    return self.fail(CloseReason::TransportClose, answer);
                }
                Err(violation) => {
                    tracing::debug!(error = %violation, "a websocket peer broke a rule");
                    return self.fail(CloseReason::TransportError, violation.close_frame());
                }
            };
            let message = match packet {
                Ok(packet) => self.shared.within_batch(|state| state.machine.packet(packet, now)),
                Err(crate::proto::packet::PacketError::Utf8) => {
                    return self.fail(CloseReason::TransportError, Violation::Utf8.close_frame());
                }
                Err(error) => {
                    tracing::debug!(%error, "a packet that cannot be read");
                    return self.shared.within_batch(|state| state.machine.unreadable(now));
                }
            };
            match message {
                Some(message) => session.message(message),
                None if self.shared.look(|state| !state.machine.is_open()) => return,
                None => {}
            }
        }
    }

    fn fail(&self, reason: CloseReason, frame: bytes::Bytes) {
        self.shared.within_batch(|state| state.machine.websocket_failed(reason, frame, now()));
    }

    /// The session is over; what is left is to let the last output go and to see the connection end.
    fn poll_end(&mut self, cx: &mut Context<'_>, closed: bool) -> Poll<()> {
        if closed {
            return Poll::Ready(());
        }
        if !self.lingering && self.shared.look(|state| state.machine.is_lingering()) {
            self.lingering = true;
            self.shared.act(|state| {
                if let Some(writer) = &mut state.writer {
                    writer.shutdown(cx);
                }
            });
        }
        if self.link.is_none()
            && let Some(arrival) = self.shared.within_batch(|state| state.arrival.take())
        {
            self.link = Some(Link { reader: arrival.reader, decoder: arrival.decoder });
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
        this.shared.task.register(cx.waker());
        loop {
            this.shared.cork();
            let received = this.receive(cx);
            if let Some(session) = &mut this.session {
                session.poll(cx);
            }
            let (over, closed) = this.shared.uncork(cx);
            if let Some(reason) = over {
                if let Some(session) = this.session.take() {
                    session.close(reason);
                }
                return this.poll_end(cx, closed);
            }
            let again = match received {
                Received::Something => true,
                Received::Nothing => false,
                Received::Held => this.session.as_ref().is_some_and(|session| session.ready_for_more()),
            };
            if !again {
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
            session.close(reason.unwrap_or(CloseReason::TransportError));
        }
    }
}
