//! The messages. Both sides check [`PROTOCOL`]; what is added later goes behind a name in [`Welcome::features`].

use std::net::{IpAddr, SocketAddr};

use base64::prelude::{BASE64_STANDARD_NO_PAD, Engine as _};
use serde::{Deserialize, Serialize};

use crate::tag::TagKey;

/// The version of this protocol, in [`Welcome`] and [`ToSupervisor::Hello`].
pub const PROTOCOL: u32 = 1;

/// From the supervisor to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// Who the worker is. The supervisor queues it before it starts the worker, so it is always the first message and
    /// can be read without waiting.
    Welcome(Welcome),
    /// The answer to [`ToSupervisor::Listen`].
    Bound {
        /// The request's id.
        id: u64,
        /// The address bound, or why it could not be.
        result: Result<SocketAddr, String>,
    },
    /// A connection; its descriptor travels with this message.
    Connection {
        /// Numbers all messages with a descriptor, from 1; see [`ToSupervisor::Accepted`].
        seq: u64,
        /// What it is.
        kind: ConnectionKind,
        /// The client, if it has an address. `None` for a leg, which names its client per request.
        peer: Option<SocketAddr>,
        /// This hand-off opens a new session: count it in [`ToSupervisor::Load`]'s `placements`.
        places: bool,
    },
    /// One end of a socket pair to another worker of the app; its descriptor travels with this message. The other
    /// worker is gone when it ends.
    Peer {
        /// As in `Connection`: the same sequence.
        seq: u64,
        /// Who is at the other end.
        id: PeerId,
    },
    /// Take no new sessions and keep the own ones until the deadline, then let go of them in paced batches. Answer
    /// [`ToSupervisor::Drained`] when no session is left.
    Drain {
        /// Milliseconds until the deadline.
        deadline_ms: u64,
    },
    /// The answer to [`ToSupervisor::Route`].
    Routed {
        /// The request's id.
        id: u64,
        /// Where the client should connect to, or why nobody can say.
        result: Result<Target, NoTarget>,
    },
    /// Freeze a session, to let it go on in another worker. Answered by [`ToSupervisor::Exported`], and settled by
    /// [`ToWorker::Settle`] if it was frozen.
    Export {
        /// Chosen by the supervisor; comes back in the answer.
        id: u64,
        /// The session's id.
        sid: String,
        /// The most bytes of state.
        limit: u32,
    },
    /// What becomes of a session that was asked for: it has moved, or it goes on here.
    Settle {
        /// The id of its export.
        id: u64,
        /// It goes on in another worker.
        moved: bool,
    },
    /// Take a session that another worker has frozen. Answered by [`ToSupervisor::Imported`].
    Import {
        /// Chosen by the supervisor; comes back in the answer.
        id: u64,
        /// The session.
        state: SessionState,
    },
    /// The connection of a session that was imported; its descriptor travels with this message.
    Attach {
        /// As in `Connection`: the same sequence.
        seq: u64,
        /// The id of its import.
        id: u64,
    },
    /// A session that was imported stays where it was.
    Forget {
        /// The id of its import.
        id: u64,
    },
    /// Leave now.
    Shutdown,
}

/// A session as the worker that has it describes it to the one that takes it. Base64 on the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionState(pub Vec<u8>);

impl From<SessionState> for String {
    fn from(state: SessionState) -> Self {
        BASE64_STANDARD_NO_PAD.encode(state.0)
    }
}

impl TryFrom<String> for SessionState {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64_STANDARD_NO_PAD.decode(text).map(Self)
    }
}

/// Where a client should connect to: a worker's own port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `http` or `https`.
    pub scheme: String,
    /// A name or an address as it stands in a URL.
    pub host: String,
    /// The worker's own port.
    pub port: u16,
}

/// Why a client cannot be told where to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoTarget {
    /// The app has no `route`.
    Off,
    /// No host is configured, and the request's `Host` is none that could be told.
    NoHost,
    /// No worker takes new sessions.
    NoWorker,
}

/// What a connection sent to a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    /// A client's own socket, with its next request unread.
    HandOff,
    /// The worker's end of a leg: the front door sends requests of many clients over it.
    Leg,
}

/// A worker of the same app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerId {
    /// Its slot.
    pub slot: u16,
    /// Which worker of that slot.
    pub generation: u8,
}

/// Who a worker is and how it should behave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL`] of the supervisor.
    pub protocol: u32,
    /// The app's name.
    pub app: String,
    /// The worker's slot.
    pub slot: u16,
    /// Which worker of that slot this is.
    pub generation: u8,
    /// The host's number, 0 to 63.
    pub node: u8,
    /// The key for session ids.
    pub tag_key: TagKey,
    /// How long a drain lasts when nobody says otherwise, in milliseconds: also when the channel ends without one.
    pub drain_timeout_ms: u64,
    /// How sessions are let go of at a drain's deadline.
    pub let_go: LetGo,
    /// How [`ToSupervisor::Route`] may be used. None: it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteLimits>,
    /// What this supervisor can do beyond `protocol`.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Bounds of the questions where clients should connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteLimits {
    /// How many may be under way from one worker.
    pub waiting: u32,
    /// How long one may take, in milliseconds.
    pub timeout_ms: u64,
}

/// How sessions are let go of: in batches, because all their clients come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetGo {
    /// Sessions per batch.
    pub batch: u32,
    /// Milliseconds between two batches.
    pub pause_ms: u64,
}

impl Default for LetGo {
    fn default() -> Self {
        Self { batch: 100, pause_ms: 50 }
    }
}

/// From a worker to the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToSupervisor {
    /// The worker's first message.
    Hello {
        /// [`PROTOCOL`] of the worker.
        protocol: u32,
        /// The version of the library in the worker.
        version: String,
        /// The worker's process id, as it sees it itself.
        pid: u32,
    },
    /// Asks for an address to be served. The supervisor binds it once for all workers of the app and answers
    /// [`ToWorker::Bound`].
    Listen {
        /// Chosen by the worker; comes back in the answer.
        id: u64,
        /// `ip:port`, or `host:port`.
        addr: String,
    },
    /// The worker serves.
    Ready,
    /// How much the worker carries. Sent when it changes, at a bounded rate.
    Load {
        /// Sessions open now.
        sessions: u32,
        /// Those of them on long polling.
        polling: u32,
        /// Those of them on a websocket.
        websocket: u32,
        /// All requests for a new session received so far, as marked by the front door: `places` of a hand-off, `place`
        /// of a leg's request.
        placements: u64,
    },
    /// Every message with a descriptor up to this `seq` has been taken. Until then the supervisor keeps its own copy of
    /// a handed-off socket, and gives it to another worker should this one die.
    Accepted {
        /// The highest `seq` taken.
        through: u64,
    },
    /// Asks where a client should connect to. Answered by [`ToWorker::Routed`]. Only where [`Welcome::route`] allows it.
    Route {
        /// Chosen by the worker; comes back in the answer.
        id: u64,
        /// The `Host` of the client's request.
        host: String,
        /// The client's address, where it is known.
        client: Option<IpAddr>,
    },
    /// The answer to [`ToWorker::Export`].
    Exported {
        /// The request's id.
        id: u64,
        /// The session, frozen now; none if it has to stay for the moment.
        state: Option<SessionState>,
    },
    /// The answer to [`ToWorker::Import`].
    Imported {
        /// The request's id.
        id: u64,
        /// Why the session cannot go on here, if it cannot.
        result: Result<(), String>,
    },
    /// The drain is over: no session is left.
    Drained,
}
