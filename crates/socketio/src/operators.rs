//! To whom and how: `io.to("room").except("other").volatile().emit(...)`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use sundew_engineio::Frames;

use crate::Socket;
use crate::ack::AckFuture;
use crate::adapter::{
    AdapterError, BroadcastOptions, HandshakeInfo, Operation, Request, Response, SocketInfo,
};
use crate::error::{BroadcastAckError, EmitError};
use crate::namespace::{Listening, Table};
use crate::packet::{Args, EmitArgs, Packet};
use crate::socket::check;

/// One room or several: `"a"`, `String`, `["a", "b"]`, `&[..]`, `Vec<..>`.
pub trait RoomNames {
    #[doc(hidden)]
    fn each(&self, each: &mut dyn FnMut(&str));
}

impl RoomNames for str {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        each(self);
    }
}

impl RoomNames for String {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        each(self);
    }
}

impl<R: RoomNames> RoomNames for [R] {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        for room in self {
            room.each(each);
        }
    }
}

impl<R: RoomNames, const N: usize> RoomNames for [R; N] {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        self.as_slice().each(each);
    }
}

impl<R: RoomNames> RoomNames for Vec<R> {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        self.as_slice().each(each);
    }
}

impl<R: RoomNames + ?Sized> RoomNames for &R {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        (**self).each(each);
    }
}

fn names(rooms: impl RoomNames) -> Vec<String> {
    let mut names = Vec::new();
    rooms.each(&mut |room| names.push(room.to_owned()));
    names
}

/// How one event is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flags {
    /// Only if the socket is ready to receive.
    pub(crate) volatile: bool,
    /// As it is, even if the connection compresses.
    pub(crate) uncompressed: bool,
}

impl Flags {
    /// Frames as they were asked for.
    pub(crate) fn mark(self, frames: Frames) -> Frames {
        if self.uncompressed { frames.without_compression() } else { frames }
    }
}

/// How to emit to one socket.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until `emit`"]
pub struct SocketEmitter {
    socket: Socket,
    timeout: Duration,
    flags: Flags,
}

impl SocketEmitter {
    pub(crate) fn new(socket: Socket) -> SocketEmitter {
        let timeout = socket.inner().table.options.ack_timeout;
        SocketEmitter { socket, timeout, flags: Flags::default() }
    }

    /// Only if the socket is ready to receive at this moment.
    pub fn volatile(mut self) -> SocketEmitter {
        self.flags.volatile = true;
        self
    }

    /// Whether it may be compressed, where the client's connection does that; without this, it may. For what is compressed
    /// already, like images.
    pub fn compress(mut self, compress: bool) -> SocketEmitter {
        self.flags.uncompressed = !compress;
        self
    }

    /// How long to wait for the acknowledgement.
    pub fn timeout(mut self, timeout: Duration) -> SocketEmitter {
        self.timeout = timeout;
        self
    }

    /// To the others in these rooms instead.
    pub fn to(self, rooms: impl RoomNames) -> Broadcast {
        self.broadcast().to(rooms)
    }

    /// To the others in the namespace instead.
    pub fn broadcast(self) -> Broadcast {
        let mut broadcast = self.socket.broadcast().timeout(self.timeout);
        broadcast.opts.volatile = self.flags.volatile;
        broadcast.opts.uncompressed = self.flags.uncompressed;
        broadcast
    }

    /// As [`Socket::emit`].
    ///
    /// # Errors
    /// As there; with `volatile`, an event that was left out is no error.
    pub fn emit(&self, event: &str, args: impl EmitArgs) -> Result<(), EmitError> {
        self.socket.emit_as(event, args, self.flags)
    }

    /// As [`Socket::emit_with_ack`]. With `volatile`, an event that was left out is [`EmitError::LeftOut`].
    pub fn emit_with_ack<T: DeserializeOwned>(&self, event: &str, args: impl EmitArgs) -> AckFuture<T> {
        AckFuture::send(&self.socket, event, args, self.timeout, self.flags)
    }

    /// Emits the event `message`.
    ///
    /// # Errors
    /// As [`emit`](SocketEmitter::emit).
    pub fn send(&self, args: impl EmitArgs) -> Result<(), EmitError> {
        self.emit("message", args)
    }
}

/// What became of a broadcast on this server. May be ignored.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many sockets of this server it was handed to.
    pub sockets: usize,
    /// Those it could not be handed to: disconnected meanwhile, or their queue was full (the namespace's policy was
    /// applied). Those a volatile event was not meant for are in neither count.
    pub failed: usize,
    /// Why nothing was sent at all, if so. It was logged.
    pub error: Option<EmitError>,
}

impl Sent {
    pub(crate) fn count(
        &mut self,
        delivered: &Result<bool, EmitError>,
        socket: &Socket,
        listening: Option<&Listening>,
    ) {
        match delivered {
            Ok(true) => {
                self.sockets += 1;
                if let Some(listening) = listening {
                    listening.tell(socket);
                }
            }
            Ok(false) => {}
            Err(_) => self.failed += 1,
        }
    }

    pub(crate) fn and(self, other: Sent) -> Sent {
        Sent {
            sockets: self.sockets + other.sockets,
            failed: self.failed + other.failed,
            error: self.error.or(other.error),
        }
    }
}

/// An event as it goes out.
enum Encoded {
    /// In one namespace of this server, and nobody listens: straight into frames.
    Frames(Frames),
    /// For others as well.
    Packet(Packet),
}

/// To whom and how to emit: sockets of one namespace, on all servers of the app.
#[derive(Clone)]
#[must_use = "nothing is sent until `emit`"]
pub struct Broadcast {
    table: Arc<Table>,
    opts: BroadcastOptions,
    local: bool,
    timeout: Option<Duration>,
}

impl Broadcast {
    pub(crate) fn new(table: Arc<Table>) -> Broadcast {
        Broadcast { table, opts: BroadcastOptions::default(), local: false, timeout: None }
    }

    /// Those in any of these rooms. A socket in several gets the event once.
    pub fn to(mut self, rooms: impl RoomNames) -> Broadcast {
        self.opts.rooms.extend(names(rooms));
        self
    }

    /// The same as [`to`](Broadcast::to) (Node's `in`).
    pub fn within(self, rooms: impl RoomNames) -> Broadcast {
        self.to(rooms)
    }

    /// But not those in any of these rooms.
    pub fn except(mut self, rooms: impl RoomNames) -> Broadcast {
        self.opts.except.extend(names(rooms));
        self
    }

    /// Only sockets of this server.
    pub fn local(mut self) -> Broadcast {
        self.local = true;
        self
    }

    /// Only those who are ready to receive at this moment.
    pub fn volatile(mut self) -> Broadcast {
        self.opts.volatile = true;
        self
    }

    /// Whether it may be compressed, where the client's connection does that; without this, it may. For what is compressed
    /// already, like images.
    pub fn compress(mut self, compress: bool) -> Broadcast {
        self.opts.uncompressed = !compress;
        self
    }

    /// How long to wait for acknowledgements, or for other servers.
    pub fn timeout(mut self, timeout: Duration) -> Broadcast {
        self.timeout = Some(timeout);
        self
    }

    fn is_local(&self) -> bool {
        self.local || self.table.adapter.server_count() <= 1
    }

    /// Sends an event: encoded once, to this server's sockets first, then to the other servers, which are not waited for.
    pub fn emit(&self, name: &str, args: impl EmitArgs) -> Sent {
        let sent = match self.encode(name, args) {
            Ok(Encoded::Frames(frames)) => Ok(self.table.broadcast(&frames, &self.opts, None)),
            Ok(Encoded::Packet(packet)) => {
                let sent = self.table.broadcast_packet(&packet, &self.opts);
                self.publish(packet);
                Ok(sent)
            }
            Err(error) => Err(error),
        };
        self.told(name, sent)
    }

    /// As [`emit`](Broadcast::emit), but waits for clients whose queue is full, and lets other tasks run between
    /// recipients.
    pub async fn emit_async(&self, name: &str, args: impl EmitArgs) -> Sent {
        let sent = match self.encode(name, args) {
            Ok(Encoded::Frames(frames)) => Ok(self.table.broadcast_async(&frames, &self.opts, None).await),
            Ok(Encoded::Packet(packet)) => {
                self.publish(packet.clone());
                Ok(self.table.broadcast_packet_async(&packet, &self.opts).await)
            }
            Err(error) => Err(error),
        };
        self.told(name, sent)
    }

    /// Emits the event `message`.
    pub fn send(&self, args: impl EmitArgs) -> Sent {
        self.emit("message", args)
    }

    fn told(&self, name: &str, sent: Result<Sent, EmitError>) -> Sent {
        sent.unwrap_or_else(|error| {
            tracing::error!(nsp = &*self.table.name, event = name, %error, "a broadcast was not sent");
            Sent { error: Some(error), ..Sent::default() }
        })
    }

    fn encode(&self, name: &str, args: impl EmitArgs) -> Result<Encoded, EmitError> {
        check(name)?;
        if self.is_local()
            && !self.table.is_parent
            && !self.table.is_listened()
            && self.table.recovery.is_none()
        {
            let frames = self.table.codec.event(&self.table.name, None, name, args)?;
            return Ok(Encoded::Frames(self.table.for_many(frames, &self.opts)));
        }
        Ok(Encoded::Packet(Packet::event(name, args)?))
    }

    fn publish(&self, packet: Packet) {
        if !self.is_local() {
            self.table.publish(&Operation::Broadcast { packet, opts: self.opts.clone() });
        }
    }

    /// Sends an event and collects every client's acknowledgement, each read as `T`.
    ///
    /// # Errors
    /// [`BroadcastAckError::Incomplete`] after the timeout (`ack_timeout` unless told otherwise) or if clients left
    /// meanwhile, with the answers that came.
    pub async fn emit_with_ack<T: DeserializeOwned>(
        &self,
        name: &str,
        args: impl EmitArgs,
    ) -> Result<Vec<T>, BroadcastAckError> {
        let answers = self.collect(name, args).await?;
        answers.iter().map(|args| args.decode().map_err(BroadcastAckError::Data)).collect()
    }

    async fn collect(&self, name: &str, args: impl EmitArgs) -> Result<Vec<Args>, BroadcastAckError> {
        check(name)?;
        let packet = Packet::event(name, args).map_err(EmitError::from)?;
        let timeout = self.timeout.unwrap_or(self.table.options.ack_timeout);
        let request = Request::BroadcastWithAck { packet, opts: self.opts.clone() };
        let here = self.table.answer(request.clone(), timeout);
        let mut all = match self.is_local() {
            true => here,
            false => futures_util::stream::select(here, self.table.request(request, timeout)).boxed(),
        };
        let (mut expected, mut answers, mut failed) = (0, Vec::new(), None);
        while let Some(answer) = all.next().await {
            match answer {
                Ok(Response::Clients(count)) => expected += count,
                Ok(Response::Ack(packet)) => answers.push(packet.into_args()),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(BroadcastAckError::Adapter { error, answers });
        }
        match expected.saturating_sub(answers.len() as u64) {
            0 => Ok(answers),
            missing => Err(BroadcastAckError::Incomplete { answers, expected, missing }),
        }
    }

    /// The sockets selected, of all servers.
    ///
    /// # Errors
    /// A server did not answer in time: better told than a list that lacks sockets.
    pub async fn fetch_sockets(&self) -> Result<Vec<RemoteSocket>, AdapterError> {
        let mut sockets = self.table.describe(&self.opts);
        if !self.is_local() {
            let timeout = self.timeout.unwrap_or(self.table.options.request_timeout);
            let mut others = self.table.request(Request::Fetch { opts: self.opts.clone() }, timeout);
            while let Some(answer) = others.next().await {
                if let Response::Sockets(more) = answer? {
                    sockets.extend(more);
                }
            }
        }
        let table = &self.table;
        Ok(sockets
            .into_iter()
            .map(|info| RemoteSocket { info, table: table.clone(), local: self.local })
            .collect())
    }

    /// Puts the sockets selected into rooms.
    pub fn sockets_join(&self, rooms: impl RoomNames) {
        self.everywhere(Operation::Join { opts: self.opts.clone(), rooms: names(rooms) });
    }

    /// Takes the sockets selected out of rooms.
    pub fn sockets_leave(&self, rooms: impl RoomNames) {
        self.everywhere(Operation::Leave { opts: self.opts.clone(), rooms: names(rooms) });
    }

    /// Disconnects the sockets selected; with `close`, their connections too. They do not come back by themselves.
    pub fn disconnect_sockets(&self, close: bool) {
        self.everywhere(Operation::Disconnect { opts: self.opts.clone(), close });
    }

    fn everywhere(&self, operation: Operation) {
        self.table.apply(&operation);
        if !self.is_local() {
            self.table.publish(&operation);
        }
    }
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("namespace", &self.table.name).field("opts", &self.opts).finish()
    }
}

/// A socket of this or another server, as it was when fetched.
#[derive(Clone)]
pub struct RemoteSocket {
    info: SocketInfo,
    table: Arc<Table>,
    local: bool,
}

impl RemoteSocket {
    /// Its public id.
    pub fn id(&self) -> &str {
        &self.info.id
    }

    /// How it connected.
    pub fn handshake(&self) -> &HandshakeInfo {
        &self.info.handshake
    }

    /// The rooms it was in.
    pub fn rooms(&self) -> &[String] {
        &self.info.rooms
    }

    /// The data attached to it.
    pub fn data(&self) -> &serde_json::Value {
        &self.info.data
    }

    fn select(&self) -> Broadcast {
        let select = Broadcast::new(self.table.clone()).to(self.id());
        if self.local { select.local() } else { select }
    }

    /// With a time limit for its acknowledgement.
    pub fn timeout(&self, timeout: Duration) -> Broadcast {
        self.select().timeout(timeout)
    }

    /// Sends it an event, wherever it is.
    pub fn emit(&self, event: &str, args: impl EmitArgs) -> Sent {
        self.select().emit(event, args)
    }

    /// Sends it an event and waits for its acknowledgement.
    ///
    /// # Errors
    /// As [`Broadcast::emit_with_ack`]; nobody there any more is `Incomplete` too.
    pub async fn emit_with_ack<T: DeserializeOwned>(
        &self,
        event: &str,
        args: impl EmitArgs,
    ) -> Result<T, BroadcastAckError> {
        let answers = self.select().emit_with_ack(event, args).await?;
        let gone = || BroadcastAckError::Incomplete { answers: Vec::new(), expected: 1, missing: 1 };
        answers.into_iter().next().ok_or_else(gone)
    }

    /// Puts it into rooms.
    pub fn join(&self, rooms: impl RoomNames) {
        self.select().sockets_join(rooms);
    }

    /// Takes it out of rooms.
    pub fn leave(&self, rooms: impl RoomNames) {
        self.select().sockets_leave(rooms);
    }

    /// Disconnects it.
    pub fn disconnect(&self, close: bool) {
        self.select().disconnect_sockets(close);
    }
}

impl fmt::Debug for RemoteSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}
