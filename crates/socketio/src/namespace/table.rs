//! A namespace inside: the handlers, the room index, and what is done to many sockets at once. No lock is held while
//! anything is written to a client or a handler runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use sundew_engineio::{Frames, SendError};
use tokio::sync::mpsc;

use super::pace::Pace;
use super::pattern::Params;
use super::rate::Rate;
use super::watch::{Listener, Listening, Watch};
use super::{OnFull, Order};
use crate::adapter::{Adapter, BroadcastOptions, Operation, Request, Response, Responses, SocketInfo};
use crate::builder::Options;
use crate::call::{ConnectCall, DisconnectCall, EventCall, ServerCall};
use crate::error::{EmitError, Failure, HandlerError};
use crate::handler::Erased;
use crate::io::{Counters, Shared};
use crate::operators::Sent;
use crate::packet::{Args, Kind, Packet};
use crate::parser::Codec;
use crate::recovery::live::Live;
use crate::rooms::{Rooms, Selection};
use crate::socket::Inner;
use crate::socket::acks::Waiter;
use crate::{Socket, SocketIo};

/// How many sockets an asynchronous broadcast writes to before it lets others run.
const TURN: usize = 256;

pub(crate) struct Table {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<Options>,
    pub(crate) codec: Codec,
    pub(crate) adapter: Arc<dyn Adapter>,
    pub(crate) recovery: Option<Live>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) handlers: RwLock<Handlers>,
    pub(crate) rooms: RwLock<Rooms<Socket>>,
    pub(super) shared: Weak<Shared>,
    /// Of a child: whose handlers and settings it has besides its own.
    pub(super) parent: Option<Arc<Table>>,
    /// Of a child: what its name has in the gaps of the parent's pattern.
    pub(crate) params: Params,
    pub(crate) is_parent: bool,
    /// Of a child: how many sockets are in it or on their way.
    pub(super) held: AtomicUsize,
    /// Of a child: the app has asked for it by name, so it stays.
    pub(super) pinned: AtomicBool,
    pub(super) rate: Rate,
    pace: Pace,
    acks: AtomicU64,
    /// Whether there may be a [`Watch`], here or at a socket.
    watched: Setting,
    /// Whether anybody may listen to what goes out, here or at a socket.
    listened: Setting,
    serial: Setting,
    drop_when_full: Setting,
    movable: Setting,
}

type OnSlow = Arc<dyn Fn(&Socket, OnFull) + Send + Sync>;
type OnError = Arc<dyn Fn(&HandlerError) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) middleware: Vec<Erased<ConnectCall>>,
    pub(crate) connect: Option<Erased<ConnectCall>>,
    /// Clients choose what is looked up, the app what is in it: no hash needs a key here.
    pub(crate) events: FxHashMap<Arc<str>, Erased<EventCall>>,
    pub(crate) fallback: Option<Erased<EventCall>>,
    pub(crate) watch: Watch,
    pub(crate) disconnecting: Option<Erased<DisconnectCall>>,
    pub(crate) disconnect: Option<Erased<DisconnectCall>>,
    pub(crate) on_error: Option<OnError>,
    pub(crate) on_slow: Option<OnSlow>,
    pub(crate) arrive: Option<Erased<ConnectCall>>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) server_events: HashMap<Arc<str>, Erased<ServerCall>>,
}

/// Yes, no, or not said.
#[derive(Default)]
struct Setting(AtomicU8);

impl Setting {
    fn set(&self, value: bool) {
        self.0.store(1 + u8::from(value), Ordering::Relaxed);
    }

    fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            value => Some(value == 2),
        }
    }
}

/// What is done with an event.
pub(crate) struct Found {
    pub(crate) event: Arc<str>,
    /// None if there is only `watch` for it.
    pub(crate) handler: Option<Erased<EventCall>>,
    /// What every event goes through, if anything.
    pub(crate) watch: Option<Box<Watch>>,
}

impl Table {
    pub(crate) fn new(name: Arc<str>, shared: &Arc<Shared>) -> Table {
        Table {
            name,
            options: shared.options.clone(),
            codec: shared.codec.clone(),
            adapter: shared.adapter.clone(),
            recovery: shared.recovery.clone().map(Live::new),
            counters: shared.counters.clone(),
            handlers: RwLock::default(),
            rooms: RwLock::default(),
            shared: Arc::downgrade(shared),
            parent: None,
            params: Params::default(),
            is_parent: false,
            held: AtomicUsize::new(0),
            pinned: AtomicBool::new(false),
            rate: Rate::default(),
            pace: Pace::default(),
            acks: AtomicU64::new(0),
            watched: Setting::default(),
            listened: Setting::default(),
            serial: Setting::default(),
            drop_when_full: Setting::default(),
            movable: Setting::default(),
        }
    }

    pub(crate) fn io(&self) -> Option<SocketIo> {
        self.shared.upgrade().map(SocketIo::from_shared)
    }

    pub(crate) fn next_ack(&self) -> u64 {
        self.acks.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_serial(&self) -> bool {
        self.setting(|table| &table.serial)
    }

    pub(crate) fn set_order(&self, order: Order) {
        self.serial.set(order == Order::Serial);
    }

    pub(crate) fn on_full(&self) -> OnFull {
        if self.setting(|table| &table.drop_when_full) { OnFull::Drop } else { OnFull::Disconnect }
    }

    pub(crate) fn set_on_full(&self, policy: OnFull) {
        self.drop_when_full.set(policy == OnFull::Drop);
    }

    /// Whether anybody may listen to what goes out.
    pub(crate) fn is_listened(&self) -> bool {
        self.setting(|table| &table.listened)
    }

    /// From now on somebody listens, here or at a socket.
    pub(crate) fn listen(&self) {
        self.listened.set(true);
    }

    fn setting(&self, which: fn(&Table) -> &Setting) -> bool {
        let parent = || self.parent.as_ref().and_then(|parent| which(parent).get());
        which(self).get().or_else(parent).unwrap_or_default()
    }

    pub(crate) fn is_movable(&self) -> bool {
        self.setting(|table| &table.movable)
    }

    pub(crate) fn set_movable(&self) {
        self.movable.set(true);
    }

    /// A client has become too slow. Its hook runs in a task of its own: whoever emits may hold locks.
    pub(crate) fn too_slow(&self, id: &str, policy: OnFull) {
        self.counters.slow_clients.fetch_add(1, Ordering::Relaxed);
        let Some(hook) = self.inherited(|handlers| handlers.on_slow.clone()) else { return };
        let socket = self.rooms.read().get(id);
        match (socket, tokio::runtime::Handle::try_current()) {
            (Some(socket), Ok(runtime)) => drop(runtime.spawn(async move { hook(&socket, policy) })),
            (None, _) => {}
            (Some(_), Err(_)) => tracing::error!("on_slow is not called: emitted outside of a tokio runtime"),
        }
    }

    /// The handler of an event: the socket's own, the namespace's, the fallback. And what every event goes through.
    pub(crate) fn find(&self, socket: &Inner, event: &str) -> Option<Found> {
        let watch = self.watched(socket);
        let (event, handler) = match self.handler(socket, event) {
            Some((event, handler)) => (event, Some(handler)),
            None => (watch.is_some().then(|| event.into())?, None),
        };
        Some(Found { event, handler, watch })
    }

    fn handler(&self, socket: &Inner, event: &str) -> Option<(Arc<str>, Erased<EventCall>)> {
        let found = |(event, handler): (&Arc<str>, &Erased<EventCall>)| (event.clone(), handler.clone());
        if let Some(own) = socket.own_handler(event) {
            return Some(own);
        }
        self.inherited(|handlers| handlers.events.get_key_value(event).map(found)).or_else(|| {
            let fallback = self.inherited(|handlers| handlers.fallback.clone())?;
            Some((event.into(), fallback))
        })
    }

    /// One load while nobody has ever asked for it.
    fn watched(&self, socket: &Inner) -> Option<Box<Watch>> {
        if !self.setting(|table| &table.watched) {
            return None;
        }
        let mut watch = Watch::default();
        if let Some(parent) = &self.parent {
            watch.add(&parent.handlers.read().watch);
        }
        watch.add(&self.handlers.read().watch);
        if let Some(own) = &*socket.own.read() {
            watch.add(&own.watch);
        }
        (!watch.is_empty()).then(|| Box::new(watch))
    }

    /// From now on somebody, or one socket, has a [`Watch`].
    pub(crate) fn watch(&self) {
        self.watched.set(true);
    }

    pub(crate) fn disconnect_handlers(
        &self,
    ) -> (Option<Erased<DisconnectCall>>, Option<Erased<DisconnectCall>>) {
        let disconnecting = self.inherited(|handlers| handlers.disconnecting.clone());
        (disconnecting, self.inherited(|handlers| handlers.disconnect.clone()))
    }

    pub(crate) fn report(&self, error: &HandlerError) {
        let HandlerError { namespace, socket_id, event, failure } = error;
        if failure.is_the_clients() {
            let counter = match failure {
                Failure::RateLimited => &self.counters.rate_limited,
                _ => &self.counters.rejected,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(nsp = namespace, socket = socket_id, event, "{failure}");
        } else {
            self.counters.handler_errors.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(nsp = namespace, socket = socket_id, event, "{failure}");
        }
        let hook = self.inherited(|handlers| handlers.on_error.clone());
        if let Some(hook) = hook {
            hook(error);
        }
    }

    pub(crate) fn join(&self, id: &str, room: &str) {
        if self.rooms.write().join(id, room, self.options.max_rooms).is_err() {
            let most = self.options.max_rooms;
            tracing::warn!(
                nsp = &*self.name,
                socket = id,
                room,
                most,
                "not joined: too many rooms (max_rooms)"
            );
        }
    }

    pub(crate) fn select(&self, opts: &BroadcastOptions) -> Selection<Socket> {
        self.rooms.read().select(&opts.rooms, &opts.except)
    }

    /// Frames of a broadcast, as it was asked for.
    pub(crate) fn for_many(&self, frames: Frames, opts: &BroadcastOptions) -> Frames {
        match (opts.uncompressed, self.options.deflates) {
            (true, _) => frames.without_compression(),
            (false, true) => frames.for_many(),
            (false, false) => frames,
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
                socket.ready().await?;
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

    /// As [`broadcast_packet`](Table::broadcast_packet), waiting for clients whose queue is full.
    pub(crate) async fn broadcast_packet_async(&self, packet: &Packet, opts: &BroadcastOptions) -> Sent {
        let mut sent = Sent::default();
        let children = if self.is_parent { self.children() } else { Vec::new() };
        for table in children.iter().map(|child| &**child).chain((!self.is_parent).then_some(self)) {
            if let Some(recovery) = &table.recovery {
                // All or none: what reaches a client later than another event would be out of order.
                if !opts.volatile {
                    table.all_ready(opts).await;
                }
                sent = sent.and(recovery.broadcast(table, packet, opts));
                continue;
            }
            let Some(frames) = table.frames(None, packet, opts) else { continue };
            let listening = Listening::new(table, packet);
            sent = sent.and(table.broadcast_async(&frames, opts, listening.as_ref()).await);
        }
        sent
    }

    /// Waits until all sockets selected have room in their queues.
    pub(crate) async fn all_ready(&self, opts: &BroadcastOptions) {
        let selection = self.select(opts);
        let waits: Vec<_> = selection.iter().map(|socket| socket.ready()).collect();
        drop(futures_util::future::join_all(waits).await);
    }

    pub(crate) fn publish(&self, operation: &Operation) {
        if let Err(error) = self.adapter.publish(&self.name, operation) {
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
            Operation::Broadcast { packet, opts } => {
                self.broadcast_packet(packet, opts);
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
    pub(crate) fn answer(&self, request: Request, timeout: Duration) -> Responses {
        match request {
            Request::BroadcastWithAck { packet, opts } => self.broadcast_with_ack(&packet, &opts, timeout),
            Request::Fetch { opts } => stream::iter([Ok(Response::Sockets(self.describe(&opts)))]).boxed(),
            Request::AllRooms => stream::iter([Ok(Response::Rooms(self.room_names()))]).boxed(),
            Request::ServerSideEmit { packet } => self.asked(&packet, timeout),
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

    /// An event that is encoded already, as this namespace's clients get it. `None`, and reported, if the parser cannot
    /// write it.
    fn frames(&self, ack: Option<u64>, packet: &Packet, opts: &BroadcastOptions) -> Option<Frames> {
        let frames = self.codec.frames(Kind::Event, &self.name, ack, packet);
        frames
            .map(|frames| self.for_many(frames, opts))
            .inspect_err(|error| tracing::error!(nsp = &*self.name, %error, "a broadcast was not sent"))
            .ok()
    }

    /// Sends a packet to all sockets selected: of a parent, in each child under the child's name.
    pub(crate) fn broadcast_packet(&self, packet: &Packet, opts: &BroadcastOptions) -> Sent {
        let send = |table: &Table| {
            if let Some(recovery) = &table.recovery {
                return recovery.broadcast(table, packet, opts);
            }
            let Some(frames) = table.frames(None, packet, opts) else { return Sent::default() };
            table.broadcast(&frames, opts, Listening::new(table, packet).as_ref())
        };
        self.each(send).into_iter().fold(Sent::default(), Sent::and)
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

    /// One id for all recipients, so that the packet is encoded once. Returns how many were asked, and their answers.
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
        for socket in self.select(opts).iter() {
            let Some(frames) = &frames else { break };
            let inner = socket.inner();
            if opts.volatile && !inner.is_writable() {
                continue;
            }
            if inner.expect(id, Waiter::Many(sender.clone())).is_err() {
                continue;
            }
            match inner.deliver(frames.clone(), opts.volatile) {
                Ok(true) => {
                    asked.sockets.push(Arc::downgrade(inner));
                    if let Some(listening) = &listening {
                        listening.tell(socket);
                    }
                }
                Ok(false) | Err(_) => drop(inner.forget(id)),
            }
        }
        let count = asked.sockets.len() as u64;
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
