//! A namespace among those of the other servers: what they ask for is done here, and what they ask is answered.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::table::Table;
use super::watch::Listening;
use crate::adapter::{AdapterError, BroadcastOptions, Operation, Request, Response, Responses, SocketInfo};
use crate::packet::{Args, Packet};
use crate::recovery::elsewhere;
use crate::recovery::live::Live;
use crate::socket::Inner;
use crate::socket::acks::Waiter;
use crate::{EmitError, Socket};

impl Table {
    pub(crate) fn publish(&self, operation: &Operation) {
        self.published(self.adapter.publish(&self.name, operation));
    }

    /// Not under a lock: whoever writes the log may emit.
    pub(crate) fn published(&self, result: Result<(), AdapterError>) {
        if let Err(error) = result {
            tracing::error!(nsp = &*self.name, %error, "other servers were not told");
        }
    }

    pub(crate) fn request(&self, request: Request, timeout: Duration) -> Responses {
        self.adapter.request(&self.name, request, timeout)
    }

    /// Does on this server what was asked for.
    pub(crate) fn apply(&self, operation: &Operation) {
        if let Operation::ServerSideEmit { packet } = operation {
            return self.heard(packet, None);
        }
        if self.is_parent {
            return self.children().iter().for_each(|child| child.apply(operation));
        }
        match operation {
            Operation::Broadcast { packet, opts, mark } => {
                self.broadcast_packet(packet, opts, *mark);
            }
            Operation::Join { opts, rooms } => {
                for socket in self.select(opts).iter() {
                    socket.join(rooms);
                }
            }
            Operation::Leave { opts, rooms } => {
                for socket in self.select(opts).iter() {
                    socket.leave(rooms);
                }
            }
            Operation::Disconnect { opts, close } => {
                for socket in self.select(opts).iter() {
                    socket.disconnect(*close);
                }
            }
            Operation::ServerSideEmit { .. } => {}
        }
    }

    /// Answers for this server.
    pub(crate) fn answer(self: &Arc<Self>, request: Request, timeout: Duration) -> Responses {
        match request {
            Request::BroadcastWithAck { packet, opts } => self.broadcast_with_ack(&packet, &opts, timeout),
            Request::Fetch { opts } => stream::iter([Ok(Response::Sockets(self.describe(&opts)))]).boxed(),
            Request::AllRooms => stream::iter([Ok(Response::Rooms(self.room_names()))]).boxed(),
            Request::ServerSideEmit { packet } => self.asked(&packet, timeout),
            Request::TakeSession { pid, offset } => {
                let given = stream::once(elsewhere::give(self.clone(), pid, offset));
                given.flat_map(|answers| stream::iter(answers.into_iter().map(Ok))).boxed()
            }
            Request::CatchUp => {
                let published = self.recovery.as_ref().map(Live::published);
                stream::iter(published.map(|mark| Ok(Response::Published(mark)))).boxed()
            }
        }
    }

    pub(crate) fn describe(&self, opts: &BroadcastOptions) -> Vec<SocketInfo> {
        let each = |table: &Table| table.select(opts).iter().map(Socket::describe).collect::<Vec<_>>();
        self.each(each).concat()
    }

    /// The rooms that have members.
    pub(crate) fn room_names(&self) -> Vec<String> {
        let mut names = self.each(|table| table.rooms.read().names()).concat();
        if self.is_parent {
            names.sort_unstable();
            names.dedup();
        }
        names
    }

    fn broadcast_with_ack(&self, packet: &Packet, opts: &BroadcastOptions, timeout: Duration) -> Responses {
        let (counts, answers): (Vec<u64>, Vec<_>) =
            self.each(|table| table.ask_all(packet, opts)).into_iter().unzip();
        let limit = Box::pin(async move { tokio::time::sleep(timeout).await });
        let answers = stream::select_all(answers.into_iter().map(StreamExt::boxed));
        stream::iter([Response::Clients(counts.iter().sum())])
            .chain(answers.take_until(limit))
            .map(Ok)
            .boxed()
    }

    /// One id for all recipients, so that the packet is encoded once. Returns how many were to be asked, and their answers.
    fn ask_all(
        &self,
        packet: &Packet,
        opts: &BroadcastOptions,
    ) -> (u64, impl Stream<Item = Response> + Send + 'static + use<>) {
        let id = self.next_ack();
        let frames = self.frames(Some(id), packet, opts);
        let listening = Listening::new(self, packet);
        let (sender, answers) = mpsc::unbounded_channel();
        let mut asked = Asked { id, sockets: Vec::new() };
        // It should have had the event: nobody is to take its silence for consent.
        let mut unasked = 0;
        for socket in self.select(opts).iter() {
            let Some(frames) = &frames else {
                unasked += 1;
                continue;
            };
            let inner = socket.inner();
            if opts.volatile && !inner.is_writable() {
                continue;
            }
            if let Err(error) = inner.expect(id, Waiter::Many(sender.clone())) {
                unasked += u64::from(!matches!(error, EmitError::Closed));
                continue;
            }
            match inner.deliver(frames.clone(), opts.volatile) {
                Ok(true) => {
                    asked.sockets.push(Arc::downgrade(inner));
                    if let Some(listening) = &listening {
                        listening.tell(socket);
                    }
                }
                delivered => {
                    unasked += u64::from(matches!(delivered, Err(EmitError::Full { .. })));
                    drop(inner.forget(id));
                }
            }
        }
        let count = asked.sockets.len() as u64 + unasked;
        // When the last socket has answered or left, no sender remains and the stream ends.
        drop(sender);
        let answers = stream::unfold((answers, asked), |(mut answers, asked)| async move {
            let args: Args = answers.recv().await?;
            Some((Response::Ack(args.to_packet()), (answers, asked)))
        });
        (count, answers)
    }
}

/// Sockets asked for an acknowledgement; they are asked no longer when this is dropped.
struct Asked {
    id: u64,
    sockets: Vec<Weak<Inner>>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        for socket in self.sockets.iter().filter_map(Weak::upgrade) {
            socket.forget(self.id);
        }
    }
}
