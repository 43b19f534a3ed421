//! A connection that comes with the id of a polling session: the probe of an upgrade.
//!
//! It has a task of its own, which ends by giving the connection to the session's task, or by closing it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use sundew_io::Recovered;

use super::now;
use super::shared::{Arrival, Shared};
use super::socket::Writer;
use super::upgrade::{Taken, take};
use crate::proto::deflate::{Agreed, Deflater};
use crate::proto::framing::Broken;
use crate::proto::incoming::Incoming;
use crate::proto::outbox::Outbox;
use crate::proto::packet::Packet;
use crate::proto::session::{PROBE_ANSWER, ProbeId, ProbeStep};
use crate::proto::websocket::{CLOSE, Item};
use crate::{Frames, Transport};

/// A probe from its request on. Tells the session when it is over, unless it became an upgrade.
pub(crate) struct Begun {
    shared: Arc<Shared>,
    id: ProbeId,
}

impl Begun {
    /// Before the client learns that its connection is accepted: what it does next comes after this. None where the session is
    /// upgraded, upgrading or over.
    pub(crate) fn new(shared: &Arc<Shared>, to: Transport) -> Option<Begun> {
        let id = shared.act(|state| state.machine.probe_opened(to, now())).ok()?;
        Some(Begun { shared: shared.clone(), id })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.shared.act(|state| state.machine.probe_failed(self.id));
    }
}

/// Runs the probe on a websocket that has just been accepted.
pub(crate) fn websocket(
    shared: Arc<Shared>,
    begun: Option<Begun>,
    connection: Recovered,
    agreed: Option<Agreed>,
) -> impl Future<Output = ()> + Send {
    let Taken { writer, arrival, unwritten } = take(connection, &shared.registry().config, agreed);
    run(shared, begun, Probe { writer, arrival, unwritten }, agreed)
}

/// Runs the probe on its connection.
// What is moved into the future is not there twice, as arguments of an `async fn` would be; and what is rare is boxed.
pub(crate) fn run(
    shared: Arc<Shared>,
    begun: Option<Begun>,
    mut probe: Probe,
    agreed: Option<Agreed>,
) -> impl Future<Output = ()> + Send {
    let close_timeout = shared.registry().config.close_timeout;
    async move {
        let frame = match &begun {
            Some(begun) => match probe.negotiate(&shared, begun.id).await {
                Outcome::Failed(frame) => frame,
                Outcome::Lost => return probe.writer.abort(),
                Outcome::Upgrade => match probe.become_connection(&shared, begun.id, agreed) {
                    None => return shared.wake_task(),
                    Some(refused) => {
                        probe = refused;
                        CLOSE
                    }
                },
            },
            None => CLOSE,
        };
        drop(begun);
        Box::pin(probe.close(frame, now() + close_timeout)).await;
    }
}

/// A connection that may become the session's.
pub(crate) struct Probe {
    pub(crate) writer: Writer,
    pub(crate) arrival: Arrival,
    /// Goes before all else: the head of the 101.
    pub(crate) unwritten: Vec<u8>,
}

enum Outcome {
    /// The client has sent the upgrade packet.
    Upgrade,
    /// Close the connection with this frame.
    Failed(Bytes),
    /// There is nobody to say anything to, or nobody who takes it.
    Lost,
}

impl Probe {
    /// The client has sent the upgrade packet. Given back if it may not upgrade.
    fn become_connection(self, shared: &Arc<Shared>, id: ProbeId, agreed: Option<Agreed>) -> Option<Probe> {
        // In one step, so that nothing can be sent or closed between the decision and the connection's arrival.
        shared.act(|state| {
            if state.machine.probe_packet(id, &Packet::Upgrade, now()) != ProbeStep::Upgraded {
                return Some(self);
            }
            if let Some((agreed, options)) = agreed.zip(shared.registry().config.per_message_deflate.as_ref())
            {
                state.machine.compress_with(Box::new(Deflater::new(agreed, options)));
            }
            state.upgraded(shared.registry(), self.writer, Box::new(self.arrival));
            // It is this task.
            state.prober = None;
            None
        })
    }

    /// Talks to the client until it has upgraded or the probe is over.
    async fn negotiate(&mut self, shared: &Arc<Shared>, id: ProbeId) -> Outcome {
        let version = shared.look(|state| state.machine.dialect().version);
        if !self.unwritten.is_empty() {
            let greeting = std::mem::take(&mut self.unwritten);
            if !self.write_during(Frames::raw(greeting.into()), shared, id).await {
                return Outcome::Lost;
            }
        }
        loop {
            let item = poll_fn(|cx| match self.poll_item(cx) {
                Poll::Ready(item) => Poll::Ready(Some(item)),
                // A poll waits until what has come here before it has had its effect. What was there has been read; is there
                // more?
                Poll::Pending => shared.poll_probe(cx, id, || self.arrival.reader.has_more()).map(|()| None),
            });
            let Some(item) = item.await else { return Outcome::Failed(CLOSE) };
            let packet = match item.map(|item| Incoming::of(item, version)) {
                Ok(Incoming::Packet(packet)) => Some(packet),
                Ok(Incoming::Ping(answer)) => {
                    if !self.write_during(Frames::raw(answer), shared, id).await {
                        return Outcome::Lost;
                    }
                    None
                }
                Ok(Incoming::Nothing) => None,
                Ok(Incoming::Unreadable(_)) => return Outcome::Failed(CLOSE),
                Ok(Incoming::Over(_, frame)) | Err(frame) => return Outcome::Failed(frame),
            };
            let Some(packet) = packet else {
                // Somebody who sends these on and on is never waited for.
                match shared.look(|state| state.machine.is_probing_by(id)) {
                    true => continue,
                    false => return Outcome::Failed(CLOSE),
                }
            };
            if packet == Packet::Upgrade {
                return Outcome::Upgrade;
            }
            match shared.act(|state| state.machine.probe_packet(id, &packet, now())) {
                ProbeStep::Pong => {
                    if !self.write_during(Frames::control(PROBE_ANSWER), shared, id).await {
                        return Outcome::Lost;
                    }
                }
                ProbeStep::Upgraded | ProbeStep::Failed => return Outcome::Failed(CLOSE),
            }
        }
    }

    /// The next item, or the frame to close the connection with.
    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Result<Item, Bytes>> {
        let Arrival { reader, decoder, unread } = &mut self.arrival;
        loop {
            match decoder.decode(unread) {
                Ok(Some(item)) => return Poll::Ready(Ok(item)),
                Ok(None) => {}
                Err(Broken { frame, rule, .. }) => {
                    tracing::debug!(rule, "a client broke a rule of the transport it was to change to");
                    return Poll::Ready(Err(frame));
                }
            }
            match ready!(reader.poll_batch(cx, decoder)) {
                Ok(Some(batch)) => *unread = batch,
                Ok(None) | Err(_) => return Poll::Ready(Err(CLOSE)),
            }
        }
    }

    /// Whether the client took it before the probe was over: one that takes nothing is no reason to wait for ever.
    async fn write_during(&mut self, frames: Frames, shared: &Shared, id: ProbeId) -> bool {
        let mut writing = pin!(self.write(frames));
        poll_fn(|cx| match writing.as_mut().poll(cx) {
            Poll::Ready(written) => Poll::Ready(written.is_ok()),
            // There may be more to read: nobody looks at it now.
            Poll::Pending => shared.poll_probe(cx, id, || true).map(|()| false),
        })
        .await
    }

    async fn write(&mut self, frames: Frames) -> std::io::Result<()> {
        let mut outbox = Outbox::default();
        if !self.unwritten.is_empty() {
            outbox.push(Frames::raw(std::mem::take(&mut self.unwritten).into()));
        }
        outbox.push(frames);
        if !self.arrival.decoder.is_websocket() {
            outbox.unwrap();
        }
        while !outbox.is_empty() {
            let count = poll_fn(|cx| self.writer.poll_write(Some(cx), &outbox)).await?;
            outbox.advance(count);
        }
        poll_fn(|cx| self.writer.poll_flush(Some(cx))).await
    }

    /// Ends the connection, on a websocket with `frame`.
    async fn close(mut self, frame: Bytes, until: Instant) {
        let closing = async {
            if !self.arrival.decoder.is_websocket() || self.write(Frames::raw(frame)).await.is_ok() {
                poll_fn(|cx| self.writer.poll_shutdown(cx)).await;
                poll_fn(|cx| self.arrival.reader.poll_drain(cx)).await;
            }
        };
        if tokio::time::timeout_at(until.into(), closing).await.is_err() {
            self.writer.abort();
        }
    }
}
