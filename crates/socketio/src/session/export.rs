//! A connection that goes on in another process: what is exported, when that can be, and how it is resumed.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sundew_engineio::SessionHandle;

use super::member::{Member, Phase};
use super::running::{Running, What};
use super::{Connection, Server};
use crate::Socket;
use crate::call::ConnectCall;
use crate::link::Link;
use crate::namespace::Claim;
use crate::recovery::live::Resume;
use crate::socket::Inner;

/// The version of [`Snapshot`].
const VERSION: u32 = 1;

/// A connection as plain data.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    url: String,
    peer: Option<SocketAddr>,
    issued: u64,
    /// Names and values, where they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<Vec<(String, String)>>,
    sockets: Vec<SocketState>,
}

/// One of its sockets.
#[derive(Serialize, Deserialize)]
struct SocketState {
    nsp: String,
    id: String,
    /// The CONNECT payload, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    data: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<String>,
    /// How often its namespace has asked for acknowledgements.
    #[serde(default)]
    asked: u64,
}

impl Connection {
    /// The connection as plain data, if nothing is under way and nothing of it is of this process alone.
    pub(super) fn snapshot(&self) -> Option<Vec<u8>> {
        let rests = self.partial.is_none()
            && self.running.is_none()
            && self.asking.is_none()
            && self.in_progress == 0
            && self.waiting.count == 0
            && self.joins_by.is_none()
            && !self.over
            && !self.members.is_empty()
            && !self.link.owes_acks();
        let sockets = if rests { self.members.iter().map(Member::state).collect() } else { None };
        let snapshot = Snapshot { version: VERSION, sockets: sockets?, ..self.link.snapshot()? };
        serde_json::to_vec(&snapshot).ok()
    }

    /// Its client's connection has come after it.
    pub(super) fn settle_in(&mut self) {
        for index in 0..self.members.len() {
            let socket = self.members[index].socket.clone();
            let Some(handler) = socket.inner().table.inherited(|handlers| handlers.arrive.clone()) else {
                continue;
            };
            self.members[index].phase = Phase::Connecting;
            let mut call = ConnectCall { socket: socket.clone() };
            let running = Running::call(socket, What::Connect, || handler(&mut call));
            if let Some(done) = self.start(running) {
                self.advance(index, done);
            }
        }
    }

    /// It goes on elsewhere: nobody hears of its end.
    pub(super) fn vanish(mut self) {
        for member in self.members.drain(..) {
            member.socket.inner().vanish();
        }
    }
}

impl Member {
    fn state(&self) -> Option<SocketState> {
        let inner = self.socket.inner();
        let rests = self.phase == Phase::Open && !self.leaving && self.queue.is_empty();
        if !rests || !inner.table.is_movable() || !inner.can_move() {
            return None;
        }
        let rooms = {
            let rooms = inner.table.rooms.read();
            // The app holds the socket: what it does with it later would go nowhere. This member's own handles are not the app's.
            let own = 1 + usize::from(self.last.is_some());
            if Arc::strong_count(inner) > rooms.handles(&inner.id) + own {
                return None;
            }
            rooms.rooms_of(&inner.id)
        };
        let auth = match &*inner.auth {
            "" => None,
            auth => Some(RawValue::from_string(auth.to_owned()).ok()?),
        };
        Some(SocketState {
            nsp: inner.table.name.to_string(),
            id: inner.id.to_string(),
            auth,
            data: self.socket.data(),
            rooms,
            asked: inner.table.ack_count(),
        })
    }
}

impl Link {
    fn snapshot(&self) -> Option<Snapshot> {
        let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            Some((name.to_string(), value.to_str().ok()?.to_owned()))
        };
        let headers = match &self.headers {
            Some(headers) => Some(headers.iter().map(text).collect::<Option<_>>()?),
            None => None,
        };
        Some(Snapshot {
            version: VERSION,
            url: self.url.to_string(),
            peer: self.peer_addr,
            issued: self.issued,
            headers,
            sockets: Vec::new(),
        })
    }
}

impl Server {
    pub(super) fn take_up(&self, handle: SessionHandle, state: &[u8]) -> Result<Connection, String> {
        let snapshot: Snapshot =
            serde_json::from_slice(state).map_err(|error| format!("its state cannot be read: {error}"))?;
        if snapshot.version != VERSION {
            return Err(format!("its state is of version {}, this server's is {VERSION}", snapshot.version));
        }
        // All or nothing: nobody may see a connection with half of its sockets.
        let holds =
            snapshot.sockets.iter().map(|socket| match self.0.registry.claim(&self.0, &socket.nsp, "") {
                Claim::Granted(hold) if hold.table().is_movable() => Ok(hold),
                _ => Err(format!("the namespace {} is not movable here", socket.nsp)),
            });
        let holds = holds.collect::<Result<Vec<_>, _>>()?;
        let headers = snapshot.headers.as_ref().map(|headers| {
            let parsed = headers.iter().filter_map(|(name, value)| {
                Some((name.parse::<http::HeaderName>().ok()?, value.parse::<http::HeaderValue>().ok()?))
            });
            Box::new(parsed.collect())
        });
        let link = Link::resumed(handle, snapshot.url.into(), snapshot.peer, snapshot.issued, headers);
        let mut connection = Connection::new(self.0.clone(), Arc::new(link));
        for (state, hold) in snapshot.sockets.into_iter().zip(holds) {
            let auth = state.auth.as_ref().map_or("", |auth| auth.get());
            let table = hold.table().clone();
            // Its client's private id means nothing here: should it be cut off, it starts anew.
            let resume = table.recovery.as_ref().and_then(|_| Resume::new(None));
            table.was_asked(state.asked);
            let inner = Inner::new(state.id.into(), table, connection.link.clone(), auth, resume);
            let inner = Arc::new(inner);
            *inner.hold.lock() = Some(hold);
            inner.resume(state.data);
            let socket = Socket::from(inner);
            socket.join(state.rooms);
            connection.members.push(Member { phase: Phase::Open, ..Member::new(socket) });
        }
        Ok(connection)
    }
}
