//! What travels between servers. Plain data, serde-able; binary stays bytes ([`Packet::take_attachments`] lets a codec
//! carry it beside the rest).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Packet;
use crate::recovery::Mark;

/// Something to do on every server, without an answer.
///
/// Externally tagged: the raw JSON in a [`Packet`] survives no other representation in `serde_json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Operation {
    /// Send an event.
    Broadcast {
        /// The event.
        packet: Packet,
        /// To whom.
        opts: BroadcastOptions,
        /// Which event it is, where clients can be recovered and it is kept for them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
    },
    /// Put sockets into rooms (`socketsJoin`).
    Join {
        /// Which sockets.
        opts: BroadcastOptions,
        /// Which rooms.
        rooms: Vec<String>,
    },
    /// Take sockets out of rooms (`socketsLeave`).
    Leave {
        /// Which sockets.
        opts: BroadcastOptions,
        /// Which rooms.
        rooms: Vec<String>,
    },
    /// Disconnect sockets (`disconnectSockets`).
    Disconnect {
        /// Which sockets.
        opts: BroadcastOptions,
        /// Whether their connections are closed too.
        close: bool,
    },
    /// An event for the servers themselves (`serverSideEmit`).
    ServerSideEmit {
        /// The event.
        packet: Packet,
    },
}

impl Operation {
    /// The packet in it, if it carries one: for codecs that send attachments apart.
    pub fn packet_mut(&mut self) -> Option<&mut Packet> {
        match self {
            Operation::Broadcast { packet, .. } | Operation::ServerSideEmit { packet } => Some(packet),
            _ => None,
        }
    }

    /// The packet in it, if it carries one.
    pub fn packet(&self) -> Option<&Packet> {
        match self {
            Operation::Broadcast { packet, .. } | Operation::ServerSideEmit { packet } => Some(packet),
            _ => None,
        }
    }
}

/// Something every other server answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// Send an event and collect the clients' acknowledgements: one [`Response::Clients`], then one
    /// [`Response::Ack`] per client that answers.
    BroadcastWithAck {
        /// The event.
        packet: Packet,
        /// To whom.
        opts: BroadcastOptions,
    },
    /// Describe sockets (`fetchSockets`): one [`Response::Sockets`], which an adapter may hand over in parts.
    Fetch {
        /// Which sockets.
        opts: BroadcastOptions,
    },
    /// Name the rooms that have members: one [`Response::Rooms`].
    AllRooms,
    /// An event for the servers themselves (`serverSideEmitWithAck`): one [`Response::Value`] if the handler answers.
    ServerSideEmit {
        /// The event.
        packet: Packet,
    },
    /// Give a session away whose client has come back to another server: from the one that has it one
    /// [`Response::Session`], then one [`Response::Missed`] for every event its client has missed.
    TakeSession {
        /// Its private id.
        pid: String,
        /// The last event its client has had, as it says.
        offset: Option<String>,
    },
    /// Say which event with a mark was the last: one [`Response::Published`], if clients can be recovered, and it comes behind
    /// all that the server published before. An adapter that keeps the order of what a server sends to another has nothing else
    /// to do for it.
    CatchUp,
}

impl Request {
    /// The packet in it, if it carries one: for codecs that send attachments apart.
    pub fn packet_mut(&mut self) -> Option<&mut Packet> {
        match self {
            Request::BroadcastWithAck { packet, .. } | Request::ServerSideEmit { packet } => Some(packet),
            _ => None,
        }
    }
}

/// One answer to a [`Request`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response {
    /// How many clients of that server the packet went to.
    Clients(u64),
    /// One client's acknowledgement: its arguments.
    Ack(Packet),
    /// Sockets of that server.
    Sockets(Vec<SocketInfo>),
    /// Rooms of that server.
    Rooms(Vec<String>),
    /// What that server's handler answered.
    Value(Packet),
    /// A session that is given away.
    Session {
        /// Its public id.
        id: String,
        /// Its rooms.
        rooms: Vec<String>,
        /// What the app attached to it.
        data: serde_json::Value,
        /// The last event of every origin that this server had.
        seen: Vec<Mark>,
        /// How many events its client has missed; they follow.
        missed: u64,
    },
    /// An event the client of that session has missed.
    Missed(Packet),
    /// The last event that was published there; with the number 0 if there was none.
    Published(Mark),
}

impl Response {
    /// The packet in it, if it carries one: for codecs that send attachments apart.
    pub fn packet_mut(&mut self) -> Option<&mut Packet> {
        match self {
            Response::Ack(packet) | Response::Value(packet) | Response::Missed(packet) => Some(packet),
            _ => None,
        }
    }
}

/// Which sockets: those in any of `rooms` (all, if empty) that are in none of `except`.
///
/// A socket's own id is a room of its own, so an id works wherever a room does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastOptions {
    /// Rooms to send to. Empty: the whole namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<String>,
    /// Rooms whose members are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Leave out those who are not ready to receive at this moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub volatile: bool,
    /// Send it as it is, even to those whose connections compress.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncompressed: bool,
}

/// A socket as other servers see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SocketInfo {
    /// Its public id.
    pub id: String,
    /// How it connected.
    pub handshake: HandshakeInfo,
    /// The rooms it is in, its own among them.
    pub rooms: Vec<String>,
    /// What the app attached to it with [`Socket::set_data`](crate::Socket::set_data); null if nothing.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// How a socket connected: the part of Node's `handshake` that is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HandshakeInfo {
    /// The client's address.
    pub address: Option<SocketAddr>,
    /// When, in milliseconds since the Unix epoch.
    pub issued: u64,
    /// The request's path and query, without the session's id.
    pub url: String,
    /// What the client sent as `auth`.
    pub auth: serde_json::Value,
    /// Request headers, if the server keeps them ([`Builder::keep_headers`](crate::Builder::keep_headers)).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}
