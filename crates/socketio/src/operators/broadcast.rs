//! To many sockets, on all servers of the app.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use sundew_engineio::Frames;

use super::room_names::names;
use super::{RemoteSocket, RoomNames, Sent};
use crate::adapter::{AdapterError, BroadcastOptions, Operation, Request, Response};
use crate::error::{BroadcastAckError, EmitError, read_all};
use crate::namespace::Table;
use crate::packet::{Args, EmitArgs, Packet};
use crate::socket::check;

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
    pub(super) opts: BroadcastOptions,
    local: bool,
    timeout: Option<Duration>,
}

impl Broadcast {
    pub(crate) fn new(table: Arc<Table>) -> Broadcast {
        Broadcast { table, opts: BroadcastOptions::default(), local: false, timeout: None }
    }

    /// Those in any of these rooms. A socket in several gets the event once. With an empty list, and no other `to`, it is
    /// everybody, as in Node.
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
                Ok(self.table.broadcast_to_all(packet, &self.opts, !self.is_local()))
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
                Ok(self.table.broadcast_to_all_async(packet, &self.opts, !self.is_local()).await)
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

    /// Sends an event and collects every client's acknowledgement, each read as `T`.
    ///
    /// # Errors
    /// [`BroadcastAckError::Incomplete`] after the timeout (`ack_timeout` unless told otherwise) or if clients left
    /// meanwhile, [`BroadcastAckError::Data`] if an answer is no `T`; both with the answers that came.
    pub async fn emit_with_ack<T: DeserializeOwned>(
        &self,
        name: &str,
        args: impl EmitArgs,
    ) -> Result<Vec<T>, BroadcastAckError> {
        read_all(self.collect(name, args).await?)
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
        Ok(sockets.into_iter().map(|info| RemoteSocket::new(info, table.clone(), self.local)).collect())
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
