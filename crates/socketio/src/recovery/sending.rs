//! Events on their way where sessions are kept: each gets its place, goes into the queues of those it is for, and is noted,
//! under the lock of the namespace.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use sundew_engineio::{Frames, SendError};

use super::live::Live;
use super::{Logged, Mark, Offset, Recipients};
use crate::Socket;
use crate::adapter::{BroadcastOptions, Operation};
use crate::error::EmitError;
use crate::namespace::{Listening, Table};
use crate::operators::{Flags, Sent};
use crate::packet::{Kind, Packet};
use crate::socket::Inner;

/// How one socket is emitted to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Now,
    Volatile,
    /// If the queue is full, nothing happens.
    IfRoom,
}

/// Why a socket was not sent an event.
enum NotSent {
    Error(EmitError),
    /// There is no room for so much yet. `back`: the socket itself, where this is an old handle of it.
    Full {
        bytes: usize,
        packets: usize,
        back: Option<Socket>,
    },
}

impl From<EmitError> for NotSent {
    fn from(error: EmitError) -> NotSent {
        NotSent::Error(error)
    }
}

impl From<SendError> for NotSent {
    fn from(error: SendError) -> NotSent {
        match error {
            SendError::Closed(_) => NotSent::Error(EmitError::Closed),
            SendError::Full(frames) => {
                NotSent::Full { bytes: frames.len(), packets: frames.packets(), back: None }
            }
        }
    }
}

/// What became of a broadcast, before those who listen have heard of it.
struct Told {
    sent: Sent,
    recipients: Vec<Socket>,
}

impl Told {
    /// Not under the lock: those who listen are the app's, and whoever writes the log may be.
    fn tell(self, table: &Table, packet: &Packet) -> Sent {
        if let Some(error) = &self.sent.error {
            tracing::error!(nsp = &*table.name, %error, "a broadcast was not sent");
        }
        if !self.recipients.is_empty()
            && let Some(listening) = Listening::new(table, packet)
        {
            self.recipients.iter().for_each(|socket| listening.tell(socket));
        }
        self.sent
    }
}

impl Live {
    fn text(&self, offset: Offset) -> String {
        let mut text = String::from(&*self.settings.epoch);
        let mut digits = [0; 13];
        let (mut at, mut rest) = (digits.len(), offset.0);
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        text.extend(digits[at..].iter().map(|&digit| char::from(digit)));
        text
    }

    pub(super) fn frames(&self, table: &Table, packet: &Packet, offset: Offset) -> Result<Frames, EmitError> {
        let offset = self.text(offset);
        Ok(table.codec.frames_with(Kind::Event, &table.name, None, packet, Some(&offset))?)
    }

    /// An event that is not kept. The client takes the last text of any event for an offset, so one that ends in a text
    /// is followed by the offset of the last event that was kept: all those up to it are before it in the queue.
    fn passing(&self, table: &Table, packet: &Packet) -> Result<Frames, EmitError> {
        if packet.ends_in_text() {
            return self.frames(table, packet, self.store().last(&table.name));
        }
        Ok(table.codec.frames(Kind::Event, &table.name, None, packet)?)
    }

    pub(super) fn append(&self, table: &Table, mut event: Logged, to: Recipients) {
        // Of arguments that are sent on they are views of all that was read with them, which nobody counts.
        if !event.packet.attachments().is_empty() {
            Arc::make_mut(&mut event.packet).detach();
        }
        let now = Live::now();
        // Longer than sessions: what was lost before the loss was noticed is needed too.
        let expires = now + self.settings.recovery.window + self.settings.grace;
        self.store().append(&table.name, event, to, now, expires);
    }

    /// Emits to one socket.
    pub(crate) fn emit(
        &self,
        socket: &Socket,
        packet: &Arc<Packet>,
        how: How,
        flags: Flags,
    ) -> Result<(), EmitError> {
        self.try_emit(socket, packet, how, flags).map_err(|error| match error {
            NotSent::Error(error) => error,
            NotSent::Full { .. } => EmitError::Full { policy: socket.inner().table.on_full() },
        })
    }

    /// Emits to one socket as soon as there is room in its queue.
    pub(crate) async fn emit_async(&self, socket: &Socket, packet: &Arc<Packet>) -> Result<(), EmitError> {
        loop {
            match self.try_emit(socket, packet, How::IfRoom, Flags::default()) {
                Ok(()) => return Ok(()),
                Err(NotSent::Error(error)) => return Err(error),
                Err(NotSent::Full { bytes, packets, back }) => {
                    let waited = back.as_ref().unwrap_or(socket).inner().room(bytes, packets).await;
                    // Where its connection is lost meanwhile, it is kept for when its client comes back.
                    if let Err(error @ EmitError::Full { .. }) = waited {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn try_emit(&self, socket: &Socket, packet: &Arc<Packet>, how: How, flags: Flags) -> Result<(), NotSent> {
        let table = &socket.inner().table;
        let sent = self.emit_in_order(socket.inner(), packet, how, flags)?;
        if sent && let Some(listening) = Listening::new(table, packet) {
            listening.tell(socket);
        }
        Ok(())
    }

    /// False if it is volatile and was left out.
    fn emit_in_order(
        &self,
        inner: &Inner,
        packet: &Arc<Packet>,
        how: How,
        flags: Flags,
    ) -> Result<bool, NotSent> {
        let table = &inner.table;
        let _order = self.order.lock();
        if how == How::Volatile || inner.is_new() {
            let back = inner.back();
            let inner = back.as_ref().map_or(inner, |socket| &**socket.inner());
            let frames = flags.mark(self.passing(table, packet)?);
            return match how {
                How::IfRoom => inner.try_deliver(frames).map(|()| true).map_err(NotSent::from),
                _ => Ok(inner.deliver(frames, how == How::Volatile)?),
            };
        }
        let back = match inner.is_gone() {
            false => None,
            // It may have come back: then this handle is an old one of the same socket.
            true => match table.rooms.read().get(&inner.id) {
                None if !self.may_return(table, inner) => return Err(EmitError::Closed.into()),
                back => back,
            },
        };
        let inner = back.as_ref().map_or(inner, |socket| &**socket.inner());
        let offset = self.store().last(&table.name).next();
        let frames = flags.mark(self.frames(table, packet, offset)?);
        let sent = match how {
            How::IfRoom => match inner.try_deliver(frames) {
                Err(SendError::Full(frames)) => {
                    return Err(NotSent::Full {
                        bytes: frames.len(),
                        packets: frames.packets(),
                        back: back.clone(),
                    });
                }
                Err(SendError::Closed(_)) => Err(EmitError::Closed),
                Ok(()) => Ok(true),
            },
            _ => inner.deliver(frames, false),
        };
        self.addressed(inner, offset, self.millis());
        let to = Recipients { socket: Some(inner.id.clone()), ..Recipients::default() };
        self.append(table, Logged { offset, packet: packet.clone(), mark: None }, to);
        match sent {
            // The client gets it when it comes back.
            Err(EmitError::Closed) => Ok(true),
            sent => Ok(sent?),
        }
    }

    /// Emits to those selected on this server. `mark`: which event it is, if another server has told of it.
    pub(crate) fn broadcast(
        &self,
        table: &Table,
        packet: &Packet,
        opts: &BroadcastOptions,
        mark: Option<Mark>,
    ) -> Sent {
        let told = {
            let _order = self.order.lock();
            self.broadcast_in_order(table, packet, opts, mark)
        };
        told.tell(table, packet)
    }

    /// Emits to those selected on all servers, from a namespace or from a parent whose children get it. What is published
    /// has the order of its marks.
    pub(crate) fn broadcast_to_all(&self, table: &Table, packet: Packet, opts: &BroadcastOptions) -> Sent {
        let children = if table.is_parent { table.children() } else { Vec::new() };
        self.broadcast_with(table, packet, opts, &children, self.order.lock())
    }

    /// The same, with `others`, or on this server only; if none of those selected here has a full queue. Else gives the packet
    /// back.
    pub(crate) fn try_broadcast_to_all(
        &self,
        table: &Table,
        packet: Packet,
        opts: &BroadcastOptions,
        others: bool,
    ) -> Result<Sent, Packet> {
        let children = if table.is_parent { table.children() } else { Vec::new() };
        let order = self.order.lock();
        let mut tables = children.iter().map(|child| &**child).chain((!table.is_parent).then_some(table));
        if !opts.volatile && tables.any(|table| table.is_any_full(opts, &packet)) {
            return Err(packet);
        }
        if others {
            return Ok(self.broadcast_with(table, packet, opts, &children, order));
        }
        if table.is_parent {
            drop(order);
            return Ok(table.broadcast_to_all(packet, opts, false));
        }
        let told = self.broadcast_in_order(table, &packet, opts, None);
        drop(order);
        Ok(told.tell(table, &packet))
    }

    fn broadcast_with(
        &self,
        table: &Table,
        packet: Packet,
        opts: &BroadcastOptions,
        children: &[Arc<Table>],
        order: MutexGuard<'_, ()>,
    ) -> Sent {
        if table.is_removed() {
            return Sent::default();
        }
        let mark = (!opts.volatile).then(|| Mark {
            origin: self.origin,
            number: 1 + self.published.fetch_add(1, Ordering::Relaxed),
        });
        let told: Vec<Told> = match table.is_parent {
            false => vec![self.broadcast_in_order(table, &packet, opts, mark)],
            true => children
                .iter()
                .filter_map(|child| {
                    let live = child.recovery.as_ref()?;
                    let _order = live.order.lock();
                    Some(live.broadcast_in_order(child, &packet, opts, mark))
                })
                .collect(),
        };
        let operation = Operation::Broadcast { packet, opts: opts.clone(), mark };
        let published = table.adapter.publish(&table.name, &operation);
        drop(order);
        table.published(published);
        let Some(packet) = operation.packet() else { return Sent::default() };
        let tables = children.iter().map(|child| &**child).chain((!table.is_parent).then_some(table));
        tables.zip(told).map(|(table, told)| told.tell(table, packet)).fold(Sent::default(), Sent::and)
    }

    /// Under the lock. Notes the recipients too, if somebody may want to know of them. Of a namespace that has gone there are
    /// none, and the log of its name is another one's.
    fn broadcast_in_order(
        &self,
        table: &Table,
        packet: &Packet,
        opts: &BroadcastOptions,
        mark: Option<Mark>,
    ) -> Told {
        if table.is_removed() {
            return Told { sent: Sent::default(), recipients: Vec::new() };
        }
        self.try_broadcast_in_order(table, packet, opts, mark).unwrap_or_else(|error| Told {
            sent: Sent { error: Some(error), ..Sent::default() },
            recipients: Vec::new(),
        })
    }

    fn try_broadcast_in_order(
        &self,
        table: &Table,
        packet: &Packet,
        opts: &BroadcastOptions,
        mark: Option<Mark>,
    ) -> Result<Told, EmitError> {
        let tell = table.is_listened();
        let packet = Arc::new(packet.clone());
        let offset = (!opts.volatile).then(|| self.store().last(&table.name).next());
        let frames = match offset {
            Some(offset) => self.frames(table, &packet, offset)?,
            None => self.passing(table, &packet)?,
        };
        let frames = table.for_many(frames, opts);
        let (mut sent, mut recipients) = (Sent::default(), Vec::new());
        let now = self.millis();
        for socket in table.select(opts).iter() {
            let inner = socket.inner();
            if let Some(offset) = offset {
                self.addressed(inner, offset, now);
            }
            let result = inner.deliver(frames.clone(), opts.volatile);
            if tell && matches!(result, Ok(true)) {
                recipients.push(socket.clone());
            }
            sent.count(&result, socket, None);
        }
        if let Some(offset) = offset {
            let to = Recipients { socket: None, rooms: opts.rooms.clone(), except: opts.except.clone() };
            self.append(table, Logged { offset, packet, mark }, to);
        }
        Ok(Told { sent, recipients })
    }
}
