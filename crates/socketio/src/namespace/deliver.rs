//! What is sent to many sockets of a namespace at once. No lock is held while anything is written to a client.

use std::time::Instant;

use sundew_engineio::{Frames, SendError};

use super::table::Table;
use super::watch::Listening;
use crate::Socket;
use crate::adapter::{BroadcastOptions, Operation};
use crate::error::EmitError;
use crate::operators::Sent;
use crate::packet::{Kind, Packet};
use crate::recovery::Mark;
use crate::rooms::Selection;

/// How many sockets an asynchronous broadcast writes to before it lets others run.
const TURN: usize = 256;

/// More than the offset takes that an event gets where it can be recovered.
const MOST_OFFSET: usize = 64;

impl Table {
    pub(crate) fn select(&self, opts: &BroadcastOptions) -> Selection<Socket> {
        self.rooms.read().select(&opts.rooms, &opts.except)
    }

    /// Frames of a broadcast, as it was asked for.
    pub(crate) fn for_many(&self, frames: Frames, opts: &BroadcastOptions) -> Frames {
        match (opts.uncompressed, self.options.deflates) {
            (true, _) => frames.without_compression().shared(),
            (false, true) => frames.for_many(),
            (false, false) => frames.shared(),
        }
    }

    /// Sends the same frames to all sockets selected.
    pub(crate) fn broadcast(
        &self,
        frames: &Frames,
        opts: &BroadcastOptions,
        listening: Option<&Listening>,
    ) -> Sent {
        let mut sent = Sent::default();
        let (started, burst) = (Instant::now(), self.pace.window());
        for socket in self.select(opts).iter() {
            let delivered = socket.inner().deliver_within(frames.clone(), opts.volatile, burst);
            sent.count(&delivered, socket, listening);
        }
        self.pace.took(started.elapsed());
        sent
    }

    pub(crate) async fn broadcast_async(
        &self,
        frames: &Frames,
        opts: &BroadcastOptions,
        listening: Option<&Listening>,
    ) -> Sent {
        let mut sent = Sent::default();
        let mut slow = Vec::new();
        let selection = self.select(opts);
        for (index, socket) in selection.iter().enumerate() {
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            if opts.volatile {
                sent.count(&socket.inner().deliver(frames.clone(), true), socket, listening);
                continue;
            }
            match socket.inner().try_deliver(frames.clone()) {
                Ok(()) => sent.count(&Ok(true), socket, listening),
                Err(SendError::Full(_)) => slow.push(socket.clone()),
                Err(SendError::Closed(_)) => sent.failed += 1,
            }
        }
        let waits = slow.into_iter().map(|socket| async move {
            loop {
                socket.inner().room(frames.len(), frames.packets()).await?;
                match socket.inner().try_deliver(frames.clone()) {
                    Ok(()) => return Ok(socket),
                    Err(SendError::Full(_)) => {}
                    Err(SendError::Closed(_)) => return Err(EmitError::Closed),
                }
            }
        });
        for result in futures_util::future::join_all(waits).await {
            match result {
                Ok(socket) => sent.count(&Ok(true), &socket, listening),
                Err(_) => sent.failed += 1,
            }
        }
        sent
    }

    /// As [`broadcast_to_all`](Table::broadcast_to_all), waiting for clients whose queue is full.
    pub(crate) async fn broadcast_to_all_async(
        &self,
        packet: Packet,
        opts: &BroadcastOptions,
        others: bool,
    ) -> Sent {
        let children = if self.is_parent { self.children() } else { Vec::new() };
        let tables = || children.iter().map(|child| &**child).chain((!self.is_parent).then_some(self));
        if let Some(recovery) = &self.recovery {
            let mut packet = packet;
            // All or none: what reaches a client later than another event would be out of order.
            loop {
                if !opts.volatile {
                    for table in tables() {
                        table.all_ready(opts, &packet).await;
                    }
                }
                // Somebody may have been quicker.
                match recovery.try_broadcast_to_all(self, packet, opts, others) {
                    Ok(sent) => return sent,
                    Err(full) => packet = full,
                }
            }
        }
        if others {
            self.publish(&Operation::Broadcast { packet: packet.clone(), opts: opts.clone(), mark: None });
        }
        let mut sent = Sent::default();
        for table in tables() {
            let Some(frames) = table.frames(None, &packet, opts) else { continue };
            let listening = Listening::new(table, &packet);
            sent = sent.and(table.broadcast_async(&frames, opts, listening.as_ref()).await);
        }
        sent
    }

    /// Sends a packet to all sockets selected on this server, and with `others` tells the other servers.
    pub(crate) fn broadcast_to_all(&self, packet: Packet, opts: &BroadcastOptions, others: bool) -> Sent {
        if others && let Some(recovery) = &self.recovery {
            return recovery.broadcast_to_all(self, packet, opts);
        }
        let sent = self.broadcast_packet(&packet, opts, None);
        if others {
            self.publish(&Operation::Broadcast { packet, opts: opts.clone(), mark: None });
        }
        sent
    }

    /// What a packet takes in a queue at most. None if it cannot be written.
    fn measure(&self, opts: &BroadcastOptions, packet: &Packet) -> Option<(usize, usize)> {
        let frames = self.codec.frames(Kind::Event, &self.name, None, packet).ok()?;
        let frames = self.for_many(frames, opts);
        Some((frames.len() + MOST_OFFSET, frames.packets()))
    }

    /// Whether a socket selected has no room for a packet in its queue.
    pub(crate) fn is_any_full(&self, opts: &BroadcastOptions, packet: &Packet) -> bool {
        let Some((bytes, packets)) = self.measure(opts, packet) else { return false };
        self.select(opts).iter().any(|socket| socket.inner().is_full_for(bytes, packets))
    }

    /// Waits until all sockets selected have room for a packet in their queues.
    pub(crate) async fn all_ready(&self, opts: &BroadcastOptions, packet: &Packet) {
        let Some((bytes, packets)) = self.measure(opts, packet) else { return };
        let selection = self.select(opts);
        let waits: Vec<_> = selection.iter().map(|socket| socket.inner().room(bytes, packets)).collect();
        drop(futures_util::future::join_all(waits).await);
    }

    /// An event that is encoded already, as this namespace's clients get it. `None`, and reported, if the parser cannot
    /// write it.
    pub(super) fn frames(
        &self,
        ack: Option<u64>,
        packet: &Packet,
        opts: &BroadcastOptions,
    ) -> Option<Frames> {
        let frames = self.codec.frames(Kind::Event, &self.name, ack, packet);
        frames
            .map(|frames| self.for_many(frames, opts))
            .inspect_err(|error| tracing::error!(nsp = &*self.name, %error, "a broadcast was not sent"))
            .ok()
    }

    /// Sends a packet to all sockets selected: of a parent, in each child under the child's name.
    pub(super) fn broadcast_packet(
        &self,
        packet: &Packet,
        opts: &BroadcastOptions,
        mark: Option<Mark>,
    ) -> Sent {
        let send = |table: &Table| {
            if let Some(recovery) = &table.recovery {
                return recovery.broadcast(table, packet, opts, mark);
            }
            let Some(frames) = table.frames(None, packet, opts) else { return Sent::default() };
            table.broadcast(&frames, opts, Listening::new(table, packet).as_ref())
        };
        self.each(send).into_iter().fold(Sent::default(), Sent::and)
    }
}
